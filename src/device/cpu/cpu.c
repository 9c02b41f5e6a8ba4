/* SPDX-License-Identifier: MIT
 *
 * cpu.c: the CPU device: what it holds, and what compiling means here: packing.
 */
#include "device/cpu/cpu.h"

#include <stdio.h>
#include <string.h>

#include "kernel/rope.h"

/* The kinds of a layer, as on devices that bake; each packs the matrices it multiplies with. */
enum { ATTN_FWD, FFN_FWD, FFN_BWD, ATTN_BWD1, QKV_BWD, ATTN_BWD2 };
static const struct kiln_kernel_kind kinds[] = {
    [ATTN_FWD] = {"attn_fwd", KILN_FORWARD, true, true, 1, 1},
    [FFN_FWD] = {"ffn_fwd", KILN_FORWARD, true, true, 1, 1},
    [FFN_BWD] = {"ffn_bwd", KILN_BACKWARD, true, true, 1, 1},
    [ATTN_BWD1] = {"attn_bwd1", KILN_BACKWARD, true, true, 1, 1},
    [QKV_BWD] = {"qkv_bwd", KILN_BACKWARD, true, true, 1, 1},
    [ATTN_BWD2] = {"attn_bwd2", KILN_BACKWARD, false, false, 1, 1},
};

struct pack_job {
    struct kiln_cpu_device *cpu;
    size_t matrix;
    const float *weights;
    bool forward, backward;
};

static void pack_piece(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct pack_job *job = context;
    (void)index;
    (void)scratch;
    kiln_packed_rows(&job->cpu->packed, job->matrix, first, rows, job->weights, job->forward,
                     job->backward);
}

static void pack_matrix(struct kiln_cpu_device *cpu, enum kiln_matrix_kind kind, size_t layer,
                        const float *weights, bool forward) {
    const struct kiln_table *table = cpu->base.table;
    const struct kiln_matrix *matrix = kiln_table_matrix(table, kind, layer);
    struct pack_job job = {cpu, (size_t)(matrix - table->matrices), weights, forward, !forward};
    kiln_rows(&cpu->workers, matrix->rows, KILN_PACK_ROWS, pack_piece, &job);
}

static enum kiln_status cpu_compile(struct kiln_device *device, size_t kind, size_t layer,
                                    const float *weights, struct kiln_err *err) {
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    KILN_REQUIRE(kind < sizeof kinds / sizeof kinds[0] && layer < device->table->dims.layers, err,
                 KILN_EINTERNAL, "compile: no kind %zu of layer %zu", kind, layer);
    switch (kind) {
        case ATTN_FWD:
            pack_matrix(cpu, KILN_MATRIX_QKV, layer, weights, true);
            pack_matrix(cpu, KILN_MATRIX_WO, layer, weights, true);
            break;
        case FFN_FWD:
            pack_matrix(cpu, KILN_MATRIX_W13, layer, weights, true);
            pack_matrix(cpu, KILN_MATRIX_W2, layer, weights, true);
            break;
        case FFN_BWD:
            pack_matrix(cpu, KILN_MATRIX_W13, layer, weights, false);
            pack_matrix(cpu, KILN_MATRIX_W2, layer, weights, false);
            break;
        case ATTN_BWD1:
            pack_matrix(cpu, KILN_MATRIX_WO, layer, weights, false);
            break;
        case QKV_BWD:
            pack_matrix(cpu, KILN_MATRIX_QKV, layer, weights, false);
            break;
        default:
            break;
    }
    return KILN_OK;
}

static void cpu_refresh(struct kiln_device *device, size_t matrix, size_t first, size_t rows,
                        const float *weights) {
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    kiln_packed_rows(&cpu->packed, matrix, first, rows, weights, true, cpu->training);
}

struct kiln_taps_attention kiln_cpu_taps(const struct kiln_cpu_device *cpu, const void *taps) {
    const struct kiln_dims *d = &cpu->base.table->dims;
    size_t operand = cpu->kernels.operand_bytes;
    size_t qkv = (d->heads + 2 * d->kv_heads) * d->head_size;
    /* One accessor for the writer (forward) and the reader (backward). */
    uintptr_t base = (uintptr_t)taps;
    uintptr_t out = base + kiln_round_up(cpu->tokens * qkv * operand, 64);
    uintptr_t lse = out + kiln_round_up(cpu->tokens * d->heads * d->head_size * operand, 64);
    return (struct kiln_taps_attention){(void *)base, (void *)out, (void *)lse};
}

