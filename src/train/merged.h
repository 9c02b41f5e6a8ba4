/* SPDX-License-Identifier: MIT
 *
 * merged.h: the model that a run makes: the weights themselves, or where it trains adapters a copy
 * with these added (kiln_lora_merge).
 */
#ifndef KILN_TRAIN_MERGED_H
#define KILN_TRAIN_MERGED_H

#include "kiln/model.h"

struct kiln_merged {
    const struct kiln_table *table; /* without adapters */
    const float *weights;
    struct kiln_table *own_table; /* of a copy; NULL: all is borrowed */
    float *own_weights;
};

/* Of a table and its flat array, which are borrowed until kiln_merged_free. KILN_ENOMEM: there is
 * no room for the copy. */
KILN_MUST_CHECK enum kiln_status kiln_merged_make(const struct kiln_table *table,
                                                  const float *weights, struct kiln_merged *out,
                                                  struct kiln_err *err);
void kiln_merged_free(struct kiln_merged *merged);

#endif
