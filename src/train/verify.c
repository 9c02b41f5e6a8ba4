/* SPDX-License-Identifier: MIT
 *
 * verify.c: run a reference folder's training steps on the device and compare.
 */
#include "kiln/verify.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/io.h"
#include "base/machine.h"
#include "base/mem.h"
#include "kiln/text.h"
#include "train/engine.h"
#include "train/generation.h"
#include "train/scale.h"

/* Millionths of a budget that stay unused, as in training. */
#define HEADROOM 100000

/* The folder, read. */
struct reference {
    json_t *json;
    struct kiln_table *table;
    float *weights, *m, *v, *gradients, *embedding, *expected;
    uint32_t *tokens, *targets, *starts; /* of one step */
    size_t counted;                      /* targets of it that count */
    uint32_t begin, no_target; /* the id that begins a document under a document mask, the id that
                                  is never a target; KILN_NO_ID: none */
    struct kiln_map token_map;
    size_t batch, seq, steps;
    const char *losses; /* key of the losses to compare with */
    void *snapshots[2]; /* of a delayed run */
};

static void close_reference(struct reference *r) {
    json_decref(r->json);
    kiln_table_destroy(r->table);
    float *arrays[] = {r->weights, r->m, r->v, r->gradients, r->embedding, r->expected};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        kiln_free(arrays[i]);
    }
    kiln_free(r->tokens);
    kiln_free(r->targets);
    kiln_free(r->starts);
    kiln_free(r->snapshots[0]);
    kiln_free(r->snapshots[1]);
    kiln_map_close(&r->token_map);
}

static enum kiln_status read_number(const json_t *json, const char *path, const char *key,
                                    double *out, struct kiln_err *err) {
    const json_t *value = json_object_get(json, key);
    KILN_REQUIRE(json_is_number(value), err, KILN_EINPUT, "reference %s: no number '%s'", path,
                 key);
    *out = json_number_value(value);
    return KILN_OK;
}

/* KILN_NO_ID where there is no such key. */
static enum kiln_status read_id(const json_t *json, const char *path, const char *key,
                                uint32_t *out, struct kiln_err *err) {
    double id = 0;
    *out = KILN_NO_ID;
    if (json_object_get(json, key) == NULL) {
        return KILN_OK;
    }
    KILN_TRY(read_number(json, path, key, &id, err));
    KILN_REQUIRE(id >= 0 && id < KILN_NO_ID && id == floor(id), err, KILN_EINPUT,
                 "reference %s: '%s' %g is no id", path, key, id);
    *out = (uint32_t)id;
    return KILN_OK;
}

static bool whole(double number, double most) {
    return number >= 1 && number <= most && number == floor(number);
}

static enum kiln_status read_json(struct reference *r, const char *folder, struct kiln_err *err) {
    char *path = kiln_path_join(folder, "reference.json");
    KILN_REQUIRE(path, err, KILN_ENOMEM, "no memory for a path");
    json_error_t why;
    char *text = NULL;
    size_t size = 0;
    enum kiln_status status = kiln_read_file(path, &text, &size, err);
    if (status == KILN_OK) {
        r->json = json_loadb(text, size, 0, &why);
        status = r->json ? KILN_OK
                         : KILN_FAIL(err, KILN_EINPUT, "reference %s: %s (line %d)", path, why.text,
                                     why.line);
    }
    kiln_free(text);
    double batch = 0, steps = 0;
    if (status == KILN_OK) {
        status = read_number(r->json, path, "batch", &batch, err);
    }
    if (status == KILN_OK) {
        status = read_number(r->json, path, "steps", &steps, err);
    }
    if (status == KILN_OK) {
        status = read_id(r->json, path, "begin", &r->begin, err);
    }
    if (status == KILN_OK) {
        status = read_id(r->json, path, "no_target", &r->no_target, err);
    }
    kiln_free(path);
    KILN_TRY(status);
    KILN_REQUIRE(whole(batch, 1 << 16) && whole(steps, 1 << 24), err, KILN_EINPUT,
                 "reference %s: batch %g and steps %g; whole numbers are wanted, up to %d and %d",
                 folder, batch, steps, 1 << 16, 1 << 24);
    r->batch = (size_t)batch;
    r->steps = (size_t)steps;
    KILN_REQUIRE(json_array_size(json_object_get(r->json, r->losses)) == r->steps, err, KILN_EINPUT,
                 "reference %s: batch, steps and %s[] do not fit together", folder, r->losses);
    return KILN_OK;
}

