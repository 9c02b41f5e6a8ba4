/* SPDX-License-Identifier: MIT
 *
 * host_norm.c: norms and SwiGLU of one sequence, channel-major.
 *
 * A norm's sums run over channels, that is over rows: every task adds its KILN_HOST_CHANNELS rows
 * into a row of its own, those are added in order, and a second pass over rows uses them.
 */
#include <math.h>
#include <string.h>

#include "device/host/host.h"

struct norm_job {
    struct kiln_host_norm_bwd n; /* forward: w and x */
    const struct kiln_host *host;
    uint16_t *y;
};

/* The gradient of channel c of the norm's output, in fp32; spare is overwritten. */
static void gradient_row(const struct norm_job *job, size_t c, float *row, float *spare) {
    const struct kiln_host *host = job->host;
    size_t seq = host->options.shape.seq, at = c * host->width;
    host->kernels.half_to(row, job->n.dy + at, seq);
    if (job->n.dy2) {
        host->kernels.half_to(spare, job->n.dy2 + at, seq);
        for (size_t t = 0; t < seq; t++) {
            row[t] += spare[t];
        }
    }
}

/* Sums over this task's channels of x^2 and, where the backward pass wants it, of dy * w * x. */
static void sum_channels(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct norm_job *job = context;
    const struct kiln_host *host = job->host;
    size_t seq = host->options.shape.seq, width = host->width;
    size_t chunks = (host->table->dims.dim + KILN_HOST_CHANNELS - 1) / KILN_HOST_CHANNELS;
    float *squares = host->partial + index * width, *pulls = squares + chunks * width;
    float *dy = scratch;
    bool backward = job->n.dy && !job->n.dx_made;
    memset(squares, 0, width * sizeof *squares);
    memset(pulls, 0, width * sizeof *pulls);
    for (size_t c = first; c < first + rows; c++) {
        const float *x = job->n.x + c * width, w = job->n.w[c];
        for (size_t t = 0; t < seq; t++) {
            squares[t] += x[t] * x[t];
        }
        if (backward) {
            gradient_row(job, c, dy, dy + width);
            for (size_t t = 0; t < seq; t++) {
                pulls[t] += dy[t] * w * x[t];
            }
        }
    }
}

/* rstd of every token, and what of x its gradient loses: rstd^3 * mean(dy * w * x). */
static void add_sums(const struct norm_job *job) {
    const struct kiln_host *host = job->host;
    size_t seq = host->options.shape.seq, width = host->width, d = host->table->dims.dim;
    size_t chunks = (d + KILN_HOST_CHANNELS - 1) / KILN_HOST_CHANNELS;
    const float *squares = host->partial, *pulls = squares + chunks * width;
    float *rstd = host->rstd, *pull = host->pull;
    memcpy(rstd, squares, seq * sizeof *rstd);
    memcpy(pull, pulls, seq * sizeof *pull);
    for (size_t i = 1; i < chunks; i++) {
        host->kernels.add(rstd, squares + i * width, seq);
        host->kernels.add(pull, pulls + i * width, seq);
    }
    for (size_t t = 0; t < seq; t++) {
        rstd[t] = 1.0F / sqrtf(rstd[t] / (float)d + host->table->dims.rms_eps);
        pull[t] = rstd[t] * rstd[t] * rstd[t] * pull[t] / (float)d;
    }
}

static void sums_over_channels(const struct norm_job *job) {
    kiln_rows(&job->host->workers, job->host->table->dims.dim, KILN_HOST_CHANNELS, sum_channels,
              (void *)(uintptr_t)job);
    add_sums(job);
}

/* ---- forward ------------------------------------------------------------------------------- */

static void norm_channels(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct norm_job *job = context;
    const struct kiln_host *host = job->host;
    size_t seq = host->options.shape.seq, width = host->width;
    const float *rstd = host->rstd;
    float *row = scratch;
    (void)index;
    for (size_t c = first; c < first + rows; c++) {
        const float *x = job->n.x + c * width, w = job->n.w[c];
        for (size_t t = 0; t < seq; t++) {
            row[t] = x[t] * rstd[t] * w;
        }
        host->kernels.half_of(job->y + c * width, row, seq);
        memset(job->y + c * width + seq, 0, (width - seq) * sizeof *job->y);
    }
}

