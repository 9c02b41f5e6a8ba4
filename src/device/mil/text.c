/* SPDX-License-Identifier: MIT */
#include "device/mil/text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "device/mil/half.h"

#define INDENT "        "

/* Constants that many statements share: written in front of the first that needs them. */
enum shared {
    SHARED_YES = 1,
    SHARED_NO = 2,
    SHARED_CONV = 4,
    SHARED_SWAP = 8,
    SHARED_AXIS = 16, /* << axis */
};

static bool grow(struct kiln_mil_text *text, size_t more) {
    size_t room = text->room ? text->room : 8192;
    while (room < text->size + more + 1) {
        room *= 2;
    }
    if (room == text->room) {
        return true;
    }
    char *data = kiln_realloc(text->data, text->room, room, 1);
    if (!data) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->room = room;
    return true;
}

static void vput(struct kiln_mil_text *text, const char *fmt, va_list list) {
    if (text->dry || text->failed) {
        return;
    }
    va_list again;
    va_copy(again, list);
    int length = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (length >= 0 && grow(text, (size_t)length)) {
        vsnprintf(text->data + text->size, text->room - text->size, fmt, list);
        text->size += (size_t)length;
    }
}

static void put(struct kiln_mil_text *text, const char *fmt, ...) KILN_PRINTF(2, 3);
static void put(struct kiln_mil_text *text, const char *fmt, ...) {
    va_list list;
    va_start(list, fmt);
    vput(text, fmt, list);
    va_end(list);
}

static struct kiln_mil_ref ref(const char *name, const size_t dims[KILN_MIL_AXES]) {
    struct kiln_mil_ref out;
    assert(strlen(name) < sizeof out.name);
    snprintf(out.name, sizeof out.name, "%s", name);
    memcpy(out.dims, dims, sizeof out.dims);
    return out;
}

static void put_type(struct kiln_mil_text *text, const size_t dims[KILN_MIL_AXES]) {
    put(text, "tensor<fp16, [%zu, %zu, %zu, %zu]>", dims[0], dims[1], dims[2], dims[3]);
}

/* "tensor<...> name = op(arguments)[name = string("name")];" */
static struct kiln_mil_ref statement(struct kiln_mil_text *text, const char *name,
                                     const size_t dims[KILN_MIL_AXES], const char *op,
                                     const char *fmt, ...) KILN_PRINTF(5, 6);
static struct kiln_mil_ref statement(struct kiln_mil_text *text, const char *name,
                                     const size_t dims[KILN_MIL_AXES], const char *op,
                                     const char *fmt, ...) {
    va_list list;
    va_start(list, fmt);
    put(text, INDENT);
    put_type(text, dims);
    put(text, " %s = %s(", name, op);
    vput(text, fmt, list);
    put(text, ")[name = string(\"%s%s\")];\n", name, text->mark);
    va_end(list);
    return ref(name, dims);
}

static void put_const(struct kiln_mil_text *text, const char *type, const char *name,
                      const char *value) {
    put(text, INDENT "%s %s = const()[name = string(\"%s\"), val = %s(%s)];\n", type, name, name,
        type, value);
}

/* A list of integers, called NAME_WHAT. */
static void put_list(struct kiln_mil_text *text, const char *name, const char *what,
                     const size_t dims[KILN_MIL_AXES]) {
    char full[48], values[96];
    snprintf(full, sizeof full, "%s_%s", name, what);
    snprintf(values, sizeof values, "[%zu, %zu, %zu, %zu]", dims[0], dims[1], dims[2], dims[3]);
    put_const(text, "tensor<int32, [4]>", full, values);
}

/* Is this the first time that a shared constant is needed? */
static bool first_use(struct kiln_mil_text *text, unsigned bit) {
    bool first = !(text->constants & bit);
    text->constants |= bit;
    return first;
}

static const char *flag(struct kiln_mil_text *text, bool value) {
    if (first_use(text, value ? SHARED_YES : SHARED_NO)) {
        put_const(text, "bool", value ? "yes" : "no", value ? "true" : "false");
    }
    return value ? "yes" : "no";
}

static const char *axis_name(struct kiln_mil_text *text, size_t axis) {
    static const char *const names[] = {"axis_0", "axis_1", "axis_2", "axis_last"};
    static const char *const values[] = {"0", "1", "2", "-1"};
    assert(axis < KILN_MIL_AXES);
    if (first_use(text, (unsigned)SHARED_AXIS << axis)) {
        put_const(text, "int32", names[axis], values[axis]);
    }
    return names[axis];
}

