/* SPDX-License-Identifier: MIT
 *
 * bpe_bytes.c: a vocabulary for tokenizer.json: <|endoftext|>, the 256 bytes, and what is learned
 * from them.
 */
#include <string.h>

#include "base/mem.h"
#include "text/bpe.h"
#include "text/count_words.h"

enum { ID_ENDOFTEXT = 0, ID_FIRST_BYTE = 1 };

/* Does GPT-2 spell a byte by the character of that number? The other bytes get characters from
 * U+0100 on, so in order of the letters they come last. */
static bool is_own_letter(int byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

/* Ids of the bytes, in the order of their letters, as `tokenizers` numbers its initial alphabet. */
static bool add_bytes(struct kiln_vocabulary *v, uint32_t id[256]) {
    for (int own = 1; own >= 0; own--) {
        for (int byte = 0; byte < 256; byte++) {
            if (is_own_letter(byte) != (own == 1)) {
                continue;
            }
            const char piece = (char)byte;
            id[byte] = (uint32_t)v->n;
            if (!kiln_vocabulary_add(v, &piece, 1, 0.0f)) {
                return false;
            }
        }
    }
    return true;
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
    const bool fits = kiln_vocabulary_add(&b->v, KILN_ENDOFTEXT, sizeof KILN_ENDOFTEXT - 1, 0.0f) &&
                      add_bytes(&b->v, id) && add_words(b, id, words);
    kiln_counted_fini(words); /* learning needs the memory */
    return fits && kiln_bpe_learn(b, vocab);
}

enum kiln_status kiln_learn_bytes(struct kiln_counted *words, size_t vocab, uint64_t bytes,
                                  struct kiln_tokenizer **out, struct kiln_err *err) {
    struct kiln_bpe b = {.kind = KILN_BPE_PAIRS};
    *out = NULL;
    const bool learned = learn(&b, words, vocab);
    enum kiln_status status = kiln_bpe_verdict(&b, learned, vocab, bytes, err);
    if (status == KILN_OK) {
        status = kiln_tokenizer_bytes(out, err);
    }
    kiln_bpe_fini(&b);
    return status;
}
