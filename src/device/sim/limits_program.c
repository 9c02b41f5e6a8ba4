/* SPDX-License-Identifier: MIT
 *
 * limits_program.c: what the hardware's compiler refuses of a program, seen from its graph alone.
 * Each message names the limit, the line, the operation or value, what was found and what may be.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "device/sim/limits.h"

struct check {
    const struct kiln_mil_graph *graph;
    const char *name;
    const uint64_t *value; /* of the limits */
    enum kiln_sim_limit *limit;
    struct kiln_err *err;
};

static bool on(const struct check *c, enum kiln_sim_limit limit) { return c->value[limit] != 0; }

/* `what` is "conv", `called` its name. */
KILN_PRINTF(7, 8)
static enum kiln_status refuse(const struct check *c, enum kiln_sim_limit limit, int line,
                               int column, const char *what, const char *called, const char *fmt,
                               ...) {
    char text[320];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    *c->limit = limit;
    return KILN_FAIL(c->err, KILN_EINPUT, "%s:%d:%d: limit %s: %s %.80s: %s", c->name, line, column,
                     kiln_sim_limit_name(limit), what, called, text);
}
#define REFUSE_NODE(c, id, node, ...)                                                      \
    refuse((c), KILN_SIM_##id, (node)->line, (node)->column, kiln_mil_op_name((node)->op), \
           (node)->name, __VA_ARGS__)
