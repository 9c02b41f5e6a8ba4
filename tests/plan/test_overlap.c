/* SPDX-License-Identifier: MIT
 *
 * test_overlap.c: compiling beside computing: what is compiled when, by whom and from which
 * weights, against a checker with books of its own; virtual time against sums made by hand.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kiln_test.h"
#include "plan/plan.h"
#include "plan/plan_lab.h"

enum { MAX_LAYERS = 10, FORWARD = 2, BACKWARD = 3 }; /* kernels of a layer on cpu */

static const struct kiln_profile profile = {.tflops = 0.2,
                                            .compile_s = 0.01,
                                            .compile_gb_s = 1,
                                            .beside = 1.1,
                                            .update_gb_s = 20,
                                            .restart_s = 0.05,
                                            .relay_s = 0.01};

static struct kiln_plan_request request_of(size_t layers, size_t budget, size_t load,
                                           enum kiln_overlap overlap) {
    struct kiln_plan_request r = {.dims = kiln_preset_find("stories15m")->dims,
                                  .batch = 1,
                                  .seq = 64,
                                  .accum = 2,
                                  .budget = budget,
                                  .load_budget = load,
                                  .schedule = KILN_SCHEDULE_SPLIT,
                                  .overlap = overlap,
                                  .keep = {.kind = KILN_KEEP_ALL},
                                  .precision = KILN_PRECISION_FP32,
                                  .threads = 1,
                                  .profile = profile};
    r.dims.layers = layers;
    r.dims.vocab = 500;
    return r;
}

/* A plan of a request; false: a budget too small, or an exec that DELAYED cannot have. */
static bool plan_of(const struct kiln_plan_request *r, struct kiln_plan *plan) {
    struct kiln_table *table;
    struct kiln_err err;
    CHECK_OK(kiln_table_create(&r->dims, &table, &err), &err);
    const enum kiln_status status = kiln_plan_policy(table, r, r->keep, plan, &err);
    kiln_table_destroy(table);
    if (status != KILN_OK && status != KILN_EBUDGET && status != KILN_EUSAGE) {
        FAIL("%s", err.message);
    }
    return status == KILN_OK;
}

/* The same plan with so many held, in groups of so many layers; 0, 0: with the largest groups, as
 * many as there are then. */
static void hold(struct kiln_plan *plan, size_t held, size_t layers) {
    const struct kiln_plan_request *r = plan->request;
    struct kiln_table *table;
    struct kiln_err err;
    const bool once = plan->schedule.one_batch || r->schedule == KILN_SCHEDULE_WHOLE;
    CHECK_OK(kiln_table_create(&r->dims, &table, &err), &err);
    held = held > 0 ? held : once ? 1 : r->accum;
    CHECK_OK(kiln_plan_hold(table, plan, held, layers, NULL, &err), &err);
    kiln_table_destroy(table);
}

/* ---- exact takes as many compiles and restarts as off -----------------------------------------
 */

static const size_t budgets[][2] = {{0, 0},   {119, 119}, {60, 60}, {40, 40}, {40, 12}, {27, 27},
                                    {20, 20}, {20, 9},    {13, 13}, {13, 7},  {9, 9},   {9, 6},
                                    {7, 7},   {6, 6},     {0, 9},   {0, 20},  {20, 0},  {400, 30}};
enum { BUDGETS = sizeof budgets / sizeof budgets[0] };
static const char *const policies[] = {"all", "boundary", "sqrt", "every:3", "inputs", "none"};

static size_t compare_counts(struct kiln_plan_request *r) {
    struct kiln_plan off, exact;
    r->overlap = KILN_OVERLAP_OFF;
    if (!plan_of(r, &off)) {
        return 0;
    }
    r->overlap = KILN_OVERLAP_EXACT;
    CHECK(plan_of(r, &exact));
    const double step = kiln_plan_seconds(&exact).step, rounds = exact.cost.compiles;
    const bool cut = exact.cut > 0 || exact.schedule.held != off.schedule.held;
    if (exact.cost.compiles > off.cost.compiles || exact.cost.restarts > off.cost.restarts) {
        FAIL(
            "%zu layers, budget %zu/%zu, accum %zu: off %g compiles and %g restarts, exact %g "
            "and %g",
            r->dims.layers, r->budget, r->load_budget, r->accum, off.cost.compiles,
            off.cost.restarts, exact.cost.compiles, exact.cost.restarts);
    }
    if (step > kiln_plan_seconds(&off).step * (1 + 1e-9)) {
        FAIL("%zu layers, budget %zu/%zu, accum %zu, %s: off %.9g s, exact %.9g s", r->dims.layers,
             r->budget, r->load_budget, r->accum, kiln_restart_name(r->restart),
             kiln_plan_seconds(&off).step, step);
    }
    const bool hides = exact.cost.stall_s < off.cost.stall_s * 0.999;
    /* Rounds are there to be faster than the largest groups. */
    hold(&exact, 0, 0);
    CHECK_EQ(kiln_schedule_id(&off.schedule), kiln_schedule_id(&exact.schedule));
    CHECK(off.cost.compiles == exact.cost.compiles && off.cost.restarts == exact.cost.restarts);
    CHECK(fabs(off.cost.compile_s - exact.cost.compile_s) <= 1e-9 * off.cost.compile_s);
    CHECK(rounds <= exact.cost.compiles);
    CHECK(step <= kiln_plan_seconds(&exact).step * (cut ? 0.99 : 1 + 1e-9));
    kiln_plan_close(&off);
    kiln_plan_close(&exact);
    return 1 + (hides ? 100000 : 0) + (cut ? (size_t)10000000000 : 0);
}

