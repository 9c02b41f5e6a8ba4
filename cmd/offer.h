/* SPDX-License-Identifier: MIT
 *
 * offer.h: what may be typed for a flag's value or an argument, from the tables of commands and
 * settings.
 */
#ifndef KILN_CMD_OFFER_H
#define KILN_CMD_OFFER_H

#include "options.h"

struct offered {
    char words[1000]; /* blanks between them; "": none */
    bool files;       /* a file or folder, too */
};
/* For a flag that takes a value. */
struct offered offered_for(const struct command *command, const struct flag *flag);
/* For what stands beside flags. A command that takes nothing there offers nothing. */
struct offered offered_arguments(const struct command *command);

#endif
