/* SPDX-License-Identifier: MIT
 *
 * view.c: see kiln/view.h. Opens and polls a view, and follows metrics.jsonl.
 *
 * The file only grows, but for one thing: whoever resumes a run cuts it to what the cursor counts
 * and goes on from there. So what is there always begins with the very lines of before, up to the
 * cut; where it ends is found by the checksums of lines, in a few reads.
 */
#include "kiln/view.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/mem.h"
#include "report/human.h"
#include "report/view_int.h"
#include "train/metrics_read.h"

enum { CHUNK = 1 << 18, MOST_LINE = 1 << 16 };

void kiln_view_path(const struct kiln_view *view, const char *name, char out[4300]) {
    snprintf(out, 4300, "%s/%s", view->folder, name);
}

bool kiln_seen_change(struct kiln_seen *seen, const char *path) {
    struct stat st;
    struct kiln_seen now = {.there = false};
    if (stat(path, &st) == 0) {
        now.device = (uint64_t)st.st_dev;
        now.inode = (uint64_t)st.st_ino;
        now.size = (uint64_t)st.st_size;
        now.seconds = (int64_t)st.st_mtim.tv_sec;
        now.nanoseconds = (int64_t)st.st_mtim.tv_nsec;
        now.there = true;
    }
    const bool same = now.there == seen->there && now.device == seen->device &&
                      now.inode == seen->inode && now.size == seen->size &&
                      now.seconds == seen->seconds && now.nanoseconds == seen->nanoseconds;
    *seen = now;
    return !same;
}

/* ---- metrics.jsonl -----------------------------------------------------------------------------
 */

