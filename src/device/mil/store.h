/* SPDX-License-Identifier: MIT
 *
 * store.h: memory that grows piece by piece and is freed as a whole.
 */
#ifndef KILN_DEVICE_MIL_STORE_H
#define KILN_DEVICE_MIL_STORE_H

#include <stddef.h>

struct kiln_mil_store {
    struct kiln_mil_chunk *newest;
};

/* n elements of `size` bytes, zeroed, 16-byte aligned. NULL: out of memory, or n*size overflows. */
void *kiln_mil_take(struct kiln_mil_store *store, size_t n, size_t size);
/* Room for one more element behind the n that `list` has; *room is doubled when it must be, and
 * the old list stays in the store. NULL: out of memory. */
void *kiln_mil_grow(struct kiln_mil_store *store, void *list, size_t n, size_t *room, size_t size);
/* n bytes and a zero. */
char *kiln_mil_copy(struct kiln_mil_store *store, const char *text, size_t n);
void kiln_mil_empty(struct kiln_mil_store *store);

#endif
