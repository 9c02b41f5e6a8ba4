/* SPDX-License-Identifier: MIT
 *
 * bpe_train.c: learn a byte-pair vocabulary (Sennrich, Haddow, Birch: Neural Machine Translation
 * of Rare Words with Subword Units, ACL 2016, section 3.2) that llama2.c's encoder reproduces.
 *
 * That encoder merges by what two neighbours spell, not by which two they are, and it knows no
 * words. So here a candidate is a string, its count is that of all pairs that spell it, and words
 * are such that no candidate reaches across two of them: a run of letters or a run of other
 * characters, with one blank before it; a blank never stands inside. After a new token every word
 * that holds it is merged on by the encoder's own rule: best score first, leftmost of equals.
 *
 *   text --count--> words --split--> symbols --pairs--> candidates --most frequent--> token
 *                                      ^------------- merge in all its words ----------'
 */
#include <string.h>

#include "base/mem.h"
#include "text/text_int.h"

/* ---- growing arrays ----------------------------------------------------------------------- */

/* Make room for one more element of `size` bytes; false when out of memory. */
static bool one_more(void **block, size_t n, uint32_t *room, size_t size) {
    if (n < *room) {
        return true;
    }
    uint32_t wider = *room > 0 ? *room * 2 : 4;
    void *grown = wider > *room ? kiln_realloc(*block, *room, wider, size) : NULL;
    if (grown == NULL) {
        return false;
    }
    *block = grown;
    *room = wider;
    return true;
}

/* ---- the trainer's tables ----------------------------------------------------------------- */

/* Strings that are told apart by their bytes, numbered 0, 1, 2... */
struct strings {
    struct string {
        const char *bytes;
        uint32_t size;
    } * item;
    uint32_t n, room;
    uint32_t *slot;
    size_t slots;
};

struct word {
    uint64_t count;
    uint32_t *symbol; /* token ids; KILN_NO_ID is a character without a token of its own */
    uint32_t *pair;   /* the candidate that symbols i and i+1 spell, KILN_NO_ID for none */
    uint32_t n;
};

struct candidate {
    uint64_t count;
    uint32_t token; /* its id once it is one, KILN_NO_ID before */
    uint32_t *word; /* words that hold it, or held it once; some more than once */
    uint32_t n_words, room;
    bool touched; /* its count rose since the heap last heard of it */
};

struct offer {
    uint64_t count;
    uint32_t candidate;
};

struct trainer {
    struct strings texts; /* distinct words */
    struct word *words;
    uint32_t words_room;
    uint32_t *symbols; /* all words' symbols in one block, and their pairs in another */
    uint32_t *pairs;

    struct strings chars; /* distinct characters */
    uint64_t *char_count;
    uint32_t char_count_room;
    uint32_t *char_token; /* KILN_NO_ID: no token of its own */

    struct strings names; /* distinct candidates */
    struct candidate *candidates;
    uint32_t candidates_room;
    struct kiln_pairs spelled; /* pair of tokens -> candidate */
    struct kiln_text_pool {
        struct kiln_text_pool *before;
        size_t used, room;
    } * pool; /* bytes of strings that do not stand in the text */

    uint32_t *touched; /* candidates to tell the heap of */
    uint32_t n_touched, touched_room;
    struct offer *heap;
    uint32_t heap_n, heap_room;

    struct kiln_vocabulary v;
};

static bool strings_grow(struct strings *s) {
    size_t slots = s->slots > 0 ? s->slots * 2 : 4096;
    uint32_t *slot = kiln_alloc(slots, sizeof *slot);
    if (slot == NULL) {
        return false;
    }
    memset(slot, 0xFF, slots * sizeof *slot);
    for (uint32_t i = 0; i < s->n; i++) {
        size_t at = kiln_hash_spread(kiln_hash_bytes(s->item[i].bytes, s->item[i].size));
        for (at &= slots - 1; slot[at] != KILN_NO_ID; at = (at + 1) & (slots - 1)) {
        }
        slot[at] = i;
    }
    kiln_free(s->slot);
    s->slot = slot;
    s->slots = slots;
    return true;
}

