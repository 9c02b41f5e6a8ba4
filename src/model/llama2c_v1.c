/* SPDX-License-Identifier: MIT
 *
 * llama2c_v1.c: versions 1 and 2 of llama2.c's model files (its export.py), in.
 *
 *   u32 0x616b3432   int32 version, dim, hidden, layers, heads, kv_heads, vocab, seq
 *   u8 shared classifier   version 2: int32 group size   zeros up to byte 256
 *   version 1: float  rms_att of all layers, rms_ffn .., rms_final, tok_embeddings,
 *                     wq of all layers, wk .., wv .., wo .., w1 .., w2 .., w3 .., wcls when not
 * shared version 2: the norms so; every other tensor as int8 of all its numbers, then a float for
 * every group of them in a row: number = int8 * float
 *
 * Little-endian, no padding behind the header: the exact size of the file is the check.
 */
#include <string.h>

#include "model/checkpoint.h"
#include "model/llama2c.h"

#define MAGIC        0x616b3432u
#define HEADER_BYTES 256
#define SHARED_AT    36
#define GROUP_AT     37

static const enum kiln_role file_order[] = {
    KILN_ATTN_NORM, KILN_FFN_NORM, KILN_FINAL_NORM, KILN_EMBED, KILN_WQ, KILN_WK,
    KILN_WV,        KILN_WO,       KILN_W1,         KILN_W2,    KILN_W3, KILN_HEAD,
};

static int32_t int_at(const struct kiln_map *map, size_t at) {
    int32_t value;
    memcpy(&value, map->data + at, sizeof value);
    return value;
}

static bool is_version(const struct kiln_checkpoint *checkpoint, int32_t version) {
    const struct kiln_map *map = &checkpoint->map;
    return map->size >= 8 && (uint32_t)int_at(map, 0) == MAGIC && int_at(map, 4) == version;
}

static bool recognizes_v1(const struct kiln_checkpoint *checkpoint) {
    return is_version(checkpoint, 1);
}
static bool recognizes_v2(const struct kiln_checkpoint *checkpoint) {
    return is_version(checkpoint, 2);
}

/* Numbers a scale is for; 0: they are floats. */
static size_t group_of(const struct kiln_checkpoint *checkpoint) {
    return is_version(checkpoint, 2) ? (size_t)int_at(&checkpoint->map, GROUP_AT) : 0;
}

static size_t bytes_of(const struct kiln_tensor *tensor, size_t group) {
    const size_t n = tensor->rows * tensor->cols;
    return tensor->rank == 1 || group == 0 ? 4 * n : n + n / group * 4;
}

static struct kiln_walk walk_of(const struct kiln_table *table) {
    return (struct kiln_walk){
        .table = table, .order = file_order, .n = sizeof file_order / sizeof file_order[0]};
}

static enum kiln_status check_size(const struct kiln_checkpoint *checkpoint,
                                   const struct kiln_table *table, size_t group,
                                   struct kiln_err *err) {
    struct kiln_walk walk = walk_of(table);
    const struct kiln_tensor *tensor;
    size_t bytes = HEADER_BYTES;
    while ((tensor = kiln_walk_next(&walk)) != NULL) {
        KILN_REQUIRE(group == 0 || tensor->rank == 1 || tensor->rows * tensor->cols % group == 0,
                     err, KILN_EINPUT,
                     "model %s: groups of %zu do not divide the %zu numbers of %s",
                     checkpoint->path, group, tensor->rows * tensor->cols, tensor->name);
        bytes += bytes_of(tensor, group); /* within size_t: kiln_dims_check */
    }
    KILN_REQUIRE(bytes == checkpoint->map.size, err, KILN_EINPUT,
                 "model %s: its header makes a llama2.c .bin of %zu bytes; the file has %zu",
                 checkpoint->path, bytes, checkpoint->map.size);
    return KILN_OK;
}

static size_t size_of_int(int32_t value) { return value > 0 ? (size_t)value : 0; }

