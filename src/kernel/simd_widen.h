/* SPDX-License-Identifier: MIT
 *
 * simd_widen.h: products of bf16 where the CPU cannot multiply it (a part of simd_body.h).
 *
 * A block is computed in chunks of GEMM_KC along k. Per chunk the rows of a are widened to fp32
 * once, a panel of b is widened to fp32 into L1, and register tiles of GEMM_ROWS rows sweep it:
 *
 *            panel, KC x 64 fp32 in L1
 *   a rows   +----------------+
 *   6 x KC   |  tile in regs  |   sums loaded and stored once a chunk
 *
 * Few rows are simd_few.h's.
 */
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
/* depth rows (k) of one panel, from k0, as fp32. The panel `next` elements on is fetched ahead. */
INLINE void NAME(panel)(float *wide, const OP *panel, size_t next, size_t k0, size_t depth) {
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
}

/* The sums of one block into c [m, ldc] fp32, whose columns are whole panels. */
static void NAME(gemm_sums)(const struct kiln_gemm *g, float *c, size_t ldc, float *rows,
                            float *wide) {
    size_t stride = g->panel ? g->panel : kiln_panel_elements(g->k);
    for (size_t k0 = 0; k0 < g->k; k0 += GEMM_KC) {
        size_t depth = g->k - k0 < GEMM_KC ? g->k - k0 : GEMM_KC;
        bool fresh = k0 == 0;
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
            NAME(panel)(wide, packed, stride, k0, depth);
            size_t across = g->n - j < KILN_PANEL ? g->n - j : KILN_PANEL;
            for (size_t j0 = 0; j0 < across; j0 += GEMM_COLUMNS * VL) {
                size_t columns = (across - j0 + VL - 1) / VL;
                columns = columns < GEMM_COLUMNS ? columns : GEMM_COLUMNS;
                TIER(strip)(columns, g->m, depth, rows, wide + j0, c + j + j0, ldc, fresh);
            }
        }
    }
}

static void NAME(gemm)(const struct kiln_gemm *g) {
    if (g->m <= KILN_GEMM_FEW) {
        NAME(gemm_few)(g);
        return;
    }
    float *sums = g->scratch, *rows = sums + KILN_GEMM_M * KILN_GEMM_N;
    assert(g->m <= KILN_GEMM_M && g->n <= KILN_GEMM_N);
    NAME(gemm_sums)(g, sums, KILN_GEMM_N, rows, rows + KILN_GEMM_M * 128);
    NAME(put_sums)(g, sums);
}
static void NAME(gemm_own)(const struct kiln_gemm *g) { NAME(gemm)(g); }
