/* SPDX-License-Identifier: MIT
 *
 * table.h: what the files of this room share beyond kiln/model.h.
 */
#ifndef KILN_MODEL_TABLE_H
#define KILN_MODEL_TABLE_H

#include "kiln/model.h"

/* Set the elements between tensors to 0, so that equal weights are equal bytes. */
void kiln_table_clear_gaps(const struct kiln_table *table, float *weights);

#endif
