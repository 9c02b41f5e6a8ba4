/* SPDX-License-Identifier: MIT
 *
 * range.h: a part of an array: n elements from `at` on.
 */
#ifndef KILN_BASE_RANGE_H
#define KILN_BASE_RANGE_H

#include <stddef.h>

struct kiln_range {
    size_t at, n;
};

/* Part `slice` of `slices` about equal ones that lie one behind the other. */
static inline struct kiln_range kiln_range_slice(struct kiln_range whole, size_t slice,
                                                 size_t slices) {
    const size_t first = slice * whole.n / slices, end = (slice + 1) * whole.n / slices;
    return (struct kiln_range){whole.at + first, end - first};
}

#endif
