# shellcheck shell=bash
# What tests/cli/relay.sh and relay_kill.sh share; behind tests/lib.sh.
command -v pgrep >/dev/null || skip 'pgrep is absent'

for i in $(seq 600); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
done >text.txt
plain=(--data "$PWD/text.txt" --dim 32 --hidden 64 --heads 4 --kv-heads 2 --layers 2 --vocab 259
    --seq 32 --batch 2 --accum 2 --lr 3e-3 --warmup 2 --eval-every 2 --threads 1)
# shellcheck disable=SC2034 # of those that read this file
relay=("${plain[@]}" --budget 7 --restart relay --json)

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
workers() { pgrep -f -- "--resume $PWD/$1 .*--worker " || true; } # the oldest is first
# gone RUN: within half a minute, however busy the machine is, nobody is left.
gone() {
    for _ in $(seq 1500); do
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
go_on() { expect 0 "$KILN" train --resume "$PWD/$1" --json; }
