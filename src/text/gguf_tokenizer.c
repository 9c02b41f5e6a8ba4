/* SPDX-License-Identifier: MIT
 *
 * gguf_tokenizer.c: the tokenizer inside a GGUF file, with llama.cpp's keys:
 *
 *   tokenizer.ggml.model     "llama": pieces with scores, U+2581 for blanks
 *                            "gpt2": byte-level pieces with merges, cut as .pre says
 *   tokenizer.ggml.tokens, .scores, .token_type, .merges; ids of BOS, EOS, unknown and padding;
 * whether BOS and EOS are added to a text, and a blank before it
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/gguf_tokenizer.h"
#include "text/merges.h"
#include "text/normalizer.h"
#include "text/tokenizer_files.h"
#include "text/utf8.h"

#define KEY(name) "tokenizer.ggml." name

/* What llama.cpp calls the patterns that kiln knows. Llama-3 looks a word up before it merges. */
static const struct pre {
    const char *name, *pattern;
    bool ignore_merges, nfc;
} pres[] = {
    {"gpt-2", kiln_pattern_gpt2, false, false},
    {"llama-bpe", kiln_pattern_llama3, true, false},
    {"llama3", kiln_pattern_llama3, true, false},
    {"llama-v3", kiln_pattern_llama3, true, false},
    {"qwen2", kiln_pattern_qwen2, false, true},
    /* the same pattern in llama.cpp; what kiln learns has no normalizer */
    {"stablelm2", kiln_pattern_qwen2, false, false},
};

/* ---- reading ------------------------------------------------------------------------------ */

struct reader {
    const struct kiln_gguf *gguf;
    const char *name;
    struct kiln_parts parts;
    char *room; /* for one piece */
};

static bool is_string(struct kiln_gguf_string a, const char *b) {
    return a.size == strlen(b) && memcmp(a.data, b, a.size) == 0;
}

static uint32_t id_at(const struct reader *r, const char *key) {
    const struct kiln_gguf_pair *pair = kiln_gguf_find(r->gguf, key);
    int64_t id;
    bool said =
        pair != NULL && kiln_gguf_integer_at(pair, 0, &id) && id >= 0 && (size_t)id < r->parts.v.n;
    return said ? (uint32_t)id : KILN_NO_ID;
}

static bool flag_at(const struct reader *r, const char *key, bool absent) {
    bool flag = absent;
    return kiln_gguf_find(r->gguf, key) != NULL &&
                   kiln_gguf_flag(r->gguf, key, &flag, NULL) == KILN_OK
               ? flag
               : absent;
}

/* A piece as text: out of GPT-2's letters, or with blanks for U+2581; false when it cannot be. */
static bool spell(struct reader *r, struct kiln_gguf_string s, size_t *size) {
    *size = 0;
    for (size_t at = 0; at < s.size;) {
        if (r->parts.spelling == KILN_SPELL_BYTES) {
            uint32_t code = 0;
            size_t n = kiln_utf8_read(s.data + at, s.size - at, &code);
            int byte = n > 0 ? kiln_byte_of_letter(code) : -1;
            if (byte < 0) {
                return false;
            }
            r->room[(*size)++] = (char)byte;
            at += n;
        } else {
            bool block = s.size - at >= 3 && memcmp(s.data + at, KILN_LOWER_BLOCK, 3) == 0;
            r->room[(*size)++] = block ? ' ' : s.data[at];
            at += block ? 3 : 1;
        }
    }
    return true;
}

static enum kiln_status add_piece(struct reader *r, struct kiln_gguf_string s, float score,
                                  int64_t type, struct kiln_err *err) {
    struct kiln_parts *p = &r->parts;
    uint32_t id = (uint32_t)p->v.n;
    KILN_REQUIRE(type >= KILN_KIND_TEXT && type <= KILN_KIND_BYTE && !isnan(score), err,
                 KILN_EINPUT,
                 "tokenizer of %s: id %u has the type %lld and the score %g; expected 1 to 6 and "
                 "a number",
                 r->name, id, (long long)type, (double)score);
    size_t size;
    bool text = type == KILN_KIND_TEXT && spell(r, s, &size);
    enum kiln_kind kind = type == KILN_KIND_TEXT && !text ? KILN_KIND_UNUSED : (enum kiln_kind)type;
    bool done = text ? kiln_vocabulary_add_kind(&p->v, r->room, size, score, kind)
                     : kiln_vocabulary_add_kind(&p->v, s.data, s.size, score, kind);
    struct kiln_added added = {.id = id, .special = kind != KILN_KIND_ADDED};
    if (kind == KILN_KIND_CONTROL || kind == KILN_KIND_UNKNOWN || kind == KILN_KIND_ADDED) {
        done = done && kiln_parts_add_added(p, added);
    }
    KILN_REQUIRE(done, err, KILN_ENOMEM, "tokenizer of %s: out of memory", r->name);
    return KILN_OK;
}

