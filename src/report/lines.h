/* SPDX-License-Identifier: MIT
 *
 * lines.h: metrics.jsonl as keys and values, whatever keys there are: for exports that leave none
 * out and change no number.
 */
#ifndef KILN_REPORT_LINES_H
#define KILN_REPORT_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

/* ---- one line -------------------------------------------------------------------------------- */

/* A key and its value as the line has them, not copied: a number's own digits, true, false, null, a
 * string with its quotes, anything else up to its end. */
struct kiln_pair {
    const char *key, *value;
    size_t key_size, value_size;
};
/* The pairs of a JSON object of one line, one after the other. *at begins as the line. False:
 * behind the last pair, or where the object is broken. */
bool kiln_pair_next(const char **at, const char *end, struct kiln_pair *out);
bool kiln_pair_is(const struct kiln_pair *pair, const char *key);
/* The whole number of that key; false: the line has none, or is no object that ends. */
bool kiln_line_count(const char *line, size_t size, const char *key, uint64_t *out);

/* ---- the file --------------------------------------------------------------------------------
 *
 * The places of all lines of a file of objects with a "step", in order, every step once: where a
 * line takes a step again, those from there on are dropped. Lines that were cut are passed over;
 * what stands behind the last newline is not there yet.
 */
struct kiln_line {
    uint64_t step, at;  /* at: bytes from the start of the file */
    uint32_t size, crc; /* without the newline */
};
struct kiln_lines {
    char path[4300];
    int fd;
    struct kiln_line *line;
    size_t n, room;
    uint64_t end; /* behind the last newline that was read */
    char *chunk;  /* what was read last */
    size_t longest;
};
/* Reads nothing yet; an absent file has no lines. Errors: KILN_ENOMEM. */
KILN_MUST_CHECK enum kiln_status kiln_lines_open(struct kiln_lines *lines, const char *folder,
                                                 const char *name, struct kiln_err *err);
/* KILN_EINPUT: the file is not there. */
KILN_MUST_CHECK enum kiln_status kiln_lines_need(const struct kiln_lines *lines,
                                                 struct kiln_err *err);
/* A zeroed one is fine. */
void kiln_lines_close(struct kiln_lines *lines);
/* Read what was added. *first: from which index on lines are new or others; n: none is. A file that
 * was cut or rewritten is read again. Errors: KILN_EIO, KILN_ENOMEM. */
KILN_MUST_CHECK enum kiln_status kiln_lines_more(struct kiln_lines *lines, size_t *first,
                                                 struct kiln_err *err);
/* The text of line i with a zero behind it, valid until the next call. KILN_EIO: the file is
 * another by now. */
KILN_MUST_CHECK enum kiln_status kiln_lines_text(struct kiln_lines *lines, size_t i,
                                                 const char **text, struct kiln_err *err);

#endif
