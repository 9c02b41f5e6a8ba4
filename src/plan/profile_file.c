/* SPDX-License-Identifier: MIT
 *
 * profile_file.c: profile.json, and the profiles that ship with the library.
 */
#include "plan/profile_file.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"

enum { VERSION = 1 };

#define AT(member) offsetof(struct kiln_profile, member)
/* Least is above 0 where 0 would mean that nothing ever ends. */
static const struct kiln_figure figures[KILN_FIGURES] = {
    {"tflops", "TFLOP/s", 1e-6, 1e6, AT(tflops)},
    {"ceiling_tflops", "TFLOP/s", 0, 1e6, AT(ceiling_tflops)},
    {"dispatch_s", "s", 0, 60, AT(dispatch_s)},
    {"compile_s", "s", 0, 3600, AT(compile_s)},
    {"compile_gb_s", "GB/s", 0, 1e6, AT(compile_gb_s)},
    {"load_s", "s", 0, 3600, AT(load_s)},
    {"beside", "times", 0, 1000, AT(beside)},
    {"host_tflops", "TFLOP/s", 1e-6, 1e6, AT(host_tflops)},
    {"update_gb_s", "GB/s", 1e-6, 1e6, AT(update_gb_s)},
    {"restart_s", "s", 0, 3600, AT(restart_s)},
    {"relay_s", "s", 0, 3600, AT(relay_s)},
    {"walk_gb_s", "GB/s", 1e-6, 1e6, AT(walk_gb_s)},
    {"disk_write_gb_s", "GB/s", 1e-6, 1e6, AT(disk_write_gb_s)},
    {"disk_read_gb_s", "GB/s", 1e-6, 1e6, AT(disk_read_gb_s)},
};

const struct kiln_figure *kiln_figure(size_t i) { return &figures[i]; }

double *kiln_figure_of(struct kiln_profile *profile, size_t i) {
    return (double *)(void *)((char *)profile + figures[i].at);
}

static double value_of(const struct kiln_profile *profile, size_t i) {
    return *(const double *)(const void *)((const char *)profile + figures[i].at);
}

/* ---- reading -------------------------------------------------------------------------------- */

/* "value": a number within its bounds. */
static enum kiln_status read_value(const char *name, size_t i, const json_t *from, double *out,
                                   struct kiln_err *err) {
    const struct kiln_figure *figure = &figures[i];
    const json_t *value = json_object_get(from, "value");
    KILN_REQUIRE(json_is_number(value), err, KILN_EINPUT,
                 "%s: figure \"%s\": its \"value\" is not a number; a number of %s is wanted, as "
                 "{\"value\": 1, \"unit\": \"%s\", \"source\": \"measured\"}",
                 name, figure->name, figure->unit, figure->unit);
    *out = json_number_value(value);
    KILN_REQUIRE(*out >= figure->least && *out <= figure->most, err, KILN_EINPUT,
                 "%s: figure \"%s\" is %g %s; use %g to %g", name, figure->name, *out, figure->unit,
                 figure->least, figure->most);
    return KILN_OK;
}

static enum kiln_status read_figure(const char *name, size_t i, const json_t *from,
                                    struct kiln_profile_file *out, struct kiln_err *err) {
    const struct kiln_figure *figure = &figures[i];
    const json_t *unit = json_object_get(from, "unit"), *source = json_object_get(from, "source");
    KILN_TRY(read_value(name, i, from, kiln_figure_of(&out->profile, i), err));
    KILN_REQUIRE(unit == NULL ||
                     (json_is_string(unit) && strcmp(json_string_value(unit), figure->unit) == 0),
                 err, KILN_EINPUT,
                 "%s: figure \"%s\": its \"unit\" is not \"%s\"; give the value "
                 "in %s",
                 name, figure->name, figure->unit, figure->unit);
    KILN_REQUIRE(source == NULL || json_is_string(source), err, KILN_EINPUT,
                 "%s: figure \"%s\": its \"source\" is not a text", name, figure->name);
    out->known[i] = true;
    snprintf(out->source[i], sizeof out->source[i], "%s",
             source != NULL ? json_string_value(source) : "");
    return KILN_OK;
}

static enum kiln_status read_object(const char *name, const json_t *all,
                                    struct kiln_profile_file *out, struct kiln_err *err) {
    const json_t *version = json_object_get(all, "kiln_profile");
    const json_t *device = json_object_get(all, "device"), *kind = json_object_get(all, "kind");
    const json_t *from = json_object_get(all, "figures");
    const char *what = json_is_string(kind) ? json_string_value(kind) : "";
    KILN_REQUIRE(json_is_integer(version), err, KILN_EINPUT,
                 "%s is no profile: it has no \"kiln_profile\": %d; kiln probe writes one", name,
                 VERSION);
    KILN_REQUIRE(json_integer_value(version) == VERSION, err, KILN_EINPUT,
                 "%s: a profile of version %" JSON_INTEGER_FORMAT
                 "; this kiln reads %d; probe "
                 "again",
                 name, json_integer_value(version), VERSION);
    KILN_REQUIRE(json_is_string(device), err, KILN_EINPUT, "%s: its \"device\" is not a name",
                 name);
    KILN_REQUIRE(strcmp(what, "npu") == 0 || strcmp(what, "cpu") == 0, err, KILN_EINPUT,
                 "%s: its \"kind\" is neither \"npu\" nor \"cpu\"", name);
    KILN_REQUIRE(json_is_object(from), err, KILN_EINPUT, "%s: its \"figures\" are no object", name);
    out->npu = strcmp(what, "npu") == 0;
    snprintf(out->device, sizeof out->device, "%s", json_string_value(device));
    for (size_t i = 0; i < KILN_FIGURES; i++) {
        const json_t *figure = json_object_get(from, figures[i].name);
        if (figure != NULL) {
            KILN_TRY(read_figure(name, i, figure, out, err));
        }
    }
    return KILN_OK;
}

