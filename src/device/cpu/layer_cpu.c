/* SPDX-License-Identifier: MIT
 *
 * layer_cpu.c: half-layers on the CPU, forward beside backward.
 *
 *   attention      x' = x + Wo . attend(rope(Wqkv . norm(x)))     with bias, norms: heads_cpu.c
 *   feed-forward   x' = x + W2 . swiglu(W13 . norm(x))
 *
 * The work is cut into chunks of tokens: one task takes its rows through all steps that need no
 * other rows, in scratch of its thread that stays in the caches. What contracts over tokens, weight
 * gradients and attention, is work of its own behind them; for weight gradients the chunks leave
 * the two operands in the layout that the product wants (product.h).
 */
#include <string.h>

#include "base/machine.h"
#include "device/cpu/cpu.h"
#include "device/host/gpu.h"

/* What was done since the last mark was this piece (plan/parts.h). */
#define MARK(piece) kiln_spans_piece(half->cpu->base.spans, piece, &since)

/* ---- a chunk of tokens --------------------------------------------------------------------- */

struct half {
    struct kiln_cpu_device *cpu;
    size_t layer;
    const float *x; /* residual that the half-layer read */
    float *out;     /* what it made of it, or in the backward pass dx, in place */
    void *taps;
};

/* Tokens first..first+rows of a half-layer and where they are worked on. */
struct chunk {
    const struct half *half;
    struct kiln_cpu_device *cpu;
    size_t first, rows;
    const float *x; /* of the first token, as out */
    float *out;
    struct kiln_cpu_scratch s;
};

static struct chunk chunk_at(const struct half *half, size_t first, size_t rows, void *scratch) {
    const size_t at = first * half->cpu->base.table->dims.dim;
    struct chunk chunk = {.half = half,
                          .cpu = half->cpu,
                          .first = first,
                          .rows = rows,
                          .x = half->x + at,
                          .out = half->out + at};
    kiln_cpu_scratch(half->cpu, scratch, &chunk.s);
    return chunk;
}

/* Row `first` of an operand array of rows of `width`. */
static void *row_of(const struct chunk *chunk, const void *array, size_t width) {
    return (void *)((uintptr_t)array + chunk->first * width * chunk->cpu->kernels.operand_bytes);
}

static void run_chunks(const struct half *half, kiln_rows_fn fn) {
    kiln_rows(&half->cpu->workers, half->cpu->tokens, half->cpu->chunk, fn,
              (void *)(uintptr_t)half);
}

/* ---- operands of weight gradients ------------------------------------------------------------ */

/* The half-layer's two products: of the matrix at its output, and of the one at its input. */
enum product { OUTPUT, INPUT };

/* The chunk's rows of an operand, as they are: where a GPU will read them. */
static void copy_rows(const struct chunk *c, void *to, const void *rows, size_t width) {
    memcpy(row_of(c, to, width), rows, c->rows * width * c->cpu->kernels.operand_bytes);
}

/* Does the half-layer's product `which` have a gradient that contracts over tokens? A frozen matrix
 * has where it has adapters. */
static bool has_gradient(const struct kiln_cpu_device *cpu, enum product which) {
    return cpu->base.table->trained == 0 || cpu->lora.of[which].matrix;
}

static struct kiln_lora_chunk lora_chunk(const struct chunk *c) {
    return (struct kiln_lora_chunk){c->cpu, c->first, c->rows, c->s.gemm, c->s.u, c->s.delta};
}

static void left_rows(const struct chunk *c, enum product which, const void *dy, size_t width) {
    struct kiln_cpu_device *cpu = c->cpu;
    if (!has_gradient(cpu, which)) {
        return;
    }
    if (cpu->gpu) {
        copy_rows(c, cpu->slots[which]->dy, dy, width);
        return;
    }
    kiln_turn_rows(&cpu->kernels, which == OUTPUT ? cpu->turned_dy : cpu->turned_wide, cpu->tokens,
                   dy, width, c->first, c->rows);
}

static void right_rows(const struct chunk *c, enum product which, const void *x, size_t width) {
    struct kiln_cpu_device *cpu = c->cpu;
    if (!has_gradient(cpu, which)) {
        return;
    }
    if (cpu->lora.of[which].matrix) {
        const struct kiln_lora_chunk chunk = lora_chunk(c);
        kiln_cpu_lora_input(&chunk, &cpu->lora.of[which], x);
    }
    if (cpu->gpu) {
        copy_rows(c, cpu->slots[which]->x, x, width);
        return;
    }
    kiln_pack_rows(&cpu->kernels, which == OUTPUT ? cpu->packed_in : cpu->packed_xn, cpu->tokens, x,
                   width, c->first, c->rows);
}

