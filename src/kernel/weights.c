/* SPDX-License-Identifier: MIT */
#include "kernel/weights.h"

#include <string.h>

#include "base/mem.h"
#include "kernel/kernel.h"

struct kiln_weights kiln_weights_flat(const struct kiln_table *table, const float *weights) {
    return (struct kiln_weights){.table = table, .flat = weights, .precision = KILN_PRECISION_FP32};
}

static size_t wide_bytes(const struct kiln_table *table) {
    return kiln_round_up(table->wide * sizeof(float), 64);
}

struct kiln_weights kiln_weights_snapshot(const struct kiln_table *table,
                                          enum kiln_precision precision, const void *at) {
    if (precision == KILN_PRECISION_FP32) {
        return kiln_weights_flat(table, at);
    }
    const char *base = at;
    return (struct kiln_weights){.table = table,
                                 .wide = at,
                                 .narrow = (const void *)(base + wide_bytes(table)),
                                 .precision = precision};
}

const float *kiln_weights_wide(const struct kiln_weights *weights, const struct kiln_tensor *t) {
    return weights->flat ? weights->flat + t->offset : weights->wide + t->snapshot;
}

/* Matrices of layers are narrow; norms, adapters and the head, which is of no layer, are wide. */
static bool is_narrow(const struct kiln_tensor *t) {
    return t->rank == 2 && t->layer != KILN_NO_LAYER && t->target == KILN_NO_TENSOR;
}

void kiln_weights_tensor(const struct kiln_weights *weights, const struct kiln_tensor *t,
                         const float **wide, const uint16_t **narrow) {
    const bool half = !weights->flat && is_narrow(t);
    *narrow = half ? weights->narrow + t->snapshot : NULL;
    *wide = half ? NULL : kiln_weights_wide(weights, t);
}

void kiln_weights_rows(const struct kiln_weights *weights, const struct kiln_matrix *m,
                       size_t first, const float **wide, const uint16_t **narrow) {
    kiln_weights_tensor(weights, &weights->table->tensors[m->first_tensor], wide, narrow);
    *wide += *wide ? first * m->cols : 0;
    *narrow += *narrow ? first * m->cols : 0;
}

size_t kiln_snapshot_bytes(const struct kiln_table *table, enum kiln_precision precision) {
    if (precision == KILN_PRECISION_FP32) {
        return kiln_round_up(table->size * sizeof(float), 64);
    }
    return wide_bytes(table) + kiln_round_up(table->narrow * sizeof(uint16_t), 64);
}

/* ---- taking one ------------------------------------------------------------------------------
 */

enum { PIECE = 1 << 16 };

struct taking {
    const struct kiln_table *table;
    const float *weights;
    struct kiln_kernels kernels;
    enum kiln_precision precision;
    char *at;
};

/* A tensor is a task. */
static void take(void *context, size_t task, size_t thread) {
    const struct taking *s = context;
    const struct kiln_tensor *t = &s->table->tensors[task];
    const size_t n = t->rows * t->cols;
    const float *from = s->weights + t->offset;
    (void)thread;
    if (!is_narrow(t)) {
        memcpy((float *)(void *)s->at + t->snapshot, from, n * sizeof *from);
        return;
    }
    uint16_t *to = (uint16_t *)(void *)(s->at + wide_bytes(s->table)) + t->snapshot;
    if (s->precision == KILN_PRECISION_FP16) {
        s->kernels.half_of(to, from, n);
    } else {
        s->kernels.round(to, from, n);
    }
}

static void copy(void *context, size_t task, size_t thread) {
    const struct taking *s = context;
    const size_t first = task * PIECE, rest = s->table->size - first;
    (void)thread;
    memcpy((float *)(void *)s->at + first, s->weights + first,
           (rest < PIECE ? rest : PIECE) * sizeof(float));
}

enum kiln_status kiln_snapshot_take(struct kiln_pool *pool, const struct kiln_table *table,
                                    enum kiln_precision precision, const float *weights, void *at,
                                    struct kiln_err *err) {
    struct taking s = {.table = table, .weights = weights, .precision = precision, .at = at};
    if (precision == KILN_PRECISION_FP32) {
        kiln_pool_run(pool, (table->size + PIECE - 1) / PIECE, copy, &s);
        return KILN_OK;
    }
    KILN_TRY(kiln_kernels_choose(precision == KILN_PRECISION_FP16 ? KILN_PRECISION_FP32 : precision,
                                 &s.kernels, err));
    kiln_pool_run(pool, table->n_tensors, take, &s);
    return KILN_OK;
}
