/* SPDX-License-Identifier: MIT
 *
 * mpi.c: ranks over MPI (ranks.h); compiled into builds with MPI=1.
 *
 * MPI is called by one thread at a time: the one that opened it, and while sums are under way the
 * thread here. Nobody blocks inside MPI, which spins: requests are tested and slept over, since the
 * processors are wanted for computing.
 */
#include <errno.h>
#include <math.h>
#include <mpi.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/mem.h"
#include "base/spans.h"
#include "ranks/ranks.h"
#include "ranks/tree.h"

enum { LOOK_MS = 200, PLACE = 224 };
/* Tag of its messages (others are below 16384), and what it sends at once. */
enum { MEASURE = 30000, MEASURED = 2 << 20 };

/* Who a rank is, for the others. */
struct who {
    char host[64];
    char place[PLACE]; /* where process ids mean the same: host, boot and namespace */
    pid_t pid;
    cpu_set_t processors;
};

struct job {
    uint64_t leaves;     /* of the tree */
    float *const *nodes; /* NULL: one, at x */
    size_t at;
    float *x;
    size_t n;
};

/* A job that has been started. */
struct flight {
    bool busy, sharing; /* sharing: the parts are summed, and go to everybody */
    double since;
    uint64_t number;
    struct job job;
    MPI_Request *requests; /* [n_requests] */
    size_t n_requests, room;
    float *scratch; /* what other ranks sent: nodes of this rank's part */
    size_t scratch_room;
};

struct kiln_ranks {
    int n, mine;
    struct who *who; /* [n] */
    size_t threads;
    bool settled; /* on a failure: all know of it, and leave together */
    struct flight flights[KILN_RANKS_UNDER_WAY];

    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct job *jobs; /* [room], first..queued-1 wait or are under way, by number modulo room */
    size_t room;
    uint64_t queued, started, ended;
    bool over;
    bool failed;
    struct kiln_err err; /* of the thread */
    double since;        /* when the first of the sums under way was given */
    struct kiln_spans *spans;
};

static void tell_span(const struct kiln_ranks *r, enum kiln_span_kind kind, uint32_t thread,
                      double start) {
    const struct kiln_span s = {.start = start,
                                .end = kiln_now_s(),
                                .kind = kind,
                                .thread = thread,
                                .layer = -1,
                                .micro_batch = -1,
                                .generation = -1};
    kiln_spans_add(r->spans, &s);
}

void kiln_ranks_observe(struct kiln_ranks *r, struct kiln_spans *spans) {
    if (r) {
        r->spans = spans;
    }
}

/* ---- waiting ----------------------------------------------------------------------------------
 */

static enum kiln_status fail_mpi(int code, const char *what, struct kiln_err *err) {
    char words[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, words, &length);
    return KILN_FAIL(err, KILN_ELOST, "%s: MPI says: %.400s", what, words);
}

#define TRY_MPI(call, what, err)                    \
    do {                                            \
        const int try_code = (call);                \
        if (try_code != MPI_SUCCESS) {              \
            return fail_mpi(try_code, what, (err)); \
        }                                           \
    } while (0)

static void nap(void) {
    const struct timespec t = {.tv_nsec = 40000};
    nanosleep(&t, NULL);
}

/* Of this machine the system says who lives; of others mpirun does, and ends the rest. */
static enum kiln_status look(const struct kiln_ranks *r, struct kiln_err *err) {
    for (int i = 0; i < r->n; i++) {
        const struct who *other = &r->who[i];
        if (i != r->mine && strcmp(other->place, r->who[r->mine].place) == 0 &&
            kill(other->pid, 0) != 0 && errno == ESRCH) {
            return KILN_FAIL(err, KILN_ELOST, "rank %d of %d is gone (process %ld on %s)", i, r->n,
                             (long)other->pid, other->host);
        }
    }
    return KILN_OK;
}

/* Until all are done. Gone ranks are looked for now and then. */
static enum kiln_status wait_for(const struct kiln_ranks *r, MPI_Request *request, const char *what,
                                 struct kiln_err *err) {
    const double start = kiln_now_s();
    double next = start + LOOK_MS / 1e3;
    for (int done = 0;;) {
        TRY_MPI(MPI_Test(request, &done, MPI_STATUS_IGNORE), what, err);
        if (done) {
            tell_span(r, KILN_SPAN_RANKS_WAIT, KILN_RANKS_UNDER_WAY + 1, start);
            return KILN_OK;
        }
        nap();
        if (kiln_now_s() > next) {
            KILN_TRY(look(r, err));
            next = kiln_now_s() + LOOK_MS / 1e3;
        }
    }
}

