/* SPDX-License-Identifier: MIT
 *
 * machine.h: the clock, and what the system says of memory and processors.
 */
#ifndef KILN_BASE_MACHINE_H
#define KILN_BASE_MACHINE_H

#include <stddef.h>
#include <stdint.h>

double kiln_now_s(void);                /* monotonic seconds */
size_t kiln_cpu_count(void);            /* processors this process may run on, at least 1 */
size_t kiln_memory_available(void);     /* bytes, 0 when unknown */
size_t kiln_memory_resident(void);      /* bytes: RssAnon + RssFile + RssShmem now */
size_t kiln_memory_resident_peak(void); /* bytes: VmHWM */
size_t kiln_cache_bytes(void);          /* of the largest cache; 32 MiB when unknown */

/* Name the calling thread for whoever looks at the process (ps, top -H, perf): at most 15 letters.
 */
void kiln_thread_name(const char *name);

/* What the processor calls itself, cut to `size`; "unknown" where nobody says. */
void kiln_cpu_model(char *out, size_t size);

/* What names this boot of the system, another at the next; "" where there is no such thing. The
 * rest of `out` is zero. */
void kiln_boot_id(char out[40]);
/* What kiln_boot_id gives instead, when not NULL: for tests. */
extern const char *kiln_boot_id_instead;

#endif
