/* SPDX-License-Identifier: MIT
 *
 * layer_cpu.c: half-layers on the CPU, forward beside backward.
 *
 *   attention      x' = x + Wo . attend(rope(Wqkv . norm(x)))
 *   feed-forward   x' = x + W2 . swiglu(W13 . norm(x))
 */
#include <string.h>

#include "base/machine.h"
#include "device/cpu/cpu.h"

/* ---- norms --------------------------------------------------------------------------------- */

static struct kiln_rows_norm norm_of(const struct kiln_cpu_device *cpu,
                                     const struct kiln_tensor *tensor) {
    const struct kiln_dims *d = &cpu->base.table->dims;
    return (struct kiln_rows_norm){
        .w = kiln_weights_wide(&cpu->base.weights, tensor),
        .eps = d->rms_eps,
        .dim = d->dim,
        .rstd = cpu->rstd,
        .dnorm = cpu->dnorm,
    };
}

/* cpu->xn = norm(x), the weight of `role` and layer. */
static void normalise(struct kiln_cpu_device *cpu, enum kiln_role role, size_t layer,
                      const float *x) {
    struct kiln_rows_norm norm = norm_of(cpu, kiln_table_find(cpu->base.table, role, layer));
    kiln_rows_norm(&cpu->workers, &norm, x, cpu->tokens, cpu->xn);
}

/* dx += gradient of norm(x) from cpu->dxn, and the norm's weight gradient. */
static void normalise_backward(struct kiln_cpu_device *cpu, enum kiln_role role, size_t layer,
                               const float *x, float *dx) {
    const struct kiln_tensor *tensor = kiln_table_find(cpu->base.table, role, layer);
    const struct kiln_gradients *gradients = &cpu->base.gradients;
    struct kiln_rows_norm norm = norm_of(cpu, tensor);
    kiln_rows_norm_bwd(&cpu->workers, &norm, x, cpu->dxn, cpu->tokens, dx,
                       gradients->all + tensor->offset, gradients->add);
}

/* ---- products with the packed weights ------------------------------------------------------ */

static const struct kiln_matrix *matrix_of(const struct kiln_cpu_device *cpu,
                                           enum kiln_matrix_kind kind, size_t layer) {
    return kiln_table_matrix(cpu->base.table, kind, layer);
}

/* y [N, rows] = x [N, cols] . W^T; as operands, or fp32 with x_in added. */
static void forward_product(struct kiln_cpu_device *cpu, const struct kiln_matrix *m, const void *x,
                            void *y, const float *residual) {
    kiln_product(
        &cpu->workers,
        &(struct kiln_gemm){.m = cpu->tokens,
                            .n = m->rows,
                            .k = m->cols,
                            .a = x,
                            .lda = m->cols,
                            .b = kiln_cpu_packed(cpu)->forward[m - cpu->base.table->matrices],
                            .c = y,
                            .ldc = m->rows,
                            .c_operand = residual == NULL,
                            .add = residual,
                            .ldadd = m->rows});
}

/* dx [N, cols] = dy [N, rows] . W */
static void backward_product(struct kiln_cpu_device *cpu, const struct kiln_matrix *m,
                             const void *dy, void *dx, bool operand) {
    kiln_product(
        &cpu->workers,
        &(struct kiln_gemm){.m = cpu->tokens,
                            .n = m->cols,
                            .k = m->rows,
                            .a = dy,
                            .lda = m->rows,
                            .b = kiln_cpu_packed(cpu)->backward[m - cpu->base.table->matrices],
                            .c = dx,
                            .ldc = m->cols,
                            .c_operand = operand});
}

static void weight_gradient(struct kiln_cpu_device *cpu, const struct kiln_matrix *m,
                            const void *dy, const void *x) {
    struct kiln_rows_dw work = {cpu->turned, cpu->columns, cpu->gpu};
    kiln_rows_weight_gradient(&cpu->workers, &work, dy, x, cpu->tokens, m->rows, m->cols,
                              cpu->base.gradients.all + m->offset, cpu->base.gradients.add);
}

/* ---- rows of elementwise work --------------------------------------------------------------- */

struct rows_work {
    const struct kiln_cpu_device *cpu;
    void *out;
    const void *in, *in2;
    bool inverse;
};

static void rope_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct rows_work *job = context;
    const struct kiln_cpu_device *cpu = job->cpu;
    const struct kiln_dims *d = &cpu->base.table->dims;
    size_t ld = (d->heads + 2 * d->kv_heads) * d->head_size;
    (void)index;
    (void)scratch;
    cpu->kernels.rope((char *)job->out + first * ld * cpu->kernels.operand_bytes, ld, rows,
                      d->heads + d->kv_heads, d->head_size, cpu->angles, first, cpu->base.shape.seq,
                      job->inverse);
}

