/* SPDX-License-Identifier: MIT
 *
 * opencl.c: see opencl.h.
 */
#include "device/host/opencl.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* A library by its names, the environment's first. */
struct library {
    const char *what, *environment, *packages;
    const char *names[3];
};

#ifdef __APPLE__
static const struct library opencl = {
    "OpenCL",
    "KILN_OPENCL",
    "macOS has it in its frameworks",
    {"/System/Library/Frameworks/OpenCL.framework/OpenCL", NULL, NULL}};
static const struct library clblast = {"CLBlast",
                                       "KILN_CLBLAST",
                                       "brew install clblast",
                                       {"libclblast.1.dylib", "libclblast.dylib", NULL}};
#else
static const struct library opencl = {
    "OpenCL",
    "KILN_OPENCL",
    "Debian: ocl-icd-libopencl1, and the driver of the GPU: mesa-opencl-icd, intel-opencl-icd, "
    "nvidia-opencl-icd; pocl-opencl-icd computes on the CPU",
    {"libOpenCL.so.1", "libOpenCL.so", NULL}};
static const struct library clblast = {
    "CLBlast", "KILN_CLBLAST", "Debian: libclblast1", {"libclblast.so.1", "libclblast.so", NULL}};
#endif

static enum kiln_status open_library(const struct library *library, void **out,
                                     struct kiln_err *err) {
    const char *named = getenv(library->environment);
    const char *why = NULL;
    *out = NULL;
    if (named && named[0]) {
        *out = dlopen(named, RTLD_NOW | RTLD_LOCAL);
        why = *out ? NULL : dlerror();
        KILN_REQUIRE(*out, err, KILN_EUNSUPPORTED,
                     "--dw gpu: %s=%.200s cannot be opened: %.200s; correct it, or unset it for "
                     "the system's library",
                     library->environment, named, why);
        return KILN_OK;
    }
    char first[200] = "";
    for (size_t i = 0; !*out && library->names[i]; i++) {
        *out = dlopen(library->names[i], RTLD_NOW | RTLD_LOCAL);
        why = *out ? NULL : dlerror();
        if (why && !first[0]) {
            snprintf(first, sizeof first, "%s", why);
        }
    }
    KILN_REQUIRE(*out, err, KILN_EUNSUPPORTED,
                 "--dw gpu needs %s, and there is none: %s; install it (%s), or leave out --dw gpu",
                 library->what, first, library->packages);
    return KILN_OK;
}

static enum kiln_status find(void *library, const char *what, const char *name, void *to,
                             struct kiln_err *err) {
    void *at = dlsym(library, name);
    KILN_REQUIRE(at, err, KILN_EUNSUPPORTED,
                 "--dw gpu: the %s library of this machine has no %s; OpenCL 1.2 and CLBlast 1.5 "
                 "or newer have",
                 what, name);
    memcpy(to, &at, sizeof at); /* a function is no object to the compiler, but is to POSIX */
    return KILN_OK;
}

/* The library's own name: libclblast.so.1 may be a link to libclblast.so.1.5.3. */
static void name_library(const void *function, char *out, size_t room) {
    Dl_info info;
    char *path = NULL;
    if (dladdr(function, &info) && info.dli_fname) {
        path = realpath(info.dli_fname, NULL);
    }
    const char *slash = path ? strrchr(path, '/') : NULL;
    snprintf(out, room, "%s", slash ? slash + 1 : "CLBlast");
    free(path);
}

enum kiln_status kiln_opencl_load(struct kiln_opencl *cl, struct kiln_err *err) {
    void *at = NULL, *blas = NULL;
    *cl = (struct kiln_opencl){.clblast = ""};
    KILN_TRY(open_library(&opencl, &at, err));
    KILN_TRY(open_library(&clblast, &blas, err));
#define FIND_OPENCL(result, name, arguments) KILN_TRY(find(at, "OpenCL", #name, &cl->name, err));
#define FIND_CLBLAST(result, name, arguments) \
    KILN_TRY(find(blas, "CLBlast", #name, &cl->name, err));
    KILN_OPENCL_FUNCTIONS(FIND_OPENCL)
    KILN_CLBLAST_FUNCTIONS(FIND_CLBLAST)
#undef FIND_OPENCL
#undef FIND_CLBLAST
    void *function;
    memcpy(&function, &cl->CLBlastClearCache, sizeof function);
    name_library(function, cl->clblast, sizeof cl->clblast);
    return KILN_OK;
}

const char *kiln_opencl_result(int32_t result, char text[64]) {
    static const struct {
        int32_t value;
        const char *name;
    } names[] = {{-1, "CL_DEVICE_NOT_FOUND"},
                 {-2, "CL_DEVICE_NOT_AVAILABLE"},
                 {-3, "CL_COMPILER_NOT_AVAILABLE"},
                 {-4, "CL_MEM_OBJECT_ALLOCATION_FAILURE"},
                 {-5, "CL_OUT_OF_RESOURCES"},
                 {-6, "CL_OUT_OF_HOST_MEMORY"},
                 {-11, "CL_BUILD_PROGRAM_FAILURE"},
                 {-14, "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST"},
                 {-30, "CL_INVALID_VALUE"},
                 {-36, "CL_INVALID_COMMAND_QUEUE"},
                 {-38, "CL_INVALID_MEM_OBJECT"},
                 {-54, "CL_INVALID_WORK_GROUP_SIZE"},
                 {-61, "CL_INVALID_BUFFER_SIZE"},
                 {-1001, "CL_PLATFORM_NOT_FOUND_KHR"},
                 {-2050, "CLBlast: the temporary buffer is too small"},
                 {-2046, "CLBlast: not enough local memory on this device"},
                 {-2041, "CLBlast: no entry for the device in its database"},
                 {-2040, "CLBlast: unspecified error"},
                 {-2039, "CLBlast: unexpected exception"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].value == result) {
            snprintf(text, 64, "%s", names[i].name);
            return text;
        }
    }
    snprintf(text, 64, "%s error %d", result < -1000 ? "CLBlast" : "OpenCL", (int)result);
    return text;
}
