/* SPDX-License-Identifier: MIT
 *
 * probe.h: what a device does in a second, measured: kiln probe. docs/probe.md has how.
 *
 * A probe of sim or ane compiles some 20 small programs in this process; how many it may compile
 * and hold spoils a process, so that is asked of others, which the caller starts.
 */
#ifndef KILN_PUBLIC_PROBE_H
#define KILN_PUBLIC_PROBE_H

#include <stdbool.h>
#include <stddef.h>

#include "kiln/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a process does until the device refuses. */
enum kiln_probe_limit {
    KILN_PROBE_START,    /* opens the device, and nothing more */
    KILN_PROBE_COMPILES, /* compiles and releases */
    KILN_PROBE_LOADS,    /* compiles, loads and keeps */
};
struct kiln_probe_count {
    size_t compiles, loads; /* that succeeded; what opening the device compiled counts */
    bool refused;           /* what was asked for; false: `most` were reached, or, where loads were
                             * asked for, compiles ended first */
    char words[400];        /* what the device said to the one too many; "": nothing */
};

struct kiln_probe_options {
    struct kiln_device_choice device; /* of sim: with the times that it charges */
    size_t threads;
    enum kiln_precision precision; /* of the cpu: of what it trains in */
    const char *folder;            /* whose disk is measured; NULL: none */
    size_t most;                   /* that a process may compile or hold to find a limit; 0: 1000 */
    /* Run kiln_probe_count in a process of its own, and say how long that took. NULL: not asked. */
    void *context;
    enum kiln_status (*count)(void *context, enum kiln_probe_limit limit,
                              struct kiln_probe_count *out, double *seconds, struct kiln_err *err);
    void (*progress)(void *context, const char *doing); /* NULL: none */
};

/* A figure, or an answer. */
struct kiln_probe_row {
    char name[64];  /* "compile and load, 256 channels" */
    char value[96]; /* "41.2 ms" */
    char how[400];  /* how it was measured, or why it was not */
};
enum { KILN_PROBE_ROWS = 48 };
struct kiln_probe {
    struct kiln_profile_file file; /* what profile.json gets: known where it was measured */
    struct kiln_probe_row rows[KILN_PROBE_ROWS];
    size_t n_rows;
};

/* Measure; seconds to a minute. KILN_EUNSUPPORTED where there is no such device. A question that
 * the device refuses to answer is a row that says so. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_probe(const struct kiln_probe_options *options,
                                                     struct kiln_probe *out, struct kiln_err *err);
/* In a process of its own: until the device refuses. Nothing but reading the device fails. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_probe_count(const struct kiln_probe_options *options,
                                                           enum kiln_probe_limit limit,
                                                           struct kiln_probe_count *out,
                                                           struct kiln_err *err);
/* Write profile.json and probe.md, durably, into a folder, which is made. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_probe_write(const struct kiln_probe *probe,
                                                           const char *folder,
                                                           struct kiln_err *err);

#ifdef __cplusplus
}
#endif

#endif
