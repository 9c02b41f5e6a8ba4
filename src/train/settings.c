/* SPDX-License-Identifier: MIT
 *
 * settings.c: the table of settings, and everything that walks it: defaults, parsing, text, JSON.
 *
 * No setting is named below the table but the prompt; a new line in settings.h is all it takes.
 */
#include "kiln/settings.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kiln/model.h"

/* ---- the table ------------------------------------------------------------------------------ */

static const char *const decays[] = {"constant", "linear", "cosine", NULL};
static const char *const precisions[] = {"auto", "fp32", "bf16", "fp16", NULL};
static const char *const reduce_precisions[] = {"fp32", "bf16", NULL};
static const char *const devices[] = {"cpu", "sim", "ane", NULL};
static const char *const dws[] = {"cpu", "gpu", NULL};
static const char *const weight_modes[] = {"baked", "dynamic", NULL};
static const char *const schedules[] = {"whole", "split", NULL};
static const char *const overlaps[] = {"off", "exact", "delayed", NULL};
static const char *const restarts[] = {"exec", "relay", NULL};
static const char *const on_spikes[] = {"record", "skip", "rollback", "stop", NULL};
/* What is worth offering where more is valid. */
static const char *const activations[] = {"all",    "boundary", "sqrt", "every:2", "every:4",
                                          "inputs", "none",     "auto", NULL};
static const char *const lora_targets[] = {"q,v", "q,k,v,o", "all", NULL};
static const char *const profiles[] = {"m1-pro", "m3-max", "m4", "m5", NULL};

#define SETTING_LINE(kind, name, flag_text, start, low, high, help_text) \
    {                                                                    \
        .member = #name,                                                 \
        .flag = (flag_text),                                             \
        .initial = (start),                                              \
        .help = (help_text),                                             \
        .type = KILN_TYPE_##kind,                                        \
        .least = (double)(low),                                          \
        .most = (double)(high),                                          \
        .offset = offsetof(struct kiln_settings, name),                  \
    },

/* clang-format off */
static const struct kiln_setting table[KILN_SETTING_COUNT] = {
    KILN_SETTINGS(SETTING_LINE)
    /* What a text may be: the lines above have no place for a list. */
    [KILN_SETTING_decay].choices = decays,
    [KILN_SETTING_precision].choices = precisions,
    [KILN_SETTING_reduce_precision].choices = reduce_precisions,
    [KILN_SETTING_device].choices = devices,
    [KILN_SETTING_dw].choices = dws,
    [KILN_SETTING_weight_mode].choices = weight_modes,
    [KILN_SETTING_schedule].choices = schedules,
    [KILN_SETTING_overlap].choices = overlaps,
    [KILN_SETTING_restart].choices = restarts,
    [KILN_SETTING_on_spike].choices = on_spikes,
    [KILN_SETTING_activations].offers = activations,
    [KILN_SETTING_lora_targets].offers = lora_targets,
    [KILN_SETTING_profile].offers = profiles,
    [KILN_SETTING_profile].path = true,
    [KILN_SETTING_model].path = true,
    [KILN_SETTING_adapter].path = true,
    [KILN_SETTING_data].path = true,
    [KILN_SETTING_val].path = true,
    [KILN_SETTING_tokenizer].path = true,
    [KILN_SETTING_chat_template].path = true,
    [KILN_SETTING_out].path = true,
    [KILN_SETTING_state].path = true,
};
/* clang-format on */

const struct kiln_setting *kiln_setting(enum kiln_setting_id id) { return &table[id]; }

int kiln_setting_find(const char *flag) {
    for (int id = 0; id < KILN_SETTING_COUNT; id++) {
        if (strcmp(table[id].flag, flag) == 0) {
            return id;
        }
    }
    return -1;
}

const char *kiln_origin_name(enum kiln_origin origin) {
    static const char *const names[] = {"default", "model", "machine", "flag", "run", "minutes"};
    return (size_t)origin < sizeof names / sizeof names[0] ? names[origin] : "unknown";
}

/* ---- numbers from text ---------------------------------------------------------------------- */

/* The digits of `text` without its underscores; false when it is not a plain whole number.
 * An underscore stands between two digits: "10_000", not "_1" or "1__0". */
