/* SPDX-License-Identifier: MIT
 *
 * template_method.c: methods of texts, mappings and lists, as Python's.
 */
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "text/template_int.h"

typedef enum kiln_status method_fn(struct tpl_run *r, const struct tpl_value *self,
                                   const struct tpl_arguments *a, struct tpl_value *out);

/* ---- helpers -----------------------------------------------------------------------------------
 */

enum kiln_status kiln_tpl_want_text(struct tpl_run *r, const char *who, const struct tpl_value *v,
                                    struct tpl_str *out) {
    *out = (struct tpl_str){"", 0};
    if (v == NULL || v->type != TPL_TEXT) {
        return kiln_tpl_fail(r, "%s: %s where a string is expected", who,
                             v ? kiln_tpl_type_name(v) : "nothing");
    }
    *out = v->text;
    return KILN_OK;
}

static utf8proc_int32_t character_at(struct tpl_str s, size_t at, size_t *size) {
    utf8proc_int32_t c;
    const utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)s.p + at, (utf8proc_ssize_t)(s.n - at), &c);
    *size = n > 0 ? (size_t)n : 1;
    return n > 0 ? c : (unsigned char)s.p[at];
}

/* As str.isspace. */
static bool blank(utf8proc_int32_t c) {
    if (c < 0x80) {
        return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1C && c <= 0x1F);
    }
    const utf8proc_category_t kind = utf8proc_category(c);
    return c == 0x85 || kind == UTF8PROC_CATEGORY_ZS || kind == UTF8PROC_CATEGORY_ZL ||
           kind == UTF8PROC_CATEGORY_ZP;
}

/* Is the character one of the set; or blank, without a set? */
static bool goes(struct tpl_str s, size_t at, const struct tpl_str *set, size_t *size) {
    const utf8proc_int32_t c = character_at(s, at, size);
    if (set == NULL) {
        return blank(c);
    }
    return memmem(set->p, set->n, s.p + at, *size) != NULL;
}

static size_t before(struct tpl_str s, size_t at) {
    do {
        at--;
    } while (at > 0 && ((unsigned char)s.p[at] & 0xC0) == 0x80);
    return at;
}

/* ---- texts -------------------------------------------------------------------------------------
 */

static enum kiln_status strip(struct tpl_run *r, const struct tpl_value *self,
                              const struct tpl_arguments *a, bool left, bool right,
                              struct tpl_value *out) {
    struct tpl_str s = self->text, set;
    size_t from = 0, to = s.n, size;
    KILN_TRY(kiln_tpl_accept(r, "strip", a, 1, " chars "));
    const struct tpl_value *given = kiln_tpl_argument(a, 0, "chars");
    const bool some = given && given->type != TPL_NONE;
    KILN_TRY(some ? kiln_tpl_want_text(r, "strip", given, &set) : KILN_OK);
    const struct tpl_str *which = some ? &set : NULL;
    while (left && from < to && goes(s, from, which, &size)) {
        from += size;
    }
    while (right && to > from && goes((struct tpl_str){s.p, to}, before(s, to), which, &size)) {
        to = before(s, to);
    }
    *out = kiln_tpl_text(s.p + from, to - from);
    return KILN_OK;
}
static enum kiln_status text_strip(struct tpl_run *r, const struct tpl_value *self,
                                   const struct tpl_arguments *a, struct tpl_value *out) {
    return strip(r, self, a, true, true, out);
}
static enum kiln_status text_lstrip(struct tpl_run *r, const struct tpl_value *self,
                                    const struct tpl_arguments *a, struct tpl_value *out) {
    return strip(r, self, a, true, false, out);
}
static enum kiln_status text_rstrip(struct tpl_run *r, const struct tpl_value *self,
                                    const struct tpl_arguments *a, struct tpl_value *out) {
    return strip(r, self, a, false, true, out);
}

static bool at_edge(struct tpl_str s, struct tpl_str part, bool end) {
    return part.n <= s.n && memcmp(end ? s.p + s.n - part.n : s.p, part.p, part.n) == 0;
}

