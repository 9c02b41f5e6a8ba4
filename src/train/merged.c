/* SPDX-License-Identifier: MIT */
#include "train/merged.h"

#include <string.h>

#include "base/mem.h"

enum kiln_status kiln_merged_make(const struct kiln_table *table, const float *weights,
                                  struct kiln_merged *out, struct kiln_err *err) {
    *out = (struct kiln_merged){.table = table, .weights = weights};
    if (table->trained == 0) {
        return KILN_OK;
    }
    enum kiln_status status = kiln_table_create(&table->dims, &out->own_table, err);
    if (status == KILN_OK) {
        out->own_weights = kiln_alloc(table->size, sizeof *weights);
        status = out->own_weights
                     ? KILN_OK
                     : KILN_FAIL(err, KILN_ENOMEM, "no memory for %zu weights with their adapters",
                                 table->size);
    }
    if (status != KILN_OK) {
        kiln_merged_free(out);
        return status;
    }
    memcpy(out->own_weights, weights, table->size * sizeof *weights);
    kiln_lora_merge(table, out->own_weights);
    out->table = out->own_table;
    out->weights = out->own_weights;
    return KILN_OK;
}

void kiln_merged_free(struct kiln_merged *merged) {
    kiln_table_destroy(merged->own_table);
    kiln_free(merged->own_weights);
    *merged = (struct kiln_merged){.table = NULL};
}
