/* SPDX-License-Identifier: MIT
 *
 * dw.h: weight gradients in the background while a Neural Engine computes.
 *
 *   dw [rows, cols] (+)= sum over sequences b of dy_b [rows, T] . x_b [cols, T]^T
 *
 * dy and x are fp16 channel-major, [B][rows][W] and [B][..][W]; the contraction is over the T
 * tokens, columns T..W-1 are never read. Products are fp32. A product is two background jobs of
 * the pool: x is converted and packed, then blocks of KILN_GEMM_M x KILN_GEMM_N of dw are computed,
 * each by one task that converts its rows of dy and takes the sequences in order. Blocks depend on
 * the shape only: bits do not depend on threads or on timing. The caller converts nothing.
 *
 * dy is copied into a slot, one of a ring that is allocated at open, so that the surface it came
 * from can be written again; x is read where it lies, in a block of taps that stays as it is until
 * kiln_dw_drain, or until the product's slot has been handed out again.
 *
 *   slot = kiln_dw_slot(dw);  copy dy into slot->dy;  kiln_dw_post(dw, slot, &product);  ...
 *   kiln_dw_drain(dw, err);
 *
 * With a GPU (gpu.h) a product is a post there instead: it reads slot and taps as they lie, and the
 * pool has nothing to do with it. Bits are the device's then.
 *
 * All calls come from the thread that owns the pool. After open only a GPU fails, and only at the
 * drain.
 */
#ifndef KILN_DEVICE_DW_H
#define KILN_DEVICE_DW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "device/device.h"
#include "kiln/status.h"

struct kiln_dw_shape {
    size_t batch, seq; /* B, T; W is T rounded up to 16 */
    size_t slots;      /* products under way at once, at least 1 */
    size_t rows, cols; /* of the largest matrix in each direction */
    bool gpu;          /* computed there: nothing is packed here */
};

/* Bytes that a queue takes, without opening it: for plans. */
struct kiln_dw_sizes {
    size_t workspace;
    size_t thread; /* of each thread */
};
struct kiln_dw_sizes kiln_dw_sizes(const struct kiln_dw_shape *shape);

struct kiln_dw_product {
    float *dw; /* [rows, cols], rows cols apart: matrices that lie adjacent in the table and have
                * one x (Q, K and V; W1 and W3) are one product */
    size_t rows, cols; /* at most the shape's */
    const uint16_t *x; /* channel 0 of sequence 0 */
    size_t x_sequence; /* elements from one sequence's x to the next */
    bool add;          /* false: write */
    /* NULL, or where the squares of the matrix, which this product is the last of, are summed;
     * gradients: those of the whole table. */
    struct kiln_gradient_sums *sums;
    size_t matrix;
    const float *gradients;
    const char *name; /* of the spans: static text, and the layer */
    size_t layer;
};

struct kiln_dw;
struct kiln_dw_slot {
    uint16_t *dy; /* to be filled: [B][rows][W], rows of the product it will be posted with */
};

struct kiln_gpu;
/* Borrows the pool, and with shape.gpu the device, which is NULL otherwise. On success
 * kiln_dw_close. */
KILN_MUST_CHECK enum kiln_status kiln_dw_open(const struct kiln_dw_shape *shape,
                                              struct kiln_pool *pool, struct kiln_gpu *gpu,
                                              struct kiln_dw **out, struct kiln_err *err);
/* Spans go where the device's go from here on: one for what a thread works on a product without a
 * break (DW), at the latest when kiln_dw_drain returns; one for each wait of the owner (DW_WAIT).
 */
void kiln_dw_tell(struct kiln_dw *dw, const struct kiln_device *device);
/* What is posted is finished first. NULL is fine. */
void kiln_dw_close(struct kiln_dw *dw);

/* The next free slot. When all are in use this works on the pool until the oldest is free. Slots
 * are posted in the order they were handed out, and at most shape.slots may be out and not posted.
 */
struct kiln_dw_slot *kiln_dw_slot(struct kiln_dw *dw);
/* Compute a product from the slot's dy, some time before kiln_dw_drain returns; products that write
 * the same dw are done in the order of their posts. */
void kiln_dw_post(struct kiln_dw *dw, struct kiln_dw_slot *slot,
                  const struct kiln_dw_product *product);
/* Return when all is done that was posted. A GPU's failure: KILN_EDEVICE, KILN_ENOMEM. */
KILN_MUST_CHECK enum kiln_status kiln_dw_drain(struct kiln_dw *dw, struct kiln_err *err);

#endif