size_t kiln_view_find(const struct kiln_view *view, uint64_t step) {
    size_t low = 0, high = view->n_rows;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (view->rows[middle].record.step < step) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Is the line of this row still where it was? */
static bool line_is_there(int fd, const struct kiln_view_row *row) {
    char line[MOST_LINE];
    return pread(fd, line, row->bytes, (off_t)row->start) == (ssize_t)row->bytes &&
           kiln_crc32c(0, line, row->bytes) == row->crc;
}

/* Rows whose lines the file still has. */
static size_t rows_that_stay(int fd, const struct kiln_view *view) {
    size_t low = 0, high = view->n_rows;
    if (high > 0 && line_is_there(fd, &view->rows[high - 1])) {
        return high;
    }
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (line_is_there(fd, &view->rows[middle])) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static enum kiln_status add_row(struct kiln_view *view, const struct kiln_step_record *record,
                                uint64_t start, const char *line, size_t bytes, size_t *first,
                                struct kiln_err *err) {
    size_t at = view->n_rows;
    if (at > 0 && record->step <= view->rows[at - 1].record.step) {
        at = kiln_view_find(view, record->step); /* taken again */
    }
    if (at == view->room) {
        const size_t room = view->room + view->room / 2 + 256;
        struct kiln_view_row *grown =
            kiln_realloc(view->rows, view->room, room, sizeof *view->rows);
        KILN_REQUIRE(grown, err, KILN_ENOMEM, "%s: no memory for %zu steps", view->folder, room);
        view->rows = grown;
        view->room = room;
    }
    const double before = at > 0 ? view->rows[at - 1].smoothed : (double)NAN;
    view->rows[at] = (struct kiln_view_row){.record = *record,
                                            .smoothed = kiln_smoothed(before, record->loss),
                                            .start = start,
                                            .bytes = (uint32_t)bytes,
                                            .crc = kiln_crc32c(0, line, bytes),
                                            .line = view->lines,
                                            .unread = view->n_unread};
    view->n_rows = at + 1;
    *first = at < *first ? at : *first;
    return KILN_OK;
}

static void add_unread(struct kiln_view *view, uint32_t line) {
    if (view->n_unread < KILN_VIEW_UNREAD) {
        view->unread[view->n_unread] = line;
    }
    view->n_unread++;
}

size_t kiln_view_unread(const struct kiln_view *view, char *text) {
    const size_t whole = view->n_unread, n = whole + view->torn;
    size_t used = 0;
    text[0] = '\0';
    if (n > 0) {
        used = (size_t)snprintf(text, KILN_VIEW_TEXT,
                                "%zu line%s of metrics.jsonl cannot be read:", n, n > 1 ? "s" : "");
    }
    for (size_t i = 0; i < n && i < KILN_VIEW_UNREAD; i++) {
        used += (size_t)snprintf(text + used, KILN_VIEW_TEXT - used, "%s %u", i > 0 ? "," : "",
                                 i < whole ? view->unread[i] : view->lines + 1);
    }
    if (n > KILN_VIEW_UNREAD) {
        snprintf(text + used, KILN_VIEW_TEXT - used, ", ...");
    }
    return n;
}

/* The whole lines of a chunk; *used: bytes of it that need not be read again. */
static enum kiln_status read_lines(struct kiln_view *view, const char *chunk, size_t size,
                                   size_t *used, size_t *first, struct kiln_err *err) {
    const char *at = chunk, *const end = chunk + size;
    for (const char *newline; (newline = memchr(at, '\n', (size_t)(end - at))) != NULL;
         at = newline + 1) {
        struct kiln_step_record record;
        const size_t bytes = (size_t)(newline - at);
        view->lines++;
        if (bytes < MOST_LINE && kiln_metrics_read(at, bytes, &record)) {
            KILN_TRY(add_row(view, &record, view->read_to + (uint64_t)(at - chunk), at, bytes,
                             first, err));
        } else if (bytes > 0) {
            add_unread(view, view->lines);
        }
    }
    *used = (size_t)(at - chunk);
    return KILN_OK;
}

static enum kiln_status read_on(struct kiln_view *view, int fd, char *chunk, size_t *first,
                                struct kiln_err *err) {
    for (;;) {
        size_t used;
        const ssize_t n = pread(fd, chunk, CHUNK, (off_t)view->read_to);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        KILN_REQUIRE(n >= 0, err, KILN_EIO, "%s/metrics.jsonl: %s", view->folder, strerror(errno));
        KILN_TRY(read_lines(view, chunk, (size_t)n, &used, first, err));
        if (used == 0 && n < CHUNK) {
            view->torn = n > 0;
            return KILN_OK; /* the end, or a line that is still being written */
        }
        view->read_to += used > 0 ? used : (size_t)n; /* a line without end is nobody's */
    }
}

static enum kiln_status read_metrics(struct kiln_view *view, size_t *first, struct kiln_err *err) {
    char path[4300];
    kiln_view_path(view, "metrics.jsonl", path);
    *first = view->n_rows;
    if (!kiln_seen_change(&view->metrics_seen, path)) {
        return KILN_OK;
    }
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    KILN_REQUIRE(fd >= 0 || errno == ENOENT, err, KILN_EIO, "%s: %s", path, strerror(errno));
    const size_t stay = fd >= 0 ? rows_that_stay(fd, view) : 0;
    if (stay < view->n_rows || stay == 0 || view->metrics_seen.size < view->read_to) {
        view->n_rows = *first = stay;
        view->lines = stay > 0 ? view->rows[stay - 1].line : 0;
        view->n_unread = stay > 0 ? view->rows[stay - 1].unread : 0;
        view->read_to = stay > 0 ? view->rows[stay - 1].start + view->rows[stay - 1].bytes + 1 : 0;
    }
    view->torn = false;
    if (fd < 0) {
        return KILN_OK;
    }
    char *chunk = kiln_alloc(CHUNK, 1);
    enum kiln_status status = chunk != NULL
                                  ? read_on(view, fd, chunk, first, err)
                                  : KILN_FAIL(err, KILN_ENOMEM, "%s: no memory to read it", path);
    kiln_free(chunk);
    close(fd);
    return status;
}

size_t kiln_view_steps(const struct kiln_view *view) { return view->n_rows; }

const struct kiln_step_record *kiln_view_step(const struct kiln_view *view, size_t i) {
    return i < view->n_rows ? &view->rows[i].record : NULL;
}

double kiln_view_smoothed(const struct kiln_view *view, size_t i) {
    return i < view->n_rows ? view->rows[i].smoothed : (double)NAN;
}

/* ---- the view ----------------------------------------------------------------------------------
 */

const char *kiln_view_folder(const struct kiln_view *view) { return view->folder; }
const char *kiln_view_name(const struct kiln_view *view) { return view->name; }

static enum kiln_status check_folder(const struct kiln_view *view, bool first,
                                     struct kiln_err *err) {
    char run[4300], metrics[4300];
    kiln_view_path(view, "run.json", run);
    kiln_view_path(view, "metrics.jsonl", metrics);
    KILN_REQUIRE(
        kiln_path_exists(run) || kiln_path_exists(metrics), err, first ? KILN_EINPUT : KILN_EIO,
        "%s is no run folder: neither run.json nor metrics.jsonl is in it; name one that kiln "
        "train made",
        view->folder);
    return KILN_OK;
}

static enum kiln_status poll(struct kiln_view *view, struct kiln_view_change *change,
                             struct kiln_err *err) {
    bool run = false, checkpoints = false;
    *change = (struct kiln_view_change){.first_step = view->n_rows};
    KILN_TRY(read_metrics(view, &change->first_step, err));
    KILN_TRY(kiln_view_read_run(view, &run, err));
    KILN_TRY(kiln_view_read_checkpoints(view, &checkpoints, err));
    KILN_TRY(kiln_view_read_samples(view, &change->samples, err));
    KILN_TRY(kiln_view_read_incidents(view, &change->incidents, err));
    KILN_TRY(kiln_view_read_trace(view, &change->timeline, err));
    change->facts = run || checkpoints;
    return KILN_OK;
}

enum kiln_status kiln_view_poll(struct kiln_view *view, struct kiln_view_change *change,
                                struct kiln_err *err) {
    const size_t before = view->n_rows;
    *change = (struct kiln_view_change){.first_step = before};
    KILN_TRY(check_folder(view, false, err));
    const enum kiln_status status = poll(view, change, err);
    change->any = change->first_step < before || view->n_rows != before || change->samples ||
                  change->facts || change->incidents || change->timeline;
    return status;
}

/* The last part of the folder's path: of "runs/book/" and of "." too. */
static const char *find_name(struct kiln_view *view) {
    size_t n = strlen(view->folder);
    while (n > 1 && view->folder[n - 1] == '/') {
        view->folder[--n] = '\0';
    }
    const char *slash = strrchr(view->folder, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : view->folder;
}

enum kiln_status kiln_view_open(const char *folder, struct kiln_view **out, struct kiln_err *err) {
    *out = NULL;
    KILN_REQUIRE(folder[0] != '\0' && strlen(folder) < sizeof(*out)->folder - 1, err, KILN_EINPUT,
                 "run folder: the path is empty or too long");
    struct kiln_view *view = kiln_alloc(1, sizeof *view);
    KILN_REQUIRE(view, err, KILN_ENOMEM, "%.300s: no memory to look at it", folder);
    struct kiln_view_change change;
    snprintf(view->folder, sizeof view->folder, "%s", folder);
    view->name = find_name(view);
    enum kiln_status status = check_folder(view, true, err);
    if (status == KILN_OK) {
        status = poll(view, &change, err);
    }
    if (status != KILN_OK) {
        kiln_view_close(view);
        return status;
    }
    *out = view;
    return KILN_OK;
}

void kiln_view_close(struct kiln_view *view) {
    if (view == NULL) {
        return;
    }
    kiln_view_drop_run(view);
    kiln_view_drop_samples(view);
    kiln_view_drop_incidents(view);
    kiln_trace_spans_free(&view->trace);
    kiln_free(view->checkpoints);
    kiln_free(view->rows);
    kiln_free(view);
}
