/* SPDX-License-Identifier: MIT
 *
 * device.c: the devices that there are, by name.
 */
#include "device/device.h"

#include <string.h>

#include "base/machine.h"
#include "device/ane/ane.h"
#include "device/ane/programs.h"
#include "device/cpu/cpu.h"
#include "device/sim/sim.h"

static const char *const names[] = {[KILN_CPU] = "cpu", [KILN_SIM] = "sim", [KILN_ANE] = "ane"};

const char *kiln_device_name(enum kiln_device_id id) { return names[id]; }

enum kiln_status kiln_device_parse(const char *name, enum kiln_device_id *out,
                                   struct kiln_err *err) {
    for (int i = KILN_CPU; i <= KILN_ANE; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum kiln_device_id)i;
            return KILN_OK;
        }
    }
    return KILN_FAIL(err, KILN_EUSAGE, "device %s: unknown; use cpu, sim or ane", name);
}

enum kiln_status kiln_device_precision(enum kiln_device_id id, enum kiln_precision asked,
                                       enum kiln_precision *out, struct kiln_err *err) {
    const bool fp16 = asked == KILN_PRECISION_FP16;
    if (id == KILN_CPU) {
        KILN_REQUIRE(!fp16, err, KILN_EUSAGE,
                     "--precision fp16: --device cpu computes in fp32 or bf16; use auto, fp32 or "
                     "bf16");
        *out = asked;
        return KILN_OK;
    }
    KILN_REQUIRE(fp16 || asked == KILN_PRECISION_AUTO, err, KILN_EUSAGE,
                 "--precision %s: --device %s computes in fp16; use auto or fp16",
                 kiln_precision_name(asked), names[id]);
    *out = KILN_PRECISION_FP16;
    return KILN_OK;
}

static const struct kiln_kernel_kind layer_kinds[KILN_KINDS] = {
    [KILN_ATTN_FWD] = {"attn_fwd", KILN_FORWARD, true, true, 1, 1},
    [KILN_FFN_FWD] = {"ffn_fwd", KILN_FORWARD, true, true, 1, 1},
    [KILN_FFN_BWD] = {"ffn_bwd", KILN_BACKWARD, true, true, 1, 1},
    [KILN_ATTN_BWD1] = {"attn_bwd1", KILN_BACKWARD, true, true, 1, 1},
    [KILN_QKV_BWD] = {"qkv_bwd", KILN_BACKWARD, true, true, 1, 1},
    [KILN_NORM_BWD] = {"norm_bwd", KILN_BACKWARD, true, true, 0, 0},
    [KILN_ATTN_BWD2] = {"attn_bwd2", KILN_BACKWARD, false, false, 1, 1},
    [KILN_CLASSIFY] = {"classify", KILN_FORWARD, true, false, 0, 0},
    [KILN_SOFTMAX] = {"softmax", KILN_FORWARD, false, false, 0, 0},
};

void kiln_device_kinds(const struct kiln_dims *dims, const struct kiln_device_options *options,
                       struct kiln_kernel_kind out[KILN_KINDS]) {
    memcpy(out, layer_kinds, sizeof layer_kinds);
    if (options->device.id != KILN_CPU) {
        kiln_ane_kinds(dims, options, out);
    }
    if (options->no_head) {
        out[KILN_CLASSIFY].compiles = out[KILN_CLASSIFY].loads = 0;
        out[KILN_SOFTMAX].compiles = out[KILN_SOFTMAX].loads = 0;
    }
}

size_t kiln_device_programs(const struct kiln_device_options *options) {
    return options->device.id == KILN_CPU ? 0 : kiln_ane_programs(&options->device);
}

enum kiln_status kiln_device_check(const struct kiln_device_choice *device, struct kiln_err *err) {
    struct kiln_sim_options options;
    kiln_sim_options_default(&options);
    KILN_REQUIRE(
        !device->sim ||
            (!strstr(device->sim, "compile-budget=") && !strstr(device->sim, "load-budget=")),
        err, KILN_EUSAGE,
        "--sim %s: budgets are planned for; set them with --budget and --load-budget", device->sim);
    return device->sim ? kiln_sim_options_set(&options, device->sim, err) : KILN_OK;
}

void kiln_device_span(const struct kiln_device *device, enum kiln_span_kind kind, const char *name,
                      size_t layer, double start) {
    const struct kiln_span span = {.start = start,
                                   .end = kiln_now_s(),
                                   .kind = kind,
                                   .name = name,
                                   .layer = layer == KILN_NO_LAYER ? -1 : (int32_t)layer,
                                   .micro_batch = -1,
                                   .generation = -1};
    kiln_spans_add(device->spans, &span);
}

void kiln_device_traffic(const struct kiln_table *table, const struct kiln_device_options *options,
                         struct kiln_device_traffic *out) {
    *out = (struct kiln_device_traffic){.weights = {0, 0}};
    if (options->device.id != KILN_CPU) {
        kiln_ane_traffic(table, options, out);
    }
    if (options->no_head) {
        out->head = out->head_evaluate = (struct kiln_moved){0, 0};
    }
}

enum kiln_status kiln_device_open(const struct kiln_table *table, struct kiln_pool *pool,
                                  const struct kiln_weights *weights,
                                  const struct kiln_device_options *options,
                                  struct kiln_device **out, struct kiln_err *err) {
    if (options->device.id == KILN_CPU) {
        return kiln_cpu_open(table, pool, weights, options, out, err);
    }
    return kiln_ane_open(table, pool, weights, options, out, err);
}

enum kiln_status kiln_device_sizes(const struct kiln_table *table,
                                   const struct kiln_device_options *options,
                                   struct kiln_device_sizes *out, struct kiln_err *err) {
    KILN_TRY(options->device.id == KILN_CPU ? kiln_cpu_sizes(table, options, out, err)
                                            : kiln_ane_sizes(table, options, out, err));
    if (options->no_head) {
        out->head = out->baked_head = 0;
    }
    return KILN_OK;
}
