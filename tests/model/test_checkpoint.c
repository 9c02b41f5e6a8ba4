/* SPDX-License-Identifier: MIT
 *
 * Model files: what is read is what is written, byte for byte, and no damaged file does more than
 * give an error. Run under the address sanitizer for the second half to mean something.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/random.h"
#include "kiln/model.h"
#include "kiln_test.h"

struct model {
    struct kiln_checkpoint *file;
    struct kiln_table *table;
    float *weights;
};

static struct model load(const char *path) {
    struct model model;
    struct kiln_err err;
    CHECK_OK(kiln_checkpoint_open(path, &model.file, &err), &err);
    CHECK_OK(kiln_table_create(kiln_checkpoint_dims(model.file), &model.table, &err), &err);
    model.weights = kiln_alloc(model.table->size, sizeof(float));
    for (size_t i = 0; i < model.table->size; i++) {
        model.weights[i] = NAN; /* so that what is not written shows */
    }
    CHECK_OK(kiln_checkpoint_load(model.file, model.table, model.weights, &err), &err);
    return model;
}

static void drop(struct model *model) {
    kiln_checkpoint_close(model->file);
    kiln_table_destroy(model->table);
    kiln_free(model->weights);
}

/* A small model of our own, saved; for tests that must run where no data lies. */
static const char *save_small(bool tied, size_t kv_heads) {
    struct kiln_dims dims = {.dim = 12,
                             .hidden = 7,
                             .layers = 2,
                             .heads = 3,
                             .kv_heads = kv_heads,
                             .vocab = 11,
                             .seq = 5,
                             .tied = tied,
                             .rms_eps = 1e-5f,
                             .rope_theta = 10000.0f};
    struct kiln_table *table;
    struct kiln_err err;
    CHECK_OK(kiln_table_create(&dims, &table, &err), &err);
    float *weights = kiln_alloc(table->size, sizeof *weights);
    kiln_weights_init(table, 3, weights);
    const char *path = test_path("small.bin");
    CHECK_OK(kiln_checkpoint_save_llama2c(path, table, weights, &err), &err);
    kiln_free(weights);
    kiln_table_destroy(table);
    return path;
}

struct bytes {
    char *data;
    size_t size;
};

static struct bytes read_bytes(const char *path) {
    struct bytes bytes;
    struct kiln_err err;
    CHECK_OK(kiln_read_file(path, &bytes.data, &bytes.size, &err), &err);
    return bytes;
}

/* Where the frequency tables lie in a file, in bytes. */
static void freq_range(const struct model *model, size_t file_size, size_t *begin, size_t *end) {
    const struct kiln_dims *dims = &model->table->dims;
    *end = file_size - (dims->tied ? 0 : dims->vocab * dims->dim * sizeof(float));
    *begin = *end - dims->seq * dims->head_size * sizeof(float);
}

/* Weights and header come back byte for byte; frequencies within `tolerance` (0: also exactly). */
static void check_round_trip(const char *path, double tolerance) {
    struct model model = load(path);
    const char *copy = test_path("copy.bin");
    struct kiln_err err;
    CHECK_OK(kiln_checkpoint_save_llama2c(copy, model.table, model.weights, &err), &err);
    struct bytes want = read_bytes(path), got = read_bytes(copy);
    CHECK_EQ(got.size, want.size);
    size_t begin, end;
    freq_range(&model, want.size, &begin, &end);
    if (tolerance > 0) {
        CHECK_ALL_CLOSE((float *)(got.data + begin), (float *)(want.data + begin),
                        (end - begin) / sizeof(float), tolerance);
        memcpy(got.data + begin, want.data + begin, end - begin);
    }
    CHECK_BYTES(got.data, want.data, want.size);
    kiln_free(want.data);
    kiln_free(got.data);
    drop(&model);
}

TEST(a_published_model_survives_the_round_trip) {
    /* Its trainer computed the angles in single precision: 512 * 2^-24. */
    check_round_trip(test_data("stories260K.bin"), 4e-5);
}
TEST(a_converted_model_survives_the_round_trip) { check_round_trip(test_data("story656K.bin"), 0); }
TEST(tied_reference_models_survive_the_round_trip) {
    check_round_trip(test_reference("tiny-mha/model.bin"), 0);
    check_round_trip(test_reference("small-gqa/model.bin"), 0);
}
TEST(an_untied_reference_model_survives_the_round_trip) {
    check_round_trip(test_reference("tiny-gqa-untied/model.bin"), 0);
}
TEST(models_of_our_own_survive_the_round_trip) {
    check_round_trip(save_small(true, 3), 0);
    check_round_trip(save_small(true, 1), 0);
    check_round_trip(save_small(false, 3), 0);
    check_round_trip(save_small(false, 1), 0);
}

