/* SPDX-License-Identifier: MIT */
#include "self.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "stop.h"

#ifdef __APPLE__
#include <mach-o/dyld.h>

extern char **environ;
#endif

/* Descriptors of a process that is started. */
enum { STATE_AT = 3, SOCKET_AT = 4, ASIDE = 16 };

static char path[4096]; /* of the program */

#ifdef __APPLE__
enum kiln_status self_open(struct kiln_err *err) {
    uint32_t size = sizeof path;
    KILN_REQUIRE(_NSGetExecutablePath(path, &size) == 0, err, KILN_EIO,
                 "the program's own path is longer than %zu bytes", sizeof path);
    return KILN_OK;
}

static void replace(char *const arguments[]) { execve(path, arguments, environ); }
#else
static int self = -1;

enum kiln_status self_open(struct kiln_err *err) {
    if (self < 0) {
        self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        self = self < 0 ? self : self_aside(self);
    }
    KILN_REQUIRE(self >= 0, err, KILN_EIO, "cannot open the program itself (/proc/self/exe): %s",
                 strerror(errno));
    snprintf(path, sizeof path, "/proc/self/fd/%d", self);
    return KILN_OK;
}

static void replace(char *const arguments[]) { fexecve(self, arguments, environ); }
#endif

int self_aside(int descriptor) {
    const int aside = fcntl(descriptor, F_DUPFD_CLOEXEC, ASIDE);
    const int why = errno;
    close(descriptor);
    errno = why;
    return aside;
}

struct arguments {
    char words[6][16], folder[4096], place[256], since[24], began[32], deadline[32];
    char state[16], socket[16], flags[6][16];
    char *list[22];
};

/* exec wants them to be writable. */
static void make_arguments(const struct self_task *task, int state, int socket,
                           struct arguments *a) {
    static const char *const words[] = {"kiln",        "train",   "--resume",
                                        "--take-over", "--since", "--began"};
    static const char *const flags[] = {"--json", "--worker", "--successor", "--deadline"};
    size_t n = 0;
    memset(a, 0, sizeof *a);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        snprintf(a->words[i], sizeof a->words[i], "%s", words[i]);
    }
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        snprintf(a->flags[i], sizeof a->flags[i], "%s", flags[i]);
    }
    snprintf(a->folder, sizeof a->folder, "%s", task->folder);
    snprintf(a->state, sizeof a->state, "%d", state);
    snprintf(a->since, sizeof a->since, "%" PRIu64, task->since);
    snprintf(a->began, sizeof a->began, "%.6f", task->began);
    char *const always[] = {a->words[0], a->words[1], a->words[2], a->folder,   a->words[3],
                            a->state,    a->words[4], a->since,    a->words[5], a->began};
    memcpy(a->list, always, sizeof always);
    n = sizeof always / sizeof always[0];
    if (task->json) {
        a->list[n++] = a->flags[0];
    }
    if (task->worker >= 0) {
        snprintf(a->socket, sizeof a->socket, "%d", socket);
        a->list[n++] = a->flags[1];
        a->list[n++] = a->socket;
    }
    if (task->deadline > 0) {
        snprintf(a->deadline, sizeof a->deadline, "%.6f", task->deadline);
        a->list[n++] = a->flags[3];
        a->list[n++] = a->deadline;
    }
    if (task->place != NULL) {
        snprintf(a->place, sizeof a->place, "%s", task->place);
        a->list[n++] = a->flags[2];
        a->list[n++] = a->place;
    }
}

enum kiln_status self_replace(const struct self_task *task, struct kiln_err *err) {
    struct arguments arguments;
    make_arguments(task, task->descriptor, task->worker, &arguments);
    fflush(NULL);
    stop_hold(); /* a signal that arrives now is seen by the successor */
    replace(arguments.list);
    const int why = errno;
    stop_unhold();
    return KILN_FAIL(err, KILN_EIO,
                     "cannot start a fresh process in place of this one: %s; to go "
                     "on: kiln train --resume %s",
                     strerror(why), task->folder);
}

/* The child's side: descriptors, group, signals. 0 or an errno. */
static int prepare(const struct self_task *task, posix_spawn_file_actions_t *files,
                   posix_spawnattr_t *attributes) {
    sigset_t held;
    stop_signals(&held);
    /* Until it stands in its own group the child gets what is typed at the terminal: stopped there,
     * in front of its exec, it would hold us up for ever. worker_begin throws them away. */
    sigaddset(&held, SIGTSTP);
    sigaddset(&held, SIGHUP);
    int failed = posix_spawn_file_actions_adddup2(files, task->descriptor, STATE_AT);
    failed = failed ? failed : posix_spawn_file_actions_adddup2(files, task->worker, SOCKET_AT);
    failed = failed ? failed : posix_spawnattr_setpgroup(attributes, 0);
    failed = failed ? failed : posix_spawnattr_setsigmask(attributes, &held);
    return failed ? failed
                  : posix_spawnattr_setflags(attributes,
                                             POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
}

enum kiln_status self_spawn(const struct self_task *task, pid_t *pid, struct kiln_err *err) {
    struct arguments arguments;
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    make_arguments(task, STATE_AT, SOCKET_AT, &arguments);
    fflush(NULL);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
    int failed = prepare(task, &files, &attributes);
    if (failed == 0) {
        failed = posix_spawn(pid, path, &files, &attributes, arguments.list, environ);
    }
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    KILN_REQUIRE(failed == 0, err, KILN_EIO,
                 "cannot start a process: %s; the run is saved; to go on: kiln train --resume %s",
                 strerror(failed), task->folder);
    return KILN_OK;
}

static int prepare_beside(posix_spawn_file_actions_t *files, posix_spawnattr_t *attributes, int out,
                          bool own_group) {
    int failed = posix_spawn_file_actions_adddup2(files, out, STDOUT_FILENO);
    if (own_group) {
        failed = failed ? failed
                        : posix_spawn_file_actions_addopen(files, STDIN_FILENO, "/dev/null",
                                                           O_RDONLY, 0);
        failed = failed ? failed : posix_spawnattr_setpgroup(attributes, 0);
        failed = failed ? failed : posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETPGROUP);
    }
    return failed;
}

static enum kiln_status start_and_read(char *const arguments[], bool own_group, pid_t *child,
                                       int *out, struct kiln_err *err) {
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    int ends[2];
    KILN_TRY(self_open(err));
    KILN_REQUIRE(pipe(ends) == 0, err, KILN_EIO, "no pipe: %s", strerror(errno));
    (void)fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    (void)fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    fflush(NULL);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
    int why = prepare_beside(&files, &attributes, ends[1], own_group);
    why = why ? why : posix_spawn(child, path, &files, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    close(ends[1]);
    if (why != 0) {
        close(ends[0]);
        return KILN_FAIL(err, KILN_EIO, "cannot start a process of this program: %s",
                         strerror(why));
    }
    *out = ends[0];
    return KILN_OK;
}

enum kiln_status self_capture(char *const arguments[], pid_t *child, int *out,
                              struct kiln_err *err) {
    return start_and_read(arguments, false, child, out, err);
}

enum kiln_status self_beside(char *const arguments[], pid_t *child, int *out,
                             struct kiln_err *err) {
    return start_and_read(arguments, true, child, out, err);
}
