/* SPDX-License-Identifier: MIT
 *
 * llama2c.c: version 0 of llama2.c's model files, in and out.
 *
 *   int32 dim, hidden, layers, heads, kv_heads, vocab (negative: untied), seq
 *   float tok_embeddings
 *         rms_att of all layers, wq of all layers, wk .., wv .., wo ..
 *         rms_ffn .., w1 .., w2 .., w3 ..
 *         rms_final
 *         cos [seq, head_size/2], sin [seq, head_size/2]: nobody reads them, all files have them
 *         wcls, when untied
 *
 * Little-endian, no padding, no mark to know it by: the exact size of the file is the check.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/checkpoint.h"
#include "model/llama2c.h"
#include "model/table.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "llama2.c files are little-endian");

#define HEADER_INTS  7
#define HEADER_BYTES (HEADER_INTS * sizeof(int32_t))

static const enum kiln_role file_order[] = {
    KILN_EMBED,
    KILN_ATTN_NORM,
    KILN_WQ,
    KILN_WK,
    KILN_WV,
    KILN_WO,
    KILN_FFN_NORM,
    KILN_W1,
    KILN_W2,
    KILN_W3,
    KILN_FINAL_NORM,
    KILN_HEAD,
    /* Of no model file (kiln_llama2c_check), but of other arrays in this order. */
    KILN_BQ,
    KILN_BK,
    KILN_BV,
    KILN_Q_NORM,
    KILN_K_NORM,
};

static struct kiln_walk walk_of(const struct kiln_table *table) {
    return (struct kiln_walk){
        .table = table, .order = file_order, .n = sizeof file_order / sizeof file_order[0]};
}

static bool is_layered(enum kiln_role role) {
    return role != KILN_EMBED && role != KILN_FINAL_NORM && role != KILN_HEAD;
}

const struct kiln_tensor *kiln_walk_next(struct kiln_walk *walk) {
    while (walk->step < walk->n) {
        enum kiln_role role = walk->order[walk->step];
        if (!is_layered(role)) {
            walk->step++;
            const struct kiln_tensor *tensor = kiln_table_find(walk->table, role, KILN_NO_LAYER);
            if (tensor != NULL) {
                return tensor;
            }
        } else if (walk->layer < walk->table->dims.layers &&
                   kiln_table_find(walk->table, role, walk->layer) != NULL) {
            return kiln_table_find(walk->table, role, walk->layer++);
        } else { /* of all layers, or of a family that has none */
            walk->step++;
            walk->layer = 0;
        }
    }
    return NULL;
}

/* Elements of one frequency table. */
static size_t freq_size(const struct kiln_dims *dims) { return dims->seq * (dims->head_size / 2); }

/* ---- reading -------------------------------------------------------------------------------- */

static bool llama2c_recognizes(const struct kiln_checkpoint *checkpoint) {
    (void)checkpoint;
    return true;
}

/* A size of the header; negative ones become 0, which kiln_dims_check names and refuses. */
static size_t size_of_int(int32_t value) { return value > 0 ? (size_t)value : 0; }

static void dims_of_header(const int32_t header[HEADER_INTS], struct kiln_dims *dims) {
    int64_t vocab = header[5]; /* wide, so that the most negative one has a positive twin */
    *dims = (struct kiln_dims){
        .dim = size_of_int(header[0]),
        .hidden = size_of_int(header[1]),
        .layers = size_of_int(header[2]),
        .heads = size_of_int(header[3]),
        .kv_heads = size_of_int(header[4]),
        .vocab = (size_t)(vocab < 0 ? -vocab : vocab),
        .seq = size_of_int(header[6]),
        .tied = vocab > 0,
        .rms_eps = KILN_LLAMA2C_RMS_EPS,
        .rope_theta = KILN_LLAMA2C_ROPE_THETA,
    };
}

/* Bytes of a file with these dims. kiln_dims_check has bounded every product used here. */
static size_t file_bytes(const struct kiln_dims *dims) {
    size_t D = dims->dim, HK = dims->heads * dims->head_size, GK = dims->kv_heads * dims->head_size;
    size_t per_layer = 2 * D + 2 * HK * D + 2 * GK * D + 3 * dims->hidden * D;
    size_t floats =
        dims->vocab * D * (dims->tied ? 1 : 2) + dims->layers * per_layer + D + 2 * freq_size(dims);
    return HEADER_BYTES + floats * sizeof(float);
}

