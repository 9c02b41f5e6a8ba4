/* SPDX-License-Identifier: MIT
 *
 * trainer.c: a step, phase by phase (state.h): evaluation, window, update, the line of metrics.
 *
 * The schedule says what comes next, the executor does it. Where a window or evaluation is cut, by
 * a restart that the plan has or because somebody wants to stop, the cursor takes note of the
 * place; the next process first commits the cursor of the window's start and then goes on from
 * there, so that a death later on does the window again and no gradient counts twice.
 */
#include "train/trainer.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/io.h"
#include "base/kill_point.h"
#include "base/machine.h"
#include "train/cost.h"
#include "train/generation.h"
#include "train/merged.h"
#include "train/samples.h"
#include "train/scale.h"

static void notice(const struct kiln_trainer *t, const char *text) {
    if (t->observer && t->observer->on_notice) {
        t->observer->on_notice(t->observer->context, text);
    }
}

static bool stopping(const struct kiln_trainer *t) { return t->stop && *t->stop != 0; }

/* ---- a state larger than memory
 * ------------------------------------------------------------------
 */

/* First float and number of floats of a layer's parameters; they lie side by side. */
static size_t layer_range(const struct kiln_table *table, size_t layer, size_t *first) {
    const size_t layers = table->dims.layers;
    *first = kiln_table_find(table, KILN_ATTN_NORM, layer)->offset;
    return (layer + 1 < layers ? kiln_table_find(table, KILN_ATTN_NORM, layer + 1)->offset
                               : kiln_table_find(table, KILN_FINAL_NORM, KILN_NO_LAYER)->offset) -
           *first;
}

/* What has been worked through leaves the memory. */
static void layer_done(void *context, enum kiln_pass pass, size_t layer) {
    const struct kiln_trainer *t = context;
    const struct kiln_table *table = t->table;
    const enum kiln_region region = pass == KILN_FORWARD ? KILN_WEIGHTS : KILN_GRADIENTS;
    size_t first;
    if (layer != KILN_NO_LAYER) {
        const size_t n = layer_range(table, layer, &first);
        kiln_state_behind(t->state, region, first, n);
        return;
    }
    const size_t layers_at = kiln_table_find(table, KILN_ATTN_NORM, 0)->offset;
    const size_t n = layer_range(table, table->dims.layers - 1, &first);
    kiln_state_behind(t->state, region, 0, layers_at);
    kiln_state_behind(t->state, region, first + n, table->size - first - n);
    if (pass == KILN_BACKWARD && table->dims.tied && table->trained == 0) {
        kiln_state_behind(t->state, KILN_GRADIENT_EMBEDDING, 0,
                          table->dims.vocab * table->dims.dim);
    }
}

/* ---- windows and evaluations -------------------------------------------------------------------
 */

static void train_batch(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets,
                        uint32_t *starts) {
    const struct kiln_trainer *t = context;
    const struct kiln_micro_batch *shape = &t->engine.plan.shape;
    const uint64_t first = kiln_state_cursor(t->state)->sample + index * shape->batch;
    for (size_t b = 0; b < shape->batch; b++) {
        kiln_data_train(t->data, first + b, tokens + b * shape->seq, targets + b * shape->seq);
        if (starts) {
            kiln_data_train_starts(t->data, first + b, starts + b * shape->seq);
        }
    }
}

/* Targets of the window that count: what its loss is averaged over. */
static double window_targets(const struct kiln_trainer *t) {
    const uint64_t first = kiln_state_cursor(t->state)->sample;
    const uint64_t samples = t->engine.plan.shape.batch * t->settings->accum;
    uint64_t n = 0;
    for (uint64_t i = 0; i < samples; i++) {
        n += kiln_data_train_targets(t->data, first + i);
    }
    return (double)n;
}

static double window_tokens(const struct kiln_trainer *t) {
    const struct kiln_micro_batch *shape = &t->engine.plan.shape;
    return (double)(shape->batch * shape->seq * t->settings->accum);
}

/* What this window's loss is scaled by, where one whose targets all count has `scale`. Of the data
 * and the cursor alone: a process that finishes an update finds the same. */
