/* SPDX-License-Identifier: MIT
 *
 * hand_over.c: windows and evaluations, left by one process and taken up by another, and the
 * successor that a relay starts early (trainer_int.h).
 *
 * Where a window or evaluation is cut, by a restart that the plan has or because somebody wants to
 * stop, the cursor takes note of the place; the next process first commits the cursor of the
 * window's start and then goes on from there, so that a death later on does the window again and no
 * gradient counts twice.
 */
#include <inttypes.h>
#include <math.h>

#include "base/kill_point.h"
#include "base/machine.h"
#include "train/cost.h"
#include "train/trainer_int.h"

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
    if (!edge || (!x->position.evaluate && (!last || kiln_batches_evaluated(t) > 0))) {
        call(t, &place, edge);
    }
}

bool kiln_hand_over_ready(struct kiln_trainer *t) {
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
    kiln_trainer_span_of(t, KILN_SPAN_RESTART, "process start", start, since);
    kiln_trainer_span_of(t, KILN_SPAN_STALL, NULL, since, now);
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
    if (edge && !kiln_trainer_delayed(t)) {
        t->ahead_since = (double)INFINITY;
        return KILN_OK;
    }
    kiln_trainer_generation(t, step);
    kiln_executor_begin(x, evaluate != 0, evaluate ? kiln_batches_evaluated(t) : t->settings->accum,
                        NULL, t);
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

bool kiln_hand_over_can_leave(const struct kiln_trainer *t) {
    const struct kiln_position *at = &t->engine.executor.position;
    return !t->engine.executor.reducer &&
           (t->engine.plan.layout.in_state || (at->group == 0 && at->micro_batch == 0));
}

uint64_t kiln_hand_over_mid(bool evaluate) { return evaluate ? 2 : 1; }

enum kiln_status kiln_hand_over_leave(struct kiln_trainer *t, struct kiln_err *err) {
    const struct kiln_executor *x = &t->engine.executor;
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    KILN_TRY(x->device->ops->drain(x->device, err)); /* all gradients are in the state */
    cursor.mid = kiln_hand_over_mid(x->position.evaluate);
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

void kiln_hand_over_take_up(struct kiln_trainer *t, bool evaluate, uint64_t micro_batches) {
    struct kiln_executor *x = &t->engine.executor;
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    kiln_trainer_generation(t, cursor.step);
    kiln_executor_begin(x, evaluate, micro_batches,
                        evaluate ? kiln_batches_held_out : kiln_batches_train, t);
    if (!cursor.mid) {
        call_ahead(t);
        return;
    }
    /* A place that one process left is none where many take shares (reducer.h). */
    if (cursor.mid == kiln_hand_over_mid(evaluate) && !x->reducer &&
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
