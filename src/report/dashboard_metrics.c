/* SPDX-License-Identifier: MIT
 *
 * dashboard_metrics.c: /metrics, in Prometheus' text format 0.0.4: all samples of a metric stand
 * under its HELP and TYPE; in a label backslash, quote and line feed are escaped.
 *
 * A counter never goes down while this dashboard lives: what a rollback or a resume takes back was
 * done all the same, and is added to what is done again. A new dashboard begins with what
 * metrics.jsonl has, which Prometheus takes for the restart that it is.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "report/dashboard_int.h"

static double number(uint64_t n) { return (double)n; }
static double up(const struct kiln_dash_run *r) {
    return r->status == KILN_DASH_RUNNING || r->status == KILN_DASH_STALE;
}
static double step(const struct kiln_dash_run *r) { return number(r->last.step); }
static double planned(const struct kiln_dash_run *r) { return number(r->summary.total); }
static double loss(const struct kiln_dash_run *r) {
    return r->last.step > 0 ? r->last.loss : (double)NAN;
}
static double val_loss(const struct kiln_dash_run *r) { return r->summary.last_val; }
static double rate(const struct kiln_dash_run *r) { return r->last.lr; }
static double norm(const struct kiln_dash_run *r) { return r->last.grad_norm; }
static double speed(const struct kiln_dash_run *r) { return r->last.tokens_per_s; }
static double memory(const struct kiln_dash_run *r) { return number(r->summary.peak_bytes); }
static double seen(const struct kiln_dash_run *r) {
    return (double)r->seen.tv_sec + 1e-9 * (double)(r->seen.tv_nsec > 0 ? r->seen.tv_nsec : 0);
}
static double tokens(const struct kiln_dash_run *r) { return number(r->summary.tokens); }
static double skipped(const struct kiln_dash_run *r) { return number(r->summary.skipped); }
static double restarts(const struct kiln_dash_run *r) { return number(r->summary.restarts); }
static double seconds(const struct kiln_dash_run *r) { return r->summary.seconds; }
static double compiling(const struct kiln_dash_run *r) { return r->summary.compile_ms / 1e3; }
static double stalled(const struct kiln_dash_run *r) { return r->summary.stall_ms / 1e3; }

static const struct metric {
    const char *name, *type, *help;
    double (*of)(const struct kiln_dash_run *run);
} metrics[] = {
    {"kiln_run_up", "gauge", "1 while a process trains the run", up},
    {"kiln_run_step", "gauge", "the last step done", step},
    {"kiln_run_planned_steps", "gauge", "steps that the run is to have", planned},
    {"kiln_run_loss", "gauge", "training loss of the last step, nats a token", loss},
    {"kiln_run_val_loss", "gauge", "held-out loss of the last evaluation, nats a token", val_loss},
    {"kiln_run_learning_rate", "gauge", "learning rate of the last step", rate},
    {"kiln_run_gradient_norm", "gauge", "norm of the last step's gradient, before clipping", norm},
    {"kiln_run_tokens_per_second", "gauge", "throughput of the last step", speed},
    {"kiln_run_peak_memory_bytes", "gauge", "most memory that was resident", memory},
    {"kiln_run_last_step_timestamp_seconds", "gauge", "when the last step was done, Unix time",
     seen},
    {"kiln_run_tokens_total", "counter", "tokens trained on", tokens},
    {"kiln_run_skipped_steps_total", "counter", "steps without an update", skipped},
    {"kiln_run_restarts_total", "counter", "processes replaced", restarts},
    {"kiln_run_seconds_total", "counter", "time of all steps, evaluations left out", seconds},
    {"kiln_run_compile_seconds_total", "counter", "time in which kernels were compiled", compiling},
    {"kiln_run_stall_seconds_total", "counter", "time the device waited for kernels", stalled},
};

static bool counts(const struct metric *metric) { return metric->type[0] == 'c'; }

/* The value of a counter, and what was taken back since it was read first. */
static double monotone(struct kiln_dash_count *count, double value) {
    count->undone += value < count->last ? count->last - value : 0;
    count->last = value;
    return value + count->undone;
}

void kiln_dash_count(struct kiln_dash_run *run) {
    size_t c = 0;
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++) {
        if (counts(&metrics[i])) {
            (void)monotone(&run->counts[c++], metrics[i].of(run));
        }
    }
}

static void write_label(struct kiln_text *text, const char *name) {
    for (const char *c = name; *c != '\0'; c++) {
        if (*c == '\n') {
            kiln_text_raw(text, "\\n");
        } else {
            kiln_text_add(text, "\\", *c == '\\' || *c == '"');
            kiln_text_add(text, c, 1);
        }
    }
}

/* As the format has them: a point whatever the locale says. */
static void write_number(struct kiln_text *text, double value) {
    char digits[40];
    if (isnan(value)) {
        kiln_text_raw(text, "NaN");
    } else if (isinf(value)) {
        kiln_text_raw(text, value > 0 ? "+Inf" : "-Inf");
    } else {
        snprintf(digits, sizeof digits, "%.17g", value);
        char *point = strchr(digits, ',');
        if (point != NULL) {
            *point = '.';
        }
        kiln_text_raw(text, digits);
    }
}

/* counter: which one it is of a run's. */
static void write_metric(struct kiln_text *text, const struct kiln_dashboard *d,
                         const struct metric *metric, size_t counter) {
    char head[400];
    snprintf(head, sizeof head, "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help,
             metric->name, metric->type);
    kiln_text_raw(text, head);
    for (size_t i = 0; i < d->n_runs; i++) {
        kiln_text_raw(text, metric->name);
        kiln_text_raw(text, "{run=\"");
        write_label(text, d->runs[i].name);
        kiln_text_raw(text, "\"} ");
        write_number(text, metric->of(&d->runs[i]) +
                               (counts(metric) ? d->runs[i].counts[counter].undone : 0));
        kiln_text_raw(text, "\n");
    }
}

enum MHD_Result kiln_dash_metrics(struct kiln_dashboard *d, struct MHD_Connection *connection) {
    struct kiln_text text = {.length = 0};
    char head[200];
    snprintf(head, sizeof head,
             "# HELP kiln_up 1: the dashboard answers\n# TYPE kiln_up gauge\nkiln_up 1\n"
             "# HELP kiln_runs runs that the dashboard knows\n# TYPE kiln_runs gauge\n"
             "kiln_runs %zu\n",
             d->n_runs);
    kiln_text_raw(&text, head);
    for (size_t i = 0; i < d->n_runs; i++) {
        kiln_dash_refresh(&d->runs[i]);
    }
    size_t counter = 0;
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++) {
        write_metric(&text, d, &metrics[i], counter);
        counter += counts(&metrics[i]);
    }
    const enum MHD_Result queued =
        text.failed
            ? MHD_NO
            : kiln_dash_reply(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8",
                              text.at, text.length);
    kiln_free(text.at);
    return queued;
}
