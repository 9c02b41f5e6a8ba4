/* SPDX-License-Identifier: MIT
 *
 * template_show.c: values of the template language as text: as Python's str, repr and json.dumps
 * write them.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/template_int.h"

enum kiln_status kiln_tpl_write(struct tpl_run *r, struct tpl_buffer *b, const char *p, size_t n) {
    if (n > b->room - b->n) {
        size_t room = b->room ? b->room : 256;
        while (room - b->n < n) {
            room *= 2;
        }
        char *wider = kiln_tpl_take(&r->heap, room, 1);
        if (wider == NULL) {
            return kiln_tpl_no_memory(r);
        }
        if (b->n > 0) {
            memcpy(wider, b->p, b->n);
        }
        b->p = wider;
        b->room = room;
    }
    if (n > 0) {
        memcpy(b->p + b->n, p, n);
    }
    b->n += n;
    return KILN_OK;
}

static enum kiln_status write_text(struct tpl_run *r, struct tpl_buffer *b, const char *text) {
    return kiln_tpl_write(r, b, text, strlen(text));
}

/* ---- numbers -----------------------------------------------------------------------------------
 */

/* The fewest digits that give the same number back: where Python's repr and %.17g differ. */
static void shortest(double value, char out[40]) {
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, 40, "%.*e", digits - 1, value);
        if (strtod(out, NULL) == value) {
            return;
        }
    }
}