void kiln_host_norm(struct kiln_host *host, const float *w, const float *x, uint16_t *y) {
    struct norm_job job = {.host = host, .n = {.w = w, .x = x}, .y = y};
    sums_over_channels(&job);
    kiln_rows(&host->workers, host->table->dims.dim, KILN_HOST_CHANNELS, norm_channels, &job);
}

/* ---- backward ------------------------------------------------------------------------------ */

/* Sum of a*b*c in 16 lanes: one order for every tier and compiler. */
static float dot3(const float *a, const float *b, const float *c, size_t n) {
    float lanes[16] = {0}, sum = 0.0F;
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (size_t l = 0; l < 16; l++) {
            lanes[l] += a[i + l] * b[i + l] * c[i + l];
        }
    }
    for (; i < n; i++) {
        lanes[i % 16] += a[i] * b[i] * c[i];
    }
    for (size_t l = 0; l < 16; l++) {
        sum += lanes[l];
    }
    return sum;
}

static void norm_bwd_channels(void *context, size_t first, size_t rows, size_t index,
                              void *scratch) {
    const struct norm_job *job = context;
    const struct kiln_host *host = job->host;
    size_t seq = host->options.shape.seq, width = host->width;
    const float *rstd = host->rstd, *pull = host->pull;
    float *dy = scratch, *made = dy + width;
    (void)index;
    for (size_t c = first; c < first + rows; c++) {
        const float *x = job->n.x + c * width, w = job->n.w[c];
        float *dx = job->n.dx + c * width;
        gradient_row(job, c, dy, made);
        if (job->n.dw) {
            float dw = dot3(dy, x, rstd, seq);
            job->n.dw[c] = job->n.add ? job->n.dw[c] + dw : dw;
        }
        if (job->n.dx_made) {
            host->kernels.half_to(made, job->n.dx_made + c * width, seq);
            for (size_t t = 0; t < seq; t++) {
                dx[t] += made[t] * job->n.made_scale;
            }
            continue;
        }
        for (size_t t = 0; t < seq; t++) {
            dx[t] += rstd[t] * w * dy[t] - pull[t] * x[t];
        }
    }
}

void kiln_host_norm_backward(struct kiln_host *host, const struct kiln_host_norm_bwd *norm) {
    struct norm_job job = {.host = host, .n = *norm};
    sums_over_channels(&job);
    kiln_rows(&host->workers, host->table->dims.dim, KILN_HOST_CHANNELS, norm_bwd_channels, &job);
}

/* ---- SwiGLU -------------------------------------------------------------------------------- */

struct swiglu_job {
    const struct kiln_host *host;
    const uint16_t *dgate, *h1, *h3;
    uint16_t *dh1, *dh3;
};

static void swiglu_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct swiglu_job *job = context;
    const struct kiln_kernels *kernels = &job->host->kernels;
    size_t seq = job->host->options.shape.seq, width = job->host->width;
    float *h = scratch, *dh = h + 2 * width, *dgate = dh + 2 * width;
    (void)index;
    for (size_t i = first; i < first + rows; i++) {
        size_t at = i * width;
        kernels->half_to(h, job->h1 + at, seq);
        kernels->half_to(h + seq, job->h3 + at, seq);
        kernels->half_to(dgate, job->dgate + at, seq);
        kernels->swiglu_bwd(dh, NULL, dgate, h, 1, seq);
        kernels->half_of(job->dh1 + at, dh, seq);
        kernels->half_of(job->dh3 + at, dh + seq, seq);
        memset(job->dh1 + at + seq, 0, (width - seq) * sizeof *job->dh1);
        memset(job->dh3 + at + seq, 0, (width - seq) * sizeof *job->dh3);
    }
}

void kiln_host_swiglu_backward(const struct kiln_host *host, const uint16_t *dgate,
                               const uint16_t *h1, const uint16_t *h3, uint16_t *dh1,
                               uint16_t *dh3) {
    struct swiglu_job job = {host, dgate, h1, h3, dh1, dh3};
    kiln_rows(&host->workers, host->table->dims.hidden, KILN_HOST_CHANNELS, swiglu_rows, &job);
}
