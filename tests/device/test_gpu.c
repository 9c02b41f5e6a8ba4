/* SPDX-License-Identifier: MIT
 *
 * Weight gradients on an OpenCL device (src/device/host/gpu.h), PoCL for one: against sums in
 * double, in every layout and precision; and what is said when something is missing or fails.
 * Without OpenCL, CLBlast or a device the tests are skipped: scripts/setup --gpu installs them.
 */
#include "device/host/gpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "device/host/dw.h"
#include "device/host/gpu_int.h"
#include "device/host/opencl.h"
#include "kernel/lab.h"

#if __has_include(<CL/cl.h>)
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#define SAME(name) _Static_assert((int64_t)KILN_##name == (int64_t)name, #name)
SAME(CL_SUCCESS);
SAME(CL_DEVICE_NOT_FOUND);
SAME(CL_MEM_OBJECT_ALLOCATION_FAILURE);
SAME(CL_OUT_OF_RESOURCES);
SAME(CL_OUT_OF_HOST_MEMORY);
SAME(CL_TRUE);
SAME(CL_FALSE);
SAME(CL_COMPLETE);
SAME(CL_DEVICE_TYPE);
SAME(CL_DEVICE_MAX_MEM_ALLOC_SIZE);
SAME(CL_DEVICE_GLOBAL_MEM_SIZE);
SAME(CL_DEVICE_NAME);
SAME(CL_DRIVER_VERSION);
SAME(CL_PROGRAM_BUILD_LOG);
SAME(CL_EVENT_COMMAND_EXECUTION_STATUS);
SAME(CL_DEVICE_TYPE_GPU);
SAME(CL_DEVICE_TYPE_ACCELERATOR);
SAME(CL_DEVICE_TYPE_ALL);
SAME(CL_MEM_READ_WRITE);
SAME(CL_MEM_ALLOC_HOST_PTR);
SAME(CL_MAP_WRITE_INVALIDATE_REGION);
#endif

/* Kernels are compiled for the first product of a process, on the CPU where that is the device. */
enum { SECONDS = 300 };

static struct kiln_gpu *open_or_skip(const struct kiln_gpu_extent *extents, size_t n) {
    struct kiln_gpu *gpu;
    struct kiln_err err;
    const enum kiln_status status = kiln_gpu_open(extents, n, &gpu, &err);
    if (status == KILN_EUNSUPPORTED) {
        SKIP("%s", err.message);
    }
    CHECK_OK(status, &err);
    return gpu;
}

static struct kiln_opencl load_or_skip(void) {
    const struct kiln_gpu_extent small = {8, 8, 16, KILN_PRECISION_FP32, 0};
    struct kiln_opencl cl;
    kiln_gpu_close(open_or_skip(&small, 1));
    CHECK_OK(kiln_opencl_load(&cl, NULL), NULL);
    return cl;
}

/* ---- operands of a product ------------------------------------------------------------------- */

struct work {
    struct kiln_gpu_product product;
    float *start, *dw, *dy, *x; /* dy, x: the values, [channels][k] */
};

/* Values as they are after rounding to the precision, and the operand that holds them. */
static struct kiln_gpu_operand operand_of(size_t n, size_t sequences, size_t tokens, size_t width,
                                          bool token_major, enum kiln_precision precision,
                                          float **values) {
    struct kiln_kernels k;
    const size_t all = sequences * tokens, size = precision == KILN_PRECISION_FP32 ? 4 : 2;
    const size_t extra = token_major ? 0 : 3 * width; /* of other channels, behind a sequence */
    const size_t sequence = n * width + extra;
    char *at = lab_memory(token_major ? all * n : sequences * sequence, size, 0);
    CHECK_OK(
        kiln_kernels_choose(
            precision == KILN_PRECISION_BF16 ? KILN_PRECISION_BF16 : KILN_PRECISION_FP32, &k, NULL),
        NULL);
    *values = lab_memory(n * all, sizeof(float), 0);
    for (size_t c = 0; c < n; c++) {
        for (size_t t = 0; t < all; t++) {
            float value = lab_normal();
            const size_t i =
                token_major ? t * n + c : t / tokens * sequence + c * width + t % tokens;
            if (precision == KILN_PRECISION_FP16) {
                k.half_of((uint16_t *)(at + i * size), &value, 1);
                k.half_to(&value, (uint16_t *)(at + i * size), 1);
            } else {
                k.round(at + i * size, &value, 1);
                k.widen(&value, at + i * size, 1);
            }
            (*values)[c * all + t] = value;
        }
    }
    return (struct kiln_gpu_operand){at, token_major, width, sequence};
}

