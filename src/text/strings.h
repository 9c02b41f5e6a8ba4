/* SPDX-License-Identifier: MIT
 *
 * strings.h: strings that are told apart by their bytes, numbered 0, 1, 2... in the order in which
 * they came.
 */
#ifndef KILN_TEXT_STRINGS_H
#define KILN_TEXT_STRINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kiln_string {
    const char *bytes;
    size_t size;
};

/* Zero it to begin. */
struct kiln_strings {
    struct kiln_string *item;
    uint32_t n, room;
    uint64_t
        *slot; /* open addressing: half of the hash and the number, so that few strings are read */
    size_t slots;
    struct kiln_kept *kept; /* blocks of bytes that were copied */
    size_t kept_bytes;
};

/* The number of a string; a new one is n-1 afterwards. KILN_NO_ID when out of memory. The bytes
 * must stay where they are. */
uint32_t kiln_strings_put(struct kiln_strings *s, const char *bytes, size_t size);
/* The same; the bytes of a new string are copied. */
uint32_t kiln_strings_put_copy(struct kiln_strings *s, const char *bytes, size_t size);
/* The number of a string, KILN_NO_ID when it is not there. */
uint32_t kiln_strings_find(const struct kiln_strings *s, const char *bytes, size_t size);
/* Forget all strings, keep the memory. */
void kiln_strings_clear(struct kiln_strings *s);
void kiln_strings_fini(struct kiln_strings *s);

/* Byte order; a string before those it begins. */
int kiln_string_order(const struct kiln_string *a, const struct kiln_string *b);

/* Make room for one more element behind n; false when out of memory. `block` points at a pointer
 * to elements of `size` bytes from kiln_alloc, *room at how many it holds. */
bool kiln_one_more(void *block, size_t n, uint32_t *room, size_t size);

#endif
