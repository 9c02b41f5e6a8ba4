/* SPDX-License-Identifier: MIT
 *
 * test_control.c: control.json: what it may say, when it is obeyed, and that a learning rate
 * changed on the way is part of the run: killed, resumed, replayed, handed over, the bits are the
 * same.
 */
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/io_hook.h"
#include "base/mem.h"
#include "kill_points.h"
#include "kiln/verify.h"
#include "kiln_test.h"
#include "train/control.h"
#include "train/optimizer.h"
#include "train/run_int.h"
#include "train/tiny_run.h"

/* ---- the file ---------------------------------------------------------------------------------
 */

struct asked {
    size_t n;
    uint64_t at;
    double lr;
};

static enum kiln_status on_rate(void *context, uint64_t at, double lr, struct kiln_err *err) {
    struct asked *a = context;
    (void)err;
    *a = (struct asked){a->n + 1, at, lr};
    return KILN_OK;
}

static void settings_with_rate(struct kiln_settings *s, double lr) {
    struct kiln_err err;
    CHECK_OK(kiln_settings_init(s, &err), &err);
    s->lr = lr;
}

/* Files that were taken and are there still. */
static size_t taken_left(void) {
    size_t n = 0;
    DIR *dir = opendir(test_folder());
    CHECK(dir != NULL);
    for (const struct dirent *one; (one = readdir(dir)) != NULL;) {
        n += strncmp(one->d_name, "control.taken-", 14) == 0;
    }
    closedir(dir);
    return n;
}

/* What is said to a run that is told this. */
static const char *told(const void *text, size_t size, struct kiln_control *control,
                        const struct kiln_settings *s) {
    static char said[KILN_CONTROL_TEXT];
    struct kiln_err err;
    if (text) {
        (void)test_file("control.json", text, size);
    }
    CHECK_OK(kiln_control_look(control, test_folder(), s, 7, said, &err), &err);
    CHECK(!kiln_path_exists(test_path("control.json")));
    CHECK(taken_left() == 0);
    return said;
}

TEST(a_run_is_asked_for_a_rate_and_for_its_end) {
    struct kiln_err err;
    struct kiln_settings s;
    struct asked a = {0};
    struct kiln_control control = {.context = &a, .rate = on_rate};
    settings_with_rate(&s, 1e-3);
    CHECK_STRING(told(NULL, 0, &control, &s), "");
    struct kiln_request request = {.lr = 2.5e-4};
    CHECK_OK(kiln_control_ask(test_folder(), &request, &err), &err);
    CHECK_STRING(told(NULL, 0, &control, &s),
                 "the peak learning rate is 0.00025 from step 8 on; it was 0.001");
    CHECK(a.n == 1 && a.at == 7 && a.lr == 2.5e-4 && !control.stop);
    request = (struct kiln_request){.stop = true, .lr = 1e-5};
    CHECK_OK(kiln_control_ask(test_folder(), &request, &err), &err);
    CHECK_CONTAINS(told(NULL, 0, &control, &s), "asked to stop");
    CHECK(a.n == 2 && a.lr == 1e-5 && control.stop);
    request = (struct kiln_request){.stop = false, .lr = (double)NAN};
    CHECK_FAILS(kiln_control_ask(test_folder(), &request, &err), KILN_EUSAGE, &err);
    request.lr = -1;
    CHECK_FAILS(kiln_control_ask(test_folder(), &request, &err), KILN_EUSAGE, &err);
    request.lr = (double)INFINITY;
    CHECK_FAILS(kiln_control_ask(test_folder(), &request, &err), KILN_EUSAGE, &err);
    request.lr = 1;
    CHECK_FAILS(kiln_control_ask(test_path("absent"), &request, &err), KILN_EIO, &err);
    kiln_settings_free(&s);
}

