/* SPDX-License-Identifier: MIT
 *
 * x86.h: what one tier of this folder uses of another.
 */
#ifndef KILN_KERNEL_X86_H
#define KILN_KERNEL_X86_H

#include "kernel/kernel.h"

/* bf16 products by VDPBF16PS. */
void kiln_gemm_avx512bf16(const struct kiln_gemm *g);

#endif
