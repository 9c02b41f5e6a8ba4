/* SPDX-License-Identifier: MIT
 *
 * fuzz_tokens.c: any bytes as a token file; what opens is read to its end in windows.
 */
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "kiln/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SEQ = 4, VOCAB = 300 };

static const char *write_file(const uint8_t *data, size_t size) {
    static char path[64];
    (void)snprintf(path, sizeof path, "/tmp/kiln-fuzz-tokens-%ld", (long)getpid());
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
        __builtin_trap();
    }
    return path;
}

static void check_ids(const uint32_t *ids) {
    for (int i = 0; i < SEQ; i++) {
        if (ids[i] >= VOCAB) {
            __builtin_trap();
        }
    }
}

static void read_all(const struct kiln_data *data) {
    uint32_t inputs[SEQ], targets[SEQ];
    for (size_t i = 0; i < 2 * kiln_data_windows(data, KILN_TRAIN); i++) {
        kiln_data_train(data, i, inputs, targets);
        check_ids(inputs);
        check_ids(targets);
    }
    for (size_t i = 0; i < kiln_data_windows(data, KILN_VALIDATION); i++) {
        kiln_data_window(data, KILN_VALIDATION, i, inputs, targets);
        check_ids(inputs);
        check_ids(targets);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct kiln_token_file *file;
    struct kiln_data *order;
    const char *path = write_file(data, size);
    if (kiln_token_file_open(path, VOCAB, &file, NULL) == KILN_OK) {
        if (kiln_data_create(file, SEQ, 1, 0.3, &order, NULL) == KILN_OK) {
            read_all(order);
            kiln_data_destroy(order);
        } else {
            kiln_token_file_close(file);
        }
    }
    (void)unlink(path);
    return 0;
}
