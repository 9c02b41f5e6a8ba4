/* SPDX-License-Identifier: MIT */
#include "train/explain/evidence.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/stored_dims.h"
#include "train/generation.h"
#include "train/rollback.h"

enum { PATH_ROOM = 4400 };

const char *kiln_evidence_text(const struct kiln_evidence *e, const char *key) {
    const char *text = json_string_value(json_object_get(e->incident, key));
    return text ? text : "";
}

double kiln_evidence_number(const struct kiln_evidence *e, const char *key) {
    const json_t *value = json_object_get(e->incident, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

void kiln_evidence_window_free(struct kiln_evidence_window *w) {
    kiln_free(w->tokens);
    kiln_free(w->targets);
    kiln_free(w->starts);
    *w = (struct kiln_evidence_window){.tokens = NULL};
}

void kiln_evidence_close(struct kiln_evidence *e) {
    kiln_evidence_window_free(&e->window);
    kiln_map_close(&e->map);
    kiln_free(e->copy);
    json_decref(e->incident);
    kiln_run_close(e->run);
    *e = (struct kiln_evidence){.run = NULL};
}

static enum kiln_status make_window(struct kiln_evidence_window *w, bool masked,
                                    struct kiln_err *err) {
    const size_t n = w->sequences * w->seq;
    w->tokens = kiln_alloc(n, sizeof *w->tokens);
    w->targets = kiln_alloc(n, sizeof *w->targets);
    w->starts = masked ? kiln_alloc(n, sizeof *w->starts) : NULL;
    KILN_REQUIRE(w->tokens && w->targets && (w->starts || !masked), err, KILN_ENOMEM,
                 "explain: no memory for the window");
    return KILN_OK;
}

/* ---- of an incident ---------------------------------------------------------------------------
 */

static void incident_path(const struct kiln_evidence *e, uint64_t step, const char *name,
                          char out[PATH_ROOM]) {
    snprintf(out, PATH_ROOM, "%s/incidents/step-%" PRIu64 "/%s", e->run->folder, step, name);
}

/* A count of incident.json must be what the run's own settings say. */
static enum kiln_status agrees(const struct kiln_evidence *e, const char *path, const char *key,
                               uint64_t want, struct kiln_err *err) {
    const json_t *value = json_object_get(e->incident, key);
    KILN_REQUIRE(json_is_integer(value) && json_integer_value(value) >= 0, err, KILN_EDAMAGED,
                 "%s: \"%s\" is no number from 0 up", path, key);
    const uint64_t found = (uint64_t)json_integer_value(value);
    KILN_REQUIRE(found == want, err, KILN_EINPUT,
                 "%s: \"%s\" is %" PRIu64 ", the run's is %" PRIu64
                 ": it is an incident of another run",
                 path, key, found, want);
    return KILN_OK;
}

static enum kiln_status check_sizes(const struct kiln_evidence *e, const char *path,
                                    struct kiln_err *err) {
    const struct kiln_stored_dims stored = kiln_dims_store(&e->run->table->dims);
    const json_t *sizes = json_object_get(e->incident, "sizes");
    size_t n;
    const struct kiln_stored_field *fields = kiln_stored_fields(&n);
    for (size_t i = 0; i < n; i++) {
        char text[40];
        const json_t *value = json_object_get(sizes, fields[i].name);
        kiln_stored_text(&stored, &fields[i], text, sizeof text);
        json_t *want = json_loads(text, JSON_DECODE_ANY, NULL);
        const bool same = json_is_boolean(want)
                              ? json_is_true(value) == json_is_true(want)
                              : json_number_value(value) == json_number_value(want);
        json_decref(want);
        KILN_REQUIRE(value && same, err, KILN_EINPUT,
                     "%s: \"sizes\": \"%s\" is not %s, as the run's is: it is an incident of "
                     "another model",
                     path, fields[i].name, text);
    }
    return KILN_OK;
}

static enum kiln_status read_incident(struct kiln_evidence *e, uint64_t step,
                                      struct kiln_err *err) {
    char path[PATH_ROOM], *text;
    size_t size;
    json_error_t why;
    const struct kiln_settings *s = &e->run->settings;
    incident_path(e, step, "incident.json", path);
    if (!kiln_path_exists(path)) {
        return KILN_OK;
    }
    KILN_TRY(kiln_read_file(path, &text, &size, err));
    e->incident = json_loadb(text, size, 0, &why);
    kiln_free(text);
    KILN_REQUIRE(json_is_object(e->incident), err, KILN_EDAMAGED, "%s: no JSON object: line %d: %s",
                 path, why.line, why.text);
    KILN_TRY(agrees(e, path, "step", step, err));
    KILN_TRY(agrees(e, path, "batch", s->batch, err));
    KILN_TRY(agrees(e, path, "accum", s->accum, err));
    KILN_TRY(agrees(e, path, "seq", s->seq, err));
    KILN_TRY(check_sizes(e, path, err));
    const json_t *sample = json_object_get(e->incident, "sample");
    KILN_REQUIRE(json_is_integer(sample), err, KILN_EDAMAGED, "%s: \"sample\" is no number", path);
    e->window.sample = (uint64_t)json_integer_value(sample);
    return kiln_precision_parse(kiln_evidence_text(e, "precision"), &e->precision, err);
}

/* Ids that no window of this model can have. */
static enum kiln_status check_ids(const struct kiln_evidence *e, const char *path,
                                  struct kiln_err *err) {
    const struct kiln_evidence_window *w = &e->window;
    const size_t vocab = e->run->table->dims.vocab;
    for (size_t i = 0; i < w->sequences * w->seq; i++) {
        const uint32_t target = w->targets[i] == KILN_NO_TARGET ? 0 : w->targets[i];
        KILN_REQUIRE(w->tokens[i] < vocab && target < vocab, err, KILN_EDAMAGED,
                     "%s: id %" PRIu32 " of sequence %zu, token %zu: the vocabulary is %zu", path,
                     w->tokens[i] < vocab ? target : w->tokens[i], i / w->seq, i % w->seq, vocab);
        KILN_REQUIRE(!w->starts || w->starts[i] <= i % w->seq, err, KILN_EDAMAGED,
                     "%s: sequence %zu, token %zu: its document begins behind it", path, i / w->seq,
                     i % w->seq);
    }
    return KILN_OK;
}

static enum kiln_status read_window(struct kiln_evidence *e, uint64_t step, struct kiln_err *err) {
    char path[PATH_ROOM];
    struct kiln_map map;
    struct kiln_evidence_window *w = &e->window;
    const size_t n = w->sequences * w->seq, parts = w->starts ? 3 : 2;
    incident_path(e, step, "window.u32", path);
    KILN_TRY(kiln_map_open(&map, path, err));
    const size_t found = map.size;
    if (found == parts * n * sizeof(uint32_t)) {
        memcpy(w->tokens, map.data, n * sizeof(uint32_t));
        memcpy(w->targets, map.data + n * sizeof(uint32_t), n * sizeof(uint32_t));
        if (w->starts) {
            memcpy(w->starts, map.data + 2 * n * sizeof(uint32_t), n * sizeof(uint32_t));
        }
    }
    kiln_map_close(&map);
    KILN_REQUIRE(found == parts * n * sizeof(uint32_t), err, KILN_EDAMAGED,
                 "%s: %zu bytes; %zu sequences of %zu tokens are %zu", path, found, w->sequences,
                 w->seq, parts * n * sizeof(uint32_t));
    snprintf(e->window_from, sizeof e->window_from, "incidents/step-%" PRIu64 "/window.u32", step);
    return check_ids(e, path, err);
}

static enum kiln_status read_weights(struct kiln_evidence *e, uint64_t step, struct kiln_err *err) {
    char path[PATH_ROOM];
    const size_t bytes = e->run->table->size * sizeof(float);
    incident_path(e, step, "weights.f32", path);
    if (!e->incident || !kiln_path_exists(path)) {
        return KILN_OK; /* the oldest incidents lose theirs */
    }
    KILN_TRY(kiln_map_open(&e->map, path, err));
    KILN_REQUIRE(e->map.size == bytes, err, KILN_EDAMAGED,
                 "%s: %zu bytes, the weights of this model are %zu", path, e->map.size, bytes);
    e->weights = (const void *)e->map.data;
    snprintf(e->weights_from, sizeof e->weights_from, "incidents/step-%" PRIu64 "/weights.f32",
             step);
    return KILN_OK;
}

/* ---- of the run -------------------------------------------------------------------------------
 */

static void fill_window(const struct kiln_evidence *e, struct kiln_evidence_window *w) {
    const struct kiln_data *data = e->run->trainer.data;
    for (size_t i = 0; i < w->sequences; i++) {
        kiln_data_train(data, w->sample + i, w->tokens + i * w->seq, w->targets + i * w->seq);
        if (w->starts) {
            kiln_data_train_starts(data, w->sample + i, w->starts + i * w->seq);
        }
    }
}

enum kiln_status kiln_evidence_other(const struct kiln_evidence *e,
                                     struct kiln_evidence_window *out, struct kiln_err *err) {
    const struct kiln_evidence_window *w = &e->window;
    KILN_REQUIRE(e->has_data, err, KILN_EINPUT, "explain %s: its tokens are gone", e->run->folder);
    *out = (struct kiln_evidence_window){
        .sample = w->sample >= w->sequences ? w->sample - w->sequences : w->sample + w->sequences,
        .sequences = w->sequences,
        .seq = w->seq};
    const enum kiln_status status = make_window(out, w->starts != NULL, err);
    if (status != KILN_OK) {
        kiln_evidence_window_free(out);
        return status;
    }
    fill_window(e, out);
    return KILN_OK;
}

/* The lines of metrics.jsonl before the step, and its own where no incident says more. */
enum { HISTORY = 32 };
struct history {
    struct kiln_evidence *e;
    double loss[HISTORY]; /* of step n at n % HISTORY */
    size_t n;
};

static void on_line(void *context, const struct kiln_step_record *record) {
    struct history *h = context;
    if (record->step <= h->e->step) {
        h->e->loss_scale = record->loss_scale;
    }
    if (record->step < h->e->step && isfinite(record->loss)) {
        h->loss[h->n++ % HISTORY] = record->loss;
    } else if (record->step == h->e->step && !h->e->incident) {
        h->e->loss = record->loss;
        h->e->norm = record->grad_norm;
        h->e->lr = record->lr;
        h->e->recorded = true;
    }
}

/* Of the losses before: from a handful of them on, and with the floor of a mean's 32nd under the
 * deviation that spikes are told by (docs/flight-recorder.md). */
static void score(struct history *h) {
    struct kiln_evidence *e = h->e;
    const size_t n = kiln_least(h->n, HISTORY);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += h->loss[i];
    }
    const double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        squares += (h->loss[i] - mean) * (h->loss[i] - mean);
    }
    if (n >= 4 && isnan(e->mean)) {
        e->mean = mean;
        e->deviation = sqrt(squares / (double)n);
        e->z = (e->loss - mean) / fmax(e->deviation, mean / 32);
    }
}

