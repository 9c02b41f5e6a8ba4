/* SPDX-License-Identifier: MIT
 *
 * Damaged state files (src/state/state.h): what is damaged is named, nothing is changed, and what
 * need not be lost is not.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "kiln_test.h"
#include "state/state_int.h"
#include "state/state_lab.h"

enum { PAGE = 4096 };

static void flip_the_header(enum kiln_precision snapshots) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = lab_snapshots("state", table, snapshots, false);
    char notice[160];
    struct kiln_err err;
    static const struct {
        long from, end;
        const char *text;
    } fields[] = {{0, 8, "header field magic"},
                  {8, 12, "byte_order"},
                  {12, 16, "header field version is"},
                  {16, 24, "header field dim is"},
                  {24, 32, "header field hidden is"},
                  {32, 40, "header field layers is"},
                  {40, 48, "header field heads is"},
                  {48, 56, "header field kv_heads is"},
                  {56, 64, "header field head_size is"},
                  {64, 72, "header field vocab is"},
                  {72, 80, "header field seq is"},
                  {80, 88, "header field tied is"},
                  {88, 96, "header field rms_eps is"},
                  {96, 104, "header field rope_theta is"},
                  {104, 112, "header field qkv_bias is"},
                  {112, 120, "header field qk_norm is"},
                  {120, 128, "header field rope_kind is"},
                  {128, 136, "header field rope_factor is"},
                  {136, 144, "header field rope_low_freq_factor is"},
                  {144, 152, "header field rope_high_freq_factor is"},
                  {152, 160, "header field rope_beta_fast is"},
                  {160, 168, "header field rope_beta_slow is"},
                  {168, 176, "header field rope_attention_factor is"},
                  {176, 184, "header field rope_original_seq is"},
                  {184, 192, "header field snapshots is"},
                  {192, 192 + 8 * KILN_REGIONS, "header field offset of"},
                  {192 + 8 * KILN_REGIONS, 192 + 16 * KILN_REGIONS, "header field length of"},
                  {192 + 16 * KILN_REGIONS, 200 + 16 * KILN_REGIONS, "header field file_bytes is"},
                  {200 + 16 * KILN_REGIONS, 224 + 16 * KILN_REGIONS, "header field lora is"},
                  {224 + 16 * KILN_REGIONS, 232 + 16 * KILN_REGIONS, "header field local is"},
                  {232 + 16 * KILN_REGIONS, PAGE - 4, "header padding at byte"},
                  {PAGE - 4, PAGE, "header field crc is"}};
    const uint32_t whole = lab_hash(path);
    long flips = 0;
    for (size_t f = 0; f < sizeof fields / sizeof fields[0]; f++) {
        for (long at = fields[f].from; at < fields[f].end; at++) {
            for (int bit = 0; bit < 8; bit++, flips++) {
                lab_flip(path, at, 1 << bit);
                CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EDAMAGED, &err);
                CHECK_CONTAINS(err.message, fields[f].text);
                lab_flip(path, at, 1 << bit);
            }
        }
    }
    CHECK_OK(lab_open(path, table, notice, &err), &err);
    CHECK_EQ(lab_hash(path), whole);
    CHECK_STRING(notice, "");
    CHECK_EQ(flips, 8 * PAGE);
    printf("      %ld bits of the header flipped\n", flips);
    kiln_table_destroy(table);
}

TEST(every_bit_of_the_header_is_guarded_and_its_field_named) {
    flip_the_header(KILN_PRECISION_AUTO);
}

TEST(every_bit_of_the_header_of_a_state_with_snapshots_is_guarded) {
    flip_the_header(KILN_PRECISION_BF16);
}

TEST(a_header_field_that_is_damaged_is_told_with_both_values) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = lab_state("state", table, false);
    char notice[160];
    struct kiln_err err;
    lab_flip(path, 16, 1);
    CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EDAMAGED, &err);
    CHECK_CONTAINS(err.message,
                   "header field dim is 17, expected 16: the header is damaged; remove");
    path = lab_snapshots("narrow", table, KILN_PRECISION_FP16, false);
    lab_flip(path, 184, 2);
    CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EDAMAGED, &err);
    CHECK_CONTAINS(err.message, "header field snapshots is 1, expected 3: the header is damaged");
    kiln_table_destroy(table);
}

/* Either slot alone is enough; both damaged is the end. */
TEST(every_bit_of_a_slot_may_flip) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = lab_state("state", table, true);
    char notice[160];
    struct kiln_err err;
    const uint32_t whole = lab_hash(path);
    long flips = 0;
    for (long at = PAGE; at < 3L * PAGE; at++) {
        const long other = at < 2L * PAGE ? at + PAGE : at - PAGE;
        for (int bit = 0; bit < 8; bit++, flips++) {
            lab_flip(path, at, 1 << bit);
            CHECK_OK(lab_open(path, table, notice, &err), &err);
            CHECK_CONTAINS(notice, "one of the two cursors is damaged");
            lab_flip(path, other, 1 << bit);
            CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EUNTRUSTED, &err);
            CHECK_CONTAINS(err.message, "both cursors are damaged");
            lab_flip(path, other, 1 << bit);
            lab_flip(path, at, 1 << bit);
        }
    }
    CHECK_OK(lab_open(path, table, notice, &err), &err);
    CHECK_EQ(lab_hash(path), whole);
    CHECK_STRING(notice, "");
    printf("      %ld bits of the slots flipped\n", flips);
    kiln_table_destroy(table);
}

