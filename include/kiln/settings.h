/* SPDX-License-Identifier: MIT
 *
 * settings.h: every setting of a run, in one table.
 *
 * The table makes the struct, the command line's flags and their help, run.json, and the list
 * that a run prints at its start with where each value came from. To add a setting, add a line.
 *
 * Types: TEXT (a string or NULL), COUNT (uint64), REAL (double), SIZE (bytes; K, M, G of 1024),
 * FLAG (bool). An unset number is KILN_UNSET (COUNT, SIZE) or NaN (REAL) until the run fills it in
 * from the model and the machine.
 */
#ifndef KILN_SETTINGS_H
#define KILN_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/cpu.h"
#include "kiln/device.h"
#include "kiln/lora.h"
#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KILN_UNSET UINT64_MAX

/* type, member, flag, default, least, most, help. Defaults are written as on the command line;
 * "" means unset. Least and most bound numbers; what a TEXT may be is listed in settings.c. */
#define KILN_SETTINGS(XX)                                                                         \
    XX(TEXT, model, "model", "", 0, 0, "preset, .bin, .gguf, Hugging Face folder, or run")        \
    XX(COUNT, dim, "dim", "", 1, 1 << 20, "width D")                                              \
    XX(COUNT, hidden, "hidden", "", 1, 1 << 22, "feed-forward width F")                           \
    XX(COUNT, heads, "heads", "", 1, 1 << 16, "query heads H")                                    \
    XX(COUNT, kv_heads, "kv-heads", "", 1, 1 << 16, "key-value heads G; H is a multiple of G")    \
    XX(COUNT, layers, "layers", "", 1, 1 << 16, "layers L")                                       \
    XX(COUNT, vocab, "vocab", "", 2, 1 << 24, "vocabulary V")                                     \
    XX(COUNT, seq, "seq", "", 1, 1 << 20, "tokens in a sequence T (of the model)")                \
    XX(REAL, rms_eps, "rms-eps", "", 1e-30, 1, "added to the mean square of norms (the model's)") \
    XX(REAL, rope_theta, "rope-theta", "", 1e-3, 1e12, "base of the rotations (the model's)")     \
    XX(COUNT, lora, "lora", "", 1, KILN_LORA_MOST_RANK,                                           \
       "train adapters of this rank beside frozen weights (all weights)")                         \
    XX(REAL, lora_alpha, "lora-alpha", "", 1e-6, 1e6,                                             \
       "adapters add alpha/rank of theirs (2 rank)")                                              \
    XX(TEXT, lora_targets, "lora-targets", "", 0, 0,                                              \
       "matrices with adapters: of q,k,v,o,gate,up,down, or all (q,v)")                           \
    XX(TEXT, adapter, "adapter", "", 0, 0,                                                        \
       "folder of adapters (PEFT's layout) to begin with, or to add")                             \
    XX(TEXT, data, "data", "", 0, 0, "texts, JSONL, tokens to train on, as a.txt:2,b.txt:1")      \
    XX(TEXT, val, "val", "", 0, 0, "the same, to evaluate on (a part of --data)")                 \
    XX(COUNT, data_tokens, "data-tokens", "", 1, 1000000000000,                                   \
       "so many tokens of the beginnings of texts, by weight (all)")                              \
    XX(TEXT, tokenizer, "tokenizer", "", 0, 0,                                                    \
       "tokenizer.json, .model, .gguf, .bin or a folder (bytes)")                                 \
    XX(FLAG, blank_lines, "blank-lines", "0", 0, 1, "an empty line ends a document too")          \
    XX(FLAG, skip_bad, "skip-bad", "0", 0, 1, "leave lines of JSONL out that cannot be used")     \
    XX(TEXT, chat_template, "chat-template", "", 0, 0,                                            \
       "how conversations are written: a file or folder (the model's)")                           \
    XX(FLAG, doc_mask, "doc-mask", "0", 0, 1, "attention does not look into other documents")     \
    XX(TEXT, out, "out", "", 0, 0, "run folder (runs/MODEL-DATA)")                                \
    XX(REAL, minutes, "minutes", "", 0.01, 1e6,                                                   \
       "end after so long; what is not given is chosen (docs/minutes.md)")                        \
    XX(COUNT, steps, "steps", "100", 1, 1000000000, "optimizer updates")                          \
    XX(COUNT, batch, "batch", "8", 1, 1 << 16, "sequences in a micro-batch B")                    \
    XX(COUNT, accum, "accum", "", 1, 1 << 20, "micro-batches in a window (of the preset, or 10)") \
    XX(REAL, lr, "lr", "3e-4", 0, 1e3, "peak learning rate")                                      \
    XX(REAL, min_lr, "min-lr", "", 0, 1e3, "learning rate at the end (lr/10)")                    \
    XX(COUNT, warmup, "warmup", "", 0, 1000000000,                                                \
       "steps of linear warm-up (a tenth of steps, 100 at most)")                                 \
    XX(TEXT, decay, "decay", "cosine", 0, 0, "constant, linear or cosine after the warm-up")      \
    XX(REAL, weight_decay, "weight-decay", "0.1", 0, 1e3, "decoupled decay of rank-2 tensors")    \
    XX(REAL, beta1, "beta1", "0.9", 0, 0.999999, "AdamW's decay of the first moment")             \
    XX(REAL, beta2, "beta2", "0.95", 0, 0.999999, "AdamW's decay of the second moment")           \
    XX(REAL, eps, "eps", "1e-8", 1e-30, 1, "AdamW's term in the denominator")                     \
    XX(REAL, clip, "clip", "1.0", 0, 1e9, "largest global gradient norm; 0 is no limit")          \
    XX(COUNT, seed, "seed", "1", 0, UINT64_MAX - 1, "of weights, data order and samples")         \
    XX(FLAG, deterministic, "deterministic", "0", 0, 1,                                           \
       "add micro-batches by one tree: equal bits on any number of ranks")                        \
    XX(FLAG, shard_optimizer, "shard-optimizer", "0", 0, 1,                                       \
       "ranks: each holds and updates its part of weights and moments")                           \
    XX(TEXT, reduce_precision, "reduce-precision", "fp32", 0, 0,                                  \
       "gradients travel between ranks as fp32 or bf16 (docs/distributed.md)")                    \
    XX(COUNT, local_steps, "local-steps", "1", 1, 1000000000,                                     \
       "steps of a rank between two sums, an outer step each (docs/distributed.md)")              \
    XX(REAL, outer_lr, "outer-lr", "0.7", 0, 100, "--local-steps: rate of outer steps")           \
    XX(REAL, outer_momentum, "outer-momentum", "0.9", 0, 0.999999,                                \
       "--local-steps: Nesterov's momentum of outer steps")                                       \
    XX(COUNT, eval_every, "eval-every", "", 0, 1000000000,                                        \
       "steps between evaluations (a tenth of steps)")                                            \
    XX(COUNT, eval_windows, "eval-windows", "64", 1, 1 << 20, "windows an evaluation reads")      \
    XX(COUNT, sample_every, "sample-every", "", 0, 1000000000,                                    \
       "steps between samples; 0 is never (at evaluations, 1 % of the time)")                     \
    XX(TEXT, prompt, "prompt", "", 0, 0, "prompt of the samples")                                 \
    XX(COUNT, save_every, "save-every", "", 0, 1000000000,                                        \
       "steps between checkpoints (a fifth of steps)")                                            \
    XX(COUNT, keep_checkpoints, "keep-checkpoints", "2", 1, 1000, "checkpoints that stay")        \
    XX(TEXT, precision, "precision", "auto", 0, 0,                                                \
       "operands: auto, fp32 or bf16 on cpu; fp16 on sim and ane")                                \
    XX(TEXT, device, "device", "cpu", 0, 0, "cpu, sim (a simulated Neural Engine) or ane")        \
    XX(TEXT, dw, "dw", "cpu", 0, 0,                                                               \
       "weight gradients: cpu, or gpu: an OpenCL device, through CLBlast")                        \
    XX(TEXT, weight_mode, "weight-mode", "baked", 0, 0,                                           \
       "sim, ane: baked into programs, or dynamic: inputs of programs compiled once")             \
    XX(FLAG, no_extras, "no-extras", "0", 0, 1,                                                   \
       "sim, ane: classifier, softmax and the norms' backward stay on the host")                  \
    XX(REAL, sim_time, "sim-time", "0", 0, 1000,                                                  \
       "sim: time charged, as a multiple of the device's; 0 is none")                             \
    XX(TEXT, profile, "profile", "", 0, 0,                                                        \
       "times of a device: m1-pro, m3-max, m4, m5, or a profile.json (kiln probe)")               \
    XX(TEXT, sim, "sim", "", 0, 0,                                                                \
       "sim: what to believe of the hardware, as nan=zero,single-input=on (kiln mil limits)")     \
    XX(COUNT, threads, "threads", "", 1, 256, "threads (all processors)")                         \
    XX(COUNT, budget, "budget", "", 1, 100000,                                                    \
       "kernels a process may compile (sim, ane: 119; cpu: no limit)")                            \
    XX(COUNT, load_budget, "load-budget", "", 1, 100000,                                          \
       "kernels a process may hold loaded (as --budget)")                                         \
    XX(REAL, headroom, "headroom", "0.10", 0, 0.999999, "share of both left unused, below 1")     \
    XX(TEXT, schedule, "schedule", "split", 0, 0, "whole or split")                               \
    XX(TEXT, activations, "activations", "auto", 0, 0,                                            \
       "all, boundary, sqrt, every:N, inputs, none or auto")                                      \
    XX(SIZE, memory, "memory", "", 1, INT64_MAX,                                                  \
       "most memory to use, as 8G (80 % of what is free)")                                        \
    XX(TEXT, overlap, "overlap", "exact", 0, 0,                                                   \
       "off, exact: compile while computing, or delayed: a step behind")                          \
    XX(COUNT, pipeline, "pipeline", "1", 1, 1 << 16,                                              \
       "stages: groups of layers on so many ranks at once (docs/distributed.md)")                 \
    XX(TEXT, restart, "restart", "exec", 0, 0,                                                    \
       "exec: the process replaces itself; relay: its successor starts early")                    \
    XX(TEXT, on_spike, "on-spike", "record", 0, 0,                                                \
       "a loss or gradient far off: record, skip, rollback, stop (docs/flight-recorder.md)")      \
    XX(REAL, spike_z, "spike-z", "8", 0.01, 1e6,                                                  \
       "deviations from the recent steps that are a spike")                                       \
    XX(COUNT, log_every, "log-every", "1", 1, 1000000000, "steps between lines where piped")      \
    XX(FLAG, curve, "curve", "0", 0, 1, "draw the loss in the terminal as it goes")               \
    XX(FLAG, tensorboard, "tensorboard", "0", 0, 1, "write TensorBoard's event files, too")       \
    XX(COUNT, trace_steps, "trace-steps", "4", 0, 1000000000,                                     \
       "first steps of the run that trace.json lists; 0 is none")                                 \
    XX(TEXT, state, "state", "", 0, 0, "folder for the state file (the run folder)")

