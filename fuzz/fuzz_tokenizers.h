/* SPDX-License-Identifier: MIT
 *
 * fuzz_tokenizers.h: what every fuzz target of a tokenizer's file does with it.
 */
#ifndef KILN_FUZZ_TOKENIZERS_H
#define KILN_FUZZ_TOKENIZERS_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kiln/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_text(const struct kiln_tokenizer *tok, const char *text, size_t size) {
    struct kiln_ids ids = {0};
    /* a pattern may run out of its limits; nothing else may fail */
    (void)!kiln_tokenizer_encode(tok, text, size, true, &ids, NULL);
    volatile char last = ' ';
    for (size_t i = 0; i < ids.n; i++) {
        size_t n;
        uint32_t before = i > 0 ? ids.id[i - 1] : KILN_NO_ID;
        const char *bytes = kiln_tokenizer_decode(tok, before, ids.id[i], &n);
        if (ids.id[i] >= kiln_tokenizer_vocab(tok)) {
            __builtin_trap();
        }
        last = n > 0 ? bytes[n - 1] : last;
    }
    (void)last;
    kiln_ids_free(&ids);
}

static void fuzz_saved(const struct kiln_tokenizer *tok, const char *path) {
    struct kiln_tokenizer *again = NULL;
    struct kiln_err err;
    enum kiln_status saved = kiln_tokenizer_save(tok, path, &err);
    if (saved == KILN_OK && kiln_tokenizer_open(path, &again, &err) != KILN_OK) {
        fprintf(stderr, "%s\n", err.message);
        __builtin_trap();
    }
    kiln_tokenizer_destroy(again);
    (void)unlink(path);
}

/* Write the bytes to a file of that name, in a folder of this process, and use it. */
static void fuzz_tokenizer(const uint8_t *data, size_t size, const char *name) {
    char path[128], again[128];
    struct kiln_tokenizer *tok;
    (void)snprintf(path, sizeof path, "/tmp/kiln-fuzz-%ld-%s", (long)getpid(), name);
    (void)snprintf(again, sizeof again, "/tmp/kiln-fuzz-%ld-again.json", (long)getpid());
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
        __builtin_trap();
    }
    if (kiln_tokenizer_open(path, &tok, NULL) == KILN_OK) {
        static const char text[] = " Once upon a time,  it's \xC3\xBC\xFF\xE2\x96\x81 12345\n\n<s>";
        fuzz_text(tok, text, sizeof text - 1);
        fuzz_text(tok, (const char *)data, size);
        fuzz_saved(tok, again);
        kiln_tokenizer_destroy(tok);
    }
    (void)unlink(path);
}

#endif