enum kiln_status kiln_profile_parse(const char *name, const char *text, size_t size,
                                    struct kiln_profile_file *out, struct kiln_err *err) {
    json_error_t where;
    memset(out, 0, sizeof *out);
    json_t *all = json_loadb(text, size, JSON_REJECT_DUPLICATES, &where);
    KILN_REQUIRE(all != NULL, err, KILN_EINPUT, "%s: line %d is not JSON: %s", name, where.line,
                 where.text);
    const enum kiln_status status =
        json_is_object(all) ? read_object(name, all, out, err)
                            : KILN_FAIL(err, KILN_EINPUT, "%s: not a JSON object", name);
    json_decref(all);
    return status;
}

/* "m1-pro, m3-max, m4, m5" */
static void list_shipped(char *out, size_t room) {
    size_t used = 0;
    out[0] = '\0';
    for (const struct kiln_shipped_profile *p = kiln_shipped_profiles; p->name != NULL; p++) {
        const int n = snprintf(out + used, room - used, "%s%s", used > 0 ? ", " : "", p->name);
        used += (size_t)n < room - used ? (size_t)n : 0;
    }
}

enum kiln_status kiln_profile_read(const char *name, struct kiln_profile_file *out,
                                   struct kiln_err *err) {
    char list[256], *text = NULL;
    size_t size = 0;
    for (const struct kiln_shipped_profile *p = kiln_shipped_profiles; p->name != NULL; p++) {
        if (strcmp(p->name, name) == 0) {
            return kiln_profile_parse(name, p->text, strlen(p->text), out, err);
        }
    }
    list_shipped(list, sizeof list);
    /* A word that is no file is a name that nobody knows. */
    const bool path = strchr(name, '/') != NULL || strstr(name, ".json") != NULL;
    KILN_REQUIRE(path || kiln_path_exists(name), err, KILN_EUSAGE,
                 "--profile %s: unknown; use %s, or the path of a profile.json", name, list);
    KILN_REQUIRE(!kiln_path_is_dir(name), err, KILN_EINPUT,
                 "%s is a folder; name the profile.json in it", name);
    KILN_TRY(kiln_read_file(name, &text, &size, err));
    const enum kiln_status status = kiln_profile_parse(name, text, size, out, err);
    kiln_free(text);
    return status;
}

/* ---- writing -------------------------------------------------------------------------------- */

/* A line a figure, which a person can read and change. */
static bool write_figure(FILE *to, const struct kiln_profile_file *file, size_t i, bool first) {
    json_t *figure = json_pack("{s:f, s:s, s:s}", "value", value_of(&file->profile, i), "unit",
                               figures[i].unit, "source", file->source[i]);
    char *text = figure != NULL ? json_dumps(figure, JSON_REAL_PRECISION(6)) : NULL;
    const bool good = text != NULL && fprintf(to, "%s\n    \"%s\": %s", first ? "" : ",",
                                              figures[i].name, text) > 0;
    free(text);
    json_decref(figure);
    return good;
}

enum kiln_status kiln_profile_write(const char *path, const struct kiln_profile_file *file,
                                    struct kiln_err *err) {
    struct kiln_durable out;
    json_t *device = json_string(file->device);
    char *name = device != NULL ? json_dumps(device, JSON_ENCODE_ANY) : NULL;
    json_decref(device);
    KILN_REQUIRE(name != NULL, err, KILN_EINPUT,
                 "write %s: the device's name is no text, or there is no memory", path);
    enum kiln_status status = kiln_durable_open(&out, path, err);
    if (status == KILN_OK) {
        bool first = true, good = fprintf(out.stream,
                                          "{\n  \"kiln_profile\": %d,\n  \"device\": %s,\n"
                                          "  \"kind\": \"%s\",\n  \"figures\": {",
                                          VERSION, name, file->npu ? "npu" : "cpu") > 0;
        for (size_t i = 0; i < KILN_FIGURES; i++) {
            if (file->known[i]) {
                good = good && write_figure(out.stream, file, i, first);
                first = false;
            }
        }
        fprintf(out.stream, "\n  }\n}\n");
        status = good ? kiln_durable_commit(&out, err)
                      : KILN_FAIL(err, KILN_EIO, "write %s: not enough memory or room", path);
        if (status != KILN_OK) {
            kiln_durable_abort(&out);
        }
    }
    free(name);
    return status;
}