/* ---- at once ----------------------------------------------------------------------------------
 */

enum { AT_ONCE = 1 << 30 }; /* bytes; MPI counts in int */

enum kiln_status kiln_ranks_tell(struct kiln_ranks *r, void *data, size_t bytes,
                                 struct kiln_err *err) {
    for (size_t at = 0; r && at < bytes; at += AT_ONCE) {
        MPI_Request request;
        const size_t n = kiln_least(bytes - at, AT_ONCE);
        TRY_MPI(MPI_Ibcast((char *)data + at, (int)n, MPI_BYTE, 0, MPI_COMM_WORLD, &request),
                "telling the other ranks", err);
        KILN_TRY(wait_for(r, &request, "telling the other ranks", err));
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
    const enum kiln_status status =
        code == MPI_SUCCESS ? wait_for(r, &request, what, err) : fail_mpi(code, what, err);
    kiln_free(list);
    return status;
}

enum kiln_status kiln_ranks_most(struct kiln_ranks *r, double *value, struct kiln_err *err) {
    const char *what = "asking the other ranks";
    MPI_Request request;
    if (!r) {
        return KILN_OK;
    }
    TRY_MPI(MPI_Iallreduce(MPI_IN_PLACE, value, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD, &request),
            what, err);
    return wait_for(r, &request, what, err);
}

enum kiln_status kiln_ranks_settle(struct kiln_ranks *r, enum kiln_status mine,
                                   struct kiln_err *err) {
    struct {
        int rank, status;
        char message[sizeof err->message];
    } told = {.rank = r ? r->mine : 0, .status = mine};
    struct kiln_err none;
    MPI_Request request;
    if (!r || mine == KILN_ELOST) {
        return mine;
    }
    int failed = mine != KILN_OK ? r->mine : r->n;
    TRY_MPI(MPI_Iallreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD, &request),
            "asking the other ranks", err);
    KILN_TRY(wait_for(r, &request, "asking the other ranks", err));
    if (failed == r->n) {
        return KILN_OK;
    }
    r->settled = true;
    if (failed == r->mine && err) {
        snprintf(told.message, sizeof told.message, "%s", err->message);
    }
    TRY_MPI(MPI_Ibcast(&told, (int)sizeof told, MPI_BYTE, failed, MPI_COMM_WORLD, &request),
            "asking the other ranks", err);
    KILN_TRY(wait_for(r, &request, "asking the other ranks", err ? err : &none));
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
    TRY_MPI(MPI_Irecv(from, (int)bytes, MPI_BYTE, before, MEASURE, MPI_COMM_WORLD, &request[0]),
            what, err);
    TRY_MPI(MPI_Isend(to, (int)bytes, MPI_BYTE, next, MEASURE, MPI_COMM_WORLD, &request[1]), what,
            err);
    for (int i = 0; i < 2; i++) {
        KILN_TRY(wait_for(r, &request[i], what, err));
    }
    *seconds = kiln_now_s() - start;
    return KILN_OK;
}

/* The fastest of a few, of the rank where that is slowest. */
static enum kiln_status time_exchange(struct kiln_ranks *r, char *buffer, size_t bytes,
                                      double *seconds, struct kiln_err *err) {
    double best = INFINITY;
    for (int i = 0; i < 4; i++) {
        double now = 0, together = 0;
        KILN_TRY(kiln_ranks_most(r, &together, err)); /* all begin at once */
        KILN_TRY(exchange(r, buffer, buffer + MEASURED, bytes, &now, err));
        best = now < best ? now : best;
    }
    *seconds = best;
    return kiln_ranks_most(r, seconds, err);
}

