/* SPDX-License-Identifier: MIT */
#include "model/stored_dims.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct kiln_stored_dims kiln_dims_store(const struct kiln_dims *d) {
    return (struct kiln_stored_dims){
        .dim = d->dim,
        .hidden = d->hidden,
        .layers = d->layers,
        .heads = d->heads,
        .kv_heads = d->kv_heads,
        .head_size = d->head_size,
        .vocab = d->vocab,
        .seq = d->seq,
        .tied = d->tied,
        .rms_eps = (double)d->rms_eps,
        .rope_theta = (double)d->rope_theta,
        .qkv_bias = d->qkv_bias,
        .qk_norm = d->qk_norm,
        .rope_kind = (uint64_t)d->rope.kind,
        .rope_factor = (double)d->rope.factor,
        .rope_low_freq_factor = (double)d->rope.low_freq_factor,
        .rope_high_freq_factor = (double)d->rope.high_freq_factor,
        .rope_beta_fast = (double)d->rope.beta_fast,
        .rope_beta_slow = (double)d->rope.beta_slow,
        .rope_attention_factor = (double)d->rope.attention_factor,
        .rope_original_seq = d->rope.original_seq,
    };
}

struct kiln_dims kiln_dims_restore(const struct kiln_stored_dims *s) {
    return (struct kiln_dims){
        .dim = s->dim,
        .hidden = s->hidden,
        .layers = s->layers,
        .heads = s->heads,
        .kv_heads = s->kv_heads,
        .head_size = s->head_size,
        .vocab = s->vocab,
        .seq = s->seq,
        .tied = s->tied != 0,
        .rms_eps = (float)s->rms_eps,
        .rope_theta = (float)s->rope_theta,
        .qkv_bias = s->qkv_bias != 0,
        .qk_norm = s->qk_norm != 0,
        /* One that is unknown stays unknown; kiln_dims_check refuses it. */
        .rope = {.kind = s->rope_kind <= KILN_ROPE_YARN ? (enum kiln_rope_kind)s->rope_kind
                                                        : (enum kiln_rope_kind)(KILN_ROPE_YARN + 1),
                 .factor = (float)s->rope_factor,
                 .low_freq_factor = (float)s->rope_low_freq_factor,
                 .high_freq_factor = (float)s->rope_high_freq_factor,
                 .beta_fast = (float)s->rope_beta_fast,
                 .beta_slow = (float)s->rope_beta_slow,
                 .attention_factor = (float)s->rope_attention_factor,
                 .original_seq = s->rope_original_seq},
    };
}

#define FIELD(type, name, shapes) \
    { #name, offsetof(struct kiln_stored_dims, name), KILN_STORED_##type, shapes }
static const struct kiln_stored_field fields[] = {
    FIELD(COUNT, dim, true),
    FIELD(COUNT, hidden, true),
    FIELD(COUNT, layers, true),
    FIELD(COUNT, heads, true),
    FIELD(COUNT, kv_heads, true),
    FIELD(COUNT, head_size, true),
    FIELD(COUNT, vocab, true),
    FIELD(COUNT, seq, false),
    FIELD(FLAG, tied, true),
    FIELD(REAL, rms_eps, false),
    FIELD(REAL, rope_theta, false),
    FIELD(FLAG, qkv_bias, true),
    FIELD(FLAG, qk_norm, true),
    FIELD(COUNT, rope_kind, false),
    FIELD(REAL, rope_factor, false),
    FIELD(REAL, rope_low_freq_factor, false),
    FIELD(REAL, rope_high_freq_factor, false),
    FIELD(REAL, rope_beta_fast, false),
    FIELD(REAL, rope_beta_slow, false),
    FIELD(REAL, rope_attention_factor, false),
    FIELD(COUNT, rope_original_seq, false),
};
_Static_assert(sizeof fields / sizeof fields[0] == sizeof(struct kiln_stored_dims) / 8,
               "every member is in the list");

const struct kiln_stored_field *kiln_stored_fields(size_t *n) {
    *n = sizeof fields / sizeof fields[0];
    return fields;
}

void kiln_stored_text(const struct kiln_stored_dims *dims, const struct kiln_stored_field *field,
                      char *out, size_t size) {
    uint64_t count;
    double real;
    memcpy(&count, (const char *)dims + field->at, sizeof count);
    memcpy(&real, &count, sizeof real);
    if (field->type == KILN_STORED_REAL) {
        snprintf(out, size, "%.9g", real);
    } else {
        snprintf(out, size, "%" PRIu64, count);
    }
}

const struct kiln_stored_field *kiln_stored_differ(const struct kiln_stored_dims *a,
                                                   const struct kiln_stored_dims *b,
                                                   bool shapes_only) {
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if ((fields[i].shapes || !shapes_only) &&
            memcmp((const char *)a + fields[i].at, (const char *)b + fields[i].at, 8) != 0) {
            return &fields[i];
        }
    }
    return NULL;
}
