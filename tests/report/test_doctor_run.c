/* SPDX-License-Identifier: MIT
 *
 * test_doctor_run.c: kiln doctor on runs: whole, damaged, locked, slow.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

#include "kiln/view.h"
#include "kiln_test.h"
#include "report/doctor_int.h"
#include "train/tiny_run.h"

static struct kiln_doctor seen;

static void look(const char *folder) {
    const struct kiln_doctor_options how = {.folder = folder};
    struct kiln_err err;
    CHECK_OK(kiln_doctor(&how, &seen, &err), &err);
}

static const struct kiln_finding *finding(const char *name, enum kiln_doctor_level level) {
    for (size_t i = 0; i < seen.n; i++) {
        if (strcmp(seen.finding[i].name, name) == 0 && seen.finding[i].level == level) {
            return &seen.finding[i];
        }
    }
    for (size_t i = 0; i < seen.n; i++) {
        printf("%s %s: %s\n", kiln_doctor_level_name(seen.finding[i].level), seen.finding[i].name,
               seen.finding[i].found);
    }
    fflush(stdout);
    FAIL("no finding %s of %s", kiln_doctor_level_name(level), name);
    return NULL;
}

static void write_file(const char *folder, const char *name, const char *text, const char *mode) {
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, mode);
    CHECK(file != NULL);
    fputs(text, file);
    CHECK_EQ(fclose(file), 0);
}

TEST(a_whole_run_is_fine_and_says_who_trains_it) {
    char path[4200], pid[32];
    const char *folder = tiny_run("run", "", NULL);
    look(folder);
    CHECK_CONTAINS(finding("state", KILN_DOCTOR_FINE)->found, "whole, after step 8");
    CHECK_CONTAINS(finding("lock", KILN_DOCTOR_FINE)->found, "nobody");
    CHECK_CONTAINS(finding("checkpoints", KILN_DOCTOR_FINE)->found, "the newest of step 6");
    snprintf(path, sizeof path, "%s/state.kiln", folder);
    const int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    CHECK_EQ(flock(fd, LOCK_EX), 0);
    look(folder);
    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    CHECK_CONTAINS(finding("lock", KILN_DOCTOR_FINE)->found, pid);
    close(fd);
}

TEST(a_damaged_state_is_broken_and_the_checkpoint_is_named) {
    char path[4200];
    const char *folder = tiny_run("run", "", NULL);
    tiny_flip(folder, "state.kiln", 40);
    look(folder);
    CHECK_CONTAINS(finding("state", KILN_DOCTOR_BROKEN)->advice, "newest checkpoint");
    snprintf(path, sizeof path, "%s/state.kiln", folder);
    CHECK_EQ(unlink(path), 0);
    look(folder);
    CHECK_CONTAINS(finding("state", KILN_DOCTOR_BROKEN)->found, "state.kiln");
}

/* A window's line with these times. */
static void write_step(const char *folder, int step, double ms, double stall_ms, const char *loss) {
    char line[512];
    snprintf(line, sizeof line,
             "{\"step\":%d,\"loss\":%s,\"grad_norm\":1,\"lr\":0.001,\"tokens\":%d,\"ms\":%g,"
             "\"stall_ms\":%g,\"device_ms\":%g,\"host_ms\":0,\"update_ms\":1,\"restart_ms\":0,"
             "\"tokens_per_s\":100,\"compiles\":0,\"restarts\":0}\n",
             step, loss, step * 64, ms, stall_ms, ms - stall_ms - 1);
    write_file(folder, "metrics.jsonl", line, "ab");
}

TEST(times_of_a_run_are_held_against_its_plan_and_its_beginning) {
    const char *folder = test_path("run");
    CHECK_EQ(mkdir(folder, 0700), 0);
    write_file(
        folder, "run.json",
        "{\"model\":\"stories15m\",\"steps\":400,\"plan\":{\"memory_bytes\":{\"total\":1000},"
        "\"time_s\":{\"compile\":0,\"compute\":0.1,\"stall\":0,\"restart\":0,"
        "\"step\":0.1}}}\n",
        "wb");
    for (int step = 1; step <= 120; step++) {
        write_step(folder, step, 100, 0, "2.5");
    }
    look(folder);
    CHECK_CONTAINS(finding("steps", KILN_DOCTOR_FINE)->found, "100 ms each; planned were 100 ms");
    CHECK_CONTAINS(finding("times", KILN_DOCTOR_FINE)->found, "computing 99 %");
    CHECK_CONTAINS(finding("checkpoints", KILN_DOCTOR_SLOW)->cost, "all 120 steps");
    for (int step = 121; step <= 180; step++) {
        write_step(folder, step, 200, 80, "2.5");
    }
    look(folder);
    CHECK_CONTAINS(finding("steps", KILN_DOCTOR_SLOW)->cost, "2.0 times");
    CHECK_CONTAINS(finding("pace", KILN_DOCTOR_SLOW)->cost, "2.0 times");
    CHECK_CONTAINS(finding("stalls", KILN_DOCTOR_SLOW)->found,
                   "20 % of the time went into waiting");
    write_step(folder, 181, 200, 0, "null");
    look(folder);
    CHECK(finding("loss", KILN_DOCTOR_BROKEN)->advice[0] != '\0');
}
