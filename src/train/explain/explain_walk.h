/* SPDX-License-Identifier: MIT
 *
 * explain_walk.h: everything that a step computes with, in its order: each weight before what it
 * makes, each activation, and behind them the gradients of activations on the way back. Of each
 * what is not finite, what is beyond the run's precision, and what is largest.
 */
#ifndef KILN_TRAIN_EXPLAIN_WALK_H
#define KILN_TRAIN_EXPLAIN_WALK_H

#include "kiln/cpu.h"
#include "kiln/explain.h"
#include "train/explain/float64.h"

/* A larger result of a matmul is infinite on the Neural Engine (docs/neural-engine.md). */
#define KILN_WALK_MATMUL_MOST 32752.0

/* What a run computes in: decides how large a number may be where. */
struct kiln_walk_arithmetic {
    enum kiln_precision precision; /* fp16: of sim or ane, for which the rest is */
    bool dynamic;                  /* weights are inputs of programs: products are matmuls */
    bool classify;                 /* final norm and classifier are the device's, not the host's */
    double scale;                  /* gradients are so many times the true ones there */
};

struct kiln_walk {
    const struct kiln_table *table;
    struct kiln_walk_arithmetic arithmetic;
    struct kiln_explain_tensor *items; /* [n] */
    size_t n;
    double *residual; /* [seq, D] the residual stream, in front of the half-layer that comes next */
    size_t *forward, *backward; /* [layers + 1][KILN_STAGES]: index of an item; the last row is of
                                 * the stages outside of layers */
    size_t sequence;            /* that is being looked at */
};

/* An empty one, of sequences of `seq` tokens. KILN_ENOMEM. */
KILN_MUST_CHECK enum kiln_status kiln_walk_open(struct kiln_walk *w, const struct kiln_table *table,
                                                const struct kiln_walk_arithmetic *arithmetic,
                                                size_t seq, struct kiln_err *err);
/* items too, unless they were taken away. */
void kiln_walk_close(struct kiln_walk *w);
/* Look at the weights. `used` [V]: ids that the window looks up in the embedding; the other rows
 * are looked at where the classifier reads them. */
void kiln_walk_weights(struct kiln_walk *w, const float *weights, const bool *used);
/* For kiln_float64_watch; context is the walk. */
void kiln_walk_see(void *context, enum kiln_stage stage, size_t layer, bool gradient,
                   struct kiln_float64_values values);
/* The first item that has numbers that are not finite, or with `finite` beyond its limit;
 * KILN_EXPLAIN_NO_PLACE: none has. The second leaves weights out. */
size_t kiln_walk_first(const struct kiln_walk *w, bool finite);
size_t kiln_walk_first_activation(const struct kiln_walk *w, bool finite);

#endif
