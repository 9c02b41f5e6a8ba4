#!/usr/bin/env bash
# kiln probe: a profile that plan reads; limits and answers of a Neural Engine over fakes of its
# runtime (tests/device/fake_ane.h); profiles that ship, and those that do not do.
# alone: it measures
. "$ROOT/tests/lib.sh"

export TEMP=$PWD/staged # GNUstep's NSTemporaryDirectory
mkdir -m 700 staged
kiln=$KILN_TEST_PROGRAM

# row WORDS: value and words of a line of probe.md.
row() { grep -F "| $1 " "$2/probe.md" || fail "no row of $1"; }

# ---- the cpu --------------------------------------------------------------------------------------
expect 0 "$kiln" probe --out cpu --threads 1
says stdout 'cpu/profile.json'
row 'compile_gb_s' cpu | grep 'packed' >/dev/null || fail 'packing'
expect 0 "$kiln" plan --profile cpu/profile.json
expect 2 "$kiln" plan --device ane --profile cpu/profile.json
says stderr 'is of a cpu'
cp cpu/profile.json before
expect 1 "$kiln" probe --out cpu --threads 1
says stderr 'cpu/profile.json'
cmp -s before cpu/profile.json || fail 'a probe without --force wrote over another'

# ---- what is wrong ----------------------------------------------------------------------------------
expect 2 "$kiln" plan --device ane --profile m9
says stderr 'm1-pro, m3-max, m4, m5'
expect 1 "$kiln" plan --device ane --profile ./none.json
expect 2 "$kiln" plan --device sim --profile m4
says stderr '--sim-time'
expect 2 "$kiln" plan --profile m4
expect 2 "$kiln" probe --profile m4 --device ane
expect 2 "$kiln" probe --count some
sed 's/"value": [0-9.e-]*/"value": -1/' cpu/profile.json >wrong.json
expect 1 "$kiln" plan --profile wrong.json
says stderr 'wrong.json: figure "tflops" is -1'

# ---- profiles that ship -----------------------------------------------------------------------------
for name in m1-pro m3-max m4 m5; do
    expect 0 "$kiln" plan --model stories110m --device ane --profile $name --json
    sed -n 's/.*"compile": \([0-9.]*\).*/\1/p' stdout >>compiles
done
[ "$(sort -u compiles | wc -l)" = 4 ] || fail "equal compile times: $(tr '\n' ' ' <compiles)"

# ---- a run keeps its profile -------------------------------------------------------------------------
for i in $(seq 200); do echo "The $i birds sang to the $((i * 7 % 100)) trees."; done >text.txt
tiny=(--data text.txt --dim 32 --hidden 64 --heads 4 --layers 2 --vocab 259 --seq 32 --batch 2
    --accum 2 --eval-every 0 --threads 1 --device sim --sim-time 0.01)
printf '{"kiln_profile": 1, "device": "mine", "kind": "npu", "figures": {"compile_s": %s}}\n' \
    '{"value": 0.5}' >mine.json
expect 0 "$kiln" train "${tiny[@]}" --steps 2 --profile mine.json --out run
grep -q '"compile_s": 0.005,' run/run.json || fail "run.json: $(grep figures run/run.json)"
grep -q '"sim_compile_s": 0.5,' run/run.json || fail "run.json: $(grep figures run/run.json)"
rm mine.json
expect 0 "$kiln" train --resume run --steps 3
expect 0 "$kiln" train --resume run --steps 4 --profile m5
grep -q '"sim_compile_s": 0.011,' run/run.json || fail "run.json: $(grep figures run/run.json)"

# ---- over the fakes ------------------------------------------------------------------------------------
KILN_FAKE_COMPILES=70 KILN_FAKE_LOADS=25 "$kiln" probe --device ane --out works --threads 1 --json \
    >stdout 2>stderr || {
    grep -q 'this is no Mac' stderr && exit 0 # built without the fakes of Apple's classes
    cat stderr
    fail 'a probe over the fakes'
}
row 'programs compiled until it refuses' works | grep -F '| 70 |' >/dev/null || fail 'compiles'
row 'programs loaded until it refuses' works | grep -F '| 25 |' >/dev/null || fail 'loads'
row 'programs loaded until it refuses' works | grep -F 'no room for another' >/dev/null || fail 'its words'
row 'a rewritten weight file' works | grep -F '| yes |' >/dev/null || fail 'a reload that works'
row 'chaining' works | grep -F 'ANEProgramChainingPrepare() Failed' >/dev/null || fail 'chaining'
row 'quality of service' works | grep -F '| 64 of 64 levels work |' >/dev/null || fail 'quality of service'
expect 0 "$kiln" plan --device ane --profile works/profile.json --model stories15m
expect 0 env KILN_FAKE_RELOAD=stale KILN_FAKE_CHAIN=works "$kiln" probe --device ane --out stale \
    --most 30
row 'a rewritten weight file' stale | grep -F '| no |' >/dev/null || fail 'a reload without effect'
row 'chaining' stale | grep -F '| prepared |' >/dev/null || fail 'a chain'
row 'programs compiled until it refuses' stale | grep -F '| 31 or more |' >/dev/null || fail 'no limit'
expect 0 env KILN_FAKE_RELOAD=refused "$kiln" probe --device ane --out refused --most 5
row 'a rewritten weight file' refused | grep -F '| refused |' >/dev/null || fail 'a reload that is refused'
[ -z "$(ls -A staged)" ] || fail "left: $(ls -A staged)"
