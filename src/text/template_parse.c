/* SPDX-License-Identifier: MIT
 *
 * template_parse.c: statements of a template.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "text/template_int.h"

enum kiln_status kiln_tpl_wrong(const struct tpl_parser *p, int line, const char *fmt, ...) {
    char what[300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return KILN_FAIL(p->err, KILN_EINPUT, "chat template %s line %d: %s", p->tpl->name, line, what);
}

struct tpl_node *kiln_tpl_node(struct tpl_parser *p, enum tpl_node_kind kind, int line) {
    struct tpl_node *node = kiln_tpl_take(&p->tpl->heap, 1, sizeof *node);
    if (node != NULL) {
        node->kind = kind;
        node->line = line;
    }
    return node;
}

/* Room doubles: it is full when n is a power of two. */
bool kiln_tpl_append(struct tpl_parser *p, const struct tpl_node ***list, size_t *n,
                     const struct tpl_node *node) {
    if ((*n & (*n - 1)) == 0) {
        const struct tpl_node **wider =
            kiln_tpl_take(&p->tpl->heap, *n > 0 ? *n * 2 : 1, sizeof(void *));
        if (wider == NULL) {
            return false;
        }
        if (*n > 0) {
            memcpy(wider, *list, *n * sizeof(void *));
        }
        *list = wider;
    }
    (*list)[(*n)++] = node;
    return true;
}

bool kiln_tpl_skip(struct tpl_parser *p, enum tpl_token_kind kind, const char *text) {
    const bool is = kiln_tpl_at(p, kind, text);
    p->at += is;
    return is;
}

static const char *kind_name(enum tpl_token_kind kind) {
    static const char *const names[] = {"text",     "{{",          "}}",       "{%",
                                        "%}",       "a name",      "a string", "a number",
                                        "a number", "an operator", "the end"};
    return names[kind];
}

enum kiln_status kiln_tpl_expect(struct tpl_parser *p, enum tpl_token_kind kind, const char *text) {
    const struct tpl_token *t = kiln_tpl_now(p);
    if (kiln_tpl_skip(p, kind, text)) {
        return KILN_OK;
    }
    return kiln_tpl_wrong(p, t->line, "'%.*s' where %s is expected",
                          t->kind == TPL_END ? 15 : (int)kiln_least(t->text.n, 40),
                          t->kind == TPL_END ? "the template's end" : t->text.p,
                          text ? text : kind_name(kind));
}

static enum kiln_status new_node(struct tpl_parser *p, enum tpl_node_kind kind,
                                 struct tpl_node **out) {
    *out = kiln_tpl_node(p, kind, kiln_tpl_now(p)->line);
    return *out ? KILN_OK : kiln_tpl_wrong(p, kiln_tpl_now(p)->line, "too large");
}

/* ---- bodies -----------------------------------------------------------------------------------
 */

static enum kiln_status parse_statement(struct tpl_parser *p, const struct tpl_node **out);

/* At "{%" and one of the words of a space-separated list? */
static bool at_word(const struct tpl_parser *p, const char *words) {
    const struct tpl_token *t = kiln_tpl_now(p);
    if (words == NULL || t->kind != TPL_BLOCK_BEGIN || t[1].kind != TPL_NAME) {
        return false;
    }
    char wanted[32];
    if (t[1].text.n + 3 > sizeof wanted) {
        return false;
    }
    snprintf(wanted, sizeof wanted, " %.*s ", (int)t[1].text.n, t[1].text.p);
    return strstr(words, wanted) != NULL;
}

static enum kiln_status parse_piece(struct tpl_parser *p, const struct tpl_node **out) {
    struct tpl_node *node;
    const struct tpl_token *t = kiln_tpl_now(p);
    if (t->kind == TPL_BLOCK_BEGIN) {
        p->at++;
        return parse_statement(p, out);
    }
    KILN_TRY(new_node(p, t->kind == TPL_DATA ? TPL_N_TEXT : TPL_N_OUTPUT, &node));
    node->text = t->text;
    *out = node;
    if (t->kind == TPL_DATA) {
        p->at++;
        return KILN_OK;
    }
    KILN_TRY(kiln_tpl_expect(p, TPL_VARIABLE_BEGIN, NULL));
    KILN_TRY(kiln_tpl_tuple(p, &node->a));
    return kiln_tpl_expect(p, TPL_VARIABLE_END, NULL);
}