struct form {
    size_t rows, cols, sequences, tokens, width;
    enum kiln_precision precision;
    bool dy_token_major, x_token_major;
};

static struct work make_work(const struct form *f) {
    struct work w = {.product = {.rows = f->rows,
                                 .cols = f->cols,
                                 .sequences = f->sequences,
                                 .tokens = f->tokens,
                                 .precision = f->precision}};
    w.product.dy = operand_of(f->rows, f->sequences, f->tokens, f->width, f->dy_token_major,
                              f->precision, &w.dy);
    w.product.x = operand_of(f->cols, f->sequences, f->tokens, f->width, f->x_token_major,
                             f->precision, &w.x);
    w.start = lab_floats(f->rows * f->cols, 0, 1.0F);
    w.dw = lab_memory(f->rows * f->cols, sizeof(float), 1); /* NaN */
    w.product.dw = w.dw;
    return w;
}

static struct kiln_gpu_extent extent_of(const struct form *f) {
    const size_t k = f->sequences * (f->width > f->tokens ? f->width : f->tokens);
    return (struct kiln_gpu_extent){f->rows, f->cols, k, f->precision, 0};
}

/* start (or nothing) + `times` the product. */
static void check_sums(const struct work *w, bool add, double times) {
    const size_t k = w->product.sequences * w->product.tokens, cols = w->product.cols;
    for (size_t i = 0; i < w->product.rows * cols; i++) {
        double sum = 0, size = 0;
        for (size_t t = 0; t < k; t++) {
            const double term = (double)w->dy[i / cols * k + t] * (double)w->x[i % cols * k + t];
            sum += term;
            size += fabs(term);
        }
        const double before = add ? (double)w->start[i] : 0.0;
        CHECK_CLOSE(w->dw[i], before + times * sum,
                    (fabs(before) + times * size) * ((double)k + times) * U);
    }
}

static const struct form forms[] = {
    {1, 1, 1, 1, 1, KILN_PRECISION_FP32, true, true},
    {130, 70, 1, 40, 40, KILN_PRECISION_FP32, true, true},
    {130, 70, 1, 40, 40, KILN_PRECISION_FP32, false, true},
    {70, 130, 1, 33, 33, KILN_PRECISION_BF16, true, true},
    {256, 128, 1, 64, 64, KILN_PRECISION_BF16, true, true},
    {70, 130, 1, 40, 40, KILN_PRECISION_BF16, false, true},
    {5, 300, 2, 20, 32, KILN_PRECISION_FP16, false, false},
    {257, 64, 3, 33, 48, KILN_PRECISION_FP16, false, false},
    {64, 257, 1, 100, 112, KILN_PRECISION_FP16, false, false},
    {640, 600, 4, 129, 144, KILN_PRECISION_FP16, false, false}, /* large: CLBlast's other way */
    {600, 640, 1, 500, 500, KILN_PRECISION_BF16, true, true},
};
enum { FORMS = sizeof forms / sizeof forms[0] };

TEST_WITHIN(a_gpu_makes_the_sums_over_tokens, SECONDS) {
    struct kiln_gpu_extent extents[FORMS];
    for (size_t i = 0; i < FORMS; i++) {
        extents[i] = extent_of(&forms[i]);
    }
    struct kiln_gpu *gpu = open_or_skip(extents, FORMS);
    for (size_t i = 0; i < FORMS; i++) {
        for (int add = 0; add < 2; add++) {
            struct work w = make_work(&forms[i]);
            const size_t n = forms[i].rows * forms[i].cols;
            float *again = lab_memory(n, sizeof *again, 0);
            w.product.add = add;
            for (int run = 0; run < 2; run++) {
                if (add) {
                    memcpy(w.dw, w.start, n * sizeof *w.dw);
                }
                (void)kiln_gpu_post(gpu, &w.product);
                CHECK_OK(kiln_gpu_drain(gpu, NULL), NULL);
                check_sums(&w, add, 1);
                if (run == 0) {
                    memcpy(again, w.dw, n * sizeof *again);
                }
            }
            CHECK_BYTES(w.dw, again, n * sizeof *again);
            lab_check_guards();
        }
    }
    kiln_gpu_close(gpu);
}

