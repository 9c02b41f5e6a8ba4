/* SPDX-License-Identifier: MIT */
#include "device/host/head.h"

#include <string.h>

#include "base/machine.h"
#include "base/mem.h"
#include "device/host/gpu.h"
#include "kiln/text.h"

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

void kiln_rows_norm_bwd_some(const struct kiln_kernels *kernels, const struct kiln_rows_norm *norm,
                             const float *x, const float *dxn, size_t first, size_t rows,
                             float *dx) {
    const size_t d = norm->dim;
    for (size_t i = 0; i < rows; i += KILN_ROW_CHUNK) {
        float *dw = norm->dnorm + (first + i) / KILN_ROW_CHUNK * d;
        memset(dw, 0, d * sizeof *dw);
        kernels->rmsnorm_bwd(dx + i * d, dw, dxn + i * d, x + i * d, norm->w,
                             norm->rstd + first + i, kiln_least(rows - i, KILN_ROW_CHUNK), d);
    }
}

static void norm_bwd_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct norm_job *job = context;
    const size_t at = first * job->norm->dim;
    (void)index;
    (void)scratch;
    kiln_rows_norm_bwd_some(job->kernels, job->norm, job->x + at, job->dxn + at, first, rows,
                            job->dx + at);
}

void kiln_rows_norm_bwd_sum(const struct kiln_kernels *kernels, const struct kiln_rows_norm *norm,
                            size_t n, float *dw, bool add) {
    const size_t d = norm->dim;
    for (size_t i = 0; i < (n + KILN_ROW_CHUNK - 1) / KILN_ROW_CHUNK; i++) {
        if (i == 0 && !add) {
            memcpy(dw, norm->dnorm, d * sizeof *dw);
        } else {
            kernels->add(dw, norm->dnorm + i * d, d);
        }
    }
}

void kiln_rows_norm_bwd(const struct kiln_workers *workers, const struct kiln_rows_norm *norm,
                        const float *x, const float *dxn, size_t n, float *dx, float *dw,
                        bool add) {
    struct norm_job job = {.kernels = workers->kernels, .norm = norm, .x = x, .dxn = dxn, .dx = dx};
    kiln_rows(workers, n, KILN_ROW_CHUNK, norm_bwd_rows, &job);
    kiln_rows_norm_bwd_sum(workers->kernels, norm, n, dw, add);
}

