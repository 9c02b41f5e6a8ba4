/* SPDX-License-Identifier: MIT
 *
 * lab.h: what the tests of kernels share: every tier of this machine beside ref, random operands,
 * and memory with guard bands.
 */
#ifndef KILN_TESTS_LAB_H
#define KILN_TESTS_LAB_H

#include "kernel/kernel.h"
#include "kiln_test.h"

/* The kernels under test beside the plain ones, of one precision. */
struct lab {
    struct kiln_kernels k, ref;
    bool bf16;
};

/* Run a check on every tier and precision, and on oneDNN's products where this machine has them. */
void lab_on_every_tier(void (*check)(const struct lab *lab));

/* Half a unit in the last place of 1: what one rounding to fp32 is off by, relatively. */
#define U 0x1p-24
/* What two roundings of nearly equal numbers to operands may differ by, relatively: a unit. */
double lab_operand_ulp(const struct lab *lab);

/* Memory whose first byte is `odd` elements behind a 64-byte boundary, with guard bands on both
 * sides. All of it, guards and data, is bytes 0xff: NaN in fp32 and bf16, so what is read and was
 * never written shows. lab_check_guards frees all and fails when a guard was written. */
void *lab_memory(size_t elements, size_t element_bytes, size_t odd);
void lab_check_guards(void);
/* The columns between `cols` and `ld` of a matrix are as lab_memory left them. */
void lab_check_gaps(const void *matrix, size_t rows, size_t cols, size_t ld, size_t element_bytes);

/* Random numbers: normal times `scale`. Operand arrays are float or bf16 by precision. */
float lab_normal(void);
float *lab_floats(size_t n, size_t odd, float scale);
void *lab_operands(const struct lab *lab, size_t n, size_t odd, float scale);
void *lab_copy(const void *from, size_t elements, size_t element_bytes, size_t odd);
double lab_get(const struct lab *lab, const void *operands, size_t i);
void lab_put(const struct lab *lab, void *operands, size_t i, float value);

/* got[i] is want[i] within tolerance + |want[i]| * relative; NaN fails. */
void lab_close(const struct lab *lab, const char *what, size_t i, double got, double want,
               double tolerance);

/* One product of these sizes on random operands, held against sums in double. */
/* OWN: c itself; ROW: one row for all */
enum lab_add { LAB_ADD_NONE, LAB_ADD_OWN, LAB_ADD_OTHER, LAB_ADD_ROW, LAB_ADDS };
struct lab_product {
    size_t m, n, k;
    enum lab_add add;
    bool c_operand;
    size_t behind; /* so much longer is the contraction that b was packed for; NaN */
};
void lab_check_product(const struct lab *lab, void (*gemm)(const struct kiln_gemm *),
                       const struct lab_product *s);

#define KERNEL(name) void check_##name(const struct lab *lab);
#include "kernel/kernels.inc"
#undef KERNEL

#endif
