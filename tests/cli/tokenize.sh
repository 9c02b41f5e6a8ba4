#!/usr/bin/env bash
# A text becomes tokens, by bytes or by a vocabulary learned from it; inspect reads both back.
. "$ROOT/tests/lib.sh"

for i in $(seq 400); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
    echo '<|endoftext|>'
done >text.txt

expect 0 "$KILN" tokenize text.txt -o bytes.tok
says stdout '400 documents'
expect 0 "$KILN" inspect bytes.tok
says stdout 'vocabulary 259'

expect 0 "$KILN" tokenize text.txt -o own.tok --train-bpe 300
[ -s own.tokenizer.bin ] || fail 'the vocabulary was not kept'
expect 0 "$KILN" inspect own.tokenizer.bin
says stdout '300 ids'
expect 0 "$KILN" tokenize text.txt -o again.tok --tokenizer own.tokenizer.bin
cmp own.tok again.tok || fail 'the saved vocabulary cuts the text otherwise'
expect 0 "$KILN" inspect own.tok --json
says stdout '"vocab": 300'