/* startswith, endswith: one text, or a list of them. */
static enum kiln_status edge(struct tpl_run *r, const char *who, bool end,
                             const struct tpl_value *self, const struct tpl_arguments *a,
                             struct tpl_value *out) {
    struct tpl_str part;
    bool is = false;
    KILN_TRY(kiln_tpl_accept(r, who, a, 1, ""));
    const struct tpl_value *given = kiln_tpl_argument(a, 0, "");
    if (given && given->type == TPL_LIST) {
        for (size_t i = 0; i < given->list->n; i++) {
            KILN_TRY(kiln_tpl_want_text(r, who, &given->list->at[i], &part));
            is |= at_edge(self->text, part, end);
        }
    } else {
        KILN_TRY(kiln_tpl_want_text(r, who, given, &part));
        is = at_edge(self->text, part, end);
    }
    *out = kiln_tpl_truth(is);
    return KILN_OK;
}
static enum kiln_status text_startswith(struct tpl_run *r, const struct tpl_value *self,
                                        const struct tpl_arguments *a, struct tpl_value *out) {
    return edge(r, "startswith", false, self, a, out);
}
static enum kiln_status text_endswith(struct tpl_run *r, const struct tpl_value *self,
                                      const struct tpl_arguments *a, struct tpl_value *out) {
    return edge(r, "endswith", true, self, a, out);
}

static enum kiln_status cut_edge(struct tpl_run *r, const char *who, bool end,
                                 const struct tpl_value *self, const struct tpl_arguments *a,
                                 struct tpl_value *out) {
    struct tpl_str part;
    KILN_TRY(kiln_tpl_accept(r, who, a, 1, ""));
    KILN_TRY(kiln_tpl_want_text(r, who, kiln_tpl_argument(a, 0, ""), &part));
    const bool is = at_edge(self->text, part, end);
    *out =
        kiln_tpl_text(self->text.p + (is && !end ? part.n : 0), self->text.n - (is ? part.n : 0));
    return KILN_OK;
}
static enum kiln_status text_removeprefix(struct tpl_run *r, const struct tpl_value *self,
                                          const struct tpl_arguments *a, struct tpl_value *out) {
    return cut_edge(r, "removeprefix", false, self, a, out);
}
static enum kiln_status text_removesuffix(struct tpl_run *r, const struct tpl_value *self,
                                          const struct tpl_arguments *a, struct tpl_value *out) {
    return cut_edge(r, "removesuffix", true, self, a, out);
}

/* How often, where it is given; -1: without end. */
static enum kiln_status count_argument(struct tpl_run *r, const char *who,
                                       const struct tpl_value *v, int64_t *out) {
    *out = -1;
    if (v && v->type != TPL_NONE && v->type != TPL_INT) {
        return kiln_tpl_fail(r, "%s: %s where a number is expected", who, kiln_tpl_type_name(v));
    }
    *out = v && v->type == TPL_INT ? v->whole : -1;
    return KILN_OK;
}

static enum kiln_status split_at(struct tpl_run *r, struct tpl_str s, struct tpl_str by,
                                 int64_t most, struct tpl_list *out) {
    while (most != 0) {
        const char *found = memmem(s.p, s.n, by.p, by.n);
        if (found == NULL) {
            break;
        }
        const size_t n = (size_t)(found - s.p);
        KILN_TRY(kiln_tpl_push(r, out, kiln_tpl_text(s.p, n)));
        s.p += n + by.n;
        s.n -= n + by.n;
        most -= most > 0;
    }
    return kiln_tpl_push(r, out, kiln_tpl_text(s.p, s.n));
}

static enum kiln_status split_blanks(struct tpl_run *r, struct tpl_str s, int64_t most,
                                     struct tpl_list *out) {
    size_t size;
    for (size_t at = 0;;) {
        while (at < s.n && goes(s, at, NULL, &size)) {
            at += size;
        }
        if (at >= s.n) {
            return KILN_OK;
        }
        size_t end = at;
        while (end < s.n && !goes(s, end, NULL, &size)) {
            end += size;
        }
        end = most-- == 0 ? s.n : end;
        KILN_TRY(kiln_tpl_push(r, out, kiln_tpl_text(s.p + at, end - at)));
        at = end;
    }
}

