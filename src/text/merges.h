/* SPDX-License-Identifier: MIT
 *
 * merges.h: which two ids merge into which. Inside src/text only.
 */
#ifndef KILN_TEXT_MERGES_H
#define KILN_TEXT_MERGES_H

#include "text/text_int.h"

/* Fill tok->merges, first, last and joins from its parts; false when out of memory. A word may be
 * cut between two ids where no merge joins the class that ends one and the class that begins the
 * other: whatever is merged on either side begins and ends with the same characters. */
bool kiln_merges_index(struct kiln_tokenizer *tok);

static inline uint64_t kiln_merge_hash(uint32_t left, uint32_t right) {
    return kiln_hash_spread(((uint64_t)left << 32 | right) * KILN_HASH_BASE);
}
/* What two ids merge into; its id is KILN_NO_ID when they do not. */
static inline struct kiln_merged kiln_merge_of(const struct kiln_merge_table *table, uint32_t left,
                                               uint32_t right) {
    if (table->room == 0) {
        return (struct kiln_merged){UINT32_MAX, KILN_NO_ID};
    }
    size_t at = kiln_merge_hash(left, right) & (table->room - 1);
    const struct kiln_merge_slot *slot = &table->slot[at];
    while (slot->to.id != KILN_NO_ID && (slot->left != left || slot->right != right)) {
        at = (at + 1) & (table->room - 1);
        slot = &table->slot[at];
    }
    return slot->to;
}
static inline bool kiln_joins(const struct kiln_tokenizer *tok, uint32_t left, uint32_t right) {
    uint8_t b = tok->first[right];
    return tok->joins[tok->last[left]][b >> 6] >> (b & 63) & 1;
}

/* The work space of merging words one after another (merge_word.c); .tok is set by its owner. */
struct kiln_heap_entry;
struct kiln_word_merger {
    const struct kiln_tokenizer *tok;
    struct kiln_heap_entry *heap;
    size_t heap_room;
    size_t *link; /* previous and next of each symbol of a long word */
};
/* Merge n ids in place; *n becomes how many are left. False when out of memory. */
bool kiln_merge_word(struct kiln_word_merger *m, uint32_t *id, size_t *n);
void kiln_word_merger_fini(struct kiln_word_merger *m);

/* Per id its rank by score, equal for equal scores; kiln_free it. NULL when out of memory. */
uint32_t *kiln_score_ranks(const struct kiln_vocabulary *v);
/* Does a piece come of merging by its score? */
bool kiln_merges_scored(const struct kiln_tokenizer *tok, uint32_t id);
/* Every (left, right) that spells `id`, shortest left first, until the function says false. */
typedef bool (*kiln_cut_fn)(void *context, uint32_t left, uint32_t right, uint32_t id);
bool kiln_each_cut(const struct kiln_tokenizer *tok, uint32_t id, kiln_cut_fn cut, void *context);

/* All merges in the order of their ranks, also where they follow from scores; kiln_free *out. False
 * when out of memory (json_write.c). */
bool kiln_list_merges(const struct kiln_tokenizer *tok, struct kiln_merge **out, size_t *n);

/* kiln_tokenizer_find with the hash at hand; *slot (NULL: unasked) gets where it is or would be. */
uint32_t kiln_tokenizer_find_hashed(const struct kiln_tokenizer *tok, uint64_t hash,
                                    const char *bytes, size_t size, size_t *slot);

#endif
