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

enum { COPIED = 256, FETCHED = 128 };

void kiln_state_chunk_begin(struct kiln_state *state, size_t slot, size_t chunk, size_t offset,
                            size_t n) {
    struct kiln_journal_slot *j = journal(state, slot);
    j->offset = offset;
    j->n = n;
    /* Turn by turn, so that three streams are fetched at once, in pieces that the C library copies
     * with vectors: from 8 KB on it lets the processor's string move do it, which is slower here.
     */
    for (size_t at = 0; at < n; at += COPIED) {
        const size_t bytes = (n - at < COPIED ? n - at : COPIED) * sizeof(float);
        for (int i = 0; i < 3; i++) {
            memcpy(j->old[i] + at, (float *)state->region[KILN_WEIGHTS + i] + offset + at, bytes);
        }
    }
    kiln_kill_point("chunk: copied");
    /* The next chunk's first lines come while this one is computed: the copy waits for them least
     * then. A hint, also past the end. */
    for (size_t at = n; at < n + FETCHED; at += 64 / sizeof(float)) {
        for (int i = 0; i < 3; i++) {
            __builtin_prefetch((float *)state->region[KILN_WEIGHTS + i] + offset + at, 1);
        }
    }
    atomic_store_explicit(&j->valid, chunk + 1, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    kiln_kill_point("chunk: valid");
}

void kiln_state_chunk_end(struct kiln_state *state, size_t slot, size_t chunk, uint64_t update) {
    atomic_thread_fence(memory_order_seq_cst);
    kiln_kill_point("chunk: changed");
    atomic_store_explicit(stamp(state, chunk), update, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
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
            memcpy(kiln_state_region(state, KILN_WEIGHTS + i) + j->offset, j->old[i],
                   j->n * sizeof(float));
        }
        atomic_store(&j->valid, 0);
    }
    return KILN_OK;
}

void kiln_state_stamp_all(struct kiln_state *state, uint64_t update) {
    for (size_t chunk = 0; chunk < state->chunks; chunk++) {
        atomic_store(stamp(state, chunk), update);
    }
    for (size_t slot = 0; slot < KILN_JOURNAL_SLOTS; slot++) {
        atomic_store(&journal(state, slot)->valid, 0);
    }
}
