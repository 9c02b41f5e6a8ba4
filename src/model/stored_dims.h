/* SPDX-License-Identifier: MIT
 *
 * stored_dims.h: the dims as kiln's own files hold them, all of them, in one place: state headers,
 * checkpoints and model files embed this struct, and go over its fields by the list.
 */
#ifndef KILN_MODEL_STORED_DIMS_H
#define KILN_MODEL_STORED_DIMS_H

#include "kiln/model.h"

/* Every member is 8 bytes: no padding. A new member goes to the end, into the list, and raises the
 * versions of the files that embed it (docs/formats.md). */
struct kiln_stored_dims {
    uint64_t dim, hidden, layers, heads, kv_heads, head_size, vocab, seq, tied;
    double rms_eps, rope_theta;
    uint64_t qkv_bias, qk_norm;
    uint64_t rope_kind; /* as enum kiln_rope_kind */
    double rope_factor, rope_low_freq_factor, rope_high_freq_factor;
    double rope_beta_fast, rope_beta_slow, rope_attention_factor;
    uint64_t rope_original_seq;
};
_Static_assert(sizeof(struct kiln_stored_dims) == 21 * sizeof(uint64_t), "files hold it as it is");
_Static_assert(KILN_ROPE_PLAIN == 0 && KILN_ROPE_LINEAR == 1 && KILN_ROPE_LLAMA3 == 2 &&
                   KILN_ROPE_YARN == 3,
               "files hold these numbers");

struct kiln_stored_dims kiln_dims_store(const struct kiln_dims *dims);
/* Back again. Whoever read a file checks what comes out (kiln_dims_check). */
struct kiln_dims kiln_dims_restore(const struct kiln_stored_dims *stored);

/* Its fields, in order. */
struct kiln_stored_field {
    const char *name;
    size_t at; /* offset in struct kiln_stored_dims */
    enum { KILN_STORED_COUNT, KILN_STORED_FLAG, KILN_STORED_REAL } type;
    bool shapes; /* tensors depend on it; the others are arithmetic */
};
const struct kiln_stored_field *kiln_stored_fields(size_t *n);
/* A field's value as text: 288, or 1e-05. */
void kiln_stored_text(const struct kiln_stored_dims *dims, const struct kiln_stored_field *field,
                      char *out, size_t size);
/* The first field in which two differ, of all or of those that shape tensors; NULL: none. */
const struct kiln_stored_field *kiln_stored_differ(const struct kiln_stored_dims *a,
                                                   const struct kiln_stored_dims *b,
                                                   bool shapes_only);

#endif
