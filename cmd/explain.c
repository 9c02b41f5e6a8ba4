/* SPDX-License-Identifier: MIT
 *
 * explain.c: kiln explain: what went wrong in a step; which steps a run has recorded.
 */
#include "explain.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "kiln/report.h"
#include "kiln/view.h"
#include "output.h"
#include "runs.h"
#include "stop.h"

struct flags {
    bool alone, json;
};

static const struct option options[] = {
    {"alone", 0, OPTION_SWITCH, NULL, NULL,
     "do not hold the window against another one: half of the time", GROUP_RUN, 0, 0,
     offsetof(struct flags, alone)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

static const enum kiln_setting_id settings[] = {KILN_SETTING_threads};

/* ---- incidents of a run -----------------------------------------------------------------------
 */

static void print_incidents(const char *run, const struct kiln_view *view) {
    const size_t n = kiln_view_incidents(view);
    if (n == 0) {
        printf("%s: no incidents. kiln explain %s@STEP explains any other step.\n", run, run);
        return;
    }
    printf("%8s  %-22s %-12s %10s %10s %8s  %s\n", "step", "what", "action", "loss", "grad norm",
           "z", "weights");
    for (size_t i = 0; i < n; i++) {
        const struct kiln_view_incident *in = kiln_view_incident(view, i);
        char text[3][32];
        const double values[3] = {in->loss, in->grad_norm, in->z};
        static const char *const forms[3] = {"%.4f", "%.4g", "%.1f"};
        for (int k = 0; k < 3; k++) {
            snprintf(text[k], sizeof text[k], isfinite(values[k]) ? forms[k] : "-", values[k]);
        }
        printf("%8" PRIu64 "  %-22s %-12s %10s %10s %8s  %s\n", in->step, in->why, in->action,
               text[0], text[1], text[2], in->weights ? "kept" : "-");
    }
    const uint64_t last = kiln_view_incident(view, n - 1)->step;
    printf("what went wrong there: kiln explain %s@%" PRIu64 "\n", run, last);
}

static json_t *incidents_json(const char *run, const struct kiln_view *view) {
    json_t *list = json_array();
    for (size_t i = 0; i < kiln_view_incidents(view); i++) {
        const struct kiln_view_incident *in = kiln_view_incident(view, i);
        json_array_append_new(
            list,
            json_pack("{s:I, s:s, s:s, s:o, s:o, s:o, s:b}", "step", (json_int_t)in->step, "why",
                      in->why, "action", in->action, "loss", json_number(in->loss), "grad_norm",
                      json_number(in->grad_norm), "z", json_number(in->z), "weights", in->weights));
    }
    return json_pack("{s:o, s:o}", "run", json_bytes(run, strlen(run)), "incidents", list);
}

static enum kiln_status list(const struct call *call, const char *run, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_view *view;
    KILN_REQUIRE(!flags->alone, err, KILN_EUSAGE,
                 "explain: --alone is for a step: name it, as %s@STEP", run);
    KILN_TRY(need_run(run, err));
    KILN_TRY(kiln_view_open(run, &view, err));
    enum kiln_status status = KILN_OK;
    if (flags->json) {
        status = json_print(incidents_json(run, view), err);
    } else {
        print_incidents(run, view);
        status = output_finish(err);
    }
    kiln_view_close(view);
    return status;
}

/* ---- a step ------------------------------------------------------------------------------------
 */

static void on_notice(void *context, const char *text) {
    (void)context;
    fprintf(stderr, "%s\n", text);
}

/* A line that is rewritten, for who watches. */
static void on_progress(void *context, size_t done, size_t all, double seconds) {
    char left[32];
    (void)context;
    if (messages_are_read()) {
        fprintf(stderr, "\r%zu of %zu sequences, %s to go   %s", done, all,
                kiln_human_time(seconds, left, sizeof left), done == all ? "\r\033[K" : "");
        fflush(stderr);
    }
}

static enum kiln_status explain(const struct call *call, const char *run, uint64_t step,
                                struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const uint64_t threads = call->settings.threads;
    const struct kiln_explain_options how = {.run = run,
                                             .step = step,
                                             .threads = threads != KILN_UNSET ? threads : 0,
                                             .alone = flags->alone,
                                             .stop = stop_on_signals(),
                                             .on_notice = on_notice,
                                             .on_progress = on_progress};
    struct kiln_explanation *why;
    KILN_TRY(need_run(run, err));
    KILN_TRY(kiln_explain(&how, &why, err));
    enum kiln_status status = KILN_OK;
    if (flags->json) {
        status = json_print(explain_json(run, why), err);
    } else {
        explain_print(run, why);
        status = output_finish(err);
    }
    kiln_explain_free(why);
    return status;
}

/* RUN@STEP: the last @, with nothing but a number behind it. */
static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const char *name = call->arguments[0], *at = strrchr(name, '@');
    char folder[4096];
    KILN_REQUIRE(strlen(name) < sizeof folder, err, KILN_EUSAGE, "explain: the path is too long");
    if (!at) {
        return list(call, name, err);
    }
    const size_t digits = strspn(at + 1, "0123456789");
    KILN_REQUIRE(digits > 0 && digits < 19 && at[1 + digits] == '\0' && at > name, err, KILN_EUSAGE,
                 "explain %s: what stands behind the @ is no step: write RUN@STEP, as "
                 "runs/book@812",
                 name);
    const uint64_t step = strtoull(at + 1, NULL, 10);
    snprintf(folder, sizeof folder, "%.*s", (int)(at - name), name);
    KILN_REQUIRE(step > 0, err, KILN_EUSAGE, "explain %s: steps count from 1", name);
    return explain(call, folder, step, err);
}

const struct command command_explain = {
    .name = "explain",
    .synopsis = "RUN[@STEP] [options]",
    .summary = "say what went wrong in a step, taken again in double precision",
    .details =
        "RUN alone lists the incidents that its flight recorder has kept. RUN@STEP takes the step\n"
        "again from there, or from the newest checkpoint before it, or from the run's start: the\n"
        "first number that is not finite or too large, with its tensor and the text around it; "
        "the\n"
        "sequences and tokens that the model found hardest; the gradients that stand out; and "
        "what\n"
        "to do.\n"
        "Exit code 0 whatever is found.\n\n"
        "  kiln explain runs/stories15m-book@1812\n",
    .least_arguments = 1,
    .most_arguments = 1,
    .missing = "name a run folder, or a step of it: RUN@STEP",
    .flags_size = sizeof(struct flags),
    .options = options,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};
