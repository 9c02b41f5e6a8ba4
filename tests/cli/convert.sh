#!/usr/bin/env bash
# Models from format to format: the same bytes come back, each is proved, nothing half-written lies
# about, and every command takes every format.
. "$ROOT/tests/lib.sh"

small=$KILN_DATA/stories260K.bin tok=$KILN_DATA/tok512.bin folder=$KILN_DATA/hf-story
need "$small"
need "$folder"

# bin -> folder -> gguf -> bin
bin=$KILN_DATA/story656K.bin
expect 0 "$KILN" convert "$bin" hf
says stdout 'weights differ by 0 at most, logits of 16 tokens by 0'
expect 0 "$KILN" convert hf a.gguf
expect 0 "$KILN" convert a.gguf back.bin
cmp back.bin "$bin" || fail 'other bytes came back'

# The rms eps of the folder has no place in a .bin.
expect 1 "$KILN" convert "$folder" story.bin
says stderr 'rms_eps'
[ ! -e story.bin ] || fail 'a .bin was written that means something else'
expect 0 "$KILN" convert "$folder" story.bin --rms-eps 1e-5
cmp story.bin "$bin" || fail 'folder and .bin differ'

# Every dtype, in JSON too.
for dtype in f32 f16 bf16 q8_0; do
    expect 0 "$KILN" convert "$small" "$dtype.gguf" --dtype "$dtype" --json
    grep -q '"format": "GGUF".*"proof": {"weights": ' stdout || fail "no proof: $(cat stdout)"
done
expect 0 "$KILN" inspect q8_0.gguf
says stdout 'a model, GGUF format'
grep -Eq 'wq\.0 +64x64 q8_0' stdout || fail 'inspect shows no dtype'
grep -Eq 'rms_final +64 f32' stdout || fail 'a norm is not f32'
expect 1 "$KILN" convert "$small" q --dtype q8_0
says stderr 'not q8_0'
expect 2 "$KILN" convert "$small" q --dtype q4_0
says stderr 'use f32, f16, bf16 or q8_0'

# What exists stays, unless told otherwise; a folder that is no model stays always.
expect 1 "$KILN" convert "$small" hf
says stderr '--force'
expect 0 "$KILN" convert "$small" hf --force
expect 0 "$KILN" inspect hf
says stdout 'Hugging Face format'
says stdout 'vocab 512'
touch hf/tokenizer.json hf/chat_template.jinja # of names that kiln writes
expect 0 "$KILN" convert "$small" hf --force
[ ! -e hf/chat_template.jinja ] || fail 'what was there before lies beside the model'
for mine in README.md .notes model-00001-of-00002.safetensors; do
    touch "hf/$mine"
    expect 1 "$KILN" convert "$small" hf --force
    says stderr "it holds $mine"
    [ -e "hf/$mine" ] || fail "$mine is lost"
    [ -s hf/model.safetensors ] || fail 'the model is lost'
    rm "hf/$mine"
done
mkdir home && touch home/diary
expect 1 "$KILN" convert "$small" home --force
[ -e home/diary ] || fail 'somebody lost a diary'

# The tokenizer goes along.
expect 0 "$KILN" convert "$folder" copy --dtype bf16
cmp copy/tokenizer.json "$folder/tokenizer.json" || fail 'the tokenizer did not go along'

expect 0 "$KILN" convert "$KILN_DATA/stories260K.gguf" with.gguf
says stdout 'with its tokenizer: inside'
expect 0 "$KILN" generate with.gguf --precision fp32 -t 0 -n 40 -p 'Once'
mv stdout inside
expect 0 "$KILN" convert with.gguf with
expect 0 "$KILN" generate with --precision fp32 -t 0 -n 40 -p 'Once'
cmp stdout inside || fail 'the tokenizer of the folder is another'

# Every command takes every format.
told() { "$KILN" generate "$1" --tokenizer "$tok" --precision fp32 -t 0 -n 40 -p 'Once'; }
told "$small" >want
for model in hf f32.gguf "$KILN_DATA/stories260K.gguf"; do
    told "$model" >got
    cmp got want || fail "$model tells another story"
done
expect 0 "$KILN" plan --model f32.gguf
expect 0 "$KILN" plan --model hf
expect 0 "$KILN" train --model hf --data "$KILN_DATA/tinyshakespeare.txt" --tokenizer "$tok" \
    --steps 1 --accum 1 --batch 1 --seq 32 --out run
expect 0 "$KILN" convert run run.gguf

# Shards that are missing, files that are cut.
head -c 100000 f32.gguf >cut.gguf
expect 1 "$KILN" inspect cut.gguf
says stderr 'outside of the file'
expect 1 "$KILN" convert cut.gguf out.bin
truncate -s -4 hf/model.safetensors
expect 1 "$KILN" convert hf out.bin
says stderr 'outside of the file'
[ ! -e out.bin ] || fail 'something lies at OUT'
! compgen -G '*.tmp-*' || fail 'something half-written lies about'