static enum kiln_status read_dims(struct kiln_checkpoint *checkpoint, struct kiln_err *err) {
    const struct kiln_map *map = &checkpoint->map;
    struct kiln_err why;
    size_t sizes[7];
    KILN_REQUIRE(map->size >= HEADER_BYTES, err, KILN_EINPUT,
                 "model %s: %zu bytes, a llama2.c header alone has %d; the file is cut short",
                 checkpoint->path, map->size, HEADER_BYTES);
    for (size_t i = 0; i < 7; i++) {
        sizes[i] = size_of_int(int_at(map, 8 + 4 * i));
    }
    KILN_REQUIRE(map->data[SHARED_AT] <= 1, err, KILN_EINPUT,
                 "model %s: byte %d of the header is %d, neither 0 nor 1; the file is damaged",
                 checkpoint->path, SHARED_AT, map->data[SHARED_AT]);
    checkpoint->dims = (struct kiln_dims){
        .dim = sizes[0],
        .hidden = sizes[1],
        .layers = sizes[2],
        .heads = sizes[3],
        .kv_heads = sizes[4],
        .vocab = sizes[5],
        .seq = sizes[6],
        .tied = map->data[SHARED_AT] == 1,
        .rms_eps = KILN_LLAMA2C_RMS_EPS,
        .rope_theta = KILN_LLAMA2C_ROPE_THETA,
    };
    KILN_REQUIRE(kiln_dims_check(&checkpoint->dims, &why) == KILN_OK, err, KILN_EINPUT,
                 "model %s: header of a llama2.c .bin: %.400s", checkpoint->path, why.message);
    return KILN_OK;
}

static enum kiln_status open_any(struct kiln_checkpoint *checkpoint, struct kiln_err *err) {
    KILN_TRY(read_dims(checkpoint, err));
    KILN_REQUIRE(is_version(checkpoint, 1) || int_at(&checkpoint->map, GROUP_AT) > 0, err,
                 KILN_EINPUT, "model %s: groups of %d numbers; the file is damaged",
                 checkpoint->path, int_at(&checkpoint->map, GROUP_AT));
    struct kiln_table *table = NULL;
    KILN_TRY(kiln_table_create(&checkpoint->dims, &table, err));
    const enum kiln_status status = check_size(checkpoint, table, group_of(checkpoint), err);
    kiln_table_destroy(table);
    return status;
}

static void decode_groups(float *to, const unsigned char *from, size_t n, size_t group) {
    for (size_t g = 0; g < n / group; g++) {
        float scale;
        memcpy(&scale, from + n + g * sizeof scale, sizeof scale);
        for (size_t i = g * group; i < (g + 1) * group; i++) {
            to[i] = (float)(int8_t)from[i] * scale;
        }
    }
}

static enum kiln_status load_any(const struct kiln_checkpoint *checkpoint,
                                 const struct kiln_table *table, float *weights,
                                 struct kiln_err *err) {
    const size_t group = group_of(checkpoint);
    const unsigned char *from = checkpoint->map.data + HEADER_BYTES;
    struct kiln_walk walk = walk_of(table);
    const struct kiln_tensor *tensor;
    while ((tensor = kiln_walk_next(&walk)) != NULL) {
        float *to = weights + tensor->offset;
        if (tensor->rank == 1 || group == 0) {
            memcpy(to, from, bytes_of(tensor, group));
        } else {
            decode_groups(to, from, tensor->rows * tensor->cols, group);
        }
        KILN_TRY(kiln_checkpoint_finite(checkpoint, tensor, to, err));
        from += bytes_of(tensor, group);
    }
    return KILN_OK;
}

static enum kiln_dtype dtype_v2(const struct kiln_checkpoint *checkpoint,
                                const struct kiln_tensor *tensor) {
    (void)checkpoint;
    return tensor->rank == 1 ? KILN_DTYPE_F32 : KILN_DTYPE_Q8_0;
}

const struct kiln_checkpoint_format kiln_format_llama2c_v1 = {
    .name = "llama2.c version 1",
    .recognizes = recognizes_v1,
    .open = open_any,
    .load = load_any,
};

const struct kiln_checkpoint_format kiln_format_llama2c_v2 = {
    .name = "llama2.c version 2",
    .recognizes = recognizes_v2,
    .open = open_any,
    .load = load_any,
    .dtype = dtype_v2,
};
