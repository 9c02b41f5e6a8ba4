/* SPDX-License-Identifier: MIT
 *
 * replay.c: train a part of a run again (again.h) and compare its bits.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/machine.h"
#include "base/mem.h"
#include "kiln/verify.h"
#include "state/inspect.h"
#include "train/again.h"

enum { PATH_ROOM = 4400, MOST_LINES = 10 };

/* Something to compare the replay with, when it is at that step. */
struct target {
    uint64_t step;
    char what[64];
    uint32_t crc[3]; /* weights, m, v */
};

struct replay {
    const struct kiln_replay_options *options;
    struct kiln_replay_result *result;
    size_t room; /* of result->checks */
    char checkpoints[PATH_ROOM], from[PATH_ROOM];
    struct kiln_again again;
    struct target *targets; /* ascending by step */
    size_t n_targets;
    volatile sig_atomic_t stop; /* read by the training thread, set by our observer on it */
    bool given_up;
    enum kiln_status failed; /* in the observer, which cannot return it */
    struct kiln_err err;
};

/* ---- results -------------------------------------------------------------------------------- */

void kiln_replay_free(struct kiln_replay_result *result) {
    kiln_free(result->checks);
    *result = (struct kiln_replay_result){0};
}

/* The next check, to be filled in; NULL when out of memory. */
static struct kiln_replay_check *add_check(struct replay *r, bool same, const char *what) {
    struct kiln_replay_result *out = r->result;
    if (out->n_checks == r->room) {
        const size_t room = r->room > 0 ? 2 * r->room : 16;
        struct kiln_replay_check *grown =
            kiln_realloc(out->checks, out->n_checks, room, sizeof *grown);
        if (!grown) {
            r->failed = KILN_FAIL(&r->err, KILN_ENOMEM, "verify: not enough memory");
            return NULL;
        }
        out->checks = grown;
        r->room = room;
    }
    struct kiln_replay_check *check = &out->checks[out->n_checks++];
    check->same = same;
    snprintf(check->what, sizeof check->what, "%s", what);
    out->pass = out->pass && same;
    return check;
}

static void compare(struct replay *r, const struct target *target, const uint32_t crc[3]) {
    static const char *const names[] = {"weights", "m", "v"};
    const bool same = memcmp(crc, target->crc, sizeof target->crc) == 0;
    struct kiln_replay_check *check = add_check(r, same, target->what);
    if (!check) {
        return;
    }
    size_t n =
        (size_t)snprintf(check->found, sizeof check->found, "step %" PRIu64 ":", target->step);
    for (int i = 0; i < 3; i++) {
        char *at = check->found + n;
        const size_t left = sizeof check->found - n;
        if (same) {
            n += (size_t)snprintf(at, left, " %s %08" PRIx32, names[i], crc[i]);
        } else if (crc[i] != target->crc[i]) {
            n += (size_t)snprintf(at, left, " %s %08" PRIx32 ", replayed %08" PRIx32 ";", names[i],
                                  target->crc[i], crc[i]);
        }
    }
    if (!same) {
        check->found[n - 1] = '\0'; /* the last semicolon */
    }
}

/* ---- what there is to compare with ---------------------------------------------------------- */

static enum kiln_status add_target(struct replay *r, uint64_t step, const char *what,
                                   const uint32_t crc[3], struct kiln_err *err) {
    struct target *grown = kiln_realloc(r->targets, r->n_targets, r->n_targets + 1, sizeof *grown);
    KILN_REQUIRE(grown, err, KILN_ENOMEM, "verify: not enough memory");
    r->targets = grown;
    struct target *t = &r->targets[r->n_targets++];
    t->step = step;
    snprintf(t->what, sizeof t->what, "%s", what);
    memcpy(t->crc, crc, sizeof t->crc);
    return KILN_OK;
}

