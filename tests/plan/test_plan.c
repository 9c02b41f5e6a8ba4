/* SPDX-License-Identifier: MIT
 *
 * test_plan.c: budgets, groups, what is kept, FLOPs and bytes, against numbers worked out by hand.
 */
#include "kiln/plan.h"

#include <stdio.h>

#include "kiln_test.h"
#include "plan/plan.h"
#include "plan/plan_lab.h"
#include "state/state.h"

static struct kiln_plan_request request_of(const char *preset) {
    return plan_request(preset, KILN_SCHEDULE_SPLIT);
}

static void check_group(const struct kiln_estimate *e, size_t i, enum kiln_plan_pass pass,
                        size_t first, size_t end, size_t kernels) {
    CHECK(i < e->n_groups);
    CHECK_EQ(e->groups[i].pass, pass);
    CHECK_EQ(e->groups[i].first, first);
    CHECK_EQ(e->groups[i].end, end);
    CHECK_EQ(e->groups[i].kernels, kernels);
}

TEST(a_usable_budget_is_rounded_down_in_integers) {
    CHECK_EQ(kiln_usable_budget(119, 100000), 107);
    CHECK_EQ(kiln_usable_budget(119, 0), 119);
    CHECK_EQ(kiln_usable_budget(119, 50000), 113);
    CHECK_EQ(kiln_usable_budget(119, 200000), 95);
    CHECK_EQ(kiln_usable_budget(10, 900000), 1);
    CHECK_EQ(kiln_usable_budget(10, 1000000), 0);
    CHECK_EQ(kiln_usable_budget(SIZE_MAX, 0), SIZE_MAX);
}

TEST(whole_7b_is_two_groups_in_each_pass) {
    struct kiln_plan_request r = request_of("llama7b");
    r.schedule = KILN_SCHEDULE_WHOLE;
    struct kiln_estimate e = estimate_of(&r);
    CHECK_EQ(e.usable, 107);
    CHECK_EQ(e.n_groups, 4);
    check_group(&e, 0, KILN_PLAN_FORWARD, 0, 17, 102);
    check_group(&e, 1, KILN_PLAN_FORWARD, 17, 32, 90);
    check_group(&e, 2, KILN_PLAN_BACKWARD, 17, 32, 90);
    check_group(&e, 3, KILN_PLAN_BACKWARD, 0, 17, 102);
    CHECK_CLOSE(e.compiles, 384, 0);
    CHECK_CLOSE(e.restarts, 4, 0);
    kiln_estimate_free(&e);
    r.accum = 3; /* a micro-batch at a time */
    e = estimate_of(&r);
    CHECK_CLOSE(e.compiles, 3 * 384, 0);
    CHECK_CLOSE(e.restarts, 12, 0);
    kiln_estimate_free(&e);
}

TEST(split_7b_compiles_as_often_for_any_accum) {
    struct kiln_plan_request r = request_of("llama7b");
    for (r.accum = 1; r.accum <= 8; r.accum += 7) {
        struct kiln_estimate e = estimate_of(&r);
        CHECK_EQ(e.n_groups, 2);
        check_group(&e, 0, KILN_PLAN_FORWARD, 0, 32, 64);
        check_group(&e, 1, KILN_PLAN_BACKWARD, 0, 32, 97);
        CHECK_CLOSE(e.compiles, 161, 0);
        CHECK_CLOSE(e.restarts, 2, 0);
        kiln_estimate_free(&e);
    }
}

/* Layers of the first whole group of a 40-layer model. */
static size_t whole_layers(size_t budget, uint64_t headroom) {
    struct kiln_plan_request r = request_of("stories15m");
    r.schedule = KILN_SCHEDULE_WHOLE;
    r.dims.layers = 40;
    r.budget = r.load_budget = budget;
    r.headroom_millionths = headroom;
    struct kiln_estimate e = estimate_of(&r);
    const size_t layers = e.groups[0].end;
    kiln_estimate_free(&e);
    return layers;
}

