/* SPDX-License-Identifier: MIT */
#include "train/samples.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/machine.h"
#include "base/mem.h"
#include "train/cost.h"
#include "train/merged.h"
#include "train/trainer_int.h"

/* Of the time since the one before a sample that nobody asked for may take so much ... */
#define SHARE 0.01
/* ... and it ends when it takes longer than that share, or than this. */
#define LEAST_S 2.0
/* Its positions behind the prompt. */
enum { SHORT = 80 };
enum { TEXT = 8192 };

static bool is_asked_for(const struct kiln_trainer *t) {
    return t->settings->sample_every != KILN_UNSET;
}

/* ---- samples.jsonl -----------------------------------------------------------------------------
 */

static void path_of(const struct kiln_trainer *t, char out[4200]) {
    snprintf(out, 4200, "%s/samples.jsonl", t->folder);
}

/* What is not UTF-8 becomes U+FFFD; jansson judges, so that what is let through is what it takes.
 */
static json_t *text_json(const char *text) {
    static const char replacement[] = "\xef\xbf\xbd";
    char clean[3 * TEXT + 1];
    size_t used = 0;
    for (const char *c = text; *c != '\0';) {
        size_t n = 1;
        json_t *one = NULL;
        for (; n <= 4 && n <= strlen(c) && (one = json_stringn(c, n)) == NULL; n++) {
        }
        const size_t copied = one != NULL ? n : sizeof replacement - 1;
        memcpy(clean + used, one != NULL ? c : replacement, copied);
        used += copied;
        c += one != NULL ? n : 1;
        json_decref(one);
    }
    return json_stringn(clean, used);
}

/* Behind whatever a death left, and whole as long as nobody dies in between. */
static bool append(const char *path, const char *line) {
    const int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    char last = '\n';
    if (fd < 0) {
        return false;
    }
    const off_t size = lseek(fd, 0, SEEK_END);
    const bool torn = size > 0 && pread(fd, &last, 1, size - 1) == 1 && last != '\n';
    const size_t length = strlen(line);
    const bool begun = !torn || write(fd, "\n", 1) == 1;
    const bool written = begun && write(fd, line, length) == (ssize_t)length;
    const int why = errno;
    const bool closed = close(fd) == 0;
    errno = written ? errno : why;
    return written && closed;
}

static bool keep(const struct kiln_trainer *t, uint64_t step, double seconds, const char *text) {
    char path[4200];
    json_t *string = text_json(text);
    char *quoted = string != NULL ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    const size_t room = (quoted != NULL ? strlen(quoted) : 0) + 100;
    char *line = kiln_alloc(room, 1);
    bool kept = false;
    errno = ENOMEM;
    if (quoted != NULL && line != NULL) {
        snprintf(line, room, "{\"step\":%" PRIu64 ",\"ms\":%.0f.0,\"text\":%s}\n", step,
                 seconds * 1e3, quoted);
        path_of(t, path);
        kept = append(path, line);
    }
    kiln_free(line);
    free(quoted);
    json_decref(string);
    return kept;
}

/* When the last sample of the run was written, and what it took: a process before this one may have
 * taken it. */
static void look_back(struct kiln_trainer *t) {
    char path[4200], *text = NULL;
    struct stat st;
    struct timespec now;
    struct kiln_err ignored;
    size_t size;
    t->samples.known = true;
    path_of(t, path);
    if (stat(path, &st) != 0 || clock_gettime(CLOCK_REALTIME, &now) != 0 ||
        kiln_read_file(path, &text, &size, &ignored) != KILN_OK) {
        return; /* none yet */
    }
    while (size > 0 && text[size - 1] == '\n') {
        text[--size] = '\0';
    }
    const char *last = strrchr(text, '\n');
    json_t *line = json_loads(last != NULL ? last + 1 : text, 0, NULL);
    const double ago = difftime(now.tv_sec, st.st_mtime);
    t->samples.took = json_number_value(json_object_get(line, "ms")) * 1e-3;
    t->samples.ended = kiln_now_s() - (ago > 0 ? ago : 0);
    json_decref(line);
    kiln_free(text);
}

/* ---- when --------------------------------------------------------------------------------------
 */

/* The device's own packed weights, where they are all there and are the whole model. */
static const struct kiln_packed *packed_of(const struct kiln_trainer *t) {
    return t->engine.plan.schedule.refreshes && t->table->trained == 0 && !t->engine.stage
               ? kiln_device_packed(t->engine.device)
               : NULL;
}

/* Else they are packed for the sample, adapters are added to a copy, and both must have room. */
static bool has_room(const struct kiln_trainer *t) {
    const uint64_t need = 2 * (uint64_t)t->table->size * sizeof(float);
    const uint64_t most = t->engine.plan.request->memory;
    return packed_of(t) != NULL || most == 0 || t->engine.plan.memory.total + need <= most;
}

