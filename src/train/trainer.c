/* SPDX-License-Identifier: MIT */
#include "train/trainer.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/io.h"
#include "base/kill_point.h"
#include "base/machine.h"

static void notice(const struct kiln_trainer *t, const char *text) {
    if (t->observer && t->observer->on_notice) {
        t->observer->on_notice(t->observer->context, text);
    }
}

static bool stopping(const struct kiln_trainer *t) { return t->stop && *t->stop != 0; }

/* ---- evaluation and samples -------------------------------------------------------------------
 */

enum kiln_status kiln_trainer_evaluate(struct kiln_trainer *t, double *loss, struct kiln_err *err) {
    const struct kiln_data *data = t->val_data ? t->val_data : t->data;
    enum kiln_split split = t->val_data ? KILN_TRAIN : KILN_VALIDATION;
    size_t windows = kiln_data_windows(data, split), batch = t->plan.shape.batch;
    size_t seq = t->plan.shape.seq;
    *loss = (double)NAN;
    if (windows == 0) {
        return KILN_OK;
    }
    /* Whole micro-batches; a set smaller than one is read round and round. */
    size_t wanted = windows < t->settings->eval_windows ? windows : t->settings->eval_windows;
    size_t batches = wanted < batch ? 1 : wanted / batch;
    double sum = 0.0;
    for (size_t i = 0; i < batches; i++) {
        for (size_t b = 0; b < batch; b++) {
            kiln_data_window(data, split, (i * batch + b) % windows, t->tokens + b * seq,
                             t->targets + b * seq);
        }
        double part;
        KILN_TRY(
            kiln_pass_evaluate(&t->memory, &t->plan, t->device, t->tokens, t->targets, &part, err));
        sum += part;
    }
    *loss = sum / (double)(batches * batch * seq);
    return KILN_OK;
}

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

static enum kiln_status sample(struct kiln_trainer *t, uint64_t step, struct kiln_err *err) {
    char text[8192] = "";
    struct sample_text out = {text, 0, sizeof text};
    struct kiln_generate_options options = {.prompt = t->settings->prompt,
                                            .tokens = t->table->dims.seq,
                                            .temperature = 0.8,
                                            .top_p = 0.95,
                                            .seed = t->settings->seed + step};
    struct kiln_generate_result result;
    KILN_TRY(
        kiln_session_generate(t->session, t->tokenizer, &options, add_piece, &out, &result, err));
    if (t->observer && t->observer->on_sample) {
        t->observer->on_sample(t->observer->context, step, text);
    }
    return KILN_OK;
}

/* ---- checkpoints --------------------------------------------------------------------------------
 */

/* Before weights or moments change, and at the end: the checkpoint under way is on the disk. */
static enum kiln_status wait_for_save(struct kiln_trainer *t, struct kiln_err *err) {
    uint64_t step;
    const char *path;
    KILN_TRY(kiln_saver_wait(t->saver, &step, &path, err));
    if (path && t->observer && t->observer->on_checkpoint) {
        t->observer->on_checkpoint(t->observer->context, step, path);
    }
    return KILN_OK;
}

static enum kiln_status save_model(struct kiln_trainer *t, struct kiln_err *err) {
    char path[4200];
    snprintf(path, sizeof path, "%s/model.bin", t->folder);
    return kiln_checkpoint_save_llama2c(path, t->table, kiln_state_region(t->state, KILN_WEIGHTS),
                                        err);
}

/* ---- the window --------------------------------------------------------------------------------
 */

/* All micro-batches of a window. *loss gets the mean over its tokens. Leaves early, with nothing
 * of the state changed, when asked to stop. */
