/* SPDX-License-Identifier: MIT
 *
 * outputs.c: what training writes beside its state: samples, checkpoints, models (trainer_int.h).
 */
#include <stdio.h>
#include <string.h>

#include "train/merged.h"
#include "train/trainer_int.h"

/* ---- samples and models ------------------------------------------------------------------------
 */

struct sample_text {
    char *text;
    size_t n, room;
};

static bool add_piece(void *context, const char *piece, size_t size) {
    struct sample_text *s = context;
    if (s->n + size + 1 > s->room) {
        size = s->room - s->n - 1;
    }
    memcpy(s->text + s->n, piece, size);
    s->n += size;
    s->text[s->n] = '\0';
    return s->n + 1 < s->room;
}

enum kiln_status kiln_outputs_sample(struct kiln_trainer *t, uint64_t step, struct kiln_err *err) {
    char text[8192] = "";
    struct sample_text out = {text, 0, sizeof text};
    struct kiln_generate_options options = {.prompt = t->settings->prompt,
                                            .tokens = t->table->dims.seq,
                                            .temperature = 0.8,
                                            .top_p = 0.95,
                                            .seed = t->settings->seed + step};
    struct kiln_generate_result result;
    struct kiln_session *session = t->session, *own = NULL;
    struct kiln_merged merged = {.table = NULL};
    enum kiln_status status = KILN_OK;
    if (session) {
        KILN_TRY(kiln_executor_load_forward(&t->engine.executor, err)); /* it reads the kernels */
    } else {
        /* Kernels come and go, or adapters are beside them: pack the weights for this sample. */
        const struct kiln_session_options packs = {.packed = NULL};
        KILN_TRY(
            kiln_merged_make(t->table, kiln_state_region(t->state, KILN_WEIGHTS), &merged, err));
        status = kiln_session_open(merged.table, merged.weights, t->engine.pool, &packs, &own, err);
        session = own;
    }
    if (status == KILN_OK) {
        status =
            kiln_session_generate(session, t->tokenizer, &options, add_piece, &out, &result, err);
    }
    kiln_session_close(own);
    kiln_merged_free(&merged);
    KILN_TRY(status);
    if (t->observer && t->observer->on_sample) {
        t->observer->on_sample(t->observer->context, step, text);
    }
    return KILN_OK;
}

/* ---- checkpoints --------------------------------------------------------------------------------
 */

enum kiln_status kiln_outputs_wait(struct kiln_trainer *t, struct kiln_err *err) {
    uint64_t step;
    const char *path;
    KILN_TRY(kiln_saver_wait(t->saver, &step, &path, err));
    if (path && t->observer && t->observer->on_checkpoint) {
        t->observer->on_checkpoint(t->observer->context, step, path);
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
