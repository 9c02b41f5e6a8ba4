/* SPDX-License-Identifier: MIT
 *
 * host_lora.c: gradients of adapters, one sequence, channel-major (host.h).
 */
#include <string.h>

#include "device/host/host.h"

enum { TOKENS = 64, LANES = 16 };

struct lora_job {
    const struct kiln_host *host;
    struct kiln_host_narrow n; /* of narrow_tokens */
    const float *small;
    const uint16_t *x;
    float *out;
    size_t rank, by_channel, by_rank;
    bool add;
};

/* ---- [r, T] of a wide [n, T] -------------------------------------------------------------------
 */

/* Tokens of one piece: channels are added in order, so bits depend on nothing else. */
static void narrow_tokens(void *context, size_t piece, size_t pieces, size_t index, void *scratch) {
    const struct lora_job *job = context;
    const struct kiln_host_narrow *n = &job->n;
    const struct kiln_host *host = job->host;
    const size_t seq = host->options.shape.seq, width = host->width;
    float x[TOKENS];
    (void)index;
    (void)scratch;
    for (size_t t = piece * TOKENS; t < kiln_least(seq, (piece + pieces) * TOKENS); t += TOKENS) {
        const size_t tokens = kiln_least(seq - t, TOKENS);
        for (size_t k = 0; k < n->rank; k++) {
            memset(n->out + k * width + t, 0, tokens * sizeof *n->out);
        }
        for (size_t c = 0; c < n->channels; c++) {
            host->kernels.half_to(x, n->x + c * width + t, tokens);
            for (size_t k = 0; k < n->rank; k++) {
                const float w = n->w[c * n->by_channel + k * n->by_rank] * n->scale;
                float *out = n->out + k * width + t;
                for (size_t i = 0; i < tokens; i++) {
                    out[i] += w * x[i];
                }
            }
        }
    }
}

void kiln_host_narrow(struct kiln_host *host, const struct kiln_host_narrow *narrow) {
    struct lora_job job = {.host = host, .n = *narrow};
    const size_t pieces = (host->options.shape.seq + TOKENS - 1) / TOKENS;
    kiln_rows(&host->workers, pieces, 1, narrow_tokens, &job);
}

/* ---- gradients --------------------------------------------------------------------------------
 */

/* Sum of a*b in lanes: one order for every tier and compiler. */
static float dot(const float *a, const float *b, size_t n) {
    float lanes[LANES] = {0}, sum = 0.0F;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t l = 0; l < LANES; l++) {
            lanes[l] += a[i + l] * b[i + l];
        }
    }
    for (; i < n; i++) {
        lanes[i % LANES] += a[i] * b[i];
    }
    for (size_t l = 0; l < LANES; l++) {
        sum += lanes[l];
    }
    return sum;
}

static void contract_channels(void *context, size_t first, size_t rows, size_t index,
                              void *scratch) {
    const struct lora_job *job = context;
    const size_t seq = job->host->options.shape.seq, width = job->host->width;
    float *x = scratch;
    (void)index;
    for (size_t c = first; c < first + rows; c++) {
        job->host->kernels.half_to(x, job->x + c * width, seq);
        for (size_t k = 0; k < job->rank; k++) {
            float *out = job->out + c * job->by_channel + k * job->by_rank;
            *out = (job->add ? *out : 0.0F) + dot(job->small + k * width, x, seq);
        }
    }
}

void kiln_host_contract(struct kiln_host *host, const struct kiln_host_contract *c) {
    struct lora_job job = {.host = host,
                           .small = c->small,
                           .x = c->x,
                           .out = c->out,
                           .rank = c->rank,
                           .by_channel = c->by_channel,
                           .by_rank = c->by_rank,
                           .add = c->add};
    kiln_rows(&host->workers, c->channels, KILN_HOST_CHANNELS, contract_channels, &job);
}
