#!/usr/bin/env bash
# Man pages and completion say what --help says: every flag of every command and part, and nothing
# more. The shells themselves are asked, those that are here.
. "$ROOT/tests/lib.sh"

# names HELP: the commands or parts that a help lists, one a line.
commands=$("$KILN" --help | sed -nE 's/^  ([a-z][a-z-]*) +[a-z].*/\1/p')
[ "$(grep -c . <<<"$commands")" -ge 14 ] || fail "kiln --help lists too little: $commands"
everything=() # "train", "mil check", ...
declare -A parts
for command in $commands; do
    "$KILN" "$command" --help >help
    parts[$command]=''
    ! grep -q '^Each lists what it takes' help ||
        parts[$command]=$(sed -nE "s/^  kiln $command ([a-z]+) +[a-z].*/\1/p" help)
    [ -n "${parts[$command]}" ] || everything+=("$command")
    for part in ${parts[$command]}; do
        everything+=("$command $part")
    done
done
# flags_of COMMAND: as --help lists them, sorted, --help too.
flags_of() {
    # shellcheck disable=SC2086
    { "$KILN" $1 --help | sed -nE 's/^ +(-[a-zA-Z], )?(--[a-z0-9-]+)( [^ ].*|  .*|)$/\2/p'; echo --help; } | sort
}

# ---- man pages ----------------------------------------------------------------------------------

expect 0 "$KILN" manual --out pages
[ -z "$(cat stdout stderr)" ] || fail 'manual --out speaks'
for command in $commands; do
    grep -qE "^.fBkiln $command.fR" pages/kiln.1 || fail "kiln.1 lacks $command"
    [ -s "pages/kiln-$command.1" ] || fail "no page for $command"
    for part in ${parts[$command]}; do
        grep -qE "^.fBkiln $command $part.fR" "pages/kiln-$command.1" ||
            fail "kiln-$command.1 lacks $part"
    done
