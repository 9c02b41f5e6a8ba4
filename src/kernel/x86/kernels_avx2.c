/* SPDX-License-Identifier: MIT
 *
 * kernels_avx2.c: the vector kernels compiled for AVX2 with FMA.
 */
#define TIER_NAME avx2
#include "kernel/simd_tier.h"
