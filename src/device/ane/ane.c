/* SPDX-License-Identifier: MIT */
#include "device/ane/ane.h"

#ifdef __APPLE__
#include "device/ane/apple.h"
kiln_npu_runtime_open_fn *kiln_apple_runtime = kiln_apple_open;
#else
kiln_npu_runtime_open_fn *kiln_apple_runtime;
#endif

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
    return kiln_device_sizes(table, &cpu, out, err);
}

void kiln_ane_kinds(const struct kiln_table *table, const struct kiln_device_options *options,
                    struct kiln_kernel_kind out[KILN_KINDS]) {
    (void)table;
    (void)options;
    (void)out;
}
