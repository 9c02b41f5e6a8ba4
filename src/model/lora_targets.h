/* SPDX-License-Identifier: MIT
 *
 * lora_targets.h: the matrices that may have adapters, in the order of the bits of kiln/lora.h.
 */
#ifndef KILN_MODEL_LORA_TARGETS_H
#define KILN_MODEL_LORA_TARGETS_H

#include "kiln/lora.h"
#include "kiln/model.h"

struct kiln_lora_place {
    const char *name;          /* on the command line, "q" */
    enum kiln_role role;       /* in the table */
    const char *part, *module; /* in a layer, as PEFT calls them: "self_attn", "q_proj" */
};
extern const struct kiln_lora_place kiln_lora_places[KILN_LORA_TARGETS];

/* That of a role; NULL: it has no adapters. */
const struct kiln_lora_place *kiln_lora_place_of(enum kiln_role role);
/* Its bit; 0: it has no adapters. */
unsigned kiln_lora_bit_of(enum kiln_role role);

#endif
