/* SPDX-License-Identifier: MIT
 *
 * ceiling.h: what this machine can do at best, measured: the denominators of utilization.
 */
#ifndef KILN_KERNEL_CEILING_H
#define KILN_KERNEL_CEILING_H

#include "base/pool.h"
#include "kiln/cpu.h"

/* Best rate of the product kernels on random operands that stay in cache, all threads: of the block
 * that is fastest, so that no product can be faster. */
KILN_MUST_CHECK enum kiln_status kiln_ceiling_products(struct kiln_pool *pool,
                                                       enum kiln_precision precision,
                                                       double *tflops, struct kiln_err *err);
/* Best rate of copying memory beyond the caches, read plus write, all threads: through the caches
 * or past them. Takes KILN_CEILING_COPY_BYTES. */
KILN_MUST_CHECK enum kiln_status kiln_ceiling_copy(struct kiln_pool *pool, double *gb_s,
                                                   struct kiln_err *err);
#define KILN_CEILING_COPY_BYTES ((size_t)512 << 20)
/* The same of changing memory in place. Nothing is read only to be overwritten, so this is often
 * more, and an optimizer may get beyond the rate of copying. */
KILN_MUST_CHECK enum kiln_status kiln_ceiling_in_place(struct kiln_pool *pool, double *gb_s,
                                                       struct kiln_err *err);
/* Rate of packing a matrix both ways, as compiling on the cpu does, into memory that is fresh:
 * bytes written, all threads. */
KILN_MUST_CHECK enum kiln_status kiln_ceiling_pack(struct kiln_pool *pool,
                                                   enum kiln_precision precision, double *gb_s,
                                                   struct kiln_err *err);

#endif
