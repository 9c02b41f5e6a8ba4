/* SPDX-License-Identifier: MIT
 *
 * estimate.c: the parts put together: one estimate, and one line for every policy.
 */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "plan/groups.h"

static const struct kiln_keep policies[KILN_POLICIES] = {
    {KILN_KEEP_ALL, 0},   {KILN_KEEP_BOUNDARY, 0}, {KILN_KEEP_SQRT, 0},
    {KILN_KEEP_EVERY, 4}, {KILN_KEEP_INPUTS, 0},   {KILN_KEEP_NONE, 0},
};

struct planner {
    const struct kiln_plan_request *request;
    struct kiln_limits limits;
    size_t layers;
    struct kiln_memory fixed;
    uint64_t residual, taps;
    struct kiln_groups groups, other;
    bool *full;
};

struct outcome {
    struct kiln_policy policy;
    struct kiln_memory memory;
};

static bool inputs_kept(struct kiln_keep keep) { return keep.kind == KILN_KEEP_INPUTS; }

/* Without a budget new weights cost a device that takes them in place nothing. */
static bool compiles_nothing(const struct planner *p) {
    return p->request->refreshes && p->request->budget == 0 && p->request->load_budget == 0;
}

/* The backward groups with fewest compiles, then fewest restarts: filled from a fresh process, or
 * from what the forward pass leaves. */
static enum kiln_status choose_groups(struct planner *p, struct outcome *out,
                                      struct kiln_err *err) {
    const bool single = inputs_kept(out->policy.keep);
    double compiles = 0, restarts = 0;
    p->other.n_forward = p->groups.n_forward;
    memcpy(p->other.at, p->groups.at, p->groups.n_forward * sizeof *p->groups.at);
    kiln_groups_backward(&p->limits, p->layers, p->full, single, false, &p->groups);
    kiln_groups_backward(&p->limits, p->layers, p->full, single, true, &p->other);
    KILN_TRY(kiln_simulate(&p->limits, &p->groups, p->layers, p->full, &out->policy.compiles,
                           &out->policy.restarts, NULL, err));
    KILN_TRY(
        kiln_simulate(&p->limits, &p->other, p->layers, p->full, &compiles, &restarts, NULL, err));
    if (compiles < out->policy.compiles ||
        (compiles == out->policy.compiles && restarts < out->policy.restarts)) {
        const struct kiln_groups swap = p->groups;
        p->groups = p->other;
        p->other = swap;
        out->policy.compiles = compiles;
        out->policy.restarts = restarts;
    }
    if (p->limits.whole) {
        out->policy.compiles *= (double)p->request->accum;
        out->policy.restarts *= (double)p->request->accum;
    }
    return KILN_OK;
}

/* Outputs kept beside full layers: of one before a dropped run, of the last layer; in `whole`, the
 * inputs of groups that do not begin with a full layer: runs are cut there. */
static size_t count_edges(const struct planner *p, bool single) {
    size_t edges = 1;
    for (size_t l = 0; !single && l + 1 < p->layers; l++) {
        edges += p->full[l] && !p->full[l + 1];
    }
    for (size_t i = 1; p->limits.whole && !single && i < p->groups.n_forward; i++) {
        const size_t first = p->groups.at[i].first;
        edges += !p->full[first] && !p->full[first - 1];
    }
    return edges;
}

static void measure(const struct planner *p, struct outcome *out) {
    const struct kiln_plan_request *r = p->request;
    const bool single = inputs_kept(out->policy.keep);
    const bool by_micro_batch = p->limits.whole || kiln_one_batch(&p->limits, p->layers);
    struct kiln_kept_shape shape = {
        .full = out->policy.kept_count,
        .inputs = single ? p->layers : 0,
        .edges = count_edges(p, single),
        .run = kiln_longest_run(&p->groups, p->layers, p->full, single, p->limits.whole),
        .held = by_micro_batch ? 1 : r->accum,
        .long_runs = p->groups.long_runs,
    };
    out->memory = p->fixed;
    kiln_memory_kept(&shape, p->residual, p->taps, (uint64_t)r->batch * r->seq, &out->memory);
    out->policy.bytes = out->memory.activations_kept + out->memory.activations_live;
    out->policy.total = out->memory.total;
}

