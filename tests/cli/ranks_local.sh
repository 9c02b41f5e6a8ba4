#!/usr/bin/env bash
# Local steps: what a rank does by itself, the outer step beside a second road, deaths in a round,
# other numbers of ranks, and what is refused.
. "$ROOT/tests/lib.sh"
. "$ROOT/tests/ranks_lib.sh"
small+=(--eval-every 4 --save-every 4)
local=(--local-steps 4)

# lasting RUN: what a death may not change of its metrics, a line a step.
lasting() {
    sed -E 's/^.("step":[^,]*,"loss":[^,]*,"grad_norm":[^,]*,"lr":[^,]*,"tokens":[^,]*),.*/\1/' "$1/metrics.jsonl"
}
identical() { [ "$(lasting "$1")" = "$(lasting "$2")" ] && [ "$(val_losses "$1")" = "$(val_losses "$2")" ]; }

# ---- one is none ----------------------------------------------------------------------------------
expect 0 ranks 2 train "${small[@]}" --steps 12 --out plain --json
plain=$(hash_of stdout)
expect 0 ranks 2 train "${small[@]}" --steps 12 --out one --json --local-steps 1
[ "$(hash_of stdout)" = "$plain" ] || fail "--local-steps 1: other bits than plain steps"

# ---- a local step is one of a run whose windows are the rank's share of them -----------------------
# Rank 0 takes the first 4 micro-batches of 8: in its first step, what a run of 4 takes.
KILN_KILL_AT=update:2 expect 137 ranks 2 train "${small[@]}" --steps 12 --out first "${local[@]}"
KILN_KILL_AT=update:2 expect 137 "$MPI_KILN" train "${small[@]}" --accum 4 --steps 12 --out alone
for what in weights m v; do
    region first/state.kiln "local $what" ours
    region first/ranks/1/state.kiln "local $what" theirs
    region alone/state.kiln "$what" expected
    cmp -s ours expected || fail "rank 0's first local step is not that of its share: $what"
    ! cmp -s ours theirs || fail "two ranks have taken the same local step: $what"
done

# ---- the outer step, in float64, from what two ranks have in front of their second -----------------
expect 0 ranks 2 train "${small[@]}" --steps 12 --out whole --json "${local[@]}"
whole=$(hash_of stdout)
pieces=7 # of 2^14 numbers: points inside an outer step are 5 and one a piece
KILN_KILL_AT=outer:$((6 + pieces)) expect 137 ranks 2 train "${small[@]}" --steps 12 --out cut "${local[@]}"
expect 0 ranks 2 train "${small[@]}" --steps 8 --out two "${local[@]}"
says stdout 'every 4 steps an outer one sends'
says stdout 'outer step: '
for what in weights m v; do
    region cut/state.kiln "$what" "before.$what"
    region cut/state.kiln "local $what" "rank0.$what"
    region cut/ranks/1/state.kiln "local $what" "rank1.$what"
    region two/state.kiln "$what" "after.$what"
done
region cut/state.kiln "outer momentum" before.u
region two/state.kiln "outer momentum" after.u
if (need_python numpy) >/dev/null 2>&1; then
    need_python numpy
    "$PYTHON" - <<'EOF' || fail "the outer step is not that of its formula"
import numpy as np
def load(name):
    return np.fromfile(name, dtype=np.float32).astype(np.float64)
def near(name, is_, should, scale):
    worst = np.abs(is_ - should).max()
    print(f"{name}: worst {worst:.3g}, largest {np.abs(should).max():.3g}")
    assert worst <= 4 * 2.0 ** -24 * scale, name
