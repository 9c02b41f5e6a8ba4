/* SPDX-License-Identifier: MIT
 *
 * doctor_memory.c: memory, swap, huge pages, and what a process may have of the system.
 */
#include <stdio.h>
#include <string.h>

#include "kiln/report.h"
#include "report/doctor_int.h"

#define MEGABYTE 1048576.0

/* Bytes in words; a buffer of the caller. */
static const char *bytes(double n, char buffer[32]) { return kiln_human_bytes(n, buffer, 32); }

/* What the tightest control group leaves and allows; false: none limits. */
static bool group_limit(const struct doctor *d, double *limit, double *used) {
    static const char *const files[][2] = {{"memory.max", "memory.current"},
                                           {"memory.limit_in_bytes", "memory.usage_in_bytes"}};
    char dirs[DOCTOR_GROUPS][DOCTOR_GROUP_PATH];
    const size_t n = kiln_doctor_groups(d, "memory", dirs);
    bool limited = false;
    for (size_t i = 0; i < n; i++) {
        for (size_t f = 0; f < 2; f++) {
            double most = 0, now = 0;
            const bool known = kiln_doctor_number(d, &most, "%s/%s", dirs[i], files[f][0]) &&
                               kiln_doctor_number(d, &now, "%s/%s", dirs[i], files[f][1]);
            if (known && most < 1e18 && (!limited || most - now < *limit - *used)) {
                *limit = most;
                *used = now;
                limited = true;
            }
        }
    }
    return limited;
}

static void check_free(struct doctor *d, double total, double available) {
    char a[32], b[32];
    if (available < 512 * MEGABYTE) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "memory", "%s of %s are free", bytes(available, a),
                          bytes(total, b));
        kiln_doctor_cost(d, "larger models are refused; what does not fit is computed again");
        kiln_doctor_advice(d, "end what takes memory (top, then M), or a smaller --batch");
    } else {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "memory", "%s of %s are free", bytes(available, a),
                          bytes(total, b));
    }
}

static void check_group(struct doctor *d, double total) {
    char a[32], b[32];
    double limit = 0, used = 0;
    if (!group_limit(d, &limit, &used) || limit >= total) {
        return;
    }
    const bool full = used > 0.9 * limit;
    kiln_doctor_found(d, full ? KILN_DOCTOR_SLOW : KILN_DOCTOR_FINE, "memory limit",
                      "a control group allows %s, of which %s are used", bytes(limit, a),
                      bytes(used, b));
    if (full) {
        kiln_doctor_cost(d, "beyond it the system kills the process");
        kiln_doctor_advice(d, "raise it (container: --memory; systemd: MemoryMax)");
    }
}

static void check_swap(struct doctor *d, const char *info, double total) {
    char a[32], b[32];
    double swap = 0, swap_free = 0, swappiness = 60;
    if (!kiln_doctor_value(info, "SwapTotal", &swap) ||
        !kiln_doctor_value(info, "SwapFree", &swap_free)) {
        return;
    }
    const double used = (swap - swap_free) * 1024;
    kiln_doctor_number(d, &swappiness, "/proc/sys/vm/swappiness");
    if (used > 0.02 * total) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "swap", "%s of %s are used (swappiness %.0f)",
                          bytes(used, a), bytes(swap * 1024, b), swappiness);
        kiln_doctor_cost(d, "what is read from there takes 100 times as long as from memory");
        kiln_doctor_advice(d,
                           "--memory with less than what is free; as root sysctl "
                           "vm.swappiness=10 keeps programs in memory");
    } else {
        kiln_doctor_found(
            d, KILN_DOCTOR_FINE, "swap",
            swap > 0 ? "not used" : "there is none: beyond the memory a process ends");
    }
}

static void check_huge_pages(struct doctor *d) {
    char text[128];
    if (!kiln_doctor_read(d, text, sizeof text, "/sys/kernel/mm/transparent_hugepage/enabled")) {
        return;
    }
    if (strstr(text, "[never]") != NULL) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "huge pages", "off (transparent_hugepage/enabled)");
        kiln_doctor_cost(d,
                         "some percent of a step: addresses of weights are looked up more often");
        kiln_doctor_advice(d,
                           "as root: echo madvise > "
                           "/sys/kernel/mm/transparent_hugepage/enabled");
        return;
    }
    kiln_doctor_found(d, KILN_DOCTOR_FINE, "huge pages", "%s",
                      strstr(text, "[always]") != NULL ? "always" : "where they are asked for");
}

