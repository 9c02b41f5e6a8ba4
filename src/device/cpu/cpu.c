/* SPDX-License-Identifier: MIT
 *
 * cpu.c: the CPU device: what it holds, and what compiling means here: packing.
 */
#include "base/mem.h"
#include "device/cpu/cpu.h"

#include <stdio.h>
#include <string.h>

#include "device/host/gpu.h"
#include "kernel/rope.h"

struct pack_job {
    const struct kiln_packed *packed;
    size_t matrix;
    const struct kiln_weights *weights;
    bool forward, backward;
};

static void pack_piece(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct pack_job *job = context;
    (void)index;
    (void)scratch;
    kiln_packed_rows(job->packed, job->matrix, first, rows, job->weights, job->forward,
                     job->backward);
}

/* The owner packs on the pool; a thread beside it packs alone, and the pool makes room for it. */
static void pack(struct kiln_cpu_device *cpu, const struct kiln_matrix *m, struct pack_job job) {
    job.matrix = (size_t)(m - cpu->base.table->matrices);
    if (!cpu->beside || kiln_pool_is_owner(cpu->workers.pool)) {
        kiln_rows(&cpu->workers, m->rows, KILN_PACK_ROWS, pack_piece, &job);
        return;
    }
    kiln_pool_guest_enter(cpu->workers.pool);
    for (size_t first = 0; first < m->rows; first += KILN_PACK_ROWS) {
        pack_piece(&job, first, kiln_least(m->rows - first, KILN_PACK_ROWS), 0, NULL);
    }
    kiln_pool_guest_leave(cpu->workers.pool);
}

