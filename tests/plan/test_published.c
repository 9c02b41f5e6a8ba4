/* SPDX-License-Identifier: MIT
 *
 * test_published.c: what the published pipeline program tests of its planner, asked of ours, as
 * far as no other test does. docs/published-tests.md has the list, and where we answer otherwise.
 */
#include <stdio.h>

#include "kiln/settings.h"
#include "kiln/train.h"
#include "kiln_test.h"
#include "plan/plan.h"
#include "plan/plan_lab.h"

static struct kiln_plan_request request_of(const char *preset) {
    return plan_request(preset, KILN_SCHEDULE_WHOLE); /* the published scheme */
}

static void keep(struct kiln_plan_request *r, const char *policy) {
    struct kiln_err err;
    CHECK_OK(kiln_keep_parse(policy, &r->keep, &err), &err);
}

/* ---- sizes and presets -------------------------------------------------------------------------
 */

TEST(sizes_that_follow_from_others_are_those_of_the_model) {
    struct kiln_plan_request r = request_of("stories110m");
    struct kiln_table *table;
    struct kiln_err err;
    CHECK_EQ(r.dims.head_size, 64);
    for (r.dims.kv_heads = 12; r.dims.kv_heads >= 3; r.dims.kv_heads /= 2) {
        CHECK_OK(kiln_table_create(&r.dims, &table, &err), &err);
        CHECK_EQ(kiln_table_find(table, KILN_WQ, 0)->rows, 768);
        CHECK_EQ(kiln_table_find(table, KILN_WK, 0)->rows, 64 * r.dims.kv_heads);
        CHECK_EQ(kiln_table_find(table, KILN_WV, 11)->rows, 64 * r.dims.kv_heads);
        kiln_table_destroy(table);
    }
}

static void check_preset(const char *name, size_t dim, size_t hidden, size_t heads, size_t layers,
                         size_t seq, size_t accum) {
    const struct kiln_preset *preset = kiln_preset_find(name);
    CHECK(preset != NULL);
    CHECK_EQ(preset->dims.dim, dim);
    CHECK_EQ(preset->dims.hidden, hidden);
    CHECK_EQ(preset->dims.heads, heads);
    CHECK_EQ(preset->dims.kv_heads, heads);
    CHECK_EQ(preset->dims.layers, layers);
    CHECK_EQ(preset->dims.vocab, 32000);
    CHECK_EQ(preset->dims.seq, seq);
    CHECK_EQ(preset->accum, accum);
}

TEST(presets_have_the_published_sizes) {
    check_preset("stories15m", 288, 768, 6, 6, 256, 10);
    check_preset("stories42m", 512, 1376, 8, 8, 256, 10);
    check_preset("stories110m", 768, 2048, 12, 12, 256, 10);
    check_preset("llama1b", 2048, 5504, 16, 22, 512, 4);
    check_preset("llama7b", 4096, 11008, 32, 32, 512, 2);
}

TEST(an_npu_has_the_published_budget_and_the_cpu_none) {
    const struct kiln_dims dims = kiln_preset_find("stories110m")->dims;
    struct kiln_plan_request r;
    struct kiln_settings s;
    struct kiln_err err;
    CHECK_OK(kiln_settings_init(&s, &err), &err);
    CHECK_OK(kiln_plan_request_of(&s, &dims, &r, &err), &err);
    CHECK_EQ(r.budget, 0);
    CHECK_EQ(r.load_budget, 0);
    CHECK_OK(kiln_settings_set(&s, KILN_SETTING_device, "sim", KILN_FROM_FLAG, &err), &err);
    CHECK_OK(kiln_plan_request_of(&s, &dims, &r, &err), &err);
    CHECK_EQ(r.budget, 119);
    CHECK_EQ(r.load_budget, 119);
    CHECK_EQ(r.headroom_millionths, 100000);
    kiln_settings_free(&s);
}

