/* SPDX-License-Identifier: MIT */
#include "train/incident.h"

#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/kill_point.h"
#include "base/leftovers.h"
#include "base/mem.h"
#include "kiln/lora.h"
#include "model/stored_dims.h"
#include "train/generation.h"
#include "train/trainer_int.h"

enum { PATH_ROOM = 4400 };

/* ---- norms -------------------------------------------------------------------------------------
 */

struct sums {
    double squares, largest;
    uint64_t not_finite;
};

static struct sums sums_of(const float *values, size_t n) {
    struct sums s = {0, 0, 0};
    for (size_t i = 0; i < n; i++) {
        const double value = (double)values[i], size = fabs(value);
        s.squares += value * value;
        s.largest = size > s.largest ? size : s.largest;
        s.not_finite += !isfinite(value);
    }
    return s;
}

static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

/* Of n values that are `scale` times the true ones. */
static json_t *norm_json(const float *values, size_t n, double scale) {
    const struct sums s = sums_of(values, n);
    const double whole = s.not_finite > 0 ? (double)NAN : 1.0;
    json_t *out = json_object();
    json_object_set_new(out, "norm", number(whole * sqrt(s.squares) / scale));
    json_object_set_new(out, "max", number(whole * s.largest / scale));
    json_object_set_new(out, "not_finite", json_integer((json_int_t)s.not_finite));
    return out;
}

/* Gradients behind kiln_optimizer_norm: that of a tied embedding holds both its parts. */
static json_t *tensors_json(const struct kiln_trainer *t, const float *weights, double scale) {
    const float *gradients = kiln_state_region(t->state, KILN_GRADIENTS);
    json_t *list = json_array();
    for (size_t i = 0; i < t->table->n_tensors; i++) {
        const struct kiln_tensor *tensor = &t->table->tensors[i];
        const size_t n = tensor->rows * tensor->cols;
        json_t *one = json_object();
        json_object_set_new(one, "name", json_string(tensor->name));
        json_object_set_new(one, "weights", norm_json(weights + tensor->offset, n, 1));
        json_object_set_new(
            one, "gradient",
            tensor->offset < t->table->trained || scale <= 0
                ? json_null()
                : norm_json(gradients + kiln_trained_at(t->table, tensor->offset), n, scale));
        json_array_append_new(list, one);
        kiln_state_behind(t->state, KILN_WEIGHTS, tensor->offset, n);
        kiln_state_behind(t->state, KILN_GRADIENTS, tensor->offset, n);
    }
    return list;
}

static bool all_below(const struct kiln_trainer *t, const float *weights, double most) {
    bool good = true;
    for (size_t i = 0; i < t->table->n_tensors && good; i++) {
        const struct kiln_tensor *tensor = &t->table->tensors[i];
        const size_t n = tensor->rows * tensor->cols;
        const struct sums s = sums_of(weights + tensor->offset, n);
        good = s.not_finite == 0 && s.largest <= most;
        kiln_state_behind(t->state, KILN_WEIGHTS, tensor->offset, n);
    }
    return good;
}

/* ---- incident.json -----------------------------------------------------------------------------
 */

static json_t *sizes_json(const struct kiln_dims *dims) {
    const struct kiln_stored_dims stored = kiln_dims_store(dims);
    json_t *out = json_object();
    size_t n;
    const struct kiln_stored_field *fields = kiln_stored_fields(&n);
    for (size_t i = 0; i < n; i++) {
        char text[40];
        kiln_stored_text(&stored, &fields[i], text, sizeof text);
        json_object_set_new(out, fields[i].name, json_loads(text, JSON_DECODE_ANY, NULL));
    }
    return out;
}

static json_t *lora_json(const struct kiln_lora *lora) {
    char targets[KILN_LORA_TEXT];
    if (lora->rank == 0) {
        return json_null();
    }
    kiln_lora_text(lora->targets, targets);
    return json_pack("{s:I, s:f, s:s}", "rank", (json_int_t)lora->rank, "alpha", lora->alpha,
                     "targets", targets);
}

static void set_count(json_t *out, const char *key, uint64_t value) {
    json_object_set_new(out, key, json_integer((json_int_t)value));
}