static enum kiln_status read_record(struct kiln_evidence *e, uint64_t step, struct kiln_err *err) {
    struct history h = {.e = e};
    const struct kiln_observer observer = {.context = &h, .on_step = on_line};
    char path[PATH_ROOM];
    const bool norm = strcmp(kiln_evidence_text(e, "why"), "gradient spike") == 0;
    e->loss = kiln_evidence_number(e, "loss");
    e->norm = kiln_evidence_number(e, "grad_norm");
    e->lr = kiln_evidence_number(e, "lr");
    e->z = norm ? (double)NAN : kiln_evidence_number(e, "z");
    /* Of a spike of the gradient these are the norm's. */
    e->mean = norm ? (double)NAN : kiln_evidence_number(e, "mean");
    e->deviation = norm ? (double)NAN : kiln_evidence_number(e, "deviation");
    e->recorded = e->incident != NULL;
    snprintf(path, sizeof path, "%s/metrics.jsonl", e->run->folder);
    if (!kiln_path_exists(path)) {
        return KILN_OK;
    }
    const uint64_t after = step > HISTORY ? step - 1 - HISTORY : 0;
    KILN_TRY(kiln_run_history(e->run->folder, after, 0, &observer, err));
    score(&h);
    return KILN_OK;
}

/* Has the run such a step? One more than are done may have been begun. */
static enum kiln_status check_step(const struct kiln_evidence *e, uint64_t step,
                                   struct kiln_err *err) {
    char path[PATH_ROOM];
    struct kiln_dims dims;
    struct kiln_lora lora;
    struct kiln_cursor cursor;
    struct kiln_err ignored;
    snprintf(path, sizeof path, "%s/state.kiln", e->run->folder);
    KILN_REQUIRE(step > 0, err, KILN_EUSAGE, "explain %s: steps count from 1", e->run->folder);
    const bool known = kiln_state_peek(path, &dims, &lora, &cursor, &ignored) == KILN_OK;
    KILN_REQUIRE(e->incident || !known || step <= cursor.step + 1, err, KILN_EINPUT,
                 "explain %s: no step %" PRIu64 ": %" PRIu64 " are done", e->run->folder, step,
                 known ? cursor.step : 0);
    return KILN_OK;
}

