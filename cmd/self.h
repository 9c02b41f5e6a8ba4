/* SPDX-License-Identifier: MIT
 *
 * self.h: this very program, to be run again in place of this process.
 */
#ifndef KILN_CMD_SELF_H
#define KILN_CMD_SELF_H

#include <sys/types.h>

#include "kiln/status.h"

/* Take hold of the program's file, so that it can be run again whatever becomes of its name, PATH
 * or the working directory. */
KILN_MUST_CHECK enum kiln_status self_open(struct kiln_err *err);
/* Replace the process by the program with these arguments (NULL at the end). Returns only when that
 * failed. Signals that stop a run wait for the successor. */
enum kiln_status self_replace(char *const arguments[], struct kiln_err *err);
/* Start the program with these arguments beside this process; *out reads what it prints. The caller
 * closes it and waits for the child. */
KILN_MUST_CHECK enum kiln_status self_spawn(char *const arguments[], pid_t *child, int *out,
                                            struct kiln_err *err);

#endif
