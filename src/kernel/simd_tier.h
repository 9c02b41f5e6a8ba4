/* SPDX-License-Identifier: MIT
 *
 * simd_tier.h: the vector kernels of one tier, fp32 and bf16, and the function that fills them in.
 * Included once by each tier's file, whose name says which flags it is compiled with, behind
 *
 *   #define TIER_NAME avx2
 */
#include <assert.h>

#include "kernel/kernel.h"
#include "kernel/simd.h"

#define TIER_JOIN(x, tier)   x##_##tier
#define TIER_EXPAND(x, tier) TIER_JOIN(x, tier)
#define TIER_TEXT(tier)      #tier
#define TIER_STRING(tier)    TIER_TEXT(tier)
#define TIER(x)              TIER_EXPAND(x, TIER_NAME)

#define NAME(x)      TIER(x##_f32)
#define OPERAND_BF16 0
#include "kernel/simd_body.h"
#undef NAME
#undef OPERAND_BF16

#define NAME(x)      TIER(x##_bf16)
#define OPERAND_BF16 1
#include "kernel/simd_body.h"

void TIER(kiln_kernels)(struct kiln_kernels *kernels, enum kiln_precision precision) {
    kiln_kernels_ref(kernels, precision);
    kernels->tier = TIER_STRING(TIER_NAME);
    kernels->flushes = V_FLUSHES;
    if (precision == KILN_PRECISION_BF16) {
        TIER(fill_bf16)(kernels);
    } else {
        TIER(fill_f32)(kernels);
    }
}
