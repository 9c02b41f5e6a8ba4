/* SPDX-License-Identifier: MIT
 *
 * test_ane.c: training through MIL programs on the simulator: against float64 references, against
 * the cpu, within budgets, moving the bytes that the plan says.
 */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "device/device.h"
#include "device/sim/sim.h"
#include "kiln/train.h"
#include "kiln/verify.h"
#include "kiln_test.h"
#include "train/lasting.h"
#include "train/tiny_run.h"

/* ---- references --------------------------------------------------------------------------------
 */

static const struct kiln_device_choice choices[] = {
    {.id = KILN_SIM, .extras = true},
    {.id = KILN_SIM},
    {.id = KILN_SIM, .dynamic = true},
};

static void meets_the_reference(const char *name) {
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        const struct kiln_verify_options options = {
            .reference = test_reference(name), .threads = 2, .device = choices[i]};
        struct kiln_verify_result result;
        struct kiln_err err;
        CHECK_OK(kiln_verify_reference(&options, &result, &err), &err);
        CHECK_CLOSE(result.loss_limit, 2e-3, 0);
        CHECK_CLOSE(result.gradient_limit, 1e-2, 0);
        printf("      %-16s %-7s %-6s losses %.1e, %s %.1e\n", name,
               choices[i].dynamic ? "dynamic" : "baked", choices[i].extras ? "extras" : "plain",
               result.loss_error, result.worst.name, result.worst.error);
        if (!result.pass) {
            FAIL("%s, choice %zu: losses off by %g, %s by %g", name, i, result.loss_error,
                 result.worst.name, result.worst.error);
        }
        kiln_verify_free(&result);
    }
}

TEST_WITHIN(sim_meets_tiny_mha_baked_and_dynamic, 120) { meets_the_reference("tiny-mha"); }
TEST_WITHIN(sim_meets_tiny_gqa_untied_baked_and_dynamic, 120) {
    meets_the_reference("tiny-gqa-untied");
}
TEST_WITHIN(sim_meets_small_gqa_baked_and_dynamic, 300) { meets_the_reference("small-gqa"); }

/* A number of a step's line. */
static double real_metric(const char *folder, size_t step, const char *key) {
    char path[4200], *text;
    size_t size;
    struct kiln_err err;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    CHECK_OK(kiln_read_file(path, &text, &size, &err), &err);
    char *line = strtok(text, "\n");
    for (size_t i = 1; i < step && line; i++) {
        line = strtok(NULL, "\n");
    }
    CHECK(line != NULL);
    json_t *all = json_loads(line, 0, NULL);
    CHECK(all != NULL && json_is_number(json_object_get(all, key)));
    const double value = json_number_value(json_object_get(all, key));
    json_decref(all);
    kiln_free(text);
    return value;
}

/* ---- beside the cpu ----------------------------------------------------------------------------
 */

enum { MOST_STEPS = 64 };
struct losses {
    double at[MOST_STEPS];
    size_t n;
};

static void note_loss(void *context, const struct kiln_step_record *record) {
    struct losses *losses = context;
    CHECK(losses->n < MOST_STEPS && !record->skipped);
    losses->at[losses->n++] = record->loss;
}

static void stories_losses(const char *model, const char *tokenizer, const char *device,
                           struct losses *out) {
    const struct kiln_observer observer = {.context = out, .on_step = note_loss};
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    const struct {
        enum kiln_setting_id id;
        const char *text;
    } flags[] = {{KILN_SETTING_model, test_data(model)},
                 {KILN_SETTING_data, test_data("tinystories_train.txt")},
                 {KILN_SETTING_tokenizer, test_data(tokenizer)},
                 {KILN_SETTING_device, device},
                 {KILN_SETTING_precision, strcmp(device, "cpu") == 0 ? "fp32" : "fp16"},
                 {KILN_SETTING_seq, "64"},
                 {KILN_SETTING_batch, "2"},
                 {KILN_SETTING_accum, "2"},
                 {KILN_SETTING_steps, "50"},
                 {KILN_SETTING_eval_every, "0"},
                 {KILN_SETTING_save_every, "0"},
                 {KILN_SETTING_threads, "2"},
                 {KILN_SETTING_budget, "100000"}};
    CHECK_OK(kiln_settings_init(&s, &err), &err);
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        CHECK_OK(kiln_settings_set(&s, flags[i].id, flags[i].text, KILN_FROM_FLAG, &err), &err);
    }
    CHECK_OK(kiln_settings_set(&s, KILN_SETTING_out, test_path(device), KILN_FROM_FLAG, &err),
             &err);
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    CHECK_OK(kiln_run_train(run, &observer, NULL, &err), &err);
    kiln_run_close(run);
    kiln_settings_free(&s);
}

