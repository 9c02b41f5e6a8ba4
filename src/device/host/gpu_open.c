/* SPDX-License-Identifier: MIT
 *
 * gpu_open.c: choosing an OpenCL device for weight gradients, its buffers, and a first product.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "device/host/gpu_int.h"
#include "device/host/head.h"

/* ---- sizes ---------------------------------------------------------------------------------- */

/* What a driver and CLBlast take of the process for themselves: compiled kernels and, where the
 * driver compiles on this machine, a compiler: 72 to 116 MB were measured with PoCL 3.1. */
#define DRIVER_BYTES ((size_t)100 << 20)

static size_t at_least(size_t *most, size_t n) { return *most = kiln_largest(*most, n); }
static size_t tiles(size_t n) { return kiln_round_up(n, KILN_GPU_TILE); }

struct kiln_gpu_room kiln_gpu_room(const struct kiln_gpu_extent *products, size_t n) {
    struct kiln_gpu_room room = {.result = 1, .temp = 1};
    for (size_t i = 0; i < n; i++) {
        const struct kiln_gpu_extent *p = &products[i];
        const bool narrow = p->precision != KILN_PRECISION_FP32;
        const size_t dy = p->rows * p->tokens, x = p->cols * p->tokens, size = narrow ? 2 : 4;
        const bool whole = p->rows % KILN_GPU_TILE == 0 && p->cols % KILN_GPU_TILE == 0;
        at_least(&room.wide[KILN_GPU_DY], dy);
        at_least(&room.wide[KILN_GPU_X], x);
        at_least(&room.narrow[KILN_GPU_DY], narrow ? dy : 1);
        at_least(&room.narrow[KILN_GPU_X], narrow ? x : 1);
        at_least(&room.result, p->rows * p->cols);
        at_least(&room.temp, (tiles(p->rows) + tiles(p->cols)) * tiles(p->tokens) +
                                 (whole ? 0 : tiles(p->rows) * tiles(p->cols)));
        if (p->slots > 0) {
            at_least(&room.slot_dy, kiln_round_up(dy * size, 64));
            at_least(&room.slot_x, kiln_round_up(x * size, 64));
            at_least(&room.slots, kiln_least(p->slots, KILN_GPU_SLOTS));
        }
    }
    return room;
}

static size_t device_bytes(const struct kiln_gpu_room *room) {
    return 2 * (room->narrow[0] + room->narrow[1]) +
           4 * (room->wide[0] + room->wide[1] + KILN_GPU_RESULTS * room->result + room->temp);
}

size_t kiln_gpu_bytes(const struct kiln_gpu_extent *products, size_t n) {
    const struct kiln_gpu_room room = kiln_gpu_room(products, n);
    return device_bytes(&room) + room.slots * (room.slot_dy + room.slot_x) + DRIVER_BYTES;
}

size_t kiln_gpu_extents(const struct kiln_table *table, const struct kiln_micro_batch *shape,
                        enum kiln_precision layers, size_t layer_slots, enum kiln_precision head,
                        size_t head_slots, struct kiln_gpu_extent out[KILN_MATRIX_KINDS]) {
    size_t n = 0;
    for (size_t i = 0; i < table->n_matrices; i++) {
        const struct kiln_matrix *m = &table->matrices[i];
        const bool is_head = m->kind == KILN_MATRIX_HEAD;
        const size_t tokens = shape->batch * shape->seq;
        if (is_head || m->layer == 0) {
            out[n++] = (struct kiln_gpu_extent){
                .rows = m->rows,
                .cols = m->cols,
                .tokens = is_head ? kiln_least(tokens, KILN_HEAD_ROWS)
                                  : shape->batch * kiln_round_up(shape->seq, 16),
                .precision = is_head ? head : layers,
                .slots = is_head ? head_slots : layer_slots,
            };
        }
    }
    return n;
}

/* ---- which device --------------------------------------------------------------------------- */

enum { PLATFORMS = 16, DEVICES = 32, NAME = 128 };

struct choice {
    struct kiln_cl_device *device;
    char name[NAME];
    int rank; /* lower is better */
};

static void text_of(const struct kiln_opencl *cl, struct kiln_cl_device *device, uint32_t what,
                    char *out, size_t room) {
    char text[512] = "";
    if (cl->clGetDeviceInfo(device, what, sizeof text - 1, text, NULL) != KILN_CL_SUCCESS) {
        text[0] = '\0';
    }
    snprintf(out, room, "%s", text[0] ? text : "unnamed");
}

