/* SPDX-License-Identifier: MIT
 *
 * clock.h: a run that shall end at a time: how many steps that is, and what becomes of it when the
 * machine turns out slower or faster (docs/minutes.md).
 *
 * Time decides nothing by itself. The number of steps is fixed before the first one and written to
 * run.json. What is found out later becomes a turn (struct kiln_turn, settings.h): announced, on
 * the disk before the step that it is for begins, and from then on a setting like any other. A
 * death before it was written is a death of a run without that turn; behind it, of a run with it.
 * Who resumes has no deadline, but the steps that there are.
 */
#ifndef KILN_TRAIN_CLOCK_H
#define KILN_TRAIN_CLOCK_H

#include <stdint.h>

#include "kiln/settings.h"
#include "kiln/status.h"

struct kiln_clock {
    double deadline; /* seconds of the monotonic clock; 0: none */
    double whole;    /* seconds that were asked for */
    double tail;     /* of them behind the last step: its evaluation, model.bin, the end */
    /* What was seen: a mean that forgets, and the last one. */
    double step_s, eval_s;
    double since;      /* when the step before began; 0: none did here */
    double evaluating; /* of it in evaluations */
    uint64_t seen;     /* steps behind step_s */
    uint64_t turned;   /* `seen` at the last turn */
    void *context;
    /* Make the turn durable: settings->steps becomes `steps` behind step `at`. */
    enum kiln_status (*turn)(void *context, uint64_t at, uint64_t steps, struct kiln_err *err);
};

/* Seconds that evaluations take behind step `step`, that of the last step included. */
double kiln_clock_evaluations(const struct kiln_clock *clock, const struct kiln_settings *settings,
                              uint64_t step);
/* As many steps as end in time, when `step` are done and it is `now`: at least step + 1. */
uint64_t kiln_clock_steps(const struct kiln_clock *clock, const struct kiln_settings *settings,
                          uint64_t step, double now);
/* A window begins, with `step` steps done. Turns when the end would be off by more than 3 % of the
 * time and 8 % of what is left of it. *turned: settings have
 * another number of steps. */
KILN_MUST_CHECK enum kiln_status kiln_clock_tick(struct kiln_clock *clock,
                                                 const struct kiln_settings *settings,
                                                 uint64_t step, double now, bool *turned,
                                                 struct kiln_err *err);
/* An evaluation took so long. */
void kiln_clock_evaluated(struct kiln_clock *clock, double seconds);

#endif
