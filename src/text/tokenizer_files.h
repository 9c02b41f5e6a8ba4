/* SPDX-License-Identifier: MIT
 *
 * tokenizer_files.h: the forms of tokenizer files. Inside src/text only; Hugging Face's is in
 * tokenizer_json.h.
 */
#ifndef KILN_TEXT_TOKENIZER_FILES_H
#define KILN_TEXT_TOKENIZER_FILES_H

#include "text/text_int.h"

/* llama2.c's tokenizer.bin. KILN_EUNSUPPORTED: it cannot hold such a tokenizer. */
KILN_MUST_CHECK enum kiln_status kiln_llama2c_tokenizer_open(const char *path,
                                                             struct kiln_tokenizer **out,
                                                             struct kiln_err *err);
KILN_MUST_CHECK enum kiln_status kiln_llama2c_tokenizer_save(const struct kiln_tokenizer *tok,
                                                             const char *path,
                                                             struct kiln_err *err);

/* SentencePiece's .model, of BPE. */
KILN_MUST_CHECK enum kiln_status kiln_sentencepiece_open(const char *path,
                                                         struct kiln_tokenizer **out,
                                                         struct kiln_err *err);

/* The tokenizer inside a GGUF file. */
KILN_MUST_CHECK enum kiln_status kiln_gguf_tokenizer_open(const char *path,
                                                          struct kiln_tokenizer **out,
                                                          struct kiln_err *err);

#endif
