/* SPDX-License-Identifier: MIT
 *
 * run.c: what every run needs, and training it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/io_hook.h"
#include "base/kill_point.h"
#include "base/mem.h"
#include "text/first_words.h"
#include "train/complete.h"
#include "train/data_source.h"
#include "train/generation.h"
#include "train/outer.h"
#include "train/rollback.h"
#include "train/run_int.h"
#include "train/run_json.h"
#include "train/together.h"
#include "train/trainer_int.h"

char *kiln_run_file(const struct kiln_run *run, const char *name, char *out, size_t size) {
    snprintf(out, size, "%s/%s", run->folder, name);
    return out;
}

/* What was made of the state and of metrics.jsonl. */
static void close_trainer(struct kiln_trainer *t) {
    kiln_saver_destroy(t->saver);
    kiln_session_close(t->session);
    kiln_engine_close(&t->engine);
    kiln_shards_close(t->shards);
    kiln_free(t->scratch.has);
    kiln_trace_destroy(t->trace);
    if (t->metrics) {
        fclose(t->metrics);
    }
    t->saver = NULL;
    t->shards = NULL;
    t->session = NULL;
    t->scratch.has = NULL;
    t->trace = NULL;
    t->metrics = NULL;
}

void kiln_run_close(struct kiln_run *run) {
    if (!run) {
        return;
    }
    struct kiln_trainer *t = &run->trainer;
    close_trainer(t);
    kiln_data_destroy(t->data);
    kiln_data_destroy(t->val_data);
    kiln_state_close(t->state);
    kiln_tokenizer_destroy(run->tokenizer);
    kiln_table_destroy(run->table);
    kiln_settings_free(&run->settings);
    kiln_free(run);
}

enum kiln_status kiln_run_check_name(const char *folder, struct kiln_err *err) {
    KILN_REQUIRE(strlen(folder) < 3800, err, KILN_EUSAGE, "run folder: the path is too long");
    return KILN_OK;
}

enum kiln_status kiln_run_begin(const struct kiln_settings *settings, struct kiln_run **out,
                                struct kiln_err *err) {
    *out = kiln_alloc(1, sizeof **out);
    KILN_REQUIRE(*out, err, KILN_ENOMEM, "no memory for a run");
    (*out)->trainer.grid = kiln_grid_of(1, 1, 0);
    return settings ? kiln_settings_copy(&(*out)->settings, settings, err)
                    : kiln_settings_init(&(*out)->settings, err);
}

enum kiln_status kiln_run_end_open(enum kiln_status status, struct kiln_run **run) {
    if (status != KILN_OK) {
        kiln_run_close(*run);
        *run = NULL;
    }
    return status;
}

/* ---- parts ---------------------------------------------------------------------------------- */

/* Of limited texts so many times what evaluations read is tokenized of --val. */
enum { VALIDATION_MARGIN = 4 };

static enum kiln_status open_data(struct kiln_run *run, const char *folder,
                                  const struct kiln_chat *chat, struct kiln_err *err) {
    const struct kiln_settings *s = &run->settings;
    struct kiln_trainer *t = &run->trainer;
    char said[sizeof run->notice];
    snprintf(said, sizeof said, "%s", run->notice); /* more comes behind it */
    bool too_short;
    const bool limited = s->data_tokens != KILN_UNSET;
    struct kiln_data_wish wish = {
        .data = s->data,
        .folder = folder,
        .name = "data",
        .tokenizer = run->tokenizer,
        .options = {.blank_lines = s->blank_lines, .skip_bad = s->skip_bad, .chat = chat},
        .vocab = run->table->dims.vocab,
        .seq = (size_t)s->seq,
        .seed = s->seed,
        .tokens = limited ? s->data_tokens : 0,
        .validation = s->val ? 0.0 : KILN_VALIDATION_SHARE};
    KILN_TRY(kiln_open_data(&wish, &t->data, said, sizeof said, &too_short, err));
    /* Too little text to hold any back: it trains on all of it, and says so. */
    const size_t n = strlen(said);
    if (too_short) {
        snprintf(said + n, sizeof said - n,
                 "%s%s is too short to hold a part back: no held-out loss", n > 0 ? "; " : "",
                 s->data);
    }
    if (s->val) {
        wish.data = s->val;
        wish.name = "val";
        wish.tokens = limited ? VALIDATION_MARGIN * s->eval_windows * (s->seq + 1) : 0;
        KILN_TRY(kiln_open_data(&wish, &t->val_data, said, sizeof said, &too_short, err));
    }
    memcpy(run->notice, said, sizeof said);
    return KILN_OK;
}

