/* SPDX-License-Identifier: MIT */
#include "base/spans.h"

#include <pthread.h>
#include <string.h>

#include "base/machine.h"
#include "base/mem.h"

struct list {
    struct kiln_span *at;
    size_t n, room;
};

struct kiln_spans {
    pthread_mutex_t lock;
    struct list now, taken;
    bool keep, pieces;
    double sums[KILN_SPAN_KINDS];
    int64_t generation, evaluated;
    int32_t micro_batch;
};

static const struct {
    const char *name;
    enum kiln_track track;
} kinds[KILN_SPAN_KINDS] = {
    [KILN_SPAN_EVALUATE] = {"evaluate", KILN_TRACK_DEVICE},
    [KILN_SPAN_PIECE] = {"piece", KILN_TRACK_DEVICE},
    [KILN_SPAN_STALL] = {"stall", KILN_TRACK_DEVICE},
    [KILN_SPAN_COMPILE] = {"compile", KILN_TRACK_COMPILER},
    [KILN_SPAN_DW] = {"dw", KILN_TRACK_HOST},
    [KILN_SPAN_DW_WAIT] = {"dw wait", KILN_TRACK_HOST},
    [KILN_SPAN_NORM] = {"norm", KILN_TRACK_OPTIMIZER},
    [KILN_SPAN_UPDATE] = {"update", KILN_TRACK_OPTIMIZER},
    [KILN_SPAN_SNAPSHOT] = {"snapshot", KILN_TRACK_OPTIMIZER},
    [KILN_SPAN_SURFACE] = {"surface", KILN_TRACK_IO},
    [KILN_SPAN_CHECKPOINT] = {"checkpoint", KILN_TRACK_IO},
    [KILN_SPAN_RESTART] = {"restart", KILN_TRACK_PROCESS},
    [KILN_SPAN_REDUCE] = {"reduce", KILN_TRACK_RANKS},
    [KILN_SPAN_STRETCH] = {"stretch", KILN_TRACK_RANKS},
    [KILN_SPAN_PASS] = {"pass", KILN_TRACK_RANKS},
    [KILN_SPAN_REDUCE_WAIT] = {"reduce wait", KILN_TRACK_RANKS},
    [KILN_SPAN_RANKS_WAIT] = {"wait", KILN_TRACK_RANKS},
};

const char *kiln_span_kind_name(enum kiln_span_kind kind) { return kinds[kind].name; }
enum kiln_track kiln_span_track(enum kiln_span_kind kind) { return kinds[kind].track; }

const char *kiln_track_name(enum kiln_track track) {
    static const char *const names[KILN_TRACKS] = {"device", "compiler", "host queue", "optimizer",
                                                   "I/O",    "process",  "ranks"};
    return names[track];
}

/* Do spans of the kind belong to the micro-batch that the owner is at? */
static bool of_micro_batch(enum kiln_span_kind kind) {
    return kind == KILN_SPAN_EVALUATE || kind == KILN_SPAN_STALL || kind == KILN_SPAN_DW ||
           kind == KILN_SPAN_DW_WAIT || kind == KILN_SPAN_SURFACE;
}

enum { FIRST_ROOM = 1024 };

enum kiln_status kiln_spans_create(struct kiln_spans **out, struct kiln_err *err) {
    struct kiln_spans *s = *out = kiln_alloc(1, sizeof *s);
    KILN_REQUIRE(s, err, KILN_ENOMEM, "no memory for spans of time");
    s->keep = true;
    s->generation = s->micro_batch = -1;
    s->evaluated = -1;
    pthread_mutex_init(&s->lock, NULL);
    return KILN_OK;
}

void kiln_spans_destroy(struct kiln_spans *s) {
    if (s) {
        pthread_mutex_destroy(&s->lock);
        kiln_free(s->now.at);
        kiln_free(s->taken.at);
        kiln_free(s);
    }
}

/* Room for one more. */
static bool grow(struct list *list) {
    if (list->n < list->room) {
        return true;
    }
    const size_t room = list->room ? 2 * list->room : FIRST_ROOM;
    struct kiln_span *more = kiln_realloc(list->at, list->room, room, sizeof *more);
    if (!more) {
        return false;
    }
    list->at = more;
    list->room = room;
    return true;
}

void kiln_spans_add(struct kiln_spans *s, const struct kiln_span *span) {
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->sums[span->kind] += span->end - span->start;
    if (span->kind == KILN_SPAN_EVALUATE) {
        s->evaluated = span->generation < 0 ? s->generation : span->generation;
    }
    if (s->keep && grow(&s->now)) {
        struct kiln_span *to = &s->now.at[s->now.n++];
        *to = *span;
        to->generation = to->generation < 0 ? s->generation : to->generation;
        if (to->micro_batch < 0 && of_micro_batch(span->kind)) {
            to->micro_batch = s->micro_batch;
        }
    }
    pthread_mutex_unlock(&s->lock);
}

void kiln_spans_at(struct kiln_spans *s, int64_t generation, int32_t micro_batch) {
    if (s) {
        pthread_mutex_lock(&s->lock);
        s->generation = generation;
        s->micro_batch = micro_batch;
        pthread_mutex_unlock(&s->lock);
    }
}

void kiln_spans_keep(struct kiln_spans *s, bool on) {
    if (s) {
        pthread_mutex_lock(&s->lock);
        s->keep = on;
        pthread_mutex_unlock(&s->lock);
    }
}

void kiln_spans_pieces(struct kiln_spans *s, bool on) {
    if (s) {
        s->pieces = on;
    }
}

void kiln_spans_piece(struct kiln_spans *s, const char *name, double *since) {
    if (s && s->pieces) {
        const struct kiln_span span = {.start = *since,
                                       .end = kiln_now_s(),
                                       .kind = KILN_SPAN_PIECE,
                                       .name = name,
                                       .layer = -1,
                                       .micro_batch = -1,
                                       .generation = -1};
        kiln_spans_add(s, &span);
        *since = span.end;
    }
}

double kiln_spans_sum(struct kiln_spans *s, enum kiln_span_kind kind) {
    double sum = 0.0;
    if (s) {
        pthread_mutex_lock(&s->lock);
        sum = s->sums[kind];
        pthread_mutex_unlock(&s->lock);
    }
    return sum;
}

void kiln_spans_take(struct kiln_spans *s, struct kiln_spans_taken *out) {
    *out = (struct kiln_spans_taken){.evaluated = -1};
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    const struct list list = s->now;
    s->now = s->taken; /* its memory is used again */
    s->now.n = 0;
    s->taken = list;
    memcpy(out->sums, s->sums, sizeof out->sums);
    memset(s->sums, 0, sizeof s->sums);
    out->evaluated = s->evaluated;
    s->evaluated = -1;
    pthread_mutex_unlock(&s->lock);
    out->list = list.at;
    out->n = list.n;
}
