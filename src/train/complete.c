/* SPDX-License-Identifier: MIT
 *
 * complete.c: from the settings that were given to all settings of a run.
 */
#include "ranks/ranks.h"
#include "train/complete.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/machine.h"
#include "device/device.h"
#include "kiln/train.h"
#include "state/state.h"
#include "train/data_source.h"

/* What the published trainers take where no preset says otherwise. Fine-tuning a small model wants
 * it too: stories260K at --lr 5e-4 gets better on held-out text with 4 or 10, worse with 1. */
#define PUBLISHED_ACCUM 10

static enum kiln_status set_count(struct kiln_settings *s, enum kiln_setting_id id, uint64_t value,
                                  enum kiln_origin origin, struct kiln_err *err) {
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, value);
    return kiln_settings_set(s, id, text, origin, err);
}

enum kiln_status kiln_settings_sizes(const struct kiln_settings *s, bool file,
                                     struct kiln_dims *dims, struct kiln_err *err) {
    const struct {
        uint64_t value;
        size_t *dim;
        const char *flag;
    } sizes[] = {{s->dim, &dims->dim, "dim"},          {s->hidden, &dims->hidden, "hidden"},
                 {s->heads, &dims->heads, "heads"},    {s->kv_heads, &dims->kv_heads, "kv-heads"},
                 {s->layers, &dims->layers, "layers"}, {s->vocab, &dims->vocab, "vocab"}};
    bool same_heads = dims->kv_heads == dims->heads;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (sizes[i].value == KILN_UNSET) {
            continue;
        }
        KILN_REQUIRE(!file || sizes[i].value == *sizes[i].dim, err, KILN_EUSAGE,
                     "--%s %" PRIu64 ": the model file has %zu; only presets take other sizes",
                     sizes[i].flag, sizes[i].value, *sizes[i].dim);
        *sizes[i].dim = (size_t)sizes[i].value;
    }
    if (!file) {
        /* The presets have as many key-value heads as query heads, and keep it that way. */
        if (s->kv_heads == KILN_UNSET && same_heads) {
            dims->kv_heads = dims->heads;
        }
        if (s->dim != KILN_UNSET || s->heads != KILN_UNSET) {
            dims->head_size = 0; /* what follows from them */
        }
    }
    kiln_settings_arithmetic(s, dims);
    if (s->seq != KILN_UNSET && (!file || s->seq > dims->seq)) {
        dims->seq = (size_t)s->seq;
    }
    return kiln_dims_check(dims, err);
}

size_t kiln_default_threads(const struct kiln_ranks *ranks) {
    const size_t n = ranks ? kiln_ranks_threads(ranks) : kiln_cpu_count();
    return n < KILN_JOURNAL_SLOTS ? n : KILN_JOURNAL_SLOTS;
}

/* So many steps or a few more, one at least, that end a round (outer.h). */
static uint64_t whole_rounds(const struct kiln_settings *s, uint64_t steps) {
    const uint64_t rounds = steps / s->local_steps + (steps % s->local_steps > 0);
    return (rounds > 0 ? rounds : 1) * s->local_steps;
}

