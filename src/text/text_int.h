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

/* What an id is; the numbers are those of SentencePiece and of tokenizer.ggml.token_type. */
enum kiln_kind {
    KILN_KIND_TEXT = 1,    /* a piece of text */
    KILN_KIND_UNKNOWN = 2, /* what has no piece becomes this */
    KILN_KIND_CONTROL = 3, /* a mark, no text: begin, end; added and special */
    KILN_KIND_ADDED = 4,   /* text that is found before anything is merged: added, not special */
    KILN_KIND_UNUSED = 5,  /* a hole, or a spelling that no text can lead to */
    KILN_KIND_BYTE = 6,    /* "<0x41>", one byte */
};

/* Pieces one behind the other: piece i is pool[at[i] .. at[i+1]). Zero it to begin. They are held
 * as the text that they stand for: raw bytes where the file spells them in GPT-2's letters, blanks
 * where it has U+2581. Pieces of KILN_KIND_UNUSED and marks are held as the file has them. */
struct kiln_vocabulary {
    char *pool;
    size_t pool_room;
    size_t *at; /* n+1 of them once n > 0 */
    float *score;
    uint8_t *kind; /* enum kiln_kind */
    size_t n, room;
};
/* Append a piece; false when out of memory. */
bool kiln_vocabulary_add(struct kiln_vocabulary *v, const char *piece, size_t size, float score);
/* The same with a kind (KILN_KIND_TEXT above). */
bool kiln_vocabulary_add_kind(struct kiln_vocabulary *v, const char *piece, size_t size,
                              float score, enum kiln_kind kind);
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

/* ---- what a tokenizer is made of (parts.c) ------------------------------------------------ */

/* How text becomes the first ids, which are then merged. */
enum kiln_spelling {
    KILN_SPELL_LLAMA2C, /* llama2.c's way: characters, else ids 3 + byte; a blank put first */
    KILN_SPELL_BLANKS,  /* SentencePiece's way: characters, U+2581 for a blank, else bytes */
    KILN_SPELL_BYTES,   /* byte-level: every byte has an id */
};
/* Is a blank put before a text (before each stretch between added tokens)? */
enum kiln_prefix {
    KILN_PREFIX_NONE,
    KILN_PREFIX_ALWAYS,
    KILN_PREFIX_UNLESS_BLANK, /* not before a stretch that begins with one */
    KILN_PREFIX_FIRST,        /* the same, and only where the text begins */
    KILN_PREFIX_ONCE,         /* always, but only where the text begins */
};

/* Ids left and right become `id`. Its place in the list is its rank: the first is merged first. */
struct kiln_merge {
    uint32_t left, right, id;
};
/* A piece that is looked for in the text before anything else, as `tokenizers` does. */
struct kiln_added {
    uint32_t id;
    bool special; /* a mark: decodes to nothing */
    bool lstrip, rstrip;
    bool single_word;
    bool normalized; /* looked for behind the normalizer, not before */
};
enum kiln_rewrite_kind {
    KILN_REWRITE_NFC,
    KILN_REWRITE_NFD,
    KILN_REWRITE_NFKC,
    KILN_REWRITE_NFKD,
    KILN_REWRITE_REPLACE, /* what matches `pattern` becomes `content` */
};
/* A step of the normalizer. */
struct kiln_rewrite {
    enum kiln_rewrite_kind kind;
    char *pattern, *content; /* NULL unless REPLACE; heap */
    bool literal;            /* the pattern is text, no regular expression */
};
/* What becomes of a match that cuts a text, as in `tokenizers`. */
enum kiln_behaviour {
    KILN_CUT_REMOVED,
    KILN_CUT_ISOLATED,
    KILN_CUT_WITH_PREVIOUS,
    KILN_CUT_WITH_NEXT,
    KILN_CUT_CONTIGUOUS,
};
/* A step of the pre-tokenizer: cuts what the step before left whole. */
struct kiln_cut {
    char *pattern; /* heap */
    enum kiln_behaviour behaviour;
    bool literal; /* the pattern is text, no regular expression */
    bool invert;  /* what lies between the matches is the match */
};

/* The whole of a tokenizer but its tables. Zero it to begin (kiln_parts_init), fill it, give it to
 * kiln_tokenizer_make. */
struct kiln_parts {
    enum kiln_spelling spelling;
    struct kiln_vocabulary v;
    struct kiln_merge *merge; /* NULL and `scored`: any two neighbours that spell a piece, best
                                 score first */
    size_t n_merges, merge_room;
    bool scored;
    struct kiln_added *added;
    size_t n_added;
    struct kiln_rewrite *rewrite;
    size_t n_rewrites;
    struct kiln_cut *split;
    size_t n_splits;
    enum kiln_prefix prefix;
    bool strips_blank;               /* decoding drops the blank that begins a text */
    bool byte_fallback;              /* BLANKS: a character without a piece becomes its bytes' */
    bool fuse_unknown;               /* neighbours without pieces become one unknown id */
    bool ignore_merges;              /* a word that is a piece is that piece */
    uint32_t unknown, bos, eos, pad; /* KILN_NO_ID: none; pad is for others */
    bool adds_bos, adds_eos;         /* a text is encoded with it */
    char *config; /* tokenizer_config.json beside the tokenizer, as it was; or NULL */
};
void kiln_parts_init(struct kiln_parts *parts);
void kiln_parts_fini(struct kiln_parts *parts);
/* Append; false when out of memory. Strings are copied. */
bool kiln_parts_add_merge(struct kiln_parts *parts, uint32_t left, uint32_t right, uint32_t id);
bool kiln_parts_add_added(struct kiln_parts *parts, struct kiln_added added);
bool kiln_parts_add_rewrite(struct kiln_parts *parts, enum kiln_rewrite_kind kind,
                            const char *pattern, bool literal, const char *content);
