/* SPDX-License-Identifier: MIT
 *
 * gpu.c: products of weight gradients on an OpenCL device; opening one: gpu_open.c.
 *
 * To CLBlast matrices are column-major, in which dw^T [cols, rows] = x^T . dy is what its kernels
 * take without copies when operands are token-major; the others it turns itself.
 */
#include <stdio.h>
#include <string.h>

#include "base/machine.h"
#include "base/mem.h"
#include "device/host/gpu_int.h"
#include "device/host/head.h"

/* ---- commands and failures ------------------------------------------------------------------ */

void kiln_gpu_fail(struct kiln_gpu *gpu, const char *what, int32_t result) {
    char text[64];
    const bool memory = result == KILN_CL_MEM_OBJECT_ALLOCATION_FAILURE ||
                        result == KILN_CL_OUT_OF_RESOURCES || result == KILN_CL_OUT_OF_HOST_MEMORY;
    if (gpu->failure.code == KILN_OK) {
        (void)KILN_FAIL(&gpu->failure, memory ? KILN_ENOMEM : KILN_EDEVICE,
                        "--dw gpu: %s on %s failed: %s; %s", what, gpu->description,
                        kiln_opencl_result(result, text),
                        memory ? "take a smaller --batch, or go on with --dw cpu"
                               : "look at the driver, or go on with --dw cpu");
    }
}

static bool failed(const struct kiln_gpu *gpu) { return gpu->failure.code != KILN_OK; }

/* Wait for a command and look at how it ended. */
static void settle(struct kiln_gpu *gpu, struct kiln_gpu_command *command) {
    if (!command->event) {
        return;
    }
    int32_t status = KILN_CL_COMPLETE;
    /* A wait fails where the command failed; why is in its status. */
    const int32_t waited = gpu->cl.clWaitForEvents(1, &command->event);
    const int32_t asked = gpu->cl.clGetEventInfo(
        command->event, KILN_CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, NULL);
    const int32_t result = status < 0 ? status : waited != KILN_CL_SUCCESS ? waited : asked;
    if (result != KILN_CL_SUCCESS) {
        kiln_gpu_fail(gpu, command->fetched ? "fetching a weight gradient" : "a weight gradient",
                      result);
    }
    gpu->cl.clReleaseEvent(command->event);
    *command = (struct kiln_gpu_command){.event = NULL};
}

/* The command that `result` says was enqueued. Returns its number. */
static uint64_t enqueued(struct kiln_gpu *gpu, const char *what, int32_t result,
                         struct kiln_cl_event *event, const float *fetched) {
    if (result != KILN_CL_SUCCESS) {
        kiln_gpu_fail(gpu, what, result);
        return gpu->n_commands;
    }
    struct kiln_gpu_command *command = &gpu->commands[gpu->n_commands % KILN_GPU_EVENTS];
    settle(gpu, command);
    *command = (struct kiln_gpu_command){event, fetched};
    return gpu->n_commands++;
}

static void tell_wait(const struct kiln_gpu *gpu, double start) {
    if (gpu->told) {
        kiln_device_span(gpu->told, KILN_SPAN_DW_WAIT, "gpu", KILN_NO_LAYER, start);
    }
}

/* ---- results -------------------------------------------------------------------------------- */

/* Send a result to the host, in the background. */
static void fetch(struct kiln_gpu *gpu, struct kiln_gpu_result *result) {
    if (result->ahead && !failed(gpu)) {
        struct kiln_cl_event *event = NULL;
        const int32_t got =
            gpu->cl.clEnqueueReadBuffer(gpu->queue, result->buffer, KILN_CL_FALSE, 0, result->bytes,
                                        result->dw, 0, NULL, &event);
        (void)enqueued(gpu, "fetching a weight gradient", got, event, result->dw);
    }
    result->ahead = false;
}

