/* SPDX-License-Identifier: MIT
 *
 * text_int.h: what the files of src/text share.
 *
 *   vocabulary (pieces and scores) --build--> tokenizer (with its tables) --> encoder
 *   text --documents--> one document at a time --encoder--> ids
 */
#ifndef KILN_TEXT_INT_H
#define KILN_TEXT_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"
#include "kiln/text.h"

#define KILN_ENDOFTEXT "<|endoftext|>"

enum {
    KILN_ID_UNKNOWN = 0,
    KILN_ID_BOS = 1,
    KILN_ID_EOS = 2,
    KILN_ID_BYTES = 3, /* <0x00>; 256 of them */
    KILN_ID_LEARNED = KILN_ID_BYTES + 256,
};
#define KILN_NO_ID   UINT32_MAX
#define KILN_MAX_IDS ((size_t)1 << 24) /* scores are floats: exact ranks up to here */

/* ---- hashes (hash.c) ---------------------------------------------------------------------- */

/* A polynomial hash, so that the hash of a suffix follows from those of two prefixes. */
#define KILN_HASH_BASE UINT64_C(0x9E3779B97F4A7C15)
static inline uint64_t kiln_hash_step(uint64_t hash, unsigned char byte) {
    return hash * KILN_HASH_BASE + byte + 1;
}
uint64_t kiln_hash_bytes(const char *bytes, size_t size);
/* Spread a hash over all its bits before it is cut to a table's size. */
static inline uint64_t kiln_hash_spread(uint64_t hash) {
    hash ^= hash >> 32;
    hash *= UINT64_C(0xD6E8FEB86659FD93);
    return hash ^ hash >> 32;
}

/* From a pair of ids to one number. Zero it to begin. Full of KILN_NO_ID where nothing was put. */
struct kiln_pairs {
    uint64_t *key;
    uint32_t *value;
    size_t n, room; /* room is 0 or a power of two */
};
/* The value of (left, right), KILN_NO_ID when there is none. */
uint32_t kiln_pairs_get(const struct kiln_pairs *pairs, uint32_t left, uint32_t right);
/* Put a pair that is not there yet; false when out of memory. */
bool kiln_pairs_put(struct kiln_pairs *pairs, uint32_t left, uint32_t right, uint32_t value);
void kiln_pairs_fini(struct kiln_pairs *pairs);

/* ---- vocabulary (vocabulary.c) ------------------------------------------------------------ */

/* Pieces one behind the other: piece i is pool[at[i] .. at[i+1]). Zero it to begin. */
struct kiln_vocabulary {
    char *pool;
    size_t pool_room;
    size_t *at; /* n+1 of them once n > 0 */
    float *score;
    size_t n, room;
};
/* Append a piece; false when out of memory. */
bool kiln_vocabulary_add(struct kiln_vocabulary *v, const char *piece, size_t size, float score);
/* Append ids 0, 1, 2 as llama2.c names them. */
bool kiln_vocabulary_add_controls(struct kiln_vocabulary *v);
void kiln_vocabulary_fini(struct kiln_vocabulary *v);

static inline const char *kiln_piece(const struct kiln_vocabulary *v, uint32_t id, size_t *size) {
    *size = v->at[id + 1] - v->at[id];
    return v->pool + v->at[id];
}
/* The byte that a piece "<0x41>" stands for, -1 when it is no such piece. */
int kiln_piece_byte(const char *piece, size_t size);
/* Write "<0x41>" (six characters and a zero). */
void kiln_byte_piece(unsigned char byte, char out[7]);

/* ---- tokenizer (tokenizer.c) -------------------------------------------------------------- */

struct kiln_tokenizer {
    struct kiln_vocabulary v;
    char *name;
    bool bytes;   /* the byte tokenizer */
    uint32_t crc; /* CRC-32C of tokenizer.bin, 0 for bytes */
    size_t longest;
    uint32_t *same;           /* per id: the lowest id with the same piece; lookups give that one */
    uint32_t *slot;           /* open addressing over pieces; KILN_NO_ID is empty */
    size_t slots;             /* a power of two */
    struct kiln_pairs merges; /* (same[a], same[b]) -> id of a+b, where there is one */
    uint32_t byte_id[256];    /* what a byte becomes that no piece covers */
    uint32_t one[256];        /* id of a one-byte character, KILN_NO_ID when it has none */
    uint64_t joins[256][4];   /* bit (a, b): some merge makes byte b follow byte a */
};

/* Make a tokenizer of a vocabulary and take that over (also on failure). */
KILN_MUST_CHECK enum kiln_status kiln_tokenizer_build(struct kiln_vocabulary *v, const char *name,
                                                      struct kiln_tokenizer **out,
                                                      struct kiln_err *err);
/* Set `crc` to that of the file that would be saved. */
KILN_MUST_CHECK enum kiln_status kiln_tokenizer_stamp(struct kiln_tokenizer *tok,
                                                      struct kiln_err *err);
