/* SPDX-License-Identifier: MIT
 *
 * gguf_tokenizer.h: the tokenizer inside a GGUF file.
 */
#ifndef KILN_TEXT_GGUF_TOKENIZER_H
#define KILN_TEXT_GGUF_TOKENIZER_H

#include "kiln/text.h"
#include "model/gguf.h"

/* The tokenizer of an open GGUF file; `name` is the file's. */
KILN_MUST_CHECK enum kiln_status kiln_gguf_tokenizer_read(const struct kiln_gguf *gguf,
                                                          const char *name,
                                                          struct kiln_tokenizer **out,
                                                          struct kiln_err *err);
/* Put the tokenizer's keys, as llama.cpp reads them, for a model of `vocab` ids (those beyond the
 * tokenizer's own are unused). KILN_EUNSUPPORTED names what llama.cpp has no name for: a pattern, a
 * normalizer, words looked up before they are merged where its name for the pattern says otherwise.
 */
KILN_MUST_CHECK enum kiln_status kiln_gguf_tokenizer_put(const struct kiln_tokenizer *tok,
                                                         size_t vocab,
                                                         struct kiln_gguf_pairs *pairs,
                                                         struct kiln_err *err);
/* Read a written file's tokenizer back and hold it against the one that was put: the ids of a text
 * with all its pieces and marks in it, the text of each, and how documents begin. Left out are
 * marks that tokenizer.json has `normalized` where a blank is put before a text: GGUF finds these
 * in the middle of a text, too. KILN_EUNSUPPORTED: GGUF, or llama.cpp's reading of it, has no place
 * for something of it; the message has the first difference. */
KILN_MUST_CHECK enum kiln_status kiln_gguf_tokenizer_prove(const struct kiln_tokenizer *tok,
                                                           const char *path, struct kiln_err *err);

#endif
