/* SPDX-License-Identifier: MIT
 *
 * SIGKILL at every kind of point and at random moments: a run that is resumed after each death
 * ends with the bits and the metrics of one that was never killed. The same with budgets, where
 * processes hand over in the middle of windows.
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
#include "base/random.h"
#include "kiln/train.h"
#include "kill_points.h"
#include "kiln_test.h"
#include "train/family_model.h"
#include "train/lasting.h"
#include "train/scale.h"
#include "train/tiny_run.h"

/* 4 steps of 2 micro-batches, evaluated every 2 steps. */
#define STEPS "steps=4 eval-every=2 save-every=3 keep-checkpoints=2"

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

/* The budget is spent: in turns the run is closed and resumed, and handed over and taken up. */
static enum kiln_status go_on(struct kiln_run **run, const char *folder, size_t turn,
                              struct kiln_err *err) {
    if (turn % 2 == 0) {
        return kiln_run_take_over(kiln_run_hand_over(*run), folder, run, err);
    }
    kiln_run_close(*run);
    return kiln_run_resume(folder, NULL, run, err);
}

/* In a child: begin or resume the run and train it to its end. */
static int train(const char *name, const char *changes) {
    struct kiln_err err = {0};
    struct kiln_run *run = NULL;
    enum kiln_status status;
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", test_path(name));
    if (kiln_path_exists(folder)) {
        status = kiln_run_resume(folder, NULL, &run, &err);
    } else {
        struct kiln_settings s;
        tiny_settings(&s, name, changes);
        status = kiln_run_create(&s, &run, &err);
    }
    for (size_t turn = 0; status == KILN_OK; turn++) {
        status = kiln_run_train(run, NULL, NULL, &err);
        if (status != KILN_ERESTART) {
            break;
        }
        status = go_on(&run, folder, turn, &err);
    }
    if (status != KILN_OK) {
        fprintf(stderr, "child: %s\n", err.message);
    }
    return status == KILN_OK ? 0 : 1;
}

/* Train in a child that dies at point n of a kind (0: never) or after `ms` (0: never). True: it was
 * killed. */
static bool train_child(const char *name, const char *changes, const char *kind, long n, long ms) {
    kill_points_arm(kind, n);
    fflush(NULL);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        _exit(train(name, changes));
    }
    kill_points_disarm(); /* here: only the child may die */
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

