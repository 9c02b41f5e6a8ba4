/* SPDX-License-Identifier: MIT
 *
 * bench_kernels.c: how fast each kernel of tests/kernel/kernels.inc is, on one thread, per tier.
 *
 *   build/release/bench/bench_kernels [part of a kernel's name]
 *
 * Shapes are those of stories110m. The time is the best of several runs of at least 20 ms, so that
 * a busy machine shows little. Products are also timed with one row, as generating runs them, over
 * matrices that no cache holds.
 *
 * Beside each rate is its share of what one thread reaches here: FLOP/s of the fastest block of the
 * tier's own products, bytes of copying memory. Kernels whose rows stay in a cache pass the latter
 * many times; those over LARGE arrays (add, sum_squares, adamw, gemm_own) are the ones it bounds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/machine.h"
#include "base/mem.h"
#include "kernel/ceiling.h"
#include "kernel/kernel_list.h"

enum {
    D = 768,
    F = 2048,
    K = 64,
    T = 256,
    V = 32000,
    ROWS = 128, /* of a block */
    LARGE = 64 << 20,
};

/* One measurement: run it once; `work` is what a run moves (bytes) or computes (FLOP). */
struct job {
    struct kiln_kernels k;
    char *a, *b, *c, *d; /* LARGE bytes each, small random numbers as fp32 or operands */
    void *scratch;
    uint32_t tokens[T]; /* rows [.., D] of a block, all over it */
    size_t sink;        /* keeps a sum alive */
};
struct measured {
    void (*run)(struct job *job);
    double work;
    const char *unit; /* "GB/s" or "GFLOP/s" */
};

static size_t operand(const struct job *job) { return job->k.operand_bytes; }

/* ---- products ------------------------------------------------------------------------------- */

static struct kiln_gemm block(struct job *job, size_t m) {
    return (struct kiln_gemm){.m = m,
                              .n = KILN_GEMM_N,
                              .k = D,
                              .a = job->a,
                              .lda = D,
                              .b = job->b,
                              .c = job->c,
                              .ldc = KILN_GEMM_N,
                              .scratch = job->scratch};
}
static void run_gemm(struct job *job) {
    struct kiln_gemm g = block(job, ROWS);
    job->k.gemm(&g);
}
static struct measured bench_gemm(struct job *job) {
    (void)job;
    return (struct measured){run_gemm, 2.0 * ROWS * KILN_GEMM_N * D, "GFLOP/s"};
}
/* One row by all of 64 MB: the speed of generating. */
static void run_gemm_own(struct job *job) {
    struct kiln_gemm g = block(job, 1);
    size_t bytes = kiln_packed_elements(KILN_GEMM_N, D) * operand(job);
    for (size_t at = 0; at + bytes <= LARGE; at += bytes) {
        g.b = job->b + at;
        job->k.gemm_own(&g);
    }
}
static struct measured bench_gemm_own(struct job *job) {
    size_t bytes = kiln_packed_elements(KILN_GEMM_N, D) * operand(job);
    return (struct measured){run_gemm_own, (double)(LARGE - LARGE % bytes), "GB/s"};
}

/* ---- layouts -------------------------------------------------------------------------------- */

#define COPIED(rows, cols, in, out) ((double)(rows) * (cols) * (double)((in) + (out)))
#define PACK(name, call, in)                                                          \
    static void run_##name(struct job *job) { call; }                                 \
    static struct measured bench_##name(struct job *job) {                            \
        return (struct measured){run_##name, COPIED(D, F, in, operand(job)), "GB/s"}; \
    }
PACK(pack_f32, job->k.pack_f32(job->c, kiln_panel_elements(D), (float *)job->a, D, F, D), 4)
PACK(pack, job->k.pack(job->c, kiln_panel_elements(D), job->a, D, F, D), operand(job))
PACK(pack_t_f32, job->k.pack_t_f32(job->c, kiln_panel_elements(F), (float *)job->a, D, F, D), 4)
PACK(pack_t, job->k.pack_t(job->c, kiln_panel_elements(F), job->a, D, F, D), operand(job))
static void run_pack_both(struct job *job) {
    for (size_t i = 0; i < F; i += KILN_PANEL) {
        job->k.pack_both(job->c + i * kiln_panel_elements(D) / KILN_PANEL * operand(job),
                         job->d + i * KILN_PANEL * operand(job), kiln_panel_elements(F),
                         (float *)job->a + i * D, D, KILN_PANEL, D, true);
    }
}
static struct measured bench_pack_both(struct job *job) {
    return (struct measured){run_pack_both, COPIED(D, F, 4, 2 * operand(job)), "GB/s"};
}
PACK(transpose, job->k.transpose(job->c, F, job->a, D, F, D), operand(job))
PACK(round, job->k.round(job->c, (float *)job->a, (size_t)D *F), 4)
PACK(widen, job->k.widen((float *)job->c, job->a, (size_t)D *F), 4)

