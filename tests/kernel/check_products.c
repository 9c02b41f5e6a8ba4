/* SPDX-License-Identifier: MIT
 *
 * Products, packing and transposing on one tier.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/lab.h"

/* ---- packing -------------------------------------------------------------------------------- */

/* Index of element (n, k) in its panel, as the format's picture says:
 * bf16 [k/32][16][64][2], fp32 [k][64]. */
static size_t packed_index(const struct lab *lab, size_t n, size_t k) {
    n %= 64;
    return lab->bf16 ? ((k / 32 * 16 + k % 32 / 2) * 64 + n) * 2 + k % 2 : k * 64 + n;
}

enum pack { PACK_F32, PACK, PACK_T_F32, PACK_T };

static void check_pack_shape(const struct lab *lab, enum pack which, size_t n, size_t k) {
    bool wide = which == PACK_F32 || which == PACK_T_F32, columns = which >= PACK_T_F32;
    size_t rows = columns ? k : n, cols = columns ? n : k, ld = cols + 3;
    size_t count = (rows - 1) * ld + cols, operand = lab->k.operand_bytes;
    size_t panels = (n + 63) / 64, used = kiln_panel_elements(k), panel = used + 64;
    void *src = wide ? lab_floats(count, 1, 1.0f) : lab_operands(lab, count, 1, 1.0f);
    /* Packed matrices start aligned; between panels there is room of others. */
    void *dst = lab_memory((panels - 1) * panel + used, operand, 0);
    switch (which) {
        case PACK_F32:
            lab->k.pack_f32(dst, panel, src, ld, n, k);
            break;
        case PACK:
            lab->k.pack(dst, panel, src, ld, n, k);
            break;
        case PACK_T_F32:
            lab->k.pack_t_f32(dst, panel, src, ld, k, n);
            break;
        default:
            lab->k.pack_t(dst, panel, src, ld, k, n);
            break;
    }
    for (size_t i = 0; i < panels * 64; i++) {
        for (size_t p = 0; p < used / 64; p++) {
            float want = 0.0f;
            if (i < n && p < k) {
                size_t at = columns ? p * ld + i : i * ld + p;
                want = wide ? ((const float *)src)[at] : (float)lab_get(lab, src, at);
            }
            if (lab->bf16) {
                want = kiln_bf16_to_f32(kiln_f32_to_bf16(want));
            }
            CHECK_EQ(packed_index(lab, i, p), kiln_packed_at(operand, i, p));
            lab_close(lab, "packed", i * 1000 + p,
                      lab_get(lab, dst, i / 64 * panel + packed_index(lab, i, p)), (double)want, 0);
        }
    }
    lab_check_gaps(dst, panels, used, panel, operand);
    lab_check_guards();
}

static void check_pack_kind(const struct lab *lab, enum pack which) {
    static const size_t ns[] = {1, 7, 16, 17, 63, 64, 65, 130},
                        ks[] = {1, 2, 3, 31, 32, 33, 64, 77};
    for (size_t i = 0; i < 8; i++) {
        for (size_t j = 0; j < 8; j++) {
            check_pack_shape(lab, which, ns[i], ks[j]);
        }
    }
}

void check_pack_f32(const struct lab *lab) { check_pack_kind(lab, PACK_F32); }
void check_pack(const struct lab *lab) { check_pack_kind(lab, PACK); }
void check_pack_t_f32(const struct lab *lab) { check_pack_kind(lab, PACK_T_F32); }
void check_pack_t(const struct lab *lab) { check_pack_kind(lab, PACK_T); }