static enum kiln_status run_window(struct kiln_trainer *t, const struct kiln_cursor *cursor,
                                   double *loss, struct kiln_err *err) {
    size_t batch = t->plan.shape.batch, seq = t->plan.shape.seq, accum = t->settings->accum;
    float scale = (float)(1.0 / (double)(batch * seq * accum));
    double sum = 0.0;
    for (size_t i = 0; i < accum; i++) {
        KILN_REQUIRE(!stopping(t), err, KILN_EINTERRUPTED, "stopped after step %" PRIu64,
                     cursor->step);
        for (size_t b = 0; b < batch; b++) {
            kiln_data_train(t->data, cursor->sample + i * batch + b, t->tokens + b * seq,
                            t->targets + b * seq);
        }
        double part;
        t->device->gradients = t->gradients;
        t->device->gradients.add = i > 0;
        KILN_TRY(kiln_pass_train(&t->memory, &t->plan, t->device, t->tokens, t->targets, scale,
                                 &part, err));
        sum += part;
    }
    *loss = sum / (double)(batch * seq * accum);
    return KILN_OK;
}

static enum kiln_status write_metrics(struct kiln_trainer *t, const struct kiln_step_record *record,
                                      struct kiln_cursor *cursor, struct kiln_err *err) {
    kiln_kill_point("metrics: before");
    char *line = kiln_metrics_line(record);
    KILN_REQUIRE(line, err, KILN_ENOMEM, "no memory for a line of metrics.jsonl");
    int written = fprintf(t->metrics, "%s\n", line);
    kiln_free(line);
    KILN_REQUIRE(written > 0 && fflush(t->metrics) == 0, err, KILN_EIO, "%s/metrics.jsonl: %s",
                 t->folder, strerror(errno));
    kiln_kill_point("metrics: written");
    cursor->metrics_bytes += (uint64_t)written;
    return KILN_OK;
}

static void fill_times(const struct kiln_trainer *t, struct kiln_step_record *r, double seconds) {
    double accum = (double)t->settings->accum;
    double tokens = (double)(t->plan.shape.batch * t->plan.shape.seq) * accum;
    r->ms = seconds * 1e3;
    r->device_ms = (t->memory.forward_s + t->memory.backward_s) * 1e3;
    r->host_ms = r->ms - r->device_ms - r->update_ms;
    r->ms_per_micro_batch = (r->ms - r->update_ms) / accum;
    r->tokens_per_s = tokens / seconds;
    r->tflops = t->plan.flops.total * accum / seconds * 1e-12;
    r->utilization = t->ceiling_tflops > 0 ? r->tflops / t->ceiling_tflops : 0.0;
}

static bool every(uint64_t step, uint64_t interval) { return interval > 0 && step % interval == 0; }

/* Phase FINISH: evaluation, the line of metrics, and the cursor that ends the step; then samples
 * and checkpoints, which a death may leave out. */
static enum kiln_status finish_step(struct kiln_trainer *t, struct kiln_step_record *record,
                                    struct kiln_err *err) {
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    bool last = cursor.step == t->settings->steps;
    record->step = cursor.step;
    record->loss = cursor.loss;
    record->grad_norm = cursor.grad_norm;
    record->lr = cursor.lr;
    record->tokens = cursor.tokens;
    record->restarts = cursor.restarts;
    record->val_loss = (double)NAN;
    if (every(cursor.step, t->settings->eval_every) || last) {
        KILN_TRY(kiln_trainer_evaluate(t, &record->val_loss, err));
        if (record->val_loss < cursor.best_val) {
            cursor.best_val = record->val_loss;
            cursor.best_val_step = cursor.step;
        }
    }
    KILN_TRY(write_metrics(t, record, &cursor, err));
    cursor.phase = KILN_PHASE_WINDOW;
    kiln_state_commit(t->state, &cursor);
    if (t->observer && t->observer->on_step) {
        t->observer->on_step(t->observer->context, record);
    }
    if (t->session && every(cursor.step, t->settings->sample_every)) {
        KILN_TRY(sample(t, cursor.step, err));
    }
    if (every(cursor.step, t->settings->save_every) && !last) {
        kiln_saver_begin(t->saver);
    }
    return KILN_OK;
}

/* Phase UPDATE: new weights from the gradients of the window, at the rate and norm in the cursor.
 */
