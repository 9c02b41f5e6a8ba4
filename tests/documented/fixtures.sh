# shellcheck shell=bash
# Files of the names that documents use, made by kiln: in fixtures/, their names in `names`. Part of
# tests/cli/documented.sh.

: "${here:?}"
mkdir fixtures
cd fixtures || exit 1

# ---- texts and vocabularies ---------------------------------------------------------------------
(cd "$ROOT" && cat README.md docs/*.md) >book.txt
cp book.txt stories.txt
head -c 60000 book.txt | tee more.txt held-out.txt TEXT >/dev/null
for i in $(seq 400); do
    echo "{\"messages\": [{\"role\": \"user\", \"content\": \"What is $i and $i?\"}," \
        "{\"role\": \"assistant\", \"content\": \"It is $((i * 2)), as far as I can tell.\"}]}"
done >chat.jsonl
for i in $(seq 400); do echo "{\"text\": \"Letter $i says that all is well, and $i times so.\"}"; done |
    gzip >letters.jsonl.gz
expect 0 "$KILN" tokenize book.txt --train-bpe 512 -o tok512.bin
expect 0 "$KILN" tokenize book.txt --train-bpe 512 -o tokenizer.json
expect 0 "$KILN" tokenize more.txt -o more.tok
for name in tok.bin tok2048.bin; do cp tok512.bin $name; done
cp book.txt D
cp tok512.bin T

# ---- models of these vocabularies ---------------------------------------------------------------
tiny=(--data more.txt --dim 32 --hidden 64 --heads 4 --kv-heads 2 --layers 2 --steps 1 --batch 1 --accum 1
    --eval-every 0)
expect 0 "$KILN" train "${tiny[@]}" --seq 512 --tokenizer tok512.bin --steps 2 --save-every 1 --out llama2c
for name in stories260K.bin stories110M.bin story656K.bin model.bin m.bin IN; do
    cp llama2c/model.bin $name
done
expect 0 "$KILN" train "${tiny[@]}" --seq 256 --tokenizer tokenizer.json --out learned
expect 0 "$KILN" convert learned MODEL
cat >MODEL/chat_template.jinja <<'END'
{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] + '</>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<assistant>' }}{% endif %}
END
for name in Qwen2.5-0.5B-Instruct Qwen2.5-0.5B hf-story; do cp -r MODEL $name; done
expect 0 "$KILN" convert MODEL base.bin
expect 0 "$KILN" train --model MODEL --data chat.jsonl --lora 8 --lora-alpha 16 --seq 32 --steps 2 --batch 1 --accum 1 --out RUN
mkdir -p runs/demo
for name in runs/NAME runs/demo/run runs/helper runs/tuned runs/a runs/b runs/mine; do cp -r RUN $name; done
for name in runs/book runs/stories15m-book; do cp -r llama2c $name; done
# Two runs in which something was planted, for docs/explain.md.
for i in $(seq 600); do
    echo "The $i birds sang to the $((i * 7 % 100)) old trees by the river."
done >birds.txt
planted() { # CODE WHAT RUN
    expect "$1" env KILN_PLANT="$2" "$KILN_TEST_PROGRAM" train --data birds.txt --dim 32 --hidden 64 --heads 4 \
        --kv-heads 2 --layers 4 --vocab 259 --seq 32 --batch 2 --accum 2 --steps 104 --lr 3e-3 --warmup 2 \
        --eval-every 0 --precision fp32 --on-spike skip --spike-z 4 --out "$3"
}
planted 1 weight:w1.3@100 runs/damaged
planted 0 batch@100 runs/birds
cat >anybodys.mil <<'END'
program(1.3) { func main<ios18>(tensor<fp16, [1,64,1,768]> x) {
tensor<fp16, [1,64,1,768]> y = relu(x = x);
} -> (y); }
END

# The profile that docs/distributed.md shows.
sed -n '/^{"kiln_profile"/,/^```/p' "$ROOT/docs/distributed.md" | sed '$d' >node.json

# ---- what may be absent -------------------------------------------------------------------------
for name in DIR REF; do
    [ ! -e "${KILN_REFERENCE:-}/tiny-mha" ] || cp -r "$KILN_REFERENCE/tiny-mha" $name
done
"$KILN" train "${tiny[@]}" --seq 32 --dw gpu --out gpu >stdout 2>&1 && touch opencl
mkdir -m 700 staged
TEMP=$PWD/staged "$KILN_TEST_PROGRAM" train "${tiny[@]}" --seq 32 --device ane --out ane >stdout 2>&1 &&
    touch fakes
# llama2.c, where LLAMA2C names a checkout of it, as for bench/peers/generate.
[ ! -e "${LLAMA2C:-}/run.c" ] || gcc -O1 -w -o run "$LLAMA2C/run.c" -lm
export TEMP=$PWD/staged # GNUstep's NSTemporaryDirectory
find . -mindepth 1 -printf '%P\n' | grep -vE '^(stdout|stderr|run|opencl|fakes|runs|runs/demo|staged|.*/.*/.*|(RUN|MODEL|Q|hf|llama2c|learned|gpu|ane|DIR|REF)[^/]*/.*)$' >../names
printf '%s\n' runs/demo/run >>../names
cd "$here" || exit 1

# sandbox FOLDER: with the program, and what a reader has of the repository.
sandbox() {
    local name
    mkdir -p "$1/bin" "$1/build" "$1/shm"
    for name in bench scripts profiles; do ln -s "$ROOT/$name" "$1/$name"; done
    for name in bin/kiln build/kiln A B; do ln -s "$PWD/$1/program" "$1/$name"; done
    [ ! -e fixtures/run ] || cp fixtures/run "$1/bin/run"
    [[ $1 != */examples/* ]] || cp "$ROOT/examples/"*.c "$1"
    # Of make only what it would do: that there is such a target.
    printf '#!/bin/sh\nexec %s -C "%s" -n "$@" >/dev/null\n' "$real_make" "$ROOT" >"$1/bin/make"
    chmod +x "$1/bin/make"
    export PATH=$PWD/$1/bin:$plain_path
}
# Programs are built against the library that is here, as if it were installed.
mkdir installed
for name in libkiln.so libkiln.so.0; do ln -s "$(dirname "$KILN")/libkiln.so" installed/$name; done
printf 'Name: kiln\nDescription: kiln\nVersion: 0\nCflags: -I%s\nLibs: -L%s -Wl,-rpath,%s -lkiln\n' \
    "$ROOT/include" "$PWD/installed" "$PWD/installed" >installed/kiln.pc
export PKG_CONFIG_PATH=$PWD/installed
plain_path=$PATH real_make=$(command -v make)
