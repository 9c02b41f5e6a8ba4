/* SPDX-License-Identifier: MIT
 *
 * normalizer.h: text as the merges expect it. Inside src/text only.
 */
#ifndef KILN_TEXT_NORMALIZER_H
#define KILN_TEXT_NORMALIZER_H

#include "text/text_int.h"

struct kiln_matcher;

/* Bytes that grow. Zero it to begin; kiln_bytes_free it. */
struct kiln_bytes {
    char *data;
    size_t n, room;
};
bool kiln_bytes_put(struct kiln_bytes *bytes, const char *data, size_t size);
void kiln_bytes_free(struct kiln_bytes *bytes);

/* The work space of one thread. */
struct kiln_normalizer {
    const struct kiln_tokenizer *tok;
    struct kiln_matcher **matcher; /* [n_rewrites]; NULL where there is no pattern */
    struct kiln_bytes text[2];     /* what a step leaves, what the next makes of it */
};
KILN_MUST_CHECK enum kiln_status kiln_normalizer_open(struct kiln_normalizer *n,
                                                      const struct kiln_tokenizer *tok,
                                                      struct kiln_err *err);
void kiln_normalizer_close(struct kiln_normalizer *n);

/* Put a stretch of UTF-8 through the steps. Most text comes out as it goes in: then *out is `text`
 * itself, and nothing is copied; else it is valid until the next call. `prefix`: with a blank
 * before it, unless nothing is left of it. */
KILN_MUST_CHECK enum kiln_status kiln_normalize(struct kiln_normalizer *n, const char *text,
                                                size_t size, bool prefix, const char **out,
                                                size_t *out_size, struct kiln_err *err);
/* The same once, into memory of its own (kiln_free), with a blank before it where the normalizer
 * puts one before every stretch. */
KILN_MUST_CHECK enum kiln_status kiln_normalize_copy(const struct kiln_tokenizer *tok,
                                                     const char *text, size_t size, char **out,
                                                     size_t *out_size, struct kiln_err *err);

/* Is this character never changed by NFC, and never joined with what stands before it? Not told
 * of every such character (normalizer.c). */
bool kiln_nfc_inert(uint32_t code);

#endif
