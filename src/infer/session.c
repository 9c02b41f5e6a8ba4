/* SPDX-License-Identifier: MIT
 *
 * session.c: the forward pass with a key-value cache, a block of up to KILN_GEMM_M tokens at a
 * time. It is the forward pass of the cpu device, but for attention, which reads the cache:
 *
 *   keys   [L][G] packed [n = T, k = K]    scores = q . keys^T
 *   values [L][G] packed [n = K, k = T]    out    = softmax(scores) . values^T
 */
#include "infer/session.h"

#include <math.h>
#include <string.h>

#include "kernel/product.h"
#include "kernel/rope.h"

/* Rows that one elementwise task takes, and query rows of one block of scores. */
enum { ROW_CHUNK = 8, QUERY_ROWS = 32 };

struct kiln_session {
    const struct kiln_table *table;
    const float *weights;
    const struct kiln_packed *packed; /* borrowed, or own_packed */
    const struct kiln_kernels *kernels;
    struct kiln_packed own_packed;
    struct kiln_kernels own_kernels;
    struct kiln_workers workers;
    struct kiln_arena arena; /* all below */
    size_t seq, position;
    size_t rows; /* tokens of the largest block */
    bool few;    /* products in blocks of few rows (kernel.h), also for a whole prompt */

    float *angles;                 /* RoPE [T, K] */
    char *keys, *values;           /* the cache, packed operands */
    size_t head_keys, head_values; /* bytes of one key-value head */
    float *x;                      /* [rows, D] the residual stream */
    float *rstd;                   /* [rows] */
    char *xn;                      /* operands [rows, D] */
    char *qkv;                     /* operands [rows, (H+2G)K] */
    char *heads;                   /* operands [rows, HK] what attention gives */
    char *h;                       /* operands [rows, 2F] */
    char *gate;                    /* operands [rows, F] */
};

/* ---- memory --------------------------------------------------------------------------------- */

/* Scratch of an attention task; base NULL only measures. */
struct scratch {
    void *gemm;
    float *scores; /* [QUERY_ROWS, T rounded up to a panel] */
    void *shares;  /* operands, the same: softmax of scores */
    float *lse;    /* [QUERY_ROWS] */
    size_t columns;
};

static size_t carve(struct scratch *parts, void *base, size_t seq, size_t operand) {
    size_t used = 0;
    parts->columns = kiln_round_up(seq, KILN_PANEL);
#define TAKE(field, bytes)                                         \
    parts->field = base ? (void *)((uintptr_t)base + used) : NULL; \
    used = kiln_arena_reserve(used, (bytes))
    TAKE(gemm, KILN_GEMM_SCRATCH);
    TAKE(scores, QUERY_ROWS * parts->columns * sizeof(float));
    TAKE(shares, QUERY_ROWS * parts->columns * operand);
    TAKE(lse, QUERY_ROWS * sizeof(float));
#undef TAKE
    return used;
}

/* Both passes over the same list: base NULL plans the size, then the blocks are cut. */
static size_t lay_out(struct kiln_session *s, void *base) {
    const struct kiln_dims *d = &s->table->dims;
    size_t operand = s->kernels->operand_bytes, n = s->rows, used = 0;
    size_t hk = d->heads * d->head_size, kv_heads = d->layers * d->kv_heads;
    s->head_keys = kiln_packed_elements(s->seq, d->head_size) * operand;
    s->head_values = kiln_packed_elements(d->head_size, s->seq) * operand;
#define TAKE(field, bytes)                                     \
    s->field = base ? (void *)((uintptr_t)base + used) : NULL; \
    used = kiln_arena_reserve(used, (bytes))
    TAKE(angles, s->seq * d->head_size * sizeof(float));
    TAKE(keys, kv_heads * s->head_keys);
    TAKE(values, kv_heads * s->head_values);
    TAKE(x, n * d->dim * sizeof(float));
    TAKE(rstd, n * sizeof(float));
    TAKE(xn, n * d->dim * operand);
    TAKE(qkv, n * (hk + 2 * d->kv_heads * d->head_size) * operand);
    TAKE(heads, n * hk * operand);
    TAKE(h, n * 2 * d->hidden * operand);
    TAKE(gate, n * d->hidden * operand);
#undef TAKE
    return used;
}

