/* SPDX-License-Identifier: MIT
 *
 * mil.h: programs for the Neural Engine (MIL text and weight files): would the hardware take them?
 * And: write those that kiln makes.
 *
 *     struct kiln_mil_report report;
 *     status = kiln_mil_check_file("model.mil", NULL, &report, &err);
 *     if (status == KILN_OK) ... accepted
 *     else if (report.limit[0] != '\0') ... right as MIL, refused by that limit of the hardware
 *     else ... err.message says what is wrong, and where
 *     kiln_mil_report_free(&report);
 *
 * Anybody's program will do. A weight that the text calls @model_path/weights/NAME is looked for
 * as weights/NAME and as NAME in one folder, by default that of the program.
 */
#ifndef KILN_PUBLIC_MIL_H
#define KILN_PUBLIC_MIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kiln/lora.h"
#include "kiln/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A limit of the hardware. */
struct kiln_mil_limit {
    const char *name, *help;
    uint64_t value; /* its default; 0: off */
};
/* The i-th limit; false behind the last. */
KILN_API bool kiln_mil_limit(size_t i, struct kiln_mil_limit *out);

/* How the simulator counts where sources differ; set like a limit. */
struct kiln_mil_number {
    const char *name, *value, *help; /* value: its default */
};
KILN_API bool kiln_mil_sim_number(size_t i, struct kiln_mil_number *out);

struct kiln_mil_options {
    const char *weights;       /* folder; NULL: the program's */
    const char *const *limits; /* [n_limits] "NAME=on", "NAME=off", "NAME=NUMBER" */
    size_t n_limits;
};

/* What a program takes or gives. */
struct kiln_mil_port {
    const char *name; /* lives as long as the report */
    char type[160];   /* "tensor<fp16, [1,768,1,256]>" */
    size_t bytes;
    bool input;
};

struct kiln_mil_report {
    char limit[40];               /* that refused it; "": none */
    double version;               /* 1.3 */
    char opset[16];               /* "ios18" */
    size_t operations, constants; /* constants: of text and of files */
    size_t constants_from_files;
    struct kiln_mil_port *ports; /* inputs, then outputs, in their order */
    size_t n_ports;
    void *memory; /* what owns the ports */
};

/* Read a program with its weights and hold it against the limits. options NULL: the defaults.
 * KILN_EINPUT: refused; the message begins with file:line:column, then either "limit NAME:" or what
 * was expected and found. KILN_EUSAGE: not a limit. Free the report after any status. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_mil_check_file(
    const char *path, const struct kiln_mil_options *options, struct kiln_mil_report *out,
    struct kiln_err *err);
KILN_API void kiln_mil_report_free(struct kiln_mil_report *report);

/* ---- weight files (src/device/mil/blob_file.c) ------------------------------------------------
 */

/* A blob of a weight file. */
struct kiln_mil_blob {
    uint64_t offset;  /* of its descriptor: what programs name */
    uint64_t bytes;   /* of its payload */
    const char *type; /* "fp16" */
    uint64_t elements;
    double least, most;   /* of its elements that are numbers */
    uint64_t not_numbers; /* infinities and NaN */
};
struct kiln_mil_weights {
    struct kiln_mil_blob *blobs; /* [n] in the order of the file */
    size_t n;
};
/* Does the file begin as a weight file does? */
KILN_API bool kiln_mil_weights_is(const char *path);
/* Read every blob of it. KILN_EINPUT names the offset and the member that is wrong. Free the blobs
 * after any status. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_mil_weights_read(const char *path,
                                                                struct kiln_mil_weights *out,
                                                                struct kiln_err *err);
KILN_API void kiln_mil_weights_free(struct kiln_mil_weights *weights);

/* ---- writing (src/train/emit.c) -------------------------------------------------------------- */

/* A program that kiln makes for a layer of a model. */
struct kiln_mil_emit {
    const char *model;     /* preset, llama2.c .bin or run folder */
    uint64_t seed;         /* of a preset's weights */
    const char *kernel;    /* "attn_fwd"; one that there is not: KILN_EUSAGE lists them */
    size_t layer;          /* from 0 */
    size_t part;           /* of the classifier, from 0 */
    size_t seq;            /* tokens of a sequence; 0: the model's */
    bool doc_mask;         /* attention keeps to documents: their starts are an input */
    struct kiln_lora lora; /* adapters are inputs, behind the activations; rank 0: none */
    const char *program;   /* "1.3" */
    const char *opset;     /* "ios18" */
    const char *folder;    /* gets model.mil and weights/NAME.bin */
};
struct kiln_mil_emitted {
    char model[512];            /* "stories15m (random weights, seed 1)" */
    char label[64];             /* "layer 3, attn_fwd" */
    size_t input[2], output[2]; /* channels and width */
    size_t text_bytes, n_files, file_bytes;
};
/* Write it. Files of those names are replaced. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_mil_emit(const struct kiln_mil_emit *request,
                                                        struct kiln_mil_emitted *out,
                                                        struct kiln_err *err);
/* Name of the i-th kernel; NULL behind the last. */
KILN_API const char *kiln_mil_kernel(size_t i);

/* ---- running (src/device/sim/run_file.c) -------------------------------------------------------
 */

/* A file of an input or output: the tensor's elements in its declared type, row-major,
 * little-endian, and nothing else. */
struct kiln_mil_file {
    const char *name, *path;
};

/* Run a program on the simulated Neural Engine, on all processors: every input from a file, the
 * outputs that are named to files. It is held against the limits first, as by kiln_mil_check_file,
 * which says what *out holds; free it after any status. KILN_EUSAGE: a name that the program does
 * not have, one that comes twice, an input without a file; the message lists what there is.
 * KILN_EINPUT: as by kiln_mil_check_file, or a file of another size; the message names both. */
KILN_API KILN_MUST_CHECK enum kiln_status kiln_mil_run_file(
    const char *path, const struct kiln_mil_options *options, const struct kiln_mil_file *inputs,
    size_t n_inputs, const struct kiln_mil_file *outputs, size_t n_outputs,
    struct kiln_mil_report *out, struct kiln_err *err);

#ifdef __cplusplus
}
#endif

#endif
