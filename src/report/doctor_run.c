/* SPDX-License-Identifier: MIT
 *
 * doctor_run.c: a run: is its state whole, who has it, and where does its time go?
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#ifdef __linux__
#include <sys/sysmacros.h>
#endif

#include "kiln/inspect.h"
#include "kiln/report.h"
#include "kiln/view.h"
#include "report/doctor_int.h"

/* ---- the state ------------------------------------------------------------------------------ */

static const struct kiln_fact *fact_of(const struct kiln_facts *facts, const char *section,
                                       const char *name) {
    for (size_t i = 0; i < facts->n; i++) {
        if (strcmp(facts->fact[i].section, section) == 0 &&
            strcmp(facts->fact[i].name, name) == 0) {
            return &facts->fact[i];
        }
    }
    return NULL;
}

/* Was the machine switched off while it was trained? The state is not trusted then. */
static bool power_was_cut(const char *path) {
    struct kiln_facts facts;
    const enum kiln_status status = kiln_inspect_state(path, &facts, NULL);
    const struct kiln_fact *clean = fact_of(&facts, "trust", "clean");
    const struct kiln_fact *boot = fact_of(&facts, "trust", "this_boot");
    const bool cut =
        status == KILN_OK && clean != NULL && boot != NULL && clean->count == 0 && boot->count == 0;
    kiln_facts_free(&facts);
    return cut;
}

static void check_state(struct doctor *d, const char *folder, const char *path, size_t checkpoints,
                        double *need_bytes) {
    struct kiln_run_peek peek;
    struct kiln_err err = {.message = ""};
    if (kiln_run_peek(folder, &peek, &err) != KILN_OK) {
        kiln_doctor_found(d, KILN_DOCTOR_BROKEN, "state", "%.380s", err.message);
        kiln_doctor_advice(d,
                           checkpoints > 0
                               ? "kiln train --resume %s takes the newest checkpoint that "
                                 "verifies; kiln inspect says more"
                               : "kiln inspect %s says more; there is no checkpoint to go back to",
                           folder);
        return;
    }
    *need_bytes = 12.0 * (double)(peek.adapters > 0 ? peek.adapters : peek.parameters);
    if (peek.not_finite > 0) {
        kiln_doctor_found(d, KILN_DOCTOR_BROKEN, "state", "%zu weights are not finite numbers",
                          peek.not_finite);
        kiln_doctor_cost(d, "every later loss is not a number");
        kiln_doctor_advice(d,
                           "go back to a checkpoint before that: kiln train --model "
                           "%s/checkpoints/step-N with a lower --lr; --on-spike rollback does "
                           "so by itself",
                           folder);
    } else if (power_was_cut(path)) {
        kiln_doctor_found(
            d, KILN_DOCTOR_BROKEN, "state",
            "the machine went down while the run was trained: what the disk holds may "
            "be mixed");
        kiln_doctor_advice(d,
                           checkpoints > 0
                               ? "kiln train --resume %s takes the newest checkpoint that verifies"
                               : "kiln inspect %s; there is no checkpoint to go back to",
                           folder);
    } else {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "state",
                          "whole, after step %llu; all weights are finite",
                          (unsigned long long)peek.step);
    }
}

/* ---- the lock ------------------------------------------------------------------------------- */

/* "1: FLOCK  ADVISORY  WRITE 4711 fe:00:131113 0 EOF" of that file. */
static bool lock_holder(const char *locks, const struct stat *file, long *pid) {
#ifdef __linux__
    const unsigned major_of = major(file->st_dev), minor_of = minor(file->st_dev);
#else
    const unsigned major_of = 0, minor_of = 0;
#endif
    for (const char *line = locks; line != NULL && *line != '\0';
         line = strchr(line, '\n') != NULL ? strchr(line, '\n') + 1 : NULL) {
        unsigned a = 0, b = 0;
        unsigned long long inode = 0;
        if (sscanf(line, "%*d: FLOCK %*s %*s %ld %x:%x:%llu", pid, &a, &b, &inode) == 4 &&
            a == major_of && b == minor_of && inode == file->st_ino) {
            return true;
        }
    }
    return false;
}

