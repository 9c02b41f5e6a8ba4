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