/* ---- memory ------------------------------------------------------------------------------------
 */

TEST(moments_are_twice_the_weights_and_nothing_that_is_there_takes_no_bytes) {
    static const char *const presets[] = {"stories15m", "stories42m", "stories110m", "llama1b",
                                          "llama7b"};
    for (size_t i = 0; i < 5; i++) {
        struct kiln_plan_request r = request_of(presets[i]);
        struct kiln_estimate e = estimate_of(&r);
        const struct kiln_memory *m = &e.memory;
        CHECK_EQ(m->moments, 2 * m->weights);
        CHECK(m->gradients >= m->weights);
        CHECK(m->kernels > 0 && m->journal > 0 && m->activations_kept > 0);
        CHECK(m->activations_live > 0 && m->workspace > 0);
        CHECK(m->total > m->weights + m->moments + m->gradients);
        CHECK(m->state_file > m->weights + m->moments + m->gradients);
        kiln_estimate_free(&e);
    }
}

static const struct kiln_policy *policy_of(const struct kiln_estimate *e,
                                           enum kiln_keep_kind kind) {
    for (size_t i = 0; i < KILN_POLICIES; i++) {
        if (e->policies[i].keep.kind == kind) {
            return &e->policies[i];
        }
    }
    FAIL("no policy of kind %d", (int)kind);
}

/* Published: what is saved is what is not kept, so the policy that keeps least saves most. Ours
 * counts what a recomputed run of layers holds at its peak, too. */
TEST(dropping_layers_saves_memory_where_runs_are_short) {
    struct kiln_plan_request r = request_of("llama7b");
    struct kiln_estimate e = estimate_of(&r); /* runs are cut at the two groups */
    CHECK(policy_of(&e, KILN_KEEP_SQRT)->bytes < policy_of(&e, KILN_KEEP_ALL)->bytes);
    CHECK(policy_of(&e, KILN_KEEP_NONE)->bytes < policy_of(&e, KILN_KEEP_ALL)->bytes);
    CHECK(policy_of(&e, KILN_KEEP_INPUTS)->bytes < policy_of(&e, KILN_KEEP_SQRT)->bytes);
    kiln_estimate_free(&e);
    r.schedule = KILN_SCHEDULE_SPLIT;
    r.budget = r.load_budget = 0;
    e = estimate_of(&r); /* nothing cuts the run of all 32 layers, and its taps live together */
    CHECK(policy_of(&e, KILN_KEEP_SQRT)->bytes < policy_of(&e, KILN_KEEP_ALL)->bytes);
    CHECK_EQ(policy_of(&e, KILN_KEEP_NONE)->bytes, policy_of(&e, KILN_KEEP_ALL)->bytes);
    kiln_estimate_free(&e);
}

/* ---- groups ------------------------------------------------------------------------------------
 */

TEST(whole_110m_is_one_group_of_72_kernels) {
    struct kiln_plan_request r = request_of("stories110m");
    struct kiln_estimate e = estimate_of(&r);
    CHECK_EQ(e.n_groups, 2); /* one, in each pass */
    for (size_t i = 0; i < 2; i++) {
        CHECK_EQ(e.groups[i].first, 0);
        CHECK_EQ(e.groups[i].end, 12);
        CHECK_EQ(e.groups[i].kernels, 72);
    }
    kiln_estimate_free(&e);
}

TEST(one_layer_is_one_group) {
    struct kiln_plan_request r = request_of("stories110m");
    r.dims.layers = 1;
    for (int i = 0; i < 2; i++) {
        r.schedule = i == 0 ? KILN_SCHEDULE_WHOLE : KILN_SCHEDULE_SPLIT;
        struct kiln_estimate e = estimate_of(&r);
        CHECK_EQ(e.n_groups, 2);
        CHECK_EQ(e.groups[0].end, 1);
        CHECK_EQ(e.groups[0].kernels, i == 0 ? 6 : 2);
        CHECK_EQ(e.groups[1].end, 1);
        kiln_estimate_free(&e);
    }
}

