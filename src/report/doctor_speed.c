/* SPDX-License-Identifier: MIT
 *
 * doctor_speed.c: how fast the processors run, and what slows them: frequency, heat, the clock.
 */
#include <stdio.h>
#include <string.h>

#include "report/doctor_int.h"

#define CPU0 "/sys/devices/system/cpu/cpu0/cpufreq/"

/* ---- rates ---------------------------------------------------------------------------------- */

/* Operations that a core of a tier does in a cycle at best, in bf16 where the tier has it: vectors
 * of 512 bits hold 16 sums; two of them a cycle, and twice as many operands in bf16; AMX 16 x 16
 * sums of 32 products in 16 cycles. Half of it where a make has one unit: see RATE_LEAST. */
static double per_cycle(const char *tier, enum kiln_precision precision) {
    static const struct {
        const char *tier;
        double operations;
    } known[] = {{"amx", 1024}, {"avx512bf16", 64}, {"avx512", 32},
                 {"avx2", 16},  {"neon", 8},        {"neonbf16", 32}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const bool whole = precision == KILN_PRECISION_FP32;
        if (strcmp(known[i].tier, tier) == 0) {
            return whole && strncmp(tier, "neon", 4) == 0 ? 8
                   : whole && known[i].operations > 32    ? 32
                                                          : known[i].operations;
        }
    }
    return 0;
}
/* Below this share of the least that a processor of the tier does, something takes it away. */
#define RATE_LEAST 0.6

/* Hertz at which the processor should run: its base or its greatest frequency; 0: unknown. */
static double frequency(const struct doctor *d) {
    static _Thread_local char info[1 << 16];
    double khz = 0, mhz = 0;
    if (kiln_doctor_number(d, &khz, CPU0 "base_frequency") ||
        kiln_doctor_number(d, &khz, CPU0 "cpuinfo_max_freq")) {
        return khz * 1e3;
    }
    if (kiln_doctor_read(d, info, sizeof info, "/proc/cpuinfo")) {
        kiln_doctor_value(info, "cpu MHz", &mhz);
    }
    return mhz * 1e6;
}

static void check_products(struct doctor *d) {
    const struct doctor_host *h = d->host;
    if (h->products_tflops <= 0 || h->tier == NULL) {
        return;
    }
    const size_t busy = d->threads < d->cores || d->cores == 0 ? d->threads : d->cores;
    const double expected = per_cycle(h->tier, kiln_precision_resolve(d->options->precision)) *
                            frequency(d) * (double)busy * 1e-12;
    if (expected > 0 && h->products_tflops < RATE_LEAST * expected) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "products",
                          "%.3g TFLOP/s measured on %zu threads; %zu cores with %s should do "
                          "%.3g",
                          h->products_tflops, d->threads, busy, h->tier, expected);
        kiln_doctor_cost(d, "a step takes about %.1f times as long", expected / h->products_tflops);
        kiln_doctor_advice(d,
                           "other load, a quota, heat or a low frequency does this: see the other "
                           "findings; where none says so, other guests of the same host");
        return;
    }
    kiln_doctor_found(d, KILN_DOCTOR_FINE, "products", "%.3g TFLOP/s measured on %zu threads",
                      h->products_tflops, d->threads);
    if (expected > 0) {
        kiln_doctor_cost(d, "%zu cores with %s should do %.3g or more", busy, h->tier, expected);
    }
}

/* A channel of DDR4-2400, which is the slowest that machines with AVX2 have, moves 19.2 GB/s; half
 * of it is what a copy gets at worst. */
#define COPY_LEAST 9.6

