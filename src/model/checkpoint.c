/* SPDX-License-Identifier: MIT
 *
 * checkpoint.c: opening a model file of any known format. See checkpoint.h for what a format is.
 */
#include "model/checkpoint.h"

#include <string.h>

#include "base/mem.h"
#include "model/stored_dims.h"
#include "model/table.h"

/* Asked in turn. llama2.c's version 0 has no mark of its own: it comes last and takes all files. */
static const struct kiln_checkpoint_format *const formats[] = {
    &kiln_format_hf,         &kiln_format_gguf,       &kiln_format_own,
    &kiln_format_llama2c_v1, &kiln_format_llama2c_v2, &kiln_format_llama2c,
};

/* Files that people try, by their first bytes, with the way to something kiln reads. */
static const struct {
    const char *magic;
    size_t size;
    const char *is;
} foreign[] = {
    {"PK\003\004", 4, "a PyTorch checkpoint; save it as a folder with save_pretrained"},
    {"\x89HDF", 4, "an HDF5 file"},
};

static enum kiln_status refuse_foreign(const struct kiln_checkpoint *checkpoint,
                                       struct kiln_err *err) {
    const struct kiln_map *map = &checkpoint->map;
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        if (map->size >= foreign[i].size &&
            memcmp(map->data, foreign[i].magic, foreign[i].size) == 0) {
            return KILN_FAIL(err, KILN_EINPUT, "model %s is %s", checkpoint->path, foreign[i].is);
        }
    }
    /* safetensors: the length of the header, then its JSON */
    KILN_REQUIRE(map->size < 10 || memcmp(map->data + 6, "\0\0{\"", 4) != 0, err, KILN_EINPUT,
                 "model %s is a safetensors file, which does not say what it computes; name the "
                 "folder that holds it and its config.json",
                 checkpoint->path);
    return KILN_OK;
}

static enum kiln_status detect(struct kiln_checkpoint *checkpoint, bool folder,
                               struct kiln_err *err) {
    KILN_TRY(refuse_foreign(checkpoint, err));
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        if (formats[i]->folder == folder && formats[i]->recognizes(checkpoint)) {
            KILN_TRY(formats[i]->open(checkpoint, err));
            checkpoint->format = formats[i]; /* set last: close undoes a complete open only */
            return KILN_OK;
        }
    }
    return KILN_FAIL(err, KILN_EINPUT,
                     "model %s is a folder without config.json; expected a Hugging Face folder, a "
                     "llama2.c .bin or a GGUF file",
                     checkpoint->path);
}

static enum kiln_status open_path(struct kiln_checkpoint *checkpoint, const char *path,
                                  struct kiln_err *err) {
    const bool folder = kiln_path_is_dir(path);
    checkpoint->path = kiln_strdup(path);
    KILN_REQUIRE(checkpoint->path != NULL, err, KILN_ENOMEM, "open model %s: not enough memory",
                 path);
    if (!folder) {
        KILN_TRY(kiln_map_open(&checkpoint->map, path, err));
    }
    return detect(checkpoint, folder, err);
}

enum kiln_status kiln_checkpoint_open(const char *path, struct kiln_checkpoint **out,
                                      struct kiln_err *err) {
    *out = NULL;
    struct kiln_checkpoint *checkpoint = kiln_alloc(1, sizeof *checkpoint);
    KILN_REQUIRE(checkpoint != NULL, err, KILN_ENOMEM, "open model %s: not enough memory", path);
    enum kiln_status status = open_path(checkpoint, path, err);
    if (status != KILN_OK) {
        kiln_checkpoint_close(checkpoint);
        return status;
    }
    *out = checkpoint;
    return KILN_OK;
}

void kiln_checkpoint_close(struct kiln_checkpoint *checkpoint) {
    if (checkpoint == NULL) {
        return;
    }
    if (checkpoint->format != NULL && checkpoint->format->close != NULL) {
        checkpoint->format->close(checkpoint);
    }
    kiln_map_close(&checkpoint->map);
    kiln_free(checkpoint->path);
    kiln_free(checkpoint);
}

const struct kiln_dims *kiln_checkpoint_dims(const struct kiln_checkpoint *checkpoint) {
    return &checkpoint->dims;
}

const char *kiln_checkpoint_format(const struct kiln_checkpoint *checkpoint) {
    return checkpoint->format->name;
}

enum kiln_dtype kiln_checkpoint_dtype(const struct kiln_checkpoint *checkpoint,
                                      const struct kiln_tensor *tensor) {
    return checkpoint->format->dtype != NULL ? checkpoint->format->dtype(checkpoint, tensor)
                                             : KILN_DTYPE_F32;
}

/* Names the first size in which file and table differ. */
static enum kiln_status same_tensors(const char *path, const struct kiln_dims *has,
                                     const struct kiln_dims *wants, struct kiln_err *err) {
    const struct kiln_stored_dims a = kiln_dims_store(has), b = kiln_dims_store(wants);
    const struct kiln_stored_field *field = kiln_stored_differ(&a, &b, true);
    char found[40], wanted[40];
    if (field == NULL) {
        return KILN_OK;
    }
    kiln_stored_text(&a, field, found, sizeof found);
    kiln_stored_text(&b, field, wanted, sizeof wanted);
    return KILN_FAIL(err, KILN_EUSAGE, "model %s: %s %s in the file; asked for %s", path,
                     field->name, found, wanted);
}

enum kiln_status kiln_checkpoint_load(const struct kiln_checkpoint *checkpoint,
                                      const struct kiln_table *table, float *weights,
                                      struct kiln_err *err) {
    KILN_TRY(same_tensors(checkpoint->path, &checkpoint->dims, &table->dims, err));
    KILN_TRY(checkpoint->format->load(checkpoint, table, weights, err));
    kiln_table_clear_gaps(table, weights);
    return KILN_OK;
}

/* Is every one of n floats finite? All exponent bits set means infinity or NaN; without a branch
 * in the loop the compiler makes vectors of it. */
static bool all_finite(const float *values, size_t n) {
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bad |= (bits & 0x7F800000u) == 0x7F800000u;
    }
    return bad == 0;
}

static enum kiln_status name_first_bad(const struct kiln_checkpoint *checkpoint,
                                       const struct kiln_tensor *tensor, const float *values,
                                       size_t first, size_t n, struct kiln_err *err) {
    while (n > 1 && all_finite(values + first, 1)) {
        first++;
        n--;
    }
    return KILN_FAIL(err, KILN_EINPUT, "model %s: %s element %zu is %g, not a finite number",
                     checkpoint->path, tensor->name, first, (double)values[first]);
}

enum kiln_status kiln_checkpoint_finite(const struct kiln_checkpoint *checkpoint,
                                        const struct kiln_tensor *tensor, const float *values,
                                        struct kiln_err *err) {
    const size_t n = tensor->rows * tensor->cols;
    return all_finite(values, n) ? KILN_OK : name_first_bad(checkpoint, tensor, values, 0, n, err);
}