/* The number of a string, a new one (s->n-1) when it was not there. The bytes are not copied.
 * KILN_NO_ID when out of memory. */
static uint32_t strings_put(struct strings *s, const char *bytes, size_t size) {
    if ((size_t)s->n * 2 >= s->slots && !strings_grow(s)) {
        return KILN_NO_ID;
    }
    size_t at = kiln_hash_spread(kiln_hash_bytes(bytes, size)) & (s->slots - 1);
    for (; s->slot[at] != KILN_NO_ID; at = (at + 1) & (s->slots - 1)) {
        const struct string *item = &s->item[s->slot[at]];
        if (item->size == size && memcmp(item->bytes, bytes, size) == 0) {
            return s->slot[at];
        }
    }
    void *items = s->item;
    if (!one_more(&items, s->n, &s->room, sizeof *s->item)) {
        return KILN_NO_ID;
    }
    s->item = items;
    s->item[s->n] = (struct string){bytes, (uint32_t)size};
    s->slot[at] = s->n;
    return s->n++;
}

static void strings_fini(struct strings *s) {
    kiln_free(s->item);
    kiln_free(s->slot);
}

static void trainer_fini(struct trainer *t) {
    for (uint32_t i = 0; i < t->names.n; i++) {
        kiln_free(t->candidates[i].word);
    }
    while (t->pool != NULL) {
        struct kiln_text_pool *before = t->pool->before;
        kiln_free(t->pool);
        t->pool = before;
    }
    strings_fini(&t->texts);
    strings_fini(&t->chars);
    strings_fini(&t->names);
    kiln_free(t->char_count);
    kiln_free(t->char_token);
    kiln_free(t->touched);
    kiln_free(t->words);
    kiln_free(t->symbols);
    kiln_free(t->pairs);
    kiln_free(t->candidates);
    kiln_pairs_fini(&t->spelled);
    kiln_free(t->heap);
    kiln_vocabulary_fini(&t->v);
}

/* A copy that lives as long as the trainer; NULL when out of memory. */
static const char *keep_bytes(struct trainer *t, const char *bytes, size_t size) {
    enum { POOL_BYTES = 1 << 16 };
    if (t->pool == NULL || t->pool->room - t->pool->used < size) {
        struct kiln_text_pool *pool = kiln_alloc(1, sizeof *pool + POOL_BYTES);
        if (pool == NULL) {
            return NULL;
        }
        pool->room = POOL_BYTES;
        pool->before = t->pool;
        t->pool = pool;
    }
    char *copy = (char *)(t->pool + 1) + t->pool->used;
    memcpy(copy, bytes, size);
    t->pool->used += size;
    return copy;
}

/* strings_put of bytes that do not last. */
static uint32_t strings_put_copy(struct trainer *t, struct strings *s, const char *bytes,
                                 size_t size) {
    uint32_t before = s->n;
    uint32_t at = strings_put(s, bytes, size);
    if (at != KILN_NO_ID && s->n > before) {
        const char *kept = keep_bytes(t, bytes, size);
        if (kept == NULL) {
            s->n = before;
            return KILN_NO_ID;
        }
        s->item[at].bytes = kept;
    }
    return at;
}

/* ---- words -------------------------------------------------------------------------------- */

/* Bytes of other scripts count as letters. */
static bool is_letter(char c) {
    unsigned char u = (unsigned char)c;
    return (u >= 'a' && u <= 'z') || (u >= 'A' && u <= 'Z') || u >= 0x80;
}

/* Longer words are cut, in scripts without blanks too: no token is longer than this. */
enum { LONGEST_WORD = 48 };

static size_t word_length(const char *text, size_t size) {
    size_t n = text[0] == ' ' ? 1 : 0;
    if (n == size || text[n] == ' ') {
        return n;
    }
    bool letters = is_letter(text[n]);
    while (n < size && text[n] != ' ' && is_letter(text[n]) == letters) {
        size_t next = kiln_character(text + n, size - n);
        if (n + next > LONGEST_WORD) {
            break;
        }
        n += next;
    }
    return n;
}

