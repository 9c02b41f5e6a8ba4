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

#include "base/mem.h"
#include "base/random.h"
#include "kiln_test.h"
#include "train/engine.h"
#include "train/lasting.h"
#include "train/run_int.h"
#include "train/tiny_run.h"

enum { LAYERS = 5, SEQ = 16, BATCH = 2, ACCUM = 5, VOCAB = 300, WINDOWS = 2 };

struct lab {
    struct kiln_table *table;
    struct kiln_engine engine;
    struct kiln_arena arena;
    struct kiln_engine_memory memory;
    double loss;
};

static void random_batch(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets) {
    (void)context;
    for (uint64_t i = 0; i < BATCH * SEQ; i++) {
        const uint64_t at = index * BATCH * SEQ + i;
        tokens[i] = (uint32_t)kiln_random_below(1, KILN_STREAM_TEST, at, VOCAB);
        targets[i] = (uint32_t)kiln_random_below(2, KILN_STREAM_TEST, at, VOCAB);
    }
}

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

static void open_lab(struct lab *lab, const struct kiln_plan_request *r, size_t held, size_t cut) {
    struct kiln_err err;
    *lab = (struct lab){.loss = 0};
    CHECK_OK(kiln_table_create(&r->dims, &lab->table, &err), &err);
    const size_t bytes = lab->table->size * sizeof(float);
    const size_t embedding = r->dims.vocab * r->dims.dim * sizeof(float);
    size_t planned = kiln_arena_reserve(0, embedding);
    for (int i = 0; i < 4; i++) {
        planned = kiln_arena_reserve(planned, bytes);
    }
    CHECK_OK(kiln_arena_open(&lab->arena, planned, &err), &err);
    struct kiln_optimizer_parts *parts = &lab->memory.optimizer;
    *parts = (struct kiln_optimizer_parts){
        .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip = 1.0};
    lab->memory.weights = kiln_arena_take(&lab->arena, bytes);
    parts->m = kiln_arena_take(&lab->arena, bytes);
    parts->v = kiln_arena_take(&lab->arena, bytes);
    parts->gradients.all = kiln_arena_take(&lab->arena, bytes);
    parts->gradients.embedding = kiln_arena_take(&lab->arena, embedding);
    kiln_weights_init(lab->table, 1, lab->memory.weights);
    CHECK_OK(kiln_engine_plan(&lab->engine, lab->table, r, &err), &err);
    lab->engine.plan.request = &lab->engine.request;
    CHECK_OK(kiln_plan_hold(lab->table, &lab->engine.plan, held, cut, NULL, &err), &err);
    CHECK(lab->engine.plan.schedule.one_batch && !lab->engine.plan.layout.in_state);
    CHECK_OK(kiln_engine_open(&lab->engine, lab->table, &lab->memory, &err), &err);
}

static void close_lab(struct lab *lab) {
    kiln_engine_close(&lab->engine);
    kiln_arena_close(&lab->arena);
    kiln_table_destroy(lab->table);
}

/* Windows and updates; in the end gradients of the last one, and the weights behind it. */
static void train(struct lab *lab) {
    struct kiln_executor *x = &lab->engine.executor;
    struct kiln_err err;
    x->scale = 1.0f / (BATCH * SEQ * ACCUM);
    for (uint64_t i = 0; i < WINDOWS; i++) {
        const struct kiln_plan_action update = {.what = KILN_UPDATE};
        kiln_executor_begin(x, false, ACCUM, random_batch, NULL);
        CHECK_OK(kiln_executor_window(x, &err), &err);
        lab->loss = x->loss_sum;
        const double norm = kiln_optimizer_norm(lab->engine.optimizer, 1);
        CHECK_OK(kiln_executor_do(x, &update, &err), &err);
        kiln_optimizer_update(lab->engine.optimizer, i + 1, 1e-2, norm, 1);
    }
}

static void check_equal(const struct lab *a, const struct lab *b) {
    const size_t bytes = a->table->size * sizeof(float);
    const struct kiln_gradients *g = &a->memory.optimizer.gradients,
                                *h = &b->memory.optimizer.gradients;
    CHECK(a->loss == b->loss);
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
        struct lab one, rounds;
        open_lab(&one, &r, 1, 0);
        train(&one);
        CHECK(one.loss > 0);
        for (size_t i = 0; i < 9; i += 2) {
            open_lab(&rounds, &r, helds[i % 3], i / 3);
            train(&rounds);
            check_equal(&one, &rounds);
            close_lab(&rounds);
        }
        close_lab(&one);
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
