/* SPDX-License-Identifier: MIT
 *
 * kernels_avx512bf16.c: the vector kernels compiled for AVX512 with products and conversions of
 * bf16. fp32 stays as in AVX512.
 */
#include <assert.h>

#include "kernel/kernel.h"
#include "kernel/simd.h"
#include "kernel/x86/x86.h"

#define TIER(x)      x##_avx512bf16
#define NAME(x)      x##_f32_avx512bf16
#define OPERAND_BF16 0
#include "kernel/simd_body.h"
#undef NAME
#undef OPERAND_BF16

#define NAME(x)      x##_bf16_avx512bf16
#define OPERAND_BF16 1
#include "kernel/simd_body.h"

void kiln_gemm_avx512bf16(const struct kiln_gemm *g) { gemm_bf16_avx512bf16(g); }

void kiln_kernels_avx512bf16(struct kiln_kernels *kernels, enum kiln_precision precision) {
    kiln_kernels_ref(kernels, precision);
    kernels->tier = "avx512bf16";
    if (precision == KILN_PRECISION_BF16) {
        fill_bf16_avx512bf16(kernels);
    } else {
        fill_f32_avx512bf16(kernels);
    }
}
