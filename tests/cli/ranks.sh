#!/usr/bin/env bash
# Runs of several ranks, on this machine, through a build with MPI: the same losses and, with
# --deterministic, the same bits as alone; deaths; other numbers of ranks.
. "$ROOT/tests/lib.sh"
. "$ROOT/tests/ranks_lib.sh"

# ---- the same losses ------------------------------------------------------------------------------
expect 0 "$MPI_KILN" train "${small[@]}" --steps 50 --out one
for n in 2 3 4; do
    expect 0 ranks $n train "${small[@]}" --steps 50 --out "by$n"
    alike one "by$n"
    [ "$(wc -l <"by$n/metrics.jsonl")" = 50 ] || fail "$n ranks: not one line a step"
    [ "$(wc -l <"by$n/ranks/1/metrics.jsonl")" = 50 ] || fail "$n ranks: rank 1 kept no metrics"
    [ ! -e "by$n/ranks/1/state.kiln" ] || fail "$n ranks: the state of rank 1 is left"
    [ -s "by$n/model.bin" ] || fail "$n ranks: no model"
done
# All is said once.
[ "$(grep -c 'done: 50 steps' stdout)" = 1 ] || fail "more than one rank speaks"
says stdout '4, each with 2 of the 8 micro-batches'

# ---- the same bits --------------------------------------------------------------------------------
for n in 1 2 3 4; do
    expect 0 ranks "$n" train "${small[@]}" --deterministic --steps 50 --out "tree$n" --json
    [ "$n" = 1 ] && first=$(hash_of stdout)
    [ "$(hash_of stdout)" = "$first" ] || fail "--deterministic on $n ranks: other bits"
    [ "$(losses "tree$n")" = "$(losses tree1)" ] || fail "--deterministic on $n ranks: other losses"
done
alike one tree1
# A number that is no power of two, half precision, a context of documents, adapters.
for more in "--accum 7" "--precision bf16" "--doc-mask --eval-windows 3" "--model one --lora 4"; do
    read -ra words <<<"$more"
    for n in 1 3; do
        rm -rf other
        expect 0 ranks "$n" train "${small[@]}" --deterministic --steps 10 --out other --json "${words[@]}"
        [ "$n" = 1 ] && first_other=$(hash_of stdout)
    done
    [ "$(hash_of stdout)" = "$first_other" ] || fail "--deterministic $more: other bits on 3 ranks"
done

# ---- stopped, and gone on with by others ----------------------------------------------------------
expect 0 ranks 2 train "${small[@]}" --deterministic --steps 20 --out more
expect 0 ranks 4 train --resume more --steps 35 --json
expect 0 "$MPI_KILN" train --resume more --steps 50 --json
[ "$(hash_of stdout)" = "$first" ] || fail "2, then 4 ranks, then one: other bits than one"
[ "$(losses more)" = "$(losses tree1)" ] || fail "2, then 4 ranks, then one: other losses"
expect 0 "$KILN" verify more
# Without it the run goes on, and says that its sums have another order.
expect 0 ranks 3 train --resume by2 --steps 55
says stderr 'losses may differ in the last digits'
ranks 2 train "${small[@]}" --steps 100000 --eval-every 0 --out stopped >out 2>err &
job=$!
until [ -s stopped/metrics.jsonl ]; do sleep 0.1; done
kill -TERM "$(pgrep -P "$(pgrep -P "$job" mpirun)" | head -n 1)"
wait "$job" && fail "a run that was stopped ended well"
says err 'and saved; to go on: kiln train --resume stopped'
expect 0 ranks 2 train --resume stopped --steps $(($(wc -l <stopped/metrics.jsonl) + 2))

# ---- a rank that dies -----------------------------------------------------------------------------
ranks 4 train "${small[@]}" --steps 100000 --eval-every 0 --save-every 0 --out dies >out 2>err &
job=$!
until [ -s dies/metrics.jsonl ] && [ "$(wc -l <dies/metrics.jsonl)" -gt 5 ]; do sleep 0.1; done
victim=$(pgrep -P "$(pgrep -P "$job" mpirun)" | sed -n 3p)
kill -KILL "$victim"
start=$SECONDS
wait "$job" && fail "mpirun says that all is well"
[ $((SECONDS - start)) -le 10 ] || fail "the others ended after $((SECONDS - start)) s"
grep "rank [0-3] of 4 is gone (process $victim on" err >/dev/null || {
    cat err
    fail "nobody names the rank"
}
done_before=$(wc -l <dies/metrics.jsonl)
expect 0 ranks 3 train --resume dies --steps $((done_before + 20)) --json
[ "$(wc -l <dies/metrics.jsonl)" = $((done_before + 20)) ] || fail "steps are lost or double"
[ "$(sed -n 's/.*"step":\([0-9]*\),.*/\1/p' dies/metrics.jsonl | sort -n | uniq -d | wc -l)" = 0 ] ||
    fail "a step is there twice"

