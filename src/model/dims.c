/* SPDX-License-Identifier: MIT
 *
 * dims.c: do these sizes make a model? Sizes come from command lines and from file headers, so
 * everything that later code multiplies or divides is settled here, and a message names the values
 * that would do.
 */
#include "kiln/model.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>

#define LIST_ROOM   120
#define LAST_LISTED 65536 /* larger divisors are not looked for: n may be huge */
#define MAX_SIZE    INT32_MAX
#define MAX_LAYERS                                                                 \
    65536 /* far beyond any model: keeps a slip of the keyboard from eating memory \
           */

/* "1, 2, 4, 8": the divisors of n, as many as fit; then "...". */
static void list_divisors(size_t n, char list[LIST_ROOM]) {
    size_t used = 0;
    for (size_t d = 1; d <= n; d++) {
        if (used > LIST_ROOM - 32 || d > LAST_LISTED) {
            snprintf(list + used, LIST_ROOM - used, ", ...");
            return;
        }
        if (n % d == 0) {
            const char *comma = used > 0 ? ", " : "";
            used += (size_t)snprintf(list + used, LIST_ROOM - used, "%s%zu", comma, d);
        }
    }
}

/* Every size alone. 2^31-1 is what file headers hold, and it keeps a product of any two sizes
 * within size_t. */
static enum kiln_status check_each(const struct kiln_dims *dims, struct kiln_err *err) {
    const struct {
        const char *name;
        size_t value, most;
    } sizes[] = {
        {"dim", dims->dim, MAX_SIZE},           {"hidden", dims->hidden, MAX_SIZE},
        {"layers", dims->layers, MAX_LAYERS},   {"heads", dims->heads, MAX_SIZE},
        {"kv-heads", dims->kv_heads, MAX_SIZE}, {"vocab", dims->vocab, MAX_SIZE},
        {"seq", dims->seq, MAX_SIZE},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        KILN_REQUIRE(sizes[i].value >= 1 && sizes[i].value <= sizes[i].most, err, KILN_EUSAGE,
                     "%s %zu: use 1 to %zu", sizes[i].name, sizes[i].value, sizes[i].most);
    }
    KILN_REQUIRE(isfinite(dims->rms_eps) && dims->rms_eps > 0, err, KILN_EUSAGE,
                 "rms_eps %g: use a small positive number, as 1e-5", (double)dims->rms_eps);
    KILN_REQUIRE(isfinite(dims->rope_theta) && dims->rope_theta > 0, err, KILN_EUSAGE,
                 "rope_theta %g: use a positive number, as 10000", (double)dims->rope_theta);
    return KILN_OK;
}

/* The head size that follows from dim and heads, which is even. */
static enum kiln_status share_heads(struct kiln_dims *dims, struct kiln_err *err) {
    char list[LIST_ROOM];
    /* heads * an even head size = dim, so heads divides dim/2 */
    list_divisors(dims->dim / 2, list);
    KILN_REQUIRE(dims->dim % dims->heads == 0, err, KILN_EUSAGE,
                 "heads %zu does not divide dim %zu: use %s", dims->heads, dims->dim, list);
    KILN_REQUIRE(dims->dim / dims->heads % 2 == 0, err, KILN_EUSAGE,
                 "heads %zu of dim %zu makes heads of odd size %zu and RoPE turns pairs: use %s",
                 dims->heads, dims->dim, dims->dim / dims->heads, list);
    dims->head_size = dims->dim / dims->heads;
    return KILN_OK;
}

static enum kiln_status check_heads(struct kiln_dims *dims, struct kiln_err *err) {
    char list[LIST_ROOM];
    KILN_REQUIRE(dims->dim % 2 == 0, err, KILN_EUSAGE,
                 "dim %zu is odd: RoPE turns pairs, so use an even dim", dims->dim);
    KILN_TRY(dims->head_size == 0 ? share_heads(dims, err) : KILN_OK);
    KILN_REQUIRE(dims->head_size % 2 == 0 && dims->head_size <= MAX_SIZE / dims->heads, err,
                 KILN_EUSAGE,
                 "head_size %zu: use an even one, as RoPE turns pairs, of which %zu heads make at "
                 "most %d",
                 dims->head_size, dims->heads, MAX_SIZE);
    list_divisors(dims->heads, list);
    KILN_REQUIRE(dims->heads % dims->kv_heads == 0, err, KILN_EUSAGE,
                 "kv-heads %zu does not divide heads %zu: use %s", dims->kv_heads, dims->heads,
                 list);
    return KILN_OK;
}

static enum kiln_status check_factor(const char *name, float value, float least,
                                     struct kiln_err *err) {
    KILN_REQUIRE(isfinite(value) && value >= least, err, KILN_EUSAGE,
                 "rope scaling: %s %g: use a number from %g up", name, (double)value,
                 (double)least);
    return KILN_OK;
}

