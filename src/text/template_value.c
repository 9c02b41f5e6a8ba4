/* SPDX-License-Identifier: MIT
 *
 * template_value.c: values of the template language: memory, comparison, lists, mappings.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "text/template_int.h"

/* ---- memory ------------------------------------------------------------------------------------
 */

enum { BLOCK_BYTES = 1 << 16, ALIGNED = 16 };

struct tpl_block {
    struct tpl_block *before;
    size_t used, room;
    _Alignas(ALIGNED) unsigned char bytes[];
};

void *kiln_tpl_take(struct tpl_heap *heap, size_t n, size_t size) {
    size_t bytes;
    if (kiln_mul_overflows(n, size, &bytes) || bytes > heap->limit - heap->used) {
        return NULL;
    }
    bytes = kiln_round_up(bytes ? bytes : 1, ALIGNED);
    if (heap->last == NULL || heap->last->room - heap->last->used < bytes) {
        const size_t room = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        struct tpl_block *block = kiln_alloc(sizeof *block + room, 1);
        if (block == NULL) {
            return NULL;
        }
        block->before = heap->last;
        block->room = room;
        heap->last = block;
    }
    void *taken = heap->last->bytes + heap->last->used;
    heap->last->used += bytes;
    heap->used = bytes < heap->limit - heap->used ? heap->used + bytes : heap->limit;
    return taken;
}

void kiln_tpl_release(struct tpl_heap *heap) {
    while (heap->last != NULL) {
        struct tpl_block *block = heap->last;
        heap->last = block->before;
        kiln_free(block);
    }
}

enum kiln_status kiln_tpl_no_memory(struct tpl_run *r) {
    return kiln_tpl_fail(r, "takes more than %d MB of memory", KILN_TEMPLATE_BYTES >> 20);
}

/* ---- texts --------------------------------------------------------------------------------------
 */

static bool begins_character(char c) { return ((unsigned char)c & 0xC0) != 0x80; }

size_t kiln_tpl_characters(struct tpl_str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        n += begins_character(s.p[i]);
    }
    return n;
}

size_t kiln_tpl_place(struct tpl_str s, size_t i) {
    size_t at = 0;
    for (; at < s.n; at++) {
        if (begins_character(s.p[at]) && i-- == 0) {
            return at;
        }
    }
    return s.n;
}

enum kiln_status kiln_tpl_keep(struct tpl_run *r, const char *p, size_t n, struct tpl_value *out) {
    char *copy = kiln_tpl_take(&r->heap, n + 1, 1);
    if (copy == NULL) {
        return kiln_tpl_no_memory(r);
    }
    memcpy(copy, p, n);
    *out = kiln_tpl_text(copy, n);
    return KILN_OK;
}

/* ---- what values are
 * ------------------------------------------------------------------------------ */

const char *kiln_tpl_type_name(const struct tpl_value *v) {
    static const char *const names[] = {"undefined",   "none",     "a boolean", "a number",
                                        "a number",    "a string", "a list",    "a mapping",
                                        "a namespace", "a macro",  "a method",  "a function"};
    return names[v->type];
}

bool kiln_tpl_true(const struct tpl_value *v) {
    switch (v->type) {
        case TPL_UNDEFINED:
        case TPL_NONE:
            return false;
        case TPL_BOOL:
            return v->truth;
        case TPL_INT:
            return v->whole != 0;
        case TPL_REAL:
            return v->real != 0; /* NaN is true */
        case TPL_TEXT:
            return v->text.n > 0;
        case TPL_LIST:
            return v->list->n > 0;
        case TPL_DICT:
            return v->dict->n > 0;
        default:
            return true;
    }
}

static bool is_number(const struct tpl_value *v) {
    return v->type == TPL_INT || v->type == TPL_REAL || v->type == TPL_BOOL;
}

static double as_real(const struct tpl_value *v) {
    return v->type == TPL_REAL ? v->real : v->type == TPL_INT ? (double)v->whole : (double)v->truth;
}

static int64_t as_whole(const struct tpl_value *v) {
    return v->type == TPL_INT ? v->whole : v->truth;
}

static int compare_texts(struct tpl_str a, struct tpl_str b) {
    const int order = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return order != 0 ? order : (a.n > b.n) - (a.n < b.n);
}

static bool equal_lists(const struct tpl_list *a, const struct tpl_list *b) {
    bool same = a->n == b->n;
    for (size_t i = 0; same && i < a->n; i++) {
        same = kiln_tpl_equal(&a->at[i], &b->at[i]);
    }
    return same;
}

static bool equal_dicts(const struct tpl_dict *a, const struct tpl_dict *b) {
    bool same = a->n == b->n;
    for (size_t i = 0; same && i < a->n; i++) {
        const struct tpl_value *other = kiln_tpl_get(b, &a->key[i]);
        same = other != NULL && kiln_tpl_equal(&a->value[i], other);
    }
    return same;
}

