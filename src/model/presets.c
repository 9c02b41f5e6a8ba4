/* SPDX-License-Identifier: MIT
 *
 * presets.c: the published sizes: the tinyllamas of llama2.c, and the shapes of 1.2 and 6.6 billion
 * parameters that the published Neural Engine trainers plan for.
 */
#include "kiln/model.h"

#include <string.h>

#define PRESET(preset_name, D, F, H, L, T, window)          \
    {                                                       \
        .name = (preset_name), .accum = (window), .dims = { \
            .dim = (D),                                     \
            .hidden = (F),                                  \
            .layers = (L),                                  \
            .heads = (H),                                   \
            .kv_heads = (H),                                \
            .head_size = (D) / (H),                         \
            .vocab = 32000,                                 \
            .seq = (T),                                     \
            .tied = true,                                   \
            .rms_eps = 1e-5f,                               \
            .rope_theta = 10000.0f                          \
        }                                                   \
    }

static const struct kiln_preset presets[] = {
    /*      name           dim   hidden heads layers seq accum */
    PRESET("stories15m", 288, 768, 6, 6, 256, 10),
    PRESET("stories42m", 512, 1376, 8, 8, 256, 10),
    PRESET("stories110m", 768, 2048, 12, 12, 256, 10),
    PRESET("llama1b", 2048, 5504, 16, 22, 512, 4),
    PRESET("llama7b", 4096, 11008, 32, 32, 512, 2),
    {.name = NULL},
};

const struct kiln_preset *kiln_presets(void) { return presets; }

const struct kiln_preset *kiln_preset_find(const char *name) {
    for (const struct kiln_preset *preset = presets; preset->name != NULL; preset++) {
        if (strcmp(preset->name, name) == 0) {
            return preset;
        }
    }
    return NULL;
}
