/* SPDX-License-Identifier: MIT */
#include "train/rollback.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/io.h"
#include "base/kill_point.h"
#include "base/mem.h"
#include "state/checkpoint.h"
#include "train/scale.h"

enum { PATH_ROOM = 4300 };

uint64_t kiln_rollback_sample(const struct kiln_settings *s, uint64_t step) {
    uint64_t sample = step * s->batch * s->accum;
    for (size_t i = 0; i < s->n_jumps && s->jump[i].at <= step; i++) {
        sample += s->jump[i].samples;
    }
    return sample;
}

bool kiln_rollback_is_due(const struct kiln_run *run) {
    const struct kiln_cursor *cursor = kiln_state_cursor(run->trainer.state);
    return run->settings.n_jumps > 0 &&
           cursor->sample != kiln_rollback_sample(&run->settings, cursor->step);
}

/* ---- which checkpoint --------------------------------------------------------------------------
 */

/* Are all of n numbers finite, and none larger than that? */
static bool all_below(const unsigned char *bytes, size_t n, double most) {
    for (size_t i = 0; i < n; i++) {
        float value;
        memcpy(&value, bytes + i * sizeof value, sizeof value);
        if (!(fabs((double)value) <= most) || !isfinite(value)) {
            return false;
        }
    }
    return true;
}

/* The fault may be older than the checkpoint: are the weights and moments in it numbers, and can
 * the device compute with them? Those of model.bin lie at its end, whatever header it has. */
static bool usable(const char *checkpoint, double largest, struct kiln_checkpoint_info *info) {
    static const enum kiln_checkpoint_part parts[] = {
        KILN_CHECKPOINT_MOMENT1, KILN_CHECKPOINT_MOMENT2, KILN_CHECKPOINT_ADAPTERS};
    struct kiln_err why;
    struct kiln_map map;
    char path[PATH_ROOM + 64];
    snprintf(path, sizeof path, "%s/model.bin", checkpoint);
    if (kiln_checkpoint_verify(checkpoint, info, &why) != KILN_OK ||
        kiln_map_open(&map, path, &why) != KILN_OK) {
        return false;
    }
    bool good = all_below(map.data + map.size % sizeof(float), map.size / sizeof(float), largest);
    kiln_map_close(&map);
    snprintf(path, sizeof path, "%s/resume.kiln", checkpoint);
    if (!good || kiln_map_open(&map, path, &why) != KILN_OK) {
        return false;
    }
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && good; i++) {
        good = all_below(map.data + info->offset[parts[i]], info->bytes[parts[i]] / 4,
                         parts[i] == KILN_CHECKPOINT_ADAPTERS ? largest : (double)INFINITY);
    }
    kiln_map_close(&map);
    return good;
}

/* Was it written before a rollback that went behind it? Then its data position is not that of step
 * and jumps, but for the checkpoint that was gone back to, which is as it was. */
static bool is_given_up(const struct kiln_settings *s, const struct kiln_cursor *cursor) {
    bool target = s->n_jumps == 0;
    for (size_t i = 0; i < s->n_jumps; i++) {
        target |= s->jump[i].at == cursor->step;
    }
    return !target && cursor->sample != kiln_rollback_sample(s, cursor->step);
}

/* The newest up to so many steps. Of run only settings and folder are read. */
static enum kiln_status choose(const struct kiln_run *run, uint64_t done, double largest,
                               uint64_t *chosen, struct kiln_err *err) {
    char folder[PATH_ROOM], path[PATH_ROOM + 32];
    uint64_t *steps;
    size_t n;
    bool found = false;
    kiln_run_file(run, "checkpoints", folder, sizeof folder);
    KILN_TRY(kiln_checkpoint_list(folder, &steps, &n, err));
    for (size_t i = n; i-- > 0 && !found;) {
        struct kiln_checkpoint_info info;
        snprintf(path, sizeof path, "%s/step-%" PRIu64, folder, steps[i]);
        *chosen = steps[i];
        found = steps[i] <= done && usable(path, largest, &info) && info.cursor.step == steps[i] &&
                !is_given_up(&run->settings, &info.cursor);
    }
    kiln_free(steps);
    KILN_REQUIRE(found, err, KILN_EINPUT,
                 "of %zu checkpoints in %s none is whole and has only numbers to go on with", n,
                 folder);
    return KILN_OK;
}

/* ---- the decision ------------------------------------------------------------------------------
 */

/* Those that were decided not long before the present step. What a jump leaves out is all from its
 * step to the bad window: so far had the run come. */
static size_t recent(const struct kiln_settings *s, uint64_t done) {
    size_t n = 0;
    for (size_t i = 0; i < s->n_jumps; i++) {
        const uint64_t reached = s->jump[i].at + s->jump[i].samples / (s->batch * s->accum);
        n += reached + KILN_ROLLBACK_PROGRESS > done;
    }
    return n;
}

/* The two oldest become one, at the later's step: the position behind it stays what it was. */
static void merge_oldest(struct kiln_settings *s) {
    s->jump[1].samples += s->jump[0].samples;
    s->n_jumps--;
    memmove(s->jump, s->jump + 1, s->n_jumps * sizeof s->jump[0]);
}