static enum kiln_status text_split(struct tpl_run *r, const struct tpl_value *self,
                                   const struct tpl_arguments *a, struct tpl_value *out) {
    struct tpl_str by;
    int64_t most;
    KILN_TRY(kiln_tpl_accept(r, "split", a, 2, " sep maxsplit "));
    const struct tpl_value *given = kiln_tpl_argument(a, 0, "sep");
    KILN_TRY(count_argument(r, "split", kiln_tpl_argument(a, 1, "maxsplit"), &most));
    KILN_TRY(kiln_tpl_new_list(r, 4, out));
    if (given == NULL || given->type == TPL_NONE) {
        return split_blanks(r, self->text, most, out->list);
    }
    KILN_TRY(kiln_tpl_want_text(r, "split", given, &by));
    return by.n > 0 ? split_at(r, self->text, by, most, out->list)
                    : kiln_tpl_fail(r, "split at the empty string");
}

static enum kiln_status text_rsplit(struct tpl_run *r, const struct tpl_value *self,
                                    const struct tpl_arguments *a, struct tpl_value *out) {
    int64_t most;
    struct tpl_str by;
    struct tpl_value all;
    const struct tpl_arguments first = {.at = a->at, .n = a->n < 1 ? a->n : 1};
    KILN_TRY(kiln_tpl_accept(r, "rsplit", a, 2, ""));
    KILN_TRY(count_argument(r, "rsplit", a->n > 1 ? &a->at[1] : NULL, &most));
    KILN_TRY(text_split(r, self, &first, &all));
    const int64_t n = (int64_t)all.list->n;
    if (most < 0 || n <= most + 1) {
        *out = all;
        return KILN_OK;
    }
    KILN_TRY(kiln_tpl_want_text(r, "rsplit", a->n > 0 ? &a->at[0] : NULL, &by));
    const struct tpl_value *last = &all.list->at[n - 1 - most];
    KILN_TRY(kiln_tpl_new_list(r, (size_t)most + 1, out));
    KILN_TRY(kiln_tpl_push(
        r, out->list,
        kiln_tpl_text(self->text.p, (size_t)(last->text.p + last->text.n - self->text.p))));
    for (int64_t i = n - most; i < n; i++) {
        KILN_TRY(kiln_tpl_push(r, out->list, all.list->at[i]));
    }
    return KILN_OK;
}

static enum kiln_status text_splitlines(struct tpl_run *r, const struct tpl_value *self,
                                        const struct tpl_arguments *a, struct tpl_value *out) {
    const struct tpl_str s = self->text;
    KILN_TRY(kiln_tpl_accept(r, "splitlines", a, 0, ""));
    KILN_TRY(kiln_tpl_new_list(r, 4, out));
    for (size_t at = 0; at < s.n;) {
        size_t end = at;
        while (end < s.n && s.p[end] != '\n' && s.p[end] != '\r') {
            end++;
        }
        KILN_TRY(kiln_tpl_push(r, out->list, kiln_tpl_text(s.p + at, end - at)));
        at = end + 1 + (end + 1 < s.n && s.p[end] == '\r' && s.p[end + 1] == '\n');
    }
    return KILN_OK;
}

static enum kiln_status text_replace(struct tpl_run *r, const struct tpl_value *self,
                                     const struct tpl_arguments *a, struct tpl_value *out) {
    struct tpl_str s = self->text, from, to;
    struct tpl_buffer b = {NULL, 0, 0};
    int64_t most;
    KILN_TRY(kiln_tpl_accept(r, "replace", a, 3, " old new count "));
    KILN_TRY(kiln_tpl_want_text(r, "replace", kiln_tpl_argument(a, 0, "old"), &from));
    KILN_TRY(kiln_tpl_want_text(r, "replace", kiln_tpl_argument(a, 1, "new"), &to));
    KILN_TRY(count_argument(r, "replace", kiln_tpl_argument(a, 2, "count"), &most));
    if (from.n == 0) {
        return kiln_tpl_fail(r, "replace of the empty string is not supported");
    }
    while (most != 0) {
        const char *found = memmem(s.p, s.n, from.p, from.n);
        if (found == NULL) {
            break;
        }
        const size_t n = (size_t)(found - s.p);
        KILN_TRY(kiln_tpl_write(r, &b, s.p, n));
        KILN_TRY(kiln_tpl_write(r, &b, to.p, to.n));
        s.p += n + from.n;
        s.n -= n + from.n;
        most -= most > 0;
    }
    KILN_TRY(kiln_tpl_write(r, &b, s.p, s.n));
    *out = kiln_tpl_text(b.n > 0 ? b.p : "", b.n);
    return KILN_OK;
}

enum letters { UPPER, LOWER, CAPITAL, TITLE };

