/* SPDX-License-Identifier: MIT */
#include "train/reducer.h"

#include <string.h>

#include "base/mem.h"
#include "kernel/kernel.h"
#include "kiln/plan.h"
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
    struct kiln_tree *trees; /* [layers + 3] by part */
    float **places;          /* [n_places]; the first is where the gradient is to lie */
    float **lookups;         /* [n_places] likewise of E, where it is added by itself; or NULL */
    size_t n_places;
    struct kiln_grid grid;
    size_t given; /* parts that the ranks have been given to add */
    struct {
        float *to;
        const float *from;
        size_t n;
    } adding;
};

static struct kiln_grid grid_of(const struct kiln_reducer_parts *p) {
    return kiln_grid_of(kiln_ranks_count(p->ranks), p->stages > 0 ? p->stages : 1,
                        kiln_ranks_mine(p->ranks));
}

static struct kiln_share share_of(const struct kiln_grid *grid, uint64_t micro_batches) {
    return kiln_share_of(micro_batches, grid->replicas, grid->replica);
}

static size_t places_of(const struct kiln_grid *grid, uint64_t micro_batches, bool deterministic) {
    const struct kiln_share s = share_of(grid, micro_batches);
    return deterministic ? kiln_tree_places(s.first, s.first + s.n) : 1;
}

/* Floats of an E of its own. */
static size_t lookup_of(const struct kiln_table *table) {
    return table->dims.tied && table->trained == 0 ? table->dims.vocab * table->dims.dim : 0;
}

uint64_t kiln_reducer_bytes(const struct kiln_table *table, uint64_t micro_batches,
                            const struct kiln_grid *grid, bool deterministic) {
    return (places_of(grid, micro_batches, deterministic) - 1) *
           (kiln_trained_size(table) + lookup_of(table)) * sizeof(float);
}

/* Are H and E added by themselves? */
static bool apart(const struct kiln_reducer *r) {
    return lookup_of(r->parts.table) > 0 && (r->parts.deterministic || r->grid.stages > 1);
}

static size_t parts_of(const struct kiln_reducer *r) { return r->parts.table->dims.layers + 3; }

bool kiln_reducer_folds(const struct kiln_reducer *r) { return !apart(r); }

