/* SPDX-License-Identifier: MIT
 *
 * template_expr.c: expressions, by descent, as Jinja binds them:
 *
 *   a if b else c < or < and < not < comparisons, in < + - < ~ < * / // % < ** < unary
 *   < . [] () | is
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/template_int.h"

typedef enum kiln_status parse_fn(struct tpl_parser *p, const struct tpl_node **out);
static enum kiln_status parse_unary(struct tpl_parser *p, bool filters,
                                    const struct tpl_node **out);

#define OP(text)   kiln_tpl_at(p, TPL_OPERATOR, (text))
#define WORD(text) kiln_tpl_at(p, TPL_NAME, (text))
#define NEW(node, kind)                                                      \
    struct tpl_node *node = kiln_tpl_node(p, (kind), kiln_tpl_now(p)->line); \
    if (node == NULL) {                                                      \
        return kiln_tpl_wrong(p, kiln_tpl_now(p)->line, "too large");        \
    }

static enum kiln_status no_room(const struct tpl_parser *p) {
    return kiln_tpl_wrong(p, kiln_tpl_now(p)->line, "too large");
}

/* ---- literals ---------------------------------------------------------------------------------
 */

static enum kiln_status parse_text(struct tpl_parser *p, const struct tpl_node **out) {
    NEW(node, TPL_N_LITERAL);
    size_t n = 0;
    for (size_t i = p->at; p->tokens.at[i].kind == TPL_STRING; i++) {
        n += p->tokens.at[i].text.n;
    }
    char *text = kiln_tpl_take(&p->tpl->heap, n + 1, 1);
    if (text == NULL) {
        return no_room(p);
    }
    n = 0;
    for (; kiln_tpl_at(p, TPL_STRING, NULL); p->at++) { /* neighbours are one */
        const struct tpl_str s = kiln_tpl_now(p)->text;
        memcpy(text + n, s.p, s.n);
        n += s.n;
    }
    node->value = kiln_tpl_text(text, n);
    *out = node;
    return KILN_OK;
}

static enum kiln_status parse_number(struct tpl_parser *p, const struct tpl_node **out) {
    NEW(node, TPL_N_LITERAL);
    const struct tpl_token *t = kiln_tpl_now(p);
    char digits[64];
    size_t n = 0;
    for (size_t i = 0; i < t->text.n && n + 1 < sizeof digits; i++) {
        if (t->text.p[i] != '_') {
            digits[n++] = t->text.p[i];
        }
    }
    digits[n] = '\0';
    if (t->kind == TPL_INTEGER) {
        if (n > 18) {
            return kiln_tpl_wrong(p, t->line, "the number %s is too large", digits);
        }
        node->value = kiln_tpl_whole(strtoll(digits, NULL, 10));
    } else {
        node->value = (struct tpl_value){.type = TPL_REAL, .real = strtod(digits, NULL)};
    }
    p->at++;
    *out = node;
    return KILN_OK;
}

static bool constant(struct tpl_str name, struct tpl_value *out) {
    if (kiln_tpl_is(name, "true") || kiln_tpl_is(name, "True")) {
        *out = kiln_tpl_truth(true);
    } else if (kiln_tpl_is(name, "false") || kiln_tpl_is(name, "False")) {
        *out = kiln_tpl_truth(false);
    } else if (kiln_tpl_is(name, "none") || kiln_tpl_is(name, "None")) {
        *out = (struct tpl_value){.type = TPL_NONE};
    } else {
        return false;
    }
    return true;
}

static enum kiln_status parse_name(struct tpl_parser *p, const struct tpl_node **out) {
    NEW(node, TPL_N_NAME);
    node->text = kiln_tpl_now(p)->text;
    if (constant(node->text, &node->value)) {
        node->kind = TPL_N_LITERAL;
    }
    p->at++;
    *out = node;
    return KILN_OK;
}

