/* SPDX-License-Identifier: MIT
 *
 * plan.c: kiln plan: which kernels are compiled when, what is kept, what it takes; nothing runs.
 */
#include "kiln/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "dims.h"
#include "kiln/train.h"
#include "minutes.h"
#include "output.h"
#include "plan.h"

struct flags {
    bool trace, json;
    uint64_t ranks;
    double link_gbit, link_ms;
};

static const struct option options[] = {
    {"ranks", 0, OPTION_COUNT, "N", NULL, "what so many ranks would take together", GROUP_PLANNING,
     1, 1 << 20, offsetof(struct flags, ranks)},
    {"link-gbit", 0, OPTION_REAL, "X", NULL, "Gbit/s of a rank's link, each way (1 is assumed)",
     GROUP_PLANNING, 1e-6, 1e6, offsetof(struct flags, link_gbit)},
    {"link-ms", 0, OPTION_REAL, "X", NULL, "latency of a message, ms (1 is assumed)",
     GROUP_PLANNING, 0, 1e6, offsetof(struct flags, link_ms)},
    {"trace", 0, OPTION_SWITCH, NULL, NULL, "every action of a window", GROUP_OUTPUT, 0, 0,
     offsetof(struct flags, trace)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

static const enum kiln_setting_id settings[] = {KILN_SETTING_model,
                                                KILN_SETTING_dim,
                                                KILN_SETTING_hidden,
                                                KILN_SETTING_heads,
                                                KILN_SETTING_kv_heads,
                                                KILN_SETTING_layers,
                                                KILN_SETTING_vocab,
                                                KILN_SETTING_rms_eps,
                                                KILN_SETTING_rope_theta,
                                                KILN_SETTING_seq,
                                                KILN_SETTING_batch,
                                                KILN_SETTING_accum,
                                                KILN_SETTING_device,
                                                KILN_SETTING_budget,
                                                KILN_SETTING_headroom,
                                                KILN_SETTING_load_budget,
                                                KILN_SETTING_schedule,
                                                KILN_SETTING_activations,
                                                KILN_SETTING_memory,
                                                KILN_SETTING_overlap,
                                                KILN_SETTING_restart,
                                                KILN_SETTING_precision,
                                                KILN_SETTING_threads,
                                                KILN_SETTING_weight_mode,
                                                KILN_SETTING_no_extras,
                                                KILN_SETTING_sim_time,
                                                KILN_SETTING_sim,
                                                KILN_SETTING_profile,
                                                KILN_SETTING_dw,
                                                KILN_SETTING_data,
                                                KILN_SETTING_val,
                                                KILN_SETTING_tokenizer,
                                                KILN_SETTING_minutes,
                                                KILN_SETTING_steps,
                                                KILN_SETTING_lr,
                                                KILN_SETTING_min_lr,
                                                KILN_SETTING_warmup,
                                                KILN_SETTING_weight_decay,
                                                KILN_SETTING_lora,
                                                KILN_SETTING_lora_alpha,
                                                KILN_SETTING_lora_targets,
                                                KILN_SETTING_doc_mask,
                                                KILN_SETTING_blank_lines,
                                                KILN_SETTING_skip_bad,
                                                KILN_SETTING_chat_template,
                                                KILN_SETTING_data_tokens,
                                                KILN_SETTING_pipeline,
                                                KILN_SETTING_reduce_precision,
                                                KILN_SETTING_local_steps,
                                                KILN_SETTING_shard_optimizer};

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

/* As `kiln train` would take it. Where --memory is not given and this machine's is too small, the
 * plan is made without a limit, and says so. */
static enum kiln_status estimate(const struct call *call, struct kiln_plan_request *request,
                                 struct kiln_estimate *out, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const bool free_memory = call->settings.memory == KILN_UNSET;
    struct kiln_cpu cpu;
    if (free_memory) {
        KILN_TRY(kiln_cpu_describe(request->precision, &cpu, err));
        request->memory = cpu.memory_available / 10 * 8;
    }
    const enum kiln_status status = kiln_estimate(request, flags->trace, out, err);
    if (status != KILN_ENOMEM || !free_memory) {
        return status;
    }
    request->memory = 0;
    return kiln_estimate(request, flags->trace, out, err);
}

static bool narrow_sums(const struct call *call) {
    return strcmp(call->settings.reduce_precision, "bf16") == 0;
}

/* Flags that only tell more about --ranks. */
static enum kiln_status check_ranks(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const bool local = call->settings.origin[KILN_SETTING_local_steps] == KILN_FROM_FLAG;
    const bool narrow = call->settings.origin[KILN_SETTING_reduce_precision] == KILN_FROM_FLAG;
    const char *alone = !isnan(flags->link_gbit) ? "--link-gbit"
                        : !isnan(flags->link_ms) ? "--link-ms"
                        : local                  ? "--local-steps"
                        : narrow                 ? "--reduce-precision"
                                                 : NULL;
    const bool pipeline = call->settings.pipeline > 1, shards = call->settings.shard_optimizer;
    KILN_REQUIRE(flags->ranks != KILN_UNSET || pipeline || alone == NULL, err, KILN_EUSAGE,
                 "plan: %s is of several ranks; say how many: --ranks N", alone);
    KILN_REQUIRE(call->settings.local_steps == 1 || !pipeline, err, KILN_EUSAGE,
                 "plan: --local-steps of a pipeline is not told; leave one of both out");
    const bool whole = pipeline || call->settings.local_steps > 1 || narrow_sums(call);
    KILN_REQUIRE(!shards || !whole, err, KILN_EUSAGE,
                 "plan: --shard-optimizer does not go with --pipeline, --local-steps or "
                 "--reduce-precision bf16 (docs/distributed.md); leave one of both out");
    return KILN_OK;
}

/* A pipeline has at least a rank for each stage. */
static void ask_about_ranks(const struct call *call, struct kiln_plan_request *request,
                            struct plan_shown *shown) {
    const struct flags *flags = call->flags;
    const size_t stages = (size_t)call->settings.pipeline;
    if (flags->ranks == KILN_UNSET && stages == 1) {
        return;
    }
    request->ranks = (struct kiln_plan_ranks){
        .ranks = flags->ranks == KILN_UNSET ? stages : flags->ranks,
        .link = plan_link(flags->link_gbit, flags->link_ms, &shown->link_assumed),
        .local_steps = call->settings.local_steps,
        .float_bytes = narrow_sums(call) ? 2 : 4,
        .stages = stages};
    request->spread = call->settings.shard_optimizer ? request->ranks.ranks : 0;
}

/* --minutes: what would be chosen. */
static enum kiln_status plan_minutes(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    struct kiln_minutes *minutes;
    KILN_REQUIRE(!flags->trace, err, KILN_EUSAGE,
                 "plan: --trace lists a window; for that of --minutes use kiln train --dry-run");
    KILN_REQUIRE(flags->ranks == KILN_UNSET, err, KILN_EUSAGE,
                 "plan: --ranks asks about sizes that are known; give those that --minutes chooses "
                 "(kiln plan --minutes without --ranks), or no --minutes");
    KILN_TRY(kiln_minutes_choose(&call->settings, 0, &minutes, err));
    enum kiln_status status = KILN_OK;
    if (flags->json) {
        status = json_print(minutes_json(minutes), err);
    } else {
        minutes_print(minutes);
        status = output_finish(err);
    }
    kiln_minutes_free(minutes);
    return status;
}

/* Of sizes alone: no data are read. */
static enum kiln_status request_of_sizes(const struct call *call, struct kiln_plan_request *request,
                                         struct kiln_err *err) {
    const struct kiln_settings *s = &call->settings;
    struct kiln_dims dims;
    KILN_TRY(dims_choose(s, &dims, err));
    KILN_TRY(kiln_plan_request_of(s, &dims, request, err));
    request->seq = dims.seq;
    const struct kiln_preset *preset = kiln_preset_find(s->model != NULL ? s->model : "stories15m");
    if (s->accum == KILN_UNSET && preset != NULL) {
        request->accum = preset->accum;
    }
    return kiln_profile_of(&request->device, s->profile, request->threads, request->precision,
                           &request->profile, err);
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const struct kiln_settings *s = &call->settings;
    struct kiln_plan_request request;
    struct kiln_estimate result;
    struct kiln_data_facts data;
    char name[512];
    KILN_TRY(check_ranks(call, err));
    if (!isnan(s->minutes)) {
        return plan_minutes(call, err);
    }
    if (s->data != NULL) {
        KILN_TRY(kiln_run_plan(s, &request, name, err));
        KILN_TRY(kiln_run_data(s, &data, err));
    } else {
        KILN_TRY(request_of_sizes(call, &request, err));
        snprintf(name, sizeof name, "%s", dims_name(s));
    }
    struct plan_shown shown = {name, s->device, &request, &result, s->data != NULL ? &data : NULL,
                               NULL};
    ask_about_ranks(call, &request, &shown);
    KILN_TRY(estimate(call, &request, &result, err));
    const enum kiln_status status = print(&shown, flags, err);
    kiln_estimate_free(&result);
    return status;
}

const struct command command_plan = {
    .name = "plan",
    .synopsis = "[--model M] [options]",
    .summary = "which kernels are compiled when, what is kept, what it takes; nothing runs",
    .details =
        "Without --model: stories15m. Of a file, folder or run only the sizes are read. kiln\n"
        "train with the same flags does what is printed here; its --dry-run prints it, too. With\n"
        "--data also how many tokens these are, and how many steps an epoch; with --minutes, too:\n"
        "what would be trained in that time, why, and what other sizes would come to. With "
        "--ranks\n"
        "also what a window takes that several processes share (docs/distributed.md).\n\n"
        "  kiln plan --model llama7b --device sim --schedule whole --activations sqrt --trace\n"
        "  kiln plan --data book.txt --model stories15m\n"
        "  kiln plan --data book.txt --minutes 30\n"
        "  kiln plan --model stories110m --ranks 16 --link-gbit 10 --link-ms 0.1\n"
        "  kiln plan --model stories110m --ranks 8 --pipeline 4 --device sim\n",
    .flags_size = sizeof(struct flags),
    .options = options,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};