TEST(what_is_no_request_is_refused_and_goes) {
    static const char *const bad[] = {"",
                                      "stop",
                                      "[]",
                                      "{}",
                                      "{\"stop\": 1}",
                                      "{\"stop\": true, \"steps\": 5}",
                                      "{\"stop\": true, \"stop\": true}",
                                      "{\"lr\": \"1e-3\"}",
                                      "{\"lr\": -1e-3}",
                                      "{\"lr\": 1001}",
                                      "{\"lr\": 1e999}",
                                      "{\"lr\": NaN}",
                                      "{\"lr\": null, \"stop\": true}",
                                      "{\"stop\": true} {}"};
    struct kiln_settings s;
    struct asked a = {0};
    struct kiln_control control = {.context = &a, .rate = on_rate};
    settings_with_rate(&s, 1e-3);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_CONTAINS(told(bad[i], strlen(bad[i]), &control, &s), "control.json is not obeyed: ");
    }
    CHECK_CONTAINS(told("{\"stop\": true\0}", 15, &control, &s), "is not obeyed");
    char *long_one = malloc(1 << 20);
    CHECK(long_one != NULL);
    memset(long_one, ' ', 1 << 20);
    CHECK_CONTAINS(told(long_one, 1 << 20, &control, &s), "too long");
    free(long_one);
    /* Neither links nor pipes are followed or waited for. */
    const char *target = test_file("target", "{\"stop\": true}", 14);
    CHECK(symlink(target, test_path("control.json")) == 0);
    CHECK_CONTAINS(told(NULL, 0, &control, &s), "no regular file");
    CHECK(mkfifo(test_path("control.json"), 0600) == 0);
    CHECK_CONTAINS(told(NULL, 0, &control, &s), "no regular file");
    CHECK(mkdir(test_path("control.json"), 0700) == 0);
    CHECK_CONTAINS(told(NULL, 0, &control, &s), "no regular file");
    CHECK(a.n == 0 && !control.stop && !control.told);
    kiln_settings_free(&s);
}

/* What lies in the run folder does not make the trainer deaf: it obeys what comes next. */
TEST(nothing_left_behind_makes_a_run_deaf) {
    static const char stop[] = "{\"stop\": true}";
    struct kiln_settings s;
    struct kiln_control control = {.stop = false};
    struct kiln_err err;
    char said[KILN_CONTROL_TEXT], name[80];
    settings_with_rate(&s, 1e-3);
    (void)test_file("control.taken", stop, sizeof stop - 1);
    snprintf(name, sizeof name, "control.taken-%ld-0", (long)getpid());
    CHECK(mkdir(test_path("control.json"), 0700) == 0 && mkdir(test_path(name), 0700) == 0);
    (void)test_file("control.json/inside", "", 0);
    CHECK_OK(kiln_control_look(&control, test_folder(), &s, 1, said, &err), &err);
    CHECK_CONTAINS(said, "no regular file");
    CHECK(!kiln_path_exists(test_path("control.json")) && !control.stop);
    (void)test_file("control.json", stop, sizeof stop - 1);
    CHECK_OK(kiln_control_look(&control, test_folder(), &s, 2, said, &err), &err);
    CHECK_CONTAINS(said, "asked to stop");
    CHECK(control.stop && !kiln_path_exists(test_path("control.json")));
    kiln_settings_free(&s);
}

/* All names that it may be taken under are in use: told once, tried again, obeyed when it can be.
 */
TEST(a_file_that_cannot_be_taken_away_is_told_of_once) {
    static const char stop[] = "{\"stop\": true}";
    struct kiln_settings s;
    struct kiln_control control = {.stop = false};
    struct kiln_err err;
    char said[KILN_CONTROL_TEXT], name[80];
    settings_with_rate(&s, 1e-3);
    (void)test_file("control.json", stop, sizeof stop - 1);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "control.taken-%ld-%d", (long)getpid(), i);
        (void)test_file(name, "", 0);
    }
    CHECK_OK(kiln_control_look(&control, test_folder(), &s, 1, said, &err), &err);
    CHECK_CONTAINS(said, "cannot be taken away");
    CHECK_OK(kiln_control_look(&control, test_folder(), &s, 2, said, &err), &err);
    CHECK_STRING(said, "");
    CHECK(!control.stop && unlink(test_path(name)) == 0);
    CHECK_OK(kiln_control_look(&control, test_folder(), &s, 3, said, &err), &err);
    CHECK_CONTAINS(said, "asked to stop");
    CHECK(control.stop);
    kiln_settings_free(&s);
}

