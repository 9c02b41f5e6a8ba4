/* SPDX-License-Identifier: MIT
 *
 * tokenize.c: a text file into a token file. The text comes as a stream and the ids are written as
 * they come, some thousands at a time, so memory grows with neither file. What counts and what
 * begins a document is written beside the ids, into files without a name, as soon as some id does
 * not count; it is put behind them at the end.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/mem.h"
#include "text/chat.h"
#include "text/source.h"
#include "text/text_int.h"

enum { BATCH_IDS = 65536, COPY_BYTES = 1 << 16 };
/* Of a text that may be cut: pieces of a long document. */
enum { CUT_PIECE = 1 << 16 };

/* A bitmap that is being written, 64 bits at a time. */
struct bits {
    FILE *file;
    uint64_t word;
    uint64_t n;
};
enum { COUNTS, BEGINS, BITMAPS };

struct job {
    const struct kiln_tokenizer *tok;
    const char *text_path, *token_path;
    const struct kiln_tokenize_options *options;
    struct kiln_source *source;
    struct kiln_durable file;
    struct kiln_encoder *encoder;
    struct kiln_ids ids;
    struct bits bits[BITMAPS];
    bool chat; /* some came: there are bitmaps */
    uint64_t answers, prompts;
    uint64_t bytes; /* of text in the documents, without the markup of JSONL */
    struct kiln_token_header header;
};

/* ---- bitmaps ------------------------------------------------------------------------------------
 */

static enum kiln_status write_failed(const struct job *job, struct kiln_err *err) {
    return KILN_FAIL(err, KILN_EIO, "token file %s: cannot write what counts: %s", job->token_path,
                     strerror(errno));
}

static enum kiln_status add_bits(struct job *job, struct bits *b, bool value, uint64_t n,
                                 struct kiln_err *err) {
    while (n > 0) {
        const uint64_t at = b->n % 64, some = n < 64 - at ? n : 64 - at;
        const uint64_t ones = some == 64 ? UINT64_MAX : (UINT64_C(1) << some) - 1;
        b->word |= value ? ones << at : 0;
        b->n += some;
        n -= some;
        if (b->n % 64 == 0) {
            if (fwrite(&b->word, sizeof b->word, 1, b->file) != 1) {
                return write_failed(job, err);
            }
            b->word = 0;
        }
    }
    return KILN_OK;
}

/* Ids up to the last one have what they have: counted or not, and the first begins a document. */
static enum kiln_status mark(struct job *job, bool counts, bool begins, struct kiln_err *err) {
    const uint64_t all = job->header.count + job->ids.n, n = all - job->bits[COUNTS].n;
    KILN_TRY(add_bits(job, &job->bits[COUNTS], counts, n, err));
    KILN_TRY(add_bits(job, &job->bits[BEGINS], begins, n > 0 && begins, err));
    return add_bits(job, &job->bits[BEGINS], false, all - job->bits[BEGINS].n, err);
}

static enum kiln_status open_bits(struct job *job, struct kiln_err *err) {
    for (int i = 0; i < BITMAPS; i++) {
        char path[4300];
        const int n = snprintf(path, sizeof path, "%s.bits%d", job->token_path, i);
        job->bits[i].file = n < (int)sizeof path ? fopen(path, "w+be") : NULL;
        if (job->bits[i].file == NULL) {
            return write_failed(job, err);
        }
        (void)remove(path); /* it goes when it is closed */
    }
    return KILN_OK;
}

static enum kiln_status append(struct job *job, struct bits *b, struct kiln_err *err) {
    char block[COPY_BYTES];
    size_t n;
    KILN_TRY(b->n % 64 ? add_bits(job, b, false, 64 - b->n % 64, err) : KILN_OK);
    if (fflush(b->file) != 0 || fseeko(b->file, 0, SEEK_SET) != 0) {
        return write_failed(job, err);
    }
    while ((n = fread(block, 1, sizeof block, b->file)) > 0) {
        job->header.bitmaps_crc = kiln_crc32c(job->header.bitmaps_crc, block, n);
        KILN_TRY(kiln_durable_write(&job->file, block, n, err));
    }
    return ferror(b->file) ? write_failed(job, err) : KILN_OK;
}

