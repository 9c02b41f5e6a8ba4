/* SPDX-License-Identifier: MIT
 *
 * What programs are beside what they compute: their text, surfaces, weight files and refusals.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "device/ane/programs.h"
#include "device/llama_oracle.h"
#include "device/mil/blob.h"
#include "device/mil/graph.h"
#include "device/mil/half.h"
#include "device/mil/text.h"
#include "device/program_lab.h"
#include "device/sim/limits.h"
#include "kiln_test.h"

/* ---- the builder ----------------------------------------------------------------------------- */

TEST(numbers_in_mil_text_are_read_back_to_the_bit) {
    const double numbers[] = {1.0 / 3,        1e-5,     65504, 0x1p-24, -0.5,
                              1 / sqrt(48.0), -65504.0, 0,     1,       16.0 / 768 + 1e-9};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct kiln_mil_text text = {.data = NULL};
        struct kiln_mil_graph graph;
        struct kiln_err err;
        kiln_mil_text_open(&text, "1.3", "ios18", 0);
        struct kiln_mil_ref x = kiln_mil_put_input(&text, "x", (size_t[4]){1, 1, 1, 16});
        struct kiln_mil_ref c = kiln_mil_put_number(&text, "c", numbers[i]);
        CHECK_OK(kiln_mil_text_close(&text, kiln_mil_put_pair(&text, "y", "mul", x, c), &err),
                 &err);
        CHECK_OK(kiln_mil_parse("test", text.data, text.size, NULL, NULL, &graph, &err), &err);
        const float want = kiln_f16_to_f32(kiln_f64_to_f16(numbers[i]));
        size_t found = 0;
        for (size_t v = 0; v < graph.n_values; v++) {
            if (strcmp(graph.values[v].name, "c") == 0) {
                CHECK_BYTES(graph.values[v].data, &want, sizeof want);
                found++;
            }
        }
        CHECK_EQ(found, 1);
        kiln_mil_close(&graph);
        kiln_free(text.data);
    }
}

TEST(mil_text_grows_beyond_its_first_room) {
    struct kiln_mil_text text = {.data = NULL};
    struct kiln_mil_graph graph;
    struct kiln_err err;
    kiln_mil_text_open(&text, "1.3", "ios18", 0);
    struct kiln_mil_ref x = kiln_mil_put_input(&text, "x", (size_t[4]){1, 1, 1, 16});
    for (size_t i = 0; i < 1000; i++) {
        char name[32];
        snprintf(name, sizeof name, "step_%zu", i);
        x = kiln_mil_put_pair(&text, name, "add", x, x);
    }
    CHECK_OK(kiln_mil_text_close(&text, x, &err), &err);
    CHECK_EQ(strlen(text.data), text.size);
    CHECK(text.size > 65536);
    CHECK_OK(kiln_mil_parse("test", text.data, text.size, NULL, NULL, &graph, &err), &err);
    CHECK_EQ(graph.n_nodes, 1000);
    kiln_mil_close(&graph);
    kiln_free(text.data);
}

/* ---- texts of programs ----------------------------------------------------------------------- */

static void make(struct kiln_npu_made *made, const struct oracle *o, int kind, uint64_t serial) {
    struct kiln_err err;
    const struct kiln_weights flat = kiln_weights_flat(o->table, o->weights);
    CHECK_OK(kiln_npu_make((enum kiln_npu_kind)kind, o->table, &o->mode, o->layer, 0, &flat, serial,
                           NULL, made, &err),
             &err);
}

TEST(the_serial_makes_a_text_its_own_and_nothing_else_does) {
    struct oracle o;
    oracle_open(&o, 24, 4, 2, 20, 12);
    for (int kind = 0; kind < KILN_NPU_KINDS; kind++) {
        struct kiln_npu_made made[4];
        const uint64_t serials[4] = {0, 1, UINT64_MAX, 1};
        for (size_t i = 0; i < 4; i++) {
            make(&made[i], &o, kind, serials[i]);
        }
        CHECK(strcmp(made[0].source.text, made[1].source.text) != 0);
        CHECK(strcmp(made[0].source.text, made[2].source.text) != 0);
        CHECK(strcmp(made[1].source.text, made[2].source.text) != 0);
        CHECK_STRING(made[3].source.text, made[1].source.text);
        for (size_t i = 0; i < 4; i++) {
            kiln_npu_made_free(&made[i]);
        }
    }
    oracle_close(&o);
}

