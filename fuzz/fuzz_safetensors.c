/* SPDX-License-Identifier: MIT
 *
 * fuzz_safetensors.c: any bytes as a safetensors file. What opens has tensors inside the file.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const int fd = memfd_create("weights", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
        abort();
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct kiln_safetensors file;
    struct kiln_err err;
    if (kiln_safetensors_open(&file, path, &err) == KILN_OK) {
        size_t end = file.data;
        for (size_t i = 0; i < file.n; i++) {
            if (file.data + file.tensors[i].begin != end) {
                abort(); /* neither holes nor overlaps */
            }
            end = file.data + file.tensors[i].end;
        }
        if (end != file.map.size) {
            abort();
        }
        kiln_safetensors_close(&file);
    }
    close(fd);
    return 0;
}
