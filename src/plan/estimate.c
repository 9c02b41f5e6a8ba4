/* SPDX-License-Identifier: MIT
 *
 * estimate.c: a plan told: what was chosen, what it costs, and one line for every policy.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "model/table.h"
#include "plan/plan.h"
#include "plan/ranks.h"

/* Where so many micro-batches stall, more will, too. */
#define MOST_ACCUM 16384

static const struct kiln_keep policies[KILN_POLICIES] = {
    {KILN_KEEP_ALL, 0},   {KILN_KEEP_BOUNDARY, 0}, {KILN_KEEP_SQRT, 0},
    {KILN_KEEP_EVERY, 4}, {KILN_KEEP_INPUTS, 0},   {KILN_KEEP_NONE, 0},
};

static size_t count(const struct kiln_plan *plan, enum kiln_layer_keep what, size_t *out) {
    size_t n = 0;
    for (size_t l = 0; l < plan->schedule.layers; l++) {
        if (plan->schedule.keep[l] == what) {
            if (out != NULL) {
                out[n] = l;
            }
            n++;
        }
    }
    return n;
}

static void fill_policy(const struct kiln_plan *plan, struct kiln_policy *out) {
    out->possible = true;
    out->kept_count = count(plan, KILN_FULL, NULL);
    out->extra_forward_layers = plan->schedule.layers - out->kept_count;
    out->held = plan->schedule.held;
    out->bytes = plan->memory.activations_kept + plan->memory.activations_live;
    out->total = plan->memory.total;
    out->compiles = plan->cost.compiles;
    out->restarts = plan->cost.restarts;
    out->step_s = kiln_plan_seconds(plan).step;
}

/* Every policy as it would be with memory enough. */
static enum kiln_status tell_policies(const struct kiln_table *table,
                                      const struct kiln_plan_request *request,
                                      struct kiln_estimate *out, struct kiln_err *err) {
    struct kiln_plan_request free_request = *request;
    free_request.memory = 0;
    for (size_t i = 0; i < KILN_POLICIES; i++) {
        struct kiln_plan plan;
        out->policies[i] = (struct kiln_policy){.keep = policies[i]};
        const enum kiln_status status =
            kiln_plan_policy(table, &free_request, policies[i], &plan, err);
        if (status == KILN_EBUDGET && i > 0) {
            continue; /* all was possible */
        }
        KILN_TRY(status);
        fill_policy(&plan, &out->policies[i]);
        kiln_plan_close(&plan);
    }
    return KILN_OK;
}

static enum kiln_status tell_trace(struct kiln_plan *plan, struct kiln_estimate *out,
                                   struct kiln_err *err) {
    struct kiln_trace trace = {.at = kiln_alloc(kiln_trace_room(plan), sizeof *trace.at)};
    KILN_REQUIRE(trace.at, err, KILN_ENOMEM, "planning: out of memory");
    out->actions = trace.at;
    KILN_TRY(kiln_simulate(plan, &trace, err));
    out->n_actions = trace.n;
    return KILN_OK;
}

/* Does DELAYED stall at that accum? With a relay, whatever was asked for: without one every restart
 * is a stall, however large the window. */
static enum kiln_status stalls(const struct kiln_table *table, const struct kiln_plan *plan,
                               size_t accum, bool *out, struct kiln_err *err) {
    struct kiln_plan_request request = *plan->request;
    struct kiln_plan delayed;
    request.overlap = KILN_OVERLAP_DELAYED;
    request.restart = KILN_RESTART_RELAY;
    request.accum = accum;
    KILN_TRY(kiln_plan_layers(table, &request, plan->keep_of, 0, &delayed, err));
    *out = delayed.cost.stall_s > 1e-9 * delayed.cost.compile_s;
    kiln_plan_close(&delayed);
    return KILN_OK;
}

/* Simulated, not divided: kernels wait for each other, for hand-overs and for what is held. Larger
 * windows never stall more, so the place is found by halving. */
static enum kiln_status zero_stall_accum(const struct kiln_table *table,
                                         const struct kiln_plan *plan, size_t *out,
                                         struct kiln_err *err) {
    size_t low = 0, high = 1; /* low stalls */
    bool stall = plan->cost.compiles > 0 && !plan->request->forward_only;
    *out = 1;
    if (!stall) {
        return KILN_OK;
    }
    for (;; low = high, high *= 2) {
        KILN_TRY(stalls(table, plan, high, &stall, err));
        if (!stall) {
            break;
        }
        if (high >= MOST_ACCUM) {
            *out = 0;
            return KILN_OK;
        }
    }
    while (high - low > 1) {
        const size_t accum = low + (high - low) / 2;
        KILN_TRY(stalls(table, plan, accum, &stall, err));
        *(stall ? &low : &high) = accum;
    }
    *out = high;
    return KILN_OK;
}

static void tell_overlap(const struct kiln_plan *plan, struct kiln_estimate *out) {
    const bool delayed = plan->schedule.overlap == KILN_OVERLAP_DELAYED;
    out->overlap = plan->schedule.overlap;
    out->restart = plan->schedule.relay ? KILN_RESTART_RELAY : KILN_RESTART_EXEC;
    out->restart_why = plan->restart_why;
    out->staleness = delayed && !plan->request->forward_only;
    out->two_sets = plan->two_sets;
    out->kernels_two_sets = plan->kernels_two;
}

