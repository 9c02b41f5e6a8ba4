/* SPDX-License-Identifier: MIT
 *
 * encode.c: text to ids.
 *
 *   text --added tokens, bytes that are no UTF-8--> stretches --normalizer, added tokens--> runs
 *        --pre-tokenizer--> pieces --where no merge can cross--> words --merges--> ids
 *
 * Every stage is asked for its next part when the one behind it has used the last one up. The
 * result is that of merging a piece as a whole: a word ends only where no merge can cross
 * (merges.h). Words met before are remembered.
 */
#include <string.h>

#include "base/mem.h"
#include "text/added.h"
#include "text/merges.h"
#include "text/normalizer.h"
#include "text/splits.h"
#include "text/text_int.h"
#include "text/utf8.h"

enum {
    CACHE_SLOTS = 16384,
    CACHE_BYTES = 27,
    CACHE_IDS = 9,
    CACHE_TEXT = 4096, /* a shorter text is encoded faster without */
};

/* 64 bytes: a cache line. */
struct cached {
    uint8_t size, n;
    char text[CACHE_BYTES - 1];
    uint32_t id[CACHE_IDS];
};
_Static_assert(sizeof(struct cached) == 64, "a cached word fills a cache line");

/* What is left of a part: text[at .. size). */
struct part {
    const char *text;
    size_t at, size;
};
static bool is_left(const struct part *part) { return part->at < part->size; }

struct kiln_encoder {
    const struct kiln_tokenizer *tok;
    struct part text, stretch, piece;
    const char *run;         /* pieces are cut from it */
    size_t bad;              /* the next byte of the text that is not UTF-8 */
    struct kiln_found early; /* the next added token of the text */
    struct kiln_found late;  /* and of the stretch */
    bool opening;            /* nothing of the text has been read */
    bool behind_bad;         /* the stretch goes on behind a byte that is not UTF-8 */
    bool stretch_opens;      /* the stretch is the beginning of the text */
    bool blank;              /* a blank is still to be put before the piece */
    bool done;
    struct kiln_normalizer normalizer;
    struct kiln_splits splits;
    struct kiln_word_merger merger;
    struct kiln_bytes prefixed; /* a run with the blank before it */
    struct kiln_ids word;       /* the word at hand */
    struct cached *cache;       /* words met before; NULL for none */
};

bool kiln_ids_reserve(struct kiln_ids *ids, size_t more) {
    if (more <= ids->room - ids->n) {
        return true;
    }
    size_t room = ids->room > 0 ? ids->room : 64;
    while (room - ids->n < more) {
        if (kiln_mul_overflows(room, 2, &room)) {
            return false;
        }
    }
    uint32_t *id = kiln_realloc(ids->id, ids->n, room, sizeof *id);
    if (id == NULL) {
        return false;
    }
    ids->id = id;
    ids->room = room;
    return true;
}

void kiln_ids_free(struct kiln_ids *ids) {
    kiln_free(ids->id);
    *ids = (struct kiln_ids){0};
}

static bool put_ids(struct kiln_ids *out, const uint32_t *id, size_t n) {
    if (n == 0) {
        return true; /* there may be no room yet, which memcpy minds */
    }
    if (!kiln_ids_reserve(out, n)) {
        return false;
    }
    if (n > 0) { /* no memory may have been asked for yet */
        memcpy(out->id + out->n, id, n * sizeof *id);
    }
    out->n += n;
    return true;
}

/* ---- first ids ---------------------------------------------------------------------------- */

/* Append what text without a piece becomes: the unknown id, if there is one. */
static void put_unknown(const struct kiln_parts *p, struct kiln_ids *word) {
    bool fused = p->fuse_unknown && word->n > 0 && word->id[word->n - 1] == p->unknown;
    if (p->unknown != KILN_NO_ID && !fused) {
        word->id[word->n++] = p->unknown;
    }
}