static uint64_t number_of(const struct kiln_opencl *cl, struct kiln_cl_device *device,
                          uint32_t what) {
    uint64_t number = 0;
    (void)cl->clGetDeviceInfo(device, what, sizeof number, &number, NULL);
    return number;
}

static bool contains(const char *text, const char *part) {
    const size_t n = strlen(part);
    for (; *text; text++) {
        if (strncasecmp(text, part, n) == 0) {
            return true;
        }
    }
    return n == 0;
}

/* Names that were found, for the message. */
static void list(char *names, size_t room, const char *name) {
    const size_t used = strlen(names);
    snprintf(names + used, room - used, "%s%s", used ? ", " : "", name);
}

static int rank_of(const struct kiln_opencl *cl, struct kiln_cl_device *device) {
    const uint64_t type = number_of(cl, device, KILN_CL_DEVICE_TYPE);
    return type & KILN_CL_DEVICE_TYPE_GPU ? 0 : type & KILN_CL_DEVICE_TYPE_ACCELERATOR ? 1 : 2;
}

/* The best device of a platform, of those whose names hold `wanted`. */
static void look_at(const struct kiln_opencl *cl, struct kiln_cl_platform *platform,
                    const char *wanted, struct choice *best, char *names, size_t room) {
    struct kiln_cl_device *devices[DEVICES];
    uint32_t n = 0;
    if (cl->clGetDeviceIDs(platform, KILN_CL_DEVICE_TYPE_ALL, DEVICES, devices, &n) !=
        KILN_CL_SUCCESS) {
        n = 0;
    }
    for (uint32_t i = 0; i < n && i < DEVICES; i++) {
        char name[NAME];
        text_of(cl, devices[i], KILN_CL_DEVICE_NAME, name, sizeof name);
        list(names, room, name);
        const int rank = rank_of(cl, devices[i]);
        if (contains(name, wanted) && (!best->device || rank < best->rank)) {
            *best = (struct choice){.device = devices[i], .rank = rank};
            memcpy(best->name, name, sizeof name);
        }
    }
}

static enum kiln_status choose(struct kiln_gpu *gpu, struct kiln_err *err) {
    const struct kiln_opencl *cl = &gpu->cl;
    struct kiln_cl_platform *platforms[PLATFORMS];
    struct choice best = {.device = NULL};
    char names[300] = "", text[64];
    uint32_t n = 0;
    const int32_t asked = cl->clGetPlatformIDs(PLATFORMS, platforms, &n);
    KILN_REQUIRE(asked == KILN_CL_SUCCESS || asked == KILN_CL_PLATFORM_NOT_FOUND_KHR, err,
                 KILN_EDEVICE, "--dw gpu: asking OpenCL for its platforms failed: %s",
                 kiln_opencl_result(asked, text));
    KILN_REQUIRE(asked == KILN_CL_SUCCESS && n > 0, err, KILN_EUNSUPPORTED,
                 "--dw gpu: OpenCL is there and knows no platform: no driver is installed; install "
                 "that of the GPU (Debian: mesa-opencl-icd, intel-opencl-icd, nvidia-opencl-icd; "
                 "pocl-opencl-icd computes on the CPU), or leave out --dw gpu");
    const char *wanted = getenv("KILN_GPU");
    wanted = wanted ? wanted : "";
    for (uint32_t i = 0; i < n && i < PLATFORMS; i++) {
        look_at(cl, platforms[i], wanted, &best, names, sizeof names);
    }
    KILN_REQUIRE(names[0], err, KILN_EUNSUPPORTED,
                 "--dw gpu: OpenCL knows %u platform%s and no device: is the GPU there, and may "
                 "this user open it (groups video and render)? Leave out --dw gpu otherwise",
                 (unsigned)n, n == 1 ? "" : "s");
    KILN_REQUIRE(best.device, err, KILN_EUNSUPPORTED,
                 "--dw gpu: KILN_GPU=%.60s is part of no device's name; there are: %s", wanted,
                 names);
    gpu->device = best.device;
    memcpy(gpu->name, best.name, sizeof gpu->name);
    text_of(cl, best.device, KILN_CL_DRIVER_VERSION, gpu->driver, sizeof gpu->driver);
    snprintf(gpu->description, sizeof gpu->description, "%.100s (driver %.40s)", gpu->name,
             gpu->driver);
    char all[sizeof gpu->name + sizeof gpu->driver + sizeof cl->clblast + 2];
    snprintf(all, sizeof all, "%s/%s/%s", gpu->name, gpu->driver, cl->clblast);
    snprintf(gpu->numerics, sizeof gpu->numerics, "gpu-%08" PRIx32,
             kiln_crc32c(0, all, strlen(all)));
    return KILN_OK;
}

