/* SPDX-License-Identifier: MIT
 *
 * surface.c: the memory that host and device share, and what is moved through it.
 */
#include <string.h>

#include "base/machine.h"
#include "device/ane/ane_int.h"

/* ---- which there are --------------------------------------------------------------------------
 */

static bool is_forward(enum kiln_npu_kind kind) {
    return kind == KILN_NPU_ATTN_FWD || kind == KILN_NPU_FFN_FWD || kind == KILN_NPU_SDPA_FWD ||
           kind == KILN_NPU_WO_FWD || kind == KILN_NPU_FFN_FUSED || kind == KILN_NPU_FINAL_NORM ||
           kind == KILN_NPU_CLASSIFIER || kind == KILN_NPU_SOFTMAX;
}

static bool is_extra(enum kiln_npu_kind kind) {
    return kind >= KILN_NPU_NORM_BWD_ATTN && kind <= KILN_NPU_SOFTMAX;
}

/* How many programs of a kind, or surfaces with weights: a layer each, a part each, one. */
static size_t places_of(const struct kiln_ane *ane, enum kiln_npu_kind kind) {
    const struct kiln_dims *d = &ane->base.table->dims;
    const bool dynamic = kind >= KILN_NPU_SDPA_FWD;
    if ((!ane->training && !is_forward(kind)) || (is_extra(kind) && !ane->extras) ||
        (kind == KILN_NPU_SOFTMAX && !kiln_npu_has_softmax(d)) ||
        (dynamic != ane->dynamic && !is_extra(kind))) {
        return 0;
    }
    switch (kind) {
        case KILN_NPU_FINAL_NORM:
        case KILN_NPU_SOFTMAX:
        case KILN_NPU_SDPA_BWD1:
        case KILN_NPU_SDPA_BWD2:
            return 1;
        case KILN_NPU_CLASSIFIER:
            return kiln_npu_classifier_parts(d);
        default:
            return d->layers;
    }
}

static enum kiln_status open_one(struct kiln_ane *ane, const struct kiln_npu_port *port,
                                 struct kiln_npu_surface **out, struct kiln_err *err) {
    const size_t bytes = port->bytes > KILN_NPU_SURFACE ? port->bytes : KILN_NPU_SURFACE;
    if (ane->n_surfaces == ane->surface_room) {
        const size_t room = ane->surface_room * 2 + 64;
        void *grown = kiln_realloc(ane->surfaces, ane->surface_room, room, sizeof(void *));
        KILN_REQUIRE(grown, err, KILN_ENOMEM, "no memory for the list of surfaces");
        ane->surfaces = grown;
        ane->surface_room = room;
    }
    KILN_TRY(ane->runtime->ops->surface_open(ane->runtime, bytes, out, err));
    ane->surfaces[ane->n_surfaces++] = *out;
    return KILN_OK;
}

/* One surface for all places, or one a place. */
static enum kiln_status open_places(struct kiln_ane *ane, const struct kiln_npu_port *port,
                                    size_t places, bool each, struct kiln_npu_surface ***out,
                                    struct kiln_err *err) {
    if (*out == NULL) {
        *out = kiln_alloc(places, sizeof(void *));
        KILN_REQUIRE(*out, err, KILN_ENOMEM, "no memory for the list of surfaces");
    }
    for (size_t i = 0; i < places; i++) {
        if ((*out)[i] == NULL && (i == 0 || each)) {
            KILN_TRY(open_one(ane, port, &(*out)[i], err));
        }
        (*out)[i] = (*out)[i] ? (*out)[i] : (*out)[0];
    }
    return KILN_OK;
}

static enum kiln_status open_kind(struct kiln_ane *ane, enum kiln_npu_kind kind,
                                  struct kiln_err *err) {
    const struct kiln_dims *d = &ane->base.table->dims;
    const size_t places = ane->places[kind] = places_of(ane, kind);
    if (places == 0) {
        return KILN_OK;
    }
    kiln_npu_ports(kind, d, &ane->mode, 0, &ane->in[kind], &ane->out[kind]);
    KILN_TRY(kiln_ane_open_programs(ane, kind, err));
    const bool classifier = kind == KILN_NPU_CLASSIFIER;
    KILN_TRY(open_places(ane, &ane->out[kind], places, classifier, &ane->from[kind], err));
    /* What one program gives and the next takes as it is lies on one surface. */
    struct kiln_npu_surface *const *shared = NULL;
    if (classifier) {
        shared = ane->from[KILN_NPU_FINAL_NORM];
    } else if (kind == KILN_NPU_SOFTMAX && ane->n_parts == 1) {
        shared = ane->from[KILN_NPU_CLASSIFIER];
    }
    if (shared) {
        ane->to[kind] = kiln_alloc(places, sizeof(void *));
        KILN_REQUIRE(ane->to[kind], err, KILN_ENOMEM, "no memory for the list of surfaces");
        ane->to[kind][0] = shared[0];
    }
    return open_places(ane, &ane->in[kind], places, ane->in[kind].columns, &ane->to[kind], err);
}

enum kiln_status kiln_ane_open_surfaces(struct kiln_ane *ane, struct kiln_err *err) {
    ane->n_parts = ane->extras ? kiln_npu_classifier_parts(&ane->base.table->dims) : 0;
    for (int kind = 0; kind < KILN_NPU_KINDS; kind++) {
        KILN_TRY(open_kind(ane, (enum kiln_npu_kind)kind, err));
    }
    return KILN_OK;
}

