/* SPDX-License-Identifier: MIT
 *
 * report.c: report.html, and when a training process writes it.
 */
#include "kiln/report.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/leftovers.h"
#include "base/machine.h"
#include "base/mem.h"
#include "report/page.h"
#include "report/tensorboard.h"

/* ---- the page ----------------------------------------------------------------------------------
 */

enum kiln_status kiln_report_page(const struct kiln_view *const *views, size_t n, char **out,
                                  size_t *size, struct kiln_err *err) {
    const struct kiln_view_options options = {.points = KILN_REPORT_POINTS, .parts = KILN_VIEW_ALL};
    struct kiln_text data = {0}, page = {0};
    enum kiln_status status = KILN_OK;
    *out = NULL;
    *size = 0;
    KILN_REQUIRE(n > 0, err, KILN_EUSAGE, "report: name a run");
    kiln_text_raw(&data, "[");
    for (size_t i = 0; status == KILN_OK && i < n; i++) {
        char *json;
        size_t length;
        status = kiln_view_json(views[i], &options, &json, &length, err);
        if (status == KILN_OK) {
            kiln_text_raw(&data, i > 0 ? ",\n" : "");
            kiln_text_add(&data, json, length);
        }
        kiln_view_json_free(json);
    }
    kiln_text_raw(&data, "]");
    if (status == KILN_OK && !data.failed) {
        kiln_page_write(&page, "report.html", data.at);
    }
    if (status == KILN_OK && (data.failed || page.failed)) {
        status = KILN_FAIL(err, KILN_ENOMEM, "report: no memory for its page");
    }
    kiln_free(data.at);
    if (status != KILN_OK) {
        kiln_free(page.at);
        return status;
    }
    *out = page.at;
    *size = page.length;
    return KILN_OK;
}

static enum kiln_status write_failed(struct kiln_err *err, const char *path, int why) {
    return KILN_FAIL(err, KILN_EIO, "write %s: %s", path, strerror(why));
}

/* Under its temporary name. */
static enum kiln_status write_text(const char *temporary, const char *text, size_t size,
                                   struct kiln_err *err) {
    FILE *file = fopen(temporary, "we");
    if (file == NULL) {
        return write_failed(err, temporary, errno);
    }
    const bool written = fwrite(text, 1, size, file) == size && fflush(file) == 0;
    const int why = errno;
    if (fclose(file) != 0 || !written) {
        return write_failed(err, temporary, written ? errno : why);
    }
    return KILN_OK;
}

static enum kiln_status replace(const char *path, const char *text, size_t size,
                                struct kiln_err *err) {
    char temporary[4400];
    struct stat st;
    KILN_REQUIRE(strlen(path) < 4300, err, KILN_EUSAGE, "report: the path is too long");
    KILN_REQUIRE(stat(path, &st) != 0 || S_ISREG(st.st_mode), err, KILN_EINPUT,
                 "write %s: it exists and is not a regular file", path);
    snprintf(temporary, sizeof temporary, "%s.tmp-%ld", path, (long)getpid());
    enum kiln_status status = write_text(temporary, text, size, err);
    if (status == KILN_OK && rename(temporary, path) != 0) {
        status = write_failed(err, path, errno);
    }
    if (status != KILN_OK) {
        unlink(temporary);
    }
    return status;
}

enum kiln_status kiln_report_write(const char *path, const struct kiln_view *const *views, size_t n,
                                   struct kiln_err *err) {
    char *text;
    size_t size;
    KILN_TRY(kiln_report_page(views, n, &text, &size, err));
    const enum kiln_status status = replace(path, text, size, err);
    kiln_free(text);
    return status;
}

/* ---- the recorder ------------------------------------------------------------------------------
 */

/* Seconds between pages: at least so many, and so many times what the last one took. */
#define LEAST 30.0
#define TIMES 100.0
#define LATE  90.0 /* it is due, and no evaluation comes */

struct kiln_recorder {
    char folder[4096];
    char path[4200];
    void (*notice)(void *context, const char *text);
    void *context;
    double next; /* of kiln_now_s: not before */
    bool told;   /* that it cannot be written */
    struct {
        bool wanted, told;
        double next;
        struct kiln_tensorboard *file; /* NULL: not yet looked at by this process */
    } events;
};

/* Of a run of many processes each would have its first page, and read all steps for it: the file
 * says when the last one was written, and the length of metrics.jsonl what that took, about. */
#define BYTES_PER_S 2e8

static double first_time(const struct kiln_recorder *r) {
    struct stat st;
    struct timespec now;
    char metrics[4300];
    snprintf(metrics, sizeof metrics, "%s/metrics.jsonl", r->folder);
    const double took = stat(metrics, &st) == 0 ? (double)st.st_size / BYTES_PER_S : 0;
    const double pause = TIMES * took > LEAST ? TIMES * took : LEAST;
    if (stat(r->path, &st) != 0 || clock_gettime(CLOCK_REALTIME, &now) != 0) {
        return kiln_now_s();
    }
    const double age = (double)(now.tv_sec - st.st_mtim.tv_sec);
    return kiln_now_s() + (age < 0 || age > pause ? 0 : pause - age);
}

