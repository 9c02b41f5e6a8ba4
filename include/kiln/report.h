/* SPDX-License-Identifier: MIT
 *
 * report.h: what people see of training. Formats lines; the program prints them.
 */
#ifndef KILN_REPORT_H
#define KILN_REPORT_H

#include <stddef.h>

#include "kiln/train.h"
#include "kiln/view.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Follows a run for its progress line: smoothed loss, time to go. Zero it to begin; `columns` and
 * `colours` are the caller's to set, before any line. */
struct kiln_progress {
    double smoothed; /* exponential mean of the loss, weight 0.1 a step */
    double seconds;  /* exponential mean of a step's time */
    uint64_t steps_seen;
    double best_val; /* least held-out loss seen; evaluations > 0 */
    uint64_t evaluations;
    size_t columns; /* most characters of a line; 0: any number */
    bool colours;   /* with escape sequences (ECMA-48 SGR), which are no characters */
};

/* The line of a step: step/total, percent, loss, smoothed loss, held-out loss, grad norm, lr, ms,
 * tok/s, TFLOP/s, time to go, peak memory. Where it is longer than `columns`, what matters least is
 * left out; step and loss (the held-out one where there is one) are cut when nothing else is left.
 * Coloured: a held-out loss better than all before is green, a skipped step yellow. Returns its
 * length in bytes, as snprintf. */
KILN_API size_t kiln_progress_line(struct kiln_progress *progress,
                                   const struct kiln_step_record *record, uint64_t total,
                                   char *line, size_t size);

/* Was it left out since the gradient overflowed under a loss scale? Else it was --on-spike skip. */
KILN_API bool kiln_step_overflowed(const struct kiln_step_record *record);

/* ---- the curve ------------------------------------------------------------------------------
 *
 * The loss of any number of steps in fixed memory (about 140 kB), and a picture of it in text: what
 * each step had as dots, smoothed (as in the progress line) as a line, held-out losses as "o".
 */
struct kiln_curve;
KILN_API struct kiln_curve *kiln_curve_create(void); /* NULL: out of memory */
KILN_API void kiln_curve_destroy(struct kiln_curve *curve);
KILN_API void kiln_curve_clear(struct kiln_curve *curve);
/* In the order of steps; allocates nothing. A loss that is no number is left out. */
KILN_API void kiln_curve_add(struct kiln_curve *curve, const struct kiln_step_record *record);
struct kiln_curve_look {
    size_t columns, rows; /* characters of a line, axis included; lines of the picture without its
                           * three lines of axis and legend. Both are bounded to what can be read */
    bool log_steps;       /* a logarithmic axis of steps */
    bool utf8;            /* braille and lines; else ASCII */
    bool colours;         /* as of kiln_progress */
};
/* Lines that end with newlines, on the heap, kiln_report_free; "" while there are fewer than two
 * steps to draw. NULL: out of memory. */
KILN_API char *kiln_curve_text(const struct kiln_curve *curve, const struct kiln_curve_look *look);

/* ---- blocks --------------------------------------------------------------------------------- */

/* The settings block at the start of a run, every value with where it came from; heap, free with
 * kiln_report_free. NULL when out of memory. */
KILN_API char *kiln_report_start(const struct kiln_run_info *info);
/* Memory and times as people read them: "1.3 GB", "2 h 05 min". */
KILN_API const char *kiln_human_bytes(double bytes, char *buffer, size_t size);
KILN_API const char *kiln_human_time(double seconds, char *buffer, size_t size);
KILN_API void kiln_report_free(char *text);

/* The block at the end of a run. */
struct kiln_report_end {
    double seconds;
    /* Steps that were taken since it was begun or resumed, and their tokens; of what a rollback
     * discarded nothing. */
    uint64_t steps, tokens;
    uint64_t step; /* the last one done */
    double first_loss, last_loss, best_val;
    uint64_t best_val_step;
    double tokens_per_s, tflops;
    double step_s;                  /* mean, evaluations left out; 0: unknown */
    double stall_s;                 /* mean of a step: the device waited for kernels */
    double reduce_s, reduce_wait_s; /* mean of a step: sums over ranks; waited for */
    double outer_s;                 /* mean of an outer step, with its sums; 0: there was none */
    double overlap_s;               /* mean of a step: kernels were compiled, and nobody waited */
    uint64_t peak_bytes;            /* resident, sampled before each action */
    uint64_t skipped;               /* of the steps: without an update ... */
    uint64_t overflowed; /* ... these since the gradient overflowed, the rest by --on-spike skip */
};
KILN_API char *kiln_report_finish(const struct kiln_run_info *info,
                                  const struct kiln_report_end *end);

