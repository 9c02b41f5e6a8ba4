/* SPDX-License-Identifier: MIT
 *
 * infer_product.c: shapes of conv, matmul and attention.
 */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "device/mil/check.h"

/* ---- conv ----------------------------------------------------------------------------------- */

/* n integers of at least `least`; those that are absent are `initial`. */
static enum kiln_status read_sizes(struct kiln_mil_call *c, const char *name, size_t n,
                                   int64_t least, size_t initial, size_t *out) {
    int64_t values[KILN_MIL_LIST];
    size_t found = n;
    for (size_t i = 0; i < n; i++) {
        values[i] = (int64_t)initial;
    }
    KILN_TRY(kiln_mil_integers(c, name, values, &found));
    for (size_t i = 0; i < n; i++) {
        if (found != n || values[i] < least || values[i] > INT32_MAX) {
            return KILN_MIL_CALL_FAIL(
                c, kiln_mil_place(c, name),
                "%s: expected %zu integers of %" PRId64 " or more, found %zu%s", name, n, least,
                found, found == n ? ", one of them another" : "");
        }
        out[i] = (size_t)values[i];
    }
    return KILN_OK;
}

/* Spans of kernel and padding, and what is left: one axis. */
static enum kiln_status conv_axis(struct kiln_mil_call *c, size_t i, const char *pad_type,
                                  size_t in, size_t kernel, size_t *out) {
    struct kiln_mil_node *node = c->node;
    size_t span, padded;
    if (kiln_mul_overflows(kernel - 1, node->dilation[i], &span) || span >= INT64_MAX / 4) {
        return KILN_MIL_CALL_FAIL(c, c->s->at, "expected a kernel that an axis holds, found %zu",
                                  kernel);
    }
    span++;
    if (strncmp(pad_type, "same", 4) == 0) {
        const size_t n = (in - 1) / node->stride[i] + 1;
        const size_t need = (n - 1) * node->stride[i] + span;
        const size_t total = need > in ? need - in : 0;
        const size_t less = total / 2, more = total - less;
        const bool lower = strcmp(pad_type, "same_lower") == 0;
        node->pad[2 * i] = lower ? more : less;
        node->pad[2 * i + 1] = lower ? less : more;
    }
    if (kiln_add_overflows(in, node->pad[2 * i] + node->pad[2 * i + 1], &padded) || padded < span) {
        return KILN_MIL_CALL_FAIL(c, c->s->at,
                                  "expected %s of %zu or more for the kernel, found %zu with its "
                                  "padding",
                                  i == 0 ? "a height" : "a width", span, padded);
    }
    *out = (padded - span) / node->stride[i] + 1;
    return KILN_OK;
}

static enum kiln_status conv_geometry(struct kiln_mil_call *c, const char **pad_type) {
    struct kiln_mil_node *node = c->node;
    static const char *const types[] = {"valid", "same", "same_lower", "custom"};
    bool known = false;
    *pad_type = "valid";
    KILN_TRY(kiln_mil_word(c, "pad_type", pad_type));
    for (size_t i = 0; i < 4; i++) {
        known |= strcmp(*pad_type, types[i]) == 0;
    }
    if (!known) {
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, "pad_type"),
                                  "pad_type: expected valid, same, same_lower or custom, found "
                                  "\"%.60s\"",
                                  *pad_type);
    }
    KILN_TRY(read_sizes(c, "strides", 2, 1, 1, node->stride));
    KILN_TRY(read_sizes(c, "dilations", 2, 1, 1, node->dilation));
    KILN_TRY(read_sizes(c, "pad", 4, 0, 0, node->pad));
    if (strcmp(*pad_type, "custom") != 0) {
        memset(node->pad, 0, sizeof node->pad);
    }
    return KILN_OK;
}

static enum kiln_status check_conv(struct kiln_mil_call *c, const struct kiln_mil_type *x,
                                   const struct kiln_mil_type *w,
                                   const struct kiln_mil_type *bias) {
    char a[160], b[160];
    int64_t groups = 1;
    if (x->rank != 4 || w->rank != 4 || x->scalar != w->scalar) {
        return KILN_MIL_CALL_FAIL(c, c->s->at,
                                  "expected x [N,C,H,W] and weight [O,C/groups,h,w] of one type, "
                                  "found %s and %s",
                                  kiln_mil_type_text(x, a), kiln_mil_type_text(w, b));
    }
    KILN_TRY(kiln_mil_integer(c, "groups", &groups));
    if (groups < 1 || x->dims[1] % (size_t)groups != 0 || w->dims[0] % (size_t)groups != 0) {
        return KILN_MIL_CALL_FAIL(
            c, kiln_mil_place(c, "groups"),
            "groups: expected a divisor of %zu channels in and %zu out, found "
            "%" PRId64,
            x->dims[1], w->dims[0], groups);
    }
    c->node->groups = (size_t)groups;
    if (w->dims[1] != x->dims[1] / (size_t)groups) {
        return KILN_MIL_CALL_FAIL(
            c, kiln_mil_place(c, "weight"),
            "weight: expected %zu input channels (%zu in %" PRId64 " groups), found %s",
            x->dims[1] / (size_t)groups, x->dims[1], groups, kiln_mil_type_text(w, b));
    }
    if (bias != NULL &&
        (bias->rank != 1 || bias->dims[0] != w->dims[0] || bias->scalar != x->scalar)) {
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, "bias"),
                                  "bias: expected %zu numbers of x's type, found %s", w->dims[0],
                                  kiln_mil_type_text(bias, b));
    }
    return KILN_OK;
}

