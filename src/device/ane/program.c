/* SPDX-License-Identifier: MIT */
#include "device/ane/programs.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "device/ane/program_maker.h"
#include "device/mil/half.h"
#include "kernel/kernel.h"

/* The table of programs.h. Letters of a part: D, F as everywhere, Q = H*K, K = G*K, S = H*W,
 * W tokens, R rows of the classifier's part, V vocabulary. `channels`: parts are columns, behind
 * so many channels. */
static const struct kind {
    const char *name;
    char channels;
    const char *in, *out;
    kiln_npu_body_fn *body;
} kinds[KILN_NPU_KINDS] = {
    [KILN_NPU_ATTN_FWD] = {"attn_fwd", 0, "D", "DQKKQD", kiln_npu_attn_fwd},
    [KILN_NPU_FFN_FWD] = {"ffn_fwd", 0, "D", "DFFFD", kiln_npu_ffn_fwd},
    [KILN_NPU_FFN_BWD] = {"ffn_bwd", 0, "DFF", "DFF", kiln_npu_ffn_bwd},
    [KILN_NPU_ATTN_BWD1] = {"attn_bwd1", 0, "QKKD", "KSS", kiln_npu_attn_bwd1},
    [KILN_NPU_QKV_BWD] = {"qkv_bwd", 0, "QKK", "D", kiln_npu_qkv_bwd},
    [KILN_NPU_ATTN_BWD2] = {"attn_bwd2", 0, "SSQK", "QK", kiln_npu_attn_bwd2},
    [KILN_NPU_NORM_BWD_ATTN] = {"norm_bwd_attn", 0, "DD", "D", kiln_npu_norm_bwd},
    [KILN_NPU_NORM_BWD_FFN] = {"norm_bwd_ffn", 0, "DD", "D", kiln_npu_norm_bwd},
    [KILN_NPU_FINAL_NORM] = {"final_norm", 0, "D", "D", kiln_npu_final_norm},
    [KILN_NPU_CLASSIFIER] = {"classifier", 0, "D", "R", kiln_npu_classifier},
    [KILN_NPU_SOFTMAX] = {"softmax", 0, "V", "V", kiln_npu_softmax},
    [KILN_NPU_SDPA_FWD] = {"sdpa_fwd", 'D', "WQKK", "QQKK", kiln_npu_sdpa_fwd},
    [KILN_NPU_WO_FWD] = {"wo_fwd", 'Q', "WD", "D", kiln_npu_dynamic_linear},
    [KILN_NPU_FFN_FUSED] = {"ffn_fused", 'D', "WFFF", "DFFF", kiln_npu_ffn_fused},
    [KILN_NPU_FFN_BWD_W2] = {"ffn_bwd_w2", 'D', "WF", "F", kiln_npu_dynamic_linear},
    [KILN_NPU_FFN_BWD_W13] = {"ffn_bwd_w13", 'F', "WWDD", "D", kiln_npu_dynamic_linear},
    [KILN_NPU_WO_BWD] = {"wo_bwd", 'D', "WQ", "Q", kiln_npu_dynamic_linear},
    [KILN_NPU_SDPA_BWD1] = {"sdpa_bwd1", 0, "QKKQ", "KSS", kiln_npu_sdpa_bwd1},
    [KILN_NPU_SDPA_BWD2] = {"sdpa_bwd2", 0, "SSQK", "QK", kiln_npu_attn_bwd2},
    [KILN_NPU_Q_BWD] = {"q_bwd", 'Q', "WD", "D", kiln_npu_dynamic_linear},
    [KILN_NPU_KV_BWD] = {"kv_bwd", 'K', "WWDD", "D", kiln_npu_dynamic_linear},
};

const char *kiln_npu_kind_name(enum kiln_npu_kind kind) { return kinds[kind].name; }

int kiln_npu_kind_find(const char *name) {
    for (int kind = 0; kind < KILN_NPU_KINDS; kind++) {
        if (strcmp(kinds[kind].name, name) == 0) {
            return kind;
        }
    }
    return -1;
}