static void swiglu_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct rows_work *job = context;
    size_t f = job->cpu->base.table->dims.hidden, row = f * job->cpu->kernels.operand_bytes;
    (void)index;
    (void)scratch;
    job->cpu->kernels.swiglu((char *)job->out + first * row,
                             (const char *)job->in + first * 2 * row, rows, f);
}

static void swiglu_bwd_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct rows_work *job = context;
    size_t f = job->cpu->base.table->dims.hidden, row = f * job->cpu->kernels.operand_bytes;
    (void)index;
    (void)scratch;
    job->cpu->kernels.swiglu_bwd((char *)job->out + first * 2 * row,
                                 (const char *)job->in + first * row,
                                 (const char *)job->in2 + first * 2 * row, rows, f);
}

static void round_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct rows_work *job = context;
    size_t d = job->cpu->base.table->dims.dim;
    (void)index;
    (void)scratch;
    job->cpu->kernels.round((char *)job->out + first * d * job->cpu->kernels.operand_bytes,
                            (const float *)job->in + first * d, rows * d);
}

/* ---- attention ------------------------------------------------------------------------------ */

struct attention_job {
    struct kiln_cpu_device *cpu;
    struct kiln_taps_attention taps;
    bool backward;
};

static void attend(void *context, size_t task, size_t thread) {
    const struct attention_job *job = context;
    struct kiln_cpu_device *cpu = job->cpu;
    const struct kiln_dims *d = &cpu->base.table->dims;
    size_t seq = cpu->base.shape.seq, hk = d->heads * d->head_size;
    size_t qkv = hk + 2 * d->kv_heads * d->head_size, operand = cpu->kernels.operand_bytes;
    size_t b = task / d->kv_heads, g = task % d->kv_heads;
    struct kiln_attention a = {.kernels = &cpu->kernels,
                               .seq = seq,
                               .heads = d->heads,
                               .kv_heads = d->kv_heads,
                               .head_size = d->head_size,
                               .qkv = (char *)job->taps.qkv + b * seq * qkv * operand,
                               .out = (char *)job->taps.out + b * seq * hk * operand,
                               .lse = job->taps.lse + b * d->heads * seq};
    if (job->backward) {
        a.dout = (char *)cpu->dout + b * seq * hk * operand;
        a.dqkv = (char *)cpu->dwide + b * seq * qkv * operand;
        kiln_attention_bwd(&a, g, cpu->workers.scratch[thread]);
    } else {
        kiln_attention_fwd(&a, g, cpu->workers.scratch[thread]);
    }
}

static void attention_forward(struct kiln_cpu_device *cpu, size_t layer, const float *x_in,
                              float *x_out, void *taps) {
    struct attention_job job = {.cpu = cpu, .taps = kiln_cpu_taps(cpu, taps)};
    struct rows_work rope = {.cpu = cpu, .out = job.taps.qkv};
    normalise(cpu, KILN_ATTN_NORM, layer, x_in);
    forward_product(cpu, matrix_of(cpu, KILN_MATRIX_QKV, layer), cpu->xn, job.taps.qkv, NULL);
    kiln_rows(&cpu->workers, cpu->tokens, KILN_ROW_CHUNK, rope_rows, &rope);
    kiln_pool_run(cpu->workers.pool, cpu->base.shape.batch * cpu->base.table->dims.kv_heads, attend,
                  &job);
    forward_product(cpu, matrix_of(cpu, KILN_MATRIX_WO, layer), job.taps.out, x_out, x_in);
}

static void attention_backward(struct kiln_cpu_device *cpu, size_t layer, const float *x_in,
                               float *dx, const void *taps) {
    struct attention_job job = {.cpu = cpu, .taps = kiln_cpu_taps(cpu, taps), .backward = true};
    struct rows_work rounded = {.cpu = cpu, .out = cpu->dy, .in = dx};
    struct rows_work rope = {.cpu = cpu, .out = cpu->dwide, .inverse = true};
    const struct kiln_matrix *qkv = matrix_of(cpu, KILN_MATRIX_QKV, layer);
    const struct kiln_matrix *wo = matrix_of(cpu, KILN_MATRIX_WO, layer);
    kiln_rows(&cpu->workers, cpu->tokens, KILN_ROW_CHUNK, round_rows, &rounded);
    backward_product(cpu, wo, cpu->dy, cpu->dout, true);
    weight_gradient(cpu, wo, cpu->dy, job.taps.out);
    kiln_pool_run(cpu->workers.pool, cpu->base.shape.batch * cpu->base.table->dims.kv_heads, attend,
                  &job);
    kiln_rows(&cpu->workers, cpu->tokens, KILN_ROW_CHUNK, rope_rows, &rope);
    backward_product(cpu, qkv, cpu->dwide, cpu->dxn, false);
    normalise(cpu, KILN_ATTN_NORM, layer, x_in);
    weight_gradient(cpu, qkv, cpu->dwide, cpu->xn);
    normalise_backward(cpu, KILN_ATTN_NORM, layer, x_in, dx);
}

