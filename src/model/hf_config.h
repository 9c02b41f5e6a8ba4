/* SPDX-License-Identifier: MIT
 *
 * hf_config.h: Hugging Face's config.json of Llama, Qwen2 and Qwen3, in and out.
 *
 * Reading is strict, so that nothing is computed that the config does not say:
 *
 * - `model_type` and `architectures` name the family; no other is taken for one of these.
 * - Sizes have to be there; where transformers has a default for what is absent, it is kiln's.
 * - Options that kiln does not have are errors that name them with their value, unless the value
 *   says that they are off: other activations, biases of the output or of the MLP, sliding
 *   windows, part of a head turned, RoPE "dynamic" or "longrope", quantisation.
 * - Keys without a say in the mathematics of a forward pass are listed (token ids, defaults of
 *   sampling, dtypes, versions, dropout: kiln trains without) and passed over, as are names that
 *   begin with "_". Any other key is an error, unless it is null, false, or empty.
 */
#ifndef KILN_MODEL_HF_CONFIG_H
#define KILN_MODEL_HF_CONFIG_H

#include "kiln/model.h"

/* KILN_EINPUT names the key and what was expected. */
KILN_MUST_CHECK enum kiln_status kiln_hf_config_read(const char *path, struct kiln_dims *dims,
                                                     struct kiln_err *err);
/* Parse `size` bytes of config.json; path for messages. */
KILN_MUST_CHECK enum kiln_status kiln_hf_config_parse(const char *path, const char *text,
                                                      size_t size, struct kiln_dims *dims,
                                                      struct kiln_err *err);
/* Which family holds these dims? NULL when none does (biases and head norms at once). */
const char *kiln_hf_family(const struct kiln_dims *dims);
/* Write it for a model whose dims kiln_hf_family knows. */
KILN_MUST_CHECK enum kiln_status kiln_hf_config_write(const char *path,
                                                      const struct kiln_dims *dims,
                                                      const struct kiln_save_options *options,
                                                      struct kiln_err *err);

#endif