w, u = load("before.weights"), load("before.u")
mean = w - (load("rank0.weights") + load("rank1.weights")) / 2
assert np.abs(u).max() > 0 and np.abs(mean).max() > 0
momentum = 0.9 * u + mean
near("momentum", load("after.u"), momentum, np.abs(momentum).max() + np.abs(w).max())
near("weights", load("after.weights"), w - 0.7 * (mean + 0.9 * momentum), 2 * np.abs(w).max())
for what in "mv":
    should = (load(f"rank0.{what}") + load(f"rank1.{what}")) / 2
    near(what, load(f"after.{what}"), should, np.abs(should).max())
EOF
fi

# ---- deaths, of either rank, anywhere in a round, in the outer step and behind it -----------------
# Of a run of 3 rounds. "outer" is passed 5 times and once a piece in each outer step.
death() { # RANK POINT
    local words mortal
    rm -rf killed
    words=("$MPI_KILN" train "${small[@]}" --steps 12 --out killed "${local[@]}")
    mortal=(env "KILN_KILL_AT=$2" "${words[@]}")
    if [ "$1" = 0 ]; then
        expect 137 mpirun --oversubscribe --bind-to none -n 1 "${mortal[@]}" : -n 1 "${words[@]}"
    else
        expect 137 mpirun --oversubscribe --bind-to none -n 1 "${words[@]}" : -n 1 "${mortal[@]}"
    fi
    # A commit may leave half a cursor beside a whole one, which is told.
    "$KILN" inspect killed/state.kiln >shown || [[ $2 = commit* ]] || fail "$2 of rank $1: $(cat shown)"
    expect 0 ranks 2 train --resume killed --json
    [ "$(hash_of stdout)" = "$whole" ] || fail "$2 of rank $1: other bits"
    identical killed whole || { diff <(lasting killed) <(lasting whole); fail "$2 of rank $1: other metrics"; }
}
second=$((5 + pieces)) # points of the first outer step
for at in metrics:12 outer:$((second + 1)) outer:$((second + 3)) outer:$((second + 4)) \
    outer:$((second + 5 + pieces)) commit:57 commit:62; do
    death 0 "$at"
done
for at in update:13 outer:$((second + 2)); do
    death 1 "$at"
done
# Twice, the second time while what the first has left is put in place.
rm -rf killed
KILN_KILL_AT=outer:$((second + 6)) expect 137 ranks 2 train "${small[@]}" --steps 12 --out killed "${local[@]}"
"$KILN" inspect killed/state.kiln | grep -q 'phase *outer' || fail "no death inside the outer step"
KILN_KILL_AT=outer:3 expect 137 ranks 2 train --resume killed
expect 0 ranks 2 train --resume killed --json
[ "$(hash_of stdout)" = "$whole" ] || fail "two deaths: other bits"
identical killed whole || fail "two deaths: other metrics"

# ---- others go on from the last outer step; the state is gone -------------------------------------
rm -rf killed
KILN_KILL_AT=update:13 expect 137 ranks 2 train "${small[@]}" --steps 12 --out killed "${local[@]}"
cp -r killed others && cp -r killed lost
expect 0 ranks 3 train --resume others
says stderr 'losses will be others'
[ "$(lasting others | cut -d, -f1 | tr -dc '0-9\n' | tr '\n' ' ')" = "1 2 3 4 5 6 7 8 9 10 11 12 " ] || fail "steps are lost or double"
[ "$(lasting others | head -n 4)" = "$(lasting whole | head -n 4)" ] || fail "the round before is not as it was"
expect 0 "$MPI_KILN" train --resume others --steps 16
[ "$(wc -l <others/metrics.jsonl)" = 16 ] || fail "one rank did not go on"
rm lost/state.kiln
expect 0 ranks 2 train --resume lost --json
says stderr 'training goes on from the checkpoint of step 4'
[ "$(hash_of stdout)" = "$whole" ] || fail "from a checkpoint: other bits"
identical lost whole || fail "from a checkpoint: other metrics"

