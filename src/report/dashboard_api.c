/* SPDX-License-Identifier: MIT
 *
 * dashboard_api.c: what the page asks for, and what it asks of runs.
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "report/dashboard_int.h"
#include "report/view_int.h"
#include "train/control.h"

static const char json_mime[] = "application/json; charset=utf-8";
enum { POINTS = 600, MOST_POINTS = 4000 };

static enum MHD_Result reply_text(struct MHD_Connection *connection, unsigned status,
                                  struct kiln_text *text) {
    const enum MHD_Result queued =
        text->failed ? MHD_NO
                     : kiln_dash_reply(connection, status, json_mime, text->at, text->length);
    kiln_free(text->at);
    return queued;
}

/* ---- /api/runs --------------------------------------------------------------------------------
 */

static void write_run(struct kiln_text *text, const struct kiln_dash_run *run) {
    const struct kiln_view_summary *s = &run->summary;
    kiln_text_raw(text, "{");
    kiln_text_count_of(text, "id", run->id);
    kiln_text_string_of(text, "name", run->name);
    kiln_text_string_of(text, "folder", run->folder);
    kiln_text_string_of(text, "status", kiln_dash_status_name(run->status));
    if (run->status == KILN_DASH_FAILED) {
        kiln_text_string_of(text, "failed", run->failed);
    }
    kiln_text_count_of(text, "step", run->last.step);
    kiln_text_count_of(text, "total", s->total);
    kiln_text_number_of(text, "loss", run->last.step > 0 ? run->last.loss : (double)NAN);
    kiln_text_number_of(text, "val_loss", s->last_val);
    kiln_text_number_of(text, "tokens_per_s", run->last.tokens_per_s);
    kiln_text_number_of(text, "left_s",
                        run->status == KILN_DASH_RUNNING || run->status == KILN_DASH_STALE
                            ? s->left_s
                            : (double)NAN);
    kiln_text_count_of(text, "changed", run->seen.tv_sec > 0 ? (uint64_t)run->seen.tv_sec : 0);
    kiln_text_raw(text, "}");
}

enum MHD_Result kiln_dash_runs(struct kiln_dashboard *d, struct MHD_Connection *connection) {
    struct kiln_text text = {.length = 0};
    kiln_text_raw(&text, "{");
    kiln_text_count_of(&text, "left_out", d->left_out);
    kiln_text_key(&text, "runs");
    kiln_text_raw(&text, "[");
    for (size_t i = 0; i < d->n_runs; i++) {
        kiln_dash_refresh(&d->runs[i]);
        kiln_text_comma(&text);
        write_run(&text, &d->runs[i]);
    }
    kiln_text_raw(&text, "]}\n");
    return reply_text(connection, MHD_HTTP_OK, &text);
}

/* ---- /api/run ---------------------------------------------------------------------------------
 */

/* A whole number among the arguments, at most `most`; false: it is something else. */
static bool whole(struct MHD_Connection *connection, const char *key, uint64_t otherwise,
                  uint64_t most, uint64_t *out) {
    const char *given = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, key);
    char *end = NULL;
    *out = otherwise;
    if (given == NULL) {
        return true;
    }
    errno = 0;
    const size_t n = strlen(given);
    if (n == 0 || n > 19 || strspn(given, "0123456789") != n) {
        return false;
    }
    *out = strtoull(given, &end, 10);
    return errno == 0 && *out <= most;
}

static double peak_rate(const struct kiln_view *view) {
    const struct kiln_settings *s = &view->settings;
    return !view->known ? (double)NAN : s->n_peaks > 0 ? s->peak[s->n_peaks - 1].lr : s->lr;
}

/* [[steps done, rate], ...]: what the trainer obeyed, which it writes into run.json. */
static void write_peaks(struct kiln_text *text, const struct kiln_view *view) {
    const struct kiln_settings *s = &view->settings;
    kiln_text_key(text, "peaks");
    kiln_text_raw(text, "[");
    for (size_t i = 0; view->known && i < s->n_peaks; i++) {
        kiln_text_comma(text);
        kiln_text_raw(text, "[");
        kiln_text_count(text, s->peak[i].at);
        kiln_text_raw(text, ",");
        kiln_text_number(text, s->peak[i].lr);
        kiln_text_raw(text, "]");
    }
    kiln_text_raw(text, "]");
}

