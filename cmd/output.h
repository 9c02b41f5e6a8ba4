/* SPDX-License-Identifier: MIT
 *
 * output.h: what commands share when they speak: terminals, JSON, the end of stdout.
 */
#ifndef KILN_CMD_OUTPUT_H
#define KILN_CMD_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "kiln/status.h"

bool output_is_terminal(void); /* stdout */
bool messages_are_read(void);  /* stderr is a terminal */
size_t terminal_columns(void); /* of stdout; 80 when unknown */
size_t terminal_rows(void);    /* 24 when unknown */
/* Can lines of stdout be rewritten? It is a terminal, and TERM names one that is not dumb. */
bool output_is_live(void);
/* May a stream have colours? It is such a terminal, and NO_COLOR is not set (no-color.org). */
bool output_has_colours(FILE *stream);
/* Is the locale's character set UTF-8? */
bool output_is_utf8(void);

/* This process is such a rank of a run: errors say so, above 0. */
void output_is_of_rank(size_t rank);
/* Say on stderr why the program fails. */
void output_error(enum kiln_status status, const struct kiln_err *err);

/* Print text that a model made: what is not UTF-8, and what a terminal would take as a command, is
 * U+FFFD; newlines and tabs are themselves. */
void output_text(const char *text);

/* A real number, or null where it is not finite. */
json_t *json_number(double value);
/* Any bytes as a JSON string; what is not UTF-8 becomes U+FFFD. */
json_t *json_bytes(const char *text, size_t size);
/* Print the object and a newline, and drop it. NULL (out of memory) is KILN_ENOMEM. */
KILN_MUST_CHECK enum kiln_status json_print(json_t *object, struct kiln_err *err);

/* Did all that was printed arrive? KILN_EIO when not: a full disk, a closed pipe. */
KILN_MUST_CHECK enum kiln_status output_finish(struct kiln_err *err);

#endif
