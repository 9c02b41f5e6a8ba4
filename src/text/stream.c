/* SPDX-License-Identifier: MIT */
#include "text/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "text/encoding.h"

enum { INPUT_BYTES = 1 << 16, MAGIC_BYTES = 4, GZIP_WINDOW = 15 + 16 };

enum format { PLAIN, GZIP, ZSTD };

struct kiln_stream {
    char *path;
    int fd;
    enum format format;
    unsigned char *input; /* [INPUT_BYTES]: bytes at..n of the file are still to be taken */
    size_t at, n;
    bool file_ended;
    bool inside; /* of a member or frame that is not finished */
    z_stream gzip;
    bool gzip_open;
    ZSTD_DStream *zstd;
    bool begun;
    struct kiln_encoding encoding;
    /* Bytes that are not text yet: 0..n_bytes of bytes[INPUT_BYTES]; what they became, to be given
     * out: text_at..n_text of text[2 * INPUT_BYTES]. Of UTF-8 only the beginning goes this way. */
    unsigned char *bytes;
    char *text;
    size_t n_bytes, text_at, n_text;
    uint64_t converted; /* bytes, the mark included */
    uint64_t size;
    uint32_t crc;
};

/* ---- the file ------------------------------------------------------------------------------- */

/* More of the file behind what is left of it; nothing where it has ended. */
static enum kiln_status fill(struct kiln_stream *s, struct kiln_err *err) {
    memmove(s->input, s->input + s->at, s->n - s->at);
    s->n -= s->at;
    s->at = 0;
    while (!s->file_ended && s->n < INPUT_BYTES) {
        const ssize_t got = read(s->fd, s->input + s->n, INPUT_BYTES - s->n);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        KILN_REQUIRE(got >= 0, err, KILN_EIO, "text %s: cannot read it: %s", s->path,
                     strerror(errno));
        s->file_ended = got == 0;
        s->n += (size_t)got;
    }
    return KILN_OK;
}

static enum kiln_status want_input(struct kiln_stream *s, struct kiln_err *err) {
    return s->at == s->n ? fill(s, err) : KILN_OK;
}

/* ---- formats -------------------------------------------------------------------------------- */

static bool is_gzip(const unsigned char *bytes, size_t n) {
    return n >= 2 && bytes[0] == 0x1F && bytes[1] == 0x8B;
}

