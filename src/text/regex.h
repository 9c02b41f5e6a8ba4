/* SPDX-License-Identifier: MIT
 *
 * regex.h: the regular expressions of tokenizer.json, which Oniguruma reads in `tokenizers`,
 * through PCRE2. Inside src/text only.
 */
#ifndef KILN_TEXT_REGEX_H
#define KILN_TEXT_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#include "kiln/status.h"

struct kiln_regex; /* immutable, shared by threads */

/* Compile; `name` is the tokenizer's, for the message. KILN_EINPUT: the pattern is wrong, or means
 * something that PCRE2 reads otherwise; it says where. */
KILN_MUST_CHECK enum kiln_status kiln_regex_open(const char *pattern, bool literal,
                                                 const char *name, struct kiln_regex **out,
                                                 struct kiln_err *err);
void kiln_regex_close(struct kiln_regex *regex);

/* What one thread needs beside the regex. NULL when out of memory. */
struct kiln_matcher;
struct kiln_matcher *kiln_matcher_open(const struct kiln_regex *regex);
void kiln_matcher_close(struct kiln_matcher *matcher);

/* The first match in text[from .. size), which is UTF-8; 1: found, 0: none, -1: the search ran out
 * of its limits. */
int kiln_matcher_find(struct kiln_matcher *matcher, const char *text, size_t size, size_t from,
                      size_t *start, size_t *stop);

#endif