enum kiln_setting_id {
#define KILN_SETTING_ID(type, member, ...) KILN_SETTING_##member,
    KILN_SETTINGS(KILN_SETTING_ID)
#undef KILN_SETTING_ID
        KILN_SETTING_COUNT
};

enum kiln_setting_type {
    KILN_TYPE_TEXT,
    KILN_TYPE_COUNT,
    KILN_TYPE_REAL,
    KILN_TYPE_SIZE,
    KILN_TYPE_FLAG,
};

/* Where a value came from. */
enum kiln_origin {
    KILN_FROM_DEFAULT,
    KILN_FROM_MODEL, /* the preset, checkpoint or run that was named */
    KILN_FROM_MACHINE,
    KILN_FROM_FLAG,
    KILN_FROM_RUN,     /* run.json of a resumed run */
    KILN_FROM_MINUTES, /* chosen for the time that there is (choose.h) */
};

#define KILN_MEMBER_TEXT  char *
#define KILN_MEMBER_COUNT uint64_t
#define KILN_MEMBER_REAL  double
#define KILN_MEMBER_SIZE  uint64_t
#define KILN_MEMBER_FLAG  bool

/* A run with --minutes may find out on the way that its machine is slower or faster than measured:
 * then `steps` changes (docs/minutes.md). From step `at` on (so many are done) the learning rate
 * goes to its end in the steps that are left; before, there were to be `before` steps. All are
 * kept, in order, so that the learning rate stays a pure function of settings and step. */
