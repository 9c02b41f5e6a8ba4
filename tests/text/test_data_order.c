/* SPDX-License-Identifier: MIT
 *
 * test_data_order.c: windows, their order, and what is kept for validation.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kiln/text.h"
#include "kiln_test.h"
#include "text/text_int.h"

enum { SEQ = 8 };

/* Ids that count up from 2, so that every id names its place; BOS (1) where a document begins.
 * `documents` gives their lengths and ends with 0. */
static struct kiln_token_file *counting_file(const size_t *documents) {
    static uint16_t ids[60000];
    size_t n = 0;
    for (; *documents > 0; documents++) {
        for (size_t i = 0; i < *documents; i++, n++) {
            ids[n] = i == 0 ? 1 : (uint16_t)(n + 2);
        }
    }
    struct kiln_token_file *file;
    struct kiln_err err;
    CHECK_OK(kiln_token_file_open(test_file("ids.bin", ids, n * 2), 0, &file, &err), &err);
    return file;
}

static struct kiln_data *open_data(const size_t *documents, uint64_t seed, double validation) {
    struct kiln_data *data;
    struct kiln_err err;
    CHECK_OK(kiln_data_create(counting_file(documents), SEQ, seed, validation, &data, &err), &err);
    return data;
}

/* Which window a sample read: the place of its second input, which is no document's first. */
static size_t window_of(const uint32_t *inputs) { return (inputs[1] - 2 - 1) / SEQ; }

TEST(targets_follow_inputs_by_one) {
    struct kiln_data *data = open_data((const size_t[]){1000, 0}, 1, 0);
    CHECK_EQ(kiln_data_windows(data, KILN_TRAIN), 999 / SEQ);
    CHECK_EQ(kiln_data_windows(data, KILN_VALIDATION), 0);
    uint32_t inputs[SEQ], targets[SEQ];
    for (size_t w = 0; w < kiln_data_windows(data, KILN_TRAIN); w++) {
        kiln_data_window(data, KILN_TRAIN, w, inputs, targets);
        for (size_t i = 0; i < SEQ; i++) {
            CHECK_EQ(targets[i], w * SEQ + i + 1 + 2);
            CHECK(i == 0 || inputs[i] == targets[i - 1]);
        }
    }
    kiln_data_destroy(data);
}

TEST(an_epoch_reads_every_window_once) {
    struct kiln_data *data = open_data((const size_t[]){30000, 0}, 5, 0);
    size_t windows = kiln_data_windows(data, KILN_TRAIN);
    size_t moved = 0;
    uint32_t inputs[SEQ], targets[SEQ];
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        bool *seen = calloc(windows, sizeof *seen);
        for (size_t s = 0; s < windows; s++) {
            kiln_data_train(data, epoch * windows + s, inputs, targets);
            size_t w = window_of(inputs);
            CHECK(w < windows);
            CHECK(!seen[w]);
            seen[w] = true;
            moved += w != s;
        }
        free(seen);
    }
    CHECK(moved > 3 * windows / 2);
    kiln_data_destroy(data);
}

TEST(order_depends_on_seed_and_epoch_and_sample_alone) {
    const size_t documents[] = {30000, 0};
    struct kiln_data *a = open_data(documents, 5, 0.1);
    struct kiln_data *b = open_data(documents, 5, 0.1);
    struct kiln_data *other = open_data(documents, 6, 0.1);
    size_t windows = kiln_data_windows(a, KILN_TRAIN);
    size_t seeds_differ = 0;
    size_t epochs_differ = 0;
    uint32_t x[SEQ], y[SEQ], targets[SEQ];
    for (size_t s = 2 * windows; s-- > 0;) {
        kiln_data_train(a, s, x, targets);
        kiln_data_train(b, 2 * windows - 1 - s, y, targets); /* another sample between */
        kiln_data_train(b, s, y, targets);
        CHECK_BYTES(x, y, sizeof x);
        kiln_data_train(other, s, y, targets);
        seeds_differ += memcmp(x, y, sizeof x) != 0;
        kiln_data_train(a, s + windows, y, targets);
        epochs_differ += memcmp(x, y, sizeof x) != 0;
    }
    CHECK(seeds_differ > windows);
    CHECK(epochs_differ > windows);
    kiln_data_destroy(a);
    kiln_data_destroy(b);
    kiln_data_destroy(other);
}