static enum kiln_status open_precision(struct kiln_evidence *e, struct kiln_err *err) {
    struct kiln_device_choice device;
    enum kiln_precision asked;
    if (e->incident) {
        return KILN_OK;
    }
    KILN_TRY(kiln_settings_device(&e->run->settings, &device, &asked, err));
    KILN_TRY(kiln_device_precision(device.id, asked, &e->precision, err));
    e->precision = kiln_precision_resolve(e->precision);
    return KILN_OK;
}

/* What no incident has kept. */
static enum kiln_status find_rest(const struct kiln_explain_options *options,
                                  struct kiln_evidence *e, struct kiln_err *err) {
    const struct kiln_settings *s = &e->run->settings;
    const bool delayed = strcmp(s->overlap, "delayed") == 0;
    const uint64_t done = options->step - 1, g = kiln_generation_of(done, delayed);
    struct kiln_cursor cursor = {.step = 0};
    if (!e->weights) {
        KILN_TRY(kiln_evidence_weights(options, e, g, &cursor, err));
        if (strcmp(kiln_evidence_text(e, "action"), "rolled back") == 0 && !e->note[0]) {
            snprintf(e->note, sizeof e->note,
                     "the incident's weights are not kept any more; these are those that the run "
                     "came to after it was rolled back");
        }
    }
    if (e->incident) {
        return KILN_OK;
    }
    e->window.sample = kiln_rollback_sample(s, done);
    fill_window(e, &e->window);
    snprintf(e->window_from, sizeof e->window_from, "the run's tokens");
    return KILN_OK;
}

