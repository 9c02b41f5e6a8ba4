#!/usr/bin/env bash
# Pipelines of several ranks, on this machine, through a build with MPI: the same losses and bits as
# one process, whatever the stages; budgets that one process cannot keep; deaths.
. "$ROOT/tests/lib.sh"
. "$ROOT/tests/ranks_lib.sh"
small+=(--layers 4)

# same WHAT N STAGES FLAGS...: the bits of one process, with the same flags.
same() {
    local what=$1 n=$2 stages=$3
    shift 3
    rm -rf other
    expect 0 "$MPI_KILN" train "${small[@]}" --steps 8 "$@" --out other --json
    hash_of stdout >wanted
    rm -rf other
    expect 0 ranks "$n" train "${small[@]}" --steps 8 "$@" --pipeline "$stages" --out other --json
    [ "$(hash_of stdout)" = "$(cat wanted)" ] || fail "$what: $stages stages on $n ranks: other bits"
}

# ---- the same losses, and the same bits ---------------------------------------------------------
expect 0 "$MPI_KILN" train "${small[@]}" --steps 50 --out one --json
one=$(hash_of stdout)
expect 0 "$MPI_KILN" train "${small[@]}" --deterministic --steps 50 --out tree --json
tree=$(hash_of stdout)
for grid in "2 2" "4 4" "4 2"; do
    read -r n stages <<<"$grid"
    expect 0 ranks "$n" train "${small[@]}" --pipeline "$stages" --steps 50 --out "p$n-$stages" --json
    alike one "p$n-$stages"
    # One replica adds micro-batches in the order of one process.
    [ "$n" != "$stages" ] || [ "$(hash_of stdout)" = "$one" ] || fail "$stages stages: other bits"
    [ "$(wc -l <"p$n-$stages/ranks/1/metrics.jsonl")" = 50 ] || fail "$grid: rank 1 kept no metrics"
    expect 0 ranks "$n" train "${small[@]}" --deterministic --pipeline "$stages" --steps 50 --out "t$n-$stages" --json
    [ "$(hash_of stdout)" = "$tree" ] || fail "--deterministic, $stages stages on $n ranks: other bits"
    [ "$(losses "t$n-$stages")" = "$(losses tree)" ] || fail "--deterministic, $stages stages on $n ranks: other losses"
done
grep -q '"pass","ph":"X"\|"name":"pass"' p4-4/trace.json || fail "the trace shows no activations on their way"

same "a number that is no power of two" 4 2 --deterministic --accum 7
same "fewer micro-batches than stages" 4 4 --accum 2
same "three layers" 2 2 --layers 3
same "half precision" 4 4 --precision bf16
same "documents" 2 2 --doc-mask
same "nothing kept" 4 2 --activations none --deterministic
same "adapters" 4 2 --model one --lora 4 --deterministic
if [ -d "$KILN_REFERENCE/tiny-gqa-untied" ]; then # a head of its own
    untied=("--model" "$KILN_REFERENCE/tiny-gqa-untied/model.bin" "--data" "$KILN_REFERENCE/tiny-gqa-untied/tokens.u16"
        --steps 10 --batch 2 --accum 4 --threads 1 --precision fp32 --json)
    expect 0 "$MPI_KILN" train "${untied[@]}" --out untied
    hash_of stdout >wanted
    expect 0 ranks 3 train "${untied[@]}" --pipeline 3 --out untied3
    [ "$(hash_of stdout)" = "$(cat wanted)" ] || fail "untied, 3 stages: other bits"
fi

# ---- devices that bake --------------------------------------------------------------------------
sim=(--device sim --precision fp16 --dim 32 --hidden 48)
for overlap in exact delayed; do
    same "sim, --overlap $overlap" 2 2 "${sim[@]}" --budget 100000 --load-budget 1000 --overlap $overlap
done
same "sim, weights as inputs" 4 4 "${sim[@]}" --weight-mode dynamic
# Adapters: a rank compiles its own layers, once; alone the process is replaced twice a step.
expect 0 "$MPI_KILN" train "${small[@]}" "${sim[@]}" --budget 100000 --load-budget 1000 --steps 2 --out base
adapters=(--model base --lora 4 --budget 22 --steps 20)
expect 0 "$MPI_KILN" train "${small[@]}" "${sim[@]}" "${adapters[@]}" --out alone --json
hash_of stdout >wanted
[ "$(sed -n '$s/.*"restarts":\([0-9]*\),.*/\1/p' alone/metrics.jsonl)" -ge 20 ] || fail "one process held all kernels"
expect 2 ranks 2 train "${small[@]}" "${sim[@]}" "${adapters[@]}" --out refused
says stderr 'MPI does not allow'
expect 0 ranks 2 train "${small[@]}" "${sim[@]}" "${adapters[@]}" --pipeline 2 --out stages --json
[ "$(hash_of stdout)" = "$(cat wanted)" ] || fail "adapters on sim: other bits"
[ "$(sed -n '$s/.*"restarts":\([0-9]*\),.*/\1/p' stages/metrics.jsonl)" = 0 ] || fail "a stage restarts"
[ "$(sed -n '2s/.*"compiles":\([0-9]*\),.*/\1/p' stages/metrics.jsonl)" = 0 ] || fail "a stage compiles again"
# All weights: new kernels each step; a process lasts as many times longer as there are stages.
expect 2 ranks 4 train "${small[@]}" "${sim[@]}" --budget 119 --steps 8 --out refused
says stderr 'MPI does not allow'
expect 0 ranks 4 train "${small[@]}" "${sim[@]}" --budget 119 --steps 8 --pipeline 4 --out lasts
expect 2 ranks 4 train "${small[@]}" "${sim[@]}" --budget 119 --steps 800 --pipeline 4 --out refused
says stderr 'more stages'

