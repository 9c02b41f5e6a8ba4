/* SPDX-License-Identifier: MIT
 *
 * init.c: random starting weights. Each element is a pure function of (seed, tensor, element), so
 * they are the same on every machine and do not depend on how the table aligns its tensors.
 */
#include <math.h>

#include "base/random.h"
#include "model/table.h"

#define DEVIATION 0.02

/* A tensor has a stream of its own: the kind of use in the low half, the tensor in the high. */
static uint64_t stream_of(size_t tensor) { return KILN_STREAM_INIT + ((uint64_t)tensor << 32); }

static double deviation_of(enum kiln_role role, size_t layers) {
    bool residual = role == KILN_WO || role == KILN_W2 || role == KILN_W3;
    return residual ? DEVIATION / sqrt(2.0 * (double)layers) : DEVIATION;
}

static void init_tensor(const struct kiln_table *table, size_t index, uint64_t seed, float *out) {
    const struct kiln_tensor *tensor = &table->tensors[index];
    size_t n = tensor->rows * tensor->cols;
    if (tensor->rank == 1) {
        for (size_t i = 0; i < n; i++) {
            out[i] = 1.0f;
        }
        return;
    }
    double deviation = deviation_of(tensor->role, table->dims.layers);
    kiln_random_normals(seed, stream_of(index), deviation, out, n);
}

void kiln_weights_init(const struct kiln_table *table, uint64_t seed, float *weights) {
    for (size_t i = 0; i < table->n_tensors; i++) {
        init_tensor(table, i, seed, weights + table->tensors[i].offset);
    }
    kiln_table_clear_gaps(table, weights);
}