void kiln_doctor_rates(struct doctor *d) {
    check_products(d);
    const double copy = d->host->copy_gb_s;
    if (copy <= 0) {
        return;
    }
    const double update_ms = 32.0 * 100e6 / (copy * 1e9) * 1e3;
    if (copy < COPY_LEAST) {
        kiln_doctor_found(
            d, KILN_DOCTOR_SLOW, "memory rate",
            "%.1f GB/s of copying measured; one channel of DDR4 does %.1f at the least", copy,
            COPY_LEAST);
        kiln_doctor_cost(d, "an update of 100 M parameters takes %.0f ms instead of %.0f",
                         update_ms, update_ms * copy / COPY_LEAST);
        kiln_doctor_advice(d,
                           "other load takes it, or a memory slot is empty: fill all channels; "
                           "more --accum makes updates rarer");
        return;
    }
    kiln_doctor_found(d, KILN_DOCTOR_FINE, "memory rate", "%.1f GB/s of copying measured", copy);
    kiln_doctor_cost(d, "an update of 100 M parameters takes %.0f ms", update_ms);
}

/* ---- frequency ------------------------------------------------------------------------------ */

static void check_governor(struct doctor *d) {
    char governor[64], driver[64] = "", preference[64] = "";
    if (!kiln_doctor_read(d, governor, sizeof governor, CPU0 "scaling_governor")) {
        return;
    }
    kiln_doctor_read(d, driver, sizeof driver, CPU0 "scaling_driver");
    kiln_doctor_read(d, preference, sizeof preference, CPU0 "energy_performance_preference");
    /* Drivers in which the processor chooses by itself call that powersave, too. */
    const bool own = strcmp(driver, "intel_pstate") == 0 || strcmp(driver, "amd-pstate-epp") == 0;
    const bool slow =
        strcmp(governor, "powersave") == 0 && (!own || strcmp(preference, "power") == 0);
    if (!slow) {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "governor", "%s%s%s", governor,
                          driver[0] ? " of " : "", driver);
        return;
    }
    kiln_doctor_found(d, KILN_DOCTOR_SLOW, "governor",
                      "%s of %s%s%s: the processor stays at low frequencies", governor,
                      driver[0] ? driver : "an unknown driver",
                      preference[0] ? ", preference " : "", preference);
    kiln_doctor_advice(d, "as root: cpupower frequency-set -g %s",
                       own ? "performance" : "schedutil (or performance)");
}

static void check_cap(struct doctor *d) {
    double now = 0, most = 0, allowed = 0, no_turbo = 0;
    if (!kiln_doctor_number(d, &most, CPU0 "cpuinfo_max_freq") || most <= 0) {
        return;
    }
    if (kiln_doctor_number(d, &allowed, CPU0 "scaling_max_freq") && allowed < 0.95 * most) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "frequency",
                          "limited to %.2f GHz; the processor goes to %.2f (scaling_max_freq)",
                          allowed * 1e-6, most * 1e-6);
        kiln_doctor_cost(d, "up to %.0f %% of the rate of products",
                         100.0 * (1.0 - allowed / most));
        kiln_doctor_advice(d,
                           "as root: cpupower frequency-set -u %.0fMHz; tools that save power "
                           "set this, too (tlp, power-profiles-daemon)",
                           most * 1e-3);
        return;
    }
    if (kiln_doctor_number(d, &no_turbo, "/sys/devices/system/cpu/intel_pstate/no_turbo") &&
        no_turbo > 0) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "frequency", "turbo is off (intel_pstate/no_turbo)");
        kiln_doctor_advice(d, "as root: echo 0 > /sys/devices/system/cpu/intel_pstate/no_turbo");
        return;
    }
    /* Read behind the measuring, so that the processor had something to do. */
    if (!kiln_doctor_number(d, &now, CPU0 "scaling_cur_freq")) {
        return;
    }
    const bool low = d->host->products_tflops > 0 && now < 0.6 * most;
    kiln_doctor_found(d, low ? KILN_DOCTOR_SLOW : KILN_DOCTOR_FINE, "frequency",
                      "%.2f GHz of at most %.2f%s", now * 1e-6, most * 1e-6,
                      low ? ", behind seconds of work" : "");
    if (low) {
        kiln_doctor_cost(d, "about %.0f %% of the rate of products", 100.0 * (1.0 - now / most));
        kiln_doctor_advice(d,
                           "heat, a limit of power or the governor holds it down: clean the fans, "
                           "plug the charger in, see the other findings");
    }
}

