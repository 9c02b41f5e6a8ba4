/* SPDX-License-Identifier: MIT */
#include "offer.h"

#include <string.h>

#include "commands.h"
#include "kiln/model.h"

static void add_word(struct offered *to, const char *word, size_t length) {
    const size_t used = strlen(to->words);
    snprintf(to->words + used, sizeof to->words - used, "%s%.*s", used > 0 ? " " : "", (int)length,
             word);
}

static void add_list(struct offered *to, const char *const *list) {
    for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
        add_word(to, list[i], strlen(list[i]));
    }
}

static void add_presets(struct offered *to) {
    for (const struct kiln_preset *p = kiln_presets(); p->name != NULL; p++) {
        add_word(to, p->name, strlen(p->name));
    }
}

static void add_commands(struct offered *to) {
    for (size_t i = 0; commands[i] != NULL; i++) {
        add_word(to, commands[i]->name, strlen(commands[i]->name));
    }
}

/* Words of a command's own table; false where it says nothing. */
static bool add_own(struct offered *to, const struct command *command, const char *flag) {
    const struct offer *offer = command->offers;
    while (offer != NULL && offer->flag != NULL && strcmp(offer->flag, flag) != 0) {
        offer++;
    }
    if (offer == NULL || offer->flag == NULL) {
        return false;
    }
    for (const char *word = offer->words; *word != '\0';) {
        const size_t length = strcspn(word, " ");
        if (strncmp(word, "%models", length) == 0) {
            add_presets(to);
            to->files = true;
        } else if (strncmp(word, "%commands", length) == 0) {
            add_commands(to);
        } else if (strncmp(word, "%files", length) == 0) {
            to->files = true;
        } else {
            add_word(to, word, length);
        }
        word += length + strspn(word + length, " ");
    }
    return true;
}

/* Is it the name of a place on the disk, as help calls it? */
static bool names_file(const char *argument) {
    static const char *const names[] = {"FILE", "DIR",      "RUN",       "OUT",
                                        "T",    "TOK.json", "NAME=FILE", NULL};
    for (size_t i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], argument) == 0) {
            return true;
        }
    }
    return false;
}

struct offered offered_for(const struct command *command, const struct flag *flag) {
    struct offered out = {.words = ""};
    if (flag->argument == NULL || add_own(&out, command, flag->name)) {
        return out;
    }
    if (flag->option != NULL) {
        out.files = names_file(flag->argument);
        return out;
    }
    const struct kiln_setting *setting = kiln_setting(flag->setting);
    if (flag->setting == KILN_SETTING_model) {
        add_presets(&out);
    }
    add_list(&out, setting->choices);
    add_list(&out, setting->offers);
    out.files = setting->path;
    return out;
}

struct offered offered_arguments(const struct command *command) {
    struct offered out = {.words = ""};
    if (!add_own(&out, command, "")) {
        out.files = command->most_arguments > 0;
    }
    return out;
}
