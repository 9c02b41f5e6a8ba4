/* SPDX-License-Identifier: MIT
 *
 * llama2c.h: what the versions of llama2.c's model files share: tensors in an order of roles.
 */
#ifndef KILN_MODEL_LLAMA2C_H
#define KILN_MODEL_LLAMA2C_H

#include "kiln/model.h"

/* A walk over a table in the order of a file: each role is that tensor of every layer in turn, or
 * the global one. Start with table, order and n, the others zeros. */
struct kiln_walk {
    const struct kiln_table *table;
    const enum kiln_role *order;
    size_t n;
    size_t step, layer;
};
/* The next tensor; NULL at the end. */
const struct kiln_tensor *kiln_walk_next(struct kiln_walk *walk);

/* What all versions stand for and have no place for. */
#define KILN_LLAMA2C_RMS_EPS    1e-5f
#define KILN_LLAMA2C_ROPE_THETA 10000.0f

#endif
