#!/usr/bin/env bash
# A supervisor and its workers: whoever dies when, the same weights, and nobody is left behind.
. "$ROOT/tests/lib.sh"
. "$ROOT/tests/relay_lib.sh"

want 60
# ---- killed -----------------------------------------------------------------------------------

started orphans "$KILN" train "${relay[@]}" --steps 60 --out "$PWD/orphans"
kill -KILL $pid
ends 137
gone orphans
go_on orphans
ended orphans stdout

# a worker by the wrong command line is refused and hurts nobody
expect 2 "$KILN" train --resume "$PWD/orphans" --take-over 99 --worker 98

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
# every_point N: deaths at the first N points of every kind, of every role; some of the commits.
every_point() {
    local case n
    for case in owner:relay owner:hand-over owner:commit owner:update successor:relay \
        successor:hand-over supervisor:relay; do
        for n in $(seq "$1"); do
            [ "$case" = owner:commit ] && [ $((n % 5)) != 1 ] && continue
            dies "${case%:*}" "${case#*:}" "$n" || break
            deaths=$((deaths + 1))
        done
    done
}
deaths=0
every_point 12
echo "$deaths deaths"
[ $deaths -ge 30 ] || fail "only $deaths deaths"

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

# Processes that end at the window's edge, their successors compiled from a snapshot.
rm -rf whole4
plain+=(--overlap delayed)
small=("${plain[@]}" --budget 20 --json --steps 4 --out "$PWD/point")
want 4
deaths=0
every_point 4
echo "$deaths deaths, delayed"
[ $deaths -ge 15 ] || fail "only $deaths deaths"

# ---- at any moment ----------------------------------------------------------------------------

# Windows that last: who is named is still there when it is killed.
plain=(--data "$PWD/text.txt" --dim 64 --hidden 172 --heads 4 --kv-heads 4 --layers 4 --vocab 259
    --seq 64 --batch 8 --accum 6 --eval-every 4 --threads 1 --warmup 2)
relay=("${plain[@]}" --budget 9 --restart relay --json)
want 12
started anybody "$KILN" train "${relay[@]}" --steps 12 --out "$PWD/anybody"
deaths=0
for at in 1 3 5 7 9; do
    reached anybody $at || break
    victim=$(workers anybody | sort -R | head -n 1)
    ! kill -KILL "$victim" 2>/dev/null || deaths=$((deaths + 1))
done
ends 0
ended anybody stdout
echo "$deaths more"
[ $deaths -gt 0 ] || fail 'nobody was killed'

# Supervisor, owner, successor, whoever it is, KILN_RELAY_KILLS of them: on a simulated device and
# over the fakes of Apple's runtime, where a dead process leaves its staged programs behind until
# the next one clears them away.
export TEMP=$PWD/staged # GNUstep's NSTemporaryDirectory
mkdir -m 700 staged
kills=${KILN_RELAY_KILLS:-8}
sim=(--data "$PWD/text.txt" --dim 32 --hidden 64 --heads 4 --kv-heads 2 --layers 2 --vocab 259 --seq 32
    --batch 2 --accum 8 --lr 3e-3 --warmup 2 --eval-every 2 --threads 1 --no-extras --overlap delayed
    --steps 8 --json --save-every 3)
begin() {
    if [ -d any ]; then
        "$KILN_TEST_PROGRAM" train --resume "$PWD/any" --json >stdout 2>stderr &
    else
        "$KILN_TEST_PROGRAM" train "${sim[@]}" --device "$1" --budget "$2" --out "$PWD/any" >stdout 2>stderr &
    fi
    pid=$!
}
# anyone DEVICE BUDGET: kill until a run has ended; its weights must be those of $want.
anyone() {
    local got victims
    rm -rf any
    begin "$@"
    for (( ; ; )); do
        sleep "0.$((RANDOM % 4))$((RANDOM % 10))"
        if [ $deaths -lt "$kills" ] && kill -0 $pid 2>/dev/null; then
            mapfile -t victims < <(echo $pid; workers any)
            # On a slow machine the supervisor is still alone: seldom is it killed then.
            [ ${#victims[@]} -gt 1 ] || [ $((RANDOM % 4)) = 0 ] || continue
            ! kill -KILL "${victims[RANDOM % ${#victims[@]}]}" 2>/dev/null || deaths=$((deaths + 1))
            kill -0 $pid 2>/dev/null && continue
        fi
        got=0
        wait $pid || got=$?
        [ $got != 0 ] || break
        # 137: the supervisor; 1: three owners before a step was done
        [ $got = 137 ] || grep -q 'died 3 times' stderr || { cat stderr; fail "any: exit $got"; }
        gone any
        begin "$@"
    done
    gone any
    tail -n 1 stdout >last # an owner killed when it had said the end is followed by one that says it
    [ "$(hash_of last)" = "$want" ] || fail "any, $1: $(cat stdout stderr), not $want"
    [ "$(grep -c . any/metrics.jsonl)" = 8 ] || fail 'a step has no line or two'
    # A kill may come behind the last who could clear away what it leaves: the next run does.
    [ -z "$(ls -A staged)" ] || expect 0 "$KILN_TEST_PROGRAM" train "${sim[@]}" --device ane --budget 119 --out "$PWD/next"
    rm -rf next
    [ -z "$(ls -A staged)" ] || fail "left: $(ls -A staged)"
}
deaths=0
expect 0 "$KILN_TEST_PROGRAM" train "${sim[@]}" --device sim --budget 119 --out "$PWD/all"
want=$(hash_of stdout)
while [ $deaths -lt "$kills" ]; do
    anyone sim 14
    [ $deaths -ge "$kills" ] || anyone ane 16
done
echo "$deaths of anybody"
