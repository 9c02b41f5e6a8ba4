/* SPDX-License-Identifier: MIT
 *
 * attention.h: causal grouped-query attention of one sequence, in blocks of query rows.
 *
 * Scores are never held for more than one block of KILN_QUERY_ROWS queries (as in Dao et al.
 * 2022, FlashAttention, whose backward this follows): forward keeps ln sum exp of each row,
 * backward recomputes the block. A task is one key-value head of one sequence with all its query
 * heads, so its sums have one fixed order.
 */
#ifndef KILN_KERNEL_ATTENTION_H
#define KILN_KERNEL_ATTENTION_H

#include "kernel/kernel.h"

enum { KILN_QUERY_ROWS = 32 };

/* One sequence of T tokens; rows of qkv are q [H][K] | k [G][K] | v [G][K], after RoPE. */
struct kiln_attention {
    const struct kiln_kernels *kernels;
    size_t seq, heads, kv_heads, head_size;
    /* Document mask, [T]: the first key that a query sees, no larger than the query's own place and
     * never falling. NULL: all see from 0 on. Keys that no query of a block sees are not
     * multiplied, in panels of KILN_PANEL. */
    const uint32_t *starts;
    const void *qkv;  /* operands [T, (H+2G)K] */
    void *out;        /* operands [T, HK]: written forward, read backward */
    float *lse;       /* [H, T]: written forward, read backward */
    const void *dout; /* backward: operands [T, HK] */
    void *dqkv;       /* backward: operands [T, (H+2G)K] */
};

/* Bytes of scratch that a task needs. */
size_t kiln_attention_scratch(const struct kiln_kernels *kernels, size_t seq, size_t head_size);
/* Key-value head g of the sequence, 64-byte aligned scratch. */
void kiln_attention_fwd(const struct kiln_attention *attention, size_t g, void *scratch);
void kiln_attention_bwd(const struct kiln_attention *attention, size_t g, void *scratch);

#endif
