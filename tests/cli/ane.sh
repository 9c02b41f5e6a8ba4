#!/usr/bin/env bash
# Training through Apple's runtime over fakes of its classes (tests/device/fake_ane.h): the bits of
# the simulator, restarts included; a call that fails ends the run with its name and the device's
# own words, saved, and nothing is left where programs are staged.
. "$ROOT/tests/lib.sh"

for i in $(seq 200); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
done >text.txt
export TEMP=$PWD/staged # GNUstep's NSTemporaryDirectory
mkdir -m 700 staged
sizes=(--dim 32 --hidden 64 --heads 4 --kv-heads 2 --layers 2 --vocab 259 --seq 32 --batch 2)
tiny=(--data text.txt "${sizes[@]}" --accum 2 --lr 3e-3 --warmup 2 --eval-every 0 --threads 1)
kiln=$KILN_TEST_PROGRAM

expect 0 "$kiln" train "${tiny[@]}" --steps 1 --device sim --out probe
"$kiln" train "${tiny[@]}" --steps 1 --device ane --out probe-ane >stdout 2>stderr || {
    grep -q 'this is no Mac' stderr && skip 'built without the fakes of Apple'\''s classes'
    cat stderr
    fail 'one step'
}

# nothing_staged: no program left its folder behind.
nothing_staged() { [ -z "$(ls -A staged)" ] || fail "left: $(ls -A staged)"; }
# numbers_of RUN: what must be equal of its steps.
numbers_of() { sed 's/"ms":.*//' "$1/metrics.jsonl"; }
hash_of() { sed -n 's/^{.*"weights_hash": "\([0-9a-f]*\)".*}$/\1/p' "$1"; }

# ---- the bits of the simulator --------------------------------------------------------------------
n=0
for mode in '' --no-extras '--weight-mode dynamic' --doc-mask '--weight-mode dynamic --doc-mask' \
    '--model stories15m --lora 3 --lora-targets all' '--model stories15m --lora 2 --weight-mode dynamic' '--budget 30' '--no-extras --budget 14'; do
    n=$((n + 1))
    for device in sim ane; do
        # shellcheck disable=SC2086 # words
        expect 0 "$kiln" train "${tiny[@]}" --steps 6 --device $device $mode --out "$device-$n" --json
        hash_of stdout >"$device-hash"
    done
    [ -s sim-hash ] || fail 'no weights_hash'
    cmp -s sim-hash ane-hash || fail "--device ane $mode: other weights than --device sim"
    nothing_staged
done
grep -q '"restarts":[1-9]' ane-8/metrics.jsonl || fail 'a budget of 30 needed no restart'

# Weights that a patch changes are patched, where it is seen to work; the bits are the same.
expect 0 "$kiln" train "${tiny[@]}" --steps 4 --device sim --budget 1000 --out compiled --json
want=$(hash_of stdout)
for reload in works stale refused; do
    expect 0 env KILN_FAKE_RELOAD=$reload "$kiln" train "${tiny[@]}" --steps 4 --device ane \
        --budget 1000 --out "patch-$reload" --json
    [ "$(hash_of stdout)" = "$want" ] || fail "a patch that is $reload: other weights"
    nothing_staged
done
last_compiles() { tail -n 1 "$1/metrics.jsonl" | sed 's/.*"compiles":\([0-9]*\).*/\1/'; }
[ "$(last_compiles patch-works)" = 0 ] || fail 'a patch that works did not spare the compiles'
[ "$(last_compiles patch-stale)" -gt 0 ] || fail 'a patch without effect was used'

# ---- every call fails -------------------------------------------------------------------------------
# breaks ARM WORDS: training ends with exit 1 and these words.
breaks() {
    rm -rf broken
    expect 1 env KILN_FAKE_ANE="$1" "$kiln" train "${tiny[@]}" --steps 6 --device ane --out broken
    says stderr "$2"
    nothing_staged
}
breaks 'descriptor@9' 'modelWithMILText gave no descriptor'
breaks 'model@9' 'inMemoryModelWithDescriptor gave no model'
breaks 'digest@9' 'hexStringIdentifier gave nothing'
breaks 'compile@9' 'compileWithQoS failed: compile failed on command'
breaks 'compile-silent@9' 'compileWithQoS failed: no reason given'
breaks 'compile@9!' 'raised on command by compile'
breaks 'load@9x2' 'loadWithQoS failed twice: load failed on command'
breaks 'wrapper@9' 'objectWithIOSurface gave nothing'
breaks 'request@9' 'requestWithInputs gave no request'
breaks 'surface@9' 'IOSurfaceCreate gave no surface'
breaks 'numbers@1' 'self-test'
breaks 'lock@99' 'IOSurfaceLock gave 0x'
breaks 'unlock@99' 'IOSurfaceUnlock gave 0x'
breaks 'unload@3' 'unloadWithQoS failed: unload failed on command'
breaks 'unload@9!' 'raised on command by unload'
breaks 'evaluate@99!' 'raised on command by evaluate'
breaks 'evaluate@99' 'evaluateWithQoS failed: evaluate failed on command'

# ---- a kill leaves folders, which the next to come sweeps away ------------------------------------------
rm -rf killed
expect 137 env KILN_KILL_AT=chunk:9 "$kiln" train "${tiny[@]}" --steps 6 --device ane --out killed
[ -n "$(ls -A staged)" ] || fail 'a killed process left no folder: the test shows nothing'
expect 0 "$kiln" train --resume killed
nothing_staged

# ---- and the run goes on ------------------------------------------------------------------------------
expect 0 "$kiln" train --resume broken --json
hash_of stdout >broken-hash
expect 0 "$kiln" train "${tiny[@]}" --steps 6 --device ane --out unbroken --json
hash_of stdout >whole-hash
cmp -s broken-hash whole-hash || fail 'other weights after a failure'
nothing_staged
