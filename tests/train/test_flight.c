/* SPDX-License-Identifier: MIT
 *
 * test_flight.c: faults are planted, found, recorded, and survived as --on-spike says; whoever dies
 * meanwhile, the bits are the same.
 */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln/train.h"
#include "kiln/verify.h"
#include "kill_points.h"
#include "kiln_test.h"
#include "train/incident.h"
#include "train/lasting.h"
#include "train/plant.h"
#include "train/tiny_run.h"

/* Enough steps for the steps before to be known; the bad window is that of step 36. */
#define LONG  "steps=40 eval-every=0 save-every=10 spike-z=5 min-lr=3e-3 "
#define SHORT "steps=8 save-every=3 "
/* A simulated process that compiles more than a test has processes. */
#define SIM "device=sim budget=100000 load-budget=100000 "

static bool window_35(uint64_t window) { return window == 35; }
static bool from_45(uint64_t window) { return window >= 45; }
static const char *weight_at_6(uint64_t step) { return step == 6 ? "wq.1" : NULL; }

static void plant(bool (*batch)(uint64_t), const char *(*weight)(uint64_t)) {
    kiln_bad_batch_instead = batch;
    kiln_bad_weight_instead = weight;
}

/* ---- the rule ----------------------------------------------------------------------------------
 */

static struct kiln_step_record step_of(double loss, double grad_norm) {
    return (struct kiln_step_record){.loss = loss, .grad_norm = grad_norm};
}

static void add(struct kiln_spikes *spikes, size_t n, double loss) {
    for (size_t i = 0; i < n; i++) { /* two values in turns: their deviation is 0.5 */
        const struct kiln_step_record r = step_of(loss + (i % 2 == 0 ? 0.5 : -0.5), 1);
        kiln_spikes_add(spikes, &r);
    }
}

TEST(a_spike_is_measured_in_deviations_of_the_steps_before) {
    static struct kiln_spikes spikes;
    add(&spikes, 30, 4);
    CHECK(isnan(kiln_spikes_loss(&spikes, 9).z));
    add(&spikes, 2, 4);
    const struct kiln_spike_score s = kiln_spikes_loss(&spikes, 6);
    CHECK_CLOSE(s.mean, 4, 1e-15);
    CHECK_CLOSE(s.deviation, 0.5, 1e-15);
    CHECK_CLOSE(s.z, 4, 1e-14);
    CHECK_EQ(s.window, 32);
    CHECK(kiln_spikes_loss(&spikes, 1).z < 0);
    CHECK(!isfinite(kiln_spikes_loss(&spikes, (double)INFINITY).z));
    /* The norm did not move at all: a 32nd of the mean is what counts then. */
    CHECK_CLOSE(kiln_spikes_grad_norm(&spikes, 1.25).z, 8, 1e-14);
}

/* Norms of a normal logarithm, with a deviation of 0.35, as a small run has them: in 20 000 steps
 * none is far off, but what is ten times the largest is. */
TEST(ordinary_noise_of_a_gradient_is_no_spike) {
    static struct kiln_spikes spikes;
    uint32_t x = 1;
    double largest = 0;
    for (int step = 0; step < 20000; step++) {
        double sum = 0; /* of 12 uniform numbers: near normal */
        for (int i = 0; i < 12; i++) {
            x = x * 1664525u + 1013904223u;
            sum += x / 4294967296.0;
        }
        const struct kiln_step_record r = step_of(0.01, 0.02 * exp(0.35 * (sum - 6)));
        const struct kiln_spike_score s = kiln_spikes_grad_norm(&spikes, r.grad_norm);
        CHECK(!kiln_spikes_norm_is_far(&s, r.grad_norm, 8));
        largest = fmax(largest, r.grad_norm);
        kiln_spikes_add(&spikes, &r);
    }
    const struct kiln_spike_score s = kiln_spikes_grad_norm(&spikes, 10 * largest);
    CHECK(kiln_spikes_norm_is_far(&s, 10 * largest, 8));
    /* A rise that clipping takes care of, however quiet the steps before were. */
    static struct kiln_spikes quiet;
    add(&quiet, 64, 4);
    const struct kiln_spike_score small = kiln_spikes_grad_norm(&quiet, 3.9);
    CHECK(small.z > 8 && !kiln_spikes_norm_is_far(&small, 3.9, 8));
    const struct kiln_spike_score high = kiln_spikes_grad_norm(&quiet, 4.1);
    CHECK(kiln_spikes_norm_is_far(&high, 4.1, 8));
}