_Static_assert((int)NAME == sizeof((struct kiln_gpu *)0)->name, "names are copied whole");

/* ---- buffers and kernels -------------------------------------------------------------------- */

/* One work item an element: `width` is what lies between two rows of the narrow operand. */
static const char kernel_text[] =
    "#define AT size_t t = get_global_id(0), r = get_global_id(1), b = get_global_id(2);\\\n"
    "    size_t in = (b * get_global_size(1) + r) * width + t;\\\n"
    "    size_t out = (r * get_global_size(2) + b) * get_global_size(0) + t\n"
    "__kernel void widen_fp16(__global const half *narrow, __global float *wide, ulong width) {\n"
    "    AT; wide[out] = vload_half(in, narrow);\n"
    "}\n"
    "__kernel void widen_bf16(__global const ushort *narrow, __global float *wide, ulong width) {\n"
    "    AT; wide[out] = as_float((uint)narrow[in] << 16);\n"
    "}\n";

static enum kiln_status call_failed(const struct kiln_gpu *gpu, const char *what, int32_t result,
                                    struct kiln_err *err) {
    char text[64];
    return KILN_FAIL(err, KILN_EDEVICE,
                     "--dw gpu: %s on %s failed: %s; look at the driver, name another device with "
                     "KILN_GPU, or leave out --dw gpu",
                     what, gpu->description, kiln_opencl_result(result, text));
}

static enum kiln_status build(struct kiln_gpu *gpu, struct kiln_err *err) {
    const struct kiln_opencl *cl = &gpu->cl;
    const char *text = kernel_text;
    char log[256] = "";
    int32_t result;
    gpu->program = cl->clCreateProgramWithSource(gpu->context, 1, &text, NULL, &result);
    if (!gpu->program) {
        return call_failed(gpu, "creating a program", result, err);
    }
    result = cl->clBuildProgram(gpu->program, 1, &gpu->device, "", NULL, NULL);
    if (result != KILN_CL_SUCCESS) {
        (void)cl->clGetProgramBuildInfo(gpu->program, gpu->device, KILN_CL_PROGRAM_BUILD_LOG,
                                        sizeof log - 1, log, NULL);
        return KILN_FAIL(err, KILN_EDEVICE,
                         "--dw gpu: %s does not compile a kernel that widens operands: %s; look at "
                         "the driver, or leave out --dw gpu",
                         gpu->description, log[0] ? log : "it does not say why");
    }
    gpu->widen_fp16 = cl->clCreateKernel(gpu->program, "widen_fp16", &result);
    if (!gpu->widen_fp16) {
        return call_failed(gpu, "creating a kernel", result, err);
    }
    gpu->widen_bf16 = cl->clCreateKernel(gpu->program, "widen_bf16", &result);
    return gpu->widen_bf16 ? KILN_OK : call_failed(gpu, "creating a kernel", result, err);
}

/* A buffer that has its memory now: drivers put off what nobody has written yet. */
static enum kiln_status take(struct kiln_gpu *gpu, uint64_t flags, size_t bytes,
                             struct kiln_cl_buffer **out, struct kiln_err *err) {
    static const unsigned char zero;
    char text[64];
    int32_t result = KILN_CL_SUCCESS;
    *out = gpu->cl.clCreateBuffer(gpu->context, flags, bytes, NULL, &result);
    if (*out) {
        result = gpu->cl.clEnqueueFillBuffer(gpu->queue, *out, &zero, 1, 0, bytes, 0, NULL, NULL);
        result = result ? result : gpu->cl.clFinish(gpu->queue);
    }
    KILN_REQUIRE(*out && result == KILN_CL_SUCCESS, err, KILN_ENOMEM,
                 "--dw gpu: a buffer of %.1f MB, of %.1f MB in all, on %s: %s; take a smaller "
                 "--batch, or leave out --dw gpu",
                 (double)bytes * 1e-6, (double)device_bytes(&gpu->room) * 1e-6, gpu->description,
                 kiln_opencl_result(result, text));
    return KILN_OK;
}

