/* SPDX-License-Identifier: MIT
 *
 * fuzz_sentencepiece.c: any bytes as a SentencePiece .model; see fuzz_tokenizer_json.c.
 */
#include "fuzz_tokenizers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_tokenizer(data, size, "tokenizer.model");
    return 0;
}
