#!/usr/bin/env bash
# The program itself, killed at exact points and resumed: the same weights.
. "$ROOT/tests/lib.sh"

for i in $(seq 600); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
done >text.txt
tiny=(--data text.txt --dim 32 --hidden 64 --heads 4 --kv-heads 2 --layers 2 --vocab 259 --seq 32
    --batch 2 --accum 2 --lr 3e-3 --warmup 2 --steps 4 --save-every 1 --threads 2)

KILN_KILL_COUNT=counts expect 0 "$KILN_TEST_PROGRAM" train "${tiny[@]}" --out whole --json
want=$(sed -n 's/.*"weights_hash": "\([0-9a-f]*\)".*/\1/p' stdout)
KILN_KILL_AT=1 expect 0 "$KILN" train "${tiny[@]}" --out released --json # knows no points
says stdout "\"weights_hash\": \"$want\""

deaths=0
while read -r kind n; do
    [ "$n" -gt 0 ] || continue
    for at in 1 $(((n + 1) / 2)) "$n"; do
        rm -rf run
        got=0
        KILN_KILL_AT=$kind:$at "$KILN_TEST_PROGRAM" train "${tiny[@]}" --out run >/dev/null 2>&1 || got=$?
        [ $got = 0 ] && continue # two threads may pass one point less
        [ $got = 137 ] || fail "killed at $kind:$at: exit $got, not 137"
        deaths=$((deaths + 1))
        if [ -d run ]; then
            expect 0 "$KILN" train --resume run --json
        else
            expect 0 "$KILN" train "${tiny[@]}" --out run --json
        fi
        says stdout "\"weights_hash\": \"$want\""
        [ "$(wc -l <run/metrics.jsonl)" = 4 ] || fail 'metrics.jsonl has not a line for every step'
    done
done <counts
[ $deaths -ge 15 ] || fail "only $deaths deaths"
