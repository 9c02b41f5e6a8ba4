/* SPDX-License-Identifier: MIT
 *
 * exchange.c: see exchange.h.
 */
#include "model/exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/numbers.h"

#define NAME_ROOM 64

/* ---- names ---------------------------------------------------------------------------------- */

/* A layer's number, without zeros in front; false when there is none. *size: its digits. */
static bool take_layer(const char *text, size_t room, size_t *layer, size_t *size) {
    size_t value = 0, n = 0;
    while (n < room && n < 9 && text[n] >= '0' && text[n] <= '9') {
        value = 10 * value + (size_t)(text[n++] - '0');
    }
    *layer = value;
    *size = n;
    return n > 0 && (n == 1 || text[0] != '0');
}

static bool matches(const char *pattern, const char *name, size_t size, size_t *layer) {
    const char *hole = strstr(pattern, "%zu");
    const size_t before = hole != NULL ? (size_t)(hole - pattern) : strlen(pattern);
    size_t digits = 0;
    *layer = KILN_NO_LAYER;
    if (before == 0 || size < before || memcmp(name, pattern, before) != 0) {
        return false;
    }
    if (hole == NULL) {
        return size == before;
    }
    if (!take_layer(name + before, size - before, layer, &digits)) {
        return false;
    }
    const char *rest = hole + 3;
    const size_t left = size - before - digits;
    return left == strlen(rest) && memcmp(name + before + digits, rest, left) == 0;
}

bool kiln_names_find(kiln_names names, const char *name, size_t size, enum kiln_role *role,
                     size_t *layer) {
    for (int r = 0; r < KILN_ROLES; r++) {
        if (matches(names[r], name, size, layer)) {
            *role = (enum kiln_role)r;
            return true;
        }
    }
    return false;
}

void kiln_names_of(kiln_names names, const struct kiln_tensor *tensor, char out[NAME_ROOM]) {
    const char *pattern = names[tensor->role];
    const char *hole = strstr(pattern, "%zu");
    if (hole == NULL) {
        snprintf(out, NAME_ROOM, "%s", pattern);
    } else {
        snprintf(out, NAME_ROOM, "%.*s%zu%s", (int)(hole - pattern), pattern, tensor->layer,
                 hole + 3);
    }
}

/* ---- what is found -------------------------------------------------------------------------- */

enum kiln_status kiln_exchange_open(struct kiln_exchange *exchange, const struct kiln_dims *dims,
                                    bool halves, struct kiln_err *err) {
    *exchange = (struct kiln_exchange){.halves = halves};
    KILN_TRY(kiln_table_create(dims, &exchange->table, err));
    exchange->tensors = kiln_alloc(exchange->table->n_tensors, sizeof *exchange->tensors);
    if (exchange->tensors == NULL) {
        kiln_exchange_close(exchange);
        return KILN_FAIL(err, KILN_ENOMEM, "no memory for a table of %zu layers", dims->layers);
    }
    return KILN_OK;
}

void kiln_exchange_close(struct kiln_exchange *exchange) {
    kiln_table_destroy(exchange->table);
    kiln_free(exchange->tensors);
    *exchange = (struct kiln_exchange){0};
}

static void print_shape(char *out, size_t room, const size_t *shape, size_t rank) {
    size_t used = (size_t)snprintf(out, room, "[");
    for (size_t i = 0; i < rank && used + 24 < room; i++) {
        used += (size_t)snprintf(out + used, room - used, "%s%zu", i > 0 ? ", " : "", shape[i]);
    }
    snprintf(out + used, room - used, "]");
}

static bool same_shape(const struct kiln_found *found, const struct kiln_tensor *tensor) {
    return tensor->rank == 1 ? found->rank == 1 && found->shape[0] == tensor->cols
                             : found->rank == 2 && found->shape[0] == tensor->rows &&
                                   found->shape[1] == tensor->cols;
}

static enum kiln_status check_shape(const struct kiln_found *found,
                                    const struct kiln_tensor *tensor, const char *path,
                                    struct kiln_err *err) {
    char has[120], wants[80];
    const size_t shape[] = {tensor->rows, tensor->cols};
    if (same_shape(found, tensor)) {
        return KILN_OK;
    }
    print_shape(has, sizeof has, found->shape, found->rank);
    print_shape(wants, sizeof wants, tensor->rank == 1 ? shape + 1 : shape,
                tensor->rank == 1 ? 1 : 2);
    return KILN_FAIL(err, KILN_EINPUT,
                     "%s: tensor %.*s has shape %s, the sizes of the model make it %s", path,
                     (int)kiln_least(found->name_size, 100), found->name, has, wants);
}

enum kiln_status kiln_exchange_take(struct kiln_exchange *exchange, kiln_names names,
                                    const char *path, const struct kiln_found *found,
                                    struct kiln_err *err) {
    const struct kiln_table *table = exchange->table;
    const int shown = (int)kiln_least(found->name_size, 100);
    enum kiln_role role;
    size_t layer;
    const struct kiln_tensor *tensor = NULL;
    if (kiln_names_find(names, found->name, found->name_size, &role, &layer)) {
        tensor = kiln_table_find(table, role, layer);
        KILN_REQUIRE(tensor != NULL || layer == KILN_NO_LAYER || layer < table->dims.layers, err,
                     KILN_EINPUT, "%s: tensor %.*s is of layer %zu, the model has %zu layers", path,
                     shown, found->name, layer, table->dims.layers);
    }
    KILN_REQUIRE(tensor != NULL, err, KILN_EINPUT,
                 "%s: tensor %.*s has no place in this model; kiln would compute something else "
                 "without it",
                 path, shown, found->name);
    KILN_REQUIRE(found->known, err, KILN_EINPUT,
                 "%s: tensor %.*s is of type %s, which kiln does not read; it reads %s", path,
                 shown, found->name, found->type_name, "F32, F16, BF16, and Q8_0 in GGUF");
    KILN_REQUIRE(tensor->rank == 2 || found->dtype != KILN_DTYPE_Q8_0, err, KILN_EINPUT,
                 "%s: tensor %.*s is a vector in blocks of Q8_0, which nobody writes", path, shown,
                 found->name);
    KILN_TRY(check_shape(found, tensor, path, err));
    struct kiln_exchange_tensor *slot = &exchange->tensors[tensor - table->tensors];
    KILN_REQUIRE(slot->data == NULL, err, KILN_EINPUT, "%s: tensor %.*s is there twice", path,
                 shown, found->name);
    *slot = (struct kiln_exchange_tensor){.data = found->data, .dtype = found->dtype};
    return KILN_OK;
}

