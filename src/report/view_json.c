/* SPDX-License-Identifier: MIT
 *
 * view_json.c: a view as the JSON that pages draw (docs/formats.md).
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "report/series.h"

static void begin(struct kiln_text *text, const char *key, const char *bracket) {
    if (key != NULL) {
        kiln_text_key(text, key);
    } else {
        kiln_text_comma(text);
    }
    kiln_text_raw(text, bracket);
}

static void write_summary(struct kiln_text *text, const struct kiln_view_summary *s) {
    begin(text, "summary", "{");
    kiln_text_count_of(text, "steps", s->steps);
    kiln_text_count_of(text, "step", s->step);
    kiln_text_count_of(text, "total", s->total);
    kiln_text_count_of(text, "tokens", s->tokens);
    kiln_text_count_of(text, "restarts", s->restarts);
    kiln_text_count_of(text, "skipped", s->skipped);
    kiln_text_number_of(text, "first_loss", s->first_loss);
    kiln_text_number_of(text, "last_loss", s->last_loss);
    kiln_text_number_of(text, "smoothed", s->smoothed);
    kiln_text_number_of(text, "best_loss", s->best_loss);
    kiln_text_count_of(text, "best_loss_step", s->best_loss_step);
    kiln_text_number_of(text, "last_val", s->last_val);
    kiln_text_number_of(text, "best_val", s->best_val);
    kiln_text_count_of(text, "best_val_step", s->best_val_step);
    kiln_text_number_of(text, "seconds", s->seconds);
    kiln_text_number_of(text, "step_s", s->step_s);
    kiln_text_number_of(text, "left_s", s->left_s);
    kiln_text_number_of(text, "tokens_per_s", s->tokens_per_s);
    kiln_text_count_of(text, "peak_bytes", s->peak_bytes);
    begin(text, "ms", "{");
    kiln_text_number_of(text, "device", s->device_ms);
    kiln_text_number_of(text, "host", s->host_ms);
    kiln_text_number_of(text, "dw_wait", s->dw_wait_ms);
    kiln_text_number_of(text, "io", s->io_ms);
    kiln_text_number_of(text, "update", s->update_ms);
    kiln_text_number_of(text, "stall", s->stall_ms);
    kiln_text_number_of(text, "restart", s->restart_ms);
    kiln_text_number_of(text, "compile", s->compile_ms);
    kiln_text_number_of(text, "overlap", s->overlap_ms);
    kiln_text_number_of(text, "all", s->ms);
    kiln_text_raw(text, "}}");
}

/* ---- facts ------------------------------------------------------------------------------------
 */

static void write_settings(struct kiln_text *text, const struct kiln_view *view) {
    begin(text, "settings", "[");
    for (size_t i = 0; i < kiln_view_settings(view); i++) {
        const struct kiln_view_setting *s = kiln_view_setting(view, i);
        begin(text, NULL, "{");
        kiln_text_string_of(text, "flag", s->flag);
        kiln_text_string_of(text, "value", s->value);
        kiln_text_string_of(text, "origin", s->origin);
        kiln_text_raw(text, "}");
    }
    kiln_text_raw(text, "]");
}

static void write_plan(struct kiln_text *text, const struct kiln_view *view) {
    struct kiln_memory m;
    struct kiln_plan_time t;
    if (!kiln_view_plan(view, &m, &t)) {
        kiln_text_raw(text, ",\"plan\":null");
        return;
    }
    begin(text, "plan", "{");
    begin(text, "memory_bytes", "{");
    kiln_text_count_of(text, "weights", m.weights);
    kiln_text_count_of(text, "moments", m.moments);
    kiln_text_count_of(text, "gradients", m.gradients);
    kiln_text_count_of(text, "kernels", m.kernels);
    kiln_text_count_of(text, "snapshots", m.snapshots);
    kiln_text_count_of(text, "journal", m.journal);
    kiln_text_count_of(text, "activations_kept", m.activations_kept);
    kiln_text_count_of(text, "activations_live", m.activations_live);
    kiln_text_count_of(text, "workspace", m.workspace);
    kiln_text_count_of(text, "gpu", m.gpu);
    kiln_text_count_of(text, "process", m.process);
    kiln_text_count_of(text, "state_file", m.state_file);
    kiln_text_count_of(text, "total", m.total);
    kiln_text_raw(text, "}");
    begin(text, "time_s", "{");
    kiln_text_number_of(text, "compile", t.compile);
    kiln_text_number_of(text, "compute", t.compute);
    kiln_text_number_of(text, "stall", t.stall);
    kiln_text_number_of(text, "restart", t.restart);
    kiln_text_number_of(text, "step", t.step);
    kiln_text_raw(text, "}}");
}

