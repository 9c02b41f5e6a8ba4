/* SPDX-License-Identifier: MIT */
#include "train/data_source.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/mem.h"

enum { BYTES_VOCAB = 259 };

/* ---- lists --------------------------------------------------------------------------------------
 */

static bool is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static enum kiln_status check_file(const char *path, struct kiln_err *err) {
    struct stat st;
    KILN_REQUIRE(stat(path, &st) == 0, err, KILN_EINPUT, "data %s: %s", path, strerror(errno));
    KILN_REQUIRE(S_ISREG(st.st_mode), err, KILN_EINPUT,
                 "data %s: not a file; give a text or a token file", path);
    return KILN_OK;
}

static enum kiln_status add_item(struct kiln_data_list *list, char *path, double weight,
                                 struct kiln_err *err) {
    if (list->n == KILN_DATA_FILES) {
        kiln_free(path);
        return KILN_FAIL(err, KILN_EUSAGE, "--data: more than %d files", KILN_DATA_FILES);
    }
    char **paths = kiln_realloc(list->path, list->n, list->n + 1, sizeof *paths);
    list->path = paths ? paths : list->path;
    double *weights = kiln_realloc(list->weight, list->n, list->n + 1, sizeof *weights);
    list->weight = weights ? weights : list->weight;
    if (path == NULL || paths == NULL || weights == NULL) {
        kiln_free(path);
        return KILN_FAIL(err, KILN_ENOMEM, "data: out of memory");
    }
    list->path[list->n] = path;
    list->weight[list->n++] = weight;
    list->weighted |= weight > 0;
    return KILN_OK;
}

/* Items end at a comma that no backslash stands before. */
static size_t item_length(const char *text) {
    size_t n = 0;
    while (text[n] != '\0' && text[n] != ',') {
        n += text[n] == '\\' && text[n + 1] != '\0' ? 2 : 1;
    }
    return n;
}

static char *unescaped(const char *text, size_t n) {
    char *out = kiln_strndup(text, n);
    size_t length = 0;
    for (size_t i = 0; out && i < n; i++) {
        i += text[i] == '\\' && i + 1 < n && strchr("\\,:", text[i + 1]) != NULL;
        out[length++] = text[i];
    }
    if (out) {
        out[length] = '\0';
    }
    return out;
}

/* The colon before an item's weight: the last one that no backslash stands before; n: none. */
static size_t weight_at(const char *text, size_t n) {
    size_t colon = n;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\\') {
            i++;
        } else if (text[i] == ':') {
            colon = i;
        }
    }
    return colon;
}

static enum kiln_status parse_item(struct kiln_data_list *list, const char *text, size_t n,
                                   struct kiln_err *err) {
    char *path = unescaped(text, n);
    const size_t colon = weight_at(text, n);
    if (path == NULL || (!list->split && is_file(path)) || colon == n) {
        return add_item(list, path, 0, err);
    }
    kiln_free(path);
    char *number = kiln_strndup(text + colon + 1, n - colon - 1);
    double weight = 0;
    KILN_REQUIRE(number, err, KILN_ENOMEM, "data: out of memory");
    const enum kiln_status status =
        kiln_parse_real("--data FILE:WEIGHT", number, 0.001, KILN_WEIGHT_MOST, &weight, err);
    kiln_free(number);
    KILN_TRY(status);
    return add_item(list, unescaped(text, colon), weight, err);
}

static enum kiln_status parse_items(struct kiln_data_list *list, const char *text,
                                    struct kiln_err *err) {
    if (!list->split && is_file(text)) {
        return add_item(list, kiln_strdup(text), 0, err);
    }
    for (const char *at = text;;) {
        const size_t n = item_length(at);
        KILN_REQUIRE(n > 0, err, KILN_EUSAGE, "--data %s: an item of the list is empty", text);
        KILN_TRY(parse_item(list, at, n, err));
        if (at[n] == '\0') {
            break;
        }
        at += n + 1;
    }
    for (size_t i = 0; i < list->n; i++) {
        KILN_TRY(list->split ? KILN_OK : check_file(list->path[i], err));
        list->weight[i] = list->weighted && list->weight[i] <= 0 ? 1 : list->weight[i];
    }
    return KILN_OK;
}

