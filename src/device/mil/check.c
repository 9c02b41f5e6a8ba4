/* SPDX-License-Identifier: MIT
 *
 * check.c: statements become values and nodes: each name once and before it is used, each declared
 * type the one that the operation gives.
 */
#include "device/mil/check.h"

#include <string.h>

#include "base/mem.h"

enum kiln_status kiln_mil_no_memory(const struct kiln_mil_builder *b, struct kiln_mil_at at,
                                    struct kiln_err *err) {
    return KILN_FAIL(err, KILN_ENOMEM, "%s:%d:%d: not enough memory for the program from here on",
                     b->name, at.line, at.column);
}

/* ---- names ---------------------------------------------------------------------------------- */

static uint64_t hash(const char *name) {
    uint64_t h = UINT64_C(14695981039346656037);
    for (; *name != '\0'; name++) {
        h = (h ^ (unsigned char)*name) * UINT64_C(1099511628211);
    }
    return h ^ h >> 32;
}

/* The slot of a name: that of its value, or the empty one where it belongs. */
static size_t slot_of(const struct kiln_mil_builder *b, const char *name) {
    size_t slot = (size_t)hash(name) & (b->n_slots - 1);
    while (b->slots[slot] != SIZE_MAX && strcmp(b->graph->values[b->slots[slot]].name, name) != 0) {
        slot = (slot + 1) & (b->n_slots - 1);
    }
    return slot;
}

size_t kiln_mil_find(const struct kiln_mil_builder *b, const char *name) {
    return b->n_slots > 0 ? b->slots[slot_of(b, name)] : SIZE_MAX;
}

/* At least half of the slots stay empty. */
static bool make_slots(struct kiln_mil_builder *b) {
    if (b->graph->n_values * 2 < b->n_slots) {
        return true;
    }
    const size_t n = b->n_slots > 0 ? b->n_slots * 2 : 256;
    size_t *slots = kiln_alloc(n, sizeof *slots);
    if (slots == NULL) {
        return false;
    }
    memset(slots, 0xFF, n * sizeof *slots);
    kiln_free(b->slots);
    b->slots = slots;
    b->n_slots = n;
    for (size_t i = 0; i < b->graph->n_values; i++) {
        if (b->graph->values[i].name[0] != '\0') {
            slots[slot_of(b, b->graph->values[i].name)] = i;
        }
    }
    return true;
}

enum kiln_status kiln_mil_add_value(struct kiln_mil_builder *b, const char *name,
                                    struct kiln_mil_at at, const struct kiln_mil_type *type,
                                    size_t *index, struct kiln_err *err) {
    struct kiln_mil_graph *g = b->graph;
    const size_t before = name != NULL ? kiln_mil_find(b, name) : SIZE_MAX;
    if (before != SIZE_MAX) {
        return KILN_MIL_FAIL(err, b->name, at,
                             "expected a new name, found \"%.80s\", which is declared in line %d",
                             name, g->values[before].line);
    }
    void *values =
        kiln_mil_grow(b->memory, g->values, g->n_values, &b->room_values, sizeof *g->values);
    char *copy =
        kiln_mil_copy(b->memory, name != NULL ? name : "", name != NULL ? strlen(name) : 0);
    if (values == NULL || copy == NULL || !make_slots(b)) {
        return kiln_mil_no_memory(b, at, err);
    }
    g->values = values;
    g->values[g->n_values] = (struct kiln_mil_value){
        .name = copy, .type = *type, .line = at.line, .column = at.column, .node = SIZE_MAX};
    if (name != NULL) {
        b->slots[slot_of(b, copy)] = g->n_values;
    }
    *index = g->n_values++;
    return KILN_OK;
}

/* ---- parameters and results ----------------------------------------------------------------- */