struct pack_job {
    const struct kiln_session *session;
    size_t matrix;
};

static void pack_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct pack_job *job = context;
    (void)index;
    (void)scratch;
    const struct kiln_weights weights =
        kiln_weights_flat(job->session->table, job->session->weights);
    kiln_packed_rows(&job->session->own_packed, job->matrix, first, rows, &weights, true, false);
}

static enum kiln_status pack_all(struct kiln_session *s, struct kiln_err *err) {
    KILN_TRY(kiln_packed_open(&s->own_packed, s->table, s->kernels, false, err));
    for (size_t i = 0; i < s->table->n_matrices; i++) {
        struct pack_job job = {s, i};
        kiln_rows(&s->workers, s->table->matrices[i].rows, KILN_PACK_ROWS, pack_rows, &job);
    }
    s->packed = &s->own_packed;
    return KILN_OK;
}

static enum kiln_status open_parts(struct kiln_session *s, struct kiln_pool *pool,
                                   enum kiln_precision precision, struct kiln_err *err) {
    const struct kiln_dims *d = &s->table->dims;
    struct scratch parts;
    if (s->packed) {
        s->kernels = s->packed->kernels;
    } else {
        KILN_TRY(kiln_kernels_choose(precision, &s->own_kernels, err));
        s->kernels = &s->own_kernels;
    }
    s->few = !s->kernels->few_as_many;
    size_t scratch = carve(&parts, NULL, s->seq, s->kernels->operand_bytes);
    KILN_TRY(kiln_workers_open(&s->workers, s->kernels, pool, scratch, err));
    if (!s->packed) {
        KILN_TRY(pack_all(s, err));
    }
    KILN_TRY(kiln_arena_open(&s->arena, lay_out(s, NULL), err));
    lay_out(s, s->arena.base);
    kiln_rope_angles(s->angles, s->seq, d);
    return KILN_OK;
}

enum kiln_status kiln_session_open(const struct kiln_table *table, const float *weights,
                                   struct kiln_pool *pool,
                                   const struct kiln_session_options *options,
                                   struct kiln_session **out, struct kiln_err *err) {
    *out = NULL;
    struct kiln_session *s = kiln_alloc(1, sizeof *s);
    KILN_REQUIRE(s, err, KILN_ENOMEM, "no memory for a session");
    s->table = table;
    s->weights = weights;
    s->packed = options->packed;
    s->seq = options->seq ? options->seq : table->dims.seq;
    s->rows = s->seq < KILN_GEMM_M ? s->seq : KILN_GEMM_M;
    enum kiln_status status = open_parts(s, pool, options->precision, err);
    if (status != KILN_OK) {
        kiln_session_close(s);
        return status;
    }
    *out = s;
    return KILN_OK;
}

void kiln_session_close(struct kiln_session *s) {
    if (!s) {
        return;
    }
    kiln_arena_close(&s->arena);
    kiln_packed_close(&s->own_packed);
    kiln_workers_close(&s->workers);
    kiln_free(s);
}

void kiln_session_reset(struct kiln_session *s) { s->position = 0; }
size_t kiln_session_position(const struct kiln_session *s) { return s->position; }
size_t kiln_session_seq(const struct kiln_session *s) { return s->seq; }
const struct kiln_table *kiln_session_table(const struct kiln_session *s) { return s->table; }
size_t kiln_session_bytes(const struct kiln_session *s) {
    return s->arena.size + s->own_packed.arena.size +
           s->workers.scratch_bytes * kiln_pool_threads(s->workers.pool);
}

