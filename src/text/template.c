/* SPDX-License-Identifier: MIT
 *
 * template.c: a template's statements, carried out.
 */
#include "text/template.h"

#include <string.h>

#include "base/mem.h"
#include "text/template_int.h"

static enum kiln_status run_body(struct tpl_run *r, const struct tpl_node *const *body, size_t n);

/* ---- frames -----------------------------------------------------------------------------------
 */

static enum kiln_status assign(struct tpl_run *r, struct tpl_str name, struct tpl_value v) {
    return kiln_tpl_put(r, &r->frame->names, kiln_tpl_text(name.p, name.n), v);
}

/* One name takes the value, several take its items. */
static enum kiln_status assign_all(struct tpl_run *r, const struct tpl_node *node,
                                   const struct tpl_value *v) {
    struct tpl_list *items;
    if (node->n_targets == 1) {
        return assign(r, node->targets[0], *v);
    }
    KILN_TRY(kiln_tpl_walk(r, v, &items));
    if (items->n != node->n_targets) {
        return kiln_tpl_fail(r, "%zu values for %zu names", items->n, node->n_targets);
    }
    for (size_t i = 0; i < items->n; i++) {
        KILN_TRY(assign(r, node->targets[i], items->at[i]));
    }
    return KILN_OK;
}

/* A frame of its own around a body, whose text goes to `out`. */
static enum kiln_status run_inside(struct tpl_run *r, const struct tpl_node *node,
                                   struct tpl_frame *frame, struct tpl_buffer *out) {
    struct tpl_frame *before = r->frame;
    struct tpl_buffer *to = r->out;
    r->frame = frame;
    r->out = out;
    r->inside++;
    const enum kiln_status status = run_body(r, node->body, node->n_body);
    r->inside--;
    r->out = to;
    r->frame = before;
    return status;
}

static enum kiln_status new_frame(struct tpl_run *r, struct tpl_frame *parent,
                                  struct tpl_frame **out) {
    *out = kiln_tpl_take(&r->heap, 1, sizeof **out);
    if (*out == NULL) {
        return kiln_tpl_no_memory(r);
    }
    (*out)->parent = parent;
    return KILN_OK;
}

/* ---- loops ------------------------------------------------------------------------------------
 */

static enum kiln_status put(struct tpl_run *r, struct tpl_dict *dict, const char *name,
                            struct tpl_value v) {
    return kiln_tpl_put(r, dict, kiln_tpl_text(name, strlen(name)), v);
}

/* `loop` at item i. */
static enum kiln_status describe(struct tpl_run *r, const struct tpl_list *items, size_t i,
                                 struct tpl_value *out) {
    const int64_t n = (int64_t)items->n, at = (int64_t)i;
    KILN_TRY(kiln_tpl_new_dict(r, TPL_NAMESPACE, out));
    KILN_TRY(put(r, out->dict, "index", kiln_tpl_whole(at + 1)));
    KILN_TRY(put(r, out->dict, "index0", kiln_tpl_whole(at)));
    KILN_TRY(put(r, out->dict, "revindex", kiln_tpl_whole(n - at)));
    KILN_TRY(put(r, out->dict, "revindex0", kiln_tpl_whole(n - at - 1)));
    KILN_TRY(put(r, out->dict, "first", kiln_tpl_truth(i == 0)));
    KILN_TRY(put(r, out->dict, "last", kiln_tpl_truth(i + 1 == items->n)));
    KILN_TRY(put(r, out->dict, "length", kiln_tpl_whole(n)));
    KILN_TRY(i > 0 ? put(r, out->dict, "previtem", items->at[i - 1]) : KILN_OK);
    return i + 1 < items->n ? put(r, out->dict, "nextitem", items->at[i + 1]) : KILN_OK;
}

/* The items that the loop's condition lets through. */
static enum kiln_status choose(struct tpl_run *r, const struct tpl_node *node,
                               struct tpl_list **items) {
    struct tpl_value chosen, keep;
    if (node->b == NULL) {
        return KILN_OK;
    }
    KILN_TRY(kiln_tpl_new_list(r, (*items)->n, &chosen));
    struct tpl_frame *outer = r->frame;
    for (size_t i = 0; i < (*items)->n; i++) {
        KILN_TRY(new_frame(r, outer, &r->frame));
        enum kiln_status status = assign_all(r, node, &(*items)->at[i]);
        if (status == KILN_OK) {
            status = kiln_tpl_eval(r, node->b, &keep);
        }
        r->frame = outer;
        KILN_TRY(status);
        KILN_TRY(kiln_tpl_true(&keep) ? kiln_tpl_push(r, chosen.list, (*items)->at[i]) : KILN_OK);
    }
    *items = chosen.list;
    return KILN_OK;
}

static enum kiln_status run_item(struct tpl_run *r, const struct tpl_node *node,
                                 const struct tpl_list *items, size_t i) {
    struct tpl_value loop;
    KILN_TRY(describe(r, items, i, &loop));
    KILN_TRY(assign(r, TPL_STR("loop"), loop));
    KILN_TRY(assign_all(r, node, &items->at[i]));
    return run_body(r, node->body, node->n_body);
}

