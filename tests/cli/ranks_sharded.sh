#!/usr/bin/env bash
# Weights and moments that are spread over ranks (--shard-optimizer): the bits of a run that is not,
# less memory, deaths, other numbers of ranks, files that are lost.
. "$ROOT/tests/lib.sh"
. "$ROOT/tests/ranks_lib.sh"
need_python struct random

sharded=("${small[@]}" --shard-optimizer)

# ---- the same losses, and the same bits -----------------------------------------------------------
expect 0 "$MPI_KILN" train "${small[@]}" --steps 50 --out one
for n in 2 4; do
    expect 0 ranks $n train "${sharded[@]}" --steps 50 --out "by$n"
    alike one "by$n"
    [ ! -e "by$n/ranks/1/state.kiln" ] || fail "$n ranks: the state of rank 1 is left"
done
says stdout '4, each with 2 of the 8 micro-batches and its part of weights and moments'
expect 0 "$MPI_KILN" train "${small[@]}" --deterministic --steps 30 --out tree1 --json
first=$(hash_of stdout)
for n in 1 2 4; do
    expect 0 ranks "$n" train "${sharded[@]}" --deterministic --steps 30 --out "tree$n.s" --json
    [ "$(hash_of stdout)" = "$first" ] || fail "--deterministic on $n ranks: other bits"
    [ "$(losses "tree$n.s")" = "$(losses tree1)" ] || fail "--deterministic on $n ranks: other losses"
done
cmp tree1/model.bin tree4.s/model.bin || fail "other weights in model.bin"
# Untied, half precision, adapters, one step behind, spikes; devices that compile.
cpu=("--accum 7 --model own.bin" "--precision bf16" "--model one --lora 4" "--overlap delayed --precision bf16")
sim="--device sim --precision fp16 --budget 100000 --load-budget 1000"
cpu+=("$sim --overlap off" "$sim --overlap exact" "$sim --overlap delayed" "$sim --weight-mode dynamic")
make_untied() {
    "$PYTHON" - own.bin <<'PY'
import random, struct, sys
dim, hidden, layers, heads, kv, vocab, seq = 64, 96, 2, 4, 2, 259, 32
head = dim // heads
random.seed(1)
def floats(n, scale=0.05, at=0.0): return struct.pack(f"<{n}f", *(at + random.gauss(0, scale) for _ in range(n)))
with open(sys.argv[1], "wb") as f:
    f.write(struct.pack("<7i", dim, hidden, layers, heads, kv, -vocab, seq))
    f.write(floats(vocab * dim) + floats(layers * dim, 0, 1))
    for n in (dim * dim, kv * head * dim, kv * head * dim, dim * dim): f.write(floats(layers * n))
    f.write(floats(layers * dim, 0, 1))
    for n in (hidden * dim,) * 3: f.write(floats(layers * n))
    f.write(floats(dim, 0, 1) + floats(seq * head // 2 * 2, 0) + floats(vocab * dim))
PY
}
make_untied
for more in "${cpu[@]}"; do
    read -ra words <<<"$more"
    case $more in *--model*) base=(--data text.txt --seq 32 --batch 2 --accum 8 --threads 1 --lr 2e-3 --precision fp32) ;; *) base=("${small[@]}") ;; esac
    rm -rf other other3
    expect 0 "$MPI_KILN" train "${base[@]}" --deterministic --steps 6 --out other --json "${words[@]}"
    alone=$(hash_of stdout)
    expect 0 ranks 3 train "${base[@]}" --deterministic --shard-optimizer --steps 6 --out other3 --json "${words[@]}"
    [ "$(hash_of stdout)" = "$alone" ] || fail "--deterministic $more: other bits on 3 ranks"
done

# ---- stopped, and gone on with by others; checkpoints are whole -----------------------------------
expect 0 ranks 4 train "${sharded[@]}" --deterministic --steps 10 --out more
for next in "3 16" "1 22" "2 30"; do
    read -r n steps <<<"$next"
    expect 0 ranks "$n" train --resume more --steps "$steps" --json
done
[ "$(hash_of stdout)" = "$first" ] || fail "4, 3, 1, then 2 ranks: other bits than one"
[ "$(losses more)" = "$(losses tree1)" ] || fail "4, 3, 1, then 2 ranks: other losses"
expect 0 "$KILN" verify more
expect 0 "$KILN" inspect more/checkpoints/step-20 --json
says stdout '"ranks": 1'
says stdout '"spread": 0'
expect 0 "$KILN" inspect tree4.s/checkpoints/step-20 --json
says stdout '"ranks": 4'

# ---- deaths at chosen instants, of rank 0 and of another: no step is lost, no bit differs --------
# dies N RANK AT: a run of N ranks of which RANK is killed there.
dies() {
    rm -rf killed
    words=("$MPI_KILN" train "${sharded[@]}" --deterministic --steps 30 --out killed)
    mortal=(env "KILN_KILL_AT=$3" "${words[@]}")
    if [ "$2" = 0 ]; then
        expect 137 mpirun --oversubscribe --bind-to none -n 1 "${mortal[@]}" : -n $(($1 - 1)) "${words[@]}"
    else
        expect 137 mpirun --oversubscribe --bind-to none -n $(($1 - 1)) "${words[@]}" : -n 1 "${mortal[@]}"
    fi
}
# goes_on N WHAT: with so many ranks, to the bits of a run that nobody killed.
goes_on() {
    expect 0 ranks "$1" train --resume killed --json
    [ "$(hash_of stdout)" = "$first" ] || fail "$2: other bits"
    [ "$(losses killed)" = "$(losses tree1)" ] || fail "$2: other losses"
}
for at in commit:41 chunk:61 shards:3; do
    dies 2 0 "$at" && goes_on 1 "$at of rank 0 of 2"
