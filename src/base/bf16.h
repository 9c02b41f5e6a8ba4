/* SPDX-License-Identifier: MIT
 *
 * bf16.h: bf16 <-> fp32, round to nearest even, NaN stays NaN.
 */
#ifndef KILN_BF16_H
#define KILN_BF16_H

#include <stdint.h>

static inline float kiln_bf16_to_f32(uint16_t x) {
    union {
        uint32_t u;
        float f;
    } v = {(uint32_t)x << 16};
    return v.f;
}
static inline uint16_t kiln_f32_to_bf16(float x) {
    union {
        float f;
        uint32_t u;
    } v = {x};
    if ((v.u & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)((v.u >> 16) | 0x40u);
    }
    return (uint16_t)((v.u + 0x7fffu + ((v.u >> 16) & 1u)) >> 16);
}

#endif
