/* SPDX-License-Identifier: MIT
 *
 * test_schedule.c: the state machine against its definition: whatever the plan, windows and
 * evaluations are driven through processes, and a checker that knows only what plan.h promises
 * looks at every action. The checker keeps books of its own: which kernels were compiled, in which
 * process and from which weights.
 */
#include "plan/schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kiln_test.h"
#include "model/table.h"
#include "plan/plan.h"

/* Kernels, as plan.h tells. The weightless one is the layer's own in `whole`. Extras: two more a
 * layer, behind the last layer the final norm and the parts of the classifier, and softmax. */
enum { FORWARD_KERNELS = 2, BACKWARD_KERNELS = 3, SHARED_KERNELS = 1, NORM_KERNELS = 2 };
enum { PART_ROWS = 16384, MOST_LOGITS = 65536 };
enum { MAX_LAYERS = 12, MAX_BATCHES = 8, OLD = 0 };

struct checker {
    const struct kiln_plan *plan;
    const char *name; /* of the plan, for failures */
    size_t layers, accum, held;
    bool whole, extras;
    size_t classifier; /* kernels with weights behind the last layer */
    bool softmax;
    size_t compile_limit, load_limit;
    /* of the process */
    size_t compiled;
    bool shared;
    unsigned forward[MAX_LAYERS], backward[MAX_LAYERS]; /* generation it was compiled from; 0: not
                                                           loaded */
    unsigned generation;                                /* of the weights, from 1 */
    /* of the window */
    bool evaluate, updated;
    size_t batches;
    size_t went_up[MAX_BATCHES], came_down[MAX_BATCHES]; /* layers done, of each micro-batch */
    size_t layer_done[MAX_LAYERS];                       /* backward micro-batches of the layer */
    size_t actions, compiles;
    bool restarted_now; /* the last action was a restart */
    size_t restarts, cut_windows, partly_held;
    size_t most_under_way;
};

#define BAD(...)                                               \
    do {                                                       \
        char text[200];                                        \
        snprintf(text, sizeof text, __VA_ARGS__);              \
        FAIL("%s: action %zu: %s", c->name, c->actions, text); \
    } while (0)

/* Usable where the weights are newer: kernels take them in place. */
static bool fresh(const struct checker *c, unsigned generation) {
    return generation != OLD && (c->plan->schedule.refreshes || generation == c->generation);
}

static bool runs_forward(const struct checker *c, enum kiln_plan_pass pass, size_t layer) {
    return pass == KILN_PLAN_FORWARD || c->plan->schedule.keep[layer] != KILN_FULL;
}

/* What a process must hold to run the pass over the layer; in `whole` all that a layer has. */
static bool wants_forward(const struct checker *c, enum kiln_plan_pass pass, size_t layer) {
    return c->evaluate || c->whole || runs_forward(c, pass, layer);
}

static bool wants_backward(const struct checker *c, enum kiln_plan_pass pass) {
    return !c->evaluate && (c->whole || pass == KILN_PLAN_BACKWARD);
}

static size_t backward_kernels(const struct checker *c) {
    return BACKWARD_KERNELS + (c->extras ? NORM_KERNELS : 0) + (c->whole ? SHARED_KERNELS : 0);
}

/* What runs behind the last layer comes and goes with its forward kernels. */
static size_t forward_kernels(const struct checker *c, size_t layer) {
    const size_t behind = c->classifier + (c->whole && c->softmax);
    return FORWARD_KERNELS + (layer + 1 == c->layers ? behind : 0);
}

static size_t shared_kernels(const struct checker *c) { return SHARED_KERNELS + c->softmax; }

/* Does the pass over layers up to `end` run a kernel that all layers share? */
static bool wants_shared(const struct checker *c, enum kiln_plan_pass pass, size_t end) {
    return !c->whole && (wants_backward(c, pass) || (c->softmax && end == c->layers));
}

/* Kernels that the layers first..end-1 lack for the pass. */
static size_t lacking(const struct checker *c, enum kiln_plan_pass pass, size_t first, size_t end) {
    size_t n = wants_shared(c, pass, end) && !c->shared ? shared_kernels(c) : 0;
    for (size_t l = first; l < end; l++) {
        n += wants_forward(c, pass, l) && !fresh(c, c->forward[l]) ? forward_kernels(c, l) : 0;
        n += wants_backward(c, pass) && !fresh(c, c->backward[l]) ? backward_kernels(c) : 0;
    }
    return n;
}

