/* SPDX-License-Identifier: MIT
 *
 * test_template.c: the language of chat templates: by itself, and beside jinja2 as transformers
 * sets it up, where $KILN_PYTHON is a Python that has both.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "kiln_test.h"
#include "text/template.h"

/* ---- helpers ------------------------------------------------------------------------------------
 */

static const char conversation[] =
    "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"add_generation_prompt\": false,"
    " \"messages\": [{\"role\": \"system\", \"content\": \" Be brief. \"},"
    " {\"role\": \"user\", \"content\": \"Hi?\"},"
    " {\"role\": \"assistant\", \"content\": \"Hello \\u00fc\\ud83d\\ude00!\"},"
    " {\"role\": \"user\", \"content\": \"More\\nlines\"}]}";

static json_t *variables(const char *json) {
    json_error_t error;
    json_t *all = json_loads(json, 0, &error);
    if (all == NULL) {
        FAIL("%s at %d", error.text, error.position);
    }
    return all;
}

static enum kiln_status render(const char *source, const char *json, struct kiln_rendered *out,
                               struct kiln_err *err) {
    struct kiln_template *tpl;
    *out = (struct kiln_rendered){.text = NULL};
    enum kiln_status status = kiln_template_parse("test", source, strlen(source), &tpl, err);
    if (status == KILN_OK) {
        json_t *all = variables(json);
        status = kiln_template_render(tpl, all, 0, out, err);
        json_decref(all);
    }
    kiln_template_free(tpl);
    return status;
}

static void check(const char *source, const char *want) {
    struct kiln_rendered got;
    struct kiln_err err;
    CHECK_OK(render(source, conversation, &got, &err), &err);
    CHECK_STRING(got.text, want);
    kiln_rendered_free(&got);
}

static void refuses(const char *source, const char *part) {
    struct kiln_rendered got;
    struct kiln_err err;
    CHECK_FAILS(render(source, conversation, &got, &err), KILN_EINPUT, &err);
    CHECK_CONTAINS(err.message, part);
}

/* ---- by itself ----------------------------------------------------------------------------------
 */

TEST(tags_take_the_whitespace_that_they_say) {
    check("a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc");
    check("a  {%- if true -%}  b  {%- endif -%}  c", "abc");
    check("a  {% if true %}  b{% endif +%}\nc", "a    b\nc");
    check("  {{ 1 }}\n", "  1");
    check("a\n   {# no #}\nb", "a\nb");
    check("a {%+ if true %}b{% endif %}", "a b");
    check("{{ '\\n' }}\r\nx", "\n\nx");
}

TEST(sets_are_of_their_loop_and_namespaces_are_not) {
    check("{% set a = 1 %}{% for i in [1, 2] %}{% set a = 5 %}{% endfor %}{{ a }}", "1");
    check(
        "{% set n = namespace(a=1) %}{% for i in [1, 2] %}{% set n.a = n.a + i %}{% endfor %}"
        "{{ n.a }}",
        "4");
    check("{% if true %}{% set a = 3 %}{% endif %}{{ a }}", "3");
}

TEST(values_are_shown_as_python_shows_them) {
    check("{{ [1, 2.0, 'x', none, true, {'a': \"it's\"}, (1,)] }}",
          "[1, 2.0, 'x', None, True, {'a': \"it's\"}, (1,)]");
    check("{{ {'a': [1, {}], 'b': '\"'} | tojson }}", "{\"a\": [1, {}], \"b\": \"\\\"\"}");
    check("{{ 1e0 is defined }}|{{ 0.1 + 0.2 }}|{{ 7 // -2 }}|{{ -7 % 3 }}",
          "True|0.30000000000000004|-4|2");
}

TEST(what_is_not_supported_is_named_with_its_line) {
    refuses("\n\n{% include 'x' %}", "line 3: the statement 'include'");
    refuses("a\n{{ x | frobnicate }}", "line 2: the filter frobnicate");
    refuses("{{ x is frobby }}", "line 1: the test frobby");
    refuses("{{ 'x'.encode() }}", "the method encode");
    refuses("{% call f() %}{% endcall %}", "'call'");
    refuses("{% for x in y recursive %}{% endfor %}", "recursive");
    refuses("{{ messages.append(1) }}", "the method append");
    refuses("{{ f(*x) }}", "* and **");
    refuses("{{ '%s' % 'x' }}", "is not supported");
}

