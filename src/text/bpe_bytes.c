/* SPDX-License-Identifier: MIT
 *
 * bpe_bytes.c: a vocabulary for tokenizer.json: <|endoftext|>, the 256 bytes, and what is learned
 * from them.
 */
#include <string.h>

#include "base/mem.h"
#include "text/bpe.h"
#include "text/count_words.h"

enum { ID_ENDOFTEXT = 0, ID_LEARNED = 257 };

/* <|endoftext|>, then the bytes in the order of their letters, as `tokenizers` numbers its initial
 * alphabet. */
static bool add_first_ids(struct kiln_vocabulary *v, uint32_t id[256]) {
    bool fits = kiln_vocabulary_add_kind(v, KILN_ENDOFTEXT, sizeof KILN_ENDOFTEXT - 1, 0.0f,
                                         KILN_KIND_CONTROL);
    for (uint32_t letter = 0; fits && v->n < ID_LEARNED; letter++) {
        const int byte = kiln_byte_of_letter(letter);
        if (byte >= 0) {
            const char piece = (char)byte;
            id[byte] = (uint32_t)v->n;
            fits = kiln_vocabulary_add(v, &piece, 1, 0.0f);
        }
    }
    return fits;
}

static bool add_words(struct kiln_bpe *b, const uint32_t id[256],
                      const struct kiln_counted *words) {
    if (!kiln_bpe_reserve(b, words->words.n, words->words.kept_bytes)) {
        return false;
    }
    for (uint32_t w = 0; w < words->words.n; w++) {
        const struct kiln_string *word = &words->words.item[w];
        uint32_t *symbol = kiln_bpe_add_word(b, (uint32_t)word->size, words->count[w]);
        for (size_t i = 0; i < word->size; i++) {
            symbol[i] = id[(unsigned char)word->bytes[i]];
        }
    }
    return true;
}

static bool learn(struct kiln_bpe *b, struct kiln_counted *words, size_t vocab) {
    uint32_t id[256];
    const bool fits = add_first_ids(&b->v, id) && add_words(b, id, words);
    kiln_counted_fini(words); /* learning needs the memory */
    return fits && kiln_bpe_learn(b, vocab);
}

/* A tokenizer of what was learned; takes vocabulary and merges of `b`. Single digits and the
 * newlines kept apart spare a small vocabulary numbers and line ends of every kind, so words are
 * Qwen2's, not GPT-2's. No normalizer, no blank in front: every text comes back as it was. */
static enum kiln_status make(struct kiln_bpe *b, const char *name, struct kiln_tokenizer **out,
                             struct kiln_err *err) {
    struct kiln_parts parts;
    kiln_parts_init(&parts);
    parts.spelling = KILN_SPELL_BYTES;
    parts.v = b->v;
    parts.merge = b->merges;
    parts.n_merges = b->n_merges;
    parts.merge_room = b->merges_room;
    parts.eos = ID_ENDOFTEXT;
    b->v = (struct kiln_vocabulary){0};
    b->merges = NULL;
    const struct kiln_added mark = {.id = ID_ENDOFTEXT, .special = true};
    if (!kiln_parts_add_added(&parts, mark) ||
        !kiln_parts_add_split(&parts, kiln_pattern_qwen2, false, KILN_CUT_ISOLATED, false)) {
        kiln_parts_fini(&parts);
        return KILN_FAIL(err, KILN_ENOMEM, "a tokenizer: out of memory");
    }
    return kiln_tokenizer_make(&parts, name, out, err);
}

enum kiln_status kiln_byte_rule(struct kiln_tokenizer **out, struct kiln_err *err) {
    struct kiln_bpe b = {.kind = KILN_BPE_PAIRS};
    uint32_t id[256];
    *out = NULL;
    const enum kiln_status status = add_first_ids(&b.v, id)
                                        ? make(&b, "bytes without merges", out, err)
                                        : KILN_FAIL(err, KILN_ENOMEM, "a tokenizer: out of memory");
    kiln_bpe_fini(&b);
    return status;
}

enum kiln_status kiln_learn_bytes(struct kiln_counted *words, size_t vocab,
                                  struct kiln_learned *facts, struct kiln_tokenizer **out,
                                  struct kiln_err *err) {
    struct kiln_bpe b = {.kind = KILN_BPE_PAIRS};
    *out = NULL;
    const bool learned = learn(&b, words, vocab);
    enum kiln_status status = kiln_bpe_verdict(&b, learned, vocab, facts, err);
    if (status == KILN_OK) {
        status = make(&b, "trained", out, err);
    }
    kiln_bpe_fini(&b);
    return status;
}
