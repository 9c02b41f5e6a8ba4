/* SPDX-License-Identifier: MIT */
#include "train/rescue.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/kill_point.h"
#include "train/complete.h"
#include "train/shards.h"
#include "train/trainer_int.h"

enum { PATH_ROOM = 4300 };

/* What rank 0 asks for. */
struct request {
    char folder[4096];
    uint64_t spread; /* so many files; 0: it is done */
    uint64_t update; /* of which the weights shall be */
    bool unfinished; /* it was under way: at this rate, norm and loss scale */
    double lr, norm, scale;
};

/* How it went with a file. */
struct outcome {
    enum kiln_status status;
    char message[sizeof((struct kiln_err *)0)->message];
};

static char *file_of(const struct request *r, size_t rank, char out[PATH_ROOM]) {
    snprintf(out, PATH_ROOM, "%s/ranks/%zu/state.kiln", r->folder, rank);
    return out;
}

/* ---- a shard ----------------------------------------------------------------------------------
 */

/* Chunks of other ranks are none of this file's business: they count as done. */
static void stamp_others(const struct kiln_holding *h, struct kiln_state *state, size_t rank,
                         uint64_t update) {
    uint64_t *stamps = kiln_state_stamps(state);
    for (size_t i = 0; i < h->n_pieces; i++) {
        const size_t end = i + 1 < h->n_pieces ? h->pieces[i + 1].chunk : h->n_chunks;
        for (size_t chunk = h->pieces[i].chunk; chunk < end && h->holder[i] != rank; chunk++) {
            stamps[chunk] = update;
        }
    }
}

/* From where it was cut. */
static enum kiln_status finish(const struct kiln_run *run, const struct request *r,
                               const struct kiln_holding *h, struct kiln_state *state, size_t rank,
                               struct kiln_err *err) {
    const struct kiln_settings *s = &run->settings;
    struct kiln_optimizer_parts parts = {
        .table = run->table,
        .weights = kiln_state_region(state, KILN_WEIGHTS),
        .m = kiln_state_region(state, KILN_MOMENT1),
        .v = kiln_state_region(state, KILN_MOMENT2),
        .gradients = {.all = kiln_state_region(state, KILN_GRADIENTS)},
        .folded = true,
        .state = state,
        .beta1 = s->beta1,
        .beta2 = s->beta2,
        .eps = s->eps,
        .weight_decay = s->weight_decay,
        .clip = s->clip};
    struct kiln_optimizer *optimizer;
    KILN_TRY(kiln_state_restore(state, r->update, err));
    KILN_TRY(kiln_pool_create(s->threads != KILN_UNSET ? (size_t)s->threads : 1, &parts.pool, err));
    const enum kiln_status status = kiln_optimizer_create(&parts, &optimizer, err);
    if (status == KILN_OK) {
        kiln_optimizer_hold(optimizer, h, rank);
        kiln_optimizer_update(optimizer, r->update, r->lr, r->norm, r->scale);
        kiln_optimizer_destroy(optimizer);
    }
    kiln_pool_destroy(parts.pool);
    return status;
}

/* The shard of an open state is of the update that is wanted, or becomes so. */
static enum kiln_status mend(const struct kiln_run *run, const struct request *r,
                             const struct kiln_holding *h, struct kiln_state *state, size_t rank,
                             struct kiln_err *err) {
    const struct kiln_cursor *c = kiln_state_cursor(state);
    KILN_REQUIRE(c->spread == r->spread && c->rank == rank, err, KILN_EDAMAGED,
                 "it is of rank %" PRIu64 " of %" PRIu64 ", not of rank %zu of %" PRIu64, c->rank,
                 c->spread, rank, r->spread);
    KILN_TRY(kiln_state_begin(state, err));
    stamp_others(h, state, rank, r->update);
    KILN_TRY(r->unfinished ? finish(run, r, h, state, rank, err) : KILN_OK);
    for (size_t chunk = 0; chunk < h->n_chunks; chunk++) {
        KILN_REQUIRE(kiln_state_chunk_done(state, chunk, r->update), err, KILN_EDAMAGED,
                     "its weights are not those of update %" PRIu64, r->update);
    }
    return KILN_OK;
}

