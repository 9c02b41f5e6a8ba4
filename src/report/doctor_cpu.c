/* SPDX-License-Identifier: MIT
 *
 * doctor_cpu.c: how many processors there are for us, what else they do, and which instructions
 * they have.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "report/doctor_int.h"

enum { MOST_CPUS = 4096 };

/* ---- processors ----------------------------------------------------------------------------- */

/* The least that control groups allow, in processors; 0: no limit. */
static double group_quota(const struct doctor *d) {
    char dirs[DOCTOR_GROUPS][DOCTOR_GROUP_PATH], text[128];
    double least = 0;
    const size_t n = kiln_doctor_groups(d, "cpu", dirs);
    for (size_t i = 0; i < n; i++) {
        double quota = 0, period = 0;
        bool limited = false;
        if (kiln_doctor_read(d, text, sizeof text, "%s/cpu.max", dirs[i])) {
            limited = sscanf(text, "%lf %lf", &quota, &period) == 2;
        } else {
            limited = kiln_doctor_number(d, &quota, "%s/cpu.cfs_quota_us", dirs[i]) &&
                      kiln_doctor_number(d, &period, "%s/cpu.cfs_period_us", dirs[i]);
        }
        if (limited && quota > 0 && period > 0 && (least == 0 || quota / period < least)) {
            least = quota / period;
        }
    }
    return least;
}

/* Cores of these processors: each counts at the first of its hyperthreads that is there. */
static size_t count_cores(const struct doctor *d, const bool *allowed) {
    static _Thread_local bool siblings[MOST_CPUS];
    char list[1024];
    size_t cores = 0;
    for (size_t cpu = 0; cpu < MOST_CPUS; cpu++) {
        if (!allowed[cpu]) {
            continue;
        }
        if (!kiln_doctor_read(d, list, sizeof list,
                              "/sys/devices/system/cpu/cpu%zu/topology/thread_siblings_list",
                              cpu)) {
            return 0;
        }
        kiln_doctor_list(list, siblings, MOST_CPUS);
        size_t first = 0;
        while (first < cpu && !(siblings[first] && allowed[first])) {
            first++;
        }
        cores += first == cpu;
    }
    return cores;
}

static void read_processors(struct doctor *d) {
    static _Thread_local bool set[MOST_CPUS];
    char text[16384], list[2048];
    if (kiln_doctor_read(d, list, sizeof list, "/sys/devices/system/cpu/online")) {
        d->online = kiln_doctor_list(list, set, MOST_CPUS);
    }
    if (kiln_doctor_read(d, text, sizeof text, "/proc/self/status") &&
        kiln_doctor_text(text, "Cpus_allowed_list", list, sizeof list)) {
        d->allowed = kiln_doctor_list(list, set, MOST_CPUS);
        d->cores = count_cores(d, set);
    }
    d->quota = group_quota(d);
    d->threads = d->options->threads != 0 ? d->options->threads : d->allowed;
}

static void check_threads(struct doctor *d) {
    static const char name[] = "threads";
    const size_t threads = d->threads, allowed = d->allowed;
    if (threads > allowed) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, name, "%zu threads on %zu processors", threads,
                          allowed);
        kiln_doctor_cost(d, "they wait for each other at the end of every product");
        kiln_doctor_advice(d, "--threads %zu, or leave --threads out", allowed);
    } else if (threads < allowed) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, name, "%zu threads on %zu processors", threads,
                          allowed);
        kiln_doctor_cost(d, "up to %.0f %% of what the machine could do",
                         100.0 * (double)(allowed - threads) / (double)allowed);
        kiln_doctor_advice(d, "leave --threads out, unless the others are for something else");
    } else {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, name, "%zu on %zu processors", threads, allowed);
    }
}

static void check_affinity(struct doctor *d) {
    if (d->online == 0 || d->allowed >= d->online) {
        return;
    }
    kiln_doctor_found(d, KILN_DOCTOR_SLOW, "affinity",
                      "this process may run on %zu of %zu processors (Cpus_allowed_list)",
                      d->allowed, d->online);
    kiln_doctor_cost(d, "up to %.0f %% of what the machine could do",
                     100.0 * (double)(d->online - d->allowed) / (double)d->online);
    kiln_doctor_advice(d,
                       "taskset, a cpuset, a batch system or a container (--cpuset-cpus) sets "
                       "this: ask for more there");
}

