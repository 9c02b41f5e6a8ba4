/* SPDX-License-Identifier: MIT */
#include "train/shards.h"

#include "base/kill_point.h"

enum { STRETCH = KILN_RANKS_STRETCH * sizeof(float) }; /* bytes of a part that are shared at once */

enum kiln_status kiln_shards_open(const struct kiln_table *table, struct kiln_ranks *ranks,
                                  enum kiln_precision precision, bool in_state,
                                  struct kiln_shards **out, struct kiln_err *err) {
    struct kiln_shards *s = *out = kiln_alloc(1, sizeof *s);
    KILN_REQUIRE(s, err, KILN_ENOMEM, "no memory to spread the optimizer");
    s->table = table;
    s->ranks = ranks;
    s->mine = kiln_ranks_mine(ranks);
    s->precision = precision;
    enum kiln_status status = kiln_holding_open(table, kiln_ranks_count(ranks), &s->holding, err);
    const struct kiln_holding *h = &s->holding;
    if (status == KILN_OK && !in_state) {
        status = kiln_arena_open(&s->arena, kiln_snapshot_bytes(table, precision), err);
    }
    if (status == KILN_OK) {
        s->wide = kiln_alloc(2 * h->parts * h->ranks, sizeof *s->wide);
        s->narrow = s->wide ? s->wide + h->parts * h->ranks : NULL;
        status = s->wide ? KILN_OK : KILN_FAIL(err, KILN_ENOMEM, "no memory for a list of shards");
    }
    for (size_t i = 0; status == KILN_OK && i < h->parts * h->ranks; i++) {
        kiln_snapshot_ranges(table, precision, h->pieces + h->first[i],
                             h->first[i + 1] - h->first[i], &s->wide[i], &s->narrow[i]);
    }
    if (status != KILN_OK) {
        kiln_shards_close(s);
        *out = NULL;
    }
    return status;
}

void kiln_shards_close(struct kiln_shards *s) {
    if (s) {
        kiln_holding_close(&s->holding);
        kiln_arena_close(&s->arena);
        kiln_free(s->wide);
        kiln_free(s);
    }
}

/* ---- snapshots --------------------------------------------------------------------------------
 */

void *kiln_shards_snapshot(const struct kiln_shards *s, struct kiln_state *state,
                           uint64_t generation) {
    return s->arena.base ? s->arena.base : kiln_state_snapshot(state, generation % KILN_SNAPSHOTS);
}

/* One range of bytes for each rank, in stretches. */
static void share(struct kiln_shards *s, unsigned char *at, const struct kiln_range *ranges) {
    size_t most = 0;
    for (size_t q = 0; q < s->holding.ranks; q++) {
        most = ranges[q].n > most ? ranges[q].n : most;
    }
    const size_t slices = (most + STRETCH - 1) / STRETCH;
    for (size_t i = 0; i < slices; i++) {
        kiln_ranks_share(s->ranks, at, &(struct kiln_ranks_cut){ranges, i, slices});
    }
}

/* Part by part: one travels while the next is converted. */
static enum kiln_status take_shard(struct kiln_shards *s, struct kiln_state *state,
                                   struct kiln_pool *pool, void *at, struct kiln_err *err) {
    const struct kiln_holding *h = &s->holding;
    enum kiln_status status = KILN_OK;
    for (size_t part = 0; part < h->parts && status == KILN_OK; part++) {
        const struct kiln_held held = kiln_holding_of(h, part, s->mine);
        status = kiln_snapshot_take_pieces(pool, s->table, s->precision,
                                           kiln_state_region(state, KILN_WEIGHTS),
                                           h->pieces + held.pieces.at, held.pieces.n, at, err);
        share(s, at, s->wide + part * h->ranks);
        share(s, at, s->narrow + part * h->ranks);
    }
    KILN_TRY(kiln_ranks_wait(s->ranks, err));
    return status;
}

enum kiln_status kiln_shards_take(struct kiln_shards *s, struct kiln_state *state,
                                  struct kiln_pool *pool, uint64_t generation,
                                  struct kiln_err *err) {
    void *at = kiln_shards_snapshot(s, state, generation);
    return s->spread ? take_shard(s, state, pool, at, err)
                     : kiln_snapshot_take(pool, s->table, s->precision,
                                          kiln_state_region(state, KILN_WEIGHTS), at, err);
}

