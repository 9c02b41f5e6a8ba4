/* SPDX-License-Identifier: MIT
 *
 * engine.h: all that computes, opened together: plan, threads, device, executor, optimizer.
 *
 * Training, bench, verify and evaluation of a file open the same engine; they differ in where the
 * weights lie.
 */
#ifndef KILN_TRAIN_ENGINE_H
#define KILN_TRAIN_ENGINE_H

#include "train/executor.h"
#include "train/optimizer.h"

struct kiln_engine {
    struct kiln_plan_request request;
    struct kiln_plan plan;
    struct kiln_table *stage;       /* its layers, where the request is of one; else NULL */
    const struct kiln_table *whole; /* the model, borrowed */
    struct kiln_pipe pipe;          /* to the stages beside it */
    struct kiln_pool *pool;
    struct kiln_device *device;
    struct kiln_executor executor;
    struct kiln_optimizer *optimizer; /* NULL where nothing is trained */
    struct kiln_reducer *reducer;     /* NULL: the executor adds all there is */
    struct kiln_spans *spans;         /* of all of them */
};

/* Step 1: the plan. The table is the model's, also of a request for a stage; borrowed until close.
 */
KILN_MUST_CHECK enum kiln_status kiln_engine_plan(struct kiln_engine *engine,
                                                  const struct kiln_table *table,
                                                  const struct kiln_plan_request *request,
                                                  struct kiln_err *err);

/* Step 2: everything else. All is borrowed. */
struct kiln_engine_memory {
    float *weights;
    /* What the device opens with; table NULL: the weights above, as generation 0. */
    struct kiln_weights active;
    int64_t generation;
    /* To train; without an optimizer leave it zero. table, pool, device, weights and folded are
     * filled. */
    struct kiln_optimizer_parts optimizer;
    /* Of a window whose gradients come from more than this process, or are added by a tree. */
    struct kiln_ranks *ranks;
    const struct kiln_holding *holding; /* each rank wants what it holds only; NULL: all */
    uint64_t micro_batches;             /* on all ranks */
    bool deterministic, local, narrow;  /* reducer.h */
};
KILN_MUST_CHECK enum kiln_status kiln_engine_open(struct kiln_engine *engine,
                                                  const struct kiln_table *table,
                                                  const struct kiln_engine_memory *memory,
                                                  struct kiln_err *err);
/* Weights of the model, as the device reads them: those of its layers. */
struct kiln_weights kiln_engine_weights(const struct kiln_engine *engine,
                                        struct kiln_weights weights);
/* A zeroed engine, or one whose opening failed, is fine. */
void kiln_engine_close(struct kiln_engine *engine);

#endif
