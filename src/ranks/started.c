/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "ranks/ranks.h"

/* What Open MPI's mpirun, and those that speak PMI (srun, mpiexec of MPICH), tell their children.
 */
bool kiln_ranks_are_many(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *text = getenv(names[i]);
        if (text && strtoul(text, NULL, 10) > 1) {
            return true;
        }
    }
    return false;
}
