/* SPDX-License-Identifier: MIT
 *
 * ranks.h: what the processes of one run do together (kiln/ranks.h says who they are).
 *
 * Every call is made by all ranks, in the same order; with NULL, which is one process alone, it
 * does nothing and is KILN_OK. While a rank waits it sleeps between looks, and looks whether the
 * others still live: KILN_ELOST names the one that does not. Behind a failure nothing but
 * kiln_ranks_close may follow.
 *
 * What travels of arrays runs beside the computing, on a thread of its own, in the order it was
 * given; between the first of them and kiln_ranks_wait no other call is made.
 */
#ifndef KILN_RANKS_RANKS_H
#define KILN_RANKS_RANKS_H

#include <stdint.h>

#include "base/range.h"
#include "kiln/ranks.h"

/* Everybody's bytes become those of rank 0. */
KILN_MUST_CHECK enum kiln_status kiln_ranks_tell(struct kiln_ranks *ranks, void *data, size_t bytes,
                                                 struct kiln_err *err);
/* Rank r fills counts[r] of the numbers, which lie one rank's behind the other's; afterwards
 * everybody has all of them. */
KILN_MUST_CHECK enum kiln_status kiln_ranks_gather(struct kiln_ranks *ranks, double *all,
                                                   const size_t *counts, struct kiln_err *err);
/* Bytes of rank `from` become those of rank `to`; of the others nothing is wanted. */
KILN_MUST_CHECK enum kiln_status kiln_ranks_pass(struct kiln_ranks *ranks, size_t from, size_t to,
                                                 void *data, size_t bytes, struct kiln_err *err);
/* *value becomes the largest of everybody's. */
KILN_MUST_CHECK enum kiln_status kiln_ranks_most(struct kiln_ranks *ranks, double *value,
                                                 struct kiln_err *err);
/* How did it go for everybody? `mine` and *err are of this rank; a failure of any is one of all:
 * rank 0 has the message of the lowest that failed, "rank 2: ..." where it is not its own. */
KILN_MUST_CHECK enum kiln_status kiln_ranks_settle(struct kiln_ranks *ranks, enum kiln_status mine,
                                                   struct kiln_err *err);

/* Up to so many ranks, and by a tree any number, exchange parts directly: each rank sends part q of
 * an array to rank q, adds what it gets of its own part, and sends the sum to all others; numbers
 * that travel as bf16 do so on any number, too. More of them sum by whatever MPI has for many.
 * Callers cut arrays into stretches of so many floats; so many arrays are under way at once. */
enum { KILN_RANKS_DIRECT = 16, KILN_RANKS_STRETCH = 1 << 20, KILN_RANKS_UNDER_WAY = 2 };

/* Sums given from here on are of the arrays of these ranks alone, and everybody gets them, also who
 * has none: to those `x` and `nodes` are where they go. n 0: of all ranks. */
void kiln_ranks_from(struct kiln_ranks *ranks, size_t first, size_t n);
/* The sum of x[n] over the ranks, in place, in the order that is fastest here. */
void kiln_ranks_sum(struct kiln_ranks *ranks, float *x, size_t n);
/* The same by the tree of a window of so many micro-batches (tree.h): nodes[i] + at is the sum of
 * this rank's i-th node; the sum of all goes to x[n]. nodes[0] + at may be x. */
void kiln_ranks_combine(struct kiln_ranks *ranks, uint64_t micro_batches, float *const *nodes,
                        size_t at, float *x, size_t n);
/* An array that is cut: part[q] is rank q's. Of each part only slice `slice` of `slices`
 * (kiln_range_slice) travels now, so that all ranks have as much to send. The list is borrowed
 * until kiln_ranks_wait. */
struct kiln_ranks_cut {
    const struct kiln_range *part; /* [ranks] */
    size_t slice, slices;
};
/* As kiln_ranks_combine of the whole array (nodes NULL: as kiln_ranks_sum), but each rank gets its
 * own part of the sum only; what x has elsewhere stays, or is lost. For any number of ranks each
 * sends part q directly to rank q. */
void kiln_ranks_sum_parts(struct kiln_ranks *ranks, uint64_t micro_batches, float *const *nodes,
                          float *x, const struct kiln_ranks_cut *cut);
/* Bytes that are cut: everybody's part comes to all others. */
void kiln_ranks_share(struct kiln_ranks *ranks, void *bytes, const struct kiln_ranks_cut *cut);
/* From here on numbers that kiln_ranks_sum adds travel as bf16, or again as they are: each rank's
 * are rounded to nearest even, added in fp32 in the order of the ranks, and the sum is rounded, on
 * the rank that has made it, too: all have the same values. */
void kiln_ranks_narrow(struct kiln_ranks *ranks, bool on);
/* Return when all that was given so far is there. */
KILN_MUST_CHECK enum kiln_status kiln_ranks_wait(struct kiln_ranks *ranks, struct kiln_err *err);

/* ---- lanes: arrays from one rank to another, one behind the other ------------------------------
 *
 * Both open one, with the same kind and length. It carries arrays beside the computing, as sums
 * are, and kiln_ranks_wait waits for them, too. So many are under way or wait to be taken; then the
 * sender waits. */
struct kiln_lane;
enum { KILN_LANE_ARRAYS = 2 };

/* From or to rank `peer`. kind: 0 or 1, one lane each a way between two ranks. KILN_ENOMEM. */
KILN_MUST_CHECK enum kiln_status kiln_lane_open(struct kiln_ranks *ranks, size_t peer,
                                                bool incoming, int kind, size_t floats,
                                                struct kiln_lane **out, struct kiln_err *err);
/* NULL is fine. */
void kiln_lane_close(struct kiln_lane *lane);
/* Of one that is incoming: so many more will come. */
void kiln_lane_expect(struct kiln_lane *lane, uint64_t arrays);
/* Of one that is incoming: *x is the next array, until it is released; waits for it. Of the other:
 * *x is room for one, which goes off with kiln_lane_release; waits for that. KILN_ELOST. */
KILN_MUST_CHECK enum kiln_status kiln_lane_take(struct kiln_lane *lane, float **x,
                                                struct kiln_err *err);
void kiln_lane_release(struct kiln_lane *lane);

/* What lies between the ranks, measured when they met: each sends to the next and receives from the
 * one before, all at once, a few times 2 MiB; of the slowest the seconds that a short message
 * takes, and bytes a second. Of one that is alone: no time, and no end of them. No exchange. */
void kiln_ranks_link(const struct kiln_ranks *ranks, double *latency_s, double *bytes_per_s);

struct kiln_spans;
/* From here on waiting and sums are told there (base/spans.h); NULL: nowhere. Borrowed. */
void kiln_ranks_observe(struct kiln_ranks *ranks, struct kiln_spans *spans);

/* Was the program started by mpirun or srun, as one of several? */
bool kiln_ranks_are_many(void);

#endif