/* What the host has of dw is read by a command: nothing may be on its way there. */
static void settle_fetches(struct kiln_gpu *gpu, const float *dw) {
    for (size_t i = 0; i < KILN_GPU_EVENTS; i++) {
        if (gpu->commands[i].fetched == dw) {
            settle(gpu, &gpu->commands[i]);
        }
    }
}

/* The buffer that holds dw, or that has it from now on: the one that was not used for longest. */
static struct kiln_gpu_result *result_of(struct kiln_gpu *gpu,
                                         const struct kiln_gpu_product *product) {
    struct kiln_gpu_result *result = &gpu->results[0];
    for (size_t i = 0; i < KILN_GPU_RESULTS; i++) {
        if (gpu->results[i].dw == product->dw) {
            result = &gpu->results[i];
            break;
        }
        result = gpu->results[i].used < result->used ? &gpu->results[i] : result;
    }
    result->used = ++gpu->clock;
    if (result->dw == product->dw) {
        return result;
    }
    fetch(gpu, result);
    result->dw = product->dw;
    result->bytes = product->rows * product->cols * sizeof(float);
    if (product->add && !failed(gpu)) {
        settle_fetches(gpu, product->dw);
        struct kiln_cl_event *event = NULL;
        const int32_t sent =
            gpu->cl.clEnqueueWriteBuffer(gpu->queue, result->buffer, KILN_CL_FALSE, 0,
                                         result->bytes, product->dw, 0, NULL, &event);
        (void)enqueued(gpu, "sending a weight gradient", sent, event, NULL);
    }
    return result;
}

/* ---- operands ------------------------------------------------------------------------------- */

static size_t bytes_of(enum kiln_precision precision) {
    return precision == KILN_PRECISION_FP32 ? 4 : 2;
}

/* Send an operand as it lies; returns the last command. */
static uint64_t send(struct kiln_gpu *gpu, const struct kiln_gpu_product *product, size_t which,
                     size_t channels) {
    const struct kiln_gpu_operand *operand = which == KILN_GPU_DY ? &product->dy : &product->x;
    const size_t size = bytes_of(product->precision);
    struct kiln_cl_buffer *to = size == 4 ? gpu->wide[which] : gpu->narrow[which];
    size_t pieces = product->sequences, piece = channels * operand->width * size;
    if (operand->token_major) {
        pieces = 1;
        piece = product->sequences * product->tokens * channels * size;
    } else if (operand->sequence == channels * operand->width) {
        pieces = 1;
        piece *= product->sequences;
    }
    uint64_t last = gpu->n_commands;
    for (size_t i = 0; i < pieces && !failed(gpu); i++) {
        const char *from = (const char *)operand->at + i * operand->sequence * size;
        struct kiln_cl_event *event = NULL;
        const int32_t sent = gpu->cl.clEnqueueWriteBuffer(gpu->queue, to, KILN_CL_FALSE, i * piece,
                                                          piece, from, 0, NULL, &event);
        last = enqueued(gpu, "sending operands", sent, event, NULL);
    }
    return last;
}

/* narrow -> wide: token-major stays, channel-major becomes [channels][k]. */
static void widen(struct kiln_gpu *gpu, const struct kiln_gpu_product *product, size_t which,
                  size_t channels) {
    const struct kiln_gpu_operand *operand = which == KILN_GPU_DY ? &product->dy : &product->x;
    struct kiln_cl_kernel *kernel =
        product->precision == KILN_PRECISION_FP16 ? gpu->widen_fp16 : gpu->widen_bf16;
    const size_t k = product->sequences * product->tokens;
    const size_t channel_major[3] = {product->tokens, channels, product->sequences};
    const size_t token_major[3] = {channels, k, 1};
    const uint64_t width = operand->token_major ? channels : operand->width;
    if (failed(gpu) || bytes_of(product->precision) == 4) {
        return;
    }
    int32_t done = gpu->cl.clSetKernelArg(kernel, 0, sizeof(void *), &gpu->narrow[which]);
    done = done ? done : gpu->cl.clSetKernelArg(kernel, 1, sizeof(void *), &gpu->wide[which]);
    done = done ? done : gpu->cl.clSetKernelArg(kernel, 2, sizeof width, &width);
    done = done ? done
                : gpu->cl.clEnqueueNDRangeKernel(gpu->queue, kernel, 3, NULL,
                                                 operand->token_major ? token_major : channel_major,
                                                 NULL, 0, NULL, NULL);
    if (done != KILN_CL_SUCCESS) {
        kiln_gpu_fail(gpu, "widening operands", done);
    }
}

