/* SPDX-License-Identifier: MIT
 *
 * parse.c: the grammar. It reads a statement, hands it to check.c, and forgets it.
 *
 *   file      = "program" "(" number ")" [attrs] "{" func "}"
 *   func      = "func" id "<" id ">" "(" [type id {"," type id}] ")" "{" {statement} "}"
 *               "->" "(" id {"," id} ")" ";"
 *   statement = type id {"," type id} "=" id "(" [args] ")" [attrs] ";"
 *   attrs     = "[" [args] "]"
 *   args      = id "=" value {"," id "=" value}
 *   value     = id | literal | "(" value {"," value} ")"
 *   literal   = type "(" payload ")"
 *   payload   = string | number | "true" | "false" | list | BLOBFILE | map
 *   list      = "[" [item {"," item}] "]", item = string | number | "true" | "false" | list
 *   map       = "{" "{" string|literal "," string|literal "}" ... "}"
 *   BLOBFILE  = "BLOBFILE" "(" "path" "=" literal "," "offset" "=" literal ")"
 *   type      = scalar | "tensor" "<" scalar "," "[" [number {"," number}] "]" ">"
 *             | "dict" "<" type "," type ">"
 */
#include <string.h>

#include "base/mem.h"
#include "device/mil/check.h"

/* Of lists, values and dictionaries within each other. */
enum { MOST_DEPTH = 16 };

struct parser {
    struct kiln_mil_lexer lexer;
    struct kiln_mil_store scratch; /* of the statement being read */
    struct kiln_mil_builder builder;
    struct kiln_err *err;
};

static enum kiln_status parse_type(struct parser *p, struct kiln_mil_type *out, bool *dict,
                                   int depth);
static enum kiln_status parse_literal(struct parser *p, struct kiln_mil_literal **out, int depth);

/* ---- words ---------------------------------------------------------------------------------- */

static const struct kiln_mil_token *now(const struct parser *p) { return &p->lexer.now; }
static bool at_mark(const struct parser *p, char mark) { return kiln_mil_is_mark(now(p), mark); }
static bool at_id(const struct parser *p, const char *id) { return kiln_mil_is_id(now(p), id); }

static enum kiln_status next(struct parser *p) { return kiln_mil_lex_next(&p->lexer, p->err); }

static enum kiln_status expected(const struct parser *p, const char *what) {
    return kiln_mil_expected(&p->lexer, what, p->err);
}

static enum kiln_status no_memory(const struct parser *p) {
    (void)kiln_mil_no_memory(&p->builder, now(p)->at, p->err);
    return KILN_ENOMEM; /* written out for the analyzer, which does not see into check.c */
}

/* Take one mark; `where` says what is being read. */
static enum kiln_status take(struct parser *p, char mark, const char *where) {
    if (!at_mark(p, mark)) {
        char text[80];
        return KILN_MIL_FAIL(p->err, p->lexer.name, now(p)->at, "expected '%c' %s, found %s", mark,
                             where, kiln_mil_token_text(now(p), text));
    }
    return next(p);
}

static enum kiln_status take_keyword(struct parser *p, const char *id, const char *quoted) {
    return at_id(p, id) ? next(p) : expected(p, quoted);
}

/* A comma goes on, the mark ends a list. */
static enum kiln_status goes_on(struct parser *p, char end, const char *what, bool *more) {
    *more = at_mark(p, ',');
    if (!*more && !at_mark(p, end)) {
        return expected(p, what);
    }
    return next(p);
}

static enum kiln_status take_name(struct parser *p, const char *what, const char **name) {
    if (now(p)->word != KILN_MIL_ID) {
        return expected(p, what);
    }
    *name = kiln_mil_copy(&p->scratch, now(p)->text, now(p)->length);
    return *name != NULL ? next(p) : no_memory(p);
}

static enum kiln_status too_deep(const struct parser *p) {
    return KILN_MIL_FAIL(p->err, p->lexer.name, now(p)->at,
                         "expected at most %d lists or types within each other", MOST_DEPTH);
}