static void check_quota(struct doctor *d) {
    char dirs[DOCTOR_GROUPS][DOCTOR_GROUP_PATH], text[4096];
    if (d->quota > 0 && d->quota < (double)d->threads - 0.01) {
        const size_t whole = d->quota < 1 ? 1 : (size_t)d->quota;
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "cpu quota",
                          "a control group allows the time of %.2g processors to %zu threads",
                          d->quota, d->threads);
        kiln_doctor_cost(d, "all threads stand still for %.0f %% of the time",
                         100.0 * (1.0 - d->quota / (double)d->threads));
        kiln_doctor_advice(d,
                           "raise the limit (container: --cpus; systemd: CPUQuota), or use "
                           "--threads %zu, which waits less",
                           whole);
    }
    const size_t n = kiln_doctor_groups(d, "cpu", dirs);
    for (size_t i = 0; i < n; i++) {
        double periods = 0, throttled = 0;
        if (kiln_doctor_read(d, text, sizeof text, "%s/cpu.stat", dirs[i]) &&
            kiln_doctor_value(text, "nr_periods", &periods) &&
            kiln_doctor_value(text, "nr_throttled", &throttled) && throttled > 0.01 * periods) {
            kiln_doctor_found(d, KILN_DOCTOR_SLOW, "cpu quota",
                              "the control group's processes were stopped in %.0f %% of its %.0f "
                              "periods (%s/cpu.stat)",
                              100.0 * throttled / periods, periods, dirs[i]);
            kiln_doctor_advice(d, "raise its limit, or use fewer --threads");
            return;
        }
    }
}

static void check_hyperthreads(struct doctor *d) {
    if (d->cores == 0 || d->threads <= d->cores || d->threads > d->allowed) {
        return;
    }
    const double all = d->host->products_tflops, few = d->host->few_tflops;
    if (all > 0 && few > 1.03 * all) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "hyperthreads",
                          "%zu threads share %zu cores: %.2f TFLOP/s together, %.2f with a thread "
                          "for each core",
                          d->threads, d->cores, all, few);
        kiln_doctor_cost(d, "%.0f %% of the rate of products", 100.0 * (1.0 - all / few));
        kiln_doctor_advice(d, "--threads %zu", d->cores);
        return;
    }
    kiln_doctor_found(
        d, KILN_DOCTOR_FINE, "hyperthreads", "%zu threads share %zu cores%s", d->threads, d->cores,
        all > 0 && few > 0 ? ", which is as fast as a thread for each core or faster" : "");
}

void kiln_doctor_processors(struct doctor *d) {
    read_processors(d);
    if (d->allowed == 0) {
        kiln_doctor_found(d, KILN_DOCTOR_UNKNOWN, "threads",
                          "how many processors this process may use cannot be read here");
        return;
    }
    check_threads(d);
    check_affinity(d);
    check_quota(d);
    check_hyperthreads(d);
}

/* ---- what else runs ------------------------------------------------------------------------- */

/* Share of the last 10 seconds in which somebody waited for a resource, in percent. */
static bool pressure(const struct doctor *d, const char *of, double *percent) {
    char text[512], line[256];
    return kiln_doctor_read(d, text, sizeof text, "/proc/pressure/%s", of) &&
           kiln_doctor_text(text, "some", line, sizeof line) &&
           sscanf(line, "avg10=%lf", percent) == 1;
}

