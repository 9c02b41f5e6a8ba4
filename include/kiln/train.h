/* SPDX-License-Identifier: MIT
 *
 * train.h: runs: make one, train it, resume it, read its model.
 *
 *   struct kiln_settings s;            kiln_settings_init(&s, &err);
 *   kiln_settings_set_all(&s, &err, "data", "book.txt", "steps", "200", (char *)NULL);
 *   struct kiln_run *run;              kiln_run_create(&s, &run, &err);
 *   kiln_run_train(run, &observer, &err);
 *   kiln_run_close(run);               kiln_settings_free(&s);
 *
 * examples/finetune.c is a whole program.
 *
 * A run lives in a folder: run.json (every setting), state.kiln (weights, moments, cursor),
 * metrics.jsonl, samples.jsonl (what the model said on the way), trace.json, checkpoints/step-N/
 * (model.bin and what a resume needs), model.bin at the end, tokenizer.bin or tokenizer.json when
 * the run has one, data.tok and val.tok (the tokens it reads).
 */
#ifndef KILN_TRAIN_H
#define KILN_TRAIN_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/choose.h"
#include "kiln/cpu.h"
#include "kiln/device.h"
#include "kiln/model.h"
#include "kiln/plan.h"
#include "kiln/settings.h"
#include "kiln/status.h"
#include "kiln/text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a step was like: a line of metrics.jsonl. Times in milliseconds. The cpu device takes new
 * weights in place where it has no budget: it compiles in the first step only. The times of I/O and
 * of waiting for dW are 0 there. A window that a death cut short is
 * timed from its new start. A skipped step may have a loss or gradient norm that is not finite. */
struct kiln_step_record {
    uint64_t step; /* 1 for the first */
    double loss;   /* mean over the window's tokens, nats */
    double grad_norm, lr;
    uint64_t tokens; /* trained on so far */
    uint64_t staleness;
    double ms, ms_per_micro_batch, tokens_per_s; /* micro-batches of this process */
    double tflops;                               /* model FLOPs of the step over its time, 1e12/s */
    double utilization; /* of the machine's ceiling, 0 when that is unknown */
    /* compile_ms may pass beside all else, in threads and in processes; what the device waited of
     * it is stall_ms, what it did not is overlap_ms. ms is device, host, update, stall and restart:
     * I/O and waiting for dW are inside host_ms. */
    double compile_ms, stall_ms, overlap_ms, device_ms, host_ms, io_ms, dw_wait_ms, update_ms;
    double restart_ms; /* processes replaced inside the step, without their compiles */
    uint64_t compiles, restarts;
    uint64_t peak_bytes;     /* most memory resident since the run was begun or resumed */
    uint64_t layer_forwards; /* micro-batches through layers, those run again included */
    bool surfaces;           /* of sim and ane: bytes that the host moved to and from surfaces */
    uint64_t surface_written_bytes, surface_read_bytes;
    /* On many ranks: from the first gradient on its way to the others to the last that came; of
     * that what was waited for, not hidden behind computing; and what this one waited for others
     * besides. Both waits are inside host_ms. */
    uint64_t ranks; /* 1: alone, and all are 0 */
    double reduce_ms, reduce_wait_ms, ranks_wait_ms;
    double outer_ms;   /* --local-steps: of the outer step, with its sums; 0: none came with it */
    double loss_scale; /* of a window whose targets all count; 0: the device wants none */
    bool skipped;      /* the update was left out: the gradient overflowed, or --on-spike skip */
    /* Deviations from the recent steps (docs/flight-recorder.md); NaN where too few are known. */
    double loss_z, grad_norm_z;
    double val_loss; /* NaN where the step was not followed by an evaluation */
    /* --overlap delayed: updates in the weights that val_loss is of; else -1 */
    int64_t val_generation;
};