static bool plain_digits(const char *text, char *digits, size_t room) {
    size_t n = 0;
    for (const char *c = text; *c != '\0'; c++) {
        const bool digit = *c >= '0' && *c <= '9';
        if (!digit && !(*c == '_' && c > text && c[-1] != '_' && c[1] != '\0')) {
            return false;
        }
        if (digit && n + 1 == room) {
            return false;
        }
        if (digit) {
            digits[n++] = *c;
        }
    }
    digits[n] = '\0';
    return n > 0;
}

static enum kiln_status bad_count(const char *flag, const char *text, const char *why,
                                  uint64_t least, uint64_t most, struct kiln_err *err) {
    return KILN_FAIL(err, KILN_EUSAGE, "%s %s: %s; use %" PRIu64 " to %" PRIu64, flag, text, why,
                     least, most);
}

enum kiln_status kiln_parse_count(const char *flag, const char *text, uint64_t least, uint64_t most,
                                  uint64_t *out, struct kiln_err *err) {
    char digits[64];
    if (!plain_digits(text, digits, sizeof digits)) {
        return bad_count(flag, text, "not a whole number", least, most, err);
    }
    uint64_t value = 0;
    for (const char *c = digits; *c != '\0'; c++) {
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*c - '0'), &value)) {
            return bad_count(flag, text, "out of range", least, most, err);
        }
    }
    if (value < least || value > most) {
        return bad_count(flag, text, "out of range", least, most, err);
    }
    *out = value;
    return KILN_OK;
}

/* strtod reads blanks, hexadecimals, "inf" and "nan" too; numbers of ours are none of these. */
static bool plain_real(const char *text, double *out) {
    if (text[0] == '\0' || strspn(text, "0123456789+-.eE") != strlen(text)) {
        return false;
    }
    char *end = NULL;
    *out = strtod(text, &end);
    return *end == '\0';
}

enum kiln_status kiln_parse_real(const char *flag, const char *text, double least, double most,
                                 double *out, struct kiln_err *err) {
    double value = 0;
    KILN_REQUIRE(plain_real(text, &value), err, KILN_EUSAGE,
                 "%s %s: not a number; use %.10g to %.10g", flag, text, least, most);
    KILN_REQUIRE(value >= least && value <= most, err, KILN_EUSAGE,
                 "%s %s: out of range; use %.10g to %.10g", flag, text, least, most);
    *out = value;
    return KILN_OK;
}

enum kiln_status kiln_parse_size(const char *flag, const char *text, uint64_t least, uint64_t most,
                                 uint64_t *out, struct kiln_err *err) {
    static const char units[] = "KMGT";
    char number[64] = "";
    const size_t length = strlen(text);
    const char *unit = length > 0 ? strchr(units, text[length - 1]) : NULL;
    unit = unit != NULL && *unit != '\0' ? unit : NULL;
    snprintf(number, sizeof number, "%.*s", (int)(unit != NULL ? length - 1 : length), text);
    double value = 0;
    KILN_REQUIRE(length < sizeof number && plain_real(number, &value) && number[0] != '-', err,
                 KILN_EUSAGE, "%s %s: not a size; use bytes, or a number and K, M, G or T, as 512M",
                 flag, text);
    value = ldexp(value, unit != NULL ? 10 * (int)(unit - units + 1) : 0);
    KILN_REQUIRE(value >= (double)least && value <= (double)most && value < 0x1p64, err,
                 KILN_EUSAGE, "%s %s: out of range; use %" PRIu64 " to %" PRIu64 " bytes", flag,
                 text, least, most);
    *out = (uint64_t)value;
    return KILN_OK;
}

/* ---- one value ------------------------------------------------------------------------------ */

static void *member_of(struct kiln_settings *settings, enum kiln_setting_id id) {
    return (char *)settings + table[id].offset;
}
static const void *value_of(const struct kiln_settings *settings, enum kiln_setting_id id) {
    return (const char *)settings + table[id].offset;
}

/* A bound of the table as a count: 2^64-2 is rounded to 2^64 when it becomes a double. */
static uint64_t count_bound(double bound) {
    return bound >= 0x1p64 ? UINT64_MAX - 1 : (uint64_t)bound;
}

