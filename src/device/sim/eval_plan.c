/* SPDX-License-Identifier: MIT
 *
 * eval_plan.c: where every value lies while a program runs.
 *
 * First views: a value that is one piece of another one's memory gets that one as its root. Then
 * nodes are walked in order; a root gets the first gap of the workspace that is large enough when
 * its node runs and leaves it behind the last node that reads it or a view of it. Scratch of a
 * node is a block that lives for this node.
 */
#include <string.h>

#include "base/mem.h"
#include "device/sim/eval_int.h"

/* A block of the workspace that is in use; sorted by offset. */
struct block {
    size_t offset, floats, last;
};

struct planner {
    const struct kiln_mil_graph *graph;
    const struct kiln_sim_numbers *numbers;
    struct kiln_sim_plan *plan;
    size_t *root, *within, *last; /* of the values: whose memory, where in it; last node to read */
    struct block *blocks;
    size_t n_blocks;
};

/* ---- views ---------------------------------------------------------------------------------- */

/* Is a box of `dims` in a tensor one piece? All axes before the first that is cut have one
 * element, or none is cut. */
static bool one_piece(const struct kiln_mil_type *whole, const size_t *dims) {
    bool cut = false;
    for (size_t i = whole->rank; i-- > 0;) {
        if (cut && dims[i] != 1) {
            return false;
        }
        cut |= dims[i] != whole->dims[i];
    }
    return true;
}

static size_t offset_of(const struct kiln_mil_type *type, const size_t *begin) {
    size_t at = 0;
    for (size_t i = 0; i < type->rank; i++) {
        at = at * type->dims[i] + begin[i];
    }
    return at;
}

/* Is the slice that node computes a view? The slice rule changes values, so it makes a copy. */
static bool slice_is_view(const struct planner *p, const struct kiln_mil_node *node) {
    const struct kiln_mil_type *in = &p->graph->values[node->in[0]].type;
    for (size_t i = 0; i < in->rank; i++) {
        if (node->step[i] != 1) {
            return false;
        }
    }
    bool ruled = p->numbers->slice_limit > 0.0f && in->rank > 0 && node->begin[in->rank - 1] > 0;
    return !ruled && one_piece(in, node->size);
}

static void view(struct planner *p, size_t value, size_t of, size_t offset) {
    p->root[value] = p->root[of];
    p->within[value] = p->within[of] + offset;
}

static void find_views(struct planner *p, const struct kiln_mil_node *node) {
    const struct kiln_mil_value *values = p->graph->values;
    if (node->op == KILN_MIL_RESHAPE || node->op == KILN_MIL_IDENTITY) {
        view(p, node->out[0], node->in[0], 0);
    } else if ((node->op == KILN_MIL_SLICE_BY_SIZE || node->op == KILN_MIL_SLICE_BY_INDEX) &&
               slice_is_view(p, node)) {
        view(p, node->out[0], node->in[0], offset_of(&values[node->in[0]].type, node->begin));
    } else if (node->op == KILN_MIL_SPLIT) {
        const struct kiln_mil_type *in = &values[node->in[0]].type;
        size_t begin[KILN_MIL_RANK] = {0};
        for (size_t i = 0; i < node->n_out; i++) {
            const struct kiln_mil_type *out = &values[node->out[i]].type;
            const bool ruled = p->numbers->slice_limit > 0.0f && begin[in->rank - 1] > 0;
            if (!ruled && one_piece(in, out->dims)) {
                view(p, node->out[i], node->in[0], offset_of(in, begin));
            }
            begin[node->axis] += out->dims[node->axis];
        }
    }
}

/* ---- life ----------------------------------------------------------------------------------- */

static void lives_until(struct planner *p, size_t value, size_t node) {
    size_t *last = &p->last[p->root[value]];
    *last = node > *last ? node : *last;
}

static void find_lives(struct planner *p) {
    const struct kiln_mil_graph *graph = p->graph;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const struct kiln_mil_node *node = &graph->nodes[i];
        for (size_t j = 0; j < node->n_in; j++) {
            if (node->in[j] != SIZE_MAX) {
                lives_until(p, node->in[j], i);
            }
        }
        for (size_t j = 0; j < node->n_out; j++) {
            lives_until(p, node->out[j], i);
        }
    }
    for (size_t i = 0; i < graph->n_outputs; i++) {
        lives_until(p, graph->outputs[i], graph->n_nodes);
    }
}

