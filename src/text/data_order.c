/* SPDX-License-Identifier: MIT
 *
 * data_order.c: which ids a training sample reads.
 *
 *   ids   0 ............................. cut ................ count
 *         |w0   |w1   |w2   |w3   | rest |v0   |v1   | rest |
 *
 * A window is seq+1 ids, seq apart, so neighbours share one id: the last target of one is the
 * first input of the next. No window reaches across the cut.
 */
#include "base/mem.h"
#include "base/random.h"
#include "text/text_int.h"

struct kiln_data {
    struct kiln_token_file *file;
    size_t seq;
    uint64_t seed;
    size_t begin[2];   /* first id of a split */
    size_t windows[2]; /* windows in it */
};

static bool begins_document(const struct kiln_token_file *file, size_t at) {
    return kiln_token_file_id(file, at) == kiln_token_file_bos(file);
}

/* The document boundary nearest to `target`, no further than `most` away and inside the file;
 * `target` itself when there is none: then a long document is cut. */
static size_t nearest_boundary(const struct kiln_token_file *file, size_t target, size_t most) {
    size_t count = kiln_token_file_count(file);
    for (size_t distance = 0; distance <= most; distance++) {
        if (target > distance && begins_document(file, target - distance)) {
            return target - distance;
        }
        if (target + distance < count && begins_document(file, target + distance)) {
            return target + distance;
        }
    }
    return target;
}

static size_t windows_in(size_t ids, size_t seq) { return ids > 0 ? (ids - 1) / seq : 0; }

static enum kiln_status require_window(const struct kiln_data *data, enum kiln_split split,
                                       size_t ids, struct kiln_err *err) {
    if (data->windows[split] > 0) {
        return KILN_OK;
    }
    return KILN_FAIL(err, KILN_EINPUT,
                     "data %s: %zu of its %zu ids are for %s, a window of --seq %zu needs %zu; "
                     "give more text or a smaller --seq",
                     kiln_token_file_path(data->file), ids, kiln_token_file_count(data->file),
                     split == KILN_TRAIN ? "training" : "validation", data->seq, data->seq + 1);
}

static enum kiln_status divide(struct kiln_data *data, double validation, struct kiln_err *err) {
    size_t count = kiln_token_file_count(data->file);
    size_t cut = count;
    if (validation > 0) {
        size_t held = (size_t)((double)count * validation + 0.5);
        cut = nearest_boundary(data->file, count - held, held / 2);
    }
    data->begin[KILN_VALIDATION] = cut;
    data->windows[KILN_TRAIN] = windows_in(cut, data->seq);
    data->windows[KILN_VALIDATION] = windows_in(count - cut, data->seq);
    KILN_TRY(require_window(data, KILN_TRAIN, cut, err));
    return validation > 0 ? require_window(data, KILN_VALIDATION, count - cut, err) : KILN_OK;
}

enum kiln_status kiln_data_create(struct kiln_token_file *file, size_t seq, uint64_t seed,
                                  double validation, struct kiln_data **out, struct kiln_err *err) {
    *out = NULL;
    KILN_REQUIRE(seq > 0, err, KILN_EUSAGE, "data: --seq 0; a window has at least 1 token");
    KILN_REQUIRE(validation >= 0 && validation <= 0.5, err, KILN_EUSAGE,
                 "data: a share of %g for validation; expected 0 to 0.5", validation);
    KILN_REQUIRE(seq < kiln_token_file_count(file), err, KILN_EINPUT,
                 "data %s: %zu ids, a window of --seq %zu needs %zu; give more text or a smaller "
                 "--seq",
                 kiln_token_file_path(file), kiln_token_file_count(file), seq, seq + 1);
    struct kiln_data *data = kiln_alloc(1, sizeof *data);
    KILN_REQUIRE(data != NULL, err, KILN_ENOMEM, "data: out of memory");
    *data = (struct kiln_data){.file = file, .seq = seq, .seed = seed};
    enum kiln_status status = divide(data, validation, err);
    if (status != KILN_OK) {
        kiln_free(data);
        return status;
    }
    *out = data;
    return KILN_OK;
}

void kiln_data_destroy(struct kiln_data *data) {
    if (data != NULL) {
        kiln_token_file_close(data->file);
        kiln_free(data);
    }
}

const struct kiln_token_file *kiln_data_file(const struct kiln_data *data) { return data->file; }

size_t kiln_data_windows(const struct kiln_data *data, enum kiln_split split) {
    return data->windows[split];
}

void kiln_data_window(const struct kiln_data *data, enum kiln_split split, size_t window,
                      uint32_t *inputs, uint32_t *targets) {
    size_t at = data->begin[split] + window * data->seq;
    kiln_token_file_copy(data->file, at, data->seq, inputs);
    kiln_token_file_copy(data->file, at + 1, data->seq, targets);
}

void kiln_data_window_starts(const struct kiln_data *data, enum kiln_split split, size_t window,
                             uint32_t *starts) {
    size_t at = data->begin[split] + window * data->seq;
    uint32_t start = 0;
    for (size_t i = 0; i < data->seq; i++) {
        start = begins_document(data->file, at + i) ? (uint32_t)i : start;
        starts[i] = start;
    }
}

size_t kiln_data_window_targets(const struct kiln_data *data, enum kiln_split split,
                                size_t window) {
    (void)split;
    (void)window;
    return data->seq;
}

/* The window that a training sample reads. */
static size_t window_of(const struct kiln_data *data, uint64_t sample) {
    uint64_t windows = data->windows[KILN_TRAIN];
    uint64_t epoch = sample / windows;
    /* streams are small numbers: an epoch above them shares no numbers with another use */
    uint64_t stream = KILN_STREAM_DATA + (epoch << 16);
    return (size_t)kiln_random_permute(data->seed, stream, sample % windows, windows);
}

void kiln_data_train(const struct kiln_data *data, uint64_t sample, uint32_t *inputs,
                     uint32_t *targets) {
    kiln_data_window(data, KILN_TRAIN, window_of(data, sample), inputs, targets);
}

void kiln_data_train_starts(const struct kiln_data *data, uint64_t sample, uint32_t *starts) {
    kiln_data_window_starts(data, KILN_TRAIN, window_of(data, sample), starts);
}

size_t kiln_data_train_targets(const struct kiln_data *data, uint64_t sample) {
    return kiln_data_window_targets(data, KILN_TRAIN, window_of(data, sample));
}