TEST(headroom_and_budget_set_the_layers_of_a_group) {
    CHECK_EQ(whole_layers(119, 100000), 17);
    CHECK_EQ(whole_layers(119, 50000), 18);
    CHECK_EQ(whole_layers(119, 200000), 15);
    CHECK_EQ(whole_layers(102, 0), 17);
    CHECK_EQ(whole_layers(101, 0), 16);
}

TEST(seventeen_layers_are_one_whole_group_and_eighteen_two) {
    struct kiln_plan_request r = request_of("stories15m");
    r.schedule = KILN_SCHEDULE_WHOLE;
    for (r.dims.layers = 17; r.dims.layers <= 18; r.dims.layers++) {
        struct kiln_estimate e = estimate_of(&r);
        CHECK_EQ(e.n_groups, r.dims.layers == 17 ? 2 : 4);
        kiln_estimate_free(&e);
    }
}

TEST(windows_share_processes_where_they_fit) {
    /* 12 layers: 24 + 36 + 1 kernels, 61 of 107: each window needs a process of its own. */
    struct kiln_plan_request r = request_of("stories110m");
    struct kiln_estimate e = estimate_of(&r);
    CHECK_EQ(e.held, 1);
    CHECK_CLOSE(e.compiles, 61, 0);
    CHECK_CLOSE(e.restarts, 1, 0);
    kiln_estimate_free(&e);
    /* 6 layers: 31, then 30 and 30 in the same process, whose weightless kernel stays. */
    r = request_of("stories15m");
    e = estimate_of(&r);
    CHECK_CLOSE(e.compiles, 91.0 / 3, 1e-12);
    CHECK_CLOSE(e.restarts, 1.0 / 3, 1e-12);
    kiln_estimate_free(&e);
}

TEST(a_layer_that_can_never_fit_is_an_error_with_numbers) {
    struct kiln_plan_request r = request_of("stories15m");
    struct kiln_estimate e;
    struct kiln_err err;
    r.budget = 4; /* 3 usable; a backward group takes 4 */
    CHECK_FAILS(kiln_estimate(&r, false, &e, &err), KILN_EBUDGET, &err);
    CHECK_CONTAINS(err.message, "needs 4 kernels");
    CHECK_CONTAINS(err.message, "budget of 4");
    r.budget = 119;
    r.load_budget = 6;
    r.schedule = KILN_SCHEDULE_WHOLE;
    CHECK_FAILS(kiln_estimate(&r, false, &e, &err), KILN_EBUDGET, &err);
    CHECK_CONTAINS(err.message, "--load-budget");
    r.load_budget = 119;
    r.headroom_millionths = 1000000;
    CHECK_FAILS(kiln_estimate(&r, false, &e, &err), KILN_EUSAGE, &err);
}

TEST(without_a_budget_the_cpu_compiles_nothing_again) {
    struct kiln_plan_request r = request_of("llama7b");
    r.budget = r.load_budget = 0;
    r.refreshes = true;
    struct kiln_estimate e = estimate_of(&r);
    CHECK_EQ(e.usable, 0);
    CHECK_EQ(e.n_groups, 2);
    CHECK_CLOSE(e.compiles, 0, 0);
    CHECK_CLOSE(e.restarts, 0, 0);
    kiln_estimate_free(&e);
}

/* ---- what is kept -----------------------------------------------------------------------------
 */

/* The kept layers, as "0 5 10", of a model of that many layers. */
static void check_kept(size_t layers, const char *policy, size_t count, size_t again,
                       const char *list) {
    struct kiln_plan_request r = request_of("stories15m");
    struct kiln_err err;
    char text[512] = "";
    r.dims.layers = layers;
    CHECK_OK(kiln_keep_parse(policy, &r.keep, &err), &err);
    struct kiln_estimate e = estimate_of(&r);
    for (size_t i = 0, used = 0; i < e.kept_count; i++) {
        used +=
            (size_t)snprintf(text + used, sizeof text - used, i == 0 ? "%zu" : " %zu", e.kept[i]);
    }
    CHECK_EQ(e.kept_count, count);
    CHECK_EQ(e.extra_forward_layers, again);
    if (list != NULL) {
        CHECK_STRING(text, list);
    }
    kiln_estimate_free(&e);
}

