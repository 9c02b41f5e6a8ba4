/* SPDX-License-Identifier: MIT
 *
 * page.h: the pages that people open in a browser. Their sources lie in src/report/page/; the build
 * turns them into bytes of the library, so that a page needs neither files nor a network.
 */
#ifndef KILN_REPORT_PAGE_H
#define KILN_REPORT_PAGE_H

#include "report/json_text.h"

struct kiln_page_file {
    const char *name; /* "charts.js" */
    const unsigned char *bytes;
    size_t size;
};
/* Made by the Makefile; the last one has no name. */
extern const struct kiln_page_file kiln_page_files[];

/* NULL: there is none of that name. */
const struct kiln_page_file *kiln_page_find(const char *name);

/* Add a page to the text: where it says {{NAME}} there is the file of that name, where it says
 * {{data}} there is `data`, which is JSON of json_text.h, or a token: it must hold no "<". Nothing
 * is looked for in what was put in. A name that is no file is left as it stands. */
void kiln_page_write(struct kiln_text *text, const char *name, const char *data);

#endif