static enum kiln_status tell(const struct kiln_table *table, struct kiln_plan *plan, bool trace,
                             struct kiln_estimate *out, struct kiln_err *err) {
    const struct kiln_schedule_plan *s = &plan->schedule;
    out->keep = plan->keep;
    out->groups = kiln_alloc(s->groups.n, sizeof *out->groups);
    out->kept = kiln_alloc(s->layers, sizeof *out->kept);
    out->inputs = kiln_alloc(s->layers, sizeof *out->inputs);
    KILN_REQUIRE(out->groups && out->kept && out->inputs, err, KILN_ENOMEM,
                 "planning: out of memory");
    memcpy(out->groups, s->groups.at, s->groups.n * sizeof *out->groups);
    out->n_groups = s->groups.n;
    out->kept_count = count(plan, KILN_FULL, out->kept);
    out->inputs_count = count(plan, KILN_INPUT, out->inputs);
    out->extra_forward_layers = s->layers - out->kept_count;
    out->compiles = plan->cost.compiles;
    out->restarts = plan->cost.restarts;
    out->surface_written = (uint64_t)llround(plan->cost.written); /* equal in all windows */
    out->surface_read = (uint64_t)llround(plan->cost.read);
    out->held = s->held;
    out->memory = plan->memory;
    out->flops = plan->flops;
    out->time = kiln_plan_seconds(plan);
    tell_overlap(plan, out);
    KILN_TRY(zero_stall_accum(table, plan, &out->zero_stall_accum, err));
    out->disk_bytes_per_step = plan->disk_written + plan->disk_read;
    if (plan->request->ranks.ranks > 0 && plan->request->stage.stages <= 1 &&
        !plan->request->forward_only) {
        KILN_TRY(kiln_plan_over_ranks(table, plan, &out->ranks, err));
    }
    return trace ? tell_trace(plan, out, err) : KILN_OK;
}

/* Sizes so large that bytes would not be counted right. */
static enum kiln_status check_sizes(const struct kiln_plan_request *r, struct kiln_err *err) {
    const struct kiln_dims *d = &r->dims;
    const double widest = (double)d->dim + (double)d->hidden + (double)r->seq;
    const double floats = 32 * widest * (double)(d->layers + 1) * (double)r->batch *
                          (double)r->seq * (double)r->accum;
    KILN_REQUIRE(floats < 0x1p60, err, KILN_EUSAGE,
                 "%zu layers of %zu x %zu x %zu tokens a window are more than a plan can count; "
                 "lower --batch, --seq or --accum",
                 d->layers, r->accum, r->batch, r->seq);
    return KILN_OK;
}

static enum kiln_status estimate(const struct kiln_table *table,
                                 const struct kiln_plan_request *request, bool trace,
                                 struct kiln_estimate *out, struct kiln_err *err) {
    struct kiln_plan plan;
    struct kiln_plan_request fitted = *request;
    KILN_TRY(tell_policies(table, request, out, err));
    KILN_TRY(kiln_plan_fit(table, &fitted, &plan, err));
    out->load_budget = fitted.load_budget;
    if (fitted.load_budget > 0) {
        out->load_usable = kiln_usable_budget(fitted.load_budget, fitted.headroom_millionths);
    }
    const enum kiln_status status = tell(table, &plan, trace, out, err);
    kiln_plan_close(&plan);
    return status;
}

/* A pipeline, and the request for its slowest stage: what is told beside is of that. */
static enum kiln_status tell_pipeline(const struct kiln_table *table,
                                      struct kiln_plan_request *request, struct kiln_estimate *out,
                                      struct kiln_err *err) {
    KILN_TRY(kiln_plan_pipeline(table, request, &out->ranks, err));
    const size_t replicas = out->ranks.pipeline.replicas;
    request->accum = (request->accum + replicas - 1) / replicas;
    kiln_stage_choose(request, request->ranks.stages, out->ranks.pipeline.slowest);
    out->stage = request->stage;
    return KILN_OK;
}

static enum kiln_status estimate_stage(const struct kiln_table *table,
                                       const struct kiln_plan_request *whole, bool trace,
                                       struct kiln_estimate *out, struct kiln_err *err) {
    struct kiln_plan_request request = *whole;
    struct kiln_table *stage;
    KILN_TRY(tell_pipeline(table, &request, out, err));
    const size_t first =
        kiln_stage_first(table->dims.layers, request.ranks.stages, out->ranks.pipeline.slowest);
    KILN_TRY(kiln_table_stage(table, first, first + request.dims.layers, &stage, err));
    const enum kiln_status status = estimate(stage, &request, trace, out, err);
    kiln_table_destroy(stage);
    return status;
}

enum kiln_status kiln_estimate(const struct kiln_plan_request *request, bool trace,
                               struct kiln_estimate *out, struct kiln_err *err) {
    const struct kiln_limits limits = kiln_limits_of(request);
    struct kiln_table *table = NULL;
    const bool stages = request->ranks.stages > 1 && !request->forward_only;
    memset(out, 0, sizeof *out);
    KILN_TRY(check_sizes(request, err));
    KILN_TRY(kiln_limits_check(request, &limits, err));
    KILN_TRY(kiln_table_create_lora(&request->dims, &request->lora, &table, err));
    out->parameters = table->parameters;
    const struct kiln_device_options device = kiln_plan_device(request);
    out->programs = kiln_device_programs(&device);
    out->usable = kiln_usable_budget(request->budget, request->headroom_millionths);
    out->load_usable = kiln_usable_budget(request->load_budget, request->headroom_millionths);
    const enum kiln_status status = stages ? estimate_stage(table, request, trace, out, err)
                                           : estimate(table, request, trace, out, err);
    kiln_table_destroy(table);
    if (status != KILN_OK) {
        kiln_estimate_free(out);
    }
    return status;
}

void kiln_estimate_free(struct kiln_estimate *estimate) {
    kiln_free(estimate->groups);
    kiln_free(estimate->kept);
    kiln_free(estimate->inputs);
    kiln_free(estimate->actions);
    memset(estimate, 0, sizeof *estimate);
}