/* Count a word that is number `at` of t->texts, or one more than there were. */
static bool count_word(struct trainer *t, uint32_t at, uint32_t before) {
    if (at == KILN_NO_ID) {
        return false;
    }
    if (at == before) {
        void *words = t->words;
        if (!one_more(&words, at, &t->words_room, sizeof *t->words)) {
            return false;
        }
        t->words = words;
    }
    t->words[at].count++;
    return true;
}

static bool count_document(struct trainer *t, const char *text, size_t size) {
    /* the encoder puts a blank before a document */
    char first[LONGEST_WORD + 2] = " ";
    size_t at = word_length(text, size);
    memcpy(first + 1, text, at);
    uint32_t before = t->texts.n;
    if (!count_word(t, strings_put_copy(t, &t->texts, first, at + 1), before)) {
        return false;
    }
    while (at < size) {
        size_t length = word_length(text + at, size - at);
        before = t->texts.n;
        if (!count_word(t, strings_put(&t->texts, text + at, length), before)) {
            return false;
        }
        at += length;
    }
    return true;
}

/* ---- characters --------------------------------------------------------------------------- */

/* Has it the shape of one UTF-8 character, and is not NUL? Only such become tokens; llama2.c's
 * strings end at NUL. */
static bool is_character(const char *text, size_t size) {
    unsigned char lead = (unsigned char)text[0];
    if (size == 1) {
        return lead > 0 && lead < 0x80;
    }
    return (size == 2 && lead >= 0xC2 && lead <= 0xDF) ||
           (size == 3 && lead >= 0xE0 && lead <= 0xEF) ||
           (size == 4 && lead >= 0xF0 && lead <= 0xF4);
}

static bool count_character(struct trainer *t, const char *text, size_t size, uint64_t count) {
    uint32_t before = t->chars.n;
    uint32_t at = strings_put(&t->chars, text, size);
    if (at == KILN_NO_ID) {
        return false;
    }
    if (at == before) {
        void *counts = t->char_count;
        if (!one_more(&counts, at, &t->char_count_room, sizeof *t->char_count)) {
            return false;
        }
        t->char_count = counts;
    }
    t->char_count[at] += count;
    return true;
}

/* Characters of all words; *total becomes how many there are, one behind the other. */
static bool count_characters(struct trainer *t, size_t *total) {
    *total = 0;
    for (uint32_t w = 0; w < t->texts.n; w++) {
        const char *text = t->texts.item[w].bytes;
        size_t size = t->texts.item[w].size;
        for (size_t at = 0; at < size; (*total)++) {
            size_t length = kiln_character(text + at, size - at);
            if (is_character(text + at, length) &&
                !count_character(t, text + at, length, t->words[w].count)) {
                return false;
            }
            at += length;
        }
    }
    return true;
}

static int by_bytes(const struct string *a, const struct string *b) {
    int order = memcmp(a->bytes, b->bytes, a->size < b->size ? a->size : b->size);
    return order != 0 ? order : (a->size > b->size) - (a->size < b->size);
}

/* The most frequent character that has no token yet; the blank before all, for the encoder looks
 * for it. KILN_NO_ID when all have one. */
static uint32_t next_character(const struct trainer *t) {
    uint32_t best = KILN_NO_ID;
    for (uint32_t i = 0; i < t->chars.n; i++) {
        if (t->char_token[i] != KILN_NO_ID) {
            continue;
        }
        if (t->chars.item[i].size == 1 && t->chars.item[i].bytes[0] == ' ') {
            return i;
        }
        if (best == KILN_NO_ID || t->char_count[i] > t->char_count[best] ||
            (t->char_count[i] == t->char_count[best] &&
             by_bytes(&t->chars.item[i], &t->chars.item[best]) < 0)) {
            best = i;
        }
    }
    return best;
}

static float next_score(const struct trainer *t) { return -(float)(t->v.n - KILN_ID_LEARNED); }

/* Tokens for the characters, all of them if they take at most half of what is there to learn;
 * rarer ones are spelled in bytes. */
