/* SPDX-License-Identifier: MIT
 *
 * Runs: the same bits for any number of threads, stopping and resuming, and what is refused.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "kiln/story.h"
#include "kiln/train.h"
#include "kiln_test.h"

enum { MAX_STEPS = 64 };

/* What an observer saw, and when it should ask to stop. */
struct seen {
    double loss[MAX_STEPS], grad_norm[MAX_STEPS], val_loss[MAX_STEPS];
    uint64_t n;
    uint64_t stop_after; /* step; 0: never */
    volatile sig_atomic_t stop;
};

static void see_step(void *context, const struct kiln_step_record *record) {
    struct seen *seen = context;
    CHECK(record->step >= 1 && record->step <= MAX_STEPS);
    seen->loss[record->step - 1] = record->loss;
    seen->grad_norm[record->step - 1] = record->grad_norm;
    seen->val_loss[record->step - 1] = record->val_loss;
    seen->n++;
    if (record->step == seen->stop_after) {
        seen->stop = 1;
    }
}

static void set(struct kiln_settings *s, enum kiln_setting_id id, const char *text) {
    struct kiln_err err;
    CHECK_OK(kiln_settings_set(s, id, text, KILN_FROM_FLAG, &err), &err);
}

/* A small model on small stories: 12 steps of 2 micro-batches. */
static void small_settings(struct kiln_settings *s, const char *data, const char *out) {
    struct kiln_err err;
    CHECK_OK(kiln_settings_init(s, &err), &err);
    set(s, KILN_SETTING_model, "stories15m");
    set(s, KILN_SETTING_dim, "48");
    set(s, KILN_SETTING_hidden, "100");
    set(s, KILN_SETTING_layers, "2");
    set(s, KILN_SETTING_heads, "4");
    set(s, KILN_SETTING_kv_heads, "2");
    set(s, KILN_SETTING_seq, "70");
    set(s, KILN_SETTING_batch, "3");
    set(s, KILN_SETTING_accum, "2");
    set(s, KILN_SETTING_steps, "12");
    set(s, KILN_SETTING_lr, "3e-3");
    set(s, KILN_SETTING_warmup, "3");
    set(s, KILN_SETTING_eval_every, "4");
    set(s, KILN_SETTING_data, data);
    set(s, KILN_SETTING_out, out);
}

static const char *stories(void) {
    static char text[200000];
    size_t n = 0;
    for (uint64_t i = 0; n + KILN_STORY_ROOM < sizeof text; i++) {
        n += kiln_story_write(1, i, text + n, NULL);
        n += (size_t)snprintf(text + n, sizeof text - n, "\n<|endoftext|>\n");
    }
    return test_file("stories.txt", text, n);
}

static uint32_t train(const struct kiln_settings *s, struct seen *seen) {
    struct kiln_err err;
    struct kiln_run *run = NULL;
    struct kiln_observer observer = {.context = seen, .on_step = see_step};
    CHECK_OK(kiln_run_create(s, &run, &err), &err);
    enum kiln_status status = kiln_run_train(run, &observer, &seen->stop, &err);
    CHECK_EQ(status, seen->stop_after ? KILN_EINTERRUPTED : KILN_OK);
    uint32_t hash = kiln_run_weights_hash(run);
    kiln_run_close(run);
    return hash;
}

static void same_steps(const struct seen *a, const struct seen *b, uint64_t first, uint64_t last) {
    for (uint64_t i = first; i < last; i++) {
        CHECK(a->loss[i] == b->loss[i]);
        CHECK(a->grad_norm[i] == b->grad_norm[i]);
        CHECK(a->val_loss[i] == b->val_loss[i] || (isnan(a->val_loss[i]) && isnan(b->val_loss[i])));
    }
}

static void threads_do_not_show(const char *precision) {
    static const char *const threads[] = {"1", "2", "3", "4"};
    struct seen seen[4] = {0};
    uint32_t hash[4];
    const char *data = stories();
    for (int i = 0; i < 4; i++) {
        struct kiln_settings s;
        char name[16];
        snprintf(name, sizeof name, "run%d", i);
        small_settings(&s, data, test_path(name));
        set(&s, KILN_SETTING_precision, precision);
        set(&s, KILN_SETTING_threads, threads[i]);
        hash[i] = train(&s, &seen[i]);
        kiln_settings_free(&s);
        CHECK_EQ(hash[i], hash[0]);
        same_steps(&seen[i], &seen[0], 0, 12);
    }
    CHECK(seen[0].loss[11] < seen[0].loss[0] - 0.5);
}

TEST_WITHIN(threads_do_not_show_in_fp32, 120) { threads_do_not_show("fp32"); }
TEST_WITHIN(threads_do_not_show_in_bf16, 120) { threads_do_not_show("bf16"); }