/* The bytes of the two that it does at once; of rows `first`.. of a matrix of `all` rows. */
static void check_both(const struct lab *lab, size_t n, size_t k, bool stream) {
    const size_t all = 3 * KILN_PANEL, first = KILN_PANEL, ld = k + 1;
    const size_t operand = lab->k.operand_bytes, panel = kiln_panel_elements(all);
    const size_t wide = kiln_panel_elements(k), turned = kiln_packed_elements(k, all);
    float *src = lab_floats(n * ld, 1, 1.0f);
    for (size_t i = 0; i < n * ld; i += 5) { /* subnormal numbers, those beside them, and NaN */
        static const float odd[] = {1e-39f, -3e-40f, 0x1p-126f, -0x1.fffp-127f, NAN, INFINITY};
        src[i] = odd[i / 5 % 6];
    }
    void *forward[2], *backward[2];
    for (int j = 0; j < 2; j++) {
        forward[j] = lab_memory(wide, operand, 0);
        backward[j] = lab_memory(turned, operand, 0);
    }
    lab->k.pack_both(forward[0], (char *)backward[0] + first * KILN_PANEL * operand, panel, src, ld,
                     n, k, stream);
    lab->k.pack_f32(forward[1], wide, src, ld, n, k);
    lab->k.pack_t_f32((char *)backward[1] + first * KILN_PANEL * operand, panel, src, ld, n, k);
    CHECK_BYTES(forward[0], forward[1], wide * operand);
    CHECK_BYTES(backward[0], backward[1], turned * operand);
    lab_check_guards();
}

void check_pack_both(const struct lab *lab) {
    static const size_t ns[] = {1, 17, 32, 63, 64}, ks[] = {1, 31, 32, 64, 77, 96, 128, 192};
    for (size_t i = 0; i < 5; i++) {
        for (size_t j = 0; j < 8; j++) {
            check_both(lab, ns[i], ks[j], false);
            check_both(lab, ns[i], ks[j], true);
        }
    }
}

void check_transpose(const struct lab *lab) {
    static const size_t sizes[] = {0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 65};
    size_t operand = lab->k.operand_bytes;
    for (size_t i = 1; i < 12; i++) {
        for (size_t j = 0; j < 12; j++) {
            size_t rows = sizes[i], cols = sizes[j], lds = cols + 1, ldd = rows + 2;
            void *src = lab_operands(lab, rows * lds, 1, 1.0f);
            void *dst = lab_memory(cols ? (cols - 1) * ldd + rows : 0, operand, 3);
            lab->k.transpose(dst, ldd, src, lds, rows, cols);
            for (size_t r = 0; r < rows * cols; r++) {
                CHECK_BYTES((char *)dst + (r % cols * ldd + r / cols) * operand,
                            (char *)src + (r / cols * lds + r % cols) * operand, operand);
            }
            lab_check_gaps(dst, cols, rows, ldd, operand);
            lab_check_guards();
        }
    }
}

/* ---- products ------------------------------------------------------------------------------- */

/* rows x cols operands in double, without gaps. */
static double *widened(const struct lab *lab, const void *operands, size_t ld, size_t rows,
                       size_t cols) {
    double *wide = kiln_alloc(rows * cols, sizeof *wide);
    for (size_t i = 0; i < rows * cols; i++) {
        wide[i] = lab_get(lab, operands, i / cols * ld + i % cols);
    }
    return wide;
}

/* Any order of summing k products and one addend is off by at most (k+1) roundings of the sum of
 * magnitudes (Higham 2002, section 3.1); bf16 products are exact. Then c_operand rounds.
 *
 * BFDOT rounds to odd, which is off by less than two of those roundings, but rounds half as often:
 * once the sum of a pair, all pairs together 2U of the magnitudes, and once every sum but the
 * first, which adds to 0: 2U (k/2 - 1), (k+1)/2 for an odd k. With the addend k+2 at most. (Arm
 * ARM, BFDotAdd and BFRound; it flushes subnormal sums, and none occur here.) */