static void check_lock(struct doctor *d, const char *path) {
    static _Thread_local char locks[1 << 16];
    char name[64] = "";
    struct stat file;
    long pid = 0;
    if (stat(path, &file) != 0) {
        return;
    }
    if (!kiln_doctor_read(d, locks, sizeof locks, "/proc/locks")) {
        kiln_doctor_found(d, KILN_DOCTOR_UNKNOWN, "lock", "who trains the run cannot be read here");
    } else if (!lock_holder(locks, &file, &pid)) {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "lock", "nobody trains the run");
    } else if (pid > 0) {
        kiln_doctor_read(d, name, sizeof name, "/proc/%ld/comm", pid);
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "lock", "process %ld%s%s%s trains the run", pid,
                          name[0] ? " (" : "", name, name[0] ? ")" : "");
        kiln_doctor_cost(d, "what was measured here is what it leaves over");
    } else {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "lock",
                          "a process outside of this container trains the run");
    }
}

/* ---- times ---------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median of the steps from `first`, at most 32; seconds. NaN: there are none. */
static double median_step(const struct kiln_view *view, size_t first) {
    double ms[32];
    size_t n = 0;
    for (size_t i = first; i < kiln_view_steps(view) && n < 32; i++) {
        const double took = kiln_view_step(view, i)->ms;
        if (isfinite(took) && took > 0) {
            ms[n++] = took;
        }
    }
    if (n == 0) {
        return (double)NAN;
    }
    qsort(ms, n, sizeof ms[0], by_size);
    return ms[n / 2] * 1e-3;
}

/* "12.5 ms", "3.2 s", "2 min". */
static const char *step_text(double seconds, char buffer[32]) {
    if (seconds >= 1) {
        return kiln_human_time(seconds, buffer, 32);
    }
    snprintf(buffer, 32, "%.3g ms", seconds * 1e3);
    return buffer;
}

static void check_pace(struct doctor *d, const struct kiln_view *view) {
    const size_t n = kiln_view_steps(view);
    struct kiln_memory memory;
    struct kiln_plan_time plan = {0};
    char a[32], b[32];
    const double now = median_step(view, n > 32 ? n - 32 : 0);
    const bool planned = kiln_view_plan(view, &memory, &plan) && plan.step > 0;
    if (!isfinite(now)) {
        return;
    }
    step_text(now, a);
    if (!planned) {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "steps", "%s each; the run has no plan to compare",
                          a);
    } else if (now > 1.4 * plan.step) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "steps", "%s each; planned were %s", a,
                          step_text(plan.step, b));
        kiln_doctor_cost(d, "%.1f times the time", now / plan.step);
        kiln_doctor_advice(d,
                           "the machine is slower than when the run was planned: see load, quota, "
                           "frequency and heat above");
    } else {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "steps", "%s each; planned were %s", a,
                          step_text(plan.step, b));
    }
    const double first = n >= 96 ? median_step(view, 16) : (double)NAN; /* behind its beginning */
    if (isfinite(first) && now > 1.3 * first) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "pace", "a step takes %s now, at first it was %s", a,
                          step_text(first, b));
        kiln_doctor_cost(d, "%.1f times the time", now / first);
        kiln_doctor_advice(d,
                           "something came in between: other load, heat, swap, a disk that fills");
    }
}

