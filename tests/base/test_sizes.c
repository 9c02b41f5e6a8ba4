/* SPDX-License-Identifier: MIT
 *
 * test_sizes.c: arithmetic on sizes, which must never wrap silently.
 */
#include <stdint.h>

#include "base/mem.h"
#include "kiln_test.h"

TEST(a_size_is_rounded_up_to_a_multiple) {
    CHECK_EQ(kiln_round_up(0, 64), 0);
    CHECK_EQ(kiln_round_up(1, 64), 64);
    CHECK_EQ(kiln_round_up(64, 64), 64);
    CHECK_EQ(kiln_round_up(65, 64), 128);
    CHECK_EQ(kiln_round_up(10, 3), 12);
}

TEST(a_planned_arena_block_takes_whole_lines) {
    size_t planned = 0;
    planned = kiln_arena_reserve(planned, 1);
    planned = kiln_arena_reserve(planned, 128);
    planned = kiln_arena_reserve(planned, 0);
    CHECK_EQ(planned, 192);
}

TEST(products_and_sums_of_sizes_report_overflow) {
    size_t out = 7;
    CHECK(kiln_mul_overflows(SIZE_MAX, 2, &out));
    CHECK(kiln_add_overflows(SIZE_MAX, 1, &out));
    CHECK(!kiln_mul_overflows((size_t)64 * 2048, 32000, &out));
    CHECK_EQ(out, 4194304000LL);
    CHECK(!kiln_add_overflows(SIZE_MAX, 0, &out));
    CHECK(out == SIZE_MAX);
}
