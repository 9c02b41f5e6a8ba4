/* SPDX-License-Identifier: MIT
 *
 * gradient_sums.h: the squares of a window's gradient, summed where it is written last.
 *
 * The norm wants the sum of squares of all gradients. Whoever writes the last of a matrix has it in
 * the cache and sums it there; what nobody summed on the way, after a restart or where a device
 * does not, the optimizer sums from memory. Sums are of blocks of 64 x 64 of a matrix (the last of
 * a row or column smaller), each a function of the block's final values alone
 * (kernels.sum_squares), and are added in one order: bits do not depend on who summed, on threads,
 * plan or restarts.
 *
 * Left out, always summed from memory: tensors that are no matrix, and the classifier of tied
 * models, to which the lookup's gradient is still to be added.
 */
#ifndef KILN_DEVICE_GRADIENT_SUMS_H
#define KILN_DEVICE_GRADIENT_SUMS_H

#include <stdbool.h>
#include <stddef.h>

#include "kernel/kernel.h"
#include "kiln/model.h"
#include "kiln/status.h"

struct kiln_gradient_sums {
    const struct kiln_table *table; /* borrowed */
    size_t n;                       /* blocks */
    size_t *first;                  /* [n_matrices] block 0 of a matrix */
    double *sum;                    /* [n] */
    unsigned char *done;            /* [n] the sum is that of the window's final values */
};

KILN_MUST_CHECK enum kiln_status kiln_gradient_sums_open(struct kiln_gradient_sums *sums,
                                                         const struct kiln_table *table,
                                                         struct kiln_err *err);
void kiln_gradient_sums_close(struct kiln_gradient_sums *sums);
/* A window begins: nothing is summed. */
void kiln_gradient_sums_clear(struct kiln_gradient_sums *sums);

/* Rows first.. and columns from.. of a matrix have their final values: sum the blocks that lie
 * inside whole. `gradients` are those of the whole table. Any thread; different threads give
 * different blocks. sums NULL: nothing happens. */
void kiln_gradient_sums_take(struct kiln_gradient_sums *sums, const struct kiln_kernels *kernels,
                             size_t matrix, size_t first, size_t rows, size_t from, size_t columns,
                             const float *gradients);
/* The same of a product that writes a matrix's gradient: `written` of its entry (product.h), told
 * to this context. */
struct kiln_gradient_sums_matrix {
    struct kiln_gradient_sums *sums; /* NULL: nothing happens */
    const struct kiln_kernels *kernels;
    size_t matrix;
    const float *gradients;
};
void kiln_gradient_sums_written(void *context, size_t first, size_t rows, size_t from,
                                size_t columns);
/* The sum over rows first.. (a multiple of 64, at most 64 rows) of a matrix, from what was summed
 * where all of it was, else from memory: the same bits. */
double kiln_gradient_sums_rows(const struct kiln_gradient_sums *sums,
                               const struct kiln_kernels *kernels, size_t matrix, size_t first,
                               size_t rows, const float *gradients);
/* n gradients that are no matrix, from memory. */
double kiln_gradient_sum(const struct kiln_kernels *kernels, const float *gradients, size_t n);

#endif
