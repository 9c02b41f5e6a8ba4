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
#if defined(__AVX512BF16__)
INLINE OP NAME(put)(float x) { return v_to_bf16(v_set(x))[0]; } /* flushes as vectors do */
#else
INLINE OP NAME(put)(float x) { return kiln_f32_to_bf16(x); }
#endif
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

#include "kernel/simd_pack.h"
#if !OPERAND_BF16
#include "kernel/simd_array.h"
#endif

/* ---- products ---------------------------------------------------------------------------------
 */

/* Columns j.. of row i of the result. */
INLINE void NAME(put_sum)(const struct kiln_gemm *g, size_t i, size_t j, vf sum) {
    const size_t n = g->n - j < VL ? g->n - j : VL;
    if (g->add) {
        const float *add = g->add + i * g->ldadd + j;
        sum += n == VL ? v_load(add) : TIER(load_tail)(add, n);
    }
    if (g->c_operand) {
        OP *out = (OP *)g->c + i * g->ldc + j;
        n == VL ? NAME(store)(out, sum) : NAME(store_part)(out, sum, n);
    } else {
        float *out = (float *)g->c + i * g->ldc + j;
        n == VL ? v_store(out, sum) : TIER(store_tail)(out, sum, n);
    }
}
/* The sums of a block, KILN_GEMM_N apart. */
INLINE void NAME(put_sums)(const struct kiln_gemm *g, const float *sums) {
    for (size_t i = 0; i < g->m; i++) {
        for (size_t j = 0; j < g->n; j += VL) {
            NAME(put_sum)(g, i, j, v_load(sums + i * KILN_GEMM_N + j));
        }
    }
}

#if !OPERAND_BF16
#include "kernel/simd_few.h"
#include "kernel/simd_direct.h"
#elif defined(HAS_DOT)
#include "kernel/simd_direct.h"
#else
#include "kernel/simd_few.h"
#include "kernel/simd_widen.h"
#endif

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

/* Pairs side by side: x * (c, c) + (x1, x0) * (-s, s). */
static void NAME(rope)(void *x, size_t ld, size_t rows, size_t heads, size_t k, const float *angles,
                       size_t first, size_t period, bool inverse) {
    const float sign = inverse ? -1.0f : 1.0f;
    const vf signs = v_odd_lanes(v_set(sign), v_set(-sign));
    for (size_t r = 0; r < rows; r++) {
        const float *angle = angles + (first + r) % period * k;
        OP *row = (OP *)x + r * ld;
        size_t i = 0;
        for (; i + VL <= k; i += VL) {
            const vf turn = v_load(angle + i);
            const vf c = v_of_even(turn), s = v_of_odd(turn) * signs;
            for (size_t h = 0; h < heads; h++) {
                const vf pair = NAME(load)(row + h * k + i);
                NAME(store)(row + h * k + i, pair * c + v_swap_pairs(pair) * s);
            }
        }
        for (; i < k; i += 2) {
            const float c = angle[i], s = angle[i + 1] * sign;
            for (size_t h = 0; h < heads; h++) {
                OP *pair = row + h * k + i;
                float a = NAME(get)(pair[0]), b = NAME(get)(pair[1]);
                pair[0] = NAME(put)(a * c - b * s);
                pair[1] = NAME(put)(a * s + b * c);
            }
        }
    }
}

#include "kernel/simd_heads.h"

/* ---- SwiGLU ---------------------------------------------------------------------------------- */

static void NAME(swiglu)(void *gate, const void *h, size_t rows, size_t f) {
    for (size_t r = 0; r < rows; r++) {
        const OP *h1 = (const OP *)h + r * 2 * f, *h3 = h1 + f;
        OP *out = (OP *)gate + r * f;
        for (size_t i = 0; i < f; i += VL) {
            size_t n = f - i < VL ? f - i : VL;
            vf a = n == VL ? NAME(load)(h1 + i) : NAME(load_part)(h1 + i, n);
            vf b = n == VL ? NAME(load)(h3 + i) : NAME(load_part)(h3 + i, n);
            vf v = a * v_reciprocal(1.0f + v_exp(-a)) * b;
            n == VL ? NAME(store)(out + i, v) : NAME(store_part)(out + i, v, n);
        }
    }
}

