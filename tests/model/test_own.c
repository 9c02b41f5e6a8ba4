/* SPDX-License-Identifier: MIT
 *
 * kiln's own model file, which holds what llama2.c's format has no place for.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln/model.h"
#include "kiln_test.h"
#include "model/stored_dims.h"
#include "train/family_model.h"

enum { HEADER = 192 };

/* The weights of a file; the caller frees. */
static float *load(const char *path, struct kiln_table **table) {
    struct kiln_err err;
    struct kiln_checkpoint *file;
    CHECK_OK(kiln_checkpoint_open(path, &file, &err), &err);
    CHECK_STRING(kiln_checkpoint_format(file), "kiln");
    CHECK_OK(kiln_table_create(kiln_checkpoint_dims(file), table, &err), &err);
    float *weights = kiln_alloc((*table)->size, sizeof *weights);
    CHECK_OK(kiln_checkpoint_load(file, *table, weights, &err), &err);
    kiln_checkpoint_close(file);
    return weights;
}

TEST(every_family_comes_back_bit_for_bit) {
    for (enum family f = FAMILY_BIAS; f < FAMILIES; f++) {
        struct kiln_table *table, *made;
        struct kiln_err err;
        const struct kiln_dims dims = family_dims(f);
        float *weights = load(family_file(f), &table);
        const struct kiln_stored_dims a = kiln_dims_store(&dims), b = kiln_dims_store(&table->dims);
        CHECK_BYTES(&b, &a, sizeof a);
        CHECK_OK(kiln_table_create(&dims, &made, &err), &err);
        float *want = kiln_alloc(made->size, sizeof *want);
        family_weights(made, want);
        CHECK_BYTES(weights, want, made->size * sizeof *want);
        kiln_free(weights);
        kiln_free(want);
        kiln_table_destroy(table);
        kiln_table_destroy(made);
    }
}

TEST(what_llama2c_holds_is_written_for_llama2c) {
    struct kiln_dims dims = kiln_preset_find("stories15m")->dims;
    struct kiln_table *table;
    struct kiln_checkpoint *file;
    struct kiln_err err;
    dims.vocab = 300;
    CHECK_OK(kiln_table_create(&dims, &table, &err), &err);
    float *weights = kiln_alloc(table->size, sizeof *weights);
    kiln_weights_init(table, 1, weights);
    CHECK_OK(kiln_checkpoint_save_run(test_path("model.bin"), table, weights, &err), &err);
    CHECK_OK(kiln_checkpoint_open(test_path("model.bin"), &file, &err), &err);
    CHECK_STRING(kiln_checkpoint_format(file), "llama2.c");
    kiln_checkpoint_close(file);
    kiln_free(weights);
    kiln_table_destroy(table);
}

TEST(llama2c_refuses_by_name_what_it_has_no_place_for) {
    const struct kiln_dims plain = kiln_preset_find("stories15m")->dims;
    struct kiln_err err;
    struct kiln_dims dims = plain;
    CHECK_OK(kiln_llama2c_check(&dims, &err), &err);
    dims.qkv_bias = true;
    CHECK_FAILS(kiln_llama2c_check(&dims, &err), KILN_EUNSUPPORTED, &err);
    CHECK_CONTAINS(err.message, "biases of queries, keys and values");
    dims = plain;
    dims.qk_norm = true;
    CHECK_FAILS(kiln_llama2c_check(&dims, &err), KILN_EUNSUPPORTED, &err);
    CHECK_CONTAINS(err.message, "query and key norms");
    dims = plain;
    dims.head_size = 64;
    CHECK_FAILS(kiln_llama2c_check(&dims, &err), KILN_EUNSUPPORTED, &err);
    CHECK_CONTAINS(err.message, "head size");
    dims = plain;
    dims.rope = (struct kiln_rope){.kind = KILN_ROPE_LINEAR, .factor = 2};
    CHECK_FAILS(kiln_llama2c_check(&dims, &err), KILN_EUNSUPPORTED, &err);
    CHECK_CONTAINS(err.message, "scaled RoPE");
}

/* ---- bad files ------------------------------------------------------------------------------- */

/* A good file with `n` bytes at `at` replaced, cut to `size`, is refused with `why`. */
static void refuse(size_t at, const void *bytes, size_t n, size_t size, const char *why) {
    char *data;
    size_t all;
    struct kiln_err err;
    struct kiln_checkpoint *file;
    CHECK_OK(kiln_read_file(family_file(FAMILY_BOTH), &data, &all, &err), &err);
    CHECK(at + n <= all);
    memcpy(data + at, bytes, n);
    const char *path = test_file("bad.bin", data, size ? size : all);
    CHECK_FAILS(kiln_checkpoint_open(path, &file, &err), KILN_EINPUT, &err);
    CHECK(file == NULL);
    CHECK_CONTAINS(err.message, why);
    CHECK_CONTAINS(err.message, path);
    kiln_free(data);
}

TEST(a_file_that_contradicts_itself_is_refused) {
    const uint32_t order = 0x04030201u, version = 2;
    const uint64_t odd = 11, kind = 9, more = 1, huge = (uint64_t)1 << 63;
    const double none = 0.5, nan = (double)NAN;
    refuse(8, &order, sizeof order, 0, "another byte order");
    refuse(12, &version, sizeof version, 0, "version 2");
    refuse(16 + offsetof(struct kiln_stored_dims, head_size), &odd, 8, 0, "head_size 11");
    refuse(16 + offsetof(struct kiln_stored_dims, rope_kind), &kind, 8, 0, "linear, llama3");
    refuse(16 + offsetof(struct kiln_stored_dims, rope_factor), &none, 8, 0, "factor 0.5");
    refuse(16 + offsetof(struct kiln_stored_dims, rope_theta), &nan, 8, 0, "rope_theta");
    refuse(16 + offsetof(struct kiln_stored_dims, layers), &huge, 8, 0, "layers");
    refuse(184, &more, 8, 0, "1 parameters in the header");
    refuse(184, &huge, 8, 0, "parameters in the header");
    refuse(0, "", 0, HEADER - 1, "cut short");
    refuse(0, "", 0, HEADER, "this one has 192");
    refuse(0, "", 0, HEADER + 4000, "this one has 4192");
}

TEST(a_weight_that_is_no_number_is_named) {
    char *data;
    size_t all;
    struct kiln_err err;
    struct kiln_checkpoint *file;
    struct kiln_table *table;
    const struct kiln_dims dims = family_dims(FAMILY_BOTH);
    const float bad = NAN;
    CHECK_OK(kiln_table_create(&dims, &table, &err), &err);
    CHECK_OK(kiln_read_file(family_file(FAMILY_BOTH), &data, &all, &err), &err);
    size_t at = HEADER;
    for (size_t i = 0; table->tensors[i].role != KILN_BQ; i++) {
        at += table->tensors[i].rows * table->tensors[i].cols * sizeof bad;
    }
    memcpy(data + at + 3 * sizeof bad, &bad, sizeof bad);
    CHECK_OK(kiln_checkpoint_open(test_file("bad.bin", data, all), &file, &err), &err);
    float *weights = kiln_alloc(table->size, sizeof *weights);
    CHECK_FAILS(kiln_checkpoint_load(file, table, weights, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, "bq.0 element 3");
    kiln_checkpoint_close(file);
    kiln_free(data);
    kiln_free(weights);
    kiln_table_destroy(table);
}
