/* SPDX-License-Identifier: MIT
 *
 * fuzz_template.c: any bytes as a chat template; what parses is rendered, within its limits.
 */
#include <jansson.h>
#include <stdint.h>
#include <string.h>

#include "text/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char conversation[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a \\u00fc\"}, {\"role\": \"assistant\","
    " \"content\": \"b\"}], \"bos_token\": \"<s>\", \"tools\": [{\"name\": 1.5}], \"n\": null}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct kiln_template *tpl;
    struct kiln_rendered out;
    if (size > 4096 ||
        kiln_template_parse("fuzz", (const char *)data, size, &tpl, NULL) != KILN_OK) {
        return 0;
    }
    json_t *variables = json_loads(conversation, 0, NULL);
    if (kiln_template_render(tpl, variables, 1, &out, NULL) == KILN_OK) {
        if (out.text[out.size] != '\0') {
            __builtin_trap();
        }
        kiln_rendered_free(&out);
    }
    json_decref(variables);
    kiln_template_free(tpl);
    return 0;
}
