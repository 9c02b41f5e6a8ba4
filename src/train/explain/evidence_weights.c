/* SPDX-License-Identifier: MIT
 *
 * evidence_weights.c: the weights of a step of which no incident has kept them: those of the state,
 * where it stands there, or of a checkpoint, or of before the first step, from which the run is
 * trained again up to there.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/mem.h"
#include "train/again.h"
#include "train/explain/evidence.h"
#include "train/model_source.h"

enum { PATH_ROOM = 4400 };

/* Copy the weights of a state file. */
static enum kiln_status read_state(const char *path, struct kiln_evidence *e,
                                   struct kiln_err *err) {
    struct kiln_map map;
    const size_t bytes = e->run->table->size * sizeof(float);
    KILN_TRY(kiln_map_open(&map, path, err));
    enum kiln_status status = KILN_OK;
    e->copy = kiln_alloc(e->run->table->size, sizeof *e->copy);
    if (!e->copy) {
        status = KILN_FAIL(err, KILN_ENOMEM, "explain: no memory for the weights");
    } else if (map.size < KILN_STATE_WEIGHTS_AT + bytes) {
        status = KILN_FAIL(err, KILN_EDAMAGED,
                           "state %s: %zu bytes, its model needs %zu: the file is truncated", path,
                           map.size, KILN_STATE_WEIGHTS_AT + bytes);
    } else {
        memcpy(e->copy, map.data + KILN_STATE_WEIGHTS_AT, bytes);
        e->weights = e->copy;
    }
    kiln_map_close(&map);
    return status;
}

/* Does the run's state stand where `step` steps are done? Then its weights are those. */
static enum kiln_status try_state(struct kiln_evidence *e, uint64_t step,
                                  struct kiln_cursor *cursor, struct kiln_err *err) {
    char path[PATH_ROOM], boot[sizeof cursor->boot_id];
    struct kiln_dims dims;
    struct kiln_lora lora;
    struct kiln_err ignored;
    snprintf(path, sizeof path, "%s/state.kiln", e->run->folder);
    if (kiln_state_peek(path, &dims, &lora, cursor, &ignored) != KILN_OK || cursor->step != step ||
        cursor->phase == KILN_PHASE_UPDATE || cursor->phase == KILN_PHASE_OUTER ||
        cursor->spread > 0) {
        return KILN_OK;
    }
    kiln_boot_id(boot);
    if (!cursor->clean && memcmp(boot, cursor->boot_id, sizeof boot) != 0) {
        return KILN_OK; /* of before a power cut */
    }
    KILN_TRY(read_state(path, e, err));
    snprintf(e->weights_from, sizeof e->weights_from, "state.kiln");
    return KILN_OK;
}

/* ---- from a checkpoint -------------------------------------------------------------------------
 */

struct walk {
    struct kiln_again again;
    const struct kiln_explain_options *options;
    struct kiln_evidence *e;
    uint64_t step; /* to be done */
    volatile sig_atomic_t stop;
    struct kiln_step_record last; /* taken again */
    double recorded;              /* its loss, by the run */
};

static void look(struct walk *w, uint64_t step) {
    w->stop = step >= w->step || (w->options->stop && *w->options->stop != 0);
}

static void on_step(void *context, const struct kiln_step_record *record) {
    struct walk *w = context;
    w->last = *record;
    look(w, record->step);
}

static enum kiln_status begin(void *context, struct kiln_run *run, struct kiln_err *err) {
    struct walk *w = context;
    const struct kiln_run_info *info = kiln_run_info(run);
    const char *before = w->again.start.cursor.numerics;
    const bool others = before[0] != '\0' && strcmp(info->numerics, before) != 0;
    KILN_REQUIRE(!others || info->settings->local_steps == 1 || info->first_step == w->step, err,
                 KILN_EUNSUPPORTED,
                 "explain %s: step %" PRIu64
                 " was computed as %.100s, with local steps of each "
                 "rank; one process cannot take them again, only explain a step behind a "
                 "checkpoint: keep more of them (--keep-checkpoints)",
                 w->options->run, w->options->step, before);
    if (others) {
        snprintf(
            w->e->note, sizeof w->e->note,
            "this machine computes as %.60s, the run as %.60s: weights that were trained again "
            "differ in the last digits",
            info->numerics, before);
    }
    look(w, info->first_step);
    return KILN_OK;
}

static void on_line(void *context, const struct kiln_step_record *record) {
    struct walk *w = context;
    if (record->step == w->last.step) {
        w->recorded = record->loss;
    }
}

