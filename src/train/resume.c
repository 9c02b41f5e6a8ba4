/* SPDX-License-Identifier: MIT
 *
 * resume.c: a run that is opened again, by a person or by the process before.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/io_hook.h"
#include "base/mem.h"
#include "state/checkpoint.h"
#include "train/complete.h"
#include "train/data_source.h"
#include "train/minutes.h"
#include "train/rescue.h"
#include "train/rollback.h"
#include "train/run_json.h"
#include "train/together.h"

/* Settings that may change from one process of a run to the next. */
static bool may_change(enum kiln_setting_id id) {
    switch (id) {
        case KILN_SETTING_steps:
        case KILN_SETTING_minutes:
        case KILN_SETTING_threads:
        case KILN_SETTING_eval_every:
        case KILN_SETTING_sample_every:
        case KILN_SETTING_save_every:
        case KILN_SETTING_keep_checkpoints:
        case KILN_SETTING_prompt:
        case KILN_SETTING_trace_steps:
        case KILN_SETTING_on_spike:
        case KILN_SETTING_spike_z:
        case KILN_SETTING_log_every:
        case KILN_SETTING_curve:
        case KILN_SETTING_tensorboard:
        case KILN_SETTING_budget: /* the plan: it decides no bits */
        case KILN_SETTING_load_budget:
        case KILN_SETTING_headroom:
        case KILN_SETTING_schedule:
        case KILN_SETTING_activations:
        case KILN_SETTING_memory:
        case KILN_SETTING_overlap:
        case KILN_SETTING_pipeline:
        case KILN_SETTING_restart:
        case KILN_SETTING_sim_time: /* time decides none either */
        case KILN_SETTING_profile:
        case KILN_SETTING_dw: /* bits, in the last digits; a GPU may be gone, and the run goes on */
            return true;
        default:
            return false;
    }
}

static enum kiln_status read_settings(struct kiln_run *run, const struct kiln_settings *changes,
                                      struct kiln_dims *dims, struct kiln_err *err) {
    char path[4200], text[4200]; /* a profile is a path */
    kiln_run_file(run, "run.json", path, sizeof path);
    KILN_REQUIRE(kiln_path_exists(path), err, KILN_EINPUT, "%s is no run folder: no run.json in it",
                 run->folder);
    KILN_TRY(kiln_run_json_read(path, &run->settings, dims, &run->profile, &run->forecast, err));
    run->settings.ranks = changes ? changes->ranks : run->settings.ranks;
    if (run->settings.ranks && changes && changes->threads == KILN_UNSET) {
        run->settings.threads = kiln_default_threads(run->settings.ranks);
    }
    for (int i = 0; changes && i < KILN_SETTING_COUNT; i++) {
        if (changes->origin[i] != KILN_FROM_FLAG) {
            continue;
        }
        KILN_REQUIRE(may_change(i), err, KILN_EUSAGE,
                     "--%s cannot change when a run is resumed; start a new run for it",
                     kiln_setting(i)->flag);
        kiln_settings_text(changes, i, text, sizeof text);
        const bool delays = strcmp(text, "delayed") == 0;
        KILN_REQUIRE(
            i != KILN_SETTING_overlap || delays == (strcmp(run->settings.overlap, "delayed") == 0),
            err, KILN_EUSAGE,
            "--overlap %s: this run was begun with --overlap %s, and delayed gradients are "
            "others; start a new run for it",
            text, run->settings.overlap);
        KILN_TRY(kiln_settings_set(&run->settings, i, text, KILN_FROM_FLAG, err));
        if (i == KILN_SETTING_sim_time || i == KILN_SETTING_profile) {
            run->profile.tflops = 0; /* that of before is not of these times */
        }
    }
    /* Without time that is charged no device's times are wanted. */
    const bool free = changes && changes->origin[KILN_SETTING_sim_time] == KILN_FROM_FLAG &&
                      changes->origin[KILN_SETTING_profile] != KILN_FROM_FLAG &&
                      run->settings.sim_time <= 0;
    return free ? kiln_settings_set(&run->settings, KILN_SETTING_profile, "", KILN_FROM_RUN, err)
                : KILN_OK;
}