static enum kiln_status check_choice(const struct kiln_setting *setting, const char *text,
                                     struct kiln_err *err) {
    char list[256] = "";
    size_t used = 0;
    for (size_t i = 0; setting->choices != NULL && setting->choices[i] != NULL; i++) {
        if (strcmp(setting->choices[i], text) == 0) {
            return KILN_OK;
        }
        const char *joint = i == 0 ? "" : setting->choices[i + 1] == NULL ? " or " : ", ";
        const int n = snprintf(list + used, sizeof list - used, "%s%s", joint, setting->choices[i]);
        used += (size_t)n < sizeof list - used ? (size_t)n : 0;
    }
    KILN_REQUIRE(setting->choices == NULL, err, KILN_EUSAGE, "--%s %s: unknown; use %s",
                 setting->flag, text, list);
    return KILN_OK;
}

static bool is_utf8(const char *text) {
    json_t *string = json_string(text);
    json_decref(string);
    return string != NULL;
}

static enum kiln_status set_text(char **member, const struct kiln_setting *setting,
                                 const char *text, struct kiln_err *err) {
    char *copy = NULL;
    if (text[0] != '\0') {
        KILN_TRY(check_choice(setting, text, err));
        KILN_REQUIRE(is_utf8(text), err, KILN_EUSAGE,
                     "--%s: its value is not UTF-8, which run.json needs; rename the file",
                     setting->flag);
        copy = kiln_strdup(text);
        KILN_REQUIRE(copy != NULL, err, KILN_ENOMEM, "--%s: out of memory", setting->flag);
    }
    kiln_free(*member);
    *member = copy;
    return KILN_OK;
}

static enum kiln_status set_flag(bool *member, const struct kiln_setting *setting, const char *text,
                                 struct kiln_err *err) {
    const bool on = strcmp(text, "1") == 0 || strcmp(text, "yes") == 0;
    KILN_REQUIRE(on || strcmp(text, "0") == 0 || strcmp(text, "no") == 0, err, KILN_EUSAGE,
                 "--%s=%s: use yes or no, or --%s alone", setting->flag, text, setting->flag);
    *member = on;
    return KILN_OK;
}

static void unset(void *member, enum kiln_setting_type type) {
    switch (type) {
        case KILN_TYPE_TEXT:
            kiln_free(*(char **)member);
            *(char **)member = NULL;
            break;
        case KILN_TYPE_COUNT:
        case KILN_TYPE_SIZE:
            *(uint64_t *)member = KILN_UNSET;
            break;
        case KILN_TYPE_REAL:
            *(double *)member = (double)NAN;
            break;
        case KILN_TYPE_FLAG:
            *(bool *)member = false;
            break;
    }
}

static enum kiln_status set_value(void *member, const struct kiln_setting *setting,
                                  const char *text, struct kiln_err *err) {
    char flag[64];
    snprintf(flag, sizeof flag, "--%s", setting->flag);
    switch (setting->type) {
        case KILN_TYPE_TEXT:
            return set_text(member, setting, text, err);
        case KILN_TYPE_COUNT:
            return kiln_parse_count(flag, text, count_bound(setting->least),
                                    count_bound(setting->most), member, err);
        case KILN_TYPE_SIZE:
            return kiln_parse_size(flag, text, count_bound(setting->least),
                                   count_bound(setting->most), member, err);
        case KILN_TYPE_REAL:
            return kiln_parse_real(flag, text, setting->least, setting->most, member, err);
        case KILN_TYPE_FLAG:
            return set_flag(member, setting, text, err);
    }
    return KILN_FAIL(err, KILN_EINTERNAL, "%s has an unknown type", flag);
}

enum kiln_status kiln_settings_set(struct kiln_settings *settings, enum kiln_setting_id id,
                                   const char *text, enum kiln_origin origin,
                                   struct kiln_err *err) {
    const struct kiln_setting *setting = &table[id];
    if (text[0] == '\0') {
        /* An empty flag is more likely a shell variable that was not set than a wish. */
        KILN_REQUIRE(origin != KILN_FROM_FLAG || id == KILN_SETTING_prompt, err, KILN_EUSAGE,
                     "--%s is empty: give it a value (%s), or leave it out", setting->flag,
                     setting->help);
        unset(member_of(settings, id), setting->type);
    } else {
        KILN_TRY(set_value(member_of(settings, id), setting, text, err));
    }
    settings->origin[id] = origin;
    return KILN_OK;
}

