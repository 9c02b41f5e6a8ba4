/* SPDX-License-Identifier: MIT
 *
 * ane.c: the Neural Engine as a device: opening it, on Apple's runtime or on the simulator.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "device/ane/ane_int.h"
#include "device/sim/sim.h"

#ifdef __APPLE__
#include "device/ane/apple.h"
kiln_npu_runtime_open_fn *kiln_apple_runtime = kiln_apple_open;
#else
kiln_npu_runtime_open_fn *kiln_apple_runtime;
#endif

/* ---- operations of the contract ----------------------------------------------------------------
 */

static size_t activation_bytes(const struct kiln_dims *d, const struct kiln_micro_batch *shape,
                               enum kiln_activation what) {
    const size_t columns = shape->batch * kiln_npu_width(shape->seq);
    switch (what) {
        case KILN_RESIDUAL:
            return kiln_round_up(columns * d->dim * sizeof(float), 64);
        case KILN_TAPS_ATTENTION:
            return kiln_round_up(columns * kiln_ane_tap_rows(d, KILN_ATTENTION) * 2, 64);
        default:
            return kiln_round_up(columns * kiln_ane_tap_rows(d, KILN_FEED_FORWARD) * 2, 64);
    }
}

static size_t ane_activation_bytes(const struct kiln_device *device, enum kiln_activation what) {
    return activation_bytes(&device->table->dims, &device->shape, what);
}

static enum kiln_status ane_embed(struct kiln_device *device, const uint32_t *tokens, void *x,
                                  struct kiln_err *err) {
    (void)err;
    kiln_host_embed(&kiln_ane_of(device)->host, tokens, x);
    return KILN_OK;
}

static enum kiln_status ane_forward(struct kiln_device *device, size_t layer, enum kiln_half half,
                                    const void *x_in, void *x_out, void *taps, bool keep,
                                    struct kiln_err *err) {
    struct kiln_ane *ane = kiln_ane_of(device);
    device->counts.layer_forwards += half == KILN_ATTENTION;
    return ane->dynamic ? kiln_ane_forward_dynamic(ane, layer, half, x_in, x_out, taps, keep, err)
                        : kiln_ane_forward_baked(ane, layer, half, x_in, x_out, taps, keep, err);
}

static enum kiln_status ane_backward(struct kiln_device *device, size_t layer, enum kiln_half half,
                                     const void *x_in, void *dx, const void *taps,
                                     struct kiln_err *err) {
    struct kiln_ane *ane = kiln_ane_of(device);
    return ane->dynamic ? kiln_ane_backward_dynamic(ane, layer, half, x_in, dx, taps, err)
                        : kiln_ane_backward_baked(ane, layer, half, x_in, dx, taps, err);
}

static enum kiln_status ane_embed_backward(struct kiln_device *device, const uint32_t *tokens,
                                           const void *dx, struct kiln_err *err) {
    (void)err;
    kiln_host_embed_backward(&kiln_ane_of(device)->host, tokens, dx, &device->gradients);
    return KILN_OK;
}

static enum kiln_status ane_drain(struct kiln_device *device, struct kiln_err *err) {
    struct kiln_ane *ane = kiln_ane_of(device);
    KILN_TRY(ane->dw ? kiln_dw_drain(ane->dw, err) : KILN_OK);
    const struct kiln_err *trouble = kiln_npu_trouble(ane->runtime); /* of releases */
    KILN_REQUIRE(!trouble, err, trouble->code, "%s", trouble->message);
    return KILN_OK;
}

static void ane_refresh(struct kiln_device *device, size_t matrix, size_t first, size_t rows,
                        const float *weights) {
    struct kiln_ane *ane = kiln_ane_of(device);
    kiln_host_refresh(&ane->host, matrix, first, rows, weights);
    kiln_ane_stale(ane, matrix);
}

static enum kiln_status ane_prepare(struct kiln_device *device, size_t set,
                                    const struct kiln_weights *weights, struct kiln_err *err) {
    struct kiln_ane *ane = kiln_ane_of(device);
    KILN_REQUIRE(set < ane->n_sets && set != device->set, err, KILN_EINTERNAL,
                 "prepare: set %zu of %zu, and %zu is active", set, ane->n_sets, device->set);
    kiln_host_prepare(&ane->host, set, weights);
    return KILN_OK;
}

static void ane_activate(struct kiln_device *device, size_t set,
                         const struct kiln_weights *weights) {
    device->set = set;
    device->weights = *weights;
    kiln_host_activate(&kiln_ane_of(device)->host, set, weights);
}

