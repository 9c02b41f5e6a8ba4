/* SPDX-License-Identifier: MIT
 *
 * SIGKILL at every kind of point and at random moments: a run that is resumed after each death
 * ends with the bits and the metrics of one that was never killed.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/random.h"
#include "kiln/story.h"
#include "kiln/train.h"
#include "kill_points.h"
#include "kiln_test.h"
#include "train/lasting.h"

/* A tiny model: 4 steps of 2 micro-batches, evaluated every 2 steps. */
static void tiny_settings(struct kiln_settings *s, const char *data, const char *out) {
    static const struct {
        enum kiln_setting_id id;
        const char *text;
    } values[] = {
        {KILN_SETTING_model, "stories15m"}, {KILN_SETTING_dim, "32"},
        {KILN_SETTING_hidden, "64"},        {KILN_SETTING_layers, "2"},
        {KILN_SETTING_heads, "4"},          {KILN_SETTING_kv_heads, "2"},
        {KILN_SETTING_seq, "32"},           {KILN_SETTING_batch, "2"},
        {KILN_SETTING_accum, "2"},          {KILN_SETTING_steps, "4"},
        {KILN_SETTING_lr, "3e-3"},          {KILN_SETTING_warmup, "2"},
        {KILN_SETTING_eval_every, "2"},     {KILN_SETTING_eval_windows, "4"},
        {KILN_SETTING_threads, "2"},        {KILN_SETTING_save_every, "3"},
    };
    struct kiln_err err;
    CHECK_OK(kiln_settings_init(s, &err), &err);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        CHECK_OK(kiln_settings_set(s, values[i].id, values[i].text, KILN_FROM_FLAG, &err), &err);
    }
    CHECK_OK(kiln_settings_set(s, KILN_SETTING_data, data, KILN_FROM_FLAG, &err), &err);
    CHECK_OK(kiln_settings_set(s, KILN_SETTING_out, out, KILN_FROM_FLAG, &err), &err);
}

static const char *stories(void) {
    static char text[40000];
    size_t n = 0;
    for (uint64_t i = 0; n + KILN_STORY_ROOM < sizeof text; i++) {
        n += kiln_story_write(1, i, text + n, NULL);
        n += (size_t)snprintf(text + n, sizeof text - n, "\n<|endoftext|>\n");
    }
    return test_file("stories.txt", text, n);
}

/* What a finished run left: the hash of its weights and moments' file, and the lasting keys of its
 * metrics. */
struct outcome {
    uint32_t weights;
    char *metrics;
};

static struct outcome outcome_of(const char *folder) {
    struct kiln_err err;
    struct kiln_run *run;
    CHECK_OK(kiln_run_resume(folder, NULL, &run, &err), &err);
    struct outcome o = {kiln_run_weights_hash(run), lasting_metrics(folder)};
    kiln_run_close(run);
    return o;
}

/* In a child: begin or resume the run and train it to its end. */
static int train(const char *data, const char *folder) {
    struct kiln_err err = {0};
    struct kiln_run *run = NULL;
    enum kiln_status status;
    if (kiln_path_exists(folder)) {
        status = kiln_run_resume(folder, NULL, &run, &err);
    } else {
        struct kiln_settings s;
        tiny_settings(&s, data, folder);
        status = kiln_run_create(&s, &run, &err);
    }
    if (status == KILN_OK) {
        status = kiln_run_train(run, NULL, NULL, &err);
    }
    if (status != KILN_OK) {
        fprintf(stderr, "child: %s\n", err.message);
    }
    return status == KILN_OK ? 0 : 1;
}

/* Train in a child that dies at point n (0: never) or after `ms` (0: never). True: it was killed.
 */
static bool train_child(const char *data, const char *folder, long n, long ms) {
    kill_points_arm(NULL, n);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        _exit(train(data, folder));
    }
    kill_points_disarm(); /* the parent passes points too, when it opens the run */
    if (ms) {
        nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
        kill(child, SIGKILL);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status)) {
        CHECK_EQ(WTERMSIG(status), SIGKILL);
        return true;
    }
    CHECK_EQ(WEXITSTATUS(status), 0);
    return false;
}

static void same(const struct outcome *a, const struct outcome *b) {
    CHECK_EQ(a->weights, b->weights);
    CHECK_STRING(a->metrics, b->metrics);
}

static long count(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

/* Die at points 1, 1+stride, ... of a whole run, once each, and resume. KILN_KILL_STRIDE=1 takes
 * every point there is. */
TEST_WITHIN(a_death_at_any_point_changes_nothing, 3000) {
    char data[4096], whole[4096];
    snprintf(data, sizeof data, "%s", stories());
    snprintf(whole, sizeof whole, "%s", test_path("whole"));
    CHECK(!train_child(data, whole, 0, 0));
    printf("      points of a run: %s\n", kill_points_text());
    struct outcome expected = outcome_of(whole);
    long stride = count("KILN_KILL_STRIDE", 17), deaths = 0;
    for (long n = count("KILN_KILL_FIRST", 1);; n += stride) {
        char name[32];
        snprintf(name, sizeof name, "run%ld", n);
        char folder[4096];
        snprintf(folder, sizeof folder, "%s", test_path(name));
        bool killed = train_child(data, folder, n, 0);
        if (killed) {
            deaths++;
            CHECK(!train_child(data, folder, 0, 0));
        }
        struct outcome o = outcome_of(folder);
        if (o.weights != expected.weights) {
            FAIL("after a death at point %ld the weights are %u, not %u; metrics\n%s, not\n%s", n,
                 o.weights, expected.weights, o.metrics, expected.metrics);
        }
        same(&o, &expected);
        free(o.metrics);
        struct kiln_err err;
        CHECK_OK(kiln_remove_tree(folder, &err), &err);
        if (!killed) {
            break;
        }
    }
    free(expected.metrics);
    printf("      %ld deaths: %s\n", deaths, kill_points_deaths());
    CHECK(deaths > 10);
}

/* Die at random moments until the run gets through. KILN_KILLS counts the deaths wanted. */
TEST_WITHIN(deaths_at_random_moments_change_nothing, 3000) {
    char data[4096], whole[4096];
    snprintf(data, sizeof data, "%s", stories());
    snprintf(whole, sizeof whole, "%s", test_path("whole"));
    CHECK(!train_child(data, whole, 0, 0));
    struct outcome expected = outcome_of(whole);
    long wanted = count("KILN_KILLS", 20), deaths = 0;
    for (uint64_t i = 0; deaths < wanted; i++) {
        char name[32];
        snprintf(name, sizeof name, "run%llu", (unsigned long long)i);
        char folder[4096];
        snprintf(folder, sizeof folder, "%s", test_path(name));
        long ms = 1 + (long)kiln_random_below(1, KILN_STREAM_TEST, i, 120);
        while (train_child(data, folder, 0, ms)) {
            deaths++;
            ms += 10; /* in the end it gets through */
        }
        struct outcome o = outcome_of(folder);
        same(&o, &expected);
        free(o.metrics);
        struct kiln_err err;
        CHECK_OK(kiln_remove_tree(folder, &err), &err);
    }
    free(expected.metrics);
    printf("      %ld deaths at random\n", deaths);
}