static void NAME(swiglu_bwd)(void *dh, void *gate, const void *dgate, const void *h, size_t rows,
                             size_t f) {
    for (size_t r = 0; r < rows; r++) {
        const OP *h1 = (const OP *)h + r * 2 * f, *h3 = h1 + f;
        const OP *dg = (const OP *)dgate + r * f;
        OP *d1 = (OP *)dh + r * 2 * f, *d3 = d1 + f;
        OP *out = gate ? (OP *)gate + r * f : NULL;
        for (size_t i = 0; i < f; i += VL) {
            size_t n = f - i < VL ? f - i : VL;
            vf a = n == VL ? NAME(load)(h1 + i) : NAME(load_part)(h1 + i, n);
            vf b = n == VL ? NAME(load)(h3 + i) : NAME(load_part)(h3 + i, n);
            vf d = n == VL ? NAME(load)(dg + i) : NAME(load_part)(dg + i, n);
            vf s = v_reciprocal(1.0f + v_exp(-a));
            vf silu = a * s;
            vf da = d * b * (s + silu * (1.0f - s));
            vf db = d * silu;
            if (out) {
                n == VL ? NAME(store)(out + i, silu * b) : NAME(store_part)(out + i, silu * b, n);
            }
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
        /* Never beyond what has been read: the two may be one. */
        OP *out = dlogits;
        float factor = scale / total, hit = logits[target] * factor - scale;
        for (i = 0; i + VL <= n; i += VL) {
            NAME(store)(out + i, v_load(logits + i) * factor);
        }
        if (i < n) {
            NAME(store_part)(out + i, TIER(load_tail)(logits + i, n - i) * factor, n - i);
        }
        OP at = NAME(put)(hit);
        memcpy(out + target, &at, sizeof at);
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

/* ---- fp16 ------------------------------------------------------------------------------------ */

static void TIER(half_of)(uint16_t *dst, const float *src, size_t n) {
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        vh h = v_to_half(v_load(src + i));
        memcpy(dst + i, &h, sizeof h);
    }
    for (; i < n; i++) {
        dst[i] = kiln_f32_to_f16(src[i]);
    }
}

static void TIER(half_to)(float *dst, const uint16_t *src, size_t n) {
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        vh h;
        memcpy(&h, src + i, sizeof h);
        v_store(dst + i, v_from_half(h));
    }
    for (; i < n; i++) {
        dst[i] = kiln_f16_to_f32(src[i]);
    }
}

static void TIER(half_round)(float *x, size_t n) {
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        v_store(x + i, v_from_half(v_to_half(v_load(x + i))));
    }
    for (; i < n; i++) {
        x[i] = kiln_f16_to_f32(kiln_f32_to_f16(x[i]));
    }
}
#endif

#undef WORD

static void NAME(fill)(struct kiln_kernels *kernels) {
    kernels->gemm = NAME(gemm);
    kernels->gemm_own = NAME(gemm_own);
    kernels->pack_f32 = NAME(pack_f32);
    kernels->pack = NAME(pack);
    kernels->pack_t_f32 = NAME(pack_t_f32);
    kernels->pack_t = NAME(pack_t);
    kernels->pack_both = NAME(pack_both);
    kernels->transpose = NAME(transpose);
    kernels->round = NAME(round);
    kernels->widen = NAME(widen);
    kernels->rmsnorm = NAME(rmsnorm);
    kernels->rmsnorm_bwd = TIER(rmsnorm_bwd);
    kernels->rope = NAME(rope);
    kernels->head_norm = NAME(head_norm);
    kernels->head_norm_bwd = NAME(head_norm_bwd);
    kernels->sum_rows = NAME(sum_rows);
    kernels->swiglu = NAME(swiglu);
    kernels->swiglu_bwd = NAME(swiglu_bwd);
    kernels->softmax_causal = NAME(softmax_causal);
    kernels->softmax_causal_bwd = NAME(softmax_causal_bwd);
    kernels->embed = TIER(embed);
    kernels->embed_bwd = TIER(embed_bwd);
    kernels->cross_entropy = NAME(cross_entropy);
    kernels->dot = NAME(dot);
    kernels->add = TIER(add);
    kernels->sum_squares = TIER(sum_squares);
    kernels->adamw = TIER(adamw);
    kernels->half_of = TIER(half_of);
    kernels->half_to = TIER(half_to);
    kernels->half_round = TIER(half_round);
}
