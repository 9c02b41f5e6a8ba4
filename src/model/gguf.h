/* SPDX-License-Identifier: MIT
 *
 * gguf.h: the container of llama.cpp's models: typed key/values and tensors in one file. What a
 * model's keys and tensors mean is gguf_model.c's; those of a tokenizer are src/text's.
 *
 *   "GGUF"  u32 version  u64 tensors  u64 key/values
 *   key/values:    string key, u32 type, value
 *   tensor infos:  string name, u32 rank, u64 shape[rank], u32 type, u64 offset
 *   zeros up to a multiple of the alignment ("general.alignment", 32 when it is absent)
 *   data of each tensor, each up to a multiple of the alignment
 *
 * A string is u64 bytes and the bytes; an array is u32 type, u64 elements and the elements. All is
 * little-endian; offsets count from the beginning of the data. Shapes are written with the extent
 * whose elements lie side by side first: a matrix [rows, cols] of ours is {cols, rows} there.
 * Specification: docs/gguf.md of the ggml repository.
 */
#ifndef KILN_MODEL_GGUF_H
#define KILN_MODEL_GGUF_H

#include <stdbool.h>

#include "base/io.h"
#include "kiln/status.h"

/* Types of values, as numbered in the file. */
enum kiln_gguf_type {
    KILN_GGUF_U8,
    KILN_GGUF_I8,
    KILN_GGUF_U16,
    KILN_GGUF_I16,
    KILN_GGUF_U32,
    KILN_GGUF_I32,
    KILN_GGUF_F32,
    KILN_GGUF_BOOL, /* one byte, 0 or 1 */
    KILN_GGUF_STRING,
    KILN_GGUF_ARRAY, /* never the type of a value below: its elements' is */
    KILN_GGUF_U64,
    KILN_GGUF_I64,
    KILN_GGUF_F64,
    KILN_GGUF_TYPES
};
/* "u32", for messages; "?" beyond the list. */
const char *kiln_gguf_type_name(enum kiln_gguf_type type);

/* Bytes that need not end with a zero, and may hold some. */
struct kiln_gguf_string {
    const char *data;
    size_t size;
};

/* A key with its value, or with all values of an array. Arrays of arrays are refused: nobody
 * writes them. */
struct kiln_gguf_pair {
    struct kiln_gguf_string key;
    enum kiln_gguf_type type; /* of the value, or of the elements of an array */
    bool array;
    size_t n;            /* elements; 1 when it is no array */
    const void *numbers; /* n of them as in the file, not aligned; NULL for strings */
    const struct kiln_gguf_string *strings; /* [n]; NULL for numbers */
};

/* ---- reading -------------------------------------------------------------------------------- */

/* Types of tensors that kiln reads and writes, as numbered in the file; others have a name. */
enum {
    KILN_GGML_F32 = 0,
    KILN_GGML_F16 = 1,
    KILN_GGML_Q8_0 = 8, /* blocks of 32: fp16 scale d, 32 int8 q; values d*q */
    KILN_GGML_BF16 = 30,
};
/* "Q4_K" of a type's number, NULL when kiln has never heard of it. */
const char *kiln_ggml_type_name(uint32_t type);
/* Bytes of n elements in a row; false when the type is unknown or n is no whole number of blocks
 * of it, or the product is beyond size_t. */
bool kiln_ggml_row_bytes(uint32_t type, size_t n, size_t *bytes);

#define KILN_GGUF_RANK 4

struct kiln_gguf_tensor {
    struct kiln_gguf_string name;
    uint32_t type;
    size_t rank;
    size_t shape[KILN_GGUF_RANK]; /* innermost first; 1 beyond rank */
    size_t offset, bytes;         /* from the beginning of the data */
};

/* A file opened for reading: everything here was checked against the file's size. */
struct kiln_gguf {
    char *path; /* for messages */
    struct kiln_map map;
    bool owns_map;
    uint32_t version;
    size_t alignment;
    struct kiln_gguf_pair *pairs; /* in the file's order; keys and texts lie in the map */
    size_t n_pairs;
    struct kiln_gguf_tensor *tensors;
    size_t n_tensors;
    size_t data;                      /* where the data begins in the map */
    struct kiln_gguf_string *strings; /* behind pairs[].strings */
};

/* Does it begin as a GGUF file does? */
bool kiln_gguf_recognizes(const struct kiln_map *map);
/* Open a file, versions 2 and 3 (which differ in nothing but that 3 may be big-endian; such a file
 * is refused by name). KILN_EINPUT names what is wrong and where: cut short, counts or lengths that
 * the file cannot hold, unknown types, a key or a tensor twice, shapes beyond size_t, tensors that
 * overlap, leave holes or lie outside of the file. */
KILN_MUST_CHECK enum kiln_status kiln_gguf_open(const char *path, struct kiln_gguf **out,
                                                struct kiln_err *err);
/* The same of a map that stays the caller's and must outlive *out; path for messages. */
KILN_MUST_CHECK enum kiln_status kiln_gguf_open_map(const struct kiln_map *map, const char *path,
                                                    struct kiln_gguf **out, struct kiln_err *err);
void kiln_gguf_close(struct kiln_gguf *gguf);

