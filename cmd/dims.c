/* SPDX-License-Identifier: MIT
 *
 * dims.c: the sizes that a command's model flags name.
 */
#include "dims.h"

#include "files.h"
#include "kiln/train.h"

/* Sizes of the preset, file or run that is named. */
static enum kiln_status named_dims(const char *name, struct kiln_dims *out, struct kiln_err *err) {
    const struct kiln_preset *preset = kiln_preset_find(name);
    struct kiln_checkpoint *file = NULL;
    if (preset != NULL) {
        *out = preset->dims;
        return KILN_OK;
    }
    if (is_run_folder(name)) {
        struct kiln_run_peek peek;
        KILN_TRY(kiln_run_peek(name, &peek, err));
        *out = peek.dims;
        return KILN_OK;
    }
    KILN_TRY(kiln_checkpoint_open(name, &file, err));
    *out = *kiln_checkpoint_dims(file);
    kiln_checkpoint_close(file);
    return KILN_OK;
}

static void override(size_t *size, uint64_t value) {
    if (value != KILN_UNSET) {
        *size = value;
    }
}

static bool resized(const struct kiln_settings *s) {
    return s->dim != KILN_UNSET || s->hidden != KILN_UNSET || s->layers != KILN_UNSET ||
           s->vocab != KILN_UNSET;
}

enum kiln_status dims_choose(const struct kiln_settings *s, struct kiln_dims *dims,
                             struct kiln_err *err) {
    KILN_TRY(named_dims(s->model != NULL ? s->model : "stories15m", dims, err));
    override(&dims->dim, s->dim);
    override(&dims->hidden, s->hidden);
    override(&dims->heads, s->heads);
    /* Other heads without other kv-heads: as many, as in the presets. */
    override(&dims->kv_heads, s->kv_heads != KILN_UNSET ? s->kv_heads : s->heads);
    override(&dims->layers, s->layers);
    override(&dims->vocab, s->vocab);
    override(&dims->seq, s->seq);
    if (s->dim != KILN_UNSET || s->heads != KILN_UNSET) {
        dims->head_size = 0; /* else of the model, where it may be its own */
    }
    kiln_settings_arithmetic(s, dims);
    return kiln_dims_check(dims, err);
}

enum kiln_status model_open_as(const struct kiln_settings *s, const char *name, uint64_t seed,
                               struct kiln_model *out, struct kiln_err *err) {
    KILN_TRY(kiln_model_open(name, seed, out, err));
    kiln_settings_arithmetic(s, &out->table->dims);
    const enum kiln_status status =
        s->adapter != NULL ? kiln_model_adapt(out, s->adapter, err) : KILN_OK;
    if (status != KILN_OK) {
        kiln_model_close(out);
    }
    return status;
}

const char *dims_name(const struct kiln_settings *s) {
    return s->model != NULL ? s->model : resized(s) ? "own sizes" : "stories15m";
}
