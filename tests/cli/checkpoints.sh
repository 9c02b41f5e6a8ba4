#!/usr/bin/env bash
# What a run keeps beside its state: inspected, verified by training again, found when it is damaged.
. "$ROOT/tests/lib.sh"

for i in $(seq 1500); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
done >text.txt
tiny=(--data text.txt --dim 32 --hidden 64 --heads 4 --kv-heads 2 --layers 2 --vocab 259 --seq 32
    --batch 2 --accum 2 --warmup 2)

# flip FILE OFFSET: change a bit of one byte, or change it back.
flip() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    # shellcheck disable=SC2059 # the byte is the format
    printf "\\x$(printf %x $((byte ^ 16)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

expect 0 "$KILN" train "${tiny[@]}" --steps 10 --save-every 2 --keep-checkpoints 3 --out run
says stdout 'saved step 8: run/checkpoints/step-8/model.bin'
[ "$(echo run/checkpoints/*)" = "$(echo run/checkpoints/step-{4,6,8})" ] ||
    fail "kept: $(echo run/checkpoints/*)"
before=$(cksum run/*.* run/checkpoints/*/*)

# everything of a state and of a checkpoint, as text and as JSON
expect 0 "$KILN" inspect run
for part in 'step 10 of 10' 'embedding gradient' 'metrics_bytes' 'boot_id' 'update 10' 'in_use' \
    'this_boot          yes' 'clean              yes'; do
    says stdout "$part"
done
expect 0 "$KILN" inspect run/state.kiln --json
for part in '"kind": "state"' '"version": 8' '"whole": true' '"phase": "window"' \
    '"stamps": [{"update": 10, "chunks": ' '"damaged": null' '"not_finite": 0'; do
    says stdout "$part"
done
hash=$(sed -n 's/.*"name": "weights", "crc": "\([0-9a-f]*\)".*/\1/p' stdout)
expect 0 "$KILN" inspect run --json
says stdout "\"weights_hash\": \"$hash\""
says stdout '"state": {"kind": "state"'
expect 0 "$KILN" inspect run/checkpoints/step-8
says stdout 'run.json'
expect 0 "$KILN" inspect run/checkpoints/step-8/resume.kiln --json
says stdout '"kind": "checkpoint"'
says stdout '"step": 8'
expect 0 "$KILN" generate run/checkpoints/step-8/model.bin -n 5 --tokenizer bytes

# trained again: the same bits
expect 0 "$KILN" verify run
for part in 'from checkpoint step-4 to step 10' 'checkpoints/step-6' 'checkpoints/step-8' \
    'state.kiln' 'metrics.jsonl' PASS; do
    says stdout "$part"
done
expect 0 "$KILN" verify run --from 6 --steps 2 --threads 1 --json
says stdout '"pass": true'
says stdout '"to": 8'
[ "$before" = "$(cksum run/*.* run/checkpoints/*/*)" ] || fail 'inspect or verify changed the run'
[ "$(find run -name '*tmp*')" = '' ] || fail 'verify left its folder behind'
expect 2 "$KILN" verify
says stderr --reference
expect 2 "$KILN" verify run --precision fp32
expect 2 "$KILN" verify run --device sim
says stderr 'with its own device, not --device'
expect 2 "$KILN" verify run --sim-time 1
expect 2 "$KILN" verify run --reference .
expect 2 "$KILN" verify --reference . --device sim --precision bf16
says stderr 'computes in fp16'
expect 1 "$KILN" verify run --from 5
says stderr 'step 5'
expect 1 "$KILN" verify no-such-run
says stderr no-such-run

# damage is named: in a checkpoint, in the state
size=$(stat -c %s run/checkpoints/step-8/resume.kiln)
flip run/checkpoints/step-8/resume.kiln $((size - 10))
expect 1 "$KILN" inspect run/checkpoints/step-8 --json
says stderr 'v is damaged'
says stdout '"damaged": "checkpoint run/checkpoints/step-8/resume.kiln: v is damaged'
says stdout '"whole": false'
expect 1 "$KILN" verify run
says stdout 'checkpoints/step-8       DIFFER'
says stdout FAIL
says stderr 'v is damaged'
flip run/checkpoints/step-8/resume.kiln $((size - 10))
# damaged AT WORDS: with the byte of state.kiln at AT changed, inspect says WORDS
damaged() {
    flip run/state.kiln "$1"
    expect 1 "$KILN" inspect run/state.kiln
    says stderr "$2"
    expect 1 "$KILN" inspect run
    says stderr "$2"
    flip run/state.kiln "$1"
}
damaged 0 magic
damaged 12 version
damaged 20 crc
damaged 4100 'cursor slot 0 is damaged'
damaged 8200 'cursor slot 1 is damaged'
stamps=$("$KILN" inspect run/state.kiln | sed -n 's/^ *stamps *offset \([0-9]*\) .*/\1/p')
damaged "$stamps" 'stamp of chunk 0'
flip run/state.kiln 20000
expect 1 "$KILN" verify run --from 8
says stderr 'state.kiln: step 10: weights'
flip run/state.kiln 20000
cp run/state.kiln cut.kiln
truncate -s -1 cut.kiln
expect 1 "$KILN" inspect cut.kiln
says stderr truncated
[ "$before" = "$(cksum run/*.* run/checkpoints/*/*)" ] || fail 'the run is not as it was'

# without its state a run still has its checkpoints, and ends as before from the newest
mv run/state.kiln whole.kiln
expect 1 "$KILN" inspect run
says stderr 'kiln inspect run/checkpoints/step-N'
expect 0 "$KILN" inspect run/checkpoints/step-8
expect 0 "$KILN" verify run --from 4 --steps 2
says stdout PASS
expect 0 "$KILN" train --resume run
says stdout 'step 10/10'
expect 0 "$KILN" inspect run/state.kiln --json
says stdout "\"name\": \"weights\", \"crc\": \"$hash\""
expect 0 "$KILN" verify run

# a line of metrics.jsonl that is not of this training
sed -i '7s/"loss":[0-9]/"loss":9/' run/metrics.jsonl
expect 1 "$KILN" verify run
says stdout 'step 7: loss is 9.'
