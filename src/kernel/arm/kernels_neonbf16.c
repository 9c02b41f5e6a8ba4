/* SPDX-License-Identifier: MIT
 *
 * kernels_neonbf16.c: the vector kernels compiled for NEON with products and conversions of bf16
 * (FEAT_BF16). fp32 stays as in NEON.
 */
#define TIER_NAME neonbf16
#include "kernel/simd_tier.h"