static double scale_here(const struct kiln_trainer *t, double scale) {
    return kiln_scale_wanted(t->engine.request.precision)
               ? scale * kiln_scale_share(window_targets(t), window_tokens(t))
               : 1;
}

/* What is held out: a set of its own, or a part of the data. */
static const struct kiln_data *held_out(const struct kiln_trainer *t, enum kiln_split *split) {
    *split = t->val_data ? KILN_TRAIN : KILN_VALIDATION;
    return t->val_data ? t->val_data : t->data;
}

/* A set smaller than a micro-batch is read round and round. */
static void val_batch(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets,
                      uint32_t *starts) {
    const struct kiln_trainer *t = context;
    enum kiln_split split;
    const struct kiln_data *data = held_out(t, &split);
    const struct kiln_micro_batch *shape = &t->engine.plan.shape;
    for (size_t b = 0; b < shape->batch; b++) {
        const size_t window = (index * shape->batch + b) % kiln_data_windows(data, split);
        kiln_data_window(data, split, window, tokens + b * shape->seq, targets + b * shape->seq);
        if (starts) {
            kiln_data_window_starts(data, split, window, starts + b * shape->seq);
        }
    }
}

/* Targets of the first `windows` held-out windows, read as val_batch does, that count. */
static double val_targets(const struct kiln_trainer *t, size_t windows) {
    enum kiln_split split;
    const struct kiln_data *data = held_out(t, &split);
    uint64_t n = 0;
    for (size_t w = 0; w < windows; w++) {
        n += kiln_data_window_targets(data, split, w % kiln_data_windows(data, split));
    }
    return (double)n;
}

/* Micro-batches of an evaluation: whole ones, the rest of the division is left out; 0 where nothing
 * is held out. */
static size_t val_batches(const struct kiln_trainer *t) {
    const size_t windows = t->val_data ? kiln_data_windows(t->val_data, KILN_TRAIN)
                                       : kiln_data_windows(t->data, KILN_VALIDATION);
    const size_t most = (size_t)t->settings->eval_windows, batch = t->engine.plan.shape.batch;
    const size_t wanted = windows < most ? windows : most;
    return wanted == 0 ? 0 : wanted < batch ? 1 : wanted / batch;
}

/* ---- generations ------------------------------------------------------------------------------
 */

static bool delayed(const struct kiln_trainer *t) {
    return t->engine.plan.schedule.overlap == KILN_OVERLAP_DELAYED;
}

/* Compute with what is due when `step` steps are done. */
static void set_generation(struct kiln_trainer *t, uint64_t step) {
    const uint64_t g = kiln_generation_of(step, delayed(t));
    const struct kiln_weights active = kiln_generation_weights(t->state, t->table, g);
    const struct kiln_weights next = kiln_generation_weights(t->state, t->table, step);
    kiln_executor_generation(&t->engine.executor, (int64_t)g, &active, g < step ? &next : NULL);
    kiln_spans_at(t->engine.spans, (int64_t)g, -1);
}

static void span_of(struct kiln_trainer *t, enum kiln_span_kind kind, const char *name,
                    double start, double end) {
    const struct kiln_span s = {.start = start,
                                .end = end,
                                .kind = kind,
                                .name = name,
                                .layer = -1,
                                .micro_batch = -1,
                                .generation = (int64_t)kiln_state_cursor(t->state)->step};
    kiln_spans_add(t->engine.spans, &s);
}

static void span(struct kiln_trainer *t, enum kiln_span_kind kind, const char *name, double start) {
    span_of(t, kind, name, start, kiln_now_s());
}

/* ---- the successor ----------------------------------------------------------------------------
 */

#define PLACE \
    "step=%" PRIu64 ",evaluate=%d,round=%" PRIu64 ",group=%" PRIu64 ",micro-batch=%" PRIu64

/* Start the process that will go on where this one must end. */
static void call(struct kiln_trainer *t, const struct kiln_position *place, bool edge) {
    char text[200];
    snprintf(text, sizeof text, PLACE, kiln_state_cursor(t->state)->step + edge, place->evaluate,
             place->round, place->group, place->micro_batch);
    t->relay.start(t->relay.context, text);
    t->called = true;
}

