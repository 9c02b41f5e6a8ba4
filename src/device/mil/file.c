/* SPDX-License-Identifier: MIT
 *
 * file.c: a program and its weight files, each mapped once and only while the program is read.
 */
#include "device/mil/file.h"

#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/mem.h"

struct opened {
    struct opened *before;
    struct kiln_map map;
    char path[]; /* as the program writes it */
};

struct folder {
    const char *path;
    struct opened *files;
};

/* Does a name stay in its folder? */
static bool stays(const char *name) {
    for (const char *p = name; p != NULL; p = strchr(p, '/')) {
        p += *p == '/';
        const size_t length = strcspn(p, "/");
        if (length == 0 || (length == 2 && p[0] == '.' && p[1] == '.')) {
            return false;
        }
    }
    return true;
}

static bool map_file(const char *folder, const char *name, struct kiln_map *map) {
    struct stat info;
    char *path = kiln_path_join(folder, name);
    const bool there = path != NULL && stat(path, &info) == 0 && S_ISREG(info.st_mode) &&
                       kiln_map_open(map, path, NULL) == KILN_OK;
    kiln_free(path);
    return there;
}

static struct opened *open_file(const struct folder *folder, const char *path) {
    static const char root[] = "@model_path/", below[] = "weights/";
    const size_t length = strlen(path) + 1;
    const char *name = path + sizeof root - 1;
    if (strncmp(path, root, sizeof root - 1) != 0 || !stays(name)) {
        return NULL;
    }
    struct opened *file = kiln_alloc(sizeof *file + length, 1);
    if (file == NULL) {
        return NULL;
    }
    memcpy(file->path, path, length);
    const bool inside = strncmp(name, below, sizeof below - 1) == 0;
    if (map_file(folder->path, name, &file->map) ||
        (inside && map_file(folder->path, name + sizeof below - 1, &file->map))) {
        return file;
    }
    kiln_free(file);
    return NULL;
}

static const void *find_file(void *context, const char *path, size_t *bytes) {
    static const char nothing[1];
    struct folder *folder = context;
    struct opened *file = folder->files;
    while (file != NULL && strcmp(file->path, path) != 0) {
        file = file->before;
    }
    if (file == NULL) {
        file = open_file(folder, path);
        if (file == NULL) {
            return NULL;
        }
        file->before = folder->files;
        folder->files = file;
    }
    *bytes = file->map.size;
    return file->map.data != NULL ? (const void *)file->map.data : nothing;
}

static void close_files(struct folder *folder) {
    while (folder->files != NULL) {
        struct opened *before = folder->files->before;
        kiln_map_close(&folder->files->map);
        kiln_free(folder->files);
        folder->files = before;
    }
}

/* Everything before the last slash; "." without one. */
static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return kiln_strdup(".");
    }
    return slash == path ? kiln_strdup("/") : kiln_strndup(path, (size_t)(slash - path));
}

static bool is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

enum kiln_status kiln_mil_open(const char *path, const char *weights, struct kiln_mil_graph *out,
                               struct kiln_err *err) {
    char *text = NULL, *own = NULL;
    size_t bytes = 0;
    KILN_REQUIRE(weights == NULL || is_folder(weights), err, KILN_EINPUT,
                 "%s: no such folder of weights; name one that holds what the program names",
                 weights);
    if (is_folder(path)) { /* as kiln mil emit writes it */
        char *inside = kiln_path_join(path, "model.mil");
        KILN_REQUIRE(inside != NULL, err, KILN_ENOMEM, "%s: out of memory", path);
        const enum kiln_status status =
            is_folder(inside) ? KILN_FAIL(err, KILN_EINPUT, "%s: a folder, not a program", inside)
                              : kiln_mil_open(inside, weights, out, err);
        kiln_free(inside);
        return status;
    }
    KILN_TRY(kiln_read_file(path, &text, &bytes, err));
    if (weights == NULL) {
        own = folder_of(path);
    }
    struct folder folder = {.path = weights != NULL ? weights : own};
    enum kiln_status status = folder.path != NULL
                                  ? kiln_mil_parse(path, text, bytes, find_file, &folder, out, err)
                                  : KILN_FAIL(err, KILN_ENOMEM, "%s: out of memory", path);
    close_files(&folder);
    kiln_free(own);
    kiln_free(text);
    return status;
}