static enum kiln_status find_all(const struct kiln_explain_options *options,
                                 struct kiln_evidence *e, struct kiln_err *err) {
    struct kiln_err why;
    KILN_TRY(read_incident(e, options->step, err));
    KILN_TRY(check_step(e, options->step, err));
    KILN_TRY(read_record(e, options->step, err));
    KILN_TRY(open_precision(e, err));
    const struct kiln_settings *s = &e->run->settings;
    e->window.sequences = (size_t)(s->batch * s->accum);
    e->window.seq = (size_t)s->seq;
    KILN_TRY(make_window(&e->window, s->doc_mask, err));
    e->has_data = kiln_run_read_data(e->run, &why) == KILN_OK;
    if (!e->incident && !e->has_data) {
        return KILN_FAIL(err, why.code, "%s", why.message);
    }
    KILN_TRY(e->incident ? read_window(e, options->step, err) : KILN_OK);
    KILN_TRY(read_weights(e, options->step, err));
    return find_rest(options, e, err);
}

enum kiln_status kiln_evidence_open(const struct kiln_explain_options *options,
                                    struct kiln_evidence *out, struct kiln_err *err) {
    *out = (struct kiln_evidence){.step = options->step};
    KILN_TRY(kiln_run_read(options->run, &out->run, err));
    const enum kiln_status status = find_all(options, out, err);
    if (status != KILN_OK) {
        kiln_evidence_close(out);
    }
    return status;
}
