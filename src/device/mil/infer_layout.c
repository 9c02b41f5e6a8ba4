/* SPDX-License-Identifier: MIT
 *
 * infer_layout.c: shapes of what moves elements and computes nothing: transpose, reshape, slices,
 * concat, split.
 */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "device/mil/check.h"

/* A list with one integer for each axis of x. */
static enum kiln_status one_an_axis(struct kiln_mil_call *c, const char *name, size_t rank,
                                    int64_t values[KILN_MIL_LIST]) {
    size_t n = rank;
    KILN_TRY(kiln_mil_integers(c, name, values, &n));
    if (n != rank) {
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, name),
                                  "%s: expected %zu integers, one for each axis of x, found %zu",
                                  name, rank, n);
    }
    return KILN_OK;
}

enum kiln_status kiln_mil_infer_transpose(struct kiln_mil_call *c) {
    const struct kiln_mil_type *x;
    int64_t perm[KILN_MIL_LIST] = {0};
    uint32_t seen = 0;
    KILN_TRY(kiln_mil_check_names(c, "x perm"));
    KILN_TRY(kiln_mil_tensor(c, "x", 0, &x));
    KILN_TRY(one_an_axis(c, "perm", x->rank, perm));
    c->out[0] = *x;
    for (size_t i = 0; i < x->rank; i++) {
        size_t axis;
        KILN_TRY(kiln_mil_axis(c, "perm", perm[i], x->rank, &axis));
        if ((seen & UINT32_C(1) << axis) != 0) {
            return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, "perm"),
                                      "perm: expected each axis once, found %zu again", axis);
        }
        seen |= UINT32_C(1) << axis;
        c->node->perm[i] = axis;
        c->out[0].dims[i] = x->dims[axis];
    }
    return KILN_OK;
}

/* The axis that is written -1 takes what the others leave. */
static enum kiln_status resolve_shape(struct kiln_mil_call *c, const int64_t *shape, size_t rank,
                                      size_t elements, struct kiln_mil_type *out) {
    size_t open = SIZE_MAX, known = 1;
    char text[160];
    for (size_t i = 0; i < rank; i++) {
        const bool is_open = shape[i] == -1;
        if ((is_open && open != SIZE_MAX) || (!is_open && shape[i] < 1) ||
            (!is_open && kiln_mul_overflows(known, shape[i], &known))) {
            return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, "shape"),
                                      "shape: expected dimensions of 1 or more and at most one -1, "
                                      "found %" PRId64 " as number %zu",
                                      shape[i], i + 1);
        }
        open = is_open ? i : open;
        out->dims[i] = is_open ? 1 : (size_t)shape[i];
    }
    out->rank = rank;
    if (open != SIZE_MAX && elements % known == 0) {
        out->dims[open] = elements / known;
        known = elements;
    }
    if (known != elements) {
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, "shape"),
                                  "shape: expected one for the %zu elements of x, found %s",
                                  elements, kiln_mil_type_text(out, text));
    }
    return KILN_OK;
}

enum kiln_status kiln_mil_infer_reshape(struct kiln_mil_call *c) {
    const struct kiln_mil_type *x;
    int64_t shape[KILN_MIL_LIST];
    size_t n = 0;
    KILN_TRY(kiln_mil_check_names(c, "x shape"));
    KILN_TRY(kiln_mil_tensor(c, "x", 0, &x));
    KILN_TRY(kiln_mil_integers(c, "shape", shape, &n));
    if (n > KILN_MIL_RANK) {
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, "shape"),
                                  "shape: expected at most %d dimensions, found %zu", KILN_MIL_RANK,
                                  n);
    }
    c->out[0].scalar = x->scalar;
    return resolve_shape(c, shape, n, kiln_mil_elements(x), &c->out[0]);
}

/* ---- slices --------------------------------------------------------------------------------- */

enum kiln_status kiln_mil_infer_slice_by_size(struct kiln_mil_call *c) {
    const struct kiln_mil_type *x;
    int64_t begin[KILN_MIL_LIST], size[KILN_MIL_LIST];
    KILN_TRY(kiln_mil_check_names(c, "x begin size"));
    KILN_TRY(kiln_mil_tensor(c, "x", 0, &x));
    KILN_TRY(one_an_axis(c, "begin", x->rank, begin));
    KILN_TRY(one_an_axis(c, "size", x->rank, size));
    c->out[0] = *x;
    for (size_t i = 0; i < x->rank; i++) {
        const int64_t dim = (int64_t)x->dims[i];
        if (begin[i] < 0 || begin[i] >= dim) {
            return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, "begin"),
                                      "begin: expected 0 to %" PRId64
                                      " on axis %zu, found %" PRId64,
                                      dim - 1, i, begin[i]);
        }
        const int64_t taken = size[i] == -1 ? dim - begin[i] : size[i];
        if (taken < 1 || taken > dim - begin[i]) {
            return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, "size"),
                                      "size: expected 1 to %" PRId64
                                      " on axis %zu (-1: all), found %" PRId64,
                                      dim - begin[i], i, size[i]);
        }
        c->node->begin[i] = (size_t)begin[i];
        c->node->size[i] = c->out[0].dims[i] = (size_t)taken;
        c->node->step[i] = 1;
    }
    return KILN_OK;
}

