/* SPDX-License-Identifier: MIT
 *
 * mpi_int.h: ranks over MPI (ranks.h), for the files that make them; compiled into builds with
 * MPI=1.
 *
 *   mpi.c        who there is, and how is waited for others
 *   mpi_once.c   small exchanges, at once
 *   mpi_sums.c   sums of gradients, beside the computing
 *   mpi_lanes.c  arrays from rank to rank, likewise
 *
 * MPI is called by one thread at a time: the one that opened it, and while sums or lanes are under
 * way that of mpi_sums.c. Nobody blocks inside MPI, which spins: requests are tested and slept
 * over, since the processors are wanted for computing.
 */
#ifndef KILN_RANKS_MPI_INT_H
#define KILN_RANKS_MPI_INT_H

#include <mpi.h>
#include <pthread.h>
#include <sched.h>

#include "base/spans.h"
#include "ranks/ranks.h"

enum { KILN_RANKS_LOOK_MS = 200, KILN_RANKS_PLACE = 224 };
/* The row of a trace that waiting has, beside those of sums. */
enum { KILN_RANKS_WAITING = KILN_RANKS_UNDER_WAY + 1 };

struct kiln_ranks_who {
    char host[64];
    char place[KILN_RANKS_PLACE]; /* where process ids mean the same: host, boot and namespace */
    pid_t pid;
    cpu_set_t processors;
};

struct kiln_ranks_job {
    uint64_t leaves;     /* of the tree */
    float *const *nodes; /* NULL: one, at x */
    size_t at;
    float *x;
    size_t n;
    struct kiln_ranks_cut cut; /* part NULL: equal ones, and all get the whole sum */
    unsigned char *bytes;      /* not NULL: no sum; these are shared */
    int first, ranks;          /* whose arrays are added */
    bool narrow;               /* they travel as bf16 */
};

/* A job that has been started. */
struct kiln_ranks_flight {
    bool busy, sharing; /* sharing: the parts are there, and go to everybody */
    double since;
    uint64_t number;
    struct kiln_ranks_job job;
    MPI_Request *requests; /* [n_requests] */
    size_t n_requests, room;
    float *scratch; /* what other ranks sent: nodes of this rank's part; narrow: in front of them
                     * the whole stretch as it travels, all in bf16 */
    size_t scratch_room;
};

struct kiln_ranks {
    int n, mine;
    struct kiln_ranks_who *who; /* [n] */
    size_t threads;
    double latency_s, bytes_per_s; /* between them */
    bool settled;                  /* on a failure: all know of it, and leave together */
    struct kiln_ranks_flight flights[KILN_RANKS_UNDER_WAY];

    pthread_t thread;
    bool runs;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct kiln_ranks_job
        *jobs; /* [room], first..queued-1 wait or are under way, by number modulo room */
    size_t room;
    uint64_t queued, started, ended;
    struct kiln_lane *lanes; /* a list */
    size_t first, some;      /* kiln_ranks_from */
    bool narrow;             /* jobs that are given */
    bool over;
    bool failed;
    struct kiln_err err; /* of the thread */
    double since;        /* when the first of the sums under way was given */
    struct kiln_spans *spans;
};

/* A failure of MPI, in its words. */
enum kiln_status kiln_ranks_fail(int code, const char *what, struct kiln_err *err);
#define KILN_TRY_MPI(call, what, err)                      \
    do {                                                   \
        const int try_code = (call);                       \
        if (try_code != MPI_SUCCESS) {                     \
            return kiln_ranks_fail(try_code, what, (err)); \
        }                                                  \
    } while (0)

/* Sleep a little: nothing has come yet. */
void kiln_ranks_nap(void);
/* Do the ranks of this machine live? KILN_ELOST names one that does not. */
KILN_MUST_CHECK enum kiln_status kiln_ranks_look(const struct kiln_ranks *r, struct kiln_err *err);
/* Return when the request is done; ranks that are gone are looked for now and then. */
KILN_MUST_CHECK enum kiln_status kiln_ranks_wait_for(const struct kiln_ranks *r,
                                                     MPI_Request *request, const char *what,
                                                     struct kiln_err *err);
/* A span from `start` till now. */
void kiln_ranks_span(const struct kiln_ranks *r, enum kiln_span_kind kind, uint32_t thread,
                     double start);

/* Find out what lies between the ranks (kiln_ranks_link). */
KILN_MUST_CHECK enum kiln_status kiln_ranks_measure(struct kiln_ranks *r, struct kiln_err *err);
/* Are arrays on their way, or expected? The mutex is held, in the other calls, too. */
bool kiln_lanes_busy(const struct kiln_ranks *r);
/* Begin what can be begun, look at what is under way; *moved: something has ended. */
KILN_MUST_CHECK enum kiln_status kiln_lanes_turn(struct kiln_ranks *r, bool *moved,
                                                 struct kiln_err *err);
/* Those that were closed while something was under way: nobody calls MPI any more. */
void kiln_lanes_free(struct kiln_ranks *r);

/* The thread beside the computing. */
KILN_MUST_CHECK enum kiln_status kiln_ranks_begin_sums(struct kiln_ranks *r, struct kiln_err *err);
void kiln_ranks_end_sums(struct kiln_ranks *r);

#endif
