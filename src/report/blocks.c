/* SPDX-License-Identifier: MIT
 *
 * blocks.c: what is said once: at the start of a run, and at its end.
 */
#include "kiln/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kiln/ranks.h"
#include "report/human.h"

#define WIDTH   96 /* settings are wrapped here */
#define HEADING 12

/* A text that grows. `failed` when memory ran out: the text is then of no use. */
struct text {
    char *at;
    size_t length, room;
    bool failed;
};

static void add(struct text *text, const char *fmt, ...) KILN_PRINTF(2, 3);
static void add(struct text *text, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    const size_t need = text->length + (n > 0 ? (size_t)n : 0) + 1;
    if (!text->failed && need > text->room) {
        char *grown = kiln_realloc(text->at, text->room, 2 * need, 1);
        text->failed = grown == NULL;
        text->at = grown != NULL ? grown : text->at;
        text->room = grown != NULL ? 2 * need : text->room;
    }
    if (!text->failed && n > 0) {
        vsnprintf(text->at + text->length, text->room - text->length, fmt, again);
        text->length += (size_t)n;
    }
    va_end(again);
}

static char *finish(struct text *text) {
    if (text->failed) {
        kiln_free(text->at);
        return NULL;
    }
    return text->at;
}

void kiln_report_free(char *text) { kiln_free(text); }

/* 1234567 as "1,234,567"; the buffer holds any number. */
static const char *grouped(uint64_t n, char buffer[32]) {
    char digits[24];
    const int length = snprintf(digits, sizeof digits, "%" PRIu64, n);
    size_t used = 0;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) {
            buffer[used++] = ',';
        }
        buffer[used++] = digits[i];
    }
    buffer[used] = '\0';
    return buffer;
}

/* ---- the start ------------------------------------------------------------------------------ */

static void heading(struct text *text, const char *name) { add(text, "  %-*s", HEADING - 2, name); }

static void say_model(struct text *text, const struct kiln_run_info *info) {
    const struct kiln_dims *d = &info->table->dims;
    heading(text, "model");
    add(text, "%s\n", info->model);
    heading(text, "");
    add(text, "dim %zu, hidden %zu, layers %zu, heads %zu, kv-heads %zu, vocab %zu, seq %zu%s",
        d->dim, d->hidden, d->layers, d->heads, d->kv_heads, d->vocab, d->seq,
        d->tied ? "" : ", untied head");
    add(text, ": %.2f M parameters", (double)info->table->parameters / 1e6);
    if (info->table->trained > 0) {
        add(text, ", frozen; %.3f M of adapters are trained", (double)info->table->adapters / 1e6);
    }
    add(text, "\n");
}

static void say_data(struct text *text, const struct kiln_run_info *info) {
    char train[32], val[32];
    heading(text, "data");
    add(text, "%s windows to train on, %s held out; tokenizer: %s\n",
        grouped(info->train_windows, train), grouped(info->val_windows, val),
        info->tokenizer != NULL ? kiln_tokenizer_name(info->tokenizer) : "none");
}

static void say_machine(struct text *text, const struct kiln_run_info *info) {
    char buffer[32];
    const double available = (double)info->cpu.memory_available;
    if (strcmp(info->settings->device, "cpu") != 0) {
        heading(text, "device");
        add(text, "%s, weights %s, %s: %s\n", info->settings->device, info->settings->weight_mode,
            info->device.extras ? "with extras" : "without extras", info->says);
    }
    if (info->device.gpu) {
        heading(text, "gpu");
        add(text, "weight gradients on %s\n", info->gpu);
    }
    heading(text, "machine");
    add(text, "%s kernels, %s products in %s, %" PRIu64 " threads of %zu, %s free\n",
        info->cpu.tier, info->cpu.provider, kiln_precision_name(info->precision),
        info->settings->threads, info->cpu.cpus,
        kiln_human_bytes(available, buffer, sizeof buffer));
}

/* A time that may be a small share of a second. */
static const char *fine_time(double seconds, char *buffer, size_t size) {
    if (!(seconds < 0.9995)) {
        return kiln_human_time(seconds, buffer, size);
    }
    snprintf(buffer, size, seconds < 0.00995 ? "%.1f ms" : "%.0f ms", seconds * 1e3);
    return buffer;
}

