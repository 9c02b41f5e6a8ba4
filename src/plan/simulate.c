/* SPDX-License-Identifier: MIT
 *
 * simulate.c: windows through processes in virtual time, action by action (repeat.c: until they
 * repeat).
 */
#include <string.h>

#include "base/mem.h"
#include "plan/simulate.h"

/* Programs that a layer evaluates for a sequence where weights are inputs. */
enum { DYNAMIC_FORWARD = 3, DYNAMIC_BACKWARD = 7 };

static double compile_seconds(const struct kiln_profile *f, size_t kernels, size_t bytes) {
    const double rate = f->compile_gb_s * 1e9;
    return (double)kernels * (f->compile_s + f->load_s) + (rate > 0 ? (double)bytes / rate : 0);
}

static double over(double work, double rate) { return rate > 0 ? work / rate : 0; }

/* The host computes beside a Neural Engine; a simulator that charges no time is this very CPU. */
static bool host_beside(const struct kiln_plan_request *r) {
    return r->device.id == KILN_ANE || (r->device.id == KILN_SIM && r->device.sim_time > 0);
}

static void pass_rates(const struct kiln_plan *plan, struct kiln_rates *r) {
    const struct kiln_plan_request *request = plan->request;
    const struct kiln_profile *f = &request->profile;
    const struct kiln_flops *flops = &plan->flops;
    const double layers = (double)plan->schedule.layers, rate = f->tflops * 1e12;
    /* Of attention's five products two are forward, three backward. */
    r->forward = over((flops->forward + 0.4 * flops->attention) / layers, rate);
    r->backward = over((flops->dx + 0.6 * flops->attention) / layers, rate);
    const double head = request->device.extras ? flops->classifier / 3 : 0;
    if (!host_beside(request)) {
        r->backward += over(flops->dw / layers, rate);
        r->head = over(flops->classifier, rate);
        return;
    }
    r->head = over(head, rate);
    r->host_head = over(flops->classifier - head, f->host_tflops * 1e12);
    r->dw = over(flops->dw / layers, f->host_tflops * 1e12);
    const struct kiln_limits *limits = &plan->schedule.limits;
    const bool dynamic = request->device.dynamic;
    const size_t softmax = limits->shared_forward;
    const size_t forward = dynamic ? DYNAMIC_FORWARD : limits->forward;
    const size_t backward =
        dynamic ? DYNAMIC_BACKWARD : limits->backward + limits->shared - softmax;
    const double dispatch = f->dispatch_s * (double)request->batch;
    r->forward += (double)forward * dispatch;
    r->backward += (double)backward * dispatch;
    r->head += (double)(dynamic ? 0 : limits->head + softmax) * dispatch;
}

struct kiln_rates kiln_plan_rates(const struct kiln_plan *plan) {
    const struct kiln_profile *f = &plan->request->profile;
    const struct kiln_limits *limits = &plan->schedule.limits;
    const struct kiln_device_sizes *sizes = &plan->sizes;
    const bool delayed = plan->schedule.overlap == KILN_OVERLAP_DELAYED;
    const double bytes = f->update_gb_s * 1e9;
    struct kiln_rates r = {.restart = f->restart_s,
                           .relay = f->relay_s,
                           .beside = f->beside > 1 ? f->beside : 1,
                           .apart = plan->request->device.id == KILN_SIM};
    pass_rates(plan, &r);
    r.kernel_forward = compile_seconds(f, limits->forward, sizes->baked_forward);
    r.kernel_backward = compile_seconds(f, limits->backward, sizes->baked_backward);
    r.kernel_shared = compile_seconds(f, limits->shared, 0);
    r.kernel_head = limits->head > 0 ? compile_seconds(f, limits->head, sizes->baked_head) : 0;
    if (delayed) {
        r.prepare = plan->request->device.id == KILN_CPU ? compile_seconds(f, 0, sizes->baked_head)
                                                         : over((double)sizes->head, bytes);
    }
    if (!plan->request->forward_only) {
        r.norm = over(plan->update.norm, bytes);
        r.update_rest = over(plan->update.rest, bytes);
        r.update_layer = over(plan->update.layer, bytes);
        r.snapshot = over(plan->update.snapshot, bytes);
    }
    return r;
}