/* ---- rows of elementwise work --------------------------------------------------------------- */

/* A block of n tokens on its way through the layers. */
struct block {
    struct kiln_session *session;
    const uint32_t *tokens;
    size_t n, layer;
    const float *norm; /* weight of the norm */
};

static const float *tensor(const struct kiln_session *s, enum kiln_role role, size_t layer) {
    return s->weights + kiln_table_find(s->table, role, layer)->offset;
}

static void embed_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct block *block = context;
    const struct kiln_session *s = block->session;
    size_t d = s->table->dims.dim;
    const float *embedding = tensor(s, KILN_EMBED, KILN_NO_LAYER);
    (void)index;
    (void)scratch;
    for (size_t i = first; i < first + rows; i++) {
        memcpy(s->x + i * d, embedding + block->tokens[i] * d, d * sizeof(float));
    }
}

static void norm_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct block *block = context;
    const struct kiln_session *s = block->session;
    const struct kiln_dims *d = &s->table->dims;
    (void)index;
    (void)scratch;
    s->kernels->rmsnorm(s->xn + first * d->dim * s->kernels->operand_bytes, s->rstd + first,
                        s->x + first * d->dim, block->norm, d->rms_eps, rows, d->dim);
}

/* Queries and keys: normalised where the family does that, then turned. */
static void turn_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct block *block = context;
    const struct kiln_session *s = block->session;
    const struct kiln_dims *d = &s->table->dims;
    const size_t k = d->head_size, width = (d->heads + 2 * d->kv_heads) * k;
    const size_t operand = s->kernels->operand_bytes;
    char *q = s->qkv + first * width * operand, *keys = q + d->heads * k * operand;
    (void)index;
    (void)scratch;
    if (d->qk_norm) {
        s->kernels->head_norm(q, q, width, rows, d->heads, k, tensor(s, KILN_Q_NORM, block->layer),
                              d->rms_eps);
        s->kernels->head_norm(keys, keys, width, rows, d->kv_heads, k,
                              tensor(s, KILN_K_NORM, block->layer), d->rms_eps);
    }
    s->kernels->rope(q, width, rows, d->heads + d->kv_heads, k, s->angles, s->position + first,
                     s->seq, false);
}

static void swiglu_rows(void *context, size_t first, size_t rows, size_t index, void *scratch) {
    const struct block *block = context;
    const struct kiln_session *s = block->session;
    size_t f = s->table->dims.hidden, row = f * s->kernels->operand_bytes;
    (void)index;
    (void)scratch;
    s->kernels->swiglu(s->gate + first * row, s->h + first * 2 * row, rows, f);
}

static void each_row(struct block *block, kiln_rows_fn fn) {
    kiln_rows(&block->session->workers, block->n, ROW_CHUNK, fn, block);
}

static void norm(struct block *block, enum kiln_role role, size_t layer) {
    block->norm = tensor(block->session, role, layer);
    each_row(block, norm_rows);
}

/* y [n, rows] = x [n, cols] . W^T as operands, with the bias of q, k and v where there is one; or
 * added to the residual stream. */
static void multiply(const struct block *block, enum kiln_matrix_kind kind, const void *x,
                     void *y) {
    struct kiln_session *s = block->session;
    const bool biased = kind == KILN_MATRIX_QKV && s->table->dims.qkv_bias;
    const float *bias = biased ? tensor(s, KILN_BQ, block->layer) : NULL;
    const struct kiln_matrix *m = kiln_table_matrix(s->table, kind, block->layer);
    struct kiln_gemm product = {.m = block->n,
                                .n = m->rows,
                                .k = m->cols,
                                .a = x,
                                .lda = m->cols,
                                .b = s->packed->forward[m - s->table->matrices],
                                .c = y ? y : s->x,
                                .ldc = m->rows,
                                .c_operand = y != NULL,
                                .add = y ? bias : s->x,
                                .ldadd = y ? 0 : m->rows};
    (s->few ? kiln_product_few : kiln_product)(&s->workers, &product);
}

