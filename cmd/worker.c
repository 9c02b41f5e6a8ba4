/* SPDX-License-Identifier: MIT */
#include "worker.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    int socket; /* 0: no worker */
    pthread_mutex_t lock;
    pthread_cond_t heard;
    bool asked;                 /* for a successor */
    bool ready, alone, told_go; /* heard since */
    bool relieved;              /* ready, and the trainer knows */
    double since;               /* the successor began to compile */
    char why[RELAY_LINE];
} self = {.lock = PTHREAD_MUTEX_INITIALIZER, .heard = PTHREAD_COND_INITIALIZER};

static void take(const struct relay_message *message) {
    pthread_mutex_lock(&self.lock);
    self.ready |= message->word == RELAY_READY;
    self.alone |= message->word == RELAY_ALONE;
    self.told_go |= message->word == RELAY_GO;
    if (message->word == RELAY_READY) {
        self.since = strtod(message->text, NULL);
    }
    if (message->word == RELAY_ALONE) {
        memcpy(self.why, message->text, sizeof self.why);
    }
    pthread_cond_signal(&self.heard);
    pthread_mutex_unlock(&self.lock);
}

/* The supervisor is gone: so is the lock when we are, and whoever waits for it may go on. */
static void *listen_to(void *unused) {
    struct relay_reader reader = {.socket = self.socket};
    struct relay_message message;
    (void)unused;
    while (relay_hear(&reader, &message) == RELAY_HEARD) {
        take(&message);
    }
    _exit(1);
}

/* What was typed while we were being started is the supervisor's: it stops us with SIGTERM,
 * suspends us with SIGSTOP. */
static void ignore_terminal(void) {
    sigset_t typed;
    signal(SIGINT, SIG_IGN);
    signal(SIGTSTP, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigemptyset(&typed);
    sigaddset(&typed, SIGTSTP);
    sigaddset(&typed, SIGHUP);
    sigprocmask(SIG_UNBLOCK, &typed, NULL);
}

enum kiln_status worker_begin(int socket, bool successor, struct kiln_err *err) {
    sigset_t all, before;
    pthread_t thread;
    relay_role(successor ? "successor" : "owner");
    KILN_REQUIRE(fcntl(socket, F_SETFD, FD_CLOEXEC) == 0, err, KILN_EUSAGE,
                 "train: --worker is for kiln itself: descriptor %d is not open", socket);
    signal(SIGTTOU, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    ignore_terminal();
    self.socket = socket;
    sigfillset(&all); /* signals are for the main thread */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&thread, NULL, listen_to, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    KILN_REQUIRE(failed == 0, err, KILN_ENOMEM, "cannot start a thread: %s", strerror(failed));
    pthread_detach(thread);
    return KILN_OK;
}

bool worker_is(void) { return self.socket != 0; }
int worker_socket(void) { return self.socket; }

void worker_step(void) {
    if (worker_is()) {
        relay_say(self.socket, RELAY_STEP, "");
    }
}

void worker_start(const char *place) {
    pthread_mutex_lock(&self.lock);
    self.asked = true;
    self.ready = self.alone = self.relieved = false;
    self.why[0] = '\0';
    pthread_mutex_unlock(&self.lock);
    relay_point("relay: to ask");
    relay_say(self.socket, RELAY_START, place);
    relay_point("relay: asked");
}

bool worker_wait(char *why, double *since) {
    relay_point("relay: waiting");
    pthread_mutex_lock(&self.lock);
    while (self.asked && !self.ready && !self.alone) {
        pthread_cond_wait(&self.heard, &self.lock);
    }
    self.relieved = self.ready && !self.alone;
    const bool ready = self.relieved;
    *since = self.since;
    snprintf(why, RELAY_LINE, "%s", self.why);
    pthread_mutex_unlock(&self.lock);
    relay_point("relay: waited");
    return ready;
}

bool worker_is_relieved(void) { return self.relieved; } /* asked by the thread that waited */

void worker_go(uint64_t epoch) {
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, epoch);
    relay_point("relay: handed over");
    relay_say(self.socket, RELAY_GO, text);
    relay_point("relay: said go");
}

void worker_keep_socket(void) { fcntl(self.socket, F_SETFD, 0); }

void worker_ready(double since) {
    char text[40];
    snprintf(text, sizeof text, "%.6f", since);
    relay_point("relay: compiled");
    relay_say(self.socket, RELAY_READY, text);
    relay_point("relay: said ready");
    pthread_mutex_lock(&self.lock);
    while (!self.told_go) {
        pthread_cond_wait(&self.heard, &self.lock);
    }
    pthread_mutex_unlock(&self.lock);
    relay_point("relay: told to go");
}

void worker_failed(const char *why) { relay_say(self.socket, RELAY_FAILED, why); }