static void ane_export(const struct kiln_device *device, const void *block, float *out) {
    kiln_host_export(&((const struct kiln_ane *)device)->host, block, out);
}
static void ane_import(const struct kiln_device *device, const float *in, void *block) {
    kiln_host_import(&((const struct kiln_ane *)device)->host, in, block);
}

static void ane_close(struct kiln_device *device) {
    struct kiln_ane *ane = kiln_ane_of(device);
    kiln_dw_close(ane->dw);
    kiln_gpu_close(ane->gpu);
    if (ane->runtime) {
        kiln_ane_close_programs(ane);
        kiln_ane_close_surfaces(ane);
        ane->runtime->ops->close(ane->runtime);
    }
    kiln_host_close(&ane->host);
    kiln_arena_close(&ane->arena);
    kiln_free(ane->stale);
    kiln_free(ane);
}

static const struct kiln_device_ops ops = {
    .close = ane_close,
    .activation_bytes = ane_activation_bytes,
    .compile = kiln_ane_compile,
    .release = kiln_ane_release,
    .prepare = ane_prepare,
    .activate = ane_activate,
    .refresh = ane_refresh,
    .embed = ane_embed,
    .forward = ane_forward,
    .backward = ane_backward,
    .head = kiln_ane_head,
    .embed_backward = ane_embed_backward,
    .drain = ane_drain,
    .export_residual = ane_export,
    .import_residual = ane_import,
};

/* ---- sizes -------------------------------------------------------------------------------------
 */

size_t kiln_ane_programs(const struct kiln_device_choice *device) {
    return (device->dynamic ? KILN_NPU_DYNAMIC : 0) + (device->id == KILN_ANE);
}

static void set_cost(struct kiln_kernel_kind *kind, size_t programs) {
    kind->compiles = kind->loads = (unsigned)programs;
}

void kiln_ane_kinds(const struct kiln_dims *dims, const struct kiln_device_options *options,
                    struct kiln_kernel_kind out[KILN_KINDS]) {
    for (size_t i = 0; options->device.dynamic && i < KILN_KINDS; i++) {
        set_cost(&out[i], 0); /* compiled when the device is opened */
    }
    if (options->device.dynamic || !options->device.extras) {
        return;
    }
    set_cost(&out[KILN_NORM_BWD], 2);
    set_cost(&out[KILN_CLASSIFY], 1 + kiln_npu_classifier_parts(dims));
    set_cost(&out[KILN_SOFTMAX], kiln_npu_has_softmax(dims));
}

/* Products under way at once: those of two half-layers; of the classifier, blocks of tokens. */
enum { DW_SLOTS = 4, HEAD_SLOTS = 2 };

static size_t gpu_extents(const struct kiln_table *table, const struct kiln_micro_batch *shape,
                          struct kiln_gpu_extent out[KILN_MATRIX_KINDS]) {
    return kiln_gpu_extents(table, shape, KILN_PRECISION_FP16, 0, KILN_PRECISION_FP32, HEAD_SLOTS,
                            out);
}

static struct kiln_dw_shape dw_shape(const struct kiln_dims *d,
                                     const struct kiln_micro_batch *shape, bool gpu) {
    const size_t hk = d->heads * d->head_size, gk = d->kv_heads * d->head_size;
    return (struct kiln_dw_shape){
        .batch = shape->batch,
        .seq = shape->seq,
        .slots = DW_SLOTS,
        .rows = kiln_largest(kiln_largest(2 * d->hidden, d->dim), hk + 2 * gk),
        .cols = kiln_largest(kiln_largest(d->hidden, d->dim), hk),
        .gpu = gpu};
}

static struct kiln_host_options host_options(const struct kiln_device_options *options) {
    return (struct kiln_host_options){
        .shape = options->shape,
        .training = options->training,
        .two_sets = options->two_sets,
        .classify = options->device.extras && !options->device.dynamic,
        .no_head = options->no_head,
    };
}

/* Are there weight gradients to be computed? Beside adapters the weights are frozen. */
static bool queues(const struct kiln_table *table, const struct kiln_device_options *options) {
    return options->training && table->trained == 0;
}

