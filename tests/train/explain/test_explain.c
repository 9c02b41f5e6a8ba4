/* SPDX-License-Identifier: MIT
 *
 * kiln/explain.h: what is planted in a step is named, and a step without a fault is healthy.
 * Incidents are made here, in the form that docs/flight-recorder.md has.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "kiln/explain.h"
#include "kiln_test.h"
#include "model/stored_dims.h"
#include "train/family_model.h"
#include "train/run_int.h"
#include "train/tiny_run.h"

/* ---- incidents ---------------------------------------------------------------------------------
 */

#define NONE ((double)NAN) /* unknown, or not finite */

/* What is to be written as incidents/step-N of a run that stands there. */
struct lab {
    struct kiln_run *run;
    const struct kiln_table *table;
    const char *folder;
    uint64_t step, sample;
    float *weights;
    uint32_t *tokens, *targets;
    size_t sequences, seq;
    const char *why;
    double loss, norm, mean;
    double scale; /* 0: none is written */
};

/* The step that comes next, as it is. */
static void open_lab(struct lab *lab, const char *folder) {
    char path[4400];
    struct kiln_err err;
    struct kiln_run_peek peek;
    struct kiln_map map;
    *lab = (struct lab){.folder = folder, .why = "loss is not finite", .loss = NONE, .norm = NONE};
    lab->mean = NONE;
    CHECK_OK(kiln_run_peek(folder, &peek, &err), &err);
    CHECK_OK(kiln_run_read(folder, &lab->run, &err), &err);
    CHECK_OK(kiln_run_read_data(lab->run, &err), &err);
    const struct kiln_settings *s = &lab->run->settings;
    lab->table = lab->run->table;
    lab->step = peek.step + 1;
    lab->sequences = s->batch * s->accum;
    lab->seq = s->seq;
    lab->sample = peek.step * lab->sequences;
    snprintf(path, sizeof path, "%s/state.kiln", folder);
    CHECK_OK(kiln_map_open(&map, path, &err), &err);
    lab->weights = kiln_alloc(lab->table->size, sizeof *lab->weights);
    memcpy(lab->weights, map.data + KILN_STATE_WEIGHTS_AT, lab->table->size * sizeof *lab->weights);
    kiln_map_close(&map);
    lab->tokens = kiln_alloc(2 * lab->sequences * lab->seq, sizeof *lab->tokens);
    lab->targets = lab->tokens + lab->sequences * lab->seq;
    for (size_t i = 0; i < lab->sequences; i++) {
        kiln_data_train(lab->run->trainer.data, lab->sample + i, lab->tokens + i * lab->seq,
                        lab->targets + i * lab->seq);
    }
}

static void close_lab(struct lab *lab) {
    kiln_run_close(lab->run);
    kiln_free(lab->weights);
    kiln_free(lab->tokens);
}

static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

static json_t *sizes(const struct kiln_dims *dims) {
    const struct kiln_stored_dims stored = kiln_dims_store(dims);
    json_t *out = json_object();
    size_t n;
    const struct kiln_stored_field *fields = kiln_stored_fields(&n);
    for (size_t i = 0; i < n; i++) {
        char text[40];
        kiln_stored_text(&stored, &fields[i], text, sizeof text);
        json_object_set_new(out, fields[i].name, json_loads(text, JSON_DECODE_ANY, NULL));
    }
    return out;
}

static const char *file_of(const struct lab *lab, const char *name) {
    static char path[4400];
    snprintf(path, sizeof path, "%s/incidents/step-%llu/%s", lab->folder,
             (unsigned long long)lab->step, name);
    return path;
}

