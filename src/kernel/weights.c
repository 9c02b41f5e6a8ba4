/* SPDX-License-Identifier: MIT */
#include "kernel/weights.h"

#include <string.h>

#include "base/mem.h"
#include "kernel/kernel.h"
#include "model/numbers.h"

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
    const struct kiln_piece *pieces;
    struct kiln_kernels kernels;
    enum kiln_precision precision;
    char *at;
};

/* Bytes of a snapshot for `n` elements from flat[offset] on, of a tensor and those that are joined
 * to it. */
static struct kiln_range bytes_of(const struct kiln_table *table, enum kiln_precision precision,
                                  const struct kiln_tensor *t, size_t offset, size_t n) {
    const size_t at = t->snapshot + offset - t->offset;
    if (precision == KILN_PRECISION_FP32) {
        return (struct kiln_range){offset * sizeof(float), n * sizeof(float)};
    }
    return is_narrow(t) ? (struct kiln_range){wide_bytes(table) + at * sizeof(uint16_t),
                                              n * sizeof(uint16_t)}
                        : (struct kiln_range){at * sizeof(float), n * sizeof(float)};
}

/* Those elements, from the weights. */
static void convert(const struct taking *s, const struct kiln_tensor *t, size_t offset, size_t n) {
    const float *from = s->weights + offset;
    const struct kiln_range bytes = bytes_of(s->table, s->precision, t, offset, n);
    void *to = s->at + bytes.at;
    if (bytes.n == n * sizeof *from) {
        memcpy(to, from, bytes.n);
    } else if (s->precision == KILN_PRECISION_FP16) {
        s->kernels.half_of(to, from, n);
    } else {
        s->kernels.round(to, from, n);
    }
}

/* A tensor is a task. */
static void take(void *context, size_t task, size_t thread) {
    const struct taking *s = context;
    const struct kiln_tensor *t = &s->table->tensors[task];
    (void)thread;
    convert(s, t, t->offset, t->rows * t->cols);
}

/* The first tensor that a piece is of. */
static const struct kiln_tensor *tensor_of(const struct kiln_table *table,
                                           const struct kiln_piece *piece) {
    if (piece->matrix != KILN_NO_MATRIX) {
        return &table->tensors[table->matrices[piece->matrix].first_tensor];
    }
    size_t i = table->n_tensors - 1;
    while (table->tensors[i].offset > piece->offset) {
        i--;
    }
    return &table->tensors[i];
}

static void take_piece(void *context, size_t task, size_t thread) {
    const struct taking *s = context;
    const struct kiln_piece *p = &s->pieces[task];
    (void)thread;
    convert(s, tensor_of(s->table, p), p->offset, p->n);
}

/* Up to the end of more, which lies behind it; of an empty one: more. */
static void cover(struct kiln_range *range, struct kiln_range more) {
    range->at = range->n > 0 ? range->at : more.at;
    range->n = more.at + more.n - range->at;
}

void kiln_snapshot_ranges(const struct kiln_table *table, enum kiln_precision precision,
                          const struct kiln_piece *pieces, size_t n, struct kiln_range *wide,
                          struct kiln_range *narrow) {
    *wide = *narrow = (struct kiln_range){0};
    for (size_t i = 0; i < n; i++) {
        const struct kiln_piece *p = &pieces[i];
        const struct kiln_range bytes =
            bytes_of(table, precision, tensor_of(table, p), p->offset, p->n);
        cover(bytes.n == p->n * sizeof(float) ? wide : narrow, bytes);
    }
}

void kiln_weights_widen(const struct kiln_weights *weights, float *to) {
    const struct kiln_table *table = weights->table;
    const enum kiln_dtype half =
        weights->precision == KILN_PRECISION_BF16 ? KILN_DTYPE_BF16 : KILN_DTYPE_F16;
    if (weights->flat) {
        memcpy(to, weights->flat, table->size * sizeof *to);
        return;
    }
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        const float *wide;
        const uint16_t *narrow;
        kiln_weights_tensor(weights, t, &wide, &narrow);
        kiln_dtype_decode(wide ? KILN_DTYPE_F32 : half, to + t->offset,
                          wide ? (const void *)wide : narrow, t->rows * t->cols);
    }
}

static void copy(void *context, size_t task, size_t thread) {
    const struct taking *s = context;
    const size_t first = task * PIECE, rest = s->table->size - first;
    (void)thread;
    memcpy((float *)(void *)s->at + first, s->weights + first,
           (rest < PIECE ? rest : PIECE) * sizeof(float));
}

/* Whoever rounds to fp16 is among the kernels of fp32. */
static enum kiln_status choose(enum kiln_precision precision, struct kiln_kernels *out,
                               struct kiln_err *err) {
    return kiln_kernels_choose(precision == KILN_PRECISION_BF16 ? precision : KILN_PRECISION_FP32,
                               out, err);
}

enum kiln_status kiln_snapshot_take(struct kiln_pool *pool, const struct kiln_table *table,
                                    enum kiln_precision precision, const float *weights, void *at,
                                    struct kiln_err *err) {
    struct taking s = {.table = table, .weights = weights, .precision = precision, .at = at};
    if (precision == KILN_PRECISION_FP32) {
        kiln_pool_run(pool, (table->size + PIECE - 1) / PIECE, copy, &s);
        return KILN_OK;
    }
    KILN_TRY(choose(precision, &s.kernels, err));
    kiln_pool_run(pool, table->n_tensors, take, &s);
    return KILN_OK;
}

enum kiln_status kiln_snapshot_take_pieces(struct kiln_pool *pool, const struct kiln_table *table,
                                           enum kiln_precision precision, const float *weights,
                                           const struct kiln_piece *pieces, size_t n, void *at,
                                           struct kiln_err *err) {
    struct taking s = {
        .table = table, .weights = weights, .pieces = pieces, .precision = precision, .at = at};
    KILN_TRY(choose(precision, &s.kernels, err));
    kiln_pool_run(pool, n, take_piece, &s);
    return KILN_OK;
}
