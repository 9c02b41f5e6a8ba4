/* SPDX-License-Identifier: MIT
 *
 * template_filter.c: filters and tests of the template language, each a line of a table.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/template_int.h"

typedef enum kiln_status filter_fn(struct tpl_run *r, const struct tpl_value *v,
                                   const struct tpl_arguments *a, struct tpl_value *out);

const struct tpl_value *kiln_tpl_argument(const struct tpl_arguments *a, size_t i,
                                          const char *name) {
    return i < a->n ? &a->at[i]
                    : kiln_tpl_get_text(&a->named, (struct tpl_str){name, strlen(name)});
}

enum kiln_status kiln_tpl_accept(struct tpl_run *r, const char *who, const struct tpl_arguments *a,
                                 size_t most, const char *names) {
    if (a->n > most) {
        return kiln_tpl_fail(r, "%s takes %zu arguments at most, not %zu", who, most, a->n);
    }
    for (size_t i = 0; i < a->named.n; i++) {
        const struct tpl_str name = a->named.key[i].text;
        char wanted[40];
        const bool fits = name.n + 3 < sizeof wanted;
        if (fits) {
            wanted[0] = ' ';
            memcpy(wanted + 1, name.p, name.n);
            memcpy(wanted + 1 + name.n, " ", 2);
        }
        if (!fits || strstr(names, wanted) == NULL) {
            return kiln_tpl_fail(r, "%s: the argument %.*s is not supported", who, (int)name.n,
                                 name.p);
        }
    }
    return KILN_OK;
}

/* The value as text, an undefined one as the empty text. */
static enum kiln_status text_of(struct tpl_run *r, const struct tpl_value *v,
                                struct tpl_value *out) {
    return kiln_tpl_string(r, v, out);
}

/* A method of texts, called on the value as text. */
static enum kiln_status by_method(struct tpl_run *r, struct tpl_str method,
                                  const struct tpl_value *v, const struct tpl_arguments *a,
                                  struct tpl_value *out) {
    struct tpl_value text;
    KILN_TRY(text_of(r, v, &text));
    const struct tpl_value what = {.type = TPL_METHOD, .call = {method, &text}};
    return kiln_tpl_call(r, &what, a, out);
}

#define METHOD_FILTER(name)                                                                       \
    static enum kiln_status filter_##name(struct tpl_run *r, const struct tpl_value *v,           \
                                          const struct tpl_arguments *a, struct tpl_value *out) { \
        return by_method(r, TPL_STR(#name), v, a, out);                                           \
    }
METHOD_FILTER(upper)
METHOD_FILTER(lower)
METHOD_FILTER(capitalize)
METHOD_FILTER(replace)

static enum kiln_status filter_trim(struct tpl_run *r, const struct tpl_value *v,
                                    const struct tpl_arguments *a, struct tpl_value *out) {
    return by_method(r, TPL_STR("strip"), v, a, out);
}

static enum kiln_status filter_string(struct tpl_run *r, const struct tpl_value *v,
                                      const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "string", a, 0, ""));
    return text_of(r, v, out);
}

static enum kiln_status filter_safe(struct tpl_run *r, const struct tpl_value *v,
                                    const struct tpl_arguments *a, struct tpl_value *out) {
    *out = *v;
    return kiln_tpl_accept(r, "safe", a, 0, "");
}

static enum kiln_status filter_default(struct tpl_run *r, const struct tpl_value *v,
                                       const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "default", a, 2, " default_value boolean "));
    const struct tpl_value *instead = kiln_tpl_argument(a, 0, "default_value");
    const struct tpl_value *falsy = kiln_tpl_argument(a, 1, "boolean");
    *out = *v;
    if (v->type == TPL_UNDEFINED || (falsy && kiln_tpl_true(falsy) && !kiln_tpl_true(v))) {
        *out = instead ? *instead : kiln_tpl_text("", 0);
    }
    return KILN_OK;
}

