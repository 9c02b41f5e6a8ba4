/* SPDX-License-Identifier: MIT
 *
 * simd_body.h: the vector kernels of one tier and one operand precision.
 *
 * Included twice by each tier's file, with OPERAND_BF16 0 and 1 and NAME(x) giving the two sets
 * their names. kernel.h says what each kernel computes; ref/kernels_ref.c is the same in plain C.
 */

#undef OP
#if OPERAND_BF16
typedef uint16_t NAME(op);
#define OP NAME(op)
INLINE vf NAME(load)(const OP *p) {
    vh h;
    memcpy(&h, p, sizeof h);
    return v_from_bf16(h);
}
INLINE void NAME(store)(OP *p, vf v) {
    vh h = v_to_bf16(v);
    memcpy(p, &h, sizeof h);
}
INLINE float NAME(get)(OP x) { return kiln_bf16_to_f32(x); }
INLINE OP NAME(put)(float x) { return kiln_f32_to_bf16(x); }
#else
typedef float NAME(op);
#define OP NAME(op)
INLINE vf NAME(load)(const OP *p) { return v_load(p); }
INLINE void NAME(store)(OP *p, vf v) { v_store(p, v); }
INLINE float NAME(get)(OP x) { return x; }
INLINE OP NAME(put)(float x) { return x; }
#endif

/* A vector of the first n < VL elements, zeros behind, and the reverse: the tails of rows. */
INLINE vf NAME(load_part)(const OP *p, size_t n) {
    OP part[VL] = {0};
    memcpy(part, p, n * sizeof *p);
    return NAME(load)(part);
}
INLINE void NAME(store_part)(OP *p, vf v, size_t n) {
    OP part[VL];
    NAME(store)(part, v);
    memcpy(p, part, n * sizeof *p);
}
#if !OPERAND_BF16
INLINE vf TIER(load_tail)(const float *p, size_t n) { return NAME(load_part)(p, n); }
INLINE void TIER(store_tail)(float *p, vf v, size_t n) { NAME(store_part)(p, v, n); }
#endif

#if OPERAND_BF16
#define WORD 2 /* operands of k in one 32-bit word */
#else
#define WORD 1
#endif

/* ---- products ------------------------------------------------------------------------------
 *
 * A block is computed in chunks of GEMM_KC along k. Per chunk the rows of a are widened to fp32
 * once, a panel of b is widened to fp32 into L1, and register tiles of GEMM_ROWS rows sweep it:
 *
 *            panel, KC x 64 fp32 in L1
 *   a rows   +----------------+
 *   6 x KC   |  tile in regs  |   c += a . b, loaded and stored once a chunk
 *
 * On CPUs without AMX, AVX-512-BF16's dot product runs at half the rate of fp32 multiply-adds, so
 * widening bf16 and multiplying in fp32 is the faster way as well as the more exact one.
 */
