/* SPDX-License-Identifier: MIT
 *
 * args.c: the arguments of a statement: named, in any order, each a value of the program or a
 * literal. What an operation must know before it runs must be constant.
 */
#include <inttypes.h>
#include <string.h>

#include "device/mil/check.h"

/* ---- names ---------------------------------------------------------------------------------- */

/* Constants have their parameters in attributes. */
static bool in_attributes(const struct kiln_mil_call *c) {
    return strncmp(c->s->op, "const", 5) == 0;
}

/* Is `name` in the list? Its end there in *end. */
static bool listed(const char *names, const char *name, const char **end) {
    const size_t length = strlen(name);
    for (const char *p = names; p != NULL; p = strchr(p, ' ')) {
        p += *p == ' ';
        if (strncmp(p, name, length) == 0 && (p[length] == ' ' || p[length] == '?' || !p[length])) {
            *end = p + length;
            return true;
        }
    }
    return false;
}

static const struct kiln_mil_arg *find(const struct kiln_mil_args *args, const char *name,
                                       size_t from) {
    for (size_t i = from; i < args->n; i++) {
        if (strcmp(args->arg[i].name, name) == 0) {
            return &args->arg[i];
        }
    }
    return NULL;
}

const struct kiln_mil_arg *kiln_mil_arg(const struct kiln_mil_call *c, const char *name) {
    const struct kiln_mil_arg *arg = find(&c->s->args, name, 0);
    return arg == NULL && in_attributes(c) ? find(&c->s->attrs, name, 0) : arg;
}

/* Each name of the list without a ? must be there. */
static enum kiln_status check_missing(const struct kiln_mil_call *c, const char *names) {
    char name[32];
    for (const char *p = names; *p != '\0';) {
        size_t length = strcspn(p, " ?");
        memcpy(name, p, length);
        name[length] = '\0';
        if (p[length] != '?' && kiln_mil_arg(c, name) == NULL) {
            return KILN_MIL_CALL_FAIL(c, c->s->at,
                                      "expected an argument %s, found none; it takes %s%s", name,
                                      names, strchr(names, '?') ? " (?: may be missing)" : "");
        }
        p += length + (p[length] == '?');
        p += *p == ' ';
    }
    return KILN_OK;
}

enum kiln_status kiln_mil_check_names(const struct kiln_mil_call *c, const char *names) {
    const struct kiln_mil_args *args = &c->s->args;
    for (size_t i = 0; i < args->n; i++) {
        const char *end;
        if (!listed(names, args->arg[i].name, &end)) {
            return KILN_MIL_CALL_FAIL(c, args->arg[i].at, "expected one of %s, found \"%.60s\"",
                                      names, args->arg[i].name);
        }
        if (find(args, args->arg[i].name, i + 1) != NULL) {
            return KILN_MIL_CALL_FAIL(c, find(args, args->arg[i].name, i + 1)->at,
                                      "expected each argument once, found %s again",
                                      args->arg[i].name);
        }
    }
    return check_missing(c, names);
}

struct kiln_mil_at kiln_mil_place(const struct kiln_mil_call *c, const char *name) {
    const struct kiln_mil_arg *arg = kiln_mil_arg(c, name);
    return arg != NULL ? arg->value_at : c->s->at;
}

/* ---- values --------------------------------------------------------------------------------- */

enum kiln_status kiln_mil_resolve(struct kiln_mil_call *c, const struct kiln_mil_arg *arg,
                                  size_t *index) {
    if (arg->reference != NULL) {
        *index = kiln_mil_find(c->b, arg->reference);
        if (*index == SIZE_MAX) {
            return KILN_MIL_CALL_FAIL(c, arg->value_at,
                                      "%s: expected a value, found \"%.80s\", which is not "
                                      "declared before this line",
                                      arg->name, arg->reference);
        }
        return KILN_OK;
    }
    if (arg->literal == NULL) {
        return KILN_MIL_CALL_FAIL(c, arg->value_at, "%s: expected one value, found a list",
                                  arg->name);
    }
    KILN_TRY(kiln_mil_add_value(c->b, NULL, arg->value_at, &arg->literal->type, index, c->err));
    return kiln_mil_fill(c->b, arg->literal, &c->b->graph->values[*index], c->err);
}

enum kiln_status kiln_mil_tensor(struct kiln_mil_call *c, const char *name, size_t slot,
                                 const struct kiln_mil_type **type) {
    const struct kiln_mil_arg *arg = kiln_mil_arg(c, name);
    if (c->node->in == NULL) {
        c->node->in = kiln_mil_take(c->b->memory, KILN_MIL_IN, sizeof *c->node->in);
        if (c->node->in == NULL) {
            return kiln_mil_no_memory(c->b, c->s->at, c->err);
        }
    }
    c->node->n_in = slot + 1;
    c->node->in[slot] = SIZE_MAX;
    *type = NULL;
    if (arg == NULL) {
        return KILN_OK;
    }
    KILN_TRY(kiln_mil_resolve(c, arg, &c->node->in[slot]));
    *type = &c->b->graph->values[c->node->in[slot]].type;
    if ((*type)->scalar == KILN_MIL_STRING) {
        return KILN_MIL_CALL_FAIL(c, arg->value_at, "%s: expected numbers, found a string", name);
    }
    return KILN_OK;
}

