/* SPDX-License-Identifier: MIT
 *
 * table.c: the tensor table of a Llama. A new model family is a new builder here.
 *
 *   embed | layer 0: attn_norm [wq wk wv] (bq bk bv) (q_norm k_norm) wo ffn_norm [w1 w3] w2
 *         | layer 1 ... | final_norm | head | adapters (lora.c)
 *
 * Norms, and matrices as the products see them (the brackets are one matrix each), start at a
 * multiple of 64 elements; inside a matrix nothing lies between its tensors, nor inside what is in
 * parentheses, which some families have (dims.qkv_bias, dims.qk_norm): it is read as one row.
 */
#include "model/table.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define MATRICES_A_LAYER  4
#define TENSORS_FOR_LAYER 1 /* layer tensors start after the embedding */

/* Indexed by role. */
static const char *const names[KILN_ROLES] = {
    "tok_embeddings", "rms_att", "wq", "wk", "wv", "wo",    "rms_ffn", "w1", "w3", "w2",
    "rms_final",      "wcls",    "bq", "bk", "bv", "rms_q", "rms_k",
};

static size_t tensors_a_layer(const struct kiln_dims *dims) {
    return 9 + (dims->qkv_bias ? 3 : 0) + (dims->qk_norm ? 2 : 0);
}

/* Tensors are appended in order; `offset` is the end of what has been placed. */
struct builder {
    struct kiln_table *table;
    size_t offset;
};

static struct kiln_tensor *add_tensor(struct builder *builder, enum kiln_role role, size_t layer,
                                      size_t rows, size_t cols, int rank) {
    struct kiln_table *table = builder->table;
    struct kiln_tensor *tensor = &table->tensors[table->n_tensors++];
    *tensor = (struct kiln_tensor){.role = role,
                                   .layer = layer,
                                   .rows = rows,
                                   .cols = cols,
                                   .rank = rank,
                                   .offset = builder->offset,
                                   .matrix = KILN_NO_MATRIX,
                                   .target = KILN_NO_TENSOR,
                                   .adapter = KILN_NO_TENSOR};
    size_t *among = layer != KILN_NO_LAYER && rank == 2 ? &table->narrow : &table->wide;
    tensor->snapshot = *among;
    *among += rows * cols;
    if (layer == KILN_NO_LAYER) {
        snprintf(tensor->name, sizeof tensor->name, "%s", names[role]);
    } else {
        snprintf(tensor->name, sizeof tensor->name, "%s.%u", names[role], (unsigned)layer);
    }
    builder->offset += rows * cols;
    table->parameters += rows * cols;
    return tensor;
}

static void align(struct builder *builder) {
    builder->offset = kiln_round_up(builder->offset, KILN_TABLE_ALIGN);
}

static void add_norm(struct builder *builder, enum kiln_role role, size_t layer) {
    align(builder);
    add_tensor(builder, role, layer, 1, builder->table->dims.dim, 1);
}

/* Make the last n tensors one matrix. */
static void add_matrix(struct builder *builder, enum kiln_matrix_kind kind, size_t layer,
                       size_t n) {
    struct kiln_table *table = builder->table;
    struct kiln_tensor *first = &table->tensors[table->n_tensors - n];
    size_t index = table->n_matrices++;
    size_t rows = 0;
    for (size_t i = 0; i < n; i++) {
        rows += first[i].rows;
        first[i].matrix = index;
    }
    table->matrices[index] = (struct kiln_matrix){
        .kind = kind,
        .layer = layer,
        .rows = rows,
        .cols = first->cols,
        .offset = first->offset,
        .first_tensor = table->n_tensors - n,
        .n_tensors = n,
    };
}

static void add_layer(struct builder *builder, size_t layer) {
    const struct kiln_dims *dims = &builder->table->dims;
    size_t D = dims->dim, F = dims->hidden;
    size_t HK = dims->heads * dims->head_size, GK = dims->kv_heads * dims->head_size;
    add_norm(builder, KILN_ATTN_NORM, layer);
    align(builder);
    add_tensor(builder, KILN_WQ, layer, HK, D, 2);
    add_tensor(builder, KILN_WK, layer, GK, D, 2);
    add_tensor(builder, KILN_WV, layer, GK, D, 2);
    add_matrix(builder, KILN_MATRIX_QKV, layer, 3);
    if (dims->qkv_bias) {
        align(builder);
        add_tensor(builder, KILN_BQ, layer, 1, HK, 1);
        add_tensor(builder, KILN_BK, layer, 1, GK, 1);
        add_tensor(builder, KILN_BV, layer, 1, GK, 1);
    }
    if (dims->qk_norm) {
        align(builder);
        add_tensor(builder, KILN_Q_NORM, layer, 1, dims->head_size, 1);
        add_tensor(builder, KILN_K_NORM, layer, 1, dims->head_size, 1);
    }
    align(builder);
    add_tensor(builder, KILN_WO, layer, D, HK, 2);
    add_matrix(builder, KILN_MATRIX_WO, layer, 1);
    add_norm(builder, KILN_FFN_NORM, layer);
    align(builder);
    add_tensor(builder, KILN_W1, layer, F, D, 2);
    add_tensor(builder, KILN_W3, layer, F, D, 2);
    add_matrix(builder, KILN_MATRIX_W13, layer, 2);
    align(builder);
    add_tensor(builder, KILN_W2, layer, D, F, 2);
    add_matrix(builder, KILN_MATRIX_W2, layer, 1);
}

