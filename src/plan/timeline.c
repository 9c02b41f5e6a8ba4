/* SPDX-License-Identifier: MIT */
#include "plan/timeline.h"

#include "plan/groups.h"

static double later(double a, double b) { return a > b ? a : b; }

/* Does anything compile at that moment? *until: the next moment at which the answer may change. */
static bool busy(const struct kiln_timeline *t, double at, double *until) {
    const bool own = at < t->compiler;
    const bool seen = t->succeeded && !t->rates->apart;
    const bool other = seen && at >= t->from && at < t->to;
    *until = 0;
    if (own) {
        *until = t->compiler;
    } else if (seen && at < t->from && t->from < t->to) {
        *until = t->from;
    }
    if (other && t->to > *until) {
        *until = t->to;
    }
    return own || other;
}

/* Work of the device, slower while something compiles. */
static void run(struct kiln_timeline *t, double work) {
    const double begin = t->now;
    while (work > 0) {
        double until;
        const double pace = busy(t, t->now, &until) ? t->rates->beside : 1;
        if (until <= t->now || t->now + work * pace <= until) {
            t->now += work * pace;
            break;
        }
        work -= (until - t->now) / pace;
        t->now = until;
    }
    t->compute += t->now - begin;
}

static void stall(struct kiln_timeline *t, double until) {
    if (until > t->now) {
        t->stall += until - t->now;
        t->now = until;
    }
}

double kiln_timeline_compile(struct kiln_timeline *t, double from, double seconds) {
    t->compiler = later(t->compiler, from) + seconds;
    t->compile += seconds;
    if (t->waits) {
        stall(t, t->compiler);
    }
    return t->compiler;
}

/* Gradients are written; until the window's end they may be again. */
static void write_gradients(struct kiln_timeline *t, size_t which, double at) {
    if (t->whole != NULL) {
        t->whole[which] = at;
    }
}

void kiln_timeline_forward(struct kiln_timeline *t, size_t first, size_t end) {
    for (size_t l = first; l < end; l++) {
        stall(t, t->forward[l]);
        run(t, t->rates->forward);
    }
    if (end == t->layers) {
        stall(t, t->head_shares ? later(t->head, t->shared) : t->head);
        run(t, t->rates->head);
        t->now += t->rates->host_head;
        t->compute += t->rates->host_head;
        write_gradients(t, t->layers, t->now);
    }
}

static void drain(struct kiln_timeline *t) {
    if (t->queue > t->now) {
        t->compute += t->queue - t->now;
        t->now = t->queue;
    }
}

static void layer_backward(struct kiln_timeline *t, size_t layer) {
    stall(t, later(t->backward[layer], t->shared));
    run(t, t->rates->backward);
    t->queue = later(t->queue, t->now) + t->rates->dw;
    write_gradients(t, layer, t->queue);
}

void kiln_timeline_backward(struct kiln_timeline *t, size_t first, size_t end,
                            const unsigned char *keep, bool drains) {
    while (end > first) {
        if (keep[end - 1] == KILN_FULL) {
            layer_backward(t, --end);
            continue;
        }
        const size_t from = kiln_segment_first(keep, end - 1);
        for (size_t l = from; l < end; l++) {
            stall(t, t->forward[l]);
            run(t, t->rates->forward);
        }
        while (end > from) {
            layer_backward(t, --end);
        }
        drain(t); /* the next segment takes the place of its taps */
    }
    if (drains) {
        drain(t);
    }
}

void kiln_timeline_update(struct kiln_timeline *t, bool snapshot, bool swap) {
    const struct kiln_rates *r = t->rates;
    const double begin = t->now;
    write_gradients(t, t->layers + 1, begin);
    t->now += r->norm + r->update_rest;
    for (size_t l = 0; l < t->layers; l++) {
        t->now += r->update_layer;
        t->fresh[l] = t->now;
    }
    t->fresh[t->layers] = t->now;
    t->now += snapshot ? r->snapshot : 0;
    t->update += t->now - begin;
    if (swap) {
        stall(t, t->next);
    }
}

void kiln_timeline_succeed(struct kiln_timeline *t, double first, double seconds, bool knows) {
    t->succeeded = true;
    t->knows = knows;
    t->from = t->now + t->rates->restart;
    t->ready = t->from + first;
    t->to = t->from + seconds;
}

void kiln_timeline_restart(struct kiln_timeline *t) {
    const double begin = t->now;
    const bool compiled = t->succeeded && t->knows;
    if (t->succeeded) {
        t->now = later(t->now, t->from);
        t->restart += t->now - begin + t->rates->relay;
        stall(t, t->ready);
        t->now += t->rates->relay;
    } else {
        t->now += t->rates->restart;
        t->restart += t->rates->restart;
    }
    t->succeeded = false;
    t->queue = t->now;
    t->compiler = compiled ? t->from : t->now;
    for (size_t l = 0; l <= t->layers; l++) {
        t->fresh[l] = t->now;
    }
}
