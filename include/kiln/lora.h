/* SPDX-License-Identifier: MIT
 *
 * lora.h: low-rank adapters: fine-tuning that leaves a model's weights as they are.
 *
 * LoRA (Hu et al. 2021, arXiv 2106.09685): beside a frozen matrix W [out, in] stand two small ones,
 * A [r, in] and B [out, r], and
 *
 *   y = x W^T + alpha/r (x A^T) B^T
 *
 * B begins at 0, so training begins at the model as it is. A begins normal with the variance of
 * PEFT's initialisation, 1/(3 in). Only A and B are trained: moments, gradients and what guards
 * them are of their size.
 *
 * In the tensor table (model.h) adapters lie behind all tensors of the model, so that what is
 * trained is the end of the flat array:
 *
 *   embed | layer 0 ... | final_norm | head | adapters of layer 0 | adapters of layer 1 | ...
 *                                           ^ table->trained
 *   adapters of a layer: of each of its matrices (QKV, WO, W13, W2) that has some: the A of its
 *   tensors, one behind the other without gaps, then their B
 */
#ifndef KILN_LORA_H
#define KILN_LORA_H

#include <stdbool.h>
#include <stddef.h>

#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Matrices that may have adapters, as bits, in the order of the table. */
enum {
    KILN_LORA_Q = 1 << 0,
    KILN_LORA_K = 1 << 1,
    KILN_LORA_V = 1 << 2,
    KILN_LORA_O = 1 << 3,
    KILN_LORA_GATE = 1 << 4,
    KILN_LORA_UP = 1 << 5,
    KILN_LORA_DOWN = 1 << 6,
    KILN_LORA_ALL = (1 << 7) - 1,
    KILN_LORA_TARGETS = 7,
};

/* Which adapters a table has. All zero: none, the whole model is trained. */
struct kiln_lora {
    size_t rank;      /* r, 1 to KILN_LORA_MOST_RANK; 0: no adapters */
    double alpha;     /* positive; what adapters add is scaled by alpha / r */
    unsigned targets; /* bits above, at least one */
};
enum { KILN_LORA_MOST_RANK = 1024 };
/* A list of targets on the command line. */
enum { KILN_LORA_TEXT = 40 };

/* Read a list as "q,v", each of q, k, v, o, gate, up, down, or "all". KILN_EUSAGE names what is
 * none of them and lists what is. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_lora_parse(const char *text, unsigned *targets,
                                                          struct kiln_err *err);
/* The list again: "q,v", or "all". */
KILN_API void kiln_lora_text(unsigned targets, char out[KILN_LORA_TEXT]);
/* KILN_EUSAGE when rank, alpha or targets are none that can be. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_lora_check(const struct kiln_lora *lora,
                                                          struct kiln_err *err);

struct kiln_table;
struct kiln_tensor;
/* The adapter of a tensor: its A or, with `b`, its B; NULL when it has none. */
KILN_API const struct kiln_tensor *kiln_lora_find(const struct kiln_table *table,
                                                  const struct kiln_tensor *target, int b);
/* Starting values of the adapters in a flat array of the table; gaps are set to 0. Each element is
 * a pure function of (seed, tensor, element). */
KILN_API void kiln_lora_init(const struct kiln_table *table, unsigned long long seed,
                             float *weights);
/* Add what the adapters do to the tensors they belong to, W += alpha/r B A, each element summed in
 * double and rounded once: after it the first table->trained elements are a model without adapters.
 * The adapters stay. */
KILN_API void kiln_lora_merge(const struct kiln_table *table, float *weights);

/* ---- files, as PEFT lays them out --------------------------------------------------------------
 *
 *   FOLDER/adapter_config.json         r, lora_alpha, target_modules, ...
 *         /adapter_model.safetensors base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight
 *
 * The rows of B of q and k are in Hugging Face's order, as those of the model's own files. */

/* Write the adapters of a flat array, in fp32, durably and whole: the folder has its name only when
 * it is complete. `base` names the model they belong to; NULL: nothing does. KILN_EEXISTS where the
 * folder is there and may not be replaced. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_lora_save(const char *folder,
                                                         const struct kiln_table *table,
                                                         const float *weights, const char *base,
                                                         bool replace, struct kiln_err *err);
/* What adapters a folder holds. KILN_EINPUT: there is none, or it contradicts itself;
 * KILN_EUNSUPPORTED names an option that changes what adapters compute and kiln has not. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_lora_peek(const char *folder, struct kiln_lora *out,
                                                         struct kiln_err *err);
/* Fill the adapters of a flat array from a folder (F32, F16 or BF16). The table is one of what
 * kiln_lora_peek says. KILN_EINPUT names the tensor that is missing, too many, or of another
 * shape. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_lora_load(const char *folder,
                                                         const struct kiln_table *table,
                                                         float *weights, struct kiln_err *err);

#ifdef __cplusplus
}
#endif

#endif
