#!/usr/bin/env bash
# The program replaces itself in the middle of windows: the same weights, whatever is done to it
# meanwhile; what cannot be planned is refused; a dry run prints the plan and makes nothing.
. "$ROOT/tests/lib.sh"

for i in $(seq 600); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
done >text.txt
text=$PWD/text.txt
sizes=(--dim 32 --hidden 64 --heads 4 --kv-heads 2 --layers 2 --vocab 259 --seq 32 --batch 2)
tiny=(--data "$text" "${sizes[@]}" --accum 2 --lr 3e-3 --warmup 2 --eval-every 10 --threads 1)
steps=40

# ended RUN FILE: the run ended with the weights wanted, FILE says so, every step has one line.
ended() {
    [ "$(hash_of "$2")" = "$want" ] || fail "$1: $(cat "$2"), not $want"
    sed 's/^{"step":\([0-9]*\),.*/\1/' "$1/metrics.jsonl" | cmp -s - <(seq $steps) ||
        fail "$1: metrics.jsonl has not a line for every step"
}
inspected() { "$KILN" inspect "$1" --json | sed -n "s/.*\"cursor\": {.*\"$2\": \([a-z0-9\"]*\).*/\1/p"; }
expect 0 "$KILN" train "${tiny[@]}" --steps $steps --out whole --json
want=$(hash_of stdout)
[ -n "$want" ] || fail 'no weights_hash'
plain=("${tiny[@]}" --steps "$steps")
tiny+=(--steps "$steps" --budget 7 --json)

# ---- restarts ---------------------------------------------------------------------------------

expect 0 "$KILN" train "${tiny[@]}" --out seven
ended seven stdout
[ "$(grep -c 'held-out loss before' stderr)" = 1 ] || fail "said twice: $(cat stderr)"
restarts=$(sed -n 's/.*"restarts":\([0-9]*\).*/\1/p' seven/metrics.jsonl)
[ "$(sort -n <<<"$restarts")" = "$restarts" ] || fail 'restarts go back'
[ "$(tail -n 1 <<<"$restarts")" -gt $((2 * steps)) ] || fail "only $(tail -n 1 <<<"$restarts") restarts"

# what people read does not show where a process ended: the smoothed loss in brackets goes on
losses() { grep -o 'loss [0-9.]* ([0-9.]*)' stdout; }
expect 0 "$KILN" train "${plain[@]}" --out shown
shown=$(losses)
[ -n "$shown" ] || fail "no losses: $(cat stdout)"
expect 0 "$KILN" train "${plain[@]}" --budget 7 --out shown-seven
[ "$(losses)" = "$shown" ] || fail "losses $shown became $(losses)"

# by a relative path, under another name, without an environment
cp "$KILN" k
expect 0 env -i "$BASH" -c 'exec -a not-kiln ./k "$@"' - train "${tiny[@]}" --out bare
ended bare stdout

# the executable replaced by another program, and deleted, while it runs
started replaced ./k train "${tiny[@]}" --out replaced
printf '#!/bin/sh\necho another program\nexit 3\n' >other
chmod +x other
mv other k
ends 0
ended replaced stdout
expect 3 ./k
cp "$KILN" k
started deleted ./k train "${tiny[@]}" --out deleted
rm k
ends 0
ended deleted stdout

# the parent of the working directory renamed
mkdir -p before/here
(cd before/here && exec "$KILN" train "${tiny[@]}" --out moved >out 2>err) &
pid=$!
lines before/here/moved 2
mv before after
ends 0
ended after/here/moved after/here/out

# ---- stopped ----------------------------------------------------------------------------------

started stopped "$KILN" train "${tiny[@]}" --out stopped
for signal in INT TERM INT TERM TERM INT; do
    kill -$signal $pid
    ends 130
    says stderr 'kiln train --resume stopped'
    started stopped "$KILN" train --resume stopped --json
done
ends 0
ended stopped stdout

# Without a budget a window of 8 micro-batches is left between two of them, and taken up there.
long=(--data "$text" --dim 64 --hidden 172 --heads 4 --kv-heads 4 --layers 4 --vocab 259 --seq 64
    --batch 8 --accum 8 --eval-every 0 --save-every 0 --threads 1 --warmup 2)
