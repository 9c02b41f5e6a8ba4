/* SPDX-License-Identifier: MIT
 *
 * The tensor table: every parameter once, what is fused adjacent, what is not fused aligned.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/pool.h"
#include "kiln/model.h"
#include "kiln_test.h"
#include "model/table.h"

/* Shapes that have gone wrong somewhere: MHA, GQA, one kv head, odd sizes, tied and untied. */
static const struct kiln_dims shapes[] = {
    {.dim = 64, .hidden = 160, .layers = 2, .heads = 4, .kv_heads = 4, .vocab = 96, .seq = 32},
    {.dim = 64, .hidden = 172, .layers = 5, .heads = 8, .kv_heads = 4, .vocab = 512, .seq = 512},
    {.dim = 96, .hidden = 256, .layers = 3, .heads = 6, .kv_heads = 1, .vocab = 120, .seq = 48},
    {.dim = 6, .hidden = 7, .layers = 1, .heads = 3, .kv_heads = 3, .vocab = 5, .seq = 1},
    {.dim = 6, .hidden = 1, .layers = 4, .heads = 3, .kv_heads = 1, .vocab = 1, .seq = 9},
    {.dim = 2, .hidden = 3, .layers = 2, .heads = 1, .kv_heads = 1, .vocab = 2, .seq = 2},
    {.dim = 28,
     .hidden = 20,
     .layers = 2,
     .heads = 2,
     .kv_heads = 1,
     .vocab = 9,
     .seq = 4,
     .qkv_bias = true},
    {.dim = 24,
     .hidden = 20,
     .layers = 3,
     .heads = 4,
     .kv_heads = 2,
     .head_size = 10,
     .vocab = 9,
     .seq = 4,
     .qk_norm = true},
    {.dim = 32,
     .hidden = 20,
     .layers = 2,
     .heads = 6,
     .kv_heads = 3,
     .head_size = 4,
     .vocab = 9,
     .seq = 4,
     .qkv_bias = true,
     .qk_norm = true},
};
#define N_SHAPES (2 * sizeof shapes / sizeof shapes[0])

static struct kiln_table *make_table(size_t shape) {
    struct kiln_dims dims = shapes[shape / 2];
    dims.tied = shape % 2;
    dims.rms_eps = 1e-5f;
    dims.rope_theta = 10000.0f;
    struct kiln_table *table;
    struct kiln_err err;
    CHECK_OK(kiln_table_create(&dims, &table, &err), &err);
    return table;
}

static size_t end_of(const struct kiln_tensor *tensor) {
    return tensor->offset + tensor->rows * tensor->cols;
}

static size_t parameters_of(const struct kiln_dims *d) {
    size_t kv = d->kv_heads * d->head_size, q = d->heads * d->head_size;
    size_t layer = 2 * d->dim + 2 * q * d->dim + 2 * kv * d->dim + 3 * d->hidden * d->dim;
    layer += (d->qkv_bias ? q + 2 * kv : 0) + (d->qk_norm ? 2 * d->head_size : 0);
    return d->vocab * d->dim * (d->tied ? 1 : 2) + d->layers * layer + d->dim;
}

TEST(tensors_follow_each_other_without_overlap) {
    for (size_t shape = 0; shape < N_SHAPES; shape++) {
        struct kiln_table *table = make_table(shape);
        size_t sum = 0, end = 0;
        for (size_t i = 0; i < table->n_tensors; i++) {
            const struct kiln_tensor *tensor = &table->tensors[i];
            CHECK(tensor->offset >= end && tensor->offset < end + 64);
            CHECK_EQ(tensor->rank, tensor->rows == 1 && tensor->matrix == KILN_NO_MATRIX &&
                                           tensor->role != KILN_EMBED
                                       ? 1
                                       : 2);
            end = end_of(tensor);
            sum += tensor->rows * tensor->cols;
        }
        CHECK_EQ(sum, table->parameters);
        CHECK_EQ(sum, parameters_of(&table->dims));
        CHECK(table->size >= end && table->size < end + 64);
        CHECK_EQ(table->size % 64, 0);
        size_t layer = 9 + (table->dims.qkv_bias ? 3 : 0) + (table->dims.qk_norm ? 2 : 0);
        CHECK_EQ(table->n_tensors, layer * table->dims.layers + (table->dims.tied ? 2 : 3));
        kiln_table_destroy(table);
    }
}