struct kiln_turn {
    uint64_t at, before;
};
enum { KILN_TURNS = 16 };

/* Whoever watches a run may change its peak learning rate (src/train/control.h): behind step `at`
 * (so many are done) the whole schedule is that of --lr times lr over --lr, warm-up and end
 * included. All are kept, in order, for the same reason. */
struct kiln_peak {
    uint64_t at;
    double lr;
};
enum { KILN_PEAKS = 64 };

/* --on-spike rollback: at step `at` (so many are done) the state was put back to the checkpoint
 * there, and the data was not: from there on its position is `samples` further than steps say. All
 * are kept, in order, so that it stays a pure function of settings and step; where there is no room
 * for more, the two oldest become one. */
struct kiln_jump {
    uint64_t at, samples;
};
enum { KILN_JUMPS = 128 };

struct kiln_settings {
#define KILN_SETTING_MEMBER(type, member, ...) KILN_MEMBER_##type member;
    KILN_SETTINGS(KILN_SETTING_MEMBER)
#undef KILN_SETTING_MEMBER
    enum kiln_origin origin[KILN_SETTING_COUNT];
    struct kiln_turn turn[KILN_TURNS];
    size_t n_turns;
    struct kiln_peak peak[KILN_PEAKS];
    size_t n_peaks;
    struct kiln_jump jump[KILN_JUMPS];
    size_t n_jumps;
    /* No setting: the processes that train together (ranks.h), NULL for this one alone. Borrowed,
     * and not written to run.json. */
    struct kiln_ranks *ranks;
};

