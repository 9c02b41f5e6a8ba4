/* SPDX-License-Identifier: MIT
 *
 * cpu.c: the CPU device: what it holds, and what compiling means here: packing.
 */
#include "base/mem.h"
#include "device/cpu/cpu.h"

#include <stdio.h>
#include <string.h>

#include "kernel/rope.h"

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

/* What a kind multiplies with: matrices, and in which direction. */
static const struct {
    bool forward;
    int n;
    enum kiln_matrix_kind matrices[2];
} baked[KILN_KINDS] = {
    [KILN_ATTN_FWD] = {true, 2, {KILN_MATRIX_QKV, KILN_MATRIX_WO}},
    [KILN_FFN_FWD] = {true, 2, {KILN_MATRIX_W13, KILN_MATRIX_W2}},
    [KILN_FFN_BWD] = {false, 2, {KILN_MATRIX_W13, KILN_MATRIX_W2}},
    [KILN_ATTN_BWD1] = {false, 1, {KILN_MATRIX_WO}},
    [KILN_QKV_BWD] = {false, 1, {KILN_MATRIX_QKV}},
    [KILN_ATTN_BWD2] = {false, 0, {0}},
};

static unsigned char *loaded(const struct kiln_cpu_device *cpu, size_t kind, size_t layer) {
    return &cpu->loaded[kind * cpu->base.table->dims.layers + layer];
}

bool kiln_cpu_loaded(const struct kiln_cpu_device *cpu, size_t kind, size_t layer) {
    if (cpu->base.caps.kinds[kind].per_layer) {
        return *loaded(cpu, kind, layer);
    }
    bool any = false; /* one for all layers, or in `whole` one of several */
    for (size_t l = 0; l < cpu->base.table->dims.layers && !any; l++) {
        any = *loaded(cpu, kind, l);
    }
    return any;
}

static enum kiln_status cpu_compile(struct kiln_device *device, size_t set, size_t kind,
                                    size_t layer, const struct kiln_weights *weights,
                                    struct kiln_err *err) {
    (void)set;
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    const struct kiln_device_caps *caps = &device->caps;
    KILN_REQUIRE(kind < KILN_KINDS && layer < device->table->dims.layers, err, KILN_EINTERNAL,
                 "compile: no kind %zu of layer %zu", kind, layer);
    unsigned char *flag = loaded(cpu, kind, layer);
    KILN_REQUIRE(caps->compile_budget == 0 || device->counts.compiles < caps->compile_budget, err,
                 KILN_EBUDGET,
                 "cpu: %s of layer %zu would be kernel %zu of this process; its "
                 "compile budget is %zu",
                 cpu->base.caps.kinds[kind].name, layer, (size_t)device->counts.compiles + 1,
                 caps->compile_budget);
    KILN_REQUIRE(caps->load_budget == 0 || *flag || device->counts.loaded < caps->load_budget, err,
                 KILN_EBUDGET,
                 "cpu: %s of layer %zu would be kernel %zu loaded at once; the load "
                 "budget is %zu",
                 cpu->base.caps.kinds[kind].name, layer, device->counts.loaded + 1,
                 caps->load_budget);
    for (int i = 0; i < baked[kind].n; i++) {
        pack_matrix(cpu, baked[kind].matrices[i], layer, weights->flat, baked[kind].forward);
    }
    device->counts.compiles++;
    device->counts.loaded += !*flag;
    *flag = 1;
    return KILN_OK;
}

static void cpu_release(struct kiln_device *device, size_t set, size_t kind, size_t layer) {
    (void)set;
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    const struct kiln_table *table = device->table;
    unsigned char *flag = loaded(cpu, kind, layer);
    for (int i = 0; *flag && i < baked[kind].n; i++) {
        const struct kiln_matrix *m = kiln_table_matrix(table, baked[kind].matrices[i], layer);
        kiln_packed_release(&cpu->packed, (size_t)(m - table->matrices), baked[kind].forward);
    }
    device->counts.loaded -= *flag;
    *flag = 0;
}

/* Is there a packed copy of the matrix to refresh? The classifier has its copies always. */
static bool has_copy(const struct kiln_cpu_device *cpu, const struct kiln_matrix *m, bool forward) {
    for (size_t kind = 0; m->kind != KILN_MATRIX_HEAD && kind < KILN_KINDS; kind++) {
        for (int i = 0; i < baked[kind].n; i++) {
            if (baked[kind].matrices[i] == m->kind && baked[kind].forward == forward) {
                return cpu->base.caps.refreshes && *loaded(cpu, kind, m->layer);
            }
        }
    }
    return true;
}

static void cpu_refresh(struct kiln_device *device, size_t matrix, size_t first, size_t rows,
                        const float *weights) {
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    const struct kiln_matrix *m = &device->table->matrices[matrix];
    kiln_packed_rows(&cpu->packed, matrix, first, rows, weights, has_copy(cpu, m, true),
                     cpu->training && has_copy(cpu, m, false));
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
    kiln_free(cpu->loaded);
    kiln_free(cpu);
}

