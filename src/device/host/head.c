/* SPDX-License-Identifier: MIT */
#include "device/host/head.h"

#include <string.h>

#include "device/host/gpu.h"

/* ---- norms --------------------------------------------------------------------------------- */

struct norm_job {
    const struct kiln_kernels *kernels;
    const struct kiln_rows_norm *norm;
    const float *x, *dxn;
    void *y;
    float *dx;
};

static void norm_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct norm_job *job = context;
    const struct kiln_rows_norm *norm = job->norm;
    size_t d = norm->dim;
    (void)index;
    (void)scratch;
    job->kernels->rmsnorm((char *)job->y + first * d * job->kernels->operand_bytes,
                          norm->rstd + first, job->x + first * d, norm->w, norm->eps, rows, d);
}

void kiln_rows_norm(const struct kiln_workers *workers, const struct kiln_rows_norm *norm,
                    const float *x, size_t n, void *y) {
    struct norm_job job = {.kernels = workers->kernels, .norm = norm, .x = x, .y = y};
    kiln_rows(workers, n, KILN_ROW_CHUNK, norm_rows, &job);
}

static void norm_bwd_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct norm_job *job = context;
    const struct kiln_rows_norm *norm = job->norm;
    size_t d = norm->dim;
    float *dw = norm->dnorm + index * d;
    (void)scratch;
    memset(dw, 0, d * sizeof *dw);
    job->kernels->rmsnorm_bwd(job->dx + first * d, dw, job->dxn + first * d, job->x + first * d,
                              norm->w, norm->rstd + first, rows, d);
}

void kiln_rows_norm_bwd(const struct kiln_workers *workers, const struct kiln_rows_norm *norm,
                        const float *x, const float *dxn, size_t n, float *dx, float *dw,
                        bool add) {
    struct norm_job job = {.kernels = workers->kernels, .norm = norm, .x = x, .dxn = dxn, .dx = dx};
    size_t d = norm->dim;
    kiln_rows(workers, n, KILN_ROW_CHUNK, norm_bwd_rows, &job);
    for (size_t i = 0; i < (n + KILN_ROW_CHUNK - 1) / KILN_ROW_CHUNK; i++) {
        if (i == 0 && !add) {
            memcpy(dw, norm->dnorm, d * sizeof *dw);
        } else {
            workers->kernels->add(dw, norm->dnorm + i * d, d);
        }
    }
}

/* ---- weight gradients ---------------------------------------------------------------------- */

void kiln_rows_weight_gradient(const struct kiln_workers *workers, const struct kiln_rows_dw *work,
                               const void *dy, const void *x, size_t n, size_t rows, size_t cols,
                               float *dw, bool add) {
    if (work->gpu) {
        kiln_gpu_rows(work->gpu, workers, dy, false, x, n, rows, cols, dw, add);
        return;
    }
    kiln_transpose(workers, work->turned, n, dy, rows, n, rows);
    kiln_pack_columns(workers, work->columns, x, cols, n, cols);
    kiln_product(workers, &(struct kiln_gemm){.m = rows,
                                              .n = cols,
                                              .k = n,
                                              .a = work->turned,
                                              .lda = n,
                                              .b = work->columns,
                                              .c = dw,
                                              .ldc = cols,
                                              .add = add ? dw : NULL,
                                              .ldadd = cols});
}

/* ---- the end of the model ------------------------------------------------------------------ */

struct loss_job {
    const struct kiln_head *head;
    const uint32_t *targets;
    float *losses;
    float scale;
    bool gradient;
};

static void loss_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct loss_job *job = context;
    const struct kiln_head *head = job->head;
    const struct kiln_kernels *kernels = head->workers->kernels;
    size_t vocab = head->classifier->rows, row = vocab * kernels->operand_bytes;
    (void)index;
    (void)scratch;
    for (size_t i = first; i < first + rows; i++) {
        void *dlogits = job->gradient ? (char *)head->dlogits + i * row : NULL;
        job->losses[i] = kernels->cross_entropy(dlogits, head->logits + i * vocab, vocab,
                                                job->targets[i], job->scale);
    }
}

void kiln_head_loss(const struct kiln_head *head, const uint32_t *targets, size_t n, float scale,
                    bool gradient, float *losses) {
    struct loss_job job = {head, targets, losses, scale, gradient};
    kiln_rows(head->workers, n, 4, loss_rows, &job);
}

void kiln_head_forward(const struct kiln_head *head, const float *x, const uint32_t *targets,
                       size_t n, float scale, bool gradient, float *losses) {
    const struct kiln_matrix *m = head->classifier;
    kiln_rows_norm(head->workers, &head->norm, x, n, head->xn);
    kiln_product(head->workers, &(struct kiln_gemm){.m = n,
                                                    .n = m->rows,
                                                    .k = m->cols,
                                                    .a = head->xn,
                                                    .lda = m->cols,
                                                    .b = head->forward,
                                                    .c = head->logits,
                                                    .ldc = m->rows});
    kiln_head_loss(head, targets, n, scale, gradient, losses);
}

void kiln_head_backward(const struct kiln_head *head, const float *x, size_t n, float *dx,
                        float *gradients, bool add) {
    const struct kiln_matrix *m = head->classifier;
    kiln_product(head->workers, &(struct kiln_gemm){.m = n,
                                                    .n = m->cols,
                                                    .k = m->rows,
                                                    .a = head->dlogits,
                                                    .lda = m->rows,
                                                    .b = head->backward,
                                                    .c = head->dxn,
                                                    .ldc = m->cols});
    memset(dx, 0, n * m->cols * sizeof *dx);
    kiln_rows_norm_bwd(head->workers, &head->norm, x, head->dxn, n, dx,
                       gradients + head->norm_offset, add);
    kiln_rows_weight_gradient(head->workers, &head->dw, head->dlogits, head->xn, n, m->rows,
                              m->cols, gradients + m->offset, add);
}