/* precision: of the run, whatever it really trains in. */
static void write_incident(const struct lab *lab, const char *precision) {
    struct kiln_err err;
    const struct kiln_settings *s = &lab->run->settings;
    json_t *out = json_pack(
        "{s:I, s:s, s:s, s:o, s:o, s:f, s:o, s:o, s:o, s:i, s:I, s:I, s:I, s:I, s:s, s:o, s:[]}",
        "step", (json_int_t)lab->step, "why", lab->why, "action", "stopped", "loss",
        number(lab->loss), "grad_norm", number(lab->norm), "lr", 1e-3, "z", number(NONE), "mean",
        number(lab->mean), "deviation", number(lab->mean / 50), "window", 64, "sample",
        (json_int_t)lab->sample, "batch", (json_int_t)s->batch, "accum", (json_int_t)s->accum,
        "seq", (json_int_t)s->seq, "precision", precision, "sizes", sizes(&lab->table->dims),
        "tensors");
    CHECK(out != NULL);
    json_object_set_new(out, "gradient_scale", number(lab->scale > 0 ? lab->scale : NONE));
    char *text = json_dumps(out, 0);
    CHECK_OK(kiln_make_dirs(file_of(lab, ""), &err), &err);
    CHECK_OK(kiln_write_file(file_of(lab, "incident.json"), text, strlen(text), &err), &err);
    free(text);
    json_decref(out);
    CHECK_OK(kiln_write_file(file_of(lab, "window.u32"), lab->tokens,
                             2 * lab->sequences * lab->seq * sizeof *lab->tokens, &err),
             &err);
    CHECK_OK(kiln_write_file(file_of(lab, "weights.f32"), lab->weights,
                             lab->table->size * sizeof *lab->weights, &err),
             &err);
}

static struct kiln_explanation *explain(const char *folder, uint64_t step) {
    const struct kiln_explain_options how = {.run = folder, .step = step, .threads = 2};
    struct kiln_explanation *why;
    struct kiln_err err;
    CHECK_OK(kiln_explain(&how, &why, &err), &err);
    printf("      %s: %s\n", kiln_explain_kind_name(why->kind), why->verdict);
    CHECK(why->verdict[0] != '\0' && why->advice[0] != '\0');
    return why;
}

static void check_refused(const char *folder, uint64_t step, enum kiln_status code,
                          const char *part) {
    const struct kiln_explain_options how = {.run = folder, .step = step, .threads = 2};
    struct kiln_explanation *why;
    struct kiln_err err;
    CHECK_FAILS(kiln_explain(&how, &why, &err), code, &err);
    CHECK_CONTAINS(err.message, part);
    CHECK(why == NULL);
}

static float *element(struct lab *lab, const char *name, size_t row, size_t col) {
    for (size_t i = 0; i < lab->table->n_tensors; i++) {
        const struct kiln_tensor *t = &lab->table->tensors[i];
        if (strcmp(t->name, name) == 0) {
            CHECK(row < t->rows && col < t->cols);
            return lab->weights + t->offset + row * t->cols + col;
        }
    }
    FAIL("no tensor %s", name);
    return NULL;
}

/* ---- weights -----------------------------------------------------------------------------------
 */

/* One number of a tensor is planted; it is named, and what it makes bad first, at sequence 0 and
 * token 0 unless that has to do with the token. */
static void check_planted(const char *folder, const char *name, size_t row, size_t col, float value,
                          const char *then) {
    struct lab lab;
    open_lab(&lab, folder);
    *element(&lab, name, row, col) = value;
    write_incident(&lab, "bf16");
    struct kiln_explanation *why = explain(folder, lab.step);
    CHECK_EQ(why->kind, KILN_EXPLAIN_WEIGHT);
    CHECK(why->first != KILN_EXPLAIN_NO_PLACE && why->shown != KILN_EXPLAIN_NO_PLACE);
    const struct kiln_explain_tensor *first = &why->walk[why->first];
    CHECK_STRING(first->name, name);
    CHECK_STRING(first->what, "weight");
    CHECK_EQ(first->first.token, row);
    CHECK_EQ(first->first.element, col);
    CHECK_EQ(first->not_finite, 1);
    CHECK(isnan(value) ? isnan(first->first.value) : first->first.value == (double)value);
    CHECK_STRING(why->walk[why->shown].name, then);
    CHECK(!why->backward && isnan(why->norm) && isnan(why->ordinary_loss));
    CHECK_CONTAINS(why->verdict, name);
    CHECK_CONTAINS(why->advice, "--on-spike rollback");
    kiln_explain_free(why);
    close_lab(&lab);
}

