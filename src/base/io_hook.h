/* SPDX-License-Identifier: MIT
 *
 * io_hook.h: what is done to files, told to a test as it happens.
 *
 * Everything that is meant to survive a power cut is reported twice, before and after: what was
 * synced is on the disk then, what was not may be there, half there or missing. A test that knows
 * all of it can build the disks that a cut may leave (tests/state/test_power_cut.c). Otherwise a
 * report costs one load.
 */
#ifndef KILN_BASE_IO_HOOK_H
#define KILN_BASE_IO_HOOK_H

#include <stdbool.h>
#include <stddef.h>

enum kiln_io_op {
    KILN_IO_CREATE,   /* a file appears under a name, or is opened to be written */
    KILN_IO_WRITE,    /* bytes are handed to the system */
    KILN_IO_SYNC,     /* the first `size` bytes reach the disk; 0: all */
    KILN_IO_TRUNCATE, /* a file becomes shorter */
    KILN_IO_RENAME,   /* path becomes `to` */
    KILN_IO_REMOVE,   /* a file or an empty folder goes */
    KILN_IO_MKDIR,
    KILN_IO_SYNC_DIR, /* the names in a folder reach the disk */
};

struct kiln_io_event {
    enum kiln_io_op op;
    bool done;
    const char *path, *to;
    size_t size;
};

extern void (*kiln_io_hook)(const struct kiln_io_event *event);

static inline void kiln_io_report(enum kiln_io_op op, bool done, const char *path, const char *to,
                                  size_t size) {
    if (kiln_io_hook) {
        const struct kiln_io_event event = {op, done, path, to, size};
        kiln_io_hook(&event);
    }
}

/* Report, do, report; the value of the call. */
#define KILN_IO(op, path, to, size, call)                  \
    __extension__({                                        \
        kiln_io_report((op), false, (path), (to), (size)); \
        const __typeof__(call) kiln_io_result = (call);    \
        const int kiln_io_errno = errno;                   \
        kiln_io_report((op), true, (path), (to), (size));  \
        errno = kiln_io_errno;                             \
        kiln_io_result;                                    \
    })

#endif
