/* SPDX-License-Identifier: MIT
 *
 * run_int.h: a run, for the files that make one (create.c), open one again (resume.c) and train it
 * (run.c).
 */
#ifndef KILN_TRAIN_RUN_INT_H
#define KILN_TRAIN_RUN_INT_H

#include "train/trainer.h"

/* Of the data, where no --val is given: held out. */
#define KILN_VALIDATION_SHARE 0.05

struct kiln_run {
    struct kiln_run_info info;
    struct kiln_settings settings;
    struct kiln_trainer trainer;
    struct kiln_table *table;
    struct kiln_tokenizer *tokenizer;
    struct kiln_profile profile;        /* tflops 0: not known yet */
    struct kiln_forecast forecast;      /* bits 0: none */
    struct kiln_link link;              /* between ranks; bytes_per_s 0: there is none */
    struct kiln_ranks_cost over_ranks;  /* what is planned over it */
    const struct kiln_minutes *minutes; /* while a run is made: chosen for it; NULL */
    bool resumed;                       /* and not trained yet */
    bool successor; /* of an owner that still trains: no byte of the run may change */
    uint64_t epoch; /* then: of that owner */
    int inherited;  /* descriptor of the state, or -1 */
    char numerics[sizeof((struct kiln_cursor *)0)->numerics];
    char folder[4096];
    char state_path[4300]; /* with --state: of a state that is being made */
    char notice[320];      /* what the user should know before training; "" for nothing */
    char model_name[512];
};

/* Allocate a run with a copy of the settings; NULL: all defaults. */
KILN_MUST_CHECK enum kiln_status kiln_run_begin(const struct kiln_settings *settings,
                                                struct kiln_run **out, struct kiln_err *err);
/* A run that could not be opened is closed. */
enum kiln_status kiln_run_end_open(enum kiln_status status, struct kiln_run **run);
/* Paths of files in the folder are made in buffers of PATH_MAX and a little. */
KILN_MUST_CHECK enum kiln_status kiln_run_check_name(const char *folder, struct kiln_err *err);
/* A file of the run's folder. */
char *kiln_run_file(const struct kiln_run *run, const char *name, char *out, size_t size);

/* In this order: the plan needs table and settings; data the tokenizer; the trainer an open state.
 * `folder` may be the temporary one. */
KILN_MUST_CHECK enum kiln_status kiln_run_make_plan(struct kiln_run *run, struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_run_open_data(struct kiln_run *run, const char *folder,
                                                    struct kiln_err *err);
/* Of a run that is spread over ranks: what each of them has. Part of kiln_run_open_trainer. */
KILN_MUST_CHECK enum kiln_status kiln_run_open_shards(struct kiln_run *run, struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_run_open_trainer(struct kiln_run *run, struct kiln_err *err);
/* Part of kiln_run_open_trainer, but for a successor: it cleans up what is the owner's. */
KILN_MUST_CHECK enum kiln_status kiln_run_open_saver(struct kiln_run *run, struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_run_open_metrics(struct kiln_run *run, struct kiln_err *err);
/* metrics.jsonl may hold more than the cursor knows: cut it to the cursor's length. Where it holds
 * less, or ends within a line, the cursor follows, behind a newline, and run->notice says so. */
KILN_MUST_CHECK enum kiln_status kiln_run_trim_metrics(struct kiln_run *run, struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_run_write_settings(const struct kiln_run *run,
                                                         const char *folder, struct kiln_err *err);
/* A run that is only looked at: settings, table and tokenizer of its folder; then its data, where
 * its tokens are there (KILN_EINPUT: they are not). No byte is written. kiln_run_close it. */
KILN_MUST_CHECK enum kiln_status kiln_run_read(const char *folder, struct kiln_run **out,
                                               struct kiln_err *err);
/* Of a run in its folder all but the state and what is made of it. changes may be NULL. */
KILN_MUST_CHECK enum kiln_status kiln_run_reopen_parts(struct kiln_run *run,
                                                       const struct kiln_settings *changes,
                                                       struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_run_read_data(struct kiln_run *run, struct kiln_err *err);
/* Of such a run the state that it began with, in a new file: random weights, or those of its
 * --model as that is now. It is closed with the run. KILN_EINPUT: the model is gone, or has other
 * sizes. */
KILN_MUST_CHECK enum kiln_status kiln_run_first_state(struct kiln_run *run, const char *path,
                                                      struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_run_describe(struct kiln_run *run, struct kiln_err *err);

#endif
