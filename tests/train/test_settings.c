/* SPDX-License-Identifier: MIT
 *
 * test_settings.c: every setting parses what its help says, refuses the rest with the valid
 * values, and survives run.json.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kiln/settings.h"
#include "kiln_test.h"

static struct kiln_settings defaults(void) {
    struct kiln_settings settings;
    struct kiln_err err;
    CHECK_OK(kiln_settings_init(&settings, &err), &err);
    return settings;
}

static void refused(enum kiln_setting_id id, const char *text, const char *message) {
    struct kiln_settings settings = defaults();
    struct kiln_err err;
    CHECK_FAILS(kiln_settings_set(&settings, id, text, KILN_FROM_FLAG, &err), KILN_EUSAGE, &err);
    CHECK_CONTAINS(err.message, message);
    CHECK_EQ(settings.origin[id], KILN_FROM_DEFAULT);
    kiln_settings_free(&settings);
}

TEST(settings_begin_with_the_defaults_of_the_table) {
    struct kiln_settings settings = defaults();
    CHECK_EQ(settings.steps, 100);
    CHECK_EQ(settings.dim, KILN_UNSET);
    CHECK(settings.lr == 3e-4);
    CHECK(isnan(settings.min_lr));
    CHECK(settings.model == NULL);
    CHECK_STRING(settings.decay, "cosine");
    CHECK(!settings.blank_lines);
    for (int id = 0; id < KILN_SETTING_COUNT; id++) {
        CHECK_EQ(settings.origin[id], KILN_FROM_DEFAULT);
    }
    kiln_settings_free(&settings);
}

TEST(every_setting_is_found_by_its_flag) {
    for (int id = 0; id < KILN_SETTING_COUNT; id++) {
        CHECK_EQ(kiln_setting_find(kiln_setting(id)->flag), id);
        CHECK(kiln_setting(id)->help[0] != '\0');
    }
    CHECK_EQ(kiln_setting_find("no-such-flag"), -1);
}

TEST(a_setting_keeps_its_value_and_origin) {
    struct kiln_settings settings = defaults();
    struct kiln_err err;
    char text[512];
    CHECK_OK(kiln_settings_set(&settings, KILN_SETTING_steps, "10_000", KILN_FROM_FLAG, &err),
             &err);
    CHECK_EQ(settings.steps, 10000);
    CHECK_EQ(settings.origin[KILN_SETTING_steps], KILN_FROM_FLAG);
    CHECK_STRING(kiln_settings_text(&settings, KILN_SETTING_steps, text, sizeof text), "10000");
    CHECK_STRING(kiln_settings_text(&settings, KILN_SETTING_lr, text, sizeof text), "0.0003");
    CHECK_STRING(kiln_settings_text(&settings, KILN_SETTING_dim, text, sizeof text), "");
    CHECK_STRING(kiln_settings_text(&settings, KILN_SETTING_min_lr, text, sizeof text), "");
    CHECK_STRING(kiln_settings_text(&settings, KILN_SETTING_blank_lines, text, sizeof text), "no");
    CHECK_STRING(kiln_origin_name(KILN_FROM_MACHINE), "machine");
    kiln_settings_free(&settings);
}

TEST(a_wrong_number_is_refused_with_the_valid_values) {
    refused(KILN_SETTING_steps, "abc", "--steps abc: not a whole number; use 1 to 1000000000");
    refused(KILN_SETTING_heads, "0", "--heads 0: out of range; use 1 to 65536");
    refused(KILN_SETTING_steps, "-1", "not a whole number");
    refused(KILN_SETTING_steps, "1.5", "not a whole number");
    refused(KILN_SETTING_steps, "0x10", "not a whole number");
    refused(KILN_SETTING_steps, " 1", "not a whole number");
    refused(KILN_SETTING_steps, "_1", "not a whole number");
    refused(KILN_SETTING_steps, "1__0", "not a whole number");
    refused(KILN_SETTING_steps, "1_", "not a whole number");
    refused(KILN_SETTING_seed, "18446744073709551616", "out of range");
    refused(KILN_SETTING_lr, "nan", "--lr nan: not a number");
    refused(KILN_SETTING_lr, "inf", "not a number");
    refused(KILN_SETTING_lr, "1e999", "out of range");
    refused(KILN_SETTING_lr, "3e-4x", "not a number");
    refused(KILN_SETTING_beta2, "1", "--beta2 1: out of range; use 0 to 0.999999");
}

TEST(a_wrong_name_is_refused_with_the_valid_names) {
    refused(KILN_SETTING_decay, "cosin", "--decay cosin: unknown; use constant, linear or cosine");
    refused(KILN_SETTING_precision, "fp8", "use auto, fp32, bf16 or fp16");
    refused(KILN_SETTING_device, "tpu", "use cpu");
    refused(KILN_SETTING_data, "", "--data is empty");
    refused(KILN_SETTING_data, "\xff.txt", "not UTF-8");
    refused(KILN_SETTING_blank_lines, "perhaps", "use yes or no");
}

TEST(an_empty_prompt_is_a_prompt) {
    struct kiln_settings settings = defaults();
    struct kiln_err err;
    CHECK_OK(kiln_settings_set(&settings, KILN_SETTING_prompt, "", KILN_FROM_FLAG, &err), &err);
    CHECK_EQ(settings.origin[KILN_SETTING_prompt], KILN_FROM_FLAG);
    kiln_settings_free(&settings);
}

TEST(sizes_take_k_m_g_and_t) {
    struct kiln_err err;
    uint64_t bytes = 0;
    CHECK_OK(kiln_parse_size("--memory", "512M", 0, UINT64_MAX, &bytes, &err), &err);
    CHECK_EQ(bytes, 512 << 20);
    CHECK_OK(kiln_parse_size("--memory", "1.5K", 0, UINT64_MAX, &bytes, &err), &err);
    CHECK_EQ(bytes, 1536);
    CHECK_OK(kiln_parse_size("--memory", "7", 0, UINT64_MAX, &bytes, &err), &err);
    CHECK_EQ(bytes, 7);
    CHECK_OK(kiln_parse_size("--memory", "1T", 0, UINT64_MAX, &bytes, &err), &err);
    CHECK_EQ(bytes, (uint64_t)1 << 40);
    const char *const wrong[] = {"", "M", "-1M", "1P", "512MB", "1 M", "99999999999G"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK_FAILS(kiln_parse_size("--memory", wrong[i], 0, UINT64_MAX, &bytes, &err), KILN_EUSAGE,
                    &err);
        CHECK_CONTAINS(err.message, "--memory");
    }
}

/* Every setting away from its default: a setting that run.json forgets shows here. */
static void change_all(struct kiln_settings *settings) {
    static const char *const other[] = {[KILN_TYPE_TEXT] = "a \"name\"\n\xc3\xa4",
                                        [KILN_TYPE_REAL] = "0.1234567890123456",
                                        [KILN_TYPE_COUNT] = "2",
                                        [KILN_TYPE_SIZE] = "2K",
                                        [KILN_TYPE_FLAG] = "1"};
    struct kiln_err err;
    for (int id = 0; id < KILN_SETTING_COUNT; id++) {
        const struct kiln_setting *setting = kiln_setting(id);
        const char *value = setting->choices != NULL ? setting->choices[0] : other[setting->type];
        CHECK_OK(kiln_settings_set(settings, id, value, KILN_FROM_FLAG, &err), &err);
    }
    settings->seed = UINT64_MAX - 1;
}

