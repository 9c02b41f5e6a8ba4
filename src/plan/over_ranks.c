/* SPDX-License-Identifier: MIT
 *
 * over_ranks.c: from the plan of one process to steps over many ranks.
 *
 * A rank takes the plan of a window of its own micro-batches; the moments at which gradients are
 * whole come from the same simulation as its seconds. What a rank then waits for lies between its
 * last backward pass and its update.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/weights.h"
#include "plan/ranks.h"

/* Waiting that is not worth other mathematics: a share of a step. */
#define WAITS 0.05

/* A window of so many micro-batches, alone. */
struct window {
    size_t micro_batches;
    double step_s;
    uint64_t memory, state, resident; /* bytes: in all; of the state; of that in memory */
    struct kiln_bucket *buckets;      /* [L + 2] in the order in which they travel */
};

struct over_ranks {
    const struct kiln_table *table;
    struct kiln_plan *plan;
    size_t buckets;
    double *whole; /* [buckets], by layer */
    struct window all, share;
    double trained;  /* floats */
    double update_s; /* to read or write one */
};

/* Floats of what lies behind the layers, of a layer, of the embedding. */
static void floats_of(const struct kiln_table *table, struct kiln_bucket *buckets) {
    const size_t layers = table->dims.layers;
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        const size_t at = t->layer != KILN_NO_LAYER ? layers - t->layer
                          : t->role == KILN_EMBED   ? layers + 1
                                                    : 0;
        if (i >= table->n_base || table->trained == 0) {
            buckets[at].floats += (double)t->rows * (double)t->cols;
        }
    }
}

static enum kiln_status measure(struct over_ranks *o, struct kiln_plan *plan, struct window *w,
                                struct kiln_err *err) {
    const size_t layers = plan->schedule.layers;
    const struct kiln_memory *m = &plan->memory;
    KILN_TRY(kiln_simulate_gradients(plan, o->whole, err));
    memset(w->buckets, 0, o->buckets * sizeof *w->buckets);
    floats_of(o->table, w->buckets);
    for (size_t l = 0; l < layers; l++) {
        w->buckets[layers - l].ready_s = o->whole[l];
    }
    w->buckets[0].ready_s = o->whole[layers];
    w->buckets[layers + 1].ready_s = o->whole[layers + 1];
    w->micro_batches = plan->accum;
    w->step_s = kiln_plan_seconds(plan).step;
    w->memory = m->total;
    w->state = m->weights + m->moments + m->gradients;
    w->resident = plan->state_resident;
    return KILN_OK;
}

static enum kiln_status window_of(struct over_ranks *o, size_t micro_batches, struct window *w,
                                  struct kiln_err *err) {
    struct kiln_plan_request request = *o->plan->request;
    struct kiln_plan plan;
    if (w->micro_batches == micro_batches) {
        return KILN_OK;
    }
    if (micro_batches == o->plan->accum) {
        return measure(o, o->plan, w, err);
    }
    request.accum = micro_batches;
    KILN_TRY(kiln_plan_layers(o->table, &request, o->plan->keep_of, (double)INFINITY, &plan, err));
    const enum kiln_status status = measure(o, &plan, w, err);
    kiln_plan_close(&plan);
    return status;
}

static double float_bytes(const struct over_ranks *o) {
    const size_t bytes = o->plan->request->ranks.float_bytes;
    return bytes > 0 ? (double)bytes : sizeof(float);
}

/* Of ranks that sum what so many micro-batches have given. */
static struct kiln_wire wire_of(const struct over_ranks *o, size_t ranks, uint64_t micro_batches) {
    const struct kiln_plan_ranks *asked = &o->plan->request->ranks;
    const struct kiln_link *link = &asked->link;
    return (struct kiln_wire){.ranks = ranks,
                              .parts = o->plan->request->spread > 1,
                              .nodes = asked->deterministic ? kiln_nodes_of(ranks, micro_batches)
                                                            : (struct kiln_nodes){0},
                              .narrow = asked->float_bytes == 2,
                              .message_s = link->latency_s,
                              .float_s = float_bytes(o) / link->bytes_per_s,
                              .sum_s = 3 * o->update_s}; /* two are read, one is written */
}

