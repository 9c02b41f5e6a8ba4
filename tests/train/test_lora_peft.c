/* SPDX-License-Identifier: MIT
 *
 * Adapters against peft (tests/python/lora.py): base model and adapters that kiln wrote are loaded
 * there and give kiln's loss, logits and gradients.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/io_hook.h"
#include "base/random.h"
#include "infer/session.h"
#include "kiln_test.h"
#include "train/engine_lab.h"

enum { BATCH = 2, SEQ = 24, ACCUM = 2, TOKENS = BATCH * SEQ * ACCUM, VOCAB = 97 };

static const struct kiln_dims llama = {.dim = 48,
                                       .hidden = 80,
                                       .layers = 2,
                                       .heads = 6,
                                       .kv_heads = 2,
                                       .vocab = VOCAB,
                                       .seq = SEQ,
                                       .tied = true,
                                       .rms_eps = 1e-5f,
                                       .rope_theta = 10000};

/* Values that are neither 0 nor 1 for what begins as such: biases, norms, B. */
static void shake(struct engine_lab *lab) {
    for (size_t i = 0; i < lab->table->n_tensors; i++) {
        const struct kiln_tensor *t = &lab->table->tensors[i];
        if (t->rank == 1 || t->role == KILN_LORA_B) {
            float *w = lab->memory.weights + t->offset;
            float *noise = kiln_alloc(t->cols * t->rows, sizeof *noise);
            kiln_random_normals(3, KILN_STREAM_TEST + ((uint64_t)i << 32), 0.1, noise, 0,
                                t->rows * t->cols);
            for (size_t k = 0; k < t->rows * t->cols; k++) {
                w[k] += noise[k];
            }
            kiln_free(noise);
        }
    }
}

static void write_file(const char *folder, const char *name, const void *data, size_t bytes) {
    char path[4200];
    struct kiln_err err;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK_OK(kiln_write_file(path, data, bytes, &err), &err);
}

/* The tokens of engine_lab.c. */
static void write_tokens(const char *folder) {
    uint32_t ids[2][TOKENS];
    for (uint64_t i = 0; i < TOKENS; i++) {
        ids[0][i] = (uint32_t)kiln_random_below(1, KILN_STREAM_TEST, i, VOCAB);
        ids[1][i] = (uint32_t)kiln_random_below(2, KILN_STREAM_TEST, i, VOCAB);
    }
    write_file(folder, "tokens.u32", ids[0], sizeof ids[0]);
    write_file(folder, "targets.u32", ids[1], sizeof ids[1]);
}

static void write_base(const struct engine_lab *lab, const char *folder) {
    char path[4200];
    struct kiln_err err;
    struct kiln_table *base;
    const struct kiln_save_options plain = {.dtype = KILN_DTYPE_F32};
    snprintf(path, sizeof path, "%s/base", folder);
    CHECK_OK(kiln_table_create(&lab->table->dims, &base, &err), &err);
    CHECK_OK(kiln_checkpoint_save(KILN_FORMAT_HF, path, base, lab->memory.weights, &plain, &err),
             &err);
    kiln_table_destroy(base);
}

/* Adapters and, in the same layout, their gradients; what is read back is what was written. */
static void write_adapters(const struct engine_lab *lab, const char *folder) {
    const struct kiln_table *table = lab->table;
    char path[4200];
    struct kiln_err err;
    struct kiln_lora lora;
    float *flat = kiln_alloc(table->size, sizeof *flat);
    snprintf(path, sizeof path, "%s/gradients", folder);
    memcpy(flat + table->trained, lab->memory.optimizer.gradients.all,
           kiln_trained_size(table) * sizeof *flat);
    CHECK_OK(kiln_lora_save(path, table, flat, NULL, false, &err), &err);
    snprintf(path, sizeof path, "%s/adapter", folder);
    CHECK_OK(kiln_lora_save(path, table, lab->memory.weights, "base", false, &err), &err);
    CHECK_FAILS(kiln_lora_save(path, table, flat, NULL, false, &err), KILN_EEXISTS, &err);
    CHECK_OK(kiln_lora_peek(path, &lora, &err), &err);
    CHECK_EQ(lora.rank, table->lora.rank);
    CHECK_EQ(lora.targets, table->lora.targets);
    CHECK_CLOSE(lora.alpha, table->lora.alpha, 0);
    CHECK_OK(kiln_lora_load(path, table, flat, &err), &err);
    CHECK_BYTES(flat + table->trained, lab->memory.weights + table->trained,
                kiln_trained_size(table) * sizeof *flat);
    kiln_free(flat);
}

