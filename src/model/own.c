/* SPDX-License-Identifier: MIT
 *
 * own.c: kiln's own model file, for runs of models that a llama2.c .bin has no place for.
 *
 *   0    "KILNMD01"
 *   8    uint32 byte order 0x01020304, uint32 version
 *   16   struct kiln_stored_dims
 *   184  uint64 number of parameters
 *   192  float, the tensors in the order of the table, nothing between them
 *
 * docs/formats.md has it in full. What damage is, the checksums of a checkpoint tell; here the
 * exact size of the file is the check.
 */
#include <inttypes.h>
#include <string.h>

#include "model/checkpoint.h"
#include "model/stored_dims.h"
#include "model/table.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers lie in the file as in memory");

enum { VERSION = 1 };
#define BYTE_ORDER_MARK 0x01020304u

static const char magic[8] = {'K', 'I', 'L', 'N', 'M', 'D', '0', '1'};

struct header {
    char magic[8];
    uint32_t byte_order, version;
    struct kiln_stored_dims dims;
    uint64_t parameters;
};
_Static_assert(sizeof(struct header) == 192, "the header has no padding");

/* ---- reading -------------------------------------------------------------------------------- */

static bool own_recognizes(const struct kiln_checkpoint *checkpoint) {
    const struct kiln_map *map = &checkpoint->map;
    return map->size >= sizeof magic && memcmp(map->data, magic, sizeof magic) == 0;
}

/* The dims make a model of so many parameters, and the file has them all. */
static enum kiln_status check_size(const struct kiln_checkpoint *checkpoint,
                                   const struct header *header, struct kiln_err *err) {
    struct kiln_table *table;
    KILN_TRY(kiln_table_create(&checkpoint->dims, &table, err));
    const size_t parameters = table->parameters;
    kiln_table_destroy(table);
    KILN_REQUIRE(header->parameters == parameters, err, KILN_EINPUT,
                 "model %s: %" PRIu64 " parameters in the header, its sizes make %zu",
                 checkpoint->path, header->parameters, parameters);
    const size_t bytes = sizeof *header + parameters * sizeof(float);
    KILN_REQUIRE(checkpoint->map.size == bytes, err, KILN_EINPUT,
                 "model %s: %zu parameters make a file of %zu bytes; this one has %zu",
                 checkpoint->path, parameters, bytes, checkpoint->map.size);
    return KILN_OK;
}

static enum kiln_status own_open(struct kiln_checkpoint *checkpoint, struct kiln_err *err) {
    struct header header;
    struct kiln_err why;
    KILN_REQUIRE(checkpoint->map.size >= sizeof header, err, KILN_EINPUT,
                 "model %s: %zu bytes, its header alone has %zu; the file is cut short",
                 checkpoint->path, checkpoint->map.size, sizeof header);
    memcpy(&header, checkpoint->map.data, sizeof header);
    KILN_REQUIRE(header.byte_order == BYTE_ORDER_MARK, err, KILN_EINPUT,
                 "model %s: written with another byte order", checkpoint->path);
    KILN_REQUIRE(header.version == VERSION, err, KILN_EINPUT,
                 "model %s: version %u, this kiln reads version %d: use the kiln that wrote it",
                 checkpoint->path, header.version, VERSION);
    checkpoint->dims = kiln_dims_restore(&header.dims);
    KILN_REQUIRE(kiln_dims_check(&checkpoint->dims, &why) == KILN_OK, err, KILN_EINPUT,
                 "model %s: %.400s", checkpoint->path, why.message);
    return check_size(checkpoint, &header, err);
}

static enum kiln_status own_load(const struct kiln_checkpoint *checkpoint,
                                 const struct kiln_table *table, float *weights,
                                 struct kiln_err *err) {
    const unsigned char *from = checkpoint->map.data + sizeof(struct header);
    for (size_t i = 0; i < table->n_base; i++) { /* adapters are files of their own */
        const struct kiln_tensor *tensor = &table->tensors[i];
        memcpy(weights + tensor->offset, from, kiln_elements(tensor) * sizeof *weights);
        KILN_TRY(kiln_checkpoint_finite(checkpoint, tensor, weights + tensor->offset, err));
        from += kiln_elements(tensor) * sizeof(float);
    }
    return KILN_OK;
}

const struct kiln_checkpoint_format kiln_format_own = {
    .name = "kiln",
    .recognizes = own_recognizes,
    .open = own_open,
    .load = own_load,
};

/* ---- writing -------------------------------------------------------------------------------- */

static enum kiln_status write_all(struct kiln_durable *file, const struct kiln_table *table,
                                  const float *weights, struct kiln_err *err) {
    struct header header = {.byte_order = BYTE_ORDER_MARK,
                            .version = VERSION,
                            .dims = kiln_dims_store(&table->dims),
                            .parameters = table->parameters};
    memcpy(header.magic, magic, sizeof magic);
    KILN_TRY(kiln_durable_write(file, &header, sizeof header, err));
    for (size_t i = 0; i < table->n_base; i++) { /* adapters are files of their own */
        const struct kiln_tensor *tensor = &table->tensors[i];
        KILN_TRY(kiln_durable_write(file, weights + tensor->offset,
                                    kiln_elements(tensor) * sizeof *weights, err));
    }
    return KILN_OK;
}

enum kiln_status kiln_checkpoint_save_run(const char *path, const struct kiln_table *table,
                                          const float *weights, struct kiln_err *err) {
    struct kiln_durable file;
    struct kiln_err no_place;
    if (kiln_llama2c_check(&table->dims, &no_place) == KILN_OK) {
        return kiln_checkpoint_save_llama2c(path, table, weights, err);
    }
    KILN_TRY(kiln_durable_open(&file, path, err));
    const enum kiln_status status = write_all(&file, table, weights, err);
    if (status != KILN_OK) {
        kiln_durable_abort(&file);
        return status;
    }
    return kiln_durable_commit(&file, err);
}