TEST_WITHIN(exact_compiles_and_restarts_as_often_as_off, 120) {
    size_t plans = 0;
    struct kiln_err err;
    for (size_t layers = 1; layers <= MAX_LAYERS; layers++) {
        for (size_t i = 0; i < BUDGETS * 6; i++) {
            struct kiln_plan_request r =
                request_of(layers, budgets[i / 6][0], budgets[i / 6][1], KILN_OVERLAP_OFF);
            CHECK_OK(kiln_keep_parse(policies[i % 6], &r.keep, &err), &err);
            r.accum = 1 + (layers + i) % 4;
            r.restart = (layers + i) % 2 ? KILN_RESTART_RELAY : KILN_RESTART_EXEC;
            plans += compare_counts(&r);
            r.schedule = KILN_SCHEDULE_WHOLE;
            plans += compare_counts(&r);
            r.schedule = KILN_SCHEDULE_SPLIT;
            r.device = (struct kiln_device_choice){.id = KILN_SIM, .extras = i % 2};
            r.precision = KILN_PRECISION_FP16;
            plans += compare_counts(&r);
        }
    }
    const size_t all = plans % 100000, hide = plans / 100000 % 100000;
    const size_t rounds = plans / 10000000000;
    printf("      %zu plans, exact hides something in %zu, by rounds in %zu\n", all, hide, rounds);
    CHECK(all > 1500 && hide > 500 && rounds > 300);
}

TEST(exact_queues_the_backward_kernels_before_the_first_pass) {
    struct kiln_plan_request r = plan_request("stories110m", KILN_SCHEDULE_SPLIT);
    r.overlap = KILN_OVERLAP_EXACT;
    struct kiln_estimate e = estimate_of(&r);
    CHECK(e.n_actions > 4);
    CHECK_EQ(e.actions[0].what, KILN_RESTART);
    CHECK_EQ(e.actions[1].what, KILN_COMPILE_GROUP);
    CHECK_EQ(e.actions[1].group.pass, KILN_PLAN_FORWARD);
    CHECK_EQ(e.actions[2].what, KILN_COMPILE_GROUP);
    CHECK_EQ(e.actions[2].group.pass, KILN_PLAN_BACKWARD);
    CHECK_EQ(e.actions[2].kernels, 37u);
    CHECK_EQ(e.actions[2].left, 107u - 61u);
    CHECK_EQ(e.actions[3].what, KILN_FORWARD_GROUP);
    CHECK(e.compiles == 61.0);
    CHECK_EQ(e.staleness, 0u);
    kiln_estimate_free(&e);
}

/* ---- a checker of processes and generations ---------------------------------------------------
 */

struct checker {
    const struct kiln_plan *plan;
    size_t layers, compile, load; /* limits */
    bool whole;
    size_t compiled; /* in this process */
    bool shared;
    long forward[MAX_LAYERS], backward[MAX_LAYERS]; /* generation it was compiled from; -1: none */
    long next;                                      /* of the other set; -1: none */
    long step, generation;                          /* the window; what it computes with */
    bool evaluate, ahead_seen;
    size_t restarts, swaps, ahead;
};

static bool delays(const struct checker *c) {
    return c->plan->schedule.overlap == KILN_OVERLAP_DELAYED;
}

static long active(const struct checker *c, long step) {
    return delays(c) && step > 0 ? step - 1 : step;
}

static size_t backward_of(const struct checker *c) { return BACKWARD + (c->whole ? 1 : 0); }

static size_t loaded(const struct checker *c) {
    size_t n = c->shared ? 1 : 0;
    for (size_t l = 0; l < c->layers; l++) {
        n += (c->forward[l] >= 0 ? FORWARD : 0) + (c->backward[l] >= 0 ? backward_of(c) : 0);
    }
    return n + (c->next >= 0 ? c->layers * (FORWARD + BACKWARD) : 0);
}

static void forget(struct checker *c) {
    for (size_t l = 0; l < MAX_LAYERS; l++) {
        c->forward[l] = c->backward[l] = -1;
    }
    c->next = -1;
    c->shared = false;
    c->compiled = 0;
}

