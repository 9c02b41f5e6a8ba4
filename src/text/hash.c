/* SPDX-License-Identifier: MIT
 *
 * hash.c: hashes of pieces, and the table from a pair of ids to the id they merge into.
 */
#include "base/mem.h"
#include "text/text_int.h"

#define EMPTY UINT64_MAX /* (NO_ID, NO_ID) is no pair */

uint64_t kiln_hash_bytes(const char *bytes, size_t size) {
    uint64_t hash = 0;
    for (size_t i = 0; i < size; i++) {
        hash = kiln_hash_step(hash, (unsigned char)bytes[i]);
    }
    return hash;
}

/* The place of a key, or the empty place where it would go. */
static size_t place_of(const struct kiln_pairs *pairs, uint64_t key) {
    size_t at = kiln_hash_spread(key * KILN_HASH_BASE) & (pairs->room - 1);
    while (pairs->key[at] != EMPTY && pairs->key[at] != key) {
        at = (at + 1) & (pairs->room - 1);
    }
    return at;
}

uint32_t kiln_pairs_get(const struct kiln_pairs *pairs, uint32_t left, uint32_t right) {
    if (pairs->room == 0) {
        return KILN_NO_ID;
    }
    size_t at = place_of(pairs, (uint64_t)left << 32 | right);
    return pairs->key[at] == EMPTY ? KILN_NO_ID : pairs->value[at];
}

static bool grow(struct kiln_pairs *pairs) {
    struct kiln_pairs wider = {.n = pairs->n, .room = pairs->room ? pairs->room * 2 : 1024};
    wider.key = kiln_alloc(wider.room, sizeof *wider.key);
    wider.value = kiln_alloc(wider.room, sizeof *wider.value);
    if (wider.key == NULL || wider.value == NULL) {
        kiln_pairs_fini(&wider);
        return false;
    }
    for (size_t i = 0; i < wider.room; i++) {
        wider.key[i] = EMPTY;
    }
    for (size_t i = 0; i < pairs->room; i++) {
        if (pairs->key[i] != EMPTY) {
            size_t at = place_of(&wider, pairs->key[i]);
            wider.key[at] = pairs->key[i];
            wider.value[at] = pairs->value[i];
        }
    }
    kiln_pairs_fini(pairs);
    *pairs = wider;
    return true;
}

bool kiln_pairs_put(struct kiln_pairs *pairs, uint32_t left, uint32_t right, uint32_t value) {
    if (pairs->n * 2 >= pairs->room && !grow(pairs)) {
        return false;
    }
    size_t at = place_of(pairs, (uint64_t)left << 32 | right);
    pairs->key[at] = (uint64_t)left << 32 | right;
    pairs->value[at] = value;
    pairs->n++;
    return true;
}

void kiln_pairs_fini(struct kiln_pairs *pairs) {
    kiln_free(pairs->key);
    kiln_free(pairs->value);
    *pairs = (struct kiln_pairs){0};
}
