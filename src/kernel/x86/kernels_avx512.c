/* SPDX-License-Identifier: MIT
 *
 * kernels_avx512.c: the vector kernels compiled for AVX512.
 */
#define TIER_NAME avx512
#include "kernel/simd_tier.h"