/* Within 1 %; bf16 alone is off by up to 0.8 % here, so the cpu's are fp32. */
static void trains_as_on_cpu(const char *model, const char *tokenizer) {
    struct losses cpu = {.n = 0}, sim = {.n = 0};
    double worst = 0;
    stories_losses(model, tokenizer, "cpu", &cpu);
    stories_losses(model, tokenizer, "sim", &sim);
    CHECK_EQ(cpu.n, 50);
    CHECK_EQ(sim.n, 50);
    for (size_t i = 0; i < 50; i++) {
        const double off = fabs(sim.at[i] - cpu.at[i]) / cpu.at[i];
        worst = off > worst ? off : worst;
        if (!(off <= 0.005)) {
            FAIL("step %zu: loss %.4f on sim, %.4f on cpu", i + 1, sim.at[i], cpu.at[i]);
        }
    }
    printf("      %s: losses of 50 steps differ by %.2g at most\n", model, worst);
}

TEST_WITHIN(story656k_trains_on_sim_as_on_cpu, 200) {
    trains_as_on_cpu("story656K.bin", "tok2048.bin");
    ;
}
TEST_WITHIN(stories260k_trains_on_sim_as_on_cpu, 200) {
    trains_as_on_cpu("stories260K.bin", "tok512.bin");
    ;
}

/* One layer forward and backward on a device: what it adds to x, and the gradient of x. */
static void pass_layer(const struct kiln_table *table, const float *weights, float *gradients,
                       struct kiln_device_choice choice, const float *x, float *added, float *dx) {
    const struct kiln_device_options options = {
        .device = choice,
        .shape = {2, 24},
        .precision = choice.id == KILN_CPU ? KILN_PRECISION_FP32 : KILN_PRECISION_FP16,
        .training = true};
    const size_t n = 2 * 24 * table->dims.dim;
    struct kiln_pool *pool;
    struct kiln_device *d;
    struct kiln_err err;
    CHECK_OK(kiln_pool_create(2, &pool, &err), &err);
    const struct kiln_weights flat = kiln_weights_flat(table, weights);
    CHECK_OK(kiln_device_open(table, pool, &flat, &options, &d, &err), &err);
    for (size_t kind = 0; kind < KILN_KINDS; kind++) {
        if (d->caps.kinds[kind].compiles > 0) {
            CHECK_OK(d->ops->compile(d, 0, kind, 0, &flat, &err), &err);
        }
    }
    void *blocks[6];
    static const enum kiln_activation what[6] = {KILN_RESIDUAL,       KILN_RESIDUAL,
                                                 KILN_RESIDUAL,       KILN_RESIDUAL,
                                                 KILN_TAPS_ATTENTION, KILN_TAPS_FEED_FORWARD};
    for (size_t i = 0; i < 6; i++) {
        blocks[i] = kiln_alloc(d->ops->activation_bytes(d, what[i]), 1);
        CHECK(blocks[i] != NULL);
    }
    d->gradients.all = gradients;
    d->ops->import_residual(d, x, blocks[0]);
    d->ops->import_residual(d, dx, blocks[3]);
    CHECK_OK(d->ops->forward(d, 0, KILN_ATTENTION, blocks[0], blocks[1], blocks[4], true, &err),
             &err);
    CHECK_OK(d->ops->forward(d, 0, KILN_FEED_FORWARD, blocks[1], blocks[2], blocks[5], true, &err),
             &err);
    CHECK_OK(d->ops->backward(d, 0, KILN_FEED_FORWARD, blocks[1], blocks[3], blocks[5], &err),
             &err);
    CHECK_OK(d->ops->backward(d, 0, KILN_ATTENTION, blocks[0], blocks[3], blocks[4], &err), &err);
    CHECK_OK(d->ops->drain(d, &err), &err);
    d->ops->export_residual(d, blocks[2], added);
    d->ops->export_residual(d, blocks[3], dx);
    for (size_t i = 0; i < n; i++) {
        added[i] -= x[i];
    }
    for (size_t i = 0; i < 6; i++) {
        kiln_free(blocks[i]);
    }
    kiln_device_close(d);
    kiln_pool_destroy(pool);
}

