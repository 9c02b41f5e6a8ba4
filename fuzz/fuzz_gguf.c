/* SPDX-License-Identifier: MIT
 *
 * fuzz_gguf.c: any bytes as a GGUF file: the container, and what its keys say of a model. Every
 * value and every tensor's ends are read; the address sanitizer watches.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/gguf_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t read_all(const struct kiln_gguf *gguf) {
    size_t sum = 0;
    for (size_t i = 0; i < gguf->n_pairs; i++) {
        const struct kiln_gguf_pair *pair = &gguf->pairs[i];
        for (size_t e = 0; e < pair->n; e++) {
            int64_t integer;
            if (pair->strings != NULL) {
                sum += pair->strings[e].size > 0 ? (unsigned char)pair->strings[e].data[0] : 0;
            } else {
                sum += kiln_gguf_real_at(pair, e) > 0;
                sum += kiln_gguf_integer_at(pair, e, &integer);
            }
        }
    }
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        const unsigned char *at = kiln_gguf_data(gguf, &gguf->tensors[i]);
        sum += at[0] + at[gguf->tensors[i].bytes - 1];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    unsigned char *copy = kiln_alloc(size, 1); /* whose end the sanitizer knows */
    if (copy == NULL) {
        return 0;
    }
    memcpy(copy, data, size);
    const struct kiln_map map = {.data = copy, .size = size};
    struct kiln_gguf *gguf;
    struct kiln_err err;
    if (kiln_gguf_open_map(&map, "fuzz", &gguf, &err) == KILN_OK) {
        struct kiln_dims dims;
        if (read_all(gguf) == (size_t)-1 ||
            (kiln_gguf_dims(gguf, &dims, &err) == KILN_OK && kiln_dims_check(&dims, &err))) {
            abort(); /* dims that were read make a model */
        }
        kiln_gguf_close(gguf);
    }
    kiln_free(copy);
    return 0;
}
