/* SPDX-License-Identifier: MIT
 *
 * The norm of a window whose squares were summed on the way: that from memory, to the bit, on every
 * device, for any number of threads, any plan, and where a process ends in the middle of the last
 * micro-batch.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kiln_test.h"
#include "train/engine_lab.h"
#include "train/lasting.h"
#include "train/run_int.h"
#include "train/tiny_run.h"

static struct kiln_plan_request request_of(struct kiln_device_choice device, bool tied,
                                           enum kiln_precision precision) {
    struct kiln_err err;
    struct kiln_plan_request r = {.dims = {.dim = 72,
                                           .hidden = 100,
                                           .layers = 2,
                                           .heads = 4,
                                           .kv_heads = 2,
                                           .vocab = 300,
                                           .seq = 16,
                                           .rms_eps = 1e-5f,
                                           .rope_theta = 10000,
                                           .tied = tied},
                                  .device = device,
                                  .batch = 2,
                                  .seq = 16,
                                  .accum = 2,
                                  .precision = precision,
                                  .profile = {.tflops = 0.2, .compile_s = 0.01}};
    CHECK_OK(kiln_dims_check(&r.dims, &err), &err);
    CHECK_OK(kiln_keep_parse("all", &r.keep, &err), &err);
    return r;
}

/* What was summed on the way: everything but what is still to change. */
static void check_all_taken(const struct engine_lab *lab) {
    const struct kiln_gradient_sums *sums = kiln_optimizer_sums(lab->engine.optimizer);
    const struct kiln_table *table = lab->table;
    for (size_t i = 0; i < table->n_matrices; i++) {
        const size_t end = i + 1 < table->n_matrices ? sums->first[i + 1] : sums->n;
        const bool later = table->matrices[i].kind == KILN_MATRIX_HEAD && table->dims.tied;
        for (size_t b = sums->first[i]; b < end; b++) {
            CHECK_EQ(sums->done[b], !later);
        }
    }
}

/* The norm from memory: nothing is taken, and the gradients are those before H + E. */
static double norm_from_memory(struct engine_lab *lab, const float *gradients) {
    memcpy(lab->memory.optimizer.gradients.all, gradients, lab->table->size * sizeof *gradients);
    kiln_gradient_sums_clear(kiln_optimizer_sums(lab->engine.optimizer));
    return kiln_optimizer_norm(lab->engine.optimizer, 1);
}

static double check_norm(const struct kiln_plan_request *r) {
    struct engine_lab lab;
    engine_lab_open(&lab, r, 0, 0);
    const size_t bytes = lab.table->size * sizeof(float);
    float *before = kiln_alloc(bytes, 1);
    double norm = 0.0;
    for (int i = 0; i < 2; i++) {
        CHECK(engine_lab_window(&lab) > 0);
        check_all_taken(&lab);
        memcpy(before, lab.memory.optimizer.gradients.all, bytes);
        norm = kiln_optimizer_norm(lab.engine.optimizer, 1);
        CHECK(norm > 0);
        CHECK_CLOSE(norm_from_memory(&lab, before), norm, 0);
        engine_lab_update(&lab, norm);
    }
    kiln_free(before);
    engine_lab_close(&lab);
    return norm;
}

static void norms_are_those_from_memory(struct kiln_plan_request r) {
    double want = 0.0;
    for (r.threads = 1; r.threads <= 4; r.threads++) {
        const double norm = check_norm(&r);
        want = r.threads == 1 ? norm : want;
        CHECK_CLOSE(norm, want, 0);
    }
}

static const struct kiln_device_choice cpu = {.id = KILN_CPU};

TEST(the_norm_on_the_cpu_is_that_from_memory) {
    norms_are_those_from_memory(request_of(cpu, true, KILN_PRECISION_FP32));
    norms_are_those_from_memory(request_of(cpu, false, KILN_PRECISION_BF16));
}

/* The classifier's gradient is written in blocks of 512 tokens: the last one of 88 ends it. */
TEST(the_norm_of_many_tokens_is_that_from_memory) {
    struct kiln_plan_request r = request_of(cpu, false, KILN_PRECISION_FP32);
    r.batch = 1;
    r.seq = r.dims.seq = 600;
    norms_are_those_from_memory(r);
    r.accum = 1;
    CHECK_OK(kiln_keep_parse("none", &r.keep, NULL), NULL);
    norms_are_those_from_memory(r);
}