/* One line of the table, for help and listings. */
struct kiln_setting {
    const char *member;  /* key in run.json */
    const char *flag;    /* without the dashes */
    const char *initial; /* default, "" for unset */
    const char *help;
    enum kiln_setting_type type;
    double least, most;
    size_t offset;              /* in struct kiln_settings */
    const char *const *choices; /* TEXT: the valid values, NULL at the end; NULL: any text */
    /* For whoever helps with typing: values of a TEXT that are worth offering where others are
     * valid, too (NULL: none), and whether it may name a file or a folder. */
    const char *const *offers;
    bool path;
};
KILN_API const struct kiln_setting *kiln_setting(enum kiln_setting_id id);
/* The setting with that flag (without dashes), or -1. */
KILN_API int kiln_setting_find(const char *flag);

/* All defaults. kiln_settings_free what this or any later call made. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_settings_init(struct kiln_settings *settings,
                                                             struct kiln_err *err);
KILN_API void kiln_settings_free(struct kiln_settings *settings);
KILN_API KILN_MUST_CHECK enum kiln_status kiln_settings_copy(struct kiln_settings *out,
                                                             const struct kiln_settings *from,
                                                             struct kiln_err *err);
/* Parse and set one; "" unsets it, but from a flag only the prompt may be empty. KILN_EUSAGE names
 * the flag, the text and the valid values. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_settings_set(struct kiln_settings *settings,
                                                            enum kiln_setting_id id,
                                                            const char *text,
                                                            enum kiln_origin origin,
                                                            struct kiln_err *err);
/* Set several, each as a flag: pairs of a flag's name without dashes and its value, then NULL.
 *
 *   kiln_settings_set_all(&s, &err, "data", "book.txt", "steps", "200", (char *)NULL);
 *
 * KILN_EUSAGE also for a name that no setting has; those before it are set then. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_settings_set_all(struct kiln_settings *settings,
                                                                struct kiln_err *err,
                                                                ...) KILN_NULL_AT_END;
/* The value as text; buffer of at least 512 bytes. Unset values give "". */
KILN_API const char *kiln_settings_text(const struct kiln_settings *settings,
                                        enum kiln_setting_id id, char *buffer, size_t size);
/* "default", "model", "machine", "flag", "run", "minutes". */
KILN_API const char *kiln_origin_name(enum kiln_origin origin);

/* The device that they name, and the precision it computes in: never AUTO on sim and ane.
 * KILN_EUSAGE where a setting and the device exclude each other, with the reason. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_settings_device(const struct kiln_settings *settings,
                                                               struct kiln_device_choice *device,
                                                               enum kiln_precision *precision,
                                                               struct kiln_err *err);

/* rms_eps and rope_theta over those of a model, where they are set. */
struct kiln_dims;
KILN_API void kiln_settings_arithmetic(const struct kiln_settings *settings,
                                       struct kiln_dims *dims);

/* The adapters that they ask for; rank 0 where they ask for none. KILN_EUSAGE: a target that there
 * is not, a setting of adapters without --lora, or one that adapters exclude. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_settings_lora(const struct kiln_settings *settings,
                                                             struct kiln_lora *out,
                                                             struct kiln_err *err);

/* As a JSON object on the heap (free with kiln_settings_json_free), and back from one. Unknown
 * keys are ignored, so that an older kiln reads a newer run.json as far as it can. */
KILN_API char *kiln_settings_to_json(const struct kiln_settings *settings);
KILN_API void kiln_settings_json_free(char *json);
KILN_API KILN_MUST_CHECK enum kiln_status kiln_settings_from_json(struct kiln_settings *settings,
                                                                  const char *json, size_t size,
                                                                  struct kiln_err *err);

/* A whole number (10_000 is read as 10000), a real number, a size (whole or not, then K, M, G or T
 * of 1024): the one way to read numbers from a command line. `flag` is shown as it is ("--steps").
 * KILN_EUSAGE when `text` is anything else: flag, text, the valid values. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_parse_count(const char *flag, const char *text,
                                                           uint64_t least, uint64_t most,
                                                           uint64_t *out, struct kiln_err *err);
KILN_API KILN_MUST_CHECK enum kiln_status kiln_parse_real(const char *flag, const char *text,
                                                          double least, double most, double *out,
                                                          struct kiln_err *err);
KILN_API KILN_MUST_CHECK enum kiln_status kiln_parse_size(const char *flag, const char *text,
                                                          uint64_t least, uint64_t most,
                                                          uint64_t *out, struct kiln_err *err);

#ifdef __cplusplus
}
#endif

#endif