# ---- stopped, and gone on with by others --------------------------------------------------------
expect 0 ranks 2 train "${small[@]}" --deterministic --steps 20 --pipeline 2 --out more
expect 0 ranks 4 train --resume more --steps 30 --pipeline 4
expect 0 ranks 4 train --resume more --steps 35 --pipeline 2
expect 0 ranks 3 train --resume more --steps 40 --pipeline 1
expect 2 "$MPI_KILN" train --resume more --steps 50 --pipeline 2
says stderr 'give --pipeline 1'
expect 0 "$MPI_KILN" train --resume more --steps 50 --pipeline 1 --json
[ "$(hash_of stdout)" = "$tree" ] || fail "other stages on the way: other bits"
[ "$(losses more)" = "$(losses tree)" ] || fail "other stages on the way: other losses"

# ---- a rank that dies, at an instant of its own and at one of rank 0 ------------------------------
for stage in 0 2; do
    ranks 3 train "${small[@]}" --steps 100000 --eval-every 0 --save-every 0 --pipeline 3 --out "dies$stage" >out 2>err &
    job=$!
    until [ -s "dies$stage/metrics.jsonl" ] && [ "$(wc -l <"dies$stage/metrics.jsonl")" -gt 5 ]; do sleep 0.1; done
    victim=$(pgrep -P "$(pgrep -P "$job" mpirun)" | sed -n $((stage + 1))p)
    kill -KILL "$victim"
    start=$SECONDS
    wait "$job" && fail "mpirun says that all is well"
    [ $((SECONDS - start)) -le 10 ] || fail "the others ended after $((SECONDS - start)) s"
    grep -q "rank [0-2] of 3 is gone (process $victim on" err || {
        cat err
        fail "nobody names the rank"
    }
    n=$(wc -l <"dies$stage/metrics.jsonl")
    expect 0 ranks 2 train --resume "dies$stage" --pipeline 2 --steps $((n + 5))
    [ "$(wc -l <"dies$stage/metrics.jsonl")" = $((n + 5)) ] || fail "steps are lost or double"
done
for at in commit:40 update:5; do
    rm -rf killed
    words=("$MPI_KILN" train "${small[@]}" --deterministic --steps 50 --pipeline 2 --out killed)
    expect 137 mpirun --oversubscribe --bind-to none -n 1 env "KILN_KILL_AT=$at" "${words[@]}" : -n 1 "${words[@]}"
    expect 0 ranks 4 train --resume killed --pipeline 4 --json
    [ "$(hash_of stdout)" = "$tree" ] || fail "$at of rank 0: other bits"
done

# ---- what goes wrong goes wrong for all ---------------------------------------------------------
export KILN_PLANT=batch@4
for policy in skip rollback; do
    same "--on-spike $policy" 2 2 --steps 12 --on-spike $policy --spike-z 4 --deterministic
done
unset KILN_PLANT

# ---- what is said of it, and what cannot be -----------------------------------------------------
expect 0 ranks 4 train "${small[@]}" --steps 3 --pipeline 2 --out said
says stdout '2 stages of 2 layers at most, on 2 ranks each'
says stdout 'planned'
expect 0 "$MPI_KILN" train "${small[@]}" --pipeline 2 --dry-run
says stdout '2 stages of 2 layers at most, each of 1 rank, in 1F1B order'
expect 2 ranks 2 train "${small[@]}" --steps 2 --pipeline 5 --out many
says stderr 'a model of 4 layers has no more stages'
expect 2 ranks 3 train "${small[@]}" --steps 2 --pipeline 2 --out odd
says stderr '3 ranks are no multiple of that'
expect 2 "$MPI_KILN" train "${small[@]}" --steps 2 --pipeline 2 --out lonely
says stderr 'start it with mpirun -n 2'
expect 2 ranks 4 train "${small[@]}" --accum 1 --steps 2 --pipeline 2 --out few
says stderr '2 replicas of each stage, but a window has 1 micro-batches'
expect 2 ranks 2 train --data text.txt --minutes 1 --pipeline 2 --out minutes
says stderr '--minutes measures whole models'
[ ! -e few ] || fail "a run was made that cannot be"
