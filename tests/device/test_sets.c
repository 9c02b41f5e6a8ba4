/* SPDX-License-Identifier: MIT
 *
 * test_sets.c: kernel sets: compiled from snapshots, beside the computing, within budgets. All that
 * a micro-batch leaves is compared bit for bit. Under the thread sanitizer this shows that a
 * compiling thread and the owner share nothing without order.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "device/device.h"
#include "kernel/kernel.h"
#include "kiln_test.h"
#include "model/table.h"
#ifdef KILN_FAKE_ANE
#include "device/fake_ane.h"
#endif

/* ---- devices and models ------------------------------------------------------------------------
 */

static const struct variant {
    const char *name;
    struct kiln_device_choice device;
    enum kiln_precision precision; /* of operands: of the device, and of its snapshots */
} variants[] = {
    {"cpu fp32", {.id = KILN_CPU}, KILN_PRECISION_FP32},
    {"cpu bf16", {.id = KILN_CPU}, KILN_PRECISION_BF16},
    {"sim with extras", {.id = KILN_SIM, .extras = true}, KILN_PRECISION_FP16},
    {"sim", {.id = KILN_SIM}, KILN_PRECISION_FP16},
    {"sim that reloads", {.id = KILN_SIM, .sim = "reload=on"}, KILN_PRECISION_FP16},
#ifdef KILN_FAKE_ANE
    {"ane with extras", {.id = KILN_ANE, .extras = true}, KILN_PRECISION_FP16},
    {"ane", {.id = KILN_ANE}, KILN_PRECISION_FP16},
#endif
};
enum { VARIANTS = sizeof variants / sizeof variants[0] };

enum { B = 2, T = 24, N = B * T, D = 32, LAYERS = 4, VOCAB = 40, WEIGHTS = 2 };

/* A model, two generations of its weights, and their snapshots in a device's operands. */
struct bench {
    const struct variant *variant;
    struct kiln_table *table;
    struct kiln_pool *pool;
    float *weights[WEIGHTS];
    void *snapshots[WEIGHTS];
    struct kiln_weights flat[WEIGHTS], snapshot[WEIGHTS];
    uint32_t tokens[N], targets[N];
};

/* Numbers at which ways of rounding part: subnormal in fp16, in bf16, halves of the last bit. */
static void plant(const struct kiln_table *table, float *weights) {
    static const float odd[] = {3e-8f,         -4.1e-6f, 1e-40f,      -0.0f,   0.0009765f,
                                1.0048828125f, -1e-3f,   1.00390625f, 5.97e-8f};
    for (size_t i = 0; i < table->n_matrices; i++) {
        const struct kiln_matrix *m = &table->matrices[i];
        for (size_t j = 0; j < sizeof odd / sizeof odd[0]; j++) {
            weights[m->offset + (j * 131 + i * 7) % (m->rows * m->cols)] = odd[j];
        }
    }
}

static struct bench open_bench(const struct variant *variant, size_t threads, bool tied) {
    const struct kiln_dims dims = {.dim = D,
                                   .hidden = 72,
                                   .layers = LAYERS,
                                   .heads = 4,
                                   .kv_heads = 2,
                                   .head_size = 8,
                                   .vocab = VOCAB,
                                   .seq = T,
                                   .tied = tied,
                                   .rms_eps = 1e-5f,
                                   .rope_theta = 1e4f};
    struct bench x = {.variant = variant};
    struct kiln_err err;
    CHECK_OK(kiln_table_create(&dims, &x.table, &err), &err);
    CHECK_OK(kiln_pool_create(threads, &x.pool, &err), &err);
    for (uint64_t i = 0; i < WEIGHTS; i++) {
        x.weights[i] = kiln_alloc(x.table->size, sizeof(float));
        x.snapshots[i] = kiln_alloc(kiln_snapshot_bytes(x.table, variant->precision), 1);
        CHECK(x.weights[i] && x.snapshots[i]);
        kiln_weights_init(x.table, i + 1, x.weights[i]);
        plant(x.table, x.weights[i]);
        CHECK_OK(kiln_snapshot_take(x.pool, x.table, variant->precision, x.weights[i],
                                    x.snapshots[i], &err),
                 &err);
        x.flat[i] = kiln_weights_flat(x.table, x.weights[i]);
        x.snapshot[i] = kiln_weights_snapshot(x.table, variant->precision, x.snapshots[i]);
    }
    for (uint32_t i = 0; i < N; i++) {
        x.tokens[i] = i * 7 % VOCAB;
        x.targets[i] = (i * 11 + 3) % VOCAB;
    }
    return x;
}

