/* SPDX-License-Identifier: MIT
 *
 * run.c: the run folder: made whole under a temporary name, or opened again.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/io_hook.h"
#include "base/leftovers.h"
#include "base/machine.h"
#include "state/checkpoint.h"
#include "train/complete.h"
#include "train/data_source.h"
#include "train/run_json.h"
#include "train/trainer.h"

#define VALIDATION_SHARE 0.05
struct kiln_run {
    struct kiln_run_info info;
    struct kiln_settings settings;
    struct kiln_trainer trainer;
    struct kiln_table *table;
    struct kiln_tokenizer *tokenizer;
    struct kiln_profile profile; /* tflops 0: not known yet */
    bool resumed;                /* and not trained yet */
    int inherited;               /* descriptor of the state, or -1 */
    char numerics[sizeof((struct kiln_cursor *)0)->numerics];
    char folder[4096];
    char state_path[4300]; /* with --state: of a state that is being made */
    char notice[320];      /* what the user should know before training; "" for nothing */
    char model_name[512];
};

/* A file of the run's folder. */
static char *in_folder(const struct kiln_run *run, const char *name, char *out, size_t size) {
    snprintf(out, size, "%s/%s", run->folder, name);
    return out;
}

void kiln_run_close(struct kiln_run *run) {
    if (!run) {
        return;
    }
    struct kiln_trainer *t = &run->trainer;
    kiln_saver_destroy(t->saver);
    kiln_session_close(t->session);
    kiln_engine_close(&t->engine);
    kiln_data_destroy(t->data);
    kiln_data_destroy(t->val_data);
    kiln_state_close(t->state);
    if (t->metrics) {
        fclose(t->metrics);
    }
    kiln_tokenizer_destroy(run->tokenizer);
    kiln_table_destroy(run->table);
    kiln_settings_free(&run->settings);
    kiln_free(run);
}

/* ---- parts that every run needs
 * ------------------------------------------------------------------ */

static enum kiln_status open_data(struct kiln_run *run, const char *folder, struct kiln_err *err) {
    struct kiln_settings *s = &run->settings;
    struct kiln_trainer *t = &run->trainer;
    char path[4200];
    struct kiln_token_file *file = NULL;
    size_t vocab = run->table->dims.vocab, seq = (size_t)s->seq;
    snprintf(path, sizeof path, "%s/data.tok", folder);
    KILN_TRY(kiln_open_tokens(s->data, path, run->tokenizer, vocab, s->blank_lines, &file, err));
    double share = s->val ? 0.0 : VALIDATION_SHARE;
    enum kiln_status status = kiln_data_create(file, seq, s->seed, share, &t->data, err);
    if (status != KILN_OK && share > 0) {
        /* Too little text to hold any back: train on all of it, and say so. */
        status = kiln_data_create(file, seq, s->seed, 0.0, &t->data, err);
        if (status == KILN_OK) {
            snprintf(run->notice, sizeof run->notice,
                     "%s is too short to hold a part back: no held-out loss", s->data);
        }
    }
    if (status != KILN_OK) {
        kiln_token_file_close(file);
        return status;
    }
    if (s->val) {
        snprintf(path, sizeof path, "%s/val.tok", folder);
        KILN_TRY(kiln_open_tokens(s->val, path, run->tokenizer, vocab, s->blank_lines, &file, err));
        status = kiln_data_create(file, seq, s->seed, 0.0, &t->val_data, err);
        if (status != KILN_OK) {
            kiln_token_file_close(file);
        }
    }
    return status;
}

/* The plan, before anything is written: what can never run is refused here. */
static enum kiln_status make_plan(struct kiln_run *run, struct kiln_err *err) {
    const struct kiln_settings *s = &run->settings;
    struct kiln_plan_request request;
    KILN_REQUIRE(
        strcmp(s->device, "cpu") == 0, err, KILN_EUNSUPPORTED,
        "--device %s: this build of kiln trains on cpu; kiln plan --device %s plans for it",
        s->device, s->device);
    KILN_TRY(kiln_plan_request_of(s, &run->table->dims, &request, err));
    if (run->profile.tflops <= 0) {
        KILN_TRY(
            kiln_profile_of(s->device, request.threads, request.precision, &run->profile, err));
    }
    request.profile = run->profile;
    return kiln_engine_plan(&run->trainer.engine, run->table, &request, err);
}

