/* SPDX-License-Identifier: MIT
 *
 * constant.c: literals and weight files become the data of a value: floats, exactly as declared.
 */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "device/mil/blob.h"
#include "device/mil/check.h"
#include "device/mil/half.h"

/* ---- from the text -------------------------------------------------------------------------- */

static const struct {
    int64_t least, most;
} integer_range[KILN_MIL_SCALARS] = {
    [KILN_MIL_INT8] = {INT8_MIN, INT8_MAX},    [KILN_MIL_UINT8] = {0, UINT8_MAX},
    [KILN_MIL_INT16] = {INT16_MIN, INT16_MAX}, [KILN_MIL_UINT16] = {0, UINT16_MAX},
    [KILN_MIL_INT32] = {INT32_MIN, INT32_MAX}, [KILN_MIL_UINT64] = {0, INT64_MAX},
};

static bool is_float(enum kiln_mil_scalar scalar) {
    return scalar == KILN_MIL_FP16 || scalar == KILN_MIL_FP32;
}

static enum kiln_status fill_real(const struct kiln_mil_builder *b,
                                  const struct kiln_mil_item *item, enum kiln_mil_scalar scalar,
                                  float *out, struct kiln_err *err) {
    if (item->is != KILN_MIL_ITEM_REAL && item->is != KILN_MIL_ITEM_INTEGER) {
        return KILN_MIL_FAIL(err, b->name, item->at, "expected a number of type %s, found a %s",
                             kiln_mil_scalar_name(scalar),
                             item->is == KILN_MIL_ITEM_BOOL ? "bool" : "string");
    }
    const double most = scalar == KILN_MIL_FP16 ? 65504.0 : (double)FLT_MAX;
    *out = scalar == KILN_MIL_FP16 ? kiln_f16_to_f32(kiln_f64_to_f16(item->number))
                                   : (float)item->number;
    if (!isfinite(*out)) {
        return KILN_MIL_FAIL(err, b->name, item->at,
                             "expected a number that %s holds (at most %.9g), found %.9g",
                             kiln_mil_scalar_name(scalar), most, item->number);
    }
    return KILN_OK;
}

static enum kiln_status fill_integer(const struct kiln_mil_builder *b,
                                     const struct kiln_mil_item *item, enum kiln_mil_scalar scalar,
                                     int64_t *out, struct kiln_err *err) {
    const bool flag = scalar == KILN_MIL_BOOL;
    if (item->is != (flag ? KILN_MIL_ITEM_BOOL : KILN_MIL_ITEM_INTEGER)) {
        return KILN_MIL_FAIL(err, b->name, item->at, "expected %s, found another kind of value",
                             flag ? "true or false" : "an integer");
    }
    if (!flag && (item->integer < integer_range[scalar].least ||
                  item->integer > integer_range[scalar].most)) {
        return KILN_MIL_FAIL(err, b->name, item->at,
                             "expected an integer that %s holds (%" PRId64 " to %" PRId64
                             "), found %" PRId64,
                             kiln_mil_scalar_name(scalar), integer_range[scalar].least,
                             integer_range[scalar].most, item->integer);
    }
    *out = item->integer;
    return KILN_OK;
}

/* Flat lists have all elements; nested ones have the type's dimensions. */
static enum kiln_status check_extent(const struct kiln_mil_builder *b,
                                     const struct kiln_mil_literal *l, struct kiln_err *err) {
    char text[160];
    const size_t elements = kiln_mil_elements(&l->type);
    if (l->n != elements) {
        return KILN_MIL_FAIL(err, b->name, l->at, "expected %zu elements of %s, found %zu",
                             elements, kiln_mil_type_text(&l->type, text), l->n);
    }
    if (l->depth <= 1) {
        return KILN_OK;
    }
    for (size_t i = 0; i < l->depth; i++) {
        if (l->depth != l->type.rank || l->counts[i] != l->type.dims[i]) {
            return KILN_MIL_FAIL(err, b->name, l->at,
                                 "expected one list, or lists nested as the dimensions of %s",
                                 kiln_mil_type_text(&l->type, text));
        }
    }
    return KILN_OK;
}

