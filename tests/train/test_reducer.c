/* SPDX-License-Identifier: MIT
 *
 * test_reducer.c: gradients of micro-batches that are added by a tree, in one process. That ranks
 * add to the same bits is shown where there are some (cli/ranks).
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kiln_test.h"
#include "train/engine_lab.h"

struct shape {
    bool tied;
    size_t lora; /* rank; 0: the whole model is trained */
    size_t accum, threads;
    size_t held; /* micro-batches of a round; 0: as the plan has it */
    enum kiln_precision precision;
};

/* Gradient of a window, its norm behind it. The caller frees. */
static float *gradient_of(const struct shape *s, bool deterministic, size_t *n) {
    struct kiln_plan_request r = {.dims = {.dim = 64,
                                           .hidden = 100,
                                           .layers = 3,
                                           .heads = 2,
                                           .kv_heads = 1,
                                           .vocab = 300,
                                           .seq = 16,
                                           .tied = s->tied,
                                           .rms_eps = 1e-5f,
                                           .rope_theta = 10000},
                                  .batch = 2,
                                  .seq = 16,
                                  .accum = s->accum,
                                  .threads = s->threads,
                                  .precision = s->precision,
                                  .profile = {.tflops = 0.2, .compile_s = 0.01}};
    struct engine_lab lab;
    struct kiln_err err;
    if (s->lora > 0) {
        r.lora = (struct kiln_lora){.rank = s->lora, .alpha = 8, .targets = 3};
    }
    CHECK_OK(kiln_dims_check(&r.dims, &err), &err);
    CHECK_OK(kiln_keep_parse("all", &r.keep, &err), &err);
    engine_lab_deterministic = deterministic;
    engine_lab_open(&lab, &r, s->held, s->held > 0 ? 2 : 0);
    CHECK((lab.engine.reducer != NULL) == deterministic);
    engine_lab_window(&lab);
    const double norm = kiln_optimizer_norm(lab.engine.optimizer, 1);
    *n = kiln_trained_size(lab.table) + 1;
    float *out = kiln_alloc(*n, sizeof *out);
    memcpy(out, lab.memory.optimizer.gradients.all, (*n - 1) * sizeof *out);
    out[*n - 1] = (float)norm;
    engine_lab_close(&lab);
    return out;
}

static double distance(const float *a, const float *b, size_t n) {
    double off = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        off += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(off / size);
}

static void check_tree(struct shape s) {
    size_t n, m;
    float *plain = gradient_of(&s, false, &n), *tree = gradient_of(&s, true, &m);
    CHECK_EQ(n, m);
    printf("      %zu micro-batches: off by %.1e\n", s.accum, distance(tree, plain, n));
    CHECK(distance(tree, plain, n) < 2e-6);
    /* One order, whatever the plan and the threads. */
    s.threads = 3;
    float *threads = gradient_of(&s, true, &m);
    CHECK_BYTES(threads, tree, n * sizeof *tree);
    s.held = s.tied ? 0 : s.accum < 3 ? s.accum : 3; /* plans take one at a time */
    float *rounds = gradient_of(&s, true, &m);
    CHECK_BYTES(rounds, tree, n * sizeof *tree);
    kiln_free(plain);
    kiln_free(tree);
    kiln_free(threads);
    kiln_free(rounds);
}

TEST(a_tree_adds_up_to_the_gradient_of_the_window) {
    for (size_t accum = 1; accum <= 7; accum += 2) {
        check_tree((struct shape){.accum = accum, .threads = 1, .precision = KILN_PRECISION_FP32});
        check_tree((struct shape){
            .tied = true, .accum = accum, .threads = 1, .precision = KILN_PRECISION_FP32});
    }
    check_tree(
        (struct shape){.tied = true, .accum = 4, .threads = 2, .precision = KILN_PRECISION_BF16});
}

TEST(a_tree_adds_up_to_the_gradient_of_adapters) {
    check_tree((struct shape){
        .tied = true, .lora = 4, .accum = 6, .threads = 1, .precision = KILN_PRECISION_FP32});
}

TEST(places_of_a_tree_are_counted_as_memory) {
    struct kiln_table *table;
    struct kiln_err err;
    const struct kiln_dims *dims = &kiln_preset_find("stories15m")->dims;
    CHECK_OK(kiln_table_create(dims, &table, &err), &err);
    /* Tied: the lookup has a gradient of its own. */
    const uint64_t one = (kiln_trained_size(table) + dims->vocab * dims->dim) * sizeof(float);
    const struct kiln_grid alone = kiln_grid_of(1, 1, 0), four = kiln_grid_of(4, 1, 3);
    const struct kiln_grid eight = kiln_grid_of(8, 1, 0), stages = kiln_grid_of(8, 2, 7);
    CHECK_EQ(kiln_reducer_bytes(table, 8, &alone, false), 0);
    CHECK_EQ(kiln_reducer_bytes(table, 8, &alone, true), 3 * one);
    CHECK_EQ(kiln_reducer_bytes(table, 8, &four, true), one);
    CHECK_EQ(kiln_reducer_bytes(table, 8, &eight, true), 0);
    CHECK_EQ(kiln_reducer_bytes(table, 8, &stages, true), one);
    kiln_table_destroy(table);
}
