/* SPDX-License-Identifier: MIT
 *
 * test_outer.c: outer steps of one rank beside their formula, what a death leaves of one, and what
 * a state and a checkpoint hold for them. Several ranks: cli/ranks_local.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kiln_test.h"
#include "state/checkpoint.h"
#include "train/outer.h"

/* More numbers than a thread takes at a time. */
static const struct kiln_dims dims = {.dim = 64,
                                      .hidden = 96,
                                      .layers = 2,
                                      .heads = 2,
                                      .kv_heads = 2,
                                      .head_size = 32,
                                      .vocab = 70,
                                      .seq = 8,
                                      .tied = true,
                                      .rms_eps = 1e-5f,
                                      .rope_theta = 10000.0f};

struct lab {
    struct kiln_table *table;
    struct kiln_settings settings;
    struct kiln_trainer trainer;
    size_t n;
};

static struct kiln_err err;

static float *at(const struct lab *lab, enum kiln_region region) {
    return kiln_state_region(lab->trainer.state, region);
}

static void open_lab(struct lab *lab, uint64_t local_steps) {
    struct kiln_trainer *t = &lab->trainer;
    char text[24];
    *lab = (struct lab){.n = 0};
    snprintf(text, sizeof text, "%d", (int)local_steps);
    CHECK_OK(kiln_settings_init(&lab->settings, &err), &err);
    CHECK_OK(kiln_settings_set_all(&lab->settings, &err, "local-steps", text, "outer-lr", "0.5",
                                   "outer-momentum", "0.75", "steps", "10", (char *)NULL),
             &err);
    CHECK_OK(kiln_table_create(&dims, &lab->table, &err), &err);
    lab->n = kiln_trained_size(lab->table);
    CHECK_OK(kiln_state_create(test_path("state.kiln"), lab->table, KILN_PRECISION_AUTO,
                               local_steps > 1, &t->state, &err),
             &err);
    t->settings = &lab->settings;
    t->table = lab->table;
    CHECK_OK(kiln_pool_create(2, &t->engine.pool, &err), &err);
    const struct kiln_optimizer_parts parts = {.table = lab->table, .pool = t->engine.pool};
    CHECK_OK(kiln_optimizer_create(&parts, &t->engine.optimizer, &err), &err);
}

static void close_lab(struct lab *lab) {
    kiln_optimizer_destroy(lab->trainer.engine.optimizer);
    kiln_pool_destroy(lab->trainer.engine.pool);
    kiln_state_close(lab->trainer.state);
    kiln_table_destroy(lab->table);
    kiln_settings_free(&lab->settings);
}

static float number(uint64_t seed, size_t i) {
    return (float)((i * 2654435761u + seed * 40503u) % 2001) / 1000.0f - 1.0f;
}

TEST(a_round_ends_at_its_last_step_and_at_the_last_of_all) {
    struct kiln_settings s = {.local_steps = 4, .steps = 10};
    for (uint64_t step = 1; step <= 10; step++) {
        CHECK_EQ(kiln_outer_due(&s, step), step == 4 || step == 8 || step == 10);
    }
    s.local_steps = 1;
    CHECK(!kiln_outer_due(&s, 10));
}

