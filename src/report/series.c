/* SPDX-License-Identifier: MIT
 *
 * series.c: see series.h.
 *
 * Points are left out so that nobody sees it: the steps are cut into stretches of equal number, and
 * of each the least and the greatest value stay, where they were. A spike of one step is there in
 * any number of steps; nothing is averaged that is drawn as a curve.
 */
#include "report/series.h"

#include <math.h>

#include "base/mem.h"

typedef double (*value_fn)(const struct kiln_view_row *row);
#define VALUE(name) \
    static double value_##name(const struct kiln_view_row *row) { return (double)row->record.name; }
VALUE(loss)
VALUE(val_loss)
VALUE(lr)
VALUE(grad_norm)
VALUE(tokens_per_s)
VALUE(tflops)
VALUE(ms)
VALUE(peak_bytes)
static double value_smoothed(const struct kiln_view_row *row) { return row->smoothed; }
static double value_loss_scale(const struct kiln_view_row *row) {
    return row->record.loss_scale > 0 ? row->record.loss_scale : (double)NAN;
}

/* gaps: a value that is not finite says something, and is a null in the curve. Elsewhere it is one
 * that is not there. mean: the name of a second curve, of means, for one that goes up and down with
 * each step. */
static const struct curve {
    const char *name;
    value_fn value;
    bool gaps;
    const char *mean;
} curves[] = {{"loss", value_loss, true, NULL},
              {"smoothed", value_smoothed, false, NULL},
              {"val_loss", value_val_loss, false, NULL},
              {"lr", value_lr, false, NULL},
              {"grad_norm", value_grad_norm, true, "grad_norm_mean"},
              {"tokens_per_s", value_tokens_per_s, false, "tokens_per_s_mean"},
              {"tflops", value_tflops, false, NULL},
              {"ms", value_ms, false, "ms_mean"},
              {"peak_bytes", value_peak_bytes, false, NULL},
              {"loss_scale", value_loss_scale, false, NULL}};
enum { CURVES = sizeof curves / sizeof curves[0] };

/* The step that a value belongs to: a held-out loss of delayed weights is that of earlier ones. */
static uint64_t step_of(const struct curve *curve, const struct kiln_view_row *row) {
    const bool earlier = curve->value == value_val_loss && row->record.val_generation >= 0;
    return earlier ? (uint64_t)row->record.val_generation : row->record.step;
}

/* ---- which points stay ------------------------------------------------------------------------
 */

/* Indices of rows, in order. */
struct chosen {
    size_t *at;
    size_t n;
};

static void choose(struct chosen *chosen, size_t row) {
    if (chosen->n == 0 || chosen->at[chosen->n - 1] < row) {
        chosen->at[chosen->n++] = row;
    }
}

/* Of rows first..end-1: the least, the greatest, and with gaps the first that is not finite. */
static void choose_of(const struct kiln_view *view, const struct curve *curve, size_t first,
                      size_t end, struct chosen *chosen) {
    size_t low = end, high = end, gap = end;
    double least = 0, most = 0;
    for (size_t i = first; i < end; i++) {
        const double value = curve->value(&view->rows[i]);
        if (!isfinite(value)) {
            gap = gap == end && curve->gaps ? i : gap;
            continue;
        }
        if (low == end || value < least) {
            low = i;
            least = value;
        }
        if (high == end || value > most) {
            high = i;
            most = value;
        }
    }
    size_t three[] = {low, high, gap};
    for (int pass = 0; pass < 2; pass++) { /* in order: choose takes no smaller one later */
        for (int i = 0; i < 2; i++) {
            if (three[i] > three[i + 1]) {
                const size_t swap = three[i];
                three[i] = three[i + 1];
                three[i + 1] = swap;
            }
        }
    }
    for (int i = 0; i < 3; i++) {
        if (three[i] < end) {
            choose(chosen, three[i]);
        }
    }
}

static bool has_value(const struct curve *curve, const struct kiln_view_row *row) {
    return curve->gaps || isfinite(curve->value(row));
}

static void choose_all(const struct kiln_range *r, const struct curve *curve,
                       struct chosen *chosen) {
    size_t there = 0;
    for (size_t i = r->first; i < r->end; i++) {
        there += has_value(curve, &r->view->rows[i]);
    }
    if (r->points == 0 || there <= r->points) { /* all: held-out losses mostly */
        for (size_t i = r->first; i < r->end; i++) {
            if (has_value(curve, &r->view->rows[i])) {
                choose(chosen, i);
            }
        }
        return;
    }
    const size_t n = r->end - r->first, stretches = kiln_largest(r->points / 2, 1);
    for (size_t s = 0; s < stretches; s++) {
        const size_t from = r->first + n * s / stretches, to = r->first + n * (s + 1) / stretches;
        if (s == 0 && has_value(curve, &r->view->rows[from])) {
            choose(chosen, from); /* a curve begins at its first step */
        }
        choose_of(r->view, curve, from, to, chosen);
    }
    if (has_value(curve, &r->view->rows[r->end - 1])) {
        choose(chosen, r->end - 1);
    }
}

