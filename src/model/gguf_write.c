/* SPDX-License-Identifier: MIT
 *
 * gguf_write.c: lists of key/values, and the writer of GGUF files; see gguf.h.
 */
#include <string.h>

#include "base/mem.h"
#include "model/gguf.h"

#define ALIGNMENT 32 /* the default, so that no key need say it */

/* ---- lists ---------------------------------------------------------------------------------- */

static size_t strings_bytes(const struct kiln_gguf_string *strings, size_t n) {
    size_t bytes = 0;
    for (size_t i = 0; strings != NULL && i < n; i++) {
        bytes += strings[i].size;
    }
    return bytes;
}

/* One block for all of a pair: the strings' array, the numbers, the key, the strings' bytes. */
static void *copy_pair(const struct kiln_gguf_pair *from, struct kiln_gguf_pair *to) {
    const size_t array = from->strings != NULL ? from->n * sizeof *from->strings : 0;
    const size_t numbers = from->strings == NULL ? from->n * kiln_gguf_type_bytes(from->type) : 0;
    const size_t text = strings_bytes(from->strings, from->n);
    char *block = kiln_alloc(array + numbers + from->key.size + text + 1, 1);
    if (block == NULL) {
        return NULL;
    }
    struct kiln_gguf_string *strings = (void *)block;
    char *at = block + array + numbers;
    *to = *from;
    memcpy(at, from->key.data, from->key.size);
    to->key.data = at;
    at += from->key.size;
    to->strings = from->strings != NULL ? strings : NULL;
    to->numbers = block; /* also what is freed: the block begins here */
    if (numbers > 0 && from->numbers != NULL) {
        memcpy(block, from->numbers, numbers);
    }
    for (size_t i = 0; from->strings != NULL && i < from->n; i++) {
        strings[i] = (struct kiln_gguf_string){.data = at, .size = from->strings[i].size};
        if (strings[i].size > 0) {
            memcpy(at, from->strings[i].data, strings[i].size);
        }
        at += strings[i].size;
    }
    return block;
}

enum kiln_status kiln_gguf_put_pair(struct kiln_gguf_pairs *pairs,
                                    const struct kiln_gguf_pair *pair, struct kiln_err *err) {
    if (pairs->n == pairs->room) {
        const size_t room = pairs->room > 0 ? 2 * pairs->room : 32;
        struct kiln_gguf_pair *grown = kiln_realloc(pairs->pair, pairs->room, room, sizeof *grown);
        KILN_REQUIRE(grown != NULL, err, KILN_ENOMEM, "no memory for %zu key/values", room);
        pairs->pair = grown;
        pairs->room = room;
    }
    KILN_REQUIRE(copy_pair(pair, &pairs->pair[pairs->n]) != NULL, err, KILN_ENOMEM,
                 "no memory for the value of %.*s", (int)pair->key.size, pair->key.data);
    pairs->n++;
    return KILN_OK;
}

static enum kiln_status put(struct kiln_gguf_pairs *pairs, const char *key,
                            enum kiln_gguf_type type, const void *number, struct kiln_err *err) {
    const struct kiln_gguf_pair pair = {
        .key = {.data = key, .size = strlen(key)}, .type = type, .n = 1, .numbers = number};
    return kiln_gguf_put_pair(pairs, &pair, err);
}

enum kiln_status kiln_gguf_put_u32(struct kiln_gguf_pairs *pairs, const char *key, uint32_t value,
                                   struct kiln_err *err) {
    return put(pairs, key, KILN_GGUF_U32, &value, err);
}

enum kiln_status kiln_gguf_put_f32(struct kiln_gguf_pairs *pairs, const char *key, float value,
                                   struct kiln_err *err) {
    return put(pairs, key, KILN_GGUF_F32, &value, err);
}

enum kiln_status kiln_gguf_put_bool(struct kiln_gguf_pairs *pairs, const char *key, bool value,
                                    struct kiln_err *err) {
    const unsigned char byte = value;
    return put(pairs, key, KILN_GGUF_BOOL, &byte, err);
}