/* One bool for each axis, as bits; none when it is absent. */
static enum kiln_status read_mask(struct kiln_mil_call *c, const char *name, size_t rank,
                                  uint32_t *bits) {
    const struct kiln_mil_value *value;
    *bits = 0;
    KILN_TRY(kiln_mil_constant(c, name, &value));
    if (value == NULL) {
        return KILN_OK;
    }
    if (value->type.scalar != KILN_MIL_BOOL || value->type.rank != 1 ||
        value->type.dims[0] != rank) {
        char text[160];
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, name),
                                  "%s: expected %zu bools, one for each axis of x, found %s", name,
                                  rank, kiln_mil_type_text(&value->type, text));
    }
    for (size_t i = 0; i < rank; i++) {
        *bits |= value->integers[i] != 0 ? UINT32_C(1) << i : 0;
    }
    return KILN_OK;
}

struct window {
    int64_t begin, end, step;
    bool from_start, to_end, one; /* masks: begin or end are ignored; a single index */
};

static int64_t clamp(int64_t value, int64_t least, int64_t most) {
    return value < least ? least : value > most ? most : value;
}

/* As NumPy: negatives count from the end, what lies outside is cut. */
static enum kiln_status resolve_window(struct kiln_mil_call *c, size_t axis, size_t dim_size,
                                       const struct window *w) {
    const int64_t dim = (int64_t)dim_size, step = w->one ? 1 : w->step;
    if (step == 0 || step < -INT32_MAX || step > INT32_MAX) {
        return KILN_MIL_CALL_FAIL(
            c, kiln_mil_place(c, "stride"),
            "stride: expected a step that is not 0, found %" PRId64 " on axis %zu", step, axis);
    }
    const bool down = step < 0;
    const int64_t low = down ? -1 : 0, high = down ? dim - 1 : dim;
    int64_t begin = clamp(w->begin < 0 && w->begin >= -dim ? w->begin + dim : w->begin, low, high);
    int64_t end = clamp(w->end < 0 && w->end >= -dim ? w->end + dim : w->end, low, high);
    begin = w->from_start ? (down ? dim - 1 : 0) : begin;
    end = w->to_end ? (down ? -1 : dim) : end;
    end = w->one ? begin + 1 : end;
    const int64_t distance = down ? begin - end : end - begin;
    if (distance < 1 || begin < 0 || begin >= dim) {
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, "begin"),
                                  "expected begin, end and stride that take something of the %zu "
                                  "elements of axis %zu, found %" PRId64 ", %" PRId64 ", %" PRId64,
                                  dim_size, axis, w->begin, w->end, step);
    }
    const int64_t length = down ? -step : step;
    c->node->begin[axis] = (size_t)begin;
    c->node->size[axis] = (size_t)((distance - 1) / length + 1);
    c->node->step[axis] = step;
    return KILN_OK;
}

enum kiln_status kiln_mil_infer_slice_by_index(struct kiln_mil_call *c) {
    const struct kiln_mil_type *x;
    int64_t begin[KILN_MIL_LIST], end[KILN_MIL_LIST], step[KILN_MIL_LIST];
    uint32_t from_start, to_end, squeezed;
    KILN_TRY(kiln_mil_check_names(c, "x begin end stride? begin_mask? end_mask? squeeze_mask?"));
    KILN_TRY(kiln_mil_tensor(c, "x", 0, &x));
    for (size_t i = 0; i < x->rank; i++) {
        step[i] = 1;
    }
    KILN_TRY(one_an_axis(c, "begin", x->rank, begin));
    KILN_TRY(one_an_axis(c, "end", x->rank, end));
    KILN_TRY(one_an_axis(c, "stride", x->rank, step));
    KILN_TRY(read_mask(c, "begin_mask", x->rank, &from_start));
    KILN_TRY(read_mask(c, "end_mask", x->rank, &to_end));
    KILN_TRY(read_mask(c, "squeeze_mask", x->rank, &squeezed));
    c->out[0].scalar = x->scalar;
    for (size_t i = 0; i < x->rank; i++) {
        const uint32_t bit = UINT32_C(1) << i;
        const struct window w = {.begin = begin[i],
                                 .end = end[i],
                                 .step = step[i],
                                 .from_start = (from_start & bit) != 0,
                                 .to_end = (to_end & bit) != 0,
                                 .one = (squeezed & bit) != 0};
        KILN_TRY(resolve_window(c, i, x->dims[i], &w));
        if (!w.one) {
            c->out[0].dims[c->out[0].rank++] = c->node->size[i];
        }
    }
    return KILN_OK;
}

/* ---- concat and split ----------------------------------------------------------------------- */