/* Residuals whose squares are beyond fp16 are normed right all the same, forward and backward. */
TEST(residuals_beyond_the_squares_of_fp16_are_normed_right) {
    const struct kiln_dims dims = {.dim = 32,
                                   .hidden = 64,
                                   .layers = 1,
                                   .heads = 4,
                                   .kv_heads = 2,
                                   .head_size = 8,
                                   .vocab = 40,
                                   .seq = 24,
                                   .tied = true,
                                   .rms_eps = 1e-5f,
                                   .rope_theta = 1e4f};
    struct kiln_table *table;
    struct kiln_err err;
    enum { N = 2 * 24 * 32 };
    static float x[N], want[N], got[N], dx_want[N], dx_got[N], dx[N];
    CHECK_OK(kiln_table_create(&dims, &table, &err), &err);
    float *weights = kiln_alloc(table->size, sizeof *weights);
    float *gradients = kiln_alloc(table->size, sizeof *gradients);
    CHECK(weights && gradients);
    kiln_weights_init(table, 1, weights);
    for (size_t i = 0; i < N; i++) {
        const float sign = i % 3 == 0 ? -1.0f : 1.0f;
        x[i] = sign * (float)(1 + i % 7);
        dx[i] = sign * (float)(1 + i % 5);
        x[i] = i % 32 == 3 && i / 32 % 4 == 0 ? sign * 6000.0f : x[i]; /* one channel */
        x[i] = i / 32 % 8 == 1 ? 400.0f * x[i] : x[i];                 /* a whole token */
    }
    memcpy(dx_want, dx, sizeof dx);
    pass_layer(table, weights, gradients, (struct kiln_device_choice){.id = KILN_CPU}, x, want,
               dx_want);
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        memcpy(dx_got, dx, sizeof dx);
        pass_layer(table, weights, gradients, choices[i], x, got, dx_got);
        CHECK_NEAR_NORM(got, want, N, 1e-2);
        CHECK_NEAR_NORM(dx_got, dx_want, N, 1e-2);
        for (size_t t = 0; t < 48; t++) { /* each token by itself: none is drowned by another */
            CHECK_NEAR_NORM(got + t * 32, want + t * 32, 32, 5e-2);
        }
    }
    kiln_free(weights);
    kiln_free(gradients);
    kiln_table_destroy(table);
}

/* ---- what is moved, and what is compiled
 * --------------------------------------------------------- */

/* A count. */
static uint64_t metric(const char *folder, size_t step, const char *key) {
    return (uint64_t)real_metric(folder, step, key);
}

/* The bytes of a step are those of the plan, which counts rows by formula; the device counts what
 * it moves. Steps 3 and 4: nothing is compiled for the first time. */
static void moves_what_is_planned(const char *changes) {
    char all[300];
    struct kiln_settings s;
    struct kiln_plan_request request;
    struct kiln_estimate estimate;
    struct kiln_err err;
    char name[512];
    snprintf(all, sizeof all, "device=sim steps=4 eval-every=0 save-every=0 budget=100000 %s",
             changes);
    const char *folder = tiny_run("moves", all, NULL);
    tiny_settings(&s, "moves-plan", all);
    CHECK_OK(kiln_run_plan(&s, &request, name, &err), &err);
    CHECK_OK(kiln_estimate(&request, false, &estimate, &err), &err);
    CHECK(estimate.surface_written > 0 && estimate.surface_read > 0);
    for (size_t step = 3; step <= 4; step++) {
        CHECK_EQ(metric(folder, step, "surface_written_bytes"), (uint64_t)estimate.surface_written);
        CHECK_EQ(metric(folder, step, "surface_read_bytes"), (uint64_t)estimate.surface_read);
        CHECK_EQ(metric(folder, step, "compiles"), (uint64_t)estimate.compiles);
    }
    kiln_estimate_free(&estimate);
    kiln_settings_free(&s);
}