TEST(a_planted_weight_is_named_with_its_element) {
    const char *run = tiny_run("run", "layers=4 steps=3", NULL);
    check_planted(run, "w1.3", 5, 7, INFINITY, "gate.3");
    check_planted(run, "w3.3", 63, 31, -INFINITY, "up.3");
    check_planted(run, "wq.0", 0, 0, NAN, "queries.0");
    check_planted(run, "wo.2", 1, 2, INFINITY, "attn_output.2");
    check_planted(run, "rms_att.1", 0, 30, NAN, "attn_norm.1");
    check_planted(run, "rms_final", 0, 3, INFINITY, "final_norm");
    check_planted(run, "tok_embeddings", 258, 1, INFINITY, "logits"); /* tied; never looked up */
}

/* The second of two in the order of the table comes first in that of computing. */
TEST(of_two_planted_weights_the_first_in_computing_is_named) {
    struct lab lab;
    const char *run = tiny_run("run", "layers=4 steps=3", NULL);
    open_lab(&lab, run);
    *element(&lab, "w2.1", 3, 3) = INFINITY;
    *element(&lab, "wk.3", 2, 2) = INFINITY;
    *element(&lab, "tok_embeddings", 258, 0) = NAN; /* the window has no such token */
    write_incident(&lab, "bf16");
    struct kiln_explanation *why = explain(run, lab.step);
    CHECK_STRING(why->walk[why->first].name, "w2.1");
    CHECK_STRING(why->walk[why->shown].name, "ffn_output.1");
    kiln_explain_free(why);
    close_lab(&lab);
}

TEST(a_planted_row_of_the_embedding_is_named_by_its_token) {
    struct lab lab;
    const char *run = tiny_run("run", "steps=3", NULL);
    open_lab(&lab, run);
    const uint32_t id = lab.tokens[70]; /* a byte, three behind the marks */
    const char text[] = {(char)(id - 3), '\0'};
    size_t at = 0;
    while (lab.tokens[at] != id) {
        at++;
    }
    *element(&lab, "tok_embeddings", id, 4) = INFINITY;
    write_incident(&lab, "fp32");
    struct kiln_explanation *why = explain(run, lab.step);
    CHECK_EQ(why->kind, KILN_EXPLAIN_WEIGHT);
    CHECK_STRING(why->walk[why->first].name, "tok_embeddings");
    CHECK_EQ(why->walk[why->first].first.token, id);
    CHECK_STRING(why->token, text);
    CHECK_CONTAINS(why->verdict, "row of token");
    CHECK_STRING(why->walk[why->shown].name, "embedding");
    CHECK(why->has_text);
    CHECK_EQ(why->text.sequence, at / lab.seq);
    CHECK_EQ(why->text.token, at % lab.seq);
    CHECK_EQ(why->text.sample, lab.sample + at / lab.seq);
    CHECK_STRING(why->text.piece, text);
    CHECK_EQ(why->text.ids[why->text.token - why->text.first], id);
    /* And the data has it there. */
    const struct kiln_token_file *file = kiln_data_file(lab.run->trainer.data, why->text.file);
    CHECK_EQ(kiln_token_file_id(file, why->text.at), id);
    kiln_explain_free(why);
    close_lab(&lab);
}

TEST(a_planted_adapter_is_named) {
    struct lab lab;
    char base[4200], changes[4400];
    snprintf(base, sizeof base, "%s", tiny_run("base", "steps=3", NULL));
    snprintf(changes, sizeof changes, "steps=3 lora=4 lora-targets=all model=%s", base);
    struct kiln_settings s;
    struct kiln_run *made;
    struct kiln_err err;
    CHECK_OK(kiln_settings_init(&s, &err), &err);
    tiny_set(&s, "seq=32 batch=2 accum=2 threads=2 save-every=2");
    tiny_set(&s, changes);
    snprintf(changes, sizeof changes, "data=%s out=%s", test_path("stories.txt"),
             test_path("tuned"));
    tiny_set(&s, changes);
    CHECK_OK(kiln_run_create(&s, &made, &err), &err);
    CHECK_OK(kiln_run_train(made, NULL, NULL, &err), &err);
    kiln_run_close(made);
    const char *run = s.out;
    struct kiln_explanation *healthy = explain(run, 3);
    CHECK_EQ(healthy->kind, KILN_EXPLAIN_HEALTHY);
    CHECK_EQ(healthy->n_gradients, 2 * 7 * 2); /* A and B of seven matrices of two layers */
    CHECK_CLOSE(healthy->norm, healthy->recorded_norm, 0.03 * healthy->norm);
    kiln_explain_free(healthy);
    open_lab(&lab, run);
    *element(&lab, "lora_b.w1.1", 9, 2) = INFINITY;
    write_incident(&lab, "bf16");
    struct kiln_explanation *why = explain(run, lab.step);
    CHECK_STRING(why->walk[why->first].name, "lora_b.w1.1");
    CHECK_EQ(why->walk[why->first].first.token, 9);
    CHECK_STRING(why->walk[why->shown].name, "gate.1");
    kiln_explain_free(why);
    close_lab(&lab);
    kiln_settings_free(&s);
}

