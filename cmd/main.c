/* SPDX-License-Identifier: MIT
 *
 * main.c: which command, and what its end means for the caller.
 *
 * Exit codes: 0 done; 1 failed, whatever depends on a file or the machine; 2 wrong usage, whatever
 * the flags alone show; 130 interrupted and saved. Everything a person must mend is said on
 * stderr as "kiln: what, where, how to mend it".
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "names.h"
#include "output.h"
#include "stop.h"

const struct command *const commands[] = {
    &command_demo,
    &command_train,
    &command_report,
    &command_dashboard,
    &command_plan,
    &command_generate,
    &command_eval,
    &command_tokenize,
    &command_convert,
    &command_inspect,
    &command_verify,
    &command_explain,
    &command_probe,
    &command_bench,
    &command_mil,
    &command_doctor,
    &command_completion,
    &command_manual,
    NULL,
};
#define N_COMMANDS (sizeof commands / sizeof commands[0] - 1)

static void print_help(FILE *to) {
    fprintf(to,
            "kiln COMMAND [options]\n\n"
            "Trains Llama-family language models on this machine.\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        fprintf(to, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    }
    fprintf(to,
            "\nkiln COMMAND --help lists what a command takes. kiln --version says which this is.\n"
            "The first thing to type: kiln demo\n");
}

static int exit_code(enum kiln_status status) {
    switch (status) {
        case KILN_OK:
            return 0;
        case KILN_EUSAGE:
            return 2;
        case KILN_EINTERRUPTED:
            return EXIT_STOPPED;
        default:
            return 1;
    }
}

static int fail(enum kiln_status status, const struct kiln_err *err) {
    output_error(status, err);
    return exit_code(status);
}

/* NULL: of the program. */
static int help_of(const struct command *command) {
    struct kiln_err err = {.code = KILN_OK};
    if (command != NULL) {
        help_print(stdout, command);
    } else {
        print_help(stdout);
    }
    const enum kiln_status status = output_finish(&err);
    return status == KILN_OK ? 0 : fail(status, &err);
}

static const struct command *find_command(const char *name) {
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
    }
    return NULL;
}

static enum kiln_status unknown_command(const char *name, struct kiln_err *err) {
    const char *nearest = NULL;
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        nearest = name_is_nearer(name, commands[i]->name, &best) ? commands[i]->name : nearest;
    }
    if (nearest != NULL) {
        return KILN_FAIL(err, KILN_EUSAGE, "%s is not a command; did you mean kiln %s?", name,
                         nearest);
    }
    return KILN_FAIL(err, KILN_EUSAGE, "%s is not a command; kiln --help lists them", name);
}

/* The part that argv[0] names, of a command that has parts. */
static enum kiln_status find_part(const struct command *command, const char *name,
                                  const struct command **out, struct kiln_err *err) {
    const size_t skip = strlen(command->name) + 1; /* "mil check" */
    char names[120] = "";
    size_t used = 0;
    for (size_t i = 0; command->parts[i] != NULL; i++) {
        const char *part = command->parts[i]->name + skip;
        if (name != NULL && strcmp(part, name) == 0) {
            *out = command->parts[i];
            return KILN_OK;
        }
        used +=
            (size_t)snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "", part);
    }
    return KILN_FAIL(err, KILN_EUSAGE, "%s: %s%s; use one of %s", command->name,
                     name != NULL ? name : "what to do is missing",
                     name != NULL ? " is unknown" : "", names);
}

static int run_command(const struct command *command, int argc, char **argv) {
    struct kiln_err err = {.code = KILN_OK};
    const bool parted = command->parts != NULL;
    if (parted && argc > 0 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
        return help_of(command);
    }
    if (parted) {
        const enum kiln_status found =
            find_part(command, argc > 0 ? argv[0] : NULL, &command, &err);
        if (found != KILN_OK) {
            return fail(found, &err);
        }
        argc--, argv++;
    }
    struct call call;
    enum kiln_status status = call_init(&call, command, argc, argv, &err);
    if (status != KILN_OK) {
        return fail(status, &err);
    }
    if (call.help) {
        help_print(stdout, command);
    } else {
        status = command->run(&call, &err);
    }
    call_fini(&call);
    if (status == KILN_OK) {
        status = output_finish(&err);
    }
    return status == KILN_OK ? 0 : fail(status, &err);
}

/* "kiln --help", "kiln help", "kiln help train", "kiln help mil check". */
static int help_command(int argc, char **argv) {
    struct kiln_err err = {.code = KILN_OK};
    const struct command *command = argc > 0 ? find_command(argv[0]) : NULL;
    if (argc > 0 && command == NULL) {
        return fail(unknown_command(argv[0], &err), &err);
    }
    if (argc > 1 && command->parts != NULL) {
        const enum kiln_status status = find_part(command, argv[1], &command, &err);
        if (status != KILN_OK) {
            return fail(status, &err);
        }
    }
    return help_of(command);
}

int main(int argc, char **argv) {
    struct kiln_err err = {.code = KILN_OK};
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        return help_command(argc - 2, argv + 2);
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("kiln " KILN_VERSION);
        const enum kiln_status status = output_finish(&err);
        return status == KILN_OK ? 0 : fail(status, &err);
    }
    const struct command *command = find_command(argv[1]);
    if (command == NULL) {
        return fail(unknown_command(argv[1], &err), &err);
    }
    return run_command(command, argc - 2, argv + 2);
}
