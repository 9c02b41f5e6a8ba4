#!/usr/bin/env bash
# What the flags alone show to be wrong is exit 2, with the valid values and the nearest name.
. "$ROOT/tests/lib.sh"

commands=$("$KILN" --help | sed -nE 's/^  ([a-z][a-z-]*) +[a-z].*/\1/p')
[ "$(grep -c . <<<"$commands")" -ge 14 ] || fail "kiln --help lists too little: $commands"
for command in $commands; do
    expect 0 "$KILN" "$command" --help
    says stdout "kiln $command"
    [ ! -s stderr ] || fail "help of $command speaks on stderr"
    expect 0 "$KILN" help "$command"
    expect 0 "$KILN" --help
    says stdout "  $command "
done
expect 0 "$KILN" --version
grep -qE '^kiln [0-9]+\.[0-9]+\.[0-9]+$' stdout || fail "a version reads otherwise: $(cat stdout)"

# refuses WORDS COMMAND...: exit 2, nothing on stdout, one line on stderr that holds WORDS.
refuses() {
    local words=$1
    shift
    expect 2 "$KILN" "$@"
    says stderr "$words"
    [ ! -s stdout ] || fail "$* speaks on stdout"
    [ "$(grep -c '^kiln: ' stderr)" = "$(wc -l <stderr)" ] || fail "$*: not one line: $(cat stderr)"
}

expect 2 "$KILN"
refuses 'did you mean kiln train?' trian
refuses 'kiln --help lists them' no-such-command
refuses 'did you mean --steps?' train --stpes 5
refuses 'did you mean --temperature?' generate m.bin --temp 1
refuses 'kiln train --help lists them all' train --qqqqqqqq
refuses 'not a flag of it' train -z
refuses 'train: --csv is not a flag of it, but of kiln report' train --csv
refuses 'report: --lr is not a flag of it, but of kiln train, ' report --lr 1 runs
refuses '--steps abc: not a whole number; use 1 to 1000000000' train --data d.txt --steps abc
refuses '--steps abc' train --data d.txt --steps=abc
refuses '--heads 0: out of range; use 1 to 65536' train --data d.txt --heads 0
refuses '-t warm: not a number; use 0 to 100' generate m.bin -t warm
refuses '--decay cosin: unknown; use constant, linear or cosine' train --decay cosin
refuses '--precision fp8: unknown; use auto, fp32, bf16 or fp16' bench --precision fp8
refuses '--precision fp16: --device cpu computes in fp32 or bf16' train --data d.txt --precision fp16
refuses '--precision bf16: --device sim computes in fp16; use auto or fp16' \
    plan --device sim --precision bf16
refuses '--sim-time is of the device sim' plan --sim-time 1
for flag in --no-extras '--weight-mode=baked'; do
    refuses 'is of the devices sim and ane' plan $flag
done
refuses '--device ane takes its own time' plan --device ane --sim-time 1
refuses '--weight-mode frozen: unknown; use baked or dynamic' plan --weight-mode frozen
refuses '--data needs a value' train --data
refuses '--data needs a value' train --data --steps 5
refuses '--data is empty' train --data ''
refuses '--data is missing' train
refuses '--data is missing' eval stories15m
refuses '--reference' verify
refuses '--json takes no value' generate m.bin --json=1
refuses 'name a model' generate
refuses 'what is "b"?' generate a b
refuses 'heads 5 does not divide dim' bench --heads 5
refuses 'a preset has no weights' convert stories15m out.bin
refuses '-o is missing' tokenize text.txt
refuses 'contradict each other' tokenize text.txt -o t.tok --tokenizer bytes --train-bpe 300
refuses 'name it .json' tokenize text.txt --train-bpe 300 --save tok.txt
refuses 'both name the vocabulary' tokenize text.txt --train-bpe 300 -o a.json --save b.json
refuses 'takes the ids of one text' tokenize text.txt text.txt --train-bpe 300 -o t.tok
refuses 'takes the ids of one text' tokenize text.txt text.txt -o t.tok
rm -f stdout stderr
[ -z "$(ls -A)" ] || fail "wrong usage left files behind: $(ls -A)"
