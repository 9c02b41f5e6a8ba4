/* SPDX-License-Identifier: MIT
 *
 * supervisor.h: the process that a person started, with --restart relay (relay.h).
 */
#ifndef KILN_CMD_SUPERVISOR_H
#define KILN_CMD_SUPERVISOR_H

#include "self.h"

/* From here on signals are for the run: call it when there is a run that can be gone on with. */
KILN_MUST_CHECK enum kiln_status supervisor_listen(struct kiln_err *err);
/* Train the run by workers. Takes the task's descriptor. KILN_OK: *code is what the last of them
 * ended with, which has said why. A failure is the supervisor's own. */
KILN_MUST_CHECK enum kiln_status supervisor_run(const struct self_task *task, int *code,
                                                struct kiln_err *err);

#endif
