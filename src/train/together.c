/* SPDX-License-Identifier: MIT */
#include "train/together.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/kill_point.h"
#include "plan/ranks.h"
#include "train/complete.h"
#include "train/rescue.h"
#include "train/trainer_int.h"

/* What a window that all ranks share takes over this link. */
static enum kiln_status foretell(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_plan_request request = run->trainer.engine.request;
    struct kiln_plan plan;
    request.dims = run->table->dims;
    request.stage = (struct kiln_plan_stage){0};
    request.accum = run->settings.accum;
    request.ranks =
        (struct kiln_plan_ranks){.ranks = kiln_ranks_count(run->settings.ranks),
                                 .link = run->link,
                                 .deterministic = run->settings.deterministic,
                                 .local_steps = run->settings.local_steps,
                                 .float_bytes = kiln_settings_narrow(&run->settings) ? 2 : 4,
                                 .stages = (size_t)run->settings.pipeline};
    if (request.ranks.stages > 1) {
        return kiln_plan_pipeline(run->table, &request, &run->over_ranks, err);
    }
    KILN_TRY(kiln_plan_fit(run->table, &request, &plan, err));
    const enum kiln_status status = kiln_plan_over_ranks(run->table, &plan, &run->over_ranks, err);
    kiln_plan_close(&plan);
    return status;
}

enum kiln_status kiln_together_lead(struct kiln_ranks *ranks, struct kiln_run *run,
                                    enum kiln_status status, struct kiln_err *err) {
    char folder[sizeof((struct kiln_run *)0)->folder];
    if (!ranks || status == KILN_ELOST) {
        return status;
    }
    struct kiln_err second; /* the first message is the one to read */
    KILN_TRY(kiln_rescue_end(ranks, status == KILN_OK ? err : &second));
    KILN_TRY(kiln_ranks_settle(ranks, status, err));
    KILN_REQUIRE(run, err, KILN_EINTERNAL, "no run, and no failure to make one");
    memcpy(folder, run->folder, sizeof folder);
    KILN_TRY(kiln_ranks_tell(ranks, folder, sizeof folder, err));
    KILN_TRY(kiln_ranks_settle(ranks, KILN_OK, err));
    kiln_ranks_link(ranks, &run->link.latency_s, &run->link.bytes_per_s);
    KILN_TRY(foretell(run, err));
    return kiln_run_describe(run, err);
}

/* RUN/ranks/R, empty. */
static enum kiln_status make_place(const struct kiln_run *run, char out[4200],
                                   struct kiln_err *err) {
    struct stat st;
    KILN_REQUIRE(stat(run->folder, &st) == 0 && S_ISDIR(st.st_mode), err, KILN_EINPUT,
                 "the run's folder %s is not to be seen from here: all ranks need it, on a file "
                 "system that they share (%s)",
                 run->folder, strerror(errno));
    snprintf(out, 4200, "%s/ranks/%zu", run->folder, kiln_ranks_mine(run->settings.ranks));
    if (kiln_path_exists(out)) {
        KILN_TRY(kiln_remove_tree(out, err));
    }
    return kiln_make_dirs(out, err);
}

static enum kiln_status follow(struct kiln_run *run, const struct kiln_settings *settings,
                               struct kiln_err *err) {
    struct kiln_trainer *t = &run->trainer;
    char place[4200], path[4300];
    run->settings.ranks = settings->ranks;
    KILN_TRY(make_place(run, place, err));
    KILN_TRY(kiln_run_reopen_parts(run, NULL, err));
    run->settings.threads =
        settings->threads != KILN_UNSET ? settings->threads : kiln_default_threads(settings->ranks);
    KILN_TRY(kiln_run_make_plan(run, err));
    KILN_TRY(kiln_run_open_shards(run, err));
    snprintf(path, sizeof path, "%s/state.kiln", place);
    const enum kiln_precision snapshots = kiln_plan_snapshots(&t->engine.request);
    KILN_TRY(t->shards ? kiln_state_create_part(path, run->table, snapshots, &t->shards->holding,
                                                kiln_ranks_mine(settings->ranks), &t->state, err)
                       : kiln_state_create(path, run->table, snapshots,
                                           run->settings.local_steps > 1, &t->state, err));
    /* From here on it writes into a folder of its own. */
    KILN_REQUIRE(strlen(place) < sizeof run->folder, err, KILN_EUSAGE, "%s: the path is too long",
                 place);
    memcpy(run->folder, place, strlen(place) + 1);
    return KILN_OK;
}

enum kiln_status kiln_together_follow(const struct kiln_settings *settings, struct kiln_run **out,
                                      struct kiln_err *err) {
    struct kiln_ranks *ranks = settings->ranks;
    *out = NULL;
    KILN_TRY(kiln_rescue_follow(ranks, err));
    KILN_TRY(kiln_ranks_settle(ranks, KILN_OK, err));
    enum kiln_status status = kiln_run_begin(NULL, out, err);
    char folder[sizeof(*out)->folder] = "";
    KILN_TRY(kiln_ranks_tell(ranks, folder, sizeof folder, err));
    if (status == KILN_OK) {
        memcpy((*out)->folder, folder, sizeof folder);
        (*out)->inherited = -1;
        status = follow(*out, settings, err);
    }
    status = kiln_ranks_settle(ranks, status, err);
    if (status == KILN_OK) {
        kiln_ranks_link(ranks, &(*out)->link.latency_s, &(*out)->link.bytes_per_s);
    }
    return kiln_run_end_open(status, out);
}