static enum kiln_status read_model(struct reference *r, const char *folder, struct kiln_err *err) {
    char *path = kiln_path_join(folder, "model.bin");
    KILN_REQUIRE(path, err, KILN_ENOMEM, "no memory for a path");
    struct kiln_checkpoint *checkpoint = NULL;
    enum kiln_status status = kiln_checkpoint_open(path, &checkpoint, err);
    kiln_free(path);
    KILN_TRY(status);
    struct kiln_dims dims = *kiln_checkpoint_dims(checkpoint);
    double eps = (double)dims.rms_eps, theta = (double)dims.rope_theta;
    if (json_object_get(r->json, "rms_eps")) {
        eps = json_number_value(json_object_get(r->json, "rms_eps"));
    }
    if (json_object_get(r->json, "rope_theta")) {
        theta = json_number_value(json_object_get(r->json, "rope_theta"));
    }
    dims.rms_eps = (float)eps;
    dims.rope_theta = (float)theta;
    r->seq = dims.seq;
    status = kiln_table_create(&dims, &r->table, err);
    if (status == KILN_OK) {
        size_t n = r->table->size;
        float **arrays[] = {&r->weights, &r->m, &r->v, &r->gradients, &r->expected};
        for (size_t i = 0; i < sizeof arrays / sizeof arrays[0] && status == KILN_OK; i++) {
            *arrays[i] = kiln_alloc(n, sizeof(float));
            status =
                *arrays[i] ? KILN_OK : KILN_FAIL(err, KILN_ENOMEM, "no memory for %zu floats", n);
        }
        if (dims.tied && status == KILN_OK) {
            r->embedding = kiln_alloc(dims.vocab * dims.dim, sizeof(float));
            status =
                r->embedding ? KILN_OK : KILN_FAIL(err, KILN_ENOMEM, "no memory for gradients");
        }
    }
    if (status == KILN_OK) {
        status = kiln_checkpoint_load(checkpoint, r->table, r->weights, err);
    }
    kiln_checkpoint_close(checkpoint);
    return status;
}

static enum kiln_status read_arrays(struct reference *r, const char *folder, struct kiln_err *err) {
    char *grads = kiln_path_join(folder, "grads.f32"),
         *tokens = kiln_path_join(folder, "tokens.u16");
    struct kiln_map map = {0};
    enum kiln_status status = grads && tokens ? kiln_map_open(&map, grads, err)
                                              : KILN_FAIL(err, KILN_ENOMEM, "no memory for a path");
    if (status == KILN_OK) {
        status = kiln_llama2c_unpack(r->table, (const void *)map.data, map.size / sizeof(float),
                                     r->expected, err);
        kiln_map_close(&map);
    }
    if (status == KILN_OK) {
        status = kiln_map_open(&r->token_map, tokens, err);
    }
    size_t need = 0;
    const bool beyond =
        kiln_mul_overflows(r->steps * r->batch, (r->seq + 1) * sizeof(uint16_t), &need);
    if (status == KILN_OK && (beyond || r->token_map.size != need)) {
        status = KILN_FAIL(err, KILN_EINPUT, "reference %s: %zu bytes, %zu steps want %zu", tokens,
                           r->token_map.size, r->steps, need);
    }
    kiln_free(grads);
    kiln_free(tokens);
    KILN_TRY(status);
    r->tokens = kiln_alloc(r->batch * r->seq, sizeof *r->tokens);
    r->targets = kiln_alloc(r->batch * r->seq, sizeof *r->targets);
    r->starts = kiln_alloc(r->batch * r->seq, sizeof *r->starts);
    KILN_REQUIRE(r->tokens && r->targets && r->starts, err, KILN_ENOMEM, "no memory for tokens");
    return KILN_OK;
}

/* Where each token's document begins in its sequence, and what does not count. */
static void mask_step(struct reference *r) {
    r->counted = 0;
    for (size_t i = 0; i < r->batch * r->seq; i++) {
        const size_t t = i % r->seq;
        r->starts[i] = r->tokens[i] == r->begin ? (uint32_t)t : t > 0 ? r->starts[i - 1] : 0;
        if (r->no_target != KILN_NO_ID && r->targets[i] == r->no_target) {
            r->targets[i] = KILN_NO_TARGET;
        }
        r->counted += r->targets[i] != KILN_NO_TARGET;
    }
}

