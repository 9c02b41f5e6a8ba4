/* SPDX-License-Identifier: MIT
 *
 * gguf_read.c: see gguf.h. One reader walks the header; nothing is taken before what is left of
 * the file is known to hold it, and no room is made for a count that the file cannot hold.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/gguf.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF files are little-endian");

#define MAGIC             "GGUF"
#define HEADER_BYTES      24
#define LEAST_PAIR        13 /* an empty key, its type, one byte */
#define LEAST_INFO        24 /* an empty name, no extent */
#define DEFAULT_ALIGNMENT 32
#define LARGEST_ALIGNMENT 65536 /* a page of the machines with the largest */

/* ---- types ---------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t bytes;
} types[KILN_GGUF_TYPES] = {
    [KILN_GGUF_U8] = {"u8", 1},         [KILN_GGUF_I8] = {"i8", 1},
    [KILN_GGUF_U16] = {"u16", 2},       [KILN_GGUF_I16] = {"i16", 2},
    [KILN_GGUF_U32] = {"u32", 4},       [KILN_GGUF_I32] = {"i32", 4},
    [KILN_GGUF_F32] = {"f32", 4},       [KILN_GGUF_BOOL] = {"bool", 1},
    [KILN_GGUF_STRING] = {"string", 0}, [KILN_GGUF_ARRAY] = {"array", 0},
    [KILN_GGUF_U64] = {"u64", 8},       [KILN_GGUF_I64] = {"i64", 8},
    [KILN_GGUF_F64] = {"f64", 8},
};

const char *kiln_gguf_type_name(enum kiln_gguf_type type) {
    return (unsigned)type < KILN_GGUF_TYPES ? types[type].name : "?";
}

size_t kiln_gguf_type_bytes(enum kiln_gguf_type type) {
    return (unsigned)type < KILN_GGUF_TYPES ? types[type].bytes : 0;
}

/* Elements and bytes of a block: GGML_QUANT_SIZES of the gguf package. */
static const struct {
    uint32_t type;
    const char *name;
    size_t block, bytes;
} ggml[] = {
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},
    {3, "Q4_1", 32, 20},      {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34},      {10, "Q2_K", 256, 84},    {11, "Q3_K", 256, 110},
    {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},   {14, "Q6_K", 256, 210},
    {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},   {20, "IQ4_NL", 32, 18},
    {21, "IQ3_S", 256, 110},  {22, "IQ2_S", 256, 82},   {23, "IQ4_XS", 256, 136},
    {24, "I8", 1, 1},         {25, "I16", 1, 2},        {26, "I32", 1, 4},
    {27, "I64", 1, 8},        {28, "F64", 1, 8},        {29, "IQ1_M", 256, 56},
    {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},   {35, "TQ2_0", 256, 66},
    {39, "MXFP4", 32, 17},
};

static int ggml_index(uint32_t type) {
    for (size_t i = 0; i < sizeof ggml / sizeof ggml[0]; i++) {
        if (ggml[i].type == type) {
            return (int)i;
        }
    }
    return -1;
}

const char *kiln_ggml_type_name(uint32_t type) {
    const int i = ggml_index(type);
    return i < 0 ? NULL : ggml[i].name;
}

bool kiln_ggml_row_bytes(uint32_t type, size_t n, size_t *bytes) {
    const int i = ggml_index(type);
    return i >= 0 && n % ggml[i].block == 0 &&
           !kiln_mul_overflows(n / ggml[i].block, ggml[i].bytes, bytes);
}

/* ---- taking from the header ----------------------------------------------------------------- */

struct reader {
    struct kiln_gguf *gguf;
    size_t at;
    size_t n_strings, room_strings; /* of gguf->strings, while it grows */
    struct kiln_err *err;
};

static size_t left(const struct reader *reader) { return reader->gguf->map.size - reader->at; }

static const unsigned char *here(const struct reader *reader) {
    return reader->gguf->map.data + reader->at;
}

static enum kiln_status cut_short(const struct reader *reader, const char *what) {
    return KILN_FAIL(reader->err, KILN_EINPUT,
                     "%s: the file ends at byte %zu inside %s; it is cut short or damaged",
                     reader->gguf->path, reader->gguf->map.size, what);
}