/* The books follow what the process says it holds: it may let go, and gains only by compiling. */
static void follow(struct checker *c, const struct kiln_process *p, const unsigned char *before,
                   bool compiles) {
    for (size_t l = 0; l < c->layers; l++) {
        const unsigned gained = p->has[l] & ~(unsigned)before[l];
        CHECK(compiles || gained == 0);
        if (gained & KILN_HAS_FORWARD) {
            c->forward[l] = c->generation;
            c->compiled += FORWARD;
        }
        if (gained & KILN_HAS_BACKWARD) {
            c->backward[l] = c->generation;
            c->compiled += backward_of(c);
        }
        c->forward[l] = p->has[l] & KILN_HAS_FORWARD ? c->forward[l] : -1;
        c->backward[l] = p->has[l] & KILN_HAS_BACKWARD ? c->backward[l] : -1;
    }
    c->compiled += p->shared && !c->shared;
    CHECK(compiles || !p->shared || c->shared);
    c->shared = p->shared;
}

static void check_pass(const struct checker *c, const struct kiln_plan_action *a) {
    const bool back = a->what == KILN_BACKWARD_GROUP;
    for (size_t l = a->group.first; l < a->group.end; l++) {
        const bool forward = !back || c->plan->schedule.keep[l] != KILN_FULL;
        CHECK(!forward || c->forward[l] == c->generation);
        CHECK(!back || c->backward[l] == c->generation);
        CHECK(!back || c->whole || c->shared);
    }
}

/* A compile for a group that is not reached yet: nothing is unloaded for it. */
static void check_ahead(struct checker *c, const struct kiln_plan_action *a,
                        const struct kiln_position *at, const struct kiln_process *p,
                        const unsigned char *before) {
    const struct kiln_plan_group *now = &c->plan->schedule.groups.at[at->group];
    if (a->group.pass == now->pass && a->group.first == now->first) {
        return;
    }
    CHECK(c->plan->schedule.overlap != KILN_OVERLAP_OFF && !c->whole);
    c->ahead++;
    for (size_t l = 0; l < c->layers; l++) {
        CHECK_EQ(before[l] & ~(unsigned)p->has[l], 0u);
    }
}

static void update(struct checker *c, const struct kiln_process *p, bool had_next, bool next) {
    const long generation = active(c, c->step + 1);
    CHECK(!p->next);
    if (had_next) {
        CHECK(delays(c) && next && c->next == generation);
        for (size_t l = 0; l < c->layers; l++) {
            CHECK_EQ(p->has[l], KILN_HAS_FORWARD | KILN_HAS_BACKWARD);
            c->forward[l] = c->backward[l] = generation;
        }
        c->next = -1;
        c->swaps++;
        return;
    }
    for (size_t l = 0; l < c->layers; l++) {
        CHECK((delays(c) && !next) || p->has[l] == 0);
        c->forward[l] = p->has[l] & KILN_HAS_FORWARD ? c->forward[l] : -1;
        c->backward[l] = p->has[l] & KILN_HAS_BACKWARD ? c->backward[l] : -1;
    }
}

static void drive(struct checker *c, struct kiln_process *p, bool evaluate) {
    const struct kiln_schedule_plan *s = &c->plan->schedule;
    unsigned char before[MAX_LAYERS];
    struct kiln_position at = {.evaluate = evaluate,
                               .micro_batches = evaluate ? 1 : c->plan->accum,
                               .next = delays(c) && !evaluate && c->step > 0};
    c->generation = active(c, c->step);
    c->evaluate = evaluate;
    for (size_t n = 0;; n++) {
        const struct kiln_plan_action a = kiln_schedule_next(s, p, &at);
        const struct kiln_position was = at;
        const bool had_next = p->next;
        CHECK(n < 1000);
        memcpy(before, p->has, c->layers);
        CHECK(a.what != KILN_ERROR);
        CHECK(a.what != KILN_RESTART || c->compiled > 0);
        kiln_schedule_apply(s, p, &at, &a);
        if (a.what == KILN_FORWARD_GROUP || a.what == KILN_BACKWARD_GROUP) {
            check_pass(c, &a);
        } else if (a.what == KILN_RESTART) {
            forget(c);
            c->restarts++;
        } else if (a.what == KILN_COMPILE_NEXT) {
            CHECK(delays(c) && was.next && !had_next && !evaluate && p->next);
            CHECK_EQ(a.kernels, c->layers * (FORWARD + BACKWARD));
            c->next = c->step;
            c->compiled += a.kernels;
        } else if (a.what == KILN_UPDATE) {
            update(c, p, had_next, was.next);
        } else if (a.what == KILN_COMPILE_GROUP) {
            check_ahead(c, &a, &was, p, before);
        }
        CHECK(!evaluate || p->next == had_next);
        if (a.what != KILN_UPDATE) {
            follow(c, p, before, a.what == KILN_COMPILE_GROUP);
        }
        CHECK(c->compiled <= c->compile && loaded(c) <= c->load);
        CHECK_EQ(p->compiled, c->compiled);
        CHECK_EQ(p->loaded, loaded(c));
        if (a.what == KILN_STEP_DONE) {
            c->step += !evaluate;
            return;
        }
    }
}