/* Both passes over the same list: base NULL plans the size, then the blocks are cut. */
static size_t lay_out(struct kiln_ane *ane, const struct kiln_table *table,
                      const struct kiln_device_options *options, void *base) {
    const struct kiln_dims *d = &table->dims;
    const size_t w = kiln_npu_width(options->shape.seq), residual = d->dim * w * 2;
    const size_t taps = kiln_largest(kiln_ane_tap_rows(d, 0), kiln_ane_tap_rows(d, 1));
    const bool training = options->training, dynamic = options->device.dynamic;
    size_t used = 0;
#define TAKE(field, bytes)                                       \
    ane->field = base ? (void *)((uintptr_t)base + used) : NULL; \
    used = kiln_arena_reserve(used, (bytes))
    TAKE(dxn, training ? options->shape.batch * residual : 0);
    TAKE(dxn2, training && dynamic ? options->shape.batch * residual : 0);
    TAKE(starts, options->doc_mask ? KILN_NPU_STARTS * w * 2 : 0);
    const bool frozen = training && !queues(table, options);
    const size_t inner = kiln_largest(2 * d->hidden, (d->heads + 2 * d->kv_heads) * d->head_size);
    TAKE(frozen[0].dy, frozen ? options->shape.batch * residual : 0);
    TAKE(frozen[1].dy, frozen ? options->shape.batch * inner * w * 2 : 0);
    TAKE(low, training ? table->lora.rank * w * sizeof(float) : 0);
    TAKE(tap, dynamic ? taps * w * 2 : 0);
    TAKE(dh, dynamic ? kiln_largest(d->hidden, d->heads * d->head_size) * w * 2 : 0);
#undef TAKE
    return used;
}

/* What programs bake in: of a layer forward and backward, and behind the last one. */
static void add_baked(const struct kiln_dims *d, const struct kiln_npu_mode *mode, bool extras,
                      struct kiln_device_sizes *out) {
    for (int kind = KILN_NPU_ATTN_FWD; kind <= KILN_NPU_QKV_BWD; kind++) {
        size_t *sum = kind <= KILN_NPU_FFN_FWD ? &out->baked_forward : &out->baked_backward;
        *sum += kiln_npu_weight_bytes((enum kiln_npu_kind)kind, d, mode, 0);
    }
    if (!extras) {
        return;
    }
    out->baked_backward += kiln_npu_weight_bytes(KILN_NPU_NORM_BWD_ATTN, d, mode, 0) +
                           kiln_npu_weight_bytes(KILN_NPU_NORM_BWD_FFN, d, mode, 0);
    out->baked_head = kiln_npu_weight_bytes(KILN_NPU_FINAL_NORM, d, mode, 0);
    for (size_t part = 0; part < kiln_npu_classifier_parts(d); part++) {
        out->baked_head += kiln_npu_weight_bytes(KILN_NPU_CLASSIFIER, d, mode, part);
    }
}

static struct kiln_npu_mode mode_of(const struct kiln_table *table,
                                    const struct kiln_device_options *options) {
    return (struct kiln_npu_mode){
        .seq = options->shape.seq, .doc_mask = options->doc_mask, .lora = table->lora};
}

static size_t surface_bytes(const struct kiln_table *table,
                            const struct kiln_device_options *options) {
    const struct kiln_dims *d = &table->dims;
    const bool dynamic = options->device.dynamic;
    const int first = dynamic ? KILN_NPU_SDPA_FWD : 0;
    const int end = dynamic                  ? KILN_NPU_KINDS
                    : options->device.extras ? KILN_NPU_SDPA_FWD
                                             : KILN_NPU_NORM_BWD_ATTN;
    const struct kiln_npu_mode mode = mode_of(table, options);
    size_t bytes = 0;
    for (int kind = first; kind < end; kind++) {
        struct kiln_npu_port in, out;
        kiln_npu_ports((enum kiln_npu_kind)kind, d, &mode, 0, &in, &out);
        const size_t n = in.columns ? d->layers : 1;
        const size_t parts = kind == KILN_NPU_CLASSIFIER ? kiln_npu_classifier_parts(d) : 1;
        bytes += n * kiln_largest(in.bytes, KILN_NPU_SURFACE) +
                 parts * kiln_largest(out.bytes, KILN_NPU_SURFACE);
    }
    return bytes;
}

