/* SPDX-License-Identifier: MIT
 *
 * bench.c: times whole training steps, and their parts by the spans that the device leaves.
 */
#include "kiln/bench.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/machine.h"
#include "base/random.h"
#include "kernel/ceiling.h"
#include "model/table.h"
#include "plan/parts.h"
#include "train/engine.h"

struct bench {
    struct kiln_table *table;
    struct kiln_arena arena;
    struct kiln_engine_memory memory;
    struct kiln_engine engine;
    uint32_t *tokens; /* [N + 1] */
};

/* Every micro-batch is the same. */
static void same_batch(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets,
                       uint32_t *starts) {
    (void)starts;
    const struct bench *b = context;
    const size_t bytes = b->engine.plan.shape.batch * b->engine.plan.shape.seq * sizeof *tokens;
    (void)index;
    memcpy(tokens, b->tokens, bytes);
    memcpy(targets, b->tokens + 1, bytes);
}

static enum kiln_status open_memory(struct bench *b, const struct kiln_bench_options *o,
                                    size_t threads, struct kiln_err *err) {
    struct kiln_pool *pool;
    const bool whole = b->table->trained == 0;
    const size_t weights = b->table->size * sizeof(float);
    const size_t bytes = kiln_trained_size(b->table) * sizeof(float);
    size_t extra = o->dims.tied && whole ? o->dims.vocab * o->dims.dim * sizeof(float) : 0;
    size_t n = o->batch * o->seq, planned = kiln_arena_reserve(0, weights);
    for (int i = 0; i < 3; i++) {
        planned = kiln_arena_reserve(planned, bytes);
    }
    planned = kiln_arena_reserve(kiln_arena_reserve(planned, extra), (n + 1) * sizeof(uint32_t));
    KILN_TRY(kiln_arena_open(&b->arena, planned, err));
    struct kiln_optimizer_parts *parts = &b->memory.optimizer;
    *parts = (struct kiln_optimizer_parts){
        .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip = 1.0};
    b->memory.weights = kiln_arena_take(&b->arena, weights);
    parts->m = kiln_arena_take(&b->arena, bytes);
    parts->v = kiln_arena_take(&b->arena, bytes);
    float *all = parts->gradients.all = kiln_arena_take(&b->arena, bytes);
    if (whole) {
        parts->gradients.embedding =
            extra ? kiln_arena_take(&b->arena, extra)
                  : all + kiln_table_find(b->table, KILN_EMBED, KILN_NO_LAYER)->offset;
    }
    b->tokens = kiln_arena_take(&b->arena, (n + 1) * sizeof(uint32_t));
    KILN_TRY(kiln_pool_create(threads, &pool, err));
    kiln_weights_init_on(pool, b->table, 1, b->memory.weights);
    kiln_pool_destroy(pool);
    for (size_t i = 0; i <= n; i++) {
        b->tokens[i] = (uint32_t)kiln_random_below(1, KILN_STREAM_TEST, i, o->dims.vocab);
    }
    return KILN_OK;
}

/* The rates of memory before anything is opened. Not where that would be the most memory that the
 * process ever takes. */
static enum kiln_status memory_before(const struct bench *b, size_t threads,
                                      struct kiln_bench_result *out, struct kiln_err *err) {
    struct kiln_pool *pool;
    if (b->engine.plan.memory.total < KILN_CEILING_COPY_BYTES + KILN_CEILING_COPY_BYTES / 4) {
        return KILN_OK;
    }
    KILN_TRY(kiln_pool_create(threads, &pool, err));
    enum kiln_status status = kiln_ceiling_copy(pool, &out->copy.before, err);
    if (status == KILN_OK) {
        status = kiln_ceiling_in_place(pool, &out->in_place.before, err);
    }
    kiln_pool_destroy(pool);
    return status;
}

