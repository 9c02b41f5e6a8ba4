/* SPDX-License-Identifier: MIT */
#include "device/ane/ane.h"

#include "device/ane/programs.h"

kiln_npu_runtime_open_fn *kiln_apple_runtime;

enum kiln_status kiln_ane_open(const struct kiln_table *table, struct kiln_pool *pool,
                               const float *weights, const struct kiln_device_options *options,
                               struct kiln_device **out, struct kiln_err *err) {
    (void)table;
    (void)pool;
    (void)weights;
    (void)options;
    *out = NULL;
    return KILN_FAIL(err, KILN_EUNSUPPORTED, "device %s: not here yet",
                     kiln_device_name(options->device.id));
}

enum kiln_status kiln_ane_sizes(const struct kiln_table *table,
                                const struct kiln_device_options *options,
                                struct kiln_device_sizes *out, struct kiln_err *err) {
    struct kiln_device_options cpu = *options;
    cpu.device.id = KILN_CPU;
    cpu.precision = KILN_PRECISION_BF16; /* operands of two bytes, too */
    return kiln_device_sizes(table, &cpu, out, err);
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

void kiln_ane_traffic(const struct kiln_table *table, const struct kiln_device_options *options,
                      struct kiln_device_traffic *out) {
    (void)table;
    (void)options;
    *out = (struct kiln_device_traffic){.weights = {0, 0}};
}
