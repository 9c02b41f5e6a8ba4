/* SPDX-License-Identifier: MIT
 *
 * checkpoint.h: what a checkpoint format is to kiln: one file in this folder that fills one struct
 * of functions. checkpoint.c maps the file, or says that there is a folder, asks the formats in
 * turn and keeps what they found; a new format is a new file and one line in its list.
 */
#ifndef KILN_MODEL_CHECKPOINT_H
#define KILN_MODEL_CHECKPOINT_H

#include "base/io.h"
#include "kiln/model.h"

struct kiln_checkpoint_format {
    const char *name; /* "llama2.c", for messages */
    bool folder;      /* it lies in a folder: path is one, and map is empty */
    /* Is it this format, by its first bytes, or by what is in the folder? */
    bool (*recognizes)(const struct kiln_checkpoint *checkpoint);
    /* Read the header into checkpoint->dims and check it, with the size of the file, before
     * anything else. On failure nothing is left to free. */
    enum kiln_status (*open)(struct kiln_checkpoint *checkpoint, struct kiln_err *err);
    /* Copy all weights into the flat array; the table has the checkpoint's dims. */
    enum kiln_status (*load)(const struct kiln_checkpoint *checkpoint,
                             const struct kiln_table *table, float *weights, struct kiln_err *err);
    /* How a tensor lies in the file (optional; default: as F32). */
    enum kiln_dtype (*dtype)(const struct kiln_checkpoint *checkpoint,
                             const struct kiln_tensor *tensor);
    /* Free `detail` (optional; default: nothing to free). */
    void (*close)(struct kiln_checkpoint *checkpoint);
};

struct kiln_checkpoint {
    const struct kiln_checkpoint_format *format;
    char *path; /* for messages */
    struct kiln_map map;
    struct kiln_dims dims;
    void *detail; /* the format's own */
};

extern const struct kiln_checkpoint_format kiln_format_llama2c, kiln_format_llama2c_v1,
    kiln_format_llama2c_v2, kiln_format_hf, kiln_format_gguf, kiln_format_own;

/* What a format is to kiln_checkpoint_save (save.c). */
struct kiln_save_format {
    const char *name;
    enum kiln_status (*check)(const struct kiln_dims *dims, enum kiln_dtype dtype,
                              struct kiln_err *err);
    /* The dtype of one tensor when matrices are to have `dtype`. */
    enum kiln_dtype (*dtype)(const struct kiln_tensor *tensor, enum kiln_dtype dtype);
    /* Write the file; of a format in a folder, its weights file. */
    enum kiln_status (*write)(struct kiln_durable *file, const struct kiln_table *table,
                              const float *weights, const struct kiln_save_options *options,
                              struct kiln_err *err);
    /* In a folder: the name of the weights file, and what else kiln itself writes; NULL for
     * formats of one file. */
    const char *weights_file;
    /* Every name that kiln may have written there, `add` included: a folder that holds others is
     * not replaced. */
    const char *const *own;
    size_t n_own;
    enum kiln_status (*describe)(const char *folder, const struct kiln_dims *dims,
                                 const struct kiln_save_options *options, struct kiln_err *err);
};
extern const struct kiln_save_format kiln_save_llama2c, kiln_save_hf, kiln_save_gguf;

/* Every number of a tensor that was loaded to `values` is finite, or KILN_EINPUT names the first
 * that is not. */
KILN_MUST_CHECK enum kiln_status kiln_checkpoint_finite(const struct kiln_checkpoint *checkpoint,
                                                        const struct kiln_tensor *tensor,
                                                        const float *values, struct kiln_err *err);

#endif