TEST(an_outer_step_is_nesterovs) {
    struct lab lab;
    open_lab(&lab, 4);
    struct kiln_trainer *t = &lab.trainer;
    for (size_t i = 0; i < lab.n; i++) {
        at(&lab, KILN_WEIGHTS)[i] = number(1, i);
    }
    CHECK_OK(kiln_outer_open(t->state, lab.table, &err), &err);
    CHECK_BYTES(at(&lab, KILN_LOCAL_WEIGHTS), at(&lab, KILN_WEIGHTS), lab.n * sizeof(float));
    double *w = kiln_alloc(lab.n, sizeof *w), *u = kiln_alloc(lab.n, sizeof *u);
    for (size_t i = 0; i < lab.n; i++) {
        w[i] = (double)number(1, i);
    }
    double worst = 0;
    for (uint64_t round = 1; round <= 3; round++) {
        struct kiln_cursor cursor = *kiln_state_cursor(t->state);
        kiln_state_hold(t->state);
        for (size_t i = 0; i < lab.n; i++) {
            const float change = number(10 + round, i) / 8;
            at(&lab, KILN_LOCAL_WEIGHTS)[i] -= change;
            at(&lab, KILN_LOCAL_MOMENT1)[i] = number(20 + round, i);
            at(&lab, KILN_LOCAL_MOMENT2)[i] = number(30 + round, i) + 1;
            u[i] = 0.75 * u[i] + (double)change;
            w[i] -= 0.5 * ((double)change + 0.75 * u[i]);
        }
        cursor.step = cursor.updates = 4 * round;
        CHECK_OK(kiln_outer_step(t, &cursor, &err), &err);
        CHECK_EQ(kiln_state_cursor(t->state)->phase, KILN_PHASE_OUTER);
        CHECK_EQ(kiln_state_held(t->state)->step, 4 * round); /* in the file */
        CHECK(kiln_state_chunk_done(t->state, 0, 4 * round));
        for (size_t i = 0; i < lab.n; i++) {
            worst = fmax(worst, fabs((double)at(&lab, KILN_WEIGHTS)[i] - w[i]));
            worst = fmax(worst, fabs((double)at(&lab, KILN_OUTER_MOMENTUM)[i] - u[i]));
        }
        CHECK(at(&lab, KILN_MOMENT1)[5] == number(20 + round, 5));
        CHECK(at(&lab, KILN_MOMENT2)[lab.n - 1] == number(30 + round, lab.n - 1) + 1);
        CHECK_BYTES(at(&lab, KILN_LOCAL_WEIGHTS), at(&lab, KILN_WEIGHTS), lab.n * sizeof(float));
    }
    printf("      %zu numbers, 3 rounds: off by %.2g at most\n", lab.n, worst);
    CHECK(worst < 4 * 0x1p-23);
    kiln_free(w);
    kiln_free(u);
    close_lab(&lab);
}

static void reopen(struct lab *lab) {
    char notice[160];
    kiln_state_close(lab->trainer.state);
    CHECK_OK(
        kiln_state_open(test_path("state.kiln"), lab->table, &lab->trainer.state, notice, &err),
        &err);
    CHECK(kiln_state_local(lab->trainer.state));
}

TEST(who_dies_in_a_round_finds_its_start) {
    struct lab lab;
    open_lab(&lab, 4);
    struct kiln_cursor cursor = *kiln_state_cursor(lab.trainer.state);
    cursor.step = cursor.updates = 8;
    kiln_state_commit(lab.trainer.state, &cursor);
    at(&lab, KILN_WEIGHTS)[3] = 7;
    kiln_state_hold(lab.trainer.state);
    for (cursor.step = 9; cursor.step < 12; cursor.step++) {
        kiln_state_hold(lab.trainer.state); /* again: nothing */
        kiln_state_commit(lab.trainer.state, &cursor);
        CHECK_EQ(kiln_state_cursor(lab.trainer.state)->step, cursor.step);
        CHECK_EQ(kiln_state_held(lab.trainer.state)->step, 8);
    }
    at(&lab, KILN_LOCAL_WEIGHTS)[3] = 5;
    reopen(&lab);
    CHECK_EQ(kiln_state_cursor(lab.trainer.state)->step, 8);
    CHECK_OK(kiln_outer_open(lab.trainer.state, lab.table, &err), &err);
    CHECK(at(&lab, KILN_LOCAL_WEIGHTS)[3] == 7);
    /* Whoever lets go stands there, too, and may commit. */
    CHECK_OK(kiln_state_begin(lab.trainer.state, &err), &err);
    kiln_state_hold(lab.trainer.state);
    kiln_state_commit(lab.trainer.state, &cursor);
    kiln_state_let_go(lab.trainer.state);
    CHECK_EQ(kiln_state_cursor(lab.trainer.state)->step, 8);
    kiln_state_commit(lab.trainer.state, &cursor);
    reopen(&lab);
    CHECK_EQ(kiln_state_cursor(lab.trainer.state)->step, 12);
    close_lab(&lab);
}