/* The lowest id whose piece is exactly these bytes, KILN_NO_ID when there is none. */
uint32_t kiln_tokenizer_find(const struct kiln_tokenizer *tok, const char *bytes, size_t size);

static inline bool kiln_tokenizer_joins(const struct kiln_tokenizer *tok, unsigned char a,
                                        unsigned char b) {
    return tok->joins[a][b >> 6] >> (b & 63) & 1;
}

/* Length of the next character as llama2.c cuts them: a byte and up to three continuation bytes.
 * size > 0. */
static inline size_t kiln_character(const char *text, size_t size) {
    size_t n = 1;
    while (n < size && n < 4 && ((unsigned char)text[n] & 0xC0) == 0x80) {
        n++;
    }
    return n;
}

/* ---- encoder (encode.c) ------------------------------------------------------------------- */

struct kiln_cached;
struct kiln_heap_entry;

/* Encodes one text after another and can stop between words, so that no list of ids has to be
 * longer than the caller likes. One thread at a time. */
struct kiln_encoder {
    const struct kiln_tokenizer *tok;
    const char *text;
    size_t size, pos;
    bool prefix;               /* the blank before the text is still to be encoded */
    struct kiln_ids word;      /* the word at hand */
    struct kiln_cached *cache; /* words met before; NULL for none */
    struct kiln_heap_entry *heap;
    size_t heap_room;
    size_t *link; /* previous and next of each symbol of a long word */
    size_t link_room;
};
/* `cache`: worth its memory for more than a few kilobytes of text. */
KILN_MUST_CHECK enum kiln_status kiln_encoder_init(struct kiln_encoder *e,
                                                   const struct kiln_tokenizer *tok, bool cache,
                                                   struct kiln_err *err);
void kiln_encoder_begin(struct kiln_encoder *e, const char *text, size_t size);
/* A text that goes on where another one ended: no blank is put before it. */
static inline void kiln_encoder_go_on(struct kiln_encoder *e, const char *text, size_t size) {
    kiln_encoder_begin(e, text, size);
    e->prefix = false;
}
/* May a text be cut between a newline and the letter behind it: is there no token across? */
static inline bool kiln_encoder_may_cut(const struct kiln_tokenizer *tok, char newline,
                                        char letter) {
    return !kiln_tokenizer_joins(tok, (unsigned char)newline, (unsigned char)letter);
}
static inline bool kiln_encoder_done(const struct kiln_encoder *e) { return e->pos == e->size; }
/* Append ids to `out` until it holds at least `enough`, or the text is done. */
KILN_MUST_CHECK enum kiln_status kiln_encoder_more(struct kiln_encoder *e, size_t enough,
                                                   struct kiln_ids *out, struct kiln_err *err);
void kiln_encoder_fini(struct kiln_encoder *e);

/* Room for `more` further ids; false when out of memory. */
bool kiln_ids_reserve(struct kiln_ids *ids, size_t more);

/* ---- documents (documents.c) -------------------------------------------------------------- */

/* Walks the documents of a text: cut at every separator, blanks around them dropped, empty ones
 * skipped. */
struct kiln_documents {
    const char *text;
    size_t size, pos;
    const char *separator; /* NULL or empty: none */
    bool blank_lines;      /* an empty line separates too */
    size_t chunk_end;      /* of the text up to the next separator */
};
void kiln_documents_init(struct kiln_documents *it, const char *text, size_t size,
                         const char *separator, bool blank_lines);
bool kiln_documents_next(struct kiln_documents *it, const char **document, size_t *size);

/* ---- token files (token_file.c) ----------------------------------------------------------- */

enum { KILN_TOKEN_HEADER = 64 };

struct kiln_token_header {
    uint32_t width; /* bytes an id */
    uint32_t vocab;
    uint64_t count;
    uint32_t bos;
    uint64_t text_size;
    uint32_t text_crc;
    uint32_t vocabulary_crc;
    uint32_t flags; /* enum kiln_token_flag */
    uint32_t bitmaps_crc;
};
enum kiln_token_flag { KILN_TOKENS_BLANK_LINES = 1, KILN_TOKENS_BITMAPS = 2 };
/* Bytes of a bitmap of so many ids, and of the zeros in front of both. */
static inline uint64_t kiln_bitmap_bytes(uint64_t count) { return (count + 63) / 64 * 8; }
static inline uint64_t kiln_bitmap_gap(const struct kiln_token_header *h) {
    return (8 - h->count * h->width % 8) % 8;
}
void kiln_token_header_write(const struct kiln_token_header *h,
                             unsigned char out[KILN_TOKEN_HEADER]);

/* Are there ids that do not count? */
bool kiln_token_file_masked(const struct kiln_token_file *file);
const char *kiln_token_file_path(const struct kiln_token_file *file);
uint32_t kiln_token_file_bos(const struct kiln_token_file *file);
/* Copy ids at .. at+n-1. */
void kiln_token_file_copy(const struct kiln_token_file *file, size_t at, size_t n, uint32_t *out);
const struct kiln_token_header *kiln_token_file_header(const struct kiln_token_file *file);

#endif
