/* SPDX-License-Identifier: MIT
 *
 * eval_layout.c: operations that move values: transpose, slices, concat, split, copies.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "device/sim/eval_int.h"

enum { BLOCK = 16 }; /* a block of a transpose is BLOCK x BLOCK elements: lines of both fit in L1 */

/* ---- transpose ------------------------------------------------------------------------------ */

/* The result's axes, with the steps of the input along them. `rest` are all but `row` and
 * `column`: column is the result's last axis, row the one along which the input is contiguous. */
struct turn {
    const float *x;
    float *out;
    struct kiln_sim_walk in, to; /* of the rest: where it starts in input and result */
    size_t rows, columns;        /* row == column: one row */
    size_t in_column, out_row;   /* steps: the input's along columns, the result's along rows */
    size_t stripes;              /* of BLOCK rows each */
};

static void turn_some(void *context, size_t task, size_t thread) {
    const struct turn *t = context;
    size_t first = task % t->stripes * BLOCK, rest = task / t->stripes;
    const float *x = t->x + kiln_sim_walk_at(&t->in, rest) + first;
    float *out = t->out + kiln_sim_walk_at(&t->to, rest) + first * t->out_row;
    size_t rows = kiln_least(t->rows - first, BLOCK);
    (void)thread;
    if (t->in_column == 1 && t->rows == 1) {
        memcpy(out, x, t->columns * sizeof *out);
        return;
    }
    for (size_t c0 = 0; c0 < t->columns; c0 += BLOCK) {
        size_t end = kiln_least(t->columns, c0 + BLOCK);
        for (size_t r = 0; r < rows; r++) {
            for (size_t c = c0; c < end; c++) {
                out[r * t->out_row + c] = x[c * t->in_column + r];
            }
        }
    }
}

void kiln_sim_transpose(const struct kiln_sim_run *run) {
    const struct kiln_mil_type *in = kiln_sim_in_type(run, 0), *out = kiln_sim_out_type(run, 0);
    struct turn t = {.x = kiln_sim_in(run, 0), .out = kiln_sim_out(run, 0)};
    size_t column = out->rank, row = out->rank; /* none yet */
    t.rows = t.columns = t.in_column = 1;
    for (size_t i = out->rank; i-- > 0;) {
        size_t from = run->node->perm[i], step = kiln_sim_extent(in, from + 1, in->rank);
        if (out->dims[i] > 1 && column == out->rank) {
            column = i;
            t.columns = out->dims[i];
            t.in_column = step;
        } else if (out->dims[i] > 1 && step == 1) {
            row = i;
            t.rows = out->dims[i];
            t.out_row = kiln_sim_extent(out, i + 1, out->rank);
        }
    }
    t.to = t.in = kiln_sim_walk_of(out, 0);
    for (size_t i = 0; i < out->rank; i++) {
        if (i != column && i != row) {
            size_t from = run->node->perm[i], at = t.in.rank;
            t.in.dims[at] = t.to.dims[at] = out->dims[i];
            t.in.step[at] = kiln_sim_extent(in, from + 1, in->rank);
            t.to.step[at] = kiln_sim_extent(out, i + 1, out->rank);
            t.in.count = t.to.count = t.in.count * out->dims[i];
            t.in.rank = t.to.rank = at + 1;
        }
    }
    t.stripes = (t.rows + BLOCK - 1) / BLOCK;
    kiln_sim_tasks(run, t.in.count * t.stripes, turn_some, &t);
}

/* ---- slices --------------------------------------------------------------------------------- */

/* A tensor's rows (its last axis) that are copied from rows of another. */
struct rows {
    const float *x; /* of the first element */
    float *out;
    struct kiln_sim_walk to;     /* of all axes but the last, in the result */
    int64_t from[KILN_MIL_RANK]; /* the input's steps along the same axes */
    int64_t step;                /* and along the last */
    size_t columns, at_once;     /* rows a task */
    float limit;                 /* beyond it: infinity; 0: none */
};

static void limit_row(float *x, size_t n, float limit) {
    for (size_t i = 0; i < n; i++) {
        x[i] = fabsf(x[i]) > limit ? copysignf(INFINITY, x[i]) : x[i];
    }
}

static void copy_row(const struct rows *r, size_t row) {
    int64_t at = 0;
    size_t index = row;
    for (size_t i = r->to.rank; i-- > 0;) {
        at += (int64_t)(index % r->to.dims[i]) * r->from[i];
        index /= r->to.dims[i];
    }
    const float *x = r->x + at;
    float *out = r->out + kiln_sim_walk_at(&r->to, row);
    if (r->step == 1) {
        memcpy(out, x, r->columns * sizeof *out);
    }
    for (size_t c = 0; c < r->columns && r->step != 1; c++) {
        out[c] = x[(int64_t)c * r->step];
    }
    if (r->limit > 0.0f) {
        limit_row(out, r->columns, r->limit);
    }
}