/* Items up to `end`; of a dict keys and values in turn. */
static enum kiln_status parse_items(struct tpl_parser *p, struct tpl_node *node, const char *end) {
    while (!kiln_tpl_skip(p, TPL_OPERATOR, end)) {
        const struct tpl_node *item = NULL;
        if (node->n > 0) {
            KILN_TRY(kiln_tpl_expect(p, TPL_OPERATOR, ","));
            if (kiln_tpl_skip(p, TPL_OPERATOR, end)) {
                break;
            }
        }
        KILN_TRY(kiln_tpl_expression(p, false, &item));
        if (!kiln_tpl_append(p, &node->list, &node->n, item)) {
            return no_room(p);
        }
        if (node->kind == TPL_N_DICT) {
            KILN_TRY(kiln_tpl_expect(p, TPL_OPERATOR, ":"));
            KILN_TRY(kiln_tpl_expression(p, false, &item));
            if (!kiln_tpl_append(p, &node->list, &node->n, item)) {
                return no_room(p);
            }
        }
    }
    return KILN_OK;
}

static enum kiln_status parse_container(struct tpl_parser *p, enum tpl_node_kind kind,
                                        const char *end, const struct tpl_node **out) {
    NEW(node, kind);
    p->at++;
    *out = node;
    return parse_items(p, node, end);
}

static enum kiln_status parse_parentheses(struct tpl_parser *p, const struct tpl_node **out) {
    p->at++;
    if (OP(")")) {
        NEW(node, TPL_N_LIST);
        node->negated = true; /* a tuple */
        p->at++;
        *out = node;
        return KILN_OK;
    }
    KILN_TRY(kiln_tpl_tuple(p, out));
    return kiln_tpl_expect(p, TPL_OPERATOR, ")");
}

static enum kiln_status parse_primary(struct tpl_parser *p, const struct tpl_node **out) {
    *out = NULL;
    const struct tpl_token *t = kiln_tpl_now(p);
    switch (t->kind) {
        case TPL_NAME:
            return parse_name(p, out);
        case TPL_STRING:
            return parse_text(p, out);
        case TPL_INTEGER:
        case TPL_FLOAT:
            return parse_number(p, out);
        default:
            break;
    }
    if (OP("(")) {
        return parse_parentheses(p, out);
    }
    if (OP("[")) {
        return parse_container(p, TPL_N_LIST, "]", out);
    }
    if (OP("{")) {
        return parse_container(p, TPL_N_DICT, "}", out);
    }
    return kiln_tpl_wrong(p, t->line, "'%.*s' where a value is expected", (int)t->text.n,
                          t->text.p);
}

/* ---- what may stand behind a value
 * ---------------------------------------------------------------
 */

static enum kiln_status parse_argument(struct tpl_parser *p, struct tpl_node *call, size_t *room) {
    const struct tpl_node *value = NULL;
    struct tpl_str name = {"", 0};
    const struct tpl_token *t = kiln_tpl_now(p);
    if (OP("*") || OP("**")) {
        return kiln_tpl_wrong(p, t->line, "* and ** in a call are not supported");
    }
    if (t->kind == TPL_NAME && t[1].kind == TPL_OPERATOR && kiln_tpl_is(t[1].text, "=")) {
        name = t->text;
        p->at += 2;
    }
    KILN_TRY(kiln_tpl_expression(p, false, &value));
    if (!kiln_tpl_append(p, &call->list, &call->n, value)) {
        return no_room(p);
    }
    if (call->n > *room) {
        struct tpl_str *wider = kiln_tpl_take(&p->tpl->heap, call->n * 2, sizeof *wider);
        if (wider == NULL) {
            return no_room(p);
        }
        if (call->n > 1) {
            memcpy(wider, call->params, (call->n - 1) * sizeof *wider);
        }
        call->params = wider;
        *room = call->n * 2;
    }
    call->params[call->n - 1] = name;
    return KILN_OK;
}

/* Behind "(": arguments and ")". */
static enum kiln_status parse_arguments(struct tpl_parser *p, struct tpl_node *call) {
    size_t room = 0;
    while (!kiln_tpl_skip(p, TPL_OPERATOR, ")")) {
        if (call->n > 0) {
            KILN_TRY(kiln_tpl_expect(p, TPL_OPERATOR, ","));
            if (kiln_tpl_skip(p, TPL_OPERATOR, ")")) {
                break;
            }
        }
        KILN_TRY(parse_argument(p, call, &room));
    }
    return KILN_OK;
}