/* A state that does not fit the memory lives on the disk: how fast is it? Then plan again. */
static enum kiln_status measure_disk(struct kiln_run *run, const char *folder,
                                     struct kiln_err *err) {
    struct kiln_engine *engine = &run->trainer.engine;
    if (engine->plan.disk_written == 0) {
        return KILN_OK;
    }
    KILN_TRY(
        kiln_profile_disk(run->settings.state ? run->settings.state : folder, &run->profile, err));
    kiln_plan_close(&engine->plan);
    return make_plan(run, err);
}

/* device, batch, accum, seq: what decides bits beside the settings. */
static void set_numerics(struct kiln_run *run) {
    snprintf(run->numerics, sizeof run->numerics, "%s/b%" PRIu64 "/a%" PRIu64 "/t%" PRIu64,
             run->trainer.engine.device->caps.numerics, run->settings.batch, run->settings.accum,
             run->settings.seq);
}

/* Everything between an open state and the first step. */
static enum kiln_status open_trainer(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_trainer *t = &run->trainer;
    const struct kiln_settings *s = &run->settings;
    t->settings = s;
    t->folder = run->folder;
    t->table = run->table;
    t->tokenizer = run->tokenizer;
    float *gradients = kiln_state_region(t->state, KILN_GRADIENTS);
    const size_t embedding = kiln_table_find(run->table, KILN_EMBED, KILN_NO_LAYER)->offset;
    const struct kiln_engine_memory memory = {
        .weights = kiln_state_region(t->state, KILN_WEIGHTS),
        .optimizer = {
            .m = kiln_state_region(t->state, KILN_MOMENT1),
            .v = kiln_state_region(t->state, KILN_MOMENT2),
            /* In the state: an update that a death cut short is finished from them. */
            .gradients = {.all = gradients,
                          .embedding = run->table->dims.tied
                                           ? kiln_state_region(t->state, KILN_GRADIENT_EMBEDDING)
                                           : gradients + embedding},
            .state = t->state,
            .beta1 = s->beta1,
            .beta2 = s->beta2,
            .eps = s->eps,
            .weight_decay = s->weight_decay,
            .clip = s->clip}};
    const struct kiln_memory *m = &t->engine.plan.memory;
    if (t->engine.plan.state_resident < m->weights + m->moments + m->gradients) {
        KILN_TRY(kiln_state_walk(t->state, err));
        kiln_state_behind(t->state, KILN_WEIGHTS, 0, run->table->size);
    }
    KILN_TRY(kiln_engine_open(&t->engine, run->table, &memory, err));
    set_numerics(run);
    if (s->sample_every > 0 && run->tokenizer) {
        /* With a budget the kernels are not all there: the session packs its own. */
        const bool all = t->engine.plan.schedule.refreshes;
        const struct kiln_session_options session = {
            .packed = all ? kiln_device_packed(t->engine.device) : NULL};
        KILN_TRY(kiln_session_open(run->table, memory.weights, t->engine.pool, &session,
                                   &t->session, err));
    }
    KILN_TRY(kiln_saver_create(run->folder, run->table, t->state, s, &t->saver, err));
    t->ceiling_tflops = t->engine.request.profile.ceiling_tflops;
    return KILN_OK;
}

static enum kiln_status describe(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_run_info *info = &run->info;
    const struct kiln_trainer *t = &run->trainer;
    const struct kiln_memory *m = &t->engine.plan.memory;
    *info = (struct kiln_run_info){
        .folder = run->folder,
        .model = run->model_name,
        .table = run->table,
        .tokenizer = run->tokenizer,
        .settings = &run->settings,
        .train_windows = kiln_data_windows(t->data, KILN_TRAIN),
        .val_windows = t->val_data ? kiln_data_windows(t->val_data, KILN_TRAIN)
                                   : kiln_data_windows(t->data, KILN_VALIDATION),
        .numerics = run->numerics,
        .first_step = kiln_state_cursor(t->state)->step,
        .memory = *m,
        .time = kiln_plan_seconds(&t->engine.plan),
        .budget = t->engine.plan.schedule.limits.compile == SIZE_MAX
                      ? 0
                      : t->engine.plan.schedule.limits.compile,
        .flops_per_step = t->engine.plan.flops.total * (double)run->settings.accum};
    info->full_layers = 0;
    for (size_t l = 0; l < run->table->dims.layers; l++) {
        info->full_layers += t->engine.plan.schedule.keep[l] == KILN_FULL;
    }
    KILN_TRY(kiln_precision_parse(run->settings.precision, &info->precision, err));
    info->precision = kiln_precision_resolve(info->precision);
    return kiln_cpu_describe(info->precision, &info->cpu, err);
}