TEST(steps_that_were_not_accepted_are_not_counted) {
    static struct kiln_spikes spikes;
    struct kiln_step_record bad[] = {step_of((double)NAN, 1), step_of(1, (double)INFINITY),
                                     step_of(0, 0), step_of(100, 100)};
    bad[3].skipped = true;
    add(&spikes, 40, 4);
    for (size_t i = 0; i < 4; i++) {
        kiln_spikes_add(&spikes, &bad[i]);
    }
    CHECK_EQ(spikes.n, 40);
    add(&spikes, 128, 7); /* and what is older is forgotten */
    CHECK_CLOSE(kiln_spikes_loss(&spikes, 7).mean, 7, 1e-15);
    CHECK_EQ(kiln_spikes_loss(&spikes, 7).window, 128);
}

static void add_seen(void *context, const struct kiln_step_record *record) {
    kiln_spikes_add(context, record);
}

/* A process that takes over reads what one that did not die has seen. */
TEST_WITHIN(what_is_read_back_decides_the_same, 120) {
    static struct kiln_spikes seen, back;
    struct kiln_err err;
    const struct kiln_observer observer = {.context = &seen, .on_step = add_seen};
    plant(NULL, NULL);
    const char *folder = tiny_run("run",
                                  "steps=300 eval-every=7 save-every=0 batch=1 accum=1 "
                                  "seq=8 warmup=50",
                                  &observer);
    CHECK_OK(kiln_spikes_read(folder, &back, &err), &err);
    for (int i = 0; i < 28; i++) {
        const double value = 0.37 * i;
        const struct kiln_spike_score a = kiln_spikes_loss(&seen, value);
        const struct kiln_spike_score b = kiln_spikes_loss(&back, value);
        const struct kiln_spike_score c = kiln_spikes_grad_norm(&seen, value);
        const struct kiln_spike_score d = kiln_spikes_grad_norm(&back, value);
        CHECK(a.z == b.z && a.mean == b.mean && a.deviation == b.deviation);
        CHECK(c.z == d.z && c.mean == d.mean && c.deviation == d.deviation);
    }
}

/* ---- runs --------------------------------------------------------------------------------------
 */

struct outcome {
    enum kiln_status status;
    struct kiln_err err;
    uint32_t weights;
    char *metrics;
    size_t restarts;
};

/* Train to the end, in as many openings as it takes. */
static enum kiln_status go(struct kiln_run **run, const char *folder, size_t *restarts,
                           struct kiln_err *err) {
    enum kiln_status status;
    *restarts = 0;
    while ((status = kiln_run_train(*run, NULL, NULL, err)) == KILN_ERESTART) {
        ++*restarts;
        CHECK_OK(kiln_run_take_over(kiln_run_hand_over(*run), folder, run, err), err);
    }
    return status;
}

static struct outcome end_of(struct kiln_run *run, const char *name) {
    struct outcome o;
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", test_path(name));
    o.status = go(&run, folder, &o.restarts, &o.err);
    o.weights = kiln_run_weights_hash(run);
    kiln_run_close(run);
    o.metrics = lasting_metrics(folder);
    return o;
}

static struct outcome train(const char *name, const char *changes) {
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    tiny_settings(&s, name, changes);
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    kiln_settings_free(&s);
    return end_of(run, name);
}

