/* SPDX-License-Identifier: MIT */
#include "kernel/packed.h"

#include <assert.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/machine.h"

static size_t forward_bytes(const struct kiln_matrix *m, size_t operand) {
    return kiln_packed_elements(m->rows, m->cols) * operand;
}
static size_t backward_bytes(const struct kiln_matrix *m, size_t operand) {
    /* The contraction is over rows, which arrive 64 at a time: room for whole pieces. */
    return kiln_packed_elements(m->cols, kiln_round_up(m->rows, KILN_PACK_ROWS)) * operand;
}

static size_t packed_bytes(const struct kiln_table *table, size_t operand, bool backward) {
    size_t bytes = 0;
    for (size_t i = 0; i < table->n_matrices; i++) {
        bytes = kiln_arena_reserve(bytes, forward_bytes(&table->matrices[i], operand));
        if (backward) {
            bytes = kiln_arena_reserve(bytes, backward_bytes(&table->matrices[i], operand));
        }
    }
    return bytes;
}

enum kiln_status kiln_packed_open(struct kiln_packed *packed, const struct kiln_table *table,
                                  const struct kiln_kernels *kernels, bool backward,
                                  struct kiln_err *err) {
    size_t operand = kernels->operand_bytes;
    *packed = (struct kiln_packed){.table = table, .kernels = kernels};
    packed->forward = kiln_alloc(table->n_matrices, sizeof *packed->forward);
    packed->backward = kiln_alloc(table->n_matrices, sizeof *packed->backward);
    enum kiln_status status =
        packed->forward && packed->backward
            ? kiln_arena_open(&packed->arena, packed_bytes(table, operand, backward), err)
            : KILN_FAIL(err, KILN_ENOMEM, "no memory for the list of packed matrices");
    if (status != KILN_OK) {
        kiln_packed_close(packed);
        return status;
    }
    packed->streams = packed->arena.size > kiln_cache_bytes();
    for (size_t i = 0; i < table->n_matrices; i++) {
        const struct kiln_matrix *m = &table->matrices[i];
        packed->forward[i] = kiln_arena_take(&packed->arena, forward_bytes(m, operand));
        if (backward) {
            packed->backward[i] = kiln_arena_take(&packed->arena, backward_bytes(m, operand));
        }
    }
    return KILN_OK;
}

void kiln_packed_close(struct kiln_packed *packed) {
    kiln_arena_close(&packed->arena);
    kiln_free(packed->forward);
    kiln_free(packed->backward);
    *packed = (struct kiln_packed){0};
}

void kiln_packed_sizes(const struct kiln_matrix *matrix, size_t operand, size_t *forward,
                       size_t *backward) {
    *forward = kiln_round_up(forward_bytes(matrix, operand), 64);
    *backward = kiln_round_up(backward_bytes(matrix, operand), 64);
}

void kiln_packed_release(const struct kiln_packed *packed, size_t matrix, bool forward) {
    const struct kiln_matrix *m = &packed->table->matrices[matrix];
    const size_t operand = packed->kernels->operand_bytes, page = (size_t)sysconf(_SC_PAGESIZE);
    const uintptr_t at = (uintptr_t)(forward ? packed->forward : packed->backward)[matrix];
    const size_t bytes = forward ? forward_bytes(m, operand) : backward_bytes(m, operand);
    const uintptr_t first = kiln_round_up(at, page), end = (at + bytes) / page * page;
    if (at != 0 && end > first) {
        madvise((void *)first, end - first, MADV_DONTNEED);
    }
}

void kiln_packed_rows(const struct kiln_packed *packed, size_t matrix, size_t first, size_t rows,
                      const struct kiln_weights *weights, bool forward, bool backward) {
    const struct kiln_matrix *m = &packed->table->matrices[matrix];
    const struct kiln_kernels *kernels = packed->kernels;
    const size_t operand = kernels->operand_bytes;
    const float *wide;
    const uint16_t *narrow;
    kiln_weights_rows(weights, m, first, &wide, &narrow);
    assert(wide || weights->precision == kernels->precision);
    forward = forward && packed->forward[matrix];
    backward = backward && packed->backward[matrix];
    if (wide && forward && backward) {
        kernels->pack_both((char *)packed->forward[matrix] +
                               first / KILN_PANEL * kiln_panel_elements(m->cols) * operand,
                           (char *)packed->backward[matrix] + first * KILN_PANEL * operand,
                           kiln_panel_elements(m->rows), wide, m->cols, rows, m->cols,
                           packed->streams);
        return;
    }
    if (forward) {
        const size_t panel = kiln_panel_elements(m->cols);
        char *out = (char *)packed->forward[matrix] + first / KILN_PANEL * panel * operand;
        if (wide) {
            kernels->pack_f32(out, panel, wide, m->cols, rows, m->cols);
        } else {
            kernels->pack(out, panel, narrow, m->cols, rows, m->cols);
        }
    }
    if (backward) {
        const size_t panel = kiln_panel_elements(m->rows);
        char *out = (char *)packed->backward[matrix] + first * KILN_PANEL * operand;
        if (wide) {
            kernels->pack_t_f32(out, panel, wide, m->cols, rows, m->cols);
        } else {
            kernels->pack_t(out, panel, narrow, m->cols, rows, m->cols);
        }
    }
}