TEST(what_is_wrong_is_named_with_its_line) {
    refuses("{% if x %}", "does not end");
    refuses("\n{{ x ", "line 2: a tag that does not end");
    refuses("{{ 'abc }}", "string that does not end");
    refuses("{% endif %}", "'endif'");
    refuses("{{ nothing.at.all }}", "'nothing' is undefined");
    refuses("{{ nothing + 1 }}", "'nothing' is undefined");
    refuses("{{ nothing() }}", "'nothing' is undefined");
    refuses("{{ 1 / 0 }}", "division by zero");
    refuses("{{ 'a' < 1 }}", "no order");
    refuses("{% break %}", "outside of a loop");
    refuses("{{ raise_exception('not so') }}", "not so");
    refuses("{{ ] }}", "']'");
    refuses("{{ 1 ; 2 }}", "';'");
}

TEST(a_runaway_template_ends) {
    refuses("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            "takes more than");
    refuses("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "deep");
    refuses(
        "{% set n = namespace(a='x') %}{% for i in range(64) %}{% set n.a = n.a + n.a %}"
        "{% endfor %}",
        "memory");
    refuses("{{ range(200000) }}", "range");
    refuses("{{ 2 ** 64 }}", "too large");
    char deep[1000];
    memset(deep, '(', sizeof deep);
    memcpy(deep, "{{", 2);
    memcpy(deep + sizeof deep - 4, " }}", 4);
    refuses(deep, "deep");
}

TEST(generation_blocks_are_marked) {
    struct kiln_rendered got;
    struct kiln_err err;
    CHECK_OK(render("{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}"
                    "{% generation %}{{ m.content }}!{% endgeneration %}{% else %}{{ m.content }}"
                    "{% endif %}{% endfor %}",
                    conversation, &got, &err),
             &err);
    CHECK_EQ(got.n_marked, 1);
    CHECK(got.marked != NULL);
    const char want[] = "Hello \xC3\xBC\xF0\x9F\x98\x80!!";
    CHECK_EQ(got.marked[0].end - got.marked[0].begin, sizeof want - 1);
    CHECK_BYTES(got.text + got.marked[0].begin, want, sizeof want - 1);
    kiln_rendered_free(&got);
}

/* ---- beside jinja2
 * -------------------------------------------------------------------------------- */

static const char *const files[] = {"turns",    "brackets", "headers",
                                    "thinking", "marked",   "everything"};

/* Conversations as people have them, and some that templates refuse. */
static const char *const conversations[] = {
    "[{\"role\": \"user\", \"content\": \"Hi?\"}]",
    "[{\"role\": \"user\", \"content\": \" a \"}, {\"role\": \"assistant\", \"content\": \"b\\n\"},"
    " {\"role\": \"user\", \"content\": \"c\\u00fc\\ud83d\\ude00\"},"
    " {\"role\": \"assistant\", \"content\": \"\"}]",
    "[{\"role\": \"system\", \"content\": \" Be brief. \"}, {\"role\": \"user\", \"content\": "
    "\"x\"},"
    " {\"role\": \"assistant\", \"content\": \"<think>\\nwell\\n</think>\\n\\ny\"},"
    " {\"role\": \"user\", \"content\": \"z\"}]",
    "[{\"role\": \"assistant\", \"content\": \"first\"}, {\"role\": \"assistant\", \"content\": "
    "\"again\"}]",
    "[{\"role\": \"user\", \"content\": \"weather?\"}, {\"role\": \"assistant\", \"content\": \"\","
    " \"tool_calls\": [{\"type\": \"function\", \"function\": {\"name\": \"get\", \"arguments\": "
    "{\"city\": \"K\\u00f6ln\", \"n\": [1, 2.5, null, true, {}]}}}]},"
    " {\"role\": \"tool\", \"content\": \"{\\\"t\\\": 3}\"}, {\"role\": \"tool\", \"content\": "
    "\"4\"},"
    " {\"role\": \"assistant\", \"content\": \"3 degrees\", \"reasoning_content\": \"so\"}]",
    "[{\"role\": \"system\", \"content\": \"only\"}]",
};

static void add_case(json_t *cases, const char *name, const char *source, json_t *all) {
    struct kiln_rendered got;
    struct kiln_err err;
    struct kiln_template *tpl = NULL;
    enum kiln_status status = kiln_template_parse(name, source, strlen(source), &tpl, &err);
    got = (struct kiln_rendered){.text = NULL};
    const bool marks = status == KILN_OK && kiln_template_marks(tpl);
    if (status == KILN_OK) {
        status = kiln_template_render(tpl, all, 0, &got, &err);
    }
    json_t *spans = marks ? json_array() : json_null();
    for (size_t i = 0; i < got.n_marked; i++) {
        json_array_append_new(spans, json_pack("[I, I]", (json_int_t)got.marked[i].begin,
                                               (json_int_t)got.marked[i].end));
    }
    json_array_append_new(
        cases,
        json_pack("{s:s, s:s, s:O, s:o, s:o, s:o}", "name", name, "source", source, "variables",
                  all, "text", status == KILN_OK ? json_stringn(got.text, got.size) : json_null(),
                  "spans", spans, "error",
                  status == KILN_OK ? json_null() : json_string(err.message)));
    kiln_rendered_free(&got);
    kiln_template_free(tpl);
}

static json_t *given(size_t i, bool prompt, bool tools) {
    json_t *all = json_pack("{s:s, s:s, s:o, s:b, s:s}", "bos_token", "<s>", "eos_token", "</s>",
                            "messages", variables(conversations[i]), "add_generation_prompt",
                            prompt, "date_string", "3 May 2021");
    json_object_set_new(
        all, "tools",
        tools ? variables("[{\"type\": \"function\", \"function\": {\"name\": \"get\", "
                          "\"description\": \"a \\\"b\\\" <c>\", \"parameters\": {\"n\": 1}}}]")
              : json_null());
    return all;
}

static json_t *all_cases(void) {
    json_t *cases = json_array();
    for (size_t f = 0; f < sizeof files / sizeof files[0]; f++) {
        char path[400], *source;
        const char *root = getenv("ROOT");
        size_t size;
        struct kiln_err err;
        snprintf(path, sizeof path, "%s/tests/text/templates/%s.jinja", root ? root : ".",
                 files[f]);
        CHECK_OK(kiln_read_file(path, &source, &size, &err), &err);
        for (size_t i = 0; i < 4 * sizeof conversations / sizeof conversations[0]; i++) {
            json_t *all = given(i / 4, i % 2, i / 2 % 2);
            char name[64];
            snprintf(name, sizeof name, "%s %zu%s%s", files[f], i / 4, i % 2 ? " prompt" : "",
                     i / 2 % 2 ? " tools" : "");
            add_case(cases, name, source, all);
            json_decref(all);
        }
    }
    return cases;
}

TEST_WITHIN(templates_render_as_jinja2_does, 300) {
    const char *python = getenv("KILN_PYTHON"), *root = getenv("ROOT");
    if (python == NULL || python[0] == '\0') {
        SKIP("KILN_PYTHON names no Python with jinja2 and transformers");
    }
    json_t *cases = all_cases();
    const char *path = test_path("cases.json");
    CHECK_EQ(json_dump_file(cases, path, 0), 0);
    json_decref(cases);
    char command[1200];
    snprintf(command, sizeof command,
             "%s -c 'import jinja2, transformers' 2>/dev/null || exit 77;"
             "%s %s/tests/text/templates/compare.py %s",
             python, python, root ? root : ".", path);
    const int status = system(command);
    if (status == 77 << 8) {
        SKIP("%s lacks jinja2 or transformers", python);
    }
    CHECK_EQ(status, 0);
}