/* Everything that is still unset. */
static enum kiln_status complete(struct kiln_settings *s, const struct kiln_model_source *source,
                                 const struct kiln_dims *dims, struct kiln_err *err) {
    const enum kiln_origin model = KILN_FROM_MODEL;
    const struct {
        enum kiln_setting_id id;
        uint64_t given;
        size_t is;
    } sizes[] = {{KILN_SETTING_dim, s->dim, dims->dim},
                 {KILN_SETTING_hidden, s->hidden, dims->hidden},
                 {KILN_SETTING_heads, s->heads, dims->heads},
                 {KILN_SETTING_kv_heads, s->kv_heads, dims->kv_heads},
                 {KILN_SETTING_layers, s->layers, dims->layers},
                 {KILN_SETTING_vocab, s->vocab, dims->vocab},
                 {KILN_SETTING_seq, s->seq, dims->seq}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (sizes[i].given == KILN_UNSET) { /* what was given is what the model has by now */
            KILN_TRY(set_count(s, sizes[i].id, sizes[i].is, model, err));
        }
    }
    if (s->accum == KILN_UNSET) {
        KILN_TRY(set_count(s, KILN_SETTING_accum,
                           source->preset ? source->preset->accum : PUBLISHED_ACCUM,
                           source->preset ? model : KILN_FROM_DEFAULT, err));
    }
    if (s->threads == KILN_UNSET) {
        KILN_TRY(set_count(s, KILN_SETTING_threads, kiln_default_threads(s->ranks),
                           KILN_FROM_MACHINE, err));
    }
    if (s->budget == KILN_UNSET && strcmp(s->device, "cpu") != 0) {
        KILN_TRY(set_count(s, KILN_SETTING_budget, KILN_NPU_BUDGET, KILN_FROM_DEFAULT, err));
    }
    if (s->warmup == KILN_UNSET) {
        const uint64_t tenth = s->steps / 10;
        KILN_TRY(
            set_count(s, KILN_SETTING_warmup, tenth > 100 ? 100 : tenth, KILN_FROM_DEFAULT, err));
    }
    if (s->eval_every == KILN_UNSET) {
        KILN_TRY(set_count(s, KILN_SETTING_eval_every, whole_rounds(s, s->steps / 10),
                           KILN_FROM_DEFAULT, err));
    }
    if (s->save_every == KILN_UNSET) {
        KILN_TRY(set_count(s, KILN_SETTING_save_every, whole_rounds(s, s->steps / 5),
                           KILN_FROM_DEFAULT, err));
    }
    if (s->memory == KILN_UNSET) {
        const uint64_t available = kiln_memory_available() / kiln_ranks_beside(s->ranks);
        /* 80 % of it; where the system does not say, no limit. */
        KILN_TRY(set_count(s, KILN_SETTING_memory,
                           available > 0 ? (available / 10 * 8) >> 20 << 20 : INT64_MAX,
                           KILN_FROM_MACHINE, err));
    }
    if (isnan(s->min_lr)) {
        char text[40];
        snprintf(text, sizeof text, "%.9g", s->lr / 10.0);
        KILN_TRY(kiln_settings_set(s, KILN_SETTING_min_lr, text, KILN_FROM_DEFAULT, err));
    }
    return KILN_OK;
}

/* What adapters take where nobody says otherwise. No decay, as PEFT's users train with
 * transformers' Trainer, whose default it is. */
static enum kiln_status complete_lora(struct kiln_settings *s, const struct kiln_lora *lora,
                                      struct kiln_err *err) {
    const enum kiln_origin origin = KILN_FROM_DEFAULT;
    char text[40];
    if (isnan(s->lora_alpha)) {
        snprintf(text, sizeof text, "%.9g", lora->alpha);
        KILN_TRY(kiln_settings_set(s, KILN_SETTING_lora_alpha, text, origin, err));
    }
    if (!s->lora_targets) {
        kiln_lora_text(lora->targets, text);
        KILN_TRY(kiln_settings_set(s, KILN_SETTING_lora_targets, text, origin, err));
    }
    return s->origin[KILN_SETTING_weight_decay] == KILN_FROM_DEFAULT
               ? kiln_settings_set(s, KILN_SETTING_weight_decay, "0", origin, err)
               : KILN_OK;
}

/* The vocabulary in the headers of token files, the largest; raw files have none, and where all are
 * raw *vocab stays. */
static enum kiln_status vocab_of_tokens(const char *data, size_t *vocab, struct kiln_err *err) {
    struct kiln_data_list list;
    enum kiln_status status = kiln_data_list_parse(data, &list, err);
    size_t largest = 0;
    for (size_t i = 0; status == KILN_OK && i < list.n; i++) {
        struct kiln_token_file *tokens;
        status = kiln_token_file_open(list.path[i], 0, &tokens, err);
        if (status == KILN_OK && kiln_token_file_vocab(tokens) > largest) {
            largest = kiln_token_file_vocab(tokens);
        }
        kiln_token_file_close(status == KILN_OK ? tokens : NULL);
    }
    kiln_data_list_free(&list);
    *vocab = largest > 0 ? largest : *vocab;
    return status;
}