static enum kiln_status open_metrics(struct kiln_run *run, struct kiln_err *err) {
    char path[4200];
    in_folder(run, "metrics.jsonl", path, sizeof path);
    run->trainer.metrics = KILN_IO(KILN_IO_CREATE, path, NULL, 0, fopen(path, "ae"));
    KILN_REQUIRE(run->trainer.metrics, err, KILN_EIO, "%s: %s", path, strerror(errno));
    return kiln_sync_dir(run->folder, err);
}

/* ---- a new run ----------------------------------------------------------------------------------
 */

/* runs/MODEL-DATA from the names of the two, with a number where that is taken. */
static void choose_folder(const struct kiln_settings *s, char *out, size_t size) {
    const char *names[2] = {s->model, s->data};
    char stem[2][64];
    for (int i = 0; i < 2; i++) {
        size_t length = strlen(names[i]);
        while (length > 1 && names[i][length - 1] == '/') {
            length--; /* a folder's name may end in slashes */
        }
        size_t first = length;
        while (first > 0 && names[i][first - 1] != '/') {
            first--;
        }
        snprintf(stem[i], sizeof stem[i], "%.*s", (int)(length - first), names[i] + first);
        /* Not in the middle of a UTF-8 character. */
        for (size_t end = strlen(stem[i]); first + end < length && end > 0 &&
                                           ((unsigned char)names[i][first + end] & 0xc0) == 0x80;) {
            stem[i][--end] = '\0';
        }
        char *dot = strrchr(stem[i], '.');
        if (dot && dot != stem[i]) {
            *dot = '\0';
        }
    }
    snprintf(out, size, "runs/%s-%s", stem[0], stem[1]);
    size_t base = strlen(out);
    for (int i = 2; kiln_path_exists(out); i++) {
        snprintf(out + base, size - base, "-%d", i);
    }
}

static enum kiln_status write_settings(const struct kiln_run *run, const char *folder,
                                       struct kiln_err *err) {
    char path[4300];
    snprintf(path, sizeof path, "%s/run.json", folder);
    return kiln_run_json_write(path, &run->settings, &run->table->dims, &run->profile, err);
}

/* --state DIR: the file is DIR/NAME.state.kiln, and state.kiln in the run folder leads to it. */
static enum kiln_status place_state(struct kiln_run *run, const char *link, struct kiln_err *err) {
    char folder[PATH_MAX];
    const char *name = strrchr(run->folder, '/');
    name = name ? name + 1 : run->folder;
    KILN_TRY(kiln_make_dirs(run->settings.state, err));
    KILN_REQUIRE(realpath(run->settings.state, folder), err, KILN_EIO, "--state %s: %s",
                 run->settings.state, strerror(errno));
    const int n =
        snprintf(run->state_path, sizeof run->state_path, "%s/%s.state.kiln", folder, name);
    KILN_REQUIRE(n < (int)sizeof run->state_path, err, KILN_EUSAGE, "--state %s: path too long",
                 run->settings.state);
    KILN_REQUIRE(!kiln_path_exists(run->state_path), err, KILN_EEXISTS,
                 "--state: %s exists, the state of another run; remove it if that run is done, or "
                 "choose another --state or --out",
                 run->state_path);
    KILN_REQUIRE(symlink(run->state_path, link) == 0, err, KILN_EIO, "%s: %s", link,
                 strerror(errno));
    return KILN_OK;
}

