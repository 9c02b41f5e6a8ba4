/* SPDX-License-Identifier: MIT
 *
 * Folders, GGUF files and all versions of llama2.c: what a model of ours becomes in them and back,
 * and what contradicts itself is refused by name.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/random.h"
#include "kiln/model.h"
#include "kiln_test.h"

struct model {
    struct kiln_table *table;
    float *weights;
};

static struct kiln_dims small_dims(void) {
    return (struct kiln_dims){.dim = 32,
                              .hidden = 64,
                              .layers = 2,
                              .heads = 4,
                              .kv_heads = 2,
                              .vocab = 11,
                              .seq = 16,
                              .rms_eps = 1e-5F,
                              .rope_theta = 10000};
}

/* Random weights, no two alike. */
static struct model make(struct kiln_dims dims) {
    struct model model;
    struct kiln_err err;
    CHECK_OK(kiln_table_create(&dims, &model.table, &err), &err);
    model.weights = kiln_alloc(model.table->size, sizeof(float));
    for (size_t t = 0; t < model.table->n_tensors; t++) {
        const struct kiln_tensor *tensor = &model.table->tensors[t];
        for (size_t i = 0; i < tensor->rows * tensor->cols; i++) {
            const size_t at = tensor->offset + i;
            const uint64_t bits = kiln_random_bits(5, KILN_STREAM_TEST, at);
            model.weights[at] = (float)(bits >> 40) * 0x1p-23F - 1;
        }
    }
    return model;
}

static void drop(struct model *model) {
    kiln_table_destroy(model->table);
    kiln_free(model->weights);
}

static struct model load(const char *path, const char *format) {
    struct model model;
    struct kiln_checkpoint *file;
    struct kiln_err err;
    CHECK_OK(kiln_checkpoint_open(path, &file, &err), &err);
    CHECK_STRING(kiln_checkpoint_format(file), format);
    CHECK_OK(kiln_table_create(kiln_checkpoint_dims(file), &model.table, &err), &err);
    model.weights = kiln_alloc(model.table->size, sizeof(float));
    for (size_t i = 0; i < model.table->size; i++) {
        model.weights[i] = NAN; /* so that what is not written shows */
    }
    CHECK_OK(kiln_checkpoint_load(file, model.table, model.weights, &err), &err);
    kiln_checkpoint_close(file);
    return model;
}

static void save(const struct model *model, enum kiln_format format, const char *path,
                 enum kiln_dtype dtype) {
    const struct kiln_save_options how = {.dtype = dtype, .replace = true};
    struct kiln_err err;
    CHECK_OK(kiln_checkpoint_save(format, path, model->table, model->weights, &how, &err), &err);
}

/* ---- round trips ---------------------------------------------------------------------------- */

static const struct kiln_rope ropes[] = {
    {.kind = KILN_ROPE_PLAIN},
    {.kind = KILN_ROPE_LINEAR, .factor = 3},
    {.kind = KILN_ROPE_YARN, .factor = 4, .original_seq = 8},
    {.kind = KILN_ROPE_LLAMA3,
     .factor = 32,
     .low_freq_factor = 1.5F,
     .high_freq_factor = 3,
     .original_seq = 100},
};

static void check_dims(const struct kiln_dims *got, const struct kiln_dims *want) {
    CHECK_EQ(got->tied, want->tied);
    CHECK_EQ(got->head_size, want->head_size);
    CHECK_EQ(got->qkv_bias, want->qkv_bias);
    CHECK_EQ(got->qk_norm, want->qk_norm);
    CHECK_EQ(got->seq, want->seq);
    CHECK_CLOSE(got->rms_eps, want->rms_eps, 0);
    CHECK_CLOSE(got->rope_theta, want->rope_theta, 0);
    CHECK_EQ(got->rope.kind, want->rope.kind);
    CHECK_CLOSE(got->rope.factor, want->rope.factor, 0);
    CHECK_CLOSE(got->rope.low_freq_factor, want->rope.low_freq_factor, 0);
    CHECK_CLOSE(got->rope.high_freq_factor, want->rope.high_freq_factor, 0);
    CHECK_CLOSE(got->rope.attention_factor, want->rope.attention_factor, 1e-6);
    CHECK_EQ(got->rope.original_seq, want->rope.original_seq);
}

