#!/usr/bin/env bash
# kiln explain: what is planted in a run is named, with the flight recorder's incident and without;
# a healthy step says so; what cannot be explained is refused.
. "$ROOT/tests/lib.sh"

for i in $(seq 600); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
done >text.txt
tiny=(--data text.txt --dim 32 --hidden 64 --heads 4 --kv-heads 2 --layers 4 --vocab 259 --seq 32 --batch 2
    --accum 2 --lr 3e-3 --warmup 2 --eval-every 0 --save-every 10 --threads 2)

# value FILE KEY: of the one JSON object that FILE is; the first of that name.
value() { sed -nE "s/.*[{ ]\"$2\": (\"([^\"]*)\"|([^,}]*)).*/\2\3/p" <(sed -E "s/, \"/,\n \"/g" "$1") | head -n 1; }
is() { [ "$(value "$1" "$2")" = "$3" ] || fail "$2 is $(value "$1" "$2"), not $3: $(head -c 700 "$1")"; }

# ---- a weight ---------------------------------------------------------------------------------

# one weight of layer 3 is planted: the run stops, says where to look, and is explained
expect 1 env KILN_PLANT=weight:w1.3@12 "$KILN_TEST_PROGRAM" train "${tiny[@]}" --steps 20 --on-spike stop --out weight
says stderr 'kiln explain weight@12'
expect 0 "$KILN" explain weight
says stdout 'loss is not finite     stopped'
expect 0 "$KILN" explain weight --json
is stdout step 12
is stdout weights true
expect 0 "$KILN" explain weight@12
says stdout 'weight@12: loss is not finite'
says stdout 'Weight w1.3 [0, 0] is '
says stdout 'weights     incidents/step-12/weights.f32'
says stdout 'activation  gate.3           sequence 0, token 0, element 0 is '
says stdout '  sequence 0, token 0: sample 44, token '
says stdout '--on-spike rollback'
says stderr 'taking step 12 again in double precision: 4 sequences of 32 tokens'
expect 0 "$KILN" explain weight@12 --json
is stdout kind weight
is stdout name w1.3 # of "first"
is stdout loss null

# the steps before are as they were: from a checkpoint, and from the state
expect 0 "$KILN" explain weight@11
says stdout 'Nothing is wrong with this step'
says stdout 'weights     checkpoints/step-10'
expect 0 env -u TERM "$KILN" explain weight@11 --alone --json
is stdout kind healthy
is stdout ordinary_loss null

# ---- fp16 --------------------------------------------------------------------------------------

# a simulated run that diverges in fp16: what a program gives overflows, not the host's fp32
expect 1 "$KILN" train --data text.txt --dim 64 --hidden 128 --heads 4 --kv-heads 2 --layers 2 --vocab 259 \
    --seq 32 --batch 4 --steps 400 --eval-every 0 --device sim --lr 0.3 --warmup 40 --decay constant \
    --on-spike stop --threads 2 --out hot
step=$(find hot/incidents -name 'step-*' | sed 's/.*step-//')
expect 0 "$KILN" explain "hot@$step" --json
is stdout kind precision
is stdout why 'loss is not finite'
is stdout name ffn_output.0 # of "first"
is stdout limit '65504.0'
expect 0 "$KILN" explain "hot@$step"
says stdout 'and fp16 ends at 65504: it overflows there'
not_says() { ! grep -qF -- "$2" "$1" || fail "$1 says $2"; }
not_says stdout 'arithmetic is in doubt'

# ---- a batch ----------------------------------------------------------------------------------

