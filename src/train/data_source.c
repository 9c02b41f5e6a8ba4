/* SPDX-License-Identifier: MIT */
#include "train/data_source.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"

enum { BYTES_VOCAB = 259 };

enum kiln_status kiln_check_data(const char *data, struct kiln_err *err) {
    struct stat st;
    KILN_REQUIRE(stat(data, &st) == 0, err, KILN_EINPUT, "data %s: %s", data, strerror(errno));
    KILN_REQUIRE(S_ISREG(st.st_mode), err, KILN_EINPUT,
                 "data %s: not a file; give a text or a token file", data);
    return KILN_OK;
}

enum kiln_status kiln_open_tokenizer(const char *path, const char *data, size_t vocab,
                                     struct kiln_tokenizer **out, struct kiln_err *err) {
    *out = NULL;
    if (path && strcmp(path, "bytes") == 0) {
        path = NULL;
        KILN_REQUIRE(vocab == 0 || vocab >= BYTES_VOCAB, err, KILN_EINPUT,
                     "--tokenizer bytes: has %d ids, the model's vocabulary is %zu", BYTES_VOCAB,
                     vocab);
        return kiln_tokenizer_bytes(out, err);
    }
    if (path && path[0]) {
        KILN_TRY(kiln_tokenizer_open(path, out, err));
        enum kiln_status status = vocab ? kiln_tokenizer_fits(*out, vocab, err) : KILN_OK;
        if (status != KILN_OK) {
            kiln_tokenizer_destroy(*out);
            *out = NULL;
        }
        return status;
    }
    if (vocab == 0 || vocab == BYTES_VOCAB) {
        return kiln_tokenizer_bytes(out, err);
    }
    KILN_REQUIRE(data && kiln_token_file_is(data), err, KILN_EUSAGE,
                 "the model's vocabulary is %zu: name its tokenizer with --tokenizer", vocab);
    return KILN_OK;
}

enum kiln_status kiln_open_tokens(const char *data, const char *token_path,
                                  const struct kiln_tokenizer *tokenizer, size_t vocab,
                                  bool blank_lines, struct kiln_token_file **out,
                                  struct kiln_err *err) {
    *out = NULL;
    KILN_TRY(kiln_check_data(data, err));
    if (kiln_token_file_is(data)) {
        KILN_TRY(kiln_token_file_open(data, vocab, out, err));
        if (tokenizer && kiln_token_file_vocab(*out) && !kiln_token_file_of(*out, tokenizer)) {
            kiln_token_file_close(*out);
            *out = NULL;
            return KILN_FAIL(err, KILN_EINPUT,
                             "data %s: its ids were made by another tokenizer than %s", data,
                             kiln_tokenizer_name(tokenizer));
        }
        return KILN_OK;
    }
    struct kiln_tokenize_options options = {.blank_lines = blank_lines};
    KILN_TRY(kiln_tokenize_file(tokenizer, data, token_path, &options, err));
    return kiln_token_file_open(token_path, vocab, out, err);
}
