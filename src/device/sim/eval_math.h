/* SPDX-License-Identifier: MIT
 *
 * eval_math.h: e^x in plain C that compilers turn into vectors: 2 units in the last place of fp32,
 * where fp16 rounds at 4096 of them.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2 in two parts (Cody and Waite), e^r by a polynomial of degree
 * 6 (Taylor's series, whose next term is below 2^-22 of an fp32's last place), 2^n in two factors,
 * so that results beyond fp32 become infinity and tiny ones 0. NaN gives NaN.
 */
#ifndef KILN_DEVICE_SIM_EVAL_MATH_H
#define KILN_DEVICE_SIM_EVAL_MATH_H

#include <stdint.h>

/* Nobody reads the flags of floating-point exceptions, so both sides of a choice may be computed:
 * without that gcc makes no vector code of it. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-trapping-math")
#endif

/* 2^n for -126 <= n <= 127. */
static inline float kiln_sim_power_of_two(int32_t n) {
    union {
        int32_t i;
        float f;
    } v = {(n + 127) << 23};
    return v.f;
}

static inline float kiln_sim_exp(float x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float bounded = x < -104.0f ? -104.0f : x;
    bounded = bounded > 89.0f ? 89.0f : bounded;
    float n = (bounded * 1.44269504f + magic) - magic;
    float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    /* NaN: the conversion below is of a number; NaN goes on in p. */
    int32_t whole = (int32_t)(n == n ? n : 0.0f); /* NOLINT(misc-redundant-expression) */
    int32_t half = whole >> 1;
    return p * kiln_sim_power_of_two(half) * kiln_sim_power_of_two(whole - half);
}

#endif