enum kiln_status kiln_settings_set_all(struct kiln_settings *settings, struct kiln_err *err, ...) {
    enum kiln_status status = KILN_OK;
    const char *flag;
    va_list pairs;
    va_start(pairs, err);
    while (status == KILN_OK && (flag = va_arg(pairs, const char *)) != NULL) {
        const int id = kiln_setting_find(flag);
        const char *value = va_arg(pairs, const char *);
        status =
            id >= 0 && value != NULL
                ? kiln_settings_set(settings, (enum kiln_setting_id)id, value, KILN_FROM_FLAG, err)
                : KILN_FAIL(err, KILN_EUSAGE, "--%s: %s", flag,
                            id < 0 ? "no setting has this name" : "a value is missing");
    }
    va_end(pairs);
    return status;
}

/* The fewest digits that read back as the same number: 0.0003, not 0.00029999999999999997. */
static int digits_of(double value) {
    char text[40];
    for (int digits = 1; digits < 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            return digits;
        }
    }
    return 17;
}

static void size_text(uint64_t bytes, char *buffer, size_t room) {
    static const char units[] = "GMK";
    for (int i = 0; units[i] != '\0'; i++) {
        const uint64_t unit = (uint64_t)1 << (30 - 10 * i);
        if (bytes >= unit && bytes % unit == 0) {
            snprintf(buffer, room, "%" PRIu64 "%c", bytes / unit, units[i]);
            return;
        }
    }
    snprintf(buffer, room, "%" PRIu64, bytes);
}

const char *kiln_settings_text(const struct kiln_settings *settings, enum kiln_setting_id id,
                               char *buffer, size_t size) {
    const void *value = value_of(settings, id);
    const char *text = NULL;
    uint64_t count = 0;
    double real = 0;
    buffer[0] = '\0';
    switch (table[id].type) {
        case KILN_TYPE_TEXT:
            text = *(char *const *)value;
            snprintf(buffer, size, "%s", text != NULL ? text : "");
            break;
        case KILN_TYPE_COUNT:
        case KILN_TYPE_SIZE:
            count = *(const uint64_t *)value;
            if (count != KILN_UNSET && table[id].type == KILN_TYPE_SIZE) {
                size_text(count, buffer, size);
            } else if (count != KILN_UNSET) {
                snprintf(buffer, size, "%" PRIu64, count);
            }
            break;
        case KILN_TYPE_REAL:
            real = *(const double *)value;
            if (!isnan(real)) {
                snprintf(buffer, size, "%.*g", digits_of(real), real);
            }
            break;
        case KILN_TYPE_FLAG:
            snprintf(buffer, size, "%s", *(const bool *)value ? "yes" : "no");
            break;
    }
    return buffer;
}

/* ---- all of them ---------------------------------------------------------------------------- */

enum kiln_status kiln_settings_init(struct kiln_settings *settings, struct kiln_err *err) {
    memset(settings, 0, sizeof *settings);
    for (int id = 0; id < KILN_SETTING_COUNT; id++) {
        const enum kiln_status status =
            kiln_settings_set(settings, id, table[id].initial, KILN_FROM_DEFAULT, err);
        if (status != KILN_OK) {
            kiln_settings_free(settings);
            return status;
        }
    }
    return KILN_OK;
}

void kiln_settings_free(struct kiln_settings *settings) {
    for (int id = 0; id < KILN_SETTING_COUNT; id++) {
        unset(member_of(settings, id), table[id].type);
    }
}

enum kiln_status kiln_settings_copy(struct kiln_settings *out, const struct kiln_settings *from,
                                    struct kiln_err *err) {
    *out = *from;
    bool whole = true;
    for (int id = 0; id < KILN_SETTING_COUNT; id++) {
        if (table[id].type == KILN_TYPE_TEXT) {
            char **member = member_of(out, id);
            const char *text = *member;
            *member = text != NULL ? kiln_strdup(text) : NULL;
            whole = whole && (text == NULL || *member != NULL);
        }
    }
    if (!whole) {
        kiln_settings_free(out);
        return KILN_FAIL(err, KILN_ENOMEM, "copying the settings: out of memory");
    }
    return KILN_OK;
}

