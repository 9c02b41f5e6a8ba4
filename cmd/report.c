/* SPDX-License-Identifier: MIT
 *
 * report.c: kiln report: a run, or several beside each other, as one page.
 */
#include "kiln/report.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "files.h"
#include "output.h"
#include "runs.h"

struct flags {
    const char *out, *csv, *tensorboard;
    bool curve, log_steps, json;
};

static const struct option options[] = {
    {"out", 'o', OPTION_TEXT, "FILE", NULL,
     "where the page goes (report.html in the run; compare.html for several)", GROUP_OUTPUT, 0, 0,
     offsetof(struct flags, out)},
    {"csv", 0, OPTION_TEXT, "FILE", NULL, "every number of every step of one run as CSV",
     GROUP_OUTPUT, 0, 0, offsetof(struct flags, csv)},
    {"tensorboard", 0, OPTION_TEXT, "DIR", NULL,
     "an event file for TensorBoard; of several runs DIR/NAME each", GROUP_OUTPUT, 0, 0,
     offsetof(struct flags, tensorboard)},
    {"curve", 0, OPTION_SWITCH, NULL, NULL, "draw the loss in the terminal", GROUP_OUTPUT, 0, 0,
     offsetof(struct flags, curve)},
    {"log-steps", 0, OPTION_SWITCH, NULL, NULL, "--curve with a logarithmic axis of steps",
     GROUP_OUTPUT, 0, 0, offsetof(struct flags, log_steps)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

/* ---- instead of a page ------------------------------------------------------------------------
 */

/* "runs/a/" as "a". */
static void name_of(const char *folder, char *out, size_t size) {
    size_t n = strlen(folder), first = 0;
    for (; n > 1 && folder[n - 1] == '/'; n--) {
    }
    for (size_t i = 0; i < n; i++) {
        first = folder[i] == '/' ? i + 1 : first;
    }
    snprintf(out, size, "%.*s", (int)(n - first), folder + first);
}

static enum kiln_status export_events(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    char name[256], path[4200];
    for (size_t i = 0; i < call->n_arguments; i++) {
        name_of(call->arguments[i], name, sizeof name);
        const bool one = call->n_arguments == 1;
        const int n = snprintf(path, sizeof path, "%s%s%s", flags->tensorboard, one ? "" : "/",
                               one ? "" : name);
        KILN_REQUIRE(n > 0 && (size_t)n < sizeof path, err, KILN_EUSAGE,
                     "report: --tensorboard: the path is too long");
        KILN_TRY(kiln_report_tensorboard(call->arguments[i], path, err));
        if (!flags->json) {
            printf("events: %s\n", path);
        }
    }
    return KILN_OK;
}

static enum kiln_status draw_curve(const struct call *call, const char *folder,
                                   struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const size_t columns = terminal_columns();
    const struct kiln_curve_look look = {.columns = columns > 101 ? 100 : columns - (columns > 1),
                                         .rows = 10,
                                         .log_steps = flags->log_steps,
                                         .utf8 = output_is_utf8(),
                                         .colours = output_has_colours(stdout)};
    struct kiln_view *view;
    KILN_TRY(kiln_view_open(folder, &view, err));
    struct kiln_curve *curve = kiln_curve_create();
    for (size_t i = 0; curve != NULL && i < kiln_view_steps(view); i++) {
        kiln_curve_add(curve, kiln_view_step(view, i));
    }
    char *text = curve != NULL ? kiln_curve_text(curve, &look) : NULL;
    if (text != NULL) {
        printf("%s%s%s", call->n_arguments > 1 ? folder : "", call->n_arguments > 1 ? "\n" : "",
               text[0] != '\0' ? text : "nothing to draw: the run has fewer than two steps\n");
    }
    kiln_curve_destroy(curve);
    kiln_view_close(view);
    KILN_REQUIRE(text != NULL, err, KILN_ENOMEM, "report: out of memory");
    kiln_report_free(text);
    return KILN_OK;
}

static enum kiln_status export_all(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    KILN_REQUIRE(flags->csv == NULL || call->n_arguments == 1, err, KILN_EUSAGE,
                 "report: --csv: one file is of one run; name one");
    KILN_REQUIRE(!flags->log_steps || flags->curve, err, KILN_EUSAGE,
                 "report: --log-steps is of --curve; add it");
    KILN_REQUIRE(!flags->curve || !flags->json, err, KILN_EUSAGE,
                 "report: --curve is for people, --json for programs; leave one out");
    if (flags->csv != NULL) {
        KILN_TRY(kiln_report_csv(call->arguments[0], flags->csv, err));
        if (!flags->json) {
            printf("csv: %s\n", flags->csv);
        }
    }
    if (flags->tensorboard != NULL) {
        KILN_TRY(export_events(call, err));
    }
    for (size_t i = 0; flags->curve && i < call->n_arguments; i++) {
        KILN_TRY(draw_curve(call, call->arguments[i], err));
    }
    return output_finish(err);
}

/* ---- the page ---------------------------------------------------------------------------------
 */

/* What is known of a run at a glance, as the page's data have it. */
static enum kiln_status summary_json(const struct kiln_view *view, json_t *list,
                                     struct kiln_err *err) {
    const struct kiln_view_options glance = {.parts = 0};
    char *text;
    size_t size;
    KILN_TRY(kiln_view_json(view, &glance, &text, &size, err));
    json_t *one = json_loadb(text, size, 0, NULL);
    kiln_view_json_free(text);
    KILN_REQUIRE(one != NULL && json_array_append_new(list, one) == 0, err, KILN_ENOMEM,
                 "report: out of memory");
    return KILN_OK;
}

static enum kiln_status tell(const struct call *call, struct kiln_view *const *views, size_t n,
                             const char *path, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct stat st;
    char buffer[32], unread[KILN_VIEW_TEXT];
    const double bytes = stat(path, &st) == 0 ? (double)st.st_size : 0;
    if (!flags->json) {
        for (size_t i = 0; i < n; i++) {
            const struct kiln_view_summary s = kiln_view_summary(views[i]);
            printf("%s: step %" PRIu64, kiln_view_folder(views[i]), s.step);
            if (s.total > 0) {
                printf(" of %" PRIu64, s.total);
            }
            if (isfinite(s.smoothed)) {
                printf(", smoothed loss %.4f", s.smoothed);
            }
            printf("\n");
            if (kiln_view_unread(views[i], unread) > 0) {
                printf("%s: %s\n", kiln_view_folder(views[i]), unread);
            }
        }
        printf("page: %s, %s\n", path, kiln_human_bytes(bytes, buffer, sizeof buffer));
        return KILN_OK;
    }
    json_t *runs = json_array();
    enum kiln_status status = KILN_OK;
    for (size_t i = 0; status == KILN_OK && i < n; i++) {
        status = summary_json(views[i], runs, err);
    }
    if (status != KILN_OK) {
        json_decref(runs);
        return status;
    }
    return json_print(json_pack("{s:o, s:I, s:o}", "page", json_bytes(path, strlen(path)), "bytes",
                                (json_int_t)bytes, "runs", runs),
                      err);
}

/* Where the page goes. */
static enum kiln_status find_path(const struct call *call, char *out, size_t size,
                                  struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const int n = flags->out != NULL ? snprintf(out, size, "%s", flags->out)
                  : call->n_arguments > 1
                      ? snprintf(out, size, "compare.html")
                      : snprintf(out, size, "%s/report.html", call->arguments[0]);
    KILN_REQUIRE(n > 0 && (size_t)n < size, err, KILN_EUSAGE,
                 "report: --out: the path is empty or too long");
    return KILN_OK;
}

static enum kiln_status write_and_tell(const struct call *call, struct kiln_view *const *views,
                                       size_t n, struct kiln_err *err) {
    const struct kiln_view *shown[MAX_ARGUMENTS];
    char path[4200];
    KILN_TRY(find_path(call, path, sizeof path, err));
    for (size_t i = 0; i < n; i++) {
        shown[i] = views[i];
    }
    KILN_TRY(kiln_report_write(path, shown, n, err));
    return tell(call, views, n, path, err);
}

static enum kiln_status write_report(const struct call *call, struct kiln_err *err) {
    struct kiln_view *views[MAX_ARGUMENTS] = {NULL};
    const struct flags *flags = call->flags;
    size_t n = 0;
    enum kiln_status status = export_all(call, err);
    const bool other = flags->csv != NULL || flags->tensorboard != NULL || flags->curve;
    if (status != KILN_OK || (other && flags->out == NULL && !flags->json)) {
        return status; /* that is all that was asked for */
    }
    while (status == KILN_OK && n < call->n_arguments) {
        status = kiln_view_open(call->arguments[n], &views[n], err);
        n += status == KILN_OK;
    }
    if (status == KILN_OK) {
        status = write_and_tell(call, views, n, err);
    }
    for (size_t i = 0; i < n; i++) {
        kiln_view_close(views[i]);
    }
    return status;
}

/* A run beside itself would be two that nobody can tell apart: it is taken once, under the name it
 * was given first. */
static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    struct call once = *call;
    struct stat seen[MAX_ARGUMENTS];
    once.n_arguments = 0;
    for (size_t i = 0; i < call->n_arguments; i++) {
        const char *folder = call->arguments[i];
        size_t same = 0, n = once.n_arguments;
        KILN_TRY(need_run(folder, err));
        KILN_REQUIRE(stat(folder, &seen[n]) == 0, err, KILN_EIO, "report: %s: %s", folder,
                     strerror(errno));
        while (seen[same].st_dev != seen[n].st_dev || seen[same].st_ino != seen[n].st_ino) {
            same++;
        }
        if (same < n) {
            fprintf(stderr, "report: %s is %s once more: it is taken once\n", folder,
                    once.arguments[same]);
        } else {
            once.arguments[once.n_arguments++] = folder;
        }
    }
    return write_report(&once, err);
}

const struct command command_report = {
    .name = "report",
    .synopsis = "RUN... [options]",
    .summary = "make the page of a run, or one that compares several",
    .details =
        "Curves, time, memory, samples, settings, incidents: one file, no network. Training "
        "writes\nreport.html into its folder as it goes on; this makes it anew, also while a run "
        "is trained\nor after it was killed.\n\n"
        "  kiln report runs/stories15m-book\n"
        "  kiln report runs/a runs/b --out compare.html\n"
        "  kiln report runs/a --csv a.csv --tensorboard board\n"
        "  kiln report runs/a --curve\n\n"
        "With --csv, --tensorboard or --curve and without --out no page is made.\n",
    .least_arguments = 1,
    .most_arguments = MAX_ARGUMENTS,
    .missing = "name a run folder, as runs/stories15m-book",
    .flags_size = sizeof(struct flags),
    .options = options,
    .run = run,
};
