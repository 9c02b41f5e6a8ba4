/* SPDX-License-Identifier: MIT */
#include "train/control.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"

enum { PATH_ROOM = 4200, MOST_BYTES = 4096 };

static void path_of(const char *folder, const char *name, char out[PATH_ROOM]) {
    snprintf(out, PATH_ROOM, "%s/%s", folder, name);
}

/* ---- asking -----------------------------------------------------------------------------------
 */

static bool is_rate(double lr) { return lr >= 0 && lr <= KILN_RATE_MOST; }

/* No fsync: after a power cut nobody is there to obey. */
static enum kiln_status write_whole(const char *folder, const char *text, struct kiln_err *err) {
    char path[PATH_ROOM], temporary[PATH_ROOM + 32];
    path_of(folder, "control.json", path);
    snprintf(temporary, sizeof temporary, "%s.tmp-%ld", path, (long)getpid());
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    KILN_REQUIRE(fd >= 0, err, KILN_EIO, "write %s: %s", temporary, strerror(errno));
    const size_t size = strlen(text);
    const bool written = write(fd, text, size) == (ssize_t)size;
    const int why = errno;
    if (close(fd) != 0 || !written || rename(temporary, path) != 0) {
        const int failed = written ? errno : why;
        (void)unlink(temporary);
        return KILN_FAIL(err, KILN_EIO, "write %s: %s", path, strerror(failed));
    }
    return KILN_OK;
}

enum kiln_status kiln_control_ask(const char *folder, const struct kiln_request *request,
                                  struct kiln_err *err) {
    char text[80], lr[40] = "";
    KILN_REQUIRE(strlen(folder) < 4096, err, KILN_EUSAGE, "run folder: the path is too long");
    KILN_REQUIRE(request->stop || !isnan(request->lr), err, KILN_EUSAGE,
                 "%s: nothing is asked of it", folder);
    if (!isnan(request->lr)) {
        KILN_REQUIRE(is_rate(request->lr), err, KILN_EUSAGE,
                     "a learning rate of %g is out of range; use 0 to %g", request->lr,
                     KILN_RATE_MOST);
        snprintf(lr, sizeof lr, "\"lr\": %.17g%s", request->lr, request->stop ? ", " : "");
    }
    snprintf(text, sizeof text, "{%s%s}\n", lr, request->stop ? "\"stop\": true" : "");
    return write_whole(folder, text, err);
}

/* ---- reading ----------------------------------------------------------------------------------
 */

/* {"stop": true, "lr": 1e-4} and nothing else. NULL, or what is wrong with it. */
static const char *parse(const char *text, size_t size, struct kiln_request *out) {
    json_t *object = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    const json_t *stop = json_object_get(object, "stop"), *lr = json_object_get(object, "lr");
    const char *wrong = NULL;
    *out = (struct kiln_request){.stop = json_is_true(stop), .lr = (double)NAN};
    if (json_is_number(lr)) {
        out->lr = json_number_value(lr);
    }
    if (!json_is_object(object)) {
        wrong = "it is no JSON object";
    } else if (json_object_size(object) != (stop != NULL) + (size_t)(lr != NULL) ||
               json_object_size(object) == 0) {
        wrong = "it asks for something else than \"stop\" and \"lr\"";
    } else if (stop && !json_is_boolean(stop)) {
        wrong = "\"stop\" is neither true nor false";
    } else if (lr && !(json_is_number(lr) && is_rate(out->lr))) {
        wrong = "\"lr\" is not a number from 0 to 1000";
    }
    json_decref(object);
    return wrong;
}

static const char *read_open(int fd, struct kiln_request *out) {
    char text[MOST_BYTES + 1];
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        return "it is no regular file";
    }
    if (info.st_uid != geteuid()) {
        return "it belongs to another user";
    }
    const ssize_t n = read(fd, text, sizeof text);
    if (n < 0 || n > MOST_BYTES) {
        return n < 0 ? "it cannot be read" : "it is too long";
    }
    return memchr(text, 0, (size_t)n) ? "it is no JSON object" : parse(text, (size_t)n, out);
}

/* A name that nothing has: what lies about from a process that died is in nobody's way. */
static bool rename_away(const char *folder, const char *path, char taken[PATH_ROOM + 64]) {
    enum { TRIES = 100 };
    struct stat info;
    for (int i = 0; i < TRIES; i++) {
        snprintf(taken, PATH_ROOM + 64, "%s/control.taken-%ld-%d", folder, (long)getpid(), i);
        if (lstat(taken, &info) != 0 && errno == ENOENT) {
            return rename(path, taken) == 0;
        }
    }
    errno = EEXIST;
    return false;
}

