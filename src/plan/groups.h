/* SPDX-License-Identifier: MIT
 *
 * groups.h: the parts of a plan: limits, groups of layers, what is kept, processes.
 */
#ifndef KILN_PLAN_GROUPS_H
#define KILN_PLAN_GROUPS_H

#include "device/device.h"
#include "kiln/plan.h"

/* What a process may do, and what a layer takes of it. SIZE_MAX: no limit. */
struct kiln_limits {
    size_t compile, load;
    size_t group;                     /* the smaller one: the largest group */
    size_t forward, backward, shared; /* kernels: two kinds a layer, and one a process */
    bool whole;
};
struct kiln_limits kiln_limits_of(const struct kiln_plan_request *request);
/* KILN_EBUDGET when one layer can never fit. */
KILN_MUST_CHECK enum kiln_status kiln_limits_check(const struct kiln_plan_request *request,
                                                   const struct kiln_limits *limits,
                                                   struct kiln_err *err);

/* Groups in the order of a window; `at` has room for kiln_groups_room(L). */
struct kiln_groups {
    struct kiln_plan_group *at;
    size_t n, n_forward; /* the forward groups come first */
    /* A run of dropped layers has its taps from RECOMPUTE to BACKWARD, in all micro-batches. */
    bool long_runs;
};
size_t kiln_groups_room(size_t layers);
void kiln_groups_forward(const struct kiln_limits *limits, size_t layers,
                         struct kiln_groups *groups);
/* Append the backward groups. Full[l]: layer l is kept full. Single runs: every layer that is not
 * full is a run of its own (its input is kept). Join: the first group shares the process of the
 * last forward group where it can. */
void kiln_groups_backward(const struct kiln_limits *limits, size_t layers, const bool *full,
                          bool single_runs, bool join, struct kiln_groups *groups);

/* Do the kernels of both passes fit one process? Then a window is compiled once. */
bool kiln_one_batch(const struct kiln_limits *limits, size_t layers);

/* Mark the layers that a policy keeps full. */
void kiln_keep_layers(struct kiln_keep keep, size_t layers, const struct kiln_groups *forward,
                      bool *full);
/* The longest run of layers that are recomputed together. */
size_t kiln_longest_run(const struct kiln_groups *groups, size_t layers, const bool *full,
                        bool single_runs, bool cut_at_groups);

/* Where actions are written, in order; at NULL: only counted. */
struct kiln_trace {
    struct kiln_plan_action *at;
    size_t n;
};
/* Windows through processes until they repeat; the means of the repeating ones. Then one more,
 * traced. `full` as above. */
KILN_MUST_CHECK enum kiln_status kiln_simulate(const struct kiln_limits *limits,
                                               const struct kiln_groups *groups, size_t layers,
                                               const bool *full, double *compiles, double *restarts,
                                               struct kiln_trace *trace, struct kiln_err *err);

/* Bytes by part for what is kept. */
struct kiln_kept_shape {
    size_t full, inputs, edges; /* layers kept full, layer inputs kept, outputs kept beside them */
    size_t run;                 /* longest run recomputed */
    size_t held;                /* micro-batches whose kept values are held at once */
    bool long_runs;
};
KILN_MUST_CHECK enum kiln_status kiln_memory_parts(const struct kiln_table *table,
                                                   const struct kiln_plan_request *request,
                                                   struct kiln_memory *fixed, uint64_t *residual,
                                                   uint64_t *taps, struct kiln_err *err);
void kiln_memory_kept(const struct kiln_kept_shape *shape, uint64_t residual, uint64_t taps,
                      uint64_t tokens, struct kiln_memory *memory);

#endif
