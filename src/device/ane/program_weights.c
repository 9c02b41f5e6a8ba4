/* SPDX-License-Identifier: MIT
 *
 * program_weights.c: from weights, fp32 or a snapshot in fp16, to the fp16 files that programs bake
 * in.
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "device/ane/program_maker.h"
#include "device/mil/blob.h"
#include "device/mil/half.h"
#include "kernel/rope.h"

static bool all_finite(const uint16_t *values, size_t n) {
    unsigned most = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned magnitude = values[i] & 0x7FFF;
        most = magnitude > most ? magnitude : most;
    }
    return most < 0x7C00;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* Add the file NAME.bin; NULL when there is nothing to fill. */
static uint16_t *new_file(struct kiln_npu_maker *m, const char *name, size_t elements) {
    size_t bytes = kiln_blob_bytes(elements);
    m->file_bytes += bytes;
    if (m->table == NULL || m->status != KILN_OK) {
        return NULL;
    }
    assert(m->n_files < KILN_NPU_FILES);
    struct kiln_npu_weight *file = &m->files[m->n_files];
    snprintf(file->name, sizeof file->name, "%s.bin", name);
    file->data = kiln_alloc(bytes, 1);
    if (!file->data) {
        m->status = KILN_FAIL(m->err, KILN_ENOMEM, "%s of %s: no memory for %zu bytes", file->name,
                              kiln_npu_kind_name(m->kind), bytes);
        return NULL;
    }
    file->bytes = bytes;
    m->n_files++;
    return kiln_blob_begin(file->data, elements);
}

static const struct kiln_tensor *find(const struct kiln_npu_maker *m, enum kiln_role role) {
    bool global = role == KILN_EMBED || role == KILN_HEAD || role == KILN_FINAL_NORM;
    return kiln_table_find(m->table, role, global ? KILN_NO_LAYER : m->layer);
}

/* A tensor of the weights: fp32, or fp16 as a narrow snapshot has it. */
struct source {
    const struct kiln_tensor *tensor;
    const float *wide; /* NULL: */
    const uint16_t *half;
};

static struct source source_of(const struct kiln_npu_maker *m, enum kiln_role role) {
    const struct kiln_tensor *t = find(m, role);
    struct source source = {.tensor = t};
    kiln_weights_tensor(m->weights, t, &source.wide, &source.half);
    return source;
}

/* Refuse what fp16 cannot hold: elements first..first+n, rounded. */
static void check(struct kiln_npu_maker *m, const struct source *source, size_t first,
                  const uint16_t *halves, size_t n) {
    if (m->status != KILN_OK || all_finite(halves, n)) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (!all_finite(halves + i, 1)) {
            const double value =
                source->wide ? (double)source->wide[first + i] : (double)kiln_f16_to_f32(halves[i]);
            m->status = KILN_FAIL(
                m->err, KILN_EINPUT,
                "%s: weight %s[%zu] is %g, and the Neural Engine's fp16 ends at 65504: train on "
                "cpu, or go back to a checkpoint before the weights grew",
                kiln_npu_kind_name(m->kind), source->tensor->name, first + i, value);
            return;
        }
    }
}

/* Elements first..first+n as fp16. */
static void put_halves(struct kiln_npu_maker *m, const struct source *source, size_t first,
                       uint16_t *out, size_t n) {
    if (source->wide) {
        m->half_of(out, source->wide + first, n);
    } else {
        memcpy(out, source->half + first, n * sizeof *out);
    }
    check(m, source, first, out, n);
}

/* ---- matrices ------------------------------------------------------------------------------- */

enum { TILE = 64 };

static void transpose_tile(uint16_t *restrict dst, size_t ldd, const uint16_t *restrict tile,
                           size_t rows, size_t cols) {
    for (size_t c = 0; c < cols; c++) {
        for (size_t r = 0; r < rows; r++) {
            dst[c * ldd + r] = tile[r * TILE + c];
        }
    }
}

static void fill_transposed(struct kiln_npu_maker *m, const struct source *source, uint16_t *dst) {
    const struct kiln_tensor *t = source->tensor;
    uint16_t tile[TILE * TILE];
    for (size_t r = 0; r < t->rows; r += TILE) {
        size_t rows = t->rows - r < TILE ? t->rows - r : TILE;
        for (size_t c = 0; c < t->cols; c += TILE) {
            size_t cols = t->cols - c < TILE ? t->cols - c : TILE;
            for (size_t i = 0; i < rows; i++) {
                put_halves(m, source, (r + i) * t->cols + c, tile + i * TILE, cols);
            }
            transpose_tile(dst + c * t->rows + r, t->rows, tile, rows, cols);
        }
    }
}

/* A piece at a time, so that the check finds it in the cache. */
static void fill_plain(struct kiln_npu_maker *m, const struct source *source, uint16_t *dst,
                       size_t first, size_t n) {
    for (size_t i = 0; i < n; i += 8192) {
        put_halves(m, source, first + i, dst + i, n - i < 8192 ? n - i : 8192);
    }
}

