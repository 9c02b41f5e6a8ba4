/* SPDX-License-Identifier: MIT
 *
 * test_clock.c: a run that shall end at a time: steps, turns, and the learning rate over them; all
 * in a time that the test makes up.
 */
#include <math.h>
#include <string.h>
#include <time.h>

#include "base/io.h"
#include "base/io_hook.h"
#include "base/machine.h"
#include "base/mem.h"
#include "kiln/verify.h"
#include "kiln_test.h"
#include "train/clock.h"
#include "train/cost.h"
#include "train/optimizer.h"
#include "train/run_int.h"
#include "train/tiny_run.h"

struct made_up {
    struct kiln_settings s;
    struct kiln_clock clock;
    size_t turns;
};

static enum kiln_status turn(void *context, uint64_t at, uint64_t steps, struct kiln_err *err) {
    struct made_up *m = context;
    (void)err;
    m->s.turn[m->s.n_turns++] = (struct kiln_turn){.at = at, .before = m->s.steps};
    m->s.steps = steps;
    m->turns++;
    return KILN_OK;
}

static void begin(struct made_up *m, double whole, double step_s, double eval_s) {
    struct kiln_err err;
    *m = (struct made_up){.turns = 0};
    CHECK_OK(kiln_settings_init(&m->s, &err), &err);
    m->clock = (struct kiln_clock){.deadline = whole,
                                   .whole = whole,
                                   .tail = 0.01 * whole,
                                   .step_s = step_s,
                                   .eval_s = eval_s,
                                   .context = m,
                                   .turn = turn};
    m->s.eval_every = 50;
    m->s.warmup = 20;
    m->s.lr = 1e-3;
    m->s.min_lr = 1e-4;
    m->s.steps = kiln_clock_steps(&m->clock, &m->s, 0, 0);
}

/* Train in a world where step i takes `takes(i)` seconds; returns when it ended. */
static double train(struct made_up *m, double (*takes)(uint64_t), double eval_s) {
    struct kiln_err err;
    double now = 0;
    bool turned;
    for (uint64_t step = 0; step < m->s.steps;) {
        CHECK_OK(kiln_clock_tick(&m->clock, &m->s, step, now, &turned, &err), &err);
        now += takes(step);
        step++;
        if (step % m->s.eval_every == 0 || step == m->s.steps) {
            now += eval_s;
            kiln_clock_evaluated(&m->clock, eval_s);
        }
    }
    return now + m->clock.tail;
}

static double as_measured(uint64_t step) { return step == 0 ? 0.5 : 0.1; }
static double half_as_fast(uint64_t step) { return step == 0 ? 0.5 : 0.2; }
static double twice_as_fast(uint64_t step) { return step == 0 ? 0.5 : 0.05; }
static double slows_down(uint64_t step) { return step < 300 ? 0.1 : 0.4; }
static double drags(uint64_t step) { return 0.1 + 0.0005 * (double)step; }
static double hiccups(uint64_t step) { return step % 97 == 50 ? 1.0 : 0.1; }

TEST(a_machine_as_it_was_measured_needs_no_turn) {
    struct made_up m;
    begin(&m, 100, 0.1, 0.3);
    CHECK(m.s.steps > 900 && m.s.steps < 1000);
    const double end = train(&m, as_measured, 0.3);
    CHECK_EQ(m.turns, 0);
    CHECK(end > 96 && end < 104);
    kiln_settings_free(&m.s);
}

TEST(whatever_the_machine_does_the_end_is_within_a_tenth_of_the_time) {
    double (*const worlds[])(uint64_t) = {half_as_fast, twice_as_fast, slows_down, drags, hiccups};
    for (size_t i = 0; i < sizeof worlds / sizeof worlds[0]; i++) {
        for (int evaluation = 0; evaluation < 3; evaluation++) {
            struct made_up m;
            begin(&m, 100, 0.1, 0.1);
            const double end = train(&m, worlds[i], 0.5 * evaluation);
            CHECK(end > 90 && end < 110);
            CHECK(m.turns <= KILN_TURNS);
            kiln_settings_free(&m.s);
        }
    }
}

