/* SPDX-License-Identifier: MIT
 *
 * simd_direct.h: products of operands that the CPU multiplies as they are, fp32 or, with HAS_DOT,
 * bf16 (a part of simd_body.h).
 *
 * A word is an fp32, or a pair of bf16 that are neighbours along k, as they lie in a and as b is
 * packed. Nothing is widened or copied: register tiles of GEMM_ROWS rows sweep the whole
 * contraction of one panel,
 *
 *             panel, [k][64] words, from L2
 *   a rows    +-------------------+
 *   as they   |  tile in regs     |   c = a . b (+ add), stored once
 *   lie       +-------------------+
 *
 * and every element is one sum in index order, whatever the height of its tile. Pairs are added as
 * VDPBF16PS (Intel Architecture Instruction Set Extensions Programming Reference) or BFDOT (Arm
 * ARM) does it.
 */

#if OPERAND_BF16
typedef vu NAME(vector);
INLINE vu NAME(word)(const OP *pair) {
    uint32_t word;
    memcpy(&word, pair, sizeof word);
    return word - (vu){0};
}
INLINE vf NAME(step)(vf sum, vu x, vu column) { return v_dot(sum, x, column); }
#else
typedef vf NAME(vector);
INLINE vf NAME(word)(const OP *word) { return v_set(*word); }
INLINE vf NAME(step)(vf sum, vf x, vf column) { return v_fma(x, column, sum); }
#endif
INLINE NAME(vector) NAME(words)(const OP *words) {
    NAME(vector) v;
    memcpy(&v, words, sizeof v);
    return v;
}

/* rows x columns vectors of the result, from row i and column j; b: the panel, from that column.
 * ahead: bytes of b to fetch before they are used, 0 where the processor's own prefetch does. */
INLINE void NAME(tile)(size_t rows, size_t columns, size_t ahead, const struct kiln_gemm *g,
                       size_t i, size_t j, const OP *b) {
    const OP *a = (const OP *)g->a + i * g->lda;
    vf sum[GEMM_ROWS][GEMM_COLUMNS];
    UNROLL for (size_t r = 0; r < rows; r++) {
        UNROLL for (size_t c = 0; c < columns; c++) { sum[r][c] = v_set(0.0f); }
    }
    for (size_t p = 0; p + WORD <= g->k; p += WORD) {
        NAME(vector) column[GEMM_COLUMNS];
        UNROLL for (size_t c = 0; c < columns; c++) {
            const OP *from = b + p * KILN_PANEL + c * VL * WORD;
            if (ahead > 0) {
                __builtin_prefetch((const char *)from + ahead);
            }
            column[c] = NAME(words)(from);
        }
        UNROLL for (size_t r = 0; r < rows; r++) {
            const NAME(vector) x = NAME(word)(a + r * g->lda + p);
            UNROLL for (size_t c = 0; c < columns; c++) {
                sum[r][c] = NAME(step)(sum[r][c], x, column[c]);
            }
        }
    }
#if OPERAND_BF16
    if (g->k % WORD != 0) { /* one k left: what pairs with it is no part of the sum */
        const size_t p = g->k - 1;
        UNROLL for (size_t r = 0; r < rows; r++) {
            const vu x = (uint32_t)a[r * g->lda + p] - (vu){0};
            UNROLL for (size_t c = 0; c < columns; c++) {
                vu column = NAME(words)(b + p * KILN_PANEL + c * VL * WORD) & 0xffffu;
                sum[r][c] = v_dot(sum[r][c], x, column);
            }
        }
    }
#endif
    UNROLL for (size_t r = 0; r < rows; r++) {
        UNROLL for (size_t c = 0; c < columns; c++) {
            NAME(put_sum)(g, i + r, j + c * VL, sum[r][c]);
        }
    }
}

/* A tile of each height and width; ends of blocks are smaller. */
#define TILE(rows, columns)                                                                  \
    static void NAME(tile_##rows##_##columns)(const struct kiln_gemm *g, size_t i, size_t j, \
                                              const OP *b) {                                 \
        NAME(tile)(rows, columns, (rows) <= KILN_GEMM_FEW ? DOT_AHEAD : 0, g, i, j, b);      \
    }
#if GEMM_COLUMNS > 2
#define TILES(rows) TILE(rows, 1) TILE(rows, 2) TILE(rows, 3) TILE(rows, 4)
#define NAMES(rows) \
    { NAME(tile_##rows##_1), NAME(tile_##rows##_2), NAME(tile_##rows##_3), NAME(tile_##rows##_4) }
#else
#define TILES(rows) TILE(rows, 1) TILE(rows, 2)
#define NAMES(rows) \
    { NAME(tile_##rows##_1), NAME(tile_##rows##_2) }
#endif
/* Bytes to fetch ahead where few rows read b at the speed of memory: the processor's own prefetch
 * stops at every page. */
#define DOT_AHEAD 4096
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)

static void NAME(gemm)(const struct kiln_gemm *g) {
    static void (*const tiles[GEMM_ROWS][GEMM_COLUMNS])(const struct kiln_gemm *, size_t, size_t,
                                                        const OP *) = {
        NAMES(1), NAMES(2), NAMES(3), NAMES(4), NAMES(5), NAMES(6)};
    const size_t stride = g->panel ? g->panel : kiln_panel_elements(g->k);
    assert(g->m <= KILN_GEMM_M && g->n <= KILN_GEMM_N);
    for (size_t j = 0; j < g->n; j += KILN_PANEL) {
        const OP *panel = (const OP *)g->b + j / KILN_PANEL * stride;
        const size_t across = g->n - j < KILN_PANEL ? g->n - j : KILN_PANEL;
        for (size_t i = 0; i < g->m; i += GEMM_ROWS) {
            const size_t rows = g->m - i < GEMM_ROWS ? g->m - i : GEMM_ROWS;
            for (size_t c = 0; c < across; c += GEMM_COLUMNS * VL) {
                const size_t columns = (across - c + VL - 1) / VL;
                tiles[rows - 1][(columns < GEMM_COLUMNS ? columns : GEMM_COLUMNS) - 1](
                    g, i, j + c, panel + c * WORD);
            }
        }
    }
}
#if OPERAND_BF16
static void NAME(gemm_own)(const struct kiln_gemm *g) { NAME(gemm)(g); }
#else
static void NAME(gemm_own)(const struct kiln_gemm *g) {
    (g->m <= KILN_GEMM_FEW ? NAME(gemm_few) : NAME(gemm))(g);
}
#endif
#undef DOT_AHEAD
#undef NAMES
#undef TILES
#undef TILE
