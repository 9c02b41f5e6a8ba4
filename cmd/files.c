/* SPDX-License-Identifier: MIT
 *
 * files.c: the few things commands do with files themselves.
 */
#include "files.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BYTES_VOCAB 259 /* ids of the byte tokenizer (kiln/text.h) */

bool file_exists(const char *path) {
    struct stat found;
    return lstat(path, &found) == 0;
}

bool is_folder(const char *path) {
    struct stat found;
    return stat(path, &found) == 0 && S_ISDIR(found.st_mode);
}

enum kiln_status join(const char *folder, const char *name, char **out, struct kiln_err *err) {
    const size_t room = strlen(folder) + strlen(name) + 2;
    *out = malloc(room);
    KILN_REQUIRE(*out != NULL, err, KILN_ENOMEM, "%s/%s: out of memory", folder, name);
    snprintf(*out, room, "%s/%s", folder, name);
    return KILN_OK;
}

bool is_run_folder(const char *path) {
    char *run_json = NULL;
    const bool found = is_folder(path) && join(path, "run.json", &run_json, NULL) == KILN_OK &&
                       file_exists(run_json);
    free(run_json);
    return found;
}

static int remove_one(const char *path, const struct stat *found, int kind, struct FTW *where) {
    (void)found;
    (void)kind;
    (void)where;
    return remove(path);
}

enum kiln_status remove_run(const char *path, struct kiln_err *err) {
    KILN_REQUIRE(is_run_folder(path), err, KILN_EEXISTS,
                 "%s is not a run folder and is not removed; choose another name", path);
    KILN_REQUIRE(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0, err, KILN_EIO,
                 "removing %s: %s", path, strerror(errno));
    return KILN_OK;
}

enum kiln_status refuse_existing(const char *path, bool force, struct kiln_err *err) {
    KILN_REQUIRE(force || !file_exists(path), err, KILN_EEXISTS,
                 "%s exists already; choose another name, or --force to replace it", path);
    KILN_REQUIRE(!is_folder(path), err, KILN_EEXISTS, "%s is a folder; choose another name", path);
    return KILN_OK;
}

static enum kiln_status read_stream(FILE *file, const char *path, char **text, size_t *size,
                                    struct kiln_err *err) {
    size_t room = (size_t)1 << 20, used = 0;
    char *at = malloc(room);
    while (at != NULL && !feof(file) && !ferror(file)) {
        used += fread(at + used, 1, room - 1 - used, file);
        if (used == room - 1) {
            room *= 2;
            char *grown = realloc(at, room);
            if (grown == NULL) {
                free(at);
            }
            at = grown;
        }
    }
    KILN_REQUIRE(at != NULL, err, KILN_ENOMEM, "%s: out of memory after %zu bytes", path, used);
    if (ferror(file)) {
        free(at);
        return KILN_FAIL(err, KILN_EIO, "%s: %s", path, strerror(errno));
    }
    at[used] = '\0';
    *text = at;
    *size = used;
    return KILN_OK;
}

enum kiln_status read_whole(const char *path, char **text, size_t *size, struct kiln_err *err) {
    FILE *file = fopen(path, "rb");
    *text = NULL;
    KILN_REQUIRE(file != NULL, err, errno == ENOENT ? KILN_EINPUT : KILN_EIO, "%s: %s", path,
                 strerror(errno));
    const enum kiln_status status = read_stream(file, path, text, size, err);
    fclose(file);
    return status;
}

enum kiln_status write_whole(const char *path, const char *text, size_t size,
                             struct kiln_err *err) {
    FILE *file = fopen(path, "wb");
    KILN_REQUIRE(file != NULL, err, KILN_EIO, "write %s: %s", path, strerror(errno));
    const bool written =
        fwrite(text, 1, size, file) == size && fflush(file) == 0 && fsync(fileno(file)) == 0;
    const int why = errno;
    KILN_REQUIRE(fclose(file) == 0 && written, err, KILN_EIO, "write %s: %s", path, strerror(why));
    return KILN_OK;
}

enum kiln_status tokenizer_for(const struct kiln_model *model, const char *named,
                               struct kiln_tokenizer **out, struct kiln_err *err) {
    const size_t vocab = model->table->dims.vocab;
    const char *path = named != NULL ? named : model->tokenizer;
    const bool bytes = strcmp(path, "bytes") == 0 || (path[0] == '\0' && vocab == BYTES_VOCAB);
    *out = NULL;
    KILN_REQUIRE(bytes || path[0] != '\0', err, KILN_EINPUT,
                 "%s has a vocabulary of %zu and brings no tokenizer; name its file with "
                 "--tokenizer",
                 model->name, vocab);
    KILN_TRY(bytes ? kiln_tokenizer_bytes(out, err) : kiln_tokenizer_open(path, out, err));
    const enum kiln_status status = kiln_tokenizer_fits(*out, vocab, err);
    if (status != KILN_OK) {
        kiln_tokenizer_destroy(*out);
        *out = NULL;
    }
    return status;
}
