/* SPDX-License-Identifier: MIT
 *
 * head.h: norms, weight gradients and the end of the model on the host, rows of tokens.
 *
 * One implementation for every device whose host does this: `cpu`, and the Neural Engine's.
 * Activations are token-major; operands are those of the workers' kernels. The end of the model
 * runs in blocks of at most KILN_HEAD_ROWS tokens, so logits of V columns exist for one block at a
 * time.
 */
#ifndef KILN_DEVICE_HEAD_H
#define KILN_DEVICE_HEAD_H

#include "device/device.h"
#include "kernel/product.h"

/* Rows that one elementwise task takes. Constant, so partial sums do not depend on threads. */
enum { KILN_ROW_CHUNK = 32, KILN_HEAD_ROWS = 256 };

/* RMSNorm of rows of the table's width D. */
struct kiln_rows_norm {
    const float *w; /* [D] */
    float eps;
    size_t dim;
    float *rstd;  /* [n] left by the forward pass for the backward */
    float *dnorm; /* [chunks of KILN_ROW_CHUNK, D] partial gradients of w */
};
/* y (operands) [n, D] = norm(x). */
void kiln_rows_norm(const struct kiln_workers *workers, const struct kiln_rows_norm *norm,
                    const float *x, size_t n, void *y);
/* dx += gradient of norm(x) from dxn, all fp32 [n, D]; dw [D] (+)= the weight's. */
void kiln_rows_norm_bwd(const struct kiln_workers *workers, const struct kiln_rows_norm *norm,
                        const float *x, const float *dxn, size_t n, float *dx, float *dw, bool add);

/* dw [rows, cols] (+)= dy^T . x, operands dy [n, rows] and x [n, cols]. */
struct kiln_gpu;
struct kiln_rows_dw {
    void *turned;         /* operands [rows, n] */
    void *columns;        /* packed [cols, n] */
    struct kiln_gpu *gpu; /* NULL; or computed there (gpu.h), in place when that is drained */
};
void kiln_rows_weight_gradient(const struct kiln_workers *workers, const struct kiln_rows_dw *work,
                               const void *dy, const void *x, size_t n, size_t rows, size_t cols,
                               float *dw, bool add);

/* The end of the model. Everything is borrowed. Blocks below are of n <= KILN_HEAD_ROWS tokens. */
struct kiln_head {
    const struct kiln_workers *workers;
    const struct kiln_matrix *classifier;
    const void *forward, *backward; /* its packed copies; backward only for gradients */
    struct kiln_rows_norm norm;     /* the final one */
    size_t norm_offset;             /* of its weight in the flat arrays */
    struct kiln_rows_dw dw;
    void *xn;      /* operands [n, D] */
    float *logits; /* fp32 [n, V] */
    void *dlogits; /* operands [n, V] */
    float *dxn;    /* fp32 [n, D] */
};

/* losses [n] from x [n, D] and targets; with `gradient` also dlogits, of scale * their sum. */
void kiln_head_forward(const struct kiln_head *head, const float *x, const uint32_t *targets,
                       size_t n, float scale, bool gradient, float *losses);
/* The second half of it, from logits that are there: they are overwritten. */
void kiln_head_loss(const struct kiln_head *head, const uint32_t *targets, size_t n, float scale,
                    bool gradient, float *losses);
/* From the block's dlogits and xn: dx [n, D] is written, gradients of classifier and norm are added
 * or written. The norm's rstd must be there. */
void kiln_head_backward(const struct kiln_head *head, const float *x, size_t n, float *dx,
                        float *gradients, bool add);

#endif
