/* SPDX-License-Identifier: MIT
 *
 * verify.c: kiln verify: is the arithmetic right on this machine?
 */
#include "kiln/verify.h"

#include <stdio.h>

#include "commands.h"
#include "output.h"

struct flags {
    const char *reference;
    bool json;
};

static const struct option options[] = {
    {"reference", 0, OPTION_TEXT, "DIR", NULL, "folder of float64 reference vectors", GROUP_DATA, 0,
     0, offsetof(struct flags, reference)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

static const enum kiln_setting_id settings[] = {KILN_SETTING_precision, KILN_SETTING_threads};

static void print_table(const struct kiln_verify_result *r) {
    printf("%-24s %12s   limit %.0e\n", "gradient of", "error", r->gradient_limit);
    for (size_t i = 0; i < r->n_tensors; i++) {
        const struct kiln_verify_tensor *t = &r->tensors[i];
        printf("%-24s %12.3e%s\n", t->name, t->error,
               t->error <= r->gradient_limit ? "" : "   too far off");
    }
    printf("losses of %zu steps      %12.3e   limit %.0e%s\n", r->steps, r->loss_error,
           r->loss_limit, r->loss_error <= r->loss_limit ? "" : "   too far off");
    printf("%s\n", r->pass ? "PASS" : "FAIL");
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

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    const struct kiln_settings *s = &call->settings;
    struct kiln_verify_options how = {.reference = flags->reference,
                                      .threads = s->threads != KILN_UNSET ? s->threads : 0};
    KILN_REQUIRE(flags->reference != NULL, err, KILN_EUSAGE,
                 "verify: --reference is missing: name a folder of reference vectors");
    KILN_TRY(kiln_precision_parse(s->precision, &how.precision, err));
    struct kiln_verify_result result;
    KILN_TRY(kiln_verify_reference(&how, &result, err));
    enum kiln_status status = print_result(flags, &result, err);
    if (status == KILN_OK && !result.pass) {
        status = KILN_FAIL(err, KILN_EINPUT,
                           "verify %s: gradient of %s is off by %.2e (limit %.0e), losses by %.2e "
                           "(limit %.0e); try --precision fp32 and KILN_CPU=ref",
                           flags->reference, result.worst.name, result.worst.error,
                           result.gradient_limit, result.loss_error, result.loss_limit);
    }
    kiln_verify_free(&result);
    return status;
}

const struct command command_verify = {
    .name = "verify",
    .synopsis = "--reference DIR [options]",
    .summary = "compare losses and gradients with float64 references",
    .details = "Ends with exit code 1 when something is further off than rounding explains.\n",
    .flags_size = sizeof(struct flags),
    .options = options,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};