/* ---- what is kept ------------------------------------------------------------------------------
 */

/* The kept layers, as "0 5 10". */
static void check_kept(struct kiln_plan_request *r, const char *policy, const char *list) {
    char text[512] = "";
    keep(r, policy);
    struct kiln_estimate e = estimate_of(r);
    for (size_t i = 0, used = 0; i < e.kept_count; i++) {
        used +=
            (size_t)snprintf(text + used, sizeof text - used, i == 0 ? "%zu" : " %zu", e.kept[i]);
    }
    CHECK_STRING(text, list);
    kiln_estimate_free(&e);
}

TEST(policies_keep_the_published_layers_of_7b) {
    struct kiln_plan_request r = request_of("llama7b");
    check_kept(&r, "sqrt", "0 5 10 15 20 25 30 31");
    check_kept(&r, "every:3", "0 3 6 9 12 15 18 21 24 27 30 31");
    check_kept(&r, "every:8", "0 8 16 24 31");
    check_kept(&r, "boundary", "0 17 31"); /* groups [0,17) and [17,32) */
}

TEST(counts_are_those_of_the_set_for_every_policy) {
    static const char *const names[] = {"all",     "boundary", "sqrt", "every:4",
                                        "every:7", "inputs",   "none", "auto"};
    struct kiln_plan_request r = request_of("llama7b");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        keep(&r, names[i]);
        struct kiln_estimate e = estimate_of(&r);
        unsigned char seen[32] = {0};
        for (size_t k = 0; k < e.kept_count + e.inputs_count; k++) {
            const size_t layer = k < e.kept_count ? e.kept[k] : e.inputs[k - e.kept_count];
            CHECK(layer < 32);
            CHECK_EQ(seen[layer]++, 0);
        }
        CHECK_EQ(e.kept_count + e.extra_forward_layers, 32);
        for (size_t p = 0; p < KILN_POLICIES; p++) {
            const struct kiln_policy *line = &e.policies[p];
            CHECK_EQ(line->kept_count + line->extra_forward_layers, 32);
            if (line->keep.kind == r.keep.kind && line->keep.every == r.keep.every) {
                CHECK_EQ(line->kept_count, e.kept_count);
            }
        }
        kiln_estimate_free(&e);
    }
}

static struct kiln_plan plan_of(const struct kiln_plan_request *r, struct kiln_table **table) {
    struct kiln_plan plan;
    struct kiln_err err;
    CHECK_OK(kiln_table_create(&r->dims, table, &err), &err);
    CHECK_OK(kiln_plan_policy(*table, r, r->keep, &plan, &err), &err);
    return plan;
}

/* Published: the depth of a layer is its distance from the kept layer below, and each layer would
 * be computed from there. Ours are computed together, once, from the output of that layer. */
TEST(a_dropped_layer_begins_behind_the_full_layer_below_it) {
    struct kiln_plan_request r = request_of("llama7b");
    struct kiln_table *table;
    r.keep.kind = KILN_KEEP_SQRT;
    struct kiln_plan plan = plan_of(&r, &table);
    const unsigned char *kept = plan.schedule.keep;
    CHECK_EQ(kept[5], KILN_FULL);
    CHECK_EQ(kiln_segment_first(kept, 3), 1);
    CHECK_EQ(kiln_segment_first(kept, 7), 6);
    CHECK_EQ(kiln_segment_first(kept, 9), 6);
    CHECK_EQ(kept[1], KILN_INPUT); /* the output of layer 0 */
    CHECK_EQ(kept[2], KILN_DROPPED);
    CHECK_EQ(kept[17], KILN_INPUT); /* a `whole` group begins here */
    kiln_plan_close(&plan);
    kiln_table_destroy(table);
}