TEST(surface_bytes_are_those_of_the_plan) { moves_what_is_planned("activations=all"); }
TEST(surface_bytes_are_those_of_the_plan_without_extras) {
    moves_what_is_planned("activations=all no-extras=1");
}
TEST(surface_bytes_are_those_of_the_plan_where_layers_run_again) {
    moves_what_is_planned("activations=none layers=3 seq=30");
}
TEST(surface_bytes_are_those_of_the_plan_with_dynamic_weights) {
    moves_what_is_planned("weight-mode=dynamic kv-heads=4");
}

TEST_WITHIN(surface_bytes_are_those_of_the_plan_with_documents, 120) {
    moves_what_is_planned("doc-mask=1 vocab=259 overlap=off");
}
TEST(surface_bytes_are_those_of_the_plan_with_documents_and_dynamic_weights) {
    moves_what_is_planned("doc-mask=1 weight-mode=dynamic vocab=259");
}
TEST(surface_bytes_are_those_of_the_plan_with_adapters) {
    moves_what_is_planned("lora=3 lora-targets=all vocab=259");
}
TEST(surface_bytes_are_those_of_the_plan_with_adapters_and_dynamic_weights) {
    moves_what_is_planned("lora=20 lora-targets=q,up weight-mode=dynamic vocab=259");
}

/* Adapters are inputs: the kernels of the frozen weights are compiled for the first window, and
 * serve evaluations and all windows after it. */
TEST(kernels_of_frozen_weights_are_compiled_once) {
    const char *folder =
        tiny_run("frozen", "device=sim lora=4 steps=5 budget=100000 vocab=259", NULL);
    CHECK(metric(folder, 1, "compiles") > 0);
    for (size_t step = 2; step <= 5; step++) {
        CHECK_EQ(metric(folder, step, "compiles"), 0);
    }
    CHECK(real_metric(folder, 5, "loss") < real_metric(folder, 1, "loss"));
}

/* ---- the queue
 * ----------------------------------------------------------------------------------- */

/* For the thread sanitizer: 1000 micro-batches whose weight gradients are taken beside the device.
 */
TEST_WITHIN(a_thousand_micro_batches_with_the_queue_running, 300) {
    const char *folder =
        tiny_run("thousand",
                 "device=sim dim=16 hidden=32 heads=2 kv-heads=1 layers=1 seq=16 batch=1 accum=20 "
                 "steps=50 threads=3 eval-every=0 save-every=0 budget=100000",
                 NULL);
    CHECK_EQ(metric(folder, 50, "tokens"), 1000 * 16);
}

struct scales {
    double highest, lowest_after; /* and the lowest behind a skipped window */
    size_t skipped, steps;
    bool finite;
};

static void note_scale(void *context, const struct kiln_step_record *record) {
    struct scales *s = context;
    s->steps++;
    s->skipped += record->skipped;
    s->finite &= isfinite(record->loss) && (record->skipped || isfinite(record->grad_norm));
    if (s->skipped == 0) {
        s->highest = record->loss_scale;
    } else if (record->loss_scale < s->lowest_after) {
        s->lowest_after = record->loss_scale;
    }
}

/* Nobody plants anything: the scale doubles every 200 windows until fp16 overflows, the window is
 * skipped, the scale halved, and training goes on. */
TEST_WITHIN(a_loss_scale_that_grew_too_far_is_halved, 120) {
    struct scales s = {.finite = true, .lowest_after = HUGE_VAL};
    const struct kiln_observer observer = {.context = &s, .on_step = note_scale};
    tiny_run("scales",
             "device=sim dim=16 hidden=32 heads=2 kv-heads=1 layers=1 seq=16 batch=1 accum=1 "
             "steps=3000 eval-every=0 save-every=0 budget=100000",
             &observer);
    printf("      %zu of %zu windows skipped; the scale reached %g and fell to %g\n", s.skipped,
           s.steps, s.highest, s.lowest_after);
    CHECK_EQ(s.steps, 3000);
    CHECK(s.skipped > 0 && s.skipped < 30 && s.finite);
    CHECK(s.lowest_after <= s.highest / 2);
}

