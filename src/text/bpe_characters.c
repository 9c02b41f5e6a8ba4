/* SPDX-License-Identifier: MIT
 *
 * bpe_characters.c: a vocabulary for llama2.c's tokenizer.bin: controls, bytes, the characters of
 * the text, and what is learned from them.
 *
 * llama2.c's encoder merges by what two neighbours spell, not by which two they are, and it knows
 * no words. So candidates are strings (KILN_BPE_SPELLING), and words are such that no candidate
 * reaches across two of them: a blank never stands inside (count_words.h).
 */
#include <string.h>

#include "base/mem.h"
#include "text/bpe.h"
#include "text/count_words.h"

struct characters {
    struct kiln_strings all;
    uint64_t *count; /* in all words */
    uint32_t room;
    uint32_t *token; /* KILN_NO_ID: none of its own, spelled in bytes */
    size_t total;    /* one behind the other */
};

static void characters_fini(struct characters *c) {
    kiln_strings_fini(&c->all);
    kiln_free(c->count);
    kiln_free(c->token);
}

/* Has it the shape of one UTF-8 character, and is not NUL? Only such become tokens; llama2.c's
 * strings end at NUL. */
static bool is_character(const char *text, size_t size) {
    const unsigned char lead = (unsigned char)text[0];
    if (size == 1) {
        return lead > 0 && lead < 0x80;
    }
    return (size == 2 && lead >= 0xC2 && lead <= 0xDF) ||
           (size == 3 && lead >= 0xE0 && lead <= 0xEF) ||
           (size == 4 && lead >= 0xF0 && lead <= 0xF4);
}

static bool count_characters(struct characters *c, const struct kiln_counted *words) {
    for (uint32_t w = 0; w < words->words.n; w++) {
        const struct kiln_string *word = &words->words.item[w];
        size_t length;
        for (size_t at = 0; at < word->size; at += length, c->total++) {
            length = kiln_character(word->bytes + at, word->size - at);
            if (!is_character(word->bytes + at, length)) {
                continue;
            }
            const uint32_t number = kiln_strings_put_copy(&c->all, word->bytes + at, length);
            if (number == KILN_NO_ID ||
                !kiln_one_more(&c->count, number, &c->room, sizeof *c->count)) {
                return false;
            }
            c->count[number] += words->count[w];
        }
    }
    return true;
}

/* The most frequent character that has no token yet; the blank before all, for the encoder looks
 * for it. KILN_NO_ID when all have one. */
static uint32_t next_character(const struct characters *c) {
    uint32_t best = KILN_NO_ID;
    for (uint32_t i = 0; i < c->all.n; i++) {
        if (c->token[i] != KILN_NO_ID) {
            continue;
        }
        if (c->all.item[i].size == 1 && c->all.item[i].bytes[0] == ' ') {
            return i;
        }
        if (best == KILN_NO_ID || c->count[i] > c->count[best] ||
            (c->count[i] == c->count[best] &&
             kiln_string_order(&c->all.item[i], &c->all.item[best]) < 0)) {
            best = i;
        }
    }
    return best;
}

/* Tokens for the characters, all of them if they take at most half of what is there to learn;
 * rarer ones are spelled in bytes. */
static bool add_characters(struct characters *c, struct kiln_vocabulary *v, size_t vocab) {
    c->token = kiln_alloc(c->all.n, sizeof *c->token);
    if (c->token == NULL) {
        return false;
    }
    memset(c->token, 0xFF, c->all.n * sizeof *c->token);
    const size_t most = (vocab - KILN_ID_LEARNED + 1) / 2;
    for (size_t i = 0; i < most; i++) {
        const uint32_t at = next_character(c);
        if (at == KILN_NO_ID || c->all.item == NULL) {
            break;
        }
        c->token[at] = (uint32_t)v->n;
        const struct kiln_string *s = &c->all.item[at];
        if (!kiln_vocabulary_add(v, s->bytes, s->size, 0.0f)) {
            return false;
        }
    }
    return true;
}

static bool add_controls_and_bytes(struct kiln_vocabulary *v) {
    bool fits = kiln_vocabulary_add_controls(v);
    for (int byte = 0; fits && byte < 256; byte++) {
        char name[7];
        kiln_byte_piece((unsigned char)byte, name);
        fits = kiln_vocabulary_add(v, name, 6, 0.0f);
    }
    return fits;
}

static bool add_words(struct kiln_bpe *b, const struct characters *c,
                      const struct kiln_counted *words) {
    if (!kiln_bpe_reserve(b, words->words.n, c->total)) {
        return false;
    }
    uint32_t symbol[KILN_LONGEST_CHARACTERS + 2];
    for (uint32_t w = 0; w < words->words.n; w++) {
        const struct kiln_string *word = &words->words.item[w];
        uint32_t n = 0;
        size_t length;
        for (size_t at = 0; at < word->size; at += length, n++) {
            length = kiln_character(word->bytes + at, word->size - at);
            symbol[n] = KILN_NO_ID;
            if (is_character(word->bytes + at, length)) {
                symbol[n] = c->token[kiln_strings_find(&c->all, word->bytes + at, length)];
            }
        }
        memcpy(kiln_bpe_add_word(b, n, words->count[w]), symbol, n * sizeof *symbol);
    }
    return true;
}

static bool learn(struct kiln_bpe *b, struct kiln_counted *words, size_t vocab) {
    struct characters c = {0};
    bool fits = add_controls_and_bytes(&b->v) && count_characters(&c, words) &&
                add_characters(&c, &b->v, vocab) && add_words(b, &c, words);
    characters_fini(&c);
    kiln_counted_fini(words);
    if (!fits || !kiln_bpe_learn(b, vocab)) {
        return false;
    }
    /* the encoder merges the highest score first */
    for (size_t id = KILN_ID_LEARNED; id < b->v.n; id++) {
        b->v.score[id] = -(float)(id - KILN_ID_LEARNED);
    }
    return true;
}

enum kiln_status kiln_learn_characters(struct kiln_counted *words, size_t vocab,
                                       struct kiln_learned *facts, struct kiln_tokenizer **out,
                                       struct kiln_err *err) {
    struct kiln_bpe b = {.kind = KILN_BPE_SPELLING};
    *out = NULL;
    const bool learned = learn(&b, words, vocab);
    enum kiln_status status = kiln_bpe_verdict(&b, learned, vocab, facts, err);
    if (status == KILN_OK) {
        status = kiln_tokenizer_build(&b.v, "trained", out, err);
    }
    kiln_bpe_fini(&b);
    if (status == KILN_OK) {
        status = kiln_tokenizer_stamp(*out, err);
        if (status != KILN_OK) {
            kiln_tokenizer_destroy(*out);
            *out = NULL;
        }
    }
    return status;
}