/* ---- attention ------------------------------------------------------------------------------ */

/* Copy operand element `from` to element `to`. */
static inline void copy_operand(char *out, size_t to, const char *in, size_t from, size_t operand) {
    if (operand == 2) {
        memcpy(out + to * 2, in + from * 2, 2);
    } else {
        memcpy(out + to * 4, in + from * 4, 4);
    }
}

/* The keys and values of the block's tokens, head g, go behind those of earlier tokens. */
static void remember(const struct block *block, size_t g, char *keys, char *values) {
    const struct kiln_session *s = block->session;
    const struct kiln_dims *d = &s->table->dims;
    size_t k = d->head_size, operand = s->kernels->operand_bytes;
    size_t width = (d->heads + 2 * d->kv_heads) * k;
    for (size_t i = 0; i < block->n; i++) {
        size_t t = s->position + i;
        size_t key = i * width + (d->heads + g) * k, value = key + d->kv_heads * k;
        size_t panel = t / KILN_PANEL * kiln_panel_elements(k);
        for (size_t j = 0; j < k; j++) {
            copy_operand(keys, panel + kiln_packed_at(operand, t, j), s->qkv, key + j, operand);
            copy_operand(
                values,
                j / KILN_PANEL * kiln_panel_elements(s->seq) + kiln_packed_at(operand, j, t),
                s->qkv, value + j, operand);
        }
    }
}

/* m rows of queries against the cache of one key-value head. Row r is at position
 * first + r * step: step 1 for tokens of one head, 0 for heads of one token. */
struct queries {
    const char *q, *keys, *values;
    char *out;
    size_t m, first, step;
    size_t ldq, ldout; /* elements */
};

static void attend_rows(const struct kiln_session *s, const struct queries *a,
                        const struct scratch *w) {
    const struct kiln_kernels *kernels = s->kernels;
    size_t k = s->table->dims.head_size, seen = a->first + (a->m - 1) * a->step + 1;
    float scale = 1.0f / sqrtf((float)k);
    kiln_product_own(kernels,
                     &(struct kiln_gemm){.m = a->m,
                                         .n = seen,
                                         .k = k,
                                         .a = a->q,
                                         .lda = a->ldq,
                                         .b = a->keys,
                                         .c = w->scores,
                                         .ldc = w->columns},
                     w->gemm);
    for (size_t r = 0; r < a->m; r++) {
        kernels->softmax_causal((char *)w->shares + r * w->columns * kernels->operand_bytes,
                                w->columns, w->lse + r, w->scores + r * w->columns, w->columns, 1,
                                a->first + r * a->step, seen, scale);
    }
    kiln_product_own(kernels,
                     &(struct kiln_gemm){.m = a->m,
                                         .n = k,
                                         .k = seen,
                                         .a = w->shares,
                                         .lda = w->columns,
                                         .b = a->values,
                                         .panel = kiln_panel_elements(s->seq),
                                         .c = a->out,
                                         .ldc = a->ldout,
                                         .c_operand = true},
                     w->gemm);
}

