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
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "plan/plan.h"

/* Beyond, the fixed policies are all that is tried. */
#define MOST_LAYERS 512
/* Up to that many two layers are varied at once. */
#define MOST_PAIRED 24
/* Ways to break ties: bottom, top, and by bits 0 and 1 of the layer. */
#define TIES 4
/* From that many layers on the search takes larger steps. */
#define MANY_LAYERS 40

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
    size_t last_group, last_kernels; /* of the last forward group: first layer, kernels, and the
                                      * shared ones where it has none of them */
    struct state *states;            /* [L+1][L+1] by end and number of full layers */
    unsigned char *keep;
    struct kiln_plan best; /* so far; accum 0: none yet */
    bool found;            /* it fits the memory */
    bool moved;            /* it is new */
};

static struct state *at(const struct search *s, size_t end, size_t full) {
    return &s->states[end * (s->layers + 1) + full];
}

/* How solve begins and breaks ties. */
struct variant {
    size_t length; /* layers of a segment */
    unsigned tie;  /* of equal choices: segments at the bottom, at the top, or here and there */
    bool joint;    /* the backward pass begins in the process of the last forward group */
};

static bool prefers_full(const struct variant *v, size_t layer) {
    return v->tie < 2 ? v->tie : layer >> (v->tie - 2) & 1;
}

static void reach(const struct search *s, const struct variant *v, const struct state *from,
                  size_t end, size_t full, size_t segment) {
    const struct kiln_limits *limits = &s->limits;
    const size_t layers = segment > 0 ? segment : 1, first = end - layers;
    const size_t fresh = limits->group == SIZE_MAX ? SIZE_MAX : limits->group - limits->shared;
    struct state *to = at(s, first, full + (segment == 0));
    struct state next = *from;
    const bool loaded = v->joint && from->restarts == 0 && first >= s->last_group;
    const size_t backward = layers * limits->backward;
    const size_t both = backward + (segment > 0 ? kiln_forward_kernels(limits, first, end) : 0);
    next.segment = (uint32_t)segment;
    if ((loaded ? backward : both) <= next.left) {
        next.left -= next.left == SIZE_MAX ? 0 : loaded ? backward : both;
    } else if (both <= fresh) {
        next.restarts++;
        next.left = fresh - both;
    } else {
        return; /* it fits no process */
    }
    const bool tie = next.restarts == to->restarts && next.left == to->left;
    const bool better = !to->reached || next.restarts < to->restarts ||
                        (next.restarts == to->restarts && next.left > to->left) ||
                        (tie && (segment > 0) != prefers_full(v, first));
    if (better) {
        *to = next;
    }
}

