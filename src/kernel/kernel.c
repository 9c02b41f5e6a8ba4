/* SPDX-License-Identifier: MIT
 *
 * kernel.c: chooses the kernels of this machine: plain C first, then tier by tier.
 *
 * KILN_CPU stops the climb at a tier, KILN_GEMM=own|onednn names the provider of products. Own code
 * is the default on every tier. On AMX alone oneDNN could be the faster one, and `kiln bench` shows
 * both; but a choice by a timing at the start would let noise decide the bits of a run (tier and
 * provider are part of its numerics id, and a resume with others is warned of), so the choice is
 * the user's and stays what it is.
 */
#include "kernel/kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/machine.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* clang 14 does not know the name "f16c". */
static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}
static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
static bool has_avx512bf16(void) { return has_avx512() && kiln_cpu_has_avx512bf16(); }
static bool has_amx(void) { return has_avx512bf16() && kiln_cpu_may_use_amx(); }
#endif

static const struct kiln_tier tiers[] = {
    {"ref", NULL, kiln_kernels_ref},
#if defined(__x86_64__)
    {"avx2", has_avx2, kiln_kernels_avx2},
    {"avx512", has_avx512, kiln_kernels_avx512},
    {"avx512bf16", has_avx512bf16, kiln_kernels_avx512bf16},
    {"amx", has_amx, kiln_kernels_amx},
#elif defined(__aarch64__)
    {"neon", NULL, kiln_kernels_neon},
    {"neonbf16", kiln_cpu_has_bf16, kiln_kernels_neonbf16},
#endif
};

const struct kiln_tier *kiln_kernels_tiers(size_t *n) {
    *n = sizeof tiers / sizeof tiers[0];
    return tiers;
}

/* "ref, avx2, ..." for messages. */
static const char *tier_names(char *out, size_t size) {
    size_t used = 0;
    for (size_t i = 0; i < sizeof tiers / sizeof tiers[0] && used < size; i++) {
        used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? ", " : "", tiers[i].name);
    }
    return out;
}

/* What the environment names; an empty value is none. */
static const char *named(const char *variable) {
    const char *value = getenv(variable);
    return value && *value ? value : NULL;
}

enum kiln_status kiln_kernels_choose(enum kiln_precision precision, struct kiln_kernels *out,
                                     struct kiln_err *err) {
    const char *highest = named("KILN_CPU");
    char names[128];
    bool stop = false;
    KILN_REQUIRE(precision != KILN_PRECISION_FP16, err, KILN_EUSAGE,
                 "precision fp16 is of the devices sim and ane; on the cpu use fp32 or bf16");
    for (size_t i = 0; i < sizeof tiers / sizeof tiers[0] && !stop; i++) {
        stop = highest && strcmp(highest, tiers[i].name) == 0;
        if (tiers[i].present && !tiers[i].present()) {
            KILN_REQUIRE(!stop, err, KILN_EUNSUPPORTED,
                         "KILN_CPU=%s: this machine lacks it; the best here is %s", highest,
                         out->tier);
            continue;
        }
        tiers[i].fill(out, kiln_precision_resolve(precision));
    }
    KILN_REQUIRE(!highest || stop, err, KILN_EUSAGE,
                 "KILN_CPU=%s is no instruction tier; use one of %s", highest,
                 tier_names(names, sizeof names));
    const char *provider = named("KILN_GEMM");
    if (!provider || strcmp(provider, "own") == 0) {
        return KILN_OK;
    }
    KILN_REQUIRE(strcmp(provider, "onednn") == 0, err, KILN_EUSAGE,
                 "KILN_GEMM=%s: use own or onednn", provider);
    KILN_REQUIRE(out->precision != KILN_PRECISION_BF16 || kiln_kernels_onednn(out), err,
                 KILN_EUNSUPPORTED,
                 "KILN_GEMM=onednn: this build or processor has no bf16 products of oneDNN");
    return KILN_OK;
}

static const char *const precision_names[] = {"auto", "fp32", "bf16", "fp16"};

const char *kiln_precision_name(enum kiln_precision precision) {
    return precision_names[precision];
}

enum kiln_status kiln_precision_parse(const char *name, enum kiln_precision *out,
                                      struct kiln_err *err) {
    for (size_t i = 0; i < sizeof precision_names / sizeof precision_names[0]; i++) {
        if (strcmp(name, precision_names[i]) == 0) {
            *out = (enum kiln_precision)i;
            return KILN_OK;
        }
    }
    return KILN_FAIL(err, KILN_EUSAGE, "precision %s: use auto, fp32, bf16 or fp16", name);
}

enum kiln_precision kiln_precision_resolve(enum kiln_precision precision) {
    if (precision != KILN_PRECISION_AUTO) {
        return precision;
    }
#if defined(__x86_64__) || defined(__aarch64__)
    return kiln_cpu_has_bf16() ? KILN_PRECISION_BF16 : KILN_PRECISION_FP32;
#else
    return KILN_PRECISION_FP32;
#endif
}

enum kiln_status kiln_cpu_describe(enum kiln_precision precision, struct kiln_cpu *out,
                                   struct kiln_err *err) {
    struct kiln_kernels kernels = {0};
    /* A device of fp16 has the CPU do the rest in fp32. */
    precision = precision == KILN_PRECISION_FP16 ? KILN_PRECISION_FP32 : precision;
    KILN_TRY(kiln_kernels_choose(precision, &kernels, err));
    out->tier = kernels.tier;
    out->provider = kernels.provider;
    out->cpus = kiln_cpu_count();
    out->memory_available = kiln_memory_available();
    return KILN_OK;
}

size_t kiln_machine_resident_peak(void) { return kiln_memory_resident_peak(); }