enum kiln_status kiln_mil_infer_conv(struct kiln_mil_call *c) {
    const struct kiln_mil_type *x, *w, *bias;
    const char *pad_type;
    KILN_TRY(kiln_mil_check_names(c, "x weight bias? strides? pad_type? pad? dilations? groups?"));
    KILN_TRY(kiln_mil_tensor(c, "x", 0, &x));
    KILN_TRY(kiln_mil_tensor(c, "weight", 1, &w));
    KILN_TRY(kiln_mil_tensor(c, "bias", 2, &bias));
    KILN_TRY(check_conv(c, x, w, bias));
    KILN_TRY(conv_geometry(c, &pad_type));
    c->out[0] = (struct kiln_mil_type){.scalar = x->scalar, .rank = 4};
    c->out[0].dims[0] = x->dims[0];
    c->out[0].dims[1] = w->dims[0];
    for (size_t i = 0; i < 2; i++) {
        KILN_TRY(conv_axis(c, i, pad_type, x->dims[2 + i], w->dims[2 + i], &c->out[0].dims[2 + i]));
    }
    return KILN_OK;
}

/* ---- matmul --------------------------------------------------------------------------------- */

static bool is_literal(const struct kiln_mil_call *c, const char *name) {
    const struct kiln_mil_arg *arg = kiln_mil_arg(c, name);
    return arg != NULL && arg->literal != NULL;
}

/* [..., m, k] by [..., k, n], the batch axes broadcast. */
static enum kiln_status product(struct kiln_mil_call *c, const struct kiln_mil_type *x,
                                const struct kiln_mil_type *y, bool transpose_x, bool transpose_y) {
    struct kiln_mil_type *out = &c->out[0];
    char a[160], b[160];
    if (x->rank < 2 || y->rank < 2 || x->scalar != y->scalar) {
        return KILN_MIL_CALL_FAIL(c, c->s->at,
                                  "expected two tensors of rank 2 or more and one type, found %s "
                                  "and %s",
                                  kiln_mil_type_text(x, a), kiln_mil_type_text(y, b));
    }
    const size_t *mx = x->dims + x->rank - 2, *my = y->dims + y->rank - 2;
    const size_t m = mx[transpose_x], k = mx[!transpose_x];
    const size_t k_y = my[transpose_y], n = my[!transpose_y];
    size_t batch;
    if (k != k_y) {
        return KILN_MIL_CALL_FAIL(c, c->s->at,
                                  "expected equal inner axes, found %zu in %s%s and %zu in %s%s", k,
                                  kiln_mil_type_text(x, a), transpose_x ? " (transposed)" : "", k_y,
                                  kiln_mil_type_text(y, b), transpose_y ? " (transposed)" : "");
    }
    *out = (struct kiln_mil_type){.scalar = x->scalar};
    if (!kiln_mil_broadcast(x->dims, x->rank - 2, y->dims, y->rank - 2, out->dims, &batch)) {
        return KILN_MIL_CALL_FAIL(c, c->s->at,
                                  "expected batch axes that are equal or 1, found %s and %s",
                                  kiln_mil_type_text(x, a), kiln_mil_type_text(y, b));
    }
    out->dims[batch] = m;
    out->dims[batch + 1] = n;
    out->rank = batch + 2;
    return KILN_OK;
}

enum kiln_status kiln_mil_infer_matmul(struct kiln_mil_call *c) {
    const struct kiln_mil_type *x, *y;
    struct kiln_mil_node *node = c->node;
    KILN_TRY(kiln_mil_check_names(c, "x y transpose_x? transpose_y?"));
    KILN_TRY(kiln_mil_tensor(c, "x", 0, &x));
    KILN_TRY(kiln_mil_tensor(c, "y", 1, &y));
    KILN_TRY(kiln_mil_flag(c, "transpose_x", &node->transpose_x));
    KILN_TRY(kiln_mil_flag(c, "transpose_y", &node->transpose_y));
    node->flags_inline = is_literal(c, "transpose_x") || is_literal(c, "transpose_y");
    return product(c, x, y, node->transpose_x, node->transpose_y);
}

/* ---- attention ------------------------------------------------------------------------------ */

/* The mask stretches to the scores [..., L, S]: added, or bools that say what is seen. */
static enum kiln_status check_mask(struct kiln_mil_call *c, const struct kiln_mil_type *mask,
                                   const struct kiln_mil_type *scores) {
    struct kiln_mil_type all = *scores;
    char a[160], b[160];
    const bool kind = mask->scalar == KILN_MIL_BOOL || mask->scalar == scores->scalar;
    if (!kind ||
        !kiln_mil_broadcast(mask->dims, mask->rank, scores->dims, scores->rank, all.dims,
                            &all.rank) ||
        !kiln_mil_same_type(&all, scores)) {
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, "attn_mask"),
                                  "attn_mask: expected bools or numbers that stretch to the scores "
                                  "%s, found %s",
                                  kiln_mil_type_text(scores, a), kiln_mil_type_text(mask, b));
    }
    return KILN_OK;
}

enum kiln_status kiln_mil_infer_sdpa(struct kiln_mil_call *c) {
    const struct kiln_mil_type *q, *k, *v, *mask;
    KILN_TRY(kiln_mil_check_names(c, "query key value attn_mask?"));
    KILN_TRY(kiln_mil_tensor(c, "query", 0, &q));
    KILN_TRY(kiln_mil_tensor(c, "key", 1, &k));
    KILN_TRY(kiln_mil_tensor(c, "value", 2, &v));
    KILN_TRY(kiln_mil_tensor(c, "attn_mask", 3, &mask));
    KILN_TRY(product(c, q, k, false, true));
    const struct kiln_mil_type scores = c->out[0];
    if (mask != NULL) {
        KILN_TRY(check_mask(c, mask, &scores));
    }
    return product(c, &scores, v, false, false);
}
