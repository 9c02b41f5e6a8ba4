/* SPDX-License-Identifier: MIT
 *
 * view_trace.c: trace.json as spans that a page can draw.
 *
 * Events are lines (docs/formats.md). A step may have tens of thousands: neighbours of one kind in
 * one row are put together where little lies between them, at first where nothing does, then where
 * more and more does, until there are few enough.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/spans.h"
#include "report/view_int.h"
#include "train/metrics_read.h"

enum { ROWS = 1000 };

void kiln_trace_spans_free(struct kiln_trace_spans *spans) {
    kiln_free(spans->at);
    kiln_free(spans->names);
    *spans = (struct kiln_trace_spans){.n = 0};
}

/* ---- one event ---------------------------------------------------------------------------------
 */

struct event {
    const char *at, *end;
};

/* Behind "KEY": in the event; NULL: it has none. */
static const char *value_of(struct event e, const char *key) {
    const size_t n = strlen(key);
    const char *found = memmem(e.at, (size_t)(e.end - e.at), key, n);
    return found != NULL ? found + n : NULL;
}

static bool number_of(struct event e, const char *key, double *out) {
    const char *at = value_of(e, key);
    return at != NULL && kiln_read_double(at, e.end, out) != NULL && isfinite(*out);
}

/* At most `most`, as a whole number; `none` where it is absent or no such number. */
static int64_t whole_of(struct event e, const char *key, double most, int64_t none) {
    double number;
    return number_of(e, key, &number) && number >= 0 && number <= most ? (int64_t)number : none;
}

/* Names are kiln's own: letters, digits, "_", ".", " ". Anything else is not shown. */
static bool name_of(struct event e, const char *key, const char **name, size_t *n) {
    const char *at = value_of(e, key);
    const char *quote = at != NULL ? memchr(at, '"', (size_t)(e.end - at)) : NULL;
    if (quote == NULL || quote == at || quote - at > 60) {
        return false;
    }
    for (const char *c = at; c < quote; c++) {
        if (*c < ' ' || *c > '~' || *c == '\\') {
            return false;
        }
    }
    *name = at;
    *n = (size_t)(quote - at);
    return true;
}

static bool find_kind(const char *name, size_t n, enum kiln_span_kind *kind) {
    for (int k = 0; k < KILN_SPAN_KINDS; k++) {
        const char *one = kiln_span_kind_name((enum kiln_span_kind)k);
        if (strlen(one) == n && memcmp(one, name, n) == 0) {
            *kind = (enum kiln_span_kind)k;
            return true;
        }
    }
    return false;
}

/* False: no span, or none of ours. The name is the kind's where the event has no other. */
static bool read_event(struct event e, struct kiln_view_span *out) {
    const char *name;
    size_t n;
    enum kiln_span_kind kind;
    double start, duration;
    if (value_of(e, "\"ph\":\"X\"") == NULL || !name_of(e, "\"cat\":\"", &name, &n) ||
        !find_kind(name, n, &kind) || !number_of(e, "\"ts\":", &start) ||
        !number_of(e, "\"dur\":", &duration) || duration < 0 || fabs(start) > 1e15 ||
        duration > 1e15) {
        return false;
    }
    *out = (struct kiln_view_span){
        .start = start * 1e-6,
        .end = (start + duration) * 1e-6,
        .track = kiln_track_name(kiln_span_track(kind)),
        .kind = kiln_span_kind_name(kind),
        .name = kiln_span_kind_name(kind),
        .row = (uint32_t)(whole_of(e, "\"tid\":", 1e9, 0) % ROWS),
        .count = 1,
        .step = (uint64_t)whole_of(e, "\"step\":", 1e15, 0),
        .generation = whole_of(e, "\"generation\":", 1e15, -1),
        .layer = (int32_t)whole_of(e, "\"layer\":", 1e6, -1),
    };
    return true;
}

/* Names are few and occur often: each is kept once, so many of them; the others are their kind's.
 */
enum { NAMES = 256 };

static void keep_name(struct event e, struct kiln_trace_spans *spans, struct kiln_view_span *span) {
    const char *name;
    size_t n;
    if (!name_of(e, "\"name\":\"", &name, &n) ||
        (strlen(span->kind) == n && memcmp(name, span->kind, n) == 0)) {
        return;
    }
    size_t i = 0;
    while (i < spans->n_names &&
           (strlen(spans->names[i]) != n || memcmp(spans->names[i], name, n) != 0)) {
        i++;
    }
    if (i == spans->n_names && i < NAMES) {
        memcpy(spans->names[i], name, n); /* at most 60; zeros are behind it */
        spans->n_names++;
    }
    if (i < spans->n_names) {
        span->name = spans->names[i];
    }
}

/* ---- fewer ------------------------------------------------------------------------------------
 */

static int by_row(const void *a, const void *b) {
    const struct kiln_view_span *x = a, *y = b;
    const int track = strcmp(x->track, y->track);
    if (track != 0 || x->row != y->row) {
        return track != 0 ? track : (x->row > y->row) - (x->row < y->row);
    }
    if (x->start != y->start || x->end != y->end) {
        return x->start != y->start ? (x->start > y->start) - (x->start < y->start)
                                    : (x->end > y->end) - (x->end < y->end);
    }
    return strcmp(x->name, y->name);
}

