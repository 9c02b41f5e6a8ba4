/* SPDX-License-Identifier: MIT
 *
 * manual.c: kiln manual: man pages, from the tables that --help is printed from.
 *
 * A page is text of man(7). A command's `details` say what the page needs beside its flags: lines
 * that are indented are examples, a paragraph that begins with "Exit" is about exit codes, all
 * else is description.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "names.h"
#include "output.h"

#ifndef KILN_DATE /* of the version, not of the build, so that builds are the same: the Makefile \
                   */
#define KILN_DATE ""
#endif

/* ---- man(7) --------------------------------------------------------------------------------- */

/* Text as it is: no request, no escape, no mark that a terminal would curl. */
static void print_text(FILE *to, const char *text, size_t length) {
    if (length > 0 && (text[0] == '.' || text[0] == '\'')) {
        fputs("\\&", to);
    }
    for (size_t i = 0; i < length; i++) {
        const char *as = text[i] == '\\'   ? "\\e"
                         : text[i] == '-'  ? "\\-"
                         : text[i] == '\'' ? "\\(aq"
                         : text[i] == '`'  ? "\\(ga"
                         : text[i] == '^'  ? "\\(ha"
                         : text[i] == '~'  ? "\\(ti"
                                           : NULL;
        if (as != NULL) {
            fputs(as, to);
        } else {
            fputc(text[i], to);
        }
    }
}

static void print_all(FILE *to, const char *text) { print_text(to, text, strlen(text)); }

/* A term in bold and what it means. */
static void print_term(FILE *to, const char *term, const char *meaning) {
    fputs(".TP\n\\fB", to);
    print_all(to, term);
    fputs("\\fR\n", to);
    print_all(to, meaning);
    fputc('\n', to);
}

static void print_head(FILE *to, const char *page, const char *summary) {
    fputs(".TH ", to);
    for (const char *c = page; *c != '\0'; c++) {
        fputc(toupper((unsigned char)*c), to);
    }
    fputs(" 1 " KILN_DATE " \"kiln " KILN_VERSION "\" \"kiln\"\n.SH NAME\n", to);
    print_all(to, page);
    fputs(" \\- ", to);
    print_all(to, summary);
    fputs("\n.SH SYNOPSIS\n", to);
}

/* ---- details ---------------------------------------------------------------------------------
 */

enum kind { DESCRIPTION, EXAMPLE, EXIT_CODES };

/* What the paragraph is that begins here; a paragraph of examples is indented. */
static enum kind kind_of(const char *paragraph) {
    return paragraph[0] == ' '                  ? EXAMPLE
           : strncmp(paragraph, "Exit", 4) == 0 ? EXIT_CODES
                                                : DESCRIPTION;
}

/* Its end: an empty line, a change of indentation, or the end of all. */
static const char *end_of(const char *paragraph) {
    const bool indented = paragraph[0] == ' ';
    const char *at = paragraph;
    while (*at != '\0' && *at != '\n' && (*at == ' ') == indented) {
        at += strcspn(at, "\n");
        at += *at == '\n';
    }
    return at;
}

static void print_lines(FILE *to, const char *from, const char *end) {
    while (from < end) {
        const size_t length = strcspn(from, "\n");
        print_text(to, from, length);
        fputc('\n', to);
        from += length + 1;
    }
}

/* The paragraphs of one kind, under a heading that may stand already. Returns how many. */
static size_t print_details(FILE *to, const char *details, enum kind kind, const char *heading) {
    size_t n = 0;
    while (*details != '\0') {
        const char *end = end_of(details);
        if (kind_of(details) == kind) {
            fputs(n > 0 ? ".PP\n" : heading, to);
            fputs(kind == EXAMPLE ? ".nf\n" : "", to);
            print_lines(to, details + (strncmp(details, "Exit: ", 6) == 0 ? 6 : 0), end);
            fputs(kind == EXAMPLE ? ".fi\n" : "", to);
            n++;
        }
        details = end + strspn(end, "\n");
    }
    return n;
}