static enum kiln_status load_step(struct reference *r, size_t step, struct kiln_err *err) {
    const unsigned char *ids =
        r->token_map.data + step * r->batch * (r->seq + 1) * sizeof(uint16_t);
    for (size_t b = 0; b < r->batch; b++) {
        for (size_t t = 0; t <= r->seq; t++) {
            const unsigned char *at = ids + (b * (r->seq + 1) + t) * 2;
            uint32_t id = (uint32_t)(at[0] | at[1] << 8);
            KILN_REQUIRE(id < r->table->dims.vocab, err, KILN_EINPUT,
                         "tokens.u16: id %u at byte %zu, the vocabulary is %zu", id,
                         (size_t)(at - r->token_map.data), r->table->dims.vocab);
            if (t < r->seq) {
                r->tokens[b * r->seq + t] = id;
            }
            if (t > 0) {
                r->targets[b * r->seq + t - 1] = id;
            }
        }
    }
    mask_step(r);
    KILN_REQUIRE(r->counted > 0, err, KILN_EINPUT, "tokens.u16: no target of step %zu counts",
                 step);
    return KILN_OK;
}

/* A NaN is the worst there is, and stays it. */
static bool worse(double error, double worst) {
    return !isnan(worst) && (isnan(error) || error > worst);
}

/* |a - b| / |b| of every tensor of step 0; a is `gradients` without the loss scale. */
static enum kiln_status compare_gradients(const struct reference *r, const float *gradients,
                                          double scale, struct kiln_verify_result *out,
                                          struct kiln_err *err) {
    out->tensors = kiln_alloc(r->table->n_tensors, sizeof *out->tensors);
    KILN_REQUIRE(out->tensors, err, KILN_ENOMEM, "no memory for the comparison");
    out->n_tensors = r->table->n_tensors;
    for (size_t i = 0; i < r->table->n_tensors; i++) {
        const struct kiln_tensor *t = &r->table->tensors[i];
        double difference = 0, norm = 0;
        for (size_t j = t->offset; j < t->offset + t->rows * t->cols; j++) {
            double d = (double)gradients[j] / scale - (double)r->expected[j];
            difference += d * d;
            norm += (double)r->expected[j] * (double)r->expected[j];
        }
        struct kiln_verify_tensor *v = &out->tensors[i];
        memcpy(v->name, t->name, sizeof v->name);
        v->error = norm > 0 ? sqrt(difference / norm) : sqrt(difference);
        if (i == 0 || worse(v->error, out->worst.error)) {
            out->worst = *v;
        }
    }
    return KILN_OK;
}

struct verify_job {
    enum kiln_precision precision;
    uint64_t micro_batches;  /* of a step, on all ranks */
    struct kiln_share share; /* of this one */
    struct reference reference;
    struct kiln_engine engine;
};

/* What load_step read, or one sequence of it. */
static void step_batch(void *context, uint64_t index, uint32_t *tokens, uint32_t *targets,
                       uint32_t *starts) {
    const struct verify_job *job = context;
    const struct reference *r = &job->reference;
    const size_t n = r->batch / job->micro_batches * r->seq, at = (job->share.first + index) * n;
    if (starts) {
        memcpy(starts, r->starts + at, n * sizeof *starts);
    }
    memcpy(tokens, r->tokens + at, n * sizeof *tokens);
    memcpy(targets, r->targets + at, n * sizeof *targets);
}

static enum kiln_status open_snapshots(struct verify_job *job, struct kiln_weights *active,
                                       struct kiln_err *err) {
    struct reference *r = &job->reference;
    const size_t bytes = kiln_snapshot_bytes(r->table, kiln_precision_resolve(job->precision));
    for (size_t i = 0; i < 2; i++) {
        r->snapshots[i] = kiln_alloc(bytes, 1);
        KILN_REQUIRE(r->snapshots[i], err, KILN_ENOMEM, "no memory for snapshots");
    }
    /* The device opens with the first. */
    struct kiln_pool *pool;
    const enum kiln_precision precision = kiln_precision_resolve(job->precision);
    KILN_TRY(kiln_pool_create(1, &pool, err));
    const enum kiln_status status =
        kiln_snapshot_take(pool, r->table, precision, r->weights, r->snapshots[0], err);
    kiln_pool_destroy(pool);
    *active = kiln_weights_snapshot(r->table, precision, r->snapshots[0]);
    return status;
}

