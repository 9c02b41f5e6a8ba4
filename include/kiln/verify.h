/* SPDX-License-Identifier: MIT
 *
 * verify.h: is the arithmetic right? Compare a device with float64 reference vectors.
 *
 * A reference folder holds reference.json (dims, batch, steps, adamw, loss[], tensor_order,
 * grad_l2), model.bin (llama2.c), tokens.u16 (per step batch rows of seq+1 ids) and grads.f32
 * (gradients of step 0 in the file's tensor order).
 */
#ifndef KILN_VERIFY_H
#define KILN_VERIFY_H

#include <stdbool.h>
#include <stddef.h>

#include "kiln/cpu.h"
#include "kiln/status.h"

struct kiln_verify_options {
    const char *reference; /* folder */
    enum kiln_precision precision;
    size_t threads; /* 0: all */
};

/* One gradient tensor of step 0: |g - reference| / |reference|, 2-norms. */
struct kiln_verify_tensor {
    char name[24];
    double error;
};

struct kiln_verify_result {
    bool pass;
    struct kiln_verify_tensor *tensors; /* [n_tensors], heap; kiln_verify_free */
    size_t n_tensors;
    struct kiln_verify_tensor worst;
    double gradient_limit;
    double loss_error; /* largest relative difference over the steps */
    double loss_limit;
    size_t steps;
};

/* Run the reference's training steps and compare. A difference beyond the limits is not an error
 * of this call: it returns KILN_OK with pass false. Limits (docs/architecture.md, "Numbers"):
 * fp32 losses 1e-5, gradients 3e-5; bf16 losses 5e-3, gradients 6e-2. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_verify_reference(
    const struct kiln_verify_options *options, struct kiln_verify_result *out,
    struct kiln_err *err);
KILN_API void kiln_verify_free(struct kiln_verify_result *result);

#endif
