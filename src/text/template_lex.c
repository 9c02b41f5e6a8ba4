/* SPDX-License-Identifier: MIT
 *
 * template_lex.c: a template's source into tokens: text between tags, and what stands in tags.
 *
 * Whitespace as transformers has it: the newline behind a block tag or comment goes (trim_blocks),
 * blanks before one that begins its line go (lstrip_blocks); "-" at a tag's edge takes all
 * whitespace there, "+" keeps it. The last newline of the source goes.
 */
#include <ctype.h>
#include <string.h>

#include "base/mem.h"
#include "text/template_int.h"

struct lexer {
    struct tpl_parser *p;
    const char *s;
    size_t n, at;
    int line;
    bool line_starts; /* what came before this place ended with a newline */
    bool strip;       /* the last tag wants the whitespace behind it gone */
};

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static bool starts(const struct lexer *l, size_t at, const char *text) {
    const size_t n = strlen(text);
    return l->n - at >= n && memcmp(l->s + at, text, n) == 0;
}

static enum kiln_status emit(struct lexer *l, enum tpl_token_kind kind, const char *p, size_t n) {
    struct tpl_tokens *t = &l->p->tokens;
    if (t->n == t->room) {
        const size_t room = t->room ? t->room * 2 : 256;
        struct tpl_token *at = kiln_realloc(t->at, t->n, room, sizeof *at);
        KILN_REQUIRE(at, l->p->err, KILN_ENOMEM, "chat template %s: out of memory",
                     l->p->tpl->name);
        t->at = at;
        t->room = room;
    }
    t->at[t->n++] = (struct tpl_token){kind, l->line, {p, n}};
    return KILN_OK;
}

static void advance(struct lexer *l, size_t to) {
    for (; l->at < to; l->at++) {
        l->line += l->s[l->at] == '\n';
    }
}

/* ---- text between tags --------------------------------------------------------------------------
 */

static size_t next_tag(const struct lexer *l) {
    size_t at = l->at;
    while (at < l->n && !starts(l, at, "{{") && !starts(l, at, "{%") && !starts(l, at, "{#")) {
        at++;
    }
    return at;
}

/* Text from the place at hand to the tag at `end`, without what the tags around it take away. */
static enum kiln_status take_text(struct lexer *l, size_t end) {
    size_t from = l->at, to = end;
    const bool tag = end < l->n;
    const char edge = tag && end + 2 < l->n ? l->s[end + 2] : ' ';
    while (l->strip && from < to && is_space(l->s[from])) {
        from++;
    }
    if (tag && edge == '-') {
        while (to > from && is_space(l->s[to - 1])) {
            to--;
        }
    } else if (tag && l->s[end + 1] != '{' && edge != '+') {
        size_t blank = to;
        while (blank > l->at && (l->s[blank - 1] == ' ' || l->s[blank - 1] == '\t')) {
            blank--;
        }
        const bool begins = blank == l->at ? l->line_starts : l->s[blank - 1] == '\n';
        to = begins ? (blank > from ? blank : from) : to;
    }
    KILN_TRY(to > from ? emit(l, TPL_DATA, l->s + from, to - from) : KILN_OK);
    advance(l, end);
    return KILN_OK;
}

/* ---- inside tags --------------------------------------------------------------------------------
 */