/* Event files are short of work behind the first time, when all of one is compared with the run: a
 * process that may not live long leaves that to the next. */
#define EVENTS_LEAST       2.0
#define EVENTS_BYTES_PER_S 5e7

static double first_events(const struct kiln_recorder *r) {
    struct stat st;
    char metrics[4300];
    snprintf(metrics, sizeof metrics, "%s/metrics.jsonl", r->folder);
    const double took = stat(metrics, &st) == 0 ? (double)st.st_size / EVENTS_BYTES_PER_S : 0;
    const double pause = TIMES * took > EVENTS_LEAST ? TIMES * took : EVENTS_LEAST;
    const double age = kiln_tensorboard_age(r->folder);
    return kiln_now_s() + (age < 0 || age > pause ? 0 : pause - age);
}

enum kiln_status kiln_recorder_open(const struct kiln_run_info *info,
                                    void (*notice)(void *context, const char *text), void *context,
                                    struct kiln_recorder **out, struct kiln_err *err) {
    struct kiln_recorder *r = *out = kiln_alloc(1, sizeof *r);
    char stem[4300];
    KILN_REQUIRE(r, err, KILN_ENOMEM, "report: no memory for a recorder");
    snprintf(r->folder, sizeof r->folder, "%s", info->folder);
    snprintf(r->path, sizeof r->path, "%s/report.html", info->folder);
    snprintf(stem, sizeof stem, "%s.tmp-", r->path);
    kiln_leftovers_remove(stem);
    r->notice = notice;
    r->context = context;
    r->next = first_time(r);
    r->events.wanted = info->settings != NULL && info->settings->tensorboard;
    r->events.next = first_events(r);
    return KILN_OK;
}

static enum kiln_status bring_events(struct kiln_recorder *r, struct kiln_err *err) {
    if (r->events.file == NULL) {
        KILN_TRY(kiln_tensorboard_open(r->folder, r->folder, &r->events.file, err));
    }
    return kiln_tensorboard_update(r->events.file, err);
}

static void events_now(struct kiln_recorder *r) {
    struct kiln_err err;
    const double start = kiln_now_s();
    const enum kiln_status status = bring_events(r, &err);
    const double end = kiln_now_s(), pause = TIMES * (end - start);
    r->events.next = end + (pause > EVENTS_LEAST ? pause : EVENTS_LEAST);
    if (status != KILN_OK && !r->events.told && r->notice != NULL) {
        char text[900];
        snprintf(text, sizeof text, "the event file is not written: %s; training goes on",
                 err.message);
        r->notice(r->context, text);
        r->events.told = true;
    }
}

static void events_if_time(struct kiln_recorder *r) {
    if (r->events.wanted && kiln_now_s() >= r->events.next) {
        events_now(r);
    }
}

static enum kiln_status write_page(const struct kiln_recorder *r, struct kiln_err *err) {
    struct kiln_view *view;
    KILN_TRY(kiln_view_open(r->folder, &view, err));
    const struct kiln_view *const views[] = {view};
    const enum kiln_status status = kiln_report_write(r->path, views, 1, err);
    kiln_view_close(view);
    return status;
}

static void write_now(struct kiln_recorder *r) {
    struct kiln_err err;
    const double start = kiln_now_s();
    const enum kiln_status status = write_page(r, &err);
    const double end = kiln_now_s(), pause = TIMES * (end - start);
    r->next = end + (pause > LEAST ? pause : LEAST);
    if (status != KILN_OK && !r->told && r->notice != NULL) {
        char text[900];
        snprintf(text, sizeof text, "the report is not written: %s; training goes on", err.message);
        r->notice(r->context, text);
        r->told = true;
    }
}

/* A page holds all steps while it is made, about half a kilobyte each: of a long run it waits for
 * the end. */
enum { MOST_STEPS = 200000 };

static void write_if_time(struct kiln_recorder *r, uint64_t step) {
    if (step <= MOST_STEPS && kiln_now_s() >= r->next) {
        write_now(r);
    }
}

void kiln_recorder_step(struct kiln_recorder *recorder, const struct kiln_step_record *record) {
    if (recorder != NULL) {
        events_if_time(recorder);
    }
    /* A page shows more where the model was evaluated; one is not waited for without end. */
    if (recorder != NULL && (isfinite(record->val_loss) || kiln_now_s() >= recorder->next + LATE)) {
        write_if_time(recorder, record->step);
    }
}

void kiln_recorder_sample(struct kiln_recorder *recorder, uint64_t step, const char *text) {
    (void)text;
    if (recorder != NULL) {
        write_if_time(recorder, step);
    }
}

void kiln_recorder_checkpoint(struct kiln_recorder *recorder, uint64_t step) {
    if (recorder != NULL) {
        write_if_time(recorder, step);
    }
}

void kiln_recorder_close(struct kiln_recorder *recorder, bool last) {
    if (recorder == NULL) {
        return;
    }
    if (last) {
        write_now(recorder);
    }
    if (last && recorder->events.wanted) {
        events_now(recorder);
    }
    kiln_tensorboard_close(recorder->events.file);
    kiln_free(recorder);
}