/* Steps so far: compute with what the rule says. The newest weights were taken as a snapshot. */
static enum kiln_status choose_generation(struct verify_job *job, size_t step,
                                          struct kiln_err *err) {
    struct reference *r = &job->reference;
    const enum kiln_precision precision = kiln_precision_resolve(job->precision);
    const size_t g = (size_t)kiln_generation_of(step, true);
    if (!r->snapshots[0]) {
        return KILN_OK;
    }
    KILN_TRY(kiln_snapshot_take(job->engine.pool, r->table, precision, r->weights,
                                r->snapshots[step % 2], err));
    const struct kiln_weights active =
        kiln_weights_snapshot(r->table, precision, r->snapshots[g % 2]);
    const struct kiln_weights next =
        kiln_weights_snapshot(r->table, precision, r->snapshots[step % 2]);
    kiln_executor_generation(&job->engine.executor, (int64_t)g, &active, g < step ? &next : NULL);
    return KILN_OK;
}

static enum kiln_status open_job(struct verify_job *job, const struct kiln_verify_options *options,
                                 struct kiln_err *err) {
    struct reference *r = &job->reference;
    const bool delayed = options->overlap == KILN_OVERLAP_DELAYED;
    r->losses = delayed ? "loss_delayed" : "loss";
    KILN_TRY(kiln_device_precision(options->device.id, options->precision, &job->precision, err));
    KILN_TRY(read_json(r, options->reference, err));
    KILN_TRY(read_model(r, options->reference, err));
    KILN_TRY(read_arrays(r, options->reference, err));
    const size_t ranks = kiln_ranks_count(options->ranks);
    KILN_REQUIRE(ranks <= r->batch, err, KILN_EUSAGE,
                 "verify: %zu ranks, but the reference has %zu sequences a step", ranks, r->batch);
    job->micro_batches = options->ranks || options->deterministic ? r->batch : 1;
    job->share = kiln_share_of(job->micro_batches, ranks, kiln_ranks_mine(options->ranks));
    const json_t *adamw = json_object_get(r->json, "adamw");
    struct kiln_engine_memory memory = {.weights = r->weights,
                                        .optimizer = {.m = r->m, .v = r->v},
                                        .ranks = options->ranks,
                                        .micro_batches = job->micro_batches,
                                        .deterministic = options->deterministic};
    struct kiln_optimizer_parts *parts = &memory.optimizer;
    KILN_TRY(read_number(adamw, "adamw", "beta1", &parts->beta1, err));
    KILN_TRY(read_number(adamw, "adamw", "beta2", &parts->beta2, err));
    KILN_TRY(read_number(adamw, "adamw", "eps", &parts->eps, err));
    KILN_TRY(read_number(adamw, "adamw", "weight_decay", &parts->weight_decay, err));
    KILN_TRY(read_number(adamw, "adamw", "clip_grad_norm", &parts->clip, err));
    const struct kiln_tensor *embed = kiln_table_find(r->table, KILN_EMBED, KILN_NO_LAYER);
    parts->gradients.all = r->gradients;
    parts->gradients.embedding = r->embedding ? r->embedding : r->gradients + embed->offset;
    const struct kiln_device_options device = {.device = options->device,
                                               .shape = {r->batch / job->micro_batches, r->seq},
                                               .precision = job->precision,
                                               .training = true,
                                               .doc_mask = r->begin != KILN_NO_ID};
    struct kiln_plan_request request = kiln_plan_simple(
        r->table, &device, job->share.n, options->threads ? options->threads : kiln_cpu_count());
    request.budget = request.load_budget = options->budget;
    request.headroom_millionths = HEADROOM;
    request.overlap = options->overlap;
    request.doc_mask = device.doc_mask;
    request.refreshes = request.refreshes && !delayed;
    KILN_TRY(kiln_engine_plan(&job->engine, r->table, &request, err));
    KILN_REQUIRE(!job->engine.plan.layout.in_state, err, KILN_EBUDGET,
                 "verify: a step takes more kernels than the %zu that may be used of --budget %zu: "
                 "nothing is compared across processes",
                 job->engine.plan.schedule.limits.compile, options->budget);
    if (delayed) {
        KILN_TRY(open_snapshots(job, &memory.active, err));
    }
    return kiln_engine_open(&job->engine, r->table, &memory, err);
}

