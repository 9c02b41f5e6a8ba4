#!/usr/bin/env bash
# A file that cannot be used is exit 1, a message that names it, and nothing written.
. "$ROOT/tests/lib.sh"

tiny=(--dim 16 --hidden 32 --heads 2 --kv-heads 2 --layers 1 --vocab 259 --seq 32)

# refuses WORDS COMMAND...: exit 1 and one line on stderr that holds WORDS; no run folder is left.
refuses() {
    local words=$1
    shift
    expect 1 "$KILN" "$@"
    says stderr "$words"
    [ "$(grep -c . stderr)" = 1 ] || fail "$*: not one line: $(cat stderr)"
    if [ -e runs ] || [ -e run ]; then fail "$*: left a run folder behind"; fi
}
train() {
    local words=$1
    shift
    refuses "$words" train "$@" --out run --steps 2 --batch 1
}

# data
: >empty.txt
echo 'too short' >short.txt
seq 2000 >text.txt
printf '\377\377\377\377%.0s' $(seq 400) >far.u16
train absent.txt --data absent.txt "${tiny[@]}"
train empty.txt --data empty.txt "${tiny[@]}"
train 'data short.txt: ' --data short.txt "${tiny[@]}"
[ ! -e "$KILN_DATA/stories260K.bin" ] || refuses 'data short.txt: ' eval "$KILN_DATA/stories260K.bin" --data short.txt --tokenizer "$KILN_DATA/tok512.bin"
train far.u16 --data far.u16 "${tiny[@]}"

# models
train no-such.bin --data text.txt --model no-such.bin
refuses no-such.bin generate no-such.bin
refuses no-such.bin eval no-such.bin --data text.txt
refuses no-such.bin convert no-such.bin out.bin
refuses no-such.bin inspect no-such.bin
refuses no-such verify --reference no-such
: >empty.bin
refuses empty.bin inspect empty.bin
refuses empty.bin generate empty.bin
echo 'neither a model nor tokens' >other.bin
refuses other.bin inspect other.bin
if grep -q uint16 stdout; then fail 'any .bin is told to be raw tokens'; fi
printf '\1\0\150\0\151\0\1\0' >raw.bin
expect 0 "$KILN" inspect raw.bin
says stdout 'raw uint16 token ids'
mkdir folder
refuses folder inspect folder

# no space: a folder that cannot be written to, and a full device
refuses '/dev/null' train --data text.txt "${tiny[@]}" --steps 2 --out /dev/null/run
[ ! -e /dev/full ] || {
    "$KILN" --help >/dev/full 2>stderr && fail 'a full disk went unnoticed'
    says stderr 'writing to stdout'
}

# tokenizers, texts
refuses absent.bin tokenize text.txt -o t.tok --tokenizer absent.bin
refuses empty.txt tokenize empty.txt -o t.tok
refuses 'too few' tokenize text.txt -o t.tok --train-bpe 100000
refuses 'too few' tokenize text.txt --train-bpe 100000
refuses absent.txt tokenize text.txt absent.txt --train-bpe 260
if [ -e t.tok ] || [ -e t.tokenizer.json ] || [ -e tokenizer.json ]; then fail 'a failed tokenize left files'; fi

# what exists is not replaced
echo mine >mine.tok
refuses 'mine.tok exists already' tokenize text.txt -o mine.tok
[ "$(cat mine.tok)" = mine ] || fail 'mine.tok was replaced'