/* Nothing says that a model file is the one that the run began from, or that its settings were the
 * same all the time, but that it comes to the same losses. */
static enum kiln_status check_first(struct walk *w, struct kiln_err *err) {
    const struct kiln_observer observer = {.context = w, .on_step = on_line};
    w->recorded = (double)NAN;
    if (w->again.from || w->last.step == 0) {
        return KILN_OK;
    }
    KILN_TRY(kiln_run_history(w->options->run, w->last.step - 1, 0, &observer, err));
    const double other = fabs(w->last.loss - w->recorded);
    KILN_REQUIRE(!(other > 0.01 * fabs(w->recorded)), err, KILN_EINPUT,
                 "explain %s: trained again from %.100s the loss of step %" PRIu64
                 " is %.4f, and the run's was %.4f: that is another model by now, or the run was "
                 "resumed with other settings; keep more checkpoints (--keep-checkpoints)",
                 w->options->run, w->e->run->settings.model, w->last.step, w->last.loss,
                 w->recorded);
    return KILN_OK;
}

static enum kiln_status walk_on(struct walk *w, struct kiln_cursor *cursor, struct kiln_err *err) {
    const struct kiln_observer observer = {.context = w, .on_step = on_step};
    char path[PATH_ROOM + 32], text[160];
    struct kiln_dims dims;
    struct kiln_lora lora;
    snprintf(text, sizeof text,
             w->again.from ? "training again from the checkpoint of step %" PRIu64
                             " to step %" PRIu64
                           : "training again from the start, step %" PRIu64 ", to step %" PRIu64,
             w->again.start.cursor.step, w->step);
    if (w->options->on_notice && w->again.start.cursor.step < w->step) {
        w->options->on_notice(w->options->context, text);
    }
    KILN_TRY(kiln_again_train(&w->again, begin, &observer, &w->stop, err));
    KILN_REQUIRE(!w->options->stop || *w->options->stop == 0, err, KILN_EINTERRUPTED,
                 "explain %s: stopped", w->options->run);
    KILN_TRY(check_first(w, err));
    snprintf(path, sizeof path, "%s/state.kiln", w->again.folder);
    KILN_TRY(kiln_state_peek(path, &dims, &lora, cursor, err));
    KILN_REQUIRE(cursor->step == w->step, err, KILN_EINPUT,
                 "explain %s: the run ended after step %" PRIu64
                 " when it was trained again: there is no step %" PRIu64,
                 w->options->run, cursor->step, w->options->step);
    return read_state(path, w->e, err);
}

/* The newest whole checkpoint of at most `step` steps. *oldest: the oldest of any; 0: none. */
static enum kiln_status find_checkpoint(const char *run, uint64_t step, char *path, size_t size,
                                        struct kiln_checkpoint_info *info, bool *found,
                                        uint64_t *oldest, struct kiln_err *err) {
    char folder[PATH_ROOM];
    uint64_t *steps;
    size_t n;
    struct kiln_err ignored;
    snprintf(folder, sizeof folder, "%s/checkpoints", run);
    KILN_TRY(kiln_checkpoint_list(folder, &steps, &n, err));
    *found = false;
    for (size_t i = n; i-- > 0 && !*found;) {
        snprintf(path, size, "%s/step-%" PRIu64, folder, steps[i]);
        *found = steps[i] <= step && kiln_checkpoint_verify(path, info, &ignored) == KILN_OK;
    }
    *oldest = n > 0 ? steps[0] : 0;
    kiln_free(steps);
    return KILN_OK;
}

/* ---- from the start ----------------------------------------------------------------------------
 */

/* Of an incident whose weights are gone: what was recorded of it is still there. */
static void say_what_is_left(const struct kiln_evidence *e, char *out, size_t size) {
    const char *why = kiln_evidence_text(e, "why"), *action = kiln_evidence_text(e, "action");
    if (!e->incident) {
        snprintf(out, size, "has no incident");
        return;
    }
    snprintf(out, size,
             "has an incident (%.40s, %.24s) whose weights are not kept any more, since later ones "
             "have theirs: its incident.json still has the loss and the norm of every tensor, "
             "window.u32 the tokens",
             why, action);
}

