/* SPDX-License-Identifier: MIT */
#include "report/events.h"

#include <string.h>

#include "base/crc32c.h"
#include "base/mem.h"

enum { HEAD = 12, TAIL = 4 };                             /* of a record around its data */
enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 }; /* protobuf's wire types */

/* ---- bytes ------------------------------------------------------------------------------------
 */

void kiln_event_free(struct kiln_event *event) {
    kiln_free(event->record.at);
    kiln_free(event->values.at);
    *event = (struct kiln_event){.record.n = 0};
}

static void put(struct kiln_event_bytes *e, const void *bytes, size_t size) {
    if (!e->failed && e->n + size > e->room) {
        const size_t room = 2 * (e->n + size) + 1024;
        unsigned char *grown = kiln_realloc(e->at, e->room, room, 1);
        e->failed = grown == NULL;
        e->at = grown != NULL ? grown : e->at;
        e->room = grown != NULL ? room : e->room;
    }
    if (!e->failed) {
        memcpy(e->at + e->n, bytes, size);
        e->n += size;
    }
}

static void little(unsigned char *out, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; i++) {
        out[i] = (unsigned char)(value >> 8 * i);
    }
}

static size_t varint_size(uint64_t value) {
    size_t n = 1;
    for (; value >= 0x80; value >>= 7) {
        n++;
    }
    return n;
}

static void put_varint(struct kiln_event_bytes *e, uint64_t value) {
    unsigned char bytes[10];
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) {
        bytes[n++] = (unsigned char)(value | 0x80);
    }
    bytes[n++] = (unsigned char)value;
    put(e, bytes, n);
}

static void put_fixed(struct kiln_event_bytes *e, unsigned field, unsigned type, uint64_t bits) {
    unsigned char bytes[8];
    put_varint(e, field << 3 | type);
    little(bytes, bits, sizeof bytes);
    put(e, bytes, type == FIXED64 ? 8 : 4);
}

static void put_count(struct kiln_event_bytes *e, unsigned field, uint64_t value) {
    put_varint(e, field << 3 | VARINT);
    put_varint(e, value);
}

/* A string, or the head of a message of so many bytes that follow. */
static void put_size(struct kiln_event_bytes *e, unsigned field, size_t size) {
    put_varint(e, field << 3 | BYTES);
    put_varint(e, size);
}

static void put_string(struct kiln_event_bytes *e, unsigned field, const char *text, size_t size) {
    put_size(e, field, size);
    put(e, text, size);
}

/* Bytes of a field of this many bytes; numbers of fields are below 16 here. */
static size_t field_size(size_t size) { return 1 + varint_size(size) + size; }

/* ---- records ----------------------------------------------------------------------------------
 */

static uint32_t masked(const unsigned char *data, size_t size) {
    const uint32_t crc = kiln_crc32c(0, data, size);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

void kiln_event_begin(struct kiln_event *event, double wall_time, uint64_t step) {
    static const unsigned char head[HEAD] = {0};
    struct kiln_event_bytes *e = &event->record;
    uint64_t bits;
    e->n = event->values.n = 0;
    e->failed = event->values.failed = false;
    put(e, head, sizeof head);
    memcpy(&bits, &wall_time, sizeof bits);
    put_fixed(e, 1, FIXED64, bits);
    if (step > 0) { /* proto3 leaves out what is 0 */
        put_count(e, 2, step);
    }
}

void kiln_event_version(struct kiln_event *event) {
    static const char version[] = "brain.Event:2";
    put_string(&event->record, 3, version, sizeof version - 1);
}

void kiln_event_start(struct kiln_event *event) {
    put_size(&event->record, 7, 2);
    put_count(&event->record, 1, 1);
}

void kiln_event_scalar(struct kiln_event *event, const char *tag, size_t tag_size, float value) {
    struct kiln_event_bytes *e = &event->values;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_size(e, 1, field_size(tag_size) + 1 + sizeof bits);
    put_string(e, 1, tag, tag_size);
    put_fixed(e, 2, FIXED32, bits);
}

void kiln_event_text(struct kiln_event *event, const char *tag, const char *text) {
    static const char plugin[] = "text";
    struct kiln_event_bytes *e = &event->values;
    const size_t tag_size = strlen(tag), text_size = strlen(text);
    const size_t name = field_size(sizeof plugin - 1), metadata = field_size(name);
    const size_t dim = 1 + 1, shape = field_size(dim);
    const size_t tensor = 1 + 1 + field_size(shape) + field_size(text_size);
    put_size(e, 1, field_size(tag_size) + field_size(tensor) + field_size(metadata));
    put_string(e, 1, tag, tag_size);
    put_size(e, 8, tensor);
    put_count(e, 1, 7);
    put_size(e, 2, shape);
    put_size(e, 2, dim);
    put_count(e, 1, 1);
    put_string(e, 8, text, text_size);
    put_size(e, 9, metadata);
    put_size(e, 1, name);
    put_string(e, 1, plugin, sizeof plugin - 1);
}

enum kiln_status kiln_event_end(struct kiln_event *event, struct kiln_err *err) {
    struct kiln_event_bytes *e = &event->record;
    unsigned char tail[TAIL] = {0};
    if (event->values.n > 0) {
        put_size(e, 5, event->values.n);
        put(e, event->values.at, event->values.n);
    }
    KILN_REQUIRE(!e->failed && !event->values.failed, err, KILN_ENOMEM,
                 "event file: no memory for a record");
    little(e->at, e->n - HEAD, 8);
    little(e->at + 8, masked(e->at, 8), 4);
    little(tail, masked(e->at + HEAD, e->n - HEAD), TAIL);
    put(e, tail, sizeof tail);
    KILN_REQUIRE(!e->failed, err, KILN_ENOMEM, "event file: no memory for a record");
    return KILN_OK;
}
