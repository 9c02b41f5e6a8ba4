/* SPDX-License-Identifier: MIT
 *
 * options.c: what is believed of the hardware, and how somebody who believes otherwise says so.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/sim/sim.h"
#include "kiln/mil.h"
#include "m4_times.h" /* made from profiles/m4.json */

void kiln_sim_options_default(struct kiln_sim_options *out) {
    *out = (struct kiln_sim_options){.numbers = {.nan = KILN_SIM_NAN_INF, .matmul_limit = 32752.0f},
                                     .times.device = {.compile_s = M4_compile_s,
                                                      .compile_gb_s = M4_compile_gb_s,
                                                      .load_s = M4_load_s,
                                                      .dispatch_s = M4_dispatch_s,
                                                      .tflops = M4_tflops,
                                                      .beside = M4_beside}};
    kiln_sim_limits_default(&out->limits);
}

bool kiln_mil_sim_number(size_t i, struct kiln_mil_number *out) {
    static const struct kiln_mil_number numbers[] = {
        {"nan", "inf", "what a NaN becomes when it is stored: inf, zero or keep"},
        {"matmul-overflow", "32752", "a larger result of a matmul is infinite"},
        {"slice-overflow", "off",
         "as 4094: behind a slice of the last axis not from 0 (before A16)"},
        {"inf-product", "off", "mul(+inf, x) gives -52416"},
        {"reload", "off", "new weights take effect without a compile"},
    };
    if (i >= sizeof numbers / sizeof numbers[0]) {
        return false;
    }
    *out = numbers[i];
    return true;
}

static enum kiln_status set_nan(struct kiln_sim_numbers *numbers, const char *value,
                                struct kiln_err *err) {
    static const char *const names[] = {
        [KILN_SIM_NAN_INF] = "inf", [KILN_SIM_NAN_ZERO] = "zero", [KILN_SIM_NAN_KEEP] = "keep"};
    for (int i = KILN_SIM_NAN_INF; i <= KILN_SIM_NAN_KEEP; i++) {
        if (strcmp(value, names[i]) == 0) {
            numbers->nan = (enum kiln_sim_nan)i;
            return KILN_OK;
        }
    }
    return KILN_FAIL(err, KILN_EUSAGE, "nan=%s: use inf, zero or keep", value);
}

/* A magnitude beyond which results are infinite; off: none but fp16's own. */
static enum kiln_status set_magnitude(float *out, const char *name, const char *value,
                                      struct kiln_err *err) {
    char *end = NULL;
    const bool off = strcmp(value, "off") == 0;
    const float number = strtof(value, &end);
    const bool good = end != value && *end == '\0' && number > 0.0f && isfinite(number);
    KILN_REQUIRE(off || good, err, KILN_EUSAGE, "%s=%s: use off or a number above 0", name, value);
    *out = off ? 0.0f : number;
    return KILN_OK;
}

static enum kiln_status set_switch(bool *out, const char *name, const char *value,
                                   struct kiln_err *err) {
    KILN_REQUIRE(strcmp(value, "on") == 0 || strcmp(value, "off") == 0, err, KILN_EUSAGE,
                 "%s=%s: use on or off", name, value);
    *out = strcmp(value, "on") == 0;
    return KILN_OK;
}

/* One "name=value". */
static enum kiln_status set_one(struct kiln_sim_options *options, const char *text,
                                struct kiln_err *err) {
    const char *equals = strchr(text, '=');
    const size_t n = equals ? (size_t)(equals - text) : 0;
#define IS(name) (n == sizeof(name) - 1 && strncmp(text, name, n) == 0)
    if (IS("nan")) {
        return set_nan(&options->numbers, equals + 1, err);
    }
    if (IS("matmul-overflow")) {
        return set_magnitude(&options->numbers.matmul_limit, "matmul-overflow", equals + 1, err);
    }
    if (IS("slice-overflow")) {
        return set_magnitude(&options->numbers.slice_limit, "slice-overflow", equals + 1, err);
    }
    if (IS("inf-product")) {
        return set_switch(&options->numbers.inf_product_quirk, "inf-product", equals + 1, err);
    }
    if (IS("reload")) {
        return set_switch(&options->reload_is_visible, "reload", equals + 1, err);
    }
#undef IS
    KILN_REQUIRE(equals, err, KILN_EUSAGE, "%s: a name without a value; NAME=VALUE is wanted",
                 text);
    return kiln_sim_limits_set(&options->limits, text, err);
}

enum kiln_status kiln_sim_options_set(struct kiln_sim_options *options, const char *texts,
                                      struct kiln_err *err) {
    char copy[512];
    KILN_REQUIRE(strlen(texts) < sizeof copy, err, KILN_EUSAGE,
                 "a list of %zu bytes for the simulator; at most %zu are read", strlen(texts),
                 sizeof copy - 1);
    snprintf(copy, sizeof copy, "%s", texts);
    for (char *rest = copy, *one; (one = strtok_r(rest, ",", &rest)) != NULL;) {
        KILN_TRY(set_one(options, one, err));
    }
    return KILN_OK;
}