/* ---- actions ----------------------------------------------------------------------------------
 */

static void on_compile(struct checker *c, const struct kiln_plan_action *a) {
    const struct kiln_plan_group *g = &a->group;
    const size_t n = lacking(c, g->pass, g->first, g->end);
    if (n == 0 || a->kernels != n) {
        BAD("compiles %zu kernels for [%zu,%zu), which lacks %zu", a->kernels, g->first, g->end, n);
    }
    c->compiled += n;
    c->compiles += n;
    if (c->compiled > c->compile_limit) {
        BAD("%zu kernels compiled in a process of %zu", c->compiled, c->compile_limit);
    }
    for (size_t l = g->first; l < g->end; l++) {
        if (wants_forward(c, g->pass, l) && !fresh(c, c->forward[l])) {
            c->forward[l] = c->generation;
        }
        if (wants_backward(c, g->pass) && !fresh(c, c->backward[l])) {
            c->backward[l] = c->generation;
        }
    }
    c->shared |= wants_shared(c, g->pass, g->end);
}

static void on_pass(struct checker *c, const struct kiln_plan_action *a) {
    const struct kiln_plan_group *g = &a->group;
    const size_t m = a->micro_batch;
    const bool back = a->what == KILN_BACKWARD_GROUP;
    if (m >= c->batches || (back && c->evaluate) || g->first >= g->end || g->end > c->layers ||
        back != (g->pass == KILN_PLAN_BACKWARD)) {
        BAD("no such pass: micro-batch %zu over [%zu,%zu)", m, g->first, g->end);
    }
    for (size_t l = g->first; l < g->end; l++) {
        if ((runs_forward(c, g->pass, l) && !fresh(c, c->forward[l])) ||
            (back && !fresh(c, c->backward[l])) ||
            (wants_shared(c, g->pass, g->end) && !c->shared)) {
            BAD("layer %zu runs a kernel that is not there, or of old weights", l);
        }
    }
    if (!back) {
        if (c->went_up[m] != g->first || c->came_down[m] != 0) {
            BAD("micro-batch %zu goes forward at layer %zu and should at %zu", m, g->first,
                c->went_up[m]);
        }
        c->went_up[m] = g->end;
    } else {
        if (c->went_up[m] != c->layers || c->came_down[m] != c->layers - g->end) {
            BAD("micro-batch %zu comes back at layer %zu; forward %zu, back %zu", m, g->end,
                c->went_up[m], c->came_down[m]);
        }
        c->came_down[m] = c->layers - g->first;
        for (size_t l = g->first; l < g->end; l++) {
            if (c->layer_done[l]++ != m) {
                BAD("layer %zu: gradients of micro-batch %zu out of order", l, m);
            }
        }
    }
    size_t under_way = 0;
    for (size_t i = 0; i < c->batches && !c->evaluate; i++) {
        under_way += c->went_up[i] > 0 && c->came_down[i] < c->layers;
    }
    c->most_under_way = under_way > c->most_under_way ? under_way : c->most_under_way;
    if (under_way > c->held) {
        BAD("%zu micro-batches under way, there is room for %zu", under_way, c->held);
    }
}

/* The place where the window goes on: the pass and layers of the first micro-batch that waits. */
static void on_restart(struct checker *c, const struct kiln_plan_action *a) {
    const struct kiln_plan_group *g = &a->group;
    bool started = false;
    for (size_t i = 0; i < c->batches; i++) {
        started |= c->went_up[i] > 0;
    }
    size_t n = lacking(c, g->pass, g->first, g->end);
    if (c->plan->schedule.one_batch && !started) { /* all of the window, so that it is not cut */
        n = lacking(c, c->evaluate ? KILN_PLAN_FORWARD : KILN_PLAN_BACKWARD, 0, c->layers);
        for (size_t l = 0; !c->evaluate && l < c->layers; l++) {
            n += c->plan->schedule.keep[l] == KILN_FULL && !fresh(c, c->forward[l])
                     ? forward_kernels(c, l)
                     : 0;
        }
    }
    if (c->compiled == 0 || c->compiled + n <= c->compile_limit) {
        BAD("restarts with %zu of %zu compiled, and %zu kernels lacking", c->compiled,
            c->compile_limit, n);
    }
    if (a->kernels != n || a->left != c->compile_limit - c->compiled) {
        BAD("restarts for %zu kernels with %zu left, not %zu with %zu", a->kernels, a->left, n,
            c->compile_limit - c->compiled);
    }
    c->compiled = 0;
    c->shared = false;
    memset(c->forward, 0, sizeof c->forward);
    memset(c->backward, 0, sizeof c->backward);
    c->restarts++;
    c->cut_windows += started;
}

