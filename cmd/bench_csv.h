/* SPDX-License-Identifier: MIT
 *
 * bench_csv.h: kiln bench --csv: rows that many runs, builds and machines share.
 */
#ifndef KILN_CMD_BENCH_CSV_H
#define KILN_CMD_BENCH_CSV_H

#include "kiln/bench.h"

/* Could csv_append write there? To be asked before minutes are spent on what it would write. */
KILN_MUST_CHECK enum kiln_status csv_check(const char *path, struct kiln_err *err);
/* Append a row for each part, each piece that was timed, and one, "step", for all; a new or empty
 * file gets a header first. KILN_EUSAGE when what is there begins with another header: nothing is
 * written then. */
KILN_MUST_CHECK enum kiln_status csv_append(const char *path, const char *commit, const char *model,
                                            const struct kiln_bench_options *how,
                                            const struct kiln_bench_result *r,
                                            struct kiln_err *err);

#endif