static enum kiln_status filter_length(struct tpl_run *r, const struct tpl_value *v,
                                      const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "length", a, 0, ""));
    switch (v->type) {
        case TPL_TEXT:
            *out = kiln_tpl_whole((int64_t)kiln_tpl_characters(v->text));
            return KILN_OK;
        case TPL_LIST:
            *out = kiln_tpl_whole((int64_t)v->list->n);
            return KILN_OK;
        case TPL_DICT:
            *out = kiln_tpl_whole((int64_t)v->dict->n);
            return KILN_OK;
        case TPL_UNDEFINED:
            *out = kiln_tpl_whole(0);
            return KILN_OK;
        default:
            return kiln_tpl_fail(r, "%s has no length", kiln_tpl_type_name(v));
    }
}

static enum kiln_status filter_tojson(struct tpl_run *r, const struct tpl_value *v,
                                      const struct tpl_arguments *a, struct tpl_value *out) {
    struct tpl_buffer text = {NULL, 0, 0};
    KILN_TRY(kiln_tpl_accept(r, "tojson", a, 0, " indent ensure_ascii "));
    const struct tpl_value *indent = kiln_tpl_argument(a, 0, "indent");
    const struct tpl_value *ascii = kiln_tpl_get_text(&a->named, TPL_STR("ensure_ascii"));
    if (ascii && kiln_tpl_true(ascii)) {
        return kiln_tpl_fail(r, "tojson: ensure_ascii=true is not supported");
    }
    if (indent && indent->type != TPL_NONE &&
        (indent->type != TPL_INT || indent->whole < 0 || indent->whole > 64)) {
        return kiln_tpl_fail(r, "tojson: an indent that is no number of blanks");
    }
    const bool lines = indent && indent->type == TPL_INT;
    KILN_TRY(kiln_tpl_json(r, v, lines ? (int)indent->whole : -1, &text));
    *out = kiln_tpl_text(text.p, text.n);
    return KILN_OK;
}

/* ---- lists --------------------------------------------------------------------------------------
 */

static enum kiln_status ends_of(struct tpl_run *r, const struct tpl_value *v, bool last,
                                struct tpl_value *out) {
    struct tpl_list *items;
    KILN_TRY(kiln_tpl_walk(r, v, &items));
    *out = kiln_tpl_undefined(TPL_STR("an item of nothing"));
    if (items->n > 0) {
        *out = items->at[last ? items->n - 1 : 0];
    }
    return KILN_OK;
}
static enum kiln_status filter_first(struct tpl_run *r, const struct tpl_value *v,
                                     const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "first", a, 0, ""));
    return ends_of(r, v, false, out);
}
static enum kiln_status filter_last(struct tpl_run *r, const struct tpl_value *v,
                                    const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "last", a, 0, ""));
    return ends_of(r, v, true, out);
}

static enum kiln_status copy_list(struct tpl_run *r, const struct tpl_value *v, bool reversed,
                                  struct tpl_value *out) {
    struct tpl_list *items;
    KILN_TRY(kiln_tpl_walk(r, v, &items));
    KILN_TRY(kiln_tpl_new_list(r, items->n, out));
    for (size_t i = 0; i < items->n; i++) {
        KILN_TRY(kiln_tpl_push(r, out->list, items->at[reversed ? items->n - 1 - i : i]));
    }
    return KILN_OK;
}
static enum kiln_status filter_list(struct tpl_run *r, const struct tpl_value *v,
                                    const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "list", a, 0, ""));
    return copy_list(r, v, false, out);
}

static enum kiln_status filter_reverse(struct tpl_run *r, const struct tpl_value *v,
                                       const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "reverse", a, 0, ""));
    KILN_TRY(copy_list(r, v, true, out));
    if (v->type == TPL_TEXT) {
        struct tpl_buffer text = {NULL, 0, 0};
        for (size_t i = 0; i < out->list->n; i++) {
            KILN_TRY(kiln_tpl_show(r, &out->list->at[i], &text));
        }
        *out = kiln_tpl_text(text.n > 0 ? text.p : "", text.n);
    }
    return KILN_OK;
}

