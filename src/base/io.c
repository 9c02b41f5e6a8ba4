/* SPDX-License-Identifier: MIT
 *
 * io.c: see io.h. A file that is absent or of the wrong kind is the user's to mend (KILN_EINPUT);
 * everything else the system refuses is KILN_EIO. Every message names the path and the reason.
 */
#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io_hook.h"
#include "base/kill_point.h"
#include "base/mem.h"

void (*kiln_io_hook)(const struct kiln_io_event *event);

static enum kiln_status no_memory(struct kiln_err *err, const char *what, const char *path) {
    return KILN_FAIL(err, KILN_ENOMEM, "%s %s: not enough memory", what, path);
}

static enum kiln_status io_failed(struct kiln_err *err, const char *what, const char *path) {
    int why = errno;
    bool absent = why == ENOENT || why == ENOTDIR || why == EISDIR;
    return KILN_FAIL(err, absent ? KILN_EINPUT : KILN_EIO, "%s %s: %s", what, path, strerror(why));
}

static enum kiln_status open_for_reading(const char *path, int *fd, struct stat *info,
                                         struct kiln_err *err) {
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) {
        return io_failed(err, "open", path);
    }
    enum kiln_status status = KILN_OK;
    if (fstat(*fd, info) != 0) {
        status = io_failed(err, "stat", path);
    } else if (S_ISDIR(info->st_mode)) {
        errno = EISDIR;
        status = io_failed(err, "read", path);
    }
    if (status != KILN_OK) {
        close(*fd);
        *fd = -1;
    }
    return status;
}

/* ---- maps --------------------------------------------------------------------------------- */

static enum kiln_status map_fd(struct kiln_map *map, int fd, const struct stat *info,
                               const char *path, struct kiln_err *err) {
    KILN_REQUIRE(S_ISREG(info->st_mode), err, KILN_EINPUT, "map %s: not a regular file", path);
    if (info->st_size == 0) {
        return KILN_OK; /* the system refuses a map of nothing */
    }
    void *data = mmap(NULL, (size_t)info->st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        return io_failed(err, "map", path);
    }
    map->data = data;
    map->size = (size_t)info->st_size;
    return KILN_OK;
}

enum kiln_status kiln_map_open(struct kiln_map *map, const char *path, struct kiln_err *err) {
    *map = (struct kiln_map){0};
    int fd;
    struct stat info;
    KILN_TRY(open_for_reading(path, &fd, &info, err));
    enum kiln_status status = map_fd(map, fd, &info, path, err);
    close(fd); /* the map outlives the descriptor */
    return status;
}

void kiln_map_close(struct kiln_map *map) {
    if (map->data != NULL) {
        munmap((void *)(uintptr_t)map->data, map->size);
    }
    *map = (struct kiln_map){0};
}

/* ---- whole files -------------------------------------------------------------------------- */

struct buffer {
    char *bytes;
    size_t room, size;
};

/* Read to the end; one byte of room is always left for the closing zero. */
static enum kiln_status read_all(int fd, struct buffer *buffer, const char *path,
                                 struct kiln_err *err) {
    for (;;) {
        if (buffer->size + 1 == buffer->room) { /* it grew meanwhile, or tells no size (a pipe) */
            char *grown = kiln_realloc(buffer->bytes, buffer->room, buffer->room * 2, 1);
            if (grown == NULL) {
                return no_memory(err, "read", path);
            }
            buffer->bytes = grown;
            buffer->room *= 2;
        }
        size_t room = buffer->room - 1 - buffer->size;
        ssize_t got = read(fd, buffer->bytes + buffer->size, room);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return io_failed(err, "read", path);
        }
        if (got == 0) {
            return KILN_OK;
        }
        buffer->size += (size_t)got;
    }
}

