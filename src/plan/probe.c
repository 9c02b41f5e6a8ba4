/* SPDX-License-Identifier: MIT
 *
 * probe.c: probes: what is measured of a host, rows and figures, profile.json and probe.md.
 */
#include "kiln/probe.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "kernel/ceiling.h"
#include "plan/probe_int.h"
#include "plan/profile_file.h"

/* ---- rows and figures --------------------------------------------------------------------------
 */

struct kiln_probe_row *kiln_probe_add(struct kiln_probe *probe, const char *name,
                                      const char *value) {
    static struct kiln_probe_row spare; /* of a row too many, which a test would see */
    struct kiln_probe_row *row =
        probe->n_rows < KILN_PROBE_ROWS ? &probe->rows[probe->n_rows++] : &spare;
    *row = (struct kiln_probe_row){.name = ""};
    snprintf(row->name, sizeof row->name, "%s", name);
    snprintf(row->value, sizeof row->value, "%s", value);
    return row;
}

void kiln_probe_how(struct kiln_probe_row *row, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(row->how, sizeof row->how, fmt, args);
    va_end(args);
}

void kiln_probe_figure(struct kiln_probe *probe, const char *name, double value, const char *fmt,
                       ...) {
    char text[96];
    size_t i = 0;
    while (i + 1 < KILN_FIGURES && strcmp(kiln_figure(i)->name, name) != 0) {
        i++;
    }
    const struct kiln_figure *figure = kiln_figure(i);
    value = value < figure->least ? figure->least : value > figure->most ? figure->most : value;
    *kiln_figure_of(&probe->file.profile, i) = value;
    probe->file.known[i] = true;
    snprintf(text, sizeof text, "%.4g %s", value, figure->unit);
    struct kiln_probe_row *row = kiln_probe_add(probe, name, text);
    va_list args;
    va_start(args, fmt);
    vsnprintf(row->how, sizeof row->how, fmt, args);
    va_end(args);
    snprintf(probe->file.source[i], sizeof probe->file.source[i], "measured: %.380s", row->how);
}

