/* SPDX-License-Identifier: MIT
 *
 * Whole products over the pool, packed matrices of a model, angles, and the choice of kernels.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/lab.h"
#include "kernel/packed.h"
#include "kernel/product.h"

/* ---- products over threads ------------------------------------------------------------------ */

static void open_workers(struct kiln_workers *workers, const struct kiln_kernels *k,
                         size_t threads) {
    struct kiln_pool *pool;
    struct kiln_err err;
    CHECK_OK(kiln_pool_create(threads, &pool, &err), &err);
    CHECK_OK(kiln_workers_open(workers, k, pool, 0, &err), &err);
}

static void close_workers(struct kiln_workers *workers) {
    struct kiln_pool *pool = workers->pool;
    kiln_workers_close(workers);
    kiln_pool_destroy(pool);
}

/* Any number of threads gives the bits of one; alone gives them where own code computes, few rows
 * at a time where the kernels say so. */
static void check_threads(const struct lab *lab) {
    const size_t M = 300, N = 530, K = 70;
    const size_t ms[] = {1, 3, 4, 5, 128, 129, M};
    bool own = strcmp(lab->k.provider, "own") == 0;
    size_t operand = lab->k.operand_bytes;
    void *a = lab_operands(lab, M * K, 0, 1.0f), *b = lab_operands(lab, N * K, 0, 1.0f);
    void *packed = lab_memory(kiln_packed_elements(N, K), operand, 0);
    lab->k.pack(packed, kiln_panel_elements(K), b, K, N, K);
    float *one = lab_memory(M * N, 4, 0), *other = lab_memory(M * N, 4, 0);
    void *scratch = lab_memory(KILN_GEMM_SCRATCH, 1, 0);
    struct kiln_workers workers[2];
    open_workers(&workers[0], &lab->k, 1);
    open_workers(&workers[1], &lab->k, 3);
    for (size_t i = 0; i < sizeof ms / sizeof ms[0]; i++) {
        struct kiln_gemm g = {.m = ms[i], .n = N, .k = K, .a = a, .lda = K, .b = packed, .ldc = N};
        size_t bytes = g.m * N * sizeof(float);
        g.c = one;
        kiln_product(&workers[0], &g);
        g.c = other;
        kiln_product(&workers[1], &g);
        CHECK_BYTES(other, one, bytes);
        /* Alone, a last block of few rows is summed as few rows are. */
        size_t last = (ms[i] - 1) % KILN_GEMM_M + 1;
        if (own && (lab->k.few_as_many || ms[i] <= KILN_GEMM_FEW || last > KILN_GEMM_FEW)) {
            memset(other, 0, bytes);
            kiln_product_own(&lab->k, &g, scratch);
            CHECK_BYTES(other, one, bytes);
        }
        kiln_product_few(&workers[1], &g);
        if (lab->k.few_as_many) {
            CHECK_BYTES(other, one, bytes);
        }
        CHECK_NEAR_NORM(other, one, g.m * N, 1e-5);
    }
    close_workers(&workers[0]);
    close_workers(&workers[1]);
}

TEST(threads_do_not_show_in_a_product) { lab_on_every_tier(check_threads); }

/* Who is told of blocks: once of each, with its values; of the other product nothing. */
struct told {
    const struct kiln_gemm *product;
    const float *want;
    unsigned char times[3][3];
};

static void tell(void *context, size_t i, size_t rows, size_t j, size_t columns) {
    struct told *told = context;
    const struct kiln_gemm *p = told->product;
    CHECK(i % KILN_GEMM_M == 0 && i + rows <= p->m && j % KILN_GEMM_N == 0 && j + columns <= p->n);
    CHECK(rows == KILN_GEMM_M || i + rows == p->m);
    CHECK(columns == KILN_GEMM_N || j + columns == p->n);
    for (size_t r = i; r < i + rows; r++) {
        const size_t at = r * p->ldc + j;
        CHECK_BYTES((const float *)p->c + at, told->want + at, columns * sizeof(float));
    }
    told->times[i / KILN_GEMM_M][j / KILN_GEMM_N]++;
}

static void check_told(const struct lab *lab) {
    const size_t M = 300, N = 530, K = 20;
    void *a = lab_operands(lab, M * K, 0, 1.0f), *b = lab_operands(lab, N * K, 0, 1.0f);
    void *packed = lab_memory(kiln_packed_elements(N, K), lab->k.operand_bytes, 0);
    lab->k.pack(packed, kiln_panel_elements(K), b, K, N, K);
    float *want = lab_memory(M * N, 4, 0),
          *c[] = {lab_memory(M * N, 4, 0), lab_memory(M * N, 4, 0)};
    for (size_t threads = 1; threads <= 3; threads++) {
        struct kiln_workers workers;
        struct kiln_product_entry entries[2] = {
            {.gemm = {.m = M, .n = N, .k = K, .a = a, .lda = K, .b = packed, .ldc = N}}};
        struct told told = {.product = &entries[1].gemm, .want = want};
        open_workers(&workers, &lab->k, threads);
        entries[0].gemm.c = want;
        kiln_product(&workers, &entries[0].gemm);
        entries[1] = entries[0];
        entries[0].gemm.c = c[0];
        entries[1].gemm.c = c[1];
        entries[1].written = tell;
        entries[1].context = &told;
        kiln_products(&workers, entries, 2);
        for (size_t i = 0; i < 9; i++) {
            CHECK_EQ(told.times[i / 3][i % 3], 1);
        }
        CHECK_BYTES(c[0], want, M * N * sizeof(float));
        close_workers(&workers);
    }
}

