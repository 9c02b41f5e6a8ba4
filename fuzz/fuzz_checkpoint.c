/* SPDX-License-Identifier: MIT
 *
 * fuzz_checkpoint.c: any bytes as a model file. Opening must fail or give dims that a table can be
 * made of and that load; the address sanitizer watches.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "kiln/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void load(const struct kiln_checkpoint *checkpoint) {
    struct kiln_table *table;
    if (kiln_table_create(kiln_checkpoint_dims(checkpoint), &table, NULL) != KILN_OK) {
        abort(); /* a file that opens has dims that make a model */
    }
    float *weights = kiln_alloc(table->size, sizeof *weights);
    struct kiln_err err;
    if (weights != NULL && kiln_checkpoint_load(checkpoint, table, weights, &err) == KILN_EUSAGE) {
        abort();
    }
    kiln_free(weights);
    kiln_table_destroy(table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int fd = memfd_create("model", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
        abort();
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct kiln_checkpoint *checkpoint;
    struct kiln_err err;
    if (kiln_checkpoint_open(path, &checkpoint, &err) == KILN_OK) {
        load(checkpoint);
        kiln_checkpoint_close(checkpoint);
    }
    close(fd);
    return 0;
}