static bool add_characters(struct trainer *t, size_t vocab) {
    t->char_token = kiln_alloc(t->chars.n, sizeof *t->char_token);
    if (t->char_token == NULL) {
        return false;
    }
    memset(t->char_token, 0xFF, t->chars.n * sizeof *t->char_token);
    size_t most = (vocab - KILN_ID_LEARNED + 1) / 2;
    for (size_t i = 0; i < most; i++) {
        uint32_t at = next_character(t);
        if (at == KILN_NO_ID) {
            break;
        }
        t->char_token[at] = (uint32_t)t->v.n;
        const struct string *s = &t->chars.item[at];
        if (!kiln_vocabulary_add(&t->v, s->bytes, s->size, next_score(t))) {
            return false;
        }
    }
    return true;
}

static bool split_words(struct trainer *t, size_t total) {
    t->symbols = kiln_alloc(total, sizeof *t->symbols);
    t->pairs = kiln_alloc(total, sizeof *t->pairs);
    if (t->symbols == NULL || t->pairs == NULL) {
        return false;
    }
    uint32_t *symbol = t->symbols;
    for (uint32_t w = 0; w < t->texts.n; w++) {
        const char *text = t->texts.item[w].bytes;
        size_t size = t->texts.item[w].size;
        t->words[w].symbol = symbol;
        t->words[w].pair = t->pairs + (symbol - t->symbols);
        for (size_t at = 0; at < size;) {
            size_t length = kiln_character(text + at, size - at);
            *symbol = KILN_NO_ID;
            if (is_character(text + at, length)) {
                *symbol = t->char_token[strings_put(&t->chars, text + at, length)];
            }
            symbol++;
            at += length;
        }
        t->words[w].n = (uint32_t)(symbol - t->words[w].symbol);
    }
    return true;
}

/* ---- candidates --------------------------------------------------------------------------- */

/* The candidate that two neighbours spell, made when new; KILN_NO_ID when out of memory. */
static uint32_t spell(struct trainer *t, uint32_t left, uint32_t right) {
    uint32_t at = kiln_pairs_get(&t->spelled, left, right);
    if (at != KILN_NO_ID) {
        return at;
    }
    char name[LONGEST_WORD + 2];
    size_t n, m;
    const char *a = kiln_piece(&t->v, left, &n);
    const char *b = kiln_piece(&t->v, right, &m);
    memcpy(name, a, n);
    memcpy(name + n, b, m);
    uint32_t before = t->names.n;
    at = strings_put_copy(t, &t->names, name, n + m);
    if (at == KILN_NO_ID) {
        return at;
    }
    if (at == before) {
        void *candidates = t->candidates;
        if (!one_more(&candidates, at, &t->candidates_room, sizeof *t->candidates)) {
            t->names.n = before; /* trainer_fini walks as many candidates as names */
            return KILN_NO_ID;
        }
        t->candidates = candidates;
        t->candidates[at] = (struct candidate){.token = KILN_NO_ID};
    }
    return kiln_pairs_put(&t->spelled, left, right, at) ? at : KILN_NO_ID;
}

static bool touch(struct trainer *t, uint32_t at) {
    struct candidate *c = &t->candidates[at];
    if (c->touched) {
        return true;
    }
    void *touched = t->touched;
    if (!one_more(&touched, t->n_touched, &t->touched_room, sizeof *t->touched)) {
        return false;
    }
    t->touched = touched;
    t->touched[t->n_touched++] = at;
    c->touched = true;
    return true;
}

/* Note that candidate `at` may stand in `word`. */
static bool list_word(struct candidate *c, uint32_t word) {
    if (c->n_words > 0 && c->word[c->n_words - 1] == word) {
        return true;
    }
    void *list = c->word;
    if (!one_more(&list, c->n_words, &c->room, sizeof *c->word)) {
        return false;
    }
    c->word = list;
    c->word[c->n_words++] = word;
    return true;
}

/* Symbols i and i+1 of a word are neighbours from now on. */
static bool add_pair(struct trainer *t, uint32_t word, uint32_t i) {
    struct word *w = &t->words[word];
    w->pair[i] = KILN_NO_ID;
    if (i + 1 >= w->n || w->symbol[i] == KILN_NO_ID || w->symbol[i + 1] == KILN_NO_ID) {
        return true;
    }
    uint32_t at = spell(t, w->symbol[i], w->symbol[i + 1]);
    if (at == KILN_NO_ID || !touch(t, at)) {
        return false;
    }
    w->pair[i] = at;
    t->candidates[at].count += w->count;
    return list_word(&t->candidates[at], word);
}

