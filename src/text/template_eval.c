/* SPDX-License-Identifier: MIT
 *
 * template_eval.c: expressions of a template, evaluated.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "text/template_int.h"

enum kiln_status kiln_tpl_fail(struct tpl_run *r, const char *fmt, ...) {
    char what[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return KILN_FAIL(r->err, KILN_EINPUT, "chat template %s line %d: %s", r->tpl->name, r->line,
                     what);
}

static enum kiln_status undefined_used(struct tpl_run *r, const struct tpl_value *v,
                                       const char *how) {
    return kiln_tpl_fail(r, "'%.*s' is undefined, and %s", (int)v->text.n, v->text.p, how);
}

/* ---- names and members --------------------------------------------------------------------------
 */

static void look_up(const struct tpl_run *r, struct tpl_str name, struct tpl_value *out) {
    for (const struct tpl_frame *f = r->frame; f != NULL; f = f->parent) {
        const struct tpl_value *found = kiln_tpl_get_text(&f->names, name);
        if (found != NULL) {
            *out = *found;
            return;
        }
    }
    *out = kiln_tpl_undefined(name);
    if (kiln_tpl_has_function(name)) {
        *out = (struct tpl_value){.type = TPL_FUNCTION, .call = {name, NULL}};
    }
}

static enum kiln_status method_of(struct tpl_run *r, const struct tpl_value *v, struct tpl_str name,
                                  struct tpl_value *out) {
    struct tpl_value *bound = kiln_tpl_take(&r->heap, 1, sizeof *bound);
    if (bound == NULL) {
        return kiln_tpl_no_memory(r);
    }
    *bound = *v;
    *out = (struct tpl_value){.type = TPL_METHOD, .call = {name, bound}};
    return KILN_OK;
}

/* a.name: a method, or what a mapping has under the name. */
static enum kiln_status attribute(struct tpl_run *r, const struct tpl_value *v, struct tpl_str name,
                                  struct tpl_value *out) {
    if (v->type == TPL_UNDEFINED) {
        return undefined_used(r, v, "has no members");
    }
    if (kiln_tpl_has_method(v, name)) {
        return method_of(r, v, name, out);
    }
    const struct tpl_value *member = kiln_tpl_is_dict(v) ? kiln_tpl_get_text(v->dict, name) : NULL;
    *out = member ? *member : kiln_tpl_undefined(name);
    return KILN_OK;
}

static void item_of_sequence(const struct tpl_value *v, int64_t i, struct tpl_value *out) {
    const size_t n = v->type == TPL_LIST ? v->list->n : kiln_tpl_characters(v->text);
    i += i < 0 ? (int64_t)n : 0;
    *out = kiln_tpl_undefined(TPL_STR("an item behind the last"));
    if (i < 0 || (uint64_t)i >= n) {
        return;
    }
    if (v->type == TPL_LIST) {
        *out = v->list->at[i];
        return;
    }
    const size_t from = kiln_tpl_place(v->text, (size_t)i);
    const size_t to = kiln_tpl_place(v->text, (size_t)i + 1);
    *out = kiln_tpl_text(v->text.p + from, to - from);
}

/* a[key] */
static enum kiln_status item(struct tpl_run *r, const struct tpl_value *v,
                             const struct tpl_value *key, struct tpl_value *out) {
    if (v->type == TPL_UNDEFINED) {
        return undefined_used(r, v, "has no items");
    }
    if (v->type == TPL_DICT) {
        const struct tpl_value *found = kiln_tpl_get(v->dict, key);
        if (found != NULL) {
            *out = *found;
            return KILN_OK;
        }
    }
    if ((v->type == TPL_LIST || v->type == TPL_TEXT) &&
        (key->type == TPL_INT || key->type == TPL_BOOL)) {
        item_of_sequence(v, key->type == TPL_INT ? key->whole : key->truth, out);
        return KILN_OK;
    }
    if (key->type == TPL_TEXT) {
        return attribute(r, v, key->text, out);
    }
    *out = kiln_tpl_undefined(TPL_STR("an item that is not there"));
    return KILN_OK;
}