/* ---- rows ----------------------------------------------------------------------------------- */

static void run_rmsnorm(struct job *job) {
    job->k.rmsnorm(job->c, (float *)job->d, (float *)job->a, (float *)job->b, 1e-5f, ROWS, D);
}
static struct measured bench_rmsnorm(struct job *job) {
    return (struct measured){run_rmsnorm, COPIED(ROWS, D, 4, operand(job)), "GB/s"};
}
static void run_rmsnorm_bwd(struct job *job) {
    float *rows = (float *)job->c;
    memset(job->d, 0, (size_t)D * sizeof(float));
    job->k.rmsnorm_bwd(rows, (float *)job->d, (float *)job->a, (float *)job->b, (float *)job->b,
                       (float *)job->b, ROWS, D);
}
static struct measured bench_rmsnorm_bwd(struct job *job) {
    (void)job;
    return (struct measured){run_rmsnorm_bwd, COPIED(ROWS, D, 12, 4), "GB/s"};
}
static void run_rope(struct job *job) {
    job->k.rope(job->a, (size_t)3 * D, ROWS, (size_t)2 * D / K, K, (float *)job->b, 0, T, false);
    job->k.rope(job->a, (size_t)3 * D, ROWS, (size_t)2 * D / K, K, (float *)job->b, 0, T, true);
}
static struct measured bench_rope(struct job *job) {
    return (struct measured){run_rope, 2 * COPIED(ROWS, 2 * D, operand(job), operand(job)), "GB/s"};
}
static void run_head_norm(struct job *job) {
    job->k.head_norm(job->c, job->a, (size_t)3 * D, ROWS, (size_t)2 * D / K, K, (float *)job->b,
                     1e-6f);
}
static struct measured bench_head_norm(struct job *job) {
    return (struct measured){run_head_norm, COPIED(ROWS, 2 * D, operand(job), operand(job)),
                             "GB/s"};
}
static void run_head_norm_bwd(struct job *job) {
    memset(job->d, 0, K * sizeof(float));
    job->k.head_norm_bwd(job->c, (float *)job->d, job->a, (size_t)3 * D, ROWS, (size_t)2 * D / K, K,
                         (float *)job->b, 1e-6f);
}
static struct measured bench_head_norm_bwd(struct job *job) {
    return (struct measured){run_head_norm_bwd, COPIED(ROWS, 2 * D, 2 * operand(job), operand(job)),
                             "GB/s"};
}
static void run_sum_rows(struct job *job) {
    memset(job->d, 0, (size_t)3 * D * sizeof(float));
    job->k.sum_rows((float *)job->d, job->a, (size_t)3 * D, ROWS, (size_t)3 * D);
}
static struct measured bench_sum_rows(struct job *job) {
    return (struct measured){run_sum_rows, COPIED(ROWS, 3 * D, operand(job), 0), "GB/s"};
}
static void run_swiglu(struct job *job) { job->k.swiglu(job->c, job->a, ROWS, F); }
static struct measured bench_swiglu(struct job *job) {
    return (struct measured){run_swiglu, COPIED(ROWS, F, 2 * operand(job), operand(job)), "GB/s"};
}
static void run_swiglu_bwd(struct job *job) {
    job->k.swiglu_bwd(job->c, job->d, job->b, job->a, ROWS, F);
}
static struct measured bench_swiglu_bwd(struct job *job) {
    size_t o = operand(job);
    return (struct measured){run_swiglu_bwd, COPIED(ROWS, F, 3 * o, 3 * o), "GB/s"};
}
static void run_softmax_causal(struct job *job) {
    memcpy(job->d, job->a, (size_t)64 * T * sizeof(float)); /* scores are overwritten */
    job->k.softmax_causal(job->c, T, (float *)job->b, (float *)job->d, T, 64, T - 64, T, 0.125f);
}
static struct measured bench_softmax_causal(struct job *job) {
    return (struct measured){run_softmax_causal, COPIED(64, T, 4, operand(job)), "GB/s"};
}
static void run_softmax_causal_bwd(struct job *job) {
    job->k.softmax_causal_bwd(job->c, job->d, T, (float *)job->a, (float *)job->b, T,
                              (float *)job->b, (float *)job->b, 64, T - 64, T, 0.125f);
}
static struct measured bench_softmax_causal_bwd(struct job *job) {
    size_t o = operand(job);
    return (struct measured){run_softmax_causal_bwd, COPIED(64, T, 8, 2 * o), "GB/s"};
}
static void run_embed(struct job *job) {
    job->k.embed((float *)job->c, (float *)job->a, job->tokens, T, D);
}
static struct measured bench_embed(struct job *job) {
    (void)job;
    return (struct measured){run_embed, COPIED(T, D, 4, 4), "GB/s"};
}
static void run_embed_bwd(struct job *job) {
    job->k.embed_bwd((float *)job->d, (float *)job->a, job->tokens, T, D, D);
}
static struct measured bench_embed_bwd(struct job *job) {
    (void)job;
    return (struct measured){run_embed_bwd, COPIED(T, D, 8, 4), "GB/s"};
}
static void run_cross_entropy(struct job *job) {
    memcpy(job->d, job->a, V * sizeof(float));
    (void)job->k.cross_entropy(job->c, (float *)job->d, V, 7, 1.0f);
}
static struct measured bench_cross_entropy(struct job *job) {
    return (struct measured){run_cross_entropy, COPIED(1, V, 4, operand(job)), "GB/s"};
}