static void take_slots(struct kiln_cpu_device *cpu) {
    for (int i = 0; cpu->gpu && i < 2; i++) {
        cpu->slots[i] = kiln_gpu_slot(cpu->gpu);
    }
}

/* ---- norms ---------------------------------------------------------------------------------- */

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

/* s.xn = norm(x), the weight of `role`. */
static void normalise(const struct chunk *c, enum kiln_role role) {
    const struct kiln_tensor *tensor = kiln_table_find(c->cpu->base.table, role, c->half->layer);
    const struct kiln_rows_norm norm = norm_of(c->cpu, tensor);
    c->cpu->kernels.rmsnorm(c->s.xn, norm.rstd + c->first, c->x, norm.w, norm.eps, c->rows,
                            norm.dim);
}

/* out += gradient of norm(x) from s.dxn. The norm's output is packed for the weight gradient. */
static void normalise_backward(const struct chunk *c, enum kiln_role role) {
    struct kiln_cpu_device *cpu = c->cpu;
    const struct kiln_tensor *tensor = kiln_table_find(cpu->base.table, role, c->half->layer);
    const struct kiln_rows_norm norm = norm_of(cpu, tensor);
    normalise(c, role);
    right_rows(c, INPUT, c->s.xn, norm.dim);
    kiln_rows_norm_bwd_some(&cpu->kernels, &norm, c->x, c->s.dxn, c->first, c->rows, c->out);
}

static void norm_gradient(const struct half *half, enum kiln_role role) {
    const struct kiln_cpu_device *cpu = half->cpu;
    const struct kiln_gradients *gradients = &cpu->base.gradients;
    if (cpu->base.table->trained > 0) {
        return;
    }
    const struct kiln_tensor *tensor = kiln_table_find(cpu->base.table, role, half->layer);
    const struct kiln_rows_norm norm = norm_of(cpu, tensor);
    kiln_rows_norm_bwd_sum(&cpu->kernels, &norm, cpu->tokens, gradients->all + tensor->offset,
                           gradients->add);
}

/* ---- products with the packed weights ------------------------------------------------------ */

static const struct kiln_matrix *matrix_of(const struct half *half, enum kiln_matrix_kind kind) {
    return kiln_table_matrix(half->cpu->base.table, kind, half->layer);
}
static const void *packed_of(const struct kiln_cpu_device *cpu, const struct kiln_matrix *m,
                             bool forward) {
    const struct kiln_packed *packed = kiln_cpu_packed(cpu);
    return (forward ? packed->forward : packed->backward)[m - cpu->base.table->matrices];
}

/* y [rows, m->rows] = x W^T as operands, with the bias where q, k and v have one; or fp32, with the
 * residual added. */
static void forward_product(const struct chunk *c, enum kiln_matrix_kind kind, const void *x,
                            void *y, const float *residual) {
    const struct kiln_matrix *m = matrix_of(c->half, kind);
    const struct kiln_cpu_adapters *adapters = kiln_cpu_lora_of(c->cpu, m);
    const struct kiln_lora_chunk chunk = lora_chunk(c);
    const float *bias = kind == KILN_MATRIX_QKV ? kiln_cpu_bias(c->cpu, c->half->layer) : NULL;
    const float *add = residual ? residual : bias;
    size_t stride = residual ? m->rows : 0;
    if (adapters) {
        add = kiln_cpu_lora_forward(&chunk, adapters, x, add, stride, residual ? y : c->s.delta);
        stride = m->rows;
    }
    kiln_product_alone(&c->cpu->kernels,
                       &(struct kiln_gemm){.m = c->rows,
                                           .n = m->rows,
                                           .k = m->cols,
                                           .a = x,
                                           .lda = m->cols,
                                           .b = packed_of(c->cpu, m, true),
                                           .c = y,
                                           .ldc = m->rows,
                                           .c_operand = residual == NULL,
                                           .add = add,
                                           .ldadd = stride},
                       c->s.gemm);
}

