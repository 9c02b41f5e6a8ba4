/* SPDX-License-Identifier: MIT
 *
 * completion.c: kiln completion: scripts by which shells complete what is typed.
 *
 * A script is written from the tables that --help is printed from, and is complete in itself: it
 * never starts kiln. What a shell knows of a line: its first word is a command; of a command with
 * parts the second is the part; the rest are flags, their values, and arguments.
 */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "offer.h"
#include "output.h"

/* Do with every command and every part that takes flags. */
static void each_command(void (*with)(const struct command *command)) {
    for (size_t i = 0; commands[i] != NULL; i++) {
        if (commands[i]->parts == NULL) {
            with(commands[i]);
        }
        for (size_t p = 0; commands[i]->parts != NULL && commands[i]->parts[p] != NULL; p++) {
            with(commands[i]->parts[p]);
        }
    }
}

/* "check" of "mil check" */
static const char *part_name(const struct command *command, const struct command *part) {
    return part->name + strlen(command->name) + 1;
}

/* "mil check" as a name of a function: "mil_check". */
static const char *function_name(const struct command *command) {
    static char name[80];
    snprintf(name, sizeof name, "%s", command->name);
    for (char *c = name; *c != '\0'; c++) {
        *c = *c == ' ' || *c == '-' ? '_' : *c;
    }
    return name;
}

static void print_names(void) {
    for (size_t i = 0; commands[i] != NULL; i++) {
        printf("%s ", commands[i]->name);
    }
}

/* Inside single quotes, of which `quote` stands for one. Those of `also` get a backslash. */
static void print_quoted(const char *text, const char *quote, const char *also) {
    for (; *text != '\0'; text++) {
        if (*text == '\'') {
            fputs(quote, stdout);
        } else {
            printf("%s%c", strchr(also, *text) != NULL ? "\\" : "", *text);
        }
    }
}

/* ---- bash ----------------------------------------------------------------------------------- */

static void bash_flags(const struct command *command) {
    printf("            '%s') _kiln_words '--help", command->name);
    for (size_t i = 0; i < count_flags(command); i++) {
        const struct flag flag = flag_at(command, i);
        if (flag.help != NULL) {
            printf(" --%s", flag.name);
        }
    }
    puts("' ;;");
}

static void bash_values(const struct command *command) {
    for (size_t i = 0; i < count_flags(command); i++) {
        const struct flag flag = flag_at(command, i);
        if (flag.help == NULL || flag.argument == NULL) {
            continue;
        }
        const struct offered offered = offered_for(command, &flag);
        printf("        '%s --%s'", command->name, flag.name);
        if (flag.letter != 0) {
            printf(" | '%s -%c'", command->name, flag.letter);
        }
        printf(") _kiln_words '%s' %s; return ;;\n", offered.words, offered.files ? "files" : "");
    }
}

static void bash_arguments(const struct command *command) {
    const struct offered offered = offered_arguments(command);
    printf("        '%s') _kiln_words '%s' %s ;;\n", command->name, offered.words,
           offered.files ? "files" : "");
}

static void bash_parts(void) {
    for (size_t i = 0; commands[i] != NULL; i++) {
        if (commands[i]->parts == NULL) {
            continue;
        }
        printf(
            "        %s)\n            if [ \"$COMP_CWORD\" = 2 ]; then\n"
            "                _kiln_words '",
            commands[i]->name);
        for (size_t p = 0; commands[i]->parts[p] != NULL; p++) {
            printf("%s ", part_name(commands[i], commands[i]->parts[p]));
        }
        puts(
            "--help'\n                return\n            fi\n"
            "            command+=\" ${COMP_WORDS[2]}\" ;;");
    }
}

static void print_bash(void) {
    puts("# bash completion of kiln " KILN_VERSION
         ", written by: kiln completion bash\n"
         "_kiln_words() {\n"
         "    local IFS=$' \\t\\n'\n"
         "    COMPREPLY=($(compgen -W \"$1\" -- \"$cur\"))\n"
         "    if [ \"${2-}\" = files ]; then\n"
         "        compopt -o filenames 2>/dev/null\n"
         "        IFS=$'\\n'\n"
         "        COMPREPLY+=($(compgen -f -- \"$cur\"))\n"
         "    fi\n"
         "}\n"
         "_kiln() {\n"
         "    local cur=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD-1]}\n"
         "    local command=${COMP_WORDS[1]}\n"
         "    COMPREPLY=()\n"
         "    if [ \"$cur\" = '=' ]; then\n"
         "        cur=''\n"
         "    elif [ \"$flag\" = '=' ]; then\n"
         "        flag=${COMP_WORDS[COMP_CWORD-2]}\n"
         "    fi\n"
         "    if [ \"$COMP_CWORD\" = 1 ]; then");
    printf("        _kiln_words '");
    print_names();
    puts("help --help --version'\n        return\n    fi\n    case $command in");
    printf("        help) _kiln_words '");
    print_names();
    puts("'; return ;;");
    bash_parts();
    puts("    esac\n    case \"$command $flag\" in");
    each_command(bash_values);
    puts("    esac\n    case $cur in\n    -*)\n        case $command in");
    each_command(bash_flags);
    puts("        esac\n        return ;;\n    esac\n    case $command in");
    each_command(bash_arguments);
    puts("    esac\n}\ncomplete -F _kiln kiln");
}