enum kiln_status kiln_ane_sizes(const struct kiln_table *table,
                                const struct kiln_device_options *options,
                                struct kiln_device_sizes *out, struct kiln_err *err) {
    const struct kiln_dims *d = &table->dims;
    const struct kiln_host_options host = host_options(options);
    const struct kiln_dw_shape shape = dw_shape(d, &options->shape, options->device.gpu);
    const bool sim = options->device.id == KILN_SIM;
    const struct kiln_npu_mode mode = mode_of(table, options);
    struct kiln_host_sizes at_host;
    struct kiln_ane none = {.width = 0};
    KILN_TRY(kiln_host_sizes(table, &host, &at_host, err));
    const struct kiln_dw_sizes queue =
        queues(table, options) ? kiln_dw_sizes(&shape) : (struct kiln_dw_sizes){0, 0};
    *out = (struct kiln_device_sizes){
        .head = at_host.head,
        .workspace = at_host.workspace + queue.workspace + lay_out(&none, table, options, NULL) +
                     surface_bytes(table, options),
        .thread = at_host.thread + queue.thread,
    };
    if (options->training && options->device.gpu) {
        struct kiln_gpu_extent extents[KILN_MATRIX_KINDS];
        out->gpu = kiln_gpu_bytes(extents, gpu_extents(table, &options->shape, extents));
    }
    for (int what = KILN_RESIDUAL; what <= KILN_TAPS_FEED_FORWARD; what++) {
        out->activation[what] = activation_bytes(d, &options->shape, (enum kiln_activation)what);
    }
    if (!options->device.dynamic) {
        add_baked(d, &mode, false, out); /* what the simulator makes of them is fp32 */
        out->forward = out->baked_forward * (sim ? 2 : 1);
        out->backward = out->baked_backward * (sim ? 2 : 1);
        out->baked_forward = out->baked_backward = 0;
        add_baked(d, &mode, options->device.extras, out);
    }
    return KILN_OK;
}

/* ---- what is moved through surfaces ------------------------------------------------------------
 */

static struct kiln_moved moved(size_t written, size_t read, size_t columns) {
    return (struct kiln_moved){2 * written * columns, 2 * read * columns};
}

/* Rows of W that one sequence moves, as in baked.c and classify.c. */
static void traffic_baked(const struct kiln_dims *d, const struct kiln_device_options *options,
                          size_t w, size_t columns, struct kiln_device_traffic *out) {
    const bool extras = options->device.extras;
    const size_t starts = options->doc_mask ? KILN_NPU_STARTS : 0;
    const size_t hk = d->heads * d->head_size, gk = d->kv_heads * d->head_size;
    const size_t taps =
        kiln_ane_tap_rows(d, KILN_ATTENTION) + kiln_ane_tap_rows(d, KILN_FEED_FORWARD);
    const size_t qkv = hk + 2 * gk, scores = 2 * d->heads * w;
    const size_t norms = extras ? 2 : 0;
    out->forward = moved(2 * d->dim + starts, 2 * d->dim, columns);
    out->forward_kept = moved(2 * d->dim + starts, 2 * d->dim + taps, columns);
    out->backward = moved(
        starts + d->dim + 2 * d->hidden + 2 * qkv + d->dim + scores + hk + gk + norms * 2 * d->dim,
        d->dim + 2 * d->hidden + gk + scores + hk + gk + d->dim + norms * d->dim, columns);
    if (extras) {
        const bool softmax = kiln_npu_has_softmax(d);
        const size_t gathered = softmax && kiln_npu_classifier_parts(d) > 1 ? d->vocab : 0;
        const size_t read = gathered + d->vocab + (softmax ? d->vocab : 0);
        out->head_evaluate = moved(d->dim + gathered, read, columns);
        out->head = moved(d->dim + gathered, read + d->dim, columns);
    }
}

/* As in dynamic.c. */
static void traffic_dynamic(const struct kiln_dims *d, const struct kiln_device_options *options,
                            size_t w, size_t columns, struct kiln_device_traffic *out) {
    const size_t starts = options->doc_mask ? KILN_NPU_STARTS : 0;
    const size_t hk = d->heads * d->head_size, gk = d->kv_heads * d->head_size;
    const size_t qkv = hk + 2 * gk, scores = 2 * d->heads * w, normed = d->qk_norm ? hk + gk : 0;
    out->forward = moved(starts + 2 * d->dim + hk, hk + 2 * d->dim, columns);
    out->forward_kept =
        moved(starts + 2 * d->dim + hk, hk + qkv + normed + 2 * d->dim + 3 * d->hidden, columns);
    out->backward =
        moved(starts + 2 * d->dim + 2 * d->hidden + qkv + hk + scores + hk + gk + hk + 2 * gk,
              d->hidden + d->dim + hk + gk + scores + hk + gk + 2 * d->dim, columns);
}