/* dx [rows, m->cols] = dy W, as operands or fp32. */
static void backward_product(const struct chunk *c, enum kiln_matrix_kind kind, const void *dy,
                             void *dx, bool operand) {
    const struct kiln_matrix *m = matrix_of(c->half, kind);
    const struct kiln_cpu_adapters *adapters = kiln_cpu_lora_of(c->cpu, m);
    const struct kiln_lora_chunk chunk = lora_chunk(c);
    const float *add =
        adapters ? kiln_cpu_lora_backward(&chunk, adapters, dy, operand ? c->s.delta : dx) : NULL;
    kiln_product_alone(&c->cpu->kernels,
                       &(struct kiln_gemm){.m = c->rows,
                                           .n = m->cols,
                                           .k = m->rows,
                                           .a = dy,
                                           .lda = m->rows,
                                           .b = packed_of(c->cpu, m, false),
                                           .c = dx,
                                           .ldc = m->cols,
                                           .c_operand = operand,
                                           .add = add,
                                           .ldadd = m->cols},
                       c->s.gemm);
}

/* s.dy = the incoming gradient as operands; turned for the weight gradient of the output. */
static void round_gradient(const struct chunk *c) {
    struct kiln_cpu_device *cpu = c->cpu;
    const size_t dim = cpu->base.table->dims.dim;
    cpu->kernels.round(c->s.dy, c->out, c->rows * dim);
    left_rows(c, OUTPUT, c->s.dy, dim);
}

/* Of the half-layer's two matrices: the output's from dy and what it multiplied, the input's from
 * the wide gradient and the norm's output. */
static void weight_gradients(const struct half *half, enum kiln_matrix_kind output,
                             enum kiln_matrix_kind input) {
    struct kiln_cpu_device *cpu = half->cpu;
    if (cpu->base.table->trained > 0) {
        kiln_cpu_lora_gradients(cpu);
        return;
    }
    const struct kiln_gradients *g = &cpu->base.gradients;
    const struct kiln_matrix *o = matrix_of(half, output), *i = matrix_of(half, input);
    for (int which = OUTPUT; cpu->gpu && which <= INPUT; which++) {
        const struct kiln_matrix *m = which == OUTPUT ? o : i;
        kiln_gpu_post_slot(cpu->gpu, cpu->slots[which],
                           &(struct kiln_gpu_product){.dw = g->all + m->offset,
                                                      .rows = m->rows,
                                                      .cols = m->cols,
                                                      .tokens = cpu->tokens,
                                                      .precision = cpu->kernels.precision,
                                                      .add = g->add});
    }
    if (cpu->gpu) {
        return;
    }
    const struct kiln_matrix *matrices = cpu->base.table->matrices;
    struct kiln_gradient_sums_matrix sums[] = {
        {g->sums, &cpu->kernels, (size_t)(o - matrices), g->all},
        {g->sums, &cpu->kernels, (size_t)(i - matrices), g->all},
    };
    const struct kiln_product_entry products[] = {
        {kiln_weight_gradient(cpu->turned_dy, cpu->packed_in, cpu->tokens, o->rows, o->cols,
                              g->all + o->offset, g->add),
         kiln_gradient_sums_written, &sums[OUTPUT]},
        {kiln_weight_gradient(cpu->turned_wide, cpu->packed_xn, cpu->tokens, i->rows, i->cols,
                              g->all + i->offset, g->add),
         kiln_gradient_sums_written, &sums[INPUT]},
    };
    kiln_products(&cpu->workers, products, 2);
}

/* ---- attention ------------------------------------------------------------------------------ */

static size_t qkv_width(const struct kiln_dims *d) {
    return (d->heads + 2 * d->kv_heads) * d->head_size;
}

static void attention_in(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct chunk c = chunk_at(context, first, rows, scratch);
    void *qkv =
        row_of(&c, kiln_cpu_taps(c.cpu, c.half->taps).qkv, qkv_width(&c.cpu->base.table->dims));
    (void)index;
    normalise(&c, KILN_ATTN_NORM);
    forward_product(&c, KILN_MATRIX_QKV, c.s.xn, qkv, NULL);
    kiln_cpu_turn_heads(c.cpu, c.half->layer, c.half->taps, c.first, c.rows);
}

static void attention_out(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct chunk c = chunk_at(context, first, rows, scratch);
    const struct kiln_dims *d = &c.cpu->base.table->dims;
    (void)index;
    forward_product(&c, KILN_MATRIX_WO,
                    row_of(&c, kiln_cpu_taps(c.cpu, c.half->taps).out, d->heads * d->head_size),
                    c.out, c.x);
}

