/* SPDX-License-Identifier: MIT
 *
 * float64.h: a model in double precision, plain and readable: what a step is explained with.
 *
 * The arithmetic of docs/notation.md with nothing rounded but the fp32 weights it is given. One
 * sequence at a time goes forward, and back where its gradient is wanted; every activation that has
 * a name below is kept until the next sequence. It shares no code with the kernels that train, but
 * for the frequencies of RoPE: so one can be held against the other.
 *
 *   kiln_float64_create(table, weights, seq, pool, true, &model, &err);
 *   for each sequence: kiln_float64_forward(model, &sequence, losses);
 *                      kiln_float64_backward(model, scale);
 *   kiln_float64_gradients(model)
 *
 * Sums are taken in the order of their index, whatever the number of threads: equal bits on every
 * machine whose exp, cos and sin are the same.
 */
#ifndef KILN_TRAIN_FLOAT64_H
#define KILN_TRAIN_FLOAT64_H

#include "base/pool.h"
#include "kiln/model.h"

/* What a forward pass computes, in its order. W is a row's width. */
enum kiln_stage {
    KILN_STAGE_EMBEDDING,    /* [T, D] the residual stream that a model begins with */
    KILN_STAGE_ATTN_SQUARES, /* [T, 1] the sum of squares of a norm's input; of every layer from */
    KILN_STAGE_ATTN_NORM,    /* [T, D]                                                   here on */
    KILN_STAGE_QUERIES,      /* [T, H*K] as the product gives them, biases added */
    KILN_STAGE_KEYS,         /* [T, G*K] */
    KILN_STAGE_VALUES,       /* [T, G*K] */
    KILN_STAGE_TURNED_QUERIES, /* [T, H*K] behind the heads' norm, where there is one, and RoPE */
    KILN_STAGE_TURNED_KEYS,    /* [T, G*K] */
    KILN_STAGE_SCORES,         /* [T, H] of a token and head the score that is furthest from 0 */
    KILN_STAGE_ATTENTION,      /* [T, H*K] what attention reads */
    KILN_STAGE_ATTN_RESIDUAL,  /* [T, D] the residual stream behind attention */
    KILN_STAGE_FFN_SQUARES,    /* [T, 1] */
    KILN_STAGE_FFN_NORM,       /* [T, D] */
    KILN_STAGE_GATE,           /* [T, F] W1 n */
    KILN_STAGE_UP,             /* [T, F] W3 n */
    KILN_STAGE_PRODUCT,        /* [T, F] silu(gate) * up */
    KILN_STAGE_FFN_RESIDUAL,  /* [T, D] the residual stream behind the layer; the last of a layer */
    KILN_STAGE_FINAL_SQUARES, /* [T, 1] */
    KILN_STAGE_FINAL_NORM,    /* [T, D] */
    KILN_STAGE_LOGITS,        /* [T, V] */
    KILN_STAGE_LOSS,          /* [T, 1] 0 where a target does not count */
    KILN_STAGES
};
static inline bool kiln_stage_of_layer(enum kiln_stage stage) {
    return stage >= KILN_STAGE_ATTN_SQUARES && stage <= KILN_STAGE_FFN_RESIDUAL;
}

/* Told of every stage as soon as it is there, and in the backward pass of its gradient, where one
 * is taken: not of squares, turned queries and keys, scores and the loss. */
struct kiln_float64_values {
    const double *at;
    size_t rows, width;
    size_t apart; /* elements between rows: queries, keys and values lie side by side */
};
struct kiln_float64_watch {
    void *context;
    void (*see)(void *context, enum kiln_stage stage, size_t layer, bool gradient,
                struct kiln_float64_values values);
};

/* A sequence of a window. */
struct kiln_float64_sequence {
    const uint32_t *tokens;  /* [T] */
    const uint32_t *targets; /* [T]; KILN_NO_TARGET: no loss */
    const uint32_t *starts;  /* [T] where each token's document begins, or NULL: one document */
};

struct kiln_float64;

/* weights: the flat array of the table; adapters are beside the frozen ones, as in training. All
 * are borrowed. `gradients`: there will be backward passes. KILN_ENOMEM says how much it takes. */
KILN_MUST_CHECK enum kiln_status kiln_float64_create(const struct kiln_table *table,
                                                     const float *weights, size_t seq,
                                                     struct kiln_pool *pool, bool gradients,
                                                     struct kiln_float64 **out,
                                                     struct kiln_err *err);
void kiln_float64_destroy(struct kiln_float64 *f);
/* NULL: nobody is told. */
void kiln_float64_set_watch(struct kiln_float64 *f, const struct kiln_float64_watch *watch);
/* Ids are below V, starts not behind their token. losses [T], of each token, 0 for no target.
 * Returns their sum. */
double kiln_float64_forward(struct kiln_float64 *f, const struct kiln_float64_sequence *sequence,
                            double *losses);
/* Add the gradient of scale * (the sum of the last forward's losses) to the gradients. */
void kiln_float64_backward(struct kiln_float64 *f, double scale);
/* Elements as in the table, those that are trained (kiln_trained_at); a tied embedding's has the
 * classifier's in it. */
const double *kiln_float64_gradients(const struct kiln_float64 *f);
void kiln_float64_clear_gradients(struct kiln_float64 *f);
/* A stage of the last forward; `layer` is looked at for those of layers. */
struct kiln_float64_values kiln_float64_stage(const struct kiln_float64 *f, enum kiln_stage stage,
                                              size_t layer);
/* Floating-point operations of a sequence forward, and of forward and backward. */
double kiln_float64_flops(const struct kiln_table *table, size_t seq, bool backward);

#endif