bool kiln_parts_add_split(struct kiln_parts *parts, const char *pattern, bool literal,
                          enum kiln_behaviour behaviour, bool invert);

/* The patterns that words are cut by, each KILN_CUT_ISOLATED. */
extern const char kiln_pattern_gpt2[];   /* ByteLevel's own */
extern const char kiln_pattern_llama3[]; /* Llama-3 */
extern const char kiln_pattern_qwen2[];  /* Qwen2, Qwen3 */

/* GPT-2's letters for bytes (alphabet.c): byte to code point, code point to byte (-1: no letter) */
uint32_t kiln_letter_of_byte(unsigned char byte);
int kiln_byte_of_letter(uint32_t letter);

/* ---- tokenizer (tokenizer.c) -------------------------------------------------------------- */

/* What a pair merges into, and when. */
struct kiln_merged {
    uint32_t rank; /* the lowest first */
    uint32_t id;   /* KILN_NO_ID: nothing */
};
/* From a pair of ids to what it merges into (merges.c). Zero it to begin. */
struct kiln_merge_table {
    struct kiln_merge_slot {
        uint32_t left, right;
        struct kiln_merged to;
    } * slot;
    size_t n, room; /* room is 0 or a power of two */
};

struct kiln_regex;
struct kiln_finder;

struct kiln_tokenizer {
    struct kiln_parts parts;
    char *name;
    bool bytes;   /* the byte tokenizer */
    uint32_t crc; /* CRC-32C of tokenizer.bin, of the parts in other forms, 0 for bytes */
    size_t longest;
    uint32_t *same; /* per id: the lowest id with the same piece; NULL unless scored */
    uint32_t *slot; /* open addressing over pieces of text; KILN_NO_ID is empty */
    size_t slots;   /* a power of two */
    struct kiln_merge_table merges;
    uint32_t byte_id[256];       /* what a byte becomes that no piece covers */
    uint32_t one[256];           /* id of a one-byte character, KILN_NO_ID when it has none */
    uint8_t *first, *last;       /* per id: classes of its first and last character (merges.c) */
    uint64_t joins[256][4];      /* bit (a, b): some merge makes class b follow class a */
    struct kiln_regex **cut;     /* [n_splits] */
    struct kiln_regex **rewrite; /* [n_rewrites]; NULL where there is no pattern */
    /* added tokens looked for before and behind the normalizer; NULL when there are none */
    struct kiln_finder *early, *late;
};

/* Make a tokenizer of its parts and take them over (also on failure). KILN_EINPUT names what is
 * wrong with them: a pattern that does not compile, an id beyond the vocabulary, a byte without an
 * id where every byte needs one. */
KILN_MUST_CHECK enum kiln_status kiln_tokenizer_make(struct kiln_parts *parts, const char *name,
                                                     struct kiln_tokenizer **out,
                                                     struct kiln_err *err);
/* The same of a vocabulary in llama2.c's form. */
KILN_MUST_CHECK enum kiln_status kiln_tokenizer_build(struct kiln_vocabulary *v, const char *name,
                                                      struct kiln_tokenizer **out,
                                                      struct kiln_err *err);
/* Set `crc` to that of the tokenizer.bin that would be saved. */
KILN_MUST_CHECK enum kiln_status kiln_tokenizer_stamp(struct kiln_tokenizer *tok,
                                                      struct kiln_err *err);
/* The lowest id whose piece is exactly these bytes, KILN_NO_ID when there is none. */
uint32_t kiln_tokenizer_find(const struct kiln_tokenizer *tok, const char *bytes, size_t size);

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

/* Encodes one text after another and can stop between words, so that no list of ids has to be
 * longer than the caller likes. Opaque; one thread at a time. */
struct kiln_encoder;
/* `cache`: worth its memory for more than a few kilobytes of text. */
KILN_MUST_CHECK enum kiln_status kiln_encoder_create(const struct kiln_tokenizer *tok, bool cache,
                                                     struct kiln_encoder **out,
                                                     struct kiln_err *err);
void kiln_encoder_begin(struct kiln_encoder *e, const char *text, size_t size);
/* A text that goes on where another one ended: no blank is put before it. */
void kiln_encoder_go_on(struct kiln_encoder *e, const char *text, size_t size);
bool kiln_encoder_done(const struct kiln_encoder *e);
/* Append ids to `out` until it holds at least `enough`, or the text is done. */
KILN_MUST_CHECK enum kiln_status kiln_encoder_more(struct kiln_encoder *e, size_t enough,
                                                   struct kiln_ids *out, struct kiln_err *err);
void kiln_encoder_destroy(struct kiln_encoder *e);

/* Room for `more` further ids; false when out of memory. */
bool kiln_ids_reserve(struct kiln_ids *ids, size_t more);

/* ---- where a text may be cut (cut.c) ------------------------------------------------------- */

/* May text[0 .. size) be cut before text[at], behind a newline or before a blank that stands alone
 * between characters that are seen: no merge, added token or pattern of GPT-2, Llama-3 and Qwen2
 * reaches across? tok NULL: of tokens nothing is asked. */
bool kiln_may_cut(const struct kiln_tokenizer *tok, const char *text, size_t size, size_t at);
/* Where to cut a text that is too long, size > 0: the last such place behind a newline, else before
 * a blank. Where there is none, its end, but for a character that is not whole: then the ids around
 * the cut may be others than those of the whole. */
size_t kiln_cut(const struct kiln_tokenizer *tok, const char *text, size_t size);

/* ---- documents (documents.c) -------------------------------------------------------------- */

/* Blanks around documents and answers. */
static inline bool kiln_is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

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