/* The model, the tokenizer and the sizes they agree on. */
enum kiln_status kiln_settings_complete(struct kiln_settings *s, struct kiln_tokenizer *learned,
                                        struct kiln_completed *out, struct kiln_err *err) {
    struct kiln_model_source *source = &out->source;
    *out = (struct kiln_completed){.tokenizer = learned};
    struct kiln_lora lora;
    KILN_TRY(kiln_settings_lora(s, &lora, err));
    if (!s->model) {
        KILN_TRY(kiln_settings_set(s, KILN_SETTING_model, "stories15m", KILN_FROM_DEFAULT, err));
    }
    KILN_TRY(kiln_model_source(s->model, source, err));
    bool file = source->preset == NULL;
    if (!s->tokenizer && source->tokenizer[0]) {
        KILN_TRY(
            kiln_settings_set(s, KILN_SETTING_tokenizer, source->tokenizer, KILN_FROM_MODEL, err));
    }
    /* A new model takes the vocabulary of its tokens or tokenizer, unless one is asked for. */
    bool free_vocab = !file && s->vocab == KILN_UNSET;
    char beside[4200];
    if (!s->tokenizer && learned == NULL && kiln_find_tokenizer(s->data, beside, sizeof beside)) {
        KILN_TRY(kiln_settings_set(s, KILN_SETTING_tokenizer, beside, KILN_FROM_MODEL, err));
        out->found = true;
    }
    struct kiln_dims dims = source->dims;
    KILN_TRY(kiln_settings_sizes(s, file, &dims, err));
    if (free_vocab && kiln_data_is_tokens(s->data)) {
        KILN_TRY(vocab_of_tokens(s->data, &dims.vocab, err));
        free_vocab = false;
    }
    if (learned == NULL) {
        KILN_TRY(kiln_open_tokenizer(s->tokenizer, s->data, free_vocab ? 0 : dims.vocab,
                                     &out->tokenizer, err));
    }
    if (free_vocab) {
        dims.vocab = kiln_tokenizer_vocab(out->tokenizer);
    }
    out->dims = dims;
    out->lora = lora;
    KILN_TRY(lora.rank > 0 ? complete_lora(s, &lora, err) : KILN_OK);
    KILN_TRY(kiln_settings_adapter(s, &lora, err));
    return complete(s, source, &dims, err);
}

bool kiln_settings_narrow(const struct kiln_settings *s) {
    return strcmp(s->reduce_precision, "bf16") == 0;
}

/* Between outer steps each rank has weights of its own: what is told of the model is told there. */
static enum kiln_status check_every(const struct kiln_settings *s, enum kiln_setting_id id,
                                    uint64_t steps, struct kiln_err *err) {
    const uint64_t next = steps == KILN_UNSET ? 0 : steps % s->local_steps;
    KILN_REQUIRE(next == 0, err, KILN_EUSAGE,
                 "--%s %" PRIu64
                 ": between outer steps each rank has weights of its own; give a "
                 "multiple of --local-steps %" PRIu64 ", as %" PRIu64,
                 kiln_setting(id)->flag, steps, s->local_steps, whole_rounds(s, steps));
    return KILN_OK;
}