static json_t *incident_json(const struct kiln_trainer *t, const struct kiln_incident *in,
                             const float *weights) {
    const struct kiln_cursor *cursor = kiln_state_cursor(t->state);
    const struct kiln_micro_batch *shape = &t->engine.plan.shape;
    const enum kiln_precision precision = kiln_precision_resolve(t->engine.request.precision);
    json_t *out = json_object();
    set_count(out, "step", in->step);
    json_object_set_new(out, "why", json_string(in->why));
    json_object_set_new(out, "loss", number(in->loss));
    json_object_set_new(out, "grad_norm", number(in->grad_norm));
    json_object_set_new(out, "lr", number(in->lr));
    json_object_set_new(out, "z", number(in->score.z));
    json_object_set_new(out, "mean", number(in->score.mean));
    json_object_set_new(out, "deviation", number(in->score.deviation));
    set_count(out, "window", in->score.window);
    json_object_set_new(out, "action", json_string(in->action));
    set_count(out, "sample", in->sample);
    set_count(out, "batch", shape->batch);
    set_count(out, "accum", t->settings->accum);
    set_count(out, "seq", shape->seq);
    set_count(out, "seed", t->settings->seed);
    set_count(out, "updates", cursor->updates);
    set_count(out, "tokens", cursor->tokens);
    json_object_set_new(out, "gradient_scale", in->scale > 0 ? json_real(in->scale) : json_null());
    json_object_set_new(out, "precision", json_string(kiln_precision_name(precision)));
    json_object_set_new(out, "device", json_string(kiln_device_name(t->engine.request.device.id)));
    json_object_set_new(out, "numerics", json_string(cursor->numerics));
    json_object_set_new(out, "sizes", sizes_json(&t->table->dims));
    json_object_set_new(out, "lora", lora_json(&t->table->lora));
    json_object_set_new(out, "tensors", tensors_json(t, weights, in->scale));
    return out;
}

