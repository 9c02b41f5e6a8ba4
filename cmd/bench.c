/* SPDX-License-Identifier: MIT
 *
 * bench.c: kiln bench: a training step's time beside this machine's ceilings.
 */
#include "kiln/bench.h"

#include <inttypes.h>
#include <stdio.h>

#include "commands.h"
#include "dims.h"
#include "kiln/report.h"
#include "kiln/train.h"
#include "output.h"

struct flags {
    uint64_t steps, accum;
    bool json;
};

static const struct option options[] = {
    {"accum", 0, OPTION_COUNT, "N", "1", "micro-batches in a window", GROUP_MEASURING, 1, 1 << 20,
     offsetof(struct flags, accum)},
    {"steps", 0, OPTION_COUNT, "N", "3", "steps measured, after one to warm up", GROUP_MEASURING, 1,
     64, offsetof(struct flags, steps)},
    OPTION_JSON(struct flags),
    OPTION_END,
};

static const enum kiln_setting_id settings[] = {
    KILN_SETTING_model,    KILN_SETTING_dim,       KILN_SETTING_hidden, KILN_SETTING_heads,
    KILN_SETTING_kv_heads, KILN_SETTING_layers,    KILN_SETTING_vocab,  KILN_SETTING_seq,
    KILN_SETTING_batch,    KILN_SETTING_precision, KILN_SETTING_threads};

static enum kiln_status print_json(const char *model, const struct kiln_bench_options *how,
                                   const struct kiln_bench_result *r, struct kiln_err *err) {
    json_t *object = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:o, s:I, s:s, "
        "s:s}",
        "model", model, "batch", (json_int_t)how->batch, "seq", (json_int_t)how->seq, "accum",
        (json_int_t)how->accum, "threads", (json_int_t)r->threads, "precision",
        kiln_precision_name(r->precision), "forward_ms", r->forward_ms, "backward_ms",
        r->backward_ms, "update_ms", r->update_ms, "step_ms", r->step_ms, "spread_ms", r->spread_ms,
        "tokens_per_s", r->tokens_per_s, "tflops", r->tflops, "gemm_ceiling_tflops",
        json_number(r->gemm_ceiling_tflops), "copy_gb_s", json_number(r->copy_gb_s), "peak_bytes",
        (json_int_t)r->peak_bytes, "tier", r->tier, "provider", r->provider);
    return json_print(object, err);
}

static enum kiln_status print_table(const char *model, const struct kiln_bench_options *how,
                                    const struct kiln_bench_result *r, struct kiln_err *err) {
    char peak[32];
    printf("%s, batch %zu, seq %zu, accum %zu; %zu threads, %s, %s kernels, %s products\n", model,
           how->batch, how->seq, how->accum, r->threads, kiln_precision_name(r->precision), r->tier,
           r->provider);
    printf("  forward    %10.1f ms a micro-batch\n", r->forward_ms);
    printf("  backward   %10.1f ms a micro-batch\n", r->backward_ms);
    printf("  update     %10.1f ms a step\n", r->update_ms);
    printf("  step       %10.1f ms (largest minus smallest: %.1f)\n", r->step_ms, r->spread_ms);
    printf("  speed      %10.0f tokens/s\n", r->tokens_per_s);
    printf("  work       %10.3f TFLOP/s of %.3f that the product kernels reach\n", r->tflops,
           r->gemm_ceiling_tflops);
    printf("  copying    %10.1f GB/s\n", r->copy_gb_s);
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
    KILN_TRY(kiln_bench(&how, &result, err));
    return flags->json ? print_json(model, &how, &result, err)
                       : print_table(model, &how, &result, err);
}

const struct command command_bench = {
    .name = "bench",
    .synopsis = "[--model NAME] [options]",
    .summary = "time a training step beside this machine's ceilings",
    .details =
        "Without --model: stories15m. Of a .bin or a run only the sizes are used.\n\n"
        "  kiln bench --model stories110m --batch 8 --seq 256\n",
    .flags_size = sizeof(struct flags),
    .options = options,
    .settings = settings,
    .n_settings = sizeof settings / sizeof settings[0],
    .run = run,
};
