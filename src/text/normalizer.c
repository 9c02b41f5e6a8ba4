/* SPDX-License-Identifier: MIT
 *
 * normalizer.c: see normalizer.h.
 *
 * Unicode's normal forms come from utf8proc, which is slow next to the rest. A text may be cut
 * before any character that never joins what stands before it, and its parts normalized alone; so
 * runs of characters known to stay as they are are passed over, and what lies between such cuts
 * and holds another one is handed to utf8proc.
 */
#include "text/normalizer.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "text/regex.h"
#include "text/utf8.h"

bool kiln_bytes_put(struct kiln_bytes *bytes, const char *data, size_t size) {
    size_t needed;
    if (kiln_add_overflows(bytes->n, size, &needed)) {
        return false;
    }
    if (needed > bytes->room) {
        size_t room = kiln_largest(needed + needed / 2, 256);
        char *grown = kiln_realloc(bytes->data, bytes->room, room, 1);
        if (grown == NULL) {
            return false;
        }
        bytes->data = grown;
        bytes->room = room;
    }
    if (size > 0 && bytes->data != NULL) {
        memcpy(bytes->data + bytes->n, data, size);
    }
    bytes->n = needed;
    return true;
}

void kiln_bytes_free(struct kiln_bytes *bytes) {
    kiln_free(bytes->data);
    *bytes = (struct kiln_bytes){0};
}

/* ---- Unicode's normal forms --------------------------------------------------------------- */

struct range {
    uint32_t first, last;
};

bool kiln_nfc_inert(uint32_t code) {
    static const struct range inert[] = {
        {0x400, 0x482},   {0x48A, 0x52F},   {0x5D0, 0x5EA},    {0x620, 0x64A},   {0xE01, 0xE30},
        {0x2002, 0x203F}, {0x3001, 0x3020}, {0x3041, 0x3096},  {0x30A0, 0x30FA}, {0x4E00, 0x9FFF},
        {0xAC00, 0xD7A3}, {0xFF01, 0xFFEE}, {0x1F300, 0x1FAFF}};
    if (code < 0x300) {
        return true;
    }
    for (size_t i = 0; i < sizeof inert / sizeof inert[0]; i++) {
        if (code <= inert[i].last) {
            return code >= inert[i].first;
        }
    }
    return false;
}

static bool is_inert(enum kiln_rewrite_kind kind, uint32_t code) {
    return kind == KILN_REWRITE_NFC ? kiln_nfc_inert(code) : code < 0x80;
}

/* The end of the run of inert characters from `at` on; *last: where its last one begins. */
static size_t inert_run(enum kiln_rewrite_kind kind, const char *text, size_t size, size_t at,
                        size_t *last) {
    *last = at;
    while (at < size) {
        uint32_t code = (unsigned char)text[at];
        size_t n = code < 0x80 ? 1 : kiln_utf8_read(text + at, size - at, &code);
        if (!is_inert(kind, code)) {
            break;
        }
        *last = at;
        at += n;
    }
    return at;
}

static size_t until_inert(enum kiln_rewrite_kind kind, const char *text, size_t size, size_t at) {
    while (at < size) {
        uint32_t code = 0;
        size_t n = kiln_utf8_read(text + at, size - at, &code);
        if (n == 0 || is_inert(kind, code)) {
            break;
        }
        at += n;
    }
    return at;
}

