/* SPDX-License-Identifier: MIT
 *
 * cpu_x86.c: what CPUID says of bf16 units. gcc 12 knows no names for these bits, so they are read
 * here: leaf 7, subleaf 0: EDX bit 22 AMX-BF16, bit 24 AMX-TILE; subleaf 1: EAX bit 5
 * AVX512-BF16 (Intel Architecture Instruction Set Extensions Programming Reference, chapter 1).
 */
#include <cpuid.h>

#include "kernel/kernel.h"

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