/* ---- types ---------------------------------------------------------------------------------- */

static bool find_scalar(const struct kiln_mil_token *token, enum kiln_mil_scalar *out) {
    for (enum kiln_mil_scalar s = 0; s < KILN_MIL_SCALARS; s++) {
        if (kiln_mil_is_id(token, kiln_mil_scalar_name(s))) {
            *out = s;
            return true;
        }
    }
    return false;
}

static bool at_type(const struct parser *p) {
    enum kiln_mil_scalar scalar;
    return at_id(p, "tensor") || at_id(p, "dict") || find_scalar(now(p), &scalar);
}

static enum kiln_status parse_scalar(struct parser *p, enum kiln_mil_scalar *out) {
    if (!find_scalar(now(p), out)) {
        return expected(p,
                        "a type: fp16, fp32, int8, uint8, int16, uint16, int32, uint64, bool or "
                        "string");
    }
    return next(p);
}

static enum kiln_status parse_dim(struct parser *p, struct kiln_mil_type *out) {
    double number;
    int64_t dim = 0;
    bool whole = false;
    if (now(p)->word == KILN_MIL_NUMBER) {
        KILN_TRY(kiln_mil_number(&p->lexer, now(p), &number, &dim, &whole, p->err));
    }
    if (!whole || dim < 1 || (uint64_t)dim > SIZE_MAX) {
        return expected(p, "a dimension of 1 or more");
    }
    if (out->rank == KILN_MIL_RANK) {
        return KILN_MIL_FAIL(p->err, p->lexer.name, now(p)->at,
                             "expected at most %d dimensions, found another", KILN_MIL_RANK);
    }
    out->dims[out->rank++] = (size_t)dim;
    return next(p);
}

static enum kiln_status parse_tensor_type(struct parser *p, struct kiln_mil_type *out) {
    const struct kiln_mil_at at = now(p)->at;
    size_t elements;
    KILN_TRY(next(p));
    KILN_TRY(take(p, '<', "behind tensor"));
    KILN_TRY(parse_scalar(p, &out->scalar));
    KILN_TRY(take(p, ',', "behind the tensor's element type"));
    KILN_TRY(take(p, '[', "before the tensor's dimensions"));
    bool more = !at_mark(p, ']');
    if (!more) {
        KILN_TRY(next(p));
    }
    while (more) {
        KILN_TRY(parse_dim(p, out));
        KILN_TRY(goes_on(p, ']', "',' or ']' behind a dimension", &more));
    }
    KILN_TRY(take(p, '>', "behind the tensor's dimensions"));
    if (!kiln_mil_count(out, &elements)) {
        char text[160];
        return KILN_MIL_FAIL(p->err, p->lexer.name, at,
                             "expected a tensor that an address space holds, found %s",
                             kiln_mil_type_text(out, text));
    }
    return KILN_OK;
}

static enum kiln_status parse_type(struct parser *p, struct kiln_mil_type *out, bool *dict,
                                   int depth) {
    struct kiln_mil_type inner;
    bool inner_dict;
    *out = (struct kiln_mil_type){.rank = 0};
    *dict = at_id(p, "dict");
    if (at_id(p, "tensor")) {
        return parse_tensor_type(p, out);
    }
    if (!*dict) {
        return parse_scalar(p, &out->scalar);
    }
    if (depth > MOST_DEPTH) {
        return too_deep(p);
    }
    KILN_TRY(next(p));
    KILN_TRY(take(p, '<', "behind dict"));
    KILN_TRY(parse_type(p, &inner, &inner_dict, depth + 1));
    KILN_TRY(take(p, ',', "between a dict's types"));
    KILN_TRY(parse_type(p, &inner, &inner_dict, depth + 1));
    return take(p, '>', "behind a dict's types");
}

