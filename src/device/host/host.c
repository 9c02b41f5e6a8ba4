/* SPDX-License-Identifier: MIT
 *
 * host.c: what a host holds, embedding, residual blocks. Norms: host_norm.c; the loss: host_loss.c.
 */
#include "base/mem.h"
#include "device/host/host.h"

#include <string.h>

enum { TOKENS = 32, CHANNELS = 64, COPIED = 256 }; /* of one task, one piece; constant */

/* ---- opening and closing ------------------------------------------------------------------- */

static size_t chunks_of(size_t n, size_t of) { return (n + of - 1) / of; }
/* Both passes over the same list: base NULL plans the size, then the blocks are cut. */
static size_t lay_out(struct kiln_host *host, void *base) {
    const struct kiln_dims *d = &host->table->dims;
    struct kiln_head *head = &host->head;
    size_t rows = kiln_least(host->options.shape.batch * host->options.shape.seq, KILN_HEAD_ROWS);
    size_t column = host->width * sizeof(float), used = 0;
#define TAKE(field, bytes)                                  \
    field = base ? (void *)((uintptr_t)base + used) : NULL; \
    used = kiln_arena_reserve(used, (bytes))
    TAKE(host->partial, 2 * chunks_of(d->dim, KILN_HOST_CHANNELS) * column);
    TAKE(host->rstd, column);
    TAKE(host->pull, column);
    TAKE(host->losses, rows * sizeof(float));
    TAKE(host->x, rows * d->dim * sizeof(float));
    TAKE(head->xn, rows * d->dim * sizeof(float));
    TAKE(head->norm.rstd, rows * sizeof(float));
    TAKE(head->logits, rows * d->vocab * sizeof(float));
    if (host->options.training) {
        TAKE(host->heads, d->qk_norm ? d->heads * d->head_size * sizeof(float) : 0);
        TAKE(host->dx, rows * d->dim * sizeof(float));
        TAKE(head->dxn, rows * d->dim * sizeof(float));
        TAKE(head->norm.dnorm, chunks_of(rows, KILN_ROW_CHUNK) * d->dim * sizeof(float));
        TAKE(head->turned, kiln_turned_stride(rows) * d->vocab * sizeof(float));
        TAKE(head->columns, kiln_packed_elements(d->dim, rows) * sizeof(float));
    }
#undef TAKE
    return used;
}

/* All but memory and threads. */
static enum kiln_status set_up(struct kiln_host *host, const struct kiln_table *table,
                               const struct kiln_host_options *options, struct kiln_err *err) {
    *host = (struct kiln_host){
        .table = table,
        .options = *options,
        .width = kiln_round_up(options->shape.seq, 16),
        .classifier = *table,
    };
    host->classifier.matrices += table->n_matrices - 1;
    host->classifier.n_matrices = 1;
    return kiln_kernels_choose(KILN_PRECISION_FP32, &host->kernels, err);
}

static size_t scratch_bytes(const struct kiln_host *host) {
    size_t rows = 5 * host->width * sizeof(float); /* of a layer's backward pass */
    return rows > KILN_GEMM_SCRATCH ? rows : KILN_GEMM_SCRATCH;
}

enum kiln_status kiln_host_sizes(const struct kiln_table *table,
                                 const struct kiln_host_options *options,
                                 struct kiln_host_sizes *out, struct kiln_err *err) {
    struct kiln_host host;
    size_t forward, backward;
    KILN_TRY(set_up(&host, table, options, err));
    kiln_packed_sizes(host.classifier.matrices, sizeof(float), &forward, &backward);
    *out = (struct kiln_host_sizes){
        .workspace = lay_out(&host, NULL),
        .thread = scratch_bytes(&host),
        .head = (options->classify ? 0 : forward) + (options->training ? backward : 0),
    };
    return KILN_OK;
}

struct pack_job {
    const struct kiln_host *host;
    size_t set;
    const struct kiln_weights *weights;
};

static void pack_piece(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct pack_job *job = context;
    (void)index;
    (void)scratch;
    kiln_packed_rows(&job->host->packed[job->set], 0, first, rows, job->weights,
                     !job->host->options.classify, job->host->options.training);
}

