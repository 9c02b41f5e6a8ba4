/* SPDX-License-Identifier: MIT
 *
 * tokenize.c: a text file into a token file. The text is mapped and the ids are written as they
 * come, some thousands at a time, so memory does not grow with either file.
 */
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/mem.h"
#include "text/text_int.h"
#include "text/utf8.h"

enum { BATCH_IDS = 65536, FLAG_BLANK_LINES = 1 };

struct job {
    const struct kiln_tokenizer *tok;
    const char *text_path, *token_path;
    struct kiln_map text;
    struct kiln_durable file;
    struct kiln_encoder *encoder;
    struct kiln_ids ids;
    struct kiln_token_header header;
};

static enum kiln_status write_ids(struct job *job, struct kiln_err *err) {
    size_t n = job->ids.n;
    if (job->header.width == 2) {
        /* in place: the narrow id i lies before all ids still to be read */
        unsigned char *bytes = (unsigned char *)job->ids.id;
        for (size_t i = 0; i < n; i++) {
            uint16_t narrow = (uint16_t)job->ids.id[i];
            memcpy(bytes + 2 * i, &narrow, 2);
        }
    }
    job->header.count += n;
    job->ids.n = 0;
    return kiln_durable_write(&job->file, job->ids.id, n * job->header.width, err);
}

static enum kiln_status write_document(struct job *job, const char *text, size_t size,
                                       struct kiln_err *err) {
    KILN_REQUIRE(kiln_ids_reserve(&job->ids, 1), err, KILN_ENOMEM, "tokenize %s: out of memory",
                 job->text_path);
    if (job->header.bos != KILN_NO_ID) {
        job->ids.id[job->ids.n++] = job->header.bos;
    }
    kiln_encoder_begin(job->encoder, text, size);
    while (!kiln_encoder_done(job->encoder)) {
        KILN_TRY(kiln_encoder_more(job->encoder, BATCH_IDS, &job->ids, err));
        if (job->ids.n >= BATCH_IDS) {
            KILN_TRY(write_ids(job, err));
        }
    }
    return KILN_OK;
}

static enum kiln_status write_documents(struct job *job, struct kiln_err *err) {
    struct kiln_documents documents;
    const char *text;
    size_t size;
    kiln_documents_init(&documents, (const char *)job->text.data, job->text.size, KILN_ENDOFTEXT,
                        (job->header.flags & FLAG_BLANK_LINES) != 0);
    while (kiln_documents_next(&documents, &text, &size)) {
        KILN_TRY(write_document(job, text, size, err));
    }
    return write_ids(job, err);
}

static enum kiln_status write_header(struct job *job, struct kiln_err *err) {
    unsigned char bytes[KILN_TOKEN_HEADER];
    KILN_REQUIRE(fseeko(job->file.stream, 0, SEEK_SET) == 0, err, KILN_EIO,
                 "token file %s: cannot go back to its header: %s", job->token_path,
                 strerror(errno));
    kiln_token_header_write(&job->header, bytes);
    return kiln_durable_write(&job->file, bytes, sizeof bytes, err);
}

static struct kiln_token_header header_of(const struct kiln_tokenizer *tok,
                                          const struct kiln_map *text,
                                          const struct kiln_tokenize_options *options) {
    return (struct kiln_token_header){
        .width = tok->parts.v.n <= 65536 ? 2 : 4,
        .vocab = (uint32_t)tok->parts.v.n,
        .bos = kiln_tokenizer_begin(tok),
        .text_size = text->size,
        .text_crc = kiln_crc32c(0, text->data, text->size),
        .vocabulary_crc = tok->crc,
        .flags = options != NULL && options->blank_lines ? FLAG_BLANK_LINES : 0,
    };
}

/* The text is looked through before anything is created. */
static enum kiln_status require_text(const struct job *job, struct kiln_err *err) {
    struct kiln_documents documents;
    const char *text;
    size_t size;
    kiln_documents_init(&documents, (const char *)job->text.data, job->text.size, KILN_ENDOFTEXT,
                        false);
    KILN_REQUIRE(kiln_documents_next(&documents, &text, &size), err, KILN_EINPUT,
                 "text %s: %zu bytes and no text in them (nothing but blanks and separators)",
                 job->text_path, job->text.size);
    return KILN_OK;
}

static enum kiln_status write_file(struct job *job, struct kiln_err *err) {
    static const unsigned char no_header[KILN_TOKEN_HEADER];
    KILN_TRY(kiln_durable_open(&job->file, job->token_path, err));
    enum kiln_status status = kiln_durable_write(&job->file, no_header, sizeof no_header, err);
    if (status == KILN_OK) {
        status = write_documents(job, err);
    }
    if (status == KILN_OK) {
        status = write_header(job, err);
    }
    if (status != KILN_OK) {
        kiln_durable_abort(&job->file);
        return status;
    }
    return kiln_durable_commit(&job->file, err);
}

enum kiln_status kiln_tokenize_file(const struct kiln_tokenizer *tok, const char *text_path,
                                    const char *token_path,
                                    const struct kiln_tokenize_options *options,
                                    struct kiln_err *err) {
    struct job job = {.tok = tok, .text_path = text_path, .token_path = token_path};
    KILN_TRY(kiln_map_open(&job.text, text_path, err));
    enum kiln_status status = require_text(&job, err);
    if (status == KILN_OK) {
        job.header = header_of(tok, &job.text, options);
        job.header.bad_bytes = kiln_utf8_bad_bytes((const char *)job.text.data, job.text.size);
        status = kiln_encoder_create(tok, true, &job.encoder, err);
    }
    if (status == KILN_OK) {
        status = write_file(&job, err);
    }
    kiln_encoder_destroy(job.encoder);
    kiln_ids_free(&job.ids);
    kiln_map_close(&job.text);
    return status;
}

bool kiln_token_file_of(const struct kiln_token_file *file, const struct kiln_tokenizer *tok) {
    const struct kiln_token_header *h = kiln_token_file_header(file);
    struct kiln_map nothing = {0};
    struct kiln_token_header mine = header_of(tok, &nothing, NULL);
    return h->vocab == mine.vocab && h->vocabulary_crc == mine.vocabulary_crc;
}

bool kiln_token_file_made_from(const struct kiln_token_file *file, const struct kiln_tokenizer *tok,
                               const char *text_path, const struct kiln_tokenize_options *options) {
    struct kiln_map text;
    const struct kiln_token_header *h = kiln_token_file_header(file);
    if (h->text_size == 0 || kiln_map_open(&text, text_path, NULL) != KILN_OK) {
        return false;
    }
    bool same = h->text_size == text.size;
    if (same) {
        struct kiln_token_header now = header_of(tok, &text, options);
        same =
            h->text_crc == now.text_crc && h->flags == now.flags && kiln_token_file_of(file, tok);
    }
    kiln_map_close(&text);
    return same;
}
