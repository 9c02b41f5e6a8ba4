/* SPDX-License-Identifier: MIT
 *
 * trainer.c: a step, phase by phase (state.h): evaluation, window, update, the line of metrics.
 *
 * The schedule says what comes next, the executor does it (window.c). A window that one process
 * leaves another takes up (hand_over.c).
 */
#include "train/trainer.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/io.h"
#include "base/kill_point.h"
#include "base/machine.h"
#include "base/mem.h"
#include "state/checkpoint.h"
#include "train/cost.h"
#include "train/generation.h"
#include "train/outer.h"
#include "train/rollback.h"
#include "train/samples.h"
#include "train/scale.h"
#include "train/trainer_int.h"

void kiln_trainer_notice(const struct kiln_trainer *t, const char *text) {
    if (t->observer && t->observer->on_notice) {
        t->observer->on_notice(t->observer->context, text);
    }
}

/* Asked to, which with many ranks is no reason yet: all stop, at the same place. */
static bool asked_to_stop(const struct kiln_trainer *t) {
    return t->control.stop || (t->stop && *t->stop != 0);
}

bool kiln_trainer_stopping(const struct kiln_trainer *t) {
    return t->ranks ? t->agreed_to_stop : asked_to_stop(t);
}

bool kiln_trainer_leads(const struct kiln_trainer *t) { return kiln_ranks_mine(t->ranks) == 0; }

struct kiln_share kiln_trainer_share(const struct kiln_trainer *t, uint64_t micro_batches) {
    return kiln_share_of(micro_batches, t->grid.replicas, t->grid.replica);
}

/* ---- generations ------------------------------------------------------------------------------
 */

bool kiln_trainer_delayed(const struct kiln_trainer *t) {
    return t->engine.plan.schedule.overlap == KILN_OVERLAP_DELAYED;
}

bool kiln_trainer_is_spread(const struct kiln_trainer *t) {
    return t->shards != NULL && t->shards->spread;
}

struct kiln_weights kiln_trainer_weights(const struct kiln_trainer *t, uint64_t generation) {
    return t->shards ? kiln_weights_snapshot(t->table, t->shards->precision,
                                             kiln_shards_snapshot(t->shards, t->state, generation))
                     : kiln_generation_weights(t->state, t->table, generation);
}

/* The weights are those of a new generation: what is computed with is made of them. */
static enum kiln_status take_generation(struct kiln_trainer *t, uint64_t generation,
                                        struct kiln_err *err) {
    const double start = kiln_now_s();
    kiln_kill_point("update: snapshot");
    KILN_TRY(t->shards ? kiln_shards_take(t->shards, t->state, t->engine.pool, generation, err)
                       : kiln_generation_take(t->state, t->table, t->engine.pool, generation, err));
    kiln_trainer_span(t, KILN_SPAN_SNAPSHOT, NULL, start);
    return KILN_OK;
}

void kiln_trainer_generation(struct kiln_trainer *t, uint64_t step) {
    const uint64_t g = kiln_generation_of(step, kiln_trainer_delayed(t));
    const struct kiln_weights active = kiln_engine_weights(&t->engine, kiln_trainer_weights(t, g));
    const struct kiln_weights next = kiln_engine_weights(&t->engine, kiln_trainer_weights(t, step));
    kiln_executor_generation(&t->engine.executor, (int64_t)g, &active, g < step ? &next : NULL);
    kiln_spans_at(t->engine.spans, (int64_t)g, -1);
}