/* ---- memory --------------------------------------------------------------------------------- */

static void leave(struct planner *p, size_t node) {
    size_t kept = 0;
    for (size_t i = 0; i < p->n_blocks; i++) {
        if (p->blocks[i].last >= node) {
            p->blocks[kept++] = p->blocks[i];
        }
    }
    p->n_blocks = kept;
}

/* Take the first gap that is large enough, in steps of a cache line. */
static size_t take(struct planner *p, size_t floats, size_t last) {
    size_t at = 0, i = 0;
    floats = kiln_round_up(floats, 16);
    while (i < p->n_blocks && p->blocks[i].offset - at < floats) {
        at = p->blocks[i].offset + p->blocks[i].floats;
        i++;
    }
    memmove(p->blocks + i + 1, p->blocks + i, (p->n_blocks - i) * sizeof *p->blocks);
    p->blocks[i] = (struct block){at, floats, last};
    p->n_blocks++;
    if (at + floats > p->plan->floats) {
        p->plan->floats = at + floats;
    }
    return at;
}

static void place(struct planner *p, size_t value) {
    size_t root = p->root[value];
    struct kiln_sim_place *to = &p->plan->places[value];
    to->view = root != value;
    if (p->graph->values[root].constant) {
        to->constant = p->graph->values[root].data + p->within[value];
    } else if (root == value) {
        to->offset = take(p, kiln_mil_elements(&p->graph->values[value].type), p->last[value]);
    } else {
        to->offset = p->plan->places[root].offset + p->within[value];
    }
}

static void place_all(struct planner *p) {
    const struct kiln_mil_graph *graph = p->graph;
    for (size_t i = 0; i < graph->n_values; i++) {
        p->root[i] = i;
        if (graph->values[i].constant) {
            p->plan->places[i].constant = graph->values[i].data;
        }
    }
    for (size_t i = 0; i < graph->n_nodes; i++) {
        find_views(p, &graph->nodes[i]);
    }
    find_lives(p);
    for (size_t i = 0; i < graph->n_inputs; i++) {
        place(p, graph->inputs[i]);
    }
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const struct kiln_mil_node *node = &graph->nodes[i];
        leave(p, i);
        for (size_t j = 0; j < node->n_out; j++) {
            place(p, node->out[j]);
        }
        p->plan->scratch[i] = take(p, kiln_sim_product_scratch(graph, node), i);
        p->plan->flop += kiln_sim_product_flop(graph, node);
    }
}

enum kiln_status kiln_sim_plan_open(const struct kiln_mil_graph *graph,
                                    const struct kiln_sim_numbers *numbers,
                                    struct kiln_sim_plan *out, struct kiln_err *err) {
    struct planner p = {.graph = graph, .numbers = numbers, .plan = out};
    *out = (struct kiln_sim_plan){.graph = graph};
    out->places = kiln_alloc(graph->n_values, sizeof *out->places);
    out->scratch = kiln_alloc(graph->n_nodes, sizeof *out->scratch);
    p.root = kiln_alloc(graph->n_values, sizeof *p.root);
    p.within = kiln_alloc(graph->n_values, sizeof *p.within);
    p.last = kiln_alloc(graph->n_values, sizeof *p.last);
    p.blocks = kiln_alloc(graph->n_values + graph->n_nodes + 1, sizeof *p.blocks);
    bool ok = out->places && out->scratch && p.root && p.within && p.last && p.blocks;
    if (ok) {
        place_all(&p);
    } else {
        kiln_sim_plan_close(out);
    }
    kiln_free(p.root);
    kiln_free(p.within);
    kiln_free(p.last);
    kiln_free(p.blocks);
    KILN_REQUIRE(ok, err, KILN_ENOMEM, "no memory to plan a program of %zu values",
                 graph->n_values);
    return KILN_OK;
}

void kiln_sim_plan_close(struct kiln_sim_plan *plan) {
    kiln_free(plan->places);
    kiln_free(plan->scratch);
    *plan = (struct kiln_sim_plan){0};
}
