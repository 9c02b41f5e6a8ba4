/* SPDX-License-Identifier: MIT
 *
 * test_executor.c: the executor on a device that computes nothing and keeps books: which kernels
 * were compiled, from which weights, and whether each call finds those that it runs. So the extra
 * kernels of a Neural Engine are held against the plan without one.
 */
#include "train/executor.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kiln_test.h"

enum { MAX_LAYERS = 12, WINDOWS = 7 };

/* loaded[kind][layer]: the generation of weights it was compiled from, from 1; 0: not loaded. */
struct fake {
    struct kiln_device base;
    unsigned loaded[KILN_KINDS][MAX_LAYERS], generation;
    size_t compile_limit, load_limit, heads;
};

static struct fake *fake_of(struct kiln_device *device) { return (struct fake *)device; }

static enum kiln_status fake_compile(struct kiln_device *device, size_t set, size_t kind,
                                     size_t layer, const struct kiln_weights *weights,
                                     struct kiln_err *err) {
    (void)set;
    struct fake *f = fake_of(device);
    const struct kiln_kernel_kind *k = &device->caps.kinds[kind];
    (void)weights;
    CHECK(kind < KILN_KINDS && layer < device->table->dims.layers && k->compiles > 0);
    CHECK_EQ(f->loaded[kind][layer], 0);
    device->counts.compiles += k->compiles;
    device->counts.loaded += k->loads;
    KILN_REQUIRE(device->counts.compiles <= f->compile_limit, err, KILN_EBUDGET,
                 "%s of layer %zu is beyond the compile budget", k->name, layer);
    KILN_REQUIRE(device->counts.loaded <= f->load_limit, err, KILN_EBUDGET,
                 "%s of layer %zu is beyond the load budget", k->name, layer);
    f->loaded[kind][layer] = f->generation;
    return KILN_OK;
}

static void fake_release(struct kiln_device *device, size_t set, size_t kind, size_t layer) {
    (void)set;
    struct fake *f = fake_of(device);
    if (f->loaded[kind][layer] > 0) {
        device->counts.loaded -= device->caps.kinds[kind].loads;
        f->loaded[kind][layer] = 0;
    }
}

/* The kernel is there, and of these weights if it has any. */
static void needs(struct kiln_device *device, enum kiln_kind kind, size_t layer) {
    struct fake *f = fake_of(device);
    const struct kiln_kernel_kind *k = &device->caps.kinds[kind];
    unsigned found = 0;
    for (size_t l = 0; l < device->table->dims.layers; l++) {
        const bool this_one = k->per_layer || k->weights ? l == layer : true;
        found = this_one && f->loaded[kind][l] > found ? f->loaded[kind][l] : found;
    }
    if (k->compiles > 0 && (found == 0 || (k->weights && found != f->generation))) {
        FAIL("%s of layer %zu runs, and is of generation %u of %u", k->name, layer, found,
             f->generation);
    }
}

static enum kiln_status fake_forward(struct kiln_device *device, size_t layer, enum kiln_half half,
                                     const void *x_in, void *x_out, void *taps, bool keep,
                                     struct kiln_err *err) {
    (void)x_in;
    (void)x_out;
    (void)taps;
    (void)keep;
    (void)err;
    needs(device, half == KILN_ATTENTION ? KILN_ATTN_FWD : KILN_FFN_FWD, layer);
    device->counts.layer_forwards += half == KILN_ATTENTION;
    return KILN_OK;
}

static enum kiln_status fake_backward(struct kiln_device *device, size_t layer, enum kiln_half half,
                                      const void *x_in, void *dx, const void *taps,
                                      struct kiln_err *err) {
    (void)x_in;
    (void)dx;
    (void)taps;
    (void)err;
    needs(device, KILN_NORM_BWD, layer);
    if (half == KILN_FEED_FORWARD) {
        needs(device, KILN_FFN_BWD, layer);
        return KILN_OK;
    }
    needs(device, KILN_ATTN_BWD1, layer);
    needs(device, KILN_ATTN_BWD2, layer);
    needs(device, KILN_QKV_BWD, layer);
    return KILN_OK;
}