static enum MHD_Result reply_run(struct MHD_Connection *connection, struct kiln_dash_run *run,
                                 const struct kiln_view_options *options) {
    char *json = NULL;
    size_t size = 0;
    struct kiln_err err;
    if (kiln_view_json(run->view, options, &json, &size, &err) != KILN_OK) {
        return kiln_dash_fail(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, err.message);
    }
    struct kiln_text text = {.length = 0};
    kiln_dash_refresh(run);
    kiln_text_raw(&text, "{");
    kiln_text_key(&text, "run");
    write_run(&text, run);
    kiln_text_number_of(&text, "rate", peak_rate(run->view));
    write_peaks(&text, run->view);
    kiln_text_key(&text, "view");
    kiln_text_add(&text, json, size);
    kiln_text_raw(&text, "}\n");
    kiln_view_json_free(json);
    return reply_text(connection, MHD_HTTP_OK, &text);
}

enum MHD_Result kiln_dash_one(struct kiln_dashboard *d, struct MHD_Connection *connection) {
    struct kiln_view_options options = {.parts = KILN_VIEW_SERIES};
    uint64_t points, parts;
    const char *name = NULL;
    size_t n = 0;
    struct kiln_err err;
    (void)MHD_lookup_connection_value_n(connection, MHD_GET_ARGUMENT_KIND, "name", 4, &name, &n);
    struct kiln_dash_run *run = kiln_dash_find(d, name, n);
    if (run == NULL) {
        return kiln_dash_fail(connection, MHD_HTTP_NOT_FOUND, "there is no run of that name");
    }
    if (!whole(connection, "from", 0, INT64_MAX, &options.from) ||
        !whole(connection, "to", 0, INT64_MAX, &options.to) ||
        !whole(connection, "points", POINTS, MOST_POINTS, &points) ||
        !whole(connection, "parts", KILN_VIEW_SERIES, KILN_VIEW_ALL, &parts) || points == 0) {
        return kiln_dash_fail(connection, MHD_HTTP_BAD_REQUEST,
                              "from, to, points (1 to 4000) and parts (0 to 15) are whole numbers");
    }
    options.points = (size_t)points;
    options.parts = (unsigned)parts;
    if (kiln_dash_want(d, run, &err) != KILN_OK) {
        return kiln_dash_fail(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, err.message);
    }
    return reply_run(connection, run, &options);
}

/* ---- buttons ----------------------------------------------------------------------------------
 */

static enum MHD_Result ask(struct MHD_Connection *connection, const struct kiln_dash_run *run,
                           const struct kiln_request *request) {
    struct kiln_err err;
    if (run->status != KILN_DASH_RUNNING && run->status != KILN_DASH_STALE) {
        return kiln_dash_fail(connection, MHD_HTTP_CONFLICT, "nobody trains this run now");
    }
    const enum kiln_status status = kiln_control_ask(run->folder, request, &err);
    if (status != KILN_OK) {
        return kiln_dash_fail(
            connection,
            status == KILN_EUSAGE ? MHD_HTTP_BAD_REQUEST : MHD_HTTP_INTERNAL_SERVER_ERROR,
            err.message);
    }
    static const char done[] = "{\"asked\":true}\n";
    return kiln_dash_reply(connection, MHD_HTTP_ACCEPTED, json_mime, done, sizeof done - 1);
}

enum MHD_Result kiln_dash_control(struct kiln_dashboard *d, struct MHD_Connection *connection,
                                  bool stop, const char *body, size_t n) {
    json_t *object = memchr(body, 0, n) ? NULL : json_loadb(body, n, JSON_REJECT_DUPLICATES, NULL);
    const json_t *name = json_object_get(object, "run"), *lr = json_object_get(object, "lr");
    const struct kiln_request request = {.stop = stop,
                                         .lr = stop ? (double)NAN : json_number_value(lr)};
    const bool whole = json_is_string(name) && json_object_size(object) == (stop ? 1U : 2U) &&
                       (stop || json_is_number(lr));
    const struct kiln_dash_run *run =
        whole ? kiln_dash_find(d, json_string_value(name), json_string_length(name)) : NULL;
    enum MHD_Result queued;
    if (!whole) {
        queued = kiln_dash_fail(connection, MHD_HTTP_BAD_REQUEST,
                                stop ? "the body is not {\"run\": NAME}"
                                     : "the body is not {\"run\": NAME, \"lr\": NUMBER}");
    } else if (run == NULL) {
        queued = kiln_dash_fail(connection, MHD_HTTP_NOT_FOUND, "there is no run of that name");
    } else {
        queued = ask(connection, run, &request);
    }
    json_decref(object);
    return queued;
}
