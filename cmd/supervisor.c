/* SPDX-License-Identifier: MIT
 *
 * supervisor.c: workers are started, listened to and buried; see relay.h.
 *
 * One thread waits for the workers' sockets and for signals, which a pipe turns into something that
 * can be waited for. Workers stand in process groups of their own, so that what is typed at a
 * terminal reaches the supervisor alone: it decides who is told.
 */
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kiln/train.h"
#include "output.h"
#include "relay.h"
#include "stop.h"

enum { TRIES = 3, DEATHS = 3, WORKERS = 8 };

enum role { NOBODY, OWNER, SUCCESSOR, LEAVING };

struct worker {
    enum role role;
    pid_t pid;
    struct relay_reader reader;
    bool ready;
    bool deaf; /* its socket has ended; it is to be buried */
};

struct supervisor {
    struct self_task task;
    struct worker workers[WORKERS];
    uint64_t epoch; /* the state's when the successor was asked for */
    char place[RELAY_LINE], why[RELAY_LINE];
    int tries;  /* of a successor */
    int deaths; /* of owners, since a step was done */
    bool stopping;
    bool over;
    int code;
    enum kiln_status status; /* of our own */
    struct kiln_err *err;
};

/* ---- signals ----------------------------------------------------------------------------------
 */

static int signal_pipe[2] = {-1, -1};

static void on_signal(int number) {
    const int before = errno;
    const unsigned char byte = (unsigned char)number;
    if (write(signal_pipe[1], &byte, 1) < 0) {
        errno = before; /* full: there is enough to do */
    }
    errno = before;
}

static void listen_for(int number, bool even_if_ignored) {
    struct sigaction action, before;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(number, NULL, &before);
    if (even_if_ignored || before.sa_handler != SIG_IGN) {
        sigaction(number, &action, NULL);
    }
}

enum kiln_status supervisor_listen(struct kiln_err *err) {
    KILN_REQUIRE(pipe(signal_pipe) == 0, err, KILN_EIO, "cannot make a pipe: %s", strerror(errno));
    for (int i = 0; i < 2; i++) {
        signal_pipe[i] = self_aside(signal_pipe[i]);
        KILN_REQUIRE(signal_pipe[i] >= 0, err, KILN_EIO, "cannot make a pipe: %s", strerror(errno));
        fcntl(signal_pipe[i], F_SETFL, O_NONBLOCK);
    }
    signal(SIGPIPE, SIG_IGN);
    listen_for(SIGINT, true); /* as a run without a supervisor */
    listen_for(SIGTERM, true);
    listen_for(SIGCHLD, true);
    listen_for(SIGCONT, true);
    listen_for(SIGHUP, false); /* nohup */
    listen_for(SIGQUIT, false);
    listen_for(SIGTSTP, false);
    stop_unhold();
    return KILN_OK;
}

/* ---- workers ----------------------------------------------------------------------------------
 */

static struct worker *find(struct supervisor *s, enum role role) {
    for (int i = 0; i < WORKERS; i++) {
        if (s->workers[i].role == role) {
            return &s->workers[i];
        }
    }
    return NULL;
}

static void tell(const struct worker *to, enum relay_word word, const char *text) {
    if (to != NULL) {
        relay_say(to->reader.socket, word, text);
    }
}

static void forget(struct worker *worker) {
    close(worker->reader.socket);
    worker->role = NOBODY;
}

/* It is gone when this returns. */
static void dismiss(struct worker *worker) {
    if (worker != NULL && worker->role != NOBODY) {
        kill(worker->pid, SIGKILL);
        while (waitpid(worker->pid, NULL, 0) < 0 && errno == EINTR) {
        }
        forget(worker);
    }
}

static void dismiss_all(struct supervisor *s) {
    for (int i = 0; i < WORKERS; i++) {
        dismiss(&s->workers[i]);
    }
}

static void signal_all(const struct supervisor *s, int number) {
    for (int i = 0; i < WORKERS; i++) {
        if (s->workers[i].role != NOBODY) {
            kill(s->workers[i].pid, number);
        }
    }
}

static void end(struct supervisor *s, int code) {
    s->over = true;
    s->code = code;
}

