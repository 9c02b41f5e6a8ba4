/* SPDX-License-Identifier: MIT
 *
 * test_exports.c: CSV and event files hold what metrics.jsonl does, and an event file is repaired
 * to the very bytes that it would have had, whatever a death left of it.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/mem.h"
#include "kiln/report.h"
#include "kiln_test.h"
#include "report/lines.h"
#include "report/tensorboard.h"

/* ---- a run ----------------------------------------------------------------------------------- */

static const char *run_folder(void) {
    static char folder[4096];
    struct kiln_err err;
    snprintf(folder, sizeof folder, "%s", test_path("run"));
    CHECK_OK(kiln_make_dirs(folder, &err), &err);
    return folder;
}

static void write_run(const char *name, const char *text, size_t size) {
    char path[4300];
    struct kiln_err err;
    snprintf(path, sizeof path, "%s/%s", run_folder(), name);
    CHECK_OK(kiln_write_file(path, text, size, &err), &err);
}

/* Steps 1 to n, of a run that was begun `again` times. */
static size_t metrics_of(char *out, size_t room, unsigned n, unsigned again) {
    size_t used = 0;
    for (unsigned step = 1; step <= n; step++) {
        used += (size_t)snprintf(out + used, room - used,
                                 "{\"step\":%u,\"loss\":%.17g,\"ms\":%u.5,\"tokens\":%u%s}\n", step,
                                 3.0 / step + again, 100 + again, 1000 * step,
                                 step % 5 == 0 ? ",\"val_loss\":2.5,\"skipped\":true" : "");
    }
    return used;
}

static char *read_all(const char *path, size_t *size) {
    struct kiln_err err;
    char *text;
    CHECK_OK(kiln_read_file(path, &text, size, &err), &err);
    return text;
}

/* ---- lines ----------------------------------------------------------------------------------- */

TEST(pairs_of_a_line_are_its_own_digits) {
    static const char line[] =
        "{\"a\": 1.50e-3 ,\"b\":null,\"c\":\"x,}\\\"y\",\"d\":[1,{\"e\":2}]}";
    static const char *const expected[] = {"a", "1.50e-3",      "b", "null",
                                           "c", "\"x,}\\\"y\"", "d", "[1,{\"e\":2}]"};
    const char *at = line;
    struct kiln_pair pair;
    for (size_t i = 0; i < 8; i += 2) {
        CHECK(kiln_pair_next(&at, line + sizeof line - 1, &pair));
        CHECK(kiln_pair_is(&pair, expected[i]));
        CHECK_EQ(pair.value_size, strlen(expected[i + 1]));
        CHECK(memcmp(pair.value, expected[i + 1], pair.value_size) == 0);
    }
    CHECK(!kiln_pair_next(&at, line + sizeof line - 1, &pair));
}

TEST(a_line_that_is_cut_anywhere_has_no_step) {
    static const char line[] = "{\"loss\":2.5,\"step\":12,\"text\":\"a\\\"}\"}";
    uint64_t step = 0;
    CHECK(kiln_line_count(line, sizeof line - 1, "step", &step));
    CHECK_EQ(step, 12);
    for (size_t n = 0; n < sizeof line - 1; n++) {
        char *part = kiln_alloc(n + 1, 1); /* a sanitizer sees what is read behind it */
        memcpy(part, line, n);
        CHECK(!kiln_line_count(part, n, "step", &step));
        kiln_free(part);
    }
    CHECK(!kiln_line_count("{\"step\":-1}", 11, "step", &step));
    CHECK(!kiln_line_count("{\"step\":99999999999999999999}", 29, "step", &step));
}

TEST(lines_that_are_taken_again_drop_those_behind) {
    static const char text[] =
        "{\"step\":1}\nnonsense\n{\"step\":2}\n{\"step\":3}\n{\"step\":2,"
        "\"x\":1}\n{\"step\":4}\n{\"step\":5";
    struct kiln_lines lines;
    struct kiln_err err;
    size_t first;
    const char *line;
    write_run("metrics.jsonl", text, sizeof text - 1);
    CHECK_OK(kiln_lines_open(&lines, run_folder(), "metrics.jsonl", &err), &err);
    CHECK_OK(kiln_lines_more(&lines, &first, &err), &err);
    CHECK_EQ(lines.n, 3);
    CHECK_OK(kiln_lines_text(&lines, 1, &line, &err), &err);
    CHECK_STRING(line, "{\"step\":2,\"x\":1}");
    CHECK_OK(kiln_lines_more(&lines, &first, &err), &err);
    CHECK_EQ(first, 3); /* nothing new */
    write_run("metrics.jsonl", text, 11);
    CHECK_OK(kiln_lines_more(&lines, &first, &err), &err);
    CHECK_EQ(first, 0);
    CHECK_EQ(lines.n, 1);
    kiln_lines_close(&lines);
}

