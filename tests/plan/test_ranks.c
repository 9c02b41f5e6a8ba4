/* SPDX-License-Identifier: MIT
 *
 * test_ranks.c: sums over ranks against sums made by hand; steps over ranks at their limits.
 */
#include <math.h>
#include <stdio.h>

#include "kernel/weights.h"
#include "kiln_test.h"
#include "plan/plan_lab.h"
#include "plan/ranks.h"
#include "ranks/ranks.h"

enum { MANY = 4096, LAYERS = 4 };

/* ---- one sum ----------------------------------------------------------------------------------
 */

/* Powers of two: sums of them are exact. */
static const struct kiln_wire wire_of_4 = {
    .ranks = 4, .message_s = 0.5, .float_s = 0.25, .sum_s = 0.125};

static void check_sum(const struct kiln_wire *wire, double floats, double latency, double transfer,
                      double sent) {
    const struct kiln_sum sum = kiln_allreduce(wire, floats);
    CHECK_CLOSE(sum.latency_s, latency, 1e-12 * latency);
    CHECK_CLOSE(sum.transfer_s, transfer, 1e-12 * transfer);
    CHECK_CLOSE(sum.floats, sent, 1e-12 * sent);
}

TEST(a_direct_sum_is_two_messages_and_parts) {
    struct kiln_wire wire = wire_of_4;
    /* 8 floats: three parts of 2 go, three that came are added, the own one goes to three. */
    check_sum(&wire, 8, 2 * 0.5, 12 * 0.25 + 6 * 0.125, 12);
    wire.ranks = 5;
    check_sum(&wire, 10, 2 * 0.5, 16 * 0.25 + 8 * 0.125, 16);
    wire.ranks = 1;
    check_sum(&wire, 8, 0, 0, 0);
}

TEST(many_ranks_halve_and_double) {
    struct kiln_wire wire = wire_of_4;
    wire.ranks = KILN_RANKS_DIRECT;
    CHECK_EQ(kiln_allreduce_kind(&wire), KILN_ALLREDUCE_DIRECT);
    CHECK_STRING(kiln_allreduce_name(kiln_allreduce_kind(&wire)), "direct");
    wire.ranks++;
    CHECK_EQ(kiln_allreduce_kind(&wire), KILN_ALLREDUCE_HALVING);
    CHECK_STRING(kiln_allreduce_name(kiln_allreduce_kind(&wire)), "halving");
    /* 32 floats: 16, 8, 4, 2, 1 go and are added; they come back so. */
    wire.ranks = 32;
    check_sum(&wire, 32, 10 * 0.5, 62 * 0.25 + 31 * 0.125, 62);
    /* 16 of 20 do so with 30; the others exchange half with one of them, give it their half of the
     * sum, and get the result. */
    wire.ranks = 20;
    check_sum(&wire, 32, 11 * 0.5, (60 + 64) * 0.25 + (30 + 16) * 0.125, 60 + 48);
}

static void check_nodes(size_t ranks, uint64_t micro_batches, size_t most, size_t all) {
    const struct kiln_nodes nodes = kiln_nodes_of(ranks, micro_batches);
    CHECK_EQ(nodes.most, most);
    CHECK_EQ(nodes.all, all);
}

TEST(a_tree_sends_its_nodes_directly) {
    check_nodes(4, 16, 1, 4);
    check_nodes(2, 6, 2, 4);  /* 0-1 2, and 3 4-5 */
    check_nodes(3, 16, 3, 7); /* 0-3 4, and 5 6-7 8-9, and 10-11 12-15 */
    check_nodes(64, 64, 1, 64);
    struct kiln_wire wire = wire_of_4;
    wire.nodes = kiln_nodes_of(4, 16);
    check_sum(&wire, 8, 2 * 0.5, 12 * 0.25 + 6 * 0.125, 12);
    /* Six parts of 2 go and three; of eight nodes seven are added. */
    wire.nodes = (struct kiln_nodes){.most = 2, .all = 8};
    check_sum(&wire, 8, 2 * 0.5, 18 * 0.25 + 14 * 0.125, 18);
    wire.ranks = 64;
    wire.nodes = kiln_nodes_of(64, 64);
    CHECK_EQ(kiln_allreduce_kind(&wire), KILN_ALLREDUCE_DIRECT);
    check_sum(&wire, 64, 2 * 0.5, 126 * 0.25 + 63 * 0.125, 126);
}

/* ---- two at a time ----------------------------------------------------------------------------
 */

