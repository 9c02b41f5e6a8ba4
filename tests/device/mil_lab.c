/* SPDX-License-Identifier: MIT */
#include "device/mil_lab.h"

#include <string.h>

#include "base/mem.h"
#include "device/mil/blob.h"
#include "device/mil/half.h"

struct shelf {
    const struct mil_file *files;
    size_t n;
    void *made[8];
};

static const void *find_file(void *context, const char *path, size_t *bytes) {
    struct shelf *shelf = context;
    for (size_t i = 0; i < shelf->n; i++) {
        const size_t elements = shelf->files[i].elements;
        if (strcmp(path, shelf->files[i].path) != 0) {
            continue;
        }
        *bytes = kiln_blob_bytes(elements);
        if (shelf->made[i] == NULL) {
            shelf->made[i] = kiln_alloc(*bytes, 1);
            uint16_t *payload = kiln_blob_begin(shelf->made[i], elements);
            for (size_t k = 0; k < elements; k++) {
                payload[k] = kiln_f64_to_f16((double)k);
            }
        }
        return shelf->made[i];
    }
    return NULL;
}

void mil_read(const char *text, const struct mil_file *files, size_t n_files,
              struct kiln_mil_graph *out) {
    struct shelf shelf = {.files = files, .n = n_files};
    struct kiln_err err;
    CHECK(n_files <= sizeof shelf.made / sizeof shelf.made[0]);
    CHECK_OK(kiln_mil_parse("p.mil", text, strlen(text), find_file, &shelf, out, &err), &err);
    for (size_t i = 0; i < n_files; i++) {
        kiln_free(shelf.made[i]);
    }
}

void mil_refused(const char *text, const char *words) {
    struct kiln_mil_graph graph;
    struct kiln_err err;
    CHECK_FAILS(kiln_mil_parse("p.mil", text, strlen(text), NULL, NULL, &graph, &err), KILN_EINPUT,
                &err);
    CHECK_CONTAINS(err.message, words);
    CHECK(graph.memory == NULL);
}

const struct kiln_mil_value *mil_value(const struct kiln_mil_graph *graph, const char *name) {
    for (size_t i = 0; i < graph->n_values; i++) {
        if (strcmp(graph->values[i].name, name) == 0) {
            return &graph->values[i];
        }
    }
    FAIL("no value %s", name);
    return NULL;
}