static enum kiln_status write_json(const struct kiln_trainer *t, const struct kiln_incident *in,
                                   const float *weights, const char *folder, struct kiln_err *err) {
    char path[PATH_ROOM + 32];
    snprintf(path, sizeof path, "%s/incident.json", folder);
    json_t *object = incident_json(t, in, weights);
    char *text = json_dumps(object, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    json_decref(object);
    KILN_REQUIRE(text, err, KILN_ENOMEM, "write %s: not enough memory", path);
    const enum kiln_status status = kiln_write_file(path, text, strlen(text), err);
    free(text);
    return status;
}

/* ---- window and weights ------------------------------------------------------------------------
 */

static enum kiln_status write_window(const struct kiln_trainer *t, uint64_t sample,
                                     const char *folder, struct kiln_err *err) {
    const struct kiln_micro_batch *shape = &t->engine.plan.shape;
    const size_t micro_batch = shape->batch * shape->seq, accum = (size_t)t->settings->accum;
    const size_t all = micro_batch * accum, parts = t->settings->doc_mask ? 3 : 2;
    char path[PATH_ROOM + 32];
    snprintf(path, sizeof path, "%s/window.u32", folder);
    uint32_t *ids = kiln_alloc(parts * all, sizeof *ids);
    KILN_REQUIRE(ids, err, KILN_ENOMEM, "write %s: not enough memory", path);
    for (size_t i = 0; i < accum; i++) {
        uint32_t *at = ids + i * micro_batch;
        kiln_batches_at(t, sample, i, at, at + all, parts == 3 ? at + 2 * all : NULL);
    }
    const enum kiln_status status = kiln_write_file(path, ids, parts * all * sizeof *ids, err);
    kiln_free(ids);
    return status;
}

/* The weights of a generation, as floats: the master weights themselves, or a copy of a narrow
 * snapshot. */
static const float *weights_of(const struct kiln_trainer *t, uint64_t g, float **copy) {
    const struct kiln_table *table = t->table;
    const struct kiln_weights from = kiln_trainer_weights(t, g);
    *copy = NULL;
    if (from.flat) {
        return from.flat;
    }
    *copy = kiln_alloc(table->size, sizeof **copy);
    if (*copy) {
        kiln_weights_widen(&from, *copy);
    }
    return *copy;
}

bool kiln_incident_generation_below(const struct kiln_trainer *t, uint64_t done, double most) {
    float *copy;
    const float *weights = weights_of(t, kiln_generation_of(done, kiln_trainer_delayed(t)), &copy);
    const bool good = !weights || all_below(t, weights, most);
    kiln_free(copy);
    return good;
}

/* Where they are spread, the newest that is computed with: all ranks see the same. */
bool kiln_incident_weights_below(const struct kiln_trainer *t, double most) {
    const struct kiln_cursor *cursor = kiln_state_cursor(t->state);
    if (!kiln_trainer_is_spread(t)) {
        return all_below(t, kiln_state_working(t->state, KILN_WEIGHTS), most);
    }
    float *copy;
    const float *weights =
        weights_of(t, cursor->step + (cursor->phase == KILN_PHASE_UPDATE), &copy);
    const bool good = !weights || all_below(t, weights, most);
    kiln_free(copy);
    return good;
}

/* ---- the folder --------------------------------------------------------------------------------
 */

static int descending(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

/* The oldest go. Nobody is hurt by one that stays. */
static void prune(const char *incidents) {
    uint64_t steps[4 * KILN_INCIDENTS];
    size_t n = 0;
    DIR *dir = opendir(incidents);
    for (struct dirent *e; dir && n < 4 * KILN_INCIDENTS && (e = readdir(dir)) != NULL;) {
        char name[64];
        uint64_t step;
        if (sscanf(e->d_name, "step-%" SCNu64, &step) == 1) {
            snprintf(name, sizeof name, "step-%" PRIu64, step);
            steps[n] = step;
            n += strcmp(name, e->d_name) == 0;
        }
    }
    if (dir) {
        closedir(dir);
    }
    qsort(steps, n, sizeof *steps, descending);
    for (size_t i = 0, kept = 0; i < n; i++) {
        char path[PATH_ROOM + 64];
        struct kiln_err ignored;
        snprintf(path, sizeof path, "%s/step-%" PRIu64 "%s", incidents, steps[i],
                 i < KILN_INCIDENTS ? "/weights.f32" : "");
        if (i >= KILN_INCIDENTS || (kiln_path_exists(path) && ++kept > KILN_INCIDENT_WEIGHTS)) {
            (void)!kiln_remove_tree(path, &ignored);
        }
    }
}

/* A spike whose weights are not worth a write as large as the model: one of the steps just before
 * has them. */
static bool spares_weights(const struct kiln_trainer *t, const struct kiln_incident *in) {
    char path[PATH_ROOM + 64];
    bool spares = false;
    if (!isfinite(in->loss) || !isfinite(in->grad_norm)) {
        return false;
    }
    const uint64_t last = in->step < KILN_INCIDENT_APART ? in->step : KILN_INCIDENT_APART;
    for (uint64_t back = 1; back < last && !spares; back++) {
        snprintf(path, sizeof path, "%s/incidents/step-%" PRIu64 "/weights.f32", t->folder,
                 in->step - back);
        spares = kiln_path_exists(path);
    }
    return spares;
}

static enum kiln_status fill(struct kiln_trainer *t, const struct kiln_incident *in,
                             const char *folder, struct kiln_err *err) {
    char path[PATH_ROOM + 32];
    float *copy;
    const uint64_t g = kiln_generation_of(in->step - 1, kiln_trainer_delayed(t));
    const float *weights = weights_of(t, g, &copy);
    KILN_REQUIRE(weights, err, KILN_ENOMEM, "write %s: not enough memory", folder);
    snprintf(path, sizeof path, "%s/weights.f32", folder);
    enum kiln_status status = write_json(t, in, weights, folder, err);
    if (status == KILN_OK) {
        status = write_window(t, in->sample, folder, err);
    }
    if (status == KILN_OK && !spares_weights(t, in)) {
        status = kiln_write_file(path, weights, t->table->size * sizeof *weights, err);
    }
    kiln_free(copy);
    kiln_state_behind(t->state, KILN_WEIGHTS, 0, t->table->size);
    return status;
}

enum kiln_status kiln_incident_write(struct kiln_trainer *t, const struct kiln_incident *in,
                                     struct kiln_err *err) {
    char incidents[PATH_ROOM], stem[PATH_ROOM + 16], folder[PATH_ROOM + 32], to[PATH_ROOM + 32];
    char old[PATH_ROOM + 64];
    snprintf(incidents, sizeof incidents, "%s/incidents", t->folder);
    snprintf(stem, sizeof stem, "%s/tmp-", incidents);
    snprintf(folder, sizeof folder, "%s%ld", stem, (long)getpid());
    snprintf(to, sizeof to, "%s/step-%" PRIu64, incidents, in->step);
    snprintf(old, sizeof old, "%s.old-", to);
    kiln_kill_point("incident: before");
    kiln_leftovers_remove(stem);
    kiln_leftovers_remove(old);
    KILN_TRY(kiln_make_dirs(folder, err));
    enum kiln_status status = kiln_sync_dir(t->folder, err);
    if (status == KILN_OK) {
        status = fill(t, in, folder, err);
    }
    if (status == KILN_OK) {
        status = kiln_durable_replace(folder, to, err);
    }
    if (status != KILN_OK) {
        struct kiln_err ignored;
        (void)!kiln_remove_tree(folder, &ignored);
        return status;
    }
    kiln_kill_point("incident: written");
    prune(incidents);
    return KILN_OK;
}