/* Adapters are written once a half-layer, with its first sequence. */
static void traffic_adapters(const struct kiln_table *table,
                             const struct kiln_device_options *options,
                             struct kiln_device_traffic *out) {
    const bool dynamic = options->device.dynamic;
    const int first = dynamic ? KILN_NPU_SDPA_FWD : KILN_NPU_ATTN_FWD;
    const int forward = dynamic ? KILN_NPU_FFN_FUSED : KILN_NPU_FFN_FWD;
    const int last = dynamic ? KILN_NPU_KV_BWD : KILN_NPU_QKV_BWD;
    const struct kiln_npu_mode mode = mode_of(table, options);
    for (int kind = first; kind <= last; kind++) {
        struct kiln_npu_port in, unused;
        kiln_npu_ports((enum kiln_npu_kind)kind, &table->dims, &mode, 0, &in, &unused);
        const uint64_t bytes = 2 * kiln_npu_adapter_elements(&in);
        out->forward.written += kind <= forward ? bytes : 0;
        out->forward_kept.written += kind <= forward ? bytes : 0;
        out->backward.written += kind <= forward ? 0 : bytes;
    }
}

void kiln_ane_traffic(const struct kiln_table *table, const struct kiln_device_options *options,
                      struct kiln_device_traffic *out) {
    const struct kiln_dims *d = &table->dims;
    const size_t w = kiln_npu_width(options->shape.seq), columns = options->shape.batch * w;
    *out = (struct kiln_device_traffic){.weights = {0, 0}};
    if (options->device.dynamic) {
        traffic_dynamic(d, options, w, columns, out);
        /* Frozen ones are written once. */
        out->weights.written =
            table->trained > 0 ? 0 : 2 * kiln_ane_staged_elements(table, options->training);
    } else {
        traffic_baked(d, options, w, columns, out);
    }
    traffic_adapters(table, options, out);
}

/* ---- opening -----------------------------------------------------------------------------------
 */

static enum kiln_status open_sim(struct kiln_ane *ane, struct kiln_pool *pool,
                                 const struct kiln_device_options *options, struct kiln_err *err) {
    struct kiln_sim_options sim;
    kiln_sim_options_default(&sim);
    sim.limits.value[KILN_SIM_COMPILE_BUDGET] = options->budget;
    sim.limits.value[KILN_SIM_LOAD_BUDGET] = options->load_budget;
    sim.times.scale = options->device.sim_time;
    if (options->device.times.tflops > 0) {
        sim.times.device = options->device.times;
    }
    if (options->device.sim) {
        KILN_TRY(kiln_sim_options_set(&sim, options->device.sim, err));
    }
    return kiln_sim_open(pool, &sim, &ane->runtime, err);
}

static enum kiln_status open_runtime(struct kiln_ane *ane, struct kiln_pool *pool,
                                     const struct kiln_device_options *options,
                                     struct kiln_err *err) {
    if (options->device.id == KILN_SIM) {
        return open_sim(ane, pool, options, err);
    }
    KILN_REQUIRE(kiln_apple_runtime, err, KILN_EUNSUPPORTED,
                 "device ane: this is no Mac; --device sim runs the same programs on any machine");
    KILN_TRY(kiln_apple_runtime(&ane->runtime, err));
    ane->self_test = ane->runtime->compiles;
    return KILN_OK;
}