/* ---- products ------------------------------------------------------------------------------- */

/* Sizes are the caller's care; beyond the buffers nothing may be written all the same. */
static bool fits(const struct kiln_gpu *gpu, const struct kiln_gpu_product *p) {
    const size_t k = p->sequences * p->tokens;
    const size_t dy = p->rows * (p->dy.token_major ? k : p->sequences * p->dy.width);
    const size_t x = p->cols * (p->x.token_major ? k : p->sequences * p->x.width);
    const bool narrow = bytes_of(p->precision) == 2;
    /* fp32 is not gathered on the device. */
    const bool gaps = (!p->dy.token_major && (p->sequences > 1 || p->dy.width != p->tokens)) ||
                      (!p->x.token_major && (p->sequences > 1 || p->x.width != p->tokens));
    return (narrow || !gaps) && p->rows * p->cols <= gpu->room.result &&
           p->rows * k <= gpu->room.wide[KILN_GPU_DY] &&
           p->cols * k <= gpu->room.wide[KILN_GPU_X] &&
           (!narrow || (dy <= gpu->room.narrow[KILN_GPU_DY] && x <= gpu->room.narrow[KILN_GPU_X]));
}

uint64_t kiln_gpu_post(struct kiln_gpu *gpu, const struct kiln_gpu_product *product) {
    const size_t k = product->sequences * product->tokens;
    if (!failed(gpu) && !fits(gpu, product)) {
        (void)KILN_FAIL(&gpu->failure, KILN_EINTERNAL,
                        "a weight gradient of %zu x %zu over %zu tokens in %s is none that the GPU "
                        "was opened for",
                        product->rows, product->cols, k, kiln_precision_name(product->precision));
    }
    if (failed(gpu)) {
        return gpu->n_commands;
    }
    struct kiln_gpu_result *result = result_of(gpu, product);
    (void)send(gpu, product, KILN_GPU_DY, product->rows);
    const uint64_t sent = send(gpu, product, KILN_GPU_X, product->cols);
    widen(gpu, product, KILN_GPU_DY, product->rows);
    widen(gpu, product, KILN_GPU_X, product->cols);
    if (failed(gpu)) {
        return sent;
    }
    struct kiln_cl_event *event = NULL;
    const bool turn_x = !product->x.token_major, turn_dy = product->dy.token_major;
    const int made = gpu->cl.CLBlastSgemmWithTempBuffer(
        KILN_CLBLAST_COL_MAJOR, turn_x ? KILN_CLBLAST_YES : KILN_CLBLAST_NO,
        turn_dy ? KILN_CLBLAST_YES : KILN_CLBLAST_NO, product->cols, product->rows, k, 1.0f,
        gpu->wide[KILN_GPU_X], 0, turn_x ? k : product->cols, gpu->wide[KILN_GPU_DY], 0,
        turn_dy ? product->rows : k, product->add ? 1.0f : 0.0f, result->buffer, 0, product->cols,
        &gpu->queue, &event, gpu->temp);
    (void)enqueued(gpu, "CLBlastSgemm", made, event, NULL);
    result->ahead = true;
    const int32_t flushed = gpu->cl.clFlush(gpu->queue);
    if (flushed != KILN_CL_SUCCESS) {
        kiln_gpu_fail(gpu, "starting a weight gradient", flushed);
    }
    return sent;
}