static void close_bench(struct bench *x) {
    for (size_t i = 0; i < WEIGHTS; i++) {
        kiln_free(x->weights[i]);
        kiln_free(x->snapshots[i]);
    }
    kiln_pool_destroy(x->pool);
    kiln_table_destroy(x->table);
}

static struct kiln_device_options options_of(const struct bench *x) {
    return (struct kiln_device_options){.device = x->variant->device,
                                        .shape = {B, T},
                                        .precision = x->variant->precision,
                                        .training = true};
}

static struct kiln_device *open_device(const struct bench *x,
                                       const struct kiln_device_options *options,
                                       const struct kiln_weights *weights) {
    struct kiln_device *d;
    struct kiln_err err;
#ifdef KILN_FAKE_ANE
    fake_compile_limit = fake_load_limit = 1000000;
#endif
    CHECK_OK(kiln_device_open(x->table, x->pool, weights, options, &d, &err), &err);
    return d;
}

/* ---- kernels -----------------------------------------------------------------------------------
 */

/* The kernels of a set, in the order that an executor wants them: those without weights only where
 * `all` is set. */
struct kernel {
    size_t kind, layer;
};
enum { MOST_KERNELS = KILN_KINDS * LAYERS };

static size_t list_kernels(const struct kiln_device *d, bool all, struct kernel *out) {
    size_t n = 0;
    for (size_t pass = KILN_FORWARD; pass <= KILN_BACKWARD; pass++) {
        for (size_t i = 0; i < LAYERS; i++) {
            const size_t layer = pass == KILN_FORWARD ? i : LAYERS - 1 - i;
            for (size_t kind = 0; kind < KILN_KINDS; kind++) {
                const struct kiln_kernel_kind *k = &d->caps.kinds[kind];
                const bool here = k->per_layer || i == LAYERS - 1;
                if (k->compiles > 0 && k->pass == pass && here && (all || k->weights)) {
                    out[n++] = (struct kernel){kind, layer};
                }
            }
        }
    }
    return n;
}

static size_t cost_of(const struct kiln_device *d, bool all) {
    struct kernel kernels[MOST_KERNELS];
    size_t cost = 0;
    for (size_t n = list_kernels(d, all, kernels); n-- > 0;) {
        cost += d->caps.kinds[kernels[n].kind].compiles;
    }
    return cost;
}

/* Those without weights are of both sets: they come with the first. */
static enum kiln_status compile_set(struct kiln_device *d, size_t set, bool all,
                                    const struct kiln_weights *weights, struct kiln_err *err) {
    struct kernel kernels[MOST_KERNELS];
    const size_t n = list_kernels(d, all, kernels);
    for (size_t i = 0; i < n; i++) {
        KILN_TRY(d->ops->compile(d, set, kernels[i].kind, kernels[i].layer, weights, err));
    }
    return KILN_OK;
}

/* ---- a micro-batch -----------------------------------------------------------------------------
 */

struct result {
    size_t bytes;
    double *loss;
    float *x, *dx, *gradients, *embedding;
    void *memory;
};

