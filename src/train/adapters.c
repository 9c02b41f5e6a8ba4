/* SPDX-License-Identifier: MIT */
#include "train/adapters.h"

#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "state/checkpoint.h"

enum kiln_status kiln_adapters_begin(const struct kiln_dims *dims, const struct kiln_lora *lora,
                                     struct kiln_model *out, struct kiln_err *err) {
    *out = (struct kiln_model){.table = NULL};
    KILN_TRY(kiln_table_create_lora(dims, lora, &out->table, err));
    out->weights = kiln_alloc(out->table->size, sizeof *out->weights);
    if (out->weights == NULL) {
        const size_t n = out->table->size;
        kiln_model_close(out);
        return KILN_FAIL(err, KILN_ENOMEM, "no memory for %zu weights and adapters", n);
    }
    return KILN_OK;
}

/* ---- those of a run ---------------------------------------------------------------------------
 */

/* The weights as they lie in a state file. */
static enum kiln_status read_state(const char *path, struct kiln_model *out, struct kiln_err *err) {
    struct kiln_map map;
    KILN_TRY(kiln_map_open(&map, path, err));
    const size_t bytes = out->table->size * sizeof(float), found = map.size;
    const bool whole = found >= KILN_STATE_WEIGHTS_AT + bytes;
    if (whole) {
        memcpy(out->weights, map.data + KILN_STATE_WEIGHTS_AT, bytes);
    }
    kiln_map_close(&map);
    KILN_REQUIRE(whole, err, KILN_EDAMAGED,
                 "state %s: %zu bytes, its weights end at %zu: the file is truncated", path, found,
                 KILN_STATE_WEIGHTS_AT + bytes);
    return KILN_OK;
}

static enum kiln_status of_state(const char *path, struct kiln_model *out, struct kiln_err *err) {
    struct kiln_dims dims;
    struct kiln_lora lora;
    struct kiln_cursor cursor, after;
    KILN_TRY(kiln_state_peek(path, &dims, &lora, &cursor, err));
    KILN_REQUIRE(cursor.spread == 0, err, KILN_EBUSY,
                 "state %s: its weights are spread over the files of %llu ranks while they train; "
                 "where none does, kiln train --resume puts them together; or name a checkpoint "
                 "(checkpoints/step-N beside it)",
                 path, (unsigned long long)cursor.spread);
    KILN_TRY(kiln_adapters_begin(&dims, &lora, out, err));
    KILN_TRY(read_state(path, out, err));
    KILN_TRY(kiln_state_peek(path, &dims, &lora, &after, err));
    const bool changing = cursor.phase == KILN_PHASE_UPDATE || cursor.phase == KILN_PHASE_OUTER;
    KILN_REQUIRE(!changing && after.generation == cursor.generation, err, KILN_EBUSY,
                 "state %s: inside an update, some adapters are of the next step; stop the run, or "
                 "resume it when no process trains it",
                 path);
    return KILN_OK;
}

static enum kiln_status of_checkpoint(const char *folder, struct kiln_model *out,
                                      struct kiln_err *err) {
    struct kiln_checkpoint_info info;
    KILN_TRY(kiln_checkpoint_peek(folder, &info, err));
    KILN_TRY(kiln_adapters_begin(&info.dims, &info.lora, out, err));
    return info.lora.rank > 0
               ? kiln_checkpoint_adapters(folder, &info, out->weights + out->table->trained, err)
               : KILN_OK;
}

enum kiln_status kiln_run_adapters(const char *folder, struct kiln_model *out,
                                   struct kiln_err *err) {
    char path[4200];
    *out = (struct kiln_model){.table = NULL};
    KILN_REQUIRE(strlen(folder) < sizeof path - 32, err, KILN_EINPUT, "adapters: path too long");
    snprintf(path, sizeof path, "%s/state.kiln", folder);
    enum kiln_status status;
    if (kiln_path_exists(path)) {
        status = of_state(path, out, err);
    } else {
        snprintf(path, sizeof path, "%s/resume.kiln", folder);
        status = kiln_path_exists(path)
                     ? of_checkpoint(folder, out, err)
                     : KILN_FAIL(err, KILN_EINPUT,
                                 "%s: neither a run nor a checkpoint: adapters are in none else",
                                 folder);
    }
    if (status == KILN_OK && out->table->trained == 0) {
        status = KILN_FAIL(err, KILN_EINPUT, "%s: trained whole, without adapters", folder);
    }
    if (status != KILN_OK) {
        kiln_model_close(out);
    }
    return status;
}

/* ---- those of a folder ------------------------------------------------------------------------
 */

enum kiln_status kiln_model_adapt(struct kiln_model *model, const char *folder,
                                  struct kiln_err *err) {
    struct kiln_lora lora;
    struct kiln_model with;
    KILN_REQUIRE(!model->adapted, err, KILN_EUSAGE,
                 "--adapter %s: the adapters of the run that %s is of are in it already; leave it "
                 "out, or name the model that the run began with",
                 folder, model->name);
    KILN_TRY(kiln_lora_peek(folder, &lora, err));
    KILN_TRY(kiln_adapters_begin(&model->table->dims, &lora, &with, err));
    memcpy(with.weights, model->weights, model->table->size * sizeof *model->weights);
    const enum kiln_status status = kiln_lora_load(folder, with.table, with.weights, err);
    if (status == KILN_OK) {
        kiln_lora_merge(with.table, with.weights);
        memcpy(model->weights, with.weights, model->table->size * sizeof *model->weights);
    }
    kiln_model_close(&with);
    return status;
}
