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
    size_t n;
    const struct kiln_tier *tiers = kiln_kernels_tiers(&n);
    for (size_t i = 0; i < n; i++) {
        for (int precision = KILN_PRECISION_FP32; precision <= KILN_PRECISION_BF16; precision++) {
            struct kiln_kernels k = {0};
            tiers[i].fill(&k, (enum kiln_precision)precision);
            CHECK_STRING(k.tier, tiers[i].name);
#define KERNEL(name) CHECK(k.name != NULL);
#include "kernel/kernels.inc"
#undef KERNEL
        }
    }
}
