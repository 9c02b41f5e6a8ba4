#!/usr/bin/env bash
# The demo from its first word to its last, with a training of a few seconds.
# alone: it trains for a time
. "$ROOT/tests/lib.sh"

expect 0 "$KILN" demo --seconds 5 --stories 2
for part in 'I made up' 'best possible' 'Now it tells 2 stories' 'follow the grammar' \
    'What to type next' 'kiln generate runs/demo/run'; do
    says stdout "$part"
done
[ "$(stat -c %s runs/demo/stories.txt)" -ge 2000000 ] || fail 'less than 2 MB of stories'
held_out=$(head -n 1 runs/demo/stories_val.txt)
grep -qF "$held_out" runs/demo/stories.txt && fail 'a held-out story is trained on'
expect 0 "$KILN" generate runs/demo/run -n 20 -p 'Once upon a time'
grep -q '^Once upon a time' stdout || fail 'the prompt does not come first'

# A second demo finds a folder of its own; one that is named and exists is left alone.
expect 0 "$KILN" demo --seconds 5 --stories 1 --json
[ -d runs/demo-2/run ] || fail 'no second folder'
[ "$(wc -l <stdout)" = 1 ] || fail "--json prints more than one line: $(cat stdout)"
for key in loss entropy ratio sentences parsed novel stories seconds; do
    says stdout "\"$key\": "
done
expect 1 "$KILN" demo --out runs/demo
says stderr --force