/* A wire of two ranks on which a whole stretch has so much latency and transfer: two messages, of
 * half the floats each. */
static struct kiln_wire pair(double latency, double transfer) {
    return (struct kiln_wire){
        .ranks = 2, .message_s = latency / 2, .float_s = transfer / (double)KILN_RANKS_STRETCH};
}

static void check_reduced(double latency, double transfer, const struct kiln_bucket *buckets,
                          size_t n, double end, double busy) {
    const struct kiln_wire wire = pair(latency, transfer);
    const struct kiln_reduced r = kiln_wire_reduce(&wire, buckets, n);
    CHECK_CLOSE(r.end_s, end, 1e-12 * end);
    CHECK_CLOSE(r.busy_s, busy, 1e-12 * busy);
}

TEST(two_stretches_share_the_link_and_hide_latency) {
    const struct kiln_bucket one = {0, KILN_RANKS_STRETCH}, two = {0, 2 * KILN_RANKS_STRETCH},
                             three = {0, 3 * KILN_RANKS_STRETCH};
    check_reduced(1, 1, &one, 1, 2, 2);
    check_reduced(1, 1, &two, 1, 2, 2);   /* one travels in the latency of the other */
    check_reduced(0, 2, &two, 1, 4, 4);   /* nothing to travel in */
    check_reduced(3, 0, &two, 1, 3, 3);   /* nothing that travels */
    check_reduced(3, 0, &three, 1, 6, 6); /* two under way, not three */
    check_reduced(1, 3, &two, 1, 6, 6);   /* each wants 3/4 of the link */
    /* 3/2 of the link for 6 s; then a third alone, which takes its 4. */
    check_reduced(1, 3, &three, 1, 10, 10);
}

TEST(what_becomes_ready_joins_what_is_under_way) {
    /* The first is alone for a second and has one left; at half its speed that takes until 3. The
     * second has then travelled for one second, too, and ends alone. */
    const struct kiln_bucket joins[] = {{0, KILN_RANKS_STRETCH}, {1, KILN_RANKS_STRETCH}};
    check_reduced(0, 2, joins, 2, 4, 4);
    /* Nothing is under way between 2 and 10. */
    const struct kiln_bucket late[] = {{0, KILN_RANKS_STRETCH}, {10, KILN_RANKS_STRETCH}};
    check_reduced(0, 2, late, 2, 12, 4);
    /* A quarter of a stretch, behind a whole one and beside it: 0.5 s of latency, 2 or 0.5 of
     * travel, which want 0.8 and 0.5 of the link. The small one takes 1.3 s, the other has then 1.5
     * of its 2.5 left. */
    const struct kiln_bucket small = {0, KILN_RANKS_STRETCH * 1.25};
    check_reduced(0.5, 2, &small, 1, 1.3 + 1.5, 1.3 + 1.5);
    /* Layers of nothing send nothing. */
    const struct kiln_bucket empty[] = {{0, 0}, {5, KILN_RANKS_STRETCH}, {9, 0}};
    check_reduced(0, 2, empty, 3, 9, 2);
}

/* Stretches that are taken many at once end as if they were taken one by one. */
TEST(many_stretches_are_as_good_as_one_by_one) {
    static const double times[][2] = {{0, 1}, {1, 0}, {1, 0.25}, {0.25, 1}};
    static struct kiln_bucket single[101];
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        const struct kiln_wire wire = pair(times[i][0], times[i][1]);
        for (size_t n = 1; n <= 100; n++) {
            const struct kiln_bucket begins = {0, 0.75 * KILN_RANKS_STRETCH};
            const struct kiln_bucket both[] = {begins, {0.1, (double)n * KILN_RANKS_STRETCH}};
            single[0] = begins;
            for (size_t k = 1; k <= n; k++) {
                single[k] = (struct kiln_bucket){0.1, KILN_RANKS_STRETCH};
            }
            const struct kiln_reduced a = kiln_wire_reduce(&wire, both, 2);
            const struct kiln_reduced b = kiln_wire_reduce(&wire, single, n + 1);
            CHECK_CLOSE(a.end_s, b.end_s, 1e-9 * b.end_s);
            CHECK_CLOSE(a.busy_s, b.busy_s, 1e-9 * b.end_s);
            CHECK_CLOSE(a.floats, b.floats, 1e-9 * b.floats);
        }
    }
}

/* ---- plans ------------------------------------------------------------------------------------
 */

