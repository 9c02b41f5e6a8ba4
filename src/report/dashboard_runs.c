/* SPDX-License-Identifier: MIT
 *
 * dashboard_runs.c: which runs there are, how they stand, what is new.
 *
 * Folders are looked through for runs; each run is read once, for what a list shows of it. Views
 * stay open of runs that are trained and of those that somebody looked at last.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/io.h"
#include "base/machine.h"
#include "base/mem.h"
#include "report/dashboard_int.h"

enum { PATH_ROOM = 4400, NEWS = 256 };
#define FIRST_READ 0.05 /* seconds that runs not read before may take in one look */
#define WANTED     120.0
#define SILENT     120.0 /* seconds without a step, and 20 times what a step takes: stale */

/* ---- the list ---------------------------------------------------------------------------------
 */

static bool has(const char *folder, const char *name) {
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%.4096s/%s", folder, name);
    return kiln_path_exists(path);
}

static bool is_run(const char *folder) {
    return has(folder, "run.json") || has(folder, "metrics.jsonl");
}

static void close_run(struct kiln_dash_run *run) {
    kiln_view_close(run->view);
    kiln_free(run->folder);
    kiln_free(run->name);
}

struct kiln_dash_run *kiln_dash_find(struct kiln_dashboard *d, const char *name, size_t n) {
    for (size_t i = 0; name != NULL && i < d->n_runs; i++) {
        if (strlen(d->runs[i].name) == n && memcmp(d->runs[i].name, name, n) == 0) {
            return &d->runs[i];
        }
    }
    return NULL;
}

/* The folder's last part; the whole where another run has that; what is not UTF-8 becomes '?'. */
static char *name_of(struct kiln_dashboard *d, const char *folder) {
    const char *slash = strrchr(folder, '/');
    char name[PATH_ROOM + 16];
    snprintf(name, sizeof name, "%s", slash && slash[1] ? slash + 1 : folder);
    for (int i = 1; kiln_dash_find(d, name, strlen(name)) != NULL; i++) {
        snprintf(name, sizeof name, i == 1 ? "%.4096s" : "%.4096s (%d)", folder, i);
    }
    for (char *c = name; *c != '\0';) {
        utf8proc_int32_t code;
        const utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)c, -1, &code);
        *c = n > 0 ? *c : '?';
        c += n > 0 ? n : 1;
    }
    return kiln_strdup(name);
}

static void found(struct kiln_dashboard *d, const char *folder) {
    for (size_t i = 0; i < d->n_runs; i++) {
        if (strcmp(d->runs[i].folder, folder) == 0) {
            d->runs[i].found = true;
            return;
        }
    }
    if (d->n_runs == KILN_DASH_RUNS) {
        d->left_out++;
        return;
    }
    struct kiln_dash_run run = {.folder = kiln_strdup(folder), .name = name_of(d, folder)};
    if (run.folder == NULL || run.name == NULL) {
        close_run(&run); /* another time, when there is memory */
        return;
    }
    run.found = true;
    run.id = d->ids++;
    run.summary.last_loss = run.summary.last_val = (double)NAN;
    d->runs[d->n_runs++] = run;
}

