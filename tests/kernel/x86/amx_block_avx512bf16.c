/* SPDX-License-Identifier: MIT
 *
 * The AMX block on emulated tiles, with the rest of it compiled as in its tier.
 */
#include "kernel/amx_emulated.h"
#include "kernel/x86/amx_block.h"

void amx_block_avx512bf16(const struct kiln_gemm *g);
void amx_block_avx512bf16(const struct kiln_gemm *g) {
    amx_gemm(g, true);
    CHECK(!emulated.configured);
}