static struct kiln_plan_request request_of(size_t ranks, double bytes_per_s, double latency_s) {
    struct kiln_plan_request r = plan_request("stories15m", KILN_SCHEDULE_SPLIT);
    r.budget = r.load_budget = 0;
    r.refreshes = true;
    r.dims.layers = LAYERS;
    r.accum = 16;
    r.profile = (struct kiln_profile){.tflops = 0.1, .update_gb_s = 20};
    r.ranks = (struct kiln_plan_ranks){.ranks = ranks, .link = {latency_s, bytes_per_s}};
    return r;
}

static struct kiln_ranks_cost cost_of(const struct kiln_plan_request *request) {
    struct kiln_estimate e;
    struct kiln_err err;
    CHECK_OK(kiln_estimate(request, false, &e, &err), &err);
    const struct kiln_ranks_cost cost = e.ranks;
    CHECK_CLOSE(cost.step_s * cost.speedup, e.time.step, 1e-9 * e.time.step);
    kiln_estimate_free(&e);
    return cost;
}

TEST(one_rank_sends_nothing) {
    const struct kiln_plan_request r = request_of(1, 1e6, 1);
    const struct kiln_ranks_cost c = cost_of(&r);
    CHECK_EQ(c.micro_batches, 16u);
    CHECK(c.bytes_sent == 0 && c.communication_s == 0 && c.exposed_s == 0);
    CHECK(c.hidden_share == 1 && c.speedup == 1 && c.efficiency == 1);
    CHECK_EQ(c.memory, c.memory_sharded);
    CHECK_EQ(c.local_steps_advised, 1u);
    CHECK(c.scaling[0].strong_efficiency == 1 && c.scaling[0].weak_efficiency == 1);
}

TEST(a_link_that_takes_no_time_hides_all) {
    struct kiln_plan_request r = request_of(8, (double)INFINITY, 0);
    r.profile.update_gb_s = 0; /* nor does the update, or a sum */
    const struct kiln_ranks_cost c = cost_of(&r);
    CHECK(c.communication_s == 0 && c.exposed_s == 0 && c.hidden_share == 1);
    CHECK(c.bytes_sent > 0);
    CHECK_CLOSE(c.speedup, 8, 1e-9);
    for (size_t i = 0; i < KILN_SCALES; i++) {
        const double shares = fmin((double)c.scaling[i].ranks, 16); /* of 16 micro-batches */
        CHECK_CLOSE(c.scaling[i].weak_efficiency, 1, 1e-9);
        CHECK_CLOSE(c.scaling[i].strong_efficiency, shares / (double)c.scaling[i].ranks, 1e-9);
    }
}

TEST(a_backward_pass_of_no_time_hides_nothing) {
    struct kiln_plan_request r = request_of(8, 1e9, 1e-4);
    r.profile.tflops = 1e12;
    const struct kiln_ranks_cost c = cost_of(&r);
    CHECK(c.communication_s > 0);
    CHECK_CLOSE(c.hidden_share, 0, 1e-9);
    CHECK_CLOSE(c.exposed_s, c.communication_s, 1e-9);
}

static void check_monotonic(size_t ranks) {
    double before = (double)INFINITY, exposed = (double)INFINITY;
    for (int i = 0; i < 14; i++) {
        const struct kiln_plan_request r = request_of(ranks, 1e5 * exp2(2.0 * i), 1e-5);
        const struct kiln_ranks_cost c = cost_of(&r);
        CHECK(c.step_s <= before * (1 + 1e-12) && c.exposed_s <= exposed * (1 + 1e-12));
        CHECK(c.exposed_s >= 0 && c.exposed_s <= c.communication_s * (1 + 1e-12));
        CHECK(c.hidden_share >= -1e-12 && c.hidden_share <= 1);
        before = c.step_s;
        exposed = c.exposed_s;
    }
}

TEST(more_bandwidth_is_never_slower) {
    for (size_t ranks = 2; ranks <= MANY; ranks *= 2) {
        check_monotonic(ranks);
        check_monotonic(ranks + ranks / 2 - 1);
    }
}

/* Without latency the link is a queue: from each moment at which gradients are whole it has at
 * least those and all later ones to send. Each of two ranks sends what there is once. */