static void check_shares(struct doctor *d, const struct kiln_view *view) {
    const struct kiln_view_summary s = kiln_view_summary(view);
    const struct {
        const char *name;
        double ms, most;
        const char *what, *advice;
    } parts[] = {
        {"stalls", s.stall_ms, 0.05, "waiting for kernels",
         "--overlap delayed hides it, a larger --accum makes it rarer (kiln plan shows both)"},
        {"restarts", s.restart_ms, 0.05, "replacing the process",
         "a larger --budget, a larger --accum, or --restart relay"},
        {"dW", s.dw_wait_ms, 0.1, "waiting for weight gradients",
         "more --threads, or --dw gpu where there is one"},
        {"surfaces", s.io_ms, 0.15, "moving bytes to and from surfaces",
         "--weight-mode baked moves fewer than dynamic; a larger --batch moves them in fewer "
         "steps"},
        {"updates", s.update_ms, 0.35, "updating weights", "a larger --accum makes updates rarer"},
    };
    const size_t before = d->out->n;
    for (size_t i = 0; s.ms > 0 && i < sizeof parts / sizeof parts[0]; i++) {
        const double share = parts[i].ms / s.ms;
        if (isfinite(share) && share > parts[i].most) {
            kiln_doctor_found(d, KILN_DOCTOR_SLOW, parts[i].name,
                              "%.0f %% of the time went into %s", 100 * share, parts[i].what);
            kiln_doctor_advice(d, "%s", parts[i].advice);
        }
    }
    if (s.ms > 0 && d->out->n == before) {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "times",
                          "computing %.0f %%, updates %.0f %%, stalls %.1f %%, restarts %.1f %%",
                          100 * (s.device_ms + s.host_ms) / s.ms, 100 * s.update_ms / s.ms,
                          100 * s.stall_ms / s.ms, 100 * s.restart_ms / s.ms);
    }
}

static void check_numbers(struct doctor *d, const struct kiln_view *view, const char *folder) {
    const struct kiln_view_summary s = kiln_view_summary(view);
    const size_t n = kiln_view_steps(view), incidents = kiln_view_incidents(view);
    if (n > 0 && !kiln_view_step(view, n - 1)->skipped &&
        !isfinite(kiln_view_step(view, n - 1)->loss)) {
        kiln_doctor_found(d, KILN_DOCTOR_BROKEN, "loss", "the last loss is not a finite number");
        kiln_doctor_advice(d,
                           "a lower --lr, a lower --clip; --on-spike rollback goes back by itself");
    }
    if (incidents > 0) {
        const struct kiln_view_incident *last = kiln_view_incident(view, incidents - 1);
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "incidents", "%zu, the last at step %llu: %s, %s",
                          incidents, (unsigned long long)last->step, last->why, last->action);
        kiln_doctor_advice(d, "kiln explain %s@%llu says where it began", folder,
                           (unsigned long long)last->step);
    }
    if (s.steps > 20 && (double)s.skipped > 0.02 * (double)s.steps) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "skipped",
                          "%llu of %llu steps had a gradient that overflowed",
                          (unsigned long long)s.skipped, (unsigned long long)s.steps);
        kiln_doctor_cost(d, "their windows were computed for nothing");
        kiln_doctor_advice(d, "a lower --lr");
    }
}

static void check_lines(struct doctor *d, const struct kiln_view *view) {
    char text[KILN_VIEW_TEXT];
    if (kiln_view_unread(view, text) > 0) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "metrics", "%s", text);
        kiln_doctor_cost(d, "curves lack those steps; no weight does");
        kiln_doctor_advice(
            d, "look at these lines; a resume begins a new line behind a torn last one");
    }
}

static void check_checkpoints(struct doctor *d, const struct kiln_view *view) {
    const size_t n = kiln_view_checkpoints(view), steps = kiln_view_steps(view);
    if (n > 0) {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "checkpoints", "%zu, the newest of step %llu", n,
                          (unsigned long long)kiln_view_checkpoint(view, n - 1));
    } else if (steps > 0) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "checkpoints", "none yet");
        kiln_doctor_cost(d, "a power cut would lose all %zu steps", steps);
        kiln_doctor_advice(d, "kiln train --resume with a smaller --save-every");
    }
}

void kiln_doctor_run(struct doctor *d, const char *folder, double *need_bytes) {
    char path[8400];
    struct kiln_view *view;
    struct kiln_err err = {.message = ""};
    if (kiln_view_open(folder, &view, &err) != KILN_OK) {
        kiln_doctor_found(d, KILN_DOCTOR_BROKEN, "run", "%.380s", err.message);
        kiln_doctor_advice(d, "kiln inspect says more");
        return;
    }
    snprintf(path, sizeof path, "%s/state.kiln", folder); /* or a link to where --state put it */
    check_state(d, folder, path, kiln_view_checkpoints(view), need_bytes);
    check_lock(d, path);
    check_checkpoints(d, view);
    check_pace(d, view);
    check_shares(d, view);
    check_numbers(d, view, folder);
    check_lines(d, view);
    kiln_view_close(view);
}
