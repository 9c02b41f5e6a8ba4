/* SPDX-License-Identifier: MIT
 *
 * trainer.h: the window loop: micro-batches, update, evaluation, samples, checkpoints.
 *
 * A trainer borrows all it works on; run.c makes and owns the parts.
 */
#ifndef KILN_TRAIN_TRAINER_H
#define KILN_TRAIN_TRAINER_H

#include <stdio.h>

#include "infer/session.h"
#include "kiln/train.h"
#include "state/state.h"
#include "train/clock.h"
#include "train/control.h"
#include "train/engine.h"
#include "train/save.h"
#include "train/shards.h"
#include "train/spike.h"
#include "train/trace.h"

struct kiln_trainer {
    const struct kiln_settings *settings; /* complete */
    const char *folder;
    const struct kiln_table *table;
    const struct kiln_tokenizer *tokenizer; /* may be NULL */
    struct kiln_state *state;
    struct kiln_saver *saver;
    struct kiln_engine engine;
    struct kiln_data *data, *val_data; /* val_data NULL: the validation split of data, if any */
    struct kiln_session *session;      /* for samples, from the device's kernels; or NULL */
    struct {
        double ended, took; /* when the last sample was done (monotonic clock), and its seconds */
        bool known;         /* those of processes before this one were looked at */
        bool none;          /* there are none, or they are not kept: it was said why */
    } samples;
    struct kiln_ranks *ranks;   /* NULL: alone */
    struct kiln_shards *shards; /* NULL: each rank has all weights and moments */
    struct kiln_grid grid;      /* this rank's place among them */
    double flops;               /* of a micro-batch through the model */
    uint64_t first_micro_batch; /* of this rank, in the window or evaluation under way */
    bool agreed_to_stop;        /* by all ranks, at a window's start */
    double reduce_ms, reduce_wait_ms, ranks_wait_ms; /* of the step so far */
    double outer_ms;                                 /* of its outer step (outer.h); 0: none */
    double own_norm; /* of this rank's gradient, where that is changed by: of local steps */
    struct {
        void *context;
        /* What rank 0 has changed of the settings becomes everybody's. */
        enum kiln_status (*agree)(void *context, struct kiln_err *err);
        /* The run has recovered, and is about to train: all begin where rank 0 does. */
        enum kiln_status (*join)(void *context, struct kiln_err *err);
    } others;
    FILE *metrics;
    struct kiln_trace *trace;
    double ceiling_tflops; /* of products, for utilization */
    const struct kiln_observer *observer;
    const volatile sig_atomic_t *stop;
    bool handed_over;            /* by a process that restarted */
    struct kiln_relay relay;     /* start NULL: restarts are those of one process */
    bool called;                 /* the successor has been started */
    double ahead_since;          /* when a successor began to compile */
    struct kiln_clock clock;     /* of a run that shall end at a time */
    struct kiln_control control; /* what a person asks for from outside */
    struct kiln_process scratch; /* of the schedule */
    struct kiln_spikes spikes;   /* of the steps that metrics.jsonl has */
    struct {
        void *context;
        /* rollback.h */
        enum kiln_status (*begin)(void *context, uint64_t next, struct kiln_err *err);
        bool ready; /* there is a checkpoint to go back to, or one is being written */
    } rollback;
    bool rolled_back; /* to a checkpoint: all but the state is of before */
    double since;     /* up to when the cursor knows what the step cost ... */
    struct {
        uint64_t surface_written, surface_read, layer_forwards;
    } counted;           /* ... and how much of what the device has done */
    uint64_t peak_bytes; /* resident memory, sampled before each action */
};

/* Train from the state's cursor to settings->steps. KILN_ERESTART: the budget of this process is
 * spent and the state is ready for a successor; or, with rolled_back, that a rollback is to be
 * completed (rollback.h). KILN_EINTERRUPTED: stopped, ready to be resumed. */
KILN_MUST_CHECK enum kiln_status kiln_trainer_run(struct kiln_trainer *trainer,
                                                  struct kiln_err *err);

/* The successor of another process, which still trains: compile what will be needed where it takes
 * over. `place` is what the owner gave its relay (KILN_EINTERNAL: none of ours). */
KILN_MUST_CHECK enum kiln_status kiln_trainer_ahead(struct kiln_trainer *trainer, const char *place,
                                                    struct kiln_err *err);

/* A line of metrics.jsonl without the newline. */
enum { KILN_METRICS_LINE = 4096 };
void kiln_metrics_line(const struct kiln_step_record *record, char out[KILN_METRICS_LINE]);

#endif