static enum kiln_status fill_from_text(struct kiln_mil_builder *b, const struct kiln_mil_literal *l,
                                       struct kiln_mil_value *value, struct kiln_err *err) {
    const enum kiln_mil_scalar scalar = l->type.scalar;
    KILN_TRY(check_extent(b, l, err));
    float *data = kiln_mil_take(b->memory, l->n, sizeof *data);
    int64_t *integers = is_float(scalar) ? NULL : kiln_mil_take(b->memory, l->n, sizeof *integers);
    if (data == NULL || (integers == NULL && !is_float(scalar))) {
        return kiln_mil_no_memory(b, l->at, err);
    }
    for (size_t i = 0; i < l->n; i++) {
        if (is_float(scalar)) {
            KILN_TRY(fill_real(b, &l->items[i], scalar, &data[i], err));
        } else {
            KILN_TRY(fill_integer(b, &l->items[i], scalar, &integers[i], err));
            data[i] = (float)integers[i];
        }
    }
    value->data = data;
    value->integers = integers;
    return KILN_OK;
}

static enum kiln_status fill_string(struct kiln_mil_builder *b, const struct kiln_mil_literal *l,
                                    struct kiln_mil_value *value, struct kiln_err *err) {
    if (l->type.rank > 0 || l->n != 1 || l->items[0].is != KILN_MIL_ITEM_STRING) {
        return KILN_MIL_FAIL(err, b->name, l->at,
                             "expected one string of type string, as string(\"valid\")");
    }
    value->string = kiln_mil_copy(b->memory, l->items[0].string, strlen(l->items[0].string));
    return value->string != NULL ? KILN_OK : kiln_mil_no_memory(b, l->at, err);
}

/* ---- from files ----------------------------------------------------------------------------- */

/* The payload may lie at any address. */
static void widen(float *restrict out, const void *payload, size_t n, enum kiln_blob_type type) {
    const unsigned char *bytes = payload;
    switch (type) {
        case KILN_BLOB_FP16:
            for (size_t i = 0; i < n; i++) {
                uint16_t half;
                memcpy(&half, bytes + 2 * i, sizeof half);
                out[i] = kiln_f16_to_f32(half);
            }
            break;
        case KILN_BLOB_FP32:
            memcpy(out, payload, n * sizeof *out);
            break;
        case KILN_BLOB_UINT8:
            for (size_t i = 0; i < n; i++) {
                out[i] = (float)bytes[i];
            }
            break;
        case KILN_BLOB_INT8:
            for (size_t i = 0; i < n; i++) {
                out[i] = (float)(int8_t)bytes[i];
            }
            break;
    }
}

static const struct {
    enum kiln_mil_scalar scalar;
    enum kiln_blob_type blob;
} kept[] = {
    {KILN_MIL_FP16, KILN_BLOB_FP16},
    {KILN_MIL_FP32, KILN_BLOB_FP32},
    {KILN_MIL_UINT8, KILN_BLOB_UINT8},
    {KILN_MIL_INT8, KILN_BLOB_INT8},
};

static const char *blob_type_name(enum kiln_blob_type type) {
    return kiln_mil_scalar_name(kept[type - 1].scalar);
}

static enum kiln_status check_blob(const struct kiln_mil_builder *b,
                                   const struct kiln_mil_literal *l, const struct kiln_blob *blob,
                                   struct kiln_err *err) {
    char text[160];
    bool can = false, same = false;
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        can |= kept[i].scalar == l->type.scalar;
        same |= kept[i].scalar == l->type.scalar && kept[i].blob == blob->type;
    }
    if (!can || !same) {
        return KILN_MIL_FAIL(err, b->name, l->at,
                             "expected %s in %s at offset %" PRIu64 ", found %s",
                             can ? kiln_mil_scalar_name(l->type.scalar)
                                 : "fp16, fp32, int8 or uint8, which files can hold,",
                             l->path, l->offset,
                             can ? blob_type_name(blob->type) : kiln_mil_type_text(&l->type, text));
    }
    const size_t bytes = kiln_mil_elements(&l->type) * kiln_mil_scalar_bytes(l->type.scalar);
    if (blob->bytes != bytes) {
        return KILN_MIL_FAIL(
            err, b->name, l->at,
            "expected %zu payload bytes for %s in %s at offset %" PRIu64 ", found %" PRIu64, bytes,
            kiln_mil_type_text(&l->type, text), l->path, l->offset, blob->bytes);
    }
    return KILN_OK;
}

