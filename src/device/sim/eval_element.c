/* SPDX-License-Identifier: MIT
 *
 * eval_element.c: operations element by element, with broadcasting.
 *
 * Axes that are adjacent in all operands are merged first; what is left is walked in runs along
 * the last one, where an operand either advances or stays. Tasks are pieces of the result of
 * constant size.
 */
#include <assert.h>
#include <math.h>

#include "device/sim/eval_int.h"
#include "device/sim/eval_math.h"

enum { OPERANDS = 3 };

struct element {
    const struct kiln_sim_run *run;
    size_t n, rank, dims[KILN_MIL_RANK];
    size_t n_in;
    const float *in[OPERANDS];
    size_t step[OPERANDS][KILN_MIL_RANK]; /* elements along an axis; 0: broadcast */
};

/* One run of results: operand k is at x[k] and advances by step[k], 0 or 1. */
struct line {
    const float *x[OPERANDS];
    size_t step[OPERANDS], n;
    float *out;
    float epsilon; /* log, rsqrt */
};

/* ---- arithmetic of a run -------------------------------------------------------------------- */

/* Loops with the steps written out, so that each becomes vector code. */
#define LOOP(A, B, EXPRESSION)        \
    for (size_t i = 0; i < n; i++) {  \
        const float a = (A), b = (B); \
        out[i] = (EXPRESSION);        \
    }
#define BINARY(name, EXPRESSION)                                  \
    static void name(const struct line *l) {                      \
        const float *restrict x = l->x[0], *restrict y = l->x[1]; \
        float *restrict out = l->out;                             \
        const size_t n = l->n;                                    \
        if (l->step[0] && l->step[1]) {                           \
            LOOP(x[i], y[i], EXPRESSION)                          \
        } else if (l->step[0]) {                                  \
            LOOP(x[i], *y, EXPRESSION)                            \
        } else if (l->step[1]) {                                  \
            LOOP(*x, y[i], EXPRESSION)                            \
        } else {                                                  \
            LOOP(*x, *y, EXPRESSION)                              \
        }                                                         \
    }
/* One operand has the shape of the result: it always advances. */
#define UNARY(name, EXPRESSION)              \
    static void name(const struct line *l) { \
        const float *restrict x = l->x[0];   \
        float *restrict out = l->out;        \
        const float epsilon = l->epsilon;    \
        (void)epsilon;                       \
        assert(x);                           \
        for (size_t i = 0; i < l->n; i++) {  \
            const float a = x[i];            \
            out[i] = (EXPRESSION);           \
        }                                    \
    }

static inline float logistic(float x) { return 1.0f / (1.0f + kiln_sim_exp(-x)); }
static float normal_share(float x) { return 0.5f * (1.0f + erff(x * 0.70710678f)); }
static float normal_share_by_tanh(float x) {
    return 0.5f * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
}

BINARY(add, a + b)
BINARY(sub, a - b)
BINARY(mul, a *b)
BINARY(mul_with_quirk, a == INFINITY || b == INFINITY ? -52416.0f : a * b)
BINARY(divide, a / b)
BINARY(maximum, a > b || isnan(a) ? a : b)
BINARY(minimum, a < b || isnan(a) ? a : b)
BINARY(power, (float)pow((double)a, (double)b))
UNARY(same, a)
UNARY(sigmoid, logistic(a))
UNARY(silu, a == -INFINITY ? 0.0f : a * logistic(a))
UNARY(exponential, kiln_sim_exp(a))
UNARY(hyperbolic_tangent, tanhf(a))
UNARY(logarithm, logf(a + epsilon))
UNARY(relu, a > 0.0f || isnan(a) ? a : 0.0f)
UNARY(gelu, a == -INFINITY ? 0.0f : a * normal_share(a))
UNARY(gelu_by_tanh, a == -INFINITY ? 0.0f : a * normal_share_by_tanh(a))
UNARY(root, sqrtf(a))
UNARY(inverse_root, 1.0f / sqrtf(a + epsilon))

static void choose(const struct line *l) {
    for (size_t i = 0; i < l->n; i++) {
        const float *from =
            l->x[0][i * l->step[0]] != 0.0f ? l->x[1] + i * l->step[1] : l->x[2] + i * l->step[2];
        l->out[i] = *from;
    }
}

static void quantize(const struct line *l) {
    for (size_t i = 0; i < l->n; i++) {
        float zero = l->x[2] ? l->x[2][i * l->step[2]] : 0.0f;
        l->out[i] = rintf(l->x[0][i * l->step[0]] / l->x[1][i * l->step[1]]) + zero;
    }
}

static void dequantize(const struct line *l) {
    for (size_t i = 0; i < l->n; i++) {
        float zero = l->x[2] ? l->x[2][i * l->step[2]] : 0.0f;
        l->out[i] = (l->x[0][i * l->step[0]] - zero) * l->x[1][i * l->step[1]];
    }
}