/* ---- surfaces ------------------------------------------------------------------------------- */

static size_t size_of(char letter, const struct kiln_dims *dims, const struct kiln_npu_mode *mode,
                      size_t part) {
    size_t first;
    switch (letter) {
        case 'D':
            return dims->dim;
        case 'F':
            return dims->hidden;
        case 'Q':
            return dims->heads * dims->head_size;
        case 'K':
            return dims->kv_heads * dims->head_size;
        case 'S':
            return dims->heads * kiln_npu_width(mode->seq);
        case 'W':
            return kiln_npu_width(mode->seq);
        case 'V':
            return dims->vocab;
        default:
            return kiln_npu_classifier_rows(dims, part, &first);
    }
}

size_t kiln_npu_part_at(const struct kiln_npu_port *port, size_t i) {
    size_t at = 0;
    for (size_t p = 0; p < i; p++) {
        at += port->columns ? kiln_npu_width(port->part[p]) : port->part[p];
    }
    return at;
}

static void lay_out(struct kiln_npu_port *port, char channels, const struct kiln_dims *dims,
                    const struct kiln_npu_mode *mode, size_t part) {
    port->columns = channels != 0;
    for (port->n_parts = 0; port->letters[port->n_parts]; port->n_parts++) {
        port->part[port->n_parts] = size_of(port->letters[port->n_parts], dims, mode, part);
    }
    size_t all = kiln_npu_part_at(port, port->n_parts);
    port->rows = channels ? size_of(channels, dims, mode, part) : all;
    port->channels = port->rows;
    port->width = channels ? all : kiln_npu_width(mode->seq);
    port->bytes = port->channels * port->width * sizeof(uint16_t);
}

/* Does the program work out which query looks at which key? */
static bool attends(enum kiln_npu_kind kind) {
    return kind == KILN_NPU_ATTN_FWD || kind == KILN_NPU_ATTN_BWD1 || kind == KILN_NPU_SDPA_FWD ||
           kind == KILN_NPU_SDPA_BWD1;
}

void kiln_npu_ports(enum kiln_npu_kind kind, const struct kiln_dims *dims,
                    const struct kiln_npu_mode *mode, size_t part, struct kiln_npu_port *in,
                    struct kiln_npu_port *out) {
    const bool attention = kind == KILN_NPU_ATTN_FWD || kind == KILN_NPU_SDPA_FWD;
    memset(in, 0, sizeof *in);
    memset(out, 0, sizeof *out);
    snprintf(in->letters, sizeof in->letters, "%s", kinds[kind].in);
    snprintf(out->letters, sizeof out->letters, "%s%s", kinds[kind].out,
             attention && dims->qk_norm ? "QK" : "");
    lay_out(in, kinds[kind].channels, dims, mode, part);
    lay_out(out, 0, dims, mode, part);
    if (kind == KILN_NPU_SDPA_FWD) {
        in->channels += (size_t)dims->qkv_bias + dims->qk_norm;
    }
    const size_t starts = in->channels;
    if (mode->doc_mask && attends(kind)) {
        in->channels += KILN_NPU_STARTS;
    }
    kiln_npu_add_adapters(kind, dims, &mode->lora, in);
    if (mode->doc_mask && attends(kind)) {
        in->starts = starts * in->width;
    }
    in->bytes = in->channels * in->width * sizeof(uint16_t);
}

void kiln_npu_fill_starts(const uint32_t *starts, size_t seq, uint16_t *out) {
    const size_t width = kiln_npu_width(seq);
    memset(out, 0, KILN_NPU_STARTS * width * sizeof *out);
    for (size_t t = 0; starts && t < seq; t++) {
        const uint32_t rest = starts[t] % KILN_NPU_PLACES;
        out[t] = kiln_f64_to_f16((double)(starts[t] - rest));
        out[width + t] = kiln_f64_to_f16((double)rest);
    }
}