static struct result open_result(const struct bench *x) {
    struct result r = {.bytes = 64 + (2 * N * D + x->table->size + VOCAB * D) * sizeof(float)};
    r.memory = kiln_alloc(r.bytes, 1);
    CHECK(r.memory != NULL);
    r.loss = r.memory;
    r.x = (float *)r.memory + 16;
    r.dx = r.x + N * D;
    r.gradients = r.dx + N * D;
    r.embedding = r.gradients + x->table->size;
    return r;
}

/* What the owner waits for before it runs a layer; NULL: nothing. */
struct wait {
    void (*ready)(void *context, enum kiln_pass pass, size_t layer);
    void *context;
};

static void until(const struct wait *wait, enum kiln_pass pass, size_t layer) {
    if (wait) {
        wait->ready(wait->context, pass, layer);
    }
}

struct blocks {
    void *x[2 * LAYERS + 1], *taps[2 * LAYERS], *dx;
};

static void *block(const struct kiln_device *d, enum kiln_activation what) {
    void *at = kiln_alloc(d->ops->activation_bytes(d, what), 1);
    CHECK(at != NULL);
    return at;
}

static struct blocks open_blocks(const struct kiln_device *d) {
    struct blocks b = {.dx = block(d, KILN_RESIDUAL)};
    for (size_t i = 0; i < 2 * LAYERS + 1; i++) {
        b.x[i] = block(d, KILN_RESIDUAL);
    }
    for (size_t i = 0; i < 2 * LAYERS; i++) {
        b.taps[i] = block(d, i % 2 ? KILN_TAPS_FEED_FORWARD : KILN_TAPS_ATTENTION);
    }
    return b;
}

static void close_blocks(struct blocks *b) {
    kiln_free(b->dx);
    for (size_t i = 0; i < 2 * LAYERS + 1; i++) {
        kiln_free(b->x[i]);
    }
    for (size_t i = 0; i < 2 * LAYERS; i++) {
        kiln_free(b->taps[i]);
    }
}

static void run_waiting(const struct bench *x, struct kiln_device *d, struct blocks *b,
                        const struct wait *wait, struct result *r) {
    struct kiln_err err;
    memset(r->memory, 0, r->bytes);
    d->gradients = (struct kiln_gradients){.all = r->gradients, .embedding = r->embedding};
    CHECK_OK(d->ops->embed(d, x->tokens, b->x[0], &err), &err);
    for (size_t i = 0; i < 2 * LAYERS; i++) {
        until(wait, KILN_FORWARD, i / 2);
        CHECK_OK(d->ops->forward(d, i / 2, (enum kiln_half)(i % 2), b->x[i], b->x[i + 1],
                                 b->taps[i], true, &err),
                 &err);
    }
    CHECK_OK(d->ops->head(d, b->x[2 * LAYERS], x->targets, 64.0f / N, b->dx, r->loss, &err), &err);
    for (size_t i = 2 * LAYERS; i-- > 0;) {
        until(wait, KILN_BACKWARD, i / 2);
        CHECK_OK(
            d->ops->backward(d, i / 2, (enum kiln_half)(i % 2), b->x[i], b->dx, b->taps[i], &err),
            &err);
    }
    CHECK_OK(d->ops->embed_backward(d, x->tokens, b->dx, &err), &err);
    CHECK_OK(d->ops->drain(d, &err), &err);
    d->ops->export_residual(d, b->x[2 * LAYERS], r->x);
    d->ops->export_residual(d, b->dx, r->dx);
}

static void run(const struct bench *x, struct kiln_device *d, struct result *r) {
    struct blocks b = open_blocks(d);
    run_waiting(x, d, &b, NULL, r);
    close_blocks(&b);
}

static void check_run(const struct bench *x, struct kiln_device *d, const struct result *want) {
    struct result got = open_result(x);
    run(x, d, &got);
    if (memcmp(got.memory, want->memory, want->bytes) != 0) {
        printf("      %s: loss %.9g, expected %.9g\n", x->variant->name, *got.loss, *want->loss);
    }
    CHECK_BYTES(got.memory, want->memory, want->bytes);
    kiln_free(got.memory);
}

