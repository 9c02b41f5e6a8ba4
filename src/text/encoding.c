/* SPDX-License-Identifier: MIT */
#include "text/encoding.h"

#include <stdint.h>
#include <string.h>

#include "text/utf8.h"

/* ---- which it is ----------------------------------------------------------------------------- */

static const struct {
    struct kiln_encoding encoding;
    unsigned char mark[4];
} marked[] = {
    /* UTF-32 first: the mark of UTF-16, little end first, begins that of UTF-32 */
    {{"UTF-32, little end first", "UTF-32LE", 4, 4, false}, {0xFF, 0xFE, 0x00, 0x00}},
    {{"UTF-32, big end first", "UTF-32BE", 4, 4, true}, {0x00, 0x00, 0xFE, 0xFF}},
    {{"UTF-16, little end first", "UTF-16LE", 2, 2, false}, {0xFF, 0xFE}},
    {{"UTF-16, big end first", "UTF-16BE", 2, 2, true}, {0xFE, 0xFF}},
    {{"UTF-8 with a byte order mark", "UTF-8", 3, 1, false}, {0xEF, 0xBB, 0xBF}},
};
enum { MARKED = sizeof marked / sizeof marked[0] };

/* Too few units say nothing; and a few of other scripts are among Latin ones. */
enum { LEAST_UNITS = 8, MOST_OTHERS = 16 /* one of so many */ };

/* Are these units of Latin text: the lowest byte is not zero, the others are? */
static bool looks_latin(const struct kiln_encoding *e, const unsigned char *bytes, size_t n) {
    const size_t units = n / e->unit;
    size_t others = 0;
    for (size_t i = 0; i < units; i++) {
        const unsigned char *unit = bytes + i * e->unit;
        size_t zeros = 0;
        for (size_t k = 0; k < e->unit; k++) {
            zeros += unit[k] == 0;
        }
        const unsigned char lowest = unit[e->big ? e->unit - 1 : 0];
        others += lowest == 0 || zeros != e->unit - 1;
    }
    return units >= LEAST_UNITS && others <= units / MOST_OTHERS;
}

struct kiln_encoding kiln_encoding_of(const unsigned char *bytes, size_t n) {
    n = n < KILN_ENCODING_LOOK ? n : KILN_ENCODING_LOOK;
    for (size_t i = 0; i < MARKED; i++) {
        const size_t mark = marked[i].encoding.mark;
        if (n >= mark && memcmp(bytes, marked[i].mark, mark) == 0) {
            return marked[i].encoding;
        }
    }
    for (size_t i = 0; i < MARKED; i++) {
        struct kiln_encoding e = marked[i].encoding;
        if (e.unit > 1 && looks_latin(&e, bytes, n)) {
            e.mark = 0;
            return e;
        }
    }
    return (struct kiln_encoding){.unit = 1};
}

/* ---- into UTF-8 ------------------------------------------------------------------------------ */

static uint32_t read_unit(const struct kiln_encoding *e, const unsigned char *bytes) {
    uint32_t unit = 0;
    for (size_t k = 0; k < e->unit; k++) {
        unit |= (uint32_t)bytes[k] << 8 * (e->big ? e->unit - 1 - k : k);
    }
    return unit;
}

static bool is_high(uint32_t unit) { return unit >= 0xD800 && unit < 0xDC00; }
static bool is_low(uint32_t unit) { return unit >= 0xDC00 && unit < 0xE000; }

bool kiln_encoding_convert(const struct kiln_encoding *e, const unsigned char *bytes, size_t n,
                           size_t *taken, char *out, size_t *made) {
    size_t at = 0;
    bool right = true;
    *made = 0;
    while (n - at >= e->unit) {
        uint32_t code = read_unit(e, bytes + at);
        size_t length = e->unit;
        if (e->unit == 2 && is_high(code)) {
            if (n - at < 2 * e->unit) {
                break;
            }
            const uint32_t low = read_unit(e, bytes + at + 2);
            code = is_low(low) ? 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00) : code;
            length = 2 * e->unit;
        }
        right = code < 0x110000 && !is_high(code) && !is_low(code);
        if (!right) {
            break;
        }
        *made += kiln_utf8_write(code, out + *made);
        at += length;
    }
    *taken = at;
    return right;
}