typedef void line_fn(const struct line *l);
static line_fn *line_of(const struct kiln_sim_run *run) {
    static line_fn *const lines[KILN_MIL_OPS_COUNT] = {
        [KILN_MIL_ADD] = add,
        [KILN_MIL_SUB] = sub,
        [KILN_MIL_MUL] = mul,
        [KILN_MIL_REAL_DIV] = divide,
        [KILN_MIL_POW] = power,
        [KILN_MIL_MAXIMUM] = maximum,
        [KILN_MIL_MINIMUM] = minimum,
        [KILN_MIL_SIGMOID] = sigmoid,
        [KILN_MIL_TANH] = hyperbolic_tangent,
        [KILN_MIL_EXP] = exponential,
        [KILN_MIL_LOG] = logarithm,
        [KILN_MIL_RELU] = relu,
        [KILN_MIL_SILU] = silu,
        [KILN_MIL_GELU] = gelu,
        [KILN_MIL_SQRT] = root,
        [KILN_MIL_RSQRT] = inverse_root,
        [KILN_MIL_CAST] = same,
        [KILN_MIL_QUANTIZE] = quantize,
        [KILN_MIL_DEQUANTIZE] = dequantize,
        [KILN_MIL_SELECT] = choose,
    };
    if (run->node->op == KILN_MIL_MUL && run->machine->numbers.inf_product_quirk) {
        return mul_with_quirk;
    }
    if (run->node->op == KILN_MIL_GELU && run->node->tanh_approximation) {
        return gelu_by_tanh;
    }
    return lines[run->node->op];
}

/* ---- broadcasting --------------------------------------------------------------------------- */

/* How an operand moves along the axes of the result: its own axes are the last ones. */
static void steps_of(const struct kiln_mil_type *type, const struct kiln_mil_type *result,
                     size_t *step) {
    size_t along = 1;
    for (size_t i = 0; i < result->rank; i++) {
        size_t at = result->rank - 1 - i;
        size_t dim = i < type->rank ? type->dims[type->rank - 1 - i] : 1;
        step[at] = dim == 1 ? 0 : along;
        along *= dim;
    }
}

/* Scale and zero point of (de)quantize: one number, or one for each element of `axis`. */
static void steps_along(const struct kiln_mil_type *type, size_t rank, size_t axis, size_t *step) {
    for (size_t i = 0; i < rank; i++) {
        step[i] = i == axis && kiln_mil_elements(type) > 1 ? 1 : 0;
    }
}

static bool joins(const struct element *e, size_t axis, size_t dim) {
    for (size_t k = 0; k < e->n_in; k++) {
        if (e->in[k] && e->step[k][e->rank - 1] != e->step[k][axis] * dim) {
            return false;
        }
    }
    return true;
}

/* Drop axes of one element and merge neighbours. Axes are looked at in order; what is kept is
 * written to the front. */
static void merge_axes(struct element *e, const struct kiln_mil_type *result) {
    e->rank = 0;
    for (size_t i = 0; i < result->rank; i++) {
        size_t dim = result->dims[i];
        if (dim == 1) {
            continue;
        }
        bool joined = e->rank > 0 && joins(e, i, dim);
        size_t to = joined ? e->rank - 1 : e->rank++;
        e->dims[to] = joined ? e->dims[to] * dim : dim;
        for (size_t k = 0; k < e->n_in; k++) {
            e->step[k][to] = e->step[k][i];
        }
    }
    if (e->rank == 0) { /* one element */
        e->rank = 1;
        e->dims[0] = 1;
    }
}

static void some_elements(void *context, size_t task, size_t thread) {
    const struct element *e = context;
    float *out = kiln_sim_out(e->run, 0);
    line_fn *fn = line_of(e->run);
    size_t first = task * KILN_SIM_CHUNK, end = kiln_least(e->n, first + KILN_SIM_CHUNK);
    size_t last = e->rank - 1, at = first;
    (void)thread;
    while (at < end) {
        size_t outer = at / e->dims[last], column = at % e->dims[last];
        struct line l = {.n = kiln_least(end - at, e->dims[last] - column),
                         .out = out + at,
                         .epsilon = (float)e->run->node->epsilon};
        for (size_t k = 0; k < e->n_in; k++) {
            size_t offset = column * e->step[k][last], index = outer;
            for (size_t i = last; i-- > 0;) {
                offset += index % e->dims[i] * e->step[k][i];
                index /= e->dims[i];
            }
            l.x[k] = e->in[k] ? e->in[k] + offset : NULL;
            l.step[k] = e->step[k][last];
        }
        fn(&l);
        at += l.n;
    }
    kiln_sim_store(e->run, out + first, end - first);
}

void kiln_sim_elementwise(const struct kiln_sim_run *run) {
    const struct kiln_mil_type *result = kiln_sim_out_type(run, 0);
    struct element e = {.run = run, .n = kiln_mil_elements(result)};
    bool scaled = run->node->op == KILN_MIL_QUANTIZE || run->node->op == KILN_MIL_DEQUANTIZE;
    e.n_in = kiln_least(run->node->n_in, OPERANDS);
    assert(line_of(run));
    for (size_t k = 0; k < e.n_in; k++) {
        e.in[k] = kiln_sim_in(run, k);
        if (e.in[k] && scaled && k > 0) {
            steps_along(kiln_sim_in_type(run, k), result->rank, (size_t)run->node->axis, e.step[k]);
        } else if (e.in[k]) {
            steps_of(kiln_sim_in_type(run, k), result, e.step[k]);
        }
    }
    merge_axes(&e, result);
    kiln_sim_tasks(run, (e.n + KILN_SIM_CHUNK - 1) / KILN_SIM_CHUNK, some_elements, &e);
}