TEST_WITHIN(a_gpu_keeps_apart_what_is_added_in_turns, SECONDS) {
    /* More gradients than result buffers, taken in turns and in pairs. */
    static const size_t order[] = {0, 0, 1, 0, 1, 2, 2, 3, 0, 1, 1, 3, 2, 0};
    static const double times[] = {5, 4, 3, 2};
    struct work w[4];
    struct form f = {48, 80, 2, 20, 32, KILN_PRECISION_FP16, false, false};
    const struct kiln_gpu_extent extent = extent_of(&f);
    struct kiln_gpu *gpu = open_or_skip(&extent, 1);
    for (size_t i = 0; i < 4; i++) {
        w[i] = make_work(&f);
        w[i].product.add = true;
        memcpy(w[i].dw, w[i].start, 48 * 80 * sizeof(float));
    }
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        (void)kiln_gpu_post(gpu, &w[order[i]].product);
    }
    CHECK_OK(kiln_gpu_drain(gpu, NULL), NULL);
    for (size_t i = 0; i < 4; i++) {
        check_sums(&w[i], true, times[i]);
    }
    /* Behind a drain the host's values count. */
    memcpy(w[0].dw, w[0].start, 48 * 80 * sizeof(float));
    (void)kiln_gpu_post(gpu, &w[0].product);
    w[1].product.add = false;
    (void)kiln_gpu_post(gpu, &w[1].product);
    CHECK_OK(kiln_gpu_drain(gpu, NULL), NULL);
    check_sums(&w[0], true, 1);
    check_sums(&w[1], false, 1);
    kiln_gpu_close(gpu);
    lab_check_guards();
}

TEST_WITHIN(operands_that_were_sent_may_change, SECONDS) {
    struct form f = {48, 80, 2, 20, 32, KILN_PRECISION_FP16, false, false};
    const struct kiln_gpu_extent extent = extent_of(&f);
    struct kiln_gpu *gpu = open_or_skip(&extent, 1);
    for (size_t i = 0; i < 300; i++) { /* more commands than are remembered */
        struct work w = make_work(&f);
        const uint64_t ticket = kiln_gpu_post(gpu, &w.product);
        kiln_gpu_sent(gpu, ticket);
        memset((void *)(uintptr_t)w.product.dy.at, 0xff, f.rows * f.width * 2);
        memset((void *)(uintptr_t)w.product.x.at, 0xff, f.cols * f.width * 2);
        if (i % 100 == 0) {
            CHECK_OK(kiln_gpu_drain(gpu, NULL), NULL);
            check_sums(&w, false, 1);
        } else if (i % 7 == 0) {
            CHECK_OK(kiln_gpu_drain(gpu, NULL), NULL);
        }
        CHECK_OK(kiln_gpu_drain(gpu, NULL), NULL); /* before its memory goes */
        lab_check_guards();
    }
    kiln_gpu_close(gpu);
}

TEST_WITHIN(an_overflow_shows_in_a_gpus_gradient_and_ends_with_it, SECONDS) {
    struct form f = {300, 80, 1, 32, 32, KILN_PRECISION_FP16, false, false};
    const struct kiln_gpu_extent extent = extent_of(&f);
    struct kiln_gpu *gpu = open_or_skip(&extent, 1);
    struct work w = make_work(&f);
    uint16_t *dy = (uint16_t *)(uintptr_t)w.product.dy.at;
    const uint16_t before = dy[5], infinite = 0x7c00, nan = 0x7e00;
    dy[5] = infinite; /* channel 0 */
    (void)kiln_gpu_post(gpu, &w.product);
    CHECK_OK(kiln_gpu_drain(gpu, NULL), NULL);
    for (size_t c = 0; c < 80; c++) {
        CHECK(!isfinite(w.dw[c]));
    }
    dy[5] = nan;
    (void)kiln_gpu_post(gpu, &w.product);
    CHECK_OK(kiln_gpu_drain(gpu, NULL), NULL);
    CHECK(isnan(w.dw[0]) && isfinite(w.dw[80]));
    dy[5] = before;
    for (size_t i = 0; i < KILN_GPU_RESULTS; i++) { /* in every buffer that held them */
        float *dw = lab_memory(300 * 80, sizeof *dw, 0);
        w.dw = w.product.dw = dw;
        (void)kiln_gpu_post(gpu, &w.product);
        CHECK_OK(kiln_gpu_drain(gpu, NULL), NULL);
        check_sums(&w, false, 1);
    }
    kiln_gpu_close(gpu);
    lab_check_guards();
}