enum kiln_status kiln_ranks_measure(struct kiln_ranks *r, double *latency_s, double *bytes_per_s,
                                    struct kiln_err *err) {
    *latency_s = *bytes_per_s = 0;
    if (!r) {
        return KILN_OK;
    }
    char *buffer = kiln_alloc(2, MEASURED);
    KILN_REQUIRE(buffer, err, KILN_ENOMEM, "no memory to measure the link");
    double whole = 0;
    enum kiln_status status = time_exchange(r, buffer, 1, latency_s, err);
    if (status == KILN_OK) {
        status = time_exchange(r, buffer, MEASURED, &whole, err);
    }
    kiln_free(buffer);
    *bytes_per_s = whole > *latency_s ? MEASURED / (whole - *latency_s) : (double)INFINITY;
    return status;
}

/* ---- sums, beside the computing ---------------------------------------------------------------
 */

static size_t part_of(const struct flight *f, int n, int rank) {
    return (size_t)rank * f->job.n / (size_t)n;
}

static size_t part_size(const struct flight *f, int n, int rank) {
    return part_of(f, n, rank + 1) - part_of(f, n, rank);
}

/* A node of this rank, from where the stretch begins. */
static float *node_of(const struct flight *f, size_t k) {
    return f->job.nodes ? f->job.nodes[k] + f->job.at : f->job.x;
}

static bool directly(const struct kiln_ranks *r, const struct flight *f) {
    return f->job.nodes || r->n <= KILN_RANKS_DIRECT;
}

static size_t nodes_of(const struct kiln_ranks *r, const struct flight *f, int rank) {
    const struct kiln_share s = kiln_share_of(f->job.leaves, (size_t)r->n, (size_t)rank);
    return kiln_tree_nodes(s.first, s.first + s.n);
}

static enum kiln_status make_room(const struct kiln_ranks *r, struct flight *f,
                                  struct kiln_err *err) {
    const size_t own = nodes_of(r, f, r->mine);
    size_t others = 0;
    for (int i = 0; i < r->n; i++) {
        others += i == r->mine ? 0 : nodes_of(r, f, i);
    }
    const size_t requests = (own + 1) * (size_t)r->n + others + 1;
    const size_t scratch = directly(r, f) ? others * part_size(f, r->n, r->mine) : f->job.n;
    if (requests > f->room) {
        kiln_free(f->requests);
        f->requests = kiln_alloc(requests, sizeof *f->requests);
        f->room = f->requests ? requests : 0;
    }
    if (scratch > f->scratch_room) {
        kiln_free(f->scratch);
        f->scratch = kiln_alloc(scratch, sizeof *f->scratch);
        f->scratch_room = f->scratch ? scratch : 0;
    }
    KILN_REQUIRE(f->room >= requests && f->scratch_room >= scratch, err, KILN_ENOMEM,
                 "no memory to add %zu gradients of %d ranks", f->job.n, r->n);
    return KILN_OK;
}

/* Messages of the two halves of a job, told apart from those of the jobs beside it. */
static int tag_of(const struct flight *f) { return (int)(f->number % 8192) * 2 + f->sharing; }

/* Each rank gets everybody's nodes of its part. */
static int begin_combine(const struct kiln_ranks *r, struct flight *f) {
    int code = MPI_SUCCESS;
    const size_t own = nodes_of(r, f, r->mine), mine = part_size(f, r->n, r->mine);
    float *to = f->scratch;
    for (int i = 0; i < r->n && code == MPI_SUCCESS; i++) {
        const size_t theirs = i == r->mine ? 0 : nodes_of(r, f, i);
        for (size_t k = 0; k < theirs && code == MPI_SUCCESS; k++, to += mine) {
            code = MPI_Irecv(to, (int)mine, MPI_FLOAT, i, tag_of(f), MPI_COMM_WORLD,
                             &f->requests[f->n_requests++]);
        }
    }
    for (int i = 0; i < r->n; i++) {
        for (size_t k = 0; i != r->mine && k < own && code == MPI_SUCCESS; k++) {
            code =
                MPI_Isend(node_of(f, k) + part_of(f, r->n, i), (int)part_size(f, r->n, i),
                          MPI_FLOAT, i, tag_of(f), MPI_COMM_WORLD, &f->requests[f->n_requests++]);
        }
    }
    return code;
}

static void add(float *to, const float *from, size_t n) {
    for (size_t i = 0; i < n; i++) {
        to[i] += from[i];
    }
}