/* One bound of a slice; NULL or none: `missing`. */
static enum kiln_status bound(struct tpl_run *r, const struct tpl_node *node, int64_t missing,
                              int64_t *out) {
    struct tpl_value v = {.type = TPL_NONE};
    KILN_TRY(node ? kiln_tpl_eval(r, node, &v) : KILN_OK);
    *out = missing;
    if (v.type == TPL_NONE) {
        return KILN_OK;
    }
    if (v.type != TPL_INT) {
        return kiln_tpl_fail(r, "%s as a bound of a slice", kiln_tpl_type_name(&v));
    }
    *out = v.whole;
    return KILN_OK;
}

static int64_t clamp(int64_t i, int64_t n, int64_t least, int64_t most) {
    i += i < 0 ? n : 0;
    return i < least ? least : i > most ? most : i;
}

static enum kiln_status slice(struct tpl_run *r, const struct tpl_node *node,
                              struct tpl_value *out) {
    struct tpl_value v = {.type = TPL_NONE};
    struct tpl_list *items;
    int64_t from, to, step;
    KILN_TRY(kiln_tpl_eval(r, node->a, &v));
    if (v.type != TPL_LIST && v.type != TPL_TEXT) {
        return v.type == TPL_UNDEFINED
                   ? undefined_used(r, &v, "cannot be cut")
                   : kiln_tpl_fail(r, "%s cannot be cut", kiln_tpl_type_name(&v));
    }
    KILN_TRY(kiln_tpl_walk(r, &v, &items));
    const int64_t n = (int64_t)items->n;
    KILN_TRY(bound(r, node->list[2], 1, &step));
    if (step == 0) {
        return kiln_tpl_fail(r, "a slice of step 0");
    }
    KILN_TRY(bound(r, node->list[0], step > 0 ? 0 : INT32_MAX, &from));
    KILN_TRY(bound(r, node->list[1], INT64_MAX / 2, &to));
    from = clamp(from, n, step > 0 ? 0 : -1, step > 0 ? n : n - 1);
    to = to == INT64_MAX / 2 ? (step > 0 ? n : -1)
                             : clamp(to, n, step > 0 ? 0 : -1, step > 0 ? n : n - 1);
    KILN_TRY(kiln_tpl_new_list(r, 0, out));
    out->tuple = v.tuple;
    struct tpl_buffer text = {NULL, 0, 0};
    for (int64_t i = from; step > 0 ? i < to : i > to; i += step) {
        const struct tpl_value *one = &items->at[i];
        KILN_TRY(v.type == TPL_LIST ? kiln_tpl_push(r, out->list, *one)
                                    : kiln_tpl_write(r, &text, one->text.p, one->text.n));
    }
    if (v.type == TPL_TEXT) {
        *out = kiln_tpl_text(text.n > 0 ? text.p : "", text.n);
    }
    return KILN_OK;
}

/* ---- operators
 * ------------------------------------------------------------------------------------ */

static bool number(const struct tpl_value *v) {
    return v->type == TPL_INT || v->type == TPL_REAL || v->type == TPL_BOOL;
}
static double real(const struct tpl_value *v) {
    return v->type == TPL_REAL ? v->real : v->type == TPL_INT ? (double)v->whole : v->truth;
}
static int64_t whole(const struct tpl_value *v) { return v->type == TPL_INT ? v->whole : v->truth; }