bool kiln_tpl_equal(const struct tpl_value *a, const struct tpl_value *b) {
    if (is_number(a) && is_number(b)) {
        return a->type == TPL_REAL || b->type == TPL_REAL ? as_real(a) == as_real(b)
                                                          : as_whole(a) == as_whole(b);
    }
    if (a->type != b->type) {
        return false;
    }
    switch (a->type) {
        case TPL_UNDEFINED:
        case TPL_NONE:
            return true;
        case TPL_TEXT:
            return compare_texts(a->text, b->text) == 0;
        case TPL_LIST:
            return a->tuple == b->tuple && equal_lists(a->list, b->list);
        case TPL_DICT:
            return equal_dicts(a->dict, b->dict);
        case TPL_NAMESPACE:
            return a->dict == b->dict;
        default:
            return false;
    }
}

static enum kiln_status order_lists(struct tpl_run *r, const struct tpl_list *a,
                                    const struct tpl_list *b, int *out) {
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        if (!kiln_tpl_equal(&a->at[i], &b->at[i])) {
            return kiln_tpl_order(r, &a->at[i], &b->at[i], out);
        }
    }
    *out = (a->n > b->n) - (a->n < b->n);
    return KILN_OK;
}

enum kiln_status kiln_tpl_order(struct tpl_run *r, const struct tpl_value *a,
                                const struct tpl_value *b, int *out) {
    if (is_number(a) && is_number(b)) {
        if (a->type == TPL_REAL || b->type == TPL_REAL) {
            *out = (as_real(a) > as_real(b)) - (as_real(a) < as_real(b));
        } else {
            *out = (as_whole(a) > as_whole(b)) - (as_whole(a) < as_whole(b));
        }
        return KILN_OK;
    }
    if (a->type == TPL_TEXT && b->type == TPL_TEXT) {
        *out = compare_texts(a->text, b->text);
        return KILN_OK;
    }
    if (a->type == TPL_LIST && b->type == TPL_LIST) {
        return order_lists(r, a->list, b->list, out);
    }
    return kiln_tpl_fail(r, "%s and %s have no order", kiln_tpl_type_name(a),
                         kiln_tpl_type_name(b));
}

enum kiln_status kiln_tpl_contains(struct tpl_run *r, const struct tpl_value *item,
                                   const struct tpl_value *in, bool *out) {
    *out = false;
    if (in->type == TPL_TEXT) {
        if (item->type != TPL_TEXT) {
            return kiln_tpl_fail(r, "in a string only a string can be, not %s",
                                 kiln_tpl_type_name(item));
        }
        *out =
            item->text.n == 0 || memmem(in->text.p, in->text.n, item->text.p, item->text.n) != NULL;
        return KILN_OK;
    }
    if (in->type == TPL_DICT) {
        *out = kiln_tpl_get(in->dict, item) != NULL;
        return KILN_OK;
    }
    if (in->type == TPL_UNDEFINED) {
        return KILN_OK;
    }
    if (in->type != TPL_LIST) {
        return kiln_tpl_fail(r, "nothing is in %s", kiln_tpl_type_name(in));
    }
    for (size_t i = 0; i < in->list->n && !*out; i++) {
        *out = kiln_tpl_equal(item, &in->list->at[i]);
    }
    return KILN_OK;
}

/* ---- lists and mappings
 * --------------------------------------------------------------------------- */

enum kiln_status kiln_tpl_new_list(struct tpl_run *r, size_t room, struct tpl_value *out) {
    struct tpl_list *list = kiln_tpl_take(&r->heap, 1, sizeof *list);
    struct tpl_value *at = kiln_tpl_take(&r->heap, room, sizeof *at);
    if (list == NULL || at == NULL) {
        return kiln_tpl_no_memory(r);
    }
    *list = (struct tpl_list){at, 0, room};
    *out = (struct tpl_value){.type = TPL_LIST, .list = list};
    return KILN_OK;
}

enum kiln_status kiln_tpl_push(struct tpl_run *r, struct tpl_list *list, struct tpl_value v) {
    if (list->n == list->room) {
        const size_t room = list->room ? list->room * 2 : 4;
        struct tpl_value *wider = kiln_tpl_take(&r->heap, room, sizeof *wider);
        if (wider == NULL) {
            return kiln_tpl_no_memory(r);
        }
        if (list->n > 0) {
            memcpy(wider, list->at, list->n * sizeof *wider);
        }
        list->at = wider;
        list->room = room;
    }
    list->at[list->n++] = v;
    return KILN_OK;
}

enum kiln_status kiln_tpl_new_dict(struct tpl_run *r, enum tpl_type type, struct tpl_value *out) {
    struct tpl_dict *dict = kiln_tpl_take(&r->heap, 1, sizeof *dict);
    if (dict == NULL) {
        return kiln_tpl_no_memory(r);
    }
    *out = (struct tpl_value){.type = type, .dict = dict};
    return KILN_OK;
}

const struct tpl_value *kiln_tpl_get(const struct tpl_dict *dict, const struct tpl_value *key) {
    for (size_t i = 0; i < dict->n; i++) {
        if (kiln_tpl_equal(&dict->key[i], key)) {
            return &dict->value[i];
        }
    }
    return NULL;
}

