/* SPDX-License-Identifier: MIT
 *
 * types.c: names of types and operations, sizes.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "device/mil/check.h"

static const struct {
    const char *name;
    size_t bytes;
} scalars[KILN_MIL_SCALARS] = {
    [KILN_MIL_FP16] = {"fp16", 2},   [KILN_MIL_FP32] = {"fp32", 4},
    [KILN_MIL_INT8] = {"int8", 1},   [KILN_MIL_UINT8] = {"uint8", 1},
    [KILN_MIL_INT16] = {"int16", 2}, [KILN_MIL_UINT16] = {"uint16", 2},
    [KILN_MIL_INT32] = {"int32", 4}, [KILN_MIL_UINT64] = {"uint64", 8},
    [KILN_MIL_BOOL] = {"bool", 1},   [KILN_MIL_STRING] = {"string", 0},
};

const char *kiln_mil_scalar_name(enum kiln_mil_scalar scalar) { return scalars[scalar].name; }
size_t kiln_mil_scalar_bytes(enum kiln_mil_scalar scalar) { return scalars[scalar].bytes; }

const char *kiln_mil_op_name(enum kiln_mil_op op) {
    static const char *const names[] = {
#define KILN_MIL_OP_NAME(id, text) [KILN_MIL_##id] = (text),
        KILN_MIL_OPS(KILN_MIL_OP_NAME)
#undef KILN_MIL_OP_NAME
    };
    return names[op];
}

bool kiln_mil_count(const struct kiln_mil_type *type, size_t *elements) {
    size_t n = 1, bytes;
    for (size_t i = 0; i < type->rank; i++) {
        if (kiln_mul_overflows(n, type->dims[i], &n)) {
            return false;
        }
    }
    *elements = n; /* of 8 bytes at most, with room to round up */
    return !kiln_mul_overflows(n, 16, &bytes) && bytes < SIZE_MAX / 2;
}

size_t kiln_mil_elements(const struct kiln_mil_type *type) {
    size_t n = 1;
    for (size_t i = 0; i < type->rank; i++) {
        n *= type->dims[i]; /* the parser and shape inference have refused what overflows */
    }
    return n;
}

const char *kiln_mil_type_text(const struct kiln_mil_type *type, char buffer[160]) {
    if (type->rank == 0) {
        return kiln_mil_scalar_name(type->scalar);
    }
    size_t n = (size_t)snprintf(buffer, 160, "tensor<%s, [", kiln_mil_scalar_name(type->scalar));
    for (size_t i = 0; i < type->rank; i++) {
        n += (size_t)snprintf(buffer + n, 160 - n, "%s%zu", i > 0 ? "," : "", type->dims[i]);
    }
    snprintf(buffer + n, 160 - n, "]>");
    return buffer;
}

bool kiln_mil_same_type(const struct kiln_mil_type *a, const struct kiln_mil_type *b) {
    return a->scalar == b->scalar && a->rank == b->rank &&
           memcmp(a->dims, b->dims, a->rank * sizeof a->dims[0]) == 0;
}

/* Shapes align at their last axes; an axis of 1 stretches, as does one that is not there. */
bool kiln_mil_broadcast(const size_t *a, size_t rank_a, const size_t *b, size_t rank_b, size_t *out,
                        size_t *rank) {
    *rank = rank_a > rank_b ? rank_a : rank_b;
    for (size_t i = 0; i < *rank; i++) {
        const size_t skip_a = *rank - rank_a, skip_b = *rank - rank_b;
        const size_t da = i < skip_a ? 1 : a[i - skip_a], db = i < skip_b ? 1 : b[i - skip_b];
        if (da != db && da != 1 && db != 1) {
            return false;
        }
        out[i] = da > db ? da : db;
    }
    return true;
}
