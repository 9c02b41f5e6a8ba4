/* SPDX-License-Identifier: MIT
 *
 * shards.h: --shard-optimizer: weights and moments that are spread over ranks (ZeRO stage 1,
 * Rajbhandari et al. 2020).
 *
 * Each rank has its shard of the master weights, m and v (model/holding.h), and gets the gradients
 * of it only. What devices compile from and compute with is a snapshot (kernel/weights.h) that each
 * rank has whole: behind an update each converts its shard, and everybody gets all of them.
 * Rounding is that of compiling, so the bits are those of a run that is not spread.
 *
 *   window     gradients: reduce-scatter       norm: each its shard, added in the order of alone
 *   update     each its shard                  snapshot: all-gather
 *
 * From kiln_shards_spread to kiln_shards_collect rank 0's state file is not the whole state. Each
 * rank's has its shard, and its cursor says so (`spread`). Phases are committed so that whoever
 * dies, rank 0's cursor says what all files hold:
 *
 *   window(t)    all others commit UPDATE -> all wait -> rank 0 commits UPDATE
 *   update(t)    all wait -> each changes its shard -> snapshots come from all -> FINISH
 *
 * Rank 0 in UPDATE: all others are in UPDATE or behind it, and each finishes what it has begun.
 * Rank 0 in a window: nobody has changed a weight since; others in UPDATE have only said that they
 * will. Rank 0 behind the update: it got the snapshots of all, which have all changed theirs.
 */
#ifndef KILN_TRAIN_SHARDS_H
#define KILN_TRAIN_SHARDS_H

#include "base/mem.h"
#include "base/pool.h"
#include "kernel/weights.h"
#include "model/holding.h"
#include "ranks/ranks.h"
#include "state/state.h"

struct kiln_shards {
    const struct kiln_table *table; /* borrowed */
    struct kiln_ranks *ranks;       /* borrowed */
    struct kiln_holding holding;
    size_t mine; /* this rank */
    bool spread; /* rank 0's state is not whole */
    enum kiln_precision precision;
    struct kiln_arena arena; /* the snapshot, where the state has none (--overlap delayed) */
    struct kiln_range *wide, *narrow; /* [parts * ranks] bytes of it that a rank fills */
};

/* `precision`: of the snapshot (FP32, BF16, FP16); in_state: the state has two of them.
 * KILN_ENOMEM.
 */
KILN_MUST_CHECK enum kiln_status kiln_shards_open(const struct kiln_table *table,
                                                  struct kiln_ranks *ranks,
                                                  enum kiln_precision precision, bool in_state,
                                                  struct kiln_shards **out, struct kiln_err *err);
/* NULL is fine. */
void kiln_shards_close(struct kiln_shards *shards);

/* The snapshot of a generation: there is one, or with --overlap delayed those of the last two. */
void *kiln_shards_snapshot(const struct kiln_shards *shards, struct kiln_state *state,
                           uint64_t generation);
/* The weights of this generation become its snapshot, on all ranks; of a state that is not spread
 * those of this rank, which are all. */
KILN_MUST_CHECK enum kiln_status kiln_shards_take(struct kiln_shards *shards,
                                                  struct kiln_state *state, struct kiln_pool *pool,
                                                  uint64_t generation, struct kiln_err *err);

/* All ranks: weights, moments and stamps of rank 0 go to whom they are; snapshots to all. */
KILN_MUST_CHECK enum kiln_status kiln_shards_spread(struct kiln_shards *shards,
                                                    struct kiln_state *state, struct kiln_err *err);
/* All ranks: they come back to rank 0, whose file holds all of this moment; others keep theirs. */
KILN_MUST_CHECK enum kiln_status kiln_shards_collect(struct kiln_shards *shards,
                                                     struct kiln_state *state,
                                                     struct kiln_err *err);
/* The same of gradients. */
KILN_MUST_CHECK enum kiln_status kiln_shards_collect_gradients(struct kiln_shards *shards,
                                                               struct kiln_state *state,
                                                               struct kiln_err *err);
/* What rank 0 has collected leaves its memory; it stays in its file. */
void kiln_shards_drop(const struct kiln_shards *shards, struct kiln_state *state);

/* What rank q's file holds of region `region` (weights, m, v) and of the stamps, for a part. */
struct kiln_shard_bytes {
    void *at;
    size_t bytes;
};
enum { KILN_SHARD_ARRAYS = 4 };
void kiln_shards_arrays(const struct kiln_holding *holding, struct kiln_state *state, size_t part,
                        size_t rank, struct kiln_shard_bytes out[KILN_SHARD_ARRAYS]);

#endif
