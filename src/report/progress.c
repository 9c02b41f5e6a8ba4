/* SPDX-License-Identifier: MIT
 *
 * progress.c: one line a step, and quantities as people read them.
 */
#include "kiln/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "kiln/cpu.h"
#include "report/human.h"

#define SMOOTHING 0.1

/* ---- quantities ----------------------------------------------------------------------------- */

const char *kiln_human_bytes(double bytes, char *buffer, size_t size) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    size_t unit = 0;
    /* 999.5 would be printed as 1000 of the smaller unit. */
    while (bytes >= 999.5 && unit + 1 < sizeof units / sizeof units[0]) {
        bytes /= 1000;
        unit++;
    }
    const int decimals = unit > 0 && bytes < 9.95 ? 1 : 0;
    snprintf(buffer, size, "%.*f %s", decimals, bytes, units[unit]);
    return buffer;
}

const char *kiln_human_time(double seconds, char *buffer, size_t size) {
    if (!(seconds >= 0) || seconds > 1e9) {
        snprintf(buffer, size, "?");
        return buffer;
    }
    const uint64_t whole = (uint64_t)(seconds + 0.5);
    if (seconds < 9.95) {
        snprintf(buffer, size, "%.1f s", seconds);
    } else if (whole < 100) {
        snprintf(buffer, size, "%" PRIu64 " s", whole);
    } else if (whole < 3600) {
        snprintf(buffer, size, "%" PRIu64 " min %02" PRIu64 " s", whole / 60, whole % 60);
    } else if (whole < 86400) {
        snprintf(buffer, size, "%" PRIu64 " h %02" PRIu64 " min", whole / 3600, whole % 3600 / 60);
    } else {
        snprintf(buffer, size, "%" PRIu64 " d %02" PRIu64 " h", whole / 86400,
                 whole % 86400 / 3600);
    }
    return buffer;
}

/* "850", "16.6k", "1.2M". */
static const char *human_count(double count, char *buffer, size_t size) {
    if (count < 999.5) {
        snprintf(buffer, size, "%.0f", count);
    } else if (count < 999.5e3) {
        snprintf(buffer, size, "%.1fk", count / 1e3);
    } else {
        snprintf(buffer, size, "%.1fM", count / 1e6);
    }
    return buffer;
}

const char *kiln_human_tflop(double tflop, char *buffer, size_t size) {
    /* Small models do less than a tenth of a TFLOP a second; three digits in any case. */
    if (tflop < 0.0995) {
        snprintf(buffer, size, "%.1f GFLOP", tflop * 1e3);
    } else {
        snprintf(buffer, size, "%.2f TFLOP", tflop);
    }
    return buffer;
}

/* ---- the line ------------------------------------------------------------------------------- */

/* The first value stands for all before it, so that a mean is right from the first step on. */
static double follow(double mean, double value, bool first) {
    return first || !isfinite(mean) ? value : mean + SMOOTHING * (value - mean);
}

double kiln_smoothed(double mean, double loss) {
    return isfinite(loss) ? follow(mean, loss, false) : mean;
}

static void follow_step(struct kiln_progress *progress, const struct kiln_step_record *record) {
    const bool first = progress->steps_seen == 0;
    /* The first step also touches memory for the first time: it says little about the next. */
    const bool first_time = progress->steps_seen <= 1;
    if (isfinite(record->loss)) {
        progress->smoothed = follow(progress->smoothed, record->loss, first);
    }
    progress->seconds = follow(progress->seconds, record->ms / 1e3, first_time);
    progress->steps_seen++;
}

struct line {
    char *text;
    size_t size, length; /* length: what it would be in enough room */
};

static void add(struct line *line, const char *fmt, ...) KILN_PRINTF(2, 3);
static void add(struct line *line, const char *fmt, ...) {
    const size_t used = line->length < line->size ? line->length : line->size;
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(line->text + used, line->size - used, fmt, args);
    va_end(args);
    line->length += n > 0 ? (size_t)n : 0;
}

static int digits_of(uint64_t n) { return snprintf(NULL, 0, "%" PRIu64, n); }

size_t kiln_progress_line(struct kiln_progress *progress, const struct kiln_step_record *record,
                          uint64_t total, char *text, size_t size) {
    char buffer[40];
    struct line line = {text, size, 0};
    follow_step(progress, record);
    add(&line, "step %*" PRIu64 "/%" PRIu64, digits_of(total), record->step, total);
    add(&line, "  loss %.4f (%.4f)", record->loss, progress->smoothed);
    if (!isnan(record->val_loss)) {
        add(&line, "  held-out %.4f", record->val_loss);
        if (record->val_generation >= 0) {
            add(&line, " (of step %" PRId64 ")", record->val_generation);
        }
    }
    if (!record->skipped) {
        add(&line, "  norm %.2f", record->grad_norm);
    }
    add(&line, "  lr %.2e", record->lr);
    add(&line, record->ms < 99.95 ? "  %.1f ms" : "  %.0f ms", record->ms);
    add(&line, "  %s tok/s", human_count(record->tokens_per_s, buffer, sizeof buffer));
    add(&line, "  %s/s", kiln_human_tflop(record->tflops, buffer, sizeof buffer));
    if (record->step < total) {
        const double left = progress->seconds * (double)(total - record->step);
        add(&line, "  %s left", kiln_human_time(left, buffer, sizeof buffer));
    }
    add(&line, "  %s", kiln_human_bytes((double)record->peak_bytes, buffer, sizeof buffer));
    if (record->skipped) {
        add(&line, "  skipped: the gradient overflowed");
    }
    return line.length;
}