# ---- stopped inside a round -----------------------------------------------------------------------
ranks 2 train "${small[@]}" --steps 100000 --eval-every 0 --save-every 0 --local-steps 1000 --out stopped >out 2>err &
job=$!
until [ -s stopped/metrics.jsonl ] && [ "$(wc -l <stopped/metrics.jsonl)" -gt 3 ]; do sleep 0.1; done
kill -TERM "$(pgrep -P "$(pgrep -P "$job" mpirun)" | head -n 1)"
wait "$job" && fail "a run that was stopped ended well"
says err 'the run is kept as of the outer step at 0'
lasting stopped >before
expect 0 ranks 2 train --resume stopped --steps $(($(wc -l <before) + 2))
[ "$(lasting stopped | head -n 4)" = "$(head -n 4 before)" ] || fail "steps that are taken again are others"

# ---- it learns ------------------------------------------------------------------------------------
# 30 outer steps from random weights are too few for a momentum of 0.9, whose memory is 10 of them.
longer=("${small[@]}" --steps 120 --eval-every 40 --save-every 0)
expect 0 ranks 2 train "${longer[@]}" --out plain120
expect 0 ranks 2 train "${longer[@]}" --out local120 "${local[@]}" --outer-momentum 0.5
expect 0 ranks 2 train "${longer[@]}" --out narrow120 "${local[@]}" --outer-momentum 0.5 --reduce-precision bf16
for run in local120 narrow120; do
    awk -v plain="$(val_losses plain120 | tail -n 1)" -v local="$(val_losses $run | tail -n 1)" \
        'BEGIN { print "held-out loss: plain", plain, "local", local; exit !(local < plain + 0.1 && local < 0.7) }' ||
        fail "$run did not learn"
done
"$KILN" inspect narrow120/state.kiln --json | grep -q '/r2/bf16-sums/local4"' || fail "no part of the numerics id"
expect 0 ranks 2 train "${small[@]}" --steps 8 --out adapters --model plain --lora 4 "${local[@]}"

# ---- faults are judged by all ---------------------------------------------------------------------
for policy in skip rollback; do
    KILN_PLANT=batch@41 expect 0 ranks 2 train "${small[@]}" --steps 48 --on-spike $policy --spike-z 4 --out "spoilt-$policy" "${local[@]}"
    [ "$(find spoilt-$policy/incidents -mindepth 1 -maxdepth 1 | wc -l)" -ge 1 ] || fail "$policy: no incident"
    [ "$(wc -l <spoilt-$policy/metrics.jsonl)" = 48 ] || fail "$policy: not one line a step"
done

expect 1 "$KILN" explain whole@7
says stderr 'lies inside a round of 4 local steps'
expect 1 "$KILN" verify whole
expect 0 "$MPI_KILN" train "${small[@]}" --steps 12 --out single "${local[@]}"
expect 0 "$KILN" verify single

# ---- what cannot be -------------------------------------------------------------------------------
refuses() {
    local says=$1
    shift
    expect 2 "$MPI_KILN" train "${small[@]}" --steps 8 --out refused "$@"
    says stderr "$says"
    [ ! -e refused ] || fail "a run was made that cannot be"
}
refuses 'depends on the number of ranks' "${local[@]}" --deterministic
refuses 'multiple of --local-steps 3, as 6' --local-steps 3
refuses '--sample-every 6' "${local[@]}" --sample-every 6
refuses '--overlap delayed' "${local[@]}" --overlap delayed
refuses 'use --device cpu' "${local[@]}" --budget 1000
refuses 'use --device cpu' "${local[@]}" --device sim --precision fp16
refuses '--outer-lr is of outer steps' --outer-lr 1
expect 2 ranks 2 train "${small[@]}" --steps 8 --out refused "${local[@]}" --pipeline 2
says stderr '--local-steps --pipeline'
expect 2 "$MPI_KILN" train "${small[@]}" --minutes 1 --out refused "${local[@]}"
says stderr 'give --steps'
expect 2 ranks 2 train --resume plain --steps 24 "${local[@]}"
says stderr 'cannot change when a run is resumed'
