/* SPDX-License-Identifier: MIT
 *
 * template_int.h: what the files of the template language share.
 *
 *   source --lex--> tokens --parse--> nodes --eval--> text
 *
 * Nodes live in an arena of the template, values in an arena of the render: nothing is freed one by
 * one. Every function that can fail leaves its message in the context's err.
 */
#ifndef KILN_TEXT_TEMPLATE_INT_H
#define KILN_TEXT_TEMPLATE_INT_H

#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include "text/template.h"

/* ---- memory (template_value.c) ----------------------------------------------------------------
 */

struct tpl_block;
struct tpl_heap {
    struct tpl_block *last;
    size_t used, limit; /* bytes */
};
/* Zeroed; NULL past the limit or when out of memory. */
void *kiln_tpl_take(struct tpl_heap *heap, size_t n, size_t size);
void kiln_tpl_release(struct tpl_heap *heap);

/* ---- tokens (template_lex.c) -------------------------------------------------------------------
 */

struct tpl_str {
    const char *p;
    size_t n;
};
#define TPL_STR(literal) ((struct tpl_str){(literal), sizeof(literal) - 1})
static inline bool kiln_tpl_is(struct tpl_str s, const char *text) {
    return s.n == strlen(text) && memcmp(s.p, text, s.n) == 0;
}

enum tpl_token_kind {
    TPL_DATA,
    TPL_VARIABLE_BEGIN,
    TPL_VARIABLE_END,
    TPL_BLOCK_BEGIN,
    TPL_BLOCK_END,
    TPL_NAME,
    TPL_STRING,
    TPL_INTEGER,
    TPL_FLOAT,
    TPL_OPERATOR,
    TPL_END,
};
struct tpl_token {
    enum tpl_token_kind kind;
    int line;
    struct tpl_str text; /* STRING: its value, escapes undone */
};
struct tpl_tokens {
    struct tpl_token *at;
    size_t n, room;
};

/* ---- nodes (template_parse.c, template_expr.c) --------------------------------------------------
 */

enum tpl_node_kind {
    /* statements */
    TPL_N_TEXT,       /* text */
    TPL_N_OUTPUT,     /* a */
    TPL_N_IF,         /* a: condition, body, other */
    TPL_N_FOR,        /* targets, a: what is walked, b: condition or NULL, body, other */
    TPL_N_SET,        /* targets, a; or body where a is NULL, b: a filter chain over it or NULL */
    TPL_N_SET_MEMBER, /* text.name2 = a */
    TPL_N_MACRO,      /* text, params with defaults in list, body */
    TPL_N_GENERATION, /* body */
    TPL_N_BREAK,
    TPL_N_CONTINUE,
    /* expressions */
    TPL_N_LITERAL,   /* value */
    TPL_N_NAME,      /* text */
    TPL_N_LIST,      /* list */
    TPL_N_DICT,      /* list: key, value, key, value */
    TPL_N_ATTRIBUTE, /* a.text */
    TPL_N_ITEM,      /* a[b] */
    TPL_N_SLICE,     /* a[list[0]:list[1]:list[2]], NULL where left out */
    TPL_N_CALL,      /* a(list, named by params) */
    TPL_N_FILTER,    /* a | text(list, named by params) */
    TPL_N_TEST,      /* a is text(list); negated */
    TPL_N_UNARY,     /* op a */
    TPL_N_BINARY,    /* a op b */
    TPL_N_COMPARE,   /* a, then list[i] by the operator of params[i] */
    TPL_N_CONDITION, /* a if b else c */
};

enum tpl_type {
    TPL_UNDEFINED,
    TPL_NONE,
    TPL_BOOL,
    TPL_INT,
    TPL_REAL,
    TPL_TEXT,
    TPL_LIST,
    TPL_DICT,
    TPL_NAMESPACE, /* a dict whose members can be set */
    TPL_MACRO,
    TPL_METHOD,   /* a method of what `bound` is */
    TPL_FUNCTION, /* of the language */
};

struct tpl_node;
struct tpl_frame;
struct tpl_value {
    enum tpl_type type;
    bool tuple; /* LIST: shown in parentheses */
    union {
        bool truth;
        int64_t whole;
        double real;
        struct tpl_str text; /* TEXT; UNDEFINED: the name that was asked for */
        struct tpl_list *list;
        struct tpl_dict *dict;
        struct {
            const struct tpl_node *node;
            struct tpl_frame *frame; /* where it was defined */
        } macro;
        struct {
            struct tpl_str name;
            struct tpl_value *bound; /* METHOD */
        } call;
    };
};
struct tpl_list {
    struct tpl_value *at;
    size_t n, room;
};
struct tpl_dict {
    struct tpl_value *key, *value;
    size_t n, room;
};