done
for what in "${everything[@]}"; do
    page=pages/kiln-${what// /-}.1
    sed -n '/^.SH OPTIONS/,/^.SH [^O]/p' "$page" | sed 's/[\]//g' |
        sed -nE 's/^(fB-[a-zA-Z]fR, )?fB(--[a-z0-9-]+)fR.*/\2/p' | sort >found
    flags_of "$what" >wanted
    diff wanted found || fail "$page does not list the flags of $what --help"
    for heading in NAME SYNOPSIS DESCRIPTION OPTIONS 'EXIT STATUS' ENVIRONMENT 'SEE ALSO'; do
        grep -q "^.SH $heading" "$page" || fail "$page has no $heading"
    done
    # shellcheck disable=SC2086
    expect 0 "$KILN" manual $what
    diff stdout "$page" || fail "kiln manual $what prints another page"
done
[ "$(find pages -name '*.1' | wc -l)" = $((1 + $(grep -c . <<<"$commands") + \
    $(printf '%s\n' "${everything[@]}" | grep -c ' '))) ] || fail 'pages of no command'
sed 's/\\-/-/g' pages/kiln-train.1 | grep -F 'kiln train --data book.txt --minutes 30' >/dev/null ||
    fail 'an example is missing'
expect 0 "$KILN" manual
diff stdout pages/kiln.1
expect 2 "$KILN" manual no-such-command
says stderr 'not a command'
expect 2 "$KILN" manual mil nothing
says stderr 'manual: mil nothing is not a command'
expect 2 "$KILN" manual trian
says stderr 'did you mean kiln manual train?'
expect 2 "$KILN" manual train --out pages
expect 1 "$KILN" manual --out no/such/folder
if command -v mandoc >/dev/null; then
    mandoc -T lint -W warning pages/*.1 || fail 'mandoc complains'
else
    echo 'mandoc is absent: pages are not linted'
fi

# ---- completion -----------------------------------------------------------------------------------

for shell in bash zsh fish; do
    expect 0 "$KILN" completion $shell
    cp stdout completion.$shell
done
expect 2 "$KILN" completion tcsh
says stderr 'use bash, zsh or fish'
touch book.txt 'a b.txt'

# ask_SHELL LINE: what it offers where LINE ends, one a line.
ask_bash() {
    bash --norc -c '
        . ./completion.bash
        read -ra COMP_WORDS <<<"${1//=/ = }"
        [[ $1 != *" " ]] || COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _kiln 2>/dev/null
        printf "%s\n" "${COMPREPLY[@]}"' ask "$1" | sed 's/ *$//'
}
# shellcheck disable=SC2016 # fish's variable
ask_fish() { fish --no-config -c 'source completion.fish; complete -C "$argv[1]"' "$1" | cut -f 1; }
# Zsh completes in a terminal only: one of its own, which is asked line by line. What compadd is
# given is written down.
start_zsh() {
    cat >asked.zsh <<'EOF'
zmodload zsh/zpty
zpty ask zsh -f -i
zpty -w ask "PS1=; autoload -U compinit; compinit -D -u; source ./completion.zsh"
zpty -w ask "bindkey '^I' complete-word; unsetopt automenu beep"
zpty -w ask 'compadd() {
    if [[ " $* " == *" -[OAD] "* ]]; then builtin compadd "$@"; return; fi
    local -a hits; builtin compadd -A hits "$@"; print -rl -- $hits >>offered
    builtin compadd "$@" }'
zpty -w ask "finished() { BUFFER=; : >asked }; zle -N finished; bindkey '^T' finished"
while IFS= read -r line; do
    zpty -w -n ask "$line"$'\t\x14'
    for i in {1..600}; do
        while zpty -r -t ask rest; do :; done
        [[ -e asked ]] && break
        sleep 0.02
    done
    print answered
done
zpty -d ask
EOF
    coproc zsh -f asked.zsh 2>/dev/null
    exec 8<&"${COPROC[0]}" 9>&"${COPROC[1]}"
}
ask_zsh() {
    local answer
    rm -f offered asked
    printf '%s\n' "$1" >&9
    read -r -t 60 answer <&8 || fail "zsh does not answer to: $1"
    [ -e asked ] || fail "zsh does not complete: $1 ($answer)"
    [ ! -e offered ] || grep . offered | sort -u || true
}

# offers SHELL LINE WORD...: these, in any order, and nothing more.
offers() {
    local shell=$1 line=$2
    shift 2
    "ask_$shell" "$line" | sed 's/^--[a-z-]*=//' | grep . | sort -u >found || true
    printf '%s\n' "$@" | grep . | sort -u >wanted || true
    diff wanted found || fail "$shell: \"$line\" is completed otherwise"
}
# The same of flags, which some shells offer with their '='.
offers_flags() {
    "ask_$1" "kiln $2 --" | sed -E 's/=$//' | grep -- '^--' | sort -u >found || true
    flags_of "$2" >wanted
    diff wanted found || fail "$1: flags of $2 are completed otherwise"
}

for shell in bash zsh fish; do
    if ! command -v $shell >/dev/null; then
        echo "$shell is absent: its completion is not asked"
        continue
    fi
    [ $shell != zsh ] || start_zsh
    for what in "${everything[@]}"; do
        offers_flags $shell "$what"
    done
    "ask_$shell" 'kiln ' | grep -vE '^(help|--.*)$' | sort >found
    diff <(sort <<<"$commands") found || fail "$shell: commands are completed otherwise"
    for command in $commands; do
        [ -z "${parts[$command]}" ] ||
            diff <(tr ' ' '\n' <<<"${parts[$command]}" | sort) \
                <("ask_$shell" "kiln $command " | grep -v -- '^--help$' | sort) ||
            fail "$shell: parts of $command are completed otherwise"
    done
    offers $shell 'kiln tra' train
    offers $shell 'kiln train --device ' cpu sim ane
    offers $shell 'kiln train --device=s' sim
    offers $shell 'kiln train --dev' --device
    offers $shell 'kiln train --data bo' book.txt
    offers $shell 'kiln train --model stories1' stories15m stories110m
    offers $shell 'kiln generate stories1' stories15m stories110m
    offers $shell 'kiln mil emit --opset ' ios16 ios17 ios18
    offers $shell 'kiln completion ' bash zsh fish
    # shellcheck disable=SC2086
    offers $shell 'kiln manual ' $commands
    offers $shell 'kiln manual tra' train
    offers $shell 'kiln train --steps bo'
done