/* value.name, or value.a.b, without the methods of values. */
static struct tpl_value member_of(const struct tpl_value *v, struct tpl_str path) {
    struct tpl_value at = *v;
    while (path.n > 0) {
        const char *dot = memchr(path.p, '.', path.n);
        const struct tpl_str name = {path.p, dot ? (size_t)(dot - path.p) : path.n};
        const struct tpl_value *member =
            kiln_tpl_is_dict(&at) ? kiln_tpl_get_text(at.dict, name) : NULL;
        at = member ? *member : kiln_tpl_undefined(name);
        path.p += name.n + (dot != NULL);
        path.n -= name.n + (dot != NULL);
    }
    return at;
}

static enum kiln_status filter_join(struct tpl_run *r, const struct tpl_value *v,
                                    const struct tpl_arguments *a, struct tpl_value *out) {
    struct tpl_list *items;
    struct tpl_value between = kiln_tpl_text("", 0);
    struct tpl_buffer text = {NULL, 0, 0};
    KILN_TRY(kiln_tpl_accept(r, "join", a, 2, " d attribute "));
    const struct tpl_value *d = kiln_tpl_argument(a, 0, "d");
    const struct tpl_value *attribute = kiln_tpl_argument(a, 1, "attribute");
    KILN_TRY(d ? text_of(r, d, &between) : KILN_OK);
    KILN_TRY(kiln_tpl_walk(r, v, &items));
    for (size_t i = 0; i < items->n; i++) {
        const struct tpl_value one = attribute && attribute->type == TPL_TEXT
                                         ? member_of(&items->at[i], attribute->text)
                                         : items->at[i];
        KILN_TRY(i > 0 ? kiln_tpl_write(r, &text, between.text.p, between.text.n) : KILN_OK);
        KILN_TRY(kiln_tpl_show(r, &one, &text));
    }
    *out = kiln_tpl_text(text.n > 0 ? text.p : "", text.n);
    return KILN_OK;
}

static enum kiln_status filter_map(struct tpl_run *r, const struct tpl_value *v,
                                   const struct tpl_arguments *a, struct tpl_value *out) {
    struct tpl_list *items;
    const struct tpl_value *attribute = kiln_tpl_get_text(&a->named, TPL_STR("attribute"));
    const struct tpl_value *instead = kiln_tpl_get_text(&a->named, TPL_STR("default"));
    if (attribute == NULL && (a->n == 0 || a->at[0].type != TPL_TEXT ||
                              !kiln_tpl_has_filter(a->at[0].text) || a->named.n > 0)) {
        return kiln_tpl_fail(r, "map takes attribute='name' or the name of a filter");
    }
    KILN_TRY(attribute ? kiln_tpl_accept(r, "map", a, 0, " attribute default ") : KILN_OK);
    if (attribute && attribute->type != TPL_TEXT) {
        return kiln_tpl_fail(r, "map: an attribute that is no name");
    }
    KILN_TRY(kiln_tpl_walk(r, v, &items));
    KILN_TRY(kiln_tpl_new_list(r, items->n, out));
    for (size_t i = 0; i < items->n; i++) {
        struct tpl_value one;
        if (attribute) {
            one = member_of(&items->at[i], attribute->text);
            one = one.type == TPL_UNDEFINED && instead ? *instead : one;
        } else {
            const struct tpl_arguments rest = {.at = a->at + 1, .n = a->n - 1};
            KILN_TRY(kiln_tpl_filter(r, a->at[0].text, &items->at[i], &rest, &one));
        }
        KILN_TRY(kiln_tpl_push(r, out->list, one));
    }
    return KILN_OK;
}