TEST_WITHIN(the_norm_on_the_simulator_is_that_from_memory, 120) {
    norms_are_those_from_memory(
        request_of((struct kiln_device_choice){.id = KILN_SIM}, true, KILN_PRECISION_FP16));
    norms_are_those_from_memory(request_of(
        (struct kiln_device_choice){.id = KILN_SIM, .extras = true}, false, KILN_PRECISION_FP16));
    norms_are_those_from_memory(request_of(
        (struct kiln_device_choice){.id = KILN_SIM, .dynamic = true}, false, KILN_PRECISION_FP16));
}

/* Who changes a gradient behind the device does not see it in the norm: memory is not read. */
TEST(the_norm_reads_what_was_summed_on_the_way) {
    const struct kiln_plan_request r = request_of(cpu, false, KILN_PRECISION_FP32);
    struct engine_lab lab;
    engine_lab_open(&lab, &r, 0, 0);
    const double norm = (engine_lab_window(&lab), kiln_optimizer_norm(lab.engine.optimizer, 1));
    float *gradients = lab.memory.optimizer.gradients.all;
    for (size_t i = 0; i < lab.table->n_matrices; i++) {
        engine_lab_window(&lab);
        gradients[lab.table->matrices[i].offset] += 1000.0f;
        CHECK_CLOSE(kiln_optimizer_norm(lab.engine.optimizer, 1), norm, 0);
        CHECK(kiln_optimizer_norm(lab.engine.optimizer, 1) > 999.0); /* it forgot them */
    }
    engine_lab_close(&lab);
}

/* ---- whole runs ---------------------------------------------------------------------------------
 */

#define STEPS "steps=4 eval-every=2 accum=2 layers=3 "

/* Has the last micro-batch gone back through a group, and not through all? */
static bool in_the_last_way_back(const struct kiln_executor *x) {
    const struct kiln_position *at = &x->position;
    const struct kiln_schedule_plan *schedule = &x->plan->schedule;
    const struct kiln_plan_group *groups = schedule->groups.at;
    return !at->evaluate && (at->round + 1) * schedule->held >= at->micro_batches &&
           at->group > 0 && groups[at->group].pass == KILN_PLAN_BACKWARD &&
           groups[at->group - 1].pass == KILN_PLAN_BACKWARD;
}

/* Train a run, over restarts; counts those where what the process before has summed is lost, and
 * the rest is summed on the way. */
static char *metrics_of(const char *name, const char *changes, size_t *in_the_middle) {
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    char folder[4096], all[512];
    snprintf(folder, sizeof folder, "%s", test_path(name));
    snprintf(all, sizeof all, STEPS "%s", changes);
    tiny_settings(&s, name, all);
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    kiln_settings_free(&s);
    enum kiln_status status;
    *in_the_middle = 0;
    while ((status = kiln_run_train(run, NULL, NULL, &err)) == KILN_ERESTART) {
        *in_the_middle += in_the_last_way_back(&run->trainer.engine.executor);
        CHECK_OK(kiln_run_take_over(kiln_run_hand_over(run), folder, &run, &err), &err);
    }
    CHECK_OK(status, &err);
    kiln_run_close(run);
    return lasting_metrics(folder);
}

TEST_WITHIN(the_norm_of_a_run_does_not_depend_on_its_plan, 120) {
    static const char *const runs[] = {
        "threads=1",
        "threads=3 activations=none",
        "budget=1000 overlap=off",
        "budget=1000 overlap=exact activations=sqrt",
        "budget=1000 overlap=exact schedule=whole",
        "budget=20 schedule=whole activations=none",
        "budget=7 schedule=split",
        "budget=9 schedule=split activations=none",
    };
    char *want = NULL;
    size_t restarts = 0;
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        char name[16];
        size_t in_the_middle;
        snprintf(name, sizeof name, "run%zu", i);
        char *metrics = metrics_of(name, runs[i], &in_the_middle);
        want = want ? want : metrics;
        CHECK_STRING(metrics, want);
        CHECK_CONTAINS(metrics, "grad_norm");
        restarts += in_the_middle;
        if (metrics != want) {
            free(metrics);
        }
    }
    free(want);
    printf("      %zu restarts in the middle of a last way back\n", restarts);
    CHECK(restarts >= 4);
}
