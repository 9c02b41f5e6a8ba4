/* SPDX-License-Identifier: MIT
 *
 * test_samples.c: samples change nothing of a run, are kept whole behind whatever a death left, and
 * where nobody asked for them they come at evaluations and take little of the time.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln_test.h"
#include "train/tiny_run.h"

/* ---- what is there -------------------------------------------------------------------------- */

static char *samples_of(const char *folder) {
    static char path[4300];
    struct kiln_err err;
    char *text;
    size_t size;
    snprintf(path, sizeof path, "%s/samples.jsonl", folder);
    if (!kiln_path_exists(path)) {
        return kiln_strdup("");
    }
    CHECK_OK(kiln_read_file(path, &text, &size, &err), &err);
    return text;
}

/* Steps of all lines that are JSON, in order; -1 behind them. Every one has a text. */
static void steps_of(const char *folder, long steps[32]) {
    char *text = samples_of(folder), *rest = text;
    size_t n = 0;
    for (char *one; (one = strtok_r(rest, "\n", &rest)) != NULL && n < 31;) {
        json_t *line = json_loads(one, 0, NULL);
        if (line != NULL) {
            const char *said = json_string_value(json_object_get(line, "text"));
            CHECK(said != NULL && said[0] != '\0');
            steps[n++] = (long)json_integer_value(json_object_get(line, "step"));
        }
        json_decref(line);
    }
    steps[n] = -1;
    kiln_free(text);
}

static void write_samples(const char *folder, const char *text) {
    char path[4300];
    struct kiln_err err;
    snprintf(path, sizeof path, "%s/samples.jsonl", folder);
    CHECK_OK(kiln_write_file(path, text, strlen(text), &err), &err);
}

static uint32_t hash_of(const char *folder) {
    struct kiln_run_peek peek;
    struct kiln_err err;
    CHECK_OK(kiln_run_peek(folder, &peek, &err), &err);
    return peek.weights_hash;
}

