/* SPDX-License-Identifier: MIT */
#include "plan/schedule.h"

#include <string.h>

#include "base/crc32c.h"

/* Which kernels of this layer the group runs. `whole` compiles all of them in either pass; an
 * evaluation has no backward pass to come. */
static unsigned wants(const struct kiln_schedule_plan *plan, const struct kiln_plan_group *g,
                      size_t layer, bool evaluate) {
    if (evaluate || (g->pass == KILN_PLAN_FORWARD && !plan->limits.whole)) {
        return KILN_HAS_FORWARD;
    }
    return plan->limits.whole || plan->keep[layer] != KILN_FULL
               ? KILN_HAS_FORWARD | KILN_HAS_BACKWARD
               : KILN_HAS_BACKWARD;
}

/* In `whole` the weightless kernel is one of the layer's. */
static size_t kernels_of(const struct kiln_limits *limits, size_t layer, unsigned set) {
    const size_t backward = limits->backward + (limits->whole ? limits->shared : 0);
    return (set & KILN_HAS_FORWARD ? kiln_forward_kernels(limits, layer, layer + 1) : 0) +
           (set & KILN_HAS_BACKWARD ? backward : 0);
}

/* Does the group run a kernel that all layers share? */
static bool shares(const struct kiln_schedule_plan *plan, const struct kiln_plan_group *g) {
    return !plan->limits.whole &&
           (g->pass == KILN_PLAN_BACKWARD || kiln_forward_shares(&plan->limits, g->end));
}

/* Kernels of the group that the process lacks. */
static size_t missing(const struct kiln_schedule_plan *plan, const struct kiln_process *p,
                      const struct kiln_plan_group *g, bool evaluate) {
    size_t n = shares(plan, g) && !p->shared ? plan->limits.shared : 0;
    for (size_t l = g->first; l < g->end; l++) {
        n += kernels_of(&plan->limits, l, wants(plan, g, l, evaluate) & ~(unsigned)p->has[l]);
    }
    return n;
}

size_t kiln_schedule_set(const struct kiln_limits *limits) {
    return kiln_all_kernels(limits, 0, limits->layers) - limits->shared;
}

static size_t n_groups(const struct kiln_schedule_plan *plan, const struct kiln_position *at) {
    return at->evaluate ? plan->groups.n_forward : plan->groups.n;
}

/* Rounds of micro-batches. */
static uint64_t filled(const struct kiln_schedule_plan *plan, const struct kiln_position *at) {
    return (at->micro_batches + plan->held - 1) / plan->held;
}

/* Fewer where the window has no more. */
static uint64_t lead(const struct kiln_schedule_plan *plan, const struct kiln_position *at) {
    const uint64_t rounds = filled(plan, at);
    return at->evaluate || rounds == 0 ? 0 : plan->lead < rounds ? plan->lead : rounds - 1;
}

uint64_t kiln_schedule_rounds(const struct kiln_schedule_plan *plan,
                              const struct kiln_position *at) {
    return filled(plan, at) + lead(plan, at);
}

uint64_t kiln_schedule_taken(const struct kiln_schedule_plan *plan,
                             const struct kiln_position *at) {
    return at->round - (at->group >= plan->groups.n_forward ? lead(plan, at) : 0);
}

/* All kernels of a window that the process lacks, where they are compiled once. */
static size_t missing_at_start(const struct kiln_schedule_plan *plan, const struct kiln_process *p,
                               bool evaluate) {
    const unsigned set = evaluate ? KILN_HAS_FORWARD : KILN_HAS_FORWARD | KILN_HAS_BACKWARD;
    const bool none = (evaluate && !plan->limits.shared_forward) || p->shared;
    size_t n = none ? 0 : plan->limits.shared;
    for (size_t l = 0; l < plan->layers; l++) {
        n += kernels_of(&plan->limits, l, set & ~(unsigned)p->has[l]);
    }
    return n;
}

