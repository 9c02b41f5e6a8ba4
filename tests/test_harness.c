/* SPDX-License-Identifier: MIT
 *
 * test_harness.c: what every other test relies on: folders that are fresh, paths that are found.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kiln_test.h"

static void leave_a_file_behind(void) {
    CHECK(access(test_path("left-behind"), F_OK) != 0);
    test_file("left-behind", "x", 1);
    CHECK_EQ(mkdir(test_path("folder"), 0700), 0);
    test_file("folder/file", "y", 1);
}

/* The same twice: whichever runs second finds nothing of the first. */
TEST(a_test_folder_is_fresh) { leave_a_file_behind(); }
TEST(a_test_folder_is_fresh_again) { leave_a_file_behind(); }

TEST(tests_run_in_the_repository_root) {
    CHECK(access("Makefile", R_OK) == 0);
    CHECK(access("include/kiln/status.h", R_OK) == 0);
}

TEST(data_is_found_or_the_test_is_skipped) {
    CHECK(access(test_data("README.md"), R_OK) == 0);
    CHECK(access(test_reference("tiny-mha"), R_OK) == 0);
}

/* For tests/cli/harness.sh alone: in this order they end in another one. */
static void end_after_ms(unsigned ms) {
    printf("said after %u ms\n", ms);
    leave_a_file_behind();
    usleep(ms * 1000);
}
TEST(sample_late) { end_after_ms(600); }
TEST(sample_early) { end_after_ms(10); }
TEST(sample_fails) { FAIL("on purpose"); }
TEST(sample_skips) { SKIP("on purpose"); }
TEST(sample_crashes) { raise(SIGKILL); }
TEST_ALONE(sample_alone) {
    /* Nobody else is in its folder's folder: places of others are empty by now. */
    end_after_ms(10);
}
TEST(sample_last) { end_after_ms(200); }
TEST_WITHIN(sample_within_its_limit_times_the_jobs, 1) { usleep(1500000); }
