/* SPDX-License-Identifier: MIT
 *
 * mpi.c: who there is, and how is waited for others (mpi_int.h).
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/mem.h"
#include "ranks/mpi_int.h"

void kiln_ranks_span(const struct kiln_ranks *r, enum kiln_span_kind kind, uint32_t thread,
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

enum kiln_status kiln_ranks_fail(int code, const char *what, struct kiln_err *err) {
    char words[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, words, &length);
    return KILN_FAIL(err, KILN_ELOST, "%s: MPI says: %.400s", what, words);
}

void kiln_ranks_nap(void) {
    const struct timespec t = {.tv_nsec = 40000};
    nanosleep(&t, NULL);
}

/* Is it on the same machine, where process ids mean the same? */
static bool is_beside(const struct kiln_ranks *r, int rank) {
    return strcmp(r->who[rank].place, r->who[r->mine].place) == 0;
}

/* Of this machine the system says who lives; of others mpirun does, and ends the rest. */
enum kiln_status kiln_ranks_look(const struct kiln_ranks *r, struct kiln_err *err) {
    for (int i = 0; i < r->n; i++) {
        const struct kiln_ranks_who *other = &r->who[i];
        if (i != r->mine && is_beside(r, i) && kill(other->pid, 0) != 0 && errno == ESRCH) {
            return KILN_FAIL(err, KILN_ELOST, "rank %d of %d is gone (process %ld on %s)", i, r->n,
                             (long)other->pid, other->host);
        }
    }
    return KILN_OK;
}

/* Until all are done. Gone ranks are looked for now and then. */
enum kiln_status kiln_ranks_wait_for(const struct kiln_ranks *r, MPI_Request *request,
                                     const char *what, struct kiln_err *err) {
    const double start = kiln_now_s();
    double next = start + KILN_RANKS_LOOK_MS / 1e3;
    for (int done = 0;;) {
        KILN_TRY_MPI(MPI_Test(request, &done, MPI_STATUS_IGNORE), what, err);
        if (done) {
            kiln_ranks_span(r, KILN_SPAN_RANKS_WAIT, KILN_RANKS_WAITING, start);
            return KILN_OK;
        }
        kiln_ranks_nap();
        if (kiln_now_s() > next) {
            KILN_TRY(kiln_ranks_look(r, err));
            next = kiln_now_s() + KILN_RANKS_LOOK_MS / 1e3;
        }
    }
}

/* ---- who there is -----------------------------------------------------------------------------
 */

static struct kiln_ranks_who myself(void) {
    struct kiln_ranks_who w = {.pid = getpid()};
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
    const struct kiln_ranks_who *mine = &r->who[r->mine];
    size_t beside = 1;
    for (int i = 0; i < r->n; i++) {
        beside +=
            i != r->mine && is_beside(r, i) && CPU_EQUAL(&r->who[i].processors, &mine->processors);
    }
    const size_t threads = kiln_cpu_count() / beside;
    return threads > 0 ? threads : 1;
}

static enum kiln_status meet(struct kiln_ranks *r, struct kiln_err *err) {
    r->who = kiln_alloc((size_t)r->n, sizeof *r->who);
    KILN_REQUIRE(r->who, err, KILN_ENOMEM, "no memory for %d ranks", r->n);
    struct kiln_ranks_who me = myself();
    KILN_TRY_MPI(
        MPI_Allgather(&me, sizeof me, MPI_BYTE, r->who, sizeof me, MPI_BYTE, MPI_COMM_WORLD),
        "meeting the other ranks", err);
    r->threads = my_threads(r);
    KILN_TRY(kiln_ranks_measure(r, err));
    return kiln_ranks_begin_sums(r, err);
}

static void release(struct kiln_ranks *r) {
    kiln_ranks_end_sums(r);
    kiln_free(r->who);
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
    KILN_TRY_MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &given), "starting MPI", err);
    KILN_REQUIRE(given >= MPI_THREAD_SERIALIZED, err, KILN_EUNSUPPORTED,
                 "this MPI is built without threads (MPI_THREAD_SERIALIZED), which kiln needs");
    struct kiln_ranks *r = kiln_alloc(1, sizeof *r);
    KILN_REQUIRE(r, err, KILN_ENOMEM, "no memory for ranks");
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
    kiln_ranks_end_sums(r);
    if (well || r->settled) {
        MPI_Finalize();
    }
    release(r);
}

size_t kiln_ranks_count(const struct kiln_ranks *r) { return r ? (size_t)r->n : 1; }
size_t kiln_ranks_mine(const struct kiln_ranks *r) { return r ? (size_t)r->mine : 0; }
size_t kiln_ranks_threads(const struct kiln_ranks *r) { return r ? r->threads : 0; }

void kiln_ranks_link(const struct kiln_ranks *r, double *latency_s, double *bytes_per_s) {
    *latency_s = r ? r->latency_s : 0;
    *bytes_per_s = r ? r->bytes_per_s : (double)INFINITY;
}

size_t kiln_ranks_beside(const struct kiln_ranks *r) {
    size_t n = r ? 0 : 1;
    for (int i = 0; r && i < r->n; i++) {
        n += is_beside(r, i);
    }
    return n;
}
