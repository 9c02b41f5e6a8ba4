/* SPDX-License-Identifier: MIT
 *
 * doctor.c: kiln doctor: gathers what system calls and stopwatches say, then runs the checks.
 */
#include "kiln/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <utf8proc.h>
#include <zlib.h>
#include <zstd.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#if KILN_HAVE_DNNL
#include <oneapi/dnnl/dnnl.h>
#endif

#include "base/io.h"
#include "base/machine.h"
#include "base/pool.h"
#include "device/host/gpu.h"
#include "kernel/ceiling.h"
#include "kernel/kernel.h"
#include "kiln/plan.h"
#include "kiln/report.h"
#include "report/doctor_int.h"

const char *kiln_doctor_level_name(enum kiln_doctor_level level) {
    static const char *const names[] = {"fine", "unknown", "slow", "broken"};
    return names[level];
}

enum kiln_doctor_level kiln_doctor_worst(const struct kiln_doctor *doctor) {
    enum kiln_doctor_level worst = KILN_DOCTOR_FINE;
    for (size_t i = 0; i < doctor->n; i++) {
        worst = doctor->finding[i].level > worst ? doctor->finding[i].level : worst;
    }
    return worst;
}

size_t kiln_doctor_count(const struct kiln_doctor *doctor, enum kiln_doctor_level level) {
    size_t n = 0;
    for (size_t i = 0; i < doctor->n; i++) {
        n += doctor->finding[i].level == level;
    }
    return n;
}

/* ---- libraries and GPU ---------------------------------------------------------------------- */

void kiln_doctor_libraries(struct doctor *d) {
    char pcre[64] = "?", onednn[96] = "none";
    pcre2_config(PCRE2_CONFIG_VERSION, pcre);
    pcre[strcspn(pcre, " ")] = '\0';
#if KILN_HAVE_DNNL
    const dnnl_version_t *v = dnnl_version();
    snprintf(onednn, sizeof onednn, "%d.%d.%d", v->major, v->minor, v->patch);
#endif
    kiln_doctor_found(
        d, KILN_DOCTOR_FINE, "libraries",
        "jansson %s, PCRE2 %s, utf8proc %s, zlib %s, zstd %s, libmicrohttpd %s, oneDNN "
        "%s",
        jansson_version_str(), pcre, utf8proc_version(), zlibVersion(), ZSTD_versionString(),
        MHD_get_version(), onednn);
    const char *provider = getenv("KILN_GEMM");
    const bool other = provider != NULL && strcmp(provider, "onednn") == 0;
    kiln_doctor_found(d, KILN_DOCTOR_FINE, "onednn", "%s",
                      other ? "KILN_GEMM=onednn: it takes products in bf16, where it knows them"
                      : KILN_HAVE_DNNL
                          ? "there, and not used: kiln's own products are faster; KILN_GEMM=onednn "
                            "takes those in bf16 from it, to compare"
                          : "this build is without it; nothing is lost: products in fp32 and bf16 "
                            "are kiln's own");
}

void kiln_doctor_gpu(struct doctor *d) {
    if (!d->options->gpu) {
        return;
    }
    if (d->host->gpu[0] != '\0') {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "gpu", "%s, and it multiplies right", d->host->gpu);
    } else {
        kiln_doctor_found(d, KILN_DOCTOR_BROKEN, "gpu", "%s", d->host->gpu_error);
        kiln_doctor_advice(d, "leave --dw gpu out, or install the driver and CLBlast: docs/gpu.md");
    }
}

/* ---- all checks ----------------------------------------------------------------------------- */

static void describe(struct doctor *d) {
    char model[96] = "", info[8192], memory[32] = "", release[96] = "";
    double total = 0;
    if (!kiln_doctor_read(d, info, sizeof info, "/proc/cpuinfo") ||
        !kiln_doctor_text(info, "model name", model, sizeof model)) {
        kiln_cpu_model(model, sizeof model);
    }
    if (kiln_doctor_read(d, info, sizeof info, "/proc/meminfo") &&
        kiln_doctor_value(info, "MemTotal", &total)) {
        kiln_human_bytes(total * 1024, memory, sizeof memory);
    }
    struct utsname system;
    if (kiln_doctor_read(d, info, sizeof info, "/proc/sys/kernel/osrelease")) {
        snprintf(release, sizeof release, "Linux %.80s", info);
    } else if (uname(&system) == 0) {
        snprintf(release, sizeof release, "%.40s %.40s", system.sysname, system.release);
    }
    snprintf(d->out->machine, sizeof d->out->machine, "%s, %zu processors%s%s, %s", model,
             d->allowed > 0 ? d->allowed : kiln_cpu_count(), memory[0] ? ", " : "", memory,
             release);
}

