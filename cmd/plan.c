/* SPDX-License-Identifier: MIT
 *
 * plan.c: kiln plan: which kernels are compiled when, what is kept, what it takes; nothing runs.
 */
#include "kiln/plan.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "dims.h"
#include "kiln/report.h"
#include "output.h"
#include "plan.h"

struct flags {
    uint64_t budget, load_budget;
    double headroom;
    const char *device, *schedule, *activations, *memory, *overlap;
    bool no_extras, trace, json;
};

/* clang-format off */
static const struct option options[] = {
    {"device", 0, OPTION_TEXT, "NAME", "cpu", "cpu, sim or ane", GROUP_PLANNING, 0, 0,
     offsetof(struct flags, device)},
    {"budget", 0, OPTION_COUNT, "N", NULL,
     "kernels a process may compile (sim, ane: 119; cpu: no limit)", GROUP_PLANNING, 1, 100000,
     offsetof(struct flags, budget)},
    {"load-budget", 0, OPTION_COUNT, "N", NULL,
     "kernels a process may hold loaded (sim, ane: 119; cpu: no limit)", GROUP_PLANNING, 1, 100000,
     offsetof(struct flags, load_budget)},
    {"headroom", 0, OPTION_REAL, "X", "0.10", "share of both left unused, below 1", GROUP_PLANNING,
     0, 0.999999, offsetof(struct flags, headroom)},
    {"schedule", 0, OPTION_TEXT, "NAME", "split", "whole or split", GROUP_PLANNING, 0, 0,
     offsetof(struct flags, schedule)},
    {"activations", 0, OPTION_TEXT, "P", "auto",
     "all, boundary, sqrt, every:N, inputs, none or auto", GROUP_PLANNING, 0, 0,
     offsetof(struct flags, activations)},
    {"memory", 0, OPTION_TEXT, "SIZE", NULL, "most memory to use, as 8G (no limit)",
     GROUP_PLANNING, 0, 0, offsetof(struct flags, memory)},
    {"overlap", 0, OPTION_TEXT, "MODE", "off", "off or exact; no effect on what is printed yet",
     GROUP_PLANNING, 0, 0, offsetof(struct flags, overlap)},
    {"no-extras", 0, OPTION_SWITCH, NULL, NULL, "only the six kernels of a layer (always so yet)",
     GROUP_PLANNING, 0, 0, offsetof(struct flags, no_extras)},
    {"trace", 0, OPTION_SWITCH, NULL, NULL, "every action of a window", GROUP_OUTPUT, 0, 0,
     offsetof(struct flags, trace)},
    OPTION_JSON(struct flags),
    OPTION_END,
};
/* clang-format on */

static const enum kiln_setting_id settings[] = {
    KILN_SETTING_model,    KILN_SETTING_dim,    KILN_SETTING_hidden, KILN_SETTING_heads,
    KILN_SETTING_kv_heads, KILN_SETTING_layers, KILN_SETTING_vocab,  KILN_SETTING_seq,
    KILN_SETTING_batch,    KILN_SETTING_accum};

static enum kiln_status choice(const char *flag, const char *text, const char *const *valid,
                               const char *list, struct kiln_err *err) {
    for (; *valid != NULL; valid++) {
        if (strcmp(text, *valid) == 0) {
            return KILN_OK;
        }
    }
    return KILN_FAIL(err, KILN_EUSAGE, "--%s %s: unknown; use %s", flag, text, list);
}

/* The flags as a request, dims left out. */
static enum kiln_status read_flags(const struct call *call, struct kiln_plan_request *out,
                                   struct kiln_err *err) {
    static const char *const devices[] = {"cpu", "sim", "ane", NULL};
    static const char *const overlaps[] = {"off", "exact", NULL};
    const struct flags *f = call->flags;
    const struct kiln_settings *s = &call->settings;
    KILN_TRY(choice("device", f->device, devices, "cpu, sim or ane", err));
    KILN_TRY(choice("overlap", f->overlap, overlaps, "off or exact", err));
    KILN_TRY(kiln_schedule_parse(f->schedule, &out->schedule, err));
    KILN_TRY(kiln_keep_parse(f->activations, &out->keep, err));
    if (f->memory != NULL) {
        KILN_TRY(kiln_parse_size("--memory", f->memory, 1, INT64_MAX, &out->memory, err));
    }
    const bool cpu = strcmp(f->device, "cpu") == 0;
    out->budget = f->budget != KILN_UNSET ? f->budget : cpu ? 0 : 119;
    out->load_budget = f->load_budget != KILN_UNSET ? f->load_budget : cpu ? 0 : 119;
    out->headroom_millionths = (uint64_t)lround(f->headroom * 1e6);
    out->refreshes = cpu;
    out->batch = s->batch;
    const struct kiln_preset *preset = kiln_preset_find(s->model != NULL ? s->model : "stories15m");
    out->accum = s->accum != KILN_UNSET ? s->accum : preset != NULL ? preset->accum : 10;
    return KILN_OK;
}

static enum kiln_status print(const struct plan_shown *shown, const struct flags *flags,
                              struct kiln_err *err) {
    if (flags->json) {
        return json_print(plan_json(shown, flags->trace), err);
    }
    plan_print(shown);
    if (flags->trace) {
        plan_print_trace(shown);
    }
    return output_finish(err);
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_plan_request request = {.accum = 1};
    struct kiln_estimate estimate;
    KILN_TRY(read_flags(call, &request, err));
    KILN_TRY(dims_choose(&call->settings, &request.dims, err));
    request.seq = request.dims.seq;
    KILN_TRY(kiln_estimate(&request, &estimate, err));
    const struct plan_shown shown = {dims_name(&call->settings), flags->device, &request,
                                     &estimate};
    const enum kiln_status status = print(&shown, flags, err);
    kiln_estimate_free(&estimate);
    return status;
}

const struct command command_plan = {
    .name = "plan",
    .synopsis = "[--model M] [options]",
    .summary = "which kernels are compiled when, what is kept, what it takes; nothing runs",
    .details =
        "Without --model: stories15m. Of a .bin only the sizes are read. Memory is that of the "
        "cpu\n"
        "device with bf16 operands. Not modelled yet: time, overlap, extra kernels; and kiln "
        "train\n"
        "does not follow budgets or --activations yet.\n\n"
        "  kiln plan --model llama7b --device sim --schedule whole --activations sqrt --trace\n",
    .flags_size = sizeof(struct flags),
    .options = options,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};