/* Compare with what the device says of itself before anything is allocated. */
static enum kiln_status check_memory(const struct kiln_gpu *gpu, struct kiln_err *err) {
    const struct kiln_gpu_room *room = &gpu->room;
    const uint64_t all = number_of(&gpu->cl, gpu->device, KILN_CL_DEVICE_GLOBAL_MEM_SIZE);
    const uint64_t one = number_of(&gpu->cl, gpu->device, KILN_CL_DEVICE_MAX_MEM_ALLOC_SIZE);
    const size_t floats = kiln_largest(kiln_largest(room->wide[0], room->wide[1]),
                                       kiln_largest(room->result, room->temp));
    KILN_REQUIRE(device_bytes(room) <= all, err, KILN_ENOMEM,
                 "--dw gpu takes %.1f MB on the device, and %s has %.1f MB; take a smaller "
                 "--batch, or leave out --dw gpu",
                 (double)device_bytes(room) * 1e-6, gpu->description, (double)all * 1e-6);
    KILN_REQUIRE(4 * floats <= one, err, KILN_ENOMEM,
                 "--dw gpu takes a buffer of %.1f MB, and %s gives at most %.1f MB at once; take a "
                 "smaller --batch, or leave out --dw gpu",
                 4e-6 * (double)floats, gpu->description, (double)one * 1e-6);
    return KILN_OK;
}

/* CLBlast knows best what its kernels for this device copy; the plan's is a bound for the usual
 * tiles. */
static enum kiln_status grow_temp(struct kiln_gpu *gpu, const struct kiln_gpu_extent *p,
                                  struct kiln_err *err) {
    static const int turns[2] = {KILN_CLBLAST_NO, KILN_CLBLAST_YES};
    for (int i = 0; i < 4; i++) {
        const int turn_x = turns[i & 1], turn_dy = turns[i >> 1];
        size_t bytes = 0;
        const int result = gpu->cl.CLBlastSGemmTempBufferSize(
            KILN_CLBLAST_COL_MAJOR, turn_x, turn_dy, p->cols, p->rows, p->tokens, 0,
            turn_x == KILN_CLBLAST_NO ? p->cols : p->tokens, 0,
            turn_dy == KILN_CLBLAST_NO ? p->tokens : p->rows, 0, p->cols, &gpu->queue, &bytes);
        if (result != KILN_CL_SUCCESS) {
            return call_failed(gpu, "asking CLBlast for its temporary memory", result, err);
        }
        at_least(&gpu->room.temp, (bytes + 3) / 4);
    }
    return KILN_OK;
}

static enum kiln_status allocate(struct kiln_gpu *gpu, struct kiln_err *err) {
    const struct kiln_gpu_room *room = &gpu->room;
    const uint64_t plain = KILN_CL_MEM_READ_WRITE;
    for (size_t i = 0; i < KILN_GPU_OPERANDS; i++) {
        KILN_TRY(take(gpu, plain, 2 * room->narrow[i], &gpu->narrow[i], err));
        KILN_TRY(take(gpu, plain, 4 * room->wide[i], &gpu->wide[i], err));
    }
    for (size_t i = 0; i < KILN_GPU_RESULTS; i++) {
        KILN_TRY(take(gpu, plain, 4 * room->result, &gpu->results[i].buffer, err));
    }
    KILN_TRY(take(gpu, plain, 4 * room->temp, &gpu->temp, err));
    if (room->slots > 0) {
        int32_t result;
        const size_t each = room->slot_dy + room->slot_x, bytes = room->slots * each;
        KILN_TRY(take(gpu, plain | KILN_CL_MEM_ALLOC_HOST_PTR, bytes, &gpu->staging, err));
        gpu->mapped = gpu->cl.clEnqueueMapBuffer(gpu->queue, gpu->staging, KILN_CL_TRUE,
                                                 KILN_CL_MAP_WRITE_INVALIDATE_REGION, 0, bytes, 0,
                                                 NULL, NULL, &result);
        if (!gpu->mapped) {
            return call_failed(gpu, "mapping memory for operands", result, err);
        }
        for (size_t i = 0; i < room->slots; i++) {
            gpu->slots[i] = (struct kiln_gpu_slot){.dy = gpu->mapped + i * each,
                                                   .x = gpu->mapped + i * each + room->slot_dy};
        }
    }
    return KILN_OK;
}

/* ---- a first product ------------------------------------------------------------------------ */

enum { PROBE_SIDE = 512, PROBE_STEP = 37 };

/* Whole numbers -2..2 of no period that a tile has. */
static int probe_value(size_t channel, size_t token, size_t seed) {
    return (int)((channel * 7 + token * 13 + (channel ^ token) % 11 + seed) % 5) - 2;
}

