#!/usr/bin/env bash
# --on-spike over processes that replace each other, and over those that die while a run goes back.
. "$ROOT/tests/lib.sh"
. "$ROOT/tests/relay_lib.sh"

common=("${plain[@]}" --steps 12 --save-every 4 --on-spike rollback --json)
export KILN_PLANT=weight:wq.1@8

# run NAME FLAGS: to its end; then its weights are in $hash.
run() {
    local name=$1
    shift
    expect 0 "$KILN_TEST_PROGRAM" train "${common[@]}" "$@" --out "$PWD/$name"
    hash=$(hash_of stdout)
    [ "$(wc -l <"$name/metrics.jsonl")" = 12 ] || fail "$name: $(cat "$name/metrics.jsonl")"
    [ "$(grep -c '"loss":null' "$name/metrics.jsonl")" = 0 ] || fail "$name: a loss is no number"
    grep -q '"jumps"' "$name/run.json" || fail "$name was not rolled back"
    expect 0 "$KILN" verify "$PWD/$name" # without the fault: what is behind it never saw it
}
# same NAME OTHER: weights and metrics.
same() { cmp -s <(lasting "$1") <(lasting "$2") || fail "$1, $2: $(diff <(lasting "$1") <(lasting "$2"))"; }

# ---- what the end says --------------------------------------------------------------------------

# told FIRST LAST: it took these steps, each of them once.
told() {
    local tokens
    tokens=$(sed -n "$2p" told/metrics.jsonl | sed 's/.*"tokens":\([0-9]*\).*/\1/')
    [ "$(sed -n 's/^done: \(.*\) tokens in .*/\1/p' stdout | tr -d ,)" = \
        "$(($2 - $1 + 1)) steps $((tokens * ($2 - $1 + 1) / $2))" ] || fail "told: $(grep ^done: stdout)"
}
for restart in '' '--budget 7 --restart exec'; do
    rm -rf told
    # shellcheck disable=SC2086 # two flags or none
    expect 0 "$KILN_TEST_PROGRAM" train "${plain[@]}" --steps 12 --save-every 4 --on-spike rollback $restart --out "$PWD/told"
    grep -q '"jumps"' told/run.json || fail 'told was not rolled back'
    told 1 12
    expect 0 env -u KILN_PLANT "$KILN_TEST_PROGRAM" train --resume "$PWD/told" --steps 16
    told 13 16
done

# ---- processes --------------------------------------------------------------------------------

for overlap in exact delayed; do
    budget=7
    [ $overlap = delayed ] && budget=24 # two kernel sets
    run "whole-$overlap" --overlap $overlap
    want=$hash
    for restart in exec relay; do
        run "$overlap-$restart" --overlap $overlap --budget $budget --restart $restart
        gone "$overlap-$restart"
        [ "$hash" = "$want" ] || fail "$overlap, $restart: $hash, not $want"
        same "$overlap-$restart" "whole-$overlap"
    done
    run "sim-$overlap" --device sim --overlap $overlap
    want=$hash
    run "sim-$overlap-relay" --device sim --overlap $overlap --restart relay --budget 30
    gone "sim-$overlap-relay"
    [ "$hash" = "$want" ] || fail "sim, $overlap: $hash, not $want"
done

# ---- deaths -----------------------------------------------------------------------------------

# dies ROLE KIND N FLAGS: killed there, gone on with, the same. False: there is no such point.
dies() {
    local role=$1 kind=$2 n=$3 got=0
    shift 3
    rm -rf point died
    env ${role:+KILN_KILL_ROLE=$role} KILN_KILL_AT="$kind:$n" KILN_KILL_ONCE="$PWD/died" \
        "$KILN_TEST_PROGRAM" train "${common[@]}" "$@" --out "$PWD/point" >stdout 2>stderr || got=$?
    gone point
    if [ -e died ] && [ -z "$role" ]; then
        [ $got = 137 ] || { cat stderr; fail "killed at $kind:$n: exit $got"; }
        expect 0 "$KILN_TEST_PROGRAM" train --resume "$PWD/point" --json
    else
        [ $got = 0 ] || { cat stderr; fail "$role killed at $kind:$n: exit $got"; }
    fi
    [ "$(hash_of stdout)" = "$want" ] || fail "$role killed at $kind:$n: $(cat stdout), not $want"
    same point whole-exact
    [ -e died ]
}
want=$("$KILN" inspect "$PWD/whole-exact" --json | sed -n 's/.*"weights_hash": "\([0-9a-f]*\)".*/\1/p')
deaths=0
for kind in rollback incident; do
    for n in $(seq 6); do
        dies "" $kind "$n" --overlap exact --budget 7 && deaths=$((deaths + 1))
        dies owner $kind "$n" --overlap exact --budget 7 --restart relay && deaths=$((deaths + 1))
    done
done
echo "$deaths deaths"
[ $deaths -ge 10 ] || fail "only $deaths deaths"

# ---- what is said -----------------------------------------------------------------------------

expect 1 "$KILN_TEST_PROGRAM" train "${plain[@]}" --steps 12 --on-spike stop --out "$PWD/stop"
says stderr 'step 8: '
rate=$(sed -nE 's/^ "lr": ([^,]*),/\1/p' stop/incidents/step-8/incident.json)
says stderr ", learning rate $(printf '%.3g' "$rate"); "
says stderr "kiln explain $PWD/stop@8"
says stderr '--on-spike record, skip or rollback'
[ -s stop/incidents/step-8/weights.f32 ] || fail 'no weights in the incident'
expect 0 "$KILN" train --resume "$PWD/stop" --on-spike rollback --json
