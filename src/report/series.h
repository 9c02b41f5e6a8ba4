/* SPDX-License-Identifier: MIT
 *
 * series.h: what a page draws of the steps of a run: curves with as many points as can be seen.
 */
#ifndef KILN_REPORT_SERIES_H
#define KILN_REPORT_SERIES_H

#include "report/json_text.h"
#include "report/view_int.h"

/* Steps with index first..end-1 of a view, in curves of at most about `points` points. */
struct kiln_range {
    const struct kiln_view *view;
    size_t first, end, points;
};

/* "series":{...},"axis":{...},"time":{...},"marks":{...} */
void kiln_series_write(const struct kiln_range *range, struct kiln_text *text);

#endif