static enum kiln_status fake_head(struct kiln_device *device, const void *x,
                                  const uint32_t *targets, float scale, void *dx, double *loss,
                                  struct kiln_err *err) {
    (void)x;
    (void)targets;
    (void)scale;
    (void)dx;
    (void)err;
    needs(device, KILN_CLASSIFY, device->table->dims.layers - 1);
    needs(device, KILN_SOFTMAX, device->table->dims.layers - 1);
    fake_of(device)->heads++;
    *loss = 1;
    return KILN_OK;
}

static enum kiln_status fake_embed(struct kiln_device *device, const uint32_t *tokens, void *x,
                                   struct kiln_err *err) {
    (void)device;
    (void)tokens;
    (void)x;
    (void)err;
    return KILN_OK;
}

static enum kiln_status fake_embed_backward(struct kiln_device *device, const uint32_t *tokens,
                                            const void *dx, struct kiln_err *err) {
    (void)device;
    (void)tokens;
    (void)dx;
    (void)err;
    return KILN_OK;
}

static enum kiln_status fake_drain(struct kiln_device *device, struct kiln_err *err) {
    (void)device;
    (void)err;
    return KILN_OK;
}

static const struct kiln_device_ops fake_ops = {
    .compile = fake_compile,
    .release = fake_release,
    .embed = fake_embed,
    .forward = fake_forward,
    .backward = fake_backward,
    .head = fake_head,
    .embed_backward = fake_embed_backward,
    .drain = fake_drain,
};

static void no_batch(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets,
                     uint32_t *starts) {
    (void)starts;
    (void)context;
    (void)index;
    (void)tokens;
    (void)targets;
}

/* A window or an evaluation; what the device did is what the process was said to have done. */
static void window(struct kiln_executor *x, struct fake *f, bool evaluate, size_t micro_batches,
                   size_t *compiles) {
    struct kiln_err err;
    struct kiln_plan_action a;
    kiln_executor_begin(x, evaluate, micro_batches, no_batch, NULL);
    f->heads = 0;
    do {
        a = kiln_executor_next(x);
        CHECK(a.what != KILN_ERROR);
        f->generation += a.what == KILN_UPDATE;
        *compiles += a.what == KILN_COMPILE_GROUP ? a.kernels : 0;
        CHECK_OK(kiln_executor_do(x, &a, &err), &err);
        if (a.what == KILN_RESTART) {
            CHECK_EQ(f->base.counts.loaded, 0);
            f->base.counts.compiles = 0; /* a fresh process */
        }
        CHECK_EQ(f->base.counts.loaded, x->process.loaded);
        if (f->compile_limit != SIZE_MAX) {
            CHECK_EQ(f->base.counts.compiles, x->process.compiled);
        }
    } while (a.what != KILN_STEP_DONE);
    CHECK_EQ(f->heads, micro_batches);
}

/* Windows of a plan on the fake; returns the compiles of the last one. */
static size_t run_plan(const struct kiln_table *table, const struct kiln_plan *plan) {
    struct kiln_executor x;
    struct kiln_err err;
    const struct kiln_device_options options = kiln_plan_device(plan->request);
    struct fake f = {.generation = 1,
                     .compile_limit = plan->schedule.limits.compile,
                     .load_limit = plan->schedule.limits.load};
    size_t compiles = 0;
    f.base.ops = &fake_ops;
    f.base.table = table;
    kiln_device_kinds(&table->dims, &options, f.base.caps.kinds);
    CHECK_OK(kiln_executor_open(&x, plan, &f.base, NULL, &err), &err);
    const size_t held_bytes = plan->layout.held * plan->layout.micro_batch;
    unsigned char *held = plan->layout.in_state ? kiln_alloc(held_bytes, 1) : NULL;
    x.held = held != NULL ? held : x.held;
    window(&x, &f, true, 2, &compiles);
    for (size_t i = 0; i < WINDOWS; i++) {
        compiles = 0;
        window(&x, &f, false, plan->accum, &compiles);
        if (i % 3 == 1) {
            window(&x, &f, true, 1, &compiles);
        }
    }
    kiln_executor_close(&x);
    kiln_free(held);
    return compiles;
}

