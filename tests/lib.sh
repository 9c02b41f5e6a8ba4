# shellcheck shell=bash
# What the shell tests of tests/cli share. Each begins with:  . "$ROOT/tests/lib.sh"
#
# A shell test runs in an empty folder of its own. It exits 0 for passed, 77 for skipped (its last
# line says why), anything else for failed; its output is shown when it fails. It is given
#   KILN  the program          KILN_DATA       real models and texts (may be absent)
#   KILN_TEST_PROGRAM  the program with kill points (tests/kill_points.h)
#   ROOT  the repository       KILN_REFERENCE  reference vectors     (may be absent)
set -euo pipefail

skip() { echo "$*"; exit 77; }
fail() { echo "FAILED: $*"; exit 1; }

# need PATH: the test is skipped where that file is absent.
need() { [ -e "$1" ] || skip "$(basename "$1") is absent"; }

# need_python MODULE...: PYTHON is a python that has these (KILN_PYTHON, the repository's .venv, or
# python3), else the test is skipped.
need_python() {
    local module
    PYTHON=${KILN_PYTHON:-$ROOT/.venv/bin/python}
    [ -x "$PYTHON" ] || PYTHON=$(command -v python3) || skip 'python3 is absent'
    for module in "$@"; do
        "$PYTHON" -c "import $module" 2>/dev/null || skip "the python package $module is absent"
    done
}

# expect CODE COMMAND...: run, keep stdout and stderr in files of those names, check the exit code.
expect() {
    local want=$1 got=0
    shift
    "$@" >stdout 2>stderr || got=$?
    [ "$got" = "$want" ] && return
    echo "--- $*"; tail -n 20 stdout stderr
    fail "exit $got, not $want"
}

# says FILE TEXT: the file (stdout, stderr) holds the text.
says() { grep -qF -- "$2" "$1" || { cat "$1"; fail "$1 does not say: $2"; }; }

# ---- a run in the background --------------------------------------------------------------------

# hash_of FILE: the weights_hash of the one JSON object that FILE is.
hash_of() {
    [ "$(grep -c . "$1")" = 1 ] || fail "$1 is not one JSON object: $(cat "$1")"
    sed -n 's/^{.*"weights_hash": "\([0-9a-f]*\)".*}$/\1/p' "$1"
}
# started RUN COMMAND...: start it in the background, wait until it has trained a step or two of
# RUN, and see that it still goes on. Its signal handlers are there by then.
started() {
    local run=$1 before=0
    shift
    [ ! -e "$run/metrics.jsonl" ] || before=$(wc -l <"$run/metrics.jsonl")
    "$@" >stdout 2>stderr &
    pid=$!
    lines "$run" $((before + 1))
}
# reached RUN N: wait until the run has N lines of metrics; false: it ended first, or just then.
reached() {
    for _ in $(seq 3000); do
        if [ -e "$1/metrics.jsonl" ] && [ "$(wc -l <"$1/metrics.jsonl")" -ge "$2" ]; then
            kill -0 "$pid" 2>/dev/null
            return
        fi
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.01
    done
    fail "$1 does not get to step $2"
}
# lines RUN N: the same, and it must go on.
lines() { reached "$@" || { cat stderr; fail "$1 ended before it could be disturbed"; }; }
# ends CODE: the program in the background does.
ends() {
    local got=0
    wait "$pid" || got=$?
    [ $got = "$1" ] || { cat stdout stderr; fail "exit $got, not $1"; }
}
