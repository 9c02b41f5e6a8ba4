/* SPDX-License-Identifier: MIT
 *
 * safetensors.c: see safetensors.h. jansson reads the JSON: it refuses what is nested deeper than
 * 2048, integers beyond 63 bits, and, as asked here, names that are there twice.
 */
#include "model/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/numbers.h"

#define LARGEST_HEADER 100000000 /* of the reference implementation */

/* ---- one tensor ----------------------------------------------------------------------------- */

/* Bytes of a number; kiln reads those with a dtype of its own. */
static const struct {
    const char *name;
    size_t bytes;
    int dtype;
} types[] = {
    {"F32", 4, KILN_DTYPE_F32},
    {"F16", 2, KILN_DTYPE_F16},
    {"BF16", 2, KILN_DTYPE_BF16},
    {"F64", 8, -1},
    {"I64", 8, -1},
    {"U64", 8, -1},
    {"I32", 4, -1},
    {"U32", 4, -1},
    {"I16", 2, -1},
    {"U16", 2, -1},
    {"I8", 1, -1},
    {"U8", 1, -1},
    {"BOOL", 1, -1},
    {"F8_E4M3", 1, -1},
    {"F8_E5M2", 1, -1},
};

struct parser {
    struct kiln_safetensors *file;
    struct kiln_err *err;
};

static enum kiln_status wrong(const struct parser *parser, const char *name, const char *what) {
    return KILN_FAIL(parser->err, KILN_EINPUT, "%s: tensor %.100s: %s; the file is damaged",
                     parser->file->path, name, what);
}

static enum kiln_status read_type(const struct parser *parser, const json_t *value,
                                  struct kiln_safetensor *tensor, size_t *bytes) {
    tensor->type = json_string_value(value);
    if (tensor->type == NULL) {
        return wrong(parser, tensor->name, "its \"dtype\" is no string");
    }
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(tensor->type, types[i].name) == 0) {
            tensor->known = types[i].dtype >= 0;
            tensor->dtype = tensor->known ? (enum kiln_dtype)types[i].dtype : KILN_DTYPE_F32;
            *bytes = types[i].bytes;
            return KILN_OK;
        }
    }
    return KILN_FAIL(parser->err, KILN_EINPUT,
                     "%s: tensor %.100s has dtype %.40s, which kiln does not know; it reads F32, "
                     "F16 and BF16",
                     parser->file->path, tensor->name, tensor->type);
}

static bool size_of(const json_t *value, size_t *out) {
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    *out = (size_t)json_integer_value(value);
    return true;
}

static enum kiln_status read_shape(const struct parser *parser, const json_t *value,
                                   struct kiln_safetensor *tensor, size_t *bytes) {
    if (!json_is_array(value) || json_array_size(value) > KILN_SAFETENSORS_RANK) {
        return wrong(parser, tensor->name, "its \"shape\" is no list of up to 8 extents");
    }
    tensor->rank = json_array_size(value);
    for (size_t i = 0; i < tensor->rank; i++) {
        if (!size_of(json_array_get(value, i), &tensor->shape[i])) {
            return wrong(parser, tensor->name, "an extent of its \"shape\" is no size");
        }
        if (kiln_mul_overflows(*bytes, tensor->shape[i], bytes)) {
            return wrong(parser, tensor->name, "its \"shape\" makes more than 2^64 bytes");
        }
    }
    return KILN_OK;
}

static enum kiln_status read_offsets(const struct parser *parser, const json_t *value,
                                     struct kiln_safetensor *tensor, size_t bytes) {
    const struct kiln_safetensors *file = parser->file;
    const size_t room = file->map.size - file->data;
    if (json_array_size(value) != 2 || !size_of(json_array_get(value, 0), &tensor->begin) ||
        !size_of(json_array_get(value, 1), &tensor->end) || tensor->end < tensor->begin) {
        return wrong(parser, tensor->name, "its \"data_offsets\" are no begin and end");
    }
    KILN_REQUIRE(tensor->end <= room, parser->err, KILN_EINPUT,
                 "%s: tensor %.100s: data_offsets %zu to %zu lie outside of the file, which has "
                 "%zu bytes of data; it is cut short or damaged",
                 file->path, tensor->name, tensor->begin, tensor->end, room);
    KILN_REQUIRE(tensor->end - tensor->begin == bytes, parser->err, KILN_EINPUT,
                 "%s: tensor %.100s: data_offsets %zu to %zu are %zu bytes, dtype %s and shape "
                 "make %zu",
                 file->path, tensor->name, tensor->begin, tensor->end, tensor->end - tensor->begin,
                 tensor->type, bytes);
    return KILN_OK;
}

