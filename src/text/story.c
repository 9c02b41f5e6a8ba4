/* SPDX-License-Identifier: MIT
 *
 * story.c: writes stories, parses them and measures them, all by the tables of story_grammar.h.
 *
 * Writing replaces each {slot} by a chosen entry, whose own slots are replaced in turn. Parsing
 * is the same walk with the choices unknown: it tries every entry, drops those that disagree with
 * the text and sums the probabilities of the ways that reach its end, so it stays right even if a
 * text had several derivations. Choices are independent given the cast, hence the entropy is the
 * sum of ln n over all choices, each weighted with how often it is made.
 */
#include "kiln/story.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "text/story_grammar.h"

#define DRAWS_BITS 8 /* a story makes fewer than 2^8 choices */
#define UNCAST     -1

static const struct kiln_story_list *const lists = kiln_story_lists;

/* ---- Reading the tables ---- */

struct span {
    const char *at, *end;
};

static struct span span_of(const char *text) { return (struct span){text, text + strlen(text)}; }

/* The part of `all` with number `which`, counted from 0, when `mark` sets the parts apart. */
static struct span part(struct span all, char mark, int which) {
    for (;;) {
        const char *end = memchr(all.at, mark, (size_t)(all.end - all.at));
        if (which == 0 || end == NULL) {
            return (struct span){all.at, end == NULL ? all.end : end};
        }
        all.at = end + 1;
        which--;
    }
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }
static char upper(char c) { return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c; }

/* Does `name` equal the span, whose first letter may be a capital? */
static bool named(const char *name, struct span span) {
    size_t size = (size_t)(span.end - span.at);
    return strlen(name) == size && size > 0 && name[0] == lower(span.at[0]) &&
           memcmp(name + 1, span.at + 1, size - 1) == 0;
}

struct slot {
    int list;
    int form;
    bool capital; /* its first letter is made a capital */
};

static int find_list(struct span name) {
    for (size_t i = 0; i < kiln_story_n_lists; i++) {
        if (named(lists[i].name, name)) {
            return (int)i;
        }
    }
    assert(!"a slot of the story grammar names no list");
    return 0;
}

static int find_form(const struct kiln_story_list *list, struct span name) {
    assert(list->forms != NULL);
    struct span forms = span_of(list->forms);
    for (int i = 0;; i++) {
        struct span form = part(forms, ' ', i);
        if (form.end - form.at == name.end - name.at &&
            memcmp(form.at, name.at, (size_t)(name.end - name.at)) == 0) {
            return i;
        }
        assert(form.end != forms.end && "a slot of the story grammar names no form");
    }
}

/* Read "{list}" or "{list.form}" at *at and move behind it. */
static struct slot read_slot(const char **at) {
    const char *close = strchr(*at, '}');
    struct span whole = {*at + 1, close};
    struct span name = part(whole, '.', 0);
    struct slot slot = {.list = find_list(name), .capital = *name.at != lower(*name.at)};
    if (name.end < whole.end) {
        slot.form = find_form(&lists[slot.list], (struct span){name.end + 1, whole.end});
    }
    *at = close + 1;
    return slot;
}

static struct span entry_text(struct slot slot, int entry) {
    return part(span_of(lists[slot.list].entries[entry]), '|', slot.form);
}

static bool is_cast(int list) { return lists[list].kind == KILN_STORY_CAST; }
static double choice_cost(int list) { return log((double)lists[list].n_entries); }
static struct span whole_story(void) { return span_of("{story}"); }

/* ---- Writing ---- */

struct writer {
    uint64_t seed, counter;
    double surprise;
    char *text;
    size_t size;
    int cast[KILN_STORY_MAX_LISTS];
};

static int draw(struct writer *w, int list) {
    w->surprise += choice_cost(list);
    return (int)kiln_random_below(w->seed, KILN_STREAM_STORY, w->counter++, lists[list].n_entries);
}

static void write_text(struct writer *w, struct span text, bool capital) {
    while (text.at < text.end) {
        if (*text.at == '{') {
            struct slot slot = read_slot(&text.at);
            int entry = is_cast(slot.list) ? w->cast[slot.list] : draw(w, slot.list);
            write_text(w, entry_text(slot, entry), capital || slot.capital);
        } else {
            assert(w->size + 1 < KILN_STORY_ROOM);
            w->text[w->size++] = capital ? upper(*text.at) : *text.at;
            text.at++;
        }
        capital = false;
    }
}

size_t kiln_story_write(uint64_t seed, uint64_t index, char *text, double *surprise) {
    struct writer w = {.seed = seed, .counter = index << DRAWS_BITS, .text = text};
    for (int i = 0; i < (int)kiln_story_n_lists; i++) {
        w.cast[i] = is_cast(i) ? draw(&w, i) : UNCAST;
    }
    write_text(&w, whole_story(), false);
    assert(w.counter - (index << DRAWS_BITS) < 1u << DRAWS_BITS);
    text[w.size] = '\0';
    if (surprise != NULL) {
        *surprise = w.surprise;
    }
    return w.size;
}

/* ---- Entropy ---- */