static enum kiln_status check_local_steps(const struct kiln_settings *s, struct kiln_err *err) {
    static const enum kiln_setting_id outer[] = {KILN_SETTING_outer_lr,
                                                 KILN_SETTING_outer_momentum};
    for (size_t i = 0; s->local_steps == 1 && i < sizeof outer / sizeof outer[0]; i++) {
        KILN_REQUIRE(s->origin[outer[i]] != KILN_FROM_FLAG, err, KILN_EUSAGE,
                     "--%s is of outer steps: add --local-steps, or leave it out",
                     kiln_setting(outer[i])->flag);
    }
    if (s->local_steps == 1) {
        return KILN_OK;
    }
    KILN_REQUIRE(!s->deterministic, err, KILN_EUSAGE,
                 "--local-steps --deterministic: a local step sees the micro-batches of its rank "
                 "alone, so that what is trained depends on the number of ranks; leave one of the "
                 "two out");
    KILN_REQUIRE(s->pipeline == 1, err, KILN_EUSAGE,
                 "--local-steps --pipeline: a stage has the gradients of its layers alone, and "
                 "cannot take a step by itself; leave one of the two out");
    KILN_REQUIRE(!s->shard_optimizer, err, KILN_EUSAGE,
                 "--local-steps --shard-optimizer: a rank that holds a part of the weights cannot "
                 "take a step by itself; leave one of the two out");
    KILN_REQUIRE(isnan(s->minutes), err, KILN_EUSAGE,
                 "--local-steps --minutes: a run that ends at a time changes its steps on the way, "
                 "also inside a round; give --steps");
    KILN_REQUIRE(strcmp(s->overlap, "delayed") != 0, err, KILN_EUSAGE,
                 "--local-steps --overlap delayed: a gradient would be of weights from before an "
                 "outer step, and change those behind it; use --overlap exact");
    KILN_REQUIRE(
        strcmp(s->device, "cpu") == 0 && s->budget == KILN_UNSET && s->load_budget == KILN_UNSET,
        err, KILN_EUSAGE,
        "--local-steps: kernels are compiled while weights are updated, and an outer step "
        "changes these once more; use --device cpu without a --budget");
    KILN_TRY(check_every(s, KILN_SETTING_eval_every, s->eval_every, err));
    KILN_TRY(check_every(s, KILN_SETTING_sample_every, s->sample_every, err));
    return check_every(s, KILN_SETTING_save_every, s->save_every, err);
}

enum kiln_status kiln_settings_ranks(const struct kiln_settings *s, struct kiln_err *err) {
    KILN_TRY(check_local_steps(s, err));
    KILN_REQUIRE(!kiln_settings_narrow(s) || !s->deterministic, err, KILN_EUSAGE,
                 "--reduce-precision bf16 --deterministic: which sums travel, and are rounded, "
                 "depends on the number of ranks, so that no two numbers of them would have equal "
                 "bits; leave one of the two out");
    KILN_REQUIRE(
        !kiln_settings_narrow(s) || !s->shard_optimizer, err, KILN_EUSAGE,
        "--reduce-precision bf16 --shard-optimizer: parts of gradients that go to the rank "
        "that holds them travel as fp32; leave one of the two out");
    KILN_REQUIRE(
        s->pipeline == 1 || !s->shard_optimizer, err, KILN_EUSAGE,
        "--shard-optimizer --pipeline: every rank of a pipeline updates all weights; leave "
        "one of the two out");
    return KILN_OK;
}

/* ---- the device --------------------------------------------------------------------------------
 */

/* What only a Neural Engine, or only a simulated one, knows. */
static enum kiln_status check_device(const struct kiln_settings *s, enum kiln_device_id id,
                                     struct kiln_err *err) {
    static const enum kiln_setting_id npu[] = {KILN_SETTING_weight_mode, KILN_SETTING_no_extras,
                                               KILN_SETTING_sim_time, KILN_SETTING_sim};
    for (size_t i = 0; id == KILN_CPU && i < sizeof npu / sizeof npu[0]; i++) {
        KILN_REQUIRE(s->origin[npu[i]] != KILN_FROM_FLAG, err, KILN_EUSAGE,
                     "--%s is of the device%s: the cpu compiles no programs; add --device sim, or "
                     "leave it out",
                     kiln_setting(npu[i])->flag,
                     npu[i] >= KILN_SETTING_sim_time ? " sim" : "s sim and ane");
    }
    KILN_REQUIRE(id != KILN_ANE || s->sim_time <= 0, err, KILN_EUSAGE,
                 "--sim-time %g: --device ane takes its own time; use --device sim, or leave it "
                 "out",
                 s->sim_time);
    KILN_REQUIRE(id != KILN_ANE || !s->sim, err, KILN_EUSAGE,
                 "--sim %s: --device ane is as it is; use --device sim, or leave it out", s->sim);
    return KILN_OK;
}