static void put_bytes(const struct kiln_tokenizer *tok, const char *text, size_t size,
                      struct kiln_ids *word) {
    bool all = tok->parts.byte_fallback;
    for (size_t i = 0; all && i < size; i++) {
        all = tok->byte_id[(unsigned char)text[i]] != KILN_NO_ID;
    }
    for (size_t i = 0; all && i < size; i++) {
        word->id[word->n++] = tok->byte_id[(unsigned char)text[i]];
    }
    if (!all) {
        put_unknown(&tok->parts, word);
    }
}

/* Append the ids of one character before any merge; there is room for 4. */
static void put_character(const struct kiln_tokenizer *tok, const char *text, size_t size,
                          struct kiln_ids *word) {
    uint32_t whole =
        size == 1 ? tok->one[(unsigned char)text[0]] : kiln_tokenizer_find(tok, text, size);
    if (whole != KILN_NO_ID) {
        word->id[word->n++] = whole;
    } else {
        put_bytes(tok, text, size, word);
    }
}

/* ---- words -------------------------------------------------------------------------------- */

static struct cached *cached_slot(struct kiln_encoder *e, const char *text, size_t size) {
    if (e->cache == NULL || size >= CACHE_BYTES) {
        return NULL;
    }
    return &e->cache[kiln_hash_spread(kiln_hash_bytes(text, size)) & (CACHE_SLOTS - 1)];
}

static bool holds(const struct cached *slot, const char *text, size_t size) {
    return slot->size == size && memcmp(slot->text, text, size) == 0;
}

static void remember(struct cached *slot, const char *text, size_t size,
                     const struct kiln_ids *word) {
    if (slot != NULL && word->n <= CACHE_IDS) {
        slot->size = (uint8_t)size;
        slot->n = (uint8_t)word->n;
        memcpy(slot->text, text, size);
        memcpy(slot->id, word->id, word->n * sizeof *word->id);
    }
}

/* Merge e->word, which has this text, unless that was done before, and hand it out. */
static bool merge_and_put(struct kiln_encoder *e, struct cached *slot, const char *text,
                          size_t size, struct kiln_ids *out) {
    if (!kiln_merge_word(&e->merger, e->word.id, &e->word.n)) {
        return false;
    }
    remember(slot, text, size, &e->word);
    return put_ids(out, e->word.id, e->word.n);
}

/* Byte-level: a piece is one word, and its first ids are those of its bytes. */
static bool put_byte_word(struct kiln_encoder *e, const char *text, size_t size,
                          struct kiln_ids *out) {
    struct cached *slot = cached_slot(e, text, size);
    if (slot != NULL && holds(slot, text, size)) {
        return put_ids(out, slot->id, slot->n);
    }
    struct kiln_ids *word = &e->word;
    word->n = 0;
    if (!kiln_ids_reserve(word, size)) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        uint32_t id = e->tok->one[(unsigned char)text[i]];
        if (id != KILN_NO_ID) {
            word->id[word->n++] = id;
        } else {
            put_unknown(&e->tok->parts, word);
        }
    }
    return merge_and_put(e, slot, text, size, out);
}

/* May a word end before the ids from `from` on? */
static bool may_end(const struct kiln_encoder *e, size_t from) {
    const uint32_t *id = e->word.id + from;
    return !kiln_joins(e->tok, id[-1], id[0]) &&
           !(e->tok->parts.fuse_unknown && id[-1] == e->tok->parts.unknown);
}

/* Take the next word off the piece into e->word: characters up to a place no merge crosses. */
static bool take_word(struct kiln_encoder *e) {
    struct part *p = &e->piece;
    e->word.n = 0;
    if (!kiln_ids_reserve(&e->word, 4)) {
        return false;
    }
    if (e->blank) {
        put_character(e->tok, " ", 1, &e->word);
        e->blank = false;
    }
    while (is_left(p)) {
        size_t size = kiln_character(p->text + p->at, p->size - p->at);
        if (!kiln_ids_reserve(&e->word, 4)) {
            return false;
        }
        size_t before = e->word.n;
        put_character(e->tok, p->text + p->at, size, &e->word);
        if (before > 0 && e->word.n > before && may_end(e, before)) {
            e->word.n = before;
            break;
        }
        p->at += size;
    }
    return true;
}