/* ---- rows of operands ------------------------------------------------------------------------ */

static void check_rows(enum kiln_precision precision, size_t ld) {
    enum { K = 130, ROWS = 90, COLS = 72, TIMES = 6 };
    const struct kiln_gpu_extent extent = {ROWS, COLS, K, precision, 2};
    struct kiln_gpu *gpu = open_or_skip(&extent, 1);
    struct kiln_kernels k;
    struct kiln_workers workers;
    struct kiln_pool *pool;
    CHECK_OK(kiln_kernels_choose(precision, &k, NULL), NULL);
    CHECK_OK(kiln_pool_create(2, &pool, NULL), NULL);
    CHECK_OK(kiln_workers_open(&workers, &k, pool, KILN_GEMM_SCRATCH, NULL), NULL);
    const size_t size = k.operand_bytes;
    void *dy = lab_memory(K * ld, size, 0), *x = lab_memory(K * COLS, size, 0);
    double *want = kiln_alloc(ROWS * COLS, sizeof *want);
    float *got = lab_memory(ROWS * COLS, sizeof *got, 0), *sums = lab_memory(ROWS * COLS, 4, 0);
    for (size_t i = 0; i < TIMES; i++) { /* more than there are slots; operands do not stay */
        float *left = lab_floats(K * ROWS, 0, 1.0F), *right = lab_floats(K * COLS, 0, 1.0F);
        for (size_t t = 0; t < K; t++) {
            k.round((char *)dy + t * ld * size, left + t * ROWS, ROWS);
            k.widen(left + t * ROWS, (char *)dy + t * ld * size, ROWS);
        }
        k.round(x, right, K * COLS);
        k.widen(right, x, K * COLS);
        for (size_t at = 0; at < ROWS * COLS; at++) {
            for (size_t t = 0; t < K; t++) {
                want[at] +=
                    (double)left[t * ROWS + at / COLS] * (double)right[t * COLS + at % COLS];
            }
        }
        kiln_gpu_rows(gpu, &workers, dy, ld, x, K, ROWS, COLS, got, i > 0);
        memset(dy, 0xff, K * ld * size);
    }
    for (size_t at = 0; at < ROWS * COLS; at++) {
        sums[at] = (float)want[at];
    }
    kiln_free(want);
    CHECK_OK(kiln_gpu_drain(gpu, NULL), NULL);
    CHECK_NEAR_NORM(got, sums, ROWS * COLS, 2e-6);
    kiln_gpu_close(gpu);
    kiln_workers_close(&workers);
    kiln_pool_destroy(pool);
    lab_check_guards();
}

TEST_WITHIN(a_gpu_takes_rows_that_do_not_stay, SECONDS) {
    for (size_t ld = 90; ld <= 120; ld += 30) {
        check_rows(KILN_PRECISION_FP32, ld);
        check_rows(KILN_PRECISION_BF16, ld);
    }
}

/* ---- what is missing, what fails ------------------------------------------------------------- */

static const struct kiln_gpu_extent small = {64, 48, 32, KILN_PRECISION_FP32, 1};