static bool at_start(const struct kiln_position *at) {
    return at->round == 0 && at->group == 0 && at->micro_batch == 0;
}

/* What must fit the process before the next action runs: the group; at the start of a window that
 * is compiled once, all of it, so that it is never cut in the middle. `group`: what that lacks. */
static size_t needed(const struct kiln_schedule_plan *plan, const struct kiln_process *p,
                     const struct kiln_position *at, size_t group) {
    return plan->one_batch && at_start(at) ? missing_at_start(plan, p, at->evaluate) : group;
}

static size_t left(const struct kiln_schedule_plan *plan, const struct kiln_process *p) {
    return plan->limits.compile == SIZE_MAX ? SIZE_MAX : plan->limits.compile - p->compiled;
}

static size_t load_left(const struct kiln_schedule_plan *plan, const struct kiln_process *p) {
    return plan->limits.load == SIZE_MAX ? SIZE_MAX : plan->limits.load - p->loaded;
}

/* DELAYED with a relay, at the start of a window or an evaluation whose weights nobody compiled
 * here: a successor has. A process that has compiled nothing yet is that successor. */
static bool leaves(const struct kiln_schedule_plan *plan, const struct kiln_process *p,
                   const struct kiln_position *at) {
    if (plan->overlap != KILN_OVERLAP_DELAYED || !plan->relay || plan->refreshes || !at_start(at) ||
        p->compiled == 0) {
        return false;
    }
    for (size_t l = 0; l < plan->layers; l++) {
        if (p->has[l] != 0) {
            return false;
        }
    }
    return true;
}

/* To the group behind the one that *at names; false: it was the window's last. Rounds in front have
 * no backward groups, those at the end no forward ones. */
static bool following(const struct kiln_schedule_plan *plan, struct kiln_position *at) {
    const bool forward_only = at->group + 1 == plan->groups.n_forward && at->round < lead(plan, at);
    if (++at->group == n_groups(plan, at) || forward_only) {
        at->round++;
        at->group = at->round < filled(plan, at) ? 0 : plan->groups.n_forward;
    }
    at->micro_batch = 0;
    return at->round < kiln_schedule_rounds(plan, at);
}

/* Compile ahead: the first of the groups to come that lacks kernels, if they fit beside all that is
 * loaded. They are compiled in the order in which they would be without, and nothing is unloaded
 * for them that would not be: windows take as many compiles and restarts. In `whole` no two groups
 * fit side by side. */
static bool ahead(const struct kiln_schedule_plan *plan, const struct kiln_process *p,
                  const struct kiln_position *at, struct kiln_plan_action *a) {
    struct kiln_position to_come = *at;
    const size_t most = plan->groups.n + plan->lead * plan->groups.n_forward;
    if (plan->overlap == KILN_OVERLAP_OFF || plan->refreshes || plan->limits.whole ||
        at->micro_batch > 0) {
        return false;
    }
    for (size_t i = 1; i < most && following(plan, &to_come); i++) {
        const struct kiln_plan_group *g = &plan->groups.at[to_come.group];
        const size_t n = missing(plan, p, g, at->evaluate);
        if (n > left(plan, p) || n > load_left(plan, p)) {
            return false;
        }
        if (n > 0) {
            a->what = KILN_COMPILE_GROUP;
            a->group = *g;
            a->kernels = n;
            return true;
        }
    }
    return false;
}

/* DELAYED: the next generation's set, once the active one is there, if it fits beside it. */
static bool compiles_next(const struct kiln_schedule_plan *plan, const struct kiln_process *p,
                          const struct kiln_position *at, struct kiln_plan_action *a) {
    const size_t n = kiln_schedule_set(&plan->limits);
    if (plan->overlap != KILN_OVERLAP_DELAYED || plan->refreshes || !plan->one_batch ||
        at->evaluate || !at->next || p->next || n > left(plan, p) || n > load_left(plan, p) ||
        missing_at_start(plan, p, false) > 0) {
        return false;
    }
    a->what = KILN_COMPILE_NEXT;
    a->group = (struct kiln_plan_group){.end = plan->layers, .kernels = n};
    a->kernels = n;
    return true;
}