TEST(a_damaged_slot_is_whole_again_when_training_begins) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = lab_state("state", table, false);
    char notice[160];
    struct kiln_err err;
    struct kiln_state *state;
    for (long at = PAGE + 9; at < 3L * PAGE; at += PAGE) {
        lab_flip(path, at, 8);
        CHECK_OK(kiln_state_open(path, table, &state, notice, &err), &err);
        CHECK_OK(kiln_state_begin(state, &err), &err);
        kiln_state_close(state);
        CHECK_OK(lab_open(path, table, notice, &err), &err);
        CHECK_STRING(notice, "");
    }
    kiln_table_destroy(table);
}

TEST(a_truncated_file_is_told_wherever_it_is_cut) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = lab_state("state", table, false);
    char notice[160];
    size_t cuts = 0;
    struct kiln_err err;
    /* Every byte of header and slots, of the last page, and every 4099th between. */
    const size_t size = kiln_state_bytes(table, KILN_PRECISION_AUTO, false);
    for (size_t length = size; length > 0; cuts++) {
        const bool every = length <= 3 * PAGE + 4099 || length + PAGE > size;
        length -= every ? 1 : 4099;
        CHECK(truncate(path, (off_t)length) == 0);
        CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EDAMAGED, &err);
        CHECK_CONTAINS(err.message, "the file is truncated");
    }
    CHECK(cuts > 4 * PAGE);
    printf("      %zu cuts\n", cuts);
    kiln_table_destroy(table);
}

TEST(padding_behind_every_region_is_checked) {
    struct kiln_table *table = lab_table(16, true);
    const char *path = lab_snapshots("state", table, KILN_PRECISION_FP16, false);
    struct kiln_state_header h;
    char notice[160], where[64];
    struct kiln_err err;
    kiln_state_header_make(table, KILN_PRECISION_FP16, false, &h);
    CHECK(h.region_offset[KILN_SNAPSHOT0] + h.region_bytes[KILN_SNAPSHOT0] <
          h.region_offset[KILN_SNAPSHOT1]);
    long flips = 0;
    for (size_t r = 0; r < KILN_REGIONS; r++) {
        long end = r + 1 < KILN_REGIONS ? (long)h.region_offset[r + 1] : (long)h.file_bytes;
        for (long at = (long)(h.region_offset[r] + h.region_bytes[r]); at < end; at += 61) {
            lab_flip(path, at, 1);
            CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EDAMAGED, &err);
            snprintf(where, sizeof where, "padding at byte %ld is 0x1", at);
            CHECK_CONTAINS(err.message, where);
            lab_flip(path, at, 1);
            flips++;
        }
    }
    CHECK(flips > 100);
    printf("      %ld bytes of padding changed\n", flips);
    kiln_table_destroy(table);
}