static long count(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

/* What every run must end with: that of a run without a budget, never killed. */
static struct outcome expect_of(const char *changes) {
    struct kiln_settings s;
    tiny_settings(&s, "whole", changes); /* the text is written once, here */
    kiln_settings_free(&s);
    CHECK(!train_child("whole", changes, NULL, 0, 0));
    return outcome_of(test_path("whole"));
}

static struct outcome expect(void) { return expect_of(STEPS); }

/* The run is over: it ended as expected, and goes. */
static void check_end(const char *name, const struct outcome *expected, const char *death, long n) {
    struct kiln_err err;
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", test_path(name));
    struct outcome o = outcome_of(folder);
    if (o.weights != expected->weights) {
        FAIL("after a death at %s %ld the weights are %u, not %u; metrics\n%s, not\n%s", death, n,
             o.weights, expected->weights, o.metrics, expected->metrics);
    }
    CHECK_STRING(o.metrics, expected->metrics);
    free(o.metrics);
    CHECK_OK(kiln_remove_tree(folder, &err), &err);
}

/* Die at points first, first+stride, ... of a kind (NULL: of all) of a whole run, once each, and
 * resume; returns how many deaths. With `start` the run is a copy of that folder, made before. */
static long die_at_points(const char *start, const char *changes, const char *kind, long first,
                          long stride, const struct outcome *expected) {
    for (long n = first, deaths = 0;; n += stride, deaths++) {
        char from[4096];
        snprintf(from, sizeof from, "%s", test_path(start != NULL ? start : ""));
        if (start != NULL) {
            tiny_copy(from, test_path("run"));
        }
        const bool killed = train_child("run", changes, kind, n, 0);
        if (killed) {
            CHECK(!train_child("run", changes, NULL, 0, 0));
        }
        check_end("run", expected, kind != NULL ? kind : "point", n);
        if (!killed) {
            return deaths;
        }
    }
}

/* Die at random moments until the run gets through, and again. */
static void die_at_random(const char *start, const char *changes, long wanted,
                          const struct outcome *expected) {
    long deaths = 0;
    for (uint64_t i = 0; deaths < wanted; i++) {
        char from[4096];
        snprintf(from, sizeof from, "%s", test_path(start != NULL ? start : ""));
        if (start != NULL) {
            tiny_copy(from, test_path("run"));
        }
        long ms = 1 + (long)kiln_random_below(1, KILN_STREAM_TEST, i, 120);
        while (train_child("run", changes, NULL, 0, ms)) {
            deaths++;
            ms += 10; /* in the end it gets through */
        }
        check_end("run", expected, "random", (long)i);
    }
    printf("      %ld deaths at random\n", deaths);
}

/* KILN_KILL_STRIDE=1 takes every point there is. */
TEST_WITHIN(a_death_at_any_point_changes_nothing, 3000) {
    struct outcome expected = expect();
    printf("      points of a run: %s\n", kill_points_text());
    const long deaths = die_at_points(NULL, STEPS, NULL, count("KILN_KILL_FIRST", 1),
                                      count("KILN_KILL_STRIDE", 17), &expected);
    free(expected.metrics);
    printf("      %ld deaths: %s\n", deaths, kill_points_deaths());
    CHECK(deaths > 10);
}

static bool second_and_third(uint64_t step) { return step == 1 || step == 2; }

TEST_WITHIN(a_death_around_skipped_windows_changes_nothing, 3000) {
    kiln_overflow_instead = second_and_third; /* the children's, too */
    struct outcome expected = expect();
    CHECK(strstr(expected.metrics, "skipped") != NULL);
    const long deaths =
        die_at_points(NULL, STEPS, NULL, 1, count("KILN_KILL_STRIDE", 23), &expected);
    free(expected.metrics);
    printf("      %ld deaths: %s\n", deaths, kill_points_deaths());
    CHECK(deaths > 10);
}

/* KILN_KILLS counts the deaths wanted. */
TEST_WITHIN(deaths_at_random_moments_change_nothing, 3000) {
    struct outcome expected = expect();
    die_at_random(NULL, STEPS, count("KILN_KILLS", 20), &expected);
    free(expected.metrics);
}

/* Made once, not trained: what is killed is a copy. */
static void make_start(const char *changes) {
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    tiny_settings(&s, "start", changes);
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    kiln_run_close(run);
    kiln_settings_free(&s);
}

/* ---- with adapters -----------------------------------------------------------------------------
 */

#define ADAPTERS STEPS " lora=4 lora-targets=q,v,down"

TEST_WITHIN(a_death_of_a_run_that_trains_adapters_changes_nothing, 3000) {
    struct outcome expected = expect_of(ADAPTERS);
    const long deaths =
        die_at_points(NULL, ADAPTERS, NULL, 1, count("KILN_KILL_STRIDE", 37), &expected);
    printf("      %ld deaths: %s\n", deaths, kill_points_deaths());
    CHECK(deaths > 5);
    CHECK(die_at_points(NULL, ADAPTERS, "chunk", 1, count("KILN_KILL_STRIDE", 13), &expected) > 5);
    free(expected.metrics);
}

/* Without the state all comes from the checkpoint of step 3. */
static void go_on_without_state(const char *changes) {
    struct outcome expected = expect_of(changes);
    char state[4200];
    struct kiln_err err;
    struct kiln_settings s;
    struct kiln_run *run;
    tiny_settings(&s, "run", changes);
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    kiln_settings_free(&s);
    CHECK_OK(kiln_run_train(run, NULL, NULL, &err), &err);
    kiln_run_close(run);
    snprintf(state, sizeof state, "%s/state.kiln", test_path("run"));
    CHECK(unlink(state) == 0);
    CHECK(!train_child("run", changes, NULL, 0, 0));
    check_end("run", &expected, "lost state", 0);
    free(expected.metrics);
}

/* Frozen weights, adapters, moments. */
TEST_WITHIN(adapters_go_on_from_a_checkpoint_where_the_state_is_lost, 300) {
    go_on_without_state(ADAPTERS);
}

/* A budget that no set of kernels fits: hand-overs in every window, and nothing is ever stale. */
TEST_WITHIN(a_small_budget_does_not_show_in_adapters, 3000) {
    struct outcome expected = expect_of(ADAPTERS);
    static const char *const changes = ADAPTERS " budget=7";
    make_start(changes);
    const long deaths =
        die_at_points("start", changes, "hand-over", 1, count("KILN_KILL_STRIDE", 7), &expected);
    CHECK(deaths > 5);
    free(expected.metrics);
}

/* ---- with files that have weights, conversations, and a document mask --------------------------
 */

/* A text of short documents and conversations of which the answers count; written once, by the
 * parent. */
static const char *weighted(void) {
    static const char turns[] =
        "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}a:{% endif %}";
    static char changes[4500], text[6000], chat[6000];
    char paths[3][1200];
    size_t n = 0, m = 0;
    for (int i = 0; i < 60; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "Word %d of %d.\n<|endoftext|>\n",
                              i * 7 % 60, i);
        m += (size_t)snprintf(chat + m, sizeof chat - m,
                              "{\"messages\": [{\"role\": \"user\", \"content\": \"%d?\"}, "
                              "{\"role\": \"assistant\", \"content\": \"%d!\"}]}\n",
                              i, i * 2);
    }
    snprintf(paths[0], sizeof paths[0], "%s", test_file("words.txt", text, n));
    snprintf(paths[1], sizeof paths[1], "%s", test_file("chat.jsonl", chat, m));
    snprintf(paths[2], sizeof paths[2], "%s", test_file("turns.jinja", turns, sizeof turns - 1));
    snprintf(changes, sizeof changes, STEPS " data=%s:2,%s:0.5 chat-template=%s doc-mask=yes",
             paths[0], paths[1], paths[2]);
    return changes;
}

