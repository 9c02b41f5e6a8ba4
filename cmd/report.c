/* SPDX-License-Identifier: MIT
 *
 * report.c: kiln report: a run, or several beside each other, as one page.
 */
#include "kiln/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "files.h"
#include "output.h"

struct flags {
    const char *out;
    bool json;
};

static const struct option options[] = {
    {"out", 'o', OPTION_TEXT, "FILE", NULL,
     "where the page goes (report.html in the run; compare.html for several)", GROUP_OUTPUT, 0, 0,
     offsetof(struct flags, out)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

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
    char buffer[32];
    const double bytes = stat(path, &st) == 0 ? (double)st.st_size : 0;
    if (!flags->json) {
        for (size_t i = 0; i < n; i++) {
            const struct kiln_view_summary s = kiln_view_summary(views[i]);
            printf("%s: step %" PRIu64 " of %" PRIu64 ", loss %.4f\n", kiln_view_folder(views[i]),
                   s.step, s.total, s.smoothed);
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

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    struct kiln_view *views[MAX_ARGUMENTS] = {NULL};
    enum kiln_status status = KILN_OK;
    size_t n = 0;
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

const struct command command_report = {
    .name = "report",
    .synopsis = "RUN... [options]",
    .summary = "make the page of a run, or one that compares several",
    .details =
        "Curves, time, memory, samples, settings, incidents: one file, no network. Training "
        "writes\nreport.html into its folder as it goes on; this makes it anew, also while a run "
        "is trained\nor after it was killed.\n\n"
        "  kiln report runs/stories15m-book\n"
        "  kiln report runs/a runs/b --out compare.html\n",
    .least_arguments = 1,
    .most_arguments = MAX_ARGUMENTS,
    .missing = "name a run folder, as runs/stories15m-book",
    .flags_size = sizeof(struct flags),
    .options = options,
    .run = run,
};
