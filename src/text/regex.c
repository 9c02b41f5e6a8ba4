/* SPDX-License-Identifier: MIT
 *
 * regex.c: see regex.h. Oniguruma's Ruby syntax and PCRE2's agree on what tokenizers use, but for
 * this, which is rewritten or refused:
 *
 *   \s, \S      Unicode's White_Space; PCRE2's has U+180E too
 *   \h, \H      a hexadecimal digit; PCRE2's is a blank
 *   [a&&b], [a[b]]   operations on sets, which PCRE2 10.42 does not have: refused
 *   {n,m}+      a repeated repeat; PCRE2's is possessive: refused
 *   ^ and $     at every line in both with PCRE2_MULTILINE
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>
#include <string.h>

#include "base/mem.h"

#define WHITE_SPACE                                                                    \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}" \
    "\\x{202f}\\x{205f}\\x{3000}"

enum { DEEPEST_JIT_STACK = 1 << 20 };

struct kiln_regex {
    pcre2_code *code;
    bool jit;
};

struct kiln_matcher {
    const struct kiln_regex *regex;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

/* ---- from Oniguruma's words to PCRE2's ---------------------------------------------------- */

struct rewriting {
    const char *in;
    size_t at, size;
    char *out; /* has room for the widest replacement of every byte */
    size_t n;
    bool in_class;
    const char *wrong; /* what cannot be said in PCRE2 */
};

static void put(struct rewriting *r, const char *text, size_t size) {
    memcpy(r->out + r->n, text, size);
    r->n += size;
}
static void put_text(struct rewriting *r, const char *text) { put(r, text, strlen(text)); }

static void rewrite_escape(struct rewriting *r) {
    char c = r->at + 1 < r->size ? r->in[r->at + 1] : '\0';
    size_t size = c == '\0' ? 1 : 2;
    const char *name = r->in + r->at + size;
    if ((c == 'p' || c == 'P' || c == 'x') && name[0] == '{' && strchr(name, '}') != NULL) {
        size += (size_t)(strchr(name, '}') + 1 - name); /* its braces are no repeat */
    }
    if (c == 's') {
        put_text(r, r->in_class ? WHITE_SPACE : "[" WHITE_SPACE "]");
    } else if (c == 'S') {
        put_text(r, r->in_class ? "\\S\\x{180e}" : "[^" WHITE_SPACE "]");
    } else if (c == 'h') {
        put_text(r, r->in_class ? "0-9a-fA-F" : "[0-9a-fA-F]");
    } else if (c == 'H' || c == 'R' || c == 'X' || c == 'Z' || c == 'K' || c == 'C') {
        r->wrong = "\\H, \\R, \\X, \\Z, \\K or \\C";
    } else {
        put(r, r->in + r->at, size);
    }
    r->at += size;
}

static bool begins(const struct rewriting *r, const char *text) {
    size_t size = strlen(text);
    return r->size - r->at >= size && memcmp(r->in + r->at, text, size) == 0;
}

static void rewrite_in_class(struct rewriting *r) {
    if (begins(r, "&&")) {
        r->wrong = "&& in a set";
    } else if (r->in[r->at] == '[' && !begins(r, "[:")) {
        r->wrong = "a set inside a set";
    } else if (begins(r, "[:")) {
        const char *end = strstr(r->in + r->at, ":]");
        size_t size = end != NULL ? (size_t)(end + 2 - (r->in + r->at)) : r->size - r->at;
        put(r, r->in + r->at, size);
        r->at += size;
        return;
    } else {
        r->in_class = r->in[r->at] != ']';
    }
    put(r, r->in + r->at++, 1);
}

/* The opening of a set with what may follow it at once: ^ and a bracket that is meant itself. */
static void open_class(struct rewriting *r) {
    r->in_class = true;
    put(r, r->in + r->at++, 1);
    if (r->at < r->size && r->in[r->at] == '^') {
        put(r, r->in + r->at++, 1);
    }
    if (r->at < r->size && r->in[r->at] == ']') {
        put(r, "\\]", 2);
        r->at++;
    }
}

static void rewrite_next(struct rewriting *r) {
    if (r->in[r->at] == '\\') {
        rewrite_escape(r);
    } else if (r->in_class) {
        rewrite_in_class(r);
    } else if (r->in[r->at] == '[') {
        open_class(r);
    } else {
        if (begins(r, "}+")) {
            r->wrong = "+ behind {n,m}";
        }
        put(r, r->in + r->at++, 1);
    }
}

