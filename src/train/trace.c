/* SPDX-License-Identifier: MIT
 *
 * trace.c: see trace.h. One event is a line; all but the last end in a comma.
 */
#include "train/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/io_hook.h"
#include "base/kill_point.h"
#include "base/machine.h"
#include "base/mem.h"

#define HEAD "[\n"
#define TAIL "\n]\n"
enum { HEAD_BYTES = 2, TAIL_BYTES = 3 };
/* Rows of a track are told apart by the hundreds: a row is a thread that works on it. */
enum { ROWS = 1000 };

struct kiln_trace {
    char path[4300];
    int fd;                                 /* -1: there is no file yet */
    uint64_t length;                        /* to the end of the last event; 0: there is none */
    bool known;                             /* this process has said who it is, and: */
    double origin;                          /* kiln_now_s of 0 in the file */
    unsigned char named[KILN_TRACKS][ROWS]; /* rows whose name has been said */
};

enum kiln_status kiln_trace_create(const char *folder, struct kiln_trace **out,
                                   struct kiln_err *err) {
    struct kiln_trace *t = *out = kiln_alloc(1, sizeof *t);
    KILN_REQUIRE(t, err, KILN_ENOMEM, "no memory for a trace");
    snprintf(t->path, sizeof t->path, "%s/trace.json", folder);
    t->fd = -1;
    return KILN_OK;
}

void kiln_trace_destroy(struct kiln_trace *t) {
    if (t) {
        if (t->fd >= 0) {
            close(t->fd);
        }
        kiln_free(t);
    }
}

uint64_t kiln_trace_bytes(const struct kiln_trace *t) { return t->length; }

/* ---- the file --------------------------------------------------------------------------------
 */

static enum kiln_status failed(const struct kiln_trace *t, struct kiln_err *err) {
    return KILN_FAIL(err, KILN_EIO, "%s: %s; --trace-steps 0 does without it", t->path,
                     strerror(errno));
}

static enum kiln_status open_file(struct kiln_trace *t, int flags, struct kiln_err *err) {
    t->fd = KILN_IO(KILN_IO_CREATE, t->path, NULL, 0, open(t->path, flags, 0666));
    return t->fd < 0 && (errno != ENOENT || flags & O_CREAT) ? failed(t, err) : KILN_OK;
}

static enum kiln_status write_at(const struct kiln_trace *t, const char *text, size_t size,
                                 uint64_t at, struct kiln_err *err) {
    for (size_t done = 0; done < size;) {
        const ssize_t n = KILN_IO(KILN_IO_WRITE, t->path, NULL, size - done,
                                  pwrite(t->fd, text + done, size - done, (off_t)(at + done)));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n == 0 ? ENOSPC : errno;
            return failed(t, err);
        }
        done += (size_t)n;
    }
    return KILN_OK;
}

static bool read_at(const struct kiln_trace *t, char *out, size_t size, uint64_t at) {
    return pread(t->fd, out, size, (off_t)at) == (ssize_t)size;
}

/* Does an event end at `at`? */
static bool event_ends(const struct kiln_trace *t, uint64_t at) {
    char head[HEAD_BYTES], last[2];
    return at > HEAD_BYTES + sizeof last && read_at(t, head, sizeof head, 0) &&
           memcmp(head, HEAD, sizeof head) == 0 &&
           read_at(t, last, sizeof last, at - sizeof last) && memcmp(last, "}}", sizeof last) == 0;
}

/* Cut the file behind its events. */
static enum kiln_status end_file(const struct kiln_trace *t, off_t size, struct kiln_err *err) {
    const off_t whole = (off_t)(t->length ? t->length : HEAD_BYTES - 1) + TAIL_BYTES;
    char tail[TAIL_BYTES] = "";
    if (t->length == 0) {
        KILN_TRY(write_at(t, HEAD, HEAD_BYTES - 1, 0, err));
    }
    if (size != whole || !read_at(t, tail, sizeof tail, (uint64_t)whole - TAIL_BYTES) ||
        memcmp(tail, TAIL, sizeof tail) != 0) {
        KILN_TRY(write_at(t, TAIL, TAIL_BYTES, (uint64_t)whole - TAIL_BYTES, err));
    }
    if (size > whole && KILN_IO(KILN_IO_TRUNCATE, t->path, NULL, 0, ftruncate(t->fd, whole)) != 0) {
        return failed(t, err);
    }
    return KILN_OK;
}