static double queue_ends(const struct kiln_plan *plan, const struct kiln_table *table,
                         double float_s) {
    const struct kiln_dims *d = &table->dims;
    const struct kiln_rates rates = kiln_plan_rates(plan);
    const double dim = (double)d->dim, vocab = (double)d->vocab * dim;
    const double layer = ((double)table->parameters - dim - (d->tied ? 1 : 2) * vocab) / LAYERS;
    const double backward = LAYERS * rates.backward;
    double left = vocab, end = backward + float_s * left; /* seconds since the loss */
    for (size_t l = 0; l < LAYERS; l++) {
        left += layer;
        end = fmax(end, (LAYERS - (double)l) * rates.backward + float_s * left);
    }
    left += dim + (d->tied ? 0 : vocab);
    CHECK_CLOSE(left, (double)table->parameters, 0.5);
    return fmax(end, float_s * left) - backward;
}

static void check_by_hand(bool tied, double rate) {
    struct kiln_plan_request r = request_of(2, rate, 0);
    struct kiln_table *table;
    struct kiln_plan plan;
    struct kiln_ranks_cost c;
    struct kiln_err err;
    r.profile.update_gb_s = 0;
    r.dims.tied = tied;
    CHECK_OK(kiln_table_create(&r.dims, &table, &err), &err);
    CHECK_OK(kiln_plan_policy(table, &r, r.keep, &plan, &err), &err);
    CHECK_OK(kiln_plan_over_ranks(table, &plan, &c, &err), &err);
    const double all = (double)table->parameters * 4;
    const double exposed = queue_ends(&plan, table, 4 / rate);
    CHECK_CLOSE(c.exposed_s, exposed, 1e-9 * exposed);
    CHECK_CLOSE(c.bytes_sent, all, 0.5);
    CHECK_CLOSE(c.communication_s, all / rate, 1e-9 * all / rate);
    CHECK_EQ(c.micro_batches, 8u);
    kiln_plan_close(&plan);
    kiln_table_destroy(table);
}

TEST(gradients_travel_layer_by_layer) {
    for (int i = 0; i < 16; i++) {
        check_by_hand(true, 1e7 * exp2(i));
        check_by_hand(false, 1e7 * exp2(i));
    }
}

/* Adapters lie in layers: there is nothing to send behind the layers, nor at the end. */
TEST(of_adapters_only_adapters_travel) {
    struct kiln_plan_request r = request_of(2, 1e9, 0);
    struct kiln_err err;
    r.lora = (struct kiln_lora){.rank = 8, .alpha = 16};
    CHECK_OK(kiln_lora_parse("q,v", &r.lora.targets, &err), &err);
    const struct kiln_ranks_cost c = cost_of(&r);
    CHECK_CLOSE(c.bytes_sent, 4.0 * LAYERS * 2 * 8 * 2 * 288, 0.5);
}

/* ---- when gradients are whole -----------------------------------------------------------------
 */

static void check_whole(struct kiln_plan_request *r, bool queue) {
    struct kiln_table *table;
    struct kiln_plan plan;
    struct kiln_err err;
    double whole[LAYERS + 2];
    CHECK_OK(kiln_table_create(&r->dims, &table, &err), &err);
    CHECK_OK(kiln_plan_policy(table, r, r->keep, &plan, &err), &err);
    const struct kiln_rates rates = kiln_plan_rates(&plan);
    const double passes = kiln_plan_seconds(&plan).step;
    CHECK_OK(kiln_simulate_gradients(&plan, whole, &err), &err);
    CHECK_CLOSE(kiln_plan_seconds(&plan).step, passes, 1e-9 * passes);
    for (size_t l = LAYERS; l-- > 0;) {
        const double before = whole[l + 1 < LAYERS ? l + 1 : LAYERS];
        CHECK(whole[l] > before && whole[l] <= whole[LAYERS + 1]);
        if (!queue) {
            CHECK_CLOSE(whole[l] - before, rates.backward, 1e-9 * rates.backward);
        }
    }
    CHECK_CLOSE(whole[0], whole[LAYERS + 1], 1e-9 * passes);
    kiln_plan_close(&plan);
    kiln_table_destroy(table);
}

TEST(gradients_are_whole_from_the_last_layer_down) {
    struct kiln_plan_request r = request_of(2, 1e9, 0);
    check_whole(&r, false);
    /* Weight gradients behind the device, kernels that are waited for, several held. */
    r.device = (struct kiln_device_choice){.id = KILN_SIM, .sim_time = 1};
    r.precision = KILN_PRECISION_FP16;
    r.profile.host_tflops = 0.05;
    r.refreshes = false;
    check_whole(&r, true);
    r.budget = r.load_budget = 119;
    r.profile.compile_s = 0.01;
    check_whole(&r, true);
    r.overlap = KILN_OVERLAP_EXACT;
    check_whole(&r, true);
}

