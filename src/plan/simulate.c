/* SPDX-License-Identifier: MIT
 *
 * simulate.c: windows through processes, kernel by kernel, until they repeat.
 */
#include <string.h>

#include "base/mem.h"
#include "plan/groups.h"

struct process {
    const struct kiln_limits *limits;
    size_t layers;
    const bool *full;
    size_t compiled, loaded; /* of the budgets of this process */
    bool shared;             /* the weightless kernel is here */
    bool *forward;           /* [layers] forward kernels loaded, of the weights of this window */
    size_t compiles, restarts;
    struct kiln_trace *trace; /* NULL: not written */
};

static void record(struct process *p, enum kiln_plan_what what, const struct kiln_plan_group *group,
                   size_t kernels) {
    if (p->trace == NULL) {
        return;
    }
    if (p->trace->at != NULL) {
        struct kiln_plan_action *a = &p->trace->at[p->trace->n];
        *a = (struct kiln_plan_action){.what = what, .kernels = kernels};
        a->left = p->limits->compile == SIZE_MAX ? SIZE_MAX : p->limits->compile - p->compiled;
        if (group != NULL) {
            a->group = *group;
        }
    }
    p->trace->n++;
}

static void release(struct process *p, size_t layer) {
    if (p->forward[layer]) {
        p->forward[layer] = false;
        p->loaded -= p->limits->forward;
    }
}

/* Does the group run the forward kernels of this layer? */
static bool runs_forward(const struct process *p, const struct kiln_plan_group *g, size_t layer) {
    return g->pass != KILN_PLAN_BACKWARD || (g->recomputed > 0 && !p->full[layer]);
}

/* Kernels of the group that the process lacks. */
static size_t missing(const struct process *p, const struct kiln_plan_group *g) {
    const struct kiln_limits *limits = p->limits;
    if (limits->whole) {
        return g->kernels;
    }
    size_t n = 0;
    if (g->pass == KILN_PLAN_BACKWARD) {
        n = (g->end - g->first) * limits->backward + (p->shared ? 0 : limits->shared);
    }
    for (size_t l = g->first; l < g->end; l++) {
        n += runs_forward(p, g, l) && !p->forward[l] ? limits->forward : 0;
    }
    return n;
}

/* Release forward kernels that others will want until n more fit: the lowest layers are wanted
 * last. */
static void make_room(struct process *p, const struct kiln_plan_group *g, size_t n) {
    for (size_t l = 0; l < p->layers && n > p->limits->load - p->loaded; l++) {
        if (l < g->first || l >= g->end || !runs_forward(p, g, l)) {
            release(p, l);
        }
    }
}

static void restart(struct process *p) {
    p->compiled = p->loaded = 0;
    p->shared = false;
    memset(p->forward, 0, p->layers * sizeof *p->forward);
    p->restarts++;
}

static void after(struct process *p, const struct kiln_plan_group *g) {
    const bool backward = g->pass == KILN_PLAN_BACKWARD;
    if (p->limits->whole) {
        p->loaded = 0;
        return;
    }
    p->loaded -= backward ? (g->end - g->first) * p->limits->backward : 0;
    for (size_t l = g->first; l < g->end; l++) {
        /* A forward kernel stays while its layer is still to be recomputed. */
        if (g->pass != KILN_PLAN_FORWARD || p->full[l]) {
            release(p, l);
        }
    }
}

static void take(struct process *p, const struct kiln_plan_group *g) {
    size_t n = missing(p, g);
    if (n > p->limits->compile - p->compiled) {
        record(p, KILN_PLAN_RESTART, g, n);
        restart(p);
        n = missing(p, g);
    }
    make_room(p, g, n);
    p->compiled += n;
    p->loaded += n;
    p->compiles += n;
    if (n > 0) {
        record(p, KILN_PLAN_COMPILE, g, n);
    }
    if (!p->limits->whole) {
        p->shared |= g->pass == KILN_PLAN_BACKWARD;
        for (size_t l = g->first; l < g->end; l++) {
            p->forward[l] |= runs_forward(p, g, l);
        }
    }
    record(p, KILN_PLAN_RUN, g, 0);
    after(p, g);
}