/* Characters one to one: those that become several (sharp s) stay. */
static enum kiln_status letters(struct tpl_run *r, struct tpl_str s, enum letters how,
                                struct tpl_value *out) {
    struct tpl_buffer b = {NULL, 0, 0};
    bool word = false;
    for (size_t at = 0, size; at < s.n; at += size) {
        const utf8proc_int32_t c = character_at(s, at, &size);
        const bool up = how == UPPER || (how == CAPITAL && at == 0) || (how == TITLE && !word);
        const utf8proc_int32_t other = up ? utf8proc_toupper(c) : utf8proc_tolower(c);
        utf8proc_uint8_t bytes[4];
        const utf8proc_ssize_t n = utf8proc_encode_char(other, bytes);
        word = utf8proc_toupper(c) != c || utf8proc_tolower(c) != c;
        KILN_TRY(n > 0 && other != c ? kiln_tpl_write(r, &b, (const char *)bytes, (size_t)n)
                                     : kiln_tpl_write(r, &b, s.p + at, size));
    }
    *out = kiln_tpl_text(b.n > 0 ? b.p : "", b.n);
    return KILN_OK;
}
static enum kiln_status text_upper(struct tpl_run *r, const struct tpl_value *self,
                                   const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "upper", a, 0, ""));
    return letters(r, self->text, UPPER, out);
}
static enum kiln_status text_lower(struct tpl_run *r, const struct tpl_value *self,
                                   const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "lower", a, 0, ""));
    return letters(r, self->text, LOWER, out);
}
static enum kiln_status text_capitalize(struct tpl_run *r, const struct tpl_value *self,
                                        const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "capitalize", a, 0, ""));
    return letters(r, self->text, CAPITAL, out);
}
static enum kiln_status text_title(struct tpl_run *r, const struct tpl_value *self,
                                   const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "title", a, 0, ""));
    return letters(r, self->text, TITLE, out);
}

static enum kiln_status find(struct tpl_run *r, const char *who, bool last,
                             const struct tpl_value *self, const struct tpl_arguments *a,
                             struct tpl_value *out) {
    struct tpl_str part;
    const struct tpl_str s = self->text;
    KILN_TRY(kiln_tpl_accept(r, who, a, 1, ""));
    KILN_TRY(kiln_tpl_want_text(r, who, kiln_tpl_argument(a, 0, ""), &part));
    const char *found = NULL;
    for (const char *at = s.p; at != NULL; at = last && found ? found + 1 : NULL) {
        const char *next =
            at <= s.p + s.n ? memmem(at, s.n - (size_t)(at - s.p), part.p, part.n) : NULL;
        if (next == NULL) {
            break;
        }
        found = next;
    }
    *out = kiln_tpl_whole(
        found ? (int64_t)kiln_tpl_characters((struct tpl_str){s.p, (size_t)(found - s.p)}) : -1);
    return KILN_OK;
}
static enum kiln_status text_find(struct tpl_run *r, const struct tpl_value *self,
                                  const struct tpl_arguments *a, struct tpl_value *out) {
    return find(r, "find", false, self, a, out);
}
static enum kiln_status text_rfind(struct tpl_run *r, const struct tpl_value *self,
                                   const struct tpl_arguments *a, struct tpl_value *out) {
    return find(r, "rfind", true, self, a, out);
}

static enum kiln_status text_count(struct tpl_run *r, const struct tpl_value *self,
                                   const struct tpl_arguments *a, struct tpl_value *out) {
    struct tpl_value parts;
    KILN_TRY(kiln_tpl_accept(r, "count", a, 1, ""));
    KILN_TRY(text_split(r, self, a, &parts));
    *out = kiln_tpl_whole((int64_t)parts.list->n - 1);
    return KILN_OK;
}

static enum kiln_status text_join(struct tpl_run *r, const struct tpl_value *self,
                                  const struct tpl_arguments *a, struct tpl_value *out) {
    struct tpl_arguments by = {.at = kiln_tpl_take(&r->heap, 1, sizeof *by.at), .n = 1};
    KILN_TRY(kiln_tpl_accept(r, "join", a, 1, ""));
    if (by.at == NULL || a->n != 1) {
        return kiln_tpl_fail(r, "join takes a list");
    }
    by.at[0] = *self;
    return kiln_tpl_filter(r, TPL_STR("join"), &a->at[0], &by, out);
}