/* ---- local steps, memory, many ranks ----------------------------------------------------------
 */

TEST(local_steps_are_as_many_as_make_waiting_small) {
    struct kiln_plan_request r = request_of(16, 1e8, 1e-3);
    const struct kiln_ranks_cost plain = cost_of(&r);
    const size_t advised = plain.local_steps_advised;
    CHECK(plain.exposed_s > 0.05 * plain.step_s && advised > 2);
    for (size_t less = 0; less < 2; less++) {
        r.ranks.local_steps = advised - less;
        const struct kiln_ranks_cost c = cost_of(&r);
        const double waits = c.exposed_s + c.outer_s;
        CHECK_EQ(waits < 0.05 * c.step_s, less == 0);
        CHECK_EQ(c.local_steps_advised, advised);
        CHECK(c.hidden_share == 0 && c.outer_s > 0);
        /* Of weights and both moments. */
        CHECK_CLOSE(c.bytes_sent * (double)(advised - less), 3 * plain.bytes_sent,
                    1e-3 * plain.bytes_sent);
        /* All three as of the last outer step, and its momentum. */
        CHECK_CLOSE((double)(c.memory - plain.memory), 4 * plain.bytes_sent * 16 / 30,
                    1e-3 * plain.bytes_sent);
    }
    r.ranks.link.bytes_per_s = (double)INFINITY;
    r.ranks.link.latency_s = 0;
    CHECK_EQ(cost_of(&r).local_steps_advised, 1u);
}

TEST(weights_and_moments_may_lie_spread_over_ranks) {
    const struct kiln_preset *preset = kiln_preset_find("stories15m");
    struct kiln_table *table;
    struct kiln_err err;
    struct kiln_plan_request r = request_of(4, 1e9, 0);
    r.dims = preset->dims;
    CHECK_OK(kiln_table_create(&r.dims, &table, &err), &err);
    const struct kiln_ranks_cost c = cost_of(&r);
    const double copy = (double)kiln_snapshot_bytes(table, kiln_plan_operands(&r));
    const double spread = 12 * 0.75 * (double)table->parameters;
    CHECK_CLOSE((double)(c.memory - c.memory_sharded), spread - copy, 1);
    /* Asked for it is the plan's own, but for gaps between tensors. */
    r.spread = 4;
    const struct kiln_ranks_cost s = cost_of(&r);
    CHECK_EQ(s.memory, s.memory_sharded);
    CHECK_CLOSE((double)s.memory, (double)c.memory_sharded, 1e-3 * (double)s.memory);
    kiln_table_destroy(table);
}

TEST(parts_of_sums_and_then_weights_travel) {
    const double floats = 1e6, n = 4;
    const struct kiln_wire all = {.ranks = 4, .message_s = 1e-3, .float_s = 4e-9};
    struct kiln_wire parts = all;
    parts.parts = true;
    const struct kiln_sum a = kiln_allreduce(&all, floats), b = kiln_allreduce(&parts, floats);
    CHECK_CLOSE(a.floats, 2 * b.floats, 1e-6);
    CHECK_CLOSE(b.floats, (n - 1) / n * floats, 1e-6);
    CHECK_CLOSE(a.latency_s, 2 * b.latency_s, 1e-12);
    /* For any number of ranks directly. */
    parts.ranks = 64;
    CHECK_EQ(kiln_allreduce_kind(&parts), KILN_ALLREDUCE_DIRECT);
    /* A step sends half a sum, and the weights in operands. */
    struct kiln_plan_request r = request_of(4, 1e9, 0);
    struct kiln_table *table;
    struct kiln_err err;
    CHECK_OK(kiln_table_create(&r.dims, &table, &err), &err);
    const struct kiln_ranks_cost plain = cost_of(&r);
    r.spread = 4;
    const struct kiln_ranks_cost spread = cost_of(&r);
    const double weights = (n - 1) / n * (double)kiln_snapshot_bytes(table, kiln_plan_operands(&r));
    CHECK_CLOSE(spread.bytes_sent, plain.bytes_sent / 2 + weights, 1);
    CHECK(spread.exposed_s >= weights / 1e9); /* behind the update nothing hides them */
    kiln_table_destroy(table);
}