void kiln_ane_close_surfaces(struct kiln_ane *ane) {
    for (size_t i = 0; i < ane->n_surfaces; i++) {
        ane->runtime->ops->surface_close(ane->runtime, ane->surfaces[i]);
    }
    for (int kind = 0; kind < KILN_NPU_KINDS; kind++) {
        kiln_free(ane->to[kind]);
        kiln_free(ane->from[kind]);
    }
    kiln_free(ane->surfaces);
}

void kiln_ane_span(const struct kiln_ane *ane, enum kiln_span_kind what, enum kiln_npu_kind kind,
                   size_t place, double start) {
    const bool layer = kind != KILN_NPU_FINAL_NORM && kind != KILN_NPU_CLASSIFIER &&
                       kind != KILN_NPU_SOFTMAX && kind != KILN_NPU_SDPA_BWD1 &&
                       kind != KILN_NPU_SDPA_BWD2;
    kiln_device_span(&ane->base, what, kiln_npu_kind_name(kind), layer ? place : KILN_NO_LAYER,
                     start);
}

/* ---- moving bytes -----------------------------------------------------------------------------
 */

enum kiln_status kiln_ane_lock(struct kiln_ane *ane, struct kiln_npu_surface *surface,
                               bool read_only, size_t elements, uint16_t **at,
                               struct kiln_err *err) {
    struct kiln_device_counts *counts = &ane->base.counts;
    *at = ane->runtime->ops->lock(ane->runtime, surface, read_only, err);
    if (!*at) {
        return err->code;
    }
    *(read_only ? &counts->surface_read : &counts->surface_written) += elements * sizeof **at;
    return KILN_OK;
}

enum kiln_status kiln_ane_unlock(struct kiln_ane *ane, struct kiln_npu_surface *surface,
                                 bool read_only, struct kiln_err *err) {
    return ane->runtime->ops->unlock(ane->runtime, surface, read_only, err);
}

/* Rows of W onto a surface whose rows are `stride` apart. */
static void put_rows(const struct kiln_ane *ane, uint16_t *at, size_t stride,
                     const struct kiln_ane_rows *piece) {
    const size_t w = ane->width;
    if (piece->wide) {
        kiln_host_to_half_rows(&ane->host, at, stride, piece->wide, piece->rows,
                               piece->scale > 0.0f ? piece->scale : 1.0f);
    } else if (stride == w) {
        memcpy(at, piece->half, piece->rows * w * sizeof *at);
    } else {
        for (size_t r = 0; r < piece->rows; r++) {
            memcpy(at + r * stride, piece->half + r * w, w * sizeof *at);
        }
    }
}

void kiln_ane_sequence(struct kiln_ane *ane, size_t b) {
    const size_t seq = ane->mode.seq;
    ane->sequence = b;
    if (ane->mode.doc_mask) {
        kiln_npu_fill_starts(ane->base.starts ? ane->base.starts + b * seq : NULL, seq,
                             ane->starts);
    }
}

enum kiln_status kiln_ane_write(struct kiln_ane *ane, enum kiln_npu_kind kind, size_t place,
                                const struct kiln_ane_rows *pieces, size_t n,
                                struct kiln_err *err) {
    const struct kiln_npu_port *port = &ane->in[kind];
    struct kiln_npu_surface *surface = ane->to[kind][place];
    const double start = kiln_now_s();
    size_t elements = 0, row = 0;
    uint16_t *at;
    for (size_t i = 0; i < n; i++) {
        elements += pieces[i].rows * ane->width;
    }
    const struct kiln_ane_rows starts = {.half = ane->starts, .rows = KILN_NPU_STARTS};
    elements += port->starts > 0 ? starts.rows * ane->width : 0;
    const bool adapters = port->n_adapters > 0 && ane->sequence == 0;
    elements += adapters ? kiln_npu_adapter_elements(port) : 0;
    KILN_TRY(kiln_ane_lock(ane, surface, false, elements, &at, err));
    for (size_t i = 0; i < n; i++) {
        put_rows(ane, port->columns ? at + kiln_npu_part_at(port, i) : at + row * port->width,
                 port->width, &pieces[i]);
        row += pieces[i].rows;
    }
    if (port->starts > 0) {
        put_rows(ane, at + port->starts, port->width, &starts);
    }
    enum kiln_status status = KILN_OK;
    if (adapters) {
        status = kiln_ane_put_adapters(ane, kind, place, at, err);
    }
    struct kiln_err later;
    const enum kiln_status unlocked =
        kiln_ane_unlock(ane, surface, false, status == KILN_OK ? err : &later);
    KILN_TRY(status);
    KILN_TRY(unlocked);
    kiln_ane_span(ane, KILN_SPAN_SURFACE, kind, place, start);
    return KILN_OK;
}

enum kiln_status kiln_ane_read(struct kiln_ane *ane, enum kiln_npu_kind kind, size_t first,
                               size_t rows, uint16_t *out, struct kiln_err *err) {
    struct kiln_npu_surface *surface = ane->from[kind][0];
    const double start = kiln_now_s();
    uint16_t *at;
    KILN_TRY(kiln_ane_lock(ane, surface, true, rows * ane->width, &at, err));
    memcpy(out, at + first * ane->width, rows * ane->width * sizeof *out);
    KILN_TRY(kiln_ane_unlock(ane, surface, true, err));
    kiln_device_span(&ane->base, KILN_SPAN_SURFACE, kiln_npu_kind_name(kind), KILN_NO_LAYER, start);
    return KILN_OK;
}