enum kiln_status kiln_gguf_put_text(struct kiln_gguf_pairs *pairs, const char *key,
                                    const char *value, struct kiln_err *err) {
    const struct kiln_gguf_string text = {.data = value, .size = strlen(value)};
    const struct kiln_gguf_pair pair = {.key = {.data = key, .size = strlen(key)},
                                        .type = KILN_GGUF_STRING,
                                        .n = 1,
                                        .strings = &text};
    return kiln_gguf_put_pair(pairs, &pair, err);
}

enum kiln_status kiln_gguf_put_numbers(struct kiln_gguf_pairs *pairs, const char *key,
                                       enum kiln_gguf_type type, const void *values, size_t n,
                                       struct kiln_err *err) {
    const struct kiln_gguf_pair pair = {.key = {.data = key, .size = strlen(key)},
                                        .type = type,
                                        .array = true,
                                        .n = n,
                                        .numbers = values};
    return kiln_gguf_put_pair(pairs, &pair, err);
}

enum kiln_status kiln_gguf_put_strings(struct kiln_gguf_pairs *pairs, const char *key,
                                       const struct kiln_gguf_string *values, size_t n,
                                       struct kiln_err *err) {
    const struct kiln_gguf_pair pair = {.key = {.data = key, .size = strlen(key)},
                                        .type = KILN_GGUF_STRING,
                                        .array = true,
                                        .n = n,
                                        .strings = values};
    return kiln_gguf_put_pair(pairs, &pair, err);
}

void kiln_gguf_pairs_free(struct kiln_gguf_pairs *pairs) {
    for (size_t i = 0; i < pairs->n; i++) {
        kiln_free((void *)(uintptr_t)pairs->pair[i].numbers); /* see copy_pair */
    }
    kiln_free(pairs->pair);
    *pairs = (struct kiln_gguf_pairs){0};
}

/* ---- files ---------------------------------------------------------------------------------- */

/* What is written, counted, so that the padding is known; the first failure stays. */
struct head {
    struct kiln_durable *file;
    size_t size;
    enum kiln_status status;
    struct kiln_err *err;
};

static void add(struct head *head, const void *data, size_t size) {
    if (head->status == KILN_OK) {
        head->status = kiln_durable_write(head->file, data, size, head->err);
        head->size += size;
    }
}

static void add_u32(struct head *head, uint32_t value) { add(head, &value, sizeof value); }

static void add_u64(struct head *head, uint64_t value) { add(head, &value, sizeof value); }

static void add_string(struct head *head, const struct kiln_gguf_string *text) {
    add_u64(head, text->size);
    add(head, text->data, text->size);
}

static void add_pair(struct head *head, const struct kiln_gguf_pair *pair) {
    add_string(head, &pair->key);
    if (pair->array) {
        add_u32(head, KILN_GGUF_ARRAY);
    }
    add_u32(head, (uint32_t)pair->type);
    if (pair->array) {
        add_u64(head, pair->n);
    }
    if (pair->strings == NULL) {
        add(head, pair->numbers, pair->n * kiln_gguf_type_bytes(pair->type));
    }
    for (size_t i = 0; pair->strings != NULL && i < pair->n; i++) {
        add_string(head, &pair->strings[i]);
    }
}

static void add_info(struct head *head, const struct kiln_gguf_tensor *tensor) {
    add_string(head, &tensor->name);
    add_u32(head, (uint32_t)tensor->rank);
    for (size_t i = 0; i < tensor->rank; i++) {
        add_u64(head, tensor->shape[i]);
    }
    add_u32(head, tensor->type);
    add_u64(head, tensor->offset);
}

static size_t padding(size_t size) { return kiln_round_up(size, ALIGNMENT) - size; }

static const char zeros[ALIGNMENT];