static void check_round_trip(const struct model *model, enum kiln_format format,
                             enum kiln_dtype dtype) {
    static const char *const formats[] = {"llama2.c", "Hugging Face", "GGUF"};
    const char *path = test_path(format == KILN_FORMAT_HF ? "folder" : "file");
    save(model, format, path, dtype);
    struct model back = load(path, formats[format]);
    check_dims(&back.table->dims, &model->table->dims);
    for (size_t t = 0; t < model->table->n_tensors; t++) {
        const struct kiln_tensor *tensor = &model->table->tensors[t];
        const size_t n = tensor->rows * tensor->cols;
        float *want = kiln_alloc(n, sizeof *want);
        CHECK_OK(kiln_checkpoint_round(format, dtype, tensor, model->weights + tensor->offset, want,
                                       NULL),
                 NULL);
        CHECK_BYTES(back.weights + tensor->offset, want, n * sizeof *want);
        /* numbers below 1: fp16 and bf16 have 11 and 8 bits, blocks 127 steps to the largest and a
         * scale of fp16 */
        static const double allowed[] = {0, 0x1p-12, 0x1p-9, 0.5 / 127 + 0x1p-11};
        CHECK_ALL_CLOSE(want, model->weights + tensor->offset, n, allowed[dtype]);
        kiln_free(want);
    }
    drop(&back);
}

TEST(every_family_survives_every_format_and_dtype) {
    for (int family = 0; family < 3; family++) {
        for (size_t r = 0; r < sizeof ropes / sizeof ropes[0]; r++) {
            struct kiln_dims dims = small_dims();
            dims.tied = r % 2 == 0;
            dims.qkv_bias = family == 1;
            dims.qk_norm = family == 2;
            dims.head_size = family == 2 ? 16 : 0;
            dims.rms_eps = 1e-6F;
            dims.rope_theta = 500;
            dims.rope = ropes[r];
            struct model model = make(dims);
            for (int dtype = 0; dtype < KILN_DTYPES; dtype++) {
                if (dtype != KILN_DTYPE_Q8_0) {
                    check_round_trip(&model, KILN_FORMAT_HF, (enum kiln_dtype)dtype);
                }
                if (family == 0 || dims.rope.kind != KILN_ROPE_LLAMA3) {
                    check_round_trip(&model, KILN_FORMAT_GGUF, (enum kiln_dtype)dtype);
                }
            }
            drop(&model);
        }
    }
}

TEST(a_bin_through_a_folder_and_a_gguf_file_is_the_same_bytes) {
    struct model model = make(small_dims());
    save(&model, KILN_FORMAT_LLAMA2C, test_path("a.bin"), KILN_DTYPE_F32);
    struct model one = load(test_path("a.bin"), "llama2.c");
    save(&one, KILN_FORMAT_HF, test_path("hf"), KILN_DTYPE_F32);
    struct model two = load(test_path("hf"), "Hugging Face");
    save(&two, KILN_FORMAT_GGUF, test_path("b.gguf"), KILN_DTYPE_F32);
    struct model three = load(test_path("b.gguf"), "GGUF");
    save(&three, KILN_FORMAT_LLAMA2C, test_path("c.bin"), KILN_DTYPE_F32);
    char *a, *c;
    size_t na, nc;
    CHECK_OK(kiln_read_file(test_path("a.bin"), &a, &na, NULL), NULL);
    CHECK_OK(kiln_read_file(test_path("c.bin"), &c, &nc, NULL), NULL);
    CHECK_EQ(na, nc);
    CHECK_BYTES(c, a, na);
    kiln_free(a);
    kiln_free(c);
    drop(&model);
    drop(&one);
    drop(&two);
    drop(&three);
}

/* ---- what cannot be written ----------------------------------------------------------------- */

static void check_unwritable(struct model *model, enum kiln_format format, enum kiln_dtype dtype,
                             const char *why) {
    const struct kiln_save_options how = {.dtype = dtype};
    const char *path = test_path("new");
    struct kiln_err err;
    CHECK_FAILS(kiln_checkpoint_save(format, path, model->table, model->weights, &how, &err),
                KILN_EUNSUPPORTED, &err);
    CHECK_CONTAINS(err.message, why);
    CHECK(!kiln_path_exists(path));
    drop(model);
}

