/* SPDX-License-Identifier: MIT
 *
 * test_parts.c: what the parts of a step compute and move, against the plan and against numbers
 * worked out by hand.
 */
#include "plan/parts.h"

#include <string.h>

#include "kiln_test.h"

/* Costs of a step of these dims. */
struct parts_lab {
    struct kiln_table *table;
    struct kiln_plan plan;
    struct kiln_plan_request request;
    struct kiln_part_cost cost[KILN_PARTS];
};

static void open_lab(struct parts_lab *lab, const struct kiln_dims *dims,
                     struct kiln_micro_batch shape, size_t accum, enum kiln_precision precision) {
    struct kiln_err err;
    const struct kiln_device_options device = {
        .shape = shape, .precision = precision, .training = true};
    CHECK_OK(kiln_table_create(dims, &lab->table, &err), &err);
    lab->request = kiln_plan_simple(lab->table, &device, accum, 2);
    CHECK_OK(kiln_plan_open(lab->table, &lab->request, &lab->plan, &err), &err);
    kiln_part_costs(&lab->plan, lab->table, lab->cost);
}

static void close_lab(struct parts_lab *lab) {
    kiln_plan_close(&lab->plan);
    kiln_table_destroy(lab->table);
}

static double flops_of(const struct parts_lab *lab) {
    double sum = 0;
    for (size_t i = 0; i < KILN_PARTS; i++) {
        sum += lab->cost[i].flops;
    }
    return sum;
}

TEST(the_parts_of_a_step_have_the_flops_of_the_plan) {
    static const char *const presets[] = {"stories15m", "stories110m", "llama1b"};
    for (size_t i = 0; i < 3; i++) {
        struct parts_lab lab;
        open_lab(&lab, &kiln_preset_find(presets[i])->dims, (struct kiln_micro_batch){2, 128}, 3,
                 KILN_PRECISION_BF16);
        CHECK_CLOSE(flops_of(&lab) / (3 * lab.plan.flops.total), 1, 1e-12);
        close_lab(&lab);
    }
}

TEST(the_parts_of_grouped_heads_have_the_flops_of_the_plan) {
    struct kiln_dims dims = {.dim = 64,
                             .hidden = 96,
                             .layers = 3,
                             .heads = 4,
                             .kv_heads = 2,
                             .vocab = 300,
                             .seq = 32,
                             .rms_eps = 1e-5f,
                             .rope_theta = 1e4f};
    struct kiln_err err;
    struct parts_lab lab;
    CHECK_OK(kiln_dims_check(&dims, &err), &err);
    open_lab(&lab, &dims, (struct kiln_micro_batch){2, 32}, 1, KILN_PRECISION_FP32);
    CHECK_CLOSE(flops_of(&lab) / lab.plan.flops.total, 1, 1e-12);
    /* W [64, 64 + 2*32] and wo [64, 64], forward, and 2 of 5 score products. */
    CHECK_CLOSE(lab.cost[KILN_PART_ATTN_FWD].flops,
                3 * (2.0 * 64 * (64 + 64 + 64) * 64 + 2 * 2.0 * 64 * 32 * 64), 0);
    close_lab(&lab);
}

/* 28 bytes of W, m, v and g, and two packed copies, padding included. */
TEST(an_update_moves_32_bytes_a_parameter_in_bf16_and_36_in_fp32) {
    for (int wide = 0; wide < 2; wide++) {
        struct parts_lab lab;
        open_lab(&lab, &kiln_preset_find("stories110m")->dims, (struct kiln_micro_batch){1, 32}, 2,
                 wide ? KILN_PRECISION_FP32 : KILN_PRECISION_BF16);
        const double parameters = (double)lab.table->parameters;
        CHECK_CLOSE(lab.cost[KILN_PART_UPDATE].bytes / parameters, wide ? 36 : 32, 0.05);
        /* The gradients, the embedding's second one, and their sum. */
        CHECK_CLOSE(lab.cost[KILN_PART_NORM].bytes, 12.0 * 32000 * 768, 1);
        close_lab(&lab);
    }
}

TEST(only_the_first_micro_batch_writes_gradients_without_reading_them) {
    struct parts_lab one, two;
    const struct kiln_dims *dims = &kiln_preset_find("stories15m")->dims;
    open_lab(&one, dims, (struct kiln_micro_batch){1, 16}, 1, KILN_PRECISION_BF16);
    open_lab(&two, dims, (struct kiln_micro_batch){1, 16}, 2, KILN_PRECISION_BF16);
    const double gradients = 6 * 4.0 * 3 * 288 * 768;
    CHECK_CLOSE(two.cost[KILN_PART_FFN_BWD].bytes,
                2 * one.cost[KILN_PART_FFN_BWD].bytes + gradients, 1);
    close_lab(&one);
    close_lab(&two);
}

/* Pieces with products share a part's FLOPs among them; the others have bytes only. */
TEST(the_pieces_of_a_part_have_its_flops) {
    struct parts_lab lab;
    struct kiln_part_cost pieces[KILN_PIECES];
    double flops[KILN_PARTS] = {0};
    size_t n[KILN_PARTS] = {0};
    open_lab(&lab, &kiln_preset_find("stories42m")->dims, (struct kiln_micro_batch){3, 64}, 2,
             KILN_PRECISION_BF16);
    kiln_piece_costs(&lab.plan, lab.table, pieces);
    for (size_t i = 0; i < KILN_PIECES; i++) {
        const enum kiln_piece_of_step piece = (enum kiln_piece_of_step)i;
        CHECK((pieces[i].flops > 0) != (pieces[i].bytes > 0));
        flops[kiln_piece_part(piece)] += pieces[i].flops;
        n[kiln_piece_part(piece)]++;
        CHECK_EQ(kiln_piece_find(kiln_piece_name(piece)), piece);
        const char *part = kiln_part_name(kiln_piece_part(piece));
        CHECK(strncmp(kiln_piece_name(piece), part, strlen(part)) == 0);
    }
    for (size_t i = 0; i < KILN_PARTS; i++) {
        if (n[i] > 0) { /* feed-forward forward is one piece of work */
            CHECK_CLOSE(flops[i], lab.cost[i].flops, 1e-12 * lab.cost[i].flops);
        }
    }
    CHECK(n[KILN_PART_ATTN_FWD] > 0 && n[KILN_PART_HEAD] > 0 && n[KILN_PART_FFN_BWD] > 0);
    CHECK_EQ(kiln_piece_find("ffn_bwd"), KILN_PIECES);
    close_lab(&lab);
}

TEST(a_part_is_found_by_the_name_of_its_spans) {
    for (size_t i = 0; i < KILN_PARTS; i++) {
        CHECK_EQ(kiln_part_find(kiln_part_name((enum kiln_part)i)), i);
        CHECK(kiln_part_title((enum kiln_part)i)[0] != '\0');
    }
    CHECK_EQ(kiln_part_find("attn"), KILN_PARTS);
}
