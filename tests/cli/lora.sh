#!/usr/bin/env bash
# Adapters from the command line: trained, stopped, resumed, written, read back, merged.
. "$ROOT/tests/lib.sh"

# ---- wrong usage: exit 2 with what is valid ------------------------------------------------------
echo 'some text' >text.txt
expect 2 "$KILN" train --model stories15m --data text.txt --lora 0
says stderr 'use 1 to 1024'
expect 2 "$KILN" train --model stories15m --data text.txt --lora 8 --lora-targets q,x
says stderr 'use q, k, v, o, gate, up and down with commas between, or all'
expect 2 "$KILN" train --data text.txt --lora 8
says stderr 'name it with --model'
expect 2 "$KILN" train --model stories15m --data text.txt --lora-alpha 4
says stderr 'add --lora RANK'
expect 2 "$KILN" train --model stories15m --data text.txt --lora 8 --overlap delayed
says stderr 'use --overlap exact or off'
expect 2 "$KILN" train --model stories15m --data text.txt --lora 8 --dw gpu
says stderr 'use --dw cpu'

# ---- what a plan says ----------------------------------------------------------------------------
bytes_of() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" stdout | head -n 1; }
expect 0 "$KILN" plan --model stories110m --json
whole=$(bytes_of moments)
expect 0 "$KILN" plan --model stories110m --lora 8 --json
few=$(bytes_of moments)
[ $((few * 100)) -lt "$whole" ] || fail "moments of adapters: $few bytes, of the whole model $whole"

# ---- a run ---------------------------------------------------------------------------------------
need "$KILN_DATA/stories260K.bin"
need "$KILN_DATA/tinyshakespeare.txt"
head -c 200000 "$KILN_DATA/tinyshakespeare.txt" >plays.txt
tuned=(--model "$KILN_DATA/stories260K.bin" --data plays.txt --tokenizer "$KILN_DATA/tok512.bin"
    --lora 8 --lora-alpha 16 --lora-targets "q,v,down" --precision fp32 --batch 4 --accum 1 --seq 64
    --lr 3e-3 --warmup 2 --steps 40 --eval-every 20 --save-every 15 --threads 2)
expect 0 "$KILN" train "${tuned[@]}" --out whole --json
want=$(sed -n 's/.*"weights_hash": "\([0-9a-f]*\)".*/\1/p' stdout)

first=$(sed -n '1s/.*"loss": *\([0-9.]*\).*/\1/p' whole/metrics.jsonl)
last=$(sed -n '$s/.*"loss": *\([0-9.]*\).*/\1/p' whole/metrics.jsonl)
awk -v a="$first" -v b="$last" 'BEGIN { exit !(b < a - 0.3) }' || fail "loss $first, then $last"

# Stopped and resumed: the same weights, with another number of threads.
started run "$KILN" train "${tuned[@]}" --out run
kill -INT "$pid"
ends 130
expect 0 "$KILN" train --resume run --threads 1 --json
says stdout "\"weights_hash\": \"$want\""
expect 0 "$KILN" inspect run/state.kiln
says stdout 'q,v,down'

# ---- out and in ----------------------------------------------------------------------------------
loss_of() { expect 0 "$KILN" eval "$@" --data plays.txt --precision fp32 --windows 20 --json
    sed -n 's/.*"loss": *\([0-9.]*\).*/\1/p' stdout; }
base=("$KILN_DATA/stories260K.bin" --tokenizer "$KILN_DATA/tok512.bin")
merged=$(loss_of whole)
[ "$(loss_of "${base[@]}" --adapter whole/adapter)" = "$merged" ] || fail 'base plus adapter is not merged'
[ "$(loss_of "${base[@]}")" != "$merged" ] || fail 'the adapters do nothing'
# A run's adapters are in its model: never a second time.
cp -r whole moved
for model in whole whole/model.bin whole/checkpoints/step-30/model.bin moved; do
    expect 2 "$KILN" eval $model --adapter whole/adapter --data plays.txt --windows 2 --tokenizer "$KILN_DATA/tok512.bin"
    says stderr 'in it already'
done
expect 2 "$KILN" generate whole --adapter whole/adapter -p 'ROMEO' -n 8
expect 2 "$KILN" convert whole twice.bin --adapter whole/adapter
[ ! -e twice.bin ] || fail 'it was written'
expect 0 "$KILN" convert whole adapter --only-adapter
cmp adapter/adapter_model.safetensors whole/adapter/adapter_model.safetensors
expect 0 "$KILN" convert "$KILN_DATA/stories260K.bin" merged.bin --adapter adapter
cmp merged.bin whole/model.bin
expect 1 "$KILN" convert whole adapter --only-adapter
says stderr 'exists already'
expect 0 "$KILN" convert whole/checkpoints/step-30 step --only-adapter
[ "$(loss_of "${base[@]}" --adapter step)" = "$(loss_of whole/checkpoints/step-30 --tokenizer "$KILN_DATA/tok512.bin")" ] ||
    fail "a checkpoint is not base plus its adapters"
expect 0 "$KILN" generate "${base[@]}" --adapter adapter -p 'ROMEO' -n 8 -t 0

# Trained on from a folder; what does not fit it is told with what does.
expect 2 "$KILN" train "${tuned[@]}" --lora 4 --adapter adapter --out other
says stderr '--lora 8 --lora-alpha 16 --lora-targets q,v,down'
expect 0 "$KILN" train "${tuned[@]}" --steps 2 --warmup 1 --adapter adapter --out other
now=$(sed -n '1s/.*"loss": *\([0-9.]*\).*/\1/p' other/metrics.jsonl)
awk -v a="$first" -v b="$now" 'BEGIN { exit !(b < a - 0.3) }' || fail "begins at $now, not where adapters were"

# ---- damaged -------------------------------------------------------------------------------------
truncate -s -4 adapter/adapter_model.safetensors
expect 1 "$KILN" eval "${base[@]}" --adapter adapter --data plays.txt
sed -i 's/"q_proj"/"x_proj"/' step/adapter_config.json
expect 1 "$KILN" eval "${base[@]}" --adapter step --data plays.txt
says stderr 'x_proj'
