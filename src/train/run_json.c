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

/* "figures": {...} */
static int write_figures(const struct kiln_profile *profile, char *out, size_t size) {
    struct kiln_profile figures = *profile;
    int n = snprintf(out, size, ",\n  \"figures\": {");
    for (size_t i = 0; i < NUMBERS; i++) {
        const char *name;
        const double value = *number(&figures, i, &name);
        n += snprintf(out + n, size - (size_t)n, "%s\"%s\": %.9g", i > 0 ? ", " : "", name, value);
    }
    return n + snprintf(out + n, size - (size_t)n, "}");
}

/* ---- for who looks at the run ------------------------------------------------------------------
 */

/* As `plan --json` has it. */
static json_t *planned_json(const struct kiln_run_planned *planned) {
    const struct kiln_memory *m = &planned->memory;
    const struct kiln_plan_time *t = &planned->time;
    return json_pack(
        "{s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}, "
        "s:{s:f, s:f, s:f, s:f, s:f}}",
        "memory_bytes", "weights", (json_int_t)m->weights, "moments", (json_int_t)m->moments,
        "gradients", (json_int_t)m->gradients, "kernels", (json_int_t)m->kernels, "snapshots",
        (json_int_t)m->snapshots, "journal", (json_int_t)m->journal, "activations_kept",
        (json_int_t)m->activations_kept, "activations_live", (json_int_t)m->activations_live,
        "workspace", (json_int_t)m->workspace, "gpu", (json_int_t)m->gpu, "process",
        (json_int_t)m->process, "state_file", (json_int_t)m->state_file, "total",
        (json_int_t)m->total, "time_s", "compile", t->compile, "compute", t->compute, "stall",
        t->stall, "restart", t->restart, "step", t->step);
}

/* Of settings that are no defaults. */
static json_t *origins_json(const struct kiln_settings *settings, const json_t *before) {
    const json_t *known = json_object_get(before, "origins");
    json_t *origins = json_object();
    for (int id = 0; id < KILN_SETTING_COUNT; id++) {
        const char *member = kiln_setting(id)->member;
        const enum kiln_origin origin = settings->origin[id];
        const char *kept = json_string_value(json_object_get(known, member));
        /* What an older kiln wrote has no origins: then it is the run's. */
        const char *name = origin != KILN_FROM_RUN         ? kiln_origin_name(origin)
                           : kept != NULL || known != NULL ? kept
                                                           : kiln_origin_name(origin);
        if (name != NULL && strcmp(name, kiln_origin_name(KILN_FROM_DEFAULT)) != 0) {
            json_object_set_new(origins, member, json_string(name));
        }
    }
    return origins;
}

/* What the file has that is there. NULL: there is none, or it is no JSON. */
static json_t *before(const char *path) {
    char *text = NULL;
    size_t size;
    struct kiln_err ignored;
    if (!kiln_path_exists(path) || kiln_read_file(path, &text, &size, &ignored) != KILN_OK) {
        return NULL;
    }
    json_t *json = json_loadb(text, size, 0, NULL);
    kiln_free(text);
    return json;
}

/* {"plan": {...}, "origins": {...}}; free it. NULL: no memory. */
static char *looks_text(const char *path, const struct kiln_settings *settings,
                        const struct kiln_run_planned *planned) {
    json_t *old = before(path), *looks = json_object();
    json_t *plan =
        planned != NULL ? planned_json(planned) : json_incref(json_object_get(old, "plan"));
    if (plan != NULL) {
        json_object_set_new(looks, "plan", plan);
    }
    json_object_set_new(looks, "origins", origins_json(settings, old));
    char *text = json_dumps(looks, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(looks);
    json_decref(old);
    return text;
}

/* The settings' object without the brace that ends it. */
static char *settings_text(const struct kiln_settings *settings) {
    char *json = kiln_settings_to_json(settings);
    size_t kept = json != NULL ? strlen(json) : 0;
    while (kept > 0 && (json[kept - 1] == '}' || json[kept - 1] == '\n')) {
        json[--kept] = '\0';
    }
    return json;
}

enum kiln_status kiln_run_json_write(const char *path, const struct kiln_settings *settings,
                                     const struct kiln_dims *dims,
                                     const struct kiln_profile *profile,
                                     const struct kiln_forecast *forecast,
                                     const struct kiln_run_planned *planned, struct kiln_err *err) {
    char sizes[3200];
    int n = write_sizes(dims, sizes, sizeof sizes);
    n += write_figures(profile, sizes + n, sizeof sizes - (size_t)n);
    forecast_text(forecast, sizes + n, sizeof sizes - (size_t)n);
    char *json = settings_text(settings), *looks = looks_text(path, settings, planned),
         *text = NULL;
    if (json != NULL && looks != NULL) {
        const size_t room = strlen(json) + strlen(sizes) + strlen(looks) + 16;
        text = kiln_alloc(room, 1);
        if (text != NULL) {
            snprintf(text, room, "%s%s,%s", json, sizes, looks + 1); /* in one object */
        }
    }
    kiln_settings_json_free(json);
    free(looks);
    KILN_REQUIRE(text, err, KILN_ENOMEM, "write %s: not enough memory", path);
    const enum kiln_status status = kiln_write_file(path, text, strlen(text), err);
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