/* The same, if the schedule sees that end from here. */
static void call_ahead(struct kiln_trainer *t) {
    const struct kiln_executor *x = &t->engine.executor;
    struct kiln_position place;
    bool edge;
    if (!t->relay.start || t->called ||
        !kiln_schedule_successor(&t->engine.plan.schedule, &x->process, &x->position, &t->scratch,
                                 &place, &edge)) {
        return;
    }
    const bool last = kiln_state_cursor(t->state)->step + 1 >= t->settings->steps;
    place.evaluate |= edge && last; /* nothing but an evaluation comes */
    if (!edge || (!x->position.evaluate && (!last || val_batches(t) > 0))) {
        call(t, &place, edge);
    }
}

/* At the place: is the successor ready to go on? */
static bool successor_ready(struct kiln_trainer *t) {
    if (!t->relay.start) {
        return false;
    }
    const double start = kiln_now_s();
    if (!t->called) {
        call(t, &t->engine.executor.position, false);
    }
    double since = start;
    const bool ready = t->relay.wait(t->relay.context, &since);
    const double now = kiln_now_s();
    since = !ready || since > now ? now : since > start ? since : start;
    span_of(t, KILN_SPAN_RESTART, "process start", start, since);
    span_of(t, KILN_SPAN_STALL, NULL, since, now);
    return ready;
}

enum kiln_status kiln_trainer_ahead(struct kiln_trainer *t, const char *place,
                                    struct kiln_err *err) {
    struct kiln_executor *x = &t->engine.executor;
    struct kiln_position at = {.next = false};
    uint64_t step;
    int evaluate;
    const int n = sscanf(place,
                         "step=%" SCNu64 ",evaluate=%d,round=%" SCNu64 ",group=%" SCNu64
                         ",micro-batch=%" SCNu64,
                         &step, &evaluate, &at.round, &at.group, &at.micro_batch);
    KILN_REQUIRE(n == 5 && at.group < t->engine.plan.schedule.groups.n, err, KILN_EINTERNAL,
                 "take over at %s: no place of this run", place);
    /* Without delay the weights behind an edge are not there yet: nothing to compile. */
    const bool edge = step != kiln_state_cursor(t->state)->step;
    kiln_cost_counted(t);
    kiln_cost_begin(t);
    t->ahead_since = kiln_now_s();
    if (edge && !delayed(t)) {
        t->ahead_since = (double)INFINITY;
        return KILN_OK;
    }
    set_generation(t, step);
    kiln_executor_begin(x, evaluate != 0, evaluate ? val_batches(t) : t->settings->accum, NULL, t);
    at.evaluate = evaluate != 0;
    at.micro_batches = x->position.micro_batches;
    x->position = at;
    /* A window's first process has all that can be compiled there; inside a window the group at the
     * place is enough to go on, and the rest is compiled beside its passes. */
    const bool start = at.round == 0 && at.group == 0 && at.micro_batch == 0;
    kiln_compiler_stalls(x->sets.compiler, false);
    enum kiln_status status = kiln_executor_compile(x, false, err);
    if (status == KILN_OK) {
        status = start ? kiln_compiler_finish(x->sets.compiler, err) : kiln_executor_ready(x, err);
    }
    kiln_compiler_stalls(x->sets.compiler, true);
    return status;
}

/* ---- windows, cut and taken up again -----------------------------------------------------------
 */

/* May the window be left here and taken up at this place? Its gradients lie in the state; what is
 * held from forward to backward does where the plan says so. */
static bool can_leave(const struct kiln_trainer *t) {
    const struct kiln_position *at = &t->engine.executor.position;
    return t->engine.plan.layout.in_state || (at->group == 0 && at->micro_batch == 0);
}

/* May it only be begun again? A round of many micro-batches may take long, and whoever stops does
 * not want to wait: the cursor still stands at the window's start. */
static bool can_drop(const struct kiln_trainer *t) { return t->engine.plan.schedule.held > 1; }

/* What the cursor says of a place: a window's is none of an evaluation, which may never come. */
static uint64_t mid_of(bool evaluate) { return evaluate ? 2 : 1; }

