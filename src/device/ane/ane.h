/* SPDX-License-Identifier: MIT
 *
 * ane.h: the device that trains through MIL programs, on Apple's runtime or on the simulator.
 */
#ifndef KILN_DEVICE_ANE_ANE_H
#define KILN_DEVICE_ANE_ANE_H

#include "device/ane/runtime.h"
#include "device/device.h"

KILN_MUST_CHECK enum kiln_status kiln_ane_open(const struct kiln_table *table,
                                               struct kiln_pool *pool,
                                               const struct kiln_weights *weights,
                                               const struct kiln_device_options *options,
                                               struct kiln_device **out, struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_ane_sizes(const struct kiln_table *table,
                                                const struct kiln_device_options *options,
                                                struct kiln_device_sizes *out,
                                                struct kiln_err *err);
/* Programs that are compiled when the device is opened. */
size_t kiln_ane_programs(const struct kiln_device_choice *device);
void kiln_ane_kinds(const struct kiln_dims *dims, const struct kiln_device_options *options,
                    struct kiln_kernel_kind out[KILN_KINDS]);
void kiln_ane_traffic(const struct kiln_table *table, const struct kiln_device_options *options,
                      struct kiln_device_traffic *out);

/* Opens Apple's runtime. NULL where there is none: not a Mac. Tests on Linux set it to one that is
 * backed by fakes. */
typedef enum kiln_status kiln_npu_runtime_open_fn(struct kiln_npu_runtime **out,
                                                  struct kiln_err *err);
extern kiln_npu_runtime_open_fn *kiln_apple_runtime;

#endif