void kiln_settings_arithmetic(const struct kiln_settings *settings, struct kiln_dims *dims) {
    dims->rms_eps = isnan(settings->rms_eps) ? dims->rms_eps : (float)settings->rms_eps;
    dims->rope_theta = isnan(settings->rope_theta) ? dims->rope_theta : (float)settings->rope_theta;
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static json_t *count_json(uint64_t count) {
    char text[24];
    if (count == KILN_UNSET) {
        return json_null();
    }
    if (count <= INT64_MAX) {
        return json_integer((json_int_t)count);
    }
    /* Beyond the integers of JSON as jansson reads them: as text. */
    snprintf(text, sizeof text, "%" PRIu64, count);
    return json_string(text);
}

static json_t *value_json(const struct kiln_settings *settings, enum kiln_setting_id id) {
    const void *value = value_of(settings, id);
    const char *text = NULL;
    switch (table[id].type) {
        case KILN_TYPE_TEXT:
            text = *(char *const *)value;
            return text != NULL ? json_stringn_nocheck(text, strlen(text)) : json_null();
        case KILN_TYPE_COUNT:
        case KILN_TYPE_SIZE:
            return count_json(*(const uint64_t *)value);
        case KILN_TYPE_REAL:
            return isnan(*(const double *)value) ? json_null() : json_real(*(const double *)value);
        case KILN_TYPE_FLAG:
            return json_boolean(*(const bool *)value);
    }
    return NULL;
}

/* Turns and jumps are pairs of counts: [[at, before], ...], [[at, samples], ...]. */
_Static_assert(sizeof(struct kiln_turn) == sizeof(uint64_t[2]) &&
                   sizeof(struct kiln_jump) == sizeof(uint64_t[2]),
               "a pair has nothing but its counts");

static json_t *pairs_json(const void *pairs, size_t n) {
    const uint64_t *pair = pairs;
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++, pair += 2) {
        json_array_append_new(list, json_pack("[I, I]", (json_int_t)pair[0], (json_int_t)pair[1]));
    }
    return list;
}

/* Ascending by the first; the second, a number of `what`, is at least 1. */
static enum kiln_status read_pairs(const json_t *list, const char *name, const char *what,
                                   size_t most, void *pairs, size_t *n, struct kiln_err *err) {
    uint64_t *pair = pairs;
    *n = 0;
    KILN_REQUIRE(json_is_array(list) && json_array_size(list) <= most, err, KILN_EINPUT,
                 "settings: \"%s\": not a list of at most %zu", name, most);
    for (size_t i = 0; i < json_array_size(list); i++, pair += 2) {
        const json_t *entry = json_array_get(list, i);
        const json_int_t at = json_integer_value(json_array_get(entry, 0));
        const json_int_t count = json_integer_value(json_array_get(entry, 1));
        KILN_REQUIRE(at >= 0 && count > 0 && (i == 0 || (uint64_t)at >= pair[-2]), err, KILN_EINPUT,
                     "settings: \"%s\": entry %zu is not [step, number of %s], in order", name, i,
                     what);
        pair[0] = (uint64_t)at;
        pair[1] = (uint64_t)count;
        *n = i + 1;
    }
    return KILN_OK;
}

/* [[at, lr], ...]; *digits: as many as all of them need. */
static json_t *peaks_json(const struct kiln_settings *settings, int *digits) {
    json_t *list = json_array();
    for (size_t i = 0; i < settings->n_peaks; i++) {
        const int needs = digits_of(settings->peak[i].lr);
        *digits = needs > *digits ? needs : *digits;
        json_array_append_new(
            list, json_pack("[I, f]", (json_int_t)settings->peak[i].at, settings->peak[i].lr));
    }
    return list;
}

static enum kiln_status read_peaks(struct kiln_settings *s, const json_t *list,
                                   struct kiln_err *err) {
    s->n_peaks = 0;
    KILN_REQUIRE(json_is_array(list) && json_array_size(list) <= KILN_PEAKS, err, KILN_EINPUT,
                 "settings: \"peaks\": not a list of at most %d", KILN_PEAKS);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *peak = json_array_get(list, i), *lr = json_array_get(peak, 1);
        const json_int_t at = json_integer_value(json_array_get(peak, 0));
        KILN_REQUIRE(json_is_integer(json_array_get(peak, 0)) && at >= 0 && json_is_number(lr) &&
                         json_number_value(lr) >= 0 && s->lr > 0 &&
                         (i == 0 || (uint64_t)at > s->peak[i - 1].at),
                     err, KILN_EINPUT,
                     "settings: \"peaks\": entry %zu is not [step, learning rate], in order", i);
        s->peak[i] = (struct kiln_peak){.at = (uint64_t)at, .lr = json_number_value(lr)};
        s->n_peaks = i + 1;
    }
    return KILN_OK;
}