/* select(test...), selectattr(name, test...) and what they leave out. */
static enum kiln_status choose(struct tpl_run *r, const char *who, bool by_member, bool wanted,
                               const struct tpl_value *v, const struct tpl_arguments *a,
                               struct tpl_value *out) {
    struct tpl_list *items;
    KILN_TRY(kiln_tpl_accept(r, who, a, SIZE_MAX, ""));
    if (by_member && (a->n == 0 || a->at[0].type != TPL_TEXT)) {
        return kiln_tpl_fail(r, "%s: the name of a member is missing", who);
    }
    const size_t skip = by_member;
    if (a->n > skip && (a->at[skip].type != TPL_TEXT || !kiln_tpl_has_test(a->at[skip].text))) {
        return kiln_tpl_fail(r, "%s: a test that is not supported", who);
    }
    KILN_TRY(kiln_tpl_walk(r, v, &items));
    KILN_TRY(kiln_tpl_new_list(r, 0, out));
    for (size_t i = 0; i < items->n; i++) {
        const struct tpl_value one =
            by_member ? member_of(&items->at[i], a->at[0].text) : items->at[i];
        bool is = kiln_tpl_true(&one);
        if (a->n > skip) {
            const struct tpl_arguments rest = {.at = a->at + skip + 1, .n = a->n - skip - 1};
            KILN_TRY(kiln_tpl_test(r, a->at[skip].text, &one, &rest, &is));
        }
        KILN_TRY(is == wanted ? kiln_tpl_push(r, out->list, items->at[i]) : KILN_OK);
    }
    return KILN_OK;
}
static enum kiln_status filter_select(struct tpl_run *r, const struct tpl_value *v,
                                      const struct tpl_arguments *a, struct tpl_value *out) {
    return choose(r, "select", false, true, v, a, out);
}
static enum kiln_status filter_reject(struct tpl_run *r, const struct tpl_value *v,
                                      const struct tpl_arguments *a, struct tpl_value *out) {
    return choose(r, "reject", false, false, v, a, out);
}
static enum kiln_status filter_selectattr(struct tpl_run *r, const struct tpl_value *v,
                                          const struct tpl_arguments *a, struct tpl_value *out) {
    return choose(r, "selectattr", true, true, v, a, out);
}
static enum kiln_status filter_rejectattr(struct tpl_run *r, const struct tpl_value *v,
                                          const struct tpl_arguments *a, struct tpl_value *out) {
    return choose(r, "rejectattr", true, false, v, a, out);
}

/* The pairs of a mapping; an undefined one has none. */
static enum kiln_status filter_items(struct tpl_run *r, const struct tpl_value *v,
                                     const struct tpl_arguments *a, struct tpl_value *out) {
    if (v->type == TPL_UNDEFINED) {
        return kiln_tpl_new_list(r, 0, out);
    }
    if (v->type != TPL_DICT) {
        return kiln_tpl_fail(r, "items of %s", kiln_tpl_type_name(v));
    }
    struct tpl_value copy = *v;
    const struct tpl_value what = {.type = TPL_METHOD, .call = {TPL_STR("items"), &copy}};
    return kiln_tpl_call(r, &what, a, out);
}

static enum kiln_status filter_indent(struct tpl_run *r, const struct tpl_value *v,
                                      const struct tpl_arguments *a, struct tpl_value *out) {
    struct tpl_value text;
    struct tpl_buffer b = {NULL, 0, 0};
    KILN_TRY(kiln_tpl_accept(r, "indent", a, 3, " width first blank "));
    const struct tpl_value *width = kiln_tpl_argument(a, 0, "width");
    const struct tpl_value *first = kiln_tpl_argument(a, 1, "first");
    const struct tpl_value *blank = kiln_tpl_argument(a, 2, "blank");
    KILN_TRY(text_of(r, v, &text));
    const int64_t n = width && width->type == TPL_INT ? width->whole : 4;
    for (size_t at = 0; at <= text.text.n;) {
        const char *line = text.text.p + at;
        const char *end = memchr(line, '\n', text.text.n - at);
        const size_t size = end ? (size_t)(end - line) : text.text.n - at;
        const bool wanted =
            at == 0 ? first && kiln_tpl_true(first) : size > 0 || (blank && kiln_tpl_true(blank));
        for (int64_t i = 0; wanted && i < n; i++) {
            KILN_TRY(kiln_tpl_write(r, &b, " ", 1));
        }
        KILN_TRY(kiln_tpl_write(r, &b, line, size + (end != NULL)));
        at += size + 1;
    }
    *out = kiln_tpl_text(b.n > 0 ? b.p : "", b.n);
    return KILN_OK;
}