static enum kiln_status open_parts(struct kiln_ane *ane, struct kiln_pool *pool,
                                   const struct kiln_device_options *options,
                                   struct kiln_err *err) {
    const struct kiln_table *table = ane->base.table;
    const struct kiln_host_options host = host_options(options);
    const bool gpu = options->training && options->device.gpu;
    const struct kiln_dw_shape shape = dw_shape(&table->dims, &options->shape, gpu);
    KILN_REQUIRE(!ane->dynamic || ane->base.weights.flat, err, KILN_EINTERNAL,
                 "%s: weights on surfaces are staged from fp32, and this is a snapshot in %s",
                 ane->base.caps.name, kiln_precision_name(ane->base.weights.precision));
    KILN_REQUIRE(!ane->extras || kiln_npu_classifier_parts(&table->dims) <= KILN_ANE_PARTS, err,
                 KILN_EUNSUPPORTED,
                 "%s: a vocabulary of %zu takes more than %d classifier programs; use --no-extras",
                 ane->base.caps.name, table->dims.vocab, KILN_ANE_PARTS);
    KILN_TRY(kiln_host_open(&ane->host, table, pool, &ane->base.weights, &host, err));
    if (gpu) {
        struct kiln_gpu_extent extents[KILN_MATRIX_KINDS];
        const size_t n = gpu_extents(table, &options->shape, extents);
        KILN_TRY(kiln_gpu_open(extents, n, &ane->gpu, err));
        ane->host.head.gpu = ane->gpu;
    }
    if (queues(table, options)) {
        KILN_TRY(kiln_dw_open(&shape, pool, ane->gpu, &ane->dw, err));
        kiln_dw_tell(ane->dw, &ane->base);
    }
    KILN_TRY(kiln_arena_open(&ane->arena, lay_out(ane, table, options, NULL), err));
    lay_out(ane, table, options, ane->arena.base);
    ane->stale = kiln_alloc(KILN_NPU_KINDS * table->dims.layers, 1);
    KILN_REQUIRE(ane->stale, err, KILN_ENOMEM, "no memory for the device's lists");
    memset(ane->stale, 1, KILN_NPU_KINDS * table->dims.layers);
    KILN_TRY(open_runtime(ane, pool, options, err));
    KILN_TRY(kiln_ane_open_surfaces(ane, err));
    return ane->dynamic ? kiln_ane_compile_dynamic(ane, err) : KILN_OK;
}

/* Of no other device, in this process or another: a process that replaces itself keeps its id. */
static uint64_t first_serial(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + ((uint64_t)getpid() << 40);
}

enum kiln_status kiln_ane_open(const struct kiln_table *table, struct kiln_pool *pool,
                               const struct kiln_weights *weights,
                               const struct kiln_device_options *options, struct kiln_device **out,
                               struct kiln_err *err) {
    *out = NULL;
    struct kiln_ane *ane = kiln_alloc(1, sizeof *ane);
    KILN_REQUIRE(ane, err, KILN_ENOMEM, "no memory for the device");
    const char *name = kiln_device_name(options->device.id);
    ane->base.ops = &ops;
    ane->base.table = table;
    ane->base.shape = options->shape;
    ane->base.weights = *weights;
    ane->training = options->training;
    ane->dynamic = options->device.dynamic;
    ane->extras = options->device.extras && !ane->dynamic;
    ane->n_sets = options->two_sets ? 2 : 1;
    ane->width = kiln_npu_width(options->shape.seq);
    ane->mode = mode_of(table, options);
    ane->serial = first_serial();
    ane->base.caps = (struct kiln_device_caps){.name = name,
                                               .compile_budget = options->budget,
                                               .load_budget = options->load_budget,
                                               .refreshes = ane->dynamic || table->trained > 0};
    kiln_device_kinds(&table->dims, options, ane->base.caps.kinds);
    const enum kiln_status status = open_parts(ane, pool, options, err);
    if (status != KILN_OK) {
        ane_close(&ane->base);
        return status;
    }
    snprintf(ane->base.caps.description, sizeof ane->base.caps.description,
             "%s; new weights take a compile%s", ane->runtime->description,
             ane->dynamic            ? " nowhere: they are inputs"
             : table->trained > 0    ? " nowhere: adapters are inputs"
             : ane->runtime->reloads ? " only where a patch fails"
                                     : "");
    /* Both runtimes run the same programs on the same host work: what differs is the device. A list
     * of a simulator's faults may be long: then its sum stands for it. */
    const char *sim = options->device.sim ? options->device.sim : "";
    char sum[16];
    if (strlen(sim) > 32) {
        snprintf(sum, sizeof sum, "sim-%08x", kiln_crc32c(0, sim, strlen(sim)));
        sim = sum;
    }
    const int length = snprintf(
        ane->base.caps.numerics, sizeof ane->base.caps.numerics, "%s/fp16/%s/%s/%s/%s%s%s%s%s",
        name, ane->dynamic ? "dynamic" : "baked", ane->extras ? "extras" : "plain",
        ane->host.kernels.tier, ane->host.kernels.provider, ane->gpu ? "/" : "",
        ane->gpu ? kiln_gpu_numerics(ane->gpu) : "", *sim ? "/" : "", sim);
    assert(length > 0 && (size_t)length < sizeof ane->base.caps.numerics);
    (void)length;
    if (ane->gpu) {
        snprintf(ane->base.caps.gpu, sizeof ane->base.caps.gpu, "%s",
                 kiln_gpu_description(ane->gpu));
    }
    *out = &ane->base;
    return KILN_OK;
}
