/* SPDX-License-Identifier: MIT
 *
 * progress.c: one line a step, and quantities as people read them.
 */
#include "kiln/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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

bool kiln_step_overflowed(const struct kiln_step_record *record) {
    return record->skipped && record->loss_scale > 0 && !isfinite(record->grad_norm);
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

/* Is its held-out loss the least so far? The first one is compared with nothing. */
static bool is_better(struct kiln_progress *progress, const struct kiln_step_record *record) {
    const bool first = progress->evaluations == 0;
    if (!isfinite(record->val_loss)) {
        return false;
    }
    const bool better = !first && record->val_loss < progress->best_val;
    progress->best_val = first || better ? record->val_loss : progress->best_val;
    progress->evaluations++;
    return better;
}

/* What a line has room for is decided by worth: the least is left out first, or made shorter. */
enum { MOST_FIELDS = 16, ALWAYS = 100, ESCAPE = 16 };
struct field {
    char text[64];
    int worth;
    char brief[32];     /* what it says in less room, "" for nothing less ... */
    int spared;         /* ... and what the rest of it is worth */
    const char *colour; /* an escape sequence, or NULL */
};
struct fields {
    struct field list[MOST_FIELDS];
    size_t n;
};

static struct field *add(struct fields *fields, int worth, const char *fmt, ...) KILN_PRINTF(3, 4);
static struct field *add(struct fields *fields, int worth, const char *fmt, ...) {
    struct field *field = &fields->list[fields->n++];
    va_list args;
    va_start(args, fmt);
    vsnprintf(field->text, sizeof field->text, fmt, args);
    va_end(args);
    field->worth = worth;
    field->brief[0] = '\0';
    field->colour = NULL;
    return field;
}

static void may_be(struct field *field, int spared, const char *fmt, ...) KILN_PRINTF(3, 4);
static void may_be(struct field *field, int spared, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(field->brief, sizeof field->brief, fmt, args);
    va_end(args);
    field->spared = spared;
}

static int digits_of(uint64_t n) { return snprintf(NULL, 0, "%" PRIu64, n); }

static void add_losses(struct fields *fields, const struct kiln_progress *progress,
                       const struct kiln_step_record *record, bool better) {
    /* Of a step that was evaluated the held-out loss is what nothing else tells. */
    add(fields, isnan(record->val_loss) ? ALWAYS : 95, "loss %.4f", record->loss);
    add(fields, 60, "(%.4f)", progress->smoothed);
    if (isnan(record->val_loss)) {
        return;
    }
    struct field *held_out = add(fields, ALWAYS, "held-out %.4f", record->val_loss);
    held_out->colour = better ? KILN_GREEN : NULL;
    may_be(held_out, 92, "val %.4f", record->val_loss);
    if (record->val_generation >= 0) {
        add(fields, 35, "(of step %" PRId64 ")", record->val_generation);
    }
}

static void add_all(struct fields *fields, const struct kiln_progress *progress,
                    const struct kiln_step_record *record, uint64_t total, bool better) {
    char buffer[40];
    may_be(add(fields, ALWAYS, "step %*" PRIu64 "/%" PRIu64, digits_of(total), record->step, total),
           94, "%" PRIu64 "/%" PRIu64, record->step, total);
    if (total > 0) {
        const double share = (double)record->step / (double)total;
        add(fields, 70, "%3.0f %%", floor(100 * (share < 1 ? share : 1)));
    }
    add_losses(fields, progress, record, better);
    if (!record->skipped) {
        add(fields, 40, "norm %.2f", record->grad_norm);
    }
    add(fields, 20, "lr %.2e", record->lr);
    add(fields, 30, record->ms < 99.95 ? "%.1f ms" : "%.0f ms", record->ms);
    add(fields, 50, "%s tok/s", human_count(record->tokens_per_s, buffer, sizeof buffer));
    add(fields, 10, "%s/s", kiln_human_tflop(record->tflops, buffer, sizeof buffer));
    if (record->step < total) {
        const double left = progress->seconds * (double)(total - record->step);
        add(fields, 80, "%s left", kiln_human_time(left, buffer, sizeof buffer));
    }
    add(fields, 15, "%s", kiln_human_bytes((double)record->peak_bytes, buffer, sizeof buffer));
    if (record->skipped) {
        struct field *skipped =
            add(fields, 90, "skipped: %s",
                kiln_step_overflowed(record) ? "the gradient overflowed"
                                             : "its update was left out (--on-spike skip)");
        skipped->colour = KILN_YELLOW;
        may_be(skipped, 85, "skipped");
    }
}

/* What is in brackets belongs to the field before it: one blank between them. */
static size_t gap(const struct fields *fields, size_t i) {
    return i == 0 ? 0 : fields->list[i].text[0] == '(' ? 1 : 2;
}

static size_t width(const struct fields *fields) {
    size_t columns = 0;
    for (size_t i = 0; i < fields->n; i++) {
        columns += gap(fields, i) + strlen(fields->list[i].text);
    }
    return columns;
}

static int worth_of(const struct field *field) {
    return field->brief[0] != '\0' ? field->spared : field->worth;
}

static void leave_out(struct fields *fields, size_t columns) {
    while (width(fields) > columns) {
        size_t at = 0;
        for (size_t i = 1; i < fields->n; i++) {
            at = worth_of(&fields->list[i]) < worth_of(&fields->list[at]) ? i : at;
        }
        struct field *least = &fields->list[at];
        if (least->brief[0] != '\0') {
            snprintf(least->text, sizeof least->text, "%s", least->brief);
            least->brief[0] = '\0';
        } else if (least->worth == ALWAYS) {
            return;
        } else {
            memmove(least, least + 1, (fields->n - at - 1) * sizeof *least);
            fields->n--;
        }
    }
}

struct line {
    char *text;
    size_t size, length; /* length: what it would be in enough room */
};

static void put(struct line *line, const char *text, size_t most) {
    const size_t used = line->length < line->size ? line->length : line->size;
    const int n = snprintf(line->text + used, line->size - used, "%.*s", (int)most, text);
    line->length += n > 0 ? (size_t)n : 0;
}

size_t kiln_progress_line(struct kiln_progress *progress, const struct kiln_step_record *record,
                          uint64_t total, char *text, size_t size) {
    struct fields fields = {.n = 0};
    struct line line = {text, size, 0};
    size_t left = progress->columns > 0 ? progress->columns : SIZE_MAX;
    follow_step(progress, record);
    add_all(&fields, progress, record, total, is_better(progress, record));
    leave_out(&fields, left);
    for (size_t i = 0; i < fields.n; i++) {
        const struct field *field = &fields.list[i];
        const size_t blanks = gap(&fields, i), n = strlen(field->text);
        const bool coloured = progress->colours && field->colour && blanks + n <= left;
        put(&line, "  ", blanks < left ? blanks : left);
        left -= blanks < left ? blanks : left;
        put(&line, coloured ? field->colour : "", ESCAPE);
        put(&line, field->text, n < left ? n : left);
        put(&line, coloured ? KILN_PLAIN : "", ESCAPE);
        left -= n < left ? n : left;
    }
    return line.length;
}
