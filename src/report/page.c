/* SPDX-License-Identifier: MIT */
#include "report/page.h"

#include <string.h>

const struct kiln_page_file *kiln_page_find(const char *name) {
    for (const struct kiln_page_file *file = kiln_page_files; file->name != NULL; file++) {
        if (strcmp(file->name, name) == 0) {
            return file;
        }
    }
    return NULL;
}

/* What stands for {{name}}, or the words themselves. */
static void put(struct kiln_text *text, const char *from, size_t n, const char *data) {
    char name[64] = "";
    if (n - 4 < sizeof name) {
        memcpy(name, from + 2, n - 4);
    }
    const struct kiln_page_file *file = kiln_page_find(name);
    if (strcmp(name, "data") == 0) {
        kiln_text_raw(text, data);
    } else if (file != NULL) {
        kiln_text_add(text, (const char *)file->bytes, file->size);
    } else {
        kiln_text_add(text, from, n);
    }
}

void kiln_page_write(struct kiln_text *text, const char *name, const char *data) {
    const struct kiln_page_file *page = kiln_page_find(name);
    if (page == NULL) {
        text->failed = true;
        return;
    }
    const char *at = (const char *)page->bytes, *const end = at + page->size;
    for (;;) {
        const char *mark = memmem(at, (size_t)(end - at), "{{", 2);
        const char *close = mark != NULL ? memmem(mark, (size_t)(end - mark), "}}", 2) : NULL;
        if (close == NULL) {
            kiln_text_add(text, at, (size_t)(end - at));
            return;
        }
        kiln_text_add(text, at, (size_t)(mark - at));
        put(text, mark, (size_t)(close + 2 - mark), data);
        at = close + 2;
    }
}
