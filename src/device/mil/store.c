/* SPDX-License-Identifier: MIT
 *
 * store.c: a list of chunks. Small pieces share one, a large piece has its own.
 */
#include "device/mil/store.h"

#include <string.h>

#include "base/mem.h"

enum { CHUNK = 16384, SMALL = 1024, HEAD = 64, ALIGNMENT = 16 };

struct kiln_mil_chunk {
    struct kiln_mil_chunk *older;
    size_t used, size; /* behind the head */
};
_Static_assert(sizeof(struct kiln_mil_chunk) <= HEAD, "the head has room for its members");

static struct kiln_mil_chunk *new_chunk(struct kiln_mil_store *store, size_t size) {
    size_t bytes;
    if (kiln_add_overflows(size, HEAD, &bytes)) {
        return NULL;
    }
    struct kiln_mil_chunk *chunk = kiln_alloc(bytes, 1);
    if (chunk == NULL) {
        return NULL;
    }
    chunk->size = size;
    chunk->older = store->newest;
    store->newest = chunk;
    return chunk;
}

void *kiln_mil_take(struct kiln_mil_store *store, size_t n, size_t size) {
    size_t bytes;
    if (kiln_mul_overflows(n, size, &bytes) || kiln_add_overflows(bytes, ALIGNMENT, &bytes)) {
        return NULL;
    }
    bytes = (bytes - 1) / ALIGNMENT * ALIGNMENT;
    struct kiln_mil_chunk *chunk = store->newest;
    if (chunk == NULL || chunk->size - chunk->used < bytes) {
        chunk = new_chunk(store, bytes > SMALL ? bytes : CHUNK);
        if (chunk == NULL) {
            return NULL;
        }
    }
    unsigned char *piece = (unsigned char *)chunk + HEAD + chunk->used;
    chunk->used += bytes;
    return piece;
}

void *kiln_mil_grow(struct kiln_mil_store *store, void *list, size_t n, size_t *room, size_t size) {
    if (n < *room) {
        return list;
    }
    const size_t more = *room > 0 ? *room * 2 : 8;
    void *larger = kiln_mil_take(store, more, size);
    if (larger == NULL) {
        return NULL;
    }
    if (n > 0) {
        memcpy(larger, list, n * size);
    }
    *room = more;
    return larger;
}

char *kiln_mil_copy(struct kiln_mil_store *store, const char *text, size_t n) {
    char *copy = kiln_mil_take(store, n + 1, 1);
    if (copy != NULL && n > 0) {
        memcpy(copy, text, n);
    }
    return copy;
}

void kiln_mil_empty(struct kiln_mil_store *store) {
    while (store->newest != NULL) {
        struct kiln_mil_chunk *older = store->newest->older;
        kiln_free(store->newest);
        store->newest = older;
    }
}
