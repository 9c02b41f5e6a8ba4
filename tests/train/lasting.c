/* SPDX-License-Identifier: MIT */
#include "train/lasting.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln_test.h"

char *lasting_metrics(const char *folder) {
    struct kiln_err err;
    char path[4200], *text;
    size_t size, n = 0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    CHECK_OK(kiln_read_file(path, &text, &size, &err), &err);
    char *out = malloc(size + 1);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *all = json_loads(line, 0, NULL);
        CHECK(all != NULL);
        json_t *kept = json_object();
        static const char *const keys[] = {"step",   "loss",        "grad_norm", "lr",
                                           "tokens", "staleness",   "val_loss",  "loss_scale",
                                           "loss_z", "grad_norm_z", "skipped"};
        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
            json_object_set(kept, keys[i], json_object_get(all, keys[i]));
        }
        char *dump = json_dumps(kept, JSON_REAL_PRECISION(17));
        n += (size_t)snprintf(out + n, size + 1 - n, "%s\n", dump);
        free(dump);
        json_decref(kept);
        json_decref(all);
    }
    kiln_free(text);
    return out;
}
