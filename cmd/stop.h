/* SPDX-License-Identifier: MIT
 *
 * stop.h: how a person stops a run.
 */
#ifndef KILN_CMD_STOP_H
#define KILN_CMD_STOP_H

#include <signal.h>

#define EXIT_STOPPED 130

/* From here on the first SIGINT or SIGTERM sets the flag, and the second leaves at once with
 * EXIT_STOPPED: call it only when there is a run that can be gone on with. A reader of stdout who
 * leaves (`| head`) no longer kills the process: whoever prints calls stop_now instead, and the run
 * is saved. */
const volatile sig_atomic_t *stop_on_signals(void);
/* The signals do again what they do to any process. */
void stop_as_usual(void);
/* In a worker (relay.h) the supervisor has said it all: the first signal prints nothing. */
void stop_quietly(void);
/* What is said at the first signal, to be written to stderr. */
extern const char stop_words[];
/* SIGINT and SIGTERM. */
void stop_signals(sigset_t *set);
/* Hold SIGINT and SIGTERM back, while the process replaces itself; a flag that is set already is
 * held back with them. stop_on_signals lets them through. */
void stop_hold(void);
void stop_unhold(void);
/* Set the flag, as a signal would. */
void stop_now(void);

#endif
