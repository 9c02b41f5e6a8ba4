/* SPDX-License-Identifier: MIT
 *
 * host.h: what the host computes beside a Neural Engine: both ends of the model, residuals, norms.
 *
 * Letters as in ane/programs.h: B sequences of T tokens, W = T rounded up to 16, width D,
 * vocabulary V. A residual block is fp32 channel-major [B][D][W], and columns T..W-1 are zero. What
 * a program reads and writes is fp16 channel-major [C][W], one sequence.
 *
 * Everything runs over the pool in pieces of constant size and is fp32 arithmetic: bits do not
 * depend on threads. Columns T..W-1 of fp16 arrays are never read, so they may hold anything, and
 * are written as zeros. Infinities and NaN of the columns before stay what they are: an overflow
 * must be seen in the gradients. Nothing here fails, and nothing allocates after open.
 */
#ifndef KILN_DEVICE_HOST_H
#define KILN_DEVICE_HOST_H

#include "base/mem.h"
#include "device/device.h"
#include "device/host/head.h"
#include "kernel/packed.h"
#include "kernel/product.h"

/* Channels of one elementwise task. Constant, so partial sums do not depend on threads. */
enum { KILN_HOST_CHANNELS = 32 };

struct kiln_host_options {
    struct kiln_micro_batch shape;
    bool training; /* false: no room for gradients */
    bool two_sets; /* room for a second packed classifier */
    bool classify; /* final norm and classifier run on the device: kiln_host_head_made is called,
                    * kiln_host_head is not */
    bool no_head;  /* neither is: nothing is packed for it */
};

/* Opened in place: it must not be moved. */
struct kiln_host {
    const struct kiln_table *table; /* borrowed */
    struct kiln_weights weights;    /* of the active set: embedding, final norm; borrowed */
    struct kiln_host_options options;
    size_t width;                /* W */
    struct kiln_kernels kernels; /* fp32 operands */
    struct kiln_workers workers;
    struct kiln_table classifier; /* a table of one matrix, for the packed copies */
    struct kiln_packed packed[2]; /* of the sets; the second only where the options want it */
    size_t set;                   /* the active one */
    struct kiln_head head;
    struct kiln_arena arena; /* the workspace below, and the head's */
    float *x, *dx;           /* [KILN_HEAD_ROWS, D] token-major, of the head's block */
    float *losses;           /* [KILN_HEAD_ROWS] */
    float *partial;          /* [2][chunks of channels][W] sums of a norm over channels */
    float *rstd, *pull;      /* [W] of a norm */
    float *heads;            /* [H][K] of the norms of heads, where the model has them */
};

/* Bytes that a host takes, without opening it: for plans. */
struct kiln_host_sizes {
    size_t workspace;
    size_t thread; /* of each thread */
    size_t head;   /* the packed classifier, of one set */
};
KILN_MUST_CHECK enum kiln_status kiln_host_sizes(const struct kiln_table *table,
                                                 const struct kiln_host_options *options,
                                                 struct kiln_host_sizes *out, struct kiln_err *err);

/* Open, and pack the classifier of set 0, which is active, from the weights. Table, pool and what
 * the weights show are borrowed. On success kiln_host_close, which also closes what is half open or
 * all zero. */
KILN_MUST_CHECK enum kiln_status kiln_host_open(struct kiln_host *host,
                                                const struct kiln_table *table,
                                                struct kiln_pool *pool,
                                                const struct kiln_weights *weights,
                                                const struct kiln_host_options *options,
                                                struct kiln_err *err);
void kiln_host_close(struct kiln_host *host);

/* Pack the classifier of the set that is not active. Runs on any thread: alone, as a guest of the
 * pool, where it is not the owner's. */
void kiln_host_prepare(struct kiln_host *host, size_t set, const struct kiln_weights *weights);
/* Compute from here on with that set's classifier, and with the norm and embedding of weights. */
void kiln_host_activate(struct kiln_host *host, size_t set, const struct kiln_weights *weights);

/* Rows first..first+rows of a matrix have new values: the classifier is packed again, unless there
 * are two sets; other matrices have no copy here. For the device's `refresh`; runs on any thread.
 */
void kiln_host_refresh(struct kiln_host *host, size_t matrix, size_t first, size_t rows,
                       const float *weights);

/* ---- both ends ----------------------------------------------------------------------------- */

/* x [B][D][W] = rows of the embedding; tokens [N]. */
void kiln_host_embed(struct kiln_host *host, const uint32_t *tokens, float *x);
/* (nothing where it is NULL: the model is frozen) gradients.embedding (+)= dx [B][D][W] at the rows
 * that the tokens looked up, tokens in order. */
void kiln_host_embed_backward(struct kiln_host *host, const uint32_t *tokens, const float *dx,
                              const struct kiln_gradients *gradients);

/* [B][D][W] to and from token-major [N, D]. */
void kiln_host_export(const struct kiln_host *host, const float *block, float *out);
void kiln_host_import(const struct kiln_host *host, const float *in, float *block);
/* The same for tokens first..first+n of the micro-batch; in and out begin with the first. */
void kiln_host_export_tokens(const struct kiln_host *host, const float *block, size_t first,
                             size_t n, float *out);
void kiln_host_import_tokens(const struct kiln_host *host, const float *in, size_t first, size_t n,
                             float *block);

/* Final norm, classifier, cross-entropy, all on the host: device.h's `head`. *loss gets the sum
 * over all tokens. dx NULL: no gradients. */
void kiln_host_head(struct kiln_host *host, const float *x, const uint32_t *targets, float scale,
                    const struct kiln_gradients *gradients, float *dx, double *loss);

