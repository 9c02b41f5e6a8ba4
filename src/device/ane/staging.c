/* SPDX-License-Identifier: MIT
 *
 * staging.c: see staging.h. Locks are flock's: they belong to an open folder, so they tell programs
 * of one process apart, and they end with the process that dies.
 */
#include "device/ane/staging.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"

enum { TRIES = 100 }; /* others may remove the folder as often while it is being opened */

/* ---- files ----------------------------------------------------------------------------------- */

static enum kiln_status write_new(const char *path, const void *data, size_t bytes,
                                  struct kiln_err *err) {
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    KILN_REQUIRE(fd >= 0, err, KILN_EIO, "stage %s: %s", path, strerror(errno));
    const char *from = data;
    for (size_t left = bytes; left > 0;) {
        const ssize_t n = write(fd, from, left);
        if (n < 0 && errno != EINTR) {
            const int why = errno;
            close(fd);
            return KILN_FAIL(err, KILN_EIO, "stage %s, %zu bytes: %s", path, bytes, strerror(why));
        }
        from += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    KILN_REQUIRE(close(fd) == 0, err, KILN_EIO, "stage %s: %s", path, strerror(errno));
    return KILN_OK;
}

static enum kiln_status write_files(const char *path, const struct kiln_npu_source *source,
                                    struct kiln_err *err) {
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s/model.mil", path);
    KILN_TRY(write_new(name, source->text, source->bytes, err));
    snprintf(name, sizeof name, "%s/weights", path);
    KILN_REQUIRE(mkdir(name, 0700) == 0, err, KILN_EIO, "make folder %s: %s", name,
                 strerror(errno));
    for (size_t i = 0; i < source->n_weights; i++) {
        const struct kiln_npu_weight *weight = &source->weights[i];
        snprintf(name, sizeof name, "%s/weights/%s", path, weight->name);
        KILN_TRY(write_new(name, weight->data, weight->bytes, err));
    }
    return KILN_OK;
}

/* ---- marks: which folders are kiln's -----------------------------------------------------------
 */

#define MARKS "kiln-staging"

/* PARENT/kiln-staging and PARENT/kiln-staging/NAME of PARENT/NAME. */
static void marks_of(const char *path, char folder[PATH_MAX], char mark[PATH_MAX]) {
    const char *name = strrchr(path, '/') + 1;
    snprintf(folder, PATH_MAX, "%.*s" MARKS, (int)(name - path), path);
    snprintf(mark, PATH_MAX, "%.*s" MARKS "/%s", (int)(name - path), path, name);
}

/* Without its mark a folder is as good; only nobody sweeps it should this process be killed. */
static void set_mark(const char *path) {
    char folder[PATH_MAX], mark[PATH_MAX];
    struct kiln_err ignored;
    marks_of(path, folder, mark);
    (void)mkdir(folder, 0700);
    (void)write_new(mark, "", 0, &ignored);
}

/* The last mark goes with its folder. */
static void remove_mark(const char *path) {
    char folder[PATH_MAX], mark[PATH_MAX];
    marks_of(path, folder, mark);
    (void)unlink(mark);
    (void)rmdir(folder);
}

/* ---- the folder ------------------------------------------------------------------------------ */

/* Is the open folder still the one of this name? */
static bool is_there(const char *path, int fd) {
    struct stat named, held;
    return stat(path, &named) == 0 && fstat(fd, &held) == 0 && named.st_dev == held.st_dev &&
           named.st_ino == held.st_ino;
}

/* The folder is ours alone: fill a new one; one that was there is a dead process's. */
static enum kiln_status take(const char *path, int fd, bool made,
                             const struct kiln_npu_source *source, bool *done,
                             struct kiln_err *err) {
    enum kiln_status status = KILN_OK;
    if (made) {
        set_mark(path); /* one that closed or swept at the same time may have taken it away */
        status = write_files(path, source, err);
        *done = status == KILN_OK && flock(fd, LOCK_SH) == 0;
    }
    if (!*done) {
        struct kiln_err ignored;
        const enum kiln_status removed = kiln_remove_tree(path, status ? &ignored : err);
        remove_mark(path);
        status = status ? status : removed;
    }
    return status;
}

/* One attempt; *done says whether the folder is there and locked. */
static enum kiln_status attempt(const char *path, const struct kiln_npu_source *source, int *lock,
                                bool *done, struct kiln_err *err) {
    set_mark(path); /* in front: a folder of a process that was killed here has one */
    const bool made = mkdir(path, 0700) == 0;
    if (!made && errno != EEXIST) {
        const int why = errno;
        remove_mark(path);
        errno = why;
    }
    KILN_REQUIRE(made || errno == EEXIST, err, KILN_EIO,
                 "make the staging folder %s: %s; is the temporary folder there and writable?",
                 path, strerror(errno));
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && made) {
        const int why = errno;
        rmdir(path);
        errno = why;
    }
    KILN_REQUIRE(fd >= 0 || errno == ENOENT, err, KILN_EIO,
                 "open the staging folder %s: %s; remove what lies there", path, strerror(errno));
    enum kiln_status status = KILN_OK;
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
        status = is_there(path, fd) ? take(path, fd, made, source, done, err) : KILN_OK;
    } else if (fd >= 0) { /* others use it, or are writing it: then this waits for them */
        *done = flock(fd, LOCK_SH) == 0 && is_there(path, fd);
    }
    if (*done) {
        *lock = fd;
    } else if (fd >= 0) {
        close(fd);
    }
    return status;
}