struct attention_job {
    const struct half *half;
    bool backward;
};

/* One sequence and one key-value head with the heads that share it. */
static void attend(void *context, size_t task, size_t thread) {
    const struct attention_job *job = context;
    struct kiln_cpu_device *cpu = job->half->cpu;
    const struct kiln_dims *d = &cpu->base.table->dims;
    const struct kiln_taps_attention taps = kiln_cpu_taps(cpu, job->half->taps);
    size_t seq = cpu->base.shape.seq, hk = d->heads * d->head_size;
    size_t qkv = qkv_width(d), operand = cpu->kernels.operand_bytes;
    size_t b = task / d->kv_heads, g = task % d->kv_heads;
    struct kiln_attention a = {
        .kernels = &cpu->kernels,
        .seq = seq,
        .heads = d->heads,
        .kv_heads = d->kv_heads,
        .head_size = d->head_size,
        .starts = cpu->base.starts ? cpu->base.starts + b * seq : NULL,
        .qkv = (char *)kiln_cpu_turned(cpu, job->half->taps) + b * seq * qkv * operand,
        .out = (char *)taps.out + b * seq * hk * operand,
        .lse = taps.lse + b * d->heads * seq};
    if (job->backward) {
        a.dout = (char *)cpu->dout + b * seq * hk * operand;
        a.dqkv = (char *)cpu->dqkv + b * seq * qkv * operand;
        kiln_attention_bwd(&a, g, cpu->workers.scratch[thread]);
    } else {
        kiln_attention_fwd(&a, g, cpu->workers.scratch[thread]);
    }
}

static void attend_all(const struct half *half, bool backward) {
    const struct kiln_cpu_device *cpu = half->cpu;
    struct attention_job job = {half, backward};
    kiln_pool_run(cpu->workers.pool, cpu->base.shape.batch * cpu->base.table->dims.kv_heads, attend,
                  &job);
}

static void attention_forward(const struct half *half) {
    double since = kiln_now_s();
    kiln_cpu_lora_begin(half->cpu, half->layer, KILN_MATRIX_WO, KILN_MATRIX_QKV, false);
    run_chunks(half, attention_in);
    MARK("attn_fwd.rows");
    attend_all(half, false);
    MARK("attn_fwd.attention");
    run_chunks(half, attention_out);
    MARK("attn_fwd.rows");
}

static void attention_out_bwd(void *context, size_t first, size_t rows, size_t index,
                              void *scratch) {
    const struct chunk c = chunk_at(context, first, rows, scratch);
    const size_t hk = c.cpu->base.table->dims.heads * c.cpu->base.table->dims.head_size;
    (void)index;
    if (c.cpu->base.table->dims.qk_norm) { /* what attention read is of another layer by now */
        kiln_cpu_turn_heads(c.cpu, c.half->layer, c.half->taps, c.first, c.rows);
    }
    round_gradient(&c);
    backward_product(&c, KILN_MATRIX_WO, c.s.dy, row_of(&c, c.cpu->dout, hk), true);
    right_rows(&c, OUTPUT, row_of(&c, kiln_cpu_taps(c.cpu, c.half->taps).out, hk), hk);
}

static void attention_in_bwd(void *context, size_t first, size_t rows, size_t index,
                             void *scratch) {
    const struct chunk c = chunk_at(context, first, rows, scratch);
    const size_t width = qkv_width(&c.cpu->base.table->dims);
    void *dqkv = row_of(&c, c.cpu->dqkv, width);
    (void)index;
    kiln_cpu_turn_heads_bwd(c.cpu, c.half->layer, c.half->taps, c.first, c.rows);
    left_rows(&c, INPUT, dqkv, width);
    backward_product(&c, KILN_MATRIX_QKV, dqkv, c.s.dxn, false);
    normalise_backward(&c, KILN_ATTN_NORM);
}

static void attention_backward(const struct half *half) {
    double since = kiln_now_s();
    take_slots(half->cpu);
    kiln_cpu_lora_begin(half->cpu, half->layer, KILN_MATRIX_WO, KILN_MATRIX_QKV, true);
    run_chunks(half, attention_out_bwd);
    MARK("attn_bwd.rows");
    attend_all(half, true);
    MARK("attn_bwd.attention");
    run_chunks(half, attention_in_bwd);
    norm_gradient(half, KILN_ATTN_NORM);
    kiln_cpu_head_gradients(half->cpu, half->layer);
    MARK("attn_bwd.rows");
    weight_gradients(half, KILN_MATRIX_WO, KILN_MATRIX_QKV);
    MARK("attn_bwd.dw");
}

