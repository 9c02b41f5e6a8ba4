/* SPDX-License-Identifier: MIT */
#include "report/tensorboard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln/report.h"
#include "report/events.h"
#include "report/lines.h"
#include "train/metrics_read.h"

#define BEGINNING "events.out.tfevents."
#define ENDING    ".kiln"

struct kiln_tensorboard {
    char to[4096], path[4200];
    int fd;
    double second;       /* of its name */
    bool writing;        /* behind all that is as it must be */
    uint64_t at;         /* bytes that are */
    size_t step, sample; /* next lines of metrics and samples */
    double ms;           /* of the steps before */
    struct kiln_lines metrics, samples;
    struct kiln_event event;
    unsigned char *old; /* what the file has where the event goes */
    size_t room;
};

/* ---- the file ---------------------------------------------------------------------------------
 */

/* The second of such a name; false: none of ours. */
static bool second_of(const char *name, double *out) {
    const size_t before = sizeof BEGINNING - 1, n = strlen(name);
    uint64_t second = 0;
    size_t digits = 0;
    if (strncmp(name, BEGINNING, before) != 0 || n < before + sizeof ENDING ||
        strcmp(name + n - (sizeof ENDING - 1), ENDING) != 0) {
        return false;
    }
    for (const char *c = name + before; *c >= '0' && *c <= '9' && digits < 15; c++, digits++) {
        second = 10 * second + (uint64_t)(*c - '0');
    }
    *out = (double)second;
    return digits > 0 && before + digits + sizeof ENDING - 1 == n;
}