/* ---- what all pages share ------------------------------------------------------------------- */

static void print_exit_codes(FILE *to, const char *details) {
    fputs(".SH EXIT STATUS\n", to);
    print_details(to, details, EXIT_CODES, "");
    print_term(to, "0", "done");
    print_term(to, "1", "failed: a file or the machine; stderr says what, where, how to mend it");
    print_term(to, "2", "wrong usage: what the flags alone show");
    print_term(to, "130", "interrupted, and saved where there was something to save");
}

static void print_files(FILE *to) {
    static const char *const files[][2] = {
        {"run.json", "every setting, the sizes and the plan"},
        {"state.kiln", "weights, moments and where training stands; what a resume reads"},
        {"metrics.jsonl", "a line for each step: losses, rates, times"},
        {"samples.jsonl", "a line for each text written on the way"},
        {"trace.json", "the first steps, action by action, for trace viewers"},
        {"report.html", "curves and figures of the run, for a browser"},
        {"events.out.tfevents.*", "with --tensorboard: the same for TensorBoard"},
        {"incidents/step-N/", "what was going on when a loss or gradient was far off"},
        {"checkpoints/step-N/", "a model.bin and what a resume needs, written durably"},
        {"model.bin", "the model at the end, in llama2.c's format"},
        {"tokenizer.json, tokenizer.bin", "its vocabulary"},
        {"data.tok, val.tok", "the tokens that it reads"},
    };
    fputs(".SH FILES\nIn the folder of a run:\n", to);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        print_term(to, files[i][0], files[i][1]);
    }
}

static void print_environment(FILE *to) {
    static const char *const variables[][2] = {
        {"KILN_CPU",
         "instruction tier to stop at: ref, avx2, avx512, ...; kiln doctor says which "
         "there are"},
        {"KILN_GEMM", "onednn: products in bf16 by oneDNN, to compare; own is the default"},
        {"KILN_GPU", "part of the name of the OpenCL device that --dw gpu takes"},
        {"KILN_OPENCL, KILN_CLBLAST", "files of these libraries, instead of the system's"},
        {"NO_COLOR", "when it is set to anything, nothing is coloured"},
        {"TMPDIR", "where temporary folders are made when a run's own folder cannot be written"},
    };
    fputs(".SH ENVIRONMENT\n", to);
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        print_term(to, variables[i][0], variables[i][1]);
    }
}

/* "kiln-mil-check" of "mil check"; static storage. */
static const char *page_name(const char *command) {
    static char name[80];
    snprintf(name, sizeof name, "kiln-%s", command);
    for (char *c = name; *c != '\0'; c++) {
        *c = *c == ' ' ? '-' : *c;
    }
    return name;
}

static void print_reference(FILE *to, const char *page, bool first) {
    fputs(first ? ".BR " : ",\n.BR ", to);
    print_all(to, page);
    fputs(" (1)", to);
}

/* Every page but this one. */
static void print_see_also(FILE *to, const struct command *but) {
    bool first = true;
    fputs(".SH SEE ALSO\n", to);
    if (but != NULL) {
        print_reference(to, "kiln", true);
        first = false;
    }
    for (size_t i = 0; commands[i] != NULL; i++) {
        if (commands[i] != but) {
            print_reference(to, page_name(commands[i]->name), first);
            first = false;
        }
    }
    for (size_t p = 0; but != NULL && but->parts != NULL && but->parts[p] != NULL; p++) {
        print_reference(to, page_name(but->parts[p]->name), false);
    }
    fputc('\n', to);
}

/* ---- pages ---------------------------------------------------------------------------------- */

static void print_flag(FILE *to, const struct flag *flag) {
    fputs(".TP\n", to);
    if (flag->letter != 0) {
        fprintf(to, "\\fB\\-%c\\fR, ", flag->letter);
    }
    fputs("\\fB\\-\\-", to);
    print_all(to, flag->name);
    fputs("\\fR", to);
    if (flag->argument != NULL) {
        fputs(" \\fI", to);
        print_all(to, flag->argument);
        fputs("\\fR", to);
    }
    fputc('\n', to);
    print_all(to, flag->help);
    if (flag_shows_initial(flag)) {
        fputs(" (", to);
        print_all(to, flag->initial);
        fputc(')', to);
    }
    fputc('\n', to);
}

