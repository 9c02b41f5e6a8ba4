#!/usr/bin/env bash
# kiln plan: tables and JSON of what a window compiles; nothing runs.
. "$ROOT/tests/lib.sh"

seven=(plan --model llama7b --device sim --no-extras --activations all --memory 1T --budget 119
    --overlap off)
# holds NEEDLE: the JSON on stdout, blanks taken out, holds it.
holds() {
    tr -d ' \n' <stdout >flat
    says flat "$1"
}

expect 0 "$KILN" "${seven[@]}" --schedule whole --accum 1 --json
holds '"usable":107'
holds '"compiles":384,"restarts":4,"micro_batches":1'
holds '{"pass":"forward","first_layer":0,"end_layer":17,"kernels":102'
holds '{"pass":"backward","first_layer":17,"end_layer":32,"kernels":90'
for accum in 1 8; do
    expect 0 "$KILN" "${seven[@]}" --schedule split --accum $accum --json --trace
    holds "\"compiles\":161,\"restarts\":2,\"micro_batches\":$accum"
    holds '"action":"restart"'
done
for key in model params budget limit load_limit headroom schedule groups per_window activations \
    policy kept kept_count extra_forward_layers policies memory_bytes weights moments gradients \
    kernels snapshots journal activations_kept activations_live workspace process state_file total \
    flops forward dx dw attention classifier device host time_s compile compute stall restart step \
    zero_stall_accum disk_bytes_per_step; do
    holds "\"$key\":"
done

# with extras: 84 + 3 kernels with weights, attn_bwd2 and softmax; what is on the device
big=(plan --model stories110m --activations all --memory 1T --accum 4)
expect 0 "$KILN" "${big[@]}" --device sim --json
holds '"compiles":89,"restarts":1,'
holds '"weight_mode":"baked","extras":true,"programs_once":0,"surface_bytes":{"written":'
expect 0 "$KILN" "${big[@]}" --device ane --no-extras --json
holds '"compiles":61,"restarts":1,'
holds '"extras":false'
# weights as inputs: nothing is compiled in a window
expect 0 "$KILN" "${big[@]}" --device sim --weight-mode dynamic --budget 12 --json
holds '"compiles":0,"restarts":0,'
holds '"weight_mode":"dynamic","extras":false,"programs_once":10,'
expect 0 "$KILN" "${big[@]}" --device sim --weight-mode dynamic
says stdout '10, compiled when the device is opened'
expect 1 "$KILN" "${big[@]}" --device sim --weight-mode dynamic --budget 11
says stderr '10 programs are compiled once a process, and of budgets of 11 to compile and 11 to load'
expect 0 "$KILN" plan --json
if grep -q surface_bytes stdout; then fail "the cpu has no surfaces"; fi

# as text
expect 0 "$KILN" "${seven[@]}" --schedule whole --accum 1 --trace
says stdout '384 compiles, 4 restarts'
says stdout 'restart        [17,32) forward: 90 kernels do not fit; 5 left'
expect 0 "$KILN" plan
says stdout 'no limit'
says stdout '0 compiles, 0 restarts'

# two sets of 60 kernels with weights and one without do not fit 107: a relay, or nothing
sets=(plan --model stories110m --device ane --no-extras --batch 1 --overlap delayed --memory 1T)
expect 0 "$KILN" "${sets[@]}" --json --trace
holds '"overlap":"delayed","restart":"relay","restart_why":"twokernelsetsdonotfitaprocess","staleness":1,'
holds '"kernel_sets":{"kernels":121,"one_process":false}'
expect 0 "$KILN" "${sets[@]}"
says stdout 'relay: two kernel sets do not fit a process'
expect 2 "$KILN" "${sets[@]}" --restart exec
says stderr 'two kernel sets take 121 kernels in a process and 107 may be used'
expect 0 "$KILN" "${sets[@]}" --restart exec --budget 122 --headroom 0 --json
holds '"restart":"exec","restart_why":null,"staleness":1,"kernel_sets":{"kernels":121,"one_process":true}'
expect 0 "$KILN" plan --model stories15m --device sim --no-extras --batch 1 --overlap delayed --trace
says stdout 'the next generation: 30 kernels beside this window'
expect 0 "$KILN" plan --model stories110m --device ane --no-extras --batch 1 --memory 1T --trace
says stdout 'overlap exact: '
says stdout 'ahead: they fit beside what is loaded'
expect 2 "$KILN" plan --device sim --weight-mode dynamic --overlap delayed
says stderr 'use --overlap exact'

# the state file is as long as the plan says
seq 3000 >text.txt
tiny=(--dim 16 --hidden 32 --heads 2 --kv-heads 2 --layers 2 --vocab 259 --seq 32 --batch 1)
expect 0 "$KILN" train --data text.txt "${tiny[@]}" --steps 1 --out run
size=$(stat -c %s run/state.kiln)
expect 0 "$KILN" plan "${tiny[@]}" --json
holds "\"state_file\":$size,"

