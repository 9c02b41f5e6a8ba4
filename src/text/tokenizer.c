/* SPDX-License-Identifier: MIT
 *
 * tokenizer.c: a tokenizer's parts with the tables that make encoding fast.
 */
#include <string.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "text/added.h"
#include "text/merges.h"
#include "text/regex.h"
#include "text/text_int.h"

uint32_t kiln_tokenizer_find_hashed(const struct kiln_tokenizer *tok, uint64_t hash,
                                    const char *bytes, size_t size, size_t *slot) {
    size_t at = kiln_hash_spread(hash) & (tok->slots - 1);
    for (; tok->slot[at] != KILN_NO_ID; at = (at + 1) & (tok->slots - 1)) {
        size_t length;
        const char *piece = kiln_piece(&tok->parts.v, tok->slot[at], &length);
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
    return kiln_tokenizer_find_hashed(tok, kiln_hash_bytes(bytes, size), bytes, size, NULL);
}

/* Pieces of text into the hash table; of equal ones the first. */
static bool index_pieces(struct kiln_tokenizer *tok) {
    const struct kiln_vocabulary *v = &tok->parts.v;
    tok->slots = 1024;
    while (tok->slots < v->n * 2) {
        tok->slots *= 2;
    }
    tok->slot = kiln_alloc(tok->slots, sizeof *tok->slot);
    tok->same = kiln_alloc(v->n, sizeof *tok->same);
    if (tok->slot == NULL || tok->same == NULL) {
        return false;
    }
    memset(tok->slot, 0xFF, tok->slots * sizeof *tok->slot);
    for (uint32_t id = 0; id < v->n; id++) {
        size_t size, slot;
        const char *piece = kiln_piece(v, id, &size);
        tok->longest = size > tok->longest ? size : tok->longest;
        tok->same[id] = id;
        if (v->kind[id] != KILN_KIND_TEXT || size == 0) {
            continue;
        }
        uint32_t first =
            kiln_tokenizer_find_hashed(tok, kiln_hash_bytes(piece, size), piece, size, &slot);
        if (first == KILN_NO_ID) {
            tok->slot[slot] = first = id;
        }
        tok->same[id] = first;
    }
    return true;
}

/* ---- what a byte without a piece becomes -------------------------------------------------- */

/* In llama2.c's form id 3+b. A vocabulary without byte pieces there has them elsewhere or not at
 * all; then it is the unknown id, never a piece of other text. */
static uint32_t llama2c_byte(const struct kiln_tokenizer *tok, unsigned char byte) {
    uint32_t id = KILN_ID_BYTES + byte;
    char name[7];
    kiln_byte_piece(byte, name);
    if (id < tok->parts.v.n) {
        size_t size;
        const char *piece = kiln_piece(&tok->parts.v, id, &size);
        bool itself = size == 1 && (unsigned char)piece[0] == byte;
        if (itself || kiln_piece_byte(piece, size) == byte) {
            return id;
        }
    }
    uint32_t elsewhere = kiln_tokenizer_find(tok, name, 6);
    return elsewhere == KILN_NO_ID ? KILN_ID_UNKNOWN : elsewhere;
}

static void index_fallbacks(struct kiln_tokenizer *tok) {
    const struct kiln_parts *parts = &tok->parts;
    for (uint32_t id = 0; id < parts->v.n && parts->byte_fallback; id++) {
        size_t size;
        const char *piece = kiln_piece(&parts->v, id, &size);
        if (parts->v.kind[id] == KILN_KIND_BYTE && kiln_piece_byte(piece, size) >= 0) {
            tok->byte_id[kiln_piece_byte(piece, size)] = id;
        }
    }
}

static void index_bytes(struct kiln_tokenizer *tok) {
    memset(tok->byte_id, 0xFF, sizeof tok->byte_id);
    if (tok->parts.spelling == KILN_SPELL_BLANKS) {
        index_fallbacks(tok);
    }
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        tok->one[byte] = kiln_tokenizer_find(tok, &c, 1);
        if (tok->parts.spelling == KILN_SPELL_LLAMA2C) {
            tok->byte_id[byte] = llama2c_byte(tok, (unsigned char)byte);
        }
    }
}

