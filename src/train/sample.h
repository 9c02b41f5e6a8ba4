/* SPDX-License-Identifier: MIT
 *
 * sample.h: what a choice for --minutes knows of the texts: how long they are, and their
 * beginnings.
 *
 * The texts are read as training reads them (text/source.h): documents of plain, compressed or
 * JSONL files, each file in the share that it will have of what is trained on.
 */
#ifndef KILN_TRAIN_SAMPLE_H
#define KILN_TRAIN_SAMPLE_H

#include "kiln/settings.h"
#include "kiln/text.h"

struct kiln_sample_part {
    char *text; /* NULL of a token file among texts */
    size_t size;
    double bytes; /* of the whole file's text, about */
    double share; /* of what is trained on: by weight, or by size; all make 1 */
};
struct kiln_sample {
    struct kiln_sample_part *part; /* [n], as --data names them; NULL: there are only ids */
    size_t n;
    bool weighted; /* by --data itself */
};
/* KILN_EINPUT: nothing but blanks, or what kiln_tokenize_file says. Freed by kiln_sample_free, also
 * after an error. */
KILN_MUST_CHECK enum kiln_status kiln_sample_read(const struct kiln_settings *settings,
                                                  struct kiln_sample *out, struct kiln_err *err);
void kiln_sample_free(struct kiln_sample *sample);

/* Append what a tokenizer makes of about a MB, of every part its share, by turns; *bytes: of how
 * much text they are. */
KILN_MUST_CHECK enum kiln_status kiln_sample_encode(const struct kiln_sample *sample,
                                                    const struct kiln_tokenizer *tok,
                                                    struct kiln_ids *ids, double *bytes,
                                                    struct kiln_err *err);
/* Bytes of text, all of it. */
double kiln_sample_bytes(const struct kiln_sample *sample);
/* Bytes of one text that is read over and over as often as these are in the mean over what is read.
 * Of files without weights it is their sum; a small file with a great weight makes it less. */
double kiln_sample_unique(const struct kiln_sample *sample);

/* Bytes that are tokenized where `most` bytes in all are asked for (kiln_data_wish): every text its
 * share, if it has so much. */
double kiln_sample_taken(const struct kiln_sample *sample, double most);
/* Make every part no longer than that. */
void kiln_sample_cut(struct kiln_sample *sample, double most);
/* The weights with which parts that are cut keep the shares that they had: settings->data is the
 * list with them. Nothing where it has weights, or one file. */
KILN_MUST_CHECK enum kiln_status kiln_sample_keep_shares(const struct kiln_sample *sample,
                                                         struct kiln_settings *settings,
                                                         struct kiln_err *err);

#endif
