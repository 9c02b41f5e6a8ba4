/* SPDX-License-Identifier: MIT
 *
 * host_heads.c: backward of what stands between the products of queries, keys and values and RoPE,
 * one sequence, channel-major: norms of heads, and biases.
 */
#include <math.h>
#include <string.h>

#include "device/host/host.h"

enum { LANES = 16 };

/* In 16 lanes: one order for every tier and compiler. */
static float sum_lanes(const float lanes[LANES]) {
    float sum = 0.0F;
    for (size_t l = 0; l < LANES; l++) {
        sum += lanes[l];
    }
    return sum;
}

/* ---- norms of heads ---------------------------------------------------------------------------
 */

struct heads_job {
    const struct kiln_host *host;
    struct kiln_host_heads_bwd n;
};

/* rstd of every token of a head, and rstd^3 * mean(dy * w * x). */
static void sum_head(const struct heads_job *job, size_t first, float *rstd, float *pull, float *x,
                     float *dy) {
    const struct kiln_host *host = job->host;
    const size_t seq = host->options.shape.seq, width = host->width;
    const size_t k = host->table->dims.head_size;
    memset(rstd, 0, seq * sizeof *rstd);
    memset(pull, 0, seq * sizeof *pull);
    for (size_t i = 0; i < k; i++) {
        const float w = job->n.w[i];
        host->kernels.half_to(x, job->n.x + (first + i) * width, seq);
        host->kernels.half_to(dy, job->n.dy + (first + i) * width, seq);
        for (size_t t = 0; t < seq; t++) {
            rstd[t] += x[t] * x[t];
            pull[t] += dy[t] * w * x[t];
        }
    }
    for (size_t t = 0; t < seq; t++) {
        rstd[t] = 1.0F / sqrtf(rstd[t] / (float)k + host->table->dims.rms_eps);
        pull[t] = rstd[t] * rstd[t] * rstd[t] * pull[t] / (float)k;
    }
}

/* Heads first..: each gets its dx, and its share of dw in a row of its own. */
static void head_rows(void *context, size_t first, size_t heads, size_t index, void *scratch) {
    const struct heads_job *job = context;
    const struct kiln_host *host = job->host;
    const size_t seq = host->options.shape.seq, width = host->width;
    const size_t k = host->table->dims.head_size;
    float *rstd = scratch, *pull = rstd + width, *x = pull + width, *dy = x + width;
    (void)index;
    for (size_t h = first; h < first + heads; h++) {
        sum_head(job, h * k, rstd, pull, x, dy);
        for (size_t i = 0; i < k; i++) {
            uint16_t *out = job->n.dy + (h * k + i) * width;
            const float w = job->n.w[i];
            float lanes[LANES] = {0};
            host->kernels.half_to(x, job->n.x + (h * k + i) * width, seq);
            host->kernels.half_to(dy, out, seq);
            for (size_t t = 0; t < seq; t++) {
                lanes[t % LANES] += dy[t] * x[t] * rstd[t];
                dy[t] = rstd[t] * w * dy[t] - pull[t] * x[t];
            }
            host->heads[h * k + i] = sum_lanes(lanes);
            host->kernels.half_of(out, dy, seq);
            memset(out + seq, 0, (width - seq) * sizeof *out);
        }
    }
}

void kiln_host_heads_backward(struct kiln_host *host, const struct kiln_host_heads_bwd *heads) {
    struct heads_job job = {.host = host, .n = *heads};
    const size_t k = host->table->dims.head_size;
    kiln_rows(&host->workers, heads->heads, 1, head_rows, &job);
    for (size_t i = 0; heads->dw && i < k; i++) { /* heads in order */
        float sum = heads->add ? heads->dw[i] : 0.0F;
        for (size_t h = 0; h < heads->heads; h++) {
            sum += host->heads[h * k + i];
        }
        heads->dw[i] = sum;
    }
}

/* ---- biases -----------------------------------------------------------------------------------
 */

struct bias_job {
    const struct kiln_host *host;
    const uint16_t *dy;
    float *db;
    bool add;
};

static void bias_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct bias_job *job = context;
    const size_t seq = job->host->options.shape.seq, width = job->host->width;
    float *dy = scratch;
    (void)index;
    for (size_t i = first; i < first + rows; i++) {
        float lanes[LANES] = {0};
        job->host->kernels.half_to(dy, job->dy + i * width, seq);
        for (size_t t = 0; t < seq; t++) {
            lanes[t % LANES] += dy[t];
        }
        job->db[i] = (job->add ? job->db[i] : 0.0F) + sum_lanes(lanes);
    }
}

void kiln_host_bias_backward(struct kiln_host *host, const uint16_t *dy, size_t rows, bool add,
                             float *db) {
    struct bias_job job = {host, dy, db, add};
    kiln_rows(&host->workers, rows, KILN_HOST_CHANNELS, bias_rows, &job);
}
