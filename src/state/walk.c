/* SPDX-License-Identifier: MIT
 *
 * walk.c: a state that is larger than the memory it may take.
 *
 * Whoever works through the parameters says what it wants next and what it is done with. What is
 * wanted is read by a thread of its own, since the system makes the caller wait for the disk; what
 * is done with leaves the process at once and is written by that thread. Pages that the system
 * keeps in its cache, as far as others leave it room, are found there again: they are nobody's
 * memory. (Linux; elsewhere the system is told no more than that pages are not needed.)
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/mem.h"
#include "state/state_int.h"

enum { REQUESTS = 512 };

struct request {
    bool read;
    size_t offset, bytes; /* of the file */
};

struct kiln_walk {
    struct kiln_state *state;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wanted;
    struct request at[REQUESTS]; /* a ring */
    size_t first, n;
    bool sweep, stop;
};

static void serve(const struct kiln_state *state, const struct request *r) {
    if (r->read) {
        madvise(state->base + r->offset, r->bytes, MADV_WILLNEED);
        return;
    }
#ifdef SYNC_FILE_RANGE_WRITE
    sync_file_range(state->fd, (off_t)r->offset, (off_t)r->bytes, SYNC_FILE_RANGE_WRITE);
#endif
}

/* Somebody reads weights, moments and snapshots from end to end and says nothing: drop them now and
 * then. */
static void sweep(const struct kiln_state *state) {
    static const enum kiln_region read[] = {KILN_WEIGHTS, KILN_MOMENT1, KILN_MOMENT2,
                                            KILN_SNAPSHOT0, KILN_SNAPSHOT1};
    for (size_t i = 0; i < sizeof read / sizeof read[0]; i++) {
        const enum kiln_region region = read[i];
        const size_t bytes =
            kiln_state_region_bytes(state->table, state->snapshots, state->local, region);
        madvise(state->region[region], bytes / KILN_STATE_PAGE * KILN_STATE_PAGE, MADV_DONTNEED);
    }
}

static void wait_a_little(struct kiln_walk *w) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 50 * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    if (pthread_cond_timedwait(&w->wanted, &w->lock, &until) == ETIMEDOUT && w->sweep) {
        sweep(w->state);
    }
}

static void *walk_thread(void *context) {
    struct kiln_walk *w = context;
    kiln_thread_name("kiln walk");
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        if (w->n == 0 && w->sweep) {
            wait_a_little(w);
            continue;
        }
        if (w->n == 0) {
            pthread_cond_wait(&w->wanted, &w->lock);
            continue;
        }
        const struct request r = w->at[w->first];
        w->first = (w->first + 1) % REQUESTS;
        w->n--;
        pthread_mutex_unlock(&w->lock);
        serve(w->state, &r);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* Hints only: one that finds no room is lost. */
static void ask(struct kiln_walk *w, bool read, size_t offset, size_t bytes) {
    pthread_mutex_lock(&w->lock);
    if (w->n < REQUESTS) {
        w->at[(w->first + w->n++) % REQUESTS] = (struct request){read, offset, bytes};
        pthread_cond_signal(&w->wanted);
    }
    pthread_mutex_unlock(&w->lock);
}

enum kiln_status kiln_state_walk(struct kiln_state *state, struct kiln_err *err) {
    struct kiln_walk *w = kiln_alloc(1, sizeof *w);
    KILN_REQUIRE(w, err, KILN_ENOMEM, "no memory to walk the state");
    w->state = state;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wanted, NULL);
    if (pthread_create(&w->thread, NULL, walk_thread, w) != 0) {
        kiln_free(w);
        return KILN_FAIL(err, KILN_ENOMEM, "cannot start the thread that reads the state ahead");
    }
    state->walk = w;
    return KILN_OK;
}

void kiln_state_walk_end(struct kiln_state *state) {
    struct kiln_walk *w = state->walk;
    if (!w) {
        return;
    }
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->wanted);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->wanted);
    kiln_free(w);
    state->walk = NULL;
}

bool kiln_state_walks(const struct kiln_state *state) { return state->walk != NULL; }

/* Offset and number of floats of the weights as those of a region that has what is trained only;
 * false where it has none of them. */
static bool trained_part(const struct kiln_state *state, enum kiln_region region, size_t *offset,
                         size_t *n) {
    const size_t trained = state->table->trained;
    const bool part = region == KILN_MOMENT1 || region == KILN_MOMENT2 || region == KILN_GRADIENTS;
    if (!part || trained == 0) {
        return true;
    }
    const size_t end = *offset + *n, first = *offset > trained ? *offset : trained;
    *offset = first - trained;
    *n = end > first ? end - first : 0;
    return *n > 0;
}

/* Bytes of the file for floats of a region, in whole pages: outward to read, inward to drop, so
 * that a neighbour's page stays. */
static bool pages_of(const struct kiln_state *state, enum kiln_region region, size_t offset,
                     size_t n, bool inward, size_t *first, size_t *bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t start = (size_t)((unsigned char *)state->region[region] - state->base);
    if (!trained_part(state, region, &offset, &n)) {
        return false;
    }
    const size_t from = start + offset * sizeof(float), to = from + n * sizeof(float);
    *first = inward ? kiln_round_up(from, page) : from / page * page;
    const size_t end = inward ? to / page * page : kiln_round_up(to, page);
    *bytes = end > *first ? end - *first : 0;
    return *bytes > 0;
}

void kiln_state_ahead(struct kiln_state *state, enum kiln_region region, size_t offset, size_t n) {
    size_t first, bytes;
    if (state->walk && pages_of(state, region, offset, n, false, &first, &bytes)) {
        ask(state->walk, true, first, bytes);
    }
}

void kiln_state_behind(struct kiln_state *state, enum kiln_region region, size_t offset, size_t n) {
    size_t first, bytes;
    if (state->walk && pages_of(state, region, offset, n, true, &first, &bytes)) {
        madvise(state->base + first, bytes, MADV_DONTNEED);
        ask(state->walk, false, first, bytes);
    }
}

void kiln_state_drop(struct kiln_state *state, enum kiln_region region, size_t offset, size_t n) {
    size_t first, bytes;
    if (pages_of(state, region, offset, n, true, &first, &bytes)) {
        const struct request written = {.offset = first, .bytes = bytes};
        madvise(state->base + first, bytes, MADV_DONTNEED);
        serve(state, &written);
    }
}

void kiln_state_sweep(struct kiln_state *state, bool on) {
    if (state->walk) {
        pthread_mutex_lock(&state->walk->lock);
        state->walk->sweep = on;
        pthread_cond_signal(&state->walk->wanted);
        pthread_mutex_unlock(&state->walk->lock);
    }
}

void kiln_state_forget(struct kiln_state *state, enum kiln_region region) {
#ifdef FALLOC_FL_ZERO_RANGE
    const size_t bytes =
        kiln_state_region_bytes(state->table, state->snapshots, state->local, region);
    const size_t start = (size_t)((unsigned char *)state->region[region] - state->base);
    if (state->walk && !state->reader && bytes > 0) {
        /* A hint, too: where the file system cannot, old values are read to be overwritten. */
        (void)!fallocate(state->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)start,
                         (off_t)(bytes / KILN_STATE_PAGE * KILN_STATE_PAGE));
    }
#else
    (void)state;
    (void)region;
#endif
}
