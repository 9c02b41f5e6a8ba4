/* SPDX-License-Identifier: MIT
 *
 * mpi_sums.c: sums of gradients over ranks, beside the computing (mpi_int.h).
 */
#include <string.h>

#include "base/bf16.h"
#include "base/machine.h"
#include "base/mem.h"
#include "ranks/mpi_int.h"
#include "ranks/tree.h"

/* ---- sums, beside the computing ---------------------------------------------------------------
 */

/* What a rank has of what travels, from where that begins. */
static struct kiln_range range_of(const struct kiln_ranks_flight *f, int n, int rank) {
    const struct kiln_ranks_cut *cut = &f->job.cut;
    const struct kiln_range all = {0, f->job.n};
    return cut->part ? kiln_range_slice(cut->part[rank], cut->slice, cut->slices)
                     : kiln_range_slice(all, (size_t)rank, (size_t)n);
}

static size_t part_of(const struct kiln_ranks_flight *f, int n, int rank) {
    return range_of(f, n, rank).at;
}

static size_t part_size(const struct kiln_ranks_flight *f, int n, int rank) {
    return range_of(f, n, rank).n;
}

/* A node of this rank, from where the stretch begins. */
static float *node_of(const struct kiln_ranks_flight *f, size_t k) {
    return f->job.nodes ? f->job.nodes[k] + f->job.at : f->job.x;
}

static bool directly(const struct kiln_ranks *r, const struct kiln_ranks_flight *f) {
    return f->job.nodes || f->job.cut.part || f->job.narrow || r->n <= KILN_RANKS_DIRECT ||
           f->job.ranks < r->n;
}

/* A stretch in bf16, and behind it what other ranks sent. */
static uint16_t *narrow_of(const struct kiln_ranks_flight *f) { return (void *)f->scratch; }

static MPI_Datatype type_of(const struct kiln_ranks_flight *f) {
    return f->job.narrow ? MPI_UINT16_T : MPI_FLOAT;
}

static size_t bytes_of(const struct kiln_ranks_flight *f, size_t n) {
    return n * (f->job.narrow ? sizeof(uint16_t) : sizeof(float));
}

/* Node k from number `at` on, and what is to be everybody's, as they travel. */
static void *node_at(const struct kiln_ranks_flight *f, size_t k, size_t at) {
    return f->job.narrow ? (void *)(narrow_of(f) + at) : (void *)(node_of(f, k) + at);
}
static void *sum_at(const struct kiln_ranks_flight *f, size_t at) {
    return f->job.narrow ? (void *)(narrow_of(f) + at) : (void *)(f->job.x + at);
}

/* Leaves of a rank: none where it only receives. */
static struct kiln_share leaves_of(const struct kiln_ranks_flight *f, int rank) {
    const struct kiln_ranks_job *job = &f->job;
    const bool adds = rank >= job->first && rank < job->first + job->ranks;
    return adds ? kiln_share_of(job->leaves, (size_t)job->ranks, (size_t)(rank - job->first))
                : (struct kiln_share){0};
}

static size_t nodes_of(const struct kiln_ranks_flight *f, int rank) {
    const struct kiln_share s = leaves_of(f, rank);
    return kiln_tree_nodes(s.first, s.first + s.n);
}

