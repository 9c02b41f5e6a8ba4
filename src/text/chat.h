/* SPDX-License-Identifier: MIT
 *
 * chat.h: what of a conversation the model says (kiln/text.h has the rest of chat templates).
 */
#ifndef KILN_TEXT_CHAT_H
#define KILN_TEXT_CHAT_H

#include <jansson.h>

#include "kiln/text.h"
#include "model/gguf.h"
#include "text/template.h"

struct kiln_chat {
    struct kiln_template *tpl; /* NULL: it cannot be used, `wrong` says why */
    char *source;              /* NULL: nor could it be read */
    size_t size;
    struct kiln_err wrong;
    json_t *config; /* tokenizer_config.json, or as it would be; an object, empty where none is */
};
/* The special tokens that templates use, as tokenizer_config.json names them. */
enum { KILN_CHAT_SPECIALS = 4 };
extern const char *const kiln_chat_specials[KILN_CHAT_SPECIALS];
/* The text of one of them; NULL: none. */
const char *kiln_chat_special(const struct kiln_chat *chat, const char *name);

/* KILN_OK, or what is wrong with a template that was found. */
KILN_MUST_CHECK enum kiln_status kiln_chat_usable(const struct kiln_chat *chat,
                                                  struct kiln_err *err);
/* 26 Jul 2024, UTC: the day that Llama 3's templates write where they have no strftime_now. */
enum { KILN_CHAT_DAY = 1721952000 };

/* Write the conversation `object.messages` (and object.tools, where it has them) as the template
 * does, and find the answers in it: all that the model says, its sign that it is done included.
 *
 * Where the template marks them with {% generation %}, they are what stands there. Otherwise the
 * answer to messages 0..i-1 is what writing messages 0..i puts behind the prompt, which is 0..i-1
 * written with add_generation_prompt. Both must be beginnings of the whole; where the template
 * writes an answer otherwise once more follows (it drops what the model thought), the answer's
 * content and what follows it must stand behind that prompt. KILN_EINPUT where they do not: then
 * what is to be learned is not what the model will be asked for.
 *
 * strftime_now shows KILN_CHAT_DAY: what is learned is the same on all days.
 *
 * *spans is grown with kiln_realloc, kiln_free it; an answer that is nothing has none. */
KILN_MUST_CHECK enum kiln_status kiln_chat_answers(const struct kiln_chat *chat,
                                                   const json_t *object, struct kiln_rendered *out,
                                                   struct kiln_span **spans, size_t *n,
                                                   struct kiln_err *err);
/* Texts that stand for the begin and the end of a sequence in the template; NULL: none. */
const char *kiln_chat_bos(const struct kiln_chat *chat);
const char *kiln_chat_eos(const struct kiln_chat *chat);

/* Put the template that kiln_chat_open would take of `path` as GGUF has it. It is not parsed: a
 * file goes along that kiln does not understand. */
KILN_MUST_CHECK enum kiln_status kiln_gguf_chat_put(const char *path, struct kiln_gguf_pairs *pairs,
                                                    struct kiln_err *err);

#endif