enum kiln_status kiln_read_file(const char *path, char **out, size_t *size, struct kiln_err *err) {
    *out = NULL;
    *size = 0;
    int fd;
    struct stat info;
    KILN_TRY(open_for_reading(path, &fd, &info, err));
    /* Two spare bytes: the closing zero, and one so that a whole file ends without growing. */
    struct buffer buffer = {.room = (size_t)info.st_size + 2 < 4096 ? 4096 : info.st_size + 2};
    buffer.bytes = kiln_alloc(buffer.room, 1);
    enum kiln_status status =
        buffer.bytes == NULL ? no_memory(err, "read", path) : read_all(fd, &buffer, path, err);
    close(fd);
    if (status != KILN_OK) {
        kiln_free(buffer.bytes);
        return status;
    }
    buffer.bytes[buffer.size] = '\0';
    *out = buffer.bytes;
    *size = buffer.size;
    return KILN_OK;
}

/* ---- durable writes ----------------------------------------------------------------------- */

/* The folder a name lies in, on the heap. */
static char *parent_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return kiln_strdup(".");
    }
    return kiln_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static enum kiln_status sync_path(const char *path, int flags, const char *what,
                                  struct kiln_err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    if (fd < 0) {
        return io_failed(err, "open", path);
    }
    /* Some file systems cannot sync a folder and say EINVAL; there is nothing more to do there. */
    enum kiln_status status = KILN_OK;
    enum kiln_io_op op = flags & O_DIRECTORY ? KILN_IO_SYNC_DIR : KILN_IO_SYNC;
    if (KILN_IO(op, path, NULL, 0, fsync(fd)) != 0 && errno != EINVAL) {
        status = io_failed(err, what, path);
    }
    close(fd);
    return status;
}

enum kiln_status kiln_sync_dir(const char *path, struct kiln_err *err) {
    return sync_path(path, O_DIRECTORY, "sync folder", err);
}

enum kiln_status kiln_sync_file(const char *path, struct kiln_err *err) {
    return sync_path(path, 0, "sync", err);
}

enum kiln_status kiln_durable_rename(const char *from, const char *to, struct kiln_err *err) {
    if (KILN_IO(KILN_IO_RENAME, from, to, 0, rename(from, to)) != 0) {
        return io_failed(err, "rename to", to);
    }
    kiln_kill_point("durable: renamed");
    char *parent = parent_of(to);
    if (parent == NULL) {
        return no_memory(err, "rename to", to);
    }
    enum kiln_status status = kiln_sync_dir(parent, err);
    kiln_free(parent);
    return status;
}

enum kiln_status kiln_durable_open(struct kiln_durable *file, const char *path,
                                   struct kiln_err *err) {
    *file = (struct kiln_durable){0};
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) {
        /* Renaming over a device or a folder would replace it. */
        return KILN_FAIL(err, KILN_EINPUT, "write %s: exists and is not a regular file", path);
    }
    size_t room = strlen(path) + 32;
    file->path = kiln_strdup(path);
    file->temporary = kiln_alloc(room, 1);
    if (file->path == NULL || file->temporary == NULL) {
        kiln_durable_abort(file);
        return no_memory(err, "write", path);
    }
    snprintf(file->temporary, room, "%s.tmp-%ld", path, (long)getpid());
    file->stream = KILN_IO(KILN_IO_CREATE, file->temporary, NULL, 0, fopen(file->temporary, "we"));
    if (file->stream == NULL) {
        enum kiln_status status = io_failed(err, "create", file->path);
        kiln_durable_abort(file);
        return status;
    }
    kiln_kill_point("durable: created");
    return KILN_OK;
}

enum kiln_status kiln_durable_write(struct kiln_durable *file, const void *data, size_t size,
                                    struct kiln_err *err) {
    kiln_kill_point("durable: before a write");
    if (size > 0 && KILN_IO(KILN_IO_WRITE, file->temporary, NULL, size,
                            fwrite(data, 1, size, file->stream)) != size) {
        return io_failed(err, "write", file->path);
    }
    return KILN_OK;
}