/* The numbers of a key, as many as there are tokens; NULL when the key is absent. */
static enum kiln_status numbers_of(const struct reader *r, const char *key, size_t n, bool needed,
                                   const struct kiln_gguf_pair **out, struct kiln_err *err) {
    *out = NULL;
    if (!needed && kiln_gguf_find(r->gguf, key) == NULL) {
        return KILN_OK;
    }
    KILN_TRY(kiln_gguf_numbers(r->gguf, key, out, err));
    KILN_REQUIRE((*out)->n == n, err, KILN_EINPUT, "tokenizer of %s: %s has %zu values for %zu ids",
                 r->name, key, (*out)->n, n);
    return KILN_OK;
}

static enum kiln_status read_pieces(struct reader *r, struct kiln_err *err) {
    const struct kiln_gguf_pair *tokens, *scores, *types;
    bool scored = r->parts.spelling == KILN_SPELL_BLANKS;
    KILN_TRY(kiln_gguf_strings(r->gguf, KEY("tokens"), &tokens, err));
    KILN_REQUIRE(tokens->n <= KILN_MAX_IDS, err, KILN_EINPUT, "tokenizer of %s: %zu ids", r->name,
                 tokens->n);
    KILN_TRY(numbers_of(r, KEY("scores"), tokens->n, scored, &scores, err));
    KILN_TRY(numbers_of(r, KEY("token_type"), tokens->n, scored, &types, err));
    size_t longest = 1;
    for (size_t i = 0; i < tokens->n; i++) {
        longest = kiln_largest(longest, tokens->strings[i].size);
    }
    r->room = kiln_alloc(longest, 1);
    KILN_REQUIRE(r->room != NULL, err, KILN_ENOMEM, "tokenizer of %s: out of memory", r->name);
    for (size_t i = 0; i < tokens->n; i++) {
        int64_t type = KILN_KIND_TEXT;
        if (types != NULL && !kiln_gguf_integer_at(types, i, &type)) {
            type = -1;
        }
        float score = scored ? (float)kiln_gguf_real_at(scores, i) : 0.0f;
        KILN_TRY(add_piece(r, tokens->strings[i], score, type, err));
    }
    return KILN_OK;
}

/* From a token's spelling to its id: the tokens, sorted. */
struct named {
    struct kiln_gguf_string name;
    uint32_t id;
};

static int by_name(const void *a, const void *b) {
    const struct named *x = a, *y = b;
    size_t n = kiln_least(x->name.size, y->name.size);
    int order = n > 0 ? memcmp(x->name.data, y->name.data, n) : 0;
    return order != 0 ? order : x->name.size < y->name.size ? -1 : x->name.size > y->name.size;
}

static uint32_t find_named(const struct named *list, size_t n, struct kiln_gguf_string name) {
    struct named wanted = {name, 0};
    const struct named *found = bsearch(&wanted, list, n, sizeof *list, by_name);
    return found != NULL ? found->id : KILN_NO_ID;
}

static enum kiln_status read_merge(struct reader *r, const struct named *list, size_t n,
                                   struct kiln_gguf_string merge, size_t i,
                                   struct kiln_bytes *whole, struct kiln_err *err) {
    const char *blank = memchr(merge.data, ' ', merge.size);
    size_t left = blank != NULL ? (size_t)(blank - merge.data) : 0;
    uint32_t id[3] = {KILN_NO_ID, KILN_NO_ID, KILN_NO_ID};
    if (blank != NULL) {
        struct kiln_gguf_string a = {merge.data, left};
        struct kiln_gguf_string b = {blank + 1, merge.size - left - 1};
        whole->n = 0;
        KILN_REQUIRE(kiln_bytes_put(whole, a.data, a.size) && kiln_bytes_put(whole, b.data, b.size),
                     err, KILN_ENOMEM, "tokenizer of %s: out of memory", r->name);
        id[0] = find_named(list, n, a);
        id[1] = find_named(list, n, b);
        id[2] = find_named(list, n, (struct kiln_gguf_string){whole->data, whole->n});
    }
    KILN_REQUIRE(id[0] != KILN_NO_ID && id[1] != KILN_NO_ID && id[2] != KILN_NO_ID, err,
                 KILN_EINPUT,
                 "tokenizer of %s: merge %zu, \"%.*s\", is not two pieces that spell a third",
                 r->name, i, (int)kiln_least(merge.size, 100), merge.data);
    KILN_REQUIRE(kiln_parts_add_merge(&r->parts, id[0], id[1], id[2]), err, KILN_ENOMEM,
                 "tokenizer of %s: out of memory", r->name);
    return KILN_OK;
}