TEST(blocks_of_a_product_are_told_when_they_have_their_values) { lab_on_every_tier(check_told); }

/* ---- packed matrices ------------------------------------------------------------------------ */

/* Both copies of every matrix of a model with odd sizes, packed 64 rows at a time, last rows
 * first, are those of packing it whole. */
static void check_packed(const struct lab *lab) {
    struct kiln_dims dims = {.dim = 42, .hidden = 75, .layers = 2, .heads = 3, .kv_heads = 1};
    struct kiln_table *table;
    struct kiln_packed packed;
    struct kiln_err err;
    dims.vocab = 130;
    dims.seq = 8;
    dims.rms_eps = 1e-5f;
    dims.rope_theta = 10000.0f;
    CHECK_OK(kiln_table_create(&dims, &table, &err), &err);
    float *weights = lab_floats(table->size, 0, 1.0f);
    CHECK_OK(kiln_packed_open(&packed, table, &lab->k, true, &err), &err);
    const struct kiln_weights flat = kiln_weights_flat(table, weights);
    for (size_t i = 0; i < table->n_matrices; i++) {
        const struct kiln_matrix *m = &table->matrices[i];
        size_t operand = lab->k.operand_bytes;
        for (size_t first = (m->rows - 1) / 64 * 64;; first -= 64) {
            size_t n = m->rows - first < 64 ? m->rows - first : 64;
            kiln_packed_rows(&packed, i, first, n, &flat, true, true);
            if (first == 0) {
                break;
            }
        }
        size_t forward = kiln_packed_elements(m->rows, m->cols);
        size_t backward = kiln_packed_elements(m->cols, m->rows);
        void *want = lab_memory(forward > backward ? forward : backward, operand, 0);
        const float *w = weights + m->offset;
        lab->ref.pack_f32(want, kiln_panel_elements(m->cols), w, m->cols, m->rows, m->cols);
        CHECK_BYTES(packed.forward[i], want, forward * operand);
        lab->ref.pack_t_f32(want, kiln_panel_elements(m->rows), w, m->cols, m->rows, m->cols);
        CHECK_BYTES(packed.backward[i], want, backward * operand);
    }
    size_t bytes = 0;
    for (size_t i = 0; i < table->n_matrices; i++) {
        size_t forward, backward;
        kiln_packed_sizes(&table->matrices[i], lab->k.operand_bytes, &forward, &backward);
        bytes += forward + backward;
    }
    CHECK_EQ(packed.arena.size, bytes);
    kiln_packed_close(&packed);
    kiln_table_destroy(table);
}

TEST(packing_rows_in_any_order_packs_the_matrix) { lab_on_every_tier(check_packed); }

/* ---- the choice ----------------------------------------------------------------------------- */

TEST(an_unknown_tier_or_provider_is_refused) {
    struct kiln_kernels k = {0};
    struct kiln_err err;
    setenv("KILN_CPU", "avx1024", 1);
    CHECK_FAILS(kiln_kernels_choose(KILN_PRECISION_FP32, &k, &err), KILN_EUSAGE, &err);
    CHECK_CONTAINS(err.message, "avx1024");
    CHECK_CONTAINS(err.message, "ref");
    setenv("KILN_CPU", "ref", 1);
    setenv("KILN_GEMM", "blas", 1);
    CHECK_FAILS(kiln_kernels_choose(KILN_PRECISION_FP32, &k, &err), KILN_EUSAGE, &err);
    CHECK_CONTAINS(err.message, "own or onednn");
    setenv("KILN_GEMM", "onednn", 1);
    CHECK_OK(kiln_kernels_choose(KILN_PRECISION_FP32, &k, &err), &err);
    CHECK_STRING(k.provider, "own"); /* oneDNN is asked for bf16 only */
}

/* Without KILN_CPU, the highest tier that the processor has; KILN_BEST_TIER says which that is,
 * where it is known. Tiers above are refused. */
TEST(the_best_tier_of_the_processor_is_chosen) {
    const char *known = getenv("KILN_BEST_TIER"), *best = NULL;
    struct kiln_kernels k = {0};
    struct kiln_err err;
    size_t n;
    const struct kiln_tier *tiers = kiln_kernels_tiers(&n);
    for (size_t i = 0; i < n; i++) {
        if (!tiers[i].present || tiers[i].present()) {
            best = tiers[i].name;
            continue;
        }
        setenv("KILN_CPU", tiers[i].name, 1);
        CHECK_FAILS(kiln_kernels_choose(KILN_PRECISION_FP32, &k, &err), KILN_EUNSUPPORTED, &err);
        CHECK_CONTAINS(err.message, best);
    }
    unsetenv("KILN_CPU");
    CHECK_OK(kiln_kernels_choose(KILN_PRECISION_FP32, &k, &err), &err);
    CHECK_STRING(k.tier, best);
    if (known) {
        CHECK_STRING(best, known);
        CHECK_EQ(kiln_precision_resolve(KILN_PRECISION_AUTO) == KILN_PRECISION_BF16,
                 strstr(known, "bf16") != NULL);
    }
}
