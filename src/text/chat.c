/* SPDX-License-Identifier: MIT
 *
 * chat.c: conversations written with chat templates, and answers found in what was written.
 */
#include "text/chat.h"

#include <string.h>

#include "base/mem.h"
#include "text/template.h"
#include "text/text_int.h"

/* ---- rendering ---------------------------------------------------------------------------------
 */

/* Messages 0..n-1 of the object. */
static json_t *variables(const struct kiln_chat *chat, const json_t *object, size_t n,
                         bool prompt) {
    const json_t *messages = json_object_get(object, "messages");
    json_t *tools = json_object_get(object, "tools"), *some = json_array(), *all = json_object();
    bool ok = some && all;
    for (size_t i = 0; ok && i < n; i++) {
        ok = json_array_append(some, json_array_get(messages, i)) == 0;
    }
    for (size_t i = 0; ok && i < KILN_CHAT_SPECIALS; i++) {
        const char *text = kiln_chat_special(chat, kiln_chat_specials[i]);
        ok =
            text == NULL || json_object_set_new(all, kiln_chat_specials[i], json_string(text)) == 0;
    }
    ok = ok && json_object_set(all, "messages", some) == 0 &&
         json_object_set_new(all, "add_generation_prompt", json_boolean(prompt)) == 0 &&
         json_object_set_new(all, "tools", tools ? json_incref(tools) : json_null()) == 0 &&
         json_object_set_new(all, "documents", json_null()) == 0;
    json_decref(some);
    if (!ok) {
        json_decref(all);
        return NULL;
    }
    return all;
}

static enum kiln_status write_messages(const struct kiln_chat *chat, const json_t *object, size_t n,
                                       bool prompt, int64_t now, struct kiln_rendered *out,
                                       struct kiln_err *err) {
    json_t *all = variables(chat, object, n, prompt);
    *out = (struct kiln_rendered){.text = NULL};
    KILN_REQUIRE(all, err, KILN_ENOMEM, "chat template: out of memory");
    const enum kiln_status status = kiln_template_render(chat->tpl, all, now, out, err);
    json_decref(all);
    return status;
}

/* What the template makes of a message by a user, and of the answer to it where there is one. */
static enum kiln_status write_turns(const struct kiln_chat *chat, const char *system,
                                    const char *user, const char *answer, struct kiln_rendered *out,
                                    struct kiln_err *err) {
    const struct {
        const char *role, *content;
    } turns[] = {{"system", system}, {"user", user}, {"assistant", answer}};
    json_t *messages = json_array(), *object = json_object();
    bool ok = messages && object;
    *out = (struct kiln_rendered){.text = NULL};
    for (size_t i = 0; ok && i < sizeof turns / sizeof turns[0]; i++) {
        ok = turns[i].content == NULL ||
             json_array_append_new(messages, json_pack("{s:s, s:s}", "role", turns[i].role,
                                                       "content", turns[i].content)) == 0;
    }
    ok = ok && json_object_set(object, "messages", messages) == 0;
    const enum kiln_status status =
        ok ? write_messages(chat, object, json_array_size(messages), answer == NULL, 0, out, err)
           : KILN_FAIL(err, KILN_EINPUT, "chat: the prompt is not UTF-8");
    json_decref(messages);
    json_decref(object);
    return status;
}

enum kiln_status kiln_chat_prompt(const struct kiln_chat *chat, const char *system,
                                  const char *user, char **out, size_t *size,
                                  struct kiln_err *err) {
    struct kiln_rendered text;
    *out = NULL;
    *size = 0;
    KILN_TRY(kiln_chat_usable(chat, err));
    const enum kiln_status status = write_turns(chat, system, user, NULL, &text, err);
    *out = text.text;
    *size = text.size;
    text.text = NULL;
    kiln_rendered_free(&text);
    return status;
}

enum kiln_status kiln_chat_end(const struct kiln_chat *chat, const char *system, char **out,
                               struct kiln_err *err) {
    static const char answer[] = "kilnanswer"; /* a word that no template writes by itself */
    static const char blanks[] = " \t\r\n";
    struct kiln_rendered text;
    *out = NULL;
    KILN_TRY(kiln_chat_usable(chat, err));
    KILN_TRY(write_turns(chat, system, "user", answer, &text, err));
    const char *at = memmem(text.text, text.size, answer, sizeof answer - 1);
    size_t begin = at ? (size_t)(at - text.text) + sizeof answer - 1 : text.size;
    size_t end = text.size;
    while (begin < end && strchr(blanks, text.text[begin]) != NULL) {
        begin++;
    }
    while (end > begin && strchr(blanks, text.text[end - 1]) != NULL) {
        end--;
    }
    *out = kiln_strndup(text.text + begin, end - begin);
    kiln_rendered_free(&text);
    KILN_REQUIRE(*out, err, KILN_ENOMEM, "chat template: out of memory");
    return KILN_OK;
}

