/* SPDX-License-Identifier: MIT
 *
 * safetensors.h: the container of Hugging Face's weights.
 *
 *   u64 N   N bytes of JSON   data of all tensors
 *   {"__metadata__": {"format": "pt"}, "NAME": {"dtype": "F32", "shape": [2, 3],
 *    "data_offsets": [BEGIN, END]}, ...}
 *
 * Little-endian; offsets count from the beginning of the data, of which tensors leave out nothing
 * and share nothing. Specification: README of the safetensors repository.
 */
#ifndef KILN_MODEL_SAFETENSORS_H
#define KILN_MODEL_SAFETENSORS_H

#include "base/io.h"
#include "model/exchange.h"

#define KILN_SAFETENSORS_RANK 8

struct kiln_safetensor {
    const char *name;
    const char *type; /* as the file says: "BF16" */
    bool known;       /* `dtype` is it; otherwise kiln does not read such numbers */
    enum kiln_dtype dtype;
    size_t rank, shape[KILN_SAFETENSORS_RANK];
    size_t begin, end; /* from the beginning of the data */
};

/* A file opened for reading: everything here was checked against the file's size. */
struct kiln_safetensors {
    char *path;
    struct kiln_map map;
    struct json_t *json;             /* names and types lie there */
    struct kiln_safetensor *tensors; /* in the order of their data */
    size_t n;
    size_t data; /* where the data begins in the map */
};
/* KILN_EINPUT names what is wrong: a header beyond the file or beyond 100 MB, JSON that is none or
 * nested too deep, a name twice, shapes beyond size_t, offsets outside of the file, bytes that
 * contradict dtype and shape, tensors that overlap, bytes that belong to none. On failure nothing
 * is left to close. */
KILN_MUST_CHECK enum kiln_status kiln_safetensors_open(struct kiln_safetensors *file,
                                                       const char *path, struct kiln_err *err);
void kiln_safetensors_close(struct kiln_safetensors *file);

/* Write the header of a file that holds n tensors in their order, each named by a function; their
 * data follows. */
enum { KILN_SAFETENSORS_NAME = 128 };
typedef void (*kiln_safetensors_name)(const void *context, const struct kiln_tensor *tensor,
                                      char out[KILN_SAFETENSORS_NAME]);
KILN_MUST_CHECK enum kiln_status kiln_safetensors_begin_named(
    struct kiln_durable *file, const struct kiln_tensor *tensors, size_t n,
    kiln_safetensors_name name, const void *context, enum kiln_dtype dtype, struct kiln_err *err);
/* Write the header of a file that holds all tensors of a table in its order; their data follows. */
KILN_MUST_CHECK enum kiln_status kiln_safetensors_begin(struct kiln_durable *file,
                                                        const struct kiln_table *table,
                                                        kiln_names names, enum kiln_dtype dtype,
                                                        struct kiln_err *err);

#endif