struct told {
    size_t n;
    uint64_t step[32];
    char last[9000];
};
static void on_sample(void *context, uint64_t step, const char *text) {
    struct told *told = context;
    told->step[told->n++ % 32] = step;
    snprintf(told->last, sizeof told->last, "%s", text);
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void same_weights(const char *name, const char *changes) {
    char with[64], without[64], settings[512];
    long steps[32] = {0};
    snprintf(with, sizeof with, "%s-with", name);
    snprintf(without, sizeof without, "%s-without", name);
    snprintf(settings, sizeof settings, "%s sample-every=0", changes);
    const uint32_t expected = hash_of(tiny_run(without, settings, NULL));
    steps_of(test_path(without), steps);
    CHECK_EQ(steps[0], -1);
    const char *folder = tiny_run(with, changes, NULL);
    CHECK_EQ(hash_of(folder), expected);
    steps_of(folder, steps);
    CHECK_EQ(steps[0], 4); /* the first evaluation behind a step */
    snprintf(settings, sizeof settings, "%s sample-every=1 prompt=The", changes);
    snprintf(with, sizeof with, "%s-every", name);
    folder = tiny_run(with, settings, NULL);
    CHECK_EQ(hash_of(folder), expected);
    steps_of(folder, steps);
    for (long i = 0; i < 8; i++) {
        CHECK_EQ(steps[i], i + 1);
    }
}

TEST(samples_change_no_bit_on_the_cpu) { same_weights("cpu", "threads=2"); }
TEST(samples_change_no_bit_with_a_budget) { same_weights("budget", "budget=1000"); }
TEST(samples_change_no_bit_of_adapters) { same_weights("lora", "lora=2"); }
TEST(samples_change_no_bit_on_the_simulator) { same_weights("sim", "device=sim budget=100000"); }
TEST(samples_change_no_bit_of_delayed_runs) {
    same_weights("delayed", "device=sim budget=100000 overlap=delayed");
}

TEST(samples_are_told_and_kept_alike) {
    struct told told = {0};
    const struct kiln_observer observer = {.context = &told, .on_sample = on_sample};
    const char *folder = tiny_run("run", "sample-every=3 prompt=One", &observer);
    long steps[32] = {0};
    steps_of(folder, steps);
    CHECK_EQ(told.n, 2);
    CHECK_EQ(told.step[0], steps[0]);
    CHECK_EQ(told.step[1], steps[1]);
    CHECK_EQ(steps[2], -1);
    CHECK(strncmp(told.last, "One", 3) == 0);
    char *text = samples_of(folder);
    CHECK_CONTAINS(text, "{\"step\":3,\"ms\":");
    CHECK_CONTAINS(text, "\"text\":\"One");
    kiln_free(text);
}

TEST(a_sample_begins_behind_a_line_that_a_death_cut) {
    long steps[32] = {0};
    const char *folder = tiny_run("run", "sample-every=0", NULL);
    write_samples(folder, "{\"step\":7,\"ms\":1.0,\"text\":\"whole\"}\n{\"step\":8,\"te");
    tiny_resume(folder, "steps=10 sample-every=1");
    steps_of(folder, steps);
    CHECK_EQ(steps[0], 7);
    CHECK_EQ(steps[1], 9);
    CHECK_EQ(steps[2], 10);
    CHECK_EQ(steps[3], -1);
}

/* The last sample took longer than a hundredth of the time since: there is none, however often
 * processes begin anew. Where that was long ago, there is one. */
TEST(samples_that_nobody_asked_for_take_little_time) {
    static const char slow[] = "{\"step\":8,\"ms\":60000.0,\"text\":\"slow\"}\n";
    static const char fast[] = "{\"step\":8,\"ms\":0.0,\"text\":\"fast\"}\n";
    long steps[32] = {0};
    const char *folder = tiny_run("run", "sample-every=0 save-every=0", NULL);
    write_samples(folder, fast);
    tiny_resume(folder, "steps=9 eval-every=1");
    steps_of(folder, steps);
    CHECK_EQ(steps[1], -1); /* never, as it was begun */
    const char *own = tiny_run("own", "save-every=0", NULL);
    write_samples(own, slow);
    tiny_resume(own, "steps=10 eval-every=1");
    steps_of(own, steps);
    CHECK_EQ(steps[0], 8);
    CHECK_EQ(steps[1], -1);
    write_samples(own, fast);
    tiny_resume(own, "steps=12 eval-every=1");
    steps_of(own, steps);
    CHECK_EQ(steps[0], 8);
    CHECK_EQ(steps[1], 11);
}

TEST(a_sample_that_nobody_asked_for_is_short) {
    const char *folder = tiny_run("short", "seq=256 batch=1", NULL);
    char *text = samples_of(folder);
    json_t *line = json_loads(text, JSON_DISABLE_EOF_CHECK, NULL);
    const char *said = json_string_value(json_object_get(line, "text"));
    CHECK(said != NULL && strlen(said) <= 3 * 81); /* bytes, of which any may be U+FFFD */
    json_decref(line);
    kiln_free(text);
}

/* A folder in the place of the file: training goes on, and says so once. */
static size_t notices;
static void on_notice(void *context, const char *text) {
    (void)context;
    notices += strstr(text, "samples.jsonl") != NULL;
}
TEST(samples_that_cannot_be_kept_stop_no_run) {
    struct kiln_settings changes;
    struct kiln_run *run;
    struct kiln_err err;
    char path[4300];
    const char *folder = tiny_run("run", "sample-every=0", NULL);
    snprintf(path, sizeof path, "%s/samples.jsonl", folder);
    CHECK_EQ(mkdir(path, 0777), 0);
    CHECK_OK(kiln_settings_init(&changes, &err), &err);
    tiny_set(&changes, "steps=12 sample-every=1");
    const struct kiln_observer observer = {.on_notice = on_notice};
    CHECK_OK(kiln_run_resume(folder, &changes, &run, &err), &err);
    CHECK_OK(kiln_run_train(run, &observer, NULL, &err), &err);
    CHECK_EQ(notices, 1);
    kiln_run_close(run);
    kiln_settings_free(&changes);
}

/* ---- the warm-up, which is also unset until a run is made ----------------------------------- */

TEST(the_default_warm_up_is_a_tenth_of_the_steps) {
    const uint64_t expected[][2] = {{8, 0}, {100, 10}, {999, 99}, {5000, 100}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        struct kiln_settings s;
        struct kiln_run *run;
        struct kiln_err err;
        char name[32], steps[48];
        snprintf(name, sizeof name, "warm-%zu", i);
        tiny_settings(&s, name, "threads=1");
        snprintf(steps, sizeof steps, "steps=%llu", (unsigned long long)expected[i][0]);
        tiny_set(&s, steps);
        CHECK_OK(kiln_settings_set(&s, KILN_SETTING_warmup, "", KILN_FROM_DEFAULT, &err), &err);
        CHECK_OK(kiln_run_create(&s, &run, &err), &err);
        CHECK_EQ(kiln_run_info(run)->settings->warmup, expected[i][1]);
        CHECK_STRING(kiln_run_info(run)->notice, "");
        kiln_run_close(run);
        /* It is fixed when the run is made: more steps warm up no longer. */
        struct kiln_settings more;
        CHECK_OK(kiln_settings_init(&more, &err), &err);
        tiny_set(&more, "steps=100000");
        CHECK_OK(kiln_run_resume(s.out, &more, &run, &err), &err);
        CHECK_EQ(kiln_run_info(run)->settings->warmup, expected[i][1]);
        kiln_run_close(run);
        kiln_settings_free(&more);
        kiln_settings_free(&s);
    }
}
