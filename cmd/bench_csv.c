/* SPDX-License-Identifier: MIT */
#include "bench_csv.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char header[] =
    "commit,cpu,tier,provider,precision,threads,model,batch,seq,accum,part,ms,spread_ms,gflop,gb,"
    "gflop_s,gb_s,compute_share,memory_share\n";

/* A text field: in quotes, those in it doubled. */
static void put_text(FILE *file, const char *text) {
    putc('"', file);
    for (; *text != '\0'; text++) {
        if (*text == '"') {
            putc('"', file);
        }
        putc(*text, file);
    }
    fputs("\",", file);
}

/* What is the same in all rows of a run. */
struct run {
    const char *commit, *model;
    const struct kiln_bench_options *how;
    const struct kiln_bench_result *result;
};

static void put_row(FILE *file, const struct run *run, const struct kiln_bench_part *p) {
    const struct kiln_bench_result *r = run->result;
    put_text(file, run->commit);
    put_text(file, r->cpu);
    fprintf(file, "%s,%s,%s,%zu,", r->tier, r->provider, kiln_precision_name(r->precision),
            r->threads);
    put_text(file, run->model);
    fprintf(file, "%zu,%zu,%zu,%s,%.4f,%.4f,%.6g,%.6g,%.6g,%.6g,%.5g,%.5g\n", run->how->batch,
            run->how->seq, run->how->accum, p->name, p->ms, p->spread_ms, p->flops * 1e-9,
            p->bytes * 1e-9, p->gflop_s, p->gb_s, p->compute_share, p->memory_share);
}

static struct kiln_bench_part whole(const struct kiln_bench_result *r) {
    struct kiln_bench_part all = {.name = "step", .ms = r->step_ms, .spread_ms = r->spread_ms};
    for (size_t i = 0; i < KILN_BENCH_PARTS; i++) {
        all.flops += r->parts[i].flops;
        all.bytes += r->parts[i].bytes;
    }
    all.gflop_s = all.flops / all.ms * 1e-6;
    all.gb_s = all.bytes / all.ms * 1e-6;
    all.compute_share = r->ceiling_share;
    all.memory_share = all.gb_s / fmax(r->copy.median, r->in_place.median);
    return all;
}

/* The file, open to append to; *fresh: it is empty. */
static enum kiln_status open_csv(const char *path, FILE **out, bool *fresh, struct kiln_err *err) {
    char first[sizeof header] = "";
    FILE *file = *out = fopen(path, "a+e");
    KILN_REQUIRE(file != NULL, err, KILN_EIO, "--csv %s: %s", path, strerror(errno));
    rewind(file); /* reading begins at the front, writing always at the end */
    *fresh = fgets(first, sizeof first, file) == NULL;
    if (!*fresh && strcmp(first, header) != 0) {
        fclose(file);
        return KILN_FAIL(err, KILN_EUSAGE,
                         "--csv %s: it begins with another header than this kiln writes; name "
                         "another file",
                         path);
    }
    fseek(file, 0, SEEK_END); /* between reading and writing */
    return KILN_OK;
}

enum kiln_status csv_check(const char *path, struct kiln_err *err) {
    FILE *file;
    bool fresh = false;
    KILN_TRY(open_csv(path, &file, &fresh, err));
    fclose(file);
    return KILN_OK;
}

enum kiln_status csv_append(const char *path, const char *commit, const char *model,
                            const struct kiln_bench_options *how, const struct kiln_bench_result *r,
                            struct kiln_err *err) {
    const struct run run = {commit, model, how, r};
    const struct kiln_bench_part all = whole(r);
    FILE *file;
    bool fresh = false;
    KILN_TRY(open_csv(path, &file, &fresh, err));
    if (fresh) {
        fputs(header, file);
    }
    for (size_t i = 0; i < KILN_BENCH_PARTS; i++) {
        put_row(file, &run, &r->parts[i]);
    }
    for (size_t i = 0; i < KILN_BENCH_PIECES; i++) {
        if (r->pieces[i].ms > 0) {
            put_row(file, &run, &r->pieces[i]);
        }
    }
    put_row(file, &run, &all);
    errno = 0;
    const bool broken = ferror(file) != 0;
    KILN_REQUIRE(fclose(file) == 0 && !broken, err, KILN_EIO, "--csv %s: %s", path,
                 errno != 0 ? strerror(errno) : "writing failed");
    return KILN_OK;
}
