/* SPDX-License-Identifier: MIT
 *
 * product.h: whole matrix products, rows of work, over the thread pool.
 *
 * A product is cut into blocks of KILN_GEMM_M x KILN_GEMM_N (KILN_GEMM_FEW rows by one panel, own
 * code, where there are only a few rows) whatever the number of threads, and never along k: every
 * element of the result is one sum. Chunks of rows (kiln_chunk_rows) do depend on threads where
 * that does not show. So bits do not depend on threads.
 */
#ifndef KILN_KERNEL_PRODUCT_H
#define KILN_KERNEL_PRODUCT_H

#include "base/mem.h"
#include "base/pool.h"
#include "kernel/kernel.h"

/* Kernels, threads, and a scratch block for each thread. */
struct kiln_workers {
    struct kiln_pool *pool;
    const struct kiln_kernels *kernels;
    struct kiln_scratch memory; /* of: */
    void **scratch;             /* [threads], each scratch_bytes, 64-byte aligned */
    size_t scratch_bytes;       /* at least KILN_GEMM_SCRATCH */
};

/* Open a pool's workers; kernels is borrowed. */
KILN_MUST_CHECK enum kiln_status kiln_workers_open(struct kiln_workers *workers,
                                                   const struct kiln_kernels *kernels,
                                                   struct kiln_pool *pool, size_t scratch_bytes,
                                                   struct kiln_err *err);
void kiln_workers_close(struct kiln_workers *workers);

/* c [m, n] = a [m, k] . b^T (+ add): kernel.h says what each field is; m and n are unbounded.
 * `scratch` is filled in per thread. */
void kiln_product(const struct kiln_workers *workers, const struct kiln_gemm *product);
/* One of several products. */
struct kiln_product_entry {
    struct kiln_gemm gemm;
    /* NULL, or told of each block once it has its values: rows i.. and columns j.. of c, each a
     * multiple of KILN_GEMM_M and KILN_GEMM_N. On the thread that made it, which has it in its
     * cache; different threads tell of different blocks. */
    void (*written)(void *context, size_t i, size_t rows, size_t j, size_t columns);
    void *context;
};
/* n products that read nothing of each other's results, as one job: no thread waits between them.
 */
void kiln_products(const struct kiln_workers *workers, const struct kiln_product_entry *products,
                   size_t n);
/* kiln_product in blocks of KILN_GEMM_FEW rows whatever m is, so that a row's sums do not depend on
 * how many rows there are. */
void kiln_product_few(const struct kiln_workers *workers, const struct kiln_gemm *product);
/* kiln_product on the calling thread, with KILN_GEMM_SCRATCH bytes of scratch: one step of work on
 * a task's own rows. */
void kiln_product_alone(const struct kiln_kernels *kernels, const struct kiln_gemm *product,
                        void *scratch);
/* The same, always on own code (its `panel` is free): for the small products of attention. */
void kiln_product_own(const struct kiln_kernels *kernels, const struct kiln_gemm *product,
                      void *scratch);

/* Run fn over chunks of `chunk` rows: fn(context, first, rows, chunk index, scratch of thread). */
typedef void (*kiln_rows_fn)(void *context, size_t first, size_t rows, size_t index, void *scratch);
void kiln_rows(const struct kiln_workers *workers, size_t rows, size_t chunk, kiln_rows_fn fn,
               void *context);

/* Pack columns of src [k, n] (operands) as panels, one panel a task. */
void kiln_pack_columns(const struct kiln_workers *workers, void *dst, const void *src, size_t ld,
                       size_t k, size_t n);
/* dst [cols, rows] = src^T, operands. */
void kiln_transpose(const struct kiln_workers *workers, void *dst, size_t ldd, const void *src,
                    size_t lds, size_t rows, size_t cols);

/* Rows of the chunks that a task takes through several steps, of n rows and so many threads: a
 * multiple of KILN_PANEL_K, at most KILN_GEMM_M. Tall chunks read the weights less often; each
 * thread wants two. Where cutting rows shows in bits (rows_apart) the choice depends on n alone. */
size_t kiln_chunk_rows(const struct kiln_kernels *kernels, size_t n, size_t threads);

/* The operands of a product that contracts over rows of tokens, dw = dy^T . x, are made from some
 * of the rows at a time, first..first+rows of n; first is a multiple of KILN_PANEL_K.
 *
 *   dy [rows, width] becomes columns of `turned` [width, kiln_turned_stride(n)]: the left operand
 *   x  [rows, width] becomes a slice of `packed`, panels of width by n: the right operand
 *
 * The stride keeps rows of a power of two of tokens out of each other's cache lines. */
static inline size_t kiln_turned_stride(size_t n) {
    return (n + KILN_PANEL_K - 1) / KILN_PANEL_K * KILN_PANEL_K + KILN_PANEL_K;
}
void kiln_turn_rows(const struct kiln_kernels *kernels, void *turned, size_t n, const void *dy,
                    size_t width, size_t first, size_t rows);
void kiln_pack_rows(const struct kiln_kernels *kernels, void *packed, size_t n, const void *x,
                    size_t width, size_t first, size_t rows);
/* dw [rows, cols] (+)= what was turned . what was packed, as a product for kiln_products. */
struct kiln_gemm kiln_weight_gradient(const void *turned, const void *packed, size_t n, size_t rows,
                                      size_t cols, float *dw, bool add);

#endif
