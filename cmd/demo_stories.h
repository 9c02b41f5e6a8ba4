/* SPDX-License-Identifier: MIT
 *
 * demo_stories.h: the demo's stories: written for training, told by the model, and judged.
 */
#ifndef KILN_CMD_DEMO_STORIES_H
#define KILN_CMD_DEMO_STORIES_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kiln/status.h"
#include "kiln/text.h"

/* Stories number `first` to `first + n - 1` of a seed, "<|endoftext|>" between them. */
struct stories {
    char *text; /* heap */
    size_t size;
    size_t n;
    double surprise; /* sum of -ln probability */
};
KILN_MUST_CHECK enum kiln_status stories_make(struct stories *out, uint64_t seed, uint64_t first,
                                              size_t n, struct kiln_err *err);
void stories_free(struct stories *stories);
KILN_MUST_CHECK enum kiln_status stories_save(const struct stories *stories, const char *path,
                                              struct kiln_err *err);
/* Tokens of all stories, each with the token that begins it. */
KILN_MUST_CHECK enum kiln_status stories_count_tokens(const struct stories *stories,
                                                      const struct kiln_tokenizer *tokenizer,
                                                      size_t *tokens, struct kiln_err *err);

/* What told stories were worth. */
struct judgement {
    size_t stories, sentences, parsed;
    size_t novel; /* stories that are no part of a training story */
};
/* Add one told story to the judgement. */
void judge(struct judgement *judgement, const struct stories *training, const char *told,
           size_t size);

/* Print a text in lines of at most `width` bytes, `margin` before each, broken at blanks. */
void print_wrapped(FILE *to, const char *margin, size_t width, const char *text, size_t size);

#endif