void kiln_mil_text_open(struct kiln_mil_text *text, const char *version, const char *opset,
                        uint64_t serial) {
    snprintf(text->opset, sizeof text->opset, "%s", opset);
    if (serial) {
        snprintf(text->mark, sizeof text->mark, "_%" PRIu64, serial);
    }
    put(text,
        "program(%s)\n"
        "[buildInfo = dict<string, string>({{\"coremlc-component-MIL\", \"3510.2.1\"}, "
        "{\"coremlc-version\", \"3505.4.1\"}, {\"coremltools-component-milinternal\", \"\"}, "
        "{\"coremltools-version\", \"9.0\"}})]\n"
        "{\n",
        version);
}

enum kiln_status kiln_mil_text_close(struct kiln_mil_text *text, struct kiln_mil_ref output,
                                     struct kiln_err *err) {
    put(text, "    } -> (%s);\n}\n", output.name);
    if (text->failed) {
        size_t size = text->size;
        kiln_free(text->data);
        memset(text, 0, sizeof *text);
        return KILN_FAIL(err, KILN_ENOMEM, "MIL text: no memory for more than %zu bytes", size);
    }
    return KILN_OK;
}

void kiln_mil_put_comment(struct kiln_mil_text *text, const char *fmt, ...) {
    va_list list;
    va_start(list, fmt);
    put(text, "    // ");
    vput(text, fmt, list);
    put(text, "\n");
    va_end(list);
}

struct kiln_mil_ref kiln_mil_put_input(struct kiln_mil_text *text, const char *name,
                                       const size_t dims[KILN_MIL_AXES]) {
    put(text, "    func main<%s>(", text->opset);
    put_type(text, dims);
    put(text, " %s) {\n", name);
    return ref(name, dims);
}

struct kiln_mil_ref kiln_mil_put_number(struct kiln_mil_text *text, const char *name,
                                        double value) {
    char number[40];
    snprintf(number, sizeof number, "%a", (double)kiln_f16_to_f32(kiln_f64_to_f16(value)));
    put_const(text, "fp16", name, number);
    return ref(name, (size_t[KILN_MIL_AXES]){0});
}

struct kiln_mil_ref kiln_mil_put_file(struct kiln_mil_text *text, const char *name,
                                      const size_t dims[KILN_MIL_AXES]) {
    put(text, INDENT);
    put_type(text, dims);
    put(text, " %s = const()[name = string(\"%s\"), val = ", name, name);
    put_type(text, dims);
    put(text, "(BLOBFILE(path = string(\"@model_path/weights/%s.bin\"), offset = uint64(64)))];\n",
        name);
    return ref(name, dims);
}

struct kiln_mil_ref kiln_mil_put_conv(struct kiln_mil_text *text, const char *name,
                                      struct kiln_mil_ref x, struct kiln_mil_ref weight) {
    assert(weight.dims[1] == x.dims[1] && weight.dims[2] == 1 && weight.dims[3] == 1);
    if (first_use(text, SHARED_CONV)) {
        put_const(text, "string", "conv_pad_type", "\"valid\"");
        put_const(text, "tensor<int32, [2]>", "conv_strides", "[1, 1]");
        put_const(text, "tensor<int32, [4]>", "conv_pad", "[0, 0, 0, 0]");
        put_const(text, "tensor<int32, [2]>", "conv_dilations", "[1, 1]");
        put_const(text, "int32", "conv_groups", "1");
    }
    return statement(text, name,
                     (size_t[KILN_MIL_AXES]){x.dims[0], weight.dims[0], x.dims[2], x.dims[3]},
                     "conv",
                     "dilations = conv_dilations, groups = conv_groups, pad = conv_pad, "
                     "pad_type = conv_pad_type, strides = conv_strides, weight = %s, x = %s",
                     weight.name, x.name);
}

struct kiln_mil_ref kiln_mil_put_matmul(struct kiln_mil_text *text, const char *name,
                                        struct kiln_mil_ref x, bool transpose_x,
                                        struct kiln_mil_ref y, bool transpose_y) {
    assert(x.dims[0] == y.dims[0] && x.dims[1] == y.dims[1]);
    assert(x.dims[transpose_x ? 2 : 3] == y.dims[transpose_y ? 3 : 2]);
    const char *x_flag = flag(text, transpose_x), *y_flag = flag(text, transpose_y);
    return statement(text, name,
                     (size_t[KILN_MIL_AXES]){x.dims[0], x.dims[1], x.dims[transpose_x ? 3 : 2],
                                             y.dims[transpose_y ? 2 : 3]},
                     "matmul", "transpose_x = %s, transpose_y = %s, x = %s, y = %s", x_flag, y_flag,
                     x.name, y.name);
}

