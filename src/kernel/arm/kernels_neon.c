/* SPDX-License-Identifier: MIT
 *
 * kernels_neon.c: the vector kernels compiled for NEON, which every 64-bit Arm has. bf16 is widened
 * to fp32.
 */
#define TIER_NAME neon
#include "kernel/simd_tier.h"
