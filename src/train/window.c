/* SPDX-License-Identifier: MIT
 *
 * window.c: the micro-batches of a window or an evaluation, action by action (trainer_int.h).
 */
#include <inttypes.h>
#include <math.h>

#include "base/machine.h"
#include "model/table.h"
#include "train/trainer_int.h"

/* ---- a state larger than memory
 * ------------------------------------------------------------------
 */

void kiln_window_layer_done(void *context, enum kiln_pass pass, size_t layer) {
    const struct kiln_trainer *t = context;
    const struct kiln_table *table = t->table;
    const size_t layers = table->dims.layers;
    size_t first;
    const size_t n = kiln_table_part(table, layer, &first);
    kiln_state_behind(t->state, pass == KILN_FORWARD ? KILN_WEIGHTS : KILN_GRADIENTS, first, n);
    const bool outside = layer == KILN_NO_LAYER || layer == layers;
    if (outside && pass == KILN_BACKWARD && table->dims.tied && table->trained == 0) {
        kiln_state_behind(t->state, KILN_GRADIENT_EMBEDDING, 0,
                          table->dims.vocab * table->dims.dim);
    }
}

/* ---- windows and evaluations -------------------------------------------------------------------
 */

/* May it only be begun again? A round of many micro-batches may take long, and whoever stops does
 * not want to wait: the cursor still stands at the window's start. So it does where gradients lie
 * outside the state (reducer.h). */
static bool can_drop(const struct kiln_trainer *t) {
    return !kiln_hand_over_can_leave(t) &&
           (t->engine.plan.schedule.held > 1 || t->engine.executor.reducer);
}

/* The actions of what was begun. */
static enum kiln_status run_actions(struct kiln_trainer *t, struct kiln_err *err) {
    struct kiln_executor *x = &t->engine.executor;
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
            KILN_TRY(kiln_outputs_wait(t, err)); /* its thread would not survive */
            kiln_trainer_span(t, KILN_SPAN_RESTART, "checkpoint wait", start);
            (void)kiln_hand_over_ready(t); /* or none: whoever we return to knows */
            KILN_TRY(kiln_hand_over_leave(t, err));
            return KILN_FAIL(err, KILN_ERESTART,
                             "%zu kernels do not fit the %zu left of this process", a.kernels,
                             a.left);
        }
        if (kiln_trainer_stopping(t) && (kiln_hand_over_can_leave(t) || can_drop(t))) {
            KILN_TRY(can_drop(t) ? KILN_OK : kiln_hand_over_leave(t, err));
            return KILN_FAIL(err, KILN_EINTERRUPTED, "stopped after step %" PRIu64,
                             kiln_state_cursor(t->state)->step);
        }
        KILN_TRY(kiln_executor_do(x, &a, err));
    }
}

/* Weights that a device refuses end an evaluation on all ranks, also on those that have no share of
 * it, and have compiled nothing. */
static enum kiln_status refused_by_any(struct kiln_trainer *t, enum kiln_status status,
                                       struct kiln_err *err) {
    double refused = status == KILN_EINPUT;
    if (status != KILN_OK && status != KILN_EINPUT) {
        return status;
    }
    KILN_TRY(kiln_ranks_most(t->ranks, &refused, err));
    KILN_REQUIRE(status == KILN_EINPUT || refused == 0, err, KILN_EINPUT,
                 "the device of another rank refuses the weights");
    return status;
}

enum kiln_status kiln_window_run(struct kiln_trainer *t, bool evaluate, uint64_t micro_batches,
                                 struct kiln_err *err) {
    const struct kiln_share share = kiln_trainer_share(t, micro_batches);
    struct kiln_reducer *reducer = t->engine.executor.reducer;
    enum kiln_status status = KILN_OK;
    t->first_micro_batch = share.first;
    if (reducer) {
        KILN_TRY(kiln_reducer_begin(reducer, evaluate, micro_batches, err));
    }
    if (share.n > 0) { /* an evaluation may be of fewer than there are ranks */
        kiln_hand_over_take_up(t, evaluate, share.n);
        if (t->engine.stage) {
            kiln_pipe_begin(&t->engine.pipe, evaluate, share.n);
        }
        status = run_actions(t, err);
    }
    if (evaluate && !t->engine.stage && micro_batches < kiln_ranks_count(t->ranks)) {
        status = refused_by_any(t, status, err);
    }
    KILN_TRY(status);
    return reducer ? kiln_reducer_finish(reducer, &t->engine.executor.loss_sum, err) : KILN_OK;
}

enum kiln_status kiln_window_evaluate(struct kiln_trainer *t, double *loss, struct kiln_err *err) {
    const struct kiln_micro_batch *shape = &t->engine.plan.shape;
    const size_t batches = kiln_batches_evaluated(t);
    const double start = kiln_now_s();
    *loss = (double)NAN;
    if (batches == 0) {
        return KILN_OK;
    }
    KILN_TRY(kiln_window_run(t, true, batches, err));
    kiln_clock_evaluated(&t->clock, kiln_now_s() - start);
    *loss = t->engine.executor.loss_sum /
            fmax(kiln_batches_held_out_targets(t, batches * shape->batch), 1);
    return KILN_OK;
}
