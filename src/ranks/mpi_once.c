/* SPDX-License-Identifier: MIT
 *
 * mpi_once.c: small exchanges between ranks, at once (mpi_int.h).
 */
#include <math.h>
#include <stdio.h>

#include "base/machine.h"
#include "base/mem.h"
#include "ranks/mpi_int.h"

/* Tag of what the link is measured with (others are below 16384), and how much that is. */
enum { MEASURE = 30000, MEASURED = 2 << 20 };

/* ---- at once ----------------------------------------------------------------------------------
 */

enum { AT_ONCE = 1 << 30 }; /* bytes; MPI counts in int */

enum kiln_status kiln_ranks_tell(struct kiln_ranks *r, void *data, size_t bytes,
                                 struct kiln_err *err) {
    for (size_t at = 0; r && at < bytes; at += AT_ONCE) {
        MPI_Request request;
        const size_t n = kiln_least(bytes - at, AT_ONCE);
        KILN_TRY_MPI(MPI_Ibcast((char *)data + at, (int)n, MPI_BYTE, 0, MPI_COMM_WORLD, &request),
                     "telling the other ranks", err);
        KILN_TRY(kiln_ranks_wait_for(r, &request, "telling the other ranks", err));
    }
    return KILN_OK;
}

enum kiln_status kiln_ranks_gather(struct kiln_ranks *r, double *all, const size_t *counts,
                                   struct kiln_err *err) {
    if (!r) {
        return KILN_OK;
    }
    const char *what = "gathering numbers of all ranks";
    int *list = kiln_alloc(2 * (size_t)r->n, sizeof *list);
    KILN_REQUIRE(list, err, KILN_ENOMEM, "no memory for a list of %d ranks", r->n);
    int *from = list + r->n;
    for (int i = 0; i < r->n; i++) {
        list[i] = (int)counts[i];
        from[i] = i > 0 ? from[i - 1] + list[i - 1] : 0;
    }
    MPI_Request request;
    const int code = MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, all, list, from,
                                     MPI_DOUBLE, MPI_COMM_WORLD, &request);
    const enum kiln_status status = code == MPI_SUCCESS
                                        ? kiln_ranks_wait_for(r, &request, what, err)
                                        : kiln_ranks_fail(code, what, err);
    kiln_free(list);
    return status;
}

enum kiln_status kiln_ranks_most(struct kiln_ranks *r, double *value, struct kiln_err *err) {
    const char *what = "asking the other ranks";
    MPI_Request request;
    if (!r) {
        return KILN_OK;
    }
    KILN_TRY_MPI(
        MPI_Iallreduce(MPI_IN_PLACE, value, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD, &request), what,
        err);
    return kiln_ranks_wait_for(r, &request, what, err);
}

enum kiln_status kiln_ranks_settle(struct kiln_ranks *r, enum kiln_status mine,
                                   struct kiln_err *err) {
    struct {
        int status;
        char message[sizeof err->message];
    } told = {.status = mine};
    MPI_Request request;
    if (!r || mine == KILN_ELOST) {
        return mine;
    }
    int failed = mine != KILN_OK ? r->mine : r->n;
    KILN_TRY_MPI(
        MPI_Iallreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD, &request),
        "asking the other ranks", err);
    KILN_TRY(kiln_ranks_wait_for(r, &request, "asking the other ranks", err));
    if (failed == r->n) {
        return KILN_OK;
    }
    r->settled = true;
    if (failed == r->mine && err) {
        snprintf(told.message, sizeof told.message, "%s", err->message);
    }
    KILN_TRY_MPI(MPI_Ibcast(&told, (int)sizeof told, MPI_BYTE, failed, MPI_COMM_WORLD, &request),
                 "asking the other ranks", err);
    KILN_TRY(kiln_ranks_wait_for(r, &request, "asking the other ranks", err));
    if (failed == 0 || r->mine > 0) { /* rank 0 speaks for all */
        if (r->mine > 0 && err) {
            *err = (struct kiln_err){.code = told.status};
        }
        return told.status;
    }
    return KILN_FAIL(err, told.status, "rank %d (on %s): %.500s", failed, r->who[failed].host,
                     told.message);
}

/* Seconds until `bytes` have come from the rank before, and gone to the next. */
static enum kiln_status exchange(const struct kiln_ranks *r, char *to, char *from, size_t bytes,
                                 double *seconds, struct kiln_err *err) {
    const char *what = "measuring the link";
    MPI_Request request[2];
    const int next = (r->mine + 1) % r->n, before = (r->mine + r->n - 1) % r->n;
    const double start = kiln_now_s();
    KILN_TRY_MPI(
        MPI_Irecv(from, (int)bytes, MPI_BYTE, before, MEASURE, MPI_COMM_WORLD, &request[0]), what,
        err);
    KILN_TRY_MPI(MPI_Isend(to, (int)bytes, MPI_BYTE, next, MEASURE, MPI_COMM_WORLD, &request[1]),
                 what, err);
    for (int i = 0; i < 2; i++) {
        KILN_TRY(kiln_ranks_wait_for(r, &request[i], what, err));
    }
    *seconds = kiln_now_s() - start;
    return KILN_OK;
}

/* The fastest of a few, of the rank where that is slowest. */
static enum kiln_status time_exchange(struct kiln_ranks *r, char *buffer, size_t bytes,
                                      double *seconds, struct kiln_err *err) {
    double best = (double)INFINITY;
    for (int i = 0; i < 4; i++) {
        double now = 0, together = 0;
        KILN_TRY(kiln_ranks_most(r, &together, err)); /* all begin at once */
        KILN_TRY(exchange(r, buffer, buffer + MEASURED, bytes, &now, err));
        best = now < best ? now : best;
    }
    *seconds = best;
    return kiln_ranks_most(r, seconds, err);
}

enum kiln_status kiln_ranks_measure(struct kiln_ranks *r, struct kiln_err *err) {
    char *buffer = kiln_alloc(2, MEASURED);
    KILN_REQUIRE(buffer, err, KILN_ENOMEM, "no memory to measure the link");
    double whole = 0;
    enum kiln_status status = time_exchange(r, buffer, 1, &r->latency_s, err);
    if (status == KILN_OK) {
        status = time_exchange(r, buffer, MEASURED, &whole, err);
    }
    kiln_free(buffer);
    r->bytes_per_s = whole > r->latency_s ? MEASURED / (whole - r->latency_s) : (double)INFINITY;
    return status;
}
