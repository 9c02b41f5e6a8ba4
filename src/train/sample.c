/* SPDX-License-Identifier: MIT */
#include "train/sample.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "train/data_source.h"

/* Bytes of all texts that a vocabulary is learned from, of each at least; those read first to know
 * how long a file is; those that are encoded, and by how many turns. */
enum { SAMPLE = 16 << 20, LEAST = 1 << 16, LOOK = 1 << 20, ENCODED = 1 << 20, TURNS = 16 };
/* Of raw ids nobody knows the text. */
#define BYTES_OF_RAW_ID 3.0

/* ---- reading -----------------------------------------------------------------------------------
 */

static enum kiln_status read_tokens(const char *path, struct kiln_sample_part *part,
                                    struct kiln_err *err) {
    struct kiln_token_file *file;
    KILN_TRY(kiln_token_file_open(path, 0, &file, err));
    const double bytes = (double)kiln_token_file_text_bytes(file);
    part->bytes = bytes > 0 ? bytes : BYTES_OF_RAW_ID * (double)kiln_token_file_count(file);
    kiln_token_file_close(file);
    return KILN_OK;
}

static enum kiln_status read_part(const char *path, const struct kiln_tokenize_options *options,
                                  size_t room, struct kiln_sample_part *part,
                                  struct kiln_err *err) {
    if (kiln_token_file_is(path)) {
        return read_tokens(path, part, err);
    }
    kiln_text_free(part->text);
    part->text = NULL;
    KILN_TRY(kiln_text_sample(path, options, room, &part->text, &part->size, &part->bytes, err));
    KILN_REQUIRE(part->size > 0, err, KILN_EINPUT, "data %s: empty", path);
    return KILN_OK;
}

static void set_shares(const struct kiln_data_list *list, struct kiln_sample *sample) {
    double all = 0;
    for (size_t i = 0; i < list->n; i++) {
        all += list->weighted ? list->weight[i] : sample->part[i].bytes;
    }
    for (size_t i = 0; i < list->n; i++) {
        struct kiln_sample_part *part = &sample->part[i];
        part->share = (list->weighted ? list->weight[i] : part->bytes) / all;
    }
}

static enum kiln_status read_list(const struct kiln_data_list *list,
                                  const struct kiln_tokenize_options *options,
                                  struct kiln_sample *out, struct kiln_err *err) {
    out->part = kiln_alloc(list->n, sizeof *out->part);
    KILN_REQUIRE(out->part, err, KILN_ENOMEM, "data: out of memory");
    out->n = list->n;
    out->weighted = list->weighted;
    for (size_t i = 0; i < list->n; i++) {
        KILN_TRY(
            read_part(list->path[i], options, list->n > 1 ? LOOK : SAMPLE, &out->part[i], err));
    }
    set_shares(list, out);
    for (size_t i = 0; list->n > 1 && i < list->n; i++) {
        struct kiln_sample_part *part = &out->part[i];
        const size_t room = (size_t)(SAMPLE * part->share);
        if (part->text != NULL && room > LOOK) {
            KILN_TRY(read_part(list->path[i], options, room, part, err));
        } else if (part->size > room) {
            part->size = room > LEAST ? room : part->size > LEAST ? LEAST : part->size;
        }
    }
    set_shares(list, out);
    return KILN_OK;
}

enum kiln_status kiln_sample_read(const struct kiln_settings *s, struct kiln_sample *out,
                                  struct kiln_err *err) {
    struct kiln_data_list list;
    struct kiln_chat *chat = NULL;
    *out = (struct kiln_sample){.n = 0};
    KILN_TRY(kiln_data_list_parse(s->data, &list, err));
    enum kiln_status status =
        kiln_chat_choose(s->chat_template, s->model, s->tokenizer, &chat, err);
    if (status == KILN_OK) {
        const struct kiln_tokenize_options options = {
            .blank_lines = s->blank_lines, .skip_bad = s->skip_bad, .chat = chat};
        status = read_list(&list, &options, out, err);
    }
    kiln_chat_close(chat);
    kiln_data_list_free(&list);
    return status;
}