size_t kiln_npu_vector_row(const struct kiln_dims *dims, enum kiln_role role) {
    return dims->qkv_bias && (role == KILN_Q_NORM || role == KILN_K_NORM);
}

size_t kiln_npu_classifier_parts(const struct kiln_dims *dims) {
    return (dims->vocab + KILN_NPU_CLASSES - 1) / KILN_NPU_CLASSES;
}

/* Parts differ by a row at most. */
size_t kiln_npu_classifier_rows(const struct kiln_dims *dims, size_t part, size_t *first) {
    size_t parts = kiln_npu_classifier_parts(dims);
    assert(part < parts);
    *first = dims->vocab * part / parts;
    return dims->vocab * (part + 1) / parts - *first;
}

bool kiln_npu_has_softmax(const struct kiln_dims *dims) { return dims->vocab <= KILN_NPU_AXIS; }

/* ---- parts of programs ---------------------------------------------------------------------- */

struct kiln_mil_ref kiln_npu_part(struct kiln_npu_maker *m, const char *name, struct kiln_mil_ref x,
                                  size_t i) {
    const size_t axis = m->in.columns ? 3 : 1, at = kiln_npu_part_at(&m->in, i);
    if (!m->in.columns || m->in.channels == m->in.rows) {
        return kiln_mil_put_slice(&m->text, name, x, axis, at, m->in.part[i]);
    }
    char tall[32];
    snprintf(tall, sizeof tall, "%s_tall", name);
    x = kiln_mil_put_slice(&m->text, tall, x, axis, at, m->in.part[i]);
    return kiln_mil_put_slice(&m->text, name, x, 1, 0, m->in.rows);
}

struct kiln_mil_ref kiln_npu_put_starts(struct kiln_npu_maker *m) {
    const size_t row = m->in.starts / m->in.width;
    struct kiln_mil_ref rows =
        kiln_mil_put_slice(&m->text, "starts_wide", m->input, 1, row, KILN_NPU_STARTS);
    return m->in.width == m->width ? rows
                                   : kiln_mil_put_slice(&m->text, "starts", rows, 3, 0, m->width);
}

/* ---- whole programs ------------------------------------------------------------------------- */

static void put_parts(char *out, size_t size, const struct kiln_npu_port *port) {
    size_t used = (size_t)snprintf(out, size, "[1, %zu, 1, %zu]:", port->channels, port->width);
    for (size_t i = 0; i < port->n_parts && used < size; i++) {
        used += (size_t)snprintf(out + used, size - used, "%s %c %zu", i ? "," : "",
                                 port->letters[i], port->part[i]);
    }
}

static void put_comments(struct kiln_npu_maker *m, const char *label) {
    const struct kiln_dims *d = m->dims;
    char parts[200];
    kiln_mil_put_comment(
        &m->text, "%s: D %zu, H %zu, G %zu, K %zu, F %zu, W %zu; Q is H*K, K is G*K, S is H*W",
        label, d->dim, d->heads, d->kv_heads, d->head_size, d->hidden, m->width);
    put_parts(parts, sizeof parts, &m->in);
    kiln_mil_put_comment(&m->text, "in  %s", parts);
    put_parts(parts, sizeof parts, &m->out);
    kiln_mil_put_comment(&m->text, "out %s", parts);
}

/* Write the text and the files; sizes only where the maker has no table. */
static void make(struct kiln_npu_maker *m, const struct kiln_npu_target *target, uint64_t serial,
                 const char *label) {
    m->text.dry = m->table == NULL;
    kiln_mil_text_open(&m->text, target ? target->version : "1.3", target ? target->opset : "ios18",
                       serial);
    put_comments(m, label);
    struct kiln_mil_ref x =
        kiln_mil_put_input(&m->text, "x", (size_t[4]){1, m->in.channels, 1, m->in.width});
    m->input = x;
    if (m->in.n_adapters > 0 && !m->in.columns) {
        x = kiln_mil_put_slice(&m->text, "x_tokens", x, 3, 0, m->width);
    }
    if (m->in.n_parts == 1 && m->in.channels > m->in.rows) {
        x = kiln_mil_put_slice(&m->text, "x_channels", x, 1, 0, m->in.rows);
    }
    struct kiln_mil_ref y = kinds[m->kind].body(m, x);
    assert(y.dims[0] == 1 && y.dims[1] == m->out.channels);
    assert(y.dims[2] == 1 && y.dims[3] == m->out.width);
    if (m->status == KILN_OK) {
        m->status = kiln_mil_text_close(&m->text, y, m->err);
    }
}