void kiln_rows_norm_bwd_frozen(const struct kiln_workers *workers,
                               const struct kiln_rows_norm *norm, const float *x, const float *dxn,
                               size_t n, float *dx) {
    struct norm_job job = {.kernels = workers->kernels, .norm = norm, .x = x, .dxn = dxn, .dx = dx};
    kiln_rows(workers, n, KILN_ROW_CHUNK, norm_bwd_rows, &job);
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
    size_t vocab = head->classifier->rows;
    (void)index;
    (void)scratch;
    for (size_t i = first; i < first + rows; i++) {
        void *dlogits = job->gradient ? kiln_dlogits(head, i) : NULL;
        if (job->targets[i] == KILN_NO_TARGET) {
            job->losses[i] = 0.0F;
            if (dlogits) {
                memset(dlogits, 0, vocab * sizeof *head->logits);
            }
            continue;
        }
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
    double since = kiln_now_s();
    kiln_rows_norm(head->workers, &head->norm, x, n, head->xn);
    kiln_spans_piece(head->spans, "head.norm", &since);
    kiln_product(head->workers, &(struct kiln_gemm){.m = n,
                                                    .n = m->rows,
                                                    .k = m->cols,
                                                    .a = head->xn,
                                                    .lda = m->cols,
                                                    .b = head->forward,
                                                    .c = head->logits,
                                                    .ldc = m->rows});
    kiln_spans_piece(head->spans, "head.forward", &since);
    kiln_head_loss(head, targets, n, scale, gradient, losses);
    kiln_spans_piece(head->spans, "head.loss", &since);
}

/* Of one panel of classes: dlogits turned, and of the first tasks a slice of xn packed. */
struct turn_job {
    const struct kiln_head *head;
    size_t n;
};

static void turn_classes(void *context, size_t first, size_t classes, size_t index, void *scratch) {
    const struct turn_job *job = context;
    const struct kiln_head *head = job->head;
    const struct kiln_kernels *kernels = head->workers->kernels;
    const size_t operand = kernels->operand_bytes, stride = kiln_turned_stride(job->n);
    (void)index;
    (void)scratch;
    kernels->transpose((char *)head->turned + first * stride * operand, stride,
                       (const char *)kiln_dlogits(head, 0) + first * operand,
                       kiln_dlogits_stride(head), job->n, classes);
}

static void pack_normed(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct turn_job *job = context;
    const struct kiln_head *head = job->head;
    const size_t d = head->classifier->cols, operand = head->workers->kernels->operand_bytes;
    (void)index;
    (void)scratch;
    kiln_pack_rows(head->workers->kernels, head->columns, job->n,
                   (const char *)head->xn + first * d * operand, d, first, rows);
}

/* dxn [n, D] = dlogits W. */
static struct kiln_gemm head_dx(const struct kiln_head *head, size_t n) {
    const struct kiln_matrix *m = head->classifier;
    return (struct kiln_gemm){.m = n,
                              .n = m->cols,
                              .k = m->rows,
                              .a = kiln_dlogits(head, 0),
                              .lda = kiln_dlogits_stride(head),
                              .b = head->backward,
                              .c = head->dxn,
                              .ldc = m->cols};
}

static void backward_frozen(const struct kiln_head *head, const float *x, size_t n, float *dx) {
    const struct kiln_gemm product = head_dx(head, n);
    double since = kiln_now_s();
    kiln_product(head->workers, &product);
    kiln_spans_piece(head->spans, "head.backward", &since);
    memset(dx, 0, n * head->classifier->cols * sizeof *dx);
    kiln_rows_norm_bwd_frozen(head->workers, &head->norm, x, head->dxn, n, dx);
    kiln_spans_piece(head->spans, "head.norm", &since);
}

void kiln_head_backward(const struct kiln_head *head, const float *x, size_t n, float *dx,
                        const struct kiln_gradients *gradients) {
    const struct kiln_matrix *m = head->classifier;
    const bool add = gradients->add;
    if (head->frozen) {
        backward_frozen(head, x, n, dx);
        return;
    }
    struct turn_job job = {head, n};
    float *dw = gradients->all + m->offset;
    struct kiln_gradient_sums *sums = gradients->sums;
    struct kiln_gradient_sums_matrix classifier = {
        sums, head->workers->kernels, sums ? sums->table->n_matrices - 1 : 0, gradients->all};
    double since = kiln_now_s();
    if (head->gpu) {
        kiln_gpu_rows(head->gpu, head->workers, kiln_dlogits(head, 0), kiln_dlogits_stride(head),
                      head->xn, n, m->rows, m->cols, dw, add);
    } else {
        kiln_rows(head->workers, m->rows, KILN_PANEL, turn_classes, &job);
        kiln_rows(head->workers, n, KILN_PANEL_K, pack_normed, &job);
    }
    kiln_spans_piece(head->spans, "head.turn", &since);
    const struct kiln_product_entry products[] = {
        {.gemm = head_dx(head, n)},
        {kiln_weight_gradient(head->turned, head->columns, n, m->rows, m->cols, dw, add),
         kiln_gradient_sums_written, &classifier},
    };
    kiln_products(head->workers, products, head->gpu ? 1 : 2);
    kiln_spans_piece(head->spans, "head.backward", &since);
    memset(dx, 0, n * m->cols * sizeof *dx);
    kiln_rows_norm_bwd(head->workers, &head->norm, x, head->dxn, n, dx,
                       gradients->all + head->norm_offset, add);
    kiln_spans_piece(head->spans, "head.norm", &since);
}