struct tpl_node {
    enum tpl_node_kind kind;
    int line;
    bool negated;
    char op[3];
    struct tpl_str text, name2;
    struct tpl_value value;
    const struct tpl_node *a, *b, *c;
    const struct tpl_node **list; /* [n] */
    struct tpl_str *params;       /* [n]; an empty one: a positional argument */
    size_t n;
    struct tpl_str *targets; /* [n_targets]: names that a set or for gives values */
    size_t n_targets;
    const struct tpl_node **body; /* [n_body] */
    size_t n_body;
    const struct tpl_node **other; /* [n_other]: else */
    size_t n_other;
};

struct kiln_template {
    char *name;
    char *source; /* newlines are \n */
    size_t size;
    struct tpl_heap heap;
    const struct tpl_node **body;
    size_t n_body;
    bool marks;
};

/* ---- parsing --------------------------------------------------------------------------------- */

struct tpl_parser {
    struct kiln_template *tpl;
    struct tpl_tokens tokens;
    size_t at;
    int depth, loops;
    struct kiln_err *err;
};
enum kiln_status kiln_tpl_lex(struct tpl_parser *p);
enum kiln_status kiln_tpl_wrong(const struct tpl_parser *p, int line, const char *fmt, ...)
    KILN_PRINTF(3, 4);
struct tpl_node *kiln_tpl_node(struct tpl_parser *p, enum tpl_node_kind kind, int line);
/* Append to a list of nodes in the template's arena. */
bool kiln_tpl_append(struct tpl_parser *p, const struct tpl_node ***list, size_t *n,
                     const struct tpl_node *node);
static inline const struct tpl_token *kiln_tpl_now(const struct tpl_parser *p) {
    return &p->tokens.at[p->at];
}
static inline bool kiln_tpl_at(const struct tpl_parser *p, enum tpl_token_kind kind,
                               const char *text) {
    const struct tpl_token *t = kiln_tpl_now(p);
    return t->kind == kind && (text == NULL || kiln_tpl_is(t->text, text));
}
bool kiln_tpl_skip(struct tpl_parser *p, enum tpl_token_kind kind, const char *text);
enum kiln_status kiln_tpl_expect(struct tpl_parser *p, enum tpl_token_kind kind, const char *text);
/* An expression, with an inline if unless `plain`; `tuple`: commas make a tuple. */
enum kiln_status kiln_tpl_expression(struct tpl_parser *p, bool plain, const struct tpl_node **out);
enum kiln_status kiln_tpl_tuple(struct tpl_parser *p, const struct tpl_node **out);
/* | filter | filter, over `base`. */
enum kiln_status kiln_tpl_filters(struct tpl_parser *p, const struct tpl_node *base,
                                  const struct tpl_node **out);

/* ---- rendering ------------------------------------------------------------------------------- */

/* Names and their values; a name that is not here is looked up in the parent. */
struct tpl_frame {
    struct tpl_dict names;
    struct tpl_frame *parent;
};

struct tpl_buffer {
    char *p;
    size_t n, room;
};

struct tpl_run {
    const struct kiln_template *tpl;
    struct tpl_heap heap;
    struct tpl_frame *frame;
    struct tpl_buffer *out;
    struct kiln_span *marked;
    size_t n_marked, room_marked;
    int inside; /* macros and blocks of set: marks there have no place in the text */
    uint64_t steps;
    int64_t now; /* as kiln_template_render has it */
    int depth, line;
    enum { TPL_GOES_ON, TPL_BREAKS, TPL_CONTINUES } flow;
    struct kiln_err *err;
};

enum kiln_status kiln_tpl_fail(struct tpl_run *r, const char *fmt, ...) KILN_PRINTF(2, 3);
enum kiln_status kiln_tpl_no_memory(struct tpl_run *r);
enum kiln_status kiln_tpl_eval(struct tpl_run *r, const struct tpl_node *node,
                               struct tpl_value *out);
/* Call a macro, a method or a function. named: keys are texts. */
struct tpl_arguments {
    struct tpl_value *at; /* positional */
    size_t n;
    struct tpl_dict named;
};
enum kiln_status kiln_tpl_call(struct tpl_run *r, const struct tpl_value *what,
                               const struct tpl_arguments *a, struct tpl_value *out);
enum kiln_status kiln_tpl_call_macro(struct tpl_run *r, const struct tpl_value *macro,
                                     const struct tpl_arguments *a, struct tpl_value *out);
enum kiln_status kiln_tpl_filter(struct tpl_run *r, struct tpl_str name,
                                 const struct tpl_value *value, const struct tpl_arguments *a,
                                 struct tpl_value *out);
