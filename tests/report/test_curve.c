/* SPDX-License-Identifier: MIT
 *
 * test_curve.c: the picture of the loss is as wide as asked for, falls where the loss falls, and
 * takes runs of any length.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kiln/report.h"
#include "kiln_test.h"

static struct kiln_step_record step_of(uint64_t step, double loss) {
    return (struct kiln_step_record){.step = step, .loss = loss, .val_loss = (double)NAN};
}

/* Characters of UTF-8; an escape sequence is none. */
static size_t characters(const char *line, size_t size) {
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        if (line[i] == '\033') {
            i += strcspn(line + i, "m");
        } else {
            n += ((unsigned char)line[i] & 0xc0) != 0x80;
        }
    }
    return n;
}

static size_t widest(const char *text, size_t *lines) {
    size_t most = 0;
    *lines = 0;
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        const size_t n = characters(line, strcspn(line, "\n"));
        most = n > most ? n : most;
        ++*lines;
    }
    return most;
}

TEST(a_curve_of_nothing_is_empty) {
    struct kiln_curve *curve = kiln_curve_create();
    const struct kiln_curve_look look = {.columns = 80, .rows = 8};
    for (uint64_t step = 1; step <= 2; step++) {
        char *text = kiln_curve_text(curve, &look);
        CHECK_STRING(text, "");
        kiln_report_free(text);
        const struct kiln_step_record record = step_of(step, 2);
        kiln_curve_add(curve, &record);
    }
    char *text = kiln_curve_text(curve, &look);
    CHECK_CONTAINS(text, "step 2\n");
    kiln_report_free(text);
    kiln_curve_destroy(curve);
}

TEST(a_curve_has_the_size_that_was_asked_for) {
    struct kiln_curve *curve = kiln_curve_create();
    size_t lines;
    for (uint64_t step = 1; step <= 5000; step++) {
        struct kiln_step_record record = step_of(step, 1 + 9.0 / (double)step);
        record.val_loss = step % 500 == 0 ? record.loss + 0.1 : (double)NAN;
        kiln_curve_add(curve, &record);
    }
    for (size_t columns = 24; columns <= 120; columns += 7) {
        for (int kind = 0; kind < 8; kind++) {
            const struct kiln_curve_look look = {.columns = columns,
                                                 .rows = 4 + columns / 10,
                                                 .utf8 = kind & 1,
                                                 .log_steps = (kind & 2) != 0,
                                                 .colours = (kind & 4) != 0};
            char *text = kiln_curve_text(curve, &look);
            CHECK_EQ(widest(text, &lines), columns); /* the legend is no wider */
            CHECK_EQ(lines, look.rows + 3);
            CHECK_CONTAINS(text, "o");
            CHECK_EQ(strchr(text, '\033') != NULL, look.colours);
            for (const char *c = text; !look.utf8 && *c != '\0'; c++) {
                CHECK((unsigned char)*c < 0x80);
            }
            kiln_report_free(text);
        }
    }
    kiln_curve_destroy(curve);
}

TEST(a_curve_in_ascii_is_where_the_loss_is) {
    struct kiln_curve *curve = kiln_curve_create();
    const struct kiln_curve_look look = {.columns = 26, .rows = 3};
    for (uint64_t step = 1; step <= 20; step++) {
        const struct kiln_step_record record = step_of(step, step <= 10 ? 4 : 2);
        kiln_curve_add(curve, &record);
    }
    char *text = kiln_curve_text(curve, &look);
    CHECK_STRING(text,
                 "     . loss, * smoothed\n"
                 "4.00 +************        \n"
                 "     |            ********\n"
                 "2.00 +          ..........\n"
                 "     +--------------------\n"
                 "      1        10  step 20\n");
    kiln_report_free(text);
    kiln_curve_destroy(curve);
}

TEST(a_curve_takes_any_step_and_what_is_no_number) {
    struct kiln_curve *curve = kiln_curve_create();
    const double losses[] = {(double)NAN, (double)INFINITY, 3, 3, -(double)INFINITY, 1e30, 2};
    const uint64_t steps[] = {1, 2, 3, 511, 512, 1000000000000, UINT64_MAX};
    for (size_t i = 0; i < 7; i++) {
        const struct kiln_step_record record = step_of(steps[i], losses[i]);
        kiln_curve_add(curve, &record);
    }
    for (int log_steps = 0; log_steps < 2; log_steps++) {
        const struct kiln_curve_look look = {
            .columns = 5, .rows = 1000, .log_steps = log_steps, .utf8 = true};
        char *text = kiln_curve_text(curve, &look);
        CHECK(text != NULL && text[0] != '\0');
        kiln_report_free(text);
    }
    kiln_curve_clear(curve);
    const struct kiln_curve_look look = {.columns = 80, .rows = 8};
    char *text = kiln_curve_text(curve, &look);
    CHECK_STRING(text, "");
    kiln_report_free(text);
    kiln_curve_destroy(curve);
}