/* ---- zsh ------------------------------------------------------------------------------------ */

/* Quotes, and what ends a description in _arguments. */
static void zsh_text(const char *text) { print_quoted(text, "'\\''", "[]:\\"); }

/* ":name:action" of _arguments */
static void zsh_action(const struct offered *offered) {
    if (offered->words[0] == '\0') {
        fputs(offered->files ? "_files" : " ", stdout);
    } else if (offered->files) {
        printf("{_files; compadd -- %s}", offered->words);
    } else {
        printf("(%s)", offered->words);
    }
}

static void zsh_flag(const struct command *command, const struct flag *flag) {
    const bool repeats = flag->option != NULL && flag->option->type == OPTION_TEXTS;
    const char *value = flag->argument != NULL ? "=" : "";
    printf(" \\\n        ");
    if (flag->letter != 0) {
        printf("%s{-%c%s,--%s%s}'[", repeats ? "'*'" : "", flag->letter, value[0] ? "+" : "",
               flag->name, value);
    } else {
        printf("'%s--%s%s[", repeats ? "*" : "", flag->name, value);
    }
    zsh_text(flag->help);
    putchar(']');
    if (flag->argument != NULL) {
        const struct offered offered = offered_for(command, flag);
        putchar(':');
        zsh_text(flag->argument);
        putchar(':');
        zsh_action(&offered);
    }
    putchar('\'');
}

static void zsh_command(const struct command *command) {
    const struct offered arguments = offered_arguments(command);
    printf("_kiln_%s() {\n    _arguments '--help[list what it takes]'", function_name(command));
    for (size_t i = 0; i < count_flags(command); i++) {
        const struct flag flag = flag_at(command, i);
        if (flag.help != NULL) {
            zsh_flag(command, &flag);
        }
    }
    if (arguments.files || arguments.words[0] != '\0') {
        printf(" \\\n        '*:argument:");
        zsh_action(&arguments);
        putchar('\'');
    }
    puts("\n}");
}

static void zsh_summaries(const char *array, const struct command *const *list, size_t skip) {
    printf("    %s=(\n", array);
    for (size_t i = 0; list[i] != NULL; i++) {
        printf("        '%s:", list[i]->name + skip);
        print_quoted(list[i]->summary, "'\\''", "");
        puts("'");
    }
    puts("    )");
}

static void zsh_parts(void) {
    for (size_t i = 0; commands[i] != NULL; i++) {
        if (commands[i]->parts == NULL) {
            continue;
        }
        printf("_kiln_%s() {\n    local -a parts\n", function_name(commands[i]));
        zsh_summaries("parts", commands[i]->parts, strlen(commands[i]->name) + 1);
        printf(
            "    if ((CURRENT == 2)); then\n"
            "        _describe -t parts part parts\n"
            "    else\n"
            "        local part=$words[2]\n"
            "        shift words\n"
            "        ((CURRENT--))\n"
            "        (($+functions[_kiln_%s_$part])) && _kiln_%s_$part\n"
            "    fi\n}\n",
            function_name(commands[i]), function_name(commands[i]));
    }
}

static void print_zsh(void) {
    puts("#compdef kiln\n# zsh completion of kiln " KILN_VERSION
         ", written by: kiln completion zsh");
    each_command(zsh_command);
    zsh_parts();
    puts("_kiln() {\n    local -a names\n    local context state line");
    zsh_summaries("names", commands, 0);
    puts(
        "    if ((CURRENT == 2)); then\n"
        "        names+=('help:list what a command takes')\n"
        "        _describe -t commands command names -- '(--help --version)'\n"
        "    elif [[ $words[2] == help ]]; then\n"
        "        ((CURRENT == 3)) && _describe -t commands command names\n"
        "    elif (($+functions[_kiln_$words[2]])); then\n"
        "        local name=$words[2]\n"
        "        shift words\n"
        "        ((CURRENT--))\n"
        "        _kiln_$name\n"
        "    fi\n}\n"
        "if [[ $funcstack[1] == _kiln ]]; then\n"
        "    _kiln \"$@\"\n"
        "else\n"
        "    compdef _kiln kiln\n"
        "fi");
}