/* What a device gives that is opened on these weights and compiled from them. */
static struct result fresh(const struct bench *x, const struct kiln_weights *weights) {
    const struct kiln_device_options options = options_of(x);
    struct kiln_device *d = open_device(x, &options, weights);
    struct result r = open_result(x);
    struct kiln_err err;
    CHECK_OK(compile_set(d, 0, true, weights, &err), &err);
    run(x, d, &r);
    CHECK(isfinite(*r.loss) && *r.loss > 0);
    kiln_device_close(d);
    return r;
}

/* ---- snapshots ---------------------------------------------------------------------------------
 */

TEST_WITHIN(kernels_of_a_snapshot_are_those_of_the_weights, 120) {
    for (size_t v = 0; v < VARIANTS; v++) {
        for (int tied = 0; tied < 2; tied++) {
            struct bench x = open_bench(&variants[v], 2, tied);
            struct result flat = fresh(&x, &x.flat[0]), snapshot = fresh(&x, &x.snapshot[0]);
            struct result other = fresh(&x, &x.flat[1]);
            CHECK_EQ(x.snapshot[0].flat == NULL, variants[v].precision != KILN_PRECISION_FP32);
            CHECK_BYTES(snapshot.memory, flat.memory, flat.bytes);
            CHECK(memcmp(other.memory, flat.memory, flat.bytes) != 0);
            kiln_free(flat.memory);
            kiln_free(snapshot.memory);
            kiln_free(other.memory);
            close_bench(&x);
        }
    }
}

TEST(a_snapshot_of_another_precision_is_refused) {
    for (size_t v = 0; v < VARIANTS; v++) {
        struct bench x = open_bench(&variants[v], 1, true);
        const struct kiln_device_options options = options_of(&x);
        const enum kiln_precision other = variants[v].precision == KILN_PRECISION_FP16
                                              ? KILN_PRECISION_BF16
                                              : KILN_PRECISION_FP16;
        const struct kiln_weights wrong = kiln_weights_snapshot(x.table, other, x.snapshots[0]);
        struct kiln_device *d = open_device(&x, &options, &x.flat[0]);
        struct kiln_err err;
        CHECK_FAILS(d->ops->compile(d, 0, KILN_ATTN_FWD, 1, &wrong, &err), KILN_EINTERNAL, &err);
        CHECK_CONTAINS(err.message, kiln_precision_name(other));
        CHECK_EQ(d->counts.loaded, 0);
        CHECK_FAILS(d->ops->compile(d, 1, KILN_ATTN_FWD, 1, &x.flat[0], &err), KILN_EINTERNAL,
                    &err);
        CHECK_FAILS(d->ops->prepare(d, 0, &x.flat[0], &err), KILN_EINTERNAL, &err);
        CHECK_FAILS(d->ops->prepare(d, 1, &x.flat[0], &err), KILN_EINTERNAL, &err);
        kiln_device_close(d);
        close_bench(&x);
    }
}

/* ---- the other set, beside ---------------------------------------------------------------------
 */

/* Compiles a whole set on a thread of its own. */
struct compiler {
    struct kiln_device *device;
    size_t set;
    const struct kiln_weights *weights;
    pthread_t handle;
    atomic_bool done;
    enum kiln_status status;
    struct kiln_err err;
};

static void *compiler_main(void *context) {
    struct compiler *c = context;
    c->status = c->device->ops->prepare(c->device, c->set, c->weights, &c->err);
    if (c->status == KILN_OK) {
        c->status = compile_set(c->device, c->set, false, c->weights, &c->err);
    }
    atomic_store(&c->done, true);
    return NULL;
}