static uint64_t random_state = 1;
static size_t random_below(size_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(random_state >> 33) % n;
}

struct totals {
    size_t plans, restarts, swaps, ahead;
};

static void check_plan(const struct kiln_plan *plan, struct totals *t) {
    const struct kiln_plan_request *r = plan->request;
    unsigned char has[MAX_LAYERS] = {0};
    struct kiln_process p = {.has = has};
    struct checker c = {.plan = plan,
                        .layers = r->dims.layers,
                        .compile = plan->schedule.limits.compile,
                        .load = plan->schedule.limits.load,
                        .whole = r->schedule == KILN_SCHEDULE_WHOLE};
    forget(&c);
    for (size_t i = 0; i < 8; i++) {
        if (random_below(3) == 0) {
            drive(&c, &p, true);
        }
        drive(&c, &p, false);
    }
    t->plans++;
    t->restarts += c.restarts;
    t->swaps += c.swaps;
    t->ahead += c.ahead;
}

TEST_WITHIN(every_pass_has_kernels_of_its_generation_within_the_budgets, 120) {
    struct totals t = {0};
    for (size_t i = 0; i < 6000; i++) {
        struct kiln_err err;
        struct kiln_plan plan;
        const size_t budget = random_below(4) ? 5 + random_below(120) : 0;
        const size_t load = random_below(4) ? 5 + random_below(120) : 0;
        struct kiln_plan_request r = request_of(1 + random_below(MAX_LAYERS), budget, load,
                                                (enum kiln_overlap)random_below(3));
        CHECK_OK(kiln_keep_parse(policies[random_below(6)], &r.keep, &err), &err);
        r.accum = 1 + random_below(4);
        r.restart = random_below(2) ? KILN_RESTART_RELAY : KILN_RESTART_EXEC;
        r.restart_asked = random_below(2);
        r.schedule = random_below(5) ? KILN_SCHEDULE_SPLIT : KILN_SCHEDULE_WHOLE;
        if (plan_of(&r, &plan)) {
            check_plan(&plan, &t);
            kiln_plan_close(&plan);
        }
    }
    printf("      %zu plans, %zu restarts, %zu swaps, %zu compiles ahead\n", t.plans, t.restarts,
           t.swaps, t.ahead);
    CHECK(t.plans > 3000 && t.restarts > 10000 && t.swaps > 500 && t.ahead > 1000);
}

/* ---- two sets, or a relay ---------------------------------------------------------------------
 */

TEST(delayed_takes_a_relay_where_two_sets_do_not_fit) {
    struct kiln_plan_request r = plan_request("stories110m", KILN_SCHEDULE_SPLIT);
    struct kiln_err err;
    struct kiln_estimate e;
    r.overlap = KILN_OVERLAP_DELAYED;
    r.precision = KILN_PRECISION_FP32;
    e = estimate_of(&r);
    CHECK_EQ(e.restart, KILN_RESTART_RELAY);
    CHECK(e.restart_why != NULL && !e.two_sets);
    CHECK_EQ(e.kernels_two_sets, 121u);
    CHECK_EQ(e.staleness, 1u);
    CHECK(e.compiles == 61.0);
    CHECK(e.restarts == 1.0);
    kiln_estimate_free(&e);
    r.restart_asked = true;
    CHECK_FAILS(kiln_estimate(&r, false, &e, &err), KILN_EUSAGE, &err);
    CHECK(strstr(err.message, "121") != NULL && strstr(err.message, "107") != NULL);
    /* 121 usable of each: they fit; 120 of one of them: they do not. */
    r.headroom_millionths = 0;
    r.budget = r.load_budget = 121;
    e = estimate_of(&r);
    CHECK(e.two_sets && e.restart == KILN_RESTART_EXEC && e.restart_why == NULL);
    kiln_estimate_free(&e);
    r.load_budget = 120;
    CHECK_FAILS(kiln_estimate(&r, false, &e, &err), KILN_EUSAGE, &err);
    CHECK(strstr(err.message, "121") != NULL && strstr(err.message, "120") != NULL);
    r.load_budget = 121;
    r.budget = 120;
    r.restart_asked = false;
    e = estimate_of(&r);
    CHECK(!e.two_sets && e.restart == KILN_RESTART_RELAY);
    kiln_estimate_free(&e);
}

