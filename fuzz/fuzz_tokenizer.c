/* SPDX-License-Identifier: MIT
 *
 * fuzz_tokenizer.c: any bytes as tokenizer.bin; what opens encodes and decodes any text, too, and
 * gives every byte back that it has a piece for.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kiln/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *write_file(const uint8_t *data, size_t size) {
    static char path[64];
    (void)snprintf(path, sizeof path, "/tmp/kiln-fuzz-tokenizer-%ld", (long)getpid());
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
        __builtin_trap();
    }
    return path;
}

static void encode_and_decode(const struct kiln_tokenizer *tok, const char *text, size_t size) {
    struct kiln_ids ids = {0};
    if (kiln_tokenizer_encode(tok, text, size, true, &ids, NULL) != KILN_OK) {
        __builtin_trap();
    }
    volatile char last;
    for (size_t i = 1; i < ids.n; i++) {
        size_t n;
        const char *bytes = kiln_tokenizer_decode(tok, ids.id[i - 1], ids.id[i], &n);
        if (ids.id[i] >= kiln_tokenizer_vocab(tok)) {
            __builtin_trap();
        }
        last = n > 0 ? bytes[n - 1] : ' ';
    }
    (void)last;
    kiln_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct kiln_tokenizer *tok;
    const char *path = write_file(data, size);
    if (kiln_tokenizer_open(path, &tok, NULL) == KILN_OK) {
        encode_and_decode(tok, "Once upon a time \xC3\xBC\xFF", 20);
        encode_and_decode(tok, (const char *)data, size);
        kiln_tokenizer_destroy(tok);
    }
    (void)unlink(path);
    return 0;
}
