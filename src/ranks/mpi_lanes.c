/* SPDX-License-Identifier: MIT
 *
 * mpi_lanes.c: arrays from rank to rank, beside the computing (mpi_int.h).
 *
 * Arrays are counted: what is wanted of a lane, what has been begun of it, what is done. Those of
 * an incoming lane are received into whatever place is free before anybody asks for them. MPI keeps
 * messages between two ranks in order.
 */
#include "base/machine.h"
#include "base/mem.h"
#include "ranks/mpi_int.h"

/* Tags of the kinds; sums have those below 16384. */
enum { TAG = 20000 };
/* Rows of a trace, behind those of sums and waiting: of each kind one a place. */
enum { ROW = KILN_RANKS_WAITING + 1 };

struct kiln_lane {
    struct kiln_ranks *ranks;
    struct kiln_lane *next;
    int peer, kind;
    bool incoming;
    size_t n; /* floats of an array */
    float *places[KILN_LANE_ARRAYS];
    MPI_Request requests[KILN_LANE_ARRAYS];
    double since[KILN_LANE_ARRAYS];
    uint64_t wanted; /* incoming: will have come; else: given to be sent */
    uint64_t begun, done;
    uint64_t taken; /* incoming: by the owner */
};

/* ---- the thread -------------------------------------------------------------------------------
 */

bool kiln_lanes_busy(const struct kiln_ranks *r) {
    for (const struct kiln_lane *l = r->lanes; l; l = l->next) {
        if (l->done < l->wanted) {
            return true;
        }
    }
    return false;
}

static bool may_begin(const struct kiln_lane *l) {
    return l->begun < l->wanted && (!l->incoming || l->begun < l->taken + KILN_LANE_ARRAYS);
}

static int begin(struct kiln_lane *l) {
    const size_t at = l->begun++ % KILN_LANE_ARRAYS;
    l->since[at] = kiln_now_s();
    return l->incoming ? MPI_Irecv(l->places[at], (int)l->n, MPI_FLOAT, l->peer, TAG + l->kind,
                                   MPI_COMM_WORLD, &l->requests[at])
                       : MPI_Isend(l->places[at], (int)l->n, MPI_FLOAT, l->peer, TAG + l->kind,
                                   MPI_COMM_WORLD, &l->requests[at]);
}

static enum kiln_status turn(struct kiln_lane *l, bool *moved, struct kiln_err *err) {
    const char *what = "passing activations between ranks";
    while (may_begin(l)) {
        KILN_TRY_MPI(begin(l), what, err);
        *moved = true;
    }
    while (l->done < l->begun) {
        const size_t at = l->done % KILN_LANE_ARRAYS;
        int done = 0;
        KILN_TRY_MPI(MPI_Test(&l->requests[at], &done, MPI_STATUS_IGNORE), what, err);
        if (!done) {
            break;
        }
        if (!l->incoming) {
            const uint32_t row = ROW + (uint32_t)(l->kind * KILN_LANE_ARRAYS) + (uint32_t)at;
            kiln_ranks_span(l->ranks, KILN_SPAN_PASS, row, l->since[at]);
        }
        l->done++;
        *moved = true;
    }
    return KILN_OK;
}

enum kiln_status kiln_lanes_turn(struct kiln_ranks *r, bool *moved, struct kiln_err *err) {
    bool any = false;
    for (struct kiln_lane *l = r->lanes; l; l = l->next) {
        KILN_TRY(turn(l, &any, err));
    }
    if (any) {
        *moved = true;
        pthread_cond_broadcast(&r->changed);
    }
    return KILN_OK;
}

/* ---- the owner --------------------------------------------------------------------------------
 */

static void release(struct kiln_lane *l) {
    if (l) {
        kiln_free(l->places[0]);
        kiln_free(l);
    }
}

enum kiln_status kiln_lane_open(struct kiln_ranks *r, size_t peer, bool incoming, int kind,
                                size_t floats, struct kiln_lane **out, struct kiln_err *err) {
    struct kiln_lane *l = kiln_alloc(1, sizeof *l);
    float *places = kiln_alloc(KILN_LANE_ARRAYS * floats, sizeof *places);
    *out = NULL;
    if (!l || !places) {
        kiln_free(l);
        kiln_free(places);
        return KILN_FAIL(err, KILN_ENOMEM, "no memory for %zu activations on their way", floats);
    }
    *l = (struct kiln_lane){
        .ranks = r, .peer = (int)peer, .kind = kind, .incoming = incoming, .n = floats};
    for (size_t i = 0; i < KILN_LANE_ARRAYS; i++) {
        l->places[i] = places + i * floats;
    }
    pthread_mutex_lock(&r->mutex);
    l->next = r->lanes;
    r->lanes = l;
    pthread_mutex_unlock(&r->mutex);
    *out = l;
    return KILN_OK;
}

/* Behind a failure something may be under way still: MPI writes there until the end. */
void kiln_lane_close(struct kiln_lane *l) {
    if (!l) {
        return;
    }
    struct kiln_ranks *r = l->ranks;
    pthread_mutex_lock(&r->mutex);
    const bool ended = l->done == l->wanted;
    for (struct kiln_lane **at = &r->lanes; ended && *at; at = &(*at)->next) {
        if (*at == l) {
            *at = l->next;
            break;
        }
    }
    pthread_mutex_unlock(&r->mutex);
    release(ended ? l : NULL);
}

void kiln_lanes_free(struct kiln_ranks *r) {
    while (r->lanes) {
        struct kiln_lane *l = r->lanes;
        r->lanes = l->next;
        release(l);
    }
}

void kiln_lane_expect(struct kiln_lane *l, uint64_t arrays) {
    pthread_mutex_lock(&l->ranks->mutex);
    l->wanted += arrays;
    pthread_cond_broadcast(&l->ranks->changed);
    pthread_mutex_unlock(&l->ranks->mutex);
}

static bool is_there(const struct kiln_lane *l) {
    return l->incoming ? l->taken < l->done : l->wanted < l->done + KILN_LANE_ARRAYS;
}

enum kiln_status kiln_lane_take(struct kiln_lane *l, float **x, struct kiln_err *err) {
    struct kiln_ranks *r = l->ranks;
    const double start = kiln_now_s();
    pthread_mutex_lock(&r->mutex);
    const bool waits = !is_there(l);
    while (!is_there(l) && !r->failed) {
        pthread_cond_wait(&r->changed, &r->mutex);
    }
    const bool failed = r->failed;
    *x = l->places[(l->incoming ? l->taken : l->wanted) % KILN_LANE_ARRAYS];
    pthread_mutex_unlock(&r->mutex);
    if (waits) {
        kiln_ranks_span(r, KILN_SPAN_RANKS_WAIT, KILN_RANKS_WAITING, start);
    }
    if (failed && err) {
        *err = r->err;
    }
    return failed ? r->err.code : KILN_OK;
}

void kiln_lane_release(struct kiln_lane *l) {
    pthread_mutex_lock(&l->ranks->mutex);
    *(l->incoming ? &l->taken : &l->wanted) += 1;
    pthread_cond_broadcast(&l->ranks->changed);
    pthread_mutex_unlock(&l->ranks->mutex);
}