static void look_into(struct kiln_dashboard *d, const char *folder) {
    DIR *dir = opendir(folder);
    for (const struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        char path[PATH_ROOM];
        snprintf(path, sizeof path, "%.4096s/%s", folder, entry->d_name);
        /* A run that is being made has a name that ends so, until it is whole. */
        if (entry->d_name[0] != '.' && strstr(entry->d_name, ".tmp-") == NULL && is_run(path)) {
            found(d, path);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
}

/* Those that went away. */
static bool drop(struct kiln_dashboard *d) {
    size_t kept = 0;
    for (size_t i = 0; i < d->n_runs; i++) {
        if (d->runs[i].found) {
            d->runs[kept++] = d->runs[i];
        } else {
            close_run(&d->runs[i]);
        }
    }
    const bool any = kept < d->n_runs;
    d->n_runs = kept;
    return any;
}

void kiln_dash_scan(struct kiln_dashboard *d) {
    const unsigned before = d->ids;
    for (size_t i = 0; i < d->n_runs; i++) {
        d->runs[i].found = false;
    }
    d->left_out = 0;
    for (size_t i = 0; i < d->n_where; i++) {
        if (is_run(d->where[i])) {
            found(d, d->where[i]);
        } else {
            look_into(d, d->where[i]);
        }
    }
    if (drop(d) || d->ids != before) {
        kiln_dash_tell(d, "runs", "{}");
    }
}

enum kiln_status kiln_dash_runs_open(struct kiln_dashboard *d,
                                     const struct kiln_dashboard_options *options,
                                     struct kiln_err *err) {
    d->runs = kiln_alloc(KILN_DASH_RUNS, sizeof *d->runs);
    d->where = kiln_alloc(options->n_runs + 1, sizeof *d->where);
    KILN_REQUIRE(d->runs && d->where, err, KILN_ENOMEM, "no memory for a list of runs");
    for (size_t i = 0; i < options->n_runs; i++) {
        const char *given = options->runs[i];
        size_t n = strlen(given);
        while (n > 1 && given[n - 1] == '/') {
            n--;
        }
        KILN_REQUIRE(n > 0 && n < 3800, err, KILN_EUSAGE, "run folder: the path is %s",
                     n == 0 ? "empty" : "too long");
        KILN_REQUIRE(
            kiln_path_is_dir(given) || (options->may_be_absent && !kiln_path_exists(given)), err,
            KILN_EINPUT, "%s is no folder: name a run, or a folder of runs", given);
        d->where[i] = kiln_strndup(given, n);
        KILN_REQUIRE(d->where[i], err, KILN_ENOMEM, "no memory for a list of runs");
        d->n_where++;
    }
    return KILN_OK;
}

void kiln_dash_runs_close(struct kiln_dashboard *d) {
    for (size_t i = 0; i < d->n_runs; i++) {
        close_run(&d->runs[i]);
    }
    for (size_t i = 0; i < d->n_where; i++) {
        kiln_free(d->where[i]);
    }
    kiln_free(d->runs);
    kiln_free(d->where);
}

/* ---- how they stand ---------------------------------------------------------------------------
 */

const char *kiln_dash_status_name(enum kiln_dash_status status) {
    static const char *const names[] = {"waiting", "running",  "stale",
                                        "stopped", "finished", "failed"};
    return names[status];
}

/* Files that a process has locked as a run's state is (state/state.h), by their inodes: of other
 * file systems a few may have the same number. To try the lock would disturb who wants it. */
struct locks {
    uint64_t *inode;
    size_t n, room;
    bool known; /* the system tells */
};

static void read_locks(struct locks *locks) {
    char line[256];
    FILE *file = fopen("/proc/locks", "re");
    locks->known = file != NULL;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        uint64_t inode;
        if (strstr(line, "->") != NULL || /* who waits for one */
            sscanf(line, "%*s FLOCK %*s WRITE %*s %*x:%*x:%" SCNu64, &inode) != 1) {
            continue;
        }
        if (locks->n == locks->room) {
            const size_t room = 2 * locks->room + 64;
            uint64_t *more = kiln_realloc(locks->inode, locks->room, room, sizeof *more);
            if (more == NULL) {
                break;
            }
            locks->inode = more;
            locks->room = room;
        }
        locks->inode[locks->n++] = inode;
    }
    if (file != NULL) {
        fclose(file);
    }
}

static bool is_held(const struct kiln_dash_run *run, const struct locks *locks) {
    char path[PATH_ROOM];
    struct stat info;
    snprintf(path, sizeof path, "%s/state.kiln", run->folder);
    if (stat(path, &info) != 0) {
        return false;
    }
    for (size_t i = 0; i < locks->n; i++) {
        if (locks->inode[i] == (uint64_t)info.st_ino) {
            return true;
        }
    }
    return false;
}

static enum kiln_dash_status stand(const struct kiln_dash_run *run, const struct locks *locks) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const double silent = run->seen.tv_sec > 0 ? (double)(now.tv_sec - run->seen.tv_sec) : 0;
    const double long_for = fmax(SILENT, 20 * run->last.ms / 1e3);
    const bool held = locks->known ? is_held(run, locks) : silent < long_for && run->size > 0;
    const struct kiln_view_summary *s = &run->summary;
    if (!run->read && !held) {
        return KILN_DASH_WAITING;
    }
    if (held) {
        return silent > long_for ? KILN_DASH_STALE : KILN_DASH_RUNNING;
    }
    if (s->total > 0 && run->last.step >= s->total) {
        return KILN_DASH_FINISHED;
    }
    return run->failed[0] != '\0' ? KILN_DASH_FAILED : KILN_DASH_STOPPED;
}

/* ---- what is new ------------------------------------------------------------------------------
 */

void kiln_dash_refresh(struct kiln_dash_run *run) {
    if (run->dirty && run->view != NULL) {
        run->summary = kiln_view_summary(run->view);
        run->dirty = false;
        kiln_dash_count(run);
    }
}

static void keep_last(struct kiln_dash_run *run) {
    const size_t n = kiln_view_steps(run->view);
    run->last = n > 0 ? *kiln_view_step(run->view, n - 1) : (struct kiln_step_record){0};
    run->dirty = run->read = true;
    run->failed[0] = '\0';
    for (size_t i = 0; i < kiln_view_incidents(run->view); i++) {
        const struct kiln_view_incident *one = kiln_view_incident(run->view, i);
        if (strcmp(one->action, "stopped") == 0 && one->step == run->last.step + 1) {
            snprintf(run->failed, sizeof run->failed, "%s at step %" PRIu64, one->why, one->step);
        }
    }
}

/* Has metrics.jsonl changed since? */
static bool is_new(struct kiln_dash_run *run) {
    char path[PATH_ROOM];
    struct stat info = {0};
    snprintf(path, sizeof path, "%s/metrics.jsonl", run->folder);
    (void)stat(path, &info);
    const bool changed = info.st_size != run->size || info.st_mtim.tv_sec != run->seen.tv_sec ||
                         info.st_mtim.tv_nsec != run->seen.tv_nsec;
    run->size = info.st_size;
    run->seen = info.st_mtim;
    return changed;
}

