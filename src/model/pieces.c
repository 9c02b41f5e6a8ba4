/* SPDX-License-Identifier: MIT */
#include "model/pieces.h"

struct cutter {
    struct kiln_piece *out; /* NULL: count */
    size_t n, chunks;
};

/* Rows of one matrix or tensor; `piece` holds what its pieces have in common. */
static void cut(struct cutter *c, struct kiln_piece piece, size_t rows, size_t cols) {
    size_t offset = piece.offset;
    for (size_t first = 0; first < rows; first += KILN_PIECE_ROWS) {
        piece.rows = rows - first < KILN_PIECE_ROWS ? rows - first : KILN_PIECE_ROWS;
        piece.first = first;
        piece.offset = offset + first * cols;
        piece.n = piece.rows * cols;
        piece.chunk = c->chunks;
        if (c->out) {
            c->out[c->n] = piece;
        }
        c->n++;
        c->chunks += (piece.n + KILN_CHUNK - 1) / KILN_CHUNK;
    }
}

size_t kiln_pieces(const struct kiln_table *table, struct kiln_piece *out, size_t *chunks) {
    struct cutter c = {.out = out};
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        if (t->offset < table->trained) {
            continue;
        }
        if (t->matrix == KILN_NO_MATRIX) {
            cut(&c,
                (struct kiln_piece){
                    .offset = t->offset, .matrix = KILN_NO_MATRIX, .decay = t->rank == 2},
                t->rows, t->cols);
        } else if (table->matrices[t->matrix].first_tensor == i) {
            const struct kiln_matrix *m = &table->matrices[t->matrix];
            const bool tied = m->kind == KILN_MATRIX_HEAD && table->dims.tied;
            cut(&c,
                (struct kiln_piece){.offset = m->offset,
                                    .matrix = t->matrix,
                                    .decay = true,
                                    .adds_embedding = tied},
                m->rows, m->cols);
        }
    }
    if (chunks) {
        *chunks = c.chunks;
    }
    return c.n;
}