static void write_curve(const struct kiln_range *r, const struct curve *curve,
                        struct chosen *chosen, struct kiln_text *text) {
    chosen->n = 0;
    choose_all(r, curve, chosen);
    if (chosen->n == 0) {
        return;
    }
    kiln_text_key(text, curve->name);
    kiln_text_raw(text, "{\"steps\":[");
    for (size_t i = 0; i < chosen->n; i++) {
        kiln_text_comma(text);
        kiln_text_count(text, step_of(curve, &r->view->rows[chosen->at[i]]));
    }
    kiln_text_raw(text, "],\"values\":[");
    for (size_t i = 0; i < chosen->n; i++) {
        kiln_text_comma(text);
        kiln_text_number(text, curve->value(&r->view->rows[chosen->at[i]]));
    }
    kiln_text_raw(text, "]}");
}

/* Means of stretches, at the step in their middle, the last at its end; none of a few steps, which
 * are seen as they are. */
static void write_mean(const struct kiln_range *r, const struct curve *curve,
                       struct kiln_text *text) {
    enum { MEANS = 160 };
    const size_t n = r->end - r->first;
    struct kiln_text values = {0};
    if (n < 2 * (size_t)MEANS) {
        return;
    }
    kiln_text_key(text, curve->mean);
    kiln_text_raw(text, "{\"steps\":[");
    kiln_text_raw(&values, "[");
    for (size_t m = 0; m < MEANS; m++) {
        const size_t from = r->first + n * m / MEANS, to = r->first + n * (m + 1) / MEANS;
        double sum = 0;
        size_t there = 0;
        for (size_t i = from; i < to; i++) {
            const double value = curve->value(&r->view->rows[i]);
            sum += isfinite(value) ? value : 0;
            there += isfinite(value);
        }
        if (there > 0) {
            kiln_text_comma(text);
            const size_t at = m + 1 < MEANS ? from + (to - from) / 2 : to - 1;
            kiln_text_count(text, r->view->rows[at].record.step);
            kiln_text_comma(&values);
            kiln_text_number(&values, sum / (double)there);
        }
    }
    kiln_text_raw(&values, "]");
    kiln_text_raw(text, "],\"values\":");
    kiln_text_add(text, values.at, values.length);
    kiln_text_raw(text, "}");
    text->failed |= values.failed;
    kiln_free(values.at);
}

/* ---- tokens and time beside steps -------------------------------------------------------------
 */

/* Knots between which a page may go straight: other axes than steps. */
static void write_axis(const struct kiln_range *r, struct kiln_text *text) {
    enum { KNOTS = 400 };
    const size_t n = r->end - r->first, knots = kiln_least(n, KNOTS);
    struct kiln_text tokens = {0}, seconds = {0};
    double passed = 0;
    size_t next = 0;
    kiln_text_key(text, "axis");
    kiln_text_raw(text, "{\"steps\":[");
    kiln_text_raw(&tokens, "[");
    kiln_text_raw(&seconds, "[");
    for (size_t i = 0; i < r->end; i++) {
        const struct kiln_step_record *record = &r->view->rows[i].record;
        passed += isfinite(record->ms) ? record->ms / 1e3 : 0;
        /* Knot k lies at k/(knots-1) of the way; the last one is the last step. */
        if (i >= r->first && (knots < 2 || (i - r->first) * (knots - 1) >= next * (n - 1))) {
            kiln_text_comma(text);
            kiln_text_count(text, record->step);
            kiln_text_comma(&tokens);
            kiln_text_count(&tokens, record->tokens);
            kiln_text_comma(&seconds);
            kiln_text_number(&seconds, passed);
            next++;
        }
    }
    kiln_text_raw(&tokens, "]");
    kiln_text_raw(&seconds, "]");
    kiln_text_raw(text, "],\"tokens\":");
    kiln_text_add(text, tokens.at, tokens.length);
    kiln_text_raw(text, ",\"seconds\":");
    kiln_text_add(text, seconds.at, seconds.length);
    kiln_text_raw(text, "}");
    text->failed |= tokens.failed || seconds.failed;
    kiln_free(tokens.at);
    kiln_free(seconds.at);
}

/* ---- time by part ------------------------------------------------------------------------------
 */

VALUE(device_ms)
VALUE(dw_wait_ms)
VALUE(io_ms)
VALUE(update_ms)
VALUE(stall_ms)
VALUE(restart_ms)
VALUE(overlap_ms)
static double present(double value) { return isfinite(value) ? value : 0; }
static double value_host_ms(const struct kiln_view_row *row) {
    const struct kiln_step_record *r = &row->record;
    return r->host_ms - present(r->dw_wait_ms) - present(r->io_ms);
}