/* ---- for other programs -----------------------------------------------------------------------
 *
 * Both leave out no key of metrics.jsonl, whatever there are.
 */

/* An event file for TensorBoard in the folder `to`, which is made where it is not there: every
 * number of a step's line as a scalar (a float: the format has no more), samples as texts. What is
 * in the folder already from an earlier call is brought up to date, never written twice. Errors:
 * KILN_EINPUT: no run; KILN_EBUSY: another process writes it; KILN_EIO, KILN_ENOMEM. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_report_tensorboard(const char *folder,
                                                                  const char *to,
                                                                  struct kiln_err *err);
/* CSV (RFC 4180, lines end with CRLF): a header with all keys that occur, in the order in which
 * they do, "step" first; a line for every step, numbers as metrics.jsonl writes them, nothing where
 * the step has no such key or it is not finite. Errors: KILN_EINPUT: no run; KILN_EIO, KILN_ENOMEM;
 * the file is whole or not there. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_report_csv(const char *folder, const char *path,
                                                          struct kiln_err *err);

/* ---- report.html (docs/report.md) --------------------------------------------------------------
 * One page with everything of one or several runs: no network, no other file. The same folders give
 * the same bytes. */

/* Points of a curve: what a page of 100 000 steps needs to stay well under 3 MB. */
enum { KILN_REPORT_POINTS = 4000 };

/* The page's text on the heap (kiln_report_free). KILN_EUSAGE: no view; KILN_ENOMEM. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_report_page(const struct kiln_view *const *views,
                                                           size_t n, char **out, size_t *size,
                                                           struct kiln_err *err);
/* The page as a file: under a temporary name, then renamed, so that whoever opens it finds the old
 * one or the new one. Not synced: it can be made again at any time. KILN_EINPUT: the path is no
 * regular file; KILN_EIO. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_report_write(const char *path,
                                                            const struct kiln_view *const *views,
                                                            size_t n, struct kiln_err *err);

/* What a training process writes beside training: report.html in the run's folder, at evaluations,
 * checkpoints and samples, and at the end. Nothing of it stops training: what cannot be written is
 * told once, and tried again later.
 *
 * It costs at most about a hundredth of the time: after a page that took t it writes the next one
 * when max(30 s, 100 t) have passed. The time of the last one is that of the file, so that this
 * holds for a run of many short processes, too. In between nothing is held or read. Making a page
 * reads all steps, about 540 bytes each: behind step 200 000 only the end of training writes one
 * (kiln report makes one at any time, in its own process).
 *
 * With the setting `tensorboard` an event file in the run's folder, too: every two seconds what was
 * added, and at the end; the first time of a process, when all of it is compared with the run, at
 * the pace of the page. */
struct kiln_recorder;
/* notice may be NULL. KILN_ENOMEM. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_recorder_open(
    const struct kiln_run_info *info, void (*notice)(void *context, const char *text),
    void *context, struct kiln_recorder **out, struct kiln_err *err);
/* Behind a step, a sample, a checkpoint: the moment to write, if it is time. recorder NULL:
 * nothing.
 */
KILN_API void kiln_recorder_step(struct kiln_recorder *recorder,
                                 const struct kiln_step_record *record);
KILN_API void kiln_recorder_sample(struct kiln_recorder *recorder, uint64_t step, const char *text);
KILN_API void kiln_recorder_checkpoint(struct kiln_recorder *recorder, uint64_t step);
/* Ends it; `last`: training ends here, so the page is written whatever the time. NULL is fine. */
KILN_API void kiln_recorder_close(struct kiln_recorder *recorder, bool last);

#ifdef __cplusplus
}
#endif

#endif