/* ---- numbers ------------------------------------------------------------------------------------
 */

static enum kiln_status filter_int(struct tpl_run *r, const struct tpl_value *v,
                                   const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "int", a, 1, " default "));
    const struct tpl_value *instead = kiln_tpl_argument(a, 0, "default");
    struct tpl_value text;
    *out = instead ? *instead : kiln_tpl_whole(0);
    if (v->type == TPL_INT || v->type == TPL_BOOL) {
        *out = kiln_tpl_whole(v->type == TPL_INT ? v->whole : v->truth);
    } else if (v->type == TPL_REAL && fabs(v->real) < 9e18) {
        *out = kiln_tpl_whole((int64_t)v->real);
    } else if (v->type == TPL_TEXT) {
        char *end;
        KILN_TRY(kiln_tpl_keep(r, v->text.p, v->text.n, &text));
        const double value = strtod(text.text.p, &end);
        if (end != text.text.p && *end == '\0' && fabs(value) < 9e15) {
            *out = kiln_tpl_whole((int64_t)value);
        }
    }
    return KILN_OK;
}

static enum kiln_status filter_abs(struct tpl_run *r, const struct tpl_value *v,
                                   const struct tpl_arguments *a, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_accept(r, "abs", a, 0, ""));
    *out = *v;
    if (v->type == TPL_INT && v->whole != INT64_MIN) {
        out->whole = v->whole < 0 ? -v->whole : v->whole;
    } else if (v->type == TPL_REAL) {
        out->real = fabs(v->real);
    } else {
        return kiln_tpl_fail(r, "abs of %s", kiln_tpl_type_name(v));
    }
    return KILN_OK;
}

/* ---- the tables
 * ----------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    filter_fn *fn;
} filters[] = {
    {"abs", filter_abs},
    {"capitalize", filter_capitalize},
    {"count", filter_length},
    {"d", filter_default},
    {"default", filter_default},
    {"first", filter_first},
    {"indent", filter_indent},
    {"int", filter_int},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"lower", filter_lower},
    {"map", filter_map},
    {"reject", filter_reject},
    {"rejectattr", filter_rejectattr},
    {"replace", filter_replace},
    {"reverse", filter_reverse},
    {"safe", filter_safe},
    {"select", filter_select},
    {"selectattr", filter_selectattr},
    {"string", filter_string},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"upper", filter_upper},
};

bool kiln_tpl_has_filter(struct tpl_str name) {
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++) {
        if (kiln_tpl_is(name, filters[i].name)) {
            return true;
        }
    }
    return false;
}

enum kiln_status kiln_tpl_filter(struct tpl_run *r, struct tpl_str name, const struct tpl_value *v,
                                 const struct tpl_arguments *a, struct tpl_value *out) {
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++) {
        if (kiln_tpl_is(name, filters[i].name)) {
            return filters[i].fn(r, v, a, out);
        }
    }
    return kiln_tpl_fail(r, "the filter %.*s is not supported", (int)name.n, name.p);
}

/* Tests of the value alone. */
static bool simple_test(const char *name, const struct tpl_value *v, bool *out) {
    const enum tpl_type t = v->type;
    const struct {
        const char *name;
        bool is;
    } tests[] = {
        {"defined", t != TPL_UNDEFINED},
        {"undefined", t == TPL_UNDEFINED},
        {"none", t == TPL_NONE},
        {"string", t == TPL_TEXT},
        {"mapping", t == TPL_DICT},
        {"sequence", t == TPL_TEXT || t == TPL_LIST || t == TPL_DICT || t == TPL_UNDEFINED},
        {"iterable", t == TPL_TEXT || t == TPL_LIST || t == TPL_DICT || t == TPL_UNDEFINED},
        {"number", t == TPL_INT || t == TPL_REAL || t == TPL_BOOL},
        {"integer", t == TPL_INT},
        {"float", t == TPL_REAL},
        {"boolean", t == TPL_BOOL},
        {"true", t == TPL_BOOL && v->truth},
        {"false", t == TPL_BOOL && !v->truth},
        {"callable", t == TPL_MACRO || t == TPL_METHOD || t == TPL_FUNCTION},
        {"odd", t == TPL_INT && v->whole % 2 != 0},
        {"even", t == TPL_INT && v->whole % 2 == 0},
    };
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        if (strcmp(name, tests[i].name) == 0) {
            *out = tests[i].is;
            return true;
        }
    }
    return false;
}