TEST(bf16_on_the_wire_is_half_as_much) {
    struct kiln_plan_request r = request_of(8, 1e7, 0);
    const struct kiln_ranks_cost wide = cost_of(&r);
    r.ranks.float_bytes = 2;
    const struct kiln_ranks_cost narrow = cost_of(&r);
    CHECK_CLOSE(narrow.bytes_sent, wide.bytes_sent / 2, 0.5);
    CHECK(narrow.communication_s < 0.52 * wide.communication_s);
    r.ranks.ranks = 64;
    CHECK_EQ(cost_of(&r).kind, KILN_ALLREDUCE_DIRECT);
}

/* Of 16 micro-batches one of three ranks has three nodes; over 64 ranks a tree goes directly. */
TEST(a_tree_sends_more_and_never_halves) {
    struct kiln_plan_request r = request_of(3, 1e8, 1e-3);
    const struct kiln_ranks_cost plain = cost_of(&r);
    r.ranks.deterministic = true;
    const struct kiln_ranks_cost tree = cost_of(&r);
    CHECK_CLOSE(tree.bytes_sent, 2 * plain.bytes_sent, 0.5);
    CHECK(tree.communication_s > plain.communication_s && tree.step_s > plain.step_s);
    r.ranks.local_steps = 10; /* of each rank one change, and two moments, are averaged */
    CHECK_CLOSE(cost_of(&r).bytes_sent, 3 * plain.bytes_sent / 10, 0.5);
    r.ranks.local_steps = 1;
    r.ranks.ranks = 64;
    CHECK_EQ(cost_of(&r).kind, KILN_ALLREDUCE_DIRECT);
    r.ranks.deterministic = false;
    CHECK_EQ(cost_of(&r).kind, KILN_ALLREDUCE_HALVING);
}

TEST(four_thousand_ranks_are_planned) {
    struct kiln_plan_request r = request_of(MANY, 12.5e9, 1e-5);
    r.dims = kiln_preset_find("llama7b")->dims;
    r.seq = 512;
    r.accum = MANY;
    const struct kiln_ranks_cost c = cost_of(&r);
    CHECK_EQ(c.micro_batches, 1u);
    CHECK(c.bytes_sent > 2 * 4 * 6.6e9 && c.bytes_sent < 2 * 4 * 6.61e9);
    CHECK_CLOSE(c.tokens_per_s, MANY * 512 / c.step_s, 1e-6 * c.tokens_per_s);
    for (size_t i = 0; i < KILN_SCALES; i++) {
        const struct kiln_scale *s = &c.scaling[i];
        CHECK_EQ(s->ranks, (size_t)1 << i);
        CHECK_EQ(s->micro_batches, MANY >> i);
        CHECK(s->strong_efficiency > 0 && s->strong_efficiency <= 1 + 1e-9);
        CHECK(s->weak_efficiency > 0 && s->weak_efficiency <= 1 + 1e-9);
        CHECK(i == 0 || (s->step_s < s[-1].step_s && s->weak_step_s >= s[-1].weak_step_s));
    }
    CHECK_CLOSE(c.scaling[KILN_SCALES - 1].step_s, c.step_s, 1e-9 * c.step_s);
    CHECK_CLOSE(c.scaling[KILN_SCALES - 1].strong_efficiency, c.efficiency, 1e-9);
}

/* No size that a plan takes is too large to be told. */
TEST(the_largest_sizes_are_told_at_once) {
    struct kiln_plan_request r = request_of(3, 1e9, 1e-3);
    r.dims = kiln_preset_find("llama7b")->dims;
    r.dims.dim = 1 << 20;
    r.dims.hidden = 1 << 22;
    r.dims.vocab = 1 << 24;
    r.dims.head_size = 1 << 15;
    r.seq = 1;
    r.accum = 2;
    const struct kiln_ranks_cost c = cost_of(&r);
    CHECK(c.exposed_s > 1e6 && isfinite(c.step_s));
    r.ranks.link = (struct kiln_link){0, (double)INFINITY};
    r.profile.update_gb_s = 0;
    CHECK(cost_of(&r).exposed_s == 0);
}

TEST(a_link_that_cannot_be_is_refused) {
    struct kiln_plan_request r = request_of(2, 0, 0);
    struct kiln_estimate e;
    struct kiln_err err;
    CHECK_EQ(kiln_estimate(&r, false, &e, &err), KILN_EUSAGE);
    CHECK_CONTAINS(err.message, "a link of 0 bytes a second");
    r.ranks.link = (struct kiln_link){-1, 1e9};
    CHECK_EQ(kiln_estimate(&r, false, &e, &err), KILN_EUSAGE);
}