/* What a kernel's compile waits for, beside the compiler: at the start of a window of EXACT for the
 * update of its layer, else for whoever wants it. A successor has not waited for that. */
static double begins(struct simulation *s, const struct kiln_position *at, size_t layer) {
    const bool start = at->round == 0 && at->group == 0 && at->micro_batch == 0;
    const bool early = s->plan->schedule.overlap == KILN_OVERLAP_EXACT && start && !at->evaluate;
    return s->ready ? s->from : early ? s->time.fresh[layer] : s->time.now;
}

static double compile_layer(struct simulation *s, const struct kiln_position *at, size_t layer,
                            unsigned set) {
    const struct kiln_rates *r = s->time.rates;
    const size_t layers = s->plan->schedule.layers;
    double seconds = 0;
    if (set & KILN_HAS_FORWARD) {
        seconds += r->kernel_forward;
        if (at != NULL) {
            s->time.forward[layer] =
                kiln_timeline_compile(&s->time, begins(s, at, layer), r->kernel_forward);
        }
    }
    if ((set & KILN_HAS_FORWARD) && layer + 1 == layers && r->kernel_head > 0) {
        seconds += r->kernel_head;
        if (at != NULL) {
            s->time.head = kiln_timeline_compile(&s->time, begins(s, at, layers), r->kernel_head);
        }
    }
    if (set & KILN_HAS_BACKWARD) {
        const double more = s->plan->schedule.limits.whole ? r->kernel_shared : 0;
        seconds += r->kernel_backward + more;
        if (at != NULL) {
            s->time.backward[layer] =
                kiln_timeline_compile(&s->time, begins(s, at, layer), r->kernel_backward + more);
        }
    }
    return seconds;
}

static double compile_shared(struct simulation *s, const struct kiln_position *at) {
    if (at != NULL) {
        s->time.shared = kiln_timeline_compile(&s->time, s->ready ? s->from : s->time.now,
                                               s->time.rates->kernel_shared);
    }
    return s->time.rates->kernel_shared;
}

/* The kernels that a process has and had not, in the order in which the group wants them. With a
 * position they are compiled on the timeline; else only the seconds are counted. */
static double compile(struct simulation *s, const struct kiln_plan_group *g,
                      const struct kiln_process *p, bool shared_before,
                      const struct kiln_position *at) {
    const bool backward = g->pass == KILN_PLAN_BACKWARD;
    const bool shared = p->shared && !shared_before && !s->plan->schedule.limits.whole;
    double seconds = shared && backward ? compile_shared(s, at) : 0;
    for (size_t i = g->first; i < g->end; i++) {
        const size_t l = backward ? g->first + g->end - 1 - i : i;
        seconds += compile_layer(s, at, l, p->has[l] & ~(unsigned)s->before[l]);
    }
    return seconds + (shared && !backward ? compile_shared(s, at) : 0);
}

