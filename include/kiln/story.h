/* SPDX-License-Identifier: MIT
 *
 * story.h: small stories from a grammar, for the demo and for tests.
 *
 * A story is a pure function of (seed, index). Characters, places, wishes and mishaps are drawn
 * from lists; what was drawn comes back later in the story (names, pronouns, the thing wished
 * for), so that there is something to learn. The text determines the draws, so the probability
 * of a text is the product of the probabilities of its draws, and the entropy of the source is
 * known: no model can have a lower loss on fresh stories.
 */
#ifndef KILN_STORY_H
#define KILN_STORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KILN_STORY_ROOM         4096 /* bytes that hold any story with its terminating zero */
#define KILN_STORY_SENTENCE_MAX 256  /* no sentence of a story is longer */

/* Write story `index` into text (KILN_STORY_ROOM bytes, zero-terminated, no separator); return
 * its length. *surprise, when not NULL, gets -ln of its probability. */
KILN_API size_t kiln_story_write(uint64_t seed, uint64_t index, char *text, double *surprise);

/* Mean of -ln probability over all stories (nats a story): computed from the grammar, exactly. */
KILN_API double kiln_story_entropy(void);

/* -ln probability of a whole story text, by parsing it; a negative number when the grammar cannot
 * produce it. */
KILN_API double kiln_story_surprise(const char *text, size_t size);

/* Can some story contain this one sentence, from its first letter or opening quote to its full
 * stop? What the sentence mentions twice must agree within it; other sentences play no part. */
KILN_API bool kiln_story_sentence(const char *sentence, size_t size);

/* Split a text of one or more stories into sentences: the number found, and how many of them parse
 * (each on its own). A sentence ends at . ! or ? outside double quotes, so what is said and who
 * says it are one sentence. A line end or "<|endoftext|>" ends it too (half a sentence before one
 * counts and does not parse), and so do KILN_STORY_SENTENCE_MAX bytes without an end. Half a
 * sentence at the end of the text is a story cut off and does not count. Any bytes are allowed. */
KILN_API void kiln_story_check(const char *text, size_t size, size_t *sentences, size_t *parsed);

#ifdef __cplusplus
}
#endif

#endif
