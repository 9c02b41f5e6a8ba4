/* SPDX-License-Identifier: MIT
 *
 * kiln_test.h: how a test is written.
 *
 *     TEST(a_rounded_size_is_a_multiple) {
 *         CHECK_EQ(kiln_round_up(65, 64), 128);
 *     }
 *
 * A test registers itself, so a new file under tests/ needs no list. Each runs in a process of its
 * own with a time limit; a crash, a leak found by a sanitizer or a time-out fails that test only.
 * Checks end the test at the first failure; call them on the test's own thread.
 *
 * kiln-tests [-j N] [part of a name]... runs the tests whose name holds one of the parts, as does
 * KILN_TEST=part; --list names them. N of them run at once (or KILN_TEST_JOBS; 1): each has a
 * folder of its own and N times its limit, and says what it has to say when those before it have.
 * Tests that measure time or want the machine for themselves are written with TEST_ALONE (a shell
 * test: a line "# alone: why" near its top) and run one by one behind the others. To debug one:
 * CK_FORK=no gdb --args kiln-tests NAME.
 */
#ifndef KILN_TEST_H
#define KILN_TEST_H

#include <stdbool.h>
#include <stddef.h>

#include "kiln/status.h"

/* A test of at most 60 seconds (ten times that under a sanitizer), or of `seconds`. */
#define TEST(title)                 TEST_WITHIN(title, 60)
#define TEST_WITHIN(title, seconds) KILN_TEST_ENTRY(title, seconds, false)
#define TEST_ALONE(title)           KILN_TEST_ENTRY(title, 60, true)
#define KILN_TEST_ENTRY(title, seconds, by_itself)                      \
    static void kiln_body_##title(void);                                \
    static struct kiln_test kiln_entry_##title = {                      \
        .name = #title,                                                 \
        .file = __FILE__,                                               \
        .line = __LINE__,                                               \
        .body = kiln_body_##title,                                      \
        .limit_s = (seconds),                                           \
        .alone = (by_itself),                                           \
    };                                                                  \
    __attribute__((constructor)) static void kiln_enter_##title(void) { \
        kiln_test_register(&kiln_entry_##title);                        \
    }                                                                   \
    static void kiln_body_##title(void)

/* End the test here and count it as skipped, for the reason given (printf style). */
#define SKIP(...) kiln_test_skip(__VA_ARGS__)

/* ---- checks ------------------------------------------------------------------------------ */

#define FAIL(...) kiln_test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition)                          \
    do {                                          \
        if (!(condition)) {                       \
            FAIL("%s does not hold", #condition); \
        }                                         \
    } while (0)

/* Two integers, enums or booleans are equal. Compared as 64 bits; floats do not compile. */
/* clang-format off */
#define CHECK_EQ(got, want)                                                          \
    _Generic((got) + (want),                                                         \
        float: "compare floats with CHECK_CLOSE",                                    \
        double: "compare floats with CHECK_CLOSE",                                   \
        default: kiln_test_equal                                                     \
    )(__FILE__, __LINE__, #got, (long long)(got), #want, (long long)(want))
/* clang-format on */
/* |got - want| <= tolerance, in double; a NaN fails. */
#define CHECK_CLOSE(got, want, tolerance) \
    kiln_test_close(__FILE__, __LINE__, #got, (double)(got), (double)(want), (double)(tolerance))
/* The same for n floats; prints the worst element. */
#define CHECK_ALL_CLOSE(got, want, n, tolerance) \
    kiln_test_all_close(__FILE__, __LINE__, #got, (got), (want), (n), (double)(tolerance))
/* Norm of the difference of n floats over the norm of `want` is at most `tolerance`. */
#define CHECK_NEAR_NORM(got, want, n, tolerance) \
    kiln_test_near_norm(__FILE__, __LINE__, #got, (got), (want), (n), (double)(tolerance))
#define CHECK_STRING(got, want)    kiln_test_string(__FILE__, __LINE__, #got, (got), (want))
#define CHECK_CONTAINS(text, part) kiln_test_contains(__FILE__, __LINE__, #text, (text), (part))
/* n bytes are equal; prints the first that differs. */
#define CHECK_BYTES(got, want, n) kiln_test_bytes(__FILE__, __LINE__, #got, (got), (want), (n))
/* The call returned KILN_OK; otherwise the test fails with the message in `err` (may be NULL). */
#define CHECK_OK(call, err) kiln_test_status(__FILE__, __LINE__, #call, (call), KILN_OK, (err))
/* The call failed with that very code, and `err` says the same with a message. */
#define CHECK_FAILS(call, code, err) \
    kiln_test_status(__FILE__, __LINE__, #call, (call), (code), (err))

/* ---- files ------------------------------------------------------------------------------- */

/* Path of a file of $KILN_DATA (../shared/data of the repository). Skips the test when absent. */
const char *test_data(const char *name);
/* The same for $KILN_REFERENCE (../shared/reference). */
const char *test_reference(const char *name);
/* A folder of this test, fresh and empty, removed when the test has ended however it ended. */
const char *test_folder(void);
/* test_folder()/name, which need not exist. */
const char *test_path(const char *name);
/* Create or replace test_path(name) with these bytes; returns the path. */
const char *test_file(const char *name, const void *data, size_t size);

/* Run `$KILN_PYTHON script arguments`. The test skips where the variable is not set, or the script
 * ends with 77 because its Python lacks a package; any other failure is the test's. */
void test_python(const char *script, const char *arguments);

/* ---- behind the macros ------------------------------------------------------------------- */

struct kiln_test {
    const char *name;
    const char *file;
    int line;
    void (*body)(void);
    double limit_s;
    bool alone;
    struct kiln_test *next;
};
void kiln_test_register(struct kiln_test *test);
_Noreturn void kiln_test_skip(const char *fmt, ...) KILN_PRINTF(1, 2);
_Noreturn void kiln_test_fail(const char *file, int line, const char *fmt, ...) KILN_PRINTF(3, 4);
void kiln_test_equal(const char *file, int line, const char *got_text, long long got,
                     const char *want_text, long long want);
void kiln_test_close(const char *file, int line, const char *text, double got, double want,
                     double tolerance);
void kiln_test_all_close(const char *file, int line, const char *text, const float *got,
                         const float *want, size_t n, double tolerance);
void kiln_test_near_norm(const char *file, int line, const char *text, const float *got,
                         const float *want, size_t n, double tolerance);
void kiln_test_string(const char *file, int line, const char *text, const char *got,
                      const char *want);
void kiln_test_contains(const char *file, int line, const char *text, const char *whole,
                        const char *part);
void kiln_test_bytes(const char *file, int line, const char *text, const void *got,
                     const void *want, size_t n);
void kiln_test_status(const char *file, int line, const char *text, enum kiln_status got,
                      enum kiln_status want, const struct kiln_err *err);

#endif