static enum kiln_status read_tensor(const struct parser *parser, const char *name,
                                    const json_t *entry, struct kiln_safetensor *tensor) {
    size_t bytes = 0;
    tensor->name = name;
    if (!json_is_object(entry)) {
        return wrong(parser, name, "its entry is no object");
    }
    KILN_TRY(read_type(parser, json_object_get(entry, "dtype"), tensor, &bytes));
    KILN_TRY(read_shape(parser, json_object_get(entry, "shape"), tensor, &bytes));
    return read_offsets(parser, json_object_get(entry, "data_offsets"), tensor, bytes);
}

/* ---- the file ------------------------------------------------------------------------------- */

static int by_data(const void *a, const void *b) {
    const struct kiln_safetensor *x = a, *y = b;
    return x->begin != y->begin ? (x->begin > y->begin) - (x->begin < y->begin)
                                : (x->end > y->end) - (x->end < y->end);
}

static enum kiln_status check_order(const struct parser *parser) {
    const struct kiln_safetensors *file = parser->file;
    size_t end = 0;
    for (size_t i = 0; i < file->n; i++) {
        const struct kiln_safetensor *tensor = &file->tensors[i];
        KILN_REQUIRE(tensor->begin >= end, parser->err, KILN_EINPUT,
                     "%s: tensors %.100s and %.100s overlap; the file is damaged", file->path,
                     file->tensors[i - 1].name, tensor->name);
        KILN_REQUIRE(tensor->begin == end, parser->err, KILN_EINPUT,
                     "%s: %zu bytes in front of tensor %.100s belong to no tensor; the file is "
                     "damaged",
                     file->path, tensor->begin - end, tensor->name);
        end = tensor->end;
    }
    KILN_REQUIRE(end == file->map.size - file->data, parser->err, KILN_EINPUT,
                 "%s: %zu bytes behind its last tensor belong to none; the file is damaged",
                 file->path, file->map.size - file->data - end);
    return KILN_OK;
}

static enum kiln_status read_entries(const struct parser *parser) {
    struct kiln_safetensors *file = parser->file;
    const char *name;
    json_t *entry;
    KILN_REQUIRE(json_is_object(file->json), parser->err, KILN_EINPUT,
                 "%s: its header is no JSON object; not a safetensors file", file->path);
    file->tensors = kiln_alloc(json_object_size(file->json), sizeof *file->tensors);
    KILN_REQUIRE(file->tensors != NULL, parser->err, KILN_ENOMEM, "%s: not enough memory",
                 file->path);
    json_object_foreach(file->json, name, entry) {
        if (strcmp(name, "__metadata__") != 0) {
            KILN_TRY(read_tensor(parser, name, entry, &file->tensors[file->n]));
            file->n++;
        }
    }
    qsort(file->tensors, file->n, sizeof *file->tensors, by_data);
    return check_order(parser);
}

static enum kiln_status read_header(const struct parser *parser) {
    struct kiln_safetensors *file = parser->file;
    uint64_t size = 0;
    json_error_t why;
    KILN_REQUIRE(file->map.size >= sizeof size, parser->err, KILN_EINPUT,
                 "%s: %zu bytes are no safetensors file; it is cut short", file->path,
                 file->map.size);
    memcpy(&size, file->map.data, sizeof size);
    KILN_REQUIRE(size <= LARGEST_HEADER && size <= file->map.size - sizeof size, parser->err,
                 KILN_EINPUT,
                 "%s: a header of %llu bytes in a file of %zu; it is cut short, damaged, or no "
                 "safetensors file",
                 file->path, (unsigned long long)size, file->map.size);
    file->data = sizeof size + (size_t)size;
    file->json = json_loadb((const char *)file->map.data + sizeof size, (size_t)size,
                            JSON_REJECT_DUPLICATES, &why);
    KILN_REQUIRE(file->json != NULL, parser->err, KILN_EINPUT, "%s: its header is no JSON: %.160s",
                 file->path, why.text);
    return read_entries(parser);
}