/* Equal but for the axis, whose elements add. */
static enum kiln_status join(struct kiln_mil_call *c, const struct kiln_mil_type *part, size_t axis,
                             struct kiln_mil_at at) {
    struct kiln_mil_type *out = &c->out[0], same = *part;
    char a[160], b[160];
    size_t sum;
    if (part->rank == out->rank) {
        same.dims[axis] = out->dims[axis];
    }
    if (!kiln_mil_same_type(&same, out) ||
        kiln_add_overflows(out->dims[axis], part->dims[axis], &sum)) {
        return KILN_MIL_CALL_FAIL(c, at,
                                  "values: expected tensors that differ on axis %zu only, found %s "
                                  "behind %s",
                                  axis, kiln_mil_type_text(part, a), kiln_mil_type_text(out, b));
    }
    out->dims[axis] = sum;
    return KILN_OK;
}

enum kiln_status kiln_mil_infer_concat(struct kiln_mil_call *c) {
    struct kiln_mil_node *node = c->node;
    int64_t written = 0;
    size_t axis = 0, first = 0;
    KILN_TRY(kiln_mil_check_names(c, "values axis interleave?"));
    const struct kiln_mil_arg *values = kiln_mil_arg(c, "values");
    const size_t n = values->list != NULL ? values->n : 1; /* (a) may be written a */
    node->in = kiln_mil_take(c->b->memory, n, sizeof *node->in);
    if (node->in == NULL) {
        return kiln_mil_no_memory(c->b, c->s->at, c->err);
    }
    node->n_in = n;
    KILN_TRY(kiln_mil_integer(c, "axis", &written));
    KILN_TRY(kiln_mil_flag(c, "interleave", &node->interleave));
    for (size_t i = 0; i < n; i++) {
        const struct kiln_mil_arg *value = values->list != NULL ? &values->list[i] : values;
        KILN_TRY(kiln_mil_resolve(c, value, &node->in[i]));
        const struct kiln_mil_type *type = &c->b->graph->values[node->in[i]].type;
        if (i > 0) {
            KILN_TRY(join(c, type, axis, value->value_at));
        } else {
            c->out[0] = *type;
            KILN_TRY(kiln_mil_axis(c, "axis", written, type->rank, &axis));
        }
        first = i == 0 ? type->dims[axis] : first;
        if (node->interleave && type->dims[axis] != first) {
            return KILN_MIL_CALL_FAIL(c, value->value_at,
                                      "values: expected equal shapes to interleave, found another");
        }
    }
    node->axis = (int64_t)axis;
    return KILN_OK;
}

/* The sizes of the parts: given, or equal ones. */
static enum kiln_status split_sizes(struct kiln_mil_call *c, size_t dim, size_t axis) {
    const struct kiln_mil_value *sizes;
    int64_t number = (int64_t)c->s->n_out;
    KILN_TRY(kiln_mil_constant(c, "split_sizes", &sizes));
    KILN_TRY(kiln_mil_integer(c, "num_splits", &number));
    const bool list = sizes != NULL && sizes->integers != NULL && sizes->type.rank == 1;
    const size_t n = list ? sizes->type.dims[0] : number > 0 ? (size_t)number : 0;
    if ((sizes != NULL && !list) || n != c->s->n_out) {
        return KILN_MIL_CALL_FAIL(c, c->s->at,
                                  "expected a list split_sizes, or num_splits, of as many parts as "
                                  "results (%zu), found %zu",
                                  c->s->n_out, n);
    }
    size_t left = dim;
    for (size_t i = 0; i < n; i++) {
        const int64_t size = list ? sizes->integers[i] : (int64_t)(dim / n);
        if (size < 1 || (uint64_t)size > left || (!list && dim % n != 0)) {
            return KILN_MIL_CALL_FAIL(c, c->s->at,
                                      "expected parts of 1 or more that make the %zu elements of "
                                      "axis %zu, found %" PRId64 " with %zu left",
                                      dim, axis, size, left);
        }
        c->out[i].dims[axis] = (size_t)size;
        left -= (size_t)size;
    }
    if (left > 0) {
        return KILN_MIL_CALL_FAIL(c, c->s->at,
                                  "expected parts that make the %zu elements of axis %zu, found "
                                  "that %zu are left",
                                  dim, axis, left);
    }
    return KILN_OK;
}

enum kiln_status kiln_mil_infer_split(struct kiln_mil_call *c) {
    const struct kiln_mil_type *x;
    int64_t written = 0;
    size_t axis;
    KILN_TRY(kiln_mil_check_names(c, "x axis num_splits? split_sizes?"));
    KILN_TRY(kiln_mil_tensor(c, "x", 0, &x));
    KILN_TRY(kiln_mil_integer(c, "axis", &written));
    KILN_TRY(kiln_mil_axis(c, "axis", written, x->rank, &axis));
    c->node->axis = (int64_t)axis;
    c->n_out = c->s->n_out;
    c->out = kiln_mil_take(c->b->memory, c->n_out, sizeof *c->out);
    if (c->out == NULL) {
        return kiln_mil_no_memory(c->b, c->s->at, c->err);
    }
    for (size_t i = 0; i < c->n_out; i++) {
        c->out[i] = *x;
    }
    return split_sizes(c, x->dims[axis], axis);
}
