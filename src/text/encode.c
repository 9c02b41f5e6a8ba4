/* SPDX-License-Identifier: MIT
 *
 * encode.c: text to ids, the same ids as llama2.c's encode.
 *
 * llama2.c looks every character up, falls back to bytes, and then merges the neighbours with the
 * best score, the first of equals, until nothing merges. Here the text is first cut into words at
 * places that no merge can cross (tokenizer.c), which leaves the result as it is; a short word is
 * merged by scanning, a long one with a heap in O(n log n); words met before are remembered.
 */
#include <string.h>

#include "base/mem.h"
#include "text/text_int.h"

enum {
    SHORT_WORD = 40, /* symbols; above, the heap wins */
    CACHE_SLOTS = 16384,
    CACHE_BYTES = 27,
    CACHE_IDS = 9,
    CACHE_TEXT = 4096, /* a shorter text is encoded faster without */
};

/* 64 bytes: a cache line. */
struct kiln_cached {
    uint8_t size, n;
    char text[CACHE_BYTES - 1];
    uint32_t id[CACHE_IDS];
};
_Static_assert(sizeof(struct kiln_cached) == 64, "a cached word fills a cache line");

/* A pair that can be merged: symbols `left` and the one behind it, while they are still these. */
struct kiln_heap_entry {
    float score;
    uint32_t left_id, right_id, merged;
    size_t left;
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

static uint32_t merged(const struct kiln_tokenizer *tok, uint32_t left, uint32_t right) {
    return kiln_pairs_get(&tok->merges, tok->same[left], tok->same[right]);
}

/* ---- short words -------------------------------------------------------------------------- */

/* Merge in place; returns how many ids are left. */
static size_t merge_short(const struct kiln_tokenizer *tok, uint32_t *id, size_t n) {
    uint32_t pair[SHORT_WORD]; /* what (i, i+1) merges into */
    for (size_t i = 0; i + 1 < n; i++) {
        pair[i] = merged(tok, id[i], id[i + 1]);
    }
    for (;;) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++) {
            if (pair[i] != KILN_NO_ID &&
                (best == n || tok->v.score[pair[i]] > tok->v.score[pair[best]])) {
                best = i;
            }
        }
        if (best == n) {
            return n;
        }
        id[best] = pair[best];
        n--;
        memmove(id + best + 1, id + best + 2, (n - best - 1) * sizeof *id);
        if (best + 1 < n) {
            memmove(pair + best + 1, pair + best + 2, (n - best - 2) * sizeof *pair);
            pair[best] = merged(tok, id[best], id[best + 1]);
        }
        if (best > 0) {
            pair[best - 1] = merged(tok, id[best - 1], id[best]);
        }
    }
}

/* ---- long words --------------------------------------------------------------------------- */

