/* SPDX-License-Identifier: MIT
 *
 * none.c: a build without MPI: one process, alone. mpi.c takes its place in one with it.
 */
#include <math.h>

#include "ranks/ranks.h"

enum kiln_status kiln_ranks_open(struct kiln_ranks **out, struct kiln_err *err) {
    *out = NULL;
    KILN_REQUIRE(!kiln_ranks_are_many(), err, KILN_EUNSUPPORTED,
                 "started as one of several processes, but this kiln is built without MPI: each "
                 "would train alone. Build it with make MPI=1 (scripts/setup --mpi installs what "
                 "that needs)");
    return KILN_OK;
}

void kiln_ranks_close(struct kiln_ranks *ranks, bool well) {
    (void)ranks;
    (void)well;
}

size_t kiln_ranks_count(const struct kiln_ranks *ranks) {
    (void)ranks;
    return 1;
}

size_t kiln_ranks_mine(const struct kiln_ranks *ranks) {
    (void)ranks;
    return 0;
}

size_t kiln_ranks_beside(const struct kiln_ranks *ranks) {
    (void)ranks;
    return 1;
}

size_t kiln_ranks_threads(const struct kiln_ranks *ranks) {
    (void)ranks;
    return 0;
}

enum kiln_status kiln_ranks_tell(struct kiln_ranks *ranks, void *data, size_t bytes,
                                 struct kiln_err *err) {
    (void)ranks, (void)data, (void)bytes, (void)err;
    return KILN_OK;
}

enum kiln_status kiln_ranks_gather(struct kiln_ranks *ranks, double *all, const size_t *counts,
                                   struct kiln_err *err) {
    (void)ranks, (void)all, (void)counts, (void)err;
    return KILN_OK;
}

enum kiln_status kiln_ranks_pass(struct kiln_ranks *ranks, size_t from, size_t to, void *data,
                                 size_t bytes, struct kiln_err *err) {
    (void)ranks, (void)from, (void)to, (void)data, (void)bytes, (void)err;
    return KILN_OK;
}

enum kiln_status kiln_ranks_most(struct kiln_ranks *ranks, double *value, struct kiln_err *err) {
    (void)ranks, (void)value, (void)err;
    return KILN_OK;
}

enum kiln_status kiln_ranks_settle(struct kiln_ranks *ranks, enum kiln_status mine,
                                   struct kiln_err *err) {
    (void)ranks, (void)err;
    return mine;
}

void kiln_ranks_from(struct kiln_ranks *ranks, size_t first, size_t n) {
    (void)ranks, (void)first, (void)n;
}

enum kiln_status kiln_lane_open(struct kiln_ranks *ranks, size_t peer, bool incoming, int kind,
                                size_t floats, struct kiln_lane **out, struct kiln_err *err) {
    (void)ranks, (void)peer, (void)incoming, (void)kind, (void)floats;
    *out = NULL;
    return KILN_FAIL(err, KILN_EUNSUPPORTED, "a build without MPI has no other ranks");
}

void kiln_lane_close(struct kiln_lane *lane) { (void)lane; }
void kiln_lane_expect(struct kiln_lane *lane, uint64_t arrays) { (void)lane, (void)arrays; }
void kiln_lane_release(struct kiln_lane *lane) { (void)lane; }

enum kiln_status kiln_lane_take(struct kiln_lane *lane, float **x, struct kiln_err *err) {
    (void)lane, (void)x;
    return KILN_FAIL(err, KILN_EUNSUPPORTED, "a build without MPI has no other ranks");
}

void kiln_ranks_sum(struct kiln_ranks *ranks, float *x, size_t n) { (void)ranks, (void)x, (void)n; }

void kiln_ranks_combine(struct kiln_ranks *ranks, uint64_t micro_batches, float *const *nodes,
                        size_t at, float *x, size_t n) {
    (void)ranks, (void)micro_batches, (void)nodes, (void)at, (void)x, (void)n;
}

void kiln_ranks_sum_parts(struct kiln_ranks *ranks, uint64_t micro_batches, float *const *nodes,
                          float *x, const struct kiln_ranks_cut *cut) {
    (void)ranks, (void)micro_batches, (void)nodes, (void)x, (void)cut;
}

void kiln_ranks_share(struct kiln_ranks *ranks, void *bytes, const struct kiln_ranks_cut *cut) {
    (void)ranks, (void)bytes, (void)cut;
}
void kiln_ranks_narrow(struct kiln_ranks *ranks, bool on) { (void)ranks, (void)on; }

enum kiln_status kiln_ranks_wait(struct kiln_ranks *ranks, struct kiln_err *err) {
    (void)ranks, (void)err;
    return KILN_OK;
}

void kiln_ranks_link(const struct kiln_ranks *ranks, double *latency_s, double *bytes_per_s) {
    (void)ranks;
    *latency_s = 0;
    *bytes_per_s = (double)INFINITY;
}

void kiln_ranks_observe(struct kiln_ranks *ranks, struct kiln_spans *spans) {
    (void)ranks, (void)spans;
}
