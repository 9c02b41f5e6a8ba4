/* SPDX-License-Identifier: MIT
 *
 * test_harness.c: what every other test relies on: folders that are fresh, paths that are found.
 */
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