static void check_pressure(struct doctor *d) {
    static const struct {
        const char *of;
        double most;
        const char *advice;
    } kinds[] = {
        {"cpu", 10, "see what else runs (top), stop it or wait for it"},
        {"memory", 5, "see who takes the memory (top, then M); a smaller --memory leaves more"},
        {"io", 30,
         "see who keeps the disk busy (iotop); --state on another disk, fewer "
         "--save-every"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        double percent = 0;
        if (pressure(d, kinds[i].of, &percent) && percent > kinds[i].most) {
            kiln_doctor_found(d, KILN_DOCTOR_SLOW, "pressure",
                              "in %.0f %% of the last 10 s somebody waited for %s "
                              "(/proc/pressure/%s)",
                              percent, kinds[i].of, kinds[i].of);
            kiln_doctor_advice(d, "%s", kinds[i].advice);
        }
    }
}

/* Time that the hypervisor gave to others, of all time since the system started. */
static void check_steal(struct doctor *d) {
    char text[512];
    double t[8] = {0}, all = 0;
    if (!kiln_doctor_read(d, text, sizeof text, "/proc/stat") ||
        sscanf(text, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &t[0], &t[1], &t[2], &t[3], &t[4],
               &t[5], &t[6], &t[7]) != 8) {
        return;
    }
    for (size_t i = 0; i < 8; i++) {
        all += i == 3 || i == 4 ? 0 : t[i]; /* but what was idle or waited for a disk */
    }
    if (all > 0 && t[7] > 0.03 * all) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "steal",
                          "the hypervisor gave %.0f %% of the busy time to other machines",
                          100.0 * t[7] / all);
        kiln_doctor_cost(d, "that share of every step");
        kiln_doctor_advice(d, "a machine with processors of its own (dedicated, not burstable)");
    }
}

void kiln_doctor_load(struct doctor *d) {
    char text[256];
    double load = 0;
    if (!kiln_doctor_read(d, text, sizeof text, "/proc/loadavg") ||
        sscanf(text, "%lf", &load) != 1) {
        kiln_doctor_found(d, KILN_DOCTOR_UNKNOWN, "load", "what else runs cannot be read here");
        return;
    }
    const double cpus = d->online > 0 ? (double)d->online : 1;
    if (load > 0.3 * cpus) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "load",
                          "%.2g tasks run or wait on %.0f processors, in the mean of the last "
                          "minute (/proc/loadavg); a training of yours counts",
                          load, cpus);
        kiln_doctor_cost(d, "a training beside them gets about %.0f %% of the processors",
                         100.0 * cpus / (cpus + load));
        kiln_doctor_advice(d, "see what else runs (top), stop it or wait for it");
    } else {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "load", "%.2g tasks on %.0f processors", load, cpus);
    }
    check_pressure(d);
    check_steal(d);
}

/* ---- instructions --------------------------------------------------------------------------- */

/* What a processor of this make is known to have, by CPUID's family and model: Intel, Intel 64 and
 * IA-32 Software Developer's Manual volume 4, table 2-1; AMD, processor programming references of
 * family 19h models 10h to 1Fh and 60h to AFh (Zen 4) and of family 1Ah (Zen 5). */
struct make {
    const char *vendor;
    int family, first_model, last_model;
    const char *tier; /* the best that it has */
    const char *flag; /* what /proc/cpuinfo calls it */
};
static const struct make makes[] = {
    {"GenuineIntel", 6, 143, 143, "amx", "amx_bf16"},    /* Sapphire Rapids */
    {"GenuineIntel", 6, 207, 207, "amx", "amx_bf16"},    /* Emerald Rapids */
    {"GenuineIntel", 6, 173, 174, "amx", "amx_bf16"},    /* Granite Rapids */
    {"GenuineIntel", 6, 106, 106, "avx512", "avx512bw"}, /* Ice Lake, servers */
    {"GenuineIntel", 6, 85, 85, "avx512", "avx512bw"},   /* Skylake and Cascade Lake, servers */
    {"AuthenticAMD", 25, 16, 31, "avx512bf16", "avx512_bf16"},
    {"AuthenticAMD", 25, 96, 175, "avx512bf16", "avx512_bf16"},
    {"AuthenticAMD", 26, 0, 255, "avx512bf16", "avx512_bf16"},
};

static const struct make *make_of(const char *info) {
    char vendor[64] = "";
    double family = 0, model = -1;
    kiln_doctor_text(info, "vendor_id", vendor, sizeof vendor);
    kiln_doctor_value(info, "cpu family", &family);
    if (!kiln_doctor_value(info, "model\t", &model)) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof makes / sizeof makes[0]; i++) {
        if (strcmp(makes[i].vendor, vendor) == 0 && makes[i].family == (int)family &&
            model >= makes[i].first_model && model <= makes[i].last_model) {
            return &makes[i];
        }
    }
    return NULL;
}

/* Flags of the first processor; "" where they cannot be read. */
static void read_flags(const char *info, char *flags, size_t size) {
    if (!kiln_doctor_text(info, "flags", flags, size) &&
        !kiln_doctor_text(info, "Features", flags, size)) {
        flags[0] = '\0';
    }
}

