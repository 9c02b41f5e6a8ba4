/* SPDX-License-Identifier: MIT
 *
 * ranks.h: what gradients take that travel between ranks while the last backward pass goes on, in
 * virtual time (kiln/plan.h has the formulas).
 *
 * A stretch alternates between latency, in which the link is free, and transfer, in which it is
 * not. Of two under way one transfers in the latency of the other, as long as both together do not
 * want more than the link; from there on both are slower by what they want too much:
 *
 *   one     latency | transfer | latency | transfer | ...       a + t a message
 *   two     latency | transfer | latency | transfer | ...       max(a + t, 2 t) a message each
 *           transfer| latency  | transfer| latency  | ...
 *
 * To add what has arrived counts as transfer: it is done while the next message is not yet there.
 */
#ifndef KILN_PLAN_RANKS_H
#define KILN_PLAN_RANKS_H

#include "plan/plan.h"

/* What ranks add by a tree (ranks/tree.h): nodes of the rank that has most, of all. Both are 0
 * where no tree is asked for: each rank has one array. */
struct kiln_nodes {
    size_t most, all;
};
/* Of a window of so many micro-batches. */
struct kiln_nodes kiln_nodes_of(size_t ranks, uint64_t micro_batches);

/* A link as floats see it. */
struct kiln_wire {
    size_t ranks;
    bool parts; /* each rank wants its part of a sum only */
    struct kiln_nodes nodes;
    bool narrow;      /* as bf16, which goes directly */
    double message_s; /* latency */
    double float_s;   /* a float travels */
    double sum_s;     /* a float is added */
};

/* One sum, of one stretch or of anything, with nothing else under way. */
struct kiln_sum {
    double latency_s, transfer_s; /* one after the other */
    double floats;                /* sent by the rank that sends most */
};
struct kiln_sum kiln_allreduce(const struct kiln_wire *wire, double floats);
/* The kind that training takes. */
enum kiln_allreduce kiln_allreduce_kind(const struct kiln_wire *wire);

/* Gradients that become whole at one moment. */
struct kiln_bucket {
    double ready_s, floats;
};
struct kiln_reduced {
    double end_s;  /* all are summed; -INFINITY: nothing is sent */
    double busy_s; /* something was under way */
    double floats; /* sent by the rank that sends most */
};
/* Buckets in the order in which they travel, which is that of their times. */
struct kiln_reduced kiln_wire_reduce(const struct kiln_wire *wire,
                                     const struct kiln_bucket *buckets, size_t n);

/* What the request of a plan asks about ranks. KILN_ENOMEM; and KILN_EUSAGE where it asks what
 * cannot be: a link without bandwidth. */
KILN_MUST_CHECK enum kiln_status kiln_plan_over_ranks(const struct kiln_table *table,
                                                      struct kiln_plan *plan,
                                                      struct kiln_ranks_cost *out,
                                                      struct kiln_err *err);
/* The same of a pipeline: `request` is that of the whole model, and asks about ranks in stages. */
KILN_MUST_CHECK enum kiln_status kiln_plan_pipeline(const struct kiln_table *table,
                                                    const struct kiln_plan_request *request,
                                                    struct kiln_ranks_cost *out,
                                                    struct kiln_err *err);

/* A stage in virtual time: seconds that a micro-batch takes it, forward and backward, and that it
 * waits for compiles before the first. */
struct kiln_stage_time {
    double forward_s, backward_s, stall_s;
    double end_s; /* out: its last backward pass is done */
};
/* So many micro-batches through the stages in 1F1B order, from 0 on; a message between two of them
 * takes so long, beside the computing. KILN_ENOMEM. */
KILN_MUST_CHECK enum kiln_status kiln_pipeline_run(struct kiln_stage_time *stages, size_t n,
                                                   size_t micro_batches, double message_s,
                                                   struct kiln_err *err);

#endif