TEST(programs_are_written_for_the_version_asked_for) {
    struct oracle o;
    struct kiln_npu_made made;
    struct kiln_err err;
    const struct kiln_npu_target target = {.version = "1.0", .opset = "ios16"};
    oracle_open(&o, 24, 4, 2, 20, 12);
    const struct kiln_weights flat = kiln_weights_flat(o.table, o.weights);
    CHECK_OK(
        kiln_npu_make(KILN_NPU_FFN_FWD, o.table, &o.mode, 1, 0, &flat, 0, &target, &made, &err),
        &err);
    CHECK_CONTAINS(made.source.text, "program(1.0)\n");
    CHECK_CONTAINS(made.source.text, "func main<ios16>(");
    CHECK_STRING(made.source.label, "layer 1, ffn_fwd");
    kiln_npu_made_free(&made);
    oracle_close(&o);
}

TEST(kinds_have_names_that_are_found_again) {
    for (int kind = 0; kind < KILN_NPU_KINDS; kind++) {
        CHECK_EQ(kiln_npu_kind_find(kiln_npu_kind_name((enum kiln_npu_kind)kind)), kind);
    }
    CHECK_STRING(kiln_npu_kind_name(KILN_NPU_FFN_BWD_W13), "ffn_bwd_w13");
    CHECK_EQ(kiln_npu_kind_find("attn"), -1);
}

/* ---- limits of the hardware ------------------------------------------------------------------ */

/* A program of every kind, one layer, weights all zero: pages that nobody writes take no memory. */
static void check_limits(const char *name, struct kiln_dims dims, struct kiln_npu_mode mode,
                         const struct kiln_sim_limits *limits) {
    struct kiln_table *table;
    struct kiln_err err;
    mode.seq = dims.seq;
    dims.layers = 1;
    CHECK_OK(kiln_table_create_lora(&dims, &mode.lora, &table, &err), &err);
    float *weights = calloc(table->size, sizeof *weights);
    CHECK(weights != NULL);
    for (int kind = 0; kind < KILN_NPU_KINDS; kind++) {
        struct kiln_npu_made made;
        struct kiln_mil_graph graph;
        enum kiln_sim_limit limit;
        const struct kiln_weights flat = kiln_weights_flat(table, weights);
        CHECK_OK(kiln_npu_make((enum kiln_npu_kind)kind, table, &mode, 0, 0, &flat, 1, NULL, &made,
                               &err),
                 &err);
        run_read(&made, &graph);
        enum kiln_status status = kiln_sim_check(&graph, made.label, limits, &limit, &err);
        if (status != KILN_OK) {
            FAIL("%s: %s", name, err.message);
        }
        kiln_mil_close(&graph);
        kiln_npu_made_free(&made);
    }
    free(weights);
    kiln_table_destroy(table);
}

TEST(programs_of_every_preset_keep_to_the_limits) {
    struct kiln_sim_limits limits;
    kiln_sim_limits_default(&limits);
    for (const struct kiln_preset *preset = kiln_presets(); preset->name; preset++) {
        check_limits(preset->name, preset->dims, (struct kiln_npu_mode){.seq = 0}, &limits);
    }
}