/* No id that a validation window reads is read in training. */
static void check_disjoint(const size_t *documents, double validation) {
    struct kiln_data *data = open_data(documents, 3, validation);
    uint32_t inputs[SEQ], targets[SEQ];
    uint32_t last = 0;
    for (size_t w = 0; w < kiln_data_windows(data, KILN_TRAIN); w++) {
        kiln_data_window(data, KILN_TRAIN, w, inputs, targets);
        for (size_t i = 0; i < SEQ; i++) {
            last = targets[i] > last ? targets[i] : last;
        }
    }
    CHECK(kiln_data_windows(data, KILN_VALIDATION) > 0);
    for (size_t w = 0; w < kiln_data_windows(data, KILN_VALIDATION); w++) {
        kiln_data_window(data, KILN_VALIDATION, w, inputs, targets);
        for (size_t i = 0; i < SEQ; i++) {
            CHECK(inputs[i] == 1 || inputs[i] > last);
            CHECK(targets[i] == 1 || targets[i] > last);
        }
    }
    kiln_data_destroy(data);
}

TEST(training_never_reads_validation) {
    static const double shares[] = {0.01, 0.05, 0.1, 0.33, 0.5};
    for (size_t i = 0; i < 5; i++) {
        check_disjoint((const size_t[]){5000, 0}, shares[i]);
        check_disjoint((const size_t[]){100, 200, 300, 4000, 50, 60, 70, 80, 0}, shares[i]);
        check_disjoint((const size_t[]){900, 900, 900, 900, 900, 900, 900, 900, 0}, shares[i]);
    }
}

TEST(validation_begins_with_a_document) {
    const size_t documents[] = {500, 300, 110, 90, 0};
    struct kiln_data *data = open_data(documents, 1, 0.1);
    uint32_t inputs[SEQ], targets[SEQ];
    kiln_data_window(data, KILN_VALIDATION, 0, inputs, targets);
    CHECK_EQ(inputs[0], 1);
    CHECK_EQ(targets[0], 910 + 1 + 2); /* 90 is nearer to 100 than 200 */
    CHECK_EQ(kiln_data_windows(data, KILN_TRAIN), 909 / SEQ);
    CHECK_EQ(kiln_data_windows(data, KILN_VALIDATION), 89 / SEQ);
    kiln_data_destroy(data);
}

TEST(a_single_document_is_cut_at_a_token) {
    struct kiln_data *data = open_data((const size_t[]){1000, 0}, 1, 0.1);
    uint32_t inputs[SEQ], targets[SEQ];
    kiln_data_window(data, KILN_VALIDATION, 0, inputs, targets);
    CHECK_EQ(inputs[0], 900 + 2);
    CHECK_EQ(kiln_data_windows(data, KILN_TRAIN), 899 / SEQ);
    CHECK_EQ(kiln_data_windows(data, KILN_VALIDATION), 99 / SEQ);
    kiln_data_destroy(data);
}

