/* SPDX-License-Identifier: MIT
 *
 * plain_runner.c: runs the tests of tests/kiln_test.h with nothing but the C library, for machines
 * that have no more (make test-arm64). One process each, with the test's time limit; files and
 * shell tests are left to kiln_test.c.
 *
 * kiln-tests-plain [part of a name]... runs the tests whose "file: name" holds one of the parts.
 * CK_TIMEOUT_MULTIPLIER stretches the limits, as under Check.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kiln_test.h"

/* How a test's process ends. Not 0 or 1: leaving by exit() is no way to pass. */
enum { PASSED = 100, FAILED, SKIPPED };

static struct kiln_test *first_test;
static struct kiln_test **last_link = &first_test;

void kiln_test_register(struct kiln_test *test) {
    *last_link = test;
    last_link = &test->next;
}

void kiln_test_skip(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    printf("      skipped: ");
    vprintf(fmt, args);
    va_end(args);
    printf("\n");
    fflush(NULL);
    _exit(SKIPPED);
}

void kiln_test_fail(const char *file, int line, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    printf("      %s:%d: ", file, line);
    vprintf(fmt, args);
    va_end(args);
    printf("\n");
    fflush(NULL);
    _exit(FAILED);
}

static int run_test(const struct kiln_test *test) {
    const char *stretch = getenv("CK_TIMEOUT_MULTIPLIER");
    const double factor = stretch ? strtod(stretch, NULL) : 1.0;
    struct timespec start, end;
    int status = 0;
    fflush(NULL);
    clock_gettime(CLOCK_MONOTONIC, &start);
    const pid_t child = fork();
    if (child == 0) {
        alarm((unsigned)(test->limit_s * factor)); /* ends the process by SIGALRM */
        test->body();
        fflush(NULL);
        _exit(PASSED);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        perror("a process for a test");
        return FAILED;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double s =
        (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    if (code == PASSED || code == SKIPPED) {
        printf("%s  %s: %s (%.1f s)\n", code == PASSED ? "pass" : "skip", test->file, test->name,
               s);
        return code;
    }
    printf("FAIL  %s: %s (%.1f s)", test->file, test->name, s);
    printf(WIFSIGNALED(status) ? ": signal %d\n" : ": exit status %d\n",
           WIFSIGNALED(status) ? WTERMSIG(status) : code);
    return FAILED;
}

static bool is_wanted(const struct kiln_test *test, int argc, char **argv) {
    char name[512];
    snprintf(name, sizeof name, "%s: %s", test->file, test->name);
    for (int i = 1; i < argc; i++) {
        if (strstr(name, argv[i]) != NULL) {
            return true;
        }
    }
    return argc < 2;
}

int main(int argc, char **argv) {
    size_t passed = 0, failed = 0, skipped = 0;
    for (const struct kiln_test *test = first_test; test != NULL; test = test->next) {
        if (is_wanted(test, argc, argv)) {
            const int code = run_test(test);
            passed += code == PASSED;
            failed += code == FAILED;
            skipped += code == SKIPPED;
        }
    }
    printf("%zu passed, %zu failed, %zu skipped\n", passed, failed, skipped);
    return failed == 0 && passed + skipped > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