TEST(a_machine_without_opencl_or_clblast_is_told_what_to_install) {
    struct kiln_opencl cl;
    struct kiln_err err;
    setenv("KILN_OPENCL", "/nowhere/libOpenCL.so", 1);
    CHECK_FAILS(kiln_opencl_load(&cl, &err), KILN_EUNSUPPORTED, &err);
    CHECK_CONTAINS(err.message, "KILN_OPENCL=/nowhere/libOpenCL.so");
    unsetenv("KILN_OPENCL");
    setenv("KILN_CLBLAST", "/nowhere/libclblast.so", 1);
    const enum kiln_status status = kiln_opencl_load(&cl, &err);
    CHECK_FAILS(status, KILN_EUNSUPPORTED, &err);
    CHECK_CONTAINS(err.message, "--dw gpu"); /* of the one or the other */
    setenv("KILN_OPENCL", "libc.so.6", 1);
    unsetenv("KILN_CLBLAST");
    CHECK_FAILS(kiln_opencl_load(&cl, &err), KILN_EUNSUPPORTED, &err);
}

/* Functions of a driver that lies. */
static int32_t no_platform(uint32_t room, struct kiln_cl_platform **out, uint32_t *n) {
    (void)room;
    (void)out;
    *n = 0;
    return KILN_CL_PLATFORM_NOT_FOUND_KHR;
}
static int32_t no_device(struct kiln_cl_platform *platform, uint64_t type, uint32_t room,
                         struct kiln_cl_device **out, uint32_t *n) {
    (void)platform;
    (void)type;
    (void)room;
    (void)out;
    *n = 0;
    return KILN_CL_DEVICE_NOT_FOUND;
}

static struct kiln_opencl true_cl;
static uint32_t small_what;
static uint64_t small_value;
static int32_t small_info(struct kiln_cl_device *device, uint32_t what, size_t room, void *out,
                          size_t *n) {
    if (what == small_what) {
        memcpy(out, &small_value, sizeof small_value);
        return KILN_CL_SUCCESS;
    }
    return true_cl.clGetDeviceInfo(device, what, room, out, n);
}
static struct kiln_cl_buffer *no_buffer(struct kiln_cl_context *context, uint64_t flags,
                                        size_t bytes, void *host, int32_t *result) {
    (void)context;
    (void)flags;
    (void)bytes;
    (void)host;
    *result = KILN_CL_MEM_OBJECT_ALLOCATION_FAILURE;
    return NULL;
}
static int32_t no_program(struct kiln_cl_program *program, uint32_t n,
                          struct kiln_cl_device *const *devices, const char *options,
                          void (*notify)(struct kiln_cl_program *, void *), void *user) {
    (void)program;
    (void)n;
    (void)devices;
    (void)options;
    (void)notify;
    (void)user;
    return -11;
}
static int no_product(int layout, int a_transpose, int b_transpose, size_t m, size_t n, size_t k,
                      float alpha, struct kiln_cl_buffer *a, size_t a_offset, size_t a_ld,
                      struct kiln_cl_buffer *b, size_t b_offset, size_t b_ld, float beta,
                      struct kiln_cl_buffer *c, size_t c_offset, size_t c_ld,
                      struct kiln_cl_queue **queue, struct kiln_cl_event **event,
                      struct kiln_cl_buffer *temp) {
    (void)beta;
    /* One that forgets what was there. */
    return true_cl.CLBlastSgemmWithTempBuffer(layout, a_transpose, b_transpose, m, n, k, alpha, a,
                                              a_offset, a_ld, b, b_offset, b_ld, 0.0F, c, c_offset,
                                              c_ld, queue, event, temp);
}

static void check_refusal(const struct kiln_opencl *cl, enum kiln_status code, const char *says) {
    struct kiln_gpu *gpu;
    struct kiln_err err;
    CHECK_FAILS(kiln_gpu_open_with(cl, &small, 1, &gpu, &err), code, &err);
    CHECK_CONTAINS(err.message, "--dw gpu");
    CHECK_CONTAINS(err.message, says);
    CHECK(gpu == NULL);
}

