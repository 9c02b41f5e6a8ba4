/* SPDX-License-Identifier: MIT
 *
 * infer.c: what an operation gives, from what it takes: elementwise operations, reductions, types.
 */
#include <string.h>

#include "device/mil/check.h"

static bool is_float(const struct kiln_mil_type *type) {
    return type->scalar == KILN_MIL_FP16 || type->scalar == KILN_MIL_FP32;
}

static enum kiln_status want_float(const struct kiln_mil_call *c, const char *name,
                                   const struct kiln_mil_type *type) {
    if (!is_float(type)) {
        char text[160];
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, name), "%s: expected fp16 or fp32, found %s",
                                  name, kiln_mil_type_text(type, text));
    }
    return KILN_OK;
}

/* ---- elementwise ---------------------------------------------------------------------------- */

/* Stretch c->out[0] to take in another operand. */
static enum kiln_status stretch(struct kiln_mil_call *c, const char *name,
                                const struct kiln_mil_type *operand) {
    struct kiln_mil_type *out = &c->out[0];
    size_t dims[KILN_MIL_RANK], rank;
    char a[160], b[160];
    if (operand->scalar != out->scalar) {
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, name),
                                  "expected operands of one type, found %s and %s (use cast)",
                                  kiln_mil_type_text(out, a), kiln_mil_type_text(operand, b));
    }
    if (!kiln_mil_broadcast(out->dims, out->rank, operand->dims, operand->rank, dims, &rank)) {
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, name),
                                  "expected shapes whose axes are equal or 1, counted from the "
                                  "last, found %s and %s",
                                  kiln_mil_type_text(out, a), kiln_mil_type_text(operand, b));
    }
    memcpy(out->dims, dims, sizeof dims);
    out->rank = rank;
    return KILN_OK;
}

static enum kiln_status infer_binary(struct kiln_mil_call *c) {
    const struct kiln_mil_type *x, *y;
    KILN_TRY(kiln_mil_check_names(c, "x y"));
    KILN_TRY(kiln_mil_tensor(c, "x", 0, &x));
    KILN_TRY(kiln_mil_tensor(c, "y", 1, &y));
    c->out[0] = *x;
    return stretch(c, "y", y);
}

static enum kiln_status infer_unary(struct kiln_mil_call *c, const char *names, double epsilon) {
    const struct kiln_mil_type *x;
    KILN_TRY(kiln_mil_check_names(c, names));
    KILN_TRY(kiln_mil_tensor(c, "x", 0, &x));
    c->node->epsilon = epsilon;
    if (strstr(names, "epsilon") != NULL) {
        KILN_TRY(kiln_mil_real(c, "epsilon", &c->node->epsilon));
    }
    c->out[0] = *x;
    return c->node->op == KILN_MIL_IDENTITY ? KILN_OK : want_float(c, "x", x);
}

static enum kiln_status infer_gelu(struct kiln_mil_call *c) {
    const char *mode = "EXACT";
    KILN_TRY(infer_unary(c, "x mode?", 0));
    KILN_TRY(kiln_mil_word(c, "mode", &mode));
    c->node->tanh_approximation = strcmp(mode, "TANH_APPROXIMATION") == 0;
    if (!c->node->tanh_approximation && strcmp(mode, "EXACT") != 0) {
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, "mode"),
                                  "mode: expected EXACT or TANH_APPROXIMATION, found \"%.60s\"",
                                  mode);
    }
    return KILN_OK;
}

static enum kiln_status infer_select(struct kiln_mil_call *c) {
    const struct kiln_mil_type *cond, *a, *b;
    KILN_TRY(kiln_mil_check_names(c, "cond a b"));
    KILN_TRY(kiln_mil_tensor(c, "cond", 0, &cond));
    KILN_TRY(kiln_mil_tensor(c, "a", 1, &a));
    KILN_TRY(kiln_mil_tensor(c, "b", 2, &b));
    struct kiln_mil_type shape = *cond;
    char text[160];
    if (cond->scalar != KILN_MIL_BOOL) {
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, "cond"),
                                  "cond: expected bools, found %s (use cast)",
                                  kiln_mil_type_text(cond, text));
    }
    c->out[0] = *a;
    KILN_TRY(stretch(c, "b", b));
    shape.scalar = a->scalar;
    return stretch(c, "cond", &shape);
}

/* ---- types ---------------------------------------------------------------------------------- */

/* A type by the name that a string constant gives. */
static enum kiln_status named_type(struct kiln_mil_call *c, const char *name, const char *word,
                                   enum kiln_mil_scalar *out) {
    for (enum kiln_mil_scalar s = 0; s < KILN_MIL_STRING; s++) {
        if (strcmp(word, kiln_mil_scalar_name(s)) == 0) {
            *out = s;
            return KILN_OK;
        }
    }
    return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, name),
                              "%s: expected fp16, fp32, int8, uint8, int16, uint16, int32, uint64 "
                              "or bool, found \"%.60s\"",
                              name, word);
}