struct kiln_mil_ref kiln_mil_put_pair(struct kiln_mil_text *text, const char *name, const char *op,
                                      struct kiln_mil_ref x, struct kiln_mil_ref y) {
    size_t dims[KILN_MIL_AXES];
    for (size_t i = 0; i < KILN_MIL_AXES; i++) {
        assert(x.dims[i] == y.dims[i] || x.dims[i] <= 1 || y.dims[i] <= 1);
        dims[i] = x.dims[i] > y.dims[i] ? x.dims[i] : y.dims[i];
    }
    return statement(text, name, dims, op, "x = %s, y = %s", x.name, y.name);
}

struct kiln_mil_ref kiln_mil_put_unary(struct kiln_mil_text *text, const char *name, const char *op,
                                       struct kiln_mil_ref x) {
    return statement(text, name, x.dims, op, "x = %s", x.name);
}

struct kiln_mil_ref kiln_mil_put_softmax(struct kiln_mil_text *text, const char *name,
                                         struct kiln_mil_ref x, size_t axis) {
    const char *which = axis_name(text, axis);
    return statement(text, name, x.dims, "softmax", "axis = %s, x = %s", which, x.name);
}

struct kiln_mil_ref kiln_mil_put_reduce_sum(struct kiln_mil_text *text, const char *name,
                                            struct kiln_mil_ref x, size_t axis) {
    char axes[48], value[8];
    assert(axis < KILN_MIL_AXES);
    const char *keep = flag(text, true);
    snprintf(axes, sizeof axes, "%s_axes", name);
    snprintf(value, sizeof value, "[%d]", axis == KILN_MIL_AXES - 1 ? -1 : (int)axis);
    put_const(text, "tensor<int32, [1]>", axes, value);
    x.dims[axis] = 1;
    return statement(text, name, x.dims, "reduce_sum", "axes = %s, keep_dims = %s, x = %s", axes,
                     keep, x.name);
}

struct kiln_mil_ref kiln_mil_put_reshape(struct kiln_mil_text *text, const char *name,
                                         struct kiln_mil_ref x, const size_t dims[KILN_MIL_AXES]) {
    assert(x.dims[0] * x.dims[1] * x.dims[2] * x.dims[3] == dims[0] * dims[1] * dims[2] * dims[3]);
    if (memcmp(x.dims, dims, sizeof x.dims) == 0) {
        return x;
    }
    put_list(text, name, "shape", dims);
    return statement(text, name, dims, "reshape", "shape = %s_shape, x = %s", name, x.name);
}

struct kiln_mil_ref kiln_mil_put_transpose(struct kiln_mil_text *text, const char *name,
                                           struct kiln_mil_ref x) {
    if (first_use(text, SHARED_SWAP)) {
        put_const(text, "tensor<int32, [4]>", "swap_last", "[0, 1, 3, 2]");
    }
    return statement(text, name,
                     (size_t[KILN_MIL_AXES]){x.dims[0], x.dims[1], x.dims[3], x.dims[2]},
                     "transpose", "perm = swap_last, x = %s", x.name);
}

struct kiln_mil_ref kiln_mil_put_slice(struct kiln_mil_text *text, const char *name,
                                       struct kiln_mil_ref x, size_t axis, size_t begin,
                                       size_t size) {
    size_t from[KILN_MIL_AXES] = {0};
    assert(begin + size <= x.dims[axis]);
    from[axis] = begin;
    x.dims[axis] = size;
    put_list(text, name, "begin", from);
    put_list(text, name, "size", x.dims);
    return statement(text, name, x.dims, "slice_by_size",
                     "begin = %s_begin, size = %s_size, x = %s", name, name, x.name);
}

struct kiln_mil_ref kiln_mil_put_concat(struct kiln_mil_text *text, const char *name, size_t axis,
                                        const struct kiln_mil_ref *values, size_t n) {
    char list[256];
    size_t used = 0;
    struct kiln_mil_ref sum = values[0];
    const char *which = axis_name(text, axis), *interleave = flag(text, false);
    sum.dims[axis] = 0;
    for (size_t i = 0; i < n; i++) {
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "",
                                 values[i].name);
        assert(used < sizeof list);
        sum.dims[axis] += values[i].dims[axis];
    }
    return statement(text, name, sum.dims, "concat", "axis = %s, interleave = %s, values = (%s)",
                     which, interleave, list);
}