static enum kiln_status try_policy(struct planner *p, struct kiln_keep keep, struct outcome *out,
                                   struct kiln_err *err) {
    *out = (struct outcome){.policy = {.keep = keep}};
    kiln_groups_forward(&p->limits, p->layers, &p->groups);
    kiln_keep_layers(keep, p->layers, &p->groups, p->full);
    for (size_t l = 0; l < p->layers; l++) {
        out->policy.kept_count += p->full[l];
    }
    out->policy.extra_forward_layers = p->layers - out->policy.kept_count;
    KILN_TRY(choose_groups(p, out, err));
    measure(p, out);
    if (compiles_nothing(p)) {
        out->policy.compiles = out->policy.restarts = 0;
    }
    return KILN_OK;
}

/* Of two that fit: fewer forwards run again, then fewer compiles, restarts, bytes. */
static bool faster(const struct kiln_policy *a, const struct kiln_policy *b) {
    if (a->extra_forward_layers != b->extra_forward_layers) {
        return a->extra_forward_layers < b->extra_forward_layers;
    }
    if (a->compiles != b->compiles) {
        return a->compiles < b->compiles;
    }
    return a->restarts != b->restarts ? a->restarts < b->restarts : a->bytes < b->bytes;
}

/* All policies; returns the fastest that fits in `chosen`, or the smallest with fits false. */
static enum kiln_status try_all(struct planner *p, struct kiln_estimate *out,
                                struct kiln_policy *chosen, bool *found, struct kiln_err *err) {
    *found = false;
    for (size_t i = 0; i < KILN_POLICIES; i++) {
        struct outcome outcome;
        KILN_TRY(try_policy(p, policies[i], &outcome, err));
        const struct kiln_policy *one = &outcome.policy;
        const bool fits = p->request->memory == 0 || one->total <= p->request->memory;
        out->policies[i] = *one;
        if (fits ? !*found || faster(one, chosen)
                 : !*found && (i == 0 || one->total < chosen->total)) {
            *chosen = *one;
        }
        *found |= fits;
    }
    return KILN_OK;
}

static enum kiln_status check_memory(const struct planner *p, const struct kiln_policy *policy,
                                     const struct kiln_estimate *out, struct kiln_err *err) {
    const uint64_t memory = p->request->memory;
    uint64_t smallest = policy->total;
    char name[32];
    for (size_t i = 0; i < KILN_POLICIES; i++) {
        smallest = out->policies[i].total < smallest ? out->policies[i].total : smallest;
    }
    KILN_REQUIRE(memory == 0 || policy->total <= memory, err, KILN_ENOMEM,
                 "--activations %s needs %" PRIu64 " bytes and --memory is %" PRIu64
                 "; the smallest policy needs %" PRIu64,
                 kiln_keep_name(policy->keep, name), policy->total, memory, smallest);
    return KILN_OK;
}

/* ---- what the caller gets -------------------------------------------------------------------- */