static void on_update(struct checker *c) {
    for (size_t m = 0; m < c->batches; m++) {
        if (c->went_up[m] != c->layers || c->came_down[m] != c->layers) {
            BAD("updates before micro-batch %zu is done", m);
        }
    }
    if (c->evaluate || c->updated) {
        BAD("updates twice, or in an evaluation");
    }
    c->updated = true;
    c->generation++;
}

static void on_step_done(struct checker *c) {
    for (size_t m = 0; m < c->batches; m++) {
        if (c->went_up[m] != c->layers) {
            BAD("done before micro-batch %zu is", m);
        }
    }
    if (!c->evaluate && !c->updated) {
        BAD("done without an update");
    }
}

/* What the process holds after the action: nothing that was not compiled, within the limit. */
static void check_process(struct checker *c, const struct kiln_process *p) {
    if (p->shared && !c->shared) {
        BAD("the process holds a weightless kernel that nobody compiled");
    }
    c->shared = p->shared; /* it may be unloaded, too */
    size_t loaded = c->shared ? shared_kernels(c) : 0;
    for (size_t l = 0; l < c->layers; l++) {
        if (((p->has[l] & KILN_HAS_FORWARD) && !fresh(c, c->forward[l])) ||
            ((p->has[l] & KILN_HAS_BACKWARD) && !fresh(c, c->backward[l]))) {
            BAD("layer %zu: the process holds what nobody compiled", l);
        }
        c->forward[l] = p->has[l] & KILN_HAS_FORWARD ? c->forward[l] : OLD; /* unloaded */
        c->backward[l] = p->has[l] & KILN_HAS_BACKWARD ? c->backward[l] : OLD;
        loaded += c->forward[l] != OLD ? forward_kernels(c, l) : 0;
        loaded += c->backward[l] != OLD ? backward_kernels(c) : 0;
    }
    if (p->loaded != loaded || loaded > c->load_limit) {
        BAD("%zu kernels loaded, %zu counted, %zu allowed", loaded, p->loaded, c->load_limit);
    }
    if (p->compiled != c->compiled) {
        BAD("%zu kernels compiled, %zu counted", c->compiled, p->compiled);
    }
}

static void check_action(struct checker *c, const struct kiln_plan_action *a) {
    if (c->restarted_now && a->what != KILN_COMPILE_GROUP) {
        BAD("a restart, and then nothing is compiled");
    }
    c->restarted_now = a->what == KILN_RESTART;
    switch (a->what) {
        case KILN_COMPILE_GROUP:
            on_compile(c, a);
            break;
        case KILN_FORWARD_GROUP:
        case KILN_BACKWARD_GROUP:
            on_pass(c, a);
            break;
        case KILN_RESTART:
            on_restart(c, a);
            break;
        case KILN_UPDATE:
            on_update(c);
            break;
        case KILN_STEP_DONE:
            on_step_done(c);
            break;
        case KILN_COMPILE_NEXT:
        case KILN_ERROR:
            BAD("%s for %zu kernels", kiln_action_name(a->what), a->kernels);
    }
}

/* One window or evaluation, through as many processes as it takes. */
static void drive(struct checker *c, struct kiln_process *p, bool evaluate, size_t batches) {
    const struct kiln_schedule_plan *s = &c->plan->schedule;
    struct kiln_position at = {.evaluate = evaluate, .micro_batches = batches};
    /* A pass over a layer, its compile and a restart, each at most once. */
    const size_t most = 6 * c->layers * batches + 2;
    c->evaluate = evaluate;
    c->updated = false;
    c->batches = batches;
    c->actions = 0;
    memset(c->went_up, 0, sizeof c->went_up);
    memset(c->came_down, 0, sizeof c->came_down);
    memset(c->layer_done, 0, sizeof c->layer_done);
    for (;;) {
        const struct kiln_plan_action a = kiln_schedule_next(s, p, &at);
        if (++c->actions > most) {
            BAD("no end in sight");
        }
        check_action(c, &a);
        kiln_schedule_apply(s, p, &at, &a);
        check_process(c, p);
        if (a.what == KILN_STEP_DONE) {
            return;
        }
    }
}

