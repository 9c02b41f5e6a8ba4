/* SPDX-License-Identifier: MIT
 *
 * count_words.h: how often each word stands in texts of any size, counted by all threads of a pool.
 *
 *   text --documents--> pieces of about 1 MiB --a task each--> tables --in order--> one table
 *
 * Documents are cut only where both kinds of words below end, whatever comes next, so the pieces
 * have the words of the whole. Where they are cut depends on the text alone, and their tables are
 * added in the order of the text: words, counts and their order are the same for any number of
 * threads. A text may be mapped and larger than the memory; what is kept is the table.
 */
#ifndef KILN_TEXT_COUNT_WORDS_H
#define KILN_TEXT_COUNT_WORDS_H

#include "base/pool.h"
#include "text/strings.h"
#include "text/text_int.h"

/* Words of llama2.c's vocabularies: a run of letters (of any script), or of other characters, with
 * the one blank before it; a document begins with a blank; a longer one is cut. */
enum { KILN_LONGEST_CHARACTERS = 48 };

struct kiln_counted {
    struct kiln_strings words;
    uint64_t *count; /* of each */
    uint32_t room;
    uint64_t not_utf8; /* bytes that are part of no character; 0 where none are looked for */
};

void kiln_counted_fini(struct kiln_counted *c);

struct kiln_word_counter {
    struct kiln_pool *pool;
    const struct kiln_tokenizer *rule; /* its patterns cut words; NULL: as for llama2.c above */
    size_t piece_bytes;                /* of text a task gets, about */
    size_t longest;                    /* bytes of a word; a longer one is cut */
    size_t most_bytes;                 /* of all different words */
    struct kiln_counted all;
    uint64_t text_bytes; /* in documents */
    uint64_t counted;    /* words, each as often as it stands there */
    uint64_t left_out;   /* of them: new after most_bytes were there, and not counted */
    struct kiln_count_piece *pieces;
    size_t n_pieces, pieces_room;
    struct kiln_count_task *tasks;
    size_t n_tasks, tasks_room;
};

/* `pool` and `rule` stay the caller's, in place as long as the counter. */
KILN_MUST_CHECK enum kiln_status kiln_word_counter_init(struct kiln_word_counter *c,
                                                        struct kiln_pool *pool,
                                                        const struct kiln_tokenizer *rule,
                                                        struct kiln_err *err);
void kiln_word_counter_fini(struct kiln_word_counter *c);
/* Count the words of one more text. `documents` as kiln_documents_init left it. */
KILN_MUST_CHECK enum kiln_status kiln_word_counter_add(struct kiln_word_counter *c,
                                                       struct kiln_documents *documents,
                                                       struct kiln_err *err);

#endif
