/* SPDX-License-Identifier: MIT */
#include "facts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "output.h"

static void value_text(const struct kiln_fact *fact, char *out, size_t size) {
    switch (fact->type) {
        case KILN_FACT_TEXT:
            snprintf(out, size, "%s", fact->text);
            break;
        case KILN_FACT_COUNT:
            snprintf(out, size, "%" PRIu64, fact->count);
            break;
        case KILN_FACT_HEX:
            snprintf(out, size, "%08" PRIx64, fact->count);
            break;
        case KILN_FACT_FLAG:
            snprintf(out, size, "%s", fact->count == 0 ? "no" : "yes");
            break;
        case KILN_FACT_REAL:
            snprintf(out, size, "%.9g", fact->real);
            break;
    }
}

static bool same_line(const struct kiln_fact *a, const struct kiln_fact *b) {
    return a->item != KILN_NO_ITEM && a->item == b->item && strcmp(a->section, b->section) == 0;
}

void facts_print(const char *path, const char *what, const struct kiln_facts *facts) {
    printf("%s: %s\n", path, what);
    for (size_t i = 0; i < facts->n; i++) {
        const struct kiln_fact *fact = &facts->fact[i], *before = i > 0 ? fact - 1 : NULL;
        char value[192];
        value_text(fact, value, sizeof value);
        if (before == NULL || strcmp(before->section, fact->section) != 0) {
            printf("  %s\n", fact->section);
        }
        if (fact->item == KILN_NO_ITEM) {
            printf("    %-18s %s\n", fact->name, value);
            continue;
        }
        const bool first = before == NULL || !same_line(before, fact);
        const bool last = i + 1 == facts->n || !same_line(fact, fact + 1);
        if (strcmp(fact->name, "name") == 0) {
            printf("    %-18s", value);
        } else {
            printf("%s%s %-*s", first ? "    " : "  ", fact->name, last ? 0 : 10, value);
        }
        if (last) {
            putchar('\n');
        }
    }
}

static json_t *value_json(const struct kiln_fact *fact) {
    char text[24];
    switch (fact->type) {
        case KILN_FACT_TEXT:
            return json_bytes(fact->text, strlen(fact->text));
        case KILN_FACT_COUNT:
            return json_integer((json_int_t)fact->count);
        case KILN_FACT_HEX:
            snprintf(text, sizeof text, "%08" PRIx64, fact->count);
            return json_string(text);
        case KILN_FACT_FLAG:
            return json_boolean(fact->count != 0);
        case KILN_FACT_REAL:
            return json_number(fact->real);
    }
    return NULL;
}

/* The object that a fact goes into, made when it is the first of it. */
static json_t *place_of(json_t *all, const struct kiln_fact *fact, bool first) {
    json_t *section = json_object_get(all, fact->section);
    if (fact->item == KILN_NO_ITEM) {
        if (section == NULL) {
            json_object_set_new(all, fact->section, json_object());
        }
        return json_object_get(all, fact->section);
    }
    if (section == NULL) {
        json_object_set_new(all, fact->section, json_array());
        section = json_object_get(all, fact->section);
    }
    if (first) {
        json_array_append_new(section, json_object());
    }
    return json_array_get(section, json_array_size(section) - 1);
}

json_t *facts_json(const char *kind, const struct kiln_facts *facts, const char *damaged) {
    json_t *all = json_pack("{s:s, s:s?}", "kind", kind, "damaged", damaged);
    for (size_t i = 0; i < facts->n; i++) {
        const struct kiln_fact *fact = &facts->fact[i];
        json_t *place = place_of(all, fact, i == 0 || !same_line(fact - 1, fact));
        json_object_set_new(place, fact->name, value_json(fact));
    }
    return all;
}
