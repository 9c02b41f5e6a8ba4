/* SPDX-License-Identifier: MIT
 *
 * template.h: the template language in which models say how a conversation is written.
 *
 * `chat_template` of a tokenizer_config.json is a Jinja template that `transformers` renders in a
 * sandbox with trim_blocks and lstrip_blocks. This is that language as far as the templates of
 * Llama, Qwen, Mistral and ChatML models use it:
 *
 *   statements   set (also of blocks and namespaces), for (unpacking, condition, else, loop.*,
 *                break, continue), if, macro, generation, raw, comments, whitespace control
 *   expressions  literals, arithmetic, ~, comparisons, in, and, or, not, inline if, calls,
 *                attributes, subscripts, slices, filters, tests, methods of strings and mappings
 *   functions    raise_exception, strftime_now, namespace, range, dict
 *
 * Anything else is an error that names it and its line, when the template is parsed where that can
 * be known and when it is rendered otherwise: never another text. Strings are UTF-8; lengths and
 * slices count characters.
 *
 * Limits: a render may take KILN_TEMPLATE_STEPS evaluations, KILN_TEMPLATE_BYTES of memory, and
 * nest KILN_TEMPLATE_DEPTH deep; beyond is an error.
 */
#ifndef KILN_TEXT_TEMPLATE_H
#define KILN_TEXT_TEMPLATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "kiln/status.h"

enum {
    KILN_TEMPLATE_STEPS = 20000000,
    KILN_TEMPLATE_BYTES = 256 << 20,
    KILN_TEMPLATE_DEPTH = 100,
};

struct kiln_template;

/* `name` is for messages: where the template comes from. KILN_EINPUT names what is wrong or not
 * supported, and the line. */
KILN_MUST_CHECK enum kiln_status kiln_template_parse(const char *name, const char *source,
                                                     size_t size, struct kiln_template **out,
                                                     struct kiln_err *err);
void kiln_template_free(struct kiln_template *tpl);
/* Does it mark what the model says with {% generation %}? */
bool kiln_template_marks(const struct kiln_template *tpl);

/* Bytes begin..end-1 of a rendered text. */
struct kiln_span {
    size_t begin, end;
};
struct kiln_rendered {
    char *text; /* with a zero behind it */
    size_t size;
    struct kiln_span *marked; /* what stood in {% generation %} blocks */
    size_t n_marked;
};
/* `variables`: a JSON object, borrowed. `now`: the time that strftime_now shows, in UTC, seconds
 * since 1970; 0: that of the clock, where the machine is. kiln_rendered_free what comes out.
 * KILN_EINPUT also for what the template itself refuses (raise_exception). */
KILN_MUST_CHECK enum kiln_status kiln_template_render(const struct kiln_template *tpl,
                                                      const json_t *variables, int64_t now,
                                                      struct kiln_rendered *out,
                                                      struct kiln_err *err);
void kiln_rendered_free(struct kiln_rendered *rendered);

#endif
