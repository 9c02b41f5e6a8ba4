/* SPDX-License-Identifier: MIT
 *
 * doctor.c: kiln doctor: why is it slow or broken on this machine?
 */
#include "kiln/doctor.h"

#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "output.h"
#include "runs.h"

struct flags {
    const char *root;
    bool quick, json;
};

static const struct option options[] = {
    {"quick", 0, OPTION_SWITCH, NULL, NULL, "measure nothing", GROUP_MEASURING, 0, 0,
     offsetof(struct flags, quick)},
    {"root", 0, OPTION_TEXT, "DIR", NULL, NULL, GROUP_MACHINE, 0, 0,
     offsetof(struct flags, root)}, /* of another machine's /proc and /sys: for tests */
    OPTION_JSON(struct flags),
    OPTION_END,
};

static const enum kiln_setting_id settings[] = {KILN_SETTING_threads, KILN_SETTING_precision,
                                                KILN_SETTING_dw};

static void print_finding(const struct kiln_finding *f) {
    printf("%-8s %-13s %s\n", kiln_doctor_level_name(f->level), f->name, f->found);
    if (f->cost[0] != '\0') {
        printf("%-8s %-13s %s%s\n", "", "",
               f->level == KILN_DOCTOR_FINE ? "" : "what it costs: ", f->cost);
    }
    if (f->advice[0] != '\0') {
        printf("%-8s %-13s what to do: %s\n", "", "", f->advice);
    }
}

static enum kiln_status print_text(const struct kiln_doctor *doctor, struct kiln_err *err) {
    printf("%s\n\n", doctor->machine);
    for (size_t i = 0; i < doctor->n; i++) {
        print_finding(&doctor->finding[i]);
    }
    const size_t broken = kiln_doctor_count(doctor, KILN_DOCTOR_BROKEN);
    const size_t slow = kiln_doctor_count(doctor, KILN_DOCTOR_SLOW);
    if (broken + slow == 0) {
        printf("\nnothing is wrong\n");
    } else {
        printf("\n%zu broken, %zu slow\n", broken, slow);
    }
    return output_finish(err);
}

static enum kiln_status print_json(const struct kiln_doctor *doctor, struct kiln_err *err) {
    json_t *list = json_array();
    for (size_t i = 0; i < doctor->n; i++) {
        const struct kiln_finding *f = &doctor->finding[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:o, s:o}", "name", f->name, "level",
                                              kiln_doctor_level_name(f->level), "found",
                                              json_bytes(f->found, strlen(f->found)), "cost",
                                              json_bytes(f->cost, strlen(f->cost)), "advice",
                                              json_bytes(f->advice, strlen(f->advice))));
    }
    return json_print(
        json_pack("{s:o, s:s, s:o}", "machine",
                  json_bytes(doctor->machine, strlen(doctor->machine)), "worst",
                  kiln_doctor_level_name(kiln_doctor_worst(doctor)), "findings", list),
        err);
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const struct kiln_settings *s = &call->settings;
    static struct kiln_doctor doctor;
    struct kiln_doctor_options how = {
        .folder = call->n_arguments > 0 ? call->arguments[0] : NULL,
        .threads = s->threads != KILN_UNSET ? (size_t)s->threads : 0,
        .gpu = strcmp(s->dw, "gpu") == 0,
        .measure = !flags->quick,
        .root = flags->root,
    };
    KILN_TRY(how.folder != NULL ? need_path(how.folder, err) : KILN_OK);
    KILN_TRY(kiln_precision_parse(s->precision, &how.precision, err));
    KILN_TRY(kiln_doctor(&how, &doctor, err));
    KILN_TRY(flags->json ? print_json(&doctor, err) : print_text(&doctor, err));
    const size_t broken = kiln_doctor_count(&doctor, KILN_DOCTOR_BROKEN);
    const struct kiln_finding *first = doctor.finding;
    while (broken > 0 && first->level != KILN_DOCTOR_BROKEN) {
        first++;
    }
    KILN_REQUIRE(broken == 0, err, KILN_EINPUT, "doctor: %s: %s%s%s", first->name, first->found,
                 first->advice[0] ? "; " : "", first->advice);
    return KILN_OK;
}

const struct command command_doctor = {
    .name = "doctor",
    .synopsis = "[RUN | FOLDER] [options]",
    .summary = "say why training is slow or broken here, and what to do",
    .details =
        "Looks at processors and what else they do, instructions, frequency, heat, memory, the\n"
        "disk of the folder (the current one), limits, libraries; of a run also at its state, who\n"
        "trains it, and its times beside the plan's. Each finding has what was found, what it\n"
        "costs and what to do (docs/doctor.md). Measuring takes a few seconds.\n\n"
        "  kiln doctor\n"
        "  kiln doctor runs/stories15m-book --quick\n\n"
        "Exit: 0 nothing is broken, though it may be slow; 1 something is.\n",
    .most_arguments = 1,
    .missing = "",
    .flags_size = sizeof(struct flags),
    .options = options,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};
