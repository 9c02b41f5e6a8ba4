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

/* Floats in a stretch; stretches under way at once. */
enum { KILN_STRETCH = 1 << 20, KILN_UNDER_WAY = 2 };

/* A link as floats see it. */
struct kiln_wire {
    size_t ranks;
    double message_s; /* latency */
    double float_s;   /* a float travels */
    double sum_s;     /* a float is added */
};

/* One sum, of one stretch or of anything, with nothing else under way. */
struct kiln_sum {
    double latency_s, transfer_s; /* one after the other */
    double floats;                /* sent by the rank that sends most */
};
struct kiln_sum kiln_allreduce(const struct kiln_wire *wire, enum kiln_allreduce kind,
                               double floats);
/* The kind that ends first beside another sum like it; of equals the one that does alone. */
enum kiln_allreduce kiln_allreduce_fastest(const struct kiln_wire *wire, double floats);

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

#endif