static struct kiln_plan_request request_of(size_t layers, size_t vocab, size_t budget) {
    struct kiln_plan_request r = {.dims = kiln_preset_find("stories15m")->dims,
                                  .device = {.id = KILN_SIM, .extras = true},
                                  .batch = 1,
                                  .seq = 16,
                                  .accum = 3,
                                  .budget = budget,
                                  .load_budget = budget,
                                  .precision = KILN_PRECISION_FP16,
                                  .threads = 1,
                                  .profile = {.tflops = 0.2, .compile_s = 0.01, .restart_s = 0.05}};
    r.dims.layers = layers;
    r.dims.vocab = vocab;
    return r;
}

TEST_WITHIN(a_device_with_extras_compiles_what_the_plan_says, 300) {
    static const char *const policies[] = {"all", "boundary", "sqrt", "inputs", "none"};
    static const size_t vocabularies[] = {500, 40000, 70000};
    static const size_t budgets[] = {0, 119, 60, 40, 20, 14, 11};
    size_t plans = 0;
    struct kiln_err err;
    for (size_t layers = 1; layers <= MAX_LAYERS; layers += 3) {
        for (size_t i = 0; i < 2 * 5 * 7; i++) {
            struct kiln_plan_request r =
                request_of(layers, vocabularies[(layers / 3 + i) % 3], budgets[i / 10]);
            struct kiln_table *table;
            struct kiln_plan plan;
            r.schedule = i % 2 ? KILN_SCHEDULE_WHOLE : KILN_SCHEDULE_SPLIT;
            CHECK_OK(kiln_keep_parse(policies[i / 2 % 5], &r.keep, &err), &err);
            CHECK_OK(kiln_table_create(&r.dims, &table, &err), &err);
            const enum kiln_status status = kiln_plan_open(table, &r, &plan, &err);
            CHECK(status == KILN_OK || (status == KILN_EBUDGET && r.budget <= 20));
            if (status == KILN_OK) {
                run_plan(table, &plan);
                kiln_plan_close(&plan);
                plans++;
            }
            kiln_table_destroy(table);
        }
    }
    printf("      %zu plans\n", plans);
    CHECK(plans > 150);
}

/* stories110m as published: 12 layers of seven kernels with weights, the final norm, two parts of
 * the classifier; attn_bwd2 and softmax. */
TEST(a_window_of_twelve_layers_compiles_89_kernels) {
    struct kiln_plan_request r = request_of(12, 32000, 119);
    struct kiln_table *table;
    struct kiln_plan plan;
    struct kiln_err err;
    r.headroom_millionths = 100000;
    r.schedule = KILN_SCHEDULE_SPLIT;
    CHECK_OK(kiln_table_create(&r.dims, &table, &err), &err);
    CHECK_OK(kiln_plan_open(table, &r, &plan, &err), &err);
    CHECK_CLOSE(plan.cost.compiles, 12 * 7 + 1 + 2 + 1 + 1, 0);
    CHECK_CLOSE(plan.cost.restarts, 1, 0);
    CHECK_EQ(run_plan(table, &plan), 89);
    kiln_plan_close(&plan);
    kiln_table_destroy(table);
}

