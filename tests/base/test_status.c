/* SPDX-License-Identifier: MIT
 *
 * test_status.c: statuses, their words, and what a failure leaves in a kiln_err.
 */
#include <limits.h>
#include <string.h>

#include "kiln/status.h"
#include "kiln_test.h"

static enum kiln_status fails_for_negative(int n, struct kiln_err *err) {
    KILN_REQUIRE(n >= 0, err, KILN_EUSAGE, "n is %d, wanted 0 or more", n);
    return KILN_OK;
}

static enum kiln_status forwards(int n, struct kiln_err *err) {
    KILN_TRY(fails_for_negative(n, err));
    return KILN_OK;
}

TEST(every_status_has_a_name_and_a_meaning_of_its_own) {
    const enum kiln_status all[] = {
#define STATUS(name, value, text) KILN_##name,
        KILN_STATUS_MAP(STATUS)
#undef STATUS
    };
    const size_t n = sizeof(all) / sizeof(all[0]);
    for (size_t i = 0; i < n; i++) {
        CHECK(strncmp(kiln_status_name(all[i]), "KILN_", 5) == 0);
        CHECK(kiln_status_text(all[i])[0] != '\0');
        for (size_t j = 0; j < i; j++) {
            CHECK(all[i] != all[j]);
            CHECK(strcmp(kiln_status_name(all[i]), kiln_status_name(all[j])) != 0);
        }
    }
    CHECK_STRING(kiln_status_name(KILN_EBUDGET), "KILN_EBUDGET");
    CHECK_STRING(kiln_status_text(KILN_OK), "done");
}

TEST(an_unknown_status_has_words_too) {
    CHECK(kiln_status_name((enum kiln_status)INT_MIN) != NULL);
    CHECK(kiln_status_text((enum kiln_status)99) != NULL);
}

TEST(a_failure_says_what_and_where) {
    struct kiln_err err = {0};
    CHECK_FAILS(fails_for_negative(-3, &err), KILN_EUSAGE, &err);
    CHECK_STRING(err.message, "n is -3, wanted 0 or more");
    CHECK(err.line > 0);
    CHECK_CONTAINS(err.file, "test_status.c");
}

TEST(a_caller_forwards_the_first_failure) {
    struct kiln_err err = {0};
    CHECK_OK(forwards(1, &err), &err);
    CHECK_FAILS(forwards(-1, &err), KILN_EUSAGE, &err);
}

TEST(a_failure_needs_no_place_for_its_message) {
    CHECK_FAILS(fails_for_negative(-1, NULL), KILN_EUSAGE, NULL);
}

TEST(a_long_message_is_cut_not_overrun) {
    char text[2000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    struct kiln_err err[2] = {{0}};
    CHECK_EQ(KILN_FAIL(&err[0], KILN_EIO, "%s", text), KILN_EIO);
    CHECK_EQ(strlen(err[0].message), sizeof(err[0].message) - 1);
    CHECK_EQ(err[1].code, KILN_OK);
}

TEST(a_message_may_wrap_the_one_it_replaces) {
    struct kiln_err err = {0};
    CHECK_EQ(KILN_FAIL(&err, KILN_EIO, "disk full"), KILN_EIO);
    CHECK_EQ(KILN_FAIL(&err, KILN_EINPUT, "run a: %s", err.message), KILN_EINPUT);
    CHECK_STRING(err.message, "run a: disk full");
}

TEST(a_message_tells_the_final_name) {
    struct kiln_err err;
    (void)!KILN_FAIL(&err, KILN_EIO, "write run.tmp-7/a: run.tmp-7 is full");
    kiln_err_rename(&err, "run.tmp-7", "run");
    CHECK_STRING(err.message, "write run/a: run is full");
    kiln_err_rename(&err, "other", "run");
    CHECK_STRING(err.message, "write run/a: run is full");
    kiln_err_rename(&err, "r", "many more letters than there is room for, for there are many r");
    kiln_err_rename(&err, "r", "many more letters than there is room for, for there are many r");
    CHECK_EQ(strlen(err.message), sizeof err.message - 1);
    kiln_err_rename(NULL, "a", "b");
}
