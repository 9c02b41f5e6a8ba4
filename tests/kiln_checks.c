/* SPDX-License-Identifier: MIT
 *
 * kiln_checks.c: the checks of tests/kiln_test.h, the same under either runner (kiln_test.c,
 * plain_runner.c).
 */
#include <math.h>
#include <string.h>

#include "kiln_test.h"

void kiln_test_equal(const char *file, int line, const char *got_text, long long got,
                     const char *want_text, long long want) {
    if (got != want) {
        kiln_test_fail(file, line, "%s is %lld, not %lld (%s)", got_text, got, want, want_text);
    }
}

void kiln_test_close(const char *file, int line, const char *text, double got, double want,
                     double tolerance) {
    if (!(fabs(got - want) <= tolerance)) {
        kiln_test_fail(file, line, "%s is %.9g, not %.9g: off by %.3g, allowed %.3g", text, got,
                       want, fabs(got - want), tolerance);
    }
}

void kiln_test_all_close(const char *file, int line, const char *text, const float *got,
                         const float *want, size_t n, double tolerance) {
    double worst = -1.0;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const double error = fabs((double)got[i] - (double)want[i]);
        if (isnan(error)) {
            worst = HUGE_VAL;
            at = i;
            break;
        }
        if (error > worst) {
            worst = error;
            at = i;
        }
    }
    if (worst > tolerance) {
        kiln_test_fail(file, line, "%s[%zu of %zu] is %.9g, not %.9g: off by %.3g, allowed %.3g",
                       text, at, n, (double)got[at], (double)want[at], worst, tolerance);
    }
}

void kiln_test_near_norm(const char *file, int line, const char *text, const float *got,
                         const float *want, size_t n, double tolerance) {
    double difference = 0.0;
    double norm = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)got[i] - (double)want[i];
        difference += d * d;
        norm += (double)want[i] * (double)want[i];
    }
    if (!(sqrt(difference) <= tolerance * sqrt(norm))) {
        kiln_test_fail(file, line,
                       "%s: norm of the difference %.3g, norm wanted %.3g, ratio %.3g, "
                       "allowed %.3g",
                       text, sqrt(difference), sqrt(norm), sqrt(difference / norm), tolerance);
    }
}

void kiln_test_string(const char *file, int line, const char *text, const char *got,
                      const char *want) {
    if (got == NULL || strcmp(got, want) != 0) {
        kiln_test_fail(file, line, "%s is \"%s\", not \"%s\"", text, got ? got : "(null)", want);
    }
}

void kiln_test_contains(const char *file, int line, const char *text, const char *whole,
                        const char *part) {
    if (whole == NULL || strstr(whole, part) == NULL) {
        kiln_test_fail(file, line, "%s is \"%s\", without \"%s\"", text, whole ? whole : "(null)",
                       part);
    }
}

void kiln_test_bytes(const char *file, int line, const char *text, const void *got,
                     const void *want, size_t n) {
    const unsigned char *a = got;
    const unsigned char *b = want;
    for (size_t i = 0; i < n; i++) {
        if (a[i] != b[i]) {
            kiln_test_fail(file, line, "%s: byte %zu of %zu is %#x, not %#x", text, i, n, a[i],
                           b[i]);
        }
    }
}

void kiln_test_status(const char *file, int line, const char *text, enum kiln_status got,
                      enum kiln_status want, const struct kiln_err *err) {
    if (got != want) {
        kiln_test_fail(file, line, "%s gave %s, not %s: %s", text, kiln_status_name(got),
                       kiln_status_name(want), got != KILN_OK && err ? err->message : "");
    }
    if (want != KILN_OK && err != NULL) {
        if (err->code != want) {
            kiln_test_fail(file, line, "%s gave %s, but its kiln_err holds %s", text,
                           kiln_status_name(got), kiln_status_name(err->code));
        }
        if (err->message[0] == '\0') {
            kiln_test_fail(file, line, "%s failed without a message", text);
        }
    }
}