const struct tpl_value *kiln_tpl_get_text(const struct tpl_dict *dict, struct tpl_str key) {
    const struct tpl_value name = {.type = TPL_TEXT, .text = key};
    return kiln_tpl_get(dict, &name);
}

static enum kiln_status widen(struct tpl_run *r, struct tpl_dict *dict) {
    const size_t room = dict->room ? dict->room * 2 : 8;
    struct tpl_value *keys = kiln_tpl_take(&r->heap, room, sizeof *keys);
    struct tpl_value *values = kiln_tpl_take(&r->heap, room, sizeof *values);
    if (keys == NULL || values == NULL) {
        return kiln_tpl_no_memory(r);
    }
    if (dict->n > 0) {
        memcpy(keys, dict->key, dict->n * sizeof *keys);
        memcpy(values, dict->value, dict->n * sizeof *values);
    }
    dict->key = keys;
    dict->value = values;
    dict->room = room;
    return KILN_OK;
}

enum kiln_status kiln_tpl_put(struct tpl_run *r, struct tpl_dict *dict, struct tpl_value key,
                              struct tpl_value value) {
    for (size_t i = 0; i < dict->n; i++) {
        if (kiln_tpl_equal(&dict->key[i], &key)) {
            dict->value[i] = value;
            return KILN_OK;
        }
    }
    if (dict->n == dict->room) {
        KILN_TRY(widen(r, dict));
    }
    dict->key[dict->n] = key;
    dict->value[dict->n++] = value;
    return KILN_OK;
}

static enum kiln_status walk_text(struct tpl_run *r, struct tpl_str s, struct tpl_list *list) {
    for (size_t at = 0; at < s.n;) {
        size_t end = at + 1;
        while (end < s.n && !begins_character(s.p[end])) {
            end++;
        }
        KILN_TRY(kiln_tpl_push(r, list, kiln_tpl_text(s.p + at, end - at)));
        at = end;
    }
    return KILN_OK;
}

enum kiln_status kiln_tpl_walk(struct tpl_run *r, const struct tpl_value *v,
                               struct tpl_list **out) {
    struct tpl_value list = {.list = NULL};
    if (v->type == TPL_LIST) {
        *out = v->list;
        return KILN_OK;
    }
    KILN_TRY(kiln_tpl_new_list(r, v->type == TPL_DICT ? v->dict->n : 0, &list));
    *out = list.list;
    switch (v->type) {
        case TPL_UNDEFINED:
            return KILN_OK;
        case TPL_DICT:
            for (size_t i = 0; i < v->dict->n; i++) {
                KILN_TRY(kiln_tpl_push(r, list.list, v->dict->key[i]));
            }
            return KILN_OK;
        case TPL_TEXT:
            return walk_text(r, v->text, list.list);
        default:
            return kiln_tpl_fail(r, "%s cannot be walked over", kiln_tpl_type_name(v));
    }
}

/* ---- from JSON ----------------------------------------------------------------------------------
 */

static enum kiln_status from_array(struct tpl_run *r, const json_t *json, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_new_list(r, json_array_size(json), out));
    for (size_t i = 0; i < json_array_size(json); i++) {
        struct tpl_value item;
        KILN_TRY(kiln_tpl_from_json(r, json_array_get(json, i), &item));
        KILN_TRY(kiln_tpl_push(r, out->list, item));
    }
    return KILN_OK;
}

static enum kiln_status from_object(struct tpl_run *r, const json_t *json, struct tpl_value *out) {
    const char *key;
    size_t length;
    json_t *member;
    KILN_TRY(kiln_tpl_new_dict(r, TPL_DICT, out));
    /* The macro casts const away, and changes nothing. */
    json_object_keylen_foreach((json_t *)(uintptr_t)json, key, length, member) {
        struct tpl_value name, value;
        KILN_TRY(kiln_tpl_keep(r, key, length, &name));
        KILN_TRY(kiln_tpl_from_json(r, member, &value));
        KILN_TRY(kiln_tpl_put(r, out->dict, name, value));
    }
    return KILN_OK;
}

enum kiln_status kiln_tpl_from_json(struct tpl_run *r, const json_t *json, struct tpl_value *out) {
    *out = (struct tpl_value){.type = TPL_NONE};
    switch (json_typeof(json)) {
        case JSON_OBJECT:
            return from_object(r, json, out);
        case JSON_ARRAY:
            return from_array(r, json, out);
        case JSON_STRING:
            return kiln_tpl_keep(r, json_string_value(json), json_string_length(json), out);
        case JSON_INTEGER:
            *out = kiln_tpl_whole(json_integer_value(json));
            return KILN_OK;
        case JSON_REAL:
            *out = (struct tpl_value){.type = TPL_REAL, .real = json_real_value(json)};
            return KILN_OK;
        case JSON_TRUE:
        case JSON_FALSE:
            *out = kiln_tpl_truth(json_is_true(json));
            return KILN_OK;
        case JSON_NULL:
            break;
    }
    return KILN_OK;
}
