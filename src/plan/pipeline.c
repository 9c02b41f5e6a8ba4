/* SPDX-License-Identifier: MIT
 *
 * pipeline.c: from the plans of stages to steps over a pipeline.
 *
 * Each stage is planned as what it is; its micro-batches take it what its own simulation says. Then
 * all go through the stages in virtual time, each in the order of 1F1B, as soon as what they read
 * has come. Gradients are summed behind the last backward pass of a stage, while those before it
 * still compute.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "model/table.h"
#include "plan/ranks.h"
#include "ranks/tree.h"

/* ---- 1F1B -------------------------------------------------------------------------------------
 */

struct line {
    struct kiln_stage_time *time;
    size_t lead, micro_batches;
    size_t forwards, backwards;            /* done */
    double now, *forward_at, *backward_at; /* [micro_batches] done; NaN: not yet */
};

/* The next pass of a stage, if it can be told when it begins; `before` and `behind` may be NULL. */
static bool pass(struct line *s, const struct line *before, const struct line *behind,
                 double message_s) {
    const bool more = s->forwards < s->micro_batches;
    const bool forward = more && s->forwards <= s->backwards + s->lead;
    const size_t i = forward ? s->forwards : s->backwards;
    const struct line *from = forward ? before : behind;
    double ready = s->now;
    if (i == s->micro_batches) {
        return false;
    }
    if (from != NULL) {
        const double sent = (forward ? from->forward_at : from->backward_at)[i];
        if (isnan(sent)) {
            return false;
        }
        ready = fmax(ready, sent + message_s);
    }
    s->now = ready + (forward ? s->time->forward_s : s->time->backward_s);
    (forward ? s->forward_at : s->backward_at)[i] = s->now;
    *(forward ? &s->forwards : &s->backwards) += 1;
    return true;
}

static void run(struct line *lines, size_t n, double message_s) {
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t s = 0; s < n; s++) {
            while (pass(&lines[s], s > 0 ? &lines[s - 1] : NULL, s + 1 < n ? &lines[s + 1] : NULL,
                        message_s)) {
                moved = true;
            }
        }
    }
}

enum kiln_status kiln_pipeline_run(struct kiln_stage_time *stages, size_t n, size_t micro_batches,
                                   double message_s, struct kiln_err *err) {
    struct line *lines = kiln_alloc(n, sizeof *lines);
    double *times = kiln_alloc(2 * n * micro_batches, sizeof *times);
    const bool room = lines != NULL && times != NULL;
    for (size_t i = 0; room && i < 2 * n * micro_batches; i++) {
        times[i] = (double)NAN;
    }
    for (size_t s = 0; room && s < n; s++) {
        lines[s] = (struct line){.time = &stages[s],
                                 .lead = n - 1 - s,
                                 .micro_batches = micro_batches,
                                 .now = stages[s].stall_s,
                                 .forward_at = times + 2 * s * micro_batches,
                                 .backward_at = times + (2 * s + 1) * micro_batches};
    }
    if (room) {
        run(lines, n, message_s);
    }
    for (size_t s = 0; room && s < n; s++) {
        stages[s].end_s = lines[s].now;
    }
    kiln_free(lines);
    kiln_free(times);
    KILN_REQUIRE(room, err, KILN_ENOMEM, "planning %zu stages: out of memory", n);
    return KILN_OK;
}

/* ---- stages -----------------------------------------------------------------------------------
 */

struct pipeline {
    const struct kiln_table *table;
    const struct kiln_plan_request *request; /* of the model */
    size_t stages, replicas, micro_batches;
    struct kiln_stage_time *times; /* [stages] */
    double update_s;
};

/* Shares of forward and backward in what a micro-batch takes. */
static void split(const struct kiln_plan *plan, double micro_batch_s, struct kiln_stage_time *out) {
    const struct kiln_schedule_plan *s = &plan->schedule;
    const struct kiln_rates r = kiln_plan_rates(plan);
    double forward = r.head + r.host_head, backward = 0;
    for (size_t l = 0; l < s->layers; l++) {
        forward += r.forward;
        backward += r.backward + (s->keep[l] == KILN_FULL ? 0 : r.forward);
    }
    const double both = forward + backward;
    out->forward_s = both > 0 ? micro_batch_s * forward / both : 0;
    out->backward_s = micro_batch_s - out->forward_s;
}