TEST_WITHIN(a_stopped_run_goes_on_as_if_it_had_not_stopped, 120) {
    struct kiln_err err;
    struct kiln_settings s;
    struct seen whole = {0}, part = {.stop_after = 5}, rest = {0};
    const char *data = stories(), *folder = test_path("stopped");
    small_settings(&s, data, test_path("whole"));
    uint32_t expected = train(&s, &whole);
    set(&s, KILN_SETTING_out, folder);
    CHECK(train(&s, &part) != expected);
    CHECK_EQ(part.n, 5);
    kiln_settings_free(&s);

    struct kiln_run *run = NULL;
    struct kiln_observer observer = {.context = &rest, .on_step = see_step};
    CHECK_OK(kiln_run_resume(folder, NULL, &run, &err), &err);
    CHECK_EQ(kiln_run_info(run)->first_step, 5);
    CHECK_OK(kiln_run_train(run, &observer, NULL, &err), &err);
    CHECK_EQ(kiln_run_weights_hash(run), expected);
    kiln_run_close(run);
    CHECK_EQ(rest.n, 7);
    same_steps(&whole, &part, 0, 5);
    same_steps(&whole, &rest, 5, 12);
}

TEST(every_step_has_one_line_of_metrics) {
    struct kiln_err err;
    struct kiln_settings s;
    struct seen part = {.stop_after = 3}, rest = {0};
    const char *folder = test_path("run");
    char *text = NULL, path[4200];
    small_settings(&s, stories(), folder);
    train(&s, &part);
    kiln_settings_free(&s);
    struct kiln_run *run = NULL;
    struct kiln_observer observer = {.context = &rest, .on_step = see_step};
    CHECK_OK(kiln_run_resume(folder, NULL, &run, &err), &err);
    CHECK_OK(kiln_run_train(run, &observer, NULL, &err), &err);
    kiln_run_close(run);
    size_t size, lines = 0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    CHECK_OK(kiln_read_file(path, &text, &size, &err), &err);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char start[32];
        snprintf(start, sizeof start, "{\"step\":%zu,", ++lines);
        CHECK(strncmp(line, start, strlen(start)) == 0);
        CHECK(strstr(line, "\"grad_norm\":") && strstr(line, "\"update_ms\":"));
    }
    CHECK_EQ(lines, 12);
}

TEST(an_existing_folder_is_not_touched) {
    struct kiln_err err;
    struct kiln_settings s;
    struct kiln_run *run = NULL;
    const char *folder = test_path("run");
    CHECK_OK(kiln_make_dirs(folder, &err), &err);
    small_settings(&s, stories(), folder);
    CHECK_FAILS(kiln_run_create(&s, &run, &err), KILN_EEXISTS, &err);
    CHECK_CONTAINS(err.message, "--resume");
    kiln_settings_free(&s);
}

TEST(a_failed_start_leaves_nothing_behind) {
    struct kiln_err err;
    struct kiln_settings s;
    struct kiln_run *run = NULL;
    const char *folder = test_path("deep/runs/run");
    small_settings(&s, test_file("short.txt", "Once.", 5), folder);
    CHECK_FAILS(kiln_run_create(&s, &run, &err), KILN_EINPUT, &err);
    CHECK(run == NULL);
    CHECK(!kiln_path_exists(folder));
    CHECK(!kiln_path_exists(test_path("deep/runs")));
    kiln_settings_free(&s);
}

TEST(a_resumed_run_refuses_other_settings) {
    struct kiln_err err;
    struct kiln_settings s, changes;
    struct kiln_run *run = NULL;
    struct seen part = {.stop_after = 1};
    const char *folder = test_path("run");
    small_settings(&s, stories(), folder);
    train(&s, &part);
    kiln_settings_free(&s);
    CHECK_OK(kiln_settings_init(&changes, &err), &err);
    set(&changes, KILN_SETTING_batch, "4");
    CHECK_FAILS(kiln_run_resume(folder, &changes, &run, &err), KILN_EUSAGE, &err);
    CHECK_CONTAINS(err.message, "--batch");
    kiln_settings_free(&changes);
}

TEST(a_run_is_owned_by_one_process) {
    struct kiln_err err;
    struct kiln_settings s;
    struct kiln_run *run = NULL, *second = NULL;
    const char *folder = test_path("run");
    small_settings(&s, stories(), folder);
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    CHECK_FAILS(kiln_run_resume(folder, NULL, &second, &err), KILN_EBUSY, &err);
    kiln_run_close(run);
    CHECK_OK(kiln_run_resume(folder, NULL, &second, &err), &err);
    kiln_run_close(second);
    kiln_settings_free(&s);
}
