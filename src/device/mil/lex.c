/* SPDX-License-Identifier: MIT
 *
 * lex.c: letters to words. Blanks may stand anywhere between words; comments are // to the end of
 * the line.
 */
#include "device/mil/lex.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Lines and columns are ints. */
#define MOST_BYTES ((size_t)1 << 30)
/* More digits than any number needs, zeros of small decimal fractions included. */
#define MOST_DIGITS 400

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_hex(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}
static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static char peek(const struct kiln_mil_lexer *lexer, size_t ahead) {
    return (size_t)(lexer->end - lexer->next) > ahead ? lexer->next[ahead] : '\0';
}

static void skip_blanks(struct kiln_mil_lexer *lexer) {
    while (lexer->next < lexer->end) {
        const char c = *lexer->next;
        if (c == '\n') {
            lexer->line++;
            lexer->line_start = ++lexer->next;
        } else if (c == ' ' || c == '\t' || c == '\r') {
            lexer->next++;
        } else if (c == '/' && peek(lexer, 1) == '/') {
            while (lexer->next < lexer->end && *lexer->next != '\n') {
                lexer->next++;
            }
        } else {
            return;
        }
    }
}

static void skip_digits(struct kiln_mil_lexer *lexer, bool (*is)(char)) {
    while (lexer->next < lexer->end && is(*lexer->next)) {
        lexer->next++;
    }
}

/* At least one digit, or a failure that says where. */
static enum kiln_status take_digits(struct kiln_mil_lexer *lexer, bool (*is)(char),
                                    const char *what, struct kiln_err *err) {
    const char *first = lexer->next;
    skip_digits(lexer, is);
    if (lexer->next == first) {
        return KILN_MIL_FAIL(err, lexer->name, lexer->now.at,
                             "expected %s in the number that begins here", what);
    }
    return KILN_OK;
}

static enum kiln_status take_exponent(struct kiln_mil_lexer *lexer, struct kiln_err *err) {
    lexer->next++;
    if (peek(lexer, 0) == '-' || peek(lexer, 0) == '+') {
        lexer->next++;
    }
    return take_digits(lexer, is_digit, "digits of an exponent", err);
}

static enum kiln_status take_hex_float(struct kiln_mil_lexer *lexer, struct kiln_err *err) {
    lexer->next += 2;
    KILN_TRY(take_digits(lexer, is_hex, "hexadecimal digits", err));
    if (peek(lexer, 0) == '.') {
        lexer->next++;
        skip_digits(lexer, is_hex);
    }
    if (peek(lexer, 0) != 'p' && peek(lexer, 0) != 'P') {
        return KILN_MIL_FAIL(err, lexer->name, lexer->now.at,
                             "expected p and an exponent in the hexadecimal number, as 0x1.8p-3");
    }
    return take_exponent(lexer, err);
}

static enum kiln_status take_number(struct kiln_mil_lexer *lexer, struct kiln_err *err) {
    struct kiln_mil_token *token = &lexer->now;
    token->word = KILN_MIL_NUMBER;
    if (*lexer->next == '-') {
        lexer->next++;
    }
    if (peek(lexer, 0) == '0' && (peek(lexer, 1) == 'x' || peek(lexer, 1) == 'X')) {
        KILN_TRY(take_hex_float(lexer, err));
    } else {
        KILN_TRY(take_digits(lexer, is_digit, "digits", err));
        if (peek(lexer, 0) == '.') {
            lexer->next++;
            skip_digits(lexer, is_digit);
        }
        if (peek(lexer, 0) == 'e' || peek(lexer, 0) == 'E') {
            KILN_TRY(take_exponent(lexer, err));
        }
    }
    token->length = (size_t)(lexer->next - token->text);
    if (is_letter(peek(lexer, 0)) || peek(lexer, 0) == '.') {
        return KILN_MIL_FAIL(err, lexer->name, token->at,
                             "expected a blank, a comma or a bracket behind the number %.*s, "
                             "found '%c'",
                             (int)(token->length < 60 ? token->length : 60), token->text,
                             peek(lexer, 0));
    }
    return KILN_OK;
}

static enum kiln_status take_string(struct kiln_mil_lexer *lexer, struct kiln_err *err) {
    struct kiln_mil_token *token = &lexer->now;
    token->word = KILN_MIL_QUOTED;
    token->text = ++lexer->next;
    while (lexer->next < lexer->end && *lexer->next != '"' && *lexer->next != '\n' &&
           *lexer->next != '\0') {
        lexer->next += *lexer->next == '\\' && lexer->end - lexer->next > 1 ? 2 : 1;
    }
    if (lexer->next >= lexer->end || *lexer->next != '"') {
        return KILN_MIL_FAIL(err, lexer->name, token->at,
                             "expected \" at the end of the string that begins here, found the "
                             "end of the %s",
                             lexer->next >= lexer->end ? "text" : "line");
    }
    token->length = (size_t)(lexer->next - token->text);
    lexer->next++;
    return KILN_OK;
}

static enum kiln_status take_mark(struct kiln_mil_lexer *lexer, struct kiln_err *err) {
    struct kiln_mil_token *token = &lexer->now;
    const char c = *lexer->next++;
    token->word = KILN_MIL_MARK;
    token->length = 1;
    if (c == '\0' || strchr("()[]{}<>,;=", c) == NULL) {
        char text[80];
        return KILN_MIL_FAIL(err, lexer->name, token->at,
                             "expected a name, a number, a string or one of ()[]{}<>,;= , found %s",
                             kiln_mil_token_text(token, text));
    }
    return KILN_OK;
}

