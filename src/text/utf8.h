/* SPDX-License-Identifier: MIT
 *
 * utf8.h: UTF-8, character by character. Inside src/text only.
 */
#ifndef KILN_TEXT_UTF8_H
#define KILN_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* U+2581, which stands for a blank in the pieces of SentencePiece-like tokenizers. */
#define KILN_LOWER_BLOCK "\xE2\x96\x81"

/* Bytes of the character that begins at text[0], 0 when these bytes are not UTF-8 (RFC 3629: no
 * overlong forms, no surrogates, nothing beyond U+10FFFF). size > 0. */
size_t kiln_utf8_length(const char *text, size_t size);
/* The same, with the character. Not UTF-8: *code is untouched. */
size_t kiln_utf8_read(const char *text, size_t size, uint32_t *code);
/* Write a character (below 0x110000, no surrogate); returns how many bytes, at most 4. */
size_t kiln_utf8_write(uint32_t code, char *out);
/* Where the first byte from `from` on lies that is not UTF-8; size when all is. */
size_t kiln_utf8_bad_at(const char *text, size_t size, size_t from);
/* Bytes that are not UTF-8. */
size_t kiln_utf8_bad_bytes(const char *text, size_t size);

/* Bytes at the end that begin a character whose rest is missing: 0 to 3. */
size_t kiln_utf8_unfinished(const char *text, size_t size);

/* Unicode's White_Space, and what a regular expression's \w is. */
bool kiln_is_space(uint32_t code);
bool kiln_is_word(uint32_t code);

#endif
