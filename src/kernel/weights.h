/* SPDX-License-Identifier: MIT
 *
 * weights.h: the weights of one generation, as whoever compiles or computes from them reads them.
 *
 * Either the flat master weights, fp32 in the table's order, or a snapshot of them that stays as it
 * is while the master weights go on. A snapshot keeps what the host computes with (norms,
 * embedding, head) in fp32, and the matrices of layers in what products read:
 *
 *   fp32         a flat array of table->size floats, as the master weights
 *   bf16, fp16   fp32 [table->wide]     all other tensors, one behind the other in the table's
 * order u16  [table->narrow]   the matrices of layers, likewise; Q, K, V and W1, W3 adjacent
 *
 * Rounding is to nearest even, the one that compiling does: a kernel compiled from a snapshot is
 * that compiled from the weights the snapshot was taken of, bit for bit.
 */
#ifndef KILN_KERNEL_WEIGHTS_H
#define KILN_KERNEL_WEIGHTS_H

#include "base/pool.h"
#include "base/range.h"
#include "kiln/cpu.h"
#include "kiln/model.h"
#include "model/pieces.h"

struct kiln_weights {
    const struct kiln_table *table;
    const float *flat;             /* [table->size], or NULL: a narrow snapshot, then: */
    const float *wide;             /* [table->wide] */
    const uint16_t *narrow;        /* [table->narrow] */
    enum kiln_precision precision; /* of narrow: BF16 or FP16 */
};

/* Views; they own nothing. `at` is where a snapshot of that precision (FP32, BF16, FP16; not AUTO)
 * begins, 64-byte aligned. */
struct kiln_weights kiln_weights_flat(const struct kiln_table *table, const float *weights);
struct kiln_weights kiln_weights_snapshot(const struct kiln_table *table,
                                          enum kiln_precision precision, const void *at);

/* A tensor in fp32: any of flat weights, of a narrow snapshot one that is no matrix of a layer. */
const float *kiln_weights_wide(const struct kiln_weights *weights, const struct kiln_tensor *t);
/* Where a tensor begins: in *wide, or a narrow one in *narrow; the other is NULL. */
void kiln_weights_tensor(const struct kiln_weights *weights, const struct kiln_tensor *t,
                         const float **wide, const uint16_t **narrow);
/* Where element (first, 0) of a matrix lies: fp32 in *wide, or bf16 or fp16 in *narrow; the other
 * is NULL. Rows lie m->cols apart. */
void kiln_weights_rows(const struct kiln_weights *weights, const struct kiln_matrix *m,
                       size_t first, const float **wide, const uint16_t **narrow);

/* Bytes of a snapshot, a multiple of 64. */
size_t kiln_snapshot_bytes(const struct kiln_table *table, enum kiln_precision precision);
/* Fill a snapshot from master weights; gaps of a flat one, too. Runs on the pool. Doing it again
 * gives the same bytes. KILN_EUNSUPPORTED as kiln_kernels_choose. */
KILN_MUST_CHECK enum kiln_status kiln_snapshot_take(struct kiln_pool *pool,
                                                    const struct kiln_table *table,
                                                    enum kiln_precision precision,
                                                    const float *weights, void *at,
                                                    struct kiln_err *err);
/* The same of n pieces only: of the master weights no others are read. */
KILN_MUST_CHECK enum kiln_status kiln_snapshot_take_pieces(
    struct kiln_pool *pool, const struct kiln_table *table, enum kiln_precision precision,
    const float *weights, const struct kiln_piece *pieces, size_t n, void *at,
    struct kiln_err *err);
/* Bytes of a snapshot that n pieces fill, which lie one behind the other: those in fp32 and narrow
 * ones, each in one range; what is not there is empty. */
void kiln_snapshot_ranges(const struct kiln_table *table, enum kiln_precision precision,
                          const struct kiln_piece *pieces, size_t n, struct kiln_range *wide,
                          struct kiln_range *narrow);
/* All weights as floats: a copy in `to` [table->size]; gaps of a narrow snapshot are left as they
 * are. */
void kiln_weights_widen(const struct kiln_weights *weights, float *to);

#endif