/* Layers whose kernels are loaded at once, those of the next set counted again. */
static void note_peak(struct simulation *s) {
    const size_t layers = s->plan->schedule.layers;
    size_t forward = s->process.next ? layers : 0, backward = forward;
    for (size_t l = 0; l < layers; l++) {
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

/* ---- relay ------------------------------------------------------------------------------------
 */

/* Seconds that a fresh process compiles at a place, and of these the first group's. */
static double compiles_at(struct simulation *s, const struct kiln_position *place, double *first) {
    const struct kiln_schedule_plan *plan = &s->plan->schedule;
    struct kiln_process *p = &s->scratch;
    struct kiln_position at = *place;
    double seconds = 0;
    p->compiled = p->loaded = 0;
    p->shared = p->next = false;
    memset(p->has, 0, plan->layers);
    for (size_t n = 0;; n++) {
        const struct kiln_plan_action a = kiln_schedule_next(plan, p, &at);
        if (a.what != KILN_COMPILE_GROUP) {
            return seconds;
        }
        const bool shared = p->shared;
        memcpy(s->before, p->has, plan->layers);
        kiln_schedule_apply(plan, p, &at, &a);
        seconds += compile(s, &a.group, p, shared, NULL);
        *first = n == 0 ? seconds : *first;
    }
}

/* A successor is started early. At the edge it knows the weights that it will compile only where
 * they are of a generation that is there already; it is then ready when it has compiled all of
 * them. Inside a window it is when it has what the place needs. */
static void succeed(struct simulation *s, const struct kiln_position *at) {
    const struct kiln_schedule_plan *plan = &s->plan->schedule;
    struct kiln_position place;
    bool edge;
    if (!plan->relay || s->time.succeeded ||
        !kiln_schedule_successor(plan, &s->process, at, &s->scratch, &place, &edge)) {
        return;
    }
    const bool knows = !edge || plan->overlap == KILN_OVERLAP_DELAYED;
    const bool start = place.round == 0 && place.group == 0 && place.micro_batch == 0;
    double first = 0;
    const double all = knows ? compiles_at(s, &place, &first) : 0;
    kiln_timeline_succeed(&s->time, start ? all : first, all, knows);
}

/* ---- actions ----------------------------------------------------------------------------------
 */

static void compile_group(struct simulation *s, const struct kiln_plan_action *a,
                          const struct kiln_position *at, bool shared_before) {
    s->sum.compiles += (double)a->kernels;
    compile(s, &a->group, &s->process, shared_before, at);
    note_peak(s);
}

/* All kernels with weights, in the order of a window. */
static void compile_next(struct simulation *s, const struct kiln_plan_action *a) {
    const struct kiln_rates *r = s->time.rates;
    const double layers = (double)s->plan->schedule.layers;
    s->sum.compiles += (double)a->kernels;
    s->time.next = kiln_timeline_compile(
        &s->time, s->time.now,
        r->prepare + layers * (r->kernel_forward + r->kernel_backward) + r->kernel_head);
    note_peak(s);
}

static void update(struct simulation *s, bool swap) {
    move(s, &s->plan->traffic.weights, 1);
    kiln_timeline_update(&s->time, s->plan->schedule.overlap == KILN_OVERLAP_DELAYED, swap);
}

/* Time and counts of an action. */
static void act(struct simulation *s, struct kiln_position *at, const struct kiln_plan_action *a) {
    const struct kiln_schedule_plan *plan = &s->plan->schedule;
    const struct kiln_plan_group *g = &a->group;
    const struct kiln_position before = *at;
    const bool shared = s->process.shared, next = s->process.next;
    if (a->what == KILN_COMPILE_GROUP) {
        memcpy(s->before, s->process.has, plan->layers);
    }
    kiln_schedule_apply(plan, &s->process, at, a);
    s->ready = s->ready && a->what == KILN_COMPILE_GROUP;
    switch (a->what) {
        case KILN_COMPILE_GROUP:
            compile_group(s, a, &before, shared);
            break;
        case KILN_COMPILE_NEXT:
            compile_next(s, a);
            break;
        case KILN_FORWARD_GROUP:
            kiln_timeline_forward(&s->time, g->first, g->end);
            move_forward(s, g);
            break;
        case KILN_BACKWARD_GROUP:
            kiln_timeline_backward(&s->time, g->first, g->end, plan->keep, at->micro_batch == 0);
            move_backward(s, g);
            break;
        case KILN_RESTART:
            s->sum.restarts++;
            s->ready = s->time.succeeded && s->time.knows;
            s->from = s->time.from;
            kiln_timeline_restart(&s->time);
            succeed(s, at);
            break;
        case KILN_UPDATE:
            update(s, next);
            break;
        case KILN_STEP_DONE:
        case KILN_ERROR:
            break;
    }
}

void kiln_simulate_window(struct simulation *s) {
    const struct kiln_schedule_plan *plan = &s->plan->schedule;
    struct kiln_position at = {
        .micro_batches = s->plan->accum, .next = true, .evaluate = s->plan->request->forward_only};
    succeed(s, &at);
    for (;;) {
        const struct kiln_plan_action a = kiln_schedule_next(plan, &s->process, &at);
        if (s->trace != NULL) {
            s->trace->at[s->trace->n++] = a;
        }
        if (a.what == KILN_STEP_DONE || a.what == KILN_ERROR) {
            return;
        }
        act(s, &at, &a);
    }
}

/* The window that is told. Of DELAYED one that compiles the next set, if there is one: all but the
 * last of a process do. */
static void trace_window(struct simulation *s, struct kiln_trace *trace) {
    bool told = trace == NULL;
    s->trace = trace;
    for (size_t tries = 0; !told && tries < 2; tries++) {
        told = s->plan->schedule.overlap != KILN_OVERLAP_DELAYED || !s->plan->two_sets;
        trace->n = 0;
        kiln_simulate_window(s);
        for (size_t i = 0; i < trace->n; i++) {
            told |= trace->at[i].what == KILN_COMPILE_NEXT;
        }
    }
}

size_t kiln_trace_room(const struct kiln_plan *plan) {
    const struct kiln_schedule_plan *s = &plan->schedule;
    const size_t rounds = (plan->accum + s->held - 1) / s->held + s->lead;
    return plan->schedule.groups.n * (plan->accum + 2 * rounds) + 4;
}

static enum kiln_status simulate(struct kiln_plan *plan, const struct kiln_rates *rates,
                                 struct kiln_trace *trace, double *whole, struct kiln_err *err) {
    const size_t layers = plan->schedule.layers;
    struct simulation s = {.plan = plan,
                           .time = {.rates = rates,
                                    .layers = layers,
                                    .waits = plan->schedule.overlap == KILN_OVERLAP_OFF,
                                    .whole = whole}};
    double *times = kiln_alloc(3 * layers + 1, sizeof *times);
    unsigned char *has = kiln_alloc(4 * layers, 1);
    bool room = times != NULL && has != NULL;
    plan->cost = (struct kiln_cost){0};
    if (room) {
        s.time.forward = times;
        s.time.backward = times + layers;
        s.time.fresh = times + 2 * layers;
        s.process.has = has;
        s.scratch.has = has + layers;
        s.before = has + 2 * layers;
        s.began = has + 3 * layers;
        room = kiln_simulate_repeat(&s);
        trace_window(&s, room ? trace : NULL);
    }
    kiln_free(times);
    kiln_free(has);
    KILN_REQUIRE(room, err, KILN_ENOMEM, "planning %zu layers: out of memory", layers);
    return KILN_OK;
}

enum kiln_status kiln_simulate(struct kiln_plan *plan, struct kiln_trace *trace,
                               struct kiln_err *err) {
    const struct kiln_rates rates = kiln_plan_rates(plan);
    return simulate(plan, &rates, trace, NULL, err);
}

enum kiln_status kiln_simulate_with(struct kiln_plan *plan, const struct kiln_rates *rates,
                                    struct kiln_trace *trace, struct kiln_err *err) {
    return simulate(plan, rates, trace, NULL, err);
}

enum kiln_status kiln_simulate_gradients(struct kiln_plan *plan, double *whole,
                                         struct kiln_err *err) {
    const struct kiln_rates rates = kiln_plan_rates(plan);
    return simulate(plan, &rates, NULL, whole, err);
}
