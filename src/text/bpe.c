/* SPDX-License-Identifier: MIT
 *
 * bpe.c: byte-pair encoding is learned.
 *
 *   symbols --pairs--> candidates --most frequent--> token
 *      ^------------- merge in all its words ----------'
 */
#include "text/bpe.h"

#include <inttypes.h>
#include <string.h>

#include "base/mem.h"

enum {
    NONE = -1,
    LEAST_COUNT = 2, /* a pair seen once teaches nothing */
};
#define END UINT32_MAX /* of a list */

/* A part of a list of words, a cache line of it. */
struct kiln_stand {
    uint32_t next; /* END: the last */
    uint32_t n;
    uint32_t word[14];
};

struct kiln_candidate {
    int64_t count;
    uint32_t left, right; /* the first pair that was met of it */
    uint32_t token;       /* its id once it is one, KILN_NO_ID before */
    uint32_t first, last; /* words that hold it, or held it once */
    bool touched;         /* the heap is to hear of it */
};

struct kiln_offer {
    int64_t count;
    uint32_t candidate;
};

bool kiln_bpe_reserve(struct kiln_bpe *b, uint32_t words, size_t symbols) {
    b->words = kiln_alloc(words, sizeof *b->words);
    b->symbols = kiln_alloc(symbols, sizeof *b->symbols);
    return b->words != NULL && b->symbols != NULL;
}

uint32_t *kiln_bpe_add_word(struct kiln_bpe *b, uint32_t n, uint64_t count) {
    const size_t at = b->n_symbols;
    b->words[b->n_words++] = (struct kiln_bpe_word){.count = count, .at = at, .n = n};
    b->n_symbols += n;
    return b->symbols + at;
}

void kiln_bpe_fini(struct kiln_bpe *b) {
    kiln_vocabulary_fini(&b->v);
    kiln_free(b->words);
    kiln_free(b->symbols);
    kiln_free(b->merges);
    kiln_strings_fini(&b->names);
    kiln_pairs_fini(&b->numbers);
    kiln_free(b->candidates);
    kiln_free(b->stands);
    kiln_free(b->touched);
    kiln_free(b->heap);
    *b = (struct kiln_bpe){0};
}

/* ---- candidates --------------------------------------------------------------------------- */

/* What two pieces spell together; returns its size. */
static size_t spell(const struct kiln_bpe *b, uint32_t left, uint32_t right,
                    char out[4 * KILN_BPE_LONGEST]) {
    size_t n, m;
    const char *first = kiln_piece(&b->v, left, &n);
    const char *second = kiln_piece(&b->v, right, &m);
    memcpy(out, first, n);
    memcpy(out + n, second, m);
    return n + m;
}

static uint32_t new_candidate(struct kiln_bpe *b, uint32_t left, uint32_t right) {
    if (!kiln_one_more(&b->candidates, b->n_candidates, &b->candidates_room,
                       sizeof *b->candidates)) {
        return KILN_NO_ID;
    }
    b->candidates[b->n_candidates] = (struct kiln_candidate){
        .left = left, .right = right, .token = KILN_NO_ID, .first = END, .last = END};
    return b->n_candidates++;
}

/* The candidate of two neighbours, made when new; KILN_NO_ID when out of memory. */
static uint32_t candidate_of(struct kiln_bpe *b, uint32_t left, uint32_t right) {
    uint32_t at = kiln_pairs_get(&b->numbers, left, right);
    if (at != KILN_NO_ID) {
        return at;
    }
    if (b->kind == KILN_BPE_SPELLING) {
        char name[4 * KILN_BPE_LONGEST];
        at = kiln_strings_put_copy(&b->names, name, spell(b, left, right, name));
        if (at == KILN_NO_ID) {
            return at;
        }
    }
    if (b->kind == KILN_BPE_PAIRS || at == b->n_candidates) {
        at = new_candidate(b, left, right);
    }
    return at != KILN_NO_ID && kiln_pairs_put(&b->numbers, left, right, at) ? at : KILN_NO_ID;
}