static bool put_normal(enum kiln_rewrite_kind kind, const char *text, size_t size,
                       struct kiln_bytes *out) {
    static const utf8proc_option_t options[] = {
        [KILN_REWRITE_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [KILN_REWRITE_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [KILN_REWRITE_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [KILN_REWRITE_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT};
    utf8proc_uint8_t *made = NULL;
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &made, options[kind]);
    bool done = n >= 0 && kiln_bytes_put(out, (const char *)made, (size_t)n);
    free(made);
    return done;
}

/* 1: `out` has the text's normal form; 0: it is the text itself; -1: out of memory. */
static int normal_form(enum kiln_rewrite_kind kind, const char *text, size_t size,
                       struct kiln_bytes *out) {
    size_t last;
    size_t at = inert_run(kind, text, size, 0, &last);
    if (at == size) {
        return 0;
    }
    size_t copied = 0;
    out->n = 0;
    while (at < size) {
        size_t stop = until_inert(kind, text, size, at);
        if (!kiln_bytes_put(out, text + copied, last - copied) ||
            !put_normal(kind, text + last, stop - last, out)) {
            return -1;
        }
        copied = stop;
        at = inert_run(kind, text, size, stop, &last);
    }
    return kiln_bytes_put(out, text + copied, size - copied) ? 1 : -1;
}

/* ---- the other steps ---------------------------------------------------------------------- */

/* 1, 0 and -1 as above; -2: the search ran out of its limits. */
static int replace(struct kiln_matcher *matcher, const char *content, const char *text, size_t size,
                   struct kiln_bytes *out) {
    size_t copied = 0, from = 0, start, stop;
    int found;
    out->n = 0;
    while ((found = kiln_matcher_find(matcher, text, size, from, &start, &stop)) == 1) {
        if (!kiln_bytes_put(out, text + copied, start - copied) ||
            !kiln_bytes_put(out, content, strlen(content))) {
            return -1;
        }
        copied = from = stop;
        if (start == stop) {
            if (stop == size) {
                break;
            }
            from += kiln_utf8_length(text + stop, size - stop);
        }
    }
    if (found < 0) {
        return -2;
    }
    if (copied == 0 && out->n == 0) {
        return 0;
    }
    return kiln_bytes_put(out, text + copied, size - copied) ? 1 : -1;
}

/* U+2581 and the blank are one and the same: pieces are held with blanks. */
static int lower_blocks(const char *text, size_t size, struct kiln_bytes *out) {
    size_t copied = 0;
    const char *block;
    out->n = 0;
    while ((block = memmem(text + copied, size - copied, KILN_LOWER_BLOCK, 3)) != NULL) {
        if (!kiln_bytes_put(out, text + copied, (size_t)(block - text) - copied) ||
            !kiln_bytes_put(out, " ", 1)) {
            return -1;
        }
        copied = (size_t)(block - text) + 3;
    }
    return copied == 0 ? 0 : kiln_bytes_put(out, text + copied, size - copied) ? 1 : -1;
}

static int put_blank_first(const char *text, size_t size, struct kiln_bytes *out) {
    out->n = 0;
    return kiln_bytes_put(out, " ", 1) && kiln_bytes_put(out, text, size) ? 1 : -1;
}

/* ---- all steps ---------------------------------------------------------------------------- */

struct stretch {
    struct kiln_normalizer *n;
    const char *text;
    size_t size;
    int made; /* which of n->text it lies in; -1: in none */
};

static struct kiln_bytes *target(const struct stretch *s) { return &s->n->text[s->made == 0]; }

static enum kiln_status take(struct stretch *s, int changed, struct kiln_err *err) {
    KILN_REQUIRE(changed != -1, err, KILN_ENOMEM, "encode: out of memory");
    KILN_REQUIRE(changed != -2, err, KILN_EINPUT,
                 "encode: a pattern of the normalizer of %s does not come to an end in this text",
                 s->n->tok->name);
    if (changed == 1) {
        const struct kiln_bytes *made = target(s);
        s->text = made->data != NULL ? made->data : "";
        s->size = made->n;
        s->made = s->made == 0;
    }
    return KILN_OK;
}

static enum kiln_status rewrite_all(struct stretch *s, struct kiln_err *err) {
    const struct kiln_parts *p = &s->n->tok->parts;
    for (size_t i = 0; i < p->n_rewrites && s->size > 0; i++) {
        const struct kiln_rewrite *step = &p->rewrite[i];
        int changed;
        if (step->kind == KILN_REWRITE_REPLACE) {
            changed = replace(s->n->matcher[i], step->content, s->text, s->size, target(s));
        } else {
            changed = normal_form(step->kind, s->text, s->size, target(s));
        }
        KILN_TRY(take(s, changed, err));
    }
    if (p->spelling == KILN_SPELL_BLANKS && s->size > 0) {
        KILN_TRY(take(s, lower_blocks(s->text, s->size, target(s)), err));
    }
    return KILN_OK;
}

enum kiln_status kiln_normalize(struct kiln_normalizer *n, const char *text, size_t size,
                                bool prefix, const char **out, size_t *out_size,
                                struct kiln_err *err) {
    struct stretch s = {.n = n, .text = text, .size = size, .made = -1};
    KILN_TRY(rewrite_all(&s, err));
    if (prefix && s.size > 0) {
        KILN_TRY(take(&s, put_blank_first(s.text, s.size, target(&s)), err));
    }
    *out = s.text;
    *out_size = s.size;
    return KILN_OK;
}

enum kiln_status kiln_normalizer_open(struct kiln_normalizer *n, const struct kiln_tokenizer *tok,
                                      struct kiln_err *err) {
    *n = (struct kiln_normalizer){.tok = tok};
    n->matcher = kiln_alloc(tok->parts.n_rewrites + 1, sizeof(void *));
    bool done = n->matcher != NULL;
    for (size_t i = 0; done && i < tok->parts.n_rewrites; i++) {
        if (tok->rewrite[i] != NULL) {
            n->matcher[i] = kiln_matcher_open(tok->rewrite[i]);
            done = n->matcher[i] != NULL;
        }
    }
    if (!done) {
        kiln_normalizer_close(n);
        return KILN_FAIL(err, KILN_ENOMEM, "encode: out of memory");
    }
    return KILN_OK;
}

void kiln_normalizer_close(struct kiln_normalizer *n) {
    for (size_t i = 0; n->matcher != NULL && i < n->tok->parts.n_rewrites; i++) {
        kiln_matcher_close(n->matcher[i]);
    }
    kiln_free(n->matcher);
    kiln_bytes_free(&n->text[0]);
    kiln_bytes_free(&n->text[1]);
    *n = (struct kiln_normalizer){0};
}

enum kiln_status kiln_normalize_copy(const struct kiln_tokenizer *tok, const char *text,
                                     size_t size, char **out, size_t *out_size,
                                     struct kiln_err *err) {
    struct kiln_normalizer n;
    const char *made;
    *out = NULL;
    KILN_TRY(kiln_normalizer_open(&n, tok, err));
    /* other blanks that are put first are not the normalizer's, or not before an added token */
    bool prefix = tok->parts.prefix == KILN_PREFIX_ALWAYS;
    enum kiln_status status = kiln_normalize(&n, text, size, prefix, &made, out_size, err);
    if (status == KILN_OK) {
        *out = kiln_strndup(made, *out_size);
        status = *out != NULL ? KILN_OK : KILN_FAIL(err, KILN_ENOMEM, "encode: out of memory");
    }
    kiln_normalizer_close(&n);
    return status;
}