TEST(a_run_that_cannot_have_another_rate_says_why) {
    struct kiln_settings s;
    struct asked a = {0};
    struct kiln_control control = {.context = &a, .rate = on_rate};
    settings_with_rate(&s, 0);
    CHECK_CONTAINS(told("{\"lr\": 1e-3}", 12, &control, &s), "--lr 0");
    s.lr = 1e-3;
    for (; s.n_peaks < KILN_PEAKS; s.n_peaks++) {
        s.peak[s.n_peaks] = (struct kiln_peak){s.n_peaks / 10, 1e-3};
    }
    CHECK_CONTAINS(told("{\"lr\": 1e-3}", 12, &control, &s), "changed 64 times");
    CHECK_EQ(a.n, 0);
    kiln_settings_free(&s);
}

/* ---- the schedule -----------------------------------------------------------------------------
 */

TEST(a_changed_rate_scales_the_whole_schedule) {
    struct kiln_settings s, plain, read;
    struct kiln_err err;
    settings_with_rate(&plain, 1e-3);
    plain.min_lr = 1e-4;
    plain.warmup = 10;
    plain.steps = 100;
    s = plain;
    s.peak[0] = (struct kiln_peak){5, 5e-4};
    s.peak[1] = (struct kiln_peak){60, 3e-3};
    s.n_peaks = 2;
    char *json = kiln_settings_to_json(&s);
    CHECK_OK(kiln_settings_init(&read, &err), &err);
    CHECK_OK(kiln_settings_from_json(&read, json, strlen(json), &err), &err);
    CHECK_CONTAINS(json, "0.0005");
    for (uint64_t step = 0; step < 100; step++) {
        const double before = kiln_learning_rate(&plain, step);
        const double now = kiln_learning_rate(&s, step);
        const double share = step < 5 ? 1 : step < 60 ? 0.5 : 3;
        CHECK(step >= 5 || now == before);
        CHECK_CLOSE(now, share * before, 1e-15);
        CHECK(now == kiln_learning_rate(&read, step));
    }
    kiln_settings_json_free(json);
    kiln_settings_free(&read);
    static const char *const bad[] = {"{\"lr\": 1, \"peaks\": 5}",
                                      "{\"lr\": 1, \"peaks\": [[5]]}",
                                      "{\"lr\": 1, \"peaks\": [[9, 1], [9, 2]]}",
                                      "{\"lr\": 1, \"peaks\": [[-1, 4]]}",
                                      "{\"lr\": 1, \"peaks\": [[1, -4]]}",
                                      "{\"lr\": 0, \"peaks\": [[1, 1]]}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_OK(kiln_settings_init(&read, &err), &err);
        CHECK_FAILS(kiln_settings_from_json(&read, bad[i], strlen(bad[i]), &err), KILN_EINPUT,
                    &err);
        CHECK_CONTAINS(err.message, "peaks");
        kiln_settings_free(&read);
    }
    kiln_settings_free(&plain);
}

/* ---- runs -------------------------------------------------------------------------------------
 */

#define STEPS "steps=12 eval-every=4 save-every=2 keep-checkpoints=9 warmup=2"

static uint64_t ask_behind; /* the step behind which the observer asks */
static double ask_rate;
static char said[2000];

static void on_step(void *context, const struct kiln_step_record *record) {
    const struct kiln_request request = {.lr = ask_rate, .stop = isnan(ask_rate)};
    struct kiln_err err;
    if (record->step == ask_behind) {
        CHECK_OK(kiln_control_ask(context, &request, &err), &err);
    }
}
static void on_notice(void *context, const char *text) {
    const size_t n = strlen(said);
    (void)context;
    snprintf(said + n, sizeof said - n, "%s\n", text);
}

/* Train, or go on, asking behind that step (0: never); the status, and the weights. */
static enum kiln_status train(const char *name, const char *changes, uint64_t step, double lr,
                              uint32_t *hash) {
    char folder[4096];
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err = {.message = ""};
    snprintf(folder, sizeof folder, "%s", test_path(name));
    const struct kiln_observer observer = {
        .context = folder, .on_step = on_step, .on_notice = on_notice};
    ask_behind = step;
    ask_rate = lr;
    said[0] = '\0';
    tiny_settings(&s, name, changes);
    if (kiln_path_exists(folder)) {
        CHECK_OK(kiln_run_resume(folder, NULL, &run, &err), &err);
    } else {
        CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    }
    kiln_settings_free(&s);
    enum kiln_status status = kiln_run_train(run, &observer, NULL, &err);
    while (status == KILN_ERESTART) {
        CHECK_OK(kiln_run_take_over(kiln_run_hand_over(run), folder, &run, &err), &err);
        status = kiln_run_train(run, &observer, NULL, &err);
    }
    *hash = kiln_run_weights_hash(run);
    kiln_run_close(run);
    return status;
}