static struct outcome resume(const char *name, const char *changes) {
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    CHECK_OK(kiln_settings_init(&s, &err), &err);
    tiny_set(&s, changes);
    CHECK_OK(kiln_run_resume(test_path(name), &s, &run, &err), &err);
    kiln_settings_free(&s);
    return end_of(run, name);
}

static void check_same(const struct outcome *a, const struct outcome *b) {
    CHECK_OK(a->status, &a->err);
    CHECK_OK(b->status, &b->err);
    CHECK_STRING(a->metrics, b->metrics);
    CHECK_EQ(a->weights, b->weights);
}

/* The last steps are of finite numbers. */
static void check_finite(const struct outcome *o) {
    struct outcome copy = *o;
    CHECK_OK(copy.status, &copy.err);
    char *last = strrchr(o->metrics, '{');
    CHECK(last != NULL && strstr(last, "null") == NULL);
}

static void check_verifies(const char *name) {
    struct kiln_replay_result result;
    struct kiln_err err;
    const struct kiln_replay_options how = {
        .run = test_path(name), .from = KILN_UNSET, .steps = KILN_UNSET};
    CHECK_OK(kiln_verify_run(&how, &result, &err), &err);
    for (size_t i = 0; i < result.n_checks; i++) {
        if (!result.checks[i].same) {
            FAIL("%s: %s: %s", name, result.checks[i].what, result.checks[i].found);
        }
    }
    CHECK(result.pass && result.n_checks > 1);
    kiln_replay_free(&result);
}

static bool incident_has(const char *name, uint64_t step, const char *file, size_t *size) {
    char path[4300];
    struct stat st;
    snprintf(path, sizeof path, "%s/incidents/step-%" PRIu64 "/%s", test_path(name), step, file);
    const bool has = stat(path, &st) == 0;
    *size = has ? (size_t)st.st_size : 0;
    return has;
}

static json_t *incident(const char *name, uint64_t step) {
    char path[4300];
    snprintf(path, sizeof path, "%s/incidents/step-%" PRIu64 "/incident.json", test_path(name),
             step);
    json_t *in = json_load_file(path, 0, NULL);
    if (in == NULL) {
        FAIL("%s is no JSON", path);
    }
    CHECK_EQ(json_integer_value(json_object_get(in, "step")), step);
    return in;
}

static const char *text(const json_t *object, const char *key) {
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "(none)";
}

/* ---- what is recorded --------------------------------------------------------------------------
 */

enum { SAMPLES = 2 * 2, SEQ = 32 }; /* of tiny_settings */

TEST_WITHIN(a_spike_is_recorded_and_trained_on, 120) {
    size_t size;
    plant(window_35, NULL);
    struct outcome o = train("run", LONG), again = train("again", LONG);
    check_same(&o, &again);
    check_finite(&o);
    json_t *in = incident("run", 36);
    CHECK_CONTAINS(text(in, "why"), "spike");
    CHECK_STRING(text(in, "action"), "recorded");
    CHECK_STRING(text(in, "device"), "cpu");
    CHECK_EQ(json_integer_value(json_object_get(in, "sample")), 35 * SAMPLES);
    CHECK_EQ(json_integer_value(json_object_get(in, "window")), 35);
    CHECK(json_real_value(json_object_get(in, "z")) > 5);
    const json_t *tensors = json_object_get(in, "tensors");
    double squares = 0;
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        const json_t *gradient = json_object_get(json_array_get(tensors, i), "gradient");
        const double norm = json_real_value(json_object_get(gradient, "norm"));
        CHECK_EQ(json_integer_value(json_object_get(gradient, "not_finite")), 0);
        squares += norm * norm;
    }
    /* The norms of all tensors, the tied embedding's with both its parts, make the whole one. */
    const double whole = json_real_value(json_object_get(in, "grad_norm"));
    CHECK_CLOSE(sqrt(squares) / whole, 1, 1e-6);
    json_decref(in);
    CHECK(incident_has("run", 36, "window.u32", &size));
    CHECK_EQ(size, 2 * SAMPLES * SEQ * sizeof(uint32_t));
    CHECK(incident_has("run", 36, "weights.f32", &size) && size > 0);
    CHECK(strstr(o.metrics, "\"skipped\"") == NULL);
    check_verifies("run");
    free(o.metrics);
    free(again.metrics);
}

