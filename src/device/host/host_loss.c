/* SPDX-License-Identifier: MIT
 *
 * host_loss.c: the end of the model, on the host alone or after a device's classifier.
 *
 * Both ways fill the head's block (head.h) and go back through it: dlogits [n, V] token-major,
 * whether they come from the host's logits, the device's logits or its probabilities.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "device/host/host.h"
#include "kiln/text.h"

enum { TURNED = 64, LOSSES = 32, GATHERED = 256 }; /* of one task, one piece; constant */

static const float least_normal = 0x1p-14F; /* of fp16: smaller ones have lost digits */

/* The block's losses, token after token: the sum does not depend on blocks. */
static void add_losses(const struct kiln_host *host, size_t n, double *loss) {
    for (size_t i = 0; i < n; i++) {
        *loss += (double)host->losses[i];
    }
}

void kiln_host_head(struct kiln_host *host, const float *x, const uint32_t *targets, float scale,
                    const struct kiln_gradients *gradients, float *dx, double *loss) {
    size_t tokens = host->options.shape.batch * host->options.shape.seq;
    *loss = 0.0;
    for (size_t first = 0; first < tokens; first += KILN_HEAD_ROWS) {
        size_t n = kiln_least(tokens - first, KILN_HEAD_ROWS);
        kiln_host_export_tokens(host, x, first, n, host->x);
        kiln_head_forward(&host->head, host->x, targets + first, n, scale, dx != NULL,
                          host->losses);
        if (dx) {
            const struct kiln_gradients block =
                kiln_block_gradients(gradients, first == 0, first + n == tokens);
            kiln_head_backward(&host->head, host->x, n, host->dx, &block);
            kiln_host_import_tokens(host, host->dx, first, n, dx);
        }
        add_losses(host, n, loss);
    }
}

/* ---- what the device made, as rows of tokens --------------------------------------------------
 */

struct rows_job {
    const struct kiln_host *host;
    const uint16_t *in; /* [rows][W], at the first token */
    float *out;         /* [n, ld], at the first row's column */
    size_t ld, n;
};

static void turn_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct rows_job *job = context;
    const struct kiln_kernels *kernels = &job->host->kernels;
    float *tile = scratch;
    (void)index;
    for (size_t i = 0; i < rows; i++) {
        kernels->half_to(tile + i * job->n, job->in + (first + i) * job->host->width, job->n);
    }
    kernels->transpose(job->out + first, job->ld, tile, job->n, rows, job->n);
}

_Static_assert(TURNED *KILN_HEAD_ROWS * sizeof(float) <= KILN_GEMM_SCRATCH, "a tile fits");

/* out [n, ld] columns 0..rows = in [rows][W] columns 0..n, n <= KILN_HEAD_ROWS. */
static void turn(const struct kiln_host *host, const uint16_t *in, size_t rows, size_t n,
                 float *out, size_t ld) {
    struct rows_job job = {host, in, out, ld, n};
    kiln_rows(&host->workers, rows, TURNED, turn_rows, &job);
}

/* ---- the loss from probabilities ------------------------------------------------------------ */

struct probability_job {
    const struct kiln_host *host;
    const struct kiln_host_made *made;
    const uint32_t *targets; /* of the block */
    size_t t;                /* its first token in the sequence */
    float scale;
    bool gradient; /* dlogits hold the probabilities */
};

static float one(const struct kiln_host *host, const uint16_t *element) {
    float value;
    host->kernels.half_to(&value, element, 1);
    return value;
}

/* Part of a token's column as fp32; returns how many of them, at most GATHERED. */
static size_t gather(const struct kiln_host *host, const uint16_t *column, size_t first,
                     size_t rows, float out[GATHERED]) {
    uint16_t half[GATHERED];
    size_t n = kiln_least(rows - first, GATHERED);
    for (size_t i = 0; i < n; i++) {
        half[i] = column[(first + i) * host->width];
    }
    host->kernels.half_to(out, half, n);
    return n;
}

static const struct kiln_host_logits *part_of(const struct kiln_host_made *made, size_t class) {
    size_t i = 0;
    while (class >= made->parts[i].first + made->parts[i].rows) {
        i++;
    }
    return &made->parts[i];
}
static float logit_of(const struct probability_job *job, size_t class, size_t t) {
    const struct kiln_host_logits *part = part_of(job->made, class);
    return one(job->host, part->logits + (class - part->first) * job->host->width + t);
}

/* The class of the largest probability of a token, or of one that is NaN. */
static size_t likeliest(const struct probability_job *job, size_t t) {
    size_t vocab = job->host->table->dims.vocab, best = 0;
    float values[GATHERED], most = -1.0F;
    for (size_t v = 0; v < vocab; v += GATHERED) {
        size_t n = gather(job->host, job->made->probabilities + t, v, vocab, values);
        for (size_t i = 0; i < n; i++) {
            if (isnan(values[i])) {
                return v + i;
            }
            if (values[i] > most) {
                most = values[i];
                best = v + i;
            }
        }
    }
    return best;
}