static int hex(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static size_t put_utf8(uint32_t c, char *to) {
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xC0 | c >> 6);
        to[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (char)(0xE0 | c >> 12);
        to[1] = (char)(0x80 | (c >> 6 & 63));
        to[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    to[0] = (char)(0xF0 | c >> 18);
    to[1] = (char)(0x80 | (c >> 12 & 63));
    to[2] = (char)(0x80 | (c >> 6 & 63));
    to[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* \xHH, \uHHHH, \UHHHHHHHH at l->s[at]; how many source bytes behind the backslash, 0: no number.
 */
static size_t escape_number(const char *s, size_t n, uint32_t *out) {
    const size_t digits = s[0] == 'x' ? 2 : s[0] == 'u' ? 4 : s[0] == 'U' ? 8 : 0;
    *out = 0;
    for (size_t i = 1; i <= digits; i++) {
        if (i >= n || hex(s[i]) < 0) {
            return 0;
        }
        *out = *out << 4 | (uint32_t)hex(s[i]);
    }
    return digits > 0 && *out < 0x110000 ? digits + 1 : 0;
}

/* The escape behind a backslash: bytes written to `to`, source bytes in *taken; 0: as it stands. */
static size_t escape(const char *s, size_t n, char *to, size_t *taken) {
    static const char from[] = "\\'\"abfnrtv\n", into[] = "\\'\"\a\b\f\n\r\t\v";
    const char *known = s[0] ? strchr(from, s[0]) : NULL;
    uint32_t c;
    *taken = 1;
    if (s[0] == '\n') {
        return 0; /* a line that goes on */
    }
    if (known) {
        to[0] = into[known - from];
        return 1;
    }
    const size_t number = escape_number(s, n, &c);
    if (number > 0) {
        *taken = number;
        return put_utf8(c, to);
    }
    to[0] = '\\'; /* Python keeps both */
    to[1] = s[0];
    return 2;
}

static enum kiln_status take_string(struct lexer *l) {
    const char quote = l->s[l->at];
    size_t end = l->at + 1;
    while (end < l->n && l->s[end] != quote) {
        end += l->s[end] == '\\' ? 2 : 1;
    }
    if (end >= l->n) {
        return kiln_tpl_wrong(l->p, l->line, "a string that does not end");
    }
    const char *s = l->s + l->at + 1;
    const size_t n = end - l->at - 1;
    char *text = kiln_tpl_take(&l->p->tpl->heap, n * 2 + 4, 1);
    KILN_REQUIRE(text, l->p->err, KILN_ENOMEM, "chat template %s: out of memory", l->p->tpl->name);
    size_t length = 0;
    for (size_t i = 0; i < n;) {
        if (s[i] != '\\') {
            text[length++] = s[i++];
            continue;
        }
        size_t taken;
        length += escape(s + i + 1, n - i - 1, text + length, &taken);
        i += 1 + taken;
    }
    KILN_TRY(emit(l, TPL_STRING, text, length));
    advance(l, end + 1);
    return KILN_OK;
}

static enum kiln_status take_number(struct lexer *l) {
    size_t end = l->at;
    bool real = false;
    while (end < l->n && (isdigit((unsigned char)l->s[end]) || l->s[end] == '_')) {
        end++;
    }
    if (end + 1 < l->n && l->s[end] == '.' && isdigit((unsigned char)l->s[end + 1])) {
        real = true;
        end++;
        while (end < l->n && isdigit((unsigned char)l->s[end])) {
            end++;
        }
    }
    size_t exponent = end + 1 < l->n && (l->s[end] == 'e' || l->s[end] == 'E') ? end + 1 : 0;
    exponent += exponent > 0 && (l->s[exponent] == '+' || l->s[exponent] == '-');
    if (exponent > 0 && exponent < l->n && isdigit((unsigned char)l->s[exponent])) {
        real = true;
        for (end = exponent; end < l->n && isdigit((unsigned char)l->s[end]); end++) {
        }
    }
    const size_t from = l->at;
    advance(l, end);
    return emit(l, real ? TPL_FLOAT : TPL_INTEGER, l->s + from, end - from);
}

static enum kiln_status take_operator(struct lexer *l) {
    static const char *const twos[] = {"==", "!=", "<=", ">=", "//", "**"};
    size_t n = strchr("+-*/%~()[]{}<>.,:|=", l->s[l->at]) && l->s[l->at] ? 1 : 0;
    for (size_t i = 0; i < sizeof twos / sizeof twos[0]; i++) {
        n = starts(l, l->at, twos[i]) ? 2 : n;
    }
    if (n == 0) {
        return kiln_tpl_wrong(l->p, l->line, "the character '%c' in a tag", l->s[l->at]);
    }
    const size_t from = l->at;
    advance(l, from + n);
    return emit(l, TPL_OPERATOR, l->s + from, n);
}

static enum kiln_status take_one(struct lexer *l) {
    const unsigned char c = (unsigned char)l->s[l->at];
    if (isalpha(c) || c == '_' || c >= 0x80) {
        size_t end = l->at;
        while (end < l->n && (isalnum((unsigned char)l->s[end]) || l->s[end] == '_' ||
                              (unsigned char)l->s[end] >= 0x80)) {
            end++;
        }
        const size_t from = l->at;
        advance(l, end);
        return emit(l, TPL_NAME, l->s + from, end - from);
    }
    if (isdigit(c)) {
        return take_number(l);
    }
    return c == '"' || c == '\'' ? take_string(l) : take_operator(l);
}

/* At a tag's end: its sign, and what it takes of the text behind it. False: not at one. */
static bool at_end(struct lexer *l, const char *end, bool trims) {
    const bool sign = starts(l, l->at + 1, end) && (l->s[l->at] == '-' || l->s[l->at] == '+');
    if (!sign && !starts(l, l->at, end)) {
        return false;
    }
    l->strip = sign && l->s[l->at] == '-';
    const bool keeps = sign && l->s[l->at] == '+';
    advance(l, l->at + sign + 2);
    l->line_starts = false;
    if (trims && !keeps && !l->strip && l->at < l->n && l->s[l->at] == '\n') {
        advance(l, l->at + 1);
        l->line_starts = true;
    }
    return true;
}

static enum kiln_status take_tag(struct lexer *l, bool block) {
    const char *end = block ? "%}" : "}}";
    const int opened = l->line;
    int braces = 0;
    KILN_TRY(emit(l, block ? TPL_BLOCK_BEGIN : TPL_VARIABLE_BEGIN, l->s + l->at, 2));
    advance(l, l->at + 2);
    if (l->at < l->n && (l->s[l->at] == '-' || l->s[l->at] == '+')) {
        advance(l, l->at + 1);
    }
    for (;;) {
        while (l->at < l->n && is_space(l->s[l->at])) {
            advance(l, l->at + 1);
        }
        if (l->at >= l->n) {
            return kiln_tpl_wrong(l->p, opened, "a tag that does not end");
        }
        const size_t edge = l->at;
        if (braces == 0 && at_end(l, end, block)) {
            return emit(l, block ? TPL_BLOCK_END : TPL_VARIABLE_END, l->s + edge, 2);
        }
        braces += l->s[l->at] == '{' ? 1 : l->s[l->at] == '}' ? -1 : 0;
        KILN_TRY(take_one(l));
    }
}

static enum kiln_status take_comment(struct lexer *l) {
    const int opened = l->line;
    advance(l, l->at + 2);
    while (l->at < l->n && !starts(l, l->at, "#}")) {
        const bool sign = (l->s[l->at] == '-' || l->s[l->at] == '+') && starts(l, l->at + 1, "#}");
        if (sign) {
            break;
        }
        advance(l, l->at + 1);
    }
    if (l->at >= l->n || !at_end(l, "#}", true)) {
        return kiln_tpl_wrong(l->p, opened, "a comment that does not end");
    }
    return KILN_OK;
}

/* {% raw %}: is it one, and where does its tag end? */
static size_t word_tag(const struct lexer *l, size_t at, const char *word) {
    if (!starts(l, at, "{%")) {
        return 0;
    }
    at += 2;
    at += at < l->n && (l->s[at] == '-' || l->s[at] == '+');
    while (at < l->n && is_space(l->s[at])) {
        at++;
    }
    if (!starts(l, at, word)) {
        return 0;
    }
    at += strlen(word);
    while (at < l->n && is_space(l->s[at])) {
        at++;
    }
    return at;
}

static enum kiln_status take_raw(struct lexer *l, size_t end) {
    const int opened = l->line;
    advance(l, end);
    if (!at_end(l, "%}", true)) {
        return kiln_tpl_wrong(l->p, opened, "raw takes nothing");
    }
    size_t at = l->at, close = 0;
    while (at < l->n && (close = word_tag(l, at, "endraw")) == 0) {
        at++;
    }
    if (close == 0) {
        return kiln_tpl_wrong(l->p, opened, "raw without endraw");
    }
    KILN_TRY(take_text(l, at));
    advance(l, close);
    return at_end(l, "%}", true) ? KILN_OK : kiln_tpl_wrong(l->p, l->line, "endraw takes nothing");
}

enum kiln_status kiln_tpl_lex(struct tpl_parser *p) {
    struct lexer l = {.p = p, .s = p->tpl->source, .n = p->tpl->size, .line = 1};
    l.line_starts = true;
    while (l.at < l.n) {
        const size_t tag = next_tag(&l);
        KILN_TRY(take_text(&l, tag));
        l.strip = false;
        if (tag == l.n) {
            break;
        }
        const size_t raw = word_tag(&l, tag, "raw");
        if (raw > 0 && (starts(&l, raw, "%}") || starts(&l, raw + 1, "%}"))) {
            KILN_TRY(take_raw(&l, raw));
        } else if (l.s[tag + 1] == '#') {
            KILN_TRY(take_comment(&l));
        } else {
            KILN_TRY(take_tag(&l, l.s[tag + 1] == '%'));
        }
    }
    return emit(&l, TPL_END, l.s + l.n, 0);
}