static void begin(struct kiln_npu_maker *m, enum kiln_npu_kind kind, const struct kiln_dims *dims,
                  const struct kiln_npu_mode *mode, size_t part) {
    m->kind = kind;
    m->dims = dims;
    m->mode = mode;
    m->width = kiln_npu_width(mode->seq);
    m->repeat = dims->heads / dims->kv_heads;
    m->part = part;
    kiln_npu_ports(kind, dims, mode, part, &m->in, &m->out);
}

/* Are weights of a layer baked in? */
static bool of_a_layer(enum kiln_npu_kind kind) {
    return kind <= KILN_NPU_QKV_BWD || kind == KILN_NPU_NORM_BWD_ATTN ||
           kind == KILN_NPU_NORM_BWD_FFN;
}

static void put_label(char label[64], enum kiln_npu_kind kind, size_t layer, size_t part) {
    const char *name = kinds[kind].name;
    if (kind == KILN_NPU_CLASSIFIER) {
        snprintf(label, 64, "%s, part %zu", name, part);
    } else if (of_a_layer(kind)) {
        snprintf(label, 64, "layer %zu, %s", layer, name);
    } else {
        snprintf(label, 64, "%s", name);
    }
}

enum kiln_status kiln_npu_make(enum kiln_npu_kind kind, const struct kiln_table *table,
                               const struct kiln_npu_mode *mode, size_t layer, size_t part,
                               const struct kiln_weights *weights, uint64_t serial,
                               const struct kiln_npu_target *target, struct kiln_npu_made *out,
                               struct kiln_err *err) {
    struct kiln_kernels kernels;
    memset(out, 0, sizeof *out);
    KILN_TRY(kiln_kernels_choose(KILN_PRECISION_FP32, &kernels, err));
    KILN_REQUIRE(!weights || weights->flat || weights->precision == KILN_PRECISION_FP16, err,
                 KILN_EINTERNAL, "%s: a snapshot in %s, and programs hold fp16", kinds[kind].name,
                 kiln_precision_name(weights->precision));
    struct kiln_npu_maker m = {
        .table = table, .weights = weights, .half_of = kernels.half_of, .layer = layer, .err = err};
    begin(&m, kind, &table->dims, mode, part);
    m.files = kiln_alloc(KILN_NPU_FILES, sizeof *m.files);
    put_label(out->label, kind, layer, part);
    KILN_REQUIRE(m.files, err, KILN_ENOMEM, "%s: no memory for its files", out->label);
    make(&m, target, serial, out->label);
    out->weights = m.files;
    out->source = (struct kiln_npu_source){.label = out->label,
                                           .text = m.text.data,
                                           .bytes = m.text.size,
                                           .weights = m.files,
                                           .n_weights = m.n_files};
    if (m.status != KILN_OK) {
        kiln_npu_made_free(out);
    }
    return m.status;
}

void kiln_npu_made_free(struct kiln_npu_made *made) {
    for (size_t i = 0; i < made->source.n_weights; i++) {
        kiln_free(made->weights[i].data);
    }
    kiln_free(made->weights);
    kiln_free((void *)(uintptr_t)made->source.text);
    memset(made, 0, sizeof *made);
}

size_t kiln_npu_weight_bytes(enum kiln_npu_kind kind, const struct kiln_dims *dims,
                             const struct kiln_npu_mode *mode, size_t part) {
    struct kiln_npu_maker m = {.err = NULL};
    begin(&m, kind, dims, mode, part);
    make(&m, NULL, 0, "");
    return m.file_bytes;
}