/* Where no checkpoint lies before the step: is what the run began from still there? */
static enum kiln_status begin_at_first(struct walk *w, uint64_t oldest, struct kiln_err *err) {
    const struct kiln_table *table = w->e->run->table;
    struct kiln_model_source source;
    struct kiln_cursor cursor;
    struct kiln_err why;
    char path[PATH_ROOM], left[240], checkpoint[80] = "the run has no checkpoint";
    struct kiln_dims dims;
    struct kiln_lora lora;
    const enum kiln_status status = kiln_model_source(w->e->run->settings.model, &source, &why);
    say_what_is_left(w->e, left, sizeof left);
    if (oldest > 0) {
        snprintf(checkpoint, sizeof checkpoint,
                 "no whole checkpoint is from before it (the oldest is of step %" PRIu64 ")",
                 oldest);
    }
    KILN_REQUIRE(status == KILN_OK, err, KILN_EINPUT,
                 "explain %s: step %" PRIu64
                 " %s; %s, and what the run began from is gone: %.120s; keep more checkpoints "
                 "(--keep-checkpoints), or save more often (--save-every)",
                 w->options->run, w->options->step, left, checkpoint, why.message);
    w->again.from = NULL;
    w->again.start = (struct kiln_checkpoint_info){.dims = table->dims, .lora = table->lora};
    snprintf(path, sizeof path, "%s/state.kiln", w->options->run);
    if (kiln_state_peek(path, &dims, &lora, &cursor, &why) == KILN_OK) {
        memcpy(w->again.start.cursor.numerics, cursor.numerics, sizeof cursor.numerics);
    }
    return KILN_OK;
}

static enum kiln_status walk_there(struct walk *w, struct kiln_cursor *cursor,
                                   struct kiln_err *err) {
    int lock;
    KILN_TRY(kiln_again_lock("explain", w->options->run, &lock, err));
    enum kiln_status status = kiln_again_make(&w->again, err);
    if (lock >= 0) {
        close(lock);
    }
    if (status == KILN_OK) {
        status = walk_on(w, cursor, err);
    }
    struct kiln_err ignored;
    const enum kiln_status removed =
        kiln_again_remove(&w->again, status == KILN_OK ? err : &ignored);
    return status == KILN_OK ? removed : status;
}

static void say_from(const struct walk *w, uint64_t begun) {
    const struct kiln_settings *s = &w->e->run->settings;
    char first[64], then[48] = "";
    if (w->again.from) {
        snprintf(first, sizeof first, "checkpoints/step-%" PRIu64, begun);
    } else if (kiln_preset_find(s->model)) {
        snprintf(first, sizeof first, "the run's first, of seed %" PRIu64, s->seed);
    } else {
        snprintf(first, sizeof first, "the run's first, of %.40s", s->model);
    }
    if (begun < w->step) {
        snprintf(then, sizeof then, ", trained again to step %" PRIu64, w->step);
    }
    snprintf(w->e->weights_from, sizeof w->e->weights_from, "%s%s", first, then);
}

enum kiln_status kiln_evidence_weights(const struct kiln_explain_options *options,
                                       struct kiln_evidence *e, uint64_t step,
                                       struct kiln_cursor *cursor, struct kiln_err *err) {
    char from[PATH_ROOM + 64];
    bool found;
    uint64_t oldest;
    KILN_TRY(try_state(e, step, cursor, err));
    if (e->weights) {
        return KILN_OK;
    }
    const uint64_t local = e->run->settings.local_steps;
    KILN_REQUIRE(step % local == 0, err, KILN_EINPUT,
                 "explain %s: step %" PRIu64 " lies inside a round of %" PRIu64
                 " local steps, whose weights each rank has for itself and nobody keeps; ask for "
                 "the first of a round, as %" PRIu64,
                 options->run, step + 1, local, step - step % local + 1);
    struct walk *w = kiln_alloc(1, sizeof *w);
    KILN_REQUIRE(w, err, KILN_ENOMEM, "explain: not enough memory");
    w->options = options;
    w->e = e;
    w->step = step;
    w->again = (struct kiln_again){
        .who = "explain", .run = options->run, .from = from, .threads = options->threads};
    enum kiln_status status = find_checkpoint(options->run, step, from, sizeof from,
                                              &w->again.start, &found, &oldest, err);
    if (status == KILN_OK && !found) {
        status = begin_at_first(w, oldest, err);
    }
    if (status == KILN_OK) {
        status = walk_there(w, cursor, err);
    }
    say_from(w, w->again.start.cursor.step);
    if (w->again.note[0] && !e->note[0]) {
        snprintf(e->note, sizeof e->note, "%s", w->again.note);
    }
    kiln_free(w);
    return status;
}