static int64_t floor_divide(int64_t a, int64_t b) {
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static enum kiln_status whole_arithmetic(struct tpl_run *r, const char *op, int64_t a, int64_t b,
                                         struct tpl_value *out) {
    int64_t result = 0;
    bool over = false;
    if (strcmp(op, "+") == 0) {
        over = __builtin_add_overflow(a, b, &result);
    } else if (strcmp(op, "-") == 0) {
        over = __builtin_sub_overflow(a, b, &result);
    } else if (strcmp(op, "*") == 0) {
        over = __builtin_mul_overflow(a, b, &result);
    } else if (strcmp(op, "**") == 0) {
        result = 1;
        over = b < 0 || b > 64;
        for (int64_t i = 0; i < b && !over; i++) {
            over = __builtin_mul_overflow(result, a, &result);
        }
    } else if (b == 0 || (a == INT64_MIN && b == -1)) {
        return kiln_tpl_fail(r, "a division by zero");
    } else if (strcmp(op, "/") == 0) {
        *out = (struct tpl_value){.type = TPL_REAL, .real = (double)a / (double)b};
        return KILN_OK;
    } else {
        const int64_t quotient = floor_divide(a, b);
        result = op[0] == '/' ? quotient : a - quotient * b;
    }
    *out = kiln_tpl_whole(result);
    return over ? kiln_tpl_fail(r, "the result of %s is too large a number", op) : KILN_OK;
}

static enum kiln_status real_arithmetic(struct tpl_run *r, const char *op, double a, double b,
                                        struct tpl_value *out) {
    double result = a + b;
    if ((op[0] == '/' || op[0] == '%') && b == 0) {
        return kiln_tpl_fail(r, "a division by zero");
    }
    if (strcmp(op, "-") == 0) {
        result = a - b;
    } else if (strcmp(op, "*") == 0) {
        result = a * b;
    } else if (strcmp(op, "**") == 0) {
        result = pow(a, b);
    } else if (strcmp(op, "/") == 0) {
        result = a / b;
    } else if (strcmp(op, "//") == 0) {
        result = floor(a / b);
    } else if (strcmp(op, "%") == 0) {
        result = a - floor(a / b) * b;
    }
    *out = (struct tpl_value){.type = TPL_REAL, .real = result};
    return KILN_OK;
}

static enum kiln_status join(struct tpl_run *r, const struct tpl_value *a,
                             const struct tpl_value *b, struct tpl_value *out) {
    struct tpl_buffer text = {NULL, 0, 0};
    KILN_TRY(kiln_tpl_show(r, a, &text));
    KILN_TRY(kiln_tpl_show(r, b, &text));
    *out = kiln_tpl_text(text.n > 0 ? text.p : "", text.n);
    return KILN_OK;
}

static enum kiln_status join_lists(struct tpl_run *r, const struct tpl_value *a,
                                   const struct tpl_value *b, struct tpl_value *out) {
    KILN_TRY(kiln_tpl_new_list(r, a->list->n + b->list->n, out));
    out->tuple = a->tuple;
    for (size_t i = 0; i < a->list->n + b->list->n; i++) {
        KILN_TRY(kiln_tpl_push(r, out->list,
                               i < a->list->n ? a->list->at[i] : b->list->at[i - a->list->n]));
    }
    return KILN_OK;
}

static enum kiln_status repeat(struct tpl_run *r, struct tpl_str s, int64_t times,
                               struct tpl_value *out) {
    struct tpl_buffer text = {NULL, 0, 0};
    for (int64_t i = 0; i < times && s.n > 0; i++) {
        KILN_TRY(kiln_tpl_write(r, &text, s.p, s.n));
    }
    *out = kiln_tpl_text(text.n > 0 ? text.p : "", text.n);
    return KILN_OK;
}

static enum kiln_status arithmetic(struct tpl_run *r, const char *op, const struct tpl_value *a,
                                   const struct tpl_value *b, struct tpl_value *out) {
    if (op[0] == '~') {
        return join(r, a, b, out);
    }
    if (a->type == TPL_UNDEFINED || b->type == TPL_UNDEFINED) {
        return undefined_used(r, a->type == TPL_UNDEFINED ? a : b, "cannot be reckoned with");
    }
    if (number(a) && number(b)) {
        return a->type == TPL_REAL || b->type == TPL_REAL
                   ? real_arithmetic(r, op, real(a), real(b), out)
                   : whole_arithmetic(r, op, whole(a), whole(b), out);
    }
    if (strcmp(op, "+") == 0 && a->type == TPL_TEXT && b->type == TPL_TEXT) {
        return join(r, a, b, out);
    }
    if (strcmp(op, "+") == 0 && a->type == TPL_LIST && b->type == TPL_LIST) {
        return join_lists(r, a, b, out);
    }
    if (strcmp(op, "*") == 0 && a->type == TPL_TEXT && b->type == TPL_INT) {
        return repeat(r, a->text, b->whole, out);
    }
    return kiln_tpl_fail(r, "%s %s %s is not supported", kiln_tpl_type_name(a), op,
                         kiln_tpl_type_name(b));
}

static enum kiln_status binary(struct tpl_run *r, const struct tpl_node *node,
                               struct tpl_value *out) {
    struct tpl_value left = {.type = TPL_NONE};
    struct tpl_value right = {.type = TPL_NONE};
    KILN_TRY(kiln_tpl_eval(r, node->a, &left));
    if (node->op[0] == 'a' || node->op[0] == 'o') { /* and, or: the operand that decides */
        if (kiln_tpl_true(&left) == (node->op[0] == 'o')) {
            *out = left;
            return KILN_OK;
        }
        return kiln_tpl_eval(r, node->b, out);
    }
    KILN_TRY(kiln_tpl_eval(r, node->b, &right));
    return arithmetic(r, node->op, &left, &right, out);
}

static enum kiln_status unary(struct tpl_run *r, const struct tpl_node *node,
                              struct tpl_value *out) {
    struct tpl_value v = {.type = TPL_NONE};
    KILN_TRY(kiln_tpl_eval(r, node->a, &v));
    if (node->op[0] == '!') {
        *out = kiln_tpl_truth(!kiln_tpl_true(&v));
        return KILN_OK;
    }
    if (!number(&v)) {
        return kiln_tpl_fail(r, "%c of %s", node->op[0], kiln_tpl_type_name(&v));
    }
    const struct tpl_value zero = kiln_tpl_whole(0);
    return v.type == TPL_REAL ? real_arithmetic(r, node->op, -0.0, v.real, out)
                              : whole_arithmetic(r, node->op, whole(&zero), whole(&v), out);
}

static enum kiln_status holds(struct tpl_run *r, struct tpl_str op, const struct tpl_value *a,
                              const struct tpl_value *b, bool *out) {
    int order;
    if (kiln_tpl_is(op, "==") || kiln_tpl_is(op, "!=")) {
        *out = kiln_tpl_equal(a, b) == (op.p[0] == '=');
        return KILN_OK;
    }
    if (kiln_tpl_is(op, "in") || kiln_tpl_is(op, "!i")) {
        KILN_TRY(kiln_tpl_contains(r, a, b, out));
        *out = *out != (op.p[0] == '!');
        return KILN_OK;
    }
    KILN_TRY(kiln_tpl_order(r, a, b, &order));
    *out = op.p[0] == '<' ? order < 0 : order > 0;
    *out |= op.n == 2 && order == 0;
    return KILN_OK;
}

/* a < b < c: all of them. */
static enum kiln_status compare(struct tpl_run *r, const struct tpl_node *node,
                                struct tpl_value *out) {
    struct tpl_value left = {.type = TPL_NONE};
    struct tpl_value right = {.type = TPL_NONE};
    bool all = true;
    KILN_TRY(kiln_tpl_eval(r, node->a, &left));
    for (size_t i = 0; i < node->n && all; i++) {
        KILN_TRY(kiln_tpl_eval(r, node->list[i], &right));
        KILN_TRY(holds(r, node->params[i], &left, &right, &all));
        left = right;
    }
    *out = kiln_tpl_truth(all);
    return KILN_OK;
}

static enum kiln_status condition(struct tpl_run *r, const struct tpl_node *node,
                                  struct tpl_value *out) {
    struct tpl_value v = {.type = TPL_NONE};
    KILN_TRY(kiln_tpl_eval(r, node->b, &v));
    if (kiln_tpl_true(&v)) {
        return kiln_tpl_eval(r, node->a, out);
    }
    *out = kiln_tpl_undefined(TPL_STR("an if without else"));
    return node->c ? kiln_tpl_eval(r, node->c, out) : KILN_OK;
}

/* ---- calls, filters, tests
 * ------------------------------------------------------------------------
 */

static enum kiln_status arguments(struct tpl_run *r, const struct tpl_node *node,
                                  struct tpl_arguments *a) {
    *a = (struct tpl_arguments){.at = kiln_tpl_take(&r->heap, node->n, sizeof *a->at)};
    if (a->at == NULL) {
        return kiln_tpl_no_memory(r);
    }
    for (size_t i = 0; i < node->n; i++) {
        struct tpl_value v = {.type = TPL_NONE};
        KILN_TRY(kiln_tpl_eval(r, node->list[i], &v));
        if (node->params[i].n == 0) {
            a->at[a->n++] = v;
        } else {
            KILN_TRY(
                kiln_tpl_put(r, &a->named, kiln_tpl_text(node->params[i].p, node->params[i].n), v));
        }
    }
    return KILN_OK;
}

static enum kiln_status call(struct tpl_run *r, const struct tpl_node *node,
                             struct tpl_value *out) {
    struct tpl_value what = {.type = TPL_NONE};
    struct tpl_arguments a;
    KILN_TRY(kiln_tpl_eval(r, node->a, &what));
    if (what.type == TPL_UNDEFINED) {
        return undefined_used(r, &what, "cannot be called");
    }
    KILN_TRY(arguments(r, node, &a));
    r->line = node->line;
    return kiln_tpl_call(r, &what, &a, out);
}

static enum kiln_status filter(struct tpl_run *r, const struct tpl_node *node,
                               struct tpl_value *out) {
    struct tpl_value v = {.type = TPL_NONE};
    struct tpl_arguments a;
    KILN_TRY(kiln_tpl_eval(r, node->a, &v));
    KILN_TRY(arguments(r, node, &a));
    r->line = node->line;
    return kiln_tpl_filter(r, node->text, &v, &a, out);
}

static enum kiln_status test(struct tpl_run *r, const struct tpl_node *node,
                             struct tpl_value *out) {
    struct tpl_value v = {.type = TPL_NONE};
    struct tpl_arguments a;
    bool is;
    KILN_TRY(kiln_tpl_eval(r, node->a, &v));
    KILN_TRY(arguments(r, node, &a));
    r->line = node->line;
    KILN_TRY(kiln_tpl_test(r, node->text, &v, &a, &is));
    *out = kiln_tpl_truth(is != node->negated);
    return KILN_OK;
}

/* ---- everything
 * ----------------------------------------------------------------------------------- */

static enum kiln_status list(struct tpl_run *r, const struct tpl_node *node,
                             struct tpl_value *out) {
    KILN_TRY(kiln_tpl_new_list(r, node->n, out));
    out->tuple = node->negated;
    for (size_t i = 0; i < node->n; i++) {
        struct tpl_value v = {.type = TPL_NONE};
        KILN_TRY(kiln_tpl_eval(r, node->list[i], &v));
        KILN_TRY(kiln_tpl_push(r, out->list, v));
    }
    return KILN_OK;
}

static enum kiln_status dict(struct tpl_run *r, const struct tpl_node *node,
                             struct tpl_value *out) {
    KILN_TRY(kiln_tpl_new_dict(r, TPL_DICT, out));
    for (size_t i = 0; i + 1 < node->n; i += 2) {
        struct tpl_value key = {.type = TPL_NONE};
        struct tpl_value value = {.type = TPL_NONE};
        KILN_TRY(kiln_tpl_eval(r, node->list[i], &key));
        KILN_TRY(kiln_tpl_eval(r, node->list[i + 1], &value));
        KILN_TRY(kiln_tpl_put(r, out->dict, key, value));
    }
    return KILN_OK;
}

static enum kiln_status eval(struct tpl_run *r, const struct tpl_node *node,
                             struct tpl_value *out) {
    struct tpl_value v = {.type = TPL_NONE};
    struct tpl_value key = {.type = TPL_NONE};
    switch (node->kind) {
        case TPL_N_LITERAL:
            *out = node->value;
            return KILN_OK;
        case TPL_N_NAME:
            look_up(r, node->text, out);
            return KILN_OK;
        case TPL_N_LIST:
            return list(r, node, out);
        case TPL_N_DICT:
            return dict(r, node, out);
        case TPL_N_ATTRIBUTE:
            KILN_TRY(kiln_tpl_eval(r, node->a, &v));
            return attribute(r, &v, node->text, out);
        case TPL_N_ITEM:
            KILN_TRY(kiln_tpl_eval(r, node->a, &v));
            KILN_TRY(kiln_tpl_eval(r, node->b, &key));
            return item(r, &v, &key, out);
        case TPL_N_SLICE:
            return slice(r, node, out);
        case TPL_N_CALL:
            return call(r, node, out);
        case TPL_N_FILTER:
            return filter(r, node, out);
        case TPL_N_TEST:
            return test(r, node, out);
        case TPL_N_UNARY:
            return unary(r, node, out);
        case TPL_N_BINARY:
            return binary(r, node, out);
        case TPL_N_COMPARE:
            return compare(r, node, out);
        case TPL_N_CONDITION:
            return condition(r, node, out);
        default:
            return kiln_tpl_fail(r, "a statement where a value is expected");
    }
}

enum kiln_status kiln_tpl_eval(struct tpl_run *r, const struct tpl_node *node,
                               struct tpl_value *out) {
    r->line = node->line;
    *out = (struct tpl_value){.type = TPL_NONE};
    if (++r->steps > KILN_TEMPLATE_STEPS) {
        return kiln_tpl_fail(r, "takes more than %d steps", KILN_TEMPLATE_STEPS);
    }
    return eval(r, node, out);
}
