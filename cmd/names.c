/* SPDX-License-Identifier: MIT
 *
 * names.c: the distance of Damerau and Levenshtein (restricted form), by its table.
 */
#include "names.h"

#include <string.h>

#define LONGEST 40 /* no name of ours is longer; what is cannot be meant */

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

size_t name_distance(const char *a, const char *b) {
    const size_t m = strlen(a), n = strlen(b);
    unsigned d[LONGEST + 1][LONGEST + 1];
    if (m > LONGEST || n > LONGEST) {
        return m > n ? m : n;
    }
    for (size_t i = 0; i <= m; i++) {
        d[i][0] = (unsigned)i;
    }
    for (size_t j = 0; j <= n; j++) {
        d[0][j] = (unsigned)j;
    }
    for (size_t i = 1; i <= m; i++) {
        for (size_t j = 1; j <= n; j++) {
            const unsigned differs = a[i - 1] != b[j - 1];
            size_t best = least(d[i - 1][j] + 1, d[i][j - 1] + 1);
            best = least(best, d[i - 1][j - 1] + differs);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                best = least(best, d[i - 2][j - 2] + 1);
            }
            d[i][j] = (unsigned)best;
        }
    }
    return d[m][n];
}

/* A beginning is always meant ("temp" for "temperature"); else a third of the letters may differ.
 */
bool name_is_nearer(const char *name, const char *candidate, size_t *best) {
    const size_t length = strlen(name);
    const bool begins = length >= 2 && strncmp(name, candidate, length) == 0;
    const size_t distance = begins ? 1 : name_distance(name, candidate);
    const size_t limit = length < 4 ? 1 : length / 3 + 1;
    if (distance > limit || distance >= *best) {
        return false;
    }
    *best = distance;
    return true;
}