static enum kiln_status llama2c_open(struct kiln_checkpoint *checkpoint, struct kiln_err *err) {
    const struct kiln_map *map = &checkpoint->map;
    const char *path = checkpoint->path;
    struct kiln_dims *dims = &checkpoint->dims;
    KILN_REQUIRE(map->size >= HEADER_BYTES, err, KILN_EINPUT,
                 "model %s: %zu bytes, a llama2.c header alone has %zu; the file is cut short",
                 path, map->size, HEADER_BYTES);
    int32_t header[HEADER_INTS];
    memcpy(header, map->data, HEADER_BYTES);
    dims_of_header(header, dims);
    struct kiln_err why;
    if (kiln_dims_check(dims, &why) != KILN_OK) {
        return KILN_FAIL(err, KILN_EINPUT,
                         "model %s: header %d %d %d %d %d %d %d is not of a llama2.c .bin "
                         "(dim hidden layers heads kv-heads vocab seq): %.240s",
                         path, header[0], header[1], header[2], header[3], header[4], header[5],
                         header[6], why.message);
    }
    KILN_REQUIRE(map->size == file_bytes(dims), err, KILN_EINPUT,
                 "model %s: dim %zu, hidden %zu, layers %zu, heads %zu, kv-heads %zu, vocab "
                 "%zu%s, seq %zu in the header make a llama2.c .bin of %zu bytes; the file has %zu",
                 path, dims->dim, dims->hidden, dims->layers, dims->heads, dims->kv_heads,
                 dims->vocab, dims->tied ? "" : " (untied)", dims->seq, file_bytes(dims),
                 map->size);
    return KILN_OK;
}

static enum kiln_status llama2c_load(const struct kiln_checkpoint *checkpoint,
                                     const struct kiln_table *table, float *weights,
                                     struct kiln_err *err) {
    const unsigned char *from = checkpoint->map.data + HEADER_BYTES;
    struct kiln_walk walk = walk_of(table);
    const struct kiln_tensor *tensor;
    while ((tensor = kiln_walk_next(&walk)) != NULL) {
        if (tensor->role == KILN_HEAD) { /* the tables lie before it */
            from += 2 * freq_size(&checkpoint->dims) * sizeof(float);
        }
        memcpy(weights + tensor->offset, from, kiln_elements(tensor) * sizeof *weights);
        KILN_TRY(kiln_checkpoint_finite(checkpoint, tensor, weights + tensor->offset, err));
        from += kiln_elements(tensor) * sizeof(float);
    }
    return KILN_OK;
}

const struct kiln_checkpoint_format kiln_format_llama2c = {
    .name = "llama2.c",
    .recognizes = llama2c_recognizes,
    .open = llama2c_open,
    .load = llama2c_load,
};

enum kiln_status kiln_llama2c_unpack(const struct kiln_table *table, const float *data,
                                     size_t count, float *weights, struct kiln_err *err) {
    KILN_REQUIRE(count == table->parameters, err, KILN_EINPUT,
                 "%zu numbers where the model has %zu parameters", count, table->parameters);
    struct kiln_walk walk = walk_of(table);
    const struct kiln_tensor *tensor;
    while ((tensor = kiln_walk_next(&walk)) != NULL) {
        memcpy(weights + tensor->offset, data, kiln_elements(tensor) * sizeof *data);
        data += kiln_elements(tensor);
    }
    kiln_table_clear_gaps(table, weights);
    return KILN_OK;
}

/* ---- writing -------------------------------------------------------------------------------- */

enum kiln_status kiln_llama2c_check(const struct kiln_dims *dims, struct kiln_err *err) {
    const size_t sizes[] = {dims->dim,      dims->hidden, dims->layers, dims->heads,
                            dims->kv_heads, dims->vocab,  dims->seq};
    for (size_t i = 0; i < HEADER_INTS; i++) {
        KILN_REQUIRE(sizes[i] <= INT32_MAX, err, KILN_EUNSUPPORTED,
                     "a llama2.c .bin holds sizes up to %d, not %zu", INT32_MAX, sizes[i]);
    }
    KILN_REQUIRE(
        dims->rms_eps == KILN_LLAMA2C_RMS_EPS && dims->rope_theta == KILN_LLAMA2C_ROPE_THETA, err,
        KILN_EUNSUPPORTED,
        "a llama2.c .bin stands for rms_eps %g and rope_theta %g; this model has %g and "
        "%g, for which the format has no place (with --rms-eps %g --rope-theta %g it "
        "becomes another model, which the format holds)",
        (double)KILN_LLAMA2C_RMS_EPS, (double)KILN_LLAMA2C_ROPE_THETA, (double)dims->rms_eps,
        (double)dims->rope_theta, (double)KILN_LLAMA2C_RMS_EPS, (double)KILN_LLAMA2C_ROPE_THETA);
    const struct {
        bool has;
        const char *name;
    } beyond[] = {{dims->qkv_bias, "biases of queries, keys and values"},
                  {dims->qk_norm, "query and key norms"},
                  {dims->rope.kind != KILN_ROPE_PLAIN, "scaled RoPE"},
                  {dims->heads * dims->head_size != dims->dim, "a head size of its own"}};
    for (size_t i = 0; i < sizeof beyond / sizeof beyond[0]; i++) {
        KILN_REQUIRE(!beyond[i].has, err, KILN_EUNSUPPORTED,
                     "a llama2.c .bin has no place for %s, which this model has", beyond[i].name);
    }
    return KILN_OK;
}

