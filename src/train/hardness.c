/* SPDX-License-Identifier: MIT */
#include "train/hardness.h"

#include <math.h>
#include <stdbool.h>

#include "base/mem.h"

/* Counts by key: of a context, its ids so far and how many were new; of an id behind a context, how
 * often it came. Open addressing, never full. */
struct count {
    uint64_t key; /* 0: free */
    uint32_t n, different;
};
struct counts {
    struct count *slot;
    size_t mask;
};

static struct count *find(const struct counts *counts, uint64_t key) {
    size_t at = (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 20) & counts->mask;
    while (counts->slot[at].key != 0 && counts->slot[at].key != key) {
        at = (at + 1) & counts->mask;
    }
    counts->slot[at].key = key;
    return &counts->slot[at];
}

/* Contexts of 0, 1 and 2 ids, and ids behind them, never meet in one key: ids have 20 bits. */
static uint64_t key_of(unsigned order, bool with_id, uint64_t before, uint64_t last, uint64_t id) {
    const uint64_t tag = 1 + 2 * (uint64_t)order + with_id;
    return tag << 60 | (order > 1 ? before : 0) << 40 | (order > 0 ? last : 0) << 20 |
           (with_id ? id : 0);
}

double kiln_trigram_bits(const uint32_t *ids, size_t n, size_t vocab) {
    struct counts counts = {.mask = 1023};
    double bits = 0;
    while (counts.mask + 1 < 16 * n) {
        counts.mask = 2 * counts.mask + 1;
    }
    counts.slot = n >= 16 && vocab < ((size_t)1 << 20)
                      ? kiln_alloc(counts.mask + 1, sizeof *counts.slot)
                      : NULL;
    if (counts.slot == NULL) {
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        const uint64_t id = ids[i], last = i > 0 ? ids[i - 1] : 0, before = i > 1 ? ids[i - 2] : 0;
        double p = 1.0 / (double)vocab;
        for (unsigned order = 0; order < 3; order++) {
            struct count *context = find(&counts, key_of(order, false, before, last, 0));
            struct count *one = find(&counts, key_of(order, true, before, last, id));
            if (context->n > 0) {
                p = ((double)one->n + (double)context->different * p) /
                    (double)(context->n + context->different);
            }
            context->different += one->n == 0;
            context->n++;
            one->n++;
        }
        bits -= i >= n / 2 ? log2(p) : 0;
    }
    kiln_free(counts.slot);
    const size_t counted = n - n / 2;
    return bits / (double)counted;
}