#if !OPERAND_BF16 /* fp32 by now in either case: one copy serves both */
INLINE void TIER(tile)(int rows, size_t columns, size_t depth, const float *a, const float *b,
                       float *c, size_t ldc, bool fresh) {
    vf sum[GEMM_ROWS][GEMM_COLUMNS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t j = 0; j < columns; j++) {
            sum[r][j] = fresh ? v_set(0.0f) : v_load(c + (size_t)r * ldc + j * VL);
        }
    }
    for (size_t p = 0; p < depth; p++) {
        vf column[GEMM_COLUMNS];
#pragma GCC unroll 4
        for (size_t j = 0; j < columns; j++) {
            column[j] = v_load(b + p * KILN_PANEL + j * VL);
        }
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            vf x = v_set(a[(size_t)r * GEMM_KC + p]);
#pragma GCC unroll 4
            for (size_t j = 0; j < columns; j++) {
                sum[r][j] = v_fma(x, column[j], sum[r][j]);
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t j = 0; j < columns; j++) {
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
/* Vectors across a tile: at most 8 sums in AVX2's 16 registers, 16 in AVX-512's 32. */
#define FEW_ROOM(rows)    (VL / ((rows) > 2 ? 4 : (rows)))
#define FEW_COLUMNS(rows) (FEW_ROOM(rows) < FEW_ACROSS ? FEW_ROOM(rows) : FEW_ACROSS)

INLINE void NAME(few_tile)(int rows, size_t columns, size_t depth, const WIDE *a, size_t lda,
                           const OP *b, float *c, size_t ldc) {
    FEW_VECTOR sum[KILN_GEMM_FEW][FEW_ACROSS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 16
        for (size_t j = 0; j < columns; j++) {
            sum[r][j] = FEW_LOAD(c + (size_t)r * ldc + j * FEW_LANES);
        }
    }
    for (size_t p = 0; p < depth; p += WORD) {
        const OP *words = b + p * KILN_PANEL;
#pragma GCC unroll 16
        for (size_t j = 0; j < columns; j++) {
            __builtin_prefetch((const char *)(words + j * FEW_LANES * WORD) + FEW_AHEAD);
#if OPERAND_BF16
            vu word; /* low half even k, high half odd k */
            memcpy(&word, words + j * VL * WORD, sizeof word);
            vf even = (vf)(word << 16), odd = (vf)(word & 0xffff0000u);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                sum[r][j] = FEW_FMA(a[(size_t)r * lda + p], even, sum[r][j]);
                sum[r][j] = FEW_FMA(a[(size_t)r * lda + p + 1], odd, sum[r][j]);
            }
#else
            vd column = FEW_LOAD(words + j * FEW_LANES);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                sum[r][j] = FEW_FMA(a[(size_t)r * lda + p], column, sum[r][j]);
            }
#endif
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 16
        for (size_t j = 0; j < columns; j++) {
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
                            float *rows, float *wide) {
    size_t panels = (g->n + KILN_PANEL - 1) / KILN_PANEL;
    size_t stride = g->panel ? g->panel : kiln_panel_elements(g->k);
    if (g->m <= KILN_GEMM_FEW) {
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

static void NAME(gemm)(const struct kiln_gemm *g) {
    assert(g->m <= KILN_GEMM_M && g->n <= KILN_GEMM_N);
    float *c = g->scratch;
    float *rows = c + KILN_GEMM_M * KILN_GEMM_N;
    float *wide = rows + KILN_GEMM_M * 128;
    bool whole = g->n % KILN_PANEL == 0;
    if (whole && !g->c_operand && (g->add == NULL || g->add == g->c)) {
        NAME(gemm_sums)(g, g->c, g->ldc, g->add != NULL, rows, wide);
        return;
    }
    NAME(gemm_sums)(g, c, KILN_GEMM_N, false, rows, wide);
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

/* ---- packing ------------------------------------------------------------------------------- */

#if OPERAND_BF16
#define PACKED_AT(k, n) (((k) / 2) * 2 * KILN_PANEL + (n)*2 + ((k)&1))
#else
#define PACKED_AT(k, n) ((k)*KILN_PANEL + (n))
#endif

/* Rows become columns of panels: squares of VL rows x VL words (a word is one fp32, or two bf16
 * that stay neighbours) are transposed in registers. */
#if OPERAND_BF16
INLINE vu NAME(words_f32)(const float *p) {
    vh low = v_to_bf16(v_load(p)), high = v_to_bf16(v_load(p + VL));
    vu word;
    memcpy(&word, &low, sizeof low);
    memcpy((char *)&word + sizeof low, &high, sizeof high);
    return word;
}
#else
INLINE vu NAME(words_f32)(const float *p) { return (vu)v_load(p); }
#endif
#if OPERAND_BF16
INLINE vu NAME(words_op)(const OP *p) {
    vu word;
    memcpy(&word, p, sizeof word);
    return word;
}
#endif

#define PACK_ROWS(FUNCTION, TYPE, CONVERT, WORDS)                                               \
    static void NAME(FUNCTION)(void *dst, size_t panel, const TYPE *src, size_t ld, size_t n,   \
                               size_t k) {                                                      \
        size_t padded_k = (k + KILN_PANEL_K - 1) / KILN_PANEL_K * KILN_PANEL_K;                 \
        for (size_t n0 = 0; n0 < n; n0 += KILN_PANEL) {                                         \
            OP *out = (OP *)dst + n0 / KILN_PANEL * panel;                                      \
            size_t columns = n - n0 < KILN_PANEL ? n - n0 : KILN_PANEL;                         \
            if (columns < KILN_PANEL || padded_k != k) {                                        \
                memset(out, 0, padded_k *KILN_PANEL * sizeof(OP));                              \
            }                                                                                   \
            for (size_t j = 0; j < columns; j += VL) {                                          \
                size_t width = columns - j < VL ? columns - j : VL;                             \
                const TYPE *from = src + (n0 + j) * ld;                                         \
                size_t p = 0;                                                                   \
                for (; width == VL && p + VL * WORD <= k; p += VL * WORD) {                     \
                    vu word[VL];                                                                \
                    for (int i = 0; i < VL; i++) {                                              \
                        word[i] = NAME(WORDS)(from + (size_t)i * ld + p);                       \
                    }                                                                           \
                    v_transpose(word);                                                          \
                    for (int i = 0; i < VL; i++) {                                              \
                        memcpy(out + PACKED_AT(p + (size_t)i * WORD, j), &word[i], sizeof(vu)); \
                    }                                                                           \
                }                                                                               \
                for (; p < k; p++) {                                                            \
                    for (size_t i = 0; i < width; i++) {                                        \
                        out[PACKED_AT(p, j + i)] = CONVERT(from[i * ld + p]);                   \
                    }                                                                           \
                }                                                                               \
            }                                                                                   \
        }                                                                                       \
    }

/* VL columns of two neighbouring rows as words (of one row, in fp32). */
#if OPERAND_BF16
INLINE vu NAME(pair_op)(const OP *even, const OP *odd) {
    vh low, high;
    memcpy(&low, even, sizeof low);
    memcpy(&high, odd, sizeof high);
    return __builtin_convertvector(low, vu) | __builtin_convertvector(high, vu) << 16;
}
INLINE vu NAME(pair_f32)(const float *even, const float *odd) {
    return __builtin_convertvector(v_to_bf16(v_load(even)), vu) |
           __builtin_convertvector(v_to_bf16(v_load(odd)), vu) << 16;
}
#else
INLINE vu NAME(pair_f32)(const float *even, const float *odd) {
    (void)odd;
    return (vu)v_load(even);
}
#endif

/* Columns stay columns of panels; pairs of rows interleave. */
#define PACK_COLUMNS(FUNCTION, TYPE, CONVERT, PAIR)                                           \
    static void NAME(FUNCTION)(void *dst, size_t panel, const TYPE *src, size_t ld, size_t k, \
                               size_t n) {                                                    \
        size_t padded_k = (k + KILN_PANEL_K - 1) / KILN_PANEL_K * KILN_PANEL_K;               \
        for (size_t n0 = 0; n0 < n; n0 += KILN_PANEL) {                                       \
            OP *out = (OP *)dst + n0 / KILN_PANEL * panel;                                    \
            size_t columns = n - n0 < KILN_PANEL ? n - n0 : KILN_PANEL;                       \
            if (columns < KILN_PANEL || padded_k != k) {                                      \
                memset(out, 0, padded_k *KILN_PANEL * sizeof(OP));                            \
            }                                                                                 \
            size_t p = 0;                                                                     \
            for (; p + WORD <= k && columns == KILN_PANEL; p += WORD) {                       \
                for (size_t j = 0; j < KILN_PANEL; j += VL) {                                 \
                    const TYPE *from = src + p * ld + n0 + j;                                 \
                    vu word = NAME(PAIR)(from, from + (WORD - 1) * ld);                       \
                    memcpy(out + PACKED_AT(p, j), &word, sizeof word);                        \
                }                                                                             \
            }                                                                                 \
            for (; p < k; p++) {                                                              \
                for (size_t j = 0; j < columns; j++) {                                        \
                    out[PACKED_AT(p, j)] = CONVERT(src[p * ld + n0 + j]);                     \
                }                                                                             \
            }                                                                                 \
        }                                                                                     \
    }

#define SAME(x) (x)
PACK_ROWS(pack_f32, float, NAME(put), words_f32)
PACK_COLUMNS(pack_t_f32, float, NAME(put), pair_f32)
#if OPERAND_BF16
PACK_ROWS(pack_operands, OP, SAME, words_op)
PACK_COLUMNS(pack_t_operands, OP, SAME, pair_op)
#endif

static void NAME(pack)(void *dst, size_t panel, const void *src, size_t ld, size_t n, size_t k) {
#if OPERAND_BF16
    NAME(pack_operands)(dst, panel, src, ld, n, k);
#else
    NAME(pack_f32)(dst, panel, src, ld, n, k);
#endif
}
static void NAME(pack_t)(void *dst, size_t panel, const void *src, size_t ld, size_t k, size_t n) {
#if OPERAND_BF16
    NAME(pack_t_operands)(dst, panel, src, ld, k, n);
#else
    NAME(pack_t_f32)(dst, panel, src, ld, k, n);
#endif
}
#undef SAME
#undef PACK_ROWS
#undef PACK_COLUMNS
#undef PACKED_AT

/* Squares of VL*WORD rows x VL columns: pairs of rows become words, words are transposed. */
static void NAME(transpose)(void *dst, size_t ldd, const void *src, size_t lds, size_t rows,
                            size_t cols) {
    const OP *from = src;
    OP *to = dst;
    for (size_t i = 0; i < rows; i += VL * WORD) {
        size_t height = rows - i < VL * WORD ? rows - i : VL * WORD;
        size_t j = 0;
        for (; height == VL * WORD && j + VL <= cols; j += VL) {
            vu word[VL];
            for (size_t r = 0; r < VL; r++) {
                const OP *even = from + (i + r * WORD) * lds + j;
#if OPERAND_BF16
                word[r] = NAME(pair_op)(even, even + lds);
#else
                word[r] = NAME(pair_f32)(even, even);
#endif
            }
            v_transpose(word);
            for (size_t r = 0; r < VL; r++) {
                memcpy(to + (j + r) * ldd + i, &word[r], sizeof word[r]);
            }
        }
        for (; j < cols; j++) {
            for (size_t r = 0; r < height; r++) {
                to[j * ldd + i + r] = from[(i + r) * lds + j];
            }
        }
    }
}

static void NAME(round)(void *dst, const float *src, size_t n) {
    OP *out = dst;
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        NAME(store)(out + i, v_load(src + i));
    }
    for (; i < n; i++) {
        out[i] = NAME(put)(src[i]);
    }
}

static void NAME(widen)(float *dst, const void *src, size_t n) {
    const OP *in = src;
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        v_store(dst + i, NAME(load)(in + i));
    }
    for (; i < n; i++) {
        dst[i] = NAME(get)(in[i]);
    }
}

/* ---- norms and rotations -------------------------------------------------------------------- */

static void NAME(rmsnorm)(void *y, float *rstd, const float *x, const float *w, float eps,
                          size_t rows, size_t d) {
    for (size_t r = 0; r < rows; r++) {
        const float *in = x + r * d;
        OP *out = (OP *)y + r * d;
        vf sum = {0};
        size_t i = 0;
        for (; i + VL <= d; i += VL) {
            vf v = v_load(in + i);
            sum = v_fma(v, v, sum);
        }
        if (i < d) {
            vf v = TIER(load_tail)(in + i, d - i);
            sum = v_fma(v, v, sum);
        }
        float scale = 1.0f / sqrtf(v_sum(sum) / (float)d + eps);
        rstd[r] = scale;
        for (i = 0; i + VL <= d; i += VL) {
            NAME(store)(out + i, v_load(in + i) * scale * v_load(w + i));
        }
        if (i < d) {
            NAME(store_part)
            (out + i, TIER(load_tail)(in + i, d - i) * scale * TIER(load_tail)(w + i, d - i),
             d - i);
        }
    }
}

static void NAME(rope)(void *x, size_t ld, size_t rows, size_t heads, size_t k, const float *angles,
                       size_t first, size_t period, bool inverse) {
    const float sign = inverse ? -1.0f : 1.0f;
    for (size_t r = 0; r < rows; r++) {
        const float *angle = angles + (first + r) % period * k;
        for (size_t h = 0; h < heads; h++) {
            OP *pair = (OP *)x + r * ld + h * k;
            for (size_t i = 0; i < k; i += 2) {
                float a = NAME(get)(pair[i]), b = NAME(get)(pair[i + 1]);
                float c = angle[i], s = angle[i + 1] * sign;
                pair[i] = NAME(put)(a * c - b * s);
                pair[i + 1] = NAME(put)(a * s + b * c);
            }
        }
    }
}

/* ---- SwiGLU ---------------------------------------------------------------------------------- */

static void NAME(swiglu)(void *gate, const void *h, size_t rows, size_t f) {
    for (size_t r = 0; r < rows; r++) {
        const OP *h1 = (const OP *)h + r * 2 * f, *h3 = h1 + f;
        OP *out = (OP *)gate + r * f;
        for (size_t i = 0; i < f; i += VL) {
            size_t n = f - i < VL ? f - i : VL;
            vf a = n == VL ? NAME(load)(h1 + i) : NAME(load_part)(h1 + i, n);
            vf b = n == VL ? NAME(load)(h3 + i) : NAME(load_part)(h3 + i, n);
            vf v = a / (1.0f + v_exp(-a)) * b;
            n == VL ? NAME(store)(out + i, v) : NAME(store_part)(out + i, v, n);
        }
    }
}

static void NAME(swiglu_bwd)(void *dh, const void *dgate, const void *h, size_t rows, size_t f) {
    for (size_t r = 0; r < rows; r++) {
        const OP *h1 = (const OP *)h + r * 2 * f, *h3 = h1 + f;
        const OP *dg = (const OP *)dgate + r * f;
        OP *d1 = (OP *)dh + r * 2 * f, *d3 = d1 + f;
        for (size_t i = 0; i < f; i += VL) {
            size_t n = f - i < VL ? f - i : VL;
            vf a = n == VL ? NAME(load)(h1 + i) : NAME(load_part)(h1 + i, n);
            vf b = n == VL ? NAME(load)(h3 + i) : NAME(load_part)(h3 + i, n);
            vf d = n == VL ? NAME(load)(dg + i) : NAME(load_part)(dg + i, n);
            vf s = 1.0f / (1.0f + v_exp(-a));
            vf da = d * b * s * (1.0f + a * (1.0f - s));
            vf db = d * a * s;
            n == VL ? NAME(store)(d1 + i, da) : NAME(store_part)(d1 + i, da, n);
            n == VL ? NAME(store)(d3 + i, db) : NAME(store_part)(d3 + i, db, n);
        }
    }
}

/* ---- softmax ----------------------------------------------------------------------------------
 */

static void NAME(softmax_causal)(void *p, size_t ldp, float *lse, float *s, size_t lds, size_t rows,
                                 size_t first, size_t cols, float scale) {
    for (size_t r = 0; r < rows; r++) {
        float *row = s + r * lds;
        OP *out = (OP *)p + r * ldp;
        size_t n = first + r + 1 < cols ? first + r + 1 : cols;
        /* Columns beyond the causal limit become -infinity-like, so whole vectors may be used. */
        size_t whole = (n + VL - 1) / VL * VL;
        for (size_t i = n; i < whole; i++) {
            row[i] = -3e38f;
        }
        vf top = v_set(-3e38f);
        for (size_t i = 0; i < whole; i += VL) {
            top = v_max(v_load(row + i), top);
        }
        float peak = v_highest(top) * scale;
        vf sum = {0};
        for (size_t i = 0; i < whole; i += VL) {
            vf e = v_exp(v_fma(v_load(row + i), v_set(scale), v_set(-peak)));
            v_store(row + i, e);
            sum += e;
        }
        float total = v_sum(sum);
        lse[r] = peak + logf(total);
        float factor = 1.0f / total;
        for (size_t i = 0; i < whole; i += VL) {
            NAME(store)(out + i, v_load(row + i) * factor);
        }
        if (whole < cols) {
            memset(out + whole, 0, (cols - whole) * sizeof(OP));
        }
    }
}

static void NAME(softmax_causal_bwd)(void *p, void *ds, size_t ldp, const float *s, const float *dp,
                                     size_t lds, const float *lse, const float *delta, size_t rows,
                                     size_t first, size_t cols, float scale) {
    for (size_t r = 0; r < rows; r++) {
        OP *prob = (OP *)p + r * ldp, *dscore = (OP *)ds + r * ldp;
        size_t n = first + r + 1 < cols ? first + r + 1 : cols;
        size_t whole = (n + VL - 1) / VL * VL;
        vf shift = v_set(-lse[r]);
        for (size_t i = 0; i < whole; i += VL) {
            vf e = v_exp(v_fma(v_load(s + r * lds + i), v_set(scale), shift));
            NAME(store)(prob + i, e);
            NAME(store)(dscore + i, e * (v_load(dp + r * lds + i) - delta[r]) * scale);
        }
        for (size_t i = n; i < cols; i++) {
            prob[i] = 0;
            dscore[i] = 0;
        }
    }
}

static float NAME(cross_entropy)(void *dlogits, float *logits, size_t n, size_t target,
                                 float scale) {
    vf top = v_set(-3e38f);
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        top = v_max(v_load(logits + i), top);
    }
    float peak = v_highest(top);
    for (; i < n; i++) {
        peak = logits[i] > peak ? logits[i] : peak;
    }
    float at_target = logits[target];
    vf sum = {0};
    for (i = 0; i + VL <= n; i += VL) {
        vf e = v_exp(v_load(logits + i) - peak);
        v_store(logits + i, e);
        sum += e;
    }
    float total = v_sum(sum);
    for (; i < n; i++) {
        logits[i] = expf(logits[i] - peak);
        total += logits[i];
    }
    if (dlogits) {
        OP *out = dlogits;
        float factor = scale / total;
        for (i = 0; i + VL <= n; i += VL) {
            NAME(store)(out + i, v_load(logits + i) * factor);
        }
        for (; i < n; i++) {
            out[i] = NAME(put)(logits[i] * factor);
        }
        out[target] = NAME(put)(logits[target] * factor - scale);
    }
    return peak + logf(total) - at_target;
}

static float NAME(dot)(const void *a, const void *b, size_t n) {
    const OP *x = a, *y = b;
    vf sum = {0};
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        sum = v_fma(NAME(load)(x + i), NAME(load)(y + i), sum);
    }
    if (i < n) {
        sum = v_fma(NAME(load_part)(x + i, n - i), NAME(load_part)(y + i, n - i), sum);
    }
    return v_sum(sum);
}

/* ---- fp32 only: the same for both precisions --------------------------------------------------
 */
#if !OPERAND_BF16

static void TIER(rmsnorm_bwd)(float *dx, float *dw, const float *dy, const float *x, const float *w,
                              const float *rstd, size_t rows, size_t d) {
    for (size_t r = 0; r < rows; r++) {
        const float *g = dy + r * d, *in = x + r * d;
        vf sum = {0};
        size_t i = 0;
        for (; i + VL <= d; i += VL) {
            sum = v_fma(v_load(g + i) * v_load(w + i), v_load(in + i), sum);
        }
        if (i < d) {
            size_t n = d - i;
            sum = v_fma(TIER(load_tail)(g + i, n) * TIER(load_tail)(w + i, n),
                        TIER(load_tail)(in + i, n), sum);
        }
        float scale = rstd[r];
        float mean = v_sum(sum) / (float)d * scale * scale * scale;
        for (i = 0; i < d; i += VL) {
            size_t n = d - i < VL ? d - i : VL;
            bool full = n == VL;
            vf gv = full ? v_load(g + i) : TIER(load_tail)(g + i, n);
            vf wv = full ? v_load(w + i) : TIER(load_tail)(w + i, n);
            vf xv = full ? v_load(in + i) : TIER(load_tail)(in + i, n);
            vf out = full ? v_load(dx + r * d + i) : TIER(load_tail)(dx + r * d + i, n);
            vf acc = full ? v_load(dw + i) : TIER(load_tail)(dw + i, n);
            out += gv * wv * scale - xv * mean;
            acc = v_fma(gv, xv * scale, acc);
            if (full) {
                v_store(dx + r * d + i, out);
                v_store(dw + i, acc);
            } else {
                TIER(store_tail)(dx + r * d + i, out, n);
                TIER(store_tail)(dw + i, acc, n);
            }
        }
    }
}

static void TIER(add)(float *y, const float *x, size_t n) {
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        v_store(y + i, v_load(y + i) + v_load(x + i));
    }
    for (; i < n; i++) {
        y[i] += x[i];
    }
}

static double TIER(sum_squares)(const float *x, size_t n) {
    vf sum[4] = {{0}, {0}, {0}, {0}};
    size_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL) {
        for (size_t j = 0; j < 4; j++) {
            vf v = v_load(x + i + j * VL);
            sum[j] = v_fma(v, v, sum[j]);
        }
    }
    double total = (double)v_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (; i < n; i++) {
        total += (double)x[i] * (double)x[i];
    }
    return total;
}

