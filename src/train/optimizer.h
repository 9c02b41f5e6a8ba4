/* SPDX-License-Identifier: MIT
 *
 * optimizer.h: from gradients to new weights: H + E, norm, clip, AdamW, refresh of the device.
 *
 * Parameters are walked in pieces (model/pieces.h), a
 * pool task each; the norm is the sum of the pieces' sums in index order, so neither norm nor
 * weights depend on threads. AdamW: Loshchilov and Hutter 2019; decay only for rank-2 tensors,
 * adapters among them.
 */
#ifndef KILN_TRAIN_OPTIMIZER_H
#define KILN_TRAIN_OPTIMIZER_H

#include "device/device.h"
#include "kernel/kernel.h"
#include "kiln/settings.h"
#include "model/pieces.h"
#include "state/state.h"

struct kiln_optimizer;

/* Borrows all. weights is the flat array of the table; m, v and gradients.all
 * are of what is trained: kiln_trained_size. */
struct kiln_optimizer_parts {
    const struct kiln_table *table;
    struct kiln_pool *pool;
    float *weights, *m, *v;
    struct kiln_gradients gradients;
    /* NULL, or told of rows of a matrix that have new values, as a device's `refresh`. */
    void (*refresh)(void *context, size_t matrix, size_t first, size_t rows, const float *weights);
    void *refresh_context;
    bool folded;              /* the embedding's gradient is in gradients.all already (reducer.h) */
    struct kiln_state *state; /* that holds the arrays and guards each chunk; NULL: unguarded */
    double beta1, beta2, eps, weight_decay, clip; /* clip 0: none */
    /* NULL, or told on the way through an update, in this order: l+1 when the parameters of layer l
     * have their new values, layers+1 when all have. Whoever compiles from them may begin. */
    void (*updated)(void *context, size_t gate);
    void *updated_context;
};
KILN_MUST_CHECK enum kiln_status kiln_optimizer_create(const struct kiln_optimizer_parts *parts,
                                                       struct kiln_optimizer **out,
                                                       struct kiln_err *err);
void kiln_optimizer_destroy(struct kiln_optimizer *optimizer);

/* What devices that sum on the way write into (device/gradient_sums.h). Whoever begins a window
 * clears it. */
struct kiln_gradient_sums *kiln_optimizer_sums(struct kiln_optimizer *optimizer);

/* End the window: add E to H, return the global 2-norm of the gradient. The gradients in memory are
 * loss_scale times the true ones, a power of two; norm and update are of the true ones. */
double kiln_optimizer_norm(struct kiln_optimizer *optimizer, double loss_scale);
/* Update number `update` (1 for the first) at rate lr; norm is what kiln_optimizer_norm gave.
 * Chunks that the state says are of this update already are left as they are, so that an update
 * can be run again after a death. */
void kiln_optimizer_update(struct kiln_optimizer *optimizer, uint64_t update, double lr,
                           double norm, double loss_scale);

/* The weights are others than those the device was opened with, and nobody updated them here: what
 * the device refreshes is made anew. */
void kiln_optimizer_refresh(struct kiln_optimizer *optimizer);

/* The learning rate of step 0, 1, 2, ...: linear warm-up to lr, then constant, or linear or
 * cosine down to min_lr at the last step. */
double kiln_learning_rate(const struct kiln_settings *settings, uint64_t step);

#endif