static void swaps_sets(const struct variant *variant, bool release) {
    struct bench x = open_bench(variant, 3, false);
    struct kiln_device_options options = options_of(&x);
    struct result want[2] = {fresh(&x, &x.flat[0]), fresh(&x, &x.flat[1])};
    struct result got = open_result(&x);
    struct kiln_err err;
    options.two_sets = options.beside = true;
    struct kiln_device *d = open_device(&x, &options, &x.snapshot[0]);
    struct blocks b = open_blocks(d);
    size_t beside = 0;
    CHECK(!d->caps.refreshes);
    CHECK_OK(compile_set(d, 0, true, &x.snapshot[0], &err), &err);
    for (size_t i = 0; i < 4; i++) {
        const size_t active = i % 2, next = 1 - active;
        struct compiler c = {.device = d, .set = next, .weights = &x.snapshot[next]};
        if (release && i > 0) { /* what the edge of a window may do; else they are compiled again */
            struct kernel kernels[MOST_KERNELS];
            for (size_t n = list_kernels(d, false, kernels); n-- > 0;) {
                d->ops->release(d, next, kernels[n].kind, kernels[n].layer);
            }
        }
        /* Weights of the optimizer reach no set. */
        d->ops->refresh(d, x.table->n_matrices - 1, 0, VOCAB, &x.flat[next]);
        CHECK_EQ(d->set, active);
        CHECK_EQ(pthread_create(&c.handle, NULL, compiler_main, &c), 0);
        size_t runs = 0;
        for (; runs < 2 || !atomic_load(&c.done); runs++) {
            run_waiting(&x, d, &b, NULL, &got);
            CHECK_BYTES(got.memory, want[active].memory, got.bytes);
        }
        beside += runs;
        CHECK_EQ(pthread_join(c.handle, NULL), 0);
        CHECK_OK(c.status, &c.err);
        run_waiting(&x, d, &b, NULL, &got);
        CHECK_BYTES(got.memory, want[active].memory, got.bytes);
        d->ops->activate(d, next, &x.snapshot[next]);
        run_waiting(&x, d, &b, NULL, &got);
        CHECK_BYTES(got.memory, want[next].memory, got.bytes);
        d->ops->activate(d, active, &x.snapshot[active]); /* and back: both are whole */
        run_waiting(&x, d, &b, NULL, &got);
        CHECK_BYTES(got.memory, want[active].memory, got.bytes);
        d->ops->activate(d, next, &x.snapshot[next]);
    }
    printf("      %s: %zu micro-batches beside 4 sets\n", variant->name, beside);
    close_blocks(&b);
    kiln_device_close(d);
    for (size_t i = 0; i < 2; i++) {
        kiln_free(want[i].memory);
    }
    kiln_free(got.memory);
    close_bench(&x);
}

TEST_WITHIN(a_set_compiled_beside_disturbs_nothing_and_is_whole, 200) {
    for (size_t v = 0; v < VARIANTS; v++) {
        swaps_sets(&variants[v], false);
    }
}

TEST_WITHIN(a_set_that_was_released_is_compiled_beside_again, 200) {
    for (size_t v = 0; v < VARIANTS; v++) {
        swaps_sets(&variants[v], true);
    }
}

/* ---- failures ----------------------------------------------------------------------------------
 */

/* Compile a kernel of set 1 and expect the failure; set 0 is as it was. */
static void fails_alone(const struct bench *x, struct kiln_device *d, const struct result *want,
                        const struct kiln_weights *weights, enum kiln_status code) {
    const size_t loaded = d->counts.loaded;
    struct kiln_err err;
    CHECK_FAILS(d->ops->compile(d, 1, KILN_FFN_FWD, 1, weights, &err), code, &err);
    CHECK_EQ(d->counts.loaded, loaded);
    check_run(x, d, want);
    CHECK_OK(d->ops->compile(d, 1, KILN_FFN_FWD, 1, &x->snapshot[1], &err), &err);
    CHECK_EQ(d->counts.loaded, loaded + 1);
    check_run(x, d, want);
    /* One that was there is gone behind a failure. */
    CHECK_FAILS(d->ops->compile(d, 1, KILN_FFN_FWD, 1, weights, &err), code, &err);
    d->ops->release(d, 1, KILN_FFN_FWD, 1);
    CHECK_EQ(d->counts.loaded, loaded);
    check_run(x, d, want);
}