static void say_pipeline(struct text *text, const struct kiln_pipeline_cost *p) {
    char micro_batch[32];
    if (p->stages > 0) {
        heading(text, "pipeline");
        add(text, "%zu stages of %zu layers at most, on %zu rank%s each; a micro-batch takes %s\n",
            p->stages, p->layers, p->replicas, p->replicas == 1 ? "" : "s",
            fine_time(p->micro_batch_s, micro_batch, sizeof micro_batch));
        heading(text, "");
        add(text, "on stage %zu, the slowest, which waits for others %.0f %% of the time\n",
            p->slowest + 1, 100 * p->bubble_share);
    }
}

/* The sums of a step hide behind its passes; those of an outer step come once in a while. */
static void say_sums(struct text *text, const struct kiln_run_info *info) {
    char bytes[32], took[32];
    const struct kiln_ranks_cost *c = &info->over_ranks;
    const uint64_t local = info->settings->local_steps;
    const double steps = (double)local;
    if (local == 1) {
        add(text, "a step sends %s in %s, %.0f %% of it behind the last backward pass\n",
            kiln_human_bytes(c->bytes_sent, bytes, sizeof bytes),
            fine_time(c->communication_s, took, sizeof took), 100 * c->hidden_share);
        return;
    }
    add(text, "every %" PRIu64 " steps an outer one sends %s in %s\n", local,
        kiln_human_bytes(c->bytes_sent * steps, bytes, sizeof bytes),
        fine_time(c->communication_s * steps, took, sizeof took));
}

/* Nothing of a run that is alone. */
static void say_ranks(struct text *text, const struct kiln_run_info *info) {
    const struct kiln_settings *s = info->settings;
    const size_t n = kiln_ranks_count(s->ranks);
    if (n > 1) {
        heading(text, "ranks");
        const uint64_t shares = n / s->pipeline;
        add(text, "%zu, each with %" PRIu64 "%s of the %" PRIu64 " micro-batches%s; sums %s%s\n", n,
            s->accum / shares, s->accum % shares > 0 ? " or one more" : "", s->accum,
            s->shard_optimizer ? " and its part of weights and moments" : "",
            s->deterministic ? "by a tree, equal on any number of ranks" : "in the fastest order",
            strcmp(s->reduce_precision, "bf16") == 0 ? ", in bf16" : "");
        say_pipeline(text, &info->over_ranks.pipeline);
        char latency[32], bytes[32];
        heading(text, "link");
        add(text, "%s, %s/s; ", fine_time(info->link.latency_s, latency, sizeof latency),
            kiln_human_bytes(info->link.bytes_per_s, bytes, sizeof bytes));
        say_sums(text, info);
    }
}

static void say_memory(struct text *text, const struct kiln_run_info *info) {
    const struct kiln_memory *m = &info->memory;
    const struct {
        const char *name;
        uint64_t bytes;
    } parts[] = {
        {"weights", m->weights},
        {"moments", m->moments},
        {"gradients", m->gradients},
        {"packed weights", m->kernels},
        {"activations", m->activations_kept + m->activations_live},
        {"workspace", m->workspace},
        {"snapshots", m->snapshots},
        {"gpu", m->gpu},
    };
    const size_t always = 6; /* the others where there are any */
    char buffer[32];
    heading(text, "memory");
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i].bytes > 0 || i < always) {
            add(text, "%s%s %s", i > 0 ? ", " : "", parts[i].name,
                kiln_human_bytes((double)parts[i].bytes, buffer, sizeof buffer));
        }
    }
    add(text, "\n");
}

/* What was planned, so that the end can be held against it. */
static void say_plan(struct text *text, const struct kiln_run_info *info) {
    char bytes[32], seconds[32];
    heading(text, "plan");
    add(text, "%zu of %zu layers kept full; ", info->full_layers, info->table->dims.layers);
    if (info->budget > 0) {
        add(text, "%zu kernels a process; ", info->budget);
    }
    add(text, "%s of memory, %s a step\n",
        kiln_human_bytes((double)info->memory.total, bytes, sizeof bytes),
        kiln_human_time(info->time.step, seconds, sizeof seconds));
}

/* What is not as without it: weights that are older, processes that are more. */
static void say_overlap(struct text *text, const struct kiln_run_info *info) {
    const bool delayed = info->overlap == KILN_OVERLAP_DELAYED;
    if (!delayed && !info->relay) {
        return;
    }
    heading(text, "overlap");
    add(text, "%s%s", kiln_overlap_name(info->overlap),
        delayed ? ": gradients are one update old; a held-out loss is of the step before" : "");
    if (info->relay) {
        add(text, "; restart relay: successors start early%s%s", info->restart_why ? ", " : "",
            info->restart_why ? info->restart_why : "");
    } else if (info->two_sets) {
        add(text, "; two kernel sets in a process");
    }
    add(text, "\n");
}

