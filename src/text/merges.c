/* SPDX-License-Identifier: MIT
 *
 * merges.c: which two ids merge into which, and when.
 *
 * A tokenizer.json lists its merges. In llama2.c's and SentencePiece's files any two neighbours
 * that spell a piece merge, the piece with the best score first: a piece s can come of merging
 * (a, b) exactly when s = a+b and both are pieces, so every cut of every piece is looked at once,
 * here, and the scores become ranks (equal scores, equal ranks).
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/merges.h"
#include "text/utf8.h"

/* llama2.c starts its search for the best pair from this score: no lower one is ever merged. */
#define LOWEST_SCORE (-1e10f)

/* ---- the table ---------------------------------------------------------------------------- */

static struct kiln_merge_slot *place_of(const struct kiln_merge_table *table, uint32_t left,
                                        uint32_t right) {
    size_t at = kiln_merge_hash(left, right) & (table->room - 1);
    while (table->slot[at].to.id != KILN_NO_ID &&
           (table->slot[at].left != left || table->slot[at].right != right)) {
        at = (at + 1) & (table->room - 1);
    }
    return &table->slot[at];
}

static bool grow(struct kiln_merge_table *table) {
    struct kiln_merge_table wider = {.n = table->n, .room = table->room ? table->room * 2 : 1024};
    wider.slot = kiln_alloc(wider.room, sizeof *wider.slot);
    if (wider.slot == NULL) {
        return false;
    }
    for (size_t i = 0; i < wider.room; i++) {
        wider.slot[i].to.id = KILN_NO_ID;
    }
    for (size_t i = 0; i < table->room; i++) {
        if (table->slot[i].to.id != KILN_NO_ID) {
            *place_of(&wider, table->slot[i].left, table->slot[i].right) = table->slot[i];
        }
    }
    kiln_free(table->slot);
    *table = wider;
    return true;
}

/* Of a pair put twice the later counts, as in `tokenizers`. */
static bool put(struct kiln_merge_table *table, uint32_t left, uint32_t right,
                struct kiln_merged to) {
    if (table->n * 2 >= table->room && !grow(table)) {
        return false;
    }
    struct kiln_merge_slot *slot = place_of(table, left, right);
    table->n += slot->to.id == KILN_NO_ID;
    *slot = (struct kiln_merge_slot){.left = left, .right = right, .to = to};
    return true;
}

/* ---- ranks of scores ---------------------------------------------------------------------- */

struct scored {
    float score;
    uint32_t id;
};

static int best_first(const void *a, const void *b) {
    const struct scored *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return x->id < y->id ? -1 : x->id > y->id;
}

uint32_t *kiln_score_ranks(const struct kiln_vocabulary *v) {
    struct scored *list = kiln_alloc(v->n, sizeof *list);
    uint32_t *rank = kiln_alloc(v->n, sizeof *rank);
    if (list == NULL || rank == NULL) {
        kiln_free(list);
        kiln_free(rank);
        return NULL;
    }
    for (uint32_t id = 0; id < v->n; id++) {
        list[id] = (struct scored){v->score[id], id};
    }
    qsort(list, v->n, sizeof *list, best_first);
    uint32_t last = 0;
    for (size_t i = 0; i < v->n; i++) {
        last = i > 0 && list[i].score == list[i - 1].score ? last : (uint32_t)i;
        rank[list[i].id] = last;
    }
    kiln_free(list);
    return rank;
}

/* ---- cuts --------------------------------------------------------------------------------- */

/* All ways to cut the piece of `id` into two pieces. The hash of the right part is that of the
 * whole less that of the left part, shifted by as many steps. */
bool kiln_each_cut(const struct kiln_tokenizer *tok, uint32_t id, kiln_cut_fn cut, void *context) {
    size_t size;
    const char *piece = kiln_piece(&tok->parts.v, id, &size);
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
    for (size_t at = 1; at < size; at++, power *= inverse) {
        left = kiln_hash_step(left, (unsigned char)piece[at - 1]);
        uint32_t a = kiln_tokenizer_find_hashed(tok, left, piece, at, NULL);
        if (a == KILN_NO_ID) {
            continue;
        }
        uint64_t right = whole - left * power;
        uint32_t b = kiln_tokenizer_find_hashed(tok, right, piece + at, size - at, NULL);
        if (b != KILN_NO_ID && !cut(context, a, b, id)) {
            return false;
        }
    }
    return true;
}