static enum kiln_status fill_from_file(struct kiln_mil_builder *b, const struct kiln_mil_literal *l,
                                       struct kiln_mil_value *value, struct kiln_err *err) {
    size_t bytes = 0;
    struct kiln_blob blob;
    struct kiln_err cause;
    const void *file = b->files != NULL ? b->files(b->context, l->path, &bytes) : NULL;
    if (file == NULL) {
        return KILN_MIL_FAIL(err, b->name, l->at, "expected a weight file %.200s, found none",
                             l->path);
    }
    if (kiln_blob_read(l->path, file, bytes, l->offset, &blob, &cause) != KILN_OK) {
        return KILN_MIL_FAIL(err, b->name, l->at, "%.480s", cause.message);
    }
    KILN_TRY(check_blob(b, l, &blob, err));
    const size_t n = kiln_mil_elements(&l->type);
    value->data = kiln_mil_take(b->memory, n, sizeof *value->data);
    value->file = kiln_mil_copy(b->memory, l->path, strlen(l->path));
    if (value->data == NULL || value->file == NULL) {
        return kiln_mil_no_memory(b, l->at, err);
    }
    value->offset = l->offset;
    widen(value->data, blob.payload, n, blob.type);
    return KILN_OK;
}

enum kiln_status kiln_mil_fill(struct kiln_mil_builder *b, const struct kiln_mil_literal *literal,
                               struct kiln_mil_value *value, struct kiln_err *err) {
    value->constant = true;
    if (literal->path != NULL) {
        return fill_from_file(b, literal, value, err);
    }
    return literal->type.scalar == KILN_MIL_STRING ? fill_string(b, literal, value, err)
                                                   : fill_from_text(b, literal, value, err);
}

/* ---- dequantized ---------------------------------------------------------------------------- */

/* The parameter of an element: one number, or one for each index of the axis. */
static enum kiln_status check_scale(struct kiln_mil_call *c, const char *name,
                                    const struct kiln_mil_value *value, size_t along) {
    if (value->type.rank > 1 ||
        (value->type.rank == 1 && value->type.dims[0] != along && value->type.dims[0] != 1)) {
        char text[160];
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, name),
                                  "%s: expected a number, or %zu of them along the axis, found %s",
                                  name, along, kiln_mil_type_text(&value->type, text));
    }
    return KILN_OK;
}

enum kiln_status kiln_mil_dequantize_constant(struct kiln_mil_call *c, struct kiln_mil_value *out) {
    const struct kiln_mil_value *q, *scale, *zero;
    int64_t written = 0;
    size_t axis = 0;
    KILN_TRY(kiln_mil_check_names(c, "quantized_data scale zero_point axis?"));
    KILN_TRY(kiln_mil_constant(c, "quantized_data", &q));
    KILN_TRY(kiln_mil_constant(c, "scale", &scale));
    KILN_TRY(kiln_mil_constant(c, "zero_point", &zero));
    KILN_TRY(kiln_mil_integer(c, "axis", &written));
    if ((q->type.scalar != KILN_MIL_INT8 && q->type.scalar != KILN_MIL_UINT8) ||
        zero->type.scalar != q->type.scalar || !is_float(scale->type.scalar)) {
        return KILN_MIL_CALL_FAIL(c, c->s->at,
                                  "expected quantized_data and zero_point of one of int8 and uint8 "
                                  "and scale of fp16 or fp32, found %s, %s and %s",
                                  kiln_mil_scalar_name(q->type.scalar),
                                  kiln_mil_scalar_name(zero->type.scalar),
                                  kiln_mil_scalar_name(scale->type.scalar));
    }
    if (q->type.rank > 0) {
        KILN_TRY(kiln_mil_axis(c, "axis", written, q->type.rank, &axis));
    }
    const size_t along = q->type.rank > 0 ? q->type.dims[axis] : 1;
    KILN_TRY(check_scale(c, "scale", scale, along));
    KILN_TRY(check_scale(c, "zero_point", zero, along));
    size_t behind = 1; /* elements from one index of the axis to the next */
    for (size_t i = axis + 1; i < q->type.rank; i++) {
        behind *= q->type.dims[i];
    }
    const size_t n = kiln_mil_elements(&q->type);
    const size_t n_scale = kiln_mil_elements(&scale->type), n_zero = kiln_mil_elements(&zero->type);
    float *data = kiln_mil_take(c->b->memory, n, sizeof *data);
    if (data == NULL) {
        return kiln_mil_no_memory(c->b, c->s->at, c->err);
    }
    const bool half = scale->type.scalar == KILN_MIL_FP16;
    for (size_t i = 0; i < n; i++) {
        const size_t at = i / behind % along;
        const double whole = (double)q->data[i] - (double)zero->data[n_zero > 1 ? at : 0];
        const double exact = whole * (double)scale->data[n_scale > 1 ? at : 0];
        data[i] = half ? kiln_f16_to_f32(kiln_f64_to_f16(exact)) : (float)exact;
    }
    c->out[0] = q->type;
    c->out[0].scalar = scale->type.scalar;
    out->constant = true;
    out->data = data;
    out->file = q->file;
    out->offset = q->offset;
    return KILN_OK;
}