static bool alike(const struct kiln_view_span *a, const struct kiln_view_span *b) {
    return a->track == b->track && a->row == b->row && a->kind == b->kind &&
           a->generation == b->generation && a->step == b->step;
}

static void put_together(struct kiln_view_span *into, const struct kiln_view_span *one) {
    into->name = into->name == one->name ? into->name : into->kind;
    into->end = one->end > into->end ? one->end : into->end;
    into->layer = into->layer == one->layer ? into->layer : -1;
    into->count += one->count;
}

/* Neighbours with at most `gap` seconds between them become one. */
static size_t merge(struct kiln_view_span *spans, size_t n, double gap) {
    size_t kept = n > 0;
    for (size_t i = 1; i < n; i++) {
        struct kiln_view_span *last = &spans[kept - 1];
        if (alike(last, &spans[i]) && spans[i].start - last->end <= gap) {
            put_together(last, &spans[i]);
        } else {
            spans[kept++] = spans[i];
        }
    }
    return kept;
}

/* Those that are left over where even that does not do: the longest stay. */
static int by_length(const void *a, const void *b) {
    const struct kiln_view_span *x = a, *y = b;
    const double of_x = x->end - x->start, of_y = y->end - y->start;
    return of_x != of_y ? (of_x < of_y) - (of_x > of_y) : by_row(a, b);
}

static size_t thin_out(struct kiln_view_span *spans, size_t n) {
    double first = (double)INFINITY, last = -(double)INFINITY;
    for (size_t i = 0; i < n; i++) {
        first = fmin(first, spans[i].start);
        last = fmax(last, spans[i].end);
    }
    for (size_t i = 0; i < n; i++) {
        spans[i].start -= first;
        spans[i].end -= first;
    }
    qsort(spans, n, sizeof *spans, by_row);
    for (double gap = (last - first) * 1e-6; n > KILN_VIEW_SPANS && gap <= last - first; gap *= 2) {
        n = merge(spans, n, gap);
        if (gap <= 0) {
            break;
        }
    }
    if (n > KILN_VIEW_SPANS) {
        qsort(spans, n, sizeof *spans, by_length);
        n = KILN_VIEW_SPANS;
        qsort(spans, n, sizeof *spans, by_row);
    }
    return n;
}

/* ---- the file ----------------------------------------------------------------------------------
 */

static enum kiln_status add_event(struct event e, struct kiln_trace_spans *spans, size_t *room,
                                  struct kiln_err *err) {
    struct kiln_view_span one;
    if (!read_event(e, &one)) {
        return KILN_OK;
    }
    if (spans->n == *room) {
        const size_t more = 2 * *room + 256;
        struct kiln_view_span *grown = kiln_realloc(spans->at, *room, more, sizeof *grown);
        KILN_REQUIRE(grown, err, KILN_ENOMEM, "trace.json: no memory for %zu spans", more);
        spans->at = grown;
        *room = more;
    }
    keep_name(e, spans, &one);
    spans->at[spans->n++] = one;
    return KILN_OK;
}

enum kiln_status kiln_trace_read(const char *text, size_t size, struct kiln_trace_spans *out,
                                 struct kiln_err *err) {
    const char *at = text, *const end = text + size;
    size_t room = 0;
    *out = (struct kiln_trace_spans){.names = kiln_alloc(NAMES, sizeof *out->names)};
    enum kiln_status status = out->names != NULL
                                  ? KILN_OK
                                  : KILN_FAIL(err, KILN_ENOMEM, "trace.json: no memory for names");
    while (status == KILN_OK && at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *line_end = newline != NULL ? newline : end;
        status = add_event((struct event){at, line_end}, out, &room, err);
        at = newline != NULL ? newline + 1 : end;
    }
    if (status != KILN_OK) {
        kiln_trace_spans_free(out);
        return status;
    }
    out->n = out->n > 0 ? thin_out(out->at, out->n) : 0;
    return KILN_OK;
}

/* Its beginning: a run may list all its steps, and a page draws the first. Bytes that were read. */
static size_t read_beginning(const char *path, char *out, size_t size) {
    size_t done = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && done < size) {
        const ssize_t n = pread(fd, out + done, size - done, (off_t)done);
        if (n <= 0 && !(n < 0 && errno == EINTR)) {
            break;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    if (fd >= 0) {
        close(fd);
    }
    return done;
}

enum kiln_status kiln_view_read_trace(struct kiln_view *view, bool *changed, struct kiln_err *err) {
    enum { MOST = 16 << 20 };
    char path[4300];
    kiln_view_path(view, "trace.json", path);
    *changed = kiln_seen_change(&view->trace_seen, path);
    if (!*changed) {
        return KILN_OK;
    }
    kiln_trace_spans_free(&view->trace);
    const size_t size = kiln_least(view->trace_seen.size, MOST);
    char *text = kiln_alloc(size, 1);
    KILN_REQUIRE(text, err, KILN_ENOMEM, "%s: no memory to read it", path);
    const size_t n = read_beginning(path, text, size);
    const enum kiln_status status = kiln_trace_read(text, n, &view->trace, err);
    kiln_free(text);
    return status;
}

size_t kiln_view_spans(const struct kiln_view *view) { return view->trace.n; }

const struct kiln_view_span *kiln_view_span(const struct kiln_view *view, size_t i) {
    return i < view->trace.n ? &view->trace.at[i] : NULL;
}
