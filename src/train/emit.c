/* SPDX-License-Identifier: MIT
 *
 * emit.c: a kernel's MIL text and weight files, written to a folder.
 */
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "device/ane/programs.h"
#include "kiln/mil.h"
#include "kiln/train.h"

const char *kiln_mil_kernel(size_t i) {
    return i < KILN_NPU_KINDS ? kiln_npu_kind_name((enum kiln_npu_kind)i) : NULL;
}

static enum kiln_status find_kind(const char *name, enum kiln_npu_kind *out, struct kiln_err *err) {
    int kind = kiln_npu_kind_find(name);
    char list[512];
    size_t n = 0;
    for (size_t i = 0; kiln_mil_kernel(i) && n < sizeof list; i++) {
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", kiln_mil_kernel(i));
    }
    KILN_REQUIRE(kind >= 0, err, KILN_EUSAGE, "kernel %s: there is none of that name; use %s", name,
                 list);
    *out = (enum kiln_npu_kind)kind;
    return KILN_OK;
}

/* What the flags alone show, and what the model shows. */
static enum kiln_status check_request(const struct kiln_mil_emit *request, enum kiln_npu_kind kind,
                                      const struct kiln_dims *dims, struct kiln_err *err) {
    KILN_REQUIRE(request->layer < dims->layers, err, KILN_EUSAGE,
                 "layer %zu: the model has layers 0 to %zu", request->layer, dims->layers - 1);
    size_t parts = kind == KILN_NPU_CLASSIFIER ? kiln_npu_classifier_parts(dims) : 1;
    KILN_REQUIRE(request->part < parts, err, KILN_EUSAGE, "part %zu: %s has parts 0 to %zu",
                 request->part, request->kernel, parts - 1);
    KILN_REQUIRE(kind != KILN_NPU_SOFTMAX || kiln_npu_has_softmax(dims), err, KILN_EUNSUPPORTED,
                 "softmax over a vocabulary of %zu: an axis has at most %d elements", dims->vocab,
                 KILN_NPU_AXIS);
    return KILN_OK;
}

/* DIR/weights is there afterwards. Files of an earlier kernel that this one has not stay. */
static enum kiln_status write_files(const struct kiln_npu_made *made, const char *folder,
                                    struct kiln_err *err) {
    char path[4600];
    KILN_REQUIRE(strlen(folder) < sizeof path - 64, err, KILN_EUSAGE, "-o: the path is too long");
    snprintf(path, sizeof path, "%s/weights", folder);
    KILN_TRY(kiln_make_dirs(path, err));
    for (size_t i = 0; i < made->source.n_weights; i++) {
        const struct kiln_npu_weight *w = &made->weights[i];
        snprintf(path, sizeof path, "%s/weights/%s", folder, w->name);
        KILN_TRY(kiln_write_file(path, w->data, w->bytes, err));
    }
    snprintf(path, sizeof path, "%s/model.mil", folder);
    return kiln_write_file(path, made->source.text, made->source.bytes, err);
}

static enum kiln_status emit(const struct kiln_mil_emit *request, enum kiln_npu_kind kind,
                             const struct kiln_model *model, struct kiln_mil_emitted *out,
                             struct kiln_err *err) {
    const struct kiln_dims *dims = &model->table->dims;
    const struct kiln_npu_target target = {.version = request->program, .opset = request->opset};
    struct kiln_npu_made made;
    struct kiln_npu_port in, to;
    const struct kiln_weights weights = kiln_weights_flat(model->table, model->weights);
    KILN_TRY(check_request(request, kind, dims, err));
    const struct kiln_npu_mode mode = {.seq = request->seq ? request->seq : dims->seq,
                                       .doc_mask = request->doc_mask,
                                       .lora = request->lora};
    KILN_TRY(kiln_npu_make(kind, model->table, &mode, request->layer, request->part, &weights, 0,
                           &target, &made, err));
    kiln_npu_ports(kind, dims, &mode, request->part, &in, &to);
    snprintf(out->model, sizeof out->model, "%s", model->name);
    snprintf(out->label, sizeof out->label, "%s", made.label);
    out->input[0] = in.channels;
    out->input[1] = in.width;
    out->output[0] = to.channels;
    out->output[1] = to.width;
    out->text_bytes = made.source.bytes;
    out->n_files = made.source.n_weights;
    for (size_t i = 0; i < made.source.n_weights; i++) {
        out->file_bytes += made.weights[i].bytes;
    }
    enum kiln_status status = write_files(&made, request->folder, err);
    kiln_npu_made_free(&made);
    return status;
}

enum kiln_status kiln_mil_emit(const struct kiln_mil_emit *request, struct kiln_mil_emitted *out,
                               struct kiln_err *err) {
    enum kiln_npu_kind kind = KILN_NPU_KINDS;
    struct kiln_model model;
    memset(out, 0, sizeof *out);
    KILN_TRY(find_kind(request->kernel, &kind, err));
    KILN_TRY(kiln_model_open(request->model, request->seed, &model, err));
    enum kiln_status status = emit(request, kind, &model, out, err);
    kiln_model_close(&model);
    return status;
}