static bool touch(struct kiln_bpe *b, uint32_t at) {
    if (b->candidates[at].touched) {
        return true;
    }
    if (!kiln_one_more(&b->touched, b->n_touched, &b->touched_room, sizeof *b->touched)) {
        return false;
    }
    b->touched[b->n_touched++] = at;
    b->candidates[at].touched = true;
    return true;
}

/* An empty part, END when out of memory. */
static uint32_t new_stand(struct kiln_bpe *b) {
    uint32_t at = b->n_stands;
    if (b->free_stand != 0) {
        at = b->free_stand - 1;
        b->free_stand = b->stands[at].next;
    } else if (kiln_one_more(&b->stands, at, &b->stands_room, sizeof *b->stands)) {
        b->n_stands++;
    } else {
        return END;
    }
    b->stands[at].next = END;
    b->stands[at].n = 0;
    return at;
}

/* Give a part back that was read. */
static void release(struct kiln_bpe *b, uint32_t at) {
    b->stands[at].next = b->free_stand;
    b->free_stand = at + 1;
}

/* Note that a candidate stands in `word`. */
static bool list_word(struct kiln_bpe *b, struct kiln_candidate *c, uint32_t word) {
    const struct kiln_stand *last = c->first != END ? &b->stands[c->last] : NULL;
    if (last != NULL && last->word[last->n - 1] == word) {
        return true;
    }
    if (last == NULL || last->n == sizeof last->word / sizeof last->word[0]) {
        const uint32_t at = new_stand(b);
        if (at == END) {
            return false;
        }
        if (c->first == END) {
            c->first = at;
        } else {
            b->stands[c->last].next = at;
        }
        c->last = at;
    }
    struct kiln_stand *stand = &b->stands[c->last];
    stand->word[stand->n++] = word;
    return true;
}

/* Two symbols are neighbours in `word` from now on. */
static bool join(struct kiln_bpe *b, uint32_t word, uint32_t left, uint32_t right) {
    if (left == KILN_NO_ID || right == KILN_NO_ID) {
        return true;
    }
    const uint32_t at = candidate_of(b, left, right);
    if (at == KILN_NO_ID || !touch(b, at)) {
        return false;
    }
    b->candidates[at].count += (int64_t)b->words[word].count;
    return list_word(b, &b->candidates[at], word);
}

/* They are so no longer. */
static void part(struct kiln_bpe *b, uint32_t word, uint32_t left, uint32_t right) {
    if (left != KILN_NO_ID && right != KILN_NO_ID) {
        const uint32_t at = kiln_pairs_get(&b->numbers, left, right);
        b->candidates[at].count -= (int64_t)b->words[word].count;
    }
}

/* ---- the most frequent candidate ---------------------------------------------------------- */

static bool goes_first(const struct kiln_bpe *b, struct kiln_offer a, struct kiln_offer other) {
    if (a.count != other.count) {
        return a.count > other.count;
    }
    if (b->kind == KILN_BPE_SPELLING) {
        return kiln_string_order(&b->names.item[a.candidate], &b->names.item[other.candidate]) < 0;
    }
    const struct kiln_candidate *x = &b->candidates[a.candidate];
    const struct kiln_candidate *y = &b->candidates[other.candidate];
    return x->left != y->left ? x->left < y->left : x->right < y->right;
}

static bool push(struct kiln_bpe *b, struct kiln_offer offer) {
    if (!kiln_one_more(&b->heap, b->heap_n, &b->heap_room, sizeof *b->heap)) {
        return false;
    }
    uint32_t at = b->heap_n++;
    for (; at > 0 && goes_first(b, offer, b->heap[(at - 1) / 2]); at = (at - 1) / 2) {
        b->heap[at] = b->heap[(at - 1) / 2];
    }
    b->heap[at] = offer;
    return true;
}

