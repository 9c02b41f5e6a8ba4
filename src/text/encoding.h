/* SPDX-License-Identifier: MIT
 *
 * encoding.h: texts that are not plain UTF-8: with a byte order mark, or in UTF-16 or UTF-32.
 * Inside src/text only.
 *
 * A mark (U+FEFF as the first character: Unicode 23.8, "Byte Order Mark") says which it is, and is
 * no part of the text. Without one, zeros do: in Latin text every second byte of UTF-16 and three
 * of four of UTF-32 are zero, and always the same ones. Other scripts in UTF-16 without a mark
 * cannot be told from bytes, and stay bytes.
 */
#ifndef KILN_TEXT_ENCODING_H
#define KILN_TEXT_ENCODING_H

#include <stdbool.h>
#include <stddef.h>

struct kiln_encoding {
    const char *name;  /* as a message has it; NULL: UTF-8 without a mark, or bytes */
    const char *iconv; /* as iconv -f has it */
    size_t mark;       /* its bytes: 0, 2, 3 or 4 */
    size_t unit;       /* bytes of a code unit: 1, 2 or 4 */
    bool big;          /* its first byte is the highest */
};

/* What a text is that begins with these bytes; of more than KILN_ENCODING_LOOK the first count. */
enum { KILN_ENCODING_LOOK = 1024 };
struct kiln_encoding kiln_encoding_of(const unsigned char *bytes, size_t n);

/* Whole characters of bytes[n], units of 2 or 4 bytes, as UTF-8: *taken of the bytes become *made
 * at `out`, which has room for 2 n. What is left is the beginning of a character, or where false
 * comes back, of none: half a surrogate pair, or beyond U+10FFFF. */
bool kiln_encoding_convert(const struct kiln_encoding *encoding, const unsigned char *bytes,
                           size_t n, size_t *taken, char *out, size_t *made);

#endif