static enum kiln_status open_view(struct kiln_dash_run *run, struct kiln_err *err) {
    if (run->view == NULL) {
        (void)is_new(run);
        KILN_TRY(kiln_view_open(run->folder, &run->view, err));
        keep_last(run);
    }
    return KILN_OK;
}

static void close_view(struct kiln_dash_run *run) {
    if (run->view != NULL) {
        kiln_dash_refresh(run);
        kiln_view_close(run->view);
        run->view = NULL;
    }
}

enum kiln_status kiln_dash_want(struct kiln_dashboard *d, struct kiln_dash_run *run,
                                struct kiln_err *err) {
    (void)d;
    KILN_TRY(open_view(run, err));
    run->wanted = kiln_now_s();
    return KILN_OK;
}

static void tell_run(struct kiln_dashboard *d, const struct kiln_dash_run *run, bool facts) {
    char data[160];
    snprintf(data, sizeof data, "{\"id\":%u,\"status\":\"%s\",\"step\":%" PRIu64 ",\"facts\":%s}",
             run->id, kiln_dash_status_name(run->status), run->last.step, facts ? "true" : "false");
    kiln_dash_tell(d, "run", data);
}

/* Steps from index `first` on; too many at once, and listeners ask for the run instead. */
static void tell_steps(struct kiln_dashboard *d, const struct kiln_dash_run *run, size_t first) {
    const size_t n = kiln_view_steps(run->view);
    const bool again = first < n && run->last.step >= kiln_view_step(run->view, first)->step;
    if (n - first > NEWS || again) {
        char data[64];
        snprintf(data, sizeof data, "{\"id\":%u}", run->id);
        kiln_dash_tell(d, "again", data);
        return;
    }
    for (size_t i = first; i < n; i++) {
        char step[800], data[900];
        (void)kiln_view_step_json(run->view, i, step, sizeof step);
        snprintf(data, sizeof data, "{\"id\":%u,\"step\":%s}", run->id, step);
        kiln_dash_tell(d, "step", data);
    }
}

static void poll_view(struct kiln_dashboard *d, struct kiln_dash_run *run) {
    struct kiln_view_change change;
    struct kiln_err err;
    if (kiln_view_poll(run->view, &change, &err) != KILN_OK) {
        close_view(run); /* gone, or to be read anew */
        return;
    }
    if (!change.any) {
        return;
    }
    if (change.first_step < kiln_view_steps(run->view)) {
        tell_steps(d, run, change.first_step);
    }
    keep_last(run);
    if (change.facts) {
        kiln_dash_refresh(run); /* of how many steps it is */
    }
    if (change.samples || change.facts || change.incidents || change.timeline) {
        tell_run(d, run, true);
    }
}

static void look_at(struct kiln_dashboard *d, struct kiln_dash_run *run, const struct locks *locks,
                    double until) {
    struct kiln_err err;
    const bool changed = is_new(run);
    if (run->view != NULL) {
        poll_view(d, run);
    } else if ((!run->read || changed) && kiln_now_s() < until) {
        if (open_view(run, &err) == KILN_OK) {
            run->dirty = true;
        } else {
            run->read = true; /* as far as it can be */
        }
    } else if (changed) {
        run->seen.tv_nsec = -1; /* another time */
    }
    const enum kiln_dash_status before = run->status;
    if (run->dirty && run->summary.total == 0) {
        kiln_dash_refresh(run);
    }
    run->status = stand(run, locks);
    if (run->status != before) {
        run->dirty = run->view != NULL;
        kiln_dash_refresh(run); /* the number of steps may have changed */
        run->status = stand(run, locks);
        tell_run(d, run, false);
    }
}

static bool is_live(const struct kiln_dash_run *run) {
    return run->status == KILN_DASH_RUNNING || run->status == KILN_DASH_STALE;
}

/* Nobody has asked for it for long, or for many others since. */
static void close_idle(struct kiln_dashboard *d, double now) {
    for (;;) {
        struct kiln_dash_run *least = NULL;
        size_t open = 0;
        for (size_t i = 0; i < d->n_runs; i++) {
            struct kiln_dash_run *run = &d->runs[i];
            if (run->view == NULL || is_live(run)) {
                continue;
            }
            open++;
            least = least == NULL || run->wanted < least->wanted ? run : least;
        }
        if (least == NULL || (open <= KILN_DASH_VIEWS && now - least->wanted < WANTED)) {
            return;
        }
        close_view(least);
    }
}

void kiln_dash_look(struct kiln_dashboard *d) {
    struct locks locks = {.n = 0};
    const double now = kiln_now_s();
    read_locks(&locks);
    for (size_t i = 0; i < d->n_runs; i++) {
        look_at(d, &d->runs[i], &locks, now + FIRST_READ);
    }
    close_idle(d, now);
    kiln_free(locks.inode);
}