TEST(what_a_format_cannot_hold_is_named_and_nothing_is_written) {
    struct kiln_dims both = small_dims(), stretched = small_dims();
    both.qkv_bias = both.qk_norm = true;
    stretched.qkv_bias = true;
    stretched.rope = ropes[3];
    struct model a = make(both), b = make(both), c = make(stretched), d = make(small_dims()),
                 e = make(small_dims()), f = make(small_dims());
    check_unwritable(&a, KILN_FORMAT_HF, KILN_DTYPE_F32, "both biases and head norms");
    check_unwritable(&b, KILN_FORMAT_GGUF, KILN_DTYPE_F32, "both biases and head norms");
    check_unwritable(&c, KILN_FORMAT_GGUF, KILN_DTYPE_F32, "llama3's scaling");
    check_unwritable(&d, KILN_FORMAT_HF, KILN_DTYPE_Q8_0, "not q8_0");
    check_unwritable(&e, KILN_FORMAT_LLAMA2C, KILN_DTYPE_BF16, "not bf16");
    f.weights[f.table->tensors[0].offset] = 70000;
    check_unwritable(&f, KILN_FORMAT_HF, KILN_DTYPE_F16, "65504");
}

static enum kiln_status refuse(void *context, const char *path, struct kiln_err *err) {
    CHECK(kiln_path_exists(path)); /* whole, under another name */
    CHECK(!kiln_path_exists(context) || strcmp(path, context) != 0);
    return KILN_FAIL(err, KILN_EDAMAGED, "refused");
}

static void check_proof(enum kiln_format format) {
    char path[1100];
    snprintf(path, sizeof path, "%s", test_path("proved"));
    struct model model = make(small_dims());
    struct kiln_save_options how = {.prove = refuse, .context = path, .replace = true};
    struct kiln_err err;
    CHECK_FAILS(kiln_checkpoint_save(format, path, model.table, model.weights, &how, &err),
                KILN_EDAMAGED, &err);
    CHECK(!kiln_path_exists(path));
    save(&model, format, path, KILN_DTYPE_F32);
    model.weights[0] = 3;
    CHECK_FAILS(kiln_checkpoint_save(format, path, model.table, model.weights, &how, &err),
                KILN_EDAMAGED, &err);
    how.replace = false;
    CHECK_FAILS(kiln_checkpoint_save(format, path, model.table, model.weights, &how, &err),
                KILN_EEXISTS, &err);
    struct model old = load(path, kiln_format_name(format));
    CHECK(old.weights[0] != 3);
    drop(&old);
    save(&model, format, path, KILN_DTYPE_F32);
    old = load(path, kiln_format_name(format));
    CHECK(old.weights[0] == 3);
    drop(&old);
    drop(&model);
    CHECK_OK(kiln_remove_tree(path, &err), &err);
    CHECK_EQ(rmdir(test_folder()), 0); /* nothing else lies there */
    CHECK_EQ(mkdir(test_folder(), 0700), 0);
}

TEST(what_fails_its_proof_leaves_what_was_there) {
    check_proof(KILN_FORMAT_HF);
    check_proof(KILN_FORMAT_GGUF);
    check_proof(KILN_FORMAT_LLAMA2C);
}

TEST(a_folder_that_is_no_model_is_not_replaced) {
    struct model model = make(small_dims());
    const struct kiln_save_options how = {.replace = true};
    struct kiln_err err;
    CHECK_FAILS(
        kiln_checkpoint_save(KILN_FORMAT_HF, test_folder(), model.table, model.weights, &how, &err),
        KILN_EEXISTS, &err);
    CHECK_CONTAINS(err.message, "config.json");
    drop(&model);
}

/* ---- versions 1 and 2 of llama2.c ----------------------------------------------------------- */

static const enum kiln_role order[] = {
    KILN_ATTN_NORM, KILN_FFN_NORM, KILN_FINAL_NORM, KILN_EMBED, KILN_WQ, KILN_WK,
    KILN_WV,        KILN_WO,       KILN_W1,         KILN_W2,    KILN_W3, KILN_HEAD,
};