static enum kiln_status take(struct reader *reader, void *to, size_t size, const char *what) {
    if (left(reader) < size) {
        return cut_short(reader, what);
    }
    memcpy(to, here(reader), size);
    reader->at += size;
    return KILN_OK;
}

/* A count of things that take at least `least` bytes each. */
static enum kiln_status take_count(struct reader *reader, size_t least, size_t *out,
                                   const char *what) {
    uint64_t count = 0;
    KILN_TRY(take(reader, &count, sizeof count, what));
    KILN_REQUIRE(count <= left(reader) / least, reader->err, KILN_EINPUT,
                 "%s: %llu %s where %zu bytes are left in the file; the file is damaged",
                 reader->gguf->path, (unsigned long long)count, what, left(reader));
    *out = (size_t)count;
    return KILN_OK;
}

static enum kiln_status take_string(struct reader *reader, struct kiln_gguf_string *out,
                                    const char *what) {
    KILN_TRY(take_count(reader, 1, &out->size, what));
    out->data = (const char *)here(reader);
    reader->at += out->size;
    return KILN_OK;
}

/* ---- key/values ----------------------------------------------------------------------------- */

static int shown(const struct kiln_gguf_string *text) { return (int)kiln_least(text->size, 80); }

static enum kiln_status grow_strings(struct reader *reader, size_t n) {
    struct kiln_gguf *gguf = reader->gguf;
    if (n <= reader->room_strings - reader->n_strings) {
        return KILN_OK;
    }
    const size_t room = kiln_largest(2 * reader->room_strings, reader->n_strings + n);
    struct kiln_gguf_string *grown =
        kiln_realloc(gguf->strings, reader->room_strings, room, sizeof *grown);
    KILN_REQUIRE(grown != NULL, reader->err, KILN_ENOMEM, "%s: no memory for %zu strings",
                 gguf->path, room);
    gguf->strings = grown;
    reader->room_strings = room;
    return KILN_OK;
}

/* The strings move while they grow: until all are there, a pair holds the number of its first. */
static enum kiln_status take_strings(struct reader *reader, struct kiln_gguf_pair *pair) {
    KILN_TRY(grow_strings(reader, pair->n));
    pair->numbers = (const void *)(uintptr_t)reader->n_strings;
    for (size_t i = 0; i < pair->n; i++) {
        KILN_TRY(take_string(reader, &reader->gguf->strings[reader->n_strings], "a string"));
        reader->n_strings++;
    }
    return KILN_OK;
}

static enum kiln_status take_numbers(struct reader *reader, struct kiln_gguf_pair *pair) {
    const size_t size = types[pair->type].bytes;
    if (pair->n > left(reader) / size) {
        return cut_short(reader, "a value");
    }
    pair->numbers = here(reader);
    if (pair->type == KILN_GGUF_BOOL) {
        for (size_t i = 0; i < pair->n; i++) {
            KILN_REQUIRE(here(reader)[i] <= 1, reader->err, KILN_EINPUT,
                         "%s: key %.*s: a boolean is %d, neither 0 nor 1; the file is damaged",
                         reader->gguf->path, shown(&pair->key), pair->key.data,
                         (int)here(reader)[i]);
        }
    }
    reader->at += pair->n * size;
    return KILN_OK;
}

static enum kiln_status take_type(struct reader *reader, struct kiln_gguf_pair *pair) {
    uint32_t type = 0;
    KILN_TRY(take(reader, &type, sizeof type, "a key/value"));
    KILN_REQUIRE(type < KILN_GGUF_TYPES, reader->err, KILN_EINPUT,
                 "%s: key %.*s has type %u, which GGUF does not know; the file is damaged",
                 reader->gguf->path, shown(&pair->key), pair->key.data, type);
    pair->type = (enum kiln_gguf_type)type;
    return KILN_OK;
}