/* Key-value head g with the query heads that share it. */
static void attend(void *context, size_t g, size_t thread) {
    const struct block *block = context;
    const struct kiln_session *s = block->session;
    const struct kiln_dims *d = &s->table->dims;
    size_t k = d->head_size, share = d->heads / d->kv_heads, operand = s->kernels->operand_bytes;
    size_t width = (d->heads + 2 * d->kv_heads) * k, hk = d->heads * k;
    size_t head = block->layer * d->kv_heads + g;
    char *keys = s->keys + head * s->head_keys, *values = s->values + head * s->head_values;
    struct scratch w;
    carve(&w, s->workers.scratch[thread], s->seq, operand);
    remember(block, g, keys, values);

    /* One token: the heads of the group are the rows. More: the tokens, head after head. */
    bool one = block->n == 1;
    size_t most = s->few ? (size_t)KILN_GEMM_FEW : (size_t)QUERY_ROWS;
    size_t outer = one ? 1 : share, rows = one ? share : block->n;
    for (size_t h = 0; h < outer; h++) {
        for (size_t i = 0; i < rows; i += most) {
            size_t column = (g * share + h) * k;
            size_t ldq = one ? k : width, ldout = one ? k : hk;
            attend_rows(s,
                        &(struct queries){.q = s->qkv + (i * ldq + column) * operand,
                                          .keys = keys,
                                          .values = values,
                                          .out = s->heads + (i * ldout + column) * operand,
                                          .m = rows - i < most ? rows - i : most,
                                          .first = s->position + (one ? 0 : i),
                                          .step = one ? 0 : 1,
                                          .ldq = ldq,
                                          .ldout = ldout},
                        &w);
        }
    }
}

/* ---- feeding -------------------------------------------------------------------------------- */

static void feed_block(struct block *block) {
    struct kiln_session *s = block->session;
    const struct kiln_dims *d = &s->table->dims;
    each_row(block, embed_rows);
    for (block->layer = 0; block->layer < d->layers; block->layer++) {
        norm(block, KILN_ATTN_NORM, block->layer);
        multiply(block, KILN_MATRIX_QKV, s->xn, s->qkv);
        each_row(block, turn_rows);
        kiln_pool_run(s->workers.pool, d->kv_heads, attend, block);
        multiply(block, KILN_MATRIX_WO, s->heads, NULL);
        norm(block, KILN_FFN_NORM, block->layer);
        multiply(block, KILN_MATRIX_W13, s->xn, s->h);
        each_row(block, swiglu_rows);
        multiply(block, KILN_MATRIX_W2, s->gate, NULL);
    }
    s->position += block->n;
}

/* The classifier on the last row of a block. */
static void last_logits(struct kiln_session *s, size_t row, float *logits) {
    const struct kiln_dims *d = &s->table->dims;
    const struct kiln_matrix *m = kiln_table_matrix(s->table, KILN_MATRIX_HEAD, 0);
    s->kernels->rmsnorm(s->xn, s->rstd, s->x + row * d->dim,
                        tensor(s, KILN_FINAL_NORM, KILN_NO_LAYER), d->rms_eps, 1, d->dim);
    kiln_product(&s->workers, &(struct kiln_gemm){.m = 1,
                                                  .n = m->rows,
                                                  .k = m->cols,
                                                  .a = s->xn,
                                                  .lda = m->cols,
                                                  .b = s->packed->forward[m - s->table->matrices],
                                                  .c = logits,
                                                  .ldc = m->rows});
}

enum kiln_status kiln_session_feed(struct kiln_session *s, const uint32_t *tokens, size_t n,
                                   float *logits, struct kiln_err *err) {
    KILN_REQUIRE(n > 0, err, KILN_EUSAGE, "no tokens to read");
    KILN_REQUIRE(n <= s->seq - s->position, err, KILN_EUSAGE,
                 "%zu tokens behind %zu do not fit into a sequence of %zu", n, s->position, s->seq);
    for (size_t i = 0; i < n; i++) {
        KILN_REQUIRE(tokens[i] < s->table->dims.vocab, err, KILN_EUSAGE,
                     "token %zu is %u, beyond the vocabulary of %zu", i, (unsigned)tokens[i],
                     s->table->dims.vocab);
    }
    for (size_t first = 0; first < n; first += s->rows) {
        struct block block = {.session = s, .tokens = tokens + first};
        block.n = n - first < s->rows ? n - first : s->rows;
        feed_block(&block);
        if (logits && first + block.n == n) {
            last_logits(s, block.n - 1, logits);
        }
    }
    return KILN_OK;
}
