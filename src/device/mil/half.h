/* SPDX-License-Identifier: MIT
 *
 * half.h: decimal numbers to fp16, rounded once: by way of fp32 they would be rounded twice.
 * Between fp16 and fp32: kernel/kernel.h.
 */
#ifndef KILN_DEVICE_MIL_HALF_H
#define KILN_DEVICE_MIL_HALF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernel/kernel.h"

/* To nearest, ties to even; from 65520 on it is infinite; any NaN becomes one quiet NaN. */
static inline uint16_t kiln_f64_to_f16(double value) {
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

#endif
