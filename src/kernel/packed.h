/* SPDX-License-Identifier: MIT
 *
 * packed.h: the matrices of a model in kiln's packed format: what a CPU bakes.
 *
 * Each matrix W [rows, cols] (kiln/model.h) may have two copies: `forward`, contraction over
 * cols, for y = x W^T, and `backward`, contraction over rows, for dx = dy W. There is one way to
 * fill them, kiln_packed_rows, which compile and the optimizer both call, from fp32 weights or from
 * a snapshot of them in operands: the same bits.
 */
#ifndef KILN_KERNEL_PACKED_H
#define KILN_KERNEL_PACKED_H

#include "base/mem.h"
#include "kernel/kernel.h"
#include "kernel/weights.h"
#include "kiln/model.h"

enum { KILN_PACK_ROWS = 64 }; /* rows packed at a time: one panel forward, two k-blocks backward */

struct kiln_packed {
    const struct kiln_table *table;     /* borrowed */
    const struct kiln_kernels *kernels; /* borrowed */
    void **forward, **backward;         /* [n_matrices]; NULL where there is no such copy */
    struct kiln_arena arena;
    bool streams; /* larger than the caches: both copies are written past them */
};

/* Room for the forward copies, and for the backward ones when asked. Memory is taken when a copy
 * is packed first. */
KILN_MUST_CHECK enum kiln_status kiln_packed_open(struct kiln_packed *packed,
                                                  const struct kiln_table *table,
                                                  const struct kiln_kernels *kernels, bool backward,
                                                  struct kiln_err *err);
void kiln_packed_close(struct kiln_packed *packed);
/* Bytes of the two copies of a matrix. */
void kiln_packed_sizes(const struct kiln_matrix *matrix, size_t operand_bytes, size_t *forward,
                       size_t *backward);
/* Give the memory of one copy back; packing it again takes new. */
void kiln_packed_release(const struct kiln_packed *packed, size_t matrix, bool forward);

/* Pack rows first..first+rows of a matrix from the weights into the copies that `forward` and
 * `backward` select. first is a multiple of KILN_PACK_ROWS, rows at most that. A narrow snapshot is
 * one of the kernels' operands. Runs on any thread. */
void kiln_packed_rows(const struct kiln_packed *packed, size_t matrix, size_t first, size_t rows,
                      const struct kiln_weights *weights, bool forward, bool backward);

#endif