static enum kiln_status infer_cast(struct kiln_mil_call *c) {
    const struct kiln_mil_type *x;
    const char *word = "";
    KILN_TRY(kiln_mil_check_names(c, "x dtype"));
    KILN_TRY(kiln_mil_tensor(c, "x", 0, &x));
    KILN_TRY(kiln_mil_word(c, "dtype", &word));
    c->out[0] = *x;
    return named_type(c, "dtype", word, &c->out[0].scalar);
}

static bool is_byte(enum kiln_mil_scalar scalar) {
    return scalar == KILN_MIL_INT8 || scalar == KILN_MIL_UINT8;
}

/* scale and zero_point: constants, a number each or one for each index of the axis. */
static enum kiln_status check_quantization(struct kiln_mil_call *c, const struct kiln_mil_type *x) {
    static const char *const names[] = {"scale", "zero_point"};
    size_t axis = 0;
    int64_t written = 0;
    if (kiln_mil_arg(c, "axis") != NULL) {
        KILN_TRY(kiln_mil_integer(c, "axis", &written));
        KILN_TRY(kiln_mil_axis(c, "axis", written, x->rank, &axis));
    }
    c->node->axis = (int64_t)axis;
    for (size_t i = 0; i < 2; i++) {
        const size_t index = c->node->in[i + 1];
        if (index == SIZE_MAX) {
            continue;
        }
        const struct kiln_mil_value *value = &c->b->graph->values[index];
        const bool along = value->type.rank == 1 && kiln_mil_arg(c, "axis") != NULL &&
                           value->type.dims[0] == x->dims[axis];
        char text[160];
        if (!value->constant || (value->type.rank != 0 && !along)) {
            return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, names[i]),
                                      "%s: expected a constant number, or a list of them along "
                                      "axis, found %s%s",
                                      names[i], value->constant ? "" : "a computed ",
                                      kiln_mil_type_text(&value->type, text));
        }
    }
    return KILN_OK;
}

static enum kiln_status infer_quantize(struct kiln_mil_call *c) {
    const bool down = c->node->op == KILN_MIL_QUANTIZE;
    const struct kiln_mil_type *x, *scale, *zero;
    const char *word = "int8";
    enum kiln_mil_scalar byte;
    char a[160], b[160];
    KILN_TRY(kiln_mil_check_names(
        c, down ? "input scale zero_point? axis? output_dtype?" : "input scale zero_point? axis?"));
    KILN_TRY(kiln_mil_tensor(c, "input", 0, &x));
    KILN_TRY(kiln_mil_tensor(c, "scale", 1, &scale));
    KILN_TRY(kiln_mil_tensor(c, "zero_point", 2, &zero));
    if (down) {
        KILN_TRY(kiln_mil_word(c, "output_dtype", &word));
        KILN_TRY(named_type(c, "output_dtype", word, &byte));
    } else {
        byte = x->scalar;
    }
    KILN_TRY(want_float(c, "scale", scale));
    if (!is_byte(byte) || (down && x->scalar != scale->scalar) ||
        (zero != NULL && zero->scalar != byte)) {
        return KILN_MIL_CALL_FAIL(c, c->s->at,
                                  "expected int8 or uint8 %s, a zero_point of that type and %s of "
                                  "scale's type, found input %s, scale %s",
                                  down ? "as output_dtype" : "as input", down ? "input" : "results",
                                  kiln_mil_type_text(x, a), kiln_mil_type_text(scale, b));
    }
    c->out[0] = *x;
    c->out[0].scalar = down ? byte : scale->scalar;
    return check_quantization(c, x);
}

/* ---- along axes ----------------------------------------------------------------------------- */

/* The axes argument as bits; all of them when it is absent. */
static enum kiln_status read_axes(struct kiln_mil_call *c, size_t rank, uint32_t *bits) {
    int64_t axes[KILN_MIL_LIST];
    size_t n = 0;
    *bits = (UINT32_C(1) << rank) - 1;
    if (kiln_mil_arg(c, "axes") == NULL) {
        return KILN_OK;
    }
    KILN_TRY(kiln_mil_integers(c, "axes", axes, &n));
    *bits = 0;
    for (size_t i = 0; i < n; i++) {
        size_t axis;
        KILN_TRY(kiln_mil_axis(c, "axes", axes[i], rank, &axis));
        if ((*bits & UINT32_C(1) << axis) != 0) {
            return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, "axes"),
                                      "axes: expected each axis once, found %zu again", axis);
        }
        *bits |= UINT32_C(1) << axis;
    }
    return KILN_OK;
}

static enum kiln_status infer_reduce(struct kiln_mil_call *c) {
    const struct kiln_mil_type *x;
    KILN_TRY(kiln_mil_check_names(c, "x axes? keep_dims?"));
    KILN_TRY(kiln_mil_tensor(c, "x", 0, &x));
    KILN_TRY(read_axes(c, x->rank, &c->node->axes));
    KILN_TRY(kiln_mil_flag(c, "keep_dims", &c->node->keep_dims));
    c->out[0] = (struct kiln_mil_type){.scalar = x->scalar};
    for (size_t i = 0; i < x->rank; i++) {
        const bool reduced = (c->node->axes & UINT32_C(1) << i) != 0;
        if (!reduced || c->node->keep_dims) {
            c->out[0].dims[c->out[0].rank++] = reduced ? 1 : x->dims[i];
        }
    }
    return KILN_OK;
}