enum kiln_status kiln_staging_open(const char *parent, const char *name,
                                   const struct kiln_npu_source *source, struct kiln_staging *out,
                                   struct kiln_err *err) {
    *out = (struct kiln_staging){.lock = -1};
    KILN_REQUIRE(
        parent, err, KILN_EIO,
        "%s: the system names no folder for temporary files: is the one it is set to there?",
        source->label);
    out->path = kiln_path_join(parent, name);
    KILN_REQUIRE(out->path, err, KILN_ENOMEM, "%s: no memory for a path", source->label);
    bool done = false;
    enum kiln_status status = KILN_OK;
    for (int i = 0; i < TRIES && !done && status == KILN_OK; i++) {
        status = attempt(out->path, source, &out->lock, &done, err);
    }
    if (status == KILN_OK && !done) {
        status = KILN_FAIL(err, KILN_EIO, "lock the staging folder %s: in vain %d times", out->path,
                           TRIES);
    }
    if (status != KILN_OK) {
        kiln_free(out->path);
        *out = (struct kiln_staging){.lock = -1};
    }
    return status;
}

/* A lock that cannot be had alone is given back by flock: of users that close at the same time, the
 * one whose attempt comes last gets it. */
enum kiln_status kiln_staging_close(struct kiln_staging *staging, struct kiln_err *err) {
    enum kiln_status status = KILN_OK;
    if (!staging->path) {
        return status;
    }
    if (flock(staging->lock, LOCK_EX | LOCK_NB) == 0) {
        status = kiln_remove_tree(staging->path, err);
        remove_mark(staging->path);
    }
    close(staging->lock);
    kiln_free(staging->path);
    *staging = (struct kiln_staging){.lock = -1};
    return status;
}

/* ---- of dead processes -------------------------------------------------------------------------
 */

static void sweep_one(const char *path) {
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct kiln_err ignored;
    if (fd < 0) {
        remove_mark(path); /* the folder is gone */
        return;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_there(path, fd) &&
        kiln_remove_tree(path, &ignored) == KILN_OK) {
        remove_mark(path);
    }
    close(fd);
}

void kiln_staging_sweep(const char *parent) {
    if (!parent) {
        return;
    }
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/" MARKS, parent);
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *marks = fd >= 0 ? fdopendir(fd) : NULL;
    if (!marks) {
        return;
    }
    for (const struct dirent *mark = readdir(marks); mark; mark = readdir(marks)) {
        if (mark->d_name[0] != '.') {
            snprintf(path, sizeof path, "%s/%s", parent, mark->d_name);
            sweep_one(path);
        }
    }
    closedir(marks);
}

/* ---- other weights --------------------------------------------------------------------------- */

/* Put a new file where the old one lies in `data`. An old file that is there twice would leave it
 * open which is which. */
static enum kiln_status replace(char *data, size_t bytes, const char *old_path,
                                const struct kiln_npu_weight *weight, struct kiln_err *err) {
    char *old;
    size_t old_bytes;
    KILN_TRY(kiln_read_file(old_path, &old, &old_bytes, err));
    char *at = memmem(data, bytes, old, old_bytes);
    const size_t left = at ? bytes - (size_t)(at - data) : 0;
    const bool fits = at && old_bytes == weight->bytes;
    const bool again = fits && memmem(at + 1, left - 1, old, old_bytes);
    if (fits && !again) {
        memcpy(at, weight->data, weight->bytes);
    }
    kiln_free(old);
    KILN_REQUIRE(fits, err, KILN_EUNSUPPORTED,
                 "reload: the compiled program does not hold %s of %zu bytes as it was given; "
                 "compile again instead",
                 weight->name, weight->bytes);
    KILN_REQUIRE(!again, err, KILN_EUNSUPPORTED,
                 "reload: the compiled program holds the bytes of %s twice; compile again instead",
                 weight->name);
    return KILN_OK;
}

static enum kiln_status patch_data(const struct kiln_staging *fresh,
                                   const struct kiln_staging *donor,
                                   const struct kiln_npu_weight *weights, size_t n_weights,
                                   struct kiln_err *err) {
    char path[PATH_MAX];
    char *data;
    size_t bytes;
    snprintf(path, sizeof path, "%s/data", donor->path);
    KILN_REQUIRE(kiln_path_exists(path), err, KILN_EUNSUPPORTED,
                 "reload: this system's compiler leaves no %s; compile again instead", path);
    KILN_TRY(kiln_read_file(path, &data, &bytes, err));
    enum kiln_status status = KILN_OK;
    for (size_t i = 0; i < n_weights && status == KILN_OK; i++) {
        snprintf(path, sizeof path, "%s/weights/%s", donor->path, weights[i].name);
        status = replace(data, bytes, path, &weights[i], err);
    }
    if (status == KILN_OK) {
        snprintf(path, sizeof path, "%s/data", fresh->path);
        status = write_new(path, data, bytes, err);
    }
    kiln_free(data);
    return status;
}

enum kiln_status kiln_staging_patch(const struct kiln_staging *fresh,
                                    const struct kiln_staging *donor,
                                    const struct kiln_npu_weight *weights, size_t n_weights,
                                    struct kiln_err *err) {
    if (strcmp(fresh->path, donor->path) == 0) { /* equal weights: all is there */
        return KILN_OK;
    }
    char path[PATH_MAX];
    char *plist;
    size_t bytes;
    snprintf(path, sizeof path, "%s/net.plist", donor->path);
    KILN_REQUIRE(kiln_path_exists(path), err, KILN_EUNSUPPORTED,
                 "reload: this system's compiler leaves no %s; compile again instead", path);
    KILN_TRY(kiln_read_file(path, &plist, &bytes, err));
    snprintf(path, sizeof path, "%s/net.plist", fresh->path);
    enum kiln_status status = write_new(path, plist, bytes, err);
    kiln_free(plist);
    KILN_TRY(status);
    return patch_data(fresh, donor, weights, n_weights, err);
}
