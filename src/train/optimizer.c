/* SPDX-License-Identifier: MIT */
#include "train/optimizer.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

struct kiln_optimizer {
    struct kiln_optimizer_parts parts;
    struct kiln_kernels kernels;
    struct kiln_piece *pieces;
    double *sums; /* [n_pieces] */
    struct kiln_gradient_sums taken;
    size_t n_pieces;
    struct kiln_adamw constants, constants_no_decay;
    uint64_t update; /* the one being run */
    size_t first;    /* piece of task 0 */
};

enum kiln_status kiln_optimizer_create(const struct kiln_optimizer_parts *parts,
                                       struct kiln_optimizer **out, struct kiln_err *err) {
    *out = NULL;
    struct kiln_optimizer *o = kiln_alloc(1, sizeof *o);
    KILN_REQUIRE(o, err, KILN_ENOMEM, "no memory for the optimizer");
    o->parts = *parts;
    o->n_pieces = kiln_pieces(parts->table, NULL, NULL);
    o->pieces = kiln_alloc(o->n_pieces, sizeof *o->pieces);
    o->sums = kiln_alloc(o->n_pieces, sizeof *o->sums);
    enum kiln_status status = KILN_OK;
    if (!o->pieces || !o->sums) {
        status = KILN_FAIL(err, KILN_ENOMEM, "no memory for %zu optimizer pieces", o->n_pieces);
    } else {
        kiln_pieces(parts->table, o->pieces, NULL);
        status = kiln_kernels_choose(KILN_PRECISION_FP32, &o->kernels, err);
        status = status == KILN_OK ? kiln_gradient_sums_open(&o->taken, parts->table, err) : status;
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
        kiln_gradient_sums_close(&o->taken);
        kiln_free(o);
    }
}

/* Pieces so far in front are read while this one is worked on. */
#define AHEAD 64

/* A state that is walked: what comes is read, what has been goes. */
static void walk(const struct kiln_optimizer *o, size_t task, enum kiln_region region) {
    const struct kiln_piece *p = &o->pieces[task];
    if (!o->parts.state || !kiln_state_walks(o->parts.state)) {
        return;
    }
    kiln_state_behind(o->parts.state, region, p->offset, p->n);
    if (task + AHEAD < o->n_pieces) {
        const struct kiln_piece *next = &o->pieces[task + AHEAD];
        kiln_state_ahead(o->parts.state, region, next->offset, next->n);
    }
}

static void norm_piece(void *context, size_t task, size_t thread) {
    struct kiln_optimizer *o = context;
    const struct kiln_piece *p = &o->pieces[task];
    float *g = o->parts.gradients.all + kiln_trained_at(o->parts.table, p->offset);
    (void)thread;
    if (p->adds_embedding && !o->parts.folded) {
        const size_t at = p->first * (p->n / p->rows);
        o->kernels.add(g, o->parts.gradients.embedding + at, p->n);
    }
    o->sums[task] = p->matrix == KILN_NO_MATRIX
                        ? kiln_gradient_sum(&o->kernels, g, p->n)
                        : kiln_gradient_sums_rows(&o->taken, &o->kernels, p->matrix, p->first,
                                                  p->rows, o->parts.gradients.all);
    walk(o, task, KILN_GRADIENTS);
    if (p->adds_embedding && o->parts.state) {
        kiln_state_behind(o->parts.state, KILN_GRADIENT_EMBEDDING, p->first * (p->n / p->rows),
                          p->n);
    }
}

struct kiln_gradient_sums *kiln_optimizer_sums(struct kiln_optimizer *o) {
    return &o->taken;
}

double kiln_optimizer_norm(struct kiln_optimizer *o, double loss_scale) {
    kiln_pool_run(o->parts.pool, o->n_pieces, norm_piece, o);
    kiln_gradient_sums_clear(&o->taken);
    double sum = 0.0;
    for (size_t i = 0; i < o->n_pieces; i++) {
        sum += o->sums[i];
    }
    return sqrt(sum) / loss_scale;
}

