/* SPDX-License-Identifier: MIT */
#include "train/family_model.h"

#include <stdio.h>

#include "base/mem.h"
#include "base/random.h"
#include "kiln_test.h"

struct kiln_dims family_dims(enum family family) {
    struct kiln_dims dims = {.dim = 32,
                             .hidden = 64,
                             .layers = 2,
                             .heads = 4,
                             .kv_heads = 2,
                             .vocab = 259,
                             .seq = 32,
                             .tied = family == FAMILY_BIAS,
                             .rms_eps = 1e-6f,
                             .rope_theta = 20000.0f,
                             .qkv_bias = family != FAMILY_NORM,
                             .qk_norm = family != FAMILY_BIAS};
    dims.head_size = dims.qk_norm ? 12 : 8;
    dims.rope = family == FAMILY_NORM
                    ? (struct kiln_rope){.kind = KILN_ROPE_LLAMA3,
                                         .factor = 8,
                                         .low_freq_factor = 1,
                                         .high_freq_factor = 4,
                                         .original_seq = 16}
                    : (struct kiln_rope){
                          .kind = KILN_ROPE_YARN, .factor = 4, .beta_fast = 4, .original_seq = 8};
    CHECK_OK(kiln_dims_check(&dims, NULL), NULL);
    return dims;
}

void family_weights(const struct kiln_table *table, float *weights) {
    kiln_weights_init(table, 5, weights);
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct kiln_tensor *t = &table->tensors[i];
        for (size_t j = 0; j < t->cols && t->rank == 1; j++) {
            const double noise = kiln_random_normal(9, KILN_STREAM_TEST, i * 4096 + j);
            weights[t->offset + j] += (float)(0.3 * noise);
        }
    }
}

const char *family_file(enum family family) {
    static char path[4096];
    struct kiln_err err;
    struct kiln_table *table;
    const struct kiln_dims dims = family_dims(family);
    snprintf(path, sizeof path, "%s/family%d.bin", test_folder(), (int)family);
    CHECK_OK(kiln_table_create(&dims, &table, &err), &err);
    float *weights = kiln_alloc(table->size, sizeof *weights);
    family_weights(table, weights);
    CHECK_OK(kiln_checkpoint_save_run(path, table, weights, &err), &err);
    kiln_free(weights);
    kiln_table_destroy(table);
    return path;
}
