/* SPDX-License-Identifier: MIT
 *
 * self.h: this very program, to be run again: in place of this process, or beside it.
 */
#ifndef KILN_CMD_SELF_H
#define KILN_CMD_SELF_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kiln/status.h"

/* Take hold of the program's file, so that it can be run again whatever becomes of its name, PATH
 * or the working directory. */
KILN_MUST_CHECK enum kiln_status self_open(struct kiln_err *err);

/* A run that goes on in another process: `kiln train` with flags that no help lists. */
struct self_task {
    char folder[4096];
    int descriptor;  /* of its locked state */
    uint64_t since;  /* the last step before the first of these processes */
    double began;    /* when the first of them began to train, seconds of the monotonic clock */
    double deadline; /* until when it may train, of that clock; 0: as long as it takes */
    bool json;
    int worker;        /* socket of a worker (relay.h); -1: it has no supervisor */
    const char *place; /* of a successor; NULL: it takes the run over at once */
};

/* Replace the process by the program, with that task. Returns only when that failed. Signals that
 * stop a run wait for the successor. */
enum kiln_status self_replace(const struct self_task *task, struct kiln_err *err);
/* Start it beside this process, in a process group of its own, signals held back until it is ready
 * for them. Descriptor and worker are ours; it finds them under other numbers. */
KILN_MUST_CHECK enum kiln_status self_spawn(const struct self_task *task, pid_t *pid,
                                            struct kiln_err *err);
/* The same descriptor, closed at exec, out of the way of those that self_spawn gives; the old one
 * is closed. -1: the system has none left; the old one is closed, too. */
int self_aside(int descriptor);

/* Start the program with these arguments beside this process; *out reads what it prints. The caller
 * closes it and waits for the child. */
KILN_MUST_CHECK enum kiln_status self_capture(char *const arguments[], pid_t *child, int *out,
                                              struct kiln_err *err);
/* The same for one that stays: without our input, in a process group of its own, so that what is
 * typed at the terminal does not reach it. */
KILN_MUST_CHECK enum kiln_status self_beside(char *const arguments[], pid_t *child, int *out,
                                             struct kiln_err *err);

#endif
