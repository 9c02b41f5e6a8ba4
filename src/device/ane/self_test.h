/* SPDX-License-Identifier: MIT
 *
 * self_test.h: a runtime proves that it computes.
 */
#ifndef KILN_DEVICE_ANE_SELF_TEST_H
#define KILN_DEVICE_ANE_SELF_TEST_H

#include "device/ane/runtime.h"

/* Compile a 1x1 convolution of random weights and a bias, evaluate it, compare with the same sums
 * in double: KILN_EUNSUPPORTED when they differ. Then give it other weights by reload:
 * runtime->reloads says whether what comes out is what these give. Costs one compile. */
KILN_MUST_CHECK enum kiln_status kiln_npu_self_test(struct kiln_npu_runtime *runtime,
                                                    struct kiln_err *err);

#endif