static void check_matrix(const struct kiln_table *table, size_t index) {
    const struct kiln_matrix *matrix = &table->matrices[index];
    const struct kiln_tensor *tensor = &table->tensors[matrix->first_tensor];
    CHECK_EQ(matrix->offset % 64, 0);
    CHECK_EQ(matrix->offset, tensor->offset);
    size_t rows = 0;
    for (size_t i = 0; i < matrix->n_tensors; i++, tensor++) {
        CHECK_EQ(tensor->matrix, index);
        CHECK_EQ(tensor->cols, matrix->cols);
        CHECK_EQ(tensor->offset, matrix->offset + rows * matrix->cols);
        rows += tensor->rows;
    }
    CHECK_EQ(rows, matrix->rows);
}

TEST(a_matrix_is_a_view_of_adjacent_tensors) {
    for (size_t shape = 0; shape < N_SHAPES; shape++) {
        struct kiln_table *table = make_table(shape);
        const struct kiln_dims *d = &table->dims;
        CHECK_EQ(table->n_matrices, 4 * d->layers + 1);
        for (size_t i = 0; i < table->n_matrices; i++) {
            check_matrix(table, i);
        }
        for (size_t layer = 0; layer < d->layers; layer++) {
            for (int kind = KILN_MATRIX_QKV; kind < KILN_MATRIX_HEAD; kind++) {
                const struct kiln_matrix *matrix =
                    kiln_table_matrix(table, (enum kiln_matrix_kind)kind, layer);
                CHECK(matrix == &table->matrices[4 * layer + (size_t)kind]);
                CHECK_EQ(matrix->kind, kind);
                CHECK_EQ(matrix->layer, layer);
            }
            const struct kiln_matrix *qkv = kiln_table_matrix(table, KILN_MATRIX_QKV, layer);
            CHECK_EQ(qkv->rows, (d->heads + 2 * d->kv_heads) * d->head_size);
            CHECK_EQ(kiln_table_matrix(table, KILN_MATRIX_W13, layer)->rows, 2 * d->hidden);
            CHECK_EQ(kiln_table_matrix(table, KILN_MATRIX_W2, layer)->cols, d->hidden);
        }
        CHECK(kiln_table_matrix(table, KILN_MATRIX_QKV, d->layers) == NULL);
        kiln_table_destroy(table);
    }
}

TEST(the_head_is_the_embedding_when_tied) {
    for (size_t shape = 0; shape < N_SHAPES; shape++) {
        struct kiln_table *table = make_table(shape);
        const struct kiln_matrix *head = kiln_table_matrix(table, KILN_MATRIX_HEAD, 0);
        enum kiln_role role = table->dims.tied ? KILN_EMBED : KILN_HEAD;
        const struct kiln_tensor *tensor = kiln_table_find(table, role, KILN_NO_LAYER);
        CHECK(head == &table->matrices[table->n_matrices - 1]);
        CHECK(tensor == &table->tensors[head->first_tensor]);
        CHECK_EQ(head->rows, table->dims.vocab);
        if (table->dims.tied) {
            CHECK(kiln_table_find(table, KILN_HEAD, KILN_NO_LAYER) == NULL);
        } else {
            CHECK_EQ(table->tensors[0].matrix, KILN_NO_MATRIX);
        }
        kiln_table_destroy(table);
    }
}

TEST(every_norm_starts_a_line_and_every_tensor_is_found) {
    for (size_t shape = 0; shape < N_SHAPES; shape++) {
        struct kiln_table *table = make_table(shape);
        for (size_t i = 0; i < table->n_tensors; i++) {
            const struct kiln_tensor *tensor = &table->tensors[i];
            CHECK(kiln_table_find(table, tensor->role, tensor->layer) == tensor);
            const bool follows = tensor->role == KILN_BK || tensor->role == KILN_BV ||
                                 tensor->role == KILN_K_NORM; /* right behind the one before */
            CHECK(tensor->rank == 2 || tensor->offset % 64 == 0 || follows);
            CHECK(!follows || (tensor->offset == end_of(tensor - 1) &&
                               tensor->snapshot == tensor[-1].snapshot + tensor[-1].cols));
        }
        CHECK(kiln_table_find(table, KILN_WQ, table->dims.layers) == NULL);
        CHECK(kiln_table_find(table, KILN_WQ, KILN_NO_LAYER) == NULL);
        CHECK(kiln_table_find(table, KILN_EMBED, 0) == NULL);
        kiln_table_destroy(table);
    }
}