static void put(void *at, size_t i, int value, enum kiln_precision precision) {
    const float number = (float)value;
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    if (precision == KILN_PRECISION_FP32) {
        ((float *)at)[i] = number;
    } else if (precision == KILN_PRECISION_BF16) {
        ((uint16_t *)at)[i] = (uint16_t)(bits >> 16);
    } else { /* 0, 1 and 2 in fp16 */
        static const uint16_t halves[] = {0, 0x3c00, 0x4000};
        ((uint16_t *)at)[i] = (uint16_t)(halves[abs(value)] | (value < 0 ? 0x8000 : 0));
    }
}

struct probe {
    size_t rows, cols, tokens;
    enum kiln_precision precision;
    void *dy, *x; /* token-major, and channel-major */
    float *dw;
};

static void fill_probe(const struct probe *p) {
    for (size_t t = 0; t < p->tokens; t++) {
        for (size_t r = 0; r < p->rows; r++) {
            put(p->dy, t * p->rows + r, probe_value(r, t, 0), p->precision);
        }
        for (size_t c = 0; c < p->cols; c++) {
            put(p->x, c * p->tokens + t, probe_value(c, t, 3), p->precision);
        }
    }
    for (size_t i = 0; i < p->rows * p->cols; i++) {
        p->dw[i] = 1.0f;
    }
}

/* Sums of small whole numbers are exact in any order: 1 + twice the product. */
static enum kiln_status check_probe(const struct kiln_gpu *gpu, const struct probe *p,
                                    struct kiln_err *err) {
    const size_t all = p->rows * p->cols;
    for (size_t i = 0; i < all;
         i = i + PROBE_STEP < all || i + 1 == all ? i + PROBE_STEP : all - 1) {
        int want = 0;
        for (size_t t = 0; t < p->tokens; t++) {
            want += probe_value(i / p->cols, t, 0) * probe_value(i % p->cols, t, 3);
        }
        const float expected = (float)(1 + 2 * want);
        KILN_REQUIRE(p->dw[i] == expected, err, KILN_EDEVICE,
                     "--dw gpu: %s gives %g where %g is right, at element %zu of a product of "
                     "whole numbers, %zu x %zu over %zu: its driver is not to be trusted; name "
                     "another device with KILN_GPU, or leave out --dw gpu",
                     gpu->description, (double)p->dw[i], (double)expected, i, p->rows, p->cols,
                     p->tokens);
    }
    return KILN_OK;
}

static enum kiln_status run_probe(struct kiln_gpu *gpu, const struct probe *p,
                                  struct kiln_err *err) {
    const struct kiln_gpu_product product = {
        .dw = p->dw,
        .rows = p->rows,
        .cols = p->cols,
        .sequences = 1,
        .tokens = p->tokens,
        .precision = p->precision,
        .dy = {.at = p->dy, .token_major = true},
        .x = {.at = p->x, .width = p->tokens, .sequence = p->cols * p->tokens},
        .add = true,
    };
    fill_probe(p);
    (void)kiln_gpu_post(gpu, &product);
    (void)kiln_gpu_post(gpu, &product);
    KILN_TRY(kiln_gpu_drain(gpu, err));
    return check_probe(gpu, p, err);
}

/* CLBlast compiles its kernels for the first product of a kind, small or large: here, where a
 * device that cannot do it is an answer, and not in the middle of a step. */
static enum kiln_status probe(struct kiln_gpu *gpu, const struct kiln_gpu_extent *extent,
                              struct kiln_err *err) {
    struct probe p = {.rows = kiln_least(extent->rows, PROBE_SIDE),
                      .cols = kiln_least(extent->cols, PROBE_SIDE),
                      .tokens = kiln_least(extent->tokens, PROBE_SIDE),
                      .precision = extent->precision};
    p.dy = kiln_alloc(p.rows * p.tokens, sizeof(float));
    p.x = kiln_alloc(p.cols * p.tokens, sizeof(float));
    p.dw = kiln_alloc(p.rows * p.cols, sizeof(float));
    const enum kiln_status status =
        p.dy && p.x && p.dw
            ? run_probe(gpu, &p, err)
            : KILN_FAIL(err, KILN_ENOMEM, "--dw gpu: no memory for a first product");
    if (status != KILN_OK) { /* nothing may still write what goes now */
        (void)gpu->cl.clFinish(gpu->queue);
    }
    kiln_free(p.dy);
    kiln_free(p.x);
    kiln_free(p.dw);
    return status;
}