enum kiln_status kiln_run_open_data(struct kiln_run *run, const char *folder,
                                    struct kiln_err *err) {
    const struct kiln_settings *s = &run->settings;
    struct kiln_chat *chat = NULL;
    const bool made = strcmp(folder, run->folder) != 0; /* else it has its tokens */
    KILN_TRY(made ? kiln_chat_choose(s->chat_template, s->model, s->tokenizer, &chat, err)
                  : KILN_OK);
    enum kiln_status status = open_data(run, folder, chat, err);
    /* The run's own template, for whoever talks to the model. */
    if (status == KILN_OK && chat) {
        status = kiln_chat_save(chat, folder, err);
    }
    kiln_chat_close(chat);
    return status;
}

/* Processes that are replaced keep the run's state file and nothing else. */
static enum kiln_status check_restarts(const struct kiln_run *run, struct kiln_err *err) {
    const struct kiln_settings *s = &run->settings;
    const double restarts = run->trainer.engine.plan.cost.restarts * (double)s->steps;
    KILN_REQUIRE(!s->ranks || restarts < 1, err, KILN_EUSAGE,
                 "%zu ranks on a device with a compile budget: this plan replaces the process %.0f "
                 "times in %" PRIu64
                 " steps, which MPI does not allow its processes; a larger --budget, more stages "
                 "(--pipeline), or --weight-mode dynamic, needs none",
                 kiln_ranks_count(s->ranks), restarts, s->steps);
    KILN_REQUIRE(
        !s->deterministic || restarts < 1, err, KILN_EUSAGE,
        "--deterministic on a device with a compile budget: this plan replaces the process "
        "%.0f times in %" PRIu64
        " steps, and the gradients of single micro-batches would be lost; a larger "
        "--budget, or --weight-mode dynamic, needs none",
        restarts, s->steps);
    return KILN_OK;
}

/* Ranks and layers that stages can be made of? */
static enum kiln_status check_pipeline(const struct kiln_run *run, struct kiln_err *err) {
    const struct kiln_settings *s = &run->settings;
    const size_t ranks = kiln_ranks_count(s->ranks), layers = run->table->dims.layers;
    KILN_REQUIRE(s->pipeline <= layers, err, KILN_EUSAGE,
                 "--pipeline %" PRIu64 ": a model of %zu layers has no more stages than these",
                 s->pipeline, layers);
    KILN_REQUIRE(s->ranks || s->pipeline == 1, err, KILN_EUSAGE,
                 "--pipeline %" PRIu64
                 " is of several ranks, and this process is alone: start it with mpirun -n %" PRIu64
                 ", or give --pipeline 1",
                 s->pipeline, s->pipeline);
    KILN_REQUIRE(ranks % s->pipeline == 0, err, KILN_EUSAGE,
                 "--pipeline %" PRIu64
                 ": %zu ranks are no multiple of that; each stage has as many",
                 s->pipeline, ranks);
    return KILN_OK;
}

/* The plan, before anything is written: what can never run is refused here. */
enum kiln_status kiln_run_make_plan(struct kiln_run *run, struct kiln_err *err) {
    const struct kiln_settings *s = &run->settings;
    struct kiln_plan_request request;
    KILN_TRY(kiln_settings_ranks(s, err));
    KILN_TRY(kiln_plan_request_of(s, &run->table->dims, &request, err));
    if (run->profile.tflops <= 0) {
        const struct kiln_profile before = run->profile;
        KILN_TRY(kiln_profile_of(&request.device, s->profile, request.threads, request.precision,
                                 &run->profile, err));
        if (before.disk_write_gb_s > 0) { /* measured when the run was made */
            run->profile.disk_write_gb_s = before.disk_write_gb_s;
            run->profile.disk_read_gb_s = before.disk_read_gb_s;
        }
    }
    request.profile = run->profile;
    request.device.times = run->profile.sim;
    KILN_TRY(check_pipeline(run, err));
    const struct kiln_grid grid = run->trainer.grid =
        kiln_grid_of(kiln_ranks_count(s->ranks), (size_t)s->pipeline, kiln_ranks_mine(s->ranks));
    KILN_REQUIRE(grid.replicas <= s->accum, err, KILN_EUSAGE,
                 "%zu %s, but a window has %" PRIu64
                 " micro-batches (--accum): each %s takes one at least; start fewer, or give more",
                 grid.replicas, grid.stages > 1 ? "replicas of each stage" : "ranks", s->accum,
                 grid.stages > 1 ? "replica" : "rank");
    request.accum = kiln_share_of(s->accum, grid.replicas, grid.replica).n;
    request.gradients_beside = kiln_reducer_bytes(run->table, s->accum, &grid, s->deterministic);
    request.spread = s->shard_optimizer ? kiln_ranks_count(s->ranks) : 0;
    if (grid.stages > 1) {
        kiln_stage_choose(&request, grid.stages, grid.stage);
    }
    KILN_TRY(kiln_engine_plan(&run->trainer.engine, run->table, &request, err));
    run->trainer.flops = kiln_plan_model_flops(run->table, request.batch, request.seq).total;
    return check_restarts(run, err);
}