/* Shapes of Qwen2.5 0.5B and Qwen3 0.6B, and a head norm with biases. */
TEST(programs_of_qwen_keep_to_the_limits) {
    struct kiln_dims qwen2 = {.dim = 896, .hidden = 4864, .layers = 1, .heads = 14, .kv_heads = 2};
    struct kiln_dims qwen3 = {.dim = 1024, .hidden = 3072, .layers = 1, .heads = 16, .kv_heads = 8};
    struct kiln_sim_limits limits;
    kiln_sim_limits_default(&limits);
    limits.value[KILN_SIM_SINGLE_INPUT] = 1;
    limits.value[KILN_SIM_ONE_BLOB] = 1;
    limits.value[KILN_SIM_CONCAT_INPUTS] = 6;
    qwen2.vocab = qwen3.vocab = 512;
    qwen2.seq = qwen3.seq = 40;
    qwen2.tied = qwen3.tied = true;
    qwen2.rms_eps = qwen3.rms_eps = 1e-6f;
    qwen2.rope_theta = qwen3.rope_theta = 1e6f;
    qwen2.qkv_bias = qwen3.qk_norm = true;
    qwen3.head_size = 128;
    check_limits("qwen2", qwen2, (struct kiln_npu_mode){.seq = 0}, &limits);
    check_limits("qwen3", qwen3, (struct kiln_npu_mode){.seq = 0}, &limits);
    qwen3.qkv_bias = true;
    const struct kiln_npu_mode all = {.doc_mask = true, .lora = {64, 64, KILN_LORA_ALL}};
    check_limits("both", qwen3, all, &limits);
}

/* The strictest that any source reports, as far as it can be kept: one input, one blob a file. */
TEST(programs_take_one_input_and_one_blob_a_file) {
    struct kiln_sim_limits limits;
    kiln_sim_limits_default(&limits);
    limits.value[KILN_SIM_SINGLE_INPUT] = 1;
    limits.value[KILN_SIM_ONE_BLOB] = 1;
    check_limits("stories15m", kiln_preset_find("stories15m")->dims,
                 (struct kiln_npu_mode){.seq = 0}, &limits);
    const struct kiln_npu_mode all = {.doc_mask = true, .lora = {8, 16, KILN_LORA_ALL}};
    check_limits("stories15m, documents, adapters", kiln_preset_find("stories15m")->dims, all,
                 &limits);
}

/* ---- surfaces -------------------------------------------------------------------------------- */

TEST(columns_of_dynamic_programs_begin_at_multiples_of_sixteen) {
    struct kiln_dims d = {.dim = 30, .hidden = 21, .layers = 1, .heads = 3, .kv_heads = 1};
    struct kiln_err err;
    struct kiln_npu_port in, out;
    d.vocab = 5;
    d.seq = 20;
    d.rms_eps = 1e-5f;
    d.rope_theta = 1e4f;
    CHECK_OK(kiln_dims_check(&d, &err), &err);
    kiln_npu_ports(KILN_NPU_SDPA_FWD, &d, &(struct kiln_npu_mode){.seq = 20}, 0, &in, &out);
    CHECK(in.columns && !out.columns);
    CHECK_EQ(in.channels, 30);
    CHECK_EQ(in.n_parts, 4);
    const size_t sizes[] = {32, 30, 10, 10}, begins[] = {0, 32, 64, 80};
    for (size_t i = 0; i < 4; i++) {
        CHECK_EQ(in.part[i], sizes[i]);
        CHECK_EQ(kiln_npu_part_at(&in, i), begins[i]);
    }
    CHECK_EQ(in.width, 96);
    CHECK_EQ(in.bytes, 30 * 96 * 2);
    CHECK_EQ(out.channels, 30 + 30 + 10 + 10);
    CHECK_EQ(out.width, 32);
    CHECK_EQ(kiln_npu_part_at(&out, 3), 70);
    kiln_npu_ports(KILN_NPU_ATTN_BWD1, &d, &(struct kiln_npu_mode){.seq = 20}, 0, &in, &out);
    CHECK_EQ(in.channels, 30 + 10 + 10 + 30);
    CHECK_EQ(out.channels, 10 + 2 * 3 * 32);
    CHECK_EQ(kiln_npu_part_at(&out, 2), 10 + 3 * 32);
    d.qkv_bias = d.qk_norm = true;
    kiln_npu_ports(KILN_NPU_SDPA_FWD, &d, &(struct kiln_npu_mode){.seq = 20}, 0, &in, &out);
    CHECK_EQ(in.rows, 30);
    CHECK_EQ(in.channels, 32);
    CHECK_EQ(in.bytes, 32 * 96 * 2);
    CHECK_EQ(kiln_npu_vector_row(&d, KILN_BV), 0);
    CHECK_EQ(kiln_npu_vector_row(&d, KILN_K_NORM), 1);
    CHECK_EQ(out.channels, 30 + 30 + 10 + 10 + 30 + 10);
}

