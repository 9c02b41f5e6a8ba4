/* SPDX-License-Identifier: MIT
 *
 * test_layer_major.c: rounds in which several micro-batches go through few layers at a time, while
 * others compile: the same gradients, bit for bit, as one micro-batch after the other; and a window
 * that is stopped in such a round is begun again.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "kiln_test.h"
#include "train/engine_lab.h"
#include "train/lasting.h"
#include "train/run_int.h"
#include "train/tiny_run.h"

enum { LAYERS = 5, SEQ = 16, BATCH = 2, ACCUM = 5, VOCAB = 300, WINDOWS = 2 };

static struct kiln_plan_request request_of(struct kiln_device_choice device, const char *keep) {
    struct kiln_err err;
    struct kiln_plan_request r = {
        .dims = {.dim = 32,
                 .hidden = 64,
                 .layers = LAYERS,
                 .heads = 4,
                 .kv_heads = 2,
                 .head_size = 8,
                 .vocab = VOCAB,
                 .seq = SEQ,
                 .rms_eps = 1e-5f,
                 .rope_theta = 10000,
                 .tied = true},
        .device = device,
        .batch = BATCH,
        .seq = SEQ,
        .accum = ACCUM,
        .budget = 100000,
        .load_budget = 100000,
        .schedule = KILN_SCHEDULE_SPLIT,
        .overlap = KILN_OVERLAP_EXACT,
        .precision = device.id == KILN_CPU ? KILN_PRECISION_FP32 : KILN_PRECISION_FP16,
        .threads = 2,
        .profile = {.tflops = 0.2, .compile_s = 0.01}};
    CHECK_OK(kiln_dims_check(&r.dims, &err), &err);
    CHECK_OK(kiln_keep_parse(keep, &r.keep, &err), &err);
    return r;
}

static void open_lab(struct engine_lab *lab, const struct kiln_plan_request *r, size_t held,
                     size_t cut) {
    engine_lab_open(lab, r, held, cut);
    CHECK(lab->engine.plan.schedule.one_batch);
}

/* Windows and updates; in the end gradients of the last one, and the weights behind it. Returns the
 * last one's loss. */
static double train(struct engine_lab *lab) {
    double loss = 0.0;
    for (uint64_t i = 0; i < WINDOWS; i++) {
        loss = engine_lab_window(lab);
        engine_lab_update(lab, kiln_optimizer_norm(lab->engine.optimizer, 1));
    }
    return loss;
}

static void check_equal(const struct engine_lab *a, const struct engine_lab *b) {
    const size_t bytes = a->table->size * sizeof(float);
    const struct kiln_gradients *g = &a->memory.optimizer.gradients,
                                *h = &b->memory.optimizer.gradients;
    CHECK_BYTES(h->all, g->all, bytes);
    CHECK_BYTES(h->embedding, g->embedding, VOCAB * a->table->dims.dim * sizeof(float));
    CHECK_BYTES(b->memory.weights, a->memory.weights, bytes);
}

static void no_round_changes_a_bit(struct kiln_device_choice device) {
    static const char *const policies[] = {"all", "every:3", "inputs", "none"};
    static const size_t helds[] = {2, 3, ACCUM};
    kiln_poison_dropped = true;
    for (size_t p = 0; p < sizeof policies / sizeof policies[0]; p++) {
        const struct kiln_plan_request r = request_of(device, policies[p]);
        struct engine_lab one, rounds;
        open_lab(&one, &r, 1, 0);
        const double loss = train(&one);
        CHECK(loss > 0);
        for (size_t i = 0; i < 9; i += 2) {
            open_lab(&rounds, &r, helds[i % 3], i / 3);
            CHECK(train(&rounds) == loss);
            check_equal(&one, &rounds);
            engine_lab_close(&rounds);
        }
        engine_lab_close(&one);
    }
    kiln_poison_dropped = false;
}

TEST_WITHIN(no_round_changes_a_bit_on_cpu, 120) {
    no_round_changes_a_bit((struct kiln_device_choice){.id = KILN_CPU});
}

TEST_WITHIN(no_round_changes_a_bit_on_sim, 300) {
    no_round_changes_a_bit((struct kiln_device_choice){.id = KILN_SIM, .extras = true});
}

/* ---- stopped in the middle ---------------------------------------------------------------------
 */

static volatile sig_atomic_t stop;

static void on_alarm(int number) { stop = number; }

static void alarm_in(long ms) {
    const struct itimerval timer = {.it_value = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

#define CHANGES                                                                     \
    "device=sim sim-time=0.2 steps=3 accum=6 budget=400 save-every=0 eval-every=2 " \
    "eval-windows=6"

TEST_WITHIN(a_round_that_is_stopped_is_begun_again, 120) {
    const char *expected = tiny_run("expected", CHANGES " overlap=off", NULL);
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    size_t stops = 0;
    enum kiln_status status = KILN_EINTERRUPTED;
    tiny_settings(&s, "stopped", CHANGES " overlap=exact");
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    signal(SIGALRM, on_alarm);
    CHECK(run->trainer.engine.plan.schedule.held > 1);
    for (long ms = 50; status == KILN_EINTERRUPTED; ms += ms / 4) {
        stop = 0;
        alarm_in(ms);
        status = kiln_run_train(run, NULL, &stop, &err);
        alarm_in(0);
        kiln_run_close(run);
        stops += status == KILN_EINTERRUPTED;
        if (status == KILN_EINTERRUPTED) {
            struct kiln_settings none;
            CHECK_OK(kiln_settings_init(&none, &err), &err);
            CHECK_OK(kiln_run_resume(s.out, &none, &run, &err), &err);
            kiln_settings_free(&none);
        }
    }
    signal(SIGALRM, SIG_DFL);
    CHECK_OK(status, &err);
    char *a = lasting_metrics(expected), *b = lasting_metrics(s.out);
    CHECK_STRING(b, a);
    free(a);
    free(b);
    printf("      %zu stops\n", stops);
    CHECK(stops > 3);
    kiln_settings_free(&s);
}
