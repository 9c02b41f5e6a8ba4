/* SPDX-License-Identifier: MIT
 *
 * splits.h: the pre-tokenizer: a text cut into the pieces within which merges stay. Inside
 * src/text only.
 */
#ifndef KILN_TEXT_SPLITS_H
#define KILN_TEXT_SPLITS_H

#include "text/text_int.h"

struct kiln_matcher;

/* A part of the text that a step works on: a match, or what lies between two. */
struct kiln_cutting {
    size_t start, stop;
    bool match;
};

/* One step, inside the piece that the step before it gave. */
struct kiln_split_level {
    struct kiln_matcher *matcher;
    size_t base, end;            /* of that piece: a search sees nothing outside */
    size_t at;                   /* all before has been given */
    size_t from;                 /* where to search on; beyond `at` behind an empty match */
    struct kiln_cutting next;    /* the match that follows, while `at` stands before it */
    struct kiln_cutting pending; /* read, but not given yet */
    bool has_next, has_pending;
};

/* The work space of one thread. */
struct kiln_splits {
    const struct kiln_tokenizer *tok;
    struct kiln_split_level *level; /* [n_splits] */
    const char *text;
    size_t size;
    bool begun;  /* with no steps: the whole text was given */
    bool failed; /* a search ran out of its limits */
};
KILN_MUST_CHECK enum kiln_status kiln_splits_open(struct kiln_splits *splits,
                                                  const struct kiln_tokenizer *tok,
                                                  struct kiln_err *err);
void kiln_splits_close(struct kiln_splits *splits);
/* Begin with a text of UTF-8. */
void kiln_splits_begin(struct kiln_splits *splits, const char *text, size_t size);
/* The next piece, never empty; false when there is none, or a search failed. */
bool kiln_splits_next(struct kiln_splits *splits, size_t *start, size_t *stop);

#endif