/* Fill the temporary folder: tokens, tokenizer, state with its first weights, run.json. */
static enum kiln_status prepare(struct kiln_run *run, const struct kiln_model_source *source,
                                const char *folder, struct kiln_err *err) {
    char path[4300];
    KILN_TRY(measure_disk(run, folder, err));
    KILN_TRY(open_data(run, folder, err));
    if (run->tokenizer && strcmp(kiln_tokenizer_name(run->tokenizer), "bytes") != 0) {
        snprintf(path, sizeof path, "%s/tokenizer.bin", folder);
        KILN_TRY(kiln_tokenizer_save(run->tokenizer, path, err));
    }
    snprintf(path, sizeof path, "%s/state.kiln", folder);
    if (run->settings.state) {
        KILN_TRY(place_state(run, path, err));
    }
    KILN_TRY(kiln_state_create(run->settings.state ? run->state_path : path, run->table,
                               &run->trainer.state, err));
    KILN_TRY(kiln_model_source_load(source, run->table, run->settings.seed,
                                    kiln_state_region(run->trainer.state, KILN_WEIGHTS), err));
    KILN_TRY(kiln_state_sync(run->trainer.state, err));
    return write_settings(run, folder, err);
}

static enum kiln_status make_folder(struct kiln_run *run, const struct kiln_model_source *source,
                                    struct kiln_err *err) {
    char temporary[4200], parent[4096];
    snprintf(temporary, sizeof temporary, "%s.tmp-", run->folder);
    kiln_leftovers_remove(temporary);
    snprintf(temporary, sizeof temporary, "%s.tmp-%ld", run->folder, (long)getpid());
    snprintf(parent, sizeof parent, "%s", run->folder);
    char *slash = strrchr(parent, '/');
    bool made_parent = false;
    if (slash && slash != parent) {
        *slash = '\0';
        made_parent = !kiln_path_exists(parent);
    }
    enum kiln_status status = kiln_make_dirs(temporary, err);
    if (status == KILN_OK) {
        status = prepare(run, source, temporary, err);
    }
    /* Kernels and memory too: a run that cannot be opened is not made. */
    if (status == KILN_OK) {
        status = open_trainer(run, err);
    }
    if (status == KILN_OK) {
        struct kiln_cursor cursor = *kiln_state_cursor(run->trainer.state);
        memcpy(cursor.numerics, run->numerics, sizeof cursor.numerics);
        kiln_state_commit(run->trainer.state, &cursor);
        status = kiln_state_sync(run->trainer.state, err);
    }
    if (status == KILN_OK) {
        status = kiln_durable_rename(temporary, run->folder, err);
    }
    if (status == KILN_OK) {
        char path[4200];
        in_folder(run, "state.kiln", path, sizeof path);
        status = kiln_state_moved(run->trainer.state, path, err);
    }
    if (status != KILN_OK) {
        struct kiln_err ignored;
        if (run->trainer.state && run->state_path[0]) {
            unlink(run->state_path);
        }
        if (kiln_remove_tree(temporary, &ignored) == KILN_OK && made_parent) {
            rmdir(parent); /* only when empty: nothing is left behind */
        }
    }
    return status;
}

/* Paths of files in the folder are made in buffers of PATH_MAX and a little. */
static enum kiln_status check_name(const char *folder, struct kiln_err *err) {
    KILN_REQUIRE(strlen(folder) < 3800, err, KILN_EUSAGE, "run folder: the path is too long");
    return KILN_OK;
}