static enum kiln_status write_header(struct kiln_durable *file, const struct kiln_dims *dims,
                                     struct kiln_err *err) {
    int32_t vocab = (int32_t)dims->vocab;
    const int32_t header[HEADER_INTS] = {
        (int32_t)dims->dim,   (int32_t)dims->hidden,   (int32_t)dims->layers,
        (int32_t)dims->heads, (int32_t)dims->kv_heads, dims->tied ? vocab : -vocab,
        (int32_t)dims->seq,
    };
    return kiln_durable_write(file, header, sizeof header, err);
}

/* One row of a table: cos or sin of position * theta^(-2i/K). */
static void freq_row(const struct kiln_dims *dims, size_t position, double (*turn)(double),
                     float *row) {
    for (size_t i = 0; i < dims->head_size / 2; i++) {
        double exponent = 2.0 * (double)i / (double)dims->head_size;
        double frequency = 1.0 / pow((double)dims->rope_theta, exponent);
        row[i] = (float)turn((double)position * frequency);
    }
}

static enum kiln_status write_freqs(struct kiln_durable *file, const struct kiln_dims *dims,
                                    struct kiln_err *err) {
    double (*const turns[])(double) = {cos, sin};
    float *row = kiln_alloc(dims->head_size / 2, sizeof *row);
    KILN_REQUIRE(row != NULL, err, KILN_ENOMEM, "write %s: not enough memory", file->path);
    enum kiln_status status = KILN_OK;
    for (size_t i = 0; i < 2 * dims->seq && status == KILN_OK; i++) {
        freq_row(dims, i % dims->seq, turns[i / dims->seq], row);
        status = kiln_durable_write(file, row, dims->head_size / 2 * sizeof *row, err);
    }
    kiln_free(row);
    return status;
}

static enum kiln_status write_body(struct kiln_durable *file, const struct kiln_table *table,
                                   const float *weights, struct kiln_err *err) {
    KILN_TRY(write_header(file, &table->dims, err));
    struct kiln_walk walk = walk_of(table);
    const struct kiln_tensor *tensor;
    while ((tensor = kiln_walk_next(&walk)) != NULL) {
        size_t bytes = kiln_elements(tensor) * sizeof *weights;
        KILN_TRY(kiln_durable_write(file, weights + tensor->offset, bytes, err));
        if (tensor->role == KILN_FINAL_NORM) {
            KILN_TRY(write_freqs(file, &table->dims, err));
        }
    }
    return KILN_OK;
}

static enum kiln_status llama2c_check(const struct kiln_dims *dims, enum kiln_dtype dtype,
                                      struct kiln_err *err) {
    KILN_REQUIRE(dtype == KILN_DTYPE_F32, err, KILN_EUNSUPPORTED,
                 "a llama2.c .bin of version 0 holds f32 only, not %s; write a folder or a .gguf",
                 kiln_dtype_name(dtype));
    return kiln_llama2c_check(dims, err);
}

static enum kiln_dtype llama2c_dtype(const struct kiln_tensor *tensor, enum kiln_dtype dtype) {
    (void)tensor;
    return dtype;
}

static enum kiln_status llama2c_write(struct kiln_durable *file, const struct kiln_table *table,
                                      const float *weights, const struct kiln_save_options *options,
                                      struct kiln_err *err) {
    (void)options;
    return write_body(file, table, weights, err);
}

const struct kiln_save_format kiln_save_llama2c = {
    .name = "llama2.c",
    .check = llama2c_check,
    .dtype = llama2c_dtype,
    .write = llama2c_write,
};

enum kiln_status kiln_checkpoint_save_llama2c(const char *path, const struct kiln_table *table,
                                              const float *weights, struct kiln_err *err) {
    const struct kiln_save_options options = {.replace = true};
    return kiln_checkpoint_save(KILN_FORMAT_LLAMA2C, path, table, weights, &options, err);
}