/* This rank's part, by the tree. */
static void add_nodes(const struct kiln_ranks *r, const struct flight *f) {
    const size_t mine = part_size(f, r->n, r->mine), part = part_of(f, r->n, r->mine);
    struct kiln_tree tree = {.next = 0};
    float *open[KILN_TREE_OPEN], *from = f->scratch;
    for (int i = 0; i < r->n; i++) {
        const struct kiln_share s = kiln_share_of(f->job.leaves, (size_t)r->n, (size_t)i);
        size_t k = 0;
        for (uint64_t leaf = s.first; leaf < s.first + s.n; k++) {
            const unsigned level = kiln_tree_level(leaf, s.first + s.n);
            size_t at = kiln_tree_place(&tree);
            open[at] = i == r->mine ? node_of(f, k) + part : from;
            from += i == r->mine ? 0 : mine;
            leaf += UINT64_C(1) << level;
            for (size_t n = kiln_tree_give(&tree, level); n > 0; n--, at--) {
                add(open[at - 1], open[at], mine);
            }
        }
    }
    size_t at = tree.n - 1;
    for (size_t n = kiln_tree_end(&tree); n > 0; n--, at--) {
        add(open[at - 1], open[at], mine);
    }
    if (open[0] != f->job.x + part) {
        memcpy(f->job.x + part, open[0], mine * sizeof *open[0]);
    }
}

/* Each rank has summed its part: all get it. */
static int begin_sharing(const struct kiln_ranks *r, struct flight *f) {
    int code = MPI_SUCCESS;
    for (int i = 0; i < r->n && code == MPI_SUCCESS; i++) {
        if (i == r->mine) {
            continue;
        }
        code = MPI_Irecv(f->job.x + part_of(f, r->n, i), (int)part_size(f, r->n, i), MPI_FLOAT, i,
                         tag_of(f), MPI_COMM_WORLD, &f->requests[f->n_requests++]);
        if (code == MPI_SUCCESS) {
            code =
                MPI_Isend(f->job.x + part_of(f, r->n, r->mine), (int)part_size(f, r->n, r->mine),
                          MPI_FLOAT, i, tag_of(f), MPI_COMM_WORLD, &f->requests[f->n_requests++]);
        }
    }
    return code;
}

static enum kiln_status begin_job(struct kiln_ranks *r, struct flight *f, struct kiln_err *err) {
    const char *what = "adding the gradients of all ranks";
    f->n_requests = 0;
    f->sharing = false;
    KILN_TRY(make_room(r, f, err));
    if (directly(r, f)) {
        TRY_MPI(begin_combine(r, f), what, err);
    } else { /* in place Open MPI takes a tree, whose root sends all there is log n times */
        memcpy(f->scratch, f->job.x, f->job.n * sizeof *f->scratch);
        TRY_MPI(MPI_Iallreduce(f->scratch, f->job.x, (int)f->job.n, MPI_FLOAT, MPI_SUM,
                               MPI_COMM_WORLD, &f->requests[f->n_requests++]),
                what, err);
    }
    f->busy = true;
    f->since = kiln_now_s();
    return KILN_OK;
}

/* One look at a job under way; *moved: something of it has ended. */
static enum kiln_status push(const struct kiln_ranks *r, struct flight *f, bool *moved,
                             struct kiln_err *err) {
    const char *what = "adding the gradients of all ranks";
    int done = 0;
    TRY_MPI(MPI_Testall((int)f->n_requests, f->requests, &done, MPI_STATUSES_IGNORE), what, err);
    *moved |= done != 0;
    if (!done) {
        return KILN_OK;
    }
    f->n_requests = 0;
    if (directly(r, f) && !f->sharing) {
        add_nodes(r, f);
        f->sharing = true;
        TRY_MPI(begin_sharing(r, f), what, err);
        return KILN_OK;
    }
    f->busy = false;
    return KILN_OK;
}

/* The next job that waits, in a flight that is free; the mutex is held. */
static struct flight *take(struct kiln_ranks *r) {
    if (r->started == r->queued) {
        return NULL;
    }
    for (size_t i = 0; i < KILN_RANKS_UNDER_WAY; i++) {
        struct flight *f = &r->flights[i];
        if (!f->busy) {
            f->number = r->started++;
            f->job = r->jobs[f->number % r->room];
            return f;
        }
    }
    return NULL;
}