struct totals {
    size_t plans, windows, restarts, cut, partly_held;
};

static void check_plan(const struct kiln_plan *plan, const char *name, struct totals *totals) {
    const struct kiln_schedule_plan *s = &plan->schedule;
    struct checker c = {.plan = plan,
                        .name = name,
                        .layers = s->layers,
                        .accum = plan->accum,
                        .held = plan->layout.held,
                        .whole = plan->request->schedule == KILN_SCHEDULE_WHOLE,
                        .compile_limit = SIZE_MAX,
                        .load_limit = SIZE_MAX,
                        .generation = 1};
    const struct kiln_plan_request *r = plan->request;
    const bool last = r->stage.number + 1 >= r->stage.stages;
    c.extras = r->device.extras;
    c.classifier = c.extras && last ? 1 + (r->dims.vocab + PART_ROWS - 1) / PART_ROWS : 0;
    c.softmax = c.extras && last && r->dims.vocab <= MOST_LOGITS;
    if (r->budget > 0) {
        c.compile_limit = kiln_usable_budget(r->budget, r->headroom_millionths);
    }
    if (r->load_budget > 0) {
        c.load_limit = kiln_usable_budget(r->load_budget, r->headroom_millionths);
    }
    unsigned char has[MAX_LAYERS] = {0};
    struct kiln_process p = {.has = has};
    CHECK(c.held >= 1 && c.held <= plan->accum);
    drive(&c, &p, true, 2); /* before the first step */
    for (size_t i = 0; i < 6; i++) {
        drive(&c, &p, false, plan->accum);
        if (i % 3 == 1) {
            drive(&c, &p, true, i % 2 ? 1 : 3);
        }
    }
    totals->plans++;
    totals->windows += 6;
    totals->restarts += c.restarts;
    totals->cut += c.cut_windows;
    /* A stage begins as many as it may before the first comes back. */
    CHECK(s->lead == 0 || c.most_under_way == c.held);
    totals->partly_held += c.held > 1 && c.held < plan->accum;
}

static bool open_plan(const struct kiln_table *table, const struct kiln_plan_request *r,
                      const char *name, struct kiln_plan *plan) {
    struct kiln_err err;
    const enum kiln_status status = kiln_plan_open(table, r, plan, &err);
    /* Too small a budget or memory is said with numbers: test_plan.c. */
    const bool too_small = status == KILN_EBUDGET || (status == KILN_ENOMEM && r->memory > 0);
    if (status != KILN_OK && !too_small) {
        FAIL("%s: %s", name, err.message);
    }
    return status == KILN_OK;
}

/* Bytes of the plan that holds one micro-batch. */
static uint64_t least_of(const struct kiln_table *table, const struct kiln_plan_request *request) {
    struct kiln_plan_request one = *request;
    struct kiln_plan plan;
    one.accum = 1;
    CHECK(open_plan(table, &one, "accum 1", &plan));
    const uint64_t least = plan.least;
    kiln_plan_close(&plan);
    return least;
}

/* The plan without a limit of memory, then with room for about one micro-batch, and for two. */
static void try_memory(const struct kiln_table *table, struct kiln_plan_request *r,
                       const char *policy, struct totals *totals) {
    uint64_t limits[3] = {0, 0, 0};
    for (int i = 0; i < 3 && (i == 0 || limits[i] > 0); i++) {
        struct kiln_plan plan;
        char name[200];
        snprintf(name, sizeof name,
                 "%zu layers, vocabulary %zu%s, budget %zu/%zu, %s, %s, accum %zu%s, memory %llu",
                 r->dims.layers, r->dims.vocab, r->device.extras ? " and extras" : "", r->budget,
                 r->load_budget, r->schedule == KILN_SCHEDULE_WHOLE ? "whole" : "split", policy,
                 r->accum, r->refreshes ? ", refreshes" : "", (unsigned long long)limits[i]);
        r->memory = limits[i];
        if (!open_plan(table, r, name, &plan)) {
            break;
        }
        check_plan(&plan, name, totals);
        CHECK(r->memory == 0 || plan.least <= r->memory);
        if (i == 0 && plan.schedule.held > 1) {
            limits[1] = least_of(table, r) + (256 << 10); /* the process grows meanwhile */
            limits[2] = plan.schedule.held > 2 ? limits[1] + plan.layout.micro_batch : 0;
        }
        kiln_plan_close(&plan);
    }
    r->memory = 0;
}