static void check_sums(const struct lab *lab, const struct kiln_gemm *g, const void *b, size_t ldb,
                       const float *add) {
    double *left = widened(lab, g->a, g->lda, g->m, g->k);
    double *right = widened(lab, b, ldb, g->n, g->k);
    for (size_t i = 0; i < g->m; i++) {
        for (size_t j = 0; j < g->n; j++) {
            const double *x = left + i * g->k, *y = right + j * g->k;
            double sum = add ? (double)add[i * g->ldadd + j] : 0.0, size = fabs(sum);
            for (size_t p = 0; p < g->k; p++) {
                double product = x[p] * y[p];
                sum += product;
                size += fabs(product);
            }
            double tolerance = (double)(g->k + 2) * U * size;
            size_t at = i * g->ldc + j;
            double got = g->c_operand ? lab_get(lab, g->c, at) : (double)((const float *)g->c)[at];
            tolerance += g->c_operand ? fabs(sum) * lab_operand_ulp(lab) / 2 : 0.0;
            lab_close(lab, "c", i * 1000 + j, got, sum, tolerance);
        }
    }
    kiln_free(left);
    kiln_free(right);
}

void lab_check_product(const struct lab *lab, void (*gemm)(const struct kiln_gemm *),
                       const struct lab_product *s) {
    size_t operand = lab->k.operand_bytes, element = s->c_operand ? operand : sizeof(float);
    size_t packed_k = s->k + s->behind, panel = kiln_panel_elements(packed_k), ldb = packed_k + 1;
    struct kiln_gemm g = {.m = s->m, .n = s->n, .k = s->k, .c_operand = s->c_operand};
    void *b = lab_operands(lab, s->n * ldb, 1, 1.0f);
    void *packed = lab_memory((s->n + 63) / 64 * panel, operand, 0);
    for (size_t i = 0; i < s->n; i++) {
        for (size_t p = s->k; p < packed_k; p++) {
            lab_put(lab, b, i * ldb + p, NAN);
        }
    }
    lab->ref.pack(packed, panel, b, ldb, s->n, packed_k);
    g.lda = s->k + 3;
    g.a = lab_operands(lab, (s->m - 1) * g.lda + s->k, 1, 1.0f);
    g.b = packed;
    g.panel = s->behind ? panel : 0;
    g.ldc = s->n + 5;
    size_t c_elements = (s->m - 1) * g.ldc + s->n;
    g.c = lab_memory(c_elements, element, 1);
    g.scratch = lab_memory(KILN_GEMM_SCRATCH, 1, 0);
    const float *add = NULL;
    if (s->add == LAB_ADD_OWN) {
        for (size_t i = 0; i < c_elements; i++) {
            if (i % g.ldc < s->n) {
                ((float *)g.c)[i] = lab_normal();
            }
        }
        g.ldadd = g.ldc;
        g.add = g.c;
        add = lab_copy(g.c, c_elements, sizeof(float), 0);
    } else if (s->add == LAB_ADD_OTHER) {
        g.ldadd = s->n + 2;
        g.add = add = lab_floats(s->m * g.ldadd, 1, 1.0f);
    } else if (s->add == LAB_ADD_ROW) {
        g.add = add = lab_floats(s->n, 1, 1.0f);
    }
    gemm(&g);
    check_sums(lab, &g, b, ldb, add);
    lab_check_gaps(g.c, s->m, s->n, g.ldc, element);
    lab_check_guards();
}

static void check_products(const struct lab *lab, void (*gemm)(const struct kiln_gemm *),
                           bool behind) {
    static const size_t ms[] = {1, 2, 3, 4, 5, 6, 7, 63, 64, 65, 127, 128};
    static const size_t ns[] = {1, 7, 16, 63, 64, 65, 127, 128, 200, 256};
    static const size_t ks[] = {1, 2, 3, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257};
    for (size_t i = 0; i < 156; i++) {
        struct lab_product s = {.m = ms[i % 12], .n = ns[i * 7 % 10], .k = ks[i * 5 % 13]};
        s.c_operand = i % 7 % 2;
        s.add = (enum lab_add)(i % 5 % LAB_ADDS);
        if (s.c_operand && s.add == LAB_ADD_OWN) {
            s.add = LAB_ADD_OTHER; /* c holds operands then, add is fp32 */
        }
        s.behind = behind ? i % 3 * 37 : 0;
        lab_check_product(lab, gemm, &s);
    }
}

