/* SPDX-License-Identifier: MIT */
#include "train/again.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/leftovers.h"
#include "base/mem.h"
#include "train/data_source.h"
#include "train/metrics_read.h"
#include "train/optimizer.h"
#include "train/rollback.h"
#include "train/run_int.h"
#include "train/run_json.h"

enum { PATH_ROOM = 4400 };

/* ---- the temporary folder ---------------------------------------------------------------------
 */

/* In the run's folder, where there was room for a state before, or in TMPDIR. */
static enum kiln_status make_folder(struct kiln_again *a, struct kiln_err *err) {
    char stem[PATH_ROOM - 32];
    snprintf(stem, sizeof stem, "%s/%s.tmp-", a->run, a->who);
    kiln_leftovers_remove(stem);
    snprintf(a->folder, sizeof a->folder, "%s%ld", stem, (long)getpid());
    if (mkdir(a->folder, 0700) == 0) {
        return KILN_OK;
    }
    const char *other = getenv("TMPDIR");
    snprintf(stem, sizeof stem, "%s/kiln-%s.tmp-", other && *other ? other : "/tmp", a->who);
    kiln_leftovers_remove(stem);
    snprintf(a->folder, sizeof a->folder, "%s%ld", stem, (long)getpid());
    if (mkdir(a->folder, 0700) != 0) {
        const int why = errno;
        a->folder[0] = '\0';
        return KILN_FAIL(err, KILN_EIO, "%s: cannot make a folder in %s, nor %s%ld: %s", a->who,
                         a->run, stem, (long)getpid(), strerror(why));
    }
    return KILN_OK;
}

/* Link to a file of the run, when it has it. */
static enum kiln_status link_file(const struct kiln_again *a, const char *name,
                                  struct kiln_err *err) {
    char from[PATH_ROOM], to[PATH_ROOM + 32];
    snprintf(from, sizeof from, "%s/%s", a->run, name);
    snprintf(to, sizeof to, "%s/%s", a->folder, name);
    char *whole = realpath(from, NULL);
    if (!whole && errno == ENOENT) {
        return KILN_OK;
    }
    const bool linked = whole && symlink(whole, to) == 0;
    const int why = errno;
    free(whole);
    KILN_REQUIRE(linked, err, KILN_EIO, "%s: cannot link %s to %s: %s", a->who, to, from,
                 strerror(why));
    return KILN_OK;
}

/* At most `size` bytes of FROM/name. */
static enum kiln_status copy_file(const struct kiln_again *a, const char *from, const char *name,
                                  uint64_t most, struct kiln_err *err) {
    char path[PATH_ROOM + 32], *text;
    size_t size;
    snprintf(path, sizeof path, "%s/%s", from, name);
    KILN_TRY(kiln_read_file(path, &text, &size, err));
    snprintf(path, sizeof path, "%s/%s", a->folder, name);
    const enum kiln_status status = kiln_write_file(path, text, size < most ? size : most, err);
    kiln_free(text);
    return status;
}

static void set_sample(const struct kiln_again *a, struct kiln_state *state) {
    struct kiln_cursor cursor = *kiln_state_cursor(state);
    cursor.sample = a->sample;
    memcpy(cursor.numerics, a->start.cursor.numerics, sizeof cursor.numerics);
    kiln_state_commit(state, &cursor);
}

static enum kiln_status make_first_state(const struct kiln_again *a, const char *path,
                                         struct kiln_err *err) {
    struct kiln_run *run;
    KILN_TRY(kiln_run_read(a->run, &run, err));
    const enum kiln_status status = kiln_run_first_state(run, path, err);
    if (status == KILN_OK) {
        set_sample(a, run->trainer.state);
    }
    kiln_run_close(run);
    return status;
}

static enum kiln_status restore_state(const struct kiln_again *a, struct kiln_err *err) {
    char path[PATH_ROOM + 32];
    struct kiln_table *table;
    struct kiln_state *state;
    snprintf(path, sizeof path, "%s/state.kiln", a->folder);
    if (!a->from) {
        return make_first_state(a, path, err);
    }
    KILN_TRY(kiln_table_create_lora(&a->start.dims, &a->start.lora, &table, err));
    enum kiln_status status = kiln_state_create(
        path, table, a->start.snapshots, a->start.bytes[KILN_CHECKPOINT_OUTER] > 0, &state, err);
    if (status == KILN_OK) {
        status = kiln_checkpoint_restore(a->from, state, err);
        set_sample(a, state);
        kiln_state_close(state);
    }
    kiln_table_destroy(table);
    return status;
}

