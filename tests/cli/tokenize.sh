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

# the ids and the vocabulary beside them, in either form; saved, it cuts the text the same
expect 0 "$KILN" tokenize text.txt -o own.tok --train-bpe 280
[ -s own.tokenizer.json ] || fail 'the vocabulary was not kept'
expect 0 "$KILN" tokenize text.txt -o llama2.tok --train-bpe 280 --save llama2.bin
for tok in own.tokenizer.json llama2.bin; do
    expect 0 "$KILN" inspect "$tok"
    says stdout '280 ids'
    expect 0 "$KILN" tokenize text.txt -o again.tok --tokenizer "$tok" --force
    case $tok in own*) cmp own.tok again.tok ;; *) cmp llama2.tok again.tok ;; esac ||
        fail "$tok cuts the text otherwise"
done
expect 0 "$KILN" inspect own.tok --json
says stdout '"vocab": 280'

# the vocabulary alone, of two texts; tokenizer.json without a name; nothing is replaced unasked
expect 0 "$KILN" tokenize --train-bpe 280 text.txt
says stdout 'tokenizer.json: 280 ids, learned from 21 kB of text'
cmp tokenizer.json own.tokenizer.json || fail 'two ways to the same vocabulary differ'
expect 1 "$KILN" tokenize --train-bpe 280 text.txt
says stderr 'tokenizer.json exists'
head -n 400 text.txt >a.txt
tail -n 400 text.txt >b.txt
for threads in 1 2 3 7; do
    expect 0 "$KILN" tokenize --train-bpe 280 a.txt b.txt -o "two$threads.json" --threads $threads
    cmp own.tokenizer.json "two$threads.json" || fail "two texts, $threads threads: others are learned"
done
expect 0 "$KILN" tokenize --train-bpe 280 a.txt b.txt -o two.bin --json
says stdout '"tokenizer": "two.bin"'
cmp two.bin llama2.bin || fail 'two texts teach characters otherwise'

# text that is no UTF-8 is handled byte by byte, and said
{ cat text.txt; printf 'a\377b\300\200'; } >broken.txt
expect 0 "$KILN" tokenize --train-bpe 280 broken.txt -o broken.json
says stdout '3 bytes of it are not UTF-8'

# a byte order mark is dropped, UTF-16 is read, and it is said once
printf '\357\273\277' | cat - text.txt >marked.txt
{ printf '\377\376'; iconv -f UTF-8 -t UTF-16LE text.txt; } >wide.txt
for text in marked wide; do
    expect 0 "$KILN" tokenize --train-bpe 280 $text.txt -o $text.json
    [ "$(grep -c 'read as plain UTF-8' stdout)" = 1 ] || { cat stdout; fail "$text: not said once"; }
    cmp own.tokenizer.json $text.json || fail "$text: another vocabulary is learned"
done

# a run keeps the vocabulary, and what it generates is text of it
expect 0 "$KILN" train --data text.txt --tokenizer tokenizer.json --model stories15m --dim 32 \
    --hidden 64 --heads 2 --kv-heads 2 --layers 1 --seq 32 --batch 4 --steps 120 --lr 1e-2 --out run
cmp tokenizer.json run/tokenizer.json || fail 'the run keeps another vocabulary'
expect 0 "$KILN" generate run -p 'The 7 birds sang' -n 40 --temperature 0
says stdout 'The 7 birds sang to the'
says stdout 'old trees'

# ids without a word about their tokenizer: it lies beside them, by either name; another's is not taken
tiny=(--model stories15m --dim 32 --hidden 64 --heads 2 --kv-heads 2 --layers 1 --seq 32 --batch 4 --steps 1)
mkdir ids
cp own.tok own.tokenizer.json ids
expect 0 "$KILN" train --data ids/own.tok "${tiny[@]}" --out beside
says stderr 'ids/own.tok: its tokenizer lies beside it, and is taken: ids/own.tokenizer.json'
cmp own.tokenizer.json beside/tokenizer.json || fail 'the run has another tokenizer'
mv ids/own.tokenizer.json ids/tokenizer.json
expect 0 "$KILN" train --data ids/own.tok "${tiny[@]}" --out named
cmp own.tokenizer.json named/tokenizer.json || fail 'tokenizer.json beside the ids is not found'
cp llama2.bin ids/tokenizer.bin
mv ids/tokenizer.json .
expect 0 "$KILN" train --data ids/own.tok "${tiny[@]}" --out none
for taken in none/tokenizer.bin none/tokenizer.json; do
    [ ! -e $taken ] || fail 'the tokenizer of other ids is taken'
done

# bytes that are no UTF-8 are kept, and said
printf 'a \377\376 b\303\n' >bad.txt
expect 0 "$KILN" tokenize bad.txt -o bad.tok
says stdout '3 bytes are not UTF-8'
expect 0 "$KILN" tokenize bad.txt --ids --tokenizer bytes
mv stdout bad.ids
expect 0 "$KILN" tokenize bad.ids --decode --tokenizer bytes
cmp stdout bad.txt || fail 'decoding does not give the bytes back'
expect 1 "$KILN" tokenize text.txt --decode --tokenizer bytes
says stderr 'is no id'
