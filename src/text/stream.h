/* SPDX-License-Identifier: MIT
 *
 * stream.h: the bytes of a text file from its beginning to its end, gzip and zstd undone, without a
 * byte order mark; UTF-16 and UTF-32 become UTF-8 (encoding.h).
 *
 * Which of the three a file is, its first bytes say, not its name. Files may hold several gzip
 * members or zstd frames one behind the other, as gzip and zstd write them; what ends in the middle
 * of one is an error, as is anything else behind the last, and in UTF-16 and UTF-32 what is no
 * character. Memory is that of the decompressor and a
 * buffer, whatever the size of the file.
 */
#ifndef KILN_TEXT_STREAM_H
#define KILN_TEXT_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

struct kiln_stream;

/* KILN_EIO or KILN_EINPUT name the file. */
KILN_MUST_CHECK enum kiln_status kiln_stream_open(const char *path, struct kiln_stream **out,
                                                  struct kiln_err *err);
/* Up to `room` next bytes; *got is 0 at the end and only there. */
KILN_MUST_CHECK enum kiln_status kiln_stream_read(struct kiln_stream *stream, void *buffer,
                                                  size_t room, size_t *got, struct kiln_err *err);
/* Bytes read so far, and their CRC-32C: of the text, not of the compressed file. */
uint64_t kiln_stream_size(const struct kiln_stream *stream);
uint32_t kiln_stream_crc(const struct kiln_stream *stream);
/* Once something was read: what the text is where it is not plain UTF-8, as a message has it; else
 * NULL. */
const char *kiln_stream_encoding(const struct kiln_stream *stream);
/* Are its bytes not its text: is it compressed, or not plain UTF-8? And how much of the file has
 * been read, from 0 to 1? */
bool kiln_stream_packed(const struct kiln_stream *stream);
double kiln_stream_share(const struct kiln_stream *stream);
void kiln_stream_close(struct kiln_stream *stream);

#endif
