/* SPDX-License-Identifier: MIT
 *
 * opencl.h: what kiln uses of OpenCL and CLBlast, opened at run time.
 *
 * Neither is needed to build kiln: names, values and prototypes below are those of the OpenCL 1.2
 * specification (Khronos) and of CLBlast's API documentation (doc/api.md and clblast_c.h of CLBlast
 * 1.5). tests/device/test_gpu.c compares the values with the headers where they are installed.
 *
 *   struct kiln_opencl cl;
 *   KILN_TRY(kiln_opencl_load(&cl, err));
 *   cl.clGetPlatformIDs(0, NULL, &n);
 *
 * Caveats
 *  - The libraries stay loaded: drivers keep threads of their own, and do not survive a dlclose.
 *  - On Linux an OpenCL library is a loader that finds drivers by files of the system; with none
 *    clGetPlatformIDs fails or gives 0.
 */
#ifndef KILN_DEVICE_OPENCL_H
#define KILN_DEVICE_OPENCL_H

#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

struct kiln_cl_platform;
struct kiln_cl_device;
struct kiln_cl_context;
struct kiln_cl_queue;
struct kiln_cl_buffer;
struct kiln_cl_program;
struct kiln_cl_kernel;
struct kiln_cl_event;

/* Signed values are results. */
enum {
    KILN_CL_SUCCESS = 0,
    KILN_CL_DEVICE_NOT_FOUND = -1,
    KILN_CL_MEM_OBJECT_ALLOCATION_FAILURE = -4,
    KILN_CL_OUT_OF_RESOURCES = -5,
    KILN_CL_OUT_OF_HOST_MEMORY = -6,
    KILN_CL_PLATFORM_NOT_FOUND_KHR = -1001,

    KILN_CL_TRUE = 1,
    KILN_CL_FALSE = 0,
    KILN_CL_COMPLETE = 0,
    KILN_CL_PLATFORM_NAME = 0x0902,
    KILN_CL_DEVICE_TYPE = 0x1000,
    KILN_CL_DEVICE_MAX_MEM_ALLOC_SIZE = 0x1010,
    KILN_CL_DEVICE_GLOBAL_MEM_SIZE = 0x101F,
    KILN_CL_DEVICE_NAME = 0x102B,
    KILN_CL_DRIVER_VERSION = 0x102D,
    KILN_CL_PROGRAM_BUILD_LOG = 0x1183,
    KILN_CL_EVENT_COMMAND_EXECUTION_STATUS = 0x11D3,
};
/* Bit fields, 64 bits in the interface. */
enum {
    KILN_CL_DEVICE_TYPE_CPU = 1 << 1,
    KILN_CL_DEVICE_TYPE_GPU = 1 << 2,
    KILN_CL_DEVICE_TYPE_ACCELERATOR = 1 << 3,
    KILN_CL_MEM_READ_WRITE = 1 << 0,
    KILN_CL_MEM_ALLOC_HOST_PTR = 1 << 4,
    KILN_CL_MAP_WRITE_INVALIDATE_REGION = 1 << 2,
};
#define KILN_CL_DEVICE_TYPE_ALL UINT64_C(0xFFFFFFFF)

enum {
    KILN_CLBLAST_COL_MAJOR = 102,
    KILN_CLBLAST_NO = 111, /* not transposed */
    KILN_CLBLAST_YES = 112,
};

/* result, name, arguments. Handles are pointers; the "event wait list" of a command is always
 * empty here. */
