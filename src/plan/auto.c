/* SPDX-License-Identifier: MIT
 *
 * auto.c: --activations auto: what to keep of each layer, by dynamic programming.
 *
 * All layers are alike, so the time of a plan is: forwards run again (how many layers are not
 * full), compiles and restarts. The memory is: full layers, stored inputs, and the longest segment,
 * whose taps live together. For each segment length R, and each number of full layers, the
 * arrangement with fewest restarts is found from the last layer down:
 *
 *   best(end, full) = over what ends at `end`, a full layer or a segment of R layers,
 *                     the fewest restarts, then the most kernels left in the process
 *
 * Fewer restarts are never worse: a restart more can always be had, and it leaves a fresh process.
 * Each arrangement is then planned and simulated exactly, and the fastest that fits the memory is
 * taken. tests/plan holds it against all arrangements of small models.
 */
#include <string.h>

#include "base/mem.h"
#include "plan/plan.h"

/* Beyond, the fixed policies are all that is tried. */
#define MOST_LAYERS 512

struct state {
    uint32_t restarts;
    uint32_t segment; /* layers of the segment that was added last; 0: a full layer */
    size_t left;      /* kernels */
    bool reached;
};

struct search {
    const struct kiln_table *table;
    const struct kiln_plan_request *request;
    struct kiln_limits limits;
    size_t layers;
    struct state *states; /* [L+1][L+1] by end and number of full layers */
    unsigned char *keep;
    struct kiln_plan best;
    bool found;
};

static struct state *at(const struct search *s, size_t end, size_t full) {
    return &s->states[end * (s->layers + 1) + full];
}

static void reach(struct state *to, const struct state *from, size_t kernels, size_t fresh,
                  size_t segment) {
    struct state next = *from;
    next.segment = (uint32_t)segment;
    if (kernels > next.left) {
        next.restarts++;
        next.left = fresh;
    }
    next.left -= next.left == SIZE_MAX ? 0 : kernels;
    const bool better =
        !to->reached || next.restarts < to->restarts ||
        (next.restarts == to->restarts && (next.left > to->left || (next.left == to->left && segment > 0)));
    if (better) {
        *to = next;
    }
}

/* All numbers of full layers for one segment length. */
static void solve(struct search *s, size_t length) {
    const struct kiln_limits *limits = &s->limits;
    const size_t fresh = limits->group == SIZE_MAX ? SIZE_MAX : limits->group - limits->shared;
    const size_t both = limits->forward + limits->backward;
    memset(s->states, 0, (s->layers + 1) * (s->layers + 1) * sizeof *s->states);
    *at(s, s->layers, 0) = (struct state){.left = fresh, .reached = true};
    for (size_t end = s->layers; end > 0; end--) {
        const size_t segment = length < end ? length : end;
        for (size_t full = 0; full <= s->layers - end; full++) {
            const struct state *from = at(s, end, full);
            if (from->reached) {
                reach(at(s, end - 1, full + 1), from, limits->backward, fresh, 0);
                reach(at(s, end - segment, full), from, segment * both, fresh, segment);
            }
        }
    }
}

/* The arrangement with that many full layers, from what solve found; false: there is none. */
static bool arrange(const struct search *s, size_t full) {
    if (!at(s, 0, full)->reached) {
        return false;
    }
    for (size_t end = 0; end < s->layers;) {
        const size_t segment = at(s, end, full)->segment;
        if (segment == 0) {
            s->keep[end++] = KILN_FULL;
            full--;
            continue;
        }
        memset(s->keep + end, KILN_DROPPED, segment);
        s->keep[end] = end > 0 ? KILN_INPUT : KILN_DROPPED;
        end += segment;
    }
    return true;
}

static size_t again(const struct kiln_plan *plan) {
    size_t n = 0;
    for (size_t l = 0; l < plan->schedule.layers; l++) {
        n += plan->schedule.keep[l] != KILN_FULL;
    }
    return n;
}

/* Of two that fit: less time, then fewer forwards run again, compiles, restarts, bytes. */
static bool faster(const struct kiln_plan *a, const struct kiln_plan *b) {
    const double x = kiln_plan_seconds(a).step, y = kiln_plan_seconds(b).step;
    if (x < y * (1 - 1e-12) || y < x * (1 - 1e-12)) {
        return x < y;
    }
    if (again(a) != again(b)) {
        return again(a) < again(b);
    }
    if (a->cost.compiles != b->cost.compiles) {
        return a->cost.compiles < b->cost.compiles;
    }
    return a->cost.restarts != b->cost.restarts ? a->cost.restarts < b->cost.restarts
                                                : a->least < b->least;
}

