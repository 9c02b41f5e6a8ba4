/* SPDX-License-Identifier: MIT
 *
 * fuzz_tokenizer_json.c: any bytes as tokenizer.json; what opens encodes and decodes any text, too,
 * and what is saved of it opens again.
 */
#include "fuzz_tokenizers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_tokenizer(data, size, "tokenizer.json");
    return 0;
}