TEST_WITHIN(a_gpu_that_cannot_do_it_is_refused_with_the_reason, SECONDS) {
    true_cl = load_or_skip();
    struct kiln_opencl cl = true_cl;
    cl.clGetPlatformIDs = no_platform;
    check_refusal(&cl, KILN_EUNSUPPORTED, "pocl-opencl-icd");
    cl = true_cl;
    cl.clGetDeviceIDs = no_device;
    check_refusal(&cl, KILN_EUNSUPPORTED, "no device");
    cl = true_cl;
    setenv("KILN_GPU", "a name that no device has", 1);
    check_refusal(&cl, KILN_EUNSUPPORTED, "KILN_GPU=a name that no device has");
    unsetenv("KILN_GPU");
    cl.clGetDeviceInfo = small_info;
    small_what = KILN_CL_DEVICE_GLOBAL_MEM_SIZE;
    small_value = 1000;
    check_refusal(&cl, KILN_ENOMEM, "--batch");
    small_what = KILN_CL_DEVICE_MAX_MEM_ALLOC_SIZE;
    check_refusal(&cl, KILN_ENOMEM, "at once");
    cl = true_cl;
    cl.clCreateBuffer = no_buffer;
    check_refusal(&cl, KILN_ENOMEM, "CL_MEM_OBJECT_ALLOCATION_FAILURE");
    cl = true_cl;
    cl.clBuildProgram = no_program;
    check_refusal(&cl, KILN_EDEVICE, "does not compile");
    cl = true_cl;
    cl.CLBlastSgemmWithTempBuffer = no_product;
    check_refusal(&cl, KILN_EDEVICE, "is right");
}

TEST_WITHIN(a_gpu_is_chosen_by_a_part_of_its_name, SECONDS) {
    (void)load_or_skip();
    struct kiln_gpu *gpu;
    CHECK_OK(kiln_gpu_open(&small, 1, &gpu, NULL), NULL);
    char part[8] = "";
    memcpy(part, kiln_gpu_description(gpu) + 1, 3);
    part[0] = (char)(part[0] ^ (part[0] >= 'A' ? 0x20 : 0)); /* case does not matter */
    char numerics[24];
    strcpy(numerics, kiln_gpu_numerics(gpu));
    CHECK_CONTAINS(numerics, "gpu-");
    kiln_gpu_close(gpu);
    setenv("KILN_GPU", part, 1);
    CHECK_OK(kiln_gpu_open(&small, 1, &gpu, NULL), NULL);
    CHECK_STRING(kiln_gpu_numerics(gpu), numerics);
    kiln_gpu_close(gpu);
}

/* Calls that fail from the `fail_at`th on, counted in `calls`. */
static size_t calls, fail_at;
static int32_t failing_read(struct kiln_cl_queue *queue, struct kiln_cl_buffer *buffer,
                            uint32_t blocking, size_t offset, size_t bytes, void *to,
                            uint32_t waits, struct kiln_cl_event *const *events,
                            struct kiln_cl_event **event) {
    return ++calls >= fail_at ? KILN_CL_OUT_OF_RESOURCES
                              : true_cl.clEnqueueReadBuffer(queue, buffer, blocking, offset, bytes,
                                                            to, waits, events, event);
}
static int32_t failing_write(struct kiln_cl_queue *queue, struct kiln_cl_buffer *buffer,
                             uint32_t blocking, size_t offset, size_t bytes, const void *from,
                             uint32_t waits, struct kiln_cl_event *const *events,
                             struct kiln_cl_event **event) {
    return ++calls >= fail_at ? -36
                              : true_cl.clEnqueueWriteBuffer(queue, buffer, blocking, offset, bytes,
                                                             from, waits, events, event);
}
static int32_t failing_info(struct kiln_cl_event *event, uint32_t what, size_t room, void *out,
                            size_t *n) {
    const int32_t result = true_cl.clGetEventInfo(event, what, room, out, n);
    if (++calls >= fail_at) { /* the command itself failed, in the background */
        const int32_t status = -5;
        memcpy(out, &status, sizeof status);
    }
    return result;
}