static void fail(struct supervisor *s, enum kiln_status status) {
    s->over = true;
    s->status = status;
}

/* Room for one more: who is leaving has nothing left to do. */
static struct worker *room(struct supervisor *s) {
    struct worker *worker = find(s, NOBODY);
    if (worker == NULL) {
        worker = find(s, LEAVING);
        dismiss(worker);
    }
    return worker;
}

static enum kiln_status start(struct supervisor *s, enum role role, struct kiln_err *err) {
    int sockets[2];
    struct worker *worker = room(s);
    struct self_task task = s->task;
    KILN_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0, err, KILN_EIO,
                 "cannot start a process: %s", strerror(errno));
    sockets[0] = self_aside(sockets[0]);
    sockets[1] = self_aside(sockets[1]);
    task.worker = sockets[1];
    task.place = role == SUCCESSOR ? s->place : NULL;
    *worker = (struct worker){.role = role, .reader.socket = sockets[0]};
    const enum kiln_status status =
        sockets[0] < 0 || sockets[1] < 0
            ? KILN_FAIL(err, KILN_EIO, "cannot start a process: %s", strerror(errno))
            : self_spawn(&task, &worker->pid, err);
    close(sockets[1]);
    if (status != KILN_OK) {
        forget(worker);
        return status;
    }
    fcntl(sockets[0], F_SETFL, O_NONBLOCK);
    return KILN_OK;
}

static void start_owner(struct supervisor *s) {
    const enum kiln_status status = start(s, OWNER, s->err);
    relay_point("relay: owner started");
    if (status != KILN_OK) {
        fail(s, status);
    } else if (s->stopping) {
        kill(find(s, OWNER)->pid, SIGTERM);
    }
}

/* Once more, or never: the owner waits for one or the other. */
static void try_successor(struct supervisor *s) {
    struct kiln_err why;
    while (s->tries < TRIES && !s->stopping) {
        s->tries++;
        if (start(s, SUCCESSOR, &why) == KILN_OK) {
            relay_point("relay: successor started");
            return;
        }
        snprintf(s->why, sizeof s->why, "%.300s", why.message);
    }
    tell(find(s, OWNER), RELAY_ALONE, s->stopping ? "" : s->why);
}

static enum kiln_status read_epoch(struct supervisor *s, uint64_t *epoch) {
    const enum kiln_status status = kiln_run_epoch(s->task.descriptor, epoch, s->err);
    if (status != KILN_OK) {
        fail(s, status);
    }
    return status;
}

/* The owner is no more: who is next? */
static void settle(struct supervisor *s) {
    struct worker *next = find(s, SUCCESSOR);
    uint64_t epoch;
    char text[24];
    if (read_epoch(s, &epoch) != KILN_OK) {
        return;
    }
    relay_point("relay: epoch read");
    if (next == NULL || !next->ready || epoch != s->epoch + 1) {
        dismiss(next);
        start_owner(s);
        return;
    }
    snprintf(text, sizeof text, "%" PRIu64, epoch);
    next->role = OWNER;
    tell(next, RELAY_GO, text);
    relay_point("relay: go passed on");
    if (s->stopping) {
        kill(next->pid, SIGTERM);
    }
}

/* ---- what they say ----------------------------------------------------------------------------
 */

static void on_start(struct supervisor *s, const char *place) {
    relay_point("relay: start heard");
    dismiss(find(s, SUCCESSOR));
    snprintf(s->place, sizeof s->place, "%s", place);
    s->why[0] = '\0';
    s->tries = 0;
    if (read_epoch(s, &s->epoch) == KILN_OK) {
        try_successor(s);
    }
}

static void on_message(struct supervisor *s, struct worker *from,
                       const struct relay_message *message) {
    if (from->role == OWNER && message->word == RELAY_STEP) {
        s->deaths = 0;
    } else if (from->role == OWNER && message->word == RELAY_START) {
        on_start(s, message->text);
    } else if (from->role == OWNER && message->word == RELAY_GO) {
        relay_point("relay: go heard");
        from->role = LEAVING;
        settle(s);
    } else if (from->role == SUCCESSOR && message->word == RELAY_READY) {
        relay_point("relay: ready heard");
        from->ready = true;
        tell(find(s, OWNER), RELAY_READY, message->text);
        relay_point("relay: ready passed on");
    } else if (from->role == SUCCESSOR && message->word == RELAY_FAILED) {
        snprintf(s->why, sizeof s->why, "%s", message->text);
    }
}

