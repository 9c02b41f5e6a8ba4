/* SPDX-License-Identifier: MIT
 *
 * eval_reduce.c: softmax, sums, means and maxima over axes, layer_norm.
 *
 * Reductions along one run of axes, which is what programs have, see the tensor as
 * [outer, n, inner]: inner 1 is rows, otherwise columns are taken 64 at a time. Other sets of axes
 * are walked element by element. Sums are double, in index order.
 */
#include <math.h>

#include "device/sim/eval_int.h"
#include "device/sim/eval_math.h"

enum { COLUMNS = 64, LANES = 8 };

/* A tensor as [outer, n, inner], reduced over n. */
struct axis {
    const struct kiln_sim_run *run;
    const float *x;
    float *out;
    size_t outer, n, inner;
    size_t pieces; /* of `inner`, COLUMNS each */
};

static void set_axis(struct axis *a, const struct kiln_mil_type *type, size_t first, size_t last) {
    a->outer = kiln_sim_extent(type, 0, first);
    a->n = kiln_sim_extent(type, first, last);
    a->inner = kiln_sim_extent(type, last, type->rank);
    a->pieces = (a->inner + COLUMNS - 1) / COLUMNS;
}

/* Highest, sum: in lanes, so that a row becomes vector code; lanes are joined in order. */
static float highest_of_row(const float *x, size_t n) {
    float top[LANES], all = -INFINITY;
    for (size_t j = 0; j < LANES; j++) {
        top[j] = -INFINITY;
    }
    for (size_t i = 0; i + LANES <= n; i += LANES) {
        for (size_t j = 0; j < LANES; j++) {
            top[j] = x[i + j] > top[j] ? x[i + j] : top[j];
        }
    }
    for (size_t i = n / LANES * LANES; i < n; i++) {
        all = x[i] > all ? x[i] : all;
    }
    for (size_t j = 0; j < LANES; j++) {
        all = top[j] > all ? top[j] : all;
    }
    return all;
}

static double sum_of_row(const float *x, size_t n) {
    double sum[LANES] = {0}, all = 0.0;
    for (size_t i = 0; i + LANES <= n; i += LANES) {
        for (size_t j = 0; j < LANES; j++) {
            sum[j] += (double)x[i + j];
        }
    }
    for (size_t i = n / LANES * LANES; i < n; i++) {
        all += (double)x[i];
    }
    for (size_t j = 0; j < LANES; j++) {
        all += sum[j];
    }
    return all;
}

/* ---- softmax -------------------------------------------------------------------------------- */

static void softmax_row(float *out, const float *x, size_t n) {
    float peak = highest_of_row(x, n);
    for (size_t i = 0; i < n; i++) {
        out[i] = kiln_sim_exp(x[i] - peak);
    }
    float share = (float)(1.0 / sum_of_row(out, n));
    for (size_t i = 0; i < n; i++) {
        out[i] *= share;
    }
}

static void softmax_columns(float *out, const float *x, size_t n, size_t ld, size_t columns) {
    float peak[COLUMNS];
    double sum[COLUMNS] = {0};
    for (size_t j = 0; j < columns; j++) {
        peak[j] = -INFINITY;
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < columns; j++) {
            peak[j] = x[i * ld + j] > peak[j] ? x[i * ld + j] : peak[j];
        }
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < columns; j++) {
            out[i * ld + j] = kiln_sim_exp(x[i * ld + j] - peak[j]);
            sum[j] += (double)out[i * ld + j];
        }
    }
    for (size_t j = 0; j < columns; j++) {
        peak[j] = (float)(1.0 / sum[j]);
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < columns; j++) {
            out[i * ld + j] *= peak[j];
        }
    }
}

static void some_softmax(void *context, size_t task, size_t thread) {
    const struct axis *a = context;
    size_t column = task % a->pieces * COLUMNS;
    size_t columns = kiln_least(a->inner - column, COLUMNS);
    size_t at = task / a->pieces * a->n * a->inner + column;
    (void)thread;
    if (a->inner == 1) {
        softmax_row(a->out + at, a->x + at, a->n);
        kiln_sim_store(a->run, a->out + at, a->n);
        return;
    }
    softmax_columns(a->out + at, a->x + at, a->n, a->inner, columns);
    for (size_t i = 0; i < a->n; i++) {
        kiln_sim_store(a->run, a->out + at + i * a->inner, columns);
    }
}

void kiln_sim_softmax(const struct kiln_sim_run *run) {
    struct axis a = {.run = run, .x = kiln_sim_in(run, 0), .out = kiln_sim_out(run, 0)};
    size_t axis = (size_t)run->node->axis;
    set_axis(&a, kiln_sim_in_type(run, 0), axis, axis + 1);
    kiln_sim_tasks(run, a.outer * a.pieces, some_softmax, &a);
}

/* ---- reduce_* ------------------------------------------------------------------------------- */

static float highest_with_nan(float a, float b) { return a > b || isnan(a) ? a : b; }

static void reduce_row(const struct axis *a, float *out, const float *x) {
    if (a->run->node->op == KILN_MIL_REDUCE_MAX) {
        float top = x[0];
        for (size_t i = 1; i < a->n; i++) {
            top = highest_with_nan(top, x[i]);
        }
        *out = top;
        return;
    }
    double sum = sum_of_row(x, a->n);
    *out = (float)(a->run->node->op == KILN_MIL_REDUCE_MEAN ? sum / (double)a->n : sum);
}

