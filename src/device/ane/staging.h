/* SPDX-License-Identifier: MIT
 *
 * staging.h: the folder from which Apple's compiler and loader read a program.
 *
 *   PARENT/NAME/             mode 0700; NAME is Apple's digest of the content
 *     model.mil              the text
 *     weights/w.bin ...      the files
 *     net.plist, data        written by the compiler
 *
 *   PARENT/kiln-staging/NAME empty: the folder of this name is kiln's
 *
 * Equal content has one folder, whoever compiles it: two programs of this process, or of two. Every
 * user holds a shared lock on it; the last one to close removes it. A folder that nobody holds was
 * left by a process that died: it is made anew when its content comes again, and swept away when a
 * runtime is opened or closed.
 */
#ifndef KILN_DEVICE_ANE_STAGING_H
#define KILN_DEVICE_ANE_STAGING_H

#include "device/ane/runtime.h"

struct kiln_staging {
    char *path; /* NULL: closed */
    int lock;   /* the folder, open and locked */
};

/* Make the folder and write text and weights, or join those who have it. On success close. KILN_EIO
 * also where `parent` is NULL: NSTemporaryDirectory found none. */
KILN_MUST_CHECK enum kiln_status kiln_staging_open(const char *parent, const char *name,
                                                   const struct kiln_npu_source *source,
                                                   struct kiln_staging *out, struct kiln_err *err);
/* Remove the folder if this was its last user. A closed one is fine. */
enum kiln_status kiln_staging_close(struct kiln_staging *staging, struct kiln_err *err);

/* Remove the folders in `parent` that dead processes left. What cannot be removed stays: it is in
 * nobody's way. With NULL nothing is done. */
void kiln_staging_sweep(const char *parent);

/* Give `fresh` what the compiler wrote for `donor`, with fresh's weights in the place of donor's:
 * net.plist as it is, and data, in which every old file is found whole and replaced.
 * KILN_EUNSUPPORTED: this compiler writes other files, or does not keep weights as they are. */
KILN_MUST_CHECK enum kiln_status kiln_staging_patch(const struct kiln_staging *fresh,
                                                    const struct kiln_staging *donor,
                                                    const struct kiln_npu_weight *weights,
                                                    size_t n_weights, struct kiln_err *err);

#endif
