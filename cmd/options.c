/* SPDX-License-Identifier: MIT
 *
 * options.c: reads flags by the command's table and prints them as help.
 *
 * A command's flags are its own options followed by the settings it takes; `flag_at` shows both
 * in one form, so that parsing and help need not know the difference.
 */
#include "options.h"

#include <ctype.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "names.h"

/* ---- one form for both kinds of flags ------------------------------------------------------- */

/* Where a setting stands in the help. A setting that is new and not listed is still shown. */
static enum option_group setting_group(enum kiln_setting_id id) {
    if (id <= KILN_SETTING_rope_theta) {
        return GROUP_MODEL;
    }
    if (id >= KILN_SETTING_data && id <= KILN_SETTING_doc_mask) {
        return GROUP_DATA;
    }
    if (id >= KILN_SETTING_budget && id <= KILN_SETTING_restart) {
        return GROUP_PLANNING;
    }
    if (id >= KILN_SETTING_precision && id <= KILN_SETTING_threads) {
        return GROUP_MACHINE;
    }
    if (id == KILN_SETTING_out || id == KILN_SETTING_state ||
        (id >= KILN_SETTING_eval_every && id < KILN_SETTING_precision)) {
        return GROUP_RUN;
    }
    return GROUP_TRAINING;
}

static const char *setting_argument(const struct kiln_setting *setting) {
    switch (setting->type) {
        case KILN_TYPE_TEXT:
            return setting->choices != NULL ? "NAME" : "TEXT";
        case KILN_TYPE_COUNT:
            return "N";
        case KILN_TYPE_REAL:
            return "X";
        case KILN_TYPE_SIZE:
            return "SIZE";
        case KILN_TYPE_FLAG:
            return NULL;
    }
    return NULL;
}

static size_t count_options(const struct command *command) {
    size_t n = 0;
    while (command->options[n].name != NULL) {
        n++;
    }
    return n;
}

size_t count_flags(const struct command *command) {
    return count_options(command) + command->n_settings;
}

struct flag flag_at(const struct command *command, size_t at) {
    const size_t own = count_options(command);
    if (at < own) {
        const struct option *o = &command->options[at];
        return (struct flag){.name = o->name,
                             .letter = o->letter,
                             .argument = o->argument,
                             .initial = o->initial,
                             .help = o->help,
                             .group = o->group,
                             .option = o};
    }
    const enum kiln_setting_id id = command->settings[at - own];
    const struct kiln_setting *s = kiln_setting(id);
    return (struct flag){.name = s->flag,
                         .argument = setting_argument(s),
                         .initial = s->initial,
                         .help = s->help,
                         .group = setting_group(id),
                         .setting = id};
}