static enum kiln_status append_bitmaps(struct job *job, struct kiln_err *err) {
    static const unsigned char zeros[8];
    if (!job->chat) {
        return KILN_OK;
    }
    job->header.flags |= KILN_TOKENS_BITMAPS;
    KILN_TRY(kiln_durable_write(&job->file, zeros, kiln_bitmap_gap(&job->header), err));
    KILN_TRY(append(job, &job->bits[COUNTS], err));
    return append(job, &job->bits[BEGINS], err);
}

/* ---- ids ----------------------------------------------------------------------------------------
 */

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

static enum kiln_status write_text(struct job *job, const struct kiln_piece *piece,
                                   struct kiln_err *err) {
    KILN_REQUIRE(kiln_ids_reserve(&job->ids, 1), err, KILN_ENOMEM, "tokenize %s: out of memory",
                 job->text_path);
    if (piece->begins) {
        if (job->header.bos != KILN_NO_ID) {
            job->ids.id[job->ids.n++] = job->header.bos;
        }
        KILN_TRY(mark(job, true, true, err));
        kiln_encoder_begin(job->encoder, piece->text, piece->size);
    } else {
        kiln_encoder_go_on(job->encoder, piece->text, piece->size);
    }
    while (!kiln_encoder_done(job->encoder)) {
        KILN_TRY(kiln_encoder_more(job->encoder, BATCH_IDS, &job->ids, err));
        KILN_TRY(mark(job, true, false, err));
        if (job->ids.n >= BATCH_IDS) {
            KILN_TRY(write_ids(job, err));
        }
    }
    return KILN_OK;
}

/* Prompts and answers are encoded one by one, as they are when the model is asked. */
static enum kiln_status write_chat(struct job *job, const struct kiln_piece *piece,
                                   struct kiln_err *err) {
    const struct kiln_chat *chat = job->options ? job->options->chat : NULL;
    size_t at = 0;
    bool begins = true;
    job->chat = true;
    for (size_t i = 0; i <= 2 * piece->n_counted; i++) {
        const struct kiln_span *span = &piece->counted[i / 2];
        const bool counts = i % 2 == 1;
        const size_t end = counts                     ? span->end
                           : i / 2 < piece->n_counted ? span->begin
                                                      : piece->size;
        const size_t before = job->ids.n;
        KILN_TRY(
            kiln_chat_encode(chat, job->tok, piece->text + at, end - at, at == 0, &job->ids, err));
        *(counts ? &job->answers : &job->prompts) += job->ids.n - before;
        KILN_TRY(mark(job, counts, begins && job->ids.n > before, err));
        begins &= job->ids.n == before;
        at = end;
    }
    return job->ids.n >= BATCH_IDS ? write_ids(job, err) : KILN_OK;
}

static enum kiln_status write_documents(struct job *job, struct kiln_err *err) {
    const uint64_t most = job->options && job->options->most > 0 ? job->options->most : UINT64_MAX;
    struct kiln_piece piece;
    bool more = true;
    while (job->header.count + job->ids.n < most) {
        KILN_TRY(kiln_source_next(job->source, &piece, &more, err));
        if (!more) {
            break;
        }
        job->bytes += piece.size;
        KILN_TRY(piece.chat ? write_chat(job, &piece, err) : write_text(job, &piece, err));
    }
    const struct kiln_stream *stream = kiln_source_stream(job->source);
    const struct kiln_tokenize_report *report = kiln_source_report(job->source);
    KILN_REQUIRE(
        job->header.count + job->ids.n > 0, err, KILN_EINPUT,
        "text %s: %llu bytes and no text in them (%s)", job->text_path,
        (unsigned long long)kiln_stream_size(stream),
        report->bad_lines > 0 ? "every line was left out" : "nothing but blanks and separators");
    KILN_REQUIRE(
        report->unanswered == 0 || report->unanswered < report->documents, err, KILN_EINPUT,
        "text %s: %llu conversations, and no answer in them: nothing says what the model is to "
        "learn; answers are messages of the role that the chat template takes for the model's, "
        "mostly \"assistant\"",
        job->text_path, (unsigned long long)report->unanswered);
    job->header.text_size = kiln_text_is_jsonl(job->text_path)
                                ? job->bytes
                                : kiln_stream_size(stream) - kiln_source_unread(job->source);
    job->header.text_crc = more ? 0 : kiln_stream_crc(stream);
    return write_ids(job, err);
}