struct kiln_plan_action kiln_schedule_next(const struct kiln_schedule_plan *plan,
                                           const struct kiln_process *p,
                                           const struct kiln_position *at) {
    struct kiln_plan_action a = {.left = left(plan, p)};
    if (at->round >= kiln_schedule_rounds(plan, at)) {
        a.what = at->evaluate || at->updated ? KILN_STEP_DONE : KILN_UPDATE;
        return a;
    }
    a.group = plan->groups.at[at->group];
    a.kernels = missing(plan, p, &a.group, at->evaluate);
    const size_t all = needed(plan, p, at, a.kernels);
    if (leaves(plan, p, at)) {
        a.what = KILN_RESTART;
        a.kernels = all;
    } else if (all > left(plan, p)) {
        a.what = p->compiled == 0 || all > plan->limits.compile ? KILN_ERROR : KILN_RESTART;
        a.kernels = all;
    } else if (a.kernels > 0) {
        a.what = KILN_COMPILE_GROUP;
        a.left -= a.left == SIZE_MAX ? 0 : a.kernels;
    } else if (ahead(plan, p, at, &a) || compiles_next(plan, p, at, &a)) {
        a.left -= a.left == SIZE_MAX ? 0 : a.kernels;
    } else {
        a.what = a.group.pass == KILN_PLAN_FORWARD ? KILN_FORWARD_GROUP : KILN_BACKWARD_GROUP;
        a.micro_batch = kiln_schedule_taken(plan, at) * plan->held + at->micro_batch;
    }
    return a;
}

/* ---- what an action changes -------------------------------------------------------------------
 */

static void unload(const struct kiln_schedule_plan *plan, struct kiln_process *p, size_t layer,
                   unsigned set) {
    p->loaded -= kernels_of(&plan->limits, layer, p->has[layer] & set);
    p->has[layer] &= (unsigned char)~set;
}

/* Unload what others will want until n more fit. Wanted last, so the first to go: backward kernels
 * above a backward group, forward kernels of full layers, then those of the lowest layers, which
 * the backward pass reaches last. */
static void make_room(const struct kiln_schedule_plan *plan, struct kiln_process *p,
                      const struct kiln_plan_group *g, bool evaluate, size_t n) {
    const size_t load = plan->limits.load;
    for (int turn = 0; turn < 3; turn++) {
        for (size_t l = 0; l < plan->layers && n > load - p->loaded; l++) {
            const unsigned keep = l >= g->first && l < g->end ? wants(plan, g, l, evaluate) : 0;
            const bool forward = turn == 2 || (turn == 1 && plan->keep[l] == KILN_FULL);
            const unsigned set = turn == 0 ? KILN_HAS_BACKWARD : forward ? KILN_HAS_FORWARD : 0;
            unload(plan, p, l, set & ~keep);
        }
    }
    if (n > load - p->loaded && p->shared && !shares(plan, g)) {
        p->shared = false; /* what has no weights, last: it does not go stale */
        p->loaded -= plan->limits.shared;
    }
}

static void compile(const struct kiln_schedule_plan *plan, struct kiln_process *p,
                    const struct kiln_plan_group *g, bool evaluate) {
    const size_t n = missing(plan, p, g, evaluate);
    make_room(plan, p, g, evaluate, n);
    p->compiled += n;
    p->loaded += n;
    p->shared |= shares(plan, g);
    for (size_t l = g->first; l < g->end; l++) {
        p->has[l] |= (unsigned char)wants(plan, g, l, evaluate);
    }
}