/* The same settings, and nobody asks. */
static uint32_t told_before(const char *name, uint64_t at, double lr) {
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    tiny_settings(&s, name, STEPS);
    s.peak[0] = (struct kiln_peak){at, lr};
    s.n_peaks = 1;
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    CHECK_OK(kiln_run_train(run, NULL, NULL, &err), &err);
    const uint32_t hash = kiln_run_weights_hash(run);
    kiln_run_close(run);
    kiln_settings_free(&s);
    return hash;
}

/* A full disk, as far as one file sees it. */
static void no_room_for_run_json(const struct kiln_io_event *event) {
    if (event->op == KILN_IO_CREATE && !event->done && strstr(event->path, "/full/run.json.tmp-")) {
        CHECK(symlink("/dev/full", event->path) == 0);
    }
}

TEST(a_rate_that_a_full_disk_does_not_take_ends_no_run) {
    uint32_t hash, plain;
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    char folder[4096];
    if (!kiln_path_exists("/dev/full")) {
        SKIP("no /dev/full");
    }
    snprintf(folder, sizeof folder, "%s", test_path("full"));
    const struct kiln_observer observer = {
        .context = folder, .on_step = on_step, .on_notice = on_notice};
    CHECK_EQ(train("plain", STEPS, 0, 0, &plain), KILN_OK);
    tiny_settings(&s, "full", STEPS);
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    kiln_settings_free(&s);
    ask_behind = 5;
    ask_rate = 1e-3;
    said[0] = '\0';
    kiln_io_hook = no_room_for_run_json;
    CHECK_OK(kiln_run_train(run, &observer, NULL, &err), &err);
    kiln_io_hook = NULL;
    hash = kiln_run_weights_hash(run);
    kiln_run_close(run);
    CHECK_CONTAINS(said, "the learning rate 0.001 is not taken, it stays 0.003: ");
    CHECK_CONTAINS(said, "No space left");
    CHECK_EQ(hash, plain);
}

TEST(a_run_that_is_asked_for_a_rate_is_what_its_run_json_says) {
    uint32_t hash, plain;
    struct kiln_err err;
    CHECK_EQ(train("asked", STEPS, 5, 1e-3, &hash), KILN_OK);
    CHECK_CONTAINS(said, "the peak learning rate is 0.001 from step 6 on; it was 0.003");
    CHECK(!kiln_path_exists(test_path("asked/control.json")));
    CHECK_EQ(hash, told_before("told", 5, 1e-3));
    CHECK_EQ(train("plain", STEPS, 0, 0, &plain), KILN_OK);
    CHECK(hash != plain);
    /* Every checkpoint, from before the change and behind it, leads to this end. */
    struct kiln_replay_result result;
    const struct kiln_replay_options how = {
        .run = test_path("asked"), .from = KILN_UNSET, .steps = KILN_UNSET};
    CHECK_OK(kiln_verify_run(&how, &result, &err), &err);
    CHECK(result.pass && result.from < 5 && result.to == 12);
    CHECK_STRING(result.note, "");
    kiln_replay_free(&result);
}

/* In the middle of windows processes change; what was asked for at a window's start holds. */
TEST(processes_of_a_small_budget_know_the_rate_that_one_was_asked_for) {
    uint32_t hash;
    CHECK_EQ(train("budget", STEPS " budget=7", 5, 1e-3, &hash), KILN_OK);
    CHECK_EQ(hash, told_before("told", 5, 1e-3));
}

TEST(a_run_that_is_asked_to_stop_is_saved_and_goes_on) {
    uint32_t hash, whole;
    CHECK_EQ(train("whole", STEPS, 0, 0, &whole), KILN_OK);
    CHECK_EQ(train("stopped", STEPS, 5, (double)NAN, &hash), KILN_EINTERRUPTED);
    CHECK_CONTAINS(said, "asked to stop");
    CHECK(hash != whole);
    CHECK_EQ(train("stopped", STEPS, 0, 0, &hash), KILN_OK);
    CHECK_STRING(said, "");
    CHECK_EQ(hash, whole);
}