static enum kiln_status rewrite(const char *pattern, const char *name, char **out, size_t *size,
                                struct kiln_err *err) {
    struct rewriting r = {.in = pattern, .size = strlen(pattern)};
    r.out = kiln_alloc(r.size + 1, sizeof WHITE_SPACE + 4);
    KILN_REQUIRE(r.out != NULL, err, KILN_ENOMEM, "tokenizer %s: out of memory", name);
    while (r.at < r.size && r.wrong == NULL) {
        rewrite_next(&r);
    }
    if (r.wrong != NULL) {
        kiln_free(r.out);
        return KILN_FAIL(err, KILN_EINPUT,
                         "tokenizer %s: the pattern \"%.200s\" has %s at byte %zu, which kiln does "
                         "not know",
                         name, pattern, r.wrong, r.at);
    }
    *out = r.out;
    *size = r.n;
    return KILN_OK;
}

/* ---- compiled ----------------------------------------------------------------------------- */

static enum kiln_status compile(struct kiln_regex *regex, const char *words, size_t size,
                                bool literal, const char *pattern, const char *name,
                                struct kiln_err *err) {
    int code = 0;
    size_t where = 0;
    uint32_t options =
        literal ? PCRE2_UTF | PCRE2_LITERAL : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE;
    regex->code = pcre2_compile((PCRE2_SPTR)words, size, options, &code, &where, NULL);
    if (regex->code == NULL) {
        char why[160] = "";
        (void)pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return KILN_FAIL(err, KILN_EINPUT, "tokenizer %s: the pattern \"%.200s\" is wrong: %s",
                         name, pattern, why);
    }
    regex->jit = pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE) == 0;
    return KILN_OK;
}

enum kiln_status kiln_regex_open(const char *pattern, bool literal, const char *name,
                                 struct kiln_regex **out, struct kiln_err *err) {
    struct kiln_regex *regex = kiln_alloc(1, sizeof *regex);
    char *words = NULL;
    size_t size = strlen(pattern);
    *out = NULL;
    KILN_REQUIRE(regex != NULL, err, KILN_ENOMEM, "tokenizer %s: out of memory", name);
    enum kiln_status status = literal ? KILN_OK : rewrite(pattern, name, &words, &size, err);
    if (status == KILN_OK) {
        status = compile(regex, literal ? pattern : words, size, literal, pattern, name, err);
    }
    kiln_free(words);
    if (status != KILN_OK) {
        kiln_regex_close(regex);
        return status;
    }
    *out = regex;
    return KILN_OK;
}

void kiln_regex_close(struct kiln_regex *regex) {
    if (regex != NULL) {
        pcre2_code_free(regex->code);
        kiln_free(regex);
    }
}

/* ---- matching ----------------------------------------------------------------------------- */

struct kiln_matcher *kiln_matcher_open(const struct kiln_regex *regex) {
    struct kiln_matcher *m = kiln_alloc(1, sizeof *m);
    if (m == NULL) {
        return NULL;
    }
    m->regex = regex;
    m->match = pcre2_match_data_create_from_pattern(regex->code, NULL);
    m->context = pcre2_match_context_create(NULL);
    m->stack = regex->jit ? pcre2_jit_stack_create(1 << 15, DEEPEST_JIT_STACK, NULL) : NULL;
    if (m->match == NULL || m->context == NULL || (regex->jit && m->stack == NULL)) {
        kiln_matcher_close(m);
        return NULL;
    }
    if (m->stack != NULL) {
        pcre2_jit_stack_assign(m->context, NULL, m->stack);
    }
    return m;
}

void kiln_matcher_close(struct kiln_matcher *matcher) {
    if (matcher != NULL) {
        pcre2_match_data_free(matcher->match);
        pcre2_match_context_free(matcher->context);
        pcre2_jit_stack_free(matcher->stack);
        kiln_free(matcher);
    }
}

int kiln_matcher_find(struct kiln_matcher *matcher, const char *text, size_t size, size_t from,
                      size_t *start, size_t *stop) {
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    const struct kiln_regex *regex = matcher->regex;
    int found = PCRE2_ERROR_JIT_STACKLIMIT;
    if (regex->jit) {
        found =
            pcre2_jit_match(regex->code, subject, size, from, 0, matcher->match, matcher->context);
    }
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
        found = pcre2_match(regex->code, subject, size, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                            matcher->match, matcher->context);
    }
    if (found < 0) {
        return found == PCRE2_ERROR_NOMATCH ? 0 : -1;
    }
    const size_t *ends = pcre2_get_ovector_pointer(matcher->match);
    *start = ends[0];
    *stop = ends[1];
    return 1;
}
