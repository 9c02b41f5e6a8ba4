#!/usr/bin/env bash
# A run from its first step to a told text; an interrupted one ends as if it had not been.
. "$ROOT/tests/lib.sh"

for i in $(seq 1500); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
done >text.txt
tiny=(--data text.txt --dim 32 --hidden 64 --heads 4 --kv-heads 2 --layers 2 --vocab 259 --seq 64
    --batch 2 --lr 3e-3 --warmup 2)

expect 0 "$KILN" train "${tiny[@]}" --steps 12 --out run --sample-every 6
for part in 'training into run' 'settings, by where they came from' 'step 12/12' 'held-out' \
    'a sample after step 6' 'done: 12 steps' 'kiln train --resume run --steps 24'; do
    says stdout "$part"
done
grep -q $'[\r\033]' stdout && fail 'piped, but the output has what only a terminal reads'
[ "$(wc -l <run/metrics.jsonl)" = 12 ] || fail 'metrics.jsonl has not a line for every step'

# What exists stays as it was.
before=$(cat run/run.json run/metrics.jsonl | cksum)
expect 1 "$KILN" train "${tiny[@]}" --steps 12 --out run
says stderr --resume
[ "$before" = "$(cat run/run.json run/metrics.jsonl | cksum)" ] || fail 'the old run was touched'
expect 2 "$KILN" train --resume run --dim 64
expect 1 "$KILN" train --resume no-such-run
says stderr no-such-run

expect 0 "$KILN" train --resume run
says stdout 'already at step 12 of 12: give more --steps'

# A line that somebody tore is ended before the next one is written, and is named.
cp -r run torn
truncate -s -20 torn/metrics.jsonl
expect 0 "$KILN" report torn
says stdout 'torn: 1 line of metrics.jsonl cannot be read: 12'
expect 0 "$KILN" train --resume torn --steps 14
says stderr 'metrics.jsonl is shorter than it was and ends within a line'
[ "$(wc -l <torn/metrics.jsonl)" = 14 ] || fail 'a step has no line of its own'
[ "$(grep -c '"step":1[34][,}]' torn/metrics.jsonl)" = 2 ] || fail 'a step behind a torn line is lost'
for command in 'doctor' 'inspect'; do
    "$KILN" $command torn >stdout 2>stderr || true
    says stdout '1 line of metrics.jsonl cannot be read: 12'
done
printf 'not of this run' >>torn/metrics.jsonl
expect 0 "$KILN" train --resume torn --steps 15
[ "$(grep -c '"step":15[,}]' torn/metrics.jsonl)" = 1 ] || fail 'bytes of others stayed'
grep -q 'not of this run' torn/metrics.jsonl && fail 'bytes behind the cursor stayed'

# The commands that read a run.
before=$(cksum run/*.* run/checkpoints/*/*)
expect 0 "$KILN" inspect run --json
says stdout '"step": 12'
says stdout '"inside_update": false'
expect 0 "$KILN" inspect run
says stdout 'all finite'
[ "$before" = "$(cksum run/*.* run/checkpoints/*/*)" ] || fail 'inspect changed the run'
expect 0 "$KILN" generate run -n 20 --seed 3
[ -s stdout ] || fail 'the run tells nothing'
expect 0 "$KILN" eval run --data text.txt --windows 8 --json
for key in loss perplexity bits_per_byte tokens; do says stdout "\"$key\": "; done
expect 0 "$KILN" convert run out.bin
expect 0 "$KILN" inspect out.bin

# Stopped, and gone on with: the same weights. Steps are slow enough here to be stopped in between.
expect 0 "$KILN" train "${tiny[@]}" --steps 60 --out whole --json
want=$(sed -n 's/.*"weights_hash": "\([0-9a-f]*\)".*/\1/p' stdout)
"$KILN" train "${tiny[@]}" --steps 60 --out halves >log 2>stderr &
pid=$!
while kill -0 $pid 2>/dev/null && ! grep -q '^step  *[3-9]/' log; do sleep 0.02; done
kill -INT $pid 2>/dev/null || true
got=0
wait $pid || got=$?
if [ $got = 130 ]; then
    says stderr 'kiln train --resume halves'
elif [ $got != 0 ]; then
    cat stderr
    fail "interrupted: exit $got, not 130"
fi
expect 0 "$KILN" train --resume halves --json
says stdout "\"weights_hash\": \"$want\""

# Evaluations read from all over what is held out: its beginning is like what was trained on, its end
# is not.
{
    seq 3000 | sed 's/.*/all day long it rains and rains./'
    for i in $(seq 60); do echo "$((i * 7919 % 10007)) $((i * 104729 % 9973)) $((i * 15485863 % 99991))"; done
} >turns.txt
held_out() {
    expect 0 "$KILN" train --data turns.txt --dim 32 --layers 1 --heads 2 --kv-heads 2 --hidden 64 --vocab 259 \
        --seq 32 --batch 4 --accum 1 --steps 40 --lr 3e-3 --eval-windows "$1" --out "turns$1" --json
    sed -n 's/.*"val_loss": \([0-9]*\)\.\([0-9]\).*/\1\2/p' stdout
}
few=$(held_out 8)
all=$(held_out 100000)
[ $((few * 10)) -gt $((all * 7)) ] || fail "of few windows the loss is $few tenths, of all $all"