/* The pair of a key, the tensor of a name; NULL when there is none. */
const struct kiln_gguf_pair *kiln_gguf_find(const struct kiln_gguf *gguf, const char *key);
const struct kiln_gguf_tensor *kiln_gguf_find_tensor(const struct kiln_gguf *gguf,
                                                     const char *name);
const unsigned char *kiln_gguf_data(const struct kiln_gguf *gguf,
                                    const struct kiln_gguf_tensor *tensor);

/* Element i of a pair of numbers (0 of one that is no array), as a double and as an integer. The
 * integer is exact for every integer type; false when the type is none, or it is beyond int64. */
double kiln_gguf_real_at(const struct kiln_gguf_pair *pair, size_t i);
bool kiln_gguf_integer_at(const struct kiln_gguf_pair *pair, size_t i, int64_t *out);

/* The value of a key that must be there with the kind asked for; any integer type counts, any
 * float type for a real. KILN_EINPUT names the key, and what it has instead. */
KILN_MUST_CHECK enum kiln_status kiln_gguf_integer(const struct kiln_gguf *gguf, const char *key,
                                                   int64_t *out, struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_gguf_real(const struct kiln_gguf *gguf, const char *key,
                                                double *out, struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_gguf_flag(const struct kiln_gguf *gguf, const char *key,
                                                bool *out, struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_gguf_text(const struct kiln_gguf *gguf, const char *key,
                                                struct kiln_gguf_string *out, struct kiln_err *err);
/* An array of strings, or of any kind of numbers. */
KILN_MUST_CHECK enum kiln_status kiln_gguf_strings(const struct kiln_gguf *gguf, const char *key,
                                                   const struct kiln_gguf_pair **out,
                                                   struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_gguf_numbers(const struct kiln_gguf *gguf, const char *key,
                                                   const struct kiln_gguf_pair **out,
                                                   struct kiln_err *err);

/* ---- writing -------------------------------------------------------------------------------- */

/* Key/values to write: a list that owns copies of all that is put into it. Start with zeros, end
 * with kiln_gguf_pairs_free. A failed call (KILN_ENOMEM) leaves the list as it was. */
struct kiln_gguf_pairs {
    struct kiln_gguf_pair *pair;
    size_t n, room;
};
KILN_MUST_CHECK enum kiln_status kiln_gguf_put_u32(struct kiln_gguf_pairs *pairs, const char *key,
                                                   uint32_t value, struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_gguf_put_f32(struct kiln_gguf_pairs *pairs, const char *key,
                                                   float value, struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_gguf_put_bool(struct kiln_gguf_pairs *pairs, const char *key,
                                                    bool value, struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_gguf_put_text(struct kiln_gguf_pairs *pairs, const char *key,
                                                    const char *value, struct kiln_err *err);
/* An array of n numbers of a type (not STRING, not ARRAY) that lie side by side at `values`. */
KILN_MUST_CHECK enum kiln_status kiln_gguf_put_numbers(struct kiln_gguf_pairs *pairs,
                                                       const char *key, enum kiln_gguf_type type,
                                                       const void *values, size_t n,
                                                       struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_gguf_put_strings(struct kiln_gguf_pairs *pairs,
                                                       const char *key,
                                                       const struct kiln_gguf_string *values,
                                                       size_t n, struct kiln_err *err);
/* A copy of a pair, e.g. of another file. */
KILN_MUST_CHECK enum kiln_status kiln_gguf_put_pair(struct kiln_gguf_pairs *pairs,
                                                    const struct kiln_gguf_pair *pair,
                                                    struct kiln_err *err);
void kiln_gguf_pairs_free(struct kiln_gguf_pairs *pairs);

/* A file of version 3 being written into a durable one that the caller opens and commits:
 *
 *   kiln_gguf_begin(&writer, &file, pairs, 2, tensors, n_tensors, &err);   everything but the data
 *   for each tensor, in order: kiln_gguf_write(&writer, bytes, size, &err);   in parts of any size
 *   kiln_gguf_end(&writer, &err);   the last padding
 *
 * Of the tensors name, type, rank and shape are read; offset and bytes are set. */
struct kiln_gguf_writer {
    struct kiln_durable *file;
    const struct kiln_gguf_tensor *tensors;
    size_t n_tensors;
    size_t at;      /* the tensor whose data is next */
    size_t written; /* bytes of it */
};
/* `lists` are written one behind the other; a key that two of them hold is KILN_EUSAGE. */
KILN_MUST_CHECK enum kiln_status kiln_gguf_begin(struct kiln_gguf_writer *writer,
                                                 struct kiln_durable *file,
                                                 const struct kiln_gguf_pairs *const *lists,
                                                 size_t n_lists, struct kiln_gguf_tensor *tensors,
                                                 size_t n_tensors, struct kiln_err *err);
/* More bytes of the tensor that is next; never beyond its end. */
KILN_MUST_CHECK enum kiln_status kiln_gguf_write(struct kiln_gguf_writer *writer, const void *data,
                                                 size_t size, struct kiln_err *err);
/* KILN_EINTERNAL when a tensor has not got all its bytes. */
KILN_MUST_CHECK enum kiln_status kiln_gguf_end(struct kiln_gguf_writer *writer,
                                               struct kiln_err *err);

/* Bytes of one number of a type; 0 for STRING, ARRAY and what is none. */
size_t kiln_gguf_type_bytes(enum kiln_gguf_type type);

#endif
