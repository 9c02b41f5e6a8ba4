/* SPDX-License-Identifier: MIT
 *
 * inspect.h: everything a state file or a durable checkpoint says of itself, as a list of facts.
 *
 * Facts come in sections, in the order to show them. A section is one group of named values, or a
 * list of groups (regions, cursor slots, ...), told apart by `item`. Nothing is locked and not a
 * byte is changed, also while another process trains the run.
 */
#ifndef KILN_INSPECT_H
#define KILN_INSPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum kiln_fact_type {
    KILN_FACT_TEXT,  /* text */
    KILN_FACT_COUNT, /* count */
    KILN_FACT_HEX,   /* count: a checksum, 8 hexadecimal digits */
    KILN_FACT_FLAG,  /* count: 0 or 1 */
    KILN_FACT_REAL,  /* real; may be infinite or NaN */
};

#define KILN_NO_ITEM ((size_t)-1)

struct kiln_fact {
    const char *section; /* "file", "model", "regions", "slots", "cursor", ... */
    size_t item;         /* number in a list, or KILN_NO_ITEM */
    const char *name;    /* "metrics_bytes" */
    enum kiln_fact_type type;
    uint64_t count;
    double real;
    char text[168];
};

struct kiln_facts {
    struct kiln_fact *fact; /* [n], heap; kiln_facts_free */
    size_t n, room;
};

/* A state.kiln: file (with the precision of its snapshots), model, regions, table, slots, cursor,
 * trust (clean, of this boot), stamps (how many chunks are of which update), journal, arrays
 * (checksum and numbers that are not finite of weights, m, v; of snapshots the checksum), reading
 * (did it change meanwhile). KILN_EDAMAGED names what is damaged; `out` then holds what could be
 * read, and is to be freed too. KILN_EINPUT: no such file. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_inspect_state(const char *path,
                                                             struct kiln_facts *out,
                                                             struct kiln_err *err);
/* A folder checkpoints/step-N: file, model, cursor, parts (each with its checksum and whether it is
 * right). Errors and `out` as above. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_inspect_checkpoint(const char *path,
                                                                  struct kiln_facts *out,
                                                                  struct kiln_err *err);
KILN_API void kiln_facts_free(struct kiln_facts *facts);

#ifdef __cplusplus
}
#endif

#endif