static enum kiln_status read_merges(struct reader *r, struct kiln_err *err) {
    const struct kiln_gguf_pair *merges, *tokens;
    struct kiln_bytes whole = {0};
    KILN_TRY(kiln_gguf_strings(r->gguf, KEY("merges"), &merges, err));
    KILN_TRY(kiln_gguf_strings(r->gguf, KEY("tokens"), &tokens, err));
    struct named *list = kiln_alloc(tokens->n, sizeof *list);
    KILN_REQUIRE(list != NULL, err, KILN_ENOMEM, "tokenizer of %s: out of memory", r->name);
    for (size_t i = 0; i < tokens->n; i++) {
        list[i] = (struct named){tokens->strings[i], (uint32_t)i};
    }
    qsort(list, tokens->n, sizeof *list, by_name);
    enum kiln_status status = KILN_OK;
    for (size_t i = 0; status == KILN_OK && i < merges->n; i++) {
        status = read_merge(r, list, tokens->n, merges->strings[i], i, &whole, err);
    }
    kiln_bytes_free(&whole);
    kiln_free(list);
    return status;
}

static enum kiln_status read_pre(struct reader *r, struct kiln_err *err) {
    struct kiln_gguf_string said;
    KILN_TRY(kiln_gguf_text(r->gguf, KEY("pre"), &said, err));
    for (size_t i = 0; i < sizeof pres / sizeof pres[0]; i++) {
        if (!is_string(said, pres[i].name)) {
            continue;
        }
        r->parts.ignore_merges = pres[i].ignore_merges;
        bool done =
            kiln_parts_add_split(&r->parts, pres[i].pattern, false, KILN_CUT_ISOLATED, false) &&
            (!pres[i].nfc ||
             kiln_parts_add_rewrite(&r->parts, KILN_REWRITE_NFC, NULL, false, NULL));
        KILN_REQUIRE(done, err, KILN_ENOMEM, "tokenizer of %s: out of memory", r->name);
        return KILN_OK;
    }
    return KILN_FAIL(err, KILN_EINPUT,
                     "tokenizer of %s: %s \"%.*s\" is not known to kiln, which has gpt-2, "
                     "llama-bpe and qwen2",
                     r->name, KEY("pre"), (int)kiln_least(said.size, 64), said.data);
}

static enum kiln_status read_form(struct reader *r, struct kiln_err *err) {
    struct kiln_gguf_string model;
    KILN_TRY(kiln_gguf_text(r->gguf, KEY("model"), &model, err));
    bool blanks = is_string(model, "llama");
    KILN_REQUIRE(blanks || is_string(model, "gpt2"), err, KILN_EINPUT,
                 "tokenizer of %s: %s is \"%.*s\"; kiln knows llama and gpt2", r->name,
                 KEY("model"), (int)kiln_least(model.size, 64), model.data);
    r->parts.spelling = blanks ? KILN_SPELL_BLANKS : KILN_SPELL_BYTES;
    r->parts.scored = r->parts.byte_fallback = r->parts.fuse_unknown = blanks;
    return KILN_OK;
}