/* Statements up to a tag that begins with one of `ends`, at whose word the parser then stands;
 * NULL: up to the end of the template. */
static enum kiln_status parse_body(struct tpl_parser *p, const char *ends,
                                   const struct tpl_node ***body, size_t *n) {
    const int line = kiln_tpl_now(p)->line;
    if (++p->depth > KILN_TEMPLATE_DEPTH) {
        return kiln_tpl_wrong(p, line, "nested more than %d deep", KILN_TEMPLATE_DEPTH);
    }
    while (!at_word(p, ends)) {
        const struct tpl_node *node = NULL;
        if (kiln_tpl_at(p, TPL_END, NULL)) {
            p->depth--;
            return ends == NULL ? KILN_OK
                                : kiln_tpl_wrong(p, line,
                                                 "a block that does not end: '%s' is "
                                                 "missing",
                                                 strrchr(ends + 1, 'e') ? ends : "end");
        }
        KILN_TRY(parse_piece(p, &node));
        if (node != NULL && !kiln_tpl_append(p, body, n, node)) {
            return kiln_tpl_wrong(p, line, "too large");
        }
    }
    p->depth--;
    p->at++;
    return KILN_OK;
}

/* The same, and the tag of the one word that ends it. */
static enum kiln_status parse_block(struct tpl_parser *p, const char *end, struct tpl_node *node) {
    KILN_TRY(kiln_tpl_expect(p, TPL_BLOCK_END, NULL));
    KILN_TRY(parse_body(p, end, &node->body, &node->n_body));
    p->at++;
    if (node->kind == TPL_N_MACRO) {
        (void)kiln_tpl_skip(p, TPL_NAME, NULL); /* its name, once more */
    }
    return kiln_tpl_expect(p, TPL_BLOCK_END, NULL);
}

/* ---- statements -------------------------------------------------------------------------------
 */

/* Behind if or elif. */
static enum kiln_status parse_if(struct tpl_parser *p, const struct tpl_node **out) {
    struct tpl_node *node;
    KILN_TRY(new_node(p, TPL_N_IF, &node));
    *out = node;
    KILN_TRY(kiln_tpl_tuple(p, &node->a));
    KILN_TRY(kiln_tpl_expect(p, TPL_BLOCK_END, NULL));
    KILN_TRY(parse_body(p, " elif else endif ", &node->body, &node->n_body));
    if (kiln_tpl_skip(p, TPL_NAME, "elif")) {
        const struct tpl_node *next = NULL;
        if (++p->depth > KILN_TEMPLATE_DEPTH) {
            return kiln_tpl_wrong(p, node->line, "nested more than %d deep", KILN_TEMPLATE_DEPTH);
        }
        KILN_TRY(parse_if(p, &next));
        p->depth--;
        return kiln_tpl_append(p, &node->other, &node->n_other, next)
                   ? KILN_OK
                   : kiln_tpl_wrong(p, node->line, "too large");
    }
    if (kiln_tpl_skip(p, TPL_NAME, "else")) {
        KILN_TRY(kiln_tpl_expect(p, TPL_BLOCK_END, NULL));
        KILN_TRY(parse_body(p, " endif ", &node->other, &node->n_other));
    }
    KILN_TRY(kiln_tpl_expect(p, TPL_NAME, "endif"));
    return kiln_tpl_expect(p, TPL_BLOCK_END, NULL);
}

/* a, b, c */
static enum kiln_status parse_targets(struct tpl_parser *p, struct tpl_node *node) {
    enum { MOST = 16 };
    const bool open = kiln_tpl_skip(p, TPL_OPERATOR, "(");
    node->targets = kiln_tpl_take(&p->tpl->heap, MOST, sizeof *node->targets);
    if (node->targets == NULL) {
        return kiln_tpl_wrong(p, node->line, "too large");
    }
    do {
        if (node->n_targets == MOST) {
            return kiln_tpl_wrong(p, node->line, "more than %d names at once", MOST);
        }
        node->targets[node->n_targets++] = kiln_tpl_now(p)->text;
        KILN_TRY(kiln_tpl_expect(p, TPL_NAME, NULL));
    } while (kiln_tpl_skip(p, TPL_OPERATOR, ","));
    return open ? kiln_tpl_expect(p, TPL_OPERATOR, ")") : KILN_OK;
}

