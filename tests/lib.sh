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
