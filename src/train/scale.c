/* SPDX-License-Identifier: MIT */
#include "train/scale.h"

#include <math.h>
#include <stddef.h>

bool (*kiln_overflow_instead)(uint64_t step);

bool kiln_scale_wanted(enum kiln_precision precision) {
    return precision == KILN_PRECISION_FP16 || kiln_overflow_instead != NULL;
}

double kiln_scale_first(double tokens) {
    double scale = 1;
    while (scale < KILN_SCALE_FIRST * tokens && scale < KILN_SCALE_MOST) {
        scale *= 2;
    }
    return scale;
}

double kiln_scale_of(const struct kiln_cursor *cursor, enum kiln_precision precision,
                     double tokens) {
    if (!kiln_scale_wanted(precision)) {
        return 1;
    }
    return cursor->loss_scale > 0 ? cursor->loss_scale : kiln_scale_first(tokens);
}

double kiln_scale_share(double targets, double tokens) {
    double share = 1;
    while (targets >= 1 && share / 2 * tokens >= targets) {
        share /= 2;
    }
    return share;
}

void kiln_scale_next(struct kiln_cursor *cursor, bool overflowed) {
    const double scale = cursor->loss_scale;
    if (scale <= 0) {
        return;
    }
    if (overflowed) {
        cursor->loss_scale = fmax(scale / 2, 1);
        cursor->loss_scale_good = 0;
    } else if (++cursor->loss_scale_good == KILN_SCALE_GOOD) {
        cursor->loss_scale = fmin(scale * 2, KILN_SCALE_MOST);
        cursor->loss_scale_good = 0;
    }
}
