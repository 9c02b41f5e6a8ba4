/* SPDX-License-Identifier: MIT
 *
 * save.c: writing a model in any format: whole under a temporary name, proved there by the caller,
 * then named.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/io.h"
#include "base/leftovers.h"
#include "model/checkpoint.h"
#include "model/numbers.h"

static const struct kiln_save_format *const formats[KILN_FORMATS] = {
    [KILN_FORMAT_LLAMA2C] = &kiln_save_llama2c,
    [KILN_FORMAT_HF] = &kiln_save_hf,
    [KILN_FORMAT_GGUF] = &kiln_save_gguf,
};

const char *kiln_format_name(enum kiln_format format) { return formats[format]->name; }

enum kiln_format kiln_format_of(const char *path) {
    return kiln_path_ends_any_case(path, ".bin")    ? KILN_FORMAT_LLAMA2C
           : kiln_path_ends_any_case(path, ".gguf") ? KILN_FORMAT_GGUF
                                                    : KILN_FORMAT_HF;
}

enum kiln_status kiln_format_check(enum kiln_format format, const struct kiln_dims *dims,
                                   enum kiln_dtype dtype, struct kiln_err *err) {
    return formats[format]->check(dims, dtype, err);
}

/* ---- rounding ------------------------------------------------------------------------------- */

enum kiln_status kiln_checkpoint_round(enum kiln_format format, enum kiln_dtype dtype,
                                       const struct kiln_tensor *tensor, const float *from,
                                       float *to, struct kiln_err *err) {
    const enum kiln_dtype stored = formats[format]->dtype(tensor, dtype);
    unsigned char *row = kiln_alloc(kiln_dtype_bytes(stored, tensor->cols), 1);
    KILN_REQUIRE(row != NULL, err, KILN_ENOMEM, "round %s: not enough memory", tensor->name);
    bool fits = true;
    for (size_t r = 0; r < tensor->rows; r++) {
        fits = kiln_dtype_encode(stored, row, from + r * tensor->cols, tensor->cols) && fits;
        kiln_dtype_decode(stored, to + r * tensor->cols, row, tensor->cols);
    }
    kiln_free(row);
    KILN_REQUIRE(fits, err, KILN_EUNSUPPORTED, "%s has a number beyond the largest of %s",
                 tensor->name, kiln_dtype_name(stored));
    return KILN_OK;
}

/* ---- one file ------------------------------------------------------------------------------- */

/* What was written is read by the caller before it has its name. */
static enum kiln_status prove(struct kiln_durable *file, const struct kiln_save_options *options,
                              const char *path, struct kiln_err *err) {
    if (options->prove == NULL) {
        return KILN_OK;
    }
    KILN_REQUIRE(fflush(file->stream) == 0, err, KILN_EIO, "write %s: the disk may be full",
                 file->temporary);
    return options->prove(options->context, path, err);
}

static enum kiln_status save_file(const struct kiln_save_format *format, const char *path,
                                  const struct kiln_table *table, const float *weights,
                                  const struct kiln_save_options *options, bool alone,
                                  struct kiln_err *err) {
    struct kiln_durable file;
    KILN_TRY(kiln_durable_open(&file, path, err));
    enum kiln_status status = format->write(&file, table, weights, options, err);
    if (status == KILN_OK && alone) {
        status = prove(&file, options, file.temporary, err);
    }
    if (status != KILN_OK) {
        kiln_err_rename(err, file.temporary, path);
        kiln_durable_abort(&file);
        return status;
    }
    return kiln_durable_commit(&file, err);
}

/* ---- a folder ------------------------------------------------------------------------------- */

static enum kiln_status fill_folder(const struct kiln_save_format *format, const char *folder,
                                    const struct kiln_table *table, const float *weights,
                                    const struct kiln_save_options *options, struct kiln_err *err) {
    char *path = kiln_path_join(folder, format->weights_file);
    KILN_REQUIRE(path != NULL, err, KILN_ENOMEM, "write %s: not enough memory", folder);
    enum kiln_status status = save_file(format, path, table, weights, options, false, err);
    kiln_free(path);
    KILN_TRY(status);
    KILN_TRY(format->describe(folder, &table->dims, options, err));
    if (options->add != NULL) {
        KILN_TRY(options->add(options->context, folder, err));
    }
    if (options->prove != NULL) {
        KILN_TRY(options->prove(options->context, folder, err));
    }
    return kiln_sync_dir(folder, err);
}