# ---- deaths at chosen instants, of rank 0 and of another: no step is lost, no bit differs --------
for at in commit:40 chunk:60 update:5 metrics:8 commit:77; do
    for dies in 0 1; do
        rm -rf killed
        words=("$MPI_KILN" train "${small[@]}" --deterministic --steps 50 --out killed)
        mortal=(env "KILN_KILL_AT=$at" "${words[@]}")
        if [ $dies = 0 ]; then
            expect 137 mpirun --oversubscribe --bind-to none -n 1 "${mortal[@]}" : -n 1 "${words[@]}"
        else
            expect 137 mpirun --oversubscribe --bind-to none -n 1 "${words[@]}" : -n 1 "${mortal[@]}"
        fi
        expect 0 ranks $((2 + dies)) train --resume killed --json
        [ "$(hash_of stdout)" = "$first" ] || fail "$at of rank $dies: other bits"
        [ "$(losses killed)" = "$(losses tree1)" ] || fail "$at of rank $dies: other losses"
    done
done

# ---- what goes wrong goes wrong for all -----------------------------------------------------------
export KILN_PLANT=batch@41
for policy in skip rollback; do
    for n in 1 2; do
        rm -rf spoilt
        expect 0 ranks $n train "${small[@]}" --deterministic --steps 50 --on-spike $policy --spike-z 4 --out spoilt --json
        [ "$n" = 1 ] && alone=$(hash_of stdout)
        [ "$(find spoilt/incidents -mindepth 1 -maxdepth 1 | wc -l)" = 1 ] || fail "$policy on $n ranks: no incident"
    done
    [ "$(hash_of stdout)" = "$alone" ] || fail "--on-spike $policy: other bits on 2 ranks"
    [ "$alone" != "$first" ] || fail "--on-spike $policy: nothing happened"
done
unset KILN_PLANT

# ---- the arithmetic, through two ranks ------------------------------------------------------------
if [ -d "$KILN_REFERENCE/tiny-mha" ]; then
    expect 0 ranks 2 verify --reference "$KILN_REFERENCE/tiny-mha" --precision fp32
    says stdout PASS
    [ "$(grep -c PASS stdout)" = 1 ] || fail "more than one rank speaks"
    expect 0 ranks 2 verify --reference "$KILN_REFERENCE/tiny-mha" --precision fp32 --overlap delayed
    expect 1 ranks 2 verify --reference "$KILN_REFERENCE/absent" --precision fp32
fi

# ---- a device that compiles, with budget enough, and one whose budget is spent --------------------
sim=(--device sim --precision fp16 --budget 100000 --load-budget 1000 --weight-mode baked)
for overlap in off exact delayed; do
    expect 0 "$MPI_KILN" train "${small[@]}" "${sim[@]}" --overlap $overlap --deterministic --steps 6 --out "sim-$overlap" --json
    one_sim=$(hash_of stdout)
    expect 0 ranks 3 train "${small[@]}" "${sim[@]}" --overlap $overlap --deterministic --steps 6 --out "sims-$overlap" --json
    [ "$(hash_of stdout)" = "$one_sim" ] || fail "sim, --overlap $overlap: other bits on 3 ranks"
done

# ---- a time, and nothing else ---------------------------------------------------------------------
expect 0 ranks 2 train --data text.txt --minutes 0.1 --out minutes
says stdout '2 ranks: each takes'
says stdout 'expected were'
[ $(($(sed -n 's/.*"accum": \([0-9]*\),/\1/p' minutes/run.json) % 2)) = 0 ] || fail "--minutes: uneven shares"
[ "$(wc -l <minutes/metrics.jsonl)" = "$(sed -n 's/.*"steps": \([0-9]*\),/\1/p' minutes/run.json)" ] ||
    fail "--minutes: run.json counts other steps than there were"

# ---- what cannot be -------------------------------------------------------------------------------
expect 2 ranks 4 train "${small[@]}" --accum 3 --steps 2 --out few
says stderr '4 ranks, but a window has 3 micro-batches (--accum)'
[ ! -e few ] || fail "a run was made that cannot be"
expect 2 ranks 2 train "${small[@]}" --precision fp16 --device sim --steps 200 --out baked
says stderr 'MPI does not allow'
expect 2 ranks 2 train --data text.txt --minutes 1 --accum 1 --out few
says stderr '2 ranks, but a window has 1 micro-batches (--accum)'
words=("$MPI_KILN" train "${small[@]}" --steps 2 --out unlike)
expect 1 mpirun --oversubscribe --bind-to none -n 1 "${words[@]}" : -n 1 env KILN_CPU=ref "${words[@]}"
says stderr 'rank 1 (on'
says stderr 'computes as cpu/fp32/ref/'
OMPI_COMM_WORLD_SIZE=2 expect 1 "$KILN" train "${small[@]}" --steps 2 --out alone
says stderr 'built without MPI'
