/* SPDX-License-Identifier: MIT
 *
 * ahead.c: what a successor compiles while the owner still trains.
 */
#include "train/trainer.h"

enum kiln_status kiln_trainer_ahead(struct kiln_trainer *trainer, const char *place,
                                    struct kiln_err *err) {
    (void)trainer;
    (void)place;
    (void)err;
    return KILN_OK; /* nothing: it compiles when it owns the run */
}