/* Only a model's folder is replaced, with nothing of others in it: nobody's home. */
static enum kiln_status check_target(const struct kiln_save_format *format, const char *path,
                                     const struct kiln_save_options *options,
                                     struct kiln_err *err) {
    const bool folder = format->weights_file != NULL;
    if (!kiln_path_exists(path)) {
        return KILN_OK;
    }
    KILN_REQUIRE(options->replace, err, KILN_EEXISTS, "write %s: it exists already", path);
    KILN_REQUIRE(folder == kiln_path_is_dir(path), err, KILN_EEXISTS, "write %s: it is %s", path,
                 folder ? "a file, and the model is written as a folder" : "a folder");
    if (folder) {
        char *config = kiln_path_join(path, "config.json");
        const bool model = config != NULL && kiln_path_exists(config);
        kiln_free(config);
        char other[300];
        KILN_REQUIRE(model, err, KILN_EEXISTS,
                     "write %s: a folder without config.json is no model's and is not replaced",
                     path);
        KILN_REQUIRE(
            !kiln_folder_has_others(path, format->own, format->n_own, other, sizeof other), err,
            KILN_EEXISTS,
            "write %s: it holds %s, which kiln does not write and would be lost: move it away, or "
            "choose another name",
            path, other);
    }
    return KILN_OK;
}

static enum kiln_status make_folder(const struct kiln_save_format *format, const char *temporary,
                                    const char *path, const struct kiln_table *table,
                                    const float *weights, const struct kiln_save_options *options,
                                    struct kiln_err *err) {
    KILN_TRY(kiln_remove_tree(temporary, err));
    KILN_TRY(kiln_make_dirs(temporary, err));
    enum kiln_status status = fill_folder(format, temporary, table, weights, options, err);
    if (status == KILN_OK) {
        status = kiln_durable_replace(temporary, path, err);
    }
    if (status != KILN_OK) {
        kiln_err_rename(err, temporary, path);
    }
    struct kiln_err why; /* the first failure is what is told */
    if (status != KILN_OK && kiln_remove_tree(temporary, &why) != KILN_OK) {
        return status;
    }
    return status;
}

static enum kiln_status save_folder(const struct kiln_save_format *format, const char *path,
                                    const struct kiln_table *table, const float *weights,
                                    const struct kiln_save_options *options, struct kiln_err *err) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    char *final = kiln_strndup(path, n);
    char *temporary = kiln_alloc(n + 40, 1);
    enum kiln_status status;
    if (final == NULL || temporary == NULL) {
        status = KILN_FAIL(err, KILN_ENOMEM, "write %s: not enough memory", path);
    } else {
        snprintf(temporary, n + 40, "%s.tmp-%ld", final, (long)getpid());
        status = make_folder(format, temporary, final, table, weights, options, err);
    }
    kiln_free(final);
    kiln_free(temporary);
    return status;
}

enum kiln_status kiln_checkpoint_save(enum kiln_format format, const char *path,
                                      const struct kiln_table *table, const float *weights,
                                      const struct kiln_save_options *options,
                                      struct kiln_err *err) {
    static const struct kiln_save_options plain;
    const struct kiln_save_format *how = formats[format];
    options = options != NULL ? options : &plain;
    KILN_REQUIRE(table->lora.rank == 0 || format == KILN_FORMAT_LLAMA2C, err, KILN_EUNSUPPORTED,
                 "write %s: a %s model has no place for adapters; merge them first", path,
                 how->name);
    KILN_TRY(how->check(&table->dims, options->dtype, err));
    KILN_TRY(check_target(how, path, options, err));
    return how->weights_file != NULL ? save_folder(how, path, table, weights, options, err)
                                     : save_file(how, path, table, weights, options, true, err);
}