/* ---- answers
 * ------------------------------------------------------------------------------------- */

struct answers {
    const struct kiln_chat *chat;
    const json_t *object;
    const struct kiln_rendered *whole;
    struct kiln_span **spans;
    size_t *n, room;
    struct kiln_err *err;
};

static enum kiln_status add(struct answers *a, size_t begin, size_t end) {
    if (*a->n == a->room) {
        const size_t room = a->room ? a->room * 2 : 8;
        struct kiln_span *wider = kiln_realloc(*a->spans, *a->n, room, sizeof *wider);
        KILN_REQUIRE(wider, a->err, KILN_ENOMEM, "chat template: out of memory");
        *a->spans = wider;
        a->room = room;
    }
    KILN_REQUIRE(*a->n == 0 || begin >= (*a->spans)[*a->n - 1].end, a->err, KILN_EINPUT,
                 "the chat template writes an answer inside another one");
    if (end > begin) {
        (*a->spans)[(*a->n)++] = (struct kiln_span){begin, end};
    }
    return KILN_OK;
}

static bool begins_with(const struct kiln_rendered *text, const struct kiln_rendered *begin) {
    return begin->size <= text->size && memcmp(text->text, begin->text, begin->size) == 0;
}

static size_t without_blanks(const char *text, size_t n) {
    while (n > 0 && kiln_is_blank(text[n - 1])) {
        n--;
    }
    return n;
}

/* The content of message i where it is a text: "" otherwise. */
static const char *content_of(const json_t *object, size_t i, size_t *n) {
    const json_t *content =
        json_object_get(json_array_get(json_object_get(object, "messages"), i), "content");
    *n = json_string_length(content);
    return json_is_string(content) ? json_string_value(content) : "";
}

/* Blanks behind the sign that an answer is done are the template's, not the model's. Where nothing
 * but blanks follows the content there is no such sign, and all counts. */
static size_t said(const char *answer, size_t n, const char *content, size_t content_size) {
    const size_t seen = without_blanks(answer, n);
    const size_t own = without_blanks(content, content_size);
    const bool no_sign = own > 0 && seen >= own && memcmp(answer + seen - own, content, own) == 0;
    return no_sign ? n : seen;
}

/* The answer is written otherwise once more follows: what stands behind `prompt` in the whole is
 * then its content and the sign that it is done, as they stood at the end of `alone`. */
static size_t said_shorter(const struct answers *a, const struct kiln_rendered *prompt,
                           const struct kiln_rendered *alone, size_t i) {
    size_t n;
    const char *content = content_of(a->object, i, &n);
    const char *tail =
        n > 0 ? memmem(alone->text + prompt->size, alone->size - prompt->size, content, n) : NULL;
    if (tail == NULL || !begins_with(a->whole, prompt)) {
        return 0;
    }
    const size_t left = alone->size - (size_t)(tail - alone->text);
    return a->whole->size - prompt->size >= left &&
                   memcmp(a->whole->text + prompt->size, tail, left) == 0
               ? left
               : 0;
}

static enum kiln_status place(struct answers *a, size_t i, const struct kiln_rendered *prompt,
                              const struct kiln_rendered *alone) {
    size_t content_size, n = 0;
    const char *content = content_of(a->object, i, &content_size);
    if (begins_with(alone, prompt)) {
        n = begins_with(a->whole, alone) ? alone->size - prompt->size
                                         : said_shorter(a, prompt, alone, i);
    }
    KILN_REQUIRE(n > 0 || (begins_with(alone, prompt) && begins_with(a->whole, alone)), a->err,
                 KILN_EINPUT,
                 "message %zu: the chat template writes this answer, or what comes before it, "
                 "otherwise in the whole conversation than when the model is asked for it: there "
                 "is no telling which tokens it should learn",
                 i + 1);
    const char *answer = a->whole->text + prompt->size;
    return add(a, prompt->size, prompt->size + said(answer, n, content, content_size));
}

static enum kiln_status answer(struct answers *a, size_t i) {
    struct kiln_rendered prompt, alone = {.text = NULL};
    KILN_TRY(write_messages(a->chat, a->object, i, true, KILN_CHAT_DAY, &prompt, a->err));
    enum kiln_status status =
        write_messages(a->chat, a->object, i + 1, false, KILN_CHAT_DAY, &alone, a->err);
    if (status == KILN_OK) {
        status = place(a, i, &prompt, &alone);
    }
    kiln_rendered_free(&prompt);
    kiln_rendered_free(&alone);
    return status;
}

static enum kiln_status check_messages(const json_t *messages, struct kiln_err *err) {
    size_t i;
    json_t *message;
    KILN_REQUIRE(json_is_array(messages) && json_array_size(messages) > 0, err, KILN_EINPUT,
                 "\"messages\" is no list of messages");
    json_array_foreach((json_t *)(uintptr_t)messages, i, message) {
        KILN_REQUIRE(json_is_string(json_object_get(message, "role")), err, KILN_EINPUT,
                     "message %zu has no \"role\"", i + 1);
    }
    return KILN_OK;
}

