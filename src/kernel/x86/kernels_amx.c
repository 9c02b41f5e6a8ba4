/* SPDX-License-Identifier: MIT
 *
 * kernels_amx.c: AVX512 with bf16, and products of bf16 on AMX. Few rows of gemm_own, which wait
 * for b and not for products, stay with AVX512.
 */
#include <immintrin.h>

#include "kernel/x86/amx_block.h"
#include "kernel/x86/x86.h"

/* However a product is cut over its rows, they have the same bits. */
static void gemm(const struct kiln_gemm *g) { amx_gemm(g, true); }

/* The products of attention: the thread has just written what they read. */
static void gemm_own(const struct kiln_gemm *g) {
    if (g->m <= KILN_GEMM_FEW) {
        kiln_gemm_avx512bf16(g);
    } else {
        amx_gemm(g, false);
    }
}

void kiln_kernels_amx(struct kiln_kernels *kernels, enum kiln_precision precision) {
    kiln_kernels_avx512bf16(kernels, precision);
    kernels->tier = "amx";
    if (precision == KILN_PRECISION_BF16) {
        kernels->gemm = gemm;
        kernels->gemm_own = gemm_own;
        kernels->few_as_many = false;
    }
}