static enum kiln_status create(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_settings *s = &run->settings;
    struct kiln_completed completed;
    KILN_REQUIRE(s->data, err, KILN_EUSAGE, "train needs --data FILE, a text or token file");
    KILN_TRY(kiln_check_data(s->data, err));
    const enum kiln_status status = kiln_settings_complete(s, &completed, err);
    run->tokenizer = completed.tokenizer;
    KILN_TRY(status);
    kiln_model_source_name(&completed.source, s->seed, run->model_name, sizeof run->model_name);
    KILN_TRY(kiln_table_create(&completed.dims, &run->table, err));
    KILN_TRY(make_plan(run, err));
    if (s->out) {
        KILN_TRY(check_name(s->out, err));
        KILN_REQUIRE(!kiln_path_exists(s->out), err, KILN_EEXISTS,
                     "run folder %s exists: continue it with --resume %s, or choose another --out",
                     s->out, s->out);
        snprintf(run->folder, sizeof run->folder, "%s", s->out);
        for (size_t n = strlen(run->folder); n > 1 && run->folder[n - 1] == '/'; n--) {
            run->folder[n - 1] = '\0'; /* or the temporary folder would lie inside */
        }
    } else {
        choose_folder(s, run->folder, sizeof run->folder);
        KILN_TRY(kiln_settings_set(s, KILN_SETTING_out, run->folder, KILN_FROM_DEFAULT, err));
    }
    KILN_TRY(make_folder(run, &completed.source, err));
    if (!run->notice[0] && s->warmup >= s->steps) {
        snprintf(run->notice, sizeof run->notice,
                 "--warmup %" PRIu64 " takes all %" PRIu64
                 " steps: the learning rate only rises and is never lowered",
                 s->warmup, s->steps);
    }
    KILN_TRY(open_metrics(run, err));
    return describe(run, err);
}

static enum kiln_status begin(const struct kiln_settings *settings, struct kiln_run **out,
                              struct kiln_err *err) {
    *out = kiln_alloc(1, sizeof **out);
    KILN_REQUIRE(*out, err, KILN_ENOMEM, "no memory for a run");
    return settings ? kiln_settings_copy(&(*out)->settings, settings, err)
                    : kiln_settings_init(&(*out)->settings, err);
}

static enum kiln_status end_open(enum kiln_status status, struct kiln_run **run) {
    if (status != KILN_OK) {
        kiln_run_close(*run);
        *run = NULL;
    }
    return status;
}

enum kiln_status kiln_run_create(const struct kiln_settings *settings, struct kiln_run **out,
                                 struct kiln_err *err) {
    enum kiln_status status = begin(settings, out, err);
    if (status == KILN_OK) {
        status = create(*out, err);
    }
    return end_open(status, out);
}

/* ---- an old one ---------------------------------------------------------------------------------
 */

/* Settings that may change from one process of a run to the next. */
static bool may_change(enum kiln_setting_id id) {
    switch (id) {
        case KILN_SETTING_steps:
        case KILN_SETTING_threads:
        case KILN_SETTING_eval_every:
        case KILN_SETTING_sample_every:
        case KILN_SETTING_save_every:
        case KILN_SETTING_keep_checkpoints:
        case KILN_SETTING_prompt:
        case KILN_SETTING_budget: /* the plan: it decides no bits */
        case KILN_SETTING_load_budget:
        case KILN_SETTING_headroom:
        case KILN_SETTING_schedule:
        case KILN_SETTING_activations:
        case KILN_SETTING_memory:
        case KILN_SETTING_overlap:
        case KILN_SETTING_restart:
            return true;
        default:
            return false;
    }
}

static enum kiln_status read_settings(struct kiln_run *run, const struct kiln_settings *changes,
                                      struct kiln_dims *dims, struct kiln_err *err) {
    char path[4200], text[512];
    in_folder(run, "run.json", path, sizeof path);
    KILN_REQUIRE(kiln_path_exists(path), err, KILN_EINPUT, "%s is no run folder: no run.json in it",
                 run->folder);
    KILN_TRY(kiln_run_json_read(path, &run->settings, dims, &run->profile, err));
    for (int i = 0; changes && i < KILN_SETTING_COUNT; i++) {
        if (changes->origin[i] != KILN_FROM_FLAG) {
            continue;
        }
        KILN_REQUIRE(may_change(i), err, KILN_EUSAGE,
                     "--%s cannot change when a run is resumed; start a new run for it",
                     kiln_setting(i)->flag);
        kiln_settings_text(changes, i, text, sizeof text);
        KILN_TRY(kiln_settings_set(&run->settings, i, text, KILN_FROM_FLAG, err));
    }
    return KILN_OK;
}

static enum kiln_status reopen_data(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_settings *s = &run->settings;
    char path[4200];
    /* The tokens made at the start are the data of the run, whatever became of the text. */
    in_folder(run, "data.tok", path, sizeof path);
    if (kiln_path_exists(path)) {
        KILN_TRY(kiln_settings_set(s, KILN_SETTING_data, path, KILN_FROM_RUN, err));
    }
    in_folder(run, "val.tok", path, sizeof path);
    if (s->val && kiln_path_exists(path)) {
        KILN_TRY(kiln_settings_set(s, KILN_SETTING_val, path, KILN_FROM_RUN, err));
    }
    return open_data(run, run->folder, err);
}