static void write_real(double value, char out[60]) {
    char digits[40];
    if (!isfinite(value)) {
        snprintf(out, 60, "%s", isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
        return;
    }
    shortest(value, digits);
    const int exponent = atoi(strchr(digits, 'e') + 1);
    const char *point = strchr(digits, '.');
    const int behind = point ? (int)(strchr(digits, 'e') - point - 1) : 0;
    if (exponent < -4 || exponent >= 16) {
        snprintf(out, 60, "%.*e", behind, value);
        return;
    }
    const int decimals = behind - exponent;
    snprintf(out, 60, "%.*f", decimals > 1 ? decimals : 1, value);
}

static enum kiln_status show_number(struct tpl_run *r, const struct tpl_value *v,
                                    struct tpl_buffer *b) {
    char text[60];
    if (v->type == TPL_INT) {
        snprintf(text, sizeof text, "%" PRId64, v->whole);
    } else {
        write_real(v->real, text);
    }
    return write_text(r, b, text);
}

/* ---- repr --------------------------------------------------------------------------------------
 */

static enum kiln_status repr_text(struct tpl_run *r, struct tpl_str s, struct tpl_buffer *b) {
    const bool doubles = memchr(s.p, '\'', s.n) != NULL && memchr(s.p, '"', s.n) == NULL;
    const char quote = doubles ? '"' : '\'';
    KILN_TRY(kiln_tpl_write(r, b, &quote, 1));
    for (size_t i = 0; i < s.n; i++) {
        const unsigned char c = (unsigned char)s.p[i];
        char text[8];
        if (c == '\n' || c == '\t' || c == '\r' || c == '\\' || c == (unsigned char)quote) {
            snprintf(text, sizeof text, "\\%c",
                     c == '\n'   ? 'n'
                     : c == '\t' ? 't'
                     : c == '\r' ? 'r'
                                 : c);
        } else if (c < 0x20 || c == 0x7F) {
            snprintf(text, sizeof text, "\\x%02x", c);
        } else {
            KILN_TRY(kiln_tpl_write(r, b, s.p + i, 1));
            continue;
        }
        KILN_TRY(write_text(r, b, text));
    }
    return kiln_tpl_write(r, b, &quote, 1);
}

static enum kiln_status repr(struct tpl_run *r, const struct tpl_value *v, struct tpl_buffer *b) {
    return v->type == TPL_TEXT ? repr_text(r, v->text, b) : kiln_tpl_show(r, v, b);
}

static enum kiln_status show_list(struct tpl_run *r, const struct tpl_value *v,
                                  struct tpl_buffer *b) {
    KILN_TRY(write_text(r, b, v->tuple ? "(" : "["));
    for (size_t i = 0; i < v->list->n; i++) {
        KILN_TRY(write_text(r, b, i > 0 ? ", " : ""));
        KILN_TRY(repr(r, &v->list->at[i], b));
    }
    KILN_TRY(write_text(r, b, v->tuple && v->list->n == 1 ? "," : ""));
    return write_text(r, b, v->tuple ? ")" : "]");
}

static enum kiln_status show_dict(struct tpl_run *r, const struct tpl_dict *d,
                                  struct tpl_buffer *b) {
    KILN_TRY(write_text(r, b, "{"));
    for (size_t i = 0; i < d->n; i++) {
        KILN_TRY(write_text(r, b, i > 0 ? ", " : ""));
        KILN_TRY(repr(r, &d->key[i], b));
        KILN_TRY(write_text(r, b, ": "));
        KILN_TRY(repr(r, &d->value[i], b));
    }
    return write_text(r, b, "}");
}

/* A list that holds itself cannot be made, but a deep one can. */
enum kiln_status kiln_tpl_show(struct tpl_run *r, const struct tpl_value *v, struct tpl_buffer *b) {
    enum kiln_status status = KILN_OK;
    if (++r->depth > KILN_TEMPLATE_DEPTH) {
        return kiln_tpl_fail(r, "nested more than %d deep", KILN_TEMPLATE_DEPTH);
    }
    switch (v->type) {
        case TPL_UNDEFINED:
            break;
        case TPL_NONE:
            status = write_text(r, b, "None");
            break;
        case TPL_BOOL:
            status = write_text(r, b, v->truth ? "True" : "False");
            break;
        case TPL_INT:
        case TPL_REAL:
            status = show_number(r, v, b);
            break;
        case TPL_TEXT:
            status = kiln_tpl_write(r, b, v->text.p, v->text.n);
            break;
        case TPL_LIST:
            status = show_list(r, v, b);
            break;
        case TPL_DICT:
            status = show_dict(r, v->dict, b);
            break;
        default:
            status = kiln_tpl_fail(r, "%s is no text", kiln_tpl_type_name(v));
    }
    r->depth--;
    return status;
}

enum kiln_status kiln_tpl_string(struct tpl_run *r, const struct tpl_value *v,
                                 struct tpl_value *out) {
    struct tpl_buffer b = {NULL, 0, 0};
    if (v->type == TPL_TEXT) {
        *out = *v;
        return KILN_OK;
    }
    KILN_TRY(kiln_tpl_show(r, v, &b));
    *out = kiln_tpl_text(b.n > 0 ? b.p : "", b.n);
    return KILN_OK;
}

/* ---- JSON --------------------------------------------------------------------------------------
 */

static enum kiln_status json_text(struct tpl_run *r, struct tpl_str s, struct tpl_buffer *b) {
    static const char from[] = "\"\\\n\r\t\f\b", into[] = "\"\\nrtfb";
    KILN_TRY(write_text(r, b, "\""));
    for (size_t i = 0; i < s.n; i++) {
        const unsigned char c = (unsigned char)s.p[i];
        const char *known = c ? strchr(from, c) : NULL;
        char text[8];
        if (known != NULL) {
            snprintf(text, sizeof text, "\\%c", into[known - from]);
        } else if (c < 0x20) {
            snprintf(text, sizeof text, "\\u%04x", c);
        } else {
            KILN_TRY(kiln_tpl_write(r, b, s.p + i, 1));
            continue;
        }
        KILN_TRY(write_text(r, b, text));
    }
    return write_text(r, b, "\"");
}

/* A new line of so many blanks; without indent nothing. */
static enum kiln_status new_line(struct tpl_run *r, int indent, int level, struct tpl_buffer *b) {
    if (indent < 0) {
        return KILN_OK;
    }
    KILN_TRY(write_text(r, b, "\n"));
    for (int i = 0; i < indent * level; i++) {
        KILN_TRY(write_text(r, b, " "));
    }
    return KILN_OK;
}

static enum kiln_status json_value(struct tpl_run *r, const struct tpl_value *v, int indent,
                                   int level, struct tpl_buffer *b);

static enum kiln_status json_list(struct tpl_run *r, const struct tpl_list *list, int indent,
                                  int level, struct tpl_buffer *b) {
    if (list->n == 0) {
        return write_text(r, b, "[]");
    }
    KILN_TRY(write_text(r, b, "["));
    for (size_t i = 0; i < list->n; i++) {
        KILN_TRY(write_text(r, b, i == 0 ? "" : indent < 0 ? ", " : ","));
        KILN_TRY(new_line(r, indent, level + 1, b));
        KILN_TRY(json_value(r, &list->at[i], indent, level + 1, b));
    }
    KILN_TRY(new_line(r, indent, level, b));
    return write_text(r, b, "]");
}

/* Keys as json.dumps has them: of other types as text. */
static enum kiln_status json_key(struct tpl_run *r, const struct tpl_value *key,
                                 struct tpl_buffer *b) {
    struct tpl_value text = *key;
    struct tpl_buffer shown = {NULL, 0, 0};
    if (key->type != TPL_TEXT) {
        KILN_TRY(json_value(r, key, -1, 0, &shown));
        text = kiln_tpl_text(shown.p, shown.n);
    }
    return json_text(r, text.text, b);
}

static enum kiln_status json_dict(struct tpl_run *r, const struct tpl_dict *d, int indent,
                                  int level, struct tpl_buffer *b) {
    if (d->n == 0) {
        return write_text(r, b, "{}");
    }
    KILN_TRY(write_text(r, b, "{"));
    for (size_t i = 0; i < d->n; i++) {
        KILN_TRY(write_text(r, b, i == 0 ? "" : indent < 0 ? ", " : ","));
        KILN_TRY(new_line(r, indent, level + 1, b));
        KILN_TRY(json_key(r, &d->key[i], b));
        KILN_TRY(write_text(r, b, ": "));
        KILN_TRY(json_value(r, &d->value[i], indent, level + 1, b));
    }
    KILN_TRY(new_line(r, indent, level, b));
    return write_text(r, b, "}");
}

static enum kiln_status json_value(struct tpl_run *r, const struct tpl_value *v, int indent,
                                   int level, struct tpl_buffer *b) {
    if (level > KILN_TEMPLATE_DEPTH) {
        return kiln_tpl_fail(r, "nested more than %d deep", KILN_TEMPLATE_DEPTH);
    }
    switch (v->type) {
        case TPL_NONE:
            return write_text(r, b, "null");
        case TPL_BOOL:
            return write_text(r, b, v->truth ? "true" : "false");
        case TPL_REAL:
            if (!isfinite(v->real)) {
                return write_text(r, b,
                                  isnan(v->real) ? "NaN"
                                  : v->real > 0  ? "Infinity"
                                                 : "-Infinity");
            }
            return show_number(r, v, b);
        case TPL_INT:
            return show_number(r, v, b);
        case TPL_TEXT:
            return json_text(r, v->text, b);
        case TPL_LIST:
            return json_list(r, v->list, indent, level, b);
        case TPL_DICT:
            return json_dict(r, v->dict, indent, level, b);
        default:
            return kiln_tpl_fail(r, "%s is no JSON", kiln_tpl_type_name(v));
    }
}

enum kiln_status kiln_tpl_json(struct tpl_run *r, const struct tpl_value *v, int indent,
                               struct tpl_buffer *b) {
    return json_value(r, v, indent, 0, b);
}
