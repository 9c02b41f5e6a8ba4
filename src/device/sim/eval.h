/* SPDX-License-Identifier: MIT
 *
 * eval.h: the interpreter: runs a MIL graph on the CPU with the numbers of a Neural Engine.
 *
 * A value is an array of fp32 whose elements are numbers of its declared type (integers beyond 2^24
 * are rounded). An operation
 * computes in fp32 (sums of products on the CPU kernels) or double and rounds once, when it
 * stores; then a NaN becomes what struct kiln_sim_numbers says.
 *
 * kiln_sim_plan says once where every value lies in a workspace; values that are never alive at the
 * same time share memory, and reshapes, identities and slices that are one piece of their input
 * take none. The workspace belongs to the machine and serves all plans, one at a time, so that
 * evaluating allocates nothing. What is computed does not depend on the number of threads.
 */
#ifndef KILN_DEVICE_SIM_EVAL_H
#define KILN_DEVICE_SIM_EVAL_H

#include "device/mil/graph.h"
#include "device/sim/sim.h"
#include "kernel/product.h"

/* What evaluates: kernels, threads, memory. */
struct kiln_sim_machine {
    struct kiln_kernels kernels;
    struct kiln_workers workers;
    struct kiln_sim_numbers numbers;
    float *workspace;
    size_t floats; /* of the workspace */
};
KILN_MUST_CHECK enum kiln_status kiln_sim_machine_open(struct kiln_sim_machine *machine,
                                                       struct kiln_pool *pool,
                                                       const struct kiln_sim_numbers *numbers,
                                                       struct kiln_err *err);
void kiln_sim_machine_close(struct kiln_sim_machine *machine);
/* Make the workspace at least so large. */
KILN_MUST_CHECK enum kiln_status kiln_sim_machine_grow(struct kiln_sim_machine *machine,
                                                       size_t floats, struct kiln_err *err);

/* Where a value lies: in memory of the graph, or at an offset of the workspace. */
struct kiln_sim_place {
    const float *constant; /* or NULL */
    size_t offset;
    bool view; /* part of another value's memory: it is there without doing anything */
};

struct kiln_sim_plan {
    const struct kiln_mil_graph *graph; /* borrowed */
    struct kiln_sim_place *places;      /* of the values */
    size_t *scratch;                    /* of the nodes: offsets in the workspace */
    size_t floats;                      /* the workspace that it needs */
    double flop;                        /* of convolutions and matrix products */
};
KILN_MUST_CHECK enum kiln_status kiln_sim_plan_open(const struct kiln_mil_graph *graph,
                                                    const struct kiln_sim_numbers *numbers,
                                                    struct kiln_sim_plan *out,
                                                    struct kiln_err *err);
void kiln_sim_plan_close(struct kiln_sim_plan *plan);
/* Bytes of a tensor as it lies on a surface or in a file. */
size_t kiln_sim_bytes(const struct kiln_mil_type *type);

/* Evaluate: inputs and outputs are tensors of the declared types, in the order of the graph. The
 * workspace has at least plan->floats. */
void kiln_sim_evaluate(struct kiln_sim_machine *machine, const struct kiln_sim_plan *plan,
                       const void *const *inputs, void *const *outputs);

#endif
