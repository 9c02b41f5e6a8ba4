/* SPDX-License-Identifier: MIT */
#include "device/cpu/lora_cpu.h"

#include <string.h>

#include "device/cpu/cpu.h"

/* Tensors with adapters in both matrices of a half-layer, and products: one dA a matrix. */
enum { MOST_TENSORS = 4, MOST_PRODUCTS = MOST_TENSORS + 2 };

/* Tensors of a matrix that have adapters. */
static size_t count_adapters(const struct kiln_table *table, const struct kiln_matrix *m) {
    size_t n = 0;
    for (size_t i = m->first_tensor; i < m->first_tensor + m->n_tensors; i++) {
        n += table->tensors[i].adapter != KILN_NO_TENSOR;
    }
    return n;
}

/* ---- workspace -------------------------------------------------------------------------------
 */

/* The largest that matrices of a layer need. */
struct extents {
    size_t adapters, rows, cols;
};

static struct extents extents_of(const struct kiln_table *table, int which) {
    struct extents e = {0};
    for (int kind = KILN_MATRIX_QKV; table->trained > 0 && kind <= KILN_MATRIX_W2; kind++) {
        const struct kiln_matrix *m = kiln_table_matrix(table, (enum kiln_matrix_kind)kind, 0);
        const size_t n = count_adapters(table, m);
        const bool output = kind == KILN_MATRIX_WO || kind == KILN_MATRIX_W2;
        if (n > 0 && output == (which == 0)) {
            e.adapters = kiln_largest(e.adapters, n);
            e.rows = kiln_largest(e.rows, m->rows);
            e.cols = kiln_largest(e.cols, m->cols);
        }
    }
    return e;
}

#define TAKE(field, bytes)                                  \
    field = base ? (void *)((uintptr_t)base + used) : NULL; \
    used = kiln_arena_reserve(used, (bytes))

size_t kiln_cpu_lora_lay_out(struct kiln_cpu_device *cpu, void *base, size_t used) {
    const struct kiln_table *table = cpu->base.table;
    const size_t n = cpu->tokens, operand = cpu->kernels.operand_bytes, r = table->lora.rank;
    size_t staging = 0;
    for (int which = 0; table->trained > 0 && which < 2; which++) {
        struct kiln_cpu_adapters *a = &cpu->lora.of[which];
        const struct extents e = extents_of(table, which);
        const size_t R = e.adapters * r;
        staging = kiln_largest(staging, R * kiln_largest(e.rows, e.cols));
        TAKE(a->a_in, kiln_packed_elements(R, e.cols) * operand);
        TAKE(a->b_in, kiln_packed_elements(e.rows, R) * operand);
        if (cpu->training) {
            TAKE(a->b_back, kiln_packed_elements(R, e.rows) * operand);
            TAKE(a->a_back, kiln_packed_elements(e.cols, R) * operand);
            TAKE(a->turned, R * kiln_turned_stride(n) * operand);
            TAKE(a->packed, e.adapters * kiln_packed_elements(r, n) * operand);
        }
    }
    if (table->trained > 0) {
        TAKE(cpu->lora.staging, staging * sizeof(float));
    }
    return used;
}
#undef TAKE

size_t kiln_cpu_lora_u_bytes(const struct kiln_cpu_device *cpu) {
    const struct kiln_table *table = cpu->base.table;
    const size_t most = kiln_largest(extents_of(table, 0).adapters, extents_of(table, 1).adapters);
    return cpu->chunk * most * table->lora.rank * cpu->kernels.operand_bytes;
}

size_t kiln_cpu_lora_delta_bytes(const struct kiln_cpu_device *cpu) {
    const struct extents output = extents_of(cpu->base.table, 0);
    const struct extents input = extents_of(cpu->base.table, 1);
    return cpu->chunk * kiln_largest(output.cols, kiln_largest(input.rows, input.cols)) *
           sizeof(float);
}

/* ---- packing ---------------------------------------------------------------------------------
 */

static const float *values(const struct kiln_cpu_device *cpu, const struct kiln_tensor *t) {
    return kiln_weights_wide(&cpu->base.weights, t);
}

