/* SPDX-License-Identifier: MIT
 *
 * float64_int.h: what the files of the double-precision model share.
 */
#ifndef KILN_TRAIN_FLOAT64_INT_H
#define KILN_TRAIN_FLOAT64_INT_H

#include "base/mem.h"
#include "train/explain/float64.h"

/* ---- products (float64_product.c) -------------------------------------------------------------
 */

/* A matrix read by rows and columns that lie so many elements apart. */
struct kiln_float64_view {
    const double *at;
    size_t row, col;
};
enum { KILN_FLOAT64_ROWS = 32, KILN_FLOAT64_COLS = 128, KILN_FLOAT64_SUM = 256 };
/* Bytes of scratch that a product wants of each thread. */
enum {
    KILN_FLOAT64_SCRATCH =
        (KILN_FLOAT64_ROWS + KILN_FLOAT64_COLS) * KILN_FLOAT64_SUM * sizeof(double)
};

/* c [m, n], rows ldc apart, = or += a [m, k] b [k, n]. */
void kiln_float64_product(struct kiln_pool *pool, const struct kiln_scratch *scratch, size_t m,
                          size_t n, size_t k, struct kiln_float64_view a,
                          struct kiln_float64_view b, double *c, size_t ldc, bool add);
/* fn for every row 0..n-1, each once, on all threads. */
void kiln_float64_rows(struct kiln_pool *pool, size_t n, void (*fn)(void *context, size_t row),
                       void *context);

/* ---- the model --------------------------------------------------------------------------------
 */

/* What a layer keeps, [T, ...] each. */
struct kiln_float64_layer {
    double *x, *squares, *normed; /* the residual stream it read, and its norm */
    double *qkv;                  /* [T, (H+2G)K] */
    double *turned;               /* [T, (H+G)K] */
    double *scores, *lse;         /* [T, H]; lse is ln sum exp of a row of scores */
    double *attention;            /* [T, HK] */
    double *middle, *squares2, *normed2;
    double *gate, *up, *product;
};

struct kiln_float64 {
    const struct kiln_table *table;
    const float *weights;
    struct kiln_pool *pool;
    struct kiln_scratch scratch; /* of a thread: a product's, and behind it two rows of T */
    size_t seq;
    struct kiln_float64_watch watch;
    struct kiln_float64_sequence sequence; /* of the last forward */
    double *block;                         /* all arrays below are in it */
    struct kiln_float64_layer *layers;
    double *x, *squares, *normed, *logits, *losses; /* of the end */
    double *wide;                                   /* the largest tensor, widened */
    double *angles;                                 /* [T, K] cos, sin */
    double *u;                                      /* [T, rank] of an adapter */
    /* Of the backward pass. */
    double *gradients;
    double *dx, *dnormed;   /* [T, D] */
    double *dqkv, *dturned; /* as qkv, and as turned */
    double *dattention;     /* [T, HK] */
    double *dgate, *dup, *dproduct;
    double *dlogits;
};

/* Where a stage of a layer, or of the ends, lies. */
static inline size_t kiln_float64_qkv(const struct kiln_dims *d) {
    return (d->heads + 2 * d->kv_heads) * d->head_size;
}
static inline size_t kiln_float64_turned(const struct kiln_dims *d) {
    return (d->heads + d->kv_heads) * d->head_size;
}

/* A tensor's numbers in double; NULL where the model has none of that role and layer. The second
 * use overwrites the first: rank 1 tensors are read in place instead. */
const double *kiln_float64_widen(struct kiln_float64 *f, const struct kiln_tensor *tensor);
const float *kiln_float64_vector(const struct kiln_float64 *f, enum kiln_role role, size_t layer);
/* Its gradient; NULL where it is not trained, or no gradients are taken. */
double *kiln_float64_gradient(const struct kiln_float64 *f, const struct kiln_tensor *tensor);
/* Tell the watch of the stages first..last of the forward pass; of the gradient of one. */
void kiln_float64_see(const struct kiln_float64 *f, enum kiln_stage first, enum kiln_stage last,
                      size_t layer);
void kiln_float64_see_gradient(const struct kiln_float64 *f, enum kiln_stage stage, size_t layer,
                               const double *values, size_t width, size_t apart);

/* y [T, out], rows ldy apart, = or += x W^T (+ bias) (+ what the tensor's adapter adds). */
void kiln_float64_linear(struct kiln_float64 *f, const struct kiln_tensor *w, const float *bias,
                         const double *x, size_t ldx, double *y, size_t ldy, bool add);
/* dx (+)= dy W, and the gradients of W, its bias and its adapter. */
void kiln_float64_linear_bwd(struct kiln_float64 *f, const struct kiln_tensor *w,
                             const struct kiln_tensor *bias, const double *x, size_t ldx,
                             const double *dy, size_t ldy, double *dx, size_t lddx, bool add);
/* dx += gradient of norm(x) = x rstd w from dy; the gradient of w. */
void kiln_float64_norm_bwd(struct kiln_float64 *f, const struct kiln_tensor *w, const double *x,
                           const double *squares, const double *dy, double *dx);

/* From qkv to turned and back: heads' norms and RoPE (float64_attention.c). */
void kiln_float64_turn(struct kiln_float64 *f, size_t layer);
void kiln_float64_turn_bwd(struct kiln_float64 *f, size_t layer);
void kiln_float64_attend(struct kiln_float64 *f, size_t layer);
/* dattention -> dturned, and the values' part of dqkv. */
void kiln_float64_attend_bwd(struct kiln_float64 *f, size_t layer);

#endif
