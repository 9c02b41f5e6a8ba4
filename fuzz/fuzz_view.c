/* SPDX-License-Identifier: MIT
 *
 * fuzz_view.c: any bytes as lines of metrics.jsonl, and as trace.json. What is read has steps and
 * finite spans.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report/view_int.h"
#include "train/metrics_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_lines(const char *at, const char *end) {
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *line_end = newline != NULL ? newline : end;
        struct kiln_step_record record;
        (void)kiln_metrics_read(at, (size_t)(line_end - at), &record);
        at = newline != NULL ? newline + 1 : end;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct kiln_trace_spans spans;
    struct kiln_err err;
    char *text = malloc(size); /* its end is an end: reading behind it is found */
    if (text == NULL && size > 0) {
        return 0;
    }
    if (size > 0) {
        memcpy(text, data, size);
    }
    read_lines(text, text + size);
    if (kiln_trace_read(text, size, &spans, &err) == KILN_OK) {
        for (size_t i = 0; i < spans.n; i++) {
            if (!(spans.at[i].start >= 0) || !(spans.at[i].end >= spans.at[i].start) ||
                !isfinite(spans.at[i].end)) {
                abort();
            }
        }
        if (spans.n > KILN_VIEW_SPANS) {
            abort();
        }
        kiln_trace_spans_free(&spans);
    }
    free(text);
    return 0;
}