/* What a run is, for the lines printed at its start. Strings live as long as the run. */
struct kiln_run_info {
    const char *folder;
    const char *model; /* "stories15m (random weights, seed 1)", "stories260K.bin" */
    const struct kiln_table *table;
    const struct kiln_tokenizer *tokenizer; /* NULL when data came as raw tokens without one */
    const struct kiln_settings *settings;   /* complete: what is unset means something unset */
    struct kiln_cpu cpu;
    const char *says; /* what the device says of itself; "" on the cpu */
    const char *gpu;  /* where weight gradients are computed: an OpenCL device; "": on the CPU */
    struct kiln_device_choice device;
    enum kiln_precision precision;
    size_t train_windows, val_windows; /* in an epoch */
    const char *numerics;              /* what decides bits on this machine; equal id, equal bits */
    uint64_t first_step;               /* steps done before */
    struct kiln_memory memory;         /* by part, as planned */
    struct kiln_plan_time time;        /* of a step, as planned */
    struct kiln_link link;             /* between ranks, as measured; bytes_per_s 0: alone */
    struct kiln_ranks_cost over_ranks; /* what is planned of them */
    size_t budget;                     /* kernels that may be compiled; 0: no limit */
    enum kiln_overlap overlap;
    bool two_sets, relay;          /* kernel sets side by side; successors that start early */
    const char *restart_why;       /* why a relay was chosen that nobody asked for; NULL */
    size_t full_layers;            /* layers that are not run forward again */
    double flops_per_step;         /* model FLOPs of one step */
    struct kiln_forecast forecast; /* of a run that was chosen for its --minutes; bits 0: none */
    char prompt[48];               /* how a held-out text begins: to be tried; "" where unknown */
    bool conversations;            /* what is held out are conversations */
    const char *notice; /* what the user should know before training, "" for nothing: told to an
                         * observer when training begins, by whoever has none then otherwise */
};

/* Observers of training; any may be NULL. They run on the training thread and must not fail. */
struct kiln_observer {
    void *context;
    void (*on_step)(void *context, const struct kiln_step_record *record);
    void (*on_sample)(void *context, uint64_t step, const char *text);
    void (*on_checkpoint)(void *context, uint64_t step, const char *path);
    /* Something the user should know and that does not stop the run. */
    void (*on_notice)(void *context, const char *text);
};

struct kiln_run;

/* Tell an observer's on_step the steps after `after` that metrics.jsonl of a run has; with a tail,
 * those whose lines lie in the last so many bytes. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_run_history(const char *folder, uint64_t after,
                                                           size_t tail,
                                                           const struct kiln_observer *observer,
                                                           struct kiln_err *err);

/* The plan of a run with these settings; what is unset has the defaults of the device (budgets) or
 * none (memory). The profile is left to the caller. KILN_EUSAGE when a policy does not parse. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_plan_request_of(const struct kiln_settings *settings,
                                                               const struct kiln_dims *dims,
                                                               struct kiln_plan_request *out,
                                                               struct kiln_err *err);

/* What kiln_run_create would plan, its profile measured; nothing is made. name [512]: of the model,
 * for people. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_run_plan(const struct kiln_settings *settings,
                                                        struct kiln_plan_request *out,
                                                        char name[512], struct kiln_err *err);
/* What such a run would read of settings->data; nothing is made. */
struct kiln_data_facts {
    double bytes;        /* of text; 0: raw ids, nobody knows */
    double tokens;       /* that they are */
    bool counted;        /* token files; of texts it is about so many, by their beginnings */
    double held_out;     /* this share of them, at the end of every file; 0 with --val */
    double windows;      /* of settings->seq tokens to train on */
    double epoch_steps;  /* until all of them were read */
    char tokenizer[256]; /* "": ids that came without */
};
KILN_API KILN_MUST_CHECK enum kiln_status kiln_run_data(const struct kiln_settings *settings,
                                                        struct kiln_data_facts *out,
                                                        struct kiln_err *err);
