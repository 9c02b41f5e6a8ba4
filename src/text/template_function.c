/* SPDX-License-Identifier: MIT
 *
 * template_function.c: the functions that every template has.
 */
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "text/template_int.h"

enum { MOST_RANGE = 100000 }; /* of Jinja's sandbox */

typedef enum kiln_status function_fn(struct tpl_run *r, const struct tpl_value *self,
                                     const struct tpl_arguments *a, struct tpl_value *out);

static enum kiln_status raise_exception(struct tpl_run *r, const struct tpl_value *self,
                                        const struct tpl_arguments *a, struct tpl_value *out) {
    struct tpl_value text = kiln_tpl_text("", 0);
    (void)self;
    (void)out;
    KILN_TRY(a->n > 0 ? kiln_tpl_string(r, &a->at[0], &text) : KILN_OK);
    return kiln_tpl_fail(r, "the template refuses the conversation: %.*s",
                         (int)kiln_least(text.text.n, 300), text.text.p);
}

static enum kiln_status strftime_now(struct tpl_run *r, const struct tpl_value *self,
                                     const struct tpl_arguments *a, struct tpl_value *out) {
    struct tpl_str format;
    struct tpl_value copy;
    char shown[200];
    (void)self;
    KILN_TRY(kiln_tpl_accept(r, "strftime_now", a, 1, " format "));
    KILN_TRY(kiln_tpl_want_text(r, "strftime_now", kiln_tpl_argument(a, 0, "format"), &format));
    KILN_TRY(kiln_tpl_keep(r, format.p, format.n, &copy));
    const time_t now = r->now ? (time_t)r->now : time(NULL);
    struct tm parts;
    if ((r->now ? gmtime_r(&now, &parts) : localtime_r(&now, &parts)) == NULL) {
        return kiln_tpl_fail(r, "strftime_now: no time");
    }
    const size_t n = strftime(shown, sizeof shown, copy.text.p, &parts);
    if (n == 0 && format.n > 0) {
        return kiln_tpl_fail(r, "strftime_now: the format gives too long a text, or none");
    }
    return kiln_tpl_keep(r, shown, n, out);
}

static enum kiln_status make_dict(struct tpl_run *r, enum tpl_type type, const char *who,
                                  const struct tpl_arguments *a, struct tpl_value *out) {
    if (a->n > 1 || (a->n == 1 && a->at[0].type != TPL_DICT)) {
        return kiln_tpl_fail(r, "%s takes names with values, or one mapping", who);
    }
    KILN_TRY(kiln_tpl_new_dict(r, type, out));
    for (size_t i = 0; a->n == 1 && i < a->at[0].dict->n; i++) {
        KILN_TRY(kiln_tpl_put(r, out->dict, a->at[0].dict->key[i], a->at[0].dict->value[i]));
    }
    for (size_t i = 0; i < a->named.n; i++) {
        KILN_TRY(kiln_tpl_put(r, out->dict, a->named.key[i], a->named.value[i]));
    }
    return KILN_OK;
}
static enum kiln_status namespace(struct tpl_run *r, const struct tpl_value *self,
                                  const struct tpl_arguments *a, struct tpl_value *out) {
    (void)self; return make_dict(r, TPL_NAMESPACE, "namespace", a, out);
}
static enum kiln_status dict(struct tpl_run *r, const struct tpl_value *self,
                             const struct tpl_arguments *a, struct tpl_value *out) {
    (void)self;
    return make_dict(r, TPL_DICT, "dict", a, out);
}

static enum kiln_status range(struct tpl_run *r, const struct tpl_value *self,
                              const struct tpl_arguments *a, struct tpl_value *out) {
    int64_t part[3] = {0, 0, 1};
    (void)self;
    KILN_TRY(kiln_tpl_accept(r, "range", a, 3, ""));
    for (size_t i = 0; i < a->n; i++) {
        if (a->at[i].type != TPL_INT) {
            return kiln_tpl_fail(r, "range of %s", kiln_tpl_type_name(&a->at[i]));
        }
        part[a->n == 1 ? 1 : i] = a->at[i].whole;
    }
    if (a->n == 0 || part[2] == 0) {
        return kiln_tpl_fail(r, "range of nothing");
    }
    KILN_TRY(kiln_tpl_new_list(r, 4, out));
    for (int64_t i = part[0]; part[2] > 0 ? i < part[1] : i > part[1];) {
        if (out->list->n >= MOST_RANGE) {
            return kiln_tpl_fail(r, "range of more than %d numbers", MOST_RANGE);
        }
        KILN_TRY(kiln_tpl_push(r, out->list, kiln_tpl_whole(i)));
        if (__builtin_add_overflow(i, part[2], &i)) {
            break;
        }
    }
    return KILN_OK;
}

static const struct {
    const char *name;
    function_fn *fn;
} functions[] = {
    {"raise_exception", raise_exception},
    {"strftime_now", strftime_now},
    {"namespace", namespace},
    {"dict", dict},
    {"range", range},
};
enum { N_FUNCTIONS = sizeof functions / sizeof functions[0] };

bool kiln_tpl_has_function(struct tpl_str name) {
    for (int i = 0; i < N_FUNCTIONS; i++) {
        if (kiln_tpl_is(name, functions[i].name)) {
            return true;
        }
    }
    return false;
}

enum kiln_status kiln_tpl_call_function(struct tpl_run *r, struct tpl_str name,
                                        const struct tpl_arguments *a, struct tpl_value *out) {
    for (int i = 0; i < N_FUNCTIONS; i++) {
        if (kiln_tpl_is(name, functions[i].name)) {
            return functions[i].fn(r, NULL, a, out);
        }
    }
    return kiln_tpl_fail(r, "the function %.*s is not supported", (int)name.n, name.p);
}