steps=12 inside=no
expect 0 "$KILN" train "${long[@]}" --steps $steps --out long-whole --json
want=$(hash_of stdout)
started long "$KILN" train "${long[@]}" --steps $steps --out long --json
for pause in 0.02 0.05 0.01 0.03 0.04 0.02; do # a stop may hit the edge
    sleep $pause
    kill -TERM $pid
    ends 130
    if [ "$(inspected long mid)" = true ] && [ "$(inspected long phase)" = '"window"' ] &&
        [ "$(inspected long round)" -gt 0 ]; then
        inside=yes
        break
    fi
    started long "$KILN" train --resume long --json
done
[ "$inside" = yes ] || fail 'never stopped inside a window'
expect 0 "$KILN" train --resume long --json
ended long stdout

# ---- refused ----------------------------------------------------------------------------------

# refuses CODE WORDS FLAGS...: says why and leaves nothing behind.
refuses() {
    local code=$1 words=$2 before
    shift 2
    before=$(ls)
    expect "$code" "$KILN" train --data "$text" "${sizes[@]}" --steps 2 --out run "$@"
    says stderr "$words"
    [ ! -s stdout ] || fail "$*: speaks on stdout"
    [ "$before" = "$(ls)" ] || fail "$*: left something behind: $(ls)"
}
refuses 2 '--headroom 1: out of range' --headroom 1
refuses 2 '--budget 0: out of range' --budget 0
refuses 2 'every:0: use every:1' --activations every:0
refuses 1 'needs 4 kernels in one process, and of a budget of 4 with headroom 0.1 3 may' --budget 4
refuses 1 'takes 6 kernels in one process and 5 may be used' --activations none --budget 6
refuses 1 'and --memory is 1048576' --memory 1M

# ---- a dry run --------------------------------------------------------------------------------

# Numbers of a JSON plan, one a line, without those that are measured anew each time.
numbers() {
    sed 's/[,{[]/\n/g' "$1" |
        grep -vE '"(name|total_bytes|total|process|step_s|compile|compute|stall|step|zero_stall_accum)": | seed 1' |
        tr -d ' '
}
# same FLAGS...: kiln plan says what kiln train would do.
same() {
    local before
    before=$(ls)
    expect 0 "$KILN" plan "${sizes[@]}" --threads 1 --memory 1G --trace --json "$@"
    numbers stdout >plan.numbers
    expect 0 "$KILN" train --data "$text" "${sizes[@]}" --threads 1 --memory 1G --dry-run --json "$@"
    numbers stdout >train.numbers
    cmp -s plan.numbers train.numbers || fail "$*: $(diff plan.numbers train.numbers)"
    [ "$(wc -l <plan.numbers)" -gt 150 ] || fail "$*: only $(wc -l <plan.numbers) numbers"
    rm plan.numbers train.numbers
    [ "$before" = "$(ls)" ] || fail "a dry run left something behind: $(ls)"
}
same --accum 3
same --accum 3 --budget 7
same --accum 2 --budget 20 --schedule whole --activations sqrt
same --accum 2 --budget 30 --load-budget 12 --headroom 0 --activations none
same --model stories42m --budget 20 --activations all

expect 0 "$KILN" train "${tiny[@]/--json/--dry-run}"
for part in 'restart ' 'compile ' 'forward ' 'backward ' 'update ' 'step done'; do
    says stdout "$part"
done
[ ! -e runs ] || fail 'a dry run made a folder'

# Load budgets that push kernels out, also while the next ones compile beside the update.
four=(--data "$text" --dim 32 --hidden 64 --heads 4 --kv-heads 2 --layers 4 --vocab 259 --seq 32 --batch 2
    --accum 2 --lr 3e-3 --warmup 2 --eval-every 1 --threads 2 --steps 3 --json)
expect 0 "$KILN" train "${four[@]}" --overlap off --out four
want=$(hash_of stdout)
for load in 4 5 6 7 9 12 15 20; do
    for overlap in exact off; do
        expect 0 "$KILN" train "${four[@]}" --load-budget $load --headroom 0 --overlap $overlap \
            --out "four-$load-$overlap"
        [ "$(hash_of stdout)" = "$want" ] || fail "--load-budget $load --overlap $overlap: other weights"
    done
done