TEST(dims_are_those_of_the_header) {
    struct model model = load(test_data("stories260K.bin"));
    const struct kiln_dims *dims = kiln_checkpoint_dims(model.file);
    const size_t got[] = {dims->dim,      dims->hidden, dims->layers, dims->heads,
                          dims->kv_heads, dims->vocab,  dims->seq,    dims->head_size};
    const size_t want[] = {64, 172, 5, 8, 4, 512, 512, 8};
    CHECK_BYTES(got, want, sizeof want);
    CHECK(dims->tied);
    CHECK_STRING(kiln_checkpoint_format(model.file), "llama2.c");
    drop(&model);
}

TEST(a_tensor_is_where_the_format_says) {
    const char *path = save_small(false, 1); /* embedding, rms_att of both layers, wq of layer 0 */
    struct model model = load(path);
    struct bytes file = read_bytes(path);
    size_t wq = 28 + (132 + 24) * sizeof(float), head = file.size - 132 * sizeof(float);
    const struct kiln_tensor *tensor = kiln_table_find(model.table, KILN_WQ, 0);
    CHECK_BYTES(model.weights + tensor->offset, file.data + wq, 144 * sizeof(float));
    tensor = kiln_table_find(model.table, KILN_HEAD, KILN_NO_LAYER);
    CHECK_BYTES(model.weights + tensor->offset, file.data + head, 132 * sizeof(float));
    kiln_free(file.data);
    drop(&model);
}

TEST(gaps_between_tensors_are_zero_after_loading) {
    struct model model = load(save_small(true, 1));
    size_t end = 0;
    for (size_t i = 0; i < model.table->n_tensors; i++) {
        const struct kiln_tensor *tensor = &model.table->tensors[i];
        for (; end < tensor->offset; end++) {
            CHECK(model.weights[end] == 0.0f);
        }
        end += tensor->rows * tensor->cols;
    }
    drop(&model);
}

/* ---- gradients of the reference -------------------------------------------------------------- */

static void check_unpack(const char *reference, const char *gradients) {
    struct model model = load(reference);
    struct bytes file = read_bytes(gradients);
    struct kiln_err err;
    const float *data = (const float *)(const void *)file.data;
    size_t count = file.size / sizeof *data;
    CHECK_OK(kiln_llama2c_unpack(model.table, data, count, model.weights, &err), &err);
    CHECK(model.weights[0] == data[0]);
    enum kiln_role last = model.table->dims.tied ? KILN_FINAL_NORM : KILN_HEAD;
    const struct kiln_tensor *tensor = kiln_table_find(model.table, last, KILN_NO_LAYER);
    size_t n = tensor->rows * tensor->cols;
    CHECK_BYTES(model.weights + tensor->offset, data + count - n, n * sizeof *data);
    CHECK_FAILS(kiln_llama2c_unpack(model.table, data, count - 1, model.weights, &err), KILN_EINPUT,
                &err);
    kiln_free(file.data);
    drop(&model);
}

TEST(gradients_of_the_reference_are_unpacked) {
    check_unpack(test_reference("tiny-mha/model.bin"), test_reference("tiny-mha/grads.f32"));
    check_unpack(test_reference("tiny-gqa-untied/model.bin"),
                 test_reference("tiny-gqa-untied/grads.f32"));
}

/* ---- damaged files ----------------------------------------------------------------------------
 */

static void check_refused(const char *path, const char *why) {
    struct kiln_checkpoint *checkpoint;
    struct kiln_err err;
    CHECK_FAILS(kiln_checkpoint_open(path, &checkpoint, &err), KILN_EINPUT, &err);
    CHECK(checkpoint == NULL);
    CHECK_CONTAINS(err.message, path);
    CHECK_CONTAINS(err.message, why);
}

TEST(a_model_cut_short_anywhere_is_refused_with_both_sizes) {
    struct bytes file = read_bytes(save_small(false, 1));
    char sizes[64];
    for (size_t size = 0; size < file.size; size += size < 100 ? 1 : 97) {
        const char *cut = test_file("cut.bin", file.data, size);
        if (size < 28) {
            check_refused(cut, "cut short");
            continue;
        }
        snprintf(sizes, sizeof sizes, "%zu bytes; the file has %zu", file.size, size);
        check_refused(cut, sizes);
    }
    check_refused(test_file("cut.bin", file.data, file.size - 1), "the file has");
    kiln_free(file.data);
}

TEST(a_model_with_bytes_behind_its_end_is_refused) {
    struct bytes file = read_bytes(save_small(true, 3));
    check_refused(test_file("long.bin", file.data, file.size + 1), "the file has"); /* its zero */
    kiln_free(file.data);
}

TEST(every_corruption_of_the_header_is_refused) {
    static const int32_t bad[] = {0,       1,       -1,         3,          13,         1 << 20,
                                  1 << 30, 1 << 31, 0x7FFFFFFF, -(1 << 30), 0x01010101, -0x7F00};
    struct bytes file = read_bytes(save_small(true, 1));
    for (size_t field = 0; field < 7; field++) {
        int32_t was;
        memcpy(&was, file.data + 4 * field, 4);
        for (size_t b = 0; b < sizeof bad / sizeof bad[0]; b++) {
            memcpy(file.data + 4 * field, &bad[b], 4);
            if (bad[b] != was) {
                check_refused(test_file("bad.bin", file.data, file.size), "header");
            }
        }
        memcpy(file.data + 4 * field, &was, 4);
    }
    kiln_free(file.data);
}

