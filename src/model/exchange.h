/* SPDX-License-Identifier: MIT
 *
 * exchange.h: what formats share that store tensors by name: names to roles and back, the order of
 * rows, and the numbers' way in and out.
 *
 * RoPE turns pairs. kiln, llama2.c and GGUF's "llama" have the two of a pair side by side, rows 2i
 * and 2i+1 of a head; Hugging Face and GGUF's "qwen2", "qwen3" have them half a head apart, i and
 * i + K/2. Whatever meets RoPE has its rows so: wq, wk, their biases, the norms of heads. The
 * scores do not change, as q and k are ordered alike.
 */
#ifndef KILN_MODEL_EXCHANGE_H
#define KILN_MODEL_EXCHANGE_H

#include "model/checkpoint.h"

/* Names of a format by role: "" where it has none, %zu where the layer's number stands. */
typedef const char *const kiln_names[KILN_ROLES];

/* The role and layer of a name (size bytes); false when the format has no such name. */
bool kiln_names_find(kiln_names names, const char *name, size_t size, enum kiln_role *role,
                     size_t *layer);
/* The name of a tensor, at most 63 bytes. */
void kiln_names_of(kiln_names names, const struct kiln_tensor *tensor, char out[64]);

/* Where the tensors of an opened file lie, by the order of a table of its dims. */
struct kiln_exchange {
    struct kiln_table *table;
    struct kiln_exchange_tensor {
        const unsigned char *data; /* in a map; NULL: not found yet */
        enum kiln_dtype dtype;
    } * tensors; /* [table->n_tensors] */
    bool halves; /* the pairs of RoPE are half a head apart */
};
KILN_MUST_CHECK enum kiln_status kiln_exchange_open(struct kiln_exchange *exchange,
                                                    const struct kiln_dims *dims, bool halves,
                                                    struct kiln_err *err);
void kiln_exchange_close(struct kiln_exchange *exchange);
/* Take a found tensor in: shape as in PyTorch (outermost first). KILN_EINPUT, with path, when the
 * name is unknown, the layer beyond the model, the shape not the table's, the tensor there
 * already, or a dtype none that kiln reads (type_name tells it). */
struct kiln_found {
    const char *name;
    size_t name_size;
    bool known; /* dtype is one of ours */
    enum kiln_dtype dtype;
    const char *type_name;
    size_t rank;
    const size_t *shape;
    const unsigned char *data;
};
KILN_MUST_CHECK enum kiln_status kiln_exchange_take(struct kiln_exchange *exchange,
                                                    kiln_names names, const char *path,
                                                    const struct kiln_found *found,
                                                    struct kiln_err *err);
/* All tensors are there, or KILN_EINPUT names the first that is not. */
KILN_MUST_CHECK enum kiln_status kiln_exchange_complete(const struct kiln_exchange *exchange,
                                                        kiln_names names, const char *path,
                                                        struct kiln_err *err);
/* How a tensor, of any table of the same tensors, lies in the file. */
enum kiln_dtype kiln_exchange_dtype(const struct kiln_exchange *exchange,
                                    const struct kiln_tensor *tensor);
/* Fill the flat array of a table of the same tensors. */
KILN_MUST_CHECK enum kiln_status kiln_exchange_load(const struct kiln_exchange *exchange,
                                                    const struct kiln_checkpoint *checkpoint,
                                                    const struct kiln_table *table, float *weights,
                                                    struct kiln_err *err);

/* One tensor's numbers as a file has them, to where its elements lie. */
void kiln_exchange_read(const struct kiln_dims *dims, bool halves, const struct kiln_tensor *tensor,
                        enum kiln_dtype dtype, const unsigned char *data, float *to);

/* Where bytes of a file go. */
struct kiln_sink {
    enum kiln_status (*write)(void *context, const void *data, size_t size, struct kiln_err *err);
    void *context;
};
/* Give a tensor out, row by row, in the order of the format. KILN_EUNSUPPORTED names the tensor
 * when a number is beyond the dtype's largest. Of Q8_0, rows are multiples of KILN_Q8_BLOCK. */
KILN_MUST_CHECK enum kiln_status kiln_exchange_write(const struct kiln_dims *dims, bool halves,
                                                     const struct kiln_tensor *tensor,
                                                     const float *weights, enum kiln_dtype dtype,
                                                     const struct kiln_sink *sink,
                                                     struct kiln_err *err);

#endif