/* A frame, or one to be skipped (RFC 8878, 3.1). */
static bool is_zstd(const unsigned char *bytes, size_t n) {
    uint32_t magic;
    if (n < MAGIC_BYTES) {
        return false;
    }
    memcpy(&magic, bytes, sizeof magic);
    return magic == ZSTD_MAGICNUMBER ||
           (magic & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START;
}

static enum kiln_status cut_short(const struct kiln_stream *s, const char *what,
                                  struct kiln_err *err) {
    return KILN_FAIL(err, KILN_EINPUT,
                     "text %s: its %s data ends in the middle, after %llu bytes of text; the file "
                     "was cut short: copy it again",
                     s->path, what, (unsigned long long)s->size);
}

static enum kiln_status read_plain(struct kiln_stream *s, unsigned char *to, size_t room,
                                   size_t *got, struct kiln_err *err) {
    KILN_TRY(want_input(s, err));
    *got = s->n - s->at < room ? s->n - s->at : room;
    memcpy(to, s->input + s->at, *got);
    s->at += *got;
    return KILN_OK;
}

/* Where a member or frame has ended: does another one follow? */
static enum kiln_status begin_next(struct kiln_stream *s, struct kiln_err *err) {
    if (s->n - s->at < MAGIC_BYTES) {
        KILN_TRY(fill(s, err));
    }
    const unsigned char *bytes = s->input + s->at;
    const size_t n = s->n - s->at;
    if (n == 0) {
        return KILN_OK;
    }
    const bool follows = s->format == GZIP ? is_gzip(bytes, n) : is_zstd(bytes, n);
    KILN_REQUIRE(follows, err, KILN_EINPUT,
                 "text %s: behind its %s data, after %llu bytes of text, come bytes that are none",
                 s->path, s->format == GZIP ? "gzip" : "zstd", (unsigned long long)s->size);
    s->inside = true;
    if (s->format == GZIP) {
        KILN_REQUIRE(inflateReset(&s->gzip) == Z_OK, err, KILN_EINTERNAL, "text %s: zlib", s->path);
    }
    return KILN_OK;
}

static enum kiln_status read_gzip(struct kiln_stream *s, unsigned char *to, size_t room,
                                  size_t *got, struct kiln_err *err) {
    s->gzip.next_in = s->input + s->at;
    s->gzip.avail_in = (uInt)(s->n - s->at);
    s->gzip.next_out = to;
    s->gzip.avail_out = (uInt)room;
    const int result = inflate(&s->gzip, Z_NO_FLUSH);
    *got = room - s->gzip.avail_out;
    s->at = s->n - s->gzip.avail_in;
    s->inside = result != Z_STREAM_END;
    KILN_REQUIRE(result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR, err,
                 KILN_EINPUT, "text %s: its gzip data is damaged after %llu bytes of text: %s",
                 s->path, (unsigned long long)s->size,
                 s->gzip.msg ? s->gzip.msg : "no valid stream");
    return KILN_OK;
}

static enum kiln_status read_zstd(struct kiln_stream *s, unsigned char *to, size_t room,
                                  size_t *got, struct kiln_err *err) {
    ZSTD_inBuffer in = {s->input, s->n, s->at};
    ZSTD_outBuffer out = {to, room, 0};
    const size_t result = ZSTD_decompressStream(s->zstd, &out, &in);
    KILN_REQUIRE(!ZSTD_isError(result), err, KILN_EINPUT,
                 "text %s: its zstd data is damaged after %llu bytes of text: %s", s->path,
                 (unsigned long long)s->size, ZSTD_getErrorName(result));
    *got = out.pos;
    s->at = in.pos;
    s->inside = result != 0;
    return KILN_OK;
}

/* Until something comes out or the file has ended. */
static enum kiln_status read_packed(struct kiln_stream *s, unsigned char *to, size_t room,
                                    size_t *got, struct kiln_err *err) {
    for (;;) {
        if (!s->inside) {
            KILN_TRY(begin_next(s, err));
            if (!s->inside) {
                return KILN_OK;
            }
        }
        KILN_TRY(want_input(s, err));
        const bool no_more = s->at == s->n;
        KILN_TRY(s->format == GZIP ? read_gzip(s, to, room, got, err)
                                   : read_zstd(s, to, room, got, err));
        if (*got > 0) {
            return KILN_OK;
        }
        if (no_more && s->inside) {
            return cut_short(s, s->format == GZIP ? "gzip" : "zstd", err);
        }
    }
}

/* The next bytes of what is in the file, whatever it is. */
static enum kiln_status read_unpacked(struct kiln_stream *s, void *to, size_t room, size_t *got,
                                      struct kiln_err *err) {
    *got = 0;
    return s->format == PLAIN ? read_plain(s, to, room, got, err)
                              : read_packed(s, to, room, got, err);
}

/* ---- encodings ------------------------------------------------------------------------------ */

/* More bytes behind those that are there, up to `most`; *got is 0 at the end. */
static enum kiln_status more_bytes(struct kiln_stream *s, size_t most, size_t *got,
                                   struct kiln_err *err) {
    KILN_TRY(read_unpacked(s, s->bytes + s->n_bytes, most - s->n_bytes, got, err));
    s->n_bytes += *got;
    return KILN_OK;
}

/* Look at the beginning, and drop the mark. */
static enum kiln_status begin(struct kiln_stream *s, struct kiln_err *err) {
    size_t got = 1;
    while (got > 0 && s->n_bytes < KILN_ENCODING_LOOK) {
        KILN_TRY(more_bytes(s, KILN_ENCODING_LOOK, &got, err));
    }
    s->encoding = kiln_encoding_of(s->bytes, s->n_bytes);
    s->converted = s->encoding.mark;
    s->n_bytes -= s->encoding.mark;
    memmove(s->bytes, s->bytes + s->encoding.mark, s->n_bytes);
    if (s->encoding.unit == 1) {
        memcpy(s->text, s->bytes, s->n_bytes);
        s->n_text = s->n_bytes;
        s->n_bytes = 0;
    }
    s->begun = true;
    return KILN_OK;
}

static enum kiln_status not_a_character(const struct kiln_stream *s, const char *what,
                                        struct kiln_err *err) {
    return KILN_FAIL(err, KILN_EINPUT,
                     "text %s: %s%s, and at byte %llu %s; leave such places out: "
                     "iconv -c -f %s -t UTF-8 TEXT >NEW",
                     s->path, s->encoding.name,
                     s->encoding.mark > 0 ? "" : " by its zeros, without a byte order mark",
                     (unsigned long long)s->converted, what, s->encoding.iconv);
}

/* Some text from units of 2 or 4 bytes; none at the end. */
static enum kiln_status convert(struct kiln_stream *s, struct kiln_err *err) {
    size_t got = 1, taken = 0;
    s->text_at = s->n_text = 0;
    while (s->n_text == 0 && got > 0) {
        if (s->n_bytes < INPUT_BYTES) {
            KILN_TRY(more_bytes(s, INPUT_BYTES, &got, err));
        }
        const bool right =
            kiln_encoding_convert(&s->encoding, s->bytes, s->n_bytes, &taken, s->text, &s->n_text);
        s->converted += taken;
        s->n_bytes -= taken;
        memmove(s->bytes, s->bytes + taken, s->n_bytes);
        if (!right && s->n_text == 0) {
            return not_a_character(
                s,
                s->encoding.unit == 2 ? "half a surrogate pair" : "a number that is no character",
                err);
        }
    }
    return s->n_text == 0 && s->n_bytes > 0
               ? not_a_character(s, "it ends in the middle of a character", err)
               : KILN_OK;
}

static enum kiln_status read_text(struct kiln_stream *s, void *to, size_t room, size_t *got,
                                  struct kiln_err *err) {
    KILN_TRY(s->begun ? KILN_OK : begin(s, err));
    if (s->encoding.unit > 1 && s->text_at == s->n_text) {
        KILN_TRY(convert(s, err));
    }
    *got = s->n_text - s->text_at < room ? s->n_text - s->text_at : room;
    if (*got == 0 && s->encoding.unit == 1) {
        return read_unpacked(s, to, room, got, err);
    }
    memcpy(to, s->text + s->text_at, *got);
    s->text_at += *got;
    return KILN_OK;
}

/* ---- the stream ----------------------------------------------------------------------------- */

enum kiln_status kiln_stream_read(struct kiln_stream *s, void *buffer, size_t room, size_t *got,
                                  struct kiln_err *err) {
    *got = 0;
    KILN_TRY(read_text(s, buffer, room < INT32_MAX ? room : INT32_MAX, got, err));
    s->crc = kiln_crc32c(s->crc, buffer, *got);
    s->size += *got;
    return KILN_OK;
}

static enum kiln_status open_file(struct kiln_stream *s, const char *path, struct kiln_err *err) {
    s->path = kiln_strdup(path);
    s->input = kiln_alloc(INPUT_BYTES, 1);
    s->bytes = kiln_alloc(INPUT_BYTES, 1);
    s->text = kiln_alloc(INPUT_BYTES, 2);
    KILN_REQUIRE(s->path && s->input && s->bytes && s->text, err, KILN_ENOMEM,
                 "text %s: out of memory", path);
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    KILN_REQUIRE(s->fd >= 0, err, KILN_EIO, "text %s: cannot open it: %s", path, strerror(errno));
    return fill(s, err);
}

static enum kiln_status open_format(struct kiln_stream *s, struct kiln_err *err) {
    s->format = is_gzip(s->input, s->n) ? GZIP : is_zstd(s->input, s->n) ? ZSTD : PLAIN;
    s->inside = s->format != PLAIN;
    if (s->format == GZIP) {
        s->gzip_open = inflateInit2(&s->gzip, GZIP_WINDOW) == Z_OK;
    } else if (s->format == ZSTD) {
        s->zstd = ZSTD_createDStream();
    }
    KILN_REQUIRE(s->format == PLAIN || s->gzip_open || s->zstd, err, KILN_ENOMEM,
                 "text %s: out of memory for a decompressor", s->path);
    return KILN_OK;
}

enum kiln_status kiln_stream_open(const char *path, struct kiln_stream **out,
                                  struct kiln_err *err) {
    *out = NULL;
    struct kiln_stream *s = kiln_alloc(1, sizeof *s);
    KILN_REQUIRE(s, err, KILN_ENOMEM, "text %s: out of memory", path);
    s->fd = -1;
    enum kiln_status status = open_file(s, path, err);
    if (status == KILN_OK) {
        status = open_format(s, err);
    }
    if (status != KILN_OK) {
        kiln_stream_close(s);
        return status;
    }
    *out = s;
    return KILN_OK;
}

uint64_t kiln_stream_size(const struct kiln_stream *s) { return s->size; }
const char *kiln_stream_encoding(const struct kiln_stream *s) { return s->encoding.name; }
bool kiln_stream_packed(const struct kiln_stream *s) {
    return s->format != PLAIN || s->encoding.name != NULL ||
           (!s->begun && kiln_encoding_of(s->input, s->n).name != NULL);
}
double kiln_stream_share(const struct kiln_stream *s) {
    struct stat st;
    const off_t at = lseek(s->fd, 0, SEEK_CUR);
    return fstat(s->fd, &st) == 0 && st.st_size > 0 && at >= (off_t)(s->n - s->at)
               ? (double)(at - (off_t)(s->n - s->at)) / (double)st.st_size
               : 1;
}
uint32_t kiln_stream_crc(const struct kiln_stream *s) { return s->crc; }

void kiln_stream_close(struct kiln_stream *s) {
    if (s == NULL) {
        return;
    }
    if (s->gzip_open) {
        inflateEnd(&s->gzip);
    }
    ZSTD_freeDStream(s->zstd);
    if (s->fd >= 0) {
        close(s->fd);
    }
    kiln_free(s->text);
    kiln_free(s->bytes);
    kiln_free(s->input);
    kiln_free(s->path);
    kiln_free(s);
}
