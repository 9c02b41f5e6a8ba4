/* SPDX-License-Identifier: MIT
 *
 * model_source.h: from what a user names (preset, file, run) to dims and weights.
 */
#ifndef KILN_TRAIN_MODEL_SOURCE_H
#define KILN_TRAIN_MODEL_SOURCE_H

#include "kiln/train.h"

/* What a name stands for, before any weight is read. Exactly one of preset and path is set. */
struct kiln_model_source {
    const struct kiln_preset *preset;
    char path[4096];      /* the weights file */
    char tokenizer[4096]; /* of a run; "" otherwise */
    struct kiln_dims dims;
    struct kiln_lora lora; /* rank 0, or a checkpoint's adapters, beside the weights in `path` */
};

/* KILN_EINPUT when the name is neither a preset nor a model file. */
KILN_MUST_CHECK enum kiln_status kiln_model_source(const char *name, struct kiln_model_source *out,
                                                   struct kiln_err *err);
struct kiln_pool;
/* Fill the model's part of the flat array: from the file, with a checkpoint's adapters merged, or
 * random by seed, on the threads of the pool (NULL: on the caller). */
KILN_MUST_CHECK enum kiln_status kiln_model_source_load(const struct kiln_model_source *source,
                                                        const struct kiln_table *table,
                                                        uint64_t seed, float *weights,
                                                        struct kiln_pool *pool,
                                                        struct kiln_err *err);
/* For people: "stories260K.bin", "stories15m (random weights, seed 1)". */
void kiln_model_source_name(const struct kiln_model_source *source, uint64_t seed, char *out,
                            size_t size);

#endif