enum kiln_status kiln_exchange_complete(const struct kiln_exchange *exchange, kiln_names names,
                                        const char *path, struct kiln_err *err) {
    for (size_t i = 0; i < exchange->table->n_tensors; i++) {
        if (exchange->tensors[i].data == NULL) {
            char name[NAME_ROOM];
            kiln_names_of(names, &exchange->table->tensors[i], name);
            return KILN_FAIL(err, KILN_EINPUT, "%s: tensor %s is missing", path, name);
        }
    }
    return KILN_OK;
}

enum kiln_dtype kiln_exchange_dtype(const struct kiln_exchange *exchange,
                                    const struct kiln_tensor *tensor) {
    const struct kiln_table *table = exchange->table;
    const struct kiln_tensor *own = kiln_table_find(table, tensor->role, tensor->layer);
    return own != NULL ? exchange->tensors[own - table->tensors].dtype : KILN_DTYPE_F32;
}

/* ---- the order of rows ---------------------------------------------------------------------- */

static bool meets_rope(enum kiln_role role) {
    return role == KILN_WQ || role == KILN_WK || role == KILN_BQ || role == KILN_BK ||
           role == KILN_Q_NORM || role == KILN_K_NORM;
}

/* Row of ours for a row of the file: in a head of K rows, i is 2i, and i + K/2 is 2i + 1. */
static size_t our_row(size_t row, size_t K) {
    const size_t head = row / K * K, i = row % K;
    return head + (i < K / 2 ? 2 * i : 2 * (i - K / 2) + 1);
}

/* A tensor as rows that may change places: of a vector, every element is one. */
struct rows {
    size_t n, width;
    size_t K; /* 0: they stay */
};

static struct rows rows_of(const struct kiln_tensor *tensor, const struct kiln_dims *dims,
                           bool halves) {
    const bool moves = halves && meets_rope(tensor->role);
    const bool singly = tensor->rank == 1 && moves;
    return (struct rows){.n = singly ? tensor->cols : tensor->rows,
                         .width = singly ? 1 : tensor->cols,
                         .K = moves ? dims->head_size : 0};
}

static size_t place(const struct rows *rows, size_t row) {
    return rows->K > 0 ? our_row(row, rows->K) : row;
}

void kiln_exchange_read(const struct kiln_dims *dims, bool halves, const struct kiln_tensor *tensor,
                        enum kiln_dtype dtype, const unsigned char *data, float *to) {
    const struct rows rows = rows_of(tensor, dims, halves);
    const size_t bytes = kiln_dtype_bytes(dtype, rows.width);
    for (size_t row = 0; row < rows.n; row++) {
        kiln_dtype_decode(dtype, to + place(&rows, row) * rows.width, data + row * bytes,
                          rows.width);
    }
}

enum kiln_status kiln_exchange_load(const struct kiln_exchange *exchange,
                                    const struct kiln_checkpoint *checkpoint,
                                    const struct kiln_table *table, float *weights,
                                    struct kiln_err *err) {
    for (size_t i = 0; i < table->n_base; i++) {
        const struct kiln_tensor *tensor = &table->tensors[i];
        const struct kiln_exchange_tensor *from = &exchange->tensors[i];
        float *to = weights + tensor->offset;
        kiln_exchange_read(&table->dims, exchange->halves, tensor, from->dtype, from->data, to);
        KILN_TRY(kiln_checkpoint_finite(checkpoint, tensor, to, err));
    }
    return KILN_OK;
}

enum kiln_status kiln_exchange_write(const struct kiln_dims *dims, bool halves,
                                     const struct kiln_tensor *tensor, const float *weights,
                                     enum kiln_dtype dtype, const struct kiln_sink *sink,
                                     struct kiln_err *err) {
    const struct rows rows = rows_of(tensor, dims, halves);
    const size_t bytes = kiln_dtype_bytes(dtype, rows.width);
    unsigned char *buffer = kiln_alloc(bytes, 1);
    KILN_REQUIRE(buffer != NULL, err, KILN_ENOMEM, "write %s: not enough memory", tensor->name);
    enum kiln_status status = KILN_OK;
    for (size_t row = 0; row < rows.n && status == KILN_OK; row++) {
        const float *from = weights + tensor->offset + place(&rows, row) * rows.width;
        status = kiln_dtype_encode(dtype, buffer, from, rows.width)
                     ? sink->write(sink->context, buffer, bytes, err)
                     : KILN_FAIL(err, KILN_EUNSUPPORTED,
                                 "%s has a number beyond the largest of %s, 65504; write f32 or "
                                 "bf16",
                                 tensor->name, kiln_dtype_name(dtype));
    }
    kiln_free(buffer);
    return status;
}
