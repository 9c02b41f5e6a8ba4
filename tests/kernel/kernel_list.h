/* SPDX-License-Identifier: MIT
 *
 * kernel_list.h: asserts that kernels.inc lists struct kiln_kernels whole and in order.
 */
#ifndef KILN_TESTS_KERNEL_LIST_H
#define KILN_TESTS_KERNEL_LIST_H

#include <stddef.h>

#include "kernel/kernel.h"

enum {
#define KERNEL(name) KERNEL_##name,
#include "kernel/kernels.inc"
#undef KERNEL
    KERNELS
};

#define KERNEL_OFFSET(at) (offsetof(struct kiln_kernels, gemm) + (at) * sizeof(void (*)(void)))
#define KERNEL(name)                                                                    \
    _Static_assert(offsetof(struct kiln_kernels, name) == KERNEL_OFFSET(KERNEL_##name), \
                   "tests/kernel/kernels.inc lacks a kernel before " #name);
#include "kernel/kernels.inc"
#undef KERNEL
_Static_assert(sizeof(struct kiln_kernels) == KERNEL_OFFSET(KERNELS),
               "tests/kernel/kernels.inc lacks the last kernels");

#endif
