#!/usr/bin/env bash
# report.html: written as a run goes on, made anew and compared by kiln report, and opened in a
# browser. KILN_SHOTS=docs/images make run-tests T=cli/report makes the pictures of the docs anew.
. "$ROOT/tests/lib.sh"

seq 1 6000 | sed 's/.*/the kiln is warm & the clay is dry: &/' >text.txt
small=(--data text.txt --dim 32 --hidden 64 --heads 2 --layers 2 --seq 32 --batch 2 --accum 2
    --threads 1 --lr 2e-3 --warmup 5)

# ---- training writes it --------------------------------------------------------------------------
expect 0 "$KILN" train "${small[@]}" --steps 20 --out run
[ -s run/report.html ] || fail "training made no report"
says run/run.json '"plan": {'
says run/run.json '"origins": {'
[ "$(find run -name 'report.html.tmp-*')" = "" ] || fail "a temporary file is left"
says run/report.html '"flag":"lr","value":"0.002","origin":"flag"'
says run/report.html '"flag":"dim","value":"32","origin":"flag"'
says run/report.html '"flag":"beta1","value":"0.9","origin":"default"'
grep -qE 'src="http|href="http|url\(http|@import' run/report.html && fail "the page asks a network"

# The same with JSON: stdout is one object still.
expect 0 "$KILN" train "${small[@]}" --steps 5 --out quiet --json
[ -s quiet/report.html ] || fail "training with --json made no report"
hash_of stdout >/dev/null

# Processes that replace themselves, and workers of a relay.
for kind in exec relay; do
    expect 0 "$KILN" train "${small[@]}" --steps 6 --budget 8 --headroom 0 --restart $kind --out $kind
    says $kind/report.html '"step":6,"total":6'
    [ "$(find $kind -name 'report.html.tmp-*')" = "" ] || fail "$kind: a temporary file is left"
done

# A resumed run keeps where its settings came from; the new flag is one.
expect 0 "$KILN" train --resume run --steps 24
says run/report.html '"flag":"lr","value":"0.002","origin":"flag"'
says run/report.html '"flag":"steps","value":"24","origin":"flag"'
says run/report.html '"step":24,"total":24'

# ---- a page that cannot be written stops nothing -------------------------------------------------
expect 0 "$KILN" train "${small[@]}" --steps 4 --out blocked
rm blocked/report.html
mkdir blocked/report.html
expect 0 "$KILN" train --resume blocked --steps 12
says stderr 'the report is not written'
[ "$(grep -c 'the report is not written' stderr)" = 1 ] || fail "it is told more than once"
expect 1 "$KILN" report blocked
says stderr 'not a regular file'

# ---- kiln report ---------------------------------------------------------------------------------
expect 0 "$KILN" report run
says stdout 'run: step 24 of 24'
cp run/report.html first.html
expect 0 "$KILN" report run
cmp first.html run/report.html || fail "the same run gives other bytes"
expect 0 "$KILN" report run --json
[ "$(grep -c . stdout)" = 1 ] || fail "not one object"
says stdout '"page": "run/report.html"'
says stdout '"step": 24'
expect 0 "$KILN" report run quiet --out both.html
says both.html '"name":"quiet"'
expect 0 "$KILN" report run quiet
[ -s compare.html ] || fail "no compare.html"
cmp both.html compare.html || fail "the same runs give other bytes"
expect 0 "$KILN" report run ./run quiet run/ --out twice.html
[ "$(grep -c 'is run once more: it is taken once' stderr)" = 2 ] || fail "a run given twice is not told"
cmp both.html twice.html || fail "a run given twice is two"
expect 0 "$KILN" report run run
says stdout 'page: run/report.html'
expect 1 "$KILN" report text.txt
says stderr 'no run folder'
expect 1 "$KILN" report nowhere

# Which run may be meant: one command's answer is all's.
mkdir many
for name in book story-of-a-kiln third; do
    mkdir -p "many/runs/$name"
    cp run/run.json run/metrics.jsonl "many/runs/$name"
    touch "many/runs/$name/metrics.jsonl"
