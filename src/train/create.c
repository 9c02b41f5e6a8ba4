/* SPDX-License-Identifier: MIT
 *
 * create.c: a new run: its folder is made whole under a temporary name.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/leftovers.h"
#include "train/complete.h"
#include "train/data_source.h"
#include "train/generation.h"
#include "train/minutes.h"
#include "train/together.h"

/* runs/MODEL-DATA from the names of the two, with a number where that is taken; own: the model has
 * no name, runs/DATA. */
static void choose_folder(const struct kiln_settings *s, const char *data, bool own, char *out,
                          size_t size) {
    const char *names[2] = {s->model, data};
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
    snprintf(out, size, own ? "runs/%.0s%s" : "runs/%s-%s", stem[0], stem[1]);
    size_t base = strlen(out);
    for (int i = 2; kiln_path_exists(out); i++) {
        snprintf(out + base, size - base, "-%d", i);
    }
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
    kiln_table_destroy(engine->stage);
    return kiln_run_make_plan(run, err);
}

/* On as many threads as train: they touch the pages of the weights first. */
static enum kiln_status make_weights(struct kiln_run *run, const struct kiln_model_source *source,
                                     struct kiln_err *err) {
    float *weights = kiln_state_region(run->trainer.state, KILN_WEIGHTS);
    struct kiln_pool *pool;
    KILN_TRY(kiln_pool_create((size_t)run->settings.threads, &pool, err));
    enum kiln_status status =
        kiln_model_source_load(source, run->table, run->settings.seed, weights, pool, err);
    if (status == KILN_OK) {
        kiln_lora_init(run->table, run->settings.seed, weights);
    }
    if (status == KILN_OK && run->settings.adapter) {
        status = kiln_lora_load(run->settings.adapter, run->table, weights, err);
    }
    if (status == KILN_OK) {
        status = kiln_generation_take(run->trainer.state, run->table, pool, 0, err);
    }
    kiln_pool_destroy(pool);
    return status;
}

enum kiln_status kiln_run_first_state(struct kiln_run *run, const char *path,
                                      struct kiln_err *err) {
    struct kiln_model_source source;
    struct kiln_plan_request request;
    KILN_TRY(kiln_model_source(run->settings.model, &source, err));
    KILN_TRY(kiln_plan_request_of(&run->settings, &run->table->dims, &request, err));
    KILN_TRY(kiln_state_create(path, run->table, kiln_plan_snapshots(&request),
                               run->settings.local_steps > 1, &run->trainer.state, err));
    return make_weights(run, &source, err);
}

/* Fill the temporary folder: tokens, tokenizer, state with its first weights, run.json. */
static enum kiln_status prepare(struct kiln_run *run, const struct kiln_model_source *source,
                                const char *folder, struct kiln_err *err) {
    char path[4300];
    KILN_TRY(measure_disk(run, folder, err));
    KILN_TRY(kiln_run_open_data(run, folder, err));
    if (run->tokenizer && strcmp(kiln_tokenizer_name(run->tokenizer), "bytes") != 0) {
        snprintf(path, sizeof path, "%s/%s", folder, kiln_tokenizer_file_name(run->tokenizer));
        KILN_TRY(kiln_tokenizer_save(run->tokenizer, path, err));
    }
    snprintf(path, sizeof path, "%s/state.kiln", folder);
    if (run->settings.state) {
        KILN_TRY(place_state(run, path, err));
    }
    KILN_TRY(kiln_state_create(run->settings.state ? run->state_path : path, run->table,
                               kiln_plan_snapshots(&run->trainer.engine.request),
                               run->settings.local_steps > 1, &run->trainer.state, err));
    KILN_TRY(make_weights(run, source, err));
    KILN_TRY(kiln_state_sync(run->trainer.state, err));
    KILN_TRY(kiln_minutes_fix(run, err));
    return kiln_run_write_settings(run, folder, err);
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
        status = kiln_run_open_trainer(run, err);
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
        kiln_run_file(run, "state.kiln", path, sizeof path);
        status = kiln_state_moved(run->trainer.state, path, err);
    }
    if (status != KILN_OK) {
        struct kiln_err ignored;
        kiln_err_rename(err, temporary, run->folder);
        if (run->trainer.state && run->state_path[0]) {
            unlink(run->state_path);
        }
        if (kiln_remove_tree(temporary, &ignored) == KILN_OK && made_parent) {
            rmdir(parent); /* only when empty: nothing is left behind */
        }
    }
    return status;
}

/* Lists as they can be read again without the files. */
static enum kiln_status keep_list(struct kiln_settings *s, enum kiln_setting_id id,
                                  const char *text, struct kiln_err *err) {
    struct kiln_data_list list;
    KILN_TRY(kiln_data_list_parse(text, &list, err));
    char *plain = kiln_data_list_text(&list);
    kiln_data_list_free(&list);
    KILN_REQUIRE(plain, err, KILN_ENOMEM, "data: out of memory");
    const enum kiln_status status = kiln_settings_set(s, id, plain, s->origin[id], err);
    kiln_free(plain);
    return status;
}