TEST(the_learning_rate_never_jumps_at_a_turn_and_ends_at_its_end) {
    struct made_up m;
    begin(&m, 100, 0.1, 0.1);
    (void)train(&m, slows_down, 0.1);
    CHECK(m.turns > 0);
    double before = kiln_learning_rate(&m.s, m.s.warmup);
    CHECK_CLOSE(before, 1e-3, 1e-12);
    for (uint64_t step = m.s.warmup + 1; step < m.s.steps; step++) {
        const double lr = kiln_learning_rate(&m.s, step);
        CHECK(lr <= before && before - lr < 0.2e-3);
        before = lr;
    }
    CHECK_CLOSE(before, 1e-4, 1e-9);
    /* What was trained before a turn keeps the rate it had. */
    struct kiln_settings early = m.s;
    early.n_turns = 0;
    early.steps = m.s.turn[0].before;
    for (uint64_t step = 0; step < m.s.turn[0].at; step++) {
        CHECK(kiln_learning_rate(&m.s, step) == kiln_learning_rate(&early, step));
    }
    kiln_settings_free(&m.s);
}

TEST(turns_survive_run_json) {
    struct made_up m;
    struct kiln_settings read;
    struct kiln_err err;
    begin(&m, 100, 0.1, 0.1);
    (void)train(&m, slows_down, 0.1);
    char *json = kiln_settings_to_json(&m.s);
    CHECK_OK(kiln_settings_init(&read, &err), &err);
    CHECK_OK(kiln_settings_from_json(&read, json, strlen(json), &err), &err);
    CHECK_EQ(read.n_turns, m.s.n_turns);
    for (uint64_t step = 0; step < m.s.steps; step++) {
        CHECK(kiln_learning_rate(&m.s, step) == kiln_learning_rate(&read, step));
    }
    static const char *const bad[] = {"{\"turns\": 5}", "{\"turns\": [[5]]}",
                                      "{\"turns\": [[9, 10], [5, 10]]}", "{\"turns\": [[-1, 4]]}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_EQ(kiln_settings_from_json(&read, bad[i], strlen(bad[i]), &err), KILN_EINPUT);
        CHECK(strstr(err.message, "turns") != NULL);
    }
    kiln_settings_json_free(json);
    kiln_settings_free(&read);
    kiln_settings_free(&m.s);
}

/* ---- a run ------------------------------------------------------------------------------------
 */

enum { STEPS_ARE_ENOUGH = 40 };
static struct kiln_clock real; /* what the run has put there */

/* One turn, and not to as many steps as an hour has time for. */
static enum kiln_status turn_a_little(void *context, uint64_t at, uint64_t steps,
                                      struct kiln_err *err) {
    const struct kiln_run *run = context;
    CHECK(steps > STEPS_ARE_ENOUGH);
    return run->settings.steps < STEPS_ARE_ENOUGH ? real.turn(context, at, STEPS_ARE_ENOUGH, err)
                                                  : KILN_OK;
}

/* A tiny run whose clock finds out that there is time for more; its hash, and its settings. */
static uint32_t train_with_turn(const char *name, struct kiln_settings *out) {
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    tiny_settings(&s, name, "steps=24 eval-every=6 save-every=4 keep-checkpoints=9 warmup=3");
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    struct kiln_clock *clock = &run->trainer.clock;
    /* Steps that nobody has measured before, and 24 of them take all of the time but a little: as
     * soon as eight were seen there is time for a few more, however fast this machine is. */
    clock->whole = 1e-3;
    clock->deadline = kiln_now_s() + 3600;
    clock->tail = 0;
    clock->step_s = 1;
    real = *clock;
    clock->turn = turn_a_little;
    CHECK_OK(kiln_run_train(run, NULL, NULL, &err), &err);
    const uint32_t hash = kiln_run_weights_hash(run);
    CHECK_OK(kiln_settings_copy(out, &run->settings, &err), &err);
    kiln_run_close(run);
    kiln_settings_free(&s);
    return hash;
}

