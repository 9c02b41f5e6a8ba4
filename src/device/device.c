/* SPDX-License-Identifier: MIT */
#include "device/device.h"

enum kiln_status kiln_device_compile_all(struct kiln_device *device, struct kiln_err *err) {
    size_t layers = device->table->dims.layers;
    for (size_t kind = 0; kind < device->caps.n_kinds; kind++) {
        size_t n = device->caps.kinds[kind].per_layer ? layers : 1;
        for (size_t layer = 0; layer < n; layer++) {
            KILN_TRY(device->ops->compile(device, kind, layer, device->weights, err));
        }
    }
    return KILN_OK;
}
