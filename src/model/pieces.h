/* SPDX-License-Identifier: MIT
 *
 * pieces.h: the parameters that are trained, cut into pieces of work and chunks of undo.
 *
 * A piece is up to 64 rows of a matrix, or of a tensor that is no matrix: contiguous, and what a
 * device packs at a time. A chunk is up to 2048 parameters of a piece: what an update changes as
 * one. Both depend on the table alone, in the order of its parameters, so sums over them have one
 * order, and a layer's pieces lie side by side.
 */
#ifndef KILN_MODEL_PIECES_H
#define KILN_MODEL_PIECES_H

#include "kiln/model.h"

enum { KILN_PIECE_ROWS = 64, KILN_CHUNK = 2048 };

struct kiln_piece {
    size_t offset, n;     /* elements of the flat array */
    size_t matrix, first; /* rows of it; KILN_NO_MATRIX when none */
    size_t rows;
    size_t chunk;        /* number of its first chunk, over all pieces */
    bool decay;          /* of rank 2 */
    bool adds_embedding; /* tied: the lookup's gradient E is added to this piece's */
};

/* Fill `out` with all pieces in order; return their number. out NULL only counts. *chunks, when
 * not NULL, gets the number of chunks. */
size_t kiln_pieces(const struct kiln_table *table, struct kiln_piece *out, size_t *chunks);

#endif