/* Begin what can be begun, look at what is under way. */
static enum kiln_status turn(struct kiln_ranks *r, bool *moved, struct kiln_err *err) {
    for (;;) {
        pthread_mutex_lock(&r->mutex);
        struct flight *f = take(r);
        pthread_mutex_unlock(&r->mutex);
        if (!f) {
            break;
        }
        KILN_TRY(begin_job(r, f, err));
        *moved = true;
    }
    size_t ended = 0;
    for (size_t i = 0; i < KILN_RANKS_UNDER_WAY; i++) {
        struct flight *f = &r->flights[i];
        if (f->busy) {
            KILN_TRY(push(r, f, moved, err));
            ended += !f->busy;
            if (!f->busy) {
                tell_span(r, KILN_SPAN_STRETCH, 1 + (uint32_t)i, f->since);
            }
        }
    }
    if (ended > 0) {
        pthread_mutex_lock(&r->mutex);
        r->ended += ended;
        if (r->ended == r->queued) {
            tell_span(r, KILN_SPAN_REDUCE, 0, r->since);
            pthread_cond_broadcast(&r->changed);
        }
        pthread_mutex_unlock(&r->mutex);
    }
    return KILN_OK;
}

static void *work(void *context) {
    struct kiln_ranks *r = context;
    kiln_thread_name("kiln ranks");
    double next = 0;
    pthread_mutex_lock(&r->mutex);
    while (!r->over && !r->failed) {
        if (r->ended == r->queued) {
            pthread_cond_wait(&r->changed, &r->mutex);
            next = kiln_now_s() + LOOK_MS / 1e3;
            continue;
        }
        pthread_mutex_unlock(&r->mutex);
        struct kiln_err err;
        bool moved = false;
        enum kiln_status status = turn(r, &moved, &err);
        if (status == KILN_OK && !moved) {
            nap();
            if (kiln_now_s() > next) {
                status = look(r, &err);
                next = kiln_now_s() + LOOK_MS / 1e3;
            }
        }
        pthread_mutex_lock(&r->mutex);
        if (status != KILN_OK) {
            r->failed = true;
            r->err = err;
            pthread_cond_broadcast(&r->changed);
        }
    }
    pthread_mutex_unlock(&r->mutex);
    return NULL;
}

/* No memory for a longer list: wait until there is room in this one. */
static void give(struct kiln_ranks *r, const struct job *job) {
    pthread_mutex_lock(&r->mutex);
    while (r->queued - r->ended == r->room && !r->failed) {
        pthread_cond_wait(&r->changed, &r->mutex);
    }
    if (r->ended == r->queued) {
        r->since = kiln_now_s();
    }
    r->jobs[r->queued++ % r->room] = *job;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
}

void kiln_ranks_sum(struct kiln_ranks *r, float *x, size_t n) {
    if (r && n > 0) {
        const struct job job = {.leaves = (uint64_t)r->n, .x = x, .n = n};
        give(r, &job);
    }
}

void kiln_ranks_combine(struct kiln_ranks *r, uint64_t micro_batches, float *const *nodes,
                        size_t at, float *x, size_t n) {
    if (r && n > 0) {
        const struct job job = {.leaves = micro_batches, .nodes = nodes, .at = at, .x = x, .n = n};
        give(r, &job);
    }
}

enum kiln_status kiln_ranks_wait(struct kiln_ranks *r, struct kiln_err *err) {
    if (!r) {
        return KILN_OK;
    }
    const double start = kiln_now_s();
    pthread_mutex_lock(&r->mutex);
    while (r->ended != r->queued && !r->failed) {
        pthread_cond_wait(&r->changed, &r->mutex);
    }
    const bool failed = r->failed;
    pthread_mutex_unlock(&r->mutex);
    tell_span(r, KILN_SPAN_REDUCE_WAIT, KILN_RANKS_UNDER_WAY + 1, start);
    if (failed && err) {
        *err = r->err;
    }
    return failed ? r->err.code : KILN_OK;
}

/* ---- who there is -----------------------------------------------------------------------------
 */

static struct who myself(void) {
    struct who w = {.pid = getpid()};
    char boot[40], space[64] = "";
    kiln_boot_id(boot);
    gethostname(w.host, sizeof w.host - 1);
    if (readlink("/proc/self/ns/pid", space, sizeof space - 1) < 0) {
        space[0] = '\0';
    }
    snprintf(w.place, sizeof w.place, "%s %.39s %s", w.host, boot, space);
    sched_getaffinity(0, sizeof w.processors, &w.processors);
    return w;
}

