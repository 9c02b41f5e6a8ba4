/* SPDX-License-Identifier: MIT
 *
 * mem.h: heap memory with checked sizes, and arenas.
 *
 * All heap use of the library goes through here, so that a product of sizes can never overflow. A
 * training step after the first allocates nothing (tests/train/test_waste.c).
 */
#ifndef KILN_BASE_MEM_H
#define KILN_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

/* out = a*b or a+b; true when it overflows size_t (out is then untouched). */
#define kiln_mul_overflows(a, b, out) __builtin_mul_overflow((size_t)(a), (size_t)(b), (out))
#define kiln_add_overflows(a, b, out) __builtin_add_overflow((size_t)(a), (size_t)(b), (out))

static inline size_t kiln_least(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t kiln_largest(size_t a, size_t b) { return a > b ? a : b; }

/* n elements of `size` bytes, zeroed, 64-byte aligned. NULL when out of memory or n*size
 * overflows; the caller reports it. Free with kiln_free. n*size of 0 gives a valid block. */
void *kiln_alloc(size_t n, size_t size);

/* Grow (or shrink) a block from kiln_alloc that holds `old_n` elements to `n`; new elements are
 * zero. On failure returns NULL and the old block stays valid. */
void *kiln_realloc(void *block, size_t old_n, size_t n, size_t size);

/* Free a block from kiln_alloc; NULL is fine. */
void kiln_free(void *block);

/* Heap copy of a string or of n bytes plus a terminating zero; NULL when out of memory. */
char *kiln_strdup(const char *s);
char *kiln_strndup(const char *s, size_t n);

/* "dir/name" on the heap; NULL when out of memory. */
char *kiln_path_join(const char *dir, const char *name);

/* Round n up to a multiple of `to` (to > 0; the caller has checked for overflow). */
static inline size_t kiln_round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* An arena: one anonymous mapping, cut from the front, freed as a whole.
 *
 *   base                    used                         size
 *   |- block - block - block -|........................... |
 *
 * Every block starts on a 64-byte boundary. Sizes are planned first (kiln_arena_reserve adds one
 * block to a plan), then mapped once: kiln_arena_open fails or every planned block fits. Pages
 * are touched by their first user; large arenas ask for huge pages.
 */
struct kiln_arena {
    unsigned char *base;
    size_t size; /* bytes mapped */
    size_t used; /* bytes handed out */
};

/* Add a block of `bytes` to a planned size. */
static inline size_t kiln_arena_reserve(size_t planned, size_t bytes) {
    return planned + kiln_round_up(bytes, 64);
}

KILN_MUST_CHECK enum kiln_status kiln_arena_open(struct kiln_arena *arena, size_t size,
                                                 struct kiln_err *err);
/* The next block, zeroed by the system on first touch; NULL when the plan was too small. */
void *kiln_arena_take(struct kiln_arena *arena, size_t bytes);
void kiln_arena_close(struct kiln_arena *arena);

/* Room of `bytes` for each of some threads, zeroed by the system on first touch. No two share a
 * page and none is touched here, so pages of a thread lie where that thread runs. */
struct kiln_scratch {
    void **of; /* [threads] */
    size_t threads, bytes;
};
KILN_MUST_CHECK enum kiln_status kiln_scratch_open(struct kiln_scratch *scratch, size_t threads,
                                                   size_t bytes, struct kiln_err *err);
/* One that is zero is fine. */
void kiln_scratch_close(struct kiln_scratch *scratch);

#endif
