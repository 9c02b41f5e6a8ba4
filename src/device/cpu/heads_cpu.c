/* SPDX-License-Identifier: MIT
 *
 * heads_cpu.c: from the fused product to the queries and keys that attention reads, and back.
 *
 *   Llama, Qwen2   qkv (with its bias, which the product adds) -> RoPE, in place
 *   Qwen3          qkv in the taps -> norm of every query and key head -> RoPE, in `turned`
 *
 * Where heads are normalised the taps keep what was before the norm, and what attention reads is
 * made again in the backward pass by the same kernels: the same bits, and no more memory a layer
 * than without.
 */
#include <string.h>

#include "device/cpu/cpu.h"

static size_t width_of(const struct kiln_dims *d) {
    return (d->heads + 2 * d->kv_heads) * d->head_size;
}

static const struct kiln_tensor *find(const struct kiln_cpu_device *cpu, enum kiln_role role,
                                      size_t layer) {
    return kiln_table_find(cpu->base.table, role, layer);
}

const float *kiln_cpu_bias(const struct kiln_cpu_device *cpu, size_t layer) {
    return cpu->base.table->dims.qkv_bias
               ? kiln_weights_wide(&cpu->base.weights, find(cpu, KILN_BQ, layer))
               : NULL;
}

void *kiln_cpu_turned(const struct kiln_cpu_device *cpu, const void *taps) {
    return cpu->turned_qkv ? cpu->turned_qkv : kiln_cpu_taps(cpu, taps).qkv;
}

/* Element `at` of an operand array. */
static void *operand_at(const struct kiln_cpu_device *cpu, const void *array, size_t at) {
    return (void *)((uintptr_t)array + at * cpu->kernels.operand_bytes);
}

static void turn(const struct kiln_cpu_device *cpu, void *rows, size_t first, size_t n,
                 bool inverse) {
    const struct kiln_dims *d = &cpu->base.table->dims;
    cpu->kernels.rope(rows, width_of(d), n, d->heads + d->kv_heads, d->head_size, cpu->angles,
                      first, cpu->base.shape.seq, inverse);
}

/* Both head norms, the keys' behind the queries', as in the table. */
static const float *norms_of(const struct kiln_cpu_device *cpu, size_t layer) {
    return kiln_weights_wide(&cpu->base.weights, find(cpu, KILN_Q_NORM, layer));
}

void kiln_cpu_turn_heads(const struct kiln_cpu_device *cpu, size_t layer, const void *taps,
                         size_t first, size_t n) {
    const struct kiln_dims *d = &cpu->base.table->dims;
    const size_t width = width_of(d), k = d->head_size, hk = d->heads * k, gk = d->kv_heads * k;
    void *from = operand_at(cpu, kiln_cpu_taps(cpu, taps).qkv, first * width);
    void *to = operand_at(cpu, kiln_cpu_turned(cpu, taps), first * width);
    if (d->qk_norm) {
        const float *w = norms_of(cpu, layer);
        cpu->kernels.head_norm(to, from, width, n, d->heads, k, w, d->rms_eps);
        cpu->kernels.head_norm(operand_at(cpu, to, hk), operand_at(cpu, from, hk), width, n,
                               d->kv_heads, k, w + k, d->rms_eps);
        for (size_t i = 0; i < n; i++) {
            const size_t values = i * width + hk + gk;
            memcpy(operand_at(cpu, to, values), operand_at(cpu, from, values),
                   gk * cpu->kernels.operand_bytes);
        }
    }
    turn(cpu, to, first, n, false);
}

/* Of at most KILN_ROW_CHUNK rows from `first`: dqkv and qkv begin there. */
static void norms_bwd(const struct kiln_cpu_device *cpu, size_t layer, void *dqkv, const void *qkv,
                      size_t first, size_t n) {
    const struct kiln_dims *d = &cpu->base.table->dims;
    const size_t width = width_of(d), k = d->head_size, hk = d->heads * k;
    const float *w = norms_of(cpu, layer);
    float *dw = cpu->dheads + first / KILN_ROW_CHUNK * 2 * k;
    memset(dw, 0, 2 * k * sizeof *dw);
    cpu->kernels.head_norm_bwd(dqkv, dw, qkv, width, n, d->heads, k, w, d->rms_eps);
    cpu->kernels.head_norm_bwd(operand_at(cpu, dqkv, hk), dw + k, operand_at(cpu, qkv, hk), width,
                               n, d->kv_heads, k, w + k, d->rms_eps);
}

void kiln_cpu_turn_heads_bwd(const struct kiln_cpu_device *cpu, size_t layer, const void *taps,
                             size_t first, size_t n) {
    const struct kiln_dims *d = &cpu->base.table->dims;
    const size_t width = width_of(d);
    turn(cpu, operand_at(cpu, cpu->dqkv, first * width), first, n, true);
    for (size_t i = first; i < first + n; i += KILN_ROW_CHUNK) {
        const size_t rows = kiln_least(first + n - i, KILN_ROW_CHUNK);
        void *dqkv = operand_at(cpu, cpu->dqkv, i * width);
        if (d->qk_norm) {
            norms_bwd(cpu, layer, dqkv, operand_at(cpu, kiln_cpu_taps(cpu, taps).qkv, i * width), i,
                      rows);
        }
        if (d->qkv_bias && cpu->base.table->trained == 0) {
            float *sum = cpu->dbias + i / KILN_ROW_CHUNK * width;
            memset(sum, 0, width * sizeof *sum);
            cpu->kernels.sum_rows(sum, dqkv, width, rows, width);
        }
    }
}

/* Partial gradients [chunks, n] of what lies at a tensor of the table, in order. */
static void add_up(const struct kiln_cpu_device *cpu, const float *parts, size_t n,
                   const struct kiln_tensor *tensor) {
    const struct kiln_gradients *gradients = &cpu->base.gradients;
    float *dw = gradients->all + tensor->offset;
    const size_t chunks = (cpu->tokens + KILN_ROW_CHUNK - 1) / KILN_ROW_CHUNK;
    for (size_t i = 0; i < chunks; i++) {
        if (i == 0 && !gradients->add) {
            memcpy(dw, parts, n * sizeof *dw);
        } else {
            cpu->kernels.add(dw, parts + i * n, n);
        }
    }
}

void kiln_cpu_head_gradients(const struct kiln_cpu_device *cpu, size_t layer) {
    const struct kiln_dims *d = &cpu->base.table->dims;
    if (cpu->base.table->trained > 0) {
        return; /* frozen */
    }
    if (d->qk_norm) {
        add_up(cpu, cpu->dheads, 2 * d->head_size, find(cpu, KILN_Q_NORM, layer));
    }
    if (d->qkv_bias) {
        add_up(cpu, cpu->dbias, width_of(d), find(cpu, KILN_BQ, layer));
    }
}