static const struct kiln_device_ops ops = {
    .close = cpu_close,
    .activation_bytes = cpu_activation_bytes,
    .compile = cpu_compile,
    .release = cpu_release,
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

/* Both passes over the same list: base NULL plans the size, then the blocks are cut. */
static size_t lay_out(struct kiln_cpu_device *cpu, void *base) {
    const struct kiln_dims *d = &cpu->base.table->dims;
    size_t n = cpu->tokens, operand = cpu->kernels.operand_bytes, used = 0;
    size_t hk = d->heads * d->head_size, qkv = hk + 2 * d->kv_heads * d->head_size;
    size_t wide = kiln_largest(qkv, 2 * d->hidden), narrow = kiln_largest(d->dim, hk);
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
        TAKE(dout, n * kiln_largest(narrow, d->hidden) * operand);
        TAKE(dy, n * d->dim * operand);
        TAKE(dwide, n * wide * operand);
        TAKE(turned, kiln_largest(n * kiln_largest(wide, narrow), rows * d->vocab) * operand);
        TAKE(columns, kiln_packed_elements(kiln_largest(narrow, d->hidden), n) * operand);
        TAKE(dxn, n * d->dim * sizeof(float));
        TAKE(dnorm, (n + KILN_ROW_CHUNK - 1) / KILN_ROW_CHUNK * d->dim * sizeof(float));
        TAKE(dlogits, rows * d->vocab * operand);
    }
#undef TAKE
    return used;
}

enum kiln_status kiln_cpu_sizes(const struct kiln_table *table,
                                const struct kiln_device_options *options,
                                struct kiln_device_sizes *out, struct kiln_err *err) {
    struct kiln_cpu_device cpu = {
        .base = {.table = table, .shape = options->shape},
        .tokens = options->shape.batch * options->shape.seq,
        .training = options->training,
    };
    KILN_TRY(kiln_kernels_choose(options->precision, &cpu.kernels, err));
    *out = (struct kiln_device_sizes){.workspace = lay_out(&cpu, NULL)};
    for (int what = KILN_RESIDUAL; what <= KILN_TAPS_FEED_FORWARD; what++) {
        out->activation[what] = cpu_activation_bytes(&cpu.base, what);
    }
    const size_t scratch =
        kiln_attention_scratch(&cpu.kernels, options->shape.seq, table->dims.head_size);
    out->thread = kiln_largest(scratch, KILN_GEMM_SCRATCH);
    for (size_t i = 0; i < table->n_matrices; i++) {
        size_t forward, backward;
        kiln_packed_sizes(&table->matrices[i], cpu.kernels.operand_bytes, &forward, &backward);
        backward = options->training ? backward : 0;
        if (table->matrices[i].kind == KILN_MATRIX_HEAD) {
            out->head = forward + backward;
        } else if (table->matrices[i].layer == 0) {
            out->forward += forward;
            out->backward += backward;
        }
    }
    return KILN_OK;
}

static void set_up_head(struct kiln_cpu_device *cpu) {
    const struct kiln_table *table = cpu->base.table;
    const size_t last = table->n_matrices - 1;
    const struct kiln_tensor *norm = kiln_table_find(table, KILN_FINAL_NORM, KILN_NO_LAYER);
    cpu->head = (struct kiln_head){
        .workers = &cpu->workers,
        .classifier = &table->matrices[last],
        .forward = cpu->packed.forward[last],
        .backward = cpu->packed.backward[last],
        .norm = {kiln_weights_wide(&cpu->base.weights, norm), table->dims.rms_eps, table->dims.dim,
                 cpu->rstd, cpu->dnorm},
        .norm_offset = norm->offset,
        .dw = {cpu->turned, cpu->columns},
        .xn = cpu->xn,
        .logits = cpu->logits,
        .dlogits = cpu->dlogits,
        .dxn = cpu->dxn,
    };
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
    cpu->loaded = kiln_alloc(KILN_KINDS * d->layers, 1);
    KILN_REQUIRE(cpu->loaded, err, KILN_ENOMEM, "no memory for the list of kernels");
    KILN_TRY(kiln_arena_open(&cpu->arena, lay_out(cpu, NULL), err));
    lay_out(cpu, cpu->arena.base);
    set_up_head(cpu);
    kiln_rope_angles(cpu->angles, options->shape.seq, d->head_size, d->rope_theta);
    const struct kiln_table *table = cpu->base.table;
    struct pack_job head = {cpu, table->n_matrices - 1, cpu->base.weights.flat, true,
                            cpu->training};
    kiln_rows(&cpu->workers, table->matrices[head.matrix].rows, KILN_PACK_ROWS, pack_piece, &head);
    return KILN_OK;
}

enum kiln_status kiln_cpu_open(const struct kiln_table *table, struct kiln_pool *pool,
                               const struct kiln_weights *weights,
                               const struct kiln_device_options *options, struct kiln_device **out,
                               struct kiln_err *err) {
    *out = NULL;
    struct kiln_cpu_device *cpu = kiln_alloc(1, sizeof *cpu);
    KILN_REQUIRE(cpu, err, KILN_ENOMEM, "no memory for the cpu device");
    cpu->base.ops = &ops;
    cpu->base.table = table;
    cpu->base.shape = options->shape;
    cpu->base.weights = *weights;
    cpu->training = options->training;
    cpu->tokens = options->shape.batch * options->shape.seq;
    enum kiln_status status = open_parts(cpu, pool, options, err);
    if (status != KILN_OK) {
        cpu_close(&cpu->base);
        return status;
    }
    cpu->base.caps = (struct kiln_device_caps){
        .name = "cpu",
        .compile_budget = options->budget,
        .load_budget = options->load_budget,
        .refreshes = options->budget == 0 && options->load_budget == 0,
    };
    kiln_device_kinds(&table->dims, options, cpu->base.caps.kinds);
    snprintf(cpu->base.caps.numerics, sizeof cpu->base.caps.numerics, "cpu/%s/%s/%s/%dx%d",
             kiln_precision_name(cpu->kernels.precision), cpu->kernels.tier, cpu->kernels.provider,
             KILN_GEMM_M, KILN_GEMM_N);
    *out = &cpu->base;
    return KILN_OK;
}

const struct kiln_packed *kiln_device_packed(const struct kiln_device *device) {
    return device->ops == &ops ? &((const struct kiln_cpu_device *)device)->packed : NULL;
}
