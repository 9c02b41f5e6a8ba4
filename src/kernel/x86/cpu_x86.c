/* SPDX-License-Identifier: MIT
 *
 * cpu_x86.c: what CPUID says of bf16 units. gcc 12 knows no names for these bits, so they are read
 * here: leaf 7, subleaf 0: EDX bit 22 AMX-BF16, bit 24 AMX-TILE; subleaf 1: EAX bit 5
 * AVX512-BF16 (Intel Architecture Instruction Set Extensions Programming Reference, chapter 1).
 *
 * That the processor has AMX is not enough (Software Developer's Manual, volume 1, 13.3 and 18.1):
 * the system must have enabled both parts of its state, XCR0 bits 17 (configuration) and 18 (tile
 * data), and Linux, from 5.16 on, lets a process touch tile data only after it asked with
 * arch_prctl(ARCH_REQ_XCOMP_PERM, 18) (Documentation/arch/x86/xstate.rst). The permission holds for
 * all threads, earlier and later, and for children of fork; exec ends it. The system refuses where
 * a thread has a signal stack too small for tiles (8 KB more), or a sandbox forbids the call; then
 * the tier is absent. Other systems than Linux are not known to need or have it: absent.
 */
#include <cpuid.h>

#include "kernel/kernel.h"

#if defined(__linux__)
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

static unsigned leaf7(unsigned subleaf, bool edx) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, subleaf, &a, &b, &c, &d) ? (edx ? d : a) : 0;
}

bool kiln_cpu_has_amx(void) {
    unsigned d = leaf7(0, true);
    return (d >> 22 & 1) && (d >> 24 & 1) && __builtin_cpu_supports("avx512bw");
}

bool kiln_cpu_has_avx512bf16(void) {
    return (leaf7(1, false) >> 5 & 1) && __builtin_cpu_supports("avx512bw");
}

bool kiln_cpu_has_bf16(void) { return kiln_cpu_has_avx512bf16() || kiln_cpu_has_amx(); }

#if defined(__linux__)
/* Extended control register 0: which parts of its state the system lets the processor have. */
static unsigned enabled_state(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & bit_OSXSAVE) == 0) {
        return 0;
    }
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

static bool amx_is_granted;
static void ask_for_amx(void) {
    const unsigned tiles = 1u << 17 | 1u << 18;
    const long ask = 0x1023, tile_data = 18; /* ARCH_REQ_XCOMP_PERM: older headers lack it */
    amx_is_granted = kiln_cpu_has_amx() && (enabled_state() & tiles) == tiles &&
                     syscall(SYS_arch_prctl, ask, tile_data) == 0;
}

bool kiln_cpu_may_use_amx(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, ask_for_amx);
    return amx_is_granted;
}
#else
bool kiln_cpu_may_use_amx(void) { return false; }
#endif