/* Biases, norms of heads, yarn: the step is what the run has of it, and faults are named. */
TEST(a_step_of_another_family_is_explained) {
    for (int family = 0; family < FAMILIES; family++) {
        char name[16], changes[4300];
        struct kiln_settings s;
        struct kiln_run *made;
        struct kiln_err err;
        CHECK_OK(kiln_settings_init(&s, &err), &err);
        tiny_settings(&s, "unused", "");
        kiln_settings_free(&s);
        snprintf(name, sizeof name, "family%d", family);
        CHECK_OK(kiln_settings_init(&s, &err), &err);
        tiny_set(&s, "seq=32 batch=2 accum=2 threads=2 save-every=2 steps=3 precision=fp32");
        snprintf(changes, sizeof changes, "model=%s data=%s out=%s", family_file(family),
                 test_path("stories.txt"), test_path(name));
        tiny_set(&s, changes);
        CHECK_OK(kiln_run_create(&s, &made, &err), &err);
        CHECK_OK(kiln_run_train(made, NULL, NULL, &err), &err);
        kiln_run_close(made);
        struct kiln_explanation *why = explain(s.out, 3);
        CHECK_EQ(why->kind, KILN_EXPLAIN_HEALTHY);
        CHECK_CLOSE(why->loss, why->recorded_loss, 1e-5 * why->loss);
        CHECK_CLOSE(why->norm, why->recorded_norm, 1e-4 * why->norm);
        kiln_explain_free(why);
        if (family != FAMILY_BIAS) {
            check_planted(s.out, "rms_k.1", 0, 5, NAN, "turned_keys.1");
        }
        if (family != FAMILY_NORM) {
            check_planted(s.out, "bv.0", 0, 3, INFINITY, "values.0");
        }
        kiln_settings_free(&s);
    }
}

/* ---- too large ---------------------------------------------------------------------------------
 */

/* Finite weights, and a run that found no number: what overflows in its precision is named. */
static void check_overflow(float factor, const char *precision, const char *name, double limit) {
    struct lab lab;
    const char *run = test_path("run");
    open_lab(&lab, run);
    for (size_t i = 0; i < 64 * 32; i++) {
        *element(&lab, "w3.1", i / 32, i % 32) *= factor;
    }
    write_incident(&lab, precision);
    struct kiln_explanation *why = explain(run, lab.step);
    CHECK_EQ(why->kind, KILN_EXPLAIN_PRECISION);
    const struct kiln_explain_tensor *first = &why->walk[why->first];
    CHECK_STRING(first->name, name);
    CHECK_EQ(first->not_finite, 0);
    CHECK(first->beyond > 0 && fabs(first->first.value) > limit);
    CHECK_CLOSE(first->limit, limit, 1e-2 * limit);
    CHECK(isfinite(why->loss) && why->has_text);
    kiln_explain_free(why);
    close_lab(&lab);
}

TEST(numbers_beyond_the_precision_are_named) {
    tiny_run("run", "layers=4 steps=3", NULL);
    check_overflow(1e6F, "fp16", "up.1", 65504);
    check_overflow(1e38F, "bf16", "attn_squares.2", 3.4e38); /* the next norm's */
}