/* What the other ranks add to steps of a window. */
struct step {
    double communication_s, exposed_s, outer_s, floats, step_s;
};

static double local_steps(const struct over_ranks *o) {
    const size_t steps = o->plan->request->ranks.local_steps;
    return steps > 0 ? (double)steps : 1;
}

/* Of each rank the change of its weights and both moments, while nothing else is done. Beside that
 * memory is passed by: 3 arrays for the change, 9 for the step, 8 to put its results in place, 2 to
 * pack the weights anew (train/outer.h). */
static struct step outer_step(const struct over_ranks *o, size_t ranks) {
    const struct kiln_wire wire = wire_of(o, ranks, ranks);
    const struct kiln_bucket all = {0, 3 * o->trained};
    const struct kiln_reduced sum = kiln_wire_reduce(&wire, &all, 1);
    return (struct step){.communication_s = sum.busy_s,
                         .exposed_s = sum.busy_s,
                         .outer_s = ranks > 1 ? 22 * o->update_s * o->trained : 0,
                         .floats = sum.floats};
}

/* Bytes of the weights that were updated, as devices compile from them. */
static double operand_bytes(const struct over_ranks *o) {
    const enum kiln_precision precision = kiln_plan_operands(o->plan->request);
    return o->table->trained > 0 ? sizeof(float) * (double)kiln_trained_size(o->table)
                                 : (double)kiln_snapshot_bytes(o->table, precision);
}

/* Behind the update each rank sends what it holds to all others. */
static void add_weights(const struct over_ranks *o, const struct kiln_wire *wire, struct step *s) {
    const double n = (double)wire->ranks, bytes = operand_bytes(o) * (n - 1) / n;
    const double seconds =
        n > 1 ? wire->message_s + bytes / o->plan->request->ranks.link.bytes_per_s : 0;
    s->communication_s += seconds;
    s->exposed_s += seconds;
    s->floats += bytes / float_bytes(o);
}

static struct step plain_step(const struct over_ranks *o, const struct kiln_wire *wire,
                              const struct window *w) {
    const struct kiln_reduced sum = kiln_wire_reduce(wire, w->buckets, o->buckets);
    const double late = sum.end_s - w->buckets[o->buckets - 1].ready_s;
    struct step s = {.communication_s = sum.busy_s, .floats = sum.floats};
    s.exposed_s = late <= 0 ? 0 : late < sum.busy_s ? late : sum.busy_s;
    if (wire->parts) {
        add_weights(o, wire, &s);
    }
    s.step_s = w->step_s + s.exposed_s;
    return s;
}

/* Of ranks that share so many micro-batches; `w` is the window of one of them. */
static struct step step_of(const struct over_ranks *o, size_t ranks, uint64_t micro_batches,
                           const struct window *w) {
    const double steps = local_steps(o);
    if (steps <= 1) {
        const struct kiln_wire wire = wire_of(o, ranks, micro_batches);
        return plain_step(o, &wire, w);
    }
    struct step s = outer_step(o, ranks);
    s.communication_s /= steps;
    s.exposed_s /= steps;
    s.outer_s /= steps;
    s.floats /= steps;
    s.step_s = w->step_s + s.exposed_s + s.outer_s;
    return s;
}