/* The flag of that name (or letter, when the name has one); false when there is none. */
static bool find_flag(const struct command *command, const char *name, size_t length, bool letter,
                      struct flag *out) {
    const size_t n = count_flags(command);
    for (size_t i = 0; i < n; i++) {
        *out = flag_at(command, i);
        if (letter ? out->letter != 0 && length == 1 && name[0] == out->letter
                   : strlen(out->name) == length && memcmp(out->name, name, length) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- parsing -------------------------------------------------------------------------------- */

struct parser {
    struct call *call;
    int argc, at;
    char **argv;
    struct kiln_err *err;
};

static enum kiln_status append_text(const struct parser *parser, struct option_texts *texts,
                                    const char *shown, const char *text) {
    KILN_REQUIRE(texts->n < MAX_TEXTS, parser->err, KILN_EUSAGE, "%s: at most %d of them", shown,
                 MAX_TEXTS);
    texts->text[texts->n++] = text;
    return KILN_OK;
}

static enum kiln_status set_option(struct parser *parser, const struct option *option,
                                   const char *shown, const char *text) {
    void *member = (char *)parser->call->flags + option->offset;
    switch (option->type) {
        case OPTION_TEXT:
            *(const char **)member = text;
            return KILN_OK;
        case OPTION_COUNT:
            return kiln_parse_count(shown, text, (uint64_t)option->least, (uint64_t)option->most,
                                    member, parser->err);
        case OPTION_REAL:
            return kiln_parse_real(shown, text, option->least, option->most, member, parser->err);
        case OPTION_SWITCH:
            *(bool *)member = true;
            return KILN_OK;
        case OPTION_TEXTS:
            return append_text(parser, member, shown, text);
    }
    return KILN_FAIL(parser->err, KILN_EINTERNAL, "%s has an unknown type", shown);
}

static enum kiln_status set_initial(struct parser *parser) {
    for (const struct option *o = parser->call->command->options; o->name != NULL; o++) {
        void *member = (char *)parser->call->flags + o->offset;
        if (o->initial != NULL) {
            KILN_TRY(set_option(parser, o, o->name, o->initial));
        } else if (o->type == OPTION_COUNT) {
            *(uint64_t *)member = KILN_UNSET;
        } else if (o->type == OPTION_REAL) {
            *(double *)member = (double)NAN;
        }
    }
    return KILN_OK;
}

/* The commands that have a flag of that name: "kiln report, kiln bench"; false: none has. */
static bool find_elsewhere(const char *name, char *out, size_t size) {
    size_t used = 0;
    out[0] = '\0';
    for (size_t c = 0; commands[c] != NULL; c++) {
        const size_t n = commands[c]->parts == NULL ? count_flags(commands[c]) : 0;
        for (size_t i = 0; i < n && used < size; i++) {
            const struct flag flag = flag_at(commands[c], i);
            if (flag.help != NULL && strcmp(flag.name, name) == 0) {
                used += (size_t)snprintf(out + used, size - used, "%skiln %s", used > 0 ? ", " : "",
                                         commands[c]->name);
            }
        }
    }
    return used > 0;
}

static enum kiln_status unknown_flag(const struct parser *parser, const char *argument,
                                     const char *name, size_t length) {
    const struct command *command = parser->call->command;
    char typed[64], others[160];
    const char *nearest = NULL;
    size_t best = SIZE_MAX;
    snprintf(typed, sizeof typed, "%.*s", (int)(length < sizeof typed ? length : 63), name);
    const size_t n = count_flags(command);
    KILN_REQUIRE(!find_elsewhere(typed, others, sizeof others), parser->err, KILN_EUSAGE,
                 "%s: %s is not a flag of it, but of %s; kiln %s --help lists its own",
                 command->name, argument, others, command->name);
    for (size_t i = 0; i < n; i++) {
        const struct flag flag = flag_at(command, i);
        nearest = name_is_nearer(typed, flag.name, &best) ? flag.name : nearest;
    }
    if (nearest != NULL) {
        return KILN_FAIL(parser->err, KILN_EUSAGE,
                         "%s: %s is not a flag of it; did you mean --%s? (kiln %s --help)",
                         command->name, argument, nearest, command->name);
    }
    return KILN_FAIL(parser->err, KILN_EUSAGE,
                     "%s: %s is not a flag of it; kiln %s --help lists them all", command->name,
                     argument, command->name);
}

/* The value of a flag: behind its '=', or the next word. A next word that is itself a flag was
 * hardly meant as a value: "--data --steps 5" lacks a file. */
static enum kiln_status take_value(struct parser *parser, const struct flag *flag,
                                   const char *shown, const char *equals, const char **value) {
    if (equals != NULL) {
        *value = equals + 1;
        return KILN_OK;
    }
    const char *next = parser->at < parser->argc ? parser->argv[parser->at] : NULL;
    const bool is_flag = next != NULL && next[0] == '-' && next[1] == '-';
    KILN_REQUIRE(next != NULL && !is_flag, parser->err, KILN_EUSAGE,
                 "%s: %s needs a value: %s %s (%s)%s", parser->call->command->name, shown, shown,
                 flag->argument, flag->help,
                 is_flag ? "; one that begins with dashes is written behind a '='" : "");
    *value = next;
    parser->at++;
    return KILN_OK;
}

static enum kiln_status parse_flag(struct parser *parser, const char *argument) {
    const bool letter = argument[1] != '-';
    const char *name = argument + (letter ? 1 : 2);
    const char *equals = letter ? NULL : strchr(name, '=');
    const size_t length = equals != NULL ? (size_t)(equals - name) : strlen(name);
    struct flag flag;
    char shown[80];
    if (!find_flag(parser->call->command, name, length, letter, &flag)) {
        return unknown_flag(parser, argument, name, length);
    }
    const char *value = "1";
    snprintf(shown, sizeof shown, letter ? "-%.*s" : "--%.*s", (int)length, name);
    if (flag.argument != NULL) {
        KILN_TRY(take_value(parser, &flag, shown, equals, &value));
    } else if (equals != NULL && flag.option != NULL) {
        return KILN_FAIL(parser->err, KILN_EUSAGE, "%s: %s takes no value",
                         parser->call->command->name, shown);
    } else if (equals != NULL) {
        value = equals + 1;
    }
    if (flag.option != NULL) {
        return set_option(parser, flag.option, shown, value);
    }
    return kiln_settings_set(&parser->call->settings, flag.setting, value, KILN_FROM_FLAG,
                             parser->err);
}

static enum kiln_status parse_argument(struct parser *parser, const char *argument) {
    struct call *call = parser->call;
    KILN_REQUIRE(call->n_arguments < call->command->most_arguments, parser->err, KILN_EUSAGE,
                 "%s: what is \"%s\"? Use: kiln %s %s", call->command->name, argument,
                 call->command->name, call->command->synopsis);
    call->arguments[call->n_arguments++] = argument;
    return KILN_OK;
}

static enum kiln_status parse_all(struct parser *parser) {
    struct call *call = parser->call;
    bool only_arguments = false;
    KILN_TRY(set_initial(parser));
    while (parser->at < parser->argc) {
        const char *argument = parser->argv[parser->at++];
        if (!only_arguments && strcmp(argument, "--") == 0) {
            only_arguments = true;
        } else if (!only_arguments &&
                   (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0)) {
            call->help = true;
            return KILN_OK;
        } else if (!only_arguments && argument[0] == '-' && argument[1] != '\0') {
            KILN_TRY(parse_flag(parser, argument));
        } else {
            KILN_TRY(parse_argument(parser, argument));
        }
    }
    KILN_REQUIRE(call->n_arguments >= call->command->least_arguments, parser->err, KILN_EUSAGE,
                 "%s: %s", call->command->name, call->command->missing);
    return KILN_OK;
}

enum kiln_status call_init(struct call *call, const struct command *command, int argc, char **argv,
                           struct kiln_err *err) {
    memset(call, 0, sizeof *call);
    call->command = command;
    call->flags = calloc(1, command->flags_size > 0 ? command->flags_size : 1);
    KILN_REQUIRE(call->flags != NULL, err, KILN_ENOMEM, "%s: out of memory", command->name);
    enum kiln_status status = kiln_settings_init(&call->settings, err);
    if (status != KILN_OK) {
        free(call->flags);
        return status;
    }
    struct parser parser = {.call = call, .argc = argc, .argv = argv, .err = err};
    status = parse_all(&parser);
    if (status != KILN_OK) {
        call_fini(call);
    }
    return status;
}

void call_fini(struct call *call) {
    kiln_settings_free(&call->settings);
    free(call->flags);
    call->flags = NULL;
}

/* ---- help ----------------------------------------------------------------------------------- */

#define HELP_COLUMN 28

/* A derived default stands in the help's own brackets, and a switch is off. */
bool flag_shows_initial(const struct flag *flag) {
    return flag->argument != NULL && flag->initial != NULL && flag->initial[0] != '\0' &&
           strcmp(flag->initial, flag->help) != 0;
}

static void print_flag(FILE *to, const struct flag *flag) {
    char left[80];
    const char *argument = flag->argument != NULL ? flag->argument : "";
    const char *blank = flag->argument != NULL ? " " : "";
    if (flag->letter != 0) {
        snprintf(left, sizeof left, "  -%c, --%s%s%s", flag->letter, flag->name, blank, argument);
    } else {
        snprintf(left, sizeof left, "      --%s%s%s", flag->name, blank, argument);
    }
    fprintf(to, "%-*s %s", HELP_COLUMN, left, flag->help);
    if (flag_shows_initial(flag)) {
        fprintf(to, " (%s)", flag->initial);
    }
    fputc('\n', to);
}

static const char *const headings[N_GROUPS] = {
    [GROUP_DEMO] = "Demo",         [GROUP_TEXT] = "Text",
    [GROUP_DATA] = "Data",         [GROUP_VOCABULARY] = "Vocabulary",
    [GROUP_MODEL] = "Model",       [GROUP_TRAINING] = "Training",
    [GROUP_PLANNING] = "Planning", [GROUP_MEASURING] = "Measuring",
    [GROUP_RUN] = "Run",           [GROUP_MACHINE] = "Machine",
    [GROUP_OUTPUT] = "Output",
};

const char *group_heading(enum option_group group) { return headings[group]; }

static void print_group(FILE *to, const struct command *command, enum option_group group) {
    const size_t n = count_flags(command);
    bool headed = false;
    for (size_t i = 0; i < n; i++) {
        const struct flag flag = flag_at(command, i);
        if (flag.group != group || flag.help == NULL) { /* without help: not for people */
            continue;
        }
        if (!headed) {
            fprintf(to, "\n%s\n", headings[group]);
            headed = true;
        }
        print_flag(to, &flag);
    }
}

static void print_parts(FILE *to, const struct command *command) {
    fputc('\n', to);
    for (size_t i = 0; command->parts[i] != NULL; i++) {
        fprintf(to, "  kiln %-12s %s\n", command->parts[i]->name, command->parts[i]->summary);
    }
    fprintf(to, "\nEach lists what it takes with --help.\n");
}

void help_print(FILE *to, const struct command *command) {
    const size_t length = strlen(command->summary);
    const char *stop = command->summary[length - 1] == '?' ? "" : ".";
    fprintf(to, "kiln %s %s\n\n%c%s%s\n", command->name, command->synopsis,
            toupper((unsigned char)command->summary[0]), command->summary + 1, stop);
    if (command->parts != NULL) {
        print_parts(to, command);
        return;
    }
    for (int group = 0; group < N_GROUPS; group++) {
        print_group(to, command, group);
    }
    if (command->details[0] != '\0') {
        fprintf(to, "\n%s", command->details);
    }
}