TEST(parts_of_the_classifier_cover_the_vocabulary_once) {
    const size_t sizes[] = {1, 16384, 16385, 32000, 151936, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct kiln_dims d = {.vocab = sizes[i]};
        size_t covered = 0, first, parts = kiln_npu_classifier_parts(&d);
        for (size_t part = 0; part < parts; part++) {
            size_t rows = kiln_npu_classifier_rows(&d, part, &first);
            CHECK_EQ(first, covered);
            CHECK(rows >= 1 && rows <= KILN_NPU_CLASSES);
            covered += rows;
        }
        CHECK_EQ(covered, sizes[i]);
    }
    struct kiln_dims large = {.vocab = 65537};
    CHECK(!kiln_npu_has_softmax(&large));
    large.vocab--;
    CHECK(kiln_npu_has_softmax(&large));
}

/* ---- weight files ---------------------------------------------------------------------------- */

static void check_bytes(const struct kiln_dims *dims, bool doc_mask) {
    struct oracle o;
    oracle_open_dims(&o, dims);
    o.mode.doc_mask = doc_mask;
    for (int kind = 0; kind < KILN_NPU_KINDS; kind++) {
        struct kiln_npu_made made;
        size_t bytes = 0;
        make(&made, &o, kind, 0);
        for (size_t i = 0; i < made.source.n_weights; i++) {
            bytes += made.weights[i].bytes;
        }
        CHECK_EQ(kiln_npu_weight_bytes((enum kiln_npu_kind)kind, &o.d, &o.mode, 0), bytes);
        kiln_npu_made_free(&made);
    }
    oracle_close(&o);
}

TEST(bytes_of_weight_files_are_known_without_making_them) {
    struct oracle o;
    struct kiln_dims d = {.dim = 36, .hidden = 75, .heads = 6, .kv_heads = 3, .seq = 20};
    check_bytes(&d, false);
    check_bytes(&d, true);
    d.head_size = 10;
    d.qkv_bias = d.qk_norm = true;
    check_bytes(&d, false);
    oracle_open(&o, 36, 6, 3, 75, 20);
    CHECK(kiln_npu_weight_bytes(KILN_NPU_CLASSIFIER, &o.d, &o.mode, 0) == 128 + 2 * 37 * 36);
    CHECK_EQ(kiln_npu_weight_bytes(KILN_NPU_WO_BWD, &o.d, &o.mode, 0), 0);
    oracle_close(&o);
}

/* The file of that name of a program. */
static const uint16_t *payload(const struct kiln_npu_made *made, const char *name,
                               size_t elements) {
    struct kiln_blob blob;
    struct kiln_err err;
    for (size_t i = 0; i < made->source.n_weights; i++) {
        const struct kiln_npu_weight *w = &made->weights[i];
        if (strcmp(w->name, name) == 0) {
            CHECK_OK(kiln_blob_read(name, w->data, w->bytes, KILN_BLOB_FIRST, &blob, &err), &err);
            CHECK_EQ(blob.type, KILN_BLOB_FP16);
            CHECK_EQ(blob.bytes, elements * sizeof(uint16_t));
            return blob.payload;
        }
    }
    FAIL("no file %s", name);
}

