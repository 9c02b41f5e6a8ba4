/* SPDX-License-Identifier: MIT
 *
 * ranks.h: the processes of one run, on one machine or many, over MPI.
 *
 * `mpirun -n 4 kiln train ...` starts four; each is a rank, numbered from 0. A program that is not
 * started so is alone, and nothing of this costs it anything: its ranks are NULL, which every call
 * takes. A library built without MPI (make MPI=1 builds one with it) is always alone.
 */
#ifndef KILN_RANKS_H
#define KILN_RANKS_H

#include <stdbool.h>
#include <stddef.h>

#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct kiln_ranks;

/* Join the others; once in a program, before it starts threads. *out is NULL when it was started
 * alone. KILN_EUNSUPPORTED: it was started by mpirun or srun, and is built without MPI. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_ranks_open(struct kiln_ranks **out,
                                                          struct kiln_err *err);
/* Leave. `well`: all of them do, at this point, and it waits for them; also behind a failure that
 * all know of. Else it does not wait, and the others learn of it by MPI's own means. */
KILN_API void kiln_ranks_close(struct kiln_ranks *ranks, bool well);

KILN_API size_t kiln_ranks_count(const struct kiln_ranks *ranks); /* 1 for NULL */
KILN_API size_t kiln_ranks_mine(const struct kiln_ranks *ranks);  /* 0 for NULL */
/* Of them those on this machine, this one included. */
KILN_API size_t kiln_ranks_beside(const struct kiln_ranks *ranks);
/* Threads for this one, where nobody says how many: its share of the machine's processors; 0 for
 * NULL. */
KILN_API size_t kiln_ranks_threads(const struct kiln_ranks *ranks);

#ifdef __cplusplus
}
#endif

#endif