static enum kiln_status infer_softmax(struct kiln_mil_call *c) {
    const struct kiln_mil_type *x;
    int64_t written = -1;
    size_t axis;
    KILN_TRY(kiln_mil_check_names(c, "x axis?"));
    KILN_TRY(kiln_mil_tensor(c, "x", 0, &x));
    KILN_TRY(kiln_mil_integer(c, "axis", &written));
    KILN_TRY(kiln_mil_axis(c, "axis", written, x->rank, &axis));
    c->node->axis = (int64_t)axis;
    c->out[0] = *x;
    return want_float(c, "x", x);
}

/* gamma and beta have the shape of the normalised axes. */
static enum kiln_status check_affine(struct kiln_mil_call *c, const char *name,
                                     const struct kiln_mil_type *type,
                                     const struct kiln_mil_type *x) {
    struct kiln_mil_type want = {.scalar = x->scalar};
    for (size_t i = 0; i < x->rank; i++) {
        if ((c->node->axes & UINT32_C(1) << i) != 0) {
            want.dims[want.rank++] = x->dims[i];
        }
    }
    if (type != NULL && !kiln_mil_same_type(type, &want)) {
        char a[160], b[160];
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, name),
                                  "%s: expected %s, as the axes have it, found %s", name,
                                  kiln_mil_type_text(&want, a), kiln_mil_type_text(type, b));
    }
    return KILN_OK;
}

static enum kiln_status infer_layer_norm(struct kiln_mil_call *c) {
    const struct kiln_mil_type *x, *gamma, *beta;
    KILN_TRY(kiln_mil_check_names(c, "x axes? gamma? beta? epsilon?"));
    KILN_TRY(kiln_mil_tensor(c, "x", 0, &x));
    KILN_TRY(kiln_mil_tensor(c, "gamma", 1, &gamma));
    KILN_TRY(kiln_mil_tensor(c, "beta", 2, &beta));
    KILN_TRY(read_axes(c, x->rank, &c->node->axes));
    c->node->epsilon = 1e-5;
    KILN_TRY(kiln_mil_real(c, "epsilon", &c->node->epsilon));
    KILN_TRY(check_affine(c, "gamma", gamma, x));
    KILN_TRY(check_affine(c, "beta", beta, x));
    c->out[0] = *x;
    return want_float(c, "x", x);
}

/* ---- all of them ---------------------------------------------------------------------------- */

enum kiln_status kiln_mil_infer(struct kiln_mil_call *c, enum kiln_mil_op op) {
    switch (op) {
        case KILN_MIL_CONV:
            return kiln_mil_infer_conv(c);
        case KILN_MIL_MATMUL:
            return kiln_mil_infer_matmul(c);
        case KILN_MIL_SDPA:
            return kiln_mil_infer_sdpa(c);
        case KILN_MIL_SOFTMAX:
            return infer_softmax(c);
        case KILN_MIL_LAYER_NORM:
            return infer_layer_norm(c);
        case KILN_MIL_REDUCE_SUM:
        case KILN_MIL_REDUCE_MEAN:
        case KILN_MIL_REDUCE_MAX:
            return infer_reduce(c);
        case KILN_MIL_LOG: /* defaults of epsilon are MIL's */
            return infer_unary(c, "x epsilon?", 1e-45);
        case KILN_MIL_RSQRT:
            return infer_unary(c, "x epsilon?", 1e-12);
        case KILN_MIL_GELU:
            return infer_gelu(c);
        case KILN_MIL_CAST:
            return infer_cast(c);
        case KILN_MIL_QUANTIZE:
        case KILN_MIL_DEQUANTIZE:
            return infer_quantize(c);
        case KILN_MIL_SELECT:
            return infer_select(c);
        case KILN_MIL_TRANSPOSE:
            return kiln_mil_infer_transpose(c);
        case KILN_MIL_RESHAPE:
            return kiln_mil_infer_reshape(c);
        case KILN_MIL_SLICE_BY_SIZE:
            return kiln_mil_infer_slice_by_size(c);
        case KILN_MIL_SLICE_BY_INDEX:
            return kiln_mil_infer_slice_by_index(c);
        case KILN_MIL_CONCAT:
            return kiln_mil_infer_concat(c);
        case KILN_MIL_SPLIT:
            return kiln_mil_infer_split(c);
        case KILN_MIL_ADD:
        case KILN_MIL_SUB:
        case KILN_MIL_MUL:
        case KILN_MIL_REAL_DIV:
        case KILN_MIL_POW:
        case KILN_MIL_MAXIMUM:
        case KILN_MIL_MINIMUM:
            return infer_binary(c);
        default:
            return infer_unary(c, "x", 0);
    }
}