TEST(kept_blocks_lie_apart_inside_their_micro_batch) {
    static const char *const names[] = {"all", "boundary", "sqrt", "every:3", "inputs", "none"};
    struct kiln_plan_request r = request_of("llama1b");
    for (size_t i = 0; i < 2 * sizeof names / sizeof names[0]; i++) {
        struct kiln_table *table;
        r.schedule = i % 2 == 0 ? KILN_SCHEDULE_WHOLE : KILN_SCHEDULE_SPLIT;
        keep(&r, names[i / 2]);
        struct kiln_plan plan = plan_of(&r, &table);
        const struct kiln_layout *l = &plan.layout;
        size_t end = l->residual; /* the flow lies first */
        for (size_t layer = 0; layer < 22; layer++) {
            const size_t full = 2 * l->residual + l->taps[0] + l->taps[1];
            const unsigned what = plan.schedule.keep[layer];
            CHECK_EQ(l->kept_at[layer], end);
            end += what == KILN_FULL ? full : what == KILN_INPUT ? l->residual : 0;
        }
        CHECK_EQ(end, l->micro_batch);
        kiln_plan_close(&plan);
        kiln_table_destroy(table);
    }
}

/* ---- FLOPs -------------------------------------------------------------------------------------
 */

TEST(flops_grow_with_layers_and_the_device_has_a_part_of_them) {
    struct kiln_dims dims = kiln_preset_find("stories110m")->dims;
    const struct kiln_flops f = kiln_plan_flops(&dims, 1, 256);
    const struct kiln_flops smaller =
        kiln_plan_flops(&kiln_preset_find("stories42m")->dims, 1, 256);
    CHECK(smaller.total < f.total);
    CHECK(f.device > 0 && f.device < f.total);
    dims.layers *= 2;
    const struct kiln_flops twice = kiln_plan_flops(&dims, 1, 256);
    CHECK_CLOSE(twice.forward, 2 * f.forward, 0);
    CHECK_CLOSE(twice.attention, 2 * f.attention, 0);
    CHECK_CLOSE(twice.classifier, f.classifier, 0);
}

/* ---- the state machine -------------------------------------------------------------------------
 */

/* Each micro-batch forward through every layer once, then backward, then one update. */
static void check_window(const struct kiln_plan_request *r) {
    struct kiln_estimate e = estimate_of(r);
    size_t forward[8] = {0}, backward[8] = {0}, updates = 0; /* layers done, by micro-batch */
    CHECK(r->accum <= 8);
    for (size_t i = 0; i < e.n_actions; i++) {
        const struct kiln_plan_action *a = &e.actions[i];
        const size_t m = a->micro_batch;
        if (a->what == KILN_FORWARD_GROUP) {
            CHECK_EQ(forward[m], a->group.first);
            forward[m] = a->group.end;
        } else if (a->what == KILN_BACKWARD_GROUP) {
            CHECK_EQ(forward[m], r->dims.layers);
            CHECK_EQ(r->dims.layers - backward[m], a->group.end);
            backward[m] = r->dims.layers - a->group.first;
        } else if (a->what == KILN_UPDATE) {
            updates++;
            for (size_t k = 0; k < r->accum; k++) {
                CHECK_EQ(backward[k], r->dims.layers);
            }
        }
    }
    CHECK_EQ(updates, 1);
    CHECK_EQ(e.actions[e.n_actions - 2].what, KILN_UPDATE);
    CHECK_EQ(e.actions[e.n_actions - 1].what, KILN_STEP_DONE);
    kiln_estimate_free(&e);
}

TEST(a_window_takes_every_micro_batch_both_ways_and_then_updates_once) {
    static const char *const names[] = {"all", "boundary", "sqrt", "inputs", "none", "auto"};
    static const size_t budgets[] = {0, 119, 60, 24};
    struct kiln_plan_request r = request_of("stories15m");
    r.dims.layers = 9;
    for (size_t i = 0; i < 6 * 4 * 2; i++) {
        r.budget = r.load_budget = budgets[i / 6 % 4];
        r.schedule = i < 24 ? KILN_SCHEDULE_WHOLE : KILN_SCHEDULE_SPLIT;
        keep(&r, names[i % 6]);
        for (r.accum = 1; r.accum <= 7; r.accum += 3) {
            check_window(&r);
        }
    }
}