/* device, batch, accum, seq, the order of sums: what decides bits beside the settings. */
static void set_numerics(struct kiln_run *run) {
    const bool delayed = run->trainer.engine.plan.schedule.overlap == KILN_OVERLAP_DELAYED;
    const struct kiln_settings *s = &run->settings;
    const struct kiln_grid *grid = &run->trainer.grid;
    const bool apart = grid->stages > 1 && run->table->dims.tied && run->table->trained == 0;
    const bool narrow = kiln_ranks_count(s->ranks) > 1 && kiln_settings_narrow(s);
    char order[64] = "", local[32] = "";
    if (s->deterministic) {
        snprintf(order, sizeof order, "/tree");
    } else if (grid->replicas > 1) { /* in a pipeline H and E come from different ranks */
        snprintf(order, sizeof order, "/r%zu%s%s", grid->replicas, apart ? "/p" : "",
                 narrow ? "/bf16-sums" : "");
    } else if (narrow) { /* stages get them from each other */
        snprintf(order, sizeof order, "/bf16-sums");
    }
    if (run->settings.local_steps > 1) {
        snprintf(local, sizeof local, "/local%" PRIu64, run->settings.local_steps);
    }
    snprintf(run->numerics, sizeof run->numerics,
             "%s/b%" PRIu64 "/a%" PRIu64 "/t%" PRIu64 "%s%s%s%s",
             run->trainer.engine.device->caps.numerics, run->settings.batch, run->settings.accum,
             run->settings.seq, run->settings.doc_mask ? "/docs" : "", delayed ? "/delayed" : "",
             order, local);
}

/* The run's own settings change, and run.json: from here on the run is one with that turn. */
static enum kiln_status turn(void *context, uint64_t at, uint64_t steps, struct kiln_err *err) {
    struct kiln_run *run = context;
    struct kiln_settings *s = &run->settings;
    s->turn[s->n_turns++] = (struct kiln_turn){.at = at, .before = s->steps};
    s->steps = steps;
    s->origin[KILN_SETTING_steps] = KILN_FROM_MINUTES;
    kiln_kill_point("turn: before");
    KILN_TRY(kiln_run_write_settings(run, run->folder, err));
    kiln_kill_point("turn: written");
    return KILN_OK;
}

/* The same for a learning rate. Of steps that are taken once more, behind a checkpoint that was
 * gone back to, what was asked for before is given up. */
static enum kiln_status change_rate(void *context, uint64_t at, double lr, struct kiln_err *err) {
    struct kiln_run *run = context;
    struct kiln_settings *s = &run->settings;
    const struct kiln_settings before = *s;
    struct stat old = {.st_ino = 0}, now = {.st_ino = 0};
    char path[4300];
    kiln_run_file(run, "run.json", path, sizeof path);
    while (s->n_peaks > 0 && s->peak[s->n_peaks - 1].at >= at) {
        s->n_peaks--;
    }
    s->peak[s->n_peaks++] = (struct kiln_peak){.at = at, .lr = lr};
    kiln_kill_point("turn: before a rate");
    const bool known = stat(path, &old) == 0;
    const enum kiln_status status = kiln_run_write_settings(run, run->folder, err);
    if (status == KILN_OK) {
        kiln_kill_point("turn: rate written");
        return KILN_OK;
    }
    *s = before;
    /* It may have got its name, and not have reached the disk for sure: neither rate is safe. */
    const bool same = known && stat(path, &now) == 0 && now.st_ino == old.st_ino;
    return status == KILN_EIO && !same ? KILN_EUNTRUSTED : status;
}

