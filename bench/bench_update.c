/* SPDX-License-Identifier: MIT
 *
 * bench_update.c: how long an update takes by itself, beside a copy of as many bytes.
 *
 *   build/release/bench/bench_update [model [threads [state file]]]
 *
 * With both packed bf16 copies an update reads g, W, m, v and writes W, m, v and the copies: 32
 * bytes a parameter, fewer without what a line leaves out. The last column is the time over that of
 * a copy that moves the same bytes. Best of several updates, so that a busy machine shows little.
 * The state file is made and removed again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/mem.h"
#include "kernel/ceiling.h"
#include "train/optimizer.h"

enum { UPDATES = 25 };

struct bench {
    struct kiln_table *table;
    struct kiln_pool *pool;
    struct kiln_arena arena;
    struct kiln_device *device;
    double copy; /* bytes a second */
};

static void touch(void *context, size_t task, size_t thread) {
    const struct kiln_optimizer_parts *parts = context;
    const size_t n = parts->table->size, first = task << 16;
    (void)thread;
    for (size_t i = first; i < n && i < first + (1 << 16); i++) {
        const float x = (float)(i * 2654435761u % 2048) / 1024.0f - 1.0f;
        parts->weights[i] = x;
        parts->m[i] = x * 1e-3f;
        parts->v[i] = x * x * 1e-6f;
        parts->gradients.all[i] = x * 2e-3f;
    }
}

static enum kiln_status measure(const struct bench *b, const char *what,
                                const struct kiln_optimizer_parts *parts, double bytes,
                                struct kiln_err *err) {
    struct kiln_optimizer *optimizer;
    kiln_pool_run(b->pool, (b->table->size >> 16) + 1, touch, (void *)(uintptr_t)parts);
    KILN_TRY(kiln_optimizer_create(parts, &optimizer, err));
    kiln_optimizer_update(optimizer, 1, 1e-4, 1.0, 1.0);
    double best = 1e9, norm = 1e9;
    for (uint64_t update = 2; update < 2 + UPDATES; update++) {
        double start = kiln_now_s();
        const double size = kiln_optimizer_norm(optimizer, 1.0), computed = kiln_now_s();
        kiln_optimizer_update(optimizer, update, 1e-4, size, 1.0);
        const double took = kiln_now_s() - computed;
        best = took < best ? took : best;
        norm = computed - start < norm ? computed - start : norm;
    }
    kiln_optimizer_destroy(optimizer);
    const double n = (double)b->table->size;
    printf("%-28s %8.2f ms %6.3f ns a parameter %7.1f GB/s %6.2f x the copy; norm %.2f ms\n", what,
           best * 1e3, best * 1e9 / n, n * bytes / best * 1e-9, best * b->copy / (n * bytes),
           norm * 1e3);
    fflush(stdout);
    return KILN_OK;
}

static enum kiln_status open_device(struct bench *b, const float *weights, struct kiln_err *err) {
    const struct kiln_weights flat = kiln_weights_flat(b->table, weights);
    const struct kiln_device_options options = {
        .shape = {1, 64}, .precision = KILN_PRECISION_BF16, .training = true};
    KILN_TRY(kiln_device_open(b->table, b->pool, &flat, &options, &b->device, err));
    for (size_t kind = 0; kind < KILN_KINDS; kind++) {
        for (size_t l = 0; l < b->table->dims.layers; l++) {
            const struct kiln_kernel_kind *k = &b->device->caps.kinds[kind];
            if (k->compiles > 0 && k->weights) {
                KILN_TRY(b->device->ops->compile(b->device, 0, kind, l, &flat, err));
            }
        }
    }
    return KILN_OK;
}

static void refresh(void *context, size_t matrix, size_t first, size_t rows,
                    const struct kiln_weights *weights) {
    struct kiln_device *device = context;
    device->ops->refresh(device, matrix, first, rows, weights);
}

static enum kiln_status in_memory(struct bench *b, struct kiln_optimizer_parts parts,
                                  struct kiln_err *err) {
    const size_t bytes = b->table->size * sizeof(float);
    KILN_TRY(kiln_arena_open(&b->arena, 4 * kiln_arena_reserve(0, bytes), err));
    float **arrays[] = {&parts.weights, &parts.m, &parts.v, &parts.gradients.all};
    for (size_t i = 0; i < 4; i++) {
        *arrays[i] = kiln_arena_take(&b->arena, bytes);
    }
    KILN_TRY(measure(b, "AdamW", &parts, 28, err));
    KILN_TRY(open_device(b, parts.weights, err));
    parts.refresh = refresh;
    parts.refresh_context = b->device;
    return measure(b, "AdamW, packing", &parts, 32, err);
}

static enum kiln_status in_state(struct bench *b, const char *path,
                                 struct kiln_optimizer_parts parts, struct kiln_err *err) {
    KILN_TRY(kiln_state_create(path, b->table, KILN_PRECISION_AUTO, false, &parts.state, err));
    parts.weights = kiln_state_region(parts.state, KILN_WEIGHTS);
    parts.m = kiln_state_region(parts.state, KILN_MOMENT1);
    parts.v = kiln_state_region(parts.state, KILN_MOMENT2);
    parts.gradients.all = kiln_state_region(parts.state, KILN_GRADIENTS);
    enum kiln_status status = measure(b, "AdamW, journal", &parts, 28, err);
    parts.refresh = refresh;
    parts.refresh_context = b->device;
    if (status == KILN_OK) {
        status = measure(b, "AdamW, journal, packing", &parts, 32, err);
    }
    kiln_state_close(parts.state);
    unlink(path);
    return status;
}

static enum kiln_status run(struct bench *b, const char *model, size_t threads, const char *path,
                            struct kiln_err *err) {
    const struct kiln_preset *preset = kiln_preset_find(model);
    KILN_REQUIRE(preset, err, KILN_EUSAGE, "no preset is named %s", model);
    struct kiln_dims dims = preset->dims;
    dims.tied = false; /* the lookup's gradient is none of the update's */
    KILN_TRY(kiln_pool_create(threads, &b->pool, err));
    KILN_TRY(kiln_table_create(&dims, &b->table, err));
    KILN_TRY(kiln_ceiling_copy(b->pool, &b->copy, err));
    b->copy *= 1e9;
    printf("%s, %zu parameters, %zu threads, copy %.1f GB/s\n", model, b->table->size, threads,
           b->copy * 1e-9);
    const struct kiln_optimizer_parts parts = {.table = b->table,
                                               .pool = b->pool,
                                               .beta1 = 0.9,
                                               .beta2 = 0.95,
                                               .eps = 1e-8,
                                               .weight_decay = 0.1,
                                               .clip = 1.0};
    KILN_TRY(in_memory(b, parts, err));
    return in_state(b, path, parts, err);
}

int main(int argc, char **argv) {
    struct bench b = {0};
    struct kiln_err err = {0};
    const long threads = argc > 2 ? atol(argv[2]) : (long)kiln_cpu_count();
    const enum kiln_status status =
        run(&b, argc > 1 ? argv[1] : "stories42m", threads > 0 ? (size_t)threads : 1,
            argc > 3 ? argv[3] : "bench_update.state", &err);
    kiln_device_close(b.device);
    kiln_arena_close(&b.arena);
    kiln_table_destroy(b.table);
    kiln_pool_destroy(b.pool);
    if (status != KILN_OK) {
        fprintf(stderr, "bench_update: %s\n", err.message);
        return 1;
    }
    return 0;
}