/* Logits of the merged model behind the first row. Merges in place. */
static void write_logits(struct engine_lab *lab, const char *folder) {
    struct kiln_err err;
    struct kiln_table *base;
    struct kiln_session *session;
    uint32_t ids[SEQ];
    float logits[VOCAB];
    const struct kiln_session_options options = {.precision = KILN_PRECISION_FP32};
    for (uint64_t i = 0; i < SEQ; i++) {
        ids[i] = (uint32_t)kiln_random_below(1, KILN_STREAM_TEST, i, VOCAB);
    }
    kiln_lora_merge(lab->table, lab->memory.weights);
    CHECK_OK(kiln_table_create(&lab->table->dims, &base, &err), &err);
    CHECK_OK(
        kiln_session_open(base, lab->memory.weights, lab->engine.pool, &options, &session, &err),
        &err);
    CHECK_OK(kiln_session_feed(session, ids, SEQ, logits, &err), &err);
    kiln_session_close(session);
    kiln_table_destroy(base);
    write_file(folder, "logits.f32", logits, sizeof logits);
}

static void check_case(const char *name, const struct kiln_dims *dims, const char *targets,
                       double alpha) {
    struct kiln_plan_request r = {.dims = *dims,
                                  .lora = {.rank = 4, .alpha = alpha},
                                  .batch = BATCH,
                                  .seq = SEQ,
                                  .accum = ACCUM,
                                  .threads = 2,
                                  .precision = KILN_PRECISION_FP32,
                                  .profile = {.tflops = 0.2, .compile_s = 0.01}};
    struct engine_lab lab;
    struct kiln_err err;
    char folder[4096], text[200];
    snprintf(folder, sizeof folder, "%s", test_path(name));
    CHECK_OK(kiln_make_dirs(folder, &err), &err);
    CHECK_OK(kiln_dims_check(&r.dims, &err), &err);
    CHECK_OK(kiln_keep_parse("all", &r.keep, &err), &err);
    CHECK_OK(kiln_lora_parse(targets, &r.lora.targets, &err), &err);
    engine_lab_open(&lab, &r, 0, 0);
    shake(&lab);
    const double loss = engine_lab_window(&lab) / TOKENS;
    snprintf(text, sizeof text, "{\"batch\": %d, \"seq\": %d, \"accum\": %d, \"loss\": %.17g}",
             BATCH, SEQ, ACCUM, loss);
    write_file(folder, "case.json", text, strlen(text));
    write_tokens(folder);
    write_base(&lab, folder);
    write_adapters(&lab, folder);
    write_logits(&lab, folder);
    engine_lab_close(&lab);
    snprintf(text, sizeof text, "'%s'", folder);
    test_python("tests/python/lora.py", text);
}

TEST_WITHIN(peft_gives_the_loss_logits_and_gradients_of_kiln, 300) {
    struct kiln_dims qwen2 = llama, qwen3 = llama;
    qwen2.qkv_bias = true;
    qwen3.qk_norm = true;
    qwen3.head_size = 12;
    qwen3.tied = false;
    check_case("llama-all", &llama, "all", 8);
    check_case("llama-qv", &llama, "q,v", 6);
    check_case("qwen2", &qwen2, "q,k,o,down", 4);
    check_case("qwen3", &qwen3, "all", 16);
}

static void write_config(const char *folder, const char *more) {
    char text[512];
    snprintf(text, sizeof text,
             "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"target_modules\": "
             "[\"q_proj\"]%s}",
             more);
    write_file(folder, "adapter_config.json", text, strlen(text));
}