/* Make a new run. Everything is checked before anything is written; the folder appears under its
 * name when it can be resumed. KILN_EEXISTS when the folder is there already. `settings` is
 * copied; unset values are filled in from the model and the machine. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_run_create(const struct kiln_settings *settings,
                                                          struct kiln_run **out,
                                                          struct kiln_err *err);
/* Open a run to continue it. Settings come from run.json; those of `changes` whose origin is
 * KILN_FROM_FLAG replace them where that is possible (steps, threads, eval-every, sample-every,
 * save-every, keep-checkpoints, prompt, minutes: so many more steps as they hold, and what plans:
 * budget, activations, memory, ...), others are KILN_EUSAGE. changes may be NULL. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_run_resume(const char *folder,
                                                          const struct kiln_settings *changes,
                                                          struct kiln_run **out,
                                                          struct kiln_err *err);

/* ---- --minutes (docs/minutes.md) --------------------------------------------------------------
 *
 *   kiln_minutes_choose(&settings, 0, &minutes, &err);   measures for a few seconds, chooses
 *   kiln_run_create_minutes(minutes, &run, &err);        as kiln_run_create; the number of steps
 *   kiln_run_train(run, ...);                            is fixed here, from the time then left
 *
 * Training ends when the time does. Should the machine turn out slower or faster than it was
 * measured, the number of steps is changed in between: announced (on_notice), written to run.json
 * before it has any effect (struct kiln_turn), and never because of anything else that is not in
 * the run: who resumes gets the bits that the run would have had.
 */
struct kiln_minutes {
    struct kiln_settings settings; /* as given; what was chosen has the origin KILN_FROM_MINUTES */
    struct kiln_choose_request request; /* what was measured, and what was fixed */
    struct kiln_choice choice;
    struct kiln_dims dims;            /* with --model: what request.fixed.dims points to */
    struct kiln_tokenizer *tokenizer; /* learned from the text; NULL: the settings name one */
    double text_bytes;                /* of all texts, about; 0: there are only ids */
    double tokenized_bytes; /* of them those that are tokenized (settings.data_tokens), or all */
    double started;         /* seconds of the system's monotonic clock */
    double measured_s;      /* that measuring and choosing took */
};
/* started: when the time began (seconds of the monotonic clock; 0: now). settings->minutes and data
 * are set. Reads the text's beginning, learns a vocabulary, takes steps of a few models for a share
 * of the time (seconds at most). Nothing is written. KILN_EUSAGE, KILN_EINPUT, KILN_ENOMEM as
 * kiln_choose. The result is freed by kiln_minutes_free, also behind kiln_run_create_minutes. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_minutes_choose(const struct kiln_settings *settings,
                                                              double started,
                                                              struct kiln_minutes **out,
                                                              struct kiln_err *err);
KILN_API KILN_MUST_CHECK enum kiln_status kiln_run_create_minutes(struct kiln_minutes *minutes,
                                                                  struct kiln_run **out,
                                                                  struct kiln_err *err);
KILN_API void kiln_minutes_free(struct kiln_minutes *minutes);
/* Until when training may last, seconds of the monotonic clock; 0: as long as its steps take. For a
 * process that another one replaces: the next one is told. */
KILN_API double kiln_run_deadline(const struct kiln_run *run);
KILN_API void kiln_run_set_deadline(struct kiln_run *run, double deadline);

KILN_API const struct kiln_run_info *kiln_run_info(const struct kiln_run *run);
/* Train to the last step. KILN_EINTERRUPTED when *stop became nonzero: the current action is
 * finished and the state saved, in the middle of a window where that can be.
 * KILN_EDIVERGED when a loss or gradient is not finite, or a spike, and --on-spike ends the run
 * there (docs/flight-recorder.md): the state before that step is kept. KILN_ERESTART: see
 * kiln_run_hand_over. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_run_train(struct kiln_run *run,
                                                         const struct kiln_observer *observer,
                                                         const volatile sig_atomic_t *stop,
                                                         struct kiln_err *err);
/* KILN_ERESTART from kiln_run_train: the budget of compiled kernels is spent; the run goes on in a
 * fresh process. Closes the run and gives the descriptor of its locked state, which stays open
 * through exec; the successor takes it over, so that nobody can come between. A program that does
 * not exec may as well close the run and resume it: the device is then opened anew. */
KILN_API int kiln_run_hand_over(struct kiln_run *run);
KILN_API KILN_MUST_CHECK enum kiln_status kiln_run_take_over(int descriptor, const char *folder,
                                                             struct kiln_run **out,
                                                             struct kiln_err *err);