static void refresh(const struct kiln_optimizer *o, const struct kiln_piece *p) {
    const struct kiln_optimizer_parts *parts = &o->parts;
    if (p->matrix != KILN_NO_MATRIX && parts->refresh) {
        parts->refresh(parts->refresh_context, p->matrix, p->first, p->rows, parts->weights);
    }
}

static void refresh_piece(void *context, size_t task, size_t thread) {
    struct kiln_optimizer *o = context;
    (void)thread;
    refresh(o, &o->pieces[task]);
    walk(o, task, KILN_WEIGHTS);
}

void kiln_optimizer_refresh(struct kiln_optimizer *o) {
    kiln_pool_run(o->parts.pool, o->n_pieces, refresh_piece, o);
}

/* What is guarded at a time: small, so that it is in the cache nearest to the processor when it is
 * copied and still when it is changed. */
enum { PART = 128 };

static void change(const struct kiln_optimizer *o, const struct kiln_adamw *constants, size_t at,
                   size_t n) {
    const struct kiln_optimizer_parts *p = &o->parts;
    const size_t t = kiln_trained_at(p->table, at);
    o->kernels.adamw(p->weights + at, p->m + t, p->v + t, p->gradients.all + t, n, constants);
}

/* A chunk of a state that outlives the process. */
static void change_guarded(const struct kiln_optimizer *o, const struct kiln_adamw *constants,
                           size_t chunk, size_t at, size_t n, size_t thread) {
    struct kiln_state *state = o->parts.state;
    if (kiln_state_chunk_done(state, chunk, o->update)) {
        return;
    }
    for (size_t i = 0; i < n; i += PART) {
        const size_t part = n - i < PART ? n - i : PART;
        if (i == 0) {
            kiln_state_chunk_begin(state, thread, chunk, at, part);
        } else {
            kiln_state_chunk_more(state, thread, part);
        }
        change(o, constants, at + i, part);
    }
    kiln_state_chunk_end(state, thread, chunk, o->update);
}

static void update_piece(void *context, size_t index, size_t thread) {
    struct kiln_optimizer *o = context;
    const size_t task = o->first + index;
    const struct kiln_piece *p = &o->pieces[task];
    const struct kiln_adamw *constants = p->decay ? &o->constants : &o->constants_no_decay;
    for (size_t i = 0, chunk = p->chunk; i < p->n; i += KILN_CHUNK, chunk++) {
        const size_t n = p->n - i < KILN_CHUNK ? p->n - i : KILN_CHUNK;
        if (o->parts.state) {
            change_guarded(o, constants, chunk, p->offset + i, n, thread);
        } else {
            change(o, constants, p->offset + i, n);
        }
    }
    refresh(o, p);
    walk(o, task, KILN_WEIGHTS);
    walk(o, task, KILN_MOMENT1);
    walk(o, task, KILN_MOMENT2);
    walk(o, task, KILN_GRADIENTS);
}

/* Pieces first..end-1. */
static void update_range(struct kiln_optimizer *o, size_t first, size_t end) {
    o->first = first;
    if (end > first) {
        kiln_pool_run(o->parts.pool, end - first, update_piece, o);
    }
}

/* Pieces lie in the order of the table: what is in front of the layers, layer by layer, the rest.
 */
static void update_layers(struct kiln_optimizer *o) {
    const struct kiln_table *table = o->parts.table;
    size_t piece = 0;
    if (table->trained > 0) { /* no layer's own weights change */
        update_range(o, 0, o->n_pieces);
        piece = o->n_pieces;
    }
    for (size_t l = 0; l < table->dims.layers; l++) {
        const bool last = l + 1 == table->dims.layers;
        const size_t next = kiln_table_find(table, last ? KILN_FINAL_NORM : KILN_ATTN_NORM,
                                            last ? KILN_NO_LAYER : l + 1)
                                ->offset;
        const size_t first = piece;
        while (piece < o->n_pieces && o->pieces[piece].offset < next) {
            piece++;
        }
        update_range(o, first, piece);
        o->parts.updated(o->parts.updated_context, l + 1);
    }
    update_range(o, piece, o->n_pieces);
    o->parts.updated(o->parts.updated_context, table->dims.layers + 1);
}

