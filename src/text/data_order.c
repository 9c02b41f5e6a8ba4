/* SPDX-License-Identifier: MIT
 *
 * data_order.c: which ids a training sample reads.
 *
 *   ids of a file   0 ............................. cut ................ count
 *                   |w0   |w1   |w2   |w3   | rest |v0   |v1   | rest |
 *
 * A window is seq+1 ids, seq apart, so neighbours share one id: the last target of one is the
 * first input of the next. No window reaches across the cut, or into another file.
 *
 * Several files take turns in rounds. In a round file f has `share` samples, shuffled among those
 * of the others; its j-th sample of round r is number r * share + j of that file, which goes
 * through all its windows, shuffled, before one comes again. So every sample is a pure function of
 * the seed and its number, and no counter has to be kept.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/random.h"
#include "text/text_int.h"

struct part {
    struct kiln_token_file *file;
    size_t begin[2];   /* first id of a split */
    size_t windows[2]; /* windows in it */
    uint64_t share;    /* samples in a round */
};

struct kiln_data {
    struct part *parts;
    size_t n_parts;
    size_t seq;
    uint64_t seed;
    uint64_t round;    /* samples: the sum of all shares */
    size_t windows[2]; /* of all files */
};

/* ---- splits ------------------------------------------------------------------------------------
 */

/* The document boundary nearest to `target`, no further than `most` away and inside the file;
 * `target` itself when there is none: then a long document is cut. */
static size_t nearest_boundary(const struct kiln_token_file *file, size_t target, size_t most) {
    size_t count = kiln_token_file_count(file);
    for (size_t distance = 0; distance <= most; distance++) {
        if (target > distance && kiln_token_file_begins(file, target - distance)) {
            return target - distance;
        }
        if (target + distance < count && kiln_token_file_begins(file, target + distance)) {
            return target + distance;
        }
    }
    return target;
}

static size_t windows_in(size_t ids, size_t seq) { return ids > 0 ? (ids - 1) / seq : 0; }

static enum kiln_status require_window(const struct part *part, enum kiln_split split, size_t ids,
                                       size_t seq, struct kiln_err *err) {
    if (part->windows[split] > 0) {
        return KILN_OK;
    }
    return KILN_FAIL(err, KILN_EINPUT,
                     "data %s: %zu of its %zu ids are for %s, a window of --seq %zu needs %zu; "
                     "give more text or a smaller --seq",
                     kiln_token_file_path(part->file), ids, kiln_token_file_count(part->file),
                     split == KILN_TRAIN ? "training" : "validation", seq, seq + 1);
}

static enum kiln_status divide(struct part *part, size_t seq, double validation,
                               struct kiln_err *err) {
    size_t count = kiln_token_file_count(part->file);
    size_t cut = count;
    KILN_REQUIRE(seq < count, err, KILN_EINPUT,
                 "data %s: %zu ids, a window of --seq %zu needs %zu; give more text or a smaller "
                 "--seq",
                 kiln_token_file_path(part->file), count, seq, seq + 1);
    if (validation > 0) {
        size_t held = (size_t)((double)count * validation + 0.5);
        cut = nearest_boundary(part->file, count - held, held / 2);
    }
    part->begin[KILN_VALIDATION] = cut;
    part->windows[KILN_TRAIN] = windows_in(cut, seq);
    part->windows[KILN_VALIDATION] = windows_in(count - cut, seq);
    KILN_TRY(require_window(part, KILN_TRAIN, cut, seq, err));
    return validation > 0 ? require_window(part, KILN_VALIDATION, count - cut, seq, err) : KILN_OK;
}

/* ---- shares ------------------------------------------------------------------------------------
 */