/* metrics.jsonl may hold more than the cursor knows: cut it to the cursor's length. */
static enum kiln_status trim_metrics(const struct kiln_run *run, struct kiln_err *err) {
    char path[4200];
    struct stat st;
    in_folder(run, "metrics.jsonl", path, sizeof path);
    off_t length = (off_t)kiln_state_cursor(run->trainer.state)->metrics_bytes;
    if (stat(path, &st) == 0 && st.st_size > length) {
        KILN_REQUIRE(KILN_IO(KILN_IO_TRUNCATE, path, NULL, 0, truncate(path, length)) == 0, err,
                     KILN_EIO, "%s: %s", path, strerror(errno));
    }
    return KILN_OK;
}

/* The sizes that run.json does not hold: those of the state, or of the newest checkpoint. */
static enum kiln_status find_sizes(const struct kiln_run *run, const char *state,
                                   struct kiln_dims *dims, struct kiln_err *err) {
    struct kiln_checkpoint_info info;
    struct kiln_cursor cursor;
    struct kiln_err second;
    char path[4200], checkpoint[4300];
    uint64_t step;
    size_t damaged;
    enum kiln_status status = kiln_state_peek(state, dims, &cursor, err);
    in_folder(run, "checkpoints", path, sizeof path);
    if (status == KILN_OK ||
        kiln_checkpoint_find(path, &step, checkpoint, sizeof checkpoint, &damaged, &second) !=
            KILN_OK ||
        kiln_checkpoint_peek(checkpoint, &info, &second) != KILN_OK) {
        return status;
    }
    *dims = info.dims;
    return KILN_OK;
}

/* The state is gone, or not to be trusted, for the reason in *err: the newest checkpoint that
 * verifies takes its place. */
static enum kiln_status restore_newest(struct kiln_run *run, const char *state,
                                       struct kiln_err *err) {
    char folder[4200], checkpoint[4300];
    uint64_t step;
    size_t damaged;
    const struct kiln_err why = *err;
    struct kiln_err none;
    in_folder(run, "checkpoints", folder, sizeof folder);
    if (kiln_checkpoint_find(folder, &step, checkpoint, sizeof checkpoint, &damaged, &none) !=
        KILN_OK) {
        return KILN_FAIL(err, why.code,
                         "%.300s; %.200s: all that was trained is lost; remove the folder and "
                         "start the run again",
                         why.message, none.message);
    }
    KILN_TRY(kiln_state_renew(state, run->table, &run->trainer.state, err));
    KILN_TRY(kiln_checkpoint_restore(checkpoint, run->trainer.state, err));
    KILN_TRY(kiln_sync_dir(run->folder, err));
    int n =
        snprintf(run->notice, sizeof run->notice,
                 "%s: training goes on from the checkpoint of step %" PRIu64,
                 why.code == KILN_EUNTRUSTED
                     ? "state.kiln cannot be trusted: the power was cut or the system restarted "
                       "while this run was being trained"
                     : "state.kiln is missing",
                 step);
    if (damaged > 0 && n > 0 && (size_t)n < sizeof run->notice) {
        snprintf(run->notice + n, sizeof run->notice - (size_t)n, "; %zu newer ones are damaged",
                 damaged);
    }
    return KILN_OK;
}

static enum kiln_status reopen_state(struct kiln_run *run, const char *path, struct kiln_err *err) {
    char notice[160];
    struct kiln_err own; /* the caller's may be NULL */
    struct kiln_state **state = &run->trainer.state;
    bool absent = !kiln_path_exists(path);
    const int fd = run->inherited;
    run->inherited = -1;
    run->trainer.handed_over = fd >= 0;
    enum kiln_status status = fd >= 0
                                  ? kiln_state_open_fd(fd, path, run->table, state, notice, &own)
                                  : kiln_state_open(path, run->table, state, notice, &own);
    if (fd < 0 && (absent || status == KILN_EUNTRUSTED)) {
        status = restore_newest(run, path, &own);
    } else if (status == KILN_OK && notice[0]) {
        snprintf(run->notice, sizeof run->notice, "%s", notice);
    }
    if (status != KILN_OK && err) {
        *err = own;
    }
    return status;
}