/* staging [R, cols] = scale * the A of the matrix, one behind the other. */
static void stack(struct kiln_cpu_device *cpu, const struct kiln_cpu_adapters *a, float scale) {
    const struct kiln_table *table = cpu->base.table;
    const struct kiln_matrix *m = a->matrix;
    float *out = cpu->lora.staging;
    for (size_t i = m->first_tensor; i < m->first_tensor + m->n_tensors; i++) {
        const struct kiln_tensor *t = kiln_lora_find(table, &table->tensors[i], 0);
        for (size_t k = 0; t && k < t->rows * t->cols; k++) {
            *out++ = scale * values(cpu, t)[k];
        }
    }
}

/* staging [rows, R] = scale * the B of the matrix, on the diagonal. */
static void spread(struct kiln_cpu_device *cpu, const struct kiln_cpu_adapters *a, float scale) {
    const struct kiln_table *table = cpu->base.table;
    const struct kiln_matrix *m = a->matrix;
    const size_t r = table->lora.rank;
    float *out = cpu->lora.staging;
    size_t column = 0;
    memset(out, 0, m->rows * a->rank * sizeof *out);
    for (size_t i = m->first_tensor; i < m->first_tensor + m->n_tensors; i++) {
        const struct kiln_tensor *of = &table->tensors[i];
        const struct kiln_tensor *t = kiln_lora_find(table, of, 1);
        for (size_t row = 0; t && row < t->rows; row++) {
            for (size_t k = 0; k < r; k++) {
                out[row * a->rank + column + k] = scale * values(cpu, t)[row * r + k];
            }
        }
        column += t ? r : 0;
        out += of->rows * a->rank;
    }
}

static void pack(struct kiln_cpu_device *cpu, const struct kiln_cpu_adapters *a, bool backward) {
    const struct kiln_kernels *k = &cpu->kernels;
    const size_t rows = a->matrix->rows, cols = a->matrix->cols, R = a->rank;
    const struct kiln_lora *lora = &cpu->base.table->lora;
    const float scale = (float)(lora->alpha / (double)lora->rank), *from = cpu->lora.staging;
    stack(cpu, a, scale);
    k->pack_f32(a->a_in, kiln_panel_elements(cols), from, cols, R, cols);
    if (!backward) {
        spread(cpu, a, 1);
        k->pack_f32(a->b_in, kiln_panel_elements(R), from, R, rows, R);
        return;
    }
    stack(cpu, a, 1);
    k->pack_t_f32(a->a_back, kiln_panel_elements(R), from, cols, R, cols);
    spread(cpu, a, scale);
    k->pack_t_f32(a->b_back, kiln_panel_elements(rows), from, R, rows, R);
}

void kiln_cpu_lora_begin(struct kiln_cpu_device *cpu, size_t layer, enum kiln_matrix_kind output,
                         enum kiln_matrix_kind input, bool backward) {
    const struct kiln_table *table = cpu->base.table;
    const enum kiln_matrix_kind kinds[2] = {output, input};
    for (int which = 0; table->trained > 0 && which < 2; which++) {
        const struct kiln_matrix *m = kiln_table_matrix(table, kinds[which], layer);
        struct kiln_cpu_adapters *a = &cpu->lora.of[which];
        a->rank = count_adapters(table, m) * table->lora.rank;
        a->matrix = a->rank > 0 ? m : NULL;
        if (a->matrix) {
            pack(cpu, a, backward);
        }
    }
}

const struct kiln_cpu_adapters *kiln_cpu_lora_of(const struct kiln_cpu_device *cpu,
                                                 const struct kiln_matrix *matrix) {
    for (int which = 0; which < 2; which++) {
        if (cpu->lora.of[which].matrix == matrix) {
            return &cpu->lora.of[which];
        }
    }
    return NULL;
}

/* ---- chunks ----------------------------------------------------------------------------------
 */

/* u [rows, R] = x . packed^T, operands. */
static void narrow(const struct kiln_lora_chunk *c, const struct kiln_cpu_adapters *a,
                   const void *x, const void *packed, size_t width) {
    kiln_product_alone(&c->cpu->kernels,
                       &(struct kiln_gemm){.m = c->rows,
                                           .n = a->rank,
                                           .k = width,
                                           .a = x,
                                           .lda = width,
                                           .b = packed,
                                           .c = c->u,
                                           .ldc = a->rank,
                                           .c_operand = true},
                       c->gemm);
}

