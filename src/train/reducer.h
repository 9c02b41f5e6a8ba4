/* SPDX-License-Identifier: MIT
 *
 * reducer.h: the gradient and the loss of a window, from its micro-batches on all ranks.
 *
 * Alone, and without --deterministic, there is none: a device adds micro-batch behind micro-batch.
 *
 *   many ranks       each adds those of its share (ranks/tree.h) so. While the last of them goes
 *                    back through the layers, what lies behind is added over the ranks, layer by
 *                    layer: the sums of one layer travel while the one below is computed.
 *   --local-steps    the same, and nothing travels but losses: the gradient is the rank's own.
 *   a pipeline       the ranks of a stage add what they have of its layers, and all ranks get it:
 *                    everybody updates all weights.
 *   --deterministic  each micro-batch has a gradient of its own, added to the others by one tree:
 *                    equal bits on any number of ranks. It takes a gradient's memory more for each
 *                    doubling of a rank's share.
 *
 * A tied embedding has two gradients, that of the head, H, and that of the lookup, E. By a tree,
 * and in a pipeline, where they come from different stages, each is added by itself, and whoever
 * updates adds both, as where there is no reducer.
 *
 * Losses are those of micro-batches, added in their order: equal bits on any number of ranks where
 * the gradients' are.
 */
#ifndef KILN_TRAIN_REDUCER_H
#define KILN_TRAIN_REDUCER_H

#include "base/pool.h"
#include "device/device.h"
#include "model/holding.h"
#include "ranks/ranks.h"
#include "ranks/tree.h"

struct kiln_reducer;

/* All is borrowed. */
struct kiln_reducer_parts {
    const struct kiln_table *table;
    struct kiln_pool *pool;
    struct kiln_ranks *ranks;        /* NULL: alone */
    struct kiln_spans *spans;        /* told what the ranks do; NULL: nobody is */
    struct kiln_gradients gradients; /* where a window's gradient is to lie */
    uint64_t micro_batches;          /* of a training window, on all ranks */
    size_t stages;                   /* of a pipeline; 0 counts as 1: none */
    bool deterministic;
    /* Each rank gets the gradient of what it holds only, in a training window; NULL: all of it. */
    const struct kiln_holding *holding;
    bool local;  /* each rank has gradients of its own */
    bool narrow; /* gradients travel between ranks as bf16 (kiln_ranks_narrow) */
};

/* *out is NULL where none is needed. KILN_EUSAGE: more ranks than micro-batches. */
KILN_MUST_CHECK enum kiln_status kiln_reducer_create(const struct kiln_reducer_parts *parts,
                                                     struct kiln_reducer **out,
                                                     struct kiln_err *err);
void kiln_reducer_destroy(struct kiln_reducer *reducer);
/* Bytes of gradients beside the one that is there anyway. */
uint64_t kiln_reducer_bytes(const struct kiln_table *table, uint64_t micro_batches,
                            const struct kiln_grid *grid, bool deterministic);
/* Is a tied embedding's E added to its H, as the end of a window leaves them? */
bool kiln_reducer_folds(const struct kiln_reducer *reducer);

/* A window of so many micro-batches on all ranks begins, or an evaluation; what is given below are
 * numbers in the share of this one. */
KILN_MUST_CHECK enum kiln_status kiln_reducer_begin(struct kiln_reducer *reducer, bool evaluate,
                                                    uint64_t micro_batches, struct kiln_err *err);
/* Where micro-batch `i` of the share writes its gradient, and whether it adds. */
void kiln_reducer_target(const struct kiln_reducer *reducer, uint64_t i,
                         struct kiln_gradients *gradients);
/* Before the last micro-batch of the share goes back: what other stages have done by now is
 * awaited.
 */
void kiln_reducer_others(struct kiln_reducer *reducer, uint64_t i);
/* Does anybody wait for the layers of micro-batch i, one by one? Then each is to be in place when
 * kiln_reducer_layer is called. */
bool kiln_reducer_wants(const struct kiln_reducer *reducer, uint64_t i);
/* Micro-batch i has its gradient of a layer of the model, of what is behind the layers (`layer` is
 * their number), or of the embedding (KILN_NO_LAYER), which comes last. */
void kiln_reducer_layer(struct kiln_reducer *reducer, uint64_t i, size_t layer);
/* Its loss, summed over its tokens. */
void kiln_reducer_loss(struct kiln_reducer *reducer, uint64_t i, double loss);
/* The end: gradients are where they are to lie, *loss is the sum of all ranks'. */
KILN_MUST_CHECK enum kiln_status kiln_reducer_finish(struct kiln_reducer *reducer, double *loss,
                                                     struct kiln_err *err);

#endif