/* ---- CSV ------------------------------------------------------------------------------------- */

TEST(csv_has_every_key_and_the_very_digits) {
    static const char text[] =
        "{\"step\":1,\"loss\":2.5000000000000004,\"ms\":1e-07}\n"
        "{\"step\":2,\"loss\":null,\"ms\":3.0,\"skipped\":true}\n"
        "{\"step\":3,\"odd, \\\"key\":\"a\",\"ms\":-0.5}\n";
    char path[4300];
    struct kiln_err err;
    size_t size;
    write_run("metrics.jsonl", text, sizeof text - 1);
    snprintf(path, sizeof path, "%s/out.csv", run_folder());
    CHECK_OK(kiln_report_csv(run_folder(), path, &err), &err);
    char *csv = read_all(path, &size);
    CHECK_STRING(csv,
                 "step,loss,ms,skipped,\"odd, \\\"\"key\"\r\n"
                 "1,2.5000000000000004,1e-07,,\r\n"
                 "2,,3.0,true,\r\n"
                 "3,,-0.5,,\"\"\"a\"\"\"\r\n");
    kiln_free(csv);
    CHECK_FAILS(kiln_report_csv(test_path("none"), path, &err), KILN_EINPUT, &err);
}

/* ---- event files ----------------------------------------------------------------------------- */

static const char *event_file(const char *folder) {
    static char path[4400];
    size_t n = 0, empty = 0;
    DIR *dir = opendir(folder);
    CHECK(dir != NULL);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        struct stat st;
        if (strstr(entry->d_name, "tfevents") != NULL) {
            CHECK(fstatat(dirfd(dir), entry->d_name, &st, 0) == 0);
            empty += st.st_size == 0;
            n += st.st_size > 0;
            if (st.st_size > 0) {
                snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            }
        }
    }
    closedir(dir);
    CHECK_EQ(n, 1);
    CHECK(empty <= 1); /* one that it has replaced */
    return path;
}

/* Records of the file, each with both checksums right. */
static size_t records_of(const char *path) {
    size_t size, n = 0;
    unsigned char *bytes = (unsigned char *)read_all(path, &size);
    for (size_t at = 0; at < size; n++) {
        uint64_t length;
        uint32_t sums[2];
        CHECK(at + 16 <= size);
        memcpy(&length, bytes + at, 8);
        CHECK(length <= size - at - 16);
        memcpy(&sums[0], bytes + at + 8, 4);
        memcpy(&sums[1], bytes + at + 12 + length, 4);
        for (int i = 0; i < 2; i++) {
            const uint32_t crc =
                kiln_crc32c(0, bytes + at + (i ? 12 : 0), i ? (size_t)length : (size_t)8);
            CHECK_EQ(sums[i], (crc >> 15 | crc << 17) + 0xa282ead8u);
        }
        at += 16 + (size_t)length;
    }
    kiln_free(bytes);
    return n;
}

static const char samples[] =
    "{\"step\":5,\"ms\":1.0,\"text\":\"one\"}\n"
    "{\"step\":10,\"ms\":1.0,\"text\":\"two \\u20ac\"}\n"
    "{\"step\":90,\"ms\":1.0,\"text\":\"of a step that is cut\"}\n";

/* What the file must be, of a run of n steps: written at once under the same name. */
static char *expected_of(const char *like, size_t *size) {
    char folder[4300], path[8800];
    struct kiln_err err;
    snprintf(folder, sizeof folder, "%s", test_path("expected"));
    CHECK_OK(kiln_remove_tree(folder, &err), &err);
    CHECK_OK(kiln_make_dirs(folder, &err), &err);
    snprintf(path, sizeof path, "%s%s", folder, strrchr(like, '/'));
    CHECK_OK(kiln_write_file(path, "", 0, &err), &err);
    CHECK_OK(kiln_report_tensorboard(run_folder(), folder, &err), &err);
    return read_all(event_file(folder), size);
}