/* Check one checkpoint; it is where the replay begins, or a target. */
static enum kiln_status take_checkpoint(struct replay *r, uint64_t step, struct kiln_err *err) {
    const uint64_t from = r->options->from;
    struct kiln_checkpoint_info info;
    struct kiln_err why;
    char path[PATH_ROOM], what[64];
    snprintf(path, sizeof path, "%s/step-%" PRIu64, r->checkpoints, step);
    snprintf(what, sizeof what, "checkpoints/step-%" PRIu64, step);
    if (kiln_checkpoint_verify(path, &info, &why) != KILN_OK) {
        struct kiln_replay_check *check = add_check(r, false, what);
        KILN_REQUIRE(check, err, KILN_ENOMEM, "verify: not enough memory");
        snprintf(check->found, sizeof check->found, "%.479s", why.message);
        return KILN_OK;
    }
    if (!r->from[0] && (from == KILN_UNSET || from == step)) {
        snprintf(r->from, sizeof r->from, "%s", path);
        r->again.start = info;
        return KILN_OK;
    }
    const uint32_t crc[3] = {info.weights_crc, info.crc[KILN_CHECKPOINT_MOMENT1],
                             info.crc[KILN_CHECKPOINT_MOMENT2]};
    return r->from[0] ? add_target(r, step, what, crc, err) : KILN_OK;
}

static enum kiln_status take_checkpoints(struct replay *r, struct kiln_err *err) {
    uint64_t *steps;
    size_t n;
    KILN_TRY(kiln_checkpoint_list(r->checkpoints, &steps, &n, err));
    enum kiln_status status = KILN_OK;
    for (size_t i = 0; i < n && status == KILN_OK; i++) {
        if (r->options->from == KILN_UNSET || steps[i] >= r->options->from) {
            status = take_checkpoint(r, steps[i], err);
        }
    }
    kiln_free(steps);
    KILN_TRY(status);
    if (r->from[0]) {
        return KILN_OK;
    }
    if (r->options->from != KILN_UNSET) {
        return KILN_FAIL(err, KILN_EINPUT,
                         "verify %s: no whole checkpoint of step %" PRIu64
                         "; %s/checkpoints has %zu",
                         r->options->run, r->options->from, r->options->run, n);
    }
    return KILN_FAIL(err, KILN_EINPUT,
                     "verify %s: no whole checkpoint to begin at (%zu damaged); train with "
                     "--save-every",
                     r->options->run, r->result->n_checks);
}

/* The state is the last target, unless it is lost, stopped inside an update or while it was spread
 * over ranks, or of before a power cut: a resume mends the last three. */
static enum kiln_status take_state(struct replay *r, struct kiln_err *err) {
    char path[PATH_ROOM], boot[sizeof((struct kiln_cursor *)0)->boot_id];
    struct kiln_cursor cursor;
    uint32_t crc[3];
    snprintf(path, sizeof path, "%s/state.kiln", r->options->run);
    if (!kiln_path_exists(path)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_state_sums(path, &cursor, crc, err));
    kiln_boot_id(boot);
    const bool trusted = cursor.clean || memcmp(boot, cursor.boot_id, sizeof boot) == 0;
    if (!trusted || cursor.spread > 0 || cursor.phase == KILN_PHASE_UPDATE ||
        cursor.phase == KILN_PHASE_OUTER || cursor.step < r->again.start.cursor.step) {
        return KILN_OK;
    }
    return add_target(r, cursor.step, "state.kiln", crc, err);
}

/* Where to stop: at the last target, or after as many steps as are asked for. */
static enum kiln_status choose_end(struct replay *r, struct kiln_err *err) {
    const uint64_t from = r->again.start.cursor.step;
    uint64_t to = from;
    for (size_t i = 0; i < r->n_targets; i++) {
        to = r->targets[i].step > to ? r->targets[i].step : to;
    }
    KILN_REQUIRE(r->n_targets > 0, err, KILN_EINPUT,
                 "verify %s: nothing to compare with after checkpoint step-%" PRIu64
                 ": no later checkpoint, and no state.kiln of a whole step",
                 r->options->run, from);
    if (r->options->steps != KILN_UNSET && r->options->steps < to - from) {
        to = from + r->options->steps;
    }
    r->result->from = from;
    r->result->to = to;
    return KILN_OK;
}

/* ---- training ------------------------------------------------------------------------------- */

/* Compare with every target of that step. */
static void compare_at(struct replay *r, uint64_t step) {
    char path[PATH_ROOM + 32];
    struct kiln_cursor cursor;
    uint32_t crc[3];
    bool summed = false;
    snprintf(path, sizeof path, "%s/state.kiln", r->again.folder);
    for (size_t i = 0; i < r->n_targets && r->failed == KILN_OK; i++) {
        if (r->targets[i].step != step) {
            continue;
        }
        if (!summed) {
            r->failed = kiln_state_sums(path, &cursor, crc, &r->err);
            summed = true;
        }
        if (r->failed == KILN_OK) {
            compare(r, &r->targets[i], crc);
        }
    }
}