/* The tokens made at the start are the data of the run, whatever became of the texts. */
static enum kiln_status own_tokens(struct kiln_run *run, enum kiln_setting_id id, const char *text,
                                   const char *name, struct kiln_err *err) {
    struct kiln_data_list list;
    char path[4300];
    KILN_TRY(kiln_data_list_split(text, &list, err));
    for (size_t i = 0; i < list.n; i++) {
        kiln_token_path(run->folder, name, i, path, sizeof path);
        if (kiln_path_exists(path)) {
            kiln_free(list.path[i]);
            list.path[i] = kiln_strdup(path);
        }
    }
    char *own = kiln_data_list_text(&list);
    kiln_data_list_free(&list);
    KILN_REQUIRE(own, err, KILN_ENOMEM, "data: out of memory");
    const enum kiln_status status = kiln_settings_set(&run->settings, id, own, KILN_FROM_RUN, err);
    kiln_free(own);
    return status;
}

static enum kiln_status reopen_data(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_settings *s = &run->settings;
    KILN_TRY(own_tokens(run, KILN_SETTING_data, s->data, "data", err));
    KILN_TRY(s->val ? own_tokens(run, KILN_SETTING_val, s->val, "val", err) : KILN_OK);
    return kiln_run_open_data(run, run->folder, err);
}

/* Said behind what else there is to say. */
static void add_notice(struct kiln_run *run, const char *text) {
    const size_t n = strlen(run->notice);
    snprintf(run->notice + n, sizeof run->notice - n, "%s%s", n > 0 ? "; " : "", text);
}

/* Is the last byte of so many a newline? */
static bool ends_a_line(const char *path, off_t length) {
    char last = '\n';
    const int fd = length > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    const bool read = fd >= 0 && pread(fd, &last, 1, length - 1) == 1;
    if (fd >= 0) {
        close(fd);
    }
    return !read || last == '\n';
}

static enum kiln_status end_line(const char *path, struct kiln_err *err) {
    FILE *file = KILN_IO(KILN_IO_CREATE, path, NULL, 0, fopen(path, "ae"));
    KILN_REQUIRE(file, err, KILN_EIO, "%s: %s", path, strerror(errno));
    const bool written = fputc('\n', file) != EOF;
    const bool closed = fclose(file) == 0;
    KILN_REQUIRE(written && closed, err, KILN_EIO, "%s: cannot end its last line: %s", path,
                 strerror(errno));
    return KILN_OK;
}

/* What somebody else cut off is gone; the next line must not be glued to what is left. A death
 * between the newline and the cursor leaves a file that is mended the same way. */
static enum kiln_status mend_metrics(struct kiln_run *run, const char *path, off_t there, bool torn,
                                     struct kiln_err *err) {
    char said[160];
    KILN_TRY(kiln_state_begin(run->trainer.state, err)); /* a cursor is committed */
    struct kiln_cursor cursor = *kiln_state_cursor(run->trainer.state);
    snprintf(said, sizeof said, "metrics.jsonl %s%s: lines of steps up to %" PRIu64 " are lost",
             (uint64_t)there < cursor.metrics_bytes ? "is shorter than it was" : "was changed",
             torn ? " and ends within a line" : "", cursor.step);
    if (torn) {
        KILN_TRY(end_line(path, err));
    }
    cursor.metrics_bytes = (uint64_t)there + torn;
    kiln_state_commit(run->trainer.state, &cursor);
    add_notice(run, said);
    return KILN_OK;
}

enum kiln_status kiln_run_trim_metrics(struct kiln_run *run, struct kiln_err *err) {
    char path[4200];
    struct stat st;
    kiln_run_file(run, "metrics.jsonl", path, sizeof path);
    const off_t length = (off_t)kiln_state_cursor(run->trainer.state)->metrics_bytes;
    off_t there = stat(path, &st) == 0 ? st.st_size : 0;
    if (there > length) {
        KILN_REQUIRE(KILN_IO(KILN_IO_TRUNCATE, path, NULL, 0, truncate(path, length)) == 0, err,
                     KILN_EIO, "%s: %s", path, strerror(errno));
        there = length;
    }
    const bool torn = !ends_a_line(path, there);
    return there < length || torn ? mend_metrics(run, path, there, torn, err) : KILN_OK;
}