#define KILN_OPENCL_FUNCTIONS(XX)                                                                 \
    XX(int32_t, clGetPlatformIDs, (uint32_t room, struct kiln_cl_platform * *out, uint32_t * n))  \
    XX(int32_t, clGetPlatformInfo,                                                                \
       (struct kiln_cl_platform * platform, uint32_t what, size_t room, void *out, size_t *n))    \
    XX(int32_t, clGetDeviceIDs,                                                                   \
       (struct kiln_cl_platform * platform, uint64_t type, uint32_t room,                         \
        struct kiln_cl_device * *out, uint32_t * n))                                              \
    XX(int32_t, clGetDeviceInfo,                                                                  \
       (struct kiln_cl_device * device, uint32_t what, size_t room, void *out, size_t *n))        \
    XX(struct kiln_cl_context *, clCreateContext,                                                 \
       (const intptr_t *properties, uint32_t n, struct kiln_cl_device *const *devices,            \
        void (*notify)(const char *, const void *, size_t, void *), void *user, int32_t *result)) \
    XX(int32_t, clReleaseContext, (struct kiln_cl_context * context))                             \
    XX(struct kiln_cl_queue *, clCreateCommandQueue,                                              \
       (struct kiln_cl_context * context, struct kiln_cl_device * device, uint64_t properties,    \
        int32_t * result))                                                                        \
    XX(int32_t, clReleaseCommandQueue, (struct kiln_cl_queue * queue))                            \
    XX(struct kiln_cl_buffer *, clCreateBuffer,                                                   \
       (struct kiln_cl_context * context, uint64_t flags, size_t bytes, void *host,               \
        int32_t *result))                                                                         \
    XX(int32_t, clReleaseMemObject, (struct kiln_cl_buffer * buffer))                             \
    XX(struct kiln_cl_program *, clCreateProgramWithSource,                                       \
       (struct kiln_cl_context * context, uint32_t n, const char *const *text,                    \
        const size_t *lengths, int32_t *result))                                                  \
    XX(int32_t, clBuildProgram,                                                                   \
       (struct kiln_cl_program * program, uint32_t n, struct kiln_cl_device *const *devices,      \
        const char *options, void (*notify)(struct kiln_cl_program *, void *), void *user))       \
    XX(int32_t, clGetProgramBuildInfo,                                                            \
       (struct kiln_cl_program * program, struct kiln_cl_device * device, uint32_t what,          \
        size_t room, void *out, size_t *n))                                                       \
    XX(int32_t, clReleaseProgram, (struct kiln_cl_program * program))                             \
    XX(struct kiln_cl_kernel *, clCreateKernel,                                                   \
       (struct kiln_cl_program * program, const char *name, int32_t *result))                     \
    XX(int32_t, clReleaseKernel, (struct kiln_cl_kernel * kernel))                                \
    XX(int32_t, clSetKernelArg,                                                                   \
       (struct kiln_cl_kernel * kernel, uint32_t index, size_t bytes, const void *value))         \
    XX(int32_t, clEnqueueNDRangeKernel,                                                           \
       (struct kiln_cl_queue * queue, struct kiln_cl_kernel * kernel, uint32_t dimensions,        \
        const size_t *offset, const size_t *global, const size_t *local, uint32_t waits,          \
        struct kiln_cl_event *const *list, struct kiln_cl_event **event))                         \
    XX(int32_t, clEnqueueWriteBuffer,                                                             \
       (struct kiln_cl_queue * queue, struct kiln_cl_buffer * buffer, uint32_t blocking,          \
        size_t offset, size_t bytes, const void *from, uint32_t waits,                            \
        struct kiln_cl_event *const *list, struct kiln_cl_event **event))                         \
    XX(int32_t, clEnqueueReadBuffer,                                                              \
       (struct kiln_cl_queue * queue, struct kiln_cl_buffer * buffer, uint32_t blocking,          \
        size_t offset, size_t bytes, void *to, uint32_t waits, struct kiln_cl_event *const *list, \
        struct kiln_cl_event **event))                                                            \
    XX(int32_t, clEnqueueFillBuffer,                                                              \
       (struct kiln_cl_queue * queue, struct kiln_cl_buffer * buffer, const void *pattern,        \
        size_t pattern_bytes, size_t offset, size_t bytes, uint32_t waits,                        \
        struct kiln_cl_event *const *list, struct kiln_cl_event **event))                         \
    XX(void *, clEnqueueMapBuffer,                                                                \
       (struct kiln_cl_queue * queue, struct kiln_cl_buffer * buffer, uint32_t blocking,          \
        uint64_t flags, size_t offset, size_t bytes, uint32_t waits,                              \
        struct kiln_cl_event *const *list, struct kiln_cl_event **event, int32_t *result))        \
    XX(int32_t, clEnqueueUnmapMemObject,                                                          \
       (struct kiln_cl_queue * queue, struct kiln_cl_buffer * buffer, void *mapped,               \
        uint32_t waits, struct kiln_cl_event *const *list, struct kiln_cl_event **event))         \
    XX(int32_t, clFlush, (struct kiln_cl_queue * queue))                                          \
    XX(int32_t, clFinish, (struct kiln_cl_queue * queue))                                         \
    XX(int32_t, clWaitForEvents, (uint32_t n, struct kiln_cl_event *const *list))                 \
    XX(int32_t, clGetEventInfo,                                                                   \
       (struct kiln_cl_event * event, uint32_t what, size_t room, void *out, size_t *n))          \
    XX(int32_t, clReleaseEvent, (struct kiln_cl_event * event))

#define KILN_CLBLAST_FUNCTIONS(XX)                                                                \
    /* c = alpha a.b + beta c, in fp32; `temp` holds what CLBlastSGemmTempBufferSize says. */     \
    XX(int, CLBlastSgemmWithTempBuffer,                                                           \
       (int layout, int a_transpose, int b_transpose, size_t m, size_t n, size_t k, float alpha,  \
        struct kiln_cl_buffer *a, size_t a_offset, size_t a_ld, struct kiln_cl_buffer *b,         \
        size_t b_offset, size_t b_ld, float beta, struct kiln_cl_buffer *c, size_t c_offset,      \
        size_t c_ld, struct kiln_cl_queue **queue, struct kiln_cl_event **event,                  \
        struct kiln_cl_buffer *temp))                                                             \
    XX(int, CLBlastSGemmTempBufferSize,                                                           \
       (int layout, int a_transpose, int b_transpose, size_t m, size_t n, size_t k,               \
        size_t a_offset, size_t a_ld, size_t b_offset, size_t b_ld, size_t c_offset, size_t c_ld, \
        struct kiln_cl_queue **queue, size_t *bytes))                                             \
    XX(int, CLBlastClearCache, (void))

struct kiln_opencl {
#define KILN_OPENCL_MEMBER(result, name, arguments) result(*name) arguments;
    KILN_OPENCL_FUNCTIONS(KILN_OPENCL_MEMBER)
    KILN_CLBLAST_FUNCTIONS(KILN_OPENCL_MEMBER)
#undef KILN_OPENCL_MEMBER
    char clblast[64]; /* file name of the library that was opened, with its version if it has one */
};

/* Open both libraries: those of the system, or the files that the environment variables KILN_OPENCL
 * and KILN_CLBLAST name. KILN_EUNSUPPORTED: one is absent or lacks a function; the message says
 * which, and what to install. */
KILN_MUST_CHECK enum kiln_status kiln_opencl_load(struct kiln_opencl *cl, struct kiln_err *err);

/* "CL_OUT_OF_RESOURCES", "CLBlast: not enough local memory"; numbers where there is no name.
 * `text` of 64 bytes. */
const char *kiln_opencl_result(int32_t result, char text[64]);

#endif