/* The weights of an incident are those of the step before: a checkpoint's. */
TEST_WITHIN(the_weights_of_the_window_are_kept, 120) {
    struct kiln_model model;
    struct kiln_err err;
    char path[4300], *bytes;
    size_t size;
    plant(window_35, NULL);
    struct outcome o = train("run", LONG "save-every=7");
    CHECK_OK(o.status, &o.err);
    free(o.metrics);
    snprintf(path, sizeof path, "%s/checkpoints/step-35/model.bin", test_path("run"));
    CHECK_OK(kiln_model_open(path, 1, &model, &err), &err);
    snprintf(path, sizeof path, "%s/incidents/step-36/weights.f32", test_path("run"));
    CHECK_OK(kiln_read_file(path, &bytes, &size, &err), &err);
    CHECK_EQ(size, model.table->size * sizeof(float));
    CHECK_BYTES(bytes, model.weights, size);
    kiln_free(bytes);
    kiln_model_close(&model);
}

TEST_WITHIN(of_many_incidents_the_oldest_go, 120) {
    size_t incidents = 0, weights = 0, size;
    plant(NULL, NULL);
    struct outcome o =
        train("run", "steps=130 eval-every=0 save-every=0 spike-z=0.01 lr=0 min-lr=0");
    CHECK_OK(o.status, &o.err);
    free(o.metrics);
    for (uint64_t step = 1; step <= 130; step++) {
        incidents += incident_has("run", step, "incident.json", &size);
        weights += incident_has("run", step, "weights.f32", &size);
    }
    CHECK_EQ(incidents, KILN_INCIDENTS);
    CHECK_EQ(weights, 1); /* they lie close */
}

/* ---- what becomes of the run -------------------------------------------------------------------
 */

TEST_WITHIN(a_bad_window_is_skipped, 120) {
    plant(window_35, NULL);
    struct outcome o = train("run", LONG "on-spike=skip"),
                   again = train("again", LONG "on-spike=skip");
    check_same(&o, &again);
    check_finite(&o);
    char *line = strstr(o.metrics, "\"step\": 36,");
    CHECK(line != NULL && strstr(line, "\"skipped\": true") != NULL);
    CHECK(strstr(line, "\"skipped\": true") < strstr(line, "\n"));
    json_t *in = incident("run", 36);
    CHECK_STRING(text(in, "action"), "skipped");
    json_decref(in);
    check_verifies("run");
    free(o.metrics);
    free(again.metrics);
}

TEST_WITHIN(a_stopped_run_goes_on_as_it_is_told, 120) {
    plant(window_35, NULL);
    struct outcome want = train("skip", LONG "on-spike=skip");
    struct outcome stopped = train("run", LONG "on-spike=stop");
    CHECK_FAILS(stopped.status, KILN_EDIVERGED, &stopped.err);
    CHECK_CONTAINS(stopped.err.message, "step 36: ");
    CHECK_CONTAINS(stopped.err.message, "kiln explain");
    CHECK_CONTAINS(stopped.err.message, "--on-spike record, skip or rollback");
    struct outcome again = resume("run", "");
    CHECK_FAILS(again.status, KILN_EDIVERGED, &again.err);
    CHECK_STRING(again.metrics, stopped.metrics);
    struct outcome on = resume("run", "on-spike=skip");
    check_same(&on, &want);
    check_verifies("run");
    free(want.metrics);
    free(stopped.metrics);
    free(again.metrics);
    free(on.metrics);
}