/* The sizes that run.json does not hold: those of the state, or of the newest checkpoint. */
static enum kiln_status find_sizes(const struct kiln_run *run, const char *state,
                                   struct kiln_dims *dims, struct kiln_err *err) {
    struct kiln_checkpoint_info info;
    struct kiln_lora lora; /* that of the settings */
    struct kiln_cursor cursor;
    struct kiln_err second;
    char path[4200], checkpoint[4300];
    uint64_t step;
    size_t damaged;
    enum kiln_status status = kiln_state_peek(state, dims, &lora, &cursor, err);
    kiln_run_file(run, "checkpoints", path, sizeof path);
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
static enum kiln_status restore_newest(struct kiln_run *run, const char *state, const char *lost,
                                       struct kiln_err *err) {
    char checkpoint[4400];
    uint64_t step;
    size_t passed;
    const struct kiln_err why = *err;
    struct kiln_err none;
    if (kiln_rollback_newest(run, &step, checkpoint, sizeof checkpoint, &passed, &none) !=
        KILN_OK) {
        return KILN_FAIL(err, why.code,
                         "%.300s; %.200s: all that was trained is lost; remove the folder and "
                         "start the run again",
                         why.message, none.message);
    }
    if (run->settings.state) {
        KILN_TRY(kiln_make_dirs(run->settings.state, err)); /* gone with /dev/shm, maybe */
    }
    struct kiln_checkpoint_info info;
    KILN_TRY(kiln_checkpoint_peek(checkpoint, &info, err));
    KILN_TRY(kiln_state_renew(state, run->table, info.snapshots,
                              info.bytes[KILN_CHECKPOINT_OUTER] > 0, &run->trainer.state, err));
    const enum kiln_status status = kiln_checkpoint_restore(checkpoint, run->trainer.state, err);
    if (status != KILN_OK) { /* half of it must not look like a state */
        (void)KILN_IO(KILN_IO_REMOVE, state, NULL, 0, unlink(state));
        return status;
    }
    kiln_rollback_settle(run);
    KILN_TRY(kiln_sync_dir(run->folder, err));
    int n = snprintf(run->notice, sizeof run->notice,
                     "%.180s: training goes on from the checkpoint of step %" PRIu64, lost, step);
    if (passed > 0 && n > 0 && (size_t)n < sizeof run->notice) {
        snprintf(run->notice + n, sizeof run->notice - (size_t)n,
                 "; %zu newer ones are damaged or given up", passed);
    }
    return KILN_OK;
}

static enum kiln_status reopen_state(struct kiln_run *run, const char *path, struct kiln_err *err) {
    char notice[160], words[180];
    struct kiln_err own; /* the caller's may be NULL */
    struct kiln_state **state = &run->trainer.state;
    bool absent = !kiln_path_exists(path), lost = false;
    const int fd = run->inherited;
    run->inherited = -1;
    run->trainer.handed_over = fd >= 0;
    enum kiln_status status = fd >= 0
                                  ? kiln_state_open_fd(fd, path, run->table, state, notice, &own)
                                  : kiln_state_open(path, run->table, state, notice, &own);
    if (status == KILN_OK && kiln_state_cursor(*state)->spread > 0 && !kiln_rollback_is_due(run)) {
        status = kiln_rescue(run, &own);
        lost = status == KILN_EUNTRUSTED || status == KILN_EDAMAGED;
        if (lost) {
            kiln_state_close(*state);
            *state = NULL;
        }
    }
    if (fd < 0 && (absent || lost || status == KILN_EUNTRUSTED)) {
        snprintf(words, sizeof words, "%.170s",
                 lost ? own.message
                 : status == KILN_EUNTRUSTED
                     ? "state.kiln cannot be trusted: the power was cut or the "
                       "system restarted while this run was being trained"
                     : "state.kiln is missing");
        status = restore_newest(run, path, words, &own);
    } else if (status == KILN_OK && notice[0]) {
        snprintf(run->notice, sizeof run->notice, "%s", notice);
    }
    if (status != KILN_OK && err) {
        *err = own;
    }
    return status;
}

/* A process that died may have decided to go back to a checkpoint, and not come there. */
static enum kiln_status complete_rollback(struct kiln_run *run, struct kiln_err *err) {
    if (!kiln_rollback_is_due(run)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_state_begin(run->trainer.state, err));
    KILN_TRY(kiln_rollback_complete(run, err));
    snprintf(run->notice, sizeof run->notice,
             "the last process ended while it went back to the checkpoint of step %" PRIu64
             "; training goes on from there",
             kiln_state_cursor(run->trainer.state)->step);
    return KILN_OK;
}

/* Settings, table and tokenizer. */
static enum kiln_status reopen_model(struct kiln_run *run, const struct kiln_settings *changes,
                                     struct kiln_err *err) {
    char path[4200];
    struct kiln_dims dims;
    struct kiln_lora lora;
    KILN_TRY(read_settings(run, changes, &dims, err));
    if (dims.dim == 0) {
        kiln_run_file(run, "state.kiln", path, sizeof path);
        KILN_TRY(find_sizes(run, path, &dims, err));
    }
    KILN_TRY(kiln_settings_lora(&run->settings, &lora, err));
    KILN_TRY(kiln_table_create_lora(&dims, &lora, &run->table, err));
    snprintf(run->model_name, sizeof run->model_name, "%s", run->settings.model);
    bool own = kiln_tokenizer_in(run->folder, path, sizeof path);
    /* Tokens that were given as such may have had none. */
    return kiln_open_tokenizer(own ? path : NULL, run->settings.data, dims.vocab, &run->tokenizer,
                               err);
}

/* All but the state and what is made of it. */
enum kiln_status kiln_run_reopen_parts(struct kiln_run *run, const struct kiln_settings *changes,
                                       struct kiln_err *err) {
    KILN_TRY(reopen_model(run, changes, err));
    KILN_TRY(reopen_data(run, err));
    if (run->inherited >= 0) {
        run->notice[0] = '\0'; /* the process before said it */
    }
    return KILN_OK;
}

/* What was asked of a process that is gone; said behind what else there is to say. */
static void forget_control(struct kiln_run *run) {
    char said[KILN_CONTROL_TEXT];
    kiln_control_forget(run->folder, said);
    if (said[0]) {
        add_notice(run, said);
    }
}

static enum kiln_status resume(struct kiln_run *run, const struct kiln_settings *changes,
                               struct kiln_err *err) {
    char path[4200];
    KILN_TRY(kiln_run_reopen_parts(run, changes, err));
    kiln_run_file(run, "state.kiln", path, sizeof path);
    KILN_TRY(reopen_state(run, path, err));
    KILN_TRY(complete_rollback(run, err));
    KILN_TRY(kiln_run_trim_metrics(run, err));
    KILN_TRY(kiln_run_make_plan(run, err));
    if (changes && changes->origin[KILN_SETTING_minutes] == KILN_FROM_FLAG) {
        KILN_REQUIRE(changes->origin[KILN_SETTING_steps] != KILN_FROM_FLAG, err, KILN_EUSAGE,
                     "--steps and --minutes of a run that goes on: give one of the two");
        KILN_TRY(kiln_minutes_go_on(run, err));
    }
    KILN_TRY(kiln_run_open_trainer(run, err));
    const char *before = kiln_state_cursor(run->trainer.state)->numerics;
    if (strcmp(run->numerics, before) != 0) {
        char said[sizeof run->notice];
        snprintf(said, sizeof said, "this machine computes as %s, the run began as %s: losses %s",
                 run->numerics, before,
                 run->settings.local_steps > 1 ? "will be others, as each rank trains by itself"
                                               : "may differ in the last digits");
        add_notice(run, said);
    }
    run->resumed = true;
    if (!run->trainer.handed_over) {
        forget_control(run);
        KILN_TRY(kiln_run_write_settings(run, run->folder, err));
    }
    KILN_TRY(kiln_run_open_metrics(run, err));
    return kiln_run_describe(run, err);
}

/* Make a run of this folder; what is opened is for the caller. */
static enum kiln_status begin_old(const char *folder, int inherited, struct kiln_run **out,
                                  struct kiln_err *err) {
    KILN_TRY(kiln_run_begin(NULL, out, err));
    (*out)->inherited = inherited;
    KILN_TRY(kiln_run_check_name(folder, err));
    snprintf((*out)->folder, sizeof(*out)->folder, "%s", folder);
    return KILN_OK;
}

static enum kiln_status open_old(const char *folder, const struct kiln_settings *changes,
                                 int inherited, struct kiln_run **out, struct kiln_err *err) {
    struct kiln_ranks *ranks = changes ? changes->ranks : NULL;
    if (kiln_ranks_mine(ranks) > 0) {
        return kiln_together_follow(changes, out, err);
    }
    enum kiln_status status = begin_old(folder, inherited, out, err);
    if (status == KILN_OK) {
        status = resume(*out, changes, err);
    }
    return kiln_run_end_open(kiln_together_lead(ranks, *out, status, err), out);
}

enum kiln_status kiln_run_resume(const char *folder, const struct kiln_settings *changes,
                                 struct kiln_run **out, struct kiln_err *err) {
    return open_old(folder, changes, -1, out, err);
}

enum kiln_status kiln_run_read(const char *folder, struct kiln_run **out, struct kiln_err *err) {
    enum kiln_status status = begin_old(folder, -1, out, err);
    if (status == KILN_OK) {
        status = reopen_model(*out, NULL, err);
    }
    return kiln_run_end_open(status, out);
}

enum kiln_status kiln_run_read_data(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_settings *s = &run->settings;
    KILN_TRY(own_tokens(run, KILN_SETTING_data, s->data, "data", err));
    KILN_TRY(s->val ? own_tokens(run, KILN_SETTING_val, s->val, "val", err) : KILN_OK);
    KILN_REQUIRE(
        kiln_data_is_tokens(s->data) && (!s->val || kiln_data_is_tokens(s->val)), err, KILN_EINPUT,
        "%s: the tokens that it trains on are gone: no data.tok in it, and %.300s holds none",
        run->folder, s->data);
    return kiln_run_open_data(run, run->folder, err);
}

enum kiln_status kiln_run_take_over(int descriptor, const char *folder, struct kiln_run **out,
                                    struct kiln_err *err) {
    return open_old(folder, NULL, descriptor, out, err);
}

/* ---- beside an owner that still trains ---------------------------------------------------------
 */

static enum kiln_status succeed(struct kiln_run *run, const char *place, struct kiln_err *err) {
    char path[4200];
    run->successor = run->trainer.handed_over = true;
    KILN_TRY(kiln_run_reopen_parts(run, NULL, err));
    kiln_run_file(run, "state.kiln", path, sizeof path);
    const int fd = run->inherited;
    run->inherited = -1;
    KILN_TRY(kiln_state_open_reader(fd, path, run->table, &run->trainer.state, err));
    run->epoch = kiln_state_cursor(run->trainer.state)->owner_epoch;
    KILN_TRY(kiln_run_make_plan(run, err));
    KILN_TRY(kiln_run_open_trainer(run, err));
    KILN_TRY(kiln_run_describe(run, err));
    return kiln_trainer_ahead(&run->trainer, place, err);
}

enum kiln_status kiln_run_succeed(int descriptor, const char *folder, const char *place,
                                  struct kiln_run **out, struct kiln_err *err) {
    enum kiln_status status = begin_old(folder, descriptor, out, err);
    if (status == KILN_OK) {
        status = succeed(*out, place, err);
    }
    return kiln_run_end_open(status, out);
}

/* The device was opened while the owner trained on: has an update come since, or was one under way?
 * A delayed run's device reads snapshots, and its sets know of which generation. */
static void catch_up(struct kiln_run *run, uint64_t opened_at) {
    const struct kiln_engine *e = &run->trainer.engine;
    if (e->plan.schedule.overlap != KILN_OVERLAP_DELAYED &&
        kiln_state_cursor(run->trainer.state)->step != opened_at) {
        kiln_optimizer_refresh(e->optimizer);
    }
}

/* The owner may have been asked for another learning rate since our settings were read. */
static enum kiln_status read_peaks_again(struct kiln_run *run, struct kiln_err *err) {
    char path[4200];
    struct kiln_settings now;
    struct kiln_dims dims;
    struct kiln_profile profile;
    struct kiln_forecast forecast;
    kiln_run_file(run, "run.json", path, sizeof path);
    KILN_TRY(kiln_settings_init(&now, err));
    const enum kiln_status status = kiln_run_json_read(path, &now, &dims, &profile, &forecast, err);
    if (status == KILN_OK) {
        memcpy(run->settings.peak, now.peak, sizeof now.peak);
        run->settings.n_peaks = now.n_peaks;
    }
    kiln_settings_free(&now);
    return status;
}

enum kiln_status kiln_run_go(struct kiln_run *run, struct kiln_err *err) {
    char notice[160];
    const uint64_t opened_at = kiln_state_cursor(run->trainer.state)->step;
    KILN_TRY(kiln_state_own(run->trainer.state, run->epoch + 1, notice, err));
    if (notice[0]) {
        snprintf(run->notice, sizeof run->notice, "%s", notice);
    }
    KILN_TRY(read_peaks_again(run, err));
    run->successor = false;
    run->resumed = true;
    catch_up(run, opened_at);
    KILN_TRY(kiln_run_trim_metrics(run, err));
    KILN_TRY(kiln_run_open_saver(run, err));
    KILN_TRY(kiln_run_open_metrics(run, err));
    return kiln_run_describe(run, err);
}