static enum kiln_status make_places(struct kiln_reducer *r, struct kiln_err *err) {
    const struct kiln_reducer_parts *p = &r->parts;
    const size_t lookup = lookup_of(p->table), size = kiln_trained_size(p->table) + lookup;
    const size_t n = places_of(&r->grid, p->micro_batches, p->deterministic);
    r->trees = kiln_alloc(p->table->dims.layers + 3, sizeof *r->trees);
    r->counts = kiln_alloc(kiln_ranks_count(p->ranks), sizeof *r->counts);
    r->places = kiln_alloc(2 * n, sizeof *r->places);
    KILN_REQUIRE(r->trees && r->places && r->counts, err, KILN_ENOMEM,
                 "no memory to add gradients");
    r->lookups = apart(r) ? r->places + n : NULL;
    r->places[0] = p->gradients.all;
    r->places[n] = p->gradients.embedding;
    for (r->n_places = 1; r->n_places < n; r->n_places++) {
        float *place = r->places[r->n_places] = kiln_alloc(size, sizeof(float));
        r->places[n + r->n_places] = place ? place + kiln_trained_size(p->table) : NULL;
        KILN_REQUIRE(place, err, KILN_ENOMEM,
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
    const struct kiln_grid grid = grid_of(parts);
    KILN_REQUIRE(grid.replicas <= parts->micro_batches, err, KILN_EUSAGE,
                 "%zu ranks, but a window has %llu micro-batches (--accum): each rank takes one at "
                 "least; start fewer, or give more",
                 grid.replicas, (unsigned long long)parts->micro_batches);
    struct kiln_reducer *r = kiln_alloc(1, sizeof *r);
    KILN_REQUIRE(r, err, KILN_ENOMEM, "no memory to add gradients");
    r->parts = *parts;
    r->grid = grid;
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
    const struct kiln_grid *grid = &r->grid; /* the last stage has the losses */
    for (size_t i = 0; i < grid->replicas; i++) {
        r->counts[(grid->stages - 1) * grid->replicas + i] =
            kiln_share_of(micro_batches, grid->replicas, i).n;
    }
    memset(r->losses, 0, micro_batches * sizeof *r->losses);
    r->evaluate = evaluate;
    r->micro_batches = micro_batches;
    r->share = share_of(grid, micro_batches);
    r->given = 0;
    for (size_t i = 0; i < parts_of(r); i++) {
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
    g->sums = NULL;                               /* what is written last is no final value */
    if (r->parts.deterministic && !r->evaluate) { /* which writes none, and has other shares */
        g->all = r->places[kiln_tree_nodes(r->share.first, r->share.first + i)];
        g->add = false;
        if (r->lookups) {
            g->embedding = r->lookups[kiln_tree_nodes(r->share.first, r->share.first + i)];
        } else if (g->embedding) { /* it is a part of all */
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
static void fold(struct kiln_reducer *r, float *const *places, size_t last, size_t times,
                 size_t first, size_t n) {
    for (; times > 0; times--, last--) {
        add(r, places[last - 1] + first, places[last] + first, n);
    }
}

/* ---- parts of the gradient --------------------------------------------------------------------
 *
 * In the order in which they are whole: what is behind the layers, H, the layers from the last one
 * down, the embedding, or E. All ranks give them in this order. */

struct part {
    float *const *places;
    size_t first, n; /* floats of a place */
    size_t stage;    /* whose it is */
    size_t layer;    /* as kiln_reducer_layer is told */
};

static size_t stage_of(const struct kiln_reducer *r, size_t layer) {
    const size_t layers = r->parts.table->dims.layers, stages = r->grid.stages;
    size_t stage = 0;
    while (layer >= kiln_stage_first(layers, stages, stage + 1)) {
        stage++;
    }
    return stage;
}

static struct part part_of(const struct kiln_reducer *r, size_t number) {
    const struct kiln_table *table = r->parts.table;
    const size_t layers = table->dims.layers, end = layers + 2;
    struct part p = {.places = r->places, .layer = KILN_NO_LAYER};
    if (number < 2) {
        p.layer = number == 0 ? layers : KILN_NO_LAYER;
        p.stage = r->grid.stages - 1;
        p.n = number == 0 ? kiln_trained_part(table, layers, &p.first)
              : apart(r)  ? kiln_trained_part(table, KILN_NO_LAYER, &p.first)
                          : 0;
    } else if (number < end) {
        p.layer = end - 1 - number;
        p.stage = stage_of(r, end - 1 - number);
        p.n = kiln_trained_part(table, end - 1 - number, &p.first);
    } else if (apart(r)) {
        p.places = r->lookups;
        p.n = lookup_of(table);
    } else {
        p.n = kiln_trained_part(table, KILN_NO_LAYER, &p.first);
    }
    return p;
}

/* The leaf is there: add what can be added of this part. */
static void grow(struct kiln_reducer *r, size_t number) {
    const struct part p = part_of(r, number);
    struct kiln_tree *tree = &r->trees[number];
    const size_t leaf = kiln_tree_place(tree);
    fold(r, p.places, leaf, kiln_tree_give(tree, 0), p.first, p.n);
    if (tree->next == r->share.first + r->share.n && !r->parts.ranks) {
        const size_t last = tree->n - 1;
        fold(r, p.places, last, kiln_tree_end(tree), p.first, p.n);
    }
}

/* Of each rank's part of a layer a stretch at a time. E is cut as H is. */
static void send_parts(const struct kiln_reducer *r, const struct part *p) {
    const struct kiln_reducer_parts *parts = &r->parts;
    const struct kiln_holding *h = parts->holding;
    const size_t slices = (p->n + KILN_RANKS_STRETCH - 1) / KILN_RANKS_STRETCH;
    for (size_t i = 0; i < slices; i++) {
        const struct kiln_ranks_cut cut = {h->floats + kiln_holding_part(p->layer) * h->ranks, i,
                                           slices};
        kiln_ranks_sum_parts(parts->ranks, r->micro_batches,
                             parts->deterministic ? p->places : NULL, p->places[0], &cut);
    }
}

/* To the other ranks, in stretches: the first travels while the last is still being read. */
static void send(const struct kiln_reducer *r, size_t number) {
    const struct kiln_reducer_parts *parts = &r->parts;
    const struct part p = part_of(r, number);
    if (parts->holding) {
        send_parts(r, &p);
        return;
    }
    kiln_ranks_from(parts->ranks, p.stage * r->grid.replicas, r->grid.replicas);
    for (size_t at = p.first; at < p.first + p.n; at += KILN_RANKS_STRETCH) {
        const size_t some = kiln_least(p.first + p.n - at, KILN_RANKS_STRETCH);
        if (parts->deterministic) {
            kiln_ranks_combine(parts->ranks, r->micro_batches, p.places, at, p.places[0] + at,
                               some);
        } else {
            kiln_ranks_sum(parts->ranks, p.places[0] + at, some);
        }
    }
}

/* Parts up to this one, which the ranks have not been given yet. */
static void send_until(struct kiln_reducer *r, size_t end) {
    for (; r->given < end; r->given++) {
        send(r, r->given);
    }
}

/* The numbers of the parts first..end-1 that this rank has. */
static void own_parts(const struct kiln_reducer *r, size_t *first, size_t *end) {
    const size_t layers = r->parts.table->dims.layers, stages = r->grid.stages;
    const size_t stage = r->grid.stage, last = layers + 2;
    *first = stage + 1 == stages ? 0 : last - kiln_stage_first(layers, stages, stage + 1);
    *end = stage == 0 ? last + 1 : last - kiln_stage_first(layers, stages, stage);
}

void kiln_reducer_others(struct kiln_reducer *r, uint64_t i) {
    size_t first, end;
    own_parts(r, &first, &end);
    if (!r->evaluate && i + 1 == r->share.n) {
        send_until(r, first);
    }
}

/* This rank has it of micro-batch i. */
static void done(struct kiln_reducer *r, uint64_t i, size_t number) {
    size_t first, end;
    if (r->parts.deterministic) {
        grow(r, number);
    }
    if (i + 1 == r->share.n) {
        own_parts(r, &first, &end);
        send_until(r, number + 1 == end ? parts_of(r) : number + 1);
    }
}

void kiln_reducer_layer(struct kiln_reducer *r, uint64_t i, size_t layer) {
    const struct kiln_reducer_parts *p = &r->parts;
    const size_t layers = p->table->dims.layers;
    if (layer == KILN_NO_LAYER && lookup_of(p->table) > 0 && !apart(r)) {
        add(r, p->gradients.all + embedding_at(p->table), p->gradients.embedding,
            lookup_of(p->table));
    }
    if (layer == layers) {
        done(r, i, 0);
        done(r, i, 1);
    } else {
        done(r, i, layer == KILN_NO_LAYER ? layers + 2 : layers + 1 - layer);
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