/* The same of its logits, of one part of the classifier. */
static size_t gather_logits(const struct probability_job *job, size_t t, size_t first,
                            float out[GATHERED]) {
    const struct kiln_host_logits *part = part_of(job->made, first);
    return gather(job->host, part->logits + t, first - part->first, part->rows, out);
}

static float largest_logit(const struct probability_job *job, size_t t) {
    size_t vocab = job->host->table->dims.vocab, n;
    float values[GATHERED], most = -INFINITY;
    for (size_t v = 0; v < vocab; v += n) {
        n = gather_logits(job, t, v, values);
        for (size_t i = 0; i < n; i++) {
            most = values[i] > most ? values[i] : most;
        }
    }
    return most;
}

/* Sum of exp(logit - most) over a token's logits. A NaN anywhere makes it NaN. */
static double sum_exp(const struct probability_job *job, size_t t, float most) {
    size_t vocab = job->host->table->dims.vocab, n;
    float values[GATHERED];
    double sum = 0.0;
    for (size_t v = 0; v < vocab; v += n) {
        n = gather_logits(job, t, v, values);
        for (size_t i = 0; i < n; i++) {
            sum += (double)expf(values[i] - most);
        }
    }
    return sum;
}

static float ln_sum_exp(const struct probability_job *job, size_t t) {
    float most = largest_logit(job, t);
    return most + (float)log(sum_exp(job, t, most));
}

static float loss_of(const struct probability_job *job, size_t t, size_t target) {
    const struct kiln_host *host = job->host;
    const uint16_t *probabilities = job->made->probabilities + t;
    float p = one(host, probabilities + target * host->width);
    if (!(p < least_normal)) { /* NaN, too */
        return -logf(p);
    }
    size_t best = likeliest(job, t);
    float most = one(host, probabilities + best * host->width);
    float lse = most < least_normal ? ln_sum_exp(job, t) : logit_of(job, best, t) - logf(most);
    return lse - logit_of(job, target, t);
}

static void probability_losses(void *context, size_t first, size_t rows, size_t index,
                               void *scratch) {
    const struct probability_job *job = context;
    const struct kiln_head *head = &job->host->head;
    size_t vocab = job->host->table->dims.vocab;
    (void)index;
    (void)scratch;
    for (size_t i = first; i < first + rows; i++) {
        if (job->targets[i] == KILN_NO_TARGET) {
            job->host->losses[i] = 0.0F;
            if (job->gradient) {
                memset(kiln_dlogits(head, i), 0, vocab * sizeof *head->logits);
            }
            continue;
        }
        job->host->losses[i] = loss_of(job, job->t + i, job->targets[i]);
        if (!job->gradient) {
            continue;
        }
        float *row = kiln_dlogits(head, i);
        row[job->targets[i]] -= 1.0F;
        for (size_t v = 0; v < vocab; v++) {
            row[v] *= job->scale;
        }
    }
}

/* ---- the device's classifier ---------------------------------------------------------------- */

/* Tokens t..t+n of a sequence: losses, and with `gradient` dlogits. */
static void made_losses(struct kiln_host *host, const struct kiln_host_made *made, size_t t,
                        size_t n, const uint32_t *targets, float scale, bool gradient) {
    const struct kiln_head *head = &host->head;
    size_t vocab = host->table->dims.vocab;
    if (made->probabilities == NULL) {
        for (size_t p = 0; p < made->n_parts; p++) {
            const struct kiln_host_logits *part = &made->parts[p];
            turn(host, part->logits + t, part->rows, n, head->logits + part->first, vocab);
        }
        kiln_head_loss(head, targets, n, scale, gradient, host->losses);
        return;
    }
    if (gradient) {
        turn(host, made->probabilities + t, vocab, n, kiln_dlogits(head, 0), vocab);
    }
    struct probability_job job = {host, made, targets, t, scale, gradient};
    kiln_rows(&host->workers, n, LOSSES, probability_losses, &job);
}

void kiln_host_head_made(struct kiln_host *host, size_t b, const struct kiln_host_made *made,
                         const float *x, const uint32_t *targets, float scale,
                         const struct kiln_gradients *gradients, float *dx, double *loss) {
    const struct kiln_head *head = &host->head;
    size_t seq = host->options.shape.seq, d = host->table->dims.dim;
    size_t tokens = host->options.shape.batch * seq;
    *loss = 0.0;
    for (size_t t = 0; t < seq; t += KILN_HEAD_ROWS) {
        size_t first = b * seq + t, n = kiln_least(seq - t, KILN_HEAD_ROWS);
        made_losses(host, made, t, n, targets + first, scale, dx != NULL);
        if (dx) {
            kiln_host_export_tokens(host, x, first, n, host->x);
            /* For rstd; the norm's output is the device's. */
            kiln_rows_norm(&host->workers, &head->norm, host->x, n, head->xn);
            turn(host, made->xn + t, d, n, head->xn, d);
            const struct kiln_gradients block =
                kiln_block_gradients(gradients, first == 0, first + n == tokens);
            kiln_head_backward(head, host->x, n, host->dx, &block);
            kiln_host_import_tokens(host, host->dx, first, n, dx);
        }
        add_losses(host, n, loss);
    }
}