static void rolls_back(const char *changes) {
    char all[300];
    snprintf(all, sizeof all, LONG "on-spike=rollback %s", changes);
    plant(window_35, NULL);
    struct outcome o = train("run", all), again = train("again", all);
    check_same(&o, &again);
    check_finite(&o);
    char *at = o.metrics;
    for (int step = 1; step <= 40; step++) { /* each once */
        char start[40];
        snprintf(start, sizeof start, "{\"step\": %d,", step);
        CHECK(strncmp(at, start, strlen(start)) == 0);
        at = strchr(at, '\n') + 1;
    }
    json_t *in = incident("run", 36);
    CHECK_STRING(text(in, "action"), "rolled back");
    json_decref(in);
    check_verifies("run");
    free(o.metrics);
    free(again.metrics);
}
TEST_WITHIN(a_run_returns_to_its_checkpoint, 120) { rolls_back(""); }
TEST_WITHIN(a_run_returns_to_its_beginning, 120) { rolls_back("save-every=0"); }
TEST_WITHIN(a_delayed_run_returns, 120) { rolls_back("overlap=delayed"); }
TEST_WITHIN(a_run_with_adapters_returns, 120) { rolls_back("lora=2 lora-targets=all"); }
TEST_WITHIN(a_run_in_fp16_returns, 300) { rolls_back(SIM "overlap=off"); }

TEST_WITHIN(enough_is_enough, 300) {
    plant(from_45, NULL);
    struct outcome o = train("skip", LONG "steps=70 on-spike=skip");
    CHECK_FAILS(o.status, KILN_EDIVERGED, &o.err);
    CHECK_CONTAINS(o.err.message, "20 windows in a row");
    CHECK_CONTAINS(o.err.message, "--on-spike rollback");
    free(o.metrics);
    o = train("back", LONG "steps=60 on-spike=rollback");
    CHECK_FAILS(o.status, KILN_EDIVERGED, &o.err);
    CHECK_CONTAINS(o.err.message,
                   "rolled back 16 times already, and came no further than 128 steps");
    free(o.metrics);
}

/* ---- a weight that is no number ----------------------------------------------------------------
 */

static void check_names(const char *name, uint64_t step, const char *tensor) {
    json_t *in = incident(name, step);
    const json_t *tensors = json_object_get(in, "tensors");
    CHECK_STRING(text(in, "why"), "loss is not finite");
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        const json_t *one = json_array_get(tensors, i), *of = json_object_get(one, "weights");
        const bool is_it = strcmp(text(one, "name"), tensor) == 0;
        CHECK_EQ(json_integer_value(json_object_get(of, "not_finite")), is_it);
        CHECK(json_is_null(json_object_get(of, "norm")) == is_it);
    }
    json_decref(in);
}

static void weight_ends(const char *device, uint64_t step) {
    char changes[200];
    plant(NULL, weight_at_6);
    snprintf(changes, sizeof changes, SHORT "%s", device);
    struct outcome o = train("record", changes);
    CHECK_FAILS(o.status, KILN_EDIVERGED, &o.err);
    CHECK_CONTAINS(o.err.message, "kiln explain");
    check_names("record", step, "wq.1");
    free(o.metrics);
    snprintf(changes, sizeof changes, SHORT "on-spike=skip %s", device);
    o = train("skip", changes);
    CHECK_FAILS(o.status, KILN_EDIVERGED, &o.err);
    CHECK_CONTAINS(o.err.message, "--on-spike rollback");
    free(o.metrics);
    snprintf(changes, sizeof changes, SHORT "on-spike=rollback %s", device);
    o = train("back", changes);
    check_finite(&o);
    check_names("back", step, "wq.1");
    struct outcome again = train("again", changes), mended = resume("skip", "on-spike=rollback");
    check_same(&again, &o);
    check_same(&mended, &o);
    check_verifies("back");
    free(o.metrics);
    free(again.metrics);
    free(mended.metrics);
}
TEST_WITHIN(a_bad_weight_ends_a_run_or_is_undone, 120) { weight_ends("", 6); }
TEST_WITHIN(a_bad_weight_of_a_delayed_run, 120) { weight_ends("overlap=delayed", 7); }
TEST_WITHIN(a_bad_weight_in_fp16, 200) { weight_ends(SIM "overlap=off", 6); }
TEST_WITHIN(a_bad_weight_compiled_beside, 200) { weight_ends(SIM, 6); }
TEST_WITHIN(a_bad_weight_compiled_ahead, 200) { weight_ends(SIM "overlap=delayed", 7); }

