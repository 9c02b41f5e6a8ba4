/* SPDX-License-Identifier: MIT
 *
 * fuzz_mil.c: any text as a MIL program and any bytes as its weight files, through the parser, the
 * limits and the blob reader. The input is the text, then a zero, then one file that stands for
 * every name.
 */
#include <stdlib.h>
#include <string.h>

#include "device/mil/blob.h"
#include "device/sim/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct file {
    const void *data;
    size_t bytes;
};

static const void *find_file(void *context, const char *path, size_t *bytes) {
    const struct file *file = context;
    (void)path;
    *bytes = file->bytes;
    return file->data;
}

static void read_blob(const struct file *file, uint64_t offset) {
    struct kiln_blob blob;
    if (kiln_blob_read("fuzz", file->data, file->bytes, offset, &blob, NULL) != KILN_OK) {
        return;
    }
    unsigned char sum = 0;
    for (uint64_t i = 0; i < blob.bytes; i++) {
        sum ^= ((const unsigned char *)blob.payload)[i];
    }
    volatile unsigned char keep = sum;
    (void)keep;
}

/* Every value is where and what it says. */
static void look(const struct kiln_mil_graph *graph) {
    for (size_t i = 0; i < graph->n_values; i++) {
        const struct kiln_mil_value *v = &graph->values[i];
        const size_t n = kiln_mil_elements(&v->type);
        if (v->type.rank > KILN_MIL_RANK || n == 0 ||
            (v->node != SIZE_MAX && v->node >= graph->n_nodes) ||
            (v->constant && v->data == NULL && v->string == NULL)) {
            abort();
        }
        volatile float last = v->data != NULL ? v->data[n - 1] : 0.0F;
        (void)last;
    }
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const struct kiln_mil_node *node = &graph->nodes[i];
        for (size_t k = 0; k < node->n_in; k++) {
            const size_t in = node->in[k];
            if (in != SIZE_MAX && (in >= graph->n_values || (graph->values[in].node != SIZE_MAX &&
                                                             graph->values[in].node >= i))) {
                abort(); /* read before it is computed */
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *zero = size > 0 ? memchr(data, 0, size) : NULL;
    const size_t text = zero != NULL ? (size_t)(zero - data) : size;
    struct file file = {.data = zero != NULL ? zero + 1 : NULL,
                        .bytes = zero != NULL ? size - text - 1 : 0};
    struct kiln_mil_graph graph;
    struct kiln_sim_limits limits;
    struct kiln_err err;
    kiln_sim_limits_default(&limits);
    if (file.data != NULL) {
        read_blob(&file, KILN_BLOB_FIRST);
        read_blob(&file, size);
    }
    if (kiln_mil_parse("fuzz", (const char *)data, text, find_file, &file, &graph, &err) ==
        KILN_OK) {
        look(&graph);
        for (size_t all = 0; all < 2; all++) { /* off, and whatever is there on */
            (void)!kiln_sim_check(&graph, "fuzz", &limits, NULL, &err);
            memset(&limits, 0, sizeof limits);
        }
        for (size_t i = 0; i < KILN_SIM_LIMIT_COUNT; i++) {
            limits.value[i] = 1;
            (void)!kiln_sim_check(&graph, "fuzz", &limits, NULL, &err);
            limits.value[i] = 0;
        }
        kiln_mil_close(&graph);
    } else if (graph.memory != NULL || err.message[0] == '\0') {
        abort();
    }
    return 0;
}
