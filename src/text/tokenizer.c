/* SPDX-License-Identifier: MIT
 *
 * tokenizer.c: a vocabulary with the tables that make encoding fast.
 *
 * llama2.c joins the strings of two neighbours and looks the result up. The same answer comes
 * from a table of pairs: a piece s can come of merging (a, b) exactly when s = a+b and both are
 * pieces, so every cut of every piece is looked at once, here. A merge never makes byte b follow
 * byte a unless some mergeable piece holds "ab" (`joins`); text falls into words at such places,
 * and words can be merged one by one with the same result.
 */
#include <string.h>

#include "base/mem.h"
#include "text/text_int.h"

/* llama2.c starts its search for the best pair from this score: no lower one is ever merged. */
#define LOWEST_SCORE (-1e10f)

static uint32_t find_hashed(const struct kiln_tokenizer *tok, uint64_t hash, const char *bytes,
                            size_t size, size_t *slot) {
    size_t at = kiln_hash_spread(hash) & (tok->slots - 1);
    for (; tok->slot[at] != KILN_NO_ID; at = (at + 1) & (tok->slots - 1)) {
        size_t length;
        const char *piece = kiln_piece(&tok->v, tok->slot[at], &length);
        if (length == size && memcmp(piece, bytes, size) == 0) {
            break;
        }
    }
    if (slot != NULL) {
        *slot = at;
    }
    return tok->slot[at];
}

uint32_t kiln_tokenizer_find(const struct kiln_tokenizer *tok, const char *bytes, size_t size) {
    return find_hashed(tok, kiln_hash_bytes(bytes, size), bytes, size, NULL);
}

/* Pieces into the hash table; of equal ones the first. */
static bool index_pieces(struct kiln_tokenizer *tok) {
    tok->slots = 1024;
    while (tok->slots < tok->v.n * 2) {
        tok->slots *= 2;
    }
    tok->slot = kiln_alloc(tok->slots, sizeof *tok->slot);
    tok->same = kiln_alloc(tok->v.n, sizeof *tok->same);
    if (tok->slot == NULL || tok->same == NULL) {
        return false;
    }
    memset(tok->slot, 0xFF, tok->slots * sizeof *tok->slot);
    for (uint32_t id = 0; id < tok->v.n; id++) {
        size_t size, slot;
        const char *piece = kiln_piece(&tok->v, id, &size);
        uint32_t first = find_hashed(tok, kiln_hash_bytes(piece, size), piece, size, &slot);
        if (first == KILN_NO_ID) {
            tok->slot[slot] = first = id;
        }
        tok->same[id] = first;
        tok->longest = size > tok->longest ? size : tok->longest;
    }
    return true;
}

static void note_joins(struct kiln_tokenizer *tok, const char *piece, size_t size) {
    for (size_t i = 1; i < size; i++) {
        unsigned char a = (unsigned char)piece[i - 1];
        unsigned char b = (unsigned char)piece[i];
        tok->joins[a][b >> 6] |= UINT64_C(1) << (b & 63);
    }
}

/* All ways to cut the piece of `id` into two pieces. The hash of the right part is that of the
 * whole less that of the left part, shifted by as many steps. */
static bool index_cuts(struct kiln_tokenizer *tok, uint32_t id) {
    size_t size;
    const char *piece = kiln_piece(&tok->v, id, &size);
    uint64_t power = 1;
    for (size_t i = 1; i < size; i++) {
        power *= KILN_HASH_BASE;
    }
    uint64_t whole = kiln_hash_bytes(piece, size);
    uint64_t left = 0;
    /* the inverse of an odd base modulo 2^64 walks the power down without a table */
    uint64_t inverse = KILN_HASH_BASE;
    for (int i = 0; i < 5; i++) {
        inverse *= 2 - KILN_HASH_BASE * inverse;
    }
    bool any = false;
    for (size_t cut = 1; cut < size; cut++, power *= inverse) {
        left = kiln_hash_step(left, (unsigned char)piece[cut - 1]);
        uint32_t a = find_hashed(tok, left, piece, cut, NULL);
        if (a == KILN_NO_ID) {
            continue;
        }
        uint64_t right = whole - left * power;
        uint32_t b = find_hashed(tok, right, piece + cut, size - cut, NULL);
        if (b == KILN_NO_ID) {
            continue;
        }
        if (!kiln_pairs_put(&tok->merges, a, b, id)) {
            return false;
        }
        any = true;
    }
    if (any) {
        note_joins(tok, piece, size);
    }
    return true;
}

static bool index_merges(struct kiln_tokenizer *tok) {
    for (uint32_t id = 0; id < tok->v.n; id++) {
        if (tok->same[id] == id && tok->v.score[id] > LOWEST_SCORE && !index_cuts(tok, id)) {
            return false;
        }
    }
    return true;
}

/* What a byte falls back to: id 3+b as in llama2.c. A vocabulary without byte pieces there has
 * them elsewhere or not at all; then it is the unknown id, never a piece of other text. */
static uint32_t fallback_id(const struct kiln_tokenizer *tok, unsigned char byte) {
    uint32_t id = KILN_ID_BYTES + byte;
    char name[7];
    kiln_byte_piece(byte, name);
    if (id < tok->v.n) {
        size_t size;
        const char *piece = kiln_piece(&tok->v, id, &size);
        bool itself = size == 1 && (unsigned char)piece[0] == byte;
        if (itself || kiln_piece_byte(piece, size) == byte) {
            return id;
        }
    }
    uint32_t elsewhere = kiln_tokenizer_find(tok, name, 6);
    return elsewhere == KILN_NO_ID ? KILN_ID_UNKNOWN : elsewhere;
}