static enum kiln_status parse_list(const char *text, bool split, struct kiln_data_list *out,
                                   struct kiln_err *err) {
    *out = (struct kiln_data_list){.split = split};
    const enum kiln_status status = parse_items(out, text, err);
    if (status != KILN_OK) {
        kiln_data_list_free(out);
    }
    return status;
}

enum kiln_status kiln_data_list_parse(const char *text, struct kiln_data_list *out,
                                      struct kiln_err *err) {
    return parse_list(text, false, out, err);
}
enum kiln_status kiln_data_list_split(const char *text, struct kiln_data_list *out,
                                      struct kiln_err *err) {
    return parse_list(text, true, out, err);
}

void kiln_data_list_free(struct kiln_data_list *list) {
    for (size_t i = 0; i < list->n; i++) {
        kiln_free(list->path[i]);
    }
    kiln_free(list->path);
    kiln_free(list->weight);
    *list = (struct kiln_data_list){.path = NULL};
}

char *kiln_data_list_text(const struct kiln_data_list *list) {
    size_t room = 1, n = 0;
    for (size_t i = 0; i < list->n; i++) {
        room += 2 * strlen(list->path[i]) + 40;
    }
    char *text = kiln_alloc(room, 1);
    for (size_t i = 0; text && i < list->n; i++) {
        n += (size_t)snprintf(text + n, room - n, "%s", i > 0 ? "," : "");
        for (const char *c = list->path[i]; *c != '\0'; c++) {
            if (strchr("\\,:", *c) != NULL) {
                text[n++] = '\\';
            }
            text[n++] = *c;
        }
        if (list->weighted) {
            n += (size_t)snprintf(text + n, room - n, ":%.10g", list->weight[i]);
        }
    }
    return text;
}

enum kiln_status kiln_check_data(const char *data, struct kiln_err *err) {
    struct kiln_data_list list;
    KILN_TRY(kiln_data_list_parse(data, &list, err));
    kiln_data_list_free(&list);
    return KILN_OK;
}

enum kiln_status kiln_check_unweighted(const char *flag, const char *data, struct kiln_err *err) {
    struct kiln_data_list list;
    KILN_TRY(kiln_data_list_parse(data, &list, err));
    const bool weighted = list.weighted;
    kiln_data_list_free(&list);
    KILN_REQUIRE(!weighted, err, KILN_EUSAGE,
                 "%s %s: what is evaluated has no weights, every window of it counts once; leave "
                 "the weights out",
                 flag, data);
    return KILN_OK;
}

bool kiln_data_is_tokens(const char *data) {
    struct kiln_data_list list;
    if (kiln_data_list_parse(data, &list, NULL) != KILN_OK) {
        return false;
    }
    bool all = true;
    for (size_t i = 0; i < list.n; i++) {
        all &= kiln_token_file_is(list.path[i]);
    }
    kiln_data_list_free(&list);
    return all;
}

/* ---- the tokenizer ------------------------------------------------------------------------------
 */

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
    KILN_REQUIRE(data && kiln_data_is_tokens(data), err, KILN_EUSAGE,
                 "the model's vocabulary is %zu: name its tokenizer with --tokenizer", vocab);
    return KILN_OK;
}

/* Is there a tokenizer at `path`, and did it make the ids? */
static bool made_by(const struct kiln_token_file *file, const char *path) {
    struct kiln_tokenizer *tok;
    if (!is_file(path) || kiln_tokenizer_open(path, &tok, NULL) != KILN_OK) {
        return false;
    }
    const bool made = kiln_token_file_of(file, tok);
    kiln_tokenizer_destroy(tok);
    return made;
}