/* ---- training ---------------------------------------------------------------------------------
 */

static enum kiln_status tell_floats(struct kiln_trainer *t, enum kiln_region region, size_t n,
                                    struct kiln_err *err) {
    return kiln_ranks_tell(t->ranks, kiln_state_region(t->state, region), n * sizeof(float), err);
}

/* All others have said which shard they have before rank 0 says that it has not all. */
static enum kiln_status say_spread(struct kiln_trainer *t, struct kiln_err *err) {
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    cursor.spread = kiln_ranks_count(t->ranks);
    cursor.rank = kiln_ranks_mine(t->ranks);
    if (cursor.rank > 0) {
        kiln_state_commit(t->state, &cursor);
    }
    kiln_kill_point("shards: spread");
    KILN_TRY(kiln_ranks_settle(t->ranks, KILN_OK, err));
    if (cursor.rank == 0) {
        kiln_state_commit(t->state, &cursor);
    }
    return KILN_OK;
}

/* Each rank has all weights and moments. */
static enum kiln_status share_all(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_trainer *t = &run->trainer;
    const size_t trained = kiln_trained_size(run->table);
    KILN_TRY(tell_floats(t, KILN_WEIGHTS, run->table->size, err));
    KILN_TRY(tell_floats(t, KILN_MOMENT1, trained, err));
    KILN_TRY(tell_floats(t, KILN_MOMENT2, trained, err));
    if (kiln_state_local(t->state)) {
        KILN_TRY(tell_floats(t, KILN_OUTER_MOMENTUM, trained, err));
    }
    const enum kiln_precision snapshots = kiln_state_snapshots(t->state);
    for (size_t i = 0; snapshots != KILN_PRECISION_AUTO && i < KILN_SNAPSHOTS; i++) {
        KILN_TRY(kiln_ranks_tell(t->ranks, kiln_state_snapshot(t->state, i),
                                 kiln_snapshot_bytes(run->table, snapshots), err));
    }
    return KILN_OK;
}

enum kiln_status kiln_together_share(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_trainer *t = &run->trainer;
    struct kiln_cursor cursor = *kiln_state_cursor(t->state);
    t->ranks = run->settings.ranks;
    KILN_TRY(kiln_ranks_tell(t->ranks, &cursor, sizeof cursor, err));
    KILN_TRY(kiln_ranks_tell(t->ranks, &t->spikes, sizeof t->spikes, err));
    if (!kiln_trainer_leads(t)) { /* files of its own, which are empty */
        cursor.metrics_bytes = cursor.trace_bytes = 0;
        kiln_state_commit(t->state, &cursor);
    }
    KILN_TRY(t->shards ? kiln_shards_spread(t->shards, t->state, err) : share_all(run, err));
    if (t->shards) {
        KILN_TRY(say_spread(t, err));
    }
    return kiln_together_agree(run, err);
}

enum kiln_status kiln_together_join(void *context, struct kiln_err *err) {
    struct kiln_run *run = context;
    struct kiln_trainer *t = &run->trainer;
    char numerics[sizeof run->numerics];
    enum kiln_status status = KILN_OK;
    if (kiln_trainer_leads(t)) {
        KILN_TRY(kiln_together_share(run, err));
    }
    if (t->shards) {
        kiln_optimizer_hold(t->engine.optimizer, &t->shards->holding, t->shards->mine);
    }
    memcpy(numerics, run->numerics, sizeof numerics);
    KILN_TRY(kiln_ranks_tell(t->ranks, numerics, sizeof numerics, err));
    if (strcmp(numerics, run->numerics) != 0) {
        status = KILN_FAIL(err, KILN_EUNSUPPORTED,
                           "computes as %s, rank 0 as %s: give all the same --precision, and where "
                           "processors differ KILN_CPU (docs/distributed.md)",
                           run->numerics, numerics);
    }
    return kiln_ranks_settle(t->ranks, status, err);
}

enum kiln_status kiln_together_agree(void *context, struct kiln_err *err) {
    struct kiln_run *run = context;
    struct kiln_settings *s = &run->settings;
    struct {
        uint64_t steps;
        struct kiln_turn turn[KILN_TURNS];
        struct kiln_peak peak[KILN_PEAKS];
        struct kiln_jump jump[KILN_JUMPS];
        size_t n_turns, n_peaks, n_jumps;
    } now = {
        .steps = s->steps, .n_turns = s->n_turns, .n_peaks = s->n_peaks, .n_jumps = s->n_jumps};
    memcpy(now.turn, s->turn, sizeof now.turn);
    memcpy(now.peak, s->peak, sizeof now.peak);
    memcpy(now.jump, s->jump, sizeof now.jump);
    KILN_TRY(kiln_ranks_tell(s->ranks, &now, sizeof now, err));
    s->steps = now.steps;
    memcpy(s->turn, now.turn, sizeof now.turn);
    memcpy(s->peak, now.peak, sizeof now.peak);
    memcpy(s->jump, now.jump, sizeof now.jump);
    s->n_turns = now.n_turns;
    s->n_peaks = now.n_peaks;
    s->n_jumps = now.n_jumps;
    return KILN_OK;
}

void kiln_together_leave(const struct kiln_run *run) {
    char path[4300];
    if (kiln_ranks_mine(run->settings.ranks) > 0) {
        unlink(kiln_run_file(run, "state.kiln", path, sizeof path));
    }
}
