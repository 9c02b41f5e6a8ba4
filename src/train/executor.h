/* SPDX-License-Identifier: MIT
 *
 * executor.h: carries the schedule's actions out on a device: compiles, forward, recomputation,
 * backward, and where activations lie (plan/plan.h has the picture).
 *
 *   kiln_executor_begin(x, ...);
 *   while ((action = kiln_executor_next(x)).what is COMPILE, FORWARD or BACKWARD)
 *       kiln_executor_do(x, &action, err);
 *
 * RESTART, UPDATE and STEP_DONE are the caller's; kiln_executor_do then only takes note of them.
 */
#ifndef KILN_TRAIN_EXECUTOR_H
#define KILN_TRAIN_EXECUTOR_H

#include "base/mem.h"
#include "device/device.h"
#include "train/pipe.h"
#include "train/reducer.h"
#include "train/sets.h"

/* Fill tokens and targets [N] of micro-batch `index` of the window; and its document mask (struct
 * kiln_device) where `starts` is not NULL. */
typedef void kiln_batch_source(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets,
                               uint32_t *starts);

struct kiln_executor {
    const struct kiln_plan *plan; /* borrowed */
    struct kiln_device *device;   /* borrowed */
    struct kiln_process process;
    struct kiln_position position;
    struct kiln_sets sets;    /* of process, what the device holds */
    struct kiln_spans *spans; /* borrowed; NULL: none */
    bool has_next, gated;
    uint64_t running;                /* micro-batch of the pass that runs */
    struct kiln_gradients gradients; /* of a training window */
    kiln_batch_source *source;
    void *context;
    struct kiln_reducer *reducer; /* borrowed; NULL: gradients are only added here */
    const struct kiln_pipe *pipe; /* borrowed; of a stage of a pipeline; else NULL */
    /* NULL, or told when a layer's weights have been compiled (FORWARD) and when its gradients have
     * been added to (BACKWARD); the embedding is KILN_NO_LAYER, and what is behind the layers has
     * their number: all of the model. */
    void (*layer_done)(void *context, enum kiln_pass pass, size_t layer);
    void *layer_done_context;
    float scale;                  /* of the loss, in its gradient */
    double loss_sum;              /* over the tokens of the micro-batches so far */
    double forward_s, backward_s; /* so far, of the caller to reset */
    double head_s;                /* of the last micro-batch's loss */

    uint32_t *tokens, *targets; /* [N] */
    uint32_t *starts;           /* [N]; NULL: no document mask */
    struct kiln_arena arena;
    unsigned char *held; /* plan->layout: the held micro-batches, in the arena or in a state */
    unsigned char *scratch[2], *run_inputs, *run_mids, *run_taps[KILN_HALVES];
};

/* Borrows plan, device, which was opened for the plan's micro-batch, and spans (NULL: none). Where
 * the plan's layout is `in_state` the caller sets x->held before it begins a window. */
KILN_MUST_CHECK enum kiln_status kiln_executor_open(struct kiln_executor *x,
                                                    const struct kiln_plan *plan,
                                                    struct kiln_device *device,
                                                    struct kiln_spans *spans, struct kiln_err *err);
void kiln_executor_close(struct kiln_executor *x);

/* The generation to compute with and, in a delayed run, the next one, which windows to come compile
 * (NULL: there is none). What the views show stays until they are replaced. At first it is what
 * the device was opened with, as generation 0, and no next one. */
void kiln_executor_generation(struct kiln_executor *x, int64_t generation,
                              const struct kiln_weights *active, const struct kiln_weights *next);
/* Begin a window (or an evaluation) of so many micro-batches. */
void kiln_executor_begin(struct kiln_executor *x, bool evaluate, uint64_t micro_batches,
                         kiln_batch_source *source, void *context);
struct kiln_plan_action kiln_executor_next(const struct kiln_executor *x);
KILN_MUST_CHECK enum kiln_status kiln_executor_do(struct kiln_executor *x,
                                                  const struct kiln_plan_action *action,
                                                  struct kiln_err *err);
/* Compile what comes before the first pass at the place where x stands, and do not wait for it.
 * gated: each kernel as soon as the compiler's gate says that its weights have been updated. */
KILN_MUST_CHECK enum kiln_status kiln_executor_compile(struct kiln_executor *x, bool gated,
                                                       struct kiln_err *err);
/* Return when the kernels of the group at the place where x stands are compiled. */
KILN_MUST_CHECK enum kiln_status kiln_executor_ready(struct kiln_executor *x, struct kiln_err *err);
/* All actions of the window up to its UPDATE or end; KILN_EBUDGET where it would restart. */
KILN_MUST_CHECK enum kiln_status kiln_executor_window(struct kiln_executor *x,
                                                      struct kiln_err *err);
/* Without limits: see that all forward kernels are loaded, for samples from them. */
KILN_MUST_CHECK enum kiln_status kiln_executor_load_forward(struct kiln_executor *x,
                                                            struct kiln_err *err);

/* Tests set it: what the forward pass drops is then overwritten with NaN. */
extern bool kiln_poison_dropped;

#endif
