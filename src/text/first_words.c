/* SPDX-License-Identifier: MIT */
#include "text/first_words.h"

#include <string.h>

#include "text/utf8.h"

enum { WORDS = 4, LOOK = 400 };

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

/* Behind a sentence or line that may have begun before the text; or a word; size: nowhere. */
static size_t next_beginning(const char *text, size_t size) {
    const size_t most = size < LOOK ? size : LOOK;
    for (size_t i = 0; i + 1 < most; i++) {
        if (text[i] == '\n' || (strchr(".!?", text[i]) && is_blank(text[i + 1]))) {
            return i + 1;
        }
    }
    for (size_t i = 0; i < most; i++) {
        if (is_blank(text[i])) {
            return i;
        }
    }
    return size;
}

/* Bytes of a character that may stand in a prompt; 0: none may. */
static size_t usable(const char *text, size_t size) {
    const unsigned char c = (unsigned char)*text;
    const bool ours = c >= ' ' && c != 0x7f && !strchr("\"$`\\!", *text);
    return ours ? kiln_utf8_length(text, size) : 0;
}

void kiln_first_words(const char *text, size_t size, bool begins, char out[KILN_FIRST_WORDS]) {
    size_t at = begins ? 0 : next_beginning(text, size), used = 0, whole = 0, words = 0;
    while (at < size && (is_blank(text[at]) || text[at] == '"')) {
        at++;
    }
    while (at < size && words < WORDS) {
        const size_t n = text[at] == '\n' ? 0 : usable(text + at, size - at);
        if (n == 0 || used + n >= KILN_FIRST_WORDS || strchr(".?", text[at])) {
            whole = n > 0 && used + n >= KILN_FIRST_WORDS ? whole : used;
            break;
        }
        if (text[at] == ' ' && used > 0 && out[used - 1] != ' ') {
            words++;
            whole = used;
        }
        memcpy(out + used, text + at, n);
        used += n;
        at += n;
    }
    whole = at >= size && whole == 0 ? used : whole;
    while (whole > 0 && strchr(" ,;:-", out[whole - 1])) {
        whole--;
    }
    out[whole] = '\0';
}
