/* SPDX-License-Identifier: MIT
 *
 * text_files.h: text files as tests make them, compressed, and read.
 */
#ifndef TEXT_FILES_H
#define TEXT_FILES_H

#include <stddef.h>

/* Heap, for kiln_free. */
struct test_bytes {
    unsigned char *at;
    size_t n;
};

typedef struct test_bytes test_pack_fn(const char *text, size_t size);
test_pack_fn test_gzipped, test_zstandard;
extern test_pack_fn *const test_packers[2]; /* both of them */

/* The text of a file (at most 1 MiB), as the stream gives it, some bytes at a time. */
struct test_bytes test_stream(const char *path, size_t step);
/* The first n bytes of the file are refused, in a message that has `part`; nothing is written. */
void test_damaged(const struct test_bytes *file, size_t n, const char *part);

#endif
