/* SPDX-License-Identifier: MIT */
#include "model/holding.h"

#include <string.h>

#include "base/mem.h"
#include "model/table.h"

/* Pieces of a part go to the rank in whose equal share their middle lies. */
static void cut_part(struct kiln_holding *h, size_t part, size_t begin, size_t end) {
    size_t all = 0, before = 0;
    for (size_t i = begin; i < end; i++) {
        all += h->pieces[i].n;
    }
    for (size_t i = begin; i < end; i++) {
        const size_t middle = 2 * before + h->pieces[i].n; /* twice that */
        h->holder[i] = (uint32_t)(middle * h->ranks / (2 * all));
        before += h->pieces[i].n;
    }
    size_t at = begin;
    for (size_t q = 0; q < h->ranks; q++) {
        h->first[part * h->ranks + q] = at;
        while (at < end && h->holder[at] == q) {
            at++;
        }
    }
}

static void cut(struct kiln_holding *h) {
    const struct kiln_table *table = h->table;
    size_t at = 0;
    for (size_t part = 0; part < h->parts; part++) {
        size_t first, end = at;
        const size_t layer = part == 0 ? KILN_NO_LAYER : part - 1;
        const size_t n = kiln_trained_part(table, layer, &first);
        while (end < h->n_pieces && kiln_trained_at(table, h->pieces[end].offset) < first + n) {
            end++;
        }
        cut_part(h, part, at, end);
        at = end;
    }
    h->first[h->parts * h->ranks] = h->n_pieces;
    for (size_t part = 0; part < h->parts; part++) {
        for (size_t q = 0; q < h->ranks; q++) {
            h->floats[part * h->ranks + q] = kiln_holding_of(h, part, q).trained;
        }
    }
}

enum kiln_status kiln_holding_open(const struct kiln_table *table, size_t ranks,
                                   struct kiln_holding *out, struct kiln_err *err) {
    *out = (struct kiln_holding){.table = table, .ranks = ranks, .parts = table->dims.layers + 2};
    out->n_pieces = kiln_pieces(table, NULL, &out->n_chunks);
    out->pieces = kiln_alloc(out->n_pieces, sizeof *out->pieces);
    out->holder = kiln_alloc(out->n_pieces, sizeof *out->holder);
    out->first = kiln_alloc(out->parts * ranks + 1, sizeof *out->first);
    out->floats = kiln_alloc(out->parts * ranks, sizeof *out->floats);
    if (!out->pieces || !out->holder || !out->first || !out->floats) {
        kiln_holding_close(out);
        return KILN_FAIL(err, KILN_ENOMEM, "no memory to cut %zu layers for %zu ranks",
                         table->dims.layers, ranks);
    }
    kiln_pieces(table, out->pieces, NULL);
    cut(out);
    return KILN_OK;
}

void kiln_holding_close(struct kiln_holding *h) {
    kiln_free(h->pieces);
    kiln_free(h->holder);
    kiln_free(h->first);
    kiln_free(h->floats);
    *h = (struct kiln_holding){0};
}

struct kiln_held kiln_holding_of(const struct kiln_holding *h, size_t part, size_t rank) {
    const size_t first = h->first[part * h->ranks + rank];
    const size_t end = h->first[part * h->ranks + rank + 1];
    if (first == end) {
        return (struct kiln_held){.pieces = {first, 0}};
    }
    const struct kiln_piece *a = &h->pieces[first], *z = &h->pieces[end - 1];
    const size_t chunks = end < h->n_pieces ? h->pieces[end].chunk : h->n_chunks;
    const size_t n = z->offset + z->n - a->offset;
    return (struct kiln_held){.pieces = {first, end - first},
                              .chunks = {a->chunk, chunks - a->chunk},
                              .weights = {a->offset, n},
                              .trained = {kiln_trained_at(h->table, a->offset), n}};
}

size_t kiln_holding_size(const struct kiln_holding *h, size_t rank) {
    size_t n = 0;
    for (size_t part = 0; part < h->parts; part++) {
        n += h->floats[part * h->ranks + rank].n;
    }
    return n;
}
