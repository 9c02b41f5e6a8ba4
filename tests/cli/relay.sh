#!/usr/bin/env bash
# A supervisor and its workers: the same weights, whoever dies when; nobody is left behind, and what
# a person does to the one process that was started does what it does to any program.
. "$ROOT/tests/lib.sh"
command -v pgrep >/dev/null || skip 'pgrep is absent'

for i in $(seq 600); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
done >text.txt
plain=(--data "$PWD/text.txt" --dim 32 --hidden 64 --heads 4 --kv-heads 2 --layers 2 --vocab 259
    --seq 32 --batch 2 --accum 2 --lr 3e-3 --warmup 2 --eval-every 2 --threads 1)
relay=("${plain[@]}" --budget 7 --restart relay --json)

hash_of() {
    [ "$(grep -c . "$1")" = 1 ] || fail "$1 is not one JSON object: $(cat "$1")"
    sed -n 's/^{.*"weights_hash": "\([0-9a-f]*\)".*}$/\1/p' "$1"
}
# want STEPS: a run of so many steps, without budget or relay, is what the next ones must equal.
want() {
    steps=$1
    [ -d "$PWD/whole$steps" ] || expect 0 "$KILN" train "${plain[@]}" --steps "$steps" \
        --out "$PWD/whole$steps" --json
    want=$("$KILN" inspect "$PWD/whole$steps" --json | sed -n 's/.*"weights_hash": "\([0-9a-f]*\)".*/\1/p')
    [ -n "$want" ] || want=$(hash_of stdout)
}
lasting() { sed 's/"ms":.*"utilization":[^,]*,//; s/"compile_ms".*"restarts":[0-9]*//' "$1/metrics.jsonl"; }
# of RUN: the processes of the run, whatever they are.
of() { pgrep -f -- "$PWD/$1( |$)" || true; }
owner() { pgrep -f -- "--resume $PWD/$1 .*--worker [0-9]+$" || true; }
successor() { pgrep -f -- "--resume $PWD/$1 .*--successor " || true; }
# gone RUN: within a second nobody is left.
gone() {
    for _ in $(seq 50); do
        [ -n "$(of "$1")" ] || return 0
        sleep 0.02
    done
    fail "$1 left processes behind: $(of "$1" | xargs ps -o pid,stat,args -p)"
}
# ended RUN FILE: the weights wanted, a line for every step, nobody left.
ended() {
    gone "$1"
    [ "$(hash_of "$2")" = "$want" ] || fail "$1: $(cat "$2"), not $want"
    cmp -s <(lasting "$1") <(lasting "whole$steps") || fail "$1: $(diff <(lasting "$1") <(lasting "whole$steps"))"
}
# started RUN COMMAND...: in the background; wait until it has trained on and still goes on.
started() {
    local run=$1 before=0
    shift
    [ ! -e "$run/metrics.jsonl" ] || before=$(wc -l <"$run/metrics.jsonl")
    "$@" >stdout 2>stderr &
    pid=$!
    lines "$run" $((before + 1))
}
lines() {
    for _ in $(seq 3000); do
        if [ -e "$1/metrics.jsonl" ] && [ "$(wc -l <"$1/metrics.jsonl")" -ge "$2" ]; then
            kill -0 $pid || fail "$1 ended before it could be disturbed"
            return 0
        fi
        kill -0 $pid 2>/dev/null || { cat stderr; fail "$1 ended early"; }
        sleep 0.01
    done
    fail "$1 does not get to step $2"
}
ends() {
    local got=0
    wait $pid || got=$?
    [ $got = "$1" ] || { cat stdout stderr; fail "exit $got, not $1"; }
}
go_on() { expect 0 "$KILN" train --resume "$PWD/$1" --json; }

# ---- undisturbed ------------------------------------------------------------------------------

want 12
expect 0 "$KILN" train "${relay[@]}" --steps 12 --out "$PWD/calm"
ended calm stdout
[ "$(grep -c . stderr)" = 1 ] || fail "notices: $(cat stderr)"
restarts=$(tail -n 1 calm/metrics.jsonl | sed -n 's/.*"restarts":\([0-9]*\).*/\1/p')
[ "$restarts" -gt 24 ] || fail "only $restarts restarts"

# what people read does not show where a process ended
losses() { grep -o 'loss [0-9.]* ([0-9.]*)' stdout; }
expect 0 "$KILN" train "${plain[@]}" --steps 12 --out shown
shown=$(losses)
expect 0 "$KILN" train "${plain[@]}" --steps 12 --budget 7 --restart relay --out shown-relay
[ "$(losses)" = "$shown" ] || fail "losses $shown became $(losses)"
[ "$(grep -c 'held-out loss before' stderr)" = 1 ] || fail "said twice: $(cat stderr)"

# without restarts there is nobody to supervise
expect 0 "$KILN" train "${plain[@]}" --steps 12 --restart relay --json --out "$PWD/alone"
ended alone stdout
[ "$(sed -n 's/.*"restarts":\([0-9]*\).*/\1/p' alone/metrics.jsonl | sort -u)" = 0 ] || fail 'restarts'