/* Ranks that may run on the same processors share them. */
static size_t my_threads(const struct kiln_ranks *r) {
    const struct who *mine = &r->who[r->mine];
    size_t beside = 0;
    for (int i = 0; i < r->n; i++) {
        beside += strcmp(r->who[i].place, mine->place) == 0 &&
                  CPU_EQUAL(&r->who[i].processors, &mine->processors);
    }
    const size_t threads = kiln_cpu_count() / beside;
    return threads > 0 ? threads : 1;
}

static enum kiln_status meet(struct kiln_ranks *r, struct kiln_err *err) {
    r->who = kiln_alloc((size_t)r->n, sizeof *r->who);
    r->room = 4096;
    r->jobs = kiln_alloc(r->room, sizeof *r->jobs);
    KILN_REQUIRE(r->who && r->jobs, err, KILN_ENOMEM, "no memory for %d ranks", r->n);
    struct who me = myself();
    TRY_MPI(MPI_Allgather(&me, sizeof me, MPI_BYTE, r->who, sizeof me, MPI_BYTE, MPI_COMM_WORLD),
            "meeting the other ranks", err);
    r->threads = my_threads(r);
    KILN_REQUIRE(pthread_create(&r->thread, NULL, work, r) == 0, err, KILN_ENOMEM,
                 "no thread for the other ranks");
    return KILN_OK;
}

static void release(struct kiln_ranks *r) {
    for (size_t i = 0; i < KILN_RANKS_UNDER_WAY; i++) {
        kiln_free(r->flights[i].requests);
        kiln_free(r->flights[i].scratch);
    }
    kiln_free(r->who);
    kiln_free(r->jobs);
    kiln_free(r);
}

/* Of Open MPI, where nobody says otherwise: what is sent over TCP goes off at once, however long.
 * By itself it asks first where a message is above 64 KiB, and waits for the answer. */
static void choose_settings(void) {
    static const char *const names[] = {"OMPI_MCA_btl_tcp_eager_limit",
                                        "OMPI_MCA_btl_tcp_rndv_eager_limit",
                                        "OMPI_MCA_btl_tcp_max_send_size"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        setenv(names[i], "4194304", 0);
    }
}

enum kiln_status kiln_ranks_open(struct kiln_ranks **out, struct kiln_err *err) {
    int given;
    *out = NULL;
    if (!kiln_ranks_are_many()) {
        return KILN_OK;
    }
    choose_settings();
    TRY_MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &given), "starting MPI", err);
    KILN_REQUIRE(given >= MPI_THREAD_SERIALIZED, err, KILN_EUNSUPPORTED,
                 "this MPI is built without threads (MPI_THREAD_SERIALIZED), which kiln needs");
    struct kiln_ranks *r = kiln_alloc(1, sizeof *r);
    KILN_REQUIRE(r, err, KILN_ENOMEM, "no memory for ranks");
    pthread_mutex_init(&r->mutex, NULL);
    pthread_cond_init(&r->changed, NULL);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_size(MPI_COMM_WORLD, &r->n);
    MPI_Comm_rank(MPI_COMM_WORLD, &r->mine);
    const enum kiln_status status = meet(r, err);
    if (status != KILN_OK) {
        release(r);
        return status;
    }
    *out = r;
    return KILN_OK;
}

void kiln_ranks_close(struct kiln_ranks *r, bool well) {
    if (!r) {
        return;
    }
    pthread_mutex_lock(&r->mutex);
    r->over = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
    pthread_join(r->thread, NULL);
    if (well || r->settled) {
        MPI_Finalize();
    }
    release(r);
}

size_t kiln_ranks_count(const struct kiln_ranks *r) { return r ? (size_t)r->n : 1; }
size_t kiln_ranks_mine(const struct kiln_ranks *r) { return r ? (size_t)r->mine : 0; }
size_t kiln_ranks_threads(const struct kiln_ranks *r) { return r ? r->threads : 0; }

size_t kiln_ranks_beside(const struct kiln_ranks *r) {
    size_t n = r ? 0 : 1;
    for (int i = 0; r && i < r->n; i++) {
        n += strcmp(r->who[i].place, r->who[r->mine].place) == 0;
    }
    return n;
}
