/* SPDX-License-Identifier: MIT */
#include "train/optimizer.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

enum { PIECE_ROWS = 64, NORM_CHUNK = 2048 };

/* Rows of a matrix or of a tensor outside all matrices, contiguous in the flat array. */
struct piece {
    size_t offset, n;     /* elements */
    size_t matrix, first; /* rows of it, for refresh; KILN_NO_MATRIX when none */
    size_t rows;
    bool decay;
    bool adds_embedding; /* tied: E is added to this piece's gradient */
};

struct kiln_optimizer {
    struct kiln_optimizer_parts parts;
    struct kiln_kernels kernels;
    struct piece *pieces;
    double *sums; /* [n_pieces] */
    size_t n_pieces;
    struct kiln_adamw constants, constants_no_decay;
};

static size_t cut(struct piece *out, size_t offset, size_t rows, size_t cols, size_t matrix,
                  bool decay, bool adds_embedding) {
    size_t n = 0;
    for (size_t first = 0; first < rows; first += PIECE_ROWS, n++) {
        if (!out) {
            continue;
        }
        size_t some = rows - first < PIECE_ROWS ? rows - first : PIECE_ROWS;
        out[n] = (struct piece){.offset = offset + first * cols,
                                .n = some * cols,
                                .matrix = matrix,
                                .first = first,
                                .rows = some,
                                .decay = decay,
                                .adds_embedding = adds_embedding};
    }
    return n;
}

/* All pieces, in the order of the table; counted when out is NULL. */
static size_t cut_all(const struct kiln_table *table, struct piece *out) {
    size_t n = 0;
    for (size_t i = 0; i < table->n_matrices; i++) {
        const struct kiln_matrix *m = &table->matrices[i];
        bool tied = m->kind == KILN_MATRIX_HEAD && table->dims.tied;
        n += cut(out ? out + n : NULL, m->offset, m->rows, m->cols, i, true, tied);
    }
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        if (t->matrix == KILN_NO_MATRIX) {
            n += cut(out ? out + n : NULL, t->offset, t->rows, t->cols, KILN_NO_MATRIX,
                     t->rank == 2, false);
        }
    }
    return n;
}

enum kiln_status kiln_optimizer_create(const struct kiln_optimizer_parts *parts,
                                       struct kiln_optimizer **out, struct kiln_err *err) {
    *out = NULL;
    struct kiln_optimizer *o = kiln_alloc(1, sizeof *o);
    KILN_REQUIRE(o, err, KILN_ENOMEM, "no memory for the optimizer");
    o->parts = *parts;
    o->n_pieces = cut_all(parts->table, NULL);
    o->pieces = kiln_alloc(o->n_pieces, sizeof *o->pieces);
    o->sums = kiln_alloc(o->n_pieces, sizeof *o->sums);
    enum kiln_status status = KILN_OK;
    if (!o->pieces || !o->sums) {
        status = KILN_FAIL(err, KILN_ENOMEM, "no memory for %zu optimizer pieces", o->n_pieces);
    } else {
        cut_all(parts->table, o->pieces);
        status = kiln_kernels_choose(KILN_PRECISION_FP32, &o->kernels, err);
    }
    if (status != KILN_OK) {
        kiln_optimizer_destroy(o);
        return status;
    }
    *out = o;
    return KILN_OK;
}

void kiln_optimizer_destroy(struct kiln_optimizer *o) {
    if (o) {
        kiln_free(o->pieces);
        kiln_free(o->sums);
        kiln_free(o);
    }
}

static void norm_piece(void *context, size_t task, size_t thread) {
    struct kiln_optimizer *o = context;
    const struct piece *p = &o->pieces[task];
    float *g = o->parts.gradients.all + p->offset;
    double sum = 0.0;
    (void)thread;
    for (size_t i = 0; i < p->n; i += NORM_CHUNK) {
        size_t n = p->n - i < NORM_CHUNK ? p->n - i : NORM_CHUNK;
        if (p->adds_embedding) {
            size_t at = p->first * (p->n / p->rows) + i;
            o->kernels.add(g + i, o->parts.gradients.embedding + at, n);
        }
        sum += o->kernels.sum_squares(g + i, n);
    }
    o->sums[task] = sum;
}

double kiln_optimizer_norm(struct kiln_optimizer *o) {
    kiln_pool_run(o->parts.pool, o->n_pieces, norm_piece, o);
    double sum = 0.0;
    for (size_t i = 0; i < o->n_pieces; i++) {
        sum += o->sums[i];
    }
    return sqrt(sum);
}

static void update_piece(void *context, size_t task, size_t thread) {
    struct kiln_optimizer *o = context;
    const struct piece *p = &o->pieces[task];
    const struct kiln_optimizer_parts *parts = &o->parts;
    (void)thread;
    o->kernels.adamw(parts->weights + p->offset, parts->m + p->offset, parts->v + p->offset,
                     parts->gradients.all + p->offset, p->n,
                     p->decay ? &o->constants : &o->constants_no_decay);
    if (p->matrix != KILN_NO_MATRIX && parts->device && parts->device->ops->refresh) {
        parts->device->ops->refresh(parts->device, p->matrix, p->first, p->rows, parts->weights);
    }
}

void kiln_optimizer_update(struct kiln_optimizer *o, uint64_t update, double lr, double norm) {
    const struct kiln_optimizer_parts *p = &o->parts;
    double clip = p->clip > 0 && norm > p->clip ? p->clip / (norm + 1e-6) : 1.0;
    o->constants =
        (struct kiln_adamw){.lr = (float)lr,
                            .beta1 = (float)p->beta1,
                            .beta2 = (float)p->beta2,
                            .eps = (float)p->eps,
                            .decay = (float)(lr * p->weight_decay),
                            .grad_scale = (float)clip,
                            .correction1 = (float)(1.0 / (1.0 - pow(p->beta1, (double)update))),
                            .correction2 = (float)(1.0 / (1.0 - pow(p->beta2, (double)update)))};
    o->constants_no_decay = o->constants;
    o->constants_no_decay.decay = 0.0f;
    kiln_pool_run(p->pool, o->n_pieces, update_piece, o);
}

double kiln_learning_rate(const struct kiln_settings *s, uint64_t step) {
    if (step < s->warmup) {
        return s->lr * (double)(step + 1) / (double)s->warmup;
    }
    if (strcmp(s->decay, "constant") == 0 || s->steps <= s->warmup + 1) {
        return s->lr;
    }
    double at = (double)(step - s->warmup) / (double)(s->steps - 1 - s->warmup);
    at = at > 1.0 ? 1.0 : at;
    double share = strcmp(s->decay, "linear") == 0 ? 1.0 - at : 0.5 * (1.0 + cos(acos(-1.0) * at));
    return s->min_lr + (s->lr - s->min_lr) * share;
}
