#!/usr/bin/env bash
# kiln train --minutes: a text and a time, nothing else.
# alone: what it does depends on the time that there is
. "$ROOT/tests/lib.sh"

for i in $(seq 1500); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
done >text.txt

# What would be chosen, and why; nothing is made.
expect 0 "$KILN" plan --data text.txt --minutes 0.05
for part in 'for 0.05 minutes' 'held-out loss of' 'bits a byte' 'why' 'learning rate' 'chosen'; do
    says stdout "$part"
done
expect 0 "$KILN" plan --data text.txt --minutes 0.05 --json --dim 64 --layers 2 --lr 1e-3 --batch 3
tr -d ' \n' <stdout >flat
for part in '"dim":64' '"layers":2' '"batch":3' '"lr":0.001' '"ladder":[' '"why":[' '"bits_per_byte":' \
    '"rates":['; do
    says flat "$part"
done
[ -e runs ] && fail 'kiln plan made a run'

# It ends, in about that time: far from a timed test, but not after an hour either.
SECONDS=0
expect 0 "$KILN" train --data text.txt --minutes 0.1 --out run
[ $SECONDS -lt 60 ] || fail "six seconds took $SECONDS"
for part in 'for 0.1 minutes' 'held out:' 'expected were' 'kiln generate run'; do says stdout "$part"; done
tr -d ' \n' <run/run.json >flat
for part in '"minutes":0.1' '"forecast":{"bits_per_byte":'; do says flat "$part"; done
[ -s run/tokenizer.bin ] || says flat '"vocab":259'
steps=$(sed -n 's/.*"steps":\([0-9][0-9]*\).*/\1/p' flat)
[ "$(wc -l <run/metrics.jsonl)" = "$steps" ] || fail 'run.json counts other steps than metrics.jsonl'
expect 0 "$KILN" generate run -n 20 -p 'The 5 birds'
says stdout 'The 5 birds'
expect 0 "$KILN" verify run

# The same run goes on, for a time; then to its end without one.
expect 0 "$KILN" train --resume run --minutes 0.05 --json
tr -d ' \n' <run/run.json >flat
more=$(sed -n 's/.*"steps":\([0-9][0-9]*\).*/\1/p' flat)
[ "$more" -gt "$steps" ] || fail "no more steps than before: $more"
says flat '"turns":[['
[ "$(wc -l <run/metrics.jsonl)" = "$more" ] || fail 'metrics.jsonl lacks steps'
expect 0 "$KILN" train --resume run
says stdout "already at step $more"

# A model that is there: its sizes, and no forecast. A preset: its sizes, and one.
expect 0 "$KILN" train --data text.txt --model run --minutes 0.05 --out tuned
says stdout 'no loss is foretold'
grep -q forecast tuned/run.json && fail 'a forecast for a model that was trained before'
expect 0 "$KILN" train --data text.txt --minutes 0.05 --dry-run
says stdout 'for 0.05 minutes'

# Killed, and gone on with: the steps that it had were in run.json before the first.
"$KILN" train --data text.txt --minutes 0.2 --out killed >log 2>&1 &
pid=$!
for _ in $(seq 2000); do
    [ -s killed/metrics.jsonl ] && break
    kill -0 $pid 2>/dev/null || break
    sleep 0.01
done
kill -KILL $pid 2>/dev/null || true
wait $pid 2>/dev/null || true
expect 0 "$KILN" train --resume killed --json
tr -d ' \n' <killed/run.json >flat
steps=$(sed -n 's/.*"steps":\([0-9][0-9]*\).*/\1/p' flat)
[ "$(wc -l <killed/metrics.jsonl)" = "$steps" ] || fail 'a killed run has other steps'
expect 0 "$KILN" verify killed

# A process that replaces itself keeps the time.
SECONDS=0
expect 0 "$KILN" train --data text.txt --minutes 0.1 --dim 32 --layers 2 --budget 14 --out short
[ $SECONDS -lt 90 ] || fail "six seconds took $SECONDS"
says stdout 'kernels a process'

# A text that is far too long for the time: of every form only the beginning is tokenized, which is
# said and in run.json; a run that was killed goes on with the same.
for _ in $(seq 80); do cat text.txt; done >long.txt
[ "$(wc -c <long.txt)" -gt 5000000 ] || fail 'long.txt is not long'
sed 's/.*/{"text": "&"}/' long.txt | gzip -1 >long.jsonl.gz
head -n 4000 text.txt >more.txt
small=(--minutes 0.5 --steps 5 --batch 1 --accum 2 --seq 128 --dim 32 --layers 2 --vocab 300)
for data in long.jsonl.gz long.jsonl.gz:2,more.txt:1; do
    rm -rf long
    expect 0 "$KILN" train --data "$data" "${small[@]}" --out long
    says stdout 'it takes'
    tr -d ' \n' <long/run.json >flat
    tokens=$(sed -n 's/.*"data_tokens":\([0-9]*\).*/\1/p' flat)
    got=$(($(cat long/data*.tok | wc -c) / 2))
    [ "$got" -ge $((tokens / 2)) ] || fail "$data: $got tokens, not $tokens"
    [ "$got" -le $((tokens + 300000)) ] || fail "$data: $got tokens, not $tokens"
    grep -qF ' held out;' stdout || fail "$data: nothing is held out"
done
says flat '"data":"long.jsonl.gz:2,more.txt:1"'
rm -rf long
expect 0 "$KILN" train --data long.txt,more.txt "${small[@]}" \
    --val long.jsonl.gz --out long
tr -d ' \n' <long/run.json | grep -F '"data":"long.txt:1000,more.txt:' >/dev/null || fail 'shares are not in run.json'
[ "$(wc -c <long/val.tok)" -lt 2000000 ] || fail 'all of --val was tokenized'
expect 0 "$KILN" verify long
mv long.txt gone.txt
expect 0 "$KILN" train --resume long --steps 7
mv gone.txt long.txt
expect 2 "$KILN" train --resume long --data-tokens 10
# The same without --minutes.
expect 0 "$KILN" train --model run --data long.txt --data-tokens 20000 --steps 1 --batch 1 --accum 1 \
    --seq 64 --out few
[ "$(wc -c <few/data.tok)" -lt 200000 ] || fail 'more tokens than were asked for'
expect 2 "$KILN" train --data long.txt --data-tokens 0

# What cannot be.
printf 'short' >short.txt
expect 1 "$KILN" train --data short.txt --minutes 1
says stderr 'too short'
expect 1 "$KILN" train --data none.txt --minutes 1
expect 2 "$KILN" train --data text.txt --minutes 0
expect 2 "$KILN" train --minutes 1
mkdir bare
cp long/model.bin bare/model.bin
expect 2 "$KILN" train --data text.txt --minutes 1 --model bare/model.bin
says stderr --tokenizer
expect 2 "$KILN" train --resume run --minutes 1 --steps 5
expect 1 "$KILN" train --data text.txt --minutes 1 --memory 1M
says stderr --memory
