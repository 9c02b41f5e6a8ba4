/* SPDX-License-Identifier: MIT
 *
 * Every kernel of the list on every tier, beside ref or a sum in double. The checks are in
 * check_products.c and check_rows.c.
 */
#include "kernel/kernel_list.h"
#include "kernel/lab.h"

#define KERNEL(name) \
    TEST(name##_is_right_on_every_tier) { lab_on_every_tier(check_##name); }
#include "kernel/kernels.inc"
#undef KERNEL

TEST(no_kernel_is_missing_on_any_tier) {
    void (*fill[])(struct kiln_kernels *, enum kiln_precision) = {
        kiln_kernels_ref,
#if defined(__x86_64__)
        kiln_kernels_avx2,
        kiln_kernels_avx512,
#endif
    };
    for (size_t i = 0; i < sizeof fill / sizeof fill[0]; i++) {
        for (int precision = KILN_PRECISION_FP32; precision <= KILN_PRECISION_BF16; precision++) {
            struct kiln_kernels k = {0};
            fill[i](&k, (enum kiln_precision)precision);
#define KERNEL(name) CHECK(k.name != NULL);
#include "kernel/kernels.inc"
#undef KERNEL
        }
    }
}