TEST(options_that_change_what_adapters_compute_are_named) {
    static const char *const harmless[] = {"",
                                           ", \"lora_dropout\": 0.1, \"rank_pattern\": {}",
                                           ", \"use_dora\": false, \"revision\": \"main\"",
                                           ", \"init_lora_weights\": false, \"bias\": \"none\"",
                                           ", \"init_lora_weights\": null, \"loftq_config\": {}",
                                           ", \"init_lora_weights\": \"gaussian\"",
                                           ", \"init_lora_weights\": \"orthogonal\"",
                                           ", \"init_lora_weights\": \"eva\"",
                                           ", \"eva_config\": {\"rho\": 2.0}",
                                           ", \"exclude_modules\": [\"lm_head\"]"};
    static const struct {
        const char *more, *says;
        enum kiln_status status;
    } bad[] = {
        {", \"use_rslora\": true", "use_rslora", KILN_EUNSUPPORTED},
        {", \"use_dora\": true", "use_dora", KILN_EUNSUPPORTED},
        {", \"rank_pattern\": {\"q_proj\": 8}", "rank_pattern", KILN_EUNSUPPORTED},
        {", \"modules_to_save\": [\"lm_head\"]", "modules_to_save", KILN_EUNSUPPORTED},
        {", \"layers_to_transform\": [1]", "layers_to_transform", KILN_EUNSUPPORTED},
        {", \"bias\": \"all\"", "bias", KILN_EUNSUPPORTED},
        {", \"layers_to_transform\": 0", "layers_to_transform", KILN_EUNSUPPORTED},
        {", \"bias\": true", "bias", KILN_EUNSUPPORTED},
        {", \"exclude_modules\": [\"lm_head\", \"q_proj\"]", "exclude_modules", KILN_EUNSUPPORTED},
        {", \"fan_in_fan_out\": true", "fan_in_fan_out", KILN_EUNSUPPORTED},
        {", \"alpha_pattern\": {\"q_proj\": 8}", "alpha_pattern", KILN_EUNSUPPORTED},
        {", \"loftq_config\": {\"loftq_bits\": 4}", "loftq_config", KILN_EUNSUPPORTED},
        {", \"corda_config\": {\"verbose\": true}", "corda_config", KILN_EUNSUPPORTED},
        {", \"lora_ga_config\": {\"scale\": \"unit\"}", "lora_ga_config", KILN_EUNSUPPORTED},
        {", \"init_lora_weights\": \"pissa\"", "\"pissa\"", KILN_EUNSUPPORTED},
        {", \"init_lora_weights\": \"pissa_niter_4\"", "pissa_niter_4", KILN_EUNSUPPORTED},
        {", \"init_lora_weights\": \"olora\"", "\"olora\"", KILN_EUNSUPPORTED},
        {", \"init_lora_weights\": \"corda\"", "\"corda\"", KILN_EUNSUPPORTED},
        {", \"init_lora_weights\": \"loftq\"", "\"loftq\"", KILN_EUNSUPPORTED},
        {", \"init_lora_weights\": \"lora_ga\"", "\"lora_ga\"", KILN_EUNSUPPORTED},
        {", \"init_lora_weights\": \"mica\"", "\"mica\"", KILN_EUNSUPPORTED},
        {", \"init_lora_weights\": 1", "init_lora_weights", KILN_EUNSUPPORTED},
        {", \"something_new\": 3", "something_new", KILN_EUNSUPPORTED},
        {", \"r\": 5", "JSON", KILN_EINPUT}, /* twice */
    };
    struct kiln_err err;
    struct kiln_lora lora;
    const char *folder = test_folder();
    CHECK_FAILS(kiln_lora_peek(folder, &lora, &err), KILN_EINPUT, &err);
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++) {
        write_config(folder, harmless[i]);
        CHECK_OK(kiln_lora_peek(folder, &lora, &err), &err);
        CHECK(lora.rank == 4 && lora.targets == KILN_LORA_Q);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_config(folder, bad[i].more);
        CHECK_FAILS(kiln_lora_peek(folder, &lora, &err), bad[i].status, &err);
        CHECK_CONTAINS(err.message, bad[i].says);
    }
}

/* ---- written over others ----------------------------------------------------------------------
 */

static char replaced[4096]; /* the folder */
static bool synced, moved;

static bool has_config(const char *folder) {
    char path[4300];
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    return kiln_path_exists(path);
}

/* At every moment a process may die: adapters are there, the old or the new, and the new have the
 * name only when the names in their folder are on the disk. */
static void watch(const struct kiln_io_event *event) {
    char old[4200], new[4200];
    snprintf(old, sizeof old, "%s.old-%ld", replaced, (long)getpid());
    snprintf(new, sizeof new, "%s.tmp-%ld", replaced, (long)getpid());
    CHECK(has_config(replaced) || has_config(old));
    synced = synced || (event->op == KILN_IO_SYNC_DIR && event->done &&
                        strcmp(event->path, new) == 0 && has_config(new));
    if (event->op == KILN_IO_RENAME && strcmp(event->to, replaced) == 0) {
        CHECK(synced);
        moved = true;
    }
}

TEST(a_death_while_adapters_are_replaced_leaves_some) {
    const struct kiln_lora lora = {.rank = 4, .alpha = 8, .targets = KILN_LORA_ALL};
    struct kiln_table *table;
    struct kiln_err err;
    CHECK_OK(kiln_table_create_lora(&llama, &lora, &table, &err), &err);
    float *weights = kiln_alloc(table->size, sizeof *weights);
    kiln_lora_init(table, 1, weights);
    snprintf(replaced, sizeof replaced, "%s", test_path("adapters"));
    CHECK_OK(kiln_lora_save(replaced, table, weights, NULL, false, &err), &err);
    synced = moved = false;
    kiln_io_hook = watch;
    CHECK_OK(kiln_lora_save(replaced, table, weights, NULL, true, &err), &err);
    kiln_io_hook = NULL;
    CHECK(moved && has_config(replaced));
    CHECK_FAILS(kiln_lora_save(replaced, table, weights, NULL, false, &err), KILN_EEXISTS, &err);
    test_file("adapters/README.md", "mine", 4); /* stays */
    weights[table->size - 1] = 0.5F;
    CHECK_OK(kiln_lora_save(replaced, table, weights, NULL, true, &err), &err);
    CHECK(kiln_path_exists(test_path("adapters/README.md")));
    CHECK(has_config(replaced));
    kiln_free(weights);
    kiln_table_destroy(table);
}