TEST(delayed_has_nothing_to_hide_where_weights_are_inputs) {
    struct kiln_plan_request r = plan_request("stories15m", KILN_SCHEDULE_SPLIT);
    struct kiln_err err;
    struct kiln_estimate e;
    r.overlap = KILN_OVERLAP_DELAYED;
    r.precision = KILN_PRECISION_FP16;
    r.device = (struct kiln_device_choice){.id = KILN_SIM, .dynamic = true};
    CHECK_FAILS(kiln_estimate(&r, false, &e, &err), KILN_EUSAGE, &err);
    CHECK(strstr(err.message, "exact") != NULL);
}

TEST(delayed_compiles_on_cpu_what_others_take_in_place) {
    struct kiln_plan_request r = request_of(3, 0, 0, KILN_OVERLAP_EXACT);
    struct kiln_plan plan;
    r.refreshes = true;
    CHECK(plan_of(&r, &plan));
    CHECK(plan.schedule.refreshes);
    CHECK(plan.cost.compiles == 0.0);
    kiln_plan_close(&plan);
    r.overlap = KILN_OVERLAP_DELAYED;
    CHECK(plan_of(&r, &plan));
    CHECK(!plan.schedule.refreshes && plan.two_sets);
    CHECK(plan.cost.compiles == 3.0 * (FORWARD + BACKWARD));
    kiln_plan_close(&plan);
}

/* ---- where a successor begins -----------------------------------------------------------------
 */

struct found {
    bool any, edge;
    struct kiln_position place;
};

static struct found successor(const struct kiln_plan *plan, struct kiln_process *p,
                              const struct kiln_position *at) {
    unsigned char has[MAX_LAYERS];
    struct kiln_process scratch = {.has = has};
    struct found f = {.any = false};
    f.any = kiln_schedule_successor(&plan->schedule, p, at, &scratch, &f.place, &f.edge);
    return f;
}

TEST(a_successor_begins_at_the_next_restart) {
    /* 2 layers: 4 kernels forward, 7 backward; a process holds 7. */
    struct kiln_plan_request r = request_of(2, 7, 7, KILN_OVERLAP_OFF);
    struct kiln_plan plan;
    unsigned char has[MAX_LAYERS] = {0};
    struct kiln_process p = {.has = has};
    struct kiln_position at = {.micro_batches = 2};
    r.restart = KILN_RESTART_RELAY;
    CHECK(plan_of(&r, &plan));
    struct found f = successor(&plan, &p, &at);
    CHECK(f.any && !f.edge);
    CHECK_EQ(f.place.group, 1u);
    CHECK_EQ(f.place.micro_batch, 0u);
    /* It has taken over there: its own successor begins behind the window. */
    at = f.place;
    f = successor(&plan, &p, &at);
    CHECK(f.any && f.edge);
    CHECK_EQ(f.place.group, 0u);
    CHECK_EQ(f.place.round, 0u);
    CHECK(!f.place.updated);
    CHECK_EQ(p.compiled, 0u); /* it is asked, not changed */
    kiln_plan_close(&plan);
}

TEST(a_successor_is_not_wanted_where_the_process_goes_on) {
    struct kiln_plan_request r = request_of(2, 121, 121, KILN_OVERLAP_DELAYED);
    struct kiln_plan plan;
    unsigned char has[MAX_LAYERS] = {0};
    struct kiln_process p = {.has = has};
    struct kiln_position at = {.micro_batches = 2};
    r.restart = KILN_RESTART_RELAY;
    CHECK(plan_of(&r, &plan));
    CHECK(plan.two_sets);
    CHECK(!successor(&plan, &p, &at).any); /* the first window: its weights serve the second, too */
    at.next = true;
    CHECK(!successor(&plan, &p, &at).any); /* the sets are swapped */
    kiln_plan_close(&plan);
    /* 11 kernels a set and 12 in a process: every window by relay, but for the first. */
    r = request_of(2, 12, 12, KILN_OVERLAP_DELAYED);
    CHECK(plan_of(&r, &plan));
    CHECK(!plan.two_sets && plan.schedule.relay);
    at.next = false;
    CHECK(!successor(&plan, &p, &at).any);
    at.next = true;
    const struct found f = successor(&plan, &p, &at);
    CHECK(f.any && f.edge);
    CHECK(plan.cost.restarts == 1.0);
    CHECK(plan.cost.compiles == 11.0);
    kiln_plan_close(&plan);
}

/* ---- virtual time -----------------------------------------------------------------------------
 */

/* 2 layers; a micro-batch is 2 forward, 3 behind, 4 backward: 9. Compiles: 20 forward, 40 backward,
 * 5 without weights. The update takes 1 + 1 + 2. */