TEST(kept_layers_are_counted_from_the_set) {
    check_kept(32, "every:5", 8, 24, "0 5 10 15 20 25 30 31");
    check_kept(32, "every", 9, 23, "0 4 8 12 16 20 24 28 31");
    check_kept(32, "sqrt", 8, 24, NULL);
    check_kept(22, "sqrt", 7, 15, NULL);
    check_kept(12, "sqrt", 5, 7, "0 3 6 9 11");
    check_kept(1, "boundary", 1, 0, "0");
    check_kept(32, "boundary", 2, 30, "0 31");
    check_kept(60, "boundary", 3, 57, "0 53 59");
    check_kept(32, "all", 32, 0, NULL);
    check_kept(32, "inputs", 0, 32, "");
    check_kept(32, "none", 0, 32, "");
}

TEST(policies_are_read_and_named) {
    static const char *const good[] = {"all",     "boundary", "sqrt", "every:1",
                                       "every:7", "inputs",   "none", "auto"};
    static const char *const bad[] = {"", "every:0", "every:", "every:-1", "every:70000", "some"};
    struct kiln_keep keep;
    struct kiln_err err;
    char name[32];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CHECK_OK(kiln_keep_parse(good[i], &keep, &err), &err);
        CHECK_STRING(kiln_keep_name(keep, name), good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_FAILS(kiln_keep_parse(bad[i], &keep, &err), KILN_EUSAGE, &err);
    }
}

/* Every layer once in each pass, every group within the budget, every dropped layer run again
 * once; actions that never go over the budget. */
static void check_sound(const struct kiln_plan_request *r) {
    struct kiln_estimate e = estimate_of(r);
    size_t forward = 0, again = 0, backward = r->dims.layers;
    for (size_t i = 0; i < e.n_groups; i++) {
        const struct kiln_plan_group *g = &e.groups[i];
        CHECK(g->first < g->end);
        CHECK(g->kernels <= e.usable);
        if (g->pass == KILN_PLAN_FORWARD) {
            CHECK_EQ(g->first, forward);
            forward = g->end;
        } else {
            CHECK_EQ(g->end, backward);
            backward = g->first;
            again += g->recomputed;
        }
    }
    CHECK_EQ(forward, r->dims.layers);
    CHECK_EQ(backward, 0);
    CHECK_EQ(again, e.extra_forward_layers);
    for (size_t i = 0; i < e.n_actions; i++) {
        CHECK(e.actions[i].left <= e.usable);
    }
    kiln_estimate_free(&e);
}

TEST(every_plan_covers_every_layer_within_its_budget) {
    static const char *const policies[] = {"all",     "boundary", "sqrt", "every:4",
                                           "every:9", "inputs",   "none"};
    struct kiln_plan_request r = request_of("stories15m");
    struct kiln_err err;
    r.headroom_millionths = 0;
    for (r.dims.layers = 1; r.dims.layers <= 40; r.dims.layers += 3) {
        for (r.budget = 6; r.budget <= 130; r.budget += 7) {
            for (int i = 0; i < 14; i++) {
                r.schedule = i < 7 ? KILN_SCHEDULE_SPLIT : KILN_SCHEDULE_WHOLE;
                r.load_budget = r.budget;
                CHECK_OK(kiln_keep_parse(policies[i % 7], &r.keep, &err), &err);
                check_sound(&r);
            }
        }
    }
}

