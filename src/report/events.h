/* SPDX-License-Identifier: MIT
 *
 * events.h: records of TensorBoard's event files.
 *
 * A file is a list of records (TensorFlow's TFRecord: tensorflow/core/lib/io/record_writer.h):
 *
 *   uint64  size of data             little-endian
 *   uint32  masked CRC-32C of it     mask(c) = (c >> 15 | c << 17) + 0xa282ead8
 *   byte    data[size]               a protobuf message Event
 *   uint32  masked CRC-32C of data
 *
 * The fields that are written (tensorflow/core/util/event.proto; framework/summary.proto,
 * tensor.proto, tensor_shape.proto, types.proto):
 *
 *   Event            wall_time 1 (double), step 2 (int64), file_version 3 (string), summary 5,
 *                    session_log 7
 *   Summary          value 1, repeated
 *   Summary.Value    tag 1, simple_value 2 (float), tensor 8, metadata 9
 *   SummaryMetadata  plugin_data 1; PluginData: plugin_name 1
 *   TensorProto      dtype 1 (DT_STRING = 7), tensor_shape 2, string_val 8
 *   TensorShapeProto dim 2; Dim: size 1
 *   SessionLog       status 1 (START = 1): a reader forgets what it has of this step and later ones
 */
#ifndef KILN_REPORT_EVENTS_H
#define KILN_REPORT_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

/* One record at a time. Zero it to begin; kiln_event_free it. */
struct kiln_event_bytes {
    unsigned char *at;
    size_t n, room;
    bool failed; /* out of memory: told by kiln_event_end */
};
struct kiln_event {
    struct kiln_event_bytes record; /* what is to be written, after kiln_event_end */
    struct kiln_event_bytes values; /* of its summary */
};
void kiln_event_free(struct kiln_event *event);

/* A record: begin, what it holds, end. The bytes of the one before are gone. */
void kiln_event_begin(struct kiln_event *event, double wall_time, uint64_t step);
void kiln_event_version(struct kiln_event *event); /* of the first record: "brain.Event:2" */
void kiln_event_start(struct kiln_event *event);   /* SessionLog: START */
void kiln_event_scalar(struct kiln_event *event, const char *tag, size_t tag_size, float value);
void kiln_event_text(struct kiln_event *event, const char *tag, const char *text);
/* Errors: KILN_ENOMEM. */
KILN_MUST_CHECK enum kiln_status kiln_event_end(struct kiln_event *event, struct kiln_err *err);

#endif