static enum kiln_status take_pair(struct reader *reader, struct kiln_gguf_pair *pair) {
    KILN_TRY(take_string(reader, &pair->key, "bytes of a key"));
    KILN_TRY(take_type(reader, pair));
    pair->n = 1;
    if (pair->type == KILN_GGUF_ARRAY) {
        pair->array = true;
        KILN_TRY(take_type(reader, pair));
        KILN_REQUIRE(pair->type != KILN_GGUF_ARRAY, reader->err, KILN_EINPUT,
                     "%s: key %.*s is an array of arrays, which kiln does not read",
                     reader->gguf->path, shown(&pair->key), pair->key.data);
        const size_t least = pair->type == KILN_GGUF_STRING ? 8 : types[pair->type].bytes;
        KILN_TRY(take_count(reader, least, &pair->n, "elements of an array"));
    }
    return pair->type == KILN_GGUF_STRING ? take_strings(reader, pair) : take_numbers(reader, pair);
}

static enum kiln_status take_pairs(struct reader *reader) {
    struct kiln_gguf *gguf = reader->gguf;
    for (size_t i = 0; i < gguf->n_pairs; i++) {
        KILN_TRY(take_pair(reader, &gguf->pairs[i]));
    }
    for (size_t i = 0; i < gguf->n_pairs; i++) {
        struct kiln_gguf_pair *pair = &gguf->pairs[i];
        if (pair->type == KILN_GGUF_STRING) {
            const size_t first = (uintptr_t)pair->numbers;
            pair->strings = pair->n > 0 ? gguf->strings + first : NULL;
            pair->numbers = NULL;
        }
    }
    return KILN_OK;
}

/* ---- tensors -------------------------------------------------------------------------------- */

static enum kiln_status take_shape(struct reader *reader, struct kiln_gguf_tensor *tensor) {
    uint32_t rank = 0;
    size_t n = 1;
    const char *path = reader->gguf->path;
    KILN_TRY(take(reader, &rank, sizeof rank, "a tensor's shape"));
    KILN_REQUIRE(rank <= KILN_GGUF_RANK, reader->err, KILN_EINPUT,
                 "%s: tensor %.*s has %u extents, more than %d; the file is damaged", path,
                 shown(&tensor->name), tensor->name.data, rank, KILN_GGUF_RANK);
    tensor->rank = rank;
    for (size_t i = 0; i < KILN_GGUF_RANK; i++) {
        uint64_t extent = 1;
        if (i < rank) {
            KILN_TRY(take(reader, &extent, sizeof extent, "a tensor's shape"));
        }
        KILN_REQUIRE(extent > 0 && !kiln_mul_overflows(n, extent, &n), reader->err, KILN_EINPUT,
                     "%s: tensor %.*s: extent %zu of its shape is %llu; the file is damaged", path,
                     shown(&tensor->name), tensor->name.data, i, (unsigned long long)extent);
        tensor->shape[i] = (size_t)extent;
    }
    return KILN_OK;
}

/* Bytes of the whole tensor: rows of shape[0]. */
static bool tensor_bytes(const struct kiln_gguf_tensor *tensor, size_t *bytes) {
    const size_t *shape = tensor->shape; /* whose product was checked */
    return kiln_ggml_row_bytes(tensor->type, shape[0], bytes) &&
           !kiln_mul_overflows(*bytes, shape[1] * shape[2] * shape[3], bytes);
}

static enum kiln_status take_info(struct reader *reader, struct kiln_gguf_tensor *tensor) {
    uint64_t offset = 0;
    const char *path = reader->gguf->path;
    KILN_TRY(take_string(reader, &tensor->name, "bytes of a tensor's name"));
    KILN_TRY(take_shape(reader, tensor));
    KILN_TRY(take(reader, &tensor->type, sizeof tensor->type, "a tensor's type"));
    KILN_TRY(take(reader, &offset, sizeof offset, "a tensor's offset"));
    const char *name = kiln_ggml_type_name(tensor->type);
    KILN_REQUIRE(name != NULL, reader->err, KILN_EINPUT,
                 "%s: tensor %.*s has type %u, which kiln does not know", path,
                 shown(&tensor->name), tensor->name.data, tensor->type);
    KILN_REQUIRE(tensor_bytes(tensor, &tensor->bytes), reader->err, KILN_EINPUT,
                 "%s: tensor %.*s: rows of %zu elements are no blocks of type %s, or too large",
                 path, shown(&tensor->name), tensor->name.data, tensor->shape[0], name);
    tensor->offset = (size_t)offset;
    return KILN_OK;
}