static enum kiln_status begin_rollback(void *context, uint64_t next, struct kiln_err *err) {
    return kiln_rollback_begin(context, next, err);
}

double kiln_run_deadline(const struct kiln_run *run) { return run->trainer.clock.deadline; }

void kiln_run_set_deadline(struct kiln_run *run, double deadline) {
    run->trainer.clock.deadline = deadline;
    run->trainer.clock.whole = run->settings.minutes * 60;
}

/* Once the plan is made. What is computed with is of rank 0's weights, which are all there; others
 * get it from there. */
enum kiln_status kiln_run_open_shards(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_trainer *t = &run->trainer;
    const struct kiln_plan_request *request = &t->engine.request;
    if (!run->settings.shard_optimizer || !run->settings.ranks || t->shards) {
        return KILN_OK;
    }
    return kiln_shards_open(run->table, run->settings.ranks, kiln_plan_operands(request),
                            kiln_plan_snapshots(request) != KILN_PRECISION_AUTO, &t->shards, err);
}

/* Before the device is opened with it. */
static enum kiln_status take_snapshot(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_trainer *t = &run->trainer;
    struct kiln_pool *pool;
    if (!t->shards || t->shards->spread || !t->shards->arena.base) {
        return KILN_OK; /* others have it from rank 0, a delayed run in its state */
    }
    KILN_TRY(kiln_pool_create((size_t)run->settings.threads, &pool, err));
    const enum kiln_status status =
        kiln_shards_take(t->shards, t->state, pool, kiln_state_cursor(t->state)->step, err);
    kiln_pool_destroy(pool);
    return status;
}

/* Everything between an open state and the first step. */
enum kiln_status kiln_run_open_trainer(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_trainer *t = &run->trainer;
    const struct kiln_settings *s = &run->settings;
    t->settings = s;
    t->folder = run->folder;
    t->table = run->table;
    t->tokenizer = run->tokenizer;
    t->clock.context = run;
    t->clock.turn = turn;
    t->control.context = run;
    t->control.rate = change_rate;
    t->rollback.context = run;
    t->rollback.begin = begin_rollback;
    t->ranks = s->ranks;
    t->others.context = run;
    t->others.agree = kiln_together_agree;
    t->others.join = kiln_together_join;
    KILN_TRY(kiln_run_open_shards(run, err));
    KILN_TRY(take_snapshot(run, err));
    KILN_TRY(kiln_outer_open(t->state, run->table, err));
    float *gradients = kiln_state_region(t->state, KILN_GRADIENTS);
    const size_t embedding = kiln_table_find(run->table, KILN_EMBED, KILN_NO_LAYER)->offset;
    const uint64_t generation = kiln_generation_of(
        kiln_state_cursor(t->state)->step, t->engine.plan.schedule.overlap == KILN_OVERLAP_DELAYED);
    const struct kiln_engine_memory memory = {
        .weights = kiln_state_working(t->state, KILN_WEIGHTS),
        .active = kiln_trainer_weights(t, generation),
        .holding = t->shards ? &t->shards->holding : NULL,
        .generation = (int64_t)generation,
        .optimizer = {.m = kiln_state_working(t->state, KILN_MOMENT1),
                      .v = kiln_state_working(t->state, KILN_MOMENT2),
                      /* In the state: an update that a death cut short is finished from them. */
                      .gradients = {.all = gradients,
                                    .embedding =
                                        run->table->trained > 0 ? NULL
                                        : run->table->dims.tied
                                            ? kiln_state_region(t->state, KILN_GRADIENT_EMBEDDING)
                                            : gradients + embedding},
                      /* A death in a round of local steps gives up what they changed. */
                      .state = kiln_state_local(t->state) ? NULL : t->state,
                      .beta1 = s->beta1,
                      .beta2 = s->beta2,
                      .eps = s->eps,
                      .weight_decay = s->weight_decay,
                      .clip = s->clip},
        .ranks = s->ranks,
        .micro_batches = s->accum,
        .deterministic = s->deterministic,
        .local = kiln_state_local(t->state),
        .narrow = kiln_settings_narrow(s)};
    const struct kiln_memory *m = &t->engine.plan.memory;
    if (t->engine.plan.state_resident < m->weights + m->moments + m->gradients &&
        !kiln_state_walks(t->state)) {
        KILN_REQUIRE(!kiln_state_local(t->state), err, KILN_ENOMEM,
                     "--local-steps: weights and moments lie in memory twice, and do not fit into "
                     "--memory %.1f GB; more of it, or plain steps (--local-steps 1), which can "
                     "read their state from the disk",
                     (double)s->memory / 1e9);
        KILN_TRY(kiln_state_walk(t->state, err));
        kiln_state_behind(t->state, KILN_WEIGHTS, 0, run->table->size);
    }
    KILN_TRY(kiln_trace_create(run->folder, &t->trace, err));
    KILN_TRY(kiln_engine_open(&t->engine, run->table, &memory, err));
    t->scratch.has = kiln_alloc(run->table->dims.layers, 1);
    KILN_REQUIRE(t->scratch.has, err, KILN_ENOMEM, "no memory for a list of layers");
    set_numerics(run);
    const struct kiln_packed *packed = kiln_device_packed(t->engine.device);
    if (kiln_trainer_leads(t) && !t->engine.stage && !t->shards && s->sample_every > 0 &&
        s->sample_every != KILN_UNSET && run->tokenizer && packed &&
        t->engine.plan.schedule.refreshes && run->table->trained == 0) {
        const struct kiln_session_options session = {.packed = packed};
        KILN_TRY(kiln_session_open(run->table, memory.weights, t->engine.pool, &session,
                                   &t->session, err));
    }
    t->ceiling_tflops =
        t->engine.request.profile.ceiling_tflops * (double)kiln_ranks_count(s->ranks);
    return run->successor || !kiln_trainer_leads(t) ? KILN_OK : kiln_run_open_saver(run, err);
}

