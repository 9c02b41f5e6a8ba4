/* SPDX-License-Identifier: MIT
 *
 * Power cuts: a run whose disk is left as a cut may leave it (disk.h) goes on after the reboot and
 * ends with the bits and the metrics of one that was never cut, or says plainly that nothing was
 * saved yet. And a state with snapshots, cut while it is saved and made again from a checkpoint.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/machine.h"
#include "base/mem.h"
#include "kernel/weights.h"
#include "kiln/train.h"
#include "kiln_test.h"
#include "state/checkpoint.h"
#include "state/disk.h"
#include "state/state_lab.h"
#include "train/lasting.h"
#include "train/tiny_run.h"

enum { VARIANTS = 3, NOT_CUT = 0, CUT = 16, HAS_RUN = 1, HAS_CHECKPOINT = 2 };

static volatile sig_atomic_t stop;
static void stop_at_2(void *context, const struct kiln_step_record *record) {
    (void)context;
    stop = record->step == 2;
}

/* Make a run, stop it after step 2, resume it and train it to its end. */
static int train(void) {
    const char *folder = test_path("disk/run");
    const struct kiln_observer observer = {.on_step = stop_at_2};
    struct kiln_settings s;
    struct kiln_run *run;
    struct kiln_err err;
    tiny_settings(&s, "disk/run", "steps=4 save-every=1 keep-checkpoints=2 eval-every=2");
    CHECK_STRING(s.out, folder);
    if (kiln_run_create(&s, &run, &err) != KILN_OK ||
        kiln_run_train(run, &observer, &stop, &err) != KILN_EINTERRUPTED) {
        return 1;
    }
    kiln_run_close(run);
    stop = 0;
    if (kiln_run_resume(folder, NULL, &run, &err) != KILN_OK ||
        kiln_run_train(run, NULL, NULL, &err) != KILN_OK) {
        return 1;
    }
    kiln_run_close(run);
    return NOT_CUT;
}

static long cut;

/* In the child, at the cut. What is certainly on the disk goes out with the exit status. */
static void cut_power(void) {
    for (uint64_t v = 0; v < VARIANTS; v++) {
        char name[32];
        snprintf(name, sizeof name, "after%llu", (unsigned long long)v);
        disk_build(test_path(name), v < 1 ? v : v + 3 * (uint64_t)cut);
    }
    _exit(CUT | (disk_has("", "run") ? HAS_RUN : 0) |
          (disk_has("run/checkpoints", "step-") || disk_has("checkpoints", "step-") ? HAS_CHECKPOINT
                                                                                    : 0));
}

/* What is done in the child, in test_path("disk"), and cut. */
static int (*work)(void);