static size_t cpu_activation_bytes(const struct kiln_device *device, enum kiln_activation what) {
    const struct kiln_cpu_device *cpu = (const struct kiln_cpu_device *)device;
    const struct kiln_dims *d = &device->table->dims;
    size_t operand = cpu->kernels.operand_bytes, n = cpu->tokens;
    switch (what) {
        case KILN_RESIDUAL:
            return kiln_round_up(n * d->dim * sizeof(float), 64);
        case KILN_TAPS_ATTENTION:
            return (size_t)(uintptr_t)kiln_cpu_taps(cpu, NULL).lse +
                   kiln_round_up(n * d->heads * sizeof(float), 64);
        default:
            return kiln_round_up(n * 2 * d->hidden * operand, 64);
    }
}

static void cpu_memory(const struct kiln_device *device, size_t *kernels, size_t *workspace) {
    const struct kiln_cpu_device *cpu = (const struct kiln_cpu_device *)device;
    *kernels = cpu->packed.arena.size;
    *workspace =
        cpu->arena.size + cpu->workers.scratch_bytes * kiln_pool_threads(cpu->workers.pool);
}

static void cpu_export(const struct kiln_device *device, const void *block, float *out) {
    const struct kiln_cpu_device *cpu = (const struct kiln_cpu_device *)device;
    memcpy(out, block, cpu->tokens * device->table->dims.dim * sizeof *out);
}
static void cpu_import(const struct kiln_device *device, const float *in, void *block) {
    const struct kiln_cpu_device *cpu = (const struct kiln_cpu_device *)device;
    memcpy(block, in, cpu->tokens * device->table->dims.dim * sizeof *in);
}

static enum kiln_status cpu_drain(struct kiln_device *device, struct kiln_err *err) {
    (void)device;
    (void)err;
    return KILN_OK;
}

static void cpu_close(struct kiln_device *device) {
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    kiln_packed_close(&cpu->packed);
    kiln_workers_close(&cpu->workers);
    kiln_arena_close(&cpu->arena);
    kiln_free(cpu);
}

static const struct kiln_device_ops ops = {
    .close = cpu_close,
    .activation_bytes = cpu_activation_bytes,
    .memory = cpu_memory,
    .compile = cpu_compile,
    .refresh = cpu_refresh,
    .embed = kiln_cpu_embed,
    .forward = kiln_cpu_forward,
    .backward = kiln_cpu_backward,
    .head = kiln_cpu_head,
    .embed_backward = kiln_cpu_embed_backward,
    .drain = cpu_drain,
    .export_residual = cpu_export,
    .import_residual = cpu_import,
};

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Both passes over the same list: base NULL plans the size, then the blocks are cut. */
static size_t lay_out(struct kiln_cpu_device *cpu, void *base) {
    const struct kiln_dims *d = &cpu->base.table->dims;
    size_t n = cpu->tokens, operand = cpu->kernels.operand_bytes, used = 0;
    size_t hk = d->heads * d->head_size, qkv = hk + 2 * d->kv_heads * d->head_size;
    size_t wide = larger(qkv, 2 * d->hidden), narrow = larger(d->dim, hk);
    size_t rows = n < KILN_HEAD_ROWS ? n : KILN_HEAD_ROWS;
#define TAKE(field, bytes)                                       \
    cpu->field = base ? (void *)((uintptr_t)base + used) : NULL; \
    used = kiln_arena_reserve(used, (bytes))
    TAKE(angles, cpu->base.shape.seq * d->head_size * sizeof(float));
    TAKE(xn, n * narrow * operand);
    TAKE(gate, n * d->hidden * operand);
    TAKE(rstd, n * sizeof(float));
    TAKE(losses, n * sizeof(float));
    TAKE(logits, rows * d->vocab * sizeof(float));
    if (cpu->training) {
        TAKE(dout, n * larger(narrow, d->hidden) * operand);
        TAKE(dy, n * d->dim * operand);
        TAKE(dwide, n * wide * operand);
        TAKE(turned, larger(n * larger(wide, narrow), rows * d->vocab) * operand);
        TAKE(columns, kiln_packed_elements(larger(narrow, d->hidden), n) * operand);
        TAKE(dxn, n * d->dim * sizeof(float));
        TAKE(dnorm, (n + KILN_ROW_CHUNK - 1) / KILN_ROW_CHUNK * d->dim * sizeof(float));
        TAKE(dlogits, rows * d->vocab * operand);
    }
#undef TAKE
    return used;
}

