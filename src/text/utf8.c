/* SPDX-License-Identifier: MIT
 *
 * utf8.c: see utf8.h.
 */
#include "text/utf8.h"

#include <string.h>
#include <utf8proc.h>

static bool is_tail(char c) { return ((unsigned char)c & 0xC0) == 0x80; }

static size_t tails(const char *text, size_t size, size_t wanted) {
    size_t n = 0;
    while (n < wanted && n + 1 < size && is_tail(text[n + 1])) {
        n++;
    }
    return n;
}

size_t kiln_utf8_read(const char *text, size_t size, uint32_t *code) {
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80) {
        *code = s[0];
        return 1;
    }
    size_t more = s[0] >= 0xF0 ? 3 : s[0] >= 0xE0 ? 2 : 1;
    if (s[0] < 0xC2 || s[0] > 0xF4 || tails(text, size, more) < more) {
        return 0;
    }
    uint32_t c = s[0] & (0x3Fu >> more);
    for (size_t i = 1; i <= more; i++) {
        c = c << 6 | (s[i] & 0x3F);
    }
    bool wrong = (more == 2 && c < 0x800) || (more == 3 && (c < 0x10000 || c > 0x10FFFF)) ||
                 (c >= 0xD800 && c <= 0xDFFF);
    if (wrong) {
        return 0;
    }
    *code = c;
    return more + 1;
}

size_t kiln_utf8_length(const char *text, size_t size) {
    uint32_t code;
    return kiln_utf8_read(text, size, &code);
}

size_t kiln_utf8_write(uint32_t code, char *out) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t more = code >= 0x10000 ? 3 : code >= 0x800 ? 2 : 1;
    static const unsigned char lead[] = {0, 0xC0, 0xE0, 0xF0};
    for (size_t i = more; i > 0; i--, code >>= 6) {
        out[i] = (char)(0x80 | (code & 0x3F));
    }
    out[0] = (char)(lead[more] | code);
    return more + 1;
}

size_t kiln_utf8_bad_at(const char *text, size_t size, size_t from) {
    size_t at = from;
    while (at < size) {
        uint64_t eight;
        if (size - at >= sizeof eight) {
            memcpy(&eight, text + at, sizeof eight);
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                at += sizeof eight;
                continue;
            }
        }
        size_t n = kiln_utf8_length(text + at, size - at);
        if (n == 0) {
            return at;
        }
        at += n;
    }
    return size;
}

size_t kiln_utf8_bad_bytes(const char *text, size_t size) {
    size_t n = 0;
    for (size_t at = kiln_utf8_bad_at(text, size, 0); at < size;
         at = kiln_utf8_bad_at(text, size, at + 1)) {
        n++;
    }
    return n;
}

size_t kiln_utf8_unfinished(const char *text, size_t size) {
    for (size_t n = 1; n <= 3 && n <= size; n++) {
        unsigned char c = (unsigned char)text[size - n];
        if (!is_tail((char)c)) {
            size_t whole = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC2 ? 2 : 1;
            return c <= 0xF4 && whole > n ? n : 0;
        }
    }
    return 0;
}

bool kiln_is_space(uint32_t code) {
    if (code < 0x80) {
        return code == ' ' || (code >= '\t' && code <= '\r');
    }
    return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
           code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool kiln_is_word(uint32_t code) {
    switch (utf8proc_category((utf8proc_int32_t)code)) {
        case UTF8PROC_CATEGORY_LU:
        case UTF8PROC_CATEGORY_LL:
        case UTF8PROC_CATEGORY_LT:
        case UTF8PROC_CATEGORY_LM:
        case UTF8PROC_CATEGORY_LO:
        case UTF8PROC_CATEGORY_MN:
        case UTF8PROC_CATEGORY_MC:
        case UTF8PROC_CATEGORY_ME:
        case UTF8PROC_CATEGORY_ND:
        case UTF8PROC_CATEGORY_NL:
        case UTF8PROC_CATEGORY_PC:
            return true;
        default:
            return code == 0x200C || code == 0x200D; /* the joiners */
    }
}
