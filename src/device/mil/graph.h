/* SPDX-License-Identifier: MIT
 *
 * graph.h: a MIL program, read and checked: what it takes, what it computes, what it gives.
 *
 * MIL is the text that Apple's Neural Engine compiler reads (coremltools' "MIL" dialect, program
 * versions 1.0, 1.3 and 1.5). kiln_mil_parse reads the text (mil/parse.c), resolves every name,
 * loads constants from their files (mil/blob.h) and checks ranks, shapes and types of every
 * operation (mil/check.c). What comes out is a list of nodes in order of execution, each value
 * computed once. Nothing here knows a device's limits: those are device/sim/limits.h.
 *
 * Shapes are row-major. Ranks are 0 to 6, one more than the hardware takes, so that its limit is
 * told as such (device/sim/limits.h).
 */
#ifndef KILN_DEVICE_MIL_GRAPH_H
#define KILN_DEVICE_MIL_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

enum { KILN_MIL_RANK = 6 };

enum kiln_mil_scalar {
    KILN_MIL_FP16,
    KILN_MIL_FP32,
    KILN_MIL_INT8,
    KILN_MIL_UINT8,
    KILN_MIL_INT16,
    KILN_MIL_UINT16,
    KILN_MIL_INT32,
    KILN_MIL_UINT64,
    KILN_MIL_BOOL,
    KILN_MIL_STRING,
    KILN_MIL_SCALARS
};
/* "fp16" ...; bytes of an element in a file or on a surface, 0 for strings. */
const char *kiln_mil_scalar_name(enum kiln_mil_scalar scalar);
size_t kiln_mil_scalar_bytes(enum kiln_mil_scalar scalar);

struct kiln_mil_type {
    enum kiln_mil_scalar scalar;
    size_t rank; /* 0: a scalar */
    size_t dims[KILN_MIL_RANK];
};
size_t kiln_mil_elements(const struct kiln_mil_type *type);
/* "tensor<fp16, [1,768,1,256]>" or "fp16"; at most 160 bytes. */
const char *kiln_mil_type_text(const struct kiln_mil_type *type, char buffer[160]);

/* Operations: enumerator, name in the text. */
#define KILN_MIL_OPS(XX)                                           \
    XX(CONST, "const")                                             \
    XX(CONSTEXPR_AFFINE_DEQUANTIZE, "constexpr_affine_dequantize") \
    XX(CONV, "conv")                                               \
    XX(MATMUL, "matmul")                                           \
    XX(SDPA, "scaled_dot_product_attention")                       \
    XX(SOFTMAX, "softmax")                                         \
    XX(LAYER_NORM, "layer_norm")                                   \
    XX(ADD, "add")                                                 \
    XX(SUB, "sub")                                                 \
    XX(MUL, "mul")                                                 \
    XX(REAL_DIV, "real_div")                                       \
    XX(POW, "pow")                                                 \
    XX(MAXIMUM, "maximum")                                         \
    XX(MINIMUM, "minimum")                                         \
    XX(REDUCE_SUM, "reduce_sum")                                   \
    XX(REDUCE_MEAN, "reduce_mean")                                 \
    XX(REDUCE_MAX, "reduce_max")                                   \
    XX(SIGMOID, "sigmoid")                                         \
    XX(TANH, "tanh")                                               \
    XX(EXP, "exp")                                                 \
    XX(LOG, "log")                                                 \
    XX(RELU, "relu")                                               \
    XX(SILU, "silu")                                               \
    XX(GELU, "gelu")                                               \
    XX(SQRT, "sqrt")                                               \
    XX(RSQRT, "rsqrt")                                             \
    XX(IDENTITY, "identity")                                       \
    XX(CAST, "cast")                                               \
    XX(QUANTIZE, "quantize")                                       \
    XX(DEQUANTIZE, "dequantize")                                   \
    XX(SELECT, "select")                                           \
    XX(TRANSPOSE, "transpose")                                     \
    XX(RESHAPE, "reshape")                                         \
    XX(SLICE_BY_SIZE, "slice_by_size")                             \
    XX(SLICE_BY_INDEX, "slice_by_index")                           \
    XX(CONCAT, "concat")                                           \
    XX(SPLIT, "split")

