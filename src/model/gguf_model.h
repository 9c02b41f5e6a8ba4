/* SPDX-License-Identifier: MIT
 *
 * gguf_model.h: what the key/values of a GGUF file say of a model; keys and their meaning as
 * llama.cpp's converter writes and its loader reads them.
 *
 * As with config.json nothing is passed over that changes what is computed: of keys that begin with
 * the architecture's name all must be known. Others ("general.", "tokenizer.", ...) have no say.
 */
#ifndef KILN_MODEL_GGUF_MODEL_H
#define KILN_MODEL_GGUF_MODEL_H

#include "model/exchange.h"
#include "model/gguf.h"

/* The dims a file tells, but for tied: that its tensors tell. KILN_EINPUT names what is unknown,
 * missing or contradictory. */
KILN_MUST_CHECK enum kiln_status kiln_gguf_dims(const struct kiln_gguf *gguf,
                                                struct kiln_dims *dims, struct kiln_err *err);
/* Does an opened model, which is a GGUF file, bring a tokenizer? */
bool kiln_gguf_has_tokenizer(const struct kiln_checkpoint *checkpoint);
/* Are the pairs of RoPE half a head apart in this file? (qwen2, qwen3; not llama) */
bool kiln_gguf_halves(const struct kiln_gguf *gguf);
/* The architecture that holds these dims: "llama", "qwen2", "qwen3"; NULL: none. */
const char *kiln_gguf_architecture(const struct kiln_dims *dims);
/* Its key/values. */
KILN_MUST_CHECK enum kiln_status kiln_gguf_describe(const struct kiln_dims *dims,
                                                    const struct kiln_save_options *options,
                                                    struct kiln_gguf_pairs *pairs,
                                                    struct kiln_err *err);
/* What llama3's scaling divides each frequency by, as the tensor rope_freqs.weight holds it:
 * `out` [head_size / 2]. */
void kiln_gguf_rope_freqs(const struct kiln_dims *dims, float *out);

#define KILN_GGUF_ROPE_FREQS "rope_freqs.weight"

#endif