/* Whatever is done in how many processes, the same step is spoilt, and the bits behind it are
 * one's.
 */
TEST_WITHIN(restarts_around_a_rollback_change_nothing, 300) {
    static const char *const overlaps[] = {"exact", "delayed"};
    plant(NULL, weight_at_6);
    for (size_t i = 0; i < 2; i++) {
        char changes[200], name[16];
        snprintf(changes, sizeof changes, SHORT "on-spike=rollback overlap=%s", overlaps[i]);
        snprintf(name, sizeof name, "whole%zu", i);
        struct outcome whole = train(name, changes);
        snprintf(changes, sizeof changes, SHORT "on-spike=rollback overlap=%s budget=7 headroom=0",
                 overlaps[i]);
        snprintf(name, sizeof name, "parts%zu", i);
        struct outcome parts = train(name, changes);
        check_same(&parts, &whole);
        CHECK(parts.restarts > whole.restarts);
        free(whole.metrics);
        free(parts.metrics);
    }
}

/* A checkpoint of the step in which the weight went bad is none to go back to. */
TEST_WITHIN(a_bad_checkpoint_is_passed_over, 120) {
    plant(NULL, weight_at_6);
    struct outcome o = train("run", SHORT "save-every=5 keep-checkpoints=3 on-spike=rollback");
    check_finite(&o);
    struct outcome again = train("again", SHORT "save-every=0 on-spike=rollback");
    check_same(&o, &again); /* to step 0, both */
    free(o.metrics);
    free(again.metrics);
}

/* ---- deaths ------------------------------------------------------------------------------------
 */

/* In a child. */
static int live(const char *name, const char *changes) {
    struct kiln_err err;
    struct kiln_run *run = NULL;
    enum kiln_status status;
    size_t restarts;
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", test_path(name));
    if (kiln_path_exists(folder)) {
        status = kiln_run_resume(folder, NULL, &run, &err);
    } else {
        struct kiln_settings s;
        tiny_settings(&s, name, changes);
        status = kiln_run_create(&s, &run, &err);
    }
    if (status == KILN_OK) {
        status = go(&run, folder, &restarts, &err);
    }
    if (status != KILN_OK) {
        fprintf(stderr, "child: %s\n", err.message);
    }
    return status == KILN_OK ? 0 : 1;
}

/* True: it was killed at point n of the kind. */
static bool dies(const char *name, const char *changes, const char *kind, long n) {
    int status;
    kill_points_arm(kind, n);
    fflush(NULL);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        _exit(live(name, changes));
    }
    kill_points_disarm();
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status)) {
        CHECK_EQ(WTERMSIG(status), SIGKILL);
        return true;
    }
    CHECK_EQ(WEXITSTATUS(status), 0);
    return false;
}

/* A death at every point of a rollback, at every sixth at which an incident is written and every
 * `stride`-th of all; at each of them where KILN_KILL_STRIDE is 1. */