/* ---- making ------------------------------------------------------------------------------- */

static enum kiln_status check_id(uint32_t id, const struct kiln_tokenizer *tok, const char *what,
                                 size_t which, struct kiln_err *err) {
    KILN_REQUIRE(id < tok->parts.v.n, err, KILN_EINPUT,
                 "tokenizer %s: %s %zu has the id %u, the vocabulary ends at %zu", tok->name, what,
                 which, id, tok->parts.v.n);
    return KILN_OK;
}

static enum kiln_status check(const struct kiln_tokenizer *tok, struct kiln_err *err) {
    const struct kiln_parts *p = &tok->parts;
    KILN_REQUIRE(p->v.n > 0 && p->v.n <= KILN_MAX_IDS, err, KILN_EINPUT,
                 "tokenizer %s: has %zu ids, expected 1 to %zu", tok->name, p->v.n, KILN_MAX_IDS);
    for (size_t i = 0; i < p->n_merges; i++) {
        KILN_TRY(check_id(p->merge[i].left, tok, "merge", i, err));
        KILN_TRY(check_id(p->merge[i].right, tok, "merge", i, err));
        KILN_TRY(check_id(p->merge[i].id, tok, "merge", i, err));
    }
    for (size_t i = 0; i < p->n_added; i++) {
        KILN_TRY(check_id(p->added[i].id, tok, "added token", i, err));
    }
    const uint32_t named[] = {p->unknown, p->bos, p->eos, p->pad};
    static const char *const what[] = {"the unknown token", "BOS", "EOS", "the padding token"};
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        KILN_REQUIRE(named[i] == KILN_NO_ID || named[i] < p->v.n, err, KILN_EINPUT,
                     "tokenizer %s: %s has the id %u, the vocabulary ends at %zu", tok->name,
                     what[i], named[i], p->v.n);
    }
    return KILN_OK;
}

/* A byte-level vocabulary without a byte would drop it from the text without a word. */
static enum kiln_status check_bytes(const struct kiln_tokenizer *tok, struct kiln_err *err) {
    bool needed = tok->parts.spelling == KILN_SPELL_BYTES && tok->parts.unknown == KILN_NO_ID;
    for (int byte = 0; needed && byte < 256; byte++) {
        KILN_REQUIRE(tok->one[byte] != KILN_NO_ID, err, KILN_EINPUT,
                     "tokenizer %s: is byte-level and has no id for byte 0x%02X, nor an unknown "
                     "token",
                     tok->name, (unsigned)byte);
    }
    return KILN_OK;
}

static enum kiln_status compile_patterns(struct kiln_tokenizer *tok, struct kiln_err *err) {
    const struct kiln_parts *p = &tok->parts;
    tok->cut = kiln_alloc(p->n_splits + 1, sizeof(void *));
    tok->rewrite = kiln_alloc(p->n_rewrites + 1, sizeof(void *));
    KILN_REQUIRE(tok->cut != NULL && tok->rewrite != NULL, err, KILN_ENOMEM,
                 "tokenizer %s: out of memory", tok->name);
    for (size_t i = 0; i < p->n_splits; i++) {
        KILN_TRY(kiln_regex_open(p->split[i].pattern, p->split[i].literal, tok->name, &tok->cut[i],
                                 err));
    }
    for (size_t i = 0; i < p->n_rewrites; i++) {
        if (p->rewrite[i].pattern != NULL) {
            KILN_TRY(kiln_regex_open(p->rewrite[i].pattern, p->rewrite[i].literal, tok->name,
                                     &tok->rewrite[i], err));
        }
    }
    return KILN_OK;
}