/* Sizes beyond one tile of the transposition and no multiples of it. */
TEST(weight_files_hold_every_weight_in_its_place) {
    struct oracle o;
    struct kiln_npu_made forward, backward;
    oracle_open(&o, 150, 3, 1, 201, 9);
    make(&forward, &o, KILN_NPU_FFN_FWD, 0);
    make(&backward, &o, KILN_NPU_FFN_BWD, 0);
    const float *w1 = oracle_weight(&o, KILN_W1);
    const uint16_t *plain = payload(&forward, "w1.bin", 150 * 201);
    const uint16_t *turned = payload(&backward, "w1_t.bin", 150 * 201);
    for (size_t r = 0; r < 201; r++) {
        for (size_t c = 0; c < 150; c++) {
            const uint16_t want = kiln_f32_to_f16(w1[r * 150 + c]);
            CHECK_EQ(plain[r * 150 + c], want);
            CHECK_EQ(turned[c * 201 + r], want);
        }
    }
    kiln_npu_made_free(&forward);
    kiln_npu_made_free(&backward);
    oracle_close(&o);
}

TEST(a_tied_classifier_bakes_the_embedding) {
    struct oracle o;
    struct kiln_npu_made made;
    oracle_open(&o, 24, 4, 2, 20, 12);
    struct kiln_dims d = o.d;
    struct kiln_err err;
    oracle_close(&o);
    d.tied = true;
    memset(&o, 0, sizeof o);
    CHECK_OK(kiln_table_create(&d, &o.table, &err), &err);
    o.weights = kiln_alloc(o.table->size, sizeof *o.weights);
    o.seq = o.mode.seq = d.seq;
    kiln_weights_init(o.table, 5, o.weights);
    make(&made, &o, KILN_NPU_CLASSIFIER, 0);
    const uint16_t *rows = payload(&made, "classifier.bin", 37 * 24);
    const float *embed = o.weights + kiln_table_find(o.table, KILN_EMBED, KILN_NO_LAYER)->offset;
    for (size_t i = 0; i < 37 * 24; i++) {
        CHECK_EQ(rows[i], kiln_f32_to_f16(embed[i]));
    }
    kiln_npu_made_free(&made);
    oracle_close(&o);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void refused(struct oracle *o, enum kiln_npu_kind kind, enum kiln_role role, size_t index,
                    float value, const char *words) {
    struct kiln_npu_made made;
    struct kiln_err err;
    size_t layer = role == KILN_HEAD ? KILN_NO_LAYER : o->layer;
    float *weight = o->weights + kiln_table_find(o->table, role, layer)->offset + index;
    const float saved = *weight;
    *weight = value;
    const struct kiln_weights flat = kiln_weights_flat(o->table, o->weights);
    CHECK_FAILS(kiln_npu_make(kind, o->table, &o->mode, o->layer, 0, &flat, 0, NULL, &made, &err),
                KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, words);
    CHECK(made.weights == NULL && made.source.text == NULL);
    *weight = saved;
}

TEST(a_weight_beyond_fp16_is_named) {
    struct oracle o;
    oracle_open(&o, 150, 3, 1, 201, 9);
    refused(&o, KILN_NPU_ATTN_FWD, KILN_WK, 7, 65520.0f, "weight wk.1[7] is 65520");
    refused(&o, KILN_NPU_ATTN_FWD, KILN_WO, 22499, -INFINITY, "weight wo.1[22499] is -inf");
    refused(&o, KILN_NPU_FFN_BWD, KILN_W3, 30000, 1e6f, "weight w3.1[30000] is 1e+06");
    refused(&o, KILN_NPU_NORM_BWD_FFN, KILN_FFN_NORM, 149, NAN, "[149] is nan");
    refused(&o, KILN_NPU_CLASSIFIER, KILN_HEAD, 5000, -70000.0f, "[5000] is -70000");
    struct kiln_npu_made made; /* 65519 is the last that rounds to 65504 */
    o.weights[kiln_table_find(o.table, KILN_WK, 1)->offset] = 65519.0f;
    make(&made, &o, KILN_NPU_ATTN_FWD, 0);
    CHECK_EQ(payload(&made, "wk.bin", 50 * 150)[0], 0x7BFF);
    kiln_npu_made_free(&made);
    oracle_close(&o);
}