TEST(tensors_are_named_as_in_the_reference) {
    char *json;
    size_t size;
    CHECK_OK(kiln_read_file(test_reference("tiny-mha/reference.json"), &json, &size, NULL), NULL);
    struct kiln_table *table = make_table(1);
    for (size_t i = 0; i < table->n_tensors; i++) {
        char quoted[40];
        snprintf(quoted, sizeof quoted, "\"%s\"", table->tensors[i].name);
        CHECK_CONTAINS(json, quoted);
    }
    kiln_table_destroy(table);
    kiln_free(json);
}

TEST(a_table_of_senseless_dims_is_refused) {
    struct kiln_dims dims = shapes[0];
    dims.heads = 5;
    struct kiln_table *table;
    struct kiln_err err;
    CHECK_FAILS(kiln_table_create(&dims, &table, &err), KILN_EUSAGE, &err);
    CHECK(table == NULL);
}

/* ---- starting weights ----------------------------------------------------------------------- */

static double deviation_of(const struct kiln_tensor *tensor, const float *weights) {
    size_t n = tensor->rows * tensor->cols;
    double squares = 0;
    for (size_t i = 0; i < n; i++) {
        double x = (double)weights[tensor->offset + i];
        squares += x * x;
    }
    return sqrt(squares / (double)n);
}

static void check_start(size_t shape) {
    struct kiln_table *table = make_table(shape);
    float *weights = kiln_alloc(table->size, sizeof *weights);
    for (size_t i = 0; i < table->size; i++) {
        weights[i] = NAN;
    }
    kiln_weights_init(table, 1, weights);
    size_t end = 0;
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *tensor = &table->tensors[i];
        bool residual =
            tensor->role == KILN_WO || tensor->role == KILN_W2 || tensor->role == KILN_W3;
        bool bias = tensor->role == KILN_BQ || tensor->role == KILN_BK || tensor->role == KILN_BV;
        double depth = sqrt(2.0 * (double)table->dims.layers);
        double want = tensor->rank == 1 ? 1.0 : residual ? 0.02 / depth : 0.02;
        CHECK_CLOSE(deviation_of(tensor, weights) / want, bias ? 0.0 : 1.0, bias ? 0.0 : 0.13);
        for (; end < tensor->offset; end++) {
            CHECK(weights[end] == 0.0f);
        }
        end = end_of(tensor);
    }
    for (; end < table->size; end++) {
        CHECK(weights[end] == 0.0f);
    }
    kiln_free(weights);
    kiln_table_destroy(table);
}

TEST(starting_weights_have_their_deviation_and_gaps_are_zero) {
    check_start(3);
    check_start(N_SHAPES - 1); /* with biases and norms of heads */
}

/* Tensors of more elements than one task fills. */
TEST(starting_weights_do_not_depend_on_threads) {
    struct kiln_dims dims = kiln_preset_find("stories15m")->dims;
    struct kiln_table *table;
    struct kiln_err err;
    dims.layers = 1;
    dims.vocab = 2101;
    CHECK_OK(kiln_table_create(&dims, &table, &err), &err);
    const size_t bytes = table->size * sizeof(float);
    float *want = kiln_alloc(bytes, 1), *weights = kiln_alloc(bytes, 1);
    kiln_weights_init(table, 7, want);
    for (size_t threads = 1; threads <= 3; threads++) {
        struct kiln_pool *pool;
        memset(weights, 0xff, bytes);
        CHECK_OK(kiln_pool_create(threads, &pool, &err), &err);
        kiln_weights_init_on(pool, table, 7, weights);
        kiln_pool_destroy(pool);
        CHECK_BYTES(weights, want, bytes);
    }
    kiln_free(want);
    kiln_free(weights);
    kiln_table_destroy(table);
}

