/* SPDX-License-Identifier: MIT
 *
 * cpu.h: what kiln computes with on this machine.
 */
#ifndef KILN_CPU_H
#define KILN_CPU_H

#include <stdbool.h>
#include <stddef.h>

#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What matrix products read. Sums, master weights, moments and gradients are fp32 in any case; on
 * the cpu norms and the residual stream, too. */
enum kiln_precision {
    KILN_PRECISION_AUTO, /* cpu: bf16 where it has instructions for it, fp32 elsewhere; else fp16 */
    KILN_PRECISION_FP32,
    KILN_PRECISION_BF16,
    KILN_PRECISION_FP16, /* of sim and ane, and of nothing else */
};

/* "auto", "fp32", "bf16", "fp16". */
KILN_API const char *kiln_precision_name(enum kiln_precision precision);
KILN_API KILN_MUST_CHECK enum kiln_status kiln_precision_parse(const char *name,
                                                               enum kiln_precision *out,
                                                               struct kiln_err *err);
/* AUTO made concrete on this machine's CPU; others as they are. */
KILN_API enum kiln_precision kiln_precision_resolve(enum kiln_precision precision);

struct kiln_cpu {
    const char *tier;        /* instruction tier of the kernels: "ref", "avx2", "avx512" */
    const char *provider;    /* of matrix products: "own", "onednn" */
    size_t cpus;             /* processors this process may use */
    size_t memory_available; /* bytes */
};
/* KILN_EUSAGE when the environment variable KILN_CPU names an unknown tier. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_cpu_describe(enum kiln_precision precision,
                                                            struct kiln_cpu *out,
                                                            struct kiln_err *err);

/* The most bytes of memory that the process has held so far. */
KILN_API size_t kiln_machine_resident_peak(void);

#ifdef __cplusplus
}
#endif

#endif