void kiln_npu_role_shape(const struct kiln_dims *d, enum kiln_role role, size_t *rows,
                         size_t *cols) {
    size_t q = d->heads * d->head_size, kv = d->kv_heads * d->head_size;
    bool narrow = role == KILN_WK || role == KILN_WV;
    bool up = role == KILN_W1 || role == KILN_W3;
    *rows = role == KILN_WQ ? q : narrow ? kv : up ? d->hidden : d->dim;
    *cols = role == KILN_WO ? q : role == KILN_W2 ? d->hidden : d->dim;
}

struct kiln_mil_ref kiln_npu_put_matrix(struct kiln_npu_maker *m, const char *name,
                                        enum kiln_role role, bool transposed) {
    size_t rows, cols;
    kiln_npu_role_shape(m->dims, role, &rows, &cols);
    uint16_t *dst = new_file(m, name, rows * cols);
    if (dst) {
        const struct source source = source_of(m, role);
        assert(source.tensor->rows == rows && source.tensor->cols == cols);
        if (transposed) {
            fill_transposed(m, &source, dst);
        } else {
            fill_plain(m, &source, dst, 0, rows * cols);
        }
    }
    return kiln_mil_put_file(&m->text, name,
                             (size_t[4]){transposed ? cols : rows, transposed ? rows : cols, 1, 1});
}

struct kiln_mil_ref kiln_npu_put_classifier(struct kiln_npu_maker *m, const char *name) {
    size_t first, rows = kiln_npu_classifier_rows(m->dims, m->part, &first), d = m->dims->dim;
    uint16_t *dst = new_file(m, name, rows * d);
    if (dst) {
        const struct source source = source_of(m, m->dims->tied ? KILN_EMBED : KILN_HEAD);
        fill_plain(m, &source, dst, first * d, rows * d);
    }
    return kiln_mil_put_file(&m->text, name, (size_t[4]){rows, d, 1, 1});
}

/* ---- norms ---------------------------------------------------------------------------------- */

struct kiln_mil_ref kiln_npu_put_mean(struct kiln_npu_maker *m, const char *name, double scale,
                                      size_t channels) {
    uint16_t *dst = new_file(m, name, channels);
    double owed = 0;
    for (size_t i = 0; dst && i < channels; i++) {
        owed += scale / (double)channels;
        dst[i] = kiln_f64_to_f16(owed);
        owed -= (double)kiln_f16_to_f32(dst[i]);
    }
    return kiln_mil_put_file(&m->text, name, (size_t[4]){1, channels, 1, 1});
}

struct kiln_mil_ref kiln_npu_put_norm_weight(struct kiln_npu_maker *m, const char *name,
                                             enum kiln_role role, size_t n) {
    uint16_t *dst = new_file(m, name, n);
    if (dst) {
        const struct source source = source_of(m, role);
        assert(source.tensor->rank == 1 && source.tensor->cols == n);
        fill_plain(m, &source, dst, 0, n);
    }
    return kiln_mil_put_file(&m->text, name, (size_t[4]){1, n, 1, 1});
}

/* 1e-5 is a subnormal number of fp16, off by 0.14 %: it matters only where all of x is below 0.01,
 * and then by half of that. 0 would make a padding token, which is all zeros, infinite. */
double kiln_npu_norm_eps(const struct kiln_dims *dims) {
    double eps = (double)dims->rms_eps;
    return eps > 0x1p-24 ? eps : 0x1p-24;
}

/* ---- attention ------------------------------------------------------------------------------ */

struct kiln_mil_ref kiln_npu_put_places(struct kiln_npu_maker *m, const char *name, bool rest) {
    uint16_t *dst = new_file(m, name, m->width);
    for (size_t s = 0; dst && s < m->width; s++) {
        dst[s] = kiln_f64_to_f16((double)(rest ? s % KILN_NPU_PLACES : s - s % KILN_NPU_PLACES));
    }
    return kiln_mil_put_file(&m->text, name, (size_t[4]){1, 1, 1, m->width});
}

struct kiln_mil_ref kiln_npu_put_causal(struct kiln_npu_maker *m) {
    size_t w = m->width;
    uint16_t *dst = new_file(m, "mask", w * w);
    const uint16_t hidden = kiln_f64_to_f16(-65504.0);
    for (size_t t = 0; dst && t < w; t++) {
        for (size_t s = t + 1; s < w; s++) { /* the rest is 0 */
            dst[t * w + s] = hidden;
        }
    }
    return kiln_mil_put_file(&m->text, "mask", (size_t[4]){1, 1, w, w});
}

struct kiln_mil_ref kiln_npu_put_angles(struct kiln_npu_maker *m, const char *name, bool sine) {
    size_t pairs = m->dims->head_size / 2, w = m->width;
    const double scale = kiln_rope_scale(m->dims);
    uint16_t *dst = new_file(m, name, pairs * w);
    for (size_t i = 0; dst && i < pairs; i++) {
        double frequency = kiln_rope_frequency(m->dims, i);
        for (size_t t = 0; t < w; t++) {
            double angle = (double)t * frequency;
            dst[i * w + t] = kiln_f64_to_f16(scale * (sine ? sin(angle) : cos(angle)));
        }
    }
    return kiln_mil_put_file(&m->text, name, (size_t[4]){1, pairs, 1, w});
}
