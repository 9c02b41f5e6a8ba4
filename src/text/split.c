/* SPDX-License-Identifier: MIT
 *
 * split.c: words by a regular expression. PCRE2 is told not to check the text on every call, so
 * what it gets is checked here, once.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "text/split.h"

struct kiln_word_pattern {
    pcre2_code *code;
    bool jit;
};

/* ---- UTF-8 (Unicode 15, table 3-7) ----------------------------------------------------------- */

static bool is_continuation(unsigned char c) { return (c & 0xC0) == 0x80; }

size_t kiln_utf8_character(const char *text, size_t size) {
    const unsigned char *u = (const unsigned char *)text;
    if (u[0] < 0x80) {
        return 1;
    }
    if (u[0] < 0xC2 || u[0] > 0xF4 || size < 2 || !is_continuation(u[1])) {
        return 0;
    }
    if (u[0] < 0xE0) {
        return 2;
    }
    if (size < 3 || !is_continuation(u[2])) {
        return 0;
    }
    if (u[0] < 0xF0) {
        const bool overlong = u[0] == 0xE0 && u[1] < 0xA0;
        const bool surrogate = u[0] == 0xED && u[1] > 0x9F;
        return overlong || surrogate ? 0 : 3;
    }
    const bool outside = (u[0] == 0xF0 && u[1] < 0x90) || (u[0] == 0xF4 && u[1] > 0x8F);
    return outside || size < 4 || !is_continuation(u[3]) ? 0 : 4;
}

size_t kiln_utf8_valid(const char *text, size_t size) {
    size_t at = 0;
    while (at < size) {
        uint64_t eight;
        if (size - at >= sizeof eight) {
            memcpy(&eight, text + at, sizeof eight);
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                at += sizeof eight;
                continue;
            }
        }
        const size_t n = kiln_utf8_character(text + at, size - at);
        if (n == 0) {
            break;
        }
        at += n;
    }
    return at;
}

/* ---- expressions ----------------------------------------------------------------------------- */

enum kiln_status kiln_word_pattern_create(const char *pattern, struct kiln_word_pattern **out,
                                          struct kiln_err *err) {
    *out = NULL;
    int code;
    PCRE2_SIZE at;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                         PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (compiled == NULL) {
        PCRE2_UCHAR why[160] = "";
        pcre2_get_error_message(code, why, sizeof why);
        return KILN_FAIL(err, KILN_EINPUT,
                         "the regular expression that cuts words, \"%.80s\", is wrong at "
                         "character %zu: %s",
                         pattern, (size_t)at, (const char *)why);
    }
    struct kiln_word_pattern *split = kiln_alloc(1, sizeof *split);
    if (split == NULL) {
        pcre2_code_free(compiled);
        return KILN_FAIL(err, KILN_ENOMEM, "a regular expression: out of memory");
    }
    split->code = compiled;
    /* where there is no JIT (its memory may be forbidden) the same comes out, slower */
    split->jit = pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE) == 0;
    *out = split;
    return KILN_OK;
}

void kiln_word_pattern_destroy(struct kiln_word_pattern *split) {
    if (split != NULL) {
        pcre2_code_free(split->code);
        kiln_free(split);
    }
}

/* ---- walking --------------------------------------------------------------------------------- */

enum kiln_status kiln_word_walk_init(struct kiln_word_walk *s,
                                     const struct kiln_word_pattern *split, struct kiln_err *err) {
    *s = (struct kiln_word_walk){.split = split};
    s->match = pcre2_match_data_create(1, NULL);
    KILN_REQUIRE(s->match != NULL, err, KILN_ENOMEM, "words of a text: out of memory");
    return KILN_OK;
}

void kiln_word_walk_fini(struct kiln_word_walk *s) {
    pcre2_match_data_free(s->match);
    *s = (struct kiln_word_walk){0};
}

void kiln_word_walk_begin(struct kiln_word_walk *s, const char *text, size_t size) {
    s->text = text;
    s->size = size;
    s->at = s->match_from = s->match_to = 0;
    s->valid_end = kiln_utf8_valid(text, size);
}

/* The first match at or behind `from`, or the empty one at the end of what is UTF-8. */
static enum kiln_status find(struct kiln_word_walk *s, size_t from, struct kiln_err *err) {
    PCRE2_SPTR text = (PCRE2_SPTR)s->text;
    const int n = s->split->jit
                      ? pcre2_jit_match(s->split->code, text, s->valid_end, from, 0, s->match, NULL)
                      : pcre2_match(s->split->code, text, s->valid_end, from, PCRE2_NO_UTF_CHECK,
                                    s->match, NULL);
    if (n == PCRE2_ERROR_NOMATCH) {
        s->match_from = s->match_to = s->valid_end;
        return KILN_OK;
    }
    if (n < 0) {
        PCRE2_UCHAR why[160] = "";
        pcre2_get_error_message(n, why, sizeof why);
        return KILN_FAIL(err, KILN_EINPUT,
                         "cutting a text of %zu bytes into words by its regular expression "
                         "failed at byte %zu: %s",
                         s->size, from, (const char *)why);
    }
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(s->match);
    KILN_REQUIRE(place[0] >= from && place[1] >= place[0], err, KILN_EINPUT,
                 "the regular expression that cuts words moves the start of its match (\\K): "
                 "words would overlap");
    s->match_from = place[0];
    s->match_to = place[1];
    return KILN_OK;
}

/* A match that is not empty: an empty one cuts nothing here. */
static enum kiln_status find_word(struct kiln_word_walk *s, struct kiln_err *err) {
    size_t from = s->at;
    do {
        KILN_TRY(find(s, from, err));
        if (s->match_to > s->match_from || s->match_from == s->valid_end) {
            return KILN_OK;
        }
        from = s->match_from +
               kiln_utf8_character(s->text + s->match_from, s->valid_end - s->match_from);
    } while (from < s->valid_end);
    s->match_from = s->match_to = s->valid_end;
    return KILN_OK;
}

enum kiln_status kiln_word_walk_next(struct kiln_word_walk *s, const char **word, size_t *size,
                                     struct kiln_err *err) {
    *word = s->text + s->at;
    *size = 0;
    if (s->at == s->size) {
        return KILN_OK;
    }
    if (s->at == s->valid_end) { /* a byte of no character */
        *size = 1;
        s->at++;
        s->valid_end = s->at + kiln_utf8_valid(s->text + s->at, s->size - s->at);
        s->match_from = s->match_to = s->at;
        return KILN_OK;
    }
    if (s->at >= s->match_to) {
        KILN_TRY(find_word(s, err));
    }
    const size_t end = s->at < s->match_from ? s->match_from : s->match_to;
    *size = end - s->at;
    s->at = end;
    return KILN_OK;
}