/* Of several the newest. */
static bool find_file(const char *to, double *out) {
    DIR *dir = opendir(to);
    bool found = false;
    double second;
    for (const struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        if (second_of(entry->d_name, &second) && (!found || second > *out)) {
            *out = second;
            found = true;
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return found;
}

static void name_file(const char *to, double second, char out[4200]) {
    snprintf(out, 4200, "%s/%s%.0f%s", to, BEGINNING, second, ENDING);
}

/* The files before: emptied at first, since a reader that is at one opens it once more before it
 * goes on to the next name; removed the next time. */
static void retire_older(const char *to, double than) {
    DIR *dir = opendir(to);
    for (const struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        char path[4200];
        double second;
        struct stat st;
        if (!second_of(entry->d_name, &second) || second >= than) {
            continue;
        }
        name_file(to, second, path);
        (void)!(stat(path, &st) == 0 && st.st_size > 0 ? truncate(path, 0) : unlink(path));
    }
    if (dir != NULL) {
        closedir(dir);
    }
}

double kiln_tensorboard_age(const char *to) {
    char path[4200];
    double second;
    struct stat st;
    if (strlen(to) >= 4096 || !find_file(to, &second)) {
        return -1;
    }
    name_file(to, second, path);
    return stat(path, &st) == 0 ? fmax(0, difftime(time(NULL), st.st_mtime)) : -1;
}

static enum kiln_status open_file(struct kiln_tensorboard *board, struct kiln_err *err) {
    name_file(board->to, board->second, board->path);
    board->fd = open(board->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    KILN_REQUIRE(board->fd >= 0, err, KILN_EIO, "%s: %s", board->path, strerror(errno));
    KILN_REQUIRE(flock(board->fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK, err, KILN_EBUSY,
                 "%s: another process writes it; export to another folder", board->path);
    return KILN_OK;
}

/* ---- records ----------------------------------------------------------------------------------
 */

static enum kiln_status write_all(struct kiln_tensorboard *board, struct kiln_err *err) {
    const struct kiln_event_bytes *record = &board->event.record;
    for (size_t done = 0; done < record->n;) {
        const ssize_t n =
            pwrite(board->fd, record->at + done, record->n - done, (off_t)(board->at + done));
        KILN_REQUIRE(n > 0 || (n < 0 && errno == EINTR), err, KILN_EIO, "%s: %s", board->path,
                     strerror(n < 0 ? errno : ENOSPC));
        done += n > 0 ? (size_t)n : 0;
    }
    return KILN_OK;
}

/* What the file has where the record goes: all of it, a beginning of it at the file's end, or
 * something else. */
enum found { FOUND_WHOLE, FOUND_BEGUN, FOUND_OTHER };

static enum kiln_status look(struct kiln_tensorboard *board, enum found *found,
                             struct kiln_err *err) {
    const struct kiln_event_bytes *record = &board->event.record;
    if (record->n > board->room) {
        unsigned char *grown = kiln_realloc(board->old, board->room, 2 * record->n, 1);
        KILN_REQUIRE(grown, err, KILN_ENOMEM, "%s: no memory for a record", board->path);
        board->old = grown;
        board->room = 2 * record->n;
    }
    const ssize_t n = pread(board->fd, board->old, record->n, (off_t)board->at);
    KILN_REQUIRE(n >= 0, err, KILN_EIO, "%s: %s", board->path, strerror(errno));
    *found = memcmp(board->old, record->at, (size_t)n) != 0 ? FOUND_OTHER
             : (size_t)n == record->n                       ? FOUND_WHOLE
                                                            : FOUND_BEGUN;
    return KILN_OK;
}

/* Another file takes its place: who reads the old one knows by its offset what it has read, and
 * goes on to the file of the next name, whose START lets it forget that. */
static enum kiln_status renew(struct kiln_tensorboard *board, struct kiln_err *err) {
    const int fd = board->fd;
    char old[sizeof board->path];
    memcpy(old, board->path, sizeof old);
    board->second++;
    board->at = 0; /* to be written from its beginning */
    const enum kiln_status status = open_file(board, err);
    if (status != KILN_OK) {
        if (board->fd >= 0) {
            close(board->fd);
        }
        board->second--;
        board->fd = fd;
        memcpy(board->path, old, sizeof old);
        return status;
    }
    close(fd);
    retire_older(board->to, board->second);
    return KILN_OK;
}

/* *other: the file has something else there, and is to be renewed. */
static enum kiln_status put_event(struct kiln_tensorboard *board, bool *other,
                                  struct kiln_err *err) {
    enum found found = FOUND_BEGUN;
    KILN_TRY(kiln_event_end(&board->event, err));
    if (!board->writing) {
        KILN_TRY(look(board, &found, err));
        board->writing = found == FOUND_BEGUN;
    }
    *other = found == FOUND_OTHER;
    if (*other) {
        return KILN_OK;
    }
    if (found == FOUND_BEGUN) {
        KILN_TRY(write_all(board, err));
    }
    board->at += board->event.record.n;
    return KILN_OK;
}

/* ---- what a run has ---------------------------------------------------------------------------
 */

static double number_of(const struct kiln_pair *pair) {
    double value = (double)NAN;
    if (pair->value[0] == 't') {
        return 1;
    }
    const char *behind = kiln_read_double(pair->value, pair->value + pair->value_size, &value);
    return behind == pair->value + pair->value_size ? value : (double)NAN;
}

/* wall_time of the step whose line this is; its ms count. */
static double time_of(struct kiln_tensorboard *board, const char *line, size_t size) {
    const char *at = line;
    struct kiln_pair pair;
    while (kiln_pair_next(&at, line + size, &pair)) {
        const double ms = kiln_pair_is(&pair, "ms") ? number_of(&pair) : (double)NAN;
        board->ms += isfinite(ms) ? ms : 0;
    }
    return board->second + board->ms / 1e3;
}

static enum kiln_status put_step(struct kiln_tensorboard *board, bool *other,
                                 struct kiln_err *err) {
    const struct kiln_line *line = &board->metrics.line[board->step];
    const char *text;
    struct kiln_pair pair;
    KILN_TRY(kiln_lines_text(&board->metrics, board->step, &text, err));
    const double before = board->ms;
    kiln_event_begin(&board->event, time_of(board, text, line->size), line->step);
    for (const char *at = text; kiln_pair_next(&at, text + line->size, &pair);) {
        const double value = number_of(&pair);
        if (!kiln_pair_is(&pair, "step") && !isnan(value)) {
            kiln_event_scalar(&board->event, pair.key, pair.key_size, (float)value);
        }
    }
    const enum kiln_status status = put_event(board, other, err);
    board->ms = status == KILN_OK ? board->ms : before;
    board->step += status == KILN_OK;
    return status;
}

static enum kiln_status put_sample(struct kiln_tensorboard *board, bool *other,
                                   struct kiln_err *err) {
    const char *text;
    KILN_TRY(kiln_lines_text(&board->samples, board->sample, &text, err));
    json_t *line = json_loads(text, 0, NULL);
    const char *said = json_string_value(json_object_get(line, "text"));
    enum kiln_status status = KILN_OK;
    if (said != NULL) {
        kiln_event_begin(&board->event, board->second + board->ms / 1e3,
                         board->samples.line[board->sample].step);
        kiln_event_text(&board->event, "sample", said);
        status = put_event(board, other, err);
    }
    json_decref(line);
    board->sample += status == KILN_OK;
    return status;
}

/* The version, and a START of step 0. */
static enum kiln_status put_head(struct kiln_tensorboard *board, bool *other,
                                 struct kiln_err *err) {
    board->at = 0;
    board->writing = false;
    board->step = board->sample = 0;
    board->ms = 0;
    kiln_event_begin(&board->event, board->second, 0);
    kiln_event_version(&board->event);
    KILN_TRY(put_event(board, other, err));
    if (*other) {
        return KILN_OK;
    }
    kiln_event_begin(&board->event, board->second, 0);
    kiln_event_start(&board->event);
    return put_event(board, other, err);
}

/* Samples stand behind the step that they were taken after; one whose step has no line waits. */
static bool sample_is_next(const struct kiln_tensorboard *board) {
    const struct kiln_lines *m = &board->metrics, *s = &board->samples;
    return board->sample < s->n && board->step > 0 &&
           s->line[board->sample].step <= m->line[board->step - 1].step;
}

/* Does the file go on behind all that it must have? */
static enum kiln_status goes_on(const struct kiln_tensorboard *board, bool *other,
                                struct kiln_err *err) {
    struct stat st;
    KILN_REQUIRE(fstat(board->fd, &st) == 0, err, KILN_EIO, "%s: %s", board->path, strerror(errno));
    *other = (uint64_t)st.st_size > board->at;
    return KILN_OK;
}

static enum kiln_status put_all(struct kiln_tensorboard *board, bool *other, struct kiln_err *err) {
    while (!*other) {
        if (sample_is_next(board)) {
            KILN_TRY(put_sample(board, other, err));
        } else if (board->step < board->metrics.n) {
            KILN_TRY(put_step(board, other, err));
        } else {
            return goes_on(board, other, err);
        }
    }
    return KILN_OK;
}

static enum kiln_status update(struct kiln_tensorboard *board, struct kiln_err *err) {
    size_t metrics, samples;
    bool other = false;
    KILN_TRY(kiln_lines_more(&board->metrics, &metrics, err));
    KILN_TRY(kiln_lines_more(&board->samples, &samples, err));
    do {
        KILN_TRY(other ? renew(board, err) : KILN_OK);
        other = false;
        /* What was written is other by now, or nothing was. */
        if (board->at == 0 || metrics < board->step || samples < board->sample) {
            KILN_TRY(put_head(board, &other, err));
        }
        KILN_TRY(put_all(board, &other, err));
    } while (other);
    return KILN_OK;
}

enum kiln_status kiln_tensorboard_update(struct kiln_tensorboard *board, struct kiln_err *err) {
    const enum kiln_status status = update(board, err);
    if (status != KILN_OK) {
        board->at = 0; /* the next call compares all of it */
    }
    return status;
}

/* ---- open and close ---------------------------------------------------------------------------
 */

/* A new file's second is when the run would have begun, had it gone on without a pause. */
static enum kiln_status begin_now(struct kiln_tensorboard *board, struct kiln_err *err) {
    const char *text;
    size_t first;
    KILN_TRY(kiln_lines_more(&board->metrics, &first, err));
    for (size_t i = 0; i < board->metrics.n; i++) {
        KILN_TRY(kiln_lines_text(&board->metrics, i, &text, err));
        (void)time_of(board, text, board->metrics.line[i].size);
    }
    board->second = fmax(0, floor((double)time(NULL) - board->ms / 1e3));
    return KILN_OK;
}

static enum kiln_status open_parts(struct kiln_tensorboard *board, const char *folder,
                                   const char *to, struct kiln_err *err) {
    KILN_REQUIRE(strlen(to) < sizeof board->to, err, KILN_EUSAGE,
                 "event file: the folder's path is too long");
    snprintf(board->to, sizeof board->to, "%s", to);
    KILN_TRY(kiln_lines_open(&board->metrics, folder, "metrics.jsonl", err));
    KILN_TRY(kiln_lines_need(&board->metrics, err));
    KILN_TRY(kiln_lines_open(&board->samples, folder, "samples.jsonl", err));
    KILN_TRY(kiln_make_dirs(to, err));
    KILN_TRY(find_file(to, &board->second) ? KILN_OK : begin_now(board, err));
    KILN_TRY(open_file(board, err));
    retire_older(to, board->second);
    return KILN_OK;
}

enum kiln_status kiln_tensorboard_open(const char *folder, const char *to,
                                       struct kiln_tensorboard **out, struct kiln_err *err) {
    *out = kiln_alloc(1, sizeof **out);
    KILN_REQUIRE(*out, err, KILN_ENOMEM, "event file: out of memory");
    (*out)->fd = -1;
    const enum kiln_status status = open_parts(*out, folder, to, err);
    if (status != KILN_OK) {
        kiln_tensorboard_close(*out);
        *out = NULL;
    }
    return status;
}

void kiln_tensorboard_close(struct kiln_tensorboard *board) {
    if (board == NULL) {
        return;
    }
    if (board->fd >= 0) {
        close(board->fd);
    }
    kiln_lines_close(&board->metrics);
    kiln_lines_close(&board->samples);
    kiln_event_free(&board->event);
    kiln_free(board->old);
    kiln_free(board);
}

enum kiln_status kiln_report_tensorboard(const char *folder, const char *to, struct kiln_err *err) {
    struct kiln_tensorboard *board;
    KILN_TRY(kiln_tensorboard_open(folder, to, &board, err));
    const enum kiln_status status = kiln_tensorboard_update(board, err);
    kiln_tensorboard_close(board);
    return status;
}