/* NAME.tok and what may stand beside it. Files between them may be missing: those were tokens. */
static enum kiln_status link_tokens(struct kiln_again *a, const char *name, struct kiln_err *err) {
    char file[64];
    snprintf(file, sizeof file, "%s.tok", name);
    KILN_TRY(link_file(a, file, err));
    for (int i = 2; i <= KILN_DATA_FILES; i++) {
        snprintf(file, sizeof file, "%s-%d.tok", name, i);
        KILN_TRY(link_file(a, file, err));
    }
    return KILN_OK;
}

static enum kiln_status fill_folder(struct kiln_again *a, struct kiln_err *err) {
    static const char *const links[] = {"tokenizer.bin", "tokenizer.json", "tokenizer_config.json",
                                        "chat_template.jinja"};
    char path[PATH_ROOM];
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        KILN_TRY(link_file(a, links[i], err));
    }
    KILN_TRY(link_tokens(a, "data", err));
    KILN_TRY(link_tokens(a, "val", err));
    const bool own = a->start.bytes[KILN_CHECKPOINT_SETTINGS] > 0;
    KILN_TRY(copy_file(a, own ? a->from : a->run, "run.json", UINT64_MAX, err));
    snprintf(path, sizeof path, "%s/metrics.jsonl", a->run);
    if (kiln_path_exists(path)) {
        KILN_TRY(copy_file(a, a->run, "metrics.jsonl", a->start.cursor.metrics_bytes, err));
    }
    return KILN_OK;
}

/* ---- settings that changed ------------------------------------------------------------------ */

/* Settings whose change leaves the bits alone, or that name files. */
static bool matters(enum kiln_setting_id id) {
    switch (id) {
        case KILN_SETTING_threads:
        case KILN_SETTING_shard_optimizer:
        case KILN_SETTING_sample_every:
        case KILN_SETTING_save_every:
        case KILN_SETTING_keep_checkpoints:
        case KILN_SETTING_prompt:
        case KILN_SETTING_data:
        case KILN_SETTING_val:
        case KILN_SETTING_skip_bad:
        case KILN_SETTING_chat_template:
        case KILN_SETTING_tokenizer:
        case KILN_SETTING_out:
        case KILN_SETTING_state:
        case KILN_SETTING_sim_time:
        case KILN_SETTING_log_every:
        case KILN_SETTING_curve:
        case KILN_SETTING_tensorboard:
            return false;
        default: /* the plan decides no bits */
            return id < KILN_SETTING_budget || id > KILN_SETTING_restart;
    }
}

/* What a run.json holds. */
struct description {
    struct kiln_settings settings;
    struct kiln_dims dims;
    struct kiln_profile profile;
    struct kiln_forecast forecast;
};

static enum kiln_status describe(const char *folder, struct description *out,
                                 struct kiln_err *err) {
    char path[PATH_ROOM + 32];
    snprintf(path, sizeof path, "%s/run.json", folder);
    return kiln_run_json_read(path, &out->settings, &out->dims, &out->profile, &out->forecast, err);
}

static void note_change(struct kiln_again *a, const struct kiln_settings *then,
                        const struct kiln_settings *now) {
    for (int id = 0; id < KILN_SETTING_COUNT; id++) {
        char before[512], after[512];
        kiln_settings_text(then, id, before, sizeof before);
        kiln_settings_text(now, id, after, sizeof after);
        if (matters(id) && strcmp(before, after) != 0) {
            snprintf(a->note, sizeof a->note,
                     "--%s was %.60s at that checkpoint and is %.60s now: what was trained after "
                     "the change differs rightly",
                     kiln_setting(id)->flag, before, after);
            return;
        }
    }
}

/* What the run decided after the checkpoint is part of what it did: turns, for the sake of its
 * --minutes, learning rates that it was asked for, and jumps over what was read when it was rolled
 * back. Nothing can be compared behind a step at which it stopped but how it went on. */
