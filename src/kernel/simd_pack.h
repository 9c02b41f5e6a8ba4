/* SPDX-License-Identifier: MIT
 *
 * simd_pack.h: packing and transposing of one tier and precision (a part of simd_body.h).
 */
#include "kernel/simd_stream.h"

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

/* ---- both copies of a weight in one reading ------------------------------------------------- */

INLINE void NAME(put_line)(OP *out, vu word, bool stream) {
    if (stream) {
        v_stream(out, word);
    } else {
        memcpy(out, &word, sizeof word);
    }
}

/* VL words of WORD rows at `src`, ld apart: as lines of `backward`, and row by row into `word`. */
#if OPERAND_BF16
INLINE void NAME(pack_rows)(OP *backward, vu word[2], const float *src, size_t ld, bool stream) {
    const vu even[] = {v_upper_bf16(v_load(src)), v_upper_bf16(v_load(src + VL))};
    const vu odd[] = {v_upper_bf16(v_load(src + ld)), v_upper_bf16(v_load(src + ld + VL))};
    NAME(put_line)(backward, v_upper_pairs(even[0], odd[0]), stream);
    NAME(put_line)(backward + 2 * VL, v_upper_pairs(even[1], odd[1]), stream);
    word[0] = v_upper_words(even[0], even[1]);
    word[1] = v_upper_words(odd[0], odd[1]);
}
#else
INLINE void NAME(pack_rows)(OP *backward, vu word[1], const float *src, size_t ld, bool stream) {
    (void)ld;
    word[0] = (vu)v_load(src);
    NAME(put_line)(backward, word[0], stream);
}
#endif

INLINE void NAME(pack_square)(OP *forward, size_t panel, OP *backward, const float *src, size_t ld,
                              size_t k, bool stream) {
    for (size_t p = 0; p < k; p += VL * WORD) {
        for (size_t j = 0; j < KILN_PANEL; j += VL) {
            OP *turned = backward + p / KILN_PANEL * panel + PACKED_AT(j, p % KILN_PANEL);
            vu word[VL];
            for (size_t i = 0; i < VL; i += WORD) {
                NAME(pack_rows)
                (turned + PACKED_AT(i, 0), word + i, src + (j + i) * ld + p, ld, stream);
            }
            v_transpose(word);
            for (size_t i = 0; i < VL; i++) {
                NAME(put_line)(forward + PACKED_AT(p + i * WORD, j), word[i], stream);
            }
        }
    }
}

static void NAME(pack_both)(void *forward, void *backward, size_t panel, const float *src,
                            size_t ld, size_t n, size_t k, bool stream) {
    if (n != KILN_PANEL || k % KILN_PANEL != 0) {
        NAME(pack_f32)(forward, kiln_panel_elements(k), src, ld, n, k);
        NAME(pack_t_f32)(backward, panel, src, ld, n, k);
    } else if (stream) {
        NAME(pack_square)(forward, panel, backward, src, ld, k, true);
        v_stream_end();
    } else {
        NAME(pack_square)(forward, panel, backward, src, ld, k, false);
    }
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
