/* SPDX-License-Identifier: MIT
 *
 * simulate.c: windows through processes in virtual time, action by action, until they repeat.
 */
#include <string.h>

#include "base/mem.h"
#include "plan/plan.h"

/* Seconds of one micro-batch through one layer, and of what comes once a window. */
struct rates {
    double forward, backward;               /* a layer */
    double head;                            /* classifier and loss, forward and backward */
    double kernel_forward, kernel_backward; /* compiles of a layer's kernels */
    double kernel_head;                     /* and of the classifier's */
};

static double compile_seconds(const struct kiln_profile *f, size_t kernels, size_t bytes) {
    const double rate = f->compile_gb_s * 1e9;
    return (double)kernels * f->compile_s + (rate > 0 ? (double)bytes / rate : 0);
}

static struct rates rates_of(const struct kiln_plan *plan) {
    const struct kiln_profile *f = &plan->request->profile;
    const struct kiln_limits *limits = &plan->schedule.limits;
    const double layers = (double)plan->schedule.layers, rate = f->tflops * 1e12;
    const struct kiln_flops *flops = &plan->flops;
    struct rates r = {0};
    if (rate > 0) {
        /* Of attention's five products two are forward, three backward. */
        r.forward = (flops->forward + 0.4 * flops->attention) / layers / rate;
        r.backward = (flops->dx + flops->dw + 0.6 * flops->attention) / layers / rate;
        r.head = flops->classifier / rate;
    }
    r.kernel_forward = compile_seconds(f, limits->forward, plan->sizes.forward);
    r.kernel_backward = compile_seconds(f, limits->backward, plan->sizes.backward);
    r.kernel_head = limits->head > 0 ? compile_seconds(f, limits->head, plan->sizes.head) : 0;
    return r;
}

struct simulation {
    struct kiln_plan *plan;
    struct rates rates;
    struct kiln_process process;
    struct kiln_cost sum;
    struct kiln_trace *trace; /* NULL: not written */
};

static void count_compile(struct simulation *s, const struct kiln_plan_action *a,
                          const unsigned char *before) {
    const struct kiln_schedule_plan *plan = &s->plan->schedule;
    const struct kiln_limits *limits = &plan->limits;
    size_t forward = 0, backward = 0, head = 0, kernels = 0;
    for (size_t l = a->group.first; l < a->group.end; l++) {
        const unsigned now = s->process.has[l] & ~(unsigned)before[l];
        forward += (now & KILN_HAS_FORWARD) != 0;
        backward += (now & KILN_HAS_BACKWARD) != 0;
        head += (now & KILN_HAS_FORWARD) != 0 && l + 1 == limits->layers;
    }
    kernels = forward * limits->forward + backward * limits->backward + head * limits->head;
    s->sum.compiles += (double)a->kernels;
    s->sum.compile_s += (double)forward * s->rates.kernel_forward +
                        (double)backward * s->rates.kernel_backward +
                        (double)head * s->rates.kernel_head +
                        (double)(a->kernels - kernels) * s->plan->request->profile.compile_s;
}

static void note_peak(struct simulation *s) {
    size_t forward = 0, backward = 0;
    for (size_t l = 0; l < s->plan->schedule.layers; l++) {
        forward += (s->process.has[l] & KILN_HAS_FORWARD) != 0;
        backward += (s->process.has[l] & KILN_HAS_BACKWARD) != 0;
    }
    struct kiln_cost *cost = &s->plan->cost;
    cost->peak_forward = forward > cost->peak_forward ? forward : cost->peak_forward;
    cost->peak_backward = backward > cost->peak_backward ? backward : cost->peak_backward;
}

static void move(struct simulation *s, const struct kiln_moved *one, size_t times) {
    s->sum.written += (double)one->written * (double)times;
    s->sum.read += (double)one->read * (double)times;
}

/* What passes over surfaces in a pass of one micro-batch. */
static void move_forward(struct simulation *s, const struct kiln_plan_group *g) {
    const struct kiln_device_traffic *t = &s->plan->traffic;
    const struct kiln_schedule_plan *plan = &s->plan->schedule;
    const bool training = !s->plan->request->forward_only;
    size_t kept = 0;
    for (size_t l = g->first; l < g->end; l++) {
        kept += training && plan->keep[l] == KILN_FULL;
    }
    move(s, &t->forward_kept, kept);
    move(s, &t->forward, g->end - g->first - kept);
    move(s, training ? &t->head : &t->head_evaluate, g->end == plan->layers);
}

static void move_backward(struct simulation *s, const struct kiln_plan_group *g) {
    move(s, &s->plan->traffic.forward_kept, g->recomputed);
    move(s, &s->plan->traffic.backward, g->end - g->first);
}