TEST(random_headers_never_crash) {
    struct bytes file = read_bytes(save_small(false, 3));
    for (uint64_t i = 0; i < 3000; i++) {
        for (uint64_t field = 0; field < 7; field++) {
            uint64_t bits = kiln_random_bits(1, KILN_STREAM_TEST, 7 * i + field);
            int32_t value = (int32_t)(uint32_t)bits >> (bits >> 32) % 32;
            memcpy(file.data + 4 * field, &value, 4);
        }
        struct kiln_checkpoint *checkpoint;
        struct kiln_err err;
        const char *path = test_file("random.bin", file.data, file.size);
        CHECK_FAILS(kiln_checkpoint_open(path, &checkpoint, &err), KILN_EINPUT, &err);
    }
    kiln_free(file.data);
}

TEST(a_weight_that_is_not_finite_is_named) {
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        struct bytes file = read_bytes(save_small(true, 3));
        size_t third_of_wq1 = 28 + (132 + 24 + 144 + 2) * sizeof(float);
        memcpy(file.data + third_of_wq1, &bad[i], sizeof bad[i]);
        struct kiln_checkpoint *checkpoint;
        struct kiln_table *table;
        struct kiln_err err;
        const char *path = test_file("nan.bin", file.data, file.size);
        CHECK_OK(kiln_checkpoint_open(path, &checkpoint, &err), &err);
        CHECK_OK(kiln_table_create(kiln_checkpoint_dims(checkpoint), &table, &err), &err);
        float *weights = kiln_alloc(table->size, sizeof *weights);
        CHECK_FAILS(kiln_checkpoint_load(checkpoint, table, weights, &err), KILN_EINPUT, &err);
        CHECK_CONTAINS(err.message, "wq.1 element 2 is");
        kiln_free(weights);
        kiln_table_destroy(table);
        kiln_checkpoint_close(checkpoint);
        kiln_free(file.data);
    }
}

TEST(files_of_other_formats_are_recognized) {
    char bytes[64] = "GGUF\003";
    check_refused(test_file("a.gguf", bytes, sizeof bytes), "general.architecture");
    check_refused(test_file("v1.bin", "24ka\001\000\000\000", 8), "cut short");
    check_refused(test_file("v9.bin", "24ka\011\000\000\000 and then so many bytes more", 36),
                  "header");
    check_refused(test_file("a.pt", "PK\003\004", 4), "PyTorch");
    check_refused(test_file("a.safetensors", "\002\0\0\0\0\0\0\0{\"a\":1}", 15), "safetensors");
    check_refused(test_file("text.bin", "Once upon a time there was a small kiln.", 40), "header");
    check_refused(test_path("none.bin"), "No such file");
    check_refused(test_folder(), "folder");
}

/* ---- what a caller may get wrong ---------------------------------------------------------------
 */

TEST(weights_are_not_loaded_into_another_model) {
    struct model model = load(save_small(true, 1));
    struct kiln_dims dims = model.table->dims;
    dims.layers = 3;
    struct kiln_table *other;
    CHECK_OK(kiln_table_create(&dims, &other, NULL), NULL);
    struct kiln_err err;
    CHECK_FAILS(kiln_checkpoint_load(model.file, other, NULL, &err), KILN_EUSAGE, &err);
    CHECK_CONTAINS(err.message, "layers 2");
    kiln_table_destroy(other);
    drop(&model);
}

TEST(a_longer_sequence_is_no_other_model) {
    struct model model = load(save_small(true, 1));
    struct kiln_dims dims = model.table->dims;
    dims.seq = 1024;
    struct kiln_table *other;
    CHECK_OK(kiln_table_create(&dims, &other, NULL), NULL);
    CHECK_OK(kiln_checkpoint_load(model.file, other, model.weights, NULL), NULL);
    kiln_table_destroy(other);
    drop(&model);
}

TEST(what_the_format_cannot_hold_is_refused_and_nothing_written) {
    struct model model = load(save_small(true, 1));
    struct kiln_err err;
    const char *path = test_path("new.bin");
    model.table->dims.rms_eps = 1e-6f;
    CHECK_FAILS(kiln_checkpoint_save_llama2c(path, model.table, model.weights, &err),
                KILN_EUNSUPPORTED, &err);
    CHECK_CONTAINS(err.message, "rms_eps");
    model.table->dims.rms_eps = 1e-5f;
    model.table->dims.rope_theta = 500000.0f;
    CHECK_FAILS(kiln_llama2c_check(&model.table->dims, &err), KILN_EUNSUPPORTED, &err);
    CHECK(!kiln_path_exists(path));
    drop(&model);
}
