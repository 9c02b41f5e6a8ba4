/* SPDX-License-Identifier: MIT
 *
 * eval_int.h: what the files of the interpreter share.
 */
#ifndef KILN_DEVICE_SIM_EVAL_INT_H
#define KILN_DEVICE_SIM_EVAL_INT_H

#include "base/mem.h"
#include "device/sim/eval.h"

/* One node that runs. */
struct kiln_sim_run {
    struct kiln_sim_machine *machine;
    const struct kiln_sim_plan *plan;
    const struct kiln_mil_node *node;
    float *scratch; /* of the node */
};
/* Operand i, or NULL where an optional one is absent; result i; their types. */
const float *kiln_sim_in(const struct kiln_sim_run *run, size_t i);
float *kiln_sim_out(const struct kiln_sim_run *run, size_t i);
const struct kiln_mil_type *kiln_sim_in_type(const struct kiln_sim_run *run, size_t i);
const struct kiln_mil_type *kiln_sim_out_type(const struct kiln_sim_run *run, size_t i);
/* Result i is part of an operand's memory (struct kiln_sim_place). */
bool kiln_sim_is_view(const struct kiln_sim_run *run, size_t i);

/* Turn n fresh results into numbers of the node's first result: rounding, then the NaN rule. */
void kiln_sim_store(const struct kiln_sim_run *run, float *x, size_t n);

/* Elements that a pool task takes of an array: constant, so bits do not depend on threads. */
enum { KILN_SIM_CHUNK = 8192 };
static inline void kiln_sim_tasks(const struct kiln_sim_run *run, size_t n, kiln_task_fn fn,
                                  void *context) {
    kiln_pool_run(run->machine->workers.pool, n, fn, context);
}

/* Elements of the axes first..last-1. */
size_t kiln_sim_extent(const struct kiln_mil_type *type, size_t first, size_t last);

/* A loop nest over a row-major array of which some axes are walked: index -> offset. */
struct kiln_sim_walk {
    size_t rank, dims[KILN_MIL_RANK], step[KILN_MIL_RANK], count;
};
/* The axes of `type` whose bit is set in `axes`. */
struct kiln_sim_walk kiln_sim_walk_of(const struct kiln_mil_type *type, uint32_t axes);
static inline size_t kiln_sim_walk_at(const struct kiln_sim_walk *walk, size_t index) {
    size_t at = 0;
    for (size_t i = walk->rank; i-- > 0;) {
        at += index % walk->dims[i] * walk->step[i];
        index /= walk->dims[i];
    }
    return at;
}

/* Operations, by family. */
void kiln_sim_elementwise(const struct kiln_sim_run *run);
void kiln_sim_softmax(const struct kiln_sim_run *run);
void kiln_sim_reduce(const struct kiln_sim_run *run);
void kiln_sim_layer_norm(const struct kiln_sim_run *run);
void kiln_sim_conv(const struct kiln_sim_run *run);
void kiln_sim_matmul(const struct kiln_sim_run *run);
void kiln_sim_attention(const struct kiln_sim_run *run);
void kiln_sim_transpose(const struct kiln_sim_run *run);
void kiln_sim_slice(const struct kiln_sim_run *run);
void kiln_sim_concat(const struct kiln_sim_run *run);
void kiln_sim_split(const struct kiln_sim_run *run);

/* Floats of scratch that a conv, matmul or attention wants; FLOP. */
size_t kiln_sim_product_scratch(const struct kiln_mil_graph *graph,
                                const struct kiln_mil_node *node);
double kiln_sim_product_flop(const struct kiln_mil_graph *graph, const struct kiln_mil_node *node);

#endif