enum kiln_status kiln_run_open_saver(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_trainer *t = &run->trainer;
    KILN_TRY(kiln_saver_create(run->folder, run->table, t->state, t->settings, &t->saver, err));
    kiln_saver_tell(t->saver, t->engine.spans);
    return KILN_OK;
}

/* ---- what is told of it ------------------------------------------------------------------------
 */

struct window {
    uint32_t *inputs, *targets, *starts; /* [seq] */
    size_t seq;
};

/* Where a document begins inside the window, not too near its end; 0: nowhere. */
static size_t document_in(const struct window *w) {
    for (size_t i = 1; i + w->seq / 4 < w->seq; i++) {
        if (w->starts[i] == i) {
            return i;
        }
    }
    return 0;
}

static void say_prompt(const struct kiln_tokenizer *tok, const struct window *w,
                       struct kiln_run_info *info) {
    char text[1024];
    size_t n = 0, size;
    const bool whole = w->inputs[0] == kiln_tokenizer_begin(tok);
    const size_t first = whole ? 0 : document_in(w);
    for (size_t i = first; i < w->seq; i++) {
        const uint32_t before = i > first ? w->inputs[i - 1] : kiln_tokenizer_begin(tok);
        const char *piece = kiln_tokenizer_decode(tok, before, w->inputs[i], &size);
        if (n + size > sizeof text) {
            break;
        }
        memcpy(text + n, piece, size);
        n += size;
        info->conversations |= w->targets[i] == KILN_NO_TARGET;
    }
    kiln_first_words(text, n, whole || first > 0, info->prompt);
}

/* The first held-out window shows what the model may be asked to go on with. */
static enum kiln_status find_prompt(struct kiln_run *run, struct kiln_err *err) {
    const struct kiln_trainer *t = &run->trainer;
    const enum kiln_split split = t->val_data ? KILN_TRAIN : KILN_VALIDATION;
    const struct kiln_data *data = t->val_data ? t->val_data : t->data;
    const size_t seq = (size_t)run->settings.seq;
    if (run->tokenizer == NULL || kiln_data_windows(data, split) == 0) {
        return KILN_OK;
    }
    uint32_t *ids = kiln_alloc(3 * seq, sizeof *ids);
    KILN_REQUIRE(ids, err, KILN_ENOMEM, "no memory for a window");
    const struct window w = {ids, ids + seq, ids + 2 * seq, seq};
    kiln_data_window(data, split, 0, w.inputs, w.targets);
    kiln_data_window_starts(data, split, 0, w.starts);
    say_prompt(run->tokenizer, &w, &run->info);
    kiln_free(ids);
    return KILN_OK;
}

