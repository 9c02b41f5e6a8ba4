/* SPDX-License-Identifier: MIT */
#include "kernel/ceiling.h"

#include <string.h>

#include "base/machine.h"
#include "base/mem.h"
#include "base/random.h"
#include "kernel/product.h"

/* Each thread multiplies its own block, whose operands stay in its caches. */
struct ceiling_job {
    struct kiln_workers workers;
    struct kiln_kernels kernels;
    char *memory;
    size_t block, repeats;
};

enum { CEILING_K = 512 };

static void multiply_block(void *context, size_t task, size_t thread) {
    const struct ceiling_job *job = context;
    size_t operand = job->kernels.operand_bytes;
    char *a = job->memory + task * job->block;
    char *b = a + (size_t)KILN_GEMM_M * CEILING_K * operand;
    char *c = b + kiln_packed_elements(KILN_GEMM_N, CEILING_K) * operand;
    struct kiln_gemm g = {.m = KILN_GEMM_M,
                          .n = KILN_GEMM_N,
                          .k = CEILING_K,
                          .a = a,
                          .lda = CEILING_K,
                          .b = b,
                          .c = c,
                          .ldc = KILN_GEMM_N,
                          .scratch = job->workers.scratch[thread]};
    for (size_t i = 0; i < job->repeats; i++) {
        job->kernels.gemm(&g);
    }
}

enum kiln_status kiln_ceiling_products(struct kiln_pool *pool, enum kiln_precision precision,
                                       double *tflops, struct kiln_err *err) {
    struct ceiling_job job = {.repeats = 8};
    size_t threads = kiln_pool_threads(pool);
    KILN_TRY(kiln_kernels_choose(precision, &job.kernels, err));
    KILN_TRY(kiln_workers_open(&job.workers, &job.kernels, pool, 0, err));
    size_t operand = job.kernels.operand_bytes;
    job.block = (size_t)KILN_GEMM_M * CEILING_K * operand +
                kiln_packed_elements(KILN_GEMM_N, CEILING_K) * operand +
                (size_t)KILN_GEMM_M * KILN_GEMM_N * sizeof(float);
    struct kiln_arena arena;
    enum kiln_status status = kiln_arena_open(&arena, threads * job.block, err);
    if (status == KILN_OK) {
        job.memory = (char *)arena.base;
        for (size_t i = 0; i + 4 <= threads * job.block; i += operand) {
            float x = (float)kiln_random_normal(1, KILN_STREAM_TEST, i);
            uint16_t half = kiln_f32_to_bf16(x);
            memcpy(job.memory + i, operand == 2 ? (void *)&half : (void *)&x, operand);
        }
        double best = 0.0;
        for (int i = 0; i < 6; i++) {
            double start = kiln_now_s();
            kiln_pool_run(pool, threads, multiply_block, &job);
            double flops =
                2.0 * KILN_GEMM_M * KILN_GEMM_N * CEILING_K * (double)(job.repeats * threads);
            double rate = flops / (kiln_now_s() - start);
            best = rate > best ? rate : best;
        }
        *tflops = best * 1e-12;
        kiln_arena_close(&arena);
    }
    kiln_workers_close(&job.workers);
    return status;
}

struct copy_job {
    char *to;
    const char *from;
    size_t piece;
};

static void copy_piece(void *context, size_t task, size_t thread) {
    const struct copy_job *job = context;
    (void)thread;
    memcpy(job->to + task * job->piece, job->from + task * job->piece, job->piece);
}

enum kiln_status kiln_ceiling_copy(struct kiln_pool *pool, double *gb_s, struct kiln_err *err) {
    struct kiln_arena arena;
    size_t piece = (size_t)4 << 20, pieces = 64;
    KILN_TRY(kiln_arena_open(&arena, 2 * piece * pieces, err));
    struct copy_job job = {(char *)arena.base, (char *)arena.base + piece * pieces, piece};
    memset(arena.base, 1, 2 * piece * pieces);
    double best = 0.0;
    for (int i = 0; i < 5; i++) {
        double start = kiln_now_s();
        kiln_pool_run(pool, pieces, copy_piece, &job);
        double rate = 2.0 * (double)(piece * pieces) / (kiln_now_s() - start);
        best = rate > best ? rate : best;
    }
    *gb_s = best * 1e-9;
    kiln_arena_close(&arena);
    return KILN_OK;
}

/* A matrix [PACK_ROWS, PACK_COLS], 64 rows a task. */
enum { PACK_ROWS = 8192, PACK_COLS = 2048, PACK_PIECE = 64 };
struct pack_job {
    const struct kiln_kernels *kernels;
    const float *from;
    char *forward, *backward;
};

static void pack_piece(void *context, size_t task, size_t thread) {
    const struct pack_job *job = context;
    const struct kiln_kernels *kernels = job->kernels;
    const size_t first = task * PACK_PIECE, operand = kernels->operand_bytes;
    const float *from = job->from + first * PACK_COLS;
    (void)thread;
    kernels->pack_f32(job->forward + kiln_packed_elements(first, PACK_COLS) * operand,
                      kiln_panel_elements(PACK_COLS), from, PACK_COLS, PACK_PIECE, PACK_COLS);
    kernels->pack_t_f32(job->backward + first * KILN_PANEL * operand,
                        kiln_panel_elements(PACK_ROWS), from, PACK_COLS, PACK_PIECE, PACK_COLS);
}

enum kiln_status kiln_ceiling_pack(struct kiln_pool *pool, enum kiln_precision precision,
                                   double *gb_s, struct kiln_err *err) {
    struct kiln_kernels kernels;
    struct kiln_arena source, target;
    KILN_TRY(kiln_kernels_choose(precision, &kernels, err));
    const size_t one = kiln_packed_elements(PACK_ROWS, PACK_COLS) * kernels.operand_bytes;
    const size_t other = kiln_packed_elements(PACK_COLS, PACK_ROWS) * kernels.operand_bytes;
    const size_t elements = (size_t)PACK_ROWS * PACK_COLS;
    KILN_TRY(kiln_arena_open(&source, elements * sizeof(float), err));
    float *from = (float *)(void *)source.base;
    for (size_t i = 0; i < elements; i++) {
        from[i] = (float)(i % 251);
    }
    enum kiln_status status = KILN_OK;
    *gb_s = 0;
    for (int i = 0; i < 3 && status == KILN_OK; i++) {
        status = kiln_arena_open(&target, one + other, err);
        if (status == KILN_OK) {
            struct pack_job job = {&kernels, from, (char *)target.base, (char *)target.base + one};
            const double start = kiln_now_s();
            kiln_pool_run(pool, PACK_ROWS / PACK_PIECE, pack_piece, &job);
            const double rate = (double)(one + other) / (kiln_now_s() - start) * 1e-9;
            *gb_s = rate > *gb_s ? rate : *gb_s;
            kiln_arena_close(&target);
        }
    }
    kiln_arena_close(&source);
    return status;
}