static const char *const policies[] = {"all",    "boundary", "sqrt", "every:3",
                                       "inputs", "none",     "auto"};
static const size_t budgets[][2] = {
    {0, 0}, {119, 119}, {40, 40}, {40, 12}, {27, 27}, {20, 20}, {20, 9}, {13, 13}, {13, 7}, {9, 9},
    {9, 6}, {7, 7},     {6, 6},   {5, 5},   {4, 4},   {0, 9},   {0, 20}, {20, 0},  {7, 0}};

/* All policies and budgets for that many layers of that vocabulary. */
static void try_plans(struct kiln_device_choice device, size_t layers, size_t vocab,
                      struct totals *totals) {
    struct kiln_err err;
    struct kiln_table *table;
    struct kiln_plan_request r = {
        .dims = kiln_preset_find("stories15m")->dims,
        .device = device,
        .batch = 1,
        .seq = 64,
        .precision = device.id == KILN_CPU ? KILN_PRECISION_FP32 : KILN_PRECISION_FP16,
        .threads = 1,
        .profile = {.tflops = 0.2, .compile_s = 0.01, .update_gb_s = 20, .restart_s = 0.05}};
    r.dims.layers = layers;
    r.dims.vocab = vocab;
    CHECK_OK(kiln_table_create(&r.dims, &table, &err), &err);
    for (size_t i = 0; i < 2 * (sizeof budgets / sizeof budgets[0]); i++) {
        r.budget = budgets[i / 2][0];
        r.load_budget = budgets[i / 2][1];
        r.schedule = i % 2 ? KILN_SCHEDULE_WHOLE : KILN_SCHEDULE_SPLIT;
        /* Choosing is slow, and what is chosen is a mixture of the others. */
        for (size_t k = 0; k < ((layers + i) % 6 == 0 ? 7 : 6); k++) {
            r.accum = 1 + (layers + i / 2 + k) % 5;
            r.refreshes = device.id == KILN_CPU && (layers + k) % 2;
            r.overlap = (layers + i + k) % 3 ? KILN_OVERLAP_EXACT : KILN_OVERLAP_OFF;
            CHECK_OK(kiln_keep_parse(policies[k], &r.keep, &err), &err);
            try_memory(table, &r, policies[k], totals);
        }
    }
    kiln_table_destroy(table);
}

static void say(const struct totals *t) {
    printf(
        "      %zu plans, %zu windows, %zu restarts, %zu of them inside; %zu plans hold a part\n",
        t->plans, t->windows, t->restarts, t->cut, t->partly_held);
}

TEST_WITHIN(every_action_is_what_the_plan_promises, 300) {
    struct totals totals = {0};
    for (size_t layers = 1; layers <= MAX_LAYERS; layers++) {
        try_plans((struct kiln_device_choice){.id = KILN_CPU}, layers, 500, &totals);
    }
    say(&totals);
    CHECK(totals.plans > 1000 && totals.cut > 1000 && totals.partly_held > 100);
}

TEST_WITHIN(every_action_is_right_with_extra_kernels, 300) {
    /* One part of the classifier and softmax; three parts; seven, and no softmax. */
    static const size_t vocabularies[] = {500, 40000, 100000};
    struct totals totals = {0};
    for (size_t layers = 1; layers <= MAX_LAYERS; layers++) {
        try_plans((struct kiln_device_choice){.id = KILN_SIM, .extras = true}, layers,
                  vocabularies[layers % 3], &totals);
    }
    say(&totals);
    CHECK(totals.plans > 1000 && totals.cut > 1000 && totals.partly_held > 100);
}

/* ---- stages of a pipeline ---------------------------------------------------------------------
 */

