/* SPDX-License-Identifier: MIT */
#include "train/run_json.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "model/stored_dims.h"

/* "figures" holds the profile that the run is planned with, whatever became of its file: what a
 * profile's file has, and this. */
#define AT(member) offsetof(struct kiln_profile, member)
static const struct {
    const char *name;
    size_t at;
} others[] = {{"process_gb", AT(process_gb)},       {"cache_gb", AT(cache_gb)},
              {"sim_compile_s", AT(sim.compile_s)}, {"sim_compile_gb_s", AT(sim.compile_gb_s)},
              {"sim_load_s", AT(sim.load_s)},       {"sim_dispatch_s", AT(sim.dispatch_s)},
              {"sim_tflops", AT(sim.tflops)},       {"sim_beside", AT(sim.beside)}};
enum { NUMBERS = KILN_FIGURES + sizeof others / sizeof others[0] };

static double *number(struct kiln_profile *profile, size_t i, const char **name) {
    if (i < KILN_FIGURES) {
        *name = kiln_figure(i)->name;
        return kiln_figure_of(profile, i);
    }
    *name = others[i - KILN_FIGURES].name;
    return (double *)(void *)((char *)profile + others[i - KILN_FIGURES].at);
}

/* "sizes": {...}, all that a stored struct has. */
static int write_sizes(const struct kiln_dims *dims, char *out, size_t size) {
    const struct kiln_stored_dims stored = kiln_dims_store(dims);
    size_t count;
    const struct kiln_stored_field *fields = kiln_stored_fields(&count);
    int n = snprintf(out, size, ",\n  \"sizes\": {");
    for (size_t i = 0; i < count; i++) {
        char value[40];
        kiln_stored_text(&stored, &fields[i], value, sizeof value);
        n += snprintf(out + n, size - (size_t)n, "%s\"%s\": %s", i > 0 ? ", " : "", fields[i].name,
                      value);
    }
    return n + snprintf(out + n, size - (size_t)n, "}");
}

static const struct {
    const char *name;
    size_t at;
} promises[] = {{"bits_per_byte", offsetof(struct kiln_forecast, bits)},
                {"low", offsetof(struct kiln_forecast, low)},
                {"high", offsetof(struct kiln_forecast, high)},
                {"bytes_per_token", offsetof(struct kiln_forecast, bytes_per_token)}};
enum { PROMISES = sizeof promises / sizeof promises[0] };

static int forecast_text(const struct kiln_forecast *forecast, char *out, size_t size) {
    int n = 0;
    for (size_t i = 0; forecast->bits > 0 && i < PROMISES; i++) {
        double value;
        memcpy(&value, (const char *)forecast + promises[i].at, sizeof value);
        n += snprintf(out + n, size - (size_t)n, "%s\"%s\": %.9g%s",
                      i == 0 ? ",\n  \"forecast\": {" : "", promises[i].name, value,
                      i + 1 < PROMISES ? ", " : "}");
    }
    return n;
}

enum kiln_status kiln_run_json_write(const char *path, const struct kiln_settings *settings,
                                     const struct kiln_dims *dims,
                                     const struct kiln_profile *profile,
                                     const struct kiln_forecast *forecast, struct kiln_err *err) {
    char sizes[3200];
    char *json = kiln_settings_to_json(settings);
    KILN_REQUIRE(json, err, KILN_ENOMEM, "write %s: not enough memory", path);
    int n = write_sizes(dims, sizes, sizeof sizes);
    n += snprintf(sizes + n, sizeof sizes - (size_t)n, ",\n  \"figures\": {");
    struct kiln_profile figures = *profile;
    for (size_t i = 0; i < NUMBERS; i++) {
        const char *name;
        const double value = *number(&figures, i, &name);
        n += snprintf(sizes + n, sizeof sizes - (size_t)n, "%s\"%s\": %.9g", i > 0 ? ", " : "",
                      name, value);
    }
    n += snprintf(sizes + n, sizeof sizes - (size_t)n, "}");
    n += forecast_text(forecast, sizes + n, sizeof sizes - (size_t)n);
    n += snprintf(sizes + n, sizeof sizes - (size_t)n, "\n}");
    /* In front of the brace that ends the settings. */
    size_t kept = strlen(json);
    while (kept > 0 && (json[kept - 1] == '}' || json[kept - 1] == '\n')) {
        kept--;
    }
    char *text = kiln_alloc(kept + sizeof sizes, 1);
    if (text != NULL) {
        memcpy(text, json, kept);
        memcpy(text + kept, sizes, (size_t)n);
    }
    kiln_settings_json_free(json);
    KILN_REQUIRE(text, err, KILN_ENOMEM, "write %s: not enough memory", path);
    enum kiln_status status = kiln_write_file(path, text, kept + (size_t)n, err);
    kiln_free(text);
    return status;
}