/* --restart relay: the successor of a process starts early, opens the run beside it, compiles, and
 * waits. What starts and connects processes is the caller's; on the training thread all are called.
 *
 *   owner                                   successor
 *   start(place)            ------------>   kiln_run_succeed(..., place): opens the run read-only,
 *     goes on training                      compiles what it will need at `place`; ready
 *   wait() is true
 *   kiln_run_train: KILN_ERESTART
 *   epoch told, run closed  ------------>   kiln_run_go: takes the state over; kiln_run_train
 *
 * The state has counted the owner's epoch up when kiln_run_train returns; the successor writes
 * nothing before kiln_run_go, which refuses (KILN_EBUSY) a state whose epoch is not the one it was
 * told. Where wait() is false the caller goes on as without a relay. */
struct kiln_relay {
    void *context;
    void (*start)(void *context, const char *place); /* text without blanks, at most 200 bytes */
    /* Until the successor is ready (true) or none will be (false). *since: kiln_run_ahead_since. */
    bool (*wait)(void *context, double *since);
};
/* Before kiln_run_train; the struct is copied. Without it restarts are those of one process. */
KILN_API void kiln_run_set_relay(struct kiln_run *run, const struct kiln_relay *relay);
/* Does the run's plan want a relay? */
KILN_API bool kiln_run_relays(const struct kiln_run *run);
/* As kiln_run_take_over, but changes no byte: the owner still trains. Returns when everything that
 * could be compiled is. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_run_succeed(int descriptor, const char *folder,
                                                           const char *place, struct kiln_run **out,
                                                           struct kiln_err *err);
/* When it began to compile, in seconds of the system's monotonic clock: what the owner waits before
 * that is a process that starts, behind it a stall. */
KILN_API double kiln_run_ahead_since(const struct kiln_run *run);
/* The owner has handed over, at this epoch: the run is ours. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_run_go(struct kiln_run *run, struct kiln_err *err);
/* Epoch that the run's state has counted: what the successor must find. */
KILN_API uint64_t kiln_run_owner_epoch(const struct kiln_run *run);
/* Epoch of the state behind a descriptor, without a lock: how far a hand-over came. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_run_epoch(int descriptor, uint64_t *epoch,
                                                         struct kiln_err *err);

/* CRC-32C of all weights: equal hashes of equal runs. */
KILN_API uint32_t kiln_run_weights_hash(const struct kiln_run *run);
KILN_API void kiln_run_close(struct kiln_run *run);

/* Where a run stands, as its state file says. */
struct kiln_run_peek {
    struct kiln_dims dims;
    struct kiln_lora lora;          /* rank 0: the whole model is trained */
    size_t parameters;              /* of the model */
    size_t adapters;                /* of its adapters, beside them */
    uint64_t step, updates, tokens; /* done */
    bool inside_update; /* stopped or seen inside an update: some weights are of the next step */
    uint64_t spread;    /* 0; else weights and moments lie in so many ranks' files, and what is said
                         * of weights below is of a part of them */
    double last_loss;   /* NaN before the first step */
    double best_val;    /* NaN before the first evaluation */
    uint64_t best_val_step;
    uint32_t weights_hash; /* as kiln_run_weights_hash */
    size_t not_finite;     /* weights that are not finite numbers: all were looked at */
};
/* Read it without taking the run's lock and without changing a byte, also while another process
 * trains the run. Errors are those of opening a state: KILN_EIO, KILN_EDAMAGED. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_run_peek(const char *folder,
                                                        struct kiln_run_peek *out,
                                                        struct kiln_err *err);

/* A model to read from: a preset (random weights), a file or folder of any format that
 * kiln_checkpoint_open knows, or a run's newest weights file (model.bin or a checkpoint's,
 * whichever was written last). */