static void advance(const struct kiln_schedule_plan *plan, struct kiln_process *p,
                    struct kiln_position *at) {
    const uint64_t before = kiln_schedule_taken(plan, at) * plan->held;
    const uint64_t rest = at->micro_batches - before;
    if (++at->micro_batch < (rest < plan->held ? rest : plan->held)) {
        return;
    }
    const struct kiln_plan_group *g = &plan->groups.at[at->group];
    const bool once = plan->limits.whole && !plan->refreshes && !at->evaluate;
    for (size_t l = g->first; once && l < g->end; l++) {
        unload(plan, p, l, KILN_HAS_FORWARD | KILN_HAS_BACKWARD); /* nothing is used twice */
    }
    following(plan, at);
}

static void unload_all(const struct kiln_schedule_plan *plan, struct kiln_process *p) {
    for (size_t l = 0; l < plan->layers; l++) {
        unload(plan, p, l, KILN_HAS_FORWARD | KILN_HAS_BACKWARD);
    }
}

/* New weights. DELAYED: the next window computes with those of the one before; behind the first
 * window of a run these are the same as in it. */
static void update(const struct kiln_schedule_plan *plan, struct kiln_process *p,
                   const struct kiln_position *at) {
    if (plan->refreshes || (plan->overlap == KILN_OVERLAP_DELAYED && !at->next)) {
        return;
    }
    unload_all(plan, p);
    if (p->next) { /* the sets are swapped */
        memset(p->has, KILN_HAS_FORWARD | KILN_HAS_BACKWARD, plan->layers);
        p->next = false;
    }
}

void kiln_schedule_apply(const struct kiln_schedule_plan *plan, struct kiln_process *p,
                         struct kiln_position *at, const struct kiln_plan_action *a) {
    switch (a->what) {
        case KILN_COMPILE_GROUP:
            compile(plan, p, &a->group, at->evaluate);
            break;
        case KILN_FORWARD_GROUP:
        case KILN_BACKWARD_GROUP:
            advance(plan, p, at);
            break;
        case KILN_COMPILE_NEXT:
            p->compiled += a->kernels;
            p->loaded += a->kernels;
            p->next = true;
            break;
        case KILN_RESTART:
            p->compiled = p->loaded = 0;
            p->shared = p->next = false;
            memset(p->has, 0, plan->layers);
            break;
        case KILN_UPDATE:
            update(plan, p, at);
            at->updated = true;
            break;
        case KILN_STEP_DONE:
        case KILN_ERROR:
            break;
    }
}

bool kiln_schedule_successor(const struct kiln_schedule_plan *plan, const struct kiln_process *p,
                             const struct kiln_position *at, struct kiln_process *scratch,
                             struct kiln_position *place, bool *edge) {
    unsigned char *has = scratch->has;
    memcpy(has, p->has, plan->layers);
    *scratch = *p;
    scratch->has = has;
    *place = *at;
    *edge = false;
    for (;;) {
        const struct kiln_plan_action a = kiln_schedule_next(plan, scratch, place);
        if (a.what == KILN_RESTART || a.what == KILN_ERROR) {
            return a.what == KILN_RESTART;
        }
        if (*edge) {
            return false;
        }
        if (a.what == KILN_STEP_DONE) {
            *place = (struct kiln_position){.micro_batches = at->micro_batches, .next = true};
            *edge = true;
        } else {
            kiln_schedule_apply(plan, scratch, place, &a);
        }
    }
}

uint32_t kiln_schedule_id(const struct kiln_schedule_plan *plan) {
    uint32_t crc = kiln_crc32c(0, &plan->held, sizeof plan->held);
    crc = kiln_crc32c(crc, &plan->lead, sizeof plan->lead);
    crc = kiln_crc32c(crc, plan->keep, plan->layers);
    for (size_t i = 0; i < plan->groups.n; i++) {
        const struct kiln_plan_group *g = &plan->groups.at[i];
        const uint64_t parts[3] = {g->pass, g->first, g->end};
        crc = kiln_crc32c(crc, parts, sizeof parts);
    }
    return crc;
}
