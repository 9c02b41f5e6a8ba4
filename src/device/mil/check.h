/* SPDX-License-Identifier: MIT
 *
 * check.h: names, constants, shapes: statements become values and nodes of a graph.
 */
#ifndef KILN_DEVICE_MIL_CHECK_H
#define KILN_DEVICE_MIL_CHECK_H

#include "device/mil/statement.h"
#include "device/mil/store.h"

/* A graph that grows. */
struct kiln_mil_builder {
    const char *name; /* of the text */
    kiln_mil_file_fn *files;
    void *context;
    struct kiln_mil_graph *graph;
    struct kiln_mil_store *memory; /* the graph's */
    size_t room_values, room_nodes, room_inputs, room_outputs;
    size_t *slots, n_slots; /* names to values: hash table, SIZE_MAX where empty */
};

KILN_MUST_CHECK enum kiln_status kiln_mil_build_parameter(struct kiln_mil_builder *b,
                                                          const struct kiln_mil_declared *parameter,
                                                          struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_mil_build_statement(struct kiln_mil_builder *b,
                                                          const struct kiln_mil_statement *s,
                                                          struct kiln_err *err);
/* A result of the function. */
KILN_MUST_CHECK enum kiln_status kiln_mil_build_output(struct kiln_mil_builder *b, const char *name,
                                                       struct kiln_mil_at at, struct kiln_err *err);
void kiln_mil_build_end(struct kiln_mil_builder *b);

/* ---- for arguments (args.c) and operations (infer*.c) ---------------------------------------- */

/* The value of that name, SIZE_MAX when there is none. */
size_t kiln_mil_find(const struct kiln_mil_builder *b, const char *name);
/* Add a value; a name that exists already fails. NULL name: one without. */
KILN_MUST_CHECK enum kiln_status kiln_mil_add_value(struct kiln_mil_builder *b, const char *name,
                                                    struct kiln_mil_at at,
                                                    const struct kiln_mil_type *type, size_t *index,
                                                    struct kiln_err *err);
/* Give a value the contents of a literal, which must have the value's type. */
KILN_MUST_CHECK enum kiln_status kiln_mil_fill(struct kiln_mil_builder *b,
                                               const struct kiln_mil_literal *literal,
                                               struct kiln_mil_value *value, struct kiln_err *err);
bool kiln_mil_same_type(const struct kiln_mil_type *a, const struct kiln_mil_type *b);

/* An operation whose arguments are being read and whose results are being derived. */
struct kiln_mil_call {
    struct kiln_mil_builder *b;
    const struct kiln_mil_statement *s;
    struct kiln_mil_node *node;
    size_t n_out;
    struct kiln_mil_type *out; /* [n_out] what it gives */
    struct kiln_err *err;
};

/* Elements of a list of integers: conv's pad has two an axis. */
enum { KILN_MIL_LIST = 2 * KILN_MIL_RANK };

#define KILN_MIL_CALL_FAIL(c, at, fmt, ...) \
    KILN_MIL_FAIL((c)->err, (c)->b->name, (at), "%s: " fmt, (c)->s->op, ##__VA_ARGS__)
/* Out of memory, at the statement. */
enum kiln_status kiln_mil_no_memory(const struct kiln_mil_builder *b, struct kiln_mil_at at,
                                    struct kiln_err *err);

/* Every argument has a name of `names` ("x weight bias?": ? may be missing) and none is missing
 * or there twice. For constants attributes count as arguments. */
KILN_MUST_CHECK enum kiln_status kiln_mil_check_names(const struct kiln_mil_call *c,
                                                      const char *names);
/* An argument, or NULL. */
const struct kiln_mil_arg *kiln_mil_arg(const struct kiln_mil_call *c, const char *name);
/* A tensor: its value goes to node->in[slot] (SIZE_MAX when it is absent: *type is NULL then). */
KILN_MUST_CHECK enum kiln_status kiln_mil_tensor(struct kiln_mil_call *c, const char *name,
                                                 size_t slot, const struct kiln_mil_type **type);
/* The value that an argument names or spells. */
KILN_MUST_CHECK enum kiln_status kiln_mil_resolve(struct kiln_mil_call *c,
                                                  const struct kiln_mil_arg *arg, size_t *index);
/* The same, which must be a constant. NULL: absent. */
KILN_MUST_CHECK enum kiln_status kiln_mil_constant(struct kiln_mil_call *c, const char *name,
                                                   const struct kiln_mil_value **value);
/* Constants of a kind. What is absent leaves the caller's value. *n is what a list has; it is left
 * alone too. */
KILN_MUST_CHECK enum kiln_status kiln_mil_integer(struct kiln_mil_call *c, const char *name,
                                                  int64_t *value);
KILN_MUST_CHECK enum kiln_status kiln_mil_integers(struct kiln_mil_call *c, const char *name,
                                                   int64_t values[KILN_MIL_LIST], size_t *n);
KILN_MUST_CHECK enum kiln_status kiln_mil_flag(struct kiln_mil_call *c, const char *name,
                                               bool *value);
KILN_MUST_CHECK enum kiln_status kiln_mil_real(struct kiln_mil_call *c, const char *name,
                                               double *value);
KILN_MUST_CHECK enum kiln_status kiln_mil_word(struct kiln_mil_call *c, const char *name,
                                               const char **value);
/* Where an argument stands, or the operation when it is absent. */
struct kiln_mil_at kiln_mil_place(const struct kiln_mil_call *c, const char *name);
/* -rank..rank-1 to 0..rank-1. */
KILN_MUST_CHECK enum kiln_status kiln_mil_axis(struct kiln_mil_call *c, const char *name,
                                               int64_t axis, size_t rank, size_t *out);

/* Fill c->node and c->out from the arguments: all operations but const and constexpr_*. */
KILN_MUST_CHECK enum kiln_status kiln_mil_infer(struct kiln_mil_call *c, enum kiln_mil_op op);
/* Products (infer_product.c), called by it. */
KILN_MUST_CHECK enum kiln_status kiln_mil_infer_conv(struct kiln_mil_call *c);
KILN_MUST_CHECK enum kiln_status kiln_mil_infer_matmul(struct kiln_mil_call *c);
KILN_MUST_CHECK enum kiln_status kiln_mil_infer_sdpa(struct kiln_mil_call *c);
/* Layout (infer_layout.c). */
KILN_MUST_CHECK enum kiln_status kiln_mil_infer_transpose(struct kiln_mil_call *c);
KILN_MUST_CHECK enum kiln_status kiln_mil_infer_reshape(struct kiln_mil_call *c);
KILN_MUST_CHECK enum kiln_status kiln_mil_infer_slice_by_size(struct kiln_mil_call *c);
KILN_MUST_CHECK enum kiln_status kiln_mil_infer_slice_by_index(struct kiln_mil_call *c);
KILN_MUST_CHECK enum kiln_status kiln_mil_infer_concat(struct kiln_mil_call *c);
KILN_MUST_CHECK enum kiln_status kiln_mil_infer_split(struct kiln_mil_call *c);
/* NumPy's broadcasting of two shapes. False: they do not fit. */
bool kiln_mil_broadcast(const size_t *a, size_t rank_a, const size_t *b, size_t rank_b, size_t *out,
                        size_t *rank);
/* The element count, or a failure when it overflows. */
KILN_MUST_CHECK bool kiln_mil_count(const struct kiln_mil_type *type, size_t *elements);
/* constexpr_affine_dequantize: fills a constant value. */
KILN_MUST_CHECK enum kiln_status kiln_mil_dequantize_constant(struct kiln_mil_call *c,
                                                              struct kiln_mil_value *out);

#endif