/* What a file may be silent about is filled in, what the kind does not use is 0. */
static enum kiln_status check_yarn(struct kiln_rope *rope, struct kiln_err *err) {
    const float factor = rope->factor > 1 ? rope->factor : 1;
    rope->beta_fast = rope->beta_fast == 0 ? 32 : rope->beta_fast;
    rope->beta_slow = rope->beta_slow == 0 ? 1 : rope->beta_slow;
    rope->attention_factor = rope->attention_factor == 0 ? (float)(0.1 * log((double)factor) + 1.0)
                                                         : rope->attention_factor;
    rope->low_freq_factor = rope->high_freq_factor = 0;
    KILN_TRY(check_factor("attention_factor", rope->attention_factor, 0x1p-20F, err));
    KILN_TRY(check_factor("beta_slow", rope->beta_slow, 0x1p-20F, err));
    KILN_REQUIRE(isfinite(rope->beta_fast) && rope->beta_fast >= rope->beta_slow, err, KILN_EUSAGE,
                 "rope scaling: beta_fast %g: use a number from beta_slow %g up",
                 (double)rope->beta_fast, (double)rope->beta_slow);
    return KILN_OK;
}

static enum kiln_status check_llama3(struct kiln_rope *rope, struct kiln_err *err) {
    rope->beta_fast = rope->beta_slow = rope->attention_factor = 0;
    KILN_TRY(check_factor("low_freq_factor", rope->low_freq_factor, 0x1p-20F, err));
    KILN_REQUIRE(isfinite(rope->high_freq_factor) && rope->high_freq_factor > rope->low_freq_factor,
                 err, KILN_EUSAGE,
                 "rope scaling: high_freq_factor %g: use a number above low_freq_factor %g",
                 (double)rope->high_freq_factor, (double)rope->low_freq_factor);
    return KILN_OK;
}

static enum kiln_status check_rope(const struct kiln_dims *dims, struct kiln_rope *rope,
                                   struct kiln_err *err) {
    const bool parts = rope->kind == KILN_ROPE_LLAMA3 || rope->kind == KILN_ROPE_YARN;
    KILN_REQUIRE((unsigned)rope->kind <= KILN_ROPE_YARN, err, KILN_EUSAGE,
                 "rope scaling of kind %d: use none, linear, llama3 or yarn", (int)rope->kind);
    if (rope->kind == KILN_ROPE_PLAIN) {
        *rope = (struct kiln_rope){.kind = KILN_ROPE_PLAIN};
        return KILN_OK;
    }
    KILN_TRY(check_factor("factor", rope->factor, 1, err));
    KILN_REQUIRE(!parts || (rope->original_seq >= 1 && rope->original_seq <= MAX_SIZE), err,
                 KILN_EUSAGE, "rope scaling: original sequence of %zu: use 1 to %d",
                 rope->original_seq, MAX_SIZE);
    if (rope->kind == KILN_ROPE_LINEAR) {
        *rope = (struct kiln_rope){.kind = KILN_ROPE_LINEAR, .factor = rope->factor};
    }
    KILN_REQUIRE(rope->kind != KILN_ROPE_YARN || dims->rope_theta > 1, err, KILN_EUSAGE,
                 "rope scaling yarn: rope_theta %g: use a number above 1",
                 (double)dims->rope_theta);
    return rope->kind == KILN_ROPE_YARN     ? check_yarn(rope, err)
           : rope->kind == KILN_ROPE_LLAMA3 ? check_llama3(rope, err)
                                            : KILN_OK;
}

/* Bytes that training may ask for in one piece, rounded up generously; in floating point, where
 * nothing wraps around. The bound leaves a factor of two to the end of the address space. */
static enum kiln_status check_total(const struct kiln_dims *dims, struct kiln_err *err) {
    double D = (double)dims->dim + 64, F = (double)dims->hidden + 64, V = (double)dims->vocab + 64;
    double Q = (double)dims->heads * (double)dims->head_size + 64;
    double per_layer = 6 * D * (Q > D ? Q : D) + 4 * D * F;
    double parameters = 2 * V * D + (double)dims->layers * per_layer;
    double widest = V > 2 * F ? V : 2 * F;
    widest = widest > 3 * Q ? widest : 3 * Q;
    double tokens = (double)dims->seq * (widest > 3 * D ? widest : 3 * D);
    KILN_REQUIRE(parameters * 16 + tokens * 4 < 0x1p62, err, KILN_EUSAGE,
                 "dim %zu, hidden %zu, layers %zu, heads %zu of %zu, vocab %zu, seq %zu: more than "
                 "2^62 bytes; make one of them smaller",
                 dims->dim, dims->hidden, dims->layers, dims->heads, dims->head_size, dims->vocab,
                 dims->seq);
    return KILN_OK;
}

enum kiln_status kiln_dims_check(struct kiln_dims *dims, struct kiln_err *err) {
    KILN_TRY(check_each(dims, err));
    KILN_TRY(check_heads(dims, err));
    KILN_TRY(check_rope(dims, &dims->rope, err));
    return check_total(dims, err);
}