/* The head's matrix is the last of the table, also where its tensor is the first: when tied. */
static void add_head(struct builder *builder) {
    struct kiln_table *table = builder->table;
    const struct kiln_dims *dims = &table->dims;
    if (!dims->tied) {
        align(builder);
        add_tensor(builder, KILN_HEAD, KILN_NO_LAYER, dims->vocab, dims->dim, 2);
        add_matrix(builder, KILN_MATRIX_HEAD, KILN_NO_LAYER, 1);
        return;
    }
    size_t placed = table->n_tensors;
    table->n_tensors = 1; /* the last tensor is now the embedding */
    add_matrix(builder, KILN_MATRIX_HEAD, KILN_NO_LAYER, 1);
    table->n_tensors = placed;
}

static void build(struct kiln_table *table) {
    const struct kiln_dims *dims = &table->dims;
    struct builder builder = {.table = table};
    add_tensor(&builder, KILN_EMBED, KILN_NO_LAYER, dims->vocab, dims->dim, 2);
    for (size_t layer = 0; layer < dims->layers; layer++) {
        add_layer(&builder, layer);
    }
    add_norm(&builder, KILN_FINAL_NORM, KILN_NO_LAYER);
    add_head(&builder);
    align(&builder);
    table->size = builder.offset;
    table->n_base = table->n_tensors;
    if (table->lora.rank > 0) {
        kiln_lora_lay_out(table);
    }
}

enum kiln_status kiln_table_create(const struct kiln_dims *dims, struct kiln_table **out,
                                   struct kiln_err *err) {
    return kiln_table_create_lora(dims, &(struct kiln_lora){.rank = 0}, out, err);
}

enum kiln_status kiln_table_create_lora(const struct kiln_dims *dims, const struct kiln_lora *lora,
                                        struct kiln_table **out, struct kiln_err *err) {
    *out = NULL;
    struct kiln_dims checked = *dims;
    KILN_TRY(kiln_dims_check(&checked, err));
    KILN_TRY(lora->rank > 0 ? kiln_lora_check(lora, err) : KILN_OK);
    struct kiln_table *table = kiln_alloc(1, sizeof *table);
    if (table != NULL) {
        table->dims = checked;
        table->lora = *lora;
        table->tensors = kiln_alloc(tensors_a_layer(&checked) * checked.layers + 3 +
                                        kiln_lora_tensors(lora, checked.layers),
                                    sizeof *table->tensors);
        table->matrices =
            kiln_alloc(MATRICES_A_LAYER * checked.layers + 1, sizeof *table->matrices);
    }
    if (table == NULL || table->tensors == NULL || table->matrices == NULL) {
        kiln_table_destroy(table);
        return KILN_FAIL(err, KILN_ENOMEM, "no memory for a table of %zu layers", checked.layers);
    }
    build(table);
    *out = table;
    return KILN_OK;
}

void kiln_table_destroy(struct kiln_table *table) {
    if (table != NULL) {
        kiln_free(table->tensors);
        kiln_free(table->matrices);
        kiln_free(table);
    }
}

/* ---- some of its layers -----------------------------------------------------------------------
 */

static bool is_of(size_t layer, size_t first, size_t end) {
    return layer == KILN_NO_LAYER || (layer >= first && layer < end);
}

/* Tensors that are taken; now_at[i] is where tensor i goes. */
static void take_tensors(const struct kiln_table *whole, size_t first, size_t end, size_t *now_at,
                         struct kiln_table *stage) {
    for (size_t i = 0; i < whole->n_tensors; i++) {
        now_at[i] = stage->n_tensors;
        if (is_of(whole->tensors[i].layer, first, end)) {
            stage->tensors[stage->n_tensors++] = whole->tensors[i];
            stage->n_base += i < whole->n_base;
        }
    }
    for (size_t i = 0; i < stage->n_tensors; i++) {
        struct kiln_tensor *t = &stage->tensors[i];
        t->layer -= t->layer == KILN_NO_LAYER ? 0 : first;
        t->matrix = kiln_table_stage_matrix(whole, stage, first, t->matrix);
        t->target = t->target == KILN_NO_TENSOR ? t->target : now_at[t->target];
        t->adapter = t->adapter == KILN_NO_TENSOR ? t->adapter : now_at[t->adapter];
    }
}