/* ---- arrays --------------------------------------------------------------------------------- */

static void run_dot(struct job *job) { (void)job->k.dot(job->a, job->b, F); }
static struct measured bench_dot(struct job *job) {
    return (struct measured){run_dot, COPIED(1, F, operand(job), operand(job)), "GB/s"};
}
static void run_add(struct job *job) { job->k.add((float *)job->d, (float *)job->a, LARGE / 4); }
static struct measured bench_add(struct job *job) {
    (void)job;
    return (struct measured){run_add, 3.0 * LARGE, "GB/s"};
}
static void run_sum_squares(struct job *job) {
    double sum[D / KILN_SUM_BLOCK];
    for (size_t i = 0; i + (size_t)KILN_SUM_BLOCK * D <= LARGE / 4; i += KILN_SUM_BLOCK * D) {
        job->k.sum_squares(sum, (float *)job->a + i, D, KILN_SUM_BLOCK, D);
        job->sink += sum[0] > 0.0;
    }
}
static struct measured bench_sum_squares(struct job *job) {
    (void)job;
    return (struct measured){run_sum_squares, LARGE, "GB/s"};
}
static void run_adamw(struct job *job) {
    const struct kiln_adamw constants = {.lr = 1e-9f,
                                         .beta1 = 0.9f,
                                         .beta2 = 0.95f,
                                         .eps = 1e-8f,
                                         .grad_scale = 1.0f,
                                         .correction1 = 1.0f,
                                         .correction2 = 1.0f};
    job->k.adamw((float *)job->a, (float *)job->b, (float *)job->d, (float *)job->c, LARGE / 4,
                 &constants);
}
static struct measured bench_adamw(struct job *job) {
    memset(job->d, 0, LARGE); /* second moments are not negative */
    return (struct measured){run_adamw, 7.0 * LARGE, "GB/s"};
}

/* ---- fp16 ----------------------------------------------------------------------------------- */

#define HALF(name, call, bytes)                                               \
    static void run_##name(struct job *job) { call; }                         \
    static struct measured bench_##name(struct job *job) {                    \
        (void)job;                                                            \
        return (struct measured){run_##name, COPIED(D, F, 0, bytes), "GB/s"}; \
    }
HALF(half_of, job->k.half_of((uint16_t *)job->c, (float *)job->a, (size_t)D *F), 6)
HALF(half_to, job->k.half_to((float *)job->c, (uint16_t *)job->a, (size_t)D *F), 6)
HALF(half_round, job->k.half_round((float *)job->d, (size_t)D *F), 8)

