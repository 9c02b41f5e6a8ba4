/* SPDX-License-Identifier: MIT
 *
 * blob_file.c: kiln/mil.h: what a weight file holds.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "device/mil/blob.h"
#include "device/mil/half.h"
#include "kiln/mil.h"

static const char *const type_names[] = {[KILN_BLOB_FP16] = "fp16",
                                         [KILN_BLOB_FP32] = "fp32",
                                         [KILN_BLOB_UINT8] = "uint8",
                                         [KILN_BLOB_INT8] = "int8"};

static double element(const struct kiln_blob *blob, size_t i) {
    const unsigned char *at =
        (const unsigned char *)blob->payload + i * kiln_blob_element_bytes(blob->type);
    uint16_t half;
    float wide;
    switch (blob->type) {
        case KILN_BLOB_FP16:
            memcpy(&half, at, sizeof half);
            return (double)kiln_f16_to_f32(half);
        case KILN_BLOB_FP32:
            memcpy(&wide, at, sizeof wide);
            return (double)wide;
        case KILN_BLOB_UINT8:
            return *at;
        case KILN_BLOB_INT8:
            return (signed char)*at;
    }
    return 0.0;
}

static void describe(const struct kiln_blob *blob, uint64_t offset, struct kiln_mil_blob *out) {
    *out = (struct kiln_mil_blob){.offset = offset,
                                  .bytes = blob->bytes,
                                  .type = type_names[blob->type],
                                  .elements = blob->bytes / kiln_blob_element_bytes(blob->type),
                                  .least = DBL_MAX,
                                  .most = -DBL_MAX};
    for (size_t i = 0; i < out->elements; i++) {
        const double x = element(blob, i);
        if (!isfinite(x)) {
            out->not_numbers++;
            continue;
        }
        out->least = x < out->least ? x : out->least;
        out->most = x > out->most ? x : out->most;
    }
}

/* Descriptors follow payloads, 64-byte aligned, up to the end of the file. */
static enum kiln_status read_all(const char *path, const struct kiln_map *map,
                                 struct kiln_mil_weights *out, struct kiln_err *err) {
    for (uint64_t offset = KILN_BLOB_FIRST; offset < map->size;) {
        struct kiln_blob blob;
        KILN_TRY(kiln_blob_read(path, map->data, map->size, offset, &blob, err));
        struct kiln_mil_blob *more =
            out->blobs ? kiln_realloc(out->blobs, out->n, out->n + 1, sizeof *more)
                       : kiln_alloc(1, sizeof *more);
        KILN_REQUIRE(more, err, KILN_ENOMEM, "%s: no memory for %zu blobs", path, out->n + 1);
        out->blobs = more;
        describe(&blob, offset, &out->blobs[out->n++]);
        const uint64_t payload = (uint64_t)((const unsigned char *)blob.payload - map->data);
        offset = kiln_round_up(payload + blob.bytes, KILN_BLOB_HEADER);
    }
    return KILN_OK;
}

bool kiln_mil_weights_is(const char *path) {
    struct kiln_map map;
    struct kiln_err ignored;
    if (kiln_map_open(&map, path, &ignored) != KILN_OK) {
        return false;
    }
    const bool is = kiln_blob_is(map.data, map.size);
    kiln_map_close(&map);
    return is;
}

enum kiln_status kiln_mil_weights_read(const char *path, struct kiln_mil_weights *out,
                                       struct kiln_err *err) {
    struct kiln_map map;
    *out = (struct kiln_mil_weights){.n = 0};
    KILN_TRY(kiln_map_open(&map, path, err));
    const enum kiln_status status = read_all(path, &map, out, err);
    kiln_map_close(&map);
    return status;
}

void kiln_mil_weights_free(struct kiln_mil_weights *weights) {
    kiln_free(weights->blobs);
    *weights = (struct kiln_mil_weights){.n = 0};
}