/* Take the file away, then read it: what is asked for later is another file. False: it is not
 * there, or (*wrong says so) cannot be taken. */
static bool take(const char *folder, struct kiln_request *out, const char **wrong) {
    char path[PATH_ROOM], taken[PATH_ROOM + 64];
    struct stat info;
    path_of(folder, "control.json", path);
    *wrong = NULL;
    if (lstat(path, &info) != 0) {
        return false;
    }
    if (!rename_away(folder, path, taken)) {
        *wrong = strerror(errno);
        return false;
    }
    /* A pipe must not hold anybody up. */
    const int fd = open(taken, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    *wrong = fd >= 0 ? read_open(fd, out) : "it is no regular file";
    if (fd >= 0) {
        close(fd);
    }
    /* A folder with something in it stays, under a name that nobody reads. */
    if (unlink(taken) != 0) {
        (void)rmdir(taken);
    }
    return true;
}

static enum kiln_status change_rate(const struct kiln_control *control,
                                    const struct kiln_settings *settings, uint64_t step, double lr,
                                    char said[KILN_CONTROL_TEXT], struct kiln_err *err) {
    const size_t n = settings->n_peaks;
    const double before = n > 0 ? settings->peak[n - 1].lr : settings->lr;
    if (!(settings->lr > 0)) {
        snprintf(said, KILN_CONTROL_TEXT,
                 "control.json asks for the learning rate %g: a run with --lr 0 has no schedule "
                 "that could be scaled",
                 lr);
        return KILN_OK;
    }
    if (n == KILN_PEAKS && settings->peak[n - 1].at < step) {
        snprintf(said, KILN_CONTROL_TEXT,
                 "control.json asks for the learning rate %g: it was changed %d times, which is "
                 "all that a run remembers; start a new run from this one (--model RUN)",
                 lr, KILN_PEAKS);
        return KILN_OK;
    }
    struct kiln_err why;
    const enum kiln_status status = control->rate(control->context, step, lr, &why);
    if (status == KILN_EIO) {
        snprintf(said, KILN_CONTROL_TEXT,
                 "the learning rate %g is not taken, it stays %g: %.150s; make room, ask again", lr,
                 before, why.message);
        return KILN_OK;
    }
    KILN_REQUIRE(status == KILN_OK, err, status, "%s", why.message);
    snprintf(said, KILN_CONTROL_TEXT,
             "the peak learning rate is %g from step %" PRIu64 " on; it was %g", lr, step + 1,
             before);
    return KILN_OK;
}

enum kiln_status kiln_control_look(struct kiln_control *control, const char *folder,
                                   const struct kiln_settings *settings, uint64_t step,
                                   char said[KILN_CONTROL_TEXT], struct kiln_err *err) {
    struct kiln_request request;
    const char *wrong = NULL;
    said[0] = '\0';
    if (!take(folder, &request, &wrong)) {
        if (wrong && !control->told) {
            snprintf(said, KILN_CONTROL_TEXT,
                     "control.json cannot be taken away (%s): nothing that it says is done until "
                     "it can be; remove it, or let this user write in the run's folder",
                     wrong);
        }
        control->told = wrong != NULL;
        return KILN_OK;
    }
    control->told = false;
    if (wrong) {
        snprintf(said, KILN_CONTROL_TEXT, "control.json is not obeyed: %s", wrong);
        return KILN_OK;
    }
    if (!isnan(request.lr)) {
        KILN_TRY(change_rate(control, settings, step, request.lr, said, err));
    }
    if (request.stop) {
        control->stop = true;
        const size_t n = strlen(said);
        snprintf(said + n, KILN_CONTROL_TEXT - n,
                 "%sasked to stop: the current action is finished and the state saved",
                 n > 0 ? "; " : "");
    }
    return KILN_OK;
}

void kiln_control_forget(const char *folder, char said[KILN_CONTROL_TEXT]) {
    struct kiln_request request;
    const char *wrong;
    said[0] = '\0';
    if (take(folder, &request, &wrong)) {
        snprintf(said, KILN_CONTROL_TEXT,
                 "control.json is not obeyed: it was there before this process; ask again");
    }
}