static bool build_tables(struct kiln_tokenizer *tok) {
    if (!index_pieces(tok) || !index_merges(tok)) {
        return false;
    }
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        tok->byte_id[byte] = fallback_id(tok, (unsigned char)byte);
        tok->one[byte] = kiln_tokenizer_find(tok, &c, 1);
    }
    return true;
}

enum kiln_status kiln_tokenizer_build(struct kiln_vocabulary *v, const char *name,
                                      struct kiln_tokenizer **out, struct kiln_err *err) {
    struct kiln_tokenizer *tok = kiln_alloc(1, sizeof *tok);
    *out = NULL;
    if (tok == NULL) {
        kiln_vocabulary_fini(v);
        return KILN_FAIL(err, KILN_ENOMEM, "tokenizer %s: out of memory", name);
    }
    tok->v = *v;
    *v = (struct kiln_vocabulary){0};
    tok->name = kiln_strdup(name);
    if (tok->name == NULL || !build_tables(tok)) {
        kiln_tokenizer_destroy(tok);
        return KILN_FAIL(err, KILN_ENOMEM, "tokenizer %s: out of memory", name);
    }
    *out = tok;
    return KILN_OK;
}

void kiln_tokenizer_destroy(struct kiln_tokenizer *tok) {
    if (tok == NULL) {
        return;
    }
    kiln_vocabulary_fini(&tok->v);
    kiln_pairs_fini(&tok->merges);
    kiln_free(tok->name);
    kiln_free(tok->same);
    kiln_free(tok->slot);
    kiln_free(tok);
}

/* Printable bytes are pieces as they are, so that llama2.c, which looks characters up and drops a
 * leading blank, reads and writes the same text with this vocabulary. */
static bool add_bytes(struct kiln_vocabulary *v) {
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        char name[7];
        kiln_byte_piece((unsigned char)byte, name);
        bool plain = (byte >= ' ' && byte <= '~') || byte == '\n' || byte == '\t';
        if (!kiln_vocabulary_add(v, plain ? &c : name, plain ? 1 : 6, 0.0f)) {
            return false;
        }
    }
    return true;
}

enum kiln_status kiln_tokenizer_bytes(struct kiln_tokenizer **out, struct kiln_err *err) {
    struct kiln_vocabulary v = {0};
    *out = NULL;
    if (!kiln_vocabulary_add_controls(&v) || !add_bytes(&v)) {
        kiln_vocabulary_fini(&v);
        return KILN_FAIL(err, KILN_ENOMEM, "tokenizer bytes: out of memory");
    }
    enum kiln_status status = kiln_tokenizer_build(&v, "bytes", out, err);
    if (*out != NULL) {
        (*out)->bytes = true;
    }
    return status;
}

size_t kiln_tokenizer_vocab(const struct kiln_tokenizer *tok) { return tok->v.n; }
uint32_t kiln_tokenizer_bos(const struct kiln_tokenizer *tok) {
    (void)tok;
    return KILN_ID_BOS;
}
uint32_t kiln_tokenizer_eos(const struct kiln_tokenizer *tok) {
    (void)tok;
    return KILN_ID_EOS;
}
const char *kiln_tokenizer_name(const struct kiln_tokenizer *tok) { return tok->name; }

enum kiln_status kiln_tokenizer_fits(const struct kiln_tokenizer *tok, size_t vocab,
                                     struct kiln_err *err) {
    if (tok->v.n == vocab || (tok->bytes && tok->v.n < vocab)) {
        return KILN_OK;
    }
    return KILN_FAIL(err, KILN_EINPUT,
                     "tokenizer %s has %zu ids, the model's vocabulary has %zu; use the tokenizer "
                     "that the model was trained with, or a model with --vocab %zu",
                     tok->name, tok->v.n, vocab, tok->v.n);
}

#define BYTES_4(b)  (b), (b) + 1, (b) + 2, (b) + 3
#define BYTES_16(b) BYTES_4(b), BYTES_4((b) + 4), BYTES_4((b) + 8), BYTES_4((b) + 12)
#define BYTES_64(b) BYTES_16(b), BYTES_16((b) + 16), BYTES_16((b) + 32), BYTES_16((b) + 48)
static const unsigned char every_byte[256] = {BYTES_64(0), BYTES_64(64), BYTES_64(128),
                                              BYTES_64(192)};

const char *kiln_tokenizer_decode(const struct kiln_tokenizer *tok, uint32_t previous, uint32_t id,
                                  size_t *size) {
    *size = 0;
    if (id >= tok->v.n || id == KILN_ID_BOS || id == KILN_ID_EOS) {
        return "";
    }
    const char *piece = kiln_piece(&tok->v, id, size);
    int byte = kiln_piece_byte(piece, *size);
    if (byte >= 0) {
        *size = 1;
        return (const char *)every_byte + byte;
    }
    if (previous == KILN_ID_BOS && *size > 0 && piece[0] == ' ') {
        (*size)--;
        return piece + 1;
    }
    return piece;
}