/* The type of a value: anything but a dict. */
static enum kiln_status parse_value_type(struct parser *p, struct kiln_mil_type *out) {
    bool dict;
    if (at_id(p, "dict")) {
        return expected(p, "the type of a value (a dict is for attributes)");
    }
    return parse_type(p, out, &dict, 0);
}

/* ---- literals ------------------------------------------------------------------------------- */

static enum kiln_status parse_item(struct parser *p, struct kiln_mil_literal *literal) {
    struct kiln_mil_item item = {.at = now(p)->at};
    bool whole;
    if (now(p)->word == KILN_MIL_NUMBER) {
        KILN_TRY(kiln_mil_number(&p->lexer, now(p), &item.number, &item.integer, &whole, p->err));
        item.is = whole ? KILN_MIL_ITEM_INTEGER : KILN_MIL_ITEM_REAL;
    } else if (now(p)->word == KILN_MIL_QUOTED) {
        item.is = KILN_MIL_ITEM_STRING;
        item.string = kiln_mil_copy(&p->scratch, now(p)->text, now(p)->length);
        if (item.string == NULL) {
            return no_memory(p);
        }
    } else if (at_id(p, "true") || at_id(p, "false")) {
        item.is = KILN_MIL_ITEM_BOOL;
        item.integer = at_id(p, "true");
    } else {
        return expected(p, "a number, a string, true or false");
    }
    void *items = kiln_mil_grow(&p->scratch, literal->items, literal->n, &literal->room,
                                sizeof *literal->items);
    if (items == NULL) {
        return no_memory(p);
    }
    literal->items = items;
    literal->items[literal->n++] = item;
    return next(p);
}

/* Lists of one depth have one length, and items are in the innermost only. */
static enum kiln_status parse_list(struct parser *p, struct kiln_mil_literal *literal,
                                   size_t level) {
    const struct kiln_mil_at at = now(p)->at;
    size_t n = 0;
    if (level >= KILN_MIL_RANK) {
        return KILN_MIL_FAIL(p->err, p->lexer.name, at,
                             "expected at most %d lists within each other, found another",
                             KILN_MIL_RANK);
    }
    KILN_TRY(next(p));
    bool more = !at_mark(p, ']');
    if (!more) {
        KILN_TRY(next(p));
    }
    for (; more; n++) {
        const bool list = at_mark(p, '[');
        if (literal->depth != 0 && list != (level + 1 < literal->depth)) {
            return expected(p, list ? "an item, as at this depth before" : "a list, as before");
        }
        if (list) {
            KILN_TRY(parse_list(p, literal, level + 1));
        } else {
            literal->depth = level + 1;
            KILN_TRY(parse_item(p, literal));
        }
        KILN_TRY(goes_on(p, ']', "',' or ']' behind an item of a list", &more));
    }
    literal->depth = literal->depth == 0 ? level + 1 : literal->depth;
    if (literal->counts[level] != 0 && literal->counts[level] != n) {
        return KILN_MIL_FAIL(p->err, p->lexer.name, at,
                             "expected a list of %zu items, as the one before it, found %zu",
                             literal->counts[level], n);
    }
    literal->counts[level] = n;
    return KILN_OK;
}

/* A literal of one string or integer, which BLOBFILE has two of. */
static enum kiln_status parse_blob_member(struct parser *p, const char *name, const char *quoted,
                                          int depth, struct kiln_mil_item *out) {
    struct kiln_mil_literal *literal = NULL;
    const bool string = strcmp(name, "path") == 0;
    KILN_TRY(take_keyword(p, name, quoted));
    KILN_TRY(take(p, '=', "behind a name in BLOBFILE"));
    if (!at_type(p)) {
        return expected(p, string ? "a literal, as string(\"@model_path/weights/w.bin\")"
                                  : "a literal, as uint64(64)");
    }
    KILN_TRY(parse_literal(p, &literal, depth + 1));
    const struct kiln_mil_item *item = literal->items;
    if (literal->n != 1 || literal->depth != 0 ||
        item->is != (string ? KILN_MIL_ITEM_STRING : KILN_MIL_ITEM_INTEGER) ||
        (!string && item->integer < 0)) {
        return KILN_MIL_FAIL(p->err, p->lexer.name, literal->at, "expected %s in BLOBFILE",
                             string ? "one string" : "one integer of 0 or more");
    }
    *out = *item;
    return KILN_OK;
}

