/* SPDX-License-Identifier: MIT
 *
 * added.c: see added.h. Few contents are looked for in much text: a table of the pairs of bytes
 * with which one of them begins passes over nearly all of it.
 */
#include "text/added.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/normalizer.h"
#include "text/utf8.h"

struct content {
    char *text; /* heap */
    size_t size;
    struct kiln_added how;
};

struct kiln_finder {
    struct content *content; /* by first byte, then the longest first */
    size_t n;
    size_t first[257];   /* contents that begin with byte b: first[b] .. first[b+1] */
    uint64_t pair[1024]; /* bit (a, b): one begins with these bytes */
};

/* ---- making ------------------------------------------------------------------------------- */

static int by_first_then_longest(const void *a, const void *b) {
    const struct content *x = a, *y = b;
    if (x->text[0] != y->text[0]) {
        return (unsigned char)x->text[0] < (unsigned char)y->text[0] ? -1 : 1;
    }
    if (x->size != y->size) {
        return x->size > y->size ? -1 : 1;
    }
    return x->how.id < y->how.id ? -1 : x->how.id > y->how.id;
}

static void index_contents(struct kiln_finder *f) {
    qsort(f->content, f->n, sizeof *f->content, by_first_then_longest);
    for (size_t i = 0; i < f->n; i++) {
        const unsigned char *text = (const unsigned char *)f->content[i].text;
        f->first[text[0] + 1] = i + 1;
        for (unsigned b = 0; b < 256; b++) {
            unsigned bit = (unsigned)text[0] << 8 | (f->content[i].size > 1 ? text[1] : b);
            f->pair[bit >> 6] |= UINT64_C(1) << (bit & 63);
        }
    }
    for (size_t b = 1; b <= 256; b++) {
        f->first[b] = kiln_largest(f->first[b], f->first[b - 1]);
    }
}

/* What one added token is looked for as: as it is, or as the normalizer would leave it. */
static enum kiln_status add_content(struct kiln_finder *f, const struct kiln_tokenizer *tok,
                                    struct kiln_added how, struct kiln_err *err) {
    struct content *c = &f->content[f->n];
    size_t size;
    const char *piece = kiln_piece(&tok->parts.v, how.id, &size);
    c->how = how;
    if (how.normalized) {
        KILN_TRY(kiln_normalize_copy(tok, piece, size, &c->text, &c->size, err));
    } else {
        c->text = kiln_strndup(piece, size);
        c->size = size;
    }
    KILN_REQUIRE(c->text != NULL, err, KILN_ENOMEM, "tokenizer %s: out of memory", tok->name);
    if (c->size == 0) { /* nothing is found everywhere; `tokenizers` ignores it too */
        kiln_free(c->text);
        return KILN_OK;
    }
    f->n++;
    return KILN_OK;
}

static enum kiln_status open_finder(const struct kiln_tokenizer *tok, bool normalized,
                                    struct kiln_finder **out, struct kiln_err *err) {
    const struct kiln_parts *p = &tok->parts;
    struct kiln_finder *f = kiln_alloc(1, sizeof *f);
    KILN_REQUIRE(f != NULL, err, KILN_ENOMEM, "tokenizer %s: out of memory", tok->name);
    f->content = kiln_alloc(p->n_added, sizeof *f->content);
    enum kiln_status status =
        f->content != NULL ? KILN_OK
                           : KILN_FAIL(err, KILN_ENOMEM, "tokenizer %s: out of memory", tok->name);
    for (size_t i = 0; status == KILN_OK && i < p->n_added; i++) {
        if (p->added[i].normalized == normalized) {
            status = add_content(f, tok, p->added[i], err);
        }
    }
    if (status != KILN_OK || f->n == 0) {
        kiln_finder_close(f);
        return status;
    }
    index_contents(f);
    *out = f;
    return KILN_OK;
}

enum kiln_status kiln_finders_open(struct kiln_tokenizer *tok, struct kiln_err *err) {
    KILN_TRY(open_finder(tok, false, &tok->early, err));
    return open_finder(tok, true, &tok->late, err);
}

void kiln_finder_close(struct kiln_finder *finder) {
    if (finder == NULL) {
        return;
    }
    for (size_t i = 0; finder->content != NULL && i < finder->n; i++) {
        kiln_free(finder->content[i].text);
    }
    kiln_free(finder->content);
    kiln_free(finder);
}

/* ---- finding ------------------------------------------------------------------------------ */

static bool word_before(const char *text, size_t at) {
    uint32_t code = 0;
    size_t start = at;
    while (start > 0 && at - start < 4) {
        start--;
        if (((unsigned char)text[start] & 0xC0) != 0x80) {
            break;
        }
    }
    return at > 0 && kiln_utf8_read(text + start, at - start, &code) > 0 && kiln_is_word(code);
}

static bool word_behind(const char *text, size_t size, size_t at) {
    uint32_t code = 0;
    return at < size && kiln_utf8_read(text + at, size - at, &code) > 0 && kiln_is_word(code);
}

static size_t blanks_before(const char *text, size_t free, size_t at) {
    while (at > free) {
        size_t start = at - 1;
        while (start > free && ((unsigned char)text[start] & 0xC0) == 0x80) {
            start--;
        }
        uint32_t code;
        if (kiln_utf8_read(text + start, at - start, &code) != at - start || !kiln_is_space(code)) {
            break;
        }
        at = start;
    }
    return at;
}

static size_t blanks_behind(const char *text, size_t size, size_t at) {
    while (at < size) {
        uint32_t code;
        size_t n = kiln_utf8_read(text + at, size - at, &code);
        if (n == 0 || !kiln_is_space(code)) {
            break;
        }
        at += n;
    }
    return at;
}

static const struct content *match_at(const struct kiln_finder *f, const char *text, size_t size,
                                      size_t at) {
    unsigned char byte = (unsigned char)text[at];
    for (size_t i = f->first[byte]; i < f->first[byte + 1]; i++) {
        const struct content *c = &f->content[i];
        if (c->size <= size - at && memcmp(c->text, text + at, c->size) == 0) {
            return c;
        }
    }
    return NULL;
}

static bool may_begin(const struct kiln_finder *f, const char *text, size_t size, size_t at) {
    unsigned byte = (unsigned char)text[at];
    if (at + 1 == size) {
        return f->first[byte] < f->first[byte + 1];
    }
    unsigned bit = byte << 8 | (unsigned char)text[at + 1];
    return f->pair[bit >> 6] >> (bit & 63) & 1;
}

struct kiln_found kiln_finder_next(const struct kiln_finder *finder, const char *text, size_t size,
                                   size_t from, size_t free) {
    for (size_t at = from; finder != NULL && at < size; at++) {
        const struct content *c =
            may_begin(finder, text, size, at) ? match_at(finder, text, size, at) : NULL;
        if (c == NULL) {
            continue;
        }
        size_t stop = at + c->size;
        if (c->how.single_word && (word_before(text, at) || word_behind(text, size, stop))) {
            at = stop - 1;
            continue;
        }
        return (struct kiln_found){
            .start = c->how.lstrip ? blanks_before(text, free, at) : kiln_largest(at, free),
            .stop = c->how.rstrip ? blanks_behind(text, size, stop) : stop,
            .next = stop,
            .id = c->how.id};
    }
    return (struct kiln_found){.start = size, .stop = size, .next = size, .id = KILN_NO_ID};
}