static void on_step(void *context, const struct kiln_step_record *record) {
    struct replay *r = context;
    compare_at(r, record->step);
    r->given_up = r->options->stop && *r->options->stop != 0;
    r->stop = r->given_up || r->failed != KILN_OK || record->step >= r->result->to;
}

/* Equal bits are only claimed for equal numerics. */
static enum kiln_status same_numerics(const struct replay *r, const struct kiln_run *run,
                                      struct kiln_err *err) {
    const char *numerics = kiln_run_info(run)->numerics;
    KILN_REQUIRE(strcmp(numerics, r->again.start.cursor.numerics) == 0, err, KILN_EUNSUPPORTED,
                 "verify %s: trained as %.150s, this machine computes as %.150s: bits cannot be "
                 "compared; verify on a machine like the first, with the same KILN_CPU and "
                 "KILN_GEMM (of several ranks, /r2 and so on: only runs with --deterministic)",
                 r->options->run, r->again.start.cursor.numerics, numerics);
    return KILN_OK;
}

/* Before the first step of each process. */
static enum kiln_status begin(void *context, struct kiln_run *run, struct kiln_err *err) {
    struct replay *r = context;
    KILN_TRY(same_numerics(r, run, err));
    compare_at(r, r->result->from);
    r->stop = r->failed != KILN_OK || r->result->to == r->result->from;
    return KILN_OK;
}

static enum kiln_status train(struct replay *r, struct kiln_err *err) {
    const struct kiln_observer observer = {.context = r, .on_step = on_step};
    KILN_TRY(kiln_again_train(&r->again, begin, &observer, &r->stop, err));
    if (r->failed != KILN_OK && err) {
        *err = r->err;
    }
    KILN_TRY(r->failed);
    KILN_REQUIRE(!r->given_up, err, KILN_EINTERRUPTED, "verify %s: stopped", r->options->run);
    return KILN_OK;
}

/* ---- metrics.jsonl -------------------------------------------------------------------------- */

static const char *const lasting[] = {"step",      "loss",     "grad_norm",  "lr",     "tokens",
                                      "staleness", "val_loss", "loss_scale", "skipped"};

/* The lines of FOLDER/metrics.jsonl as an object by step; lines that are no JSON are left out. */
static enum kiln_status read_lines(const char *folder, json_t **out, struct kiln_err *err) {
    char path[PATH_ROOM + 32], *text, *rest;
    size_t size;
    *out = json_object();
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    KILN_REQUIRE(*out, err, KILN_ENOMEM, "verify: not enough memory");
    if (!kiln_path_exists(path)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_read_file(path, &text, &size, err));
    rest = text;
    for (char *line; (line = strtok_r(rest, "\n", &rest)) != NULL;) {
        json_t *object = json_loads(line, 0, NULL);
        const json_t *step = json_object_get(object, "step");
        if (json_is_integer(step)) {
            char key[32];
            snprintf(key, sizeof key, "%lld", (long long)json_integer_value(step));
            json_object_set(*out, key, object);
        }
        json_decref(object);
    }
    kiln_free(text);
    return KILN_OK;
}

/* Add what differs between two lines; true when nothing does. */
static bool same_line(struct replay *r, uint64_t step, const json_t *was, const json_t *is) {
    struct kiln_replay_check *check;
    if (!was) {
        check = add_check(r, false, "metrics.jsonl");
        if (check) {
            snprintf(check->found, sizeof check->found, "step %" PRIu64 ": no line", step);
        }
        return false;
    }
    for (size_t i = 0; i < sizeof lasting / sizeof lasting[0]; i++) {
        json_t *a = json_object_get(was, lasting[i]), *b = json_object_get(is, lasting[i]);
        if (a == b || json_equal(a, b)) {
            continue;
        }
        char *texts[2] = {json_dumps(a, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17)),
                          json_dumps(b, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17))};
        check = add_check(r, false, "metrics.jsonl");
        if (check) {
            snprintf(check->found, sizeof check->found,
                     "step %" PRIu64 ": %s is %.60s, replayed %.60s", step, lasting[i],
                     texts[0] ? texts[0] : "absent", texts[1] ? texts[1] : "absent");
        }
        free(texts[0]);
        free(texts[1]);
        return false;
    }
    return true;
}