void kiln_host_prepare(struct kiln_host *host, size_t set, const struct kiln_weights *weights) {
    const size_t rows = host->options.no_head ? 0 : host->classifier.matrices->rows;
    struct pack_job job = {host, set, weights};
    if (kiln_pool_is_owner(host->workers.pool)) {
        kiln_rows(&host->workers, rows, KILN_PACK_ROWS, pack_piece, &job);
        return;
    }
    kiln_pool_guest_enter(host->workers.pool);
    for (size_t first = 0; first < rows; first += KILN_PACK_ROWS) {
        pack_piece(&job, first, kiln_least(rows - first, KILN_PACK_ROWS), 0, NULL);
    }
    kiln_pool_guest_leave(host->workers.pool);
}

static void set_up_head(struct kiln_host *host) {
    const struct kiln_table *table = host->table;
    const struct kiln_tensor *norm = kiln_table_find(table, KILN_FINAL_NORM, KILN_NO_LAYER);
    struct kiln_head *head = &host->head;
    head->workers = &host->workers;
    head->classifier = host->classifier.matrices;
    head->forward = host->packed[host->set].forward[0];
    head->backward = host->packed[host->set].backward[0];
    head->norm.w = kiln_weights_wide(&host->weights, norm);
    head->norm.eps = table->dims.rms_eps;
    head->norm.dim = table->dims.dim;
    head->norm_offset = norm->offset;
    head->frozen = table->trained > 0;
}

static enum kiln_status open_parts(struct kiln_host *host, struct kiln_pool *pool,
                                   struct kiln_err *err) {
    KILN_TRY(kiln_workers_open(&host->workers, &host->kernels, pool, scratch_bytes(host), err));
    const size_t sets = host->options.two_sets ? 2 : 1;
    for (size_t set = 0; set < sets; set++) {
        KILN_TRY(kiln_packed_open(&host->packed[set], &host->classifier, &host->kernels,
                                  host->options.training, err));
    }
    KILN_TRY(kiln_arena_open(&host->arena, lay_out(host, NULL), err));
    lay_out(host, host->arena.base);
    set_up_head(host);
    kiln_host_prepare(host, 0, &host->weights);
    return KILN_OK;
}

enum kiln_status kiln_host_open(struct kiln_host *host, const struct kiln_table *table,
                                struct kiln_pool *pool, const struct kiln_weights *weights,
                                const struct kiln_host_options *options, struct kiln_err *err) {
    KILN_TRY(set_up(host, table, options, err));
    host->weights = *weights;
    enum kiln_status status = open_parts(host, pool, err);
    if (status != KILN_OK) {
        kiln_host_close(host);
    }
    return status;
}

void kiln_host_close(struct kiln_host *host) {
    kiln_packed_close(&host->packed[0]);
    kiln_packed_close(&host->packed[1]);
    kiln_workers_close(&host->workers);
    kiln_arena_close(&host->arena);
    *host = (struct kiln_host){0};
}

void kiln_host_refresh(struct kiln_host *host, size_t matrix, size_t first, size_t rows,
                       const float *weights) {
    const struct kiln_weights flat = kiln_weights_flat(host->table, weights);
    struct pack_job job = {host, host->set, &flat};
    const bool packed = !host->options.no_head && !host->options.two_sets;
    if (matrix == host->table->n_matrices - 1 && packed) {
        pack_piece(&job, first, rows, 0, NULL);
    }
}

void kiln_host_activate(struct kiln_host *host, size_t set, const struct kiln_weights *weights) {
    host->set = set;
    host->weights = *weights;
    set_up_head(host);
}

/* ---- tokens and channels -------------------------------------------------------------------- */

struct turn_job {
    const struct kiln_host *host;
    const uint32_t *tokens;
    const float *in;
    float *out;
    size_t first; /* token of the micro-batch where row 0 is */
};

/* The tokens first..end of a sequence that a piece begins with. */
struct segment {
    size_t b, t, n;
};
static struct segment segment_at(const struct kiln_host *host, size_t first, size_t end) {
    size_t seq = host->options.shape.seq, t = first % seq;
    return (struct segment){first / seq, t, kiln_least(seq - t, end - first)};
}

/* Columns T.. of `rows` rows of W. */
static void clear_padding(const struct kiln_host *host, float *block, size_t rows) {
    size_t seq = host->options.shape.seq;
    for (size_t i = 0; i < rows; i++) {
        memset(block + i * host->width + seq, 0, (host->width - seq) * sizeof *block);
    }
}