/* Tests with one argument. */
static const struct {
    const char *name;
    char what[3]; /* a comparison, or: i in, s the same, d divisible */
} binary_tests[] = {
    {"eq", "=="}, {"equalto", "=="}, {"==", "=="},         {"ne", "!="}, {"!=", "!="},
    {"lt", "<"},  {"<", "<"},        {"lessthan", "<"},    {"le", "<="}, {"<=", "<="},
    {"gt", ">"},  {">", ">"},        {"greaterthan", ">"}, {"ge", ">="}, {">=", ">="},
    {"in", "i"},  {"sameas", "s"},   {"divisibleby", "d"},
};

bool kiln_tpl_has_test(struct tpl_str name) {
    char text[24] = "";
    bool ignored;
    const struct tpl_value none = {.type = TPL_NONE};
    for (size_t i = 0; i < sizeof binary_tests / sizeof binary_tests[0]; i++) {
        if (kiln_tpl_is(name, binary_tests[i].name)) {
            return true;
        }
    }
    if (name.n < sizeof text) {
        memcpy(text, name.p, name.n);
    }
    return simple_test(text, &none, &ignored);
}

static enum kiln_status binary_test(struct tpl_run *r, const char *what, const struct tpl_value *v,
                                    const struct tpl_value *other, bool *out) {
    int order;
    switch (what[0]) {
        case 'i':
            return kiln_tpl_contains(r, v, other, out);
        case 's':
            *out = v->type == other->type && kiln_tpl_equal(v, other);
            return KILN_OK;
        case 'd':
            if (v->type != TPL_INT || other->type != TPL_INT || other->whole == 0) {
                return kiln_tpl_fail(r, "divisibleby of %s", kiln_tpl_type_name(v));
            }
            *out = v->whole % other->whole == 0;
            return KILN_OK;
        case '=':
        case '!':
            *out = kiln_tpl_equal(v, other) == (what[0] == '=');
            return KILN_OK;
        default:
            KILN_TRY(kiln_tpl_order(r, v, other, &order));
            *out = what[0] == '<' ? order < 0 : order > 0;
            *out |= what[1] == '=' && order == 0;
            return KILN_OK;
    }
}

enum kiln_status kiln_tpl_test(struct tpl_run *r, struct tpl_str name, const struct tpl_value *v,
                               const struct tpl_arguments *a, bool *out) {
    char text[24] = "";
    for (size_t i = 0; i < sizeof binary_tests / sizeof binary_tests[0]; i++) {
        if (kiln_tpl_is(name, binary_tests[i].name)) {
            if (a->n != 1) {
                return kiln_tpl_fail(r, "the test %s takes one argument", binary_tests[i].name);
            }
            return binary_test(r, binary_tests[i].what, v, &a->at[0], out);
        }
    }
    if (name.n < sizeof text) {
        memcpy(text, name.p, name.n);
    }
    if (a->n + a->named.n > 0 || !simple_test(text, v, out)) {
        return kiln_tpl_fail(r, "the test %.*s is not supported so", (int)name.n, name.p);
    }
    if ((strcmp(text, "odd") == 0 || strcmp(text, "even") == 0) && v->type != TPL_INT) {
        return kiln_tpl_fail(r, "%s: of %s", text, kiln_tpl_type_name(v));
    }
    return KILN_OK;
}