/* The fewest local steps with which a step waits for less than WAITS of its time. */
static size_t advise(const struct over_ranks *o, const struct kiln_wire *wire,
                     const struct window *w) {
    const struct step plain = plain_step(o, wire, w), outer = outer_step(o, wire->ranks);
    if (plain.exposed_s < WAITS * plain.step_s || wire->ranks == 1) {
        return 1;
    }
    const double waits = outer.exposed_s + outer.outer_s;
    const double steps = floor(waits * (1 - WAITS) / WAITS / w->step_s) + 1;
    return steps < 2 ? 2 : steps < 0x1p53 ? (size_t)steps : 0;
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

static void tell_memory(const struct over_ranks *o, struct kiln_ranks_cost *out) {
    const struct window *w = &o->share;
    const double ranks = (double)o->plan->request->ranks.ranks;
    const uint64_t spread =
        (uint64_t)(3 * sizeof(float) * o->trained * (ranks - 1) / ranks); /* W, m, v */
    const struct kiln_plan_request *r = o->plan->request;
    const bool has = kiln_plan_snapshots(r) != KILN_PRECISION_AUTO || ranks <= 1;
    const uint64_t copy = has ? 0 : kiln_snapshot_bytes(o->table, kiln_plan_operands(r));
    out->memory = w->memory;
    out->memory_sharded =
        r->spread > 1 ? out->memory
                      : out->memory - w->resident + least(w->resident, w->state - spread) + copy;
}

static enum kiln_status tell_scaling(struct over_ranks *o, struct kiln_ranks_cost *out,
                                     struct kiln_err *err) {
    const size_t accum = o->plan->accum;
    for (size_t i = 0; i < KILN_SCALES; i++) {
        struct kiln_scale *s = &out->scaling[i];
        s->ranks = (size_t)1 << i;
        s->micro_batches = (accum + s->ranks - 1) / s->ranks;
        KILN_TRY(window_of(o, s->micro_batches, &o->share, err));
        s->step_s = step_of(o, s->ranks, accum, &o->share).step_s;
        s->weak_step_s = step_of(o, s->ranks, s->ranks * accum, &o->all).step_s;
        s->strong_efficiency = o->all.step_s / s->step_s / (double)s->ranks;
        s->weak_efficiency = o->all.step_s / s->weak_step_s;
    }
    return KILN_OK;
}

static enum kiln_status tell(struct over_ranks *o, struct kiln_ranks_cost *out,
                             struct kiln_err *err) {
    const struct kiln_plan_request *r = o->plan->request;
    const size_t ranks = r->ranks.ranks, accum = o->plan->accum;
    const struct kiln_wire wire = wire_of(o, ranks, accum);
    KILN_TRY(window_of(o, accum, &o->all, err));
    KILN_TRY(window_of(o, accum / ranks + (accum % ranks > 0), &o->share, err));
    for (size_t i = 0; i < o->buckets; i++) {
        o->trained += o->all.buckets[i].floats;
    }
    const struct step s = step_of(o, ranks, accum, &o->share);
    const double tokens = (double)accum * (double)r->batch * (double)r->seq;
    *out = (struct kiln_ranks_cost){
        .micro_batches = o->share.micro_batches,
        .kind = kiln_allreduce_kind(&wire),
        .bytes_sent = s.floats * float_bytes(o),
        .communication_s = s.communication_s,
        .hidden_share = s.communication_s > 0 ? 1 - s.exposed_s / s.communication_s : 1,
        .exposed_s = s.exposed_s,
        .outer_s = s.outer_s,
        .step_s = s.step_s,
        .tokens_per_s = tokens / s.step_s,
        .speedup = o->all.step_s / s.step_s,
        .efficiency = o->all.step_s / s.step_s / (double)ranks,
        .local_steps_advised = advise(o, &wire, &o->share),
    };
    tell_memory(o, out);
    return tell_scaling(o, out, err);
}

enum kiln_status kiln_plan_over_ranks(const struct kiln_table *table, struct kiln_plan *plan,
                                      struct kiln_ranks_cost *out, struct kiln_err *err) {
    const struct kiln_link *link = &plan->request->ranks.link;
    const double update = plan->request->profile.update_gb_s * 1e9;
    struct over_ranks o = {.table = table,
                           .plan = plan,
                           .buckets = table->dims.layers + 2,
                           .update_s = update > 0 ? sizeof(float) / update : 0};
    KILN_REQUIRE(link->bytes_per_s > 0 && link->latency_s >= 0, err, KILN_EUSAGE,
                 "a link of %g bytes a second and %g seconds a message cannot be; give it a "
                 "bandwidth above 0 and a latency of at least 0",
                 link->bytes_per_s, link->latency_s);
    struct kiln_bucket *buckets = kiln_alloc(2 * o.buckets, sizeof *buckets);
    o.whole = kiln_alloc(o.buckets, sizeof *o.whole);
    o.all.buckets = buckets;
    o.share.buckets = buckets != NULL ? buckets + o.buckets : NULL;
    const enum kiln_status status =
        buckets != NULL && o.whole != NULL
            ? tell(&o, out, err)
            : KILN_FAIL(err, KILN_ENOMEM, "planning %zu layers: out of memory", table->dims.layers);
    kiln_free(buckets);
    kiln_free(o.whole);
    return status;
}