static bool put_word(struct kiln_encoder *e, struct kiln_ids *out) {
    size_t start = e->piece.at;
    bool prefixed = e->blank;
    if (!take_word(e)) {
        return false;
    }
    const char *text = e->piece.text + start;
    size_t size = e->piece.at - start;
    if (e->word.n < 2) {
        return put_ids(out, e->word.id, e->word.n);
    }
    struct cached *slot = prefixed ? NULL : cached_slot(e, text, size);
    if (slot != NULL && holds(slot, text, size)) {
        return put_ids(out, slot->id, slot->n);
    }
    return merge_and_put(e, slot, text, size, out);
}

/* A piece that is a whole id, where the tokenizer asks for that first. */
static bool is_whole(struct kiln_encoder *e, struct kiln_ids *out) {
    struct part *p = &e->piece;
    if (!e->tok->parts.ignore_merges || e->blank || p->size - p->at > e->tok->longest) {
        return false;
    }
    uint32_t id = kiln_tokenizer_find(e->tok, p->text + p->at, p->size - p->at);
    if (id == KILN_NO_ID || !put_ids(out, &id, 1)) {
        return false;
    }
    p->at = p->size;
    return true;
}

static bool put_piece(struct kiln_encoder *e, struct kiln_ids *out) {
    struct part *p = &e->piece;
    if (e->tok->parts.spelling == KILN_SPELL_BYTES) {
        size_t start = p->at;
        p->at = p->size;
        return put_byte_word(e, p->text + start, p->size - start, out);
    }
    return put_word(e, out);
}

/* ---- stretches and runs ------------------------------------------------------------------- */

/* Is a blank put before a text that is cut by patterns, or looked through, it has to be there. */
static bool prefix_is_written(const struct kiln_tokenizer *tok) {
    return tok->parts.n_splits > 0 || tok->late != NULL || tok->parts.n_rewrites > 0 ||
           tok->parts.spelling == KILN_SPELL_BYTES;
}

/* Begin with text[0 .. size) as the run. */
static enum kiln_status begin_run(struct kiln_encoder *e, const char *text, size_t size, bool opens,
                                  struct kiln_err *err) {
    enum kiln_prefix rule = e->tok->parts.prefix;
    bool prefix = (rule == KILN_PREFIX_UNLESS_BLANK || (rule == KILN_PREFIX_FIRST && opens)) &&
                  text[0] != ' ' && !e->behind_bad;
    e->run = text;
    if (prefix) {
        e->prefixed.n = 0;
        KILN_REQUIRE(
            kiln_bytes_put(&e->prefixed, " ", 1) && kiln_bytes_put(&e->prefixed, text, size), err,
            KILN_ENOMEM, "encode: out of memory");
        e->run = e->prefixed.data;
        size = e->prefixed.n;
    }
    kiln_splits_begin(&e->splits, e->run, size);
    return KILN_OK;
}

/* The next added token of the stretch, or the run before it. */
static enum kiln_status next_run(struct kiln_encoder *e, struct kiln_ids *out,
                                 struct kiln_err *err) {
    struct part *s = &e->stretch;
    if (e->late.start > s->at || e->late.id == KILN_NO_ID) {
        size_t start = s->at;
        s->at = e->late.start;
        return begin_run(e, s->text + start, s->at - start, e->stretch_opens && start == 0, err);
    }
    KILN_REQUIRE(put_ids(out, &e->late.id, 1), err, KILN_ENOMEM, "encode: out of memory");
    s->at = e->late.stop;
    e->late = kiln_finder_next(e->tok->late, s->text, s->size, e->late.next, s->at);
    return KILN_OK;
}