/* As ggml wants it: each tensor begins where the one before it ends, rounded up. So none overlap,
 * and there are no holes. */
static enum kiln_status check_offsets(const struct reader *reader) {
    const struct kiln_gguf *gguf = reader->gguf;
    const size_t room = gguf->map.size - kiln_least(gguf->data, gguf->map.size);
    size_t end = 0;
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        const struct kiln_gguf_tensor *tensor = &gguf->tensors[i];
        KILN_REQUIRE(tensor->offset == end, reader->err, KILN_EINPUT,
                     "%s: tensor %.*s is at offset %zu, expected %zu behind the one before it; "
                     "the file is damaged",
                     gguf->path, shown(&tensor->name), tensor->name.data, tensor->offset, end);
        KILN_REQUIRE(end <= room && tensor->bytes <= room - end, reader->err, KILN_EINPUT,
                     "%s: tensor %.*s of %zu bytes at offset %zu lies outside of the file, which "
                     "has %zu bytes of data; it is cut short or damaged",
                     gguf->path, shown(&tensor->name), tensor->name.data, tensor->bytes, end, room);
        end = kiln_round_up(end + tensor->bytes, gguf->alignment); /* both within the file */
    }
    return KILN_OK;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static int by_text(const struct kiln_gguf_string *a, const struct kiln_gguf_string *b) {
    const int order = memcmp(a->data, b->data, kiln_least(a->size, b->size));
    return order != 0 ? order : (a->size > b->size) - (a->size < b->size);
}
static int by_pointed(const void *a, const void *b) {
    return by_text(*(const struct kiln_gguf_string *const *)a,
                   *(const struct kiln_gguf_string *const *)b);
}

/* The first name of n, `step` bytes apart, that is there twice; sorted, so that a file of millions
 * takes no years. */
static enum kiln_status check_unique(const struct reader *reader, const void *first, size_t n,
                                     size_t step, const char *what) {
    const struct kiln_gguf_string **names = kiln_alloc(n, sizeof(void *));
    KILN_REQUIRE(names != NULL, reader->err, KILN_ENOMEM, "%s: no memory for %zu names",
                 reader->gguf->path, n);
    for (size_t i = 0; i < n; i++) {
        names[i] = (const void *)((const char *)first + i * step);
    }
    qsort(names, n, sizeof(void *), by_pointed);
    enum kiln_status status = KILN_OK;
    for (size_t i = 1; i < n && status == KILN_OK; i++) {
        if (by_text(names[i - 1], names[i]) == 0) {
            status = KILN_FAIL(reader->err, KILN_EINPUT, "%s: %s %.*s is there twice",
                               reader->gguf->path, what, shown(names[i]), names[i]->data);
        }
    }
    kiln_free(names);
    return status;
}

static enum kiln_status find_alignment(struct reader *reader) {
    struct kiln_gguf *gguf = reader->gguf;
    int64_t alignment = DEFAULT_ALIGNMENT;
    if (kiln_gguf_find(gguf, "general.alignment") != NULL) {
        KILN_TRY(kiln_gguf_integer(gguf, "general.alignment", &alignment, reader->err));
    }
    KILN_REQUIRE(
        alignment >= 1 && alignment <= LARGEST_ALIGNMENT && (alignment & (alignment - 1)) == 0,
        reader->err, KILN_EINPUT, "%s: general.alignment is %lld, expected a power of two up to %d",
        gguf->path, (long long)alignment, LARGEST_ALIGNMENT);
    gguf->alignment = (size_t)alignment;
    return KILN_OK;
}

