/* SPDX-License-Identifier: MIT
 *
 * repeat.c: windows until they repeat, and what they cost in the mean.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "plan/simulate.h"

/* Where a window began: equal places, equal windows. */
struct place {
    size_t at;      /* see place_of */
    size_t windows; /* before it, counted from 1 */
    size_t times;
    struct kiln_cost sum;
};

/* So far, in the order of their first windows. */
struct places {
    struct place *list;
    size_t n, room;
};

static struct kiln_cost sums(const struct simulation *s) {
    struct kiln_cost sum = s->sum;
    sum.compile_s = s->time.compile;
    sum.compute_s = s->time.compute;
    sum.update_s = s->time.update;
    sum.stall_s = s->time.stall;
    sum.restart_s = s->time.restart;
    return sum;
}

static struct kiln_cost mean(const struct kiln_cost *a, const struct kiln_cost *b, double n) {
    return (struct kiln_cost){.compiles = (b->compiles - a->compiles) / n,
                              .restarts = (b->restarts - a->restarts) / n,
                              .compile_s = (b->compile_s - a->compile_s) / n,
                              .compute_s = (b->compute_s - a->compute_s) / n,
                              .update_s = (b->update_s - a->update_s) / n,
                              .stall_s = (b->stall_s - a->stall_s) / n,
                              .restart_s = (b->restart_s - a->restart_s) / n,
                              .written = (b->written - a->written) / n,
                              .read = (b->read - a->read) / n};
}

/* What a process has done and holds when a window begins. */
static size_t place_of(const struct simulation *s) {
    const struct kiln_process *p = &s->process;
    const bool limited = s->plan->schedule.limits.compile != SIZE_MAX;
    const size_t compiled = limited ? p->compiled : p->compiled > 0;
    return 4 * compiled + 2 * (size_t)p->shared + (p->has[0] != 0);
}

/* The one that is equal, or a new one; NULL: no memory. Budgets may be large and processes long,
 * but within a process only the last place can come again. */
static struct place *find(struct places *all, size_t at, bool fresh) {
    for (size_t i = fresh || all->n == 0 ? 0 : all->n - 1; i < all->n; i++) {
        if (all->list[i].at == at) {
            return &all->list[i];
        }
    }
    if (all->n == all->room) {
        const size_t room = 2 * all->room + 16;
        struct place *more = kiln_alloc(room, sizeof *more);
        if (more == NULL) {
            return NULL;
        }
        if (all->n > 0) {
            memcpy(more, all->list, all->n * sizeof *more);
        }
        kiln_free(all->list);
        all->list = more;
        all->room = room;
    }
    all->list[all->n] = (struct place){.at = at};
    return &all->list[all->n++];
}

/* ---- windows that are like the last ------------------------------------------------------------
 *
 * With a budget for many windows a process goes through the same window over and over, as long as
 * what is left of the budget is more than any action asks for. Such windows are counted and not
 * taken. Times within a window are the same, but for the rounding of a clock that runs on; so few
 * windows are taken one by one, as ever. */

/* Fewer are not worth it. */
enum { WORTH_SKIPPING = 64 };

/* The last window: where it began, and what it cost. */
struct last {
    size_t windows; /* in a row that cost the same and began and ended with the same kernels */
    size_t compiled, loaded;
    bool shared, next;
    struct kiln_cost sum, cost;
};

static bool near(double a, double b) { return fabs(a - b) <= 1e-9 * fabs(a); }

static bool costs_same(const struct kiln_cost *a, const struct kiln_cost *b) {
    return a->compiles == b->compiles && a->restarts == 0 && b->restarts == 0 &&
           a->written == b->written && a->read == b->read && near(a->compile_s, b->compile_s) &&
           near(a->compute_s, b->compute_s) && near(a->update_s, b->update_s) &&
           near(a->stall_s, b->stall_s);
}

/* Remember where a window begins that has now come; count those that were alike. */
static void note(const struct simulation *s, const struct kiln_cost *sum, struct last *last) {
    const struct kiln_process *p = &s->process;
    const size_t layers = s->plan->schedule.layers;
    const struct kiln_cost cost = mean(&last->sum, sum, 1);
    const bool holds = p->loaded == last->loaded && p->shared == last->shared &&
                       p->next == last->next && memcmp(p->has, s->began, layers) == 0;
    const bool alike = holds && p->compiled > last->compiled && costs_same(&cost, &last->cost);
    last->windows = alike ? last->windows + 1 : 0;
    last->compiled = p->compiled;
    last->loaded = p->loaded;
    last->shared = p->shared;
    last->next = p->next;
    last->sum = *sum;
    last->cost = cost;
    memcpy(s->began, p->has, layers);
}

static void add(struct kiln_cost *sum, const struct kiln_cost *one, double n) {
    sum->compiles += one->compiles * n;
    sum->compile_s += one->compile_s * n;
    sum->compute_s += one->compute_s * n;
    sum->update_s += one->update_s * n;
    sum->stall_s += one->stall_s * n;
    sum->written += one->written * n;
    sum->read += one->read * n;
}

/* Windows to come that are like the last two: behind them there is still twice what a process may
 * hold, more than any action compiles or holds against the budget. */
static size_t skippable(const struct simulation *s, const struct last *last) {
    const struct kiln_limits *limits = &s->plan->schedule.limits;
    const size_t compiles = (size_t)last->cost.compiles;
    const size_t most = 2 * kiln_all_kernels(limits, 0, limits->layers) + limits->shared + compiles;
    if (last->windows < 2 || compiles == 0 || limits->compile == SIZE_MAX ||
        limits->compile - s->process.compiled < most) {
        return 0;
    }
    const size_t n = (limits->compile - s->process.compiled - most) / compiles;
    return n >= WORTH_SKIPPING ? n : 0;
}

/* Windows until one begins where another did; false: no memory. */
static bool repeat(struct simulation *s, struct places *all) {
    /* A successor that the window before has started is not seen in the place: once more around. */
    const size_t rounds = s->plan->schedule.relay ? 2 : 1;
    double restarts = 0;
    struct last last = {.windows = 0};
    struct kiln_cost skipped = {0};
    for (size_t windows = 1;; windows++) {
        struct place *place = find(all, place_of(s), s->sum.restarts > restarts || rounds > 1);
        restarts = s->sum.restarts;
        struct kiln_cost sum = sums(s);
        note(s, &sum, &last);
        add(&sum, &skipped, 1);
        if (place == NULL) {
            return false;
        }
        if (place->times == rounds) {
            const size_t forward = s->plan->cost.peak_forward;
            const size_t backward = s->plan->cost.peak_backward;
            s->plan->cost = mean(&place->sum, &sum, (double)(windows - place->windows));
            s->plan->cost.peak_forward = forward;
            s->plan->cost.peak_backward = backward;
            return true;
        }
        place->windows = windows;
        place->times++;
        place->sum = sum;
        const size_t alike = skippable(s, &last);
        add(&skipped, &last.cost, (double)alike);
        s->process.compiled += alike * (size_t)last.cost.compiles;
        windows += alike;
        kiln_simulate_window(s);
    }
}

bool kiln_simulate_repeat(struct simulation *s) {
    struct places places = {.n = 0};
    const bool room = repeat(s, &places);
    kiln_free(places.list);
    return room;
}
