/* SPDX-License-Identifier: MIT
 *
 * profile.c: what a device does in a second.
 */
#include <string.h>

#include "kernel/ceiling.h"
#include "kiln/plan.h"

/* A pass reaches this share of what products reach on operands in cache: the rest is attention,
 * norms, packing of activations, and memory (bench: stories15m to stories110m, 1 and 2 threads). */
#define PASS_SHARE 0.80
/* The update and packing reach these shares of what copying reaches. */
#define UPDATE_SHARE 0.85
#define PACK_SHARE   0.35
/* A process that replaces itself on cpu: exec, libraries, opening the state. */
#define CPU_RESTART_S 0.06
#define CPU_DISK_GB_S 1.5

/* Published for the M4 (docs/plan.md): compile, exec restart, and what training reached. */
static const struct kiln_profile npu = {.tflops = 2.2,
                                        .ceiling_tflops = 15.8,
                                        .compile_s = 0.053,
                                        .update_gb_s = 60,
                                        .restart_s = 0.5,
                                        .disk_gb_s = 3};

static enum kiln_status measure_cpu(size_t threads, enum kiln_precision precision,
                                    struct kiln_profile *out, struct kiln_err *err) {
    struct kiln_pool *pool;
    double copy = 0;
    KILN_TRY(kiln_pool_create(threads > 0 ? threads : 1, &pool, err));
    enum kiln_status status = kiln_ceiling_products(pool, precision, &out->ceiling_tflops, err);
    if (status == KILN_OK) {
        status = kiln_ceiling_copy(pool, &copy, err);
    }
    kiln_pool_destroy(pool);
    out->tflops = PASS_SHARE * out->ceiling_tflops;
    out->compile_gb_s = PACK_SHARE * copy;
    out->update_gb_s = UPDATE_SHARE * copy;
    out->restart_s = CPU_RESTART_S;
    out->disk_gb_s = CPU_DISK_GB_S;
    return status;
}

enum kiln_status kiln_profile_of(const char *device, size_t threads, enum kiln_precision precision,
                                 struct kiln_profile *out, struct kiln_err *err) {
    *out = (struct kiln_profile){.tflops = 0};
    if (strcmp(device, "cpu") == 0) {
        return measure_cpu(threads, precision, out, err);
    }
    KILN_REQUIRE(strcmp(device, "sim") == 0 || strcmp(device, "ane") == 0, err, KILN_EUSAGE,
                 "--device %s: unknown; use cpu, sim or ane", device);
    *out = npu;
    return KILN_OK;
}
