/* SPDX-License-Identifier: MIT */
#include "ranks/tree.h"

struct kiln_share kiln_share_of(uint64_t micro_batches, size_t ranks, size_t rank) {
    const uint64_t first = rank * micro_batches / ranks;
    return (struct kiln_share){.first = first, .n = (rank + 1) * micro_batches / ranks - first};
}

unsigned kiln_tree_level(uint64_t first, uint64_t end) {
    unsigned level = 0;
    while ((first & ((UINT64_C(2) << level) - 1)) == 0 && end - first >= UINT64_C(2) << level) {
        level++;
    }
    return level;
}

size_t kiln_tree_nodes(uint64_t first, uint64_t end) {
    size_t n = 0;
    for (; first < end; n++) {
        first += UINT64_C(1) << kiln_tree_level(first, end);
    }
    return n;
}

size_t kiln_tree_places(uint64_t first, uint64_t end) {
    size_t most = 0;
    for (uint64_t i = first; i < end; i++) {
        const size_t n = kiln_tree_nodes(first, i) + 1;
        most = n > most ? n : most;
    }
    return most;
}

size_t kiln_tree_give(struct kiln_tree *tree, unsigned level) {
    const uint64_t first = tree->next;
    size_t added = 0;
    tree->next += UINT64_C(1) << level;
    tree->level[tree->n++] = level;
    /* The last two are halves of one node when the left one begins where that does. */
    for (uint64_t left = first; tree->n > 1; added++) {
        const unsigned last = tree->level[tree->n - 1];
        if (tree->level[tree->n - 2] != last) {
            break;
        }
        left -= UINT64_C(1) << last;
        if ((left & ((UINT64_C(2) << last) - 1)) != 0) {
            break;
        }
        tree->n--;
        tree->level[tree->n - 1]++;
    }
    return added;
}

size_t kiln_tree_end(struct kiln_tree *tree) {
    const size_t added = tree->n > 0 ? tree->n - 1 : 0;
    tree->n -= added;
    return added;
}
