/* SPDX-License-Identifier: MIT */
#include "report/json_text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

void kiln_text_add(struct kiln_text *text, const char *bytes, size_t n) {
    if (text->failed || n >= SIZE_MAX / 4 - text->length) {
        text->failed = true;
        return;
    }
    if (text->length + n + 1 > text->room) {
        const size_t room = 2 * (text->length + n) + 4096;
        char *grown = kiln_realloc(text->at, text->room, room, 1);
        if (grown == NULL) {
            text->failed = true;
            return;
        }
        text->at = grown;
        text->room = room;
    }
    memcpy(text->at + text->length, bytes, n);
    text->length += n;
    text->at[text->length] = '\0';
}

void kiln_text_raw(struct kiln_text *text, const char *string) {
    kiln_text_add(text, string, strlen(string));
}

/* Bytes of the UTF-8 character at `at`; 0: it is none (RFC 3629). */
static size_t character(const unsigned char *at) {
    static const struct {
        unsigned char first, last, second_from, second_to;
        size_t bytes;
    } forms[] = {
        {0x20, 0x7e, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (at[0] < forms[i].first || at[0] > forms[i].last) {
            continue;
        }
        if (forms[i].bytes > 1 && (at[1] < forms[i].second_from || at[1] > forms[i].second_to)) {
            return 0;
        }
        for (size_t b = 2; b < forms[i].bytes; b++) {
            if (at[b] < 0x80 || at[b] > 0xbf) {
                return 0;
            }
        }
        return forms[i].bytes;
    }
    return 0;
}

void kiln_text_string(struct kiln_text *text, const char *string) {
    const unsigned char *at = (const unsigned char *)string;
    kiln_text_raw(text, "\"");
    while (*at != '\0') {
        char escaped[8];
        const size_t n = character(at);
        if (*at == '"' || *at == '\\') {
            snprintf(escaped, sizeof escaped, "\\%c", *at);
            kiln_text_raw(text, escaped);
        } else if (*at < 0x20 || *at == 0x7f || *at == '<' || *at == '>' || *at == '&') {
            snprintf(escaped, sizeof escaped, "\\u%04x", *at);
            kiln_text_raw(text, escaped);
        } else if (n == 0) {
            kiln_text_raw(text, "\\ufffd");
        } else {
            kiln_text_add(text, (const char *)at, n);
        }
        at += n > 0 ? n : 1;
    }
    kiln_text_raw(text, "\"");
}

void kiln_text_number(struct kiln_text *text, double value) {
    char number[40];
    if (!isfinite(value)) {
        kiln_text_raw(text, "null");
        return;
    }
    snprintf(number, sizeof number, "%.6g", value + 0.0); /* no -0 */
    const size_t point = strspn(number, "-0123456789");
    if (number[point] != '\0' && number[point] != 'e') {
        number[point] = '.';
    }
    kiln_text_raw(text, number);
}

void kiln_text_count(struct kiln_text *text, uint64_t value) {
    char number[24];
    snprintf(number, sizeof number, "%" PRIu64, value);
    kiln_text_raw(text, number);
}

void kiln_text_comma(struct kiln_text *text) {
    const char last = text->length > 0 ? text->at[text->length - 1] : '{';
    if (last != '{' && last != '[') {
        kiln_text_raw(text, ",");
    }
}

void kiln_text_key(struct kiln_text *text, const char *key) {
    kiln_text_comma(text);
    kiln_text_raw(text, "\"");
    kiln_text_raw(text, key);
    kiln_text_raw(text, "\":");
}

void kiln_text_number_of(struct kiln_text *text, const char *key, double value) {
    kiln_text_key(text, key);
    kiln_text_number(text, value);
}

void kiln_text_count_of(struct kiln_text *text, const char *key, uint64_t value) {
    kiln_text_key(text, key);
    kiln_text_count(text, value);
}

void kiln_text_string_of(struct kiln_text *text, const char *key, const char *value) {
    kiln_text_key(text, key);
    kiln_text_string(text, value);
}
