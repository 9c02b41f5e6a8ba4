/* SPDX-License-Identifier: MIT
 *
 * schedule.h: what happens next.
 *
 * A pure state machine: from a plan, from where the window stands and from what the process holds
 * it gives the next action; kiln_schedule_apply says what that action changes. Estimates, dry
 * runs, tests and training drive the same one, so what is printed is what trains.
 *
 *   for each round of `held` micro-batches
 *     for each group, forward groups up, backward groups down
 *       RESTART   when its kernels do not fit what is left of the process
 *       COMPILE   the kernels of the group that the process lacks
 *                 EXACT, DELAYED: then those of the groups to come, in order, as far as they fit
 *                 beside all that is loaded
 *                 DELAYED: then the set of the next generation, if it fits, too (COMPILE_NEXT)
 *       FORWARD or BACKWARD, one micro-batch at a time
 *   UPDATE        kernels are stale; where the next set was compiled the sets are swapped
 *   STEP_DONE
 *
 * In a pipeline the forward pass is `lead` rounds in front of the backward pass: round r takes its
 * own micro-batches forward, if there are any, and those of round r - lead backward. With one held
 * micro-batch and lead P - 1 - s on stage s of P that is 1F1B (Narayanan et al. 2019, PipeDream):
 * backward passes come in the order of the micro-batches, and lead + 1 of them are held.
 *
 * An evaluation is a window of forward groups only. Kernels stay loaded until the load budget
 * wants their room or new weights make them stale. Whoever carries a compile out may queue it and
 * go on: a pass waits for the kernels that it runs.
 *
 * DELAYED with a relay restarts at every edge behind which the process would have to compile: the
 * successor has done it.
 */
#ifndef KILN_PLAN_SCHEDULE_H
#define KILN_PLAN_SCHEDULE_H

#include "plan/groups.h"

/* The part of a plan that decides actions. */
struct kiln_schedule_plan {
    struct kiln_limits limits;
    size_t layers;
    size_t held;    /* micro-batches that go through a group before the next one */
    size_t lead;    /* rounds that the forward pass is in front; 0: no pipeline, or its end */
    bool one_batch; /* all kernels of a window fit one process */
    bool refreshes; /* new weights are taken in place */
    enum kiln_overlap overlap;
    bool relay;                /* a successor starts early; else the process replaces itself */
    const unsigned char *keep; /* [layers] enum kiln_layer_keep */
    struct kiln_groups groups;
};

/* Where a window stands. Zero but for micro_batches: at its start. */
struct kiln_position {
    bool evaluate; /* forward only */
    bool updated;
    uint64_t micro_batches;             /* of the window */
    uint64_t round, group, micro_batch; /* micro_batch: within the round's of the pass */
    bool next; /* DELAYED: during this window the weights of the next generation are there to be
                * compiled: in all windows but the first of a run */
};

/* What a process has compiled and holds. */
enum { KILN_HAS_FORWARD = 1, KILN_HAS_BACKWARD = 2 };
struct kiln_process {
    size_t compiled, loaded; /* kernels, against the limits. Compiled 0: a fresh process */
    bool shared;             /* the kernels that all layers share are here */
    bool next;               /* DELAYED: the other set is compiled, or being compiled: all of it, of
                              * the next generation; not part of `has` */
    unsigned char *has;      /* [layers] */
};

struct kiln_plan_action kiln_schedule_next(const struct kiln_schedule_plan *plan,
                                           const struct kiln_process *p,
                                           const struct kiln_position *at);
void kiln_schedule_apply(const struct kiln_schedule_plan *plan, struct kiln_process *p,
                         struct kiln_position *at, const struct kiln_plan_action *a);
/* RELAY: where the successor of a process begins that stands at `at`, the start of a window or a
 * place that it has just taken over: the next restart of this window, or the one at the edge behind
 * it (*edge; then *place is the start of a window). False: the process goes on beyond that edge.
 * `scratch` is overwritten. */
bool kiln_schedule_successor(const struct kiln_schedule_plan *plan, const struct kiln_process *p,
                             const struct kiln_position *at, struct kiln_process *scratch,
                             struct kiln_position *place, bool *edge);
/* Rounds that a window takes; and of a place the round whose micro-batches its group takes. */
uint64_t kiln_schedule_rounds(const struct kiln_schedule_plan *plan,
                              const struct kiln_position *at);
uint64_t kiln_schedule_taken(const struct kiln_schedule_plan *plan, const struct kiln_position *at);
/* Kernels of a set: those with weights of a window that is compiled once. */
size_t kiln_schedule_set(const struct kiln_limits *limits);
/* A number that differs for plans whose positions mean different things. */
uint32_t kiln_schedule_id(const struct kiln_schedule_plan *plan);

#endif
