/* SPDX-License-Identifier: MIT
 *
 * worker.h: a process that a supervisor started (relay.h), as it sees the supervisor.
 *
 * One thread listens; it ends the process when the supervisor is gone.
 */
#ifndef KILN_CMD_WORKER_H
#define KILN_CMD_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "kiln/status.h"
#include "relay.h"

/* From here on this is a worker. It may write to a terminal that it does not stand in front of. */
KILN_MUST_CHECK enum kiln_status worker_begin(int socket, bool successor, struct kiln_err *err);
bool worker_is(void);
int worker_socket(void);

/* ---- an owner ---------------------------------------------------------------------------------
 */

void worker_step(void);               /* a step is done */
void worker_start(const char *place); /* a successor is wanted */
/* True: it is ready. False: there is none; why [RELAY_LINE] says so, or "".
 * *since: as of struct kiln_relay. */
bool worker_wait(char *why, double *since);
/* Is a successor waiting for us to hand over? */
bool worker_is_relieved(void);
/* The run is handed over; the state says this epoch. */
void worker_go(uint64_t epoch);
/* The socket goes through an exec. */
void worker_keep_socket(void);

/* ---- a successor ------------------------------------------------------------------------------
 */

/* All is compiled. Returns when the run is ours. */
void worker_ready(double since);
void worker_failed(const char *why);

#endif