static enum kiln_status parse_for(struct tpl_parser *p, const struct tpl_node **out) {
    struct tpl_node *node;
    KILN_TRY(new_node(p, TPL_N_FOR, &node));
    *out = node;
    KILN_TRY(parse_targets(p, node));
    KILN_TRY(kiln_tpl_expect(p, TPL_NAME, "in"));
    /* An "if" here is the loop's condition. */
    KILN_TRY(kiln_tpl_expression(p, true, &node->a));
    if (kiln_tpl_skip(p, TPL_NAME, "if")) {
        KILN_TRY(kiln_tpl_expression(p, false, &node->b));
    }
    if (kiln_tpl_at(p, TPL_NAME, "recursive")) {
        return kiln_tpl_wrong(p, node->line, "recursive loops are not supported");
    }
    KILN_TRY(kiln_tpl_expect(p, TPL_BLOCK_END, NULL));
    p->loops++;
    KILN_TRY(parse_body(p, " else endfor ", &node->body, &node->n_body));
    p->loops--;
    if (kiln_tpl_skip(p, TPL_NAME, "else")) {
        KILN_TRY(kiln_tpl_expect(p, TPL_BLOCK_END, NULL));
        KILN_TRY(parse_body(p, " endfor ", &node->other, &node->n_other));
    }
    KILN_TRY(kiln_tpl_expect(p, TPL_NAME, "endfor"));
    return kiln_tpl_expect(p, TPL_BLOCK_END, NULL);
}

static enum kiln_status parse_set(struct tpl_parser *p, const struct tpl_node **out) {
    struct tpl_node *node;
    const struct tpl_token *t = kiln_tpl_now(p);
    KILN_TRY(new_node(p, TPL_N_SET, &node));
    *out = node;
    if (t->kind == TPL_NAME && t[1].kind == TPL_OPERATOR && kiln_tpl_is(t[1].text, ".")) {
        node->kind = TPL_N_SET_MEMBER;
        node->text = t->text;
        node->name2 = t[2].text;
        p->at += 2;
        KILN_TRY(kiln_tpl_expect(p, TPL_NAME, NULL));
    } else {
        KILN_TRY(parse_targets(p, node));
    }
    if (kiln_tpl_skip(p, TPL_OPERATOR, "=")) {
        KILN_TRY(kiln_tpl_tuple(p, &node->a));
        return kiln_tpl_expect(p, TPL_BLOCK_END, NULL);
    }
    if (node->kind == TPL_N_SET_MEMBER || node->n_targets != 1) {
        return kiln_tpl_wrong(p, node->line, "set: '=' is missing");
    }
    if (kiln_tpl_at(p, TPL_OPERATOR, "|")) {
        struct tpl_node *hole;
        KILN_TRY(new_node(p, TPL_N_NAME, &hole));
        hole->text = TPL_STR(" block"); /* no name that a template can write */
        KILN_TRY(kiln_tpl_filters(p, hole, &node->b));
    }
    return parse_block(p, " endset ", node);
}

static enum kiln_status parse_parameters(struct tpl_parser *p, struct tpl_node *node) {
    enum { MOST = 32 };
    node->params = kiln_tpl_take(&p->tpl->heap, MOST, sizeof *node->params);
    const struct tpl_node **defaults = kiln_tpl_take(&p->tpl->heap, MOST, sizeof(void *));
    if (node->params == NULL || defaults == NULL) {
        return kiln_tpl_wrong(p, node->line, "too large");
    }
    node->list = defaults;
    while (!kiln_tpl_skip(p, TPL_OPERATOR, ")")) {
        if (node->n == MOST) {
            return kiln_tpl_wrong(p, node->line, "a macro of more than %d parameters", MOST);
        }
        if (node->n > 0) {
            KILN_TRY(kiln_tpl_expect(p, TPL_OPERATOR, ","));
        }
        node->params[node->n] = kiln_tpl_now(p)->text;
        KILN_TRY(kiln_tpl_expect(p, TPL_NAME, NULL));
        if (kiln_tpl_skip(p, TPL_OPERATOR, "=")) {
            KILN_TRY(kiln_tpl_expression(p, false, &defaults[node->n]));
        }
        node->n++;
    }
    return KILN_OK;
}

static enum kiln_status parse_macro(struct tpl_parser *p, const struct tpl_node **out) {
    struct tpl_node *node;
    KILN_TRY(new_node(p, TPL_N_MACRO, &node));
    *out = node;
    node->text = kiln_tpl_now(p)->text;
    KILN_TRY(kiln_tpl_expect(p, TPL_NAME, NULL));
    KILN_TRY(kiln_tpl_expect(p, TPL_OPERATOR, "("));
    KILN_TRY(parse_parameters(p, node));
    const int loops = p->loops;
    p->loops = 0;
    KILN_TRY(parse_block(p, " endmacro ", node));
    p->loops = loops;
    return KILN_OK;
}

