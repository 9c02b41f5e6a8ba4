/* SPDX-License-Identifier: MIT
 *
 * data_facts.c: what a run would read: how many tokens its data are, and how many steps an epoch.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kiln/train.h"
#include "train/complete.h"
#include "train/data_source.h"
#include "train/run_int.h"
#include "train/sample.h"

static enum kiln_status count_tokens(const char *data, struct kiln_data_facts *out,
                                     struct kiln_err *err) {
    struct kiln_data_list list;
    enum kiln_status status = kiln_data_list_parse(data, &list, err);
    for (size_t i = 0; status == KILN_OK && i < list.n; i++) {
        struct kiln_token_file *file;
        status = kiln_token_file_open(list.path[i], 0, &file, err);
        if (status == KILN_OK) {
            out->tokens += (double)kiln_token_file_count(file);
            out->bytes += (double)kiln_token_file_text_bytes(file);
            kiln_token_file_close(file);
        }
    }
    kiln_data_list_free(&list);
    out->counted = true;
    return status;
}

/* As many as the beginnings of the texts let expect. */
static enum kiln_status guess_tokens(const struct kiln_settings *s,
                                     const struct kiln_tokenizer *tokenizer,
                                     struct kiln_data_facts *out, struct kiln_err *err) {
    struct kiln_sample sample;
    struct kiln_ids ids = {0};
    double bytes = 0;
    enum kiln_status status = kiln_sample_read(s, &sample, err);
    if (status == KILN_OK) {
        status = kiln_sample_encode(&sample, tokenizer, &ids, &bytes, err);
    }
    if (status == KILN_OK) {
        out->bytes = kiln_sample_bytes(&sample);
        out->tokens = bytes > 0 ? out->bytes * (double)ids.n / bytes : 0;
    }
    kiln_ids_free(&ids);
    kiln_sample_free(&sample);
    return status;
}

static enum kiln_status find(struct kiln_settings *s, struct kiln_completed *completed,
                             struct kiln_data_facts *out, struct kiln_err *err) {
    KILN_TRY(kiln_check_data(s->data, err));
    KILN_TRY(kiln_settings_complete(s, NULL, completed, err));
    KILN_TRY(kiln_data_is_tokens(s->data) ? count_tokens(s->data, out, err)
                                          : guess_tokens(s, completed->tokenizer, out, err));
    if (s->data_tokens != KILN_UNSET && (double)s->data_tokens < out->tokens && !out->counted) {
        out->bytes *= (double)s->data_tokens / out->tokens;
        out->tokens = (double)s->data_tokens;
    }
    out->held_out = s->val ? 0 : KILN_VALIDATION_SHARE;
    out->windows = floor(out->tokens * (1 - out->held_out) / (double)s->seq);
    out->epoch_steps = out->windows / (double)(s->batch * s->accum);
    snprintf(out->tokenizer, sizeof out->tokenizer, "%s",
             completed->tokenizer ? kiln_tokenizer_name(completed->tokenizer) : "");
    return KILN_OK;
}

enum kiln_status kiln_run_data(const struct kiln_settings *settings, struct kiln_data_facts *out,
                               struct kiln_err *err) {
    struct kiln_settings copy;
    struct kiln_completed completed = {.tokenizer = NULL};
    *out = (struct kiln_data_facts){.tokens = 0};
    KILN_TRY(kiln_settings_copy(&copy, settings, err));
    const enum kiln_status status = find(&copy, &completed, out, err);
    kiln_tokenizer_destroy(completed.tokenizer);
    kiln_settings_free(&copy);
    return status;
}