TEST(settings_survive_run_json) {
    struct kiln_settings settings = defaults(), back = defaults();
    struct kiln_err err;
    char want[512], got[512];
    for (int round = 0; round < 2; round++) {
        char *json = kiln_settings_to_json(&settings);
        CHECK(json != NULL);
        CHECK_OK(kiln_settings_from_json(&back, json, strlen(json), &err), &err);
        for (int id = 0; id < KILN_SETTING_COUNT; id++) {
            CHECK_STRING(kiln_settings_text(&back, id, got, sizeof got),
                         kiln_settings_text(&settings, id, want, sizeof want));
            CHECK_EQ(back.origin[id], KILN_FROM_RUN);
        }
        CHECK(round == 1 || strstr(json, "\"lr\": 0.0003,") != NULL);
        kiln_settings_json_free(json);
        change_all(&settings);
    }
    kiln_settings_free(&settings);
    kiln_settings_free(&back);
}

TEST(a_run_json_that_is_wrong_is_an_input_error) {
    const char *const wrong[] = {
        "", "{", "[]", "{\"steps\": \"abc\"}", "{\"steps\": [1]}", "{\"decay\": \"cosin\"}"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct kiln_settings settings = defaults();
        struct kiln_err err;
        CHECK_FAILS(kiln_settings_from_json(&settings, wrong[i], strlen(wrong[i]), &err),
                    KILN_EINPUT, &err);
        CHECK_CONTAINS(err.message, "settings");
        kiln_settings_free(&settings);
    }
}

TEST(unknown_keys_of_a_newer_run_json_are_ignored) {
    struct kiln_settings settings = defaults();
    struct kiln_err err;
    const char *json = "{\"of_tomorrow\": 1, \"steps\": 7}";
    CHECK_OK(kiln_settings_from_json(&settings, json, strlen(json), &err), &err);
    CHECK_EQ(settings.steps, 7);
    kiln_settings_free(&settings);
}

