/* SPDX-License-Identifier: MIT
 *
 * simd_product.h: products of one tier and precision (a part of simd_body.h, which says how it is
 * included).
 */

/* ---- products ------------------------------------------------------------------------------
 *
 * A block is computed in chunks of GEMM_KC along k. Per chunk the rows of a are widened to fp32
 * once, a panel of b is widened to fp32 into L1, and register tiles of GEMM_ROWS rows sweep it:
 *
 *            panel, KC x 64 fp32 in L1
 *   a rows   +----------------+
 *   6 x KC   |  tile in regs  |   c += a . b, loaded and stored once a chunk
 *
 * Where the CPU multiplies bf16 itself, simd_dot.h does bf16.
 */
#if !OPERAND_BF16 /* fp32 by now in either case: one copy serves both */
INLINE void TIER(tile)(int rows, size_t columns, size_t depth, const float *a, const float *b,
                       float *c, size_t ldc, bool fresh) {
    vf sum[GEMM_ROWS][GEMM_COLUMNS];
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (size_t j = 0; j < columns; j++) {
            sum[r][j] = fresh ? v_set(0.0f) : v_load(c + (size_t)r * ldc + j * VL);
        }
    }
    for (size_t p = 0; p < depth; p++) {
        vf column[GEMM_COLUMNS];
        UNROLL for (size_t j = 0; j < columns; j++) {
            column[j] = v_load(b + p * KILN_PANEL + j * VL);
        }
        UNROLL for (int r = 0; r < rows; r++) {
            vf x = v_set(a[(size_t)r * GEMM_KC + p]);
            UNROLL for (size_t j = 0; j < columns; j++) {
                sum[r][j] = v_fma(x, column[j], sum[r][j]);
            }
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (size_t j = 0; j < columns; j++) {
            v_store(c + (size_t)r * ldc + j * VL, sum[r][j]);
        }
    }
}

/* A tile of each height; the last rows of a block are fewer. */
#define TILE(rows, columns)                                    \
    case rows:                                                 \
        TIER(tile)(rows, columns, depth, a, b, c, ldc, fresh); \
        break
#define TILE_COLUMNS(columns)                                                                   \
    static void TIER(tile_##columns)(size_t rows, size_t depth, const float *a, const float *b, \
                                     float *c, size_t ldc, bool fresh) {                        \
        switch (rows) {                                                                         \
            TILE(1, columns);                                                                   \
            TILE(2, columns);                                                                   \
            TILE(3, columns);                                                                   \
            TILE(4, columns);                                                                   \
            TILE(5, columns);                                                                   \
            default:                                                                            \
                TIER(tile)(6, columns, depth, a, b, c, ldc, fresh);                             \
                break;                                                                          \
        }                                                                                       \
    }
TILE_COLUMNS(1)
TILE_COLUMNS(2)
#if GEMM_COLUMNS > 2
TILE_COLUMNS(3)
TILE_COLUMNS(4)
#endif
#undef TILE
#undef TILE_COLUMNS

/* All rows of a block against one strip of at most GEMM_COLUMNS vectors. Columns that the result
 * does not have are not computed: a head of 8 takes one vector of a panel, not four. */
static void TIER(strip)(size_t columns, size_t rows, size_t depth, const float *a, const float *b,
                        float *c, size_t ldc, bool fresh) {
    static void (*const tile[])(size_t, size_t, const float *, const float *, float *, size_t,
                                bool) = {
        TIER(tile_1),
        TIER(tile_2),
#if GEMM_COLUMNS > 2
        TIER(tile_3),
        TIER(tile_4)
#endif
    };
    for (size_t i = 0; i < rows; i += GEMM_ROWS) {
        tile[columns - 1](rows - i < GEMM_ROWS ? rows - i : GEMM_ROWS, depth, a + i * GEMM_KC, b,
                          c + i * ldc, ldc, fresh);
    }
}
#endif

/* depth rows (k) of one panel, from k0, as fp32. The panel `next` elements on is fetched ahead. */
INLINE const float *NAME(panel)(float *wide, const OP *panel, size_t next, size_t k0,
                                size_t depth) {
#if OPERAND_BF16
    for (size_t p = 0; p < depth; p += 2) {
        const OP *pairs = panel + (k0 + p) * KILN_PANEL;
        for (size_t j = 0; j < KILN_PANEL; j += VL) {
            vu both; /* low half: even k, high half: odd k */
            __builtin_prefetch(pairs + next + 2 * j);
            memcpy(&both, pairs + 2 * j, sizeof both);
            v_store(wide + p * KILN_PANEL + j, (vf)(both << 16));
            v_store(wide + (p + 1) * KILN_PANEL + j, (vf)(both & 0xffff0000u));
        }
    }
    return wide;
#else
    (void)wide;
    (void)next;
    (void)depth;
    return panel + k0 * KILN_PANEL;
#endif
}

