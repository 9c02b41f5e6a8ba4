/* SPDX-License-Identifier: MIT
 *
 * bench_csv.h: kiln bench --csv: rows that many runs, builds and machines share.
 */
#ifndef KILN_CMD_BENCH_CSV_H
#define KILN_CMD_BENCH_CSV_H

#include "kiln/bench.h"

/* Append a row for each part, each piece that was timed, and one, "step", for all; a new or empty
 * file gets a header first. KILN_EUSAGE when what is there begins with another header: nothing is
 * written then. */
KILN_MUST_CHECK enum kiln_status csv_append(const char *path, const char *commit, const char *model,
                                            const struct kiln_bench_options *how,
                                            const struct kiln_bench_result *r,
                                            struct kiln_err *err);

#endif