static void note(struct pipeline *p, size_t number, const struct kiln_plan *plan,
                 struct kiln_ranks_cost *out) {
    struct kiln_pipeline_cost *c = &out->pipeline;
    const struct kiln_plan_time t = kiln_plan_seconds(plan);
    const double micro_batch_s = plan->cost.compute_s / (double)plan->accum;
    split(plan, micro_batch_s, &p->times[number]);
    p->times[number].stall_s = t.stall + t.restart;
    p->update_s = fmax(p->update_s, plan->cost.update_s);
    if (number == 0 || micro_batch_s > c->micro_batch_s) {
        c->slowest = number;
        c->micro_batch_s = micro_batch_s;
    }
    c->layers = plan->schedule.layers > c->layers ? plan->schedule.layers : c->layers;
    c->held = number == 0 ? plan->layout.held : c->held;
    c->compiles = fmax(c->compiles, plan->cost.compiles);
    c->restarts = fmax(c->restarts, plan->cost.restarts);
    c->stall_s = fmax(c->stall_s, t.stall);
    out->memory = plan->memory.total > out->memory ? plan->memory.total : out->memory;
}

static enum kiln_status plan_stage(struct pipeline *p, size_t number, struct kiln_ranks_cost *out,
                                   struct kiln_err *err) {
    struct kiln_plan_request request = *p->request;
    struct kiln_plan plan;
    struct kiln_table *table;
    request.accum = p->micro_batches;
    kiln_stage_choose(&request, p->stages, number);
    const size_t first = kiln_stage_first(p->table->dims.layers, p->stages, number);
    KILN_TRY(kiln_table_stage(p->table, first, first + request.dims.layers, &table, err));
    const enum kiln_status status = kiln_plan_fit(table, &request, &plan, err);
    if (status == KILN_OK) {
        note(p, number, &plan, out);
        kiln_plan_close(&plan);
    }
    kiln_table_destroy(table);
    return status;
}

/* ---- sums -------------------------------------------------------------------------------------
 */

static double floats_of(const struct kiln_table *table, size_t layer) {
    size_t first;
    return (double)kiln_trained_part(table, layer, &first);
}

/* Of the last stage first, which ends first. Each layer travels behind its backward pass. */
static size_t buckets_of(const struct pipeline *p, struct kiln_bucket *out) {
    const struct kiln_table *table = p->table;
    const size_t layers = table->dims.layers;
    const bool tied = table->dims.tied && table->trained == 0;
    const double lookup =
        tied ? (double)(table->dims.vocab * table->dims.dim) : floats_of(table, KILN_NO_LAYER);
    size_t n = 0;
    for (size_t s = p->stages; s-- > 0;) {
        const struct kiln_stage_time *t = &p->times[s];
        const size_t first = kiln_stage_first(layers, p->stages, s);
        const size_t end = kiln_stage_first(layers, p->stages, s + 1);
        const double layer_s = t->backward_s / (double)(end - first);
        if (s + 1 == p->stages) {
            out[n++] = (struct kiln_bucket){t->end_s - t->backward_s,
                                            floats_of(table, layers) + (tied ? lookup : 0)};
        }
        for (size_t l = end; l-- > first;) {
            out[n++] =
                (struct kiln_bucket){t->end_s - (double)(l - first) * layer_s, floats_of(table, l)};
        }
    }
    out[n++] = (struct kiln_bucket){p->times[0].end_s, lookup};
    return n;
}

