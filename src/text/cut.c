/* SPDX-License-Identifier: MIT
 *
 * cut.c: where a long text may be cut, so that its parts have the ids of the whole.
 *
 * The patterns of GPT-2, Llama-3 and Qwen2 take a newline that stands alone by itself, or with what
 * stands before it, whether something follows or not; and a blank that stands alone by itself, or
 * with what follows. So a text may be cut behind the one and before the other.
 */
#include <string.h>

#include "text/merges.h"
#include "text/text_int.h"
#include "text/utf8.h"

/* Is text[at], of UTF-8, the beginning of a character that is seen? */
static bool is_seen(const char *text, size_t size, size_t at) {
    uint32_t code;
    return at < size && kiln_utf8_read(text + at, size - at, &code) > 0 && code > ' ' &&
           !kiln_is_space(code);
}

/* The same of the character that ends before text[at]. */
static bool is_seen_before(const char *text, size_t at) {
    size_t n = 1;
    while (n < 4 && n < at && ((unsigned char)text[at - n] & 0xC0) == 0x80) {
        n++;
    }
    return at > 0 && kiln_utf8_length(text + at - n, n) == n && is_seen(text, at, at - n);
}

/* ---- tokens ------------------------------------------------------------------------------------
 */

/* The first id of a character; KILN_NO_ID when it has none. */
static uint32_t first_id(const struct kiln_tokenizer *tok, const char *text, size_t size) {
    const unsigned char c = (unsigned char)text[0];
    const size_t n = kiln_utf8_length(text, size);
    uint32_t id = tok->one[c];
    if (n > 1 && tok->parts.spelling != KILN_SPELL_BYTES) {
        id = kiln_tokenizer_find(tok, text, n);
    }
    return id != KILN_NO_ID ? id : tok->byte_id[c];
}

/* May a merge take both characters, the one that ends before text[at] and the one there? Where one
 * of them is unknown nobody knows. */
static bool may_merge(const struct kiln_tokenizer *tok, const char *text, size_t size, size_t at) {
    size_t n = 1;
    while (n < at && ((unsigned char)text[at - n] & 0xC0) == 0x80) {
        n++;
    }
    const bool bytes = tok->parts.spelling == KILN_SPELL_BYTES;
    const uint32_t left =
        bytes ? tok->one[(unsigned char)text[at - 1]] : first_id(tok, text + at - n, n);
    const uint32_t right = first_id(tok, text + at, size - at);
    const uint32_t block =
        bytes || text[at] != ' ' ? KILN_NO_ID : kiln_tokenizer_find(tok, KILN_LOWER_BLOCK, 3);
    if (left == KILN_NO_ID || right == KILN_NO_ID || left == tok->parts.unknown ||
        right == tok->parts.unknown) {
        return true;
    }
    return kiln_joins(tok, left, right) || (block != KILN_NO_ID && kiln_joins(tok, left, block));
}

/* May an added token lie across, or take blanks along from the other side? */
static bool may_be_added(const struct kiln_tokenizer *tok, const char *text, size_t at) {
    for (size_t i = 0; i < tok->parts.n_added; i++) {
        const struct kiln_added *added = &tok->parts.added[i];
        size_t n;
        const char *piece = kiln_piece(&tok->parts.v, added->id, &n);
        const bool blank = text[at] == ' ';
        if (n == 0) {
            continue;
        }
        if ((added->lstrip && piece[0] == text[at + blank]) ||
            (added->rstrip && piece[n - 1] == text[at - 1]) ||
            memmem(piece, n, text + at - 1, 2) != NULL) {
            return true;
        }
    }
    return false;
}

/* ---- places ------------------------------------------------------------------------------------
 */

bool kiln_may_cut(const struct kiln_tokenizer *tok, const char *text, size_t size, size_t at) {
    bool alone = false;
    if (at > 1 && at < size && text[at - 1] == '\n') {
        alone = is_seen_before(text, at - 1) && is_seen(text, size, at);
    } else if (at > 0 && at < size && text[at] == ' ') {
        alone = is_seen_before(text, at) && is_seen(text, size, at + 1);
    }
    return alone &&
           (tok == NULL || (!may_merge(tok, text, size, at) && !may_be_added(tok, text, at)));
}

/* The last such place; 0: there is none. */
static size_t last_cut(const struct kiln_tokenizer *tok, const char *text, size_t size, char kind) {
    for (size_t i = size; i > 0; i--) {
        const size_t at = i - 1 + (kind == '\n');
        if (text[i - 1] == kind && kiln_may_cut(tok, text, size, at)) {
            return at;
        }
    }
    return 0;
}

size_t kiln_cut(const struct kiln_tokenizer *tok, const char *text, size_t size) {
    static const char kinds[] = {'\n', ' '};
    for (size_t i = 0; i < sizeof kinds; i++) {
        const size_t at = last_cut(tok, text, size, kinds[i]);
        if (at > 0) {
            return at;
        }
    }
    const size_t rest = kiln_utf8_unfinished(text, size);
    return rest < size ? size - rest : size;
}