static void copy_some_rows(void *context, size_t task, size_t thread) {
    const struct rows *r = context;
    size_t first = task * r->at_once, end = kiln_least(r->to.count, first + r->at_once);
    (void)thread;
    for (size_t row = first; row < end; row++) {
        copy_row(r, row);
    }
}

/* Copy a box of `in` that starts at `begin` and goes in `step`s; box: its axes, of in's rank. */
static void copy_box(const struct kiln_sim_run *run, const struct kiln_mil_type *in,
                     const struct kiln_mil_type *box, const size_t *begin, const int64_t *step,
                     float *out) {
    struct rows r = {.x = kiln_sim_in(run, 0), .out = out, .step = 1, .columns = 1};
    assert(box->rank > 0 && box->rank <= KILN_MIL_RANK);
    size_t last = box->rank - 1;
    for (size_t i = 0; i < box->rank; i++) {
        size_t along = kiln_sim_extent(in, i + 1, in->rank);
        r.x += begin[i] * along;
        r.from[i] = step[i] * (int64_t)along;
    }
    r.to = kiln_sim_walk_of(box, ~(1u << last));
    r.step = step[last];
    r.columns = box->dims[last];
    r.at_once = r.columns < KILN_SIM_CHUNK ? KILN_SIM_CHUNK / r.columns : 1;
    if (begin[last] > 0) {
        r.limit = run->machine->numbers.slice_limit;
    }
    kiln_sim_tasks(run, (r.to.count + r.at_once - 1) / r.at_once, copy_some_rows, &r);
}

void kiln_sim_slice(const struct kiln_sim_run *run) {
    const struct kiln_mil_type *in = kiln_sim_in_type(run, 0);
    struct kiln_mil_type box = *in;
    if (kiln_sim_is_view(run, 0) || in->rank == 0) {
        return;
    }
    memcpy(box.dims, run->node->size, sizeof box.dims); /* axes that the result drops are 1 */
    copy_box(run, in, &box, run->node->begin, run->node->step, kiln_sim_out(run, 0));
}

/* Parts along an axis. A part of the last axis that does not begin at 0 is a slice in the
 * hardware, and its rule holds. */
void kiln_sim_split(const struct kiln_sim_run *run) {
    const struct kiln_mil_type *in = kiln_sim_in_type(run, 0);
    int64_t ones[KILN_MIL_RANK];
    size_t begin[KILN_MIL_RANK] = {0};
    for (size_t i = 0; i < KILN_MIL_RANK; i++) {
        ones[i] = 1;
    }
    for (size_t i = 0; i < run->node->n_out; i++) {
        const struct kiln_mil_type *box = kiln_sim_out_type(run, i);
        if (!kiln_sim_is_view(run, i)) {
            copy_box(run, in, box, begin, ones, kiln_sim_out(run, i));
        }
        begin[run->node->axis] += box->dims[run->node->axis];
    }
}

/* ---- concat --------------------------------------------------------------------------------- */

/* One value of a concat. A line is its elements at one index of the axes before the joined one:
 * dim times inner, which lie together in the value and, unless interleaved, in the result. */
struct join {
    const float *x;
    float *out;
    size_t lines, dim, inner;
    size_t out_line,
        out_step;   /* the result's: from line to line, from index to index of the axis */
    size_t at_once; /* lines a task */
};

static void join_some(void *context, size_t task, size_t thread) {
    const struct join *j = context;
    size_t first = task * j->at_once, end = kiln_least(j->lines, first + j->at_once);
    (void)thread;
    for (size_t line = first; line < end; line++) {
        const float *x = j->x + line * j->dim * j->inner;
        float *out = j->out + line * j->out_line;
        if (j->out_step == j->inner) {
            memcpy(out, x, j->dim * j->inner * sizeof *out);
            continue;
        }
        for (size_t i = 0; i < j->dim; i++) {
            memcpy(out + i * j->out_step, x + i * j->inner, j->inner * sizeof *out);
        }
    }
}

void kiln_sim_concat(const struct kiln_sim_run *run) {
    const struct kiln_mil_type *out = kiln_sim_out_type(run, 0);
    size_t axis = (size_t)run->node->axis, at = 0;
    for (size_t i = 0; i < run->node->n_in; i++) {
        struct join j = {.x = kiln_sim_in(run, i), .dim = kiln_sim_in_type(run, i)->dims[axis]};
        j.lines = kiln_sim_extent(out, 0, axis);
        j.inner = kiln_sim_extent(out, axis + 1, out->rank);
        j.out_line = out->dims[axis] * j.inner;
        j.out_step = run->node->interleave ? run->node->n_in * j.inner : j.inner;
        j.out = kiln_sim_out(run, 0) + at;
        j.at_once = j.dim * j.inner < KILN_SIM_CHUNK ? KILN_SIM_CHUNK / (j.dim * j.inner) : 1;
        kiln_sim_tasks(run, (j.lines + j.at_once - 1) / j.at_once, join_some, &j);
        at += run->node->interleave ? j.inner : j.dim * j.inner;
    }
}
