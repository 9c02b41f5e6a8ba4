/* SPDX-License-Identifier: MIT
 *
 * explain_json.c: an explanation for programs: all of it.
 */
#include <string.h>

#include "explain.h"
#include "kiln/text.h"
#include "output.h"

static json_t *text_json(const char *text) { return json_bytes(text, strlen(text)); }

/* A place or an index that may be none. */
static json_t *index_json(size_t index) {
    return index == KILN_EXPLAIN_NO_PLACE ? json_null() : json_integer((json_int_t)index);
}

static json_t *id_json(uint32_t id) {
    return id == KILN_NO_TARGET ? json_null() : json_integer((json_int_t)id);
}

static json_t *around_json(const struct kiln_explain_text *t) {
    json_t *ids = json_array();
    for (uint32_t i = 0; i < t->n; i++) {
        json_array_append_new(ids, json_integer((json_int_t)t->ids[i]));
    }
    return json_pack(
        "{s:I, s:I, s:I, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:o}", "sequence",
        (json_int_t)t->sequence, "token", (json_int_t)t->token, "sample", (json_int_t)t->sample,
        "file", index_json(t->file), "at",
        t->file == KILN_EXPLAIN_NO_PLACE ? json_null() : json_integer((json_int_t)t->at), "first",
        (json_int_t)t->first, "ids", ids, "target", id_json(t->target), "before",
        text_json(t->before), "piece", text_json(t->piece), "after", text_json(t->after));
}

/* Of a weight the row and the column, of others sequence, token and element. */
static json_t *place_json(const struct kiln_explain_place *at) {
    if (at->element == KILN_EXPLAIN_NO_PLACE) {
        return json_null();
    }
    json_t *value = json_number(at->value);
    return at->sequence == KILN_EXPLAIN_NO_PLACE
               ? json_pack("{s:I, s:I, s:o}", "row", (json_int_t)at->token, "column",
                           (json_int_t)at->element, "value", value)
               : json_pack("{s:I, s:I, s:I, s:o}", "sequence", (json_int_t)at->sequence, "token",
                           (json_int_t)at->token, "element", (json_int_t)at->element, "value",
                           value);
}

static json_t *tensor_json(const struct kiln_explain_tensor *t) {
    return json_pack("{s:s, s:s, s:o, s:I, s:I, s:I, s:o, s:o, s:o}", "name", t->name, "what",
                     t->what, "layer",
                     t->layer == KILN_NO_LAYER ? json_null() : json_integer((json_int_t)t->layer),
                     "values", (json_int_t)t->values, "not_finite", (json_int_t)t->not_finite,
                     "beyond", (json_int_t)t->beyond, "limit", json_number(t->limit), "first",
                     place_json(&t->first), "largest", place_json(&t->largest));
}

static json_t *sequence_json(const struct kiln_explain_sequence *s) {
    static const char *const names[] = {"above_chance", "repeated", "targets", "outlier"};
    json_t *reasons = json_array();
    for (int i = 0; i < 4; i++) {
        if (s->reasons & (1U << i)) {
            json_array_append_new(reasons, json_string(names[i]));
        }
    }
    return json_pack("{s:I, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "sample",
                     (json_int_t)s->sample, "loss", json_number(s->loss), "z", json_number(s->z),
                     "ordinary_z", json_number(s->ordinary_z), "targets", (json_int_t)s->targets,
                     "misfits", (json_int_t)s->misfits, "repeated", (json_int_t)s->repeated,
                     "times", (json_int_t)s->times, "worst", json_number(s->worst), "reasons",
                     reasons, "text", around_json(&s->text));
}

static json_t *token_json(const struct kiln_explain_token *t) {
    return json_pack("{s:o, s:o, s:I, s:o, s:o, s:o}", "loss", json_number(t->loss), "target_text",
                     text_json(t->target_piece), "likeliest", (json_int_t)t->said, "likeliest_text",
                     text_json(t->said_piece), "chance", json_number(t->chance), "text",
                     around_json(&t->text));
}

static json_t *gradient_json(const struct kiln_explain_gradient *g) {
    return json_pack("{s:s, s:o, s:o, s:o, s:I, s:o}", "name", g->name, "norm",
                     json_number(g->norm), "max", json_number(g->largest), "recorded",
                     json_number(g->recorded), "recorded_not_finite", (json_int_t)g->recorded_bad,
                     "ordinary", json_number(g->ordinary));
}

static json_t *head_json(const char *run, const struct kiln_explanation *w) {
    json_t *out = json_pack("{s:o, s:I, s:s, s:o, s:s, s:b, s:s, s:s, s:s, s:s, s:s, s:s}", "run",
                            text_json(run), "step", (json_int_t)w->step, "kind",
                            kiln_explain_kind_name(w->kind), "verdict", text_json(w->verdict),
                            "advice", w->advice, "incident", w->incident, "why", w->why, "action",
                            w->action, "weights_from", w->weights_from, "window_from",
                            w->window_from, "note", w->note, "precision", w->precision);
    const struct {
        const char *name;
        double value;
    } numbers[] = {{"recorded_loss", w->recorded_loss},
                   {"recorded_grad_norm", w->recorded_norm},
                   {"lr", w->lr},
                   {"recorded_z", w->recorded_z},
                   {"z", w->z},
                   {"mean", w->mean},
                   {"deviation", w->deviation},
                   {"chance", w->chance},
                   {"loss", w->loss},
                   {"grad_norm", w->norm},
                   {"ordinary_loss", w->ordinary_loss},
                   {"ordinary_grad_norm", w->ordinary_norm}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        json_object_set_new(out, numbers[i].name, json_number(numbers[i].value));
    }
    json_object_set_new(out, "gradient_scale", json_number(w->scale));
    json_object_set_new(out, "sample", json_integer((json_int_t)w->sample));
    json_object_set_new(out, "seq", json_integer((json_int_t)w->seq));
    json_object_set_new(
        out, "first",
        w->first == KILN_EXPLAIN_NO_PLACE ? json_null() : tensor_json(&w->walk[w->first]));
    json_object_set_new(
        out, "first_activation",
        w->shown == KILN_EXPLAIN_NO_PLACE ? json_null() : tensor_json(&w->walk[w->shown]));
    json_object_set_new(out, "token", text_json(w->token));
    json_object_set_new(out, "text", w->has_text ? around_json(&w->text) : json_null());
    return out;
}

json_t *explain_json(const char *run, const struct kiln_explanation *w) {
    json_t *out = head_json(run, w);
    json_t *sequences = json_array(), *tokens = json_array(), *gradients = json_array();
    json_t *walk = json_array();
    for (size_t i = 0; i < w->sequences; i++) {
        json_array_append_new(sequences, sequence_json(&w->sequence[i]));
    }
    for (size_t i = 0; i < w->n_tokens; i++) {
        json_array_append_new(tokens, token_json(&w->tokens[i]));
    }
    for (size_t i = 0; i < w->n_gradients; i++) {
        json_array_append_new(gradients, gradient_json(&w->gradient[i]));
    }
    for (size_t i = 0; i < w->n_walk; i++) {
        json_array_append_new(walk, tensor_json(&w->walk[i]));
    }
    json_object_set_new(out, "sequences", sequences);
    json_object_set_new(out, "tokens", tokens);
    json_object_set_new(out, "gradients", gradients);
    json_object_set_new(out, "walk", walk);
    return out;
}