/* Everything on the disk and the stream closed, or an error. */
static enum kiln_status flush_and_close(struct kiln_durable *file, struct kiln_err *err) {
    enum kiln_status status = KILN_OK;
    errno = EIO; /* what a stream that failed earlier reports: its own reason is gone */
    if (ferror(file->stream) || fflush(file->stream) != 0 ||
        KILN_IO(KILN_IO_SYNC, file->temporary, NULL, 0, fsync(fileno(file->stream))) != 0) {
        status = io_failed(err, "write", file->path);
    }
    if (fclose(file->stream) != 0 && status == KILN_OK) {
        status = io_failed(err, "close", file->path);
    }
    file->stream = NULL;
    kiln_kill_point("durable: on the disk");
    return status;
}

static enum kiln_status rename_durably(struct kiln_durable *file, struct kiln_err *err) {
    if (KILN_IO(KILN_IO_RENAME, file->temporary, file->path, 0,
                rename(file->temporary, file->path)) != 0) {
        return io_failed(err, "rename to", file->path);
    }
    kiln_kill_point("durable: renamed");
    kiln_free(file->temporary); /* it bears its final name: nothing is left to remove */
    file->temporary = NULL;
    char *parent = parent_of(file->path);
    if (parent == NULL) {
        return no_memory(err, "write", file->path);
    }
    enum kiln_status status = kiln_sync_dir(parent, err);
    kiln_free(parent);
    return status;
}

enum kiln_status kiln_durable_commit(struct kiln_durable *file, struct kiln_err *err) {
    enum kiln_status status = flush_and_close(file, err);
    if (status == KILN_OK) {
        status = rename_durably(file, err);
    }
    kiln_durable_abort(file);
    return status;
}

void kiln_durable_abort(struct kiln_durable *file) {
    if (file->stream != NULL) {
        fclose(file->stream);
    }
    if (file->temporary != NULL) {
        (void)KILN_IO(KILN_IO_REMOVE, file->temporary, NULL, 0, unlink(file->temporary));
    }
    kiln_free(file->temporary);
    kiln_free(file->path);
    *file = (struct kiln_durable){0};
}

enum kiln_status kiln_write_file(const char *path, const void *data, size_t size,
                                 struct kiln_err *err) {
    struct kiln_durable file;
    KILN_TRY(kiln_durable_open(&file, path, err));
    enum kiln_status status = kiln_durable_write(&file, data, size, err);
    if (status != KILN_OK) {
        kiln_durable_abort(&file);
        return status;
    }
    return kiln_durable_commit(&file, err);
}

/* ---- files that stay open ----------------------------------------------------------------- */

int (*kiln_fallocate)(int fd, off_t from, off_t size) = posix_fallocate;

/* Only behind the end of the file: what is there already has its blocks. */
static int write_zeros(int fd, size_t from, size_t end) {
    static const char zeros[65536];
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return errno;
    }
    size_t at = (size_t)info.st_size > from ? (size_t)info.st_size : from;
    while (at < end) {
        ssize_t put = pwrite(fd, zeros, end - at < sizeof zeros ? end - at : sizeof zeros, at);
        if (put < 0 && errno != EINTR) {
            return errno;
        }
        at += put > 0 ? (size_t)put : 0;
    }
    return 0;
}

int kiln_reserve(int fd, size_t from, size_t size) {
    int failed = size == 0 ? 0 : kiln_fallocate(fd, (off_t)from, (off_t)size);
    return failed == EOPNOTSUPP || failed == EINVAL ? write_zeros(fd, from, from + size) : failed;
}

enum kiln_status kiln_sync_map(void *data, size_t size, int fd, const char *path,
                               struct kiln_err *err) {
    bool synced =
        KILN_IO(KILN_IO_SYNC, path, NULL, size, msync(data, size, MS_SYNC) == 0 && fsync(fd) == 0);
    return synced ? KILN_OK : io_failed(err, "write to the disk", path);
}

/* ---- folders ------------------------------------------------------------------------------ */

bool kiln_path_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

