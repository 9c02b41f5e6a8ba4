/* SPDX-License-Identifier: MIT
 *
 * strings.c: a hash table of strings.
 */
#include "text/strings.h"

#include <string.h>

#include "base/mem.h"
#include "text/text_int.h"

enum { KEPT_BYTES = 1 << 16, LEAST_SLOTS = 1024 };
#define EMPTY UINT64_MAX

struct kiln_kept {
    struct kiln_kept *before;
    size_t used, room;
};

bool kiln_one_more(void *block, size_t n, uint32_t *room, size_t size) {
    if (n < *room) {
        return true;
    }
    void *old;
    memcpy(&old, block, sizeof old);
    const uint32_t wider = *room > 0 ? *room * 2 : 4;
    void *grown = wider > *room ? kiln_realloc(old, *room, wider, size) : NULL;
    if (grown == NULL) {
        return false;
    }
    memcpy(block, &grown, sizeof grown);
    *room = wider;
    return true;
}

int kiln_string_order(const struct kiln_string *a, const struct kiln_string *b) {
    const int order = memcmp(a->bytes, b->bytes, a->size < b->size ? a->size : b->size);
    return order != 0 ? order : (a->size > b->size) - (a->size < b->size);
}

/* The place of a string, or the empty place where it would go. */
static size_t place_of(const struct kiln_strings *s, uint64_t hash, const char *bytes,
                       size_t size) {
    size_t at = hash & (s->slots - 1);
    for (; s->slot[at] != EMPTY; at = (at + 1) & (s->slots - 1)) {
        const struct kiln_string *item = &s->item[(uint32_t)s->slot[at]];
        if (s->slot[at] >> 32 == hash >> 32 && item->size == size &&
            memcmp(item->bytes, bytes, size) == 0) {
            break;
        }
    }
    return at;
}

static uint64_t hash_of(const char *bytes, size_t size) {
    return kiln_hash_spread(kiln_hash_bytes(bytes, size));
}

static bool grow(struct kiln_strings *s) {
    const size_t slots = s->slots > 0 ? s->slots * 2 : LEAST_SLOTS;
    uint64_t *slot = kiln_alloc(slots, sizeof *slot);
    if (slot == NULL) {
        return false;
    }
    memset(slot, 0xFF, slots * sizeof *slot);
    for (uint32_t i = 0; i < s->n; i++) {
        const uint64_t hash = hash_of(s->item[i].bytes, s->item[i].size);
        size_t at = hash & (slots - 1);
        while (slot[at] != EMPTY) {
            at = (at + 1) & (slots - 1);
        }
        slot[at] = (hash >> 32) << 32 | i;
    }
    kiln_free(s->slot);
    s->slot = slot;
    s->slots = slots;
    return true;
}

/* A copy that lives as long as the table; NULL when out of memory. */
static const char *keep(struct kiln_strings *s, const char *bytes, size_t size) {
    if (s->kept == NULL || s->kept->room - s->kept->used < size) {
        const size_t room = size > KEPT_BYTES ? size : KEPT_BYTES;
        struct kiln_kept *kept = kiln_alloc(1, sizeof *kept + room);
        if (kept == NULL) {
            return NULL;
        }
        *kept = (struct kiln_kept){.before = s->kept, .room = room};
        s->kept = kept;
    }
    char *copy = (char *)(s->kept + 1) + s->kept->used;
    memcpy(copy, bytes, size);
    s->kept->used += size;
    s->kept_bytes += size;
    return copy;
}

static uint32_t put(struct kiln_strings *s, const char *bytes, size_t size, bool copy) {
    if ((size_t)s->n * 2 >= s->slots && !grow(s)) {
        return KILN_NO_ID;
    }
    const uint64_t hash = hash_of(bytes, size);
    const size_t at = place_of(s, hash, bytes, size);
    if (s->slot[at] != EMPTY) {
        return (uint32_t)s->slot[at];
    }
    if (!kiln_one_more(&s->item, s->n, &s->room, sizeof *s->item)) {
        return KILN_NO_ID;
    }
    const char *kept = copy ? keep(s, bytes, size) : bytes;
    if (kept == NULL) {
        return KILN_NO_ID;
    }
    s->item[s->n] = (struct kiln_string){kept, size};
    s->slot[at] = (hash >> 32) << 32 | s->n;
    return s->n++;
}

uint32_t kiln_strings_put(struct kiln_strings *s, const char *bytes, size_t size) {
    return put(s, bytes, size, false);
}

uint32_t kiln_strings_put_copy(struct kiln_strings *s, const char *bytes, size_t size) {
    return put(s, bytes, size, true);
}

uint32_t kiln_strings_find(const struct kiln_strings *s, const char *bytes, size_t size) {
    if (s->slots == 0) {
        return KILN_NO_ID;
    }
    const uint64_t slot = s->slot[place_of(s, hash_of(bytes, size), bytes, size)];
    return slot == EMPTY ? KILN_NO_ID : (uint32_t)slot;
}

static void drop_kept(struct kiln_strings *s) {
    while (s->kept != NULL) {
        struct kiln_kept *before = s->kept->before;
        kiln_free(s->kept);
        s->kept = before;
    }
    s->kept_bytes = 0;
}

void kiln_strings_clear(struct kiln_strings *s) {
    if (s->slots > 0) {
        memset(s->slot, 0xFF, s->slots * sizeof *s->slot);
    }
    s->n = 0;
    drop_kept(s);
}

void kiln_strings_fini(struct kiln_strings *s) {
    drop_kept(s);
    kiln_free(s->item);
    kiln_free(s->slot);
    *s = (struct kiln_strings){0};
}
