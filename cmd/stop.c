/* SPDX-License-Identifier: MIT
 *
 * stop.c: how a person stops a run.
 */
#include "stop.h"

#include <stddef.h>
#include <string.h>
#include <unistd.h>

const char stop_words[] =
    "\nkiln: stopping: the current action is finished and the state saved; once more to leave at "
    "once\n";

static volatile sig_atomic_t stop, quiet;

/* Only what a signal handler may do: write and _exit. */
static void on_signal(int signal) {
    (void)signal;
    if (stop != 0) {
        if (quiet) {
            return; /* a supervisor ends a worker that is to leave at once */
        }
        _exit(EXIT_STOPPED);
    }
    stop = 1;
    if (!quiet && write(STDERR_FILENO, stop_words, sizeof stop_words - 1) < 0) {
        return; /* nobody listens; the run is saved all the same */
    }
}

const volatile sig_atomic_t *stop_on_signals(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    stop_unhold(); /* a process that handed over may have held them */
    return &stop;
}

void stop_signals(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
}

static void mask(int how) {
    sigset_t set;
    stop_signals(&set);
    sigprocmask(how, &set, NULL);
    if (how == SIG_BLOCK && stop != 0) {
        raise(SIGTERM); /* it came before: it waits with the others */
    }
}

void stop_hold(void) { mask(SIG_BLOCK); }

void stop_unhold(void) { mask(SIG_UNBLOCK); }

void stop_as_usual(void) {
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
}

void stop_quietly(void) { quiet = 1; }

void stop_now(void) { stop = 1; }