done
for at in commit:78 chunk:200 update:8; do
    dies 3 1 "$at" && goes_on 2 "$at of rank 2 of 3"
done
# Nobody gives out a part of the weights as all of them.
dies 2 1 chunk:301
expect 0 "$KILN" inspect killed
says stdout 'lie in the files of 2 ranks'
# A death while it is put together.
for at in chunk:3 rescue:1 rescue:2; do
    expect 137 env "KILN_KILL_AT=$at" "$MPI_KILN" train --resume killed
done
goes_on 3 "deaths while it is put together"
# The shard of a rank is gone, or no shard: said, and the newest checkpoint is gone on with.
for damage in 'rm -f' 'cp killed/state.kiln'; do
    dies 2 0 metrics:27
    expect 0 sh -c "$damage killed/ranks/1/state.kiln"
    expect 0 ranks 2 train --resume killed --json
    says stderr 'weights and moments of rank 1 of 2'
    says stderr 'training goes on from the checkpoint of step 10'
    [ "$(hash_of stdout)" = "$first" ] || fail "$damage: other bits"
done
dies 2 0 metrics:4
rm killed/ranks/1/state.kiln
expect 1 "$MPI_KILN" train --resume killed
says stderr 'all that was trained is lost'

# ---- what goes wrong goes wrong for all -----------------------------------------------------------
export KILN_PLANT=batch@41
for policy in skip rollback; do
    rm -rf spoilt spoilt2
    expect 0 "$MPI_KILN" train "${small[@]}" --deterministic --steps 45 --on-spike $policy --spike-z 4 --out spoilt --json
    alone=$(hash_of stdout)
    expect 0 ranks 2 train "${sharded[@]}" --deterministic --steps 45 --on-spike $policy --spike-z 4 --out spoilt2 --json
    [ "$(hash_of stdout)" = "$alone" ] || fail "--on-spike $policy: other bits on 2 ranks"
    cmp spoilt/incidents/step-41/incident.json spoilt2/incidents/step-41/incident.json ||
        fail "--on-spike $policy: another incident"
done
unset KILN_PLANT

# ---- memory: 12/n bytes a parameter, gradients and the copy that is computed with ------------------
large=(--data text.txt --dim 384 --hidden 1024 --heads 6 --layers 6 --seq 32 --batch 1 --accum 4 --threads 1
    --precision bf16 --save-every 0 --eval-every 0 --shard-optimizer --steps 100000)
ranks 4 train "${large[@]}" --out large >out 2>err &
job=$!
trap 'kill "$job" 2>/dev/null || true' EXIT
until [ -s large/metrics.jsonl ] && [ "$(wc -l <large/metrics.jsonl)" -gt 2 ]; do sleep 0.1; done
parameters=$("$KILN" inspect large --json | sed -n 's/.*"parameters": \([0-9]*\),.*/\1/p' | head -n 1)
embedding=$((384 * 259))
# shard_of BYTES MORE: of a state file, beside gradients and up to MORE bytes that are no parameters.
shard_of() {
    awk -v n="$parameters" -v e="$embedding" -v bytes="$1" -v more="$2" 'BEGIN {
        share = 12 * n / 4; rest = bytes - 4 * n - 4 * e; print rest / share, (rest - more) / share
        exit !(rest > 0.93 * share && rest - more < 1.05 * share) }'
}
journal=$((256 * 24592))
shard_of "$(($(stat -c '%b * %B' large/ranks/1/state.kiln)))" $journal ||
    fail "rank 1: other than 12/4 bytes a parameter on the disk"
for victim in $(pgrep -P "$(pgrep -P "$job" mpirun)"); do
    rss=$(awk '/state\.kiln/ { here = 1; next } /^[0-9a-f]+-/ { here = 0 } here && /^Rss:/ { sum += $2 }
        END { print sum * 1024 }' "/proc/$victim/smaps")
    # Beside what is read the system maps pages up to 64 KiB away: of 8 parts, 3 arrays, both sides.
    shard_of "$rss" $((journal + 48 * 65536)) || fail "other than 12/4 bytes a parameter in memory"
done
kill -TERM "$(pgrep -P "$(pgrep -P "$job" mpirun)" | head -n 1)"
wait "$job" && fail "a run that was stopped ended well"
says err 'and saved; to go on: kiln train --resume large'
expect 0 "$KILN" inspect large --json
says stdout '"spread": 0'

# ---- alone it changes nothing ---------------------------------------------------------------------
expect 0 "$KILN" train "${sharded[@]}" --steps 2 --out alone
expect 2 "$KILN" train --resume alone --shard-optimizer --steps 3
says stderr 'cannot change when a run is resumed'
expect 0 "$KILN" plan --model stories15m --ranks 4 --shard-optimizer
says stdout 'of weights and moments its part'

# ---- what it does not go with ---------------------------------------------------------------------
for with in "--pipeline 2" "--local-steps 4" "--reduce-precision bf16"; do
    read -ra words <<<"$with"
    expect 2 ranks 2 train "${sharded[@]}" --steps 4 --out with --shard-optimizer "${words[@]}"
    says stderr '--shard-optimizer'
    [ ! -e with ] || fail "$with: a run was made"
    expect 2 "$KILN" plan --model stories15m --ranks 4 --shard-optimizer "${words[@]}"
    says stderr '--shard-optimizer'
done
