/* SPDX-License-Identifier: MIT
 *
 * kernels_ref.c: every kernel in plain C: what the vector tiers are held against, and what runs
 * where there is no tier. Read this file to learn what a kernel computes.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernel/kernel.h"

#define NAME(x)      x##_f32_ref
#define OPERAND_BF16 0
#include "kernel/ref/ref_body.h"
#undef NAME
#undef OPERAND_BF16

#define NAME(x)      x##_bf16_ref
#define OPERAND_BF16 1
#include "kernel/ref/ref_body.h"

void kiln_kernels_ref(struct kiln_kernels *kernels, enum kiln_precision precision) {
    kernels->tier = "ref";
    kernels->provider = "own";
    kernels->precision = precision;
    kernels->few_as_many = precision == KILN_PRECISION_BF16;
    kernels->rows_apart = true;
    if (precision == KILN_PRECISION_BF16) {
        kernels->operand_bytes = 2;
        fill_bf16_ref(kernels);
    } else {
        kernels->operand_bytes = 4;
        fill_f32_ref(kernels);
    }
}