/* With vm.overcommit_memory 2 what is mapped counts, whether it is used or not. */
static void check_overcommit(struct doctor *d, const char *info) {
    char a[32];
    double mode = 0, limit = 0, committed = 0;
    if (!kiln_doctor_number(d, &mode, "/proc/sys/vm/overcommit_memory") || mode != 2 ||
        !kiln_doctor_value(info, "CommitLimit", &limit) ||
        !kiln_doctor_value(info, "Committed_AS", &committed)) {
        return;
    }
    const double left = (limit - committed) * 1024;
    const bool few = left < 1024 * MEGABYTE;
    kiln_doctor_found(d, few ? KILN_DOCTOR_BROKEN : KILN_DOCTOR_FINE, "overcommit",
                      "vm.overcommit_memory is 2: %s may still be asked for",
                      bytes(left > 0 ? left : 0, a));
    if (few) {
        kiln_doctor_advice(d, "as root: sysctl vm.overcommit_memory=0");
    }
}

void kiln_doctor_memory(struct doctor *d) {
    char info[8192];
    double total = 0, available = 0;
    if (!kiln_doctor_read(d, info, sizeof info, "/proc/meminfo") ||
        !kiln_doctor_value(info, "MemTotal", &total) ||
        !kiln_doctor_value(info, "MemAvailable", &available)) {
        kiln_doctor_found(d, KILN_DOCTOR_UNKNOWN, "memory", "what is free cannot be read here");
        return;
    }
    check_free(d, total * 1024, available * 1024);
    check_group(d, total * 1024);
    check_swap(d, info, total * 1024);
    check_huge_pages(d);
    check_overcommit(d, info);
}

/* ---- limits of the process ------------------------------------------------------------------ */

static void check_limit(struct doctor *d, const char *text, const char *line, double least,
                        const char *flag, const char *why) {
    double limit = 0;
    if (!kiln_doctor_value(text, line, &limit) || limit >= least) {
        return; /* unlimited, or enough */
    }
    char shown[48];
    if (strcmp(line, "Max open files") == 0) {
        snprintf(shown, sizeof shown, "%.0f", limit);
    } else if (strcmp(line, "Max cpu time") == 0) {
        snprintf(shown, sizeof shown, "%.0f s", limit);
    } else {
        bytes(limit, shown);
    }
    kiln_doctor_found(d, KILN_DOCTOR_BROKEN, "limits", "%s is %s (ulimit %s)", line, shown, flag);
    kiln_doctor_cost(d, "%s", why);
    kiln_doctor_advice(d,
                       "ulimit %s unlimited, where the hard limit allows it; else "
                       "/etc/security/limits.conf, or whoever starts the process",
                       flag);
}

void kiln_doctor_limits(struct doctor *d, double need_bytes) {
    char text[8192];
    if (!kiln_doctor_read(d, text, sizeof text, "/proc/self/limits")) {
        kiln_doctor_found(d, KILN_DOCTOR_UNKNOWN, "limits",
                          "limits of the process cannot be read here");
        return;
    }
    const size_t before = d->out->n;
    const double need = need_bytes > 0 ? need_bytes : 1024 * MEGABYTE;
    check_limit(d, text, "Max cpu time", 1e9, "-t", "the system ends the process at that time");
    check_limit(d, text, "Max file size", need, "-f", "the state of a run cannot be written");
    check_limit(d, text, "Max data size", 2048 * MEGABYTE, "-d", "memory is refused beyond it");
    check_limit(d, text, "Max address space", 4096 * MEGABYTE, "-v",
                "the state is mapped as a whole, and counts");
    check_limit(d, text, "Max open files", 64, "-n", "files and libraries cannot be opened");
    if (d->out->n == before) {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "limits", "no limit of the process is in the way");
    }
}