/* All numbers of full layers for one segment length. */
static void solve(const struct search *s, const struct variant *v) {
    const struct kiln_limits *limits = &s->limits;
    const size_t most = limits->group == SIZE_MAX ? SIZE_MAX : limits->group - limits->shared;
    const size_t left = v->joint && most != SIZE_MAX ? limits->group - s->last_kernels : most;
    memset(s->states, 0, (s->layers + 1) * (s->layers + 1) * sizeof *s->states);
    *at(s, s->layers, 0) = (struct state){.left = left, .reached = true};
    for (size_t end = s->layers; end > 0; end--) {
        const size_t segment = v->length < end ? v->length : end;
        for (size_t full = 0; full <= s->layers - end; full++) {
            const struct state *from = at(s, end, full);
            if (from->reached) {
                reach(s, v, from, end, full, 0);
                reach(s, v, from, end, full, segment);
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

/* One that fits before one that does not; of two that do not, the smaller; of two that fit: less
 * time, then fewer forwards run again, compiles, restarts, bytes. */
static bool better(const struct kiln_plan *a, const struct kiln_plan *b) {
    const double x = kiln_plan_seconds(a).step, y = kiln_plan_seconds(b).step;
    if (!kiln_plan_fits(a) || !kiln_plan_fits(b)) {
        return kiln_plan_fits(a) || (!kiln_plan_fits(b) && a->least < b->least);
    }
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
    const double worth = s->found ? kiln_plan_seconds(&s->best).step : (double)INFINITY;
    const enum kiln_status status =
        kiln_plan_layers(s->table, s->request, s->keep, worth, &plan, err);
    if (status == KILN_EBUDGET) {
        return KILN_OK; /* it recomputes what fits no process */
    }
    KILN_TRY(status);
    if (s->best.accum == 0 || better(&plan, &s->best)) {
        const struct kiln_plan swap = s->best;
        s->best = plan;
        plan = swap;
        s->found = kiln_plan_fits(&s->best);
        s->moved = true;
    }
    kiln_plan_close(&plan);
    return KILN_OK;
}

/* Is less run again always faster? Not where held micro-batches hide compiles: the memory of a full
 * layer may hold them. */
static bool alike(const struct search *s) {
    return kiln_one_batch(&s->limits) && s->request->overlap == KILN_OVERLAP_OFF;
}

/* A plan that recomputes n layers takes at least the time of its passes on the device. */
static bool hopeless(const struct search *s, size_t n) {
    if (!s->found) {
        return false;
    }
    const struct kiln_rates r = kiln_plan_rates(&s->best);
    const double micro_batch =
        (double)s->layers * (r.forward + r.backward) + (double)n * r.forward + r.head + r.host_head;
    return alike(s) ? n > again(&s->best)
                    : micro_batch * (double)s->request->accum > kiln_plan_seconds(&s->best).step;
}

static enum kiln_status search(struct search *s, struct kiln_err *err) {
    memset(s->keep, KILN_FULL, s->layers);
    KILN_TRY(consider(s, err));
    const size_t most = kiln_longest_segment(&s->limits, false);
    const size_t ways = alike(s) ? 1 : kiln_one_batch(&s->limits) ? TIES : 2 * TIES;
    const size_t step = s->layers / MANY_LAYERS + 1; /* many layers: not every number of them */
    for (size_t i = 0; i < ways * s->layers && i < ways * most; i++) {
        const struct variant v = {
            .length = 1 + i / ways, .tie = i % ways % TIES, .joint = i % ways >= TIES};
        if (v.length > 4 && v.length % step != 0) {
            continue;
        }
        if (v.joint && s->last_kernels > s->limits.group) {
            continue;
        }
        solve(s, &v);
        for (size_t n = 1; n <= s->layers && !hopeless(s, n); n += step) {
            if (arrange(s, s->layers - n)) {
                KILN_TRY(consider(s, err));
            }
        }
    }
    return KILN_OK;
}

/* Where groups decide, what the search does not see (kernels loaded at once, windows that share
 * processes) may favour a neighbour: one or two layers kept otherwise, until none is better. */
static enum kiln_status improve(struct search *s, struct kiln_err *err) {
    const size_t pairs = s->layers <= MOST_PAIRED ? s->layers : 1;
    unsigned char *from = kiln_alloc(s->layers, 1);
    KILN_REQUIRE(from, err, KILN_ENOMEM, "planning %zu layers: out of memory", s->layers);
    enum kiln_status status = KILN_OK;
    do {
        s->moved = false;
        memcpy(from, s->best.keep_of, s->layers);
        for (size_t i = 0; i < 3 * s->layers && status == KILN_OK; i++) {
            for (size_t j = 0; j < 3 * pairs && status == KILN_OK; j++) {
                memcpy(s->keep, from, s->layers);
                s->keep[j / 3] = pairs > 1 ? (unsigned char)(j % 3) : from[j / 3];
                s->keep[i / 3] = (unsigned char)(i % 3);
                status = i / 3 < j / 3 && pairs > 1 ? KILN_OK : consider(s, err);
            }
        }
    } while (s->moved && status == KILN_OK);
    kiln_free(from);
    return status;
}

/* The fixed policies, too: they place full layers where the search does not. */
static enum kiln_status fixed(struct search *s, struct kiln_err *err) {
    static const struct kiln_keep policies[] = {{KILN_KEEP_ALL, 0},    {KILN_KEEP_BOUNDARY, 0},
                                                {KILN_KEEP_SQRT, 0},   {KILN_KEEP_EVERY, 2},
                                                {KILN_KEEP_INPUTS, 0}, {KILN_KEEP_NONE, 0}};
    struct kiln_groups forward = {.at =
                                      kiln_alloc(kiln_groups_room(s->layers), sizeof *forward.at)};
    KILN_REQUIRE(forward.at, err, KILN_ENOMEM, "planning %zu layers: out of memory", s->layers);
    kiln_groups_forward(&s->limits, &forward);
    s->last_group = forward.at[forward.n - 1].first;
    s->last_kernels = forward.at[forward.n - 1].kernels +
                      (kiln_forward_shares(&s->limits, s->layers) ? 0 : s->limits.shared);
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
    if (status == KILN_OK && searched && !alike(&s)) {
        status = improve(&s, err);
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