TEST_WITHIN(a_death_of_a_run_of_weighted_files_changes_nothing, 3000) {
    const char *changes = weighted();
    struct outcome expected = expect_of(changes);
    const long deaths =
        die_at_points(NULL, changes, NULL, 1, count("KILN_KILL_STRIDE", 113), &expected);
    printf("      %ld deaths: %s\n", deaths, kill_points_deaths());
    CHECK(deaths > 5);
    free(expected.metrics);
}

/* Handed over in the middle of windows: their samples, masks and counts of targets stay. */
TEST_WITHIN(a_small_budget_does_not_show_in_a_run_of_weighted_files, 3000) {
    char changes[5000];
    struct outcome expected = expect_of(weighted());
    snprintf(changes, sizeof changes, "%s budget=7", weighted());
    make_start(changes);
    const long deaths =
        die_at_points("start", changes, "hand-over", 1, count("KILN_KILL_STRIDE", 7), &expected);
    CHECK(deaths > 5);
    free(expected.metrics);
}

TEST_WITHIN(weighted_files_go_on_from_a_checkpoint_where_the_state_is_lost, 300) {
    go_on_without_state(weighted());
}

/* ---- with budgets ------------------------------------------------------------------------------
 */

/* Died at each of the points where one process ends and the next begins. */
static void check_hand_overs(void) {
    static const char *const points[] = {"hand-over: leaving", "hand-over: committed",
                                         "hand-over: given", "hand-over: taken",
                                         "hand-over: taken up"};
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        printf("      %s: %ld deaths\n", points[i], kill_points_deaths_at(points[i]));
        CHECK(kill_points_deaths_at(points[i]) > 0);
    }
}