/* Under the names of the plan, seconds of a step in the mean. */
static void write_measured(struct kiln_text *text, const struct kiln_view_summary *s) {
    const double steps = s->steps > 0 ? (double)s->steps * 1e3 : (double)NAN;
    begin(text, "measured", "{");
    begin(text, "memory_bytes", "{");
    kiln_text_count_of(text, "total", s->peak_bytes);
    kiln_text_raw(text, "}");
    begin(text, "time_s", "{");
    kiln_text_number_of(text, "compile", s->compile_ms / steps);
    kiln_text_number_of(text, "compute", (s->ms - s->stall_ms - s->restart_ms) / steps);
    kiln_text_number_of(text, "stall", s->stall_ms / steps);
    kiln_text_number_of(text, "restart", s->restart_ms / steps);
    kiln_text_number_of(text, "step", s->ms / steps);
    kiln_text_raw(text, "}}");
}

static void write_incidents(struct kiln_text *text, const struct kiln_view *view) {
    begin(text, "incidents", "[");
    for (size_t i = 0; i < kiln_view_incidents(view); i++) {
        const struct kiln_view_incident *one = kiln_view_incident(view, i);
        begin(text, NULL, "{");
        kiln_text_count_of(text, "step", one->step);
        kiln_text_string_of(text, "why", one->why);
        kiln_text_string_of(text, "action", one->action);
        kiln_text_number_of(text, "loss", one->loss);
        kiln_text_number_of(text, "grad_norm", one->grad_norm);
        kiln_text_number_of(text, "z", one->z);
        kiln_text_number_of(text, "mean", one->mean);
        kiln_text_number_of(text, "deviation", one->deviation);
        kiln_text_string_of(text, "tensor", one->first_tensor);
        kiln_text_key(text, "weights");
        kiln_text_raw(text, one->weights ? "true}" : "false}");
    }
    kiln_text_raw(text, "]");
}

static void write_checkpoints(struct kiln_text *text, const struct kiln_view *view) {
    begin(text, "checkpoints", "[");
    for (size_t i = 0; i < kiln_view_checkpoints(view); i++) {
        kiln_text_comma(text);
        kiln_text_count(text, kiln_view_checkpoint(view, i));
    }
    kiln_text_raw(text, "]");
}

/* ---- samples -----------------------------------------------------------------------------------
 */

/* First, last, and others evenly between: as many as a page carries with ease. */
static void write_samples(struct kiln_text *text, const struct kiln_view *view) {
    enum { MOST = 60, BYTES = 400 << 10 };
    const size_t n = kiln_view_samples(view), shown = kiln_least(n, MOST);
    const size_t begun = text->length;
    kiln_text_count_of(text, "samples_all", n);
    begin(text, "samples", "[");
    for (size_t i = 0; i < shown; i++) {
        const size_t at = shown > 1 ? i * (n - 1) / (shown - 1) : 0;
        const struct kiln_view_sample *one = kiln_view_sample(view, at);
        if (text->length - begun + strlen(one->text) > BYTES && i + 1 < shown) {
            continue; /* the last one has its place */
        }
        begin(text, NULL, "{");
        kiln_text_count_of(text, "step", one->step);
        kiln_text_string_of(text, "text", one->text);
        kiln_text_raw(text, "}");
    }
    kiln_text_raw(text, "]");
}

/* ---- the timeline ------------------------------------------------------------------------------
 */

/* Names, once each; spans say which. */
struct names {
    const char *at[600];
    size_t n;
};