/* What versions of Linux get wrong, as far as training knows it. */
static void check_system(struct doctor *d) {
    char release[256];
    int major = 0, minor = 0;
    if (!kiln_doctor_read(d, release, sizeof release, "/proc/sys/kernel/osrelease") ||
        sscanf(release, "%d.%d", &major, &minor) != 2) {
        kiln_doctor_found(d, KILN_DOCTOR_UNKNOWN, "system", "its version cannot be read here");
    } else if (major < 4 || (major == 4 && minor < 13)) {
        kiln_doctor_found(d, KILN_DOCTOR_SLOW, "system",
                          "Linux %s may forget that a write to the disk failed before fsync asks",
                          release);
        kiln_doctor_cost(d, "a checkpoint that was reported as written may not be there");
        kiln_doctor_advice(d, "Linux 4.13 or newer; kiln verify RUN until then");
    } else if (strstr(release, "icrosoft") != NULL) {
        kiln_doctor_found(
            d, KILN_DOCTOR_FINE, "system",
            "Linux %s, inside Windows: folders below /mnt are slow, those of Linux are "
            "not",
            release);
    } else {
        kiln_doctor_found(d, KILN_DOCTOR_FINE, "system", "Linux %s", release);
    }
}

void kiln_doctor_look(const struct kiln_doctor_options *options, const struct doctor_host *host,
                      bool run, struct kiln_doctor *out) {
    struct doctor d = {.options = options, .host = host, .out = out};
    double need_bytes = 0;
    out->n = 0;
    kiln_doctor_processors(&d);
    describe(&d);
    kiln_doctor_load(&d);
    kiln_doctor_tier(&d);
    kiln_doctor_rates(&d);
    kiln_doctor_frequency(&d);
    kiln_doctor_heat(&d);
    kiln_doctor_clock(&d);
    kiln_doctor_memory(&d);
    if (run) {
        kiln_doctor_run(&d, host->folder, &need_bytes);
    }
    kiln_doctor_disk(&d, need_bytes);
    kiln_doctor_limits(&d, need_bytes);
    check_system(&d);
    kiln_doctor_libraries(&d);
    kiln_doctor_gpu(&d);
}

/* ---- what is measured ----------------------------------------------------------------------- */

/* With a thread for each core, where that is less than all, products are measured, too. */
static void measure_products(const struct kiln_doctor_options *options, struct doctor_host *host) {
    static _Thread_local struct kiln_doctor unused;
    struct doctor d = {.options = options, .host = host, .out = &unused};
    unused.n = 0;
    kiln_doctor_processors(&d);
    const size_t threads = d.threads > 0 ? d.threads : kiln_cpu_count();
    const size_t counts[2] = {threads, d.cores < threads ? d.cores : 0};
    double *const rates[2] = {&host->products_tflops, &host->few_tflops};
    for (size_t i = 0; i < 2; i++) {
        struct kiln_pool *pool;
        if (counts[i] == 0 || kiln_pool_create(counts[i], &pool, NULL) != KILN_OK) {
            continue;
        }
        if (kiln_ceiling_products(pool, options->precision, rates[i], NULL) != KILN_OK) {
            *rates[i] = 0;
        }
        if (i == 0 && kiln_memory_available() > 3 * KILN_CEILING_COPY_BYTES &&
            kiln_ceiling_copy(pool, &host->copy_gb_s, NULL) != KILN_OK) {
            host->copy_gb_s = 0;
        }
        kiln_pool_destroy(pool);
    }
}

static void measure_clock(struct doctor_host *host) {
    enum { READINGS = 20000 };
    const double start = kiln_now_s();
    for (int i = 0; i < READINGS; i++) {
        (void)kiln_now_s();
    }
    host->clock_ns = (kiln_now_s() - start) * 1e9 / READINGS;
}

