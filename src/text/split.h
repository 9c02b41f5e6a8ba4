/* SPDX-License-Identifier: MIT
 *
 * split.h: cut a text into the words inside which byte-level BPE merges, by a regular expression.
 *
 * The expressions are those of tokenizer.json: matches are words, and so is what lies between two
 * of them (`tokenizers` calls it "isolated"). Words put together are the text, byte by byte.
 *
 * PCRE2 runs them with Unicode properties. It needs UTF-8; a byte that is part of no character
 * (broken, overlong, a surrogate, beyond U+10FFFF) is a word of its own, and a text ends before it
 * as far as the expression can see.
 */
#ifndef KILN_TEXT_SPLIT_H
#define KILN_TEXT_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

#include "kiln/status.h"

/* Words as Qwen2 and Qwen3 cut them: short English endings, letters with one character before
 * them, single digits, other signs with the newlines behind them, blanks. */
#define KILN_SPLIT_QWEN2                                                                      \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+" \
    "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* A compiled expression; immutable, for any number of threads. */
struct kiln_word_pattern;
/* KILN_EINPUT with the place in `pattern` that is wrong. */
KILN_MUST_CHECK enum kiln_status kiln_word_pattern_create(const char *pattern,
                                                          struct kiln_word_pattern **out,
                                                          struct kiln_err *err);
void kiln_word_pattern_destroy(struct kiln_word_pattern *split);

/* Walks the words of one text after another. One thread at a time. */
struct kiln_word_walk {
    const struct kiln_word_pattern *split;
    void *match; /* PCRE2's match data */
    const char *text;
    size_t size, at;
    size_t valid_end; /* the text is UTF-8 from `at` to here */
    size_t match_from,
        match_to; /* the match found last; at <= match_from when not yet handed out */
};
KILN_MUST_CHECK enum kiln_status kiln_word_walk_init(struct kiln_word_walk *s,
                                                     const struct kiln_word_pattern *split,
                                                     struct kiln_err *err);
void kiln_word_walk_fini(struct kiln_word_walk *s);
void kiln_word_walk_begin(struct kiln_word_walk *s, const char *text, size_t size);
/* The next word, inside the text; *size is 0 at its end. KILN_EINPUT when the expression is too
 * much for PCRE2 on this text (its stack, its limits). */
KILN_MUST_CHECK enum kiln_status kiln_word_walk_next(struct kiln_word_walk *s, const char **word,
                                                     size_t *size, struct kiln_err *err);

/* Bytes of the UTF-8 character that text begins with; 0 when it begins with none. size > 0. */
size_t kiln_utf8_character(const char *text, size_t size);
/* How many bytes from the start are UTF-8. */
size_t kiln_utf8_valid(const char *text, size_t size);

#endif