static size_t name_at(struct names *names, const char *name) {
    for (size_t i = 0; i < names->n; i++) {
        if (strcmp(names->at[i], name) == 0) {
            return i;
        }
    }
    if (names->n == sizeof names->at / sizeof names->at[0]) {
        return 0;
    }
    names->at[names->n] = name;
    return names->n++;
}

static uint64_t microseconds(double seconds) { return (uint64_t)(seconds * 1e6 + 0.5); }

/* [track, kind, name, row, start, length, step, generation, layer, spans]; times in microseconds.
 */
static void write_span(struct kiln_text *text, struct names *names,
                       const struct kiln_view_span *s) {
    const size_t words[] = {name_at(names, s->track), name_at(names, s->kind),
                            name_at(names, s->name)};
    char rest[40];
    kiln_text_comma(text);
    kiln_text_raw(text, "[");
    for (size_t i = 0; i < 3; i++) {
        kiln_text_comma(text);
        kiln_text_count(text, words[i]);
    }
    kiln_text_raw(text, ",");
    kiln_text_count(text, s->row);
    kiln_text_raw(text, ",");
    kiln_text_count(text, microseconds(s->start));
    kiln_text_raw(text, ",");
    kiln_text_count(text, microseconds(s->end) - microseconds(s->start));
    kiln_text_raw(text, ",");
    kiln_text_count(text, s->step);
    snprintf(rest, sizeof rest, ",%" PRId64 ",%" PRId32, s->generation, s->layer);
    kiln_text_raw(text, rest);
    kiln_text_raw(text, ",");
    kiln_text_count(text, s->count);
    kiln_text_raw(text, "]");
}

static void write_timeline(struct kiln_text *text, const struct kiln_view *view) {
    struct names names = {.n = 0};
    begin(text, "timeline", "{");
    begin(text, "spans", "[");
    for (size_t i = 0; i < kiln_view_spans(view); i++) {
        write_span(text, &names, kiln_view_span(view, i));
    }
    kiln_text_raw(text, "]");
    begin(text, "words", "[");
    for (size_t i = 0; i < names.n; i++) {
        kiln_text_comma(text);
        kiln_text_string(text, names.at[i]);
    }
    kiln_text_raw(text, "]}");
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

static void write_facts(struct kiln_text *text, const struct kiln_view *view,
                        const struct kiln_view_summary *summary) {
    write_settings(text, view);
    write_plan(text, view);
    write_measured(text, summary);
    write_checkpoints(text, view);
    write_incidents(text, view);
}

enum kiln_status kiln_view_json(const struct kiln_view *view,
                                const struct kiln_view_options *options, char **out, size_t *size,
                                struct kiln_err *err) {
    const struct kiln_view_summary summary = kiln_view_summary(view);
    struct kiln_text text = {0};
    *out = NULL;
    *size = 0;
    kiln_text_raw(&text, "{");
    kiln_text_string_of(&text, "name", view->name);
    kiln_text_string_of(&text, "folder", view->folder);
    write_summary(&text, &summary);
    if (options->parts & KILN_VIEW_SERIES) {
        struct kiln_range range = {.view = view,
                                   .first = kiln_view_find(view, options->from),
                                   .end = options->to > 0 && options->to < UINT64_MAX
                                              ? kiln_view_find(view, options->to + 1)
                                              : view->n_rows,
                                   .points = options->points};
        range.end = kiln_largest(range.first, range.end);
        kiln_series_write(&range, &text);
    }
    if (options->parts & KILN_VIEW_FACTS) {
        write_facts(&text, view, &summary);
    }
    if (options->parts & KILN_VIEW_SAMPLES) {
        write_samples(&text, view);
    }
    if (options->parts & KILN_VIEW_TIMELINE) {
        write_timeline(&text, view);
    }
    kiln_text_raw(&text, "}");
    if (text.failed) {
        kiln_free(text.at);
        return KILN_FAIL(err, KILN_ENOMEM, "%s: no memory for it as JSON", view->folder);
    }
    *out = text.at;
    *size = text.length;
    return KILN_OK;
}

void kiln_view_json_free(char *text) { kiln_free(text); }
