/* SPDX-License-Identifier: MIT
 *
 * bpe.h: byte-pair encoding is learned here, whatever the symbols are (Sennrich, Haddow, Birch:
 * Neural Machine Translation of Rare Words with Subword Units, ACL 2016, section 3.2).
 *
 *   words as lists of symbols, with counts --learn--> pieces behind those that are there, merges
 *
 * The most frequent candidate becomes a token and is merged in all words that hold it, again and
 * again. There are two kinds of candidates, for there are two kinds of encoders:
 *
 *   KILN_BPE_PAIRS     a candidate is a pair of ids, as in tokenizer.json. Of equally frequent ones
 *                      the smallest pair is taken, left id first. A merge goes through a word from
 *                      left to right. The BpeTrainer of `tokenizers` has the same rules.
 *   KILN_BPE_SPELLING  a candidate is a string: all pairs that spell it. llama2.c's encoder knows
 *                      pieces and no merges. Of equally frequent ones the first in byte order is
 *                      taken. After a new token a word is merged as the encoder would: earliest
 *                      token first, leftmost of equals, until no two neighbours spell a token.
 *
 * By pairs no string becomes a token twice: where it stands as two symbols, a merge has never
 * reached across its ends, so inside it the same merges were made in the same order wherever it
 * stands, and left the same two symbols. So a pair that was merged never appears again.
 *
 * Counts of pairs are kept, not made: a merge changes those of the neighbours only. A heap holds
 * the candidates with the counts of the time they were put in; one whose count has changed since
 * goes back with its count of today. The result depends on words and counts only, not on the order
 * of the words.
 */
#ifndef KILN_TEXT_BPE_H
#define KILN_TEXT_BPE_H

#include "text/strings.h"
#include "text/text_int.h"

enum kiln_bpe_kind { KILN_BPE_PAIRS, KILN_BPE_SPELLING };

/* Symbols of the longest word; a front end cuts longer ones. A symbol at the start is at most four
 * bytes. */
enum { KILN_BPE_LONGEST = 1024 };

struct kiln_bpe_word {
    uint64_t count;
    size_t at; /* its symbols */
    uint32_t n;
};

/* The caller sets kind, vocabulary, words and symbols (by kiln_bpe_reserve); the rest is the
 * learner's. Zero it to begin. */
struct kiln_bpe {
    enum kiln_bpe_kind kind;
    struct kiln_vocabulary v; /* in: a piece for every id in symbols; tokens are put behind them */
    struct kiln_bpe_word *words;
    uint32_t n_words;
    uint32_t *symbols; /* ids; KILN_NO_ID is never merged */
    size_t n_symbols;

    struct kiln_merge *merges; /* out: in order of rank; by spelling one pair of each token */
    uint32_t n_merges, merges_room;

    struct kiln_strings names; /* of candidates, by spelling */
    struct kiln_pairs numbers; /* pair of ids -> candidate */
    struct kiln_candidate *candidates;
    uint32_t n_candidates, candidates_room;
    struct kiln_stand *stands; /* where candidates stand: lists through one array */
    uint32_t n_stands, stands_room;
    uint32_t free_stand;
    uint32_t *touched; /* candidates to tell the heap of */
    uint32_t n_touched, touched_room;
    struct kiln_offer *heap;
    uint32_t heap_n, heap_room;
};

/* Room for words and their symbols, all of which are then appended by kiln_bpe_word. False when out
 * of memory. */
bool kiln_bpe_reserve(struct kiln_bpe *b, uint32_t words, size_t symbols);
/* Append a word of n symbols; the caller fills them in. */
uint32_t *kiln_bpe_add_word(struct kiln_bpe *b, uint32_t n, uint64_t count);

/* Learn until there are `vocab` ids, or until no pair is seen twice (then v.n is smaller). False
 * when out of memory. Once. */
bool kiln_bpe_learn(struct kiln_bpe *b, size_t vocab);
void kiln_bpe_fini(struct kiln_bpe *b);

/* ---- the two front ends: a tokenizer of `vocab` ids from counted words ------------------------
 *
 * They take `words` over and set facts->tokens. KILN_EINPUT when the words teach fewer ids. */

struct kiln_counted;
/* Characters, for llama2.c's tokenizer.bin (bpe_characters.c). */
KILN_MUST_CHECK enum kiln_status kiln_learn_characters(struct kiln_counted *words, size_t vocab,
                                                       struct kiln_learned *facts,
                                                       struct kiln_tokenizer **out,
                                                       struct kiln_err *err);
/* Bytes, for tokenizer.json (bpe_bytes.c). Words are those that kiln_byte_rule cuts. */
KILN_MUST_CHECK enum kiln_status kiln_learn_bytes(struct kiln_counted *words, size_t vocab,
                                                  struct kiln_learned *facts,
                                                  struct kiln_tokenizer **out,
                                                  struct kiln_err *err);
/* A tokenizer of <|endoftext|> and the bytes that has learned nothing: it cuts words as those that
 * learn do. */
KILN_MUST_CHECK enum kiln_status kiln_byte_rule(struct kiln_tokenizer **out, struct kiln_err *err);
/* What both say when `b` has learned less than was asked for, or is out of memory (`learned` is
 * false); otherwise facts->tokens is set. */
KILN_MUST_CHECK enum kiln_status kiln_bpe_verdict(const struct kiln_bpe *b, bool learned,
                                                  size_t vocab, struct kiln_learned *facts,
                                                  struct kiln_err *err);

#endif