/* out NULL: without the rates of memory. */
static enum kiln_status open_bench(struct bench *b, const struct kiln_bench_options *o,
                                   struct kiln_bench_result *out, struct kiln_err *err) {
    const struct kiln_device_options device = {
        .shape = {o->batch, o->seq}, .precision = o->precision, .training = true};
    const size_t accum = o->accum ? o->accum : 1;
    const size_t threads = o->threads ? o->threads : kiln_cpu_count();
    KILN_TRY(kiln_table_create_lora(&o->dims, &o->lora, &b->table, err));
    const struct kiln_plan_request request = kiln_plan_simple(b->table, &device, accum, threads);
    KILN_TRY(kiln_engine_plan(&b->engine, b->table, &request, err));
    if (out) {
        KILN_TRY(memory_before(b, threads, out, err));
    }
    KILN_TRY(open_memory(b, o, threads, err));
    KILN_TRY(kiln_engine_open(&b->engine, b->table, &b->memory, err));
    kiln_spans_keep(b->engine.spans, out != NULL);
    kiln_spans_pieces(b->engine.spans, out != NULL);
    return KILN_OK;
}

static void close_bench(struct bench *b) {
    kiln_engine_close(&b->engine);
    kiln_arena_close(&b->arena);
    kiln_table_destroy(b->table);
}

/* What one measured step took, in ms. */
struct times {
    double forward, backward, update, step;
    double part[KILN_PARTS], piece[KILN_PIECES];
};

/* The spans of a step, by part and piece. */
static enum kiln_status sum_spans(struct bench *b, struct times *out, struct kiln_err *err) {
    struct kiln_spans_taken taken;
    kiln_spans_take(b->engine.spans, &taken);
    for (size_t i = 0; i < taken.n; i++) {
        const struct kiln_span *span = &taken.list[i];
        const char *name = span->name ? span->name : kiln_span_kind_name(span->kind);
        const enum kiln_part part = kiln_part_find(name);
        const enum kiln_piece_of_step piece = kiln_piece_find(name);
        const double ms = (span->end - span->start) * 1e3;
        if (span->kind == KILN_SPAN_EVALUATE && part < KILN_PARTS) {
            out->part[part] += ms;
        } else if (span->kind == KILN_SPAN_PIECE && piece < KILN_PIECES) {
            out->piece[piece] += ms;
        } else if (span->kind == KILN_SPAN_EVALUATE || span->kind == KILN_SPAN_PIECE) {
            return KILN_FAIL(err, KILN_EINTERNAL,
                             "bench: a span is called %s, which is no part of a step "
                             "(plan/parts.h)",
                             name);
        }
    }
    return KILN_OK;
}

