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

static enum kiln_status check_heads(struct kiln_dims *dims, struct kiln_err *err) {
    char list[LIST_ROOM];
    KILN_REQUIRE(dims->dim % 2 == 0, err, KILN_EUSAGE,
                 "dim %zu is odd: RoPE turns pairs, so use an even dim", dims->dim);
    /* heads * an even head size = dim, so heads divides dim/2 */
    list_divisors(dims->dim / 2, list);
    KILN_REQUIRE(dims->dim % dims->heads == 0, err, KILN_EUSAGE,
                 "heads %zu does not divide dim %zu: use %s", dims->heads, dims->dim, list);
    KILN_REQUIRE(dims->dim / dims->heads % 2 == 0, err, KILN_EUSAGE,
                 "heads %zu of dim %zu makes heads of odd size %zu and RoPE turns pairs: use %s",
                 dims->heads, dims->dim, dims->dim / dims->heads, list);
    if (dims->head_size == 0) {
        dims->head_size = dims->dim / dims->heads;
    }
    KILN_REQUIRE(dims->head_size == dims->dim / dims->heads, err, KILN_EUSAGE,
                 "head_size %zu: dim %zu with %zu heads makes it %zu", dims->head_size, dims->dim,
                 dims->heads, dims->dim / dims->heads);
    list_divisors(dims->heads, list);
    KILN_REQUIRE(dims->heads % dims->kv_heads == 0, err, KILN_EUSAGE,
                 "kv-heads %zu does not divide heads %zu: use %s", dims->kv_heads, dims->heads,
                 list);
    return KILN_OK;
}

/* Bytes that training may ask for in one piece, rounded up generously; in floating point, where
 * nothing wraps around. The bound leaves a factor of two to the end of the address space. */
static enum kiln_status check_total(const struct kiln_dims *dims, struct kiln_err *err) {
    double D = (double)dims->dim + 64, F = (double)dims->hidden + 64, V = (double)dims->vocab + 64;
    double per_layer = 6 * D * D + 4 * D * F;
    double parameters = 2 * V * D + (double)dims->layers * per_layer;
    double widest = V > 2 * F ? V : 2 * F;
    double tokens = (double)dims->seq * (widest > 3 * D ? widest : 3 * D);
    KILN_REQUIRE(parameters * 16 + tokens * 4 < 0x1p62, err, KILN_EUSAGE,
                 "dim %zu, hidden %zu, layers %zu, vocab %zu, seq %zu: more than 2^62 bytes; make "
                 "one of them smaller",
                 dims->dim, dims->hidden, dims->layers, dims->vocab, dims->seq);
    return KILN_OK;
}

enum kiln_status kiln_dims_check(struct kiln_dims *dims, struct kiln_err *err) {
    KILN_TRY(check_each(dims, err));
    KILN_TRY(check_heads(dims, err));
    return check_total(dims, err);
}
