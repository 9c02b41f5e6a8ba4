/* SPDX-License-Identifier: MIT
 *
 * relay.h: the processes of --restart relay, and what they say to each other.
 *
 * `kiln train` makes or opens the run, gives its state away and becomes the supervisor
 * (supervisor.c): it holds the lock, starts workers, passes signals on, ends with the code of the
 * last worker. A worker (worker.c) is `kiln train --take-over FD --worker SOCKET`: an owner trains;
 * a successor (--successor PLACE) opens the run beside it and waits. Lines of text go over a stream
 * socket between the supervisor and each worker:
 *
 *   owner       -> supervisor  STEP         a step is done
 *                              START place  a successor is wanted, at this place
 *                              GO epoch     I have handed over and leave; the state says epoch
 *   supervisor  -> owner       READY since  the successor waits
 *                              ALONE why    there will be none; why may be empty
 *   successor   -> supervisor  READY since  compiled; it began then (kiln_run_ahead_since)
 *                              FAILED why   I cannot, and leave
 *   supervisor  -> successor   GO epoch     you are the owner
 *
 * The supervisor reads the epoch in the state before it passes GO on. End of file on a worker's
 * socket means that the supervisor is gone: the worker leaves at once. So nobody is left without
 * somebody to wait for it, and the lock goes with the last of them.
 *
 * Who dies, and what becomes of it:
 *
 *   the owner, its epoch not committed   another owner takes the window from its start
 *   the owner, its epoch committed       the successor goes on
 *   the successor before READY           it is started again, three times in all, then ALONE
 *   the successor after READY            at GO an owner is started that goes on from the state
 *   owners three times in a row,
 *   without a step between               the supervisor gives up; the run is saved
 *   the supervisor                       all leave
 */
#ifndef KILN_CMD_RELAY_H
#define KILN_CMD_RELAY_H

#include <stdbool.h>
#include <stddef.h>

enum relay_word {
    RELAY_STEP,
    RELAY_START,
    RELAY_READY,
    RELAY_FAILED,
    RELAY_ALONE,
    RELAY_GO,
    RELAY_WORDS
};

enum { RELAY_LINE = 400 }; /* bytes of a line with its end; what is longer is cut */

struct relay_message {
    enum relay_word word; /* RELAY_WORDS: none that there is */
    char text[RELAY_LINE];
};

/* One line. What cannot be sent is lost: whoever should have read it is gone. */
void relay_say(int socket, enum relay_word word, const char *text);

struct relay_reader {
    int socket;
    size_t n;
    char line[RELAY_LINE];
};
enum relay_heard { RELAY_HEARD, RELAY_NOTHING, RELAY_END };
/* The next line; NOTHING where the socket does not block and has none; END when the other side is
 * gone. */
enum relay_heard relay_hear(struct relay_reader *reader, struct relay_message *message);

/* For tests, which kill a process of a role (owner, successor, supervisor) at a point
 * (tests/program_points.c). NULL otherwise. */
extern void (*relay_role_hook)(const char *role);
extern void (*relay_point_hook)(const char *where);
void relay_role(const char *role);
void relay_point(const char *where); /* "relay: where" */

#endif