static enum kiln_status run_for(struct tpl_run *r, const struct tpl_node *node) {
    struct tpl_value walked;
    struct tpl_list *items;
    KILN_TRY(kiln_tpl_eval(r, node->a, &walked));
    KILN_TRY(kiln_tpl_walk(r, &walked, &items));
    KILN_TRY(choose(r, node, &items));
    if (items->n == 0) {
        return run_body(r, node->other, node->n_other);
    }
    struct tpl_frame *outer = r->frame;
    for (size_t i = 0; i < items->n && r->flow != TPL_BREAKS; i++) {
        r->flow = TPL_GOES_ON;
        KILN_TRY(new_frame(r, outer, &r->frame));
        const enum kiln_status status = run_item(r, node, items, i);
        r->frame = outer;
        KILN_TRY(status);
    }
    r->flow = TPL_GOES_ON;
    return KILN_OK;
}

/* ---- other statements --------------------------------------------------------------------------
 */

static enum kiln_status run_set(struct tpl_run *r, const struct tpl_node *node) {
    struct tpl_value v;
    if (node->a != NULL) {
        KILN_TRY(kiln_tpl_eval(r, node->a, &v));
        return assign_all(r, node, &v);
    }
    struct tpl_buffer text = {NULL, 0, 0};
    struct tpl_frame *frame;
    KILN_TRY(new_frame(r, r->frame, &frame));
    KILN_TRY(run_inside(r, node, frame, &text));
    v = kiln_tpl_text(text.n > 0 ? text.p : "", text.n);
    if (node->b != NULL) {
        KILN_TRY(assign(r, TPL_STR(" block"), v));
        KILN_TRY(kiln_tpl_eval(r, node->b, &v));
    }
    return assign(r, node->targets[0], v);
}

static enum kiln_status run_set_member(struct tpl_run *r, const struct tpl_node *node) {
    struct tpl_value v;
    const struct tpl_value *space = NULL;
    KILN_TRY(kiln_tpl_eval(r, node->a, &v));
    r->line = node->line;
    for (const struct tpl_frame *f = r->frame; f != NULL && space == NULL; f = f->parent) {
        space = kiln_tpl_get_text(&f->names, node->text);
    }
    if (space == NULL || space->type != TPL_NAMESPACE) {
        return kiln_tpl_fail(r, "set %.*s.%.*s: not a namespace", (int)node->text.n, node->text.p,
                             (int)node->name2.n, node->name2.p);
    }
    return kiln_tpl_put(r, space->dict, kiln_tpl_text(node->name2.p, node->name2.n), v);
}

static enum kiln_status run_if(struct tpl_run *r, const struct tpl_node *node) {
    struct tpl_value v;
    KILN_TRY(kiln_tpl_eval(r, node->a, &v));
    return kiln_tpl_true(&v) ? run_body(r, node->body, node->n_body)
                             : run_body(r, node->other, node->n_other);
}

static enum kiln_status mark(struct tpl_run *r, size_t begin, size_t end) {
    if (r->n_marked == r->room_marked) {
        const size_t room = r->room_marked ? r->room_marked * 2 : 8;
        struct kiln_span *wider = kiln_realloc(r->marked, r->n_marked, room, sizeof *wider);
        KILN_REQUIRE(wider, r->err, KILN_ENOMEM, "chat template %s: out of memory", r->tpl->name);
        r->marked = wider;
        r->room_marked = room;
    }
    r->marked[r->n_marked++] = (struct kiln_span){begin, end};
    return KILN_OK;
}

static enum kiln_status run_generation(struct tpl_run *r, const struct tpl_node *node) {
    if (r->inside > 0) {
        r->line = node->line;
        return kiln_tpl_fail(r, "generation in a macro or a block of set is not supported");
    }
    const size_t begin = r->out->n;
    KILN_TRY(run_body(r, node->body, node->n_body));
    return mark(r, begin, r->out->n);
}

static enum kiln_status run_macro(struct tpl_run *r, const struct tpl_node *node) {
    return assign(r, node->text, (struct tpl_value){.type = TPL_MACRO, .macro = {node, r->frame}});
}

static enum kiln_status run_output(struct tpl_run *r, const struct tpl_node *node) {
    struct tpl_value v;
    KILN_TRY(kiln_tpl_eval(r, node->a, &v));
    return kiln_tpl_show(r, &v, r->out);
}

static enum kiln_status run_node(struct tpl_run *r, const struct tpl_node *node) {
    switch (node->kind) {
        case TPL_N_TEXT:
            return kiln_tpl_write(r, r->out, node->text.p, node->text.n);
        case TPL_N_OUTPUT:
            return run_output(r, node);
        case TPL_N_IF:
            return run_if(r, node);
        case TPL_N_FOR:
            return run_for(r, node);
        case TPL_N_SET:
            return run_set(r, node);
        case TPL_N_SET_MEMBER:
            return run_set_member(r, node);
        case TPL_N_MACRO:
            return run_macro(r, node);
        case TPL_N_GENERATION:
            return run_generation(r, node);
        case TPL_N_BREAK:
        case TPL_N_CONTINUE:
            r->flow = node->kind == TPL_N_BREAK ? TPL_BREAKS : TPL_CONTINUES;
            return KILN_OK;
        default:
            return kiln_tpl_fail(r, "a value where a statement is expected");
    }
}

