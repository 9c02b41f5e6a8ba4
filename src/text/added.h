/* SPDX-License-Identifier: MIT
 *
 * added.h: added tokens found in a text. Inside src/text only.
 */
#ifndef KILN_TEXT_ADDED_H
#define KILN_TEXT_ADDED_H

#include "text/text_int.h"

/* A set of contents that are looked for; of those that begin at one place the longest is found. */
struct kiln_finder;

/* Fill tok->early and tok->late. */
KILN_MUST_CHECK enum kiln_status kiln_finders_open(struct kiln_tokenizer *tok,
                                                   struct kiln_err *err);
void kiln_finder_close(struct kiln_finder *finder);

struct kiln_found {
    size_t start, stop; /* with the blanks that it takes along */
    size_t next;        /* where to look on */
    uint32_t id;        /* KILN_NO_ID: none */
};
/* The first in text[from .. size); blanks before it are taken along from `free` on. */
struct kiln_found kiln_finder_next(const struct kiln_finder *finder, const char *text, size_t size,
                                   size_t from, size_t free);

#endif
