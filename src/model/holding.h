/* SPDX-License-Identifier: MIT
 *
 * holding.h: which of several ranks holds the weights and moments of which parameters.
 *
 * Optimizer states that are spread over ranks (ZeRO stage 1, Rajbhandari et al. 2020,
 * arXiv:1910.02054): each rank updates the parameters that it holds. Parameters lie in parts: in
 * front of the layers, each layer, behind them (model/table.h). Each part is cut into one run of
 * whole pieces (pieces.h) for each rank, of about as many parameters, so that what travels of a
 * layer is alike for all. The cut depends on the table and the number of ranks alone.
 */
#ifndef KILN_MODEL_HOLDING_H
#define KILN_MODEL_HOLDING_H

#include "base/range.h"
#include "kiln/status.h"
#include "model/pieces.h"

struct kiln_holding {
    const struct kiln_table *table; /* borrowed */
    size_t ranks, parts;            /* layers + 2 */
    struct kiln_piece *pieces;
    size_t n_pieces, n_chunks;
    size_t *first;             /* [parts * ranks + 1] first piece of a part that a rank holds: those
                                * of part p, rank q are first[p * ranks + q] up to the next */
    uint32_t *holder;          /* [n_pieces] the rank */
    struct kiln_range *floats; /* [parts * ranks] the same among what is trained: gradients, m, v */
};

/* KILN_ENOMEM. */
KILN_MUST_CHECK enum kiln_status kiln_holding_open(const struct kiln_table *table, size_t ranks,
                                                   struct kiln_holding *out, struct kiln_err *err);
/* One that is zero, or was not opened, is fine. */
void kiln_holding_close(struct kiln_holding *holding);

/* The part that `layer` is (KILN_NO_LAYER: in front of the layers; their number: behind them). */
static inline size_t kiln_holding_part(size_t layer) {
    return layer == KILN_NO_LAYER ? 0 : layer + 1;
}
/* What the rank holds of a part, one range of each kind. */
struct kiln_held {
    struct kiln_range pieces, chunks;
    struct kiln_range weights; /* elements of the flat array */
    struct kiln_range trained; /* the same, counted among what is trained */
};
struct kiln_held kiln_holding_of(const struct kiln_holding *holding, size_t part, size_t rank);
/* Parameters that a rank holds. */
size_t kiln_holding_size(const struct kiln_holding *holding, size_t rank);

#endif