static enum kiln_status make_room(const struct kiln_ranks *r, struct kiln_ranks_flight *f,
                                  struct kiln_err *err) {
    const size_t own = nodes_of(f, r->mine);
    size_t others = 0;
    for (int i = 0; i < r->n && !f->job.bytes; i++) {
        others += i == r->mine ? 0 : nodes_of(f, i);
    }
    const size_t requests = (own + 2) * (size_t)r->n + others + 1;
    const size_t came = others * part_size(f, r->n, r->mine);
    const size_t scratch = f->job.narrow    ? (f->job.n + came + 1) / 2
                           : directly(r, f) ? came
                                            : f->job.n;
    if (requests > f->room) {
        kiln_free(f->requests);
        f->requests = kiln_alloc(requests, sizeof(MPI_Request));
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
static int tag_of(const struct kiln_ranks_flight *f) {
    return (int)(f->number % 8192) * 2 + f->sharing;
}

/* Each rank gets everybody's nodes of its part. */
static int begin_combine(const struct kiln_ranks *r, struct kiln_ranks_flight *f) {
    int code = MPI_SUCCESS;
    const size_t own = nodes_of(f, r->mine), mine = part_size(f, r->n, r->mine);
    char *to = (char *)f->scratch + (f->job.narrow ? bytes_of(f, f->job.n) : 0);
    for (int i = 0; i < r->n && code == MPI_SUCCESS; i++) {
        const size_t theirs = i == r->mine ? 0 : nodes_of(f, i);
        for (size_t k = 0; k < theirs && code == MPI_SUCCESS; k++, to += bytes_of(f, mine)) {
            code = MPI_Irecv(to, (int)mine, type_of(f), i, tag_of(f), MPI_COMM_WORLD,
                             &f->requests[f->n_requests++]);
        }
    }
    for (int i = 0; i < r->n; i++) {
        for (size_t k = 0; i != r->mine && k < own && code == MPI_SUCCESS; k++) {
            code =
                MPI_Isend(node_at(f, k, part_of(f, r->n, i)), (int)part_size(f, r->n, i),
                          type_of(f), i, tag_of(f), MPI_COMM_WORLD, &f->requests[f->n_requests++]);
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
static void add_nodes(const struct kiln_ranks *r, const struct kiln_ranks_flight *f) {
    const size_t mine = part_size(f, r->n, r->mine), part = part_of(f, r->n, r->mine);
    struct kiln_tree tree = {.next = 0};
    float *open[KILN_TREE_OPEN], *from = f->scratch;
    for (size_t i = 0; i < KILN_TREE_OPEN; i++) {
        open[i] = f->job.x; /* none is read before it is set; the linter cannot know */
    }
    for (int i = 0; i < r->n; i++) {
        const struct kiln_share s = leaves_of(f, i);
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

static void narrow(const float *from, uint16_t *to, size_t n) {
    for (size_t i = 0; i < n; i++) {
        to[i] = kiln_f32_to_bf16(from[i]);
    }
}

/* This rank's part of numbers in bf16, those of the first rank first. */
static void add_narrow(const struct kiln_ranks *r, const struct kiln_ranks_flight *f) {
    const size_t mine = part_size(f, r->n, r->mine), part = part_of(f, r->n, r->mine);
    const uint16_t *came = narrow_of(f) + f->job.n;
    float *sum = f->job.x + part;
    for (int i = f->job.first; i < f->job.first + f->job.ranks; i++) {
        const uint16_t *from = i == r->mine ? narrow_of(f) + part : came;
        for (size_t k = 0; k < mine; k++) {
            sum[k] = (i > f->job.first ? sum[k] : 0) + kiln_bf16_to_f32(from[k]);
        }
        came += i == r->mine ? 0 : mine;
    }
    narrow(sum, narrow_of(f) + part, mine);
}

/* Each rank has its part: all get it. */
static int begin_sharing(const struct kiln_ranks *r, struct kiln_ranks_flight *f) {
    int code = MPI_SUCCESS;
    const size_t size = f->job.bytes ? 1 : bytes_of(f, 1);
    unsigned char *all = f->job.bytes ? f->job.bytes : sum_at(f, 0);
    const struct kiln_range mine = range_of(f, r->n, r->mine);
    for (int i = 0; i < r->n && code == MPI_SUCCESS; i++) {
        const struct kiln_range theirs = range_of(f, r->n, i);
        if (i == r->mine) {
            continue;
        }
        code = MPI_Irecv(all + theirs.at * size, (int)(theirs.n * size), MPI_BYTE, i, tag_of(f),
                         MPI_COMM_WORLD, &f->requests[f->n_requests++]);
        if (code == MPI_SUCCESS) {
            code = MPI_Isend(all + mine.at * size, (int)(mine.n * size), MPI_BYTE, i, tag_of(f),
                             MPI_COMM_WORLD, &f->requests[f->n_requests++]);
        }
    }
    return code;
}

static enum kiln_status begin_job(struct kiln_ranks *r, struct kiln_ranks_flight *f,
                                  struct kiln_err *err) {
    const char *what = "adding the gradients of all ranks";
    f->n_requests = 0;
    f->sharing = f->job.bytes != NULL;
    KILN_TRY(make_room(r, f, err));
    if (f->job.narrow && nodes_of(f, r->mine) > 0) {
        narrow(f->job.x, narrow_of(f), f->job.n);
    }
    if (f->sharing) {
        KILN_TRY_MPI(begin_sharing(r, f), "sharing the weights of all ranks", err);
    } else if (directly(r, f)) {
        KILN_TRY_MPI(begin_combine(r, f), what, err);
    } else { /* in place Open MPI takes a tree, whose root sends all there is log n times */
        memcpy(f->scratch, f->job.x, f->job.n * sizeof *f->scratch);
        KILN_TRY_MPI(MPI_Iallreduce(f->scratch, f->job.x, (int)f->job.n, MPI_FLOAT, MPI_SUM,
                                    MPI_COMM_WORLD, &f->requests[f->n_requests++]),
                     what, err);
    }
    f->busy = true;
    f->since = kiln_now_s();
    return KILN_OK;
}

/* One look at a job under way; *moved: something of it has ended. */
static enum kiln_status push(const struct kiln_ranks *r, struct kiln_ranks_flight *f, bool *moved,
                             struct kiln_err *err) {
    const char *what = "adding the gradients of all ranks";
    int done = 0;
    KILN_TRY_MPI(MPI_Testall((int)f->n_requests, f->requests, &done, MPI_STATUSES_IGNORE), what,
                 err);
    *moved |= done != 0;
    if (!done) {
        return KILN_OK;
    }
    f->n_requests = 0;
    if (directly(r, f) && !f->sharing) {
        if (f->job.narrow) {
            add_narrow(r, f);
        } else {
            add_nodes(r, f);
        }
        f->sharing = !f->job.cut.part;
        if (f->sharing) {
            KILN_TRY_MPI(begin_sharing(r, f), what, err);
            return KILN_OK;
        }
    }
    for (size_t i = 0; f->job.narrow && i < f->job.n; i++) {
        f->job.x[i] = kiln_bf16_to_f32(narrow_of(f)[i]);
    }
    f->busy = false;
    return KILN_OK;
}

/* The next job that waits, in a flight that is free; the mutex is held. */
static struct kiln_ranks_flight *take(struct kiln_ranks *r) {
    if (r->started == r->queued) {
        return NULL;
    }
    for (size_t i = 0; i < KILN_RANKS_UNDER_WAY; i++) {
        struct kiln_ranks_flight *f = &r->flights[i];
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
        struct kiln_ranks_flight *f = take(r);
        pthread_mutex_unlock(&r->mutex);
        if (!f) {
            break;
        }
        KILN_TRY(begin_job(r, f, err));
        *moved = true;
    }
    size_t ended = 0;
    for (size_t i = 0; i < KILN_RANKS_UNDER_WAY; i++) {
        struct kiln_ranks_flight *f = &r->flights[i];
        if (f->busy) {
            KILN_TRY(push(r, f, moved, err));
            ended += !f->busy;
            if (!f->busy) {
                kiln_ranks_span(r, KILN_SPAN_STRETCH, 1 + (uint32_t)i, f->since);
            }
        }
    }
    if (ended > 0) {
        pthread_mutex_lock(&r->mutex);
        r->ended += ended;
        if (r->ended == r->queued) {
            kiln_ranks_span(r, KILN_SPAN_REDUCE, 0, r->since);
            pthread_cond_broadcast(&r->changed);
        }
        pthread_mutex_unlock(&r->mutex);
    }
    pthread_mutex_lock(&r->mutex);
    const enum kiln_status status = kiln_lanes_turn(r, moved, err);
    pthread_mutex_unlock(&r->mutex);
    return status;
}

/* Nothing is under way; the mutex is held. */
static bool idle(const struct kiln_ranks *r) {
    return r->ended == r->queued && !kiln_lanes_busy(r);
}

static void *work(void *context) {
    struct kiln_ranks *r = context;
    kiln_thread_name("kiln ranks");
    double next = 0;
    pthread_mutex_lock(&r->mutex);
    while (!r->over && !r->failed) {
        if (idle(r)) {
            pthread_cond_wait(&r->changed, &r->mutex);
            next = kiln_now_s() + KILN_RANKS_LOOK_MS / 1e3;
            continue;
        }
        pthread_mutex_unlock(&r->mutex);
        struct kiln_err err;
        bool moved = false;
        enum kiln_status status = turn(r, &moved, &err);
        if (status == KILN_OK && !moved) {
            kiln_ranks_nap();
            if (kiln_now_s() > next) {
                status = kiln_ranks_look(r, &err);
                next = kiln_now_s() + KILN_RANKS_LOOK_MS / 1e3;
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
static void give(struct kiln_ranks *r, const struct kiln_ranks_job *job) {
    pthread_mutex_lock(&r->mutex);
    while (r->queued - r->ended == r->room && !r->failed) {
        pthread_cond_wait(&r->changed, &r->mutex);
    }
    if (r->ended == r->queued) {
        r->since = kiln_now_s();
    }
    struct kiln_ranks_job *mine = &r->jobs[r->queued++ % r->room];
    *mine = *job;
    mine->first = (int)r->first;
    mine->ranks = r->some > 0 ? (int)r->some : r->n;
    mine->leaves = job->leaves > 0 ? job->leaves : (uint64_t)mine->ranks;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
}

void kiln_ranks_from(struct kiln_ranks *r, size_t first, size_t n) {
    if (r) {
        r->first = n > 0 ? first : 0;
        r->some = n;
    }
}

void kiln_ranks_sum(struct kiln_ranks *r, float *x, size_t n) {
    if (r && n > 0) {
        const struct kiln_ranks_job job = {.leaves = 0, .x = x, .n = n, .narrow = r->narrow};
        give(r, &job);
    }
}

void kiln_ranks_combine(struct kiln_ranks *r, uint64_t micro_batches, float *const *nodes,
                        size_t at, float *x, size_t n) {
    if (r && n > 0) {
        const struct kiln_ranks_job job = {
            .leaves = micro_batches, .nodes = nodes, .at = at, .x = x, .n = n};
        give(r, &job);
    }
}

void kiln_ranks_sum_parts(struct kiln_ranks *r, uint64_t micro_batches, float *const *nodes,
                          float *x, const struct kiln_ranks_cut *cut) {
    if (r) {
        const struct kiln_ranks_job job = {
            .leaves = nodes ? micro_batches : 0, .nodes = nodes, .x = x, .cut = *cut};
        give(r, &job);
    }
}

void kiln_ranks_share(struct kiln_ranks *r, void *bytes, const struct kiln_ranks_cut *cut) {
    if (r) {
        const struct kiln_ranks_job job = {.cut = *cut, .bytes = bytes};
        give(r, &job);
    }
}

void kiln_ranks_narrow(struct kiln_ranks *r, bool on) {
    if (r) {
        r->narrow = on;
    }
}

enum kiln_status kiln_ranks_wait(struct kiln_ranks *r, struct kiln_err *err) {
    if (!r) {
        return KILN_OK;
    }
    const double start = kiln_now_s();
    pthread_mutex_lock(&r->mutex);
    while (!idle(r) && !r->failed) {
        pthread_cond_wait(&r->changed, &r->mutex);
    }
    const bool failed = r->failed;
    pthread_mutex_unlock(&r->mutex);
    kiln_ranks_span(r, KILN_SPAN_REDUCE_WAIT, KILN_RANKS_WAITING, start);
    if (failed && err) {
        *err = r->err;
    }
    return failed ? r->err.code : KILN_OK;
}

/* ---- the thread -------------------------------------------------------------------------------
 */

enum kiln_status kiln_ranks_begin_sums(struct kiln_ranks *r, struct kiln_err *err) {
    r->room = 4096;
    r->jobs = kiln_alloc(r->room, sizeof *r->jobs);
    KILN_REQUIRE(r->jobs, err, KILN_ENOMEM, "no memory for sums over ranks");
    pthread_mutex_init(&r->mutex, NULL);
    pthread_cond_init(&r->changed, NULL);
    r->runs = pthread_create(&r->thread, NULL, work, r) == 0;
    KILN_REQUIRE(r->runs, err, KILN_ENOMEM, "no thread for the other ranks");
    return KILN_OK;
}

void kiln_ranks_end_sums(struct kiln_ranks *r) {
    if (r->runs) {
        pthread_mutex_lock(&r->mutex);
        r->over = true;
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&r->mutex);
        pthread_join(r->thread, NULL);
        r->runs = false;
    }
    for (size_t i = 0; i < KILN_RANKS_UNDER_WAY; i++) {
        kiln_free(r->flights[i].requests);
        kiln_free(r->flights[i].scratch);
        r->flights[i].requests = NULL;
        r->flights[i].scratch = NULL;
    }
    kiln_lanes_free(r);
    kiln_free(r->jobs);
    r->jobs = NULL;
}
