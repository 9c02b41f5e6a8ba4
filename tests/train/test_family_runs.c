/* SPDX-License-Identifier: MIT
 *
 * Runs of models with biases, norms of heads and scaled RoPE: what never shows in a Llama's bits
 * shows in none of theirs, and what a run writes is that model again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "kernel/kernel.h"
#include "kiln_test.h"
#include "train/engine_lab.h"
#include "train/family_model.h"
#include "train/tiny_run.h"

static uint32_t trained(const char *name, enum family family, const char *changes) {
    char all[5000];
    struct kiln_run_peek peek;
    struct kiln_err err;
    snprintf(all, sizeof all, "model=%s steps=4 save-every=3 %s", family_file(family), changes);
    CHECK_OK(kiln_run_peek(tiny_run(name, all, NULL), &peek, &err), &err);
    CHECK_OK(kiln_remove_tree(test_path(name), &err), &err);
    return peek.weights_hash;
}

/* ---- nothing shows -------------------------------------------------------------------------- */

static void check_plans(enum family family, const char *base) {
    static const char *const plans[] = {
        "threads=1",
        "threads=3 activations=none",
        "activations=sqrt budget=1000 overlap=exact",
        "activations=inputs budget=1000 overlap=off schedule=whole",
        "activations=every:2 threads=4",
    };
    char changes[256];
    snprintf(changes, sizeof changes, "%s activations=all", base);
    const uint32_t want = trained("whole", family, changes);
    for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++) {
        snprintf(changes, sizeof changes, "%s %s", plans[i], base);
        const uint32_t got = trained("run", family, changes);
        if (got != want) {
            FAIL("family %d, %s: weights %08x, not %08x", (int)family, changes, got, want);
        }
    }
}

TEST_WITHIN(no_plan_changes_a_bit_of_another_family, 300) {
    kiln_poison_dropped = true;
    for (enum family f = FAMILY_BIAS; f < FAMILIES; f++) {
        check_plans(f, "precision=fp32");
        check_plans(f, "precision=bf16");
    }
}

/* Biases and norms are frozen then, and gradients go through them. */
TEST_WITHIN(no_plan_changes_a_bit_of_adapters_of_another_family, 300) {
    kiln_poison_dropped = true;
    check_plans(FAMILY_BOTH, "precision=fp32 lora=4 lora-targets=q,k,v");
    check_plans(FAMILY_BOTH, "precision=bf16 lora=4 lora-targets=q,v,o");
}

/* Weights are read from snapshots then. */
TEST_WITHIN(no_plan_changes_a_delayed_bit_of_another_family, 300) {
    for (enum family f = FAMILY_BIAS; f < FAMILIES; f++) {
        const uint32_t want = trained("whole", f, "overlap=delayed precision=bf16 threads=1");
        CHECK_EQ(trained("run", f, "overlap=delayed precision=bf16 activations=none threads=3"),
                 want);
        CHECK(want != trained("exact", f, "overlap=exact precision=bf16"));
    }
}

/* The weights after two windows of an odd number of tokens. */
static float *after_windows(enum family family, enum kiln_precision precision, size_t threads,
                            size_t *bytes) {
    struct kiln_plan_request r = {.dims = family_dims(family),
                                  .batch = 3,
                                  .seq = 43,
                                  .accum = 2,
                                  .threads = threads,
                                  .precision = precision,
                                  .profile = {.tflops = 0.2, .compile_s = 0.01}};
    struct engine_lab lab;
    struct kiln_err err;
    CHECK_OK(kiln_keep_parse("all", &r.keep, &err), &err);
    engine_lab_open(&lab, &r, 0, 0);
    for (int i = 0; i < 2; i++) {
        CHECK(engine_lab_window(&lab) > 0);
        engine_lab_update(&lab, kiln_optimizer_norm(lab.engine.optimizer, 1));
    }
    *bytes = lab.table->size * sizeof(float);
    float *out = kiln_alloc(*bytes, 1);
    memcpy(out, lab.memory.weights, *bytes);
    engine_lab_close(&lab);
    return out;
}

TEST_WITHIN(threads_do_not_show_in_another_family_on_any_tier, 120) {
    size_t n, bytes;
    const struct kiln_tier *tiers = kiln_kernels_tiers(&n);
    struct kiln_kernels kernels;
    for (size_t i = 0; i < 2 * n; i++) {
        const enum kiln_precision precision = i % 2 ? KILN_PRECISION_BF16 : KILN_PRECISION_FP32;
        setenv("KILN_CPU", tiers[i / 2].name, 1);
        if (kiln_kernels_choose(precision, &kernels, NULL) != KILN_OK) {
            continue;
        }
        float *one = after_windows(FAMILY_BOTH, precision, 1, &bytes);
        for (size_t threads = 2; threads <= 4; threads++) {
            float *more = after_windows(FAMILY_BOTH, precision, threads, &bytes);
            CHECK_BYTES(more, one, bytes);
            kiln_free(more);
        }
        kiln_free(one);
    }
}

/* ---- what a run writes ----------------------------------------------------------------------- */

/* A run whose state is lost goes on from its checkpoint to the same end. */
static const char *lose_the_state(const char *name, const char *changes) {
    char all[5000], path[4200];
    struct kiln_err err;
    struct kiln_run_peek peek;
    struct kiln_run *run;
    snprintf(all, sizeof all, "model=%s steps=4 save-every=3 precision=bf16 %s",
             family_file(FAMILY_BOTH), changes);
    const char *folder = tiny_run(name, all, NULL);
    CHECK_OK(kiln_run_peek(folder, &peek, &err), &err);
    snprintf(path, sizeof path, "%s/state.kiln", folder);
    CHECK(remove(path) == 0);
    CHECK_OK(kiln_run_resume(folder, NULL, &run, &err), &err);
    CHECK_OK(kiln_run_train(run, NULL, NULL, &err), &err);
    CHECK_EQ(kiln_run_weights_hash(run), peek.weights_hash); /* step 4 again */
    kiln_run_close(run);
    return folder;
}

/* model.bin of the end, and of a checkpoint when the state is lost. */
TEST(a_run_of_another_family_goes_on_from_its_checkpoint_and_is_a_model) {
    struct kiln_err err;
    struct kiln_model model, start;
    const char *folder = lose_the_state("run", "");
    CHECK_OK(kiln_model_open(folder, 1, &model, &err), &err);
    CHECK_OK(kiln_model_open(family_file(FAMILY_BOTH), 1, &start, &err), &err);
    const struct kiln_dims *d = &model.table->dims;
    CHECK(d->qkv_bias && d->qk_norm && d->head_size == 12 && d->rope.kind == KILN_ROPE_YARN);
    CHECK(d->rope.beta_fast == 4 && d->rope.original_seq == 8 && d->rope_theta == 20000.0f);
    for (size_t i = 0; i < model.table->n_tensors; i++) { /* all of it has learned */
        const struct kiln_tensor *t = &model.table->tensors[i];
        const size_t bytes = t->rows * t->cols * sizeof(float);
        if (memcmp(model.weights + t->offset, start.weights + t->offset, bytes) == 0) {
            FAIL("%s is as it was", t->name);
        }
    }
    kiln_model_close(&model);
    kiln_model_close(&start);
}

TEST(adapters_of_another_family_go_on_from_their_checkpoint) { lose_the_state("run", "lora=4"); }
