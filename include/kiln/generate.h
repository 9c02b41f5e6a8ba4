/* SPDX-License-Identifier: MIT
 *
 * generate.h: text from a model, token by token, with a key-value cache.
 */
#ifndef KILN_GENERATE_H
#define KILN_GENERATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/cpu.h"
#include "kiln/model.h"
#include "kiln/status.h"
#include "kiln/text.h"

#ifdef __cplusplus
extern "C" {
#endif

struct kiln_generate_options {
    const char *prompt; /* "" or NULL: begin with BOS alone */
    size_t tokens;      /* positions in all, prompt and BOS included, as llama2.c's -n counts; of
                         * chat, those of the answer. 0 or more than the model's sequence: all */
    double temperature; /* 0 is greedy */
    double top_p;       /* nucleus (Holtzman et al. 2020); 0 or 1: all tokens */
    uint64_t seed;
    enum kiln_precision precision;
    size_t threads; /* 0: all processors */
    /* The prompt is a user's message, which the template writes; the answer alone is told, and it
     * ends at the template's own end of a sequence or of an answer, too. NULL: text that goes on */
    const struct kiln_chat *chat;
    const char *system; /* of chat: a message in front of it; NULL: none */
};

/* Called with each piece of text as it is made, the prompt's pieces first; false stops. */
typedef bool (*kiln_piece_fn)(void *context, const char *piece, size_t size);

struct kiln_generate_result {
    size_t tokens;       /* positions run */
    double tokens_per_s; /* of the generated part */
};

/* Generate until BOS or EOS is drawn or `tokens` positions are used; a tokenizer whose EOS is not
 * named </s> has text there, which is told like any other. weights: the flat array of the table.
 * The same options give the same text on the same machine. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_generate(
    const struct kiln_table *table, const float *weights, const struct kiln_tokenizer *tokenizer,
    const struct kiln_generate_options *options, kiln_piece_fn piece, void *context,
    struct kiln_generate_result *result, struct kiln_err *err);

#ifdef __cplusplus
}
#endif

#endif