/* `learned` is taken over. */
static enum kiln_status create(struct kiln_run *run, struct kiln_tokenizer *learned,
                               struct kiln_err *err) {
    struct kiln_settings *s = &run->settings;
    struct kiln_completed completed;
    struct kiln_device_choice device;
    enum kiln_precision precision;
    const bool own = run->minutes && !s->model;
    run->tokenizer = learned;
    KILN_REQUIRE(s->data, err, KILN_EUSAGE, "train needs --data FILE, a text or token file");
    struct kiln_lora lora;
    KILN_TRY(s->val ? kiln_check_unweighted("--val", s->val, err) : KILN_OK);
    KILN_TRY(kiln_settings_device(s, &device, &precision, err));
    KILN_TRY(kiln_settings_lora(s, &lora, err));
    KILN_TRY(keep_list(s, KILN_SETTING_data, s->data, err));
    KILN_TRY(s->val ? keep_list(s, KILN_SETTING_val, s->val, err) : KILN_OK);
    const enum kiln_status status = kiln_settings_complete(s, learned, &completed, err);
    run->tokenizer = completed.tokenizer;
    KILN_TRY(status);
    if (completed.found) {
        snprintf(run->notice, sizeof run->notice,
                 "%s: its tokenizer lies beside it, and is taken: %s", s->data, s->tokenizer);
    }
    kiln_model_source_name(&completed.source, s->seed, run->model_name, sizeof run->model_name);
    if (own) {
        snprintf(run->model_name, sizeof run->model_name,
                 "sizes chosen (random weights, seed %" PRIu64 ")", s->seed);
    }
    KILN_TRY(kiln_table_create_lora(&completed.dims, &completed.lora, &run->table, err));
    KILN_TRY(kiln_run_make_plan(run, err));
    if (s->out) {
        KILN_TRY(kiln_run_check_name(s->out, err));
        KILN_REQUIRE(!kiln_path_exists(s->out), err, KILN_EEXISTS,
                     "run folder %s exists: continue it with --resume %s, or choose another --out",
                     s->out, s->out);
        snprintf(run->folder, sizeof run->folder, "%s", s->out);
        for (size_t n = strlen(run->folder); n > 1 && run->folder[n - 1] == '/'; n--) {
            run->folder[n - 1] = '\0'; /* or the temporary folder would lie inside */
        }
    } else {
        struct kiln_data_list list;
        KILN_TRY(kiln_data_list_split(s->data, &list, err));
        choose_folder(s, list.path[0], own, run->folder, sizeof run->folder);
        kiln_data_list_free(&list);
        KILN_TRY(kiln_settings_set(s, KILN_SETTING_out, run->folder, KILN_FROM_DEFAULT, err));
    }
    KILN_TRY(make_folder(run, &completed.source, err));
    if (!run->notice[0] && s->warmup >= s->steps) {
        snprintf(run->notice, sizeof run->notice,
                 "--warmup %" PRIu64 " takes all %" PRIu64
                 " steps: the learning rate only rises and is never lowered",
                 s->warmup, s->steps);
    }
    KILN_TRY(kiln_run_open_metrics(run, err));
    return kiln_run_describe(run, err);
}

enum kiln_status kiln_run_create(const struct kiln_settings *settings, struct kiln_run **out,
                                 struct kiln_err *err) {
    struct kiln_minutes *minutes;
    *out = NULL;
    if (kiln_ranks_mine(settings->ranks) > 0) {
        return kiln_together_follow(settings, out, err);
    }
    if (!isnan(settings->minutes)) {
        enum kiln_status status = kiln_settings_ranks(settings, err);
        status = status == KILN_OK ? kiln_minutes_choose(settings, 0, &minutes, err) : status;
        if (status != KILN_OK) {
            return kiln_together_lead(settings->ranks, NULL, status, err);
        }
        status = kiln_run_create_minutes(minutes, out, err);
        kiln_minutes_free(minutes);
        return status;
    }
    enum kiln_status status = kiln_run_begin(settings, out, err);
    if (status == KILN_OK) {
        status = create(*out, NULL, err);
    }
    return kiln_run_end_open(kiln_together_lead(settings->ranks, *out, status, err), out);
}

enum kiln_status kiln_run_create_minutes(struct kiln_minutes *minutes, struct kiln_run **out,
                                         struct kiln_err *err) {
    enum kiln_status status = kiln_run_begin(&minutes->settings, out, err);
    if (status == KILN_OK) {
        struct kiln_run *run = *out;
        struct kiln_tokenizer *learned = minutes->tokenizer;
        minutes->tokenizer = NULL;
        run->minutes = minutes;
        run->forecast = minutes->choice.is.forecast;
        run->profile = minutes->request.plan.profile;
        status = create(run, learned, err);
        run->minutes = NULL;
    }
    return kiln_run_end_open(kiln_together_lead(minutes->settings.ranks, *out, status, err), out);
}
