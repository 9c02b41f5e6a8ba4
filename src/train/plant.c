/* SPDX-License-Identifier: MIT */
#include "train/plant.h"

#include <math.h>
#include <string.h>

#include "train/trainer_int.h"

const char *(*kiln_bad_weight_instead)(uint64_t step);
bool (*kiln_bad_batch_instead)(uint64_t window);

void kiln_plant_weight(struct kiln_trainer *t, uint64_t step) {
    const char *name =
        kiln_bad_weight_instead && t->settings->n_jumps == 0 ? kiln_bad_weight_instead(step) : NULL;
    for (size_t i = 0; name && i < t->table->n_tensors; i++) {
        const struct kiln_tensor *tensor = &t->table->tensors[i];
        if (strcmp(tensor->name, name) == 0) {
            kiln_state_working(t->state, KILN_WEIGHTS)[tensor->offset] = INFINITY;
        }
    }
}

void kiln_plant_targets(const struct kiln_trainer *t, uint64_t sample, uint32_t *targets,
                        size_t n) {
    const uint64_t window = t->engine.plan.shape.batch * t->settings->accum;
    if (!kiln_bad_batch_instead || !kiln_bad_batch_instead(sample / window)) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        targets[i] =
            targets[i] == KILN_NO_TARGET ? KILN_NO_TARGET : (uint32_t)t->table->dims.vocab - 1;
    }
}