static void pack_classifier(struct kiln_cpu_device *cpu, size_t set,
                            const struct kiln_weights *weights) {
    const struct kiln_table *table = cpu->base.table;
    if (!cpu->no_head) {
        pack(cpu, &table->matrices[table->n_matrices - 1],
             (struct pack_job){.packed = &cpu->sets[set].packed,
                               .weights = weights,
                               .forward = true,
                               .backward = cpu->training});
    }
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

/* What all sets share is in the first. */
static unsigned char *loaded(const struct kiln_cpu_device *cpu, size_t set, size_t kind,
                             size_t layer) {
    set = cpu->base.caps.kinds[kind].weights ? set : 0;
    return &cpu->sets[set].loaded[kind * cpu->base.table->dims.layers + layer];
}

static bool is_loaded(const struct kiln_cpu_device *cpu, size_t set, size_t kind, size_t layer) {
    return __atomic_load_n(loaded(cpu, set, kind, layer), __ATOMIC_ACQUIRE);
}

static void set_loaded(struct kiln_cpu_device *cpu, size_t set, size_t kind, size_t layer,
                       bool is) {
    unsigned char *flag = loaded(cpu, set, kind, layer);
    cpu->base.counts.loaded += (size_t)is - *flag;
    __atomic_store_n(flag, is, __ATOMIC_RELEASE);
}

bool kiln_cpu_loaded(const struct kiln_cpu_device *cpu, size_t kind, size_t layer) {
    const size_t set = cpu->base.set;
    if (cpu->base.caps.kinds[kind].per_layer) {
        return is_loaded(cpu, set, kind, layer);
    }
    bool any = false; /* one for all layers, or in `whole` one of several */
    for (size_t l = 0; l < cpu->base.table->dims.layers && !any; l++) {
        any = is_loaded(cpu, set, kind, l);
    }
    return any;
}

/* Can they be packed? */
static enum kiln_status check_weights(const struct kiln_cpu_device *cpu,
                                      const struct kiln_weights *weights, struct kiln_err *err) {
    KILN_REQUIRE(weights->flat || weights->precision == cpu->kernels.precision, err, KILN_EINTERNAL,
                 "cpu: a snapshot in %s for a device that multiplies %s",
                 kiln_precision_name(weights->precision),
                 kiln_precision_name(cpu->kernels.precision));
    return KILN_OK;
}

static enum kiln_status check_budgets(const struct kiln_cpu_device *cpu, size_t set, size_t kind,
                                      size_t layer, struct kiln_err *err) {
    const struct kiln_device_caps *caps = &cpu->base.caps;
    const size_t compiled = cpu->base.counts.compiles, there = cpu->base.counts.loaded;
    KILN_REQUIRE(caps->compile_budget == 0 || compiled < caps->compile_budget, err, KILN_EBUDGET,
                 "cpu: %s of layer %zu would be kernel %zu of this process; its "
                 "compile budget is %zu",
                 caps->kinds[kind].name, layer, compiled + 1, caps->compile_budget);
    KILN_REQUIRE(
        caps->load_budget == 0 || is_loaded(cpu, set, kind, layer) || there < caps->load_budget,
        err, KILN_EBUDGET,
        "cpu: %s of layer %zu would be kernel %zu loaded at once; the load "
        "budget is %zu",
        caps->kinds[kind].name, layer, there + 1, caps->load_budget);
    return KILN_OK;
}

static enum kiln_status cpu_compile(struct kiln_device *device, size_t set, size_t kind,
                                    size_t layer, const struct kiln_weights *weights,
                                    struct kiln_err *err) {
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    KILN_REQUIRE(set < cpu->n_sets && kind < KILN_KINDS && layer < device->table->dims.layers, err,
                 KILN_EINTERNAL, "compile: no kind %zu of layer %zu in set %zu", kind, layer, set);
    KILN_TRY(check_budgets(cpu, set, kind, layer, err));
    KILN_TRY(baked[kind].n > 0 ? check_weights(cpu, weights, err) : KILN_OK);
    for (int i = 0; i < baked[kind].n; i++) {
        pack(cpu, kiln_table_matrix(device->table, baked[kind].matrices[i], layer),
             (struct pack_job){.packed = &cpu->sets[set].packed,
                               .weights = weights,
                               .forward = baked[kind].forward,
                               .backward = !baked[kind].forward});
    }
    device->counts.compiles++;
    set_loaded(cpu, set, kind, layer, true);
    return KILN_OK;
}

static void cpu_release(struct kiln_device *device, size_t set, size_t kind, size_t layer) {
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    const struct kiln_table *table = device->table;
    const bool was = is_loaded(cpu, set, kind, layer);
    for (int i = 0; was && i < baked[kind].n; i++) {
        const struct kiln_matrix *m = kiln_table_matrix(table, baked[kind].matrices[i], layer);
        kiln_packed_release(&cpu->sets[set].packed, (size_t)(m - table->matrices),
                            baked[kind].forward);
    }
    set_loaded(cpu, set, kind, layer, false);
}

static void set_up_head(struct kiln_cpu_device *cpu) {
    const struct kiln_table *table = cpu->base.table;
    const size_t last = table->n_matrices - 1;
    const struct kiln_tensor *norm = kiln_table_find(table, KILN_FINAL_NORM, KILN_NO_LAYER);
    cpu->head = (struct kiln_head){
        .workers = &cpu->workers,
        .classifier = &table->matrices[last],
        .forward = kiln_cpu_packed(cpu)->forward[last],
        .backward = kiln_cpu_packed(cpu)->backward[last],
        .norm = {kiln_weights_wide(&cpu->base.weights, norm), table->dims.rms_eps, table->dims.dim,
                 cpu->rstd, cpu->dnorm},
        .norm_offset = norm->offset,
        .frozen = table->trained > 0,
        .gpu = cpu->gpu,
        .xn = cpu->head.xn,
        .logits = cpu->head.logits,
        .dxn = cpu->head.dxn,
        .turned = cpu->head.turned,
        .columns = cpu->head.columns,
    };
}

static enum kiln_status cpu_prepare(struct kiln_device *device, size_t set,
                                    const struct kiln_weights *weights, struct kiln_err *err) {
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    KILN_REQUIRE(set < cpu->n_sets && set != device->set, err, KILN_EINTERNAL,
                 "prepare: set %zu of %zu, and %zu is active", set, cpu->n_sets, device->set);
    KILN_TRY(check_weights(cpu, weights, err));
    pack_classifier(cpu, set, weights);
    return KILN_OK;
}

static void cpu_activate(struct kiln_device *device, size_t set,
                         const struct kiln_weights *weights) {
    device->set = set;
    device->weights = *weights;
    set_up_head(kiln_cpu_of(device));
}

/* Is there a packed copy of the matrix to refresh? The classifier has its copies always. */
static bool has_copy(const struct kiln_cpu_device *cpu, const struct kiln_matrix *m, bool forward) {
    for (size_t kind = 0; m->kind != KILN_MATRIX_HEAD && kind < KILN_KINDS; kind++) {
        for (int i = 0; i < baked[kind].n; i++) {
            if (baked[kind].matrices[i] == m->kind && baked[kind].forward == forward) {
                return cpu->base.caps.refreshes && is_loaded(cpu, 0, kind, m->layer);
            }
        }
    }
    return true;
}

static void cpu_refresh(struct kiln_device *device, size_t matrix, size_t first, size_t rows,
                        const float *weights) {
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    const struct kiln_matrix *m = &device->table->matrices[matrix];
    const struct kiln_weights flat = kiln_weights_flat(device->table, weights);
    if (cpu->n_sets == 1) { /* else the active set stays of its generation */
        kiln_packed_rows(kiln_cpu_packed(cpu), matrix, first, rows, &flat, has_copy(cpu, m, true),
                         cpu->training && has_copy(cpu, m, false));
    }
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
    struct kiln_gpu *gpu = kiln_cpu_of(device)->gpu;
    return gpu ? kiln_gpu_drain(gpu, err) : KILN_OK;
}

static void cpu_close(struct kiln_device *device) {
    struct kiln_cpu_device *cpu = kiln_cpu_of(device);
    kiln_gpu_close(cpu->gpu);
    for (size_t i = 0; i < cpu->n_sets; i++) {
        kiln_packed_close(&cpu->sets[i].packed);
        kiln_free(cpu->sets[i].loaded);
    }
    kiln_workers_close(&cpu->workers);
    kiln_arena_close(&cpu->arena);
    kiln_free(cpu);
}

static const struct kiln_device_ops ops = {
    .close = cpu_close,
    .activation_bytes = cpu_activation_bytes,
    .compile = cpu_compile,
    .release = cpu_release,
    .prepare = cpu_prepare,
    .activate = cpu_activate,
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

#define TAKE(field, bytes)                                  \
    field = base ? (void *)((uintptr_t)base + used) : NULL; \
    used = kiln_arena_reserve(used, (bytes))

/* Both passes over the same list: base NULL plans the size, then the blocks are cut. */
static size_t lay_out(struct kiln_cpu_device *cpu, void *base) {
    const struct kiln_dims *d = &cpu->base.table->dims;
    struct kiln_head *head = &cpu->head;
    size_t n = cpu->tokens, operand = cpu->kernels.operand_bytes, used = 0;
    size_t hk = d->heads * d->head_size, qkv = hk + 2 * d->kv_heads * d->head_size;
    size_t rows = n < KILN_HEAD_ROWS ? n : KILN_HEAD_ROWS;
    size_t chunks = (n + KILN_ROW_CHUNK - 1) / KILN_ROW_CHUNK;
    TAKE(cpu->angles, cpu->base.shape.seq * d->head_size * sizeof(float));
    if (d->qk_norm) {
        TAKE(cpu->turned_qkv, n * qkv * operand);
    }
    TAKE(cpu->rstd, n * sizeof(float));
    TAKE(cpu->losses, n * sizeof(float));
    TAKE(head->xn, rows * d->dim * operand);
    TAKE(head->logits, rows * d->vocab * sizeof(float));
    if (cpu->training) {
        const size_t turned = kiln_turned_stride(n) * operand;
        TAKE(cpu->turned_dy, d->dim * turned);
        TAKE(cpu->turned_wide, kiln_largest(qkv, 2 * d->hidden) * turned);
        TAKE(cpu->packed_in, kiln_packed_elements(kiln_largest(hk, d->hidden), n) * operand);
        TAKE(cpu->packed_xn, kiln_packed_elements(d->dim, n) * operand);
        TAKE(cpu->dout, n * hk * operand);
        TAKE(cpu->dqkv, n * qkv * operand);
        TAKE(cpu->dnorm, chunks * d->dim * sizeof(float));
        if (d->qk_norm) {
            TAKE(cpu->dheads, chunks * 2 * d->head_size * sizeof(float));
        }
        if (d->qkv_bias) {
            TAKE(cpu->dbias, chunks * qkv * sizeof(float));
        }
        TAKE(head->dxn, rows * d->dim * sizeof(float));
        TAKE(head->turned, kiln_turned_stride(rows) * d->vocab * operand);
        TAKE(head->columns, kiln_packed_elements(d->dim, rows) * operand);
    }
    return kiln_cpu_lora_lay_out(cpu, base, used);
}

size_t kiln_cpu_scratch(const struct kiln_cpu_device *cpu, void *base,
                        struct kiln_cpu_scratch *out) {
    const struct kiln_dims *d = &cpu->base.table->dims;
    size_t m = cpu->chunk, operand = cpu->kernels.operand_bytes, used = 0;
    TAKE(out->gemm, KILN_GEMM_SCRATCH);
    TAKE(out->xn, m * d->dim * operand);
    TAKE(out->gate, m * d->hidden * operand);
    if (cpu->training) {
        TAKE(out->dy, m * d->dim * operand);
        TAKE(out->dgate, m * d->hidden * operand);
        TAKE(out->dh, m * 2 * d->hidden * operand);
        TAKE(out->dxn, m * d->dim * sizeof(float));
    }
    if (cpu->base.table->trained > 0) {
        TAKE(out->u, kiln_cpu_lora_u_bytes(cpu));
        TAKE(out->delta, kiln_cpu_lora_delta_bytes(cpu));
    }
    return used;
}
#undef TAKE

/* Of one thread: chunks, and attention. */
static size_t thread_bytes(const struct kiln_cpu_device *cpu) {
    struct kiln_cpu_scratch scratch;
    return kiln_largest(kiln_cpu_scratch(cpu, NULL, &scratch),
                        kiln_attention_scratch(&cpu->kernels, cpu->base.shape.seq,
                                               cpu->base.table->dims.head_size));
}

/* Products whose operands wait for a GPU: those of a half-layer, and of the next. */
enum { GPU_SLOTS = 4 };

static size_t gpu_extents(const struct kiln_cpu_device *cpu,
                          struct kiln_gpu_extent out[KILN_MATRIX_KINDS]) {
    const enum kiln_precision precision = cpu->kernels.precision;
    return kiln_gpu_extents(cpu->base.table, &cpu->base.shape, precision, GPU_SLOTS, precision,
                            GPU_SLOTS, out);
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
    cpu.chunk = kiln_chunk_rows(&cpu.kernels, cpu.tokens, 1); /* more threads: no larger ones */
    *out = (struct kiln_device_sizes){.workspace = lay_out(&cpu, NULL)};
    if (options->training && options->device.gpu) {
        struct kiln_gpu_extent extents[KILN_MATRIX_KINDS];
        out->gpu = kiln_gpu_bytes(extents, gpu_extents(&cpu, extents));
    }
    for (int what = KILN_RESIDUAL; what <= KILN_TAPS_FEED_FORWARD; what++) {
        out->activation[what] = cpu_activation_bytes(&cpu.base, what);
    }
    out->thread = thread_bytes(&cpu);
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
    out->baked_forward = out->forward;
    out->baked_backward = out->backward;
    out->baked_head = out->head;
    return KILN_OK;
}

static enum kiln_status open_set(struct kiln_cpu_device *cpu, struct kiln_cpu_set *set,
                                 struct kiln_err *err) {
    set->loaded = kiln_alloc(KILN_KINDS * cpu->base.table->dims.layers, 1);
    KILN_REQUIRE(set->loaded, err, KILN_ENOMEM, "no memory for the list of kernels");
    return kiln_packed_open(&set->packed, cpu->base.table, &cpu->kernels, cpu->training, err);
}

static enum kiln_status open_parts(struct kiln_cpu_device *cpu, struct kiln_pool *pool,
                                   const struct kiln_device_options *options,
                                   struct kiln_err *err) {
    const struct kiln_dims *d = &cpu->base.table->dims;
    KILN_TRY(kiln_kernels_choose(options->precision, &cpu->kernels, err));
    cpu->chunk = kiln_chunk_rows(&cpu->kernels, cpu->tokens, kiln_pool_threads(pool));
    KILN_TRY(kiln_workers_open(&cpu->workers, &cpu->kernels, pool, thread_bytes(cpu), err));
    KILN_TRY(check_weights(cpu, &cpu->base.weights, err));
    for (size_t i = 0; i < cpu->n_sets; i++) {
        KILN_TRY(open_set(cpu, &cpu->sets[i], err));
    }
    KILN_TRY(kiln_arena_open(&cpu->arena, lay_out(cpu, NULL), err));
    lay_out(cpu, cpu->arena.base);
    if (options->training && options->device.gpu) {
        struct kiln_gpu_extent extents[KILN_MATRIX_KINDS];
        KILN_TRY(kiln_gpu_open(extents, gpu_extents(cpu, extents), &cpu->gpu, err));
        kiln_gpu_tell(cpu->gpu, &cpu->base);
    }
    set_up_head(cpu);
    kiln_rope_angles(cpu->angles, options->shape.seq, d);
    pack_classifier(cpu, 0, &cpu->base.weights);
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
    cpu->beside = options->beside;
    cpu->no_head = options->no_head;
    cpu->n_sets = options->two_sets ? 2 : 1;
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
        .refreshes = options->budget == 0 && options->load_budget == 0 && !options->two_sets,
    };
    kiln_device_kinds(&table->dims, options, cpu->base.caps.kinds);
    snprintf(cpu->base.caps.numerics, sizeof cpu->base.caps.numerics, "cpu/%s/%s/%s/%dx%d%s%s",
             kiln_precision_name(cpu->kernels.precision), cpu->kernels.tier, cpu->kernels.provider,
             KILN_GEMM_M, KILN_GEMM_N, cpu->gpu ? "/" : "",
             cpu->gpu ? kiln_gpu_numerics(cpu->gpu) : "");
    if (cpu->gpu) {
        snprintf(cpu->base.caps.gpu, sizeof cpu->base.caps.gpu, "%s",
                 kiln_gpu_description(cpu->gpu));
    }
    *out = &cpu->base;
    return KILN_OK;
}

const struct kiln_packed *kiln_device_packed(const struct kiln_device *device) {
    return device->ops == &ops ? kiln_cpu_packed((const struct kiln_cpu_device *)device) : NULL;
}