static enum kiln_status append(struct kiln_mil_builder *b, size_t **list, size_t *n, size_t *room,
                               size_t value, struct kiln_mil_at at, struct kiln_err *err) {
    size_t *larger = kiln_mil_grow(b->memory, *list, *n, room, sizeof **list);
    if (larger == NULL) {
        return kiln_mil_no_memory(b, at, err);
    }
    *list = larger;
    larger[(*n)++] = value;
    return KILN_OK;
}

enum kiln_status kiln_mil_build_parameter(struct kiln_mil_builder *b,
                                          const struct kiln_mil_declared *parameter,
                                          struct kiln_err *err) {
    struct kiln_mil_graph *g = b->graph;
    size_t value;
    if (parameter->type.scalar == KILN_MIL_STRING) {
        return KILN_MIL_FAIL(err, b->name, parameter->at,
                             "expected a parameter of numbers, found a string");
    }
    KILN_TRY(kiln_mil_add_value(b, parameter->name, parameter->at, &parameter->type, &value, err));
    return append(b, &g->inputs, &g->n_inputs, &b->room_inputs, value, parameter->at, err);
}

enum kiln_status kiln_mil_build_output(struct kiln_mil_builder *b, const char *name,
                                       struct kiln_mil_at at, struct kiln_err *err) {
    struct kiln_mil_graph *g = b->graph;
    const size_t value = kiln_mil_find(b, name);
    if (value == SIZE_MAX || g->values[value].type.scalar == KILN_MIL_STRING) {
        return KILN_MIL_FAIL(err, b->name, at, "expected a value as result, found \"%.80s\", %s",
                             name, value == SIZE_MAX ? "which is not declared" : "a string");
    }
    return append(b, &g->outputs, &g->n_outputs, &b->room_outputs, value, at, err);
}

void kiln_mil_build_end(struct kiln_mil_builder *b) {
    kiln_free(b->slots);
    b->slots = NULL;
    b->n_slots = 0;
}

/* ---- statements ----------------------------------------------------------------------------- */

static enum kiln_status find_op(const struct kiln_mil_builder *b,
                                const struct kiln_mil_statement *s, enum kiln_mil_op *out,
                                struct kiln_err *err) {
    static const char known[] =
#define KILN_MIL_OP_LISTED(id, text) " " text
        KILN_MIL_OPS(KILN_MIL_OP_LISTED);
#undef KILN_MIL_OP_LISTED
    for (enum kiln_mil_op op = 0; op < KILN_MIL_OPS_COUNT; op++) {
        if (strcmp(s->op, kiln_mil_op_name(op)) == 0) {
            *out = op;
            return KILN_OK;
        }
    }
    return KILN_MIL_FAIL(err, b->name, s->at,
                         "expected an operation, found \"%.60s\"; these are known:%s", s->op,
                         known);
}

static enum kiln_status declared_otherwise(const struct kiln_mil_call *c, size_t i) {
    char declared[160], given[160];
    const struct kiln_mil_declared *out = &c->s->out[i];
    return KILN_MIL_FAIL(c->err, c->b->name, out->at, "%.80s is declared %s, but %s gives %s",
                         out->name, kiln_mil_type_text(&out->type, declared), c->s->op,
                         kiln_mil_type_text(&c->out[i], given));
}

static enum kiln_status check_results(const struct kiln_mil_call *c) {
    if (c->n_out != c->s->n_out) {
        return KILN_MIL_CALL_FAIL(c, c->s->at, "expected %zu declared results, found %zu", c->n_out,
                                  c->s->n_out);
    }
    for (size_t i = 0; i < c->n_out; i++) {
        size_t elements;
        if (!kiln_mil_count(&c->out[i], &elements)) {
            return KILN_MIL_CALL_FAIL(c, c->s->at, "expected a result that an address space holds");
        }
        if (!kiln_mil_same_type(&c->out[i], &c->s->out[i].type)) {
            return declared_otherwise(c, i);
        }
    }
    return KILN_OK;
}