# with data: what they are in tokens, windows and steps; of token files it is counted
expect 0 "$KILN" plan --data text.txt "${tiny[@]}" --accum 2
says stdout 'an epoch is about '
says stdout ' of text, 1 bytes a token; tokenizer bytes'
says stdout '5 % are held out'
for i in $(seq 400); do echo "The $i birds sang to the $((i * 7 % 100)) old trees."; done >words.txt
expect 0 "$KILN" tokenize words.txt -o text.tok --train-bpe 270
expect 0 "$KILN" plan --data text.tok --dim 16 --hidden 32 --heads 2 --kv-heads 2 --layers 2 --seq 32 --batch 1 --accum 2 --json
holds '"counted":true'
holds '"vocab":270'
expect 0 "$KILN" train --data text.tok --dim 16 --hidden 32 --heads 2 --kv-heads 2 --layers 2 --seq 32 --batch 1 --steps 1 --out tokens
windows=$(sed -n 's/.* \([0-9,]*\) windows to train on.*/\1/p' stdout | tr -d ,)
holds_windows=$("$KILN" plan --data text.tok --dim 16 --hidden 32 --heads 2 --kv-heads 2 --layers 2 --seq 32 --batch 1 --accum 2 --json |
    tr -d ' \n' | sed -n 's/.*"windows":\([0-9]*\).*/\1/p')
off=$((windows - holds_windows))
[ ${off#-} -le 2 ] ||
    fail "training has $windows windows, the plan $holds_windows"
expect 1 "$KILN" plan --data missing.txt
says stderr missing.txt

refuses() { # CODE WORDS ARGUMENTS...
    local code=$1 words=$2
    shift 2
    expect "$code" "$KILN" plan "$@"
    says stderr "$words"
    [ ! -s stdout ] || fail "plan $* speaks on stdout"
}
refuses 2 '--headroom 1: out of range' --headroom 1
refuses 2 '--budget 0: out of range' --budget 0
refuses 2 'every:0: use every:1' --activations every:0
refuses 2 '--activations most: unknown; use all' --activations most
refuses 2 '--schedule half: unknown; use whole or split' --schedule half
refuses 2 '--device gpu: unknown' --device gpu
refuses 2 '--overlap sometimes: unknown' --overlap sometimes
refuses 2 '--memory much: not a size' --memory much
refuses 1 'needs 6 kernels in one process, and of a budget of 6' --budget 6 --schedule whole
refuses 1 'and --memory is 1048576' --memory 1M
refuses 2 'more than a plan can count' --batch 65536 --seq 1048576 --accum 1048576
refuses 1 'no-such.bin' --model no-such.bin

# over ranks: of a rank of known speed and a link of known speed, figures that are known
cat >node.json <<'END'
{"kiln_profile": 1, "device": "a node", "kind": "cpu", "figures": {
"tflops": {"value": 0.001, "unit": "TFLOP/s", "source": "none"},
"update_gb_s": {"value": 1000, "unit": "GB/s", "source": "none"}}}
END
over=(plan "${tiny[@]}" --accum 4 --memory 1G --activations all --profile node.json)
expect 0 "$KILN" "${over[@]}" --json
if grep -q '"ranks"' stdout; then fail 'ranks that nobody asked about'; fi
expect 0 "$KILN" "${over[@]}" --json --ranks 4 --link-gbit 1000 --link-ms 0
holds '"ranks":{"ranks":4,"link":{"gbit":1000.0,"ms":0.0,"assumed":false},"local_steps":1,"micro_batches":1,'
for key in bytes_sent communication_s hidden_share exposed_s outer_s step_s tokens_per_s speedup \
    efficiency memory_bytes memory_sharded_bytes local_steps_advised scaling weak_efficiency \
    strong_efficiency weak_step_s; do
    holds "\"$key\":"
done
params=$(sed -n 's/.*"model":{[^}]*"params":\([0-9]*\).*/\1/p' flat)
sent=$(sed -n 's/.*"bytes_sent":\([0-9]*\).*/\1/p' flat)
holds '"sum":"direct"'
[ "$sent" = $((params * 4 * 2 * 3 / 4)) ] || fail "$sent bytes are sent of $params parameters"
[ "$(grep -o '"weak_step_s"' flat | wc -l)" = 13 ] || fail 'scaling is not told for 1 to 4096 ranks'
holds '"ranks":4096,"micro_batches":1,'
expect 0 "$KILN" "${over[@]}" --ranks 1
says stdout 'sums             none'
says stdout 'Over 1 rank, each with a link of 1 Gbit/s and 1 ms (assumed: --link-gbit, --link-ms)'
expect 0 "$KILN" "${over[@]}" --json --ranks 17
holds '"sum":"halving"'
expect 0 "$KILN" "${over[@]}" --ranks 5 --link-ms 0.1 --local-steps 50
says stdout '(assumed: --link-gbit)'
says stdout '1 of 4 micro-batches at most; train refuses more ranks than these: raise --accum'
says stdout 'every 50 local steps'
refuses 2 '--ranks 0: out of range' --ranks 0
refuses 2 '--local-steps 0: out of range' --ranks 2 --local-steps 0
refuses 2 '--link-gbit 0: out of range' --ranks 2 --link-gbit 0
refuses 2 '--link-ms -1: out of range' --ranks 2 --link-ms=-1
refuses 2 '--link-gbit fast: not a number' --ranks 2 --link-gbit fast
refuses 2 '--link-gbit is of several ranks; say how many: --ranks N' --link-gbit 10
refuses 2 '--local-steps is of several ranks' --local-steps 10
refuses 2 '--ranks asks about sizes that are known' --ranks 2 --data text.txt --minutes 1
