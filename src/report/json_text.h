/* SPDX-License-Identifier: MIT
 *
 * json_text.h: a text that grows, and JSON in it that may stand inside a page.
 *
 * A library would build the whole as a tree first; pages hold a hundred thousand numbers. Nothing
 * here fails on its own: when memory runs out `failed` is set, and the text is then of no use.
 */
#ifndef KILN_REPORT_JSON_TEXT_H
#define KILN_REPORT_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

/* Zero it to begin; kiln_free(text.at). A zero is behind the text as soon as it is not empty. */
struct kiln_text {
    char *at;
    size_t length, room;
    bool failed;
};

void kiln_text_add(struct kiln_text *text, const char *bytes, size_t n);
/* A string as it is: brackets, keys. */
void kiln_text_raw(struct kiln_text *text, const char *string);
/* In quotes. Any bytes: what is not UTF-8 becomes U+FFFD; "<", ">" and "&" are escaped, so that
 * neither "</script>" nor "<!--" nor an entity comes out of it. */
void kiln_text_string(struct kiln_text *text, const char *string);
/* Six digits, with a point whatever the locale has; null where it is not finite. */
void kiln_text_number(struct kiln_text *text, double value);
void kiln_text_count(struct kiln_text *text, uint64_t value);
/* ,"key": or "key": behind an opening brace. */
void kiln_text_key(struct kiln_text *text, const char *key);
/* A member of an object: key and value. */
void kiln_text_number_of(struct kiln_text *text, const char *key, double value);
void kiln_text_count_of(struct kiln_text *text, const char *key, uint64_t value);
void kiln_text_string_of(struct kiln_text *text, const char *key, const char *value);
/* A comma, but behind an opening bracket or brace. */
void kiln_text_comma(struct kiln_text *text);

#endif