void kiln_gpu_sent(struct kiln_gpu *gpu, uint64_t ticket) {
    /* An older command has left its place to another one, and was waited for then. */
    if (ticket < gpu->n_commands && gpu->n_commands - ticket <= KILN_GPU_EVENTS &&
        gpu->commands[ticket % KILN_GPU_EVENTS].event) {
        const double start = kiln_now_s();
        settle(gpu, &gpu->commands[ticket % KILN_GPU_EVENTS]);
        tell_wait(gpu, start);
    }
}

enum kiln_status kiln_gpu_drain(struct kiln_gpu *gpu, struct kiln_err *err) {
    const double start = kiln_now_s();
    for (size_t i = 0; i < KILN_GPU_RESULTS; i++) {
        fetch(gpu, &gpu->results[i]);
        gpu->results[i].dw = NULL; /* the host may change it from here on */
    }
    const int32_t finished = gpu->cl.clFinish(gpu->queue);
    for (size_t i = 0; i < KILN_GPU_EVENTS; i++) {
        settle(gpu, &gpu->commands[i]);
    }
    if (finished != KILN_CL_SUCCESS) {
        kiln_gpu_fail(gpu, "waiting for weight gradients", finished);
    }
    tell_wait(gpu, start);
    KILN_REQUIRE(!failed(gpu), err, gpu->failure.code, "%s", gpu->failure.message);
    return KILN_OK;
}

/* ---- operands that do not stay -------------------------------------------------------------- */

struct kiln_gpu_slot *kiln_gpu_slot(struct kiln_gpu *gpu) {
    struct kiln_gpu_slot *slot = &gpu->slots[gpu->next_slot];
    gpu->next_slot = (gpu->next_slot + 1) % gpu->room.slots;
    kiln_gpu_sent(gpu, slot->ticket);
    return slot;
}

void kiln_gpu_post_slot(struct kiln_gpu *gpu, struct kiln_gpu_slot *slot,
                        const struct kiln_gpu_product *product) {
    struct kiln_gpu_product whole = *product;
    whole.sequences = 1;
    whole.dy = (struct kiln_gpu_operand){.at = slot->dy, .token_major = true};
    whole.x = (struct kiln_gpu_operand){.at = slot->x, .token_major = true};
    slot->ticket = kiln_gpu_post(gpu, &whole);
}

struct copy_job {
    const char *dy, *x;
    struct kiln_gpu_slot *slot;
    size_t dy_bytes, x_bytes, ld; /* of a row, and from one to the next */
};

static void copy_rows(void *context, size_t first, size_t n, size_t index, void *scratch) {
    const struct copy_job *job = context;
    (void)index;
    (void)scratch;
    for (size_t i = first; i < first + n; i++) {
        memcpy((char *)job->slot->dy + i * job->dy_bytes, job->dy + i * job->ld, job->dy_bytes);
    }
    memcpy((char *)job->slot->x + first * job->x_bytes, job->x + first * job->x_bytes,
           n * job->x_bytes);
}

void kiln_gpu_rows(struct kiln_gpu *gpu, const struct kiln_workers *workers, const void *dy,
                   size_t ld, const void *x, size_t k, size_t rows, size_t cols, float *dw,
                   bool add) {
    const size_t size = workers->kernels->operand_bytes;
    struct copy_job job = {.dy = dy,
                           .x = x,
                           .slot = kiln_gpu_slot(gpu),
                           .dy_bytes = rows * size,
                           .x_bytes = cols * size,
                           .ld = ld * size};
    kiln_rows(workers, k, KILN_ROW_CHUNK, copy_rows, &job);
    kiln_gpu_post_slot(gpu, job.slot,
                       &(struct kiln_gpu_product){.dw = dw,
                                                  .rows = rows,
                                                  .cols = cols,
                                                  .tokens = k,
                                                  .precision = workers->kernels->precision,
                                                  .add = add});
}

void kiln_gpu_tell(struct kiln_gpu *gpu, const struct kiln_device *device) { gpu->told = device; }
const char *kiln_gpu_description(const struct kiln_gpu *gpu) { return gpu->description; }
const char *kiln_gpu_numerics(const struct kiln_gpu *gpu) { return gpu->numerics; }