TEST(dynamic_weights_compile_nothing_in_a_window) {
    struct kiln_plan_request r = request_of(4, 500, 119);
    struct kiln_table *table;
    struct kiln_plan plan;
    struct kiln_err err;
    r.device = (struct kiln_device_choice){.id = KILN_SIM, .dynamic = true};
    for (int i = 0; i < 2; i++) {
        r.schedule = i ? KILN_SCHEDULE_WHOLE : KILN_SCHEDULE_SPLIT;
        CHECK_OK(kiln_keep_parse(i ? "none" : "sqrt", &r.keep, &err), &err);
        CHECK_OK(kiln_table_create(&r.dims, &table, &err), &err);
        CHECK_OK(kiln_plan_open(table, &r, &plan, &err), &err);
        CHECK(plan.schedule.refreshes);
        CHECK_CLOSE(plan.cost.compiles, 0, 0);
        CHECK_CLOSE(plan.cost.restarts, 0, 0);
        CHECK_EQ(run_plan(table, &plan), 0);
        kiln_plan_close(&plan);
        kiln_table_destroy(table);
    }
    r.budget = 9;
    CHECK_OK(kiln_table_create(&r.dims, &table, &err), &err);
    CHECK_FAILS(kiln_plan_open(table, &r, &plan, &err), KILN_EBUDGET, &err);
    CHECK_CONTAINS(err.message, "10 programs are compiled once a process");
    kiln_table_destroy(table);
}

/* What is compiled beside an update waits for it: nothing that is compiled later may need the room
 * of what is not compiled yet, or the update would never begin. */
static void compile_behind(const struct kiln_plan *plan, struct kiln_process *p, bool evaluate,
                           size_t *compiles) {
    struct kiln_position at = {.evaluate = evaluate, .micro_batches = evaluate ? 2 : plan->accum};
    unsigned char before[MAX_LAYERS];
    for (;;) {
        const struct kiln_plan_action a = kiln_schedule_next(&plan->schedule, p, &at);
        const bool shared = p->shared;
        if (a.what != KILN_COMPILE_GROUP) {
            return;
        }
        memcpy(before, p->has, plan->schedule.layers);
        kiln_schedule_apply(&plan->schedule, p, &at, &a);
        for (size_t l = 0; l < plan->schedule.layers; l++) {
            CHECK((before[l] & ~p->has[l]) == 0);
        }
        CHECK(*compiles == 0 || !shared || p->shared);
        ++*compiles;
    }
}

TEST_WITHIN(what_is_compiled_behind_an_update_pushes_nothing_out, 120) {
    static const char *const policies[] = {"all", "boundary", "sqrt", "inputs", "none"};
    size_t plans = 0, most = 0;
    struct kiln_err err;
    for (size_t i = 0; i < 12 * 5 * 2 * 14; i++) {
        struct kiln_plan_request r =
            request_of(1 + i % 12, i % 3 ? 500 : 40000, i % 2 ? 0 : 11 + i / 120 * 9);
        struct kiln_table *table;
        struct kiln_plan plan;
        unsigned char has[MAX_LAYERS] = {0};
        struct kiln_process p = {.has = has, .shared = true};
        r.load_budget = i % 4 == 2 ? 1000 : 11 + i / 60 * 5;
        r.overlap = KILN_OVERLAP_EXACT;
        r.schedule = i / 5 % 2 ? KILN_SCHEDULE_WHOLE : KILN_SCHEDULE_SPLIT;
        CHECK_OK(kiln_keep_parse(policies[i / 12 % 5], &r.keep, &err), &err);
        CHECK_OK(kiln_table_create(&r.dims, &table, &err), &err);
        const enum kiln_status status = kiln_plan_open(table, &r, &plan, &err);
        CHECK(status == KILN_OK || status == KILN_EBUDGET);
        if (status == KILN_OK) {
            size_t compiles = 0;
            p.shared = !plan.schedule.limits.whole; /* it does not go stale */
            p.compiled = p.loaded = p.shared ? plan.schedule.limits.shared : 0;
            compile_behind(&plan, &p, true, &compiles);
            compile_behind(&plan, &p, false, &compiles);
            most = compiles > most ? compiles : most;
            kiln_plan_close(&plan);
            plans++;
        }
        kiln_table_destroy(table);
    }
    printf("      %zu plans, up to %zu groups\n", plans, most);
    CHECK(plans > 500 && most > 1);
}