static enum kiln_status resume(struct kiln_run *run, const struct kiln_settings *changes,
                               struct kiln_err *err) {
    char path[4200];
    struct kiln_dims dims;
    KILN_TRY(read_settings(run, changes, &dims, err));
    if (dims.dim == 0) {
        in_folder(run, "state.kiln", path, sizeof path);
        KILN_TRY(find_sizes(run, path, &dims, err));
    }
    KILN_TRY(kiln_table_create(&dims, &run->table, err));
    snprintf(run->model_name, sizeof run->model_name, "%s", run->settings.model);
    in_folder(run, "tokenizer.bin", path, sizeof path);
    bool own = kiln_path_exists(path);
    KILN_TRY(kiln_open_tokenizer(own ? path : NULL, "data.tok", dims.vocab, &run->tokenizer, err));
    KILN_TRY(reopen_data(run, err));
    in_folder(run, "state.kiln", path, sizeof path);
    KILN_TRY(reopen_state(run, path, err));
    KILN_TRY(trim_metrics(run, err));
    KILN_TRY(make_plan(run, err));
    KILN_TRY(open_trainer(run, err));
    const char *before = kiln_state_cursor(run->trainer.state)->numerics;
    if (strcmp(run->numerics, before) != 0) {
        snprintf(run->notice, sizeof run->notice,
                 "this machine computes as %s, the run began as %s: losses may differ in the last "
                 "digits",
                 run->numerics, before);
    }
    run->resumed = true;
    if (!run->trainer.handed_over) {
        KILN_TRY(write_settings(run, run->folder, err));
    }
    KILN_TRY(open_metrics(run, err));
    return describe(run, err);
}

static enum kiln_status open_old(const char *folder, const struct kiln_settings *changes,
                                 int inherited, struct kiln_run **out, struct kiln_err *err) {
    enum kiln_status status = begin(NULL, out, err);
    if (status == KILN_OK) {
        (*out)->inherited = inherited;
        status = check_name(folder, err);
    }
    if (status == KILN_OK) {
        snprintf((*out)->folder, sizeof(*out)->folder, "%s", folder);
        status = resume(*out, changes, err);
    }
    return end_open(status, out);
}

enum kiln_status kiln_run_resume(const char *folder, const struct kiln_settings *changes,
                                 struct kiln_run **out, struct kiln_err *err) {
    return open_old(folder, changes, -1, out, err);
}

enum kiln_status kiln_run_take_over(int descriptor, const char *folder, struct kiln_run **out,
                                    struct kiln_err *err) {
    return open_old(folder, NULL, descriptor, out, err);
}

int kiln_run_hand_over(struct kiln_run *run) {
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
    cursor.restarts += run->resumed;
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

/* The lines of metrics.jsonl that the cursor counts are on the disk before it says "clean". */
static enum kiln_status end_training(struct kiln_run *run, struct kiln_err *err) {
    char path[4200];
    in_folder(run, "metrics.jsonl", path, sizeof path);
    KILN_TRY(kiln_sync_file(path, err));
    return kiln_state_finish(run->trainer.state, err);
}

enum kiln_status kiln_run_train(struct kiln_run *run, const struct kiln_observer *observer,
                                const volatile sig_atomic_t *stop, struct kiln_err *err) {
    run->trainer.observer = observer;
    run->trainer.stop = stop;
    if (run->notice[0] && observer && observer->on_notice) {
        observer->on_notice(observer->context, run->notice);
    }
    KILN_TRY(begin_training(run, err));
    enum kiln_status status = kiln_trainer_run(&run->trainer, err);
    if (status == KILN_OK || status == KILN_EINTERRUPTED || status == KILN_EDIVERGED) {
        struct kiln_err second; /* the first message is the one to read */
        enum kiln_status finished = end_training(run, status == KILN_OK ? err : &second);
        return status == KILN_OK ? finished : status;
    }
    return status;
}
