/* SPDX-License-Identifier: MIT
 *
 * cpu_arm.c: what the system says of bf16 units. FEAT_BF16 (BFDOT, BFCVTN) is optional from Armv8.2
 * on; its ID register is not readable by programs everywhere, so the kernel is asked.
 */
#include "kernel/kernel.h"

#if defined(__APPLE__)
#include <sys/sysctl.h>

bool kiln_cpu_has_bf16(void) {
    int has = 0;
    size_t size = sizeof has;
    return sysctlbyname("hw.optional.arm.FEAT_BF16", &has, &size, NULL, 0) == 0 && has != 0;
}
#elif defined(__linux__)
#include <sys/auxv.h>

#ifndef HWCAP2_BF16 /* of Linux 5.6; older headers lack the name */
#define HWCAP2_BF16 (1ul << 14)
#endif

bool kiln_cpu_has_bf16(void) { return (getauxval(AT_HWCAP2) & HWCAP2_BF16) != 0; }
#else
bool kiln_cpu_has_bf16(void) { return false; } /* NEON is always there and right */
#endif
