/* SPDX-License-Identifier: MIT
 *
 * journal.c: chunks that are changed so that a death can be undone (state.h).
 */
#include <assert.h>
#include <string.h>

#include "base/kill_point.h"
#include "state/state_int.h"

static struct kiln_journal_slot *journal(struct kiln_state *state, size_t slot) {
    assert(slot < KILN_JOURNAL_SLOTS);
    return (struct kiln_journal_slot *)state->region[KILN_JOURNAL] + slot;
}

static _Atomic uint64_t *stamp(const struct kiln_state *state, size_t chunk) {
    return (_Atomic uint64_t *)state->region[KILN_STAMPS] + chunk;
}

/* Parameters in front of those that are copied: the lines that memory is asked for meanwhile. The
 * window of a processor reaches over one part, and would leave memory idle while it is computed. */
enum { AHEAD = 1024, LINE = 64 / sizeof(float) };

/* Where an element of the weights lies in a region: m and v are of what is trained. */
static float *place(const struct kiln_state *state, enum kiln_region region, size_t offset) {
    const size_t at = region == KILN_WEIGHTS ? offset : kiln_trained_at(state->table, offset);
    return (float *)state->region[region] + at;
}

/* n more of the chunk. Turn by turn, so that all streams come at once; hints are fine past the end.
 */
static void keep(const struct kiln_state *state, struct kiln_journal_slot *j, size_t had,
                 size_t n) {
    const size_t at = j->offset + had;
    const float *gradients = place(state, KILN_GRADIENTS, at);
    for (size_t i = 0; i < n; i += LINE) {
        __builtin_prefetch(gradients + i + AHEAD, 0, 2);
    }
    for (int r = 0; r < 3; r++) {
        const float *from = place(state, KILN_WEIGHTS + r, at);
        for (size_t i = 0; i < n; i += LINE) {
            __builtin_prefetch(from + i + AHEAD, 1, 2);
        }
        memcpy(j->old[r] + had, from, n * sizeof *from);
    }
}

/* A process dies between two instructions, and what it stored before is there: the compiler has to
 * keep the order of the stores, the processor's order is of no interest. */
static void in_order(void) { atomic_signal_fence(memory_order_seq_cst); }

void kiln_state_chunk_begin(struct kiln_state *state, size_t slot, size_t chunk, size_t offset,
                            size_t n) {
    struct kiln_journal_slot *j = journal(state, slot);
    j->offset = offset;
    j->n = n;
    keep(state, j, 0, n);
    in_order();
    kiln_kill_point("chunk: copied");
    atomic_store_explicit(&j->valid, chunk + 1, memory_order_release);
    in_order();
    kiln_kill_point("chunk: valid");
}

void kiln_state_chunk_more(struct kiln_state *state, size_t slot, size_t n) {
    struct kiln_journal_slot *j = journal(state, slot);
    const size_t had = j->n;
    assert(had + n <= KILN_CHUNK);
    keep(state, j, had, n);
    in_order();
    kiln_kill_point("chunk: copied more");
    j->n = had + n;
    in_order();
    kiln_kill_point("chunk: more");
}

void kiln_state_chunk_end(struct kiln_state *state, size_t slot, size_t chunk, uint64_t update) {
    in_order();
    kiln_kill_point("chunk: changed");
    atomic_store_explicit(stamp(state, chunk), update, memory_order_release);
    in_order();
    kiln_kill_point("chunk: stamped");
    atomic_store_explicit(&journal(state, slot)->valid, 0, memory_order_release);
}

bool kiln_state_chunk_done(const struct kiln_state *state, size_t chunk, uint64_t update) {
    return atomic_load_explicit(stamp(state, chunk), memory_order_acquire) == update;
}

#define MEND                                                                              \
    "; remove the file and resume: training goes on from the newest checkpoint; without " \
    "one, start a new run"

/* Every stamp is of this update or the one before; every slot points inside the parameters. */
static enum kiln_status check(struct kiln_state *state, uint64_t update, struct kiln_err *err) {
    for (size_t chunk = 0; chunk < state->chunks; chunk++) {
        uint64_t of = atomic_load(stamp(state, chunk));
        KILN_REQUIRE(of == update || of == update - 1, err, KILN_EDAMAGED,
                     "state %s: stamp of chunk %zu is %llu, expected %llu or %llu: the file is "
                     "damaged" MEND,
                     state->path, chunk, (unsigned long long)of, (unsigned long long)update - 1,
                     (unsigned long long)update);
    }
    for (size_t slot = 0; slot < KILN_JOURNAL_SLOTS; slot++) {
        struct kiln_journal_slot *j = journal(state, slot);
        uint64_t valid = atomic_load(&j->valid);
        KILN_REQUIRE(valid == 0 || (valid <= state->chunks && j->n <= KILN_CHUNK && j->n > 0 &&
                                    j->offset >= state->table->trained &&
                                    j->offset <= state->size && j->n <= state->size - j->offset),
                     err, KILN_EDAMAGED,
                     "state %s: journal slot %zu points outside the parameters: the file is "
                     "damaged" MEND,
                     state->path, slot);
    }
    return KILN_OK;
}

enum kiln_status kiln_state_restore(struct kiln_state *state, uint64_t update,
                                    struct kiln_err *err) {
    KILN_TRY(check(state, update, err));
    for (size_t slot = 0; slot < KILN_JOURNAL_SLOTS; slot++) {
        struct kiln_journal_slot *j = journal(state, slot);
        uint64_t valid = atomic_load(&j->valid);
        if (valid == 0) {
            continue;
        }
        for (int i = 0; i < 3 && !kiln_state_chunk_done(state, valid - 1, update); i++) {
            memcpy(place(state, KILN_WEIGHTS + i, j->offset), j->old[i], j->n * sizeof(float));
        }
        atomic_store(&j->valid, 0);
    }
    return KILN_OK;
}

uint64_t *kiln_state_stamps(struct kiln_state *state) { return state->region[KILN_STAMPS]; }

void kiln_state_stamp_all(struct kiln_state *state, uint64_t update) {
    for (size_t chunk = 0; chunk < state->chunks; chunk++) {
        atomic_store(stamp(state, chunk), update);
    }
    for (size_t slot = 0; slot < KILN_JOURNAL_SLOTS; slot++) {
        atomic_store(&journal(state, slot)->valid, 0);
    }
}
