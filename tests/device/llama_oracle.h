/* SPDX-License-Identifier: MIT
 *
 * llama_oracle.h: a Llama layer in double, straight from its definition, and its gradients by
 * differences: nothing here shares a formula with the programs that it judges.
 *
 * Activations are token-major, [T][channels].
 */
#ifndef KILN_TESTS_DEVICE_LLAMA_ORACLE_H
#define KILN_TESTS_DEVICE_LLAMA_ORACLE_H

#include "device/ane/programs.h"
#include "kiln/model.h"

struct oracle {
    struct kiln_dims d;
    struct kiln_table *table;
    float *weights; /* random, of a size that keeps activations near 1 */
    size_t seq, layer;
    struct kiln_npu_mode mode; /* of programs: seq; a test may ask for more */
    const uint32_t *starts;    /* NULL, or [T] where a token's document begins */
};
void oracle_open(struct oracle *o, size_t dim, size_t heads, size_t kv_heads, size_t hidden,
                 size_t seq);
/* The same of sizes that are completed: layers, vocab, eps, theta. */
void oracle_open_dims(struct oracle *o, const struct kiln_dims *dims);
/* The same with adapters, which oracle_linear has beside the matrices. */
void oracle_open_lora(struct oracle *o, const struct kiln_dims *dims, const struct kiln_lora *lora);
void oracle_close(struct oracle *o);

/* n doubles near +-1 that fp16 holds exactly, the same for the same seed. The test frees them. */
double *oracle_random(size_t n, unsigned seed);
double *oracle_memory(size_t n);
/* The weight of a role in the oracle's layer. */
const float *oracle_weight(const struct oracle *o, enum kiln_role role);

/* y [T][rows] = W x, and the bias where the role has one. */
void oracle_linear(const struct oracle *o, enum kiln_role role, const double *x, double *y);
/* Sum over g of f. */
double oracle_dot(const double *g, const double *f, size_t n);
void oracle_norm(const struct oracle *o, enum kiln_role role, const double *x, double *y);
/* Every head by itself; in place on [T][heads*K]. Nothing where the model does not norm heads. */
void oracle_head_norm(const struct oracle *o, enum kiln_role role, double *x, size_t heads);
/* The angle by which RoPE turns pair i at position 1, and what it scales by, of any kind. */
double oracle_frequency(const struct kiln_dims *d, size_t i);
/* In place on [T][heads*K]. */
void oracle_rope(const struct oracle *o, double *x, size_t heads);
/* P [H][T][T] of Q and K after RoPE; att of P and V; */
void oracle_scores(const struct oracle *o, const double *q, const double *k, double *p);
void oracle_mix(const struct oracle *o, const double *p, const double *v, double *att);
void oracle_gate(const struct oracle *o, const double *h1, const double *h3, double *gate);

/* out = gradient of f at x, by central differences. x is put back. */
typedef double oracle_fn(void *context);
void oracle_gradient(oracle_fn *f, void *context, double *x, size_t n, double *out);

#endif