TEST(a_group_that_fits_no_process_is_an_error_and_no_endless_restart) {
    struct kiln_plan_request r = request_of("llama7b");
    struct kiln_table *table;
    struct kiln_plan plan = plan_of(&r, &table);
    unsigned char has[32] = {0};
    struct kiln_process p = {.compiled = 10, .has = has};
    const struct kiln_position at = {.micro_batches = 1};
    /* 102 kernels: 97 are left here, and a fresh process has room. */
    CHECK_EQ(kiln_schedule_next(&plan.schedule, &p, &at).what, KILN_RESTART);
    p.compiled = 0;
    CHECK_EQ(kiln_schedule_next(&plan.schedule, &p, &at).what, KILN_COMPILE_GROUP);
    plan.schedule.limits.compile = 101;
    CHECK_EQ(kiln_schedule_next(&plan.schedule, &p, &at).what, KILN_ERROR);
    p.compiled = 10;
    CHECK_EQ(kiln_schedule_next(&plan.schedule, &p, &at).what, KILN_ERROR);
    kiln_plan_close(&plan);
    kiln_table_destroy(table);
}

/* The passes of a window; with a fresh process after every `every` actions (0: never). Returns how
 * many there were, a hash of them in *hash. */
static size_t passes(const struct kiln_schedule_plan *plan, size_t accum, size_t every,
                     size_t *hash) {
    unsigned char has[32] = {0};
    struct kiln_process p = {.has = has};
    struct kiln_position at = {.micro_batches = accum};
    const struct kiln_plan_action fresh = {.what = KILN_RESTART};
    size_t n = 0;
    *hash = 0;
    CHECK(plan->layers <= sizeof has);
    for (size_t i = 1;; i++) {
        const struct kiln_plan_action a = kiln_schedule_next(plan, &p, &at);
        CHECK(a.what != KILN_ERROR);
        if (a.what == KILN_STEP_DONE) {
            return n;
        }
        if (a.what == KILN_FORWARD_GROUP || a.what == KILN_BACKWARD_GROUP) {
            *hash = (((*hash * 31 + a.what) * 31 + a.group.first) * 31 + a.group.end) * 31 +
                    a.micro_batch;
            n++;
        }
        kiln_schedule_apply(plan, &p, &at, &a);
        CHECK(p.compiled <= plan->limits.compile && p.loaded <= plan->limits.load);
        if (every > 0 && i % every == 0) {
            kiln_schedule_apply(plan, &p, &at, &fresh);
        }
    }
}

TEST(a_position_means_the_same_in_a_fresh_process) {
    static const char *const names[] = {"all", "sqrt", "inputs", "none"};
    struct kiln_plan_request r = request_of("stories110m");
    r.accum = 3;
    for (size_t i = 0; i < 4 * 2; i++) {
        struct kiln_table *table;
        size_t whole, cut;
        r.schedule = i < 4 ? KILN_SCHEDULE_WHOLE : KILN_SCHEDULE_SPLIT;
        r.budget = r.load_budget = i < 4 ? 60 : 40;
        keep(&r, names[i % 4]);
        struct kiln_plan plan = plan_of(&r, &table);
        const size_t n = passes(&plan.schedule, r.accum, 0, &whole);
        CHECK(n >= 6);
        for (size_t every = 2; every <= 9; every++) { /* 1: no kernel would live to be run */
            CHECK_EQ(passes(&plan.schedule, r.accum, every, &cut), n);
            CHECK_EQ(cut, whole);
        }
        kiln_plan_close(&plan);
        kiln_table_destroy(table);
    }
}
