/* SPDX-License-Identifier: MIT
 *
 * mil.h: the parts of kiln mil, one file each.
 */
#ifndef KILN_CMD_MIL_H
#define KILN_CMD_MIL_H

#include "options.h"

extern const struct command command_mil_check;
extern const struct command command_mil_limits;
extern const struct command command_mil_emit; /* mil_emit.c */
extern const struct command command_mil_run;  /* mil_run.c */

#endif