/* That of another rank's file; *state is to be closed. */
static enum kiln_status open_shard(const struct kiln_run *run, const struct request *r,
                                   const struct kiln_holding *h, size_t rank,
                                   struct kiln_state **state, struct kiln_err *err) {
    char path[PATH_ROOM], notice[160];
    struct kiln_err why;
    enum kiln_status status =
        kiln_state_open(file_of(r, rank, path), run->table, state, notice, &why);
    status = status == KILN_OK ? mend(run, r, h, *state, rank, &why) : status;
    /* What is not the file's fault may be over soon: nothing is given up for it. */
    const bool lost = status == KILN_EINPUT || status == KILN_EDAMAGED || status == KILN_EUNTRUSTED;
    KILN_REQUIRE(status == KILN_OK || lost, err, status,
                 "the weights and moments of rank %zu of %" PRIu64 ": %.400s", rank, r->spread,
                 why.message);
    KILN_REQUIRE(status == KILN_OK, err, KILN_EUNTRUSTED,
                 "the weights and moments of rank %zu of %" PRIu64
                 ", which the last step was spread over, are lost: %.300s (%.160s)",
                 rank, r->spread, why.message, path);
    return KILN_OK;
}

/* ---- all of them ------------------------------------------------------------------------------
 */

/* Of one file: its owner gives it to rank 0, which has the state `whole`. */
static enum kiln_status give(struct kiln_ranks *ranks, const struct kiln_holding *h,
                             struct kiln_state *shard, struct kiln_state *whole, size_t rank,
                             size_t owner, struct kiln_err *err) {
    /* Where a rank has but one of the two, the other end is on another rank. */
    struct kiln_state *source = shard ? shard : whole, *target = whole ? whole : shard;
    KILN_REQUIRE(source && target, err, KILN_EINTERNAL, "no state of rank %zu to give", rank);
    for (size_t part = 0; part < h->parts; part++) {
        struct kiln_shard_bytes from[KILN_SHARD_ARRAYS], to[KILN_SHARD_ARRAYS];
        kiln_shards_arrays(h, source, part, rank, from);
        kiln_shards_arrays(h, target, part, rank, to);
        for (size_t i = 0; i < KILN_SHARD_ARRAYS; i++) {
            if (owner == 0) {
                memcpy(to[i].at, from[i].at, from[i].bytes);
            } else {
                KILN_TRY(kiln_ranks_pass(ranks, owner, 0, to[i].at, to[i].bytes, err));
            }
        }
    }
    return KILN_OK;
}

/* The files of this rank, and those that rank 0 gets from others. What is lost is told to rank 0;
 * `first` is the first such of rank 0. A failure is one of ranks. */
static enum kiln_status rescue_files(const struct kiln_run *run, struct kiln_ranks *ranks,
                                     const struct request *r, const struct kiln_holding *h,
                                     struct outcome *first, struct kiln_err *err) {
    const size_t n = kiln_ranks_count(ranks), mine = kiln_ranks_mine(ranks);
    for (size_t file = 1; file < r->spread; file++) {
        const size_t owner = file % n;
        struct kiln_state *shard = NULL, *whole = mine == 0 ? run->trainer.state : NULL;
        struct outcome now = {.status = KILN_OK};
        struct kiln_err why = {.code = KILN_OK};
        if (owner != mine && mine != 0) {
            continue;
        }
        if (owner == mine && h) {
            now.status = open_shard(run, r, h, file, &shard, &why);
            memcpy(now.message, why.message, sizeof now.message);
        } else if (owner == mine) {
            now = *first; /* it could not even begin */
        }
        enum kiln_status status = kiln_ranks_pass(ranks, owner, 0, &now, sizeof now, err);
        if (h && status == KILN_OK && now.status == KILN_OK) {
            status = give(ranks, h, shard, whole, file, owner, err);
        }
        kiln_state_close(shard);
        *first = first->status == KILN_OK ? now : *first;
        KILN_TRY(status);
    }
    return KILN_OK;
}

/* ---- rank 0 -----------------------------------------------------------------------------------
 */