TEST(what_was_asked_of_a_process_that_is_gone_is_forgotten) {
    const struct kiln_request request = {.stop = true, .lr = 1e-3};
    uint32_t hash, whole;
    struct kiln_err err;
    CHECK_EQ(train("whole", STEPS, 0, 0, &whole), KILN_OK);
    CHECK_EQ(train("late", STEPS, 5, (double)NAN, &hash), KILN_EINTERRUPTED);
    CHECK_OK(kiln_control_ask(test_path("late"), &request, &err), &err);
    CHECK_EQ(train("late", STEPS, 0, 0, &hash), KILN_OK);
    CHECK_CONTAINS(said, "control.json is not obeyed: it was there before this process");
    CHECK(!kiln_path_exists(test_path("late/control.json")));
    CHECK_EQ(hash, whole);
}

/* In a child: dies at the n-th of the points around a change, or gets through. */
static bool dies(const char *name, long n) {
    int status;
    uint32_t hash;
    kill_points_arm("turn", n);
    fflush(NULL);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        _exit(train(name, STEPS, 5, 1e-3, &hash) == KILN_OK ? 0 : 1);
    }
    kill_points_disarm();
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQ(kill_points_passed("turn"), n);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* Dead before it was written: a run that was never asked. Behind it: one that was. */
TEST(a_death_around_a_change_leaves_a_run_with_it_or_without) {
    uint32_t plain, hash;
    CHECK_EQ(train("plain", STEPS, 0, 0, &plain), KILN_OK);
    const uint32_t changed = told_before("told", 5, 1e-3);
    CHECK(dies("before", 1));
    CHECK_EQ(train("before", STEPS, 0, 0, &hash), KILN_OK);
    CHECK_EQ(hash, plain);
    CHECK(dies("behind", 2));
    CHECK_EQ(train("behind", STEPS, 0, 0, &hash), KILN_OK);
    CHECK_EQ(hash, changed);
}

/* ---- a relay ----------------------------------------------------------------------------------
 */

static struct {
    int lock;
    const char *folder;
    struct kiln_run *next;
    size_t started;
} relayed;

static void start(void *context, const char *place) {
    struct kiln_err err;
    (void)context;
    relayed.started++;
    CHECK_OK(kiln_run_succeed(dup(relayed.lock), relayed.folder, place, &relayed.next, &err), &err);
}

static bool wait_for_next(void *context, double *since) {
    (void)context;
    *since = 0;
    return relayed.next != NULL;
}

/* A successor that was started before somebody asked reads the rate when it takes over. */
TEST(successors_know_the_rate_that_their_owner_was_asked_for) {
    const uint32_t want = told_before("told", 5, 1e-3);
    static char folder[4096];
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    tiny_settings(&s, "relayed", STEPS " budget=7 restart=relay");
    CHECK_OK(kiln_run_create(&s, &run, &err), &err);
    kiln_settings_free(&s);
    snprintf(folder, sizeof folder, "%s", test_path("relayed"));
    relayed.lock = kiln_run_hand_over(run);
    relayed.folder = folder;
    CHECK_OK(kiln_run_take_over(dup(relayed.lock), folder, &run, &err), &err);
    const struct kiln_observer observer = {
        .context = folder, .on_step = on_step, .on_notice = on_notice};
    const struct kiln_relay relay = {NULL, start, wait_for_next};
    ask_behind = 5;
    ask_rate = 1e-3;
    for (;;) {
        kiln_run_set_relay(run, &relay);
        const enum kiln_status status = kiln_run_train(run, &observer, NULL, &err);
        if (status != KILN_ERESTART) {
            CHECK_OK(status, &err);
            break;
        }
        close(kiln_run_hand_over(run));
        CHECK_OK(kiln_run_go(relayed.next, &err), &err);
        run = relayed.next;
        relayed.next = NULL;
    }
    CHECK(relayed.started > 12);
    CHECK_EQ(kiln_run_weights_hash(run), want);
    kiln_run_close(run);
    kiln_run_close(relayed.next);
    close(relayed.lock);
}
