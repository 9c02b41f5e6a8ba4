/* SPDX-License-Identifier: MIT */
#include "base/spans.h"

#include <pthread.h>

#include "base/mem.h"

struct kiln_spans {
    pthread_mutex_t lock;
    struct kiln_span *at;
    size_t n, room;
    bool keep;
    double sums[KILN_SPAN_KINDS];
    int64_t generation;
    int32_t micro_batch;
};

static const struct {
    const char *name;
    enum kiln_track track;
} kinds[KILN_SPAN_KINDS] = {
    [KILN_SPAN_EVALUATE] = {"evaluate", KILN_TRACK_DEVICE},
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
};

const char *kiln_span_kind_name(enum kiln_span_kind kind) { return kinds[kind].name; }
enum kiln_track kiln_span_track(enum kiln_span_kind kind) { return kinds[kind].track; }

const char *kiln_track_name(enum kiln_track track) {
    static const char *const names[KILN_TRACKS] = {"device",    "compiler", "host queue",
                                                   "optimizer", "I/O",      "process"};
    return names[track];
}

enum { FIRST_ROOM = 4096 };

enum kiln_status kiln_spans_create(struct kiln_spans **out, struct kiln_err *err) {
    struct kiln_spans *s = *out = kiln_alloc(1, sizeof *s);
    struct kiln_span *at = kiln_alloc(FIRST_ROOM, sizeof *at);
    if (!s || !at) {
        kiln_free(s);
        kiln_free(at);
        *out = NULL;
        return KILN_FAIL(err, KILN_ENOMEM, "no memory for %d spans of time", FIRST_ROOM);
    }
    *s = (struct kiln_spans){
        .at = at, .room = FIRST_ROOM, .keep = true, .generation = -1, .micro_batch = -1};
    pthread_mutex_init(&s->lock, NULL);
    return KILN_OK;
}

void kiln_spans_destroy(struct kiln_spans *s) {
    if (s) {
        pthread_mutex_destroy(&s->lock);
        kiln_free(s->at);
        kiln_free(s);
    }
}

/* Room for one more. */
static bool grow(struct kiln_spans *s) {
    if (s->n < s->room) {
        return true;
    }
    struct kiln_span *more = kiln_realloc(s->at, s->room, 2 * s->room, sizeof *more);
    if (!more) {
        return false;
    }
    s->at = more;
    s->room *= 2;
    return true;
}

void kiln_spans_add(struct kiln_spans *s, const struct kiln_span *span) {
    if (!s) {
        return;
    }
    const bool owner = span->kind == KILN_SPAN_EVALUATE || span->kind == KILN_SPAN_SURFACE ||
                       span->kind == KILN_SPAN_STALL;
    pthread_mutex_lock(&s->lock);
    s->sums[span->kind] += span->end - span->start;
    if (s->keep && grow(s)) {
        struct kiln_span *to = &s->at[s->n++];
        *to = *span;
        to->generation = owner && to->generation < 0 ? s->generation : to->generation;
        to->micro_batch = owner && to->micro_batch < 0 ? s->micro_batch : to->micro_batch;
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

double kiln_spans_sum(const struct kiln_spans *s, enum kiln_span_kind kind) {
    return s ? s->sums[kind] : 0.0;
}

const struct kiln_span *kiln_spans_list(const struct kiln_spans *s, size_t *n) {
    *n = s ? s->n : 0;
    return s ? s->at : NULL;
}

void kiln_spans_clear(struct kiln_spans *s) {
    if (s) {
        pthread_mutex_lock(&s->lock);
        s->n = 0;
        for (int i = 0; i < KILN_SPAN_KINDS; i++) {
            s->sums[i] = 0.0;
        }
        pthread_mutex_unlock(&s->lock);
    }
}
