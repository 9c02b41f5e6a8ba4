/* SPDX-License-Identifier: MIT */
#include "train/reducer.h"

#include <string.h>

#include "base/mem.h"
#include "kernel/kernel.h"
#include "model/table.h"

enum { PIECE = 1 << 14 }; /* floats that a thread adds at a time */

struct kiln_reducer {
    struct kiln_reducer_parts parts;
    struct kiln_kernels kernels;
    struct kiln_share share; /* of what is under way */
    bool evaluate;
    uint64_t micro_batches;
    double *losses; /* [room] of all ranks */
    size_t *counts; /* [ranks] */
    size_t room;
    struct kiln_tree *trees; /* [layers + 2] of each layer, behind them, the embedding */
    float **places;          /* [n_places]; the first is where the gradient is to lie */
    size_t n_places;
    struct {
        float *to;
        const float *from;
        size_t n;
    } adding;
};

static size_t ranks_of(const struct kiln_reducer_parts *p) { return kiln_ranks_count(p->ranks); }

static struct kiln_share share_of(const struct kiln_reducer_parts *p, uint64_t micro_batches) {
    return kiln_share_of(micro_batches, ranks_of(p), kiln_ranks_mine(p->ranks));
}

static size_t places_of(uint64_t micro_batches, size_t ranks, size_t rank, bool deterministic) {
    const struct kiln_share s = kiln_share_of(micro_batches, ranks, rank);
    return deterministic ? kiln_tree_places(s.first, s.first + s.n) : 1;
}

uint64_t kiln_reducer_bytes(const struct kiln_table *table, uint64_t micro_batches, size_t ranks,
                            size_t rank, bool deterministic) {
    return (places_of(micro_batches, ranks, rank, deterministic) - 1) * kiln_trained_size(table) *
           sizeof(float);
}

static enum kiln_status make_places(struct kiln_reducer *r, struct kiln_err *err) {
    const struct kiln_reducer_parts *p = &r->parts;
    const size_t size = kiln_trained_size(p->table);
    const size_t n =
        places_of(p->micro_batches, ranks_of(p), kiln_ranks_mine(p->ranks), p->deterministic);
    r->trees = kiln_alloc(p->table->dims.layers + 2, sizeof *r->trees);
    r->counts = kiln_alloc(ranks_of(p), sizeof *r->counts);
    r->places = kiln_alloc(n, sizeof *r->places);
    KILN_REQUIRE(r->trees && r->places && r->counts, err, KILN_ENOMEM,
                 "no memory to add gradients");
    r->places[0] = p->gradients.all;
    for (r->n_places = 1; r->n_places < n; r->n_places++) {
        r->places[r->n_places] = kiln_alloc(size, sizeof(float));
        KILN_REQUIRE(r->places[r->n_places], err, KILN_ENOMEM,
                     "--deterministic adds gradients by a tree, and takes %zu of %zu MB beside the "
                     "one there is: no memory for them; fewer micro-batches a rank (--accum) take "
                     "fewer",
                     n - 1, size * sizeof(float) >> 20);
    }
    return kiln_kernels_choose(KILN_PRECISION_FP32, &r->kernels, err);
}

enum kiln_status kiln_reducer_create(const struct kiln_reducer_parts *parts,
                                     struct kiln_reducer **out, struct kiln_err *err) {
    *out = NULL;
    if (!parts->ranks && !parts->deterministic) {
        return KILN_OK;
    }
    KILN_REQUIRE(ranks_of(parts) <= parts->micro_batches, err, KILN_EUSAGE,
                 "%zu ranks, but a window has %llu micro-batches (--accum): each rank takes one at "
                 "least; start fewer, or give more",
                 ranks_of(parts), (unsigned long long)parts->micro_batches);
    struct kiln_reducer *r = kiln_alloc(1, sizeof *r);
    KILN_REQUIRE(r, err, KILN_ENOMEM, "no memory to add gradients");
    r->parts = *parts;
    kiln_ranks_observe(parts->ranks, parts->spans);
    kiln_ranks_narrow(parts->ranks, parts->narrow);
    const enum kiln_status status = make_places(r, err);
    if (status != KILN_OK) {
        kiln_reducer_destroy(r);
        return status;
    }
    *out = r;
    return KILN_OK;
}

void kiln_reducer_destroy(struct kiln_reducer *r) {
    if (!r) {
        return;
    }
    kiln_ranks_observe(r->parts.ranks, NULL);
    for (size_t i = 1; i < r->n_places; i++) {
        kiln_free(r->places[i]);
    }
    kiln_free(r->places);
    kiln_free(r->trees);
    kiln_free(r->counts);
    kiln_free(r->losses);
    kiln_free(r);
}

/* ---- a window ---------------------------------------------------------------------------------
 */