void kiln_optimizer_update(struct kiln_optimizer *o, uint64_t update, double lr, double norm,
                           double loss_scale) {
    const struct kiln_optimizer_parts *p = &o->parts;
    double clip = p->clip > 0 && norm > p->clip ? p->clip / (norm + 1e-6) : 1.0;
    o->constants =
        (struct kiln_adamw){.lr = (float)lr,
                            .beta1 = (float)p->beta1,
                            .beta2 = (float)p->beta2,
                            .eps = (float)p->eps,
                            .decay = (float)(lr * p->weight_decay),
                            .grad_scale = (float)(clip / loss_scale),
                            .correction1 = (float)(1.0 / (1.0 - pow(p->beta1, (double)update))),
                            .correction2 = (float)(1.0 / (1.0 - pow(p->beta2, (double)update)))};
    o->constants_no_decay = o->constants;
    o->constants_no_decay.decay = 0.0f;
    o->update = update;
    if (p->updated) {
        update_layers(o);
    } else {
        update_range(o, 0, o->n_pieces);
    }
}

/* From `from` on, where `done` of the way was made, so that `steps` steps end at 1. */
static double on_the_way(double done, uint64_t from, uint64_t steps, uint64_t step) {
    if (step <= from || steps <= from + 1) {
        return step <= from ? done : 1.0;
    }
    const double at = (double)(step - from) / (double)(steps - 1 - from);
    return done + (1.0 - done) * (at > 1.0 ? 1.0 : at);
}

/* How far the schedule is behind the warm-up, 0 to 1: what is left of it is spread anew at every
 * turn. A run that had ended begins to go down again from where all of its steps put it. */
static double progress(const struct kiln_settings *s, uint64_t step) {
    double done = 0.0;
    uint64_t from = s->warmup;
    for (size_t i = 0; i < s->n_turns && s->turn[i].at <= step; i++) {
        const uint64_t at = s->turn[i].at > s->warmup ? s->turn[i].at : s->warmup;
        const uint64_t steps = i + 1 < s->n_turns ? s->turn[i + 1].before : s->steps;
        done = s->turn[i].at >= s->turn[i].before ? on_the_way(0.0, s->warmup, steps, at)
                                                  : on_the_way(done, from, s->turn[i].before, at);
        from = at;
    }
    size_t next = 0;
    while (next < s->n_turns && s->turn[next].at <= step) {
        next++;
    }
    return on_the_way(done, from, next < s->n_turns ? s->turn[next].before : s->steps, step);
}

/* Of the settings that the run began with. */
static double scheduled_rate(const struct kiln_settings *s, uint64_t step) {
    if (step < s->warmup) {
        return s->lr * (double)(step + 1) / (double)s->warmup;
    }
    if (strcmp(s->decay, "constant") == 0 || (s->n_turns == 0 && s->steps <= s->warmup + 1)) {
        return s->lr;
    }
    const double at = progress(s, step);
    double share = strcmp(s->decay, "linear") == 0 ? 1.0 - at : 0.5 * (1.0 + cos(acos(-1.0) * at));
    return s->min_lr + (s->lr - s->min_lr) * share;
}

double kiln_learning_rate(const struct kiln_settings *s, uint64_t step) {
    const double lr = scheduled_rate(s, step);
    size_t n = 0;
    while (n < s->n_peaks && s->peak[n].at <= step) {
        n++;
    }
    return n > 0 ? lr * (s->peak[n - 1].lr / s->lr) : lr;
}
