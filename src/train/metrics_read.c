/* SPDX-License-Identifier: MIT */
#include "train/metrics_read.h"

#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* ---- numbers ----------------------------------------------------------------------------------
 */

/* digits * 10^-places, rounded once. The quotient has at least 62 bits and a last one that says
 * whether anything is behind it: more than the 55 that make rounding to 53 exact. */
static double divided(uint64_t digits, uint64_t power) {
    if (digits == 0) {
        return 0;
    }
    const int shift = __builtin_clzll(digits);
    const unsigned __int128 whole = (unsigned __int128)(digits << shift) << 63;
    unsigned __int128 quotient = whole / power;
    quotient |= quotient * power != whole;
    return ldexp((double)quotient, -(63 + shift));
}

/* What the short way cannot: more digits, large exponents. */
static double by_library(const char *at, size_t n) {
    json_t *value = json_loadb(at, n, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
    const double number = json_is_number(value) ? json_number_value(value) : (double)NAN;
    json_decref(value);
    return number;
}

struct decimal {
    uint64_t digits; /* all of them, as one number */
    int n, places;   /* of them behind the point, less the exponent */
};

static bool is_digit(const char *at, const char *end) {
    return at < end && *at >= '0' && *at <= '9';
}

static const char *take_digits(const char *at, const char *end, struct decimal *number) {
    for (; is_digit(at, end); at++) {
        if (number->n < 19) {
            number->digits = number->digits * 10 + (uint64_t)(*at - '0');
        }
        number->n += number->n < 100 && (number->digits > 0 || number->n > 0);
    }
    return at;
}

/* At 'e', or not. */
static const char *take_exponent(const char *at, const char *end, struct decimal *number) {
    if (at >= end || (*at | 0x20) != 'e') {
        return at;
    }
    const char *digit = at + 1;
    const bool negative = digit < end && *digit == '-';
    digit += digit < end && (*digit == '-' || *digit == '+');
    int exponent = 0;
    if (!is_digit(digit, end)) {
        return NULL;
    }
    for (; is_digit(digit, end); digit++) {
        exponent = exponent < 10000 ? exponent * 10 + (*digit - '0') : exponent;
    }
    number->places += negative ? exponent : -exponent;
    return digit;
}

const char *kiln_read_double(const char *at, const char *end, double *out) {
    static const uint64_t powers[20] = {1,
                                        10,
                                        100,
                                        1000,
                                        10000,
                                        100000,
                                        1000000,
                                        10000000,
                                        100000000,
                                        1000000000,
                                        10000000000,
                                        100000000000,
                                        1000000000000,
                                        10000000000000,
                                        100000000000000,
                                        1000000000000000,
                                        10000000000000000,
                                        100000000000000000,
                                        1000000000000000000,
                                        10000000000000000000u};
    struct decimal number = {0};
    const char *const first = at;
    const bool negative = at < end && *at == '-';
    at += negative;
    if (!is_digit(at, end)) {
        return NULL;
    }
    at = take_digits(at, end, &number);
    if (at < end && *at == '.') {
        const char *point = at + 1;
        if (!is_digit(point, end)) {
            return NULL;
        }
        at = take_digits(point, end, &number);
        number.places = (int)(at - point < 1000 ? at - point : 1000);
    }
    at = take_exponent(at, end, &number);
    if (at == NULL) {
        return NULL;
    }
    if (number.n <= 19 && number.places >= 0 && number.places < 20) {
        const double value = divided(number.digits, powers[number.places]);
        *out = negative ? -value : value;
    } else {
        *out = by_library(first, (size_t)(at - first));
    }
    return at;
}

static const char *read_count(const char *at, const char *end, uint64_t *out) {
    uint64_t n = 0;
    double real;
    const char *digit = at;
    for (; is_digit(digit, end); digit++) {
        if (__builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, (uint64_t)(*digit - '0'), &n)) {
            return NULL;
        }
    }
    if (digit > at && (digit >= end || strchr(".eE", *digit) == NULL)) {
        *out = n;
        return digit;
    }
    digit = kiln_read_double(at, end, &real); /* of somebody else's hand */
    *out = digit != NULL && real >= 0 && real < 1.8e19 ? (uint64_t)real : 0;
    return digit;
}

/* ---- a line ------------------------------------------------------------------------------------
 */

