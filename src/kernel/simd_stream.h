/* SPDX-License-Identifier: MIT
 *
 * simd_stream.h: how weights become their packed copies: rounding that leaves bf16 where the next
 * instruction wants it, and stores past the caches, of what nobody reads soon.
 *
 * A line that is written whole need not be read first. Only vectors of a whole line do that; where
 * a vector is smaller the store is an ordinary one.
 */
#ifndef KILN_KERNEL_SIMD_STREAM_H
#define KILN_KERNEL_SIMD_STREAM_H

#include "kernel/simd.h"

/* bf16 in the upper half of each lane, to nearest even, NaN as v_to_bf16 has it; what the lower
 * half holds has no meaning. */
#if defined(__AVX512BF16__)
INLINE vu v_upper_bf16(vf v) { return __builtin_convertvector(v_to_bf16(v), vu) << 16; }
#elif defined(__AVX512F__)
INLINE vu v_upper_bf16(vf v) {
    const __m512i u = (__m512i)v;
    const __mmask16 odd = _mm512_test_epi32_mask(u, _mm512_set1_epi32(0x10000));
    const __mmask16 nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
    __m512i up = _mm512_add_epi32(u, _mm512_set1_epi32(0x7fff));
    up = _mm512_mask_add_epi32(up, odd, up, _mm512_set1_epi32(1));
    return (vu)_mm512_mask_or_epi32(up, nan, u, _mm512_set1_epi32(0x400000));
}
#else
INLINE vu v_upper_bf16(vf v) {
    const vu u = (vu)v, nan = (vu)(v != v); /* NOLINT(misc-redundant-expression): true for NaN */
    return ((u + 0x7fffu + ((u >> 16) & 1u)) & ~nan) | ((u | 0x400000u) & nan);
}
#endif
/* Upper halves: lane by lane side by side, `low` in front; and one behind the other. */
INLINE vu v_upper_pairs(vu low, vu high) { return low >> 16 | (high & 0xffff0000u); }
#if defined(__AVX512BW__)
INLINE vu v_upper_words(vu first, vu second) {
    typedef uint16_t words __attribute__((vector_size(VL * 4)));
    return (vu)__builtin_shufflevector((words)first, (words)second, 1, 3, 5, 7, 9, 11, 13, 15, 17,
                                       19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43, 45, 47,
                                       49, 51, 53, 55, 57, 59, 61, 63);
}
#else
INLINE vu v_upper_words(vu first, vu second) {
    const vh low = __builtin_convertvector(first >> 16, vh);
    const vh high = __builtin_convertvector(second >> 16, vh);
    vu both;
    memcpy(&both, &low, sizeof low);
    memcpy((char *)&both + sizeof low, &high, sizeof high);
    return both;
}
#endif

#if defined(__AVX512F__)
INLINE void v_stream(void *p, vu v) { _mm512_stream_si512(p, (__m512i)v); }
/* After the last of them: other threads see them in the order that locks promise. */
INLINE void v_stream_end(void) { _mm_sfence(); }
#else
INLINE void v_stream(void *p, vu v) { memcpy(p, &v, sizeof v); }
INLINE void v_stream_end(void) {}
#endif

#endif
