/* SPDX-License-Identifier: MIT
 *
 * kiln verify RUN (kiln/verify.h): a good run passes, and what was changed is named.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln/verify.h"
#include "kiln_test.h"
#include "train/tiny_run.h"

static struct kiln_replay_result verify(const char *run, uint64_t from, uint64_t steps) {
    const struct kiln_replay_options how = {.run = run, .from = from, .steps = steps};
    struct kiln_replay_result result;
    struct kiln_err err;
    CHECK_OK(kiln_verify_run(&how, &result, &err), &err);
    return result;
}

static struct kiln_replay_result verify_all(const char *run) {
    return verify(run, KILN_UNSET, KILN_UNSET);
}

static void check_differs(const char *run, const char *what, const char *found) {
    struct kiln_replay_result r = verify_all(run);
    size_t n = 0;
    CHECK(!r.pass);
    for (size_t i = 0; i < r.n_checks; i++) {
        if (!r.checks[i].same && n++ == 0) {
            CHECK_STRING(r.checks[i].what, what);
            CHECK_CONTAINS(r.checks[i].found, found);
        }
    }
    CHECK_EQ(n, 1);
    kiln_replay_free(&r);
}

/* Size, time and name of all that a run holds. */
static void describe(const char *folder, char *out, size_t size) {
    size_t n = strlen(out);
    DIR *dir = opendir(folder);
    CHECK(dir != NULL);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        char path[4400];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        CHECK(stat(path, &st) == 0);
        if (e->d_name[0] == '.') {
            continue;
        }
        if (S_ISDIR(st.st_mode)) {
            describe(path, out, size);
            n = strlen(out);
        } else {
            n += (size_t)snprintf(out + n, size - n, "%s %lld %lld.%ld\n", e->d_name,
                                  (long long)st.st_size, (long long)st.st_mtim.tv_sec,
                                  st.st_mtim.tv_nsec);
        }
    }
    closedir(dir);
}

TEST(a_good_run_is_the_same_again_and_nothing_of_it_changes) {
    char before[8192] = "", after[8192] = "";
    const char *run = tiny_run("run", "", NULL);
    describe(run, before, sizeof before);
    struct kiln_replay_result r = verify_all(run);
    for (size_t i = 0; i < r.n_checks; i++) {
        printf("      %-20s %d %s\n", r.checks[i].what, r.checks[i].same, r.checks[i].found);
    }
    CHECK(r.pass);
    CHECK_EQ(r.from, 2);
    CHECK_EQ(r.to, 8);
    CHECK_EQ(r.n_checks, 4); /* steps 4 and 6, the state, the lines */
    CHECK_STRING(r.note, "");
    kiln_replay_free(&r);
    describe(run, after, sizeof after);
    CHECK_STRING(after, before);
}