static enum kiln_status text_isdigit(struct tpl_run *r, const struct tpl_value *self,
                                     const struct tpl_arguments *a, struct tpl_value *out) {
    bool all = self->text.n > 0;
    KILN_TRY(kiln_tpl_accept(r, "isdigit", a, 0, ""));
    for (size_t i = 0; i < self->text.n; i++) {
        all &= self->text.p[i] >= '0' && self->text.p[i] <= '9';
    }
    *out = kiln_tpl_truth(all);
    return KILN_OK;
}

static enum kiln_status text_isspace(struct tpl_run *r, const struct tpl_value *self,
                                     const struct tpl_arguments *a, struct tpl_value *out) {
    bool all = self->text.n > 0;
    KILN_TRY(kiln_tpl_accept(r, "isspace", a, 0, ""));
    for (size_t at = 0, size; at < self->text.n; at += size) {
        all &= goes(self->text, at, NULL, &size);
    }
    *out = kiln_tpl_truth(all);
    return KILN_OK;
}

/* ---- mappings, loops ----------------------------------------------------------------------------
 */

static enum kiln_status dict_items(struct tpl_run *r, const struct tpl_value *self,
                                   const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "items", a, 0, ""));
    KILN_TRY(kiln_tpl_new_list(r, self->dict->n, out));
    for (size_t i = 0; i < self->dict->n; i++) {
        struct tpl_value pair;
        KILN_TRY(kiln_tpl_new_list(r, 2, &pair));
        pair.tuple = true;
        KILN_TRY(kiln_tpl_push(r, pair.list, self->dict->key[i]));
        KILN_TRY(kiln_tpl_push(r, pair.list, self->dict->value[i]));
        KILN_TRY(kiln_tpl_push(r, out->list, pair));
    }
    return KILN_OK;
}

static enum kiln_status dict_part(struct tpl_run *r, const struct tpl_value *from, size_t n,
                                  struct tpl_value *out) {
    KILN_TRY(kiln_tpl_new_list(r, n, out));
    for (size_t i = 0; i < n; i++) {
        KILN_TRY(kiln_tpl_push(r, out->list, from[i]));
    }
    return KILN_OK;
}
static enum kiln_status dict_keys(struct tpl_run *r, const struct tpl_value *self,
                                  const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "keys", a, 0, ""));
    return dict_part(r, self->dict->key, self->dict->n, out);
}
static enum kiln_status dict_values(struct tpl_run *r, const struct tpl_value *self,
                                    const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "values", a, 0, ""));
    return dict_part(r, self->dict->value, self->dict->n, out);
}

static enum kiln_status dict_get(struct tpl_run *r, const struct tpl_value *self,
                                 const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "get", a, 2, ""));
    if (a->n == 0) {
        return kiln_tpl_fail(r, "get without a key");
    }
    const struct tpl_value *found = kiln_tpl_get(self->dict, &a->at[0]);
    *out = found ? *found : a->n > 1 ? a->at[1] : (struct tpl_value){.type = TPL_NONE};
    return KILN_OK;
}

static enum kiln_status loop_cycle(struct tpl_run *r, const struct tpl_value *self,
                                   const struct tpl_arguments *a, struct tpl_value *out) {
    const struct tpl_value *at = kiln_tpl_get_text(self->dict, TPL_STR("index0"));
    KILN_TRY(kiln_tpl_accept(r, "cycle", a, SIZE_MAX, ""));
    if (a->n == 0 || at == NULL || at->type != TPL_INT) {
        return kiln_tpl_fail(r, "cycle through nothing");
    }
    *out = a->at[(size_t)at->whole % a->n];
    return KILN_OK;
}

/* ---- the table
 * ----------------------------------------------------------------------------------- */