TEST(starting_weights_depend_on_the_seed_alone) {
    struct kiln_table *table = make_table(1);
    float *a = kiln_alloc(table->size, sizeof *a), *b = kiln_alloc(table->size, sizeof *b);
    kiln_weights_init(table, 1, a);
    kiln_weights_init(table, 1, b);
    CHECK_BYTES(a, b, table->size * sizeof *a);
    kiln_weights_init(table, 2, b);
    CHECK(a[0] != b[0]);
    const struct kiln_tensor *wq = kiln_table_find(table, KILN_WQ, 0);
    CHECK(a[wq->offset] != a[0]);
    kiln_free(a);
    kiln_free(b);
    kiln_table_destroy(table);
}

/* ---- some of its layers -----------------------------------------------------------------------
 */

static void check_stage(const struct kiln_table *whole, size_t first, size_t end) {
    struct kiln_table *stage;
    struct kiln_err err;
    CHECK_OK(kiln_table_stage(whole, first, end, &stage, &err), &err);
    CHECK_EQ(stage->dims.layers, end - first);
    CHECK_EQ(stage->size, whole->size);
    CHECK_EQ(kiln_trained_size(stage), kiln_trained_size(whole));
    for (size_t i = 0, seen = 0; i < whole->n_base; i++) {
        const struct kiln_tensor *t = &whole->tensors[i];
        const bool outside = t->layer == KILN_NO_LAYER;
        const size_t layer = outside ? KILN_NO_LAYER : t->layer - first;
        if (!outside && (t->layer < first || t->layer >= end)) {
            continue;
        }
        const struct kiln_tensor *s = kiln_table_find(stage, t->role, layer);
        CHECK(s == &stage->tensors[seen++]);
        CHECK(s->offset == t->offset && s->snapshot == t->snapshot && s->layer == layer);
        CHECK_STRING(s->name, t->name);
        CHECK_EQ(s->matrix, kiln_table_stage_matrix(whole, stage, first, t->matrix));
        if (t->matrix != KILN_NO_MATRIX) {
            const struct kiln_matrix *m = &whole->matrices[t->matrix];
            const struct kiln_matrix *of = &stage->matrices[s->matrix];
            CHECK(of == kiln_table_matrix(stage, m->kind, layer));
            CHECK(of->offset == m->offset && of->rows == m->rows && of->layer == layer);
            CHECK_EQ(stage->tensors[of->first_tensor].offset, m->offset);
        }
        for (int b = 0; t->adapter != KILN_NO_TENSOR && b < 2; b++) {
            const struct kiln_tensor *a = kiln_lora_find(whole, t, b);
            const struct kiln_tensor *found = kiln_lora_find(stage, s, b);
            CHECK((a == NULL) == (found == NULL) && (!a || found->offset == a->offset));
        }
    }
    for (size_t i = 0; i < whole->n_matrices; i++) {
        const size_t layer = whole->matrices[i].layer;
        const bool here = layer == KILN_NO_LAYER || (layer >= first && layer < end);
        CHECK((kiln_table_stage_matrix(whole, stage, first, i) != KILN_NO_MATRIX) == here);
    }
    kiln_table_destroy(stage);
}

TEST(a_stage_is_a_view_of_its_layers) {
    static const struct kiln_lora lora = {.rank = 2, .alpha = 4, .targets = KILN_LORA_ALL};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        for (int tied = 0; tied < 4; tied++) {
            struct kiln_dims dims = shapes[i];
            struct kiln_table *table;
            struct kiln_err err;
            dims.tied = tied % 2;
            dims.rms_eps = 1e-5f;
            dims.rope_theta = 10000;
            const enum kiln_status status = kiln_table_create_lora(
                &dims, tied < 2 ? &(struct kiln_lora){.rank = 0} : &lora, &table, &err);
            if (status != KILN_OK) {
                continue; /* senseless beside adapters */
            }
            for (size_t first = 0; first < dims.layers; first++) {
                for (size_t end = first + 1; end <= dims.layers; end++) {
                    check_stage(table, first, end);
                }
            }
            kiln_table_destroy(table);
        }
    }
}