/* The best tier that the system shows; NULL where that is not known (no x86). */
static const char *best_shown(const char *flags) {
    static const struct {
        const char *tier, *flags[4];
    } tiers[] = {
        {"amx", {"amx_tile", "amx_bf16", "avx512bw", "avx512f"}},
        {"avx512bf16", {"avx512_bf16", "avx512bw", "avx512vl", "avx512f"}},
        {"avx512", {"avx512f", "avx512bw", "avx512vl", "avx512dq"}},
        {"avx2", {"avx2", "fma", "f16c", "avx2"}},
    };
    for (size_t i = 0; i < sizeof tiers / sizeof tiers[0]; i++) {
        size_t there = 0;
        for (size_t f = 0; f < 4; f++) {
            there += kiln_doctor_has(flags, tiers[i].flags[f]);
        }
        if (there == 4) {
            return tiers[i].tier;
        }
    }
    return kiln_doctor_has(flags, "fpu") ? "ref" : NULL;
}

static void check_hidden(struct doctor *d, const char *info, const char *flags) {
    const struct make *make = make_of(info);
    char release[256] = "?";
    int major = 0, minor = 0;
    if (make == NULL || kiln_doctor_has(flags, make->flag)) {
        return;
    }
    kiln_doctor_read(d, release, sizeof release, "/proc/sys/kernel/osrelease");
    const bool old = sscanf(release, "%d.%d", &major, &minor) == 2 &&
                     strcmp(make->tier, "amx") == 0 && (major < 5 || (major == 5 && minor < 16));
    kiln_doctor_found(d, KILN_DOCTOR_SLOW, "hidden instructions",
                      "a processor of this make has %s, and the system does not show it%s%s",
                      make->flag, old ? ": Linux " : "", old ? release : "");
    kiln_doctor_cost(d, strcmp(make->tier, "amx") == 0 ? "products in bf16 are 2 to 8 times slower"
                                                       : "products are about 2 times slower");
    kiln_doctor_advice(d, "%s",
                       old ? "Linux 5.16 or newer lets programs use AMX"
                       : kiln_doctor_has(flags, "hypervisor")
                           ? "the hypervisor hides it: ask for a processor that is passed through "
                             "(qemu: -cpu host), or another kind of machine"
                           : "look for clearcpuid= or noxsave on the kernel's command line "
                             "(/proc/cmdline), or a setting of the firmware");
}

void kiln_doctor_tier(struct doctor *d) {
    static _Thread_local char info[1 << 16];
    char flags[8192] = "";
    const struct doctor_host *h = d->host;
    if (kiln_doctor_read(d, info, sizeof info, "/proc/cpuinfo")) {
        read_flags(info, flags, sizeof flags);
    }
    const char *best = best_shown(flags);
    if (h->tier == NULL) {
        kiln_doctor_found(d, KILN_DOCTOR_BROKEN, "instructions", "%s", h->tier_error);
        kiln_doctor_advice(d, "unset KILN_CPU");
        return;
    }
    if (h->amx_refused) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "instructions",
                          "the processor has AMX, and the system does not let this process use it; "
                          "%s is used",
                          h->tier);
        kiln_doctor_cost(d, "products in bf16 are 2 to 8 times slower");
        kiln_doctor_advice(d,
                           "Linux 5.16 or newer lets programs use AMX, unless a sandbox forbids "
                           "arch_prctl or the kernel was started with it cleared (/proc/cmdline)");
    } else if (h->forced != NULL && best != NULL && strcmp(h->tier, best) != 0) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "instructions",
                          "KILN_CPU=%s is set; the processor has %s", h->forced, best);
        kiln_doctor_cost(d, "each tier is about 2 times as fast as the one below it");
        kiln_doctor_advice(d, "unset KILN_CPU");
    } else if (best != NULL && strcmp(h->tier, "ref") == 0) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "instructions",
                          "plain C is used: the processor has no AVX2 with FMA");
        kiln_doctor_cost(d, "products are 10 times slower than on a processor of the last decade");
        kiln_doctor_advice(d,
                           "in a virtual machine a processor that is passed through may have it "
                           "(qemu: -cpu host); else another machine");
    } else {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "instructions", "%s%s", h->tier,
                          best != NULL && strcmp(h->tier, best) == 0 ? ", the best it has" : "");
    }
    check_hidden(d, info, flags);
}