static void export_tokens(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct turn_job *job = context;
    const struct kiln_host *host = job->host;
    size_t d = host->table->dims.dim, begin = job->first + first, end = begin + rows;
    (void)index;
    (void)scratch;
    for (struct segment s; begin < end; begin += s.n) {
        s = segment_at(host, begin, end);
        host->kernels.transpose(job->out + (begin - job->first) * d, d,
                                job->in + s.b * d * host->width + s.t, host->width, d, s.n);
    }
}

void kiln_host_export_tokens(const struct kiln_host *host, const float *block, size_t first,
                             size_t n, float *out) {
    struct turn_job job = {.host = host, .in = block, .out = out, .first = first};
    kiln_rows(&host->workers, n, TOKENS, export_tokens, &job);
}

static void import_tokens(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct turn_job *job = context;
    const struct kiln_host *host = job->host;
    size_t d = host->table->dims.dim, begin = job->first + first, end = begin + rows;
    (void)index;
    (void)scratch;
    for (struct segment s; begin < end; begin += s.n) {
        s = segment_at(host, begin, end);
        float *block = job->out + s.b * d * host->width;
        host->kernels.transpose(block + s.t, host->width, job->in + (begin - job->first) * d, d,
                                s.n, d);
        if (s.t + s.n == host->options.shape.seq) {
            clear_padding(host, block, d);
        }
    }
}

void kiln_host_import_tokens(const struct kiln_host *host, const float *in, size_t first, size_t n,
                             float *block) {
    struct turn_job job = {.host = host, .in = in, .out = block, .first = first};
    kiln_rows(&host->workers, n, TOKENS, import_tokens, &job);
}

static size_t all_tokens(const struct kiln_host *host) {
    return host->options.shape.batch * host->options.shape.seq;
}

void kiln_host_export(const struct kiln_host *host, const float *block, float *out) {
    kiln_host_export_tokens(host, block, 0, all_tokens(host), out);
}
void kiln_host_import(const struct kiln_host *host, const float *in, float *block) {
    kiln_host_import_tokens(host, in, 0, all_tokens(host), block);
}

/* ---- embedding ------------------------------------------------------------------------------ */

/* Rows of the embedding are gathered, COPIED channels at a time, and turned. */
static void embed_tokens(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct turn_job *job = context;
    const struct kiln_host *host = job->host;
    size_t d = host->table->dims.dim, end = first + rows;
    float *gathered = scratch;
    (void)index;
    for (struct segment s; first < end; first += s.n) {
        s = segment_at(host, first, end);
        float *block = job->out + s.b * d * host->width;
        for (size_t c = 0; c < d; c += COPIED) {
            size_t n = kiln_least(d - c, COPIED);
            for (size_t i = 0; i < s.n; i++) {
                memcpy(gathered + i * n, job->in + job->tokens[first + i] * d + c,
                       n * sizeof *gathered);
            }
            host->kernels.transpose(block + c * host->width + s.t, host->width, gathered, n, s.n,
                                    n);
        }
        if (s.t + s.n == host->options.shape.seq) {
            clear_padding(host, block, d);
        }
    }
}

_Static_assert(TOKENS *COPIED * sizeof(float) <= KILN_GEMM_SCRATCH, "gathered rows fit");

void kiln_host_embed(struct kiln_host *host, const uint32_t *tokens, float *x) {
    const struct kiln_tensor *embed = kiln_table_find(host->table, KILN_EMBED, KILN_NO_LAYER);
    struct turn_job job = {
        .host = host, .tokens = tokens, .in = kiln_weights_wide(&host->weights, embed), .out = x};
    kiln_rows(&host->workers, all_tokens(host), TOKENS, embed_tokens, &job);
}

struct scatter_job {
    const struct kiln_host *host;
    const uint32_t *tokens;
    const float *dx;
    const struct kiln_gradients *gradients;
};

/* A task owns a range of channels and adds the tokens in order: no two tasks meet, and the order
 * of a sum does not depend on threads. */