/* A header that is whole but is of something else. */
static void reheader(const char *path, long at, const void *bytes, size_t n) {
    struct kiln_state_header h;
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && pread(fd, &h, sizeof h, 0) == sizeof h);
    memcpy((char *)&h + at, bytes, n);
    h.crc = kiln_crc32c(0, &h, offsetof(struct kiln_state_header, crc));
    CHECK(pwrite(fd, &h, sizeof h, 0) == sizeof h);
    close(fd);
}

TEST(another_model_version_or_byte_order_is_refused_by_name) {
    struct kiln_table *table = lab_table(16, true), *wider = lab_table(32, true),
                      *untied = lab_table(16, false);
    const char *path = lab_state("state", table, false);
    char notice[160];
    struct kiln_err err;
    CHECK_FAILS(lab_open(path, wider, notice, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "made for another model: dim is 16, this run's is 32");
    CHECK_FAILS(lab_open(path, untied, notice, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "made for another model: tied is 1, this run's is 0");
    struct kiln_dims dims = table->dims;
    struct kiln_table *normed;
    dims.qk_norm = true;
    CHECK_OK(kiln_table_create(&dims, &normed, &err), &err);
    CHECK_FAILS(lab_open(path, normed, notice, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "made for another model: qk_norm is 0, this run's is 1");
    kiln_table_destroy(normed);
    const uint64_t unknown = KILN_PRECISION_FP16 + 1, none = 0;
    reheader(path, 184, &unknown, sizeof unknown);
    CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EDAMAGED, &err);
    CHECK_CONTAINS(err.message, "snapshots of precision 4, which this kiln does not know");
    reheader(path, 184, &none, sizeof none);
    CHECK_OK(lab_open(path, table, notice, &err), &err);
    const uint32_t version = 2, order = 0x04030201u;
    reheader(path, 12, &version, sizeof version);
    CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EDAMAGED, &err);
    CHECK_CONTAINS(err.message, "version 2, this kiln reads version 8");
    reheader(path, 8, &order, sizeof order);
    CHECK_FAILS(lab_open(path, table, notice, &err), KILN_EDAMAGED, &err);
    CHECK_CONTAINS(err.message, "written with another byte order");
    const char *text = test_file("text", "no state at all, but a text", 27);
    CHECK_FAILS(lab_open(text, table, notice, &err), KILN_EDAMAGED, &err);
    struct kiln_state *state;
    CHECK_FAILS(kiln_state_open(test_path("absent"), table, &state, notice, &err), KILN_EINPUT,
                &err);
    kiln_table_destroy(table);
    kiln_table_destroy(wider);
    kiln_table_destroy(untied);
}

TEST(a_stamp_or_journal_slot_that_no_update_leaves_is_refused) {
    struct kiln_table *table = lab_table(16, true);
    struct kiln_state_header h;
    char notice[160];
    struct kiln_err err;
    struct kiln_state *state;
    kiln_state_header_make(table, KILN_PRECISION_AUTO, false, &h);
    const struct {
        enum kiln_region region;
        long at;
        int bits;
        const char *text;
    } cases[] = {{KILN_STAMPS, 3, 1, "stamp of chunk 0"},
                 {KILN_STAMPS, 0, 4, "stamp of chunk 0"},
                 {KILN_JOURNAL, 4, 1, "journal slot 0"},
                 {KILN_JOURNAL, sizeof(struct kiln_journal_slot), 255, "journal slot 1"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[16];
        snprintf(name, sizeof name, "state%zu", i);
        const char *path = lab_state(name, table, false);
        lab_flip(path, (long)h.region_offset[cases[i].region] + cases[i].at, cases[i].bits);
        const uint32_t before = lab_hash(path);
        CHECK_OK(kiln_state_open(path, table, &state, notice, &err), &err);
        CHECK_FAILS(kiln_state_restore(state, 1, &err), KILN_EDAMAGED, &err);
        CHECK_CONTAINS(err.message, cases[i].text);
        CHECK_CONTAINS(err.message, path);
        kiln_state_close(state);
        CHECK_EQ(lab_hash(path), before);
    }
    kiln_table_destroy(table);
}