static struct kiln_offer pop(struct kiln_bpe *b) {
    const struct kiln_offer first = b->heap[0];
    const struct kiln_offer last = b->heap[--b->heap_n];
    uint32_t at = 0;
    for (uint32_t child = 1; child < b->heap_n; child = 2 * at + 1) {
        if (child + 1 < b->heap_n && goes_first(b, b->heap[child + 1], b->heap[child])) {
            child++;
        }
        if (!goes_first(b, b->heap[child], last)) {
            break;
        }
        b->heap[at] = b->heap[child];
        at = child;
    }
    b->heap[at] = last;
    return first;
}

static bool offer_touched(struct kiln_bpe *b) {
    for (uint32_t i = 0; i < b->n_touched; i++) {
        struct kiln_candidate *c = &b->candidates[b->touched[i]];
        c->touched = false;
        if (!push(b, (struct kiln_offer){c->count, b->touched[i]})) {
            return false;
        }
    }
    b->n_touched = 0;
    return true;
}

/* Take the most frequent candidate off the heap; false when none is worth a token. */
static bool most_frequent(struct kiln_bpe *b, struct kiln_offer *best) {
    while (b->heap_n > 0) {
        *best = pop(b);
        const struct kiln_candidate *c = &b->candidates[best->candidate];
        if (c->token != KILN_NO_ID) {
            continue;
        }
        if (best->count == c->count) {
            return best->count >= LEAST_COUNT;
        }
        best->count = c->count;
        if (!push(b, *best)) {
            return false; /* cannot be: there is room for what was just taken off */
        }
    }
    return false;
}

/* ---- merging ------------------------------------------------------------------------------ */

/* `left` and `right` became `token` between these neighbours (KILN_NO_ID: none). */
static bool replaced(struct kiln_bpe *b, uint32_t word, const uint32_t neighbour[2], uint32_t left,
                     uint32_t right, uint32_t token) {
    part(b, word, neighbour[0], left);
    part(b, word, right, neighbour[1]);
    return join(b, word, neighbour[0], token) && join(b, word, token, neighbour[1]);
}

/* A pair in one word, from left to right. */
static bool merge_pair(struct kiln_bpe *b, uint32_t word, const struct kiln_merge *merge) {
    struct kiln_bpe_word *w = &b->words[word];
    uint32_t *symbol = b->symbols + w->at;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        if (i + 1 == w->n || symbol[i] != merge->left || symbol[i + 1] != merge->right) {
            symbol[kept++] = symbol[i];
            continue;
        }
        const uint32_t neighbour[2] = {kept > 0 ? symbol[kept - 1] : KILN_NO_ID,
                                       i + 2 < w->n ? symbol[i + 2] : KILN_NO_ID};
        if (!replaced(b, word, neighbour, merge->left, merge->right, merge->id)) {
            return false;
        }
        symbol[kept++] = merge->id;
        i++;
    }
    w->n = kept;
    return true;
}

/* The first place in a word where two neighbours spell the earliest token; NONE where none do. */
static int earliest(const struct kiln_bpe *b, const struct kiln_bpe_word *w, uint32_t *token) {
    const uint32_t *symbol = b->symbols + w->at;
    int place = NONE;
    *token = KILN_NO_ID;
    for (uint32_t i = 0; i + 1 < w->n; i++) {
        if (symbol[i] == KILN_NO_ID || symbol[i + 1] == KILN_NO_ID) {
            continue;
        }
        const uint32_t at = kiln_pairs_get(&b->numbers, symbol[i], symbol[i + 1]);
        if (b->candidates[at].token < *token) {
            *token = b->candidates[at].token;
            place = (int)i;
        }
    }
    return place;
}

/* The encoder's rule: the earliest token that two neighbours spell, leftmost of equals, until none
 * is left. */
static bool merge_on(struct kiln_bpe *b, uint32_t word) {
    struct kiln_bpe_word *w = &b->words[word];
    uint32_t *symbol = b->symbols + w->at;
    uint32_t token;
    for (int i = earliest(b, w, &token); i != NONE; i = earliest(b, w, &token)) {
        const uint32_t behind = w->n - (uint32_t)i - 2;
        const uint32_t neighbour[2] = {i > 0 ? symbol[i - 1] : KILN_NO_ID,
                                       behind > 0 ? symbol[i + 2] : KILN_NO_ID};
        if (!replaced(b, word, neighbour, symbol[i], symbol[i + 1], token)) {
            return false;
        }
        symbol[i] = token;
        memmove(symbol + i + 1, symbol + i + 2, behind * sizeof *symbol);
        w->n--;
    }
    return true;
}