static enum kiln_status read_all(struct reader *r, struct kiln_err *err) {
    struct kiln_parts *p = &r->parts;
    KILN_TRY(read_form(r, err));
    KILN_TRY(read_pieces(r, err));
    bool blanks = p->spelling == KILN_SPELL_BLANKS;
    if (!blanks) {
        KILN_TRY(read_pre(r, err));
        KILN_TRY(read_merges(r, err));
    }
    bool prefix = flag_at(r, KEY("add_space_prefix"), blanks);
    p->prefix = !prefix ? KILN_PREFIX_NONE : blanks ? KILN_PREFIX_ONCE : KILN_PREFIX_UNLESS_BLANK;
    p->strips_blank = blanks && prefix;
    p->bos = id_at(r, KEY("bos_token_id"));
    p->eos = id_at(r, KEY("eos_token_id"));
    p->unknown = id_at(r, KEY("unknown_token_id"));
    p->pad = id_at(r, KEY("padding_token_id"));
    p->adds_bos = p->bos != KILN_NO_ID &&
                  flag_at(r, KEY("add_bos_token"), blanks || p->ignore_merges /* as llama.cpp */);
    p->adds_eos = p->eos != KILN_NO_ID && flag_at(r, KEY("add_eos_token"), false);
    return KILN_OK;
}

enum kiln_status kiln_gguf_tokenizer_read(const struct kiln_gguf *gguf, const char *name,
                                          struct kiln_tokenizer **out, struct kiln_err *err) {
    struct reader r = {.gguf = gguf, .name = name};
    *out = NULL;
    kiln_parts_init(&r.parts);
    enum kiln_status status = read_all(&r, err);
    if (status == KILN_OK) {
        status = kiln_tokenizer_make(&r.parts, name, out, err);
    }
    kiln_parts_fini(&r.parts);
    kiln_free(r.room);
    return status;
}

enum kiln_status kiln_gguf_tokenizer_open(const char *path, struct kiln_tokenizer **out,
                                          struct kiln_err *err) {
    struct kiln_gguf *gguf;
    *out = NULL;
    KILN_TRY(kiln_gguf_open(path, &gguf, err));
    enum kiln_status status = kiln_gguf_tokenizer_read(gguf, path, out, err);
    kiln_gguf_close(gguf);
    return status;
}

/* ---- writing ------------------------------------------------------------------------------ */

struct writer {
    const struct kiln_tokenizer *tok;
    struct kiln_gguf_pairs *pairs;
    size_t vocab;
    struct kiln_bytes text; /* all tokens one behind the other, then all merges */
    size_t *end;            /* [vocab] where each token ends */
    struct kiln_gguf_string *string;
    float *score;
    int32_t *type;
};

/* Nothing but NFC, or nothing: what llama.cpp's names stand for. */
static bool is_normalized(const struct kiln_parts *p, bool nfc) {
    return nfc ? p->n_rewrites == 1 && p->rewrite[0].kind == KILN_REWRITE_NFC : p->n_rewrites == 0;
}

/* One of the pattern, if there is, with the normalizer. */
static const struct pre *pre_of(const struct kiln_parts *p) {
    const struct pre *found = NULL;
    for (size_t i = 0; i < sizeof pres / sizeof pres[0] && p->n_splits == 1; i++) {
        if (strcmp(pres[i].pattern, p->split[0].pattern) == 0 && !p->split[0].literal &&
            p->split[0].behaviour == KILN_CUT_ISOLATED && !p->split[0].invert) {
            found = found == NULL || !is_normalized(p, found->nfc) ? &pres[i] : found;
        }
    }
    return found;
}

/* A name stands for all three: the pattern, the normalizer, and whether a word that is a piece is
 * looked up before it is merged. */
static enum kiln_status check_pre(const struct kiln_tokenizer *tok, struct kiln_err *err) {
    const struct kiln_parts *p = &tok->parts;
    const struct pre *pre = pre_of(p);
    KILN_REQUIRE(pre != NULL, err, KILN_EUNSUPPORTED,
                 "tokenizer %s: llama.cpp has no name for the pattern that it cuts words by "
                 "(\"%.100s\"); GGUF cannot hold it",
                 tok->name, p->n_splits > 0 ? p->split[0].pattern : "none");
    KILN_REQUIRE(is_normalized(p, pre->nfc), err, KILN_EUNSUPPORTED,
                 "tokenizer %s: llama.cpp's %s, whose pattern it has, stands for %s, and its "
                 "normalizer is another; GGUF cannot hold it",
                 tok->name, pre->name, pre->nfc ? "the normalizer NFC" : "no normalizer");
    KILN_REQUIRE(p->ignore_merges == pre->ignore_merges, err, KILN_EUNSUPPORTED,
                 "tokenizer %s: llama.cpp's %s, whose pattern it has, stands for ignore_merges "
                 "%s, and its ignore_merges is %s; GGUF cannot hold it",
                 tok->name, pre->name, pre->ignore_merges ? "true" : "false",
                 p->ignore_merges ? "true" : "false");
    return KILN_OK;
}

