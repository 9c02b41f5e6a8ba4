/* SPDX-License-Identifier: MIT
 *
 * options.h: a command is a table: its flags, what it takes beside them, its help, its function.
 *
 * Settings of training are not listed by commands: they name the lines of kiln/settings.h that
 * they take, so that a flag, its bounds and its help exist once.
 */
#ifndef KILN_CMD_OPTIONS_H
#define KILN_CMD_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "kiln/settings.h"
#include "kiln/status.h"

enum option_type {
    OPTION_TEXT,   /* const char *, NULL when it was not given and has no default */
    OPTION_COUNT,  /* uint64_t */
    OPTION_REAL,   /* double */
    OPTION_SWITCH, /* bool; takes no value */
    OPTION_TEXTS,  /* struct option_texts: the flag may be repeated */
};

#define MAX_TEXTS 32
struct option_texts {
    size_t n;
    const char *text[MAX_TEXTS];
};

/* Headings of help, in their order. */
enum option_group {
    GROUP_DEMO,
    GROUP_TEXT,
    GROUP_DATA,
    GROUP_VOCABULARY,
    GROUP_MODEL,
    GROUP_TRAINING,
    GROUP_PLANNING,
    GROUP_MEASURING,
    GROUP_RUN,
    GROUP_MACHINE,
    GROUP_OUTPUT,
    N_GROUPS
};

/* A flag of one command; its value goes into the command's own struct. */
struct option {
    const char *name; /* "prompt" for --prompt */
    char letter;      /* 'p' for -p, 0 for none */
    enum option_type type;
    const char *argument; /* in help: "TEXT"; NULL for a switch */
    const char *initial;  /* default as typed; NULL: KILN_UNSET, NaN, NULL, false */
    const char *help;
    enum option_group group;
    double least, most;
    size_t offset;
};

#define MAX_ARGUMENTS 32

/* A command as it was called. */
struct call {
    const struct command *command;
    void *flags;                   /* the command's own struct */
    struct kiln_settings settings; /* those the command takes; the others have their defaults */
    const char *arguments[MAX_ARGUMENTS];
    size_t n_arguments;
    bool help; /* --help was there: nothing else was looked at after it */
};

/* What completion offers for a flag's value, or for arguments: words, blanks between them; of these
 * %models stands for the presets, %commands for kiln's own and %files for files, as is usual where
 * nothing is said. */
struct offer {
    const char *flag; /* "" for arguments */
    const char *words;
};

struct command {
    const char *name;
    const char *synopsis; /* after "kiln NAME": "M -p PROMPT [options]" */
    const char *summary;  /* one line, no full stop */
    const char *details;  /* below the flags: what to know, examples; "" for none */
    size_t least_arguments, most_arguments;
    const char *missing; /* what to say when there are too few: "name a model: ..." */
    size_t flags_size;
    const struct option *options;         /* until one without a name */
    const enum kiln_setting_id *settings; /* NULL: none */
    size_t n_settings;
    enum kiln_status (*run)(const struct call *call, struct kiln_err *err);
    /* Until NULL: commands behind this one's name ("mil check"); it takes nothing itself then. */
    const struct command *const *parts;
    const struct offer *offers; /* until one without a flag; NULL: none */
};

/* A flag of a command, whether it is its own or a setting: what help, the manual and completion
 * show. */
struct flag {
    const char *name;     /* without dashes */
    char letter;          /* 0: none */
    const char *argument; /* NULL: takes none */
    const char *initial;
    const char *help; /* NULL: not for people */
    enum option_group group;
    const struct option *option; /* NULL: it is a setting */
    enum kiln_setting_id setting;
};
size_t count_flags(const struct command *command);
struct flag flag_at(const struct command *command, size_t at);
/* Is its default worth showing behind its help? A derived one stands in the help itself. */
bool flag_shows_initial(const struct flag *flag);
/* "Training" */
const char *group_heading(enum option_group group);

/* The flag every command with figures has; `member` is a bool of its struct. */
#define OPTION_JSON(flags_struct)                                                                 \
    {                                                                                             \
        "json", 0, OPTION_SWITCH, NULL, NULL, "one JSON object instead of text", GROUP_OUTPUT, 0, \
            0, offsetof(flags_struct, json)                                                       \
    }
#define OPTION_END \
    { .name = NULL }

/* Parse what stands after the command's name. On success call_fini the call. KILN_EUSAGE says what
 * is wrong, what would do, and the nearest flag for one that is unknown. */
KILN_MUST_CHECK enum kiln_status call_init(struct call *call, const struct command *command,
                                           int argc, char **argv, struct kiln_err *err);
void call_fini(struct call *call);

/* The help of a command, flags grouped by purpose. */
void help_print(FILE *to, const struct command *command);

#endif