static int work_until(long event, long *events) {
    struct kiln_err err;
    CHECK_OK(kiln_remove_tree(test_path("disk"), &err), &err);
    CHECK(mkdir(test_path("disk"), 0700) == 0);
    cut = event;
    char counted[4200];
    snprintf(counted, sizeof counted, "%s", test_path("events"));
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        disk_watch(test_path("disk"));
        disk_cut_at(event, cut_power);
        const int failed = work();
        const long n = disk_events();
        _exit(kiln_write_file(counted, &n, sizeof n, NULL) == KILN_OK ? failed : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    if (events) {
        char *n;
        size_t size;
        CHECK_OK(kiln_read_file(counted, &n, &size, &err), &err);
        memcpy(events, n, sizeof *events);
        kiln_free(n);
    }
    return WEXITSTATUS(status);
}

static char told[1024];
static void tell(void *context, const char *text) {
    (void)context;
    const size_t n = strlen(told);
    snprintf(told + n, sizeof told - n, "%s; ", text);
}
static const struct kiln_observer telling = {.on_notice = tell};

/* After the reboot: to the end, or the message of why not. */
static enum kiln_status resume(const char *folder, struct kiln_err *err) {
    struct kiln_run *run;
    told[0] = '\0';
    kiln_boot_id_instead = "the-boot-after-the-cut";
    enum kiln_status status = kiln_run_resume(folder, NULL, &run, err);
    if (status == KILN_OK) {
        status = kiln_run_train(run, &telling, NULL, err);
        kiln_run_close(run);
    }
    kiln_boot_id_instead = NULL;
    return status;
}

struct outcome {
    uint32_t weights;
    char *metrics;
};

static struct outcome outcome_of(const char *folder) {
    struct kiln_run_peek peek;
    struct kiln_err err;
    CHECK_OK(kiln_run_peek(folder, &peek, &err), &err);
    CHECK_EQ(peek.step, 4);
    return (struct outcome){peek.weights_hash, lasting_metrics(folder)};
}

struct tally {
    long cuts, disks, resumed, nothing_saved, no_run;
};

static void check_disk(const char *disk, int certain, const struct outcome *expected, long event,
                       struct tally *tally) {
    char folder[4200];
    struct kiln_err err;
    snprintf(folder, sizeof folder, "%s/run", disk);
    tally->disks++;
    if (!kiln_path_exists(folder)) {
        if (certain & HAS_RUN) {
            FAIL("cut %ld, %s: the run is gone", event, disk);
        }
        tally->no_run++;
        return;
    }
    const enum kiln_status status = resume(folder, &err);
    if (status != KILN_OK) {
        if (certain & HAS_CHECKPOINT || !strstr(err.message, "all that was trained is lost")) {
            FAIL("cut %ld, %s: %s", event, disk, err.message);
        }
        tally->nothing_saved++;
        return;
    }
    struct outcome o = outcome_of(folder);
    if (o.weights != expected->weights || strcmp(o.metrics, expected->metrics) != 0) {
        FAIL("cut %ld, %s (%s): the weights are %u, not %u; metrics\n%s, not\n%s", event, disk,
             told, o.weights, expected->weights, o.metrics, expected->metrics);
    }
    free(o.metrics);
    tally->resumed++;
}

static void cut_at(long event, const struct outcome *expected, struct tally *tally) {
    const int ended = work_until(event, NULL);
    if (ended == NOT_CUT) {
        return; /* threads passed fewer points this time */
    }
    CHECK(ended & CUT);
    tally->cuts++;
    for (int v = 0; v < VARIANTS; v++) {
        char name[32];
        struct kiln_err err;
        snprintf(name, sizeof name, "after%d", v);
        check_disk(test_path(name), ended, expected, event, tally);
        CHECK_OK(kiln_remove_tree(test_path(name), &err), &err);
    }
}

/* KILN_POWER_CUTS=all cuts at every write, sync, rename and kill point, a number at so many. */
TEST_WITHIN(a_power_cut_at_any_write_loses_nothing_that_was_saved, 7200) {
    long events;
    work = train;
    CHECK_EQ(work_until(0, &events), NOT_CUT);
    struct outcome expected = outcome_of(test_path("disk/run"));
    const char *text = getenv("KILN_POWER_CUTS");
    const long wanted = !text ? 25 : strcmp(text, "all") == 0 ? events : atol(text);
    struct tally tally = {0};
    for (long i = 0; i < wanted; i++) {
        cut_at(1 + i * events / wanted, &expected, &tally);
    }
    free(expected.metrics);
    printf(
        "      %ld reports; %ld cuts, %ld disks: %ld resumed, %ld with nothing saved yet, %ld "
        "without the run\n",
        events, tally.cuts, tally.disks, tally.resumed, tally.nothing_saved, tally.no_run);
    CHECK(tally.resumed > tally.disks / 3);
}

/* ---- a state with snapshots ---------------------------------------------------------------- */

static struct kiln_table *table;

/* Of generation g, in the slot it belongs to. */
static void put_generation(struct kiln_state *state, uint64_t g) {
    memset(kiln_state_snapshot(state, g % 2), (int)(10 + g),
           kiln_snapshot_bytes(table, KILN_PRECISION_BF16));
    for (size_t i = 0; i < table->n_tensors; i++) { /* what lies between them stays zero */
        const struct kiln_tensor *t = &table->tensors[i];
        for (size_t k = 0; k < t->rows * t->cols; k++) {
            kiln_state_region(state, KILN_WEIGHTS)[t->offset + k] = (float)g;
        }
    }
}

/* As a delayed run after step 4: generations 3 and 4. A save, steps 5 and 6 with no save, and the
 * state made again from the checkpoint as after a cut; then a clean end. */
static int save_and_restore(void) {
    struct kiln_state *state;
    if (kiln_state_create(test_path("disk/state"), table, KILN_PRECISION_BF16, false, &state,
                          NULL) ||
        kiln_state_begin(state, NULL)) {
        return 1;
    }
    put_generation(state, 3);
    put_generation(state, 4);
    struct kiln_cursor cursor = *kiln_state_cursor(state);
    cursor.step = 4;
    cursor.phase = KILN_PHASE_WINDOW;
    kiln_state_commit(state, &cursor);
    const void *const snapshots[KILN_SNAPSHOTS] = {kiln_state_snapshot(state, 0),
                                                   kiln_state_snapshot(state, 1)};
    if (kiln_checkpoint_write(
            test_path("disk/checkpoints/step-4"), table, kiln_state_region(state, KILN_WEIGHTS),
            kiln_state_region(state, KILN_MOMENT1), kiln_state_region(state, KILN_MOMENT2),
            snapshots, KILN_PRECISION_BF16, NULL, &cursor, NULL, NULL)) {
        return 1;
    }
    for (cursor.step = 5; cursor.step <= 6; cursor.step++) {
        put_generation(state, cursor.step);
        kiln_state_commit(state, &cursor);
    }
    kiln_state_close(state);
    if (kiln_state_renew(test_path("disk/state"), table, KILN_PRECISION_BF16, false, &state,
                         NULL) ||
        kiln_checkpoint_restore(test_path("disk/checkpoints/step-4"), state, NULL) ||
        kiln_state_finish(state, NULL)) {
        return 1;
    }
    kiln_state_close(state);
    return NOT_CUT;
}

/* Generations 3 and 4 and step 4, every byte. */
static void check_saved(struct kiln_state *state, long event, const char *disk) {
    const size_t bytes = kiln_snapshot_bytes(table, KILN_PRECISION_BF16);
    bool right = kiln_state_cursor(state)->step == 4;
    for (size_t g = 3; g <= 4; g++) {
        const unsigned char *at = kiln_state_snapshot(state, g % 2);
        for (size_t i = 0; i < bytes; i++) {
            right = right && at[i] == 10 + g;
        }
    }
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        for (size_t k = 0; k < t->rows * t->cols; k++) {
            right = right && kiln_state_region(state, KILN_WEIGHTS)[t->offset + k] == 4.0f;
        }
    }
    if (!right) {
        FAIL("cut %ld, %s: not the state of step 4", event, disk);
    }
}

