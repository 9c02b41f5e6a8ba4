/* SPDX-License-Identifier: MIT
 *
 * ranks.c: sums over ranks, one and many, in virtual time.
 */
#include "plan/ranks.h"

#include <math.h>

#include "ranks/ranks.h"
#include "ranks/tree.h"

const char *kiln_allreduce_name(enum kiln_allreduce kind) {
    static const char *const names[KILN_ALLREDUCES] = {"direct", "halving"};
    return names[kind];
}

/* ---- one sum ----------------------------------------------------------------------------------
 */

struct kiln_nodes kiln_nodes_of(size_t ranks, uint64_t micro_batches) {
    struct kiln_nodes nodes = {0};
    for (size_t rank = 0; rank < ranks; rank++) {
        const struct kiln_share s = kiln_share_of(micro_batches, ranks, rank);
        const size_t n = kiln_tree_nodes(s.first, s.first + s.n);
        nodes.most = n > nodes.most ? n : nodes.most;
        nodes.all += n;
    }
    return nodes;
}

enum kiln_allreduce kiln_allreduce_kind(const struct kiln_wire *wire) {
    const bool any = wire->nodes.all > 0 || wire->parts || wire->narrow;
    return any || wire->ranks <= KILN_RANKS_DIRECT ? KILN_ALLREDUCE_DIRECT : KILN_ALLREDUCE_HALVING;
}

static struct kiln_sum direct(const struct kiln_wire *wire, double floats) {
    const bool tree = wire->nodes.all > 0;
    const double n = (double)wire->ranks, part = floats / n;
    const double own = tree ? (double)wire->nodes.most : 1;
    const double all = tree ? (double)wire->nodes.all : n;
    const double shared = wire->parts ? 0 : 1; /* what was summed goes to all others */
    const double sent = (own + shared) * (n - 1) * part;
    return (struct kiln_sum){.latency_s = (1 + shared) * wire->message_s,
                             .transfer_s = sent * wire->float_s + (all - 1) * part * wire->sum_s,
                             .floats = sent};
}

static struct kiln_sum halving(const struct kiln_wire *wire, double floats) {
    const double n = (double)wire->ranks, rounds = floor(log2(n)), most = 1 - exp2(-rounds);
    double messages = 2 * rounds, sent = 2 * most * floats, added = most * floats, travels = sent;
    if (exp2(rounds) < n) {
        /* Each rank beyond a power of two hands a half to a partner and gets the other, both add;
         * the partner gets the half that was added, and at the end returns the result. */
        messages += 3;
        travels += 2 * floats;
        added += floats / 2;
        sent += 1.5 * floats;
    }
    return (struct kiln_sum){.latency_s = messages * wire->message_s,
                             .transfer_s = travels * wire->float_s + added * wire->sum_s,
                             .floats = sent};
}

struct kiln_sum kiln_allreduce(const struct kiln_wire *wire, double floats) {
    if (wire->ranks <= 1) {
        return (struct kiln_sum){0};
    }
    return kiln_allreduce_kind(wire) == KILN_ALLREDUCE_DIRECT ? direct(wire, floats)
                                                              : halving(wire, floats);
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
    struct stretch under_way[KILN_RANKS_UNDER_WAY];
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
    const struct kiln_sum sum = kiln_allreduce(line->wire, floats);
    const double seconds = sum.latency_s + sum.transfer_s;
    line->floats += sum.floats;
    if (seconds > 0) {
        line->under_way[line->n++] =
            (struct stretch){seconds, sum.transfer_s / seconds, floats == KILN_RANKS_STRETCH};
    }
}

/* While all that is under way are whole stretches and more of them wait, they end one as long after
 * the other as the one before, so that many are taken at once. Returns the floats that are left. */
static double repeat(struct line *line, double floats) {
    const struct kiln_sum sum = kiln_allreduce(line->wire, KILN_RANKS_STRETCH);
    const double times = floor(floats / ((double)KILN_RANKS_UNDER_WAY * KILN_RANKS_STRETCH));
    const double each = sum.latency_s + sum.transfer_s;
    bool alike = line->n == KILN_RANKS_UNDER_WAY || each <= 0; /* or nothing is ever under way */
    for (size_t i = 0; i < line->n; i++) {
        alike = alike && line->under_way[i].whole;
    }
    if (!alike || times < 1) {
        return floats;
    }
    const double seconds = times * each * slowness(line);
    line->now += seconds;
    line->busy += seconds;
    line->floats += times * KILN_RANKS_UNDER_WAY * sum.floats;
    return floats - times * KILN_RANKS_UNDER_WAY * KILN_RANKS_STRETCH;
}

static void send(struct line *line, const struct kiln_bucket *bucket) {
    wait_until(line, bucket->ready_s);
    double left = repeat(line, bucket->floats);
    while (left > 0) {
        if (line->n == KILN_RANKS_UNDER_WAY) {
            end_one(line);
        }
        const double floats = left < KILN_RANKS_STRETCH ? left : KILN_RANKS_STRETCH;
        start(line, floats);
        left = repeat(line, left - floats);
    }
}

struct kiln_reduced kiln_wire_reduce(const struct kiln_wire *wire,
                                     const struct kiln_bucket *buckets, size_t n) {
    struct line line = {.wire = wire, .now = -(double)INFINITY};
    if (wire->ranks <= 1) {
        return (struct kiln_reduced){.end_s = -(double)INFINITY};
    }
    for (size_t i = 0; i < n; i++) {
        send(&line, &buckets[i]);
    }
    while (line.n > 0) {
        end_one(&line);
    }
    return (struct kiln_reduced){line.now, line.busy, line.floats};
}