/* CRC-32C of all that decides which ids a text gets, the same in whichever form it was read. */
static bool take_crc(struct kiln_tokenizer *tok) {
    const struct kiln_parts *p = &tok->parts;
    struct kiln_merge *merge;
    size_t n;
    if (!kiln_list_merges(tok, &merge, &n)) {
        return false;
    }
    uint32_t crc = kiln_crc32c(0, p->v.pool, p->v.at[p->v.n]);
    crc = kiln_crc32c(crc, p->v.at, (p->v.n + 1) * sizeof *p->v.at);
    crc = kiln_crc32c(crc, p->v.kind, p->v.n);
    crc = kiln_crc32c(crc, merge, n * sizeof *merge);
    for (size_t i = 0; i < p->n_splits; i++) {
        crc = kiln_crc32c(crc, p->split[i].pattern, strlen(p->split[i].pattern));
    }
    bool always = p->prefix == KILN_PREFIX_ONCE || p->prefix == KILN_PREFIX_ALWAYS;
    const uint32_t rest[] = {p->spelling,
                             always ? KILN_PREFIX_ALWAYS : p->prefix,
                             p->unknown,
                             p->byte_fallback,
                             p->fuse_unknown,
                             p->ignore_merges,
                             (uint32_t)p->n_rewrites};
    tok->crc = kiln_crc32c(crc, rest, sizeof rest);
    kiln_free(merge);
    return true;
}

static enum kiln_status build_tables(struct kiln_tokenizer *tok, struct kiln_err *err) {
    KILN_TRY(check(tok, err));
    KILN_REQUIRE(index_pieces(tok) && kiln_merges_index(tok), err, KILN_ENOMEM,
                 "tokenizer %s: out of memory", tok->name);
    KILN_REQUIRE(tok->parts.spelling == KILN_SPELL_LLAMA2C || take_crc(tok), err, KILN_ENOMEM,
                 "tokenizer %s: out of memory", tok->name);
    if (!tok->parts.scored) {
        kiln_free(tok->same);
        tok->same = NULL;
    }
    index_bytes(tok);
    KILN_TRY(check_bytes(tok, err));
    KILN_TRY(compile_patterns(tok, err));
    return kiln_finders_open(tok, err);
}

enum kiln_status kiln_tokenizer_make(struct kiln_parts *parts, const char *name,
                                     struct kiln_tokenizer **out, struct kiln_err *err) {
    struct kiln_tokenizer *tok = kiln_alloc(1, sizeof *tok);
    *out = NULL;
    if (tok == NULL) {
        kiln_parts_fini(parts);
        return KILN_FAIL(err, KILN_ENOMEM, "tokenizer %s: out of memory", name);
    }
    tok->parts = *parts;
    kiln_parts_init(parts);
    tok->name = kiln_strdup(name);
    enum kiln_status status =
        tok->name != NULL ? build_tables(tok, err)
                          : KILN_FAIL(err, KILN_ENOMEM, "tokenizer %s: out of memory", name);
    if (status != KILN_OK) {
        kiln_tokenizer_destroy(tok);
        return status;
    }
    *out = tok;
    return KILN_OK;
}

enum kiln_status kiln_tokenizer_build(struct kiln_vocabulary *v, const char *name,
                                      struct kiln_tokenizer **out, struct kiln_err *err) {
    struct kiln_parts parts;
    kiln_parts_init(&parts);
    parts.spelling = KILN_SPELL_LLAMA2C;
    parts.v = *v;
    parts.scored = true;
    parts.prefix = KILN_PREFIX_ONCE;
    parts.strips_blank = true;
    parts.byte_fallback = true;
    parts.adds_bos = true;
    parts.unknown = KILN_ID_UNKNOWN;
    parts.bos = KILN_ID_BOS;
    parts.eos = KILN_ID_EOS;
    *v = (struct kiln_vocabulary){0};
    return kiln_tokenizer_make(&parts, name, out, err);
}