static void print_options(FILE *to, const struct command *command) {
    const size_t n = count_flags(command);
    fputs(".SH OPTIONS\nIn brackets: the default.\n", to);
    for (int group = 0; group < N_GROUPS; group++) {
        bool headed = false;
        for (size_t i = 0; i < n; i++) {
            const struct flag flag = flag_at(command, i);
            if ((int)flag.group != group || flag.help == NULL) {
                continue;
            }
            if (!headed) {
                fprintf(to, ".SS %s\n", group_heading(flag.group));
                headed = true;
            }
            print_flag(to, &flag);
        }
    }
    fputs(".SS Help\n.TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nlist what it takes\n", to);
}

static void print_list(FILE *to, const struct command *const *list) {
    for (size_t i = 0; list[i] != NULL; i++) {
        fputs(".TP\n\\fBkiln ", to);
        print_all(to, list[i]->name);
        fputs("\\fR ", to);
        print_all(to, list[i]->synopsis);
        fputc('\n', to);
        print_all(to, list[i]->summary);
        fputc('\n', to);
    }
}

static void print_command(FILE *to, const struct command *command) {
    const char *details = command->details != NULL ? command->details : "";
    const char *summary = command->summary;
    print_head(to, page_name(command->name), summary);
    fputs("\\fBkiln ", to);
    print_all(to, command->name);
    fputs("\\fR ", to);
    print_all(to, command->synopsis);
    fprintf(to, "\n.SH DESCRIPTION\n%c", toupper((unsigned char)summary[0]));
    print_all(to, summary + 1);
    fputs(summary[strlen(summary) - 1] == '?' ? "\n" : ".\n", to);
    print_details(to, details, DESCRIPTION, ".PP\n");
    if (command->parts != NULL) {
        fputs(".SH COMMANDS\n", to);
        print_list(to, command->parts);
    } else {
        print_options(to, command);
    }
    print_details(to, details, EXAMPLE, ".SH EXAMPLES\n");
    print_exit_codes(to, details);
    if (strchr(command->name, ' ') == NULL && command->parts == NULL) {
        print_files(to); /* programs of an NPU are no runs */
    }
    print_environment(to);
    print_see_also(to, command);
}

static void print_program(FILE *to) {
    print_head(to, "kiln", "train Llama-family language models on this machine");
    fputs(
        "\\fBkiln\\fR \\fICOMMAND\\fR [options]\n.SH DESCRIPTION\n"
        "Makes a language model from texts, or goes on with one of somebody else: one program,\n"
        "no account, no network. It can lose its process at any instruction, and goes on as if\n"
        "nothing had been. The first thing to type is \\fBkiln demo\\fR.\n"
        ".SH COMMANDS\n",
        to);
    print_list(to, commands);
    fputs(".SH OPTIONS\n", to);
    print_term(to, "--help", "list the commands; behind a command, what that takes");
    print_term(to, "--version", "say which this is");
    print_details(to,
                  "  kiln demo\n"
                  "  kiln train --data book.txt --minutes 30\n"
                  "  kiln generate runs/stories15m-book -p \"Once upon a time\"\n",
                  EXAMPLE, ".SH EXAMPLES\n");
    print_exit_codes(to, "");
    print_files(to);
    print_environment(to);
    print_see_also(to, NULL);
}

/* ---- the command ---------------------------------------------------------------------------- */

struct flags {
    const char *out;
};

static const struct option options[] = {
    {"out", 0, OPTION_TEXT, "DIR", NULL, "write all pages into this folder, which is made",
     GROUP_OUTPUT, 0, 0, offsetof(struct flags, out)},
    OPTION_END,
};