enum kiln_status kiln_mil_lex_next(struct kiln_mil_lexer *lexer, struct kiln_err *err) {
    skip_blanks(lexer);
    struct kiln_mil_token *token = &lexer->now;
    token->text = lexer->next;
    token->length = 0;
    token->at.line = lexer->line;
    token->at.column = (int)(lexer->next - lexer->line_start) + 1;
    if (lexer->next >= lexer->end) {
        token->word = KILN_MIL_END;
        return KILN_OK;
    }
    const char c = *lexer->next;
    if (is_letter(c)) {
        while (is_letter(peek(lexer, 0)) || is_digit(peek(lexer, 0))) {
            lexer->next++;
        }
        token->word = KILN_MIL_ID;
        token->length = (size_t)(lexer->next - token->text);
        return KILN_OK;
    }
    if (c == '-' && peek(lexer, 1) == '>') {
        lexer->next += 2;
        token->word = KILN_MIL_ARROW;
        token->length = 2;
        return KILN_OK;
    }
    if (c == '"') {
        return take_string(lexer, err);
    }
    return is_digit(c) || c == '-' ? take_number(lexer, err) : take_mark(lexer, err);
}

enum kiln_status kiln_mil_lex_open(struct kiln_mil_lexer *lexer, const char *name, const char *text,
                                   size_t bytes, struct kiln_err *err) {
    KILN_REQUIRE(bytes <= MOST_BYTES, err, KILN_EINPUT,
                 "%s: a program of %zu bytes; at most %zu are read (weights belong into files)",
                 name, bytes, MOST_BYTES);
    static const char nothing[] = "";
    const char *first = text != NULL ? text : nothing;
    *lexer = (struct kiln_mil_lexer){
        .name = name, .next = first, .end = first + bytes, .line_start = first, .line = 1};
    return kiln_mil_lex_next(lexer, err);
}

bool kiln_mil_is_id(const struct kiln_mil_token *token, const char *id) {
    return token->word == KILN_MIL_ID && token->length == strlen(id) &&
           memcmp(token->text, id, token->length) == 0;
}

const char *kiln_mil_token_text(const struct kiln_mil_token *token, char buffer[80]) {
    if (token->word == KILN_MIL_END) {
        return "the end of the text";
    }
    const bool quoted = token->word == KILN_MIL_QUOTED;
    size_t n = (size_t)snprintf(buffer, 80, "%s\"", quoted ? "the string " : "");
    for (size_t i = 0; i < token->length && i < 40; i++) {
        const unsigned char c = (unsigned char)token->text[i];
        buffer[n++] = (char)(c >= 0x20 && c < 0x7F ? c : '?');
    }
    snprintf(buffer + n, 80 - n, "%s\"", token->length > 40 ? "..." : "");
    return buffer;
}

enum kiln_status kiln_mil_expected(const struct kiln_mil_lexer *lexer, const char *what,
                                   struct kiln_err *err) {
    char text[80];
    return KILN_MIL_FAIL(err, lexer->name, lexer->now.at, "expected %s, found %s", what,
                         kiln_mil_token_text(&lexer->now, text));
}

/* strtod would read a decimal comma where a program has set such a locale. */
static double to_double(const char *digits) {
    char *end;
    const double value = strtod(digits, &end);
    if (*end != '.') {
        return value;
    }
    char local[MOST_DIGITS + 1];
    snprintf(local, sizeof local, "%s", digits);
    local[end - digits] = ',';
    return strtod(local, NULL);
}

enum kiln_status kiln_mil_number(const struct kiln_mil_lexer *lexer,
                                 const struct kiln_mil_token *token, double *number,
                                 int64_t *integer, bool *whole, struct kiln_err *err) {
    char digits[MOST_DIGITS + 1];
    const int shown = (int)(token->length < 40 ? token->length : 40);
    if (token->length > MOST_DIGITS) {
        return KILN_MIL_FAIL(err, lexer->name, token->at,
                             "expected a number of at most %d characters, found %.*s... of %zu",
                             MOST_DIGITS, shown, token->text, token->length);
    }
    memcpy(digits, token->text, token->length);
    digits[token->length] = '\0';
    *whole = strpbrk(digits, ".eExX") == NULL;
    *number = to_double(digits);
    if (!isfinite(*number)) {
        return KILN_MIL_FAIL(err, lexer->name, token->at,
                             "expected a number that a double holds, found %.*s", shown, digits);
    }
    if (*whole) {
        int64_t value = 0;
        const bool minus = digits[0] == '-';
        for (const char *p = digits + minus; *p != '\0'; p++) {
            const int digit = minus ? '0' - *p : *p - '0';
            if (__builtin_mul_overflow(value, 10, &value) ||
                __builtin_add_overflow(value, digit, &value)) {
                return KILN_MIL_FAIL(err, lexer->name, token->at,
                                     "expected an integer of at most 63 bits, found %.*s", shown,
                                     digits);
            }
        }
        *integer = value;
    }
    return KILN_OK;
}