static bool find_beside(const struct kiln_token_file *file, const char *ids, char *path,
                        size_t size) {
    static const char *const names[] = {"tokenizer.json", "tokenizer.bin"};
    const size_t length = strlen(ids), ending = kiln_path_ends(ids, ".tok") ? 4 : 0;
    const char *slash = strrchr(ids, '/');
    const int folder = slash ? (int)(slash + 1 - ids) : 0;
    snprintf(path, size, "%.*s.tokenizer.json", (int)(length - ending), ids);
    bool found = made_by(file, path);
    for (size_t i = 0; !found && i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, size, "%.*s%s", folder, ids, names[i]);
        found = made_by(file, path);
    }
    return found;
}

bool kiln_find_tokenizer(const char *data, char *path, size_t size) {
    struct kiln_data_list list;
    struct kiln_token_file *file = NULL;
    if (!kiln_data_is_tokens(data) || kiln_data_list_parse(data, &list, NULL) != KILN_OK) {
        return false;
    }
    bool found = false;
    if (kiln_token_file_open(list.path[0], 0, &file, NULL) == KILN_OK) {
        const size_t vocab = kiln_token_file_vocab(file);
        found = vocab > 0 && vocab != BYTES_VOCAB && find_beside(file, list.path[0], path, size);
        kiln_token_file_close(file);
    }
    kiln_data_list_free(&list);
    return found;
}

/* ---- token files --------------------------------------------------------------------------------
 */

enum kiln_status kiln_open_tokens(const char *data, const char *token_path,
                                  const struct kiln_tokenizer *tokenizer, size_t vocab,
                                  const struct kiln_tokenize_options *options,
                                  struct kiln_token_file **out, struct kiln_err *err) {
    *out = NULL;
    KILN_TRY(check_file(data, err));
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
    KILN_REQUIRE(tokenizer, err, KILN_EUSAGE, "data %s: a text; name a tokenizer with --tokenizer",
                 data);
    KILN_TRY(kiln_tokenize_file(tokenizer, data, token_path, options, err));
    return kiln_token_file_open(token_path, vocab, out, err);
}

void kiln_token_path(const char *folder, const char *name, size_t i, char *out, size_t size) {
    if (i == 0) {
        snprintf(out, size, "%s/%s.tok", folder, name);
    } else {
        snprintf(out, size, "%s/%s-%zu.tok", folder, name, i + 1);
    }
}

/* Behind what was said before. */
__attribute__((format(printf, 3, 4))) static void say(char *notice, size_t size, const char *format,
                                                      ...) {
    size_t n = strlen(notice);
    n += n > 0 && n < size ? (size_t)snprintf(notice + n, size - n, "; ") : 0;
    if (n < size) {
        va_list values;
        va_start(values, format);
        vsnprintf(notice + n, size - n, format, values);
        va_end(values);
    }
}

/* What is to be said of a text: numbers first, for a notice may be cut. */
static void tell(const char *path, const struct kiln_tokenize_report *r, char *notice,
                 size_t size) {
    if (r->encoding != NULL) {
        say(notice, size, "%s: %s; read as plain UTF-8", path, r->encoding);
    }
    if (r->not_utf8 > 0) {
        say(notice, size, "%s: %" PRIu64 " bytes are not UTF-8; they are taken byte by byte", path,
            r->not_utf8);
    }
    if (r->unanswered > 0) {
        say(notice, size,
            "%s: %" PRIu64 " of %" PRIu64
            " documents are conversations without an answer; nothing "
            "of them counts",
            path, r->unanswered, r->documents);
    }
    if (r->bad_lines > 0) {
        say(notice, size, "%s: %" PRIu64 " lines left out, the first: %s", path, r->bad_lines,
            r->first_bad);
    }
}

/* ---- so many tokens of all texts ----------------------------------------------------------------
 */

/* To know how large a compressed text is. */
enum { LOOK = 1 << 20 };

