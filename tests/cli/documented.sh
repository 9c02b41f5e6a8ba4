#!/usr/bin/env bash
# Every command of README.md, docs/, examples/ and the examples of --help is run, in the order of its
# document, with files of the names that documents use, and prints what the document shows. What is
# run otherwise, or not at all, stands in tests/documented/table with the reason. KILN_DOCUMENTS is a
# pattern of the documents whose commands are run, all without it.
. "$ROOT/tests/lib.sh"

tools=$ROOT/tests/documented
shopt -s nullglob
sep=$'\037'
here=$PWD
unset MAKEFLAGS MAKELEVEL MFLAGS KILN_CPU KILN_GEMM

# ---- the commands -------------------------------------------------------------------------------
mkdir shown help printed
commands() { awk -v doc="$2" -v folder="$here/shown" -f "$tools/commands.awk" "${@:3}" "$1" >>all; }
cd "$ROOT"
documents=(README.md docs/*.md examples/*.md)
cd "$here"
for document in "${documents[@]}"; do commands "$ROOT/$document" "$document"; done
for command in $("$KILN" --help | awk '/^  [a-z]+  / { print $1 }'); do
    "$KILN" "$command" --help >"help/$command"
    commands "help/$command" "help/$command" -v help=1
done
[ "$(wc -l <all)" -gt 80 ] || fail "only $(wc -l <all) commands were found"
awk -v actions=actions -f "$tools/rules.awk" "$tools/table" all || fail 'the table is wrong'

# ---- what they find -----------------------------------------------------------------------------
. "$ROOT/tests/documented/fixtures.sh"

# place COMMAND: files that it names, other than its output, and that nothing before it has made.
place() {
    local name text
    text=$(sed -E 's/ (--out|-o) +[^ ]+//g; s/^(.\/finetune .*) [^ ]+$/\1/' <<<"$1")
    while read -r name; do
        [[ $text =~ (^|[ ,=\'\"])"$name"($|[ ,:@/\'\"]) ]] || continue
        [ ! -e "$name" ] || continue
        mkdir -p "$(dirname "$name")"
        cp -r "$here/fixtures/$name" "$name"
    done <"$here/names"
}

# lacks WHAT: true where it is not here.
lacks() {
    case $1 in
        '') return 1 ;;
        python:*) ! "${KILN_PYTHON:-python3}" -c "import ${1#python:}" 2>/dev/null ;;
        release) [ "$KILN" != "$ROOT/build/kiln" ] || ! command -v pkg-config >/dev/null ;;
        opencl) [ ! -e "$here/fixtures/opencl" ] ;;
        reference) [ ! -e "$here/fixtures/REF" ] ;;
        *) ! command -v "$1" >/dev/null ;;
    esac
}

# ---- each of them -------------------------------------------------------------------------------
failures=0 ran=0 left=()
wrong() { # what is wrong comes from stdin
    echo "FAILED: $where: $documented"
    [ "$text" = "$documented" ] || echo "  as: $text"
    sed 's/^/  /'
    failures=$((failures + 1))
}

# run_one COMMAND: where a document has it a second time, what it printed the first time counts.
declare -A seen
run_one() {
    local text=$1 got=0 said
    local printed=${seen["$document $text"]:-}
    if [ -z "$printed" ]; then
        ran=$((ran + 1))
        printed=$here/printed/$ran
        seen["$document $text"]=$printed
        place "$text"
        timeout -s KILL 150 bash -c "$text" >"$printed" 2>&1 </dev/null || got=$?
    fi
    if [ $got != "$code" ]; then
        wrong < <(echo "exit $got, not $code" && tail -n 12 "$printed")
        return
    fi
    shown=$here/shown/${where//\//_}
    if [ "$kind" != name ] && [ -e "$shown" ]; then
        said=$(awk -v shape="$shape" -v any="$any" -f "$tools/output.awk" "$shown" "$printed") ||
            wrong <<<"$said"
    fi
}

document=
while IFS=$sep read -r where kind code program shape any documented text why; do
    # shellcheck disable=SC2053 # a pattern
    [[ $where == ${KILN_DOCUMENTS:-*} ]] || continue
    if [ "${where%:*}" != "$document" ]; then
        document=${where%:*}
        cd "$here"
        sandbox "in/$document"
        cd "in/$document"
    fi
    SECONDS=0
    if [ "$kind" = not ]; then
        left+=("$where: $documented: $why")
        continue
    elif lacks "$program" || { [ "$kind" = fakes ] && [ ! -e "$here/fixtures/fakes" ]; }; then
        left+=("$where: $documented: ${program:-the program over fakes} is absent")
        continue
    fi
    ln -sfn "$([ "$kind" = fakes ] && echo "$KILN_TEST_PROGRAM" || echo "$KILN")" program
    if [ "$kind" = name ]; then
        flag=$(grep -oE -- ' --[a-z-]+$' <<<"$text" || true)
        run_one "${text% --*} --help"
        [ -z "$flag" ] || grep -qF -- "$flag " "$here/printed/$ran" || wrong <<<"no such flag"
    else
        run_one "$(sed -E 's/ \[[^]]*\]//g' <<<"$text")"
        [[ ! $text =~ \ \[[^]]*\] ]] || run_one "$(sed -E 's/\[([^]]*)\]/\1/g' <<<"$text")"
    fi
    [ $SECONDS -lt 5 ] || echo "$SECONDS s: $where: $text"
done <actions

[ ${#left[@]} = 0 ] || printf 'not run: %s\n' "${left[@]}"
echo "$ran commands were run, ${#left[@]} were not"
[ $failures = 0 ] || fail "$failures commands do not do what is documented"