/* One tensor; of version 2 as int8 and a scale for every `group`, as its export.py rounds. */
static void put(FILE *file, const struct kiln_tensor *tensor, float *values, size_t group) {
    const size_t n = tensor->rows * tensor->cols;
    if (tensor->rank == 1 || group == 0) {
        fwrite(values, sizeof *values, n, file);
        return;
    }
    float *scales = kiln_alloc(n / group, sizeof *scales);
    for (size_t i = 0; i < n; i++) {
        if (i % group == 0) {
            float most = 0;
            for (size_t j = i; j < i + group; j++) {
                most = fmaxf(most, fabsf(values[j]));
            }
            scales[i / group] = most / 127;
        }
        const int8_t q = (int8_t)lrintf(values[i] / scales[i / group]);
        fputc((unsigned char)q, file);
        values[i] = (float)q * scales[i / group]; /* what is to come back */
    }
    fwrite(scales, sizeof *scales, n / group, file);
    kiln_free(scales);
}

static const char *write_version(struct model *model, int32_t version, int32_t group) {
    const struct kiln_dims *d = &model->table->dims;
    const int32_t header[] = {
        0x616b3432,         version,           (int32_t)d->dim,      (int32_t)d->hidden,
        (int32_t)d->layers, (int32_t)d->heads, (int32_t)d->kv_heads, (int32_t)d->vocab,
        (int32_t)d->seq};
    const char *path = test_path("version.bin");
    FILE *file = fopen(path, "wb");
    char zeros[256] = {0};
    fwrite(header, 1, sizeof header, file);
    fputc(d->tied, file);
    fwrite(&group, sizeof group, version == 2, file);
    fwrite(zeros, 1, 256 - (size_t)ftell(file), file);
    for (size_t r = 0; r < sizeof order / sizeof order[0]; r++) {
        for (size_t l = 0; l <= d->layers; l++) { /* the last: of no layer */
            const size_t layer = l < d->layers ? l : KILN_NO_LAYER;
            const struct kiln_tensor *tensor = kiln_table_find(model->table, order[r], layer);
            if (tensor != NULL) {
                put(file, tensor, model->weights + tensor->offset, version == 2 ? group : 0);
            }
        }
    }
    CHECK_EQ(fclose(file), 0);
    return path;
}

TEST(versions_1_and_2_of_llama2c_are_read) {
    for (int tied = 0; tied < 2; tied++) {
        for (int32_t version = 1; version <= 2; version++) {
            struct kiln_dims dims = small_dims();
            dims.tied = tied;
            struct model model = make(dims);
            const char *path = write_version(&model, version, 32);
            struct model back =
                load(path, version == 1 ? "llama2.c version 1" : "llama2.c version 2");
            check_dims(&back.table->dims, &model.table->dims);
            CHECK_BYTES(back.weights, model.weights, model.table->size * sizeof(float));
            drop(&back);
            drop(&model);
        }
    }
}

static void check_refused(const char *path, const char *why) {
    struct kiln_checkpoint *checkpoint;
    struct kiln_err err;
    CHECK_FAILS(kiln_checkpoint_open(path, &checkpoint, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, why);
}

TEST(damaged_versions_of_llama2c_are_refused) {
    static const struct {
        size_t at;
        unsigned char byte;
        const char *why;
    } damage[] = {
        {8, 33, "dim 33 is odd"}, {8, 64, "the file has"},   {36, 2, "neither 0 nor 1"},
        {37, 0, "groups of 0"},   {40, 0x80, "groups of -"}, {37, 31, "groups of 31 do not"},
        {37, 16, "the file has"}, {16, 0, "layers 0"},
    };
    struct model model = make(small_dims());
    char *bytes;
    size_t size;
    CHECK_OK(kiln_read_file(write_version(&model, 2, 32), &bytes, &size, NULL), NULL);
    for (size_t i = 0; i < sizeof damage / sizeof damage[0]; i++) {
        const char was = bytes[damage[i].at];
        bytes[damage[i].at] = (char)damage[i].byte;
        check_refused(test_file("bad.bin", bytes, size), damage[i].why);
        bytes[damage[i].at] = was;
    }
    check_refused(test_file("bad.bin", bytes, size - 1), "the file has");
    check_refused(test_file("bad.bin", bytes, 200), "cut short");
    kiln_free(bytes);
    drop(&model);
}