/* ---- the run -------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    struct measured (*prepare)(struct job *);
} benches[KERNELS] = {
#define KERNEL(name) {#name, bench_##name},
#include "kernel/kernels.inc"
#undef KERNEL
};

static void fill(struct job *job) {
    char *blocks[] = {job->a, job->b, job->c, job->d};
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < LARGE / operand(job); j++) {
            float x = (float)(j * 2654435761u % 2048) / 1024.0f - 1.0f;
            if (operand(job) == 2) {
                ((uint16_t *)blocks[i])[j] = kiln_f32_to_bf16(x);
            } else {
                ((float *)blocks[i])[j] = x;
            }
        }
    }
}

/* Best of five spells, in units of work a second. */
static double rate(struct job *job, const struct measured *m) {
    double best = 0.0;
    m->run(job);
    for (int spell = 0; spell < 5; spell++) {
        size_t runs = 0;
        double start = kiln_now_s(), now;
        do {
            m->run(job);
            runs++;
            now = kiln_now_s();
        } while (now - start < 0.02);
        double got = m->work * (double)runs / (now - start);
        best = got > best ? got : best;
    }
    return best;
}

/* What one thread reaches at most, 1e9 a second. */
struct ceilings {
    double products, copying;
};

/* A row of the table. */
static void tell(struct job *job, const char *name, struct measured (*prepare)(struct job *),
                 const struct ceilings *most) {
    fill(job);
    struct measured m = prepare(job);
    const double got = rate(job, &m) / 1e9;
    const bool computes = strcmp(m.unit, "GFLOP/s") == 0;
    printf("%-10s %-7s %-5s %-19s %9.1f %-7s %7.2f of %s\n", job->k.tier, job->k.provider,
           kiln_precision_name(job->k.precision), name, got, m.unit,
           got / (computes ? most->products : most->copying), computes ? "products" : "copying");
    fflush(stdout);
}

static void run_all(struct job *job, const char *part, const struct ceilings *most) {
    for (size_t i = 0; i < KERNELS; i++) {
        if (strstr(benches[i].name, part)) {
            tell(job, benches[i].name, benches[i].prepare, most);
        }
    }
}

static void die(const struct kiln_err *err) {
    fprintf(stderr, "bench_kernels: %s\n", err->message);
    exit(1);
}

/* The tier that the environment names, if the machine has it. */
static void run_tier(struct job *job, struct kiln_pool *pool, enum kiln_precision precision,
                     bool highest, const char *part, struct ceilings *most) {
    struct kiln_err err;
    double tflops;
    if (kiln_kernels_choose(precision, &job->k, NULL) != KILN_OK) {
        return;
    }
    if (kiln_ceiling_products(pool, precision, &tflops, &err) != KILN_OK) {
        die(&err);
    }
    most->products = tflops * 1e3;
    printf("%-10s %-7s %-5s %-19s %9.1f GFLOP/s\n", job->k.tier, job->k.provider,
           kiln_precision_name(precision), "(products at most)", most->products);
    run_all(job, part, most);
    if (highest && precision == KILN_PRECISION_BF16 && kiln_kernels_onednn(&job->k) &&
        strstr("gemm", part)) {
        tell(job, "gemm", bench_gemm, most);
    }
}

int main(int argc, char **argv) {
    const char *part = argc > 1 ? argv[1] : "";
    size_t n;
    const struct kiln_tier *tiers = kiln_kernels_tiers(&n);
    struct job job = {.scratch = kiln_alloc(KILN_GEMM_SCRATCH, 1)};
    struct ceilings most;
    struct kiln_pool *pool;
    struct kiln_err err;
    double in_place;
    char **blocks[] = {&job.a, &job.b, &job.c, &job.d};
    if (kiln_pool_create(1, &pool, &err) != KILN_OK ||
        kiln_ceiling_copy(pool, &most.copying, &err) != KILN_OK ||
        kiln_ceiling_in_place(pool, &in_place, &err) != KILN_OK) {
        die(&err);
    }
    for (size_t i = 0; i < T; i++) {
        job.tokens[i] = (uint32_t)(i * 2654435761u % (LARGE / 4 / D));
    }
    printf("one thread; copying moves %.1f GB/s, read plus write; changing memory in place %.1f\n",
           most.copying, in_place);
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        *blocks[i] = kiln_alloc(LARGE, 1);
        if (!*blocks[i] || !job.scratch) {
            fputs("bench_kernels: no memory\n", stderr);
            return 1;
        }
    }
    setenv("KILN_GEMM", "own", 1);
    for (size_t t = 0; t < n; t++) {
        setenv("KILN_CPU", tiers[t].name, 1);
        const bool highest = t + 1 == n || !tiers[t + 1].present || !tiers[t + 1].present();
        run_tier(&job, pool, KILN_PRECISION_FP32, highest, part, &most);
        run_tier(&job, pool, KILN_PRECISION_BF16, highest, part, &most);
    }
    kiln_pool_destroy(pool);
    return 0;
}