/* Behind "[": an index, or begin:end:step. */
static enum kiln_status parse_subscript(struct tpl_parser *p, const struct tpl_node *base,
                                        const struct tpl_node **out) {
    NEW(node, TPL_N_ITEM);
    const struct tpl_node **part = kiln_tpl_take(&p->tpl->heap, 3, sizeof(void *));
    if (part == NULL) {
        return no_room(p);
    }
    node->a = base;
    node->list = part;
    for (int i = 0; !kiln_tpl_skip(p, TPL_OPERATOR, "]"); i++) {
        if (!OP(":")) {
            KILN_TRY(kiln_tpl_expression(p, false, &part[i]));
        }
        if (kiln_tpl_skip(p, TPL_OPERATOR, "]")) {
            break;
        }
        node->kind = TPL_N_SLICE;
        if (i == 2 || !kiln_tpl_skip(p, TPL_OPERATOR, ":")) {
            return kiln_tpl_wrong(p, node->line, "a subscript that is none");
        }
    }
    if (node->kind == TPL_N_ITEM) {
        node->b = part[0];
        if (node->b == NULL) {
            return kiln_tpl_wrong(p, node->line, "an empty subscript");
        }
    }
    *out = node;
    return KILN_OK;
}

static enum kiln_status parse_member(struct tpl_parser *p, const struct tpl_node *base,
                                     const struct tpl_node **out) {
    NEW(node, TPL_N_ATTRIBUTE);
    const struct tpl_token *t = kiln_tpl_now(p);
    node->a = base;
    node->text = t->text;
    if (t->kind == TPL_INTEGER) { /* a.0 */
        const struct tpl_node *index = NULL;
        KILN_TRY(parse_number(p, &index));
        node->kind = TPL_N_ITEM;
        node->b = index;
    } else {
        KILN_TRY(kiln_tpl_expect(p, TPL_NAME, NULL));
    }
    *out = node;
    return KILN_OK;
}

static enum kiln_status parse_call(struct tpl_parser *p, const struct tpl_node *base,
                                   const struct tpl_node **out) {
    NEW(node, TPL_N_CALL);
    node->a = base;
    *out = node;
    return parse_arguments(p, node);
}

static enum kiln_status parse_postfix(struct tpl_parser *p, const struct tpl_node **node) {
    for (;;) {
        if (kiln_tpl_skip(p, TPL_OPERATOR, ".")) {
            KILN_TRY(parse_member(p, *node, node));
        } else if (kiln_tpl_skip(p, TPL_OPERATOR, "[")) {
            KILN_TRY(parse_subscript(p, *node, node));
        } else if (kiln_tpl_skip(p, TPL_OPERATOR, "(")) {
            KILN_TRY(parse_call(p, *node, node));
        } else {
            return KILN_OK;
        }
    }
}

static enum kiln_status parse_filter(struct tpl_parser *p, const struct tpl_node *base,
                                     const struct tpl_node **out) {
    NEW(node, TPL_N_FILTER);
    node->a = base;
    node->text = kiln_tpl_now(p)->text;
    KILN_TRY(kiln_tpl_expect(p, TPL_NAME, NULL));
    if (!kiln_tpl_has_filter(node->text)) {
        return kiln_tpl_wrong(p, node->line, "the filter %.*s is not supported", (int)node->text.n,
                              node->text.p);
    }
    *out = node;
    return kiln_tpl_skip(p, TPL_OPERATOR, "(") ? parse_arguments(p, node) : KILN_OK;
}

enum kiln_status kiln_tpl_filters(struct tpl_parser *p, const struct tpl_node *base,
                                  const struct tpl_node **out) {
    *out = base;
    while (kiln_tpl_skip(p, TPL_OPERATOR, "|")) {
        KILN_TRY(parse_filter(p, *out, out));
    }
    return KILN_OK;
}

/* May a test's argument begin here, without parentheses? */
static bool argument_follows(const struct tpl_parser *p) {
    const struct tpl_token *t = kiln_tpl_now(p);
    if (t->kind == TPL_NAME) {
        return !kiln_tpl_is(t->text, "else") && !kiln_tpl_is(t->text, "or") &&
               !kiln_tpl_is(t->text, "and") && !kiln_tpl_is(t->text, "if") &&
               !kiln_tpl_is(t->text, "is");
    }
    return t->kind == TPL_STRING || t->kind == TPL_INTEGER || t->kind == TPL_FLOAT ||
           (t->kind == TPL_OPERATOR && (OP("[") || OP("{")));
}