static void reduce_columns(const struct axis *a, float *out, const float *x, size_t columns) {
    double sum[COLUMNS] = {0};
    bool highest = a->run->node->op == KILN_MIL_REDUCE_MAX;
    for (size_t j = 0; j < columns; j++) {
        out[j] = x[j];
    }
    for (size_t i = 0; i < a->n; i++) {
        const float *row = x + i * a->inner;
        for (size_t j = 0; j < columns && !highest; j++) {
            sum[j] += (double)row[j];
        }
        for (size_t j = 0; j < columns && highest; j++) {
            out[j] = highest_with_nan(out[j], row[j]);
        }
    }
    double by = a->run->node->op == KILN_MIL_REDUCE_MEAN ? (double)a->n : 1.0;
    for (size_t j = 0; j < columns && !highest; j++) {
        out[j] = (float)(sum[j] / by);
    }
}

/* Rows are taken so many at a time that a task is about a chunk. */
static size_t rows_at_once(const struct axis *a) {
    return a->n < KILN_SIM_CHUNK ? KILN_SIM_CHUNK / a->n : 1;
}

static void some_reduced(void *context, size_t task, size_t thread) {
    const struct axis *a = context;
    (void)thread;
    if (a->inner == 1) {
        size_t rows = rows_at_once(a), first = task * rows;
        rows = kiln_least(rows, a->outer - first);
        for (size_t r = first; r < first + rows; r++) {
            reduce_row(a, a->out + r, a->x + r * a->n);
        }
        kiln_sim_store(a->run, a->out + first, rows);
        return;
    }
    size_t outer = task / a->pieces, column = task % a->pieces * COLUMNS;
    size_t columns = kiln_least(a->inner - column, COLUMNS);
    float *out = a->out + outer * a->inner + column;
    reduce_columns(a, out, a->x + outer * a->n * a->inner + column, columns);
    kiln_sim_store(a->run, out, columns);
}

/* Axes that are not neighbours. */
static void reduce_any(const struct kiln_sim_run *run) {
    const struct kiln_mil_type *type = kiln_sim_in_type(run, 0);
    struct kiln_sim_walk keep = kiln_sim_walk_of(type, ~run->node->axes);
    struct kiln_sim_walk over = kiln_sim_walk_of(type, run->node->axes);
    float *out = kiln_sim_out(run, 0);
    for (size_t i = 0; i < keep.count; i++) {
        const float *x = kiln_sim_in(run, 0) + kiln_sim_walk_at(&keep, i);
        float top = x[0];
        double sum = 0.0;
        for (size_t j = 0; j < over.count; j++) {
            float value = x[kiln_sim_walk_at(&over, j)];
            top = highest_with_nan(top, value);
            sum += (double)value;
        }
        double by = run->node->op == KILN_MIL_REDUCE_MEAN ? (double)over.count : 1.0;
        out[i] = run->node->op == KILN_MIL_REDUCE_MAX ? top : (float)(sum / by);
    }
    kiln_sim_store(run, out, keep.count);
}

/* Is it one run of axes? Axes of one element count as either. */
static bool one_run(const struct kiln_mil_type *type, uint32_t axes, size_t *first, size_t *last) {
    bool inside = false, behind = false;
    *first = *last = 0;
    for (size_t i = 0; i < type->rank; i++) {
        if (type->dims[i] == 1) {
            continue;
        }
        if (!(axes >> i & 1)) {
            behind = inside;
            continue;
        }
        if (behind) {
            return false;
        }
        *first = inside ? *first : i;
        *last = i + 1;
        inside = true;
    }
    return true;
}

void kiln_sim_reduce(const struct kiln_sim_run *run) {
    struct axis a = {.run = run, .x = kiln_sim_in(run, 0), .out = kiln_sim_out(run, 0)};
    const struct kiln_mil_type *type = kiln_sim_in_type(run, 0);
    size_t first = 0, last = 0;
    if (!one_run(type, run->node->axes, &first, &last)) {
        reduce_any(run);
        return;
    }
    set_axis(&a, type, first, last);
    size_t rows = rows_at_once(&a);
    size_t tasks = a.inner == 1 ? (a.outer + rows - 1) / rows : a.outer * a.pieces;
    kiln_sim_tasks(run, tasks, some_reduced, &a);
}

/* ---- layer_norm ----------------------------------------------------------------------------- */

struct norm {
    const struct kiln_sim_run *run;
    struct kiln_sim_walk keep, over;
};

static void norm_one(void *context, size_t task, size_t thread) {
    const struct norm *norm = context;
    const struct kiln_sim_run *run = norm->run;
    const float *gamma = kiln_sim_in(run, 1), *beta = kiln_sim_in(run, 2);
    size_t base = kiln_sim_walk_at(&norm->keep, task), n = norm->over.count;
    const float *x = kiln_sim_in(run, 0) + base;
    float *out = kiln_sim_out(run, 0) + base;
    double mean = 0.0, variance = 0.0;
    (void)thread;
    for (size_t i = 0; i < n; i++) {
        mean += (double)x[kiln_sim_walk_at(&norm->over, i)] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        double d = (double)x[kiln_sim_walk_at(&norm->over, i)] - mean;
        variance += d * d / (double)n;
    }
    double scale = 1.0 / sqrt(variance + run->node->epsilon);
    for (size_t i = 0; i < n; i++) {
        size_t at = kiln_sim_walk_at(&norm->over, i);
        double y = ((double)x[at] - mean) * scale;
        y = y * (gamma ? (double)gamma[i] : 1.0) + (beta ? (double)beta[i] : 0.0);
        out[at] = (float)y;
        kiln_sim_store(run, out + at, 1);
    }
}

void kiln_sim_layer_norm(const struct kiln_sim_run *run) {
    const struct kiln_mil_type *type = kiln_sim_in_type(run, 0);
    struct norm norm = {.run = run,
                        .keep = kiln_sim_walk_of(type, ~run->node->axes),
                        .over = kiln_sim_walk_of(type, run->node->axes)};
    kiln_sim_tasks(run, norm.keep.count, norm_one, &norm);
}