static enum kiln_status parse_blob(struct parser *p, struct kiln_mil_literal *literal, int depth) {
    struct kiln_mil_item path = {.string = NULL}, offset = path;
    KILN_TRY(next(p));
    KILN_TRY(take(p, '(', "behind BLOBFILE"));
    KILN_TRY(parse_blob_member(p, "path", "\"path\"", depth, &path));
    KILN_TRY(take(p, ',', "behind BLOBFILE's path"));
    KILN_TRY(parse_blob_member(p, "offset", "\"offset\"", depth, &offset));
    literal->path = path.string;
    literal->offset = (uint64_t)offset.integer;
    return take(p, ')', "at the end of BLOBFILE");
}

static enum kiln_status parse_map_half(struct parser *p, int depth) {
    struct kiln_mil_literal *literal = NULL;
    if (at_type(p)) {
        return parse_literal(p, &literal, depth + 1);
    }
    return now(p)->word == KILN_MIL_QUOTED ? next(p) : expected(p, "a string or a literal");
}

/* Maps say who wrote a program; nothing is kept. */
static enum kiln_status parse_map(struct parser *p, int depth) {
    KILN_TRY(next(p));
    bool more = !at_mark(p, '}');
    if (!more) {
        KILN_TRY(next(p));
    }
    while (more) {
        KILN_TRY(take(p, '{', "before a pair of a dict"));
        KILN_TRY(parse_map_half(p, depth));
        KILN_TRY(take(p, ',', "between a key and its value"));
        KILN_TRY(parse_map_half(p, depth));
        KILN_TRY(take(p, '}', "behind a pair of a dict"));
        KILN_TRY(goes_on(p, '}', "',' or '}' behind a pair of a dict", &more));
    }
    return KILN_OK;
}

static enum kiln_status parse_literal(struct parser *p, struct kiln_mil_literal **out, int depth) {
    bool dict;
    if (depth > MOST_DEPTH) {
        return too_deep(p);
    }
    struct kiln_mil_literal *literal = kiln_mil_take(&p->scratch, 1, sizeof *literal);
    if (literal == NULL) {
        return no_memory(p);
    }
    *out = literal;
    literal->at = now(p)->at;
    KILN_TRY(parse_type(p, &literal->type, &dict, 0));
    KILN_TRY(take(p, '(', "behind the type of a literal"));
    if (dict) {
        if (!at_mark(p, '{')) {
            return expected(p, "'{' of a dict's contents");
        }
        KILN_TRY(parse_map(p, depth));
    } else if (at_mark(p, '[')) {
        KILN_TRY(parse_list(p, literal, 0));
    } else if (at_id(p, "BLOBFILE")) {
        KILN_TRY(parse_blob(p, literal, depth));
    } else {
        KILN_TRY(parse_item(p, literal));
    }
    return take(p, ')', "at the end of a literal");
}

/* ---- arguments ------------------------------------------------------------------------------ */

static enum kiln_status parse_value(struct parser *p, struct kiln_mil_arg *arg, int depth) {
    arg->value_at = now(p)->at;
    if (depth > MOST_DEPTH) {
        return too_deep(p);
    }
    if (at_type(p)) {
        return parse_literal(p, &arg->literal, depth);
    }
    if (now(p)->word == KILN_MIL_ID) {
        return take_name(p, "a name", &arg->reference);
    }
    if (!at_mark(p, '(')) {
        return expected(p, "a name, a literal with its type or a list in ( )");
    }
    KILN_TRY(next(p));
    for (bool more = true; more; arg->n++) {
        arg->list = kiln_mil_grow(&p->scratch, arg->list, arg->n, &arg->room, sizeof *arg->list);
        if (arg->list == NULL) {
            return no_memory(p);
        }
        arg->list[arg->n] = (struct kiln_mil_arg){.name = arg->name, .at = arg->at};
        KILN_TRY(parse_value(p, &arg->list[arg->n], depth + 1));
        KILN_TRY(goes_on(p, ')', "',' or ')' behind a value of a list", &more));
    }
    return KILN_OK;
}