/* The first seven add up to a step. */
static const struct curve parts[] = {
    {"device", value_device_ms, false, NULL},   {"host", value_host_ms, false, NULL},
    {"dw_wait", value_dw_wait_ms, false, NULL}, {"io", value_io_ms, false, NULL},
    {"update", value_update_ms, false, NULL},   {"stall", value_stall_ms, false, NULL},
    {"restart", value_restart_ms, false, NULL}, {"overlap", value_overlap_ms, false, NULL}};
enum { PARTS = sizeof parts / sizeof parts[0], COLUMNS = 120 };

/* Means here: what is stacked must add up. "steps" are the last ones of the stretches. */
static void write_time(const struct kiln_range *r, struct kiln_text *text) {
    const size_t n = r->end - r->first, columns = kiln_least(n, COLUMNS);
    kiln_text_key(text, "time");
    kiln_text_raw(text, "{\"steps\":[");
    for (size_t c = 0; c < columns; c++) {
        kiln_text_comma(text);
        kiln_text_count(text, r->view->rows[r->first + n * (c + 1) / columns - 1].record.step);
    }
    kiln_text_raw(text, "]");
    for (size_t p = 0; p < PARTS; p++) {
        kiln_text_key(text, parts[p].name);
        kiln_text_raw(text, "[");
        for (size_t c = 0; c < columns; c++) {
            const size_t from = r->first + n * c / columns;
            const size_t to = r->first + n * (c + 1) / columns;
            double sum = 0;
            for (size_t i = from; i < to; i++) {
                sum += present(parts[p].value(&r->view->rows[i]));
            }
            kiln_text_comma(text);
            kiln_text_number(text, sum / (double)(to - from));
        }
        kiln_text_raw(text, "]");
    }
    kiln_text_raw(text, "}");
}

/* ---- what happened at some steps ---------------------------------------------------------------
 */

static void write_marks(const struct kiln_range *r, struct kiln_text *text) {
    enum { MOST = 200 };
    size_t n = 0;
    kiln_text_key(text, "marks");
    kiln_text_raw(text, "{\"skipped\":[");
    for (size_t i = r->first; i < r->end && n < MOST; i++) {
        if (r->view->rows[i].record.skipped) {
            kiln_text_comma(text);
            kiln_text_count(text, r->view->rows[i].record.step);
            n++;
        }
    }
    kiln_text_raw(text, "],\"restarts\":[");
    n = 0;
    for (size_t i = kiln_largest(r->first, 1); i < r->end && n < MOST; i++) {
        if (r->view->rows[i].record.restarts > r->view->rows[i - 1].record.restarts) {
            kiln_text_comma(text);
            kiln_text_count(text, r->view->rows[i].record.step);
            n++;
        }
    }
    kiln_text_raw(text, "]}");
}

void kiln_series_write(const struct kiln_range *range, struct kiln_text *text) {
    struct chosen chosen = {.at = kiln_alloc(range->end - range->first + 1, sizeof *chosen.at)};
    if (chosen.at == NULL) {
        text->failed = true;
        return;
    }
    kiln_text_key(text, "series");
    kiln_text_raw(text, "{");
    for (size_t c = 0; c < CURVES && range->end > range->first; c++) {
        write_curve(range, &curves[c], &chosen, text);
        if (curves[c].mean != NULL) {
            write_mean(range, &curves[c], text);
        }
    }
    kiln_text_raw(text, "}");
    kiln_free(chosen.at);
    write_axis(range, text);
    write_time(range, text);
    write_marks(range, text);
}

/* ---- one step ----------------------------------------------------------------------------------
 */

static void write_value(struct kiln_text *text, const char *key, double value) {
    kiln_text_key(text, key);
    kiln_text_number(text, value);
}

size_t kiln_view_step_json(const struct kiln_view *view, size_t i, char *out, size_t size) {
    struct kiln_text text = {0};
    if (i >= view->n_rows) {
        return 0;
    }
    const struct kiln_view_row *row = &view->rows[i];
    kiln_text_raw(&text, "{\"step\":");
    kiln_text_count(&text, row->record.step);
    kiln_text_key(&text, "tokens");
    kiln_text_count(&text, row->record.tokens);
    for (size_t c = 0; c < CURVES; c++) {
        const double value = curves[c].value(row);
        if (curves[c].gaps || isfinite(value)) {
            write_value(&text, curves[c].name, value);
        }
    }
    if (isfinite(row->record.val_loss) && row->record.val_generation >= 0) {
        kiln_text_key(&text, "val_step");
        kiln_text_count(&text, (uint64_t)row->record.val_generation);
    }
    kiln_text_raw(&text, ",\"time\":{");
    for (size_t p = 0; p < PARTS; p++) {
        write_value(&text, parts[p].name, present(parts[p].value(row)));
    }
    kiln_text_raw(&text, "}}");
    const size_t length = text.failed ? 0 : text.length;
    if (size > 0) {
        const size_t n = kiln_least(length, size - 1);
        for (size_t b = 0; b < n; b++) {
            out[b] = text.at[b];
        }
        out[n] = '\0';
    }
    kiln_free(text.at);
    return length;
}
