/* SPDX-License-Identifier: MIT
 *
 * complete.h: from the settings that were given to all settings of a run.
 */
#ifndef KILN_TRAIN_COMPLETE_H
#define KILN_TRAIN_COMPLETE_H

#include "kiln/settings.h"
#include "kiln/text.h"
#include "train/model_source.h"

struct kiln_completed {
    struct kiln_model_source source;
    struct kiln_dims dims;
    struct kiln_lora lora;            /* rank 0: the whole model is trained */
    struct kiln_tokenizer *tokenizer; /* the caller destroys it; NULL when tokens come without */
    bool found;                       /* it lay beside the token file */
};

/* Fill in what is unset, from the model, its data and tokenizer, and the machine. Reads files,
 * writes none. On failure the tokenizer may have been made. `learned`: a tokenizer that was made
 * for this run, which is taken over; NULL: the one of the settings. */
KILN_MUST_CHECK enum kiln_status kiln_settings_complete(struct kiln_settings *settings,
                                                        struct kiln_tokenizer *learned,
                                                        struct kiln_completed *out,
                                                        struct kiln_err *err);

/* Do the adapters of --adapter, where it is given, fit those that are asked for? */
KILN_MUST_CHECK enum kiln_status kiln_settings_adapter(const struct kiln_settings *settings,
                                                       const struct kiln_lora *lora,
                                                       struct kiln_err *err);

/* Sizes named by flags change a preset; a file has the sizes it has, but for its sequence. */
KILN_MUST_CHECK enum kiln_status kiln_settings_sizes(const struct kiln_settings *settings,
                                                     bool file, struct kiln_dims *dims,
                                                     struct kiln_err *err);

/* Threads where nobody says how many: all processors, or this rank's of them, as far as threads
 * have journal slots (state/state.h). NULL: alone. */
size_t kiln_default_threads(const struct kiln_ranks *ranks);
/* Do gradients travel between ranks as bf16 (--reduce-precision)? */
bool kiln_settings_narrow(const struct kiln_settings *settings);
/* Do the settings of several ranks fit each other? KILN_EUSAGE says which do not. */
KILN_MUST_CHECK enum kiln_status kiln_settings_ranks(const struct kiln_settings *settings,
                                                     struct kiln_err *err);

#endif
