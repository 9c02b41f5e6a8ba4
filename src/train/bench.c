/* SPDX-License-Identifier: MIT
 *
 * bench.c: times whole training steps.
 */
#include "kiln/bench.h"

#include <stdlib.h>
#include <string.h>

#include "base/machine.h"
#include "base/random.h"
#include "kernel/ceiling.h"
#include "train/engine.h"

struct bench {
    struct kiln_table *table;
    struct kiln_arena arena;
    struct kiln_engine_memory memory;
    struct kiln_engine engine;
    uint32_t *tokens; /* [N + 1] */
};

/* Every micro-batch is the same. */
static void same_batch(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets) {
    const struct bench *b = context;
    const size_t bytes = b->engine.plan.shape.batch * b->engine.plan.shape.seq * sizeof *tokens;
    (void)index;
    memcpy(tokens, b->tokens, bytes);
    memcpy(targets, b->tokens + 1, bytes);
}

static enum kiln_status open_memory(struct bench *b, const struct kiln_bench_options *o,
                                    struct kiln_err *err) {
    size_t bytes = b->table->size * sizeof(float);
    size_t extra = o->dims.tied ? o->dims.vocab * o->dims.dim * sizeof(float) : 0;
    size_t n = o->batch * o->seq, planned = 0;
    for (int i = 0; i < 4; i++) {
        planned = kiln_arena_reserve(planned, bytes);
    }
    planned = kiln_arena_reserve(kiln_arena_reserve(planned, extra), (n + 1) * sizeof(uint32_t));
    KILN_TRY(kiln_arena_open(&b->arena, planned, err));
    struct kiln_optimizer_parts *parts = &b->memory.optimizer;
    *parts = (struct kiln_optimizer_parts){
        .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip = 1.0};
    b->memory.weights = kiln_arena_take(&b->arena, bytes);
    parts->m = kiln_arena_take(&b->arena, bytes);
    parts->v = kiln_arena_take(&b->arena, bytes);
    float *all = parts->gradients.all = kiln_arena_take(&b->arena, bytes);
    parts->gradients.embedding =
        extra ? kiln_arena_take(&b->arena, extra)
              : all + kiln_table_find(b->table, KILN_EMBED, KILN_NO_LAYER)->offset;
    b->tokens = kiln_arena_take(&b->arena, (n + 1) * sizeof(uint32_t));
    kiln_weights_init(b->table, 1, b->memory.weights);
    for (size_t i = 0; i <= n; i++) {
        b->tokens[i] = (uint32_t)kiln_random_below(1, KILN_STREAM_TEST, i, o->dims.vocab);
    }
    return KILN_OK;
}

static enum kiln_status open_bench(struct bench *b, const struct kiln_bench_options *o,
                                   struct kiln_err *err) {
    const struct kiln_device_options device = {
        .shape = {o->batch, o->seq}, .precision = o->precision, .training = true};
    const size_t accum = o->accum ? o->accum : 1;
    const size_t threads = o->threads ? o->threads : kiln_cpu_count();
    KILN_TRY(kiln_table_create(&o->dims, &b->table, err));
    KILN_TRY(open_memory(b, o, err));
    const struct kiln_plan_request request = kiln_plan_simple(b->table, &device, accum, threads);
    KILN_TRY(kiln_engine_plan(&b->engine, b->table, &request, err));
    return kiln_engine_open(&b->engine, b->table, &b->memory, err);
}

static void close_bench(struct bench *b) {
    kiln_engine_close(&b->engine);
    kiln_arena_close(&b->arena);
    kiln_table_destroy(b->table);
}

/* What one measured step took, in ms. */
struct times {
    double forward, backward, update, step;
};

static enum kiln_status one_step(struct bench *b, size_t accum, uint64_t update, struct times *out,
                                 struct kiln_err *err) {
    struct kiln_executor *x = &b->engine.executor;
    const struct kiln_micro_batch *shape = &b->engine.plan.shape;
    x->forward_s = x->backward_s = 0.0;
    x->scale = 1.0f / (float)(shape->batch * shape->seq * accum);
    double start = kiln_now_s();
    kiln_executor_begin(x, false, accum, same_batch, b);
    KILN_TRY(kiln_executor_window(x, err));
    double computed = kiln_now_s();
    double norm = kiln_optimizer_norm(b->engine.optimizer, 1);
    kiln_optimizer_update(b->engine.optimizer, update, 1e-4, norm, 1);
    double end = kiln_now_s();
    out->forward = x->forward_s * 1e3 / (double)accum;
    out->backward = x->backward_s * 1e3 / (double)accum;
    out->update = (end - computed) * 1e3;
    out->step = (end - start) * 1e3;
    return KILN_OK;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median of `n` values that lie `stride` doubles apart; the spread when asked. */
static double median(const struct times *all, size_t n, size_t member, double *spread) {
    double value[64] = {0};
    n = n < 64 ? n : 64;
    for (size_t i = 0; i < n; i++) {
        memcpy(&value[i], (const char *)&all[i] + member, sizeof(double));
    }
    qsort(value, n, sizeof *value, by_value);
    if (spread) {
        *spread = value[n - 1] - value[0];
    }
    return n % 2 ? value[n / 2] : 0.5 * (value[n / 2 - 1] + value[n / 2]);
}

static enum kiln_status run_bench(struct bench *b, const struct kiln_bench_options *o,
                                  struct kiln_bench_result *out, struct kiln_err *err) {
    struct times all[64];
    size_t steps = o->steps == 0 ? 3 : o->steps > 64 ? 64 : o->steps;
    size_t accum = o->accum ? o->accum : 1;
    KILN_TRY(open_bench(b, o, err));
    KILN_TRY(one_step(b, 1, 1, &all[0], err));
    for (size_t i = 0; i < steps; i++) {
        KILN_TRY(one_step(b, accum, i + 2, &all[i], err));
    }
    out->peak_bytes = kiln_memory_resident_peak();
    out->forward_ms = median(all, steps, offsetof(struct times, forward), NULL);
    out->backward_ms = median(all, steps, offsetof(struct times, backward), NULL);
    out->update_ms = median(all, steps, offsetof(struct times, update), NULL);
    out->step_ms = median(all, steps, offsetof(struct times, step), &out->spread_ms);
    out->tokens_per_s = (double)(o->batch * o->seq * accum) / out->step_ms * 1e3;
    out->tflops = b->engine.plan.flops.total * (double)accum / out->step_ms * 1e-9;
    out->precision = kiln_precision_resolve(o->precision);
    out->threads = kiln_pool_threads(b->engine.pool);
    struct kiln_cpu cpu;
    KILN_TRY(kiln_cpu_describe(o->precision, &cpu, err));
    out->tier = cpu.tier;
    out->provider = cpu.provider;
    KILN_TRY(kiln_ceiling_products(b->engine.pool, o->precision, &out->gemm_ceiling_tflops, err));
    return kiln_ceiling_copy(b->engine.pool, &out->copy_gb_s, err);
}

enum kiln_status kiln_bench(const struct kiln_bench_options *options, struct kiln_bench_result *out,
                            struct kiln_err *err) {
    struct bench b = {0};
    *out = (struct kiln_bench_result){0};
    enum kiln_status status = run_bench(&b, options, out, err);
    close_bench(&b);
    return status;
}
