/* SPDX-License-Identifier: MIT
 *
 * simd_few.h: products of few rows of one tier and precision (a part of simd_body.h).
 *
 * Every packed element is used so few times that reading b is the work. It is read once, in order,
 * and widened in registers: bf16 to fp32, and fp32 to double, which costs nothing here.
 */
#if OPERAND_BF16
#define WIDE             float
#define FEW_LANES        VL
#define FEW_VECTOR       vf
#define FEW_LOAD(p)      v_load(p)
#define FEW_STORE(p, v)  v_store(p, v)
#define FEW_FMA(x, b, c) v_fma(v_set(x), b, c)
#else
#define WIDE             double
#define FEW_LANES        (VL / 2)
#define FEW_VECTOR       vd
#define FEW_LOAD(p)      v_load_double(p)
#define FEW_STORE(p, v)  v_store_double(p, v)
#define FEW_FMA(x, b, c) v_fma_double((x) - (vd){0}, b, c)
#endif
/* Bytes to fetch ahead, into the next panel at a panel's end: the processor's own prefetch stops at
 * every page and gave 4/5 of this. */
#define FEW_AHEAD  4096
#define FEW_ACROSS (KILN_PANEL / FEW_LANES)
/* Vectors across a tile. */
#define FEW_ROOM(rows)    (GEMM_SUMS / ((rows) > 2 ? 4 : (rows)))
#define FEW_COLUMNS(rows) (FEW_ROOM(rows) < FEW_ACROSS ? FEW_ROOM(rows) : FEW_ACROSS)

INLINE void NAME(few_tile)(int rows, size_t columns, size_t depth, const WIDE *a, size_t lda,
                           const OP *b, float *c, size_t ldc) {
    FEW_VECTOR sum[KILN_GEMM_FEW][FEW_ACROSS];
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (size_t j = 0; j < columns; j++) {
            sum[r][j] = FEW_LOAD(c + (size_t)r * ldc + j * FEW_LANES);
        }
    }
    for (size_t p = 0; p < depth; p += WORD) {
        const OP *words = b + p * KILN_PANEL;
        UNROLL for (size_t j = 0; j < columns; j++) {
            __builtin_prefetch((const char *)(words + j * FEW_LANES * WORD) + FEW_AHEAD);
#if OPERAND_BF16
            vu word; /* low half even k, high half odd k */
            memcpy(&word, words + j * VL * WORD, sizeof word);
            vf even = (vf)(word << 16), odd = (vf)(word & 0xffff0000u);
            UNROLL for (int r = 0; r < rows; r++) {
                sum[r][j] = FEW_FMA(a[(size_t)r * lda + p], even, sum[r][j]);
                sum[r][j] = FEW_FMA(a[(size_t)r * lda + p + 1], odd, sum[r][j]);
            }
#else
            vd column = FEW_LOAD(words + j * FEW_LANES);
            UNROLL for (int r = 0; r < rows; r++) {
                sum[r][j] = FEW_FMA(a[(size_t)r * lda + p], column, sum[r][j]);
            }
#endif
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (size_t j = 0; j < columns; j++) {
            FEW_STORE(c + (size_t)r * ldc + j * FEW_LANES, sum[r][j]);
        }
    }
}

#define FEW(n)                                                                                    \
    case n:                                                                                       \
        for (size_t j = 0; j < FEW_ACROSS; j += FEW_COLUMNS(n)) {                                 \
            NAME(few_tile)                                                                        \
            (n, FEW_COLUMNS(n), depth, a, lda, b + j * FEW_LANES * WORD, c + j * FEW_LANES, ldc); \
        }                                                                                         \
        break
static void NAME(few_rows)(size_t rows, size_t depth, const WIDE *a, size_t lda, const OP *b,
                           float *c, size_t ldc) {
    switch (rows) {
        FEW(1);
        FEW(2);
        FEW(3);
        FEW(4);
        default:
            assert(rows <= KILN_GEMM_FEW);
    }
}
#undef FEW

/* Adds the sums of a block of at most KILN_GEMM_FEW rows to c [m, ldc] fp32, whose columns are
 * whole panels. The rows of a are widened into scratch first. */
static void NAME(few_sums)(const struct kiln_gemm *g, float *c, size_t ldc, float *scratch) {
    enum { DEPTH = KILN_GEMM_M * 128 * sizeof(float) / (KILN_GEMM_FEW * sizeof(WIDE)) };
    WIDE *rows = (void *)scratch; /* aligned to 64 bytes */
    size_t stride = g->panel ? g->panel : kiln_panel_elements(g->k);
    for (size_t k0 = 0; k0 < g->k; k0 += DEPTH) {
        size_t depth = g->k - k0 < DEPTH ? g->k - k0 : DEPTH, paired = depth / WORD * WORD;
        for (size_t i = 0; i < g->m; i++) {
            const OP *a = (const OP *)g->a + i * g->lda + k0;
            for (size_t p = 0; p < depth; p++) {
                rows[i * DEPTH + p] = (WIDE)NAME(get)(a[p]);
            }
        }
        for (size_t j = 0; j * KILN_PANEL < g->n; j++) {
            const OP *b = (const OP *)g->b + j * stride + k0 * KILN_PANEL;
            float *sums = c + j * KILN_PANEL;
            NAME(few_rows)(g->m, paired, rows, DEPTH, b, sums, ldc);
#if OPERAND_BF16
            if (paired < depth) { /* one k left: what pairs with it is no part of the sum */
                for (size_t i = 0; i < g->m; i++) {
                    for (size_t n = 0; n < KILN_PANEL; n += VL) {
                        vu word;
                        memcpy(&word, b + paired * KILN_PANEL + n * WORD, sizeof word);
                        vf x = v_set(rows[i * DEPTH + paired]);
                        float *sum = sums + i * ldc + n;
                        v_store(sum, v_fma(x, (vf)(word << 16), v_load(sum)));
                    }
                }
            }
#endif
        }
    }
}
#undef WIDE
#undef FEW_LANES
#undef FEW_VECTOR
#undef FEW_LOAD
#undef FEW_STORE
#undef FEW_FMA
#undef FEW_AHEAD
#undef FEW_ACROSS
#undef FEW_ROOM
#undef FEW_COLUMNS

static void NAME(gemm_few)(const struct kiln_gemm *g) {
    float *sums = g->scratch, *rows = sums + KILN_GEMM_FEW * KILN_GEMM_N;
    assert(g->m <= KILN_GEMM_FEW && g->n <= KILN_GEMM_N);
    memset(sums, 0, g->m * KILN_GEMM_N * sizeof *sums);
    NAME(few_sums)(g, sums, KILN_GEMM_N, rows);
    NAME(put_sums)(g, sums);
}