/* Both kinds of constants: a value that is there before anything runs. */
static enum kiln_status build_constant(struct kiln_mil_call *c, enum kiln_mil_op op) {
    struct kiln_mil_value made = {.node = SIZE_MAX};
    size_t index;
    if (op == KILN_MIL_CONST) {
        KILN_TRY(kiln_mil_check_names(c, "val"));
        const struct kiln_mil_arg *val = kiln_mil_arg(c, "val");
        if (val->literal == NULL) {
            return KILN_MIL_CALL_FAIL(c, val->value_at, "val: expected a literal, as fp16(0.5)");
        }
        c->out[0] = val->literal->type;
        KILN_TRY(check_results(c));
        KILN_TRY(kiln_mil_fill(c->b, val->literal, &made, c->err));
    } else {
        KILN_TRY(kiln_mil_dequantize_constant(c, &made));
        KILN_TRY(check_results(c));
    }
    const struct kiln_mil_declared *out = &c->s->out[0];
    KILN_TRY(kiln_mil_add_value(c->b, out->name, out->at, &out->type, &index, c->err));
    struct kiln_mil_value *value = &c->b->graph->values[index];
    value->constant = true;
    value->data = made.data;
    value->integers = made.integers;
    value->string = made.string;
    value->file = made.file;
    value->offset = made.offset;
    return KILN_OK;
}

/* The name attribute, or the first result's. */
static const char *name_of(const struct kiln_mil_statement *s) {
    for (size_t i = 0; i < s->attrs.n; i++) {
        const struct kiln_mil_literal *literal = s->attrs.arg[i].literal;
        if (strcmp(s->attrs.arg[i].name, "name") == 0 && literal != NULL && literal->n == 1 &&
            literal->items[0].is == KILN_MIL_ITEM_STRING) {
            return literal->items[0].string;
        }
    }
    return s->out[0].name;
}

static enum kiln_status add_node(struct kiln_mil_call *c) {
    struct kiln_mil_builder *b = c->b;
    struct kiln_mil_graph *g = b->graph;
    const char *name = name_of(c->s);
    void *nodes = kiln_mil_grow(b->memory, g->nodes, g->n_nodes, &b->room_nodes, sizeof *g->nodes);
    c->node->name = kiln_mil_copy(b->memory, name, strlen(name));
    c->node->out = kiln_mil_take(b->memory, c->n_out, sizeof *c->node->out);
    if (nodes == NULL || c->node->name == NULL || c->node->out == NULL) {
        return kiln_mil_no_memory(b, c->s->at, c->err);
    }
    g->nodes = nodes;
    c->node->n_out = c->n_out;
    for (size_t i = 0; i < c->n_out; i++) {
        const struct kiln_mil_declared *out = &c->s->out[i];
        KILN_TRY(kiln_mil_add_value(b, out->name, out->at, &out->type, &c->node->out[i], c->err));
        g->values[c->node->out[i]].node = g->n_nodes;
    }
    g->nodes[g->n_nodes++] = *c->node;
    return KILN_OK;
}

enum kiln_status kiln_mil_build_statement(struct kiln_mil_builder *b,
                                          const struct kiln_mil_statement *s,
                                          struct kiln_err *err) {
    enum kiln_mil_op op = KILN_MIL_CONST;
    KILN_TRY(find_op(b, s, &op, err));
    struct kiln_mil_node node = {.op = op, .line = s->at.line, .column = s->at.column};
    struct kiln_mil_type one = {.rank = 0};
    struct kiln_mil_call c = {.b = b, .s = s, .node = &node, .n_out = 1, .out = &one, .err = err};
    if (s->n_out > 1 && op != KILN_MIL_SPLIT) {
        return KILN_MIL_CALL_FAIL(&c, s->out[1].at, "expected one result, found %zu", s->n_out);
    }
    if (op == KILN_MIL_CONST || op == KILN_MIL_CONSTEXPR_AFFINE_DEQUANTIZE) {
        return build_constant(&c, op);
    }
    KILN_TRY(kiln_mil_infer(&c, op));
    KILN_TRY(check_results(&c));
    return add_node(&c);
}