TEST(a_replay_begins_and_ends_where_it_is_told_to) {
    const char *run = tiny_run("run", "", NULL);
    struct kiln_replay_result r = verify(run, 4, 3);
    CHECK(r.pass);
    CHECK_EQ(r.from, 4);
    CHECK_EQ(r.to, 7);
    CHECK_EQ(r.n_checks, 2);
    CHECK_STRING(r.checks[0].what, "checkpoints/step-6");
    CHECK_CONTAINS(r.checks[1].found, "steps 5 to 7");
    kiln_replay_free(&r);
    struct kiln_err err;
    const struct kiln_replay_options how = {.run = run, .from = 5, .steps = KILN_UNSET};
    CHECK_FAILS(kiln_verify_run(&how, &r, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "step 5");
}

TEST(a_flipped_bit_in_a_later_checkpoint_is_named) {
    const char *run = tiny_run("run", "", NULL);
    tiny_flip(run, "checkpoints/step-6/model.bin", 2000);
    check_differs(run, "checkpoints/step-6", "model.bin is damaged");
    tiny_flip(run, "checkpoints/step-6/model.bin", 2000);
    tiny_flip(run, "checkpoints/step-2/resume.kiln", 9000); /* begins at the next one */
    check_differs(run, "checkpoints/step-2", "is damaged");
}

TEST(weights_of_the_state_that_are_not_of_the_run_are_named) {
    const char *run = tiny_run("run", "", NULL);
    tiny_flip(run, "state.kiln", 3 * 4096 + 400);
    check_differs(run, "state.kiln", "step 8: weights ");
}

TEST(a_changed_line_of_metrics_is_named) {
    struct kiln_err err;
    char path[4300], *text;
    size_t size;
    const char *run = tiny_run("run", "", NULL);
    snprintf(path, sizeof path, "%s/metrics.jsonl", run);
    CHECK_OK(kiln_read_file(path, &text, &size, &err), &err);
    char *line = strstr(text, "\"step\":5");
    CHECK(line != NULL);
    char *digit = strchr(strstr(line, "\"grad_norm\":"), '.') + 1;
    *digit = *digit == '3' ? '4' : '3';
    CHECK_OK(kiln_write_file(path, text, size, &err), &err);
    check_differs(run, "metrics.jsonl", "step 5: grad_norm is ");
    char *end = strstr(text, "\"step\":8");
    CHECK_OK(kiln_write_file(path, text, (size_t)(end - 1 - text), &err), &err);
    struct kiln_replay_result r = verify(run, 6, KILN_UNSET);
    CHECK(!r.pass);
    CHECK_CONTAINS(r.checks[r.n_checks - 1].found, "step 8: no line");
    kiln_replay_free(&r);
    kiln_free(text);
}

TEST(a_run_that_went_on_with_more_steps_is_replayed_with_the_settings_of_its_checkpoint) {
    const char *run = tiny_run("run", "keep-checkpoints=9", NULL);
    struct kiln_replay_result r = verify_all(run);
    CHECK(r.pass);
    kiln_replay_free(&r);
    tiny_resume(run, "steps=12");
    r = verify(run, KILN_UNSET, 4); /* up to step 6, which was trained with 8 steps in mind */
    CHECK(r.pass);
    CHECK_CONTAINS(r.note, "--steps was 8");
    kiln_replay_free(&r);
    r = verify(run, 10, KILN_UNSET);
    CHECK(r.pass);
    CHECK_STRING(r.note, "");
    kiln_replay_free(&r);
}

TEST(what_was_trained_after_steps_changed_is_named_and_what_was_before_is_compared) {
    char path[4300];
    struct kiln_err err;
    const char *run = tiny_run("run", "keep-checkpoints=9", NULL);
    tiny_resume(run, "steps=12");
    struct kiln_replay_result r = verify_all(run);
    CHECK(r.pass);
    CHECK_EQ(r.to, 8);
    CHECK_CONTAINS(r.note, "steps 9 to 12 were trained after --steps changed");
    kiln_replay_free(&r);
    const struct kiln_replay_options how = {.run = run, .from = 8, .steps = KILN_UNSET};
    snprintf(path, sizeof path, "%s/checkpoints/step-8", run);
    if (kiln_path_exists(path)) { /* of the settings of before, and nothing of those is behind it */
        CHECK_FAILS(kiln_verify_run(&how, &r, &err), KILN_EINPUT, &err);
        CHECK_CONTAINS(err.message, "--steps changed");
    }
    tiny_flip(run, "checkpoints/step-6/model.bin", 2000);
    check_differs(run, "checkpoints/step-6", "model.bin is damaged");
}

static volatile sig_atomic_t stop_now;

static void stop_at_five(void *context, const struct kiln_step_record *record) {
    (void)context;
    stop_now = record->step == 5;
}

TEST(steps_that_changed_in_the_middle_of_a_run_are_found_by_its_rates) {
    struct kiln_err err;
    struct kiln_settings s;
    struct kiln_run *run;
    const struct kiln_observer observer = {.on_step = stop_at_five};
    tiny_settings(&s, "run", "keep-checkpoints=9");
    stop_now = 0;
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    CHECK_FAILS(kiln_run_train(run, &observer, &stop_now, &err), KILN_EINTERRUPTED, &err);
    kiln_run_close(run);
    kiln_settings_free(&s);
    char folder[4200];
    snprintf(folder, sizeof folder, "%s", test_path("run"));
    tiny_resume(folder, "steps=16");
    struct kiln_replay_result r = verify_all(folder);
    CHECK(r.pass);
    CHECK_EQ(r.to, 5);
    CHECK_CONTAINS(r.note, "steps 6 to 16 were trained after --steps changed");
    kiln_replay_free(&r);
}

TEST(a_run_that_is_trained_is_not_verified) {
    struct kiln_err err;
    struct kiln_run *owner;
    struct kiln_replay_result r;
    const char *folder = tiny_run("run", "", NULL);
    const struct kiln_replay_options how = {.run = folder, .from = KILN_UNSET, .steps = KILN_UNSET};
    CHECK_OK(kiln_run_resume(folder, NULL, &owner, &err), &err);
    CHECK_FAILS(kiln_verify_run(&how, &r, &err), KILN_EBUSY, &err);
    kiln_run_close(owner);
}

TEST(other_numerics_are_not_compared) {
    struct kiln_err err;
    struct kiln_replay_result r;
    const char *folder = tiny_run("run", "precision=fp32", NULL);
    const struct kiln_replay_options how = {.run = folder, .from = KILN_UNSET, .steps = KILN_UNSET};
    CHECK(setenv("KILN_CPU", "ref", 1) == 0);
    CHECK_FAILS(kiln_verify_run(&how, &r, &err), KILN_EUNSUPPORTED, &err);
    CHECK_CONTAINS(err.message, "bits cannot be compared");
}

TEST(a_run_without_checkpoints_says_what_is_missing) {
    struct kiln_err err;
    struct kiln_replay_result r;
    const char *folder = tiny_run("run", "save-every=0", NULL);
    const struct kiln_replay_options how = {.run = folder, .from = KILN_UNSET, .steps = KILN_UNSET};
    CHECK_FAILS(kiln_verify_run(&how, &r, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "--save-every");
}