/* They are so no longer. */
static void remove_pair(struct trainer *t, uint32_t word, uint32_t i) {
    const struct word *w = &t->words[word];
    if (w->pair[i] != KILN_NO_ID) {
        t->candidates[w->pair[i]].count -= w->count;
    }
}

/* ---- the most frequent candidate ---------------------------------------------------------- */

static bool more_frequent(const struct trainer *t, struct offer a, struct offer b) {
    if (a.count != b.count) {
        return a.count > b.count;
    }
    return by_bytes(&t->names.item[a.candidate], &t->names.item[b.candidate]) < 0;
}

static bool push(struct trainer *t, uint32_t candidate) {
    void *heap = t->heap;
    if (!one_more(&heap, t->heap_n, &t->heap_room, sizeof *t->heap)) {
        return false;
    }
    t->heap = heap;
    struct offer offer = {t->candidates[candidate].count, candidate};
    uint32_t at = t->heap_n++;
    for (; at > 0 && more_frequent(t, offer, t->heap[(at - 1) / 2]); at = (at - 1) / 2) {
        t->heap[at] = t->heap[(at - 1) / 2];
    }
    t->heap[at] = offer;
    return true;
}

static struct offer pop(struct trainer *t) {
    struct offer first = t->heap[0];
    struct offer last = t->heap[--t->heap_n];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= t->heap_n) {
            break;
        }
        if (child + 1 < t->heap_n && more_frequent(t, t->heap[child + 1], t->heap[child])) {
            child++;
        }
        if (!more_frequent(t, t->heap[child], last)) {
            break;
        }
        t->heap[at] = t->heap[child];
        at = child;
    }
    t->heap[at] = last;
    return first;
}

static bool push_touched(struct trainer *t) {
    for (uint32_t i = 0; i < t->n_touched; i++) {
        t->candidates[t->touched[i]].touched = false;
        if (!push(t, t->touched[i])) {
            return false;
        }
    }
    t->n_touched = 0;
    return true;
}

/* A pair seen once teaches nothing. */
enum { LEAST_COUNT = 2 };

/* Take the most frequent candidate off the heap. Offers whose count fell are put back with the
 * count of today; one whose count rose has a newer offer. KILN_NO_ID when none is left. */
static bool most_frequent(struct trainer *t, uint32_t *best) {
    *best = KILN_NO_ID;
    while (t->heap_n > 0) {
        struct offer offer = pop(t);
        const struct candidate *c = &t->candidates[offer.candidate];
        if (c->token != KILN_NO_ID || c->count < LEAST_COUNT || offer.count < c->count) {
            continue;
        }
        if (offer.count == c->count) {
            *best = offer.candidate;
            return true;
        }
        if (!push(t, offer.candidate)) {
            return false;
        }
    }
    return true;
}

/* ---- learning ----------------------------------------------------------------------------- */

static bool merge_at(struct trainer *t, uint32_t word, uint32_t i, uint32_t token) {
    struct word *w = &t->words[word];
    uint32_t behind = w->n - i - 2; /* symbols after the two */
    if (i > 0) {
        remove_pair(t, word, i - 1);
    }
    remove_pair(t, word, i);
    remove_pair(t, word, i + 1);
    w->symbol[i] = token;
    w->n--;
    memmove(w->symbol + i + 1, w->symbol + i + 2, behind * sizeof *w->symbol);
    memmove(w->pair + i + 1, w->pair + i + 2, behind * sizeof *w->pair);
    return (i == 0 || add_pair(t, word, i - 1)) && add_pair(t, word, i);
}

/* The encoder's rule: the earliest token that two neighbours spell, leftmost of equals, until
 * none is left. */
