/* SPDX-License-Identifier: MIT
 *
 * What dead processes left (src/base/leftovers.h): removed; what is alive or is not ours: kept.
 */
#include "base/leftovers.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "kiln_test.h"

static bool there(const char *name) { return kiln_path_exists(test_path(name)); }

static void make(const char *name) {
    struct kiln_err err;
    CHECK_OK(kiln_make_dirs(test_path(name), &err), &err);
}

TEST(only_folders_of_dead_processes_are_removed) {
    char dead[64], own[64], living[64];
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        _exit(0);
    }
    CHECK(waitpid(child, NULL, 0) == child);
    snprintf(dead, sizeof dead, "run.tmp-%ld/inside", (long)child);
    snprintf(own, sizeof own, "run.tmp-%ld", (long)getpid());
    snprintf(living, sizeof living, "run.tmp-%ld", (long)getppid());
    const char *const kept[] = {living, "run.tmp-", "run.tmp-1x", "run.tmp-01",
                                "other.tmp-2000000"};
    make(dead);
    make(own);
    for (size_t i = 0; i < 5; i++) {
        make(kept[i]);
    }
    kiln_leftovers_remove(test_path("run.tmp-"));
    CHECK(!there(own));
    CHECK(!there(dead));
    for (size_t i = 0; i < 5; i++) {
        CHECK(there(kept[i]));
    }
    kiln_leftovers_remove(test_path("no/such/folder.tmp-"));
}
