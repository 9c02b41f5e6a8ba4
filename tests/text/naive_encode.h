/* SPDX-License-Identifier: MIT
 *
 * naive_encode.h: llama2.c's encoder as it is written there, quadratic, to compare with. It reads
 * tokenizer.bin by itself and shares no code with the library.
 */
#ifndef KILN_TESTS_NAIVE_ENCODE_H
#define KILN_TESTS_NAIVE_ENCODE_H

#include <stddef.h>
#include <stdint.h>

struct naive_vocabulary {
    char (*piece)[128]; /* zero-terminated */
    float *score;
    int n;
};
void naive_open(struct naive_vocabulary *v, const char *path);
void naive_close(struct naive_vocabulary *v);
/* Ids of a zero-terminated text, the blank before it included; room for strlen(text) + 1. */
size_t naive_encode(const struct naive_vocabulary *v, const char *text, uint32_t *ids);

#endif
