/* SPDX-License-Identifier: MIT
 *
 * kernels_neon.c: the vector kernels compiled for NEON, which every 64-bit Arm has. bf16 is widened
 * to fp32.
 */
#include <assert.h>

#include "kernel/kernel.h"
#include "kernel/simd.h"

#define TIER(x)      x##_neon
#define NAME(x)      x##_f32_neon
#define OPERAND_BF16 0
#include "kernel/simd_body.h"
#undef NAME
#undef OPERAND_BF16

#define NAME(x)      x##_bf16_neon
#define OPERAND_BF16 1
#include "kernel/simd_body.h"

void kiln_kernels_neon(struct kiln_kernels *kernels, enum kiln_precision precision) {
    kiln_kernels_ref(kernels, precision);
    kernels->tier = "neon";
    if (precision == KILN_PRECISION_BF16) {
        fill_bf16_neon(kernels);
    } else {
        fill_f32_neon(kernels);
    }
}
