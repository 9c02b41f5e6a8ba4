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
enum { KILN_ROW_CHUNK = 32, KILN_HEAD_ROWS = 512 };

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
/* The same without dw. */
void kiln_rows_norm_bwd_frozen(const struct kiln_workers *workers,
                               const struct kiln_rows_norm *norm, const float *x, const float *dxn,
                               size_t n, float *dx);
/* Its two halves: for rows first..first+rows of them, first a multiple of KILN_ROW_CHUNK, on any
 * thread (x, dxn and dx begin at `first`), and when all are done the sum of what they left. */
void kiln_rows_norm_bwd_some(const struct kiln_kernels *kernels, const struct kiln_rows_norm *norm,
                             const float *x, const float *dxn, size_t first, size_t rows,
                             float *dx);
void kiln_rows_norm_bwd_sum(const struct kiln_kernels *kernels, const struct kiln_rows_norm *norm,
                            size_t n, float *dw, bool add);

struct kiln_gpu;
/* The end of the model. Everything is borrowed. Blocks below are of n <= KILN_HEAD_ROWS tokens. */
struct kiln_head {
    const struct kiln_workers *workers;
    struct kiln_spans *spans; /* pieces are marked there (plan/parts.h); NULL: nowhere */
    const struct kiln_matrix *classifier;
    const void *forward, *backward; /* its packed copies; backward only for gradients */
    struct kiln_rows_norm norm;     /* the final one */
    size_t norm_offset;             /* of its weight in the flat arrays */
    bool frozen;                    /* classifier and norm are not trained: no gradients of them */
    void *xn;                       /* operands [n, D] */
    float *logits; /* fp32 [n, V]; dlogits take their place, operands at the start of each row */
    float *dxn;    /* fp32 [n, D] */
    struct kiln_gpu *gpu; /* NULL; or the classifier's gradient is computed there (gpu.h) */
    void *turned;         /* operands [V, kiln_turned_stride(n)] */
    void *columns;        /* packed [D, n] */
};
/* Elements between rows of dlogits, and a row of them. */
static inline size_t kiln_dlogits_stride(const struct kiln_head *head) {
    return head->classifier->rows * sizeof(float) / head->workers->kernels->operand_bytes;
}
static inline void *kiln_dlogits(const struct kiln_head *head, size_t row) {
    return head->logits + row * head->classifier->rows;
}

/* losses [n] from x [n, D] and targets; with `gradient` also dlogits, of scale * their sum. The
 * logits are overwritten. */
void kiln_head_forward(const struct kiln_head *head, const float *x, const uint32_t *targets,
                       size_t n, float scale, bool gradient, float *losses);
/* The second half of it, from logits that are there. */
void kiln_head_loss(const struct kiln_head *head, const uint32_t *targets, size_t n, float scale,
                    bool gradient, float *losses);
/* From the block's dlogits and xn: dx [n, D] is written, gradients of classifier and norm are added
 * or written, unless they are frozen. The norm's rstd must be there. */
void kiln_head_backward(const struct kiln_head *head, const float *x, size_t n, float *dx,
                        const struct kiln_gradients *gradients);
/* A micro-batch's gradients as one of its blocks sees them: only the first may write, only behind
 * the last are they final. */
static inline struct kiln_gradients kiln_block_gradients(const struct kiln_gradients *gradients,
                                                         bool first, bool last) {
    struct kiln_gradients block = *gradients;
    block.add = block.add || !first;
    block.sums = last ? block.sums : NULL;
    return block;
}

#endif