/* ---- shards -----------------------------------------------------------------------------------
 */

void kiln_shards_arrays(const struct kiln_holding *holding, struct kiln_state *state, size_t part,
                        size_t rank, struct kiln_shard_bytes out[KILN_SHARD_ARRAYS]) {
    const struct kiln_held held = kiln_holding_of(holding, part, rank);
    for (int i = 0; i < 3; i++) {
        const size_t at = i == 0 ? held.weights.at : held.trained.at;
        out[i].at = kiln_state_region(state, KILN_WEIGHTS + i) + at;
        out[i].bytes = held.trained.n * sizeof(float);
    }
    out[3].at = kiln_state_stamps(state) + held.chunks.at;
    out[3].bytes = held.chunks.n * sizeof(uint64_t);
}

/* Weights and moments of a rank leave this process's memory. */
static void drop(const struct kiln_shards *s, struct kiln_state *state, size_t part, size_t rank) {
    const struct kiln_held held = kiln_holding_of(&s->holding, part, rank);
    for (int i = 0; i < 3; i++) {
        kiln_state_drop(state, KILN_WEIGHTS + i, held.weights.at, held.weights.n);
    }
}

void kiln_shards_drop(const struct kiln_shards *s, struct kiln_state *state) {
    for (size_t part = 0; part < s->holding.parts; part++) {
        for (size_t q = 0; q < s->holding.ranks; q++) {
            if (q != s->mine) {
                drop(s, state, part, q);
            }
        }
    }
    kiln_state_drop(state, KILN_WEIGHTS, 0, s->table->trained);
}

/* Each rank's shard to the rank, or from it. */
static enum kiln_status pass_all(struct kiln_shards *s, struct kiln_state *state, bool collect,
                                 struct kiln_err *err) {
    for (size_t part = 0; part < s->holding.parts; part++) {
        for (size_t q = 1; q < s->holding.ranks; q++) {
            struct kiln_shard_bytes arrays[KILN_SHARD_ARRAYS];
            kiln_shards_arrays(&s->holding, state, part, q, arrays);
            for (size_t i = 0; i < KILN_SHARD_ARRAYS; i++) {
                KILN_TRY(kiln_ranks_pass(s->ranks, collect ? q : 0, collect ? 0 : q, arrays[i].at,
                                         arrays[i].bytes, err));
            }
            if (s->mine == 0) {
                drop(s, state, part, q);
            }
        }
    }
    return KILN_OK;
}

enum kiln_status kiln_shards_spread(struct kiln_shards *s, struct kiln_state *state,
                                    struct kiln_err *err) {
    const size_t bytes = kiln_snapshot_bytes(s->table, s->precision);
    const uint64_t generation = kiln_state_cursor(state)->step;
    for (uint64_t i = 0; i < (s->arena.base ? 1 : KILN_SNAPSHOTS); i++) {
        KILN_TRY(
            kiln_ranks_tell(s->ranks, kiln_shards_snapshot(s, state, generation + i), bytes, err));
    }
    KILN_TRY(pass_all(s, state, false, err));
    s->spread = true;
    if (s->mine == 0) { /* once more: to read one rank's brings pages of its neighbours */
        kiln_shards_drop(s, state);
    }
    return KILN_OK;
}

enum kiln_status kiln_shards_collect(struct kiln_shards *s, struct kiln_state *state,
                                     struct kiln_err *err) {
    kiln_kill_point("shards: before collecting");
    KILN_TRY(pass_all(s, state, true, err));
    kiln_kill_point("shards: collected");
    return KILN_OK;
}

enum kiln_status kiln_shards_collect_gradients(struct kiln_shards *s, struct kiln_state *state,
                                               struct kiln_err *err) {
    float *gradients = kiln_state_region(state, KILN_GRADIENTS);
    for (size_t part = 0; part < s->holding.parts; part++) {
        for (size_t q = 1; q < s->holding.ranks; q++) {
            const struct kiln_range held = s->holding.floats[part * s->holding.ranks + q];
            KILN_TRY(
                kiln_ranks_pass(s->ranks, q, 0, gradients + held.at, held.n * sizeof(float), err));
        }
    }
    return KILN_OK;
}
