/* SPDX-License-Identifier: MIT
 *
 * ranks.c: sums over ranks, one and many, in virtual time.
 */
#include "plan/ranks.h"

#include <math.h>

const char *kiln_allreduce_name(enum kiln_allreduce kind) {
    static const char *const names[KILN_ALLREDUCES] = {"ring", "halving", "doubling"};
    return names[kind];
}

/* ---- one sum ----------------------------------------------------------------------------------
 */

struct kiln_sum kiln_allreduce(const struct kiln_wire *wire, enum kiln_allreduce kind,
                               double floats) {
    const double n = (double)wire->ranks;
    const double rounds = wire->ranks > 0 ? floor(log2(n)) : 0;
    const double part = kind == KILN_ALLREDUCE_RING ? (n - 1) / n : 1 - exp2(-rounds);
    double messages = 0, sent = 0, added = 0;
    if (wire->ranks <= 1) {
        return (struct kiln_sum){0};
    }
    if (kind == KILN_ALLREDUCE_DOUBLING) {
        messages = rounds;
        sent = added = rounds * floats;
    } else {
        messages = kind == KILN_ALLREDUCE_RING ? 2 * (n - 1) : 2 * rounds;
        sent = 2 * part * floats;
        added = part * floats;
    }
    double travels = sent;
    if (kind != KILN_ALLREDUCE_RING && exp2(rounds) < n) {
        /* Each rank beyond a power of two hands its floats to a partner, and gets the result. In
         * halving both add a half first, and the partner then gets the other half. */
        const bool halves = kind == KILN_ALLREDUCE_HALVING;
        messages += halves ? 3 : 2;
        travels += 2 * floats;
        added += halves ? floats / 2 : floats;
        sent += halves ? 1.5 * floats : floats;
    }
    return (struct kiln_sum){.latency_s = messages * wire->message_s,
                             .transfer_s = travels * wire->float_s + added * wire->sum_s,
                             .floats = sent};
}

/* Does it end before the other, beside one like it; if not later there, then alone? */
static bool is_faster(struct kiln_sum sum, struct kiln_sum than) {
    const double alone = sum.latency_s + sum.transfer_s;
    const double others = than.latency_s + than.transfer_s;
    const double pair = fmax(alone, 2 * sum.transfer_s);
    const double other_pair = fmax(others, 2 * than.transfer_s);
    return pair < other_pair || (pair == other_pair && alone < others);
}

enum kiln_allreduce kiln_allreduce_fastest(const struct kiln_wire *wire, double floats) {
    enum kiln_allreduce best = KILN_ALLREDUCE_RING;
    for (int kind = 1; kind < KILN_ALLREDUCES; kind++) {
        const enum kiln_allreduce other = (enum kiln_allreduce)kind;
        if (is_faster(kiln_allreduce(wire, other, floats), kiln_allreduce(wire, best, floats))) {
            best = other;
        }
    }
    return best;
}

/* ---- many, two at a time ----------------------------------------------------------------------
 */

struct stretch {
    double left_s; /* until it is done, if the link is not wanted too much */
    double share;  /* of the link that it wants */
    bool whole;    /* it has as many floats as a stretch may have */
};

struct line {
    const struct kiln_wire *wire;
    double now, busy, floats;
    struct stretch under_way[KILN_UNDER_WAY];
    size_t n;
};

/* So many times as long everything takes. */
static double slowness(const struct line *line) {
    double wanted = 0;
    for (size_t i = 0; i < line->n; i++) {
        wanted += line->under_way[i].share;
    }
    return wanted > 1 ? wanted : 1;
}

/* The one that is done first, if nothing joins. */
static size_t first_of(const struct line *line) {
    size_t first = 0;
    for (size_t i = 1; i < line->n; i++) {
        first = line->under_way[i].left_s < line->under_way[first].left_s ? i : first;
    }
    return first;
}

static double seconds_to(const struct line *line, size_t which) {
    return line->under_way[which].left_s * slowness(line);
}

static void pass(struct line *line, double seconds) {
    const double slow = slowness(line);
    for (size_t i = 0; i < line->n; i++) {
        line->under_way[i].left_s -= seconds / slow;
    }
    line->now += seconds;
    line->busy += seconds;
}

static void end_one(struct line *line) {
    const size_t first = first_of(line);
    pass(line, seconds_to(line, first));
    line->under_way[first] = line->under_way[--line->n];
}

/* Time goes on until then. */
static void wait_until(struct line *line, double then) {
    while (line->n > 0 && line->now + seconds_to(line, first_of(line)) <= then) {
        end_one(line);
    }
    if (line->now < then) {
        pass(line, line->n > 0 ? then - line->now : 0);
        line->now = then;
    }
}

static void start(struct line *line, double floats) {
    const struct kiln_sum sum =
        kiln_allreduce(line->wire, kiln_allreduce_fastest(line->wire, floats), floats);
    const double seconds = sum.latency_s + sum.transfer_s;
    line->floats += sum.floats;
    if (seconds > 0) {
        line->under_way[line->n++] =
            (struct stretch){seconds, sum.transfer_s / seconds, floats == KILN_STRETCH};
    }
}

/* While all that is under way are whole stretches and more of them wait, they end one as long after
 * the other as the one before, so that many are taken at once. Returns the floats that are left. */
static double repeat(struct line *line, double floats) {
    const enum kiln_allreduce kind = kiln_allreduce_fastest(line->wire, KILN_STRETCH);
    const struct kiln_sum sum = kiln_allreduce(line->wire, kind, KILN_STRETCH);
    const double times = floor(floats / ((double)KILN_UNDER_WAY * KILN_STRETCH));
    const double each = sum.latency_s + sum.transfer_s;
    bool alike = line->n == KILN_UNDER_WAY || each <= 0; /* or nothing is ever under way */
    for (size_t i = 0; i < line->n; i++) {
        alike = alike && line->under_way[i].whole;
    }
    if (!alike || times < 1) {
        return floats;
    }
    const double seconds = times * each * slowness(line);
    line->now += seconds;
    line->busy += seconds;
    line->floats += times * KILN_UNDER_WAY * sum.floats;
    return floats - times * KILN_UNDER_WAY * KILN_STRETCH;
}

static void send(struct line *line, const struct kiln_bucket *bucket) {
    wait_until(line, bucket->ready_s);
    double left = repeat(line, bucket->floats);
    while (left > 0) {
        if (line->n == KILN_UNDER_WAY) {
            end_one(line);
        }
        const double floats = left < KILN_STRETCH ? left : KILN_STRETCH;
        start(line, floats);
        left = repeat(line, left - floats);
    }
}

struct kiln_reduced kiln_wire_reduce(const struct kiln_wire *wire,
                                     const struct kiln_bucket *buckets, size_t n) {
    struct line line = {.wire = wire, .now = -INFINITY};
    if (wire->ranks <= 1) {
        return (struct kiln_reduced){.end_s = -INFINITY};
    }
    for (size_t i = 0; i < n; i++) {
        send(&line, &buckets[i]);
    }
    while (line.n > 0) {
        end_one(&line);
    }
    return (struct kiln_reduced){line.now, line.busy, line.floats};
}
