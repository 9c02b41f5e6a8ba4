/* SPDX-License-Identifier: MIT
 *
 * view_int.h: a view, for the files that read its parts.
 *
 *   view.c         opens, polls, and metrics.jsonl
 *   view_folder.c  run.json, samples.jsonl, incidents/, checkpoints/
 *   view_trace.c   trace.json
 *   view_json.c    the JSON for pages; series.c what is left of many points
 *   summary.c      all of it at a glance
 */
#ifndef KILN_REPORT_VIEW_INT_H
#define KILN_REPORT_VIEW_INT_H

#include <sys/stat.h>

#include "kiln/view.h"

/* Has a file or folder changed since it was read? What was seen then. */
struct kiln_seen {
    uint64_t device, inode, size;
    int64_t seconds, nanoseconds;
    bool there;
};
/* True when it has; *seen becomes what there is now. */
bool kiln_seen_change(struct kiln_seen *seen, const char *path);

/* A step, and where its line lies: a file that was cut and grew again is told by the lines. */
struct kiln_view_row {
    struct kiln_step_record record;
    double smoothed;
    uint64_t start;
    uint32_t bytes, crc;
    uint32_t line, unread; /* its number, from 1; lines before it that cannot be read */
};

struct kiln_trace_spans {
    struct kiln_view_span *at;
    size_t n;
    char (*names)[64]; /* that the spans point to */
    size_t n_names;
};

struct kiln_view {
    char folder[4096];
    const char *name; /* in folder */

    struct kiln_seen metrics_seen;
    struct kiln_view_row *rows;
    size_t n_rows, room;
    uint64_t read_to;                  /* of metrics.jsonl: whole lines up to here are in rows */
    uint32_t lines, n_unread;          /* of them; that cannot be read */
    uint32_t unread[KILN_VIEW_UNREAD]; /* numbers of the first of those */
    bool torn;                         /* behind read_to there is a line without an end */

    struct kiln_seen samples_seen;
    struct kiln_view_sample *samples;
    size_t n_samples;

    struct kiln_seen run_seen;
    struct kiln_settings settings;
    bool known; /* settings have been read */
    struct kiln_view_setting shown[KILN_SETTING_COUNT];
    size_t n_settings;
    bool planned;
    struct kiln_memory memory;
    struct kiln_plan_time time;

    struct kiln_seen checkpoints_seen;
    uint64_t *checkpoints;
    size_t n_checkpoints;

    struct kiln_seen incidents_seen;
    struct kiln_view_incident *incidents;
    size_t n_incidents;

    struct kiln_seen trace_seen;
    struct kiln_trace_spans trace;
};

/* "folder/name"; size of the folder and a little. */
void kiln_view_path(const struct kiln_view *view, const char *name, char out[4300]);

/* Each reads a part again where its files have changed, and says so. */
KILN_MUST_CHECK enum kiln_status kiln_view_read_run(struct kiln_view *view, bool *changed,
                                                    struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_view_read_samples(struct kiln_view *view, bool *changed,
                                                        struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_view_read_checkpoints(struct kiln_view *view, bool *changed,
                                                            struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_view_read_incidents(struct kiln_view *view, bool *changed,
                                                          struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_view_read_trace(struct kiln_view *view, bool *changed,
                                                      struct kiln_err *err);
/* What they hold goes. */
void kiln_view_drop_run(struct kiln_view *view);
void kiln_view_drop_samples(struct kiln_view *view);
void kiln_view_drop_incidents(struct kiln_view *view);

/* The spans of a trace's text, put together until there are at most KILN_VIEW_SPANS. A text that is
 * no trace has none. KILN_ENOMEM. */
KILN_MUST_CHECK enum kiln_status kiln_trace_read(const char *text, size_t size,
                                                 struct kiln_trace_spans *out,
                                                 struct kiln_err *err);
void kiln_trace_spans_free(struct kiln_trace_spans *spans);

#endif