static const struct kiln_rates round_rates = {.forward = 1,
                                              .backward = 2,
                                              .head = 3,
                                              .kernel_forward = 10,
                                              .kernel_backward = 20,
                                              .kernel_shared = 5,
                                              .norm = 1,
                                              .update_rest = 1,
                                              .update_layer = 1,
                                              .restart = 4,
                                              .relay = 1,
                                              .beside = 1};

struct timed {
    double compile, compute, stall, restart;
};

static struct timed time_held(enum kiln_overlap overlap, enum kiln_restart_kind restart,
                              size_t budget, size_t accum, const struct kiln_rates *rates,
                              size_t held, size_t layers) {
    struct kiln_plan_request r = request_of(2, budget, budget, overlap);
    struct kiln_plan plan;
    struct kiln_err err;
    r.restart = restart;
    r.accum = accum;
    CHECK(plan_of(&r, &plan));
    hold(&plan, held, layers);
    CHECK_OK(kiln_simulate_with(&plan, rates, NULL, &err), &err);
    const struct timed t = {plan.cost.compile_s, plan.cost.compute_s + plan.cost.update_s,
                            plan.cost.stall_s, plan.cost.restart_s};
    kiln_plan_close(&plan);
    return t;
}

/* With groups as large as they may be. */
static struct timed time_of(enum kiln_overlap overlap, enum kiln_restart_kind restart,
                            size_t budget, size_t accum, const struct kiln_rates *rates) {
    return time_held(overlap, restart, budget, accum, rates, 0, 0);
}

static void check_time(struct timed got, double compile, double compute, double stall,
                       double restart) {
    if (fabs(got.compile - compile) > 1e-12 || fabs(got.compute - compute) > 1e-12 ||
        fabs(got.stall - stall) > 1e-12 || fabs(got.restart - restart) > 1e-12) {
        FAIL("compile %.15g, compute %.15g, stall %.15g, restart %.15g; by hand %g, %g, %g, %g",
             got.compile, got.compute, got.stall, got.restart, compile, compute, stall, restart);
    }
}

TEST(off_waits_for_every_compile) {
    /* 11 kernels a window, 11 a process; then all in one. */
    check_time(time_of(KILN_OVERLAP_OFF, KILN_RESTART_EXEC, 11, 2, &round_rates), 65, 22, 65, 4);
    check_time(time_of(KILN_OVERLAP_OFF, KILN_RESTART_EXEC, 0, 2, &round_rates), 60, 22, 60, 0);
}

TEST(exact_compiles_beside_the_update_and_the_forward_pass) {
    /* A fresh process at 0: kernels at 10, 20; the shared one at 25; backward at 45, 65. Forward
     * 10..11, 20..21, behind it ..24, backward 45..47, 65..67: it waits 10 + 9 + 21 + 18. */
    check_time(time_of(KILN_OVERLAP_EXACT, KILN_RESTART_EXEC, 11, 2, &round_rates), 65, 22, 58, 4);
    /* The same process; the update begins at 0, its layers are done at 3 and 4: kernels at 13, 23,
     * 43, 63. The window begins at 4 and waits 9 + 9 + 16 + 18. */
    check_time(time_of(KILN_OVERLAP_EXACT, KILN_RESTART_EXEC, 0, 2, &round_rates), 60, 22, 52, 0);
}

TEST(rounds_of_exact_hide_all_micro_batches) {
    const struct kiln_rates *r = &round_rates;
    /* A fresh process at 0: kernels at 10, 20; the shared one at 25; backward at 45, 65. Both
     * micro-batches: layer 0 10..12, layer 1 and what is behind it 20..28, back through layer 1
     * 45..49 and layer 0 65..69: it waits 10 + 8 + 17 + 16. */
    check_time(time_held(KILN_OVERLAP_EXACT, KILN_RESTART_EXEC, 11, 2, r, 2, 1), 65, 22, 51, 4);
    /* The same process: kernels at 13, 23, 43, 63, the window begins at 4: 9 + 8 + 12 + 16. */
    check_time(time_held(KILN_OVERLAP_EXACT, KILN_RESTART_EXEC, 0, 2, r, 2, 1), 60, 22, 45, 0);
    /* Whole groups: the second one's forward pass hides, too. Layer 0 13..14, layer 1 23..27, the
     * second one 27..32, back 43..45, 63..67: 9 + 9 + 11 + 18; and its way back 67..69. */
    check_time(time_held(KILN_OVERLAP_EXACT, KILN_RESTART_EXEC, 0, 2, r, 2, 0), 60, 22, 47, 0);
    /* Four, two at a time: the second round has all kernels. */
    check_time(time_held(KILN_OVERLAP_EXACT, KILN_RESTART_EXEC, 0, 4, r, 2, 1), 60, 40, 45, 0);
    /* A relay inside the window: layer 0 10..12, layer 1 20..28; the second process is ready with
     * the kernels of layer 1 at 4 + 25, goes on at 30 until 34, and layer 0 comes at 4 + 45: 10 + 8
     * + 1 + 15. */
    check_time(time_held(KILN_OVERLAP_EXACT, KILN_RESTART_RELAY, 7, 2, r, 2, 1), 65, 22, 34, 2);
}

