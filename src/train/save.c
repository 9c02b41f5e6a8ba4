/* SPDX-License-Identifier: MIT
 *
 * save.c: see save.h. A thread lives as long as one save: saves are rare, and a thread that does
 * not exist needs no care at a restart.
 */
#include "train/save.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/machine.h"
#include "base/mem.h"
#include "state/checkpoint.h"

struct kiln_saver {
    const struct kiln_table *table;
    struct kiln_state *state;
    const struct kiln_settings *settings;
    struct kiln_spans *spans;
    char *json; /* the settings, as run.json */
    char folder[4096], checkpoints[4128], path[4200], model[4224];
    struct kiln_cursor cursor; /* of the save under way */
    bool busy, joinable;
    pthread_t thread;
    enum kiln_status status; /* the thread's, to be read when it has ended */
    struct kiln_err err;
};

enum kiln_status kiln_saver_create(const char *folder, const struct kiln_table *table,
                                   struct kiln_state *state, const struct kiln_settings *settings,
                                   struct kiln_saver **out, struct kiln_err *err) {
    struct kiln_saver *s = *out = kiln_alloc(1, sizeof *s);
    KILN_REQUIRE(s, err, KILN_ENOMEM, "no memory to save checkpoints");
    s->table = table;
    s->state = state;
    s->settings = settings;
    s->json = kiln_settings_to_json(settings);
    snprintf(s->folder, sizeof s->folder, "%s", folder);
    snprintf(s->checkpoints, sizeof s->checkpoints, "%s/checkpoints", folder);
    enum kiln_status status = s->json
                                  ? kiln_checkpoint_clean(s->checkpoints, err)
                                  : KILN_FAIL(err, KILN_ENOMEM, "no memory to save checkpoints");
    if (status != KILN_OK) {
        kiln_saver_destroy(s);
        *out = NULL;
    }
    return status;
}

void kiln_saver_tell(struct kiln_saver *s, struct kiln_spans *spans) { s->spans = spans; }

/* What the cursor counts of metrics.jsonl and trace.json is on the disk before the cursor is. */
static enum kiln_status sync_metrics(const struct kiln_saver *s, struct kiln_err *err) {
    static const char *const names[] = {"metrics.jsonl", "trace.json"};
    for (size_t i = 0; i < 2; i++) {
        char path[4200];
        snprintf(path, sizeof path, "%s/%s", s->folder, names[i]);
        if (kiln_path_exists(path)) {
            KILN_TRY(kiln_sync_file(path, err));
        }
    }
    return KILN_OK;
}

static enum kiln_status save(struct kiln_saver *s, struct kiln_err *err) {
    const float *array[3];
    for (int i = 0; i < 3; i++) {
        array[i] = kiln_state_region(s->state, KILN_WEIGHTS + i);
    }
    KILN_TRY(sync_metrics(s, err));
    const void *const snapshots[KILN_SNAPSHOTS] = {kiln_state_snapshot(s->state, 0),
                                                   kiln_state_snapshot(s->state, 1)};
    KILN_TRY(kiln_checkpoint_write(s->path, s->table, array[0], array[1], array[2],
                                   snapshots[0] ? snapshots : NULL, kiln_state_snapshots(s->state),
                                   kiln_state_region(s->state, KILN_OUTER_MOMENTUM), &s->cursor,
                                   s->json, err));
    return kiln_checkpoint_prune(s->checkpoints, s->cursor.step, s->settings->keep_checkpoints,
                                 err);
}

static void run(struct kiln_saver *s) {
    const double start = kiln_now_s();
    s->status = save(s, &s->err);
    const struct kiln_span span = {.start = start,
                                   .end = kiln_now_s(),
                                   .kind = KILN_SPAN_CHECKPOINT,
                                   .thread = 1, /* beside the owner's surfaces */
                                   .layer = -1,
                                   .micro_batch = -1,
                                   .generation = (int64_t)s->cursor.step};
    kiln_spans_add(s->spans, &span);
}

static void *run_beside(void *context) {
    kiln_thread_name("kiln save");
    run(context);
    return NULL;
}

/* Signals go to the threads that know what to do about them. */
static bool start(struct kiln_saver *s) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const bool started = pthread_create(&s->thread, NULL, run_beside, s) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

void kiln_saver_begin(struct kiln_saver *s) {
    s->cursor = *kiln_state_cursor(s->state);
    snprintf(s->path, sizeof s->path, "%s/step-%" PRIu64, s->checkpoints, s->cursor.step);
    snprintf(s->model, sizeof s->model, "%s/model.bin", s->path);
    s->busy = true;
    kiln_state_sweep(s->state, true);
    s->joinable = start(s);
    if (!s->joinable) {
        run(s); /* no thread to be had: the window waits instead */
    }
}

enum kiln_status kiln_saver_wait(struct kiln_saver *s, uint64_t *step, const char **path,
                                 struct kiln_err *err) {
    *step = 0;
    *path = NULL;
    if (!s->busy) {
        return KILN_OK;
    }
    if (s->joinable) {
        pthread_join(s->thread, NULL);
    }
    s->busy = s->joinable = false;
    kiln_state_sweep(s->state, false);
    if (s->status != KILN_OK) {
        if (err) {
            *err = s->err;
        }
        return s->status;
    }
    *step = s->cursor.step;
    *path = s->model;
    return KILN_OK;
}

void kiln_saver_destroy(struct kiln_saver *s) {
    if (!s) {
        return;
    }
    if (s->joinable) {
        pthread_join(s->thread, NULL);
    }
    kiln_settings_json_free(s->json);
    kiln_free(s);
}
