#!/usr/bin/env bash
# Tokenizers give the ids of the packages `tokenizers` and `sentencepiece` on mixed Unicode text, and
# what kiln writes gives them there, too. KILN_LAB_MIB: how much text (1; 10 in a long run).
. "$ROOT/tests/lib.sh"

python=${KILN_PYTHON:-$ROOT/.venv/bin/python}
"$python" -c 'import tokenizers, sentencepiece' 2>/dev/null ||
    skip 'no python with tokenizers and sentencepiece (KILN_PYTHON names one)'
lab() { "$python" "$ROOT/tests/text/tokenizers_lab.py" "$@"; }
same() { lab compare "$KILN" "$@" || fail "$1: ids differ"; }

lab text "${KILN_LAB_MIB:-1}" mixed.txt
lab text 0.3 small.txt

# in the shapes of real files, each also written by kiln and read by the package
for shape in gpt2 gpt2-prefix llama3 qwen2 qwen3 digits split-removed split-merged_with_previous \
    split-merged_with_next split-contiguous; do
    lab train "$shape" small.txt "$shape.json"
    lossless=
    case $shape in gpt2 | llama3) lossless=lossless ;; esac
    same "$shape.json" mixed.txt "$shape.json" $lossless
    "$KILN" tokenize small.txt --tokenizer "$shape.json" --save "mine-$shape.json"
    same "mine-$shape.json" mixed.txt "$shape.json"
done

for options in '' 'remove_extra_whitespaces=True user_defined_symbols=<sep>' 'byte_fallback=False' \
    'add_dummy_prefix=False'; do
    # shellcheck disable=SC2086
    lab spm small.txt spm $options
    lab compare-spm "$KILN" spm.model mixed.txt || fail "SentencePiece, $options: ids differ"
done
lab spm small.txt spm
"$KILN" tokenize small.txt --tokenizer spm.model --save mine-spm.json
same mine-spm.json mixed.txt spm.model

lab spm small.txt unigram model_type=unigram
expect 1 "$KILN" tokenize small.txt --ids --tokenizer unigram.model
says stderr Unigram
lab spm small.txt mapped normalization_rule_name=nmt_nfkc
expect 1 "$KILN" tokenize small.txt --ids --tokenizer mapped.model
says stderr nmt_nfkc

# real files
[ -e "${KILN_DATA:-/none}/tokenizers/llama2.json" ] || exit 0
for file in tokenizers/gpt2bpe.json tokenizers/llama2.json hf-story/tokenizer.json; do
    same "$KILN_DATA/$file" mixed.txt "$KILN_DATA/$file"
    rm -rf mine
    mkdir mine
    "$KILN" tokenize small.txt --tokenizer "$KILN_DATA/$file" --save mine/tokenizer.json
    same mine/tokenizer.json mixed.txt mine
done
