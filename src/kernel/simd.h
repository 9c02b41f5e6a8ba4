/* SPDX-License-Identifier: MIT
 *
 * simd.h: one vector of fp32, as wide as the tier that includes it.
 *
 * The kernels of simd_body.h are written once over GCC's vector extension and compiled once a
 * tier; only what the extension cannot say (fused multiply-add, square root, select) is named
 * here per instruction set. Everything is static inline: no code of one tier can be called from
 * another.
 */
#ifndef KILN_KERNEL_SIMD_H
#define KILN_KERNEL_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define VL           16
#define GEMM_COLUMNS 4   /* vectors across a register tile: 6 x 64 */
#define GEMM_KC      128 /* depth of a chunk: 64 x 128 fp32 fill most of L1 */
#define GEMM_SUMS    16  /* vectors of sums of few rows: half of the registers */
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#define VL           4
#define GEMM_COLUMNS 4   /* 6 x 16: 24 sums in 32 registers, 5 more for a column and a row */
#define GEMM_KC      128 /* 32 KB of an L1 of 64 or more */
#define GEMM_SUMS    16
#else /* AVX2; without its flags the functions below do not compile */
#include <immintrin.h>
#define VL           8
#define GEMM_COLUMNS 2 /* 6 x 16 */
#define GEMM_KC      64
#define GEMM_SUMS    8
#endif
#define GEMM_ROWS 6

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));
typedef uint16_t vh __attribute__((vector_size(VL * 2)));

typedef double vd __attribute__((vector_size(VL * 4)));
typedef float vf_half __attribute__((vector_size(VL * 2)));

#define INLINE static inline __attribute__((always_inline))

/* Before a loop of a constant few turns over registers: all of them, one after the other. clang
 * passes over gcc's word for it in silence, and leaves the registers in memory. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

INLINE vf v_set(float x) { return x - (vf){0}; }
INLINE vf v_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE void v_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
INLINE vf v_select(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
INLINE vf v_max(vf a, vf b) { return v_select(a > b, a, b); }

/* Half as many doubles, from and to fp32 in memory. */
INLINE vd v_load_double(const float *p) {
    vf_half v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, vd);
}
INLINE void v_store_double(float *p, vd v) {
    vf_half half = __builtin_convertvector(v, vf_half);
    memcpy(p, &half, sizeof half);
}