static void say_work(struct text *text, const struct kiln_run_info *info) {
    const struct kiln_settings *s = info->settings;
    char tokens[32], flop[32];
    heading(text, "work");
    add(text, "%" PRIu64 " steps", s->steps);
    if (info->first_step > 0) {
        add(text, ", %" PRIu64 " of them done before", info->first_step);
    }
    add(text, "; a step is %s tokens and %s\n", grouped(s->batch * s->accum * s->seq, tokens),
        kiln_human_tflop(info->flops_per_step / 1e12, flop, sizeof flop));
}

/* "steps=60", with quotes where a blank would make it hard to read. */
static void setting_text(const struct kiln_settings *settings, enum kiln_setting_id id, char *out,
                         size_t size) {
    char value[512];
    kiln_settings_text(settings, id, value, sizeof value);
    /* Unset is no number here, but a rule (train/samples.h). */
    const char *unset = id == KILN_SETTING_sample_every ? "evaluations" : "none";
    const char *shown = value[0] != '\0' ? value : unset;
    const bool bare = strpbrk(shown, " \t\n\"") == NULL;
    snprintf(out, size, bare ? "%s=%s" : "%s=\"%s\"", kiln_setting(id)->flag, shown);
}

/* The settings of one origin, wrapped; nothing when there are none. */
static void say_settings_of(struct text *text, const struct kiln_settings *settings,
                            enum kiln_origin origin) {
    char item[640];
    size_t column = 0;
    for (int id = 0; id < KILN_SETTING_COUNT; id++) {
        if (settings->origin[id] != origin) {
            continue;
        }
        setting_text(settings, id, item, sizeof item);
        const size_t length = strlen(item);
        if (column == 0) {
            heading(text, kiln_origin_name(origin));
            column = HEADING;
        } else if (column + 1 + length > WIDTH) {
            add(text, "\n");
            heading(text, "");
            column = HEADING;
        } else {
            add(text, " ");
            column++;
        }
        add(text, "%s", item);
        column += length;
    }
    add(text, "%s", column > 0 ? "\n" : "");
}

char *kiln_report_start(const struct kiln_run_info *info) {
    struct text text = {0};
    add(&text, "%s %s\n", info->first_step > 0 ? "going on with" : "training into", info->folder);
    say_model(&text, info);
    say_data(&text, info);
    say_machine(&text, info);
    say_ranks(&text, info);
    say_memory(&text, info);
    say_plan(&text, info);
    say_overlap(&text, info);
    say_work(&text, info);
    add(&text, "settings, by where they came from\n");
    static const enum kiln_origin order[] = {KILN_FROM_FLAG,  KILN_FROM_MINUTES, KILN_FROM_RUN,
                                             KILN_FROM_MODEL, KILN_FROM_MACHINE, KILN_FROM_DEFAULT};
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        say_settings_of(&text, info->settings, order[i]);
    }
    return finish(&text);
}

/* ---- the end -------------------------------------------------------------------------------- */

