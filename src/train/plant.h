/* SPDX-License-Identifier: MIT
 *
 * plant.h: faults that tests plant, to see them found (tests/kill_points.h). NULL otherwise.
 */
#ifndef KILN_TRAIN_PLANT_H
#define KILN_TRAIN_PLANT_H

#include <stdbool.h>
#include <stdint.h>

/* Name of the tensor whose first element is infinity from step `step` on (1 for the first; from 2
 * on: it is planted with the update before), NULL for none. It must be one that is trained. Not
 * asked by a run that has been rolled back: the fault is over. */
extern const char *(*kiln_bad_weight_instead)(uint64_t step);

/* Has window `window` of the data (0 for the first) one token as all its targets? */
extern bool (*kiln_bad_batch_instead)(uint64_t window);

#endif