/* What the files are to each other: their weights, or their sizes. */
static enum kiln_status set_parts(const struct kiln_data_wish *wish,
                                  const struct kiln_data_list *list, double *part,
                                  struct kiln_err *err) {
    for (size_t i = 0; i < list->n; i++) {
        char *text;
        size_t size;
        part[i] = list->weight[i];
        if (!list->weighted && !kiln_token_file_is(list->path[i])) {
            KILN_TRY(
                kiln_text_sample(list->path[i], &wish->options, LOOK, &text, &size, &part[i], err));
            kiln_text_free(text);
        }
    }
    return KILN_OK;
}

/* most [n]: tokens of each. Where a part is held out, both sides need a window, and the cut may lie
 * half of that part further on (kiln_data_create). */
static enum kiln_status divide(const struct kiln_data_wish *wish, const struct kiln_data_list *list,
                               uint64_t *most, struct kiln_err *err) {
    double part[KILN_DATA_FILES] = {0}, all = 0;
    const double window = (double)(wish->seq + 1);
    const double least = window * (wish->validation > 0 ? 2 / wish->validation : 2);
    if (wish->tokens == 0) {
        return KILN_OK;
    }
    KILN_TRY(set_parts(wish, list, part, err));
    for (size_t i = 0; i < list->n; i++) {
        all += part[i];
    }
    for (size_t i = 0; i < list->n; i++) {
        const double share = all > 0 ? (double)wish->tokens * part[i] / all : 0;
        most[i] = (uint64_t)ceil(share > least ? share : least);
    }
    return KILN_OK;
}

static enum kiln_status open_all(const struct kiln_data_wish *wish,
                                 const struct kiln_data_list *list, struct kiln_token_file **files,
                                 char *notice, size_t notice_size, struct kiln_err *err) {
    char path[4300];
    uint64_t most[KILN_DATA_FILES] = {0};
    KILN_TRY(divide(wish, list, most, err));
    for (size_t i = 0; i < list->n; i++) {
        struct kiln_tokenize_report report = {.documents = 0};
        struct kiln_tokenize_options options = wish->options;
        options.report = &report;
        options.most = most[i];
        kiln_token_path(wish->folder, wish->name, i, path, sizeof path);
        KILN_TRY(kiln_open_tokens(list->path[i], path, wish->tokenizer, wish->vocab, &options,
                                  &files[i], err));
        tell(list->path[i], &report, notice, notice_size);
    }
    return KILN_OK;
}

static enum kiln_status mix(const struct kiln_data_wish *wish, const struct kiln_data_list *list,
                            struct kiln_token_file **files, struct kiln_data **out, bool *too_short,
                            struct kiln_err *err) {
    const double *weights = list->weighted ? list->weight : NULL;
    enum kiln_status status =
        kiln_data_mix(files, weights, list->n, wish->seq, wish->seed, wish->validation, out, err);
    *too_short = status != KILN_OK && wish->validation > 0;
    if (*too_short) {
        status = kiln_data_mix(files, weights, list->n, wish->seq, wish->seed, 0.0, out, err);
    }
    return status;
}

enum kiln_status kiln_open_data(const struct kiln_data_wish *wish, struct kiln_data **out,
                                char *notice, size_t notice_size, bool *too_short,
                                struct kiln_err *err) {
    struct kiln_data_list list;
    *out = NULL;
    *too_short = false;
    KILN_TRY(kiln_data_list_parse(wish->data, &list, err));
    struct kiln_token_file **files = kiln_alloc(list.n, sizeof(void *));
    enum kiln_status status = files ? open_all(wish, &list, files, notice, notice_size, err)
                                    : KILN_FAIL(err, KILN_ENOMEM, "data: out of memory");
    if (status == KILN_OK) {
        status = mix(wish, &list, files, out, too_short, err);
    }
    for (size_t i = 0; status != KILN_OK && files && i < list.n; i++) {
        char made[4300]; /* what it was tokenized into: nobody can look for it any more */
        kiln_token_path(wish->folder, wish->name, i, made, sizeof made);
        kiln_err_rename(err, made, list.path[i]);
        kiln_token_file_close(files[i]);
    }
    kiln_free(files);
    kiln_data_list_free(&list);
    return status;
}