static enum kiln_status parse_test(struct tpl_parser *p, const struct tpl_node *base,
                                   const struct tpl_node **out) {
    NEW(node, TPL_N_TEST);
    node->a = base;
    node->negated = kiln_tpl_skip(p, TPL_NAME, "not");
    node->text = kiln_tpl_now(p)->text;
    KILN_TRY(kiln_tpl_expect(p, TPL_NAME, NULL));
    if (!kiln_tpl_has_test(node->text)) {
        return kiln_tpl_wrong(p, node->line, "the test %.*s is not supported", (int)node->text.n,
                              node->text.p);
    }
    *out = node;
    if (kiln_tpl_skip(p, TPL_OPERATOR, "(")) {
        return parse_arguments(p, node);
    }
    if (argument_follows(p)) {
        const struct tpl_node *argument = NULL;
        KILN_TRY(parse_primary(p, &argument));
        KILN_TRY(parse_postfix(p, &argument));
        node->params = kiln_tpl_take(&p->tpl->heap, 1, sizeof *node->params);
        if (node->params == NULL || !kiln_tpl_append(p, &node->list, &node->n, argument)) {
            return no_room(p);
        }
    }
    return KILN_OK;
}

static enum kiln_status parse_filters_and_tests(struct tpl_parser *p,
                                                const struct tpl_node **node) {
    for (;;) {
        if (OP("|")) {
            KILN_TRY(kiln_tpl_filters(p, *node, node));
        } else if (kiln_tpl_skip(p, TPL_NAME, "is")) {
            KILN_TRY(parse_test(p, *node, node));
        } else if (kiln_tpl_skip(p, TPL_OPERATOR, "(")) {
            KILN_TRY(parse_call(p, *node, node));
        } else {
            return KILN_OK;
        }
    }
}

/* ---- operators --------------------------------------------------------------------------------
 */

static enum kiln_status deeper(struct tpl_parser *p) {
    return ++p->depth > KILN_TEMPLATE_DEPTH
               ? kiln_tpl_wrong(p, kiln_tpl_now(p)->line, "nested more than %d deep",
                                KILN_TEMPLATE_DEPTH)
               : KILN_OK;
}

static enum kiln_status parse_unary(struct tpl_parser *p, bool filters,
                                    const struct tpl_node **out) {
    *out = NULL;
    KILN_TRY(deeper(p));
    if (OP("-") || OP("+")) {
        NEW(node, TPL_N_UNARY);
        node->op[0] = kiln_tpl_now(p)->text.p[0];
        p->at++;
        KILN_TRY(parse_unary(p, false, &node->a));
        *out = node;
    } else {
        KILN_TRY(parse_primary(p, out));
    }
    KILN_TRY(parse_postfix(p, out));
    KILN_TRY(filters ? parse_filters_and_tests(p, out) : KILN_OK);
    p->depth--;
    return KILN_OK;
}

static enum kiln_status parse_sign(struct tpl_parser *p, const struct tpl_node **out) {
    return parse_unary(p, true, out);
}

/* left op right op right ..., for the operators of a space-separated list. */
static enum kiln_status parse_chain(struct tpl_parser *p, enum tpl_token_kind kind,
                                    const char *operators, parse_fn *below,
                                    const struct tpl_node **out) {
    KILN_TRY(below(p, out));
    for (;;) {
        const struct tpl_token *t = kiln_tpl_now(p);
        char wanted[8] = " ";
        if (t->kind != kind || t->text.n + 2 >= sizeof wanted) {
            return KILN_OK;
        }
        memcpy(wanted + 1, t->text.p, t->text.n);
        wanted[t->text.n + 1] = ' ';
        wanted[t->text.n + 2] = '\0';
        if (strstr(operators, wanted) == NULL) {
            return KILN_OK;
        }
        NEW(node, TPL_N_BINARY);
        node->op[0] = t->text.p[0];
        node->op[1] = t->text.n > 1 ? t->text.p[1] : '\0';
        node->a = *out;
        p->at++;
        KILN_TRY(below(p, &node->b));
        *out = node;
    }
}

static enum kiln_status parse_power(struct tpl_parser *p, const struct tpl_node **out) {
    return parse_chain(p, TPL_OPERATOR, " ** ", parse_sign, out);
}
static enum kiln_status parse_product(struct tpl_parser *p, const struct tpl_node **out) {
    return parse_chain(p, TPL_OPERATOR, " * / // % ", parse_power, out);
}
static enum kiln_status parse_joined(struct tpl_parser *p, const struct tpl_node **out) {
    return parse_chain(p, TPL_OPERATOR, " ~ ", parse_product, out);
}
static enum kiln_status parse_sum(struct tpl_parser *p, const struct tpl_node **out) {
    return parse_chain(p, TPL_OPERATOR, " + - ", parse_joined, out);
}