static enum kiln_status take_decisions(struct kiln_again *a, struct kiln_settings *then,
                                       const struct description *now, struct kiln_err *err) {
    char path[PATH_ROOM + 32];
    const struct kiln_settings *s = &now->settings;
    const size_t known = then->n_turns;
    if (s->n_turns > known && s->turn[known].before == then->steps) {
        memcpy(then->turn, s->turn, sizeof then->turn);
        then->n_turns = s->n_turns;
        then->steps = s->steps;
    }
    memcpy(then->peak, s->peak, sizeof then->peak);
    then->n_peaks = s->n_peaks;
    memcpy(then->jump, s->jump, sizeof then->jump);
    then->n_jumps = s->n_jumps;
    if (strcmp(then->on_spike, "stop") == 0) {
        then->spike_z = s->spike_z;
        KILN_TRY(kiln_settings_set(then, KILN_SETTING_on_spike, s->on_spike, KILN_FROM_RUN, err));
    }
    a->sample =
        s->n_jumps > 0 ? kiln_rollback_sample(then, a->start.cursor.step) : a->start.cursor.sample;
    snprintf(path, sizeof path, "%s/run.json", a->folder);
    return kiln_run_json_write(path, then, &a->start.dims, &now->profile, &now->forecast, NULL,
                               err);
}

/* Are the settings of a checkpoint those of this length? */
static bool has_steps(const struct kiln_again *a, uint64_t step, uint64_t steps) {
    struct kiln_err ignored;
    struct description at;
    char folder[PATH_ROOM];
    snprintf(folder, sizeof folder, "%s/checkpoints/step-%" PRIu64, a->run, step);
    if (kiln_settings_init(&at.settings, &ignored) != KILN_OK) {
        return false;
    }
    const bool same = describe(folder, &at, &ignored) == KILN_OK && at.settings.steps == steps;
    kiln_settings_free(&at.settings);
    return same;
}

/* The last checkpoint that was written before --steps changed; where the replay begins at least. */
static uint64_t last_with_steps(const struct kiln_again *a, uint64_t steps) {
    struct kiln_err ignored;
    char path[PATH_ROOM];
    uint64_t *list, last = a->start.cursor.step;
    size_t n;
    snprintf(path, sizeof path, "%s/checkpoints", a->run);
    if (kiln_checkpoint_list(path, &list, &n, &ignored) != KILN_OK) {
        return last;
    }
    for (size_t i = 0; i < n; i++) {
        last = list[i] > last && has_steps(a, list[i], steps) ? list[i] : last;
    }
    kiln_free(list);
    return last;
}

/* The rates that metrics.jsonl says the steps from `first` on had: the first step of a rate that
 * the length of now gives, and that of then does not; `end` where there is none. */
static uint64_t first_other_rate(const struct kiln_again *a, const struct kiln_settings *then,
                                 const struct kiln_settings *now, uint64_t first, uint64_t end) {
    char path[PATH_ROOM + 32], *text, *line = NULL;
    size_t size;
    struct kiln_err ignored;
    uint64_t other = end;
    snprintf(path, sizeof path, "%s/metrics.jsonl", a->run);
    if (kiln_read_file(path, &text, &size, &ignored) != KILN_OK) {
        return end;
    }
    for (char *at = text; (line = strchr(at, '\n')) != NULL; at = line + 1) {
        struct kiln_step_record record;
        if (!kiln_metrics_read(at, (size_t)(line - at), &record) || record.step <= first ||
            record.step > other) {
            continue;
        }
        const uint64_t before = record.step - 1;
        if (fabs(record.lr - kiln_learning_rate(then, before)) > 1e-12 * record.lr &&
            fabs(record.lr - kiln_learning_rate(now, before)) <= 1e-12 * record.lr) {
            other = before;
        }
    }
    kiln_free(text);
    return other;
}

/* After how many steps the run was trained with another --steps than the checkpoint's: at the
 * latest when that many were done. A turn for the sake of --minutes is no such change. */
static uint64_t find_other(const struct kiln_again *a, const struct kiln_settings *then,
                           const struct kiln_settings *now) {
    const bool turned =
        now->n_turns > then->n_turns && now->turn[then->n_turns].before == then->steps;
    if (then->steps == now->steps || turned) {
        return UINT64_MAX;
    }
    return first_other_rate(a, then, now, last_with_steps(a, then->steps), then->steps);
}