static enum kiln_status check(const struct kiln_tokenizer *tok, size_t vocab,
                              struct kiln_err *err) {
    const struct kiln_parts *p = &tok->parts;
    bool bytes = p->spelling == KILN_SPELL_BYTES;
    KILN_TRY(kiln_tokenizer_fits(tok, vocab, err));
    if (bytes) {
        return check_pre(tok, err);
    }
    KILN_REQUIRE(p->n_rewrites == 0 && p->n_splits == 0, err, KILN_EUNSUPPORTED,
                 "tokenizer %s: its normalizer or pre-tokenizer has no place in GGUF", tok->name);
    return KILN_OK;
}

/* A piece as the file spells it. */
static bool put_spelled(struct writer *w, uint32_t id) {
    const struct kiln_parts *p = &w->tok->parts;
    static const char *const marks[] = {"<unk>", "<s>", "</s>"};
    size_t size;
    const char *piece = kiln_piece(&p->v, id, &size);
    if (p->spelling == KILN_SPELL_LLAMA2C && id < 3) {
        return kiln_bytes_put(&w->text, marks[id], strlen(marks[id]));
    }
    if (p->v.kind[id] != KILN_KIND_TEXT) {
        return kiln_bytes_put(&w->text, piece, size);
    }
    bool done = true;
    for (size_t i = 0; done && i < size; i++) {
        char letter[4];
        if (p->spelling == KILN_SPELL_BYTES) {
            size_t n = kiln_utf8_write(kiln_letter_of_byte((unsigned char)piece[i]), letter);
            done = kiln_bytes_put(&w->text, letter, n);
        } else {
            done = piece[i] == ' ' ? kiln_bytes_put(&w->text, KILN_LOWER_BLOCK, 3)
                                   : kiln_bytes_put(&w->text, piece + i, 1);
        }
    }
    return done;
}

static int32_t type_of(const struct kiln_tokenizer *tok, uint32_t id) {
    const struct kiln_parts *p = &tok->parts;
    size_t size;
    const char *piece = kiln_piece(&p->v, id, &size);
    if (p->spelling == KILN_SPELL_LLAMA2C) {
        return id == 0                             ? KILN_KIND_UNKNOWN
               : id < 3                            ? KILN_KIND_CONTROL
               : kiln_piece_byte(piece, size) >= 0 ? KILN_KIND_BYTE
                                                   : KILN_KIND_TEXT;
    }
    return p->v.kind[id];
}

/* Scores that lead to listed merges: the earlier the merge, the better its piece. */
static void score_merges(struct writer *w) {
    const struct kiln_parts *p = &w->tok->parts;
    for (size_t i = 0; i < p->v.n; i++) {
        w->score[i] = p->scored ? p->v.score[i] : 0.0f;
    }
    for (size_t i = p->n_merges; !p->scored && i-- > 0;) {
        w->score[p->merge[i].id] = -(float)i;
    }
}

static bool spell_tokens(struct writer *w) {
    const size_t n = w->tok->parts.v.n;
    for (size_t id = 0; id < w->vocab; id++) {
        char unused[32];
        bool hole = id >= n || (w->tok->parts.v.kind[id] == KILN_KIND_UNUSED &&
                                w->tok->parts.v.at[id] == w->tok->parts.v.at[id + 1]);
        int size = snprintf(unused, sizeof unused, "[PAD%zu]", id);
        if (!(hole ? kiln_bytes_put(&w->text, unused, (size_t)size)
                   : put_spelled(w, (uint32_t)id))) {
            return false;
        }
        w->end[id] = w->text.n;
        w->type[id] = hole ? KILN_KIND_UNUSED : type_of(w->tok, (uint32_t)id);
    }
    for (size_t id = 0; id < w->vocab; id++) {
        size_t start = id > 0 ? w->end[id - 1] : 0;
        w->string[id] = (struct kiln_gguf_string){w->text.data + start, w->end[id] - start};
    }
    return true;
}

static enum kiln_status put_tokens(struct writer *w, struct kiln_err *err) {
    KILN_REQUIRE(spell_tokens(w), err, KILN_ENOMEM, "tokenizer %s: out of memory", w->tok->name);
    KILN_TRY(kiln_gguf_put_strings(w->pairs, KEY("tokens"), w->string, w->vocab, err));
    if (w->tok->parts.spelling != KILN_SPELL_BYTES) {
        score_merges(w);
        KILN_TRY(
            kiln_gguf_put_numbers(w->pairs, KEY("scores"), KILN_GGUF_F32, w->score, w->vocab, err));
    }
    return kiln_gguf_put_numbers(w->pairs, KEY("token_type"), KILN_GGUF_I32, w->type, w->vocab,
                                 err);
}

