/* SPDX-License-Identifier: MIT */
#include "runs.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "files.h"
#include "names.h"

/* A message has 640 bytes: longer paths are counted, and not named. */
enum { PATH_ROOM = 4400, NAMED = 150, SHOWN = 3 };

/* When one of the two files that make a folder a run's was written last; -1: neither is there. */
static double written_at(const char *folder) {
    static const char *const files[] = {"metrics.jsonl", "run.json"};
    for (size_t i = 0; i < 2; i++) {
        char path[PATH_ROOM];
        struct stat found;
        const int n = snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        if (n < PATH_ROOM && stat(path, &found) == 0) {
            return (double)found.st_mtim.tv_sec + (double)found.st_mtim.tv_nsec * 1e-9;
        }
    }
    return -1;
}

/* Without slashes at its end. */
static size_t length_of(const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    return n;
}

static bool is_run(const char *path) { return written_at(path) >= 0; }

/* ---- what lies in a folder ------------------------------------------------------------------- */

struct listed {
    char path[SHOWN][NAMED];
    double at[SHOWN]; /* the newest first */
    size_t n;         /* of all */
    const char *name; /* to be found */
    char nearest[NAMED];
    size_t distance; /* of that one */
};

static void add(struct listed *to, const char *path, double at) {
    size_t i = to->n < SHOWN ? to->n : SHOWN;
    for (; i > 0 && to->at[i - 1] < at; i--) {
        if (i < SHOWN) {
            memcpy(to->path[i], to->path[i - 1], NAMED);
            to->at[i] = to->at[i - 1];
        }
    }
    if (i < SHOWN) {
        snprintf(to->path[i], NAMED, "%s", path);
        to->at[i] = at;
    }
    to->n++;
}

static void look_into(struct listed *to, const char *folder) {
    DIR *dir = opendir(folder);
    const int length = strcmp(folder, ".") == 0 ? 0 : (int)length_of(folder);
    for (const struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        char path[PATH_ROOM];
        const int n = snprintf(path, sizeof path, "%.*s%s%s", length, folder, length > 0 ? "/" : "",
                               entry->d_name);
        const double at = entry->d_name[0] != '.' && n < NAMED ? written_at(path) : -1;
        if (at < 0 || strstr(entry->d_name, ".tmp-") != NULL) { /* that is being made */
            continue;
        }
        add(to, path, at);
        if (to->name != NULL && name_is_nearer(to->name, entry->d_name, &to->distance)) {
            snprintf(to->nearest, sizeof to->nearest, "%s", path);
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
}

size_t runs_in(const char *folder, char *text, size_t size) {
    struct listed list = {.n = 0};
    size_t used = 0;
    look_into(&list, folder);
    text[0] = '\0';
    for (size_t i = 0; i < list.n && i < SHOWN && used < size; i++) {
        used += (size_t)snprintf(text + used, size - used, "%s%s",
                                 i == 0            ? ""
                                 : i + 1 == list.n ? " and "
                                                   : ", ",
                                 list.path[i]);
    }
    if (list.n > SHOWN && used < size) {
        snprintf(text + used, size - used, " and %zu more", list.n - SHOWN);
    }
    return list.n;
}

/* ---- which one may be meant? ----------------------------------------------------------------- */

/* "a/b//" as "a/b", what it lies in, and the name at its end; "b" lies in ".". */
static void split(const char *path, char *whole, char *folder, const char **name) {
    snprintf(whole, PATH_ROOM, "%.*s", (int)length_of(path), path);
    const char *slash = strrchr(whole, '/');
    const size_t n = slash != NULL ? (size_t)(slash - whole) : 0;
    snprintf(folder, PATH_ROOM, "%.*s", n > 0 ? (int)n : 1, slash != NULL ? whole : ".");
    *name = slash != NULL ? slash + 1 : whole;
}

/* The one run that is meant, as far as can be told. */
static bool guess(const char *path, char out[NAMED]) {
    char whole[PATH_ROOM], folder[PATH_ROOM], other[PATH_ROOM + 8];
    struct listed list = {.distance = SIZE_MAX};
    split(path, whole, folder, &list.name);
    if (strlen(folder) < NAMED && is_run(folder)) { /* something in a run, rather than the run */
        snprintf(out, NAMED, "%s", folder);
        return true;
    }
    if (file_exists(path)) {
        return false;
    }
    const int n = snprintf(other, sizeof other, "runs/%s", whole);
    if (n < NAMED && is_run(other)) {
        snprintf(out, NAMED, "%s", other);
        return true;
    }
    list.name = strlen(list.name) > 2 ? list.name : NULL; /* that is near to too much */
    look_into(&list, folder);
    if (strcmp(folder, "runs") != 0) {
        look_into(&list, "runs");
    }
    snprintf(out, NAMED, "%s", list.nearest);
    return out[0] != '\0';
}

static void suggest(const char *path, char *out, size_t size) {
    char one[NAMED], list[SHOWN * NAMED + 40];
    const bool folder = is_folder(path);
    if (folder && runs_in(path, list, sizeof list) > 0) {
        snprintf(out, size, ", but a folder of runs: name one of them, as %s", list);
    } else if (guess(path, one)) {
        snprintf(out, size, "; did you mean %s?", one);
    } else if (runs_in("runs", list, sizeof list) > 0) {
        snprintf(out, size, "; runs here: %s", list);
    } else {
        out[0] = '\0';
    }
}

enum kiln_status need_path(const char *path, struct kiln_err *err) {
    char other[640];
    if (file_exists(path)) {
        return KILN_OK;
    }
    suggest(path, other, sizeof other);
    return KILN_FAIL(err, KILN_EINPUT, "%.200s: there is nothing of that name%s", path, other);
}

enum kiln_status need_run(const char *path, struct kiln_err *err) {
    char other[640];
    KILN_TRY(need_path(path, err));
    if (is_run(path)) {
        return KILN_OK;
    }
    suggest(path, other, sizeof other);
    return KILN_FAIL(err, KILN_EINPUT, "%.200s is no run folder%s", path,
                     other[0] != '\0' ? other : "; name one that kiln train made");
}