static void TIER(adamw)(float *w, float *m, float *v, const float *g, size_t n,
                        const struct kiln_adamw *c) {
    for (size_t i = 0; i < n; i += VL) {
        size_t part = n - i < VL ? n - i : VL;
        bool full = part == VL;
        vf gv = (full ? v_load(g + i) : TIER(load_tail)(g + i, part)) * c->grad_scale;
        vf mv = full ? v_load(m + i) : TIER(load_tail)(m + i, part);
        vf vv = full ? v_load(v + i) : TIER(load_tail)(v + i, part);
        vf wv = full ? v_load(w + i) : TIER(load_tail)(w + i, part);
        mv = v_fma(gv - mv, v_set(1.0f - c->beta1), mv);
        vv = v_fma(gv * gv - vv, v_set(1.0f - c->beta2), vv);
        vf step = mv * c->correction1 / (v_sqrt(vv * c->correction2) + c->eps);
        wv = wv - c->lr * step - c->decay * wv;
        if (full) {
            v_store(w + i, wv);
            v_store(m + i, mv);
            v_store(v + i, vv);
        } else {
            TIER(store_tail)(w + i, wv, part);
            TIER(store_tail)(m + i, mv, part);
            TIER(store_tail)(v + i, vv, part);
        }
    }
}
#endif

#undef WORD

static void NAME(fill)(struct kiln_kernels *kernels) {
    kernels->gemm = kernels->gemm_own = NAME(gemm);
    kernels->pack_f32 = NAME(pack_f32);
    kernels->pack = NAME(pack);
    kernels->pack_t_f32 = NAME(pack_t_f32);
    kernels->pack_t = NAME(pack_t);
    kernels->transpose = NAME(transpose);
    kernels->round = NAME(round);
    kernels->widen = NAME(widen);
    kernels->rmsnorm = NAME(rmsnorm);
    kernels->rmsnorm_bwd = TIER(rmsnorm_bwd);
    kernels->rope = NAME(rope);
    kernels->swiglu = NAME(swiglu);
    kernels->swiglu_bwd = NAME(swiglu_bwd);
    kernels->softmax_causal = NAME(softmax_causal);
    kernels->softmax_causal_bwd = NAME(softmax_causal_bwd);
    kernels->cross_entropy = NAME(cross_entropy);
    kernels->dot = NAME(dot);
    kernels->add = TIER(add);
    kernels->sum_squares = TIER(sum_squares);
    kernels->adamw = TIER(adamw);
}
