/* SPDX-License-Identifier: MIT
 *
 * merge_word.c: the merges of one word: always the neighbours with the lowest rank, the first of
 * equals, until nothing merges. A short word is merged by scanning, a long one with a heap in
 * O(n log n).
 */
#include <string.h>

#include "base/mem.h"
#include "text/merges.h"

enum { SHORT_WORD = 40 }; /* symbols; above, the heap wins */

/* A pair that can be merged: symbols `left` and the one behind it, while they are still these. */
struct kiln_heap_entry {
    struct kiln_merged to;
    uint32_t left_id, right_id;
    size_t left;
};

static struct kiln_merged merged(const struct kiln_tokenizer *tok, uint32_t left, uint32_t right) {
    if (tok->same != NULL) {
        left = tok->same[left];
        right = tok->same[right];
    }
    return kiln_merge_of(&tok->merges, left, right);
}

/* ---- short words -------------------------------------------------------------------------- */

/* Merge in place; returns how many ids are left. */
static size_t merge_short(const struct kiln_tokenizer *tok, uint32_t *id, size_t n) {
    struct kiln_merged pair[SHORT_WORD]; /* what (i, i+1) merges into */
    for (size_t i = 0; i + 1 < n; i++) {
        pair[i] = merged(tok, id[i], id[i + 1]);
    }
    for (;;) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++) {
            if (pair[i].id != KILN_NO_ID && (best == n || pair[i].rank < pair[best].rank)) {
                best = i;
            }
        }
        if (best == n) {
            return n;
        }
        id[best] = pair[best].id;
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
    return a->to.rank < b->to.rank || (a->to.rank == b->to.rank && a->left < b->left);
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
    struct kiln_merged to = merged(w->tok, w->id[left], w->id[right]);
    if (to.id != KILN_NO_ID) {
        heap_push(w->heap, &w->heap_n,
                  (struct kiln_heap_entry){
                      .to = to, .left_id = w->id[left], .right_id = w->id[right], .left = left});
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
    w->id[left] = entry->to.id;
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
static bool reserve_long(struct kiln_word_merger *m, size_t n) {
    size_t heap_room, link_room;
    if (kiln_mul_overflows(n, 3, &heap_room) || kiln_mul_overflows(n, 2, &link_room)) {
        return false;
    }
    if (heap_room > m->heap_room) {
        kiln_free(m->heap);
        kiln_free(m->link);
        m->heap = kiln_alloc(heap_room, sizeof *m->heap);
        m->link = kiln_alloc(link_room, sizeof *m->link);
        m->heap_room = m->heap != NULL && m->link != NULL ? heap_room : 0;
    }
    return m->heap_room >= heap_room;
}

/* Merge in place; *n becomes how many ids are left. False when out of memory. */
static bool merge_long(struct kiln_word_merger *m, uint32_t *id, size_t *n) {
    if (!reserve_long(m, *n)) {
        return false;
    }
    struct long_word w = {.tok = m->tok, .heap = m->heap, .id = id, .n = *n};
    w.next = m->link;
    w.previous = m->link + *n;
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

bool kiln_merge_word(struct kiln_word_merger *m, uint32_t *id, size_t *n) {
    if (*n > SHORT_WORD) {
        return merge_long(m, id, n);
    }
    *n = merge_short(m->tok, id, *n);
    return true;
}

void kiln_word_merger_fini(struct kiln_word_merger *m) {
    kiln_free(m->heap);
    kiln_free(m->link);
    *m = (struct kiln_word_merger){0};
}
