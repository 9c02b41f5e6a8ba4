/* SPDX-License-Identifier: MIT
 *
 * io.h: files. Whole-file reads, read-only maps, durable writes.
 *
 * A durable write goes to a temporary name beside the target; commit makes it visible under its
 * name only when its bytes are on the disk: write, fsync, rename, fsync of the folder. A crash
 * leaves the old file or the new one, never a mixture.
 */
#ifndef KILN_BASE_IO_H
#define KILN_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "kiln/status.h"

/* A file mapped read-only. An empty file has data NULL and size 0. */
struct kiln_map {
    const unsigned char *data;
    size_t size;
};
KILN_MUST_CHECK enum kiln_status kiln_map_open(struct kiln_map *map, const char *path,
                                               struct kiln_err *err);
void kiln_map_close(struct kiln_map *map);

/* The whole file on the heap with a zero byte behind it; *size excludes it. kiln_free it. */
KILN_MUST_CHECK enum kiln_status kiln_read_file(const char *path, char **out, size_t *size,
                                                struct kiln_err *err);

/* A file being written durably. Write through kiln_durable_write (or `stream`, checked at
 * commit). Exactly one of commit and abort ends it; abort after a failed commit is a no-op. */
struct kiln_durable {
    FILE *stream;
    char *path;
    char *temporary;
};
KILN_MUST_CHECK enum kiln_status kiln_durable_open(struct kiln_durable *file, const char *path,
                                                   struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_durable_write(struct kiln_durable *file, const void *data,
                                                    size_t size, struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_durable_commit(struct kiln_durable *file,
                                                     struct kiln_err *err);
void kiln_durable_abort(struct kiln_durable *file);

/* open + write + commit. */
KILN_MUST_CHECK enum kiln_status kiln_write_file(const char *path, const void *data, size_t size,
                                                 struct kiln_err *err);

bool kiln_path_exists(const char *path);
bool kiln_path_is_dir(const char *path);
/* Does its name end so? The second takes capitals for small letters. */
bool kiln_path_ends(const char *path, const char *ending);
bool kiln_path_ends_any_case(const char *path, const char *ending);
/* mkdir with all its parents; an existing folder is fine. */
KILN_MUST_CHECK enum kiln_status kiln_make_dirs(const char *path, struct kiln_err *err);
/* fsync a folder, so that names created in it survive a power cut. */
KILN_MUST_CHECK enum kiln_status kiln_sync_dir(const char *path, struct kiln_err *err);
/* Blocks for `size` bytes from `from`, zeros where there were none: zeros are written where the
 * file system cannot reserve. 0, or an errno. */
int kiln_reserve(int fd, size_t from, size_t size);
/* What kiln_reserve tries first: posix_fallocate, or what a test puts here. */
extern int (*kiln_fallocate)(int fd, off_t from, off_t size);
/* Write `size` mapped bytes of the file to the disk; `data` is on a page. */
KILN_MUST_CHECK enum kiln_status kiln_sync_map(void *data, size_t size, int fd, const char *path,
                                               struct kiln_err *err);
/* fsync a file that others write. */
KILN_MUST_CHECK enum kiln_status kiln_sync_file(const char *path, struct kiln_err *err);
/* Give a folder whose files are synced its final name beside where it is, and sync the parent. `to`
 * must not exist. */
KILN_MUST_CHECK enum kiln_status kiln_durable_rename(const char *from, const char *to,
                                                     struct kiln_err *err);
/* The same where `to` may be a folder that is there: it is set aside as TO.old-PID first, put back
 * when the new one cannot take its place, and removed behind it. A death leaves one of the two
 * whole under one of the names. */
KILN_MUST_CHECK enum kiln_status kiln_durable_replace(const char *from, const char *to,
                                                      struct kiln_err *err);
/* Remove a file or a folder with all it holds; an absent one is fine. */
KILN_MUST_CHECK enum kiln_status kiln_remove_tree(const char *path, struct kiln_err *err);

#endif
