/* SPDX-License-Identifier: MIT
 *
 * kernels_avx512bf16.c: the vector kernels compiled for AVX512 with products and conversions of
 * bf16. fp32 stays as in AVX512.
 */
#define TIER_NAME avx512bf16
#include "kernel/simd_tier.h"
#include "kernel/x86/x86.h"

void kiln_gemm_avx512bf16(const struct kiln_gemm *g) { gemm_bf16_avx512bf16(g); }