/* From behind the opening mark to behind `end`. */
static enum kiln_status parse_args(struct parser *p, char end, struct kiln_mil_args *args) {
    bool more = !at_mark(p, end);
    if (!more) {
        return next(p);
    }
    for (; more; args->n++) {
        args->arg = kiln_mil_grow(&p->scratch, args->arg, args->n, &args->room, sizeof *args->arg);
        if (args->arg == NULL) {
            return no_memory(p);
        }
        struct kiln_mil_arg *arg = &args->arg[args->n];
        *arg = (struct kiln_mil_arg){.at = now(p)->at};
        KILN_TRY(take_name(p, "the name of an argument", &arg->name));
        KILN_TRY(take(p, '=', "behind the name of an argument"));
        KILN_TRY(parse_value(p, arg, 0));
        KILN_TRY(goes_on(
            p, end, end == ')' ? "',' or ')' behind an argument" : "',' or ']' behind an attribute",
            &more));
    }
    return KILN_OK;
}

static enum kiln_status parse_attrs(struct parser *p, struct kiln_mil_args *attrs) {
    if (!at_mark(p, '[')) {
        return KILN_OK;
    }
    KILN_TRY(next(p));
    return parse_args(p, ']', attrs);
}

/* ---- statements ----------------------------------------------------------------------------- */

static enum kiln_status parse_declared(struct parser *p, const char *what,
                                       struct kiln_mil_declared *out) {
    KILN_TRY(parse_value_type(p, &out->type));
    out->at = now(p)->at;
    return take_name(p, what, &out->name);
}

static enum kiln_status parse_results(struct parser *p, struct kiln_mil_statement *s) {
    for (bool more = true; more; s->n_out++) {
        s->out = kiln_mil_grow(&p->scratch, s->out, s->n_out, &s->room_out, sizeof *s->out);
        if (s->out == NULL) {
            return no_memory(p);
        }
        KILN_TRY(parse_declared(p, "the name of a value", &s->out[s->n_out]));
        KILN_TRY(goes_on(p, '=', "',' or '=' behind the name of a value", &more));
    }
    return KILN_OK;
}

static enum kiln_status parse_statement(struct parser *p) {
    struct kiln_mil_statement s = {.n_out = 0};
    KILN_TRY(parse_results(p, &s));
    s.at = now(p)->at;
    KILN_TRY(take_name(p, "the name of an operation", &s.op));
    KILN_TRY(take(p, '(', "behind the name of an operation"));
    KILN_TRY(parse_args(p, ')', &s.args));
    KILN_TRY(parse_attrs(p, &s.attrs));
    KILN_TRY(take(p, ';', "at the end of a statement"));
    const enum kiln_status status = kiln_mil_build_statement(&p->builder, &s, p->err);
    kiln_mil_empty(&p->scratch);
    return status;
}

static enum kiln_status parse_parameters(struct parser *p) {
    KILN_TRY(take(p, '(', "before the function's parameters"));
    bool more = !at_mark(p, ')');
    if (!more) {
        return next(p);
    }
    while (more) {
        struct kiln_mil_declared parameter;
        KILN_TRY(parse_declared(p, "the name of a parameter", &parameter));
        KILN_TRY(kiln_mil_build_parameter(&p->builder, &parameter, p->err));
        KILN_TRY(goes_on(p, ')', "',' or ')' behind a parameter", &more));
    }
    return KILN_OK;
}

