/* SPDX-License-Identifier: MIT
 *
 * gpu_int.h: what gpu.c (products) and gpu_open.c (choosing and opening) share.
 *
 * Buffers on the device, each as large as the largest product wants it:
 *
 *   narrow[2]   operands as they came, fp16 or bf16: dy, x
 *   wide[2]     the same in fp32
 *   results[]   fp32 [rows, cols], one dw each
 *   temp        CLBlast's
 *
 * and `staging`, memory of the host that the driver allocated and that stays mapped: slots for
 * operands that do not stay where they are (kiln_gpu_rows).
 */
#ifndef KILN_DEVICE_GPU_INT_H
#define KILN_DEVICE_GPU_INT_H

#include "device/host/gpu.h"
#include "device/host/opencl.h"

/* Two: a half-layer has two matrices, and a device may take both in turns, some tokens at a time.
 */
enum { KILN_GPU_RESULTS = 2, KILN_GPU_SLOTS = 4, KILN_GPU_EVENTS = 256 };

enum { KILN_GPU_DY, KILN_GPU_X, KILN_GPU_OPERANDS };

/* Elements that the buffers must hold. */
struct kiln_gpu_room {
    size_t narrow[KILN_GPU_OPERANDS], wide[KILN_GPU_OPERANDS];
    size_t result, temp;
    size_t slot_dy, slot_x; /* bytes */
    size_t slots;
};

struct kiln_gpu_result {
    struct kiln_cl_buffer *buffer;
    float *dw;    /* whose; NULL: nobody's */
    size_t bytes; /* of dw */
    bool ahead;   /* holds what the host has not got */
    uint64_t used;
};

/* A command whose end matters: an operand was read, a product made, a result fetched. */
struct kiln_gpu_command {
    struct kiln_cl_event *event; /* NULL: it has ended, and its result was looked at */
    const float *fetched;        /* the dw that it writes; NULL for others */
};

struct kiln_gpu {
    struct kiln_opencl cl;
    struct kiln_cl_device *device;
    struct kiln_cl_context *context;
    struct kiln_cl_queue *queue;
    struct kiln_cl_program *program;
    struct kiln_cl_kernel *widen_fp16, *widen_bf16;
    struct kiln_gpu_room room;
    struct kiln_cl_buffer *narrow[KILN_GPU_OPERANDS], *wide[KILN_GPU_OPERANDS];
    struct kiln_cl_buffer *temp, *staging;
    struct kiln_gpu_result results[KILN_GPU_RESULTS];
    uint64_t clock; /* of the results' last use */

    struct kiln_gpu_command commands[KILN_GPU_EVENTS]; /* command i lies at i % KILN_GPU_EVENTS */
    uint64_t n_commands;

    unsigned char *mapped; /* [room.slots] of dy and x */
    struct kiln_gpu_slot slots[KILN_GPU_SLOTS];
    size_t next_slot;

    struct kiln_err failure;        /* the first; code KILN_OK: none */
    const struct kiln_device *told; /* or NULL */
    char name[128], driver[64];     /* of the device */
    char description[160], numerics[24];
};

/* Remember a failure, if it is the first. */
void kiln_gpu_fail(struct kiln_gpu *gpu, const char *what, int32_t result);

/* Tiles of CLBlast's products are at most so large in each direction: it copies operands into
 * `temp`, padded to whole tiles. */
enum { KILN_GPU_TILE = 128 };
struct kiln_gpu_room kiln_gpu_room(const struct kiln_gpu_extent *products, size_t n);

#endif