struct kiln_model {
    struct kiln_table *table;
    float *weights;          /* [table->size] */
    size_t accum;            /* of the preset, or 0 */
    char name[512];          /* "stories260K.bin", "stories15m (random weights, seed 1)" */
    char tokenizer[4096];    /* path of the tokenizer that lies with it, "" when there is none */
    char path[4096];         /* of the weights, "" for a preset */
    char format[32];         /* as kiln_checkpoint_format, "" for a preset */
    enum kiln_dtype *dtypes; /* [n_tensors]: how they lie in the file; NULL for a preset */
    bool adapted;            /* of a run that trained adapters: they are in the weights */
};
/* KILN_EINPUT when the file is absent: a name that is no preset is never random weights. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_model_open(const char *name, uint64_t seed,
                                                          struct kiln_model *out,
                                                          struct kiln_err *err);
KILN_API void kiln_model_close(struct kiln_model *model);
/* Add the adapters of a folder (kiln_lora_save's layout) to a model's weights. KILN_EUSAGE for a
 * model that has adapters in it; else errors are those of kiln_lora_peek and kiln_lora_load. The
 * model is as it was then. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_model_adapt(struct kiln_model *model,
                                                           const char *folder,
                                                           struct kiln_err *err);
/* The adapters of a run, from its state, or of a checkpoint's folder: in the last table->adapters
 * of out->weights; the model's own weights need not be there. KILN_EINPUT where there are none,
 * KILN_EBUSY while a process changes them. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_run_adapters(const char *folder,
                                                            struct kiln_model *out,
                                                            struct kiln_err *err);

/* What a model that was written differs in from the one that was to be written. */
struct kiln_proof {
    double weights; /* the largest difference of two weights: 0, or what the dtype rounds off */
    double logits;  /* of two logits, in fp32, over `tokens` fixed tokens */
    size_t tokens;
};
/* Read a written model back and compare it with the model that was to be written: dims, every
 * weight (which must be, to the bit, what format and dtype make of it), logits, which must be
 * finite and, where nothing was rounded, the same to the bit. KILN_EDAMAGED names the first tensor
 * that is another; KILN_EINPUT: the model's own logits are not finite; KILN_EUNSUPPORTED: the
 * rounded ones.
 */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_model_prove(const struct kiln_model *model,
                                                           enum kiln_format format,
                                                           enum kiln_dtype dtype, const char *path,
                                                           struct kiln_proof *out,
                                                           struct kiln_err *err);
/* kiln_checkpoint_save with a tokenizer inside a GGUF file (NULL: none), the ids of its marks in
 * config.json, and the proof before the file has its name. chat: where the chat template lies that
 * goes into a GGUF file, as kiln_chat_open has it; NULL: none. Of `how`, prove, pairs, bos and eos
 * are not looked at. Errors are also those of a tokenizer that llama.cpp does not know, or that
 * reads back as another. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_model_save(
    const struct kiln_model *model, enum kiln_format format, const char *path,
    const struct kiln_tokenizer *tokenizer, const char *chat, const struct kiln_save_options *how,
    struct kiln_proof *out, struct kiln_err *err);

/* Mean loss of a model over a data file. */
struct kiln_eval_options {
    const char *data;      /* text or token files, as --data */
    const char *tokenizer; /* NULL: the model's own, or bytes */
    size_t batch, seq;     /* 0: 8, of the model */
    size_t windows;        /* most windows read; 0: all */
    enum kiln_precision precision;
    size_t threads;               /* 0: all */
    const struct kiln_chat *chat; /* for conversations; NULL: none */
    bool skip_bad;                /* lines of JSONL that cannot be used are left out */
    bool doc_mask;                /* attention within documents only, as in training with it */
};
struct kiln_eval_result {
    double loss; /* nats a token */
    double perplexity;
    double bits_per_byte; /* NaN where the text behind the tokens is unknown */
    uint64_t tokens;
    char notice[400]; /* lines left out, bytes that are not UTF-8; "" for nothing */
};
KILN_API KILN_MUST_CHECK enum kiln_status kiln_eval(const struct kiln_model *model,
                                                    const struct kiln_eval_options *options,
                                                    struct kiln_eval_result *out,
                                                    struct kiln_err *err);

#ifdef __cplusplus
}
#endif

#endif