/* Expected cost of the choices that replacing all slots of `text` makes, the cast aside. */
static double text_cost(struct span text) {
    double cost = 0;
    while (text.at < text.end) {
        if (*text.at != '{') {
            text.at++;
            continue;
        }
        struct slot slot = read_slot(&text.at);
        int n = (int)lists[slot.list].n_entries;
        double sum = 0;
        for (int i = 0; i < n; i++) {
            sum += text_cost(entry_text(slot, i));
        }
        cost += sum / n + (is_cast(slot.list) ? 0 : choice_cost(slot.list));
    }
    return cost;
}

double kiln_story_entropy(void) {
    double cost = text_cost(whole_story());
    for (int i = 0; i < (int)kiln_story_n_lists; i++) {
        cost += is_cast(i) ? choice_cost(i) : 0;
    }
    return cost;
}

/* ---- Parsing ---- */

/* What is still to be matched behind the text at hand, innermost first. */
struct rest {
    struct span text;
    const struct rest *next;
};

struct parser {
    const char *text, *end;
    bool any;           /* stop at the first derivation */
    double probability; /* of the derivations found so far, summed */
    int cast[KILN_STORY_MAX_LISTS];
};

static void parse_slot(struct parser *p, const char *at, struct slot slot, const struct rest *rest,
                       double cost);

/* Match `want`, then `rest`, with the text from `at` to its end. */
static void parse_text(struct parser *p, const char *at, struct span want, bool capital,
                       const struct rest *rest, double cost) {
    for (;;) {
        while (want.at == want.end) {
            if (rest == NULL) {
                p->probability += at == p->end ? exp(-cost) : 0;
                return;
            }
            want = rest->text;
            rest = rest->next;
        }
        if (*want.at == '{') {
            struct slot slot = read_slot(&want.at);
            slot.capital |= capital;
            parse_slot(p, at, slot, &(struct rest){want, rest}, cost);
            return;
        }
        if (at == p->end || *at != (capital ? upper(*want.at) : *want.at)) {
            return;
        }
        at++;
        want.at++;
        capital = false;
    }
}

static void parse_slot(struct parser *p, const char *at, struct slot slot, const struct rest *rest,
                       double cost) {
    int *cast = is_cast(slot.list) ? &p->cast[slot.list] : NULL;
    if (cast != NULL && *cast != UNCAST) {
        parse_text(p, at, entry_text(slot, *cast), slot.capital, rest, cost);
        return;
    }
    cost += choice_cost(slot.list);
    for (int i = 0; i < (int)lists[slot.list].n_entries; i++) {
        if (p->any && p->probability > 0) {
            return;
        }
        if (cast != NULL) {
            *cast = i;
        }
        parse_text(p, at, entry_text(slot, i), slot.capital, rest, cost);
    }
    if (cast != NULL) {
        *cast = UNCAST;
    }
}

/* Probability that the grammar turns `want` into exactly this text. */
static double parse(struct span want, const char *text, size_t size, bool any) {
    struct parser p = {.text = text, .end = text + size, .any = any};
    for (size_t i = 0; i < kiln_story_n_lists; i++) {
        p.cast[i] = UNCAST;
    }
    parse_text(&p, text, want, false, NULL, 0);
    return p.probability;
}

double kiln_story_surprise(const char *text, size_t size) {
    double probability = parse(whole_story(), text, size, false);
    return probability > 0 ? -log(probability) : -1;
}

bool kiln_story_sentence(const char *sentence, size_t size) {
    for (size_t i = 0; i < kiln_story_n_lists; i++) {
        for (size_t j = 0; lists[i].kind == KILN_STORY_SENTENCE && j < lists[i].n_entries; j++) {
            if (parse(span_of(lists[i].entries[j]), sentence, size, true) > 0) {
                return true;
            }
        }
    }
    return false;
}

/* ---- Sentences of a text ---- */

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/* Length of the break between stories that begins at `at`, or 0. */
static size_t break_size(const char *at, const char *end) {
    static const char mark[] = "<|endoftext|>";
    if (*at == '\n') {
        return 1;
    }
    size_t size = sizeof(mark) - 1;
    return (size_t)(end - at) >= size && memcmp(at, mark, size) == 0 ? size : 0;
}

/* End of the sentence that begins at `at`: behind its full stop, at a break between stories, or
 * after KILN_STORY_SENTENCE_MAX bytes. NULL when the text ends first. */
static const char *sentence_end(const char *at, const char *end) {
    const char *limit =
        (size_t)(end - at) > KILN_STORY_SENTENCE_MAX ? at + KILN_STORY_SENTENCE_MAX : NULL;
    bool quoted = false;
    for (; at < end; at++) {
        if (at == limit || break_size(at, end) > 0) {
            return at;
        }
        quoted ^= *at == '"';
        if (!quoted && (*at == '.' || *at == '!' || *at == '?')) {
            return at + 1;
        }
    }
    return NULL;
}

void kiln_story_check(const char *text, size_t size, size_t *sentences, size_t *parsed) {
    const char *at = text, *end = text + size;
    *sentences = *parsed = 0;
    while (at < end) {
        size_t skip = is_space(*at) ? 1 : break_size(at, end);
        if (skip > 0) {
            at += skip;
            continue;
        }
        const char *stop = sentence_end(at, end);
        if (stop == NULL) {
            return;
        }
        ++*sentences;
        *parsed += kiln_story_sentence(at, (size_t)(stop - at));
        at = stop;
    }
}
