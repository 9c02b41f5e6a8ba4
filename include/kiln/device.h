/* SPDX-License-Identifier: MIT
 *
 * device.h: which device computes, and how.
 */
#ifndef KILN_PUBLIC_DEVICE_H
#define KILN_PUBLIC_DEVICE_H

#include <stdbool.h>

#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Kernels that a process may compile on sim and ane where nothing else is said: of the published
 * trainers. */
enum { KILN_NPU_BUDGET = 119 };

enum kiln_device_id {
    KILN_CPU, /* any x86-64 or arm64 */
    KILN_SIM, /* a simulated Neural Engine: MIL, weight blobs, limits and fp16 rounding of one */
    KILN_ANE, /* Apple's Neural Engine */
};

/* How long a Neural Engine takes: the figures of a profile (kiln/plan.h) that a simulator charges.
 * All 0: those of the M4's. */
struct kiln_npu_times {
    double compile_s;    /* a program, whatever its size */
    double compile_gb_s; /* and its weight files; 0: nothing more */
    double load_s;
    double dispatch_s; /* an evaluation, whatever it computes */
    double tflops;     /* and its products, 1e12 operations a second */
    double beside;     /* evaluations take so many times as long while something compiles; 0: 1 */
};

struct kiln_device_choice {
    enum kiln_device_id id;
    bool gpu; /* weight gradients on an OpenCL device: docs/gpu.md */
    /* Of sim and ane: */
    bool extras;  /* classifier, softmax, final norm and the norms' backward on the device, too */
    bool dynamic; /* weights are inputs of programs that are compiled once a process */
    double sim_time;             /* sim: time that is charged, as a multiple of `times`; 0: none */
    struct kiln_npu_times times; /* sim */
    const char *sim; /* sim: "name=value,..." of limits and numbers that differ from what is
                      * believed (kiln mil limits); NULL: none. Borrowed */
};

/* "cpu", "sim", "ane". */
KILN_API const char *kiln_device_name(enum kiln_device_id id);
/* KILN_EUSAGE lists the valid names. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_device_parse(const char *name,
                                                            enum kiln_device_id *out,
                                                            struct kiln_err *err);

#ifdef __cplusplus
}
#endif

#endif
