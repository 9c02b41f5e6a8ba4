#!/usr/bin/env bash
# The runner of the tests: several at once say the same as one by one, in order, and share nothing.
. "$ROOT/tests/lib.sh"

[ -x "${KILN_TESTS:-}" ] || skip 'the runner does not know where it lies'
export TMPDIR=$PWD
# Samples that fail, skip and crash on purpose; times and what a killed one says are taken out.
sample() {
    code=0
    KILN_HARNESS=1 KILN_TEST_JOBS='' "$KILN_TESTS" "$@" 'harness: sample_' >all 2>&1 || code=$?
    sed -E 's/ \([0-9.]+ s\)$//' all
}
sample -j 1 >one
[ $code = 1 ] || fail "exit $code with a failure"
says one '4 passed, 3 failed, 1 skipped' # the last takes longer than its limit
sample -j 4 >four
[ $code = 1 ] || fail "exit $code with a failure"
says four '5 passed, 2 failed, 1 skipped' # and has four times as long now
says four 'pass  harness: sample_within_its_limit_times_the_jobs'
says four 'on purpose'
# In the order of the file, but for what wants to be alone.
order=$(grep -oE '^(pass|FAIL|skip)  harness: sample_[a-z]+' four | sed 's/.*sample_//' | tr '\n' ' ')
[ "$order" = 'late early fails skips crashes last within alone ' ] || fail "order: $order"
# What a test says stands before its own line.
grep -A1 'said after 600 ms' four | grep 'sample_late' >/dev/null || { cat four; fail 'output is mixed'; }
for jobs in 2 3; do
    KILN_HARNESS=1 KILN_TEST_JOBS=$jobs "$KILN_TESTS" 'harness: sample_e' 'harness: sample_l' >all ||
        { cat all; fail "$jobs at once"; }
    says all '3 passed, 0 failed, 0 skipped'
done
# Stopped from outside: nothing goes on.
KILN_HARNESS=1 "$KILN_TESTS" -j 2 'harness: sample_late' 'harness: sample_last' >all 2>&1 &
pid=$!
sleep 0.2
kill "$pid"
got=0
wait "$pid" || got=$?
[ $got != 0 ] || fail 'a runner that is stopped passes'