/* Time and counts of an action that has just been applied; before: kernels there were. */
static void count(struct simulation *s, const struct kiln_plan_action *a,
                  const unsigned char *before) {
    const struct kiln_plan_group *g = &a->group;
    const double layers = (double)(g->end - g->first);
    switch (a->what) {
        case KILN_COMPILE_GROUP:
            count_compile(s, a, before);
            note_peak(s);
            break;
        case KILN_FORWARD_GROUP:
            s->sum.compute_s += layers * s->rates.forward;
            s->sum.compute_s += g->end == s->plan->schedule.layers ? s->rates.head : 0;
            move_forward(s, g);
            break;
        case KILN_BACKWARD_GROUP:
            s->sum.compute_s +=
                layers * s->rates.backward + (double)g->recomputed * s->rates.forward;
            move_backward(s, g);
            break;
        case KILN_RESTART:
            s->sum.restarts++;
            s->sum.restart_s += s->plan->request->profile.restart_s;
            break;
        case KILN_COMPILE_NEXT:
            s->sum.compiles += (double)a->kernels;
            break;
        case KILN_UPDATE:
            move(s, &s->plan->traffic.weights, 1);
            break;
        case KILN_STEP_DONE:
        case KILN_ERROR:
            break;
    }
}

static void window(struct simulation *s, unsigned char *before) {
    const struct kiln_schedule_plan *plan = &s->plan->schedule;
    struct kiln_position at = {
        .micro_batches = s->plan->accum, .next = true, .evaluate = s->plan->request->forward_only};
    for (;;) {
        const struct kiln_plan_action a = kiln_schedule_next(plan, &s->process, &at);
        if (s->trace != NULL) {
            s->trace->at[s->trace->n++] = a;
        }
        if (a.what == KILN_STEP_DONE || a.what == KILN_ERROR) {
            return;
        }
        if (a.what == KILN_COMPILE_GROUP) {
            memcpy(before, s->process.has, plan->layers);
        }
        kiln_schedule_apply(plan, &s->process, &at, &a);
        count(s, &a, before);
    }
}

/* Where a window began: equal places, equal windows. */
struct place {
    size_t windows; /* before it, counted from 1 */
    struct kiln_cost sum;
};

static struct kiln_cost mean(const struct kiln_cost *a, const struct kiln_cost *b, double n) {
    return (struct kiln_cost){.compiles = (b->compiles - a->compiles) / n,
                              .restarts = (b->restarts - a->restarts) / n,
                              .compile_s = (b->compile_s - a->compile_s) / n,
                              .compute_s = (b->compute_s - a->compute_s) / n,
                              .restart_s = (b->restart_s - a->restart_s) / n,
                              .written = (b->written - a->written) / n,
                              .read = (b->read - a->read) / n};
}

static void repeat(struct simulation *s, struct place *places, unsigned char *before) {
    for (size_t windows = 1;; windows++) {
        const bool limited = s->plan->schedule.limits.compile != SIZE_MAX;
        struct place *place = &places[2 * (limited ? s->process.compiled : 0) + s->process.shared];
        if (place->windows > 0) {
            const size_t forward = s->plan->cost.peak_forward;
            const size_t backward = s->plan->cost.peak_backward;
            s->plan->cost = mean(&place->sum, &s->sum, (double)(windows - place->windows));
            s->plan->cost.peak_forward = forward;
            s->plan->cost.peak_backward = backward;
            return;
        }
        *place = (struct place){windows, s->sum};
        window(s, before);
    }
}

size_t kiln_trace_room(const struct kiln_plan *plan) {
    const size_t rounds = (plan->accum + plan->schedule.held - 1) / plan->schedule.held;
    return plan->schedule.groups.n * (plan->accum + 2 * rounds) + 2;
}

enum kiln_status kiln_simulate(struct kiln_plan *plan, struct kiln_trace *trace,
                               struct kiln_err *err) {
    const size_t compile = plan->schedule.limits.compile, layers = plan->schedule.layers;
    struct simulation s = {.plan = plan, .rates = rates_of(plan)};
    struct place *places = kiln_alloc(compile == SIZE_MAX ? 2 : 2 * (compile + 1), sizeof *places);
    unsigned char *before = kiln_alloc(layers, 1);
    s.process.has = kiln_alloc(layers, 1);
    const bool room = places != NULL && before != NULL && s.process.has != NULL;
    plan->cost = (struct kiln_cost){0};
    if (room) {
        repeat(&s, places, before);
        s.trace = trace;
        if (trace != NULL) {
            window(&s, before);
        }
    }
    kiln_free(places);
    kiln_free(before);
    kiln_free(s.process.has);
    KILN_REQUIRE(room, err, KILN_ENOMEM, "planning %zu layers: out of memory", layers);
    return KILN_OK;
}