static void take_matrices(const struct kiln_table *whole, size_t first, size_t end,
                          const size_t *now_at, struct kiln_table *stage) {
    for (size_t i = 0; i < whole->n_matrices; i++) {
        if (is_of(whole->matrices[i].layer, first, end)) {
            struct kiln_matrix *m = &stage->matrices[stage->n_matrices++];
            *m = whole->matrices[i];
            m->layer -= m->layer == KILN_NO_LAYER ? 0 : first;
            m->first_tensor = now_at[m->first_tensor];
        }
    }
}

enum kiln_status kiln_table_stage(const struct kiln_table *whole, size_t first, size_t end,
                                  struct kiln_table **out, struct kiln_err *err) {
    struct kiln_table *stage = kiln_alloc(1, sizeof *stage);
    size_t *now_at = kiln_alloc(whole->n_tensors, sizeof *now_at);
    *out = NULL;
    if (stage != NULL) {
        *stage = *whole;
        stage->dims.layers = end - first;
        stage->n_tensors = stage->n_base = stage->n_matrices = 0;
        stage->tensors = kiln_alloc(whole->n_tensors, sizeof *stage->tensors);
        stage->matrices = kiln_alloc(whole->n_matrices, sizeof *stage->matrices);
    }
    const bool room = now_at && stage && stage->tensors && stage->matrices;
    if (room) {
        take_tensors(whole, first, end, now_at, stage);
        take_matrices(whole, first, end, now_at, stage);
        *out = stage;
    } else {
        kiln_table_destroy(stage);
    }
    kiln_free(now_at);
    KILN_REQUIRE(room, err, KILN_ENOMEM, "no memory for a table of %zu layers", end - first);
    return KILN_OK;
}

size_t kiln_table_stage_matrix(const struct kiln_table *whole, const struct kiln_table *stage,
                               size_t first, size_t matrix) {
    if (matrix == KILN_NO_MATRIX || matrix + 1 == whole->n_matrices) {
        return matrix == KILN_NO_MATRIX ? matrix : MATRICES_A_LAYER * stage->dims.layers;
    }
    const size_t layer = matrix / MATRICES_A_LAYER;
    const bool here = layer >= first && layer < first + stage->dims.layers;
    return here ? matrix - MATRICES_A_LAYER * first : KILN_NO_MATRIX;
}

size_t kiln_table_part(const struct kiln_table *table, size_t layer, size_t *first) {
    const size_t layers = table->dims.layers;
    const size_t next = layer == KILN_NO_LAYER ? 0 : layer + 1;
    *first = layer == KILN_NO_LAYER ? 0
             : layer < layers       ? kiln_table_find(table, KILN_ATTN_NORM, layer)->offset
                              : kiln_table_find(table, KILN_FINAL_NORM, KILN_NO_LAYER)->offset;
    const size_t end = next < layers ? kiln_table_find(table, KILN_ATTN_NORM, next)->offset
                       : next == layers
                           ? kiln_table_find(table, KILN_FINAL_NORM, KILN_NO_LAYER)->offset
                           : table->size;
    return end - *first;
}

/* Where the adapters of a layer or a later one begin; they lie behind the model, by layers. */
static size_t adapters_at(const struct kiln_table *table, size_t layer) {
    for (size_t i = table->n_base; i < table->n_tensors; i++) {
        if (table->tensors[i].layer >= layer) {
            return kiln_trained_at(table, table->tensors[i].offset);
        }
    }
    return kiln_trained_size(table);
}

size_t kiln_trained_part(const struct kiln_table *table, size_t layer, size_t *first) {
    if (table->trained == 0) {
        return kiln_table_part(table, layer, first);
    }
    *first = layer < table->dims.layers ? adapters_at(table, layer) : 0;
    return layer < table->dims.layers ? adapters_at(table, layer + 1) - *first : 0;
}

const struct kiln_tensor *kiln_table_find(const struct kiln_table *table, enum kiln_role role,
                                          size_t layer) {
    size_t first = 0, end = table->n_base;
    if (layer != KILN_NO_LAYER) {
        if (layer >= table->dims.layers) {
            return NULL;
        }
        first = TENSORS_FOR_LAYER + layer * tensors_a_layer(&table->dims);
        end = first + tensors_a_layer(&table->dims);
    }
    for (size_t i = first; i < end; i++) {
        if (table->tensors[i].role == role && table->tensors[i].layer == layer) {
            return &table->tensors[i];
        }
    }
    return NULL;
}

const struct kiln_matrix *kiln_table_matrix(const struct kiln_table *table,
                                            enum kiln_matrix_kind kind, size_t layer) {
    if (kind == KILN_MATRIX_HEAD) {
        return &table->matrices[table->n_matrices - 1];
    }
    if (layer >= table->dims.layers || kind >= KILN_MATRIX_HEAD) {
        return NULL;
    }
    return &table->matrices[MATRICES_A_LAYER * layer + kind];
}

void kiln_table_clear_gaps(const struct kiln_table *table, float *weights) {
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *tensor = &table->tensors[i];
        size_t end = tensor->offset + tensor->rows * tensor->cols;
        size_t next = i + 1 < table->n_tensors ? tensor[1].offset : table->size;
        memset(weights + end, 0, (next - end) * sizeof *weights);
    }
}
