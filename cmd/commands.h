/* SPDX-License-Identifier: MIT
 *
 * commands.h: the commands, one file each. main.c lists them in the order of `kiln --help`.
 */
#ifndef KILN_CMD_COMMANDS_H
#define KILN_CMD_COMMANDS_H

#include "options.h"

extern const struct command command_demo;
extern const struct command command_train;
extern const struct command command_plan;
extern const struct command command_generate;
extern const struct command command_eval;
extern const struct command command_tokenize;
extern const struct command command_convert;
extern const struct command command_inspect;
extern const struct command command_report;
extern const struct command command_verify;
extern const struct command command_explain;
extern const struct command command_probe;
extern const struct command command_bench;
extern const struct command command_mil;
extern const struct command command_dashboard;
extern const struct command command_doctor;
extern const struct command command_completion;
extern const struct command command_manual;

/* All of them, until NULL. */
extern const struct command *const commands[];

#endif