#if defined(__AVX512F__)
INLINE vd v_fma_double(vd a, vd b, vd c) {
    return (vd)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
INLINE vf v_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
INLINE vf v_sqrt(vf a) { return (vf)_mm512_sqrt_ps((__m512)a); }
#elif defined(__ARM_NEON)
INLINE vd v_fma_double(vd a, vd b, vd c) {
    return (vd)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
INLINE vf v_fma(vf a, vf b, vf c) {
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
INLINE vf v_sqrt(vf a) { return (vf)vsqrtq_f32((float32x4_t)a); }
#else
INLINE vd v_fma_double(vd a, vd b, vd c) {
    return (vd)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
INLINE vf v_fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
INLINE vf v_sqrt(vf a) { return (vf)_mm256_sqrt_ps((__m256)a); }
#endif

/* Lanes added in a fixed tree. */
INLINE float v_sum(vf v) {
    float lane[VL];
    memcpy(lane, &v, sizeof v);
    for (int half = VL / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            lane[i] += lane[i + half];
        }
    }
    return lane[0];
}
INLINE float v_highest(vf v) {
    float lane[VL];
    memcpy(lane, &v, sizeof v);
    float top = lane[0];
    for (int i = 1; i < VL; i++) {
        top = lane[i] > top ? lane[i] : top;
    }
    return top;
}

/* bf16 <-> fp32. Rounding is to nearest even in integers; NaN keeps its top bits and a quiet bit.
 * BFCVTN gives those very bits, VCVTNEPS2BF16 but for subnormal numbers, which become 0: products
 * of bf16 would take them for 0 as well. */
INLINE vf v_from_bf16(vh h) { return (vf)(__builtin_convertvector(h, vu) << 16); }
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define V_FLUSHES false
INLINE vh v_to_bf16(vf v) { return (vh)vcvt_bf16_f32((float32x4_t)v); }
#elif defined(__AVX512BF16__)
#define V_FLUSHES true
INLINE vh v_to_bf16(vf v) { return (vh)_mm512_cvtneps_pbh((__m512)v); }
#else
#define V_FLUSHES false
INLINE vh v_to_bf16(vf v) {
    vu u = (vu)v;
    vu rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    vu quiet = (u >> 16) | 0x40u;
    vu nan = (vu)(v != v); /* NOLINT(misc-redundant-expression): true for NaN */
    return __builtin_convertvector((rounded & ~nan) | (quiet & nan), vh);
}
#endif

/* fp16 <-> fp32 by the CPU's own conversions: to nearest even, NaN becomes quiet. */
#if defined(__AVX512F__)
INLINE vf v_from_half(vh h) { return (vf)_mm512_cvtph_ps((__m256i)h); }
INLINE vh v_to_half(vf v) {
    return (vh)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#elif defined(__ARM_NEON)
INLINE vf v_from_half(vh h) { return (vf)vcvt_f32_f16((float16x4_t)h); }
INLINE vh v_to_half(vf v) { return (vh)vcvt_f16_f32((float32x4_t)v); }
#else
INLINE vf v_from_half(vh h) { return (vf)_mm256_cvtph_ps((__m128i)h); }
INLINE vh v_to_half(vf v) {
    return (vh)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#endif

/* Sums of pairs of bf16 (simd_direct.h), where the CPU does it. */
#if defined(__AVX512BF16__)
#define HAS_DOT
INLINE vf v_dot(vf sum, vu x, vu y) {
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
}
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define HAS_DOT
/* By one lane of x, whose lanes are all the same in products: gcc then leaves out the copying. */
INLINE vf v_dot(vf sum, vu x, vu y) {
    return (vf)vbfdotq_laneq_f32((float32x4_t)sum, (bfloat16x8_t)y, (bfloat16x8_t)x, 0);
}
#endif

/* Transpose a square of VL x VL 32-bit words in registers: at distance d = 1, 2, 4, ... rows i and
 * i+d exchange the off-diagonal halves of every 2d x 2d square (Eklundh 1972). */
#if VL == 16
#define LANES(F, d)                                                                           \
    F(0, d), F(1, d), F(2, d), F(3, d), F(4, d), F(5, d), F(6, d), F(7, d), F(8, d), F(9, d), \
        F(10, d), F(11, d), F(12, d), F(13, d), F(14, d), F(15, d)
#elif VL == 8
#define LANES(F, d) F(0, d), F(1, d), F(2, d), F(3, d), F(4, d), F(5, d), F(6, d), F(7, d)
#else
#define LANES(F, d) F(0, d), F(1, d), F(2, d), F(3, d)
#endif
#define UPPER_LANE(l, d) (((l) & (d)) ? VL + (l) - (d) : (l))
#define LOWER_LANE(l, d) (((l) & (d)) ? VL + (l) : (l) + (d))
#define TRANSPOSE_STAGE(row, d)                                                           \
    for (int i = 0; i < VL; i++) {                                                        \
        if (!(i & (d))) {                                                                 \
            vu upper = (row)[i], lower = (row)[i + (d)];                                  \
            (row)[i] = __builtin_shufflevector(upper, lower, LANES(UPPER_LANE, d));       \
            (row)[i + (d)] = __builtin_shufflevector(upper, lower, LANES(LOWER_LANE, d)); \
        }                                                                                 \
    }
INLINE void v_transpose(vu row[VL]) {
    UNROLL TRANSPOSE_STAGE(row, 1);
    UNROLL TRANSPOSE_STAGE(row, 2);
#if VL > 4
    UNROLL TRANSPOSE_STAGE(row, 4);
#endif
#if VL > 8
    UNROLL TRANSPOSE_STAGE(row, 8);
#endif
}

/* Pairs of lanes: (x1, x0, x3, x2, ...), (x0, x0, x2, x2, ...), (x1, x1, x3, x3, ...), and odd
 * lanes of one between even lanes of another. */
#define SWAPPED_LANE(l, d) ((l) ^ (d))
#define EVEN_LANE(l, d)    ((l) & ~(d))
#define ODD_LANE(l, d)     ((l) | (d))
#define MIXED_LANE(l, d)   (((l) & (d)) ? (l) : VL + (l))
INLINE vf v_swap_pairs(vf v) { return __builtin_shufflevector(v, v, LANES(SWAPPED_LANE, 1)); }
INLINE vf v_of_even(vf v) { return __builtin_shufflevector(v, v, LANES(EVEN_LANE, 1)); }
INLINE vf v_of_odd(vf v) { return __builtin_shufflevector(v, v, LANES(ODD_LANE, 1)); }
INLINE vf v_odd_lanes(vf odd, vf even) {
    return __builtin_shufflevector(odd, even, LANES(MIXED_LANE, 1));
}

/* 1/x of a normal x > 0 to an ulp or two: a division takes as long as a dozen products. */
#if defined(__AVX512F__)
INLINE vf v_reciprocal(vf x) {
    vf y = (vf)_mm512_rcp14_ps((__m512)x);
    return v_fma(y, v_fma(-x, y, v_set(1.0f)), y);
}
#else
INLINE vf v_reciprocal(vf x) { return 1.0f / x; }
#endif

/* e^x, 2 ulp on [-87.3, 88]; below it flushes to 0, above it saturates near the largest float.
 * x = n ln2 + r with |r| <= ln2/2 in two parts (Cody and Waite), e^r by a polynomial of degree 6,
 * 2^n by the exponent field. NaN gives NaN. */
INLINE vf v_exp(vf x) {
    const vf low = v_set(-87.33654f), high = v_set(88.3762626647949f);
#if defined(__AVX512F__)
    /* The second operand where one is NaN. */
    const vf bounded = (vf)_mm512_min_ps((__m512)high, (__m512)x);
#else
    const vf bounded = v_select(x > high, high, x);
#endif
    vf magic = v_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    vf n = v_fma(bounded, v_set(1.44269504088896341f), magic) - magic;
    vf r = v_fma(n, v_set(-0.693145751953125f), bounded);
    r = v_fma(n, v_set(-1.42860682030941723e-6f), r);
    vf p = v_set(1.9875691500e-4f);
    p = v_fma(p, r, v_set(1.3981999507e-3f));
    p = v_fma(p, r, v_set(8.3334519073e-3f));
    p = v_fma(p, r, v_set(4.1665795894e-2f));
    p = v_fma(p, r, v_set(1.6666665459e-1f));
    p = v_fma(p, r, v_set(5.0000001201e-1f));
    p = v_fma(p, r * r, r) + 1.0f;
#if defined(__AVX512F__)
    const __mmask16 some = _mm512_cmp_ps_mask((__m512)x, (__m512)low, _CMP_NLT_UQ);
    return (vf)_mm512_maskz_scalef_ps(some, (__m512)p, (__m512)n);
#else
    vi tiny = x < low;
    vi exponent = __builtin_convertvector(v_select(tiny, v_set(0.0f), n), vi) << 23;
    vf scaled = (vf)((vi)p + exponent);
    /* NOLINTNEXTLINE(misc-redundant-expression): true for NaN */
    return v_select(x != x, x, v_select(tiny, v_set(0.0f), scaled));
#endif
}

#endif