static void set_too_large(struct bench *x, float value) {
    const struct kiln_matrix *m = kiln_table_matrix(x->table, KILN_MATRIX_W2, 1);
    struct kiln_err err;
    x->weights[1][m->offset + 5] = value;
    CHECK_OK(kiln_snapshot_take(x->pool, x->table, x->variant->precision, x->weights[1],
                                x->snapshots[1], &err),
             &err);
}

TEST_WITHIN(a_kernel_that_fails_in_one_set_leaves_the_other_alone, 120) {
    for (size_t v = 0; v < VARIANTS; v++) {
        struct bench x = open_bench(&variants[v], 2, true), bad = open_bench(&variants[v], 1, true);
        struct kiln_device_options options = options_of(&x);
        struct result want = fresh(&x, &x.flat[0]);
        struct kiln_err err;
        options.two_sets = options.beside = true;
        struct kiln_device *d = open_device(&x, &options, &x.flat[0]);
        CHECK_OK(compile_set(d, 0, true, &x.flat[0], &err), &err);
        if (variants[v].device.id == KILN_CPU) {
            const struct kiln_weights wrong =
                kiln_weights_snapshot(x.table, KILN_PRECISION_FP16, x.snapshots[1]);
            CHECK_FAILS(d->ops->compile(d, 1, KILN_FFN_FWD, 1, &wrong, &err), KILN_EINTERNAL, &err);
            check_run(&x, d, &want);
        } else {
            set_too_large(&bad, 1e6f);
            fails_alone(&x, d, &want, &bad.flat[1], KILN_EINPUT);
            fails_alone(&x, d, &want, &bad.snapshot[1], KILN_EINPUT);
        }
        kiln_device_close(d);
        kiln_free(want.memory);
        close_bench(&x);
        close_bench(&bad);
    }
}

#ifdef KILN_FAKE_ANE
TEST_WITHIN(apples_failures_in_one_set_leave_nothing_behind, 120) {
    static const enum fake_point points[] = {FAKE_DESCRIPTOR, FAKE_MODEL,   FAKE_DIGEST,
                                             FAKE_COMPILE,    FAKE_LOAD,    FAKE_WRAPPER,
                                             FAKE_REQUEST,    FAKE_STAGING, FAKE_COMPILE_SILENT};
    struct bench x = open_bench(&variants[VARIANTS - 1], 2, true);
    struct kiln_device_options options = options_of(&x);
    struct result want = fresh(&x, &x.flat[0]);
    struct kiln_err err;
    options.two_sets = options.beside = true;
    struct kiln_device *d = open_device(&x, &options, &x.flat[0]);
    CHECK_OK(compile_set(d, 0, true, &x.flat[0], &err), &err);
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        for (int raises = 0; raises < 2; raises++) {
            const struct fake_counts before = fake_count();
            const size_t loaded = d->counts.loaded;
            fake_fail(points[i], 1, 2, raises);
            const enum kiln_status status =
                d->ops->compile(d, 1, KILN_FFN_FWD, 1, &x.snapshot[1], &err);
            fake_fail(points[i], 0, 0, false);
            CHECK(status != KILN_OK && err.code == status);
            CHECK_EQ(d->counts.loaded, loaded);
            const struct fake_counts after = fake_count();
            CHECK_EQ(after.descriptors, before.descriptors);
            CHECK_EQ(after.models, before.models);
            CHECK_EQ(after.requests, before.requests);
            CHECK_EQ(after.wrappers, before.wrappers);
            CHECK_EQ(after.loaded, before.loaded);
            CHECK_EQ(after.folders, before.folders);
            check_run(&x, d, &want);
        }
    }
    CHECK_OK(d->ops->compile(d, 1, KILN_FFN_FWD, 1, &x.snapshot[1], &err), &err);
    kiln_device_close(d);
    const struct fake_counts left = fake_count();
    CHECK_EQ(left.models + left.requests + left.wrappers + left.folders + left.loaded, 0);
    kiln_free(want.memory);
    close_bench(&x);
}
#endif