void check_gemm(const struct lab *lab) { check_products(lab, lab->k.gemm, false); }
void check_gemm_own(const struct lab *lab) {
    check_products(lab, lab->k.gemm_own, true);
    /* Deeper than the scratch holds of few rows. */
    for (size_t m = 1; m <= 5; m++) {
        lab_check_product(lab, lab->k.gemm_own, &(struct lab_product){.m = m, .n = 70, .k = 4099});
    }
}

/* ---- few rows ------------------------------------------------------------------------------- */

/* few_as_many: row i of a block of few rows has the bits of row i of a larger block. */
static void check_few(const struct lab *lab) {
    const bool own = strcmp(lab->k.provider, "own") == 0, amx = strcmp(lab->k.tier, "amx") == 0;
    CHECK_EQ(lab->k.few_as_many, lab->bf16 && own && !amx);
    if (!lab->k.few_as_many) {
        return;
    }
    const size_t M = 9, N = 128;
    static const size_t ks[] = {1, 2, 33, 128, 129, 300, 4100};
    for (size_t i = 0; i < sizeof ks / sizeof ks[0]; i++) {
        size_t k = ks[i];
        void *b = lab_operands(lab, N * k, 0, 1.0f), *a = lab_operands(lab, M * k, 1, 1.0f);
        void *packed = lab_memory(kiln_packed_elements(N, k), 2, 0);
        void *scratch = lab_memory(KILN_GEMM_SCRATCH, 1, 0);
        lab->k.pack(packed, kiln_panel_elements(k), b, k, N, k);
        float *start = lab_floats(M * N, 0, 1.0f), *many = lab_copy(start, M * N, 4, 0);
        struct kiln_gemm g = {.m = M, .n = N, .k = k, .a = a, .lda = k, .b = packed};
        g.scratch = scratch;
        g.ldc = g.ldadd = N;
        for (int add = 0; add <= 1; add++) {
            g.c = many;
            g.m = M;
            g.add = add ? many : NULL;
            memcpy(many, start, M * N * sizeof *many);
            lab->k.gemm_own(&g);
            for (g.m = 1; g.m <= KILN_GEMM_FEW; g.m++) {
                float *few = lab_copy(start, M * N, 4, 0);
                g.c = few;
                g.add = add ? few : NULL;
                lab->k.gemm_own(&g);
                CHECK_BYTES(few, many, g.m * N * sizeof *few);
                CHECK_BYTES(few + g.m * N, start + g.m * N, (M - g.m) * N * sizeof *few);
            }
        }
        lab_check_guards();
    }
}

TEST(few_rows_have_the_bits_of_many_in_bf16) { lab_on_every_tier(check_few); }

/* fp32: sums of few rows are taken in double: off by one rounding where nothing is added. */
static void check_few_exact(const struct lab *lab) {
    if (lab->bf16) {
        return;
    }
    const size_t N = 64, K = 1000;
    void *b = lab_operands(lab, N * K, 0, 1.0f), *a = lab_operands(lab, 4 * K, 1, 1.0f);
    void *packed = lab_memory(kiln_packed_elements(N, K), 4, 0);
    lab->k.pack(packed, kiln_panel_elements(K), b, K, N, K);
    struct kiln_gemm g = {.n = N, .k = K, .a = a, .lda = K, .b = packed, .ldc = N};
    float *c = g.c = lab_memory(4 * N, 4, 0);
    g.scratch = lab_memory(KILN_GEMM_SCRATCH, 1, 0);
    for (g.m = 1; g.m <= 4; g.m++) {
        lab->k.gemm_own(&g);
        for (size_t i = 0; i < g.m * N; i++) {
            double sum = 0.0;
            for (size_t p = 0; p < K; p++) {
                sum += lab_get(lab, a, i / N * K + p) * lab_get(lab, b, i % N * K + p);
            }
            lab_close(lab, "c", i, (double)c[i], sum, fabs(sum) * U + 1e-12);
        }
    }
}

TEST(few_rows_are_summed_in_double_in_fp32) { lab_on_every_tier(check_few_exact); }