/* ---- feed-forward ---------------------------------------------------------------------------- */

static void feed_forward(struct kiln_cpu_device *cpu, size_t layer, const float *x_in, float *x_out,
                         void *h) {
    struct rows_work swiglu = {.cpu = cpu, .out = cpu->gate, .in = h};
    normalise(cpu, KILN_FFN_NORM, layer, x_in);
    forward_product(cpu, matrix_of(cpu, KILN_MATRIX_W13, layer), cpu->xn, h, NULL);
    kiln_rows(&cpu->workers, cpu->tokens, KILN_ROW_CHUNK, swiglu_rows, &swiglu);
    forward_product(cpu, matrix_of(cpu, KILN_MATRIX_W2, layer), cpu->gate, x_out, x_in);
}

static void feed_forward_backward(struct kiln_cpu_device *cpu, size_t layer, const float *x_in,
                                  float *dx, const void *h) {
    struct rows_work rounded = {.cpu = cpu, .out = cpu->dy, .in = dx};
    struct rows_work swiglu = {.cpu = cpu, .out = cpu->gate, .in = h};
    struct rows_work swiglu_bwd = {.cpu = cpu, .out = cpu->dwide, .in = cpu->dout, .in2 = h};
    const struct kiln_matrix *w13 = matrix_of(cpu, KILN_MATRIX_W13, layer);
    const struct kiln_matrix *w2 = matrix_of(cpu, KILN_MATRIX_W2, layer);
    kiln_rows(&cpu->workers, cpu->tokens, KILN_ROW_CHUNK, round_rows, &rounded);
    backward_product(cpu, w2, cpu->dy, cpu->dout, true);
    kiln_rows(&cpu->workers, cpu->tokens, KILN_ROW_CHUNK, swiglu_rows, &swiglu);
    weight_gradient(cpu, w2, cpu->dy, cpu->gate);
    kiln_rows(&cpu->workers, cpu->tokens, KILN_ROW_CHUNK, swiglu_bwd_rows, &swiglu_bwd);
    backward_product(cpu, w13, cpu->dwide, cpu->dxn, false);
    normalise(cpu, KILN_FFN_NORM, layer, x_in);
    weight_gradient(cpu, w13, cpu->dwide, cpu->xn);
    normalise_backward(cpu, KILN_FFN_NORM, layer, x_in, dx);
}

static enum kiln_status require(const struct kiln_cpu_device *cpu, size_t kind, size_t layer,
                                struct kiln_err *err) {
    KILN_REQUIRE(kiln_cpu_loaded(cpu, kind, layer), err, KILN_EINTERNAL,
                 "cpu: layer %zu has no kernel %s loaded", layer, cpu->base.caps.kinds[kind].name);
    return KILN_OK;
}

enum kiln_status kiln_cpu_forward(struct kiln_device *device, size_t layer, enum kiln_half half,
                                  const void *x_in, void *x_out, void *taps, bool keep,
                                  struct kiln_err *err) {
    (void)keep; /* they are workspace, too */
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    const bool attention = half == KILN_ATTENTION;
    const double start = kiln_now_s();
    if (attention) {
        KILN_TRY(require(cpu, KILN_ATTN_FWD, layer, err));
        attention_forward(cpu, layer, x_in, x_out, taps);
        device->counts.layer_forwards++;
    } else {
        KILN_TRY(require(cpu, KILN_FFN_FWD, layer, err));
        feed_forward(cpu, layer, x_in, x_out, taps);
    }
    kiln_device_span(device, KILN_SPAN_EVALUATE, attention ? "attn_fwd" : "ffn_fwd", layer, start);
    return KILN_OK;
}

enum kiln_status kiln_cpu_backward(struct kiln_device *device, size_t layer, enum kiln_half half,
                                   const void *x_in, void *dx, const void *taps,
                                   struct kiln_err *err) {
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    const bool attention = half == KILN_ATTENTION;
    const double start = kiln_now_s();
    if (attention) {
        KILN_TRY(require(cpu, KILN_ATTN_BWD1, layer, err));
        KILN_TRY(require(cpu, KILN_ATTN_BWD2, layer, err));
        KILN_TRY(require(cpu, KILN_QKV_BWD, layer, err));
        attention_backward(cpu, layer, x_in, dx, taps);
    } else {
        KILN_TRY(require(cpu, KILN_FFN_BWD, layer, err));
        feed_forward_backward(cpu, layer, x_in, dx, taps);
    }
    kiln_device_span(device, KILN_SPAN_EVALUATE, attention ? "attn_bwd" : "ffn_bwd", layer, start);
    return KILN_OK;
}