/* ---- fish ----------------------------------------------------------------------------------- */

static void fish_text(const char *text) { print_quoted(text, "\\'", "\\"); }

static void fish_flag(const struct command *command, const struct flag *flag) {
    printf("complete -c kiln -n '__kiln_at %s' -l %s", command->name, flag->name);
    if (flag->letter != 0) {
        printf(" -s %c", flag->letter);
    }
    if (flag->argument != NULL) {
        const struct offered offered = offered_for(command, flag);
        fputs(offered.files ? " -r -F" : " -x", stdout);
        if (offered.words[0] != '\0') {
            printf(" -a '%s'", offered.words);
        }
    }
    fputs(" -d '", stdout);
    fish_text(flag->help);
    puts("'");
}

static void fish_command(const struct command *command) {
    for (size_t i = 0; i < count_flags(command); i++) {
        const struct flag flag = flag_at(command, i);
        if (flag.help != NULL) {
            fish_flag(command, &flag);
        }
    }
    printf("complete -c kiln -n '__kiln_at %s' -l help -d 'list what it takes'\n", command->name);
    const struct offered arguments = offered_arguments(command);
    if (arguments.files) {
        printf("complete -c kiln -n '__kiln_at %s' -F\n", command->name);
    }
    if (arguments.words[0] != '\0') {
        printf("complete -c kiln -n '__kiln_at %s' -a '%s'\n", command->name, arguments.words);
    }
}

static void fish_name(const char *at, const char *name, const char *summary) {
    printf("complete -c kiln -n '__kiln_is %s' -a %s -d '", at, name);
    fish_text(summary);
    puts("'");
}

static void print_fish(void) {
    puts("# fish completion of kiln " KILN_VERSION
         ", written by: kiln completion fish\n"
         "function __kiln_at --description 'does the line begin with these words?'\n"
         "    set -l words (commandline -opc)\n"
         "    set -e words[1]\n"
         "    set -l n (count $argv)\n"
         "    test (count $words) -ge $n; and test \"$words[1..$n]\" = \"$argv\"\n"
         "end\n"
         "function __kiln_is --description 'are these all its words so far?'\n"
         "    set -l words (commandline -opc)\n"
         "    set -e words[1]\n"
         "    test (count $words) -eq (count $argv); or return 1\n"
         "    test (count $argv) -eq 0; or __kiln_at $argv\n"
         "end\n"
         "complete -c kiln -f\n"
         "complete -c kiln -n __kiln_is -l version -d 'say which this is'\n"
         "complete -c kiln -n __kiln_is -l help -d 'list the commands'");
    fish_name("", "help", "list what a command takes");
    for (size_t i = 0; commands[i] != NULL; i++) {
        fish_name("", commands[i]->name, commands[i]->summary);
        fish_name("help", commands[i]->name, commands[i]->summary);
        for (size_t p = 0; commands[i]->parts != NULL && commands[i]->parts[p] != NULL; p++) {
            fish_name(commands[i]->name, part_name(commands[i], commands[i]->parts[p]),
                      commands[i]->parts[p]->summary);
        }
    }
    each_command(fish_command);
}

/* ---- the command ---------------------------------------------------------------------------- */

static const struct option options[] = {OPTION_END};
static const struct offer offers[] = {{"", "bash zsh fish"}, {NULL, NULL}};

static enum kiln_status run(const struct call *call, struct kiln_err *err) {
    const char *shell = call->arguments[0];
    if (strcmp(shell, "bash") == 0) {
        print_bash();
    } else if (strcmp(shell, "zsh") == 0) {
        print_zsh();
    } else if (strcmp(shell, "fish") == 0) {
        print_fish();
    } else {
        return KILN_FAIL(err, KILN_EUSAGE, "completion: %s: unknown; use bash, zsh or fish", shell);
    }
    return output_finish(err);
}

const struct command command_completion = {
    .name = "completion",
    .synopsis = "bash|zsh|fish",
    .summary = "print the script by which a shell completes kiln's commands and flags",
    .details =
        "make install puts them where shells look for them. By hand:\n\n"
        "  source <(kiln completion bash)                     # in ~/.bashrc\n"
        "  kiln completion zsh >~/.zfunc/_kiln                # a folder of $fpath\n"
        "  kiln completion fish >~/.config/fish/completions/kiln.fish\n",
    .least_arguments = 1,
    .most_arguments = 1,
    .missing = "name a shell: bash, zsh or fish",
    .options = options,
    .offers = offers,
    .run = run,
};
