/* SPDX-License-Identifier: MIT
 *
 * view_folder.c: what a view knows of a run beside its steps: run.json, samples.jsonl, checkpoints/
 * and incidents/. These are small or written seldom: each is read whole when it has changed.
 */
#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "report/view_int.h"

static double real(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static uint64_t count(const json_t *object, const char *key) {
    const double value = real(object, key);
    const json_int_t whole = json_integer_value(json_object_get(object, key));
    return whole > 0 ? (uint64_t)whole : value > 0 && value < 9e18 ? (uint64_t)value : 0;
}

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

/* A file that somebody takes away meanwhile is one that is not there. *out NULL: it is not. */
static enum kiln_status read_if_there(const char *path, char **out, size_t *size,
                                      struct kiln_err *err) {
    *out = NULL;
    *size = 0;
    if (!kiln_path_exists(path)) {
        return KILN_OK;
    }
    const enum kiln_status status = kiln_read_file(path, out, size, err);
    return status == KILN_EINPUT ? KILN_OK : status;
}

/* ---- run.json ----------------------------------------------------------------------------------
 */

void kiln_view_drop_run(struct kiln_view *view) {
    for (size_t i = 0; i < view->n_settings; i++) {
        kiln_free((void *)(uintptr_t)view->shown[i].value);
        view->shown[i].value = NULL;
    }
    if (view->known) {
        kiln_settings_free(&view->settings);
    }
    view->n_settings = 0;
    view->known = view->planned = false;
}

static const char *origin_of(const json_t *run, const char *member) {
    const json_t *origins = json_object_get(run, "origins");
    const char *name = json_string_value(json_object_get(origins, member));
    for (enum kiln_origin o = KILN_FROM_DEFAULT; name != NULL && o <= KILN_FROM_MINUTES; o++) {
        if (strcmp(name, kiln_origin_name(o)) == 0) {
            return kiln_origin_name(o);
        }
    }
    return kiln_origin_name(json_is_object(origins) ? KILN_FROM_DEFAULT : KILN_FROM_RUN);
}

static enum kiln_status show_settings(struct kiln_view *view, const json_t *run,
                                      struct kiln_err *err) {
    for (int id = 0; id < KILN_SETTING_COUNT; id++) {
        char buffer[4200];
        const struct kiln_setting *setting = kiln_setting(id);
        char *value = kiln_strdup(
            kiln_settings_text(&view->settings, (enum kiln_setting_id)id, buffer, sizeof buffer));
        KILN_REQUIRE(value, err, KILN_ENOMEM, "%s: no memory for its settings", view->folder);
        view->shown[view->n_settings++] = (struct kiln_view_setting){
            .flag = setting->flag, .value = value, .origin = origin_of(run, setting->member)};
    }
    return KILN_OK;
}

static void read_plan(struct kiln_view *view, const json_t *run) {
    const json_t *plan = json_object_get(run, "plan");
    const json_t *m = json_object_get(plan, "memory_bytes"), *t = json_object_get(plan, "time_s");
    if (!json_is_object(m) || !json_is_object(t)) {
        return;
    }
    view->memory = (struct kiln_memory){.weights = count(m, "weights"),
                                        .moments = count(m, "moments"),
                                        .gradients = count(m, "gradients"),
                                        .kernels = count(m, "kernels"),
                                        .snapshots = count(m, "snapshots"),
                                        .journal = count(m, "journal"),
                                        .activations_kept = count(m, "activations_kept"),
                                        .activations_live = count(m, "activations_live"),
                                        .workspace = count(m, "workspace"),
                                        .gpu = count(m, "gpu"),
                                        .process = count(m, "process"),
                                        .total = count(m, "total"),
                                        .state_file = count(m, "state_file")};
    view->time = (struct kiln_plan_time){.compile = real(t, "compile"),
                                         .compute = real(t, "compute"),
                                         .stall = real(t, "stall"),
                                         .restart = real(t, "restart"),
                                         .step = real(t, "step")};
    view->planned = true;
}

/* A run.json of a newer kiln, or one that somebody wrote in, may hold settings that are none here:
 * the view then goes without. */
static enum kiln_status read_run(struct kiln_view *view, const char *json, size_t size,
                                 struct kiln_err *err) {
    struct kiln_err ignored;
    json_t *run = json_loadb(json, size, 0, NULL);
    if (!json_is_object(run)) {
        json_decref(run);
        return KILN_OK;
    }
    if (json_is_object(json_object_get(run, "profile"))) {
        json_object_del(run, "profile"); /* of an older kiln: no setting */
    }
    enum kiln_status status = kiln_settings_init(&view->settings, err);
    view->known = status == KILN_OK;
    char *text = json_dumps(run, JSON_REAL_PRECISION(17));
    if (status == KILN_OK && text != NULL &&
        kiln_settings_from_json(&view->settings, text, strlen(text), &ignored) == KILN_OK) {
        status = show_settings(view, run, err);
    }
    free(text);
    read_plan(view, run);
    json_decref(run);
    return status;
}

enum kiln_status kiln_view_read_run(struct kiln_view *view, bool *changed, struct kiln_err *err) {
    char path[4300], *json = NULL;
    size_t size = 0;
    kiln_view_path(view, "run.json", path);
    *changed = kiln_seen_change(&view->run_seen, path);
    if (!*changed) {
        return KILN_OK;
    }
    kiln_view_drop_run(view);
    KILN_TRY(read_if_there(path, &json, &size, err));
    const enum kiln_status status = json != NULL ? read_run(view, json, size, err) : KILN_OK;
    kiln_free(json);
    return status;
}

size_t kiln_view_settings(const struct kiln_view *view) { return view->n_settings; }

const struct kiln_view_setting *kiln_view_setting(const struct kiln_view *view, size_t i) {
    return i < view->n_settings ? &view->shown[i] : NULL;
}

const char *kiln_view_value(const struct kiln_view *view, enum kiln_setting_id id) {
    return (size_t)id < view->n_settings ? view->shown[id].value : "";
}

bool kiln_view_plan(const struct kiln_view *view, struct kiln_memory *memory,
                    struct kiln_plan_time *time) {
    if (view->planned) {
        *memory = view->memory;
        *time = view->time;
    }
    return view->planned;
}

/* ---- samples.jsonl -----------------------------------------------------------------------------
 */

void kiln_view_drop_samples(struct kiln_view *view) {
    for (size_t i = 0; i < view->n_samples; i++) {
        kiln_free((void *)(uintptr_t)view->samples[i].text);
    }
    kiln_free(view->samples);
    view->samples = NULL;
    view->n_samples = 0;
}

static enum kiln_status add_sample(struct kiln_view *view, uint64_t step, const char *text,
                                   struct kiln_err *err) {
    /* A step that comes again: what came behind it before is of weights that are no more. */
    while (view->n_samples > 0 && view->samples[view->n_samples - 1].step >= step) {
        kiln_free((void *)(uintptr_t)view->samples[--view->n_samples].text);
    }
    const size_t n = view->n_samples;
    if ((n & (n - 1)) == 0) { /* room for 2^k of them */
        struct kiln_view_sample *grown =
            kiln_realloc(view->samples, n, n > 0 ? 2 * n : 1, sizeof *grown);
        KILN_REQUIRE(grown, err, KILN_ENOMEM, "%s: no memory for %zu samples", view->folder, n);
        view->samples = grown;
    }
    char *copy = kiln_strdup(text);
    KILN_REQUIRE(copy, err, KILN_ENOMEM, "%s: no memory for a sample", view->folder);
    view->samples[view->n_samples++] = (struct kiln_view_sample){step, copy};
    return KILN_OK;
}

static enum kiln_status read_samples(struct kiln_view *view, const char *text, size_t size,
                                     struct kiln_err *err) {
    const char *at = text, *const end = text + size;
    enum kiln_status status = KILN_OK;
    for (const char *newline;
         status == KILN_OK && (newline = memchr(at, '\n', (size_t)(end - at))) != NULL;
         at = newline + 1) {
        json_t *line = json_loadb(at, (size_t)(newline - at), JSON_ALLOW_NUL, NULL);
        const char *said = json_string_value(json_object_get(line, "text"));
        if (said != NULL && json_is_integer(json_object_get(line, "step"))) {
            status = add_sample(view, count(line, "step"), said, err);
        }
        json_decref(line);
    }
    return status;
}

enum kiln_status kiln_view_read_samples(struct kiln_view *view, bool *changed,
                                        struct kiln_err *err) {
    char path[4300], *text = NULL;
    size_t size = 0;
    kiln_view_path(view, "samples.jsonl", path);
    *changed = kiln_seen_change(&view->samples_seen, path);
    if (!*changed) {
        return KILN_OK;
    }
    kiln_view_drop_samples(view);
    KILN_TRY(read_if_there(path, &text, &size, err));
    const enum kiln_status status = text != NULL ? read_samples(view, text, size, err) : KILN_OK;
    kiln_free(text);
    return status;
}

size_t kiln_view_samples(const struct kiln_view *view) { return view->n_samples; }

const struct kiln_view_sample *kiln_view_sample(const struct kiln_view *view, size_t i) {
    return i < view->n_samples ? &view->samples[i] : NULL;
}

/* ---- folders called step-N ---------------------------------------------------------------------
 */

static int by_number(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static bool step_of(const char *name, uint64_t *step) {
    char *end;
    if (strncmp(name, "step-", 5) != 0 || name[5] < '0' || name[5] > '9') {
        return false;
    }
    *step = strtoull(name + 5, &end, 10);
    return *end == '\0';
}

/* The N of all of them, in order; NULL where there are none. */
static enum kiln_status list_steps(const char *path, uint64_t **out, size_t *n,
                                   struct kiln_err *err) {
    enum { MOST = 100000 };
    DIR *folder = opendir(path);
    enum kiln_status status = KILN_OK;
    size_t room = 0;
    *out = NULL;
    *n = 0;
    for (struct dirent *e; folder != NULL && status == KILN_OK && *n < MOST;) {
        uint64_t step;
        e = readdir(folder);
        if (e == NULL) {
            break;
        }
        if (!step_of(e->d_name, &step)) {
            continue;
        }
        if (*n == room) {
            uint64_t *grown = kiln_realloc(*out, room, 2 * room + 16, sizeof *grown);
            status = grown != NULL ? KILN_OK
                                   : KILN_FAIL(err, KILN_ENOMEM, "%s: no memory to list it", path);
            *out = grown != NULL ? grown : *out;
            room = grown != NULL ? 2 * room + 16 : room;
        }
        if (status == KILN_OK) {
            (*out)[(*n)++] = step;
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
    if (*n > 1) {
        qsort(*out, *n, sizeof **out, by_number);
    }
    return status;
}

enum kiln_status kiln_view_read_checkpoints(struct kiln_view *view, bool *changed,
                                            struct kiln_err *err) {
    char path[4300];
    kiln_view_path(view, "checkpoints", path);
    *changed = kiln_seen_change(&view->checkpoints_seen, path);
    if (!*changed) {
        return KILN_OK;
    }
    kiln_free(view->checkpoints);
    return list_steps(path, &view->checkpoints, &view->n_checkpoints, err);
}

size_t kiln_view_checkpoints(const struct kiln_view *view) { return view->n_checkpoints; }

uint64_t kiln_view_checkpoint(const struct kiln_view *view, size_t i) {
    return i < view->n_checkpoints ? view->checkpoints[i] : 0;
}

/* ---- incidents ---------------------------------------------------------------------------------
 */

static void drop_incident(struct kiln_view_incident *incident) {
    kiln_free((void *)(uintptr_t)incident->why);
    kiln_free((void *)(uintptr_t)incident->action);
    kiln_free((void *)(uintptr_t)incident->first_tensor);
}

void kiln_view_drop_incidents(struct kiln_view *view) {
    for (size_t i = 0; i < view->n_incidents; i++) {
        drop_incident(&view->incidents[i]);
    }
    kiln_free(view->incidents);
    view->incidents = NULL;
    view->n_incidents = 0;
}

/* The first tensor, in the order of the table, whose gradient or weights are not all finite. */
static const char *first_bad(const json_t *incident) {
    const json_t *tensors = json_object_get(incident, "tensors");
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        const json_t *one = json_array_get(tensors, i);
        if (count(json_object_get(one, "weights"), "not_finite") > 0 ||
            count(json_object_get(one, "gradient"), "not_finite") > 0) {
            return text_of(one, "name");
        }
    }
    return "";
}

/* One that cannot be read is none. */
static enum kiln_status read_incident(struct kiln_view *view, const char *folder, uint64_t step,
                                      struct kiln_err *err) {
    char path[4500], *text = NULL;
    size_t size = 0;
    snprintf(path, sizeof path, "%s/step-%llu/incident.json", folder, (unsigned long long)step);
    KILN_TRY(read_if_there(path, &text, &size, err));
    json_t *json = text != NULL ? json_loadb(text, size, 0, NULL) : NULL;
    kiln_free(text);
    if (!json_is_object(json)) {
        json_decref(json);
        return KILN_OK;
    }
    snprintf(path, sizeof path, "%s/step-%llu/weights.f32", folder, (unsigned long long)step);
    struct kiln_view_incident *one = &view->incidents[view->n_incidents++];
    *one = (struct kiln_view_incident){.step = step,
                                       .why = kiln_strdup(text_of(json, "why")),
                                       .action = kiln_strdup(text_of(json, "action")),
                                       .first_tensor = kiln_strdup(first_bad(json)),
                                       .loss = real(json, "loss"),
                                       .grad_norm = real(json, "grad_norm"),
                                       .z = real(json, "z"),
                                       .mean = real(json, "mean"),
                                       .deviation = real(json, "deviation"),
                                       .weights = kiln_path_exists(path)};
    json_decref(json);
    KILN_REQUIRE(one->why && one->action && one->first_tensor, err, KILN_ENOMEM,
                 "%s: no memory for it", path);
    return KILN_OK;
}

enum kiln_status kiln_view_read_incidents(struct kiln_view *view, bool *changed,
                                          struct kiln_err *err) {
    char path[4300];
    uint64_t *steps = NULL;
    size_t n = 0;
    kiln_view_path(view, "incidents", path);
    *changed = kiln_seen_change(&view->incidents_seen, path);
    if (!*changed) {
        return KILN_OK;
    }
    kiln_view_drop_incidents(view);
    enum kiln_status status = list_steps(path, &steps, &n, err);
    if (status == KILN_OK && n > 0) {
        view->incidents = kiln_alloc(n, sizeof *view->incidents);
        status = view->incidents != NULL
                     ? KILN_OK
                     : KILN_FAIL(err, KILN_ENOMEM, "%s: no memory to read it", path);
    }
    for (size_t i = 0; status == KILN_OK && i < n; i++) {
        status = read_incident(view, path, steps[i], err);
    }
    kiln_free(steps);
    return status;
}

size_t kiln_view_incidents(const struct kiln_view *view) { return view->n_incidents; }

const struct kiln_view_incident *kiln_view_incident(const struct kiln_view *view, size_t i) {
    return i < view->n_incidents ? &view->incidents[i] : NULL;
}