/* What the device made of one sequence. */
struct kiln_host_logits {
    const uint16_t *logits; /* [rows][W], classes first..first+rows */
    size_t first, rows;
};
struct kiln_host_made {
    const struct kiln_host_logits *parts; /* in order, all V classes together */
    size_t n_parts;
    const uint16_t *probabilities; /* [V][W]; NULL: there is no softmax on the device */
    const uint16_t *xn;            /* [D][W] the final norm's output; read only for gradients */
};
/* The same for sequence b of x, dx [B][D][W] and targets [N] where logits and perhaps probabilities
 * came from the device. Call it for b = 0..B-1 in order: the first writes gradients unless
 * gradients->add. *loss gets the sum over the tokens of this sequence.
 *
 * The loss of a token is -ln p where its probability is a normal fp16 number. A smaller one has
 * lost digits or is 0: then ln sum exp comes from the logits and the largest probability, or, where
 * that is subnormal too, from all logits. Without gradients only the tokens of that kind cost a
 * pass over the classes. */
void kiln_host_head_made(struct kiln_host *host, size_t b, const struct kiln_host_made *made,
                         const float *x, const uint32_t *targets, float scale,
                         const struct kiln_gradients *gradients, float *dx, double *loss);

/* ---- residuals, one sequence (D rows) or all (B*D rows) -------------------------------------- */

/* out [rows][W] = in [rows][W] rounded to fp16; what is beyond it becomes infinite. */
void kiln_host_to_half(const struct kiln_host *host, uint16_t *out, const float *in, size_t rows);
/* What x [rows][W] is multiplied by on its way to a program that norms it: 1, or the power of two
 * that brings its largest magnitude below KILN_HOST_NORM_MOST, so that squares stay in fp16.
 * RMSNorm does not see a factor, but for eps, which is nothing beside such values; its backward
 * pass gives the gradient over the factor. 1 where x is not finite: that must be seen. */
#define KILN_HOST_NORM_MOST 255.0f
float kiln_host_norm_scale(const struct kiln_host *host, const float *x, size_t rows);
/* The same, its rows `stride` apart, of in * scale. */
void kiln_host_to_half_rows(const struct kiln_host *host, uint16_t *out, size_t stride,
                            const float *in, size_t rows, float scale);
/* out = in * scale rounded to fp16. */
void kiln_host_to_half_scaled(const struct kiln_host *host, uint16_t *out, const float *in,
                              size_t rows, float scale);
/* out = in + half, all [rows][W]; out may be in. */
void kiln_host_add_half(const struct kiln_host *host, float *out, const float *in,
                        const uint16_t *half, size_t rows);

/* ---- layers, one sequence -------------------------------------------------------------------- */

/* y [D][W] = norm(x [D][W]) with weight w [D], rounded to fp16. */
void kiln_host_norm(struct kiln_host *host, const float *w, const float *x, uint16_t *y);

struct kiln_host_norm_bwd {
    const float *w;          /* [D] the norm's weight */
    float *dw;               /* [D] its gradient; NULL: it is frozen */
    bool add;                /* add to dw; false: write. True from the second sequence on */
    const float *x;          /* [D][W] the norm's input */
    float *dx;               /* [D][W] += gradient through the norm */
    const uint16_t *dy;      /* [D][W] gradient of the norm's output */
    const uint16_t *dy2;     /* NULL, or a second part of it, added in fp32 */
    const uint16_t *dx_made; /* NULL, or [D][W] the gradient through the norm as the device made it:
                              * then dx += dx_made * made_scale, and only dw is computed here */
    float made_scale;
};
/* Call it for the sequences in order. */
void kiln_host_norm_backward(struct kiln_host *host, const struct kiln_host_norm_bwd *norm);

struct kiln_host_heads_bwd {
    size_t heads;      /* H or G */
    const float *w;    /* [K] the norm's weight, which is that of all heads */
    float *dw;         /* [K] its gradient; NULL: it is frozen */
    bool add;          /* as above */
    const uint16_t *x; /* [heads*K][W] the norm's input */
    uint16_t *dy;      /* [heads*K][W] gradient of its output; on return, of its input */
};
/* Backward of the RMSNorm of every head by itself, in fp32. Call it for the sequences in order. */
void kiln_host_heads_backward(struct kiln_host *host, const struct kiln_host_heads_bwd *heads);
/* db [rows] = sums over the tokens of dy [rows][W], or adds them. */
void kiln_host_bias_backward(struct kiln_host *host, const uint16_t *dy, size_t rows, bool add,
                             float *db);

/* Of an adapter (kiln/lora.h), all in fp32, channels and tokens added in a fixed order:
 * out [rank][W] = scale * sum over channels c of w(c, k) x [channels][W], where w(c, k) is
 * w[c * by_channel + k * by_rank]. Columns T.. of out are not written. */
struct kiln_host_narrow {
    const float *w;
    size_t by_channel, by_rank;
    float scale;
    const uint16_t *x;
    size_t channels, rank;
    float *out;
};
void kiln_host_narrow(struct kiln_host *host, const struct kiln_host_narrow *narrow);
/* out(c, k), laid out as w above, (+)= sum over tokens of small [rank][W] x [channels][W]. */
struct kiln_host_contract {
    const float *small;
    const uint16_t *x;
    size_t channels, rank;
    float *out;
    size_t by_channel, by_rank;
    bool add; /* false: write */
};
void kiln_host_contract(struct kiln_host *host, const struct kiln_host_contract *contract);

/* dh1, dh3 [F][W] = gradients of silu(h1) * h3 from dgate, all fp16; F is the table's. For weights
 * that are inputs, where no program does it. Outputs may be inputs. */
void kiln_host_swiglu_backward(const struct kiln_host *host, const uint16_t *dgate,
                               const uint16_t *h1, const uint16_t *h3, uint16_t *dh1,
                               uint16_t *dh3);

#endif
