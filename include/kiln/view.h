/* SPDX-License-Identifier: MIT
 *
 * view.h: a run folder as others look at it: what its files say, also while it is trained.
 *
 *   struct kiln_view *view;            kiln_view_open("runs/book", &view, &err);
 *   for (;;) {                         kiln_view_poll(view, &change, &err);   reads what was added
 *       kiln_view_step(view, i) ...    kiln_view_json(view, &options, &text, &size, &err);
 *   }
 *   kiln_view_close(view);
 *
 * A view only reads. It takes no lock, so that the run may be trained, killed and cut back to its
 * cursor beside it: what a file says last counts. Files that are absent, cut in the middle of a
 * line or of an older kiln are no failure: what they do not say is not there (NaN, 0, NULL). Views
 * are independent of each other; one view is for one thread at a time.
 *
 * Memory: about 320 bytes a step, and the texts of the samples. 100 000 steps are read in about a
 * fifth of a second.
 */
#ifndef KILN_VIEW_H
#define KILN_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/plan.h"
#include "kiln/status.h"
#include "kiln/train.h"

#ifdef __cplusplus
extern "C" {
#endif

struct kiln_view;

/* Errors: KILN_EINPUT the folder is no run: neither run.json nor metrics.jsonl is in it; KILN_EIO,
 * KILN_ENOMEM. All files are read once: a poll follows for what comes later. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_view_open(const char *folder, struct kiln_view **out,
                                                         struct kiln_err *err);
/* NULL is fine. */
KILN_API void kiln_view_close(struct kiln_view *view);

/* What a poll found. */
struct kiln_view_change {
    bool any;
    size_t first_step; /* steps from this index on are new or others; kiln_view_steps(): none is */
    bool samples, facts; /* facts: settings, plan, checkpoints */
    bool incidents, timeline;
};
/* Read what was added since the last time; where nothing was this costs a few stats. A
 * metrics.jsonl that was cut or rewritten is read again from where it differs. Errors as
 * kiln_view_open; the view stays usable and as far as it came. A folder that went away is KILN_EIO.
 */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_view_poll(struct kiln_view *view,
                                                         struct kiln_view_change *change,
                                                         struct kiln_err *err);

/* The folder as it was given, and its last part: "book". */
KILN_API const char *kiln_view_folder(const struct kiln_view *view);
KILN_API const char *kiln_view_name(const struct kiln_view *view);

/* ---- steps -------------------------------------------------------------------------------------
 * In order, every step once: where a line takes a step again, those from there on are dropped. What
 * a line lacks is NaN, 0 or -1 (val_generation). Pointers are valid until the next poll. */
KILN_API size_t kiln_view_steps(const struct kiln_view *view);
KILN_API const struct kiln_step_record *kiln_view_step(const struct kiln_view *view, size_t i);
/* The loss as the progress line smooths it: exponential mean, weight 0.1 a step, from the first
 * line on; NaN before the first finite loss. */
KILN_API double kiln_view_smoothed(const struct kiln_view *view, size_t i);
/* Lines of metrics.jsonl that cannot be read, a last one without an end included: while a run is
 * trained that one may just be written. Empty lines count as nothing. `text`, of KILN_VIEW_TEXT
 * bytes, becomes "2 lines of metrics.jsonl cannot be read: 5, 9", "" where there is none; it names
 * the first KILN_VIEW_UNREAD. */
enum { KILN_VIEW_UNREAD = 8, KILN_VIEW_TEXT = 200 };
KILN_API size_t kiln_view_unread(const struct kiln_view *view, char *text);
/* Index of the first step >= `step`; kiln_view_steps() where there is none. */
KILN_API size_t kiln_view_find(const struct kiln_view *view, uint64_t step);

/* ---- samples (samples.jsonl) -------------------------------------------------------------------
 * In the order of the steps; of a step that occurs twice the last one. */
struct kiln_view_sample {
    uint64_t step;
    const char *text; /* UTF-8, as the model said it: may hold anything but a zero byte */
};
KILN_API size_t kiln_view_samples(const struct kiln_view *view);
KILN_API const struct kiln_view_sample *kiln_view_sample(const struct kiln_view *view, size_t i);

/* ---- facts (run.json) --------------------------------------------------------------------------
 */
struct kiln_view_setting {
    const char *flag;   /* "kv-heads" */
    const char *value;  /* as typed on the command line; "" where it is unset */
    const char *origin; /* "default", "flag", "model", "machine", "minutes", or "run" where an
                         * older run.json does not tell */
};
/* In the order of kiln/settings.h; 0 where there is no run.json that can be read. */
KILN_API size_t kiln_view_settings(const struct kiln_view *view);
KILN_API const struct kiln_view_setting *kiln_view_setting(const struct kiln_view *view, size_t i);
/* The value of one, "" where it is unset or unknown. */
KILN_API const char *kiln_view_value(const struct kiln_view *view, enum kiln_setting_id id);
/* What the run was planned to take; false: run.json is of an older kiln and does not say. */
KILN_API bool kiln_view_plan(const struct kiln_view *view, struct kiln_memory *memory,
                             struct kiln_plan_time *time);
/* Steps of the checkpoints that are there, in order. */
KILN_API size_t kiln_view_checkpoints(const struct kiln_view *view);
KILN_API uint64_t kiln_view_checkpoint(const struct kiln_view *view, size_t i);

/* ---- incidents (incidents/step-N/incident.json) ------------------------------------------------
 */
struct kiln_view_incident {
    uint64_t step;
    const char *why, *action;  /* "loss spike", "skipped"; never NULL */
    double loss, grad_norm, z; /* NaN: not finite, or unknown */
    double mean, deviation;    /* of the steps that it was held against */
    const char *first_tensor;  /* the first with a number that is not finite; "": none */
    bool weights;              /* kept: kiln explain can take the step again */
};
KILN_API size_t kiln_view_incidents(const struct kiln_view *view);
KILN_API const struct kiln_view_incident *kiln_view_incident(const struct kiln_view *view,
                                                             size_t i);

/* ---- the timeline (trace.json) -----------------------------------------------------------------
 * Spans of the steps that the run lists (--trace-steps). Where there are more than a page can draw,
 * neighbours of one kind in one row are put together, the nearest first. */
struct kiln_view_span {
    double start, end; /* seconds from the first span's start */
    const char *track; /* "device", "compiler", "host queue", "optimizer", "I/O", "process" */
    const char *kind;  /* "evaluate", "stall", ... */
    const char *name;  /* "attn_fwd"; the kind where several were put together */
    uint32_t row;      /* within its track */
    uint32_t count;    /* spans that this one stands for */
    uint64_t step;
    int64_t generation; /* -1: none */
    int32_t layer;      /* -1: none */
};
enum { KILN_VIEW_SPANS = 4000 }; /* at most */
KILN_API size_t kiln_view_spans(const struct kiln_view *view);
KILN_API const struct kiln_view_span *kiln_view_span(const struct kiln_view *view, size_t i);

/* ---- all of it at a glance ---------------------------------------------------------------------
 */
struct kiln_view_summary {
    uint64_t steps;       /* lines that there are */
    uint64_t step, total; /* the last one done; of how many, 0: unknown */
    uint64_t tokens, restarts, skipped;
    double first_loss, last_loss, smoothed; /* NaN: unknown */
    double best_loss, best_val, last_val;
    uint64_t best_loss_step, best_val_step;
    double seconds;      /* of all steps, evaluations left out */
    double step_s;       /* median of the last 100 steps; NaN */
    double left_s;       /* at that pace, to the last step; NaN */
    double tokens_per_s; /* of all steps */
    uint64_t peak_bytes; /* the largest */
    /* Milliseconds of all steps, by what they went into. The first seven add up to ms:
     * of host_ms what waiting and surfaces do not take. */
    double device_ms, host_ms, dw_wait_ms, io_ms, update_ms, stall_ms, restart_ms;
    double ms, compile_ms, overlap_ms; /* the last two: beside the others */
};
KILN_API struct kiln_view_summary kiln_view_summary(const struct kiln_view *view);

/* ---- JSON for pages ----------------------------------------------------------------------------
 */
enum kiln_view_parts {
    KILN_VIEW_SERIES = 1,   /* "series", "time" */
    KILN_VIEW_FACTS = 2,    /* "settings", "plan", "measured", "checkpoints", "incidents" */
    KILN_VIEW_SAMPLES = 4,  /* "samples" */
    KILN_VIEW_TIMELINE = 8, /* "timeline" */
    KILN_VIEW_ALL = 15
};
struct kiln_view_options {
    uint64_t from, to; /* steps of the series, both included; to 0: the last */
    size_t points;     /* a series has at most about so many; 0: every step */
    unsigned parts;    /* kiln_view_parts; "name", "folder" and "summary" are always there */
};
/* One object, as docs/formats.md has it ("A run as JSON"). Series keep what would be seen of all
 * points: of each stretch of steps the least and the greatest value, at their steps. Smoothing is
 * over all steps. Numbers have 6 digits, those that are not finite are null, and no text holds a
 * "<", so that it may stand inside a page. The same folder gives the same bytes. *out is on the
 * heap, with a zero behind it: kiln_view_json_free. Errors: KILN_ENOMEM. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_view_json(const struct kiln_view *view,
                                                         const struct kiln_view_options *options,
                                                         char **out, size_t *size,
                                                         struct kiln_err *err);
KILN_API void kiln_view_json_free(char *text);
/* A step as the JSON that a live page appends: {"step":..,"loss":..,"smoothed":..,...}, the keys of
 * "series". Returns its length, as snprintf; 700 bytes are enough. */
KILN_API size_t kiln_view_step_json(const struct kiln_view *view, size_t i, char *out, size_t size);

#ifdef __cplusplus
}
#endif

#endif
