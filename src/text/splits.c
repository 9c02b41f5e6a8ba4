/* SPDX-License-Identifier: MIT
 *
 * splits.c: see splits.h. Each step asks the one before it for the next piece when its own is used
 * up, so a text is cut as far as it is encoded and no list of pieces is ever made.
 */
#include "text/splits.h"

#include "base/mem.h"
#include "text/regex.h"
#include "text/utf8.h"

enum kiln_status kiln_splits_open(struct kiln_splits *splits, const struct kiln_tokenizer *tok,
                                  struct kiln_err *err) {
    size_t n = tok->parts.n_splits;
    *splits = (struct kiln_splits){.tok = tok};
    splits->level = kiln_alloc(n + 1, sizeof *splits->level);
    bool done = splits->level != NULL;
    for (size_t i = 0; done && i < n; i++) {
        splits->level[i].matcher = kiln_matcher_open(tok->cut[i]);
        done = splits->level[i].matcher != NULL;
    }
    if (!done) {
        kiln_splits_close(splits);
        return KILN_FAIL(err, KILN_ENOMEM, "encode: out of memory");
    }
    return KILN_OK;
}

void kiln_splits_close(struct kiln_splits *splits) {
    for (size_t i = 0; splits->level != NULL && i < splits->tok->parts.n_splits; i++) {
        kiln_matcher_close(splits->level[i].matcher);
    }
    kiln_free(splits->level);
    *splits = (struct kiln_splits){0};
}

void kiln_splits_begin(struct kiln_splits *splits, const char *text, size_t size) {
    splits->text = text;
    splits->size = size;
    splits->begun = false;
    splits->failed = false;
    for (size_t i = 0; i < splits->tok->parts.n_splits; i++) {
        struct kiln_matcher *matcher = splits->level[i].matcher;
        splits->level[i] = (struct kiln_split_level){.matcher = matcher};
    }
}

/* ---- matches and what lies between them --------------------------------------------------- */

static bool find_match(struct kiln_splits *splits, struct kiln_split_level *l) {
    size_t base = l->base, start, stop;
    int found = kiln_matcher_find(l->matcher, splits->text + base, l->end - base, l->from - base,
                                  &start, &stop);
    splits->failed |= found < 0;
    if (found != 1) {
        return false;
    }
    l->next = (struct kiln_cutting){base + start, base + stop, true};
    l->from = l->next.stop;
    if (start == stop && l->from < l->end) {
        l->from += kiln_utf8_length(splits->text + l->from, l->end - l->from);
    } else if (start == stop) {
        l->from = l->end + 1;
    }
    return true;
}

/* The next match or gap of the piece at hand; false when it is used up. */
static bool raw_next(struct kiln_splits *splits, struct kiln_split_level *l,
                     struct kiln_cutting *out) {
    while (l->at < l->end) {
        if (!l->has_next) {
            l->has_next = l->from <= l->end && find_match(splits, l);
            if (splits->failed) {
                return false;
            }
            if (!l->has_next) {
                *out = (struct kiln_cutting){l->at, l->end, false};
                l->at = l->end;
                l->from = l->end + 1;
                return true;
            }
        }
        if (l->next.start > l->at) {
            *out = (struct kiln_cutting){l->at, l->next.start, false};
            l->at = l->next.start;
            return true;
        }
        *out = l->next;
        l->has_next = false;
        l->at = l->next.stop;
        if (out->stop > out->start) {
            return true;
        }
    }
    return false;
}

static bool take_raw(struct kiln_splits *splits, size_t i, struct kiln_cutting *out) {
    struct kiln_split_level *l = &splits->level[i];
    if (l->has_pending) {
        *out = l->pending;
        l->has_pending = false;
        return true;
    }
    bool found = raw_next(splits, l, out);
    out->match = found && out->match != splits->tok->parts.split[i].invert;
    return found;
}

/* ---- behaviours --------------------------------------------------------------------------- */

/* Does b stay with a, which stands before it? */
static bool stays(enum kiln_behaviour behaviour, const struct kiln_cutting *a,
                  const struct kiln_cutting *b) {
    switch (behaviour) {
        case KILN_CUT_WITH_PREVIOUS:
            return b->match && !a->match;
        case KILN_CUT_WITH_NEXT:
            return a->match && !b->match;
        case KILN_CUT_CONTIGUOUS:
            return a->match == b->match;
        default:
            return false;
    }
}

/* The next piece inside the piece at hand. */
static bool piece_next(struct kiln_splits *splits, size_t i, struct kiln_cutting *out) {
    struct kiln_split_level *l = &splits->level[i];
    enum kiln_behaviour behaviour = splits->tok->parts.split[i].behaviour;
    do {
        if (!take_raw(splits, i, out)) {
            return false;
        }
    } while (behaviour == KILN_CUT_REMOVED && out->match);
    if (behaviour == KILN_CUT_ISOLATED || behaviour == KILN_CUT_REMOVED) {
        return true;
    }
    struct kiln_cutting behind;
    while (take_raw(splits, i, &behind)) {
        if (!stays(behaviour, out, &behind)) {
            l->pending = behind;
            l->has_pending = true;
            break;
        }
        out->stop = behind.stop;
        if (behaviour != KILN_CUT_CONTIGUOUS) {
            break;
        }
    }
    return true;
}

/* ---- all steps ---------------------------------------------------------------------------- */

/* The next piece that the first `levels` steps leave. */
static bool level_next(struct kiln_splits *splits, size_t levels, struct kiln_cutting *out) {
    if (levels == 0) {
        *out = (struct kiln_cutting){0, splits->size, false};
        bool first = !splits->begun && splits->size > 0;
        splits->begun = true;
        return first;
    }
    while (!piece_next(splits, levels - 1, out)) {
        struct kiln_split_level *l = &splits->level[levels - 1];
        struct kiln_cutting piece;
        if (splits->failed || !level_next(splits, levels - 1, &piece)) {
            return false;
        }
        *l = (struct kiln_split_level){.matcher = l->matcher,
                                       .base = piece.start,
                                       .end = piece.stop,
                                       .at = piece.start,
                                       .from = piece.start};
    }
    return true;
}

bool kiln_splits_next(struct kiln_splits *splits, size_t *start, size_t *stop) {
    struct kiln_cutting piece;
    if (!level_next(splits, splits->tok->parts.n_splits, &piece)) {
        return false;
    }
    *start = piece.start;
    *stop = piece.stop;
    return true;
}
