/* SPDX-License-Identifier: MIT */
#include "train/clock.h"

#include <math.h>

/* Off by less is let be: every turn bends the learning rate. Less than the tenth that is promised,
 * since the last turns have little left to change. */
#define OFF 0.03
/* And of the time that is left: it may still change, and be made good. */
#define OFF_LEFT 0.08
/* Steps that must be seen first, and between two turns, are at least so many; the mean forgets as
 * slowly. */
enum { FIRST = 8 };
static uint64_t patience(const struct kiln_settings *s) {
    const uint64_t share = s->steps / 25;
    return share > FIRST ? share : FIRST;
}

static uint64_t evaluations_between(const struct kiln_settings *s, uint64_t from, uint64_t to) {
    return s->eval_every > 0 && s->eval_every != KILN_UNSET
               ? to / s->eval_every - from / s->eval_every
               : 0;
}

double kiln_clock_evaluations(const struct kiln_clock *clock, const struct kiln_settings *s,
                              uint64_t step) {
    const uint64_t last = s->eval_every == 0 || s->steps % s->eval_every != 0;
    return clock->eval_s * (double)(evaluations_between(s, step, s->steps) + last);
}

uint64_t kiln_clock_steps(const struct kiln_clock *clock, const struct kiln_settings *s,
                          uint64_t step, double now) {
    /* A step costs its share of the evaluations, too. */
    const double share = s->eval_every > 0 && s->eval_every != KILN_UNSET
                             ? clock->eval_s / (double)s->eval_every
                             : 0;
    const double left = clock->deadline - now - clock->tail - clock->eval_s;
    const double steps = floor(left / (clock->step_s + share) + 0.5);
    return step + (uint64_t)fmax(1, fmin(steps, 1e9));
}

void kiln_clock_evaluated(struct kiln_clock *clock, double seconds) {
    clock->evaluating += seconds;
    clock->eval_s = seconds;
}

/* What the step before took. The first one here touches memory for the first time: not counted. */
static void learn(struct kiln_clock *clock, const struct kiln_settings *s, double now) {
    if (clock->since > 0) {
        const double took = now - clock->since - clock->evaluating;
        clock->seen++;
        const uint64_t most = patience(s), of = clock->seen < most ? clock->seen : most;
        const double weight = clock->seen <= 1 ? 0.0 : 1.0 / (double)(of - (of > 1));
        clock->step_s += weight * (took - clock->step_s);
    }
    clock->since = now;
    clock->evaluating = 0;
}

enum kiln_status kiln_clock_tick(struct kiln_clock *clock, const struct kiln_settings *s,
                                 uint64_t step, double now, bool *turned, struct kiln_err *err) {
    *turned = false;
    if (clock->deadline <= 0) {
        return KILN_OK;
    }
    learn(clock, s, now);
    /* Not before enough was seen, lest a hiccup counts as the machine. */
    const uint64_t wait = patience(s);
    const bool late = now > clock->deadline;
    /* A run that was rolled back may stand in front of its last turn. */
    const bool behind = s->n_turns > 0 && step < s->turn[s->n_turns - 1].at;
    if (s->n_turns == KILN_TURNS || behind || step >= s->steps ||
        (!late && clock->seen < clock->turned + wait)) {
        return KILN_OK;
    }
    const double end = now + (double)(s->steps - step) * clock->step_s +
                       kiln_clock_evaluations(clock, s, step) + clock->tail;
    const uint64_t steps = kiln_clock_steps(clock, s, step, now);
    /* The last place of the list is for the end itself. */
    const bool room = s->n_turns + 1 < KILN_TURNS || late;
    const double left = fmax(0, clock->deadline - now);
    const double off = fabs(end - clock->deadline);
    if (!room || steps == s->steps || off <= OFF * clock->whole + OFF_LEFT * left) {
        return KILN_OK;
    }
    clock->turned = clock->seen;
    *turned = true;
    return clock->turn(clock->context, step, steps, err);
}