static enum kiln_status compare_lines(struct replay *r, struct kiln_err *err) {
    json_t *was = NULL, *is = NULL;
    const struct kiln_replay_result *out = r->result;
    size_t different = 0;
    enum kiln_status status = read_lines(r->options->run, &was, err);
    status = status == KILN_OK ? read_lines(r->again.folder, &is, err) : status;
    for (uint64_t step = out->from + 1;
         status == KILN_OK && step <= out->to && different < MOST_LINES; step++) {
        char key[32];
        snprintf(key, sizeof key, "%" PRIu64, step);
        different += !same_line(r, step, json_object_get(was, key), json_object_get(is, key));
    }
    json_decref(was);
    json_decref(is);
    if (status == KILN_OK && different == 0 && out->to > out->from) {
        struct kiln_replay_check *check = add_check(r, true, "metrics.jsonl");
        if (check) {
            snprintf(check->found, sizeof check->found, "steps %" PRIu64 " to %" PRIu64,
                     out->from + 1, out->to);
        }
    }
    if (status == KILN_OK && r->failed != KILN_OK && err) {
        *err = r->err;
    }
    return status == KILN_OK ? r->failed : status;
}

/* ---- all of it ------------------------------------------------------------------------------ */

/* All that is needed of the run, into memory and the temporary folder. */
static enum kiln_status take_all(struct replay *r, struct kiln_err *err) {
    KILN_TRY(take_checkpoints(r, err));
    KILN_TRY(take_state(r, err));
    KILN_TRY(choose_end(r, err));
    return kiln_again_make(&r->again, err);
}

/* What was trained after --steps changed had other learning rates: it is named, not compared. */
static enum kiln_status leave_out_others(struct replay *r, struct kiln_err *err) {
    struct kiln_replay_result *out = r->result;
    const uint64_t other = r->again.other;
    if (out->to <= other) {
        return KILN_OK;
    }
    KILN_REQUIRE(other > out->from, err, KILN_EINPUT,
                 "verify %s: nothing to compare with after checkpoint step-%" PRIu64
                 ": --steps changed there; begin at a later checkpoint with --from",
                 r->options->run, out->from);
    snprintf(out->note, sizeof out->note,
             "steps %" PRIu64 " to %" PRIu64
             " were trained after --steps changed: they are not "
             "comparable; --from a checkpoint after the change compares them",
             other + 1, out->to);
    out->to = other;
    return KILN_OK;
}

static enum kiln_status replay(struct replay *r, struct kiln_err *err) {
    int lock;
    KILN_TRY(kiln_again_lock("verify", r->options->run, &lock, err));
    const enum kiln_status status = take_all(r, err);
    if (lock >= 0) {
        close(lock);
    }
    KILN_TRY(status);
    memcpy(r->result->note, r->again.note, sizeof r->result->note);
    KILN_TRY(leave_out_others(r, err));
    KILN_TRY(train(r, err));
    return compare_lines(r, err);
}

enum kiln_status kiln_verify_run(const struct kiln_replay_options *options,
                                 struct kiln_replay_result *out, struct kiln_err *err) {
    char path[PATH_ROOM];
    *out = (struct kiln_replay_result){.pass = true};
    KILN_REQUIRE(strlen(options->run) < 3800, err, KILN_EUSAGE, "run folder: the path is too long");
    snprintf(path, sizeof path, "%s/run.json", options->run);
    KILN_REQUIRE(kiln_path_exists(path), err, KILN_EINPUT, "%s is no run folder: no run.json in it",
                 options->run);
    struct replay *r = kiln_alloc(1, sizeof *r);
    KILN_REQUIRE(r, err, KILN_ENOMEM, "verify: not enough memory");
    r->options = options;
    r->result = out;
    r->again = (struct kiln_again){
        .who = "verify", .run = options->run, .from = r->from, .threads = options->threads};
    snprintf(r->checkpoints, sizeof r->checkpoints, "%s/checkpoints", options->run);
    enum kiln_status status = replay(r, err);
    struct kiln_err ignored;
    const enum kiln_status removed =
        kiln_again_remove(&r->again, status == KILN_OK ? err : &ignored);
    status = status == KILN_OK ? removed : status;
    if (status != KILN_OK) {
        kiln_replay_free(out);
    }
    kiln_free(r->targets);
    kiln_free(r);
    return status;
}