/* Words of a list lie anywhere in memory: fetch those that come next. */
static void look_ahead(const struct kiln_bpe *b, const struct kiln_stand *stand, uint32_t i) {
    enum { WORDS_AHEAD = 4, SYMBOLS_AHEAD = 2 };
    if (i + WORDS_AHEAD < stand->n) {
        __builtin_prefetch(&b->words[stand->word[i + WORDS_AHEAD]], 1);
    }
    if (i + SYMBOLS_AHEAD < stand->n) {
        __builtin_prefetch(b->symbols + b->words[stand->word[i + SYMBOLS_AHEAD]].at, 1);
    }
}

/* Merge in the words of a part of a list. */
static bool merge_in(struct kiln_bpe *b, uint32_t at, const struct kiln_merge *merge) {
    for (uint32_t i = 0; i < b->stands[at].n; i++) {
        look_ahead(b, &b->stands[at], i);
        const uint32_t word = b->stands[at].word[i];
        if (!(b->kind == KILN_BPE_SPELLING ? merge_on(b, word) : merge_pair(b, word, merge))) {
            return false;
        }
    }
    return true;
}

/* Make the candidate a token and merge it in its words. */
static bool adopt(struct kiln_bpe *b, uint32_t candidate) {
    struct kiln_candidate *c = &b->candidates[candidate];
    const struct kiln_merge merge = {c->left, c->right, (uint32_t)b->v.n};
    char name[4 * KILN_BPE_LONGEST];
    const size_t size = spell(b, c->left, c->right, name);
    if (!kiln_vocabulary_add(&b->v, name, size, 0.0f) ||
        !kiln_one_more(&b->merges, b->n_merges, &b->merges_room, sizeof *b->merges)) {
        return false;
    }
    b->merges[b->n_merges++] = merge;
    c->token = merge.id;
    for (uint32_t at = c->first; at != END;) {
        if (!merge_in(b, at, &merge)) {
            return false;
        }
        const uint32_t next = b->stands[at].next;
        if (b->kind == KILN_BPE_PAIRS) { /* it stands nowhere any more */
            release(b, at);
        }
        at = next;
    }
    return offer_touched(b);
}

/* The pairs of all words. */
static bool begin(struct kiln_bpe *b) {
    for (uint32_t word = 0; word < b->n_words; word++) {
        const uint32_t *symbol = b->symbols + b->words[word].at;
        for (uint32_t i = 0; i + 1 < b->words[word].n; i++) {
            if (!join(b, word, symbol[i], symbol[i + 1])) {
                return false;
            }
        }
    }
    return offer_touched(b);
}

bool kiln_bpe_learn(struct kiln_bpe *b, size_t vocab) {
    if (!begin(b)) {
        return false;
    }
    struct kiln_offer best;
    while (b->v.n < vocab && most_frequent(b, &best)) {
        if (!adopt(b, best.candidate)) {
            return false;
        }
    }
    return true;
}

enum kiln_status kiln_bpe_verdict(const struct kiln_bpe *b, bool learned, size_t vocab,
                                  struct kiln_learned *facts, struct kiln_err *err) {
    KILN_REQUIRE(learned, err, KILN_ENOMEM,
                 "learning a vocabulary of %zu from %" PRIu64 " bytes: out of memory", vocab,
                 facts->bytes);
    KILN_REQUIRE(b->v.n == vocab, err, KILN_EINPUT,
                 "%" PRIu64
                 " bytes of text are too few for a vocabulary of %zu: they teach %zu "
                 "tokens; ask for at most that many or give more text",
                 facts->bytes, vocab, b->v.n);
    facts->tokens = 0;
    for (uint32_t w = 0; w < b->n_words; w++) {
        facts->tokens += b->words[w].count * b->words[w].n;
    }
    return KILN_OK;
}