static enum kiln_status parse_generation(struct tpl_parser *p, const struct tpl_node **out) {
    struct tpl_node *node;
    KILN_TRY(new_node(p, TPL_N_GENERATION, &node));
    *out = node;
    p->tpl->marks = true;
    return parse_block(p, " endgeneration ", node);
}

static enum kiln_status parse_jump(struct tpl_parser *p, enum tpl_node_kind kind,
                                   const struct tpl_node **out) {
    struct tpl_node *node;
    KILN_TRY(new_node(p, kind, &node));
    *out = node;
    if (p->loops == 0) {
        return kiln_tpl_wrong(p, node->line, "break or continue outside of a loop");
    }
    return kiln_tpl_expect(p, TPL_BLOCK_END, NULL);
}

/* Behind "{%". */
static enum kiln_status parse_statement(struct tpl_parser *p, const struct tpl_node **out) {
    const struct tpl_token *t = kiln_tpl_now(p);
    if (kiln_tpl_skip(p, TPL_NAME, "if")) {
        return parse_if(p, out);
    }
    if (kiln_tpl_skip(p, TPL_NAME, "for")) {
        return parse_for(p, out);
    }
    if (kiln_tpl_skip(p, TPL_NAME, "set")) {
        return parse_set(p, out);
    }
    if (kiln_tpl_skip(p, TPL_NAME, "macro")) {
        return parse_macro(p, out);
    }
    if (kiln_tpl_skip(p, TPL_NAME, "generation")) {
        return parse_generation(p, out);
    }
    if (kiln_tpl_skip(p, TPL_NAME, "break")) {
        return parse_jump(p, TPL_N_BREAK, out);
    }
    if (kiln_tpl_skip(p, TPL_NAME, "continue")) {
        return parse_jump(p, TPL_N_CONTINUE, out);
    }
    return kiln_tpl_wrong(p, t->line, "the statement '%.*s' is not supported here",
                          (int)kiln_least(t->text.n, 40), t->text.p);
}

/* ---- the template ------------------------------------------------------------------------------
 */

/* Newlines become \n, and the last one goes. */
static void copy_source(struct kiln_template *tpl, const char *source, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (source[i] == '\r') {
            tpl->source[tpl->size++] = '\n';
            i += i + 1 < size && source[i + 1] == '\n';
        } else {
            tpl->source[tpl->size++] = source[i];
        }
    }
    tpl->size -= tpl->size > 0 && tpl->source[tpl->size - 1] == '\n';
}

static enum kiln_status parse(struct tpl_parser *p, const char *name, const char *source,
                              size_t size) {
    struct kiln_template *tpl = p->tpl;
    tpl->heap.limit = KILN_TEMPLATE_BYTES;
    tpl->name = kiln_strdup(name);
    tpl->source = kiln_alloc(size + 1, 1);
    KILN_REQUIRE(tpl->name && tpl->source, p->err, KILN_ENOMEM, "chat template %s: out of memory",
                 name);
    copy_source(tpl, source, size);
    KILN_TRY(kiln_tpl_lex(p));
    return parse_body(p, NULL, &tpl->body, &tpl->n_body);
}

enum kiln_status kiln_template_parse(const char *name, const char *source, size_t size,
                                     struct kiln_template **out, struct kiln_err *err) {
    *out = NULL;
    struct tpl_parser p = {.tpl = kiln_alloc(1, sizeof *p.tpl), .err = err};
    KILN_REQUIRE(p.tpl, err, KILN_ENOMEM, "chat template %s: out of memory", name);
    const enum kiln_status status = parse(&p, name, source, size);
    kiln_free(p.tokens.at);
    if (status != KILN_OK) {
        kiln_template_free(p.tpl);
        return status;
    }
    *out = p.tpl;
    return KILN_OK;
}

void kiln_template_free(struct kiln_template *tpl) {
    if (tpl != NULL) {
        kiln_tpl_release(&tpl->heap);
        kiln_free(tpl->source);
        kiln_free(tpl->name);
        kiln_free(tpl);
    }
}

bool kiln_template_marks(const struct kiln_template *tpl) { return tpl->marks; }