enum kiln_status kiln_trace_begin(struct kiln_trace *t, uint64_t bytes, bool mid,
                                  struct kiln_err *err) {
    struct stat st;
    t->length = 0;
    t->known = false;
    memset(t->named, 0, sizeof t->named);
    if (t->fd < 0) {
        KILN_TRY(open_file(t, O_RDWR | O_CLOEXEC | O_NOFOLLOW, err));
    }
    if (t->fd < 0) {
        return KILN_OK;
    }
    if (fstat(t->fd, &st) != 0) {
        return failed(t, err);
    }
    const uint64_t all = st.st_size > TAIL_BYTES ? (uint64_t)st.st_size - TAIL_BYTES : 0;
    t->length = mid && event_ends(t, all) ? all : event_ends(t, bytes) ? bytes : 0;
    return end_file(t, st.st_size, err);
}

/* ---- time --------------------------------------------------------------------------------------
 * Each process says its boot and the origin that it counts from; those of one boot agree.
 */

/* Of the last text of the form KEY in the file; NULL: none. */
static const char *last_of(const char *text, const char *key) {
    const char *found = NULL;
    for (const char *at = strstr(text, key); at; at = strstr(at + 1, key)) {
        found = at + strlen(key);
    }
    return found;
}

/* Microseconds at which the last span ends. */
static double last_end(const char *text) {
    double end = 0;
    for (const char *at = strstr(text, "\"ts\":"); at; at = strstr(at + 1, "\"ts\":")) {
        char *rest;
        double one = strtod(at + 5, &rest);
        one += strncmp(rest, ",\"dur\":", 7) == 0 ? strtod(rest + 7, NULL) : 0;
        end = one > end ? one : end;
    }
    return end;
}

/* Where 0 lies: as the processes before had it, or in another boot such that `first` comes behind
 * all that there is. */
static enum kiln_status find_origin(struct kiln_trace *t, const char *boot, double first,
                                    struct kiln_err *err) {
    char *text, same[80];
    size_t size;
    t->origin = first;
    if (t->length == 0) {
        return KILN_OK;
    }
    snprintf(same, sizeof same, "\"boot\":\"%s\",\"origin\":", boot);
    char head[256] = ""; /* most runs know one boot: that of the first event */
    const char *in_head = pread(t->fd, head, sizeof head - 1, 0) > 0 ? strstr(head, same) : NULL;
    if (in_head) {
        t->origin = strtod(in_head + strlen(same), NULL);
        return KILN_OK;
    }
    KILN_TRY(kiln_read_file(t->path, &text, &size, err));
    const char *origin = last_of(text, same);
    t->origin = origin ? strtod(origin, NULL) : first - last_end(text) * 1e-6;
    kiln_free(text);
    return KILN_OK;
}

/* ---- events ------------------------------------------------------------------------------------
 */

/* A text that grows. `failed` when memory ran out. */
struct text {
    char *at;
    size_t length, room;
    bool failed;
};

static void add(struct text *text, const char *fmt, ...) KILN_PRINTF(2, 3);
static void add(struct text *text, const char *fmt, ...) {
    enum { MOST = 512 }; /* of one call */
    if (!text->failed && text->room - text->length < MOST) {
        const size_t room = 2 * text->room + 16 * MOST;
        char *grown = kiln_realloc(text->at, text->room, room, 1);
        text->failed = grown == NULL;
        text->at = grown ? grown : text->at;
        text->room = grown ? room : text->room;
    }
    if (!text->failed) {
        va_list args;
        va_start(args, fmt);
        const int n = vsnprintf(text->at + text->length, MOST, fmt, args);
        va_end(args);
        text->length += n > 0 && n < MOST ? (size_t)n : 0;
    }
}

/* Between events. */
static void begin_event(const struct kiln_trace *t, struct text *text) {
    add(text, "%s\n", t->length == 0 && text->length == 0 ? "[" : ",");
}

