/* SPDX-License-Identifier: MIT
 *
 * kiln mil emit: what it writes is what is compiled, and the hardware's limits accept it.
 */
#include <stdio.h>

#include "base/io.h"
#include "base/mem.h"
#include "device/ane/programs.h"
#include "kiln/mil.h"
#include "kiln_test.h"

/* A small model in a file, and its weights. */
static const char *model_file(struct kiln_table **table, float **weights) {
    struct kiln_dims dims = {.dim = 48,
                             .hidden = 40,
                             .layers = 3,
                             .heads = 6,
                             .kv_heads = 2,
                             .vocab = 37,
                             .seq = 20,
                             .tied = true,
                             .rms_eps = 1e-5f,
                             .rope_theta = 1e4f};
    struct kiln_err err;
    const char *path = test_path("small.bin");
    CHECK_OK(kiln_dims_check(&dims, &err), &err);
    CHECK_OK(kiln_table_create(&dims, table, &err), &err);
    *weights = kiln_alloc((*table)->size, sizeof **weights);
    CHECK(*weights != NULL);
    kiln_weights_init(*table, 3, *weights);
    CHECK_OK(kiln_checkpoint_save_llama2c(path, *table, *weights, &err), &err);
    return path;
}

static void check_file(const char *folder, const char *name, const void *want, size_t bytes) {
    struct kiln_err err;
    char path[4600], *data;
    size_t size;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK_OK(kiln_read_file(path, &data, &size, &err), &err);
    CHECK_EQ(size, bytes);
    CHECK_BYTES(data, want, bytes);
    kiln_free(data);
}

static void check_kernel(const struct kiln_mil_emit *request, const struct kiln_table *table,
                         const float *weights) {
    struct kiln_mil_emitted emitted;
    struct kiln_mil_report report;
    struct kiln_npu_made made;
    struct kiln_err err;
    char path[4600];
    CHECK_OK(kiln_mil_emit(request, &emitted, &err), &err);
    enum kiln_npu_kind kind = (enum kiln_npu_kind)kiln_npu_kind_find(request->kernel);
    const struct kiln_weights flat = kiln_weights_flat(table, weights);
    CHECK_OK(kiln_npu_make(kind, table, &(struct kiln_npu_mode){.seq = request->seq},
                           request->layer, 0, &flat, 0, NULL, &made, &err),
             &err);
    CHECK_EQ(emitted.n_files, made.source.n_weights);
    CHECK_EQ(emitted.file_bytes,
             kiln_npu_weight_bytes(kind, &table->dims, &(struct kiln_npu_mode){.seq = request->seq},
                                   request->part));
    CHECK_STRING(emitted.label, made.label);
    check_file(request->folder, "model.mil", made.source.text, made.source.bytes);
    for (size_t i = 0; i < made.source.n_weights; i++) {
        snprintf(path, sizeof path, "weights/%s", made.weights[i].name);
        check_file(request->folder, path, made.weights[i].data, made.weights[i].bytes);
    }
    snprintf(path, sizeof path, "%s/model.mil", request->folder);
    CHECK_OK(kiln_mil_check_file(path, NULL, &report, &err), &err);
    CHECK_EQ(report.constants_from_files, made.source.n_weights);
    CHECK_EQ(report.n_ports, 2);
    CHECK_EQ(report.ports[0].bytes, 2 * emitted.input[0] * emitted.input[1]);
    CHECK_EQ(report.ports[1].bytes, 2 * emitted.output[0] * emitted.output[1]);
    kiln_mil_report_free(&report);
    kiln_npu_made_free(&made);
}

TEST(every_kernel_is_written_as_it_is_compiled) {
    struct kiln_table *table;
    float *weights;
    const char *model = model_file(&table, &weights);
    size_t n = 0;
    for (; kiln_mil_kernel(n); n++) {
        const struct kiln_mil_emit request = {.model = model,
                                              .kernel = kiln_mil_kernel(n),
                                              .layer = 2,
                                              .seq = 9,
                                              .program = "1.3",
                                              .opset = "ios18",
                                              .folder = test_path(kiln_mil_kernel(n))};
        check_kernel(&request, table, weights);
    }
    CHECK_EQ(n, KILN_NPU_KINDS);
    kiln_table_destroy(table);
    kiln_free(weights);
}

static void refused(struct kiln_mil_emit request, enum kiln_status code, const char *words) {
    struct kiln_mil_emitted emitted;
    struct kiln_err err;
    CHECK_FAILS(kiln_mil_emit(&request, &emitted, &err), code, &err);
    CHECK_CONTAINS(err.message, words);
    CHECK(!kiln_path_exists(request.folder));
}

TEST(a_kernel_that_cannot_be_written_is_refused_in_words) {
    struct kiln_table *table;
    float *weights;
    struct kiln_mil_emit r = {.model = model_file(&table, &weights),
                              .kernel = "attn_fwd",
                              .program = "1.3",
                              .opset = "ios18",
                              .folder = test_path("nothing")};
    r.layer = 3;
    refused(r, KILN_EUSAGE, "layer 3: the model has layers 0 to 2");
    r.layer = 0;
    r.kernel = "attn";
    refused(r, KILN_EUSAGE, "kernel attn: there is none of that name; use attn_fwd, ffn_fwd");
    refused(r, KILN_EUSAGE, "kv_bwd");
    r.kernel = "classifier";
    r.part = 1;
    refused(r, KILN_EUSAGE, "part 1: classifier has parts 0 to 0");
    r.part = 0;
    r.model = test_path("absent.bin");
    refused(r, KILN_EINPUT, "absent.bin");
    kiln_table_destroy(table);
    kiln_free(weights);
}