static enum kiln_status take_header(struct reader *reader) {
    struct kiln_gguf *gguf = reader->gguf;
    KILN_REQUIRE(kiln_gguf_recognizes(&gguf->map), reader->err, KILN_EINPUT,
                 "%s: not a GGUF file: it does not begin with \"GGUF\"", gguf->path);
    reader->at = 4;
    KILN_TRY(take(reader, &gguf->version, sizeof gguf->version, "its header"));
    KILN_REQUIRE(gguf->version != 0x03000000, reader->err, KILN_EINPUT,
                 "%s: a big-endian GGUF file, which kiln does not read", gguf->path);
    KILN_REQUIRE(gguf->version == 2 || gguf->version == 3, reader->err, KILN_EINPUT,
                 "%s: GGUF version %u; kiln reads versions 2 and 3", gguf->path, gguf->version);
    if (left(reader) < HEADER_BYTES - 8) {
        return cut_short(reader, "its header");
    }
    KILN_TRY(take_count(reader, LEAST_INFO, &gguf->n_tensors, "tensors"));
    return take_count(reader, LEAST_PAIR, &gguf->n_pairs, "key/values");
}

static enum kiln_status parse(struct reader *reader) {
    struct kiln_gguf *gguf = reader->gguf;
    KILN_TRY(take_header(reader));
    gguf->pairs = kiln_alloc(gguf->n_pairs, sizeof *gguf->pairs);
    gguf->tensors = kiln_alloc(gguf->n_tensors, sizeof *gguf->tensors);
    KILN_REQUIRE(gguf->pairs != NULL && gguf->tensors != NULL, reader->err, KILN_ENOMEM,
                 "%s: no memory for %zu key/values and %zu tensors", gguf->path, gguf->n_pairs,
                 gguf->n_tensors);
    KILN_TRY(take_pairs(reader));
    KILN_TRY(
        check_unique(reader, &gguf->pairs[0].key, gguf->n_pairs, sizeof gguf->pairs[0], "key"));
    KILN_TRY(find_alignment(reader));
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        KILN_TRY(take_info(reader, &gguf->tensors[i]));
    }
    KILN_TRY(check_unique(reader, &gguf->tensors[0].name, gguf->n_tensors, sizeof gguf->tensors[0],
                          "tensor"));
    gguf->data = kiln_round_up(reader->at, gguf->alignment);
    return check_offsets(reader);
}

bool kiln_gguf_recognizes(const struct kiln_map *map) {
    return map->size >= 4 && memcmp(map->data, MAGIC, 4) == 0;
}

static enum kiln_status open_any(const struct kiln_map *map, const char *path,
                                 struct kiln_gguf **out, struct kiln_err *err) {
    struct kiln_gguf *gguf = kiln_alloc(1, sizeof *gguf);
    *out = NULL;
    KILN_REQUIRE(gguf != NULL, err, KILN_ENOMEM, "open %s: not enough memory", path);
    struct reader reader = {.gguf = gguf, .err = err};
    gguf->owns_map = map == NULL;
    gguf->path = kiln_strdup(path);
    enum kiln_status status = KILN_OK;
    if (gguf->path == NULL) {
        status = KILN_FAIL(err, KILN_ENOMEM, "open %s: not enough memory", path);
    } else if (map != NULL) {
        gguf->map = *map;
    } else {
        status = kiln_map_open(&gguf->map, path, err);
    }
    if (status == KILN_OK) {
        status = parse(&reader);
    }
    if (status != KILN_OK) {
        kiln_gguf_close(gguf);
        return status;
    }
    *out = gguf;
    return KILN_OK;
}

enum kiln_status kiln_gguf_open(const char *path, struct kiln_gguf **out, struct kiln_err *err) {
    return open_any(NULL, path, out, err);
}

enum kiln_status kiln_gguf_open_map(const struct kiln_map *map, const char *path,
                                    struct kiln_gguf **out, struct kiln_err *err) {
    return open_any(map, path, out, err);
}

void kiln_gguf_close(struct kiln_gguf *gguf) {
    if (gguf == NULL) {
        return;
    }
    if (gguf->owns_map) {
        kiln_map_close(&gguf->map);
    }
    kiln_free(gguf->strings);
    kiln_free(gguf->pairs);
    kiln_free(gguf->tensors);
    kiln_free(gguf->path);
    kiln_free(gguf);
}