enum kiln_status kiln_reducer_begin(struct kiln_reducer *r, bool evaluate, uint64_t micro_batches,
                                    struct kiln_err *err) {
    if (micro_batches > r->room) {
        kiln_free(r->losses);
        r->losses = kiln_alloc(micro_batches, sizeof *r->losses);
        r->room = r->losses ? micro_batches : 0;
        KILN_REQUIRE(r->losses, err, KILN_ENOMEM, "no memory for the losses of a window");
    }
    for (size_t i = 0; i < ranks_of(&r->parts); i++) {
        r->counts[i] = kiln_share_of(micro_batches, ranks_of(&r->parts), i).n;
    }
    memset(r->losses, 0, micro_batches * sizeof *r->losses);
    r->evaluate = evaluate;
    r->micro_batches = micro_batches;
    r->share = share_of(&r->parts, micro_batches);
    for (size_t i = 0; i < r->parts.table->dims.layers + 2; i++) {
        r->trees[i] = (struct kiln_tree){.next = r->share.first};
    }
    return KILN_OK;
}

static size_t embedding_at(const struct kiln_table *table) {
    return kiln_table_find(table, KILN_EMBED, KILN_NO_LAYER)->offset;
}

void kiln_reducer_target(const struct kiln_reducer *r, uint64_t i, struct kiln_gradients *g) {
    if (r->parts.local) {
        return;
    }
    g->sums = NULL; /* what is written last is no final value */
    if (r->parts.deterministic) {
        g->all = r->places[kiln_tree_nodes(r->share.first, r->share.first + i)];
        g->add = false;
        if (g->embedding && !r->parts.table->dims.tied) { /* it is a part of all */
            g->embedding = g->all + embedding_at(r->parts.table);
        }
    }
}

bool kiln_reducer_wants(const struct kiln_reducer *r, uint64_t i) {
    return !r->evaluate && !r->parts.local && (r->parts.deterministic || i + 1 == r->share.n);
}

static void add_piece(void *context, size_t task, size_t thread) {
    const struct kiln_reducer *r = context;
    const size_t at = task * PIECE;
    (void)thread;
    r->kernels.add(r->adding.to + at, r->adding.from + at, kiln_least(r->adding.n - at, PIECE));
}

static void add(struct kiln_reducer *r, float *to, const float *from, size_t n) {
    r->adding.to = to;
    r->adding.from = from;
    r->adding.n = n;
    kiln_pool_run(r->parts.pool, (n + PIECE - 1) / PIECE, add_piece, r);
}

/* So often the last place to the one before it. */
static void fold(struct kiln_reducer *r, size_t last, size_t times, size_t first, size_t n) {
    for (; times > 0; times--, last--) {
        add(r, r->places[last - 1] + first, r->places[last] + first, n);
    }
}

/* The leaf is there: add what can be added of this part. */
static void grow(struct kiln_reducer *r, struct kiln_tree *tree, size_t first, size_t n) {
    const size_t leaf = kiln_tree_place(tree);
    fold(r, leaf, kiln_tree_give(tree, 0), first, n);
    if (tree->next == r->share.first + r->share.n && !r->parts.ranks) {
        const size_t last = tree->n - 1;
        fold(r, last, kiln_tree_end(tree), first, n);
    }
}

/* To the other ranks, in stretches: the first travels while the last is still being read. */
static void send(const struct kiln_reducer *r, size_t first, size_t n) {
    const struct kiln_reducer_parts *p = &r->parts;
    for (size_t at = first; at < first + n; at += KILN_RANKS_STRETCH) {
        const size_t some = kiln_least(first + n - at, KILN_RANKS_STRETCH);
        if (p->deterministic) {
            kiln_ranks_combine(p->ranks, r->micro_batches, r->places, at, p->gradients.all + at,
                               some);
        } else {
            kiln_ranks_sum(p->ranks, p->gradients.all + at, some);
        }
    }
}

void kiln_reducer_layer(struct kiln_reducer *r, uint64_t i, size_t layer) {
    const struct kiln_reducer_parts *p = &r->parts;
    const size_t layers = p->table->dims.layers;
    size_t first;
    const size_t n = kiln_trained_part(p->table, layer, &first);
    if (n == 0) {
        return;
    }
    struct kiln_gradients mine = p->gradients;
    kiln_reducer_target(r, i, &mine);
    if (layer == KILN_NO_LAYER && p->table->dims.tied && p->table->trained == 0) {
        add(r, mine.all + embedding_at(p->table), mine.embedding,
            p->table->dims.vocab * p->table->dims.dim);
    }
    if (p->deterministic) {
        grow(r, &r->trees[layer == KILN_NO_LAYER ? layers + 1 : layer], first, n);
    }
    if (i + 1 == r->share.n) {
        send(r, first, n);
    }
}

void kiln_reducer_loss(struct kiln_reducer *r, uint64_t i, double loss) {
    r->losses[r->share.first + i] = loss;
}

enum kiln_status kiln_reducer_finish(struct kiln_reducer *r, double *loss, struct kiln_err *err) {
    KILN_TRY(kiln_ranks_wait(r->parts.ranks, err));
    KILN_TRY(kiln_ranks_gather(r->parts.ranks, r->losses, r->counts, err));
    *loss = 0;
    for (uint64_t i = 0; i < r->micro_batches; i++) {
        *loss += r->losses[i];
    }
    return KILN_OK;
}
