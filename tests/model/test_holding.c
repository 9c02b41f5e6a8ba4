/* SPDX-License-Identifier: MIT
 *
 * What each rank holds of weights and moments: all of them, once, in about equal parts.
 */
#include "model/holding.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernel/weights.h"
#include "kiln_test.h"
#include "model/table.h"

static struct kiln_table *make_table(bool tied, size_t rank) {
    const struct kiln_dims dims = {.dim = 128,
                                   .hidden = 352,
                                   .layers = 3,
                                   .heads = 4,
                                   .kv_heads = 2,
                                   .head_size = 32,
                                   .vocab = 517,
                                   .seq = 64,
                                   .rms_eps = 1e-5,
                                   .rope_theta = 10000,
                                   .tied = tied};
    const struct kiln_lora lora = {.rank = rank, .alpha = 8, .targets = rank > 0 ? 0x7F : 0};
    struct kiln_table *table;
    struct kiln_err err;
    CHECK_OK(kiln_table_create_lora(&dims, &lora, &table, &err), &err);
    return table;
}

static void check_holding(const struct kiln_table *table, size_t ranks) {
    struct kiln_holding h;
    struct kiln_err err;
    CHECK_OK(kiln_holding_open(table, ranks, &h, &err), &err);
    size_t piece = 0, chunk = 0, all = 0, most = 0, least = SIZE_MAX, largest = 0;
    for (size_t part = 0; part < h.parts; part++) {
        size_t first;
        const size_t n = kiln_trained_part(table, part == 0 ? KILN_NO_LAYER : part - 1, &first);
        CHECK_EQ(kiln_holding_part(part == 0 ? KILN_NO_LAYER : part - 1), part);
        for (size_t q = 0; q < ranks; q++) {
            const struct kiln_held held = kiln_holding_of(&h, part, q);
            CHECK_EQ(held.pieces.at, piece); /* one behind the other: none twice, none left out */
            for (size_t i = 0; i < held.pieces.n; i++, piece++) {
                CHECK_EQ(h.holder[piece], q);
                CHECK_EQ(h.pieces[piece].chunk, chunk);
                chunk += (h.pieces[piece].n + KILN_CHUNK - 1) / KILN_CHUNK;
                all += h.pieces[piece].n;
            }
            if (held.pieces.n > 0) { /* within its part */
                CHECK(held.trained.at >= first && held.trained.at + held.trained.n <= first + n);
                CHECK_EQ(held.chunks.at + held.chunks.n, chunk);
                CHECK_EQ(h.floats[part * ranks + q].at, held.trained.at);
            }
            CHECK_EQ(h.floats[part * ranks + q].n, held.trained.n);
        }
    }
    CHECK_EQ(piece, h.n_pieces);
    CHECK_EQ(chunk, h.n_chunks);
    CHECK_EQ(all, table->trained > 0 ? table->adapters : table->parameters);
    for (size_t i = 0; i < h.n_pieces; i++) {
        largest = h.pieces[i].n > largest ? h.pieces[i].n : largest;
    }
    for (size_t q = 0; q < ranks; q++) {
        const size_t size = kiln_holding_size(&h, q);
        most = size > most ? size : most;
        least = size < least ? size : least;
    }
    CHECK(most - least <= 2 * h.parts * largest); /* a piece on either side of each cut */
    kiln_holding_close(&h);
}

TEST(every_piece_is_held_once) {
    for (int tied = 0; tied < 2; tied++) {
        for (size_t rank = 0; rank <= 4; rank += 4) {
            struct kiln_table *table = make_table(tied, rank);
            for (size_t ranks = 1; ranks <= 9; ranks++) {
                check_holding(table, ranks);
            }
            check_holding(table, 1000); /* more than there are pieces */
            kiln_table_destroy(table);
        }
    }
}

/* Piece by piece the same snapshot as at once, and the ranges of all ranks hold what is trained. */
static void check_snapshot(const struct kiln_table *table, enum kiln_precision precision) {
    struct kiln_err err;
    struct kiln_pool *pool;
    struct kiln_holding h;
    const size_t bytes = kiln_snapshot_bytes(table, precision);
    float *weights = kiln_alloc(table->size, sizeof *weights);
    float *widened = kiln_alloc(table->size, sizeof *widened);
    unsigned char *whole = kiln_alloc(bytes, 1), *pieces = kiln_alloc(bytes, 1);
    kiln_weights_init(table, 3, weights);
    kiln_lora_init(table, 3, weights);
    CHECK_OK(kiln_pool_create(2, &pool, &err), &err);
    CHECK_OK(kiln_holding_open(table, 3, &h, &err), &err);
    CHECK_OK(kiln_snapshot_take(pool, table, precision, weights, whole, &err), &err);
    memcpy(pieces, whole, bytes);
    for (size_t i = 0; i < h.parts * h.ranks; i++) {
        struct kiln_range range[2];
        const size_t n = h.first[i + 1] - h.first[i];
        kiln_snapshot_ranges(table, precision, h.pieces + h.first[i], n, &range[0], &range[1]);
        for (int k = 0; k < 2; k++) {
            CHECK(range[k].at + range[k].n <= bytes);
            memset(pieces + range[k].at, 0xA5, range[k].n);
        }
        CHECK(n == 0 || memcmp(pieces, whole, bytes) != 0);
        CHECK_OK(kiln_snapshot_take_pieces(pool, table, precision, weights, h.pieces + h.first[i],
                                           n, pieces, &err),
                 &err);
        if (precision == KILN_PRECISION_FP32) { /* gaps are zero there, too */
            for (size_t at = 0; at < bytes; at++) {
                pieces[at] = whole[at] == 0 ? 0 : pieces[at];
            }
        }
        CHECK(memcmp(pieces, whole, bytes) == 0);
    }
    const struct kiln_weights seen = kiln_weights_snapshot(table, precision, whole);
    kiln_weights_widen(&seen, widened);
    for (size_t i = 0; i < table->size; i++) {
        CHECK_CLOSE((double)widened[i], (double)weights[i], 0.01 * fabs((double)weights[i]) + 1e-6);
    }
    kiln_holding_close(&h);
    kiln_pool_destroy(pool);
    kiln_free(weights);
    kiln_free(widened);
    kiln_free(whole);
    kiln_free(pieces);
}

TEST(shards_make_the_snapshot) {
    for (size_t rank = 0; rank <= 4; rank += 4) {
        struct kiln_table *table = make_table(rank == 0, rank);
        check_snapshot(table, KILN_PRECISION_FP32);
        check_snapshot(table, KILN_PRECISION_BF16);
        check_snapshot(table, KILN_PRECISION_FP16);
        kiln_table_destroy(table);
    }
}