/* A step: the gradient and its norm, compared in the first, and the update. */
static enum kiln_status run_step(struct verify_job *job, size_t step, double lr,
                                 struct kiln_verify_result *out, struct kiln_err *err) {
    out->steps = step + 1;
    const struct kiln_plan_action updated = {.what = KILN_UPDATE};
    struct reference *r = &job->reference;
    struct kiln_executor *x = &job->engine.executor;
    KILN_TRY(load_step(r, step, err));
    const double tokens = (double)r->counted;
    const bool scaled = kiln_scale_wanted(job->engine.request.precision);
    const double scale = scaled ? kiln_scale_first(tokens) : 1;
    x->scale = (float)(scale / tokens);
    KILN_TRY(kiln_executor_window(x, err));
    if (x->reducer) {
        KILN_TRY(kiln_reducer_finish(x->reducer, &x->loss_sum, err));
    }
    const double norm = kiln_optimizer_norm(job->engine.optimizer, scale);
    if (step == 0) {
        KILN_TRY(compare_gradients(r, r->gradients, scale, out, err));
    }
    kiln_optimizer_update(job->engine.optimizer, step + 1, lr, norm, scale);
    KILN_TRY(kiln_executor_do(x, &updated, err)); /* kernels are of old weights */
    const double expected =
        json_number_value(json_array_get(json_object_get(r->json, r->losses), step));
    const double error = fabs(x->loss_sum / tokens - expected) / fabs(expected);
    if (worse(error, out->loss_error)) {
        out->loss_error = error;
    }
    return KILN_OK;
}

static enum kiln_status run_steps(struct verify_job *job, struct kiln_verify_result *out,
                                  struct kiln_err *err) {
    const struct reference *r = &job->reference;
    double lr = 0;
    KILN_TRY(read_number(json_object_get(r->json, "adamw"), "adamw", "lr", &lr, err));
    for (size_t step = 0; step < r->steps; step++) {
        struct kiln_executor *x = &job->engine.executor;
        KILN_TRY(choose_generation(job, step, err));
        if (x->reducer) {
            KILN_TRY(kiln_reducer_begin(x->reducer, false, job->micro_batches, err));
        }
        kiln_executor_begin(x, false, job->share.n, step_batch, job);
        if (kiln_executor_next(x).what == KILN_RESTART) {
            return KILN_OK; /* the budget is spent */
        }
        KILN_TRY(run_step(job, step, lr, out, err));
    }
    return KILN_OK;
}

static void set_limits(enum kiln_precision precision, struct kiln_verify_result *out) {
    const bool fp32 = precision == KILN_PRECISION_FP32, fp16 = precision == KILN_PRECISION_FP16;
    out->loss_limit = fp32 ? 1e-5 : fp16 ? 2e-3 : 5e-3;
    out->gradient_limit = fp32 ? 3e-5 : fp16 ? 1e-2 : 6e-2;
}

enum kiln_status kiln_verify_reference(const struct kiln_verify_options *options,
                                       struct kiln_verify_result *out, struct kiln_err *err) {
    struct verify_job job = {0};
    *out = (struct kiln_verify_result){0};
    enum kiln_status status = open_job(&job, options, err);
    if (status == KILN_OK) {
        status = run_steps(&job, out, err);
    }
    status = kiln_ranks_settle(options->ranks, status, err);
    set_limits(kiln_precision_resolve(job.precision), out);
    out->all = job.reference.steps;
    out->pass = out->loss_error <= out->loss_limit && out->worst.error <= out->gradient_limit;
    kiln_engine_close(&job.engine);
    close_reference(&job.reference);
    if (status != KILN_OK) {
        kiln_verify_free(out);
    }
    return status;
}

void kiln_verify_free(struct kiln_verify_result *result) {
    kiln_free(result->tensors);
    result->tensors = NULL;
}