static void die_with_budget(const char *base, const char *budget) {
    char changes[5000];
    struct outcome expected = expect_of(base);
    snprintf(changes, sizeof changes, "%s %s", base, budget);
    make_start(changes);
    tiny_copy(test_path("start"), test_path("run"));
    CHECK(!train_child("run", changes, NULL, 0, 0));
    printf("      points of a run: %s\n", kill_points_text());
    const long hand_overs = kill_points_passed_at("hand-over: committed");
    CHECK(hand_overs >= 10);
    CHECK_EQ(kill_points_passed_at("hand-over: taken up"), hand_overs);
    CHECK_EQ(kill_points_passed_at("hand-over: given"), (hand_overs + 1) / 2);
    CHECK_EQ(kill_points_passed_at("hand-over: taken"), (hand_overs + 1) / 2);
    check_end("run", &expected, "never", 0);
    const long stride = count("KILN_KILL_STRIDE", 0);
    /* Nine points in two hand-overs, and no factor in common: each is died at. */
    long deaths = die_at_points("start", changes, "hand-over", 1, stride ? stride : 5, &expected);
    check_hand_overs();
    deaths += die_at_points("start", changes, NULL, 1, stride ? stride : 101, &expected);
    printf("      %ld deaths: %s\n", deaths, kill_points_deaths());
    die_at_random("start", changes, count("KILN_KILLS", 10), &expected);
    free(expected.metrics);
}

TEST_WITHIN(a_death_between_processes_of_a_small_budget_changes_nothing, 3000) {
    die_with_budget(STEPS, "budget=7");
}

TEST_WITHIN(a_death_between_processes_that_recompute_all_changes_nothing, 3000) {
    die_with_budget(STEPS, "budget=20 schedule=whole activations=none");
}

/* What is made again of the taps, and sums of biases and norms, in the middle of windows. */
TEST_WITHIN(a_death_in_a_run_with_biases_and_norms_of_heads_changes_nothing, 3000) {
    char base[4500];
    snprintf(base, sizeof base, STEPS " precision=bf16 model=%s", family_file(FAMILY_BOTH));
    die_with_budget(base, "budget=7 activations=none");
}

/* ---- with kernels that are compiled beside -----------------------------------------------------
 */

/* Evaluated at each step, so that passes and compiles of all kinds lie side by side. */
#define BESIDE "steps=3 eval-every=1 save-every=2 keep-checkpoints=1 "

/* At each n-th point of an update, between norm and swap; at some of all others. */
static void die_beside(const char *changes, long updates, long nth, long stride) {
    struct outcome expected = expect_of(changes);
    printf("      points of a run: %s\n", kill_points_text());
    CHECK_EQ(kill_points_passed("update"), updates);
    const long each = count("KILN_KILL_STRIDE", nth), some = count("KILN_KILL_STRIDE", stride);
    long deaths = die_at_points(NULL, changes, "update", 1, each, &expected);
    CHECK_EQ(deaths, (updates + each - 1) / each);
    deaths += die_at_points(NULL, changes, NULL, 5, some, &expected);
    printf("      %ld deaths: %s\n", deaths, kill_points_deaths());
    die_at_random(NULL, changes, count("KILN_KILLS", 0), &expected);
    free(expected.metrics);
}

/* Steps of two points each; four where a snapshot is taken and sets are swapped. */
TEST_WITHIN(a_death_in_an_exact_run_changes_nothing, 3000) {
    die_beside(BESIDE "budget=1000", 3 * 2, 1, 151);
}
TEST_WITHIN(a_death_in_a_delayed_run_changes_nothing, 3000) {
    die_beside(BESIDE "overlap=delayed", 3 * 4, 1, 151);
}
TEST_WITHIN(a_death_in_a_delayed_run_on_sim_changes_nothing, 3000) {
    die_beside(BESIDE "overlap=delayed device=sim", 3 * 4, 3, 199);
}

static bool second(uint64_t step) { return step == 1; }

TEST_WITHIN(a_death_around_a_skipped_delayed_window_changes_nothing, 3000) {
    kiln_overflow_instead = second;
    die_beside(BESIDE "overlap=delayed precision=fp32", 3 * 4, 3, 199);
}

TEST_WITHIN(a_death_between_processes_of_a_delayed_run_changes_nothing, 3000) {
    static const char *const changes = BESIDE "overlap=delayed budget=7";
    struct outcome expected = expect_of(BESIDE "overlap=delayed");
    make_start(changes);
    long deaths =
        die_at_points("start", changes, "hand-over", 1, count("KILN_KILL_STRIDE", 7), &expected);
    CHECK(deaths > 5);
    deaths += die_at_points("start", changes, NULL, 3, count("KILN_KILL_STRIDE", 251), &expected);
    printf("      %ld deaths: %s\n", deaths, kill_points_deaths());
    free(expected.metrics);
}