/* ---- feed-forward ---------------------------------------------------------------------------- */

static void feed_forward_rows(void *context, size_t first, size_t rows, size_t index,
                              void *scratch) {
    const struct chunk c = chunk_at(context, first, rows, scratch);
    const size_t f = c.cpu->base.table->dims.hidden;
    void *h = row_of(&c, c.half->taps, 2 * f);
    (void)index;
    normalise(&c, KILN_FFN_NORM);
    forward_product(&c, KILN_MATRIX_W13, c.s.xn, h, NULL);
    c.cpu->kernels.swiglu(c.s.gate, h, rows, f);
    forward_product(&c, KILN_MATRIX_W2, c.s.gate, c.out, c.x);
}

static void feed_forward_bwd_rows(void *context, size_t first, size_t rows, size_t index,
                                  void *scratch) {
    const struct chunk c = chunk_at(context, first, rows, scratch);
    struct kiln_cpu_device *cpu = c.cpu;
    const size_t f = cpu->base.table->dims.hidden;
    const void *h = row_of(&c, c.half->taps, 2 * f);
    (void)index;
    round_gradient(&c);
    backward_product(&c, KILN_MATRIX_W2, c.s.dy, c.s.dgate, true);
    cpu->kernels.swiglu_bwd(c.s.dh, c.s.gate, c.s.dgate, h, rows, f);
    right_rows(&c, OUTPUT, c.s.gate, f);
    left_rows(&c, INPUT, c.s.dh, 2 * f);
    backward_product(&c, KILN_MATRIX_W13, c.s.dh, c.s.dxn, false);
    normalise_backward(&c, KILN_FFN_NORM);
}

static void feed_forward_backward(const struct half *half) {
    double since = kiln_now_s();
    take_slots(half->cpu);
    kiln_cpu_lora_begin(half->cpu, half->layer, KILN_MATRIX_W2, KILN_MATRIX_W13, true);
    run_chunks(half, feed_forward_bwd_rows);
    norm_gradient(half, KILN_FFN_NORM);
    MARK("ffn_bwd.rows");
    weight_gradients(half, KILN_MATRIX_W2, KILN_MATRIX_W13);
    MARK("ffn_bwd.dw");
}

/* ---- the device's calls ---------------------------------------------------------------------- */

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
    const struct half work = {cpu, layer, x_in, x_out, taps};
    const bool attention = half == KILN_ATTENTION;
    const double start = kiln_now_s();
    if (attention) {
        KILN_TRY(require(cpu, KILN_ATTN_FWD, layer, err));
        attention_forward(&work);
        device->counts.layer_forwards++;
    } else {
        KILN_TRY(require(cpu, KILN_FFN_FWD, layer, err));
        kiln_cpu_lora_begin(cpu, layer, KILN_MATRIX_W2, KILN_MATRIX_W13, false);
        run_chunks(&work, feed_forward_rows);
    }
    kiln_device_span(device, KILN_SPAN_EVALUATE, attention ? "attn_fwd" : "ffn_fwd", layer, start);
    return KILN_OK;
}

enum kiln_status kiln_cpu_backward(struct kiln_device *device, size_t layer, enum kiln_half half,
                                   const void *x_in, void *dx, const void *taps,
                                   struct kiln_err *err) {
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    const struct half work = {cpu, layer, x_in, dx, (void *)(uintptr_t)taps};
    const bool attention = half == KILN_ATTENTION;
    const double start = kiln_now_s();
    if (attention) {
        KILN_TRY(require(cpu, KILN_ATTN_BWD1, layer, err));
        KILN_TRY(require(cpu, KILN_ATTN_BWD2, layer, err));
        KILN_TRY(require(cpu, KILN_QKV_BWD, layer, err));
        attention_backward(&work);
    } else {
        KILN_TRY(require(cpu, KILN_FFN_BWD, layer, err));
        feed_forward_backward(&work);
    }
    kiln_device_span(device, KILN_SPAN_EVALUATE, attention ? "attn_bwd" : "ffn_bwd", layer, start);
    return KILN_OK;
}