/* Leave it: the cursor knows the place and what it took to get there. */
static enum kiln_status leave(struct kiln_trainer *t, struct kiln_err *err) {
    const struct kiln_executor *x = &t->engine.executor;
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    KILN_TRY(x->device->ops->drain(x->device, err)); /* all gradients are in the state */
    cursor.mid = mid_of(x->position.evaluate);
    cursor.round = x->position.round;
    cursor.group = x->position.group;
    cursor.micro_batch = x->position.micro_batch;
    *(x->position.evaluate ? &cursor.eval_sum : &cursor.loss_sum) = x->loss_sum;
    cursor.plan_id = kiln_schedule_id(&t->engine.plan.schedule);
    const uint64_t trace_bytes = cursor.trace_bytes; /* until the window is done (trace.h) */
    /* A hand-over before an evaluation is the step's: its weights are what the successor compiled.
     */
    const bool evaluating =
        x->position.evaluate && x->position.round + x->position.group + x->position.micro_batch > 0;
    KILN_TRY(kiln_cost_spend(t, &cursor, evaluating, err));
    cursor.trace_bytes = trace_bytes;
    cursor.handed_at = kiln_now_s();
    cursor.owner_epoch++;
    kiln_kill_point("hand-over: leaving");
    kiln_state_commit(t->state, &cursor);
    kiln_kill_point("hand-over: committed");
    return KILN_OK;
}

/* Begin a window or evaluation, or take up the one that was left. */
static void take_up(struct kiln_trainer *t, bool evaluate, uint64_t micro_batches) {
    struct kiln_executor *x = &t->engine.executor;
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    set_generation(t, cursor.step);
    kiln_executor_begin(x, evaluate, micro_batches, evaluate ? val_batch : train_batch, t);
    if (!cursor.mid) {
        call_ahead(t);
        return;
    }
    if (cursor.mid == mid_of(evaluate) &&
        cursor.plan_id == kiln_schedule_id(&t->engine.plan.schedule)) {
        x->position.round = cursor.round;
        x->position.group = cursor.group;
        x->position.micro_batch = cursor.micro_batch;
        x->loss_sum = evaluate ? cursor.eval_sum : cursor.loss_sum;
    }
    /* From here on a death takes the window from its start. */
    cursor.mid = 0;
    kiln_state_commit(t->state, &cursor);
    kiln_kill_point("hand-over: taken up");
    call_ahead(t);
}

static enum kiln_status wait_for_save(struct kiln_trainer *t, struct kiln_err *err);

/* All micro-batches; the executor's loss_sum has their losses. */
static enum kiln_status run_window(struct kiln_trainer *t, bool evaluate, uint64_t micro_batches,
                                   struct kiln_err *err) {
    struct kiln_executor *x = &t->engine.executor;
    take_up(t, evaluate, micro_batches);
    for (;;) {
        const struct kiln_plan_action a = kiln_executor_next(x);
        const size_t resident = kiln_memory_resident();
        t->peak_bytes = resident > t->peak_bytes ? resident : t->peak_bytes;
        if (a.what == KILN_UPDATE || a.what == KILN_STEP_DONE) {
            return KILN_OK;
        }
        KILN_REQUIRE(a.what != KILN_ERROR, err, KILN_EINTERNAL,
                     "a group of %zu kernels fits no process", a.kernels);
        if (a.what == KILN_RESTART) {
            const double start = kiln_now_s();
            KILN_TRY(wait_for_save(t, err)); /* its thread would not survive */
            span(t, KILN_SPAN_RESTART, "checkpoint wait", start);
            (void)successor_ready(t); /* or none: whoever we return to knows */
            KILN_TRY(leave(t, err));
            return KILN_FAIL(err, KILN_ERESTART,
                             "%zu kernels do not fit the %zu left of this process", a.kernels,
                             a.left);
        }
        if (stopping(t) && (can_leave(t) || can_drop(t))) {
            KILN_TRY(can_leave(t) ? leave(t, err) : KILN_OK);
            return KILN_FAIL(err, KILN_EINTERRUPTED, "stopped after step %" PRIu64,
                             kiln_state_cursor(t->state)->step);
        }
        KILN_TRY(kiln_executor_do(x, &a, err));
    }
}