/* A field that a run of an older kiln has not is 0: what it stands for was not there. */
static enum kiln_status read_sizes(const char *path, const json_t *sizes, struct kiln_dims *dims,
                                   struct kiln_err *err) {
    struct kiln_stored_dims stored = {0};
    size_t n;
    const struct kiln_stored_field *fields = kiln_stored_fields(&n);
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_object_get(sizes, fields[i].name);
        const bool real = fields[i].type == KILN_STORED_REAL;
        const double number = json_number_value(value);
        const uint64_t count = (uint64_t)json_integer_value(value);
        KILN_REQUIRE(
            !value || ((real ? json_is_number(value) : json_is_integer(value)) && number >= 0), err,
            KILN_EINPUT, "%s: \"sizes\": \"%s\" is not a number from 0 up", path, fields[i].name);
        memcpy((char *)&stored + fields[i].at, real ? (const void *)&number : &count, 8);
    }
    *dims = kiln_dims_restore(&stored);
    struct kiln_err why;
    KILN_REQUIRE(kiln_dims_check(dims, &why) == KILN_OK, err, KILN_EINPUT, "%s: \"sizes\": %.240s",
                 path, why.message);
    return KILN_OK;
}

static enum kiln_status read_profile(const char *path, const json_t *from,
                                     struct kiln_profile *profile, struct kiln_err *err) {
    for (size_t i = 0; i < NUMBERS; i++) {
        const char *name;
        double *to = number(profile, i, &name);
        const json_t *value = json_object_get(from, name);
        KILN_REQUIRE(json_is_number(value) && json_number_value(value) >= 0, err, KILN_EINPUT,
                     "%s: \"figures\": \"%s\" is not a number from 0 up", path, name);
        *to = json_number_value(value);
    }
    return KILN_OK;
}

static enum kiln_status read_forecast(const char *path, const json_t *from,
                                      struct kiln_forecast *forecast, struct kiln_err *err) {
    for (size_t i = 0; i < PROMISES; i++) {
        const json_t *value = json_object_get(from, promises[i].name);
        const double number_of = json_number_value(value);
        KILN_REQUIRE(json_is_number(value) && number_of > 0, err, KILN_EINPUT,
                     "%s: \"forecast\": \"%s\" is not a positive number", path, promises[i].name);
        memcpy((char *)forecast + promises[i].at, &number_of, sizeof number_of);
    }
    return KILN_OK;
}

/* Runs of an older kiln have an object "profile", in which tflops meant something else: theirs is
 * measured anew. The setting of that name is a text. */
static enum kiln_status read_settings(const char *path, json_t *all, struct kiln_settings *settings,
                                      struct kiln_err *err) {
    if (json_is_object(json_object_get(all, "profile"))) {
        json_object_del(all, "profile");
    }
    char *text = json_dumps(all, JSON_REAL_PRECISION(17));
    KILN_REQUIRE(text, err, KILN_ENOMEM, "read %s: not enough memory", path);
    const enum kiln_status status = kiln_settings_from_json(settings, text, strlen(text), err);
    free(text);
    return status;
}

enum kiln_status kiln_run_json_read(const char *path, struct kiln_settings *settings,
                                    struct kiln_dims *dims, struct kiln_profile *profile,
                                    struct kiln_forecast *forecast, struct kiln_err *err) {
    char *json = NULL;
    size_t size = 0;
    memset(dims, 0, sizeof *dims);
    memset(profile, 0, sizeof *profile);
    memset(forecast, 0, sizeof *forecast);
    KILN_TRY(kiln_read_file(path, &json, &size, err));
    json_t *all = json_loadb(json, size, 0, NULL);
    /* What is no JSON at all is told by who reads settings. */
    enum kiln_status status = json_is_object(all)
                                  ? read_settings(path, all, settings, err)
                                  : kiln_settings_from_json(settings, json, size, err);
    const json_t *sizes = json_object_get(all, "sizes");
    if (status == KILN_OK && sizes != NULL) {
        status = read_sizes(path, sizes, dims, err);
    }
    const json_t *figures = json_object_get(all, "figures");
    if (status == KILN_OK && figures != NULL) {
        status = read_profile(path, figures, profile, err);
    }
    const json_t *promised = json_object_get(all, "forecast");
    if (status == KILN_OK && promised != NULL) {
        status = read_forecast(path, promised, forecast, err);
    }
    json_decref(all);
    kiln_free(json);
    return status;
}