void kiln_tokenizer_destroy(struct kiln_tokenizer *tok) {
    if (tok == NULL) {
        return;
    }
    for (size_t i = 0; tok->cut != NULL && i < tok->parts.n_splits; i++) {
        kiln_regex_close(tok->cut[i]);
    }
    for (size_t i = 0; tok->rewrite != NULL && i < tok->parts.n_rewrites; i++) {
        kiln_regex_close(tok->rewrite[i]);
    }
    kiln_finder_close(tok->early);
    kiln_finder_close(tok->late);
    kiln_parts_fini(&tok->parts);
    kiln_free(tok->merges.slot);
    kiln_free(tok->name);
    kiln_free(tok->same);
    kiln_free(tok->slot);
    kiln_free(tok->first);
    kiln_free(tok->last);
    kiln_free(tok->cut);
    kiln_free(tok->rewrite);
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

/* ---- questions ---------------------------------------------------------------------------- */

size_t kiln_tokenizer_vocab(const struct kiln_tokenizer *tok) { return tok->parts.v.n; }
uint32_t kiln_tokenizer_bos(const struct kiln_tokenizer *tok) { return tok->parts.bos; }
uint32_t kiln_tokenizer_eos(const struct kiln_tokenizer *tok) { return tok->parts.eos; }
uint32_t kiln_tokenizer_begin(const struct kiln_tokenizer *tok) {
    const struct kiln_parts *p = &tok->parts;
    if (p->bos != KILN_NO_ID && (p->adds_bos || p->eos == KILN_NO_ID)) {
        return p->bos;
    }
    return p->eos;
}
const char *kiln_tokenizer_name(const struct kiln_tokenizer *tok) { return tok->name; }
const char *kiln_tokenizer_file_name(const struct kiln_tokenizer *tok) {
    return tok->parts.spelling == KILN_SPELL_LLAMA2C ? "tokenizer.bin" : "tokenizer.json";
}

enum kiln_status kiln_tokenizer_fits(const struct kiln_tokenizer *tok, size_t vocab,
                                     struct kiln_err *err) {
    /* a tokenizer.bin that was cut short can be told from a whole one by nothing else */
    bool padded = tok->bytes || tok->parts.spelling != KILN_SPELL_LLAMA2C;
    size_t n = tok->parts.v.n;
    if (n == vocab || (padded && n < vocab)) {
        return KILN_OK;
    }
    return KILN_FAIL(err, KILN_EINPUT,
                     "tokenizer %s has %zu ids, the model's vocabulary has %zu; use the tokenizer "
                     "that the model was trained with, or a model with --vocab %zu",
                     tok->name, n, vocab, n);
}

#define BYTES_4(b)  (b), (b) + 1, (b) + 2, (b) + 3
#define BYTES_16(b) BYTES_4(b), BYTES_4((b) + 4), BYTES_4((b) + 8), BYTES_4((b) + 12)
#define BYTES_64(b) BYTES_16(b), BYTES_16((b) + 16), BYTES_16((b) + 32), BYTES_16((b) + 48)
static const unsigned char every_byte[256] = {BYTES_64(0), BYTES_64(64), BYTES_64(128),
                                              BYTES_64(192)};

/* Marks stand for no text. */
static bool is_mark(const struct kiln_tokenizer *tok, uint32_t id) {
    const struct kiln_parts *p = &tok->parts;
    if (p->spelling == KILN_SPELL_LLAMA2C) {
        return id == p->bos || id == p->eos;
    }
    return p->v.kind[id] == KILN_KIND_CONTROL || p->v.kind[id] == KILN_KIND_UNKNOWN;
}

const char *kiln_tokenizer_decode(const struct kiln_tokenizer *tok, uint32_t previous, uint32_t id,
                                  size_t *size) {
    const struct kiln_parts *p = &tok->parts;
    *size = 0;
    if (id >= p->v.n || is_mark(tok, id)) {
        return "";
    }
    const char *piece = kiln_piece(&p->v, id, size);
    bool may_be_byte = p->spelling == KILN_SPELL_LLAMA2C || p->v.kind[id] == KILN_KIND_BYTE;
    int byte = may_be_byte ? kiln_piece_byte(piece, *size) : -1;
    if (byte >= 0) {
        *size = 1;
        return (const char *)every_byte + byte;
    }
    if (p->strips_blank && previous == kiln_tokenizer_begin(tok) && *size > 0 && piece[0] == ' ') {
        (*size)--;
        return piece + 1;
    }
    return piece;
}