/* Times are taken, not made up: they add up to the step's, and a compile takes what is charged. */
TEST(times_of_a_step_are_measured_and_add_up) {
    struct losses steps = {.n = 0};
    struct kiln_observer observer = {.context = &steps, .on_step = note_loss};
    struct kiln_sim_options sim;
    kiln_sim_options_default(&sim);
    const char *folder = tiny_run(
        "times",
        "device=sim overlap=off sim-time=0.05 steps=3 eval-every=0 save-every=0 budget=1000",
        &observer);
    for (size_t step = 1; step <= 3; step++) {
        const double compiles = (double)metric(folder, step, "compiles");
        const double ms = real_metric(folder, step, "ms");
        const double parts =
            real_metric(folder, step, "stall_ms") + real_metric(folder, step, "device_ms") +
            real_metric(folder, step, "host_ms") + real_metric(folder, step, "update_ms") +
            real_metric(folder, step, "restart_ms");
        CHECK(compiles > 0);
        CHECK(real_metric(folder, step, "compile_ms") >=
              compiles * sim.times.device.compile_s * 1e3 * 0.05);
        CHECK_CLOSE(real_metric(folder, step, "stall_ms"), real_metric(folder, step, "compile_ms"),
                    0.05 * real_metric(folder, step, "compile_ms"));
        CHECK(real_metric(folder, step, "device_ms") > 0);
        CHECK(real_metric(folder, step, "host_ms") > 0);
        CHECK_CLOSE(parts, ms, 1e-6 * ms);
        CHECK(real_metric(folder, step, "io_ms") + real_metric(folder, step, "dw_wait_ms") <=
              real_metric(folder, step, "host_ms"));
    }
}

/* Where new weights take effect without a compile, programs that wait for them get them: the same
 * bits, and nothing but the first window's programs is compiled. */
TEST(a_reload_that_works_saves_the_compiles_and_changes_no_bit) {
    static const char plain[] = "device=sim steps=4 eval-every=0 save-every=0 budget=1000";
    char changes[160];
    char *want = lasting_metrics(tiny_run("compiled", plain, NULL));
    snprintf(changes, sizeof changes, "%s sim=reload=on", plain);
    const char *folder = tiny_run("reloaded", changes, NULL);
    char *got = lasting_metrics(folder);
    CHECK_STRING(got, want);
    CHECK(metric(folder, 1, "compiles") > 0);
    CHECK_EQ(metric(folder, 2, "compiles"), 0);
    CHECK_EQ(metric(folder, 4, "compiles"), 0);
    free(want);
    free(got);
    /* A load budget that the parked programs fill: they make room. */
    snprintf(changes, sizeof changes, "%s sim=reload=on load-budget=13 layers=3", plain);
    got = lasting_metrics(tiny_run("tight", changes, NULL));
    snprintf(changes, sizeof changes, "%s load-budget=13 layers=3", plain);
    want = lasting_metrics(tiny_run("tight-compiled", changes, NULL));
    CHECK_STRING(got, want);
    free(want);
    free(got);
}

/* The same bits for any number of threads. */
TEST(bits_on_sim_do_not_depend_on_threads) {
    static const char *const modes[] = {"", "no-extras=1", "weight-mode=dynamic"};
    for (size_t m = 0; m < 3; m++) {
        char *first = NULL;
        for (int threads = 1; threads <= 4; threads *= 2) {
            char changes[200], name[40];
            snprintf(changes, sizeof changes, "device=sim budget=100000 threads=%d seq=24 %s",
                     threads, modes[m]);
            snprintf(name, sizeof name, "threads-%zu-%d", m, threads);
            char *metrics = lasting_metrics(tiny_run(name, changes, NULL));
            if (first) {
                CHECK_STRING(metrics, first);
                free(metrics);
            } else {
                first = metrics;
            }
        }
        free(first);
    }
}