enum kiln_status kiln_safetensors_open(struct kiln_safetensors *file, const char *path,
                                       struct kiln_err *err) {
    *file = (struct kiln_safetensors){.path = kiln_strdup(path)};
    KILN_REQUIRE(file->path != NULL, err, KILN_ENOMEM, "open %s: not enough memory", path);
    enum kiln_status status = kiln_map_open(&file->map, path, err);
    if (status == KILN_OK) {
        status = read_header(&(struct parser){.file = file, .err = err});
    }
    if (status != KILN_OK) {
        kiln_safetensors_close(file);
    }
    return status;
}

void kiln_safetensors_close(struct kiln_safetensors *file) {
    json_decref(file->json);
    kiln_map_close(&file->map);
    kiln_free(file->tensors);
    kiln_free(file->path);
    *file = (struct kiln_safetensors){0};
}

/* ---- writing -------------------------------------------------------------------------------- */

static const char *type_name(enum kiln_dtype dtype) {
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (types[i].dtype == (int)dtype) {
            return types[i].name;
        }
    }
    return "?";
}

static json_t *entry_of(const struct kiln_tensor *tensor, enum kiln_dtype dtype, size_t begin,
                        size_t end) {
    json_t *shape = tensor->rank == 1
                        ? json_pack("[I]", (json_int_t)tensor->cols)
                        : json_pack("[I, I]", (json_int_t)tensor->rows, (json_int_t)tensor->cols);
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", type_name(dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)end);
}

static char *header_of(const struct kiln_tensor *tensors, size_t n, kiln_safetensors_name name_of,
                       const void *context, enum kiln_dtype dtype) {
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const struct kiln_tensor *tensor = &tensors[i];
        const size_t end = at + kiln_dtype_bytes(dtype, tensor->rows * tensor->cols);
        char name[KILN_SAFETENSORS_NAME];
        name_of(context, tensor, name);
        if (json_object_set_new(header, name, entry_of(tensor, dtype, at, end)) != 0) {
            json_decref(header);
            return NULL;
        }
        at = end;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    return text;
}

static void by_role(const void *context, const struct kiln_tensor *tensor,
                    char out[KILN_SAFETENSORS_NAME]) {
    const kiln_names *names = context;
    kiln_names_of(*names, tensor, out);
}

enum kiln_status kiln_safetensors_begin(struct kiln_durable *file, const struct kiln_table *table,
                                        kiln_names names, enum kiln_dtype dtype,
                                        struct kiln_err *err) {
    return kiln_safetensors_begin_named(file, table->tensors, table->n_tensors, by_role, names,
                                        dtype, err);
}

enum kiln_status kiln_safetensors_begin_named(struct kiln_durable *file,
                                              const struct kiln_tensor *tensors, size_t n,
                                              kiln_safetensors_name name, const void *context,
                                              enum kiln_dtype dtype, struct kiln_err *err) {
    static const char blanks[8] = "        ";
    char *text = header_of(tensors, n, name, context, dtype);
    KILN_REQUIRE(text != NULL, err, KILN_ENOMEM, "write %s: not enough memory", file->path);
    const size_t size = strlen(text), padded = kiln_round_up(size, 8); /* data is aligned */
    const uint64_t told = padded;
    enum kiln_status status = kiln_durable_write(file, &told, sizeof told, err);
    if (status == KILN_OK) {
        status = kiln_durable_write(file, text, size, err);
    }
    if (status == KILN_OK) {
        status = kiln_durable_write(file, blanks, padded - size, err);
    }
    free(text);
    return status;
}