TEST(kernels_kept_from_the_forward_pass_are_not_compiled_again) {
    /* 7B, sqrt: 64 forward; [20,32) behind them in the same process, 37 with the layers' forward
     * kernels still loaded; [0,20) in the next one, 60 + 1 + 16 layers' forward kernels. */
    struct kiln_plan_request r = request_of("llama7b");
    r.keep.kind = KILN_KEEP_SQRT;
    struct kiln_estimate e = estimate_of(&r);
    CHECK_EQ(e.n_groups, 3);
    check_group(&e, 2, KILN_PLAN_BACKWARD, 0, 20, 93);
    CHECK_CLOSE(e.compiles, 64 + 37 + 93, 0);
    CHECK_CLOSE(e.restarts, 2, 0);
    kiln_estimate_free(&e);
}

/* ---- another device ----------------------------------------------------------------------------
 */

TEST(extras_are_published_kernels_and_belong_to_the_last_layer) {
    struct kiln_plan_request r = request_of("stories110m");
    r.device = (struct kiln_device_choice){.id = KILN_ANE, .extras = true};
    r.precision = KILN_PRECISION_FP16;
    struct kiln_estimate e = estimate_of(&r);
    CHECK_EQ(e.n_groups, 2);
    check_group(&e, 0, KILN_PLAN_FORWARD, 0, 12, 24 + 3 + 2);
    check_group(&e, 1, KILN_PLAN_BACKWARD, 0, 12, 60 + 2);
    CHECK_CLOSE(e.compiles, 87 + 2, 0); /* with weights, and without */
    CHECK_CLOSE(e.flops.device, 93.013e9 + 37.749e9 / 3, 2e6);
    kiln_estimate_free(&e);
    /* The vocabulary is one axis too large for softmax: no shared kernel on the way forward. */
    r.dims.vocab = 65537;
    e = estimate_of(&r);
    check_group(&e, 0, KILN_PLAN_FORWARD, 0, 12, 24 + 1 + 5);
    check_group(&e, 1, KILN_PLAN_BACKWARD, 0, 12, 60 + 1);
    kiln_estimate_free(&e);
    /* In `whole` each layer has its own attn_bwd2, the last one all that runs behind it. */
    r = request_of("stories15m");
    r.device = (struct kiln_device_choice){.id = KILN_SIM, .extras = true};
    r.precision = KILN_PRECISION_FP16;
    r.schedule = KILN_SCHEDULE_WHOLE;
    e = estimate_of(&r);
    check_group(&e, 0, KILN_PLAN_FORWARD, 0, 6, 6 * 8 + 3 + 1);
    CHECK_CLOSE(e.compiles, 2 * 52, 0);
    kiln_estimate_free(&e);
}

TEST(a_last_layer_that_can_never_fit_is_an_error_too) {
    struct kiln_plan_request r = request_of("stories15m");
    struct kiln_estimate e;
    struct kiln_err err;
    r.device = (struct kiln_device_choice){.id = KILN_SIM, .extras = true};
    r.precision = KILN_PRECISION_FP16;
    r.dims.vocab = 60000; /* 2 forward kernels, final norm, 4 parts; softmax and attn_bwd2 */
    r.headroom_millionths = 0;
    r.budget = r.load_budget = 8;
    CHECK_FAILS(kiln_estimate(&r, false, &e, &err), KILN_EBUDGET, &err);
    CHECK_CONTAINS(err.message, "needs 9 kernels");
    r.budget = r.load_budget = 9;
    e = estimate_of(&r);
    kiln_estimate_free(&e);
}

