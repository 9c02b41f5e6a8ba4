/* SPDX-License-Identifier: MIT */
#include "self.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "stop.h"

#ifdef __APPLE__
#include <mach-o/dyld.h>

extern char **environ;

static char path[4096];
#define OWN_PATH path

enum kiln_status self_open(struct kiln_err *err) {
    uint32_t size = sizeof path;
    KILN_REQUIRE(_NSGetExecutablePath(path, &size) == 0, err, KILN_EIO,
                 "the program's own path is longer than %zu bytes", sizeof path);
    return KILN_OK;
}

static void replace(char *const arguments[]) { execve(path, arguments, environ); }
#else
#define OWN_PATH "/proc/self/exe"
static int self = -1;

enum kiln_status self_open(struct kiln_err *err) {
    if (self < 0) {
        self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    }
    KILN_REQUIRE(self >= 0, err, KILN_EIO, "cannot open the program itself (/proc/self/exe): %s",
                 strerror(errno));
    return KILN_OK;
}

static void replace(char *const arguments[]) { fexecve(self, arguments, environ); }
#endif

enum kiln_status self_replace(char *const arguments[], struct kiln_err *err) {
    fflush(NULL);
    stop_hold(); /* a signal that arrives now is seen by the successor */
    replace(arguments);
    const int why = errno;
    stop_unhold();
    return KILN_FAIL(err, KILN_EIO,
                     "cannot start a fresh process in place of this one: %s; to go "
                     "on: kiln train --resume %s",
                     strerror(why), arguments[3]);
}

enum kiln_status self_spawn(char *const arguments[], pid_t *child, int *out, struct kiln_err *err) {
    posix_spawn_file_actions_t actions;
    int ends[2];
    KILN_TRY(self_open(err));
    KILN_REQUIRE(pipe(ends) == 0, err, KILN_EIO, "no pipe: %s", strerror(errno));
    (void)fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    (void)fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    int why = posix_spawn_file_actions_init(&actions);
    if (why == 0) {
        why = posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        if (why == 0) {
            why = posix_spawn(child, OWN_PATH, &actions, NULL, arguments, environ);
        }
        posix_spawn_file_actions_destroy(&actions);
    }
    close(ends[1]);
    if (why != 0) {
        close(ends[0]);
        return KILN_FAIL(err, KILN_EIO, "cannot start a process of this program: %s",
                         strerror(why));
    }
    *out = ends[0];
    return KILN_OK;
}