/* What the device had was the gradient times the scale. */
TEST(gradients_of_fp16_are_held_against_what_their_loss_scale_leaves) {
    struct lab lab;
    const char *run = tiny_run("run", "steps=3", NULL);
    open_lab(&lab, run);
    lab.loss = 5.5;
    lab.scale = 0x1p12;
    write_incident(&lab, "fp16");
    struct kiln_explanation *why = explain(run, lab.step);
    CHECK_EQ(why->first, KILN_EXPLAIN_NO_PLACE);
    CHECK(why->scale == lab.scale);
    kiln_explain_free(why);
    lab.scale = 0x1p36;
    write_incident(&lab, "fp16");
    why = explain(run, lab.step);
    CHECK_EQ(why->kind, KILN_EXPLAIN_PRECISION);
    const struct kiln_explain_tensor *first = &why->walk[why->first];
    CHECK_STRING(first->what, "gradient");
    CHECK(first->limit == 65504 / lab.scale);
    CHECK(first->beyond > 0 && fabs(first->largest.value) > first->limit);
    CHECK_CONTAINS(why->verdict, "times the loss scale of");
    CHECK_CONTAINS(why->advice, "half the scale");
    kiln_explain_free(why);
    write_incident(&lab, "bf16");
    why = explain(run, lab.step);
    CHECK_EQ(why->first, KILN_EXPLAIN_NO_PLACE);
    kiln_explain_free(why);
    close_lab(&lab);
}

/* Weights as large as fp32 has them overflow in double precision only where they are multiplied
 * again and again; here the run's loss is none, and nothing here shows why. */
TEST(what_double_precision_does_not_see_is_said) {
    struct lab lab;
    const char *run = tiny_run("run", "steps=3", NULL);
    open_lab(&lab, run);
    write_incident(&lab, "bf16");
    struct kiln_explanation *why = explain(run, lab.step);
    CHECK_EQ(why->kind, KILN_EXPLAIN_ARITHMETIC);
    CHECK(why->first == KILN_EXPLAIN_NO_PLACE && !why->has_text);
    CHECK(isfinite(why->loss) && isfinite(why->norm));
    CHECK_CONTAINS(why->advice, "kiln verify");
    kiln_explain_free(why);
    close_lab(&lab);
}

/* ---- batches -----------------------------------------------------------------------------------
 */

/* The loss of the window as it is, for incidents that say so. */
static double loss_of(const char *run, uint64_t step) {
    struct kiln_explanation *why = explain(run, step);
    const double loss = why->loss;
    kiln_explain_free(why);
    return loss;
}

static struct kiln_explanation *spike(struct lab *lab) {
    lab->why = "loss spike";
    lab->loss = 1; /* not known yet */
    lab->norm = 1;
    write_incident(lab, "bf16");
    lab->loss = loss_of(lab->folder, lab->step);
    write_incident(lab, "bf16");
    return explain(lab->folder, lab->step);
}

TEST(a_bad_batch_is_named) {
    struct lab lab;
    const char *run = tiny_run("run", "steps=40 eval-every=0 save-every=0", NULL);
    open_lab(&lab, run);
    /* One token as all the targets of a sequence, as FLIGHT's plant has it. */
    for (size_t t = 0; t < lab.seq; t++) {
        lab.targets[2 * lab.seq + t] = 200;
    }
    struct kiln_explanation *why = spike(&lab);
    CHECK_EQ(why->kind, KILN_EXPLAIN_BATCH);
    for (size_t s = 0; s < why->sequences; s++) {
        CHECK_EQ(why->sequence[s].reasons != 0, s == 2);
    }
    const struct kiln_explain_sequence *bad = &why->sequence[2];
    CHECK(bad->reasons & KILN_EXPLAIN_TARGETS && bad->reasons & KILN_EXPLAIN_REPEATED);
    CHECK(bad->reasons & KILN_EXPLAIN_ABOVE_CHANCE && bad->reasons & KILN_EXPLAIN_OUTLIER);
    CHECK_EQ(bad->repeated, 200);
    CHECK_EQ(bad->misfits, lab.seq - 1);
    CHECK_EQ(bad->sample, lab.sample + 2);
    CHECK_EQ(why->tokens[0].text.sequence, 2);
    CHECK_EQ(why->tokens[0].text.target, 200);
    CHECK_CONTAINS(why->verdict, "sequence 2, sample 162");
    CHECK_CONTAINS(why->advice, "sample 162");
    kiln_explain_free(why);
    close_lab(&lab);
}