static const struct {
    enum tpl_type of;
    const char *name;
    method_fn *fn; /* NULL: known to Python, not supported here */
} methods[] = {
    {TPL_TEXT, "strip", text_strip},
    {TPL_TEXT, "lstrip", text_lstrip},
    {TPL_TEXT, "rstrip", text_rstrip},
    {TPL_TEXT, "startswith", text_startswith},
    {TPL_TEXT, "endswith", text_endswith},
    {TPL_TEXT, "removeprefix", text_removeprefix},
    {TPL_TEXT, "removesuffix", text_removesuffix},
    {TPL_TEXT, "split", text_split},
    {TPL_TEXT, "rsplit", text_rsplit},
    {TPL_TEXT, "splitlines", text_splitlines},
    {TPL_TEXT, "replace", text_replace},
    {TPL_TEXT, "upper", text_upper},
    {TPL_TEXT, "lower", text_lower},
    {TPL_TEXT, "capitalize", text_capitalize},
    {TPL_TEXT, "title", text_title},
    {TPL_TEXT, "find", text_find},
    {TPL_TEXT, "rfind", text_rfind},
    {TPL_TEXT, "count", text_count},
    {TPL_TEXT, "join", text_join},
    {TPL_TEXT, "isdigit", text_isdigit},
    {TPL_TEXT, "isspace", text_isspace},
    {TPL_TEXT, "format", NULL},
    {TPL_TEXT, "index", NULL},
    {TPL_TEXT, "center", NULL},
    {TPL_TEXT, "ljust", NULL},
    {TPL_TEXT, "rjust", NULL},
    {TPL_TEXT, "zfill", NULL},
    {TPL_TEXT, "partition", NULL},
    {TPL_TEXT, "rpartition", NULL},
    {TPL_TEXT, "isalpha", NULL},
    {TPL_TEXT, "isalnum", NULL},
    {TPL_TEXT, "isupper", NULL},
    {TPL_TEXT, "islower", NULL},
    {TPL_TEXT, "isnumeric", NULL},
    {TPL_TEXT, "casefold", NULL},
    {TPL_TEXT, "swapcase", NULL},
    {TPL_TEXT, "encode", NULL},
    {TPL_TEXT, "translate", NULL},
    {TPL_DICT, "items", dict_items},
    {TPL_DICT, "keys", dict_keys},
    {TPL_DICT, "values", dict_values},
    {TPL_DICT, "get", dict_get},
    {TPL_DICT, "update", NULL},
    {TPL_DICT, "pop", NULL},
    {TPL_DICT, "popitem", NULL},
    {TPL_DICT, "setdefault", NULL},
    {TPL_DICT, "copy", NULL},
    {TPL_DICT, "clear", NULL},
    {TPL_LIST, "append", NULL},
    {TPL_LIST, "extend", NULL},
    {TPL_LIST, "insert", NULL},
    {TPL_LIST, "pop", NULL},
    {TPL_LIST, "remove", NULL},
    {TPL_LIST, "index", NULL},
    {TPL_LIST, "count", NULL},
    {TPL_LIST, "sort", NULL},
    {TPL_LIST, "reverse", NULL},
    {TPL_LIST, "copy", NULL},
    {TPL_LIST, "clear", NULL},
    {TPL_NAMESPACE, "cycle", loop_cycle},
    {TPL_NAMESPACE, "changed", NULL},
};
enum { N_METHODS = sizeof methods / sizeof methods[0], NO_METHOD = -1 };

static int method_at(const struct tpl_value *v, struct tpl_str name) {
    for (int i = 0; i < N_METHODS; i++) {
        if (methods[i].of == v->type && kiln_tpl_is(name, methods[i].name)) {
            return i;
        }
    }
    return NO_METHOD;
}

/* A namespace has none but where it is the loop's. */
bool kiln_tpl_has_method(const struct tpl_value *v, struct tpl_str name) {
    return method_at(v, name) != NO_METHOD &&
           (v->type != TPL_NAMESPACE || kiln_tpl_get_text(v->dict, TPL_STR("revindex0")) != NULL);
}

/* ---- calls -------------------------------------------------------------------------------------
 */

enum kiln_status kiln_tpl_call(struct tpl_run *r, const struct tpl_value *what,
                               const struct tpl_arguments *a, struct tpl_value *out) {
    if (what->type == TPL_MACRO) {
        return kiln_tpl_call_macro(r, what, a, out);
    }
    if (what->type == TPL_FUNCTION) {
        return kiln_tpl_call_function(r, what->call.name, a, out);
    }
    if (what->type != TPL_METHOD) {
        return kiln_tpl_fail(r, "%s cannot be called", kiln_tpl_type_name(what));
    }
    const int i = method_at(what->call.bound, what->call.name);
    if (i == NO_METHOD || methods[i].fn == NULL) {
        return kiln_tpl_fail(r, "the method %.*s of %s is not supported", (int)what->call.name.n,
                             what->call.name.p, kiln_tpl_type_name(what->call.bound));
    }
    return methods[i].fn(r, what->call.bound, a, out);
}