static bool merge_on(struct trainer *t, uint32_t word) {
    const struct word *w = &t->words[word];
    for (;;) {
        uint32_t best = KILN_NO_ID;
        uint32_t best_at = 0;
        for (uint32_t i = 0; i + 1 < w->n; i++) {
            if (w->pair[i] != KILN_NO_ID && t->candidates[w->pair[i]].token < best) {
                best = t->candidates[w->pair[i]].token;
                best_at = i;
            }
        }
        if (best == KILN_NO_ID) {
            return true;
        }
        if (!merge_at(t, word, best_at, best)) {
            return false;
        }
    }
}

/* Make the candidate a token and merge it in every word. */
static bool adopt(struct trainer *t, uint32_t candidate) {
    const struct string *name = &t->names.item[candidate];
    t->candidates[candidate].token = (uint32_t)t->v.n;
    if (!kiln_vocabulary_add(&t->v, name->bytes, name->size, next_score(t))) {
        return false;
    }
    for (uint32_t i = 0; i < t->candidates[candidate].n_words; i++) {
        /* a word that holds it no more is left as it is */
        if (!merge_on(t, t->candidates[candidate].word[i])) {
            return false;
        }
    }
    return push_touched(t);
}

static bool prepare(struct trainer *t, struct kiln_documents *documents, size_t vocab) {
    const char *text;
    size_t size, total;
    while (kiln_documents_next(documents, &text, &size)) {
        if (!count_document(t, text, size)) {
            return false;
        }
    }
    if (!kiln_vocabulary_add_controls(&t->v)) {
        return false;
    }
    for (int byte = 0; byte < 256; byte++) {
        char name[7];
        kiln_byte_piece((unsigned char)byte, name);
        if (!kiln_vocabulary_add(&t->v, name, 6, 0.0f)) {
            return false;
        }
    }
    if (!count_characters(t, &total) || !add_characters(t, vocab) || !split_words(t, total)) {
        return false;
    }
    for (uint32_t w = 0; w < t->texts.n; w++) {
        for (uint32_t i = 0; i < t->words[w].n; i++) {
            if (!add_pair(t, w, i)) {
                return false;
            }
        }
    }
    return push_touched(t);
}

/* Learn until there are `vocab` ids or nothing is left to learn; false when out of memory. */
static bool learn(struct trainer *t, size_t vocab) {
    while (t->v.n < vocab) {
        uint32_t best;
        if (!most_frequent(t, &best)) {
            return false;
        }
        if (best == KILN_NO_ID) {
            return true;
        }
        if (!adopt(t, best)) {
            return false;
        }
    }
    return true;
}

enum kiln_status kiln_tokenizer_train(const char *text, size_t size, const char *separator,
                                      size_t vocab, struct kiln_tokenizer **out,
                                      struct kiln_err *err) {
    *out = NULL;
    KILN_REQUIRE(
        vocab > KILN_ID_LEARNED && vocab <= KILN_MAX_IDS, err, KILN_EUSAGE,
        "a vocabulary of %zu cannot be learned: give %d to %zu (3 controls, 256 bytes, the "
        "blank, and what is learned)",
        vocab, KILN_ID_LEARNED + 1, KILN_MAX_IDS);
    struct trainer t = {0};
    struct kiln_documents documents;
    kiln_documents_init(&documents, text, size, separator, false);
    enum kiln_status status = KILN_OK;
    if (!prepare(&t, &documents, vocab) || !learn(&t, vocab)) {
        status =
            KILN_FAIL(err, KILN_ENOMEM,
                      "learning a vocabulary of %zu from %zu bytes: out of memory", vocab, size);
    } else if (t.v.n < vocab) {
        status = KILN_FAIL(err, KILN_EINPUT,
                           "%zu bytes of text are too few for a vocabulary of %zu: they teach %zu "
                           "tokens; ask for at most that many or give more text",
                           size, vocab, t.v.n);
    } else {
        status = kiln_tokenizer_build(&t.v, "trained", out, err);
    }
    trainer_fini(&t);
    if (status == KILN_OK) {
        status = kiln_tokenizer_stamp(*out, err);
        if (status != KILN_OK) {
            kiln_tokenizer_destroy(*out);
            *out = NULL;
        }
    }
    return status;
}
