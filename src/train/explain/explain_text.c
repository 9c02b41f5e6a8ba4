/* SPDX-License-Identifier: MIT
 *
 * explain_text.c: tokens as text.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kiln/text.h"
#include "train/explain/explain_int.h"

enum { BEFORE = 24, BEHIND = 12, BESIDE = 8 };

/* Append the text of an id behind `previous`; a mark, which has none, as its number. */
static void append(const struct kiln_evidence *e, uint32_t previous, uint32_t id, char *out,
                   size_t room) {
    const size_t used = strlen(out);
    size_t size = 0;
    const char *text =
        e->run->tokenizer ? kiln_tokenizer_decode(e->run->tokenizer, previous, id, &size) : NULL;
    if (e->run->tokenizer && size == 0) {
        snprintf(out + used, room - used, "[%u]", (unsigned)id);
    } else if (text && used + size < room && memchr(text, '\0', size) == NULL) {
        memcpy(out + used, text, size);
        out[used + size] = '\0';
    }
}

void kiln_explain_piece(const struct kiln_evidence *e, uint32_t id, char out[96]) {
    out[0] = '\0';
    append(e, KILN_NO_ID, id, out, 96);
}

void kiln_explain_around(const struct kiln_evidence *e, size_t sequence, size_t token,
                         struct kiln_explain_text *out) {
    const struct kiln_evidence_window *w = &e->window;
    const uint32_t *ids = w->tokens + sequence * w->seq;
    const size_t first = token > BEFORE ? token - BEFORE : 0;
    const size_t end = kiln_least(token + BEHIND + 1, w->seq);
    *out = (struct kiln_explain_text){.sequence = sequence,
                                      .token = token,
                                      .sample = w->sample + sequence,
                                      .file = KILN_EXPLAIN_NO_PLACE};
    for (size_t i = first; i < end; i++) {
        const uint32_t previous = i > 0 ? ids[i - 1] : KILN_NO_ID;
        append(e, previous, ids[i],
               i < token    ? out->before
               : i == token ? out->piece
                            : out->after,
               i == token ? sizeof out->piece : sizeof out->before);
    }
    out->first = (uint32_t)(token > BESIDE ? token - BESIDE : 0);
    for (size_t i = out->first; i < w->seq && i <= token + BESIDE; i++) {
        out->ids[out->n++] = ids[i];
    }
    out->target = w->targets[sequence * w->seq + token];
    if (e->has_data) {
        size_t at;
        out->file = kiln_data_train_place(e->run->trainer.data, out->sample, &at);
        out->at = at + token;
    }
}