bool kiln_merges_scored(const struct kiln_tokenizer *tok, uint32_t id) {
    return tok->same[id] == id && tok->parts.v.kind[id] == KILN_KIND_TEXT &&
           tok->parts.v.score[id] > LOWEST_SCORE;
}

struct scoring {
    struct kiln_tokenizer *tok;
    const uint32_t *rank;
};

static bool put_cut(void *context, uint32_t left, uint32_t right, uint32_t id) {
    struct scoring *s = context;
    return put(&s->tok->merges, left, right, (struct kiln_merged){s->rank[id], id});
}

static bool index_scores(struct kiln_tokenizer *tok) {
    uint32_t *rank = kiln_score_ranks(&tok->parts.v);
    struct scoring scoring = {tok, rank};
    bool done = rank != NULL;
    for (uint32_t id = 0; done && id < tok->parts.v.n; id++) {
        done = !kiln_merges_scored(tok, id) || kiln_each_cut(tok, id, put_cut, &scoring);
    }
    kiln_free(rank);
    return done;
}

/* ---- where no merge can cross ------------------------------------------------------------- */

static uint32_t code_at(const char *text, size_t size) {
    const unsigned char *s = (const unsigned char *)text;
    uint32_t code = s[0];
    for (size_t i = 1; i < size && i < 4 && (s[i] & 0xC0) == 0x80; i++) {
        code = code << 6 ^ s[i];
    }
    return code;
}

/* Where first ids are whole characters: of an ASCII character itself, of another one of 128 shared
 * classes. Where they may be parts of characters: the byte. */
static uint8_t class_of(const struct kiln_tokenizer *tok, const char *text, size_t size) {
    if (tok->parts.spelling != KILN_SPELL_BLANKS) {
        return (uint8_t)text[0];
    }
    bool block =
        size >= 3 && memcmp(text, KILN_LOWER_BLOCK, 3) == 0; /* an added token may have it */
    uint32_t code = block ? ' ' : code_at(text, size);
    return code < 0x80 ? (uint8_t)code : (uint8_t)(0x80 | (code * UINT32_C(2654435769)) >> 25);
}

static size_t last_character(const struct kiln_tokenizer *tok, const char *piece, size_t size) {
    size_t at = size > 0 ? size - 1 : 0;
    while (tok->parts.spelling == KILN_SPELL_BLANKS && at > 0 && size - at < 4 &&
           ((unsigned char)piece[at] & 0xC0) == 0x80) {
        at--;
    }
    return at;
}

static bool index_classes(struct kiln_tokenizer *tok) {
    const struct kiln_vocabulary *v = &tok->parts.v;
    tok->first = kiln_alloc(v->n, 1);
    tok->last = kiln_alloc(v->n, 1);
    if (tok->first == NULL || tok->last == NULL) {
        return false;
    }
    for (uint32_t id = 0; id < v->n; id++) {
        size_t size;
        const char *piece = kiln_piece(v, id, &size);
        size_t last = last_character(tok, piece, size);
        tok->first[id] = size > 0 ? class_of(tok, piece, size) : 0;
        tok->last[id] = size > 0 ? class_of(tok, piece + last, size - last) : 0;
    }
    for (size_t i = 0; i < tok->merges.room; i++) {
        const struct kiln_merge_slot *slot = &tok->merges.slot[i];
        if (slot->to.id != KILN_NO_ID) {
            uint8_t b = tok->first[slot->right];
            tok->joins[tok->last[slot->left]][b >> 6] |= UINT64_C(1) << (b & 63);
        }
    }
    return true;
}

bool kiln_merges_index(struct kiln_tokenizer *tok) {
    const struct kiln_parts *parts = &tok->parts;
    if (parts->scored) {
        return index_scores(tok) && index_classes(tok);
    }
    for (size_t i = 0; i < parts->n_merges; i++) {
        const struct kiln_merge *m = &parts->merge[i];
        if (!put(&tok->merges, m->left, m->right, (struct kiln_merged){(uint32_t)i, m->id})) {
            return false;
        }
    }
    return index_classes(tok);
}