static uint64_t common_divisor(uint64_t a, uint64_t b) {
    while (b != 0) {
        const uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Shares of a round from weights; all 0: every file once through while the others are. */
static enum kiln_status set_shares(struct kiln_data *data, const double *weights,
                                   struct kiln_err *err) {
    uint64_t divisor = 0;
    for (size_t i = 0; i < data->n_parts; i++) {
        struct part *part = &data->parts[i];
        const double weight = weights ? weights[i] : 0;
        KILN_REQUIRE(weight >= 0 && weight <= KILN_WEIGHT_MOST, err, KILN_EUSAGE,
                     "data %s: a weight of %g; expected 0.001 to %d",
                     kiln_token_file_path(part->file), weight, KILN_WEIGHT_MOST);
        part->share = weight > 0 ? (uint64_t)llround(weight * 1000) : part->windows[KILN_TRAIN];
        KILN_REQUIRE(part->share > 0, err, KILN_EUSAGE,
                     "data %s: a weight of %g is less than 0.001", kiln_token_file_path(part->file),
                     weight);
        divisor = common_divisor(divisor, part->share);
    }
    for (size_t i = 0; i < data->n_parts; i++) {
        data->parts[i].share /= divisor;
        data->round += data->parts[i].share;
    }
    return KILN_OK;
}

/* ---- the data ----------------------------------------------------------------------------------
 */

static enum kiln_status set_up(struct kiln_data *data, struct kiln_token_file *const *files,
                               const double *weights, double validation, struct kiln_err *err) {
    data->parts = kiln_alloc(data->n_parts, sizeof *data->parts);
    KILN_REQUIRE(data->parts, err, KILN_ENOMEM, "data: out of memory");
    for (size_t i = 0; i < data->n_parts; i++) {
        struct part *part = &data->parts[i];
        part->file = files[i];
        KILN_TRY(divide(part, data->seq, validation, err));
        data->windows[KILN_TRAIN] += part->windows[KILN_TRAIN];
        data->windows[KILN_VALIDATION] += part->windows[KILN_VALIDATION];
    }
    return set_shares(data, weights, err);
}

enum kiln_status kiln_data_mix(struct kiln_token_file *const *files, const double *weights,
                               size_t n, size_t seq, uint64_t seed, double validation,
                               struct kiln_data **out, struct kiln_err *err) {
    *out = NULL;
    KILN_REQUIRE(n > 0, err, KILN_EUSAGE, "data: no file");
    KILN_REQUIRE(seq > 0, err, KILN_EUSAGE, "data: --seq 0; a window has at least 1 token");
    KILN_REQUIRE(validation >= 0 && validation <= 0.5, err, KILN_EUSAGE,
                 "data: a share of %g for validation; expected 0 to 0.5", validation);
    struct kiln_data *data = kiln_alloc(1, sizeof *data);
    KILN_REQUIRE(data != NULL, err, KILN_ENOMEM, "data: out of memory");
    *data = (struct kiln_data){.n_parts = n, .seq = seq, .seed = seed};
    enum kiln_status status = set_up(data, files, weights, validation, err);
    if (status != KILN_OK) {
        kiln_free(data->parts);
        kiln_free(data);
        return status;
    }
    *out = data;
    return KILN_OK;
}

enum kiln_status kiln_data_create(struct kiln_token_file *file, size_t seq, uint64_t seed,
                                  double validation, struct kiln_data **out, struct kiln_err *err) {
    return kiln_data_mix(&file, NULL, 1, seq, seed, validation, out, err);
}

void kiln_data_destroy(struct kiln_data *data) {
    if (data != NULL) {
        for (size_t i = 0; i < data->n_parts; i++) {
            kiln_token_file_close(data->parts[i].file);
        }
        kiln_free(data->parts);
        kiln_free(data);
    }
}

size_t kiln_data_files(const struct kiln_data *data) { return data->n_parts; }
const struct kiln_token_file *kiln_data_file(const struct kiln_data *data, size_t i) {
    return data->parts[i].file;
}

size_t kiln_data_windows(const struct kiln_data *data, enum kiln_split split) {
    return data->windows[split];
}

/* ---- windows ------------------------------------------------------------------------------------
 */

/* seq+1 ids of a file. */
struct window {
    const struct kiln_token_file *file;
    size_t at;
};

/* The file of a window that is read by its number, which becomes its number in that file. Of
 * several files they come mixed, so that the first of them are of all. */
static const struct part *part_at(const struct kiln_data *data, enum kiln_split split,
                                  size_t *window) {
    const struct part *part = data->parts;
    if (data->n_parts > 1) {
        *window = (size_t)kiln_random_permute(0, KILN_STREAM_DATA, *window, data->windows[split]);
    }
    while (*window >= part->windows[split]) {
        *window -= part->windows[split];
        part++;
    }
    return part;
}

static struct window window_at(const struct kiln_data *data, enum kiln_split split, size_t window) {
    const struct part *part = part_at(data, split, &window);
    return (struct window){part->file, part->begin[split] + window * data->seq};
}

const struct kiln_token_file *kiln_data_window_file(const struct kiln_data *data,
                                                    enum kiln_split split, size_t window) {
    return part_at(data, split, &window)->file;
}

/* Sample number `sample` of file number i. Streams are small numbers: an epoch above them shares no
 * numbers with another use. */
static struct window sample_of(const struct kiln_data *data, size_t i, uint64_t sample) {
    const struct part *part = &data->parts[i];
    const uint64_t windows = part->windows[KILN_TRAIN], epoch = sample / windows;
    const uint64_t seed = data->seed + i * UINT64_C(0x9E3779B97F4A7C15);
    const uint64_t stream = KILN_STREAM_DATA + (epoch << 16);
    const uint64_t window = kiln_random_permute(seed, stream, sample % windows, windows);
    return (struct window){part->file, (size_t)window * data->seq};
}

static struct window train_window(const struct kiln_data *data, uint64_t sample) {
    if (data->n_parts == 1) {
        return sample_of(data, 0, sample);
    }
    const uint64_t round = sample / data->round;
    uint64_t place = kiln_random_permute(data->seed, KILN_STREAM_MIX + (round << 16),
                                         sample % data->round, data->round);
    size_t i = 0;
    while (place >= data->parts[i].share) {
        place -= data->parts[i++].share;
    }
    return sample_of(data, i, round * data->parts[i].share + place);
}

static void read_window(const struct kiln_data *data, struct window w, uint32_t *inputs,
                        uint32_t *targets) {
    kiln_token_file_copy(w.file, w.at, data->seq, inputs);
    kiln_token_file_copy(w.file, w.at + 1, data->seq, targets);
    for (size_t i = 0; kiln_token_file_masked(w.file) && i < data->seq; i++) {
        targets[i] = kiln_token_file_counts(w.file, w.at + 1 + i) ? targets[i] : KILN_NO_TARGET;
    }
}

static void read_starts(const struct kiln_data *data, struct window w, uint32_t *starts) {
    uint32_t start = 0;
    for (size_t i = 0; i < data->seq; i++) {
        start = kiln_token_file_begins(w.file, w.at + i) ? (uint32_t)i : start;
        starts[i] = start;
    }
}

static size_t count_targets(const struct kiln_data *data, struct window w) {
    size_t n = kiln_token_file_masked(w.file) ? 0 : data->seq;
    for (size_t i = 0; kiln_token_file_masked(w.file) && i < data->seq; i++) {
        n += kiln_token_file_counts(w.file, w.at + 1 + i);
    }
    return n;
}

void kiln_data_window(const struct kiln_data *data, enum kiln_split split, size_t window,
                      uint32_t *inputs, uint32_t *targets) {
    read_window(data, window_at(data, split, window), inputs, targets);
}
void kiln_data_window_starts(const struct kiln_data *data, enum kiln_split split, size_t window,
                             uint32_t *starts) {
    read_starts(data, window_at(data, split, window), starts);
}
size_t kiln_data_window_targets(const struct kiln_data *data, enum kiln_split split,
                                size_t window) {
    return count_targets(data, window_at(data, split, window));
}

void kiln_data_train(const struct kiln_data *data, uint64_t sample, uint32_t *inputs,
                     uint32_t *targets) {
    read_window(data, train_window(data, sample), inputs, targets);
}
void kiln_data_train_starts(const struct kiln_data *data, uint64_t sample, uint32_t *starts) {
    read_starts(data, train_window(data, sample), starts);
}
size_t kiln_data_train_targets(const struct kiln_data *data, uint64_t sample) {
    return count_targets(data, train_window(data, sample));
}
size_t kiln_data_train_place(const struct kiln_data *data, uint64_t sample, size_t *at) {
    const struct window w = train_window(data, sample);
    size_t i = 0;
    while (data->parts[i].file != w.file) {
        i++;
    }
    *at = w.at;
    return i;
}