static enum kiln_status copy_out(struct planner *p, const struct outcome *chosen,
                                 struct kiln_estimate *out, struct kiln_err *err) {
    double ignored = 0;
    struct kiln_trace trace = {.at = NULL};
    out->groups = kiln_alloc(p->groups.n, sizeof *out->groups);
    out->kept = kiln_alloc(p->layers, sizeof *out->kept);
    /* A group is at most restarted to, compiled and run; then the update. */
    out->actions = trace.at = kiln_alloc(3 * p->groups.n + 2, sizeof *trace.at);
    KILN_REQUIRE(out->groups != NULL && out->kept != NULL && out->actions != NULL, err, KILN_ENOMEM,
                 "planning: out of memory");
    memcpy(out->groups, p->groups.at, p->groups.n * sizeof *out->groups);
    out->n_groups = p->groups.n;
    for (size_t l = 0; l < p->layers; l++) {
        if (p->full[l]) {
            out->kept[out->kept_count++] = l;
        }
    }
    KILN_TRY(
        kiln_simulate(&p->limits, &p->groups, p->layers, p->full, &ignored, &ignored, &trace, err));
    for (size_t i = 0; i < trace.n; i++) {
        /* Where weights are taken in place nothing is compiled. */
        if (!compiles_nothing(p) || out->actions[i].what != KILN_PLAN_COMPILE) {
            out->actions[out->n_actions++] = out->actions[i];
        }
    }
    out->keep = chosen->policy.keep;
    out->compiles = chosen->policy.compiles;
    out->restarts = chosen->policy.restarts;
    out->extra_forward_layers = chosen->policy.extra_forward_layers;
    out->memory = chosen->memory;
    return KILN_OK;
}

static enum kiln_status plan(struct planner *p, struct kiln_estimate *out, struct kiln_err *err) {
    struct kiln_policy best = {.bytes = 0};
    struct outcome chosen;
    bool found;
    KILN_TRY(try_all(p, out, &best, &found, err));
    if (p->request->keep.kind != KILN_KEEP_AUTO) {
        best.keep = p->request->keep;
    }
    KILN_TRY(try_policy(p, best.keep, &chosen, err));
    KILN_TRY(check_memory(p, &chosen.policy, out, err));
    return copy_out(p, &chosen, out, err);
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

static enum kiln_status open_planner(struct planner *p, struct kiln_estimate *out,
                                     struct kiln_err *err) {
    struct kiln_table *table = NULL;
    const size_t room = kiln_groups_room(p->layers);
    KILN_TRY(kiln_table_create(&p->request->dims, &table, err));
    out->parameters = table->parameters;
    const enum kiln_status status =
        kiln_memory_parts(table, p->request, &p->fixed, &p->residual, &p->taps, err);
    kiln_table_destroy(table);
    KILN_TRY(status);
    p->groups.at = kiln_alloc(room, sizeof *p->groups.at);
    p->other.at = kiln_alloc(room, sizeof *p->other.at);
    p->full = kiln_alloc(p->layers, sizeof *p->full);
    KILN_REQUIRE(p->groups.at != NULL && p->other.at != NULL && p->full != NULL, err, KILN_ENOMEM,
                 "planning %zu layers: out of memory", p->layers);
    return KILN_OK;
}

enum kiln_status kiln_estimate(const struct kiln_plan_request *request, struct kiln_estimate *out,
                               struct kiln_err *err) {
    struct planner p = {
        .request = request, .limits = kiln_limits_of(request), .layers = request->dims.layers};
    memset(out, 0, sizeof *out);
    KILN_TRY(check_sizes(request, err));
    KILN_TRY(kiln_limits_check(request, &p.limits, err));
    out->usable = request->budget == 0 ? 0 : p.limits.compile;
    out->load_usable = request->load_budget == 0 ? 0 : p.limits.load;
    out->by_micro_batch = p.limits.whole || kiln_one_batch(&p.limits, p.layers);
    out->flops = kiln_plan_flops(&request->dims, request->batch, request->seq);
    enum kiln_status status = open_planner(&p, out, err);
    if (status == KILN_OK) {
        status = plan(&p, out, err);
    }
    kiln_free(p.groups.at);
    kiln_free(p.other.at);
    kiln_free(p.full);
    if (status != KILN_OK) {
        kiln_estimate_free(out);
    }
    return status;
}

void kiln_estimate_free(struct kiln_estimate *estimate) {
    kiln_free(estimate->groups);
    kiln_free(estimate->kept);
    kiln_free(estimate->actions);
    memset(estimate, 0, sizeof *estimate);
}
