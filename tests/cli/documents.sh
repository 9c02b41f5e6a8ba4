#!/usr/bin/env bash
# shellcheck disable=SC2016 # back quotes are markdown's
# What README.md, docs/ and examples/ name is there: links and their anchors, files, tests, flags,
# variables of the environment, targets of make.
. "$ROOT/tests/lib.sh"

here=$PWD
cd "$ROOT"
shopt -s nullglob
documents=(README.md docs/*.md examples/*.md)
code=(src include cmd tests bench scripts Makefile)
failures=0
wrong() { echo "FAILED: $*"; failures=$((failures + 1)); }

# ---- links --------------------------------------------------------------------------------------
# The anchors of a document, as GitHub makes them of its headings.
anchors() {
    awk '/^ *```/ { fenced = !fenced } !fenced && /^#+ / {
        sub(/^#+ +/, ""); $0 = tolower($0)
        gsub(/\]\([^)]*\)/, ""); gsub(/[^a-z0-9_ -]/, ""); gsub(/ /, "-"); print
    }' "$1"
}
for document in "${documents[@]}"; do
    anchors "$document" >"$here/anchors.$(basename "$document")"
done
links=0
for document in "${documents[@]}"; do
    while read -r link; do
        case $link in http*) continue ;; esac
        links=$((links + 1))
        file=$(dirname "$document")/${link%%#*}
        [ -n "${link%%#*}" ] || file=$document
        [ -e "$file" ] || { wrong "$document: a link to $link, which is not there"; continue; }
        [[ $link == *#* ]] || continue
        grep -qxF -- "${link#*#}" "$here/anchors.$(basename "$file")" ||
            wrong "$document: $file has no heading for #${link#*#}"
    done < <(sed 's/`[^`]*`/`/g' "$document" | grep -oE '\]\([^) ]+\)|(src|srcset|href)="[^"]+"' |
        sed -E 's/^\]\(//; s/\)$//; s/^[a-z]+="//; s/"$//')
done
[ $links -gt 20 ] || fail "only $links links were found"

# ---- files and tests in back quotes -------------------------------------------------------------
# Of other projects: their files.
others=' run.c train.c '
spans() { awk '/^ *```/ { fenced = !fenced; next } !fenced' "$1" | tr '\n' ' ' | grep -oE '`[^`]+`' | tr -d '`' | sort -u; }
find "${code[@]}" docs examples -type f -printf '%f\n' | sort -u >"$here/names"
cat tests/*/*.[chm] tests/*/*/*.[chm] tests/*.[ch] tests/cli/*.sh src/*/*.[chm] src/*/*/*.[chm] include/kiln/*.h cmd/*.[ch] >"$here/sources"
sed -nE 's/^KERNEL\((.*)\)/\1_is_right_on_every_tier/p' tests/kernel/kernels.inc >>"$here/sources"
for document in "${documents[@]}"; do
    while read -r span; do
        if [[ $span =~ ^(src|include|cmd|tests|docs|bench|scripts|profiles|examples|fuzz)/[A-Za-z0-9_./*-]*$ ]]; then
            compgen -G "$span" >/dev/null || wrong "$document: \`$span\` is not there"
        elif [[ $span =~ ^[a-z0-9_]+\.(c|h|m|sh)$ && $others != *" $span "* ]]; then
            grep -qxF -- "$span" "$here/names" || wrong "$document: there is no file $span"
        elif [[ $span =~ ^[a-z0-9]+(_[a-z0-9]+){4,}$ && $span != test_* ]]; then
            grep -qwF -- "$span" "$here/sources" || wrong "$document: nothing is named $span"
        elif [[ $span =~ ^kiln_[a-z_0-9]+$ ]]; then
            grep -qwF -- "$span" "$here/sources" || wrong "$document: there is no $span"
        fi
    done < <(spans "$document")
    # `name` and `other` in `src/file.c`
    while read -r words; do
        file=$(grep -oE '`[a-z]+/[^`]+`$' <<<"$words" | tr -d '`')
        while read -r name; do
            [ ! -f "$file" ] || grep -qw -- "$name" "$file" || wrong "$document: $file has no $name"
        done < <(grep -oE '`[a-z_0-9]+`' <<<"$words" | tr -d '`')
    done < <(tr '\n' ' ' <"$document" | grep -oE '`[a-z_0-9]+`(,? (and )?`[a-z_0-9]+`)* (in|of) `(src|cmd|include|tests)/[^`]+`')
done

# ---- flags --------------------------------------------------------------------------------------
# Of published trainers, llama2.c, make, packages, mpirun and Slurm: what they are called there.
foreign=' --metal --pipeline-resume --checkpoint --init --hostfile --map-by --bind-to --mca --mpi --cpu-bind '
foreign+='--job-name --nodes --ntasks-per-node --exclusive --time '
"$KILN" --help | sed -nE 's/^  ([a-z][a-z-]*)  .*/\1/p' >"$here/commands"
while read -r command; do
    "$KILN" "$command" --help
    "$KILN" "$command" --help | sed -nE "s/^  kiln $command ([a-z]+)  .*/\1/p" >"$here/parts"
    while read -r part; do "$KILN" "$command" "$part" --help; done <"$here/parts"
done <"$here/commands" >"$here/help"
{ cat "$here/help" && grep -rhoE -e '--[a-z][a-z0-9-]+' bench scripts && echo '--help --version'; } |
    grep -oE -e '--[a-z][a-z0-9-]+' | sort -u >"$here/flags"
for document in "${documents[@]}"; do
    while read -r flag; do
        [[ $foreign == *" $flag "* ]] || grep -qxF -- "$flag" "$here/flags" ||
            wrong "$document: $flag is a flag of no command"
    done < <(sed -E 's/\([^)]*\)//g' "$document" | grep -oE -e '(^|[^A-Za-z0-9_-])--[a-z][a-z0-9-]+' | grep -oE -e '--[a-z].*' | sort -u)
done

# ---- the environment ----------------------------------------------------------------------------
for document in "${documents[@]}"; do
    while read -r name; do
        grep -rqw -- "$name" "${code[@]}" || wrong "$document: nothing knows $name"
    done < <(grep -ohE 'KILN_[A-Z][A-Z0-9_]*' "$document" | sort -u)
done
# What the program reads is for people, and so are these three of the tests.
while read -r name; do
    grep -qw -- "$name" "${documents[@]}" || wrong "no document tells of $name, which the program reads"
done < <({ grep -rhoE '"KILN_[A-Z0-9_]+"' src cmd | tr -d '"'; printf 'KILN_%s\n' DATA REFERENCE PYTHON; } | sort -u)

# ---- make ---------------------------------------------------------------------------------------
while read -r target; do
    grep -qE "^(\.PHONY:.* )?$target( .*)?:|^\.PHONY:.* $target( |$)" Makefile || wrong "make $target is no target"
done < <(grep -ohE '`make [a-z][a-z0-9-]*' "${documents[@]}" | cut -d' ' -f2 | sort -u)
while read -r target; do
    grep -qF -- "$target" README.md || wrong "README.md does not tell of make $target"
done < <(sed -nE 's/^## ([a-z0-9-]+): .*/\1/p' Makefile)

# ---- the README ---------------------------------------------------------------------------------
[ "$(wc -l <README.md)" -lt 200 ] || wrong "README.md has $(wc -l <README.md) lines; 199 are enough"
while read -r command; do
    grep -qE "^\| .*\`$command\`.* \|" README.md || wrong "README.md's table of commands lacks $command"
done <"$here/commands"

[ $failures = 0 ] || fail "$failures things that documents name are not there"