#define REFUSE_VALUE(c, id, what, v, ...) \
    refuse((c), KILN_SIM_##id, (v)->line, (v)->column, (what), (v)->name, __VA_ARGS__)

/* ---- inputs and outputs --------------------------------------------------------------------- */

static enum kiln_status check_ports(const struct check *c, const size_t *values, size_t n,
                                    const char *what) {
    const uint64_t multiple = c->value[KILN_SIM_WIDTH_MULTIPLE];
    for (size_t i = 0; i < n; i++) {
        const struct kiln_mil_value *v = &c->graph->values[values[i]];
        const size_t width = v->type.rank > 0 ? v->type.dims[v->type.rank - 1] : 1;
        if (multiple > 0 && width % multiple != 0) {
            return REFUSE_VALUE(c, WIDTH_MULTIPLE, what, v,
                                "a last axis of %zu, but it must be a multiple of %" PRIu64, width,
                                multiple);
        }
        const struct kiln_mil_value *before = i > 0 ? &c->graph->values[values[i - 1]] : NULL;
        if (before != NULL && on(c, KILN_SIM_ALPHABETICAL) && strcmp(before->name, v->name) >= 0) {
            return REFUSE_VALUE(c, ALPHABETICAL, what, v,
                                "it stands behind %.80s, but surfaces are bound in the order of "
                                "the alphabet: name them so",
                                before->name);
        }
    }
    return KILN_OK;
}

static enum kiln_status check_outputs(const struct check *c) {
    for (size_t i = 0; i < c->graph->n_outputs; i++) {
        const struct kiln_mil_value *v = &c->graph->values[c->graph->outputs[i]];
        if (on(c, KILN_SIM_LIVE_OUTPUTS) && v->node == SIZE_MAX) {
            return REFUSE_VALUE(c, LIVE_OUTPUTS, "output", v,
                                "it is %s, but an output must be computed by an operation",
                                v->constant ? "a constant" : "an input");
        }
    }
    return KILN_OK;
}

static enum kiln_status check_function(const struct check *c) {
    const struct kiln_mil_graph *g = c->graph;
    const uint64_t most = c->value[KILN_SIM_SURFACES];
    if (on(c, KILN_SIM_SINGLE_INPUT) && g->n_inputs > 1) {
        return REFUSE_VALUE(c, SINGLE_INPUT, "input", &g->values[g->inputs[1]],
                            "%zu inputs, but a program may have one", g->n_inputs);
    }
    if (on(c, KILN_SIM_SURFACES) && g->n_inputs + g->n_outputs > most) {
        return refuse(c, KILN_SIM_SURFACES, 1, 1, "the program's", "surfaces",
                      "%zu inputs and outputs, but a program may have %" PRIu64,
                      g->n_inputs + g->n_outputs, most);
    }
    if (on(c, KILN_SIM_OLD_INSTRUCTIONS) && (g->version > 1.0 || strcmp(g->opset, "ios16") != 0)) {
        return refuse(c, KILN_SIM_OLD_INSTRUCTIONS, 1, 1, "the program's", "instruction set",
                      "program(%.9g) with %s, but it must be program(1.0) with ios16", g->version,
                      g->opset);
    }
    KILN_TRY(check_ports(c, g->inputs, g->n_inputs, "input"));
    KILN_TRY(check_ports(c, g->outputs, g->n_outputs, "output"));
    return check_outputs(c);
}

/* ---- values --------------------------------------------------------------------------------- */

static enum kiln_status check_shape(const struct check *c, const struct kiln_mil_value *v) {
    const uint64_t most = c->value[KILN_SIM_AXIS], rank = c->value[KILN_SIM_RANK];
    const char *what = v->node == SIZE_MAX ? (v->constant ? "const" : "input")
                                           : kiln_mil_op_name(c->graph->nodes[v->node].op);
    char text[160];
    if (on(c, KILN_SIM_RANK) && v->type.rank > rank) {
        return REFUSE_VALUE(c, RANK, what, v, "%s, but a tensor may have %" PRIu64 " axes",
                            kiln_mil_type_text(&v->type, text), rank);
    }
    for (size_t i = 0; i < v->type.rank; i++) {
        if (on(c, KILN_SIM_AXIS) && v->type.dims[i] > most) {
            return REFUSE_VALUE(c, AXIS, what, v,
                                "axis %zu of %s, but an axis may have %" PRIu64 " elements", i,
                                kiln_mil_type_text(&v->type, text), most);
        }
    }
    return KILN_OK;
}

/* The lowest offset that is read of the value's file, and another value of it at another one. */
static enum kiln_status check_file(const struct check *c, const struct kiln_mil_value *v) {
    const struct kiln_mil_graph *g = c->graph;
    const struct kiln_mil_value *other = NULL;
    uint64_t lowest = v->offset;
    for (size_t i = 0; i < g->n_values; i++) {
        const struct kiln_mil_value *w = &g->values[i];
        if (w->file != NULL && w->offset != v->offset && strcmp(w->file, v->file) == 0) {
            lowest = w->offset < lowest ? w->offset : lowest;
            other = w;
        }
    }
    if (on(c, KILN_SIM_BLOB_OFFSET) && lowest != c->value[KILN_SIM_BLOB_OFFSET]) {
        return REFUSE_VALUE(c, BLOB_OFFSET, "const", v,
                            "the first blob of %.80s is at offset %" PRIu64
                            ", but must be at "
                            "%" PRIu64,
                            v->file, lowest, c->value[KILN_SIM_BLOB_OFFSET]);
    }
    if (on(c, KILN_SIM_ONE_BLOB) && other != NULL) {
        return REFUSE_VALUE(c, ONE_BLOB, "const", v,
                            "%.80s is read at offset %" PRIu64 " and for %.60s at %" PRIu64
                            ", but a file may hold one blob",
                            v->file, v->offset, other->name, other->offset);
    }
    return KILN_OK;
}

/* ---- operations ----------------------------------------------------------------------------- */

static const struct kiln_mil_value *in(const struct check *c, const struct kiln_mil_node *n,
                                       size_t slot) {
    return slot < n->n_in && n->in[slot] != SIZE_MAX ? &c->graph->values[n->in[slot]] : NULL;
}

/* Is it computed by a reduce_*? */
static bool is_reduced(const struct check *c, const struct kiln_mil_value *v) {
    if (v == NULL || v->node == SIZE_MAX) {
        return false;
    }
    const enum kiln_mil_op op = c->graph->nodes[v->node].op;
    return op == KILN_MIL_REDUCE_SUM || op == KILN_MIL_REDUCE_MEAN || op == KILN_MIL_REDUCE_MAX;
}

static enum kiln_status check_conv(const struct check *c, const struct kiln_mil_node *n) {
    const struct kiln_mil_value *x = in(c, n, 0), *w = in(c, n, 1);
    const size_t channels = x->type.dims[1], width = w->type.dims[3], batch = x->type.dims[0];
    if (on(c, KILN_SIM_CONV_INPUT_CHANNELS) && channels > c->value[KILN_SIM_CONV_INPUT_CHANNELS]) {
        return REFUSE_NODE(c, CONV_INPUT_CHANNELS, n,
                           "%zu input channels, but a conv may have %" PRIu64
                           " (output channels may be more)",
                           channels, c->value[KILN_SIM_CONV_INPUT_CHANNELS]);
    }
    if (on(c, KILN_SIM_CONV_KERNEL_WIDTH) && width > c->value[KILN_SIM_CONV_KERNEL_WIDTH]) {
        return REFUSE_NODE(c, CONV_KERNEL_WIDTH, n,
                           "a kernel of width %zu, but it may have %" PRIu64, width,
                           c->value[KILN_SIM_CONV_KERNEL_WIDTH]);
    }
    if (on(c, KILN_SIM_CONV_BIAS) && in(c, n, 2) != NULL) {
        return REFUSE_NODE(c, CONV_BIAS, n, "a bias, but a conv takes none; use add behind it");
    }
    if (on(c, KILN_SIM_DYNAMIC_CONV_BATCH) && !w->constant &&
        batch > c->value[KILN_SIM_DYNAMIC_CONV_BATCH]) {
        return REFUSE_NODE(c, DYNAMIC_CONV_BATCH, n,
                           "a batch of %zu with computed weights, but it may be %" PRIu64, batch,
                           c->value[KILN_SIM_DYNAMIC_CONV_BATCH]);
    }
    if (on(c, KILN_SIM_DYNAMIC_CONV_GROUPS) && !w->constant &&
        n->groups > c->value[KILN_SIM_DYNAMIC_CONV_GROUPS]) {
        return REFUSE_NODE(c, DYNAMIC_CONV_GROUPS, n,
                           "%zu groups with computed weights, but it may be %" PRIu64, n->groups,
                           c->value[KILN_SIM_DYNAMIC_CONV_GROUPS]);
    }
    return KILN_OK;
}

static enum kiln_status check_matmul(const struct check *c, const struct kiln_mil_node *n) {
    const struct kiln_mil_type *x = &in(c, n, 0)->type;
    const size_t inner = x->dims[x->rank - (n->transpose_x ? 2 : 1)];
    const uint64_t multiple = c->value[KILN_SIM_MATMUL_INNER];
    if (on(c, KILN_SIM_MATMUL_FLAGS) && n->flags_inline) {
        return REFUSE_NODE(c, MATMUL_FLAGS, n,
                           "a transpose flag is a literal, but must be the name of a const");
    }
    if (multiple > 0 && inner % multiple != 0) {
        return REFUSE_NODE(c, MATMUL_INNER, n,
                           "an inner axis of %zu, but it must be a multiple of %" PRIu64, inner,
                           multiple);
    }
    return KILN_OK;
}

static enum kiln_status check_concat(const struct check *c, const struct kiln_mil_node *n) {
    const uint64_t most = c->value[KILN_SIM_CONCAT_INPUTS];
    if (on(c, KILN_SIM_NO_CONCAT)) {
        return REFUSE_NODE(c, NO_CONCAT, n, "there must be none");
    }
    if (most > 0 && n->n_in > most) {
        return REFUSE_NODE(c, CONCAT_INPUTS, n, "%zu values, but it may take %" PRIu64, n->n_in,
                           most);
    }
    return KILN_OK;
}

static enum kiln_status check_softmax(const struct check *c, const struct kiln_mil_node *n) {
    const size_t length = in(c, n, 0)->type.dims[n->axis];
    if (on(c, KILN_SIM_SOFTMAX_POWER_OF_TWO) && (length & (length - 1)) != 0) {
        return REFUSE_NODE(c, SOFTMAX_POWER_OF_TWO, n,
                           "an axis of %zu elements, but they must be a power of two", length);
    }
    return KILN_OK;
}

static bool is_zero(const struct kiln_mil_value *v) {
    if (v == NULL || !v->constant || v->data == NULL) {
        return false;
    }
    const size_t n = kiln_mil_elements(&v->type);
    for (size_t i = 0; i < n; i++) {
        if (v->data[i] != 0.0F) {
            return false;
        }
    }
    return true;
}

static enum kiln_status check_mul(const struct check *c, const struct kiln_mil_node *n) {
    for (size_t i = 0; on(c, KILN_SIM_REDUCE_TIMES_ZERO) && i < 2; i++) {
        if (is_reduced(c, in(c, n, i)) && is_zero(in(c, n, 1 - i))) {
            return REFUSE_NODE(c, REDUCE_TIMES_ZERO, n,
                               "the result of a reduction is multiplied by 0 (%.60s)",
                               in(c, n, 1 - i)->name);
        }
    }
    return KILN_OK;
}

/* Whatever the operation: an fp32 parameter is read by casts only. */
static enum kiln_status check_operands(const struct check *c, const struct kiln_mil_node *n) {
    for (size_t i = 0; i < n->n_in; i++) {
        const struct kiln_mil_value *v = in(c, n, i);
        if (v == NULL || v->constant || v->node != SIZE_MAX) {
            continue;
        }
        if (on(c, KILN_SIM_FP32_WITHOUT_CAST) && v->type.scalar == KILN_MIL_FP32 &&
            n->op != KILN_MIL_CAST) {
            return REFUSE_NODE(c, FP32_WITHOUT_CAST, n,
                               "it reads the fp32 input %.80s, which must be cast to fp16 first",
                               v->name);
        }
        if (on(c, KILN_SIM_SLICED_INPUT) && n->op == KILN_MIL_SLICE_BY_INDEX) {
            return REFUSE_NODE(c, SLICED_INPUT, n,
                               "it reads the input %.80s; use slice_by_size for inputs", v->name);
        }
    }
    return KILN_OK;
}

static enum kiln_status check_node(const struct check *c, const struct kiln_mil_node *n) {
    KILN_TRY(check_operands(c, n));
    switch (n->op) {
        case KILN_MIL_CONV:
            return check_conv(c, n);
        case KILN_MIL_MATMUL:
            return check_matmul(c, n);
        case KILN_MIL_CONCAT:
            return check_concat(c, n);
        case KILN_MIL_SOFTMAX:
            return check_softmax(c, n);
        case KILN_MIL_MUL:
            return check_mul(c, n);
        case KILN_MIL_SDPA:
            return on(c, KILN_SIM_ATTENTION_MASK) && in(c, n, 3) != NULL
                       ? REFUSE_NODE(c, ATTENTION_MASK, n,
                                     "a mask, which the hardware ignores; use matmul, add, softmax")
                       : KILN_OK;
        case KILN_MIL_SQRT:
        case KILN_MIL_RSQRT:
            return on(c, KILN_SIM_ROOT_AFTER_REDUCE) && is_reduced(c, in(c, n, 0))
                       ? REFUSE_NODE(c, ROOT_AFTER_REDUCE, n,
                                     "it follows a reduction, which does not compile; use pow")
                       : KILN_OK;
        case KILN_MIL_GELU:
        case KILN_MIL_LAYER_NORM:
        case KILN_MIL_LOG:
        case KILN_MIL_SELECT:
        case KILN_MIL_SPLIT:
            return on(c, KILN_SIM_UNSUPPORTED)
                       ? REFUSE_NODE(c, UNSUPPORTED, n,
                                     "the backend has no such operation; write it with others")
                       : KILN_OK;
        default:
            return KILN_OK;
    }
}

enum kiln_status kiln_sim_check(const struct kiln_mil_graph *graph, const char *name,
                                const struct kiln_sim_limits *limits, enum kiln_sim_limit *limit,
                                struct kiln_err *err) {
    enum kiln_sim_limit none;
    const struct check c = {graph, name, limits->value, limit != NULL ? limit : &none, err};
    *c.limit = KILN_SIM_LIMIT_COUNT;
    KILN_TRY(check_function(&c));
    for (size_t i = 0; i < graph->n_values; i++) {
        KILN_TRY(check_shape(&c, &graph->values[i]));
        if (graph->values[i].file != NULL) {
            KILN_TRY(check_file(&c, &graph->values[i]));
        }
    }
    for (size_t i = 0; i < graph->n_nodes; i++) {
        KILN_TRY(check_node(&c, &graph->nodes[i]));
    }
    return KILN_OK;
}
