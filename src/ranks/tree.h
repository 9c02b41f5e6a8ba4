/* SPDX-License-Identifier: MIT
 *
 * tree.h: the micro-batches of a window: who takes which, and one order to add them in.
 *
 * Rank r of n takes micro-batches [r A / n, (r+1) A / n) of A.
 *
 * Floating-point sums depend on their order. --deterministic adds the micro-batches of a window by
 * one binary tree that depends on A alone: leaf i is micro-batch i, a node of level k covers 2^k of
 * them from a multiple of 2^k on, and what is left over, where A is no power of two, is added from
 * the right.
 *
 *   A = 6:   (0+1) + (2+3)   and   (4+5)    ->   ((0+1) + (2+3)) + (4+5)
 *
 * The leaves of a rank make up a few whole nodes, left to right: it adds inside those, and what is
 * above them is added by whoever has all ranks' nodes. So the sum has the same bits on any number
 * of ranks.
 */
#ifndef KILN_RANKS_TREE_H
#define KILN_RANKS_TREE_H

#include <stddef.h>
#include <stdint.h>

struct kiln_share {
    uint64_t first, n;
};
struct kiln_share kiln_share_of(uint64_t micro_batches, size_t ranks, size_t rank);

/* A pipeline of P stages over n ranks, of which each stage has n / P, its replicas: rank r is
 * replica r % D of stage r / D. The replicas of a stage share the micro-batches of a window;
 * without a pipeline all ranks do. */
struct kiln_grid {
    size_t stages, replicas;
    size_t stage, replica; /* of the rank that was asked about */
};
static inline struct kiln_grid kiln_grid_of(size_t ranks, size_t stages, size_t rank) {
    const size_t replicas = ranks / stages;
    return (struct kiln_grid){stages, replicas, rank / replicas, rank % replicas};
}

/* Level of the largest node that begins at `first` and ends at `end` or before it. */
unsigned kiln_tree_level(uint64_t first, uint64_t end);
/* Whole nodes that the leaves first..end-1 make up. */
size_t kiln_tree_nodes(uint64_t first, uint64_t end);
/* The most that stand side by side while they are added one by one, the last one not yet added to
 * any: places that are needed. */
size_t kiln_tree_places(uint64_t first, uint64_t end);

/* Nodes are given left to right, from leaf 0 or the first of a share on; what can be added is. */
enum { KILN_TREE_OPEN = 128 };
struct kiln_tree {
    uint64_t next; /* leaf behind those given so far */
    size_t n;      /* nodes that stand open */
    unsigned level[KILN_TREE_OPEN];
};
/* Where the next node (a leaf: level 0) goes: the place behind those that stand open. */
static inline size_t kiln_tree_place(const struct kiln_tree *tree) { return tree->n; }
/* It is there. Returns how often the last place is now to be added to the one before it, which
 * ends the last. */
size_t kiln_tree_give(struct kiln_tree *tree, unsigned level);
/* The end, of a whole window: as often, from the right; one is left. */
size_t kiln_tree_end(struct kiln_tree *tree);

#endif
