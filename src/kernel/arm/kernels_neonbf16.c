/* SPDX-License-Identifier: MIT
 *
 * kernels_neonbf16.c: the vector kernels compiled for NEON with products and conversions of bf16
 * (FEAT_BF16). fp32 stays as in NEON.
 */
#include <assert.h>

#include "kernel/kernel.h"
#include "kernel/simd.h"

#define TIER(x)      x##_neonbf16
#define NAME(x)      x##_f32_neonbf16
#define OPERAND_BF16 0
#include "kernel/simd_body.h"
#undef NAME
#undef OPERAND_BF16

#define NAME(x)      x##_bf16_neonbf16
#define OPERAND_BF16 1
#include "kernel/simd_body.h"

void kiln_kernels_neonbf16(struct kiln_kernels *kernels, enum kiln_precision precision) {
    kiln_kernels_ref(kernels, precision);
    kernels->tier = "neonbf16";
    if (precision == KILN_PRECISION_BF16) {
        fill_bf16_neonbf16(kernels);
    } else {
        fill_f32_neonbf16(kernels);
    }
}