static void check_battery(struct doctor *d) {
    static const char *const names[] = {"AC", "AC0", "ACAD", "ADP0", "ADP1", "Mains"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        double online = 1;
        if (kiln_doctor_number(d, &online, "/sys/class/power_supply/%s/online", names[i]) &&
            online == 0) {
            kiln_doctor_found(d, KILN_DOCTOR_SLOW, "power", "the machine runs on its battery");
            kiln_doctor_cost(d, "a lower frequency, and an end when it is empty");
            kiln_doctor_advice(d, "plug the charger in");
        }
    }
}

void kiln_doctor_frequency(struct doctor *d) {
    const size_t before = d->out->n;
    check_governor(d);
    check_cap(d);
    if (d->out->n == before) {
        kiln_doctor_found(d, KILN_DOCTOR_UNKNOWN, "frequency",
                          "governor and frequency cannot be read here%s",
                          d->online > 0 ? "; a hypervisor keeps them to itself" : "");
    }
    check_battery(d);
}

/* ---- heat and clock ------------------------------------------------------------------------- */

/* Degrees Celsius at which processors lower their frequency: most at 95 to 105. */
#define HOT 95.0

void kiln_doctor_heat(struct doctor *d) {
    static const char *const kinds[] = {"core", "package"};
    double most = 0, hottest = 0;
    bool known = false;
    for (size_t cpu = 0; cpu < (d->online > 0 ? d->online : 1); cpu++) {
        for (size_t k = 0; k < 2; k++) {
            double count = 0;
            if (kiln_doctor_number(d, &count,
                                   "/sys/devices/system/cpu/cpu%zu/thermal_throttle/"
                                   "%s_throttle_count",
                                   cpu, kinds[k])) {
                known = true;
                most = count > most ? count : most;
            }
        }
    }
    for (int zone = 0; zone < 32; zone++) {
        double millis = 0;
        if (kiln_doctor_number(d, &millis, "/sys/class/thermal/thermal_zone%d/temp", zone)) {
            known = true;
            hottest = millis * 1e-3 > hottest ? millis * 1e-3 : hottest;
        }
    }
    if (!known) {
        kiln_doctor_found(d, KILN_DOCTOR_UNKNOWN, "heat", "temperatures cannot be read here");
    } else if (hottest >= HOT) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "heat", "%.0f degrees Celsius", hottest);
        kiln_doctor_cost(d, "the processor lowers its frequency");
        kiln_doctor_advice(d, "clean the fans, let air in; fewer --threads make less heat");
    } else if (most > 0) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "heat",
                          "the processor was slowed down by heat %.0f times since the system "
                          "started",
                          most);
        kiln_doctor_advice(d, "clean the fans, let air in; fewer --threads make less heat");
    } else {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "heat", "never too hot since the system started");
    }
}

void kiln_doctor_clock(struct doctor *d) {
    static const char *const slow[] = {"hpet", "acpi_pm", "jiffies", "xen", "refined-jiffies"};
    char source[64];
    if (!kiln_doctor_read(d, source, sizeof source,
                          "/sys/devices/system/clocksource/clocksource0/current_clocksource")) {
        kiln_doctor_found(d, KILN_DOCTOR_UNKNOWN, "clock", "its source cannot be read here");
        return;
    }
    for (size_t i = 0; i < sizeof slow / sizeof slow[0]; i++) {
        if (strcmp(source, slow[i]) == 0) {
            kiln_doctor_found(d, KILN_DOCTOR_SLOW, "clock", "%s is the clock: it is slow to read",
                              source);
            kiln_doctor_cost(d, "%.0f ns each time; a good one takes 20 to 60",
                             d->host->clock_ns > 0 ? d->host->clock_ns : 1000.0);
            kiln_doctor_advice(d,
                               "see in dmesg why tsc was given up; clocksource=tsc on the "
                               "kernel's command line asks for it again");
            return;
        }
    }
    kiln_doctor_found(d, KILN_DOCTOR_FINE, "clock", "%s", source);
    if (d->host->clock_ns > 0) {
        kiln_doctor_cost(d, "%.0f ns to read", d->host->clock_ns);
    }
}