/* Sizes of the table are bounded (kiln_dims_check): nothing here overflows. */
static enum kiln_status place(struct kiln_gguf_tensor *tensors, size_t n, struct kiln_err *err) {
    size_t end = 0;
    for (size_t i = 0; i < n; i++) {
        struct kiln_gguf_tensor *t = &tensors[i];
        size_t row;
        KILN_REQUIRE(kiln_ggml_row_bytes(t->type, t->shape[0], &row), err, KILN_EUNSUPPORTED,
                     "tensor %.*s: rows of %zu elements cannot be written as type %s",
                     (int)t->name.size, t->name.data, t->shape[0], kiln_ggml_type_name(t->type));
        t->bytes = row;
        for (size_t r = 1; r < t->rank; r++) {
            t->bytes *= t->shape[r];
        }
        t->offset = end;
        end += t->bytes + padding(t->bytes);
    }
    return KILN_OK;
}

/* Lists hold some tens of keys: all are compared. */
static enum kiln_status check_keys(const struct kiln_gguf_pairs *const *lists, size_t n_lists,
                                   const struct kiln_gguf_string *key, struct kiln_err *err) {
    size_t found = 0;
    for (size_t l = 0; l < n_lists; l++) {
        for (size_t i = 0; i < lists[l]->n; i++) {
            const struct kiln_gguf_string *other = &lists[l]->pair[i].key;
            found += other->size == key->size && memcmp(other->data, key->data, key->size) == 0;
        }
    }
    KILN_REQUIRE(found == 1, err, KILN_EUSAGE, "key %.*s is to be written twice", (int)key->size,
                 key->data);
    return KILN_OK;
}

enum kiln_status kiln_gguf_begin(struct kiln_gguf_writer *writer, struct kiln_durable *file,
                                 const struct kiln_gguf_pairs *const *lists, size_t n_lists,
                                 struct kiln_gguf_tensor *tensors, size_t n_tensors,
                                 struct kiln_err *err) {
    *writer = (struct kiln_gguf_writer){.file = file, .tensors = tensors, .n_tensors = n_tensors};
    KILN_TRY(place(tensors, n_tensors, err));
    struct head head = {.file = file, .err = err};
    size_t n_pairs = 0;
    for (size_t l = 0; l < n_lists; l++) {
        n_pairs += lists[l]->n;
    }
    add(&head, "GGUF", 4);
    add_u32(&head, 3);
    add_u64(&head, n_tensors);
    add_u64(&head, n_pairs);
    for (size_t l = 0; l < n_lists; l++) {
        for (size_t i = 0; i < lists[l]->n; i++) {
            KILN_TRY(check_keys(lists, n_lists, &lists[l]->pair[i].key, err));
            add_pair(&head, &lists[l]->pair[i]);
        }
    }
    for (size_t i = 0; i < n_tensors; i++) {
        add_info(&head, &tensors[i]);
    }
    add(&head, zeros, padding(head.size));
    return head.status;
}

enum kiln_status kiln_gguf_write(struct kiln_gguf_writer *writer, const void *data, size_t size,
                                 struct kiln_err *err) {
    KILN_REQUIRE(writer->at < writer->n_tensors &&
                     size <= writer->tensors[writer->at].bytes - writer->written,
                 err, KILN_EINTERNAL, "%zu bytes behind the end of tensor %zu of a GGUF file", size,
                 writer->at);
    const size_t whole = writer->tensors[writer->at].bytes;
    KILN_TRY(kiln_durable_write(writer->file, data, size, err));
    writer->written += size;
    if (writer->written == whole) {
        KILN_TRY(kiln_durable_write(writer->file, zeros, padding(whole), err));
        writer->at++;
        writer->written = 0;
    }
    return KILN_OK;
}

enum kiln_status kiln_gguf_end(struct kiln_gguf_writer *writer, struct kiln_err *err) {
    KILN_REQUIRE(writer->at == writer->n_tensors, err, KILN_EINTERNAL,
                 "tensor %zu of %zu of a GGUF file has %zu bytes only", writer->at,
                 writer->n_tensors, writer->written);
    return KILN_OK;
}