/* A word as a shell would need it to be typed. */
static void add_word(struct text *text, const char *word) {
    if (word[0] != '\0' && strspn(word,
                                  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789_-./,:+@%=") == strlen(word)) {
        add(text, "%s", word);
        return;
    }
    add(text, "'");
    for (const char *c = word; *c != '\0'; c++) {
        if (*c == '\'') {
            add(text, "'\\''");
        } else {
            add(text, "%c", *c);
        }
    }
    add(text, "'");
}

static void say_losses(struct text *text, const struct kiln_report_end *end) {
    if (end->steps == 0) {
        return;
    }
    add(text, "loss %.4f at first, %.4f at last", end->first_loss, end->last_loss);
    if (end->best_val_step > 0 && isfinite(end->best_val)) {
        add(text, "; best held-out loss %.4f after step %" PRIu64, end->best_val,
            end->best_val_step);
    }
    add(text, "\n");
}

/* What the data holds, so that the model is asked for what it has learned. */
static void say_prompt(struct text *text, const struct kiln_run_info *info) {
    const char *own = info->settings->prompt;
    if (info->conversations) {
        add(text, " --chat -p \"Hello\"\n");
    } else if (own != NULL && own[0] != '\0') {
        add(text, " -p ");
        add_word(text, own);
        add(text, "\n");
    } else {
        add(text, " -p \"%s\"\n", info->prompt[0] ? info->prompt : "Once upon a time");
    }
}

static void say_next(struct text *text, const struct kiln_run_info *info,
                     const struct kiln_report_end *end) {
    const uint64_t done = end->step;
    add(text, "next:\n");
    if (info->tokenizer != NULL) {
        add(text, "  kiln generate ");
        add_word(text, info->folder);
        say_prompt(text, info);
    }
    add(text, "  kiln train --resume ");
    add_word(text, info->folder);
    add(text, " --steps %" PRIu64 "\n", 2 * (done > 0 ? done : 1));
}

/* Of a step: what is less is not worth a line. */
#define SHARE 0.01

/* The plan's figures beside what was measured. */
static void say_prediction(struct text *text, const struct kiln_run_info *info,
                           const struct kiln_report_end *end) {
    char planned[32], measured[32];
    if (end->step_s <= 0) {
        return;
    }
    const bool alone = info->link.bytes_per_s <= 0;
    const double step_s = alone ? info->time.step : info->over_ranks.step_s;
    add(text, "planned: %s a step, ", fine_time(step_s, planned, sizeof planned));
    add(text, "measured %s on average; ", fine_time(end->step_s, measured, sizeof measured));
    add(text, "planned %s of memory, ",
        kiln_human_bytes((double)info->memory.total, planned, sizeof planned));
    add(text, "measured %s\n",
        kiln_human_bytes((double)end->peak_bytes, measured, sizeof measured));
    if (!alone && end->outer_s > 0) {
        const struct kiln_ranks_cost *c = &info->over_ranks;
        const double steps = (double)info->settings->local_steps;
        add(text, "outer step: %s, ", fine_time(end->outer_s, measured, sizeof measured));
        add(text, "planned %s; one in %" PRIu64 " steps\n",
            fine_time((c->exposed_s + c->outer_s) * steps, planned, sizeof planned),
            info->settings->local_steps);
    } else if (!alone && end->reduce_s > 0) {
        add(text, "sums over ranks: %s a step, ",
            fine_time(end->reduce_s, measured, sizeof measured));
        add(text, "planned %s; ",
            fine_time(info->over_ranks.communication_s, planned, sizeof planned));
        add(text, "%.0f %% of it hidden, planned %.0f %%\n",
            100 * (1 - end->reduce_wait_s / end->reduce_s), 100 * info->over_ranks.hidden_share);
    }
    const double least = SHARE * end->step_s;
    if (info->time.stall < least && end->stall_s < least && end->overlap_s < least) {
        return; /* nothing is compiled again, or nobody notices */
    }
    add(text, "compiling: planned to be waited for %s a step, ",
        fine_time(info->time.stall, planned, sizeof planned));
    add(text, "measured %s", fine_time(end->stall_s, measured, sizeof measured));
    add(text, "; hidden %s\n", fine_time(end->overlap_s, measured, sizeof measured));
}

static void say_skipped(struct text *text, const struct kiln_report_end *end) {
    if (end->overflowed > 0) {
        add(text, "%" PRIu64 " of them skipped: the gradient overflowed, no update\n",
            end->overflowed);
    }
    if (end->skipped > end->overflowed) {
        add(text, "%" PRIu64 " of them skipped: the update was left out (--on-spike skip)\n",
            end->skipped - end->overflowed);
    }
}

char *kiln_report_finish(const struct kiln_run_info *info, const struct kiln_report_end *end) {
    struct text text = {0};
    char time[32], tokens[32], flop[32];
    add(&text, "done: %" PRIu64 " steps, %s tokens in %s", end->steps, grouped(end->tokens, tokens),
        kiln_human_time(end->seconds, time, sizeof time));
    if (end->step_s > 0) { /* evaluations and the like are between steps */
        add(&text, ", %s of it in steps",
            fine_time(end->step_s * (double)end->steps, time, sizeof time));
    }
    add(&text, ": %.0f tokens/s, %s/s\n", end->tokens_per_s,
        kiln_human_tflop(end->tflops, flop, sizeof flop));
    say_skipped(&text, end);
    say_prediction(&text, info, end);
    say_losses(&text, end);
    add(&text, "model: %s/model.bin\n", info->folder);
    say_next(&text, info, end);
    return finish(&text);
}