enum type { REAL, COUNT, SIGNED, TRUTH };
#define KEY(type, name) \
    { #name, sizeof #name - 1, type, offsetof(struct kiln_step_record, name) }
/* In the order in which they are written, so that the next one is mostly the first that is tried.
 */
static const struct key {
    const char *name;
    size_t length;
    enum type type;
    size_t at;
} keys[] = {
    KEY(COUNT, step),
    KEY(REAL, loss),
    KEY(REAL, grad_norm),
    KEY(REAL, lr),
    KEY(COUNT, tokens),
    KEY(COUNT, staleness),
    KEY(REAL, ms),
    KEY(REAL, ms_per_micro_batch),
    KEY(REAL, tokens_per_s),
    KEY(REAL, tflops),
    KEY(REAL, utilization),
    KEY(REAL, compile_ms),
    KEY(REAL, stall_ms),
    KEY(REAL, overlap_ms),
    KEY(REAL, device_ms),
    KEY(REAL, host_ms),
    KEY(REAL, io_ms),
    KEY(REAL, dw_wait_ms),
    KEY(REAL, update_ms),
    KEY(REAL, restart_ms),
    KEY(COUNT, compiles),
    KEY(COUNT, layer_forwards),
    KEY(COUNT, peak_bytes),
    KEY(COUNT, restarts),
    KEY(COUNT, surface_read_bytes),
    KEY(COUNT, surface_written_bytes),
    KEY(COUNT, ranks),
    KEY(REAL, reduce_ms),
    KEY(REAL, reduce_wait_ms),
    KEY(REAL, outer_ms),
    KEY(REAL, ranks_wait_ms),
    KEY(REAL, loss_scale),
    KEY(REAL, loss_z),
    KEY(REAL, grad_norm_z),
    KEY(REAL, val_loss),
    KEY(SIGNED, val_generation),
    KEY(TRUTH, skipped),
};
enum { KEYS = sizeof keys / sizeof keys[0] };

static const struct key *find_key(const char *name, size_t n, size_t *next) {
    for (size_t i = 0; i < KEYS; i++) {
        const struct key *key = &keys[(*next + i) % KEYS];
        if (key->length == n && memcmp(key->name, name, n) == 0) {
            *next = (*next + i + 1) % KEYS;
            return key;
        }
    }
    return NULL;
}

static const char *blanks(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r')) {
        at++;
    }
    return at;
}

/* Behind the quote that ends the string whose first quote is at `at`. */
static const char *behind_string(const char *at, const char *end) {
    for (at++; at < end && *at != '"'; at++) {
        if (*at == '\\' && ++at == end) {
            break;
        }
    }
    return at < end ? at + 1 : NULL;
}

/* Behind any value; only strings and brackets are looked into. */
static const char *behind_value(const char *at, const char *end) {
    size_t depth = 0;
    while (at < end) {
        if (*at == '"') {
            at = behind_string(at, end);
            if (at == NULL) {
                return NULL;
            }
            continue;
        }
        if (depth == 0 && (*at == ',' || *at == '}')) {
            return at;
        }
        depth += *at == '{' || *at == '[';
        if ((*at == '}' || *at == ']') && depth-- == 0) {
            return NULL;
        }
        at++;
    }
    return NULL;
}

static bool word(const char *at, const char *end, const char *text) {
    const size_t n = strlen(text);
    return (size_t)(end - at) >= n && memcmp(at, text, n) == 0;
}

/* NULL: no value of that type. */
static const char *read_value(const char *at, const char *end, const struct key *key,
                              struct kiln_step_record *out) {
    char *member = (char *)out + key->at;
    uint64_t n = 0;
    double real = (double)NAN;
    if (word(at, end, "null")) {
        return at + 4; /* as if it were not there */
    }
    switch (key->type) {
        case REAL:
            at = kiln_read_double(at, end, &real);
            memcpy(member, &real, sizeof real);
            return at;
        case COUNT:
            at = read_count(at, end, &n);
            memcpy(member, &n, sizeof n);
            return at;
        case SIGNED:
            at = *at == '-' ? NULL : read_count(at, end, &n);
            out->val_generation = n <= INT64_MAX && at != NULL ? (int64_t)n : -1;
            return at;
        case TRUTH:
            out->skipped = word(at, end, "true");
            return behind_value(at, end);
    }
    return NULL;
}

/* At the first quote of a key. What is no number where one is wanted is passed over. */
static const char *read_member(const char *at, const char *end, size_t *next,
                               struct kiln_step_record *out, bool *has_step) {
    const char *name = at + 1;
    at = behind_string(at, end);
    if (at == NULL) {
        return NULL;
    }
    const struct key *key = find_key(name, (size_t)(at - 1 - name), next);
    at = blanks(at, end);
    if (at >= end || *at != ':') {
        return NULL;
    }
    at = blanks(at + 1, end);
    if (at >= end) {
        return NULL;
    }
    if (key == NULL) {
        return behind_value(at, end);
    }
    const char *behind = read_value(at, end, key, out);
    *has_step |= key == &keys[0] && behind != NULL && is_digit(at, end);
    out->surfaces |= key->at == offsetof(struct kiln_step_record, surface_read_bytes);
    return behind != NULL ? behind : behind_value(at, end);
}

bool kiln_metrics_read(const char *line, size_t n, struct kiln_step_record *out) {
    const char *const end = line + n;
    const char *at = blanks(line, end);
    size_t next = 0;
    bool has_step = false;
    *out = (struct kiln_step_record){.val_generation = -1};
    for (size_t i = 0; i < KEYS; i++) {
        if (keys[i].type == REAL) {
            memcpy((char *)out + keys[i].at, &(double){(double)NAN}, sizeof(double));
        }
    }
    out->loss_scale = 0;
    if (at >= end || *at != '{') {
        return false;
    }
    do {
        at = blanks(at + 1, end);
        if (at >= end || *at != '"') {
            return false;
        }
        at = read_member(at, end, &next, out, &has_step);
        at = at != NULL ? blanks(at, end) : end;
    } while (at < end && *at == ',');
    return at < end && *at == '}' && has_step;
}