enum kiln_status kiln_run_describe(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_run_info *info = &run->info;
    const struct kiln_trainer *t = &run->trainer;
    const struct kiln_memory *m = &t->engine.plan.memory;
    *info = (struct kiln_run_info){.folder = run->folder,
                                   .model = run->model_name,
                                   .table = run->table,
                                   .tokenizer = run->tokenizer,
                                   .settings = &run->settings,
                                   .train_windows = kiln_data_windows(t->data, KILN_TRAIN),
                                   .val_windows = t->val_data
                                                      ? kiln_data_windows(t->val_data, KILN_TRAIN)
                                                      : kiln_data_windows(t->data, KILN_VALIDATION),
                                   .numerics = run->numerics,
                                   .first_step = kiln_state_cursor(t->state)->step,
                                   .memory = *m,
                                   .time = kiln_plan_seconds(&t->engine.plan),
                                   .link = run->link,
                                   .over_ranks = run->over_ranks,
                                   .budget = t->engine.plan.schedule.limits.compile == SIZE_MAX
                                                 ? 0
                                                 : t->engine.plan.schedule.limits.compile,
                                   .overlap = t->engine.plan.schedule.overlap,
                                   .two_sets = t->engine.plan.two_sets,
                                   .relay = t->engine.plan.schedule.relay,
                                   .restart_why = t->engine.plan.restart_why,
                                   .flops_per_step = t->flops * (double)run->settings.accum,
                                   .forecast = run->forecast,
                                   .notice = run->notice};
    info->full_layers = 0;
    for (size_t l = 0; l < t->engine.plan.schedule.layers; l++) {
        info->full_layers += t->engine.plan.schedule.keep[l] == KILN_FULL;
    }
    info->device = t->engine.request.device;
    info->says = t->engine.device->caps.description;
    info->gpu = t->engine.device->caps.gpu;
    info->precision = kiln_precision_resolve(t->engine.request.precision);
    KILN_TRY(find_prompt(run, err));
    return kiln_cpu_describe(info->precision, &info->cpu, err);
}

enum kiln_status kiln_run_open_metrics(struct kiln_run *run, struct kiln_err *err) {
    char path[4200];
    kiln_run_file(run, "metrics.jsonl", path, sizeof path);
    run->trainer.metrics = KILN_IO(KILN_IO_CREATE, path, NULL, 0, fopen(path, "ae"));
    KILN_REQUIRE(run->trainer.metrics, err, KILN_EIO, "%s: %s", path, strerror(errno));
    return run->trainer.handed_over ? KILN_OK : kiln_sync_dir(run->folder, err);
}

enum kiln_status kiln_run_write_settings(const struct kiln_run *run, const char *folder,
                                         struct kiln_err *err) {
    char path[4300];
    const struct kiln_plan *plan = &run->trainer.engine.plan;
    const struct kiln_run_planned planned = {plan->memory, kiln_plan_seconds(plan)};
    snprintf(path, sizeof path, "%s/run.json", folder);
    return kiln_run_json_write(path, &run->settings, &run->table->dims, &run->profile,
                               &run->forecast, &planned, err);
}

/* ---- training ------------------------------------------------------------------------------- */

int kiln_run_hand_over(struct kiln_run *run) {
    kiln_session_close(run->trainer.session);
    run->trainer.session = NULL;
    kiln_engine_close(&run->trainer.engine); /* whose threads read the state */
    const int descriptor = kiln_state_detach(run->trainer.state);
    run->trainer.state = NULL;
    kiln_run_close(run);
    return descriptor;
}

const struct kiln_run_info *kiln_run_info(const struct kiln_run *run) { return &run->info; }

uint32_t kiln_run_weights_hash(const struct kiln_run *run) {
    struct kiln_state *state = run->trainer.state;
    const uint32_t hash =
        kiln_crc32c(0, kiln_state_region(state, KILN_WEIGHTS), run->table->size * sizeof(float));
    kiln_state_behind(state, KILN_WEIGHTS, 0, run->table->size);
    return hash;
}