static void check_too_short(const size_t *documents, size_t seq, double validation,
                            const char *why) {
    struct kiln_token_file *file = counting_file(documents);
    struct kiln_data *data;
    struct kiln_err err;
    CHECK_FAILS(kiln_data_create(file, seq, 1, validation, &data, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, why);
    CHECK(data == NULL);
    kiln_token_file_close(file);
}

TEST(a_split_shorter_than_a_window_is_refused_with_numbers) {
    check_too_short((const size_t[]){8, 0}, 8, 0, "8 ids");
    check_too_short((const size_t[]){8, 0}, 8, 0, "needs 9");
    check_too_short((const size_t[]){100, 0}, 8, 0.05, "5 of its 100 ids are for validation");
    check_too_short((const size_t[]){20, 0}, 12, 0.5, "10 of its 20 ids are for training");
    check_too_short((const size_t[]){8, 0}, SIZE_MAX, 0, "8 ids");
}

TEST(impossible_settings_are_usage_errors) {
    static const double shares[] = {-0.1, 0.51, (double)INFINITY, (double)NAN};
    struct kiln_token_file *file = counting_file((const size_t[]){100, 0});
    struct kiln_data *data;
    struct kiln_err err;
    CHECK_FAILS(kiln_data_create(file, 0, 1, 0, &data, &err), KILN_EUSAGE, &err);
    for (size_t i = 0; i < 4; i++) {
        CHECK_FAILS(kiln_data_create(file, 8, 1, shares[i], &data, &err), KILN_EUSAGE, &err);
    }
    kiln_token_file_close(file);
}

/* ---- several files ------------------------------------------------------------------------------
 */

/* Raw ids first, first+1, ... : whose they are can be seen. */
static struct kiln_token_file *numbers(const char *name, uint16_t first, size_t n) {
    uint16_t ids[4000];
    struct kiln_token_file *file;
    struct kiln_err err;
    for (size_t i = 0; i < n; i++) {
        ids[i] = (uint16_t)(first + i);
    }
    CHECK_OK(kiln_token_file_open(test_file(name, ids, n * sizeof *ids), 0, &file, &err), &err);
    return file;
}

static struct kiln_data *mixed(const double *weights, double validation) {
    struct kiln_token_file *files[2] = {numbers("a.u16", 100, 1001), numbers("b.u16", 5000, 201)};
    struct kiln_data *data;
    struct kiln_err err;
    CHECK_OK(kiln_data_mix(files, weights, 2, 10, 7, validation, &data, &err), &err);
    return data;
}

TEST(files_come_as_their_weights_say_and_no_window_twice_in_an_epoch) {
    const double weights[] = {1, 2.5};
    struct kiln_data *data = mixed(weights, 0);
    uint32_t inputs[10], targets[10];
    size_t of[2] = {0, 0}, seen[2][100] = {{0}};
    for (uint64_t s = 0; s < 700; s++) {
        kiln_data_train(data, s, inputs, targets);
        const int f = inputs[0] >= 5000;
        const size_t window = (inputs[0] - (f ? 5000 : 100)) / 10, windows = f ? 20 : 100;
        of[f]++;
        seen[f][window]++;
        /* At most once an epoch of the file; epochs of a file follow each other. */
        CHECK(seen[f][window] <= (of[f] + windows - 1) / windows);
        CHECK_EQ(targets[9], inputs[0] + 10);
    }
    CHECK_EQ(of[0], 200);
    CHECK_EQ(of[1], 500);
    kiln_data_destroy(data);
}

TEST(without_weights_an_epoch_is_one_of_every_file) {
    struct kiln_data *data = mixed(NULL, 0);
    uint32_t inputs[10], targets[10];
    bool seen[6000] = {false};
    CHECK_EQ(kiln_data_windows(data, KILN_TRAIN), 120);
    for (uint64_t s = 0; s < 120; s++) {
        kiln_data_train(data, s, inputs, targets);
        CHECK(!seen[inputs[0]]);
        seen[inputs[0]] = true;
    }
    kiln_data_destroy(data);
}

TEST(a_sample_of_several_files_depends_on_its_number_alone) {
    const double weights[] = {3, 1};
    struct kiln_data *a = mixed(weights, 0), *b = mixed(weights, 0);
    uint32_t x[10], y[10], targets[10];
    for (uint64_t s = 0; s < 300; s++) {
        kiln_data_train(b, 299 - s, y, targets);
    }
    for (uint64_t s = 0; s < 300; s++) {
        kiln_data_train(a, s, x, targets);
        kiln_data_train(b, s, y, targets);
        CHECK_BYTES(x, y, sizeof x);
    }
    kiln_data_destroy(a);
    kiln_data_destroy(b);
}

/* Files that are read by window, as those to evaluate on are, come mixed; each window once. */
TEST(windows_of_several_files_come_mixed) {
    struct kiln_data *data = mixed(NULL, 0);
    uint32_t inputs[10], targets[10];
    size_t early = 0;
    bool seen[6000] = {false};
    for (size_t w = 0; w < kiln_data_windows(data, KILN_TRAIN); w++) {
        kiln_data_window(data, KILN_TRAIN, w, inputs, targets);
        CHECK(!seen[inputs[0]]);
        seen[inputs[0]] = true;
        const struct kiln_token_file *file = kiln_data_window_file(data, KILN_TRAIN, w);
        CHECK(file == kiln_data_file(data, inputs[0] >= 5000));
        early += w < 30 && inputs[0] >= 5000;
    }
    CHECK(early >= 2 && early <= 10); /* a sixth of the windows are of the second file */
    kiln_data_destroy(data);
}

TEST(every_file_holds_a_part_back) {
    struct kiln_data *data = mixed(NULL, 0.2);
    uint32_t inputs[10], targets[10];
    size_t of[2] = {0, 0}, early[2] = {0, 0};
    for (size_t w = 0; w < kiln_data_windows(data, KILN_VALIDATION); w++) {
        kiln_data_window(data, KILN_VALIDATION, w, inputs, targets);
        of[inputs[0] >= 5000]++;
        early[inputs[0] >= 5000] += w < 12;
    }
    CHECK_EQ(of[0], 19);
    CHECK(of[1] >= 3);
    CHECK(early[0] > 0 && early[1] > 0); /* the first ones are of both */
    for (uint64_t s = 0; s < 500; s++) {
        kiln_data_train(data, s, inputs, targets);
        CHECK(targets[9] < 100 + 801 || (targets[9] >= 5000 && targets[9] < 5000 + 162));
    }
    kiln_data_destroy(data);
}