TEST(a_sequence_of_one_token_and_one_of_noise_are_named) {
    struct lab lab;
    const char *run = tiny_run("run", "steps=40 eval-every=0 save-every=0", NULL);
    open_lab(&lab, run);
    for (size_t t = 0; t < lab.seq; t++) {
        lab.tokens[t] = lab.targets[t] = 250; /* and its own target: nothing contradicts */
        const uint32_t noise = (uint32_t)(128 + (t * 37 + 11) % 127);
        lab.tokens[3 * lab.seq + t] = noise;
        lab.targets[3 * lab.seq + t - (t > 0)] = noise;
    }
    lab.targets[4 * lab.seq - 1] = 130;
    struct kiln_explanation *why = spike(&lab);
    CHECK_EQ(why->kind, KILN_EXPLAIN_BATCH);
    CHECK_EQ(why->sequence[0].reasons & KILN_EXPLAIN_REPEATED, KILN_EXPLAIN_REPEATED);
    CHECK_EQ(why->sequence[0].misfits, 0);
    CHECK_EQ(why->sequence[3].reasons, KILN_EXPLAIN_OUTLIER); /* of two, beside another window */
    CHECK(why->sequence[1].reasons == 0 && why->sequence[2].reasons == 0);
    kiln_explain_free(why);
    close_lab(&lab);
}

/* ---- spikes ------------------------------------------------------------------------------------
 */

/* Weights that are noise make another window as bad: the model is to blame, and not the data. */
TEST(weights_that_had_gone_wrong_are_told_from_data) {
    struct lab lab;
    const char *run = tiny_run("run", "steps=40 eval-every=0 save-every=0", NULL);
    open_lab(&lab, run);
    for (size_t i = 0; i < 32; i++) {
        *element(&lab, "rms_final", 0, i) *= -3;
    }
    lab.mean = 3;
    struct kiln_explanation *why = spike(&lab);
    CHECK_EQ(why->kind, KILN_EXPLAIN_WEIGHTS);
    CHECK(why->ordinary_loss > 4 && why->loss > 4);
    CHECK_EQ(why->ordinary_sample, lab.sample - 4);
    CHECK(why->gradient[0].ordinary > 0);
    for (size_t i = 1; i < why->n_gradients; i++) { /* in order */
        CHECK(why->gradient[i - 1].norm / why->gradient[i - 1].ordinary >=
              why->gradient[i].norm / why->gradient[i].ordinary);
    }
    kiln_explain_free(why);
    close_lab(&lab);
}

/* The model is no worse on this window than on the one beside it: the spike is not the window's. */
TEST(a_spike_that_another_window_has_too_is_not_the_windows) {
    struct lab lab;
    const char *run = tiny_run("run", "steps=40 eval-every=0 save-every=0", NULL);
    open_lab(&lab, run);
    struct kiln_explanation *why = spike(&lab); /* no mean is known */
    CHECK(why->ordinary_loss >= 0.9 * why->loss);
    CHECK_EQ(why->kind, KILN_EXPLAIN_WEIGHTS);
    CHECK_CONTAINS(why->advice, "--on-spike rollback");
    kiln_explain_free(why);
    close_lab(&lab);
}

/* ---- without an incident ------------------------------------------------------------------------
 */

TEST(a_healthy_step_says_so_from_a_checkpoint_and_from_the_state) {
    const char *run = tiny_run("run", "precision=fp32", NULL);
    for (uint64_t step = 6; step <= 9; step++) { /* checkpoints 2, 4, 6; the state stands at 8 */
        struct kiln_explanation *why = explain(run, step);
        CHECK_EQ(why->kind, KILN_EXPLAIN_HEALTHY);
        CHECK(!why->incident && why->first == KILN_EXPLAIN_NO_PLACE && why->backward);
        CHECK_EQ(why->sample, (step - 1) * 4);
        if (step < 9) {
            CHECK_CLOSE(why->loss, why->recorded_loss, 1e-5 * why->loss);
            CHECK_CLOSE(why->norm, why->recorded_norm, 1e-4 * why->norm);
        } else {
            CHECK_STRING(why->weights_from, "state.kiln");
        }
        CHECK_CONTAINS(why->verdict, "nothing is wrong");
        kiln_explain_free(why);
    }
}

