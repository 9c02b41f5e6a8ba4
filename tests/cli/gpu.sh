#!/usr/bin/env bash
# Weight gradients on an OpenCL device, PoCL for one: a run from its first step to a resume, against
# the references, and what is said where something is missing.
. "$ROOT/tests/lib.sh"

for i in $(seq 1500); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
done >text.txt
tiny=(--data text.txt --dim 32 --hidden 64 --heads 4 --kv-heads 2 --layers 2 --vocab 259 --seq 64
    --batch 2 --accum 2 --lr 3e-3 --warmup 2 --eval-every 0 --save-every 2)

# What is wrong whatever the machine has.
expect 2 "$KILN" train "${tiny[@]}" --dw npu --out run
says stderr '--dw npu: unknown; use cpu or gpu'
[ ! -e run ] || fail 'wrong usage left a run behind'
expect 1 env KILN_OPENCL=/nowhere/libOpenCL.so "$KILN" train "${tiny[@]}" --dw gpu --out run
says stderr 'KILN_OPENCL=/nowhere/libOpenCL.so cannot be opened'
[ ! -e run ] || fail 'a run without its GPU was left behind'
expect 0 "$KILN" plan --model stories15m --dw gpu --json
says stdout '"gpu": '
expect 0 "$KILN" plan --model stories15m
grep -q '^  gpu ' stdout && fail 'the plan lists a GPU that nobody asked for'

code=0
"$KILN" train "${tiny[@]}" --steps 4 --dw gpu --threads 2 --out run >stdout 2>stderr || code=$?
if [ $code = 1 ] && grep -q 'needs OpenCL\|needs CLBlast\|knows no platform\|and no device' stderr; then
    skip "$(cat stderr) (scripts/setup --gpu)"
fi
[ $code = 0 ] || { cat stderr; fail "exit $code, not 0"; }
says stdout 'weight gradients on '
says stdout 'dw=gpu'
expect 0 "$KILN" inspect run
grep -qE '^ +dw +gpu$' stdout || fail 'inspect does not show the setting'
expect 0 "$KILN" inspect run --json
grep -q '"numerics": "cpu/[^"]*/gpu-[0-9a-f]*/b2' stdout || fail 'the numerics id is silent'
want=$(sed -n 's/.*"weights_hash": "\([0-9a-f]*\)".*/\1/p' stdout)

# Once more, by another number of threads: this driver gives the same bits.
expect 0 "$KILN" train "${tiny[@]}" --steps 4 --dw gpu --threads 1 --out again --json
says stdout "\"weights_hash\": \"$want\""
expect 0 "$KILN" verify run --steps 2

# On the CPU the last digits differ, and little more.
expect 0 "$KILN" train "${tiny[@]}" --steps 4 --threads 2 --out cpu
last() { sed -n '$s/.*"loss":\([0-9.]*\).*/\1/p' "$1/metrics.jsonl"; }
awk -v a="$(last run)" -v b="$(last cpu)" 'BEGIN { d = a - b; exit !(d * d < 1e-8 * b * b) }' ||
    fail "losses are apart: $(last run) and $(last cpu)"

# The GPU is gone: the run goes on without it, and says what that means.
expect 1 env KILN_GPU='a name that no device has' "$KILN" train --resume run --steps 6
says stderr 'KILN_GPU=a name that no device has is part of no device'
says stderr 'there are: '
expect 0 "$KILN" train --resume run --steps 6 --dw cpu
grep -q 'losses may differ in the last' stdout stderr || fail 'a resume elsewhere says nothing'
expect 0 "$KILN" train --resume run --steps 8 --dw gpu

# A simulated Neural Engine, whose host queue goes to the GPU; with restarts in its windows.
expect 0 "$KILN" train "${tiny[@]}" --steps 3 --device sim --no-extras --budget 8 --dw gpu --out sim
says stdout 'weight gradients on '
for reference in tiny-mha tiny-gqa-untied; do
    [ -e "${KILN_REFERENCE:-}/$reference" ] || continue
    expect 0 "$KILN" verify --reference "$KILN_REFERENCE/$reference" --dw gpu
    expect 0 "$KILN" verify --reference "$KILN_REFERENCE/$reference" --dw gpu --precision fp32
    expect 0 "$KILN" verify --reference "$KILN_REFERENCE/$reference" --dw gpu --device sim
done