/* The stretch of the text up to `stop`. */
static enum kiln_status begin_stretch(struct kiln_encoder *e, size_t stop, struct kiln_err *err) {
    struct part *t = &e->text;
    enum kiln_prefix rule = e->tok->parts.prefix;
    bool prefix =
        (rule == KILN_PREFIX_ALWAYS && !e->behind_bad) || (rule == KILN_PREFIX_ONCE && e->opening);
    bool written = prefix && prefix_is_written(e->tok);
    struct part *s = &e->stretch;
    e->stretch_opens = t->at == 0;
    s->at = 0;
    KILN_TRY(kiln_normalize(&e->normalizer, t->text + t->at, stop - t->at, written, &s->text,
                            &s->size, err));
    e->blank = prefix && !written;
    t->at = stop;
    e->late = kiln_finder_next(e->tok->late, s->text, s->size, 0, 0);
    return KILN_OK;
}

/* A mark in the text, before which SentencePiece too puts its blank. */
static enum kiln_status put_early(struct kiln_encoder *e, struct kiln_ids *out,
                                  struct kiln_err *err) {
    bool blank = e->opening && e->tok->parts.prefix == KILN_PREFIX_ONCE;
    e->word.n = 0;
    if (blank) {
        put_character(e->tok, " ", 1, &e->word);
    }
    KILN_REQUIRE(put_ids(out, e->word.id, e->word.n) && put_ids(out, &e->early.id, 1), err,
                 KILN_ENOMEM, "encode: out of memory");
    e->text.at = e->early.stop;
    e->early =
        kiln_finder_next(e->tok->early, e->text.text, e->text.size, e->early.next, e->text.at);
    e->behind_bad = false;
    return KILN_OK;
}

/* A byte that is not UTF-8 stands alone. */
static enum kiln_status put_bad(struct kiln_encoder *e, struct kiln_ids *out,
                                struct kiln_err *err) {
    const char *at = e->text.text + e->text.at;
    e->word.n = 0;
    if (e->tok->parts.spelling == KILN_SPELL_BYTES &&
        e->tok->one[(unsigned char)*at] != KILN_NO_ID) {
        e->word.id[e->word.n++] = e->tok->one[(unsigned char)*at];
    } else {
        put_bytes(e->tok, at, 1, &e->word);
    }
    KILN_REQUIRE(put_ids(out, e->word.id, e->word.n), err, KILN_ENOMEM, "encode: out of memory");
    e->text.at++;
    e->bad = kiln_utf8_bad_at(e->text.text, e->text.size, e->text.at);
    e->behind_bad = true;
    return KILN_OK;
}

/* The next added token, bad byte or stretch of the text. */
static enum kiln_status next_stretch(struct kiln_encoder *e, struct kiln_ids *out,
                                     struct kiln_err *err) {
    size_t stop = kiln_least(e->bad, e->early.start);
    enum kiln_status status;
    if (stop > e->text.at) {
        status = begin_stretch(e, stop, err);
    } else if (e->early.id != KILN_NO_ID && e->early.start <= e->text.at) {
        status = put_early(e, out, err);
    } else {
        status = put_bad(e, out, err);
    }
    e->opening = false;
    return status;
}

/* Some ids more, or a stage further. */
static enum kiln_status step(struct kiln_encoder *e, struct kiln_ids *out, struct kiln_err *err) {
    size_t start, stop;
    if (is_left(&e->piece)) {
        KILN_REQUIRE(put_piece(e, out), err, KILN_ENOMEM,
                     "encode: out of memory at byte %zu of %zu", e->text.at, e->text.size);
        return KILN_OK;
    }
    if (e->run != NULL && kiln_splits_next(&e->splits, &start, &stop)) {
        e->piece = (struct part){e->run, start, stop};
        (void)is_whole(e, out);
        return KILN_OK;
    }
    KILN_REQUIRE(e->run == NULL || !e->splits.failed, err, KILN_EINPUT,
                 "encode: a pattern of %s does not come to an end in the text before byte %zu",
                 e->tok->name, e->text.at);
    e->run = NULL;
    if (is_left(&e->stretch)) {
        return next_run(e, out, err);
    }
    if (is_left(&e->text)) {
        return next_stretch(e, out, err);
    }
    e->done = true;
    return KILN_OK;
}