TEST(a_copy_of_settings_stands_alone) {
    struct kiln_settings settings = defaults(), copy;
    struct kiln_err err;
    CHECK_OK(kiln_settings_set(&settings, KILN_SETTING_data, "book.txt", KILN_FROM_FLAG, &err),
             &err);
    CHECK_OK(kiln_settings_copy(&copy, &settings, &err), &err);
    kiln_settings_free(&settings);
    CHECK_STRING(copy.data, "book.txt");
    CHECK_EQ(copy.origin[KILN_SETTING_data], KILN_FROM_FLAG);
    kiln_settings_free(&copy);
}

/* ---- the device -------------------------------------------------------------------------------
 */

static enum kiln_status device_of(const char *words, struct kiln_device_choice *device,
                                  enum kiln_precision *precision, struct kiln_err *err) {
    struct kiln_settings s;
    char copy[200], *rest = copy;
    CHECK_OK(kiln_settings_init(&s, err), err);
    snprintf(copy, sizeof copy, "%s", words);
    for (char *word; (word = strtok_r(rest, " ", &rest)) != NULL;) {
        char *value = strchr(word, '=');
        *value++ = '\0';
        CHECK_OK(kiln_settings_set(&s, kiln_setting_find(word), value, KILN_FROM_FLAG, err), err);
    }
    const enum kiln_status status = kiln_settings_device(&s, device, precision, err);
    kiln_settings_free(&s);
    return status;
}

TEST(a_device_has_the_precision_and_the_extras_it_can_have) {
    static const struct {
        const char *words;
        struct kiln_device_choice device;
        enum kiln_precision precision;
    } right[] = {
        {"", {.id = KILN_CPU}, KILN_PRECISION_AUTO},
        {"precision=bf16", {.id = KILN_CPU}, KILN_PRECISION_BF16},
        {"device=sim", {.id = KILN_SIM, .extras = true}, KILN_PRECISION_FP16},
        {"device=ane precision=fp16", {.id = KILN_ANE, .extras = true}, KILN_PRECISION_FP16},
        {"device=sim no-extras=yes sim-time=0.5",
         {.id = KILN_SIM, .sim_time = 0.5},
         KILN_PRECISION_FP16},
        {"device=ane weight-mode=dynamic", {.id = KILN_ANE, .dynamic = true}, KILN_PRECISION_FP16},
    };
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        struct kiln_device_choice device;
        enum kiln_precision precision;
        struct kiln_err err;
        CHECK_OK(device_of(right[i].words, &device, &precision, &err), &err);
        CHECK_EQ(device.id, right[i].device.id);
        CHECK_EQ(device.extras, right[i].device.extras);
        CHECK_EQ(device.dynamic, right[i].device.dynamic);
        CHECK_CLOSE(device.sim_time, right[i].device.sim_time, 0);
        CHECK_EQ(precision, right[i].precision);
    }
}

TEST(what_a_device_cannot_do_is_refused_with_the_reason) {
    static const struct {
        const char *words, *reason;
    } wrong[] = {
        {"precision=fp16", "use auto, fp32 or bf16"},
        {"device=sim precision=fp32", "computes in fp16; use auto or fp16"},
        {"device=ane precision=bf16", "--device ane computes in fp16"},
        {"no-extras=yes", "--no-extras is of the devices sim and ane"},
        {"weight-mode=baked", "--weight-mode is of the devices sim and ane"},
        {"sim-time=1", "--sim-time is of the device sim:"},
        {"device=ane sim-time=1", "--device ane takes its own time"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct kiln_device_choice device;
        enum kiln_precision precision;
        struct kiln_err err;
        CHECK_FAILS(device_of(wrong[i].words, &device, &precision, &err), KILN_EUSAGE, &err);
        CHECK_CONTAINS(err.message, wrong[i].reason);
    }
}

TEST(several_settings_are_set_by_pairs) {
    struct kiln_settings s;
    struct kiln_err err;
    CHECK_OK(kiln_settings_init(&s, &err), &err);
    CHECK_OK(kiln_settings_set_all(&s, &err, "steps", "7", "lr", "0.5", (char *)NULL), &err);
    CHECK_EQ(s.steps, 7);
    CHECK_CLOSE(s.lr, 0.5, 0);
    CHECK_EQ(s.origin[KILN_SETTING_lr], KILN_FROM_FLAG);
    CHECK_OK(kiln_settings_set_all(&s, &err, (char *)NULL), &err);
    CHECK_FAILS(kiln_settings_set_all(&s, &err, "batch", "3", "stpes", "7", (char *)NULL),
                KILN_EUSAGE, &err);
    CHECK_CONTAINS(err.message, "stpes");
    CHECK_EQ(s.batch, 3);
    CHECK_FAILS(kiln_settings_set_all(&s, &err, "decay", "cosin", (char *)NULL), KILN_EUSAGE, &err);
    CHECK_CONTAINS(err.message, "use constant, linear or cosine");
    CHECK_FAILS(kiln_settings_set_all(&s, &err, "steps", (char *)NULL), KILN_EUSAGE, &err);
    kiln_settings_free(&s);
}