static void hear(struct supervisor *s, struct worker *worker) {
    struct relay_message message;
    enum relay_heard heard = RELAY_HEARD;
    while (!s->over && worker->role != NOBODY && heard == RELAY_HEARD) {
        heard = relay_hear(&worker->reader, &message);
        if (heard == RELAY_HEARD) {
            on_message(s, worker, &message);
        }
        worker->deaf = heard == RELAY_END;
    }
}

/* ---- how they end -----------------------------------------------------------------------------
 */

static void say_note(const struct supervisor *s, const char *text) {
    fprintf(stderr, "%skiln: note: %s\n", output_is_live() && !s->task.json ? "\n" : "", text);
}

static const char *how(int status, char out[80]) {
    if (WIFSIGNALED(status)) {
        snprintf(out, 80, "signal %d: %s", WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else {
        snprintf(out, 80, "exit code %d", WEXITSTATUS(status));
    }
    return out;
}

/* Exit codes that a command has; whatever else a process ends with is a death. */
static bool is_end(int status) {
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return code == 0 || code == 1 || code == 2 || code == EXIT_STOPPED;
}

static void owner_ended(struct supervisor *s, int status) {
    char words[80], text[240];
    if (is_end(status)) {
        end(s, WEXITSTATUS(status));
        return;
    }
    if (s->stopping) {
        fail(s, KILN_FAIL(s->err, KILN_EINTERRUPTED,
                          "the process that trained died (%s) while it stopped; the run is saved; "
                          "to go on: kiln train --resume %s",
                          how(status, words), s->task.folder));
        return;
    }
    if (++s->deaths == DEATHS) {
        fail(s, KILN_FAIL(s->err, KILN_EINTERNAL,
                          "the process that trains died %d times before a step was done, the last "
                          "time by %s; the run is saved; to go on: kiln train --resume %s",
                          DEATHS, how(status, words), s->task.folder));
        return;
    }
    snprintf(text, sizeof text, "the process that trains died (%s); another one goes on",
             how(status, words));
    say_note(s, text);
    settle(s);
}

static void successor_ended(struct supervisor *s, int status, bool ready) {
    char words[80];
    if (ready) {
        return; /* the owner counts on one: it will hand over, and another goes on from the state */
    }
    if (s->why[0] == '\0') {
        snprintf(s->why, sizeof s->why, "%s", how(status, words));
    }
    try_successor(s);
}

static void bury(struct supervisor *s) {
    int status;
    for (pid_t pid; !s->over && (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        struct worker *worker = NULL;
        for (int i = 0; i < WORKERS; i++) {
            if (s->workers[i].role != NOBODY && s->workers[i].pid == pid) {
                worker = &s->workers[i];
            }
        }
        if (worker == NULL) {
            continue; /* a child of whoever was this process before an exec */
        }
        relay_point("relay: worker ended");
        hear(s, worker); /* its last words */
        const enum role role = worker->role;
        const bool ready = worker->ready;
        forget(worker);
        if (role == OWNER && !s->over) {
            owner_ended(s, status);
        } else if (role == SUCCESSOR && !s->over) {
            successor_ended(s, status, ready);
        }
    }
}

/* ---- what a person wants ----------------------------------------------------------------------
 */

/* The first time: the owner stops, or whoever becomes it. A successor that is not ready is not
 * waited for. */
static void stop(struct supervisor *s) {
    struct worker *owner = find(s, OWNER), *next = find(s, SUCCESSOR);
    if (s->stopping) {
        dismiss_all(s);
        end(s, EXIT_STOPPED);
        return;
    }
    s->stopping = true;
    fprintf(stderr, "%s", stop_words);
    if (owner != NULL) {
        kill(owner->pid, SIGTERM);
    }
    if (next != NULL && !next->ready) {
        dismiss(next);
        tell(owner, RELAY_ALONE, "");
    }
}

/* As the shell expects it: we stop by that signal, and so do they. */
static void suspend(struct supervisor *s) {
    signal_all(s, SIGSTOP);
    signal(SIGTSTP, SIG_DFL);
    raise(SIGTSTP); /* returns when somebody continues us; at once where nobody could */
    listen_for(SIGTSTP, true);
    signal_all(s, SIGCONT);
}

static void quit(struct supervisor *s) {
    const struct worker *owner = find(s, OWNER);
    if (owner != NULL) {
        kill(owner->pid, SIGQUIT);
        while (waitpid(owner->pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    for (int i = 0; i < WORKERS; i++) {
        if (&s->workers[i] != owner) {
            dismiss(&s->workers[i]);
        }
    }
    signal(SIGQUIT, SIG_DFL);
    raise(SIGQUIT);
}

static void on_signals(struct supervisor *s) {
    unsigned char number;
    while (!s->over && read(signal_pipe[0], &number, 1) == 1) {
        switch (number) {
            case SIGINT:
            case SIGTERM:
            case SIGHUP:
                stop(s);
                break;
            case SIGTSTP:
                suspend(s);
                break;
            case SIGCONT:
                signal_all(s, SIGCONT);
                break;
            case SIGQUIT:
                quit(s);
                break;
            default: /* SIGCHLD */
                bury(s);
                break;
        }
    }
}

/* ---- all of it --------------------------------------------------------------------------------
 */

enum { LEAVE_TRIES = 1000, LEAVE_WAIT_MS = 10 };

/* A person asks once more: nobody is waited for. */
static bool is_pressed(void) {
    unsigned char number;
    while (read(signal_pipe[0], &number, 1) == 1) {
        if (number != SIGCHLD && number != SIGCONT) {
            return true;
        }
    }
    return false;
}

/* Who has handed over gives up what it holds of the device, which a death would leave behind. */
static void let_leave(struct supervisor *s) {
    const struct timespec wait = {.tv_nsec = LEAVE_WAIT_MS * 1000000L};
    for (int i = 0; i < WORKERS; i++) {
        struct worker *worker = &s->workers[i];
        for (int tries = 0; worker->role == LEAVING && tries < LEAVE_TRIES; tries++) {
            if (waitpid(worker->pid, NULL, WNOHANG) == worker->pid) {
                forget(worker);
            } else if (is_pressed()) {
                return;
            } else {
                nanosleep(&wait, NULL);
            }
        }
    }
}

static void wait_and_act(struct supervisor *s) {
    struct pollfd polled[WORKERS + 1] = {{.fd = signal_pipe[0], .events = POLLIN}};
    struct worker *of[WORKERS + 1] = {NULL};
    nfds_t n = 1;
    for (int i = 0; i < WORKERS; i++) {
        if (s->workers[i].role != NOBODY && !s->workers[i].deaf) {
            of[n] = &s->workers[i];
            polled[n++] = (struct pollfd){.fd = s->workers[i].reader.socket, .events = POLLIN};
        }
    }
    if (poll(polled, n, -1) < 0) {
        return; /* a signal: the pipe has it */
    }
    for (nfds_t i = 1; i < n; i++) {
        if (polled[i].revents != 0 && polled[i].fd == of[i]->reader.socket) {
            hear(s, of[i]);
        }
    }
    if (polled[0].revents != 0) {
        on_signals(s);
    }
}

enum kiln_status supervisor_run(const struct self_task *task, int *code, struct kiln_err *err) {
    struct supervisor s = {.task = *task, .status = KILN_OK, .err = err};
    relay_role("supervisor");
    s.task.descriptor = self_aside(task->descriptor);
    KILN_REQUIRE(s.task.descriptor >= 0, err, KILN_EIO, "state of %s: %s", task->folder,
                 strerror(errno));
    start_owner(&s);
    while (!s.over) {
        wait_and_act(&s);
    }
    let_leave(&s);
    dismiss_all(&s);
    close(s.task.descriptor);
    *code = s.code;
    return s.status;
}
