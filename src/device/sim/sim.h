/* SPDX-License-Identifier: MIT
 *
 * sim.h: a Neural Engine in software: compiles MIL text and weight files, enforces the hardware's
 * limits, evaluates with its rounding, and is as slow as the hardware when asked.
 *
 * It is a runtime (ane/runtime.h): whatever trains on `ane` trains on it, down to the bytes.
 */
#ifndef KILN_DEVICE_SIM_SIM_H
#define KILN_DEVICE_SIM_SIM_H

#include "base/pool.h"
#include "device/ane/runtime.h"
#include "device/sim/limits.h"
#include "kiln/device.h"

/* Numbers where the sources disagree (docs/neural-engine.md). */
enum kiln_sim_nan { KILN_SIM_NAN_INF, KILN_SIM_NAN_ZERO, KILN_SIM_NAN_KEEP };
struct kiln_sim_numbers {
    enum kiln_sim_nan nan;  /* what a NaN becomes when it is stored: +inf, 0, or it stays */
    float matmul_limit;     /* a matmul's result beyond it is inf: 32752; 0: none but fp16's */
    float slice_limit;      /* a value beyond it is inf behind a slice of the last axis that
                             * does not begin at 0 (before A16: 4094); 0: none */
    bool inf_product_quirk; /* mul(+inf, x) gives -52416 */
};

/* Time that is charged: a call takes at least `scale` times as long as `device` would, to a tenth
 * of a millisecond. The law is that of plans (kiln/plan.h); what compiles anywhere in the process
 * slows evaluations down. */
struct kiln_sim_times {
    double scale; /* 0: none; 1: as the device; 0.1: a tenth of it */
    struct kiln_npu_times device;
};

struct kiln_sim_options {
    struct kiln_sim_limits limits;
    struct kiln_sim_numbers numbers;
    struct kiln_sim_times times;
    /* Weights given to a loaded program without a compile take effect. Off, as on most hardware:
     * the call succeeds and the old weights go on computing, so a self-test must find out. */
    bool reload_is_visible;
};
/* What is believed of current hardware: of times, the M4's that ships with kiln (profiles/). */
void kiln_sim_options_default(struct kiln_sim_options *out);
/* Change some: "name=value,name=value", names of limits (limits.h: on, off or a number) and
 *   nan=inf|zero|keep        what a NaN becomes
 *   matmul-overflow=32752    a larger result of matmul is infinite; off: none but fp16's
 *   slice-overflow=4094      behind a slice of the last axis that does not begin at 0; off
 *   inf-product=on|off       mul(+inf, x) gives -52416
 *   reload=on|off            a reload of weights takes effect
 * KILN_EUSAGE names what is wrong and what there is. */
KILN_MUST_CHECK enum kiln_status kiln_sim_options_set(struct kiln_sim_options *options,
                                                      const char *texts, struct kiln_err *err);

/* Open a simulated device. pool is borrowed and used by evaluate; compile runs on the caller;
 * another thread is a guest of the pool then, but not while time is charged. The two budgets count
 * what the process does through all its simulators; a child process starts with none of it.
 * runtime->reloads is what `reload_is_visible` says. */
KILN_MUST_CHECK enum kiln_status kiln_sim_open(struct kiln_pool *pool,
                                               const struct kiln_sim_options *options,
                                               struct kiln_npu_runtime **out, struct kiln_err *err);

/* What a compiled program takes and gives, for who has only its text. */
const struct kiln_mil_graph *kiln_sim_program_graph(const struct kiln_npu_program *program);
/* Bytes that a program of this simulator holds: its text, and weights as fp32. */
size_t kiln_sim_program_bytes(const struct kiln_npu_program *program);

#endif
