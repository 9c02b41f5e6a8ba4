/* SPDX-License-Identifier: MIT
 *
 * init.c: random starting weights. Each element is a pure function of (seed, tensor, element), so
 * they are the same on every machine and do not depend on how the table aligns its tensors.
 */
#include <math.h>

#include "base/pool.h"
#include "base/random.h"
#include "model/table.h"

#define DEVIATION 0.02

/* A tensor has a stream of its own: the kind of use in the low half, the tensor in the high. */
static uint64_t stream_of(size_t tensor) { return KILN_STREAM_INIT + ((uint64_t)tensor << 32); }

static double deviation_of(enum kiln_role role, size_t layers) {
    bool residual = role == KILN_WO || role == KILN_W2 || role == KILN_W3;
    return residual ? DEVIATION / sqrt(2.0 * (double)layers) : DEVIATION;
}

static bool is_bias(enum kiln_role role) {
    return role == KILN_BQ || role == KILN_BK || role == KILN_BV;
}

struct init {
    const struct kiln_table *table;
    uint64_t seed;
    float *weights;
};

/* Elements first.. of a tensor. */
static void init_some(const struct init *init, size_t index, size_t first, size_t n) {
    const struct kiln_tensor *tensor = &init->table->tensors[index];
    float *out = init->weights + tensor->offset + first;
    if (tensor->rank == 1) {
        for (size_t i = 0; i < n; i++) {
            out[i] = is_bias(tensor->role) ? 0.0f : 1.0f;
        }
        return;
    }
    const double deviation = deviation_of(tensor->role, init->table->dims.layers);
    kiln_random_normals(init->seed, stream_of(index), deviation, out, first, n);
}

enum { TASK = 1 << 16 }; /* elements of a tensor that one task fills */

static size_t tasks(const struct kiln_tensor *tensor) {
    return (kiln_elements(tensor) + TASK - 1) / TASK;
}

static void run_task(void *context, size_t task, size_t thread) {
    const struct init *init = context;
    const struct kiln_tensor *tensor = init->table->tensors;
    (void)thread;
    for (; task >= tasks(tensor); tensor++) {
        task -= tasks(tensor);
    }
    const size_t first = task * TASK, rest = kiln_elements(tensor) - first;
    init_some(init, (size_t)(tensor - init->table->tensors), first, rest < TASK ? rest : TASK);
}

void kiln_weights_init_on(struct kiln_pool *pool, const struct kiln_table *table, uint64_t seed,
                          float *weights) {
    struct init init = {table, seed, weights};
    size_t n = 0;
    for (size_t i = 0; i < table->n_base; i++) {
        n += tasks(&table->tensors[i]);
    }
    if (pool) {
        kiln_pool_run(pool, n, run_task, &init);
    } else {
        for (size_t i = 0; i < n; i++) {
            run_task(&init, i, 0);
        }
    }
    kiln_lora_init(table, seed, weights); /* and gaps */
}

void kiln_weights_init(const struct kiln_table *table, uint64_t seed, float *weights) {
    kiln_weights_init_on(NULL, table, seed, weights);
}