static bool spell_merges(struct writer *w, size_t *end) {
    const struct kiln_parts *p = &w->tok->parts;
    w->text.n = 0;
    for (size_t i = 0; i < p->n_merges; i++) {
        if (!put_spelled(w, p->merge[i].left) || !kiln_bytes_put(&w->text, " ", 1) ||
            !put_spelled(w, p->merge[i].right)) {
            return false;
        }
        end[i] = w->text.n;
    }
    return true;
}

static enum kiln_status put_merges(struct writer *w, struct kiln_err *err) {
    size_t n = w->tok->parts.n_merges;
    size_t *end = kiln_alloc(n, sizeof *end);
    struct kiln_gguf_string *merge = kiln_alloc(n, sizeof *merge);
    enum kiln_status status = KILN_OK;
    if (end == NULL || merge == NULL || !spell_merges(w, end)) {
        status = KILN_FAIL(err, KILN_ENOMEM, "tokenizer %s: out of memory", w->tok->name);
    } else {
        for (size_t i = 0; i < n; i++) {
            size_t start = i > 0 ? end[i - 1] : 0;
            merge[i] = (struct kiln_gguf_string){w->text.data + start, end[i] - start};
        }
        status = kiln_gguf_put_strings(w->pairs, KEY("merges"), merge, n, err);
    }
    kiln_free(end);
    kiln_free(merge);
    return status;
}

static enum kiln_status put_id(struct writer *w, const char *key, uint32_t id,
                               struct kiln_err *err) {
    return id == KILN_NO_ID ? KILN_OK : kiln_gguf_put_u32(w->pairs, key, id, err);
}

static enum kiln_status put_all(struct writer *w, struct kiln_err *err) {
    const struct kiln_parts *p = &w->tok->parts;
    bool bytes = p->spelling == KILN_SPELL_BYTES;
    KILN_TRY(kiln_gguf_put_text(w->pairs, KEY("model"), bytes ? "gpt2" : "llama", err));
    if (bytes) {
        KILN_TRY(kiln_gguf_put_text(w->pairs, KEY("pre"), pre_of(p)->name, err));
    }
    KILN_TRY(put_tokens(w, err));
    if (bytes) {
        KILN_TRY(put_merges(w, err));
    }
    KILN_TRY(put_id(w, KEY("bos_token_id"), p->bos, err));
    KILN_TRY(put_id(w, KEY("eos_token_id"), p->eos, err));
    KILN_TRY(put_id(w, KEY("unknown_token_id"), p->unknown, err));
    KILN_TRY(put_id(w, KEY("padding_token_id"), p->pad, err));
    KILN_TRY(kiln_gguf_put_bool(w->pairs, KEY("add_bos_token"), p->adds_bos, err));
    KILN_TRY(kiln_gguf_put_bool(w->pairs, KEY("add_eos_token"), p->adds_eos, err));
    return kiln_gguf_put_bool(w->pairs, KEY("add_space_prefix"), p->prefix != KILN_PREFIX_NONE,
                              err);
}

enum kiln_status kiln_gguf_tokenizer_put(const struct kiln_tokenizer *tok, size_t vocab,
                                         struct kiln_gguf_pairs *pairs, struct kiln_err *err) {
    KILN_TRY(check(tok, vocab, err));
    struct writer w = {.tok = tok, .pairs = pairs, .vocab = vocab};
    w.end = kiln_alloc(vocab, sizeof *w.end);
    w.string = kiln_alloc(vocab, sizeof *w.string);
    w.score = kiln_alloc(vocab, sizeof *w.score);
    w.type = kiln_alloc(vocab, sizeof *w.type);
    enum kiln_status status =
        w.end != NULL && w.string != NULL && w.score != NULL && w.type != NULL
            ? put_all(&w, err)
            : KILN_FAIL(err, KILN_ENOMEM, "tokenizer %s: out of memory", tok->name);
    kiln_bytes_free(&w.text);
    kiln_free(w.end);
    kiln_free(w.string);
    kiln_free(w.score);
    kiln_free(w.type);
    return status;
}