static enum kiln_status parse_function(struct parser *p) {
    struct kiln_mil_graph *graph = p->builder.graph;
    const char *name = NULL;
    KILN_TRY(take_keyword(p, "func", "\"func\""));
    KILN_TRY(take_name(p, "the name of a function", &name));
    KILN_TRY(take(p, '<', "before the function's instruction set"));
    if (now(p)->word != KILN_MIL_ID || now(p)->length >= sizeof graph->opset) {
        return expected(p, "an instruction set, as ios18");
    }
    memcpy(graph->opset, now(p)->text, now(p)->length);
    KILN_TRY(next(p));
    KILN_TRY(take(p, '>', "behind the function's instruction set"));
    KILN_TRY(parse_parameters(p));
    KILN_TRY(take(p, '{', "before the function's statements"));
    while (!at_mark(p, '}')) {
        if (!at_type(p)) {
            return expected(p, "a statement, which begins with a type, or '}'");
        }
        KILN_TRY(parse_statement(p));
    }
    KILN_TRY(next(p));
    if (now(p)->word != KILN_MIL_ARROW) {
        return expected(p, "\"->\" behind the function's statements");
    }
    KILN_TRY(next(p));
    KILN_TRY(take(p, '(', "before the function's results"));
    for (bool more = true; more;) {
        const struct kiln_mil_at at = now(p)->at;
        KILN_TRY(take_name(p, "the name of a result", &name));
        KILN_TRY(kiln_mil_build_output(&p->builder, name, at, p->err));
        KILN_TRY(goes_on(p, ')', "',' or ')' behind a result", &more));
    }
    return take(p, ';', "behind the function's results");
}

static enum kiln_status parse_program(struct parser *p) {
    struct kiln_mil_args attrs = {.n = 0};
    int64_t integer;
    bool whole;
    KILN_TRY(take_keyword(p, "program", "\"program\""));
    KILN_TRY(take(p, '(', "behind program"));
    if (now(p)->word != KILN_MIL_NUMBER) {
        return expected(p, "a version, as 1.3");
    }
    KILN_TRY(
        kiln_mil_number(&p->lexer, now(p), &p->builder.graph->version, &integer, &whole, p->err));
    KILN_TRY(next(p));
    KILN_TRY(take(p, ')', "behind the program's version"));
    KILN_TRY(parse_attrs(p, &attrs));
    KILN_TRY(take(p, '{', "before the program's function"));
    KILN_TRY(parse_function(p));
    KILN_TRY(take(p, '}', "behind the program's only function"));
    return now(p)->word == KILN_MIL_END ? KILN_OK : expected(p, "the end of the text");
}

enum kiln_status kiln_mil_parse(const char *name, const char *text, size_t bytes,
                                kiln_mil_file_fn *files, void *context, struct kiln_mil_graph *out,
                                struct kiln_err *err) {
    struct kiln_mil_store *memory = kiln_alloc(1, sizeof *memory);
    KILN_REQUIRE(memory != NULL, err, KILN_ENOMEM, "%s: out of memory", name);
    *out = (struct kiln_mil_graph){.memory = memory};
    struct parser p = {
        .builder =
            {.name = name, .files = files, .context = context, .graph = out, .memory = memory},
        .err = err,
    };
    enum kiln_status status = kiln_mil_lex_open(&p.lexer, name, text, bytes, err);
    if (status == KILN_OK) {
        status = parse_program(&p);
    }
    kiln_mil_build_end(&p.builder);
    kiln_mil_empty(&p.scratch);
    if (status != KILN_OK) {
        kiln_mil_close(out);
    }
    return status;
}

void kiln_mil_close(struct kiln_mil_graph *graph) {
    if (graph->memory != NULL) {
        kiln_mil_empty(graph->memory);
        kiln_free(graph->memory);
    }
    *graph = (struct kiln_mil_graph){.memory = NULL};
}