/* A run that was resumed with other --steps has other learning rates from there on. */
static enum kiln_status note_changes(struct kiln_again *a, struct kiln_err *err) {
    struct description then, now;
    KILN_TRY(kiln_settings_init(&then.settings, err));
    enum kiln_status status = kiln_settings_init(&now.settings, err);
    if (status == KILN_OK) {
        status = describe(a->folder, &then, err);
        status = status == KILN_OK ? describe(a->run, &now, err) : status;
        if (status == KILN_OK) {
            a->other = find_other(a, &then.settings, &now.settings);
        }
        status = status == KILN_OK ? take_decisions(a, &then.settings, &now, err) : status;
        if (status == KILN_OK) {
            note_change(a, &then.settings, &now.settings);
        }
        kiln_settings_free(&now.settings);
    }
    kiln_settings_free(&then.settings);
    return status;
}

enum kiln_status kiln_again_make(struct kiln_again *a, struct kiln_err *err) {
    KILN_TRY(make_folder(a, err));
    KILN_TRY(fill_folder(a, err));
    KILN_TRY(note_changes(a, err));
    return restore_state(a, err);
}

enum kiln_status kiln_again_remove(struct kiln_again *a, struct kiln_err *err) {
    const bool made = a->folder[0] != '\0';
    return made ? kiln_remove_tree(a->folder, err) : KILN_OK;
}

enum kiln_status kiln_again_lock(const char *who, const char *run, int *lock,
                                 struct kiln_err *err) {
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/state.kiln", run);
    *lock = open(path, O_RDONLY | O_CLOEXEC);
    if (*lock >= 0 && flock(*lock, LOCK_SH | LOCK_NB) != 0) {
        close(*lock);
        return KILN_FAIL(err, KILN_EBUSY,
                         "%s %s: another process is training this run; wait or stop it", who, run);
    }
    return KILN_OK;
}

/* ---- training ------------------------------------------------------------------------------- */

/* What changes no bit: nothing is written that nobody reads, and budgets. */
static enum kiln_status set_changes(const struct kiln_again *a, struct kiln_settings *changes,
                                    struct kiln_err *err) {
    char threads[24];
    snprintf(threads, sizeof threads, "%zu", a->threads);
    const enum kiln_origin flag = KILN_FROM_FLAG;
    const bool simulated = strncmp(a->start.cursor.numerics, "sim/", 4) == 0;
    KILN_TRY(kiln_settings_set(changes, KILN_SETTING_save_every, "0", flag, err));
    KILN_TRY(kiln_settings_set(changes, KILN_SETTING_sample_every, "0", flag, err));
    KILN_TRY(kiln_settings_set(changes, KILN_SETTING_pipeline, "1", flag, err));
    if (a->threads > 0) {
        KILN_TRY(kiln_settings_set(changes, KILN_SETTING_threads, threads, flag, err));
    }
    if (simulated) { /* a simulator counts what this one process compiles */
        KILN_TRY(kiln_settings_set(changes, KILN_SETTING_budget, "100000", flag, err));
        KILN_TRY(kiln_settings_set(changes, KILN_SETTING_load_budget, "100000", flag, err));
    }
    return KILN_OK;
}

enum kiln_status kiln_again_train(struct kiln_again *a,
                                  enum kiln_status (*begin)(void *context, struct kiln_run *run,
                                                            struct kiln_err *err),
                                  const struct kiln_observer *observer,
                                  const volatile sig_atomic_t *stop, struct kiln_err *err) {
    struct kiln_settings changes;
    struct kiln_run *run = NULL;
    KILN_TRY(kiln_settings_init(&changes, err));
    enum kiln_status status = set_changes(a, &changes, err);
    if (status == KILN_OK) {
        status = kiln_run_resume(a->folder, &changes, &run, err);
    }
    kiln_settings_free(&changes);
    KILN_TRY(status);
    for (;;) {
        status = begin(observer->context, run, err);
        if (status == KILN_OK && !*stop) {
            status = kiln_run_train(run, observer, stop, err);
        }
        kiln_run_close(run);
        if (status != KILN_ERESTART) {
            return status == KILN_EINTERRUPTED && *stop ? KILN_OK : status;
        }
        KILN_TRY(kiln_run_resume(a->folder, NULL, &run, err)); /* the device is opened anew */
    }
}