/* Lists that only some runs have. */
static bool add_lists(json_t *object, const struct kiln_settings *settings, int *digits) {
    return (settings->n_turns == 0 ||
            json_object_set_new(object, "turns", pairs_json(settings->turn, settings->n_turns)) ==
                0) &&
           (settings->n_jumps == 0 ||
            json_object_set_new(object, "jumps", pairs_json(settings->jump, settings->n_jumps)) ==
                0) &&
           (settings->n_peaks == 0 ||
            json_object_set_new(object, "peaks", peaks_json(settings, digits)) == 0);
}

char *kiln_settings_to_json(const struct kiln_settings *settings) {
    json_t *object = json_object();
    int digits = 1;
    for (int id = 0; object != NULL && id < KILN_SETTING_COUNT; id++) {
        if (table[id].type == KILN_TYPE_REAL) {
            const int needs = digits_of(*(const double *)value_of(settings, id));
            const bool known = !isnan(*(const double *)value_of(settings, id));
            digits = known && needs > digits ? needs : digits;
        }
        if (json_object_set_new(object, table[id].member, value_json(settings, id)) != 0) {
            json_decref(object);
            object = NULL;
        }
    }
    if (object != NULL && !add_lists(object, settings, &digits)) {
        json_decref(object);
        object = NULL;
    }
    char *json =
        object != NULL ? json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(digits)) : NULL;
    json_decref(object);
    return json;
}

void kiln_settings_json_free(char *json) { free(json); }

/* A JSON value as it would be typed; NULL when it cannot be a setting. */
static const char *json_typed(const json_t *value, char *buffer, size_t size) {
    switch (json_typeof(value)) {
        case JSON_NULL:
            return "";
        case JSON_STRING:
            return json_string_value(value);
        case JSON_INTEGER:
            snprintf(buffer, size, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
            return buffer;
        case JSON_REAL:
            snprintf(buffer, size, "%.17g", json_real_value(value));
            return buffer;
        case JSON_TRUE:
            return "1";
        case JSON_FALSE:
            return "0";
        default:
            return NULL;
    }
}

enum kiln_status kiln_settings_from_json(struct kiln_settings *settings, const char *json,
                                         size_t size, struct kiln_err *err) {
    json_error_t where;
    json_t *object = json_loadb(json, size, 0, &where);
    KILN_REQUIRE(object != NULL, err, KILN_EINPUT, "settings: line %d is not JSON: %s", where.line,
                 where.text);
    enum kiln_status status = KILN_OK;
    if (!json_is_object(object)) {
        status = KILN_FAIL(err, KILN_EINPUT, "settings: not a JSON object");
    }
    for (int id = 0; status == KILN_OK && id < KILN_SETTING_COUNT; id++) {
        char buffer[40];
        const json_t *value = json_object_get(object, table[id].member);
        if (value == NULL) {
            continue;
        }
        const char *text = json_typed(value, buffer, sizeof buffer);
        struct kiln_err why = {.message = "not a single value"};
        if (text == NULL || kiln_settings_set(settings, id, text, KILN_FROM_RUN, &why) != KILN_OK) {
            status =
                KILN_FAIL(err, KILN_EINPUT, "settings: \"%s\": %s", table[id].member, why.message);
        }
    }
    const json_t *turns = json_object_get(object, "turns");
    if (status == KILN_OK && turns != NULL) {
        status = read_pairs(turns, "turns", "steps", KILN_TURNS, settings->turn, &settings->n_turns,
                            err);
    }
    const json_t *peaks = json_object_get(object, "peaks");
    if (status == KILN_OK && peaks != NULL) {
        status = read_peaks(settings, peaks, err);
    }
    const json_t *jumps = json_object_get(object, "jumps");
    if (status == KILN_OK && jumps != NULL) {
        status = read_pairs(jumps, "jumps", "samples", KILN_JUMPS, settings->jump,
                            &settings->n_jumps, err);
    }
    json_decref(object);
    return status;
}