done
touch -d '2001-01-01' many/runs/book/metrics.jsonl
touch -d '2001-01-02' many/runs/third/metrics.jsonl
for command in explain report doctor dashboard inspect verify 'train --resume'; do
    # shellcheck disable=SC2086
    (cd many && expect 1 "$KILN" $command book && says stderr 'did you mean runs/book?' &&
        expect 1 "$KILN" $command story-of-a-klin/ && says stderr 'did you mean runs/story-of-a-kiln?' &&
        expect 1 "$KILN" $command runs/thrid && says stderr 'did you mean runs/third?' &&
        expect 1 "$KILN" $command zzzzzz &&
        says stderr 'runs here: runs/story-of-a-kiln, runs/third and runs/book')
done
for command in explain report inspect verify 'train --resume'; do
    # shellcheck disable=SC2086
    (cd many && expect 1 "$KILN" $command runs/ &&
        says stderr 'a folder of runs: name one of them, as runs/story-of-a-kiln, runs/third and runs/book')
done
(cd many && expect 1 "$KILN" explain book@3 && says stderr 'did you mean runs/book?')
(cd many && expect 1 "$KILN" report runs/book/run.json && says stderr 'did you mean runs/book?')
(cd many/runs && expect 1 "$KILN" report thrid && says stderr 'did you mean third?')
expect 2 "$KILN" report
expect 1 "$KILN" report run --out nowhere/page.html

# A run that was cut, of an older kiln, or that says what it should not.
mkdir -p odd
head -c 3000 run/metrics.jsonl >odd/metrics.jsonl
printf '{"step":3,"text":"</script><script>alert(1)</script>"}\n' >odd/samples.jsonl
echo '{"dim": "</script>", "plan": 3, "origins": []' >odd/run.json
echo 'no trace' >odd/trace.json
expect 0 "$KILN" report odd
[ "$(grep -o '</script' odd/report.html | wc -l)" = 2 ] || fail "a sample ends a script"
: >odd/metrics.jsonl
rm odd/samples.jsonl
expect 0 "$KILN" report odd
says stdout 'odd: step 0'

# ---- in a browser --------------------------------------------------------------------------------
need_python playwright PIL
pages="$ROOT/tests/python/pages.py"
"$PYTHON" "$pages" make long 5000
expect 0 "$KILN" report long
code=0
"$PYTHON" "$pages" check long/report.html || code=$?
[ $code = 77 ] && skip "there is no Chromium"
[ $code = 0 ] || fail "the page of a long run"
"$PYTHON" "$pages" make other 900
expect 0 "$KILN" report long other run --out three.html
"$PYTHON" "$pages" check three.html || fail "the page of three runs"
"$PYTHON" "$pages" make huge 100000
expect 0 "$KILN" report huge
[ "$(stat -c %s huge/report.html)" -lt 3000000 ] || fail "100000 steps take 3 MB"
"$PYTHON" "$pages" check huge/report.html || fail "the page of 100000 steps"
rm -r huge

# The pictures of the docs: a small model on stories, with a budget of kernels, which shows stalls.
need "$KILN_DATA/tinystories_train.txt"
need "$KILN_DATA/tok512.bin"
expect 0 "$KILN" train --data "$KILN_DATA/tinystories_train.txt" --tokenizer "$KILN_DATA/tok512.bin" \
    --dim 64 --hidden 172 --heads 4 --layers 4 --seq 128 --batch 4 --accum 2 --steps 400 --lr 3e-3 \
    --warmup 30 --budget 60 --restart relay --sample-every 40 --prompt "Once upon a time" --out stories
mkdir -p shots
"$PYTHON" "$pages" check stories/report.html shots/report || fail "the page of a real run"
[ -z "${KILN_SHOTS:-}" ] || cp shots/report-*.png "$ROOT/$KILN_SHOTS/"