/* Either the state is trusted and right, or the checkpoint is whole and makes it so, or none was
 * certainly on the disk. */
static void check_snapshots(const char *disk, int certain, long event, struct tally *tally) {
    char file[4200], folder[4200], path[4300], notice[160];
    struct kiln_state *state;
    struct kiln_err err;
    uint64_t step;
    size_t damaged;
    snprintf(file, sizeof file, "%s/state", disk);
    snprintf(folder, sizeof folder, "%s/checkpoints", disk);
    tally->disks++;
    kiln_boot_id_instead = "the-boot-after-the-cut";
    if (kiln_state_open(file, table, &state, notice, &err) == KILN_OK) {
        check_saved(state, event, disk);
        kiln_state_close(state);
        tally->resumed++;
    }
    if (kiln_checkpoint_find(folder, &step, path, sizeof path, &damaged, &err) == KILN_OK) {
        CHECK_OK(kiln_state_renew(file, table, KILN_PRECISION_BF16, false, &state, &err), &err);
        CHECK_OK(kiln_checkpoint_restore(path, state, &err), &err);
        check_saved(state, event, disk);
        kiln_state_close(state);
    } else if (certain & HAS_CHECKPOINT) {
        FAIL("cut %ld, %s: %s", event, disk, err.message);
    } else {
        tally->nothing_saved++;
    }
    kiln_boot_id_instead = NULL;
}

TEST_WITHIN(a_power_cut_leaves_the_snapshots_of_both_generations_or_no_trust, 600) {
    long events;
    struct tally tally = {0};
    table = lab_table(16, true);
    work = save_and_restore;
    CHECK_EQ(work_until(0, &events), NOT_CUT);
    for (long event = 1; event <= events; event++) {
        const int ended = work_until(event, NULL);
        CHECK(ended & CUT);
        tally.cuts++;
        for (int v = 0; v < VARIANTS; v++) {
            char name[32];
            struct kiln_err err;
            snprintf(name, sizeof name, "after%d", v);
            check_snapshots(test_path(name), ended, event, &tally);
            CHECK_OK(kiln_remove_tree(test_path(name), &err), &err);
        }
    }
    printf("      %ld cuts, %ld disks: %ld states trusted, %ld with nothing saved yet\n",
           tally.cuts, tally.disks, tally.resumed, tally.nothing_saved);
    CHECK(tally.resumed > 0 && tally.disks - tally.nothing_saved > 50);
    kiln_table_destroy(table);
}