static void deaths_change_nothing(const char *changes, long stride) {
    static const char *const kinds[] = {"rollback", "incident", NULL};
    const char *asked = getenv("KILN_KILL_STRIDE");
    const bool each = asked && strcmp(asked, "1") == 0;
    const long strides[] = {1, each ? 1 : 6, each ? 1 : stride};
    struct kiln_err err;
    char name[16];
    long deaths = 0;
    struct outcome whole = train("whole", changes);
    check_finite(&whole);
    for (size_t k = 0; k < 3; k++) {
        for (long n = 1;; n += strides[k]) {
            snprintf(name, sizeof name, "run%zu", k);
            const bool died = dies(name, changes, kinds[k], n);
            CHECK(!dies(name, changes, NULL, 0)); /* and on, to the end */
            struct outcome o = resume(name, "");
            check_same(&o, &whole);
            free(o.metrics);
            CHECK_OK(kiln_remove_tree(test_path(name), &err), &err);
            if (!died) {
                break;
            }
            deaths++;
        }
    }
    printf("      %ld deaths: %s\n", deaths, kill_points_deaths());
    CHECK(deaths > 8);
    free(whole.metrics);
}
TEST_WITHIN(deaths_around_a_rollback_change_nothing, 600) {
    plant(NULL, weight_at_6);
    deaths_change_nothing(SHORT "on-spike=rollback", 211);
}
TEST_WITHIN(deaths_around_a_delayed_rollback_change_nothing, 600) {
    plant(NULL, weight_at_6);
    deaths_change_nothing(SHORT "on-spike=rollback overlap=delayed", 307);
}
TEST_WITHIN(deaths_around_a_rollback_in_fp16_change_nothing, 600) {
    plant(NULL, weight_at_6);
    deaths_change_nothing(SHORT SIM "on-spike=rollback", 907);
}

/* The last of them dies, too, while it completes what the one before began. */
TEST_WITHIN(deaths_in_a_row_change_nothing, 120) {
    const char *changes = SHORT "on-spike=rollback";
    plant(NULL, weight_at_6);
    struct outcome whole = train("whole", changes);
    CHECK(dies("run", changes, "rollback", 2));
    for (int i = 0; i < 3; i++) {
        CHECK(dies("run", changes, "rollback", i < 2 ? i + 1 : 2));
    }
    struct outcome o = resume("run", "");
    check_same(&o, &whole);
    free(o.metrics);
    free(whole.metrics);
}

TEST_WITHIN(deaths_around_a_skip_change_nothing, 600) {
    struct kiln_err err;
    plant(window_35, NULL);
    struct outcome whole = train("whole", LONG "on-spike=skip");
    for (long n = 1; dies("run", LONG "on-spike=skip", "incident", n); n++) {
        struct outcome o = resume("run", "");
        check_same(&o, &whole);
        free(o.metrics);
        CHECK_OK(kiln_remove_tree(test_path("run"), &err), &err);
    }
    free(whole.metrics);
}

/* A death behind the decision, and then the state is lost, too: checkpoints of data that are given
 * up lie there, and are not gone on from. */
TEST_WITHIN(a_lost_state_does_not_undo_a_rollback, 120) {
    char path[4300];
    static const char *const changes[] = {
        SHORT "steps=12 save-every=3 keep-checkpoints=9 on-spike=rollback",
        SHORT "steps=12 save-every=5 keep-checkpoints=9 on-spike=rollback"};
    plant(NULL, weight_at_6);
    for (size_t i = 0; i < 2; i++) {
        char whole_name[16], name[16];
        snprintf(whole_name, sizeof whole_name, "whole%zu", i);
        snprintf(name, sizeof name, "run%zu", i);
        struct outcome whole = train(whole_name, changes[i]);
        check_finite(&whole);
        CHECK(dies(name, changes[i], "rollback", 2));
        snprintf(path, sizeof path, "%s/state.kiln", test_path(name));
        CHECK(unlink(path) == 0);
        struct outcome o = resume(name, "");
        check_same(&o, &whole);
        free(o.metrics);
        free(whole.metrics);
    }
}

/* What was asked for behind the checkpoint may have been the fault: it is not asked for again. */
TEST_WITHIN(a_rate_behind_the_checkpoint_is_given_up, 120) {
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    plant(NULL, weight_at_6);
    struct outcome plain = train("plain", SHORT "on-spike=rollback");
    tiny_settings(&s, "asked", SHORT "on-spike=rollback");
    s.peak[s.n_peaks++] = (struct kiln_peak){.at = 4, .lr = 1e-2};
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    kiln_settings_free(&s);
    struct outcome asked = end_of(run, "asked");
    check_same(&asked, &plain);
    free(asked.metrics);
    free(plain.metrics);
}