/* Bytes over surfaces are those of the passes that a window makes. */
TEST(traffic_is_summed_over_the_passes_of_a_window) {
    struct kiln_plan_request r = request_of("stories15m"); /* 6 layers, 2 of them dropped */
    struct kiln_table *table;
    struct kiln_plan plan;
    struct kiln_err err;
    r.accum = 4;
    r.keep.kind = KILN_KEEP_SQRT;
    CHECK_OK(kiln_table_create(&r.dims, &table, &err), &err);
    CHECK_OK(kiln_plan_open(table, &r, &plan, &err), &err);
    CHECK_CLOSE(plan.cost.written + plan.cost.read, 0, 0); /* the cpu has no surfaces */
    plan.traffic = (struct kiln_device_traffic){.forward_kept = {1, 10},
                                                .forward = {100, 1000},
                                                .backward = {1e4, 1e5},
                                                .head = {1e6, 1e7},
                                                .head_evaluate = {1e8, 1e9},
                                                .weights = {1e10, 1e11}};
    CHECK_OK(kiln_simulate(&plan, NULL, &err), &err);
    /* Forward 4 kept and 2 not, those again, 6 backward, the loss: four times; then the update. */
    CHECK_CLOSE(plan.cost.written, 4 * (6 * 1 + 2 * 100 + 6 * 1e4 + 1e6) + 1e10, 0);
    CHECK_CLOSE(plan.cost.read, 4 * (6 * 10 + 2 * 1000 + 6 * 1e5 + 1e7) + 1e11, 0);
    kiln_plan_close(&plan);
    r.forward_only = true;
    CHECK_OK(kiln_plan_open(table, &r, &plan, &err), &err);
    plan.traffic = (struct kiln_device_traffic){.forward = {100, 1000}, .head_evaluate = {5, 7}};
    CHECK_OK(kiln_simulate(&plan, NULL, &err), &err);
    CHECK_CLOSE(plan.cost.written, 4 * (6 * 100 + 5), 0);
    CHECK_CLOSE(plan.cost.read, 4 * (6 * 1000 + 7), 0);
    kiln_plan_close(&plan);
    kiln_table_destroy(table);
}

/* ---- FLOPs and bytes ---------------------------------------------------------------------------
 */

TEST(flops_of_stories110m_are_as_published) {
    const struct kiln_flops f = kiln_plan_flops(&kiln_preset_find("stories110m")->dims, 1, 256);
    CHECK_CLOSE(f.forward * 1e-9, 43.487, 5e-4);
    CHECK_CLOSE(f.dx * 1e-9, 43.487, 5e-4);
    CHECK_CLOSE(f.dw * 1e-9, 43.487, 5e-4);
    CHECK_CLOSE(f.attention * 1e-9, 6.040, 5e-4);
    CHECK_CLOSE(f.classifier * 1e-9, 37.749, 5e-4);
    CHECK_CLOSE(f.total * 1e-9, 174.248, 1e-3);
    CHECK_CLOSE(f.device * 1e-9, 93.013, 1e-3);
    CHECK_CLOSE(f.host, f.total - f.device, 1);
}

TEST(memory_adds_up_and_is_that_of_the_parts) {
    struct kiln_plan_request r = request_of("stories110m");
    struct kiln_estimate e = estimate_of(&r);
    const uint64_t n = 256, residual = n * 768 * 4;
    const uint64_t taps = n * (4 * 768 * 2 + 12 * 4 + 2 * 2048 * 2);
    const struct kiln_memory *m = &e.memory;
    CHECK_EQ(m->activations_kept, 12 * (2 * residual + taps));
    CHECK_EQ(m->activations_live, 3 * residual); /* the flow, and two that take turns */
    CHECK_EQ(m->total, m->weights + m->moments + m->gradients + m->kernels + m->journal +
                           m->activations_kept + m->activations_live + m->workspace + m->gpu +
                           m->process);
    struct kiln_table *table = NULL;
    struct kiln_err err;
    CHECK_OK(kiln_table_create(&r.dims, &table, &err), &err);
    CHECK_EQ(m->state_file, kiln_state_bytes(table, KILN_PRECISION_AUTO, false));
    CHECK_EQ(e.parameters, table->parameters);
    kiln_table_destroy(table);
    kiln_estimate_free(&e);
}