void kiln_probe_doing(const struct kiln_probe_options *options, const char *doing) {
    if (options->progress != NULL) {
        options->progress(options->context, doing);
    }
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double kiln_probe_median(double *values, size_t n) {
    qsort(values, n, sizeof *values, by_value);
    return n == 0 ? 0 : n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* ---- the host ----------------------------------------------------------------------------------
 */

/* A row for a precision; 0 where this machine has no products of it. */
static enum kiln_status products(struct kiln_probe *probe, struct kiln_pool *pool,
                                 enum kiln_precision precision, double *tflops,
                                 struct kiln_err *err) {
    char name[64], value[96] = "none";
    struct kiln_err why;
    *tflops = 0;
    snprintf(name, sizeof name, "products in %s", kiln_precision_name(precision));
    const enum kiln_status status = kiln_ceiling_products(pool, precision, tflops, &why);
    if (status != KILN_OK && status != KILN_EUNSUPPORTED) {
        return KILN_FAIL(err, status, "%s", why.message);
    }
    if (status == KILN_OK) {
        snprintf(value, sizeof value, "%.4g TFLOP/s", *tflops);
    }
    struct kiln_probe_row *row = kiln_probe_add(probe, name, value);
    if (status == KILN_OK) {
        kiln_probe_how(row, "random operands that stay in caches, %zu threads, best of 6",
                       kiln_pool_threads(pool));
    } else {
        kiln_probe_how(row, "%s", why.message);
    }
    return KILN_OK;
}

static enum kiln_status host(const struct kiln_probe_options *options, struct kiln_pool *pool,
                             struct kiln_probe *probe, struct kiln_err *err) {
    const bool cpu = options->device.id == KILN_CPU;
    const enum kiln_precision precision = kiln_precision_resolve(options->precision);
    double fp32 = 0, bf16 = 0, copy = 0, pack = 0;
    kiln_probe_doing(options, "products, copying and packing on the cpu");
    KILN_TRY(products(probe, pool, KILN_PRECISION_FP32, &fp32, err));
    KILN_TRY(products(probe, pool, KILN_PRECISION_BF16, &bf16, err));
    KILN_TRY(kiln_ceiling_copy(pool, &copy, err));
    const double own = precision == KILN_PRECISION_BF16 && bf16 > 0 ? bf16 : fp32;
    if (cpu) {
        KILN_TRY(kiln_ceiling_pack(pool, precision, &pack, err));
        kiln_probe_figure(probe, "ceiling_tflops", own, "products in %s, see above",
                          kiln_precision_name(precision));
        kiln_probe_figure(probe, "tflops", KILN_PASS_SHARE * own,
                          "%.2f of ceiling_tflops, the share that training reaches",
                          KILN_PASS_SHARE);
        kiln_probe_figure(probe, "compile_gb_s", pack,
                          "64 MB of fp32 packed both ways into fresh memory, bytes written, %zu "
                          "threads",
                          kiln_pool_threads(pool));
    }
    kiln_probe_figure(probe, "host_tflops", KILN_PASS_SHARE * (cpu ? own : fp32),
                      "%.2f of the host's products in %s", KILN_PASS_SHARE,
                      cpu ? kiln_precision_name(precision) : "fp32");
    kiln_probe_figure(probe, "update_gb_s", copy,
                      "memory copied beyond the caches, read and written, %zu threads",
                      kiln_pool_threads(pool));
    return KILN_OK;
}

static enum kiln_status disk(const struct kiln_probe_options *options, struct kiln_probe *probe,
                             struct kiln_err *err) {
    struct kiln_profile rates;
    if (options->folder == NULL) {
        return KILN_OK;
    }
    kiln_probe_doing(options, "the disk");
    KILN_TRY(kiln_make_dirs(options->folder, err));
    KILN_TRY(kiln_profile_disk(options->folder, &rates, err));
    kiln_probe_figure(probe, "disk_write_gb_s", rates.disk_write_gb_s,
                      "a file of 256 MiB written and synced");
    kiln_probe_figure(probe, "disk_read_gb_s", rates.disk_read_gb_s,
                      "the same file read, as far as the system lets its cache go");
    return KILN_OK;
}

static enum kiln_status probe_with(const struct kiln_probe_options *options, struct kiln_pool *pool,
                                   struct kiln_probe *out, struct kiln_err *err) {
    struct kiln_npu_runtime *runtime = NULL;
    struct kiln_cpu cpu;
    enum kiln_status status = KILN_OK;
    if (options->device.id == KILN_CPU) {
        KILN_TRY(kiln_cpu_describe(options->precision, &cpu, err));
        snprintf(out->file.device, sizeof out->file.device, "cpu %s, products by %s, %zu threads",
                 cpu.tier, cpu.provider, kiln_pool_threads(pool));
    } else {
        out->file.npu = true;
        kiln_probe_doing(options, "opening the device");
        KILN_TRY(kiln_probe_open_runtime(&options->device, pool, &runtime, err));
        const double times = options->device.sim_time;
        if (times > 0) {
            snprintf(out->file.device, sizeof out->file.device, "%s, charging %g times a profile",
                     runtime->description, times);
        } else {
            snprintf(out->file.device, sizeof out->file.device, "%s", runtime->description);
        }
        status = kiln_probe_npu(options, runtime, out, err);
        runtime->ops->close(runtime);
    }
    if (status == KILN_OK) {
        status = host(options, pool, out, err);
    }
    return status == KILN_OK ? disk(options, out, err) : status;
}

enum kiln_status kiln_probe(const struct kiln_probe_options *options, struct kiln_probe *out,
                            struct kiln_err *err) {
    struct kiln_pool *pool = NULL;
    memset(out, 0, sizeof *out);
    KILN_TRY(kiln_pool_create(options->threads > 0 ? options->threads : 1, &pool, err));
    const enum kiln_status status = probe_with(options, pool, out, err);
    kiln_pool_destroy(pool);
    return status;
}

/* ---- files -------------------------------------------------------------------------------------
 */

/* A table of Markdown holds no line and no bar. */
static void put_cell(FILE *to, const char *text) {
    fputs("| ", to);
    for (; *text != '\0'; text++) {
        fputc(*text == '|' || *text == '\n' ? '/' : *text, to);
    }
    fputc(' ', to);
}

static enum kiln_status write_report(const struct kiln_probe *probe, const char *path,
                                     struct kiln_err *err) {
    struct kiln_durable out;
    KILN_TRY(kiln_durable_open(&out, path, err));
    fprintf(out.stream,
            "# Probe of %s\n\nMeasured by `kiln probe`. The figures of the plan are in "
            "profile.json beside this file.\n\n"
            "| what | value | how |\n|---|---|---|\n",
            probe->file.device);
    for (size_t i = 0; i < probe->n_rows; i++) {
        put_cell(out.stream, probe->rows[i].name);
        put_cell(out.stream, probe->rows[i].value);
        put_cell(out.stream, probe->rows[i].how);
        fputs("|\n", out.stream);
    }
    const enum kiln_status status = kiln_durable_commit(&out, err);
    if (status != KILN_OK) {
        kiln_durable_abort(&out);
    }
    return status;
}

enum kiln_status kiln_probe_write(const struct kiln_probe *probe, const char *folder,
                                  struct kiln_err *err) {
    char path[4200];
    KILN_REQUIRE(strlen(folder) < 4096, err, KILN_EUSAGE, "--out: path too long");
    KILN_TRY(kiln_make_dirs(folder, err));
    snprintf(path, sizeof path, "%s/probe.md", folder);
    KILN_TRY(write_report(probe, path, err));
    snprintf(path, sizeof path, "%s/profile.json", folder);
    return kiln_profile_write(path, &probe->file, err);
}