bool kiln_path_is_dir(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* Where the last bytes of `path` begin, as many as `ending` has; NULL: it is shorter. */
static const char *tail_of(const char *path, const char *ending) {
    const size_t n = strlen(path), m = strlen(ending);
    return n >= m ? path + n - m : NULL;
}

bool kiln_path_ends(const char *path, const char *ending) {
    const char *tail = tail_of(path, ending);
    return tail != NULL && strcmp(tail, ending) == 0;
}

bool kiln_path_ends_any_case(const char *path, const char *ending) {
    const char *tail = tail_of(path, ending);
    return tail != NULL && strcasecmp(tail, ending) == 0;
}

/* What is written into it must not be lost with its name. */
static enum kiln_status sync_parent(const char *path, struct kiln_err *err) {
    char *parent = parent_of(path);
    if (parent == NULL) {
        return no_memory(err, "sync folder of", path);
    }
    enum kiln_status status = kiln_sync_dir(parent, err);
    kiln_free(parent);
    return status;
}

static enum kiln_status make_dir(const char *path, struct kiln_err *err) {
    if (KILN_IO(KILN_IO_MKDIR, path, NULL, 0, mkdir(path, 0777)) == 0) {
        return sync_parent(path, err);
    }
    if (kiln_path_is_dir(path)) {
        return KILN_OK; /* another process may have made it first */
    }
    errno = kiln_path_exists(path) ? ENOTDIR : errno;
    return io_failed(err, "make folder", path);
}

enum kiln_status kiln_make_dirs(const char *path, struct kiln_err *err) {
    char *partial = kiln_strdup(path);
    if (partial == NULL) {
        return no_memory(err, "make folder", path);
    }
    enum kiln_status status = KILN_OK;
    for (char *p = partial + (*partial == '/'); *p != '\0' && status == KILN_OK; p++) {
        if (*p == '/') {
            *p = '\0';
            status = make_dir(partial, err);
            *p = '/';
        }
    }
    if (status == KILN_OK) {
        status = make_dir(partial, err);
    }
    kiln_free(partial);
    return status;
}

static enum kiln_status remove_entries(const char *path, struct kiln_err *err) {
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return io_failed(err, "open folder", path);
    }
    enum kiln_status status = KILN_OK;
    for (struct dirent *entry; status == KILN_OK && (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        char *inner = kiln_path_join(path, entry->d_name);
        status = inner == NULL ? no_memory(err, "remove", path) : kiln_remove_tree(inner, err);
        kiln_free(inner);
    }
    closedir(dir);
    return status;
}

enum kiln_status kiln_remove_tree(const char *path, struct kiln_err *err) {
    struct stat info;
    if (lstat(path, &info) != 0) { /* a link is removed itself, never what it points to */
        return errno == ENOENT ? KILN_OK : io_failed(err, "remove", path);
    }
    if (S_ISDIR(info.st_mode)) {
        KILN_TRY(remove_entries(path, err));
    }
    if (KILN_IO(KILN_IO_REMOVE, path, NULL, 0, remove(path)) != 0 && errno != ENOENT) {
        return io_failed(err, "remove", path);
    }
    return KILN_OK;
}

static enum kiln_status swap(const char *from, const char *to, const char *aside,
                             struct kiln_err *err) {
    KILN_TRY(kiln_remove_tree(aside, err));
    KILN_TRY(kiln_durable_rename(to, aside, err));
    const enum kiln_status status = kiln_durable_rename(from, to, err);
    if (status == KILN_OK) {
        return kiln_remove_tree(aside, err);
    }
    struct kiln_err why;
    return kiln_durable_rename(aside, to, &why) == KILN_OK
               ? status
               : KILN_FAIL(err, KILN_EIO, "write %s: %.200s; what was there is now %s", to,
                           why.message, aside);
}

/* A folder cannot be renamed over one that is not empty. */
enum kiln_status kiln_durable_replace(const char *from, const char *to, struct kiln_err *err) {
    if (!kiln_path_exists(to)) {
        return kiln_durable_rename(from, to, err);
    }
    const size_t room = strlen(to) + 32;
    char *aside = kiln_alloc(room, 1);
    if (aside == NULL) {
        return no_memory(err, "rename to", to);
    }
    snprintf(aside, room, "%s.old-%ld", to, (long)getpid());
    const enum kiln_status status = swap(from, to, aside, err);
    kiln_free(aside);
    return status;
}
