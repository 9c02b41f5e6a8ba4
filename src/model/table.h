/* SPDX-License-Identifier: MIT
 *
 * table.h: what the files of this room share beyond kiln/model.h.
 */
#ifndef KILN_MODEL_TABLE_H
#define KILN_MODEL_TABLE_H

#include "kiln/model.h"

/* Tensors and matrices of layers start at a multiple of so many elements. */
enum { KILN_TABLE_ALIGN = 64 };

/* Tensors that adapters add to a table; appended behind its model's, with table->lora set. */
size_t kiln_lora_tensors(const struct kiln_lora *lora, size_t layers);
void kiln_lora_lay_out(struct kiln_table *table);

/* Set the elements between tensors to 0, so that equal weights are equal bytes. */
void kiln_table_clear_gaps(const struct kiln_table *table, float *weights);

/* Parameters lie in parts, one behind the other: in front of the layers (KILN_NO_LAYER), those of
 * each layer, and behind them (`layer` is their number). First float and number of floats. */
size_t kiln_table_part(const struct kiln_table *table, size_t layer, size_t *first);
/* The same of what is trained, among gradients and moments: of adapters those of the layer. */
size_t kiln_trained_part(const struct kiln_table *table, size_t layer, size_t *first);

/* Layers first..end-1 of a model as a table of their own, numbered from 0, for whoever computes
 * with these alone: offsets, size and what is trained are of the whole model's arrays, and
 * embedding, final norm and head are there, too. Names are the whole model's. kiln_table_destroy
 * it. */
KILN_MUST_CHECK enum kiln_status kiln_table_stage(const struct kiln_table *whole, size_t first,
                                                  size_t end, struct kiln_table **out,
                                                  struct kiln_err *err);
/* The number that a matrix of the whole model has there; KILN_NO_MATRIX: it is of another layer. */
size_t kiln_table_stage_matrix(const struct kiln_table *whole, const struct kiln_table *stage,
                               size_t first, size_t matrix);

static inline size_t kiln_elements(const struct kiln_tensor *tensor) {
    return tensor->rows * tensor->cols;
}

struct kiln_pool;
/* kiln_weights_init on all threads of a pool, which write its pages first; NULL: on the caller. The
 * same bits. */
void kiln_weights_init_on(struct kiln_pool *pool, const struct kiln_table *table, uint64_t seed,
                          float *weights);

#endif
