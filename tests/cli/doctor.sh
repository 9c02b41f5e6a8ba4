#!/usr/bin/env bash
# kiln doctor: text, JSON, exit codes; what a machine is comes from files that can be planted.
. "$ROOT/tests/lib.sh"

code=0
"$KILN" doctor >stdout 2>stderr || code=$?
[ $code -le 1 ] || fail "exit $code"
for name in threads load instructions products memory disk limits libraries; do
    grep -qE "^(fine|unknown|slow|broken) +$name " stdout || { cat stdout; fail "nothing about $name"; }
done
[ "$(echo *)" = 'stderr stdout' ] || fail "it left files: $(ls)"

# A machine of which nothing can be read: said, and not broken.
mkdir empty
expect 0 "$KILN" doctor --quick --root empty
says stdout 'unknown'
[ ! -s stderr ] || fail 'it speaks on stderr'
expect 0 "$KILN" doctor --quick --root empty --json
says stdout '"worst": "unknown"'
[ "$(grep -c . stdout)" = 1 ] || fail 'not one JSON object'

# Broken: exit 1, and stderr has the first reason with what to do.
mkdir -p bad/proc/self
printf 'Max open files            8                    8        files\n' >bad/proc/self/limits
expect 1 "$KILN" doctor --quick --root bad
says stdout '1 broken, 0 slow'
says stderr 'kiln: doctor: limits: Max open files is 8 (ulimit -n); ulimit -n unlimited'
expect 1 "$KILN" doctor --quick --root bad --json
says stdout '"level": "broken"'
KILN_CPU=none expect 1 "$KILN" doctor --quick
says stderr 'KILN_CPU=none is no instruction tier'

expect 1 "$KILN" doctor absent
says stderr 'absent'
expect 2 "$KILN" doctor a b
expect 2 "$KILN" doctor --precision fp8
for i in $(seq 3000); do echo "Once upon a time a bear number $i sat down."; done >text.txt
expect 0 "$KILN" train --data text.txt --dim 32 --hidden 64 --heads 2 --layers 1 --seq 32 --steps 3 \
    --batch 2 --accum 1 --out runs/small --json
code=0
"$KILN" doctor runs/small --quick --threads 1 >stdout 2>stderr || code=$?
says stdout 'whole, after step 3'
says stdout 'nobody trains the run'