/* ---- budgets -----------------------------------------------------------------------------------
 */

TEST_WITHIN(budgets_count_both_sets_and_weightless_kernels_once, 120) {
    for (size_t v = 0; v < VARIANTS; v++) {
        struct bench x = open_bench(&variants[v], 2, true);
        struct kiln_device_options options = options_of(&x);
        struct kiln_device *d = open_device(&x, &options, &x.flat[0]);
        const size_t both = cost_of(d, true) + cost_of(d, false);
        const size_t own = kiln_device_programs(&options);
        struct kiln_err err;
        CHECK(cost_of(d, true) > cost_of(d, false));
        kiln_device_close(d);
        options.two_sets = true;
        if (variants[v].device.id ==
            KILN_SIM) { /* whose own count is of all that this process did */
            options.device.sim =
                options.device.sim ? "reload=on,compile-budget=0" : "compile-budget=0";
        }
        /* So many compiles, and none more: also not in the other set. */
        options.budget = both + own;
        d = open_device(&x, &options, &x.flat[0]);
        CHECK_OK(compile_set(d, 0, true, &x.flat[0], &err), &err);
        CHECK_OK(compile_set(d, 1, false, &x.snapshot[1], &err), &err);
        CHECK_EQ(d->counts.compiles, both);
        CHECK_EQ(d->counts.loaded, both);
        for (size_t set = 0; set < 2; set++) {
            CHECK_FAILS(d->ops->compile(d, set, KILN_FFN_BWD, 2, &x.flat[1], &err), KILN_EBUDGET,
                        &err);
        }
        CHECK_EQ(d->counts.loaded, both);
        kiln_device_close(d);
        /* The same of those that are loaded: one too many, until the other set lets one go. */
        options.budget = 0;
        options.load_budget = both - 1;
        d = open_device(&x, &options, &x.flat[0]);
        CHECK_OK(compile_set(d, 0, true, &x.flat[0], &err), &err);
        CHECK_FAILS(compile_set(d, 1, false, &x.snapshot[1], &err), KILN_EBUDGET, &err);
        d->ops->release(d, 0, KILN_ATTN_FWD, 0);
        d->ops->release(d, 1, KILN_ATTN_BWD2, 0); /* of both sets */
        const size_t shared = d->caps.kinds[KILN_ATTN_BWD2].loads;
        CHECK_OK(compile_set(d, 1, false, &x.snapshot[1], &err), &err);
        CHECK_EQ(d->counts.loaded, both - 1 - shared);
        kiln_device_close(d);
        close_bench(&x);
    }
}

/* A device without a second set has no room for one. */
TEST(one_set_takes_what_it_took) {
    for (size_t v = 0; v < VARIANTS; v++) {
        struct bench x = open_bench(&variants[v], 1, false);
        struct kiln_device_options options = options_of(&x);
        struct kiln_device_sizes one, two;
        struct kiln_err err;
        CHECK_OK(kiln_device_sizes(x.table, &options, &one, &err), &err);
        options.two_sets = options.beside = true;
        CHECK_OK(kiln_device_sizes(x.table, &options, &two, &err), &err);
        CHECK_BYTES(&two, &one, sizeof one); /* all are of one set */
        CHECK(one.baked_forward > 0 && one.baked_backward > 0);
        CHECK_EQ(one.baked_head > 0,
                 variants[v].device.id == KILN_CPU || variants[v].device.extras);
        /* At least the weights themselves, in two bytes. */
        const struct kiln_dims *d = &x.table->dims;
        const size_t least = 2 * (2 * D * D + 2 * D * 16 + 3 * D * d->hidden);
        CHECK(one.baked_forward >= least && one.baked_backward >= least);
        close_bench(&x);
    }
}