enum kiln_status kiln_settings_device(const struct kiln_settings *s,
                                      struct kiln_device_choice *device,
                                      enum kiln_precision *precision, struct kiln_err *err) {
    *device = (struct kiln_device_choice){.id = KILN_CPU};
    KILN_TRY(kiln_device_parse(s->device, &device->id, err));
    KILN_TRY(kiln_precision_parse(s->precision, precision, err));
    KILN_TRY(check_device(s, device->id, err));
    KILN_TRY(kiln_device_precision(device->id, *precision, precision, err));
    device->gpu = strcmp(s->dw, "gpu") == 0;
    if (device->id == KILN_CPU) {
        return KILN_OK;
    }
    device->dynamic = strcmp(s->weight_mode, "dynamic") == 0;
    device->extras = !s->no_extras && !device->dynamic;
    device->sim_time = s->sim_time;
    device->sim = s->sim;
    return kiln_device_check(device, err);
}

/* ---- the plan ----------------------------------------------------------------------------------
 */

enum kiln_status kiln_plan_request_of(const struct kiln_settings *s, const struct kiln_dims *dims,
                                      struct kiln_plan_request *out, struct kiln_err *err) {
    struct kiln_device_choice device;
    enum kiln_precision precision;
    KILN_TRY(kiln_settings_device(s, &device, &precision, err));
    const bool cpu = device.id == KILN_CPU;
    *out = (struct kiln_plan_request){
        .dims = *dims,
        .device = device,
        .precision = precision,
        .batch = s->batch,
        .seq = s->seq != KILN_UNSET ? s->seq : dims->seq,
        .accum = s->accum != KILN_UNSET ? s->accum : PUBLISHED_ACCUM,
        .doc_mask = s->doc_mask,
        .headroom_millionths = (uint64_t)llround(s->headroom * 1e6),
        .refreshes = cpu && strcmp(s->overlap, "delayed") != 0,
        .memory = s->memory == KILN_UNSET ? 0 : s->memory,
        .threads = s->threads != KILN_UNSET ? s->threads : kiln_default_threads(s->ranks),
    };
    const uint64_t budget = cpu ? 0 : KILN_NPU_BUDGET;
    out->budget = s->budget != KILN_UNSET ? s->budget : budget;
    /* A budget alone bounds what is loaded, too. */
    out->load_budget = s->load_budget != KILN_UNSET ? s->load_budget : out->budget;
    KILN_TRY(kiln_schedule_parse(s->schedule, &out->schedule, err));
    KILN_TRY(kiln_overlap_parse(s->overlap, &out->overlap, err));
    KILN_TRY(kiln_restart_parse(s->restart, &out->restart, err));
    out->ranks.local_steps = s->local_steps;
    out->restart_asked = s->origin[KILN_SETTING_restart] == KILN_FROM_FLAG;
    KILN_TRY(kiln_keep_parse(s->activations, &out->keep, err));
    KILN_TRY(kiln_settings_lora(s, &out->lora, err));
    return KILN_OK;
}

static enum kiln_status complete_and_plan(struct kiln_settings *s, struct kiln_plan_request *out,
                                          char *name, struct kiln_err *err) {
    struct kiln_completed completed;
    struct kiln_device_choice device;
    enum kiln_precision precision;
    KILN_REQUIRE(s->data, err, KILN_EUSAGE, "train needs --data FILE, a text or token file");
    KILN_TRY(kiln_settings_device(s, &device, &precision, err));
    KILN_TRY(kiln_check_data(s->data, err));
    const enum kiln_status status = kiln_settings_complete(s, NULL, &completed, err);
    kiln_tokenizer_destroy(completed.tokenizer);
    KILN_TRY(status);
    kiln_model_source_name(&completed.source, s->seed, name, 512);
    KILN_TRY(kiln_plan_request_of(s, &completed.dims, out, err));
    KILN_TRY(kiln_profile_of(&out->device, s->profile, out->threads, out->precision, &out->profile,
                             err));
    out->device.times = out->profile.sim;
    return KILN_OK;
}

enum kiln_status kiln_run_plan(const struct kiln_settings *settings, struct kiln_plan_request *out,
                               char name[512], struct kiln_err *err) {
    struct kiln_settings copy;
    KILN_TRY(kiln_settings_copy(&copy, settings, err));
    const enum kiln_status status = complete_and_plan(&copy, out, name, err);
    out->device.sim = settings->sim; /* the copy's goes */
    kiln_settings_free(&copy);
    return status;
}