/* NULL: of the program. */
static enum kiln_status write_page(const char *folder, const struct command *command,
                                   struct kiln_err *err) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.1", folder,
             command != NULL ? page_name(command->name) : "kiln");
    FILE *file = fopen(path, "we");
    KILN_REQUIRE(file != NULL, err, KILN_EIO, "manual: %s: %s", path, strerror(errno));
    if (command != NULL) {
        print_command(file, command);
    } else {
        print_program(file);
    }
    const bool failed = ferror(file) != 0;
    KILN_REQUIRE((fclose(file) == 0) & !failed, err, KILN_EIO, "manual: %s: %s", path,
                 strerror(errno));
    return KILN_OK;
}

static enum kiln_status write_all(const char *folder, struct kiln_err *err) {
    KILN_REQUIRE(mkdir(folder, 0777) == 0 || errno == EEXIST, err, KILN_EIO, "manual: %s: %s",
                 folder, strerror(errno));
    KILN_TRY(write_page(folder, NULL, err));
    for (size_t i = 0; commands[i] != NULL; i++) {
        KILN_TRY(write_page(folder, commands[i], err));
        const struct command *const *parts = commands[i]->parts;
        for (size_t p = 0; parts != NULL && parts[p] != NULL; p++) {
            KILN_TRY(write_page(folder, parts[p], err));
        }
    }
    return KILN_OK;
}

/* "train", or "mil check" of two words. */
static void typed(const struct call *call, char name[80]) {
    const bool two = call->n_arguments > 1;
    snprintf(name, 80, "%s%s%s", call->arguments[0], two ? " " : "", two ? call->arguments[1] : "");
}

static enum kiln_status unknown(const char *name, struct kiln_err *err) {
    const char *nearest = NULL;
    size_t best = SIZE_MAX;
    for (size_t i = 0; commands[i] != NULL; i++) {
        const struct command *const *parts = commands[i]->parts;
        nearest = name_is_nearer(name, commands[i]->name, &best) ? commands[i]->name : nearest;
        for (size_t p = 0; parts != NULL && parts[p] != NULL; p++) {
            nearest = name_is_nearer(name, parts[p]->name, &best) ? parts[p]->name : nearest;
        }
    }
    KILN_REQUIRE(nearest == NULL, err, KILN_EUSAGE,
                 "manual: %s is not a command; did you mean kiln manual %s?", name, nearest);
    return KILN_FAIL(err, KILN_EUSAGE, "manual: %s is not a command; kiln --help lists them", name);
}

/* NULL when there is none of that name. */
static const struct command *named(const char *name) {
    for (size_t i = 0; commands[i] != NULL; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
        const struct command *const *parts = commands[i]->parts;
        for (size_t p = 0; parts != NULL && parts[p] != NULL; p++) {
            if (strcmp(parts[p]->name, name) == 0) {
                return parts[p];
            }
        }
    }
    return NULL;
}

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const struct flags *flags = call->flags;
    if (flags->out != NULL) {
        KILN_REQUIRE(call->n_arguments == 0, err, KILN_EUSAGE,
                     "manual: --out writes all pages; leave %s out", call->arguments[0]);
        return write_all(flags->out, err);
    }
    if (call->n_arguments == 0) {
        print_program(stdout);
        return output_finish(err);
    }
    char name[80];
    typed(call, name);
    const struct command *command = named(name);
    if (command == NULL) {
        return unknown(name, err);
    }
    print_command(stdout, command);
    return output_finish(err);
}

static const struct offer offers[] = {{"", "%commands"}, {NULL, NULL}};

const struct command command_manual = {
    .name = "manual",
    .synopsis = "[COMMAND [PART]] | --out DIR",
    .summary = "print a man page, or write them all",
    .details =
        "make install puts them where man looks for them. A page is text of man(7):\n\n"
        "  kiln manual train | man -l -\n"
        "  kiln manual --out man1        # kiln.1, kiln-train.1, ...\n",
    .most_arguments = 2,
    .missing = "",
    .flags_size = sizeof(struct flags),
    .options = options,
    .offers = offers,
    .run = run,
};