static void update(struct kiln_trainer *t) {
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    kiln_kill_point("update: before");
    kiln_optimizer_update(t->optimizer, cursor.updates + 1, cursor.lr, cursor.grad_norm);
    kiln_kill_point("update: done");
    size_t samples = t->plan.shape.batch * t->settings->accum;
    cursor.phase = KILN_PHASE_FINISH;
    cursor.step++;
    cursor.updates++;
    cursor.sample += samples;
    cursor.tokens += samples * t->plan.shape.seq;
    cursor.last_loss = cursor.loss;
    if (cursor.step == 1) {
        cursor.first_loss = cursor.loss;
    }
    kiln_state_commit(t->state, &cursor);
}

static enum kiln_status run_step(struct kiln_trainer *t, struct kiln_err *err) {
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    struct kiln_step_record record = {0};
    double start = kiln_now_s();
    t->memory.forward_s = t->memory.backward_s = 0.0;
    KILN_TRY(run_window(t, &cursor, &cursor.loss, err));

    double computed = kiln_now_s();
    cursor.grad_norm = kiln_optimizer_norm(t->optimizer);
    KILN_REQUIRE(isfinite(cursor.loss) && isfinite(cursor.grad_norm), err, KILN_EDIVERGED,
                 "step %" PRIu64
                 ": loss %g, gradient norm %g are no numbers to train on; the weights of step "
                 "%" PRIu64
                 " are kept in model.bin: start a new run from them (--model RUN) with a "
                 "lower --lr or a longer --warmup",
                 cursor.step + 1, cursor.loss, cursor.grad_norm, cursor.step);
    cursor.lr = kiln_learning_rate(t->settings, cursor.step);
    KILN_TRY(wait_for_save(t, err));
    cursor.phase = KILN_PHASE_UPDATE;
    kiln_state_commit(t->state, &cursor);
    update(t);
    double end = kiln_now_s();
    record.update_ms = (end - computed) * 1e3;
    fill_times(t, &record, end - start);
    return finish_step(t, &record, err);
}

/* Bring a step that a death cut short to its end, as if nothing had happened. Its times are lost:
 * they read 0. */
static enum kiln_status recover(struct kiln_trainer *t, struct kiln_err *err) {
    const struct kiln_cursor *cursor = kiln_state_cursor(t->state);
    if (cursor->phase == KILN_PHASE_UPDATE) {
        notice(t, "the last process ended inside an update; it is finished now");
        KILN_TRY(kiln_state_restore(t->state, cursor->updates + 1, err));
        update(t);
    }
    if (cursor->phase == KILN_PHASE_FINISH) {
        struct kiln_step_record record = {0};
        return finish_step(t, &record, err);
    }
    return KILN_OK;
}

/* Phase START: the evaluation before the first step. */
static enum kiln_status start(struct kiln_trainer *t, struct kiln_err *err) {
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    if (cursor.phase != KILN_PHASE_START) {
        return KILN_OK;
    }
    double loss = (double)NAN;
    if (t->settings->eval_every > 0) {
        KILN_TRY(kiln_trainer_evaluate(t, &loss, err));
    }
    char text[96];
    snprintf(text, sizeof text, "held-out loss before training: %.4f", loss);
    if (!isnan(loss)) {
        notice(t, text);
    }
    cursor.phase = KILN_PHASE_WINDOW;
    kiln_state_commit(t->state, &cursor);
    return KILN_OK;
}

enum kiln_status kiln_trainer_run(struct kiln_trainer *t, struct kiln_err *err) {
    enum kiln_status status = KILN_OK;
    KILN_TRY(recover(t, err));
    KILN_TRY(start(t, err));
    while (status == KILN_OK && kiln_state_cursor(t->state)->step < t->settings->steps) {
        status = run_step(t, err);
    }
    struct kiln_err second;
    if (wait_for_save(t, &second) != KILN_OK) {
        notice(t, second.message);
        if (status == KILN_OK) {
            return KILN_FAIL(err, second.code, "%s", second.message);
        }
    }
    if (status == KILN_EDIVERGED) { /* the first message is the one to read */
        return save_model(t, &second) == KILN_OK ? status : KILN_EIO;
    }
    if (status != KILN_OK && status != KILN_EINTERRUPTED) {
        return status;
    }
    KILN_TRY(kiln_state_sync(t->state, err));
    KILN_TRY(save_model(t, err));
    return status;
}