TEST(rounds_of_exact_fit_the_memory) {
    struct kiln_plan_request r = plan_request("stories110m", KILN_SCHEDULE_SPLIT);
    struct kiln_plan plan;
    size_t before = 0, sizes = 0;
    r.overlap = KILN_OVERLAP_EXACT;
    r.precision = KILN_PRECISION_FP32;
    r.accum = 20;
    r.profile = profile;
    r.profile.compile_s = 0.1;
    CHECK(plan_of(&r, &plan));
    const uint64_t most = plan.memory.total;
    CHECK_EQ(plan.schedule.held, 20u);
    hold(&plan, 1, 0);
    const uint64_t least = plan.memory.total;
    const double slowest = kiln_plan_seconds(&plan).step;
    kiln_plan_close(&plan);
    for (uint64_t part = 0; part <= 10; part++) {
        r.memory = least + (most - least) * part / 10;
        CHECK(plan_of(&r, &plan));
        CHECK(kiln_plan_fits(&plan) && plan.memory.total <= r.memory);
        CHECK(plan.cost.compiles == 61.0 && plan.cost.restarts == 1.0);
        CHECK(kiln_plan_seconds(&plan).step <= slowest * (1 + 1e-9));
        CHECK(!plan.layout.in_state && plan.layout.held == plan.schedule.held);
        CHECK(plan.schedule.held >= before);
        sizes += plan.schedule.held > before;
        before = plan.schedule.held;
        kiln_plan_close(&plan);
    }
    CHECK(sizes > 5);
}

TEST(delayed_waits_at_the_swap) {
    struct kiln_rates rates = round_rates;
    rates.snapshot = 2;
    /* 60 compiled beside 18 of passes and 6 of update. */
    check_time(time_of(KILN_OVERLAP_DELAYED, KILN_RESTART_EXEC, 0, 2, &rates), 60, 24, 36, 0);
    check_time(time_of(KILN_OVERLAP_DELAYED, KILN_RESTART_EXEC, 0, 5, &rates), 60, 51, 9, 0);
    check_time(time_of(KILN_OVERLAP_DELAYED, KILN_RESTART_EXEC, 0, 6, &rates), 60, 60, 0, 0);
    rates.beside = 1.5; /* passes take 27 while it compiles */
    check_time(time_of(KILN_OVERLAP_DELAYED, KILN_RESTART_EXEC, 0, 2, &rates), 60, 33, 27, 0);
    /* 60 of wall for 40 of passes, then 14 at full speed: 74, and the update. */
    check_time(time_of(KILN_OVERLAP_DELAYED, KILN_RESTART_EXEC, 0, 6, &rates), 60, 80, 0, 0);
    rates.prepare = 7;
    check_time(time_of(KILN_OVERLAP_DELAYED, KILN_RESTART_EXEC, 0, 2, &rates), 67, 33, 34, 0);
}

TEST(delayed_by_relay_waits_for_a_successor) {
    struct kiln_rates rates = round_rates;
    rates.snapshot = 2;
    /* A process starts in 4 and compiles 65, the weightless one, too; a hand-over is 1. */
    check_time(time_of(KILN_OVERLAP_DELAYED, KILN_RESTART_EXEC, 11, 2, &rates), 65, 24, 45, 1);
    check_time(time_of(KILN_OVERLAP_DELAYED, KILN_RESTART_EXEC, 11, 6, &rates), 65, 60, 9, 1);
    check_time(time_of(KILN_OVERLAP_DELAYED, KILN_RESTART_EXEC, 11, 7, &rates), 65, 69, 0, 1);
    rates.beside = 2; /* 4 at full speed, then 65 for 32.5 of passes, 26.5 left of 63 */
    check_time(time_of(KILN_OVERLAP_DELAYED, KILN_RESTART_EXEC, 11, 7, &rates), 65, 101.5, 0, 1);
}

TEST(a_relay_hides_restarts_inside_a_window) {
    /* 4 kernels forward in one process, 7 backward in the next. Exec: 20 + 45 of compiles. */
    check_time(time_of(KILN_OVERLAP_OFF, KILN_RESTART_EXEC, 7, 2, &round_rates), 65, 22, 65, 8);
    /* Relay: the second one is ready at 4 + 45; the first computes until 20 + 10. At the edge only
     * the start of a process hides, and 20 are compiled behind it. */
    check_time(time_of(KILN_OVERLAP_OFF, KILN_RESTART_RELAY, 7, 2, &round_rates), 65, 22, 39, 2);
    /* EXACT: forward 10..11, 20..21, ..24, then 5: ready at 49, and 29 are past. */
    check_time(time_of(KILN_OVERLAP_EXACT, KILN_RESTART_RELAY, 7, 2, &round_rates), 65, 22, 39, 2);
    /* DELAYED: the edge, too. Forward until 10, wait until 49, 1; from 50 on 8 of backward and 4 of
     * update; the next one is ready at 50 + 4 + 20. */
    check_time(time_of(KILN_OVERLAP_DELAYED, KILN_RESTART_RELAY, 7, 2, &round_rates), 65, 22,
               39 + 12, 2);
}