static bool comes_first(const struct kiln_heap_entry *a, const struct kiln_heap_entry *b) {
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void heap_push(struct kiln_heap_entry *heap, size_t *n, struct kiln_heap_entry entry) {
    size_t at = (*n)++;
    while (at > 0 && comes_first(&entry, &heap[(at - 1) / 2])) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = entry;
}

static struct kiln_heap_entry heap_pop(struct kiln_heap_entry *heap, size_t *n) {
    struct kiln_heap_entry first = heap[0];
    struct kiln_heap_entry last = heap[--(*n)];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= *n) {
            break;
        }
        if (child + 1 < *n && comes_first(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (!comes_first(&heap[child], &last)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return first;
}

struct long_word {
    const struct kiln_tokenizer *tok;
    struct kiln_heap_entry *heap;
    size_t heap_n;
    uint32_t *id; /* KILN_NO_ID where a symbol was merged into the one before it */
    size_t *next, *previous;
    size_t n;
};

static void offer(struct long_word *w, size_t left) {
    size_t right = w->next[left];
    if (right == w->n) {
        return;
    }
    uint32_t id = merged(w->tok, w->id[left], w->id[right]);
    if (id != KILN_NO_ID) {
        heap_push(w->heap, &w->heap_n,
                  (struct kiln_heap_entry){.score = w->tok->v.score[id],
                                           .left_id = w->id[left],
                                           .right_id = w->id[right],
                                           .merged = id,
                                           .left = left});
    }
}

/* A symbol only ever grows, so a pair whose two ids still stand is the pair that was offered. */
static bool still_stands(const struct long_word *w, const struct kiln_heap_entry *entry) {
    size_t right = w->next[entry->left];
    return w->id[entry->left] == entry->left_id && right < w->n && w->id[right] == entry->right_id;
}

static void merge_pair(struct long_word *w, const struct kiln_heap_entry *entry) {
    size_t left = entry->left;
    size_t right = w->next[left];
    w->id[left] = entry->merged;
    w->id[right] = KILN_NO_ID;
    w->next[left] = w->next[right];
    if (w->next[right] < w->n) {
        w->previous[w->next[right]] = left;
    }
    offer(w, left);
    if (left > 0) {
        offer(w, w->previous[left]);
    }
}

/* Every merge takes one symbol away and offers at most two pairs: 3n entries are enough. */
static bool reserve_long(struct kiln_encoder *e, size_t n) {
    size_t heap_room, link_room;
    if (kiln_mul_overflows(n, 3, &heap_room) || kiln_mul_overflows(n, 2, &link_room)) {
        return false;
    }
    if (heap_room > e->heap_room) {
        kiln_free(e->heap);
        kiln_free(e->link);
        e->heap = kiln_alloc(heap_room, sizeof *e->heap);
        e->link = kiln_alloc(link_room, sizeof *e->link);
        e->heap_room = e->heap != NULL && e->link != NULL ? heap_room : 0;
    }
    return e->heap_room >= heap_room;
}

/* Merge in place; *n becomes how many ids are left. False when out of memory. */
static bool merge_long(struct kiln_encoder *e, uint32_t *id, size_t *n) {
    if (!reserve_long(e, *n)) {
        return false;
    }
    struct long_word w = {.tok = e->tok, .heap = e->heap, .id = id, .n = *n};
    w.next = e->link;
    w.previous = e->link + *n;
    for (size_t i = 0; i < w.n; i++) {
        w.next[i] = i + 1;
        w.previous[i] = i > 0 ? i - 1 : 0;
    }
    for (size_t i = 0; i < w.n; i++) {
        offer(&w, i);
    }
    while (w.heap_n > 0) {
        struct kiln_heap_entry best = heap_pop(w.heap, &w.heap_n);
        if (still_stands(&w, &best)) {
            merge_pair(&w, &best);
        }
    }
    size_t left = 0;
    for (size_t i = 0; i < w.n; i = w.next[i]) {
        id[left++] = id[i];
    }
    *n = left;
    return true;
}

/* ---- words -------------------------------------------------------------------------------- */

/* The ids of one character before any merge; room for 4. */
static size_t character_ids(const struct kiln_tokenizer *tok, const char *text, size_t size,
                            uint32_t *id) {
    uint32_t whole =
        size == 1 ? tok->one[(unsigned char)text[0]] : kiln_tokenizer_find(tok, text, size);
    if (whole != KILN_NO_ID) {
        id[0] = whole;
        return 1;
    }
    for (size_t i = 0; i < size; i++) {
        id[i] = tok->byte_id[(unsigned char)text[i]];
    }
    return size;
}

static unsigned char first_byte(const struct kiln_tokenizer *tok, uint32_t id) {
    return (unsigned char)tok->v.pool[tok->v.at[id]];
}
static unsigned char last_byte(const struct kiln_tokenizer *tok, uint32_t id) {
    return (unsigned char)tok->v.pool[tok->v.at[id + 1] - 1];
}

/* Take the next word off the text into e->word: characters up to a place no merge crosses. */
static bool take_word(struct kiln_encoder *e) {
    struct kiln_ids *word = &e->word;
    word->n = 0;
    if (e->prefix) {
        word->n = character_ids(e->tok, " ", 1, word->id);
        e->prefix = false;
    }
    while (e->pos < e->size) {
        size_t size = kiln_character(e->text + e->pos, e->size - e->pos);
        if (!kiln_ids_reserve(word, 4)) {
            return false;
        }
        uint32_t *id = word->id + word->n;
        size_t n = character_ids(e->tok, e->text + e->pos, size, id);
        if (word->n > 0 &&
            !kiln_tokenizer_joins(e->tok, last_byte(e->tok, id[-1]), first_byte(e->tok, id[0]))) {
            break;
        }
        word->n += n;
        e->pos += size;
    }
    return true;
}

static struct kiln_cached *cached_slot(struct kiln_encoder *e, const char *text, size_t size) {
    if (e->cache == NULL || size >= CACHE_BYTES) {
        return NULL;
    }
    return &e->cache[kiln_hash_spread(kiln_hash_bytes(text, size)) & (CACHE_SLOTS - 1)];
}

static bool merge_word(struct kiln_encoder *e) {
    if (e->word.n > SHORT_WORD) {
        return merge_long(e, e->word.id, &e->word.n);
    }
    e->word.n = merge_short(e->tok, e->word.id, e->word.n);
    return true;
}

/* Merge e->word, which is the text from `start` on (and the blank before it when `prefixed`). */
static bool merge_or_recall(struct kiln_encoder *e, size_t start, bool prefixed) {
    const char *text = e->text + start;
    size_t size = e->pos - start;
    struct kiln_cached *slot = prefixed ? NULL : cached_slot(e, text, size);
    if (slot != NULL && slot->size == size && memcmp(slot->text, text, size) == 0) {
        memcpy(e->word.id, slot->id, slot->n * sizeof *slot->id);
        e->word.n = slot->n;
        return true;
    }
    if (!merge_word(e)) {
        return false;
    }
    if (slot != NULL && e->word.n <= CACHE_IDS) {
        slot->size = (uint8_t)size;
        slot->n = (uint8_t)e->word.n;
        memcpy(slot->text, text, size);
        memcpy(slot->id, e->word.id, e->word.n * sizeof *slot->id);
    }
    return true;
}

static bool next_word(struct kiln_encoder *e, struct kiln_ids *out) {
    size_t start = e->pos;
    bool prefixed = e->prefix;
    if (!take_word(e) || (e->word.n > 1 && !merge_or_recall(e, start, prefixed)) ||
        !kiln_ids_reserve(out, e->word.n)) {
        return false;
    }
    memcpy(out->id + out->n, e->word.id, e->word.n * sizeof *out->id);
    out->n += e->word.n;
    return true;
}

/* ---- the encoder -------------------------------------------------------------------------- */

enum kiln_status kiln_encoder_init(struct kiln_encoder *e, const struct kiln_tokenizer *tok,
                                   bool cache, struct kiln_err *err) {
    *e = (struct kiln_encoder){.tok = tok};
    if (cache) {
        e->cache = kiln_alloc(CACHE_SLOTS, sizeof *e->cache);
    }
    if ((cache && e->cache == NULL) || !kiln_ids_reserve(&e->word, 64)) {
        kiln_encoder_fini(e);
        return KILN_FAIL(err, KILN_ENOMEM, "encode: out of memory");
    }
    return KILN_OK;
}

void kiln_encoder_begin(struct kiln_encoder *e, const char *text, size_t size) {
    e->text = text;
    e->size = size;
    e->pos = 0;
    e->prefix = size > 0;
}

enum kiln_status kiln_encoder_more(struct kiln_encoder *e, size_t enough, struct kiln_ids *out,
                                   struct kiln_err *err) {
    while (!kiln_encoder_done(e) && out->n < enough) {
        if (!next_word(e, out)) {
            return KILN_FAIL(err, KILN_ENOMEM, "encode: out of memory at byte %zu of %zu", e->pos,
                             e->size);
        }
    }
    return KILN_OK;
}

void kiln_encoder_fini(struct kiln_encoder *e) {
    kiln_ids_free(&e->word);
    kiln_free(e->cache);
    kiln_free(e->heap);
    kiln_free(e->link);
    *e = (struct kiln_encoder){0};
}

enum kiln_status kiln_tokenizer_encode(const struct kiln_tokenizer *tok, const char *text,
                                       size_t size, bool bos, struct kiln_ids *out,
                                       struct kiln_err *err) {
    struct kiln_encoder e;
    KILN_TRY(kiln_encoder_init(&e, tok, size >= CACHE_TEXT, err));
    enum kiln_status status = KILN_OK;
    if (bos && !kiln_ids_reserve(out, 1)) {
        status = KILN_FAIL(err, KILN_ENOMEM, "encode: out of memory");
    } else if (bos) {
        out->id[out->n++] = KILN_ID_BOS;
    }
    kiln_encoder_begin(&e, text, size);
    if (status == KILN_OK) {
        status = kiln_encoder_more(&e, SIZE_MAX, out, err);
    }
    kiln_encoder_fini(&e);
    return status;
}