/* ---- the encoder -------------------------------------------------------------------------- */

enum kiln_status kiln_encoder_create(const struct kiln_tokenizer *tok, bool cache,
                                     struct kiln_encoder **out, struct kiln_err *err) {
    struct kiln_encoder *e = kiln_alloc(1, sizeof *e);
    *out = NULL;
    KILN_REQUIRE(e != NULL, err, KILN_ENOMEM, "encode: out of memory");
    e->tok = e->merger.tok = tok;
    e->done = true;
    e->cache = cache ? kiln_alloc(CACHE_SLOTS, sizeof *e->cache) : NULL;
    enum kiln_status status = KILN_OK;
    if ((cache && e->cache == NULL) || !kiln_ids_reserve(&e->word, 64)) {
        status = KILN_FAIL(err, KILN_ENOMEM, "encode: out of memory");
    }
    if (status == KILN_OK) {
        status = kiln_normalizer_open(&e->normalizer, tok, err);
    }
    if (status == KILN_OK) {
        status = kiln_splits_open(&e->splits, tok, err);
    }
    if (status != KILN_OK) {
        kiln_encoder_destroy(e);
        return status;
    }
    *out = e;
    return KILN_OK;
}

void kiln_encoder_begin(struct kiln_encoder *e, const char *text, size_t size) {
    bool any_bytes = e->tok->parts.spelling == KILN_SPELL_LLAMA2C;
    e->text = (struct part){text, 0, size};
    e->stretch = e->piece = (struct part){0};
    e->run = NULL;
    e->bad = any_bytes ? size : kiln_utf8_bad_at(text, size, 0);
    e->early = kiln_finder_next(e->tok->early, text, size, 0, 0);
    e->opening = true;
    e->behind_bad = false;
    e->blank = false;
    e->done = size == 0;
}

/* As behind a byte that is not UTF-8. */
void kiln_encoder_go_on(struct kiln_encoder *e, const char *text, size_t size) {
    kiln_encoder_begin(e, text, size);
    e->opening = false;
    e->behind_bad = true;
}

bool kiln_encoder_done(const struct kiln_encoder *e) { return e->done; }

enum kiln_status kiln_encoder_more(struct kiln_encoder *e, size_t enough, struct kiln_ids *out,
                                   struct kiln_err *err) {
    while (!e->done && out->n < enough) {
        KILN_TRY(step(e, out, err));
    }
    return KILN_OK;
}

void kiln_encoder_destroy(struct kiln_encoder *e) {
    if (e == NULL) {
        return;
    }
    kiln_normalizer_close(&e->normalizer);
    kiln_splits_close(&e->splits);
    kiln_word_merger_fini(&e->merger);
    kiln_bytes_free(&e->prefixed);
    kiln_ids_free(&e->word);
    kiln_free(e->cache);
    kiln_free(e);
}

enum kiln_status kiln_tokenizer_encode(const struct kiln_tokenizer *tok, const char *text,
                                       size_t size, bool bos, struct kiln_ids *out,
                                       struct kiln_err *err) {
    struct kiln_encoder *e;
    const uint32_t begin = kiln_tokenizer_begin(tok);
    KILN_TRY(kiln_encoder_create(tok, size >= CACHE_TEXT, &e, err));
    enum kiln_status status = KILN_OK;
    if (bos && begin != KILN_NO_ID && !put_ids(out, &begin, 1)) {
        status = KILN_FAIL(err, KILN_ENOMEM, "encode: out of memory");
    }
    kiln_encoder_begin(e, text, size);
    if (status == KILN_OK) {
        status = kiln_encoder_more(e, SIZE_MAX, out, err);
    }
    kiln_encoder_destroy(e);
    return status;
}