/* Mean loss over the first settings->eval_windows held-out windows; NaN when there are none. */
static enum kiln_status evaluate(struct kiln_trainer *t, double *loss, struct kiln_err *err) {
    const struct kiln_micro_batch *shape = &t->engine.plan.shape;
    const size_t batches = val_batches(t);
    const double start = kiln_now_s();
    *loss = (double)NAN;
    if (batches == 0) {
        return KILN_OK;
    }
    KILN_TRY(run_window(t, true, batches, err));
    kiln_clock_evaluated(&t->clock, kiln_now_s() - start);
    *loss = t->engine.executor.loss_sum / fmax(val_targets(t, batches * shape->batch), 1);
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

/* For PEFT, and for --adapter. */
static enum kiln_status save_adapter(struct kiln_trainer *t, struct kiln_err *err) {
    char path[4200];
    snprintf(path, sizeof path, "%s/adapter", t->folder);
    return kiln_lora_save(path, t->table, kiln_state_region(t->state, KILN_WEIGHTS),
                          t->settings->model, true, err);
}

static enum kiln_status save_model(struct kiln_trainer *t, struct kiln_err *err) {
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

/* ---- phases ------------------------------------------------------------------------------------
 */

static enum kiln_status write_metrics(struct kiln_trainer *t, const struct kiln_step_record *record,
                                      struct kiln_cursor *cursor, struct kiln_err *err) {
    kiln_kill_point("metrics: before");
    char line[KILN_METRICS_LINE];
    kiln_metrics_line(record, line);
    int written = fprintf(t->metrics, "%s\n", line);
    KILN_REQUIRE(written > 0 && fflush(t->metrics) == 0, err, KILN_EIO, "%s/metrics.jsonl: %s",
                 t->folder, strerror(errno));
    kiln_kill_point("metrics: written");
    cursor->metrics_bytes += (uint64_t)written;
    return KILN_OK;
}

static bool every(uint64_t step, uint64_t interval) { return interval > 0 && step % interval == 0; }

/* Is the model evaluated when so many steps are done? */
static bool evaluates(const struct kiln_trainer *t, uint64_t step) {
    return every(step, t->settings->eval_every) || step == t->settings->steps;
}

/* What may follow a finished step; a death may leave it out. */
static enum kiln_status after_step(struct kiln_trainer *t, uint64_t step, struct kiln_err *err) {
    if (kiln_sample_due(t, step, evaluates(t, step))) {
        KILN_TRY(kiln_sample_take(t, step, err));
    }
    if (every(step, t->settings->save_every) && step != t->settings->steps) {
        kiln_saver_begin(t->saver);
    }
    return KILN_OK;
}

/* A hand-over in front of the evaluation, and what was compiled ahead of it, are the step's. The
 * place is given up first: what its owner listed counts as it stands (trace.h). */
static enum kiln_status spend_hand_over(struct kiln_trainer *t, struct kiln_err *err) {
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    if (!t->handed_over || cursor.mid != mid_of(true) ||
        cursor.round + cursor.group + cursor.micro_batch > 0) {
        return KILN_OK;
    }
    cursor.mid = 0;
    cursor.trace_bytes = kiln_trace_bytes(t->trace);
    kiln_state_commit(t->state, &cursor);
    KILN_TRY(kiln_cost_spend(t, &cursor, false, err));
    kiln_state_commit(t->state, &cursor);
    return KILN_OK;
}

/* Phase FINISH: evaluation, the line of metrics, and the cursor that ends the step. */
static enum kiln_status finish_step(struct kiln_trainer *t, struct kiln_err *err) {
    KILN_TRY(spend_hand_over(t, err));
    struct kiln_step_record record = kiln_cost_record(t, kiln_state_cursor(t->state));
    if (evaluates(t, record.step)) {
        KILN_TRY(evaluate(t, &record.val_loss, err));
        record.val_generation = delayed(t) ? (int64_t)kiln_generation_of(record.step, true) : -1;
    }
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    if (record.val_loss < cursor.best_val) {
        cursor.best_val = record.val_loss;
        cursor.best_val_step =
            record.val_generation >= 0 ? (uint64_t)record.val_generation : cursor.step;
    }
    KILN_TRY(write_metrics(t, &record, &cursor, err));
    kiln_cost_nothing(&cursor);
    KILN_TRY(kiln_cost_spend(t, &cursor, true, err));
    cursor.phase = KILN_PHASE_WINDOW;
    cursor.mid = 0; /* a place in an evaluation that did not come */
    kiln_scale_next(&cursor);
    kiln_state_commit(t->state, &cursor);
    kiln_cost_begin(t);
    if (t->observer && t->observer->on_step) {
        t->observer->on_step(t->observer->context, &record);
    }
    return after_step(t, cursor.step, err);
}

static enum kiln_status kernels_are_old(struct kiln_trainer *t, struct kiln_err *err) {
    const struct kiln_plan_action action = {.what = KILN_UPDATE};
    return kiln_executor_do(&t->engine.executor, &action, err);
}

static void change_weights(struct kiln_trainer *t, const struct kiln_cursor *cursor) {
    const double start = kiln_now_s();
    kiln_optimizer_update(t->engine.optimizer, cursor->updates + 1, cursor->lr, cursor->grad_norm,
                          cursor->loss_scale > 0 ? scale_here(t, cursor->loss_scale) : 1);
    span(t, KILN_SPAN_UPDATE, NULL, start);
}

/* The kernels that come first after the step, each to be compiled as soon as its weights are there:
 * those of the evaluation, those of the window. */
static enum kiln_status compile_behind_update(struct kiln_trainer *t, uint64_t step,
                                              struct kiln_err *err) {
    struct kiln_executor *x = &t->engine.executor;
    if (evaluates(t, step)) {
        kiln_executor_begin(x, true, val_batches(t), NULL, NULL);
        KILN_TRY(kiln_executor_compile(x, true, err));
    }
    if (step < t->settings->steps) {
        kiln_executor_begin(x, false, t->settings->accum, NULL, NULL);
        KILN_TRY(kiln_executor_compile(x, true, err));
    }
    return KILN_OK;
}

/* Kernels are compiled behind the update, or beside it, layer by layer. */
static enum kiln_status update_now(struct kiln_trainer *t, const struct kiln_cursor *cursor,
                                   struct kiln_err *err) {
    KILN_TRY(kernels_are_old(t, err));
    if (t->engine.plan.schedule.overlap == KILN_OVERLAP_EXACT) {
        set_generation(t, cursor->step + 1); /* of these weights, as they will be */
        KILN_TRY(compile_behind_update(t, cursor->step + 1, err));
    }
    change_weights(t, cursor);
    return KILN_OK;
}

/* A window that is skipped makes a generation, too: that of the same weights. The sets are swapped
 * last: what is still being compiled has the time of the update. */
static enum kiln_status update_delayed(struct kiln_trainer *t, const struct kiln_cursor *cursor,
                                       struct kiln_err *err) {
    if (cursor->skip == 0) {
        change_weights(t, cursor);
    }
    const double start = kiln_now_s();
    kiln_kill_point("update: snapshot");
    KILN_TRY(kiln_generation_take(t->state, t->table, t->engine.pool, cursor->step + 1, err));
    span(t, KILN_SPAN_SNAPSHOT, NULL, start);
    kiln_kill_point("update: swap");
    return kernels_are_old(t, err);
}

/* Phase UPDATE: new weights from the gradients of the window, at the rate, norm and loss scale in
 * the cursor; or none, where the window is skipped. */
static enum kiln_status update(struct kiln_trainer *t, struct kiln_err *err) {
    const struct kiln_micro_batch *shape = &t->engine.plan.shape;
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    kiln_kill_point("update: before");
    if (delayed(t)) {
        KILN_TRY(update_delayed(t, &cursor, err));
    } else if (cursor.skip == 0) {
        KILN_TRY(update_now(t, &cursor, err));
    }
    cursor.updates += cursor.skip == 0;
    cursor.skipped += cursor.skip > 0; /* all stays as it is */
    kiln_kill_point("update: done");
    const size_t samples = shape->batch * t->settings->accum;
    cursor.phase = KILN_PHASE_FINISH;
    cursor.step++;
    cursor.sample += samples;
    cursor.tokens += samples * shape->seq;
    cursor.last_loss = cursor.loss;
    if (cursor.step == 1) {
        cursor.first_loss = cursor.loss;
    }
    KILN_TRY(kiln_cost_spend(t, &cursor, false, err));
    kiln_state_commit(t->state, &cursor);
    kiln_state_forget(t->state, KILN_GRADIENTS); /* no death needs them from here on */
    if (t->table->dims.tied && t->table->trained == 0) {
        kiln_state_forget(t->state, KILN_GRADIENT_EMBEDDING);
    }
    return KILN_OK;
}

/* The norm, and whether there is an update. `scale` is that of windows whose targets all count. A
 * window whose scaled loss overflows is
 * skipped, as long as a smaller scale may help. */
static enum kiln_status judge(struct kiln_trainer *t, struct kiln_cursor *cursor, double scale,
                              struct kiln_err *err) {
    const bool scaled = kiln_scale_wanted(t->engine.request.precision);
    if (kiln_overflow_instead && kiln_overflow_instead(cursor->step)) {
        kiln_state_region(t->state, KILN_GRADIENTS)[0] = INFINITY;
    }
    cursor->loss = t->engine.executor.loss_sum / fmax(window_targets(t), 1);
    const double start = kiln_now_s();
    cursor->grad_norm = kiln_optimizer_norm(t->engine.optimizer, scale_here(t, scale));
    span(t, KILN_SPAN_NORM, NULL, start);
    cursor->loss_scale = scaled ? scale : 0;
    if (isfinite(cursor->loss) && isfinite(cursor->grad_norm)) {
        cursor->skip = 0;
        return KILN_OK;
    }
    cursor->skip++;
    char also[80] = "";
    if (scaled) {
        snprintf(also, sizeof also, " at loss scale %g, %" PRIu64 " windows in a row", scale,
                 cursor->skip);
    }
    KILN_REQUIRE(scale > 1 && cursor->skip < KILN_SCALE_SKIPS, err, KILN_EDIVERGED,
                 "step %" PRIu64
                 ": loss %g, gradient norm %g are no numbers to train on%s; the weights of step "
                 "%" PRIu64
                 " are kept in model.bin: start a new run from them (--model RUN) with a "
                 "lower --lr or a longer --warmup",
                 cursor->step + 1, cursor->loss, cursor->grad_norm, also, cursor->step);
    return KILN_OK;
}

/* Between two windows: is there time for the steps that are left? A successor that was started has
 * read the settings as they are. */
static enum kiln_status look_at_the_clock(struct kiln_trainer *t, struct kiln_err *err) {
    const struct kiln_cursor *cursor = kiln_state_cursor(t->state);
    const uint64_t before = t->settings->steps, step = cursor->step;
    char text[200];
    bool turned = false;
    if (cursor->mid || t->called) {
        return KILN_OK;
    }
    KILN_TRY(kiln_clock_tick(&t->clock, t->settings, step, kiln_now_s(), &turned, err));
    if (turned) {
        snprintf(text, sizeof text,
                 "the machine is %s than it was measured: %" PRIu64 " steps instead of %" PRIu64
                 " from step %" PRIu64 " on, so that the time is kept",
                 t->settings->steps < before ? "slower" : "faster", t->settings->steps, before,
                 step);
        notice(t, text);
    }
    return KILN_OK;
}

/* Phase WINDOW: the gradients of a window, their norm, and the decision to update. */
static enum kiln_status window(struct kiln_trainer *t, struct kiln_err *err) {
    KILN_TRY(look_at_the_clock(t, err));
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    const double scale = kiln_scale_of(&cursor, t->engine.request.precision, window_tokens(t));
    /* A window of which no target counts has no gradient and a loss of 0. */
    t->engine.executor.scale = (float)(scale_here(t, scale) / fmax(window_targets(t), 1));
    KILN_TRY(run_window(t, false, t->settings->accum, err));
    kiln_spans_at(t->engine.spans, (int64_t)kiln_generation_of(cursor.step, delayed(t)), -1);
    cursor = *kiln_state_cursor(t->state);
    KILN_TRY(judge(t, &cursor, scale, err));
    cursor.lr = kiln_learning_rate(t->settings, cursor.step);
    const double judged = kiln_now_s();
    KILN_TRY(wait_for_save(t, err));
    span(t, KILN_SPAN_UPDATE, "checkpoint wait", judged);
    KILN_TRY(kiln_cost_spend(t, &cursor, false, err));
    cursor.phase = KILN_PHASE_UPDATE;
    kiln_state_commit(t->state, &cursor);
    return KILN_OK;
}

/* Phase START: the evaluation before the first step. */
static enum kiln_status start(struct kiln_trainer *t, struct kiln_err *err) {
    double loss = (double)NAN;
    if (t->settings->eval_every > 0) {
        KILN_TRY(evaluate(t, &loss, err));
    }
    char text[96];
    snprintf(text, sizeof text, "held-out loss before training: %.4f", loss);
    if (!isnan(loss)) {
        notice(t, text);
    }
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    cursor.phase = KILN_PHASE_WINDOW;
    cursor.mid = 0; /* a place in an evaluation that did not come */
    kiln_cost_nothing(&cursor);
    KILN_TRY(kiln_cost_spend(t, &cursor, true, err));
    kiln_state_commit(t->state, &cursor);
    kiln_cost_begin(t);
    return KILN_OK;
}

static enum kiln_status run_phase(struct kiln_trainer *t, struct kiln_err *err) {
    switch ((enum kiln_phase)kiln_state_cursor(t->state)->phase) {
        case KILN_PHASE_START:
            return start(t, err);
        case KILN_PHASE_WINDOW:
            return window(t, err);
        case KILN_PHASE_UPDATE:
            return update(t, err);
        case KILN_PHASE_FINISH:
            return finish_step(t, err);
    }
    return KILN_FAIL(err, KILN_EDAMAGED, "state: phase %" PRIu64 " is none that there is",
                     kiln_state_cursor(t->state)->phase);
}

/* What another process left: half an update is undone where it was cut, and the time that the
 * hand-over took is known. */
static enum kiln_status recover(struct kiln_trainer *t, struct kiln_err *err) {
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    t->since = kiln_now_s();
    kiln_cost_counted(t);
    KILN_TRY(kiln_trace_begin(t->trace, cursor.trace_bytes, cursor.mid, err));
    kiln_cost_begin(t);
    if (cursor.phase == KILN_PHASE_UPDATE && cursor.skip > 0) {
        return KILN_OK; /* nothing was being changed */
    }
    if (cursor.phase == KILN_PHASE_UPDATE) {
        notice(t, "the last process ended inside an update; it is finished now");
        return kiln_state_restore(t->state, cursor.updates + 1, err);
    }
    if (!cursor.mid && cursor.phase == KILN_PHASE_WINDOW) {
        kiln_cost_nothing(&cursor); /* a death: the window is taken from its start */
    } else if (cursor.mid && t->handed_over && cursor.phase != KILN_PHASE_START) {
        span(t, KILN_SPAN_RESTART, NULL, cursor.handed_at);
        t->since = cursor.handed_at;
    }
    cursor.handed_at = 0;
    cursor.peak_bytes = t->handed_over ? cursor.peak_bytes : 0;
    kiln_state_commit(t->state, &cursor);
    return KILN_OK;
}

static bool done(const struct kiln_trainer *t) {
    const struct kiln_cursor *cursor = kiln_state_cursor(t->state);
    return cursor->phase == KILN_PHASE_WINDOW && cursor->step >= t->settings->steps;
}

enum kiln_status kiln_trainer_run(struct kiln_trainer *t, struct kiln_err *err) {
    enum kiln_status status = KILN_OK;
    if (kiln_state_walks(t->state)) {
        t->engine.executor.layer_done = layer_done;
        t->engine.executor.layer_done_context = t;
    }
    KILN_TRY(recover(t, err));
    while (status == KILN_OK && !done(t)) {
        status = run_phase(t, err);
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
    return save_model(t, err) == KILN_OK ? status : KILN_EIO;
}
