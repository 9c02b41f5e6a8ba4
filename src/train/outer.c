/* SPDX-License-Identifier: MIT */
#include "train/outer.h"

#include <string.h>

#include "base/kill_point.h"
#include "base/machine.h"
#include "base/mem.h"
#include "model/table.h"
#include "train/trainer_int.h"

enum { PIECE = 1 << 14 }; /* numbers that a thread takes at a time */

/* Of what is trained. */
struct outer {
    float *weights, *m, *v, *momentum;
    float *own_weights, *own_m, *own_v; /* of the rank, then of all */
    float *change;
    size_t n;
    float share, lr, decay; /* 1/n of the ranks; decay: of the momentum */
};

static struct outer outer_of(struct kiln_state *state, const struct kiln_table *table) {
    return (struct outer){.weights = kiln_state_region(state, KILN_WEIGHTS) + table->trained,
                          .m = kiln_state_region(state, KILN_MOMENT1),
                          .v = kiln_state_region(state, KILN_MOMENT2),
                          .momentum = kiln_state_region(state, KILN_OUTER_MOMENTUM),
                          .own_weights = kiln_state_working(state, KILN_WEIGHTS) + table->trained,
                          .own_m = kiln_state_working(state, KILN_MOMENT1),
                          .own_v = kiln_state_working(state, KILN_MOMENT2),
                          .change = kiln_state_region(state, KILN_GRADIENTS),
                          .n = kiln_trained_size(table)};
}

bool kiln_outer_due(const struct kiln_settings *s, uint64_t steps) {
    return s->local_steps > 1 && (steps % s->local_steps == 0 || steps == s->steps);
}

/* ---- pieces: each only writes what it does not read, or what a death gives up ------------------
 */

static size_t end_of(const struct outer *o, size_t task) {
    return kiln_least(o->n, (task + 1) * PIECE);
}

static void subtract(void *context, size_t task, size_t thread) {
    const struct outer *o = context;
    (void)thread;
    for (size_t i = task * PIECE; i < end_of(o, task); i++) {
        o->change[i] = o->weights[i] - o->own_weights[i];
    }
}

static void step(void *context, size_t task, size_t thread) {
    const struct outer *o = context;
    (void)thread;
    for (size_t i = task * PIECE; i < end_of(o, task); i++) {
        const float mean = o->change[i] * o->share;
        const float momentum = o->decay * o->momentum[i] + mean;
        o->own_weights[i] = o->weights[i] - o->lr * (mean + o->decay * momentum);
        o->own_m[i] *= o->share;
        o->own_v[i] *= o->share;
        o->change[i] = momentum;
    }
}

static void put(void *context, size_t task, size_t thread) {
    const struct outer *o = context;
    const size_t at = task * PIECE, bytes = (end_of(o, task) - at) * sizeof(float);
    (void)thread;
    memcpy(o->weights + at, o->own_weights + at, bytes);
    memcpy(o->m + at, o->own_m + at, bytes);
    kiln_kill_point("outer: half put");
    memcpy(o->v + at, o->own_v + at, bytes);
    memcpy(o->momentum + at, o->change + at, bytes);
}

static size_t pieces_of(const struct outer *o) { return (o->n + PIECE - 1) / PIECE; }

/* ---- a round ----------------------------------------------------------------------------------
 */

enum kiln_status kiln_outer_open(struct kiln_state *state, const struct kiln_table *table,
                                 struct kiln_err *err) {
    struct kiln_cursor cursor = *kiln_state_cursor(state);
    if (!kiln_state_local(state)) {
        return KILN_OK;
    }
    struct outer o = outer_of(state, table);
    if (cursor.phase == KILN_PHASE_OUTER) {
        KILN_TRY(kiln_state_begin(state, err));
        for (size_t i = 0; i < pieces_of(&o); i++) {
            put(&o, i, 0);
        }
        kiln_state_stamp_all(state, cursor.updates);
        cursor.phase = KILN_PHASE_FINISH;
        kiln_state_commit(state, &cursor);
    }
    memcpy(o.own_weights - table->trained, o.weights - table->trained, table->size * sizeof(float));
    memcpy(o.own_m, o.m, o.n * sizeof(float));
    memcpy(o.own_v, o.v, o.n * sizeof(float));
    return KILN_OK;
}

static void sum(struct kiln_ranks *ranks, float *x, size_t n) {
    for (size_t at = 0; at < n; at += KILN_RANKS_STRETCH) {
        kiln_ranks_sum(ranks, x + at, kiln_least(n - at, KILN_RANKS_STRETCH));
    }
}

enum kiln_status kiln_outer_step(struct kiln_trainer *t, const struct kiln_cursor *cursor,
                                 struct kiln_err *err) {
    const double start = kiln_now_s();
    struct kiln_pool *pool = t->engine.pool;
    struct outer o = outer_of(t->state, t->table);
    o.share = 1.0f / (float)kiln_ranks_count(t->ranks);
    o.lr = (float)t->settings->outer_lr;
    o.decay = (float)t->settings->outer_momentum;
    kiln_kill_point("outer: before");
    kiln_pool_run(pool, pieces_of(&o), subtract, &o);
    sum(t->ranks, o.change, o.n);
    sum(t->ranks, o.own_m, o.n);
    sum(t->ranks, o.own_v, o.n);
    KILN_TRY(kiln_ranks_wait(t->ranks, err));
    kiln_kill_point("outer: summed");
    kiln_pool_run(pool, pieces_of(&o), step, &o);
    struct kiln_cursor all = *cursor;
    all.phase = KILN_PHASE_OUTER;
    kiln_state_let_go(t->state);
    kiln_kill_point("outer: computed");
    kiln_state_commit(t->state, &all);
    kiln_kill_point("outer: committed");
    kiln_pool_run(pool, pieces_of(&o), put, &o);
    kiln_state_stamp_all(t->state, all.updates);
    kiln_kill_point("outer: put");
    kiln_optimizer_refresh(t->engine.optimizer);
    kiln_trainer_span(t, KILN_SPAN_UPDATE, "outer step", start);
    t->outer_ms = (kiln_now_s() - start) * 1e3;
    return KILN_OK;
}
