/* SPDX-License-Identifier: MIT */
#include "kill_points.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/kill_point.h"
#include "train/plant.h"

enum { KINDS = 16 };

/* Points that are counted one by one, too. */
static const char *const single[] = {"hand-over: leaving", "hand-over: committed",
                                     "hand-over: given", "hand-over: taken", "hand-over: taken up"};
enum { SINGLE = sizeof single / sizeof single[0] };

static struct counts {
    atomic_long all, passed[KINDS], deaths[KINDS];
    atomic_long passed_at[SINGLE], deaths_at[SINGLE];
} * counts;
static const char *const kinds[KINDS] = {
    "commit",    "chunk", "update",   "metrics",  "window", "durable", "checkpoint",
    "hand-over", "relay", "incident", "rollback", "turn",   "outer",   "other"};
enum { OTHER = 13 };
static int wanted = -1; /* kind */
static long wanted_at;
static const char *once; /* file that says that a process has died already */

static bool first_death(void) {
    const int file = once != NULL ? open(once, O_WRONLY | O_CREAT | O_EXCL, 0600) : -1;
    if (file >= 0) {
        close(file);
    }
    return once == NULL || file >= 0;
}

static int kind_of(const char *where) {
    const size_t length = strcspn(where, ":");
    for (int i = 0; i < KINDS && kinds[i]; i++) {
        if (strlen(kinds[i]) == length && strncmp(kinds[i], where, length) == 0) {
            return i;
        }
    }
    return OTHER;
}

static int single_of(const char *where) {
    for (int i = 0; i < SINGLE; i++) {
        if (strcmp(single[i], where) == 0) {
            return i;
        }
    }
    return -1;
}

static void pass(const char *where) {
    const int kind = kind_of(where), one = single_of(where);
    counts->passed_at[one < 0 ? 0 : one] += one >= 0;
    const long all = ++counts->all, own = ++counts->passed[kind];
    if (wanted_at > 0 && (wanted < 0 ? all == wanted_at : kind == wanted && own == wanted_at) &&
        first_death()) {
        ++counts->deaths[kind];
        counts->deaths_at[one < 0 ? 0 : one] += one >= 0;
        raise(SIGKILL);
    }
}

void kill_points_arm(const char *kind, long n) {
    if (!counts) {
        counts =
            mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    }
    if (counts == MAP_FAILED) {
        counts = NULL;
        return;
    }
    counts->all = 0;
    memset(counts->passed, 0, sizeof counts->passed);
    memset(counts->passed_at, 0, sizeof counts->passed_at);
    wanted = kind ? kind_of(kind) : -1;
    wanted_at = n;
    kiln_kill_hook = pass;
}

void kill_points_disarm(void) { kiln_kill_hook = NULL; }

long kill_points_passed(const char *kind) {
    return !counts ? 0 : kind ? counts->passed[kind_of(kind)] : counts->all;
}

long kill_points_passed_at(const char *where) {
    const int one = single_of(where);
    return counts && one >= 0 ? (long)counts->passed_at[one] : 0;
}

long kill_points_deaths_at(const char *where) {
    const int one = single_of(where);
    return counts && one >= 0 ? (long)counts->deaths_at[one] : 0;
}

static const char *list(const atomic_long *of) {
    static char text[256];
    size_t n = 0;
    text[0] = '\0';
    for (int i = 0; counts && i < KINDS && kinds[i] && n < sizeof text; i++) {
        if (of[i] > 0) {
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s %ld", n ? ", " : "", kinds[i],
                                  (long)of[i]);
        }
    }
    return text;
}

const char *kill_points_deaths(void) { return counts ? list(counts->deaths) : ""; }
const char *kill_points_text(void) { return counts ? list(counts->passed) : ""; }

/* ---- the program --------------------------------------------------------------------------- */

static void write_counts(void) {
    FILE *file = fopen(getenv("KILN_KILL_COUNT"), "w");
    for (int i = 0; file && i < KINDS && kinds[i]; i++) {
        fprintf(file, "%s %ld\n", kinds[i], (long)counts->passed[i]);
    }
    if (file) {
        fclose(file);
    }
}

static void arm_as_asked(void) {
    const char *at = getenv("KILN_KILL_AT"), *count = getenv("KILN_KILL_COUNT");
    const char *colon = at ? strchr(at, ':') : NULL;
    once = getenv("KILN_KILL_ONCE");
    if (at || count) {
        kill_points_arm(colon ? at : NULL, at ? atol(colon ? colon + 1 : at) : 0);
    }
    if (count && counts) {
        atexit(write_counts);
    }
}

/* ---- faults ------------------------------------------------------------------------------------
 */

static char bad_weight[64];
static uint64_t bad_weight_step, bad_window;

static const char *weight_to_plant(uint64_t step) {
    return step == bad_weight_step ? bad_weight : NULL;
}

static bool is_bad_window(uint64_t window) { return window == bad_window; }

/* A wrong word is a wrong test: it ends here. */
static void plant_as_asked(const char *text) {
    const char *at = strchr(text, '@');
    const uint64_t step = at ? strtoull(at + 1, NULL, 10) : 0;
    if (strncmp(text, "weight:", 7) == 0 && step > 1) {
        snprintf(bad_weight, sizeof bad_weight, "%.*s", (int)(at - text - 7), text + 7);
        bad_weight_step = step;
        kiln_bad_weight_instead = weight_to_plant;
    } else if (strncmp(text, "batch@", 6) == 0 && step > 0) {
        bad_window = step - 1;
        kiln_bad_batch_instead = is_bad_window;
    } else {
        fprintf(stderr, "KILN_PLANT=%s is neither weight:NAME@STEP nor batch@STEP\n", text);
        _exit(2);
    }
}

__attribute__((constructor)) static void read_environment(void) {
    const char *fault = getenv("KILN_PLANT");
    if (fault) {
        plant_as_asked(fault);
    }
    if (!getenv("KILN_KILL_ROLE")) {
        arm_as_asked();
    }
}

void kill_points_role(const char *role) {
    const char *asked = getenv("KILN_KILL_ROLE");
    if (asked && strcmp(asked, role) == 0) {
        arm_as_asked();
    } else if (asked) {
        kill_points_disarm();
    }
}
