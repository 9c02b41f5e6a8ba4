/* SPDX-License-Identifier: MIT
 *
 * outputs.c: what training writes beside its state: checkpoints, models (trainer_int.h).
 */
#include <stdio.h>
#include <string.h>

#include "base/machine.h"
#include "train/cost.h"
#include "train/merged.h"
#include "train/trainer_int.h"

/* ---- checkpoints --------------------------------------------------------------------------------
 */

enum kiln_status kiln_outputs_save(struct kiln_trainer *t, struct kiln_err *err) {
    KILN_TRY(kiln_trainer_is_spread(t) ? kiln_shards_collect(t->shards, t->state, err) : KILN_OK);
    if (kiln_trainer_leads(t)) {
        kiln_saver_begin(t->saver);
    }
    return KILN_OK;
}

enum kiln_status kiln_outputs_collect(struct kiln_trainer *t, struct kiln_err *err) {
    if (!kiln_trainer_is_spread(t)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_shards_collect(t->shards, t->state, err));
    if (kiln_trainer_leads(t)) {
        struct kiln_cursor cursor = *kiln_state_cursor(t->state);
        cursor.spread = 0;
        kiln_state_commit(t->state, &cursor);
    }
    t->shards->spread = false;
    /* Nobody removes its file before rank 0 has said that it is not wanted. */
    return kiln_ranks_settle(t->ranks, KILN_OK, err);
}

enum kiln_status kiln_outputs_wait(struct kiln_trainer *t, struct kiln_err *err) {
    uint64_t step;
    const char *path;
    if (!kiln_trainer_leads(t)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_saver_wait(t->saver, &step, &path, err));
    if (path && kiln_trainer_is_spread(t)) {
        kiln_shards_drop(t->shards, t->state);
    }
    if (path && t->observer && t->observer->on_checkpoint) {
        const double began = kiln_now_s();
        t->observer->on_checkpoint(t->observer->context, step, path);
        kiln_cost_leave_out(t, began);
    }
    return KILN_OK;
}

/* For PEFT, and for --adapter. */
static enum kiln_status save_adapter(struct kiln_trainer *t, struct kiln_err *err) {
    char path[4200];
    snprintf(path, sizeof path, "%s/adapter", t->folder);
    return kiln_lora_save(path, t->table, kiln_state_region(t->state, KILN_WEIGHTS),
                          t->settings->model, true, err);
}

enum kiln_status kiln_outputs_model(struct kiln_trainer *t, struct kiln_err *err) {
    char path[4200];
    struct kiln_merged merged;
    if (!kiln_trainer_leads(t)) {
        return KILN_OK;
    }
    snprintf(path, sizeof path, "%s/model.bin", t->folder);
    KILN_TRY(kiln_merged_make(t->table, kiln_state_region(t->state, KILN_WEIGHTS), &merged, err));
    const enum kiln_status status =
        kiln_checkpoint_save_run(path, merged.table, merged.weights, err);
    kiln_merged_free(&merged);
    if (status == KILN_OK && t->table->trained > 0) {
        KILN_TRY(save_adapter(t, err));
    }
    kiln_state_behind(t->state, KILN_WEIGHTS, 0, t->table->size);
    return status;
}