static bool whole; /* the run.json that was written last has all that a run's has */

static void watch(const struct kiln_io_event *event) {
    struct kiln_err err;
    char *json;
    size_t size;
    if (event->op == KILN_IO_RENAME && event->done && strstr(event->to, "/run.json")) {
        CHECK_OK(kiln_read_file(event->to, &json, &size, &err), &err);
        whole = strstr(json, "\"sizes\": {") && strstr(json, "\"figures\": {");
        kiln_free(json);
    }
}

TEST(a_run_with_a_turn_is_what_its_run_json_says) {
    struct kiln_settings turned, s;
    struct kiln_run *run;
    struct kiln_err err;
    const uint32_t hash = train_with_turn("turned", &turned);
    CHECK(turned.n_turns > 0);
    /* The same settings, and nobody looks at a clock. */
    tiny_settings(&s, "told", "eval-every=6 save-every=4 warmup=3");
    s.steps = turned.steps;
    s.n_turns = turned.n_turns;
    memcpy(s.turn, turned.turn, sizeof s.turn);
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    CHECK_OK(kiln_run_train(run, NULL, NULL, &err), &err);
    CHECK_EQ(kiln_run_weights_hash(run), hash);
    kiln_run_close(run);
    /* Its checkpoints were written before the turn and after it: all of them lead to this end. */
    struct kiln_replay_result result;
    const struct kiln_replay_options how = {
        .run = test_path("turned"), .from = KILN_UNSET, .steps = KILN_UNSET};
    kiln_io_hook = watch;
    CHECK_OK(kiln_verify_run(&how, &result, &err), &err);
    kiln_io_hook = NULL;
    CHECK(result.pass && whole);
    CHECK(result.from < turned.turn[0].at && result.to == turned.steps);
    kiln_replay_free(&result);
    kiln_settings_free(&s);
    kiln_settings_free(&turned);
}

/* ---- observers ------------------------------------------------------------------------------ */

#define OBSERVED_MS 300

static void observe(void) {
    const struct timespec time = {0, OBSERVED_MS * 1000000L};
    nanosleep(&time, NULL);
}

/* Of the steps that come behind an observer: if its time were theirs, none would be shorter. */
struct observed {
    double step_ms, checkpoint_ms, update_ms;
    bool checkpoint;
};

static void slow_step(void *context, const struct kiln_step_record *record) {
    struct observed *seen = context;
    if (record->step > 1) {
        seen->step_ms = fmin(seen->step_ms, record->ms);
    }
    if (seen->checkpoint) {
        seen->checkpoint_ms = fmin(seen->checkpoint_ms, record->ms);
        seen->update_ms = fmin(seen->update_ms, record->update_ms);
    }
    seen->checkpoint = false;
    observe();
}

static void slow_checkpoint(void *context, uint64_t step, const char *path) {
    struct observed *seen = context;
    (void)step, (void)path;
    seen->checkpoint = true;
    observe();
}

TEST(what_an_observer_does_is_no_step_s_time) {
    const double none = (double)INFINITY;
    struct observed seen = {none, none, none, false};
    const struct kiln_observer observer = {
        .context = &seen, .on_step = slow_step, .on_checkpoint = slow_checkpoint};
    tiny_run("observed", "eval-every=100", &observer);
    CHECK(seen.step_ms < OBSERVED_MS);
    CHECK(seen.checkpoint_ms < OBSERVED_MS);
    CHECK(seen.update_ms < OBSERVED_MS);
}

TEST(what_an_observer_does_turns_no_clock) {
    static struct kiln_trainer trainer;
    trainer.since = 100;
    kiln_cost_leave_out(&trainer, kiln_now_s() - 0.3);
    CHECK(trainer.since >= 100.3);
    CHECK(trainer.clock.evaluating >= 0.3);
    CHECK_EQ(trainer.clock.seen, 0);
}
