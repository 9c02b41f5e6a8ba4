/* SPDX-License-Identifier: MIT
 *
 * files.h: the few things commands do with files themselves.
 */
#ifndef KILN_CMD_FILES_H
#define KILN_CMD_FILES_H

#include <stdbool.h>
#include <stddef.h>

#include "kiln/status.h"
#include "kiln/text.h"
#include "kiln/train.h"

bool file_exists(const char *path);
bool is_folder(const char *path);
/* Is it a folder of a run? */
bool is_run_folder(const char *path);
/* Remove a run folder with all that is in it. Anything else is left alone: KILN_EEXISTS. */
KILN_MUST_CHECK enum kiln_status remove_run(const char *path, struct kiln_err *err);
/* KILN_EEXISTS when `path` is there and `force` is not set. */
KILN_MUST_CHECK enum kiln_status refuse_existing(const char *path, bool force,
                                                 struct kiln_err *err);
/* The whole file with a zero behind it; free() it. */
KILN_MUST_CHECK enum kiln_status read_whole(const char *path, char **text, size_t *size,
                                            struct kiln_err *err);
/* A file with these bytes, on the disk when this returns. */
KILN_MUST_CHECK enum kiln_status write_whole(const char *path, const char *text, size_t size,
                                             struct kiln_err *err);
/* "folder/name" on the heap; free() it. */
KILN_MUST_CHECK enum kiln_status join(const char *folder, const char *name, char **out,
                                      struct kiln_err *err);

/* The tokenizer of a model: the file that is named ("bytes" is the byte tokenizer), else the
 * run's own, else bytes when the vocabulary is that of bytes. KILN_EINPUT when none of these is
 * there, or it does not fit. */
KILN_MUST_CHECK enum kiln_status tokenizer_for(const struct kiln_model *model, const char *named,
                                               struct kiln_tokenizer **out, struct kiln_err *err);

#endif
