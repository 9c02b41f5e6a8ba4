/* SPDX-License-Identifier: MIT
 *
 * doctor_int.h: what the checks of kiln doctor share.
 *
 * What a machine is comes from two places: files below /proc and /sys, which a test may plant
 * somewhere else (options.root), and what system calls and stopwatches say, gathered in a struct
 * that a test may fill by hand. Checks look at nothing else.
 */
#ifndef KILN_REPORT_DOCTOR_INT_H
#define KILN_REPORT_DOCTOR_INT_H

#include <stdint.h>

#include "kiln/doctor.h"

/* What is not in a file. 0 or NULL: not asked, not measured. */
struct doctor_host {
    const char *tier;   /* of the kernels that are chosen */
    const char *forced; /* KILN_CPU */
    bool amx_refused;   /* the processor has it, and the system does not let us */
    char tier_error[200];
    char folder[4096]; /* real path */
    bool writable;
    uint64_t disk_bytes, disk_free, disk_files, disk_files_free;
    double products_tflops; /* all threads */
    double few_tflops;      /* a thread for each core, where that is less */
    double copy_gb_s;
    double write_gb_s, sync_s; /* of the folder's disk: at once, and fsync of a small change */
    double clock_ns;           /* to read the clock */
    char gpu[200];             /* asked for, and there: its name */
    char gpu_error[400];
};

struct doctor {
    const struct kiln_doctor_options *options;
    const struct doctor_host *host;
    struct kiln_doctor *out;
    /* Filled by kiln_doctor_processors, which is the first check. 0: unknown. */
    size_t online, allowed, cores; /* cores: of the allowed processors */
    double quota;                  /* processors that control groups allow; 0: no limit */
    size_t threads;                /* that a training would have */
};

/* Begin a finding; cost and advice are of the one begun last. */
void kiln_doctor_found(struct doctor *d, enum kiln_doctor_level level, const char *name,
                       const char *fmt, ...) KILN_PRINTF(4, 5);
void kiln_doctor_cost(struct doctor *d, const char *fmt, ...) KILN_PRINTF(2, 3);
void kiln_doctor_advice(struct doctor *d, const char *fmt, ...) KILN_PRINTF(2, 3);

/* ---- files below the root ---- */

/* The file's beginning without its last newline; false: it is not there. */
bool kiln_doctor_read(const struct doctor *d, char *out, size_t size, const char *fmt, ...)
    KILN_PRINTF(4, 5);
/* The number that the file begins with; false also for "max". */
bool kiln_doctor_number(const struct doctor *d, double *out, const char *fmt, ...)
    KILN_PRINTF(3, 4);
/* The number behind `key` where a line begins with it. */
bool kiln_doctor_value(const char *text, const char *key, double *out);
/* The text behind `key` and its colon or blanks, of the first line that begins so. */
bool kiln_doctor_text(const char *text, const char *key, char *out, size_t size);
/* Is `word` one of the words of a text? */
bool kiln_doctor_has(const char *text, const char *word);
/* Mark the numbers below `n` of a list as "0-3,8"; returns how many. */
size_t kiln_doctor_list(const char *list, bool *member, size_t n);
/* Folders of the control groups of this process for a controller, from its own up to the top, below
 * the root. Returns how many. */
enum { DOCTOR_GROUPS = 24, DOCTOR_GROUP_PATH = 512 };
size_t kiln_doctor_groups(const struct doctor *d, const char *controller,
                          char dirs[DOCTOR_GROUPS][DOCTOR_GROUP_PATH]);

/* ---- checks ---- */

void kiln_doctor_processors(struct doctor *d);
void kiln_doctor_load(struct doctor *d);
void kiln_doctor_tier(struct doctor *d);
void kiln_doctor_rates(struct doctor *d);
void kiln_doctor_frequency(struct doctor *d);
void kiln_doctor_heat(struct doctor *d);
void kiln_doctor_clock(struct doctor *d);
void kiln_doctor_memory(struct doctor *d);
void kiln_doctor_limits(struct doctor *d, double need_bytes);
void kiln_doctor_disk(struct doctor *d, double need_bytes);
void kiln_doctor_libraries(struct doctor *d);
void kiln_doctor_gpu(struct doctor *d);
/* Of the run in `folder`; gives what its next checkpoint takes of the disk. */
void kiln_doctor_run(struct doctor *d, const char *folder, double *need_bytes);

/* All checks, on what is given. run: the folder is one. */
void kiln_doctor_look(const struct kiln_doctor_options *options, const struct doctor_host *host,
                      bool run, struct kiln_doctor *out);

#endif