void kiln_sample_free(struct kiln_sample *sample) {
    for (size_t i = 0; i < sample->n; i++) {
        kiln_text_free(sample->part[i].text);
    }
    kiln_free(sample->part);
    *sample = (struct kiln_sample){.n = 0};
}

/* ---- what it says ------------------------------------------------------------------------------
 */

enum kiln_status kiln_sample_encode(const struct kiln_sample *sample,
                                    const struct kiln_tokenizer *tok, struct kiln_ids *ids,
                                    double *bytes, struct kiln_err *err) {
    const size_t turns = sample->n > 1 ? TURNS : 1;
    *bytes = 0;
    for (size_t turn = 0; turn < turns; turn++) {
        for (size_t i = 0; i < sample->n; i++) {
            const struct kiln_sample_part *part = &sample->part[i];
            const size_t most = (size_t)(ENCODED * (sample->n > 1 ? part->share : 1));
            const size_t use = part->size < most ? part->size : most;
            const size_t from = use * turn / turns, to = use * (turn + 1) / turns;
            if (to > from) {
                KILN_TRY(kiln_tokenizer_encode(tok, part->text + from, to - from, false, ids, err));
                *bytes += (double)(to - from);
            }
        }
    }
    return KILN_OK;
}

double kiln_sample_bytes(const struct kiln_sample *sample) {
    double all = 0;
    for (size_t i = 0; i < sample->n; i++) {
        all += sample->part[i].bytes;
    }
    return all;
}

/* T bytes read a part's text T share / bytes times, and share of them do. */
double kiln_sample_unique(const struct kiln_sample *sample) {
    double times = 0;
    for (size_t i = 0; i < sample->n; i++) {
        const struct kiln_sample_part *part = &sample->part[i];
        times += part->bytes > 0 ? part->share * part->share / part->bytes : 0;
    }
    return times > 0 ? 1 / times : 0;
}

double kiln_sample_taken(const struct kiln_sample *sample, double most) {
    double taken = 0;
    for (size_t i = 0; i < sample->n; i++) {
        const struct kiln_sample_part *part = &sample->part[i];
        taken += part->text ? fmin(part->bytes, most * part->share) : part->bytes;
    }
    return taken;
}

void kiln_sample_cut(struct kiln_sample *sample, double most) {
    for (size_t i = 0; i < sample->n; i++) {
        struct kiln_sample_part *part = &sample->part[i];
        part->bytes = part->text ? fmin(part->bytes, most * part->share) : part->bytes;
    }
}

/* ---- weights -----------------------------------------------------------------------------------
 */

/* The largest is 1000, others at least a millionth of it. */
static void weigh(const struct kiln_sample *sample, struct kiln_data_list *list) {
    double most = 0;
    for (size_t i = 0; i < sample->n; i++) {
        most = fmax(most, sample->part[i].share);
    }
    for (size_t i = 0; i < sample->n; i++) {
        const double weight = round(1e6 * sample->part[i].share / most) / 1000;
        list->weight[i] = fmax(weight, 0.001);
    }
    list->weighted = true;
}

enum kiln_status kiln_sample_keep_shares(const struct kiln_sample *sample, struct kiln_settings *s,
                                         struct kiln_err *err) {
    struct kiln_data_list list;
    if (sample->weighted || sample->n < 2) {
        return KILN_OK;
    }
    KILN_TRY(kiln_data_list_parse(s->data, &list, err));
    weigh(sample, &list);
    char *text = kiln_data_list_text(&list);
    kiln_data_list_free(&list);
    KILN_REQUIRE(text, err, KILN_ENOMEM, "data: out of memory");
    const enum kiln_status status =
        kiln_settings_set(s, KILN_SETTING_data, text, s->origin[KILN_SETTING_data], err);
    kiln_free(text);
    return status;
}