enum kiln_mil_op {
#define KILN_MIL_OP_ID(id, text) KILN_MIL_##id,
    KILN_MIL_OPS(KILN_MIL_OP_ID)
#undef KILN_MIL_OP_ID
        KILN_MIL_OPS_COUNT
};
const char *kiln_mil_op_name(enum kiln_mil_op op);

/* A named value: an input of the function, a constant, or what a node computed. */
struct kiln_mil_value {
    const char *name;
    struct kiln_mil_type type;
    int line, column;        /* where it is declared; from 1 */
    bool constant;           /* const and constexpr_*: data is there before anything runs */
    float *data;             /* of a numeric or bool constant [elements], exactly as declared (a
                              * uint64 or int32 beyond 2^24: see `integers`); NULL otherwise */
    const int64_t *integers; /* of an integer or bool constant that is not from a file */
    const char *string;      /* of a string constant */
    const char *file;        /* of a constant from a blob: its path as written; else NULL */
    uint64_t offset;         /* and its offset */
    size_t node;             /* that computes it; SIZE_MAX: an input or a constant */
};

enum { KILN_MIL_IN = 6 };

/* One statement. `in` are values that are read when it runs, in the order of the operation's
 * tensor parameters; an optional one that is absent is SIZE_MAX:
 *
 *   conv                     x, weight, bias
 *   matmul, add ... minimum  x, y
 *   scaled_dot_product_...   query, key, value, attn_mask
 *   layer_norm               x, gamma, beta
 *   quantize, dequantize     input, scale, zero_point (constants: a number, or one for each
 *                            element of `axis`)
 *   select                   cond, a, b
 *   concat                   values (many: n_in of them)
 *   constexpr_affine_...     none: its value is a constant
 *   others                   x
 *
 * What must be constant (axes, flags, shapes) is resolved into the members below. */
struct kiln_mil_node {
    enum kiln_mil_op op;
    int line, column;
    const char *name; /* its name attribute, or the name of its first value */
    size_t n_in, *in;
    size_t n_out, *out; /* more than one only for split */

    int64_t axis;                  /* softmax, concat, split, (de)quantize; from 0, resolved */
    uint32_t axes;                 /* reduce_*, layer_norm: a bit an axis */
    bool keep_dims;                /* reduce_* */
    bool transpose_x, transpose_y; /* matmul */
    bool flags_inline; /* matmul: a flag was a literal where the hardware wants a named const */
    size_t stride[2], dilation[2], groups; /* conv */
    size_t pad[4];                         /* conv: before and after each axis, resolved */
    size_t perm[KILN_MIL_RANK];            /* transpose */
    size_t begin[KILN_MIL_RANK];           /* slices, resolved: an axis of x each */
    size_t size[KILN_MIL_RANK];  /* slices: elements taken. The output has these axes, less
                                  * those that squeeze_mask drops (they are 1 here) */
    int64_t step[KILN_MIL_RANK]; /* slice_by_index; 1 otherwise */
    bool interleave;             /* concat */
    bool tanh_approximation;     /* gelu */
    double epsilon;              /* layer_norm, log, rsqrt */
};

struct kiln_mil_graph {
    struct kiln_mil_value *values;
    size_t n_values;
    struct kiln_mil_node *nodes; /* constants are values, not nodes */
    size_t n_nodes;
    size_t *inputs, n_inputs;   /* values, in the order of the parameters */
    size_t *outputs, n_outputs; /* values, as listed behind -> */
    char opset[16];             /* "ios18" */
    double version;             /* 1.3 */
    void *memory;               /* what owns all of it */
};

/* Where the files of @model_path/... come from. NULL data: there is no such file. */
typedef const void *kiln_mil_file_fn(void *context, const char *path, size_t *bytes);

/* Read a program. `name` is what errors call the text; data of constants is copied.
 * KILN_EINPUT: "name:line:column: expected ..., found ..."; a blob that is missing, short, or has a
 * wrong magic or offset is named with path, offset and what was found. On success
 * kiln_mil_close. */
KILN_MUST_CHECK enum kiln_status kiln_mil_parse(const char *name, const char *text, size_t bytes,
                                                kiln_mil_file_fn *files, void *context,
                                                struct kiln_mil_graph *out, struct kiln_err *err);
void kiln_mil_close(struct kiln_mil_graph *graph);

#endif
