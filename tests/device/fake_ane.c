/* SPDX-License-Identifier: MIT
 *
 * fake_ane.c: what fails when, and what is counted. The classes are in fake_classes.m.
 */
#include "device/fake_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/ane/ane.h"
#include "device/ane/apple.h"

enum fake_reload fake_reload;
enum fake_files fake_files;
bool fake_chain;
size_t fake_compile_limit = 119, fake_load_limit = 119;
struct fake_counts fake_counts;

static const char *const names[FAKE_POINTS_COUNT] = {
#define FAKE_NAME(id, name) name,
    FAKE_POINTS(FAKE_NAME)
#undef FAKE_NAME
};
static struct armed {
    long calls, at, times;
    bool raises;
} armed[FAKE_POINTS_COUNT];

const char *fake_point_name(enum fake_point point) { return names[point]; }

void fake_broken(const char *fmt, ...) {
    va_list args;
    fputs("fake Neural Engine: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputs("\n", stderr);
    abort();
}

void fake_counted(long *counter, long by) { __atomic_fetch_add(counter, by, __ATOMIC_RELAXED); }

void fake_fail(enum fake_point point, long at, long times, bool raises) {
    armed[point] = (struct armed){.at = at, .times = times, .raises = raises};
}

long fake_calls(enum fake_point point) { return armed[point].calls; }

int fake_verdict(enum fake_point point) {
    struct armed *arm = &armed[point];
    const long call = __atomic_add_fetch(&arm->calls, 1, __ATOMIC_RELAXED);
    const bool hit = call >= arm->at && call < arm->at + arm->times;
    return !hit ? 0 : arm->raises ? -1 : 1;
}

/* ---- by the environment ---------------------------------------------------------------------- */

static void arm_one(const char *word) {
    const char *at = strchr(word, '@');
    for (int i = 0; at && i < FAKE_POINTS_COUNT; i++) {
        if (strlen(names[i]) == (size_t)(at - word) &&
            strncmp(names[i], word, strlen(names[i])) == 0) {
            const char *times = strchr(at, 'x');
            fake_fail((enum fake_point)i, atol(at + 1), times ? atol(times + 1) : 1,
                      strchr(at, '!') != NULL);
            return;
        }
    }
    fake_broken("KILN_FAKE_ANE: \"%s\" is not POINT@CALL, POINT@CALLxTIMES or POINT@CALL!", word);
}

static size_t limit_of(const char *name, size_t otherwise) {
    const char *text = getenv(name);
    return text ? (size_t)atol(text) : otherwise;
}

__attribute__((constructor)) static void set_up(void) {
    const char *points = getenv("KILN_FAKE_ANE"), *reload = getenv("KILN_FAKE_RELOAD");
    char *words = points ? strdup(points) : NULL;
    for (char *word = words ? strtok(words, " ") : NULL; word; word = strtok(NULL, " ")) {
        arm_one(word);
    }
    free(words);
    fake_reload = !reload                          ? FAKE_RELOAD_WORKS
                  : strcmp(reload, "stale") == 0   ? FAKE_RELOAD_STALE
                  : strcmp(reload, "refused") == 0 ? FAKE_RELOAD_REFUSED
                                                   : FAKE_RELOAD_WORKS;
    fake_chain = getenv("KILN_FAKE_CHAIN") != NULL;
    fake_compile_limit = limit_of("KILN_FAKE_COMPILES", fake_compile_limit);
    fake_load_limit = limit_of("KILN_FAKE_LOADS", fake_load_limit);
    kiln_apple_names.framework = "libm.so.6"; /* a library that is there; the classes are linked */
    kiln_apple_runtime = kiln_apple_open;
}