static bool is_answer(const json_t *message) {
    const char *role = json_string_value(json_object_get(message, "role"));
    return role && strcmp(role, "assistant") == 0;
}

enum kiln_status kiln_chat_answers(const struct kiln_chat *chat, const json_t *object,
                                   struct kiln_rendered *out, struct kiln_span **spans, size_t *n,
                                   struct kiln_err *err) {
    const json_t *messages = json_object_get(object, "messages");
    const size_t n_messages = json_array_size(messages);
    struct answers a = {chat, object, out, spans, n, 0, err};
    kiln_free(*spans);
    *spans = NULL;
    *n = 0;
    KILN_TRY(check_messages(messages, err));
    KILN_TRY(write_messages(chat, object, n_messages, false, KILN_CHAT_DAY, out, err));
    for (size_t i = 0; kiln_template_marks(chat->tpl) && i < out->n_marked; i++) {
        KILN_TRY(add(&a, out->marked[i].begin, out->marked[i].end));
    }
    for (size_t i = 0; !kiln_template_marks(chat->tpl) && i < n_messages; i++) {
        KILN_TRY(is_answer(json_array_get(messages, i)) ? answer(&a, i) : KILN_OK);
    }
    return KILN_OK;
}

void kiln_chat_free(char *text) { kiln_free(text); }

/* ---- ids ----------------------------------------------------------------------------------------
 */

/* Does the tokenizer itself see the special token in a text? */
static bool sees(const struct kiln_tokenizer *tok, const char *special_text, uint32_t id) {
    struct kiln_ids ids = {0};
    const bool is = kiln_tokenizer_encode(tok, special_text, strlen(special_text), false, &ids,
                                          NULL) == KILN_OK &&
                    ids.n == 1 && ids.id[0] == id;
    kiln_ids_free(&ids);
    return is;
}

static enum kiln_status encode_part(struct kiln_encoder *e, const char *text, size_t size,
                                    bool begins, struct kiln_ids *out, struct kiln_err *err) {
    if (begins) {
        kiln_encoder_begin(e, text, size);
    } else {
        kiln_encoder_go_on(e, text, size);
    }
    return kiln_encoder_more(e, SIZE_MAX, out, err);
}

/* The special token that stands first in a text, one of two. */
static const char *first_of(const char *text, size_t size, const char *const tokens[2],
                            int *which) {
    const char *first = NULL;
    for (int i = 0; i < 2; i++) {
        const char *found =
            tokens[i] && tokens[i][0] ? memmem(text, size, tokens[i], strlen(tokens[i])) : NULL;
        if (found && (first == NULL || found < first)) {
            first = found;
            *which = i;
        }
    }
    return first;
}

/* A tokenizer that does not know special tokens in a text (llama2.c's) has BOS and EOS put in where
 * the template writes them. */
static enum kiln_status encode_around(const struct kiln_chat *chat,
                                      const struct kiln_tokenizer *tok, struct kiln_encoder *e,
                                      const char *text, size_t size, bool begins,
                                      struct kiln_ids *out, struct kiln_err *err) {
    const uint32_t ids[2] = {kiln_tokenizer_bos(tok), kiln_tokenizer_eos(tok)};
    const char *tokens[2] = {kiln_chat_bos(chat), kiln_chat_eos(chat)};
    for (int i = 0; i < 2; i++) {
        const bool none = tokens[i] && (ids[i] == KILN_NO_ID || sees(tok, tokens[i], ids[i]));
        tokens[i] = none ? NULL : tokens[i];
    }
    for (int which = 0;;) {
        const char *special_at = first_of(text, size, tokens, &which);
        const size_t n = special_at ? (size_t)(special_at - text) : size;
        KILN_TRY(n > 0 ? encode_part(e, text, n, begins, out, err) : KILN_OK);
        if (special_at == NULL) {
            return KILN_OK;
        }
        KILN_REQUIRE(kiln_ids_reserve(out, 1), err, KILN_ENOMEM, "encode: out of memory");
        out->id[out->n++] = ids[which];
        begins = true; /* a blank is put there, too */
        text += n + strlen(tokens[which]);
        size -= n + strlen(tokens[which]);
    }
}

enum kiln_status kiln_chat_encode(const struct kiln_chat *chat, const struct kiln_tokenizer *tok,
                                  const char *text, size_t size, bool begins, struct kiln_ids *out,
                                  struct kiln_err *err) {
    struct kiln_encoder *e;
    KILN_TRY(kiln_encoder_create(tok, false, &e, err));
    const enum kiln_status status = encode_around(chat, tok, e, text, size, begins, out, err);
    kiln_encoder_destroy(e);
    return status;
}