/* The state changes from here on. */
static enum kiln_status begin_training(struct kiln_run *run, struct kiln_err *err) {
    KILN_TRY(kiln_state_begin(run->trainer.state, err));
    struct kiln_cursor cursor = *kiln_state_cursor(run->trainer.state);
    memcpy(cursor.numerics, run->numerics, sizeof cursor.numerics);
    cursor.ranks = kiln_ranks_count(run->settings.ranks);
    /* Who made it and gave it to another process did not train. */
    cursor.restarts += run->resumed && (cursor.phase != KILN_PHASE_START || cursor.mid);
    run->resumed = false;
    kiln_state_commit(run->trainer.state, &cursor);
    const struct kiln_layout *layout = &run->trainer.engine.plan.layout;
    void *held = NULL;
    KILN_TRY(kiln_state_window(
        run->trainer.state, layout->in_state ? layout->held * layout->micro_batch : 0, &held, err));
    if (layout->in_state) {
        run->trainer.engine.executor.held = held;
    }
    return KILN_OK;
}

/* What the cursor counts of metrics.jsonl and trace.json is on the disk before it says "clean". */
static enum kiln_status end_training(struct kiln_run *run, struct kiln_err *err) {
    char path[4200];
    kiln_run_file(run, "metrics.jsonl", path, sizeof path);
    KILN_TRY(kiln_sync_file(path, err));
    kiln_run_file(run, "trace.json", path, sizeof path);
    if (kiln_path_exists(path)) {
        KILN_TRY(kiln_sync_file(path, err));
    }
    return kiln_state_finish(run->trainer.state, err);
}

/* From a rollback that is decided to a run that stands where the checkpoint does: all that was made
 * of the state is made again, where kernels are counted by a fresh process. */
static enum kiln_status go_back(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_trainer *t = &run->trainer;
    /* MPI does not allow its processes to be replaced: what they compile again adds up. */
    const bool counted = t->engine.plan.schedule.limits.compile != SIZE_MAX && !run->settings.ranks;
    const uint64_t first_step = run->info.first_step;
    t->rolled_back = false;
    close_trainer(t);
    if (!kiln_trainer_leads(t)) { /* rank 0 will say where to (take_part) */
        return kiln_run_make_plan(run, err);
    }
    KILN_TRY(kiln_rollback_complete(run, err));
    if (counted) {
        return KILN_FAIL(err, KILN_ERESTART, "rolled back: a fresh process goes on");
    }
    KILN_TRY(kiln_run_trim_metrics(run, err));
    KILN_TRY(kiln_run_make_plan(run, err));
    KILN_TRY(kiln_run_open_trainer(run, err));
    KILN_TRY(kiln_run_open_metrics(run, err));
    KILN_TRY(kiln_run_describe(run, err));
    run->info.first_step = first_step;
    return KILN_OK;
}

/* A rank that follows gets the state from rank 0, and then opens what computes from it. */
static enum kiln_status take_part(struct kiln_run *run, struct kiln_err *err) {
    if (kiln_ranks_mine(run->settings.ranks) == 0) {
        return KILN_OK;
    }
    KILN_TRY(kiln_state_begin(run->trainer.state, err));
    KILN_TRY(kiln_run_open_shards(run, err));
    KILN_TRY(kiln_together_share(run, err));
    enum kiln_status status = kiln_run_open_trainer(run, err);
    status = status == KILN_OK ? kiln_run_open_metrics(run, err) : status;
    return status == KILN_OK ? status : kiln_ranks_settle(run->settings.ranks, status, err);
}

enum kiln_status kiln_run_train(struct kiln_run *run, const struct kiln_observer *observer,
                                const volatile sig_atomic_t *stop, struct kiln_err *err) {
    run->trainer.observer = observer;
    run->trainer.stop = stop;
    if (run->notice[0] && observer && observer->on_notice) {
        observer->on_notice(observer->context, run->notice);
    }
    enum kiln_status status;
    do {
        KILN_TRY(take_part(run, err));
        KILN_TRY(begin_training(run, err));
        status = kiln_trainer_run(&run->trainer, err);
    } while (run->trainer.rolled_back && (status = go_back(run, err)) == KILN_OK);
    if (status == KILN_OK || status == KILN_EINTERRUPTED || status == KILN_EDIVERGED) {
        struct kiln_err second; /* the first message is the one to read */
        enum kiln_status finished = end_training(run, status == KILN_OK ? err : &second);
        kiln_together_leave(run);
        return status == KILN_OK ? finished : status;
    }
    return status;
}