/* The list of run.json with one more. */
static void add_jump(struct kiln_settings *s, uint64_t to, uint64_t next) {
    if (s->n_jumps == KILN_JUMPS) {
        merge_oldest(s);
    }
    /* Where it goes back behind an earlier jump, that was of data that are not read again either.
     */
    for (size_t i = 0; i < s->n_jumps; i++) {
        s->jump[i].at = s->jump[i].at < to ? s->jump[i].at : to;
    }
    s->jump[s->n_jumps].at = to;
    s->jump[s->n_jumps].samples = next - kiln_rollback_sample(s, to);
    s->n_jumps++;
}

enum kiln_status kiln_rollback_begin(struct kiln_run *run, uint64_t next, struct kiln_err *err) {
    struct kiln_settings *s = &run->settings;
    const struct kiln_settings before = *s;
    uint64_t to = 0;
    const uint64_t done = kiln_state_cursor(run->trainer.state)->step;
    const double largest = kiln_scale_wanted(run->trainer.engine.request.precision)
                               ? KILN_SCALE_LARGEST
                               : (double)INFINITY;
    KILN_REQUIRE(recent(s, done) < KILN_ROLLBACKS, err, KILN_EDIVERGED,
                 "it was rolled back %d times already, and came no further than %d steps meanwhile",
                 KILN_ROLLBACKS, KILN_ROLLBACK_PROGRESS);
    KILN_TRY(choose(run, done, largest, &to, err));
    add_jump(s, to, next);
    /* A rate that was asked for behind it may be what went wrong. */
    while (s->n_peaks > 0 && s->peak[s->n_peaks - 1].at >= to) {
        s->n_peaks--;
    }
    kiln_kill_point("rollback: before");
    const enum kiln_status status = kiln_run_write_settings(run, run->folder, err);
    if (status != KILN_OK) {
        *s = before;
        return status;
    }
    kiln_kill_point("rollback: written");
    return KILN_OK;
}

/* ---- and what it means -------------------------------------------------------------------------
 */

/* They hold what is behind the fault. */
static enum kiln_status remove_later(const char *folder, uint64_t to, struct kiln_err *err) {
    char path[PATH_ROOM + 32];
    uint64_t *steps;
    size_t n;
    KILN_TRY(kiln_checkpoint_list(folder, &steps, &n, err));
    enum kiln_status status = KILN_OK;
    for (size_t i = 0; i < n && status == KILN_OK; i++) {
        snprintf(path, sizeof path, "%s/step-%" PRIu64, folder, steps[i]);
        status = steps[i] > to ? kiln_remove_tree(path, err) : KILN_OK;
    }
    kiln_free(steps);
    return status;
}

enum kiln_status kiln_rollback_newest(const struct kiln_run *run, uint64_t *step, char *path,
                                      size_t size, size_t *passed, struct kiln_err *err) {
    char folder[PATH_ROOM];
    uint64_t *steps;
    size_t n;
    *passed = 0;
    kiln_run_file(run, "checkpoints", folder, sizeof folder);
    KILN_TRY(choose(run, UINT64_MAX, (double)INFINITY, step, err));
    KILN_TRY(kiln_checkpoint_list(folder, &steps, &n, err));
    for (size_t i = 0; i < n; i++) {
        *passed += steps[i] > *step;
    }
    kiln_free(steps);
    snprintf(path, size, "%s/step-%" PRIu64, folder, *step);
    /* Those of data that a rollback gave up are not to be met again. */
    return run->settings.n_jumps > 0 ? remove_later(folder, *step, err) : KILN_OK;
}

void kiln_rollback_settle(struct kiln_run *run) {
    struct kiln_cursor cursor = *kiln_state_cursor(run->trainer.state);
    if (run->settings.n_jumps > 0) {
        cursor.sample = kiln_rollback_sample(&run->settings, cursor.step);
        kiln_state_commit(run->trainer.state, &cursor);
    }
}

enum kiln_status kiln_rollback_complete(struct kiln_run *run, struct kiln_err *err) {
    struct kiln_state *state = run->trainer.state;
    const struct kiln_cursor before = *kiln_state_cursor(state);
    char folder[PATH_ROOM], path[PATH_ROOM + 64];
    uint64_t step;
    size_t damaged;
    if (before.spread > 0) { /* what others have is given up, too */
        struct kiln_cursor whole = before;
        whole.spread = 0;
        kiln_state_commit(state, &whole);
    }
    kiln_run_file(run, "checkpoints", folder, sizeof folder);
    KILN_TRY(remove_later(folder, run->settings.jump[run->settings.n_jumps - 1].at, err));
    kiln_kill_point("rollback: cleared");
    KILN_TRY(kiln_checkpoint_find(folder, &step, path, sizeof path, &damaged, err));
    kiln_state_sweep(state, true);
    const enum kiln_status status = kiln_checkpoint_restore(path, state, err);
    kiln_state_sweep(state, false);
    KILN_TRY(status);
    kiln_kill_point("rollback: restored");
    struct kiln_cursor cursor = *kiln_state_cursor(state);
    cursor.sample = kiln_rollback_sample(&run->settings, cursor.step);
    cursor.restarts = before.restarts;
    cursor.peak_bytes = before.peak_bytes;
    cursor.owner_epoch = before.owner_epoch + 2; /* no successor waits for this one */
    memcpy(cursor.numerics, before.numerics, sizeof cursor.numerics);
    kiln_state_commit(state, &cursor);
    kiln_kill_point("rollback: done");
    return KILN_OK;
}