/* ---- the file
 * ------------------------------------------------------------------------------------ */

static enum kiln_status write_header(struct job *job, struct kiln_err *err) {
    unsigned char bytes[KILN_TOKEN_HEADER];
    KILN_REQUIRE(fseeko(job->file.stream, 0, SEEK_SET) == 0, err, KILN_EIO,
                 "token file %s: cannot go back to its header: %s", job->token_path,
                 strerror(errno));
    kiln_token_header_write(&job->header, bytes);
    return kiln_durable_write(&job->file, bytes, sizeof bytes, err);
}

static struct kiln_token_header header_of(const struct kiln_tokenizer *tok,
                                          const struct kiln_tokenize_options *options) {
    return (struct kiln_token_header){
        .width = tok->parts.v.n <= 65536 ? 2 : 4,
        .vocab = (uint32_t)tok->parts.v.n,
        .bos = kiln_tokenizer_begin(tok),
        .vocabulary_crc = tok->crc,
        .flags = options != NULL && options->blank_lines ? KILN_TOKENS_BLANK_LINES : 0,
    };
}

static enum kiln_status write_parts(struct job *job, struct kiln_err *err) {
    static const unsigned char no_header[KILN_TOKEN_HEADER];
    KILN_TRY(kiln_durable_write(&job->file, no_header, sizeof no_header, err));
    KILN_TRY(open_bits(job, err));
    KILN_TRY(write_documents(job, err));
    KILN_TRY(append_bitmaps(job, err));
    return write_header(job, err);
}

static enum kiln_status write_file(struct job *job, struct kiln_err *err) {
    KILN_TRY(kiln_durable_open(&job->file, job->token_path, err));
    const enum kiln_status status = write_parts(job, err);
    for (int i = 0; i < BITMAPS; i++) {
        if (job->bits[i].file) {
            (void)fclose(job->bits[i].file);
        }
    }
    if (status != KILN_OK) {
        kiln_durable_abort(&job->file);
        return status;
    }
    return kiln_durable_commit(&job->file, err);
}

static void report(const struct job *job) {
    if (job->options && job->options->report) {
        *job->options->report = *kiln_source_report(job->source);
        job->options->report->answers = job->answers;
        job->options->report->prompts = job->prompts;
    }
}

enum kiln_status kiln_tokenize_file(const struct kiln_tokenizer *tok, const char *text_path,
                                    const char *token_path,
                                    const struct kiln_tokenize_options *options,
                                    struct kiln_err *err) {
    struct job job = {
        .tok = tok, .text_path = text_path, .token_path = token_path, .options = options};
    const struct kiln_source_options how = {
        .tokenize = options, .tok = tok, .piece = options && options->most > 0 ? CUT_PIECE : 0};
    KILN_TRY(kiln_source_open(text_path, &how, &job.source, err));
    job.header = header_of(tok, options);
    enum kiln_status status = kiln_encoder_create(tok, true, &job.encoder, err);
    if (status == KILN_OK) {
        status = write_file(&job, err);
    }
    report(&job);
    kiln_encoder_destroy(job.encoder);
    kiln_ids_free(&job.ids);
    kiln_source_close(job.source);
    return status;
}

bool kiln_token_file_of(const struct kiln_token_file *file, const struct kiln_tokenizer *tok) {
    const struct kiln_token_header *h = kiln_token_file_header(file);
    const struct kiln_token_header mine = header_of(tok, NULL);
    return h->vocab == mine.vocab && h->vocabulary_crc == mine.vocabulary_crc;
}