expect 0 env KILN_PLANT=batch@100 "$KILN_TEST_PROGRAM" train "${tiny[@]}" --steps 104 --on-spike record --spike-z 4 --out batch
expect 0 "$KILN" explain batch@100
says stdout 'batch@100: '
says stdout '4 of 4 sequences are bad'
says stdout '31 of 32 targets are not the token that comes next'
says stdout '32 of 32 targets are token 258'
says stdout 'above ln V, repeats, targets do not fit, outlier'
says stdout 'samples 396 to 399'
says stdout 'birds' # text of the data
expect 0 "$KILN" explain batch@100 --json
is stdout kind batch
is stdout incident true
[ "$(grep -o '"targets", "outlier"' stdout | wc -l)" = 4 ] || fail 'not four bad sequences'
# an ordinary window of that time is not
expect 0 "$KILN" explain batch@99
says stdout 'Nothing is wrong with this step'
# a run that was skipped or rolled back has the same to tell
for how in skip rollback; do
    expect 0 env KILN_PLANT=batch@100 "$KILN_TEST_PROGRAM" train "${tiny[@]}" --steps 104 --on-spike $how --spike-z 4 --out $how
    expect 0 "$KILN" explain $how@100 --json
    is stdout kind batch
    is stdout sample 396
done
# behind a rollback the run reads other samples in that step
expect 0 "$KILN" explain rollback@101 --json
is stdout kind healthy
is stdout sample $((400 + 40))

# the weights of an old incident are gone: they are made again
rm batch/incidents/step-100/weights.f32
expect 0 "$KILN" explain batch
says stdout ' -'
expect 0 "$KILN" explain batch@100
says stdout 'trained again to step 99'
says stdout '4 of 4 sequences are bad'
[ -z "$(find batch -name 'explain.tmp*')" ] || fail 'the temporary folder is left behind'

# ---- what cannot be ---------------------------------------------------------------------------

expect 2 "$KILN" explain
says stderr 'name a run folder'
expect 1 "$KILN" explain none@3
says stderr 'none: there is nothing of that name'
expect 1 "$KILN" explain none
expect 2 "$KILN" explain batch@
says stderr 'write RUN@STEP'
expect 2 "$KILN" explain batch@5x
expect 2 "$KILN" explain batch@0
says stderr 'steps count from 1'
expect 1 "$KILN" explain batch@999
says stderr 'no step 999: 104 are done'

# before the oldest checkpoint: from what the run began with, where that is still there
cp weight/checkpoints/step-10/model.bin first.bin
expect 0 "$KILN_TEST_PROGRAM" train --data text.txt --model first.bin --seq 32 --batch 2 --accum 2 --steps 8 \
    --save-every 6 --eval-every 0 --threads 1 --lr 1e-3 --out tuned
expect 0 "$KILN" explain tuned@4
says stdout "weights     the run's first, of first.bin, trained again to step 3"
says stdout 'Nothing is wrong with this step'
cp batch/model.bin first.bin
expect 1 "$KILN" explain tuned@4
says stderr 'that is another model by now, or the run was resumed with other settings'
rm first.bin
expect 1 "$KILN" explain tuned@4
says stderr 'step 4 has no incident; no whole checkpoint is from before it (the oldest is of step 6)'
says stderr 'what the run began from is gone: model first.bin: no such file'
says stderr 'keep more checkpoints (--keep-checkpoints)'
cp batch/model.bin first.bin
expect 0 env KILN_PLANT=batch@100 "$KILN_TEST_PROGRAM" train --data text.txt --model first.bin --seq 32 --batch 2 \
    --accum 2 --steps 102 --save-every 101 --eval-every 0 --threads 1 --on-spike record --spike-z 4 --out pruned
rm first.bin pruned/incidents/step-100/weights.f32
expect 1 "$KILN" explain pruned@100
says stderr 'whose weights are not kept any more'
says stderr 'incident.json still has the loss and the norm of every tensor'
expect 2 "$KILN" explain batch --alone
expect 2 "$KILN" explain batch@100 --steps 3
head -c 100 batch/incidents/step-100/window.u32 >part && cp part batch/incidents/step-100/window.u32
expect 1 "$KILN" explain batch@100
says stderr 'window.u32: 100 bytes; 4 sequences of 32 tokens are 1024'
