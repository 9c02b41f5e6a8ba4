/* SPDX-License-Identifier: MIT */
#include "kernel/ceiling.h"

#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "base/machine.h"
#include "base/mem.h"
#include "base/random.h"
#include "kernel/product.h"

/* Each thread multiplies its own block, whose operands stay in its caches. */
struct ceiling_job {
    struct kiln_workers workers;
    struct kiln_kernels kernels;
    char *memory;
    size_t block; /* bytes of a thread */
    size_t m, n, k, repeats;
};

/* What is tried: short sums keep b in the first cache, long ones write c more rarely. Which of them
 * is fastest depends on tier and provider. */
enum { CEILING_K = 1024 };
static const struct {
    size_t m, n, k;
} ceiling_blocks[] = {{KILN_GEMM_M, KILN_GEMM_N, 512},
                      {KILN_GEMM_M, KILN_GEMM_N, CEILING_K},
                      {KILN_GEMM_M, KILN_PANEL, 256},
                      {KILN_GEMM_M, KILN_PANEL, CEILING_K}};
/* Seconds of a spell, long beside waking threads; spells of a block. */
#define CEILING_SPELL  2e-3
#define CEILING_SPELLS 4

static void multiply_block(void *context, size_t task, size_t thread) {
    const struct ceiling_job *job = context;
    size_t operand = job->kernels.operand_bytes;
    char *a = job->memory + task * job->block;
    char *b = a + (size_t)KILN_GEMM_M * CEILING_K * operand;
    char *c = b + kiln_packed_elements(KILN_GEMM_N, CEILING_K) * operand;
    struct kiln_gemm g = {.m = job->m,
                          .n = job->n,
                          .k = job->k,
                          .a = a,
                          .lda = job->k,
                          .b = b,
                          .c = c,
                          .ldc = job->n,
                          .scratch = job->workers.scratch[thread]};
    for (size_t i = 0; i < job->repeats; i++) {
        job->kernels.gemm(&g);
    }
}

/* Best of a few spells. The first is of one block: it warms up, and tells how many make a spell. */
static double block_rate(struct ceiling_job *job, size_t threads) {
    const double flops = 2.0 * (double)(job->m * job->n * job->k * threads);
    double best = 0.0;
    job->repeats = 1;
    for (int i = 0; i <= CEILING_SPELLS; i++) {
        const double start = kiln_now_s();
        kiln_pool_run(job->workers.pool, threads, multiply_block, job);
        const double took = kiln_now_s() - start;
        const double rate = flops * (double)job->repeats / took;
        best = rate > best ? rate : best;
        if (i == 0) {
            job->repeats = took < CEILING_SPELL ? (size_t)(CEILING_SPELL / took) : 1;
        }
    }
    return best;
}

enum kiln_status kiln_ceiling_products(struct kiln_pool *pool, enum kiln_precision precision,
                                       double *tflops, struct kiln_err *err) {
    struct ceiling_job job = {.repeats = 1};
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
        *tflops = 0.0;
        for (size_t i = 0; i < sizeof ceiling_blocks / sizeof ceiling_blocks[0]; i++) {
            job.m = ceiling_blocks[i].m;
            job.n = ceiling_blocks[i].n;
            job.k = ceiling_blocks[i].k;
            const double rate = block_rate(&job, threads) * 1e-12;
            *tflops = rate > *tflops ? rate : *tflops;
        }
        kiln_arena_close(&arena);
    }
    kiln_workers_close(&job.workers);
    return status;
}

struct memory_job {
    char *to;
    const char *from;
    size_t piece;
};

static void copy_piece(void *context, size_t task, size_t thread) {
    const struct memory_job *job = context;
    (void)thread;
    memcpy(job->to + task * job->piece, job->from + task * job->piece, job->piece);
}

/* Past the caches, which spares reading what is overwritten. memcpy does so only for what is larger
 * than its own limit. */
#if defined(__SSE2__)
static void stream_piece(void *context, size_t task, size_t thread) {
    const struct memory_job *job = context;
    char *to = job->to + task * job->piece;
    const char *from = job->from + task * job->piece;
    (void)thread;
    for (size_t i = 0; i < job->piece; i += sizeof(__m128i)) {
        _mm_stream_si128((__m128i *)(void *)(to + i),
                         _mm_load_si128((const __m128i *)(const void *)(from + i)));
    }
    _mm_sfence();
}
#else
#define stream_piece copy_piece
#endif

static void change_piece(void *context, size_t task, size_t thread) {
    const struct memory_job *job = context;
    uint64_t *words = (uint64_t *)(void *)(job->to + task * job->piece);
    (void)thread;
    for (size_t i = 0; i < job->piece / sizeof *words; i++) {
        words[i] += task;
    }
}

/* Best rate of a few runs over `bytes` that are read and written, in pieces of several sizes. */
static double memory_rate(struct kiln_pool *pool, kiln_task_fn fn, char *to, const char *from,
                          size_t bytes) {
    static const size_t pieces[] = {16, 64};
    double best = 0.0;
    for (size_t p = 0; p < sizeof pieces / sizeof pieces[0]; p++) {
        struct memory_job job = {to, from, bytes / pieces[p]};
        for (int i = 0; i < 3; i++) {
            const double start = kiln_now_s();
            kiln_pool_run(pool, pieces[p], fn, &job);
            const double rate = 2e-9 * (double)bytes / (kiln_now_s() - start);
            best = rate > best ? rate : best;
        }
    }
    return best;
}

enum kiln_status kiln_ceiling_copy(struct kiln_pool *pool, double *gb_s, struct kiln_err *err) {
    const size_t half = KILN_CEILING_COPY_BYTES / 2;
    struct kiln_arena arena;
    KILN_TRY(kiln_arena_open(&arena, 2 * half, err));
    char *to = (char *)arena.base, *from = to + half;
    memset(to, 1, 2 * half);
    const double cached = memory_rate(pool, copy_piece, to, from, half);
    const double past = memory_rate(pool, stream_piece, to, from, half);
    *gb_s = cached > past ? cached : past;
    kiln_arena_close(&arena);
    return KILN_OK;
}

enum kiln_status kiln_ceiling_in_place(struct kiln_pool *pool, double *gb_s, struct kiln_err *err) {
    const size_t bytes = KILN_CEILING_COPY_BYTES / 2;
    struct kiln_arena arena;
    KILN_TRY(kiln_arena_open(&arena, bytes, err));
    memset(arena.base, 1, bytes);
    *gb_s = memory_rate(pool, change_piece, (char *)arena.base, NULL, bytes);
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