/* Plan the arrangement in s->keep; the better one of it and the best so far stays. */
static enum kiln_status consider(struct search *s, struct kiln_err *err) {
    struct kiln_plan plan;
    const enum kiln_status status =
        kiln_plan_layers(s->table, s->request, s->keep, &plan, err);
    if (status == KILN_EBUDGET) {
        return KILN_OK; /* it recomputes what fits no process */
    }
    KILN_TRY(status);
    if (kiln_plan_fits(&plan) && (!s->found || faster(&plan, &s->best))) {
        const struct kiln_plan swap = s->best;
        s->best = plan;
        plan = swap;
        s->found = true;
    }
    kiln_plan_close(&plan);
    return KILN_OK;
}

/* A plan that recomputes n layers takes at least the time of its passes. */
static bool hopeless(const struct search *s, size_t n) {
    if (!s->found) {
        return false;
    }
    const double rate = s->request->profile.tflops * 1e12;
    const struct kiln_flops *f = &s->best.flops;
    const double layer =
        rate > 0 ? (f->forward + 0.4 * f->attention) / (double)s->layers / rate : 0;
    const double passes = s->best.cost.compute_s + ((double)n - (double)again(&s->best)) *
                                                       layer * (double)s->request->accum;
    const bool once = kiln_one_batch(&s->limits, s->layers);
    return once ? n > again(&s->best) : passes > kiln_plan_seconds(&s->best).step;
}

static enum kiln_status search(struct search *s, struct kiln_err *err) {
    memset(s->keep, KILN_FULL, s->layers);
    KILN_TRY(consider(s, err));
    const size_t both = s->limits.forward + s->limits.backward;
    const size_t most = s->limits.group == SIZE_MAX ? s->layers
                                                    : (s->limits.group - s->limits.shared) / both;
    for (size_t length = 1; length <= s->layers && length <= most; length++) {
        solve(s, length);
        for (size_t n = 1; n <= s->layers && !hopeless(s, n); n++) {
            if (arrange(s, s->layers - n)) {
                KILN_TRY(consider(s, err));
            }
        }
    }
    return KILN_OK;
}

/* The fixed policies, too: they place full layers where the search does not. */
static enum kiln_status fixed(struct search *s, struct kiln_err *err) {
    static const struct kiln_keep policies[] = {
        {KILN_KEEP_ALL, 0},   {KILN_KEEP_BOUNDARY, 0}, {KILN_KEEP_SQRT, 0},
        {KILN_KEEP_EVERY, 2}, {KILN_KEEP_INPUTS, 0},   {KILN_KEEP_NONE, 0}};
    struct kiln_groups forward = {.at = kiln_alloc(kiln_groups_room(s->layers), sizeof *forward.at)};
    KILN_REQUIRE(forward.at, err, KILN_ENOMEM, "planning %zu layers: out of memory", s->layers);
    kiln_groups_forward(&s->limits, s->layers, &forward);
    enum kiln_status status = KILN_OK;
    for (size_t i = 0; i < sizeof policies / sizeof policies[0] && status == KILN_OK; i++) {
        kiln_keep_layers(policies[i], s->layers, &forward, s->keep);
        status = consider(s, err);
    }
    kiln_free(forward.at);
    return status;
}

enum kiln_status kiln_plan_auto(const struct kiln_table *table,
                                const struct kiln_plan_request *request, struct kiln_plan *out,
                                bool *found, struct kiln_err *err) {
    struct search s = {.table = table,
                       .request = request,
                       .limits = kiln_limits_of(request),
                       .layers = table->dims.layers};
    const bool searched = s.layers <= MOST_LAYERS;
    KILN_TRY(kiln_limits_check(request, &s.limits, err));
    s.keep = kiln_alloc(s.layers, 1);
    s.states = kiln_alloc(searched ? (s.layers + 1) * (s.layers + 1) : 1, sizeof *s.states);
    enum kiln_status status =
        s.keep && s.states
            ? fixed(&s, err)
            : KILN_FAIL(err, KILN_ENOMEM, "planning %zu layers: out of memory", s.layers);
    if (status == KILN_OK && searched) {
        status = search(&s, err);
    }
    kiln_free(s.keep);
    kiln_free(s.states);
    *found = s.found && status == KILN_OK;
    if (*found) {
        *out = s.best;
    } else {
        kiln_plan_close(&s.best);
    }
    return status;
}
