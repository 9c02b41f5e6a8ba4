/* SPDX-License-Identifier: MIT */
#include "train/spike.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

void kiln_spikes_add(struct kiln_spikes *spikes, const struct kiln_step_record *record) {
    if (record->skipped || !isfinite(record->loss) || !isfinite(record->grad_norm) ||
        record->grad_norm <= 0) {
        return;
    }
    const size_t at = spikes->n++ % KILN_SPIKE_WINDOW;
    spikes->loss[at] = record->loss;
    spikes->grad_norm[at] = record->grad_norm;
}

/* Summed from the oldest to the newest: the same bits wherever the ring begins. */
static struct kiln_spike_score score(const double values[KILN_SPIKE_WINDOW], uint64_t n,
                                     double value) {
    const double none = (double)NAN;
    const uint64_t known = n < KILN_SPIKE_WINDOW ? n : KILN_SPIKE_WINDOW;
    struct kiln_spike_score s = {none, none, none, (size_t)known};
    if (known < KILN_SPIKE_FEWEST) {
        return s;
    }
    double sum = 0, squares = 0;
    for (uint64_t i = n - known; i < n; i++) {
        sum += values[i % KILN_SPIKE_WINDOW];
    }
    s.mean = sum / (double)known;
    for (uint64_t i = n - known; i < n; i++) {
        const double off = values[i % KILN_SPIKE_WINDOW] - s.mean;
        squares += off * off;
    }
    s.deviation = sqrt(squares / (double)known);
    s.z = (value - s.mean) / fmax(s.deviation, s.mean / 32);
    return s;
}

struct kiln_spike_score kiln_spikes_loss(const struct kiln_spikes *spikes, double loss) {
    return score(spikes->loss, spikes->n, loss);
}

struct kiln_spike_score kiln_spikes_grad_norm(const struct kiln_spikes *spikes, double grad_norm) {
    return score(spikes->grad_norm, spikes->n, grad_norm);
}

bool kiln_spikes_norm_is_far(const struct kiln_spike_score *score, double grad_norm, double most) {
    return score->z > most && grad_norm > KILN_SPIKE_RISE * score->mean;
}

static void on_step(void *context, const struct kiln_step_record *record) {
    kiln_spikes_add(context, record);
}

enum kiln_status kiln_spikes_read(const char *folder, struct kiln_spikes *out,
                                  struct kiln_err *err) {
    char path[4200];
    struct stat st;
    size_t tail = (size_t)1 << 17;
    *out = (struct kiln_spikes){.n = 0};
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    if (stat(path, &st) != 0) {
        return KILN_OK; /* a run that has not begun */
    }
    /* Steps that were skipped lie between those that count: how many is not known before. */
    for (bool whole = false; !whole && out->n < KILN_SPIKE_WINDOW; tail *= 4) {
        const struct kiln_observer observer = {.context = out, .on_step = on_step};
        whole = tail >= (size_t)st.st_size;
        *out = (struct kiln_spikes){.n = 0};
        KILN_TRY(kiln_run_history(folder, 0, tail, &observer, err));
    }
    return KILN_OK;
}
