/* SPDX-License-Identifier: MIT */
#include "device/device.h"

const struct kiln_kernel_kind kiln_layer_kinds[KILN_LAYER_KINDS] = {
    [KILN_ATTN_FWD] = {"attn_fwd", KILN_FORWARD, true, true, 1, 1},
    [KILN_FFN_FWD] = {"ffn_fwd", KILN_FORWARD, true, true, 1, 1},
    [KILN_FFN_BWD] = {"ffn_bwd", KILN_BACKWARD, true, true, 1, 1},
    [KILN_ATTN_BWD1] = {"attn_bwd1", KILN_BACKWARD, true, true, 1, 1},
    [KILN_QKV_BWD] = {"qkv_bwd", KILN_BACKWARD, true, true, 1, 1},
    [KILN_ATTN_BWD2] = {"attn_bwd2", KILN_BACKWARD, false, false, 1, 1},
};