static int row_of(const struct kiln_span *s) {
    return (int)(s->thread < ROWS ? s->thread : ROWS - 1);
}
static int tid_of(const struct kiln_span *s) {
    return ((int)kiln_span_track(s->kind) + 1) * ROWS + row_of(s);
}

/* The row's name, once a process. */
static void name_row(struct kiln_trace *t, struct text *text, const struct kiln_span *s) {
    const enum kiln_track track = kiln_span_track(s->kind);
    const int row = row_of(s);
    char number[24] = "";
    if (t->named[track][row]) {
        return;
    }
    t->named[track][row] = 1;
    if (row > 0) {
        snprintf(number, sizeof number, " %d", row);
    }
    begin_event(t, text);
    add(text,
        "{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":%ld,\"tid\":%d,"
        "\"args\":{\"name\":\"%s%s\"}}",
        (long)getpid(), tid_of(s), kiln_track_name(track), number);
}

static void span_event(struct kiln_trace *t, struct text *text, const struct kiln_span *s,
                       uint64_t step, bool evaluation) {
    const char *kind = kiln_span_kind_name(s->kind);
    name_row(t, text, s);
    begin_event(t, text);
    add(text,
        "{\"name\":\"%s\",\"cat\":\"%s\",\"ph\":\"X\",\"ts\":%.3f,\"dur\":%.3f,\"pid\":%ld,"
        "\"tid\":%d,\"args\":{\"step\":%" PRIu64,
        s->name ? s->name : kind, kind, (s->start - t->origin) * 1e6, (s->end - s->start) * 1e6,
        (long)getpid(), tid_of(s), step);
    if (s->generation >= 0) {
        add(text, ",\"generation\":%" PRId64, s->generation);
    }
    if (s->layer >= 0) {
        add(text, ",\"layer\":%" PRId32, s->layer);
    }
    if (s->micro_batch >= 0) {
        add(text, ",\"micro_batch\":%" PRId32, s->micro_batch);
    }
    add(text, "%s}}", evaluation ? ",\"evaluation\":true" : "");
}

/* Who this process is, before its first span. */
static enum kiln_status introduce(struct kiln_trace *t, struct text *text,
                                  const struct kiln_span *spans, size_t n, struct kiln_err *err) {
    char boot[40];
    double first = spans[0].start;
    for (size_t i = 1; i < n; i++) {
        first = spans[i].start < first ? spans[i].start : first;
    }
    kiln_boot_id(boot);
    KILN_TRY(find_origin(t, boot, first, err));
    begin_event(t, text);
    add(text,
        "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":%ld,\"tid\":0,\"args\":{\"name\":\"kiln\","
        "\"boot\":\"%.39s\",\"origin\":%.9f}}",
        (long)getpid(), boot, t->origin);
    t->known = true;
    return KILN_OK;
}

static enum kiln_status add_text(struct kiln_trace *t, struct text *text, struct kiln_err *err) {
    const size_t events = text->length;
    add(text, TAIL);
    KILN_REQUIRE(!text->failed, err, KILN_ENOMEM, "%s: no memory for %zu bytes of events", t->path,
                 text->length);
    if (t->fd < 0) {
        KILN_TRY(open_file(t, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, err));
    }
    kiln_kill_point("trace: before");
    KILN_TRY(write_at(t, text->at, text->length, t->length, err));
    kiln_kill_point("trace: written");
    t->length += events;
    return KILN_OK;
}

enum kiln_status kiln_trace_add(struct kiln_trace *t, const struct kiln_span *spans, size_t n,
                                uint64_t step, bool evaluation, struct kiln_err *err) {
    struct text text = {.at = NULL};
    enum kiln_status status = KILN_OK;
    if (n == 0) {
        return KILN_OK;
    }
    if (!t->known) {
        status = introduce(t, &text, spans, n, err);
    }
    for (size_t i = 0; status == KILN_OK && i < n; i++) {
        span_event(t, &text, &spans[i], step, evaluation);
    }
    if (status == KILN_OK) {
        status = add_text(t, &text, err);
    }
    kiln_free(text.at);
    return status;
}
