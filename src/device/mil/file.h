/* SPDX-License-Identifier: MIT
 *
 * file.h: programs from files, with the weight files that they name.
 */
#ifndef KILN_DEVICE_MIL_FILE_H
#define KILN_DEVICE_MIL_FILE_H

#include "device/mil/graph.h"

/* Read the program of a file, or model.mil of a folder. @model_path/weights/NAME is looked for as
 * weights/NAME and as NAME in the folder `weights` (NULL: the program's own); names that lead out
 * of it are not found. On success kiln_mil_close. */
KILN_MUST_CHECK enum kiln_status kiln_mil_open(const char *path, const char *weights,
                                               struct kiln_mil_graph *out, struct kiln_err *err);

#endif