/* to [rows, width] = u . packed^T (+ add). */
static void widen(const struct kiln_lora_chunk *c, const struct kiln_cpu_adapters *a,
                  const void *packed, size_t width, const float *add, size_t stride, float *to) {
    kiln_product_alone(&c->cpu->kernels,
                       &(struct kiln_gemm){.m = c->rows,
                                           .n = width,
                                           .k = a->rank,
                                           .a = c->u,
                                           .lda = a->rank,
                                           .b = packed,
                                           .c = to,
                                           .ldc = width,
                                           .add = add,
                                           .ldadd = stride},
                       c->gemm);
}

const float *kiln_cpu_lora_forward(const struct kiln_lora_chunk *c,
                                   const struct kiln_cpu_adapters *a, const void *x,
                                   const float *residual, size_t stride, float *to) {
    narrow(c, a, x, a->a_in, a->matrix->cols);
    widen(c, a, a->b_in, a->matrix->rows, residual, stride, to);
    return to;
}

const float *kiln_cpu_lora_backward(const struct kiln_lora_chunk *c,
                                    const struct kiln_cpu_adapters *a, const void *dy, float *to) {
    narrow(c, a, dy, a->b_back, a->matrix->rows);
    kiln_turn_rows(&c->cpu->kernels, a->turned, c->cpu->tokens, c->u, a->rank, c->first, c->rows);
    widen(c, a, a->a_back, a->matrix->cols, NULL, 0, to);
    return to;
}

void kiln_cpu_lora_input(const struct kiln_lora_chunk *c, const struct kiln_cpu_adapters *a,
                         const void *x) {
    const struct kiln_kernels *k = &c->cpu->kernels;
    const size_t r = c->cpu->base.table->lora.rank, n = c->cpu->tokens;
    const size_t each = kiln_packed_elements(r, n) * k->operand_bytes;
    narrow(c, a, x, a->a_in, a->matrix->cols);
    for (size_t i = 0; i * r < a->rank; i++) {
        k->pack_t((char *)a->packed + i * each + c->first * KILN_PANEL * k->operand_bytes,
                  kiln_panel_elements(n), (const char *)c->u + i * r * k->operand_bytes, a->rank,
                  c->rows, r);
    }
}

/* ---- gradients -------------------------------------------------------------------------------
 */

/* dA of all tensors of the matrix, which lie one behind the other, and the dB of each. */
static size_t gradients_of(const struct kiln_cpu_device *cpu, const struct kiln_cpu_adapters *a,
                           const void *turned_dy, const void *packed_x,
                           struct kiln_product_entry *out) {
    const struct kiln_table *table = cpu->base.table;
    const struct kiln_gradients *g = &cpu->base.gradients;
    const struct kiln_matrix *m = a->matrix;
    const size_t n = cpu->tokens, r = table->lora.rank, operand = cpu->kernels.operand_bytes;
    size_t count = 0, row = 0;
    for (size_t i = m->first_tensor; i < m->first_tensor + m->n_tensors; i++) {
        const struct kiln_tensor *of = &table->tensors[i];
        const struct kiln_tensor *first = kiln_lora_find(table, of, 0);
        const struct kiln_tensor *b = kiln_lora_find(table, of, 1);
        if (b) {
            float *da = g->all + kiln_trained_at(table, first->offset);
            if (count == 0) {
                out[count++].gemm =
                    kiln_weight_gradient(a->turned, packed_x, n, a->rank, m->cols, da, g->add);
            }
            const char *dy = (const char *)turned_dy + row * kiln_turned_stride(n) * operand;
            const char *u =
                (const char *)a->packed + (count - 1) * kiln_packed_elements(r, n) * operand;
            out[count++].gemm = kiln_weight_gradient(
                dy, u, n, of->rows, r, g->all + kiln_trained_at(table, b->offset), g->add);
        }
        row += of->rows;
    }
    return count;
}

void kiln_cpu_lora_gradients(struct kiln_cpu_device *cpu) {
    struct kiln_product_entry products[MOST_PRODUCTS] = {{.context = NULL}};
    const void *dy[2] = {cpu->turned_dy, cpu->turned_wide};
    const void *x[2] = {cpu->packed_in, cpu->packed_xn};
    size_t n = 0;
    for (int which = 0; which < 2; which++) {
        const struct kiln_cpu_adapters *a = &cpu->lora.of[which];
        n += a->matrix ? gradients_of(cpu, a, dy[which], x[which], products + n) : 0;
    }
    if (n > 0) {
        kiln_products(&cpu->workers, products, n);
    }
}
