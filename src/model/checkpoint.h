/* SPDX-License-Identifier: MIT
 *
 * checkpoint.h: what a checkpoint format is to kiln: one file in this folder that fills one struct
 * of functions. checkpoint.c maps the file, asks the formats in turn and keeps what they found; a
 * new format is a new file and one line in its list.
 */
#ifndef KILN_MODEL_CHECKPOINT_H
#define KILN_MODEL_CHECKPOINT_H

#include "base/io.h"
#include "kiln/model.h"

struct kiln_checkpoint_format {
    const char *name; /* "llama2.c", for messages */
    /* Is it this format, by its first bytes? */
    bool (*recognizes)(const struct kiln_map *map);
    /* Read the header into checkpoint->dims and check it, with the size of the file, before
     * anything else. On failure nothing is left to free. */
    enum kiln_status (*open)(struct kiln_checkpoint *checkpoint, struct kiln_err *err);
    /* Copy all weights into the flat array; the table has the checkpoint's dims. */
    enum kiln_status (*load)(const struct kiln_checkpoint *checkpoint,
                             const struct kiln_table *table, float *weights, struct kiln_err *err);
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

extern const struct kiln_checkpoint_format kiln_format_llama2c, kiln_format_own;

/* Copy n floats of one tensor and check them on the way: KILN_EINPUT names the first that is not
 * a finite number. `from` need not be aligned. */
KILN_MUST_CHECK enum kiln_status kiln_checkpoint_copy(const struct kiln_checkpoint *checkpoint,
                                                      const struct kiln_tensor *tensor, float *to,
                                                      const void *from, struct kiln_err *err);

#endif