TEST(weight_gradients_go_beside_the_device_until_the_pass_ends) {
    struct kiln_rates rates = round_rates;
    rates.host_head = 0.5;
    rates.dw = 1; /* 2 and 4: done at 3 and 5 */
    check_time(time_of(KILN_OVERLAP_OFF, KILN_RESTART_EXEC, 0, 1, &rates), 60, 14.5, 60, 0);
    rates.dw = 3; /* done at 5 and 8 */
    check_time(time_of(KILN_OVERLAP_OFF, KILN_RESTART_EXEC, 0, 1, &rates), 60, 17.5, 60, 0);
}

/* ---- the smallest window without a stall -------------------------------------------------------
 */

static double stall_of(const struct kiln_plan_request *request, size_t accum) {
    struct kiln_plan_request r = *request;
    r.accum = accum;
    r.overlap = KILN_OVERLAP_DELAYED;
    r.restart = KILN_RESTART_RELAY;
    struct kiln_estimate e = estimate_of(&r);
    const double stall = e.time.stall;
    kiln_estimate_free(&e);
    return stall;
}

TEST(zero_stall_accum_is_the_smallest_that_does_not_stall) {
    static const char *const models[] = {"stories15m", "stories42m", "stories110m"};
    static const size_t limits[] = {119, 60, 400};
    size_t above = 0;
    for (size_t i = 0; i < 9; i++) {
        struct kiln_plan_request r = plan_request(models[i % 3], KILN_SCHEDULE_SPLIT);
        r.budget = r.load_budget = limits[i / 3];
        r.profile = profile;
        r.profile.compile_s = 0.2;
        r.precision = KILN_PRECISION_FP32;
        struct kiln_estimate e = estimate_of(&r);
        const size_t accum = e.zero_stall_accum;
        kiln_estimate_free(&e);
        CHECK(accum >= 1);
        CHECK(stall_of(&r, accum) < 1e-9);
        if (accum > 1) {
            CHECK(stall_of(&r, accum - 1) > 1e-9);
            above++;
        }
    }
    CHECK(above >= 6);
}

TEST(no_window_is_large_enough_for_whole) {
    struct kiln_plan_request r = plan_request("llama7b", KILN_SCHEDULE_WHOLE);
    r.profile = profile;
    r.profile.tflops = 1000;
    r.profile.compile_s = 1;
    r.precision = KILN_PRECISION_FP32;
    struct kiln_estimate e = estimate_of(&r);
    CHECK_EQ(e.zero_stall_accum, 0u);
    kiln_estimate_free(&e);
}

/* ---- memory ------------------------------------------------------------------------------------
 */

TEST(delayed_takes_memory_for_sets_snapshots_and_a_second_process) {
    struct kiln_plan_request r = plan_request("stories15m", KILN_SCHEDULE_SPLIT);
    struct kiln_table *table;
    struct kiln_err err;
    r.precision = KILN_PRECISION_BF16;
    r.profile.process_gb = 0.01;
    CHECK_OK(kiln_table_create(&r.dims, &table, &err), &err);
    struct kiln_estimate off = estimate_of(&r);
    r.overlap = KILN_OVERLAP_DELAYED;
    struct kiln_estimate sets = estimate_of(&r);
    r.restart = KILN_RESTART_RELAY;
    r.budget = r.load_budget = 40;
    struct kiln_estimate relay = estimate_of(&r);
    const uint64_t snapshot = kiln_snapshot_bytes(table, KILN_PRECISION_BF16);
    CHECK_EQ(off.memory.snapshots, 0u);
    CHECK_EQ(sets.memory.snapshots, 2 * snapshot);
    CHECK_EQ(sets.memory.kernels, 2 * off.memory.kernels);
    CHECK_EQ(sets.memory.process, off.memory.process);
    CHECK_EQ(relay.memory.kernels, 2 * off.memory.kernels);
    CHECK_EQ(relay.memory.workspace, 2 * off.memory.workspace);
    CHECK_EQ(relay.memory.process, 3 * off.memory.process + snapshot);
    CHECK(sets.memory.state_file > off.memory.state_file + 2 * snapshot - 4096);
    kiln_table_destroy(table);
    kiln_estimate_free(&off);
    kiln_estimate_free(&sets);
    kiln_estimate_free(&relay);
}
