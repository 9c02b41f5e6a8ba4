/* SPDX-License-Identifier: MIT
 *
 * gguf_value.c: what a GGUF file's keys and tensors are asked for; see gguf.h.
 */
#include <string.h>

#include "model/gguf.h"

static bool is(const struct kiln_gguf_string *text, const char *name, size_t size) {
    return text->size == size && memcmp(text->data, name, size) == 0;
}

const struct kiln_gguf_pair *kiln_gguf_find(const struct kiln_gguf *gguf, const char *key) {
    const size_t size = strlen(key);
    for (size_t i = 0; i < gguf->n_pairs; i++) {
        if (is(&gguf->pairs[i].key, key, size)) {
            return &gguf->pairs[i];
        }
    }
    return NULL;
}

const struct kiln_gguf_tensor *kiln_gguf_find_tensor(const struct kiln_gguf *gguf,
                                                     const char *name) {
    const size_t size = strlen(name);
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        if (is(&gguf->tensors[i].name, name, size)) {
            return &gguf->tensors[i];
        }
    }
    return NULL;
}

const unsigned char *kiln_gguf_data(const struct kiln_gguf *gguf,
                                    const struct kiln_gguf_tensor *tensor) {
    return gguf->map.data + gguf->data + tensor->offset;
}

/* ---- numbers -------------------------------------------------------------------------------- */

static bool is_integer(enum kiln_gguf_type type) {
    return kiln_gguf_type_bytes(type) > 0 && type != KILN_GGUF_F32 && type != KILN_GGUF_F64 &&
           type != KILN_GGUF_BOOL;
}

static bool is_signed(enum kiln_gguf_type type) {
    return type == KILN_GGUF_I8 || type == KILN_GGUF_I16 || type == KILN_GGUF_I32 ||
           type == KILN_GGUF_I64;
}

/* The bits of element i, the sign carried on where the type has one. */
static uint64_t bits_at(const struct kiln_gguf_pair *pair, size_t i) {
    const size_t size = kiln_gguf_type_bytes(pair->type);
    uint64_t bits = 0;
    memcpy(&bits, (const char *)pair->numbers + i * size, size);
    const unsigned width = 8 * (unsigned)size;
    if (is_signed(pair->type) && width < 64 && bits >> (width - 1)) {
        bits |= ~(uint64_t)0 << width;
    }
    return bits;
}

bool kiln_gguf_integer_at(const struct kiln_gguf_pair *pair, size_t i, int64_t *out) {
    if (!is_integer(pair->type)) {
        return false;
    }
    const uint64_t bits = bits_at(pair, i);
    *out = (int64_t)bits;
    return pair->type != KILN_GGUF_U64 || bits <= INT64_MAX;
}

double kiln_gguf_real_at(const struct kiln_gguf_pair *pair, size_t i) {
    const uint64_t bits = bits_at(pair, i);
    double real;
    float single;
    if (pair->type == KILN_GGUF_F64) {
        memcpy(&real, &bits, sizeof real);
        return real;
    }
    if (pair->type == KILN_GGUF_F32) {
        memcpy(&single, &bits, sizeof single);
        return (double)single;
    }
    return is_signed(pair->type) ? (double)(int64_t)bits : (double)bits;
}

/* ---- by key --------------------------------------------------------------------------------- */

static enum kiln_status wanted(const struct kiln_gguf *gguf, const char *key, const char *what,
                               const struct kiln_gguf_pair *pair, struct kiln_err *err) {
    if (pair == NULL) {
        return KILN_FAIL(err, KILN_EINPUT, "%s: key %s is missing, expected %s", gguf->path, key,
                         what);
    }
    return KILN_FAIL(err, KILN_EINPUT, "%s: key %s is %s%s, expected %s", gguf->path, key,
                     pair->array ? "an array of " : "", kiln_gguf_type_name(pair->type), what);
}

enum kiln_status kiln_gguf_integer(const struct kiln_gguf *gguf, const char *key, int64_t *out,
                                   struct kiln_err *err) {
    const struct kiln_gguf_pair *pair = kiln_gguf_find(gguf, key);
    if (pair == NULL || pair->array || !kiln_gguf_integer_at(pair, 0, out)) {
        return wanted(gguf, key, "an integer", pair, err);
    }
    return KILN_OK;
}

enum kiln_status kiln_gguf_real(const struct kiln_gguf *gguf, const char *key, double *out,
                                struct kiln_err *err) {
    const struct kiln_gguf_pair *pair = kiln_gguf_find(gguf, key);
    if (pair == NULL || pair->array ||
        (pair->type != KILN_GGUF_F32 && pair->type != KILN_GGUF_F64)) {
        return wanted(gguf, key, "a real number", pair, err);
    }
    *out = kiln_gguf_real_at(pair, 0);
    return KILN_OK;
}

enum kiln_status kiln_gguf_flag(const struct kiln_gguf *gguf, const char *key, bool *out,
                                struct kiln_err *err) {
    const struct kiln_gguf_pair *pair = kiln_gguf_find(gguf, key);
    if (pair == NULL || pair->array || pair->type != KILN_GGUF_BOOL) {
        return wanted(gguf, key, "a bool", pair, err);
    }
    *out = bits_at(pair, 0) != 0;
    return KILN_OK;
}

enum kiln_status kiln_gguf_text(const struct kiln_gguf *gguf, const char *key,
                                struct kiln_gguf_string *out, struct kiln_err *err) {
    const struct kiln_gguf_pair *pair = kiln_gguf_find(gguf, key);
    if (pair == NULL || pair->array || pair->type != KILN_GGUF_STRING) {
        return wanted(gguf, key, "a string", pair, err);
    }
    *out = pair->strings[0];
    return KILN_OK;
}

enum kiln_status kiln_gguf_strings(const struct kiln_gguf *gguf, const char *key,
                                   const struct kiln_gguf_pair **out, struct kiln_err *err) {
    *out = kiln_gguf_find(gguf, key);
    if (*out == NULL || !(*out)->array || (*out)->type != KILN_GGUF_STRING) {
        return wanted(gguf, key, "an array of strings", *out, err);
    }
    return KILN_OK;
}

enum kiln_status kiln_gguf_numbers(const struct kiln_gguf *gguf, const char *key,
                                   const struct kiln_gguf_pair **out, struct kiln_err *err) {
    *out = kiln_gguf_find(gguf, key);
    if (*out == NULL || !(*out)->array || (*out)->type == KILN_GGUF_STRING) {
        return wanted(gguf, key, "an array of numbers", *out, err);
    }
    return KILN_OK;
}
