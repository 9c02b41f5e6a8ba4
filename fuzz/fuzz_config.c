/* SPDX-License-Identifier: MIT
 *
 * fuzz_config.c: any bytes as a config.json. What is read makes a model.
 */
#include <stdlib.h>

#include "model/hf_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct kiln_dims dims;
    struct kiln_err err;
    if (kiln_hf_config_parse("config.json", (const char *)data, size, &dims, &err) == KILN_OK &&
        kiln_dims_check(&dims, &err) != KILN_OK) {
        abort();
    }
    return 0;
}
