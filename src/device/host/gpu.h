/* SPDX-License-Identifier: MIT
 *
 * gpu.h: weight gradients on a GPU, or on whatever has an OpenCL driver, beside the computing.
 *
 *   dw [rows, cols] (+)= dy [rows, k] . x [cols, k]^T
 *
 * Off unless --dw gpu asks for it. A product is four commands of one in-order queue of the device:
 * operands are sent as they lie (fp16, bf16 or fp32), widened to fp32 there, multiplied by
 * CLBlast's Sgemm into one of a few result buffers, and the result is fetched when its buffer is
 * wanted for another dw, or by kiln_gpu_drain. Products that write one dw one after the other leave
 * it on the device in between. The caller waits for none of that.
 *
 *   kiln_gpu_open(products, n, &gpu, err);
 *   ticket = kiln_gpu_post(gpu, &product);  ...  kiln_gpu_sent(gpu, ticket): operands may change
 *   kiln_gpu_drain(gpu, err): every dw is in place
 *
 * Which device: the environment variable KILN_GPU names a part of its name; without it the first
 * GPU, else an accelerator, else anything, such as PoCL on a CPU.
 *
 * Numbers: fp32 products and sums, taken in an order that is the device's: bits differ from those
 * of kiln's own products, and from device to device. There are no atomics in these kernels, so one
 * machine with one driver gives the same bits again; that is the driver's promise, not kiln's.
 *
 * Caveats
 *  - OpenCL drivers have threads of their own, which --threads does not count, and allocate in
 *    their calls.
 *  - What fails while it runs is remembered: later calls do nothing, and kiln_gpu_drain says it.
 *    Gradients have no meaning then.
 *  - All calls are of one thread.
 */
#ifndef KILN_DEVICE_GPU_H
#define KILN_DEVICE_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device/device.h"
#include "kernel/product.h"
#include "kiln/status.h"

struct kiln_opencl;

/* n channels (rows or columns of dw), k = sequences * tokens values of each. */
struct kiln_gpu_operand {
    const void *at;
    /* True: [k][n] without gaps; the rest is not read. False: [sequences][n][width]. */
    bool token_major;
    size_t width;    /* elements from one channel to the next, at least `tokens` */
    size_t sequence; /* elements from one sequence to the next, at least n * width */
};

struct kiln_gpu_product {
    float *dw; /* [rows, cols]; not to be touched until kiln_gpu_drain */
    size_t rows, cols;
    size_t sequences, tokens;
    enum kiln_precision precision; /* of the operands; FP32 only token-major or without gaps */
    struct kiln_gpu_operand dy, x;
    bool add; /* false: write */
};

/* What will be posted, at most. */
struct kiln_gpu_extent {
    size_t rows, cols, tokens; /* tokens: all of k */
    enum kiln_precision precision;
    size_t slots; /* products of kiln_gpu_rows under way at once; 0: it is not used */
};
/* Those of a model: its layers' matrices with `layers` operands of all tokens, the classifier with
 * `head` operands of KILN_HEAD_ROWS tokens at most; slots as given. Returns how many. */
size_t kiln_gpu_extents(const struct kiln_table *table, const struct kiln_micro_batch *shape,
                        enum kiln_precision layers, size_t layer_slots, enum kiln_precision head,
                        size_t head_slots, struct kiln_gpu_extent out[KILN_MATRIX_KINDS]);

/* Bytes that it takes, without a device: for plans. What the driver takes for itself is not known;
 * a constant stands for it. */
size_t kiln_gpu_bytes(const struct kiln_gpu_extent *products, size_t n);

struct kiln_gpu;

/* Choose a device, allocate all buffers on it, and compare products of whole numbers with what they
 * must be. KILN_EUNSUPPORTED: there is no OpenCL, no CLBlast, no device, or it cannot do it;
 * KILN_ENOMEM: its memory is too small; KILN_EDEVICE: a call failed, or the product was wrong. The
 * message says what was looked for, what was found and what to do. On success kiln_gpu_close. */
KILN_MUST_CHECK enum kiln_status kiln_gpu_open(const struct kiln_gpu_extent *products, size_t n,
                                               struct kiln_gpu **out, struct kiln_err *err);
/* The same through functions that are given: copied. For tests. */
KILN_MUST_CHECK enum kiln_status kiln_gpu_open_with(const struct kiln_opencl *cl,
                                                    const struct kiln_gpu_extent *products,
                                                    size_t n, struct kiln_gpu **out,
                                                    struct kiln_err *err);
/* Finishes what is posted. NULL is fine. */
void kiln_gpu_close(struct kiln_gpu *gpu);

/* "NVIDIA A2 (driver 535.1)": for people. */
const char *kiln_gpu_description(const struct kiln_gpu *gpu);
/* "gpu-1f2e3d4c": device, driver and CLBlast as a number, for numerics ids. */
const char *kiln_gpu_numerics(const struct kiln_gpu *gpu);
/* Waits of kiln_gpu_sent and kiln_gpu_drain are told to the device's spans (DW_WAIT). */
void kiln_gpu_tell(struct kiln_gpu *gpu, const struct kiln_device *device);

/* Begin a product. What dy and x show stays as it is until kiln_gpu_sent or kiln_gpu_drain. */
uint64_t kiln_gpu_post(struct kiln_gpu *gpu, const struct kiln_gpu_product *product);
/* Return when the operands of that product, and of all before it, have been read. */
void kiln_gpu_sent(struct kiln_gpu *gpu, uint64_t ticket);

/* Memory for operands that do not stay, token-major: dy [k, rows], x [k, cols]. Any thread may fill
 * it, rows of tokens at a time. */
struct kiln_gpu_slot {
    void *dy, *x;
    uint64_t ticket; /* of the product that was posted from it last */
};
/* The next free slot, of those that an extent asked for; waits until it has been read. It is posted
 * before as many others have been handed out as there are. */
struct kiln_gpu_slot *kiln_gpu_slot(struct kiln_gpu *gpu);
/* Begin the product of a slot that is filled. dw, rows, cols, tokens (k), precision and add of the
 * product count. */
void kiln_gpu_post_slot(struct kiln_gpu *gpu, struct kiln_gpu_slot *slot,
                        const struct kiln_gpu_product *product);
/* Fill a slot by all threads, from dy [k, rows], its rows `ld` elements apart, and x [k, cols], and
 * post it. Operands are those of the workers' kernels. */
void kiln_gpu_rows(struct kiln_gpu *gpu, const struct kiln_workers *workers, const void *dy,
                   size_t ld, const void *x, size_t k, size_t rows, size_t cols, float *dw,
                   bool add);
/* Return when every dw is in place. KILN_EDEVICE, KILN_ENOMEM: the device failed since it was
 * opened, and with what. */
KILN_MUST_CHECK enum kiln_status kiln_gpu_drain(struct kiln_gpu *gpu, struct kiln_err *err);

#endif