static enum kiln_status sum(const struct pipeline *p, struct kiln_ranks_cost *out,
                            struct kiln_err *err) {
    const struct kiln_plan_ranks *asked = &p->request->ranks;
    const double update = p->request->profile.update_gb_s * 1e9;
    struct kiln_bucket *buckets = kiln_alloc(p->table->dims.layers + 2, sizeof *buckets);
    KILN_REQUIRE(buckets, err, KILN_ENOMEM, "planning %zu stages: out of memory", p->stages);
    const struct kiln_nodes tree = kiln_nodes_of(p->replicas, p->request->accum);
    const bool narrow = asked->float_bytes == 2;
    const double float_bytes = narrow ? 2 : sizeof(float);
    const struct kiln_wire wire = {
        .ranks = asked->ranks,
        .nodes = asked->deterministic ? tree : (struct kiln_nodes){1, p->replicas},
        .narrow = narrow,
        .message_s = asked->link.latency_s,
        .float_s = float_bytes / asked->link.bytes_per_s,
        .sum_s = update > 0 ? 3 * sizeof(float) / update : 0};
    const struct kiln_reduced sums = kiln_wire_reduce(&wire, buckets, buckets_of(p, buckets));
    kiln_free(buckets);
    const double late = fmax(sums.end_s - p->times[0].end_s, 0);
    out->kind = KILN_ALLREDUCE_DIRECT;
    out->bytes_sent = sums.floats * float_bytes;
    out->communication_s = sums.busy_s;
    out->exposed_s = fmin(late, sums.busy_s);
    out->hidden_share = sums.busy_s > 0 ? 1 - out->exposed_s / sums.busy_s : 1;
    return KILN_OK;
}

/* ---- all of it --------------------------------------------------------------------------------
 */

/* A window alone, if one rank can hold it. */
static void compare(const struct pipeline *p, struct kiln_ranks_cost *out) {
    struct kiln_plan_request request = *p->request;
    struct kiln_plan plan;
    struct kiln_err ignored;
    if (kiln_plan_fit(p->table, &request, &plan, &ignored) == KILN_OK) {
        out->speedup = kiln_plan_seconds(&plan).step / out->step_s;
        out->efficiency = out->speedup / (double)request.ranks.ranks;
        kiln_plan_close(&plan);
    }
}

static enum kiln_status tell(struct pipeline *p, struct kiln_ranks_cost *out,
                             struct kiln_err *err) {
    const struct kiln_plan_request *r = p->request;
    struct kiln_pipeline_cost *c = &out->pipeline;
    for (size_t s = 0; s < p->stages; s++) {
        KILN_TRY(plan_stage(p, s, out, err));
    }
    const double tokens = (double)(r->batch * r->seq);
    const double bytes = tokens * (double)r->dims.dim * sizeof(float);
    KILN_TRY(kiln_pipeline_run(p->times, p->stages, p->micro_batches,
                               r->ranks.link.latency_s + bytes / r->ranks.link.bytes_per_s, err));
    c->compute_s = p->times[0].end_s;
    c->bytes_passed = (p->stages > 2 ? 2 : 1) * bytes * (double)p->micro_batches;
    const double busy = c->micro_batch_s * (double)p->micro_batches;
    c->bubble_share = c->compute_s > 0 ? 1 - busy / c->compute_s : 0;
    out->micro_batches = p->micro_batches;
    out->local_steps_advised = 1;
    KILN_TRY(sum(p, out, err));
    out->step_s = c->compute_s + out->exposed_s + p->update_s;
    out->tokens_per_s = tokens * (double)r->accum / out->step_s;
    out->memory_sharded = out->memory;
    compare(p, out);
    return KILN_OK;
}

enum kiln_status kiln_plan_pipeline(const struct kiln_table *table,
                                    const struct kiln_plan_request *request,
                                    struct kiln_ranks_cost *out, struct kiln_err *err) {
    const size_t ranks = request->ranks.ranks, stages = request->ranks.stages;
    KILN_REQUIRE(stages <= table->dims.layers && ranks >= stages && ranks % stages == 0, err,
                 KILN_EUSAGE,
                 "%zu stages: of a model of %zu layers on %zu ranks there are as many as layers at "
                 "most, and each has as many ranks",
                 stages, table->dims.layers, ranks);
    struct pipeline p = {.table = table,
                         .request = request,
                         .stages = stages,
                         .replicas = ranks / stages,
                         .times = kiln_alloc(stages, sizeof *p.times)};
    p.micro_batches = (request->accum + p.replicas - 1) / p.replicas;
    *out = (struct kiln_ranks_cost){.pipeline = {.stages = stages, .replicas = p.replicas}};
    const enum kiln_status status =
        p.times ? tell(&p, out, err)
                : KILN_FAIL(err, KILN_ENOMEM, "planning %zu stages: out of memory", stages);
    kiln_free(p.times);
    return status;
}