# the program deleted while it runs
want 30
cp "$KILN" k
started deleted ./k train "${relay[@]}" --steps 30 --out "$PWD/deleted"
rm k
ends 0
ended deleted stdout

# ---- stopped ----------------------------------------------------------------------------------

want 120
started stopped "$KILN" train "${relay[@]}" --steps 120 --out "$PWD/stopped"
for signal in INT TERM HUP INT TERM INT; do
    kill -$signal $pid
    ends 130
    gone stopped
    says stderr 'kiln: stopping'
    says stderr "kiln train --resume $PWD/stopped"
    started stopped "$KILN" train --resume "$PWD/stopped" --json
done
ends 0
ended stopped stdout

# a stop while nobody moves is kept; the second one leaves at once, and nobody stays
started twice "$KILN" train "${relay[@]}" --steps 120 --out "$PWD/twice"
for _ in 1 2 3; do
    # shellcheck disable=SC2046
    kill -STOP $(owner twice) $(successor twice) 2>/dev/null || true
done
kill -INT $pid
sleep 0.1
kill -0 $pid || fail 'did not wait for the owner'
kill -INT $pid
ends 130
gone twice
go_on twice
ended twice stdout

# ---- suspended --------------------------------------------------------------------------------

states() { of "$1" | xargs ps -o stat= -p | cut -c1 | sort -u | tr -d '\n'; }
set -m
started slept "$KILN" train "${relay[@]}" --steps 120 --out "$PWD/slept"
set +m
kill -TSTP $pid
for _ in $(seq 100); do
    [ "$(states slept)" != T ] || break
    sleep 0.02
done
[ "$(states slept)" = T ] || fail "suspended, but $(of slept | xargs ps -o pid,stat,args -p)"
before=$(wc -l <slept/metrics.jsonl)
sleep 0.2
[ "$(wc -l <slept/metrics.jsonl)" = "$before" ] || fail 'it trains on'
kill -CONT $pid
lines slept $((before + 1))
ends 0
ended slept stdout

# ---- killed -----------------------------------------------------------------------------------

started orphans "$KILN" train "${relay[@]}" --steps 120 --out "$PWD/orphans"
kill -KILL $pid
ends 137
gone orphans
go_on orphans
ended orphans stdout

started owners "$KILN" train "${relay[@]}" --steps 120 --out "$PWD/owners"
deaths=0
for at in 10 30 50; do
    lines owners $at
    # shellcheck disable=SC2046
    kill -KILL $(owner owners | head -n 1) 2>/dev/null && deaths=$((deaths + 1))
done
ends 0
ended owners stdout
[ $deaths -gt 0 ] || fail 'nobody was killed'

# a worker by the wrong command line is refused and hurts nobody
expect 2 "$KILN" train --resume "$PWD/owners" --take-over 99 --worker 98

# ---- at every point ---------------------------------------------------------------------------

want 4
small=("${relay[@]}" --steps 4 --out "$PWD/point")
# dies ROLE KIND N: the run with such a death, resumed where it ends with it. False: there is no
# such point.
dies() {
    local got=0
    rm -rf point died
    KILN_KILL_ROLE=$1 KILN_KILL_AT=$2:$3 KILN_KILL_ONCE=$PWD/died \
        "$KILN_TEST_PROGRAM" train "${small[@]}" >stdout 2>stderr || got=$?
    gone point
    if [ -e died ] && [ "$1" = supervisor ]; then
        [ $got = 137 ] || { cat stderr; fail "$1 killed at $2:$3: exit $got"; }
        go_on point
    else
        [ $got = 0 ] || { cat stderr; fail "$1 killed at $2:$3: exit $got"; }
    fi
    ended point stdout
    [ -e died ]
}
deaths=0
for case in owner:relay owner:hand-over owner:commit successor:relay successor:hand-over \
    supervisor:relay; do
    for n in $(seq 40); do
        [ "$case" = owner:commit ] && [ $((n % 5)) != 1 ] && continue
        dies "${case%:*}" "${case#*:}" "$n" || break
        deaths=$((deaths + 1))
    done
done
echo "$deaths deaths"
[ $deaths -ge 40 ] || fail "only $deaths deaths"

# three owners in a row
rm -rf point
KILN_KILL_ROLE=owner KILN_KILL_AT=relay:1 expect 1 "$KILN_TEST_PROGRAM" train "${small[@]}"
says stderr 'died 3 times'
says stderr "kiln train --resume $PWD/point"
gone point
go_on point
ended point stdout

# no successor ever: the process replaces itself, and says why
rm -rf point
KILN_KILL_ROLE=successor KILN_KILL_AT=relay:2 expect 0 "$KILN_TEST_PROGRAM" train "${small[@]}"
says stderr 'no successor could be started (signal 9'
ended point stdout
