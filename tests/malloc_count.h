/* SPDX-License-Identifier: MIT
 *
 * malloc_count.h: every call for heap memory in the process, of any thread and any library.
 *
 * The test program has its own malloc and the like, which count and hand on to the C library's.
 * With a sanitizer, which has its own already, or another C library there is nothing to count.
 */
#ifndef KILN_TESTS_MALLOC_COUNT_H
#define KILN_TESTS_MALLOC_COUNT_H

#include <stdbool.h>
#include <stdint.h>

/* False where nothing is counted. */
bool malloc_counted(void);
/* Calls so far: malloc, calloc, realloc, aligned_alloc, memalign, posix_memalign. */
uint64_t malloc_count(void);
/* While on, a call aborts the process, so that a debugger shows who it was. */
void malloc_trap(bool on);

#endif
