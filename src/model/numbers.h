/* SPDX-License-Identifier: MIT
 *
 * numbers.h: the numbers of model files to fp32 and back. Fp16 and bf16 are rounded to nearest,
 * ties to even; Q8_0 as ggml does (blocks of KILN_Q8_BLOCK: scale = largest magnitude / 127 as
 * fp16, each value / scale rounded to nearest, ties away from zero).
 */
#ifndef KILN_MODEL_NUMBERS_H
#define KILN_MODEL_NUMBERS_H

#include "kiln/model.h"

enum { KILN_Q8_BLOCK = 32, KILN_Q8_BLOCK_BYTES = 34 };

/* Bytes of n numbers; of Q8_0, n is a multiple of KILN_Q8_BLOCK. */
size_t kiln_dtype_bytes(enum kiln_dtype dtype, size_t n);
/* n numbers at `from`, which need not be aligned, as fp32. */
void kiln_dtype_decode(enum kiln_dtype dtype, float *to, const void *from, size_t n);
/* n finite numbers in the form of a file. False when one is beyond the largest of fp16. */
bool kiln_dtype_encode(enum kiln_dtype dtype, void *to, const float *from, size_t n);

#endif