enum kiln_status kiln_tpl_test(struct tpl_run *r, struct tpl_str name,
                               const struct tpl_value *value, const struct tpl_arguments *a,
                               bool *out);
bool kiln_tpl_has_filter(struct tpl_str name);
bool kiln_tpl_has_test(struct tpl_str name);
bool kiln_tpl_has_function(struct tpl_str name);
enum kiln_status kiln_tpl_call_function(struct tpl_run *run, struct tpl_str name,
                                        const struct tpl_arguments *arguments,
                                        struct tpl_value *out);
/* The text that `value` is; `who` wants it and none other. */
enum kiln_status kiln_tpl_want_text(struct tpl_run *run, const char *who,
                                    const struct tpl_value *value, struct tpl_str *out);
/* Is it a method that values of this type have, known here or not? */
bool kiln_tpl_has_method(const struct tpl_value *value, struct tpl_str name);
/* Argument i, or the named one; NULL where it was not given. */
const struct tpl_value *kiln_tpl_argument(const struct tpl_arguments *a, size_t i,
                                          const char *name);
/* No more than so many positional ones, and no named ones but those of the list. */
enum kiln_status kiln_tpl_accept(struct tpl_run *r, const char *who, const struct tpl_arguments *a,
                                 size_t most, const char *names);

/* ---- values (template_value.c, template_show.c) -------------------------------------------------
 */

static inline struct tpl_value kiln_tpl_text(const char *p, size_t n) {
    return (struct tpl_value){.type = TPL_TEXT, .text = {p, n}};
}
static inline struct tpl_value kiln_tpl_whole(int64_t i) {
    return (struct tpl_value){.type = TPL_INT, .whole = i};
}
static inline struct tpl_value kiln_tpl_truth(bool b) {
    return (struct tpl_value){.type = TPL_BOOL, .truth = b};
}
static inline struct tpl_value kiln_tpl_undefined(struct tpl_str name) {
    return (struct tpl_value){.type = TPL_UNDEFINED, .text = name};
}
static inline bool kiln_tpl_is_dict(const struct tpl_value *v) {
    return v->type == TPL_DICT || v->type == TPL_NAMESPACE;
}
const char *kiln_tpl_type_name(const struct tpl_value *v);
bool kiln_tpl_true(const struct tpl_value *v);
bool kiln_tpl_equal(const struct tpl_value *a, const struct tpl_value *b);
enum kiln_status kiln_tpl_order(struct tpl_run *r, const struct tpl_value *a,
                                const struct tpl_value *b, int *out);
enum kiln_status kiln_tpl_contains(struct tpl_run *r, const struct tpl_value *item,
                                   const struct tpl_value *in, bool *out);
enum kiln_status kiln_tpl_new_list(struct tpl_run *r, size_t room, struct tpl_value *out);
enum kiln_status kiln_tpl_push(struct tpl_run *r, struct tpl_list *list, struct tpl_value v);
enum kiln_status kiln_tpl_new_dict(struct tpl_run *r, enum tpl_type type, struct tpl_value *out);
enum kiln_status kiln_tpl_put(struct tpl_run *r, struct tpl_dict *dict, struct tpl_value key,
                              struct tpl_value value);
const struct tpl_value *kiln_tpl_get(const struct tpl_dict *dict, const struct tpl_value *key);
const struct tpl_value *kiln_tpl_get_text(const struct tpl_dict *dict, struct tpl_str key);
/* What a for walks over: lists as they are, keys of dicts, characters of texts. */
enum kiln_status kiln_tpl_walk(struct tpl_run *r, const struct tpl_value *v, struct tpl_list **out);
enum kiln_status kiln_tpl_from_json(struct tpl_run *r, const json_t *json, struct tpl_value *out);
/* A copy in the render's arena. */
enum kiln_status kiln_tpl_keep(struct tpl_run *r, const char *p, size_t n, struct tpl_value *out);

size_t kiln_tpl_characters(struct tpl_str s);
/* Byte place of character i; s.n behind the last. */
size_t kiln_tpl_place(struct tpl_str s, size_t i);

enum kiln_status kiln_tpl_write(struct tpl_run *r, struct tpl_buffer *b, const char *p, size_t n);
/* As str() shows it. */
enum kiln_status kiln_tpl_show(struct tpl_run *r, const struct tpl_value *v, struct tpl_buffer *b);
enum kiln_status kiln_tpl_string(struct tpl_run *r, const struct tpl_value *v,
                                 struct tpl_value *out);
/* As json.dumps(v, ensure_ascii=False) writes it. indent < 0: on one line. */
enum kiln_status kiln_tpl_json(struct tpl_run *r, const struct tpl_value *v, int indent,
                               struct tpl_buffer *b);

#endif