/* ---- opening and closing -------------------------------------------------------------------- */

static enum kiln_status open_parts(struct kiln_gpu *gpu, const struct kiln_gpu_extent *products,
                                   size_t n, struct kiln_err *err) {
    const struct kiln_opencl *cl = &gpu->cl;
    int32_t result = KILN_CL_SUCCESS;
    KILN_TRY(choose(gpu, err));
    gpu->room = kiln_gpu_room(products, n);
    KILN_TRY(check_memory(gpu, err));
    gpu->context = cl->clCreateContext(NULL, 1, &gpu->device, NULL, NULL, &result);
    if (!gpu->context) {
        return call_failed(gpu, "creating a context", result, err);
    }
    gpu->queue = cl->clCreateCommandQueue(gpu->context, gpu->device, 0, &result);
    if (!gpu->queue) {
        return call_failed(gpu, "creating a queue", result, err);
    }
    KILN_TRY(build(gpu, err));
    for (size_t i = 0; i < n; i++) {
        KILN_TRY(grow_temp(gpu, &products[i], err));
    }
    KILN_TRY(check_memory(gpu, err));
    KILN_TRY(allocate(gpu, err));
    for (size_t i = 0; i < n; i++) {
        KILN_TRY(probe(gpu, &products[i], err));
    }
    return KILN_OK;
}

enum kiln_status kiln_gpu_open_with(const struct kiln_opencl *cl,
                                    const struct kiln_gpu_extent *products, size_t n,
                                    struct kiln_gpu **out, struct kiln_err *err) {
    *out = NULL;
    struct kiln_gpu *gpu = kiln_alloc(1, sizeof *gpu);
    KILN_REQUIRE(gpu, err, KILN_ENOMEM, "no memory for the GPU's queue");
    gpu->cl = *cl;
    const enum kiln_status status = open_parts(gpu, products, n, err);
    if (status != KILN_OK) {
        kiln_gpu_close(gpu);
        return status;
    }
    *out = gpu;
    return KILN_OK;
}

enum kiln_status kiln_gpu_open(const struct kiln_gpu_extent *products, size_t n,
                               struct kiln_gpu **out, struct kiln_err *err) {
    struct kiln_opencl cl;
    *out = NULL;
    KILN_TRY(kiln_opencl_load(&cl, err));
    return kiln_gpu_open_with(&cl, products, n, out, err);
}

static void give_back(const struct kiln_opencl *cl, struct kiln_cl_buffer *buffer) {
    if (buffer) {
        (void)cl->clReleaseMemObject(buffer);
    }
}

static void close_buffers(struct kiln_gpu *gpu) {
    const struct kiln_opencl *cl = &gpu->cl;
    if (gpu->mapped) {
        (void)cl->clEnqueueUnmapMemObject(gpu->queue, gpu->staging, gpu->mapped, 0, NULL, NULL);
        (void)cl->clFinish(gpu->queue);
    }
    for (size_t i = 0; i < KILN_GPU_OPERANDS; i++) {
        give_back(cl, gpu->narrow[i]);
        give_back(cl, gpu->wide[i]);
    }
    for (size_t i = 0; i < KILN_GPU_RESULTS; i++) {
        give_back(cl, gpu->results[i].buffer);
    }
    give_back(cl, gpu->temp);
    give_back(cl, gpu->staging);
}

void kiln_gpu_close(struct kiln_gpu *gpu) {
    if (gpu == NULL) {
        return;
    }
    const struct kiln_opencl *cl = &gpu->cl;
    if (gpu->queue) {
        struct kiln_err ignored;
        gpu->told = NULL;
        const enum kiln_status drained = kiln_gpu_drain(gpu, &ignored);
        (void)drained; /* who wanted to know has drained before */
        close_buffers(gpu);
        (void)cl->CLBlastClearCache(); /* it holds programs of the context */
    }
    if (gpu->widen_fp16) {
        (void)cl->clReleaseKernel(gpu->widen_fp16);
    }
    if (gpu->widen_bf16) {
        (void)cl->clReleaseKernel(gpu->widen_bf16);
    }
    if (gpu->program) {
        (void)cl->clReleaseProgram(gpu->program);
    }
    if (gpu->queue) {
        (void)cl->clReleaseCommandQueue(gpu->queue);
    }
    if (gpu->context) {
        (void)cl->clReleaseContext(gpu->context);
    }
    kiln_free(gpu);
}