/* Few rows: every packed element is used so few times that reading b is the work. It is read once,
 * in order, and widened in registers: bf16 to fp32, and fp32 to double, which costs nothing here.
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

/* As gemm_sums below, for at most KILN_GEMM_FEW rows; the rows of a are widened first. */
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
                float last[2 * KILN_PANEL];
                NAME(panel)(last, b, 0, paired, 2);
                for (size_t i = 0; i < g->m; i++) {
                    for (size_t n = 0; n < KILN_PANEL; n += VL) {
                        vf x = v_set(rows[i * DEPTH + paired]);
                        float *sum = sums + i * ldc + n;
                        v_store(sum, v_fma(x, v_load(last + n), v_load(sum)));
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

/* The sums of one block into c [m, ldc] fp32, whose columns are whole panels. */
static void NAME(gemm_sums)(const struct kiln_gemm *g, float *c, size_t ldc, bool add_to_c,
                            bool few, float *rows, float *wide) {
    size_t panels = (g->n + KILN_PANEL - 1) / KILN_PANEL;
    size_t stride = g->panel ? g->panel : kiln_panel_elements(g->k);
    if (few) {
        for (size_t i = 0; !add_to_c && i < g->m; i++) {
            memset(c + i * ldc, 0, panels * KILN_PANEL * sizeof *c);
        }
        NAME(few_sums)(g, c, ldc, rows);
        return;
    }
    for (size_t k0 = 0; k0 < g->k; k0 += GEMM_KC) {
        size_t depth = g->k - k0 < GEMM_KC ? g->k - k0 : GEMM_KC;
        bool fresh = k0 == 0 && !add_to_c;
        for (size_t i = 0; i < g->m; i++) {
            const OP *a = (const OP *)g->a + i * g->lda + k0;
            size_t p = 0;
            for (; p + VL <= depth; p += VL) {
                /* The next chunk of this row: too short a run for the processor to foresee. */
                __builtin_prefetch(a + p + GEMM_KC);
                v_store(rows + i * GEMM_KC + p, NAME(load)(a + p));
            }
            for (; p < depth; p++) {
                rows[i * GEMM_KC + p] = NAME(get)(a[p]);
            }
        }
        for (size_t j = 0; j < g->n; j += KILN_PANEL) {
            const OP *packed = (const OP *)g->b + j / KILN_PANEL * stride;
            const float *b = NAME(panel)(wide, packed, stride, k0, depth);
            size_t across = g->n - j < KILN_PANEL ? g->n - j : KILN_PANEL;
            for (size_t j0 = 0; j0 < across; j0 += GEMM_COLUMNS * VL) {
                size_t columns = (across - j0 + VL - 1) / VL;
                columns = columns < GEMM_COLUMNS ? columns : GEMM_COLUMNS;
                TIER(strip)(columns, g->m, depth, rows, b + j0, c + j + j0, ldc, fresh);
            }
        }
    }
}

INLINE void NAME(block)(const struct kiln_gemm *g, bool few) {
    assert(g->m <= KILN_GEMM_M && g->n <= KILN_GEMM_N);
    float *c = g->scratch;
    float *rows = c + KILN_GEMM_M * KILN_GEMM_N;
    float *wide = rows + KILN_GEMM_M * 128;
    bool whole = g->n % KILN_PANEL == 0;
    if (whole && !g->c_operand && (g->add == NULL || g->add == g->c)) {
        NAME(gemm_sums)(g, g->c, g->ldc, g->add != NULL, few, rows, wide);
        return;
    }
    NAME(gemm_sums)(g, c, KILN_GEMM_N, false, few, rows, wide);
    for (size_t i = 0; i < g->m; i++) {
        const float *sum = c + i * KILN_GEMM_N;
        const float *add = g->add ? g->add + i * g->ldadd : NULL;
        for (size_t j = 0; j < g->n; j += VL) {
            size_t n = g->n - j < VL ? g->n - j : VL;
            vf v = v_load(sum + j);
            if (add) {
                v += n == VL ? v_load(add + j) : TIER(load_tail)(add + j, n);
            }
            if (g->c_operand) {
                OP *out = (OP *)g->c + i * g->ldc + j;
                n == VL ? NAME(store)(out, v) : NAME(store_part)(out, v, n);
            } else {
                float *out = (float *)g->c + i * g->ldc + j;
                n == VL ? v_store(out, v) : TIER(store_tail)(out, v, n);
            }
        }
    }
}

static void NAME(gemm)(const struct kiln_gemm *g) {
    NAME(block)(g, OPERAND_BF16 && g->m <= KILN_GEMM_FEW);
}
static void NAME(gemm_own)(const struct kiln_gemm *g) { NAME(block)(g, g->m <= KILN_GEMM_FEW); }