/* It opens, then fails: drain says so, again and again, and nothing crashes. */
static void check_failure(const struct kiln_opencl *cl, enum kiln_status code, const char *says) {
    struct form f = {64, 48, 1, 32, 32, KILN_PRECISION_FP32, true, true};
    struct work w = make_work(&f);
    struct kiln_gpu *gpu;
    struct kiln_err err;
    calls = 0;
    fail_at = SIZE_MAX;
    CHECK_OK(kiln_gpu_open_with(cl, &small, 1, &gpu, &err), &err);
    (void)kiln_gpu_post(gpu, &w.product);
    CHECK_OK(kiln_gpu_drain(gpu, &err), &err);
    check_sums(&w, false, 1);
    fail_at = calls + 1;
    const uint64_t ticket = kiln_gpu_post(gpu, &w.product);
    kiln_gpu_sent(gpu, ticket);
    CHECK_FAILS(kiln_gpu_drain(gpu, &err), code, &err);
    CHECK_CONTAINS(err.message, says);
    CHECK_CONTAINS(err.message, "--dw cpu");
    (void)kiln_gpu_post(gpu, &w.product);
    CHECK_FAILS(kiln_gpu_drain(gpu, &err), code, &err);
    kiln_gpu_close(gpu);
    lab_check_guards();
}

TEST_WITHIN(what_a_gpu_fails_at_is_said_at_the_drain, SECONDS) {
    true_cl = load_or_skip();
    struct kiln_opencl cl = true_cl;
    cl.clEnqueueReadBuffer = failing_read;
    check_failure(&cl, KILN_ENOMEM, "CL_OUT_OF_RESOURCES");
    cl = true_cl;
    cl.clEnqueueWriteBuffer = failing_write;
    check_failure(&cl, KILN_EDEVICE, "CL_INVALID_COMMAND_QUEUE");
    cl = true_cl;
    cl.clGetEventInfo = failing_info;
    check_failure(&cl, KILN_ENOMEM, "CL_OUT_OF_RESOURCES");
}

TEST_WITHIN(a_product_that_no_buffer_holds_is_refused, SECONDS) {
    struct form f = {65, 48, 1, 32, 32, KILN_PRECISION_FP32, true, true};
    struct work w = make_work(&f);
    struct kiln_err err;
    struct kiln_gpu *gpu = open_or_skip(&small, 1);
    (void)kiln_gpu_post(gpu, &w.product);
    CHECK_FAILS(kiln_gpu_drain(gpu, &err), KILN_EINTERNAL, &err);
    kiln_gpu_close(gpu);
    lab_check_guards();
}

/* ---- the host queue of a Neural Engine --------------------------------------------------------
 */

TEST_WITHIN(a_queue_of_weight_gradients_runs_on_a_gpu, SECONDS) {
    enum { PRODUCTS = 7 };
    struct form f = {130, 70, 2, 20, 32, KILN_PRECISION_FP16, false, false};
    const struct kiln_gpu_extent extent = extent_of(&f);
    const struct kiln_dw_shape shape = {
        .batch = 2, .seq = 20, .slots = 2, .rows = 130, .cols = 70, .gpu = true};
    struct kiln_gpu *gpu = open_or_skip(&extent, 1);
    struct kiln_dw *dw;
    struct kiln_err err;
    struct work w[PRODUCTS];
    CHECK_FAILS(kiln_dw_open(&shape, NULL, NULL, &dw, &err), KILN_EINTERNAL, &err);
    CHECK_OK(kiln_dw_open(&shape, NULL, gpu, &dw, &err), &err);
    CHECK(kiln_dw_sizes(&shape).thread == 0);
    for (size_t i = 0; i < PRODUCTS; i++) {
        w[i] = make_work(&f);
        struct kiln_dw_slot *slot = kiln_dw_slot(dw); /* more than there are */
        for (size_t b = 0; b < 2; b++) {              /* the slot has no gaps */
            memcpy(slot->dy + b * 130 * 32,
                   (const uint16_t *)w[i].product.dy.at + b * w[i].product.dy.sequence,
                   (size_t)130 * 32 * 2);
        }
        kiln_dw_post(dw, slot,
                     &(struct kiln_dw_product){.dw = w[i].dw,
                                               .rows = 130,
                                               .cols = 70,
                                               .x = w[i].product.x.at,
                                               .x_sequence = w[i].product.x.sequence});
    }
    CHECK_OK(kiln_dw_drain(dw, &err), &err);
    for (size_t i = 0; i < PRODUCTS; i++) {
        check_sums(&w[i], false, 1);
    }
    kiln_dw_close(dw);
    kiln_gpu_close(gpu);
    lab_check_guards();
}
