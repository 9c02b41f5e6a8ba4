#!/usr/bin/env bash
# With real models: the texts of llama2.c, damaged files, conversion, tokenizers that do not fit.
. "$ROOT/tests/lib.sh"

small=$KILN_DATA/stories260K.bin tok=$KILN_DATA/tok512.bin
need "$small"
need "$KILN_REFERENCE/stories260K.greedy.txt"

expect 0 "$KILN" generate "$small" --tokenizer "$tok" --precision fp32 -t 0 -n 256 \
    -p 'Once upon a time'
cmp stdout "$KILN_REFERENCE/stories260K.greedy.txt" || fail 'the greedy text of stories260K differs'
[ ! -s stderr ] || fail "piped, but stderr says: $(cat stderr)"
expect 0 "$KILN" generate "$KILN_DATA/story656K.bin" --tokenizer "$KILN_DATA/tok2048.bin" \
    --precision fp32 -t 0 -n 200 -p ''
cmp stdout "$KILN_REFERENCE/story656K.greedy.txt" || fail 'the greedy text of story656K differs'

# The same seed, the same text; another seed, another.
tell() { "$KILN" generate "$small" --tokenizer "$tok" -n 60 "$@"; }
[ "$(tell --seed 7)" = "$(tell --seed=7)" ] || fail 'the same seed told another text'
[ "$(tell --seed 7)" != "$(tell --seed 8)" ] || fail 'another seed told the same text'
tell --json | grep -E '^\{"model": ".*", "text": ".*", "tokens": [0-9]+, .*\}$' >/dev/null || fail 'not JSON'

expect 1 "$KILN" generate "$small"
says stderr '--tokenizer'
expect 1 "$KILN" generate "$small" --tokenizer "$KILN_DATA/tok2048.bin"
says stderr 'vocabulary'

# A model file cut short, and one with a wrong header.
head -c 100000 "$small" >cut.bin
expect 1 "$KILN" inspect cut.bin
says stderr 1056540
expect 1 "$KILN" generate cut.bin --tokenizer "$tok"
{ printf '\0\0\0\0'; tail -c +5 "$small"; } >wrong.bin
expect 1 "$KILN" generate wrong.bin --tokenizer "$tok"
says stderr wrong.bin

expect 0 "$KILN" inspect "$small"
says stdout 'vocab 512'
says stdout 'wq.4'
expect 0 "$KILN" inspect "$tok"
says stdout '512 ids'

expect 0 "$KILN" convert "$small" copy.bin
expect 0 "$KILN" generate copy.bin --tokenizer "$tok" --precision fp32 -t 0 -p 'Once upon a time'
cmp stdout "$KILN_REFERENCE/stories260K.greedy.txt" || fail 'the converted model tells otherwise'
expect 1 "$KILN" convert "$small" copy.bin
says stderr --force
expect 0 "$KILN" convert "$small" copy.bin --force

for reference in "$KILN_REFERENCE"/*/; do
    expect 0 "$KILN" verify --reference "$reference" --precision fp32
    says stdout PASS
done
