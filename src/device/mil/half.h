/* SPDX-License-Identifier: MIT
 *
 * half.h: fp16 to fp32 and back, in integer arithmetic: the same bits on every machine, whatever
 * is set for subnormal numbers, and loops over it vectorise.
 */
#ifndef KILN_DEVICE_MIL_HALF_H
#define KILN_DEVICE_MIL_HALF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Exact. */
static inline float kiln_fp16_to_f32(uint16_t half) {
    const uint32_t magnitude = (uint32_t)(half & 0x7FFF) << 13;
    const uint32_t rebias = (uint32_t)(127 - 15) << 23;
    const uint32_t hidden = UINT32_C(1) << 23;
    uint32_t bits = magnitude + rebias;
    bits += rebias & -(uint32_t)(magnitude >= UINT32_C(31) << 23); /* inf and NaN */
    /* A subnormal is its digits behind a one, less that one. Masks, not branches: it vectorises. */
    uint32_t small_bits = bits + hidden;
    float small, out;
    memcpy(&small, &small_bits, sizeof small);
    small -= 0x1p-14F;
    memcpy(&small_bits, &small, sizeof small_bits);
    const uint32_t is_small = -(uint32_t)(magnitude < hidden);
    bits = (bits & ~is_small) | (small_bits & is_small) | (uint32_t)(half & 0x8000) << 16;
    memcpy(&out, &bits, sizeof out);
    return out;
}

/* To nearest, ties to even; from 65520 on it is infinite; any NaN becomes one quiet NaN. */
static inline uint16_t kiln_f64_to_fp16(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 48 & 0x8000);
    const double magnitude = fabs(value);
    if (isnan(value)) {
        return 0x7E00;
    }
    if (magnitude >= 65520.0) {
        return (uint16_t)(sign | 0x7C00);
    }
    if (magnitude < 0x1p-14) { /* in units of the smallest number */
        const double units = magnitude * 0x1p24;
        uint16_t whole = (uint16_t)units;
        const double rest = units - whole;
        whole = (uint16_t)(whole + (rest > 0.5 || (rest == 0.5 && (whole & 1) != 0)));
        return (uint16_t)(sign | whole);
    }
    bits &= UINT64_MAX >> 1;
    bits += (UINT64_C(1) << 41) - 1 + (bits >> 42 & 1);
    return (uint16_t)(sign | ((bits >> 42) - ((uint64_t)(1023 - 15) << 10)));
}

static inline uint16_t kiln_f32_to_fp16(float value) { return kiln_f64_to_fp16((double)value); }

#endif
