/* SPDX-License-Identifier: MIT
 *
 * data_source.h: from what a user names (text or token file, tokenizer) to open token files.
 */
#ifndef KILN_TRAIN_DATA_SOURCE_H
#define KILN_TRAIN_DATA_SOURCE_H

#include "kiln/text.h"

/* The tokenizer for a model of that vocabulary. path NULL: bytes where they fit exactly (or
 * vocab is 0), nothing (*out NULL) when `data` is a token file, otherwise KILN_EUSAGE tells about
 * --tokenizer. */
KILN_MUST_CHECK enum kiln_status kiln_open_tokenizer(const char *path, const char *data,
                                                     size_t vocab, struct kiln_tokenizer **out,
                                                     struct kiln_err *err);
/* Is `data` a file that can be read as text or tokens? */
KILN_MUST_CHECK enum kiln_status kiln_check_data(const char *data, struct kiln_err *err);
/* Open `data`; text is first tokenized into token_path. Ids are checked against vocab. */
KILN_MUST_CHECK enum kiln_status kiln_open_tokens(const char *data, const char *token_path,
                                                  const struct kiln_tokenizer *tokenizer,
                                                  size_t vocab, bool blank_lines,
                                                  struct kiln_token_file **out,
                                                  struct kiln_err *err);

#endif