static void put_file(const char *path, const char *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    CHECK(fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
}

static void same_bytes(const char *path, const char *expected, size_t size) {
    size_t n;
    char *got = read_all(path, &n);
    CHECK_EQ(n, size);
    CHECK(memcmp(got, expected, size) == 0);
    kiln_free(got);
}

static void same_as_expected(const char *path) {
    size_t size;
    char *expected = expected_of(path, &size);
    same_bytes(path, expected, size);
    kiln_free(expected);
}

TEST(an_event_file_is_repaired_wherever_it_is_cut) {
    static char text[20000];
    char to[4300];
    struct kiln_err err;
    size_t size;
    write_run("metrics.jsonl", text, metrics_of(text, sizeof text, 20, 0));
    write_run("samples.jsonl", samples, sizeof samples - 1);
    snprintf(to, sizeof to, "%s/board", test_path("out"));
    CHECK_OK(kiln_report_tensorboard(run_folder(), to, &err), &err);
    char first[4400];
    snprintf(first, sizeof first, "%s", event_file(to));
    CHECK_EQ(records_of(first), 2 + 20 + 2);
    same_as_expected(first);
    char *whole = read_all(first, &size);
    for (size_t n = 0; n <= size; n += n < 200 ? 1 : 37) {
        put_file(first, whole, n);
        CHECK_OK(kiln_report_tensorboard(run_folder(), to, &err), &err);
        CHECK_STRING(event_file(to), first);
        same_bytes(first, whole, size);
    }
    for (size_t i = 0; i < size; i += 53) { /* another byte: another file */
        whole[i] ^= 4;
        put_file(first, whole, size);
        whole[i] ^= 4;
        CHECK_OK(kiln_report_tensorboard(run_folder(), to, &err), &err);
        CHECK(strcmp(event_file(to), first) > 0);
        same_as_expected(event_file(to));
        CHECK(unlink(event_file(to)) == 0);
    }
    kiln_free(whole);
}

/* As a recorder does: kept open while the run goes on, is rolled back and goes on otherwise. */
TEST(an_event_file_follows_a_run_that_is_cut_back) {
    static char text[40000];
    struct kiln_tensorboard *board;
    struct kiln_err err;
    char to[4300];
    const unsigned stages[][2] = {{0, 0}, {3, 0},  {3, 0}, {7, 0}, {12, 0},
                                  {9, 0}, {15, 1}, {5, 1}, {5, 2}, {30, 2}};
    snprintf(to, sizeof to, "%s", test_path("board"));
    write_run("metrics.jsonl", "", 0);
    CHECK_OK(kiln_tensorboard_open(run_folder(), to, &board, &err), &err);
    for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++) {
        size_t n = metrics_of(text, sizeof text, stages[i][0], stages[i][1]);
        n += i % 2 == 0 ? (size_t)snprintf(text + n, sizeof text - n, "{\"step\":999,\"lo") : 0;
        write_run("metrics.jsonl", text, n);
        write_run("samples.jsonl", samples, i > 4 ? sizeof samples - 1 : 40);
        CHECK_OK(kiln_tensorboard_update(board, &err), &err);
        const unsigned at = stages[i][0];
        CHECK_EQ(records_of(event_file(to)), 2 + at + (at >= 5) + (at >= 10 && i > 4));
        same_as_expected(event_file(to));
    }
    CHECK_FAILS(kiln_report_tensorboard(run_folder(), to, &err), KILN_EBUSY, &err);
    kiln_tensorboard_close(board);
    CHECK_OK(kiln_report_tensorboard(run_folder(), to, &err), &err);
    CHECK_FAILS(kiln_report_tensorboard(test_path("none"), to, &err), KILN_EINPUT, &err);
}

/* wall_time is the second of the name and the time of the steps, not of a clock. */
TEST(an_event_file_has_the_time_of_the_steps) {
    static char text[4000];
    struct kiln_err err;
    size_t size;
    double times[4];
    write_run("metrics.jsonl", text, metrics_of(text, sizeof text, 2, 0));
    const char *to = test_path("board");
    char path[4300];
    CHECK_OK(kiln_make_dirs(to, &err), &err);
    snprintf(path, sizeof path, "%s/events.out.tfevents.1000.kiln", to);
    CHECK_OK(kiln_write_file(path, "", 0, &err), &err);
    CHECK_OK(kiln_report_tensorboard(run_folder(), to, &err), &err);
    char *bytes = read_all(event_file(to), &size);
    for (size_t at = 0, i = 0; i < 4; i++) {
        uint64_t length;
        memcpy(&length, bytes + at, 8);
        memcpy(&times[i], bytes + at + 13, 8); /* behind the field's number */
        at += 16 + (size_t)length;
    }
    CHECK(times[0] == 1000.0 && times[1] == 1000.0);
    CHECK(times[2] == 1000.1005 && times[3] == 1000.201);
    kiln_free(bytes);
}