/* Delayed gradients are taken at the weights before the newest. */
TEST(a_delayed_step_is_taken_at_its_weights) {
    const char *run = tiny_run("run", "precision=fp32 overlap=delayed steps=7", NULL);
    struct kiln_explanation *why = explain(run, 7);
    CHECK_CLOSE(why->loss, why->recorded_loss, 1e-5 * why->loss);
    CHECK_CONTAINS(why->weights_from, "to step 5");
    kiln_explain_free(why);
}

/* Where no checkpoint lies before the step, the run's first weights are made again. */
TEST(a_step_before_the_oldest_checkpoint_is_reached_from_the_seed) {
    const char *run = tiny_run("run", "precision=fp32 steps=7 save-every=5 seed=3", NULL);
    for (uint64_t step = 1; step <= 4; step++) {
        struct kiln_explanation *why = explain(run, step);
        CHECK_EQ(why->kind, KILN_EXPLAIN_HEALTHY);
        CHECK_CONTAINS(why->weights_from, "the run's first, of seed 3");
        CHECK_CLOSE(why->loss, why->recorded_loss, 1e-5 * why->loss);
        CHECK_CLOSE(why->norm, why->recorded_norm, 1e-4 * why->norm);
        kiln_explain_free(why);
    }
}

/* ---- what cannot be explained -------------------------------------------------------------------
 */

TEST(what_is_missing_or_damaged_is_said) {
    struct lab lab;
    struct kiln_err err;
    const char *run = tiny_run("run", "steps=7 save-every=3", NULL);
    check_refused(test_path("none"), 3, KILN_EINPUT, "is no run folder");
    check_refused(run, 9, KILN_EINPUT, "no step 9: 7 are done");
    open_lab(&lab, run);
    write_incident(&lab, "bf16");
    CHECK_OK(kiln_write_file(file_of(&lab, "weights.f32"), lab.weights, 100, &err), &err);
    check_refused(run, 8, KILN_EDAMAGED, "weights.f32: 100 bytes");
    CHECK_OK(kiln_remove_tree(file_of(&lab, "weights.f32"), &err), &err);
    struct kiln_explanation *why = explain(run, 8); /* the state has them */
    CHECK_STRING(why->weights_from, "state.kiln");
    kiln_explain_free(why);
    lab.tokens[5] = 259;
    write_incident(&lab, "bf16");
    check_refused(run, 8, KILN_EDAMAGED, "id 259 of sequence 0, token 5: the vocabulary is 259");
    CHECK_OK(kiln_write_file(file_of(&lab, "window.u32"), lab.tokens, 12, &err), &err);
    check_refused(run, 8, KILN_EDAMAGED, "window.u32: 12 bytes");
    CHECK_OK(kiln_write_file(file_of(&lab, "incident.json"), "{\"step\": 8", 10, &err), &err);
    check_refused(run, 8, KILN_EDAMAGED, "incident.json: no JSON object");
    CHECK_OK(kiln_write_file(file_of(&lab, "incident.json"), "{\"step\": 7}", 11, &err), &err);
    check_refused(run, 8, KILN_EINPUT, "\"step\" is 7");
    close_lab(&lab);
}

TEST(an_incident_of_another_model_is_refused) {
    struct lab lab;
    struct kiln_table *other;
    struct kiln_err err;
    const char *run = tiny_run("run", "steps=3", NULL);
    open_lab(&lab, run);
    struct kiln_dims dims = lab.table->dims;
    dims.hidden = 72;
    CHECK_OK(kiln_table_create(&dims, &other, &err), &err);
    const struct kiln_table *own = lab.table;
    float *weights = lab.weights;
    lab.table = other;
    lab.weights = kiln_alloc(other->size, sizeof *lab.weights);
    write_incident(&lab, "bf16");
    check_refused(run, 4, KILN_EINPUT, "\"hidden\" is not 64");
    kiln_free(lab.weights);
    lab.weights = weights;
    lab.table = own;
    kiln_table_destroy(other);
    close_lab(&lab);
}