/* All kernels of both passes at once; every micro-batch finds them there. */
static void take_both(struct process *p, const struct kiln_groups *groups) {
    const struct kiln_limits *limits = p->limits;
    const size_t layer = limits->forward + limits->backward;
    size_t n = p->layers * layer + (p->shared ? 0 : limits->shared);
    if (limits->compile - p->compiled < n) {
        record(p, KILN_PLAN_RESTART, &groups->at[0], n);
        restart(p);
        n = p->layers * layer + limits->shared;
    }
    p->compiles += n;
    p->shared = true;
    p->loaded = limits->shared; /* after the window */
    for (size_t i = 0; i < groups->n; i++) {
        const struct kiln_plan_group *g = &groups->at[i];
        const size_t each = i == 0 ? p->layers * limits->forward : n - p->layers * limits->forward;
        p->compiled += each;
        record(p, KILN_PLAN_COMPILE, g, each);
    }
    for (size_t i = 0; i < groups->n; i++) {
        record(p, KILN_PLAN_RUN, &groups->at[i], 0);
    }
}

static void window(struct process *p, const struct kiln_groups *groups) {
    if (kiln_one_batch(p->limits, p->layers)) {
        take_both(p, groups);
    } else {
        for (size_t i = 0; i < groups->n; i++) {
            take(p, &groups->at[i]);
        }
    }
    record(p, KILN_PLAN_UPDATE, NULL, 0);
    /* New weights: what is loaded is stale but for the weightless kernel. */
    for (size_t l = 0; l < p->layers; l++) {
        release(p, l);
    }
}

/* Where a window began: equal places, equal windows. */
struct place {
    size_t windows, compiles, restarts; /* before it; windows counted from 1 */
};

static struct place *place_of(const struct process *p, struct place *places) {
    const size_t compiled = p->limits->compile == SIZE_MAX ? 0 : p->compiled;
    return &places[2 * compiled + p->shared];
}

static void repeat(struct process *p, const struct kiln_groups *groups, struct place *places,
                   double *compiles, double *restarts) {
    for (size_t windows = 1;; windows++) {
        struct place *place = place_of(p, places);
        if (place->windows > 0) {
            const double n = (double)(windows - place->windows);
            *compiles = (double)(p->compiles - place->compiles) / n;
            *restarts = (double)(p->restarts - place->restarts) / n;
            return;
        }
        *place = (struct place){windows, p->compiles, p->restarts};
        window(p, groups);
        if (p->limits->compile == SIZE_MAX) {
            p->compiled = 0; /* nothing is counted against no limit */
        }
    }
}

enum kiln_status kiln_simulate(const struct kiln_limits *limits, const struct kiln_groups *groups,
                               size_t layers, const bool *full, double *compiles, double *restarts,
                               struct kiln_trace *trace, struct kiln_err *err) {
    const size_t n_places = limits->compile == SIZE_MAX ? 2 : 2 * (limits->compile + 1);
    struct process p = {.limits = limits, .layers = layers, .full = full};
    struct place *places = kiln_alloc(n_places, sizeof *places);
    p.forward = kiln_alloc(layers, sizeof *p.forward);
    if (places != NULL && p.forward != NULL) {
        repeat(&p, groups, places, compiles, restarts);
        p.trace = trace;
        if (trace != NULL) {
            window(&p, groups);
        }
    }
    const bool done = places != NULL && p.forward != NULL;
    kiln_free(places);
    kiln_free(p.forward);
    KILN_REQUIRE(done, err, KILN_ENOMEM, "planning %zu layers: out of memory", layers);
    return KILN_OK;
}
