/* SPDX-License-Identifier: MIT
 *
 * verify.c: kiln verify: is the arithmetic right on this machine, and is a run the same again?
 */
#include "kiln/verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "output.h"
#include "runs.h"
#include "stop.h"

struct flags {
    const char *reference;
    uint64_t from, steps;
    bool json;
};

static const struct option options[] = {
    {"reference", 0, OPTION_TEXT, "DIR", NULL, "folder of float64 reference vectors", GROUP_DATA, 0,
     0, offsetof(struct flags, reference)},
    {"from", 0, OPTION_COUNT, "N", NULL, "begin at checkpoint step-N (the oldest)", GROUP_RUN, 0,
     1e18, offsetof(struct flags, from)},
    {"steps", 0, OPTION_COUNT, "N", NULL, "train at most N steps (as far as there is to compare)",
     GROUP_RUN, 1, 1e18, offsetof(struct flags, steps)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

static const enum kiln_setting_id settings[] = {
    KILN_SETTING_precision,   KILN_SETTING_device,       KILN_SETTING_dw,
    KILN_SETTING_weight_mode, KILN_SETTING_no_extras,    KILN_SETTING_sim_time,
    KILN_SETTING_sim,         KILN_SETTING_threads,      KILN_SETTING_budget,
    KILN_SETTING_overlap,     KILN_SETTING_deterministic};

/* ---- against references --------------------------------------------------------------------- */

static void print_table(const struct kiln_verify_result *r) {
    printf("%-24s %12s   limit %.0e\n", "gradient of", "error", r->gradient_limit);
    for (size_t i = 0; i < r->n_tensors; i++) {
        const struct kiln_verify_tensor *t = &r->tensors[i];
        printf("%-24s %12.3e%s\n", t->name, t->error,
               t->error <= r->gradient_limit ? "" : "   too far off");
    }
    printf("losses of %zu steps      %12.3e   limit %.0e%s\n", r->steps, r->loss_error,
           r->loss_limit, r->loss_error <= r->loss_limit ? "" : "   too far off");
    printf("%s", r->pass ? "PASS" : "FAIL");
    if (r->steps < r->all) {
        printf(", for %zu of %zu steps: then the budget was spent", r->steps, r->all);
    }
    putchar('\n');
}

static enum kiln_status print_result(const struct flags *flags, const struct kiln_verify_result *r,
                                     struct kiln_err *err) {
    if (!flags->json) {
        print_table(r);
        return output_finish(err);
    }
    return json_print(
        json_pack("{s:b, s:{s:s, s:o}, s:o, s:o, s:o, s:I}", "pass", r->pass, "worst", "tensor",
                  r->worst.name, "error", json_number(r->worst.error), "loss_error",
                  json_number(r->loss_error), "gradient_limit", json_number(r->gradient_limit),
                  "loss_limit", json_number(r->loss_limit), "steps", (json_int_t)r->steps),
        err);
}

static enum kiln_status verify_reference(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const struct kiln_settings *s = &call->settings;
    struct kiln_verify_options how = {
        .reference = flags->reference, .ranks = s->ranks, .deterministic = s->deterministic};
    how.threads = s->threads != KILN_UNSET ? s->threads : kiln_ranks_threads(s->ranks);
    KILN_TRY(kiln_settings_device(s, &how.device, &how.precision, err));
    KILN_TRY(kiln_overlap_parse(s->overlap, &how.overlap, err));
    how.budget = s->budget != KILN_UNSET     ? s->budget
                 : how.device.id == KILN_ANE ? KILN_NPU_BUDGET
                                             : 0;
    struct kiln_verify_result result;
    KILN_TRY(kiln_verify_reference(&how, &result, err));
    const bool speaks = kiln_ranks_mine(s->ranks) == 0;
    enum kiln_status status = speaks ? print_result(flags, &result, err) : KILN_OK;
    if (status == KILN_OK && !result.pass && speaks) {
        status =
            KILN_FAIL(err, KILN_EINPUT,
                      "verify %s: gradient of %s is off by %.2e (limit %.0e), losses by %.2e "
                      "(limit %.0e)%s",
                      flags->reference, result.worst.name, result.worst.error,
                      result.gradient_limit, result.loss_error, result.loss_limit,
                      how.device.id == KILN_CPU ? "; try --precision fp32 and KILN_CPU=ref" : "");
    }
    kiln_verify_free(&result);
    return status;
}

/* On as many ranks as were started. */
static enum kiln_status verify_reference_together(const struct call *call, struct kiln_err *err) {
    struct call mine = *call;
    KILN_TRY(kiln_ranks_open(&mine.settings.ranks, err));
    const size_t rank = kiln_ranks_mine(mine.settings.ranks);
    output_is_of_rank(rank);
    const enum kiln_status status = verify_reference(&mine, err);
    kiln_ranks_close(mine.settings.ranks, true); /* failures, too, are those of all */
    return rank > 0 && err->message[0] == '\0' ? KILN_OK : status; /* rank 0 says it */
}

/* ---- against itself ------------------------------------------------------------------------- */

static enum kiln_status print_replay(const struct flags *flags, const char *run,
                                     const struct kiln_replay_result *r, struct kiln_err *err) {
    if (!flags->json) {
        printf("%s: replayed from checkpoint step-%" PRIu64 " to step %" PRIu64 "\n", run, r->from,
               r->to);
        for (size_t i = 0; i < r->n_checks; i++) {
            const struct kiln_replay_check *c = &r->checks[i];
            printf("  %-24s %-6s %s\n", c->what, c->same ? "same" : "DIFFER", c->found);
        }
        if (r->note[0] != '\0') {
            printf("  %s\n", r->note);
        }
        printf("%s\n", r->pass ? "PASS" : "FAIL");
        return output_finish(err);
    }
    json_t *checks = json_array();
    for (size_t i = 0; i < r->n_checks; i++) {
        const struct kiln_replay_check *c = &r->checks[i];
        json_array_append_new(checks, json_pack("{s:s, s:b, s:o}", "what", c->what, "same", c->same,
                                                "found", json_bytes(c->found, strlen(c->found))));
    }
    return json_print(
        json_pack("{s:b, s:s, s:I, s:I, s:s, s:o}", "pass", r->pass, "run", run, "from",
                  (json_int_t)r->from, "to", (json_int_t)r->to, "note", r->note, "checks", checks),
        err);
}

static enum kiln_status differs(const char *run, const struct kiln_replay_result *r,
                                struct kiln_err *err) {
    size_t i = 0, n = 0;
    for (size_t k = r->n_checks; k-- > 0;) {
        if (!r->checks[k].same) {
            i = k;
            n++;
        }
    }
    return KILN_FAIL(err, KILN_EINPUT, "verify %s: %zu of %zu comparisons differ, first %s: %.300s",
                     run, n, r->n_checks, r->checks[i].what, r->checks[i].found);
}

static enum kiln_status verify_run(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const char *run = call->arguments[0];
    const uint64_t threads = call->settings.threads;
    const struct kiln_replay_options how = {.run = run,
                                            .from = flags->from,
                                            .steps = flags->steps,
                                            .threads = threads != KILN_UNSET ? threads : 0,
                                            .stop = stop_on_signals()};
    struct kiln_replay_result result;
    KILN_TRY(need_run(run, err));
    KILN_TRY(kiln_verify_run(&how, &result, err));
    enum kiln_status status = print_replay(flags, run, &result, err);
    if (status == KILN_OK && !result.pass) {
        status = differs(run, &result, err);
    }
    kiln_replay_free(&result);
    return status;
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const bool reference = flags->reference != NULL;
    KILN_REQUIRE(reference || call->n_arguments > 0, err, KILN_EUSAGE,
                 "verify: name a run folder, or a folder of reference vectors with --reference");
    KILN_REQUIRE(!reference || call->n_arguments == 0, err, KILN_EUSAGE,
                 "verify: a run folder or --reference, not both");
    KILN_REQUIRE(!reference || (flags->from == KILN_UNSET && flags->steps == KILN_UNSET), err,
                 KILN_EUSAGE, "verify: --from and --steps are for run folders");
    for (int id = KILN_SETTING_precision; id <= KILN_SETTING_no_extras && !reference; id++) {
        KILN_REQUIRE(call->settings.origin[id] != KILN_FROM_FLAG, err, KILN_EUSAGE,
                     "verify: a run is verified with its own %s, not --%s", kiln_setting(id)->flag,
                     kiln_setting(id)->flag);
    }
    KILN_REQUIRE(reference || (call->settings.origin[KILN_SETTING_sim_time] != KILN_FROM_FLAG &&
                               call->settings.origin[KILN_SETTING_sim] != KILN_FROM_FLAG &&
                               call->settings.origin[KILN_SETTING_budget] != KILN_FROM_FLAG &&
                               call->settings.origin[KILN_SETTING_overlap] != KILN_FROM_FLAG),
                 err, KILN_EUSAGE,
                 "verify: --sim, --sim-time, --budget and --overlap are for --reference");
    return reference ? verify_reference_together(call, err) : verify_run(call, err);
}

const struct command command_verify = {
    .name = "verify",
    .synopsis = "RUN | --reference DIR [options]",
    .summary = "replay a run's steps and compare the bits, or the arithmetic with references",
    .details =
        "RUN is trained again from its oldest checkpoint, in a temporary folder inside it, with "
        "the\n"
        "settings it had; weights, moments and the lines of metrics.jsonl must be the same to the\n"
        "bit at every later checkpoint and at its end. Its own files are only read.\n"
        "With --reference losses and gradients are compared with float64 vectors, as many steps\n"
        "as the budget of one process allows.\n"
        "Exit code 1 when something differs, or is further off than rounding explains.\n\n"
        "  kiln verify runs/stories15m-book --steps 20\n",
    .most_arguments = 1,
    .flags_size = sizeof(struct flags),
    .options = options,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};