static enum kiln_status one_step(struct bench *b, size_t accum, uint64_t update, struct times *out,
                                 struct kiln_err *err) {
    struct kiln_executor *x = &b->engine.executor;
    const struct kiln_micro_batch *shape = &b->engine.plan.shape;
    *out = (struct times){.step = 0};
    x->forward_s = x->backward_s = 0.0;
    x->scale = 1.0f / (float)(shape->batch * shape->seq * accum);
    double start = kiln_now_s();
    kiln_executor_begin(x, false, accum, same_batch, b);
    KILN_TRY(kiln_executor_window(x, err));
    double computed = kiln_now_s();
    double norm = kiln_optimizer_norm(b->engine.optimizer, 1);
    double normed = kiln_now_s();
    kiln_optimizer_update(b->engine.optimizer, update, 1e-4, norm, 1);
    double end = kiln_now_s();
    KILN_TRY(sum_spans(b, out, err));
    out->forward = x->forward_s * 1e3 / (double)accum;
    out->backward = x->backward_s * 1e3 / (double)accum;
    out->update = (end - computed) * 1e3;
    out->step = (end - start) * 1e3;
    out->part[KILN_PART_NORM] = (normed - computed) * 1e3;
    out->part[KILN_PART_UPDATE] = (end - normed) * 1e3;
    return KILN_OK;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

enum { MOST_STEPS = 64 };

static double median_of(double *value, size_t n) {
    qsort(value, n, sizeof *value, by_value);
    return n % 2 ? value[n / 2] : 0.5 * (value[n / 2 - 1] + value[n / 2]);
}

/* Median of a member of n steps; the spread when asked. */
static double median(const struct times *all, size_t n, size_t member, double *spread) {
    double value[MOST_STEPS];
    assert(n > 0);
    for (size_t i = 0; i < n; i++) {
        memcpy(&value[i], (const char *)&all[i] + member, sizeof(double));
    }
    const double middle = median_of(value, n);
    if (spread) {
        *spread = value[n - 1] - value[0];
    }
    return middle;
}

static void settle(struct kiln_bench_ceiling *c) {
    c->median = c->before > 0 ? 0.5 * (c->before + c->after) : c->after;
}

/* Products are measured in front of every step and behind the last: machines drift. */
static enum kiln_status measure(struct bench *b, const struct kiln_bench_options *o, size_t accum,
                                struct times *all, size_t steps, struct kiln_bench_result *out,
                                struct kiln_err *err) {
    double ceiling[MOST_STEPS + 1];
    struct kiln_pool *pool = b->engine.pool;
    KILN_TRY(one_step(b, 1, 1, &all[0], err));
    for (size_t i = 0; i < steps; i++) {
        KILN_TRY(kiln_ceiling_products(pool, o->precision, &ceiling[i], err));
        KILN_TRY(one_step(b, accum, i + 2, &all[i], err));
    }
    KILN_TRY(kiln_ceiling_products(pool, o->precision, &ceiling[steps], err));
    out->products.before = ceiling[0];
    out->products.after = ceiling[steps];
    out->products.median = median_of(ceiling, steps + 1);
    out->peak_bytes = kiln_memory_resident_peak();
    KILN_TRY(kiln_ceiling_copy(pool, &out->copy.after, err));
    KILN_TRY(kiln_ceiling_in_place(pool, &out->in_place.after, err));
    settle(&out->copy);
    settle(&out->in_place);
    return KILN_OK;
}

/* Rates and shares of a part whose time and costs are there. */
static void tell_rates(const struct kiln_bench_result *r, struct kiln_bench_part *p) {
    const double memory = r->copy.median > r->in_place.median ? r->copy.median : r->in_place.median;
    p->gflop_s = p->flops / p->ms * 1e-6;
    p->gb_s = p->bytes / p->ms * 1e-6;
    p->compute_share = p->gflop_s * 1e-3 / r->products.median;
    p->memory_share = p->gb_s / memory;
}

static void tell_parts(const struct bench *b, const struct times *all, size_t steps,
                       struct kiln_bench_result *out) {
    struct kiln_part_cost costs[KILN_PARTS], pieces[KILN_PIECES];
    _Static_assert(KILN_BENCH_PARTS == (int)KILN_PARTS, "a row for every part");
    _Static_assert(KILN_BENCH_PIECES == (int)KILN_PIECES, "a row for every piece");
    kiln_part_costs(&b->engine.plan, b->table, costs);
    kiln_piece_costs(&b->engine.plan, b->table, pieces);
    out->rest_ms = out->step_ms;
    for (size_t i = 0; i < KILN_PARTS; i++) {
        struct kiln_bench_part *p = &out->parts[i];
        *p = (struct kiln_bench_part){.name = kiln_part_name((enum kiln_part)i),
                                      .title = kiln_part_title((enum kiln_part)i),
                                      .flops = costs[i].flops,
                                      .bytes = costs[i].bytes};
        p->ms =
            median(all, steps, offsetof(struct times, part) + i * sizeof(double), &p->spread_ms);
        tell_rates(out, p);
        out->rest_ms -= p->ms;
    }
    for (size_t i = 0; i < KILN_PIECES; i++) {
        struct kiln_bench_part *p = &out->pieces[i];
        *p = (struct kiln_bench_part){.name = kiln_piece_name((enum kiln_piece_of_step)i),
                                      .flops = pieces[i].flops,
                                      .bytes = pieces[i].bytes};
        p->ms =
            median(all, steps, offsetof(struct times, piece) + i * sizeof(double), &p->spread_ms);
        if (p->ms > 0) {
            tell_rates(out, p);
        }
    }
    out->update_ratio = out->copy.median / out->parts[KILN_PART_UPDATE].gb_s;
}

static enum kiln_status run_bench(struct bench *b, const struct kiln_bench_options *o,
                                  struct kiln_bench_result *out, struct kiln_err *err) {
    struct times all[MOST_STEPS];
    size_t steps = o->steps == 0 ? 3 : o->steps > MOST_STEPS ? MOST_STEPS : o->steps;
    size_t accum = o->accum ? o->accum : 1;
    struct kiln_cpu cpu;
    KILN_TRY(kiln_cpu_describe(o->precision, &cpu, err));
    KILN_TRY(open_bench(b, o, out, err));
    KILN_TRY(measure(b, o, accum, all, steps, out, err));
    out->forward_ms = median(all, steps, offsetof(struct times, forward), NULL);
    out->backward_ms = median(all, steps, offsetof(struct times, backward), NULL);
    out->update_ms = median(all, steps, offsetof(struct times, update), NULL);
    out->step_ms = median(all, steps, offsetof(struct times, step), &out->spread_ms);
    out->tokens_per_s = (double)(o->batch * o->seq * accum) / out->step_ms * 1e3;
    out->tflops = b->engine.plan.flops.total * (double)accum / out->step_ms * 1e-9;
    out->ceiling_share = out->tflops / out->products.median;
    tell_parts(b, all, steps, out);
    out->precision = kiln_precision_resolve(o->precision);
    out->threads = kiln_pool_threads(b->engine.pool);
    out->tier = cpu.tier;
    out->provider = cpu.provider;
    kiln_cpu_model(out->cpu, sizeof out->cpu);
    return KILN_OK;
}

enum kiln_status kiln_bench(const struct kiln_bench_options *options, struct kiln_bench_result *out,
                            struct kiln_err *err) {
    struct bench b = {0};
    *out = (struct kiln_bench_result){0};
    KILN_REQUIRE(options->lora.rank == 0, err, KILN_EUNSUPPORTED,
                 "bench: parts of a step are told of whole models, not of adapters of rank %zu",
                 options->lora.rank);
    enum kiln_status status = run_bench(&b, options, out, err);
    close_bench(&b);
    return status;
}

static enum kiln_status time_steps(struct bench *b, const struct kiln_bench_options *o,
                                   double seconds, struct kiln_bench_step *out,
                                   struct kiln_err *err) {
    double all[MOST_STEPS];
    struct times times;
    const size_t accum = o->accum ? o->accum : 1;
    const size_t most = o->steps == 0 || o->steps > MOST_STEPS ? MOST_STEPS : o->steps;
    size_t n = 0;
    KILN_TRY(open_bench(b, o, NULL, err));
    KILN_TRY(one_step(b, accum, 1, &times, err));
    for (double start = kiln_now_s(); n < most && (n < 2 || kiln_now_s() - start < seconds); n++) {
        KILN_TRY(one_step(b, accum, n + 2, &times, err));
        all[n] = times.step * 1e-3;
    }
    out->median_s = median_of(all, n); /* which sorts */
    out->least_s = all[0];
    out->steps = n;
    return KILN_OK;
}

enum kiln_status kiln_bench_step(const struct kiln_bench_options *options, double seconds,
                                 struct kiln_bench_step *out, struct kiln_err *err) {
    struct bench b = {0};
    *out = (struct kiln_bench_step){0};
    enum kiln_status status = time_steps(&b, options, seconds, out, err);
    close_bench(&b);
    return status;
}