enum kiln_status kiln_device_sizes_cpu(const struct kiln_table *table,
                                       const struct kiln_device_options *options,
                                       struct kiln_device_sizes *out, struct kiln_err *err) {
    struct kiln_cpu_device cpu = {
        .base = {.table = table, .shape = options->shape},
        .tokens = options->shape.batch * options->shape.seq,
        .training = options->training,
    };
    KILN_TRY(kiln_kernels_choose(options->precision, &cpu.kernels, err));
    for (int what = KILN_RESIDUAL; what <= KILN_TAPS_FEED_FORWARD; what++) {
        out->activation[what] = cpu_activation_bytes(&cpu.base, what);
    }
    const size_t scratch =
        kiln_attention_scratch(&cpu.kernels, options->shape.seq, table->dims.head_size);
    out->kernels = kiln_packed_bytes(table, cpu.kernels.operand_bytes, options->training);
    out->workspace = lay_out(&cpu, NULL) + larger(scratch, KILN_GEMM_SCRATCH);
    return KILN_OK;
}

static enum kiln_status open_parts(struct kiln_cpu_device *cpu, struct kiln_pool *pool,
                                   const struct kiln_device_options *options,
                                   struct kiln_err *err) {
    const struct kiln_dims *d = &cpu->base.table->dims;
    KILN_TRY(kiln_kernels_choose(options->precision, &cpu->kernels, err));
    KILN_TRY(kiln_workers_open(
        &cpu->workers, &cpu->kernels, pool,
        kiln_attention_scratch(&cpu->kernels, options->shape.seq, d->head_size), err));
    KILN_TRY(kiln_packed_open(&cpu->packed, cpu->base.table, &cpu->kernels, cpu->training, err));
    KILN_TRY(kiln_arena_open(&cpu->arena, lay_out(cpu, NULL), err));
    lay_out(cpu, cpu->arena.base);
    kiln_rope_angles(cpu->angles, options->shape.seq, d->head_size, d->rope_theta);
    const struct kiln_table *table = cpu->base.table;
    struct pack_job head = {cpu, table->n_matrices - 1, cpu->base.weights, true, cpu->training};
    kiln_rows(&cpu->workers, table->matrices[head.matrix].rows, KILN_PACK_ROWS, pack_piece, &head);
    return KILN_OK;
}

enum kiln_status kiln_device_open_cpu(const struct kiln_table *table, struct kiln_pool *pool,
                                      const float *weights,
                                      const struct kiln_device_options *options,
                                      struct kiln_device **out, struct kiln_err *err) {
    *out = NULL;
    struct kiln_cpu_device *cpu = kiln_alloc(1, sizeof *cpu);
    KILN_REQUIRE(cpu, err, KILN_ENOMEM, "no memory for the cpu device");
    cpu->base.ops = &ops;
    cpu->base.table = table;
    cpu->base.shape = options->shape;
    cpu->base.weights = weights;
    cpu->training = options->training;
    cpu->tokens = options->shape.batch * options->shape.seq;
    enum kiln_status status = open_parts(cpu, pool, options, err);
    if (status != KILN_OK) {
        cpu_close(&cpu->base);
        return status;
    }
    cpu->base.caps = (struct kiln_device_caps){.name = "cpu",
                                               .refreshes = true,
                                               .kinds = kinds,
                                               .n_kinds = sizeof kinds / sizeof kinds[0]};
    snprintf(cpu->base.caps.numerics, sizeof cpu->base.caps.numerics, "cpu/%s/%s/%s/%dx%d",
             kiln_precision_name(cpu->kernels.precision), cpu->kernels.tier, cpu->kernels.provider,
             KILN_GEMM_M, KILN_GEMM_N);
    *out = &cpu->base;
    return KILN_OK;
}

const struct kiln_packed *kiln_device_packed(const struct kiln_device *device) {
    return device->ops == &ops ? &((const struct kiln_cpu_device *)device)->packed : NULL;
}