/* ---- the same set, beside ----------------------------------------------------------------------
 */

/* Compiles the kernels of the active set in the order in which the owner runs them. */
struct ahead {
    struct kiln_device *device;
    const struct kiln_weights *weights;
    struct kernel kernels[MOST_KERNELS];
    size_t n;
    pthread_t handle;
    pthread_mutex_t lock;
    pthread_cond_t more;
    size_t made; /* under the lock */
    enum kiln_status status;
    struct kiln_err err;
};

static void *ahead_main(void *context) {
    struct ahead *a = context;
    for (size_t i = 0; i < a->n; i++) {
        struct kiln_err err;
        const enum kiln_status status = a->device->ops->compile(
            a->device, 0, a->kernels[i].kind, a->kernels[i].layer, a->weights, &err);
        pthread_mutex_lock(&a->lock);
        if (status != KILN_OK && a->status == KILN_OK) {
            a->status = status;
            a->err = err;
        }
        a->made = i + 1;
        pthread_cond_signal(&a->more);
        pthread_mutex_unlock(&a->lock);
    }
    return NULL;
}

/* All kernels of that pass of the layer are there; behind the last layer, what ends the model. */
static void await_layer(void *context, enum kiln_pass pass, size_t layer) {
    struct ahead *a = context;
    size_t needed = 0;
    for (size_t i = 0; i < a->n; i++) {
        const struct kernel *k = &a->kernels[i];
        if (a->device->caps.kinds[k->kind].pass == pass && k->layer == layer) {
            needed = i + 1;
        }
    }
    pthread_mutex_lock(&a->lock);
    while (a->made < needed) {
        pthread_cond_wait(&a->more, &a->lock);
    }
    pthread_mutex_unlock(&a->lock);
}

static void compiles_ahead(const struct variant *variant, size_t rounds) {
    struct bench x = open_bench(variant, 2, false);
    struct kiln_device_options options = options_of(&x);
    struct result want[2] = {fresh(&x, &x.flat[0]), fresh(&x, &x.flat[1])};
    struct result got = open_result(&x);
    struct kiln_err err;
    options.beside = true;
    options.budget = 1000000;
    struct kiln_device *d = open_device(&x, &options, &x.flat[0]);
    struct blocks b = open_blocks(d);
    CHECK_OK(compile_set(d, 0, true, &x.flat[0], &err), &err);
    for (size_t round = 0; round < rounds; round++) {
        const size_t g = round % 2;
        struct ahead a = {.device = d, .weights = &x.flat[g]};
        const struct wait wait = {await_layer, &a};
        a.n = list_kernels(d, false, a.kernels);
        pthread_mutex_init(&a.lock, NULL);
        pthread_cond_init(&a.more, NULL);
        /* What the optimizer does. */
        d->ops->refresh(d, x.table->n_matrices - 1, 0, VOCAB, &x.flat[g]);
        d->ops->activate(d, 0, &x.flat[g]);
        CHECK_EQ(pthread_create(&a.handle, NULL, ahead_main, &a), 0);
        run_waiting(&x, d, &b, &wait, &got);
        CHECK_EQ(pthread_join(a.handle, NULL), 0);
        CHECK_OK(a.status, &a.err);
        CHECK_BYTES(got.memory, want[g].memory, got.bytes);
        pthread_cond_destroy(&a.more);
        pthread_mutex_destroy(&a.lock);
    }
    close_blocks(&b);
    kiln_device_close(d);
    for (size_t i = 0; i < 2; i++) {
        kiln_free(want[i].memory);
    }
    kiln_free(got.memory);
    close_bench(&x);
}

TEST_WITHIN(a_layer_is_compiled_while_the_one_before_runs, 300) {
    for (size_t v = 0; v < VARIANTS; v++) {
        const bool slow = variants[v].device.id == KILN_ANE && variants[v].device.extras;
        compiles_ahead(&variants[v], slow ? 10 : 100); /* the fakes write files */
    }
}