static enum kiln_status run_body(struct tpl_run *r, const struct tpl_node *const *body, size_t n) {
    for (size_t i = 0; i < n && r->flow == TPL_GOES_ON; i++) {
        r->line = body[i]->line;
        if (++r->steps > KILN_TEMPLATE_STEPS) {
            return kiln_tpl_fail(r, "takes more than %d steps", KILN_TEMPLATE_STEPS);
        }
        KILN_TRY(run_node(r, body[i]));
    }
    return KILN_OK;
}

/* ---- macros ------------------------------------------------------------------------------------
 */

/* Positional, then named, then defaults; what is left is undefined. */
static enum kiln_status bind(struct tpl_run *r, const struct tpl_node *node,
                             const struct tpl_arguments *a) {
    size_t named = 0;
    if (a->n > node->n) {
        return kiln_tpl_fail(r, "the macro %.*s takes %zu arguments, not %zu", (int)node->text.n,
                             node->text.p, node->n, a->n);
    }
    for (size_t i = 0; i < node->n; i++) {
        const struct tpl_value *given = kiln_tpl_get_text(&a->named, node->params[i]);
        struct tpl_value v = kiln_tpl_undefined(node->params[i]);
        named += given != NULL;
        if (i < a->n) {
            v = a->at[i];
        } else if (given != NULL) {
            v = *given;
        } else if (node->list[i] != NULL) {
            KILN_TRY(kiln_tpl_eval(r, node->list[i], &v));
        }
        KILN_TRY(assign(r, node->params[i], v));
    }
    return named == a->named.n ? KILN_OK
                               : kiln_tpl_fail(r, "the macro %.*s has no parameter of such a name",
                                               (int)node->text.n, node->text.p);
}

static enum kiln_status run_macro_body(struct tpl_run *r, const struct tpl_node *node,
                                       struct tpl_frame *frame, const struct tpl_arguments *a,
                                       struct tpl_buffer *text) {
    struct tpl_frame *before = r->frame;
    r->frame = frame;
    const enum kiln_status status = bind(r, node, a);
    r->frame = before;
    KILN_TRY(status);
    return run_inside(r, node, frame, text);
}

enum kiln_status kiln_tpl_call_macro(struct tpl_run *r, const struct tpl_value *macro,
                                     const struct tpl_arguments *a, struct tpl_value *out) {
    struct tpl_buffer text = {NULL, 0, 0};
    struct tpl_frame *frame;
    if (++r->depth > KILN_TEMPLATE_DEPTH) {
        return kiln_tpl_fail(r, "macros call each other more than %d deep", KILN_TEMPLATE_DEPTH);
    }
    KILN_TRY(new_frame(r, macro->macro.frame, &frame));
    KILN_TRY(run_macro_body(r, macro->macro.node, frame, a, &text));
    r->flow = TPL_GOES_ON;
    r->depth--;
    *out = kiln_tpl_text(text.n > 0 ? text.p : "", text.n);
    return KILN_OK;
}

/* ---- a render -----------------------------------------------------------------------------------
 */

static enum kiln_status start(struct tpl_run *r, const json_t *variables) {
    struct tpl_value all;
    r->heap.limit = KILN_TEMPLATE_BYTES;
    KILN_TRY(new_frame(r, NULL, &r->frame));
    KILN_TRY(kiln_tpl_from_json(r, variables, &all));
    r->frame->names = *all.dict;
    /* What the template sets lies in a frame of its own, in front of it. */
    KILN_TRY(new_frame(r, r->frame, &r->frame));
    return run_body(r, r->tpl->body, r->tpl->n_body);
}

enum kiln_status kiln_template_render(const struct kiln_template *tpl, const json_t *variables,
                                      int64_t now, struct kiln_rendered *out,
                                      struct kiln_err *err) {
    struct tpl_buffer text = {NULL, 0, 0};
    struct tpl_run r = {.tpl = tpl, .out = &text, .err = err, .now = now, .line = 1};
    *out = (struct kiln_rendered){.text = NULL};
    enum kiln_status status = start(&r, variables);
    if (status == KILN_OK) {
        out->text = kiln_strndup(text.n > 0 ? text.p : "", text.n);
        status = out->text
                     ? KILN_OK
                     : KILN_FAIL(err, KILN_ENOMEM, "chat template %s: out of memory", tpl->name);
    }
    kiln_tpl_release(&r.heap);
    out->size = text.n;
    out->marked = r.marked;
    out->n_marked = r.n_marked;
    if (status != KILN_OK) {
        kiln_rendered_free(out);
    }
    return status;
}

void kiln_rendered_free(struct kiln_rendered *rendered) {
    kiln_free(rendered->text);
    kiln_free(rendered->marked);
    *rendered = (struct kiln_rendered){.text = NULL};
}