/* ---- constants ------------------------------------------------------------------------------ */

enum kiln_status kiln_mil_constant(struct kiln_mil_call *c, const char *name,
                                   const struct kiln_mil_value **value) {
    const struct kiln_mil_arg *arg = kiln_mil_arg(c, name);
    size_t index;
    *value = NULL;
    if (arg == NULL) {
        return KILN_OK;
    }
    KILN_TRY(kiln_mil_resolve(c, arg, &index));
    *value = &c->b->graph->values[index];
    if (!(*value)->constant) {
        return KILN_MIL_CALL_FAIL(c, arg->value_at,
                                  "%s: expected a constant, found %.80s, which is known only when "
                                  "the program runs",
                                  name, (*value)->name);
    }
    return KILN_OK;
}

static enum kiln_status wrong_kind(const struct kiln_mil_call *c, const char *name,
                                   const char *kind, const struct kiln_mil_value *value) {
    char text[160];
    return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, name), "%s: expected %s, found %s%s", name, kind,
                              kiln_mil_type_text(&value->type, text),
                              value->file != NULL ? " from a file" : "");
}

/* Is it integers that the text holds? Flags and strings are not. */
static bool has_integers(const struct kiln_mil_value *value) {
    return value->integers != NULL && value->type.scalar != KILN_MIL_BOOL;
}

enum kiln_status kiln_mil_integer(struct kiln_mil_call *c, const char *name, int64_t *value) {
    const struct kiln_mil_value *v;
    KILN_TRY(kiln_mil_constant(c, name, &v));
    if (v == NULL) {
        return KILN_OK;
    }
    if (v->type.rank != 0 || !has_integers(v)) {
        return wrong_kind(c, name, "an integer", v);
    }
    *value = v->integers[0];
    return KILN_OK;
}

enum kiln_status kiln_mil_integers(struct kiln_mil_call *c, const char *name,
                                   int64_t values[KILN_MIL_LIST], size_t *n) {
    const struct kiln_mil_value *v;
    KILN_TRY(kiln_mil_constant(c, name, &v));
    if (v == NULL) {
        return KILN_OK;
    }
    if (v->type.rank != 1 || !has_integers(v)) {
        return wrong_kind(c, name, "a list of integers", v);
    }
    if (v->type.dims[0] > KILN_MIL_LIST) {
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, name),
                                  "%s: expected at most %d integers, found %zu", name,
                                  KILN_MIL_LIST, v->type.dims[0]);
    }
    *n = v->type.dims[0];
    memcpy(values, v->integers, *n * sizeof *values);
    return KILN_OK;
}

enum kiln_status kiln_mil_flag(struct kiln_mil_call *c, const char *name, bool *value) {
    const struct kiln_mil_value *v;
    KILN_TRY(kiln_mil_constant(c, name, &v));
    if (v == NULL) {
        return KILN_OK;
    }
    if (v->type.rank != 0 || v->type.scalar != KILN_MIL_BOOL) {
        return wrong_kind(c, name, "a bool", v);
    }
    *value = v->integers[0] != 0;
    return KILN_OK;
}

enum kiln_status kiln_mil_real(struct kiln_mil_call *c, const char *name, double *value) {
    const struct kiln_mil_value *v;
    KILN_TRY(kiln_mil_constant(c, name, &v));
    if (v == NULL) {
        return KILN_OK;
    }
    if (v->type.rank != 0 || (v->type.scalar != KILN_MIL_FP16 && v->type.scalar != KILN_MIL_FP32)) {
        return wrong_kind(c, name, "an fp16 or fp32 number", v);
    }
    *value = (double)v->data[0];
    return KILN_OK;
}

enum kiln_status kiln_mil_word(struct kiln_mil_call *c, const char *name, const char **value) {
    const struct kiln_mil_value *v;
    KILN_TRY(kiln_mil_constant(c, name, &v));
    if (v == NULL) {
        return KILN_OK;
    }
    if (v->string == NULL) {
        return wrong_kind(c, name, "a string", v);
    }
    *value = v->string;
    return KILN_OK;
}

enum kiln_status kiln_mil_axis(struct kiln_mil_call *c, const char *name, int64_t axis, size_t rank,
                               size_t *out) {
    if (rank == 0) {
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, name),
                                  "%s: expected a tensor with axes, found a scalar", name);
    }
    if (axis < -(int64_t)rank || axis >= (int64_t)rank) {
        return KILN_MIL_CALL_FAIL(c, kiln_mil_place(c, name),
                                  "%s: expected an axis from -%zu to %zu, found %" PRId64, name,
                                  rank, rank - 1, axis);
    }
    *out = (size_t)(axis < 0 ? axis + (int64_t)rank : axis);
    return KILN_OK;
}
