/* SPDX-License-Identifier: MIT
 *
 * doctor.h: why is kiln slow or broken on this machine, or this run: findings, each with what was
 * found, what it costs and what to do.
 *
 * What is looked at: threads against processors, control groups and hyperthreads; other load;
 * instruction tier; the rate of products, memory and disk, measured; memory, swap and huge pages;
 * frequency, heat, clock; limits of the process; libraries; with --dw gpu the GPU; and of a run its
 * state, its lock, its checkpoints, its times beside the plan's. What cannot be read on a system is
 * said to be unknown, never guessed.
 *
 * Measuring takes a few seconds, 512 MiB of memory and 256 MiB of the folder's disk, which are
 * given back. A run is only read, and may be trained meanwhile; its times are slower then.
 */
#ifndef KILN_DOCTOR_H
#define KILN_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>

#include "kiln/cpu.h"
#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum kiln_doctor_level {
    KILN_DOCTOR_FINE,
    KILN_DOCTOR_UNKNOWN, /* it cannot be read here */
    KILN_DOCTOR_SLOW,    /* works, and could be faster or safer */
    KILN_DOCTOR_BROKEN,  /* training fails, or will */
};

struct kiln_finding {
    const char *name; /* "threads": one of a kind may occur several times */
    enum kiln_doctor_level level;
    char found[400];
    char cost[200];   /* "" where there is none to tell */
    char advice[400]; /* "" where nothing is to be done */
};

struct kiln_doctor_options {
    const char *folder; /* a run, or where runs are to be; NULL: the current folder */
    size_t threads;     /* as --threads; 0: all processors */
    enum kiln_precision precision;
    bool gpu;     /* weight gradients are to be taken on a GPU */
    bool measure; /* rates, too */
    /* In front of /proc and /sys: the system of another machine, for tests. NULL: none. */
    const char *root;
};

enum { KILN_FINDINGS = 64 };
struct kiln_doctor {
    char machine[200]; /* "AMD EPYC, 2 processors, 15 GB, Linux 6.1" */
    struct kiln_finding finding[KILN_FINDINGS];
    size_t n;
};

/* "fine", "unknown", "slow", "broken". */
KILN_API const char *kiln_doctor_level_name(enum kiln_doctor_level level);
/* KILN_EINPUT: there is no such folder. What is wrong with the machine is a finding, no error. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_doctor(const struct kiln_doctor_options *options,
                                                      struct kiln_doctor *out,
                                                      struct kiln_err *err);
/* The worst level of all findings, and how many are of a level. */
KILN_API enum kiln_doctor_level kiln_doctor_worst(const struct kiln_doctor *doctor);
KILN_API size_t kiln_doctor_count(const struct kiln_doctor *doctor, enum kiln_doctor_level level);

#ifdef __cplusplus
}
#endif

#endif