/* The median of a few changes of a small file that are waited for, as a cursor's are. */
static double measure_sync(const char *folder) {
    enum { CHANGES = 7 };
    char path[4200];
    double took[CHANGES];
    snprintf(path, sizeof path, "%s/disk-sync.tmp", folder);
    const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t n = 0;
    while (fd >= 0 && n < CHANGES) {
        const double start = kiln_now_s();
        if (pwrite(fd, took, sizeof took, (off_t)n * 4096) != sizeof took || fsync(fd) != 0) {
            break;
        }
        const double now = kiln_now_s() - start;
        size_t at = n++;
        for (; at > 0 && took[at - 1] > now; at--) {
            took[at] = took[at - 1];
        }
        took[at] = now;
    }
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    return n == CHANGES ? took[CHANGES / 2] : 0;
}

static void measure_disk(struct doctor_host *host) {
    struct kiln_profile profile = {0};
    if (host->writable && host->disk_free > ((uint64_t)1 << 30) &&
        kiln_profile_disk(host->folder, &profile, NULL) == KILN_OK) {
        host->write_gb_s = profile.disk_write_gb_s;
        host->sync_s = measure_sync(host->folder);
    }
}

static enum kiln_status look_at_folder(const char *folder, struct doctor_host *host,
                                       struct kiln_err *err) {
    struct stat info;
    struct statvfs space;
    char *real = realpath(folder, NULL);
    KILN_REQUIRE(real != NULL, err, KILN_EINPUT, "doctor: %s: %s", folder, strerror(errno));
    const size_t length = strlen(real);
    snprintf(host->folder, sizeof host->folder, "%s", real);
    free(real); /* NOLINT: realpath's */
    KILN_REQUIRE(
        length < sizeof host->folder && stat(host->folder, &info) == 0 && S_ISDIR(info.st_mode),
        err, KILN_EINPUT, "doctor: %s is no folder; name a run, or the folder where runs are to be",
        folder);
    host->writable = access(host->folder, W_OK | X_OK) == 0;
    if (statvfs(host->folder, &space) == 0) {
        host->disk_bytes = (uint64_t)space.f_blocks * space.f_frsize;
        host->disk_free = (uint64_t)space.f_bavail * space.f_frsize;
        host->disk_files = space.f_files;
        host->disk_files_free = space.f_favail;
    }
    return KILN_OK;
}

static void look_at_gpu(struct doctor_host *host) {
    const struct kiln_gpu_extent small = {
        .rows = 64, .cols = 64, .tokens = 64, .precision = KILN_PRECISION_FP32};
    struct kiln_gpu *gpu;
    struct kiln_err err = {.message = ""};
    if (kiln_gpu_open(&small, 1, &gpu, &err) == KILN_OK) {
        snprintf(host->gpu, sizeof host->gpu, "%s", kiln_gpu_description(gpu));
        kiln_gpu_close(gpu);
    } else {
        snprintf(host->gpu_error, sizeof host->gpu_error, "%.390s", err.message);
    }
}

static void look_at_tier(const struct kiln_doctor_options *options, struct doctor_host *host) {
    struct kiln_cpu cpu;
    struct kiln_err err = {.message = ""};
    const char *forced = getenv("KILN_CPU");
    host->forced = forced != NULL && forced[0] != '\0' ? forced : NULL;
    if (kiln_cpu_describe(options->precision, &cpu, &err) == KILN_OK) {
        host->tier = cpu.tier;
    } else {
        snprintf(host->tier_error, sizeof host->tier_error, "%.190s", err.message);
    }
#if defined(__x86_64__)
    host->amx_refused = host->forced == NULL && kiln_cpu_has_amx() && !kiln_cpu_may_use_amx();
#endif
}

enum kiln_status kiln_doctor(const struct kiln_doctor_options *options, struct kiln_doctor *out,
                             struct kiln_err *err) {
    struct doctor_host host = {0};
    char path[4200];
    *out = (struct kiln_doctor){.n = 0};
    KILN_TRY(look_at_folder(options->folder != NULL ? options->folder : ".", &host, err));
    snprintf(path, sizeof path, "%s/run.json", host.folder);
    look_at_tier(options, &host);
    if (options->gpu) {
        look_at_gpu(&host);
    }
    if (options->measure) {
        measure_clock(&host);
        measure_disk(&host);
        if (host.tier != NULL) {
            measure_products(options, &host); /* last: the frequency is read behind it */
        }
    }
    kiln_doctor_look(options, &host, kiln_path_exists(path), out);
    return KILN_OK;
}