TEST(who_dies_behind_an_outer_step_has_it) {
    struct lab lab;
    open_lab(&lab, 4);
    struct kiln_cursor cursor = *kiln_state_cursor(lab.trainer.state);
    cursor.step = cursor.updates = 4;
    cursor.phase = KILN_PHASE_OUTER;
    for (size_t i = 0; i < lab.n; i++) {
        at(&lab, KILN_LOCAL_WEIGHTS)[i] = number(1, i);
        at(&lab, KILN_LOCAL_MOMENT1)[i] = number(2, i);
        at(&lab, KILN_LOCAL_MOMENT2)[i] = number(3, i);
        at(&lab, KILN_GRADIENTS)[i] = number(4, i);
    }
    kiln_state_commit(lab.trainer.state, &cursor);
    for (int death = 0; death < 2; death++) { /* also in front of the commit */
        reopen(&lab);
        CHECK_OK(kiln_outer_open(lab.trainer.state, lab.table, &err), &err);
        CHECK_EQ(kiln_state_cursor(lab.trainer.state)->phase, KILN_PHASE_FINISH);
        CHECK(kiln_state_chunk_done(lab.trainer.state, 1, 4));
        for (size_t i = 0; i < lab.n; i++) {
            CHECK(at(&lab, KILN_WEIGHTS)[i] == number(1, i));
            CHECK(at(&lab, KILN_MOMENT1)[i] == number(2, i));
            CHECK(at(&lab, KILN_MOMENT2)[i] == number(3, i));
            CHECK(at(&lab, KILN_OUTER_MOMENTUM)[i] == number(4, i));
        }
        at(&lab, KILN_WEIGHTS)[0] = 99;
        kiln_state_commit(lab.trainer.state, &cursor);
    }
    close_lab(&lab);
}

TEST(a_checkpoint_holds_the_momentum) {
    struct lab lab;
    open_lab(&lab, 4);
    struct kiln_cursor cursor = *kiln_state_cursor(lab.trainer.state);
    char path[4096];
    struct kiln_checkpoint_info info;
    for (size_t i = 0; i < lab.n; i++) {
        at(&lab, KILN_OUTER_MOMENTUM)[i] = number(4, i);
    }
    cursor.step = 4;
    cursor.phase = KILN_PHASE_WINDOW;
    kiln_state_commit(lab.trainer.state, &cursor);
    snprintf(path, sizeof path, "%s/step-4", test_path("checkpoints"));
    CHECK_OK(kiln_checkpoint_write(path, lab.table, at(&lab, KILN_WEIGHTS), at(&lab, KILN_MOMENT1),
                                   at(&lab, KILN_MOMENT2), NULL, KILN_PRECISION_AUTO,
                                   at(&lab, KILN_OUTER_MOMENTUM), &cursor, NULL, &err),
             &err);
    CHECK_OK(kiln_checkpoint_verify(path, &info, &err), &err);
    CHECK_EQ(info.bytes[KILN_CHECKPOINT_OUTER], lab.n * sizeof(float));
    memset(at(&lab, KILN_OUTER_MOMENTUM), 0, lab.n * sizeof(float));
    CHECK_OK(kiln_checkpoint_restore(path, lab.trainer.state, &err), &err);
    CHECK(at(&lab, KILN_OUTER_MOMENTUM)[9] == number(4, 9));
    /* Not into a state that has no place for it. */
    struct kiln_state *plain;
    CHECK_OK(kiln_state_create(test_path("plain.kiln"), lab.table, KILN_PRECISION_AUTO, false,
                               &plain, &err),
             &err);
    CHECK(kiln_state_region(plain, KILN_OUTER_MOMENTUM) == NULL);
    CHECK(kiln_state_working(plain, KILN_MOMENT1) == kiln_state_region(plain, KILN_MOMENT1));
    CHECK_FAILS(kiln_checkpoint_restore(path, plain, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "of a run with local steps, the state is of one without");
    kiln_state_close(plain);
    close_lab(&lab);
}
