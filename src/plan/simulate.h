/* SPDX-License-Identifier: MIT
 *
 * simulate.h: what simulate.c and repeat.c share: windows that are taken in virtual time.
 */
#ifndef KILN_PLAN_SIMULATE_H
#define KILN_PLAN_SIMULATE_H

#include "plan/plan.h"

struct simulation {
    struct kiln_plan *plan;
    struct kiln_timeline time;
    struct kiln_process process;
    struct kiln_process scratch; /* of what is to come */
    unsigned char *before;       /* [L] has, before an action */
    unsigned char *began;        /* [L] has, when the last window began */
    struct kiln_cost sum;
    struct kiln_trace *trace; /* NULL: not written */
    bool ready;  /* what is compiled next this process compiles since it was a successor ... */
    double from; /* ... which began then */
};

/* One window, from what the process holds. */
void kiln_simulate_window(struct simulation *s);
/* Windows until one begins where another did: the plan's cost is the mean of those between. False:
 * no memory. */
bool kiln_simulate_repeat(struct simulation *s);

#endif
