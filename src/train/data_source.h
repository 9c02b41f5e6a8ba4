/* SPDX-License-Identifier: MIT
 *
 * data_source.h: from what a user names (text or token files, tokenizer) to open token files.
 */
#ifndef KILN_TRAIN_DATA_SOURCE_H
#define KILN_TRAIN_DATA_SOURCE_H

#include "kiln/settings.h"
#include "kiln/text.h"

/* --data a.txt:2,b.txt:1. A text that names a file is that file, whatever its name. Otherwise it is
 * a list: commas separate items, and an item that names no file ends with ":WEIGHT". A backslash
 * makes a comma, colon or backslash of a name of what follows it. */
struct kiln_data_list {
    char **path;    /* [n] */
    double *weight; /* [n]; 0 in all: none was given. Where some are, the others are 1 */
    size_t n;
    bool weighted;
    bool split; /* without a look at the files */
};
/* KILN_EINPUT for a file that is not there, or is none; KILN_EUSAGE for a weight that is none. */
enum { KILN_DATA_FILES = 256 }; /* in a list at most */
KILN_MUST_CHECK enum kiln_status kiln_data_list_parse(const char *text, struct kiln_data_list *out,
                                                      struct kiln_err *err);
/* The same of a text that kiln_data_list_text wrote, whatever became of the files. */
KILN_MUST_CHECK enum kiln_status kiln_data_list_split(const char *text, struct kiln_data_list *out,
                                                      struct kiln_err *err);
void kiln_data_list_free(struct kiln_data_list *list);
/* As text that parses to the same, and that can be split without the files; on the heap
 * (kiln_free), NULL when out of memory. */
char *kiln_data_list_text(const struct kiln_data_list *list);

/* The tokenizer for a model of that vocabulary. path NULL: bytes where they fit exactly (or
 * vocab is 0), nothing (*out NULL) when all of `data` are token files, otherwise KILN_EUSAGE tells
 * about --tokenizer. */
KILN_MUST_CHECK enum kiln_status kiln_open_tokenizer(const char *path, const char *data,
                                                     size_t vocab, struct kiln_tokenizer **out,
                                                     struct kiln_err *err);
/* Of token files that say their vocabulary: the tokenizer that lies beside the first and made its
 * ids: STEM.tokenizer.json, as `kiln tokenize` writes it, or tokenizer.json or tokenizer.bin in the
 * same folder. False: there is none, or none is needed, for the ids are bytes. */
bool kiln_find_tokenizer(const char *data, char *path, size_t size);
/* Are they files that can be read as text or tokens? */
KILN_MUST_CHECK enum kiln_status kiln_check_data(const char *data, struct kiln_err *err);
/* What is evaluated, by flag `flag`, is read once and has no weights: KILN_EUSAGE where it has. */
KILN_MUST_CHECK enum kiln_status kiln_check_unweighted(const char *flag, const char *data,
                                                       struct kiln_err *err);
/* Are all of them token files? */
bool kiln_data_is_tokens(const char *data);
/* Open one file; text is first tokenized into token_path. Ids are checked against vocab. */
KILN_MUST_CHECK enum kiln_status kiln_open_tokens(const char *data, const char *token_path,
                                                  const struct kiln_tokenizer *tokenizer,
                                                  size_t vocab,
                                                  const struct kiln_tokenize_options *options,
                                                  struct kiln_token_file **out,
                                                  struct kiln_err *err);

/* All of a list, as data of `seq`. Texts are tokenized into FOLDER/NAME.tok, FOLDER/NAME-2.tok, ...
 * What there is to say of the texts goes into notice, "" for nothing; *too_short: what was asked to
 * be held out is more than there is, and nothing is.
 *
 * With `tokens` every text has its share of them: by weight, or without weights by its size, and
 * never less than a window needs on either side of the split. From the beginning, and not from many
 * places: compressed texts cannot be entered elsewhere, and so every form of a text gives the same
 * ids. What is held out is the end of what was tokenized. */
struct kiln_data_wish {
    const char *data, *folder, *name;
    const struct kiln_tokenizer *tokenizer;
    struct kiln_tokenize_options options;
    size_t vocab, seq;
    uint64_t seed;
    double validation;
    uint64_t tokens; /* of all texts, taken from the beginning of each; 0: the whole texts */
};
KILN_MUST_CHECK enum kiln_status kiln_open_data(const struct kiln_data_wish *wish,
                                                struct kiln_data **out, char *notice,
                                                size_t notice_size, bool *too_short,
                                                struct kiln_err *err);
/* FOLDER/NAME.tok or FOLDER/NAME-I.tok of file number i. */
void kiln_token_path(const char *folder, const char *name, size_t i, char *out, size_t size);

#endif