/* All stages of so many, with the plan's budgets and without. */
static void try_stages(struct kiln_device_choice device, size_t layers, size_t stages,
                       struct totals *totals) {
    struct kiln_err err;
    struct kiln_table *table, *stage;
    struct kiln_plan_request whole = {
        .dims = kiln_preset_find("stories15m")->dims,
        .device = device,
        .batch = 1,
        .seq = 64,
        .precision = device.id == KILN_CPU ? KILN_PRECISION_FP32 : KILN_PRECISION_FP16,
        .threads = 1,
        .profile = {.tflops = 0.2, .compile_s = 0.01, .update_gb_s = 20, .restart_s = 0.05}};
    whole.dims.layers = layers;
    whole.dims.vocab = 500;
    CHECK_OK(kiln_table_create(&whole.dims, &table, &err), &err);
    for (size_t number = 0; number < stages; number++) {
        const size_t first = kiln_stage_first(layers, stages, number);
        struct kiln_plan_request r = whole;
        kiln_stage_choose(&r, stages, number);
        CHECK_OK(kiln_table_stage(table, first, first + r.dims.layers, &stage, &err), &err);
        for (size_t i = 0; i < 6 * MAX_BATCHES; i++) {
            r.accum = 1 + i / 6;
            r.budget = i % 3 == 0 ? 0 : i % 3 == 1 ? 60 : 24;
            r.load_budget = r.budget;
            r.schedule = i % 4 == 3 ? KILN_SCHEDULE_WHOLE : KILN_SCHEDULE_SPLIT;
            r.overlap = i % 2 ? KILN_OVERLAP_EXACT : KILN_OVERLAP_OFF;
            r.refreshes = device.id == KILN_CPU && i % 2;
            CHECK_OK(kiln_keep_parse(policies[i % 6], &r.keep, &err), &err);
            struct kiln_plan plan;
            char name[100];
            snprintf(name, sizeof name, "stage %zu of %zu of %zu layers, accum %zu, budget %zu",
                     number, stages, layers, r.accum, r.budget);
            if (!open_plan(stage, &r, name, &plan)) {
                continue;
            }
            const size_t lead = stages - number - 1, most = r.accum - 1;
            CHECK_EQ(plan.layout.held, (lead < most ? lead : most) + 1);
            CHECK(number == 0 || plan.schedule.keep[0] != KILN_DROPPED);
            check_plan(&plan, name, totals);
            kiln_plan_close(&plan);
        }
        kiln_table_destroy(stage);
    }
    kiln_table_destroy(table);
}

TEST_WITHIN(stages_go_through_micro_batches_in_1f1b_order, 300) {
    struct totals totals = {0};
    for (size_t layers = 2; layers <= MAX_LAYERS; layers += 5) {
        for (size_t stages = 2; stages <= layers && stages <= 5; stages++) {
            try_stages((struct kiln_device_choice){.id = KILN_CPU}, layers, stages, &totals);
            try_stages((struct kiln_device_choice){.id = KILN_SIM, .extras = true}, layers, stages,
                       &totals);
        }
    }
    say(&totals);
    CHECK(totals.plans > 500 && totals.restarts > 100);
}

TEST(the_order_of_1f1b_is_known) {
    /* Three stages, four micro-batches: PipeDream's figure of 1F1B. */
    static const char *const expected[] = {"F0F1F2B0F3B1B2B3", "F0F1B0F2B1F3B2B3",
                                           "F0B0F1B1F2B2F3B3"};
    for (size_t number = 0; number < 3; number++) {
        struct kiln_plan_group groups[] = {{.pass = KILN_PLAN_FORWARD, .end = 1},
                                           {.pass = KILN_PLAN_BACKWARD, .end = 1}};
        const unsigned char keep = KILN_FULL;
        const struct kiln_schedule_plan plan = {
            .limits = {.compile = SIZE_MAX, .load = SIZE_MAX, .group = SIZE_MAX, .layers = 1},
            .layers = 1,
            .held = 1,
            .lead = 2 - number,
            .one_batch = true,
            .refreshes = true,
            .keep = &keep,
            .groups = {.at = groups, .n = 2, .n_forward = 1}};
        unsigned char has = 0;
        struct kiln_process p = {.has = &has};
        struct kiln_position at = {.micro_batches = 4};
        char order[64] = "";
        for (size_t n = 0;;) {
            const struct kiln_plan_action a = kiln_schedule_next(&plan, &p, &at);
            if (a.what == KILN_STEP_DONE) {
                break;
            }
            if (a.what == KILN_FORWARD_GROUP || a.what == KILN_BACKWARD_GROUP) {
                order[n++] = a.what == KILN_FORWARD_GROUP ? 'F' : 'B';
                order[n++] = (char)('0' + a.micro_batch);
            }
            kiln_schedule_apply(&plan, &p, &at, &a);
        }
        CHECK_STRING(order, expected[number]);
    }
}