bool kiln_sample_due(struct kiln_trainer *t, uint64_t step, bool evaluated) {
    if (t->tokenizer == NULL || t->settings->sample_every == 0) {
        return false;
    }
    if (is_asked_for(t)) {
        return step % t->settings->sample_every == 0;
    }
    if (!evaluated || t->samples.none || kiln_state_walks(t->state) || !has_room(t)) {
        return false;
    }
    if (!t->samples.known) {
        look_back(t);
    }
    return t->samples.took <= SHARE * (kiln_now_s() - t->samples.ended);
}

/* ---- the sample --------------------------------------------------------------------------------
 */

struct telling {
    char text[TEXT];
    size_t n;
    double until; /* 0: as long as it takes */
};

static bool add_piece(void *context, const char *piece, size_t size) {
    struct telling *s = context;
    if (s->n + size + 1 > sizeof s->text) {
        size = sizeof s->text - s->n - 1;
    }
    memcpy(s->text + s->n, piece, size);
    s->n += size;
    s->text[s->n] = '\0';
    return s->n + 1 < sizeof s->text && (s->until <= 0 || kiln_now_s() < s->until);
}

/* Positions of a sample: all, or a few behind a prompt, which has no more tokens than bytes and
 * BOS. */
static size_t positions_of(const struct kiln_trainer *t) {
    const size_t prompt = t->settings->prompt ? strlen(t->settings->prompt) : 0;
    const size_t all = t->table->dims.seq;
    return is_asked_for(t) || prompt + 1 + SHORT > all ? all : prompt + 1 + SHORT;
}

static enum kiln_status tell(struct kiln_trainer *t, uint64_t step, struct telling *out,
                             struct kiln_err *err) {
    const struct kiln_generate_options options = {.prompt = t->settings->prompt,
                                                  .tokens = positions_of(t),
                                                  .temperature = 0.8,
                                                  .top_p = 0.95,
                                                  .seed = t->settings->seed + step};
    const struct kiln_session_options how = {.packed = packed_of(t), .seq = options.tokens};
    struct kiln_session *session = t->session, *own = NULL;
    struct kiln_merged merged = {.table = NULL};
    enum kiln_status status = KILN_OK;
    if (how.packed != NULL) {
        KILN_TRY(kiln_executor_load_forward(&t->engine.executor, err)); /* it reads the kernels */
    }
    if (session == NULL) {
        /* Kernels come and go, or adapters are beside them: pack the weights for this sample; or
         * it is short, and needs little memory beside them. */
        KILN_TRY(
            kiln_merged_make(t->table, kiln_state_region(t->state, KILN_WEIGHTS), &merged, err));
        status = kiln_session_open(merged.table, merged.weights, t->engine.pool, &how, &own, err);
        session = own;
    }
    if (status == KILN_OK) {
        status = kiln_session_generate(session, t->tokenizer, &options, add_piece, out, NULL, err);
    }
    kiln_session_close(own);
    kiln_merged_free(&merged);
    return status;
}

static void tell_all(struct kiln_trainer *t, uint64_t step, const char *text) {
    char why[160];
    if (t->observer && t->observer->on_sample) {
        t->observer->on_sample(t->observer->context, step, text);
    }
    if (!keep(t, step, t->samples.took, text) && !t->samples.none) {
        snprintf(why, sizeof why, "samples.jsonl: %s: samples are not kept", strerror(errno));
        kiln_trainer_notice(t, why);
        t->samples.none = true;
    }
}

enum kiln_status kiln_sample_take(struct kiln_trainer *t, uint64_t step, struct kiln_err *err) {
    struct telling told = {.n = 0};
    struct kiln_err own;
    char why[sizeof own.message + 40];
    const double began = kiln_now_s(), share = SHARE * (began - t->samples.ended);
    if (!is_asked_for(t)) {
        const bool first = t->samples.ended <= 0;
        told.until = began + (first || share < LEAST_S ? LEAST_S : share);
    }
    const enum kiln_status status = tell(t, step, &told, &own);
    t->samples.ended = kiln_now_s();
    t->samples.took = t->samples.ended - began;
    if (status == KILN_OK) {
        tell_all(t, step, told.text);
    }
    kiln_cost_leave_out(t, began);
    if (status == KILN_OK) {
        return KILN_OK;
    }
    if (is_asked_for(t)) {
        return KILN_FAIL(err, status, "%s", own.message);
    }
    snprintf(why, sizeof why, "no samples at evaluations: %s", own.message);
    kiln_trainer_notice(t, why);
    t->samples.none = true;
    return KILN_OK;
}
