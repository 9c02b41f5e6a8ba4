/* SPDX-License-Identifier: MIT
 *
 * bench.c: kiln bench: a training step's time beside this machine's ceilings.
 */
#include "kiln/bench.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_csv.h"
#include "commands.h"
#include "commit.h"
#include "dims.h"
#include "kiln/report.h"
#include "kiln/train.h"
#include "output.h"

struct flags {
    uint64_t steps, accum;
    const char *csv;
    bool json;
};

static const struct option options[] = {
    {"accum", 0, OPTION_COUNT, "N", "1", "micro-batches in a window", GROUP_MEASURING, 1, 1 << 20,
     offsetof(struct flags, accum)},
    {"steps", 0, OPTION_COUNT, "N", "3", "steps measured, after one to warm up", GROUP_MEASURING, 1,
     64, offsetof(struct flags, steps)},
    {"csv", 0, OPTION_TEXT, "FILE", NULL, "also append a row for each part to FILE", GROUP_OUTPUT,
     0, 0, offsetof(struct flags, csv)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

static const enum kiln_setting_id settings[] = {
    KILN_SETTING_model,      KILN_SETTING_dim,    KILN_SETTING_hidden, KILN_SETTING_heads,
    KILN_SETTING_kv_heads,   KILN_SETTING_layers, KILN_SETTING_vocab,  KILN_SETTING_rms_eps,
    KILN_SETTING_rope_theta, KILN_SETTING_seq,    KILN_SETTING_batch,  KILN_SETTING_precision,
    KILN_SETTING_threads};

static json_t *ceiling_json(const struct kiln_bench_ceiling *c) {
    return json_pack("{s:o, s:o, s:o}", "before", json_number(c->before), "after",
                     json_number(c->after), "median", json_number(c->median));
}

/* Those that were timed. */
static json_t *parts_json(const struct kiln_bench_part *parts, size_t n) {
    json_t *array = json_array();
    for (const struct kiln_bench_part *p = parts; p < parts + n; p++) {
        if (p->ms > 0) {
            json_array_append_new(
                array,
                json_pack("{s:s, s:f, s:f, s:f, s:f, s:o, s:o, s:o, s:o}", "name", p->name, "ms",
                          p->ms, "spread_ms", p->spread_ms, "flops", p->flops, "bytes", p->bytes,
                          "gflop_s", json_number(p->gflop_s), "gb_s", json_number(p->gb_s),
                          "compute_share", json_number(p->compute_share), "memory_share",
                          json_number(p->memory_share)));
        }
    }
    return array;
}

static enum kiln_status print_json(const struct kiln_bench_options *how, const char *model,
                                   const struct kiln_bench_result *r, struct kiln_err *err) {
    json_t *object = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:o, s:I, s:s, "
        "s:s}",
        "model", model, "batch", (json_int_t)how->batch, "seq", (json_int_t)how->seq, "accum",
        (json_int_t)how->accum, "threads", (json_int_t)r->threads, "precision",
        kiln_precision_name(r->precision), "forward_ms", r->forward_ms, "backward_ms",
        r->backward_ms, "update_ms", r->update_ms, "step_ms", r->step_ms, "spread_ms", r->spread_ms,
        "tokens_per_s", r->tokens_per_s, "tflops", r->tflops, "gemm_ceiling_tflops",
        json_number(r->products.median), "copy_gb_s", json_number(r->copy.median), "peak_bytes",
        (json_int_t)r->peak_bytes, "tier", r->tier, "provider", r->provider);
    json_t *more =
        json_pack("{s:o, s:o, s:o, s:o, s:o, s:f, s:o, s:o, s:s, s:s}", "ceiling_share",
                  json_number(r->ceiling_share), "gemm_ceiling", ceiling_json(&r->products), "copy",
                  ceiling_json(&r->copy), "in_place", ceiling_json(&r->in_place), "update_ratio",
                  json_number(r->update_ratio), "rest_ms", r->rest_ms, "parts",
                  parts_json(r->parts, KILN_BENCH_PARTS), "pieces",
                  parts_json(r->pieces, KILN_BENCH_PIECES), "cpu", r->cpu, "commit", KILN_COMMIT);
    if (json_object_update(object, more) != 0) {
        json_decref(object);
        object = NULL; /* out of memory */
    }
    json_decref(more);
    return json_print(object, err);
}

static void print_rates(double gflop_s, double gb_s, double compute, double memory) {
    if (compute > memory) {
        printf(" %10.1f %8.1f %6.1f %% of products\n", gflop_s, gb_s, 100 * compute);
    } else {
        printf(" %10.1f %8.1f %6.1f %% of memory\n", gflop_s, gb_s, 100 * memory);
    }
}

/* What was timed inside a part. */
static void print_pieces(const struct kiln_bench_result *r, const char *part) {
    const size_t n = strlen(part);
    for (size_t i = 0; i < KILN_BENCH_PIECES; i++) {
        const struct kiln_bench_part *p = &r->pieces[i];
        if (p->ms > 0 && strncmp(p->name, part, n) == 0 && p->name[n] == '.') {
            printf("    %-20s %10.2f %5.1f %% %9.2f %8.3f", p->name + n + 1, p->ms,
                   100 * p->ms / r->step_ms, p->flops * 1e-9, p->bytes * 1e-9);
            print_rates(p->gflop_s, p->gb_s, p->compute_share, p->memory_share);
        }
    }
}

/* The roofline: every part of a step beside the ceiling that is nearer to it. */
static void print_parts(const struct kiln_bench_result *r) {
    double flops = 0, bytes = 0;
    printf("  %-22s %10s %7s %9s %8s %10s %8s %8s\n", "", "ms a step", "share", "GFLOP", "GB",
           "GFLOP/s", "GB/s", "of ceiling");
    for (size_t i = 0; i < KILN_BENCH_PARTS; i++) {
        const struct kiln_bench_part *p = &r->parts[i];
        flops += p->flops;
        bytes += p->bytes;
        printf("  %-22s %10.2f %5.1f %% %9.2f %8.3f", p->title, p->ms, 100 * p->ms / r->step_ms,
               p->flops * 1e-9, p->bytes * 1e-9);
        print_rates(p->gflop_s, p->gb_s, p->compute_share, p->memory_share);
        print_pieces(r, p->name);
    }
    printf("  %-22s %10.2f %5.1f %%\n", "between them", r->rest_ms, 100 * r->rest_ms / r->step_ms);
    printf("  %-22s %10.2f %7s %9.2f %8.3f", "step", r->step_ms, "", flops * 1e-9, bytes * 1e-9);
    print_rates(flops / r->step_ms * 1e-6, bytes / r->step_ms * 1e-6, r->ceiling_share,
                bytes / r->step_ms * 1e-6 / fmax(r->copy.median, r->in_place.median));
}

/* A tier or a provider that the environment chose is not what others will see. */
static const char *forced(const char *name) {
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? " (forced)" : "";
}

static void print_memory_rate(const char *name, const struct kiln_bench_ceiling *c) {
    printf("  %-10s %10.1f GB/s", name, c->median);
    if (c->before > 0) {
        printf(" (%.1f before, %.1f after)", c->before, c->after);
    }
    printf("\n");
}

static enum kiln_status print_table(const struct kiln_bench_options *how, const char *model,
                                    const struct kiln_bench_result *r, struct kiln_err *err) {
    char peak[32];
    printf("%s, batch %zu, seq %zu, accum %zu; %zu threads, %s, %s kernels%s, %s products%s\n",
           model, how->batch, how->seq, how->accum, r->threads, kiln_precision_name(r->precision),
           r->tier, forced("KILN_CPU"), r->provider, forced("KILN_GEMM"));
    printf("%s, kiln %s\n", r->cpu, KILN_COMMIT);
    print_parts(r);
    printf("  forward    %10.1f ms a micro-batch\n", r->forward_ms);
    printf("  backward   %10.1f ms a micro-batch\n", r->backward_ms);
    printf("  update     %10.1f ms a step; AdamW takes %.2f times what its bytes take to copy\n",
           r->update_ms, r->update_ratio);
    printf("  step       %10.1f ms (largest minus smallest: %.1f)\n", r->step_ms, r->spread_ms);
    printf("  speed      %10.0f tokens/s\n", r->tokens_per_s);
    printf(
        "  work       %10.3f TFLOP/s, %.3f of %.3f that the product kernels reach (%.3f before, "
        "%.3f after)\n",
        r->tflops, r->ceiling_share, r->products.median, r->products.before, r->products.after);
    print_memory_rate("copying", &r->copy);
    print_memory_rate("in place", &r->in_place);
    printf("  memory     %10s at most\n",
           kiln_human_bytes((double)r->peak_bytes, peak, sizeof peak));
    return output_finish(err);
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct kiln_settings *s = &call->settings;
    const struct flags *flags = call->flags;
    struct kiln_bench_options how = {.batch = s->batch,
                                     .accum = flags->accum,
                                     .steps = flags->steps,
                                     .threads = s->threads != KILN_UNSET ? s->threads : 0};
    struct kiln_bench_result result;
    const char *model = dims_name(s);
    KILN_TRY(dims_choose(s, &how.dims, err));
    how.seq = how.dims.seq;
    struct kiln_device_choice device;
    KILN_TRY(kiln_settings_device(s, &device, &how.precision, err));
    KILN_TRY(flags->csv ? csv_check(flags->csv, err) : KILN_OK);
    KILN_TRY(kiln_bench(&how, &result, err));
    if (flags->csv) {
        KILN_TRY(csv_append(flags->csv, KILN_COMMIT, model, &how, &result, err));
    }
    return flags->json ? print_json(&how, model, &result, err)
                       : print_table(&how, model, &result, err);
}

const struct command command_bench = {
    .name = "bench",
    .synopsis = "[--model NAME] [options]",
    .summary = "time a training step beside this machine's ceilings",
    .details =
        "Without --model: stories15m. Of a file, folder or run only the sizes are used.\n\n"
        "  kiln bench --model stories110m --batch 8 --seq 256\n"
        "  kiln bench --batch 8 --accum 4 --csv bench.csv   # a row for each part, and one for "
        "all\n",
    .flags_size = sizeof(struct flags),
    .options = options,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};
