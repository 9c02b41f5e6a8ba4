/* SPDX-License-Identifier: MIT
 *
 * summary.c: a view at a glance.
 */
#include <math.h>
#include <stdlib.h>

#include "report/view_int.h"

/* What is not there adds nothing. */
static void add(double *sum, double value) { *sum += isfinite(value) ? value : 0; }

static void add_step(struct kiln_view_summary *s, const struct kiln_step_record *r) {
    const double waiting = isfinite(r->dw_wait_ms) ? r->dw_wait_ms : 0;
    const double moving = isfinite(r->io_ms) ? r->io_ms : 0;
    add(&s->device_ms, r->device_ms);
    add(&s->host_ms, r->host_ms - waiting - moving);
    add(&s->dw_wait_ms, r->dw_wait_ms);
    add(&s->io_ms, r->io_ms);
    add(&s->update_ms, r->update_ms);
    add(&s->stall_ms, r->stall_ms);
    add(&s->restart_ms, r->restart_ms);
    add(&s->ms, r->ms);
    add(&s->compile_ms, r->compile_ms);
    add(&s->overlap_ms, r->overlap_ms);
    s->skipped += r->skipped;
    s->restarts = r->restarts > s->restarts ? r->restarts : s->restarts;
    s->peak_bytes = r->peak_bytes > s->peak_bytes ? r->peak_bytes : s->peak_bytes;
    if (isfinite(r->loss)) {
        s->first_loss = isnan(s->first_loss) ? r->loss : s->first_loss;
        s->last_loss = r->loss;
        if (!(r->loss >= s->best_loss)) {
            s->best_loss = r->loss;
            s->best_loss_step = r->step;
        }
    }
    if (isfinite(r->val_loss)) {
        s->last_val = r->val_loss;
        if (!(r->val_loss >= s->best_val)) {
            s->best_val = r->val_loss;
            s->best_val_step = r->val_generation >= 0 ? (uint64_t)r->val_generation : r->step;
        }
    }
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median of the last steps' times: evaluations and first steps do not pull it. */
static double median_ms(const struct kiln_view *view) {
    enum { LAST = 100 };
    double ms[LAST];
    size_t n = 0;
    for (size_t i = view->n_rows > LAST ? view->n_rows - LAST : 0; i < view->n_rows; i++) {
        if (isfinite(view->rows[i].record.ms)) {
            ms[n++] = view->rows[i].record.ms;
        }
    }
    if (n == 0) {
        return (double)NAN;
    }
    qsort(ms, n, sizeof *ms, by_value);
    return ms[n / 2];
}

struct kiln_view_summary kiln_view_summary(const struct kiln_view *view) {
    const double none = (double)NAN;
    struct kiln_view_summary s = {.steps = view->n_rows,
                                  .first_loss = none,
                                  .last_loss = none,
                                  .smoothed = none,
                                  .best_loss = none,
                                  .best_val = none,
                                  .last_val = none,
                                  .left_s = none,
                                  .tokens_per_s = none};
    for (size_t i = 0; i < view->n_rows; i++) {
        add_step(&s, &view->rows[i].record);
    }
    if (view->n_settings > 0 && view->settings.steps != KILN_UNSET) {
        s.total = view->settings.steps;
    }
    s.seconds = s.ms / 1e3;
    s.step_s = median_ms(view) / 1e3;
    if (view->n_rows == 0) {
        return s;
    }
    const struct kiln_view_row *last = &view->rows[view->n_rows - 1];
    s.step = last->record.step;
    s.tokens = last->record.tokens;
    s.smoothed = last->smoothed;
    s.tokens_per_s = s.seconds > 0 ? (double)s.tokens / s.seconds : none;
    s.left_s = s.total > s.step ? s.step_s * (double)(s.total - s.step) : s.total > 0 ? 0 : none;
    return s;
}