/* What is wanted of all files, by rank 0's cursor. */
static enum kiln_status make_request(struct kiln_run *run, struct request *r,
                                     struct kiln_err *err) {
    struct kiln_trainer *t = &run->trainer;
    const struct kiln_cursor *c = kiln_state_cursor(t->state);
    memset(r, 0, sizeof *r); /* it travels */
    memcpy(r->folder, run->folder, sizeof r->folder);
    r->spread = c->spread;
    r->unfinished = c->phase == KILN_PHASE_UPDATE && c->skip == 0;
    r->update = c->updates + r->unfinished;
    r->lr = c->lr;
    r->norm = c->grad_norm;
    r->scale = 1;
    if (r->unfinished && c->loss_scale > 0) { /* it is of the window's data, read as planned */
        t->settings = &run->settings;
        KILN_TRY(kiln_run_make_plan(run, err));
        r->scale = kiln_batches_scale(t, c->loss_scale);
        kiln_plan_close(&t->engine.plan);
    }
    return KILN_OK;
}

/* From here on rank 0's file is the state. */
static void say_whole(struct kiln_run *run, const struct request *r) {
    char path[PATH_ROOM];
    struct kiln_cursor cursor = *kiln_state_cursor(run->trainer.state);
    cursor.spread = 0;
    kiln_kill_point("rescue: collected");
    kiln_state_commit(run->trainer.state, &cursor);
    kiln_kill_point("rescue: whole");
    for (size_t rank = 1; rank < r->spread; rank++) {
        unlink(file_of(r, rank, path));
    }
}

static enum kiln_status rescue(struct kiln_run *run, const struct request *r,
                               const struct kiln_holding *h, struct kiln_err *err) {
    struct outcome lost = {.status = KILN_OK};
    struct kiln_ranks *ranks = run->settings.ranks;
    KILN_TRY(kiln_ranks_tell(ranks, (void *)(uintptr_t)r, sizeof *r, err));
    struct kiln_err why;
    const enum kiln_status own = mend(run, r, h, run->trainer.state, 0, &why);
    KILN_TRY(rescue_files(run, ranks, r, h, &lost, err));
    KILN_REQUIRE(own == KILN_OK, err, own, "%s/state.kiln: %s", run->folder, why.message);
    KILN_REQUIRE(lost.status == KILN_OK, err, lost.status, "%s", lost.message);
    return KILN_OK;
}

enum kiln_status kiln_rescue(struct kiln_run *run, struct kiln_err *err) {
    struct request request;
    struct kiln_holding holding;
    KILN_TRY(make_request(run, &request, err));
    KILN_TRY(kiln_holding_open(run->table, (size_t)request.spread, &holding, err));
    const enum kiln_status status = rescue(run, &request, &holding, err);
    kiln_holding_close(&holding);
    if (status == KILN_OK) {
        say_whole(run, &request);
    }
    return status;
}

enum kiln_status kiln_rescue_end(struct kiln_ranks *ranks, struct kiln_err *err) {
    struct request done;
    memset(&done, 0, sizeof done);
    return kiln_ranks_tell(ranks, &done, sizeof done, err);
}

/* ---- the others -------------------------------------------------------------------------------
 */

enum kiln_status kiln_rescue_follow(struct kiln_ranks *ranks, struct kiln_err *err) {
    for (;;) {
        struct request r;
        struct kiln_run *run = NULL;
        struct kiln_err why = {.code = KILN_OK};
        struct kiln_holding holding = {.table = NULL};
        KILN_TRY(kiln_ranks_tell(ranks, &r, sizeof r, err));
        if (r.spread == 0) {
            return KILN_OK;
        }
        struct outcome mine = {.status = kiln_run_read(r.folder, &run, &why)};
        if (mine.status == KILN_OK) {
            run->settings.threads = kiln_default_threads(ranks);
            mine.status = kiln_holding_open(run->table, (size_t)r.spread, &holding, &why);
        }
        snprintf(mine.message, sizeof mine.message, "%s", why.message);
        const enum kiln_status status =
            rescue_files(run, ranks, &r, holding.table ? &holding : NULL, &mine, err);
        kiln_holding_close(&holding);
        kiln_run_close(run);
        KILN_TRY(status);
    }
}