void kiln_trainer_span_of(struct kiln_trainer *t, enum kiln_span_kind kind, const char *name,
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

void kiln_trainer_span(struct kiln_trainer *t, enum kiln_span_kind kind, const char *name,
                       double start) {
    kiln_trainer_span_of(t, kind, name, start, kiln_now_s());
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
    if (kiln_trainer_leads(t) && kiln_sample_due(t, step, evaluates(t, step))) {
        KILN_TRY(kiln_sample_take(t, step, err));
    }
    const bool saves = every(step, t->settings->save_every) && step != t->settings->steps;
    return saves ? kiln_outputs_save(t, err) : KILN_OK;
}

/* A hand-over in front of the evaluation, and what was compiled ahead of it, are the step's. The
 * place is given up first: what its owner listed counts as it stands (trace.h). */
static enum kiln_status spend_hand_over(struct kiln_trainer *t, struct kiln_err *err) {
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    if (!t->handed_over || cursor.mid != kiln_hand_over_mid(true) ||
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
        KILN_TRY(kiln_window_evaluate(t, &record.val_loss, err));
        record.val_generation =
            kiln_trainer_delayed(t) ? (int64_t)kiln_generation_of(record.step, true) : -1;
    }
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    if (record.val_loss < cursor.best_val) {
        cursor.best_val = record.val_loss;
        cursor.best_val_step =
            record.val_generation >= 0 ? (uint64_t)record.val_generation : cursor.step;
    }
    record.loss_z = kiln_spikes_loss(&t->spikes, record.loss).z;
    record.grad_norm_z = kiln_spikes_grad_norm(&t->spikes, record.grad_norm).z;
    KILN_TRY(write_metrics(t, &record, &cursor, err));
    kiln_spikes_add(&t->spikes, &record);
    kiln_cost_nothing(&cursor);
    KILN_TRY(kiln_cost_spend(t, &cursor, true, err));
    cursor.phase = KILN_PHASE_WINDOW;
    cursor.mid = 0; /* a place in an evaluation that did not come */
    kiln_scale_next(&cursor,
                    record.skipped && isfinite(record.loss) && !isfinite(record.grad_norm));
    kiln_state_commit(t->state, &cursor);
    kiln_cost_begin(t);
    if (t->observer && t->observer->on_step) {
        const double began = kiln_now_s();
        t->observer->on_step(t->observer->context, &record);
        kiln_cost_leave_out(t, began);
    }
    return after_step(t, cursor.step, err);
}

static enum kiln_status kernels_are_old(struct kiln_trainer *t, struct kiln_err *err) {
    const struct kiln_plan_action action = {.what = KILN_UPDATE};
    return kiln_executor_do(&t->engine.executor, &action, err);
}

static void change_weights(struct kiln_trainer *t, const struct kiln_cursor *cursor) {
    const double start = kiln_now_s();
    const double norm = kiln_state_local(t->state) ? t->own_norm : cursor->grad_norm;
    kiln_optimizer_update(t->engine.optimizer, cursor->updates + 1, cursor->lr, norm,
                          cursor->loss_scale > 0 ? kiln_batches_scale(t, cursor->loss_scale) : 1);
    kiln_trainer_span(t, KILN_SPAN_UPDATE, NULL, start);
}

/* The kernels that come first after the step, each to be compiled as soon as its weights are there:
 * those of the evaluation, those of the window. */
static enum kiln_status compile_behind_update(struct kiln_trainer *t, uint64_t step,
                                              struct kiln_err *err) {
    struct kiln_executor *x = &t->engine.executor;
    const uint64_t evaluated = kiln_trainer_share(t, kiln_batches_evaluated(t)).n;
    if (evaluates(t, step) && evaluated > 0) {
        kiln_executor_begin(x, true, evaluated, NULL, NULL);
        KILN_TRY(kiln_executor_compile(x, true, err));
    }
    if (step < t->settings->steps) {
        kiln_executor_begin(x, false, kiln_trainer_share(t, t->settings->accum).n, NULL, NULL);
        KILN_TRY(kiln_executor_compile(x, true, err));
    }
    return KILN_OK;
}

/* Kernels are compiled behind the update, or beside it, layer by layer. */
static enum kiln_status update_now(struct kiln_trainer *t, const struct kiln_cursor *cursor,
                                   struct kiln_err *err) {
    KILN_TRY(kernels_are_old(t, err));
    if (t->engine.plan.schedule.overlap == KILN_OVERLAP_EXACT) {
        kiln_trainer_generation(t, cursor->step + 1); /* of these weights, as they will be */
        KILN_TRY(compile_behind_update(t, cursor->step + 1, err));
    }
    change_weights(t, cursor);
    if (t->shards) {
        KILN_TRY(take_generation(t, cursor->step + 1, err));
        kiln_optimizer_refresh(t->engine.optimizer);
        if (t->engine.plan.schedule.overlap == KILN_OVERLAP_EXACT) {
            kiln_compiler_gate(t->engine.executor.sets.compiler, t->table->dims.layers + 1);
        }
    }
    return KILN_OK;
}

/* A window that is skipped makes a generation, too: that of the same weights. The sets are swapped
 * last: what is still being compiled has the time of the update. */
static enum kiln_status update_delayed(struct kiln_trainer *t, const struct kiln_cursor *cursor,
                                       struct kiln_err *err) {
    if (cursor->skip == 0) {
        change_weights(t, cursor);
    }
    KILN_TRY(take_generation(t, cursor->step + 1, err));
    kiln_kill_point("update: swap");
    return kernels_are_old(t, err);
}

/* Phase UPDATE: new weights from the gradients of the window, at the rate, norm and loss scale in
 * the cursor; or none, where the window is skipped. */
static enum kiln_status update(struct kiln_trainer *t, struct kiln_err *err) {
    const struct kiln_micro_batch *shape = &t->engine.plan.shape;
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    kiln_kill_point("update: before");
    KILN_TRY(kiln_trainer_is_spread(t) ? kiln_ranks_settle(t->ranks, KILN_OK, err) : KILN_OK);
    kiln_plant_weight(t, cursor.step + 2);
    if (kiln_trainer_delayed(t)) {
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
    cursor.sample = t->settings->n_jumps > 0 ? kiln_rollback_sample(t->settings, cursor.step)
                                             : cursor.sample + samples;
    cursor.tokens += samples * shape->seq;
    cursor.last_loss = cursor.loss;
    if (cursor.step == 1) {
        cursor.first_loss = cursor.loss;
    }
    if (kiln_outer_due(t->settings, cursor.step)) {
        KILN_TRY(kiln_outer_step(t, &cursor, err));
    }
    KILN_TRY(kiln_cost_spend(t, &cursor, false, err));
    kiln_state_commit(t->state, &cursor);
    kiln_state_forget(t->state, KILN_GRADIENTS); /* no death needs them from here on */
    if (t->table->dims.tied && t->table->trained == 0) {
        kiln_state_forget(t->state, KILN_GRADIENT_EMBEDDING);
    }
    return KILN_OK;
}

/* Between two windows: is there time for the steps that are left? A successor that was started has
 * read the settings as they are. */
static enum kiln_status look_at_the_clock(struct kiln_trainer *t, struct kiln_err *err) {
    const struct kiln_cursor *cursor = kiln_state_cursor(t->state);
    const uint64_t before = t->settings->steps, step = cursor->step;
    char text[200];
    bool turned = false;
    if (cursor->mid || t->called || !kiln_trainer_leads(t)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_clock_tick(&t->clock, t->settings, step, kiln_now_s(), &turned, err));
    if (turned) {
        snprintf(text, sizeof text,
                 "the machine is %s than it was measured: %" PRIu64 " steps instead of %" PRIu64
                 " from step %" PRIu64 " on, so that the time is kept",
                 t->settings->steps < before ? "slower" : "faster", t->settings->steps, before,
                 step);
        kiln_trainer_notice(t, text);
    }
    return KILN_OK;
}

/* Does somebody ask for something? A rate is of this window's update, wherever in the window its
 * processes are: a successor reads the rates when it takes over (kiln_run_go). */
static enum kiln_status look_at_control(struct kiln_trainer *t, struct kiln_err *err) {
    char said[KILN_CONTROL_TEXT];
    if (!kiln_trainer_leads(t)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_control_look(&t->control, t->folder, t->settings,
                               kiln_state_cursor(t->state)->step, said, err));
    if (said[0]) {
        kiln_trainer_notice(t, said);
    }
    return KILN_OK;
}

/* Who may have to go back needs a checkpoint to go back to, also before the first one is due. One
 * that was due is made up for: where a run goes back to must not depend on who died. */
static enum kiln_status keep_a_way_back(struct kiln_trainer *t, struct kiln_err *err) {
    char path[4200], due[4300];
    const uint64_t step = kiln_state_cursor(t->state)->step;
    uint64_t *steps = NULL;
    size_t n = 0;
    if (t->rollback.ready || strcmp(t->settings->on_spike, "rollback") != 0 ||
        kiln_state_cursor(t->state)->mid) {
        return KILN_OK;
    }
    t->rollback.ready = true;
    double wanted = 0;
    if (kiln_trainer_leads(t)) {
        KILN_TRY(kiln_outputs_wait(t, err));
        snprintf(path, sizeof path, "%s/checkpoints", t->folder);
        KILN_TRY(kiln_checkpoint_list(path, &steps, &n, err));
        kiln_free(steps);
        snprintf(due, sizeof due, "%s/step-%" PRIu64, path, step);
        wanted = n == 0 || (every(step, t->settings->save_every) && !kiln_path_exists(due));
    }
    KILN_TRY(kiln_ranks_most(t->ranks, &wanted, err));
    return wanted > 0 ? kiln_outputs_save(t, err) : KILN_OK;
}

/* What rank 0 has found out is so for all; and whoever wants to stop stops all, here. */
static enum kiln_status agree(struct kiln_trainer *t, struct kiln_err *err) {
    if (!t->ranks) {
        return KILN_OK;
    }
    double stop = asked_to_stop(t);
    KILN_TRY(kiln_ranks_most(t->ranks, &stop, err));
    t->agreed_to_stop = stop > 0;
    KILN_TRY(t->others.agree(t->others.context, err));
    KILN_REQUIRE(!t->agreed_to_stop, err, KILN_EINTERRUPTED, "stopped after step %" PRIu64,
                 kiln_state_cursor(t->state)->step);
    return KILN_OK;
}

/* Spread over ranks rank 0 is the last to say so (shards.h). */
static enum kiln_status commit_update(struct kiln_trainer *t, const struct kiln_cursor *cursor,
                                      struct kiln_err *err) {
    const bool last = kiln_trainer_is_spread(t) && kiln_trainer_leads(t);
    if (!last) {
        kiln_state_commit(t->state, cursor);
    }
    KILN_TRY(kiln_trainer_is_spread(t) ? kiln_ranks_settle(t->ranks, KILN_OK, err) : KILN_OK);
    if (last) {
        kiln_state_commit(t->state, cursor);
    }
    return KILN_OK;
}

/* Phase WINDOW: the gradients of a window, their norm, and the decision to update. The file keeps
 * its cursor through a round of local steps. */
static enum kiln_status window(struct kiln_trainer *t, struct kiln_err *err) {
    if (kiln_state_local(t->state)) {
        kiln_state_hold(t->state);
    }
    KILN_TRY(look_at_the_clock(t, err));
    KILN_TRY(look_at_control(t, err));
    KILN_TRY(keep_a_way_back(t, err));
    KILN_TRY(agree(t, err));
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    const double scale =
        kiln_scale_of(&cursor, t->engine.request.precision, kiln_batches_tokens(t));
    /* A window of which no target counts has no gradient and a loss of 0. */
    t->engine.executor.scale =
        (float)(kiln_batches_scale(t, scale) / fmax(kiln_batches_averaged(t), 1));
    KILN_TRY(kiln_window_run(t, false, t->settings->accum, err));
    kiln_spans_at(t->engine.spans,
                  (int64_t)kiln_generation_of(cursor.step, kiln_trainer_delayed(t)), -1);
    cursor = *kiln_state_cursor(t->state);
    KILN_TRY(kiln_judge(t, &cursor, scale, err));
    cursor.lr = kiln_learning_rate(t->settings, cursor.step);
    const double judged = kiln_now_s(), since = t->since;
    KILN_TRY(kiln_outputs_wait(t, err));
    const double told = t->since - since; /* seconds of an observer's: no part of the update */
    kiln_trainer_span(t, KILN_SPAN_UPDATE, "checkpoint wait", judged + told);
    KILN_TRY(kiln_cost_spend(t, &cursor, false, err));
    cursor.phase = KILN_PHASE_UPDATE;
    return commit_update(t, &cursor, err);
}

/* Phase START: the evaluation before the first step. */
static enum kiln_status start(struct kiln_trainer *t, struct kiln_err *err) {
    double loss = (double)NAN;
    if (t->settings->eval_every > 0) {
        KILN_TRY(kiln_window_evaluate(t, &loss, err));
    }
    char text[96];
    snprintf(text, sizeof text, "held-out loss before training: %.4f", loss);
    if (!isnan(loss)) {
        kiln_trainer_notice(t, text);
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
        case KILN_PHASE_OUTER: /* over when the run was opened (outer.h) */
            break;
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
    if (kiln_trainer_leads(t)) { /* others have it from there */
        KILN_TRY(kiln_spikes_read(t->folder, &t->spikes, err));
    }
    if (cursor.phase == KILN_PHASE_UPDATE && cursor.skip > 0) {
        return KILN_OK; /* nothing was being changed */
    }
    if (cursor.phase == KILN_PHASE_UPDATE) {
        kiln_trainer_notice(t, "the last process ended inside an update; it is finished now");
        return kiln_state_restore(t->state, cursor.updates + 1, err);
    }
    if (!cursor.mid && cursor.phase == KILN_PHASE_WINDOW) {
        kiln_cost_nothing(&cursor); /* a death: the window is taken from its start */
    } else if (cursor.mid && t->handed_over && cursor.phase != KILN_PHASE_START) {
        kiln_trainer_span(t, KILN_SPAN_RESTART, NULL, cursor.handed_at);
        t->since = cursor.handed_at;
    }
    cursor.handed_at = 0;
    cursor.peak_bytes = t->handed_over ? cursor.peak_bytes : 0;
    kiln_state_commit(t->state, &cursor);
    return KILN_OK;
}

/* Rank 0 finishes an update that a death cut short by itself: nobody else has the gradients. */
static enum kiln_status join(struct kiln_trainer *t, struct kiln_err *err) {
    if (!t->ranks) {
        return KILN_OK;
    }
    if (kiln_trainer_leads(t) && kiln_state_cursor(t->state)->phase == KILN_PHASE_UPDATE) {
        KILN_TRY(update(t, err));
    }
    return t->others.join(t->others.context, err);
}

/* It ends inside a round, which is not kept. */
static void leave_round(struct kiln_trainer *t) {
    const uint64_t step = kiln_state_cursor(t->state)->step;
    const uint64_t from = kiln_state_held(t->state)->step;
    char text[160];
    kiln_state_let_go(t->state);
    if (step > from && kiln_trainer_leads(t) && !t->rolled_back) {
        snprintf(text, sizeof text,
                 "the run is kept as of the outer step at %" PRIu64 ": the %" PRIu64
                 " local steps behind it will be taken again, to the same bits",
                 from, step - from);
        kiln_trainer_notice(t, text);
    }
}

static bool done(const struct kiln_trainer *t) {
    const struct kiln_cursor *cursor = kiln_state_cursor(t->state);
    return cursor->phase == KILN_PHASE_WINDOW && cursor->step >= t->settings->steps;
}

enum kiln_status kiln_trainer_run(struct kiln_trainer *t, struct kiln_err *err) {
    enum kiln_status status = KILN_OK;
    if (kiln_state_walks(t->state)) {
        t->engine.executor.layer_done = kiln_window_layer_done;
        t->engine.executor.layer_done_context = t;
    }
    KILN_TRY(recover(t, err));
    KILN_TRY(join(t, err));
    while (status == KILN_OK && !done(t)) {
        status = run_phase(t, err);
        /* Of a pipeline the other stages know of no refusal: it ends the run. */
        status =
            status == KILN_EINPUT && !t->engine.stage ? kiln_judge_refusal(t, status, err) : status;
    }
    leave_round(t);
    struct kiln_err second;
    if (kiln_outputs_wait(t, &second) != KILN_OK) {
        kiln_trainer_notice(t, second.message);
        if (status == KILN_OK) {
            return KILN_FAIL(err, second.code, "%s", second.message);
        }
    }
    if (status == KILN_OK || status == KILN_EINTERRUPTED || status == KILN_EDIVERGED) {
        if (kiln_outputs_collect(t, &second) != KILN_OK) {
            return KILN_FAIL(err, second.code, "%s", second.message);
        }
    }
    if (status == KILN_EDIVERGED) { /* the first message is the one to read */
        return kiln_outputs_model(t, &second) == KILN_OK ? status : KILN_EIO;
    }
    if (status != KILN_OK && status != KILN_EINTERRUPTED) {
        return status;
    }
    return kiln_outputs_model(t, err) == KILN_OK ? status : KILN_EIO;
}