static void scatter_channels(void *context, size_t first, size_t n, size_t index, void *scratch) {
    const struct scatter_job *job = context;
    const struct kiln_host *host = job->host;
    size_t d = host->table->dims.dim, vocab = host->table->dims.vocab;
    float *gradient = job->gradients->embedding + first, *rows = scratch;
    (void)index;
    for (size_t v = 0; v < vocab && !job->gradients->add; v++) {
        memset(gradient + v * d, 0, n * sizeof *gradient);
    }
    const uint32_t *token = job->tokens;
    for (size_t b = 0; b < host->options.shape.batch; b++) {
        const float *dx = job->dx + (b * d + first) * host->width;
        for (size_t t = 0; t < host->options.shape.seq; t += TOKENS) {
            size_t m = kiln_least(host->options.shape.seq - t, TOKENS);
            host->kernels.transpose(rows, n, dx + t, host->width, n, m);
            for (size_t i = 0; i < m; i++, token++) {
                host->kernels.add(gradient + *token * d, rows + i * n, n);
            }
        }
    }
}

void kiln_host_embed_backward(struct kiln_host *host, const uint32_t *tokens, const float *dx,
                              const struct kiln_gradients *gradients) {
    struct scatter_job job = {host, tokens, dx, gradients};
    if (gradients->embedding) {
        kiln_rows(&host->workers, host->table->dims.dim, CHANNELS, scatter_channels, &job);
    }
}

/* ---- residuals ------------------------------------------------------------------------------ */

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

struct residual_job {
    const struct kiln_host *host;
    const float *in;
    const uint16_t *half;
    float *out;
    uint16_t *half_out;
    size_t stride; /* of half_out */
    float scale;
};

static void round_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct residual_job *job = context;
    size_t width = job->host->width, seq = job->host->options.shape.seq;
    float *scaled = scratch;
    (void)index;
    for (size_t i = first; i < first + rows; i++) {
        uint16_t *out = job->half_out + i * job->stride;
        const float *in = job->in + i * width;
        for (size_t t = 0; job->scale != 1.0f && t < seq; t++) {
            scaled[t] = in[t] * job->scale;
        }
        job->host->kernels.half_of(out, job->scale != 1.0f ? scaled : in, seq);
        memset(out + seq, 0, (width - seq) * sizeof *out);
    }
}

void kiln_host_to_half_rows(const struct kiln_host *host, uint16_t *out, size_t stride,
                            const float *in, size_t rows, float scale) {
    struct residual_job job = {
        .host = host, .in = in, .half_out = out, .stride = stride, .scale = scale};
    kiln_rows(&host->workers, rows, KILN_HOST_CHANNELS, round_rows, &job);
}

void kiln_host_to_half_scaled(const struct kiln_host *host, uint16_t *out, const float *in,
                              size_t rows, float scale) {
    kiln_host_to_half_rows(host, out, host->width, in, rows, scale);
}

void kiln_host_to_half(const struct kiln_host *host, uint16_t *out, const float *in, size_t rows) {
    kiln_host_to_half_scaled(host, out, in, rows, 1.0f);
}

float kiln_host_norm_scale(const struct kiln_host *host, const float *x, size_t rows) {
    /* Magnitudes are ordered as their bits are, infinity and NaN above all. */
    const uint32_t most = bits_of(KILN_HOST_NORM_MOST), infinite = 0x7f800000u;
    uint32_t largest = 0;
    for (size_t i = 0; i < rows * host->width; i++) { /* padding is zero */
        const uint32_t magnitude = bits_of(x[i]) & 0x7fffffffu;
        largest = magnitude > largest ? magnitude : largest;
    }
    float scale = 1.0f;
    for (; largest > most && largest < infinite; largest -= 1u << 23) {
        scale *= 0.5f;
    }
    return scale;
}

static void add_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct residual_job *job = context;
    size_t width = job->host->width, seq = job->host->options.shape.seq;
    float *row = scratch;
    (void)index;
    for (size_t i = first; i < first + rows; i++) {
        const float *in = job->in + i * width;
        float *out = job->out + i * width;
        job->host->kernels.half_to(row, job->half + i * width, seq);
        for (size_t t = 0; t < seq; t++) {
            out[t] = in[t] + row[t];
        }
        memset(out + seq, 0, (width - seq) * sizeof *out);
    }
}

void kiln_host_add_half(const struct kiln_host *host, float *out, const float *in,
                        const uint16_t *half, size_t rows) {
    struct residual_job job = {.host = host, .in = in, .half = half, .out = out};
    kiln_rows(&host->workers, rows, KILN_HOST_CHANNELS, add_rows, &job);
}