/* The comparison at hand, as "==", "in" or "!i" (not in); empty when there is none. */
static struct tpl_str comparison(struct tpl_parser *p) {
    static const char *const signs[] = {"==", "!=", "<=", ">=", "<", ">"};
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        if (kiln_tpl_skip(p, TPL_OPERATOR, signs[i])) {
            return (struct tpl_str){signs[i], strlen(signs[i])};
        }
    }
    if (kiln_tpl_skip(p, TPL_NAME, "in")) {
        return TPL_STR("in");
    }
    const struct tpl_token *t = kiln_tpl_now(p);
    if (WORD("not") && t[1].kind == TPL_NAME && kiln_tpl_is(t[1].text, "in")) {
        p->at += 2;
        return TPL_STR("!i");
    }
    return (struct tpl_str){"", 0};
}

static enum kiln_status parse_compare(struct tpl_parser *p, const struct tpl_node **out) {
    KILN_TRY(parse_sum(p, out));
    struct tpl_node *node = NULL;
    for (;;) {
        const struct tpl_str op = comparison(p);
        if (op.n == 0) {
            return KILN_OK;
        }
        if (node == NULL) {
            NEW(compare, TPL_N_COMPARE);
            node = compare;
            node->a = *out;
            *out = node;
        }
        const struct tpl_node *right = NULL;
        KILN_TRY(parse_sum(p, &right));
        struct tpl_str *ops = kiln_tpl_take(&p->tpl->heap, node->n + 1, sizeof *ops);
        if (ops == NULL || !kiln_tpl_append(p, &node->list, &node->n, right)) {
            return no_room(p);
        }
        if (node->n > 1) {
            memcpy(ops, node->params, (node->n - 1) * sizeof *ops);
        }
        ops[node->n - 1] = op;
        node->params = ops;
    }
}

static enum kiln_status parse_not(struct tpl_parser *p, const struct tpl_node **out) {
    if (!WORD("not")) {
        return parse_compare(p, out);
    }
    KILN_TRY(deeper(p));
    NEW(node, TPL_N_UNARY);
    node->op[0] = '!';
    p->at++;
    KILN_TRY(parse_not(p, &node->a));
    p->depth--;
    *out = node;
    return KILN_OK;
}

static enum kiln_status parse_and(struct tpl_parser *p, const struct tpl_node **out) {
    return parse_chain(p, TPL_NAME, " and ", parse_not, out);
}
static enum kiln_status parse_or(struct tpl_parser *p, const struct tpl_node **out) {
    return parse_chain(p, TPL_NAME, " or ", parse_and, out);
}

enum kiln_status kiln_tpl_expression(struct tpl_parser *p, bool plain,
                                     const struct tpl_node **out) {
    *out = NULL;
    KILN_TRY(deeper(p));
    KILN_TRY(parse_or(p, out));
    while (!plain && WORD("if")) {
        NEW(node, TPL_N_CONDITION);
        p->at++;
        node->a = *out;
        KILN_TRY(parse_or(p, &node->b));
        if (kiln_tpl_skip(p, TPL_NAME, "else")) {
            KILN_TRY(kiln_tpl_expression(p, false, &node->c));
        }
        *out = node;
    }
    p->depth--;
    return KILN_OK;
}

enum kiln_status kiln_tpl_tuple(struct tpl_parser *p, const struct tpl_node **out) {
    KILN_TRY(kiln_tpl_expression(p, false, out));
    if (!OP(",")) {
        return KILN_OK;
    }
    NEW(node, TPL_N_LIST);
    node->negated = true; /* a tuple */
    const struct tpl_node *item = *out;
    for (;;) {
        if (!kiln_tpl_append(p, &node->list, &node->n, item)) {
            return no_room(p);
        }
        if (!kiln_tpl_skip(p, TPL_OPERATOR, ",") || OP(")") ||
            kiln_tpl_at(p, TPL_BLOCK_END, NULL) || kiln_tpl_at(p, TPL_VARIABLE_END, NULL)) {
            break;
        }
        KILN_TRY(kiln_tpl_expression(p, false, &item));
    }
    *out = node;
    return KILN_OK;
}
